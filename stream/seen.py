"""Which ticks of which source have been stored already: the memory that drops frames sent twice."""

from bisect import bisect_right
from collections.abc import Iterable
from enum import Enum, auto
from typing import Protocol


class Verdict(Enum):
    NEW = auto()
    DUPLICATE = auto()
    OVERLAP = auto()  # some of its ticks are stored, some are not: sources do not cut frames anew


class SeenTicks(Protocol):
    """Ticks [start, end) of one epoch of one source."""

    @property
    def source(self) -> int: ...
    @property
    def epoch_ms(self) -> int: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...


class SeenFrames:
    """Intervals of sequence numbers by source and epoch.

    A source that works has one interval per epoch; a gap, which a late frame may still fill, makes
    another one. So memory grows with sources and gaps, not with frames.
    """

    def __init__(self, seen: Iterable[SeenTicks] = ()) -> None:
        self._intervals: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for ticks in seen:
            self.admit(ticks.source, ticks.epoch_ms, ticks.start, ticks.end)

    def admit(self, source: int, epoch_ms: int, start: int, end: int) -> Verdict:
        """Judge ticks [start, end) and, if they are new, remember them."""
        intervals = self._intervals.setdefault((source, epoch_ms), [])
        if intervals and intervals[-1][1] == start:  # the ordinary case: the next frame of the source
            intervals[-1] = (intervals[-1][0], end)
            return Verdict.NEW
        at = bisect_right(intervals, (start, end))
        before = intervals[at - 1] if at else None
        after = intervals[at] if at < len(intervals) else None
        if (before and end <= before[1]) or (after and after[0] <= start and end <= after[1]):
            return Verdict.DUPLICATE
        if (before and start < before[1]) or (after and after[0] < end):
            return Verdict.OVERLAP
        self._insert(intervals, at, start, end)
        return Verdict.NEW

    def _insert(self, intervals: list[tuple[int, int]], at: int, start: int, end: int) -> None:
        if at < len(intervals) and intervals[at][0] == end:
            end = intervals.pop(at)[1]
        if at and intervals[at - 1][1] == start:
            start = intervals.pop(at - 1)[0]
            at -= 1
        intervals.insert(at, (start, end))
