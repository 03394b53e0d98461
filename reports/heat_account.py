"""The key figures of heat, each with its evidence: pure functions from the ledger's frames to records.

Balance: available = handed over + rejected + own use + residual. A figure that cannot be told is a blank with a reason.

Units: energy in J, power in W, temperature in °C; `time` is UTC.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import polars as pl

from reports import figures, ledger
from reports.accuracy import Accuracy, expanded, of_ratio
from reports.figures import JOULES_PER_MWH, Account, Definition, Evidence, Kpi, Role, Total
from reports.heat import HeatAccuracy, uncertainty_joules
from reports.heat_queries import METER_ROLES
from reports.period import QUARTER_S, Period

HEAT_ROLES = (Role.HEAT_HANDED_OVER, Role.HEAT_REJECTED, Role.HEAT_OWN_USE)
# A pair of probes of EN 60751 class A, matched: 0.1 K each (k = 1) where the inventory states nothing better.
PROBE_KELVIN = 0.1
# Less than this share of the heat that could be taken is within what meters may be off.
NOT_TAKEN_SHARE = 0.05
# Sums of seconds carry this much rounding.
WHOLE = 1 - 1e-9
# A meter at a lower difference is outside of what EN 1434 asks; its limit would grow without bound.
LEAST_DIFFERENCE_KELVIN = 1.0


@dataclass(frozen=True, slots=True)
class HeatContract:
    """What was agreed with an off-taker: the least supply temperature, and the power it takes where that was agreed."""

    off_taker: str
    temperature_celsius: float
    power_watts: float | None = None


@dataclass(frozen=True, slots=True)
class HeatSettings:
    """What the store does not know, for heat. Accuracies are assumptions until the site states its own."""

    accuracy: Accuracy = field(default_factory=Accuracy)
    loops: HeatAccuracy = field(default_factory=HeatAccuracy)
    probe_kelvin: float = PROBE_KELVIN
    contracts: tuple[HeatContract, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class HeatAccount:
    """What the ledger found out about heat.

    `account` is that of the electrical and heat meters; `meters` its meters with temperatures and uncertainties;
    `quarters`: resource, time and the columns of `ledger.quarters`; `loops`: those of `heat.heat_quarters`;
    `warmth`: resource, time, supply_celsius, return_celsius of the heat meters by quarter hour. `loops_reason` says why
    the heat of the loops is not known.
    """

    account: Account
    meters: pl.DataFrame
    quarters: pl.DataFrame
    loops: pl.DataFrame
    warmth: pl.DataFrame
    settings: HeatSettings
    loops_reason: str = ""

    @property
    def period(self) -> Period:
        return self.account.period


def heat_account(
    meters: pl.DataFrame,
    quarters: pl.DataFrame,
    loops: pl.DataFrame,
    warmth: pl.DataFrame,
    period: Period,
    settings: HeatSettings,
    *,
    loops_reason: str = "",
) -> HeatAccount:
    """The account of one site and period, from METER_FACTS and what the ledger made of the readings."""
    by_role = ledger.by_role(quarters.lazy(), meters.lazy().select("resource", "role"))
    every = period.edges().filter(pl.col("time") < period.end)
    wide = every.join(ledger.side_by_side(by_role, METER_ROLES), on="time", how="left")
    wide = wide.join(_available(loops, settings), on="time", how="left").sort("time")
    known = meters.join(ledger.by_meter(quarters.lazy()).collect(), on="resource", how="left")
    known = known.with_columns(pl.col("coverage").fill_null(0.0))
    known = known.join(mean_temperatures(quarters, warmth), on="resource", how="left")
    account = Account(
        period=period,
        meters=known,
        quarters=wide.collect(),
        gpus=pl.DataFrame(),
        gpu_count=0,
        installed_it_watts=None,
        accuracy=settings.accuracy,
    )
    return HeatAccount(
        account, with_uncertainty(known, settings), quarters, loops, warmth, settings, loops_reason=loops_reason
    )


def mean_temperatures(quarters: pl.DataFrame, warmth: pl.DataFrame) -> pl.DataFrame:
    """resource, supply_celsius, return_celsius: T = sum(T_i E_i) / sum(E_i); hours without flow do not count."""
    joined = quarters.join(warmth, on=["resource", "time"]).filter(pl.col("joules") > 0)
    means = {
        name: (pl.col(name) * pl.col("joules")).sum() / pl.col("joules").filter(pl.col(name).is_not_null()).sum()
        for name in ("supply_celsius", "return_celsius")
    }
    return joined.group_by("resource").agg(**means).with_columns(pl.col(*means).fill_nan(None))


def with_uncertainty(meters: pl.DataFrame, settings: HeatSettings) -> pl.DataFrame:
    """Meters with class_used, class_assumed, uncertainty_share and uncertainty_joules (expanded, k = 2).

    U = sqrt((E · 2 g / sqrt(3))² + (2 q)² + (E_est · 2 e / sqrt(3))²), g the class's limit of error, q the register's
    rounding, e the limit of what is estimated. A heat meter's
    limit is taken at the temperature difference that it had, weighted by energy; EN 1434-1, and flow at qp.
    """
    classes, shares = [], []
    for row in meters.iter_rows(named=True):
        used = row["accuracy_class"]
        if settings.accuracy.is_assumed(used):
            used = settings.accuracy.assumed_classes[row["role"]]
        classes.append(used)
        shares.append(expanded(_at_difference(settings.accuracy, row).limit(row["role"], used)))
    rounding = 2 * pl.col("quantisation_joules").fill_null(0.0)
    guessed = pl.col("joules") * pl.col("share_estimated").fill_null(0.0) * expanded(settings.accuracy.estimate_limit)
    return meters.with_columns(
        class_used=pl.Series(classes, dtype=pl.String),
        class_assumed=pl.Series(classes, dtype=pl.String) != pl.col("accuracy_class"),
        uncertainty_share=pl.Series(shares, dtype=pl.Float64),
    ).with_columns(
        uncertainty_joules=((pl.col("joules") * pl.col("uncertainty_share")) ** 2 + rounding**2 + guessed**2).sqrt()
    )


def _at_difference(accuracy: Accuracy, meter: Mapping[str, object]) -> Accuracy:
    """The accuracy at the meter's own temperature difference, where that is known."""
    supply, returned = meter.get("supply_celsius"), meter.get("return_celsius")
    if not isinstance(supply, float) or not isinstance(returned, float):
        return accuracy
    difference = max(abs(supply - returned), LEAST_DIFFERENCE_KELVIN)
    return replace(accuracy, heat=replace(accuracy.heat, difference_kelvin=difference))


