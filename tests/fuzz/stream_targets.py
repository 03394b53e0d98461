"""What Kafka brings: frames and messages of any sender that may write to a topic."""

import struct
from collections.abc import Iterable
from uuid import UUID

import msgspec
import numpy as np

from catalogue import GPU, POINTS, ResourceKind, Table, known_layouts, resource_id
from stream.batch import FrameBatcher, MessageBatcher, Outcome, Record, TimeLimits
from stream.frame import HEADER_BYTES, BadFrameError, decode_frame, encode_frame, seal
from stream.messages import EventMessage, InventoryMessage, JobMessage, encode_message
from stream.plan import Plan, Range, decode_note, encode_note
from stream.rows import absent_rows
from stream.seen import SeenFrames
from stream.topics import EVENTS, INVENTORY, JOBS, Topic
from tests.fuzz.target import Target, check

NOW_MS = 1_790_000_000_000
_LAYOUTS = {layout.fingerprint: layout for layouts in known_layouts().values() for layout in layouts}
_LIMITS = TimeLimits()
_TOPIC_ID = UUID(int=7)
_GOOD_SOURCE = 0xC0FFEE


def _frame(table: Table = GPU, *, source: int = 3, sequence: int = 0, ticks: int = 2) -> bytes:
    rows = absent_rows(table, ticks)
    rows["resource"], rows["time"] = source, np.arange(ticks) + NOW_MS // 1000 - 60
    return seal(table, rows, source=source, epoch_ms=NOW_MS, sequence=sequence, ticks=ticks, sent_ms=NOW_MS)


def _read_frame(value: bytes) -> None:
    """What is accepted says about itself what it is: sealed anew it is the same frame."""
    try:
        header, rows = decode_frame(value, _LAYOUTS)
    except BadFrameError:
        return
    again = encode_frame(header, rows) if len(value) <= 1_000_000 else value
    reserved = slice(6, 8)  # not read
    check(again[: reserved.start] == value[: reserved.start], "the header changed")
    check(again[reserved.stop :] == value[reserved.stop :], "the frame changed")


_GOOD = _frame(source=_GOOD_SOURCE, sequence=0), _frame(source=_GOOD_SOURCE, sequence=2)
_BATCHER = FrameBatcher(GPU)


def _build_frames(value: bytes) -> None:
    """Between two good frames: both are stored, and of the other one all rows or none."""
    records = [Record(0, 0, _GOOD[0]), Record(0, 1, value), Record(0, 2, _GOOD[1])]
    plan = Plan(GPU.topic, _TOPIC_ID, (Range(0, 0, 3),), NOW_MS, _BATCHER.layouts)
    batch = _BATCHER.build(plan, records, SeenFrames())
    if batch.frames is None or batch.rows is None:
        raise AssertionError("a batch of frames has rows and frames")
    outcomes = batch.frames["outcome"].tolist()
    check(len(outcomes) == len(records), "a record has no line in frames")
    stored = batch.frames["outcome"] == Outcome.STORED
    check(int(batch.frames["rows"][stored].sum()) == len(batch.rows), "rows are not those of the stored frames")
    dead = [outcome for outcome in outcomes if outcome in (Outcome.REJECTED, Outcome.PARKED)]
    check(len(dead) == len(batch.rejected), "what is refused is no dead letter")
    of_the_good_source = len(value) >= HEADER_BYTES and struct.unpack_from("<Q", value, 16)[0] == _GOOD_SOURCE
    check(of_the_good_source or outcomes[0] == outcomes[2] == Outcome.STORED, "a neighbour was not stored")
    times = batch.rows["time"].astype(np.int64) - NOW_MS // 1000
    check(bool((times <= _LIMITS.ahead_s).all()), "a row of the future is stored")
    check(bool((times >= -_LIMITS.behind_s).all()), "a row of the past is stored")


def _message_target(name: str, topic: Topic, seeds: Iterable[bytes]) -> Target:
    batcher = MessageBatcher(topic)
    good, *_ = seeds = tuple(seeds)

    def build(value: bytes) -> None:
        """Between two good messages: each record is a line that ClickHouse will read, or a dead letter."""
        records = [Record(0, 0, good), Record(0, 1, value), Record(0, 2, good)]
        batch = batcher.build(Plan(topic.name, _TOPIC_ID, (Range(0, 0, 3),), NOW_MS, 0), records, SeenFrames())
        check(len(batch.messages) + len(batch.rejected) == len(records), "a message is neither stored nor dead")
        check(all(rejected.record.offset == 1 for rejected in batch.rejected), "a neighbour was refused")
        for line in batch.messages:
            check(b"\n" not in line, "a line is two")
            row = msgspec.json.decode(line)
            check(0 <= row["resource"] < 1 << 64, "an id of more than 64 bits")
            check(all(len(str(text)) <= 4096 for text in row.values() if isinstance(text, str)), "a text too long")

    return Target(name, build, seeds, _words(seeds))


def _words(seeds: Iterable[bytes]) -> tuple[bytes, ...]:
    """The keys of the messages, and what JSON is made of."""
    keys = {key for seed in seeds for key in msgspec.json.decode(seed)}
    odd = (b"null", b"{}", b"[]", b"1e999", b"-1", b"18446744073709551616", b"4398046511104", b'"\\ud800"', b"NaN")
    return (*sorted(f'"{key}":'.encode() for key in keys), *odd)


def _read_note(value: bytes) -> None:
    """What stands in the metadata of a commit, which any client of the group can write."""
    plan = decode_note(GPU.topic, 0, 5, value.decode(errors="replace"))
    if plan is not None:
        encode_note(plan)


_SERIAL = "serial-7"
_INVENTORY = InventoryMessage(
    resource=resource_id(ResourceKind.GPU, _SERIAL), kind=ResourceKind.GPU, identity=_SERIAL, name="gpu 0",
    valid_from_ms=NOW_MS, parent=11, serves=(12, 13), source=3, attributes={"model": "GB300", "serial": _SERIAL},
)  # fmt: skip
_EVENT = EventMessage(
    id="xid/1", resource=3, time_ms=NOW_MS, kind="xid", code=79, count=2, text="fallen off the bus", source=3,
    attributes={"topic": "kvandal.gpu", "first_time_s": "1790000000"},
)  # fmt: skip
_JOB = JobMessage(
    job="4711", resource=3, start_ms=NOW_MS - 5000, end_ms=NOW_MS, name="train", owner="p-1", customer="c",
    attributes={"partition": "gpu"},
)  # fmt: skip
_FRAME_SEEDS = (_frame(), _frame(sequence=9, ticks=9), _frame(POINTS), b"KVDL", b"")
_FRAME_WORDS = (b"KVDL", *(fingerprint.to_bytes(8, "little") for fingerprint in _LAYOUTS), b"\xff" * 8, b"\x00" * 8)

STREAM_TARGETS = (
    Target("frame", _read_frame, _FRAME_SEEDS, _FRAME_WORDS),
    Target("frame-batch", _build_frames, _FRAME_SEEDS, _FRAME_WORDS),
    _message_target("inventory", INVENTORY, [encode_message(_INVENTORY)]),
    _message_target("events", EVENTS, [encode_message(_EVENT)]),
    _message_target("jobs", JOBS, [encode_message(_JOB)]),
    Target(
        "plan-note",
        _read_note,
        (encode_note(Plan(GPU.topic, _TOPIC_ID, (Range(0, 5, 9),), NOW_MS, 1, 2)).encode(),),
        (b'"t":', b'"e":', b'"c":', b'"l":', b'"g":', b"-1", b"1e9"),
    ),
)
