"""Ramps and steps of the site's power, as a grid operator sees them; pure functions.

A ramp is the difference of the mean powers of two minutes that follow one another, in W per minute. A step is a
change of more than a tenth within 1 to 10 s, which only readings that are at most 10 s apart can show.
"""

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from reports.period import Period

MINUTE_S = 60.0
LONGEST_STEP_S = 10.0
STEP_SHARE = 0.10


@dataclass(frozen=True, slots=True)
class Ramp:
    """A change of power: watts a minute (or watts, of a step), signed, and the local time at which it ended."""

    watts: float
    time: datetime


@dataclass(frozen=True, slots=True)
class Swings:
    """The ramps of a period. `coverage` is the share of minutes that could be compared; `typical` the 95th percentile
    of their sizes."""

    rise: Ramp | None
    fall: Ramp | None
    typical_watts: float | None
    coverage: float


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of a period. `interval_s` is how far apart readings are as a rule, absent without any."""

    count: int
    largest: Ramp | None
    interval_s: float | None
    coverage: float


def swings(minutes: pl.DataFrame, meters: int, period: Period) -> Swings:
    """Ramps between means of minutes. Input SITE_POWER; minutes in which a meter is silent are left out."""
    whole = _whole(minutes, meters)
    gap_s = _seconds(pl.col("time") - pl.col("time").shift())
    ramps = whole.select("time", watts=pl.col("watts").diff(), gap_s=gap_s).filter(pl.col("gap_s") == MINUTE_S)
    coverage = min(1.0, ramps.height * MINUTE_S / (period.seconds - MINUTE_S))
    if ramps.is_empty():
        return Swings(None, None, None, 0.0)
    rise, fall = (ramps.sort(["watts", "time"], descending=[down, False]).row(0, named=True) for down in (True, False))
    return Swings(
        rise=Ramp(rise["watts"], period.local(rise["time"])) if rise["watts"] > 0 else None,
        fall=Ramp(fall["watts"], period.local(fall["time"])) if fall["watts"] < 0 else None,
        typical_watts=float(ramps.select(pl.col("watts").abs().quantile(0.95, "nearest")).item()),
        coverage=coverage,
    )


def steps(raw: pl.DataFrame, meters: int, period: Period) -> Steps:
    """Steps between readings 1 to 10 s apart. Input SITE_POWER of instants.

    Each reading is compared with the one before it and with the oldest within 10 s, so that a change
    over several readings counts, too; readings that follow each other in one step count once.
    """
    whole = _whole(raw, meters)
    gaps = whole.select(gap_s=_seconds(pl.col("time").diff())).drop_nulls()
    if gaps.is_empty():
        return Steps(0, None, None, 0.0)
    interval_s = float(gaps.select(pl.col("gap_s").median()).item())
    if interval_s > LONGEST_STEP_S:
        return Steps(0, None, interval_s, 0.0)
    seen_s = float(gaps.filter(pl.col("gap_s") <= LONGEST_STEP_S)["gap_s"].sum())
    changes = _changes(whole)
    found = changes.filter(pl.col("share").abs() > STEP_SHARE).sort("time")
    apart = _seconds(pl.col("time").diff()).fill_null(2 * LONGEST_STEP_S) > LONGEST_STEP_S
    largest = found.sort([pl.col("share").abs(), "time"], descending=[True, False]).head(1)
    return Steps(
        count=int(found.select(apart.sum()).item()),
        largest=None if largest.is_empty() else Ramp(largest["watts"][0], period.local(largest["time"][0])),
        interval_s=interval_s,
        coverage=min(1.0, seen_s / period.seconds),
    )


def _whole(power: pl.DataFrame, meters: int) -> pl.DataFrame:
    return power.filter(pl.col("meters") >= meters).unique("time").sort("time")


def _changes(whole: pl.DataFrame) -> pl.DataFrame:
    """time, watts, share: against the reading before, and against the oldest within 10 s."""
    before = whole.select(
        "time", watts=pl.col("watts").diff(), base=pl.col("watts").shift(), since=pl.col("time").shift()
    )
    oldest = whole.with_columns(_at=pl.col("time") - pl.duration(milliseconds=round(LONGEST_STEP_S * 1000)))
    earlier = whole.select(since="time", base="watts")
    across = oldest.join_asof(earlier, left_on="_at", right_on="since", strategy="forward").select(
        "time", watts=pl.col("watts") - pl.col("base"), base="base", since="since"
    )
    both = pl.concat([before, across.select("time", "watts", "base", "since")]).drop_nulls()
    gap_s = _seconds(pl.col("time") - pl.col("since"))
    return both.filter(gap_s >= 1, gap_s <= LONGEST_STEP_S, pl.col("base") > 0).select(
        "time", "watts", share=pl.col("watts") / pl.col("base")
    )


def _seconds(duration: pl.Expr) -> pl.Expr:
    return duration.dt.total_milliseconds() / 1000
