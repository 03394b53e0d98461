"""Stragglers: GPUs that stay away from what the other GPUs of the same job do; pure functions.

  z = (x - median) / max(1.4826 MAD, floor)
with median and median absolute deviation of the job's GPUs in one minute: the modified z-score of Iglewicz and
Hoaglin (1993), who take 3.5 as its limit. The floor is what the sensor resolves: among GPUs that all show one
clock the MAD is 0, and a single step would be infinitely far off.
"""

from enum import StrEnum

import polars as pl

from reports.efficiency_queries import (
    CLOCK_FLOOR_HERTZ,
    OUTLYING_Z,
    POWER_FLOOR_WATTS,
    ROBUST_SIGMA,
    TEMPERATURE_FLOOR_KELVIN,
)
from storage.reader import TIME, Schema

HITS, OF_WINDOWS = 3, 5

DEVIATIONS: Schema = {
    "job": pl.String(),
    "resource": pl.UInt64(),
    "signal": pl.String(),
    "windows": pl.UInt32(),
    "first": TIME,
    "last": TIME,
    "worst_z": pl.Float64(),
}


class Signal(StrEnum):
    """In what a GPU stays away from its job; only a low clock makes it slow."""

    SLOW = "low clock"
    FAST = "high clock"
    LOW_POWER = "low power"
    HIGH_POWER = "high power"
    COLD = "cold"
    HOT = "hot"


_SIGNALS = {
    "clock": (Signal.SLOW, Signal.FAST, CLOCK_FLOOR_HERTZ),
    "power": (Signal.LOW_POWER, Signal.HIGH_POWER, POWER_FLOOR_WATTS),
    "temperature": (Signal.COLD, Signal.HOT, TEMPERATURE_FLOOR_KELVIN),
}


def robust_z(value: pl.Expr, median: pl.Expr, mad: pl.Expr, floor: float) -> pl.Expr:
    """z = (x - median) / max(1.4826 MAD, floor), all in the unit of x."""
    return (value - median) / pl.max_horizontal(ROBUST_SIGMA * mad, pl.lit(floor))


def deviations(windows: pl.DataFrame, spacings: pl.DataFrame) -> pl.DataFrame:
    """DEVIATIONS: GPUs with |z| > 3.5 in one direction in 3 or more of 5 windows that follow one another.

    Input WINDOWS (those within the limits may be left out; repeats allowed) and JOB_WINDOWS, whose
    spacing_s says how far apart a job's windows are. `windows` counts all of a GPU's outlying ones.
    """
    spacing = spacings.group_by("job").agg(pl.col("spacing_s").min())
    whose = ["job", "resource", "signal"]
    third = pl.col("time").shift(1 - HITS).over(whose, order_by="time")
    close = (third - pl.col("time")).dt.total_milliseconds() <= (OF_WINDOWS - 1) * 1000 * pl.col("spacing_s")
    return (
        _outlying(windows.unique(["job", "time", "resource"]))
        .join(spacing, on="job")
        .with_columns(hit=close.fill_null(value=False))
        .group_by(whose)
        .agg(
            pl.col("hit").any(),
            windows=pl.len(),
            first=pl.col("time").min(),
            last=pl.col("time").max(),
            worst_z=pl.col("z").sort_by(pl.col("z").abs()).last(),
        )
        .filter("hit")
        .select(pl.col(name).cast(kind) for name, kind in DEVIATIONS.items())
        .sort("job", "resource", "signal")
    )


def slow_gpus(found: pl.DataFrame) -> pl.DataFrame:
    """The stragglers: job, resource, windows, first, last, worst_z (of the clock), signals, corroborated.

    A GPU with a low clock is a straggler where it also draws little (it is held down, or waits) or
    runs hot. A low clock alone is not corroborated: at the power cap it is normal.
    """
    slow = found.filter(pl.col("signal") == Signal.SLOW).drop("signal")
    beside = pl.col("signal").is_in([Signal.LOW_POWER.value, Signal.HOT.value]).any()
    all_signals = (
        found.sort("signal")
        .group_by("job", "resource")
        .agg(signals=pl.col("signal").str.join(", "), corroborated=beside)
    )
    return slow.join(all_signals, on=["job", "resource"]).sort("worst_z", "job", "resource")


def _outlying(windows: pl.DataFrame) -> pl.DataFrame:
    """job, time, resource, signal, z of what lies outside."""
    parts = []
    for name, (low, high, floor) in _SIGNALS.items():
        z = robust_z(pl.col(name), pl.col(f"{name}_median"), pl.col(f"{name}_mad"), floor)
        signal = pl.when(z < 0).then(pl.lit(low.value)).otherwise(pl.lit(high.value))
        parts.append(
            windows.select("job", "time", "resource", signal=signal, z=z).filter(pl.col("z").abs() > OUTLYING_Z)
        )
    return pl.concat(parts)
