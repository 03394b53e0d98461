"""The key figures of a site report, each with its evidence: coverage, share estimated, uncertainty.

Pure functions from frames to records. A figure that cannot be told is a blank with a reason.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import polars as pl

from reports.accuracy import Accuracy, expanded, of_ratio, of_sum
from reports.ledger import PEAK_COVERAGE, sum_of_known
from reports.period import QUARTER_S, Period

JOULES_PER_KWH = 3.6e6
JOULES_PER_MWH = 3.6e9
THIN_SPACE = "\u2009"  # between thousands, as ISO 80000-1 asks
# From here on, power is easier to read in megawatts.
MEGAWATT_FROM_W = 10e6

MEASURED_FROM = 0.99
MEASURED_WITH_GAPS_FROM = 0.95


class Role(StrEnum):
    """What a meter stands for; set in the inventory, never inferred from a name."""

    SITE = "site"
    IT = "it"
    COOLING = "cooling"
    OTHER = "other"
    HEAT_HANDED_OVER = "heat_handed_over"
    HEAT_REJECTED = "heat_rejected"
    HEAT_OWN_USE = "heat_own_use"


ELECTRICITY = (Role.SITE, Role.IT, Role.COOLING, Role.OTHER)
HEAT = (Role.HEAT_HANDED_OVER, Role.HEAT_REJECTED)

_ROLE_WORDS = {
    Role.SITE: "site",
    Role.IT: "IT",
    Role.COOLING: "cooling",
    Role.OTHER: "other",
    Role.HEAT_HANDED_OVER: "handed-over heat",
    Role.HEAT_REJECTED: "rejected heat",
    Role.HEAT_OWN_USE: "own-use heat",
}


class Quality(StrEnum):
    """How much of a figure was measured, in words."""

    MEASURED = "measured"
    WITH_GAPS = "measured with gaps"
    ESTIMATED = "estimated"
    BLANK = "not available"


def quality_of(coverage: float) -> Quality:
    """At least 99 % observed is measured, at least 95 % measured with gaps, less is estimated."""
    if coverage >= MEASURED_FROM:
        return Quality.MEASURED
    return Quality.WITH_GAPS if coverage >= MEASURED_WITH_GAPS_FROM else Quality.ESTIMATED


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a figure rests on: shares of 1; `uncertainty` is relative, expanded with k = 2."""

    coverage: float
    share_estimated: float
    uncertainty: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """What a figure means: its boundary, its formula in words, and where that comes from."""

    key: str
    title: str
    unit: str
    boundary: str
    method: str
    source: str


@dataclass(frozen=True, slots=True)
class Kpi:
    """One key figure. `value` is absent when it cannot be told; `reason` then says why.

    `digits` are the decimals of a figure that has no uncertainty to go by.
    """

    definition: Definition
    value: float | None
    unit: str
    evidence: Evidence | None
    reason: str = ""
    note: str = ""
    digits: int | None = None

    @classmethod
    def blank(cls, definition: Definition, reason: str) -> "Kpi":
        """A figure that cannot be told, and why."""
        return cls(definition, None, definition.unit, None, reason)

    @property
    def quality(self) -> Quality:
        return Quality.BLANK if self.evidence is None or self.value is None else quality_of(self.evidence.coverage)

    @property
    def plus_minus(self) -> float | None:
        """The expanded uncertainty in the figure's own unit."""
        if self.value is None or self.evidence is None or self.evidence.uncertainty is None:
            return None
        return abs(self.value) * self.evidence.uncertainty


