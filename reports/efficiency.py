"""The efficiency report: what the fleet did with its time and energy, and which GPU, node or rack wastes them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from catalogue import POWER
from reports import efficiency_charts as charts
from reports import efficiency_figures as fleet
from reports import efficiency_queries as queries
from reports import fleet_days, ledger, render
from reports import site as site_page
from reports.capacity import Commissioning
from reports.efficiency_definitions import definitions
from reports.efficiency_energy import HallLine, by_key, cer, halls, itue, tue
from reports.efficiency_figures import PARTS, StateLine
from reports.efficiency_hours import (
    HOURS,
    OUTAGES,
    Allocation,
    Health,
    gpu_hours,
    maintained,
    members_of,
    openings,
    outages_of,
    unresolved,
)
from reports.efficiency_lemons import judge_nodes
from reports.efficiency_power import steps, swings
from reports.efficiency_queries import Window
from reports.efficiency_racks import fluid_tables, rack_cooling
from reports.efficiency_stragglers import deviations, slow_gpus
from reports.figures import Account, Definition, Kpi
from reports.fleet_days import KeptDays, KeptTable
from reports.period import Period
from reports.publishing.documents import figure_document, json_text, period_document, time_text
from reports.queries import holds_raw
from reports.readings import TIME
from reports.render import Chart
from storage.reader import Reader, Schema
from storage.register_kinds import RegisterKind

SCHEMA = "kvandal.efficiency/1"
LINES_SHOWN = 20
JOULES_PER_KWH = 3.6e6

_GPU_TOTALS: Schema = {
    "resource": pl.UInt64(),
    "throttled_s": pl.Float64(),
    "celsius_sum": pl.Float64(),
    "celsius_count": pl.UInt64(),
}


@dataclass(frozen=True, slots=True)
class EfficiencySettings:
    """What the store does not know. The defaults are assumptions, and the report says so."""

    site: site_page.ReportSettings = field(default_factory=site_page.ReportSettings)
    design_rise_kelvin: float = 10.0  # 1.5 L/min per kW with 25 % propylene glycol, OCP guidance
    liquid_share: float = 0.87  # of a rack's power, where no sensor tells its heat: 85 to 90 % go to liquid
    price_zone: str = ""  # bidding zone of the prices; needed only where the register has several


@dataclass(frozen=True, slots=True, eq=False)
class EfficiencyData:
    """What was read for one report. `hours`: HOURS of all windows; `parts`: PARTS; `gpus`: totals of each GPU."""

    site: site_page.SiteData
    hours: pl.DataFrame
    parts: pl.DataFrame
    gpus: pl.DataFrame
    places: pl.DataFrame
    members: pl.DataFrame
    opened: pl.DataFrame
    holds: pl.DataFrame
    jobs: pl.DataFrame
    outlying: pl.DataFrame
    job_windows: pl.DataFrame
    coolant: pl.DataFrame
    rack_facts: pl.DataFrame
    minute_power: pl.DataFrame
    raw_power: pl.DataFrame | None


@dataclass(frozen=True, slots=True)
class KpiGroup:
    """Cards under one heading; `text` says what to keep in mind."""

    title: str
    kpis: Sequence[Kpi]
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EfficiencyReport:
    """Everything that the page and the JSON say, and what it rests on: `meters` of the account, rows of `registers`."""

    site: str
    period: Period
    category: str
    generated_at: datetime
    software: str
    complete: bool
    summary: str
    gpu_count: int
    groups: Sequence[KpiGroup]
    health: Sequence[StateLine]
    allocation: Sequence[StateLine]
    throttling: Sequence[StateLine]
    halls: Sequence[HallLine]
    charts: Sequence[Chart]
    jobs: pl.DataFrame
    stragglers: pl.DataFrame
    nodes: pl.DataFrame
    racks: pl.DataFrame
    window_s: float | None
    meters: pl.DataFrame
    registers: Mapping[RegisterKind, pl.DataFrame | None]
    problems: Sequence[str] = ()

    @property
    def kpis(self) -> tuple[Kpi, ...]:
        return tuple(kpi for group in self.groups for kpi in group.kpis)


def write_efficiency_report(
    reader: Reader,
    period: Period,
    out_dir: Path,
    *,
    now: datetime,
    prices: pl.DataFrame | None = None,
    tokens: pl.DataFrame | None = None,
    maintenance: pl.DataFrame | None = None,
    settings: EfficiencySettings | None = None,
) -> Path:
    """Write `efficiency-<period>.html` and `.json` into `out_dir`; returns the page's path, older ones are replaced.

    `now` is aware. `prices` and `tokens` are the registers power_prices (one zone, one currency) and
    job_tokens, `maintenance` intervals of resources (resource, start, end); absent, those of the store are taken.
    What rests on a register of which nothing was imported is a blank. Raises StoreUnavailableError or
    StoreRefusedError from the store, OSError from the disk.
    """
    chosen = settings or EfficiencySettings()
    data = read_efficiency(reader, period, now, maintenance=maintenance, hourly=prices is not None)
    report = build_efficiency(data, period, now=now, prices=prices, tokens=tokens, settings=chosen)
    out_dir.mkdir(parents=True, exist_ok=True)
    path = out_dir / f"efficiency-{period.text}.html"
    _replace(path.with_suffix(".json"), json_text(document(report)))
    return _replace(path, render_html(report))


# Reading


def read_efficiency(
    reader: Reader,
    period: Period,
    now: datetime,
    *,
    maintenance: pl.DataFrame | None = None,
    hourly: bool = False,
) -> EfficiencyData:
    """Everything that an efficiency report needs; the fleet window by window, so that memory stays bounded.

    `hourly` cuts the fleet's energy at every hour, as prices do; it is so anyway where the store has prices.
    """
    of_site = site_page.read_site(reader, period, now)
    maintenance = of_site.facts.maintenance if maintenance is None else maintenance
    hourly = hourly or of_site.facts.prices is not None
    places, feeds = queries.read_places(reader, period), queries.read_feeds(reader, period)
    members = members_of(places, feeds)
    opened = openings(queries.read_events(reader, period, now)).filter(pl.col("time") < pl.lit(period.end).cast(TIME))
    worked = queries.read_first_work(reader, unresolved(opened), period)
    window = Window(period.start, min(period.end, max(now, period.start)))
    outages = pl.concat([outages_of(opened, worked, members, window), maintained(maintenance, members)])
    holds = queries.read_holds(reader, period)
    kept = fleet_days.read_kept_days(reader, period)
    sweep = _Sweep(reader, period, now, places, outages, holds if holds.height else None, kept, hourly=hourly)
    feeds_of_site = queries.site_meters(of_site.meters)
    raw = holds_raw(POWER, period, now)
    return EfficiencyData(
        site=of_site,
        hours=pl.concat(sweep.hours),
        parts=pl.concat(sweep.parts),
        gpus=_added_up(sweep.gpus),
        places=places,
        members=members,
        opened=opened.filter(pl.col("time") >= pl.lit(period.start).cast(TIME)),
        holds=holds,
        jobs=queries.read_job_energy(reader, period),
        outlying=pl.concat(sweep.outlying),
        job_windows=pl.concat(sweep.job_windows),
        coolant=fleet_days.read_coolant(reader, kept, period, now),
        rack_facts=queries.read_rack_facts(reader, period),
        minute_power=queries.read_site_power(reader, feeds_of_site, period, raw=False),
        raw_power=queries.read_site_power(reader, feeds_of_site, period, raw=True) if raw else None,
    )


class _Sweep:
    """Reads the windows of a period one after the other, and keeps only what is left of each."""

    def __init__(
        self,
        reader: Reader,
        period: Period,
        now: datetime,
        places: pl.DataFrame,
        outages: pl.DataFrame,
        holds: pl.DataFrame | None,
        kept: KeptDays,
        *,
        hourly: bool,
    ) -> None:
        self._reader, self._outages, self._holds, self._kept = reader, outages, holds, kept
        self._gpus = places.filter(pl.col("kind") == "gpu").select("resource").unique()
        self._minutes, self._hourly = queries.reads_minutes(period, now), hourly
        self.hours = [pl.DataFrame(schema=dict(HOURS))]
        self.parts = [pl.DataFrame(schema=dict(PARTS))]
        self.gpus = [pl.DataFrame(schema=dict(_GPU_TOTALS))]
        self.outlying = [pl.DataFrame(schema=dict(queries.WINDOWS))]
        self.job_windows = [pl.DataFrame(schema=dict(queries.JOB_WINDOWS))]
        for window in queries.windows_of(period):
            self._read(window, over=window.start < now)

    def _read(self, window: Window, *, over: bool) -> None:
        segments = pl.DataFrame(schema=dict(queries.SEGMENTS))
        outages, watts = self._touching(self._outages, window), pl.DataFrame(schema=dict(queries.COMPONENTS))
        if over:
            segments, troubles, watts = self._states(window)
            outages = pl.concat([outages, troubles.select(*OUTAGES)])
        holds = None if self._holds is None else self._touching(self._holds, window)
        segments = segments.join(self._gpus, on="resource", how="semi")
        self.hours.append(gpu_hours(self._gpus, segments, outages, holds, window, hourly=self._hourly))
        self.parts.append(part_of(segments, watts, window, self._gpus.height))
        self.gpus.append(gpu_totals(segments))
        if over and holds is not None:
            self._compare_jobs(window)

    def _states(self, window: Window) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        """SEGMENTS, TROUBLES and COMPONENTS of a window, kept or grouped now."""
        if self._kept.holds(window):
            return (
                self._kept_of(fleet_days.SEGMENTS, window, queries.SEGMENTS),
                self._kept_of(fleet_days.TROUBLES, window, queries.TROUBLES),
                fleet_days.read_components(self._kept, window),
            )
        return (
            queries.read_segments(self._reader, window, minutes=self._minutes),
            queries.read_troubles(self._reader, window, minutes=self._minutes),
            queries.read_components(self._reader, window, minutes=self._minutes),
        )

    def _compare_jobs(self, window: Window) -> None:
        if self._kept.holds(window):
            self.outlying.append(self._kept_of(fleet_days.OUTLIERS, window, queries.WINDOWS))
            self.job_windows.append(self._kept_of(fleet_days.COMPARED, window, queries.JOB_WINDOWS))
        elif self._minutes:
            self.outlying.append(queries.read_outlying_windows(self._reader, window))
            self.job_windows.append(queries.read_job_windows(self._reader, window))

    def _kept_of(self, table: KeptTable, window: Window, schema: Schema) -> pl.DataFrame:
        return fleet_days.read_kept(self._reader, table, self._kept, window, schema)

    @staticmethod
    def _touching(intervals: pl.DataFrame, window: Window) -> pl.DataFrame:
        first, last = (pl.lit(bound).cast(TIME) for bound in (window.start, window.end))
        return intervals.filter(pl.col("start") < last, pl.col("end").is_null() | (pl.col("end") > first))


def part_of(segments: pl.DataFrame, components: pl.DataFrame, window: Window, gpus: int) -> pl.DataFrame:
    """PARTS: one row, the fleet in one window. Activity is weighted by time, whatever the agents' intervals."""
    seconds = (window.end - window.start).total_seconds()
    lasted = (pl.col("end") - pl.col("start")).dt.total_milliseconds() / 1000
    row = segments.unique(["resource", "start", "end"]).select(
        time=pl.lit(window.start).cast(TIME),
        seconds=pl.lit(seconds),
        gpu_s=pl.lit(seconds * gpus),
        seen_s=lasted.sum(),
        joules=pl.when(pl.col("joules").count() > 0).then(pl.col("joules").sum()),
        **{f"{cause}_s": pl.col(f"{cause}_s").sum() for cause in queries.THROTTLE_CAUSES},
        **{
            f"{name}_weight": (
                pl.when(pl.col(f"{name}_count") > 0).then(pl.col(f"{name}_sum") / pl.col(f"{name}_count") * lasted)
            ).sum()
            for name in queries.ACTIVITIES
        },
        **{f"{name}_s": lasted.filter(pl.col(f"{name}_count") > 0).sum() for name in queries.ACTIVITIES},
    )
    watts = components["processor_watts"].sum() if components.height and components["trays"].sum() else None
    return row.with_columns(
        processor_watts=pl.lit(watts, pl.Float64), trays=pl.lit(int(components["trays"].sum()), pl.UInt64)
    ).select(pl.col(name).cast(kind) for name, kind in PARTS.items())


