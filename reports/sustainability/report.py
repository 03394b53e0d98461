"""The sustainability report of a month or a year: from what was read to a publication. Pure but for the reading."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from reports import balance, figures
from reports.balance import BalanceLine
from reports.definitions import pue_category
from reports.figures import JOULES_PER_MWH, Kpi, Role
from reports.period import Period, Span
from reports.publishing.documents import figure_document, period_document, time_text
from reports.readings import moment
from reports.site import software
from reports.sustainability import books, eed_2024_1364
from reports.sustainability.calendar import months_before
from reports.sustainability.eed_2024_1364 import Indicator
from reports.sustainability.inputs import (
    SustainabilityData,
    energies,
    trailing,
)
from reports.sustainability.key_figures import Window, key_figures, only_if_covered, window
from reports.sustainability.registration import Registration, registrations

SCHEMA = "kvandal.sustainability/1"
# Of twelve months so much must be there before their sum is one of twelve months.
_TWELVE = 12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SustainabilityReport:
    """Everything that the report says. `previous` and `year` are the figures of the period before and of twelve months.

    `months`: what `figures.by_part` gives of the twelve months; `versions`: of the registers.
    """

    site: str
    category: str
    of: Window
    complete: bool
    cut_off: datetime | None
    generated_at: datetime
    software: str
    kpis: Sequence[Kpi]
    previous: Sequence[Kpi]
    year: Sequence[Kpi]
    months: pl.DataFrame
    flags: pl.DataFrame
    balance: Sequence[BalanceLine]
    indicators: Sequence[Indicator]
    registrations: Sequence[Registration]

    @property
    def period(self) -> Period:
        return self.of.period

    @property
    def data(self) -> SustainabilityData:
        return self.of.data


def build_report(data: SustainabilityData, period: Period, *, now: datetime) -> SustainabilityReport:
    site = data.site_name or "Unnamed site"
    own = energies(data, period, of_period=True)
    year = energies(data, trailing(period), of_period=False)
    before = energies(data, _before(period), of_period=False)
    windows = [window(data, one, site, period.local(now).date()) for one in (own, before, year)]
    kpis, previous, of_year = (key_figures(one) for one in windows)
    measured_at = data.meters.filter(pl.col("role") == Role.IT)["measured_at"].to_list()
    return SustainabilityReport(
        site=site,
        category=pue_category(measured_at),
        of=windows[0],
        complete=now >= period.end,
        cut_off=_cut_off(data, period),
        generated_at=period.local(now),
        software=software(),
        kpis=kpis,
        previous=[only_if_covered(kpi) for kpi in previous],
        year=[only_if_covered(kpi) for kpi in of_year],
        months=figures.by_part(year.heat.account),
        flags=own.flags,
        balance=balance.energy_balance(own.heat.account),
        indicators=eed_2024_1364.indicators(windows[0], kpis),
        registrations=registrations(windows[0], kpis),
    )


def _before(period: Period) -> Period:
    """The month before a month, the year before a year."""
    months = 1 if period.span is Span.MONTH else _TWELVE
    start = period.local(months_before(period.start, months, period.zone))
    return Period.parse(f"{start:%Y-%m}" if period.span is Span.MONTH else f"{start:%Y}", period.zone)


def _cut_off(data: SustainabilityData, period: Period) -> datetime | None:
    latest = data.registers.filter(pl.col("time") <= moment(period.end))["time"].max()
    return period.local(latest) if isinstance(latest, datetime) else None


# The document ---------------------------------------------------------------------------------------------------------


def document(report: SustainabilityReport) -> dict[str, Any]:
    """All of it as JSON: `sustainability.schema.json` says what it looks like."""
    return {
        "schema": SCHEMA,
        "site": report.site,
        "period": period_document(report.period, complete=report.complete),
        "pue_category": report.category,
        "generated_at": time_text(report.generated_at),
        "cut_off": time_text(report.cut_off) if report.cut_off else None,
        "software": report.software,
        "figures": [figure_document(kpi) for kpi in report.kpis],
        "previous": [figure_document(kpi) for kpi in report.previous],
        "twelve_months": [figure_document(kpi) for kpi in report.year],
        "eed": {
            "schema": eed_2024_1364.SCHEMA,
            "indicators": [indicator_document(one) for one in report.indicators],
        },
        "certificates": [_certificate(one) for one in report.of.certificates],
        "emission_factors": {
            "location": _factor(report.of.location_factor),
            "residual": _factor(report.of.residual_factor),
        },
        "registrations": [
            {"key": one.key, "title": one.title, "value": one.value, "unit": one.unit, "reason": one.reason}
            for one in report.registrations
        ],
        "meters": [_meter(row) for row in report.of.energies.heat.meters.iter_rows(named=True)],
        "registers": [_version(row) for row in report.data.versions.iter_rows(named=True)],
        "problems": list(report.data.problems),
    }


def indicator_document(one: Indicator) -> dict[str, Any]:
    return {
        "number": one.number,
        "key": one.key,
        "title": one.title,
        "symbol": one.symbol,
        "value": one.value,
        "unit": one.unit,
        "optional": one.is_optional,
        "reason": one.reason,
        "source": one.source,
        "method": one.way,
    }


def _certificate(one: books.Certificate) -> dict[str, Any]:
    return {
        "certificate": one.number,
        "instrument": one.instrument,
        "technology": one.technology,
        "country": one.country,
        "mwh": one.mwh,
        "counted_mwh": one.counted_mwh,
        "verdict": one.verdict,
        "cancellation": one.cancellation,
        "cancelled_on": one.cancelled_on.isoformat() if one.cancelled_on else None,
    }


def _factor(found: books.Factor | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "grams_per_kwh": found.grams_per_kwh,
        "gases": found.gases,
        "publisher": found.publisher,
        "version": found.version,
        "year": found.year,
    }


def _meter(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "identity": row["identity"],
        "name": row["name"],
        "role": row["role"],
        "accuracy_class": row["class_used"],
        "class_assumed": row["class_assumed"],
        "calibrated_at": row["calibrated_at"] or None,
        "mwh": None if row["joules"] is None else row["joules"] / JOULES_PER_MWH,
        "coverage": row["coverage"],
        "share_estimated": row["share_estimated"],
    }


def _version(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "register": row["kind"],
        "version": row["number"],
        "imported_at": time_text(row["imported_at"].replace(tzinfo=UTC)),
        "imported_by": row["imported_by"],
        "file": row["file_name"],
        "file_sha256": row["file_sha256"],
        "evidence": row["evidence_name"],
        "evidence_sha256": row["evidence_sha256"],
    }
