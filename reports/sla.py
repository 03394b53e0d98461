"""Whether the SLA was kept: reads one period, and draws up the report of every customer and the operator's summary.

`docs/reference/sla.md` says what each figure means. A customer's report is made of nothing but the
customer's own contracts, units and outages.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction

import polars as pl

from reports import efficiency_queries, sla_queries
from reports.efficiency_hours import OUTAGES, Health, endings, maintained, members_of, openings, outages_of, unresolved
from reports.efficiency_queries import FEEDS, Window
from reports.figures import Kpi
from reports.heat_queries import read_site_name
from reports.ledger import TIME
from reports.period import Period, Span
from reports.register_names import Place, resolved_rows
from reports.render import Chart
from reports.site import software
from reports.sla_account import Counts, Made, Sums, account_of, sums, sums_by
from reports.sla_charts import budget_chart
from reports.sla_figures import contract_figures
from reports.sla_outages import Outage, Witnesses, outages_in
from reports.sla_readings import gpu_states, read_seen
from reports.sla_terms import Terms, UnitKind, excluded_by, terms_of
from reports.sla_units import covered_units, padded, parts_of, rivals
from reports.sweep import milliseconds
from storage.reader import Reader
from storage.register_kinds import RegisterKind
from storage.registers import read_register, store_clock

_OF_PLACES = (RegisterKind.ALLOCATIONS, RegisterKind.MAINTENANCE, RegisterKind.EXCLUSIONS)
# A larger kind of resource stands for all units below it, never the other way round.
_RANKS = {kind: rank for rank, kind in enumerate(("gpu", "tray", "rack", "row", "hall", "site"))}


@dataclass(frozen=True, slots=True, eq=False)
class SlaData:
    """What was read for one report; frames as the queries and registers name them.

    `allocations`, `maintenance` and `exclusions` are registers with `resource` as an id, what the topology does not
    know left out and told in `problems`. `states` reaches over the window by so much that outages are judged whole.
    """

    site_name: str | None
    known_at: datetime
    window: Window
    terms: tuple[Terms, ...]
    allocations: pl.DataFrame
    maintenance: pl.DataFrame
    exclusions: pl.DataFrame
    places: pl.DataFrame
    members: pl.DataFrame
    tree: pl.DataFrame
    states: pl.DataFrame
    witnesses: Witnesses
    names: Mapping[int, tuple[str, str]]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitLine:
    """One unit of a contract. `credit` is of 1, absent where the period is no month."""

    name: str
    sums: Sums
    outages: int
    credit: Fraction | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseLine:
    """One step of MTTR: its mean, over how many failures."""

    name: str
    mean: timedelta | None
    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractReport:
    """One contract in the period. `credit` is of 1, absent where the period is no month; `reason`: what is amiss.

    `left_out_ms`: milliseconds by the cause for which they are left out, empty for unknown time by the terms.
    """

    terms: Terms
    sums: Sums
    left_out_ms: Mapping[str, int]
    kpis: Sequence[Kpi]
    credit: Fraction | None
    credit_money: float | None
    units: Sequence[UnitLine]
    outages: Sequence[Outage]
    phases: Sequence[PhaseLine]
    chart: Chart
    reason: str = ""

    @property
    def is_kept(self) -> bool | None:
        """Whether the target was reached by all units together; absent where nothing can be told."""
        available = self.sums.contractual
        return None if available is None else available >= self.terms.target


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerReport:
    """Everything that a customer is told, and nothing of anybody else."""

    party: str
    site: str
    period: Period
    window: Window
    complete: bool
    known_at: datetime
    generated_at: datetime
    software: str
    contracts: Sequence[ContractReport]

    @property
    def outages(self) -> tuple[Outage, ...]:
        return tuple(outage for contract in self.contracts for outage in contract.outages)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlaReport:
    """All customers' reports, and what only the operator is told."""

    site: str
    period: Period
    window: Window
    complete: bool
    known_at: datetime
    generated_at: datetime
    software: str
    gpus: int
    fleet_ms: Mapping[Health, int]
    customers: Sequence[CustomerReport]
    problems: Sequence[str]


# Reading -------------------------------------------------------------------------------------------------------------