def counted(number: int, noun: str) -> str:
    """1 job, 2 jobs."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@dataclass(frozen=True, slots=True, eq=False)
class Account:
    """What the ledger found out about one site and period.

    `meters`: a row a meter: resource, name, role, accuracy_class, measured_at, off_taker, joules,
    coverage, share_estimated and counts of flags. `quarters`: a row a quarter hour, the columns of
    `ledger.side_by_side`. `gpus`: a row a part: time, joules, gpu_hours and quantiles.
    """

    period: Period
    meters: pl.DataFrame
    quarters: pl.DataFrame
    gpus: pl.DataFrame
    gpu_count: int
    installed_it_watts: float | None
    accuracy: Accuracy


@dataclass(frozen=True, slots=True)
class Peak:
    """The quarter hour with the highest mean power."""

    watts: float
    time: datetime


ROLES = (*ELECTRICITY, *HEAT)


def key_figures(account: Account, definitions: Mapping[str, Definition]) -> tuple[Kpi, ...]:
    """All key figures, in the order in which they are shown."""
    site, it = total_of(account, Role.SITE), total_of(account, Role.IT)
    return (
        _energy(definitions["site_energy"], site),
        _energy(definitions["it_energy"], it),
        ratio(definitions["ipue"], account, Role.SITE, Role.IT),
        ratio(definitions["erf"], account, Role.HEAT_HANDED_OVER, Role.SITE),
        _energy(definitions["heat_handed_over"], total_of(account, Role.HEAT_HANDED_OVER)),
        _energy(definitions["heat_rejected"], total_of(account, Role.HEAT_REJECTED)),
        _mean_power(definitions["mean_power"], account),
        _peak_power(definitions["peak_power"], account),
        _load_factor(definitions["load_factor"], account),
        _gpu_share(definitions["gpu_share"], account),
    )


@dataclass(frozen=True, slots=True)
class Total:
    """The energy of a role; `reason` says why there is none."""

    joules: float | None
    evidence: Evidence | None
    reason: str = ""


def total_of(account: Account, role: Role) -> Total:
    """E = sum over the meters of the role. A meter without a reading leaves no total: it would be too low."""
    meters = account.meters.filter(pl.col("role") == role)
    if meters.is_empty():
        return Total(None, None, f"The inventory has no {_ROLE_WORDS[role]} meter.")
    silent = meters.filter(pl.col("joules").is_null())["name"].to_list()
    if silent:
        return Total(None, None, f"No readings in this period from {_enumerated(silent)}.")
    joules = float(meters["joules"].sum())
    estimated = float((meters["joules"] * meters["share_estimated"].fill_null(0.0)).sum())
    evidence = Evidence(
        coverage=coverage_of(account, role),
        share_estimated=estimated / joules if joules else 0.0,
        uncertainty=uncertainty_of(account, role),
    )
    return Total(joules, evidence)


def _enumerated(names: list[str]) -> str:
    """The first three names, and how many more there are."""
    more = len(names) - 3
    return ", ".join(names[:3]) + (f" and {more} more" if more > 0 else "")


def uncertainty_of(account: Account, role: Role) -> float:
    """Relative, k = 2: limits of the meters' classes, and of what was estimated, which has an error of its own.

    Meters of one role err together, and so do estimates, which are made in the same outages.
    """
    meters = account.meters.filter(pl.col("role") == role)
    of_class = of_sum(
        (joules or 0.0, expanded(account.accuracy.limit(role, accuracy_class)))
        for joules, accuracy_class in meters.select("joules", "accuracy_class").iter_rows()
    )
    of_estimates = of_sum(
        (joules or 0.0, (share or 0.0) * expanded(account.accuracy.estimate_limit))
        for joules, share in meters.select("joules", "share_estimated").iter_rows()
    )
    return math.hypot(of_class, of_estimates)


def coverage_of(account: Account, *roles: Role) -> float:
    """Observed seconds over the period's; in every quarter hour that of the meter observed least."""
    least = pl.min_horizontal(pl.col(f"{role}_observed_s").fill_null(0.0) for role in roles)
    return float(account.quarters.select(least.sum()).item()) / account.period.seconds


def _energy(definition: Definition, total: Total) -> Kpi:
    mwh = None if total.joules is None else total.joules / JOULES_PER_MWH
    return Kpi(definition, mwh, definition.unit, total.evidence, total.reason)


def ratio(definition: Definition, account: Account, above: Role, below: Role) -> Kpi:
    """sum(E_above) / sum(E_below), over the quarter hours in which both are wholly known."""
    missing = [total.reason for total in (total_of(account, above), total_of(account, below)) if total.joules is None]
    if missing:
        return Kpi.blank(definition, " ".join(missing))
    both = account.quarters.select(
        above=f"{above}_joules",
        below=f"{below}_joules",
        estimated=pl.max_horizontal(
            pl.col(f"{role}_estimated_joules") / pl.col(f"{role}_joules") for role in (above, below)
        ),
    ).drop_nulls(["above", "below"])
    energy_below = float(both["below"].sum())
    if energy_below <= 0:
        return Kpi.blank(definition, f"No {_ROLE_WORDS[below]} energy was counted.")
    weighted = both.select((pl.col("estimated").fill_nan(0.0).fill_null(0.0) * pl.col("below")).sum()).item()
    evidence = Evidence(
        coverage=coverage_of(account, above, below),
        share_estimated=float(weighted) / energy_below,
        uncertainty=of_ratio(uncertainty_of(account, above), uncertainty_of(account, below)),
    )
    left_out = account.quarters.height - both.height
    note = f"{left_out:,} of {account.quarters.height:,} quarter hours are left out.".replace(",", THIN_SPACE)
    return Kpi(
        definition, float(both["above"].sum()) / energy_below, definition.unit, evidence, note=note if left_out else ""
    )


def _known_quarters(account: Account, role: Role) -> pl.DataFrame:
    return account.quarters.select(
        "time", joules=f"{role}_joules", observed_s=f"{role}_observed_s", estimated=f"{role}_estimated_joules"
    ).drop_nulls("joules")


def _mean_watts(account: Account, role: Role) -> float | None:
    """P = E / t over the quarter hours that are wholly known."""
    known = _known_quarters(account, role)
    return None if known.is_empty() else float(known["joules"].sum()) / (known.height * QUARTER_S)


def _power(definition: Definition, watts: float, evidence: Evidence | None, note: str = "") -> Kpi:
    scale, unit = (1e6, "MW") if watts >= MEGAWATT_FROM_W else (1e3, "kW")
    return Kpi(definition, watts / scale, unit, evidence, note=note)


