"""Conservation of energy between meters: what goes into a place, what comes out of it, and the residual.

A balance has terms: meters that count what enters, and meters that count what leaves. The tree of
site, feeder, rack, tray and GPU gives such balances by itself (`terms_of_tree`); those of heat (what
the loops take up against what is handed over and rejected) are stated. Every meter enters a balance
once: of meters in series only the nearest counts.

Units: energy in J, time in s; `time` is UTC. Every residual has a sign: positive where more went in.
"""

from enum import StrEnum

import polars as pl

from reports.period import QUARTER, QUARTER_S, Period
from reports.readings import TIME, Schema, expect, moment, seconds

TREE: Schema = {
    "resource": pl.UInt64(),
    "parent": pl.UInt64(),  # 0 for none
    "start": TIME,  # since when; a resource that was moved has a row for each place
    "end": TIME,  # absent while it lasts
    "metered": pl.Boolean(),  # whether something counts its energy, heard or not
}
TERMS: Schema = {
    "balance": pl.UInt64(),  # the place whose balance it is
    "resource": pl.UInt64(),
    "side": pl.String(),  # a Side
    "start": TIME,
    "end": TIME,
}
ENERGIES: Schema = {
    "resource": pl.UInt64(),
    "time": TIME,  # start of the quarter hour
    "joules": pl.Float64(),  # absent where it is not known
    "observed_s": pl.Float64(),
    "uncertainty_joules": pl.Float64(),  # expanded, k = 2, of errors that last
}
ENERGIES_MAY_HAVE: Schema = {
    "estimated_joules": pl.Float64(),
    "quantisation_joules": pl.Float64(),  # standard, k = 1, as the ledger's
}
EXPECTED: Schema = {
    "balance": pl.UInt64(),
    "low_share": pl.Float64(),  # what may be lost on the way, as a share of what enters
    "high_share": pl.Float64(),
}

# Of both sides of a quarter hour so much must have been observed: what is missing looks like a loss.
COMPARED_FROM = 0.99
# Of a period so much must have been compared; from here on figures are "measured with gaps".
JUDGED_FROM = 0.95
# Sums of thousands of terms carry this much rounding, as a share.
_ROUNDING = 1e-9
# site, hall, row, rack, tray, GPU, and a feeder and a meter beside them: no chain of unmetered places is longer.
MOST_LEVELS = 8


class Side(StrEnum):
    """On which side of a balance a meter counts."""

    IN = "in"
    OUT = "out"


class Verdict(StrEnum):
    """What a residual means."""

    HOLDS = "holds within uncertainty"
    UNEXPLAINED = "residual unexplained"
    NOT_COMPARABLE = "not comparable: coverage"


def terms_of_tree(tree: pl.LazyFrame) -> pl.LazyFrame:
    """TERMS of every metered place that has metered places below it: itself in, the nearest of those out.

    Input TREE, repeats allowed. Below a place without a meter its own parts count in its stead, so
    that each path down enters once. A place that was moved counts to each parent for its time there.
    What forms a circle, or lies deeper than MOST_LEVELS unmetered places, counts nowhere.
    """
    edges, metered = _edges(tree)
    own = metered.filter("metered").select("resource")
    below = _climbed(edges, metered).join(own, on="resource", how="semi")
    out = below.select("resource", "start", "end", balance="parent", side=pl.lit(Side.OUT.value)).select(*TERMS)
    always = [pl.lit(None, TIME).alias(name) for name in ("start", "end")]
    entering = out.select(pl.col("balance").unique()).with_columns(
        *always, resource="balance", side=pl.lit(Side.IN.value)
    )
    return pl.concat([entering.select(*TERMS), out])


