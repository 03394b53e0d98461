"""What a device's registers mean: points with places, types and units, and how they become values. Pure.

A map comes from a YAML file (modbus_map_file) or from the device itself (modbus_sunspec); what follows is the same.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction

from catalogue import Metric, ResourceKind, Table
from catalogue.units import Unit
from collectors.facility import Quality
from collectors.modbus.blocks import MAX_REGISTERS, Span, plan_blocks
from collectors.modbus.registers import TYPES, Number, Order, RegisterType, bits_of, number_of, step_of, text_of
from collectors.modbus.units import DeviceUnit

QUALITY = "quality_state"
SERIAL = "serial"
REFUSED = "refused by the device"
LARGEST_EXPONENT = 10  # SunSpec information model specification: a scale factor is -10 to 10
SCALE_FACTOR = TYPES["int16"]
NOT_IMPLEMENTED = -0x8000  # SunSpec: of an int16, and so of a scale factor

# The words at a span; None where the device refused them or was not asked.
Words = Callable[[Span], Sequence[int] | None]


class Combine(StrEnum):
    """What several points of one metric make of it."""

    MEAN = "mean"  # of all, or nothing when one is absent
    SUM = "sum"  # of all, or nothing when one is absent
    MAX = "max"  # of those that are there; of states, the worst


@dataclass(frozen=True, slots=True, kw_only=True)
class MapPoint:
    """One number, state or text of a device.

    A number n is n * scale * 10^(scale factor) + offset in the device's unit. It is a metric of the map's table, a
    point with a name of its own, or an attribute of the device: text that hardly changes. `modulus` is in the
    register's own counts, 0 when it is not known where it starts again. `states` are the catalogue's numbers.
    """

    name: str
    span: Span
    type: RegisterType | None  # None for text
    unit: DeviceUnit | None = None  # None for states and attributes
    unit_name: str = ""
    metric: Metric | None = None
    is_attribute: bool = False
    is_register: bool = False
    word_order: Order = Order.BIG
    byte_order: Order = Order.BIG
    bit: int | None = None
    width: int = 1
    scale: Fraction = Fraction(1)
    offset: Fraction = Fraction(0)
    scale_factor: Span | None = None
    modulus: int = 0
    valid_min: float = -math.inf  # in the device's unit
    valid_max: float = math.inf
    absent: frozenset[Number] = frozenset()
    states: Mapping[int, int] = field(default_factory=dict)
    other_state: int | None = None
    combine: Combine | None = None

    @property
    def spans(self) -> tuple[Span, ...]:
        """All that has to be read for it."""
        return (self.span, self.scale_factor) if self.scale_factor else (self.span,)

    def in_base_unit(self, number: Number, exponent: int = 0) -> float:
        """The number in the base unit of its unit; not finite where it is too large."""
        unit = self.unit or DeviceUnit(Unit("", "", "", ""))
        factor = self.scale * unit.factor * Fraction(10) ** exponent
        shift = self.offset * unit.factor + unit.shift
        try:
            return number * factor.numerator / factor.denominator + float(shift)
        except OverflowError:
            return math.inf

    def in_device_unit(self, number: Number, exponent: int = 0) -> float:
        """The number in the unit of the device's document."""
        factor = self.scale * Fraction(10) ** exponent
        try:
            return number * factor.numerator / factor.denominator + float(self.offset)
        except OverflowError:
            return math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterMap:
    """All that is read of one model of device; its rows are of `kind`, in `table`.

    `max_gap` is -1 for a device that refuses to be asked for registers that it does not have.
    """

    name: str
    model: str
    kind: ResourceKind
    table: Table
    points: tuple[MapPoint, ...]
    attributes: Mapping[str, str] = field(default_factory=dict)
    max_gap: int = 8
    max_registers: int = MAX_REGISTERS

    @property
    def values(self) -> tuple[MapPoint, ...]:
        return tuple(one for one in self.points if not one.is_attribute)

    @property
    def facts(self) -> tuple[MapPoint, ...]:
        """The points that are attributes."""
        return tuple(one for one in self.points if one.is_attribute)

    @property
    def tells_serial(self) -> bool:
        return any(one.name == SERIAL for one in self.facts)

    def blocks(self, points: Iterable[MapPoint]) -> list[Span]:
        """The requests that read these points."""
        spans = [span for one in points for span in one.spans]
        return plan_blocks(spans, max_gap=self.max_gap, max_registers=self.max_registers)


@dataclass(frozen=True, slots=True)
class Judged:
    """What one point gave: a value in its base unit, or why there is none."""

    value: float | None = None
    why: str = ""
    number: Number | None = None
    exponent: int = 0


@dataclass(frozen=True, slots=True)
class RegisterFacts:
    """A register in its base unit: where it starts again (0 when not known), and how finely it counts now."""

    modulus: float
    resolution: float


