"""The account of a contract: what each millisecond of each of its units was, by telemetry and by its terms.

All functions are pure, and sums are exact: accounts of two neighbouring windows add up to that of both.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from fractions import Fraction

import polars as pl

from reports.efficiency_hours import Health
from reports.efficiency_queries import Window
from reports.ledger import TIME
from reports.sla_terms import Cause, Terms, UnitKind, UnknownCounts
from reports.sla_units import trays_of_racks, unit_states
from reports.sweep import cut, joined, milliseconds, overlay
from storage.reader import Schema


class Counts(StrEnum):
    """What a piece of time is by contract. A short outage was down, and does not count."""

    UP = "up"
    DOWN = "down"
    SHORT = "short"
    EXCLUDED = "excluded"


# Each piece belongs to no outage, or to that from `out_start` to `out_end`, which may lie outside the window.
ACCOUNT: Schema = {
    "unit": pl.UInt64(),
    "start": TIME,
    "end": TIME,
    "health": pl.String(),
    "counts": pl.String(),
    "cause": pl.String(),  # of an exclusion, else empty
    "out_start": TIME,
    "out_end": TIME,
}
_CODES: Mapping[str, int] = {state.value: number for number, state in enumerate(Health, start=1)}
_NAMES: Mapping[int, str] = {number: name for name, number in _CODES.items()}
_UP = [_CODES[Health.HEALTHY], _CODES[Health.DEGRADED]]


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """What units are made of: PARTS of GPUs, and for racks the PARTS of trays that count."""

    kind: UnitKind
    gpus: pl.DataFrame
    trays: pl.DataFrame | None = None

    @classmethod
    def of(cls, kind: UnitKind, by_kind: Mapping[UnitKind, pl.DataFrame]) -> "Made":
        return cls(kind, by_kind[kind], by_kind[UnitKind.NODE] if kind is UnitKind.RACK else None)

    def only(self, units: pl.DataFrame) -> "Made":
        """That of some units; `units` has a column `unit`."""
        gpus = self.gpus.join(units, on="unit", how="semi")
        return Made(self.kind, gpus, None if self.trays is None else self.trays.join(gpus, on="part", how="semi"))

    def states(self, states: pl.DataFrame, minimum_trays: int | None) -> pl.DataFrame:
        """STATES of the units, from those of GPUs."""
        if self.trays is None:
            return unit_states(self.gpus, states)
        return unit_states(trays_of_racks(self.gpus, self.trays), unit_states(self.trays, states), minimum_trays)


def account_of(
    terms: Terms, covered: pl.DataFrame, made: Made, states: pl.DataFrame, excluded: pl.DataFrame, window: Window
) -> pl.DataFrame:
    """ACCOUNT of the contract's units, in the window and while they are covered.

    `states`: STATES of GPUs, over a wider window, so that an outage is judged by its whole length.
    `excluded`: gpu, start, end, cause: what the terms leave out. A unit's time is left out while all its GPUs are, or
    while it would be up if those that are were well. Input in any order, repeats allowed.
    """
    made = made.only(covered)
    gpus = made.gpus.select(resource="part").unique()
    known = states.join(gpus, on="resource", how="semi").unique()
    left_out = excluded.join(gpus, left_on="gpu", right_on="resource", how="semi").unique()
    layers = [
        _coded(made.states(known, terms.minimum_trays), "raw"),
        _coded(made.states(_forgiven(known, left_out), terms.minimum_trays), "forgiven"),
        *_left_out(made, left_out),
        covered.select("unit", "start", "end", covered=pl.lit(1)),
        covered.select("unit", start=pl.lit(window.start), end=pl.lit(window.end), inside=pl.lit(1)).unique(),
    ]
    pieces = overlay(layers, ("unit",)).filter(pl.col("raw") > 0)
    judged = _judged(_capped(pieces.with_columns(_exclusion()), terms.maintenance_cap), terms)
    return (
        judged.filter(pl.col("covered") > 0, pl.col("inside") > 0)
        .select(pl.col(name).cast(kind) for name, kind in ACCOUNT.items())
        .sort("unit", "start")
    )


def _coded(states: pl.DataFrame, mark: str) -> pl.DataFrame:
    code = pl.col("health").replace_strict(_CODES, return_dtype=pl.Int64)
    return states.select("start", "end", code.alias(mark), unit="resource")


def _forgiven(states: pl.DataFrame, left_out: pl.DataFrame) -> pl.DataFrame:
    """STATES of GPUs as if those that are left out were well."""
    marks = left_out.select("start", "end", resource="gpu", out=pl.lit(1))
    coded = states.select(
        "resource", "start", "end", code=pl.col("health").replace_strict(_CODES, return_dtype=pl.Int64)
    )
    pieces = overlay([coded, marks]).filter(pl.col("code") > 0)
    code = pl.when(pl.col("out") > 0).then(_CODES[Health.HEALTHY]).otherwise("code")
    return pieces.select("resource", "start", "end", health=code.replace_strict(_NAMES, return_dtype=pl.String))


def _left_out(made: Made, left_out: pl.DataFrame) -> list[pl.DataFrame]:
    """Layers of units: how many GPUs they have, how many are left out, and of those how many for maintenance alone."""
    out = cut(made.gpus.join(left_out, left_on="part", right_on="gpu", suffix="_out"),
              pl.col("start_out"), pl.col("end_out"))  # fmt: skip
    whole = ("unit", "part")
    each = overlay([out.select(*whole, "start", "end", "cause", held=pl.lit(1)).drop("cause")], whole)
    once = joined(each.filter(pl.col("held") > 0), whole, [])
    layers = [
        made.gpus.select("unit", "start", "end", gpus=pl.lit(1)),
        once.select("unit", "start", "end", gpus_out=pl.lit(1)),
    ]
    by_cause = (
        out.filter(pl.col("cause") == cause.value).select("unit", "start", "end", pl.lit(1).alias(cause.value))
        for cause in Cause
    )
    return [*layers, *by_cause]


def _exclusion() -> pl.Expr:
    """The cause for which a piece of a unit's time is left out, empty where it is not."""
    all_out = (pl.col("gpus_out") > 0) & (pl.col("gpus_out") >= pl.col("gpus"))
    is_why = (pl.col("gpus_out") > 0) & ~pl.col("raw").is_in(_UP) & pl.col("forgiven").is_in(_UP)
    # Where several hold, maintenance comes last: it alone has a cap.
    ordered = [cause for cause in Cause if cause is not Cause.MAINTENANCE] + [Cause.MAINTENANCE]
    cause = pl.coalesce(*(pl.when(pl.col(one.value) > 0).then(pl.lit(one.value)) for one in ordered))
    return pl.when(all_out | is_why).then(cause).otherwise(pl.lit("")).alias("cause")


