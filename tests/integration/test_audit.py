"""The audit over the real engine: it holds where all is well, and finds each thing that is not, exactly."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from uuid import uuid4

import msgspec
import numpy as np
import pytest
from clickhouse_connect.driver.client import Client

from catalogue import COOLING, GPU, POINTS, Table
from storage.audit import Auditor, TableAudit
from storage.writer import Writer
from stream.batch import FrameBatcher, Outcome, Record
from stream.messages import EventMessage
from stream.plan import Plan, Range
from stream.seen import SeenFrames
from tests.servers.stack import Fleet, Frame

SOURCES, RESOURCES, TICKS = 3, 8, 5
ROWS_OF_A_FRAME = RESOURCES * TICKS
FRAMES = 360  # two minutes of each source


@dataclass(slots=True)
class Books:
    """Stores frames as ingest does, or not quite as it does."""

    client: Client
    table: Table

    def store(self, frames: Sequence[Frame], *, rows: bool = True, lines: bool = True, times: int = 1) -> None:
        topic_id, now_ms = uuid4(), time.time_ns() // 1_000_000
        plan = Plan(self.table.topic, topic_id, (Range(0, 0, len(frames)),), now_ms, 99)
        records = [Record(0, offset, frame.value) for offset, frame in enumerate(frames)]
        batch = FrameBatcher(self.table).build(plan, records, SeenFrames())
        assert batch.rows is not None
        assert batch.frames is not None
        writer = Writer(self.client)
        for repetition in range(times if rows else 0):
            writer.insert_rows(self.table.name, batch.rows, token=f"{plan.token}/{repetition}")
        if lines:
            writer.insert_rows("frames", batch.frames, token=plan.token)

    def report_lost(self, frame: Frame, *, rows: int = ROWS_OF_A_FRAME) -> None:
        first_s, last_s = int(frame.rows["time"].min()), int(frame.rows["time"].max())
        event = EventMessage(
            id=f"lost/{frame.source}/{first_s}", resource=frame.source, time_ms=last_s * 1000, kind="readings_lost",
            count=rows,
            attributes={"topic": self.table.topic, "first_time_s": str(first_s), "last_time_s": str(last_s)},
        )  # fmt: skip
        line = msgspec.structs.asdict(event)
        line["time"] = line.pop("time_ms") / 1000
        Writer(self.client).insert_messages("events", [msgspec.json.encode(line)], token=event.id)

    def audit(self, frames: Sequence[Frame]) -> TableAudit:
        """Of a period well around the frames."""
        first_s = min(int(frame.rows["time"].min()) for frame in frames)
        start = datetime.fromtimestamp(first_s // 3600 * 3600 - 3600, UTC)
        return Auditor(self.client).audit(self.table, start, start + timedelta(hours=5), now=datetime.now(UTC))


@pytest.fixture(params=[GPU, COOLING, POINTS], ids=lambda table: table.name)
def books(store: Client, request: pytest.FixtureRequest) -> Books:
    return Books(store, request.param)


@pytest.fixture
def frames(books: Books) -> list[Frame]:
    fleet = Fleet(seed=7, sources=SOURCES, resources=RESOURCES, ticks=TICKS, table=books.table)
    return list(islice(fleet.frames(), FRAMES))


def in_batches(frames: Sequence[Frame]) -> Iterator[Sequence[Frame]]:
    for first in range(0, len(frames), 50):
        yield frames[first : first + 50]


def test_what_is_stored_once_holds(books: Books, frames: list[Frame]) -> None:
    for batch in in_batches(frames):
        books.store(batch)

    found = books.audit(frames)
    rows = FRAMES * ROWS_OF_A_FRAME
    assert found.holds
    assert (found.produced, found.stored, found.kept, found.missing, found.gaps) == (rows, rows, rows, 0, ())


def test_a_frame_that_never_came_is_a_gap_with_its_bounds(books: Books, frames: list[Frame]) -> None:
    dropped = frames.pop(100)
    books.store(frames)

    found = books.audit(frames)
    (gap,) = found.gaps
    times = dropped.rows["time"]
    assert not found.holds
    assert found.missing == ROWS_OF_A_FRAME
    assert (gap.source, gap.end - gap.first) == (dropped.source, TICKS)
    assert gap.after.timestamp() < times.min() <= times.max() < gap.before.timestamp()


def test_the_first_frame_of_a_run_is_missed_too(books: Books, frames: list[Frame]) -> None:
    first = frames.pop(0)
    books.store(frames)
    assert [(gap.source, gap.first, gap.end) for gap in books.audit(frames).gaps] == [(first.source, 0, TICKS)]


def test_a_gap_that_its_agent_reported_is_lost_and_the_account_holds(books: Books, frames: list[Frame]) -> None:
    dropped = frames.pop(100)
    books.store(frames)
    books.report_lost(dropped)

    found = books.audit(frames)
    assert found.holds
    assert (found.lost, found.missing, found.produced) == (ROWS_OF_A_FRAME, 0, FRAMES * ROWS_OF_A_FRAME)


def test_a_report_of_less_than_the_gap_leaves_the_rest_missing(books: Books, frames: list[Frame]) -> None:
    dropped = frames.pop(100)
    books.store(frames)
    books.report_lost(dropped, rows=10)

    found = books.audit(frames)
    assert (found.lost, found.missing, found.holds) == (10, ROWS_OF_A_FRAME - 10, False)


def test_rows_that_vanished_behind_their_frames_are_counted(books: Books, frames: list[Frame]) -> None:
    books.store(frames[1:])
    books.store(frames[:1], rows=False)

    found = books.audit(frames)
    assert (found.vanished, found.doubled, found.holds) == (ROWS_OF_A_FRAME, 0, False)


def test_rows_that_were_inserted_twice_are_counted(books: Books, frames: list[Frame]) -> None:
    books.store(frames[1:])
    books.store(frames[:1], times=2)

    found = books.audit(frames)
    assert (found.vanished, found.doubled, found.holds) == (0, ROWS_OF_A_FRAME, False)


def test_a_minute_that_was_altered_is_found_by_its_hour(books: Books, frames: list[Frame], store: Client) -> None:
    books.store(frames)
    resource, first_s = int(frames[0].rows["resource"][0]), int(frames[0].rows["time"][0])

    def add_to_its_minute(rows: int) -> None:
        store.command(
            f"INSERT INTO {books.table.name}_1m (resource, time, row_count) "
            "SELECT {resource:UInt64}, toStartOfMinute(fromUnixTimestamp({time:UInt32})), {rows:UInt64}",
            parameters={"resource": resource, "time": first_s, "rows": rows},
        )

    add_to_its_minute(0)  # in pieces or in one, the minute is the same
    assert books.audit(frames).altered == ()

    add_to_its_minute(1)
    found = books.audit(frames)
    assert found.altered == (datetime.fromtimestamp(first_s // 3600 * 3600, UTC),)
    assert not found.holds


def test_a_period_that_cuts_frames_counts_their_share(books: Books, frames: list[Frame]) -> None:
    books.store(frames)
    start = datetime.fromtimestamp(int(frames[FRAMES // 2].rows["time"][0]) + 2, UTC)
    end = start + timedelta(seconds=61)

    found = Auditor(books.client).audit(books.table, start, end, now=datetime.now(UTC))
    times = np.concatenate([frame.rows["time"] for frame in frames])
    rows = int(((times >= start.timestamp()) & (times < end.timestamp())).sum())
    assert (found.stored, found.kept, found.vanished) == (rows, rows, 0)


def test_a_dead_lettered_frame_is_no_gap(books: Books, frames: list[Frame], store: Client) -> None:
    books.store([*frames[:100], *frames[101:]])
    topic_id = uuid4()
    plan = Plan(books.table.topic, topic_id, (Range(0, 0, 1),), time.time_ns() // 1_000_000, 0)
    batch = FrameBatcher(books.table).build(plan, [Record(0, 0, frames[100].value)], SeenFrames())
    assert batch.frames is not None
    assert batch.frames["outcome"][0] == Outcome.PARKED  # the plan knows no layout
    Writer(store).insert_rows("frames", batch.frames, token=plan.token)

    found = books.audit(frames)
    assert found.holds
    assert (found.parked_frames, found.parked, found.gaps) == (1, ROWS_OF_A_FRAME, ())
