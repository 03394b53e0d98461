"""What a site report asks of the store: every statement, its parameters and its answer's columns."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from catalogue import COOLING, GPU, POWER, Metric, Table
from reports.figures import ROLES
from reports.ledger import READINGS, READINGS_MAY_HAVE, SERIALS, TIME
from reports.period import Period, Span
from storage.reader import Parameter, Reader, Schema

# Readings on both sides of the period, so that its bounds can be interpolated across a short outage.
MARGIN = timedelta(days=1)

ENERGY_REGISTER = POWER.metric("energy_import_joules")
HEAT_REGISTER = COOLING.metric("heat_register_joules")
# What flows while a register counts, from the same device.
_POWER_BESIDE = {
    ENERGY_REGISTER.name: POWER.metric("active_power_watts"),
    HEAT_REGISTER.name: COOLING.metric("heat_flow_watts"),
}

_METERS: Schema = {
    "resource": pl.UInt64(),
    "kind": pl.String(),
    "identity": pl.String(),
    "name": pl.String(),
    "role": pl.String(),
    "accuracy_class": pl.String(),
    "measured_at": pl.String(),
    "off_taker": pl.String(),
    "modulus_joules": pl.Float64(),
    "rated_watts": pl.Float64(),
    "interval_s": pl.Float64(),
    "resolution_joules": pl.Float64(),
}
_REGISTERS: Schema = {**READINGS, **READINGS_MAY_HAVE}
_KINDS: Schema = {
    "kind": pl.String(),
    "things": pl.UInt64(),
    "rated": pl.UInt64(),
    "rated_watts": pl.Float64(),
    "some_name": pl.String(),
}
GPUS: Schema = {
    "time": TIME,
    "joules": pl.Float64(),
    "gpus": pl.UInt64(),
    "gpu_hours": pl.UInt64(),
    "watts_low": pl.Float64(),
    "watts_median": pl.Float64(),
    "watts_high": pl.Float64(),
    "sm_active": pl.Float64(),
}
_TEMPERATURES: Schema = {
    "resource": pl.UInt64(),
    "time": TIME,
    "supply_celsius": pl.Float64(),
    "return_celsius": pl.Float64(),
}

# The latest word that was valid before the period's end; before the first word, the first one.
_KNOWN_RESOURCES = """
SELECT
    resource,
    argMax(kind, rank) AS kind,
    argMax(identity, rank) AS identity,
    argMax(name, rank) AS name,
    argMax(attributes, rank) AS attributes
FROM
(
    SELECT *, (valid_from <= {end:DateTime64(3, 'UTC')}) AS already,
        (already, if(already, 1, -1) * toUnixTimestamp64Milli(valid_from)) AS rank
    FROM inventory
)
GROUP BY resource
"""


@dataclass(frozen=True, slots=True)
class Stock:
    """What the inventory says there is. `installed_watts` is absent unless every rack is rated."""

    site_name: str | None
    gpus: int
    installed_watts: float | None


def read_meters(reader: Reader, period: Period) -> pl.DataFrame:
    """The meters that have one of the report's roles, with what is known about them."""
    sql = f"""
SELECT
    resource,
    kind,
    identity,
    name,
    attributes['role'] AS role,
    attributes['class'] AS accuracy_class,
    attributes['measured_at'] AS measured_at,
    attributes['off_taker'] AS off_taker,
    toFloat64OrNull(attributes['register_modulus_joules']) AS modulus_joules,
    toFloat64OrNull(attributes['nominal_power_watts']) AS rated_watts,
    toFloat64OrNull(attributes['interval_s']) AS interval_s,
    toFloat64OrNull(attributes['register_resolution_joules']) AS resolution_joules
FROM ({_KNOWN_RESOURCES})
WHERE kind IN ('feeder', 'meter', 'heat_meter') AND role IN {{roles:Array(String)}}
ORDER BY role, name, resource
"""  # noqa: S608 - constants of this module; values are bound
    return reader.query(sql, {"end": _text(period.end), "roles": [role.value for role in ROLES]}, _METERS)


