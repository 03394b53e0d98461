"""Register maps in YAML: read, checked as a whole against the catalogue, and refused in one clear sentence.

A map that is wrong must not start: a number that is scaled wrongly looks like a number.
"""

import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import yaml

from catalogue import COOLING, POWER, RACK, Kind, Metric, ResourceKind, Table
from catalogue.point import UNIT_CODES
from collectors.modbus.blocks import ADDRESSES, BIT_FUNCTIONS, MAX_REGISTERS, Span
from collectors.modbus.map import SCALE_FACTOR, Combine, MapPoint, RegisterMap
from collectors.modbus.registers import TYPES, Number, Order, RegisterType
from collectors.modbus.settings import OWN_ATTRIBUTES
from collectors.modbus.units import DeviceUnit, device_unit

FACILITY_TABLES = (POWER, COOLING, RACK)
MAX_FILE_BYTES = 1 << 20
MAX_POINTS = 1000
SHIPPED = "maps"
TEXT = "string"
BIT = TYPES["bits"]

# Where a vendor's document counts from 1 and puts the kind of register in front: 40001 is holding register 0.
DOCUMENT_FUNCTIONS = {"0": 1, "1": 2, "3": 4, "4": 3}
FUNCTION_NAMES = {1: "coils", 2: "discrete inputs", 3: "holding registers", 4: "input registers"}

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Word = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_]{0,63}$")]
Function = Literal[1, 2, 3, 4]
Address = Annotated[int, msgspec.Meta(ge=0, lt=ADDRESSES)]
OrderName = Literal["big", "little"]


class MapError(ValueError):
    """A register map is wrong; the message says in which file and point, and what to do."""


class _PointError(Exception):
    """What is wrong with a point."""


class _Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class _PlaceEntry(_Entry, frozen=True, kw_only=True):
    address: Address | None = None
    document_address: str | int | None = None
    function: Function | None = None


class _PointEntry(_Entry, frozen=True, kw_only=True):
    """One of metric, point and attribute says what it is; docs/guides/modbus.md explains the others."""

    metric: Name | None = None
    point: Name | None = None
    attribute: Word | None = None
    note: str = ""
    address: Address | None = None
    document_address: str | int | None = None
    function: Function | None = None
    type: str | None = None
    registers: Annotated[int, msgspec.Meta(ge=1, le=64)] | None = None
    word_order: OrderName | None = None
    byte_order: OrderName | None = None
    bit: Annotated[int, msgspec.Meta(ge=0, le=63)] | None = None
    width: Annotated[int, msgspec.Meta(ge=1, le=32)] = 1
    unit: str | None = None
    scale: Number | str = 1
    offset: Number | str = 0
    scale_factor: _PlaceEntry | None = None
    kind: Literal["gauge", "register"] | None = None
    modulus: Annotated[int, msgspec.Meta(gt=0)] | None = None
    valid_min: Number | None = None
    valid_max: Number | None = None
    absent: tuple[Number, ...] = ()
    states: dict[int, str] = {}
    other: str | None = None
    combine: Combine | None = None

    @property
    def label(self) -> str:
        return self.metric or self.point or self.attribute or "without a name"


class _MapFile(_Entry, frozen=True, kw_only=True):
    model: Name
    kind: ResourceKind
    attributes: dict[Word, Name] = {}
    function: Function | None = None
    word_order: OrderName = "big"
    byte_order: OrderName = "big"
    blocks: Literal["joined", "separate"] = "joined"
    max_gap: Annotated[int, msgspec.Meta(ge=0, le=MAX_REGISTERS)] = 8
    max_registers: Annotated[int, msgspec.Meta(ge=1, le=MAX_REGISTERS)] = MAX_REGISTERS
    points: Annotated[tuple[_PointEntry, ...], msgspec.Meta(min_length=1, max_length=MAX_POINTS)]


def shipped_maps() -> dict[str, Traversable]:
    """The maps that come with the collectors, by name."""
    folder = files("collectors.modbus") / SHIPPED
    return {file.name.removesuffix(".yaml"): file for file in folder.iterdir() if file.name.endswith(".yaml")}


