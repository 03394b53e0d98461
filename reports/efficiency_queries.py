"""What an efficiency report asks of the store: every statement, its parameters and its answer's columns.

The fleet is read window by window (a day of a month), grouped in ClickHouse: five minutes of a GPU are a
slot, and slots in one state are one row. 100,000 GPUs are then some 100,000 rows a day, not 144 million.
Grouping those takes minutes: `kvandal keep` does it once for each day and keeps what came out (`fleet_days`),
and a window that is not kept is grouped anew. Both run the same statements.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from types import MappingProxyType
from zoneinfo import ZoneInfo

import polars as pl

from catalogue import GPU, GPU_HEALTH, POWER, RACK, TRAY, Metric, Table
from catalogue.gpu import GPU_STATES
from catalogue.gpu_health import FABRIC_SUMMARIES
from reports.figures import Role
from reports.ledger import TIME
from reports.period import Period, Span
from storage.job_energy import JOBS
from storage.reader import Parameter, Reader, Schema

MINUTE_SLOT_S, HOUR_SLOT_S = 300, 3600
# A slot of which less was seen says nothing about the GPU.
SEEN_SHARE = 0.5
IDLE_BELOW = 0.01  # of the time with the graphics or compute engine active
THROTTLED_FROM = 0.05  # of the time, by a cause that is not the power cap
# An outage may have begun so long before the period.
EVENT_LOOK_BACK = timedelta(days=31)
# A median of fewer GPUs is no measure of what a job's GPUs do.
LEAST_MEMBERS = 8
# Deviations below what the sensors resolve are none: one clock step, 1 % of a board's limit, one degree.
CLOCK_FLOOR_HERTZ, POWER_FLOOR_WATTS, TEMPERATURE_FLOOR_KELVIN = 15e6, 14.0, 1.0
ROBUST_SIGMA = 1.4826  # of a normal distribution, sigma = 1.4826 MAD
OUTLYING_Z = 3.5

THROTTLE_CAUSES = ("power_cap", "sync_boost", "software_thermal", "hardware_thermal", "power_brake")
ACTIVITIES = ("sm", "tensor", "dram")

SEGMENTS: Schema = {
    "resource": pl.UInt64(),
    "start": TIME,
    "end": TIME,
    "dark": pl.UInt8(),  # nothing could be read, and the agent said so
    "throttled": pl.UInt8(),
    "activity": pl.UInt8(),  # an Activity
    "readings": pl.UInt64(),
    "joules": pl.Float64(),  # absent where no energy was told
    **{f"{cause}_s": pl.Float64() for cause in THROTTLE_CAUSES},
    **{f"{name}_sum": pl.Float64() for name in ACTIVITIES},  # of mean activity, weighted by readings
    **{f"{name}_count": pl.UInt64() for name in ACTIVITIES},
    "celsius_sum": pl.Float64(),
    "celsius_count": pl.UInt64(),
}
TROUBLES: Schema = {"resource": pl.UInt64(), "start": TIME, "end": TIME, "condition": pl.String()}
EVENTS: Schema = {
    "resource": pl.UInt64(),
    "time": TIME,
    "kind": pl.String(),
    "code": pl.Int64(),
    "xid_class": pl.String(),
    "text": pl.String(),
}
HOLDS: Schema = {
    "job": pl.String(),
    "resource": pl.UInt64(),
    "start": TIME,
    "end": TIME,  # absent while it runs
    "name": pl.String(),
    "customer": pl.String(),
}
PLACES: Schema = {
    "resource": pl.UInt64(),
    "valid_from": TIME,
    "valid_to": TIME,
    "kind": pl.String(),
    "name": pl.String(),
    "tray": pl.UInt64(),
    "tray_name": pl.String(),
    "rack": pl.UInt64(),
    "rack_name": pl.String(),
    "hall": pl.UInt64(),
    "hall_name": pl.String(),
    "path": pl.List(pl.UInt64()),
}
FEEDS: Schema = {"resource": pl.UInt64(), "served": pl.UInt64(), "valid_from": TIME, "valid_to": TIME}
RACK_FACTS: Schema = {"resource": pl.UInt64(), "fluid": pl.String()}
WORKED: Schema = {"resource": pl.UInt64(), "time": TIME}
WINDOWS: Schema = {
    "job": pl.String(),
    "time": TIME,
    "resource": pl.UInt64(),
    "clock": pl.Float64(),
    "power": pl.Float64(),
    "temperature": pl.Float64(),
    "clock_median": pl.Float64(),
    "power_median": pl.Float64(),
    "temperature_median": pl.Float64(),
    "clock_mad": pl.Float64(),
    "power_mad": pl.Float64(),
    "temperature_mad": pl.Float64(),
}
JOB_WINDOWS: Schema = {"job": pl.String(), "windows": pl.UInt64(), "spacing_s": pl.Float64()}
COOLANT: Schema = {
    "resource": pl.UInt64(),
    "flow": pl.Float64(),  # m³/s, mean over the minutes in which all three are known and coolant flows
    "supply_celsius": pl.Float64(),
    "return_celsius": pl.Float64(),
    "heat_watts": pl.Float64(),
    "power_watts": pl.Float64(),
    "observed_s": pl.Float64(),
}
# The same as sums over these minutes, so that days add up.
COOLANT_SUMS: Schema = {
    "resource": pl.UInt64(),
    "minutes": pl.UInt64(),
    "flow_sum": pl.Float64(),
    "supply_sum": pl.Float64(),
    "return_sum": pl.Float64(),
    "heat_sum": pl.Float64(),
    "heat_minutes": pl.UInt64(),
    "watts_sum": pl.Float64(),
    "watts_minutes": pl.UInt64(),
}
SITE_POWER: Schema = {"time": TIME, "watts": pl.Float64(), "meters": pl.UInt64()}
COMPONENTS: Schema = {"time": TIME, "processor_watts": pl.Float64(), "trays": pl.UInt64()}
JOB_ENERGY: Schema = {name: kind for name, kind in JOBS.items() if name != "told_at"}


@dataclass(frozen=True, slots=True)
class Window:
    """A part of the period that is read at once; aware, `start` inclusive and `end` exclusive."""

    start: datetime
    end: datetime


# Ids are hashes: a part of their range is a part of the fleet, and rows of one GPU stay together.
_SOME_GPUS = "tier.resource BETWEEN {lowest:UInt64} AND {highest:UInt64}"
EVERY_GPU: Mapping[str, Parameter] = MappingProxyType({"lowest": 0, "highest": 2**64 - 1})
EVERY_JOB: Mapping[str, Parameter] = MappingProxyType({"jobs": list[str]()})


def windows_of(period: Period) -> tuple[Window, ...]:
    """The hours of a day, the local days of a month or a year."""
    edges = [period.start]
    local = period.local(period.start).replace(tzinfo=None)
    while edges[-1] < period.end:
        if period.span is Span.DAY:
            edges.append(edges[-1] + timedelta(hours=1))
        else:
            local += timedelta(days=1)
            edges.append(min(local.replace(tzinfo=ZoneInfo(period.zone)).astimezone(period.start.tzinfo), period.end))
    return tuple(Window(first, last) for first, last in pairwise(edges))


def reads_minutes(period: Period, now: datetime) -> bool:
    """Whether the minutes of the whole period are still kept; else the hours are read."""
    return period.span is not Span.YEAR and now - period.start < GPU.retention.minute


def read_segments(reader: Reader, window: Window, *, minutes: bool) -> pl.DataFrame:
    """SEGMENTS: what each GPU did, slots that follow one another in one state as one row.

    A row of one tick tells of the time before it, a row of many of its own minute.
    """
    return reader.query(segments_sql(minutes=minutes), {**bounds_of(window), **EVERY_GPU}, SEGMENTS)


def segments_sql(*, minutes: bool) -> str:
    slot_s = MINUTE_SLOT_S if minutes else HOUR_SLOT_S
    source = f"{GPU.name}_1m AS tier" if minutes else f"{GPU.name}_1h AS tier FINAL"
    back = "(row_count = 1)" if minutes else "0"
    covered = f"if(max(tier.row_count) = 1, {slot_s}, uniqExact(tier.time) * 60)" if minutes else f"{slot_s}"
    held = " + ".join(_sum(f"throttled_{cause}_seconds") for cause in THROTTLE_CAUSES[1:])
    engine, sm = (_ratio(f"{name}_active_ratio") for name in ("graphics", "sm"))
    sums = [f"{_sum(f'throttled_{cause}_seconds')} AS {cause}_s" for cause in THROTTLE_CAUSES]
    sums += [f"{_sum(f'{name}_active_ratio')} AS {name}_sum" for name in ACTIVITIES]
    sums += [f"sum(tier.{name}_active_ratio_count) AS {name}_count" for name in ACTIVITIES]
    columns = [f"{cause}_s" for cause in THROTTLE_CAUSES] + [f"{name}_sum" for name in ACTIVITIES]
    counts = [f"{name}_count" for name in ACTIVITIES]
    dark = next(value for value, name in GPU_STATES if name == "dark")
    return f"""