def _available(loops: pl.DataFrame, settings: HeatSettings) -> pl.LazyFrame:
    """All loops in each quarter hour: time, available_joules (absent unless all are whole), available_observed_s."""
    return (
        loops.lazy()
        .group_by("time")
        .agg(
            available_joules=pl.when(pl.col("whole").all()).then(pl.col("joules").sum()),
            available_observed_s=pl.col("observed_s").min(),
            available_uncertainty_joules=(2 * uncertainty_joules(settings.loops)).sum(),
        )
    )


def key_figures(heat: HeatAccount) -> tuple[Kpi, ...]:
    """All key figures of heat, in the order in which they are shown."""
    available = available_heat(heat)
    totals = {role: total_of(heat, role) for role in HEAT_ROLES}
    site, it = total_of(heat, Role.SITE), total_of(heat, Role.IT)
    handed = totals[Role.HEAT_HANDED_OVER]
    return (
        replace(_energy("heat_available", available), note=_note_of_missing(available)),
        _energy("heat_handed_over", handed),
        _energy("heat_rejected", totals[Role.HEAT_REJECTED]),
        _energy("heat_own_use", totals[Role.HEAT_OWN_USE]),
        _residual(heat, available, totals),
        _erf(heat, handed, site),
        _ere(heat, handed, site, it),
        _temperature(heat, "supply"),
        _temperature(heat, "return"),
        _not_taken(heat),
    )