def load_register_map(name: str, folder: str = "") -> RegisterMap:
    """The map called `name`: <folder>/<name>.yaml where that exists, else a shipped one. Raises MapError."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise MapError(f"{name!r} is no name of a register map; give letters, digits, - and _, without .yaml")
    own = Path(folder) / f"{name}.yaml" if folder else None
    shipped = shipped_maps()
    if own is not None and own.is_file():
        return parse_register_map(_read(own), name=name, where=str(own))
    if name in shipped:
        return parse_register_map(_read(shipped[name]), name=name, where=f"collectors/modbus/{SHIPPED}/{name}.yaml")
    looked = f"not in {folder} and " if folder else ""
    raise MapError(f"there is no register map {name!r}: it is {looked}none of {', '.join(sorted(shipped))}")


def parse_register_map(text: str, *, name: str, where: str) -> RegisterMap:
    """The map in `text`; `where` is what errors call it. Raises MapError with one sentence."""
    try:
        file = msgspec.convert(yaml.safe_load(text), _MapFile)
    except (yaml.YAMLError, RecursionError) as error:
        raise MapError(f"register map {where} is not YAML: {' '.join(str(error).split())}") from error
    except msgspec.ValidationError as error:
        raise MapError(
            f"register map {where}: {_located(text, error)}; collectors/modbus/{SHIPPED} has examples"
        ) from error
    return _compile(file, name, where)


def _read(file: Traversable) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise MapError(f"register map {file} has more than {MAX_FILE_BYTES} bytes; give a register map")
        return content.decode()
    except OSError as error:
        raise MapError(f"register map {file} cannot be read: {error.strerror}; give a readable file") from error
    except UnicodeDecodeError as error:
        raise MapError(f"register map {file} is not UTF-8: {error.reason}; save it as such") from error


def _located(text: str, error: msgspec.ValidationError) -> str:
    """The error with the name of the point that it is about, which its path has as a number only."""
    found = re.search(r"points\[(\d+)\]", str(error))
    if not found:
        return str(error)
    entry = yaml.safe_load(text)["points"][int(found[1])]
    named = (
        [str(entry[key]) for key in ("metric", "point", "attribute") if key in entry] if isinstance(entry, dict) else []
    )
    return f"point {int(found[1]) + 1} ({named[0][:128] if named else 'without a name'}): {error}"


def _compile(file: _MapFile, name: str, where: str) -> RegisterMap:
    tables = [one for one in FACILITY_TABLES if file.kind in one.resources]
    if not tables:
        kinds = ", ".join(kind for one in FACILITY_TABLES for kind in one.resources)
        raise MapError(f"register map {where}: kind is {file.kind}, of which no meter tells; give one of {kinds}")
    points = []
    for number, entry in enumerate(file.points, start=1):
        try:
            points.append(_compile_point(file, entry, tables[0]))
        except _PointError as error:
            raise MapError(f"register map {where}: point {number} ({entry.label}): {error}") from error
    for problem in (*_rivals(points), *_taken(file)):
        raise MapError(f"register map {where}: {problem}")
    return RegisterMap(
        name=name,
        model=file.model,
        kind=file.kind,
        table=tables[0],
        points=tuple(points),
        attributes=file.attributes,
        max_gap=-1 if file.blocks == "separate" else file.max_gap,
        max_registers=file.max_registers,
    )


def _compile_point(file: _MapFile, entry: _PointEntry, table: Table) -> MapPoint:
    if sum(one is not None for one in (entry.metric, entry.point, entry.attribute)) != 1:
        raise _PointError("says not exactly one of metric, point and attribute; say what it is")
    function, address = _place(entry, file.function)
    kind, registers = _type(entry, function)
    metric = _metric(entry.metric, table) if entry.metric else None
    unit = None if entry.attribute else _unit(entry, metric)
    point = MapPoint(
        name=metric.name if metric else entry.label,
        span=_span(function, address, registers),
        type=kind,
        unit=unit,
        unit_name=entry.unit or "",
        metric=metric,
        is_attribute=entry.attribute is not None,
        is_register=_is_register(entry, metric),
        word_order=Order(entry.word_order or file.word_order),
        byte_order=Order(entry.byte_order or file.byte_order),
        bit=entry.bit,
        width=entry.width,
        scale=_fraction(entry.scale, "scale"),
        offset=_fraction(entry.offset, "offset"),
        scale_factor=_scale_factor(entry.scale_factor, function),
        modulus=entry.modulus or (kind.modulus if kind else 0),
        valid_min=float("-inf") if entry.valid_min is None else entry.valid_min,
        valid_max=float("inf") if entry.valid_max is None else entry.valid_max,
        absent=_absent(entry, kind),
        states=_states(entry, metric),
        other_state=_state(entry.other, metric) if entry.other is not None else None,
        combine=entry.combine,
    )
    _check(entry, point)
    return point


def _place(entry: _PointEntry | _PlaceEntry, default: int | None) -> tuple[int, int]:
    """Function and wire address."""
    if (entry.address is None) == (entry.document_address is None):
        raise _PointError("says not exactly one of address (from 0) and document_address (such as 40001)")
    if entry.address is not None:
        function = entry.function or default
        if function is None:
            raise _PointError("says no function; give 3 for holding registers, 4 for input registers")
        return function, entry.address
    text = str(entry.document_address)
    found = re.fullmatch(r"([0134])(\d{4,5})", text)
    if not found or not 1 <= int(found[2]) <= ADDRESSES:
        raise _PointError(
            f"document_address {text} is none; give five or six digits, such as 40001, 30001, or '00001' in quotes"
        )
    function = DOCUMENT_FUNCTIONS[found[1]]
    if entry.function not in (None, function):
        raise _PointError(
            f"document_address {text} means {FUNCTION_NAMES[function]}, function {function}, but function is "
            f"{entry.function}; give one of the two"
        )
    return function, int(found[2]) - 1


def _span(function: int, address: int, count: int) -> Span:
    if address + count > ADDRESSES:
        raise _PointError(f"ends at address {address + count - 1}, above {ADDRESSES - 1}; check address and type")
    return Span(function, address, count)


def _type(entry: _PointEntry, function: int) -> tuple[RegisterType | None, int]:
    """The type, None for text, and how many registers it fills."""
    if function in BIT_FUNCTIONS:
        if entry.type is not None or entry.registers is not None or entry.bit is not None:
            raise _PointError(
                f"is one of the {FUNCTION_NAMES[function]}, which are single bits; leave out type and bit"
            )
        return BIT, 1
    if entry.type == TEXT:
        if entry.attribute is None or entry.registers is None:
            raise _PointError("is text; that is an attribute, and needs registers, the number of registers it fills")
        return None, entry.registers
    if entry.registers is not None:
        raise _PointError("says registers, which only text needs; leave it out")
    if entry.type not in TYPES:
        said = "no type" if entry.type is None else f"type {entry.type!r}, which is not known"
        raise _PointError(f"says {said}; give one of {', '.join((*TYPES, TEXT))}")
    return TYPES[entry.type], TYPES[entry.type].registers


def _metric(name: str, table: Table) -> Metric:
    head, _, rest = name.partition(".")
    found = next((one for one in table.metrics if one.name == rest), None) if head == table.name else None
    if found is None:
        wanted = ", ".join(f"{table.name}.{one.name}" for one in table.metrics)
        raise _PointError(f"is no metric of this kind of device; there are {wanted}; or give it a name with point")
    if found.kind not in (Kind.GAUGE, Kind.REGISTER, Kind.STATE):
        raise _PointError(f"is a {found.kind}, which no register holds; leave it out")
    return found


def _unit(entry: _PointEntry, metric: Metric | None) -> DeviceUnit | None:
    """The device's unit; None for a state of the catalogue."""
    if metric is not None and metric.kind is Kind.STATE:
        if entry.unit is not None:
            raise _PointError("is a state and has a unit; leave the unit out, and give states")
        return None
    if entry.unit is None:
        raise _PointError("says no unit; give the unit of the device's document")
    try:
        unit = device_unit(entry.unit, metric.unit if metric else None)
    except KeyError as error:
        raise _PointError(str(error.args[0])) from error
    if unit.base not in UNIT_CODES:
        raise _PointError(f"unit {entry.unit!r} is none of a point; give the point another one, or leave it out")
    return unit


