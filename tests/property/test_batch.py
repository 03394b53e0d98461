"""Batches: a pure function of plan, records and what was seen; every record ends in exactly one way."""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalogue import GPU, POWER, Kind, Layout, Metric, Table, known_layouts, layout_of, units
from catalogue.origins import NvmlField
from catalogue.types import U16
from stream.batch import FRAME_LOG, Batch, FrameBatcher, Outcome, Record, TimeLimits, upgrade
from stream.frame import HEADER_BYTES, Flaw, seal
from stream.plan import Plan, Range
from stream.rows import absent_rows, pack, row_type
from stream.seen import SeenFrames

TOPIC_ID = UUID("00112233-4455-6677-8899-aabbccddeeff")
NOW_S = 1_760_000_000
NOW_MS = NOW_S * 1000 + 500
EPOCH_MS = 1_759_000_000_000
LIMITS = TimeLimits(behind_s=1000, ahead_s=100)
LAYOUTS = len(known_layouts()["gpu"])

# Where header fields start, from the format's description.
LAYOUT_AT, SEQUENCE_AT, TICKS_AT, ROWS_AT, SENT_AT = 8, 32, 40, 44, 48


@dataclass(frozen=True, slots=True)
class Ticks:
    source: int
    epoch_ms: int
    start: int
    end: int


def frame(
    source: int = 1,
    sequence: int = 0,
    *,
    ticks: int = 2,
    time_s: int = NOW_S,
    table: Table = GPU,
    sent_ms: int = NOW_MS,
) -> bytes:
    """A frame of one resource, one row a tick, the last at `time_s`."""
    times = np.arange(time_s - ticks + 1, time_s + 1)
    rows = pack(table, np.full(ticks, source), times, {table.metrics[0].name: np.arange(ticks) + sequence})
    return seal(table, rows, source=source, epoch_ms=EPOCH_MS, sequence=sequence, ticks=ticks, sent_ms=sent_ms)


def patched(value: bytes, at: int, number: int, width: str = "Q") -> bytes:
    data = bytearray(value)
    struct.pack_into(f"<{width}", data, at, number)
    return bytes(data)


def records(values: Sequence[bytes], first: int = 0) -> list[Record]:
    return [Record(0, first + n, value) for n, value in enumerate(values)]


def plan_for(taken: Sequence[Record], *, layouts: int = LAYOUTS, checked_at_ms: int = NOW_MS) -> Plan:
    first, end = (taken[0].offset, taken[-1].offset + 1) if taken else (0, 0)
    return Plan("kvandal.gpu", TOPIC_ID, (Range(0, first, end),), checked_at_ms, layouts)


def build(values: Sequence[bytes], seen: SeenFrames | None = None, *, layouts: int = LAYOUTS) -> Batch:
    taken = records(values)
    return FrameBatcher(GPU, LIMITS).build(plan_for(taken, layouts=layouts), taken, seen or SeenFrames())


def outcomes(batch: Batch) -> list[Outcome]:
    assert batch.frames is not None
    return [Outcome(value) for value in batch.frames["outcome"].tolist()]


def only_flaw(batch: Batch) -> Flaw:
    (rejected,) = batch.rejected
    return rejected.flaw


def resources_of(batch: Batch) -> list[int]:
    assert batch.rows is not None
    resources: list[int] = batch.rows["resource"].tolist()
    return resources


def as_bytes(batch: Batch) -> tuple[object, ...]:
    """Everything in the batch, comparable."""
    assert batch.rows is not None
    assert batch.frames is not None
    return batch.plan, batch.table, batch.rows.tobytes(), batch.frames.tobytes(), batch.rejected


