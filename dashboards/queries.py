# ruff: noqa: S608 - names come from the catalogue and from this module, what people choose is quoted by Grafana
"""SQL of the dashboards, made in one place: which tier answers, what each metric is there, where each resource stands.

Texts hold Grafana's own placeholders: the macros of the ClickHouse data source ($__timeFilter, $__fromTime, $__toTime,
$__interval_s, $__conditionalAll) and ${variable:sqlstring}, which quotes. `dashboards.macros` expands them without a
Grafana. Every metric enters as an entry of the catalogue; what is in no table is a ValueError when the page is built.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from functools import partial

from catalogue import Kind, Metric, ResourceKind, Table

# A screen is some 2,000 points wide: 6 h of seconds, a week of minutes, a year of hours are each about 10 times that.
RAW_RANGE = timedelta(hours=6)
MINUTE_RANGE = timedelta(days=7)


class Tier(StrEnum):
    """Where readings are kept, by the suffix of the table's name."""

    RAW = ""
    MINUTE = "_1m"
    HOUR = "_1h"


class Statistic(StrEnum):
    """What becomes of a resource's readings of one stretch of time."""

    MEAN = "mean"
    LOWEST = "lowest"
    HIGHEST = "highest"
    TOTAL = "total"  # of amounts
    RISE = "rise"  # of a register; a register that was exchanged or reset in between is not seen
    WORST = "worst"  # of states


@dataclass(frozen=True, slots=True)
class Reading:
    """A metric under one statistic, as a column of `by_resource`; in a text it is that column's name."""

    metric: Metric
    statistic: Statistic
    name: str

    def __str__(self) -> str:
        return self.name

    def of_tier(self, tier: Tier) -> str:
        """The expression over `tier`, in base units; ValueError where the rollups do not keep it."""
        if tier is Tier.RAW:
            return _of_raw(self.metric, self.statistic)
        return _of_rollup(self.metric, self.statistic)


def mean(metric: Metric) -> Reading:
    return Reading(metric, Statistic.MEAN, metric.name)


def lowest(metric: Metric) -> Reading:
    return Reading(metric, Statistic.LOWEST, f"{metric.name}_lowest")


def highest(metric: Metric) -> Reading:
    return Reading(metric, Statistic.HIGHEST, f"{metric.name}_highest")


def total(metric: Metric) -> Reading:
    return Reading(metric, Statistic.TOTAL, f"{metric.name}_total")


def rise(metric: Metric) -> Reading:
    return Reading(metric, Statistic.RISE, f"{metric.name}_rise")


def worst(metric: Metric) -> Reading:
    return Reading(metric, Statistic.WORST, f"{metric.name}_worst")


class Place(StrEnum):
    """Columns of the view `places` by which people name where something is."""

    NAME = "name"
    TRAY = "tray_name"
    RACK = "rack_name"
    ROW = "row_name"
    HALL = "hall_name"
    SITE = "site_name"


@dataclass(frozen=True, slots=True)
class Choice:
    """A dashboard variable that narrows a page to places; its values are names. `several` also offers "All"."""

    variable: str
    label: str
    column: Place
    kind: ResourceKind
    several: bool = True

    @property
    def condition(self) -> str:
        chosen = f"{self.column} IN (${{{self.variable}:sqlstring}})"
        # "All" must not become a list of 100,000 names.
        return f"$__conditionalAll({chosen}, ${self.variable})" if self.several else chosen


class Fact(StrEnum):
    """Attributes of resources that queries use; they stand in the inventory, not in readings."""

    ROLE = "role"
    NOMINAL_POWER = "nominal_power_watts"


