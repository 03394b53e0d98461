"""The JSON of reports: the parts that all documents share, and the one way in which a document becomes text."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from reports.figures import Kpi
from reports.period import Period
from reports.publishing.publication import Change, Input


def json_text(document: Mapping[str, Any]) -> str:
    """A document for people and programs to read. ValueError for a value that JSON does not have, such as NaN."""
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def canonical(value: object) -> bytes:
    """The one spelling of a JSON value: sorted names, no spaces, UTF-8. Equal values have equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: object) -> str:
    """SHA-256 of a JSON value in hexadecimal."""
    return hashlib.sha256(canonical(value)).hexdigest()


def figure_document(kpi: Kpi) -> dict[str, Any]:
    evidence, words = kpi.evidence, kpi.definition
    return {
        "key": words.key,
        "title": words.title,
        "value": kpi.value,
        "unit": kpi.unit,
        "plus_minus": kpi.plus_minus,
        "quality": kpi.quality.value,
        "coverage": evidence.coverage if evidence else None,
        "share_estimated": evidence.share_estimated if evidence else None,
        "boundary": words.boundary,
        "method": words.method,
        "source": words.source,
        "reason": kpi.reason,
        "note": kpi.note,
    }


def input_document(found: Input) -> dict[str, Any]:
    return {"kind": found.kind, "id": found.id, "name": str(found.name), "value": found.value, "unit": found.unit}


def change_document(change: Change) -> dict[str, Any]:
    return {
        "of": change.of,
        "key": change.key,
        "title": str(change.title),
        "before": change.before,
        "after": change.after,
        "delta": change.delta,
        "unit": change.unit,
    }


def period_document(period: Period, *, complete: bool) -> dict[str, Any]:
    return {
        "text": period.text,
        "zone": period.zone,
        "start": time_text(period.start),
        "end": time_text(period.end),
        "hours": period.seconds / 3600,
        "complete": complete,
    }


def time_text(moment: datetime) -> str:
    """RFC 3339, in UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def changes_between(
    before: Mapping[str, Sequence[Mapping[str, Any]]], after: Mapping[str, Sequence[Mapping[str, Any]]]
) -> tuple[Change, ...]:
    """What moved between two records' figures and inputs: inputs first, for they are why the figures moved."""
    return (
        *_moved("input", before["inputs"], after["inputs"], ("kind", "id"), "name"),
        *_moved("figure", before["figures"], after["figures"], ("key",), "title"),
    )


def _moved(
    of: str, before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], names: Sequence[str], title: str
) -> list[Change]:
    old = {" ".join(str(row[name]) for name in names): row for row in before}
    new = {" ".join(str(row[name]) for name in names): row for row in after}
    found = []
    for key in dict.fromkeys((*old, *new)):
        was, now = old.get(key), new.get(key)
        values = [row["value"] if row else None for row in (was, now)]
        if values[0] != values[1]:
            named = now or was or {}
            change = Change(
                of=of, key=key, title=named[title], before=values[0], after=values[1], unit=named.get("unit") or ""
            )
            found.append(change)
    return found
