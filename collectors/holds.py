"""What the sources of jobs share: holds wait to be told, are taken back, and are remembered across restarts.

The table `jobs` has one row for each GPU, start and job, and the latest message about a row wins. A message can correct
everything of a row but those three. A start that was wrong cannot be corrected but is taken back: the row with the old
start gets an end equal to its start and the attribute `retracted`, so that it holds no time, and a row with the new
start is told. Who counts rows leaves those out that end where they start; who adds up time or energy need not know.
"""

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from catalogue import ResourceKind, resource_id
from collectors.counters import CounterStore, KeptCounter
from stream.messages import JobMessage

MAX_TEXT_CHARACTERS = 256  # of a name in a message
MESSAGES_PER_TICK = 20_000  # of about 500 bytes: what the spool takes in one transaction
RETRACTED = "retracted"

HoldKey = tuple[int, int, str]


def gpu_resource(uuid: str) -> int:
    """The resource id of a GPU."""
    return resource_id(ResourceKind.GPU, uuid)


def bounded(text: str) -> str:
    """Text from outside as a message takes it: printable, and no longer than a name."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:MAX_TEXT_CHARACTERS])


def retraction(message: JobMessage, why: str) -> JobMessage:
    """The message that takes a hold back."""
    return replace(message, end_ms=message.start_ms, attributes={**message.attributes, RETRACTED: why})


class Outbox:
    """Messages that wait for the next tick; a later one about the same row replaces the one that waits."""

    def __init__(self, limit: int = MESSAGES_PER_TICK) -> None:
        self._limit = limit
        self._waiting: dict[HoldKey, JobMessage] = {}

    def put(self, messages: Iterable[JobMessage]) -> None:
        for message in messages:
            key = (message.resource, message.start_ms, message.job)
            self._waiting.pop(key, None)  # the order is that of the latest word: a retraction before what replaces it
            self._waiting[key] = message

    def take(self) -> Sequence[JobMessage]:
        """The oldest messages, as many as one tick may have."""
        taken = list(self._waiting)[: self._limit]
        return [self._waiting.pop(key) for key in taken]

    @property
    def is_empty(self) -> bool:
        return not self._waiting


class Memory:
    """Text that a source keeps across restarts, in the store that the agent has for counters.

    It becomes durable together with the messages of the same tick, as counters do with their rows: what is remembered
    as told has been told.
    """

    def __init__(self, store: CounterStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    def get(self, name: str) -> str:
        """The text as last kept; empty when there is none."""
        kept = self._store.get(f"{self._prefix}/{name}")
        return kept.epoch if kept is not None else ""

    def put(self, name: str, text: str, *, time_s: int) -> None:
        self._store.put({f"{self._prefix}/{name}": KeptCounter(0, 0, time_s, text)})
