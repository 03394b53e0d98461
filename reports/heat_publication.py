"""The heat report as a publication, so that it leaves the building in every format, and can be frozen."""

from collections.abc import Iterator
from datetime import datetime

from reports.figures import JOULES_PER_MWH
from reports.heat_page import HeatReport, document, render_heat
from reports.heat_report import HeatReportSettings, build_heat_report, read_heat
from reports.heat_statement import MeterEvidence
from reports.period import Period
from reports.publishing.parts import EVIDENCE_TEXT, meter_inputs, method_section, paged_publication, period_facts
from reports.publishing.publication import (
    Blank,
    Cards,
    Cell,
    Column,
    Name,
    Pairs,
    Publication,
    Section,
    Table,
)
from storage.reader import Reader


def read_heat_publication(reader: Reader, period: Period, now: datetime) -> Publication:
    """The heat report of a period; StoreUnavailableError, StoreRefusedError."""
    report = build_heat_report(read_heat(reader, period, now), period, now=now, settings=HeatReportSettings())
    return heat_publication(report)


def heat_publication(report: HeatReport) -> Publication:
    """Everything that the page says, with its tables as tables; pure."""
    return paged_publication(
        report,
        name="heat",
        kicker="Heat report",
        facts=period_facts(
            report.period, cut_off=report.cut_off, generated_at=report.generated_at, software=report.software
        ),
        sections=tuple(_sections(report)),
        document=document(report),
        inputs=meter_inputs(report.meters),
        render_page=render_heat,
    )


def _sections(report: HeatReport) -> Iterator[Section]:
    yield Section(title="Key figures", text=EVIDENCE_TEXT, blocks=[Cards(report.kpis)])
    yield Section(title=f"Course of the {report.period.span}", blocks=[report.chart])
    yield Section(title="Statements to off-takers", blocks=[_statements(report), *_meters(report), *_events(report)])
    yield Section(title="Conservation", blocks=[_balances(report)])
    yield Section(title="Capacity", blocks=[_phases(report), _capacity(report)])
    yield method_section(report.kpis)
    yield Section(
        title="Assumed, or configured", blocks=[Pairs([(str(n), text) for n, text in enumerate(report.assumptions, 1)])]
    )


def _statements(report: HeatReport) -> Table:
    columns = (
        Column("Off-taker"), Column("Energy, MWh", 3, numeric=True), Column("±, MWh", 3, numeric=True),
        Column("Supply, °C", 1, numeric=True), Column("Return, °C", 1, numeric=True), Column("Quality"),
        Column("Objections to billing"),
    )  # fmt: skip
    rows = [
        (
            Name(found.off_taker), Blank() if found.mwh is None else found.mwh, found.plus_minus_mwh,
            found.supply_celsius, found.return_celsius, found.quality.value, Name(" ".join(found.objections)),
        )
        for found in report.statements
    ]  # fmt: skip
    nothing = "The inventory has no heat meter with the role heat_handed_over."
    return Table(key="statements", title="", columns=columns, rows=rows, nothing=nothing)


def _meters(report: HeatReport) -> Iterator[Table]:
    """The evidence of each statement: which meters, how good they are, and what they showed."""
    meters = [meter for statement in report.statements for meter in statement.meters]
    if not meters:
        return
    of_meter = ("Meter", "Identity", "Serial number", "Class", "Calibrated", "Certificate")
    yield Table(
        key="heat meters",
        title="Heat meters",
        columns=[Column(title) for title in of_meter],
        rows=[_meter(meter) for meter in meters],
    )
    shown = ("At the start, MWh", "At the end, MWh", "Adjustment, MWh", "Energy, MWh")
    yield Table(
        key="heat registers",
        title="What their registers showed",
        columns=(
            Column("Meter"),
            *(Column(title, 4, numeric=True) for title in shown),
            Column("Observed, %", 2, numeric=True, percentage=True),
        ),
        rows=[_register(meter) for meter in meters],
        text=(
            "Adjustment is what events, and the way from the readings' times to the period's bounds, account for: "
            "energy less what the register moved."
        ),
    )


