"""Energy from cumulative registers, and from power where there are none: pure functions over frames.

A register's readings become steps (what was counted between two readings), steps become a curve
(the running total of each meter), and the curve is read at quarter hours by linear interpolation.
Energy over any period is the difference of two points on the curve, so that periods add up.

Units: energy in J, time in s; a frame's `time` is UTC. PUE and its kin are ratios of energies over the
same period, never of averaged power (ISO/IEC 30134-2), which is why all of this is about energy.
`docs/reference/ledger.md` says how each kind of reading ends.
"""

import math
from collections.abc import Iterable

import polars as pl

from reports.curve import interpolate
from reports.integral import power_steps
from reports.period import QUARTER_S, Period
from reports.readings import (
    EXCHANGES,
    METERS,
    METERS_MAY_HAVE,
    READINGS,
    READINGS_MAY_HAVE,
    SERIALS,
    TIME,
    Sampling,
    exchanges_of,
    expect,
    has_power,
    is_usable,
    moment,
    seconds,
    sound,
)
from reports.registers import PLAIN, Flag, register_steps

__all__ = [
    "EXCHANGES",
    "METERS",
    "METERS_MAY_HAVE",
    "PEAK_COVERAGE",
    "READINGS",
    "READINGS_MAY_HAVE",
    "SERIALS",
    "TIME",
    "Flag",
    "Sampling",
    "by_meter",
    "by_role",
    "exchanges_of",
    "flags",
    "mark_edges",
    "quarters",
    "side_by_side",
    "steps",
    "sum_of_known",
]

# A quarter hour that a gap touches cannot be the peak: the gap's energy is spread evenly into it.
PEAK_COVERAGE = 0.999
# Register and integral of power may differ by this share in a day.
DISAGREEMENT_SHARE = 0.02
# So much of a day must have been counted by both before they are compared.
COMPARED_S = 12 * 3600.0
# A register is coarse when its steps alone make a quarter hour's energy less sure than a class 1 meter may be.
COARSE_SHARE = 0.01
# Standard deviation of a reading that is rounded to steps: step / sqrt(12). JCGM 100:2008 clause F.2.2.1.
_ROUNDED = 1 / math.sqrt(12)
# Differences of running totals over years carry this much rounding, in seconds.
_ROUNDING_S = 1e-3

_RESOLVED = {"resource": METERS["resource"]}
_MAY_RESOLVE = {"resolution_joules": METERS_MAY_HAVE["resolution_joules"]}
_TOTALS = ("joules", "observed_s", "known_s", "estimated_joules", "integrated_joules", "fill_joules")


def steps(readings: pl.LazyFrame, meters: pl.LazyFrame, exchanges: pl.LazyFrame | None = None) -> pl.LazyFrame:
    """What each meter counted between each reading and the one before.

    Input READINGS, METERS and EXCHANGES, in any order, repeats allowed. Output, sorted by resource
    and time: resource, start, time, kind, interval_s, resolution_joules, gap, joules, observed_s,
    known_s, estimated_joules, integrated_joules, fill_joules, power_joules, power_s.

    For readings R0 at t0 and R1 at t1, modulus M:
      joules = R1 - R0                 when that is not negative
             = R1 - R0 + M             rollover: R0 >= 0.99 M and R1 <= 0.01 M
             = R1                      reset: counted again from 0; what was counted before is lost
             = R1 - S + (F - R0)       exchanged: S and F the new and old registers at the exchange;
                                       without F what the old meter counted since R0 is lost,
                                       without S nothing is told
             = W                       frozen: R stood still for over 15 minutes while power flowed;
                                       W is the integral of power over the same time. When the register
                                       then catches up, its energy is spread evenly over the time in
                                       which it stood, as that of a gap
             = 0, and not known        implausible: more than ceiling_watts allow in t1 - t0
      observed_s = min(t1 - t0, 3 intervals); 0 while frozen or not told
      estimated_joules = joules of resets, of frozen time, of an exchange without F, and of readings
                         that their source estimated
    What a register does not tell is taken from power where the meter gives power, as estimated; of a
    meter without register readings power is all there is (see `integral.power_steps`), and estimated
    only when a register was declared. integrated_joules is the part of joules that is from power,
    fill_joules what the missing time may have held and is in no other figure, power_joules and
    power_s the integral beside the register.
    """
    told = expect(readings, READINGS, READINGS_MAY_HAVE)
    meters = sound(expect(meters, METERS, METERS_MAY_HAVE), {**METERS, **METERS_MAY_HAVE}, with_zero=False)
    exchanges = None if exchanges is None else sound(expect(exchanges, EXCHANGES), EXCHANGES, with_zero=True)
    if not has_power(readings):
        return register_steps(told, meters, None, exchanges)
    power = power_steps(told, meters)
    counted = register_steps(told, meters, power, exchanges)
    return pl.concat([counted, _beside_registers(power, told, meters)]).sort("resource", "start")


