"""The heat report: reads one period of one site, computes heat, balances, capacity and statements, writes them.

`docs/reference/heat.md` says what each figure means.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path

import polars as pl

from catalogue import COOLING, POWER, Table
from reports import (
    capacity,
    capacity_queries,
    charts,
    figures,
    fleet_days,
    heat_balances,
    heat_queries,
    ledger,
    queries,
)
from reports.accuracy import expanded
from reports.capacity import BoundaryLine, Commissioning, Phase
from reports.figures import HEAT, Kpi, Role
from reports.files import replace_text
from reports.fluids import Fluid, FluidsUnavailableError, FluidTable, tabulate
from reports.heat import GRID_S, LOOPS, OLDEST_S, HeatAccuracy, heat_quarters, uncertainty_joules
from reports.heat_account import HeatAccount, HeatSettings, contract_lines, heat_account, key_figures
from reports.heat_balances import ExpectedLosses, Level, between, fleet_energies, judge
from reports.heat_page import HeatReport, document, render_heat
from reports.heat_statement import statements
from reports.period import Period, Span
from reports.publishing.documents import json_text
from reports.readings import TIME, seconds
from reports.register_facts import RegisterFacts, calibrated, overdue, read_register_facts
from reports.render import Chart, figure, percent, period_title
from reports.site import CEILING_OVER_RATING, COUNTS_FROM_RATING, software
from storage.reader import Reader

# Loops that are read less often than every 30 s are put on this grid.
SLOW_GRID_S = 60


@dataclass(frozen=True, slots=True)
class HeatReportSettings:
    """What the store does not know. An empty name is taken from the inventory; contracts, phases and commissioning that
    are empty are taken from the registers.

    `rack_limit` and `fleet_limit` are relative limits of error of racks' registers and of the energy counters of trays
    and GPUs: they have no accuracy class, so both are assumptions.
    """

    site_name: str = ""
    heat: HeatSettings = field(default_factory=HeatSettings)
    expected: ExpectedLosses = field(default_factory=ExpectedLosses)
    phases: tuple[Phase, ...] = ()
    commissioning: tuple[Commissioning, ...] = ()
    rack_limit: float = 0.02
    fleet_limit: float = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class HeatData:
    """What was read for one report; frames as the queries name them. `loop_quarters` as `heat.heat_quarters` gives.

    `trays` and `gpus` are FLEET_QUARTERS, `*_members` MEMBERS; all four are empty where a year is reported.
    """

    site_name: str | None
    meters: pl.DataFrame
    registers: pl.DataFrame
    serials: pl.DataFrame
    warmth: pl.DataFrame
    loops: pl.DataFrame
    loop_quarters: pl.DataFrame
    loops_reason: str
    places: pl.DataFrame
    feeds: pl.DataFrame
    ratings: pl.DataFrame
    rack_registers: pl.DataFrame
    trays: pl.DataFrame
    tray_members: pl.DataFrame
    gpus: pl.DataFrame
    gpu_members: pl.DataFrame
    facts: RegisterFacts = field(default_factory=RegisterFacts)


def write_heat_report(
    reader: Reader, period: Period, out_dir: Path, *, now: datetime, settings: HeatReportSettings | None = None
) -> Path:
    """Write `heat-<period>.html` and `heat-<period>.json` into `out_dir`; returns the page's path.

    Older ones are replaced whole. `now` is aware; the topology's views must have been kept up to date
    (`storage.topology`). Raises StoreUnavailableError or StoreRefusedError from the store, OSError from the disk.
    """
    settings = settings or HeatReportSettings()
    report = build_heat_report(read_heat(reader, period, now), period, now=now, settings=settings)
    out_dir.mkdir(parents=True, exist_ok=True)
    path = out_dir / f"heat-{period.text}.html"
    replace_text(path.with_suffix(".json"), json_text(document(report)))
    return replace_text(path, render_heat(report))


# Reading -------------------------------------------------------------------------------------------------------------


def read_heat(reader: Reader, period: Period, now: datetime) -> HeatData:
    """Everything that a heat report needs; StoreUnavailableError, StoreRefusedError."""
    facts = read_register_facts(reader, period, now)
    meters = calibrated(heat_queries.read_meters(reader, period), facts.calibrations)
    thermal = pl.col("role").is_in([*HEAT, Role.HEAT_OWN_USE])
    electrical, heat = meters.filter(~thermal)["resource"].to_list(), meters.filter(thermal)["resource"].to_list()
    exact = all(queries.holds_raw(table, period, now) for table in (POWER, COOLING))
    registers = (
        queries.read_registers(reader, POWER, queries.ENERGY_REGISTER, electrical, period, exact=exact),
        queries.read_registers(reader, COOLING, queries.HEAT_REGISTER, heat, period, exact=exact),
    )
    loops = heat_queries.read_loops(reader, period)
    days = heat_queries.read_loop_days(reader, loops["resource"].to_list(), period) if exact else ()
    loop_quarters, reason = loop_heat(days, loops)
    places = capacity_queries.read_places(reader, period)
    racks = places.filter(pl.col("kind") == "rack")["resource"].unique().to_list()
    read_fleet = partial(_read_fleet, reader, period, now)
    (trays, tray_members), (gpus, gpu_members) = (read_fleet(table, kind) for table, kind in heat_queries.FLEET_TABLES)
    return HeatData(
        site_name=heat_queries.read_site_name(reader, period),
        # A declared interval is that of the raw readings.
        meters=meters if exact else meters.with_columns(interval_s=pl.lit(None, pl.Float64)),
        registers=pl.concat(registers),
        serials=queries.read_serials(reader, [*electrical, *heat], period),
        warmth=queries.read_heat_temperatures(reader, heat, period),
        loops=loops,
        loop_quarters=loop_quarters,
        loops_reason=reason if exact else "Flow and temperatures of so long a period are not kept whole.",
        places=places,
        feeds=capacity_queries.read_feeds(reader, period),
        ratings=capacity_queries.read_ratings(reader, period),
        rack_registers=capacity_queries.read_rack_registers(reader, racks, period),
        trays=trays,
        tray_members=tray_members,
        gpus=gpus,
        gpu_members=gpu_members,
        facts=facts,
    )


def _read_fleet(
    reader: Reader, period: Period, now: datetime, table: Table, kind: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    if period.span is Span.YEAR:  # some 50 million quarter hours of racks
        empty = heat_queries.FLEET_QUARTERS, heat_queries.MEMBERS
        return pl.DataFrame(schema=dict(empty[0])), pl.DataFrame(schema=dict(empty[1]))
    kept = fleet_days.read_kept_days(reader, period)
    gaps = kept.gaps(period, now) if now - period.start < table.retention.minute else ()
    quarters = fleet_days.read_fleet_quarters(reader, table, kind, kept, gaps)
    return quarters, heat_queries.read_members(reader, kind, period)


def loop_heat(days: Iterable[tuple[Period, pl.DataFrame]], loops: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """The heat of the loops by quarter hour, day by day; and why none is known, empty where some is.

    Loops that come less often than every 30 s are read on a grid of 60 s, and their values stand for one and a half of
    their own intervals.
    """
    tables, reason = _tables(loops["fluid"].unique().to_list())
    facts = loops.select(
        "resource",
        "fluid",
        flow_meter_at=pl.when(pl.col("flow_meter_at") != "").then("flow_meter_at"),
        hot_pipe=pl.lit("return"),
    ).select(*LOOPS)
    found = [_loop_day(day, readings, facts, tables) for day, readings in days]
    return (pl.concat(found), reason) if found else (_NO_LOOPS, reason)


def _tables(texts: Iterable[str]) -> tuple[Mapping[str, FluidTable], str]:
    tables, reasons = {}, []
    for text in texts:
        try:
            tables[text] = tabulate(Fluid.parse(text))
        except (ValueError, FluidsUnavailableError) as error:
            reasons.append(f"A loop's fluid cannot be told: {error}.")
    return tables, " ".join(reasons)


def _loop_day(
    day: Period, readings: pl.DataFrame, loops: pl.DataFrame, tables: Mapping[str, FluidTable]
) -> pl.DataFrame:
    paces = readings.sort("resource", "time").select(pace=seconds(pl.col("time").diff().over("resource")))
    pace_s = paces.filter(pl.col("pace") > 0)["pace"].median()
    slow = isinstance(pace_s, float) and pace_s > OLDEST_S
    oldest_s = max(OLDEST_S, int(1.5 * pace_s)) if isinstance(pace_s, float) else OLDEST_S
    return heat_quarters(
        readings.lazy(), loops.lazy(), tables, day, grid_s=SLOW_GRID_S if slow else GRID_S, oldest_s=min(oldest_s, 300)
    ).collect()


_NO_LOOPS = pl.DataFrame(
    schema={"resource": pl.UInt64(), "time": TIME}
    | {name: pl.Float64() for name in ("joules", "exported_joules", "clipped_joules")}
    | {"whole": pl.Boolean()}
    | {
        name: pl.Float64()
        for name in (
            "observed_s",
            "supply_celsius",
            "return_celsius",
            "throughput_joules",
            "joules_per_kelvin",
            "joule_seconds_per_cubic_metre",
        )
    }
)


# Computing -----------------------------------------------------------------------------------------------------------


def build_heat_report(data: HeatData, period: Period, *, now: datetime, settings: HeatReportSettings) -> HeatReport:
    """The report from what was read; pure."""
    settings = with_facts(settings, data.facts)
    steps = meter_steps(data.meters, data.registers, data.serials, period)
    quarters = ledger.quarters(steps.lazy(), data.meters.lazy(), period).collect()
    flags = ledger.flags(steps.lazy(), period).collect()
    heat = heat_account(
        data.meters, quarters, data.loop_quarters, data.warmth, period, settings.heat, loops_reason=data.loops_reason
    )
    racks = rack_quarters(data, period)
    handed = heat.meters.filter(pl.col("role") == Role.HEAT_HANDED_OVER)
    site = heat.account.quarters.select("time", joules="site_joules", observed_s="site_observed_s")
    peak = capacity.highest_quarter(site, period)
    kpis = key_figures(heat)
    name = settings.site_name or data.site_name or "Unnamed site"
    electrical = data.meters.filter(pl.col("role").is_in([*figures.ELECTRICITY]))
    return HeatReport(
        site=name,
        period=period,
        cut_off=_cut_off(data, period),
        generated_at=period.local(now),
        software=software(),
        summary=_summary(name, period, kpis),
        complete=now >= period.end,
        kpis=kpis,
        chart=_chart(heat),
        contracts=contract_lines(heat),
        statements=statements(handed, data.registers, flags, period),
        meters=heat.meters,
        balances=all_balances(data, heat, racks, settings, period),
        peak=peak,
        peak_coverage=figures.coverage_of(heat.account, Role.SITE),
        phases=capacity.phase_lines(settings.phases, peak, period),
        capacity=(
            *capacity.meter_lines(capacity.with_feeders(electrical, data.places, data.ratings), quarters, period),
            *capacity.hall_lines(data.places, data.ratings, racks, period),
        ),
        boundaries=_boundaries(data, heat, quarters, racks, settings, period),
        assumptions=tuple(_assumptions(data, heat, settings)),
        problems=data.facts.problems,
    )


def with_facts(settings: HeatReportSettings, facts: RegisterFacts) -> HeatReportSettings:
    """Settings with what registers say, where they say nothing themselves."""
    heat = replace(settings.heat, contracts=settings.heat.contracts or facts.heat_contracts)
    return replace(
        settings,
        heat=heat,
        phases=settings.phases or facts.phases or capacity.PHASES,
        commissioning=settings.commissioning or facts.commissioning,
    )


def meter_steps(meters: pl.DataFrame, registers: pl.DataFrame, serials: pl.DataFrame, period: Period) -> pl.DataFrame:
    """The ledger's steps of meters with a rating."""
    rated = meters.with_columns(
        ceiling_watts=pl.col("rated_watts") * CEILING_OVER_RATING,
        frozen_above_watts=pl.col("rated_watts") * COUNTS_FROM_RATING,
    )
    exchanges = ledger.exchanges_of(serials.lazy())
    return ledger.mark_edges(ledger.steps(registers.lazy(), rated.lazy(), exchanges), period).collect()


