"""Where the site's energy went, and where its heat went: lines of two tables, from one account."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from reports.accuracy import expanded, of_ratio
from reports.figures import HEAT, JOULES_PER_MWH, Account, Role, Total, coverage_of, total_of


@dataclass(frozen=True, slots=True)
class BalanceLine:
    """One line of the energy balance; `depth` indents it, `share` is of the site's energy."""

    name: str
    depth: int
    mwh: float | None
    share: float | None
    plus_minus_mwh: float | None
    coverage: float | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class HeatLine:
    """One heat meter or the sum of all; temperatures are weighted by energy."""

    name: str
    use: str
    mwh: float | None
    share_of_site: float | None
    coverage: float | None
    supply_celsius: float | None
    return_celsius: float | None


def energy_balance(account: Account) -> tuple[BalanceLine, ...]:
    """Site -> IT by meter, cooling, other; and what is left: losses between the meters, and their errors.

    residual = E_site - E_IT - E_cooling - E_other. Its uncertainty: site and sub-meters are unlike,
    so sqrt(u_site^2 + (sum of u_sub)^2), in MWh.
    """
    site = total_of(account, Role.SITE)
    lines = [_balance_line("Site, all feeds", 0, site, site, "")]
    subs = [(role, total_of(account, role)) for role in (Role.IT, Role.COOLING, Role.OTHER)]
    names = {Role.IT: "IT", Role.COOLING: "Cooling", Role.OTHER: "Other"}
    for role, total in subs:
        lines.append(_balance_line(names[role], 1, total, site, total.reason))
        lines += _balance_leaves(account, role, site)
    return (*lines, _residual(site, [total for _, total in subs]))


def _balance_line(name: str, depth: int, total: Total, site: Total, note: str) -> BalanceLine:
    if total.joules is None or total.evidence is None:
        return BalanceLine(name, depth, None, None, None, None, note or total.reason)
    mwh = total.joules / JOULES_PER_MWH
    share = total.joules / site.joules if site.joules else None
    plus_minus = mwh * (total.evidence.uncertainty or 0.0)
    return BalanceLine(name, depth, mwh, share, plus_minus, total.evidence.coverage, note)


def _balance_leaves(account: Account, role: Role, site: Total) -> list[BalanceLine]:
    meters = account.meters.filter(pl.col("role") == role).sort("name")
    if meters.height < 2:
        return []
    return [
        BalanceLine(
            name=meter["name"],
            depth=2,
            mwh=None if meter["joules"] is None else meter["joules"] / JOULES_PER_MWH,
            share=meter["joules"] / site.joules if meter["joules"] is not None and site.joules else None,
            plus_minus_mwh=None
            if meter["joules"] is None
            else meter["joules"] / JOULES_PER_MWH * expanded(account.accuracy.limit(role, meter["accuracy_class"])),
            coverage=meter["coverage"],
            note="" if meter["joules"] is not None else "No readings in this period.",
        )
        for meter in meters.iter_rows(named=True)
    ]


def _residual(site: Total, subs: Sequence[Total]) -> BalanceLine:
    name = "Residual: losses between the meters, and their errors"
    known = [total for total in (site, *subs) if total.joules is not None and total.evidence is not None]
    if len(known) <= len(subs):
        return BalanceLine(name, 1, None, None, None, None, "Some terms of the balance are not available.")
    joules = [total.joules or 0.0 for total in known]
    errors = [j * (t.evidence.uncertainty or 0.0) for j, t in zip(joules, known, strict=True) if t.evidence]
    rest, plus_minus = joules[0] - sum(joules[1:]), of_ratio(errors[0], sum(errors[1:]))
    coverage = min(total.evidence.coverage for total in known if total.evidence)
    return BalanceLine(
        name=name,
        depth=1,
        mwh=rest / JOULES_PER_MWH,
        share=rest / joules[0] if joules[0] else None,
        plus_minus_mwh=plus_minus / JOULES_PER_MWH,
        coverage=coverage,
        note=_residual_note(rest, plus_minus),
    )


def _residual_note(rest: float, plus_minus: float) -> str:
    if rest < -plus_minus:
        return "Negative beyond the meters' uncertainty: check their boundaries, roles and coverage."
    return "Within the meters' uncertainty." if abs(rest) <= plus_minus else ""


def heat_account(
    account: Account, temperatures: pl.DataFrame, quarters_of_meters: pl.DataFrame
) -> tuple[HeatLine, ...]:
    """One line a heat meter, and their sum.

    `temperatures`: resource, time (quarter hour), supply_celsius, return_celsius. Weighted by
    energy: T = sum(T_i E_i) / sum(E_i), so that hours without flow do not count.
    """
    weighted = _weighted_temperatures(temperatures, quarters_of_meters)
    site = total_of(account, Role.SITE)
    meters = account.meters.filter(pl.col("role").is_in([*HEAT])).sort("role", "name")
    lines = [
        _heat_line(meter, site) for meter in meters.join(weighted, on="resource", how="left").iter_rows(named=True)
    ]
    totals = [total_of(account, role).joules for role in HEAT]
    if any(total is None for total in totals):
        return tuple(lines)
    joules = sum(total or 0.0 for total in totals)
    coverage = coverage_of(account, *HEAT)
    share = joules / site.joules if site.joules else None
    return (*lines, HeatLine("All metered heat", "", joules / JOULES_PER_MWH, share, coverage, None, None))


def _weighted_temperatures(temperatures: pl.DataFrame, quarters: pl.DataFrame) -> pl.DataFrame:
    energy = pl.col("joules")
    means = {
        name: (pl.col(name) * energy).sum() / energy.filter(pl.col(name).is_not_null()).sum()
        for name in ("supply_celsius", "return_celsius")
    }
    joined = quarters.join(temperatures, on=["resource", "time"]).filter(energy > 0)
    return joined.group_by("resource").agg(**means)


def _heat_line(meter: Mapping[str, object], site: Total) -> HeatLine:
    joules, coverage = _number(meter["joules"]), _number(meter["coverage"])
    off_taker = str(meter["off_taker"] or "")
    handed = meter["role"] == Role.HEAT_HANDED_OVER
    use = f"handed over{' to ' + off_taker if off_taker else ''}" if handed else "rejected"
    return HeatLine(
        name=str(meter["name"]),
        use=use,
        mwh=None if joules is None else joules / JOULES_PER_MWH,
        share_of_site=joules / site.joules if joules is not None and site.joules else None,
        coverage=coverage,
        supply_celsius=_number(meter["supply_celsius"]),
        return_celsius=_number(meter["return_celsius"]),
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not math.isnan(value) else None