def _beside_registers(power: pl.LazyFrame, readings: pl.LazyFrame, meters: pl.LazyFrame) -> pl.LazyFrame:
    """Steps of power before a meter's first register reading and after its last, or of a meter without any."""
    known = readings.filter(is_usable("register_joules"))
    bounds = known.group_by("resource").agg(first=pl.col("time").min(), last=pl.col("time").max())
    declared = pl.any_horizontal(pl.col("modulus_joules", "resolution_joules").is_not_null())
    outside = pl.col("first").is_null() | (pl.col("time") <= pl.col("first")) | (pl.col("start") >= pl.col("last"))
    in_its_place = pl.col("first").is_not_null() | pl.col("declared")
    covered, nothing = pl.col("covered"), pl.lit(None, pl.Float64)
    joules, filling = (pl.when(part).then("joules").otherwise(0.0) for part in (covered, ~covered))
    covered_s = pl.when(covered).then("duration_s").otherwise(0.0)
    return (
        power.join(bounds, on="resource", how="left")
        .join(meters.select("resource", declared=declared), on="resource")
        .filter(outside)
        .select(
            "resource",
            "start",
            "time",
            kind=pl.when(covered).then(pl.lit(PLAIN)).otherwise(pl.lit(Flag.MISSING.value)),
            interval_s="interval_s",
            resolution_joules=nothing,
            gap=~covered,
            joules=joules,
            observed_s=pl.when(in_its_place).then(0.0).otherwise(covered_s),
            known_s=covered_s,
            estimated_joules=pl.when(in_its_place | pl.col("estimated")).then(joules).otherwise(0.0),
            integrated_joules=joules,
            fill_joules=filling,
            power_joules=nothing,
            power_s=nothing,
        )
    )


def mark_edges(steps: pl.LazyFrame, period: Period) -> pl.LazyFrame:
    """Steps, with gaps across the period's bounds as EDGE: how much fell inside is an estimate."""
    across = [
        (pl.col("start") < moment(bound)) & (pl.col("time") > moment(bound)) for bound in (period.start, period.end)
    ]
    edge = pl.col("gap") & pl.any_horizontal(across) & (pl.col("kind") == PLAIN)
    return steps.with_columns(
        kind=pl.when(edge).then(pl.lit(Flag.EDGE.value)).otherwise("kind"),
        estimated_joules=pl.when(edge).then("joules").otherwise("estimated_joules"),
    )


def quarters(steps: pl.LazyFrame, meters: pl.LazyFrame, period: Period) -> pl.LazyFrame:
    """Energy of each meter in each quarter hour of the period.

    Output: resource, time (start of the quarter hour), joules (absent where nothing is known),
    whole (all of it is known), observed_s, estimated_joules, integrated_joules, fill_joules,
    quantisation_joules. The running totals E(t) are interpolated linearly at the quarter hours:
    joules = E(t + 900 s) - E(t). Before a meter's first reading and after its last, and where every
    step is implausible, the energy is not known, which is not the same as 0.

    quantisation_joules = sqrt(2) · d / sqrt(12): standard uncertainty of the difference of two readings
    of a register that resolves d (JCGM 100:2008, clause F.2.2.1); absent where d is not declared. It is
    that of any period, however long: what one quarter hour has too much its neighbour lacks.
    """
    meters = sound(expect(meters, _RESOLVED, _MAY_RESOLVE), _MAY_RESOLVE, with_zero=False)
    edges = meters.select("resource").join(period.edges(), how="cross")
    at_edges = interpolate(steps, edges, _TOTALS).sort("resource", "time")
    differences = {name: pl.col(name).shift(-1).over("resource") - pl.col(name) for name in _TOTALS}
    return (
        at_edges.with_columns(**differences)
        .filter(pl.col("time") < moment(period.end))
        .join(meters, on="resource", how="left", maintain_order="left")
        .select(
            "resource",
            "time",
            joules=pl.when(pl.col("known_s") > 0).then("joules"),
            whole=pl.col("known_s").fill_null(0.0) > QUARTER_S - _ROUNDING_S,
            observed_s=pl.col("observed_s").fill_null(0.0).clip(0.0, QUARTER_S),
            estimated_joules=pl.col("estimated_joules").fill_null(0.0),
            integrated_joules=pl.col("integrated_joules").fill_null(0.0),
            fill_joules=pl.col("fill_joules").fill_null(0.0),
            quantisation_joules=pl.when(pl.col("known_s") > 0).then(_quantisation()),
        )
    )