def quarter_balances(terms: pl.LazyFrame, energies: pl.LazyFrame, period: Period) -> pl.LazyFrame:
    """Both sides of each balance in each quarter hour of the period.

    Input TERMS and ENERGIES, in any order, repeats allowed. A quarter hour in which a side has no
    meter, as when all parts of a place were moved away, is left out. Output, sorted by balance and time:
    balance, time, in_joules, out_joules, in_coverage, out_coverage, compared, residual_joules,
    in_uncertainty_joules, out_uncertainty_joules, estimated_joules (of both sides),
    quantisation_square_joules.

      in_joules  = sum of E_i · s_i, s_i the share of the quarter hour that meter i belongs to the balance
      coverage   = sum of observed seconds / sum of s_i · 900 s, of each side
      compared   = both coverages >= 0.99
      residual_joules = in_joules - out_joules, absent unless compared
    A side's uncertainty is the sum of its meters' (they err together, JCGM 100:2008, clause 5.2.2,
    r = 1), and what the observed share leaves open: E · (1 / coverage - 1).
    """
    energies = expect(energies, ENERGIES, ENERGIES_MAY_HAVE).group_by("resource", "time").agg(pl.all().max())
    shares = _shares(expect(terms, TERMS).unique(), period)
    sides = (
        shares.join(energies, on=["resource", "time"], how="left")
        .group_by("balance", "time", "side")
        .agg(
            joules=(pl.col("joules") * pl.col("share")).sum(),
            expected_s=pl.col("share").sum() * QUARTER_S,
            observed_s=_observed().sum(),
            estimated=(pl.col("estimated_joules") * pl.col("share")).sum(),
            uncertainty=(pl.col("uncertainty_joules") * pl.col("share")).sum(),
            quantisation=((pl.col("quantisation_joules") * pl.col("share")) ** 2).sum(),
        )
        .with_columns(coverage=pl.col("observed_s") / pl.col("expected_s"))
        .with_columns(uncertainty=pl.col("uncertainty") + _open())
    )
    return _side_by_side(sides).sort("balance", "time")


def balances(quarters: pl.LazyFrame, expected: pl.LazyFrame | None = None) -> pl.LazyFrame:
    """Each balance over all its quarter hours.

    Input: what `quarter_balances` gives, and EXPECTED for balances that may lose energy between
    their meters. Output, sorted by balance: balance, in_joules, out_joules, residual_joules,
    residual_share (of in_joules), uncertainty_joules (expanded, k = 2), coverage, share_estimated (of
    both sides' energy), verdict.

    Sums are over the quarter hours that are compared, so that both sides cover the same time;
    coverage = their seconds / all seconds.
      U = sqrt(U_in² + U_out² + 4 · n · sum(q_i²))
    U_in and U_out add up over time (errors last); both sides are unlike meters, so they combine in
    squares (JCGM 100:2008, clause 5.1.2); q_i are the registers' roundings, once for each of the n
    stretches of time that are compared. The verdict:
      not comparable   coverage < 0.95
      holds            low_share · in - U <= residual <= high_share · in + U; both shares 0 if not stated
      unexplained      otherwise
    """
    uncertainties = ("in_uncertainty_joules", "out_uncertainty_joules")
    sums = ("in_joules", "out_joules", "residual_joules", "estimated_joules", *uncertainties)
    compared = pl.col("compared")
    stretch = compared & (pl.col("time").diff() != QUARTER).fill_null(value=True)
    after_gap = compared & ~pl.col("compared").shift(fill_value=False)
    totals = (
        quarters.sort("balance", "time")
        .with_columns(begins=(stretch | after_gap).over("balance"))
        .group_by("balance")
        .agg(
            *(pl.when(compared.any()).then(pl.col(name).filter(compared).sum()) for name in sums),
            coverage=compared.mean(),
            rounding=pl.col("begins").sum() * pl.col("quantisation_square_joules").filter(compared).max(),
        )
    )
    both = pl.col("in_joules") + pl.col("out_joules")
    u_in, u_out = pl.col("in_uncertainty_joules"), pl.col("out_uncertainty_joules")
    uncertainty = (u_in**2 + u_out**2 + 4 * pl.col("rounding").fill_null(0.0)).sqrt()
    return (
        _with_expected(totals, expected)
        .with_columns(uncertainty_joules=uncertainty)
        .select(
            "balance",
            "in_joules",
            "out_joules",
            "residual_joules",
            residual_share=pl.when(pl.col("in_joules") > 0).then(pl.col("residual_joules") / pl.col("in_joules")),
            uncertainty_joules="uncertainty_joules",
            coverage="coverage",
            share_estimated=pl.when(both > 0).then(pl.col("estimated_joules") / both),
            verdict=_verdict(),
        )
        .sort("balance")
    )


def _edges(tree: pl.LazyFrame) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    """The tree without repeats and loops of one, and whether each place is metered."""
    edges = expect(tree, TREE).filter(pl.col("resource") != pl.col("parent")).unique()
    return edges, edges.group_by("resource").agg(pl.col("metered").any())


