"""What an exporter's numbers mean stands in a mapping file, not in code: pages become rows, and inventory.

What is odd about a page is logged once. Nothing is stored that the text does not say: a sentinel, a stale sample, a
family of another type or repeats that contradict each other are absent.
"""

import logging
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from catalogue import ResourceKind, Table, resource_id
from collectors.counters import Counters, CounterStore
from collectors.mapping import MAX_IDENTITY_CHARACTERS, ExporterMapping, Labels, MetricRule, Number, Repeats
from collectors.prometheus_text import Exposition, Point, is_number
from collectors.source import Reading, SourceUnavailableError
from collectors.told import ToldBefore
from stream.messages import InventoryMessage
from stream.rows import pack

MAX_TURNOVER = 16  # times as many resources as there may be at once, in the life of a source: each leaves a memory
MAX_COMPLAINTS = 100  # different ones, in the life of a source

_ANY = "*"
_UNTYPED = frozenset({"", "untyped", "unknown"})

Part = tuple[str, ...]  # the values of a mapping's part labels

_log = logging.getLogger(__name__)


class Complaints:
    """Says what is odd about a source, each oddity once."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._said: set[tuple[str, str]] = set()

    def say(self, sentence: str, about: str = "", **fields: object) -> None:
        """Log a fixed sentence, once for each thing that it is about."""
        if (sentence, about) in self._said or len(self._said) >= MAX_COMPLAINTS:
            return
        self._said.add((sentence, about))
        extra = {"source": self._source, **({"about": about} if about else {}), **fields}
        _log.warning(sentence, extra=extra)


@dataclass(slots=True)
class Mapped:
    """What one page said, in base units.

    `rows` holds the values by table, resource and metric, of the tables that were due. `labels` are those of some
    sample of each resource, of the whole where there is one.
    """

    rows: dict[Table, dict[str, dict[str, float]]] = field(default_factory=dict)
    labels: dict[str, Labels] = field(default_factory=dict)

    def readings(self, source: int, kind: ResourceKind, time_s: int) -> list[Reading]:
        """A reading for each table with rows; what a resource has no value for is absent."""
        return [
            Reading(source, target, pack(target, [resource_id(kind, name) for name in rows], time_s, _columns(rows)))
            for target, rows in self.rows.items()
            if rows
        ]


def _columns(rows: Mapping[str, Mapping[str, float]]) -> dict[str, list[float]]:
    names = set().union(*rows.values())
    return {name: [values.get(name, math.nan) for values in rows.values()] for name in names}


class ExporterReader:
    """Turns pages of one exporter into values, with the memory that counters need.

    `booted` names the life of the machine that the exporter's counters run on, where it is this one.
    """

    def __init__(
        self,
        mapping: ExporterMapping,
        *,
        name: str,
        counters: CounterStore | None = None,
        booted: Callable[[], str] = lambda: "",
    ) -> None:
        self._mapping = mapping
        self._name = name
        self._counters = Counters(counters)
        self._booted = booted
        self._complaints = Complaints(name)
        self._ticks: dict[Table, int] = {}
        self._terms: dict[Table, dict[str, list[MetricRule]]] = {}
        for rule in mapping.rules:
            self._terms.setdefault(rule.table, {}).setdefault(rule.metric.name, []).append(rule)
        self._seen: set[str] = set()
        self.bad_lines = 0  # of all pages so far

    def read(self, exposition: Exposition, time_s: int) -> Mapped:
        """The values at `time_s`; a table with a longer cadence than the ticks has rows once in each cadence."""
        self._judge(exposition)
        mapped = Mapped(labels=self._resources(exposition))
        for target, terms in self._terms.items():
            tick = time_s // target.cadence_s
            if self._ticks.get(target) != tick:
                self._ticks[target] = tick
                mapped.rows[target] = self._rows(exposition, mapped.labels, terms, time_s)
        self._counters.keep()
        return mapped

    def _judge(self, exposition: Exposition) -> None:
        if exposition.bad_lines:
            self.bad_lines += exposition.bad_lines
            self._complaints.say(
                "an exporter's text has lines that cannot be read",
                lines=exposition.bad_lines,
                first=exposition.bad_line,
            )
        if not exposition.points:
            raise SourceUnavailableError(
                f"exporter {self._name} sends none of the {len(self._mapping.families)} families that its mapping "
                "knows: check that the address is that exporter's, and what it is told to export"
            )

    def _resources(self, exposition: Exposition) -> dict[str, Labels]:
        found: dict[str, Labels] = {}
        for family, points in exposition.points.items():
            for point in points:
                identity = self._mapping.identity_of(point.labels)
                if _is_dropped(point.labels, self._mapping.drop):
                    continue
                if not identity:
                    self._complaints.say("an exporter's family lacks the label that tells the resource", family)
                elif identity not in found or not any(self._mapping.part_of(point.labels)):
                    found.setdefault(identity, point.labels)
        self._seen |= found.keys()
        limit = self._mapping.max_resources
        if len(found) > limit or len(self._seen) > limit * MAX_TURNOVER:
            raise SourceUnavailableError(
                f"exporter {self._name} has {len(found)} resources and has had {len(self._seen)}, where {limit} are "
                "expected: see whether they are real, then raise max_resources in its mapping"
            )
        return found

    def _rows(
        self, exposition: Exposition, labels: Mapping[str, Labels], terms: Mapping[str, list[MetricRule]], time_s: int
    ) -> dict[str, dict[str, float]]:
        rows: dict[str, dict[str, float]] = {identity: {} for identity in labels}
        for metric, rules in terms.items():
            found = [self._values(rule, exposition, time_s) for rule in rules]
            for identity in set(found[0]).intersection(*found):  # a sum with a term unknown is unknown
                rows[identity][metric] = sum(values[identity] for values in found)
        return rows

    def _values(self, rule: MetricRule, exposition: Exposition, time_s: int) -> dict[str, float]:
        """The metric's value for each resource that has one, from the first family that has a number for it."""
        found: dict[str, tuple[Mapping[Part, Number], Labels]] = {}
        for family in rule.families:
            points = exposition.points.get(family)
            if points and self._has_type(rule, family, exposition):
                for identity, group in self._grouped(rule, points, time_s).items():
                    numbers = {} if identity in found else self._numbers(rule, family, group)
                    if numbers:
                        found[identity] = numbers, group[0].labels
        values = {
            identity: self._total(rule, identity, numbers, labels, time_s)
            for identity, (numbers, labels) in found.items()
        }
        return {identity: value for identity, value in values.items() if value is not None}

    def _has_type(self, rule: MetricRule, family: str, exposition: Exposition) -> bool:
        declared = exposition.declared(family)
        if not self._mapping.trust_types or declared in _UNTYPED or declared == rule.type:
            return True
        self._complaints.say(
            "an exporter's family is of another type than its mapping says", family, type=declared, wanted=rule.type
        )
        return False

    def _grouped(self, rule: MetricRule, points: Iterable[Point], time_s: int) -> dict[str, list[Point]]:
        grouped: dict[str, list[Point]] = {}
        for point in points:
            if _is_dropped(point.labels, self._mapping.drop) or _is_dropped(point.labels, rule.drop):
                continue
            if point.time_s is not None and abs(time_s - point.time_s) > self._mapping.max_age_s:
                self._complaints.say("an exporter's samples are too old, or from the future", rule.families[0])
                continue
            identity = self._mapping.identity_of(point.labels)
            if identity:
                grouped.setdefault(identity, []).append(point)
        return grouped

    def _numbers(self, rule: MetricRule, family: str, points: Sequence[Point]) -> dict[Part, Number]:
        """What the samples of one resource amount to, by the parts that are to be added; empty when nobody knows."""
        parts: dict[Part, list[Number]] = {}
        for point in points:
            numbers = parts.setdefault(self._mapping.part_of(point.labels), [])
            if is_number(point.value) and not any(sentinel.covers(point.value) for sentinel in rule.blank):
                numbers.append(point.value)
        whole = ("",) * len(self._mapping.part)
        if whole in parts:
            parts = {whole: parts[whole]}
        elif rule.repeats is Repeats.WHOLE:
            return {}
        elif rule.repeats is not Repeats.SUM:
            parts = {whole: list(chain.from_iterable(parts.values()))}
        if rule.repeats is Repeats.SAME and len(set(parts[whole])) > 1:
            self._complaints.say("an exporter's repeats of one resource contradict each other", family)
            return {}
        # A sum with a part unknown is unknown.
        return {part: max(numbers) for part, numbers in parts.items()} if all(parts.values()) else {}

    def _total(
        self, rule: MetricRule, identity: str, numbers: Mapping[Part, Number], labels: Labels, time_s: int
    ) -> float | None:
        """In the base unit. Counters are added as differences: a part that appears brings its past with it."""
        values = [
            self._in_base_unit(rule, "/".join((identity, *filter(None, part))), number, labels, time_s)
            for part, number in numbers.items()
        ]
        known = [value for value in values if value is not None]
        return sum(known) if len(known) == len(values) else None

    def _in_base_unit(self, rule: MetricRule, key: str, number: Number, labels: Labels, time_s: int) -> float | None:
        if rule.counter is None:
            value = rule.value(number)
            if value is None and rule.code(number):  # 0 is how most enumerations say "nothing"
                self._complaints.say("an exporter's state is not in its mapping", f"{rule.families[0]} {number}")
            return value
        count = number if isinstance(number, int) and rule.step == 1 else round(number / float(rule.step))
        epoch = f"{self._booted()} {self._mapping.epoch_of(labels)}".strip()
        where = f"{self._name}/{key}/{rule.families[0]}"
        return self._counters.delta(where, rule.counter, count, time_s=time_s, epoch=epoch) if count >= 0 else None


