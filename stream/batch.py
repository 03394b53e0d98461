"""Turns planned records into what is written: pure functions of the records, the plan and what was seen."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from functools import cached_property
from typing import Any
from uuid import UUID

import msgspec
import numpy as np

from catalogue import Layout, Table, known_layouts, layout_of, resource_id
from stream.frame import HEADER_BYTES, BadFrameError, Flaw, FrameHeader, check_size, decode_header
from stream.messages import EventMessage, InventoryMessage, JobMessage, Message
from stream.plan import Plan
from stream.rows import Rows, absent_rows, join_rows, row_type
from stream.seen import SeenFrames, Verdict
from stream.topics import Content, Topic


class Outcome(IntEnum):
    """What became of a frame; the values of the column `outcome` of the table `frames`."""

    STORED = 1
    DUPLICATE = 2
    REJECTED = 3
    PARKED = 4


# One for every frame, as _Judged and FrameHeader: a struct that nothing collects is made in an eighth of the time.
class Record(msgspec.Struct, frozen=True, gc=False):
    """One Kafka record."""

    partition: int
    offset: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that goes to the dead letters, with the reason."""

    record: Record
    flaw: Flaw
    detail: str
    source: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """What one plan writes: rows or messages, the frames' outcomes, and the dead letters."""

    plan: Plan
    table: str
    rows: Rows | None = None
    messages: Sequence[bytes] = ()
    frames: np.ndarray[Any, np.dtype[np.void]] | None = None
    rejected: Sequence[Rejected] = ()


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """How far from the plan's clock a reading may lie, in seconds."""

    behind_s: int = 400 * 86_400  # what an import of history may bring
    ahead_s: int = 300  # a node's clock may run ahead this much before it is called wrong


# Columns of the table `frames`, in the types that ClickHouse stores.
FRAME_LOG = np.dtype(
    [
        ("topic_id", "V16"),
        ("partition", "<u4"),
        ("offset", "<u8"),
        ("log_epoch", "<u4"),
        ("table_raw", "S16"),
        ("source", "<u8"),
        ("epoch_ms", "<u8"),
        ("sequence", "<u8"),
        ("ticks", "<u4"),
        ("rows", "<u4"),
        ("layout", "<u8"),
        ("first_time", "<u4"),
        ("last_time", "<u4"),
        ("sent_at", "<i8"),
        ("checked_at", "<i8"),
        ("outcome", "<i1"),
    ]
)


class _Judged(msgspec.Struct, gc=False):
    """A record on its way through the checks."""

    record: Record
    header: FrameHeader | None = None
    outcome: Outcome = Outcome.STORED
    flaw: Flaw | None = None
    detail: str = ""
    first_time: int = 0
    last_time: int = 0

    def reject(self, flaw: Flaw, detail: str, outcome: Outcome = Outcome.REJECTED) -> None:
        self.outcome, self.flaw, self.detail = outcome, flaw, detail


