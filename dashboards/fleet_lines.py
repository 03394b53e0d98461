# ruff: noqa: S608 - names come from the catalogue and from this module, what people choose is quoted by Grafana
"""SQL of lines over the whole fleet: of each minute what all GPUs did together, not what each of them did.

Computed hours come from the table `fleet_minutes`, a row a rack or hall; the minutes on both sides from the GPUs' own.
"""

import re
from collections.abc import Sequence

from catalogue import GPU, Metric, ResourceKind
from dashboards.queries import Choice, Scope, Shown, bucket_seconds, columns_of, whole_hours
from storage.fleet_minutes import COLUMNS, FLEET_MINUTES, FleetColumn, minutes_of_all, quantile

_MINUTE_S = 60


def fleet_mean(metric: Metric) -> str:
    """The mean of all GPUs' minutes in a bucket."""
    return f"sum({metric.name}_sum) / nullIf(sum({metric.name}_count), 0)"


def fleet_power_quantile(level: float) -> str:
    """Of the mean powers of all GPUs in all minutes of a bucket, W, to 1 %."""
    return quantile(level)


def _fleet_power(column: str) -> str:
    """Added up over GPUs, W: the mean of a bucket's minutes in which any power was told."""
    return f"avg(if(power_count > 0, {column}, NULL))"


AT_WORK_WATTS, IDLE_WATTS = _fleet_power("working_watts"), _fleet_power("idle_watts")
# GPUs in a bucket's worst minute.
DARK_GPUS = (Shown("Dark", "max(dark)"), Shown("Partly readable", "max(partly_readable)"))


def fleet_lines(choices: tuple[Choice, ...], shown: Sequence[Shown]) -> str:
    """A time series for each of `shown`: expressions of this module, aggregates over the minutes of each bucket.

    Only GPUs count that stand in the chosen places; where all are chosen also those of which nobody knows where they
    stand. Buckets are at least a minute long. ValueError where a rack can be chosen and `shown` has quantiles: those
    are kept of halls.
    """
    kind = ResourceKind.RACK if any(choice.kind is ResourceKind.RACK for choice in choices) else ResourceKind.HALL
    asked = " ".join(one.expression for one in shown)
    columns = [column for column in COLUMNS if re.search(rf"\b{column.name}\b", asked)]
    if kind is ResourceKind.RACK and any("sketch" in column.name for column in columns):
        raise ValueError("fleet_minutes keeps quantiles of halls only; let nobody choose racks, or show no quantiles")
    bucket = f"toStartOfInterval(minute, INTERVAL {bucket_seconds(_MINUTE_S)} second)"
    added = ", ".join(f"{column.added.format(f'part.{column.name}')} AS {column.name}" for column in columns)
    return (
        f"SELECT {bucket} AS time, {columns_of(shown)}\n"
        f"FROM (SELECT part.time AS minute, {added}\nFROM (\n{_parts(choices, kind, columns)}\n) AS part\n"
        "GROUP BY minute)\n"
        "GROUP BY time ORDER BY time"
    )


def _parts(choices: tuple[Choice, ...], kind: ResourceKind, columns: Sequence[FleetColumn]) -> str:
    first, last = whole_hours(FLEET_MINUTES)
    names = ", ".join(["time", *(column.name for column in columns)])
    edges = (
        f"$__timeFilter(time) AND (time < {first} OR time >= {last}) AND {_chosen(choices, GPU.resources, 'resource')}"
    )
    return (
        f"SELECT {names} FROM {FLEET_MINUTES} FINAL\nWHERE kind = '{kind}' AND time >= {first} AND time < {last} "
        f"AND {_chosen(choices, (kind,), 'place')}\nUNION ALL\n{minutes_of_all(columns, edges)}"
    )


def _chosen(choices: tuple[Choice, ...], kinds: tuple[ResourceKind, ...], column: str) -> str:
    """That a resource is in the chosen places. Where all are chosen it need not be in any: nothing is looked up."""
    if not choices:
        return "1 = 1"
    everything = " AND ".join(f"$__conditionalAll(1 = 0, ${choice.variable})" for choice in choices)
    return f"(({everything}) OR {column} IN (SELECT resource FROM ({Scope(kinds, choices).places})))"