SELECT
    resource,
    toDateTime(min(slot), 'UTC') AS start,
    toDateTime(max(slot) + {slot_s}, 'UTC') AS end,
    dark,
    throttled,
    activity,
    sum(readings) AS readings,
    sum(joules) AS joules,
    {", ".join(f"sum({name}) AS {name}" for name in columns)},
    {", ".join(f"sum({name}) AS {name}" for name in counts)},
    sum(celsius_sum) AS celsius_sum,
    sum(celsius_count) AS celsius_count
FROM
(
    SELECT *, intDiv(slot, {slot_s}) - row_number() OVER
        (PARTITION BY resource, dark, throttled, activity ORDER BY slot) AS island
    FROM
    (
        SELECT
            tier.resource AS resource,
            toUInt32(intDiv(toUnixTimestamp(tier.time) - {back}, {slot_s}) * {slot_s}) AS slot,
            sum(tier.power_watts_count) AS readings,
            toUInt8(readings = 0 AND ifNull(max(tier.gpu_state_max_raw), 0) = {dark}) AS dark,
            toUInt8({held} > {THROTTLED_FROM} * {slot_s}) AS throttled,
            ifNull({engine}, {sm}) AS engine_active,
            toUInt8(multiIf(isNull(engine_active), 0, engine_active < {IDLE_BELOW}, 1, 2)) AS activity,
            {covered} AS covered_s,
            if(sum(tier.energy_joules_count) = 0, NULL, {_sum("energy_joules")}) AS joules,
            {", ".join(sums)},
            {_sum("temperature_celsius")} AS celsius_sum,
            sum(tier.temperature_celsius_count) AS celsius_count
        FROM {source}
        WHERE tier.time >= {{first:DateTime('UTC')}} AND tier.time <= {{last:DateTime('UTC')}} AND {_SOME_GPUS}
        GROUP BY resource, slot
        HAVING slot >= toUnixTimestamp({{first:DateTime('UTC')}}) AND slot < toUnixTimestamp({{last:DateTime('UTC')}})
            AND covered_s >= {SEEN_SHARE} * {slot_s} AND (readings > 0 OR dark)
    )
)
GROUP BY resource, dark, throttled, activity, island
"""  # noqa: S608 - names from the catalogue and constants; values are bound


def read_troubles(reader: Reader, window: Window, *, minutes: bool) -> pl.DataFrame:
    """TROUBLES: slots in which a GPU's slow readings say that it is down or degraded."""
    return reader.query(troubles_sql(minutes=minutes), {**bounds_of(window), **EVERY_GPU}, TROUBLES)


