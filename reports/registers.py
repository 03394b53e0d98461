"""What a register counted between its readings: resets, roll-overs, frozen and exchanged meters.

Every step ends in one of the kinds of `Flag`, or is plain. Nothing here is ever negative.
"""

from datetime import timedelta
from enum import StrEnum

import polars as pl

from reports.integral import GAP_INTERVALS, POWER_TOTALS, with_power
from reports.readings import is_estimated, seconds, usable, with_interval

# A register that fell from its last hundredth into its first has rolled over.
ROLLOVER_SHARE = 0.01
# A register that stands still for longer, while power flows, is frozen.
FROZEN_AFTER_S = 15 * 60.0
# An integral of power proves that a register should have moved when it exceeds this many of its steps.
FROZEN_TICKS = 2
# From this share of a step on, power tells all of it.
WHOLE_POWER = 0.99
# So many steps forward are needed before the smallest of them is taken as what the register resolves.
_TICKS_SEEN = 3
# A collector reads a meter's serial number less often than its register, and stamps them apart.
EXCHANGE_WITHIN = timedelta(minutes=15)

PLAIN = "plain"


class Flag(StrEnum):
    """What was not plain about a step, or about a meter's day or period."""

    RESET = "reset"
    ROLLOVER = "rollover"
    IMPLAUSIBLE = "implausible"
    FROZEN = "register frozen"
    EXCHANGED = "meter exchanged"
    GAP = "gap"
    EDGE = "gap at the period's edge"
    MISSING = "missing"
    COARSE = "coarse register"
    DISAGREES = "register and power disagree"


def register_steps(
    readings: pl.LazyFrame, meters: pl.LazyFrame, power: pl.LazyFrame | None, exchanges: pl.LazyFrame | None
) -> pl.LazyFrame:
    """Steps between register readings: the columns of `ledger.steps`.

    `power` as from `integral.power_steps`, None where the meters tell none; `exchanges`: EXCHANGES.
    """
    rated = meters.select("resource", "modulus_joules", "ceiling_watts", "resolution_joules")
    shown = usable(readings.filter(pl.col("register_joules") >= 0), meters, "register_joules")
    known = with_interval(shown, meters).join(rated, on="resource")
    pairs = _with_ticks(_paired(_with_power(_without_spikes(known), power, meters)))
    return _told(_judged(_with_stand(_with_exchanges(pairs, exchanges)))).sort("resource", "start")


def _without_spikes(readings: pl.LazyFrame) -> pl.LazyFrame:
    """Readings without single ones that rise above the ceiling and fall back at once: garbage, not energy."""
    before, after = (pl.col("register_joules").shift(n).over("resource") for n in (1, -1))
    duration_s = seconds(pl.col("time").diff().over("resource"))
    rise = (pl.col("register_joules") - before) > pl.col("ceiling_watts") * duration_s
    spike = rise & (after < pl.col("register_joules")) & (after >= before)
    return readings.sort("resource", "time").filter(~spike.fill_null(value=False))


def _with_power(readings: pl.LazyFrame, power: pl.LazyFrame | None, meters: pl.LazyFrame) -> pl.LazyFrame:
    if power is None:
        return readings.with_columns(pl.lit(None, pl.Float64).alias(name) for name in POWER_TOTALS)
    return with_power(readings, power, meters)


def _paired(readings: pl.LazyFrame) -> pl.LazyFrame:
    """Each reading with the one before it: start, before, duration_s, difference, and the power between them."""
    return (
        readings.sort("resource", "time")
        .with_columns(
            *(pl.col(name).diff().over("resource") for name in POWER_TOTALS),
            start=pl.col("time").shift().over("resource"),
            before=pl.col("register_joules").shift().over("resource"),
        )
        .drop_nulls("start")
        .with_columns(
            duration_s=seconds(pl.col("time") - pl.col("start")),
            difference=pl.col("register_joules") - pl.col("before"),
        )
    )


def _with_ticks(pairs: pl.LazyFrame) -> pl.LazyFrame:
    """Pairs with tick_joules: what the register resolves, declared or seen; 0 when nothing tells."""
    forward = pl.col("difference") > 0
    smallest = pl.col("difference").filter(forward).min().over("resource")
    seen = pl.when(forward.sum().over("resource") >= _TICKS_SEEN).then(smallest)
    return pairs.with_columns(tick_joules=pl.coalesce("resolution_joules", seen, pl.lit(0.0)))


