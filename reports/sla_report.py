"""Writes SLA reports: each customer's page, document and evidence of every outage, and the operator's summary.

sla-2026-10/summary.html, summary.json                for the operator alone
sla-2026-10/<customer>/sla-2026-10.html, .json        for that customer
sla-2026-10/<customer>/evidence/outage-<key>.json     what shows each outage, and its SHA-256
"""

import json
import re
import unicodedata
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from reports.efficiency_hours import Health
from reports.figures import THIN_SPACE, Kpi
from reports.period import Period, Span
from reports.render import DASH, number, percent, period_title, template_environment
from reports.sla import ContractReport, CustomerReport, PhaseLine, SlaReport, UnitLine, build_sla, read_sla
from reports.sla_account import Counts, Sums
from reports.sla_definitions import definitions
from reports.sla_outages import Outage
from reports.sla_terms import Terms, UnitKind
from storage.reader import Reader

SCHEMA = "kvandal.sla/1"
SUMMARY_SCHEMA = "kvandal.sla.summary/1"
EVIDENCE_SCHEMA = "kvandal.sla.evidence/1"
# A page lists this many units and outages of a contract; all are in the JSON.
LINES_SHOWN = 25

_NAME_LETTERS = 40
_DIGEST_LETTERS = 12
# Categories of Unicode that show nothing, or change how their neighbours are shown.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_HOUR = timedelta(hours=1)
_UNITS = {UnitKind.GPU: "GPU", UnitKind.NODE: "node", UnitKind.RACK: "rack"}


class UnknownCustomerError(ValueError):
    """There is no contract with such a customer; the message says with whom there are."""


def write_sla_report(
    reader: Reader,
    period: Period,
    out_dir: Path,
    *,
    now: datetime,
    customer: str | None = None,
    known_at: datetime | None = None,
) -> tuple[Path, SlaReport]:
    """Write the reports of all customers and the operator's summary, or those of one customer alone.

    Returns the path of the summary, or of the customer's page. Older ones are replaced. Raises
    UnknownCustomerError, ValueError as `read_sla` and `build_sla` do, the store's errors, and OSError from the disk.
    """
    report = build_sla(read_sla(reader, period, now, known_at=known_at), period, now=now)
    folder = out_dir / f"sla-{period.text}"
    if customer is not None:
        return write_customer(_customer(report, customer), folder), report
    for one in report.customers:
        write_customer(one, folder)
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / "summary.json", _text(summary_document(report)))
    return _replace(folder / "summary.html", render_summary(report)), report


def _customer(report: SlaReport, name: str) -> CustomerReport:
    for one in report.customers:
        if one.party == name:
            return one
    known = ", ".join(repr(one.party) for one in report.customers) or "none"
    raise UnknownCustomerError(
        f"no SLA contract with {name!r} in {report.period.text}; there are contracts with: {known}"
    )


def write_customer(report: CustomerReport, folder: Path) -> Path:
    """Write one customer's page, document and evidence below `folder`; returns the page's path."""
    own = folder / folder_name(report.party)
    evidence = own / "evidence"
    evidence.mkdir(parents=True, exist_ok=True)
    kept = {_replace(evidence / file_name(outage), _text(evidence_document(outage))).name for outage in report.outages}
    for stale in evidence.glob("outage-*.json"):
        if stale.name not in kept:
            stale.unlink()
    page = own / f"sla-{report.period.text}.html"
    _replace(page.with_suffix(".json"), _text(customer_document(report)))
    return _replace(page, render_customer(report))


def folder_name(party: str) -> str:
    """A folder for a customer: readable, the same each time, and one that no other name has or leads out of.

    Whatever the name holds, only small letters, digits and hyphens are left; a digest of it tells names apart.
    """
    plain = unicodedata.normalize("NFKD", party).encode("ascii", "ignore").decode().lower()
    readable = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:_NAME_LETTERS].strip("-")
    return f"{readable or 'customer'}-{sha256(party.encode()).hexdigest()[:_DIGEST_LETTERS]}"


def file_name(outage: Outage) -> str:
    return f"outage-{outage.key}.json"


def _replace(path: Path, text: str) -> Path:
    draft = path.with_name(path.name + ".part")
    draft.write_text(text, encoding="utf-8")
    return draft.replace(path)


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


# Pages ---------------------------------------------------------------------------------------------------------------


def render_customer(report: CustomerReport) -> str:
    """A customer's page; it needs nothing else. Every text is escaped, only charts go in as markup."""
    return (
        _environment()
        .get_template("sla.html")
        .render(
            report=report,
            title=period_title(report.period),
            shown=LINES_SHOWN,
            definitions=definitions(),
            summary=summary_of(report),
        )
    )


