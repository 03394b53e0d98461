"""JSON Schemas of the documents that reports give to other programs; rendered, and checked before anything is frozen.

A field may be added under the same schema name; one that is removed or means something else needs another name.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator

REPORTS = ("sustainability", "heat", "efficiency", "sla", "sla-summary", "sla-evidence", "frozen")

_TEXT: Mapping[str, Any] = {"type": "string"}
_NUMBER: Mapping[str, Any] = {"type": "number"}
_MAYBE_NUMBER: Mapping[str, Any] = {"type": ["number", "null"]}
_MAYBE_TEXT: Mapping[str, Any] = {"type": ["string", "null"]}
_VALUE: Mapping[str, Any] = {"type": ["number", "string", "null"]}
_SHARE: Mapping[str, Any] = {"type": ["number", "null"], "minimum": 0}
_TIME: Mapping[str, Any] = {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z$"}
_DIGEST: Mapping[str, Any] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}


def _record(properties: Mapping[str, Any], *, more: bool = False) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(properties),
        "properties": dict(properties),
        "additionalProperties": more,
    }


def _list(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": dict(items)}


_PERIOD = _record(
    {"text": _TEXT, "zone": _TEXT, "start": _TIME, "end": _TIME, "hours": _NUMBER, "complete": {"type": "boolean"}}
)
# A value that is null has a reason; that is what makes a blank a marked one.
_FIGURE = _record(
    {
        "key": _TEXT, "title": _TEXT, "value": _MAYBE_NUMBER, "unit": _TEXT, "plus_minus": _MAYBE_NUMBER,
        "quality": {"enum": ["measured", "measured with gaps", "estimated", "not available"]},
        "coverage": _SHARE, "share_estimated": _SHARE, "boundary": _TEXT, "method": _TEXT, "source": _TEXT,
        "reason": _TEXT, "note": _TEXT,
    }
) | {
    "if": {"properties": {"value": {"type": "null"}}},
    "then": {"properties": {"reason": {"minLength": 1}, "quality": {"const": "not available"}}},
}  # fmt: skip
_INDICATOR = _record(
    {
        "number": _TEXT, "key": _TEXT, "title": _TEXT, "symbol": _TEXT, "value": _VALUE, "unit": _TEXT,
        "optional": {"type": "boolean"}, "reason": _TEXT, "source": {"type": "string", "minLength": 1},
        "method": {"type": "string", "minLength": 1},
    }
) | {
    "if": {"properties": {"value": {"type": "null"}}},
    "then": {"properties": {"reason": {"minLength": 1}}},
}  # fmt: skip
_CERTIFICATE = _record(
    {
        "certificate": _TEXT, "instrument": {"enum": ["go", "ppa", "onsite"]}, "technology": _TEXT, "country": _TEXT,
        "mwh": _NUMBER, "counted_mwh": _NUMBER, "verdict": _TEXT, "cancellation": _TEXT, "cancelled_on": _MAYBE_TEXT,
    }
)  # fmt: skip
_FACTOR = {
    "oneOf": [
        {"type": "null"},
        _record({"grams_per_kwh": _NUMBER, "gases": _TEXT, "publisher": _TEXT, "version": _TEXT,
                 "year": {"type": "integer"}}),
    ]
}  # fmt: skip
_METER = _record(
    {
        "identity": _TEXT, "name": _TEXT, "role": _TEXT, "accuracy_class": _TEXT, "class_assumed": {"type": "boolean"},
        "calibrated_at": _MAYBE_TEXT, "mwh": _MAYBE_NUMBER, "coverage": _NUMBER, "share_estimated": _SHARE,
    }
)  # fmt: skip
_REGISTER = _record(
    {
        "register": _TEXT, "version": {"type": "integer"}, "imported_at": _TIME, "imported_by": _TEXT, "file": _TEXT,
        "file_sha256": _DIGEST, "evidence": _TEXT, "evidence_sha256": _DIGEST,
    }
)  # fmt: skip
_REGISTRATION = _record({"key": _TEXT, "title": _TEXT, "value": _VALUE, "unit": _TEXT, "reason": _TEXT})

_SUSTAINABILITY = _record(
    {
        "schema": {"const": "kvandal.sustainability/1"},
        "site": _TEXT,
        "period": _PERIOD,
        "pue_category": _TEXT,
        "generated_at": _TIME,
        "cut_off": _MAYBE_TEXT,
        "software": _TEXT,
        "figures": _list(_FIGURE),
        "previous": _list(_FIGURE),
        "twelve_months": _list(_FIGURE),
        "eed": _record({"schema": {"const": "eed_2024_1364"}, "indicators": _list(_INDICATOR)}),
        "certificates": _list(_CERTIFICATE),
        "emission_factors": _record({"location": _FACTOR, "residual": _FACTOR}),
        "registrations": _list(_REGISTRATION),
        "meters": _list(_METER),
        "registers": _list(_REGISTER),
        "problems": _list(_TEXT),
    }
)
_ROWS = _list({"type": "object"})
_HEAT = _record(
    {
        "schema": {"const": "kvandal.heat/1"},
        "site": _TEXT,
        "period": _PERIOD,
        "generated_at": _TIME,
        "cut_off": _MAYBE_TEXT,
        "software": _TEXT,
        "figures": _list(_FIGURE),
        "contracts": _ROWS,
        "statements": _ROWS,
        "balances": _ROWS,
        "capacity": {"type": "object"},
        "assumptions": _list(_TEXT),
        "problems": _list(_TEXT),
    }
)
_WHOLE: Mapping[str, Any] = {"type": "integer", "minimum": 0}
_CLAIM: Mapping[str, Any] = {"type": "boolean"}
_AVAILABILITY: Mapping[str, Any] = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
_SECONDS: Mapping[str, Any] = {"type": "number", "minimum": 0}
_BY_NAME: Mapping[str, Any] = {"type": "object", "additionalProperties": _SECONDS}
_SLA_PERIOD = _record({**_PERIOD["properties"], "reported_until": _TIME})
_SLA_HEAD: Mapping[str, Any] = {
    "site": _TEXT, "period": _SLA_PERIOD, "generated_at": _TIME, "registers_known_at": _TIME, "software": _TEXT,
}  # fmt: skip
_SLA_LINE: Mapping[str, Any] = {
    "contract": _TEXT, "unit": {"enum": ["gpu", "node", "rack"]}, "units": _WHOLE, "target": _AVAILABILITY,
    "kept": {"type": ["boolean", "null"]}, "technical_availability": _AVAILABILITY,
    "contractual_availability": _AVAILABILITY, "seen_share": _AVAILABILITY, "outages": _WHOLE, "credit": _AVAILABILITY,
    "credit_money": _MAYBE_NUMBER, "currency": _TEXT, "reason": _TEXT,
}  # fmt: skip
_SLA_TERMS = _record(
    {
        "start": _TIME, "end": _TIME, "minimum_outage_s": _SECONDS,
        "tiers": _list(_record({"below": _AVAILABILITY, "credit": _AVAILABILITY})), "credit_cap": _AVAILABILITY,
        "exclusions": _list(_TEXT), "notice_hours": _SECONDS, "maintenance_cap_hours": _MAYBE_NUMBER,
        "unknown_counts_as": {"enum": ["up", "down", "excluded"]}, "rack_minimum_trays": _MAYBE_NUMBER,
        "unit_price": _MAYBE_NUMBER, "registered": _TEXT,
    }
)  # fmt: skip
_SLA_SECONDS = _record({"covered": _SECONDS, "by_state": _BY_NAME, "by_contract": _BY_NAME})
_SLA_UNIT = _record(
    {
        "unit": _TEXT, "technical_availability": _AVAILABILITY, "technical_availability_at_most": _AVAILABILITY,
        "contractual_availability": _AVAILABILITY, "seconds": _SLA_SECONDS, "outages": _WHOLE, "credit": _AVAILABILITY,
    }
)  # fmt: skip
_OUTAGE_TIMES: Mapping[str, Any] = {
    "key": _TEXT, "unit": _TEXT, "start": _TIME, "end": _TIME, "began_before": _CLAIM, "goes_on": _CLAIM,
}  # fmt: skip
_PHASES = _record({"detect_s": _SECONDS, "drain_s": _SECONDS, "repair_s": _SECONDS, "validate_s": _MAYBE_NUMBER})
_SLA_OUTAGE = _record(
    {
        **_OUTAGE_TIMES, "down_s": _SECONDS, "unknown_s": _SECONDS, "excluded_s": _SECONDS, "counted_s": _SECONDS,
        "reasons": _list(_TEXT), "phases": {"oneOf": [{"type": "null"}, _PHASES]}, "evidence_file": _TEXT,
        "evidence_sha256": _DIGEST,
    }
)  # fmt: skip
_SLA = _record(
    {
        "schema": {"const": "kvandal.sla/1"}, "customer": _TEXT, **_SLA_HEAD, "summary": _TEXT,
        "contracts": _list(
            _record(
                {
                    **_SLA_LINE, "technical_availability_at_most": _AVAILABILITY, "terms": _SLA_TERMS,
                    "seconds": _SLA_SECONDS, "left_out_seconds": _BY_NAME, "figures": _list(_FIGURE),
                    "repair": _list(_record({"phase": _TEXT, "mean_s": _MAYBE_NUMBER, "failures": _WHOLE})),
                    "unit_lines": _list(_SLA_UNIT), "outage_lines": _list(_SLA_OUTAGE),
                }
            )
        ),
    }
)  # fmt: skip
_SLA_SUMMARY = _record(
    {
        "schema": {"const": "kvandal.sla-summary/1"}, **_SLA_HEAD, "gpus": _WHOLE, "fleet_seconds": _BY_NAME,
        "customers": _list(_record({"customer": _TEXT, "folder": _TEXT, "contracts": _list(_record(_SLA_LINE))})),
        "problems": _list(_TEXT),
    }
)  # fmt: skip
_MAYBE_TIME: Mapping[str, Any] = {"type": "string", "pattern": f"^$|{_TIME['pattern']}"}
_SLA_EVIDENCE = _record(
    {
        "schema": {"const": "kvandal.sla-evidence/1"},
        "outage": _record(_OUTAGE_TIMES),
        "rows": _list(
            _record(
                {
                    "at": _TIME, "until": _MAYBE_TIME, "source": _TEXT, "resource_kind": _TEXT, "resource": _TEXT,
                    "what": _TEXT, "code": {"type": ["integer", "null"]}, "xid_class": _TEXT, "text": _TEXT,
                    "reference": _TEXT,
                }
            )
        ),
        "sha256": _DIGEST,
    }
)  # fmt: skip
_STATE_LINES = _list(_record({"name": _TEXT, "gpu_hours": _SECONDS, "share": _NUMBER}))
_EFFICIENCY = _record(
    {
        "schema": {"const": "kvandal.efficiency/1"}, "site": _TEXT, "period": _PERIOD, "generated_at": _TIME,
        "software": _TEXT, "pue_category": _TEXT, "gpus": _WHOLE, "figures": _list(_FIGURE),
        "gpu_hours": _record({"health": _STATE_LINES, "allocation": _STATE_LINES, "throttling": _STATE_LINES}),
        "halls": _list(
            _record(
                {
                    "hall": _TEXT, "it_mwh": _MAYBE_NUMBER, "cooling_mwh": _MAYBE_NUMBER, "ppue": _MAYBE_NUMBER,
                    "plus_minus": _MAYBE_NUMBER, "coverage": _SHARE, "reason": _TEXT,
                }
            )
        ),
        "jobs": _ROWS, "stragglers": _ROWS, "nodes": _ROWS, "racks": _ROWS, "problems": _list(_TEXT),
    }
)  # fmt: skip
_CHANGE = _record(
    {
        "of": {"enum": ["figure", "input"]}, "key": _TEXT, "title": _TEXT, "before": _VALUE, "after": _VALUE,
        "delta": _MAYBE_NUMBER, "unit": _TEXT,
    }
)  # fmt: skip
_INPUT = _record({"kind": _TEXT, "id": _TEXT, "name": _TEXT, "value": _VALUE, "unit": _TEXT})
_FROZEN = _record(
    {
        "schema": {"const": "kvandal.frozen/1"},
        "record": _record(
            {
                "schema": {"const": "kvandal.frozen/1"},
                "sequence": {"type": "integer", "minimum": 1},
                "previous": _DIGEST,
                "report": _TEXT,
                "site": _TEXT,
                "period": _record({"text": _TEXT, "zone": _TEXT}),
                "restatement": {"type": "integer", "minimum": 1},
                "approver": {"type": "string", "minLength": 1},
                "frozen_at": _TIME,
                "reason": _TEXT,
                "changes": _list(_CHANGE),
                "document_sha256": _DIGEST,
                "files": {"type": "object", "additionalProperties": _DIGEST},
                "figures": _list(_FIGURE),
                "inputs": _list(_INPUT),
                "document": {"type": "object"},
            }
        ),
        "hash": _DIGEST,
        "signature": _TEXT,
        "public_key": _TEXT,
    }
)
_SCHEMAS: Mapping[str, Mapping[str, Any]] = {
    "sustainability": _SUSTAINABILITY,
    "heat": _HEAT,
    "efficiency": _EFFICIENCY,
    "sla": _SLA,
    "sla-summary": _SLA_SUMMARY,
    "sla-evidence": _SLA_EVIDENCE,
    "frozen": _FROZEN,
}


def report_schema_file(report: str) -> str:
    """Path of the rendered schema in the repository."""
    return f"reports/document_schemas/{report}.schema.json"


def report_schema_text(report: str) -> str:
    """What `make render` writes into `report_schema_file`."""
    head: dict[str, Any] = {
        "$comment": "Generated by `make render` from reports/publishing/schemas.py; do not edit.",
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Kvandal's {report} document",
    }
    return json.dumps({**head, **_SCHEMAS[report]}, indent=1, ensure_ascii=False) + "\n"


def document_problems(report: str, document: Mapping[str, Any]) -> Iterator[str]:
    """What a report's schema has against a document; nothing for a report without a schema."""
    if report not in _SCHEMAS:
        return
    for error in _validator(report).iter_errors(dict(document)):
        yield f"{error.json_path}: {error.message[:200]}"


@cache
def _validator(report: str) -> Draft202012Validator:
    text = files("reports").joinpath(f"document_schemas/{report}.schema.json").read_text()
    return Draft202012Validator(json.loads(text))