def rack_quarters(data: HeatData, period: Period) -> pl.DataFrame:
    """The ledger's quarter hours of racks that have a place."""
    racks = data.places.filter(pl.col("kind") == "rack")["resource"].unique().to_list()
    return capacity.rack_quarters(racks, data.rack_registers, period)


def all_balances(
    data: HeatData, heat: HeatAccount, racks: pl.DataFrame, settings: HeatReportSettings, period: Period
) -> pl.DataFrame:
    """Every balance that the inventory allows, by level."""
    metered = meter_energies(heat)
    of_racks = relative_energies(racks, expanded(settings.rack_limit))
    loops = loop_energies(data.loop_quarters, settings.heat.loops)
    fleet = [
        fleet_energies(frame, members, uncertainty=expanded(settings.fleet_limit))
        for frame, members in ((data.trays, data.tray_members), (data.gpus, data.gpu_members))
    ]
    every = pl.concat([metered, of_racks, loops], how="diagonal")
    rack_ids = racks["resource"].unique().to_list()
    names = dict(data.places.select("resource", "name").iter_rows()) | dict(
        data.places.filter(pl.col("hall") != 0).select("hall", "hall_name").iter_rows()
    )
    names |= dict(data.meters.select("resource", "name").iter_rows())
    levels = (
        (Level.SITE, heat_balances.site_terms(heat.meters), every),
        (Level.FEEDER, heat_balances.feeder_terms(data.meters, data.feeds, rack_ids), every),
        (Level.RACK, *between(of_racks, fleet[0])),
        (Level.TRAY, *between(fleet[0], fleet[1])),
        (Level.LOOP, heat_balances.loop_terms(data.places, data.loops), every),
        (Level.HEAT, heat_balances.heat_terms(data.loops, heat.meters), every),
    )
    found = [judge(level, terms, energies, names, settings.expected, period) for level, terms, energies in levels]
    return pl.concat(found)


