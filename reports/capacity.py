"""Capacity: contracted power by phase, the 15-minute peak, headroom by feeder and hall, and commissioning kept apart.

Pure functions over the ledger's quarter hours. Units: power in W, energy in J; `time` is UTC.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from reports import ledger
from reports.figures import JOULES_PER_MWH, Peak, Role
from reports.ledger import PEAK_COVERAGE
from reports.period import QUARTER, QUARTER_S, Period
from reports.readings import TIME, seconds


@dataclass(frozen=True, slots=True)
class Phase:
    """Power contracted with the grid, from `start` on (aware); absent while the phase is planned."""

    name: str
    contracted_watts: float
    start: datetime | None = None

    def __post_init__(self) -> None:
        if self.contracted_watts <= 0:
            raise ValueError(f"phase {self.name} contracts {self.contracted_watts} W; give watts above 0")

    def is_in_force(self, at: datetime) -> bool:
        return self.start is not None and self.start <= at


# What was announced for the first site; configuration, since contracts change.
PHASES = (
    Phase("phase 1", 230e6, datetime(1970, 1, 1, tzinfo=UTC)),
    Phase("phase 2", 520e6),
)


@dataclass(frozen=True, slots=True)
class Commissioning:
    """A time (aware, end excluded) in which a meter or rack was being commissioned, and the boundary that says so.

    Its energy is kept out of PUE in every boundary of that version.
    """

    resource: int
    start: datetime
    end: datetime
    boundary_version: str

    def __post_init__(self) -> None:
        if self.start >= self.end:
            raise ValueError(f"commissioning of {self.resource:#x} ends at {self.end}; give an end after {self.start}")


@dataclass(frozen=True, slots=True)
class PhaseLine:
    """A phase against the site's highest quarter hour; negative headroom is over the contract."""

    phase: Phase
    in_force: bool
    headroom_watts: float | None
    used_share: float | None


@dataclass(frozen=True, slots=True)
class CapacityLine:
    """One feed's, feeder's or hall's peak against what it is rated for; absent where one of them is not known.

    `coverage` is the share of quarter hours that were observed throughout: the peak is the highest of those.
    """

    name: str
    kind: str
    rated_watts: float | None
    peak: Peak | None
    coverage: float

    @property
    def headroom_watts(self) -> float | None:
        return None if self.rated_watts is None or self.peak is None else self.rated_watts - self.peak.watts

    @property
    def used_share(self) -> float | None:
        return None if self.rated_watts is None or self.peak is None else self.peak.watts / self.rated_watts


@dataclass(frozen=True, slots=True)
class BoundaryLine:
    """iPUE of one boundary version: without the energy that its commissioning drew.

    `excluded_mwh` is absent, and so is iPUE, while a resource under commissioning is not known.
    """

    boundary_version: str
    excluded_mwh: float | None
    ipue: float | None
    ipue_all: float | None
    reason: str = ""


def highest_quarter(quarters: pl.DataFrame, period: Period) -> Peak | None:
    """max(E / 900 s) of `time`, `joules`, `observed_s`, among quarter hours observed throughout; of equals the first.

    The settlement unit of the Nordic power market is 15 minutes.
    """
    seen = _throughout(quarters)
    if seen.is_empty():
        return None
    joules, time = seen.sort(["joules", "time"], descending=[True, False]).select("joules", "time").row(0)
    return Peak(float(joules) / QUARTER_S, period.local(time))


def phase_lines(phases: Sequence[Phase], peak: Peak | None, period: Period) -> tuple[PhaseLine, ...]:
    """Each phase in its order; one is in force when it had begun before the period's end."""
    return tuple(
        PhaseLine(
            phase,
            phase.is_in_force(period.end),
            None if peak is None else phase.contracted_watts - peak.watts,
            None if peak is None else peak.watts / phase.contracted_watts,
        )
        for phase in phases
    )


def with_feeders(meters: pl.DataFrame, places: pl.DataFrame, ratings: pl.DataFrame) -> pl.DataFrame:
    """Meters with rated_watts: their own, else that of the feeder that they were part of last.

    `meters`: resource, name, role, rated_watts; `places`: resource, parent, start; `ratings`: resource, rated_watts.
    """
    last = places.sort("start").unique("resource", keep="last").select("resource", feeder="parent")
    of_feeder = ratings.select(feeder="resource", feeder_watts="rated_watts").unique("feeder")
    return (
        meters.join(last, on="resource", how="left")
        .join(of_feeder, on="feeder", how="left")
        .with_columns(rated_watts=pl.coalesce("rated_watts", "feeder_watts"))
        .drop("feeder", "feeder_watts")
    )