def gpu_totals(segments: pl.DataFrame) -> pl.DataFrame:
    """Of each GPU: seconds held down by anything but the power cap, and its temperature while it worked."""
    held = pl.sum_horizontal(f"{cause}_s" for cause in queries.THROTTLE_CAUSES[1:])
    works = pl.col("activity") == 2
    return (
        segments.unique(["resource", "start", "end"])
        .group_by("resource")
        .agg(
            throttled_s=held.sum(),
            celsius_sum=pl.col("celsius_sum").filter(works).sum(),
            celsius_count=pl.col("celsius_count").filter(works).sum(),
        )
        .select(pl.col(name).cast(kind) for name, kind in _GPU_TOTALS.items())
    )


def _added_up(totals: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(totals).group_by("resource").agg(pl.all().sum()).sort("resource")


# Computing


def build_efficiency(
    data: EfficiencyData,
    period: Period,
    *,
    now: datetime,
    prices: pl.DataFrame | None,
    tokens: pl.DataFrame | None,
    settings: EfficiencySettings,
) -> EfficiencyReport:
    """The report from what was read; pure. `prices` and `tokens` that are absent are those of the store's registers."""
    words = definitions()
    prices = of_zone(data.site.facts.prices if prices is None else prices, settings.price_zone)
    tokens = data.site.facts.tokens if tokens is None else tokens
    page = site_page.build_report(data.site, period, now=now, counts=None, settings=settings.site)
    account = account_of(data.site, period, settings.site)
    of_site = by_key(tuple(page.kpis))
    nodes, racks = _nodes(data, period), _racks(data, period, settings)
    slow = _with_names(data, slow_gpus(deviations(data.outlying, data.job_windows)))
    groups = (
        _energy_group(words, of_site, account, data),
        _waste_group(words, data, prices, settings),
        _work_group(words, data),
        _job_group(words, data, tokens, of_site["ipue"], settings),
        KpiGroup(
            "Trouble, power swings, coolant",
            (*_trouble(words, data, slow, nodes), *_power(words, data, period), *_coolant(words, data, racks)),
        ),
    )
    gpus = data.places.filter(pl.col("kind") == "gpu")["resource"].n_unique()
    return EfficiencyReport(
        site=page.site,
        period=period,
        category=page.category,
        generated_at=page.generated_at,
        software=page.software,
        complete=page.complete,
        summary=_summary(page.site, period, groups),
        gpu_count=gpus,
        groups=groups,
        health=fleet.states(data.hours, "health", tuple(Health)),
        allocation=_allocation_lines(data.hours),
        throttling=fleet.throttle_lines(data.parts),
        halls=halls(account, data.members, data.places),
        charts=tuple(_charts(data, period)),
        jobs=_job_lines(data, tokens),
        stragglers=slow,
        nodes=nodes,
        racks=racks,
        window_s=_spacing_s(data),
        meters=account.meters,
        registers={
            RegisterKind.POWER_PRICES: prices,
            RegisterKind.JOB_TOKENS: tokens,
            RegisterKind.MAINTENANCE: data.site.facts.maintenance,
            RegisterKind.COMMISSIONING: _frame_of(data.site.facts.commissioning),
        },
        problems=data.site.facts.problems,
    )


def _frame_of(commissioning: Sequence[Commissioning]) -> pl.DataFrame | None:
    return pl.DataFrame(commissioning, schema_overrides={"resource": pl.UInt64()}) if commissioning else None


def of_zone(prices: pl.DataFrame | None, zone: str) -> pl.DataFrame | None:
    """The prices of one bidding zone; all of them without one."""
    return prices.filter(pl.col("zone") == zone) if prices is not None and zone else prices


def account_of(data: site_page.SiteData, period: Period, settings: site_page.ReportSettings) -> Account:
    """The ledger's account, as the site report draws it up."""
    counted = site_page.steps_of(data, period)
    quarters = ledger.quarters(counted.lazy(), data.meters.lazy(), period).collect()
    return site_page.account_of(data, quarters, ledger.flags(counted.lazy(), period).collect(), period, settings)


def _energy_group(
    words: Mapping[str, Definition], of_site: Mapping[str, Kpi], account: Account, data: EfficiencyData
) -> KpiGroup:
    of_it = itue(words["itue"], account, data.parts)
    return KpiGroup(
        "Energy effectiveness",
        (
            of_site["ipue"],
            of_it,
            tue(words["tue"], of_it, of_site["ipue"]),
            cer(words["cer"], account),
            of_site["load_factor"],
            of_site["it_energy"],
            of_site["gpu_share"],
        ),
        "PUE depends on load: read it with the load factor. Interim: PUE and its kin proper take twelve months.",
    )


def _waste_group(
    words: Mapping[str, Definition], data: EfficiencyData, prices: pl.DataFrame | None, settings: EfficiencySettings
) -> KpiGroup:
    accuracy, hours = settings.site.accuracy, data.hours
    kinds = {"idle": Allocation.IDLE, "stranded": Allocation.UNALLOCATED}
    energies = [fleet.energy_of(words[f"{key}_energy"], hours, kind, accuracy) for key, kind in kinds.items()]
    costs = [fleet.cost_of(words[f"{key}_cost"], hours, kind, prices, accuracy) for key, kind in kinds.items()]
    of_time = (fleet.available(words["available"], hours), fleet.busy(words["busy"], hours))
    return KpiGroup("GPU time, idle and stranded energy", (*of_time, *energies, *costs))


def _work_group(words: Mapping[str, Definition], data: EfficiencyData) -> KpiGroup:
    parts = data.parts
    return KpiGroup(
        "Work and throttling",
        (
            fleet.activity(words["sm_active"], parts, "sm"),
            fleet.activity(words["mfu_proxy"], parts, "tensor"),
            fleet.activity(words["dram_active"], parts, "dram"),
            fleet.throttled(words["throttled"], parts),
            fleet.share_of_seen(words["power_capped"], parts, ("power_cap",)),
        ),
    )


def _job_group(
    words: Mapping[str, Definition],
    data: EfficiencyData,
    tokens: pl.DataFrame | None,
    ipue: Kpi,
    settings: EfficiencySettings,
) -> KpiGroup:
    return KpiGroup("Jobs", tuple(fleet.job_kpis(words, data.jobs, tokens, ipue, settings.site.accuracy)))


def _trouble(
    words: Mapping[str, Definition], data: EfficiencyData, slow: pl.DataFrame, nodes: pl.DataFrame
) -> tuple[Kpi, ...]:
    coverage = fleet.seen_share(data.hours)
    if data.job_windows.is_empty():
        reason = "No minute of a job with eight GPUs or more could be compared."
        stragglers = Kpi(words["stragglers"], None, "", None, reason)
    else:
        spacing_s = _spacing_s(data) or 0.0
        apart = f"Windows of one minute, {spacing_s:.0f} s apart." if spacing_s > 60 else ""
        capped = slow.filter(~pl.col("corroborated"))["resource"].n_unique()
        only = f"{capped} more have only a low clock, as at the power cap." if capped else ""
        sure = slow.filter("corroborated")["resource"].n_unique()
        note = " ".join(filter(None, (only, apart)))
        stragglers = fleet.count_kpi(words["stragglers"], sure, coverage, note)
    lemons = int(nodes["lemon"].sum()) if nodes.height else 0
    failures = int(nodes["failures"].sum()) if nodes.height else 0
    trays = data.places.filter(pl.col("kind") == "gpu")["tray"].n_unique()
    of_nodes = fleet.count_kpi(words["lemons"], lemons, coverage, f"{failures} failures on {trays} nodes.")
    return stragglers, of_nodes


def _power(words: Mapping[str, Definition], data: EfficiencyData, period: Period) -> tuple[Kpi, ...]:
    meters = len(queries.site_meters(data.site.meters))
    found = swings(data.minute_power, meters, period)
    fast = None if data.raw_power is None else steps(data.raw_power, meters, period)
    return (
        fleet.ramp_kpi(words["rise"], found.rise, found),
        fleet.ramp_kpi(words["fall"], found.fall, found),
        fleet.steps_kpi(words["steps"], fast),
    )


def _coolant(words: Mapping[str, Definition], data: EfficiencyData, racks: pl.DataFrame) -> tuple[Kpi, ...]:
    expected = data.rack_facts.height
    return (
        fleet.rack_kpi(words["overflow"], racks, "overflow_ratio", 100, expected),
        fleet.rack_kpi(words["approach"], racks, "approach_kelvin", 1, expected),
    )


def _allocation_lines(hours: pl.DataFrame) -> tuple[StateLine, ...]:
    if hours.filter(pl.col("allocation") != Allocation.UNTOLD).is_empty():
        return ()
    return fleet.states(hours, "allocation", tuple(Allocation))


def _nodes(data: EfficiencyData, period: Period) -> pl.DataFrame:
    """LEMONS of all trays: failures of the tray itself and of its GPUs, where they were at the time."""
    gpus = data.places.filter(pl.col("kind") == "gpu", pl.col("tray") != 0)
    trays = gpus.unique("tray").select(node="tray", name="tray_name", rack_name="rack_name")
    where = gpus.sort("valid_from").select("resource", "tray", "valid_from")
    failed = data.opened.filter(pl.col("condition") != Health.MAINTENANCE).unique(["resource", "time", "kind", "code"])
    of_gpus = failed.sort("time").join_asof(
        where, left_on="time", right_on="valid_from", by="resource", strategy="backward", check_sortedness=False
    )
    first = where.unique("resource", keep="first").select("resource", first_tray="tray")
    placed = of_gpus.join(first, on="resource", how="left").select(node=pl.coalesce("tray", "first_tray", "resource"))
    counts = placed.join(trays, on="node", how="semi").group_by("node").agg(failures=pl.len())
    last = where.unique("resource", keep="last").select("resource", node="tray")
    held = data.gpus.join(last, on="resource").group_by("node").agg(pl.col("throttled_s").sum())
    nodes = trays.join(counts, on="node", how="left").join(held, on="node", how="left")
    return judge_nodes(
        nodes.with_columns(
            pl.col("failures").fill_null(0), pl.col("throttled_s").fill_null(0.0), exposure_s=pl.lit(period.seconds)
        )
    )


def _racks(data: EfficiencyData, period: Period, settings: EfficiencySettings) -> pl.DataFrame:
    where = data.places.filter(pl.col("kind") == "gpu").sort("valid_from").unique("resource", keep="last")
    warm = data.gpus.join(where.select("resource", "rack"), on="resource")
    temperatures = warm.group_by("rack").agg(pl.col("celsius_sum", "celsius_count").sum())
    names = data.places.filter(pl.col("kind") == "rack").unique("resource").select("resource", "name")
    racks = names.join(data.rack_facts, on="resource", how="left")
    return rack_cooling(
        data.coolant,
        temperatures,
        racks,
        fluid_tables(data.rack_facts["fluid"].drop_nulls().to_list()),
        design_rise_kelvin=settings.design_rise_kelvin,
        liquid_share=settings.liquid_share,
        seconds=period.seconds,
    )


def _with_names(data: EfficiencyData, slow: pl.DataFrame) -> pl.DataFrame:
    names = data.places.filter(pl.col("kind") == "gpu").unique("resource").select("resource", gpu="name")
    return slow.join(names, on="resource", how="left").sort("worst_z", "job", "resource")


def _job_lines(data: EfficiencyData, tokens: pl.DataFrame | None) -> pl.DataFrame:
    """The jobs that ended, those with most energy first: JOB_ENERGY with name, customer, joules, watts, tokens."""
    words = data.holds.group_by("job").agg(pl.col("name", "customer").min())
    told = pl.DataFrame(schema=dict(fleet.TOKENS)) if tokens is None else tokens.select("job", "tokens").unique("job")
    joules = pl.col("gpu_joules") + pl.col("overhead_joules")
    return (
        data.jobs.join(words, on="job", how="left")
        .join(told, on="job", how="left")
        .with_columns(
            joules=joules,
            watts_per_gpu=pl.col("gpu_joules") / pl.col("observed_gpu_seconds"),
            coverage=(pl.col("observed_gpu_seconds") / pl.col("gpu_seconds")).round(9).clip(0, 1),
        )
        .sort(["joules", "job"], descending=[True, False], nulls_last=True)
    )


def _spacing_s(data: EfficiencyData) -> float | None:
    found = data.job_windows.select(pl.col("spacing_s").median()).item()
    return None if found is None else float(found)


def _charts(data: EfficiencyData, period: Period) -> Iterator[Chart]:
    part = period.part_name
    health = charts.axis_chart(data.hours, "health", charts.HEALTH_COLOURS, period)
    yield Chart(
        f"Health by {part}", "GPU time by state. Unknown is time without readings: never counted as healthy.", health
    )
    told = charts.axis_chart(data.hours, "allocation", charts.ALLOCATION_COLOURS, period)
    yield Chart(f"Allocation by {part}", "GPU time held by jobs, at work or not, and held by none.", told)
    yield Chart(
        f"Idle and stranded energy by {part}",
        "Energy of GPU boards that a job holds without working, and of those that no job holds.",
        charts.waste_chart(data.hours, period),
    )
    yield Chart(
        f"Activity by {part}",
        "Mean over all GPUs that were observed. Tensor stands in for MFU, which no sensor can tell.",
        charts.activity_chart(data.parts, period),
    )


def _summary(name: str, period: Period, groups: Iterable[KpiGroup]) -> str:
    """One sentence in plain words, of what is known."""
    known = {kpi.definition.key: kpi for group in groups for kpi in group.kpis if kpi.value is not None}
    if "available" not in known:
        return f"No GPU of {name} was seen in {render.period_title(period)}."
    words = [
        f"The GPUs of {name} were available {render.figure(known['available'])} % of {render.period_title(period)}"
    ]
    if "busy" in known:
        words.append(f"and busy {render.figure(known['busy'])} % of it")
    if "idle_energy" in known and "stranded_energy" in known:
        idle, stranded = (render.figure(known[key]) for key in ("idle_energy", "stranded_energy"))
        words.append(f"; {idle} MWh went to idle and {stranded} MWh to unallocated GPUs")
    return " ".join(words).replace(" ;", ";") + "."


# Rendering


def render_html(report: EfficiencyReport) -> str:
    """The page; it needs nothing else. Every text is escaped, only charts go in as markup."""
    environment = render.template_environment()
    environment.filters["kilowatt_hours"] = _kilowatt_hours
    return environment.get_template("efficiency.html").render(
        report=report,
        title=render.period_title(report.period),
        lines_shown=LINES_SHOWN,
        jobs=report.jobs.head(LINES_SHOWN).to_dicts(),
        stragglers=report.stragglers.filter("corroborated").head(LINES_SHOWN).to_dicts(),
        nodes=report.nodes.filter(pl.col("failures") > 0).head(LINES_SHOWN).to_dicts(),
        racks=report.racks.head(LINES_SHOWN).to_dicts(),
    )


def _kilowatt_hours(joules: float | None) -> str:
    return render.number(None if joules is None else joules / JOULES_PER_KWH, 1)


def document(report: EfficiencyReport) -> dict[str, Any]:
    """All key figures with their evidence, and all lines of the tables; times are RFC 3339, shares of 1."""
    return {
        "schema": SCHEMA,
        "site": report.site,
        "period": period_document(report.period, complete=report.complete),
        "generated_at": time_text(report.generated_at),
        "software": report.software,
        "pue_category": report.category,
        "gpus": report.gpu_count,
        "figures": [figure_document(kpi) for kpi in report.kpis],
        "gpu_hours": {
            "health": [_line_document(line) for line in report.health],
            "allocation": [_line_document(line) for line in report.allocation],
            "throttling": [_line_document(line) for line in report.throttling],
        },
        "halls": [
            {"hall": h.name, "it_mwh": h.it_mwh, "cooling_mwh": h.cooling_mwh, "ppue": h.ppue,
             "plus_minus": h.plus_minus, "coverage": h.coverage, "reason": h.reason}
            for h in report.halls
        ],
        "jobs": _rows(report.jobs),
        "stragglers": _rows(report.stragglers),
        "nodes": _rows(report.nodes.filter(pl.col("failures") > 0)),
        "racks": _rows(report.racks),
        "problems": list(report.problems),
    }  # fmt: skip


def _line_document(line: StateLine) -> dict[str, Any]:
    return {"name": line.name, "gpu_hours": line.gpu_hours, "share": line.share}


def _rows(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows with ids as text (JSON readers round whole numbers above 2^53) and times in RFC 3339."""
    ids = pl.col(pl.UInt64).cast(pl.String)
    text = frame.with_columns(ids, pl.col(pl.Datetime).dt.strftime("%Y-%m-%dT%H:%M:%S%.3fZ"))
    return text.with_columns(pl.col(pl.Float64).fill_nan(None)).to_dicts()


def _replace(path: Path, text: str) -> Path:
    draft = path.with_name(path.name + ".part")
    draft.write_text(text, encoding="utf-8")
    return draft.replace(path)