@dataclass(frozen=True, slots=True)
class Scope:
    """Which resources a query is about: of these kinds, where the chosen places are, with one of these roles.

    `facts` are offered as columns beside the names of places; `conditions` are over `resource` and names.
    """

    kinds: tuple[ResourceKind, ...]
    choices: tuple[Choice, ...] = field(default=())
    roles: tuple[str, ...] = field(default=())
    facts: tuple[Fact, ...] = field(default=())
    conditions: tuple[str, ...] = field(default=())

    @property
    def places(self) -> str:
        """One row a resource: its names as of the end of the range, and its facts."""
        columns = ", ".join(["resource", "kind", "rack", *Place])
        stood = (
            f"SELECT {columns}, valid_from FROM places WHERE kind IN ({texts(self.kinds)}) AND valid_to > $__toTime "
            "ORDER BY valid_from LIMIT 1 BY resource"
        )
        facts = self._wanted_facts
        known = ", ".join(f"attributes[{text(fact)}] AS {fact}" for fact in facts)
        told = (
            f" LEFT JOIN (SELECT resource, {known} FROM resources WHERE kind IN ({texts(self.kinds)}) "
            "AND valid_to > $__toTime ORDER BY valid_from LIMIT 1 BY resource) AS fact USING (resource)"
        )
        return f"SELECT {', '.join([columns, *facts])} FROM ({stood}) AS stood{told if facts else ''}{self._where}"

    @property
    def condition(self) -> str:
        """That `resource` is one of these."""
        return f"resource IN (SELECT resource FROM ({self.places}))"

    @property
    def _wanted_facts(self) -> tuple[Fact, ...]:
        return tuple(dict.fromkeys(((Fact.ROLE,) if self.roles else ()) + self.facts))

    @property
    def _where(self) -> str:
        conditions = [*(choice.condition for choice in self.choices), *self.conditions]
        if self.roles:
            conditions.append(f"{Fact.ROLE} IN ({texts(self.roles)})")
        return f" WHERE {' AND '.join(conditions)}" if conditions else ""

    def covers(self, table: Table) -> bool:
        """Whether every resource of the table is meant, so that nothing needs to be looked up."""
        return not self._where and self.kinds == table.resources


@dataclass(frozen=True, slots=True)
class Summed:
    """One reading, added up over a scope."""

    table: Table
    reading: Reading
    scope: Scope


def beside(scope: Scope, kind: ResourceKind, place: Place) -> Scope:
    """What of a kind stands in the same place as the resources of another scope."""
    return Scope((kind,), conditions=(f"{place} IN (SELECT {place} FROM ({scope.places}))",))


def by_resource(
    table: Table,
    readings: Sequence[Reading],
    scope: Scope,
    *,
    finest: Tier = Tier.RAW,
    bucketed: bool = True,
    during: str = "",
    bucket_s: int = 0,
) -> str:
    """SELECT of `resource`, `bucket` (unless over the whole range) and one column for each reading.

    `during` is a further condition over tier.time; buckets are at least `bucket_s` long.

    The tier follows from the range: raw up to RAW_RANGE, minutes up to MINUTE_RANGE, hours beyond, each only as far
    back as it is kept. `finest` leaves raw rows out where a panel shows a whole fleet. Of the three parts ClickHouse
    reads only the one whose constant condition holds. Over the whole range, or by hours, whole computed hours answer,
    and minutes only on both sides of them: it is the same sum.
    """
    strangers = [reading.metric.name for reading in readings if reading.metric not in table.metrics]
    if strangers:
        raise ValueError(f"table {table.name} has no {', '.join(strangers)}; take metrics of one table")
    bucket = f"toStartOfInterval(tier.time, INTERVAL {bucket_seconds(bucket_s)} second)" if bucketed else ""
    by_hours = not during and (bucket_s % _HOUR_S == 0 if bucketed and bucket_s else not bucketed)
    tiers = [tier for tier in Tier if finest is Tier.RAW or tier is not Tier.RAW]
    ask = partial(_asked, table, readings, scope, bucket)
    parts = []
    for tier in tiers:
        if by_hours and tier is not Tier.RAW:
            continue
        final = " FINAL" if tier is Tier.HOUR else ""
        where = [_IN_RANGE, f"{_chosen_tier(table, tiers)} = '{tier.name}'", *([during] if during else [])]
        parts.append(ask(tier, f"{table.name}{tier} AS tier{final}", where))
    if by_hours:
        where = [f"{_chosen_tier(table, tiers)} != '{Tier.RAW.name}'"] if Tier.RAW in tiers else []
        parts.append(ask(Tier.HOUR, f"(\n{_hours_and_minutes(table, readings)}\n) AS tier", where))
    return "\nUNION ALL\n".join(parts)


def bucket_seconds(at_least_s: int = 0) -> str:
    """How long the buckets of a time series are: what the panel's width asks for, or a multiple of `at_least_s`."""
    if not at_least_s:
        return "$__interval_s"
    return f"{at_least_s} * intDiv($__interval_s + {at_least_s - 1}, {at_least_s})"


