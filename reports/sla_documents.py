"""The SLA report as JSON: a customer's document, the evidence of each outage, and the operator's summary."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from fractions import Fraction
from hashlib import sha256
from typing import Any

from reports.efficiency_hours import Health
from reports.publishing.documents import figure_document, json_text, period_document, time_text
from reports.sla import ContractReport, CustomerReport, PhaseLine, SlaReport, UnitLine
from reports.sla_account import Counts, Sums
from reports.sla_outages import Outage
from reports.sla_terms import Terms
from reports.sla_words import summary_of

SCHEMA = "kvandal.sla/1"
SUMMARY_SCHEMA = "kvandal.sla-summary/1"
EVIDENCE_SCHEMA = "kvandal.sla-evidence/1"

_NAME_LETTERS = 40
_DIGEST_LETTERS = 12
_HOUR = timedelta(hours=1)


def folder_name(party: str) -> str:
    """A folder for a customer: readable, the same each time, and one that no other name has or leads out of.

    Whatever the name holds, only small letters, digits and hyphens are left; a digest of it tells names apart.
    """
    plain = unicodedata.normalize("NFKD", party).encode("ascii", "ignore").decode().lower()
    readable = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:_NAME_LETTERS].strip("-")
    return f"{readable or 'customer'}-{sha256(party.encode()).hexdigest()[:_DIGEST_LETTERS]}"


def evidence_files(report: CustomerReport) -> Mapping[str, bytes]:
    """The files of evidence by name, a file an outage."""
    return {evidence_name(outage): _evidence_bytes(outage) for outage in report.outages}


def evidence_name(outage: Outage) -> str:
    """Of an outage and of what is in its file: evidence that moves gets a new file beside the one that was frozen."""
    return f"outage-{outage.key}-{sha256(_evidence_bytes(outage)).hexdigest()[:_DIGEST_LETTERS]}.json"


def _evidence_bytes(outage: Outage) -> bytes:
    return json_text(evidence_document(outage)).encode()


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
            **period_document(period, complete=report.complete),
            "reported_until": time_text(report.window.end),
        },
        "generated_at": time_text(report.generated_at),
        "registers_known_at": time_text(report.known_at),
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
        "left_out_seconds": {cause or Health.UNKNOWN.value: ms / 1000 for cause, ms in report.left_out_ms.items()},
        "figures": [figure_document(kpi) for kpi in report.kpis],
        "repair": [_phase(line) for line in report.phases],
        "unit_lines": [_unit(line) for line in report.units],
        "outage_lines": [_outage(outage) for outage in report.outages],
    }


def _terms(terms: Terms) -> dict[str, Any]:
    return {
        "start": time_text(terms.start),
        "end": time_text(terms.end),
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
        "start": time_text(outage.start),
        "end": time_text(outage.end),
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
        "evidence_file": f"evidence/{evidence_name(outage)}",
        "evidence_sha256": outage.evidence_sha256,
    }


def _phase(line: PhaseLine) -> dict[str, Any]:
    return {
        "phase": line.name,
        "mean_s": None if line.mean is None else line.mean.total_seconds(),
        "failures": line.failures,
    }


def _float(value: Fraction | None) -> float | None:
    return None if value is None else float(value)
