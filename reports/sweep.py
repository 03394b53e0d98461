"""Lays intervals of all kinds over one another: between two neighbouring bounds nothing changes.

Time is counted in whole milliseconds, so that sums are exact, and each piece of time has one answer.
"""

from collections.abc import Iterable, Sequence

import polars as pl

from storage.reader import TIME

RESOURCE = ("resource",)
HOUR_MS = 3_600_000


def overlay(layers: Iterable[pl.DataFrame], keys: Sequence[str] = RESOURCE) -> pl.DataFrame:
    """Pieces of time by key: keys, start, end, and what the layers mark, summed over the intervals that hold there.

    A layer has the keys, `start`, `end` and columns of numbers or claims, its marks. Intervals may overlap, and
    come in any order; those without length are none. Where nothing holds a mark is 0. Pieces are in order.
    """
    edges = pl.concat([_edges(layer, keys) for layer in layers], how="diagonal")
    marks = [name for name in edges.columns if name not in (*keys, "time")]
    return (
        edges.group_by(*keys, "time")
        .agg(pl.col(marks).sum())
        .sort(*keys, "time")
        .with_columns(*(pl.col(name).cum_sum().over(keys) for name in marks), end=pl.col("time").shift(-1).over(keys))
        .filter(pl.col("end").is_not_null())
        .select(*keys, pl.col("time").alias("start"), "end", *marks)
    )


def _edges(layer: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Each interval as what begins at its start and ends at its end."""
    marks = [name for name in layer.columns if name not in (*keys, "start", "end")]
    held = layer.filter(pl.col("start") < pl.col("end")).with_columns(
        pl.col("start", "end").cast(TIME),
        *(pl.col(name) if layer.schema[name].is_float() else pl.col(name).cast(pl.Int64) for name in marks),
    )
    begins = held.select(*keys, *marks, time="start")
    ends = held.select(*keys, *(-pl.col(name) for name in marks), time="end")
    return pl.concat([begins, ends])


def joined(pieces: pl.DataFrame, keys: Sequence[str], by: Sequence[str]) -> pl.DataFrame:
    """Pieces that follow one another without a gap and agree in the columns `by`, as one: keys, start, end, by."""
    ordered = pieces.sort(*keys, "start")
    same = [pl.col(name).eq_missing(pl.col(name).shift(1)) for name in (*keys, *by)]
    goes_on = pl.all_horizontal(*same, pl.col("start") == pl.col("end").shift(1)).fill_null(value=False)
    return (
        ordered.with_columns(_run=(~goes_on).cum_sum())
        .group_by("_run", maintain_order=True)
        .agg(pl.col(*keys, *by).first(), pl.col("start").min(), pl.col("end").max())
        .select(*keys, "start", "end", *by)
    )


def cut(intervals: pl.DataFrame, first: pl.Expr, last: pl.Expr) -> pl.DataFrame:
    """Intervals within two bounds; what lies outside is left out."""
    return intervals.with_columns(
        start=pl.max_horizontal(pl.col("start").cast(TIME), first.cast(TIME)),
        end=pl.min_horizontal(pl.col("end").cast(TIME), last.cast(TIME)),
    ).filter(pl.col("start") < pl.col("end"))


def milliseconds() -> pl.Expr:
    """How long an interval lasts."""
    return (pl.col("end") - pl.col("start")).dt.total_milliseconds()