def total_of(heat: HeatAccount, role: Role) -> Total:
    """E = sum over the role's meters, with their uncertainty; meters of one role err together, so theirs add up."""
    total = figures.total_of(heat.account, role)
    if total.joules is None or total.evidence is None:
        return total
    margin = float(heat.meters.filter(pl.col("role") == role)["uncertainty_joules"].sum())
    share = margin / abs(total.joules) if total.joules else None
    return replace(total, evidence=replace(total.evidence, uncertainty=share))


def available_heat(heat: HeatAccount) -> Total:
    """What the coolant loops took up: sum of their Q, of which missing time is no part."""
    if heat.loops.is_empty():
        return Total(None, None, heat.loops_reason or "The inventory has no coolant loop.")
    if heat.loops["joules"].count() == 0:
        return Total(None, None, heat.loops_reason or "No flow and temperatures of a loop in this period.")
    by_loop = heat.loops.group_by("resource").agg(
        pl.col("joules").sum(),
        pl.col("throughput_joules", "joules_per_kelvin", "joule_seconds_per_cubic_metre").sum(),
    )
    joules = float(by_loop["joules"].sum())
    margin = float(by_loop.select((2 * uncertainty_joules(heat.settings.loops)).sum()).item())
    coverage = float(heat.account.quarters["available_observed_s"].fill_null(0.0).sum()) / heat.period.seconds
    # What was not observed is not in the sum: the sum is that of the observed time, and may be off by the rest of it.
    missing = joules * (1 / coverage - 1) if coverage > 0 else math.inf
    share = (margin + missing) / abs(joules) if joules else None
    return Total(joules, Evidence(coverage=coverage, share_estimated=0.0, uncertainty=share))


def _note_of_missing(available: Total) -> str:
    coverage = available.evidence.coverage if available.evidence else 1.0
    return "Of the time that was observed; ± holds what the rest may have brought." if coverage < WHOLE else ""


def _energy(key: str, total: Total) -> Kpi:
    mwh = None if total.joules is None else total.joules / JOULES_PER_MWH
    definition = DEFINITIONS[key]
    return Kpi(definition, mwh, definition.unit, total.evidence, total.reason)


def _residual(heat: HeatAccount, available: Total, totals: Mapping[Role, Total]) -> Kpi:
    """available - (handed over + rejected + own use), over the quarter hours in which all of them are whole."""
    definition = DEFINITIONS["heat_residual"]
    metered = [role for role in HEAT_ROLES if heat.meters.filter(pl.col("role") == role).height]
    missing = [total.reason for total in (available, *(totals[role] for role in metered)) if total.joules is None]
    if missing or not metered:
        return Kpi.blank(definition, " ".join(missing) or "The inventory has no heat meter.")
    gone = [f"{role}_joules" for role in metered]
    both = heat.account.quarters.drop_nulls(["available_joules", *gone])
    if both.is_empty():
        return Kpi.blank(definition, "No quarter hour is wholly known of loops and heat meters.")
    came, went = float(both["available_joules"].sum()), {name: float(both[name].sum()) for name in gone}
    residual = came - sum(went.values())
    margins = sum(
        abs(went[f"{role}_joules"]) * _relative(totals[role]) for role in metered
    )  # heat meters of one make err together
    margin = math.hypot(float(both["available_uncertainty_joules"].sum()), margins)
    coverage = min(_observed(heat, "available"), figures.coverage_of(heat.account, *metered))
    evidence = Evidence(
        coverage=coverage,
        share_estimated=max((totals[role].evidence or _NOTHING).share_estimated for role in metered),
        uncertainty=margin / abs(residual) if residual else None,
    )
    verdict = "Within the meters' uncertainty." if abs(residual) <= margin else "Beyond the meters' uncertainty."
    return Kpi(definition, residual / JOULES_PER_MWH, definition.unit, evidence, note=verdict)