def _is_dropped(labels: Labels, drop: Mapping[str, Collection[str]]) -> bool:
    return any(labels.get(label) and (_ANY in values or labels[label] in values) for label, values in drop.items())


class Known:
    """The resources that an exporter has shown, and what was last published about each."""

    def __init__(self, mapping: ExporterMapping, *, source: int) -> None:
        self._mapping = mapping
        self._source = source
        self._told = ToldBefore()
        self.labels: dict[str, Labels] = {}

    def see(self, labels: Mapping[str, Labels]) -> None:
        """Take in who is on the page. Those that are not are remembered as long as there is room."""
        self.labels = {**self.labels, **labels}
        if len(self.labels) > self._mapping.max_resources:
            self.labels = dict(labels)

    def messages(
        self, *, parent: int, time_ms: int, facts: Callable[[str], dict[str, str]] = lambda _: {}
    ) -> list[InventoryMessage]:
        """An inventory message for each resource, with the time since when it has said the same."""
        return [self._message(identity, parent, time_ms, facts(identity)) for identity in self.labels]

    def _message(self, identity: str, parent: int, time_ms: int, facts: Mapping[str, str]) -> InventoryMessage:
        known = self._mapping.facts_of(identity, self.labels[identity])
        words = dict.fromkeys(self._mapping.attributes, "") | known
        message = InventoryMessage(
            resource=resource_id(self._mapping.resource, identity),
            kind=self._mapping.resource,
            identity=identity,
            name=self._mapping.title.format_map(words).strip()[:MAX_IDENTITY_CHARACTERS] or identity,
            valid_from_ms=time_ms,
            parent=parent,
            source=self._source,
            attributes={**{name: fact for name, fact in known.items() if name != "identity"}, **facts},
        )
        return self._told.dated(message)