_HOUR_S = 3600
_IN_RANGE = "$__timeFilter(tier.time)"


def _asked(
    table: Table,
    readings: Sequence[Reading],
    scope: Scope,
    bucket: str,
    tier: Tier,
    source: str,
    conditions: Sequence[str],
) -> str:
    """SELECT of one tier: `source` is the text behind FROM, which names it `tier`."""
    columns = ["tier.resource AS resource"]
    columns += [f"{bucket} AS bucket"] if bucket else []
    columns += [f"{reading.of_tier(tier)} AS {reading}" for reading in readings]
    where = [*conditions, *([] if scope.covers(table) else [f"tier.{scope.condition}"])]
    return (
        f"SELECT {', '.join(columns)}\nFROM {source}\n"
        + (f"WHERE {' AND '.join(where)}\n" if where else "")
        + f"GROUP BY resource{', bucket' if bucket else ''}"
    )


def whole_hours(computed: str) -> tuple[str, str]:
    """Where the whole hours of the range begin, and end: with the last one of `computed` that is computed.

    `computed` is as hours_computed names it. Both are the same where there is none.
    """
    first = "toStartOfHour($__fromTime + INTERVAL 3599 SECOND)"
    last = (
        f"(SELECT greatest({first}, max(hour) + INTERVAL 1 HOUR) FROM hours_computed "
        f"WHERE table_name = '{computed}' AND hour <= $__toTime - INTERVAL 1 HOUR)"
    )
    return first, last


def _hours_and_minutes(table: Table, readings: Sequence[Reading]) -> str:
    """The rollups of the range: its whole hours up to the last that is computed, and the minutes on both sides."""
    first, last = whole_hours(table.name)
    told = " ".join(reading.of_tier(Tier.HOUR) for reading in readings)
    columns = ", ".join(["resource", "time", *sorted(set(re.findall(r"tier\.(\w+)", told)))])
    return (
        f"SELECT {columns} FROM {table.name}{Tier.HOUR} AS tier FINAL WHERE time >= {first} AND time < {last}\n"
        f"UNION ALL\nSELECT {columns} FROM {table.name}{Tier.MINUTE} AS tier "
        f"WHERE {_IN_RANGE} AND (time < {first} OR time >= {last})"
    )


def _chosen_tier(table: Table, tiers: Sequence[Tier]) -> str:
    """The name of the tier that answers for the dashboard's range: a constant to ClickHouse."""
    kept = table.retention
    limits = ((Tier.RAW, RAW_RANGE, kept.raw), (Tier.MINUTE, MINUTE_RANGE, kept.minute))
    cases = [
        f"$__toTime - $__fromTime <= {int(width.total_seconds())} AND $__fromTime >= now() - INTERVAL {age.days} DAY, "
        f"'{tier.name}'"
        for tier, width, age in limits
        if tier in tiers
    ]
    return f"multiIf({', '.join(cases)}, '{Tier.HOUR.name}')"


def _of_raw(metric: Metric, statistic: Statistic) -> str:
    value = f"tier.{metric.name}"
    match statistic:
        case Statistic.MEAN:
            return f"avg({value})"
        case Statistic.LOWEST:
            return f"min({value})"
        case Statistic.HIGHEST | Statistic.WORST:
            return f"max({value})"
        case Statistic.TOTAL:
            return f"sum({value})"
        case Statistic.RISE:
            return f"max({value}) - min({value})"


def _of_rollup(metric: Metric, statistic: Statistic) -> str:
    value = f"tier.{metric.name}"
    bounded = metric.extremes or metric.kind is Kind.REGISTER
    match statistic:
        case Statistic.MEAN if metric.kind is Kind.GAUGE:
            return f"sum({value}_sum_raw) / nullIf(sum({value}_count), 0){_scale(metric)}"
        case Statistic.LOWEST if bounded:
            return f"min({value}_min)"
        case Statistic.HIGHEST if bounded:
            return f"max({value}_max)"
        case Statistic.TOTAL if metric.kind is Kind.DELTA:
            return f"sum({value})"
        case Statistic.RISE if metric.kind is Kind.REGISTER:
            return f"max({value}_max) - min({value}_min)"
        case Statistic.WORST if metric.kind is Kind.STATE:
            return f"max({value}_max_raw)"
    raise ValueError(f"the rollups keep no {statistic} of {metric.name}, a {metric.kind}; take another statistic")


