"""Lemons: nodes that fail more often than chance explains, if all nodes failed alike; pure functions.

If every node fails at the fleet's rate, a node's failures are Poisson distributed with mean
  m = fleet's failures x node's time / fleet's time,
and P(X >= k) = 1 - sum over i < k of exp(-m) m^i / i!. Among N nodes N P of them reach k by chance: a node is a
lemon where that is below 0.05 nodes. That all fail alike is the hypothesis, not the truth: real fleets have more
than one class of hazard, so nodes just above the limit deserve a look and not a verdict.
"""

import math

import polars as pl

from storage.reader import Schema

LEMON_BELOW_NODES = 0.05

NODES: Schema = {
    "node": pl.UInt64(),
    "name": pl.String(),
    "rack_name": pl.String(),
    "exposure_s": pl.Float64(),  # time for which the node was there
    "failures": pl.UInt32(),
    "throttled_s": pl.Float64(),  # of its GPUs, by heat, brake or sync boost
}
LEMONS: Schema = {
    **NODES,
    "expected": pl.Float64(),
    "probability": pl.Float64(),
    "by_chance": pl.Float64(),
    "lemon": pl.Boolean(),
}


def poisson_tail(count: int, mean: float) -> float:
    """P(X >= count) for X Poisson distributed with the mean; summed from the tail, so that it keeps its digits."""
    if count <= 0:
        return 1.0
    if mean <= 0:
        return 0.0
    if count <= mean:
        return 1.0 - math.fsum(_term(i, mean) for i in range(count))
    total, i = 0.0, count
    while True:
        term = _term(i, mean)
        total += term
        if term <= total * 1e-16:
            return total
        i += 1


def judge_nodes(nodes: pl.DataFrame) -> pl.DataFrame:
    """LEMONS: NODES with what chance explains, the least likely first; empty where nothing failed."""
    failures, exposure = int(nodes["failures"].sum()), float(nodes["exposure_s"].sum())
    if not failures or exposure <= 0:
        return pl.DataFrame(schema=dict(LEMONS))
    with_mean = nodes.with_columns(expected=failures * pl.col("exposure_s") / exposure)
    cases = with_mean.select("failures", "expected").unique()
    tails = [poisson_tail(count, mean) for count, mean in cases.iter_rows()]
    by_chance = pl.col("probability") * nodes.height
    return (
        with_mean.join(cases.with_columns(probability=pl.Series(tails, dtype=pl.Float64)), on=["failures", "expected"])
        .with_columns(by_chance=by_chance, lemon=by_chance < LEMON_BELOW_NODES)
        .select(pl.col(name).cast(kind) for name, kind in LEMONS.items())
        .sort(["probability", "throttled_s", "node"], descending=[False, True, False])
    )


def _term(count: int, mean: float) -> float:
    return math.exp(count * math.log(mean) - mean - math.lgamma(count + 1))
