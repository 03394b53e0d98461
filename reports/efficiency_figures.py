"""The key figures of an efficiency report, each with its evidence; pure functions from frames to records."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import polars as pl

from reports.accuracy import Accuracy, expanded, of_ratio
from reports.efficiency_hours import Allocation, Health
from reports.efficiency_power import Ramp, Steps, Swings
from reports.figures import JOULES_PER_MWH, Definition, Evidence, Kpi, counted
from reports.readings import TIME, Schema
from reports.sweep import HOUR_MS

WATTS_PER_MEGAWATT = 1e6
# Sums over a hundred thousand intervals carry rounding beyond these decimals.
_DIGITS = 9
_OTHER_CAUSES = ("sync_boost", "software_thermal", "hardware_thermal", "power_brake")
CAUSE_WORDS: Mapping[str, str] = {
    "software_thermal": "Heat (driver)",
    "hardware_thermal": "Heat (hardware)",
    "power_brake": "Power brake",
    "sync_boost": "Sync boost",
    "power_cap": "Power cap",
}

PRICES: Schema = {
    "zone": pl.String(),
    "start": TIME,
    "duration_minutes": pl.Int64(),
    "price_per_mwh": pl.Float64(),
    "currency": pl.String(),
}
TOKENS: Schema = {"job": pl.String(), "tokens": pl.Int64()}
# A row for each window that was read: what the whole fleet did in it.
PARTS: Schema = {
    "time": TIME,
    "seconds": pl.Float64(),
    "gpu_s": pl.Float64(),  # GPUs of the inventory x seconds
    "seen_s": pl.Float64(),
    "joules": pl.Float64(),
    "power_cap_s": pl.Float64(),
    "sync_boost_s": pl.Float64(),
    "software_thermal_s": pl.Float64(),
    "hardware_thermal_s": pl.Float64(),
    "power_brake_s": pl.Float64(),
    "sm_weight": pl.Float64(),  # mean activity x the time of which it is the mean
    "sm_s": pl.Float64(),
    "tensor_weight": pl.Float64(),
    "tensor_s": pl.Float64(),
    "dram_weight": pl.Float64(),
    "dram_s": pl.Float64(),
    "processor_watts": pl.Float64(),
    "trays": pl.UInt64(),
}


@dataclass(frozen=True, slots=True)
class StateLine:
    """Part of the GPU time: GPU-hours, and the share of all (0 to 1)."""

    name: str
    gpu_hours: float
    share: float


def states(hours: pl.DataFrame, axis: str, order: tuple[str, ...]) -> tuple[StateLine, ...]:
    """The GPU-hours of one axis (health or allocation) in order; milliseconds add up to all of the time."""
    total = int(hours["milliseconds"].sum())
    summed = dict(hours.group_by(axis).agg(pl.col("milliseconds").sum()).iter_rows())
    names = [name for name in order if name in summed or name in _ALWAYS]
    return tuple(
        StateLine(name, summed.get(name, 0) / HOUR_MS, summed.get(name, 0) / total if total else 0.0) for name in names
    )


_ALWAYS = {*Health, Allocation.BUSY, Allocation.IDLE, Allocation.UNALLOCATED}


def milliseconds(hours: pl.DataFrame, *, health: Health | None = None, allocation: Allocation | None = None) -> int:
    """The time in a state, added up over GPUs."""
    some = hours if health is None else hours.filter(pl.col("health") == health)
    some = some if allocation is None else some.filter(pl.col("allocation") == allocation)
    return int(some["milliseconds"].sum())


def seen_share(hours: pl.DataFrame) -> float:
    """1 - unknown / all."""
    total = milliseconds(hours)
    return 1 - milliseconds(hours, health=Health.UNKNOWN) / total if total else 0.0


def available(definition: Definition, hours: pl.DataFrame) -> Kpi:
    """(healthy + degraded) / (all - maintenance)."""
    rest = milliseconds(hours) - milliseconds(hours, health=Health.MAINTENANCE)
    if rest <= 0 or seen_share(hours) == 0:
        return Kpi.blank(definition, "No GPU of the inventory was seen in this period.")
    good = milliseconds(hours, health=Health.HEALTHY) + milliseconds(hours, health=Health.DEGRADED)
    return Kpi(definition, 100 * good / rest, "%", Evidence(coverage=seen_share(hours), share_estimated=0.0))


def busy(definition: Definition, hours: pl.DataFrame) -> Kpi:
    """busy / all; what share of the time it may be more is in the coverage."""
    total, reason = milliseconds(hours), _untold(hours)
    if reason or not total:
        return Kpi.blank(definition, reason or "The inventory has no GPUs.")
    covered = 1 - milliseconds(hours, allocation=Allocation.HELD) / total
    share = milliseconds(hours, allocation=Allocation.BUSY) / total
    return Kpi(definition, 100 * share, "%", Evidence(coverage=covered, share_estimated=0.0))


def energy_of(definition: Definition, hours: pl.DataFrame, allocation: Allocation, accuracy: Accuracy) -> Kpi:
    """Energy of the GPU boards in one state of allocation, MWh."""
    reason = _untold(hours)
    if reason or seen_share(hours) == 0:
        return Kpi.blank(definition, reason or "No GPU of the inventory was seen in this period.")
    joules = float(hours.filter(pl.col("allocation") == allocation)["joules"].sum())
    evidence = Evidence(coverage=seen_share(hours), share_estimated=0.0, uncertainty=expanded(accuracy.gpu_limit))
    return Kpi(definition, joules / JOULES_PER_MWH, "MWh", evidence)


def cost_of(
    definition: Definition, hours: pl.DataFrame, allocation: Allocation, prices: pl.DataFrame | None, accuracy: Accuracy
) -> Kpi:
    """Energy of each hour times its mean price, in the prices' currency. Input PRICES of one zone and currency."""
    energy = energy_of(definition, hours, allocation, accuracy)
    reason = energy.reason or _no_price(prices)
    if energy.evidence is None or prices is None or reason:
        return Kpi.blank(definition, reason)
    by_hour = hours.filter(pl.col("allocation") == allocation).group_by("time").agg(pl.col("joules").sum())
    priced = by_hour.join(hourly_prices(prices), on="time", how="left")
    known = priced.filter(pl.col("price").is_not_null())
    joules, known_joules = float(priced["joules"].sum()), float(known["joules"].sum())
    if known.is_empty():
        return Kpi.blank(definition, "The register of power prices has none of this period.")
    money = float((known["joules"] * known["price"]).sum()) / JOULES_PER_MWH
    priced_share = known_joules / joules if joules else 1.0
    evidence = Evidence(
        coverage=energy.evidence.coverage * priced_share, share_estimated=0.0, uncertainty=energy.evidence.uncertainty
    )
    note = "" if known.height == priced.height else f"{priced.height - known.height} hours have no price."
    return Kpi(definition, money, str(prices["currency"][0]), evidence, note=note)


