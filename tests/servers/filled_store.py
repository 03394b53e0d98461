"""A store with ten days of a small simulated site."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import numpy as np
from clickhouse_connect.driver.client import Client

from collectors.simulator import SimulatorSource
from collectors.source import Reading
from simulation import Simulation, Site
from storage import schema
from storage.client import connect
from storage.fleet_minutes import FLEET_MINUTES
from storage.hours import COMPUTED, hour_inserts
from storage.topology import recompute_places
from storage.writer import Writer
from stream.batch import MessageBatcher, Record
from stream.messages import JobMessage, Message, encode_message
from stream.plan import Plan, Range
from stream.seen import SeenFrames
from stream.topics import EVENTS, INVENTORY, JOBS, Topic
from tests.conftest import DoorUnderTest

GPUS = 144  # two NVL72 racks
DAYS = 10  # so that a range beyond a week reads the hours
GPU_TICK_S, FACILITY_TICK_S = 300, 100
FAULT_RATE = 60.0  # some events of every common class in ten days
SEED = 7
TOPIC_ID = UUID("00112233-4455-6677-8899-aabbccddeeff")
SLOW_TICK_S = 1800


@dataclass(frozen=True, slots=True)
class FilledStore:
    """Where the store is, and which time it holds; `end` is the last tick's end."""

    door: DoorUnderTest
    start: datetime
    end: datetime


def fill_store(door: DoorUnderTest) -> FilledStore:
    """Throws away what the store had. Ten days until the last full hour but one: nothing is in the future."""
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    start = end - timedelta(days=DAYS)
    door.empty()
    with closing(connect(door.address())) as client:
        schema.apply(client)
        _Filling(client, start, end).run()
    return FilledStore(door, start, end)


class _Filling:
    def __init__(self, client: Client, start: datetime, end: datetime) -> None:
        self._client, self._writer = client, Writer(client)
        self._start, self._end = start, end
        self._batches = 0

    def run(self) -> None:
        first, last = int(self._start.timestamp()), int(self._end.timestamp())
        source = SimulatorSource(Simulation(Site.build(GPUS, SEED), first, fault_rate=FAULT_RATE))
        self._tell(INVENTORY, source.inventory())
        for chunk in source.backfill(first, last, GPU_TICK_S, FACILITY_TICK_S, 288, SLOW_TICK_S):
            self._store(chunk)
            self._tell_events(source)
        recompute_places(self._client)
        self._compute_hours()

    def _tell(self, topic: Topic, messages: Sequence[Message]) -> None:
        """As ingest does it: the message becomes a row in stream/batch.py."""
        if not messages:
            return
        self._batches += 1
        values = [encode_message(message) for message in messages]
        now_ms = int(datetime.now(UTC).timestamp() * 1000)
        plan = Plan(topic.name, TOPIC_ID, (Range(0, 0, len(values)),), now_ms, 0)
        records = [Record(0, offset, value) for offset, value in enumerate(values)]
        batch = MessageBatcher(topic).build(plan, records, SeenFrames())
        self._writer.insert_messages(batch.table, batch.messages, token=f"{batch.table} {self._batches}")

    def _tell_events(self, source: SimulatorSource) -> None:
        messages = source.events()
        self._tell(JOBS, [message for message in messages if isinstance(message, JobMessage)])
        self._tell(EVENTS, [message for message in messages if not isinstance(message, JobMessage)])

    def _store(self, chunk: Sequence[Reading]) -> None:
        for table in {reading.table.name: reading.table for reading in chunk}.values():
            readings = [reading for reading in chunk if reading.table is table]
            self._batches += 1
            rows = np.concatenate([reading.rows for reading in readings])
            self._writer.insert_rows(table.name, rows, token=f"{table.name} {self._batches}")
            self._client.insert("frames", [*self._frames(readings)], column_names=_FRAME_COLUMNS)

    def _frames(self, readings: Sequence[Reading]) -> Iterator[list[object]]:
        """The frame log as ingest would have written it two seconds after each frame's last tick."""
        for offset, reading in enumerate(readings):
            times = [datetime.fromtimestamp(int(reading.rows["time"][at]), UTC) for at in (0, -1)]
            sealed = times[1] + timedelta(milliseconds=500)
            yield [
                TOPIC_ID, 0, self._batches * 10_000 + offset, 1, reading.table.name.encode().ljust(16, b"\0"),
                reading.source, int(self._start.timestamp() * 1000), self._batches * 1000, reading.ticks,
                len(reading.rows), 1, *times, sealed, sealed + timedelta(seconds=1), "stored",
                sealed + timedelta(seconds=2),
            ]  # fmt: skip

    def _compute_hours(self) -> None:
        """As the hour keeper does, without waiting for its grace period."""
        hour = timedelta(hours=1)
        at = datetime.now(UTC)
        for name in COMPUTED:
            # Lines over the fleet have an end that is not computed yet, as for the first minutes of every hour.
            end = self._end - 2 * hour if name == FLEET_MINUTES else self._end
            for statement in hour_inserts(name):
                bounds = {"first": self._start, "last": end - hour, "computed_at": at}
                self._client.command(statement, parameters=bounds)
            hours = [self._start + number * hour for number in range((end - self._start) // hour)]
            self._client.insert(
                "hours_computed",
                [[name, computed, at] for computed in hours],
                column_names=["table_name", "hour", "computed_at"],
            )


_FRAME_COLUMNS = [
    "topic_id", "partition", "offset", "log_epoch", "table_raw", "source", "epoch_ms", "sequence", "ticks", "rows",
    "layout", "first_time", "last_time", "sent_at", "checked_at", "outcome", "stored_at",
]  # fmt: skip