_NOTHING = Evidence(coverage=0.0, share_estimated=0.0)


def _relative(total: Total) -> float:
    return (total.evidence.uncertainty or 0.0) if total.evidence else 0.0


def _observed(heat: HeatAccount, name: str) -> float:
    return float(heat.account.quarters[f"{name}_observed_s"].fill_null(0.0).sum()) / heat.period.seconds


@dataclass(frozen=True, slots=True)
class _Paired:
    """Sums over the quarter hours in which all roles are whole, and how many were left out."""

    joules: Mapping[Role, float]
    evidence: Evidence
    note: str


def _paired(heat: HeatAccount, totals: Mapping[Role, Total], uncertainty: float | None) -> _Paired | None:
    names = [f"{role}_joules" for role in totals]
    both = heat.account.quarters.drop_nulls(names)
    if both.is_empty():
        return None
    left_out = heat.account.quarters.height - both.height
    return _Paired(
        {role: float(both[f"{role}_joules"].sum()) for role in totals},
        Evidence(
            coverage=figures.coverage_of(heat.account, *totals),
            share_estimated=max((total.evidence or _NOTHING).share_estimated for total in totals.values()),
            uncertainty=uncertainty,
        ),
        f"{left_out} of {heat.account.quarters.height} quarter hours are left out." if left_out else "",
    )


def _reasons(totals: Iterable[Total]) -> str:
    return " ".join(total.reason for total in totals if total.joules is None)


def _erf(heat: HeatAccount, handed: Total, site: Total) -> Kpi:
    """ERF = E_reuse / E_DC."""
    definition = DEFINITIONS["erf"]
    if reason := _reasons((handed, site)):
        return Kpi.blank(definition, reason)
    totals = {Role.HEAT_HANDED_OVER: handed, Role.SITE: site}
    pair = _paired(heat, totals, of_ratio(_relative(handed), _relative(site)))
    if pair is None or pair.joules[Role.SITE] <= 0:
        return Kpi.blank(definition, "No quarter hour is wholly known of both.")
    value = pair.joules[Role.HEAT_HANDED_OVER] / pair.joules[Role.SITE]
    return Kpi(definition, value, definition.unit, pair.evidence, note=pair.note)


def _ere(heat: HeatAccount, handed: Total, site: Total, it: Total) -> Kpi:
    """ERE = (E_DC - E_reuse) / E_IT; u² = (u_DC E_DC)² + (u_R E_R)² over the difference's square, plus u_IT²."""
    definition = DEFINITIONS["ere"]
    if reason := _reasons((handed, site, it)):
        return Kpi.blank(definition, reason)
    totals = {Role.HEAT_HANDED_OVER: handed, Role.SITE: site, Role.IT: it}
    pair = _paired(heat, totals, None)
    if pair is None or pair.joules[Role.IT] <= 0:
        return Kpi.blank(definition, "No quarter hour is wholly known of all three.")
    kept = pair.joules[Role.SITE] - pair.joules[Role.HEAT_HANDED_OVER]
    margin = math.hypot(
        pair.joules[Role.SITE] * _relative(site), pair.joules[Role.HEAT_HANDED_OVER] * _relative(handed)
    )
    uncertainty = math.hypot(margin / abs(kept), _relative(it)) if kept else None
    evidence = replace(pair.evidence, uncertainty=uncertainty)
    return Kpi(definition, kept / pair.joules[Role.IT], definition.unit, evidence, note=pair.note)


