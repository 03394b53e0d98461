"""The seam between the agent and what it reads: a source only reads and returns rows, or raises."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from catalogue import Metric, Table
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
        """What this source measures, published at start and when it changes."""

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