def _meter(meter: MeterEvidence) -> tuple[Cell, ...]:
    assumed = ", assumed" if meter.class_assumed else ""
    told = (meter.serial, f"{meter.accuracy_class}{assumed}", meter.calibrated_at, meter.certificate)
    return Name(meter.name), Name(meter.identity), *(Name(text) if text else Blank() for text in told)


def _register(meter: MeterEvidence) -> tuple[Cell, ...]:
    told = (
        *(None if shown is None else shown.mwh for shown in (meter.opening, meter.closing)),
        meter.adjustment_mwh,
        meter.mwh,
    )
    return Name(meter.name), *(Blank() if value is None else value for value in told), 100 * meter.coverage


def _events(report: HeatReport) -> Iterator[Table]:
    spans: list[tuple[Cell, ...]] = [
        (Name(meter.name), span.flag, *(f"{edge:%Y-%m-%d %H:%M:%S %Z}" for edge in (span.start, span.end)), span.mwh)
        for statement in report.statements
        for meter in statement.meters
        for span in (*meter.events, *meter.missing)
    ]  # fmt: skip
    columns = (Column("Meter"), Column("What"), Column("From"), Column("To"), Column("Booked, MWh", 4, numeric=True))
    if spans:
        yield Table(key="events", title="Events and missing spans", columns=columns, rows=spans, shown=20)


def _balances(report: HeatReport) -> Table:
    columns = (
        Column("Place"), Column("Level"), Column("In, MWh", 2, numeric=True), Column("Out, MWh", 2, numeric=True),
        Column("Residual, MWh", 2, numeric=True), Column("±, MWh", 2, numeric=True),
        Column("Compared, %", 1, numeric=True, percentage=True), Column("Verdict"),
    )  # fmt: skip
    energies = ("in_joules", "out_joules", "residual_joules", "uncertainty_joules")
    rows = [
        (
            Name(row["name"]), row["level"],
            *(None if row[name] is None else row[name] / JOULES_PER_MWH for name in energies),
            None if row["coverage"] is None else 100 * row["coverage"], row["verdict"],
        )
        for row in report.balances.iter_rows(named=True)
    ]  # fmt: skip
    text = "What enters each place less what leaves it, over the quarter hours in which both sides were observed."
    return Table(key="balances", title="", columns=columns, rows=rows, text=text, shown=30)


def _phases(report: HeatReport) -> Table:
    columns = (
        Column("Contract"), Column("State"), Column("Contracted, MW", 1, numeric=True),
        Column("15-minute peak, MW", 3, numeric=True), Column("Headroom, MW", 3, numeric=True),
    )  # fmt: skip
    rows = [
        (
            Name(line.phase.name), "in force" if line.in_force else "planned", line.phase.contracted_watts / 1e6,
            Blank() if report.peak is None else report.peak.watts / 1e6,
            None if line.headroom_watts is None else line.headroom_watts / 1e6,
        )
        for line in report.phases
    ]  # fmt: skip
    return Table(key="contracts", title="Contracted power", columns=columns, rows=rows)


def _capacity(report: HeatReport) -> Table:
    columns = (
        Column("Feeder or hall"), Column("Kind"), Column("Rated, kW", 1, numeric=True),
        Column("15-minute peak, kW", 1, numeric=True), Column("Headroom, kW", 1, numeric=True),
        Column("Seen whole, %", 1, numeric=True, percentage=True),
    )  # fmt: skip
    rows = [
        (
            Name(line.name), line.kind, *(
                Blank() if watts is None else watts / 1e3
                for watts in (line.rated_watts, line.peak.watts if line.peak else None, line.headroom_watts)
            ), None if line.coverage is None else 100 * line.coverage,
        )
        for line in report.capacity
    ]  # fmt: skip
    return Table(key="capacity", title="Feeders and halls", columns=columns, rows=rows, shown=30)