def hourly_prices(prices: pl.DataFrame) -> pl.DataFrame:
    """time (start of a UTC hour), price per MWh: the mean of its quarter hours, absent unless all are there."""
    minutes = pl.col("duration_minutes").cast(pl.Float64)
    return (
        prices.unique(["start"])
        .group_by(time=pl.col("start").cast(TIME).dt.truncate("1h"))
        .agg(price=(pl.col("price_per_mwh") * minutes).sum() / minutes.sum(), minutes=minutes.sum())
        .filter(pl.col("minutes") >= 60)
        .select("time", "price")
    )


def _no_price(prices: pl.DataFrame | None) -> str:
    if prices is None or prices.is_empty():
        return "No register of power prices was given."
    if prices.select(pl.struct("zone", "currency").n_unique()).item() > 1:
        return "The power prices are of several zones or currencies; give those of one."
    return ""


def _untold(hours: pl.DataFrame) -> str:
    told = hours.filter(pl.col("allocation") != Allocation.UNTOLD).height
    return "" if told or hours.is_empty() else "No scheduler tells which job held which GPU in this period."


def share_of_seen(definition: Definition, parts: pl.DataFrame, causes: tuple[str, ...]) -> Kpi:
    """Time held down by the causes, over the time observed."""
    seen = float(parts["seen_s"].sum())
    if seen <= 0:
        return Kpi.blank(definition, "No GPU of the inventory was seen in this period.")
    held = sum(float(parts[f"{cause}_s"].sum()) for cause in causes)
    return Kpi(definition, 100 * held / seen, "%", _seen(parts))


