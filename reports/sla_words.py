"""What an SLA report says of terms, times and verdicts in words; pure functions to plain text."""

from collections.abc import Iterator
from datetime import timedelta
from fractions import Fraction

from reports.figures import THIN_SPACE
from reports.period import Period, Span
from reports.render import DASH, number, percent, period_title
from reports.sla import ContractReport, CustomerReport
from reports.sla_account import Counts
from reports.sla_terms import Cause, Terms, UnitKind, UnknownCounts

UNIT_WORDS = {UnitKind.GPU: "GPU", UnitKind.NODE: "node", UnitKind.RACK: "rack"}
COUNT_WORDS = {
    Counts.UP: "Up",
    Counts.DOWN: "Down",
    Counts.SHORT: "Outage too short to count",
    Counts.EXCLUDED: "Left out",
}


def agreed(value: Fraction) -> str:
    """A share as a contract writes it: 99.5 %, with as many digits as it has."""
    return f"{float(100 * value):.6f}".rstrip("0").rstrip(".") + f"{THIN_SPACE}%"


def lasting(length: timedelta | None) -> str:
    """14 s, 3 min 20 s, 2 h 05 min, 8 h, 1 d 4 h, 3 d."""
    if length is None:
        return DASH
    seconds = round(length.total_seconds())
    minutes, rest = divmod(seconds, 60)
    if minutes < 1:
        return f"{seconds} s"
    if minutes < 60:
        return f"{minutes} min {rest:02} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def verdict(report: ContractReport) -> str:
    if report.is_kept is None:
        return "cannot be told"
    return "kept" if report.is_kept else "missed"


def subject(report: ContractReport, customer: CustomerReport) -> str:
    """What a line of terms is called: its contract, with its first day where terms change within the period."""
    contract = report.terms.contract
    lines = [one for one in customer.contracts if one.terms.contract == contract]
    first = customer.period.local(report.terms.start)
    return contract if len(lines) == 1 else f"{contract} from {first:%Y-%m-%d}"


def term_pairs(terms: Terms, period: Period) -> Iterator[tuple[str, str]]:
    """Each term and what was agreed."""
    unit = UNIT_WORDS[terms.unit]
    trays = f", {terms.minimum_trays} trays of a rack" if terms.minimum_trays else ""
    yield "Agreed", f"{agreed(terms.target)} by {unit}{trays}"
    yield "Credit tiers", _tiers(terms)
    yield "Outages count from", lasting(terms.minimum_outage)
    yield "Left out", _exclusions(terms)
    silent = "is left out" if terms.unknown is UnknownCounts.EXCLUDED else f"counts as {terms.unknown}"
    yield "Time without telemetry", silent
    price = f"{number(terms.unit_price, 2)} {terms.currency} per {unit} and month"
    yield "Price", "not registered" if terms.unit_price is None else price
    yield "Terms from", f"{period.local(terms.start):%-d %b %Y}"


def _tiers(terms: Terms) -> str:
    tiers = "; ".join(f"below {agreed(tier.below)}: {agreed(tier.credit)}" for tier in terms.tiers)
    return f"{tiers} (at most {agreed(terms.credit_cap)})" if terms.credit_cap < 1 else tiers


def _exclusions(terms: Terms) -> str:
    if not terms.exclusions:
        return "nothing"
    text = ", ".join(sorted(cause.replace("_", " ") for cause in terms.exclusions))
    if Cause.MAINTENANCE in terms.exclusions and terms.notice:
        text += f"; maintenance announced {lasting(terms.notice)} before"
    if terms.maintenance_cap is not None:
        text += f", at most {lasting(terms.maintenance_cap)} a unit"
    return text


def summary_of(report: CustomerReport) -> str:
    """One sentence in plain words."""
    told = [one for one in report.contracts if one.is_kept is not None]
    when = f"{'on' if report.period.span is Span.DAY else 'in'} {period_title(report.period)}"
    if not told:
        return f"Whether the agreed availability was kept {when} cannot be told: nothing is allocated."
    sentence = f"{_outcome(told, report)} {when}{'' if report.complete else ' so far'}"
    if report.period.span is not Span.MONTH:
        return f"{sentence}. Credits are of whole months."
    due = [one for one in told if one.credit]
    return f"{sentence}; a credit of {_credits(due)} is due." if due else f"{sentence}; no credit is due."


def _outcome(told: list[ContractReport], report: CustomerReport) -> str:
    missed = [one for one in told if not one.is_kept]
    if missed:
        return f"The agreed availability was missed under {', '.join(subject(one, report) for one in missed)}"
    return "The agreed availability was kept" if len(told) == 1 else "All agreed availabilities were kept"


def _credits(due: list[ContractReport]) -> str:
    """In money where every price is known, else as shares of prices."""
    money: dict[str, float] = {}
    for one in due:
        if one.credit_money is None:
            return ", ".join(f"{percent(float(x.credit or 0), 2)} of the price of {x.terms.contract}" for x in due)
        money[one.terms.currency] = money.get(one.terms.currency, 0.0) + one.credit_money
    return " and ".join(f"{number(value, 2)} {currency}" for currency, value in sorted(money.items()))
