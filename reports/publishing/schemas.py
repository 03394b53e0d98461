"""JSON Schemas of the documents that reports give to other programs; rendered, and checked before anything is frozen.

A field may be added under the same schema name; one that is removed or means something else needs another name.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator

REPORTS = ("sustainability", "heat", "frozen")

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
    }
)
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
_SCHEMAS: Mapping[str, Mapping[str, Any]] = {"sustainability": _SUSTAINABILITY, "heat": _HEAT, "frozen": _FROZEN}


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