def render_summary(report: SlaReport) -> str:
    """The operator's page."""
    folders = {one.party: folder_name(one.party) for one in report.customers}
    return (
        _environment()
        .get_template("sla_summary.html")
        .render(report=report, title=period_title(report.period), folders=folders, states=list(Health))
    )


def _environment() -> Environment:
    environment = template_environment()
    environment.finalize = printable
    environment.filters |= {
        "share": share,
        "lasting": lasting,
        "agreed": agreed,
        "hours": lambda ms: number(ms / 3_600_000, 2),
        "evidence_file": file_name,
        "sha256": lambda outage: outage.evidence_sha256,
        "card_figure": card_figure,
        "unit": lambda kind: _UNITS[kind],
        "words": lambda term: str(term).replace("_", " "),
    }
    return environment


def printable(value: object) -> object:
    """Text with what cannot be seen made visible: a name must not turn round, hide or break what stands beside it."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(
        "\ufffd" if unicodedata.category(letter) in _UNSEEN and letter != "\n" else letter for letter in value
    )


def share(value: Fraction | None, digits: int = 3) -> str:
    """An availability in percent: never rounded up to 100 %."""
    return percent(None if value is None else float(value), digits)


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


def card_figure(kpi: Kpi) -> str:
    """A key figure; availability has the digits by which contracts tell nines apart, and is not rounded up to 100."""
    if kpi.value is None:
        return DASH
    if kpi.definition.key in ("technical", "contractual"):
        return percent(kpi.value / 100, 4 if 99 < kpi.value < 100 else 2).removesuffix(f"{THIN_SPACE}%")
    if kpi.definition.key in ("budget", "burn", "mtbf"):
        return number(kpi.value, 1 if kpi.value >= 10 else 2)
    return number(kpi.value, 2)


def summary_of(report: CustomerReport) -> str:
    """One sentence in plain words."""
    told = [one for one in report.contracts if one.is_kept is not None]
    when = f"{'on' if report.period.span is Span.DAY else 'in'} {period_title(report.period)}"
    if not told:
        return f"Whether the agreed availability was kept {when} cannot be told: nothing is allocated."
    missed = [one for one in told if not one.is_kept]
    so_far = "" if report.complete else " so far"
    if not missed:
        first = "The agreed availability was kept" if len(told) == 1 else "All agreed availabilities were kept"
    else:
        names = ", ".join(one.terms.contract for one in missed)
        first = f"The agreed availability was missed under {names}"
    sentence = f"{first} {when}{so_far}"
    if report.period.span is not Span.MONTH:
        return f"{sentence}. Credits are of whole months."
    due = [one for one in told if one.credit]
    if not due:
        return f"{sentence}; no credit is due."
    money: dict[str, float] = {}
    for one in due:
        if one.credit_money is not None:
            money[one.terms.currency] = money.get(one.terms.currency, 0.0) + one.credit_money
    if len(due) == len([one for one in due if one.credit_money is not None]):
        sums = " and ".join(f"{number(value, 2)} {currency}" for currency, value in sorted(money.items()))
        return f"{sentence}; a credit of {sums} is due."
    shares = ", ".join(f"{percent(float(one.credit or 0), 2)} of the price of {one.terms.contract}" for one in due)
    return f"{sentence}; a credit of {shares} is due."


# Documents -----------------------------------------------------------------------------------------------------------


def customer_document(report: CustomerReport) -> dict[str, Any]:
    """A customer's report as JSON: times RFC 3339 in UTC, durations in seconds, shares of 1."""
    return {
        "schema": SCHEMA,
        "customer": report.party,
        **_head(report),
        "summary": summary_of(report),
        "contracts": [_contract(one) for one in report.contracts],
    }


def summary_document(report: SlaReport) -> dict[str, Any]:
    """The operator's summary as JSON."""
    return {
        "schema": SUMMARY_SCHEMA,
        **_head(report),
        "gpus": report.gpus,
        "fleet_seconds": {state.value: ms / 1000 for state, ms in report.fleet_ms.items()},
        "customers": [
            {
                "customer": customer.party,
                "folder": folder_name(customer.party),
                "contracts": [_summary_line(one) for one in customer.contracts],
            }
            for customer in report.customers
        ],
        "problems": list(report.problems),
    }


def evidence_document(outage: Outage) -> dict[str, Any]:
    """The evidence of one outage. `sha256` is that of its rows as canonical JSON; see `sla_outages.canonical`."""
    return {
        "schema": EVIDENCE_SCHEMA,
        "outage": _outage_times(outage),
        "rows": [asdict(row) for row in outage.evidence],
        "sha256": outage.evidence_sha256,
    }