# One kind of record, its value, and how it must end where nothing of its ticks is known.
SPOILT: Sequence[tuple[str, Callable[[bytes], bytes], Outcome]] = [
    ("good", lambda value: value, Outcome.STORED),
    ("cut", lambda value: value[:-1], Outcome.REJECTED),
    ("header only", lambda value: value[:HEADER_BYTES], Outcome.REJECTED),
    ("empty", lambda _: b"", Outcome.REJECTED),
    ("rubbish", lambda _: b"\xff" * 500, Outcome.REJECTED),
    ("version", lambda value: patched(value, 4, 2, "H"), Outcome.PARKED),
    ("foreign", lambda value: patched(value, LAYOUT_AT, layout_of(POWER).fingerprint), Outcome.REJECTED),
    ("newer", lambda value: patched(value, LAYOUT_AT, 12345), Outcome.PARKED),
    ("no ticks", lambda value: patched(value, TICKS_AT, 0, "I"), Outcome.REJECTED),
    ("rows lie", lambda value: patched(value, ROWS_AT, (1 << 32) - 1, "I"), Outcome.REJECTED),
    ("past", lambda value: patched(value, HEADER_BYTES + 8, NOW_S - 1001, "I"), Outcome.REJECTED),
    ("future", lambda value: patched(value, HEADER_BYTES + 8, NOW_S + 101, "I"), Outcome.REJECTED),
    ("last second", lambda value: patched(value, HEADER_BYTES + 8, (1 << 32) - 1, "I"), Outcome.REJECTED),
    ("sent in the far future", lambda value: patched(value, SENT_AT, (1 << 64) - 1), Outcome.STORED),
]


@dataclass(frozen=True, slots=True)
class Arrival:
    source: int
    start: int
    ticks: int
    spoilt: int

    @property
    def value(self) -> bytes:
        return SPOILT[self.spoilt][1](frame(self.source, self.start, ticks=self.ticks))

    @property
    def covered(self) -> set[tuple[int, int]]:
        return {(self.source, tick) for tick in range(self.start, self.start + self.ticks)}


arrivals = st.lists(
    st.builds(
        Arrival,
        st.integers(1, 3),
        st.integers(0, 12),
        st.integers(1, 4),
        st.one_of(st.just(0), st.integers(0, len(SPOILT) - 1)),
    ),
    max_size=25,
)


def expected_outcomes(arrived: Sequence[Arrival], known: set[tuple[int, int]]) -> list[Outcome]:
    """The model: a set of ticks, brought up to date."""
    expected = []
    for each in arrived:
        outcome = SPOILT[each.spoilt][2]
        if outcome is Outcome.STORED and each.covered & known:
            outcome = Outcome.DUPLICATE if each.covered <= known else Outcome.REJECTED
        elif outcome is Outcome.STORED:
            known |= each.covered
        expected.append(outcome)
    return expected


@given(arrivals)
def test_every_record_ends_as_a_plain_model_says(arrived: list[Arrival]) -> None:
    batch = build([each.value for each in arrived])
    assert outcomes(batch) == expected_outcomes(arrived, set())


@given(arrivals)
def test_the_rows_are_those_of_stored_frames_alone(arrived: list[Arrival]) -> None:
    batch = build([each.value for each in arrived])
    stored = [each for each, how in zip(arrived, outcomes(batch), strict=True) if how is Outcome.STORED]
    payloads = [each.value[HEADER_BYTES:] for each in stored]
    assert batch.rows is not None
    assert batch.rows.tobytes() == b"".join(payloads)


@given(arrivals)
def test_each_record_has_one_line_and_each_refused_one_a_letter(arrived: list[Arrival]) -> None:
    values = [each.value for each in arrived]
    batch = build(values)
    assert batch.frames is not None
    assert batch.frames["offset"].tolist() == list(range(len(values)))
    refused = [n for n, how in enumerate(outcomes(batch)) if how in (Outcome.REJECTED, Outcome.PARKED)]
    assert [letter.record.offset for letter in batch.rejected] == refused
    assert all(letter.record.value == values[letter.record.offset] and letter.detail for letter in batch.rejected)


@given(arrivals, arrivals)
def test_whoever_builds_it_whenever_the_batch_is_the_same(before: list[Arrival], arrived: list[Arrival]) -> None:
    earlier, taken = records([each.value for each in before]), records([each.value for each in arrived], first=100)
    batches = []
    for _ in range(2):
        batcher, seen = FrameBatcher(GPU, LIMITS), SeenFrames()
        batcher.build(plan_for(earlier), earlier, seen)
        batches.append(as_bytes(batcher.build(plan_for(taken), taken, seen)))
    assert batches[0] == batches[1]


@given(arrivals, arrivals)
def test_a_replay_that_learned_the_past_from_the_books_builds_the_same(
    before: list[Arrival], arrived: list[Arrival]
) -> None:
    """The first owner saw the earlier records; the second one has only read which frames are stored."""
    batcher, lived = FrameBatcher(GPU, LIMITS), SeenFrames()
    earlier = records([each.value for each in before])
    book = batcher.build(plan_for(earlier), earlier, lived).frames
    assert book is not None
    stored = book[book["outcome"] == 1]
    rebuilt = SeenFrames(
        Ticks(int(line["source"]), int(line["epoch_ms"]), int(line["sequence"]), int(line["sequence"] + line["ticks"]))
        for line in stored
    )
    taken = records([each.value for each in arrived], first=100)
    first = batcher.build(plan_for(taken), taken, lived)
    assert as_bytes(batcher.build(plan_for(taken), taken, rebuilt)) == as_bytes(first)


