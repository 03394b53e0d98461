"""Running totals of each meter, and their values at any time."""

from collections.abc import Sequence

import polars as pl


def interpolate(steps: pl.LazyFrame, points: pl.LazyFrame, totals: Sequence[str]) -> pl.LazyFrame:
    """`points` (resource, time and what else they have) with the running totals of `steps` at them.

    `steps`: resource, start, time and the columns of `totals`, in any order, none overlapping another
    of its resource. Totals run from 0 at a resource's first step; they are linear within a step, and
    level before the first, after the last and where steps leave a hole. Sorted by time and resource.
    """
    before = {f"{name}_before": pl.col(name).cum_sum().shift(1, fill_value=0.0).over("resource") for name in totals}
    within = {f"{name}_within": pl.col(name) for name in totals}
    curve = (
        steps.sort("resource", "start")
        .select("resource", begin="start", end="time", **before, **within)
        .sort("begin", "resource")
    )
    at = points.sort("time", "resource").join_asof(
        curve, left_on="time", right_on="begin", by="resource", strategy="backward", check_sortedness=False
    )
    passed_ms, span_ms = ((pl.col(name) - pl.col("begin")).dt.total_milliseconds() for name in ("time", "end"))
    share = (passed_ms / span_ms).clip(0.0, 1.0)
    values = {name: (pl.col(f"{name}_before") + share * pl.col(f"{name}_within")).fill_null(0.0) for name in totals}
    return at.with_columns(**values).drop("begin", "end", *before, *within)