def _climbed(edges: pl.LazyFrame, metered: pl.LazyFrame) -> pl.LazyFrame:
    """Every place with the nearest metered place above it, and the time for which that was so."""
    state = metered.select(parent="resource", parent_metered="metered")
    above = edges.select("parent", "start", "end", at="resource")
    here, reached = edges.select(*_EDGE), []
    for _ in range(MOST_LEVELS):
        known = here.join(state, on="parent")
        reached.append(known.filter("parent_metered").select(*_EDGE))
        here = (
            known.filter(~pl.col("parent_metered"))
            .join(above, left_on="parent", right_on="at", suffix="_above")
            .select(
                "resource",
                parent="parent_above",
                start=pl.max_horizontal("start", "start_above"),
                end=pl.min_horizontal("end", "end_above"),
            )
            .filter((pl.col("start") < pl.col("end")).fill_null(value=True))
        )
    return pl.concat(reached)


_EDGE = ("resource", "parent", "start", "end")


def _shares(terms: pl.LazyFrame, period: Period) -> pl.LazyFrame:
    """Each term in each quarter hour with the share of it for which it holds; those without are left out."""
    quarters = period.edges().filter(pl.col("time") < moment(period.end))
    begin = pl.max_horizontal("time", "start")
    end = pl.min_horizontal(pl.col("time") + QUARTER, "end")
    return (
        terms.join(quarters, how="cross")
        .with_columns(share=seconds(end - begin) / QUARTER_S)
        .filter(pl.col("share") > 0)
        .group_by("balance", "resource", "side", "time")
        .agg(pl.col("share").sum().clip(upper_bound=1.0))
    )


def _observed() -> pl.Expr:
    """Observed seconds of a term; none where its energy is not known."""
    return pl.when(pl.col("joules").is_not_null()).then(pl.col("observed_s") * pl.col("share")).otherwise(0.0)


def _open() -> pl.Expr:
    """J that may be missing from a side of which only a share was observed."""
    return pl.when(pl.col("coverage") > 0).then(pl.col("joules") * (1 / pl.col("coverage") - 1)).otherwise(0.0)


def _side_by_side(sides: pl.LazyFrame) -> pl.LazyFrame:
    def of(name: str, side: Side) -> pl.Expr:
        return pl.col(name).filter(pl.col("side") == side.value).first()

    compared = pl.min_horizontal("in_coverage", "out_coverage") >= COMPARED_FROM
    return (
        sides.group_by("balance", "time")
        .agg(
            in_joules=of("joules", Side.IN),
            out_joules=of("joules", Side.OUT),
            in_coverage=of("coverage", Side.IN),
            out_coverage=of("coverage", Side.OUT),
            in_uncertainty_joules=of("uncertainty", Side.IN),
            out_uncertainty_joules=of("uncertainty", Side.OUT),
            estimated_joules=pl.col("estimated").sum(),
            quantisation_square_joules=pl.col("quantisation").sum(),
        )
        .drop_nulls(["in_coverage", "out_coverage"])
        .with_columns(compared=compared)
        .with_columns(residual_joules=pl.when("compared").then(pl.col("in_joules") - pl.col("out_joules")))
    )


def _with_expected(totals: pl.LazyFrame, expected: pl.LazyFrame | None) -> pl.LazyFrame:
    if expected is None:
        return totals.with_columns(low_share=pl.lit(0.0), high_share=pl.lit(0.0))
    stated = expect(expected, EXPECTED).group_by("balance").agg(pl.all().max())
    joined = totals.join(stated, on="balance", how="left")
    return joined.with_columns(pl.col("low_share", "high_share").fill_null(0.0))


def _verdict() -> pl.Expr:
    entering = pl.col("in_joules")
    margin = pl.col("uncertainty_joules") + _ROUNDING * entering
    low, high = pl.col("low_share") * entering - margin, pl.col("high_share") * entering + margin
    return (
        pl.when((pl.col("coverage") < JUDGED_FROM) | pl.col("residual_joules").is_null())
        .then(pl.lit(Verdict.NOT_COMPARABLE.value))
        .when(pl.col("residual_joules").is_between(low, high))
        .then(pl.lit(Verdict.HOLDS.value))
        .otherwise(pl.lit(Verdict.UNEXPLAINED.value))
    )
