"""The grid company's settlement against our own meters, quarter hour by quarter hour: pure functions over frames.

Both count the same energy with meters of their own. What they differ by is the residual; it should lie
within what the two meters' accuracy classes allow. Quarter hours are paired by UTC time, so a day on
which clocks change has 92 or 100 of them on both sides.

Units: settlement in kWh, the ledger in J, figures in kWh; a frame's `time` is UTC. residual = metered - settled.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

import polars as pl

from reports.accuracy import expanded
from reports.figures import JOULES_PER_KWH
from reports.period import QUARTER, QUARTER_S, Period
from reports.readings import TIME, Schema, expect, moment

IMPORT = "import"

SETTLEMENT: Schema = {  # as `storage.registers.read_register` gives it, and more
    "meter": pl.String(),
    "start": TIME,
    "energy_kwh": pl.Float64(),
    "direction": pl.String(),
}
SETTLEMENT_MAY_HAVE: Schema = {"quality": pl.String()}
QUARTERS: Schema = {  # as `ledger.quarters` gives it, and more
    "resource": pl.UInt64(),
    "time": TIME,
    "joules": pl.Float64(),
    "whole": pl.Boolean(),
    "observed_s": pl.Float64(),
    "estimated_joules": pl.Float64(),
    "quantisation_joules": pl.Float64(),
}
LINKS: Schema = {
    "meter": pl.String(),  # the grid company's
    "resource": pl.UInt64(),  # ours: of several for one grid meter the sum counts
    "limit": pl.Float64(),  # relative limit of error of our meter: `Accuracy.limit`
}
GRID_METERS: Schema = {
    "meter": pl.String(),
    "limit": pl.Float64(),  # relative limit of error of the grid company's meter
}

# A file that is off by so many quarter hours: stamped at their ends, or in another zone or the other clock.
_MOST_SHIFT_QUARTERS = 8
# A shift is told when it leaves less than this share of the differences.
_SHIFT_EXPLAINS = 0.5
_LARGEST = 10
_TWO_SIGMA = 2.0


class Agreement(StrEnum):
    """What the residual of a period means. It is judged over the quarter hours that both sides know."""

    WITHIN = "within the meters' uncertainty"
    APART = "more than the meters' uncertainty"
    NOT_COMPARABLE = "not comparable: no quarter hour is known on both sides"


@dataclass(frozen=True, slots=True, eq=False)
class Reconciliation:
    """What came of it.

    `quarters`: meter, time, settled_kwh, metered_kwh, residual_kwh, estimated_kwh (of ours),
    is_estimated (by the grid company), observed_s (of our meter observed least). A side that is not known is absent,
    and so is then the residual.

    `meters`, a row a grid meter: quarters (of the period), settled_quarters, metered_quarters, paired_quarters;
    settled_kwh, metered_kwh, residual_kwh and share (residual / settled), all over the paired quarter hours;
    unpaired_settled_kwh and unpaired_metered_kwh, which are in none of these; coverage (observed seconds of the
    paired quarter hours / the period's), share_estimated (of our energy), estimated_quarters (by the grid company),
    uncertainty_kwh (k = 2), agreement, shift_quarters (by how much the file seems to be late; absent where it fits
    best as it is).

    `days`, a row a grid meter and local day: day, quarters (96; 92 or 100 when clocks change), settled_quarters,
    metered_quarters, residual_kwh. `largest`: the quarters with the largest differences, by meter.
    """

    quarters: pl.DataFrame
    meters: pl.DataFrame
    days: pl.DataFrame
    largest: pl.DataFrame


def reconcile(
    settlement: pl.LazyFrame, quarters: pl.LazyFrame, links: pl.LazyFrame, grid_meters: pl.LazyFrame, period: Period
) -> Reconciliation:
    """Hold the settlement of a period's imports against our meters.

    Input SETTLEMENT, QUARTERS, LINKS and GRID_METERS. Only what GRID_METERS names is reconciled. Raises TypeError for
    a column of another type, ValueError for a quarter hour that is settled twice, or a resource linked twice to one
    meter: they would count double.

      metered(q) = sum over the linked meters of E(q) / 3.6e6, known when all of every meter's quarter is
      residual(q) = metered(q) - settled(q)
      U = sqrt((2/sqrt(3) sum_i limit_i E_i)^2 + (2/sqrt(3) limit_grid E_settled)^2 + n sum_i (2 d_i)^2)
    with k = 2: our meters are of one make and err together (JCGM 100:2008 clause 5.2.2, r = 1), ours and the grid
    company's do not (clause 5.1.2); limits as rectangular distributions (clause 4.3.7); d_i is quantisation_joules of
    our register, n the number of unbroken runs of paired quarter hours. Limits: IEC 62053-22, -21.
    """
    wanted = expect(grid_meters, GRID_METERS)
    linked = expect(links, LINKS).join(wanted.select("meter"), on="meter", how="semi").collect()
    settled = _settled(settlement, wanted, period).collect()
    _refuse_doubles(settled, linked)
    ours = _metered(expect(quarters, QUARTERS), linked.lazy(), period).collect()
    grid = wanted.join(period.edges().filter(pl.col("time") < moment(period.end)), how="cross")
    told = _paired(grid, settled.lazy(), ours.lazy()).collect()
    figures = _figures(told, settled, ours, wanted.collect(), period)
    shown = told.drop("limited_kwh", "step_kwh")
    return Reconciliation(quarters=shown, meters=figures, days=_days(told, period), largest=_largest(shown))


def _settled(settlement: pl.LazyFrame, wanted: pl.LazyFrame, period: Period) -> pl.LazyFrame:
    """meter, time, settled_kwh, is_estimated of imports within the period and a shift around it."""
    around = _MOST_SHIFT_QUARTERS * QUARTER
    return (
        expect(settlement, SETTLEMENT, SETTLEMENT_MAY_HAVE)
        .filter(
            pl.col("direction") == IMPORT,
            pl.col("start") >= moment(period.start - around),
            pl.col("start") < moment(period.end + around),
        )
        .join(wanted.select("meter"), on="meter", how="semi")
        .select(
            "meter",
            time="start",
            settled_kwh="energy_kwh",
            is_estimated=pl.col("quality").is_in(["estimated", "temporary"]).fill_null(value=False),
        )
    )


def _refuse_doubles(settled: pl.DataFrame, linked: pl.DataFrame) -> None:
    twice = settled.filter(settled.select("meter", "time").is_duplicated())
    if len(twice):
        meter, time = twice.sort("meter", "time").row(0)[:2]
        raise ValueError(f"meter {meter} is settled twice at {time:%Y-%m-%d %H:%MZ}; give each quarter hour once")
    double = linked.filter(linked.select("meter", "resource").is_duplicated())
    if len(double):
        meter, resource = double.row(0)[:2]
        raise ValueError(f"resource {resource:016x} is linked twice to meter {meter}; give each link once")


def _metered(quarters: pl.LazyFrame, linked: pl.LazyFrame, period: Period) -> pl.LazyFrame:
    """meter, time, metered_kwh (absent unless all meters are wholly known), estimated_kwh, observed_s, and:

    limited_kwh is the sum of limit times energy, step_kwh the standard uncertainty of what the registers resolve.
    """
    members = linked.group_by("meter").agg(members=pl.len())
    known = pl.col("whole") & pl.col("joules").is_not_null()
    return (
        quarters.filter(pl.col("time") >= moment(period.start), pl.col("time") < moment(period.end))
        .join(linked, on="resource")
        .group_by("meter", "time")
        .agg(
            told=known.sum(),
            kwh=pl.col("joules").sum() / JOULES_PER_KWH,
            estimated_kwh=pl.col("estimated_joules").sum() / JOULES_PER_KWH,
            observed_s=pl.col("observed_s").min(),
            limited_kwh=(pl.col("joules").abs() * pl.col("limit")).sum() / JOULES_PER_KWH,
            step_kwh=pl.col("quantisation_joules").pow(2).sum().sqrt() / JOULES_PER_KWH,
        )
        .join(members, on="meter")
        .select(
            "meter",
            "time",
            "estimated_kwh",
            "limited_kwh",
            "step_kwh",
            metered_kwh=pl.when(pl.col("told") == pl.col("members")).then("kwh"),
            observed_s=pl.when(pl.col("told") == pl.col("members")).then("observed_s").otherwise(0.0),
        )
    )


def _paired(grid: pl.LazyFrame, settled: pl.LazyFrame, ours: pl.LazyFrame) -> pl.LazyFrame:
    return (
        grid.select("meter", "time")
        .join(settled, on=["meter", "time"], how="left")
        .join(ours, on=["meter", "time"], how="left")
        .select(
            "meter",
            "time",
            "settled_kwh",
            "metered_kwh",
            "estimated_kwh",
            "limited_kwh",
            "step_kwh",
            residual_kwh=pl.col("metered_kwh") - pl.col("settled_kwh"),
            is_estimated=pl.col("is_estimated").fill_null(value=False),
            observed_s=pl.col("observed_s").fill_null(0.0).clip(0.0, QUARTER_S),
        )
        .sort("meter", "time")
    )


def _figures(
    told: pl.DataFrame, settled: pl.DataFrame, ours: pl.DataFrame, wanted: pl.DataFrame, period: Period
) -> pl.DataFrame:
    """`Reconciliation.meters`."""
    shifts = pl.DataFrame(
        [(meter, _shift(meter, settled, ours)) for meter in wanted["meter"]],
        schema={"meter": pl.String(), "shift_quarters": pl.Int32()},
        orient="row",
    )
    return (
        _sums(told)
        .join(wanted, on="meter")
        .join(shifts, on="meter", how="left")
        .with_columns(uncertainty_kwh=pl.when(pl.col("paired_quarters") > 0).then(_uncertainty()))
        .with_columns(
            agreement=_agreement(),
            share=pl.when(pl.col("settled_kwh") > 0).then(pl.col("residual_kwh") / pl.col("settled_kwh")),
            coverage=pl.col("observed_s") / period.seconds,
            share_estimated=pl.when(pl.col("metered_kwh") > 0).then(pl.col("estimated_kwh") / pl.col("metered_kwh")),
        )
        .drop("runs", "estimated_kwh", "limited_kwh", "step_kwh", "observed_s", "limit")
        .sort("meter")
    )


def _sums(told: pl.DataFrame) -> pl.DataFrame:
    """By grid meter: how many quarter hours are known on each side, and sums over those known on both."""
    paired = pl.col("residual_kwh").is_not_null()
    # A run begins where the quarter hour is paired and the one before it is not.
    begins = paired & ~paired.shift(fill_value=False)
    return told.group_by("meter", maintain_order=True).agg(
        quarters=pl.len(),
        settled_quarters=pl.col("settled_kwh").count(),
        metered_quarters=pl.col("metered_kwh").count(),
        paired_quarters=paired.sum(),
        runs=begins.sum(),
        settled_kwh=_known("settled_kwh", paired),
        metered_kwh=_known("metered_kwh", paired),
        residual_kwh=_known("residual_kwh", paired),
        estimated_kwh=pl.col("estimated_kwh").filter(paired).sum(),
        limited_kwh=pl.col("limited_kwh").filter(paired).sum(),
        step_kwh=pl.col("step_kwh").filter(paired).max(),
        observed_s=pl.col("observed_s").filter(paired).sum(),
        unpaired_settled_kwh=pl.col("settled_kwh").filter(~paired).sum(),
        unpaired_metered_kwh=pl.col("metered_kwh").filter(~paired).sum(),
        estimated_quarters=pl.col("is_estimated").filter(paired).sum(),
    )


def _known(name: str, paired: pl.Expr) -> pl.Expr:
    """The sum over the paired quarter hours; absent, not 0, when there is none."""
    return pl.when(paired.any()).then(pl.col(name).filter(paired).sum())


def _uncertainty() -> pl.Expr:
    ours = expanded(1.0) * pl.col("limited_kwh")
    grid = expanded(1.0) * pl.col("limit") * pl.col("settled_kwh")
    steps = (_TWO_SIGMA * pl.col("step_kwh").fill_null(0.0)).pow(2) * pl.col("runs")
    return (ours.pow(2) + grid.pow(2) + steps).sqrt()


def _agreement() -> pl.Expr:
    within = pl.col("residual_kwh").abs() <= pl.col("uncertainty_kwh")
    return (
        pl.when(pl.col("paired_quarters") == 0)
        .then(pl.lit(Agreement.NOT_COMPARABLE.value))
        .when(within)
        .then(pl.lit(Agreement.WITHIN.value))
        .otherwise(pl.lit(Agreement.APART.value))
    )


def _shift(meter: str, settled: pl.DataFrame, ours: pl.DataFrame) -> int | None:
    """By how many quarter hours the settlement is late against our meter; None where it fits best as it is.

    That shift whose mean absolute difference is least, if it leaves less than half of what there is without one.
    """
    theirs = settled.filter(pl.col("meter") == meter).select("time", "settled_kwh")
    mine = ours.filter(pl.col("meter") == meter).select("time", "metered_kwh").drop_nulls()
    apart = {}
    for quarters in range(-_MOST_SHIFT_QUARTERS, _MOST_SHIFT_QUARTERS + 1):
        moved = theirs.with_columns(pl.col("time") - quarters * QUARTER)
        differences = mine.join(moved, on="time").select((pl.col("metered_kwh") - pl.col("settled_kwh")).abs())
        if differences.height * 2 > mine.height:  # a few quarter hours fit anywhere
            apart[quarters] = float(differences.mean().item())
    best = min(apart, key=lambda quarters: (apart[quarters], abs(quarters)), default=0)
    unmoved = apart.get(0, math.inf)
    return best if best and apart[best] < _SHIFT_EXPLAINS * unmoved else None


def _days(told: pl.DataFrame, period: Period) -> pl.DataFrame:
    day = pl.col("time").dt.convert_time_zone(period.zone).dt.date()
    return (
        told.group_by("meter", day.alias("day"))
        .agg(
            quarters=pl.len(),
            settled_quarters=pl.col("settled_kwh").count(),
            metered_quarters=pl.col("metered_kwh").count(),
            residual_kwh=_known("residual_kwh", pl.col("residual_kwh").is_not_null()),
        )
        .sort("meter", "day")
    )


def _largest(told: pl.DataFrame) -> pl.DataFrame:
    """The largest differences of each meter, the largest first."""
    size = pl.col("residual_kwh").abs()
    return (
        told.drop_nulls("residual_kwh")
        .filter(size > 0)
        .sort("meter", size, "time", descending=[False, True, False])
        .group_by("meter", maintain_order=True)
        .head(_LARGEST)
    )
