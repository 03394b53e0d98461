"""A lane: partitions whose records share one insert, and how far each has come."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from stream.batch import Batcher, Record
from stream.plan import Plan, Range
from stream.seen import SeenFrames


@dataclass(frozen=True, slots=True)
class CutRule:
    """When a lane has enough for an insert, and how much one insert takes at most."""

    rows: int = 120_000  # a statement of the minute view has a fixed cost, which few rows would each pay more of
    age_s: float = 5.0  # what has waited this long goes, however little it is
    plan_bytes: int = 64 << 20


@dataclass(slots=True)
class _Shelf:
    """Records of one partition that wait for their plan."""

    next_offset: int
    records: deque[Record] = field(default_factory=deque)


class Lane:
    """One topic's partitions that are planned together; in a consumer group that is a single one."""

    def __init__(
        self,
        batcher: Batcher,
        topic: str,
        topic_id: UUID,
        positions: Mapping[int, int],
        *,
        replay: Plan | None,
        log_epoch: int,
        seen: SeenFrames,
    ) -> None:
        self.batcher = batcher
        self.topic = topic
        self.topic_id = topic_id
        self.seen = seen
        self.log_epoch = log_epoch
        self.rows = 0
        self.bytes = 0
        self._replay = replay
        self._shelves = {number: _Shelf(offset) for number, offset in sorted(positions.items())}
        self._oldest_s: float | None = None

    @property
    def partitions(self) -> frozenset[int]:
        return frozenset(self._shelves)

    @property
    def replaying(self) -> bool:
        return self._replay is not None

    @property
    def waiting_since_s(self) -> float:
        """When the oldest record that still waits arrived, or the last one was cut from a lane with more."""
        return self._oldest_s or 0.0

    def offer(self, partition: int, records: Sequence[Record], now_s: float) -> None:
        """Take records in, in order of offset."""
        self._shelves[partition].records.extend(records)
        self.rows += sum(self.batcher.count_rows(record.value) for record in records)
        self.bytes += sum(len(record.value) for record in records)
        if self._oldest_s is None:
            self._oldest_s = now_s

    def due(self, rule: CutRule, now_s: float) -> bool:
        """Whether there is enough, or old enough, for an insert."""
        if self._replay is not None:
            return self._covers(self._replay)
        if self._oldest_s is None:
            return False
        return self.rows >= rule.rows or self.bytes >= rule.plan_bytes or now_s - self._oldest_s >= rule.age_s

    def cut(self, rule: CutRule, now_s: float, checked_at_ms: int) -> tuple[Plan, list[Record]]:
        """The next plan and its records, which leave the lane. Call only when `due`."""
        if self._replay is not None:
            plan, self._replay = self._replay, None
            records = [r for planned in plan.ranges for r in self._take_to(planned.partition, planned.end)]
        else:
            records = self._take(rule)
            plan = Plan(
                self.topic, self.topic_id, _ranges(records), checked_at_ms, self.batcher.layouts, self.log_epoch
            )
        self._oldest_s = now_s if any(shelf.records for shelf in self._shelves.values()) else None
        return plan, records

    def _covers(self, plan: Plan) -> bool:
        """Whether every record of the plan that still exists has arrived.

        Compacted and expired offsets never arrive: a later record of the partition shows that too.
        """
        for planned in plan.ranges:
            shelf = self._shelves[planned.partition]
            last = shelf.records[-1].offset if shelf.records else shelf.next_offset - 1
            if last < planned.end - 1:
                return False
        return True

    def _take(self, rule: CutRule) -> list[Record]:
        """Records up to the rule's size, from each partition in turn."""
        taken: list[Record] = []
        rows = size = 0
        for shelf in self._shelves.values():
            while shelf.records and rows < rule.rows and size < rule.plan_bytes:
                record = self._pop(shelf)
                rows += self.batcher.count_rows(record.value)
                size += len(record.value)
                taken.append(record)
        return taken

    def _take_to(self, partition: int, end: int) -> list[Record]:
        shelf = self._shelves[partition]
        taken = []
        while shelf.records and shelf.records[0].offset < end:
            taken.append(self._pop(shelf))
        shelf.next_offset = max(shelf.next_offset, end)
        return taken

    def _pop(self, shelf: _Shelf) -> Record:
        record = shelf.records.popleft()
        shelf.next_offset = record.offset + 1
        self.rows -= self.batcher.count_rows(record.value)
        self.bytes -= len(record.value)
        return record


def _ranges(records: Sequence[Record]) -> tuple[Range, ...]:
    """First and end offset by partition; `records` are in order of offset within each."""
    first: dict[int, int] = {}
    end: dict[int, int] = {}
    for record in records:
        first.setdefault(record.partition, record.offset)
        end[record.partition] = record.offset + 1
    return tuple(Range(number, first[number], end[number]) for number in sorted(first))