def read_sla(reader: Reader, period: Period, now: datetime, *, known_at: datetime | None = None) -> SlaData:
    """Everything that an SLA report needs.

    `known_at`: registers as they were imported by then; the store's own time unless given. Time to come is not read.
    Raises ValueError for a period that cannot be reported on and terms that cannot be used, and the store's errors.
    """
    window = _window(period, now)
    known_at = known_at or store_clock(reader)
    terms, given, problems = _read_agreed(reader, window, known_at, period.zone)
    wide = padded(window, terms, sla_queries.MARGIN)
    places = efficiency_queries.read_places(reader, period)
    members = members_of(places, efficiency_queries.read_feeds(reader, period))
    opened = openings(efficiency_queries.read_events(reader, period, now)).filter(pl.col("time") < _at(wide.end))
    worked = efficiency_queries.read_first_work(reader, unresolved(opened), period)
    troubles = sla_queries.read_troubles(reader, wide)
    outages = pl.concat(
        [
            outages_of(opened, worked, members, wide),
            maintained(given[RegisterKind.MAINTENANCE], members),
            troubles.select(*OUTAGES),
        ]
    )
    gpus = places.filter(pl.col("kind") == "gpu").select("resource").unique()
    seen = read_seen(reader, wide, gpus["resource"].to_list())
    states = gpu_states(gpus, seen, outages, wide)
    silent = states.filter(pl.col("health") == Health.UNKNOWN)
    failed = states.filter(pl.col("health") == Health.DOWN)["resource"].unique().sort().to_list()
    happened = opened["resource"].unique().sort().to_list()
    return SlaData(
        site_name=read_site_name(reader, period),
        known_at=known_at,
        window=window,
        terms=terms,
        allocations=given[RegisterKind.ALLOCATIONS],
        maintenance=given[RegisterKind.MAINTENANCE],
        exclusions=given[RegisterKind.EXCLUSIONS],
        places=places,
        members=members,
        tree=members_of(places, pl.DataFrame(schema=dict(FEEDS))),
        states=states,
        witnesses=Witnesses(
            ended=endings(opened, worked, wide),
            events=sla_queries.read_evidence(reader, wide, happened),
            members=members,
            dark=seen.filter(pl.col("dark") > 0),
            troubles=troubles,
            silent=silent.select("resource", "start", "end"),
            excluded=pl.DataFrame(schema=dict(_LEFT_OUT)),
            holds=sla_queries.read_held(reader, wide, failed),
        ),
        names=_names(places, sla_queries.read_names(reader, happened)),
        problems=tuple(problems),
    )


def _read_agreed(
    reader: Reader, window: Window, known_at: datetime, zone: str
) -> tuple[tuple[Terms, ...], dict[RegisterKind, pl.DataFrame], list[str]]:
    """Terms that hold in the window; registers of what they are about; sentences for rows about nothing known."""
    registers = {
        kind: read_register(reader, kind, known_at, within=(window.start, window.end))
        for kind in (RegisterKind.CONTRACTS, *_OF_PLACES)
    }
    terms = terms_of(registers[RegisterKind.CONTRACTS], zone)
    within = tuple(one for one in terms if one.start < window.end and one.end > window.start)
    return within, *resolved_rows(reader, {kind: registers[kind] for kind in _OF_PLACES})


_LEFT_OUT = {"gpu": pl.UInt64(), "start": TIME, "end": TIME, "cause": pl.String(), "reference": pl.String()}


def _window(period: Period, now: datetime) -> Window:
    if period.span is Span.YEAR:
        raise ValueError(f"period is {period.text}: SLA terms are of a month; give a month such as {period.text}-10")
    if now <= period.start:
        raise ValueError(f"period {period.text} has not begun: there is nothing to report")
    return Window(period.start, min(period.end, now.replace(microsecond=0)))


def _at(moment: datetime) -> pl.Expr:
    return pl.lit(moment).cast(TIME)


def _names(places: pl.DataFrame, others: pl.DataFrame) -> dict[int, tuple[str, str]]:
    told = pl.concat([frame.select(*sla_queries.NAMES) for frame in (others, places)])
    return {resource: (kind, name) for resource, kind, name in told.iter_rows()}


# Computing -----------------------------------------------------------------------------------------------------------