def _scale(metric: Metric) -> str:
    """From stored counts to base units, by whole numbers: 700.0 W is not 699.9999999 W."""
    times, over = metric.resolution.numerator, metric.resolution.denominator
    return (f" * {times}" if times != 1 else "") + (f" / {over}" if over != 1 else "")


@dataclass(frozen=True, slots=True)
class Shown:
    """One column that people see: an expression over readings and places, under this name."""

    name: str
    expression: str

    @property
    def sql(self) -> str:
        return f'{self.expression} AS "{self.name}"'


def series(
    table: Table,
    readings: Sequence[Reading],
    scope: Scope,
    shown: Sequence[Shown],
    *,
    finest: Tier = Tier.RAW,
    during: str = "",
    bucket_s: int = 0,
    whole: bool = False,
) -> str:
    """A time series for each of `shown`, aggregates over the resources of each bucket.

    With `whole` a bucket that has only begun is left out: its amounts would look like a fall.
    A scope with roles offers `role`: sumIf(power, role = 'it').
    """
    inner = by_resource(table, readings, scope, finest=finest, during=during, bucket_s=bucket_s)
    ended = f"time + {bucket_seconds(bucket_s)} <= $__toTime OR $__toTime - $__fromTime < {2 * bucket_s}"
    return (
        f"SELECT bucket AS time, {columns_of(shown)}\nFROM (\n{inner}\n) AS reading{_joined(scope)}\n"
        f"GROUP BY time{f' HAVING {ended}' if whole else ''} ORDER BY time"
    )


def series_by(
    table: Table,
    readings: Sequence[Reading],
    scope: Scope,
    place: str,
    value: str,
    *,
    finest: Tier = Tier.RAW,
    at_most: int = 40,
) -> str:
    """One time series for each value of `place` (a column of the places): columns time, series, value.

    Beyond `at_most` series nobody tells lines apart: those of the alphabet's beginning are shown.
    """
    inner = by_resource(table, readings, scope, finest=finest)
    listed = f"SELECT DISTINCT {place} FROM ({scope.places}) ORDER BY {place} LIMIT {at_most}"
    return (
        f"SELECT bucket AS time, place.{place} AS series, {value} AS value\nFROM (\n{inner}\n) AS reading\n"
        f"INNER JOIN ({scope.places}) AS place ON place.resource = reading.resource\n"
        f"WHERE place.{place} IN ({listed})\nGROUP BY time, series ORDER BY time, series"
    )


def figures(
    table: Table,
    readings: Sequence[Reading],
    scope: Scope,
    shown: Sequence[Shown],
    *,
    finest: Tier = Tier.MINUTE,
    during: str = "",
) -> str:
    """One row over the whole range: aggregates over resources, each of which counts once."""
    inner = by_resource(table, readings, scope, finest=finest, bucketed=False, during=during)
    return f"SELECT {columns_of(shown)}\nFROM (\n{inner}\n) AS reading{_joined(scope)}"


def ratio(over: Summed, under: Summed, name: str) -> str:
    """One row: the sum of one table's readings over that of another's, means of the whole range."""
    parts = (_sum_of(summed, by_bucket=False) for summed in (over, under))
    over_sum, under_sum = parts
    return (
        f'SELECT over.amount / nullIf(under.amount, 0) AS "{name}"\n'
        f"FROM ({over_sum}) AS over\nCROSS JOIN ({under_sum}) AS under"
    )


def ratio_series(over: Summed, under: Summed, name: str) -> str:
    """As `ratio`, over time."""
    over_sum, under_sum = (_sum_of(summed, by_bucket=True) for summed in (over, under))
    return (
        f'SELECT bucket AS time, over.amount / nullIf(under.amount, 0) AS "{name}"\n'
        f"FROM ({over_sum}) AS over\nINNER JOIN ({under_sum}) AS under USING (bucket)\nORDER BY time"
    )


def _sum_of(summed: Summed, *, by_bucket: bool) -> str:
    inner = by_resource(summed.table, [summed.reading], summed.scope, bucketed=by_bucket)
    key, grouped_by = ("bucket, ", " GROUP BY bucket") if by_bucket else ("", "")
    return f"SELECT {key}sum({summed.reading}) AS amount FROM (\n{inner}\n){grouped_by}"


