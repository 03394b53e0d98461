"""Forgetting a person, on the real engine: nothing of the person stays, and nothing of anybody else goes."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from clickhouse_connect.driver.client import Client

from collectors.pseudonyms import NameKind, PseudonymKey, PseudonymKeyError, read_key
from kvandal.forgetting import Forgetting, forget
from kvandal.settings import ClientSettings, Secret, StoreSettings
from storage.client import StoreRefusedError, StoreUnavailableError
from storage.forgetting import Found, find
from storage.forgetting import forget as forget_pseudonyms
from storage.writer import Writer
from tests.conftest import DoorUnderTest

NOW_S = int(datetime.now(UTC).timestamp())
MONTH_S = 31 * 86_400


@pytest.fixture
def key_files(tmp_path: Path) -> list[Path]:
    """The key of today and the one before it."""
    files = [tmp_path / "key-1", tmp_path / "key-2"]
    for epoch, file in enumerate(files, 1):
        file.write_text(f"k{epoch} {bytes(range(epoch, epoch + 32)).hex()}\n")
        file.chmod(0o600)
    return files


@pytest.fixture
def keys(key_files: list[Path]) -> list[PseudonymKey]:
    return [read_key(file) for file in key_files]


def settings_of(door: DoorUnderTest, role: str = "admin") -> ClientSettings:
    return ClientSettings(store=StoreSettings(url=door.url, user=role, password=Secret(f"{role} password")))


class Rows:
    """Puts rows into a table as ingest does; each call is one insert."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._inserts = 0

    def put(self, table: str, *rows: Mapping[str, object]) -> None:
        self._inserts += 1
        self._writer.insert_messages(table, [json.dumps(row).encode() for row in rows], token=f"insert {self._inserts}")

    def job(self, job: str, owner: str, *, start_s: int = NOW_S, received_s: int = NOW_S, **more: object) -> None:
        row = {"job": job, "resource": 7, "start": start_s, "owner": owner, "received_at": received_s}
        self.put("jobs", row | more)

    def event(self, id_: str, text: str, **attributes: str) -> None:
        self.put(
            "events",
            {"id": id_, "resource": 7, "time": NOW_S, "kind": "note", "text": text, "attributes": attributes},
        )


@pytest.fixture
def rows(store: Client) -> Rows:
    return Rows(Writer(store))


def jobs_in(store: Client) -> list[str]:
    return sorted(job for (job,) in store.query("SELECT job FROM jobs").result_rows)


def count_of(forgetting: Forgetting, table: str) -> int:
    return sum(found.rows for found in forgetting.result.found if found.table == table)


def test_all_jobs_of_a_person_go_under_every_key_and_those_of_others_stay(
    door: DoorUnderTest, store: Client, rows: Rows, keys: list[PseudonymKey], key_files: list[Path]
) -> None:
    first, second = keys
    rows.job("1", first.pseudonym(NameKind.USER, "alice"), start_s=NOW_S - 3 * MONTH_S)
    rows.job("2", second.pseudonym(NameKind.USER, "alice"))
    rows.job("3", second.pseudonym(NameKind.USER, "bob"))
    rows.job("4", "")
    result = forget(settings_of(door), "alice", key_files, dry_run=False)
    assert jobs_in(store) == ["3", "4"]
    assert count_of(result, "jobs") == 2
    assert result.is_done
    assert result.keys == ("k1", "k2")
    assert any("nothing is left" in sentence for sentence in result.sentences())


def test_what_was_computed_of_a_person_s_jobs_goes_with_them(
    door: DoorUnderTest, store: Client, rows: Rows, keys: list[PseudonymKey], key_files: list[Path]
) -> None:
    pod = keys[1].pseudonym(NameKind.POD, "team/alice")
    rows.job("1", keys[0].pseudonym(NameKind.USER, "alice"))
    rows.job("2", keys[0].pseudonym(NameKind.USER, "bob"))
    for job in ("1", "2", f"{pod}@20270115T080000Z"):  # of the last one the hold has expired already
        times = dict.fromkeys(("start", "end", "told_at", "computed_at"), NOW_S)
        seconds = {"gpus": 1, "gpu_seconds": 60.0, "observed_gpu_seconds": 60.0}
        energy = {"job": job, "gpu_joules": 9.0, "estimated_joules": 0.0, **times, **seconds}
        rows.put("job_energy", energy)

    for name in ("alice", "team/alice"):
        assert forget(settings_of(door), name, key_files, dry_run=False).is_done

    assert store.query("SELECT job FROM job_energy").result_rows == [("2",)]
    assert jobs_in(store) == ["2"]


def test_a_trial_counts_and_changes_nothing(
    door: DoorUnderTest, store: Client, rows: Rows, keys: list[PseudonymKey], key_files: list[Path]
) -> None:
    rows.job("1", keys[0].pseudonym(NameKind.USER, "alice"))
    result = forget(settings_of(door), "alice", key_files, dry_run=True)
    assert count_of(result, "jobs") == 1
    assert not result.is_done
    assert "jobs: 1 rows would be deleted" in result.sentences()
    assert jobs_in(store) == ["1"]


def test_under_another_key_nobody_is_found(
    door: DoorUnderTest, store: Client, rows: Rows, keys: list[PseudonymKey], key_files: list[Path]
) -> None:
    rows.job("1", keys[0].pseudonym(NameKind.USER, "alice"))
    result = forget(settings_of(door), "alice", key_files[1:], dry_run=False)
    assert result.result.rows_found == 0
    assert jobs_in(store) == ["1"]