def build_sla(data: SlaData, period: Period, *, now: datetime) -> SlaReport:
    """All reports from what was read; pure. ValueError where two contracts cover one GPU at a time."""
    parts = {kind: parts_of(kind, data.places, data.tree) for kind in UnitKind}
    usable, problems = _allocations(data)
    covered = [covered_units(terms, usable, parts[terms.unit], data.tree) for terms in data.terms]
    _refuse_rivals(data, parts, covered)
    reports = [
        _contract(data, terms, units, Made.of(terms.unit, parts), period)
        for terms, units in zip(data.terms, covered, strict=True)
    ]
    site = data.site_name or "Unnamed site"
    common = {
        "site": site,
        "period": period,
        "window": data.window,
        "complete": now >= period.end,
        "known_at": data.known_at,
        "generated_at": period.local(now),
        "software": software(),
    }
    parties = sorted({terms.party for terms in data.terms})
    fleet = data.states.with_columns(pl.col("start", "end").clip(_at(data.window.start), _at(data.window.end)))
    by_health = dict(fleet.group_by("health").agg(milliseconds().sum()).iter_rows())
    customers = tuple(
        CustomerReport(
            party=party,
            contracts=tuple(one for one in reports if one.terms.party == party),
            **common,  # type: ignore[arg-type]
        )
        for party in parties
    )
    return SlaReport(
        gpus=data.states["resource"].n_unique(),
        fleet_ms={state: by_health.get(state.value, 0) for state in Health},
        customers=customers,
        problems=(*data.problems, *problems),
        **common,  # type: ignore[arg-type]
    )


def _allocations(data: SlaData) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Allocations that can be used, and a sentence for each that cannot."""
    units = {terms.contract: terms.unit for terms in data.terms}
    usable, problems = [], []
    for row in data.allocations.iter_rows(named=True):
        where = Place.of(row)
        unit = units.get(row["contract"])
        if unit is None:
            problems.append(f"allocations: no SLA contract {row['contract']!r} in this period ({where}); left out")
        elif _RANKS[row["resource_kind"]] < _RANKS[unit.resource_kind.value]:
            problems.append(
                f"allocations: contract {row['contract']!r} is by {unit}, and a {row['resource_kind']} is less than "
                f"one ({where}); allocate whole units; left out"
            )
        else:
            usable.append(row)
    return pl.DataFrame(usable, schema=data.allocations.schema), tuple(problems)


def _refuse_rivals(data: SlaData, parts: Mapping[UnitKind, pl.DataFrame], covered: Sequence[pl.DataFrame]) -> None:
    each = []
    for terms, units in zip(data.terms, covered, strict=True):
        gpus = units.join(parts[terms.unit], on="unit", suffix="_part").select(
            gpu="part",
            contract=pl.lit(terms.contract),
            start=pl.max_horizontal("start", "start_part"),
            end=pl.min_horizontal("end", "end_part"),
        )
        each.append(gpus.filter(pl.col("start") < pl.col("end")))
    found = rivals(pl.concat(each)) if each else pl.DataFrame()
    if found.height:
        gpu, start, end = found.sort("start", "gpu").row(0)
        raise ValueError(
            f"GPU {data.names[gpu][1]} is allocated to two contracts from {start:%Y-%m-%d %H:%M}Z to "
            f"{end:%Y-%m-%d %H:%M}Z ({found.height} such times in all); correct the register allocations"
        )


def _contract(data: SlaData, terms: Terms, covered: pl.DataFrame, made: Made, period: Period) -> ContractReport:
    given = excluded_by(terms, data.maintenance, data.exclusions)
    excluded = given.join(data.members, left_on="resource", right_on="ancestor").select(
        "gpu",
        "cause",
        "reference",
        start=pl.max_horizontal("start", "valid_from"),
        end=pl.min_horizontal("end", "valid_to"),
    )
    account = account_of(terms, covered, made, data.states, excluded.drop("reference"), data.window)
    witnesses = _with_exclusions(data.witnesses, excluded.filter(pl.col("start") < pl.col("end")))
    outages = outages_in(account, covered, made, witnesses, data.names)
    whole, by_unit = sums(account), sums_by(account, "unit")
    left_out = account.filter(pl.col("counts") == Counts.EXCLUDED).group_by("cause").agg(milliseconds().sum())
    units = _unit_lines(terms, by_unit, outages, data.names, is_month=period.span is Span.MONTH)
    credit, money = _credit(terms, units, period)
    days = by_part(account, period)
    return ContractReport(
        terms=terms,
        sums=whole,
        left_out_ms=dict(left_out.sort("cause").iter_rows()),
        kpis=tuple(contract_figures(terms, whole, credit, money, outages, sums_by(days, "part").values())),
        credit=credit,
        credit_money=money,
        units=units,
        outages=outages,
        phases=tuple(_phase_lines(outages)),
        chart=_chart(days, period),
        reason="" if units else "Nothing is allocated to this contract in the period: see the register allocations.",
    )


def _with_exclusions(witnesses: Witnesses, excluded: pl.DataFrame) -> Witnesses:
    return Witnesses(
        witnesses.ended,
        witnesses.events,
        witnesses.members,
        witnesses.dark,
        witnesses.troubles,
        witnesses.silent,
        excluded.select(*_LEFT_OUT),
        witnesses.holds,
    )


def _unit_lines(
    terms: Terms,
    by_unit: Mapping[int, Sums],
    outages: Sequence[Outage],
    names: Mapping[int, tuple[str, str]],
    *,
    is_month: bool,
) -> tuple[UnitLine, ...]:
    """The units, those with the lowest contractual availability first."""
    counts: dict[int, int] = {}
    for outage in outages:
        counts[outage.unit_id] = counts.get(outage.unit_id, 0) + 1
    lines = [
        UnitLine(
            name=names.get(unit, ("", f"{unit:016x}"))[1],
            sums=one,
            outages=counts.get(unit, 0),
            credit=terms.credit(one.up_ms, one.down_ms) if is_month else None,
        )
        for unit, one in by_unit.items()
    ]
    return tuple(sorted(lines, key=lambda line: (line.sums.contractual is None, line.sums.contractual or 0, line.name)))


def _credit(terms: Terms, units: Sequence[UnitLine], period: Period) -> tuple[Fraction | None, float | None]:
    """Share of the contract's price, and money where a price is known. Credits are of months, nothing else."""
    due = [(line.credit, line.sums.total_ms) for line in units if line.credit is not None]
    covered_ms = sum(ms for _, ms in due)
    if covered_ms == 0:
        return None, None
    weighted = sum((credit * ms for credit, ms in due), Fraction(0))
    months = weighted / Fraction(round(period.seconds * 1000))
    return weighted / covered_ms, None if terms.unit_price is None else float(months) * terms.unit_price


