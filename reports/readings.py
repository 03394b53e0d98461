"""What the ledger is given: readings, meters and exchanges of meters; and what each must look like.

Units: energy in J, power in W, time in s; a frame's `time` is UTC.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

import polars as pl

from catalogue.facility import QUALITY_STATES

TIME = pl.Datetime("ms", "UTC")
Schema = Mapping[str, pl.DataType]

READINGS: Schema = {
    "resource": pl.UInt64(),
    "time": TIME,
    "register_joules": pl.Float64(),
    "quality_state": pl.UInt8(),
}
# Columns that a frame may lack; they are then absent in every row.
READINGS_MAY_HAVE: Schema = {"power_watts": pl.Float64()}  # what the same meter draws, positive towards the load

METERS: Schema = {
    "resource": pl.UInt64(),
    "modulus_joules": pl.Float64(),  # where the register starts again from 0
    "ceiling_watts": pl.Float64(),  # no step may exceed it; absent for no check
    "interval_s": pl.Float64(),  # declared; absent to take it from the readings
}
METERS_MAY_HAVE: Schema = {
    "resolution_joules": pl.Float64(),  # smallest step of the register: its last digit, or a float32's
    "frozen_above_watts": pl.Float64(),  # a register must count while more than this flows
    "sampling": pl.String(),  # one of Sampling; absent for polled
}
EXCHANGES: Schema = {
    "resource": pl.UInt64(),
    "time": TIME,  # when the new meter took over
    "start_joules": pl.Float64(),  # the new register at that time; absent when nobody wrote it down
    "final_joules": pl.Float64(),  # the old register at that time
}
SERIALS: Schema = {
    "resource": pl.UInt64(),
    "source": pl.UInt64(),  # who says so: two who write it differently are no exchange
    "valid_from": TIME,
    "serial": pl.String(),
    "start_joules": pl.Float64(),
    "final_joules": pl.Float64(),
}

# Of a meter with a single reading, of which no interval can be told.
UNKNOWN_INTERVAL_S = 60.0

QUALITY = {name: value for value, name in QUALITY_STATES}


class Sampling(StrEnum):
    """How a power value comes: read at every interval, or sent when it changed and then standing until the next."""

    POLLED = "polled"
    ON_CHANGE = "on change"


def expect(frame: pl.LazyFrame, schema: Schema, may_have: Schema | None = None) -> pl.LazyFrame:
    """The frame with the columns of both schemas; others are ignored.

    A column of `may_have` that the frame lacks is absent in every row. Raises TypeError for one of
    another type, or one of `schema` that is missing.
    """
    found, may_have = frame.collect_schema(), may_have or {}
    for name, wanted in {**schema, **may_have}.items():
        if found.get(name) != wanted and (name in schema or name in found):
            raise TypeError(f"column {name} is {found.get(name, 'missing')}; the ledger needs {wanted}")
    lacking = [pl.lit(None, wanted).alias(name) for name, wanted in may_have.items() if name not in found]
    return frame.select(*schema, *(name for name in may_have if name in found), *lacking)


def has_power(readings: pl.LazyFrame) -> bool:
    return "power_watts" in readings.collect_schema()


def is_usable(value: str) -> pl.Expr:
    """Whether a reading's value is there and not bad."""
    quality = pl.col("quality_state")
    return pl.col(value).is_finite() & (quality.is_null() | (quality != QUALITY["bad"]))


def usable(readings: pl.LazyFrame, meters: pl.LazyFrame, value: str) -> pl.LazyFrame:
    """Usable readings of known meters: one for each meter and time, in order."""
    return (
        readings.join(meters.select("resource"), on="resource", how="semi")
        .filter(is_usable(value))
        .group_by("resource", "time")
        .agg(pl.col(value, "quality_state").max())
        .sort("resource", "time")
    )


def with_interval(readings: pl.LazyFrame, meters: pl.LazyFrame) -> pl.LazyFrame:
    """Readings with their nominal interval_s: declared, else the median of the meter's UTC day.

    By day, because a meter may have been backfilled at one pace and be read live at another.
    """
    pace = seconds(pl.col("time").diff().over("resource"))
    declared = meters.select("resource", declared_s="interval_s")
    return (
        readings.with_columns(pace_s=pace)
        .with_columns(
            day_s=pl.col("pace_s").median().over("resource", pl.col("time").dt.truncate("1d")),
            always_s=pl.col("pace_s").median().over("resource"),
        )
        .join(declared, on="resource", how="left")
        .with_columns(interval_s=pl.coalesce("declared_s", "day_s", "always_s", pl.lit(UNKNOWN_INTERVAL_S)))
        .drop("pace_s", "day_s", "always_s", "declared_s")
    )


def exchanges_of(serials: pl.LazyFrame) -> pl.LazyFrame:
    """EXCHANGES from the history of serial numbers (SERIALS, any order): each change that one source tells.

    The first serial of a meter, and one that is empty or said again, is no exchange.
    """
    told = expect(serials, SERIALS).filter(pl.col("serial").str.len_chars() > 0)
    before = pl.col("serial").shift().over("resource", "source")
    return (
        told.group_by("resource", "source", "valid_from")
        .agg(pl.all().max())
        .sort("resource", "source", "valid_from")
        .filter(pl.col("serial") != before)
        .select("resource", "start_joules", "final_joules", time="valid_from")
        .select(*EXCHANGES)
    )


def sound(frame: pl.LazyFrame, schema: Schema, *, with_zero: bool) -> pl.LazyFrame:
    """The frame with numbers that are no amounts (negative, infinite, NaN) as absent: they come from free text.

    So is 0 unless `with_zero`: firmware says 0 where it does not know its own rating.
    """
    amounts = [name for name, kind in schema.items() if kind == pl.Float64()]
    least = pl.col(amounts) >= 0 if with_zero else pl.col(amounts) > 0
    return frame.with_columns(pl.when(pl.col(amounts).is_finite() & least).then(pl.col(amounts)))


def is_estimated() -> pl.Expr:
    """Whether the source itself calls the reading an estimate."""
    return (pl.col("quality_state") == QUALITY["estimated"]).fill_null(value=False)


def seconds(duration: pl.Expr) -> pl.Expr:
    return duration.dt.total_milliseconds() / 1000


def moment(value: datetime) -> pl.Expr:
    return pl.lit(value, dtype=TIME)
