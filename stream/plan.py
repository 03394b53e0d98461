"""Plans: which records the next insert will hold, written down before it is made.

Whoever takes over after a crash, or from a member that was declared dead, finds the plan, reads
exactly that range again and inserts it under the same token; ClickHouse drops what it already has.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias
from uuid import UUID

import msgspec

if TYPE_CHECKING:
    from stream.batch import Record


@dataclass(frozen=True, slots=True, order=True)
class Range:
    """Offsets [first, end) of one partition."""

    partition: int
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Plan:
    """One insert: its ranges, the clock against which rows are checked, and the layouts then known.

    `layouts` counts the table's layouts, oldest first: a replay by a newer program must still park
    what was parked before. `log_epoch` rises when a log was found shorter than what had been read:
    then old offsets name new records, and old tokens must not meet them.
    """

    topic: str
    topic_id: UUID
    ranges: tuple[Range, ...]
    checked_at_ms: int
    layouts: int
    log_epoch: int = 0

    @property
    def token(self) -> str:
        """The deduplication token: the same for the same records, and for no others."""
        ranges = ",".join(f"{r.partition}:{r.first}-{r.end}" for r in sorted(self.ranges))
        return f"{self.topic_id}/{self.log_epoch}/{ranges}"


class FencedError(Exception):
    """The partition belongs to somebody else now; drop everything about it."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far partitions were planned: `pending` may or may not have been inserted.

    `positions` are the offsets to read from, those of `pending` included; 0 where nothing is known.
    """

    positions: Mapping[int, int]
    pending: Plan | None = None
    log_epoch: int = 0
    known: bool = True  # False where no plan was found: the partitions are new, or their plans were forgotten


Save: TypeAlias = Callable[[], None]  # called again, it changes nothing


class PlanStore(Protocol):
    """Where plans are kept. All calls raise ConnectionError when the store is away."""

    def standing(self, topic: str, topic_id: UUID, partitions: frozenset[int]) -> Standing:
        """What is known of these partitions of this very topic; of another topic id, nothing."""

    def draft(self, plan: Plan, records: "Sequence[Record]") -> Save:
        """All of saving a plan that can be done while the one before is under way; what is returned does the rest.

        It makes the plan durable, before its insert. FencedError when this process may not. Plans of the same
        partitions are saved in order: a later one also says that the one before is done.
        `records` are the plan's own, for a store that keeps them because the log may forget them.
        """

    def orphan(self, topic: str, topic_id: UUID) -> "tuple[Plan, Sequence[Record]] | None":
        """The last plan of an earlier log of this topic, with its records, which can no longer be read there.

        It may or may not have been inserted. None where there is none, or where logs outlive their readers.
        """

    def done(self, plan: Plan) -> None:
        """The plan's rows are in; nothing to note where a later plan was saved meanwhile.

        FencedError when the partition belongs to somebody else now.
        """


class PlanNote(msgspec.Struct, frozen=True, kw_only=True):
    """What a Kafka commit carries as metadata; its offset is the plan's first record."""

    topic_id: str = msgspec.field(name="t")
    end: int = msgspec.field(name="e")
    checked_at_ms: int = msgspec.field(name="c")
    layouts: int = msgspec.field(name="l")
    log_epoch: int = msgspec.field(name="g", default=0)


def encode_note(plan: Plan) -> str:
    """The metadata of the commit that announces a plan of one range; an empty range plans nothing."""
    (only,) = plan.ranges
    note = PlanNote(
        topic_id=plan.topic_id.hex,
        end=only.end,
        checked_at_ms=plan.checked_at_ms,
        layouts=plan.layouts,
        log_epoch=plan.log_epoch,
    )
    return msgspec.json.encode(note).decode()


def decode_note(topic: str, partition: int, first: int, metadata: str) -> Plan | None:
    """The plan in a commit; None where the commit was made by something else."""
    if not metadata:
        return None
    try:
        note = msgspec.json.decode(metadata, type=PlanNote)
        topic_id = UUID(note.topic_id)
    except (msgspec.DecodeError, ValueError):
        return None
    ranges = (Range(partition, first, note.end),)
    return Plan(topic, topic_id, ranges, note.checked_at_ms, note.layouts, note.log_epoch)