def read_serials(reader: Reader, meters: list[int], period: Period) -> pl.DataFrame:
    """Every serial number that each meter ever had up to the period's end, as the ledger's SERIALS.

    `register_start_joules` and `register_final_joules` are what the new and the old register showed
    when the meter was exchanged.
    """
    if not meters:
        return pl.DataFrame(schema=dict(SERIALS))
    sql = """
SELECT
    resource,
    source,
    valid_from,
    attributes['serial'] AS serial,
    toFloat64OrNull(attributes['register_start_joules']) AS start_joules,
    toFloat64OrNull(attributes['register_final_joules']) AS final_joules
FROM inventory
WHERE resource IN {meters:Array(UInt64)} AND valid_from <= {last:DateTime('UTC')} AND attributes['serial'] != ''
"""
    return reader.query(sql, {"meters": meters, "last": _text(period.end + MARGIN)}, SERIALS)


def read_stock(reader: Reader, period: Period) -> Stock:
    """The site's name, how many GPUs there are, and the rated power of all racks."""
    sql = f"""
SELECT
    kind,
    count() AS things,
    countIf(isNotNull(toFloat64OrNull(attributes['nominal_power_watts']))) AS rated,
    sum(toFloat64OrNull(attributes['nominal_power_watts'])) AS rated_watts,
    min(name) AS some_name
FROM ({_KNOWN_RESOURCES})
WHERE kind IN ('site', 'rack', 'gpu')
GROUP BY kind
"""  # noqa: S608 - constants of this module; values are bound
    found = {row["kind"]: row for row in reader.query(sql, {"end": _text(period.end)}, _KINDS).iter_rows(named=True)}
    site, racks, gpus = (found.get(kind) for kind in ("site", "rack", "gpu"))
    return Stock(
        site_name=site["some_name"] if site else None,
        gpus=gpus["things"] if gpus else 0,
        installed_watts=racks["rated_watts"] if racks and racks["rated"] == racks["things"] else None,
    )


def holds_raw(table: Table, period: Period, now: datetime) -> bool:
    """Whether every reading of the period is to be read: of a day or a month that is still kept whole."""
    return period.span is not Span.YEAR and now - period.start + MARGIN < table.retention.raw


def read_registers(
    reader: Reader, table: Table, metric: Metric, meters: list[int], period: Period, *, exact: bool
) -> pl.DataFrame:
    """The readings of a register, as the ledger's READINGS, with power_watts.

    `exact` takes the raw rows: exact times, so that gaps and the period's bounds are exact, and the
    power beside the register; of a few meters only, so that this is at most some million rows.
    Otherwise each quarter hour's first minute, as settlement does, without power: a reset then hides
    what was counted since the quarter hour before, and a frozen register is not found.
    """
    if not meters:
        return pl.DataFrame(schema=dict(_REGISTERS))
    sql = _raw_register(table, metric) if exact else _quarterly_register(table, metric)
    bounds = {"first": _text(period.start - MARGIN), "last": _text(period.end + MARGIN)}
    return reader.query(sql, {**bounds, "meters": meters}, _REGISTERS)


def _raw_register(table: Table, metric: Metric) -> str:
    return f"""
SELECT resource, time, {metric.name} AS register_joules, quality_state,
    {_POWER_BESIDE[metric.name].name} AS power_watts
FROM {table.name}
WHERE time BETWEEN {{first:DateTime('UTC')}} AND {{last:DateTime('UTC')}} AND resource IN {{meters:Array(UInt64)}}
"""  # noqa: S608 - names from the catalogue; values are bound


def _quarterly_register(table: Table, metric: Metric) -> str:
    return f"""
SELECT minute.resource AS resource, minute.time AS time, min(minute.{metric.name}_min) AS register_joules,
    max(minute.quality_state_max_raw) AS quality_state, CAST(NULL AS Nullable(Float64)) AS power_watts
FROM {table.name}_1m AS minute
WHERE time BETWEEN {{first:DateTime('UTC')}} AND {{last:DateTime('UTC')}} AND resource IN {{meters:Array(UInt64)}}
    AND toMinute(time) % 15 = 0
GROUP BY resource, time
"""  # noqa: S608 - names from the catalogue; values are bound


