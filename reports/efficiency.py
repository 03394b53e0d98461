"""The efficiency report: what the fleet did with its time and energy, and which GPU, node or rack wastes them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import polars as pl

from reports import efficiency_charts as charts
from reports import efficiency_figures as fleet
from reports import efficiency_queries as queries
from reports import ledger, render
from reports import site as site_page
from reports.capacity import Commissioning
from reports.efficiency_definitions import definitions
from reports.efficiency_energy import by_key, cer, halls, itue, tue
from reports.efficiency_figures import StateLine
from reports.efficiency_hours import Allocation, Health
from reports.efficiency_lemons import judge_nodes
from reports.efficiency_page import EfficiencyReport, KpiGroup, document, render_html
from reports.efficiency_power import steps, swings
from reports.efficiency_racks import fluid_tables, rack_cooling
from reports.efficiency_reading import EfficiencyData, read_efficiency
from reports.efficiency_stragglers import deviations, slow_gpus
from reports.figures import Account, Definition, Kpi, counted
from reports.files import replace_text
from reports.period import Period
from reports.publishing.documents import json_text
from reports.render import Chart
from storage.reader import Reader
from storage.register_kinds import RegisterKind


@dataclass(frozen=True, slots=True)
class EfficiencySettings:
    """What the store does not know. The defaults are assumptions, and the report says so."""

    site: site_page.ReportSettings = field(default_factory=site_page.ReportSettings)
    design_rise_kelvin: float = 10.0  # 1.5 L/min per kW with 25 % propylene glycol, OCP guidance
    liquid_share: float = 0.87  # of a rack's power, where no sensor tells its heat: 85 to 90 % go to liquid
    price_zone: str = ""  # bidding zone of the prices; needed only where the register has several


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
    replace_text(path.with_suffix(".json"), json_text(document(report)))
    return replace_text(path, render_html(report))


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
        stragglers = Kpi.blank(words["stragglers"], reason)
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
    note = f"{counted(failures, 'failure')} on {counted(trays, 'node')}."
    return stragglers, fleet.count_kpi(words["lemons"], lemons, coverage, note)


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
