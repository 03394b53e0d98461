"""Energy effectiveness beyond PUE (ITUE, TUE, CER, pPUE by hall), from one account; pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from reports.accuracy import expanded, of_ratio, of_sum
from reports.figures import (
    JOULES_PER_MWH,
    Account,
    Definition,
    Evidence,
    Kpi,
    Role,
    by_part,
    coverage_of,
    total_of,
    uncertainty_of,
)

# A part of the period in which less of the GPUs' time was seen would show too little energy as loss.
SEEN_FROM = 0.95
# Processors tell their power by the board's own sensor, like GPUs.
_PROCESSOR_LIMIT = 0.05


@dataclass(frozen=True, slots=True)
class HallLine:
    """One hall: `ppue` of its cooling meters and IT meters, absent with a reason."""

    name: str
    it_mwh: float | None
    cooling_mwh: float | None
    ppue: float | None
    plus_minus: float | None
    coverage: float | None
    reason: str = ""


def itue(definition: Definition, account: Account, parts: pl.DataFrame) -> Kpi:
    """E_IT / (E_GPU + E_processors). `parts`: time, seconds, gpu_s, seen_s, joules, processor_watts, trays."""
    total = total_of(account, Role.IT)
    if total.joules is None:
        return Kpi.blank(definition, total.reason)
    both = _paired(account, parts)
    if both.is_empty():
        return Kpi.blank(
            definition, "No part of the period has IT energy, processor power and 95 % of the GPUs' time observed."
        )
    compute, it = float(both["compute"].sum()), float(both["it"].sum())
    if compute <= 0:
        return Kpi.blank(definition, "GPUs and processors told of no energy.")
    gpu, processors = float(both["joules"].sum()), float(both["processor_joules"].sum())
    of_compute = of_sum(((gpu, expanded(account.accuracy.gpu_limit)), (processors, expanded(_PROCESSOR_LIMIT))))
    used = float(both.select((pl.col("seen_share") * pl.col("seconds")).sum()).item()) / account.period.seconds
    evidence = Evidence(
        coverage=min(used, coverage_of(account, Role.IT)),
        share_estimated=total.evidence.share_estimated if total.evidence else 0.0,
        uncertainty=of_ratio(uncertainty_of(account, Role.IT), of_compute),
    )
    left_out = parts.group_by(account.period.part(pl.col("time"))).len().height - both.height
    note = f"{left_out} parts of the period are left out." if left_out else ""
    return Kpi(definition, it / compute, definition.unit, evidence, note=note)


def _paired(account: Account, parts: pl.DataFrame) -> pl.DataFrame:
    """Parts of which all is known: it, joules, processor_joules, compute, seen_share, seconds."""
    known = pl.col("processor_watts").is_not_null() & (pl.col("trays") > 0)
    summed = parts.group_by(account.period.part(pl.col("time")).alias("time")).agg(
        pl.col("joules", "seconds", "gpu_s", "seen_s").sum(),
        whole=known.all() & pl.col("joules").is_not_null().all(),
        processor_joules=(pl.col("processor_watts") * pl.col("seconds")).sum(),
    )
    it = by_part(account).select("time", it="it_joules")
    seen = pl.col("seen_s") / pl.col("gpu_s")
    return (
        summed.join(it, on="time")
        .drop_nulls("it")
        .with_columns(seen_share=seen, compute=pl.col("joules") + pl.col("processor_joules"))
        .filter("whole", pl.col("seen_share") >= SEEN_FROM)
    )


def tue(definition: Definition, of_it: Kpi, ipue: Kpi) -> Kpi:
    """ITUE x iPUE."""
    missing = [kpi.reason for kpi in (of_it, ipue) if kpi.value is None]
    if of_it.value is None or ipue.value is None or of_it.evidence is None or ipue.evidence is None:
        return Kpi.blank(definition, " ".join(missing))
    evidence = Evidence(
        coverage=min(of_it.evidence.coverage, ipue.evidence.coverage),
        share_estimated=max(of_it.evidence.share_estimated, ipue.evidence.share_estimated),
        uncertainty=of_ratio(of_it.evidence.uncertainty or 0.0, ipue.evidence.uncertainty or 0.0),
    )
    return Kpi(definition, of_it.value * ipue.value, definition.unit, evidence, note=of_it.note)


def cer(definition: Definition, account: Account) -> Kpi:
    """Q_removed / E_cooling, over the quarter hours in which all three are known."""
    roles = (Role.HEAT_HANDED_OVER, Role.HEAT_REJECTED, Role.COOLING)
    totals = [total_of(account, role) for role in roles]
    missing = [total.reason for total in totals if total.joules is None]
    if missing:
        return Kpi.blank(definition, " ".join(missing))
    known = account.quarters.select(*(pl.col(f"{role}_joules").alias(role) for role in roles)).drop_nulls()
    cooling = float(known[Role.COOLING].sum())
    if cooling <= 0:
        return Kpi.blank(definition, "No cooling energy was counted.")
    handed, rejected = float(known[Role.HEAT_HANDED_OVER].sum()), float(known[Role.HEAT_REJECTED].sum())
    of_heat = of_sum(((handed, uncertainty_of(account, roles[0])), (rejected, uncertainty_of(account, roles[1]))))
    evidence = Evidence(
        coverage=coverage_of(account, *roles),
        share_estimated=max(total.evidence.share_estimated for total in totals if total.evidence),
        uncertainty=of_ratio(of_heat, uncertainty_of(account, Role.COOLING)),
    )
    return Kpi(definition, (handed + rejected) / cooling, definition.unit, evidence)


def halls(account: Account, members: pl.DataFrame, places: pl.DataFrame) -> tuple[HallLine, ...]:
    """pPUE = (E_cooling + E_IT) / E_IT of each hall whose meters serve it and nothing else.

    ISO/IEC 30134-2, partial PUE within a declared boundary: a hall's IT and cooling meters, without
    power distribution before the IT meter. Never to be added or averaged into a site's PUE.
    """
    gpu_halls = places.filter(pl.col("kind") == "gpu").select(gpu="resource", hall="hall", name="hall_name").unique()
    served = (
        members.join(gpu_halls, on="gpu")
        .group_by(resource="ancestor")
        .agg(halls=pl.col("hall").unique(), hall_name=pl.col("name").min())
    )
    meters = account.meters.join(served, on="resource").filter(pl.col("role").is_in([Role.IT, Role.COOLING]))
    names = gpu_halls.filter(pl.col("hall") != 0).unique("hall").sort("name")
    return tuple(_hall(account, meters, hall, name) for hall, name in names.select("hall", "name").iter_rows())


def _hall(account: Account, meters: pl.DataFrame, hall: int, name: str) -> HallLine:
    here = meters.filter(pl.col("halls").list.contains(hall))
    alone = here.filter(pl.col("halls").list.len() == 1)
    it, cooling = (alone.filter(pl.col("role") == role) for role in (Role.IT, Role.COOLING))
    energies = [
        None if some.is_empty() or some["joules"].null_count() else float(some["joules"].sum())
        for some in (it, cooling)
    ]
    it_joules, cooling_joules = energies
    shared = here.filter(pl.col("halls").list.len() > 1)["name"].to_list()
    reason = f"{', '.join(shared[:2])} also serves other halls." if shared else ""
    if it_joules is None or cooling_joules is None or shared or it_joules <= 0:
        lacking = "No meter counts its cooling alone." if cooling.is_empty() else "Its meters have no readings."
        return HallLine(name, _mwh(it_joules), _mwh(cooling_joules), None, None, None, reason or lacking)
    ppue = 1 + cooling_joules / it_joules
    limits = {role: uncertainty_of(account, role) for role in (Role.IT, Role.COOLING)}
    coverage = min(float(alone["coverage"].min()), 1.0)  # type: ignore[arg-type]
    off = (ppue - 1) * of_ratio(limits[Role.IT], limits[Role.COOLING])
    return HallLine(name, _mwh(it_joules), _mwh(cooling_joules), ppue, off, coverage)


def _mwh(joules: float | None) -> float | None:
    return None if joules is None else joules / JOULES_PER_MWH


def by_key(kpis: tuple[Kpi, ...]) -> Mapping[str, Kpi]:
    return {kpi.definition.key: kpi for kpi in kpis}