@dataclass(frozen=True)  # no slots: cached_property keeps its value in __dict__
class FrameBatcher:
    """Builds the batches of one table of frames."""

    table: Table
    limits: TimeLimits = field(default_factory=TimeLimits)
    raw_days: int = 0  # how long the table keeps its raw rows; 0 = as the catalogue says
    known: tuple[Layout, ...] = ()  # oldest first; empty stands for all that were committed

    @cached_property
    def _known(self) -> tuple[Layout, ...]:
        return self.known or known_layouts()[self.table.name]

    @cached_property
    def _behind_s(self) -> int:
        """What is older than the table keeps would vanish the moment it is stored: better a dead letter."""
        kept_days = self.raw_days or self.table.retention.raw.days
        return min(self.limits.behind_s, kept_days * 86_400)

    @cached_property
    def row_bytes(self) -> int:
        return row_type(layout_of(self.table)).itemsize

    @property
    def layouts(self) -> int:
        """How many layouts of the table this program knows; goes into every plan."""
        return len(self._known)

    def count_rows(self, value: bytes) -> int:
        """About how many rows a record brings, for cutting batches: its size tells, unread."""
        return len(value) // self.row_bytes

    def build(self, plan: Plan, records: Iterable[Record], seen: SeenFrames) -> Batch:
        """The batch of `plan`. `seen` must be as it was before the plan's first record; it is brought up to date.

        The same plan, records and `seen` give the same batch, whoever builds it and whenever.
        """
        layouts = {lo.fingerprint: lo for lo in self._known[: plan.layouts]}
        widths = {fingerprint: row_type(layout).itemsize for fingerprint, layout in layouts.items()}
        judged = [self._judge(record, widths) for record in records]
        parts = [self._read(group, layout, plan) for layout, group in _by_layout(judged, layouts)]
        self._drop_seen(judged, seen)
        blocks = [_kept(rows, group) for rows, group in parts]
        return Batch(
            plan=plan,
            table=self.table.name,
            rows=join_rows(blocks or [absent_rows(self.table, 0)]),
            frames=self._frame_log(plan, judged),
            rejected=[
                Rejected(j.record, j.flaw, j.detail, j.header.source if j.header else 0) for j in judged if j.flaw
            ],
        )

    def _judge(self, record: Record, widths: dict[int, int]) -> _Judged:
        """The record's header checked; `widths` gives bytes per row by layout."""
        judged = _Judged(record)
        try:
            judged.header = header = decode_header(record.value)
            if header.layout in widths:
                check_size(header, record.value, widths[header.layout])
            elif header.layout in _foreign_layouts(self.table):
                judged.reject(Flaw.WRONG_TOPIC, f"layout {header.layout:016x} is not one of table {self.table.name}")
            else:
                detail = f"layout {header.layout:016x} is newer than this program or unknown to it"
                judged.reject(Flaw.UNKNOWN_LAYOUT, detail, Outcome.PARKED)
        except BadFrameError as error:
            # A newer header is as good as a newer layout: it waits for a newer program.
            newer = error.flaw is Flaw.HEADER_VERSION
            judged.reject(error.flaw, str(error), Outcome.PARKED if newer else Outcome.REJECTED)
        return judged

    def _read(self, group: list[_Judged], layout: Layout, plan: Plan) -> tuple[Rows, list[_Judged]]:
        """The rows of all frames of one layout, in today's layout, and their times checked."""
        dtype = row_type(layout)
        rows = np.frombuffer(b"".join([memoryview(j.record.value)[HEADER_BYTES:] for j in group]), dtype=dtype)
        starts = np.cumsum([0] + [_row_count(j) for j in group[:-1]])
        earliest = np.minimum.reduceat(rows["time"], starts).tolist()
        latest = np.maximum.reduceat(rows["time"], starts).tolist()
        now_s = plan.checked_at_ms // 1000
        for judged, first, last in zip(group, earliest, latest, strict=True):
            judged.first_time, judged.last_time = first, last
            if first < now_s - self._behind_s or last > now_s + self.limits.ahead_s:
                judged.reject(Flaw.BAD_TIME, f"ticks from {_utc(first)} to {_utc(last)}, checked at {_utc(now_s)}")
        return upgrade(rows, layout, self.table), group

    def _drop_seen(self, judged: list[_Judged], seen: SeenFrames) -> None:
        for j in judged:
            if j.outcome is not Outcome.STORED or j.header is None:
                continue
            header = j.header
            verdict = seen.admit(header.source, header.epoch_ms, header.sequence, header.end_sequence)
            if verdict is Verdict.DUPLICATE:
                j.outcome = Outcome.DUPLICATE
            elif verdict is Verdict.OVERLAP:
                detail = f"ticks {header.sequence} to {header.end_sequence} are stored in part already"
                j.reject(Flaw.OVERLAP, detail)

    def _frame_log(self, plan: Plan, judged: list[_Judged]) -> np.ndarray[Any, np.dtype[np.void]]:
        place, table, now_ms = (_uuid_bytes(plan.topic_id),), self.table.name.encode(), plan.checked_at_ms
        lines = [
            (*place, j.record.partition, j.record.offset, plan.log_epoch, table, *_header_part(j), now_ms, j.outcome)
            for j in judged
        ]
        log: np.ndarray[Any, np.dtype[np.void]] = np.array(lines, dtype=FRAME_LOG)
        return log


def upgrade(rows: Rows, layout: Layout, table: Table) -> Rows:
    """Rows of an older layout in the table's layout of today; columns it did not have are absent."""
    if layout == layout_of(table):
        return rows
    upgraded = absent_rows(table, len(rows))
    for column in layout.fields:
        upgraded[column.name] = rows[column.name]
    return upgraded


def _by_layout(judged: list[_Judged], layouts: dict[int, Layout]) -> Iterator[tuple[Layout, list[_Judged]]]:
    for fingerprint, layout in layouts.items():
        group = [j for j in judged if j.outcome is Outcome.STORED and j.header and j.header.layout == fingerprint]
        if group:
            yield layout, group


def _kept(rows: Rows, group: list[_Judged]) -> Rows:
    """The rows of the frames that are to be stored."""
    if all(j.outcome is Outcome.STORED for j in group):
        return rows
    keep = [j.outcome is Outcome.STORED for j in group]
    kept: Rows = rows[np.repeat(keep, [_row_count(j) for j in group])]
    return kept


def _row_count(judged: _Judged) -> int:
    return judged.header.rows if judged.header else 0


