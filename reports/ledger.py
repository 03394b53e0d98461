"""Energy from cumulative registers: pure functions over frames, no input or output.

A register's readings become steps (what was counted between two readings), steps become a curve
(the running total of each meter), and the curve is read at quarter hours by linear interpolation.
Energy over any period is the difference of two points on the curve, so that periods add up.

Units: energy in J, time in s; a frame's `time` is UTC. PUE and its kin are ratios of energies over the
same period, never of averaged power (ISO/IEC 30134-2), which is why all of this is about energy.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum

import polars as pl

from catalogue.facility import QUALITY_STATES
from reports.period import QUARTER_S, Period

TIME = pl.Datetime("ms", "UTC")

READINGS: Mapping[str, pl.DataType] = {
    "resource": pl.UInt64(),
    "time": TIME,
    "register_joules": pl.Float64(),
    "quality_state": pl.UInt8(),
}
METERS: Mapping[str, pl.DataType] = {
    "resource": pl.UInt64(),
    "modulus_joules": pl.Float64(),  # where the register starts again from 0
    "ceiling_watts": pl.Float64(),  # no step may exceed it; absent for no check
    "interval_s": pl.Float64(),  # declared; absent to take it from the readings
}

# A step over more than three intervals is a gap: the register gives its energy, not its profile.
GAP_INTERVALS = 3
# A register that fell from its last hundredth into its first has rolled over.
ROLLOVER_SHARE = 0.01
# A quarter hour that a gap touches cannot be the peak: the gap's energy is spread evenly into it.
PEAK_COVERAGE = 0.999
# Of a meter with a single reading, of which no interval can be told.
UNKNOWN_INTERVAL_S = 60.0
# Differences of running totals over years carry this much rounding, in seconds.
_ROUNDING_S = 1e-3

_QUALITY = {name: value for value, name in QUALITY_STATES}


class Flag(StrEnum):
    """What was not plain about a step."""

    RESET = "reset"
    ROLLOVER = "rollover"
    IMPLAUSIBLE = "implausible"
    GAP = "gap"
    EDGE = "gap at the period's edge"


_PLAIN = "plain"


def steps(readings: pl.LazyFrame, meters: pl.LazyFrame) -> pl.LazyFrame:
    """What each meter counted between each reading and the one before.

    Input READINGS and METERS, in any order, repeats allowed. Output, sorted by resource and time:
    resource, start, time, kind, interval_s, joules, gap, observed_s, known_s, estimated_joules.

    For readings R0 at t0 and R1 at t1, modulus M:
      joules = R1 - R0                 when that is not negative
             = R1 - R0 + M             rollover: R0 >= 0.99 M and R1 <= 0.01 M
             = R1                      reset: counted again from 0; what was counted before is lost
             = 0, and not known        implausible: more than ceiling_watts allow in t1 - t0
      observed_s = min(t1 - t0, 3 intervals)
      estimated_joules = joules of resets and of readings that their source estimated
    """
    _expect(readings, READINGS)
    _expect(meters, METERS)
    rated = meters.select("resource", "modulus_joules", "ceiling_watts")
    usable = _with_interval(_usable(readings, meters), meters).join(rated, on="resource")
    known = pl.col("kind") != Flag.IMPLAUSIBLE.value
    longest_s = GAP_INTERVALS * pl.col("interval_s")
    return _judged(_paired(_without_spikes(usable))).select(
        "resource",
        "start",
        "time",
        "kind",
        "interval_s",
        joules=pl.when(known).then("joules").otherwise(0.0),
        gap=pl.col("duration_s") > longest_s,
        observed_s=pl.when(known).then(pl.min_horizontal("duration_s", longest_s)).otherwise(0.0),
        known_s=pl.when(known).then("duration_s").otherwise(0.0),
        estimated_joules=pl.when(known & _is_estimated()).then("joules").otherwise(0.0),
    )


def mark_edges(steps: pl.LazyFrame, period: Period) -> pl.LazyFrame:
    """Steps, with gaps across the period's bounds as EDGE: how much fell inside is an estimate."""
    across = [
        (pl.col("start") < _moment(bound)) & (pl.col("time") > _moment(bound)) for bound in (period.start, period.end)
    ]
    edge = pl.col("gap") & pl.any_horizontal(across) & (pl.col("kind") == _PLAIN)
    return steps.with_columns(
        kind=pl.when(edge).then(pl.lit(Flag.EDGE.value)).otherwise("kind"),
        estimated_joules=pl.when(edge).then("joules").otherwise("estimated_joules"),
    )


