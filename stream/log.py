"""The seam between ingest and the Kafka client: partitions that come and go, and records in order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

if TYPE_CHECKING:  # an agent, which only publishes, has no use for what ingest makes of records
    from stream.batch import Record


class LogUnavailableError(ConnectionError):
    """The brokers do not answer; the same call may succeed later."""


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """One partition of one topic."""

    topic: str
    number: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """Offsets that the log holds: [first, end)."""

    first: int
    end: int


class Log(Protocol):
    """Records of the partitions that this process owns. All calls raise LogUnavailableError.

    `poll` blocks at most `timeout_s`. What it returns for one partition is in order of offset and
    follows what it returned before, or the last `seek`.
    """

    def poll(self, timeout_s: float) -> Mapping[Partition, Sequence["Record"]]: ...

    def take_changes(self) -> tuple[frozenset[Partition], frozenset[Partition]]:
        """Partitions lost and gained since the last call; one that was lost and regained is in both."""

    def topic_id(self, topic: str) -> UUID:
        """The identity of the topic now; another one means that it was made anew: its partitions are gained again."""

    def bounds(self, partition: Partition) -> Bounds | None:
        """What the log holds; None where the broker's answer cannot be relied upon."""

    def seek(self, partition: Partition, offset: int) -> None: ...

    def pause(self, *, paused: bool) -> None:
        """Stop or resume the delivery of records; membership in the group is kept."""

    def close(self) -> None: ...
