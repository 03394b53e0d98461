"""What an SLA report asks of the store: every statement, its parameters and its answer's columns.

Most days of most GPUs have nothing to tell: every reading came and none was amiss. The hours find those
days, and only the others are read by the minute, so that a month of a fleet is read in seconds. Where the
hour tier is missing or behind, its days are read by the minute too: it can only save work.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta

import polars as pl

from catalogue import GPU, GPU_HEALTH
from catalogue.gpu import GPU_STATES
from catalogue.gpu_health import FABRIC_SUMMARIES
from reports.efficiency_queries import (
    EVENT_LOOK_BACK,
    MINUTE_SLOT_S,
    THROTTLE_CAUSES,
    THROTTLED_FROM,
    TROUBLES,
    Window,
    bounds_of,
    moment_text,
    scaled,
)
from reports.ledger import TIME
from storage.reader import Reader, Schema

# A tick tells of the time before it, and an outage is judged whole: so much is read on either side of the period.
MARGIN = timedelta(hours=1)
# Beyond this share of a fleet, naming its GPUs costs more than reading them all.
NAMED_SHARE = 0.5
# A tick that is late by half an interval is late, beyond that one is missing.
LATE_INTERVALS = 1.5

DAYS: Schema = {
    "resource": pl.UInt64(),
    "day": pl.Date(),  # of UTC
    "hours": pl.UInt64(),  # for which there are readings
    "least_ticks": pl.UInt64(),
    "most_ticks": pl.UInt64(),  # of an hour
    "first_ticks": pl.UInt64(),  # of the hour after midnight; 0 where that is not plain
    "plain": pl.UInt8(),  # nothing dark, unread or held down in any of them
}
# A stretch of a GPU's readings: even (all of it seen, or all dark), or one minute of both, in which `observed_s` of its
# length was read and `dark_s` of that was dark.
STRETCHES: Schema = {
    "resource": pl.UInt64(),
    "start": TIME,
    "end": TIME,
    "observed_s": pl.Float64(),
    "dark_s": pl.Float64(),
    "tick_s": pl.Float64(),
    "throttled": pl.UInt8(),
}
EVIDENCE: Schema = {
    "resource": pl.UInt64(),
    "time": TIME,
    "id": pl.String(),
    "kind": pl.String(),
    "code": pl.Int64(),
    "xid_class": pl.String(),
    "text": pl.String(),
    "source": pl.UInt64(),
}
HELD: Schema = {"resource": pl.UInt64(), "start": TIME, "end": TIME}  # `end` absent while it lasts
NAMES: Schema = {"resource": pl.UInt64(), "kind": pl.String(), "name": pl.String()}

_HELD = [f"throttled_{cause}_seconds" for cause in THROTTLE_CAUSES[1:]]  # the power cap is no fault
_DARK = next(value for value, name in GPU_STATES if name == "dark")
_UNHEALTHY = max(value for value, _ in FABRIC_SUMMARIES)


def _padded(window: Window) -> Window:
    return Window(window.start - MARGIN, window.end + MARGIN)


def days_of(window: Window) -> Iterator[Window]:
    """The days of UTC that a window touches, cut to it."""
    start = window.start
    while start < window.end:
        midnight = start.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        yield Window(start, min(midnight, window.end))
        start = midnight


def read_days(reader: Reader, window: Window) -> pl.DataFrame:
    """DAYS: what the hour tier says of each GPU and day that the window touches whole hours of."""
    sql = f"""
SELECT resource, day, count() AS hours, min(ticks) AS least_ticks, max(ticks) AS most_ticks,
    sumIf(ticks, is_plain AND toHour(time, 'UTC') = 0) AS first_ticks, toUInt8(min(is_plain)) AS plain