def quarters(steps: pl.LazyFrame, meters: pl.LazyFrame, period: Period) -> pl.LazyFrame:
    """Energy of each meter in each quarter hour of the period.

    Output: resource, time (start of the quarter hour), joules (absent where nothing is known),
    whole (all of it is known), observed_s, estimated_joules. The running totals E(t) are
    interpolated linearly at the quarter hours: joules = E(t + 900 s) - E(t). Before a meter's first
    reading and after its last, and where every step is implausible, the energy is not known, which
    is not the same as 0.
    """
    edges = meters.select("resource").join(period.edges(), how="cross")
    at_edges = _interpolate(_curve(steps), edges)
    differences = {name: pl.col(name).shift(-1).over("resource") - pl.col(name) for name in _TOTALS}
    return (
        at_edges.with_columns(**differences)
        .filter(pl.col("time") < _moment(period.end))
        .select(
            "resource",
            "time",
            joules=pl.when(pl.col("known_s") > 0).then("joules"),
            whole=pl.col("known_s").fill_null(0.0) > QUARTER_S - _ROUNDING_S,
            observed_s=pl.col("observed_s").fill_null(0.0).clip(0.0, QUARTER_S),
            estimated_joules=pl.col("estimated_joules").fill_null(0.0),
        )
    )


def flags(steps: pl.LazyFrame, period: Period) -> pl.LazyFrame:
    """What was not plain within the period: resource, start, time, flag, joules, in order of start."""
    within = steps.filter(pl.col("time") > _moment(period.start), pl.col("start") < _moment(period.end))
    columns = ("resource", "start", "time", "flag", "joules")
    events = within.filter(pl.col("kind") != _PLAIN).with_columns(flag="kind").select(columns)
    # A gap may hold a reset: then it is both.
    gaps = within.filter(pl.col("gap"), pl.col("kind") != Flag.EDGE.value)
    gaps = gaps.with_columns(flag=pl.lit(Flag.GAP.value)).select(columns)
    return pl.concat([events, gaps]).sort("start", "resource", "flag")


def by_meter(quarters: pl.LazyFrame) -> pl.LazyFrame:
    """Each meter over all the quarter hours: resource, joules, coverage, share_estimated.

    coverage = observed seconds / seconds; share_estimated = estimated J / J.
    """
    return (
        quarters.group_by("resource")
        .agg(
            joules=sum_of_known("joules"),
            coverage=pl.col("observed_s").sum() / (pl.len() * QUARTER_S),
            share_estimated=_share_estimated(),
        )
        .sort("resource")
    )


def by_role(quarters: pl.LazyFrame, roles: pl.LazyFrame) -> pl.LazyFrame:
    """Meters of one role added up in each quarter hour: role, time, joules, observed_s, estimated_joules.

    `roles`: resource, role. joules is absent unless all of the quarter hour is known of every
    meter of the role: a sum that lacks a meter is no sum. observed_s is that of the meter that was
    observed least.
    """
    return (
        quarters.join(roles, on="resource")
        .group_by("role", "time")
        .agg(
            joules=pl.when(pl.col("whole").all()).then(pl.col("joules").sum()),
            observed_s=pl.col("observed_s").min(),
            estimated_joules=pl.col("estimated_joules").sum(),
        )
        .sort("role", "time")
    )


def side_by_side(by_role: pl.LazyFrame, roles: Iterable[str]) -> pl.LazyFrame:
    """One row a quarter hour; for each role <role>_joules, <role>_observed_s, <role>_estimated_joules.

    All three are absent for a role without meters.
    """
    cells = {
        f"{role}_{name}": pl.col(name).filter(pl.col("role") == role).first()
        for role in roles
        for name in ("joules", "observed_s", "estimated_joules")
    }
    return by_role.group_by("time").agg(**cells).sort("time")


def sum_of_known(name: str) -> pl.Expr:
    """A sum that is absent, not 0, when there is nothing to add."""
    return pl.when(pl.col(name).count() > 0).then(pl.col(name).sum())


_TOTALS = ("joules", "observed_s", "known_s", "estimated_joules")


def _expect(frame: pl.LazyFrame, schema: Mapping[str, pl.DataType]) -> None:
    """TypeError unless the frame has the columns of `schema`; others are ignored."""
    found = frame.collect_schema()
    for name, wanted in schema.items():
        if found.get(name) != wanted:
            raise TypeError(f"column {name} is {found.get(name, 'missing')}; the ledger needs {wanted}")


def _usable(readings: pl.LazyFrame, meters: pl.LazyFrame) -> pl.LazyFrame:
    """Readings that are there and not bad, one for each meter and time whatever their order was."""
    quality = pl.col("quality_state")
    return (
        readings.join(meters.select("resource"), on="resource", how="semi")
        .filter(pl.col("register_joules").is_not_null(), quality.is_null() | (quality != _QUALITY["bad"]))
        .group_by("resource", "time")
        .agg(pl.col("register_joules", "quality_state").max())
        .sort("resource", "time")
    )


