"""What a family of SNMP agents tells: which object is which metric, in which unit, and which meter it is of.

A map is data: it is written as TOML (collectors/snmp/map_file.py) and applied to what an agent has by snmp_plan.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction

from catalogue import Metric, ResourceKind, Table
from catalogue.units import Unit

SERIAL = "serial"  # the fact that identity is made of
DEVICE = "device"  # in templates: the name in the settings

Oid = tuple[int, ...]


class Combine(StrEnum):
    """What several values of one metric of one meter make."""

    ONLY = "only"  # there is one; of several nobody knows which
    SUM = "sum"  # the parts add up; without one of them there is no sum
    MEAN = "mean"  # the mean of all parts


@dataclass(frozen=True, slots=True, eq=False)
class Where:
    """Where values are, and what tells the rows apart.

    A row is told by labels: the parts of its index under the names `index`, what the columns in `keys` say in that row,
    and fixed `labels`. Rows with other labels than those in `only` are left alone.
    """

    column: Oid
    index: tuple[str, ...] = ()
    keys: Mapping[str, Oid] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    only: Mapping[str, Collection[str]] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        """All labels that a row has."""
        return frozenset((*self.index, *self.keys, *self.labels))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FactRule:
    """A fact about the meters whose labels it shares; a number is multiplied by `scale`."""

    name: str
    where: Where
    scale: Fraction | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadingRule:
    """How one column is read: the agent's number times `scale`, divided by 10 to the number in the column `digits`.

    `units` is a column with a code that the map's `unit_codes` explain, in place of a fixed scale. A row whose column
    `unless` has one of the codes has no reading, nor has a number in `blank`. `modulus` is where the register starts
    again from 0, in the agent's counts; 0 when the map does not know.
    """

    where: Where
    metric: Metric | None
    point: str
    unit: Unit
    is_counter: bool
    scale: Fraction
    digits: Oid | None
    units: Oid | None
    unless: Oid | None
    unless_codes: Collection[int]
    blank: Collection[int]
    combine: Combine
    codes: Mapping[int, int]
    states: Mapping[int, str]
    event: str
    modulus: int
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeviceMap:
    """What a family of agents tells: read by `load_maps` or `parse_map`.

    `label` names the labels that tell the meters of one agent apart; `identity` and `title` are templates of labels,
    facts and the device's name.
    """

    name: str
    source: str
    match: tuple[Oid, ...]
    table: Table
    resource: ResourceKind
    label: tuple[str, ...]
    identity: str
    title: str
    unit_codes: Mapping[int, tuple[Unit, Fraction]]
    facts: tuple[FactRule, ...]
    readings: tuple[ReadingRule, ...]

    @property
    def details(self) -> frozenset[str]:
        """Groups of readings that have to be asked for."""
        return frozenset(rule.detail for rule in self.readings if rule.detail)

    def readings_with(self, details: Collection[str]) -> tuple[ReadingRule, ...]:
        """The readings without a group, and those of the groups named."""
        return tuple(rule for rule in self.readings if not rule.detail or rule.detail in details)

    def columns(self, details: Collection[str]) -> tuple[Oid, ...]:
        """Every column that has to be walked once to know which rows there are, in order."""
        wheres = [fact.where for fact in self.facts]
        found: set[Oid] = set()
        for rule in self.readings_with(details):
            wheres.append(rule.where)
            found.update(oid for oid in (rule.digits, rule.units, rule.unless) if oid)
        for where in wheres:
            found |= {where.column, *where.keys.values()}
        return tuple(sorted(found))


def map_for(object_id: Oid, maps: Iterable[DeviceMap]) -> DeviceMap | None:
    """The map whose `match` is the longest beginning of a device's sysObjectID."""
    fitting = [
        (len(prefix), device_map)
        for device_map in maps
        for prefix in device_map.match
        if object_id[: len(prefix)] == prefix
    ]
    return max(fitting, key=lambda found: found[0])[1] if fitting else None


def oid_of(text: str) -> Oid:
    """The numbers of a dotted object identifier; ValueError when it is none."""
    return tuple(int(part) for part in text.removeprefix(".").split("."))


def dotted(oid: Oid) -> str:
    return ".".join(map(str, oid))