def _capped(pieces: pl.DataFrame, cap: timedelta | None) -> pl.DataFrame:
    """Pieces of which no more maintenance is left out than the cap, the first first; where it is used up one is cut.

    Only what lies in the window and is covered uses the cap up.
    """
    if cap is None:
        return pieces
    cap_ms = cap // timedelta(milliseconds=1)
    counted = (pl.col("cause") == Cause.MAINTENANCE) & (pl.col("covered") > 0) & (pl.col("inside") > 0)
    used = pl.when(counted).then(milliseconds()).otherwise(0)
    summed = pieces.sort("unit", "start").with_columns(
        _counted=counted, _left=pl.lit(cap_ms) - used.cum_sum().over("unit") + used
    )
    allowed = pl.col("_left").clip(0, milliseconds())
    at = pl.when("_counted").then(pl.col("start") + pl.duration(milliseconds=allowed)).otherwise("end")
    split = summed.with_columns(_at=at)
    within = split.with_columns(end="_at")
    beyond = split.with_columns(start="_at", cause=pl.lit(""))
    return pl.concat([within, beyond]).filter(pl.col("start") < pl.col("end")).drop("_counted", "_left", "_at")


def _judged(pieces: pl.DataFrame, terms: Terms) -> pl.DataFrame:
    """Pieces with health, counts, and the bounds of the outage that each belongs to."""
    health = pl.col("raw").replace_strict(_NAMES, return_dtype=pl.String)
    unknown = {UnknownCounts.UP: Counts.UP, UnknownCounts.DOWN: Counts.DOWN, UnknownCounts.EXCLUDED: Counts.EXCLUDED}
    counts = (
        pl.when(pl.col("cause") != "")
        .then(pl.lit(Counts.EXCLUDED.value))
        .when(health == Health.UNKNOWN)
        .then(pl.lit(unknown[terms.unknown].value))
        .when(health.is_in([Health.DOWN.value, Health.MAINTENANCE.value]))
        .then(pl.lit(Counts.DOWN.value))
        .otherwise(pl.lit(Counts.UP.value))
    )
    told = pieces.sort("unit", "start").with_columns(health=health, counts=counts)
    is_down = pl.col("counts") == Counts.DOWN
    runs = _bounds(_bounds(told, is_down, "_down"), (pl.col("health") == Health.DOWN) | is_down, "out")
    lasted = pl.col("_down_end") - pl.col("_down_start")
    short = is_down & (lasted < pl.lit(terms.minimum_outage))
    return runs.with_columns(counts=pl.when(short).then(pl.lit(Counts.SHORT.value)).otherwise("counts"))