def _with_interval(readings: pl.LazyFrame, meters: pl.LazyFrame) -> pl.LazyFrame:
    """Readings with their nominal interval_s: declared, else the median of the meter's UTC day.

    By day, because a meter may have been backfilled at one pace and be read live at another.
    """
    pace = _seconds(pl.col("time").diff().over("resource"))
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


def _without_spikes(readings: pl.LazyFrame) -> pl.LazyFrame:
    """Readings without single ones that rise above the ceiling and fall back at once: garbage, not energy."""
    before, after = (pl.col("register_joules").shift(n).over("resource") for n in (1, -1))
    duration_s = _seconds(pl.col("time").diff().over("resource"))
    rise = (pl.col("register_joules") - before) > pl.col("ceiling_watts") * duration_s
    spike = rise & (after < pl.col("register_joules")) & (after >= before)
    return readings.sort("resource", "time").filter(~spike.fill_null(value=False))


def _paired(readings: pl.LazyFrame) -> pl.LazyFrame:
    """Each reading with the one before it: start, before, duration_s, difference."""
    return (
        readings.sort("resource", "time")
        .with_columns(
            start=pl.col("time").shift().over("resource"), before=pl.col("register_joules").shift().over("resource")
        )
        .drop_nulls("start")
        .with_columns(
            duration_s=_seconds(pl.col("time") - pl.col("start")),
            difference=pl.col("register_joules") - pl.col("before"),
        )
    )


def _judged(pairs: pl.LazyFrame) -> pl.LazyFrame:
    """Pairs with their kind and joules; those above the ceiling are implausible, whatever else they are."""
    too_much = (pl.col("joules") > pl.col("ceiling_watts") * pl.col("duration_s")).fill_null(value=False)
    kind = pl.when(too_much).then(pl.lit(Flag.IMPLAUSIBLE.value)).otherwise("kind")
    return pairs.with_columns(kind=_kind_of_step()).with_columns(joules=_joules_of_step()).with_columns(kind=kind)


def _kind_of_step() -> pl.Expr:
    before, now, modulus = pl.col("before"), pl.col("register_joules"), pl.col("modulus_joules")
    rolled = (before >= (1 - ROLLOVER_SHARE) * modulus) & (now <= ROLLOVER_SHARE * modulus)
    fell = pl.when(rolled.fill_null(value=False)).then(pl.lit(Flag.ROLLOVER.value)).otherwise(pl.lit(Flag.RESET.value))
    return pl.when(pl.col("difference") < 0).then(fell).otherwise(pl.lit(_PLAIN))


def _joules_of_step() -> pl.Expr:
    return (
        pl.when(pl.col("kind") == Flag.ROLLOVER.value)
        .then(pl.col("difference") + pl.col("modulus_joules"))
        .when(pl.col("kind") == Flag.RESET.value)
        .then("register_joules")
        .otherwise("difference")
    )


def _is_estimated() -> pl.Expr:
    estimated = (pl.col("quality_state") == _QUALITY["estimated"]).fill_null(value=False)
    return estimated | (pl.col("kind") == Flag.RESET.value)


def _curve(steps: pl.LazyFrame) -> pl.LazyFrame:
    """Running totals of each meter at each of its readings, from 0 at the first."""
    totals = steps.select("resource", "time", *(pl.col(name).cum_sum().over("resource") for name in _TOTALS))
    origin = steps.group_by("resource").agg(time=pl.col("start").min())
    origin = origin.with_columns(pl.lit(0.0).alias(name) for name in _TOTALS)
    return pl.concat([origin, totals]).sort("time", "resource")


def _interpolate(curve: pl.LazyFrame, points: pl.LazyFrame) -> pl.LazyFrame:
    """The running totals at `points` (resource, time): linear between readings, level outside them."""
    curve = curve.with_columns(at=pl.col("time"))
    points = points.sort("time", "resource")
    below = points.join_asof(curve, on="time", by="resource", strategy="backward", check_sortedness=False)
    both = below.join_asof(curve, on="time", by="resource", strategy="forward", suffix="_above", check_sortedness=False)
    span_ms = (pl.col("at_above") - pl.col("at")).dt.total_milliseconds()
    share = pl.when(span_ms > 0).then((pl.col("time") - pl.col("at")).dt.total_milliseconds() / span_ms).otherwise(0.0)
    between = {
        name: pl.coalesce(
            pl.col(name) + share * (pl.col(f"{name}_above") - pl.col(name)), pl.col(name), pl.col(f"{name}_above")
        )
        for name in _TOTALS
    }
    return both.select("resource", "time", **between).sort("resource", "time")


def _share_estimated() -> pl.Expr:
    return pl.when(pl.col("joules").sum() > 0).then(pl.col("estimated_joules").sum() / pl.col("joules").sum())


def _seconds(duration: pl.Expr) -> pl.Expr:
    return duration.dt.total_milliseconds() / 1000


def _moment(value: datetime) -> pl.Expr:
    return pl.lit(value, dtype=TIME)
