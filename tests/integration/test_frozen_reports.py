"""Frozen reports in the real store: a frozen month stays as it is, a forged one is found, a correction is restated."""

import json
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from clickhouse_connect.driver.client import Client
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kvandal.cli import main
from kvandal.frozen_chain import FrozenChain, frozen_lines, frozen_of
from kvandal.publishing import (
    Format,
    FreezeRequest,
    FrozenMonthError,
    Published,
    PublishRequest,
    publish,
    verify,
)
from reports.period import Period
from reports.publishing.freezing import ForgedError, public_text, stored_text
from reports.publishing.keys import make_key, read_private_key, read_public_key
from reports.publishing.publication import Publication
from storage.frozen import FrozenRow, PlaceTakenError, read_chain, write_frozen
from storage.reader import Reader
from tests.conftest import DoorUnderTest
from tests.unit.test_freezing import with_meter

pytest.importorskip("chdb")
pytest.importorskip("typst")

NOW = datetime(2026, 11, 3, 9, tzinfo=UTC)
ALL = tuple(Format)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "officer.key"
    make_key(path)
    return path


def asked(out: Path, key: Path, reason: str = "", formats: tuple[Format, ...] = (Format.JSON,)) -> PublishRequest:
    freezing = FreezeRequest(approver="Sustainability Officer", key=read_private_key(key), reason=reason)
    return PublishRequest(out=out, formats=formats, freezing=freezing)


def november(publication: Publication) -> Publication:
    return replace(publication, period=Period.parse("2026-11"))


def alter(store: Client, change: str) -> None:
    """As somebody with rights on the table could; returns when it is done."""
    store.command(f"ALTER TABLE frozen_reports {change}")
    open_ones = "SELECT count() FROM system.mutations WHERE table = 'frozen_reports' AND NOT is_done"
    give_up = time.monotonic() + 60
    while store.query(open_ones).result_rows != [(0,)]:
        assert time.monotonic() < give_up, change
        time.sleep(0.05)


def test_a_frozen_month_cannot_change(store: Client, tmp_path: Path, key: Path) -> None:
    out = tmp_path / "out"
    first = publish(FrozenChain(store), with_meter(10.0), asked(out, key, formats=ALL), now=NOW)
    assert {path.name for path in first.paths} == {
        f"example-2026-10-r1.{ending}" for ending in ("html", "pdf", "csv", "xlsx", "json", "frozen.json")
    }
    assert {path.stat().st_mode & 0o777 for path in first.paths} == {0o444}
    again = publish(FrozenChain(store), with_meter(10.0), asked(out, key), now=NOW)
    assert (again.paths, again.sentences) == (
        (),
        ["nothing moved: example 2026-10 restatement 1 still holds"],
    )
    with pytest.raises(FrozenMonthError, match=r"meter heat meter: 10 to 12\.5 MWh \(\+2\.5 MWh\).*--restate REASON"):
        publish(FrozenChain(store), with_meter(12.5), asked(out, key), now=NOW)
    assert len(read_chain(Reader(store))) == 1
    draft = publish(FrozenChain(store), with_meter(12.5), PublishRequest(out=out, formats=ALL), now=NOW)
    assert draft.sentences == ["this is a draft: example 2026-10 restatement 1 is frozen, and 2 values moved since"]
    # The draft has names of its own: the frozen files are whole.
    assert verify(out / "example-2026-10-r1.pdf", trusted=[read_public_key(Path(f"{key}.pub"))])


def test_a_late_correction_is_a_restatement_that_names_the_meter_and_the_delta(
    store: Client, tmp_path: Path, key: Path
) -> None:
    publish(FrozenChain(store), with_meter(10.0), asked(tmp_path, key), now=NOW)
    second = publish(
        FrozenChain(store),
        with_meter(12.5),
        asked(tmp_path, key, "The calibration was late.", (Format.JSON, Format.HTML)),
        now=NOW,
    )
    assert second.frozen is not None
    record = second.frozen.record
    assert (record["restatement"], record["reason"], record["sequence"]) == (2, "The calibration was late.", 2)
    assert record["changes"][0] == {
        "of": "input", "key": "meter H1", "title": "heat meter", "before": 10.0, "after": 12.5, "delta": 2.5,
        "unit": "MWh",
    }  # fmt: skip
    page = (tmp_path / "example-2026-10-r2.html").read_text(encoding="utf-8")
    assert "This report replaces restatement 1 of the same period." in page
    assert "The calibration was late." in page
    lines = verify(tmp_path / "example-2026-10-r1.frozen.json", client=store)
    assert lines[-1].endswith("which holds; example 2026-10 restatement 2 replaces it")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("record", "replaceOne(record, '\"value\":10.0', '\"value\":99.0')", "was changed after it was frozen"),
        ("signature", "'AAAA'", "signature does not fit"),
        ("record", "'rubbish'", "is no JSON"),
        ("record", "'[]'", "is no record"),
        ("record", "'{}'", "has no sequence"),
        ("record", "replaceOne(record, '{', '{\"approver\":\"Nobody\",')", "'approver' stands twice"),
    ],
)
def test_a_forged_row_is_found(store: Client, tmp_path: Path, key: Path, column: str, value: str, message: str) -> None:
    publish(FrozenChain(store), with_meter(10.0), asked(tmp_path, key), now=NOW)
    assert len(frozen_lines(store)) == 1
    alter(store, f"UPDATE {column} = {value} WHERE sequence = 1")
    with pytest.raises(ForgedError, match=message):
        frozen_lines(store)
    with pytest.raises(ForgedError, match=message):  # nothing more is chained to it
        publish(FrozenChain(store), november(with_meter(11.0)), asked(tmp_path, key), now=NOW.replace(month=12))