# A consistent estimate of the standard deviation from the median absolute deviation, for a normal distribution.
MAD_TO_SIGMA = 1.4826


def outliers(
    table: Table,
    scope: Scope,
    scores: Mapping[str, Reading],
    shown: Sequence[Shown],
    *,
    order: str,
    during: str = "",
    limit: int = 40,
) -> str:
    """Robust z-scores of each resource among all of the scope: (x - median) / (1.4826 MAD).

    `scores` names the column of each score. There is no score where the median deviation is zero: all are alike.
    """
    readings = list(scores.values())
    inner = by_resource(table, readings, scope, finest=Tier.MINUTE, bucketed=False, during=during)
    medians = ", ".join(f"median({one}) OVER () AS {one}_median" for one in readings)
    spreads = ", ".join(f"median(abs({one} - {one}_median)) OVER () AS {one}_spread" for one in readings)
    scored = ", ".join(
        f'({one} - {one}_median) / nullIf({MAD_TO_SIGMA} * {one}_spread, 0) AS "{name}"' for name, one in scores.items()
    )
    return (
        f'SELECT place.name AS "GPU", scored.* EXCEPT resource\nFROM (SELECT resource, {scored}, {columns_of(shown)}\n'
        f"FROM (SELECT *, {spreads} FROM (SELECT *, {medians} FROM (\n{inner}\n)))) AS scored\n"
        f"INNER JOIN ({Scope(scope.kinds).places}) AS place ON place.resource = scored.resource\n"
        f"ORDER BY {order} LIMIT {limit}"
    )


def latest(table: Table, readings: Sequence[Reading], scope: Scope, shown: Sequence[Shown]) -> str:
    """One row: aggregates over resources of their means in the last quarter hour of the range."""
    inner = _recent(table, readings, scope)
    return f"SELECT {columns_of(shown)}\nFROM (\n{inner}\n) AS reading{_joined(scope)}"


def listing(
    table: Table,
    readings: Sequence[Reading],
    scope: Scope,
    shown: Sequence[Shown],
    *,
    order: str,
    where: str = "1",
    limit: int = 100,
    now: bool = False,
    finest: Tier = Tier.MINUTE,
) -> str:
    """One row a resource over the whole range, or as of its end: what `shown` makes of readings and places."""
    inner = (
        _recent(table, readings, scope) if now else by_resource(table, readings, scope, finest=finest, bucketed=False)
    )
    return (
        f"SELECT {columns_of(shown)}\nFROM (\n{inner}\n) AS reading\n"
        f"INNER JOIN ({scope.places}) AS place ON place.resource = reading.resource\n"
        f"WHERE {where}\nORDER BY {order}\nLIMIT {limit}"
    )


def grouped(
    table: Table,
    readings: Sequence[Reading],
    scope: Scope,
    by: Sequence[Shown],
    shown: Sequence[Shown],
    *,
    order: str,
    limit: int = 2000,
    now: bool = False,
    finest: Tier = Tier.MINUTE,
) -> str:
    """One row a group of resources: `by` are expressions over places, `shown` aggregates over readings."""
    inner = (
        _recent(table, readings, scope) if now else by_resource(table, readings, scope, finest=finest, bucketed=False)
    )
    keys = ", ".join(f'"{key.name}"' for key in by)
    return (
        f"SELECT {columns_of([*by, *shown])}\nFROM (\n{inner}\n) AS reading\n"
        f"INNER JOIN ({scope.places}) AS place ON place.resource = reading.resource\n"
        f"GROUP BY {keys}\nORDER BY {order}\nLIMIT {limit}"
    )


# What is told by messages or by 5-minute agents must still be "now"; a tier's rows of the last quarter hour are few.
_NOW = "$__toTime - INTERVAL 15 MINUTE"


def _recent(table: Table, readings: Sequence[Reading], scope: Scope) -> str:
    """Means of the last quarter hour before the end of the range, from the minutes: one row a resource."""
    columns = ["tier.resource AS resource"]
    columns += [f"{reading.of_tier(Tier.MINUTE)} AS {reading}" for reading in readings]
    where = [f"tier.time > {_NOW} AND tier.time <= $__toTime"]
    if not scope.covers(table):
        where.append(f"tier.{scope.condition}")
    return (
        f"SELECT {', '.join(columns)}\nFROM {table.name}{Tier.MINUTE} AS tier\n"
        f"WHERE {' AND '.join(where)}\nGROUP BY resource"
    )


