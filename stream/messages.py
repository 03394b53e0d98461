"""Messages that are not frames: inventory, events and job intervals, as validated JSON."""

from hashlib import blake2b
from typing import Annotated

import msgspec

from catalogue import ResourceKind

# Text that comes from outside is bounded before anything else looks at it.
Name = Annotated[str, msgspec.Meta(max_length=256)]
Text = Annotated[str, msgspec.Meta(max_length=4096)]
ResourceId = Annotated[int, msgspec.Meta(ge=0)]  # and below 2**64: see _check_ids
TimeMs = Annotated[int, msgspec.Meta(ge=0, lt=1 << 42)]  # UTC milliseconds, up to the year 2109


def _check_ids(*ids: int) -> None:
    """ValueError unless they fit 64 bits: a bound that msgspec itself cannot state."""
    for candidate in ids:
        if candidate >= 1 << 64:
            raise ValueError(f"{candidate} is not a 64-bit id")


class InventoryMessage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a resource is called, what it is part of, and since when.

    `serves` lists what an edge other than the tree feeds: a feeder its racks, a CDU its racks, a
    loop its off-taker. `attributes` are facts that do not change every second: model, serial
    number, fluid, rated power in words of the field with the unit in the name.
    """

    resource: ResourceId
    kind: ResourceKind
    identity: Name
    name: Name
    valid_from_ms: TimeMs
    parent: ResourceId = 0
    serves: tuple[ResourceId, ...] = ()
    source: ResourceId = 0
    attributes: dict[Name, Name] = {}

    def __post_init__(self) -> None:
        _check_ids(self.resource, self.parent, self.source, *self.serves)


class EventMessage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that happened to a resource at an instant: an XID, a leak, a breaker, a lost frame."""

    id: Name
    resource: ResourceId
    time_ms: TimeMs
    kind: Name
    code: Annotated[int, msgspec.Meta(ge=-(1 << 31), lt=1 << 31)] = 0
    count: Annotated[int, msgspec.Meta(ge=1, lt=1 << 53)] = 1
    text: Text = ""
    source: ResourceId = 0
    attributes: dict[Name, Name] = {}

    def __post_init__(self) -> None:
        _check_ids(self.resource, self.source)


class JobMessage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One job's hold on one GPU; `end_ms` is absent while the job runs, and may be corrected later."""

    job: Name
    resource: ResourceId
    start_ms: TimeMs
    end_ms: TimeMs | None = None
    name: Name = ""
    owner: Name = ""  # a pseudonym, never a user's name
    customer: Name = ""
    attributes: dict[Name, Name] = {}

    def __post_init__(self) -> None:
        _check_ids(self.resource)


Message = InventoryMessage | EventMessage | JobMessage


def message_key(message: Message) -> int:
    """What a message's topic is keyed by: its resource.

    Inventory is keyed by who speaks as well: its topic keeps the latest message of each key, and what one source says
    about a resource must not take the place of what another says.
    """
    if not isinstance(message, InventoryMessage):
        return message.resource
    spoken = message.source.to_bytes(8, "little") + message.resource.to_bytes(8, "little")
    return int.from_bytes(blake2b(spoken, digest_size=8).digest(), "little")


def encode_message(message: Message) -> bytes:
    return msgspec.json.encode(message)
