"""The balances of a site: grid to halls to racks to trays to GPUs, and racks to loops to off-takers.

Wired from the inventory with its times: a rack that was moved counts to each feeder for its time there.
`conservation` computes; this module says which meters stand on which side, and what may be lost between them.

Units: energy in J; `time` is UTC.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import polars as pl

from reports.conservation import EXPECTED, TERMS, Side, balances, quarter_balances
from reports.figures import Role
from reports.period import QUARTER_S, Period

# Balances of the whole site have no place of their own.
WHOLE_SITE = 0


class Level(StrEnum):
    """Between which meters a balance is drawn; in the order in which they are shown."""

    SITE = "grid to sub-meters"
    FEEDER = "IT meter to racks"
    RACK = "rack to trays"
    TRAY = "trays to GPUs"
    LOOP = "racks to loop"
    HEAT = "loops to heat meters"


@dataclass(frozen=True, slots=True)
class Share:
    """What may be lost on the way, as shares of what enters."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ExpectedLosses:
    """What each balance may lose. Configuration: the defaults are engineering ranges, not measurements.

    `site`: transformers and supplies; `feeder`: busbars; `rack`: supplies and NVLink switches; `tray`: processors,
    network and regulators (all but GPUs); `loop`: the share that racks give to air; `heat`: pipes.
    """

    site: Share = Share(0.0, 0.06)
    feeder: Share = Share(0.0, 0.03)
    rack: Share = Share(0.0, 0.25)
    tray: Share = Share(0.0, 0.60)
    loop: Share = Share(0.05, 0.30)
    heat: Share = Share(0.0, 0.03)

    def of(self, level: Level) -> Share:
        return {
            Level.SITE: self.site,
            Level.FEEDER: self.feeder,
            Level.RACK: self.rack,
            Level.TRAY: self.tray,
            Level.LOOP: self.loop,
            Level.HEAT: self.heat,
        }[level]


def site_terms(meters: pl.DataFrame) -> pl.DataFrame:
    """TERMS: all site meters in; IT, cooling and other meters out. `meters`: resource, role."""
    sides = {Role.SITE: Side.IN, Role.IT: Side.OUT, Role.COOLING: Side.OUT, Role.OTHER: Side.OUT}
    return _always(meters, {role.value: side.value for role, side in sides.items()})


def heat_terms(loops: pl.DataFrame, meters: pl.DataFrame) -> pl.DataFrame:
    """TERMS: the loops in; heat handed over, rejected and used here out. `loops`: resource."""
    taken_up = loops.select("resource", role=pl.lit("loop"))
    gone = (Role.HEAT_HANDED_OVER, Role.HEAT_REJECTED, Role.HEAT_OWN_USE)
    sides = {"loop": Side.IN.value} | {role.value: Side.OUT.value for role in gone}
    return _always(pl.concat([taken_up, meters.select("resource", "role")]), sides)


def feeder_terms(meters: pl.DataFrame, feeds: pl.DataFrame, racks: Iterable[int]) -> pl.DataFrame:
    """TERMS of each IT meter and the racks that it serves, each rack for the time in which it does.

    `feeds`: resource, served, start, end. Meters that serve a rack at the same time, as two feeds do,
    share one balance, which is named after the least of their ids; a rack counts once in it.
    """
    own = meters.filter(pl.col("role") == Role.IT.value).select("resource")
    served = feeds.join(own, on="resource", how="semi").filter(pl.col("served").is_in(list(racks)))
    groups = _groups(own["resource"].to_list(), _together(served))
    named = pl.DataFrame({"resource": list(groups), "balance": list(groups.values())}, schema=_NAMED)
    out = served.join(named, on="resource").select(
        "balance", "start", "end", resource="served", side=pl.lit(Side.OUT.value)
    )
    entering = named.join(out.select("balance").unique(), on="balance", how="semi")
    always = entering.select("balance", "resource", side=pl.lit(Side.IN.value), start=_NEVER, end=_NEVER)
    return pl.concat([always.select(*TERMS), out.select(*TERMS).unique()])


def loop_terms(places: pl.DataFrame, loops: pl.DataFrame) -> pl.DataFrame:
    """TERMS of each hall: the electricity of its racks in, the heat of its loops out, each for its time there."""
    within = places.filter(pl.col("hall") != 0)
    heat = within.join(loops.select("resource"), on="resource", how="semi")
    racks = within.filter(pl.col("kind") == "rack").join(heat.select("hall").unique(), on="hall", how="semi")
    sides = [
        frame.select("resource", "start", "end", balance="hall", side=pl.lit(side.value)).select(*TERMS)
        for frame, side in ((racks, Side.IN), (heat, Side.OUT))
    ]
    return pl.concat(sides)


