"""From the state of GPUs to that of units: nodes and racks; and which units a contract covers, and when."""

from datetime import timedelta

import polars as pl

from reports.efficiency_hours import MEMBERS, Health
from reports.efficiency_queries import Window
from reports.ledger import TIME
from reports.sla_readings import STATES
from reports.sla_terms import Terms, UnitKind
from reports.sweep import cut, joined, overlay
from storage.reader import Schema

# What a unit is made of, and when.
PARTS: Schema = {"unit": pl.UInt64(), "part": pl.UInt64(), "start": TIME, "end": TIME}
COVERED: Schema = {"unit": pl.UInt64(), "start": TIME, "end": TIME}


def parts_of(kind: UnitKind, places: pl.DataFrame, tree: pl.DataFrame) -> pl.DataFrame:
    """PARTS: the GPUs of all units of a kind. `tree`: MEMBERS by the tree alone, `places`: PLACES."""
    units = places.filter(pl.col("kind") == kind.resource_kind.value).select(ancestor="resource").unique()
    return _parts(tree.join(units, on="ancestor", how="semi"))


def _parts(members: pl.DataFrame) -> pl.DataFrame:
    return members.select(unit="ancestor", part="gpu", start="valid_from", end="valid_to").select(*PARTS).unique()


def trays_of_racks(racks: pl.DataFrame, trays: pl.DataFrame) -> pl.DataFrame:
    """PARTS: which trays a rack had, from the GPUs that both had at one time."""
    both = racks.join(trays, on="part", suffix="_tray").select(
        "unit",
        part="unit_tray",
        start=pl.max_horizontal("start", "start_tray"),
        end=pl.min_horizontal("end", "end_tray"),
    )
    return joined(overlay([both.with_columns(held=pl.lit(1))], ("unit", "part")).filter(pl.col("held") > 0),
                  ("unit", "part"), ()).select(*PARTS)  # fmt: skip


def unit_states(parts: pl.DataFrame, states: pl.DataFrame, needed: int | None = None) -> pl.DataFrame:
    """STATES of units from those of their parts: a unit is up with so many of its parts, or with all of them.

    Down where even all that may be up is not enough; in maintenance where that alone is why not; unknown where
    nobody can tell (so that silence beside maintenance never hides a failure). With enough parts it is degraded
    if any of them is not healthy. Parts that are needed and that the topology does not know are unknown.
    """
    inside = cut(parts.join(states, left_on="part", right_on="resource", suffix="_state"),
                 pl.col("start_state"), pl.col("end_state"))  # fmt: skip
    marks = [(pl.col("health") == state.value).cast(pl.Int64).alias(state.value) for state in Health]
    counted = overlay([inside.select("unit", "start", "end", *marks)], ("unit",))
    total = pl.sum_horizontal(*(state.value for state in Health))
    enough = total if needed is None else pl.lit(needed)
    missing = pl.max_horizontal(enough - total, pl.lit(0))
    up = pl.col(Health.HEALTHY, Health.DEGRADED)
    known = counted.filter(total > 0).with_columns(
        up=pl.sum_horizontal(up), unknown=pl.col(Health.UNKNOWN) + missing, enough=enough, total=total
    )
    possible = pl.col("up") + pl.col("maintenance") + pl.col("unknown") >= pl.col("enough")
    may_be_up = pl.col("up") + pl.col("unknown") >= pl.col("enough")
    may_be_down = pl.col("up") + pl.col("maintenance") < pl.col("enough")
    health = (
        pl.when((pl.col("up") >= pl.col("enough")) & (pl.col(Health.HEALTHY) < pl.col("total")))
        .then(pl.lit(Health.DEGRADED.value))
        .when(pl.col("up") >= pl.col("enough"))
        .then(pl.lit(Health.HEALTHY.value))
        .when(~possible)
        .then(pl.lit(Health.DOWN.value))
        .when(may_be_up | may_be_down)
        .then(pl.lit(Health.UNKNOWN.value))
        .otherwise(pl.lit(Health.MAINTENANCE.value))
    )
    states_of = known.select("start", "end", resource="unit", health=health)
    return joined(states_of, ["resource"], ["health"]).select(*STATES)


def covered_units(terms: Terms, allocations: pl.DataFrame, parts: pl.DataFrame, tree: pl.DataFrame) -> pl.DataFrame:
    """COVERED: the units of a contract while its terms hold, by what is allocated to it.

    `allocations`: contract, resource (an id), start, end (absent while it lasts). What is allocated stands
    for all units below it.
    """
    given = allocations.filter(pl.col("contract") == terms.contract).with_columns(
        pl.col("end").fill_null(pl.lit(terms.end).cast(TIME))
    )
    held = cut(given, pl.lit(terms.start), pl.lit(terms.end))
    gpus = cut(held.join(tree, left_on="resource", right_on="ancestor"), pl.col("valid_from"), pl.col("valid_to"))
    units = parts.rename({"start": "since", "end": "until"})
    found = cut(gpus.join(units, left_on="gpu", right_on="part"), pl.col("since"), pl.col("until"))
    pieces = overlay([found.select(*COVERED, covered=pl.lit(1))], ("unit",)).filter(pl.col("covered") > 0)
    return joined(pieces, ["unit"], []).select(*COVERED)


def rivals(coverage: pl.DataFrame) -> pl.DataFrame:
    """Where one GPU is covered by two contracts at a time: gpu, start, end. Input: gpu, contract, start, end."""
    each = joined(
        overlay([coverage.select("gpu", "contract", "start", "end", held=pl.lit(1))], ("gpu", "contract")).filter(
            pl.col("held") > 0
        ),
        ["gpu", "contract"],
        [],
    )
    both = overlay([each.select("gpu", "start", "end", contracts=pl.lit(1))], ("gpu",))
    return joined(both.filter(pl.col("contracts") > 1), ["gpu"], []).select("gpu", "start", "end")


def padded(window: Window, terms: tuple[Terms, ...], least: timedelta) -> Window:
    """The window with so much on either side that the shortest outage that counts is judged whole."""
    longest = max((one.minimum_outage for one in terms), default=timedelta(0))
    hours = timedelta(hours=-(-max(longest, least) // timedelta(hours=1)))
    return Window(window.start - hours, window.end + hours)


__all__ = ["COVERED", "MEMBERS", "PARTS", "covered_units", "padded", "parts_of", "rivals", "trays_of_racks"]