def troubles_sql(*, minutes: bool) -> str:
    source = f"{GPU_HEALTH.name}_1m AS tier" if minutes else f"{GPU_HEALTH.name}_1h AS tier FINAL"
    slot_s = MINUTE_SLOT_S if minutes else HOUR_SLOT_S
    unhealthy = max(value for value, _ in FABRIC_SUMMARIES)
    return f"""
SELECT resource, toDateTime(slot, 'UTC') AS start, toDateTime(slot + {slot_s}, 'UTC') AS end,
    if(down, 'down', 'degraded') AS condition
FROM
(
    SELECT
        resource,
        toUInt32(intDiv(toUnixTimestamp(time), {slot_s}) * {slot_s}) AS slot,
        ifNull(max(recovery_action_state_max_raw), 0) >= 1
            OR ifNull(max(fabric_summary_state_max_raw), 0) = {unhealthy} AS down,
        ifNull(max(remap_pending_state_max_raw), 0) = 1 OR ifNull(max(nvlink_inactive_count_max_raw), 0) > 0 AS worse
    FROM {source}
    WHERE time >= {{first:DateTime('UTC')}} AND time < {{last:DateTime('UTC')}} AND {_SOME_GPUS}
    GROUP BY resource, slot
    HAVING down OR worse
)
"""  # noqa: S608 - names from the catalogue and constants; values are bound


