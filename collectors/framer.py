"""Collects the ticks of each source and table into frames, and numbers them."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from catalogue import Table
from collectors.source import Reading
from collectors.spool import Outgoing
from stream.clock import Clock
from stream.frame import HEADER_BYTES, MAX_FRAME_BYTES, seal
from stream.rows import Rows, join_rows

HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class FrameRule:
    """When a frame is full: the broker's cost is per message, the reader waits for the last tick."""

    ticks: int = 60
    span_s: float = 10.0


@dataclass(slots=True)
class _Open:
    """A frame in the making."""

    table: Table
    parts: list[Rows] = field(default_factory=list)
    ticks: int = 0
    sequence: int = 0  # of the first tick in `parts`

    def is_too_large_for(self, rows: Rows) -> bool:
        return sum(part.nbytes for part in self.parts) + rows.nbytes > MAX_FRAME_BYTES - HEADER_BYTES

    def is_of_another_hour(self, rows: Rows) -> bool:
        """No frame crosses the hour, so that a period that is audited ends between frames."""
        return bool(self.parts[0]["time"][0] // HOUR_S != rows["time"][0] // HOUR_S)


class Framer:
    """Frames of one agent run. `epoch_ms` names the run; sequences count ticks by source and table."""

    def __init__(self, rule: FrameRule, *, epoch_ms: int, clock: Clock) -> None:
        self._rule = rule
        self._epoch_ms = epoch_ms
        self._clock = clock
        self._open: dict[tuple[int, str], _Open] = {}

    @property
    def is_empty(self) -> bool:
        """Whether no tick waits in memory."""
        return not any(frame.ticks for frame in self._open.values())

    def add(self, reading: Reading, *, interval_s: float) -> Iterator[Outgoing]:
        """Take a reading in; yields the frames that it fills."""
        key = (reading.source, reading.table.name)
        frame = self._open.setdefault(key, _Open(reading.table))
        if frame.ticks and (frame.is_too_large_for(reading.rows) or frame.is_of_another_hour(reading.rows)):
            yield self._seal(reading.source, frame)
        frame.parts.append(reading.rows)
        frame.ticks += reading.ticks
        span_s = int(frame.parts[-1]["time"][-1]) - int(frame.parts[0]["time"][0]) + interval_s
        if frame.ticks >= self._rule.ticks or span_s >= self._rule.span_s:
            yield self._seal(reading.source, frame)

    def flush(self) -> Iterator[Outgoing]:
        """Seal every frame that has a tick."""
        for (source, _), frame in self._open.items():
            if frame.ticks:
                yield self._seal(source, frame)

    def _seal(self, source: int, frame: _Open) -> Outgoing:
        rows = join_rows(frame.parts)
        value = seal(
            frame.table,
            rows,
            source=source,
            epoch_ms=self._epoch_ms,
            sequence=frame.sequence,
            ticks=frame.ticks,
            sent_ms=self._clock.utc_ms(),
        )
        frame.sequence += frame.ticks
        frame.ticks = 0
        frame.parts = []
        return Outgoing(frame.table.topic, source, value, len(rows), int(rows["time"].min()), int(rows["time"].max()))
