"""How the points of the BMS bus become rows: made from the metadata, used at every tick until they change; pure."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from msgspec.structs import replace

from catalogue import Metric, ResourceKind, Table
from collectors.dsx.mapping import (
    DETECTORS,
    EQUIPMENT_STATE,
    LEAK_STATES_OF,
    PUMP_SPEED,
    Detector,
    StatusWords,
    column_of,
    leak_state,
)
from collectors.dsx.message import PointFacts, Refusal, RefusedError
from collectors.dsx.objects import BusObject, BusObjects, DescribedPoint
from collectors.dsx.settings import DsxSettings
from collectors.dsx.units import Scale, scale_of
from collectors.facility import MAX_NAME_CHARACTERS, Measurement, Point, PointValue, Quality
from stream.messages import InventoryMessage


@dataclass(frozen=True, slots=True)
class Held:
    """What stands of a point at a tick: its number as published, None when the bus has none."""

    value: float | None
    quality: Quality

    @property
    def trusted(self) -> float | None:
        """The number, unless the bus itself does not trust it: a wrong reading is worse than none."""
        return None if self.quality is Quality.BAD else self.value


# What stands of the point with that value topic; None for nothing, as it is too old or was never said.
Standing = Callable[[str], Held | None]


class Rule(Enum):
    """How a column gets its value where several points could give it."""

    FIRST = auto()  # the point that describes it best
    HIGHEST = auto()
    LEAK = auto()
    STATUS = auto()


_RULES = {
    PUMP_SPEED: Rule.HIGHEST,
    EQUIPMENT_STATE: Rule.STATUS,
    **dict.fromkeys(LEAK_STATES_OF.values(), Rule.LEAK),
}


@dataclass(frozen=True, slots=True)
class Feed:
    """One point as its column, or the point of its own, needs it."""

    topic: str
    scale: Scale
    facts: PointFacts
    detector: Detector | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """A column of one resource, and the points that it comes from, best first."""

    metric: Metric
    rule: Rule
    feeds: tuple[Feed, ...]

    def value(self, said: Sequence[tuple[Feed, float]], words: StatusWords) -> float | None:
        """The column's value from what the points say, in the base unit."""
        if self.rule is Rule.LEAK:
            leaks, faults = ([number for feed, number in said if feed.detector is which] for which in Detector)
            return leak_state(leaks, faults)
        if self.rule is Rule.HIGHEST:
            return max((feed.scale.in_base_unit(number) for feed, number in said), default=None)
        first = next((number for feed, number in said if feed is self.feeds[0]), None)
        if first is None:
            return None
        if self.rule is Rule.STATUS:
            return words.state(self.feeds[0].facts.state_name(first))
        return self.feeds[0].scale.in_base_unit(first)


@dataclass(frozen=True, slots=True)
class RowPlan:
    """A row of one resource."""

    table: Table
    resource: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class PointPlan:
    """A point of its own."""

    feed: Feed
    point: Point