def _bounds(pieces: pl.DataFrame, holds: pl.Expr, name: str) -> pl.DataFrame:
    """Sorted pieces with start and end of the run of neighbours in which a claim holds; absent where it does not."""
    marked = pieces.with_columns(_holds=holds)
    goes_on = (
        (pl.col("_holds") == pl.col("_holds").shift(1))
        & (pl.col("unit") == pl.col("unit").shift(1))
        & (pl.col("start") == pl.col("end").shift(1))
    )
    run = (~goes_on.fill_null(value=False)).cum_sum()
    return (
        marked.with_columns(_run=run)
        .with_columns(
            pl.when("_holds").then(pl.col("start").min().over("_run")).alias(f"{name}_start"),
            pl.when("_holds").then(pl.col("end").max().over("_run")).alias(f"{name}_end"),
        )
        .drop("_holds", "_run")
    )


@dataclass(frozen=True, slots=True)
class Sums:
    """Milliseconds of any pieces of an ACCOUNT: by health, which is all of them, and by what counts, as well."""

    health_ms: Mapping[Health, int]
    counts_ms: Mapping[Counts, int]

    @property
    def total_ms(self) -> int:
        return sum(self.health_ms.values())

    @property
    def seen_share(self) -> Fraction | None:
        """The share of the time of which telemetry told."""
        return _share(self.total_ms - self.health_ms[Health.UNKNOWN], self.total_ms)

    @property
    def working_ms(self) -> int:
        return self.health_ms[Health.HEALTHY] + self.health_ms[Health.DEGRADED]

    @property
    def technical(self) -> Fraction | None:
        """Availability by telemetry: unknown time is not available. Absent where all of it was maintenance."""
        return _share(self.working_ms, self.total_ms - self.health_ms[Health.MAINTENANCE])

    @property
    def technical_at_most(self) -> Fraction | None:
        """The same if all unknown time was good: the truth lies between the two."""
        working_ms = self.working_ms + self.health_ms[Health.UNKNOWN]
        return _share(working_ms, self.total_ms - self.health_ms[Health.MAINTENANCE])

    @property
    def up_ms(self) -> int:
        return self.counts_ms[Counts.UP] + self.counts_ms[Counts.SHORT]

    @property
    def down_ms(self) -> int:
        return self.counts_ms[Counts.DOWN]

    @property
    def contractual(self) -> Fraction | None:
        """Availability by the terms. Absent where all of it is left out."""
        return _share(self.up_ms, self.up_ms + self.down_ms)


def _share(part: int, whole: int) -> Fraction | None:
    return None if whole == 0 else Fraction(part, whole)


def sums(account: pl.DataFrame) -> Sums:
    """All of an account together."""
    return _sums(account.select("health", "counts", ms=milliseconds()))


def sums_by(account: pl.DataFrame, column: str) -> dict[int, Sums]:
    """By unit, or by another column."""
    told = account.select(column, "health", "counts", ms=milliseconds())
    grouped = told.group_by(column, "health", "counts").agg(pl.col("ms").sum())
    return {key: _sums(some) for (key,), some in grouped.group_by(column)}


def _sums(told: pl.DataFrame) -> Sums:
    health, counts = (dict(told.group_by(axis).agg(pl.col("ms").sum()).iter_rows()) for axis in ("health", "counts"))
    return Sums({state: health.get(state, 0) for state in Health}, {word: counts.get(word, 0) for word in Counts})
