"""Hours of a simulated site in the store, tick by tick, with what an agent may fail to read left out."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from clickhouse_connect.driver.client import Client
from numpy.typing import NDArray

from catalogue import GPU
from collectors.simulator import SimulatorSource
from reports.efficiency_queries import Window
from simulation import Simulation, Site
from storage.topology import recompute_places
from storage.writer import Writer
from stream.messages import EventMessage, JobMessage
from stream.topics import EVENTS, INVENTORY, JOBS
from tests.servers.efficiency_site import tell

Rows = NDArray[Any]  # structured by the table's layout
LEAD = timedelta(hours=2)  # outages that began before the window are part of it
LAG = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class TickedSite:
    """What was stored, and the simulation that knows the truth of it."""

    simulation: Simulation
    window: Window
    tick_s: int

    @property
    def gpus(self) -> list[int]:
        found: list[int] = self.simulation.site.gpu_ids.ravel().tolist()
        return found


def fill_hours(
    client: Client,
    *,
    gpus: int,
    hours: int,
    tick_s: int,
    seed: int,
    fault_rate: float,
    keep: Callable[[Rows], Rows] = lambda rows: rows,
) -> TickedSite:
    """Store the readings of GPUs over some hours of a recent day, and everything that happened; `keep` thins them."""
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=4)
    window = Window(day + timedelta(hours=9), day + timedelta(hours=9 + hours))
    start_s, end_s = int((window.start - LEAD).timestamp()), int((window.end + LAG).timestamp())
    simulation = Simulation(Site.build(gpus, seed), start_s, fault_rate=fault_rate)
    source = SimulatorSource(simulation)
    found = [
        reading.rows
        for readings in source.backfill(start_s, end_s, tick_s, tick_s)
        for reading in readings
        if reading.table is GPU
    ]
    Writer(client).insert_rows(GPU.name, keep(np.concatenate(found)), token=f"gpu {seed}")
    tell(client, INVENTORY, source.inventory())
    told = source.events()
    tell(client, EVENTS, [message for message in told if isinstance(message, EventMessage)])
    tell(client, JOBS, [message for message in told if isinstance(message, JobMessage)])
    recompute_places(client)
    return TickedSite(simulation, window, tick_s)
