"""The site report: reads one period of one site, computes the ledger, writes one page."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import polars as pl

from catalogue import COOLING, POWER
from reports import balance, capacity, charts, figures, fleet_days, ledger, queries
from reports.accuracy import Accuracy
from reports.capacity_queries import read_rack_registers
from reports.definitions import definitions, pue_category
from reports.figures import HEAT, JOULES_PER_MWH, Account, Kpi, Quality, Role
from reports.files import replace_text
from reports.ledger import Flag
from reports.period import Period
from reports.readings import TIME
from reports.register_facts import RegisterFacts, calibrated, read_register_facts
from reports.render import (
    Chart,
    FlagLine,
    MeterLine,
    PipelineCounts,
    SiteReport,
    figure,
    percent,
    period_title,
    render_html,
)
from storage.reader import Reader

# A rating leaves room for time stamps that are off by a tick; garbage is orders of magnitude above.
CEILING_OVER_RATING = 2.0
# From 1 % of its rated current on, a class 0.5S meter keeps limits of error: IEC 62053-22.
COUNTS_FROM_RATING = 0.01


@dataclass(frozen=True, slots=True)
class ReportSettings:
    """What the store does not know. An empty text is taken from the inventory."""

    site_name: str = ""
    pue_category: str = ""
    accuracy: Accuracy = field(default_factory=Accuracy)


def _no_quarters() -> pl.DataFrame:
    return pl.DataFrame(schema={"resource": pl.UInt64(), "time": TIME, "joules": pl.Float64()})


@dataclass(frozen=True, slots=True, eq=False)
class SiteData:
    """What was read for one report; `registers` are the readings of all meters, electrical and heat.

    `serials` is the history of their serial numbers, without which no meter counts as exchanged. `commissioned_racks`:
    the quarter hours of racks that were being commissioned.
    """

    meters: pl.DataFrame
    stock: queries.Stock
    registers: pl.DataFrame
    temperatures: pl.DataFrame
    gpus: pl.DataFrame
    serials: pl.DataFrame | None = None
    facts: RegisterFacts = field(default_factory=RegisterFacts)
    commissioned_racks: pl.DataFrame = field(default_factory=_no_quarters)


def write_site_report(
    reader: Reader,
    period: Period,
    out_dir: Path,
    *,
    now: datetime,
    counts: PipelineCounts | None = None,
    settings: ReportSettings | None = None,
) -> Path:
    """Write `site-<period>.html` into `out_dir` and return its path; an older one is replaced whole.

    `now` is aware. Raises StoreUnavailableError or StoreRefusedError from the store, OSError from the disk.
    """
    data = read_site(reader, period, now)
    report = build_report(data, period, now=now, counts=counts, settings=settings or ReportSettings())
    out_dir.mkdir(parents=True, exist_ok=True)
    path = out_dir / f"site-{period.text}.html"
    return replace_text(path, render_html(report))


def read_site(reader: Reader, period: Period, now: datetime) -> SiteData:
    """Everything that a site report needs, the registers of what no sensor tells included."""
    facts = read_register_facts(reader, period, now)
    meters = calibrated(queries.read_meters(reader, period), facts.calibrations)
    heat = pl.col("role").is_in([*HEAT])
    electrical_ids = meters.filter(~heat)["resource"].to_list()
    heat_ids = meters.filter(heat)["resource"].to_list()
    exact = all(queries.holds_raw(table, period, now) for table in (POWER, COOLING))
    registers = (
        queries.read_registers(reader, POWER, queries.ENERGY_REGISTER, electrical_ids, period, exact=exact),
        queries.read_registers(reader, COOLING, queries.HEAT_REGISTER, heat_ids, period, exact=exact),
    )
    return SiteData(
        # A declared interval is that of the raw readings.
        meters=meters if exact else meters.with_columns(interval_s=pl.lit(None, pl.Float64)),
        stock=queries.read_stock(reader, period),
        registers=pl.concat(registers),
        temperatures=queries.read_heat_temperatures(reader, heat_ids, period),
        gpus=fleet_days.read_gpus(reader, fleet_days.read_kept_days(reader, period), period, now),
        serials=queries.read_serials(reader, [*electrical_ids, *heat_ids], period),
        facts=facts,
        commissioned_racks=_read_commissioned_racks(reader, meters, facts, period),
    )


def _read_commissioned_racks(
    reader: Reader, meters: pl.DataFrame, facts: RegisterFacts, period: Period
) -> pl.DataFrame:
    """The quarter hours of what was being commissioned and is no meter."""
    racks = sorted({one.resource for one in facts.commissioning} - set(meters["resource"].to_list()))
    if not racks:
        return _no_quarters()
    registers = read_rack_registers(reader, racks, period)
    return capacity.rack_quarters(racks, registers, period).select("resource", "time", "joules")


def build_report(
    data: SiteData, period: Period, *, now: datetime, counts: PipelineCounts | None, settings: ReportSettings
) -> SiteReport:
    """The report from what was read; pure."""
    steps = steps_of(data, period)
    quarters = ledger.quarters(steps.lazy(), data.meters.lazy(), period).collect()
    flags = ledger.flags(steps.lazy(), period).collect()
    account = account_of(data, quarters, flags, period, settings)
    electrical = data.meters.filter(pl.col("role") == Role.IT)["measured_at"].to_list()
    category = settings.pue_category or pue_category(electrical)
    kpis = tuple(
        _within_boundary(kpi, account, quarters, data, period)
        for kpi in figures.key_figures(account, definitions(category=category, part_name=period.part_name))
    )
    cut_off = _cut_off(data, period)
    site = settings.site_name or data.stock.site_name or "Unnamed site"
    return SiteReport(
        site=site,
        period=period,
        category=category,
        cut_off=cut_off,
        generated_at=period.local(now),
        software=software(),
        summary=_summary(site, period, kpis),
        complete=now >= period.end,
        kpis=kpis,
        charts=tuple(_charts(account, data, quarters, kpis)),
        balance=balance.energy_balance(account),
        heat=balance.heat_account(account, data.temperatures, quarters),
        meters=tuple(_meter_lines(account)),
        flags=tuple(_flag_lines(account, flags)),
        counts=counts,
    )


def _within_boundary(kpi: Kpi, account: Account, quarters: pl.DataFrame, data: SiteData, period: Period) -> Kpi:
    """iPUE without the load of what was being commissioned, by the boundary version that began last."""
    commissioning = data.facts.commissioning
    if kpi.definition.key != "ipue" or kpi.value is None or not commissioning:
        return kpi
    version = max(commissioning, key=lambda one: (one.start, one.boundary_version)).boundary_version
    known = pl.concat([quarters.select("resource", "time", "joules"), data.commissioned_racks])
    it = account.meters.filter(pl.col("role") == Role.IT)["resource"].to_list()
    inside = [*it, *data.commissioned_racks["resource"].unique().to_list()]
    site = account.quarters.select("time", "site_joules", "it_joules")
    (line,) = capacity.boundary_lines(
        site, known, [one for one in commissioning if one.boundary_version == version], inside, period
    )
    if line.ipue is None or line.excluded_mwh is None:
        said = line.reason or "Nothing but commissioning drew IT power."
        return replace(kpi, note=f"Commissioning is in it (boundary {version}). {said} {kpi.note}".strip())
    left_out = f"Boundary {version}: {line.excluded_mwh:.4g} MWh of commissioning left out; with it {kpi.value:.4g}."
    return replace(kpi, value=line.ipue, note=f"{left_out} {kpi.note}".strip())


def steps_of(data: SiteData, period: Period) -> pl.DataFrame:
    rated = data.meters.with_columns(
        ceiling_watts=pl.col("rated_watts") * CEILING_OVER_RATING,
        frozen_above_watts=pl.col("rated_watts") * COUNTS_FROM_RATING,
    )
    exchanges = None if data.serials is None else ledger.exchanges_of(data.serials.lazy())
    return ledger.mark_edges(ledger.steps(data.registers.lazy(), rated.lazy(), exchanges), period).collect()


def account_of(
    data: SiteData, quarters: pl.DataFrame, flags: pl.DataFrame, period: Period, settings: ReportSettings
) -> Account:
    roles = data.meters.lazy().select("resource", "role")
    by_role = ledger.by_role(quarters.lazy(), roles)
    # A period without any meter still has its quarter hours, of which nothing is known.
    every = period.edges().filter(pl.col("time") < period.end)
    wide = every.join(ledger.side_by_side(by_role, figures.ROLES), on="time", how="left").sort("time")
    totals = ledger.by_meter(quarters.lazy())
    meters = data.meters.lazy().join(totals, on="resource").join(_flag_counts(flags), on="resource", how="left")
    counted = pl.col("gaps", "resets", "rollovers", "implausible", "longest_gap_s").fill_null(0)
    return Account(
        period=period,
        meters=meters.with_columns(counted).collect(),
        quarters=wide.collect(),
        gpus=data.gpus,
        gpu_count=data.stock.gpus or max(data.gpus["gpus"], default=0),
        installed_it_watts=data.stock.installed_watts,
        accuracy=settings.accuracy,
    )


def _flag_counts(flags: pl.DataFrame) -> pl.LazyFrame:
    kind, is_gap = pl.col("flag"), pl.col("flag").is_in([Flag.GAP, Flag.EDGE, Flag.MISSING])
    return (
        flags.lazy()
        .group_by("resource")
        .agg(
            gaps=is_gap.sum(),
            resets=(kind == Flag.RESET).sum(),
            rollovers=(kind == Flag.ROLLOVER).sum(),
            implausible=(kind == Flag.IMPLAUSIBLE).sum(),
            longest_gap_s=(pl.col("time") - pl.col("start")).filter(is_gap).max().dt.total_seconds(),
        )
    )


def _charts(account: Account, data: SiteData, quarters: pl.DataFrame, kpis: tuple[Kpi, ...]) -> Iterator[Chart]:
    period, part = account.period, account.period.part_name
    parts = figures.by_part(account)
    ipue = next(kpi.value for kpi in kpis if kpi.definition.key == "ipue")
    warmth = _warmth(account, data, quarters)
    yield Chart(
        "Site power",
        "Mean power of each hour. The dot is the highest quarter hour; grey dashes are hours whose energy is known "
        "from the registers but whose profile was not observed.",
        charts.power_chart(figures.hourly_power(account), figures.peak(account), period),
        wide=True,
    )
    yield Chart(
        f"Energy by {part}",
        "Where the site's energy went. Other and losses is the site's energy less IT and cooling.",
        charts.energy_chart(parts, period),
    )
    yield Chart(
        f"iPUE by {part}",
        f"Site energy over IT energy. Dashed: the whole period. Hollow: less than 95 % of the {part} was observed.",
        charts.ipue_chart(parts, period, ipue),
    )
    yield Chart(
        f"Heat by {part}",
        "Heat at the heat meters. Below: supply temperature at the hand-over, weighted by energy.",
        charts.heat_chart(parts, warmth, period),
    )
    yield Chart(
        "GPU fleet",
        "Mean power of each GPU: the median and the middle 90 % of the fleet. Below: mean share of cycles in which a "
        "GPU's multiprocessors had work.",
        charts.gpu_chart(account.gpus, period),
    )


def _warmth(account: Account, data: SiteData, quarters: pl.DataFrame) -> pl.DataFrame:
    """Supply temperature at the hand-over by part of the period, weighted by energy: time, celsius."""
    handed = data.meters.filter(pl.col("role") == Role.HEAT_HANDED_OVER).select("resource")
    joined = quarters.join(handed, on="resource").join(data.temperatures, on=["resource", "time"])
    joules, supply = pl.col("joules"), pl.col("supply_celsius")
    return (
        joined.filter(joules > 0, supply.is_not_null())
        .group_by(account.period.part(pl.col("time")).alias("time"))
        .agg(celsius=(supply * joules).sum() / joules.sum())
    )


def _meter_lines(account: Account) -> Iterator[MeterLine]:
    order = [role.value for role in figures.ROLES]
    ranked = account.meters.sort(pl.col("role").replace_strict(order, range(len(order)), return_dtype=pl.Int64), "name")
    for meter in ranked.iter_rows(named=True):
        stated = account.accuracy.is_assumed(meter["accuracy_class"])
        yield MeterLine(
            name=meter["name"],
            role=meter["role"].replace("_", " "),
            accuracy_class=account.accuracy.assumed_classes[meter["role"]] if stated else meter["accuracy_class"],
            class_assumed=stated,
            measured_at=meter["measured_at"],
            mwh=None if meter["joules"] is None else meter["joules"] / JOULES_PER_MWH,
            coverage=meter["coverage"],
            share_estimated=meter["share_estimated"] or 0.0,
            gaps=meter["gaps"],
            longest_gap_s=meter["longest_gap_s"],
            resets=meter["resets"],
            rollovers=meter["rollovers"],
            implausible=meter["implausible"],
        )


def _flag_lines(account: Account, flags: pl.DataFrame) -> Iterator[FlagLine]:
    named = flags.join(account.meters.select("resource", "name"), on="resource", maintain_order="left")
    for flag in named.iter_rows(named=True):
        yield FlagLine(
            meter=flag["name"],
            flag=flag["flag"],
            start=account.period.local(flag["start"]),
            end=account.period.local(flag["time"]),
            mwh=flag["joules"] / JOULES_PER_MWH,
        )


def _cut_off(data: SiteData, period: Period) -> datetime | None:
    """The latest reading of the period that the report knows."""
    latest = data.registers.filter(pl.col("time") <= period.end)["time"].max()
    return period.local(latest) if isinstance(latest, datetime) else None


def _summary(site: str, period: Period, kpis: tuple[Kpi, ...]) -> str:
    """One sentence in plain words, of what is known."""
    known = {kpi.definition.key: kpi for kpi in kpis if kpi.value is not None}
    energy = known.get("site_energy")
    if energy is None:
        reason = next(kpi.reason for kpi in kpis if kpi.definition.key == "site_energy")
        return f"The energy of {site} in {period_title(period)} cannot be told. {reason}"
    words = [f"{site} used {figure(energy)} MWh in {period_title(period)}"]
    if "ipue" in known:
        words.append(f"{figure(known['ipue'])} MWh for each MWh that reached the IT equipment")
    if "erf" in known:
        words.append(f"and handed over heat worth {percent(known['erf'].value)} of its energy")
    return ", ".join(words) + f"; site energy is {_quality_words(energy)}."


def _quality_words(kpi: Kpi) -> str:
    coverage = percent(kpi.evidence.coverage) if kpi.evidence else ""
    return f"{kpi.quality} ({coverage} of the time observed)" if kpi.quality is not Quality.BLANK else kpi.quality


def software() -> str:
    try:
        return f"Kvandal {version('kvandal')}"
    except PackageNotFoundError:
        return "Kvandal, not installed as a package"