def meter_lines(meters: pl.DataFrame, quarters: pl.DataFrame, period: Period) -> tuple[CapacityLine, ...]:
    """Every meter of `meters` (resource, name, role, rated_watts), by role and name; `quarters` of the ledger."""
    order = meters.sort("role", "name")
    return tuple(
        _line(row["name"], _KINDS[row["role"]], row["rated_watts"], own, period)
        for row in order.iter_rows(named=True)
        for own in (quarters.filter(pl.col("resource") == row["resource"]),)
    )


_KINDS: Mapping[str, str] = {Role.SITE: "grid feed", Role.IT: "IT feeder", Role.COOLING: "cooling", Role.OTHER: "other"}


def hall_lines(
    places: pl.DataFrame, ratings: pl.DataFrame, quarters: pl.DataFrame, period: Period
) -> tuple[CapacityLine, ...]:
    """Every hall with racks, by name: the racks that stood there in each quarter hour, added up.

    `places`: resource, kind, hall, hall_name, start, end; `ratings`: resource, kind, rated_watts; `quarters` those of
    racks. Rated: what the hall is, else the sum of its racks at the period's end, absent unless each is rated.
    """
    racks = places.filter(pl.col("kind") == "rack", pl.col("hall") != 0)
    names = racks.select("hall", "hall_name").unique("hall").sort("hall_name", "hall")
    rated = _ratings_of_halls(racks, ratings, period)
    return tuple(
        _line(name, "hall", rated.get(hall), _of_hall(racks.filter(pl.col("hall") == hall), quarters, period), period)
        for hall, name in names.iter_rows()
    )


def boundary_lines(
    site: pl.DataFrame,
    quarters: pl.DataFrame,
    commissioning: Iterable[Commissioning],
    it_resources: Iterable[int],
    period: Period,
) -> tuple[BoundaryLine, ...]:
    """iPUE of each boundary version, by name: E_DC and E_IT both without what was being commissioned.

      iPUE = (E_DC - E_c) / (E_IT - E_c,IT), over the quarter hours in which site and IT are whole
    `site`: time, site_joules, it_joules; `quarters`: resource, time, joules of meters and racks. What a resource of
    `it_resources` drew is taken from both; of others only from E_DC. A quarter hour counts by its share of the
    interval, and overlapping intervals count once. The cooling and losses that the load caused stay inside: no meter
    tells them apart. The rule is this project's; ISO/IEC 30134-2 asks for a stated boundary.
    """
    paired = site.drop_nulls(["site_joules", "it_joules"])
    known, found = list(commissioning), set(it_resources)
    versions = sorted({one.boundary_version for one in known})
    return tuple(
        _boundary_line(version, paired, _excluded(version, known, paired, quarters, period), found)
        for version in versions
    )


def _boundary_line(version: str, paired: pl.DataFrame, excluded: pl.DataFrame, it_resources: set[int]) -> BoundaryLine:
    site, it = float(paired["site_joules"].sum()), float(paired["it_joules"].sum())
    whole = site / it if it > 0 else None
    if excluded["joules"].null_count():
        return BoundaryLine(version, None, None, whole, "The energy of a resource under commissioning is not known.")
    out = float(excluded["joules"].sum())
    out_of_it = float(excluded.filter(pl.col("resource").is_in(sorted(it_resources)))["joules"].sum())
    rest = it - out_of_it
    return BoundaryLine(version, out / JOULES_PER_MWH, (site - out) / rest if rest > 0 else None, whole)


def _excluded(
    version: str, commissioning: Sequence[Commissioning], paired: pl.DataFrame, quarters: pl.DataFrame, period: Period
) -> pl.DataFrame:
    """resource, time, joules of the shares of quarter hours under commissioning; absent where not known."""
    spans = _united([one for one in commissioning if one.boundary_version == version], period)
    begin, end = pl.max_horizontal("time", "start"), pl.min_horizontal(pl.col("time") + QUARTER, "end")
    energies = quarters.select("resource", "time", "joules").unique(["resource", "time"])
    return (
        paired.select("time")
        .join(spans, how="cross")
        .with_columns(share=seconds(end - begin) / QUARTER_S)
        .filter(pl.col("share") > 0)
        .join(energies, on=["resource", "time"], how="left")
        .select("resource", "time", joules=pl.col("joules") * pl.col("share"))
    )