def meter_energies(heat: HeatAccount) -> pl.DataFrame:
    """The ENERGIES of meters, each with the uncertainty of its class."""
    shares = heat.meters.select("resource", "uncertainty_share")
    joined = heat.quarters.join(shares, on="resource")
    return _energies(joined, pl.col("joules").abs() * pl.col("uncertainty_share"))


def relative_energies(quarters: pl.DataFrame, uncertainty: float) -> pl.DataFrame:
    """The ENERGIES of registers of which all have one relative uncertainty, expanded (k = 2)."""
    return _energies(quarters, pl.col("joules").abs() * uncertainty)


def loop_energies(quarters: pl.DataFrame, accuracy: HeatAccuracy) -> pl.DataFrame:
    """The ENERGIES of loops."""
    return quarters.select(
        "resource", "time", "joules", "observed_s", uncertainty_joules=2 * uncertainty_joules(accuracy)
    )


def _energies(quarters: pl.DataFrame, uncertainty: pl.Expr) -> pl.DataFrame:
    kept = ("resource", "time", "joules", "observed_s", "estimated_joules", "quantisation_joules")
    return quarters.select(*kept, uncertainty_joules=uncertainty)


def _boundaries(
    data: HeatData,
    heat: HeatAccount,
    quarters: pl.DataFrame,
    racks: pl.DataFrame,
    settings: HeatReportSettings,
    period: Period,
) -> tuple[BoundaryLine, ...]:
    site = heat.account.quarters.select("time", "site_joules", "it_joules")
    known = pl.concat([frame.select("resource", "time", "joules") for frame in (quarters, racks)])
    it = data.meters.filter(pl.col("role") == Role.IT)["resource"].to_list()
    inside = [*it, *racks["resource"].unique().to_list()]
    return capacity.boundary_lines(site, known, settings.commissioning, inside, period)


