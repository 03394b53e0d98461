"""The key figures of an SLA contract: availability, credit, error budget, times between failures and to repair."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from fractions import Fraction

from reports.efficiency_hours import Health
from reports.figures import Definition, Evidence, Kpi, counted
from reports.sla_account import Sums
from reports.sla_definitions import definitions
from reports.sla_outages import Outage
from reports.sla_terms import Terms
from reports.sweep import HOUR_MS

NINES = 4  # decimals by which contracts tell nines apart: 99.99 % of a month is 4 minutes
_AVAILABILITIES = ("technical", "contractual")


def contract_figures(
    terms: Terms,
    whole: Sums,
    credit: Fraction | None,
    money: float | None,
    outages: Sequence[Outage],
    days: Iterable[Sums],
) -> Iterator[Kpi]:
    """The key figures of a contract over all of its units; `days` are the same by the parts of the period."""
    words = definitions()
    share = whole.seen_share
    evidence = None if share is None else Evidence(coverage=float(share), share_estimated=0.0)
    nothing = "No unit was covered in the period."
    highest = whole.technical_at_most
    note = f"At most {_percent(highest)} % if all unknown time was good." if whole.health_ms[Health.UNKNOWN] else ""
    yield _share_kpi(words["contractual"], whole.contractual, evidence, nothing, f"Agreed: {_percent(terms.target)} %.")
    yield _share_kpi(words["technical"], whole.technical, evidence, nothing, note)
    no_credit = "Credits are of whole months." if whole.total_ms else nothing
    yield _share_kpi(words["credit"], credit, evidence, no_credit)
    if terms.unit_price is not None:
        of_money = evidence if money is not None else None
        yield Kpi(words["credit_money"], money, terms.currency, of_money, no_credit, digits=2)
    yield from _budget(words, 1 - terms.target, whole, days, evidence, nothing)
    yield from _reliability(words, whole, outages, evidence)


def _budget(
    words: Mapping[str, Definition],
    allowed: Fraction,
    whole: Sums,
    days: Iterable[Sums],
    evidence: Evidence | None,
    nothing: str,
) -> Iterator[Kpi]:
    """How much of the error budget is spent, and how fast at worst; `allowed` is the share of time that may be lost."""
    if allowed == 0:
        no_budget = "The target is 100 %: there is no budget."
        yield Kpi.blank(words["budget"], no_budget)
        yield Kpi.blank(words["burn"], no_budget)
        return
    spent = None if whole.contractual is None else (1 - whole.contractual) / allowed
    yield _share_kpi(words["budget"], spent, evidence, nothing, _left(whole, allowed))
    worst = max((1 - day.contractual for day in days if day.contractual is not None), default=None)
    burn = None if worst is None else float(worst / allowed)
    yield Kpi(words["burn"], burn, "", None if burn is None else evidence, nothing, digits=_digits(burn))


def _left(whole: Sums, allowed: Fraction) -> str:
    left_h = (allowed * (whole.up_ms + whole.down_ms) - whole.down_ms) / HOUR_MS
    return f"{float(abs(left_h)):.1f} unit-hours {'left' if left_h >= 0 else 'over it'}."


def _share_kpi(
    words: Definition, share: Fraction | None, evidence: Evidence | None, reason: str, note: str = ""
) -> Kpi:
    if share is None:
        return Kpi.blank(words, reason)
    percentage = float(100 * share)
    digits = NINES if words.key in _AVAILABILITIES and 99 < percentage < 100 else 2
    return Kpi(words, percentage, words.unit, evidence, note=note, digits=digits)


def _digits(value: float | None) -> int:
    return 1 if value is not None and value >= 10 else 2


def _percent(share: Fraction | None) -> str:
    return "" if share is None else f"{float(100 * share):.4f}".rstrip("0").rstrip(".")


def _reliability(
    words: Mapping[str, Definition], whole: Sums, outages: Sequence[Outage], evidence: Evidence | None
) -> Iterator[Kpi]:
    failures = sum(outage.is_failure for outage in outages)
    working_h = whole.working_ms / HOUR_MS
    if failures:
        mtbf_h = working_h / failures
        yield Kpi(words["mtbf"], mtbf_h, "h", evidence, note=f"{counted(failures, 'failure')}.", digits=_digits(mtbf_h))
    else:
        yield Kpi.blank(words["mtbf"], f"No failure in {working_h:,.0f} working hours of all units.")
    repaired = [outage.phases.total for outage in outages if outage.phases]
    if repaired:
        mttr_h = sum(repaired, timedelta(0)) / len(repaired) / timedelta(hours=1)
        yield Kpi(words["mttr"], mttr_h, "h", evidence, note=f"Mean of {counted(len(repaired), 'failure')}.", digits=2)
    else:
        yield Kpi.blank(words["mttr"], "No failure was seen from begin to end.")