@dataclass(frozen=True, slots=True)
class DeviceValues:
    """What a device gave at one tick, in base units, by name of metric or point; `absent` says why not."""

    metrics: Mapping[str, float]
    points: Mapping[str, float]
    registers: Mapping[str, RegisterFacts]
    absent: Mapping[str, str]
    quality: Quality = Quality.GOOD


def judge(point: MapPoint, words: Words) -> Judged:
    """The value of a point that is no attribute."""
    found = words(point.span)
    if found is None:
        return Judged(why=REFUSED)
    if point.type is None:
        return Judged(why="text")
    number = number_of(found, point.type, point.word_order, point.byte_order)
    if not math.isfinite(number):
        return Judged(why="not a number", number=number)
    if number in point.absent:
        return Judged(why=f"{_shown(number)} stands for no value", number=number)
    if point.bit is not None:
        number = bits_of(int(number), point.bit, point.width)
    if point.states or point.other_state is not None:
        return _judge_state(point, number)
    return _judge_number(point, number, words)


def _judge_state(point: MapPoint, number: Number) -> Judged:
    state = point.states.get(int(number), point.other_state)
    if state is None:
        return Judged(why=f"state {_shown(number)} is not in the map", number=number)
    return Judged(value=state, number=number)


def _judge_number(point: MapPoint, number: Number, words: Words) -> Judged:
    exponent = 0
    if point.scale_factor is not None:
        found = words(point.scale_factor)
        factor = int(number_of(found, SCALE_FACTOR, Order.BIG, point.byte_order)) if found else NOT_IMPLEMENTED
        if not -LARGEST_EXPONENT <= factor <= LARGEST_EXPONENT:
            told = "absent" if factor == NOT_IMPLEMENTED else str(factor)
            return Judged(why=f"its scale factor is {told}", number=number)
        exponent = factor
    theirs = point.in_device_unit(number, exponent)
    if not point.valid_min <= theirs <= point.valid_max:
        return Judged(why=f"{_shown(theirs)} {point.unit_name} is out of range", number=number, exponent=exponent)
    value = point.in_base_unit(number, exponent)
    if not math.isfinite(value):
        return Judged(why="too large", number=number, exponent=exponent)
    return Judged(value, number=number, exponent=exponent)


def evaluate(register_map: RegisterMap, words: Words) -> DeviceValues:
    """Everything that the map's points give."""
    judged = [(point, judge(point, words)) for point in register_map.values]
    metrics = dict(_metrics(judged))
    quality = Quality(int(metrics.pop(QUALITY, Quality.GOOD)))
    points = {p.name: one.value for p, one in judged if p.metric is None and one.value is not None}
    counting = [(p, one) for p, one in judged if p.is_register and p.metric is not None and one.value is not None]
    registers = {p.name: _register_facts(p, one) for p, one in counting}
    absent = {p.name: one.why for p, one in judged if one.value is None and p.name not in metrics}
    return DeviceValues(metrics, points, registers, absent, quality)


def facts_of(register_map: RegisterMap, words: Words) -> dict[str, str]:
    """The attributes that the device tells; one that is empty, 0 or all ones is not told."""
    found = {point.name: _fact(point, words(point.span)) for point in register_map.facts}
    return {name: fact for name, fact in found.items() if fact}


def _metrics(judged: Sequence[tuple[MapPoint, Judged]]) -> Iterator[tuple[str, float]]:
    by_name: dict[str, list[tuple[MapPoint, float | None]]] = {}
    for point, one in judged:
        if point.metric is not None:
            by_name.setdefault(point.name, []).append((point, one.value))
    for name, terms in by_name.items():
        value = _combined(terms[0][0].combine, [value for _, value in terms])
        if value is not None:
            yield name, value


def _combined(how: Combine | None, values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    if not known or (how in (Combine.MEAN, Combine.SUM) and len(known) < len(values)):
        return None
    if how is Combine.SUM:
        return math.fsum(known)
    return math.fsum(known) / len(known) if how is Combine.MEAN else max(known)


def _register_facts(point: MapPoint, judged: Judged) -> RegisterFacts:
    number = judged.number or 0
    count = point.in_base_unit(1, judged.exponent)
    step = step_of(point.type, number) if point.type else 1.0
    return RegisterFacts(point.in_base_unit(point.modulus, judged.exponent), step * count)


def _fact(point: MapPoint, words: Sequence[int] | None) -> str:
    if words is None:
        return ""
    if point.type is None:
        return text_of(words, point.byte_order)
    number = number_of(words, point.type, point.word_order, point.byte_order)
    blank = (0, -1, (1 << point.type.bits) - 1, *point.absent)
    return "" if number in blank or not math.isfinite(number) else _shown(number)


def _shown(number: Number) -> str:
    return str(number) if isinstance(number, int) else f"{number:.10g}"
