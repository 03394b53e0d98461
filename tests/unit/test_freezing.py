"""Freezing without a store: what is signed, and that everything which could be altered is found."""

import base64
import copy
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from reports.publishing.documents import canonical, changes_between, digest, json_text
from reports.publishing.freezing import (
    Approval,
    ForgedError,
    FrozenReport,
    check,
    check_chain,
    check_files,
    evidence_of,
    fingerprint,
    freeze,
    public_text,
    read_json,
)
from reports.publishing.keys import make_key, read_private_key, read_public_key
from reports.publishing.publication import Input, Publication
from reports.publishing.schemas import document_problems
from tests.unit.test_publishing import NOW, kpi, publication

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
APPROVAL = Approval(approver="Sustainability Officer", frozen_at=NOW)


def with_meter(mwh: float | None) -> Publication:
    meter = Input(kind="meter", id="H1", name="heat meter", value=mwh, unit="MWh")
    return replace(publication(), inputs=(meter,), figures=(kpi("heat", mwh, title="Heat handed over"),))


def frozen(previous: FrozenReport | None = None, mwh: float = 10.0) -> FrozenReport:
    approval = replace(APPROVAL, restatement=previous.record["restatement"] + 1 if previous else 1)
    return freeze(with_meter(mwh), approval, {"a.pdf": hashlib.sha256(b"pdf").hexdigest()}, previous, KEY)


def test_a_frozen_report_survives_its_own_json() -> None:
    report = frozen()
    again = FrozenReport.of(json.loads(json.dumps(report.document())))
    check(again, trusted=[public_text(KEY.public_key())])
    assert again == report
    assert again.record["approver"] == "Sustainability Officer"
    assert again.record["previous"] == "0" * 64


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("approver",), "Somebody else"),
        (("figures", 0, "value"), 11.0),
        (("inputs", 0, "value"), 11.0),
        (("document", "site"), "Elsewhere"),
        (("files", "a.pdf"), "00" * 32),
        (("previous",), "11" * 32),
        (("frozen_at",), "2026-11-01T00:00:00Z"),
        (("restatement",), 2),
    ],
)
def test_whatever_is_altered_in_a_record_is_found(path: tuple[str | int, ...], value: object) -> None:
    document = copy.deepcopy(json.loads(json.dumps(frozen().document())))
    place: Any = document["record"]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ForgedError, match="was changed after it was frozen"):
        check(FrozenReport.of(document))
    document["hash"] = digest(document["record"])  # a forger can compute the hash, but not the signature
    with pytest.raises(ForgedError, match=r"document is not the one|signature does not fit"):
        check(FrozenReport.of(document))


def test_a_report_signed_anew_by_somebody_else_is_found_by_whoever_knows_the_key() -> None:
    forged = freeze(with_meter(99.0), APPROVAL, {}, None, Ed25519PrivateKey.generate())
    check(forged)  # whole in itself
    with pytest.raises(ForgedError, match="not one that you trust"):
        check(forged, trusted=[public_text(KEY.public_key())])


@pytest.mark.parametrize("signature", ["", "!!", "AAAA"])
def test_a_broken_signature_is_a_forgery_not_a_crash(signature: str) -> None:
    with pytest.raises(ForgedError, match="signature does not fit"):
        check(replace(frozen(), signature=signature))


@pytest.mark.parametrize("change", [
    {}, {"record": {}}, {"record": {"sequence": True}}, {"period": []}, {"period": {"text": 7}}, {"files": []},
    {"files": None}, {"document": None}, {"sequence": "1"}, {"figures": {}}, {"report": None},
])  # fmt: skip
def test_a_record_that_somebody_signed_without_what_it_needs_is_refused_not_crashed_at(change: dict[str, Any]) -> None:
    record = change.get("record", {**frozen().record, **change} if change else {})
    signed = KEY.sign(b"kvandal.frozen/1\0" + bytes.fromhex(digest(record)))
    odd = FrozenReport(
        record=record, hash=digest(record), signature=base64.b64encode(signed).decode(),
        public_key=public_text(KEY.public_key()),
    )  # fmt: skip
    with pytest.raises(ForgedError, match="or not as it was frozen"):
        check(odd)


def test_a_text_that_two_readers_could_take_for_different_reports_is_refused() -> None:
    text = json_text(frozen().document())
    assert read_json(text) == json.loads(text)
    twice = text.replace('"value": 10.0', '"value": 99.0, "value": 10.0', 1)
    assert json.loads(twice) == json.loads(text)  # to this reader nothing changed
    with pytest.raises(ForgedError, match="'value' stands twice"):
        read_json(twice)
    for odd in ('{"a": NaN}', '{"a": -Infinity}', "[" * 200_000, "", "{"):
        with pytest.raises(ForgedError, match="no JSON that can be checked"):
            read_json(odd)


