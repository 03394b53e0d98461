"""When a source is read: ticks aligned to the wall clock, no second twice, every missed one accounted for."""

from collections import deque
from dataclasses import dataclass

from stream.clock import Clock

_JOINED_S = 3600  # ticks further apart than this belong to another span: the clock was set, or the machine slept
_SPANS = 16


@dataclass(frozen=True, slots=True)
class Tick:
    """What is due now: the second to read, None when it may not be read, and the ticks missed since the one before.

    `busy` ticks passed while the source was still at the one before; `clock` ticks are missing because the machine's
    clock was set, ahead or back.
    """

    time_s: int | None
    busy: int = 0
    clock: int = 0


class Ticks:
    """The ticks of one source: multiples of the interval since 1970 UTC.

    After the clock was set back, seconds that have been read are not read again: two rows of one GPU must not share a
    second. What was read is remembered as spans, so that one minute in a wrong year does not silence a source until
    that year. `used` is the last span before a restart.
    """

    def __init__(self, interval_s: int, clock: Clock, *, used: tuple[int, int] | None = None) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._spans: deque[tuple[int, int]] = deque([used] if used else [], maxlen=_SPANS)
        self._goes_on = False  # a tick was read since the start
        self._last_s = 0
        self._seen_at_s = clock.monotonic_s()  # when the last tick came due, read or not

    @property
    def used(self) -> tuple[int, int] | None:
        """First and last second of the span that is being read."""
        return self._spans[-1] if self._spans else None

    def wait_s(self) -> float:
        """Seconds to the next tick."""
        interval_ms = self._interval_s * 1000
        return (interval_ms - self._clock.utc_ms() % interval_ms) / 1000

    def next(self) -> Tick:
        """The tick that is due now."""
        time_s = self._clock.utc_ms() // 1000 // self._interval_s * self._interval_s
        now_s = self._clock.monotonic_s()
        passed = (now_s - self._seen_at_s) / self._interval_s
        if any(first <= time_s <= last for first, last in self._spans):
            if passed < 1:
                return Tick(None)  # woken a moment too early
            self._seen_at_s = now_s
            return Tick(None, clock=int(passed))
        missed = max((time_s - self._last_s) // self._interval_s - 1, 0) if self._goes_on else 0
        busy = min(missed, max(round(passed) - 1, 0))
        self._take(time_s)
        self._seen_at_s = now_s
        return Tick(time_s, busy=busy, clock=missed - busy)

    def _take(self, time_s: int) -> None:
        last = self._spans[-1] if self._spans else None
        if last and last[1] < time_s <= last[1] + _JOINED_S:
            self._spans[-1] = (last[0], time_s)
        else:
            self._spans.append((time_s, time_s))
        self._last_s = time_s
        self._goes_on = True