def read_events(reader: Reader, period: Period, now: datetime) -> pl.DataFrame:
    """EVENTS from a month before the period until now, each once: what was restored later had been out of service."""
    sql = """
SELECT resource, time, any(kind) AS kind, any(code) AS code, any(class) AS xid_class, any(words) AS text
FROM
(
    SELECT resource, time, id, toString(events.kind) AS kind, events.code AS code, attributes['class'] AS class,
        events.text AS words
    FROM events FINAL
    WHERE time >= {first:DateTime('UTC')} AND time < {last:DateTime('UTC')}
)
GROUP BY resource, time, id
"""
    return reader.query(
        sql, {"first": moment_text(period.start - EVENT_LOOK_BACK), "last": moment_text(max(period.end, now))}, EVENTS
    )


def read_first_work(reader: Reader, gpus: Sequence[int], period: Period) -> pl.DataFrame:
    """WORKED: by GPU and hour, the first minute in which its engine was active for 1 % or more."""
    if not gpus:
        return pl.DataFrame(schema=dict(WORKED))
    active = GPU.metric("graphics_active_ratio")
    sql = f"""
SELECT resource, min(minute) AS time
FROM
(
    SELECT resource, tier.time AS minute
    FROM {GPU.name}_1m AS tier
    WHERE tier.time >= {{first:DateTime('UTC')}} AND tier.time < {{last:DateTime('UTC')}}
        AND resource IN {{gpus:Array(UInt64)}}
    GROUP BY resource, minute
    HAVING {_ratio(active.name)} >= {IDLE_BELOW}
)
GROUP BY resource, toStartOfHour(minute)
"""  # noqa: S608 - names from the catalogue and constants; values are bound
    looked_at = {"first": moment_text(period.start - EVENT_LOOK_BACK), "last": moment_text(period.end)}
    return reader.query(sql, {**looked_at, "gpus": list(gpus)}, WORKED)


def read_holds(reader: Reader, period: Period) -> pl.DataFrame:
    """HOLDS that touch the period; those that were taken back (they end where they start) are none."""
    sql = """
SELECT job, resource, start, jobs.end AS end, name, toString(customer) AS customer
FROM jobs FINAL
WHERE start < {last:DateTime('UTC')} AND (isNull(jobs.end) OR jobs.end > {first:DateTime('UTC')})
    AND (isNull(jobs.end) OR jobs.end > start)
"""
    return reader.query(sql, {"first": moment_text(period.start), "last": moment_text(period.end)}, HOLDS)


def read_places(reader: Reader, period: Period) -> pl.DataFrame:
    """PLACES of GPUs, trays, racks and halls in the period, without aliases (things under another id)."""
    sql = """
SELECT resource, valid_from, valid_to, toString(kind) AS kind, name, tray, tray_name, rack, rack_name, hall,
    toString(hall_name) AS hall_name, path
FROM (SELECT *, valid_from = min(valid_from) OVER (PARTITION BY resource) AS is_first FROM places)
WHERE kind IN ('gpu', 'tray', 'rack', 'hall') AND same_as = resource AND valid_to > {first:DateTime('UTC')}
    AND (valid_from < {last:DateTime('UTC')} OR is_first)
"""
    return reader.query(sql, {"first": moment_text(period.start), "last": moment_text(period.end)}, PLACES)


def read_feeds(reader: Reader, period: Period) -> pl.DataFrame:
    """FEEDS: what meters, feeders and cooling equipment serve, besides the tree."""
    sql = "SELECT resource, served, valid_from, valid_to FROM feeds WHERE valid_to > {first:DateTime('UTC')}"
    return reader.query(sql, {"first": moment_text(period.start)}, FEEDS)


