"""The sustainability report as a publication, in English and Norwegian."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

import polars as pl

from reports.figures import Kpi
from reports.period import Period, Span
from reports.publishing.parts import meter_inputs
from reports.publishing.publication import Input, Language, Name, Publication
from reports.render import figure, percent, period_title
from reports.sustainability.inputs import USED_REGISTERS, SustainabilityData, read_sustainability
from reports.sustainability.norwegian import norwegian
from reports.sustainability.report import SustainabilityReport, build_report, document
from reports.sustainability.sections import facts, sections
from storage.reader import Reader


def read_sustainability_publication(reader: Reader, period: Period, now: datetime) -> Publication:
    """The sustainability report of a month or a year.

    ValueError for a day, of which no such report is made; StoreUnavailableError, StoreRefusedError.
    """
    if period.span is Span.DAY:
        raise ValueError(f"period is {period.text}; a sustainability report is of a month or a year")
    return sustainability_publication(build_report(read_sustainability(reader, period, now), period, now=now))


def sustainability_publication(report: SustainabilityReport) -> Publication:
    return Publication(
        report="sustainability",
        kicker="Sustainability report",
        site=Name(report.site),
        period=report.period,
        complete=report.complete,
        generated_at=report.generated_at,
        software=report.software,
        summary=summary(report),
        facts=facts(report),
        sections=tuple(sections(report)),
        figures=(*report.kpis, *_trailing_figures(report)),
        document=document(report),
        inputs=(*meter_inputs(report.of.energies.heat.meters), *_register_inputs(report.data)),
        notices=tuple(_notices(report)),
        problems=report.data.problems,
        translations={Language.NORWEGIAN: norwegian},
    )


def _notices(report: SustainabilityReport) -> Iterator[str]:
    blanks = sum(one.value is None and not one.is_optional for one in report.indicators)
    if blanks:
        yield f"{blanks} of {len(report.indicators)} EU indicators are not available; each says why."


def _trailing_figures(report: SustainabilityReport) -> tuple[Kpi, ...]:
    """The figures of twelve months beside those of a month, under keys of their own."""
    if report.period.span is Span.YEAR:
        return ()
    return tuple(_as_trailing(kpi) for kpi in report.year)


def _as_trailing(kpi: Kpi) -> Kpi:
    words = kpi.definition
    return replace(kpi, definition=replace(words, key=f"trailing_{words.key}", title=f"{words.title}, twelve months"))


def _register_inputs(data: SustainabilityData) -> Iterator[Input]:
    """The latest version of each register: a restatement names the one that was imported anew."""
    for kind in USED_REGISTERS:
        latest = data.versions.filter(pl.col("kind") == kind.value).tail(1)
        for row in latest.iter_rows(named=True):
            text = f"version {row['number']} ({row['file_sha256'][:12]})"
            yield Input(kind="register", id=kind.value, name=kind.value, value=text)


def summary(report: SustainabilityReport) -> str:
    known = {kpi.definition.key: kpi for kpi in report.kpis if kpi.value is not None}
    title = period_title(report.period)
    if "site_energy" not in known:
        reason = next(kpi.reason for kpi in report.kpis if kpi.definition.key == "site_energy")
        return f"The energy of {report.site} in {title} cannot be told. {reason}"
    text = f"{report.site} used {figure(known['site_energy'])} MWh in {title}"
    if "pue" in known:
        text += f", at {known['pue'].definition.title.split(' ')[0]} {figure(known['pue'])}"
    if "erf" in known:
        text += f", and {percent(known['erf'].value)} of it served again as heat"
    return text + "."