def _joined(scope: Scope) -> str:
    if not scope.roles and not scope.facts:
        return ""
    return f"\nINNER JOIN ({scope.places}) AS place ON place.resource = reading.resource"


RACKS_IN_A_ROW = 20  # where no inventory says how racks stand, rows are counted off


def floor_plan(table: Table, readings: Sequence[Reading], choices: tuple[Choice, ...], value: str) -> str:
    """Row, Column and value of every rack as it stands in its hall, in the order of names within a row.

    `value` is over `reading` and `standing`; of a table of GPUs or trays it has the mean of each rack.
    """
    scope = Scope((ResourceKind.RACK,), choices, facts=(Fact.NOMINAL_POWER,))
    line = "leftPad(toString(intDiv(standing.place - 1, 20) + 1), 2, '0')".replace("20", str(RACKS_IN_A_ROW))
    column = "leftPad(toString((standing.place - 1) % 20 + 1), 2, '0')".replace("20", str(RACKS_IN_A_ROW))
    standing = (
        f"SELECT *, row_number() OVER (PARTITION BY hall_name, row_name ORDER BY name) AS place FROM ({scope.places})"
    )
    return (
        f"SELECT concat(hall_name, if(row_name = '', '', concat(' ', row_name)), ' row ', {line}) AS \"Row\", "
        f'{column} AS "Column", {value} AS value\n'
        f"FROM ({standing}) AS standing\nLEFT JOIN (\n{_recent_of_racks(table, readings, choices)}\n) AS reading "
        'ON reading.resource = standing.resource\nORDER BY "Row", "Column"'
    )


def _recent_of_racks(table: Table, readings: Sequence[Reading], choices: tuple[Choice, ...]) -> str:
    scope = Scope(table.resources, choices)
    recent = _recent(table, readings, scope)
    if table.resources == (ResourceKind.RACK,):
        return recent
    means = ", ".join(f"avg(part.{reading}) AS {reading}" for reading in readings)
    return (
        f"SELECT place.rack AS resource, {means}\nFROM (\n{recent}\n) AS part\n"
        f"INNER JOIN ({scope.places}) AS place ON place.resource = part.resource\nGROUP BY resource"
    )


def elevation(table: Table, readings: Sequence[Reading], choices: tuple[Choice, ...], value: str) -> str:
    """Row, Column and value of every GPU of a rack: its trays from top to bottom, their GPUs from left to right.

    Trays go by the last level of their names: all are in one rack.
    """
    scope = Scope((ResourceKind.GPU,), choices)
    standing = f"SELECT *, row_number() OVER (PARTITION BY tray_name ORDER BY name) AS place FROM ({scope.places})"
    return (
        f"SELECT arrayElement(splitByString(' / ', tray_name), -1) AS \"Row\", "
        f"concat('GPU ', toString(standing.place - 1)) AS \"Column\", {value} AS value\n"
        f"FROM ({standing}) AS standing\nLEFT JOIN (\n{_recent(table, readings, scope)}\n) AS reading "
        'ON reading.resource = standing.resource\nORDER BY "Row", "Column"'
    )


def values_of(choice: Choice, narrowed_by: Sequence[Choice]) -> str:
    """The names that a variable offers, within what the variables before it chose."""
    scope = Scope((choice.kind,), tuple(narrowed_by))
    column = Place.NAME if choice.kind is ResourceKind.GPU else choice.column
    # The end of the range is no macro that variables have to offer: names of today.
    places = scope.places.replace("$__toTime", "now()")
    return f"SELECT DISTINCT {column} FROM ({places}) WHERE {column} != '' ORDER BY {column} LIMIT 5000"


def columns_of(shown: Sequence[Shown]) -> str:
    """What is shown, as the columns of a SELECT."""
    return ", ".join(one.sql for one in shown)


def texts(values: Sequence[str]) -> str:
    """A list of SQL literals; the values are ours, and still quoted."""
    return ", ".join(text(value) for value in values)


def text(value: str) -> str:
    """A SQL literal."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
