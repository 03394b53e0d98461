"""The time, as something that tests can advance."""

import time
from typing import Protocol


class Clock(Protocol):
    def utc_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC; may step."""

    def monotonic_s(self) -> float:
        """Seconds for measuring durations; never steps."""


class SystemClock:
    """The machine's own clock."""

    def utc_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()
