"""Stand-ins for what the agent has around it: a clock that a test moves, a source, a broker's answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event, Lock

import numpy as np

from catalogue import GPU, Table
from collectors.source import Reading
from stream.log import LogUnavailableError
from stream.messages import EventMessage, InventoryMessage, JobMessage
from stream.publish import Acknowledged, TopicRefusedError
from stream.rows import Rows, absent_rows

START_S = 1_800_000_000


class FakeClock:
    """Both times stand still until a test moves them; UTC can also be set."""

    def __init__(self, utc_s: float = START_S) -> None:
        self._utc_ms = round(utc_s * 1000)
        self._monotonic_ms = 5_000_000
        self._lock = Lock()

    def utc_ms(self) -> int:
        return self._utc_ms

    def monotonic_s(self) -> float:
        return self._monotonic_ms / 1000

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._utc_ms += round(seconds * 1000)
            self._monotonic_ms += round(seconds * 1000)

    def set_utc(self, utc_s: float) -> None:
        self._utc_ms = round(utc_s * 1000)


@dataclass
class FastForward:
    """A runner's wait that takes no time: moves the clock, and stops the runner after so many ticks."""

    clock: FakeClock
    ticks: int
    done: Event = field(default_factory=Event)

    def __call__(self, stop: Event, seconds: float) -> bool:
        if self.ticks <= 0:
            self.done.set()
            return stop.wait(30.0)
        self.ticks -= 1
        self.clock.advance(seconds)
        return stop.is_set()


def gpu_rows(time_s: int, *, resources: Sequence[int] = tuple(range(1, 9)), table: Table = GPU) -> Rows:
    """A row for each resource, with one value that tells the tick and the resource."""
    rows = absent_rows(table, len(resources))
    rows["resource"], rows["time"] = resources, time_s
    rows[table.metrics[0].column] = np.asarray(resources) + time_s % 1000
    return rows


class SyntheticSource:
    """A source that gives `gpus` rows a tick, under each of its source ids, and does what a test tells it."""

    def __init__(
        self, name: str = "synthetic", *, source: int = 1, more_sources: Sequence[int] = (), gpus: int = 8
    ) -> None:
        self._name = name
        self._sources = (source, *more_sources)
        self._gpus = gpus
        self.read_times: list[int] = []
        self.happened: list[EventMessage] = []
        self.measured: Callable[[], Sequence[InventoryMessage]] = lambda: ()
        self.failure: Exception | None = None
        self.during_read: Callable[[], object] = lambda: None
        self.closed = False
        self.keeps_times = True

    @property
    def name(self) -> str:
        return self._name

    def inventory(self) -> Sequence[InventoryMessage]:
        return self.measured()

    def read(self, time_s: int) -> Sequence[Reading]:
        if self.keeps_times:
            self.read_times.append(time_s)
        self.during_read()
        if self.failure is not None:
            raise self.failure
        return [
            Reading(source, GPU, gpu_rows(time_s, resources=range(100 * source, 100 * source + self._gpus)))
            for source in self._sources
        ]

    def events(self) -> Sequence[EventMessage | JobMessage]:
        happened, self.happened = self.happened, []
        return happened

    def close(self) -> None:
        self.closed = True


@dataclass
class Sent:
    """A value that was handed over, and how to answer for it."""

    topic: str
    key: int
    value: bytes
    acknowledged: Callable[[Acknowledged], None]
    failed: Callable[[Exception], None]
    alone: bool = False


class FakePublisher:
    """A broker's answers: at once by default, never when `silent` or for a `mute` topic, and none at all when `away`.

    Topics that are `missing` refuse at once.
    """

    def __init__(self, *, keeps: bool = True) -> None:
        self.sent: list[Sent] = []
        self.acknowledged = 0
        self.away = False
        self.silent = False
        self.mute: set[str] = set()
        self.missing: set[str] = set()
        self.tried: deque[str] = deque(maxlen=10_000)  # topics that were asked for, taken or not
        self.renewed = 0
        self._keeps = keeps

    def publish(
        self,
        topic: str,
        key: int,
        value: bytes,
        *,
        acknowledged: Callable[[Acknowledged], None],
        failed: Callable[[Exception], None],
        alone: bool = False,
    ) -> None:
        self.tried.append(topic)
        if self.away:
            raise LogUnavailableError("the broker is away")
        if topic in self.missing:
            raise TopicRefusedError(f"{topic}: it does not exist")
        sent = Sent(topic, key, value, acknowledged, failed, alone=alone)
        if self._keeps:
            self.sent.append(sent)
        if not self.silent and topic not in self.mute:
            self.acknowledged += 1
            acknowledged(Acknowledged(0, self.acknowledged))

    def renew(self) -> None:
        self.renewed += 1

    def close(self) -> None:
        pass
