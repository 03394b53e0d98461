"""The sections of the sustainability report, in the order in which an officer reads them."""

from collections.abc import Iterator

import polars as pl

from reports.figures import JOULES_PER_MWH, Kpi
from reports.period import Span
from reports.publishing.parts import EVIDENCE_TEXT, method_section, period_facts
from reports.publishing.publication import Blank, Cards, Cell, Column, Name, Section, Table, Words
from reports.render import Chart
from reports.sustainability import books
from reports.sustainability.calendar import days_of
from reports.sustainability.charts import months_chart, renewables_chart
from reports.sustainability.eed_2024_1364 import SCHEMA
from reports.sustainability.inputs import USED_REGISTERS
from reports.sustainability.key_figures import renewable_energy
from reports.sustainability.report import SustainabilityReport
from storage.register_kinds import RegisterKind

NOT_IMPORTED = "not imported"


def facts(report: SustainabilityReport) -> list[tuple[str, str]]:
    return [
        *period_facts(
            report.period, cut_off=report.cut_off, generated_at=report.generated_at, software=report.software
        ),
        ("PUE category", report.category),
        ("EU schema", Name(SCHEMA)),
    ]


def sections(report: SustainabilityReport) -> Iterator[Section]:
    yield Section(title="Key figures", text=EVIDENCE_TEXT, blocks=[Cards(report.kpis)])
    yield Section(
        title="Compared, and over twelve months",
        blocks=[months_chart(report.months), _comparison(report)],
    )
    yield Section(title="Energy balance", blocks=[_balance(report)])
    yield Section(
        title="EU indicators",
        text="Delegated Regulation (EU) 2024/1364, of the period. A blank is a value that is missing, never zero.",
        blocks=[_indicators(report)],
        new_page=True,
    )
    yield Section(title="Water, fuels and refrigerants", blocks=[_water(report), _fuels(report), _refrigerants(report)])
    yield Section(title="Renewable energy", blocks=[_renewables_chart(report), _ledger(report)])
    yield Section(title="Emissions", blocks=[_factors(report)])
    yield Section(title="Registration in Norway", blocks=[_registration(report)])
    yield Section(title="Data quality", blocks=[_meters(report), _flags(report), _registers(report)])
    yield Section(
        title="From sensor to figure",
        text="Each EU indicator, from the sensor or the register that it comes from to the figure.",
        blocks=[_traces(report)],
        new_page=True,
    )
    yield method_section(report.kpis)
    yield Section(title="What is assumed", blocks=[Words(_ASSUMPTIONS)])


_ASSUMPTIONS = (
    "Heat handed over is taken as reused outside the boundary; no avoided emissions are claimed for it.",
    "Cooling degree days have a base of 21 °C.",
    "A line of a register that reaches beyond the period counts by the share of its days in it.",
    "Certificates count with zero emissions in market-based figures; the rest counts with the residual mix.",
    "Embodied emissions and other scope 3 are not in this report.",
    "Where a meter's accuracy class is not known, the class that is good practice for its role is assumed.",
)


def _value(value: float | str | None) -> Cell:
    return Blank() if value is None else Name(value) if isinstance(value, str) else value


def _comparison(report: SustainabilityReport) -> Table:
    columns = (
        Column("Figure"), Column("Unit"), Column("This period", numeric=True), Column("Before", numeric=True),
        Column("Change", numeric=True), Column("Twelve months", numeric=True),
    )  # fmt: skip
    rows = [
        (
            now.definition.title if now.definition.key != "pue" else _pue_title(report), now.unit,
            _value(now.value), _value(before.value), _change(now, before), _value(year.value),
        )
        for now, before, year in zip(report.kpis, report.previous, report.year, strict=True)
    ]  # fmt: skip
    text = (
        "The period before is read by quarter hour. iPUE is interim: PUE proper takes twelve months, and is blank "
        "until they are there."
    )
    return Table(key="comparison", title="", columns=columns, rows=rows, text=text)


def _pue_title(report: SustainabilityReport) -> str:
    return "iPUE (interim); PUE over twelve months" if report.period.span is Span.MONTH else "PUE"


def _change(now: Kpi, before: Kpi) -> Cell:
    return None if now.value is None or before.value is None else now.value - before.value


def _balance(report: SustainabilityReport) -> Table:
    columns = (
        Column("Where"), Column("Energy, MWh", 2, numeric=True), Column("Share, %", 1, numeric=True),
        Column("±, MWh", 2, numeric=True),
    )  # fmt: skip
    rows = [
        (
            _indented(line.name, line.depth), _value(line.mwh),
            None if line.share is None else 100 * line.share, line.plus_minus_mwh,
        )
        for line in report.balance
    ]  # fmt: skip
    return Table(key="balance", title="", columns=columns, rows=rows, text="Without backup generators.")