def read_rack_facts(reader: Reader, period: Period) -> pl.DataFrame:
    """RACK_FACTS: the coolant that each rack's inventory states, empty where it does not."""
    sql = """
SELECT resource, argMax(attributes['fluid'], valid_from) AS fluid
FROM resources
WHERE kind = 'rack' AND valid_to > {first:DateTime('UTC')}
GROUP BY resource
"""
    return reader.query(sql, {"first": moment_text(period.start)}, RACK_FACTS)


def read_outlying_windows(reader: Reader, window: Window) -> pl.DataFrame:
    """WINDOWS: minutes of GPUs that lie outside their job's robust limits in one signal or more.

    Only jobs with eight GPUs or more in the minute; median and MAD are the job's in that minute.
    """
    return reader.query(outlying_sql(), {**bounds_of(window), **EVERY_JOB}, WINDOWS)


def outlying_sql() -> str:
    signals = {"clock": "sm_clock_hertz", "power": "power_watts", "temperature": "temperature_celsius"}
    floors = {"clock": CLOCK_FLOOR_HERTZ, "power": POWER_FLOOR_WATTS, "temperature": TEMPERATURE_FLOOR_KELVIN}
    outlying = " OR ".join(
        f"abs({name} - {name}_median) > {OUTLYING_Z} * greatest({ROBUST_SIGMA} * {name}_mad, {floors[name]})"
        for name in signals
    )
    medians = ",\n            ".join(
        f"arrayReduce('quantileExactInclusive(0.5)', {name}s) AS {name}_median, "
        f"arrayReduce('quantileExactInclusive(0.5)', arrayMap(x -> abs(x - {name}_median), {name}s)) AS {name}_mad"
        for name in signals
    )
    return f"""
SELECT job, toDateTime(minute, 'UTC') AS time, resource, {", ".join(signals)},
    {", ".join(f"{name}_median" for name in signals)}, {", ".join(f"{name}_mad" for name in signals)}
FROM
(
    SELECT job, minute, member.1 AS resource, member.2 AS clock, member.3 AS power, member.4 AS temperature,
        {", ".join(f"{name}_median, {name}_mad" for name in signals)}
    FROM
    (
        SELECT job, minute,
            arrayMap(x -> x.2, members) AS clocks, arrayMap(x -> x.3, members) AS powers,
            arrayMap(x -> x.4, members) AS temperatures,
            {medians},
            members
        FROM
        (
            SELECT job, minute, groupArray((resource, clock, power, temperature)) AS members
            FROM ({_job_minutes_sql()})
            GROUP BY job, minute
            HAVING count() >= {LEAST_MEMBERS}
        )
    )
    ARRAY JOIN members AS member
)
WHERE {outlying}
"""  # noqa: S608 - names from the catalogue and constants; values are bound


def read_job_windows(reader: Reader, window: Window) -> pl.DataFrame:
    """JOB_WINDOWS: in how many minutes each job was compared, and how far apart they are as a rule."""
    return reader.query(job_windows_sql(), {**bounds_of(window), **EVERY_JOB}, JOB_WINDOWS)


def job_windows_sql() -> str:
    return f"""
SELECT job, count() AS windows, toFloat64(quantileExact(0.5)(minute - before)) AS spacing_s
FROM
(
    SELECT job, minute, lagInFrame(minute, 1, minute - 60) OVER (PARTITION BY job ORDER BY minute) AS before
    FROM
    (
        SELECT job, toInt64(minute) AS minute
        FROM ({_job_minutes_sql()})
        GROUP BY job, minute
        HAVING count() >= {LEAST_MEMBERS}
    )
)
GROUP BY job
"""  # noqa: S608 - names from the catalogue and constants; values are bound


