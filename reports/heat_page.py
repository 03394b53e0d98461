"""All that the heat report says, as one HTML page and as one JSON document."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from reports.capacity import BoundaryLine, CapacityLine, PhaseLine
from reports.figures import JOULES_PER_MWH, MEGAWATT_FROM_W, Kpi, Peak
from reports.heat_account import ContractLine
from reports.heat_balances import Level
from reports.heat_statement import Statement
from reports.period import Period
from reports.publishing.documents import figure_document, period_document, time_text
from reports.render import Chart, digits_of_uncertainty, number, period_title, template_environment

SCHEMA_VERSION = "kvandal.heat/1"
# A page lists this many balances of a level and this many flags; all are in the JSON.
LINES_SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeatReport:
    """Everything that the page and the JSON say. `balances`: what `heat_balances.judge` gives, all levels.

    `meters`: those of `HeatAccount`.
    """

    site: str
    period: Period
    cut_off: datetime | None
    generated_at: datetime
    software: str
    summary: str
    complete: bool
    kpis: Sequence[Kpi]
    chart: Chart
    contracts: Sequence[ContractLine]
    statements: Sequence[Statement]
    meters: pl.DataFrame
    balances: pl.DataFrame
    peak: Peak | None
    peak_coverage: float
    phases: Sequence[PhaseLine]
    capacity: Sequence[CapacityLine]
    boundaries: Sequence[BoundaryLine]
    assumptions: Sequence[str]
    problems: Sequence[str] = ()


def render_heat(report: HeatReport) -> str:
    """The page. Every text is escaped; only the chart, whose texts Vega has escaped, goes in as markup."""
    environment = template_environment()
    environment.filters |= {"power": _power, "precise": _precise}
    template = environment.get_template("heat.html")
    levels = [
        (level, report.balances.filter(pl.col("level") == level.value).to_dicts())
        for level in Level
        if report.balances.filter(pl.col("level") == level.value).height
    ]
    return template.render(report=report, levels=levels, shown=LINES_SHOWN, title=period_title(report.period))


def _power(watts: float | None) -> str:
    """12.34 MW, 456.7 kW; a dash where it is absent."""
    if watts is None:
        return number(None)
    scale, unit = (1e6, "MW") if abs(watts) >= MEGAWATT_FROM_W else (1e3, "kW")
    return f"{number(watts / scale)} {unit}"


def _precise(value: float | None, plus_minus: float | None) -> str:
    """A figure to the digit that its uncertainty leaves meaningful."""
    return number(value, None if plus_minus is None else digits_of_uncertainty(plus_minus))


def document(report: HeatReport) -> dict[str, Any]:
    """All figures as one JSON document; times are RFC 3339, energies MWh, powers W, shares of 1."""
    return {
        "schema": SCHEMA_VERSION,
        "site": report.site,
        "period": period_document(report.period, complete=report.complete),
        "generated_at": time_text(report.generated_at),
        "cut_off": time_text(report.cut_off) if report.cut_off else None,
        "software": report.software,
        "figures": [figure_document(kpi) for kpi in report.kpis],
        "contracts": [_plain(line) for line in report.contracts],
        "statements": [_statement(statement) for statement in report.statements],
        "balances": [_balance(row) for row in report.balances.iter_rows(named=True)],
        "capacity": {
            "peak": _plain(report.peak),
            "coverage": report.peak_coverage,
            "phases": [_plain(line) for line in report.phases],
            "lines": [
                {**_plain(line), "headroom_watts": line.headroom_watts, "used_share": line.used_share}
                for line in report.capacity
            ],
            "boundaries": [_plain(line) for line in report.boundaries],
        },
        "assumptions": list(report.assumptions),
        "problems": list(report.problems),
    }


def _statement(statement: Statement) -> dict[str, Any]:
    return {**_plain(statement), "quality": statement.quality.value}


def _balance(row: Mapping[str, Any]) -> dict[str, Any]:
    shown = {name: value for name, value in row.items() if not name.endswith("_joules")}
    energies = {
        name.replace("_joules", "_mwh"): None if value is None else value / JOULES_PER_MWH
        for name, value in row.items()
        if name.endswith("_joules")
    }
    return shown | energies


def _plain(record: Any) -> Any:  # noqa: ANN401 - any record of a report, as JSON has it
    if isinstance(record, datetime):
        return time_text(record)
    if isinstance(record, tuple | list):
        return [_plain(part) for part in record]
    names = getattr(record, "__dataclass_fields__", None)
    return {name: _plain(getattr(record, name)) for name in names} if names else record
