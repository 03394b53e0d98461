"""Parts that the publications of several reports share."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeVar

import polars as pl

from reports.figures import JOULES_PER_MWH, Definition, Kpi
from reports.period import Period
from reports.publishing.publication import Input, Name, Pairs, Publication, Section

EVIDENCE_TEXT = (
    "± is the expanded uncertainty (k = 2). Observed is the share of the period in which readings came at their usual "
    "interval; from 99 % a figure counts as measured, from 95 % as measured with gaps, below as estimated."
)


class PagedReport(Protocol):
    """What a report with a page of its own has in common with the others."""

    @property
    def site(self) -> str: ...
    @property
    def period(self) -> Period: ...
    @property
    def complete(self) -> bool: ...
    @property
    def generated_at(self) -> datetime: ...
    @property
    def software(self) -> str: ...
    @property
    def summary(self) -> str: ...
    @property
    def kpis(self) -> Sequence[Kpi]: ...
    @property
    def problems(self) -> Sequence[str]: ...


Paged = TypeVar("Paged", bound=PagedReport)


def paged_publication(
    report: Paged,
    *,
    name: str,
    kicker: str,
    facts: Sequence[tuple[str, str]],
    sections: Sequence[Section],
    document: Mapping[str, Any],
    inputs: Sequence[Input],
    render_page: Callable[[Paged], str],
) -> Publication:
    """A report with a page of its own, which says that it is not frozen: a frozen one gets the page that all share."""
    return Publication(
        report=name,
        kicker=kicker,
        site=Name(report.site),
        period=report.period,
        complete=report.complete,
        generated_at=report.generated_at,
        software=report.software,
        summary=report.summary,
        facts=facts,
        sections=sections,
        figures=report.kpis,
        document=document,
        inputs=inputs,
        page=lambda seal: render_page(report) if seal is None else None,
        problems=report.problems,
    )


def period_facts(
    period: Period, *, cut_off: datetime | None, generated_at: datetime, software: str
) -> list[tuple[str, str]]:
    """What every report says of its time and making."""
    start, end = period.local(period.start), period.local(period.end)
    hours = f"{period.seconds / 3600:.0f}"
    return [
        ("Period", f"{start:%-d %b %Y %H:%M} to {end:%-d %b %Y %H:%M}, {hours} hours"),
        ("Time zone", Name(period.zone)),
        ("Data cut-off", f"{cut_off:%-d %b %Y %H:%M:%S %Z}" if cut_off else "no readings"),
        ("Generated", f"{generated_at:%-d %b %Y %H:%M %Z}"),
        ("Software", Name(software)),
    ]


def method_section(kpis: Sequence[Kpi]) -> Section:
    """What each key figure means: formula, boundary, source."""
    return Section(title="Method", blocks=[Pairs(method_pairs([kpi.definition for kpi in kpis]))])


def method_pairs(definitions: Sequence[Definition]) -> list[tuple[str, str]]:
    return [(words.title, _method(words)) for words in definitions]


def _method(words: Definition) -> str:
    return f"{words.method} Boundary: {words.boundary} Source: {words.source}."


def meter_inputs(meters: pl.DataFrame) -> tuple[Input, ...]:
    """What each meter counted; a restatement names the meter whose energy moved."""
    return tuple(
        Input(
            kind="meter",
            id=row["identity"],
            name=row["name"],
            value=None if row["joules"] is None else row["joules"] / JOULES_PER_MWH,
            unit="MWh",
        )
        for row in meters.iter_rows(named=True)
    )
