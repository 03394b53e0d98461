"""What changes in a simulated site, as arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulation.faults import Effect
from simulation.site import FIRST_IT_METER, Site
from simulation.truth import GpuCondition

Floats = NDArray[np.float64]


@dataclass(slots=True, eq=False)
class State:
    """Everything that changes, apart from records. A trailing 4 is GPUs of a tray; times in s, energies in J.

    Trays carry their own mark: totals are settled up to `mark_s`, at which their job's W was `mark_wave`.
    """

    effects: NDArray[np.int16]  # (effects, trays, 4), outages that have the effect
    floor_w: Floats  # (trays, 4)
    swing_w: Floats  # (trays, 4)
    capped: Floats  # (trays, 4), 1 where the swing reaches the limit
    held: Floats  # (3, trays, 4), 1 where slowed by software thermal, hardware thermal, power brake
    tray_floor_w: Floats
    tray_swing_w: Floats
    mark_s: Floats
    mark_wave: Floats
    gpu_j: Floats
    tray_j: Floats
    capped_s: Floats
    held_s: Floats
    condition: NDArray[np.int64]  # (trays, 4)
    condition_s: Floats  # (4 conditions, trays, 4)
    boot_s: Floats  # (trays,)
    rack_extra_w: Floats
    rack_extra_j: Floats
    rack_mark_s: Floats
    rack_leaks: NDArray[np.int64]
    rack_brakes: NDArray[np.int64]
    cdu_trips: NDArray[np.int64]
    plate_w: Floats  # (trays, 4)
    plate_heat_w: Floats  # (racks,)
    rack_heat_w: Floats
    valve: Floats
    loop_heat_w: Floats
    trip_k: Floats  # (cdus,)
    pump_w: Floats
    rack_total_j: Floats
    rack_liquid_j: Floats
    meter_j: Floats
    heat_j: Floats  # handed over, rejected
    heat_volume: Floats
    air_j: Floats  # (1,)
    gpu_read_j: Floats
    gpu_read_capped_s: Floats
    gpu_read_held_s: Floats
    gpu_read_s: Floats  # (1,)
    tray_read_j: Floats
    tray_read_s: Floats  # (1,)
    trouble: NDArray[np.int64]  # (trays, 4), place in health.TRACES of what is not repaired yet
    loaded_s: Floats  # (trays, 4), when the driver was last loaded
    errors: Floats  # (trays, 4), memory errors that could not be corrected
    errors_loaded: Floats  # likewise, as of when the driver was loaded
    remapped: Floats  # (trays, 4), rows
    lost_links: Floats  # (trays, 4)
    port_downs: Floats  # (trays, 4)
    health_read_s: Floats  # (1,)
    lost_links_read: Floats
    port_read_s: Floats  # (1,)
    port_downs_read: Floats

    @classmethod
    def new(cls, site: Site, start_s: float) -> "State":
        trays, racks, cdus, halls = site.trays, site.racks, site.cdus, site.halls
        gpu, each = (trays, 4), np.zeros
        return cls(
            effects=np.zeros((len(Effect), *gpu), dtype=np.int16),
            floor_w=each(gpu),
            swing_w=each(gpu),
            capped=each(gpu),
            held=each((3, *gpu)),
            tray_floor_w=each(trays),
            tray_swing_w=each(trays),
            mark_s=np.full(trays, start_s),
            mark_wave=each(trays),
            gpu_j=each(gpu),
            tray_j=each(trays),
            capped_s=each(gpu),
            held_s=each((3, *gpu)),
            condition=np.zeros(gpu, dtype=np.int64),
            condition_s=each((len(GpuCondition), *gpu)),
            boot_s=np.full(trays, start_s),
            rack_extra_w=each(racks),
            rack_extra_j=each(racks),
            rack_mark_s=np.full(racks, start_s),
            rack_leaks=np.zeros(racks, dtype=np.int64),
            rack_brakes=np.zeros(racks, dtype=np.int64),
            cdu_trips=np.zeros(cdus, dtype=np.int64),
            plate_w=each(gpu),
            plate_heat_w=each(racks),
            rack_heat_w=each(racks),
            valve=each(racks),
            loop_heat_w=each(halls),
            trip_k=each(cdus),
            pump_w=each(cdus),
            rack_total_j=each(racks),
            rack_liquid_j=each(racks),
            meter_j=each(FIRST_IT_METER + halls),
            heat_j=each(2),
            heat_volume=each(2),
            air_j=each(1),
            gpu_read_j=each(gpu),
            gpu_read_capped_s=each(gpu),
            gpu_read_held_s=each((3, *gpu)),
            gpu_read_s=np.full(1, start_s),
            tray_read_j=each(trays),
            tray_read_s=np.full(1, start_s),
            trouble=np.zeros(gpu, dtype=np.int64),
            loaded_s=np.full(gpu, start_s),
            errors=each(gpu),
            errors_loaded=each(gpu),
            remapped=each(gpu),
            lost_links=each(gpu),
            port_downs=each(gpu),
            health_read_s=np.full(1, start_s),
            lost_links_read=each(gpu),
            port_read_s=np.full(1, start_s),
            port_downs_read=each(gpu),
        )
