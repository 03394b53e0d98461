"""Tells one rogue source from a storm: a bad source is dead-lettered alone, a bad site stops ingest."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


class StormError(RuntimeError):
    """Too many sources send what cannot be stored: something common to them is wrong."""


@dataclass(frozen=True, slots=True)
class StormRule:
    """Ingest stops when more than `frames` of the frames of more than `sources` of the sources are bad."""

    frames: float = 0.10
    sources: float = 0.01
    least_sources: int = 2  # on a small site one rogue is more than 1 %: it alone must not stop ingest
    window_frames: int = 100  # per source: older frames weigh half at every halving


class SourceHealth:
    """Counts good and bad frames by source, with a memory that fades."""

    def __init__(self, rule: StormRule) -> None:
        self._rule = rule
        self._frames: dict[int, int] = {}
        self._bad: dict[int, int] = {}

    def record(self, sources: NDArray[np.uint64], bad: NDArray[np.bool_]) -> None:
        """Take note of one batch's frames; StormError when the rule is broken."""
        for source, count in zip(*np.unique(sources, return_counts=True), strict=True):
            self._count(self._frames, int(source), int(count))
        if not bad.any():
            return
        for source, count in zip(*np.unique(sources[bad], return_counts=True), strict=True):
            self._bad[int(source)] = self._bad.get(int(source), 0) + int(count)
        self._check()

    def _count(self, frames: dict[int, int], source: int, count: int) -> None:
        total = frames.get(source, 0) + count
        if total > self._rule.window_frames:
            total //= 2
            if source in self._bad:
                self._bad[source] //= 2
        frames[source] = total

    def _check(self) -> None:
        rogues = [source for source, bad in self._bad.items() if bad > self._rule.frames * self._frames[source]]
        if len(rogues) >= self._rule.least_sources and len(rogues) > self._rule.sources * len(self._frames):
            raise StormError(
                f"more than {self._rule.frames:.0%} of the frames of {len(rogues)} of {len(self._frames)} sources "
                "cannot be stored; nothing is lost: see `kvandal dead-letters list`, mend the cause and start again"
            )
