"""What is asked of one agent at every tick, and which metric of which meter each answer is.

A plan is made from a map and from what the agent has, which a walk has found out once; from then on only the objects
that matter are asked for, by name. Pure: nothing is sent from here.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain

from catalogue import Metric, ResourceKind, Table, resource_id
from catalogue.units import JOULES
from collectors.facility import MAX_NAME_CHARACTERS, Measurement, Point, PointValue
from collectors.snmp.map import DEVICE, SERIAL, Combine, DeviceMap, FactRule, Oid, ReadingRule, Where
from collectors.snmp.settings import SnmpDevice

MAX_FACT_CHARACTERS = 64
MAX_DIGITS = 9  # decimal digits of a number of 32 bits
_NO_SERIALS = frozenset({"", "0", "n/a", "na", "none", "unknown", "not available", "notset"})


@dataclass(frozen=True, slots=True)
class Found:
    """An object that an agent has: its value, and where a register of its type starts again from 0 (0: nowhere)."""

    value: int | str
    modulus: int = 0


Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """One object that is read at every tick; `name` is the point's, if it is one."""

    oid: Oid
    rule: ReadingRule
    scale: Fraction
    unless: Oid | None = None
    name: str = ""
    modulus: int = 0

    def value(self, answers: Mapping[Oid, int | str]) -> float | None:
        """The reading in its base unit; None when there is none."""
        number = self.number(answers)
        if number is None or (self.rule.codes and number not in self.rule.codes):
            return None
        if self.rule.codes:
            return float(self.rule.codes[number])
        return number * self.scale.numerator / self.scale.denominator

    def number(self, answers: Mapping[Oid, int | str]) -> int | None:
        """The agent's own number; None when there is none, or when it stands for none."""
        number = answers.get(self.oid)
        if not isinstance(number, int) or number in self.rule.blank:
            return None
        if self.unless is not None and answers.get(self.unless) in self.rule.unless_codes:
            return None
        return number


@dataclass(frozen=True, slots=True, eq=False)
class MeterPlan:
    """One meter of an agent: what it is called, and its objects, by metric and as points."""

    label: str
    identity: str
    title: str
    resource: int
    kind: ResourceKind
    facts: Mapping[str, str]
    metrics: Mapping[Metric, tuple[Slot, ...]]
    points: tuple[tuple[Point, Slot], ...]

    @property
    def slots(self) -> Iterator[Slot]:
        """Every object that is read, those of two uses once."""
        return iter(dict.fromkeys(chain(*self.metrics.values(), (slot for _, slot in self.points))))

    @property
    def register(self) -> Slot | None:
        """The energy register that is a column, if the meter has one."""
        return next((slots[0] for metric, slots in self.metrics.items() if metric.unit is JOULES), None)


@dataclass(frozen=True, slots=True, eq=False)
class DevicePlan:
    """What is asked of an agent at every tick."""

    map_name: str
    table: Table
    meters: tuple[MeterPlan, ...]
    oids: tuple[Oid, ...] = field(default=())


def plan_of(device_map: DeviceMap, device: SnmpDevice, found: Mapping[Oid, Found]) -> DevicePlan:
    """What to ask of `device`, which has the objects `found`. It has no meters when nothing of the map is there."""
    by_label: defaultdict[tuple[str, ...], list[tuple[Labels, Slot]]] = defaultdict(list)
    for rule in device_map.readings_with(device.details):
        for oid, labels in _rows(rule.where, found):
            slot = _slot(device_map, rule, oid, labels, found)
            if slot is not None:
                by_label[tuple(labels[name] for name in device_map.label)].append((labels, slot))
    facts = [_Told(fact, labels, found[oid]) for fact in device_map.facts for oid, labels in _rows(fact.where, found)]
    meters = tuple(
        _meter(device_map, device, dict(zip(device_map.label, key, strict=True)), [slot for _, slot in slots], facts)
        for key, slots in sorted(by_label.items())
    )
    asked = chain.from_iterable(_asked(slot) for meter in meters for slot in meter.slots)
    return DevicePlan(device_map.name, device_map.table, meters, tuple(dict.fromkeys(asked)))


def measurements_of(plan: DevicePlan, answers: Mapping[Oid, int | str]) -> list[Measurement]:
    """A row for each meter that has a value; what could not be read is absent."""
    measured = []
    for meter in plan.meters:
        combined = {metric.name: _combined(slots, answers) for metric, slots in meter.metrics.items()}
        values = {name: value for name, value in combined.items() if value is not None}
        if values:
            measured.append(Measurement(plan.table, meter.resource, values))
    return measured


def points_of(plan: DevicePlan, answers: Mapping[Oid, int | str]) -> list[PointValue]:
    """The points that have a value."""
    pairs = ((point, slot.value(answers)) for meter in plan.meters for point, slot in meter.points)
    return [PointValue(point, value) for point, value in pairs if value is not None]


@dataclass(frozen=True, slots=True)
class _Told:
    """A fact as one row of a table tells it."""

    rule: FactRule
    labels: Labels
    found: Found


def _rows(where: Where, found: Mapping[Oid, Found]) -> Iterator[tuple[Oid, Labels]]:
    """The objects of a column that have all labels, and the right ones, in order."""
    width = len(where.column)
    length = width + max(len(where.index), 1)  # an object in no table has the index 0 (RFC 2578, 7.10)
    for oid in sorted(oid for oid in found if len(oid) == length and oid[:width] == where.column):
        labels = _labels(where, oid[width:], found)
        if labels is not None and all(labels[name] in allowed for name, allowed in where.only.items()):
            yield oid, labels