def fleet_energies(quarters: pl.DataFrame, members: pl.DataFrame, *, uncertainty: float) -> pl.DataFrame:
    """ENERGIES of all trays, or all GPUs, of each rack; `uncertainty` is relative and expanded (k = 2).

    `quarters`: FLEET_QUARTERS, `members`: MEMBERS. observed_s = 900 s · readings / (typical · members), where typical
    is the rack's median over the UTC day of the readings of its best-heard member.
    """
    typical = pl.col("most").median().over("rack", pl.col("time").dt.truncate("1d"))
    counted = pl.max_horizontal(pl.col("members_right"), pl.col("members"))
    return (
        quarters.join(members, on="rack", how="left", suffix="_right")
        .with_columns(heard=(pl.col("readings") / (typical * counted)).clip(0.0, 1.0))
        .select(
            "time",
            "joules",
            resource="rack",
            observed_s=pl.col("heard") * QUARTER_S,
            uncertainty_joules=pl.col("joules").abs() * uncertainty,
        )
    )


def between(inner: pl.DataFrame, outer: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """TERMS and ENERGIES of balances whose two sides are told under the same ids: of racks and their trays, say."""
    apart = ~pl.col("resource")
    energies = pl.concat([inner, outer.with_columns(resource=apart)], how="diagonal")
    places = inner.select("resource").unique().join(outer.select("resource").unique(), on="resource", how="semi")
    sides = [
        places.select(balance="resource", resource=resource, side=pl.lit(side.value), start=_NEVER, end=_NEVER)
        for resource, side in ((pl.col("resource"), Side.IN), (apart, Side.OUT))
    ]
    return pl.concat(sides).select(*TERMS), energies


def judge(
    level: Level,
    terms: pl.DataFrame,
    energies: pl.DataFrame,
    names: Mapping[int, str],
    expected: ExpectedLosses,
    period: Period,
) -> pl.DataFrame:
    """The balances of one level: level, name and the columns of `conservation.balances`, the greatest residual first.

    Of a residual that is told, `expected_low` and `expected_high` are the shares that may be lost on the way.
    """
    share = expected.of(level)
    found = pl.concat(_balanced(some, energies, share, period) for some in _batches(terms))
    names = {WHOLE_SITE: "whole site", **names}
    name = pl.col("balance").replace_strict(
        list(names), list(names.values()), default=pl.col("balance").cast(pl.String), return_dtype=pl.String
    )
    return found.select(
        pl.lit(level.value).alias("level"),
        name.alias("name"),
        pl.all(),
        expected_low=pl.lit(share.low),
        expected_high=pl.lit(share.high),
    ).sort(pl.col("residual_joules").abs(), "name", descending=[True, False], nulls_last=True)


# Balances know nothing of each other; so many terms are half a million quarter hours of a month.
TERMS_AT_ONCE = 200


def _batches(terms: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Terms of some balances at a time, each balance whole."""
    sizes = terms.group_by("balance").len("terms").sort("balance")
    batch = (pl.col("terms").cum_sum() - pl.col("terms")) // TERMS_AT_ONCE
    batches = sizes.select("balance", batch=batch)
    yield from terms.join(batches, on="balance").partition_by("batch", include_key=False) or [terms]


def _balanced(terms: pl.DataFrame, energies: pl.DataFrame, share: Share, period: Period) -> pl.DataFrame:
    stated = terms.select(pl.col("balance").unique()).select(
        "balance", low_share=pl.lit(share.low), high_share=pl.lit(share.high)
    )
    own = energies.join(terms, on="resource", how="semi")
    by_quarter = quarter_balances(terms.lazy(), own.lazy(), period)
    return balances(by_quarter, stated.select(*EXPECTED).lazy()).collect()


_NEVER = pl.lit(None, TERMS["start"])
_NAMED = {"resource": pl.UInt64(), "balance": pl.UInt64()}


def _always(meters: pl.DataFrame, sides: Mapping[str, str]) -> pl.DataFrame:
    """TERMS of one balance of the whole site, for all time; none unless both sides have a meter."""
    known = meters.filter(pl.col("role").is_in(list(sides)))
    terms = known.select(
        pl.lit(WHOLE_SITE, pl.UInt64).alias("balance"),
        "resource",
        side=pl.col("role").replace_strict(sides, return_dtype=pl.String),
        start=_NEVER,
        end=_NEVER,
    )
    return terms if terms["side"].n_unique() == len(Side) else terms.clear()


def _together(served: pl.DataFrame) -> Iterable[tuple[int, int]]:
    """Pairs of meters that serve one rack at the same time."""
    pairs = served.join(served, on="served", suffix="_other").filter(
        pl.col("resource") < pl.col("resource_other"),
        (pl.col("start") < pl.col("end_other")).fill_null(value=True),
        (pl.col("start_other") < pl.col("end")).fill_null(value=True),
    )
    return pairs.select("resource", "resource_other").unique().iter_rows()


def _groups(meters: Iterable[int], pairs: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Each meter with the least id of those that it is tied to; there are a few dozen."""
    group = {meter: meter for meter in meters}
    for one, other in sorted(pairs):
        least, most = sorted((group[one], group[other]))
        group = {meter: least if its == most else its for meter, its in group.items()}
    return group