def throttled(definition: Definition, parts: pl.DataFrame) -> Kpi:
    return share_of_seen(definition, parts, _OTHER_CAUSES)


def activity(definition: Definition, parts: pl.DataFrame, name: str) -> Kpi:
    """Mean activity over time; its coverage is the share of the GPUs' time of which it was told."""
    told, capacity = float(parts[f"{name}_s"].sum()), float(parts["gpu_s"].sum())
    if told <= 0:
        return Kpi.blank(definition, "No GPU tells of it in this period.")
    evidence = Evidence(coverage=min(1.0, told / capacity), share_estimated=0.0)
    return Kpi(definition, 100 * float(parts[f"{name}_weight"].sum()) / told, "%", evidence)


def _seen(parts: pl.DataFrame) -> Evidence:
    return Evidence(coverage=min(1.0, float(parts["seen_s"].sum()) / float(parts["gpu_s"].sum())), share_estimated=0.0)


def throttle_lines(parts: pl.DataFrame) -> tuple[StateLine, ...]:
    """GPU-hours by cause, and their share of the time observed; the power cap last, since it is normal."""
    seen = float(parts["seen_s"].sum())
    held = {cause: float(parts[f"{cause}_s"].sum()) for cause in CAUSE_WORDS}
    return tuple(StateLine(CAUSE_WORDS[cause], s / 3600, s / seen if seen else 0.0) for cause, s in held.items())


# Jobs


def job_kpis(
    words: Mapping[str, Definition],
    jobs: pl.DataFrame,
    tokens: pl.DataFrame | None,
    ipue: Kpi,
    accuracy: Accuracy,
) -> Iterator[Kpi]:
    """Energy of ended jobs, with and without the facility, and tokens per joule at three boundaries."""
    whole = jobs.filter(pl.col("gpu_joules").is_not_null(), pl.col("overhead_joules").is_not_null())
    note = f"{jobs.height - whole.height} of {jobs.height} jobs have no energy." if whole.height < jobs.height else ""
    limit = expanded(accuracy.gpu_limit)
    if whole.is_empty():
        energy = Kpi.blank(words["job_energy"], "No job with known energy ended in this period.")
    else:
        joules = float(whole["gpu_joules"].sum()) + float(whole["overhead_joules"].sum())
        energy = Kpi(words["job_energy"], joules / JOULES_PER_MWH, "MWh", _job_evidence(jobs, limit), note=note)
    yield energy
    yield _times_ipue(words["job_energy_facility"], energy, ipue)
    yield from _token_kpis(words, jobs, tokens, ipue, limit)


def _job_evidence(jobs: pl.DataFrame, limit: float) -> Evidence:
    held, told = float(jobs["gpu_seconds"].sum()), float(jobs["observed_gpu_seconds"].sum())
    boards = float(jobs["gpu_joules"].sum())
    return Evidence(
        coverage=min(1.0, round(told / held, _DIGITS)) if held else 0.0,
        share_estimated=float(jobs["estimated_joules"].sum()) / boards if boards else 0.0,
        uncertainty=limit,
    )


def _times_ipue(definition: Definition, energy: Kpi, ipue: Kpi) -> Kpi:
    if energy.value is None or ipue.value is None or energy.evidence is None or ipue.evidence is None:
        return Kpi.blank(definition, energy.reason or ipue.reason)
    return Kpi(definition, energy.value * ipue.value, energy.unit, _both(energy.evidence, ipue.evidence))


