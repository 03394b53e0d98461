"""What a GPU's sensors show, from what its job and its faults make it do."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalogue import gpu as catalogue_gpu
from simulation import power, thermal

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MEBIBYTE = 1 << 20
MEMORY_SIZE_BYTES = 284_208.0 * MEBIBYTE  # GB300: 288 GB of HBM3e less error correction
MEMORY_RESERVED_BYTES = 1_100.0 * MEBIBYTE
SM_CLOCK_HZ = 1_920e6
IDLE_CLOCK_HZ = 345e6
MEMORY_CLOCK_HZ = 3_996e6
CLOCK_STEP_HZ = 15e6  # clocks move in steps of 15 MHz
CAPPED_CLOCK_SHARE = 0.07  # what the power cap takes off the clock at full drive
NOISE_SHARE = 0.004  # power sensor, 1 sigma
COLD_PLATE_OFFSET_K = 3.0
MEMORY_POWER_IDLE_W = 30.0
MEMORY_POWER_SHARE = 0.17  # of the board's power above idle
CAP_SEEN_FROM = 0.3  # share of a second at the cap from which the reason bit shows
TRIPPED_RESISTANCE_FACTOR = 2.8  # little flow: the film on the plate insulates

_BITS = {name: bit for bit, name in catalogue_gpu.CLOCK_EVENT_REASONS}
_STATES = {name: state for state, name in catalogue_gpu.GPU_STATES}


@dataclass(frozen=True, slots=True, eq=False)
class GpuView:
    """What the columns follow from; (trays, 4) unless said otherwise. `job` is the slot of each tray."""

    job: NDArray[np.void]  # (trays,)
    drive: Floats  # (trays,), w(t) at this instant
    drive_mean: Floats  # (trays,), over the last second
    floor_w: Floats
    swing_w: Floats
    energy_j: Floats  # since the previous reading
    capped_s: Floats  # likewise
    held_s: Floats  # (3, trays, 4), likewise: software thermal, hardware thermal, power brake
    plate_w: Floats  # power as the cold plate feels it
    coolant_c: Floats  # (trays,)
    processor_w: Floats  # (trays,)
    silicon: Floats
    noise: Floats  # standard normal
    working: Bools
    capped: Bools
    poor_contact: Bools
    tripped: Bools
    brake: Bools
    dark: Bools


def gpu_columns(view: GpuView) -> dict[str, Floats]:
    """Every metric of the gpu table in base units, shape (trays, 4); a dark GPU shows only its state."""
    columns = {**_powers(view), **_temperatures(view), **_clocks(view), **_activity(view), **_links(view)}
    columns |= {**_throttling(view), **_state(view)}
    shape = view.dark.shape
    full = {
        name: column if column.shape == shape else np.broadcast_to(column, shape) for name, column in columns.items()
    }
    if view.dark.any():
        full = {name: np.where(view.dark, np.nan, column) for name, column in full.items()}
    full["gpu_state"] = np.where(view.dark, float(_STATES["dark"]), float(_STATES["readable"]))
    return full


def limits_w(poor_contact: Bools | np.bool_, tripped: Bools | np.bool_, brake: Bools) -> Floats:
    """The power that the board may draw, in W."""
    factor = np.where(brake, power.BRAKE_FACTOR, 1.0)
    factor = np.where(poor_contact, np.minimum(factor, power.SOFTWARE_THERMAL_FACTOR), factor)
    factor = np.where(tripped, np.minimum(factor, power.HARDWARE_THERMAL_FACTOR), factor)
    limits: Floats = power.GPU_LIMIT_W * factor
    return limits


def _powers(view: GpuView) -> dict[str, Floats]:
    sensor = 1 + NOISE_SHARE * view.noise
    now = (view.floor_w + view.swing_w * view.drive[:, None]) * sensor
    mean = view.floor_w + view.swing_w * view.drive_mean[:, None]
    superchips = mean.reshape(-1, 2, 2).sum(axis=-1) + view.processor_w[:, None] / 2
    above_idle = np.maximum(mean - power.GPU_IDLE_W, 0.0)
    return {
        "power_watts": np.clip(now, power.GPU_LOWEST_W, power.GPU_HIGHEST_W),
        "power_average_watts": mean,
        "module_power_watts": np.repeat(superchips, 2, axis=1),
        "memory_power_watts": MEMORY_POWER_IDLE_W + MEMORY_POWER_SHARE * above_idle,
        # Thermal slowdown acts on clocks, not on the limit; a power brake shows as a lower limit.
        "power_limit_watts": limits_w(np.False_, np.False_, view.brake),
        "energy_joules": view.energy_j,
    }


def _temperatures(view: GpuView) -> dict[str, Floats]:
    resistance = thermal.GPU_KELVIN_PER_WATT / view.silicon
    resistance = np.where(view.poor_contact, resistance * thermal.POOR_CONTACT_FACTOR, resistance)
    resistance = np.where(view.tripped, resistance * TRIPPED_RESISTANCE_FACTOR, resistance)
    die = view.coolant_c[:, None] + COLD_PLATE_OFFSET_K + resistance * view.plate_w
    return {
        "temperature_celsius": die,
        "memory_temperature_celsius": die + thermal.MEMORY_KELVIN + thermal.MEMORY_KELVIN_PER_WATT * view.plate_w,
        "temperature_margin_kelvin": thermal.SLOWDOWN_C - die,
    }


def _clocks(view: GpuView) -> dict[str, Floats]:
    limit = limits_w(view.poor_contact, view.tripped, view.brake) / power.GPU_LIMIT_W
    share = (1 - CAPPED_CLOCK_SHARE * (view.capped * view.drive_mean[:, None])) * limit**0.5
    clock = np.where(view.working, SM_CLOCK_HZ * share, IDLE_CLOCK_HZ)
    stepped = np.round(clock / CLOCK_STEP_HZ) * CLOCK_STEP_HZ
    return {
        "sm_clock_hertz": stepped,
        "graphics_clock_hertz": stepped,
        "memory_clock_hertz": np.full((1, 1), MEMORY_CLOCK_HZ),
    }


def _activity(view: GpuView) -> dict[str, Floats]:
    """Shares of time or cycles; activity follows the same drive as power does."""
    quiet = view.job["quiet"]
    drive = (quiet + (1 - quiet) * view.drive_mean)[:, None] * view.working
    skewed = drive * np.clip(view.silicon, 0.97, 1.03)
    names = {
        "sm_active_ratio": "sm",
        "sm_occupancy_ratio": "occupancy",
        "tensor_active_ratio": "tensor",
        "dram_active_ratio": "dram",
        "fp64_active_ratio": "fp64",
        "fp32_active_ratio": "fp32",
        "fp16_active_ratio": "fp16",
    }
    columns = {name: np.minimum(skewed * view.job[key][:, None], 1.0) for name, key in names.items()}
    columns["graphics_active_ratio"] = np.minimum(columns["sm_active_ratio"] * 1.04, 1.0)
    # "Any kernel resident" is almost always true of a busy GPU, however little it does.
    columns["utilization_ratio"] = np.where(view.working, np.minimum(0.55 + 0.45 * drive, 1.0), 0.0)
    columns["memory_copy_utilization_ratio"] = columns["dram_active_ratio"]
    columns["encoder_utilization_ratio"] = columns["decoder_utilization_ratio"] = np.zeros((1, 1))
    return columns


def _links(view: GpuView) -> dict[str, Floats]:
    """NVLink is busiest while the tensor pipes wait for it; PCIe and C2C follow the drive."""
    drive = view.drive_mean[:, None] * view.working
    waiting = (1 - 0.6 * view.drive_mean)[:, None] * view.working
    nvlink = waiting * view.job["nvlink"][:, None]
    pcie = drive * view.job["pcie"][:, None] * view.silicon
    c2c = drive * view.job["c2c"][:, None] * view.silicon
    return {
        "nvlink_transmit_bytes_per_second": nvlink * view.silicon,
        "nvlink_receive_bytes_per_second": nvlink,
        "pcie_transmit_bytes_per_second": 0.6 * pcie,
        "pcie_receive_bytes_per_second": pcie,
        "c2c_transmit_bytes_per_second": 0.8 * c2c,
        "c2c_receive_bytes_per_second": c2c,
    }


def _throttling(view: GpuView) -> dict[str, Floats]:
    capping = view.capped & (view.drive_mean > CAP_SEEN_FROM)[:, None]
    slowed = view.tripped | view.brake
    reasons = (
        _BITS["idle"] * ~view.working
        + _BITS["software power cap"] * capping
        + _BITS["hardware slowdown"] * slowed
        + _BITS["software thermal"] * view.poor_contact
        + _BITS["hardware thermal"] * view.tripped
        + _BITS["hardware power brake"] * view.brake
    )
    return {
        "clock_event_reasons": reasons.astype(np.float64),
        "throttled_power_cap_seconds": view.capped_s,
        "throttled_sync_boost_seconds": np.zeros((1, 1)),
        "throttled_software_thermal_seconds": view.held_s[0],
        "throttled_hardware_thermal_seconds": view.held_s[1],
        "throttled_power_brake_seconds": view.held_s[2],
    }


def _state(view: GpuView) -> dict[str, Floats]:
    used = view.job["memory"][:, None] * (MEMORY_SIZE_BYTES - MEMORY_RESERVED_BYTES)
    return {
        "memory_used_bytes": used * view.working,
        "memory_reserved_bytes": np.full((1, 1), MEMORY_RESERVED_BYTES),
        "memory_size_bytes": np.full((1, 1), MEMORY_SIZE_BYTES),
        "performance_state": np.zeros((1, 1)),
        "process_count": view.job["processes"][:, None] * view.working,
    }
