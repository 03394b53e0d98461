"""How busy the machine was during a run: so that slowness of the machine is not taken for a defect."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Self

_PRESSURE = Path("/proc/pressure/cpu")  # Linux 4.20; documented in the kernel's accounting/psi
_NAP_S = 0.05


@dataclass(slots=True)
class Load:
    """Measures while it is entered."""

    waited_share: float | None = None  # of the time, in which some process was ready to run and no core was free
    longest_stall_s: float = 0.0  # by which a nap of 50 ms lasted too long
    _started_s: float = field(default_factory=time.monotonic)
    _waited_us: int | None = None
    _done: Event = field(default_factory=Event)

    def __enter__(self) -> Self:
        self._started_s, self._waited_us = time.monotonic(), _waited_us()
        Thread(target=self._nap, name="load", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        now_us = _waited_us()
        if now_us is not None and self._waited_us is not None:
            self.waited_share = (now_us - self._waited_us) / 1e6 / (time.monotonic() - self._started_s)

    def __str__(self) -> str:
        waited = "unknown" if self.waited_share is None else f"{self.waited_share:.0%} of the time"
        return f"{os.cpu_count()} cores; no core was free for {waited}; longest stall {self.longest_stall_s:.1f} s"

    def _nap(self) -> None:
        before_s = time.monotonic()
        while not self._done.wait(_NAP_S):
            now_s = time.monotonic()
            self.longest_stall_s = max(self.longest_stall_s, now_s - before_s - _NAP_S)
            before_s = now_s


def _waited_us() -> int | None:
    """Since the machine started; None where the kernel does not tell."""
    try:
        some = _PRESSURE.read_text().splitlines()[0]
    except OSError:
        return None
    return int(some.rpartition("total=")[2])