def _job_minutes_sql() -> str:
    """Means of each GPU's whole minutes within a hold: job, resource, minute, clock, power, temperature.

    `jobs` are those that are asked for, all where it is empty.
    """
    holds = """
    SELECT DISTINCT jobs.job AS job, resource, toUnixTimestamp(start) AS since,
        toUnixTimestamp(ifNull(jobs.end, {last:DateTime('UTC')})) AS until
    FROM jobs FINAL
    WHERE start < {last:DateTime('UTC')} AND (isNull(jobs.end) OR jobs.end > {first:DateTime('UTC')})
        AND (empty({jobs:Array(String)}) OR has({jobs:Array(String)}, jobs.job))
"""
    clock, power, temperature = (_ratio(name) for name in ("sm_clock_hertz", "power_watts", "temperature_celsius"))
    return f"""
SELECT hold.job AS job, gpu.resource AS resource, gpu.minute AS minute, assumeNotNull(gpu.clock) AS clock,
    assumeNotNull(gpu.power) AS power, assumeNotNull(gpu.temperature) AS temperature
FROM
(
    SELECT tier.resource AS resource, toUnixTimestamp(tier.time) AS minute,
        {clock} AS clock, {power} AS power, {temperature} AS temperature
    FROM {GPU.name}_1m AS tier
    WHERE tier.time >= {{first:DateTime('UTC')}} AND tier.time < {{last:DateTime('UTC')}}
        AND tier.resource IN (SELECT resource FROM ({holds}))
    GROUP BY resource, minute
    HAVING isNotNull(clock) AND isNotNull(power) AND isNotNull(temperature)
) AS gpu
INNER JOIN ({holds}) AS hold ON hold.resource = gpu.resource
WHERE gpu.minute >= hold.since AND gpu.minute + 60 <= hold.until
"""  # noqa: S608 - names from the catalogue and constants; values are bound


def coolant_means(sums: pl.DataFrame) -> pl.DataFrame:
    """COOLANT from COOLANT_SUMS, which may be of several days."""
    minutes = pl.col("minutes")
    of_all = sums.group_by("resource").agg(pl.all().sum()).filter(minutes > 0)
    return of_all.select(
        "resource",
        flow=pl.col("flow_sum") / minutes,
        supply_celsius=pl.col("supply_sum") / minutes,
        return_celsius=pl.col("return_sum") / minutes,
        heat_watts=pl.when(pl.col("heat_minutes") == minutes).then(pl.col("heat_sum") / minutes),
        power_watts=pl.when(pl.col("watts_minutes") == minutes).then(pl.col("watts_sum") / minutes),
        observed_s=minutes * 60.0,
    ).sort("resource")


def coolant_sql() -> str:
    """COOLANT_SUMS between `first` and `last`, of racks whose ids lie between `lowest` and `highest`."""
    flow, supply, back, heat, power = (
        RACK.metric(name).name
        for name in (
            "liquid_flow_cubic_metres_per_second",
            "liquid_supply_temperature_celsius",
            "liquid_return_temperature_celsius",
            "liquid_heat_watts",
            "power_watts",
        )
    )
    return f"""
SELECT resource, count() AS minutes, assumeNotNull(sum(flow)) AS flow_sum, assumeNotNull(sum(supply)) AS supply_sum,
    assumeNotNull(sum(back)) AS return_sum, ifNull(sum(heat), 0) AS heat_sum, count(heat) AS heat_minutes,
    ifNull(sum(watts), 0) AS watts_sum, count(watts) AS watts_minutes
FROM
(
    SELECT minute.resource AS resource, minute.time AS time,
        {_ratio(flow, "minute", RACK)} AS flow, {_ratio(supply, "minute", RACK)} AS supply,
        {_ratio(back, "minute", RACK)} AS back, {_ratio(heat, "minute", RACK)} AS heat,
        {_ratio(power, "minute", RACK)} AS watts
    FROM {RACK.name}_1m AS minute
    WHERE minute.time >= {{first:DateTime('UTC')}} AND minute.time < {{last:DateTime('UTC')}}
        AND minute.resource BETWEEN {{lowest:UInt64}} AND {{highest:UInt64}}
    GROUP BY resource, time
    HAVING flow > 0 AND isNotNull(supply) AND isNotNull(back)
)
GROUP BY resource
"""  # noqa: S608 - names from the catalogue; values are bound