def read_heat_temperatures(reader: Reader, meters: list[int], period: Period) -> pl.DataFrame:
    """Mean temperatures at each heat meter by quarter hour: resource, time, supply_celsius, return_celsius."""
    if not meters:
        return pl.DataFrame(schema=dict(_TEMPERATURES))
    means = ", ".join(
        f"{_mean(COOLING.metric(f'primary_{name}_temperature_celsius'))} AS {name}_celsius"
        for name in ("supply", "return")
    )
    sql = f"""
SELECT resource, toStartOfFifteenMinutes(minute.time) AS time, {means}
FROM {COOLING.name}_1m AS minute
WHERE minute.time >= {{first:DateTime('UTC')}} AND minute.time < {{last:DateTime('UTC')}}
    AND resource IN {{meters:Array(UInt64)}}
GROUP BY resource, time
"""  # noqa: S608 - names from the catalogue; values are bound
    return reader.query(sql, {**_bounds(period), "meters": meters}, _TEMPERATURES)


def read_gpus(
    reader: Reader, period: Period, now: datetime, *, within: tuple[datetime, datetime] | None = None
) -> pl.DataFrame:
    """All GPUs by local day (by hour for a day's report), grouped in ClickHouse: a row a day.

    `within` is the part of the period that is read, all of it unless given.

    joules is the sum of what the agents sent; gpu_hours counts the hours in which each GPU was
    heard; watts_low, _median and _high are the 5th, 50th and 95th percentile of the GPUs' means.
    """
    minutes = period.span is not Span.YEAR and now - period.start < GPU.retention.minute
    sql = gpus_sql(minutes=minutes, hourly=period.span is Span.DAY)
    first, last = within or (period.start, period.end)
    return reader.query(sql, {"first": _text(first), "last": _text(last), "zone": period.zone}, GPUS)


def gpus_sql(*, minutes: bool, hourly: bool) -> str:
    """GPUS between `first` and `last` by hour or by day of `zone`."""
    power, activity = GPU.metric("power_watts"), GPU.metric("sm_active_ratio")
    energy = GPU.metric("energy_joules")
    joules = _scaled(f"sum(tier.{energy.name}_sum_raw)", energy)
    source = f"{GPU.name}_1m AS tier" if minutes else f"{GPU.name}_1h AS tier FINAL"
    part = "toStartOfHour(tier.time)" if hourly else "toStartOfDay(tier.time, {zone:String})"
    return f"""
SELECT
    part AS time,
    sum(gpu_joules) AS joules,
    count() AS gpus,
    sum(bitCount(hours)) AS gpu_hours,
    quantileExactInclusive(0.05)(gpu_watts) AS watts_low,
    quantileExactInclusive(0.5)(gpu_watts) AS watts_median,
    quantileExactInclusive(0.95)(gpu_watts) AS watts_high,
    avg(gpu_activity) AS sm_active
FROM
(
    SELECT
        tier.resource,
        {part} AS part,
        if(sum(tier.{energy.name}_count) = 0, NULL, {joules}) AS gpu_joules,
        {_mean(power, "tier")} AS gpu_watts,
        {_mean(activity, "tier")} AS gpu_activity,
        groupBitOrIf(
            bitShiftLeft(toUInt32(1), intDiv(toUnixTimestamp(tier.time) - toUnixTimestamp(part), 3600)),
            tier.{energy.name}_count > 0
        ) AS hours
    FROM {source}
    WHERE tier.time >= {{first:DateTime('UTC')}} AND tier.time < {{last:DateTime('UTC')}}
    GROUP BY tier.resource, part
)
GROUP BY part
ORDER BY part
"""  # noqa: S608 - names from the catalogue; values are bound


def _mean(metric: Metric, tier: str = "minute") -> str:
    """The exact mean over any rows of a rollup: the sum of sums over the sum of counts, never a mean of means."""
    count = f"sum({tier}.{metric.name}_count)"
    return f"if({count} = 0, NULL, {_scaled(f'sum({tier}.{metric.name}_sum_raw) / {count}', metric)})"


def _scaled(expression: str, metric: Metric) -> str:
    return f"{expression} * {metric.resolution.numerator} / {metric.resolution.denominator}"


def _bounds(period: Period) -> dict[str, Parameter]:
    return {"first": _text(period.start), "last": _text(period.end)}


def _text(moment: datetime) -> str:
    """A moment as ClickHouse takes it for a bound DateTime('UTC')."""
    return f"{moment:%Y-%m-%d %H:%M:%S}"