def test_a_row_that_is_given_another_period_does_not_free_its_own(store: Client, tmp_path: Path, key: Path) -> None:
    publish(FrozenChain(store), with_meter(10.0), asked(tmp_path, key), now=NOW)
    alter(store, "UPDATE period = '2025-01', report = 'other', restatement = 7 WHERE sequence = 1")
    with pytest.raises(FrozenMonthError, match="example 2026-10 restatement 1 is frozen"):
        publish(FrozenChain(store), with_meter(99.0), asked(tmp_path / "anew", key), now=NOW)
    assert len(read_chain(Reader(store))) == 1


def test_a_draft_says_that_what_was_frozen_was_forged(store: Client, tmp_path: Path, key: Path) -> None:
    publish(FrozenChain(store), with_meter(10.0), asked(tmp_path, key), now=NOW)
    alter(store, 'UPDATE record = \'{"report":"example"}\' WHERE sequence = 1')
    with pytest.raises(ForgedError, match="has no sequence"):
        publish(
            FrozenChain(store), with_meter(10.0), PublishRequest(out=tmp_path / "draft", formats=[Format.JSON]), now=NOW
        )


def test_a_link_in_the_folder_leads_no_report_out_of_it(store: Client, tmp_path: Path) -> None:
    victim, out = tmp_path / "victim", tmp_path / "out"
    victim.write_text("kept")
    out.mkdir()
    for name in ("example-2026-10.json.part", "example-2026-10.json"):
        (out / name).symlink_to(victim)
    published = publish(FrozenChain(store), with_meter(10.0), PublishRequest(out=out, formats=[Format.JSON]), now=NOW)
    assert victim.read_text() == "kept"
    assert not published.paths[0].is_symlink()


def test_a_row_that_was_removed_is_missed(store: Client, tmp_path: Path, key: Path) -> None:
    publish(FrozenChain(store), with_meter(10.0), asked(tmp_path, key), now=NOW)
    publish(FrozenChain(store), november(with_meter(11.0)), asked(tmp_path, key), now=NOW)
    alter(store, "DELETE WHERE sequence = 2")
    assert len(frozen_lines(store)) == 1  # the chain alone cannot know that it was longer, but every file of it can
    with pytest.raises(ForgedError, match="is not in the store's chain"):
        verify(tmp_path / "example-2026-11-r1.frozen.json", client=store)
    alter(store, "DELETE WHERE sequence = 1")
    with pytest.raises(ForgedError, match="is not in the store's chain"):
        verify(tmp_path / "example-2026-10-r1.frozen.json", client=store)


def test_of_two_reports_that_are_frozen_at_once_one_is_told_to_try_again(
    store: Client, tmp_path: Path, key: Path
) -> None:
    one = publish(FrozenChain(store), with_meter(10.0), asked(tmp_path, key), now=NOW)
    place = row_of(one, sequence=1)
    write_frozen(store, place)  # the same once more: an insert that was tried again
    with pytest.raises(PlaceTakenError, match="freeze again"):
        write_frozen(store, replace(place, hash="ab" * 32))
    assert len(read_chain(Reader(store))) == 1


def test_a_chain_that_was_read_once_takes_many_reports_and_notices_who_else_freezes(
    store: Client, tmp_path: Path, key: Path
) -> None:
    chain, asking = FrozenChain(store), asked(tmp_path, key)
    first = [publish(chain, one, asking, now=NOW) for one in (with_meter(10.0), november(with_meter(11.0)))]
    assert [one.frozen and one.frozen.sequence for one in first] == [1, 2]
    assert len(frozen_lines(store)) == 2
    of_one, of_another = (replace(with_meter(9.0), party=party) for party in ("one", "another"))
    publish(FrozenChain(store), of_one, asked(tmp_path / "elsewhere", key), now=NOW)
    with pytest.raises(PlaceTakenError, match="as number 3 meanwhile; freeze again"):
        publish(chain, of_another, asked(tmp_path / "another", key), now=NOW)
    assert len(frozen_lines(store)) == 3