def _head(report: CustomerReport | SlaReport) -> dict[str, Any]:
    period = report.period
    return {
        "site": report.site,
        "period": {
            "text": period.text,
            "zone": period.zone,
            "start": _time(period.start),
            "end": _time(period.end),
            "reported_until": _time(report.window.end),
            "complete": report.complete,
        },
        "generated_at": _time(report.generated_at),
        "registers_known_at": _time(report.known_at),
        "software": report.software,
    }


def _summary_line(report: ContractReport) -> dict[str, Any]:
    return {
        "contract": report.terms.contract,
        "unit": report.terms.unit.value,
        "units": len(report.units),
        "target": float(report.terms.target),
        "kept": report.is_kept,
        "technical_availability": _float(report.sums.technical),
        "contractual_availability": _float(report.sums.contractual),
        "seen_share": _float(report.sums.seen_share),
        "outages": len(report.outages),
        "credit": _float(report.credit),
        "credit_money": report.credit_money,
        "currency": report.terms.currency,
        "reason": report.reason,
    }


def _contract(report: ContractReport) -> dict[str, Any]:
    return {
        **_summary_line(report),
        "technical_availability_at_most": _float(report.sums.technical_at_most),
        "terms": _terms(report.terms),
        "seconds": _seconds(report.sums),
        "figures": [_figure(kpi) for kpi in report.kpis],
        "repair": [_phase(line) for line in report.phases],
        "unit_lines": [_unit(line) for line in report.units],
        "outage_lines": [_outage(outage) for outage in report.outages],
    }


def _terms(terms: Terms) -> dict[str, Any]:
    return {
        "start": _time(terms.start),
        "end": _time(terms.end),
        "minimum_outage_s": terms.minimum_outage.total_seconds(),
        "tiers": [{"below": float(tier.below), "credit": float(tier.credit)} for tier in terms.tiers],
        "credit_cap": float(terms.credit_cap),
        "exclusions": sorted(cause.value for cause in terms.exclusions),
        "notice_hours": terms.notice / _HOUR,
        "maintenance_cap_hours": None if terms.maintenance_cap is None else terms.maintenance_cap / _HOUR,
        "unknown_counts_as": terms.unknown.value,
        "rack_minimum_trays": terms.minimum_trays,
        "unit_price": terms.unit_price,
        "registered": terms.registered,
    }


def _seconds(sums: Sums) -> dict[str, Any]:
    return {
        "covered": sums.total_ms / 1000,
        "by_state": {state.value: sums.health_ms[state] / 1000 for state in Health},
        "by_contract": {word.value: sums.counts_ms[word] / 1000 for word in Counts},
    }


def _unit(line: UnitLine) -> dict[str, Any]:
    return {
        "unit": line.name,
        "technical_availability": _float(line.sums.technical),
        "technical_availability_at_most": _float(line.sums.technical_at_most),
        "contractual_availability": _float(line.sums.contractual),
        "seconds": _seconds(line.sums),
        "outages": line.outages,
        "credit": _float(line.credit),
    }


def _outage_times(outage: Outage) -> dict[str, Any]:
    return {
        "key": outage.key,
        "unit": outage.unit,
        "start": _time(outage.start),
        "end": _time(outage.end),
        "began_before": outage.began_before,
        "goes_on": outage.goes_on,
    }


def _outage(outage: Outage) -> dict[str, Any]:
    phases = outage.phases
    return {
        **_outage_times(outage),
        "down_s": outage.down_ms / 1000,
        "unknown_s": outage.unknown_ms / 1000,
        "excluded_s": outage.excluded_ms / 1000,
        "counted_s": outage.counted_ms / 1000,
        "reasons": list(outage.reasons),
        "phases": None
        if phases is None
        else {
            "detect_s": phases.detect.total_seconds(),
            "drain_s": phases.drain.total_seconds(),
            "repair_s": phases.repair.total_seconds(),
            "validate_s": None if phases.validate is None else phases.validate.total_seconds(),
        },
        "evidence_file": f"evidence/{file_name(outage)}",
        "evidence_sha256": outage.evidence_sha256,
    }


def _phase(line: PhaseLine) -> dict[str, Any]:
    return {
        "phase": line.name,
        "mean_s": None if line.mean is None else line.mean.total_seconds(),
        "failures": line.failures,
    }


def _figure(kpi: Kpi) -> dict[str, Any]:
    words = kpi.definition
    return {
        "key": words.key,
        "title": words.title,
        "value": kpi.value,
        "unit": kpi.unit,
        "coverage": kpi.evidence.coverage if kpi.evidence else None,
        "quality": kpi.quality.value,
        "reason": kpi.reason,
        "note": kpi.note,
        "boundary": words.boundary,
        "method": words.method,
        "source": words.source,
    }


def _float(value: Fraction | None) -> float | None:
    return None if value is None else float(value)


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