def _is_register(entry: _PointEntry, metric: Metric | None) -> bool:
    if metric is None:
        return entry.kind == "register"
    needed = "register" if metric.kind is Kind.REGISTER else "gauge"
    if entry.kind not in (None, needed):
        raise _PointError(f"is a {needed} in the catalogue, not a {entry.kind}; leave kind out")
    return needed == "register"


def _fraction(text: Number | str, what: str) -> Fraction:
    try:
        return Fraction(str(text))
    except (ValueError, ZeroDivisionError) as error:
        raise _PointError(f'{what} {text!r} is not a number; write 0.1 or "1/3"') from error


def _scale_factor(entry: _PlaceEntry | None, default: int) -> Span | None:
    if entry is None:
        return None
    function, address = _place(entry, default)
    if function in BIT_FUNCTIONS:
        raise _PointError("has a scale_factor that is a single bit; give its register")
    return _span(function, address, SCALE_FACTOR.registers)


def _absent(entry: _PointEntry, kind: RegisterType | None) -> frozenset[Number]:
    """The numbers that stand for no value; 0x8000 of a signed type is the number that these bits are."""
    if kind is None or kind.is_float:
        return frozenset(entry.absent)
    for one in entry.absent:
        if one != int(one) or not -(1 << kind.bits - 1) <= one < 1 << kind.bits:
            raise _PointError(f"absent has {one}, which no {kind.name} is; give whole numbers of {kind.bits} bits")
    wrap = 1 << kind.bits
    return frozenset(int(one) - wrap if kind.is_signed and one >= wrap >> 1 else int(one) for one in entry.absent)