def _temperature(heat: HeatAccount, pipe: str) -> Kpi:
    """T = sum(T Q dt) / sum(Q dt) of all heat that was handed over."""
    definition = DEFINITIONS[f"{pipe}_temperature"]
    warm = _handed_quarters(heat).drop_nulls(f"{pipe}_celsius").filter(pl.col("joules") > 0)
    if warm.is_empty():
        return Kpi.blank(definition, "No temperature of heat that was handed over is known.")
    celsius = float((warm[f"{pipe}_celsius"] * warm["joules"]).sum()) / float(warm["joules"].sum())
    energy = _handed_quarters(heat).filter(pl.col("joules") > 0)["joules"].sum()
    seen = float(warm["joules"].sum()) / float(energy)
    coverage = min(seen, figures.coverage_of(heat.account, Role.HEAT_HANDED_OVER))
    share = 2 * heat.settings.probe_kelvin / abs(celsius) if celsius else None
    return Kpi(
        definition, celsius, definition.unit, Evidence(coverage=coverage, share_estimated=0.0, uncertainty=share)
    )


def _handed_quarters(heat: HeatAccount) -> pl.DataFrame:
    """Quarter hours of the meters that hand over, with temperatures and off_taker."""
    handed = heat.meters.filter(pl.col("role") == Role.HEAT_HANDED_OVER).select("resource", "off_taker")
    return heat.quarters.join(handed, on="resource").join(heat.warmth, on=["resource", "time"], how="left")


def _not_taken(heat: HeatAccount) -> Kpi:
    """Hours in which over 5 % of the heat was rejected: the off-taker took less than there was."""
    definition = DEFINITIONS["heat_not_taken"]
    totals = {role: total_of(heat, role) for role in (Role.HEAT_HANDED_OVER, Role.HEAT_REJECTED)}
    if reason := _reasons(totals.values()):
        return Kpi.blank(definition, reason)
    pair = _paired(heat, totals, None)
    if pair is None:
        return Kpi.blank(definition, "No quarter hour is wholly known of both.")
    handed, rejected = (pl.col(f"{role}_joules") for role in totals)
    curtailed = heat.account.quarters.filter(rejected > NOT_TAKEN_SHARE * (handed + rejected))
    return Kpi(definition, curtailed.height * QUARTER_S / 3600, definition.unit, pair.evidence, note=pair.note)


@dataclass(frozen=True, slots=True)
class ContractLine:
    """What became of an agreement: hours by quarter hours in which heat flowed and both were observed.

    `shortfall_mwh`: of the agreed power, what was not handed over although the loops had it (`not_taken`), and because
    they had not (`not_offered`); absent where no power was agreed.
    """

    contract: HeatContract
    hours_flowing: float
    hours_under: float
    coverage: float
    hours_not_taken: float | None
    not_taken_mwh: float | None
    not_offered_mwh: float | None


def contract_lines(heat: HeatAccount) -> tuple[ContractLine, ...]:
    """One line for each contract, in their order; those of an off-taker without a meter have coverage 0."""
    return tuple(_contract_line(heat, contract) for contract in heat.settings.contracts)


def _contract_line(heat: HeatAccount, contract: HeatContract) -> ContractLine:
    own = _handed_quarters(heat).filter(pl.col("off_taker") == contract.off_taker)
    seen = own.filter(pl.col("joules").is_not_null(), pl.col("supply_celsius").is_not_null())
    flowing = seen.filter(pl.col("joules") > 0)
    under = flowing.filter(pl.col("supply_celsius") < contract.temperature_celsius)
    hours = QUARTER_S / 3600
    return ContractLine(
        contract,
        hours_flowing=flowing.height * hours,
        hours_under=under.height * hours,
        coverage=float(seen["observed_s"].sum()) / (own.height * QUARTER_S) if own.height else 0.0,
        **_shortfall(heat, own, contract),
    )


