"""The seam between the agent and what it reads: a source only reads and returns rows, or raises."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from catalogue import Metric, Table
from collectors.devices import DeviceReport
from stream.messages import EventMessage, InventoryMessage, JobMessage
from stream.rows import Rows


@dataclass(frozen=True, slots=True)
class Reading:
    """Rows of one table that one source id read: one tick, or several when a source catches up.

    Rows are in order of time; every tick of the reading has the same resources.
    """

    source: int
    table: Table
    rows: Rows
    ticks: int = 1


class SourceUnavailableError(Exception):
    """The device or service behind a source does not answer; the runner tries again at the next tick."""


class Source(Protocol):
    """Something that can be read at a tick.

    The runner owns the interval, the deadline and the verdict. `read` may block as long as the
    device does; it is never called twice at once. It raises SourceUnavailableError when nothing could
    be read. Whatever could be read in part is returned with the rest absent.
    """

    @property
    def name(self) -> str:
        """A short name for logs and metrics, unique in the agent."""

    def inventory(self) -> Sequence[InventoryMessage]:
        """What this source measures. Asked at the first tick and now and then, and at every tick while it is empty."""

    def read(self, time_s: int) -> Sequence[Reading]:
        """The readings of the tick at `time_s`, UTC seconds aligned to the interval."""

    def events(self) -> Sequence[EventMessage | JobMessage]:
        """What happened since the last call; never blocks."""

    def close(self) -> None:
        """Let go of the device; safe to call twice."""


@runtime_checkable
class TimedSource(Protocol):
    """A source that can say how long its devices took; a slow one is often a sick one."""

    def timings(self) -> Mapping[tuple[str, str], float]:
        """Seconds at the last tick, by device and by what was asked of it."""


@runtime_checkable
class ExplainingSource(Protocol):
    """A source that knows why something is absent."""

    def remarks(self) -> Sequence[str]:
        """What could not be read as a whole, in sentences: a device that is dark."""

    def why_absent(self, resource: int, metric: Metric) -> str:
        """Why a metric of a resource had no value at the last tick; empty when nothing is known."""


@runtime_checkable
class DeviceSource(Protocol):
    """A source that reads many devices, each of which may fail alone."""

    def devices(self) -> Sequence[DeviceReport]:
        """How each device does, for /metrics and the doctor; any thread may ask, and it never blocks."""


@runtime_checkable
class ChangingSource(Protocol):
    """A source that finds new devices, or new names for them, while it runs."""

    def inventory_changed(self) -> bool:
        """Whether `inventory` has something else to say than at its last call. Asked at every tick: costs nothing."""


@runtime_checkable
class WakingSource(Protocol):
    """A source that hears of events between two ticks, which must not wait for the next one."""

    def set_wake(self, wake: Callable[[], None]) -> None:
        """Take what to call when there are events; called once, before the first tick.

        `wake` may be called from any thread, as often as one likes, and returns at once; within 0.3 s `events` is
        called. That is then another thread than the one that reads, also while it reads, but never two at once.
        """