def read_site_power(reader: Reader, meters: Sequence[int], period: Period, *, raw: bool) -> pl.DataFrame:
    """SITE_POWER: the sum over the site's meters at each instant (raw) or as means of minutes, with their number."""
    if not meters:
        return pl.DataFrame(schema=dict(SITE_POWER))
    power = POWER.metric("active_power_watts")
    source = f"{POWER.name} AS tier" if raw else f"{POWER.name}_1m AS tier"
    watts = f"any(tier.{power.name})" if raw else _ratio(power.name, "tier", POWER)
    sql = f"""
SELECT time, sum(drawn) AS watts, count(drawn) AS meters
FROM
(
    SELECT tier.resource AS resource, tier.time AS time, {watts} AS drawn
    FROM {source}
    WHERE tier.time >= {{first:DateTime('UTC')}} AND tier.time < {{last:DateTime('UTC')}}
        AND tier.resource IN {{meters:Array(UInt64)}}
    GROUP BY resource, time
)
WHERE isNotNull(drawn)
GROUP BY time
ORDER BY time
"""  # noqa: S608 - names from the catalogue; values are bound
    looked_at = {"first": moment_text(period.start), "last": moment_text(period.end)}
    return reader.query(sql, {**looked_at, "meters": list(meters)}, SITE_POWER)


def read_components(reader: Reader, window: Window, *, minutes: bool) -> pl.DataFrame:
    """COMPONENTS: one row, the mean draw of all trays' processors in the window, and how many trays told of it."""
    return reader.query(components_sql(minutes=minutes), bounds_of(window), COMPONENTS)


def components_sql(*, minutes: bool) -> str:
    source = f"{TRAY.name}_1m AS tier" if minutes else f"{TRAY.name}_1h AS tier FINAL"
    return f"""
SELECT {{first:DateTime('UTC')}} AS time, sum(watts) AS processor_watts, count(watts) AS trays
FROM
(
    SELECT {_ratio("processor_power_watts", "tier", TRAY)} AS watts
    FROM {source}
    WHERE tier.time >= {{first:DateTime('UTC')}} AND tier.time < {{last:DateTime('UTC')}}
    GROUP BY tier.resource
)
"""  # noqa: S608 - names from the catalogue; values are bound


def read_job_energy(reader: Reader, period: Period) -> pl.DataFrame:
    """JOB_ENERGY of the jobs that ended in the period."""
    columns = ", ".join(f"job_energy.{name} AS {name}" for name in JOB_ENERGY)
    sql = f"""
SELECT {columns} FROM job_energy FINAL
WHERE job_energy.end > {{first:DateTime('UTC')}} AND job_energy.end <= {{last:DateTime('UTC')}}
"""  # noqa: S608 - names of this module; values are bound
    return reader.query(sql, {"first": moment_text(period.start), "last": moment_text(period.end)}, JOB_ENERGY)


def site_meters(meters: pl.DataFrame) -> list[int]:
    """Ids of the meters with the role of the site."""
    return meters.filter(pl.col("role") == Role.SITE)["resource"].to_list()


def _ratio(name: str, tier: str = "tier", table: Table = GPU) -> str:
    """The mean over any rows of a rollup, in base units; NULL where nothing was read."""
    metric = table.metric(name)
    count = f"sum({tier}.{name}_count)"
    return f"if({count} = 0, NULL, {scaled(f'sum({tier}.{name}_sum_raw) / {count}', metric)})"


def _sum(name: str) -> str:
    """The sum of a GPU metric over any rows of a rollup, in base units."""
    return f"toFloat64({scaled(f'sum(tier.{name}_sum_raw)', GPU.metric(name))})"


def scaled(expression: str, metric: Metric) -> str:
    """Stored counts in base units, as SQL."""
    return f"{expression} * {metric.resolution.numerator} / {metric.resolution.denominator}"


def bounds_of(window: Window) -> dict[str, Parameter]:
    """The parameters `first` and `last` of a window."""
    return {"first": moment_text(window.start), "last": moment_text(window.end)}


def moment_text(moment: datetime) -> str:
    """A moment as ClickHouse takes it for a bound DateTime('UTC')."""
    return f"{moment:%Y-%m-%d %H:%M:%S}"