def _shortfall(heat: HeatAccount, own: pl.DataFrame, contract: HeatContract) -> dict[str, float | None]:
    available = heat.account.quarters.select("time", "available_joules")
    taken = own.group_by("time").agg(ledger.sum_of_known("joules").alias("joules"))
    both = taken.join(available, on="time").drop_nulls()
    if contract.power_watts is None or both.is_empty():
        return {"hours_not_taken": None, "not_taken_mwh": None, "not_offered_mwh": None}
    agreed = contract.power_watts * QUARTER_S
    could = pl.col("available_joules").clip(0.0, agreed)
    lacking = both.select(
        not_taken=(could - pl.col("joules")).clip(lower_bound=0.0),
        not_offered=agreed - could,
    )
    over = lacking.filter(pl.col("not_taken") > NOT_TAKEN_SHARE * agreed)
    return {
        "hours_not_taken": over.height * QUARTER_S / 3600,
        "not_taken_mwh": float(over["not_taken"].sum()) / JOULES_PER_MWH,
        "not_offered_mwh": float(lacking["not_offered"].sum()) / JOULES_PER_MWH,
    }


_REGISTERS = "Q = Σ (Rᵢ \u2212 Rᵢ₋₁) of the meters' heat registers, with resets and roll-overs handled."
_DEFINITIONS = (
    Definition(
        key="heat_available",
        title="Heat available",
        unit="MWh th.",
        boundary="Out of the coolant loops (TCS), at their sensors.",
        method="Q = ∫ \u03c1·V̇·c̄p·ΔT dt on one grid, with the loop's own fluid; never mean flow times mean ΔT.",
        source="EN 1434-1 (energy balance); fluid properties: CoolProp",
    ),
    Definition(
        key="heat_handed_over",
        title="Heat handed over",
        unit="MWh th.",
        boundary="Heat meters at the boundary to the off-takers.",
        method=_REGISTERS,
        source="EN 1434 (heat meters)",
    ),
    Definition(
        key="heat_rejected",
        title="Heat rejected",
        unit="MWh th.",
        boundary="Heat meters before dry coolers or sea water.",
        method=_REGISTERS,
        source="EN 1434 (heat meters)",
    ),
    Definition(
        key="heat_own_use",
        title="Own use",
        unit="MWh th.",
        boundary="Heat meters of offices and snow melting inside the boundary; not reuse.",
        method=_REGISTERS,
        source="EN 1434 (heat meters)",
    ),
    Definition(
        key="heat_residual",
        title="Residual",
        unit="MWh th.",
        boundary="Between the coolant loops and the heat meters.",
        method="available \u2212 handed over \u2212 rejected \u2212 own use, over the quarter hours known of all.",
        source="Conservation of energy; JCGM 100:2008, 5.1.2",
    ),
    Definition(
        key="erf",
        title="ERF (energy reuse)",
        unit="",
        boundary="Heat at the hand-over meters over the whole site's energy.",
        method="ERF = E_reuse / E_DC over the same quarter hours. All heat handed over is taken as reused outside.",
        source="ISO/IEC 30134-6; EN 50600-4-6",
    ),
    Definition(
        key="ere",
        title="ERE (interim)",
        unit="",
        boundary="Whole site less the heat handed over, over IT energy.",
        method="ERE = (E_DC \u2212 E_reuse) / E_IT = PUE · (1 \u2212 ERF). No ground to state a PUE below 1.",
        source="The Green Grid, ERE",
    ),
    Definition(
        key="supply_temperature",
        title="Supply temperature",
        unit="°C",
        boundary="Supply pipe of the hand-over meters.",
        method="T = Σ T·Q·Δt / Σ Q·Δt, by quarter hour: hours without flow do not count.",
        source="Average waste-heat temperature; method of this report",
    ),
    Definition(
        key="return_temperature",
        title="Return temperature",
        unit="°C",
        boundary="Return pipe of the hand-over meters.",
        method="T = Σ T·Q·Δt / Σ Q·Δt, by quarter hour.",
        source="Method of this report",
    ),
    Definition(
        key="heat_not_taken",
        title="Hours with heat not taken",
        unit="h",
        boundary="Hand-over and rejection meters.",
        method="Quarter hours in which over 5 % of the heat at both was rejected.",
        source="Curtailment by the off-takers; method of this report",
    ),
)
DEFINITIONS: Mapping[str, Definition] = {definition.key: definition for definition in _DEFINITIONS}