def test_words_beside_what_is_signed_are_refused() -> None:
    with pytest.raises(ForgedError, match="'note' outside of what is signed"):
        FrozenReport.of({**frozen().document(), "note": "these figures are preliminary"})


def test_a_chain_does_not_hold_a_period_twice_under_one_number() -> None:
    first = frozen()
    second = freeze(with_meter(11.0), APPROVAL, {}, first, KEY)
    with pytest.raises(ForgedError, match="it is number 2 of its period"):
        check_chain([first, second])


def test_a_chain_from_which_a_report_was_taken_does_not_hold() -> None:
    first = frozen()
    second = frozen(first, 11.0)
    third = frozen(second, 12.0)
    check_chain([first, second, third])
    for broken in ([second, third], [first, third], [first, third, second], [frozen(None, 9.0), second]):
        with pytest.raises(ForgedError, match="the chain is broken"):
            check_chain(broken)


def test_an_altered_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"pdf")
    assert list(check_files(frozen(), tmp_path)) == ["a.pdf"]
    (tmp_path / "a.pdf").write_bytes(b"pdg")
    with pytest.raises(ForgedError, match=r"a\.pdf was altered"):
        list(check_files(frozen(), tmp_path))


def test_a_file_name_in_a_record_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "secret").write_bytes(b"pdf")
    report = freeze(with_meter(1.0), APPROVAL, {"../secret": "00" * 32}, None, KEY)
    with pytest.raises(ForgedError, match="names a file outside of its folder"):
        list(check_files(report, tmp_path / "out"))


def test_changes_name_the_meter_and_the_delta_before_the_figures() -> None:
    before, after = evidence_of(with_meter(10.0)), evidence_of(with_meter(12.5))
    meter, heat = changes_between(before, after)
    assert (meter.of, meter.title, meter.delta, meter.unit) == ("input", "heat meter", 2.5, "MWh")
    assert (heat.of, heat.title, heat.before, heat.after) == ("figure", "Heat handed over", 10.0, 12.5)
    assert changes_between(before, before) == ()
    (gone, _) = changes_between(before, evidence_of(with_meter(None)))
    assert (gone.before, gone.after, gone.delta) == (10.0, None, None)


def test_equal_documents_have_equal_bytes() -> None:
    assert canonical({"b": 1.5, "a": "å"}) == canonical({"a": "å", "b": 1.5}) == '{"a":"å","b":1.5}'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical({"a": float("nan")})


def test_keys_are_made_once_and_kept_from_others(tmp_path: Path) -> None:
    path = tmp_path / "officer.key"
    public = make_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_public_key(public) == public_text(read_private_key(path).public_key())
    assert len(fingerprint(read_public_key(public)).split()) == 8
    with pytest.raises(FileExistsError, match="never overwritten: give another name"):
        make_key(path)
    path.chmod(0o640)
    with pytest.raises(ValueError, match="chmod 600"):
        read_private_key(path)


def test_an_encrypted_key_needs_its_password(tmp_path: Path) -> None:
    path = tmp_path / "officer.key"
    public = make_key(path, "correct horse")
    assert public_text(read_private_key(path, "correct horse").public_key()) == read_public_key(public)
    for wrong in (None, "battery staple"):
        with pytest.raises(ValueError, match="no private key that can be read"):
            read_private_key(path, wrong)


@pytest.mark.parametrize("text", ["", "rubbish", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_rubbish_is_no_key(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rubbish"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ValueError, match="no private key"):
        read_private_key(path)
    with pytest.raises(ValueError, match="no public key"):
        read_public_key(path)


@pytest.mark.parametrize("document", [{}, {"record": {}, "hash": "", "signature": "", "public_key": ""}, {"record": 1}])
def test_other_json_is_no_frozen_report(document: dict[str, Any]) -> None:
    with pytest.raises(ForgedError):
        FrozenReport.of(document)


def test_a_document_that_is_not_what_its_schema_says_is_not_frozen() -> None:
    wrong = replace(with_meter(1.0), report="sustainability")
    with pytest.raises(ValueError, match="the sustainability document is not what its schema says"):
        freeze(wrong, APPROVAL, {}, None, KEY)


def test_a_frozen_report_is_what_its_schema_says() -> None:
    assert list(document_problems("frozen", json.loads(json.dumps(frozen().document())))) == []
