"""The efficiency report as a publication, so that it leaves the building in every format, and can be frozen."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import polars as pl

from reports.efficiency import EfficiencySettings, build_efficiency
from reports.efficiency_energy import HallLine
from reports.efficiency_figures import StateLine
from reports.efficiency_page import EfficiencyReport, document, render_html
from reports.efficiency_reading import read_efficiency
from reports.figures import JOULES_PER_KWH
from reports.period import Period
from reports.publishing.documents import digest
from reports.publishing.parts import EVIDENCE_TEXT, meter_inputs, method_section, paged_publication, period_facts
from reports.publishing.publication import Blank, Cards, Cell, Column, Input, Name, Publication, Section, Table
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
    return paged_publication(
        report,
        name="efficiency",
        kicker="Efficiency report",
        facts=[fact for fact in facts if fact[0] != "Data cut-off"],
        sections=tuple(_sections(report)),
        document=document(report),
        inputs=tuple(_inputs(report)),
        render_page=render_html,
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


def _sections(report: EfficiencyReport) -> Iterator[Section]:
    for place, group in enumerate(report.groups):
        yield Section(
            title=group.title, text=group.text or ("" if place else EVIDENCE_TEXT), blocks=[Cards(group.kpis)]
        )
    yield Section(title=f"Course of the {report.period.span}", blocks=list(report.charts))
    hours = (("health", report.health), ("allocation", report.allocation), ("throttling", report.throttling))
    yield Section(title="GPU hours", blocks=[_hours(name, lines) for name, lines in hours])
    yield Section(title="Halls", blocks=[_halls(report.halls)])
    yield Section(
        title="Jobs, stragglers, nodes and racks",
        blocks=[
            _jobs(report.jobs),
            _stragglers(report.stragglers, report.period),
            _nodes(report.nodes),
            _racks(report.racks),
        ],
    )
    yield method_section(report.kpis)


def _hours(name: str, lines: Sequence[StateLine]) -> Table:
    columns = (Column("State"), _number("GPU-hours", 1), _share("Share, %", 2))
    rows = [(_capitalised(line.name), line.gpu_hours, 100 * line.share) for line in lines]
    return Table(key=name, title=name.capitalize(), columns=columns, rows=rows)


def _capitalised(name: str) -> str:
    return name[:1].upper() + name[1:]


def _number(title: str, digits: int) -> Column:
    return Column(title, digits, numeric=True)


def _share(title: str, digits: int = 1) -> Column:
    return Column(title, digits, numeric=True, percentage=True)


def _jobs(jobs: pl.DataFrame) -> Table:
    columns = (
        Column("Job"), Column("Name"), Column("Customer"), _number("GPUs", 0), _number("GPU-hours", 1),
        _number("Boards, kWh", 1), _number("Rest of trays, kWh", 1), _number("W per GPU", 0), _share("Observed, %"),
    )  # fmt: skip
    rows = [
        (
            Name(row["job"]), _name(row["name"]), _name(row["customer"]), row["gpus"], row["gpu_seconds"] / 3600,
            *(_scaled(row[key], 1 / JOULES_PER_KWH) for key in ("gpu_joules", "overhead_joules")),
            row["watts_per_gpu"], _scaled(row["coverage"], 100),
        )
        for row in _told_rows(jobs)
    ]  # fmt: skip
    return Table(key="jobs", title="Jobs that ended", columns=columns, rows=rows, shown=20)


def _stragglers(stragglers: pl.DataFrame, period: Period) -> Table:
    columns = (
        Column("GPU"), Column("Job"), Column("Signals"), Column("More than a low clock"), _number("Windows", 0),
        _number("Worst z", 1), Column("From"), Column("To"),
    )  # fmt: skip
    rows = [
        (
            Name(row["gpu"] or f"{row['resource']:016x}"), Name(row["job"]), row["signals"],
            "yes" if row["corroborated"] else "no", row["windows"], row["worst_z"],
            *(f"{period.local(row[edge]):%-d %b %Y %H:%M}" for edge in ("first", "last")),
        )
        for row in _told_rows(stragglers)
    ]  # fmt: skip
    return Table(key="stragglers", title="Stragglers", columns=columns, rows=rows, shown=20)


def _nodes(nodes: pl.DataFrame) -> Table:
    columns = (
        Column("Node"), Column("Rack"), _number("Failures", 0), _number("Expected", 2),
        _number("Such nodes by chance", 2), Column("Lemon"),
    )  # fmt: skip
    rows = [
        (
            Name(row["name"] or f"{row['node']:016x}"), _name(row["rack_name"]), row["failures"], row["expected"],
            row["by_chance"], "yes" if row["lemon"] else "no",
        )
        for row in _told_rows(nodes.filter(pl.col("failures") > 0))
    ]  # fmt: skip
    return Table(key="nodes", title="Nodes with failures", columns=columns, rows=rows, shown=20)


def _racks(racks: pl.DataFrame) -> Table:
    columns = (
        Column("Rack"), _number("Over-flow, %", 1), _number("Approach, K", 1), _number("Rise, K", 1),
        _number("Flow, L/min", 0), _number("Supply, °C", 1), _number("Heat, kW", 1), Column("Heat assumed"),
        _share("Observed, %"),
    )  # fmt: skip
    plain = ("approach_kelvin", "rise_kelvin", "flow_litres_per_minute", "supply_celsius", "heat_kilowatts")
    rows = [
        (
            Name(row["name"] or f"{row['rack']:016x}"), _scaled(row["overflow_ratio"], 100),
            *(row[key] for key in plain), "yes" if row["heat_assumed"] else "no", _scaled(row["coverage"], 100),
        )
        for row in _told_rows(racks)
    ]  # fmt: skip
    return Table(key="racks", title="Coolant by rack", columns=columns, rows=rows, shown=20)


def _halls(halls: Sequence[HallLine]) -> Table:
    columns = (
        Column("Hall"), _number("IT, MWh", 2), _number("Cooling, MWh", 2), _number("pPUE", 4), _number("±", 4),
        _share("Observed, %"), Column("Why it is blank"),
    )  # fmt: skip
    rows = [
        (
            Name(hall.name), hall.it_mwh, hall.cooling_mwh, Blank() if hall.ppue is None else hall.ppue,
            hall.plus_minus, _scaled(hall.coverage, 100), Name(hall.reason),
        )
        for hall in halls
    ]  # fmt: skip
    return Table(key="halls", title="", columns=columns, rows=rows, nothing="The inventory has no halls.")


def _told_rows(frame: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Rows of a frame; what is no number is absent."""
    return frame.with_columns(pl.col(pl.Float64).fill_nan(None)).iter_rows(named=True)


def _name(text: str | None) -> Cell:
    return Name(text) if text else None


def _scaled(value: float | None, by: float) -> Cell:
    return None if value is None else value * by