def _united(commissioning: Sequence[Commissioning], period: Period) -> pl.DataFrame:
    """resource, start, end without overlaps, within the period."""
    found: list[tuple[int, datetime, datetime]] = []
    for one in sorted(commissioning, key=lambda one: (one.resource, one.start, one.end)):
        start, end = max(one.start, period.start).astimezone(UTC), min(one.end, period.end).astimezone(UTC)
        if start >= end:
            continue
        last = found[-1] if found else None
        if last is not None and last[0] == one.resource and start <= last[2]:
            found[-1] = (one.resource, last[1], max(end, last[2]))
        else:
            found.append((one.resource, start, end))
    plain = [(resource, start.replace(tzinfo=None), end.replace(tzinfo=None)) for resource, start, end in found]
    schema = {"resource": pl.UInt64(), "start": pl.Datetime("ms"), "end": pl.Datetime("ms")}
    frame = pl.DataFrame(plain, schema=schema, orient="row")
    return frame.with_columns(pl.col("start", "end").dt.replace_time_zone("UTC"))


# A month of these is half a million quarter hours, of which the ledger takes some 300 MB while it computes.
RACKS_AT_ONCE = 150
RACK_QUARTERS = ("resource", "time", "joules", "observed_s", "estimated_joules", "quantisation_joules")


def rack_quarters(racks: Sequence[int], registers: pl.DataFrame, period: Period) -> pl.DataFrame:
    """The ledger's quarter hours of racks (RACK_QUARTERS) from their registers, some racks at a time."""
    order = sorted(racks)
    batches = [order[first : first + RACKS_AT_ONCE] for first in range(0, len(order), RACKS_AT_ONCE)] or [[]]
    return pl.concat(_rack_quarters(some, registers, period) for some in batches)


def _rack_quarters(racks: Sequence[int], registers: pl.DataFrame, period: Period) -> pl.DataFrame:
    none = {name: pl.lit(None, pl.Float64) for name in ("modulus_joules", "ceiling_watts", "interval_s")}
    # A shelf counts watt-hours in the catalogue; what it resolves itself is not known.
    facts = pl.DataFrame({"resource": racks}, schema={"resource": pl.UInt64()}).with_columns(
        **none, resolution_joules=pl.lit(3600.0)
    )
    own = registers.join(facts, on="resource", how="semi")
    steps = ledger.mark_edges(ledger.steps(own.lazy(), facts.lazy()), period)
    return ledger.quarters(steps, facts.lazy(), period).select(RACK_QUARTERS).collect()


def _throughout(quarters: pl.DataFrame) -> pl.DataFrame:
    observed = pl.col("observed_s") >= PEAK_COVERAGE * QUARTER_S
    return quarters.filter(pl.col("joules").is_not_null(), observed)


def _line(name: str, kind: str, rated: float | None, own: pl.DataFrame, period: Period) -> CapacityLine:
    seen = _throughout(own).height * QUARTER_S / period.seconds
    return CapacityLine(name, kind, rated or None, highest_quarter(own, period), seen)


def _of_hall(racks: pl.DataFrame, quarters: pl.DataFrame, period: Period) -> pl.DataFrame:
    """hall, time, joules (absent unless every rack there is known), observed_s of the rack observed least."""
    every = period.edges().filter(pl.col("time") < pl.lit(period.end, TIME)).collect()
    begin, end = pl.max_horizontal("time", "start"), pl.min_horizontal(pl.col("time") + QUARTER, "end")
    there = every.join(racks.select("resource", "hall", "start", "end"), how="cross").with_columns(
        share=(seconds(end - begin) / QUARTER_S).clip(0.0, 1.0)
    )
    energies = quarters.select("resource", "time", "joules", "observed_s")
    return (
        there.filter(pl.col("share") > 0)
        .join(energies, on=["resource", "time"], how="left")
        .group_by("hall", "time")
        .agg(
            joules=pl.when(pl.col("joules").null_count() == 0).then((pl.col("joules") * pl.col("share")).sum()),
            observed_s=pl.col("observed_s").fill_null(0.0).min(),
        )
    )


def _ratings_of_halls(racks: pl.DataFrame, ratings: pl.DataFrame, period: Period) -> Mapping[int, float | None]:
    there = racks.filter(pl.col("end") >= pl.lit(period.end, TIME))
    rated = pl.col("rated_watts")
    summed = (
        there.join(ratings.select("resource", "rated_watts"), on="resource", how="left")
        .group_by("hall")
        .agg(summed=pl.when(rated.null_count() == 0).then(rated.sum()))
        .join(ratings.select(hall="resource", own="rated_watts"), on="hall", how="left")
    )
    return dict(summed.select("hall", pl.coalesce("own", "summed")).iter_rows())