def _mean_power(definition: Definition, account: Account) -> Kpi:
    total, watts = total_of(account, Role.SITE), _mean_watts(account, Role.SITE)
    if total.joules is None or watts is None:
        return Kpi.blank(definition, total.reason or "No quarter hour is wholly known.")
    return _power(definition, watts, total.evidence)


def peak(account: Account) -> Peak | None:
    """max(E_quarter / 900 s) among the quarter hours that no gap touches."""
    seen = _known_quarters(account, Role.SITE).filter(pl.col("observed_s") >= PEAK_COVERAGE * QUARTER_S)
    if seen.is_empty():
        return None
    # The earliest of equals, so that the order of rows does not matter.
    joules, time = seen.sort(["joules", "time"], descending=[True, False]).select("joules", "time").row(0)
    return Peak(float(joules) / QUARTER_S, account.period.local(time))


def _peak_power(definition: Definition, account: Account) -> Kpi:
    total, highest = total_of(account, Role.SITE), peak(account)
    if total.joules is None or highest is None:
        return Kpi.blank(definition, total.reason or "No quarter hour was observed throughout.")
    return _power(definition, highest.watts, total.evidence, f"From {highest.time:%-d %B %H:%M}.")


def _load_factor(definition: Definition, account: Account) -> Kpi:
    """mean IT power / installed IT power."""
    total, watts = total_of(account, Role.IT), _mean_watts(account, Role.IT)
    if total.joules is None or watts is None:
        return Kpi.blank(definition, total.reason or "No quarter hour is wholly known.")
    if not account.installed_it_watts:
        return Kpi.blank(definition, "The inventory does not rate the power of every rack.")
    installed = account.installed_it_watts
    note = f"Installed: {installed / 1e6:,.2f} MW." if installed >= 1e6 else f"Installed: {installed / 1e3:,.0f} kW."
    return Kpi(definition, 100 * watts / installed, definition.unit, total.evidence, note=note)


def _gpu_share(definition: Definition, account: Account) -> Kpi:
    """E_GPU / E_IT, over the parts of the period for which both are known."""
    total = total_of(account, Role.IT)
    if total.joules is None:
        return Kpi.blank(definition, total.reason)
    it = by_part(account).select("time", it="it_joules")
    gpus = account.gpus.group_by(account.period.part(pl.col("time")).alias("time")).agg(joules=sum_of_known("joules"))
    both = gpus.join(it, on="time").drop_nulls()
    it_joules = float(both["it"].sum())
    if it_joules <= 0:
        return Kpi.blank(definition, "No GPU readings in this period.")
    hours = account.gpu_count * account.period.seconds / 3600
    seen = float(account.gpus["gpu_hours"].sum()) / hours if hours else 0.0
    evidence = Evidence(
        coverage=min(seen, 1.0, total.evidence.coverage if total.evidence else 0.0),
        share_estimated=total.evidence.share_estimated if total.evidence else 0.0,
        uncertainty=of_ratio(expanded(account.accuracy.gpu_limit), uncertainty_of(account, Role.IT)),
    )
    return Kpi(definition, 100 * float(both["joules"].sum()) / it_joules, definition.unit, evidence)


def by_part(account: Account) -> pl.DataFrame:
    """J by part of the period: time (its local start), <role>_joules, rest_joules, ratio terms, coverage.

    rest = site - IT - cooling over the quarter hours for which all three are known.
    paired_site and paired_it are the energies over the quarter hours for which both are known.
    """
    site, it, cooling = (pl.col(f"{role}_joules") for role in (Role.SITE, Role.IT, Role.COOLING))
    paired = site.is_not_null() & it.is_not_null()
    sums = {f"{role}_joules": pl.col(f"{role}_joules") for role in ROLES} | {
        "rest_joules": site - it - cooling,
        "paired_site": pl.when(paired).then(site),
        "paired_it": pl.when(paired).then(it),
    }
    observed = pl.min_horizontal(pl.col(f"{role}_observed_s").fill_null(0.0) for role in (Role.SITE, Role.IT))
    return (
        account.quarters.with_columns(**sums, observed=observed)
        .group_by(account.period.part(pl.col("time")).alias("time"))
        .agg(
            **{name: sum_of_known(name) for name in sums},
            coverage=pl.col("observed").sum() / (pl.len() * QUARTER_S),
        )
        .sort("time")
    )


def hourly_power(account: Account) -> pl.DataFrame:
    """Mean site power by local hour: time, watts (absent unless the hour is known), coverage."""
    hour = pl.col("time").dt.convert_time_zone(account.period.zone).dt.truncate("1h")
    joules = pl.col(f"{Role.SITE}_joules")
    return (
        account.quarters.group_by(time=hour)
        .agg(
            watts=pl.when(joules.null_count() == 0).then(joules.sum() / (pl.len() * QUARTER_S)),
            coverage=pl.col(f"{Role.SITE}_observed_s").fill_null(0.0).sum() / (pl.len() * QUARTER_S),
        )
        .sort("time")
    )
