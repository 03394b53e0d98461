"""The site report as one HTML page that needs nothing else: no network, no script."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from reports.balance import BalanceLine, HeatLine
from reports.figures import THIN_SPACE, Kpi
from reports.period import Period

# A page lists this many flags; the rest is counted.
FLAGS_SHOWN = 40

MINUS = "\u2212"
DASH = "\u2013"
TINY = 1e-3  # three decimals leave less than one digit of what is smaller
_RAISED = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")
_PER_JOULE = "1/J"  # of a yield per joule the first digits count, however small it is; a tiny energy is nothing


@dataclass(frozen=True, slots=True)
class PipelineCounts:
    """What became of the readings on their way from the agents to the store."""

    produced: int
    stored: int
    lost: int
    duplicated: int


@dataclass(frozen=True, slots=True)
class MeterLine:
    """One meter's evidence."""

    name: str
    role: str
    accuracy_class: str
    class_assumed: bool
    measured_at: str
    mwh: float | None
    coverage: float
    share_estimated: float
    gaps: int
    longest_gap_s: float
    resets: int
    rollovers: int
    implausible: int


@dataclass(frozen=True, slots=True)
class FlagLine:
    """One thing that was not plain, in local time."""

    meter: str
    flag: str
    start: datetime
    end: datetime
    mwh: float


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing; `svg` is absent when there is nothing to draw. `text` says what it shows."""

    title: str
    text: str
    svg: str | None
    wide: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteReport:
    """Everything that the page says."""

    site: str
    period: Period
    category: str
    cut_off: datetime | None
    generated_at: datetime
    software: str
    summary: str
    complete: bool
    kpis: Sequence[Kpi]
    charts: Sequence[Chart]
    balance: Sequence[BalanceLine]
    heat: Sequence[HeatLine]
    meters: Sequence[MeterLine]
    flags: Sequence[FlagLine]
    counts: PipelineCounts | None


def render_html(report: SiteReport) -> str:
    """The page. Every text is escaped; only the charts, whose texts Vega has escaped, go in as markup."""
    template = template_environment().get_template("site.html")
    return template.render(
        report=report,
        flags=report.flags[:FLAGS_SHOWN],
        flags_left=max(0, len(report.flags) - FLAGS_SHOWN),
        title=period_title(report.period),
    )


def period_title(period: Period) -> str:
    """October 2026; 5 October 2026; 2026."""
    forms: Mapping[str, str] = {"day": "%-d %B %Y", "month": "%B %Y", "year": "%Y"}
    return period.local(period.start).strftime(forms[period.span])


def number(value: float | None, digits: int | None = None) -> str:
    """A number for people: thin spaces between thousands, a true minus; a dash when it is absent."""
    if value is None:
        return DASH
    text = f"{value:,.{digits_of(value) if digits is None else digits}f}"
    if not text.strip("-0.,"):
        text = text.removeprefix("-")  # what rounds to nothing has no sign
    return text.replace(",", THIN_SPACE).replace("-", MINUS)


def digits_of(value: float) -> int:
    """Decimals that leave about four significant digits, at most three."""
    magnitude = abs(value)
    return 3 if magnitude < 10 else 2 if magnitude < 100 else 1 if magnitude < 10_000 else 0


def digits_of_uncertainty(plus_minus: float) -> int:
    """Decimals that leave two significant digits of an uncertainty (JCGM 100:2008, 7.2.6), at most four."""
    if plus_minus <= 0:
        return 3
    return min(max(1 - math.floor(math.log10(plus_minus)), 0), 4)


def figure(kpi: Kpi) -> str:
    """A key figure to the digit that it says, or that its uncertainty leaves meaningful; 99.99 % is never 100 %."""
    if kpi.value is not None and _is_tiny_yield(kpi):
        return scientific(kpi.value)
    digits = figure_digits(kpi)
    if kpi.unit == "%" and kpi.value is not None:
        return number(below_whole(kpi.value, digits), digits)
    return number(kpi.value, digits)


def figure_digits(kpi: Kpi) -> int | None:
    """Decimals of a key figure and of its uncertainty; None for as many as suit the value."""
    if _is_tiny_yield(kpi):
        return None
    return kpi.digits if kpi.plus_minus is None else digits_of_uncertainty(kpi.plus_minus)


def _is_tiny_yield(kpi: Kpi) -> bool:
    return kpi.value is not None and kpi.unit == _PER_JOULE and 0 < abs(kpi.value) < TINY


def scientific(value: float) -> str:
    """0.043; 2.1 x 10 to the -7 as people write it."""
    if value == 0 or abs(value) >= TINY:
        return number(value, 3)
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa.replace('-', MINUS)} · 10{str(int(exponent)).translate(_RAISED)}"


def below_whole(percentage: float, digits: int | None) -> float:
    """A percentage that rounding must not make a whole one."""
    places = digits_of(percentage) if digits is None else digits
    whole = percentage < 100 and round(percentage, places) >= 100
    return 100 - 10**-places if whole else percentage


def margin(kpi: Kpi) -> str:
    """The uncertainty of a key figure, empty when there is none; what is not 0 is never shown as 0."""
    plus_minus, digits = kpi.plus_minus, figure_digits(kpi)
    if plus_minus is None:
        return ""
    if _is_tiny_yield(kpi):
        return scientific(plus_minus)
    if digits and 0 < plus_minus < 0.5 * 10**-digits:
        return f"<{THIN_SPACE}{number(10**-digits, digits)}"
    return number(plus_minus, digits)


def percent(share: float | None, digits: int = 1) -> str:
    """A share as a percentage, never rounded up to 100 % when something is missing."""
    if share is None:
        return DASH
    return f"{number(below_whole(100 * share, digits), digits)}{THIN_SPACE}%"


def duration(seconds: float) -> str:
    """3 min, 2 h 05 min, 1 d 4 h."""
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min" if minutes else f"{seconds:.0f} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def template_environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "figure": figure,
        "margin": margin,
        "number": number,
        "percent": percent,
        "duration": duration,
        "scientific": scientific,
        "drawing": lambda svg: Markup(svg),  # noqa: S704 - written by Vega, which escapes every text
    }
    return environment