FROM
(
    SELECT hour.resource AS resource, hour.time AS time, toDate(hour.time, 'UTC') AS day, hour.row_count AS ticks,
        hour.power_watts_count = hour.row_count AND ifNull(hour.gpu_state_max_raw, 0) < {_DARK}
            AND {_held("hour.{}_sum_raw")} <= {THROTTLED_FROM} * {MINUTE_SLOT_S} AS is_plain
    FROM
    (
        SELECT resource, time, row_count, power_watts_count, gpu_state_max_raw,
            {", ".join(f"{name}_sum_raw" for name in _HELD)}
        FROM {GPU.name}_1h FINAL
        WHERE time >= {{first:DateTime('UTC')}} AND time < {{last:DateTime('UTC')}}
    ) AS hour
)
GROUP BY resource, day
"""  # noqa: S608 - names from the catalogue and constants; values are bound
    return reader.query(sql, bounds_of(window), DAYS)


def read_stretches(reader: Reader, window: Window, gpus: Sequence[int] | None) -> pl.DataFrame:
    """STRETCHES of a window, of the named GPUs or of all; they reach over its ends.

    A minute with one reading, in an hour that has no fuller one, is a tick that tells of the time since the tick before
    it, if that is the usual interval ago; a fuller minute tells of itself, each reading for the usual interval.
    """
    named = "" if gpus is None else "AND tier.resource IN {gpus:Array(UInt64)}"
    sql = f"""
SELECT resource, toDateTime(min(begins), 'UTC') AS start, toDateTime(max(ends), 'UTC') AS end,
    toFloat64(sum(observed)) AS observed_s, toFloat64(sum(dark)) AS dark_s, toFloat64(any(tick)) AS tick_s, throttled