def _labels(where: Where, index: Oid, found: Mapping[Oid, Found]) -> Labels | None:
    if not where.index and index != (0,):
        return None
    labels = dict(zip(where.index, map(str, index), strict=False)) | dict(where.labels)
    for name, column in where.keys.items():
        key = found.get(column + index)
        if key is None:
            return None
        labels[name] = _clean(str(key.value))
    return labels


def _slot(
    device_map: DeviceMap, rule: ReadingRule, oid: Oid, labels: Labels, found: Mapping[Oid, Found]
) -> Slot | None:
    """The object with its scale; None where the agent tells it in another unit than the map expects."""
    index = oid[len(rule.where.column) :]
    scale = rule.scale
    if rule.units is not None:
        unit, factor = device_map.unit_codes.get(_number(found, rule.units + index), (None, Fraction(1)))
        if unit is not rule.unit:
            return None
        scale *= factor
    if rule.digits is not None:
        digits = _number(found, rule.digits + index)
        if not 0 <= digits <= MAX_DIGITS:
            return None
        scale /= 10**digits
    return Slot(
        oid=oid,
        rule=rule,
        scale=scale,
        unless=rule.unless + index if rule.unless is not None else None,
        name=rule.point.format_map(labels)[:MAX_NAME_CHARACTERS],
        modulus=found[oid].modulus or rule.modulus,
    )


def _number(found: Mapping[Oid, Found], oid: Oid) -> int:
    """The number of an object; -2 when there is none, which no column of codes or digits has."""
    there = found.get(oid)
    return there.value if there is not None and isinstance(there.value, int) else -2


def _meter(
    device_map: DeviceMap, device: SnmpDevice, labels: Labels, slots: list[Slot], told: Iterable[_Told]
) -> MeterPlan:
    facts = _facts_of(labels, told)
    identity = _identity(device_map, device, labels, facts)
    title = device_map.title.format_map(defaultdict(str, {**facts, **labels, DEVICE: device.name}))
    resource = resource_id(device_map.resource, identity)
    return MeterPlan(
        label=" ".join(labels.values()),
        identity=identity,
        title=title[:MAX_NAME_CHARACTERS],
        resource=resource,
        kind=device_map.resource,
        facts=facts,
        metrics=_by_metric(slots),
        points=tuple(
            (Point(resource, identity, slot.name, slot.rule.unit, "counter" if slot.rule.is_counter else "gauge"), slot)
            for slot in {slot.name: slot for slot in slots if slot.name}.values()
        ),
    )


def _facts_of(labels: Labels, told: Iterable[_Told]) -> dict[str, str]:
    """The facts that share all of their labels that meters have; the first of two counts."""
    facts: dict[str, str] = {}
    for one in told:
        shared = labels.keys() & one.labels.keys()
        if one.rule.name not in facts and all(labels[name] == one.labels[name] for name in shared):
            text = _fact_text(one)
            if text:
                facts[one.rule.name] = text
    return facts


def _fact_text(told: _Told) -> str:
    value, scale = told.found.value, told.rule.scale
    if scale is None:
        return _clean(str(value))
    # A nominal value of 0 or below is one that was never set.
    return f"{float(value * scale):g}" if isinstance(value, int) and value > 0 else ""


def _clean(text: str) -> str:
    """Text of a device, made harmless: one line of what can be printed, and not too long."""
    return "".join(one if one.isprintable() else " " for one in text).strip()[:MAX_FACT_CHARACTERS]


def _identity(device_map: DeviceMap, device: SnmpDevice, labels: Labels, facts: Mapping[str, str]) -> str:
    """What stays: the settings' identity, else the serial number, else the device's name in the settings.

    A serial number tells the meters of one agent apart as the map says; the other two do so by the meter's labels.
    """
    serial = facts.get(SERIAL, "")
    has_serial = not device.identity and serial.lower() not in _NO_SERIALS and set(serial) != {"0"}
    names = defaultdict(str, {**facts, **labels, DEVICE: device.name})
    names[SERIAL] = serial if has_serial else device.identity or device.name
    identity = device_map.identity.format_map(names)
    if not has_serial:
        identity = "/".join([identity, *(labels[name] for name in labels if f"{{{name}}}" not in device_map.identity)])
    return identity[:MAX_NAME_CHARACTERS]


def _by_metric(slots: Iterable[Slot]) -> dict[Metric, tuple[Slot, ...]]:
    """The objects of each metric. Of several entries of a map the first that the agent has counts, at every tick."""
    found: dict[Metric, tuple[Slot, ...]] = {}
    for slot in slots:
        if slot.rule.metric is None:
            continue
        others = found.get(slot.rule.metric, ())
        if not others or others[0].rule is slot.rule:
            found[slot.rule.metric] = (*others, slot)
    return found


def _combined(slots: tuple[Slot, ...], answers: Mapping[Oid, int | str]) -> float | None:
    values = [value for slot in slots if (value := slot.value(answers)) is not None]
    if len(values) < len(slots):
        return None
    match slots[0].rule.combine:
        case Combine.SUM:
            return math.fsum(values)
        case Combine.MEAN:
            return math.fsum(values) / len(values)
        case Combine.ONLY:
            return values[0] if len(values) == 1 else None


def _asked(slot: Slot) -> tuple[Oid, ...]:
    return (slot.oid,) if slot.unless is None else (slot.oid, slot.unless)