@dataclass(frozen=True, slots=True)
class Plan:
    """What the bus gives, as of its latest metadata. `refused` are points that cannot be used, and why."""

    objects: BusObjects
    rows: tuple[RowPlan, ...]
    points: tuple[PointPlan, ...]
    refused: tuple[RefusedError, ...]
    words: StatusWords

    def inventory(self, *, source: int, time_ms: int) -> Iterator[InventoryMessage]:
        """Objects, and points with the words that only their metadata have."""
        yield from self.objects.inventory(source=source, time_ms=time_ms)
        for plan in self.points:
            message = plan.point.inventory(valid_from_ms=time_ms, source=source)
            yield replace(message, attributes=message.attributes | _words_of(plan.feed.facts))

    def measure(self, standing: Standing) -> tuple[list[Measurement], list[PointValue]]:
        """Rows and points as they stand.

        A row has the quality of its worst point; what is not trusted is absent from it. A point of its own keeps its
        value and says that it is bad. Of what does not stand there is nothing.
        """
        rows = [row for plan in self.rows if (row := self._row(plan, standing)) is not None]
        return rows, list(self._points(standing))

    def _row(self, plan: RowPlan, standing: Standing) -> Measurement | None:
        values: dict[str, float] = {}
        qualities: list[Quality] = []
        for cell in plan.cells:
            heard = [(feed, held) for feed in cell.feeds if (held := standing(feed.topic)) is not None]
            qualities += (held.quality for _, held in heard)
            trusted = [(feed, held.trusted) for feed, held in heard]
            value = cell.value([(feed, number) for feed, number in trusted if number is not None], self.words)
            if value is not None:
                values[cell.metric.name] = value
        return Measurement(plan.table, plan.resource, values, max(qualities)) if qualities else None

    def _points(self, standing: Standing) -> Iterator[PointValue]:
        for plan in self.points:
            held = standing(plan.feed.topic)
            if held is not None and held.value is not None:
                yield PointValue(plan.point, plan.feed.scale.in_base_unit(held.value), held.quality)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A point that wants into a column."""

    spare_words: int
    described: DescribedPoint
    feed: Feed

    @property
    def rank(self) -> tuple[int, str]:
        return self.spare_words, self.feed.topic


def make_plan(described: Iterable[DescribedPoint], settings: DsxSettings) -> Plan:
    """The plan for these points. One that cannot be used is refused alone."""
    return _Planner(described, settings).plan()


class _Planner:
    """Sorts points into columns and points of their own."""

    def __init__(self, described: Iterable[DescribedPoint], settings: DsxSettings) -> None:
        self._settings = settings
        self._refused: list[RefusedError] = []
        self._described = list(self._with_id(described))
        self._objects = BusObjects(self._described, settings)
        self._columns: defaultdict[tuple[Table, int], defaultdict[Metric, list[_Candidate]]] = defaultdict(
            lambda: defaultdict(list)
        )
        self._alone: dict[str, PointPlan] = {}

    def plan(self) -> Plan:
        for described in self._described:
            self._sort(described)
        rows = [
            RowPlan(table, resource, tuple(self._cell(metric, found) for metric, found in columns.items()))
            for (table, resource), columns in self._columns.items()
        ]
        return Plan(
            self._objects,
            tuple(rows),
            tuple(self._alone.values()),
            tuple(self._refused),
            StatusWords(self._settings.status_words),
        )

    def _with_id(self, described: Iterable[DescribedPoint]) -> Iterator[DescribedPoint]:
        for point in described:
            if point.object_id:
                yield point
            else:
                self._refused.append(RefusedError(Refusal.NAMELESS, point.address.name))

    def _sort(self, described: DescribedPoint) -> None:
        address, facts = described.address, described.facts
        scale = scale_of(address.point_type, facts)
        if scale is None:
            self._refused.append(RefusedError(Refusal.UNIT, f"{facts.eng_unit or ''!r} of {address.name}"))
            return
        feed = Feed(described.topic, scale, facts, DETECTORS.get((address.object_type, address.point_type)))
        column = column_of(address, facts, scale)
        if column is None:
            self._set_alone(described, feed)
            return
        for owner in self._owners(described):
            candidate = _Candidate(column.spare_words, described, feed)
            self._columns[column.table, owner.resource][column.metric].append(candidate)

    def _owners(self, described: DescribedPoint) -> Iterable[BusObject]:
        """Whose row the point is in. What is measured in the room is in the row of every CDU that it serves."""
        owner = self._objects.owner(described)
        if owner is not None:
            return (owner,)
        served = set(described.facts.serves_id or ())
        return (cdu for cdu in self._objects.of_kind(ResourceKind.CDU) if not served or cdu.id in served)

    def _cell(self, metric: Metric, candidates: list[_Candidate]) -> Cell:
        """The column, and points of their own for what it does not tell: which pump, which detector, which word."""
        candidates.sort(key=lambda candidate: candidate.rank)
        rule = _RULES.get(metric, Rule.FIRST)
        alike = Counter(candidate.feed.detector for candidate in candidates)
        for candidate in candidates:
            if alike[candidate.feed.detector] > 1 or rule is Rule.STATUS:
                self._set_alone(candidate.described, candidate.feed)
        return Cell(metric, rule, tuple(candidate.feed for candidate in candidates))

    def _set_alone(self, described: DescribedPoint, feed: Feed) -> None:
        device, identity = self._objects.device(described)
        kind = "counter" if feed.scale.is_counter else "gauge"
        point = Point(device, identity, described.address.name, feed.scale.unit, kind)
        if len(point.identity) > MAX_NAME_CHARACTERS:
            self._refused.append(RefusedError(Refusal.TOO_LONG, described.address.name))
        else:
            self._alone[feed.topic] = PointPlan(feed, point)


def _words_of(facts: PointFacts) -> dict[str, str]:
    """What only the metadata say of a point, as attributes."""
    words = {
        "process_area": ", ".join(facts.process_area or ()),
        "phase": facts.phase or "",
        "setpoint": "true" if facts.is_setpoint else "",
        "states": ", ".join(f"{label.value:g} = {label.text}" for label in facts.state_text or ()),
    }
    return {name: text[:MAX_NAME_CHARACTERS] for name, text in words.items() if text}