@given(st.lists(st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(lambda tail: b"KVDL\1\0" + tail))))
def test_no_bytes_whatever_raise_or_become_rows(values: list[bytes]) -> None:
    batch = build(values)
    assert batch.rows is not None
    assert len(batch.rows) == 0
    assert len(batch.rejected) == len(values)


@given(st.binary(min_size=52, max_size=52), st.integers(1, 3))
def test_no_header_whatever_raises(noise: bytes, rows: int) -> None:
    value = b"KVDL" + noise + absent_rows(GPU, rows).tobytes()
    for layout in (layout_of(GPU).fingerprint, None):
        batch = build([value if layout is None else patched(patched(value, 4, 1, "I"), LAYOUT_AT, layout)])
        assert batch.frames is not None
        assert len(batch.frames) == 1


# The cases that people ask about


@pytest.mark.parametrize(
    ("value", "flaw"),
    [
        (b"", Flaw.TOO_SHORT),
        (b"x" * 100, Flaw.NOT_A_FRAME),
        (patched(frame(), 4, 2, "H"), Flaw.HEADER_VERSION),
        (frame(table=POWER), Flaw.WRONG_TOPIC),
        (patched(frame(), LAYOUT_AT, 1), Flaw.UNKNOWN_LAYOUT),
        (frame()[:-1], Flaw.WRONG_SIZE),
        (patched(frame(), SEQUENCE_AT, 1 << 63), Flaw.BAD_TICKS),
        (frame(time_s=NOW_S + 101), Flaw.BAD_TIME),
        (frame(time_s=NOW_S - 1000), Flaw.BAD_TIME),  # its first tick is one second too old
    ],
)
def test_flaw_is_named(value: bytes, flaw: Flaw) -> None:
    assert only_flaw(build([value])) is flaw


@pytest.mark.parametrize("time_s", [NOW_S + 100, NOW_S - 999])
def test_times_at_the_limits_are_good(time_s: int) -> None:
    assert outcomes(build([frame(time_s=time_s)])) == [Outcome.STORED]


def test_the_plans_clock_decides_about_times_not_the_machines() -> None:
    taken = records([frame(time_s=1_000_000_000)])
    plan = plan_for(taken, checked_at_ms=1_000_000_000_000)
    assert FrameBatcher(GPU, LIMITS).build(plan, taken, SeenFrames()).rejected == []


def test_layout_not_known_to_the_plan_is_parked_even_by_a_program_that_knows_it() -> None:
    batch = build([frame()], layouts=LAYOUTS - 1)
    assert outcomes(batch) == [Outcome.PARKED]
    assert only_flaw(batch) is Flaw.UNKNOWN_LAYOUT
    assert resources_of(batch) == []


def test_a_parked_frame_is_not_seen() -> None:
    seen = SeenFrames()
    build([frame()], seen, layouts=LAYOUTS - 1)
    assert outcomes(build([frame()], seen)) == [Outcome.STORED]


def test_a_rejected_frame_is_not_seen() -> None:
    seen = SeenFrames()
    build([frame(time_s=NOW_S + 101)], seen)
    assert outcomes(build([frame()], seen)) == [Outcome.STORED]


def test_a_frame_sent_twice_in_one_batch_is_stored_once() -> None:
    batch = build([frame(5), frame(6), frame(5)])
    assert outcomes(batch) == [Outcome.STORED, Outcome.STORED, Outcome.DUPLICATE]
    assert resources_of(batch) == [5, 5, 6, 6]
    assert batch.rejected == []


def test_a_frame_cut_anew_is_refused_whole() -> None:
    batch = build([frame(sequence=0, ticks=2), frame(sequence=1, ticks=2)])
    assert outcomes(batch) == [Outcome.STORED, Outcome.REJECTED]
    assert only_flaw(batch) is Flaw.OVERLAP


def test_no_records_make_an_empty_batch() -> None:
    batch = build([])
    assert (resources_of(batch), outcomes(batch), batch.rejected) == ([], [], [])


