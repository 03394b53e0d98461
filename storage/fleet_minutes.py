# ruff: noqa: S608 - names come from the catalogue and from this module
"""Minutes of the fleet: what the GPUs of each rack, and of each hall, did together in each minute.

A line over the whole fleet asks for nothing else. `storage/hours.py` keeps the table `fleet_minutes` when it computes
hours; for the minutes of hours that are not computed yet, dashboards ask the GPUs' minutes, by the same expressions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from catalogue import GPU, ResourceKind

FLEET_MINUTES = "fleet_minutes"
# Below 1 % of engine activity a GPU does nothing that anybody asked for.
IDLE_BELOW_RATIO = 0.01
QUANTILES = (0.05, 0.5, 0.95)
# 1 % relative error, as in the catalogue's sketches.
_SKETCH = f"0.01, {', '.join(map(str, QUANTILES))}"

_POWER, _GRAPHICS = GPU.metric("power_watts").name, GPU.metric("graphics_active_ratio").name
_SM, _TENSOR = GPU.metric("sm_active_ratio").name, GPU.metric("tensor_active_ratio").name
_STATE = f"{GPU.metric('gpu_state').name}_max_raw"
# Of a GPU's minute. The means are columns that the minute tier computes: NULL where nothing was read.
_OF_GPU = ("resource", "time", _STATE, _POWER, _GRAPHICS, _SM, _TENSOR)


@dataclass(frozen=True, slots=True)
class FleetColumn:
    """A column of fleet_minutes.

    `of_gpus` makes it of GPUs' minutes, `added` of rows of other places: an expression over {0}, the column there.
    """

    name: str
    of_gpus: str
    added: str = "sum({0})"


def is_idle(activity: object) -> str:
    """Whether a GPU of this mean engine activity is idle; NULL where that is not known."""
    return f"{activity} < {IDLE_BELOW_RATIO}"


def _mean(metric: str) -> tuple[FleetColumn, FleetColumn]:
    return FleetColumn(f"{metric}_sum", f"sum(ifNull({metric}, 0))"), FleetColumn(f"{metric}_count", f"count({metric})")


COLUMNS = (
    FleetColumn("gpus", "count()"),
    FleetColumn("dark", f"countIf({_STATE} = 3)"),
    FleetColumn("partly_readable", f"countIf({_STATE} = 2)"),
    *_mean(_SM),
    *_mean(_TENSOR),
    FleetColumn("working_watts", f"sumIf(ifNull({_POWER}, 0), NOT ({is_idle(_GRAPHICS)}))"),
    FleetColumn("idle_watts", f"sumIf(ifNull({_POWER}, 0), {is_idle(_GRAPHICS)})"),
    FleetColumn("power_count", f"countIf({_POWER} IS NOT NULL AND {_GRAPHICS} IS NOT NULL)"),
    FleetColumn(
        "power_watts_sketch",
        f"quantilesDDStateIf({_SKETCH})(ifNull({_POWER}, 0), {_POWER} IS NOT NULL AND sketched)",
        f"quantilesDDMergeState({_SKETCH})({{0}})",
    ),
)


def quantile(level: float) -> str:
    """Over rows: one of QUANTILES of the powers that they hold, W; ValueError for another one."""
    if level not in QUANTILES:
        raise ValueError(f"fleet_minutes keeps no quantile {level}; take one of {QUANTILES}")
    return f"quantilesDDMerge({_SKETCH})(power_watts_sketch)[{QUANTILES.index(level) + 1}]"


def minutes_of_all(columns: Sequence[FleetColumn], where: str) -> str:
    """SELECT of `time` and columns: the GPUs of each minute together, those of which `where` is true.

    `where` is over `time` and `resource`.
    """
    told = ", ".join(f"{column.of_gpus} AS {column.name}" for column in columns)
    return f"SELECT time, {told} FROM (SELECT *, 1 AS sketched FROM ({_minutes(where)})) GROUP BY time"


def fleet_minutes_inserts() -> tuple[str, str]:
    """INSERTs that recompute the hours from `first` up to `last`, both included, as of `computed_at`: parameters.

    A GPU counts where it stood at the start of each minute. The second one empties rows that an earlier computation
    left: of places in which no GPU stands any more, as the inventory says now.
    """
    within = "time >= {first:DateTime('UTC')} AND time < {last:DateTime('UTC')} + INTERVAL 1 HOUR"
    as_of = "{computed_at:DateTime64(3, 'UTC')}"
    emptied = f"""\
INSERT INTO {FLEET_MINUTES} (kind, place, time, computed_at)
SELECT kind, place, time, {as_of} FROM {FLEET_MINUTES} FINAL WHERE {within} AND computed_at < {as_of}"""
    return _insert(within, as_of), emptied


def _insert(within: str, as_of: str) -> str:
    kinds = ", ".join(f"'{kind}'" for kind in (ResourceKind.RACK, ResourceKind.HALL))
    names, told = (", ".join(texts) for texts in ([c.name for c in COLUMNS], [c.of_gpus for c in COLUMNS]))
    return f"""\
INSERT INTO {FLEET_MINUTES} (kind, place, time, computed_at, {names})
SELECT kind, place, time, {as_of}, {told}
FROM
(
    SELECT gpu.*, kind, place, kind = '{ResourceKind.HALL}' AS sketched
    FROM (SELECT *, toDateTime64(time, 3, 'UTC') AS at FROM ({_minutes(within)})) AS gpu
    ASOF LEFT JOIN (SELECT resource, valid_to, rack, hall FROM places WHERE kind = '{ResourceKind.GPU}') AS stood
        ON stood.resource = gpu.resource AND gpu.at < stood.valid_to
    ARRAY JOIN [{kinds}] AS kind, [stood.rack, stood.hall] AS place
)
GROUP BY kind, place, time"""


def _minutes(where: str) -> str:
    """SELECT of one row a GPU and minute. FINAL joins what is still apart, in the table's order: it takes no memory."""
    return f"SELECT {', '.join(_OF_GPU)} FROM {GPU.name}_1m FINAL WHERE {where}"
