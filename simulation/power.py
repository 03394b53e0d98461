"""Electrical figures of GPUs, trays and racks, and the losses on the way from the grid.

Names of constants carry the unit: W watts. Losses are shares of what passes through.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

GPU_LIMIT_W = 1400.0  # GB300's enforced limit
GPU_IDLE_W = 150.0  # B200 class idles at 140 to 200 W
GPU_LOWEST_W = 65.0  # the band in which a GB200/GB300 reading is plausible: 65 to 1500 W
GPU_HIGHEST_W = 1500.0

# A tray outside its GPUs: two Grace processors, four 800 Gb/s NICs, a DPU, drives.
PROCESSORS_IDLE_W = 180.0
PROCESSORS_BUSY_W = 520.0
NETWORK_IDLE_W = 250.0
NETWORK_BUSY_W = 330.0
STANDBY_W = 60.0  # a tray that is off: its management controller
REGULATOR_LOSS = 0.03  # board power leaves out the regulators upstream of the board

# A rack outside its trays: nine NVLink switch trays, whose links draw more when trays work.
SWITCHES_W = 9 * 600.0
SWITCH_PER_BUSY_TRAY_W = 150.0
SHELF_EFFICIENCY = 0.975  # titanium-class supplies at half to full load
SUPPLIES_PER_RACK = 48  # 8 power shelves of 6 supplies, 5.5 kW each
SUPPLIES_PER_SHELF = 6

LIQUID_FRACTION = 0.87  # of rack power; 85 to 90 % go to liquid, the rest to air

DISTRIBUTION_LOSS = 0.012  # busbars and PDUs between the IT meter and the racks
UPS_LOSS = 0.025  # UPS and transformers between the grid meter and the IT meters
AUXILIARY_LOSS = 0.008  # transformers between the grid meter and the cooling and other meters

# Lighting, offices, security: a fixed part and one that grows with the floor.
OTHER_FIXED_W = 1_000.0
OTHER_PER_RACK_W = 600.0

# The board's limit as a share of GPU_LIMIT_W while the cause lasts.
BRAKE_FACTOR = 0.70  # power brake: a power shelf is lost
HARDWARE_THERMAL_FACTOR = 0.50  # the CDU tripped
SOFTWARE_THERMAL_FACTOR = 0.75  # one cold plate with poor contact


def full_load_rack_watts(trays: ArrayLike) -> Floats:
    """Draw of a rack of `trays` trays with every GPU at its limit; 18 trays: 120 to 142 kW is published."""
    gpus = 4 * GPU_LIMIT_W * (1 + REGULATOR_LOSS)
    tray = gpus + PROCESSORS_BUSY_W + NETWORK_BUSY_W + SWITCH_PER_BUSY_TRAY_W
    watts: Floats = (np.asarray(trays, dtype=np.float64) * tray + SWITCHES_W) / SHELF_EFFICIENCY
    return watts


def other_watts(racks: int, working_hours: float) -> float:
    """Lighting and offices; `working_hours` is 0 at night and 1 at noon."""
    return (OTHER_FIXED_W + OTHER_PER_RACK_W * racks) * (0.8 + 0.4 * working_hours)


def site_watts(it: Floats, cooling: float, other: float) -> float:
    """What the grid meter sees, from the other meters; works on joules as well."""
    return float(it.sum()) * (1 + UPS_LOSS) + (cooling + other) * (1 + AUXILIARY_LOSS)