def _states(entry: _PointEntry, metric: Metric | None) -> Mapping[int, int]:
    if metric is None or metric.kind is not Kind.STATE:
        if entry.states or entry.other is not None:
            raise _PointError("has states, but is no state of the catalogue; leave them out, or name such a metric")
        return {}
    if not entry.states:
        names = ", ".join(name for _, name in metric.states)
        raise _PointError(f"is a state without states; say which number of the device is which of {names}")
    return {number: _state(name, metric) for number, name in entry.states.items()}


def _state(name: str, metric: Metric | None) -> int:
    names = {ours: number for number, ours in metric.states} if metric else {}
    if name not in names:
        raise _PointError(f"has no state {name!r}; there are {', '.join(names)}")
    return names[name]


def _check(entry: _PointEntry, point: MapPoint) -> None:
    """What single fields allow, but not together."""
    if point.scale == 0:
        raise _PointError("scale is 0; give what one count is worth")
    if point.valid_min > point.valid_max:
        raise _PointError(f"valid_min {point.valid_min:g} is above valid_max {point.valid_max:g}; swap them")
    if point.is_attribute and (entry.unit, entry.scale, entry.offset, entry.scale_factor) != (None, 1, 0, None):
        raise _PointError("is an attribute, which has neither unit nor scale; leave them out")
    if entry.modulus is not None and not point.is_register:
        raise _PointError("has a modulus, but is no register; leave it out, or say kind: register")
    if point.is_register and (point.offset or point.scale < 0 or point.combine or point.bit is not None):
        raise _PointError("is a register, which has no offset, bits, combine or scale below 0; leave them out")
    _check_bits(point)


def _check_bits(point: MapPoint) -> None:
    if point.bit is None:
        if point.type is BIT and point.span.function not in BIT_FUNCTIONS:
            raise _PointError("is of type bits; say which bit, 0 being the lowest")
        return
    if point.type is None or point.type.is_float or point.type.is_signed:
        raise _PointError("has a bit, but no type that has bits; give bits, uint16, uint32 or uint64")
    if point.bit + point.width > point.type.bits:
        raise _PointError(f"goes up to bit {point.bit + point.width - 1}; a {point.type.name} has {point.type.bits}")


def _rivals(points: list[MapPoint]) -> Iterator[str]:
    """Two points of one name must say what they make together."""
    by_name: dict[str, list[MapPoint]] = {}
    for point in points:
        by_name.setdefault(point.name, []).append(point)
    for name, same in by_name.items():
        if len(same) == 1:
            continue
        is_state = all(point.metric is not None and point.metric.kind is Kind.STATE for point in same)
        hows = {point.combine for point in same}
        if same[0].metric is None or any(point.is_register for point in same):
            yield f"{name} is there {len(same)} times; give it once"
        elif not is_state and (None in hows or len(hows) > 1):
            yield f"{name} is there {len(same)} times; say combine: mean, sum or max with each of them"
        elif is_state and hows - {None, Combine.MAX}:
            yield f"{name} is a state, of which the worst counts; leave combine out"


def _taken(file: _MapFile) -> Iterator[str]:
    names = [*file.attributes, *(entry.attribute for entry in file.points if entry.attribute)]
    for name in names:
        if name in OWN_ATTRIBUTES or name.startswith("register_"):
            yield f"attribute {name} is one that settings or Kvandal itself say; give it another name"
