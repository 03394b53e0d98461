"""From readings to what was seen of each GPU, exact to one tick, and from that to its state at each instant."""

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta

import polars as pl

from reports import sla_queries as queries
from reports.efficiency_hours import Health, gpu_pieces, health
from reports.efficiency_queries import Window
from reports.ledger import TIME
from reports.sla_queries import DAYS, STRETCHES
from reports.sweep import joined, overlay
from storage.reader import Reader, Schema

# What was seen, as a layer of the sweep.
SEEN: Schema = {
    "resource": pl.UInt64(),
    "start": TIME,
    "end": TIME,
    "seen": pl.Int64(),
    "dark": pl.Int64(),
    "throttled": pl.Int64(),
    "tick_s": pl.Float64(),  # how often it was read
}
# One state of one thing; `resource` is a GPU, or a unit of a contract.
STATES: Schema = {"resource": pl.UInt64(), "start": TIME, "end": TIME, "health": pl.String()}

_DAY = timedelta(days=1)
_HOUR_S = 3600
_DAY_HOURS = 24


def read_seen(reader: Reader, window: Window, gpus: Sequence[int]) -> pl.DataFrame:
    """SEEN of these GPUs in the window."""
    plain = plain_days(queries.read_days(reader, _whole_days(window)), gpus)
    read = [plain_seen(plain)]
    for part in queries.days_of(window):
        known = plain.filter(pl.col("day") == part.start.date())["resource"]
        asked = sorted(set(gpus) - set(known))
        if asked:
            named = asked if len(asked) <= queries.NAMED_SHARE * len(gpus) else None
            read.append(seen_of(queries.read_stretches(reader, part, named), part, asked))
    return pl.concat(read)


def _whole_days(window: Window) -> Window:
    """The days of UTC that the window touches, and one more on either side."""
    first, last = window.start.date() - _DAY, (window.end - timedelta(microseconds=1)).date() + 2 * _DAY
    return Window(*(datetime.combine(day, time(), UTC) for day in (first, last)))


def plain_days(days: pl.DataFrame, gpus: Sequence[int]) -> pl.DataFrame:
    """Resource and day, of which every reading came and none was amiss: nothing can hide in it. Input DAYS.

    All hours have the same number of ticks, one that divides an hour. A first tick of the next day tells
    of the end of this one, and so does the hour before it of the interval, so both neighbours must agree.
    """
    known = days.filter(pl.col("resource").is_in(list(gpus)))
    even = (pl.col("least_ticks") == pl.col("most_ticks")) & (_HOUR_S % pl.col("most_ticks") == 0)
    whole = known.with_columns(even=even & (pl.col("hours") == _DAY_HOURS) & (pl.col("plain") == 1))
    after = known.select("resource", pl.col("day") - _DAY, next_ticks="first_ticks")
    return (
        whole.join(after, on=["resource", "day"])
        .filter("even", pl.col("next_ticks") == pl.col("most_ticks"))
        .select("resource", "day")
    )


def plain_seen(plain: pl.DataFrame) -> pl.DataFrame:
    """SEEN of plain days."""
    start = pl.col("day").cast(pl.Datetime("ms")).dt.replace_time_zone("UTC")
    days = plain.select("resource", start=start, end=start + _DAY)
    return _layer(days.with_columns(seen=pl.lit(1), dark=pl.lit(0), throttled=pl.lit(0), tick_s=pl.lit(0.0)))


def seen_of(stretches: pl.DataFrame, window: Window, gpus: Sequence[int]) -> pl.DataFrame:
    """SEEN of STRETCHES, cut to the window. A minute of several parts is put in the order that its neighbours suggest:

    what was dark or silent before it comes first, what is so after it comes last. So the length of each part is exact
    to a tick, and its place, too, where one thing changed within the minute.
    """
    known = stretches.filter(pl.col("resource").is_in(list(gpus)))
    length = (pl.col("end") - pl.col("start")).dt.total_milliseconds() / 1000
    even = ((pl.col("observed_s") - length).abs() < _TINY_S) & (
        (pl.col("dark_s") == 0) | (pl.col("dark_s") == pl.col("observed_s"))
    )
    marked = known.sort("resource", "start").with_columns(
        length=length,
        even=even,
        state=pl.when(even & (pl.col("dark_s") > 0)).then(pl.lit("dark")).when(even).then(pl.lit("seen")),
    )
    around = marked.with_columns(before=_neighbour(1, "end", "start"), after=_neighbour(-1, "start", "end"))
    whole = around.filter("even").with_columns(seen=pl.lit(1), dark=pl.col("dark_s") > 0)
    parts = pl.concat([_layer(whole), _layer(_ordered(around.filter(~pl.col("even"))))])
    first, last = (pl.lit(bound).cast(TIME) for bound in (window.start, window.end))
    return parts.with_columns(start=pl.col("start").clip(first, last), end=pl.col("end").clip(first, last)).filter(
        pl.col("start") < pl.col("end")
    )


