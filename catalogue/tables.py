"""Tables: which metrics share a row, how often, and for how long they are kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache

from catalogue import facility, gpu, gpu_health, point, port
from catalogue.metrics import Kind, Metric
from catalogue.resources import ResourceKind

TOPIC_PREFIX = "kvandal."


@dataclass(frozen=True, slots=True)
class Retention:
    """How long each tier is kept; `raw` counts from the reading's own time."""

    raw: timedelta
    minute: timedelta
    hour: timedelta


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A wide table: one row per resource and tick, columns of one cadence.

    Every row starts with `resource` (UInt64) and `time` (UInt32, UTC seconds).
    """

    name: str
    resources: tuple[ResourceKind, ...]
    brief: str
    cadence_s: int
    retention: Retention
    metrics: tuple[Metric, ...]

    @property
    def topic(self) -> str:
        return TOPIC_PREFIX + self.name

    def metric(self, name: str) -> Metric:
        """The metric of that name; KeyError names the table."""
        try:
            return _metrics_by_name(self)[name]
        except KeyError:
            raise KeyError(f"table {self.name} has no metric {name}") from None

    def prometheus_name(self, metric: Metric) -> str:
        """The name on /metrics: kvandal_<table>_<metric>, with _total for what only grows."""
        name = metric.name.removeprefix(f"{self.name}_")
        total = "_total" if metric.kind in (Kind.DELTA, Kind.REGISTER) else ""
        return f"kvandal_{self.name}_{name}{total}"

    def of_kind(self, *kinds: Kind) -> tuple[Metric, ...]:
        return tuple(metric for metric in self.metrics if metric.kind in kinds)


@cache
def _metrics_by_name(table: Table) -> Mapping[str, Metric]:
    return {metric.name: metric for metric in table.metrics}


_YEAR = timedelta(days=366)
FLEET = Retention(raw=timedelta(days=7), minute=timedelta(days=90), hour=3 * _YEAR)
# Meters, heat meters and cooling registers are evidence: their readings outlive ten years.
EVIDENCE = Retention(raw=timedelta(days=90), minute=timedelta(days=400), hour=10 * _YEAR)

GPU = Table("gpu", (ResourceKind.GPU,), "Fast readings of each GPU", 1, FLEET, gpu.METRICS)
GPU_HEALTH = Table(
    "gpu_health", (ResourceKind.GPU,), "What wears out or breaks in each GPU", 30, FLEET, gpu_health.METRICS
)
TRAY = Table("tray", (ResourceKind.TRAY,), "Readings of each tray, the node that hosts GPUs", 10, FLEET, facility.TRAY)
RACK = Table("rack", (ResourceKind.RACK,), "Power and coolant of each rack", 10, EVIDENCE, facility.RACK)
COOLING = Table(
    "cooling",
    (ResourceKind.CDU, ResourceKind.LOOP, ResourceKind.HEAT_METER),
    "Readings of cooling distribution units, loops and heat meters",
    10,
    EVIDENCE,
    facility.COOLING,
)
POWER = Table(
    "power", (ResourceKind.FEEDER, ResourceKind.METER), "Readings of electrical meters", 10, EVIDENCE, facility.POWER
)

PORT = Table("port", (ResourceKind.PORT,), "State and counters of each network port", 10, FLEET, port.METRICS)

POINTS = Table(
    "points", (ResourceKind.POINT,), "Facility points without a column of their own", 10, EVIDENCE, point.METRICS
)

TABLES = (GPU, GPU_HEALTH, PORT, TRAY, RACK, COOLING, POWER, POINTS)


def table(name: str) -> Table:
    """The table of that name; KeyError lists the names that exist."""
    for candidate in TABLES:
        if candidate.name == name:
            return candidate
    raise KeyError(f"no table {name}; there are {', '.join(t.name for t in TABLES)}")
