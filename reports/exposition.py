"""Key figures as Prometheus sees them: names, help and units from their definitions, the coverage beside each.

A figure is named by its key and base unit, so that a month's and a day's are one family with two values of `span`. One
that cannot be told has no value, and coverage 0: it never stays at what it was.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from reports.figures import Definition, Kpi

PREFIX = "kvandal_kpi"
LABELS = ("span",)


@dataclass(frozen=True, slots=True)
class Unit:
    """What a unit of a report is in Prometheus: the name's end, and what to multiply by."""

    suffix: str
    factor: float


# Base units, https://prometheus.io/docs/practices/naming; a ratio without a unit keeps its plain name.
_UNITS: Mapping[str, Unit] = {
    "": Unit("", 1.0),
    "%": Unit("_ratio", 0.01),
    "MWh": Unit("_joules", 3.6e9),
    "MWh th.": Unit("_joules", 3.6e9),
    "kW": Unit("_watts", 1e3),
    "MW": Unit("_watts", 1e6),
    "MW/min": Unit("_watts_per_second", 1e6 / 60),
    "°C": Unit("_celsius", 1.0),
    "K": Unit("_kelvin", 1.0),
    "h": Unit("_seconds", 3600.0),
    "1/J": Unit("_per_joule", 1.0),
}


@dataclass(frozen=True, slots=True)
class Figures:
    """The key figures of one period, under the value of `span` that it has: day, month."""

    span: str
    start: datetime
    kpis: Sequence[Kpi]


def families(shown: Iterable[Figures]) -> Iterator[GaugeMetricFamily]:
    """A family for each key figure, and one each for coverage, share estimated, uncertainty and the periods' starts."""
    told = list(shown)
    values: dict[str, GaugeMetricFamily] = {}
    beside = _Beside()
    for figures in told:
        for kpi in _first_of_each(figures.kpis):
            _add_value(values, figures.span, kpi)
            beside.add(figures.span, kpi)
    yield from values.values()
    yield from beside.families
    starts = GaugeMetricFamily(f"{PREFIX}_period_start_timestamp_seconds", "Start of the period.", labels=LABELS)
    for figures in told:
        starts.add_metric([figures.span], figures.start.timestamp())
    yield starts


def exposition(shown: Iterable[Figures]) -> str:
    """The same as a page in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(KpiCollector(list(shown)))
    return generate_latest(registry).decode()


class KpiCollector(Collector):
    """Shows what it was last given; one thread gives, others may collect."""

    def __init__(self, shown: Sequence[Figures] = ()) -> None:
        self.shown = shown

    def collect(self) -> Iterator[GaugeMetricFamily]:
        return families(self.shown)


def metric_name(definition: Definition, unit: str) -> str:
    return f"{PREFIX}_{definition.key}{_unit(unit).suffix}"


def _unit(text: str) -> Unit:
    # What is none of these is a currency, which is a label of its own.
    return _UNITS.get(text, _UNITS[""])


def _add_value(values: dict[str, GaugeMetricFamily], span: str, kpi: Kpi) -> None:
    name, is_money = metric_name(kpi.definition, kpi.unit), kpi.unit not in _UNITS
    if kpi.value is None:
        return
    labels = [*LABELS, "currency"] if is_money else LABELS
    family = values.setdefault(name, GaugeMetricFamily(name, _help(kpi.definition), labels=labels))
    family.add_metric([span, kpi.unit] if is_money else [span], kpi.value * _unit(kpi.unit).factor)


def _help(definition: Definition) -> str:
    return f"{definition.title}. {definition.method} Boundary: {definition.boundary}"


def _first_of_each(kpis: Iterable[Kpi]) -> Iterator[Kpi]:
    """Reports share figures: the heat report's site energy is the site report's."""
    seen: set[str] = set()
    for kpi in kpis:
        if kpi.definition.key not in seen:
            seen.add(kpi.definition.key)
            yield kpi


class _Beside:
    """What stands beside every figure."""

    def __init__(self) -> None:
        labels = ["kpi", *LABELS]
        self._coverage = GaugeMetricFamily(
            f"{PREFIX}_coverage_ratio",
            "Share of the period in which a figure was observed; 0 where it cannot be told.",
            labels=labels,
        )
        self._estimated = GaugeMetricFamily(
            f"{PREFIX}_estimated_ratio", "Share of a figure that is estimated.", labels=labels
        )
        self._uncertainty = GaugeMetricFamily(
            f"{PREFIX}_uncertainty_ratio", "Expanded uncertainty of a figure (k = 2), relative to it.", labels=labels
        )

    @property
    def families(self) -> tuple[GaugeMetricFamily, ...]:
        return self._coverage, self._estimated, self._uncertainty

    def add(self, span: str, kpi: Kpi) -> None:
        labels, evidence = [kpi.definition.key, span], kpi.evidence
        self._coverage.add_metric(labels, evidence.coverage if evidence and kpi.value is not None else 0.0)
        if evidence is None:
            return
        self._estimated.add_metric(labels, evidence.share_estimated)
        if evidence.uncertainty is not None:
            self._uncertainty.add_metric(labels, evidence.uncertainty)