_TINY_S = 1e-6


def _neighbour(rows: int, theirs: str, mine: str) -> pl.Expr:
    """The state of the stretch beside this one: nothing where there is a gap, absent where it is of several parts."""
    meets = (pl.col(theirs).shift(rows).over("resource") == pl.col(mine)).fill_null(value=False)
    return pl.when(meets).then(pl.col("state").shift(rows).over("resource")).otherwise(pl.lit("silent"))


def _ordered(mixed: pl.DataFrame) -> pl.DataFrame:
    """The parts of minutes of several parts, in their order."""
    parts = {
        "seen": pl.col("observed_s") - pl.col("dark_s"),
        "dark": pl.col("dark_s"),
        "silent": pl.col("length") - pl.col("observed_s"),
    }
    return (
        pl.concat([mixed.with_columns(part=pl.lit(name), part_s=lasts) for name, lasts in parts.items()])
        .filter(pl.col("part_s") > _TINY_S)
        .with_columns(place=_is_next("after") - _is_next("before"))
        .sort("resource", "start", "place", "part", descending=[False, False, False, True])
        .with_columns(_until=(pl.col("part_s").cum_sum().over("resource", "start") * 1000).round().cast(pl.Int64))
        .with_columns(_from=pl.col("_until").shift(1, fill_value=0).over("resource", "start"))
        .filter(pl.col("part") != "silent")
        .select(
            "resource",
            start=pl.col("start") + pl.duration(milliseconds="_from"),
            end=pl.col("start") + pl.duration(milliseconds="_until"),
            seen=pl.lit(1),
            dark=pl.col("part") == "dark",
            throttled="throttled",
            tick_s="tick_s",
        )
    )


def _is_next(side: str) -> pl.Expr:
    return (pl.col("part") == pl.col(side)).fill_null(value=False).cast(pl.Int8)


def _layer(intervals: pl.DataFrame) -> pl.DataFrame:
    return intervals.select(pl.col(name).cast(kind) for name, kind in SEEN.items())


def gpu_states(gpus: pl.DataFrame, seen: pl.DataFrame, outages: pl.DataFrame, window: Window) -> pl.DataFrame:
    """STATES of all `gpus` over the whole window; SEEN and OUTAGES in any order, repeats allowed."""
    told = _without_edges(seen.unique(["resource", "start", "end"]), outages)
    pieces = gpu_pieces(gpus, told, outages, window)
    return joined(pieces.with_columns(health=health()), ["resource"], ["health"])


def _without_edges(seen: pl.DataFrame, outages: pl.DataFrame) -> pl.DataFrame:
    """SEEN without ticks that are dark because maintenance began or ended within them: those are no failure."""
    dark, rest = seen.filter(pl.col("dark") > 0), seen.filter(pl.col("dark") == 0).drop("tick_s")
    tick = pl.duration(milliseconds=(pl.col("tick_s") * 1000).cast(pl.Int64))
    ticks = dark.group_by("resource").agg(pl.col("tick_s").max())
    kept = outages.filter(pl.col("condition") == Health.MAINTENANCE).join(ticks, on="resource")
    edges = pl.concat(
        [
            kept.select("resource", start=pl.col("start") - tick, end="start", edge=pl.lit(1)),
            kept.select("resource", start="end", end=pl.col("end") + tick, edge=pl.lit(1)),
        ]
    )
    pieces = overlay([dark.drop("tick_s"), edges]).filter(pl.col("seen") > 0)
    cleared = pieces.with_columns(dark=pl.when(pl.col("edge") > 0).then(0).otherwise("dark")).drop("edge")
    return pl.concat([rest, cleared.select(rest.columns)])


__all__ = ["DAYS", "SEEN", "STATES", "STRETCHES", "Health", "gpu_states", "plain_days", "read_seen", "seen_of"]
