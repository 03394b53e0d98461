"""ClickHouse DDL derived from the catalogue: raw table, one-minute rollup and its view, hour table.

What is rendered here is committed as a migration; a test replays all migrations and compares the
result with what the catalogue says today.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from catalogue import Kind, Metric, Table

# The log of insert tokens must outlive the longest outage; see docs/adr/0003-exactly-once.md.
DEDUPLICATION_WINDOW = 50_000
# Of raw tables. 64 KiB, the engine's default, hold too few GPUs' quarter hours to learn from: 16 % more bytes.
COMPRESS_BLOCK_BYTES = 1 << 20

RESOURCE = "    resource UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'Identity of the resource, see inventory'"
TIME = "    time DateTime('UTC') CODEC(Delta, ZSTD(1)) COMMENT '{}'"


@dataclass(frozen=True, slots=True)
class Column:
    """One stored column of a rollup: its name, type and codec, and how the tiers compute it.

    `from_raw` aggregates raw rows into a minute, `from_minutes` minutes into an hour.
    """

    name: str
    type: str
    codec: str
    comment: str
    from_raw: str
    from_minutes: str
    mergeable: str


def raw_table(table: Table) -> str:
    """CREATE TABLE of the tier that holds every reading."""
    columns = [RESOURCE, TIME.format("Tick of the reading, aligned to the interval")]
    columns += [
        f"    {m.column} {m.stored.clickhouse} CODEC({m.codec}) COMMENT {quote(m.comment)}" for m in table.metrics
    ]
    columns += [f"    {_alias(m)} COMMENT {quote(m.brief)}" for m in table.metrics]
    return _create(
        table.name,
        columns,
        "MergeTree",
        # The time stays out of the primary key: with it ClickHouse prunes by time alone, not by bucket.
        "PARTITION BY toDate(time)\n"
        "PRIMARY KEY (toStartOfFifteenMinutes(time), resource)\n"
        "ORDER BY (toStartOfFifteenMinutes(time), resource, time)",
        table.retention.raw.days,
        f"{table.brief}, every tick",
        f", min_compress_block_size = {COMPRESS_BLOCK_BYTES}, max_compress_block_size = {COMPRESS_BLOCK_BYTES}",
    )


def minute_table(table: Table) -> str:
    """CREATE TABLE of the one-minute rollup, filled by the view as rows arrive."""
    columns = [RESOURCE, TIME.format("Start of the minute"), _row_count("sum, UInt64")]
    for metric in table.metrics:
        columns += [
            f"    {c.name} {c.mergeable} CODEC({c.codec}) COMMENT {quote(c.comment)}" for c in rollup_columns(metric)
        ]
    columns += list(_rollup_aliases(table))
    return _create(
        f"{table.name}_1m",
        columns,
        "AggregatingMergeTree",
        # By hours, as raw is by quarters: what all resources did lately is read without the rest of the week.
        "PARTITION BY toMonday(time)\n"
        "PRIMARY KEY (toStartOfHour(time), resource)\n"
        "ORDER BY (toStartOfHour(time), resource, time)",
        table.retention.minute.days,
        f"{table.brief}, by minute; rows of one minute may still be apart: sum them",
    )


def minute_view(table: Table) -> str:
    """CREATE MATERIALIZED VIEW from raw to minute."""
    parts = ["    resource", "    toStartOfMinute(raw.time) AS time", "    count() AS row_count"]
    for metric in table.metrics:
        parts += [f"    {c.from_raw} AS {c.name}" for c in rollup_columns(metric)]
    select = ",\n".join(parts)
    return (
        f"CREATE MATERIALIZED VIEW IF NOT EXISTS {table.name}_to_1m TO {table.name}_1m AS\n"
        f"SELECT\n{select}\nFROM {table.name} AS raw\nGROUP BY resource, time"
    )


def hour_table(table: Table) -> str:
    """CREATE TABLE of the hour tier; a recomputation replaces what it computed before."""
    columns = [
        RESOURCE,
        TIME.format("Start of the hour"),
        "    computed_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'The latest computation wins'",
        "    row_count UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Raw rows'",
    ]
    for metric in table.metrics:
        columns += [
            f"    {c.name} {c.type} CODEC({c.codec}) COMMENT {quote(c.comment)}" for c in rollup_columns(metric)
        ]
    columns += list(_rollup_aliases(table))
    return _create(
        f"{table.name}_1h",
        columns,
        "ReplacingMergeTree(computed_at)",
        "PARTITION BY toYear(time)\nPRIMARY KEY (toDate(time), resource)\nORDER BY (toDate(time), resource, time)",
        table.retention.hour.days,
        f"{table.brief}, by hour; read it with FINAL",
    )


def hour_insert(table: Table) -> str:
    """INSERT that recomputes the hours from `first` up to `last`, both included, as of `computed_at`: parameters."""
    columns = [c for metric in table.metrics for c in rollup_columns(metric)]
    names = ", ".join(["resource", "time", "computed_at", "row_count", *(c.name for c in columns)])
    parts = [
        "minutes.resource",
        "toStartOfHour(minutes.time) AS hour",
        "{computed_at:DateTime64(3, 'UTC')}",
        "sum(minutes.row_count)",
    ]
    parts += [c.from_minutes for c in columns]
    return (
        f"INSERT INTO {table.name}_1h ({names})\nSELECT\n    "
        + ",\n    ".join(parts)
        + f"\nFROM {table.name}_1m AS minutes\n"
        "WHERE minutes.time >= {first:DateTime('UTC')} AND minutes.time < {last:DateTime('UTC')} + INTERVAL 1 HOUR\n"
        "GROUP BY minutes.resource, hour"
    )


def rollup_columns(metric: Metric) -> Iterator[Column]:
    """The stored columns that a metric has in the rollup tiers.

    Gauges keep sum and count, so that means stay exact at every tier; the minimum of nothing is
    NULL. Deltas keep their sum and count. Registers keep first and last by their order, states
    their worst, masks their union.
    """
    raw, present = f"raw.{metric.column}", f"raw.{metric.column} != {metric.stored.absent}"
    if metric.kind in (Kind.GAUGE, Kind.DELTA):
        yield _plain(metric, "sum_raw", metric.stored.wide, "sum", f"sumIf({raw}, {present})", metric.codec)
        # Counts are nearly constant; Delta keeps them at almost nothing.
        yield _plain(metric, "count", "UInt64", "sum", f"countIf({present})", "Delta, ZSTD(3)")
    if metric.extremes or metric.kind is Kind.REGISTER:
        nullable = f"Nullable({metric.stored.clickhouse})"
        yield _plain(metric, "min_raw", nullable, "min", f"minOrNullIf({raw}, {present})", metric.codec)
        yield _plain(metric, "max_raw", nullable, "max", f"maxOrNullIf({raw}, {present})", metric.codec)
    if metric.kind is Kind.STATE:
        nullable = f"Nullable({metric.stored.clickhouse})"
        yield _plain(metric, "max_raw", nullable, "max", f"maxOrNullIf({raw}, {present})", metric.codec)
    if metric.kind is Kind.BITS:
        nullable = f"Nullable({metric.stored.clickhouse})"
        yield _plain(metric, "or_raw", nullable, "groupBitOr", f"groupBitOrOrNullIf({raw}, {present})", metric.codec)
    if metric.sketch:
        yield _sketch(metric, raw, present)


def _plain(metric: Metric, part: str, type_name: str, function: str, from_raw: str, codec: str) -> Column:
    name = f"{metric.name}_{part}"
    return Column(
        name=name,
        type=type_name,
        codec=codec,
        comment=f"{metric.brief}: {function if part != 'count' else 'count of readings'}",
        from_raw=from_raw,
        from_minutes=f"{function}(minutes.{name})",
        mergeable=f"SimpleAggregateFunction({function}, {type_name})",
    )


def _sketch(metric: Metric, raw: str, present: str) -> Column:
    # DDSketch with 1 % relative error: the smallest of the sketches measured (docs/adr/0002-the-frame.md).
    state = f"AggregateFunction(quantileDD(0.01, 0.5), {metric.stored.clickhouse})"
    name = f"{metric.name}_sketch"
    return Column(
        name=name,
        type=state,
        codec="ZSTD(3)",
        comment=f"{metric.brief}: quantile sketch of the stored counts",
        # The filter is in the argument: -If with -State over DD needs the same state type.
        from_raw=f"quantileDDStateIf(0.01, 0.5)({raw}, {present})",
        from_minutes=f"quantileDDMergeState(0.01, 0.5)(minutes.{name})",
        mergeable=state,
    )


def _row_count(aggregate: str) -> str:
    return f"    row_count SimpleAggregateFunction({aggregate}) CODEC(Delta, ZSTD(3)) COMMENT 'Raw rows'"


def _rollup_aliases(table: Table) -> Iterator[str]:
    for metric in table.metrics:
        scale = _scale(metric.resolution)
        if metric.kind is Kind.GAUGE:
            mean = f"{metric.name}_sum_raw / {metric.name}_count{scale}"
            value = f"if({metric.name}_count = 0, NULL, {mean})"
            yield f"    {metric.name} Nullable(Float64) ALIAS {value} COMMENT {quote(metric.brief + ', mean')}"
        if metric.kind is Kind.DELTA:
            value = f"if({metric.name}_count = 0, NULL, {metric.name}_sum_raw{scale})"
            yield f"    {metric.name} Nullable(Float64) ALIAS {value} COMMENT {quote(metric.brief + ', sum')}"
        if metric.extremes or metric.kind is Kind.REGISTER:
            for part, word in (("min", "lowest"), ("max", "highest")):
                value = f"{_widened(metric, f'{metric.name}_{part}_raw')}{scale}"
                comment = quote(f"{metric.brief}, {word}")
                yield f"    {metric.name}_{part} Nullable(Float64) ALIAS {value} COMMENT {comment}"


def _alias(metric: Metric) -> str:
    raw, absent = metric.column, metric.stored.absent
    if metric.kind in (Kind.STATE, Kind.BITS):
        return f"{metric.name} Nullable({metric.stored.clickhouse}) ALIAS nullIf({raw}, {absent})"
    value = _widened(metric, f"nullIf({raw}, {absent})")
    return f"{metric.name} Nullable(Float64) ALIAS {value}{_scale(metric.resolution)}"


def _widened(metric: Metric, value: str) -> str:
    """The value as a float where it has 64 bits: multiplied as a whole number it could wrap."""
    return f"toFloat64({value})" if metric.stored.bits == 64 and metric.resolution != 1 else value


def _scale(resolution: Fraction) -> str:
    """Multiply and divide by whole numbers, so that 700.0 W is not 699.9999999 W."""
    times = f" * {resolution.numerator}" if resolution.numerator != 1 else ""
    over = f" / {resolution.denominator}" if resolution.denominator != 1 else ""
    return f"{times}{over}" or " * 1."


def _create(
    name: str, columns: list[str], engine: str, keys: str, ttl_days: int, comment: str, settings: str = ""
) -> str:
    body = ",\n".join(columns)
    return (
        f"CREATE TABLE IF NOT EXISTS {name}\n(\n{body}\n)\nENGINE = {engine}\n{keys}\n"
        f"TTL time + INTERVAL {ttl_days} DAY DELETE\n"
        f"SETTINGS non_replicated_deduplication_window = {DEDUPLICATION_WINDOW}, ttl_only_drop_parts = 1{settings}\n"
        f"COMMENT {quote(comment)}"
    )


def quote(text: str) -> str:
    """A ClickHouse string literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