FROM
(
    SELECT *, sum(is_new) OVER (PARTITION BY resource ORDER BY minute) AS island
    FROM
    (
        SELECT *, abs(observed - (ends - begins)) < 1e-6 AND (dark = 0 OR dark = observed) AS is_even,
            NOT is_even OR minute = first_value(minute) OVER before OR NOT lagInFrame(is_even) OVER before
                OR lagInFrame(ends) OVER before != begins OR (lagInFrame(dark) OVER before > 0) != (dark > 0)
                OR lagInFrame(throttled) OVER before != throttled AS is_new
        FROM
        (
            SELECT resource, minute, if(sparse, minute - covered, minute) AS begins,
                if(sparse, minute, minute + 60) AS ends,
                if(sparse, toFloat64(interval), 60. / fullest) AS tick,
                if(sparse, toFloat64(covered * (readable + dark_ticks > 0)),
                    least(60., (readable + dark_ticks) * tick)) AS observed,
                if(sparse, toFloat64(covered * (dark_ticks > 0)), least(observed, dark_ticks * tick)) AS dark,
                toUInt8(sum(held) OVER (PARTITION BY resource, intDiv(minute - sparse, {MINUTE_SLOT_S}))
                    > {THROTTLED_FROM} * {MINUTE_SLOT_S}) AS throttled
            FROM
            (
                SELECT *, quantileExactIf(0.5)(gap, sparse AND gap >= 60 AND before > 0)
                        OVER (PARTITION BY resource) AS interval,
                    if(gap <= {LATE_INTERVALS} * interval, gap, toInt64(interval)) AS covered
                FROM
                (
                    SELECT *, lagInFrame(minute + 60 * NOT sparse, 1, 0)
                            OVER (PARTITION BY resource ORDER BY minute) AS before,
                        minute - before AS gap
                    FROM
                    (
                        SELECT *, max(ticks) OVER (PARTITION BY resource) AS fullest,
                            max(ticks) OVER (PARTITION BY resource, intDiv(minute, 3600)) = 1 AS sparse
                        FROM
                        (
                            SELECT tier.resource AS resource, toInt64(toUnixTimestamp(tier.time)) AS minute,
                                sum(tier.row_count) AS ticks, sum(tier.power_watts_count) AS readable,
                                if(ifNull(max(tier.gpu_state_max_raw), 0) = {_DARK}, ticks - readable, 0)
                                    AS dark_ticks,
                                {_held("sum(tier.{}_sum_raw)")} AS held
                            FROM {GPU.name}_1m AS tier
                            WHERE tier.time >= {{first:DateTime('UTC')}}
                                AND tier.time < {{last:DateTime('UTC')}} {named}
                            GROUP BY resource, minute
                        )
                    )
                )
            )
        )
        WHERE observed > 0
        WINDOW before AS (PARTITION BY resource ORDER BY minute ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
    )
)
GROUP BY resource, island, throttled
ORDER BY resource, start
"""  # noqa: S608 - names from the catalogue and constants; values are bound
    parameters = bounds_of(_padded(window))
    return reader.query(sql, parameters if gpus is None else {**parameters, "gpus": list(gpus)}, STRETCHES)


def read_troubles(reader: Reader, window: Window) -> pl.DataFrame:
    """TROUBLES: minutes in which a GPU's slow readings say that it is down or degraded, those that meet as one.

    Hours that were computed and are clean are passed over.
    """
    down = f"""ifNull(max(recovery_action_state_max_raw), 0) >= 1
            OR ifNull(max(fabric_summary_state_max_raw), 0) = {_UNHEALTHY}"""
    worse = "ifNull(max(remap_pending_state_max_raw), 0) = 1 OR ifNull(max(nvlink_inactive_count_max_raw), 0) > 0"
    sql = f"""
SELECT resource, toDateTime(min(minute), 'UTC') AS start, toDateTime(max(minute) + 60, 'UTC') AS end, condition
FROM
(
    SELECT resource, minute, if(down, 'down', 'degraded') AS condition,
        minute - 60 * row_number() OVER (PARTITION BY resource, condition ORDER BY minute) AS island
    FROM
    (
        SELECT resource, toInt64(toUnixTimestamp(time)) AS minute, {down} AS down, {worse} AS worse
        FROM {GPU_HEALTH.name}_1m
        WHERE time >= {{first:DateTime('UTC')}} AND time < {{last:DateTime('UTC')}}
            AND (resource, toStartOfHour(time)) NOT IN
            (
                SELECT resource, time FROM {GPU_HEALTH.name}_1h FINAL
                WHERE time >= {{first:DateTime('UTC')}} AND time < {{last:DateTime('UTC')}}
                GROUP BY resource, time HAVING NOT ({down}) AND NOT ({worse})
            )
        GROUP BY resource, minute
        HAVING down OR worse
    )
)
GROUP BY resource, condition, island
"""  # noqa: S608 - names from the catalogue and constants; values are bound
    return reader.query(sql, bounds_of(window), TROUBLES)


def read_evidence(reader: Reader, window: Window, resources: Sequence[int]) -> pl.DataFrame:
    """EVIDENCE: the events of these resources, from a month before the window on."""
    if not resources:
        return pl.DataFrame(schema=dict(EVIDENCE))
    sql = """
SELECT resource, time, id, any(toString(events.kind)) AS kind, any(events.code) AS code,
    any(attributes['class']) AS xid_class, any(events.text) AS text, any(events.source) AS source
FROM events FINAL
WHERE time >= {first:DateTime('UTC')} AND time < {last:DateTime('UTC')} AND resource IN {resources:Array(UInt64)}
GROUP BY resource, time, id
ORDER BY time, resource, id
"""
    bounds = {"first": moment_text(window.start - EVENT_LOOK_BACK), "last": moment_text(window.end)}
    return reader.query(sql, {**bounds, "resources": list(resources)}, EVIDENCE)


def read_held(reader: Reader, window: Window, gpus: Sequence[int]) -> pl.DataFrame:
    """HELD: when jobs held these GPUs; which jobs, and whose, is not asked."""
    if not gpus:
        return pl.DataFrame(schema=dict(HELD))
    sql = """
SELECT resource, start, jobs.end AS end
FROM jobs FINAL
WHERE start < {last:DateTime('UTC')} AND (isNull(jobs.end) OR jobs.end > {first:DateTime('UTC')})
    AND (isNull(jobs.end) OR jobs.end > start) AND resource IN {gpus:Array(UInt64)}
"""
    return reader.query(sql, {**bounds_of(window), "gpus": list(gpus)}, HELD)


def read_names(reader: Reader, resources: Sequence[int]) -> pl.DataFrame:
    """NAMES of resources, one row each; what the topology does not know is not in it."""
    if not resources:
        return pl.DataFrame(schema=dict(NAMES))
    sql = """
SELECT resource, argMax(toString(kind), valid_from) AS kind, argMax(name, valid_from) AS name
FROM places
WHERE resource IN {resources:Array(UInt64)}
GROUP BY resource
"""
    return reader.query(sql, {"resources": list(resources)}, NAMES)


def _held(sum_of: str) -> str:
    """Seconds for which clocks were held down by anything but the power cap; `sum_of` with {} for a column's name."""
    return " + ".join(scaled(sum_of.format(name), GPU.metric(name)) for name in _HELD)
