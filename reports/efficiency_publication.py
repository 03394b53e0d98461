"""The efficiency report as a publication, so that it leaves the building in every format, and can be frozen."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial

import polars as pl

from reports.efficiency import (
    EfficiencyReport,
    EfficiencySettings,
    build_efficiency,
    document,
    read_efficiency,
    render_html,
)
from reports.efficiency_figures import StateLine
from reports.period import Period
from reports.publishing.documents import digest
from reports.publishing.parts import EVIDENCE_TEXT, meter_inputs, method_section, period_facts
from reports.publishing.publication import Cards, Cell, Column, Input, Name, Publication, Seal, Section, Table
from storage.reader import Reader


def efficiency_reading(settings: EfficiencySettings) -> Callable[[Reader, Period, datetime], Publication]:
    """How the report of a period is read with these settings; StoreUnavailableError, StoreRefusedError."""
    return partial(_read, settings)


def _read(settings: EfficiencySettings, reader: Reader, period: Period, now: datetime) -> Publication:
    data = read_efficiency(reader, period, now)
    report = build_efficiency(data, period, now=now, prices=None, tokens=None, settings=settings)
    return efficiency_publication(report)


def efficiency_publication(report: EfficiencyReport) -> Publication:
    """Everything that the page says, with its tables as tables; pure."""
    facts = period_facts(report.period, cut_off=None, generated_at=report.generated_at, software=report.software)
    return Publication(
        report="efficiency",
        kicker="Efficiency report",
        site=Name(report.site),
        period=report.period,
        complete=report.complete,
        generated_at=report.generated_at,
        software=report.software,
        summary=report.summary,
        facts=[fact for fact in facts if fact[0] != "Data cut-off"],
        sections=tuple(_sections(report)),
        figures=report.kpis,
        document=document(report),
        inputs=tuple(_inputs(report)),
        page=lambda seal: _own_page(report, seal),
        problems=report.problems,
    )


def _inputs(report: EfficiencyReport) -> Iterator[Input]:
    """What the figures rest on: meters, the GPU time that was seen or not, jobs, and the lines of registers."""
    yield from meter_inputs(report.meters)
    for axis, lines in (("health", report.health), ("allocation", report.allocation)):
        for line in lines:
            yield Input(kind=axis, id=line.name, name=f"GPU time {line.name}", value=line.gpu_hours, unit="h")
    yield Input(kind="jobs", id="ended", name="jobs that ended", value=float(report.jobs.height))
    for kind, rows in report.registers.items():
        yield Input(kind="register", id=kind.value, name=kind.value, value=None if rows is None else _told(rows))


def _told(rows: pl.DataFrame) -> str:
    """The lines of a register that the period uses, as one text that another line or another cell changes."""
    known = rows.drop(name for name in rows.columns if name.startswith("import_"))
    lines = sorted(digest([str(cell) for cell in row]) for row in known.iter_rows())
    return f"{len(lines)} lines ({digest(lines)[:12]})"


def _own_page(report: EfficiencyReport, seal: Seal | None) -> str | None:
    return render_html(report) if seal is None else None


def _sections(report: EfficiencyReport) -> Iterator[Section]:
    for place, group in enumerate(report.groups):
        yield Section(
            title=group.title, text=group.text or ("" if place else EVIDENCE_TEXT), blocks=[Cards(group.kpis)]
        )
    yield Section(title=f"Course of the {report.period.span}", blocks=list(report.charts))
    hours = (("health", report.health), ("allocation", report.allocation), ("throttling", report.throttling))
    yield Section(title="GPU hours", blocks=[_hours(name, lines) for name, lines in hours])
    frames = (("jobs", report.jobs), ("stragglers", report.stragglers), ("racks", report.racks))
    yield Section(title="Jobs, stragglers and racks", blocks=[_frame(name, frame) for name, frame in frames])
    yield method_section(report.kpis)


def _hours(name: str, lines: Sequence[StateLine]) -> Table:
    columns = (Column("State"), Column("GPU-hours", 1, numeric=True), Column("Share, %", 2, numeric=True))
    rows = [(_capitalised(line.name), line.gpu_hours, 100 * line.share) for line in lines]
    return Table(key=name, title=name.capitalize(), columns=columns, rows=rows)


def _capitalised(name: str) -> str:
    return name[:1].upper() + name[1:]


def _frame(name: str, frame: pl.DataFrame) -> Table:
    """A table of the document as it is, without ids: they are in the JSON."""
    shown = [column for column, kind in frame.schema.items() if kind != pl.UInt64 and not kind.is_nested()]
    columns = [Column(column.replace("_", " "), numeric=frame.schema[column].is_numeric()) for column in shown]
    text = frame.select(shown).with_columns(
        pl.col(pl.Datetime).dt.strftime("%Y-%m-%d %H:%M"),
        pl.col(pl.Boolean).cast(pl.String),
        pl.col(pl.Float64).fill_nan(None),
    )
    rows: list[list[Cell]] = [
        [Name(cell) if isinstance(cell, str) else cell for cell in row] for row in text.iter_rows()
    ]
    return Table(key=name, title=name.capitalize(), columns=columns, rows=rows, shown=20)
