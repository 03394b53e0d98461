"""A simulated site in the store, as its agents would have sent it, beside what really happened there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import numpy as np
from clickhouse_connect.driver.client import Client

from collectors.simulator import SimulatorSource
from reports.period import Period
from simulation import Simulation, Site
from storage.topology import recompute_places
from storage.writer import Writer
from stream.batch import MessageBatcher, Record
from stream.messages import EventMessage, InventoryMessage, JobMessage, Message, encode_message
from stream.plan import Plan, Range
from stream.seen import SeenFrames
from stream.topics import EVENTS, INVENTORY, JOBS, Topic

GPU_TICK_S, FACILITY_TICK_S = 300, 60


@dataclass(frozen=True, slots=True)
class FilledSite:
    """What was stored, and the simulation that knows the truth of it."""

    simulation: Simulation
    period: Period
    now: datetime


def recent_day() -> Period:
    """A whole day of UTC that every tier still keeps: rows that are older than their TTL vanish at insert."""
    return Period.parse(f"{datetime.now(UTC) - timedelta(days=4):%Y-%m-%d}", "UTC")


def fill_site(
    client: Client,
    *,
    gpus: int,
    seed: int,
    fault_rate: float,
    lead_h: int = 6,
    rename: Callable[[Message], Message] = lambda message: message,
) -> FilledSite:
    """Store `lead_h` hours before a recent day, the day, and an hour after it; ticks as in a backfill.

    `rename` changes what messages call things before they are sent.
    """
    period = recent_day()
    start_s, end_s = int(period.start.timestamp()) - lead_h * 3600, int(period.end.timestamp()) + 3600
    simulation = Simulation(Site.build(gpus, seed), start_s, fault_rate=fault_rate)
    source = SimulatorSource(simulation)
    writer = Writer(client)
    for number, readings in enumerate(source.backfill(start_s, end_s, GPU_TICK_S, FACILITY_TICK_S)):
        for table in sorted({reading.table.name for reading in readings}):
            rows = np.concatenate([reading.rows for reading in readings if reading.table.name == table])
            writer.insert_rows(table, rows, token=f"{table} {seed} {number}")
    tell(client, INVENTORY, [rename(message) for message in source.inventory()])
    told = [rename(message) for message in source.events()]
    tell(client, EVENTS, [message for message in told if isinstance(message, EventMessage)])
    tell(client, JOBS, [message for message in told if isinstance(message, JobMessage)])
    recompute_places(client)
    return FilledSite(simulation, period, period.end + timedelta(hours=2))


def tell(client: Client, topic: Topic, messages: Sequence[Message], *, at: datetime | None = None) -> None:
    """Store messages as ingest does: checked, as one insert; `at` is when ingest saw them."""
    if not messages:
        return
    seen_ms = int((at or datetime.now(UTC)).timestamp() * 1000)
    plan = Plan(topic.name, uuid4(), (Range(0, 0, len(messages)),), seen_ms, 0)
    records = [Record(0, place, encode_message(message)) for place, message in enumerate(messages)]
    batch = MessageBatcher(topic).build(plan, records, SeenFrames())
    assert batch.rejected == []
    Writer(client).insert_messages(topic.name.rpartition(".")[2], batch.messages, token=plan.token)


__all__ = ["EventMessage", "FilledSite", "InventoryMessage", "JobMessage", "fill_site", "recent_day", "tell"]