def _indented(name: str, depth: int) -> str:
    return Name("\u2003" * depth + name) if depth > 1 else name


def _indicators(report: SustainabilityReport) -> Table:
    columns = (
        Column("No."), Column("Indicator"), Column("Symbol"), Column("Value", numeric=True), Column("Unit"),
        Column("Why it is blank"),
    )  # fmt: skip
    rows = [
        (Name(one.number), one.title, Name(one.symbol), _value(one.value), one.unit, one.reason)
        for one in report.indicators
    ]
    return Table(key="eed_2024_1364", title="", columns=columns, rows=rows)


def _traces(report: SustainabilityReport) -> Table:
    columns = (Column("No."), Column("Indicator"), Column("From"), Column("How"), Column("Value", numeric=True))
    rows = [(Name(one.number), one.title, one.source, one.way, _value(one.value)) for one in report.indicators]
    return Table(key="traces", title="", columns=columns, rows=rows)


def _lines_of_period(report: SustainabilityReport, kind: RegisterKind) -> pl.DataFrame:
    days = days_of(report.period)
    return report.data.books[kind].filter(pl.col("first_day") <= days.last, pl.col("last_day") >= days.first)


def _nothing(report: SustainabilityReport, kind: RegisterKind) -> str:
    if not report.data.is_imported(kind):
        return books.missing(kind).reason
    return f"The register {kind.value} has no line for this period."


def _water(report: SustainabilityReport) -> Table:
    columns = (
        Column("Water meter"), Column("From"), Column("To"), Column("Volume, m³", 1, numeric=True),
        Column("Drinking water"),
    )  # fmt: skip
    kind = RegisterKind.WATER
    rows = [
        (
            Name(row["meter"]), row["first_day"], row["last_day"], row["volume_cubic_metres"],
            "yes" if row["potable"] else "no",
        )
        for row in _lines_of_period(report, kind).iter_rows(named=True)
    ]  # fmt: skip
    return Table(key="water", title="Water", columns=columns, rows=rows, nothing=_nothing(report, kind))


def _fuels(report: SustainabilityReport) -> Table:
    columns = (
        Column("Equipment"), Column("Fuel"), Column("From"), Column("To"), Column("Energy, kWh", 0, numeric=True),
        Column("Electricity, kWh", 0, numeric=True), Column("kg CO₂e/kWh", 3, numeric=True),
    )  # fmt: skip
    kind = RegisterKind.FUELS
    rows = [
        (
            Name(row["equipment"]), row["fuel"], row["first_day"], row["last_day"], row["energy_kwh"],
            row["electricity_kwh"], row["co2e_kg_per_kwh"],
        )
        for row in _lines_of_period(report, kind).iter_rows(named=True)
    ]  # fmt: skip
    return Table(key="fuels", title="Fuels", columns=columns, rows=rows, nothing=_nothing(report, kind))


def _refrigerants(report: SustainabilityReport) -> Table:
    columns = (
        Column("Machine"), Column("Refrigerant"), Column("Charge, kg", 1, numeric=True), Column("GWP", 1, numeric=True),
        Column("Checked on"), Column("Leaked since the check before, kg", 2, numeric=True),
    )  # fmt: skip
    kind = RegisterKind.REFRIGERANTS
    used = books.refrigerants_in_use(report.data, report.period)
    rows = [
        (
            Name(row["equipment"]), Name(row["refrigerant"]), row["charge_kg"], row["gwp"], row["measured_on"],
            row["leaked_kg"],
        )
        for row in used.iter_rows(named=True)
    ]  # fmt: skip
    text = "The latest check of each machine up to the period's end."
    nothing = _nothing(report, kind)
    return Table(key="refrigerants", title="Refrigerants", columns=columns, rows=rows, text=text, nothing=nothing)


def _renewables_chart(report: SustainabilityReport) -> Chart:
    known = {kpi.definition.key: kpi.value for kpi in report.kpis}
    parts = [("Site energy", known["site_energy"])]
    for label, instrument in (
        ("Guarantees of origin", "go"), ("Purchase agreements", "ppa"), ("On-site generation", "onsite"),
    ):  # fmt: skip
        parts.append((label, renewable_energy(report.of, instrument).value))
    return renewables_chart(pl.DataFrame(parts, schema={"label": pl.String(), "mwh": pl.Float64()}, orient="row"))


