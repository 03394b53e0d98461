"""What the host of each tray shows: processors, memory, disk, network."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulation import power
from simulation.columns import Columns

Floats = NDArray[np.float64]

# Host figures of a tray: two Grace processors of 72 cores and 480 GB each. Rates are round guesses.
TRAY_MEMORY_BYTES = 2 * 480e9
TRAY_DISK_BYTES = 3.84e12  # the file system that holds the spool
DISK_BYTES_PER_S = 2e6
NETWORK_BYTES_PER_S = 3e8  # front-end network at full drive
CORES = 144.0


@dataclass(frozen=True, slots=True, eq=False)
class HostView:
    """What a host's columns follow from, shape (trays,)."""

    job: NDArray[Any]  # the scheduler's slot of the tray's job
    busy: NDArray[np.bool_]
    drive: Floats
    dt_s: float  # since the previous reading
    uptime_s: Floats
    coolant_c: Floats


def host_columns(view: HostView) -> Columns:
    """What the operating system of each tray says; amounts are of `dt_s`."""
    job, busy, dt_s = view.job, view.busy, view.dt_s
    work = np.where(busy, 0.02 + job["processor"] * (0.5 + 0.5 * view.drive), 0.01)
    traffic = NETWORK_BYTES_PER_S * dt_s * np.where(busy, 0.1 + 0.9 * job["processor"], 0.001)
    everywhere = np.ones(len(busy))
    return {
        "processor_power_watts": np.where(busy, power.PROCESSORS_BUSY_W, power.PROCESSORS_IDLE_W),
        "processor_utilization_ratio": work,
        "load_count": CORES * work,
        "memory_used_bytes": TRAY_MEMORY_BYTES * np.where(busy, 0.1 + 0.6 * job["memory"], 0.03),
        "memory_size_bytes": TRAY_MEMORY_BYTES * everywhere,
        "disk_used_bytes": TRAY_DISK_BYTES * 0.21 * everywhere,
        "disk_size_bytes": TRAY_DISK_BYTES * everywhere,
        "disk_read_bytes": np.rint(DISK_BYTES_PER_S * dt_s * work),
        "disk_written_bytes": np.rint(DISK_BYTES_PER_S * dt_s * (0.2 + work)),
        "network_received_bytes": np.rint(traffic),
        "network_sent_bytes": np.rint(0.7 * traffic),
        "network_errors_count": np.zeros(len(busy)),
        "processor_temperature_celsius": view.coolant_c + 6.0 + 30.0 * work,
        "process_count": np.where(busy, 900.0, 620.0),
        "uptime_seconds": np.floor(view.uptime_s),
    }