def test_a_dead_letter_keeps_source_and_bytes() -> None:
    spoilt = frame(source=42)[:-1]
    (letter,) = build([spoilt]).rejected
    assert (letter.source, letter.record.value) == (42, spoilt)
    assert "2 rows of" in letter.detail


def test_line_of_the_frame_log_holds_what_the_frame_said() -> None:
    taken = [Record(3, 77, frame(source=9, sequence=40, ticks=2, sent_ms=NOW_MS - 7))]
    batch = FrameBatcher(GPU, LIMITS).build(plan_for(taken), taken, SeenFrames())
    assert batch.frames is not None
    (line,) = batch.frames
    assert batch.frames.dtype == FRAME_LOG
    named = {name: line[name].item() for name in FRAME_LOG.names or () if name != "topic_id"}
    assert named == {
        "partition": 3,
        "offset": 77,
        "log_epoch": 0,
        "table_raw": b"gpu",
        "source": 9,
        "epoch_ms": EPOCH_MS,
        "sequence": 40,
        "ticks": 2,
        "rows": 2,
        "layout": layout_of(GPU).fingerprint,
        "first_time": NOW_S - 1,
        "last_time": NOW_S,
        "sent_at": NOW_MS - 7,
        "checked_at": NOW_MS,
        "outcome": 1,
    }
    # ClickHouse keeps a UUID as two little-endian halves.
    assert line["topic_id"].tobytes().hex() == "7766554433221100ffeeddccbbaa9988"


def test_line_of_rubbish_says_where_it_was_and_nothing_else() -> None:
    batch = build([b"rubbish"])
    assert batch.frames is not None
    (line,) = batch.frames
    assert (line["offset"], line["source"], line["ticks"], line["sent_at"], line["outcome"]) == (0, 0, 0, 0, 3)


def test_rows_of_a_record_are_counted_by_its_size() -> None:
    batcher = FrameBatcher(GPU)
    assert batcher.count_rows(frame(ticks=10)) == 10
    assert batcher.count_rows(b"") == 0


# Layouts that grew

EXTRA = Metric(
    name="extra_watts", unit=units.WATTS, kind=Kind.GAUGE, stored=U16, brief="Extra", origins=(NvmlField(1),)
)
# The table of a program whose catalogue is one metric ahead: for it, today's committed layout is an old one.
AHEAD = replace(GPU, metrics=(*GPU.metrics, EXTRA))


def test_an_older_layout_is_brought_up_to_date_with_what_it_lacks_absent() -> None:
    old = pack(GPU, [1, 2], [NOW_S, NOW_S], {"power_watts": [100.0, 200.0]})
    new = upgrade(old, layout_of(GPU), AHEAD)
    assert new.dtype == row_type(layout_of(AHEAD))
    assert new["extra_watts_raw"].tolist() == [65_535, 65_535]
    assert new["power_watts_raw"].tolist() == [1000, 2000]
    assert [new[field.name].tolist() for field in layout_of(GPU).fields] == [
        old[field.name].tolist() for field in layout_of(GPU).fields
    ]


def test_rows_of_todays_layout_are_not_copied() -> None:
    rows = pack(GPU, [1], [NOW_S], {})
    assert upgrade(rows, layout_of(GPU), GPU) is rows


def test_frames_of_an_older_layout_are_stored_in_todays() -> None:
    taken = records([frame(1), frame(2)])
    batch = FrameBatcher(AHEAD, LIMITS).build(plan_for(taken), taken, SeenFrames())
    assert outcomes(batch) == [Outcome.STORED, Outcome.STORED]
    assert batch.rows is not None
    assert batch.rows.dtype == row_type(layout_of(AHEAD))
    assert batch.rows["extra_watts_raw"].tolist() == [65_535] * 4
    assert resources_of(batch) == [1, 1, 2, 2]


def test_the_upgraded_layout_is_unknown_until_it_is_committed() -> None:
    taken = records([frame(table=AHEAD), frame(1)])
    batch = FrameBatcher(AHEAD, LIMITS).build(plan_for(taken), taken, SeenFrames())
    assert outcomes(batch) == [Outcome.PARKED, Outcome.STORED]


def test_a_layout_is_a_prefix_of_the_next() -> None:
    layout: Layout = layout_of(GPU)
    assert layout_of(AHEAD).fields[: len(layout.fields)] == layout.fields