def _ledger(report: SustainabilityReport) -> Table:
    columns = (
        Column("Certificate"), Column("Instrument"), Column("Technology"), Column("Country"),
        Column("MWh", 1, numeric=True), Column("Counts here, MWh", 1, numeric=True), Column("Cancellation"),
        Column("Cancelled on"), Column("Verdict"),
    )  # fmt: skip
    rows = [
        (
            Name(one.number), one.instrument, one.technology, Name(one.country), one.mwh, one.counted_mwh,
            Name(one.cancellation or "\u2013"), one.cancelled_on, one.verdict,
        )
        for one in report.of.certificates
    ]  # fmt: skip
    kind = RegisterKind.GUARANTEES_OF_ORIGIN
    return Table(
        key="certificates", title="Ledger of certificates", columns=columns, rows=rows, nothing=_nothing(report, kind)
    )


def _factors(report: SustainabilityReport) -> Table:
    columns = (
        Column("Method"), Column("Publisher"), Column("Version"), Column("Year"), Column("g/kWh", 1, numeric=True),
        Column("Gases"),
    )  # fmt: skip
    found = (("location-based", report.of.location_factor), ("residual mix", report.of.residual_factor))
    rows = [
        (
            (method, Name(factor.publisher), Name(factor.version), Name(str(factor.year)), factor.grams_per_kwh,
             Name(factor.gases))
            if factor else (method, None, None, None, Blank(), None)
        )
        for method, factor in found
    ]  # fmt: skip
    return Table(key="factors", title="Emission factors of electricity", columns=columns, rows=rows)


def _registration(report: SustainabilityReport) -> Table:
    columns = (Column("Entry"), Column("Value"), Column("Unit"), Column("Why it is blank"))
    rows = [(one.title, _value(one.value), one.unit, one.reason) for one in report.registrations]
    text = (
        "What Nkom registers of data centres of 0.5 MW and more. Whether the EU's rules bind in Norway is stated by "
        "the register site_facts, not by this report."
    )
    return Table(key="registration", title="", columns=columns, rows=rows, text=text)


def _meters(report: SustainabilityReport) -> Table:
    columns = (
        Column("Meter"), Column("Role"), Column("Class"), Column("Calibrated"), Column("MWh", 2, numeric=True),
        Column("Observed, %", 2, numeric=True, percentage=True), Column("Estimated, %", 2, numeric=True),
    )  # fmt: skip
    meters = report.of.energies.heat.meters.sort("role", "name")
    rows = [
        (
            Name(row["name"]), row["role"].replace("_", " "), _class(row), Name(row["calibrated_at"] or "\u2013"),
            Blank() if row["joules"] is None else row["joules"] / JOULES_PER_MWH, 100 * row["coverage"],
            None if row["share_estimated"] is None else 100 * row["share_estimated"],
        )
        for row in meters.iter_rows(named=True)
    ]  # fmt: skip
    text = "A class in brackets is assumed."
    return Table(key="meters", title="Meters", columns=columns, rows=rows, text=text)


def _class(row: dict[str, object]) -> Name:
    return Name(f"({row['class_used']})" if row["class_assumed"] else row["class_used"])


def _flags(report: SustainabilityReport) -> Table:
    columns = (
        Column("Meter"), Column("What"), Column("From"), Column("To"), Column("Booked, MWh", 3, numeric=True),
    )  # fmt: skip
    names = report.of.energies.heat.meters.select("resource", "name")
    local = report.period.local
    rows = [
        (
            Name(row["name"]), row["flag"], f"{local(row['start']):%-d %b %Y %H:%M}",
            f"{local(row['time']):%-d %b %Y %H:%M}", row["joules"] / JOULES_PER_MWH,
        )
        for row in report.flags.join(names, on="resource", maintain_order="left").iter_rows(named=True)
    ]  # fmt: skip
    return Table(
        key="flags", title="Gaps, resets and other events", columns=columns, rows=rows, shown=30,
        nothing="No gap, reset or other event.",
    )  # fmt: skip


def _registers(report: SustainabilityReport) -> Table:
    columns = (
        Column("Register"), Column("Version"), Column("Imported on"), Column("Answered for by"), Column("Evidence"),
        Column("SHA-256 of the evidence"),
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    for kind in USED_REGISTERS:
        versions = report.data.versions.filter(pl.col("kind") == kind.value)
        if versions.is_empty():
            rows.append((Name(kind.value), NOT_IMPORTED, None, None, None, Blank()))
        rows += [
            (
                Name(kind.value), Name(str(row["number"])), row["imported_at"].date(), Name(row["imported_by"]),
                Name(row["evidence_name"]), Name(f"{row['evidence_sha256'][:16]}…"),
            )
            for row in versions.iter_rows(named=True)
        ]  # fmt: skip
    return Table(key="registers", title="Registers", columns=columns, rows=rows)
