"""Freezing: a report becomes a record that is signed and chained to the one before it, and can be checked for ever.

A record holds the report's whole document, its figures and inputs, the digests of its files, who approved it, and the
hash of the record frozen before it. Its hash is signed with Ed25519 (RFC 8032). Nothing here reads or writes a store.
"""

import base64
import binascii
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from reports.publishing.documents import (
    canonical,
    change_document,
    digest,
    figure_document,
    input_document,
    time_text,
)
from reports.publishing.publication import Change, Publication
from reports.publishing.schemas import document_problems

SCHEMA = "kvandal.frozen/1"
# What is signed is told apart from anything else that the key may ever sign.
_CONTEXT = SCHEMA.encode() + b"\0"
FIRST = "0" * 64  # what the first record names as the one before it


# What the functions here and those who show a record rely on.
_PARTS: Mapping[str, type] = {
    "sequence": int, "previous": str, "report": str, "site": str, "period": dict, "restatement": int, "approver": str,
    "frozen_at": str, "document_sha256": str, "files": dict, "figures": list, "inputs": list, "document": dict,
}  # fmt: skip


class ForgedError(ValueError):
    """A record, its signature, its place in the chain, or a file of it is not what was frozen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """Who answers for a frozen report, and why it replaces the one before it."""

    approver: str
    frozen_at: datetime
    restatement: int = 1
    reason: str = ""
    changes: Sequence[Change] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenReport:
    """A signed record. `signature` and `public_key` are in base64."""

    record: Mapping[str, Any]
    hash: str
    signature: str
    public_key: str

    @property
    def sequence(self) -> int:
        return int(self.record["sequence"])

    @property
    def title(self) -> str:
        return f"{self.record['report']} {self.record['period']['text']} restatement {self.record['restatement']}"

    def document(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "record": dict(self.record),
            "hash": self.hash,
            "signature": self.signature,
            "public_key": self.public_key,
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "FrozenReport":
        """From its JSON; ForgedError where that is not one."""
        wanted = {"record": dict, "hash": str, "signature": str, "public_key": str}
        for name, kind in wanted.items():
            if not isinstance(document.get(name), kind):
                raise ForgedError(f"this is no frozen report: it has no {name}")
        if document.get("schema") != SCHEMA:
            raise ForgedError(f"the frozen report is of schema {document.get('schema')!r}; this version reads {SCHEMA}")
        unsigned = document.keys() - wanted.keys() - {"schema"}
        if unsigned:
            raise ForgedError(f"the frozen report says {min(unsigned)!r} outside of what is signed")
        return cls(**{name: document[name] for name in wanted})


def read_json(text: str) -> object:
    """The value of a JSON text; ForgedError where it is none, or where readers could take it for different ones.

    Of a name that stands twice some readers take the first and some the last, and only one of them is what was signed.
    """
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ForgedError(f"it is no JSON that can be checked: {error}") from error


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{max(names, key=names.count)!r} stands twice in one object")
    return found


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number")


def freeze(
    publication: Publication,
    approval: Approval,
    files: Mapping[str, str],
    previous: FrozenReport | None,
    key: Ed25519PrivateKey,
) -> FrozenReport:
    """The signed record of a publication; `files` are the SHA-256 of its files by name.

    ValueError where its document is not what its schema says.
    """
    problems = list(document_problems(publication.report, publication.document))
    if problems:
        raise ValueError(f"the {publication.report} document is not what its schema says: {'; '.join(problems[:3])}")
    period = publication.period
    record = {
        "schema": SCHEMA,
        "sequence": previous.sequence + 1 if previous else 1,
        "previous": previous.hash if previous else FIRST,
        "report": publication.series,
        "site": str(publication.site),
        "period": {"text": period.text, "zone": period.zone},
        "restatement": approval.restatement,
        "approver": approval.approver,
        "frozen_at": time_text(approval.frozen_at),
        "reason": approval.reason,
        "changes": [change_document(change) for change in approval.changes],
        "document_sha256": digest(publication.document),
        "files": dict(files),
        **evidence_of(publication),
        "document": dict(publication.document),
    }
    record_hash = digest(record)
    signature = key.sign(_CONTEXT + bytes.fromhex(record_hash))
    return FrozenReport(
        record=record, hash=record_hash, signature=_base64(signature), public_key=public_text(key.public_key())
    )


def evidence_of(publication: Publication) -> dict[str, list[dict[str, Any]]]:
    """The figures and inputs by which two restatements are compared."""
    return {
        "figures": [figure_document(kpi) for kpi in publication.figures],
        "inputs": [input_document(found) for found in publication.inputs],
    }


def check(frozen: FrozenReport, *, trusted: Sequence[str] = ()) -> None:
    """Raise ForgedError unless the record is what was signed, by a trusted key where any are given."""
    _check_parts(frozen.record)
    if digest(frozen.record) != frozen.hash:
        raise ForgedError(f"{frozen.title} was changed after it was frozen: its hash is not {frozen.hash[:16]}…")
    if digest(frozen.record["document"]) != frozen.record["document_sha256"]:
        raise ForgedError(f"{frozen.title}: its document is not the one that was approved")
    try:
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(frozen.public_key, validate=True))
        public.verify(base64.b64decode(frozen.signature, validate=True), _CONTEXT + bytes.fromhex(frozen.hash))
    except (InvalidSignature, ValueError, binascii.Error) as error:
        raise ForgedError(f"{frozen.title}: its signature does not fit") from error
    if trusted and frozen.public_key not in trusted:
        raise ForgedError(
            f"{frozen.title} is signed with key {fingerprint(frozen.public_key)}, which is not one that you trust"
        )


def _check_parts(record: Mapping[str, Any]) -> None:
    # Whoever signs with a key of his own can sign anything: what it lacks must be a refusal, not a crash.
    wrong = [name for name, kind in _PARTS.items() if not isinstance(record.get(name), kind)]
    if not wrong and not isinstance(record["period"].get("text"), str):
        wrong = ["period"]
    if wrong:
        raise ForgedError(f"the record of a frozen report has no {wrong[0]}, or not as it was frozen")


def check_chain(chain: Sequence[FrozenReport], *, trusted: Sequence[str] = ()) -> None:
    """Raise ForgedError unless all frozen reports are whole, in order, and none is missing between them."""
    held: Counter[tuple[str, str]] = Counter()
    for place, frozen in enumerate(chain, start=1):
        check(frozen, trusted=trusted)
        previous = chain[place - 2].hash if place > 1 else FIRST
        if frozen.sequence != place or frozen.record["previous"] != previous:
            raise ForgedError(f"{frozen.title}: the chain is broken before it; a frozen report was removed or replaced")
        of = frozen.record["report"], frozen.record["period"]["text"]
        held[of] += 1
        if frozen.record["restatement"] != held[of]:
            raise ForgedError(f"{frozen.title}: it is number {held[of]} of its period in the chain")


def check_files(frozen: FrozenReport, folder: Path) -> Iterator[str]:
    """The names of its files that are in the record's folder and whole.

    ForgedError for one that was altered, and for a name that leads out of the folder; OSError.
    """
    for name, wanted in frozen.record["files"].items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ForgedError(f"{frozen.title} names a file outside of its folder: {name}")
        path = folder / name
        if not path.exists():
            continue
        if hashlib.sha256(path.read_bytes()).hexdigest() != wanted:
            raise ForgedError(f"{name} was altered: it is not the file that was frozen with {frozen.title}")
        yield name


def public_text(key: Ed25519PublicKey) -> str:
    return _base64(key.public_bytes(Encoding.Raw, PublicFormat.Raw))


def fingerprint(public_key: str) -> str:
    """The first half of the key's SHA-256, in groups that can be read over the telephone."""
    text = hashlib.sha256(base64.b64decode(public_key)).hexdigest()[:32]
    return " ".join(text[place : place + 4] for place in range(0, len(text), 4))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def stored_text(frozen: FrozenReport) -> str:
    """The record as the store keeps it."""
    return canonical(frozen.record).decode()
