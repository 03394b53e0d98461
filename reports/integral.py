"""Energy from power readings: where there is no register, and where a register does not tell.

Every stretch of time is either covered by readings or missing. What is missing is never integrated.
"""

import polars as pl

from reports.curve import interpolate
from reports.readings import (
    METERS,
    METERS_MAY_HAVE,
    READINGS,
    READINGS_MAY_HAVE,
    Sampling,
    expect,
    is_estimated,
    seconds,
    usable,
    with_interval,
)

# A longer way between two polled readings is a gap, of which the profile is not known.
GAP_INTERVALS = 3
# DSX Exchange republishes every 100 s: a point that was silent for three of them no longer stands.
LONGEST_HOLD_S = 300.0
# Where a meter neither has a rating nor states its own: below, a register that stands still proves nothing.
FROZEN_ABOVE_WATTS = 1_000.0

POWER_TOTALS = ("power_joules", "power_s", "above_joules", "above_s")


def power_steps(readings: pl.LazyFrame, meters: pl.LazyFrame) -> pl.LazyFrame:
    """Energy between power readings of each meter.

    Input READINGS with power_watts, and METERS. Output, sorted by resource and start: resource,
    start, time, interval_s, joules, covered, watts, duration_s, estimated.

    For readings P0 at t0 and P1 at t1, negative ones taken as 0 and those above ceiling_watts left out:
      polled:     joules = (P0 + P1) / 2 · (t1 - t0)   when t1 - t0 <= 3 intervals
      on change:  joules = P0 · min(t1 - t0, 300 s)
    The rest of the time is not covered; its joules are then what the same rule would give, for those
    who want to fill it.
    """
    readings, meters = expect(readings, READINGS, READINGS_MAY_HAVE), expect(meters, METERS, METERS_MAY_HAVE)
    # Each pair is cut where its readings no longer reach: what is covered, then what is not.
    parts = pl.LazyFrame({"covered": [True, False]})
    covered, cut = pl.col("covered"), pl.col("start") + _duration("reach_s")
    part_s = pl.when(covered).then("reach_s").otherwise(pl.col("duration_s") - pl.col("reach_s"))
    return (
        _pairs(readings, meters)
        .join(parts, how="cross")
        .with_columns(duration_s=part_s, cut=cut)
        .filter(pl.col("duration_s") > 0)
        .select(
            "resource",
            "interval_s",
            "covered",
            "watts",
            "duration_s",
            "estimated",
            start=pl.when(covered).then("start").otherwise("cut"),
            time=pl.when(covered).then("cut").otherwise("time"),
            joules=pl.col("watts") * pl.col("duration_s"),
        )
        .sort("resource", "start")
    )


def with_power(points: pl.LazyFrame, power: pl.LazyFrame, meters: pl.LazyFrame) -> pl.LazyFrame:
    """`points` (resource, time and what else they have) with the running totals of power at them.

    `power` as from `power_steps`. power_joules over power_s of covered time; above_joules and above_s
    over the part of it in which more flowed than a register may miss.
    """
    threshold = meters.select("resource", "frozen_above_watts")
    above = pl.col("watts") > pl.col("frozen_above_watts").fill_null(FROZEN_ABOVE_WATTS)
    totals = (
        power.filter("covered")
        .join(threshold, on="resource", how="left")
        .select(
            "resource",
            "start",
            "time",
            power_joules="joules",
            power_s="duration_s",
            above_joules=pl.when(above).then("joules").otherwise(0.0),
            above_s=pl.when(above).then("duration_s").otherwise(0.0),
        )
    )
    return interpolate(totals, points, POWER_TOTALS)


def _duration(seconds: str) -> pl.Expr:
    return pl.duration(milliseconds=(pl.col(seconds) * 1000).round().cast(pl.Int64), time_unit="ms")


def _pairs(readings: pl.LazyFrame, meters: pl.LazyFrame) -> pl.LazyFrame:
    """Each power reading with the one before: start, time, duration_s, reach_s that it covers, watts over it."""
    rated = meters.select("resource", "ceiling_watts", "sampling")
    plausible = pl.col("ceiling_watts").is_null() | (pl.col("power_watts") <= pl.col("ceiling_watts"))
    known = usable(readings, meters, "power_watts").join(rated, on="resource").filter(plausible)
    held = (pl.col("sampling") == Sampling.ON_CHANGE.value).fill_null(value=False)
    before, now = pl.col("before"), pl.col("power_watts")
    longest_s = GAP_INTERVALS * pl.col("interval_s")
    reach = pl.when(pl.col("duration_s") <= longest_s).then("duration_s").otherwise(0.0)
    return (
        with_interval(known.with_columns(now.clip(lower_bound=0.0)), meters)
        .sort("resource", "time")
        .with_columns(start=pl.col("time").shift().over("resource"), before=now.shift().over("resource"))
        .drop_nulls("start")
        .with_columns(duration_s=seconds(pl.col("time") - pl.col("start")), estimated=is_estimated())
        .with_columns(
            reach_s=pl.when(held).then(pl.col("duration_s").clip(upper_bound=LONGEST_HOLD_S)).otherwise(reach),
            watts=pl.when(held).then(before).otherwise((before + now) / 2),
        )
    )