def row_of(published: Published, *, sequence: int) -> FrozenRow:
    assert published.frozen is not None
    record = published.frozen.record
    return FrozenRow(
        sequence=sequence, report=record["report"], site=record["site"], period=record["period"]["text"],
        restatement=1, approver=record["approver"], frozen_at=NOW, previous=record["previous"],
        hash=published.frozen.hash, signature=published.frozen.signature, public_key=published.frozen.public_key,
        record=stored_text(published.frozen),
    )  # fmt: skip


def test_a_report_of_a_month_that_is_not_over_is_not_frozen(store: Client, tmp_path: Path, key: Path) -> None:
    open_month = replace(with_meter(10.0), complete=False)
    with pytest.raises(ValueError, match="2026-10 is not over; it can be frozen from 1 November 2026 00:00 on"):
        publish(FrozenChain(store), open_month, asked(tmp_path, key), now=NOW)
    assert read_chain(Reader(store)).is_empty()


def test_files_of_a_frozen_report_are_never_overwritten(store: Client, tmp_path: Path, key: Path) -> None:
    (tmp_path / "example-2026-10-r1.json").write_text("somebody else's")
    with pytest.raises(FileExistsError, match="never overwritten: give another folder"):
        publish(FrozenChain(store), with_meter(10.0), asked(tmp_path, key), now=NOW)
    assert read_chain(Reader(store)).is_empty()


@pytest.mark.usefixtures("store")
def test_the_verbs_freeze_list_and_verify(door: DoorUnderTest, tmp_path: Path) -> None:
    address = door.address("ingest")  # reports may not write
    env = {
        "KVANDAL_STORE_URL": address.url, "KVANDAL_STORE_USER": address.user,
        "KVANDAL_STORE_DATABASE": address.database, "KVANDAL_STORE_PASSWORD": address.password,
    }  # fmt: skip
    run, out, key = CliRunner(), tmp_path / "out", tmp_path / "officer.key"
    made = run.invoke(main, ["report", "key", str(key)], env=env)
    assert (made.exit_code, made.stdout) == (0, f"{key}.pub\n")
    asked_for = ["report", "heat", "--period", "2026-10", "--out", str(out), "--format", "json,csv"]
    refused = run.invoke(main, [*asked_for, "--freeze"], env=env)
    assert (refused.exit_code, "--freeze needs --approver NAME and --key FILE" in refused.stderr) == (2, True)
    freezing = ["--freeze", "--approver", "Heat Officer", "--key", str(key)]
    done = run.invoke(main, [*asked_for, *freezing], env=env)
    assert (done.exit_code, done.stdout.splitlines()) == (
        0, [str(out / f"heat-2026-10-r1.{ending}") for ending in ("json", "csv", "frozen.json")],
    ), done.output  # fmt: skip
    listed = run.invoke(main, ["report", "frozen"], env=env)
    assert listed.stdout.startswith("   1  heat 2026-10 restatement 1, Unnamed site, approved by Heat Officer at 20")
    checked = ["report", "verify", str(out / "heat-2026-10-r1.csv"), "--public-key", f"{key}.pub", "--chain"]
    assert run.invoke(main, checked, env=env).exit_code == 0
    envelope = out / "heat-2026-10-r1.frozen.json"
    forged = json.loads(envelope.read_text())
    forged["record"]["approver"] = "Nobody"
    envelope.chmod(0o644)
    envelope.write_text(json.dumps(forged))
    found = run.invoke(main, ["report", "verify", str(envelope)], env=env)
    assert (found.exit_code, "was changed after it was frozen" in found.stderr) == (1, True)


def test_a_chain_signed_by_two_approvers_is_checked_against_both_keys(store: Client, tmp_path: Path, key: Path) -> None:
    other = Ed25519PrivateKey.generate()
    publish(FrozenChain(store), with_meter(10.0), asked(tmp_path, key), now=NOW)
    request = asked(tmp_path, key)
    assert request.freezing is not None
    second = replace(request, freezing=replace(request.freezing, key=other))
    publish(FrozenChain(store), november(with_meter(11.0)), second, now=NOW)
    both = [public_text(other.public_key()), read_public_key(Path(f"{key}.pub"))]
    assert len(frozen_lines(store, trusted=both)) == 2
    with pytest.raises(ForgedError, match="not one that you trust"):
        frozen_lines(store, trusted=both[:1])
    assert [frozen.sequence for frozen in frozen_of(read_chain(Reader(store)))] == [1, 2]
