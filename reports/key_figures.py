"""All key figures of a period, of every report that has some, in one list: what is exported beside the pages."""

from dataclasses import replace
from datetime import datetime, timedelta

from catalogue.zone import zone_of
from reports import efficiency, efficiency_reading, heat_report, site
from reports.exposition import Figures
from reports.period import Period, Span
from storage.reader import Reader


def read_figures(reader: Reader, period: Period, now: datetime) -> Figures:
    """Key figures of energy, heat and efficiency. StoreUnavailableError, StoreRefusedError."""
    span = period.span.value
    # A day is read whole, as days are kept, and not by the hour, as a page of it shows it.
    read = replace(period, span=Span.MONTH) if period.span is Span.DAY else period
    of_fleet = efficiency_reading.read_efficiency(reader, read, now)
    of_site = site.build_report(of_fleet.site, read, now=now, counts=None, settings=site.ReportSettings())
    page = efficiency.build_efficiency(
        of_fleet, read, now=now, prices=None, tokens=None, settings=efficiency.EfficiencySettings()
    )
    heat = heat_report.build_heat_report(
        heat_report.read_heat(reader, read, now), read, now=now, settings=heat_report.HeatReportSettings()
    )
    return Figures(span, period.start, (*heat.kpis, *of_site.kpis, *page.kpis))


def last_periods(now: datetime, zone: str) -> tuple[Period, Period]:
    """Yesterday and the last whole month, which `kvandal keep` shows."""
    yesterday = now.astimezone(zone_of(zone)).date() - timedelta(days=1)
    return Period.parse(f"{yesterday}", zone), Period.last_month(now, zone)