def _both(one: Evidence, other: Evidence) -> Evidence:
    return Evidence(
        coverage=min(one.coverage, other.coverage),
        share_estimated=max(one.share_estimated, other.share_estimated),
        uncertainty=of_ratio(one.uncertainty or 0.0, other.uncertainty or 0.0),
    )


def _token_kpis(
    words: Mapping[str, Definition], jobs: pl.DataFrame, tokens: pl.DataFrame | None, ipue: Kpi, limit: float
) -> Iterator[Kpi]:
    keys = ("tokens_per_gpu_joule", "tokens_per_joule", "tokens_per_facility_joule")
    told = jobs if tokens is None else jobs.join(tokens.select("job", "tokens").unique("job"), on="job")
    told = told.filter(pl.col("gpu_joules") > 0)
    if tokens is None or told.is_empty():
        reason = "No register of tokens was given." if tokens is None else "No job that ended here reported tokens."
        yield from (Kpi.blank(words[key], reason) for key in keys)
        return
    evidence, count = _job_evidence(told, limit), float(told["tokens"].sum())
    note = f"{counted(told.height, 'job')}."
    yield Kpi(words[keys[0]], count / float(told["gpu_joules"].sum()), "1/J", evidence, note=note)
    if told["overhead_joules"].null_count():
        yield from (Kpi.blank(words[key], "A tray of these jobs does not tell its energy.") for key in keys[1:])
        return
    per_joule = count / (float(told["gpu_joules"].sum()) + float(told["overhead_joules"].sum()))
    yield Kpi(words[keys[1]], per_joule, "1/J", evidence, note=note)
    if ipue.value is None or ipue.evidence is None:
        yield Kpi.blank(words[keys[2]], ipue.reason)
        return
    yield Kpi(words[keys[2]], per_joule / ipue.value, "1/J", _both(evidence, ipue.evidence), note=note)


# Power and coolant


def ramp_kpi(definition: Definition, ramp: Ramp | None, found: Swings) -> Kpi:
    """A ramp in MW/min; 0 where power never moved that way."""
    if found.coverage == 0:
        return Kpi.blank(definition, "No two minutes of the feed meters' power follow each other.")
    evidence = Evidence(coverage=found.coverage, share_estimated=0.0)
    if ramp is None:
        return Kpi(definition, 0.0, "MW/min", evidence)
    return Kpi(definition, ramp.watts / WATTS_PER_MEGAWATT, "MW/min", evidence, note=f"At {ramp.time:%-d %B %H:%M}.")


def steps_kpi(definition: Definition, found: Steps | None) -> Kpi:
    if found is None:
        return Kpi.blank(definition, "Raw readings of the period are not kept any more.")
    if found.interval_s is None:
        return Kpi.blank(definition, "The feed meters told of no power.")
    if found.coverage == 0:
        return Kpi.blank(definition, f"Readings come every {found.interval_s:.0f} s; steps within 10 s cannot be seen.")
    note = "" if found.largest is None else f"Largest {found.largest.watts / WATTS_PER_MEGAWATT:+.2f} MW."
    return count_kpi(definition, found.count, found.coverage, note)


def rack_kpi(definition: Definition, racks: pl.DataFrame, column: str, scale: float, expected: int) -> Kpi:
    """The median over racks; its coverage counts racks without the figure as not observed."""
    known = racks.filter(pl.col(column).is_not_null())
    if known.is_empty():
        return Kpi.blank(definition, "No rack tells all that it takes.")
    coverage = float(known["coverage"].sum()) / max(expected, known.height)
    value = float(known.select(pl.col(column).median()).item()) * scale
    assumed = float(known["heat_assumed"].sum()) / known.height if column == "overflow_ratio" else 0.0
    evidence = Evidence(coverage=min(1.0, coverage), share_estimated=assumed)
    return Kpi(definition, value, definition.unit, evidence, note=f"{counted(known.height, 'rack')}.")


def count_kpi(definition: Definition, count: int, coverage: float, note: str = "") -> Kpi:
    evidence = Evidence(coverage=coverage, share_estimated=0.0)
    return Kpi(definition, float(count), "", evidence, note=note, digits=0)