def by_part(account: pl.DataFrame, period: Period) -> pl.DataFrame:
    """An ACCOUNT cut at the days of a month, or the hours of a day: with `part`, their number, and `time`, local."""
    edges = period.edges().collect()["time"]
    starts = edges.to_frame().group_by(local=period.part(pl.col("time"))).agg(since=pl.col("time").min()).sort("since")
    parts = starts.with_columns(
        until=pl.col("since").shift(-1).fill_null(_at(period.end)), part=pl.int_range(pl.len())
    ).filter(pl.col("since") < pl.col("until"))
    met = account.join(parts, how="cross").with_columns(
        start=pl.max_horizontal("start", "since"), end=pl.min_horizontal("end", "until")
    )
    return met.filter(pl.col("start") < pl.col("end")).drop("since", "until").rename({"local": "time"})


def _phase_lines(outages: Sequence[Outage]) -> Iterator[PhaseLine]:
    told = [outage.phases for outage in outages if outage.phases]
    for name, lengths in (
        ("detect", [one.detect for one in told]),
        ("drain", [one.drain for one in told]),
        ("repair", [one.repair for one in told]),
        ("validate", [one.validate for one in told if one.validate is not None]),
    ):
        mean = sum(lengths, timedelta(0)) / len(lengths) if lengths else None
        yield PhaseLine(name=name, mean=mean, failures=len(lengths))


def _chart(days: pl.DataFrame, period: Period) -> Chart:
    text = (
        "Unit-hours that were not up. Counted is downtime by contract, and is what uses the error budget up; "
        "not counted is shorter than the contract's minimum, or unknown time that counts as up."
    )
    return Chart(f"Not up, by {period.part_name}", text, budget_chart(days, period))