def _chart(heat: HeatAccount) -> Chart:
    account, part = heat.account, heat.period.part_name
    parts = figures.by_part(account)
    handed = heat.meters.filter(pl.col("role") == Role.HEAT_HANDED_OVER).select("resource")
    warm = heat.quarters.join(handed, on="resource").join(heat.warmth, on=["resource", "time"])
    joules, supply = pl.col("joules"), pl.col("supply_celsius")
    warmth = (
        warm.filter(joules > 0, supply.is_not_null())
        .group_by(heat.period.part(pl.col("time")).alias("time"))
        .agg(celsius=(supply * joules).sum() / joules.sum())
    )
    text = "Heat at the heat meters. Below: supply temperature at the hand-over, weighted by energy."
    return Chart(f"Heat by {part}", text, charts.heat_chart(parts, warmth, heat.period), wide=True)


def _cut_off(data: HeatData, period: Period) -> datetime | None:
    """The latest reading of the period that the report knows."""
    latest = data.registers.filter(pl.col("time") <= period.end)["time"].max()
    return period.local(latest) if isinstance(latest, datetime) else None


def _summary(site: str, period: Period, kpis: Sequence[Kpi]) -> str:
    """One sentence in plain words, of what is known."""
    known = {kpi.definition.key: kpi for kpi in kpis}
    when = f"{'on' if period.span is Span.DAY else 'in'} {period_title(period)}"
    handed = known["heat_handed_over"]
    if handed.value is None:
        return f"The heat that {site} handed over {when} cannot be told. {handed.reason}"
    words = [f"{site} handed over {figure(handed)} MWh of heat {when}"]
    if known["erf"].value is not None:
        words.append(f"{percent(known['erf'].value)} of the energy that it used")
    if known["supply_temperature"].value is not None:
        words.append(f"at {figure(known['supply_temperature'])} °C")
    return f"{', '.join(words)}; this is {handed.quality}."