def test_a_job_goes_wherever_it_names_the_person(store: Client, rows: Rows, keys: list[PseudonymKey]) -> None:
    bob_owner = keys[0].pseudonym(NameKind.USER, "bob")
    for name in ("alice", "bob"):
        named = {kind: keys[0].pseudonym(kind, name) for kind in NameKind}
        rows.job(named[NameKind.USER], bob_owner)
        rows.job(f"{named[NameKind.POD]}@20270115T080000Z", bob_owner)
        rows.job(f"{name} 1", bob_owner, name=named[NameKind.JOB_NAME])
        rows.job(f"{name} 2", bob_owner, customer=named[NameKind.ACCOUNT])
        rows.job(f"{name} 3", bob_owner, attributes={"account": named[NameKind.ACCOUNT]})
        rows.job(f"{name} 4", bob_owner, attributes={"namespace": named[NameKind.NAMESPACE], "state": "failed"})
    found = forget_pseudonyms(store, keys[0].all_pseudonyms("alice"))
    assert Found("jobs", 6, goes=True) in found.found
    assert found.left == ()
    pod = keys[0].pseudonym(NameKind.POD, "bob")
    others = [bob_owner, f"{pod}@20270115T080000Z", *(f"bob {n}" for n in range(1, 5))]
    assert jobs_in(store) == sorted(others)


def test_an_older_version_of_a_row_does_not_come_to_light(store: Client, rows: Rows, keys: list[PseudonymKey]) -> None:
    """The job was first told without its owner; both versions lie in parts that nobody has merged."""
    rows.job("1", "", received_s=NOW_S - 100)
    rows.job("1", keys[0].pseudonym(NameKind.USER, "alice"))
    forget_pseudonyms(store, keys[0].all_pseudonyms("alice"))
    assert store.query("SELECT count() FROM jobs FINAL").first_row == (0,)


def test_events_stay_and_lose_the_pseudonym_only(store: Client, rows: Rows, keys: list[PseudonymKey]) -> None:
    pseudonym = keys[0].pseudonym(NameKind.USER, "alice")
    other = keys[0].pseudonym(NameKind.USER, "bob")
    rows.event("1", f"process of {pseudonym} ended", owner=pseudonym, pid="12")
    rows.event("2", f"process of {other} ended", owner=other, pid="13")
    result = forget_pseudonyms(store, keys[0].all_pseudonyms("alice"))
    assert Found("events", 1, goes=False) in result.found
    assert store.query("SELECT id, text, attributes FROM events ORDER BY id").result_rows == [
        ("1", "process of  ended", {"pid": "12"}),
        ("2", f"process of {other} ended", {"owner": other, "pid": "13"}),
    ]


def test_what_comes_in_afterwards_is_found_by_the_next_call(
    store: Client, rows: Rows, keys: list[PseudonymKey]
) -> None:
    pseudonyms = keys[0].all_pseudonyms("alice")
    rows.job("1", pseudonyms[0])
    assert forget_pseudonyms(store, pseudonyms).rows_left == 0
    rows.job("1", pseudonyms[0])
    assert sum(found.rows for found in find(store, pseudonyms)) == 1
    assert forget_pseudonyms(store, pseudonyms).rows_left == 0


def test_a_table_of_a_later_version_is_not_left_out(store: Client, rows: Rows, keys: list[PseudonymKey]) -> None:
    store.command("CREATE TABLE later (job String, owner LowCardinality(String)) ENGINE = MergeTree ORDER BY job")
    try:
        rows.put("later", {"job": "1", "owner": keys[0].pseudonym(NameKind.USER, "alice")})
        result = forget_pseudonyms(store, keys[0].all_pseudonyms("alice"))
        assert Found("later", 1, goes=True) in result.found
        assert store.query("SELECT count() FROM later").first_row == (0,)
    finally:
        store.command("DROP TABLE later SYNC")


def test_only_pseudonyms_are_let_into_statements(store: Client) -> None:
    for texts in ([], ["alice"], [""], ["k1-" + "a" * 25, "x') OR 1 --"]):
        with pytest.raises(ValueError, match="no pseudonyms"):
            forget_pseudonyms(store, texts)


def test_a_reader_may_not_forget(
    door: DoorUnderTest, store: Client, rows: Rows, keys: list[PseudonymKey], key_files: list[Path]
) -> None:
    rows.job("1", keys[0].pseudonym(NameKind.USER, "alice"))
    with pytest.raises(StoreRefusedError):
        forget(settings_of(door, "reports"), "alice", key_files, dry_run=False)
    assert jobs_in(store) == ["1"]


def test_a_store_that_is_away_is_said(key_files: list[Path]) -> None:
    away = ClientSettings(store=StoreSettings(url="http://127.0.0.1:1"))
    with pytest.raises(StoreUnavailableError):
        forget(away, "alice", key_files, dry_run=True)


def test_nothing_is_done_without_a_name_or_a_good_key(
    door: DoorUnderTest, tmp_path: Path, key_files: list[Path]
) -> None:
    for user, files in (("", key_files), (" ", key_files), ("alice", []), ("alice", [tmp_path / "none"])):
        with pytest.raises(PseudonymKeyError):
            forget(settings_of(door), user, files, dry_run=False)


def test_the_account_says_what_is_out_of_reach_and_never_the_name(
    door: DoorUnderTest, store: Client, key_files: list[Path]
) -> None:
    assert store
    result = forget(settings_of(door), "alice", key_files, dry_run=False)
    text = "\n".join(result.sentences())
    for word in ("Kafka keeps messages of jobs for 30 days", "backups", "spools", "system.mutations"):
        assert word in text
    assert "alice" not in text
    assert "alice" not in repr(result)
    assert bytes(range(1, 33)).hex() not in msgspec.json.encode(text).decode()
