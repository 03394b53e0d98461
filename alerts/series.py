"""Names of series as they are on /metrics, taken from the catalogue: a typo is a KeyError at import."""

import re
from collections.abc import Mapping

from catalogue import TABLES, Metric, Table

_NAME = re.compile(r"\bkvandal_[a-z0-9_]+\b")
_METRICS: Mapping[str, tuple[Table, Metric]] = {
    table.prometheus_name(metric): (table, metric) for table in TABLES for metric in table.metrics
}


def series(table: Table, metric: str) -> str:
    """The name of a reading on /metrics; KeyError when the table has no such metric."""
    return table.prometheus_name(table.metric(metric))


def names_in(expression: str) -> frozenset[str]:
    """Every series of ours that an expression names, recorded ones apart."""
    return frozenset(_NAME.findall(re.sub(r"\bkvandal:[a-z0-9_:]+", "", expression)))


def not_exported(expression: str) -> tuple[str, ...]:
    """The readings that an expression needs and that no agent shows, as `table.metric`."""
    found = (_METRICS[name] for name in sorted(names_in(expression)) if name in _METRICS)
    return tuple(f"{table.name}.{metric.name}" for table, metric in found if not metric.exported)