def _assumptions(data: HeatData, heat: HeatAccount, settings: HeatReportSettings) -> Iterator[str]:
    """What is configuration or assumed rather than known."""
    if settings.phases is capacity.PHASES:
        yield "Contracted power is what was announced for the site: no register of contracts has one with the grid."
    if late := overdue(heat.meters, heat.period):
        yield f"The calibration of {len(late)} meters was overdue at the period's end: {', '.join(late[:3])}."
    if data.meters.height and data.facts.calibrations.is_empty():
        yield "Meters' classes are those of the inventory: no register of calibrations was imported."
    assumed = heat.meters.filter(pl.col("class_assumed")).sort("name")["name"].to_list()
    if assumed:
        yield f"Accuracy classes are assumed for {len(assumed)} meters that state none: {', '.join(assumed[:3])}."
    yield (
        "Coolant loops: 1 % of flow, 0.1 K for each probe, 0.5 % of the fluid (k = 1)."
        if settings.heat.loops == HeatAccuracy()
        else "Coolant loops: the accuracies that the site configured."
    )
    yield (
        f"Racks' registers are taken to be within {100 * settings.rack_limit:g} %, counters of trays and GPUs within "
        f"{100 * settings.fleet_limit:g} %: they have no accuracy class."
    )
    yield "Losses that a balance may have are engineering ranges unless the site states its own."
    yield "Heat handed over is taken as reused outside; no avoided emissions are claimed for it."
