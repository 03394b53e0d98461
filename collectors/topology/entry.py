"""One entry of a topology file: a thing, and what is said of it from a time on."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Annotated, Any

import msgspec

from catalogue import ResourceKind

# What a thing of each kind may be part of. Points and agents are told of by whoever reads them.
PARENTS: Mapping[ResourceKind, tuple[ResourceKind, ...]] = {
    ResourceKind.SITE: (),
    ResourceKind.OFF_TAKER: (ResourceKind.SITE,),
    ResourceKind.HALL: (ResourceKind.SITE,),
    ResourceKind.ROW: (ResourceKind.HALL,),
    ResourceKind.RACK: (ResourceKind.ROW, ResourceKind.HALL),
    ResourceKind.TRAY: (ResourceKind.RACK,),
    ResourceKind.GPU: (ResourceKind.TRAY,),
    ResourceKind.PORT: (ResourceKind.TRAY,),
    ResourceKind.LOOP: (ResourceKind.LOOP, ResourceKind.HALL, ResourceKind.SITE),
    ResourceKind.CDU: (ResourceKind.LOOP, ResourceKind.ROW, ResourceKind.HALL, ResourceKind.SITE),
    ResourceKind.HEAT_METER: (ResourceKind.LOOP, ResourceKind.CDU, ResourceKind.HALL, ResourceKind.SITE),
    ResourceKind.FEEDER: (ResourceKind.FEEDER, ResourceKind.ROW, ResourceKind.HALL, ResourceKind.SITE),
    ResourceKind.METER: (
        ResourceKind.FEEDER, ResourceKind.METER, ResourceKind.CDU, ResourceKind.LOOP, ResourceKind.RACK,
        ResourceKind.ROW, ResourceKind.HALL, ResourceKind.SITE,
    ),
}  # fmt: skip
# What need not be part of anything.
ROOTS = (ResourceKind.SITE, ResourceKind.OFF_TAKER)

Identity = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Text = Annotated[str, msgspec.Meta(max_length=256)]
Reference = Annotated[str, msgspec.Meta(min_length=1, max_length=300)]  # identity, or kind:identity
Amount = Annotated[float, msgspec.Meta(gt=0)]

# Attributes that a source says of itself, or that mean something to the store.
RESERVED = frozenset({"same_as", "told_by"})


class EntryFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields that an entry may have, in a TOML file and as columns of a list.

    What is left out is not said, or stays as an earlier entry of the same thing has it. `role`, `class`,
    `measured_at` and the amounts are what reports and the ledger of registers go by; any other fact is an attribute.
    """

    identity: Identity
    name: Text | None = None
    parent: Reference | None = None
    serves: tuple[Reference, ...] | None = None
    aliases: tuple[Identity, ...] | None = None
    valid_from: datetime | None = None
    role: Text | None = None
    accuracy_class: Text | None = msgspec.field(default=None, name="class")
    measured_at: Text | None = None
    off_taker: Text | None = None
    feed: Text | None = None
    model: Text | None = None
    serial: Text | None = None
    fluid: Text | None = None
    flow_meter_at: Text | None = None
    loop_type: Text | None = None
    nominal_power_watts: Amount | None = None
    nominal_heat_watts: Amount | None = None
    register_modulus_joules: Amount | None = None
    register_resolution_joules: Amount | None = None
    interval_s: Amount | None = None
    attributes: dict[Identity, Text | int | float] = {}

    def __post_init__(self) -> None:
        taken = sorted(RESERVED & self.attributes.keys())
        if taken:
            raise ValueError(f"the attribute {taken[0]} is ours; call it otherwise")
        unfit = [name for name, fact in self._given() if isinstance(fact, float) and not math.isfinite(fact)]
        if unfit:
            raise ValueError(f"{unfit[0]} is no number; leave it out")

    def facts(self) -> dict[str, str]:
        """The attributes as text, by the names that they have in the inventory."""
        return {name: _text(fact) for name, fact in self._given() if fact is not None}

    def _given(self) -> Iterator[tuple[str, str | float | None]]:
        yield from self.attributes.items()
        for field in _FACTS:
            yield field.encode_name, getattr(self, field.name)


_NO_FACTS = frozenset({"identity", "name", "parent", "serves", "aliases", "valid_from", "attributes"})
_FACTS = tuple(field for field in msgspec.structs.fields(EntryFields) if field.name not in _NO_FACTS)
FIELD_NAMES = frozenset(field.encode_name for field in msgspec.structs.fields(EntryFields))


@dataclass(frozen=True, slots=True)
class Entry:
    """What a file says of a thing from `valid_from_ms` on; None where it gives no date.

    `where` names the file and the thing, for sentences; `undated_ms` is since when what has no date holds.
    """

    where: str
    kind: ResourceKind
    fields: EntryFields
    valid_from_ms: int | None
    undated_ms: int

    @property
    def key(self) -> tuple[ResourceKind, str]:
        return self.kind, self.fields.identity


def instant(given: Any) -> Any:  # noqa: ANN401 - whatever the file holds: what is no date is refused later
    """A date as its first instant in UTC, so that both TOML's dates and its times can be given."""
    if isinstance(given, date) and not isinstance(given, datetime):
        return datetime.combine(given, time(), UTC)
    return given


def written_instant(text: str) -> Any:  # noqa: ANN401 - as above
    """A date or time as people write it in a list, as far as it is one."""
    try:
        return instant(date.fromisoformat(text)) if len(text) == len("2026-10-01") else datetime.fromisoformat(text)
    except ValueError:
        return text


def milliseconds(moment: datetime | None) -> int | None:
    """UTC milliseconds; ValueError for a time without an offset, which is another one everywhere."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise ValueError(f"valid_from {moment.isoformat()} has no offset; give {moment.isoformat()}Z if it is UTC")
    return round(moment.timestamp() * 1000)


def _text(fact: str | float) -> str:
    if isinstance(fact, str):
        return fact
    return str(int(fact)) if float(fact).is_integer() and abs(fact) < 1 << 53 else repr(float(fact))
