"""A map of SNMP agents as a TOML file says it, checked as a whole when it is loaded.

An agent does not start with a map that would store nonsense. The maps in collectors/snmp/maps are examples of all that
a map can say; docs/guides/snmp.md explains the words.
"""

from collections.abc import Collection, Mapping
from fractions import Fraction
from pathlib import Path
from string import Formatter
from typing import Annotated, Literal

import msgspec

from catalogue import Kind, Metric, ResourceKind, Table, table
from catalogue.point import UNIT_CODES
from catalogue.units import STATE, Unit
from collectors.map_file import EntryError, MapFormat, above_zero
from collectors.snmp.map import DEVICE, SERIAL, Combine, DeviceMap, FactRule, ReadingRule, Where, oid_of

SHIPPED_MAPS = Path(__file__).parent / "maps"

# Units that are columns of a table, or that a point's row can name.
_UNITS: Mapping[str, Unit] = {unit.suffix: unit for unit in UNIT_CODES}


class MapError(ValueError):
    """A map file is wrong; the message says in which file and entry, and what to do."""


Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
OidText = Annotated[str, msgspec.Meta(pattern=r"^\.?[0-2](\.(0|[1-9][0-9]{0,9})){1,60}$")]
Number = int | float
CodeText = Annotated[str, msgspec.Meta(pattern=r"^-?[0-9]{1,10}$")]


class _Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class _Where(_Entry, frozen=True, kw_only=True):
    oid: OidText
    index: tuple[Name, ...] = ()
    keys: dict[Name, OidText] = {}
    labels: dict[Name, str] = {}
    only: dict[Name, tuple[str | int, ...]] = {}


class _Unless(_Entry, frozen=True, kw_only=True):
    oid: OidText
    codes: Annotated[tuple[int, ...], msgspec.Meta(min_length=1)]


class _UnitCode(_Entry, frozen=True, kw_only=True):
    unit: Name
    scale: str | Number = 1


class _Fact(_Where, frozen=True, kw_only=True):
    """One [[facts]]: text about a meter for its inventory message; with `scale` a number in the unit of its name."""

    name: Name
    scale: str | Number | None = None


class _Reading(_Where, frozen=True, kw_only=True):
    """One [[readings]]: a column of a table, or an object in none, which is read at every tick."""

    metric: str = ""
    point: str = ""
    unit: str = ""
    kind: Literal["gauge", "counter"] = "gauge"
    scale: str | Number = 1
    digits: OidText | None = None
    units: OidText | None = None
    unless: _Unless | None = None
    blank: tuple[int, ...] | None = None
    combine: Combine = Combine.ONLY
    codes: dict[CodeText, int] = {}
    states: dict[CodeText, Name] = {}
    event: str = ""
    modulus: Annotated[int, msgspec.Meta(ge=0, le=1 << 62)] = 0
    detail: str = ""


class _MapFile(_Entry, frozen=True, kw_only=True):
    name: Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_]{0,31}$")]
    source: Name
    match: tuple[OidText, ...] = ()
    table: Name = "power"
    resource: ResourceKind = ResourceKind.METER
    label: tuple[Name, ...] = ()
    identity: Name = "{serial}"
    title: Name = "{device}"
    blank: tuple[int, ...] = ()
    unit_codes: dict[CodeText, _UnitCode] = {}
    facts: tuple[_Fact, ...] = ()
    readings: Annotated[tuple[_Reading, ...], msgspec.Meta(min_length=1, max_length=200)]


def load_maps(folder: Path | None = None) -> dict[str, DeviceMap]:
    """The shipped maps and those in `folder`, which come first, by name. Raises MapError with one sentence."""
    found: dict[str, DeviceMap] = {}
    for place in (SHIPPED_MAPS, folder):
        if place is None:
            continue
        if not place.is_dir():
            raise MapError(f"the folder of maps {place} is not there; give an existing one")
        for file in sorted(place.glob("*.toml")):
            device_map = load_map(file)
            found[device_map.name] = device_map
    return found


def _compile(file: _MapFile) -> DeviceMap:
    target = _table(file)
    codes = {int(code): _unit_code(code, entry) for code, entry in file.unit_codes.items()}
    facts = tuple(_compile_fact(entry) for entry in file.facts)
    names = {DEVICE, *file.label, *(fact.name for fact in facts)}
    _check_template("identity", file.identity, {*names, SERIAL})
    _check_template("title", file.title, names)
    return DeviceMap(
        name=file.name,
        source=file.source,
        match=tuple(oid_of(text) for text in file.match),
        table=target,
        resource=file.resource,
        label=file.label,
        identity=file.identity,
        title=file.title,
        unit_codes=codes,
        facts=facts,
        readings=tuple(_compile_reading(file, target, entry) for entry in file.readings),
    )


_FORMAT = MapFormat("map", _MapFile, _compile, "collectors/snmp/maps", MapError)


def load_map(file: Path) -> DeviceMap:
    """The map in a TOML file. Raises MapError with one sentence."""
    return _FORMAT.load(file)


def parse_map(text: str, *, where: str) -> DeviceMap:
    """The map in `text`; `where` is what errors call it. Raises MapError with one sentence."""
    return _FORMAT.parse(text, where=where)


def _table(file: _MapFile) -> Table:
    try:
        target = table(file.table)
    except KeyError as error:
        raise EntryError(f"table {file.table!r} is not in the catalogue: {error.args[0]}") from error
    if file.resource not in target.resources:
        kinds = ", ".join(target.resources)
        raise EntryError(f"table {target.name} has rows of {kinds}, not of {file.resource}; change resource")
    return target


