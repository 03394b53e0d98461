"""All that the efficiency report says, as one HTML page and as one JSON document."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from reports import render
from reports.efficiency_energy import HallLine
from reports.efficiency_figures import StateLine
from reports.figures import JOULES_PER_KWH, Kpi
from reports.period import Period
from reports.publishing.documents import figure_document, period_document, time_text
from reports.render import Chart
from storage.register_kinds import RegisterKind

SCHEMA = "kvandal.efficiency/1"
LINES_SHOWN = 20


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