def _with_exchanges(pairs: pl.LazyFrame, exchanges: pl.LazyFrame | None) -> pl.LazyFrame:
    """Pairs with `exchanged` on the one during which the meter was changed, and its two registers then.

    That is the pair nearest to the stated time, within a quarter hour, whose register fell or leapt;
    else the pair around the stated time.
    """
    if exchanges is None:
        return pairs.with_columns(
            exchanged=pl.lit(value=False), start_joules=pl.lit(None, pl.Float64), final_joules=pl.lit(None, pl.Float64)
        )
    stated = exchanges.select("resource", "start_joules", "final_joules", stated="time")
    around = (pl.col("start") < pl.col("stated")) & (pl.col("stated") <= pl.col("time"))
    near = ((pl.col("time") - pl.col("stated")).abs() <= EXCHANGE_WITHIN) | around
    leapt = (pl.col("difference") > _allowed()).fill_null(value=False)
    candidates = pairs.select("resource", "start", "time", odd=(pl.col("difference") < 0) | leapt)
    chosen = (
        candidates.join(stated, on="resource")
        .filter(around | (near & pl.col("odd")))
        .with_columns(away=(pl.col("time") - pl.col("stated")).abs())
        .sort("resource", "stated", "odd", "away", "time", descending=[False, False, True, False, False])
        .unique(["resource", "stated"], keep="first", maintain_order=True)
        # Told twice, as by the meter's own source and by hand: what is written down counts.
        .group_by("resource", "time")
        .agg(pl.col("start_joules", "final_joules").sort_by("stated").drop_nulls().last())
        .with_columns(exchanged=pl.lit(value=True))
    )
    joined = pairs.join(chosen, on=["resource", "time"], how="left")
    return joined.with_columns(pl.col("exchanged").fill_null(value=False))


def _with_stand(pairs: pl.LazyFrame) -> pl.LazyFrame:
    """Pairs with what is known of the stand that they belong to: readings that stayed, and the one that moved on.

    still_*: sums over the time in which the register stayed; moved_*: of the step that ended it, absent
    while it lasts, moved_joules 0 unless it went forward. An exchange ends a stand as a movement does.
    """
    still = (pl.col("difference") == 0) & ~pl.col("exchanged")
    forward = pl.when((pl.col("difference") > 0) & ~pl.col("exchanged")).then("difference").otherwise(0.0)
    return (
        pairs.sort("resource", "time")
        .with_columns(still=still)
        .with_columns(
            still_s=_sum_of_stand("duration_s"),
            still_power=_sum_of_stand("power_joules"),
            still_above_joules=_sum_of_stand("above_joules"),
            still_above_s=_sum_of_stand("above_s"),
            moved_joules=_end_of_stand(forward),
            moved_power=_end_of_stand(pl.col("power_joules").fill_null(0.0)),
            moved_s=_end_of_stand(pl.col("duration_s")),
        )
        .with_columns(frozen=_is_frozen())
        .with_columns(caught_up=_has_caught_up())
    )


def _sum_of_stand(name: str) -> pl.Expr:
    """The sum over the time in which the register stayed: running totals at its end less those at its start."""
    total = pl.when("still").then(name).fill_null(0.0).cum_sum()
    at_ends = pl.when(~pl.col("still")).then(total)
    end = at_ends.backward_fill().fill_null(total.last())
    return (end - at_ends.shift().forward_fill().fill_null(0.0)).over("resource")


def _end_of_stand(value: pl.Expr) -> pl.Expr:
    """A value, never absent, of the step that ends the stand."""
    return pl.when(~pl.col("still")).then(value).backward_fill().over("resource")


def _is_frozen() -> pl.Expr:
    """Whether power says that the register should have moved by more than it can miss, for over 15 minutes."""
    above = pl.col("still_above_joules") > FROZEN_TICKS * pl.col("tick_joules")
    return ((pl.col("still_above_s") > FROZEN_AFTER_S) & above).fill_null(value=False)


def _has_caught_up() -> pl.Expr:
    """Whether the movement after a freeze is nearer to the energy of the whole stand than to its own step's."""
    whole = (pl.col("moved_joules") - pl.col("still_power") - pl.col("moved_power")).abs()
    alone = (pl.col("moved_joules") - pl.col("moved_power")).abs()
    allowed = pl.col("ceiling_watts") * (pl.col("still_s") + pl.col("moved_s"))
    plausible = (pl.col("moved_joules") <= allowed).fill_null(value=True)
    return (pl.col("frozen") & (whole <= alone) & plausible).fill_null(value=False)