def _compile_fact(entry: _Fact) -> FactRule:
    say = f"fact {entry.name} ({entry.oid})"
    return FactRule(
        name=entry.name,
        where=_where(entry, say),
        scale=None if entry.scale is None else above_zero(entry.scale, "scale", say),
    )


def _compile_reading(file: _MapFile, target: Table, entry: _Reading) -> ReadingRule:
    say = f"reading {entry.metric or entry.point or 'without a name'} ({entry.oid})"
    where = _where(entry, say)
    missing = set(file.label) - where.names
    if missing:
        raise EntryError(f"{say} does not tell which meter it is of; give it the label {min(missing)!r}")
    if not entry.metric and not entry.point:
        raise EntryError(f"{say} goes nowhere; give a metric of table {target.name}, or a point with its unit")
    _check_template(f"point of {say}", entry.point, where.names)
    metric = _metric(target, entry, say) if entry.metric else None
    unit = _unit(metric, entry, say)
    if entry.units and not file.unit_codes:
        raise EntryError(f"{say} has a column of unit codes; say what they mean in [unit_codes.<code>]")
    return ReadingRule(
        where=where,
        metric=metric,
        point=entry.point,
        unit=unit,
        is_counter=entry.kind == "counter",
        scale=above_zero(entry.scale, "scale", say),
        digits=oid_of(entry.digits) if entry.digits else None,
        units=oid_of(entry.units) if entry.units else None,
        unless=oid_of(entry.unless.oid) if entry.unless else None,
        unless_codes=frozenset(entry.unless.codes) if entry.unless else frozenset(),
        blank=frozenset(file.blank if entry.blank is None else entry.blank),
        combine=entry.combine,
        codes=_codes(metric, entry, say),
        states={int(code): name for code, name in entry.states.items()},
        event=entry.event,
        modulus=entry.modulus,
        detail=entry.detail,
    )


def _where(entry: _Where, say: str) -> Where:
    where = Where(
        column=oid_of(entry.oid),
        index=entry.index,
        keys={name: oid_of(text) for name, text in entry.keys.items()},
        labels=entry.labels,
        only={name: frozenset(map(str, values)) for name, values in entry.only.items()},
    )
    if len(where.names) < len(entry.index) + len(entry.keys) + len(entry.labels):
        raise EntryError(f"{say} has one label twice; index, keys and labels need names of their own")
    unknown = set(where.only) - where.names
    if unknown:
        raise EntryError(f"{say}: only has {min(unknown)!r}, which is no label of it")
    return where


def _metric(target: Table, entry: _Reading, say: str) -> Metric:
    try:
        metric = target.metric(entry.metric)
    except KeyError as error:
        raise EntryError(f"{say} is not in the catalogue: {error.args[0]}") from error
    if metric.kind is Kind.DELTA or metric.name == "quality_state":
        raise EntryError(f"{say} is not what a device tells; read a register or a gauge")
    needed = "counter" if metric.kind is Kind.REGISTER else "gauge"
    if entry.kind != needed:
        raise EntryError(f'{say} is a {metric.kind}, which needs a {needed}; say kind = "{needed}" if it is one')
    if metric.kind is Kind.REGISTER and entry.combine is not Combine.ONLY:
        raise EntryError(f"{say}: registers are never combined, for each has its own roll-over; use label")
    return metric


def _unit(metric: Metric | None, entry: _Reading, say: str) -> Unit:
    told = _named_unit(entry.unit, say) if entry.unit else None
    if metric is None and told is None:
        raise EntryError(f"{say} needs a unit; there are {', '.join(_UNITS)}")
    if metric is None:
        assert told is not None  # noqa: S101 - the case above
        return told
    if told is not None and told is not metric.unit:
        raise EntryError(f"{say} is in {metric.unit.suffix}, not in {told.suffix}; leave unit out")
    if entry.point and metric.unit not in UNIT_CODES:
        raise EntryError(f"{say}: no point is in {metric.unit.suffix}; leave point out")
    return metric.unit


def _named_unit(name: str, say: str) -> Unit:
    unit = _UNITS.get(name)
    if unit is None:
        raise EntryError(f"{say}: there is no unit {name!r}; there are {', '.join(_UNITS)}")
    return unit


def _unit_code(code: str, entry: _UnitCode) -> tuple[Unit, Fraction]:
    say = f"unit code {code}"
    return _named_unit(entry.unit, say), above_zero(entry.scale, "scale", say)


def _codes(metric: Metric | None, entry: _Reading, say: str) -> dict[int, int]:
    """What the agent's codes are in the catalogue; needed where a metric is a state, and nowhere else."""
    is_state = metric is not None and metric.kind is Kind.STATE
    if is_state != bool(entry.codes):
        raise EntryError(f"{say} needs codes if it is a state of the catalogue, and only then")
    known = {code for code, _ in metric.states} if metric is not None else set()
    unknown = sorted(set(entry.codes.values()) - known)
    if unknown:
        raise EntryError(f"{say}: the catalogue has no state {unknown[0]}; it has {sorted(known)}")
    if entry.event and not entry.states:
        raise EntryError(f"{say} has an event; say in states what its codes are called")
    if entry.states and (metric.unit if metric is not None else _UNITS.get(entry.unit)) is not STATE:
        raise EntryError(f'{say} has states; its unit must be "{STATE.suffix}"')
    return {int(theirs): ours for theirs, ours in entry.codes.items()}


def _check_template(what: str, template: str, names: Collection[str]) -> None:
    """A template has plain names in braces: anything else that a format string can do would read objects."""
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise EntryError(f"{what} {template!r} is not a template: {error}") from error
    for _, name, spec, conversion in parts:
        if name is not None and (name not in names or spec or conversion):
            raise EntryError(f"{what} {template!r} names {name!r}; there are {', '.join(sorted(names)) or 'no labels'}")