def flags(steps: pl.LazyFrame, period: Period) -> pl.LazyFrame:
    """What was not plain within the period: resource, start, time, flag, joules, in order of start.

    joules is the energy of the step; of DISAGREES, by local day, register less integral of power;
    of COARSE, for the period, the quantisation_joules that exceed 1 % of a mean quarter hour.
    """
    within = steps.filter(pl.col("time") > moment(period.start), pl.col("start") < moment(period.end))
    events = within.filter(pl.col("kind") != PLAIN).with_columns(flag="kind").select(_FLAG_COLUMNS)
    # A gap may hold a reset: then it is both.
    named = [Flag.EDGE.value, Flag.MISSING.value]
    gaps = within.filter(pl.col("gap"), ~pl.col("kind").is_in(named))
    gaps = gaps.with_columns(flag=pl.lit(Flag.GAP.value)).select(_FLAG_COLUMNS)
    parts = [_without_stretches(events), _stretches(events), gaps, _disagreements(within, period), _coarse(within)]
    return pl.concat(parts).sort("start", "resource", "flag")


_FLAG_COLUMNS = ("resource", "start", "time", "flag", "joules")
# Such steps come one after another by the hundred: they are told once for each stretch of time.
_STRETCHES = (Flag.FROZEN.value, Flag.MISSING.value)


def _without_stretches(events: pl.LazyFrame) -> pl.LazyFrame:
    return events.filter(~pl.col("flag").is_in(_STRETCHES))


def _stretches(events: pl.LazyFrame) -> pl.LazyFrame:
    """Steps of one kind that follow each other without a break, as one."""
    same = ["resource", "flag"]
    begins = (pl.col("start") != pl.col("time").shift()).fill_null(value=True)
    return (
        events.filter(pl.col("flag").is_in(_STRETCHES))
        .sort("resource", "flag", "start")
        .with_columns(stretch=begins.cum_sum().over(same))
        .group_by(*same, "stretch")
        .agg(pl.col("start").min(), pl.col("time").max(), pl.col("joules").sum())
        .select(_FLAG_COLUMNS)
    )


def _disagreements(within: pl.LazyFrame, period: Period) -> pl.LazyFrame:
    """Local days in which register and integral of power differ by more than 2 %, over the time that both know.

    What a coarse register may be off is allowed on top, with k = 2.
    """
    both = pl.col("power_s") >= pl.col("duration_s") - _ROUNDING_S
    apart = pl.col("register") - pl.col("power")
    allowed = DISAGREEMENT_SHARE * pl.col("register") + 2 * _quantisation().fill_null(0.0)
    return (
        within.with_columns(duration_s=seconds(pl.col("time") - pl.col("start")))
        .filter(pl.col("kind") == PLAIN, both)
        .group_by("resource", day=pl.col("start").dt.convert_time_zone(period.zone).dt.truncate("1d"))
        .agg(
            pl.col("resolution_joules").max(),
            pl.col("start").min(),
            pl.col("time").max(),
            register=pl.col("joules").sum(),
            power=pl.col("power_joules").sum(),
            compared_s=pl.col("duration_s").sum(),
        )
        .filter(pl.col("compared_s") >= COMPARED_S, apart.abs() > allowed)
        .with_columns(flag=pl.lit(Flag.DISAGREES.value), joules=apart)
        .select(_FLAG_COLUMNS)
    )


def _coarse(within: pl.LazyFrame) -> pl.LazyFrame:
    """Meters whose register resolves less than a quarter hour's energy asks for."""
    counted = pl.col("joules").sum()
    return (
        within.group_by("resource")
        .agg(
            pl.col("resolution_joules").max(),
            pl.col("start").min(),
            pl.col("time").max(),
            quarter=counted / pl.col("known_s").sum() * QUARTER_S,
        )
        .with_columns(flag=pl.lit(Flag.COARSE.value), joules=_quantisation())
        .filter(pl.col("quarter") > 0, pl.col("joules") > COARSE_SHARE * pl.col("quarter"))
        .select(_FLAG_COLUMNS)
    )


def _quantisation() -> pl.Expr:
    """Standard uncertainty of a difference of two readings, in J."""
    return math.sqrt(2) * _ROUNDED * pl.col("resolution_joules")


def by_meter(quarters: pl.LazyFrame) -> pl.LazyFrame:
    """Each meter over all the quarter hours.

    Output: resource, joules, coverage, share_estimated, share_integrated, fill_joules,
    quantisation_joules. coverage = observed seconds / seconds; share_estimated = estimated J / J;
    share_integrated = J from power / J; fill_joules is what the missing time may have held, and is
    in no other figure; quantisation_joules as of one quarter hour, since the register's other
    readings cancel.
    """
    return (
        quarters.group_by("resource")
        .agg(
            joules=sum_of_known("joules"),
            coverage=pl.col("observed_s").sum() / (pl.len() * QUARTER_S),
            share_estimated=_share("estimated_joules"),
            share_integrated=_share("integrated_joules"),
            fill_joules=pl.col("fill_joules").sum(),
            quantisation_joules=pl.col("quantisation_joules").max(),
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


def _share(part: str) -> pl.Expr:
    return pl.when(pl.col("joules").sum() > 0).then(pl.col(part).sum() / pl.col("joules").sum())