def _judged(pairs: pl.LazyFrame) -> pl.LazyFrame:
    """Pairs with kind, joules (absent where the register does not tell) and whether they are estimated."""
    too_much = (pl.col("joules") > _allowed()).fill_null(value=False)
    implausible = too_much & ~pl.col("kind").is_in([Flag.EXCHANGED.value, Flag.FROZEN.value])
    lost = (pl.col("kind") == Flag.EXCHANGED.value) & pl.col("final_joules").is_null()
    return (
        pairs.with_columns(kind=_kind_of_step())
        .with_columns(joules=_joules_of_step())
        .with_columns(
            kind=pl.when(implausible).then(pl.lit(Flag.IMPLAUSIBLE.value)).otherwise("kind"),
            joules=pl.when(~too_much).then("joules"),
            is_estimated=is_estimated() | lost | (pl.col("kind") == Flag.RESET.value),
        )
    )


def _allowed() -> pl.Expr:
    """J that a step may count: a coarse register moves by its own resolution at once."""
    return pl.col("ceiling_watts") * pl.col("duration_s") + pl.col("tick_joules")


def _kind_of_step() -> pl.Expr:
    before, now, modulus = pl.col("before"), pl.col("register_joules"), pl.col("modulus_joules")
    rolled = before.is_between((1 - ROLLOVER_SHARE) * modulus, modulus) & (now <= ROLLOVER_SHARE * modulus)
    fell = pl.when(rolled.fill_null(value=False)).then(pl.lit(Flag.ROLLOVER.value)).otherwise(pl.lit(Flag.RESET.value))
    return (
        pl.when("exchanged")
        .then(pl.lit(Flag.EXCHANGED.value))
        .when(pl.col("difference") < 0)
        .then(fell)
        .when(pl.col("frozen") & (pl.col("caught_up") | (pl.col("still") & (pl.col("above_s") > 0))))
        .then(pl.lit(Flag.FROZEN.value))
        .otherwise(pl.lit(PLAIN))
    )


def _joules_of_step() -> pl.Expr:
    new = pl.col("register_joules") - pl.col("start_joules")
    old = (pl.col("final_joules") - pl.col("before")).fill_null(0.0)
    share = pl.col("duration_s") / (pl.col("still_s") + pl.col("moved_s"))
    return (
        pl.when(pl.col("kind") == Flag.EXCHANGED.value)
        .then(pl.when((new >= 0) & (old >= 0)).then(new + old))
        .when(pl.col("kind") == Flag.ROLLOVER.value)
        .then(pl.col("difference") + pl.col("modulus_joules"))
        # What was counted before the reset is gone: the power beside the register still tells of it.
        .when((pl.col("kind") == Flag.RESET.value) & (pl.col("power_s") >= WHOLE_POWER * pl.col("duration_s")))
        .then(pl.max_horizontal("register_joules", "power_joules"))
        .when(pl.col("kind") == Flag.RESET.value)
        .then("register_joules")
        .when((pl.col("kind") == Flag.FROZEN.value) & pl.col("caught_up"))
        .then(pl.col("moved_joules") * share)
        .when(pl.col("kind") == Flag.FROZEN.value)
        .then(pl.lit(None, pl.Float64))
        .otherwise("difference")
    )


def _told(judged: pl.LazyFrame) -> pl.LazyFrame:
    """The columns of `ledger.steps`: what the register told, else what power tells, else nothing."""
    told = pl.col("joules").is_not_null()
    longest_s = GAP_INTERVALS * pl.col("interval_s")
    from_power = pl.when(~told).then("power_joules").fill_null(0.0)
    power_s = pl.min_horizontal(pl.col("power_s").fill_null(0.0), "duration_s")
    watched = told & ~((pl.col("kind") == Flag.FROZEN.value) & pl.col("still"))
    return judged.select(
        "resource",
        "start",
        "time",
        "kind",
        "interval_s",
        "resolution_joules",
        gap=pl.col("duration_s") > longest_s,
        joules=pl.coalesce("joules", from_power),
        observed_s=pl.when(watched).then(pl.min_horizontal("duration_s", longest_s)).otherwise(0.0),
        known_s=pl.when(told).then("duration_s").otherwise(power_s),
        estimated_joules=pl.when(told & ~pl.col("is_estimated")).then(0.0).otherwise(pl.coalesce("joules", from_power)),
        integrated_joules=from_power,
        fill_joules=pl.lit(0.0),
        power_joules="power_joules",
        power_s="power_s",
    )