def _header_part(judged: _Judged) -> tuple[int, ...]:
    """The columns of the frame log from `source` to `sent_at`; zeros where there is no header."""
    header = judged.header
    if header is None:
        return (0,) * 9
    return (
        header.source,
        header.epoch_ms,
        header.sequence,
        header.ticks,
        header.rows,
        header.layout,
        judged.first_time,
        judged.last_time,
        # DateTime64 is signed; a hostile send time must not stop the batch.
        min(header.sent_ms, (1 << 42) - 1),
    )


def _foreign_layouts(table: Table) -> frozenset[int]:
    return frozenset(
        layout.fingerprint for name, layouts in known_layouts().items() if name != table.name for layout in layouts
    )


def _uuid_bytes(value: UUID) -> np.void:
    """A UUID as ClickHouse stores it: two little-endian halves."""
    high, low = value.int >> 64, value.int & (1 << 64) - 1
    return np.void(high.to_bytes(8, "little") + low.to_bytes(8, "little"))


def _utc(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class MessageBatcher:
    """Builds the batches of a topic of JSON messages."""

    topic: Topic
    limits: TimeLimits = field(default_factory=TimeLimits)
    layouts: int = 0

    def count_rows(self, value: bytes) -> int:  # noqa: ARG002 - a message is one row
        return 1

    def build(self, plan: Plan, records: Iterable[Record], seen: SeenFrames) -> Batch:  # noqa: ARG002
        """The batch of `plan`. Messages carry their own identity, so a repeated one replaces itself."""
        lines: list[bytes] = []
        rejected: list[Rejected] = []
        kind, to_row = _MESSAGES[self.topic.content]
        for record in records:
            try:
                message = msgspec.json.decode(record.value, type=kind)
                _check_time(message, plan, self.limits)
                lines.append(msgspec.json.encode(to_row(message, plan)))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                rejected.append(Rejected(record, Flaw.NOT_A_MESSAGE, str(error)))
            except BadFrameError as error:
                rejected.append(Rejected(record, error.flaw, str(error)))
        return Batch(plan=plan, table=self.topic.table, messages=lines, rejected=rejected)


# Events and jobs are kept for ten years: what is older would vanish as it is stored.
_MESSAGE_BEHIND_MS = 3650 * 86_400_000


def _check_time(message: Message, plan: Plan, limits: TimeLimits) -> None:
    """BadFrameError for a time that would not be kept, or has not come yet."""
    now_ms = plan.checked_at_ms
    times: tuple[int, ...]
    match message:
        case InventoryMessage():
            times, earliest_ms = (message.valid_from_ms,), 0  # 0 stands for: always
        case EventMessage():
            times, earliest_ms = (message.time_ms,), now_ms - _MESSAGE_BEHIND_MS
        case JobMessage():
            end_ms = message.start_ms if message.end_ms is None else message.end_ms
            times, earliest_ms = (message.start_ms, end_ms), now_ms - _MESSAGE_BEHIND_MS
    for time_ms in times:
        if not earliest_ms <= time_ms <= now_ms + limits.ahead_s * 1000:
            raise BadFrameError(Flaw.BAD_TIME, f"{_utc(time_ms // 1000)}, checked at {_utc(now_ms // 1000)}")


def _inventory_row(message: InventoryMessage, plan: Plan) -> dict[str, Any]:  # noqa: ARG001
    if not message.identity or resource_id(message.kind, message.identity) != message.resource:
        raise BadFrameError(
            Flaw.WRONG_IDENTITY, f"resource {message.resource} is not the id of {message.kind} {message.identity!r}"
        )
    row = msgspec.structs.asdict(message)
    row["valid_from"] = _instant(row.pop("valid_from_ms"))
    return row


def _event_row(message: EventMessage, plan: Plan) -> dict[str, Any]:  # noqa: ARG001
    row = msgspec.structs.asdict(message)
    row["time"] = _instant(row.pop("time_ms"))
    return row


def _job_row(message: JobMessage, plan: Plan) -> dict[str, Any]:
    row = msgspec.structs.asdict(message)
    row["start"] = _instant(row.pop("start_ms"))
    end_ms = row.pop("end_ms")
    row["end"] = None if end_ms is None else _instant(end_ms)
    row["received_at"] = _instant(plan.checked_at_ms)
    return row


def _instant(milliseconds: int) -> str:
    whole, rest = divmod(milliseconds, 1000)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03}Z"


_MESSAGES: dict[Content, tuple[type[Message], Callable[[Any, Plan], dict[str, Any]]]] = {
    Content.INVENTORY: (InventoryMessage, _inventory_row),
    Content.EVENTS: (EventMessage, _event_row),
    Content.JOBS: (JobMessage, _job_row),
}

Batcher = FrameBatcher | MessageBatcher
