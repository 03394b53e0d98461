"""Registers on the real engine: versions are added and never changed, and are read as they were known at a cut-off."""

import json
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import product
from pathlib import Path
from random import Random
from threading import Thread

import polars as pl
import pytest
from clickhouse_connect.driver.client import Client

from collectors.simulator import SimulatorSource
from kvandal.importing import (
    ImportRequest,
    ImportResult,
    digest_of,
    import_register,
    list_versions,
    parse_valid_from,
    version_lines,
)
from kvandal.settings import ClientSettings, Secret, StoreSettings
from reports.period import Period
from reports.registers_import.documents import template
from reports.registers_import.problems import RegisterFileError
from reports.registers_import.rows import read_rows
from reports.settlement import GRID_METERS, LINKS, reconcile
from simulation import Simulation, Site
from storage.client import StoreAddress, StoreRefusedError, connect
from storage.forgetting import forget
from storage.reader import Reader
from storage.register_kinds import DECLARATIONS, RegisterKind
from storage.registers import ALWAYS, RegisterRow, RegisterVersion, read_register, read_versions, write_version
from stream.topics import INVENTORY
from tests.conftest import DoorUnderTest
from tests.servers.efficiency_site import tell

NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)
DAY = timedelta(days=1)
WATER = "meter,first_day,last_day,volume_cubic_metres,potable,withdrawn\n"
OCTOBER = WATER + "W,2026-10-01,2026-10-31,412.7,yes,\nV,2026-10-01,2026-10-31,80,no,\n"


def settings_of(address: StoreAddress) -> ClientSettings:
    store = StoreSettings(
        url=address.url, user=address.user, password=Secret(address.password), database=address.database
    )
    return ClientSettings(store=store)


@dataclass(frozen=True, slots=True)
class Desk:
    """Imports texts as files, as the role that may insert, and reads as the role of reports."""

    folder: Path
    door: DoorUnderTest

    def bring(
        self,
        text: str,
        kind: RegisterKind = RegisterKind.WATER,
        *,
        now: datetime = NOON,
        evidence: str = "proof",
        valid_from: datetime = ALWAYS,
        dry_run: bool = False,
    ) -> ImportResult:
        file, proof = self.folder / f"{kind}.csv", self.folder / "evidence.pdf"
        file.write_text(text)
        proof.write_text(evidence)
        request = ImportRequest(kind=kind, file=file, evidence=proof, imported_by="A. Example", valid_from=valid_from)
        return import_register(settings_of(self.door.address("ingest")), request, dry_run=dry_run, now=now)

    def read(
        self, kind: RegisterKind = RegisterKind.WATER, as_of: datetime = NOON, *, valid_at: datetime | None = None
    ) -> pl.DataFrame:
        with closing(connect(self.door.address("reports"))) as client:
            return read_register(Reader(client), kind, as_of, valid_at=valid_at)

    def volumes(self, as_of: datetime = NOON, *, valid_at: datetime | None = None) -> dict[str, float]:
        return dict(self.read(as_of=as_of, valid_at=valid_at).select("meter", "volume_cubic_metres").iter_rows())

    def versions(self) -> pl.DataFrame:
        return list_versions(settings_of(self.door.address("reports")))


@pytest.fixture
def desk(store: Client, door: DoorUnderTest, tmp_path: Path) -> Desk:
    del store  # emptied
    return Desk(tmp_path, door)


def stored_counts(client: Client) -> tuple[int, int]:
    """Rows and versions."""
    found = client.query("SELECT (SELECT count() FROM register_rows), (SELECT count() FROM register_versions)")
    rows, versions = found.result_rows[0]
    return int(rows), int(versions)


# Versions


def test_what_is_imported_is_read_with_its_types_and_where_it_is_from(desk: Desk) -> None:
    result = desk.bring(OCTOBER)
    frame = desk.read()
    assert dict(frame.schema) == DECLARATIONS[RegisterKind.WATER].schema
    row = frame.row(by_predicate=pl.col("meter") == "W", named=True)
    assert (row["volume_cubic_metres"], row["potable"], row["last_day"].isoformat()) == (412.7, True, "2026-10-31")
    assert (row["import_version"], row["import_line"]) == (str(result.version.version), 2)


@pytest.mark.parametrize("kind", RegisterKind)
def test_every_register_is_stored_and_read(desk: Desk, kind: RegisterKind) -> None:
    desk.bring(template(kind), kind)
    frame = desk.read(kind)
    assert dict(frame.schema) == DECLARATIONS[kind].schema
    (row,) = frame.iter_rows(named=True)
    given = dict(zip(*(line.split(",") for line in template(kind).splitlines()), strict=True))
    absent = {column.name for column in DECLARATIONS[kind].columns if row[column.name] is None}
    assert absent == {name for name, text in given.items() if not text}


@pytest.mark.parametrize("kind", RegisterKind)
def test_a_register_without_imports_is_an_empty_frame_of_its_types(desk: Desk, kind: RegisterKind) -> None:
    frame = desk.read(kind)
    assert frame.is_empty()
    assert dict(frame.schema) == DECLARATIONS[kind].schema


def test_a_version_says_when_by_whom_from_what_and_on_which_evidence(desk: Desk) -> None:
    desk.bring(OCTOBER)
    (row,) = desk.versions().iter_rows(named=True)
    assert (row["kind"], row["number"], row["row_count"], row["imported_by"]) == ("water", 1, 2, "A. Example")
    assert (row["imported_at"], row["valid_from"], row["schema_version"]) == (NOON, ALWAYS, 1)
    assert row["file_sha256"] == sha256(OCTOBER.encode()).hexdigest()
    assert row["evidence_sha256"] == sha256(b"proof").hexdigest()
    assert (row["file_name"], row["evidence_name"]) == ("water.csv", "evidence.pdf")


def test_a_version_adds_to_what_was_there_and_a_row_with_the_same_key_corrects(desk: Desk) -> None:
    desk.bring(OCTOBER)
    later = desk.bring(WATER + "W,2026-10-01,2026-10-31,421.7,yes,\nU,2026-10-01,2026-10-31,1,no,\n", now=NOON + DAY)
    assert (later.changes.added, later.changes.corrected) == (1, 1)
    assert desk.volumes(NOON + DAY) == {"W": 421.7, "V": 80.0, "U": 1.0}


def test_a_report_made_again_sees_what_it_saw(desk: Desk) -> None:
    desk.bring(OCTOBER)
    desk.bring(WATER + "W,2026-10-01,2026-10-31,421.7,yes,\n", now=NOON + DAY)
    assert desk.volumes(NOON - timedelta(milliseconds=1)) == {}
    assert desk.volumes(NOON) == {"W": 412.7, "V": 80.0}
    assert desk.volumes(NOON + DAY - timedelta(milliseconds=1)) == {"W": 412.7, "V": 80.0}
    assert desk.volumes(NOON + DAY) == {"W": 421.7, "V": 80.0}


def test_a_withdrawn_row_is_gone_from_then_on_and_may_come_back(desk: Desk) -> None:
    desk.bring(OCTOBER)
    assert desk.bring(WATER + "V,2026-10-01,2026-10-31,80,no,yes\n", now=NOON + DAY).changes.withdrawn == 1
    desk.bring(WATER + "V,2026-10-01,2026-10-31,80,no,no\n", now=NOON + 2 * DAY)
    assert [set(desk.volumes(NOON + number * DAY)) for number in range(3)] == [{"W", "V"}, {"W"}, {"W", "V"}]


def test_a_version_counts_only_from_when_it_is_valid(desk: Desk) -> None:
    header = "contract,contract_kind,party,first_day,last_day,agreed_celsius,heat_price_per_mwh,currency\n"
    kind = RegisterKind.CONTRACTS
    desk.bring(header + "C,heat,A,2026-07-01,,45,120,NOK\n", kind)
    amended = NOON + 30 * DAY
    desk.bring(header + "C,heat,A,2026-07-01,,47,120,NOK\n", kind, now=NOON + DAY, valid_from=amended)
    # A slip in the first version, found later: the amendment stands from its own day on.
    desk.bring(header + "C,heat,A,2026-07-01,,45.5,120,NOK\n", kind, now=NOON + 2 * DAY)

    def agreed(as_of: datetime, valid_at: datetime | None = None) -> float:
        return float(desk.read(kind, as_of, valid_at=valid_at)["agreed_celsius"].item())

    assert agreed(NOON + DAY) == 45.0
    assert agreed(NOON + 2 * DAY) == 45.5
    assert agreed(amended - timedelta(milliseconds=1)) == 45.5
    assert agreed(amended) == 47.0
    assert agreed(amended, valid_at=NOON) == 45.5
    assert agreed(NOON + DAY, valid_at=amended) == 47.0


def test_the_same_file_again_is_recognised(desk: Desk) -> None:
    desk.bring(OCTOBER)
    again = desk.bring(OCTOBER, now=NOON + DAY)
    assert (again.known_as, again.is_stored) == (1, False)
    assert "is version 1 already; nothing is stored" in again.sentences()[-1]
    assert len(desk.versions()) == 1


def test_the_same_file_again_is_recognised_beside_what_is_valid_only_later(desk: Desk) -> None:
    desk.bring(OCTOBER)
    later = WATER + "W,2026-10-01,2026-10-31,400,yes,\n"
    desk.bring(later, now=NOON + DAY, valid_from=NOON)
    assert desk.bring(OCTOBER, now=NOON + 2 * DAY).known_as == 1
    assert desk.bring(later, now=NOON + 2 * DAY, valid_from=NOON).known_as == 2
    assert desk.bring(later, now=NOON + 2 * DAY).changes.corrected == 1


def test_what_is_valid_only_from_a_day_on_cannot_be_withdrawn_for_always(desk: Desk) -> None:
    desk.bring(OCTOBER, valid_from=NOON)
    withdrawal = WATER + "V,2026-10-01,2026-10-31,80,no,yes\n"
    with pytest.raises(RegisterFileError, match="withdraws a row that does not hold"):
        desk.bring(withdrawal, now=NOON + DAY)
    desk.bring(withdrawal, now=NOON + DAY, valid_from=NOON)
    assert set(desk.volumes(NOON + DAY)) == {"W"}


def test_what_overlaps_a_row_that_is_valid_later_is_refused(desk: Desk) -> None:
    desk.bring(OCTOBER, valid_from=NOON)
    with pytest.raises(RegisterFileError, match="overlaps line 2 of version"):
        desk.bring(WATER + "W,2026-10-31,2026-11-30,1,yes,\n", now=NOON + DAY)


def test_the_same_file_with_other_evidence_is_a_version(desk: Desk) -> None:
    desk.bring(OCTOBER)
    assert desk.bring(OCTOBER, now=NOON + DAY, evidence="a better proof").is_stored
    assert desk.versions()["number"].to_list() == [1, 2]
    assert desk.volumes(NOON + DAY) == {"W": 412.7, "V": 80.0}


def test_an_older_file_again_after_a_correction_is_a_correction(desk: Desk) -> None:
    desk.bring(OCTOBER)
    desk.bring(WATER + "W,2026-10-01,2026-10-31,1,yes,\n", now=NOON + DAY)
    back = desk.bring(OCTOBER, now=NOON + 2 * DAY)
    assert (back.is_stored, back.changes.corrected, back.changes.repeated) == (True, 1, 1)
    assert desk.volumes(NOON + 2 * DAY) == {"W": 412.7, "V": 80.0}


def test_a_trial_says_what_would_change_and_stores_nothing(desk: Desk, store: Client) -> None:
    result = desk.bring(OCTOBER, dry_run=True)
    assert (result.changes.added, result.is_stored) == (2, False)
    assert result.sentences()[-1] == "a trial: nothing is stored"
    assert stored_counts(store) == (0, 0)


def test_nothing_that_was_stored_is_ever_changed(desk: Desk, store: Client) -> None:
    desk.bring(OCTOBER)
    everything = "SELECT * FROM register_rows WHERE version = {version:UUID} ORDER BY line"
    first = {"version": desk.versions()["version"][0]}
    before = store.query(everything, parameters=first).result_rows
    desk.bring(WATER + "W,2026-10-01,2026-10-31,1,yes,yes\nV,2026-10-01,2026-10-31,2,no,\n", now=NOON + DAY)
    store.command("OPTIMIZE TABLE register_rows FINAL")
    assert store.query(everything, parameters=first).result_rows == before
    assert len(before) == 2


# What is refused


def test_a_file_with_one_wrong_row_is_not_stored_at_all(desk: Desk) -> None:
    with pytest.raises(RegisterFileError, match=r"line 4: volume_cubic_metres is 'x'"):
        desk.bring(OCTOBER + "U,2026-10-01,2026-10-31,x,no,\n")
    assert desk.versions().is_empty()
    assert desk.volumes() == {}


def test_what_overlaps_a_stored_row_is_refused(desk: Desk) -> None:
    desk.bring(OCTOBER)
    with pytest.raises(RegisterFileError, match=r"line 2: meter W from 2026-10-31T00:00Z overlaps line 2 of version"):
        desk.bring(WATER + "W,2026-10-31,2026-11-30,1,yes,\n", now=NOON + DAY)
    desk.bring(WATER + "W,2026-11-01,2026-11-30,1,yes,\n", now=NOON + DAY)


def test_a_quarter_of_an_hour_within_a_stored_hour_is_refused(desk: Desk) -> None:
    header = "zone,start,duration_minutes,price_per_mwh,currency\n"
    desk.bring(header + "NO4,2026-10-05T00:00Z,60,1,NOK\n", RegisterKind.POWER_PRICES)
    with pytest.raises(RegisterFileError, match="overlaps line 2 of version"):
        desk.bring(header + "NO4,2026-10-05T00:15Z,15,1,NOK\n", RegisterKind.POWER_PRICES, now=NOON + DAY)


def test_to_withdraw_what_nobody_said_is_refused(desk: Desk) -> None:
    with pytest.raises(RegisterFileError, match="line 2: withdraws a row that does not hold"):
        desk.bring(WATER + "W,2026-10-01,2026-10-31,1,no,yes\n")


def test_an_import_needs_somebody_who_answers_for_it_and_evidence(desk: Desk) -> None:
    settings = settings_of(desk.door.address("ingest"))
    file, empty = desk.folder / "water.csv", desk.folder / "empty.pdf"
    file.write_text(OCTOBER)
    empty.touch()
    request = ImportRequest(kind=RegisterKind.WATER, file=file, evidence=file, imported_by=" ")
    with pytest.raises(ValueError, match="give --by NAME"):
        import_register(settings, request)
    with pytest.raises(ValueError, match=r"empty\.pdf is empty"):
        import_register(settings, replace(request, imported_by="A. Example", evidence=empty))
    with pytest.raises(FileNotFoundError):
        import_register(settings, replace(request, imported_by="A. Example", evidence=desk.folder / "none.pdf"))


def test_who_only_reads_cannot_import(desk: Desk) -> None:
    file = desk.folder / "water.csv"
    file.write_text(OCTOBER)
    request = ImportRequest(kind=RegisterKind.WATER, file=file, evidence=file, imported_by="A. Example")
    with pytest.raises(StoreRefusedError):
        import_register(settings_of(desk.door.address("reports")), request)


def test_an_import_from_before_the_last_one_is_refused(desk: Desk) -> None:
    """It would change what a report saw that was made between the two."""
    desk.bring(OCTOBER)
    with pytest.raises(ValueError, match=r"the last import of water was at 2026-11-10 12:00:00Z"):
        desk.bring(WATER + "U,2026-10-01,2026-10-31,1,no,\n", now=NOON - timedelta(milliseconds=1))


def test_the_stores_own_clock_says_when_a_version_was_imported(desk: Desk) -> None:
    file = desk.folder / "water.csv"
    file.write_text(OCTOBER)
    request = ImportRequest(kind=RegisterKind.WATER, file=file, evidence=file, imported_by="A. Example")
    before = datetime.now(UTC) - timedelta(milliseconds=1)  # what is less is cut off
    told = import_register(settings_of(desk.door.address("ingest")), request).version.imported_at
    assert before <= told <= datetime.now(UTC)
    assert desk.versions()["imported_at"].to_list() == [told]


# Breaking off


def version_of(text: str) -> RegisterVersion:
    digest = sha256(text.encode()).hexdigest()
    return RegisterVersion(
        kind=RegisterKind.WATER, imported_at=NOON, imported_by="A. Example", file_name="f", file_sha256=digest,
        evidence_name="e", evidence_sha256=digest, row_count=2,
    )  # fmt: skip


def test_a_version_that_was_not_written_to_its_end_is_not_seen(desk: Desk, store: Client) -> None:
    write_version(store, version_of(OCTOBER), read_rows("f", OCTOBER.encode(), RegisterKind.WATER))
    store.command("TRUNCATE TABLE register_versions")  # as if the import had been killed before its last insert
    assert desk.volumes() == {}
    assert desk.bring(OCTOBER, now=NOON + DAY).changes.added == 2
    assert desk.volumes(NOON + DAY) == {"W": 412.7, "V": 80.0}


def test_a_version_written_twice_is_there_once(store: Client) -> None:
    rows = read_rows("f", OCTOBER.encode(), RegisterKind.WATER)
    for _ in range(3):
        write_version(store, version_of(OCTOBER), rows)
    assert stored_counts(store) == (2, 1)


def test_two_who_import_at_once_both_have_their_version(desk: Desk, store: Client) -> None:
    texts = [WATER + f"W{number},2026-10-01,2026-10-31,{number},no,\n" for number in range(6)]

    def write(text: str) -> None:
        with closing(connect(desk.door.address("ingest"))) as client:
            version = replace(version_of(text), row_count=1)
            write_version(client, version, read_rows("f", text.encode(), RegisterKind.WATER))

    threads = [Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert desk.volumes() == {f"W{number}": float(number) for number in range(6)}
    assert sorted(read_versions(Reader(store))["number"]) == [1, 2, 3, 4, 5, 6]


# Reading


@pytest.mark.parametrize("seed", range(3))
def test_which_row_holds_is_what_following_the_imports_one_by_one_gives(store: Client, seed: int) -> None:
    random = Random(seed)  # noqa: S311 - no secret
    told: list[tuple[RegisterVersion, tuple[RegisterRow, ...]]] = []
    for number in range(12):
        jobs = random.sample("ABCDEF", random.randint(1, 4))
        lines = [f"{job},{number},{random.choice(['yes', 'no', ''])}" for job in jobs]
        text = "job,tokens,withdrawn\n" + "\n".join(lines) + "\n"
        rows = read_rows("f", text.encode(), RegisterKind.JOB_TOKENS)
        version = replace(
            version_of(text),
            kind=RegisterKind.JOB_TOKENS,
            imported_at=NOON + number * DAY,
            valid_from=random.choice([ALWAYS, ALWAYS, NOON + random.randint(0, 15) * DAY]),
            row_count=len(rows),
        )
        write_version(store, version, rows)
        told.append((version, rows))
    for known, valid in product(range(-1, 13, 2), range(0, 16, 3)):
        as_of, valid_at = NOON + known * DAY, NOON + valid * DAY
        counting = [pair for pair in told if pair[0].imported_at <= as_of and pair[0].valid_from <= valid_at]
        expected: dict[str, int] = {}
        for _, rows in sorted(counting, key=lambda pair: (pair[0].valid_from, pair[0].imported_at)):
            for row in rows:
                document = json.loads(row.text)
                expected[document["job"]] = document["tokens"]
                if row.withdrawn:
                    del expected[document["job"]]
        frame = read_register(Reader(store), RegisterKind.JOB_TOKENS, as_of, valid_at=valid_at)
        assert dict(frame.select("job", "tokens").iter_rows()) == expected


def test_only_rows_about_the_asked_time_come_and_days_a_day_wider(desk: Desk, store: Client) -> None:
    rows = "".join(f"W,2026-10-{day:02},2026-10-{day:02},{day},no,\n" for day in range(1, 32))
    desk.bring(WATER + rows)
    within = (datetime(2026, 10, 10, tzinfo=UTC), datetime(2026, 10, 12, tzinfo=UTC))
    frame = read_register(Reader(store), RegisterKind.WATER, NOON, within=within)
    assert frame["volume_cubic_metres"].to_list() == [9.0, 10.0, 11.0, 12.0]


def test_a_row_that_a_correction_moved_out_of_the_asked_time_does_not_come_back(desk: Desk, store: Client) -> None:
    desk.bring(WATER + "W,2026-10-01,2026-10-31,31,no,\n")
    desk.bring(WATER + "W,2026-10-01,2026-10-05,5,no,\n", now=NOON + DAY)
    within = (datetime(2026, 10, 20, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC))
    assert read_register(Reader(store), RegisterKind.WATER, NOON + DAY, within=within).is_empty()
    assert len(read_register(Reader(store), RegisterKind.WATER, NOON, within=within)) == 1


def test_a_person_who_is_forgotten_is_forgotten_here_too(desk: Desk, store: Client) -> None:
    pseudonym = "k1-" + "a" * 26
    desk.bring(f"job,tokens\n{pseudonym}@train,5\n7,6\n", RegisterKind.JOB_TOKENS)
    forget(store, [pseudonym])
    assert sorted(desk.read(RegisterKind.JOB_TOKENS)["job"].to_list()) == ["7", "@train"]


def test_text_of_any_alphabet_and_every_mark_comes_back(desk: Desk) -> None:
    meter = """Målar "β" 100% {x:String} \\ '; DROP TABLE register_rows; --"""
    quoted = '"' + meter.replace('"', '""') + '"'
    desk.bring(WATER + f"{quoted},2026-10-01,2026-10-31,1,no,\n")
    assert desk.volumes() == {meter: 1.0}


def test_a_settlement_of_a_year_is_imported_read_and_reconciled(desk: Desk, store: Client) -> None:
    year = Period.parse("2026")
    starts = [year.start + number * timedelta(minutes=15) for number in range(365 * 96)]
    lines = "".join(f"M,{start:%Y-%m-%dT%H:%M}Z,{1000 + number % 7},import\n" for number, start in enumerate(starts))
    assert desk.bring("meter,start,energy_kwh,direction\n" + lines, RegisterKind.SETTLEMENT).changes.added == 35_040
    october = Period.parse("2026-10")
    settled = read_register(Reader(store), RegisterKind.SETTLEMENT, NOON, within=(october.start, october.end))
    inside = settled.filter(pl.col("start").is_between(october.start, october.end, closed="left"))
    ours = inside.select(
        time="start",
        resource=pl.lit(1, pl.UInt64),
        joules=pl.col("energy_kwh") * 3.6e6,
        whole=pl.lit(value=True),
        observed_s=pl.lit(900.0),
        estimated_joules=pl.lit(0.0),
        quantisation_joules=pl.lit(None, pl.Float64),
    )
    links = pl.LazyFrame([("M", 1, 0.005)], schema=dict(LINKS), orient="row")
    grid = pl.LazyFrame([("M", 0.002)], schema=dict(GRID_METERS), orient="row")
    told = reconcile(settled.lazy(), ours.lazy(), links, grid, october).meters.row(0, named=True)
    assert (told["quarters"], told["paired_quarters"], told["coverage"]) == (2980, 2980, 1.0)
    assert told["residual_kwh"] == pytest.approx(0.0, abs=1e-6)


# Listing


def test_versions_are_listed_and_found_by_the_file_that_proves_them(desk: Desk) -> None:
    desk.bring(OCTOBER, evidence="october")
    desk.bring(template(RegisterKind.JOB_TOKENS), RegisterKind.JOB_TOKENS, evidence="log", now=NOON + DAY)
    lines = version_lines(desk.versions())
    assert [line.partition(":")[0] for line in lines] == ["job_tokens 1", "water 1"]
    proof = desk.folder / "october.pdf"
    proof.write_text("october")
    assert version_lines(desk.versions(), prove=proof) == lines[1:]
    assert digest_of(proof)[:12] in lines[1]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        (None, ALWAYS),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T00:00+01:00", datetime(2026, 10, 31, 23, tzinfo=UTC)),
    ],
)
def test_the_begin_of_validity_is_a_day_or_a_time_with_its_zone(text: str | None, moment: datetime) -> None:
    assert parse_valid_from(text) == moment


def test_a_begin_of_validity_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="--valid-from is '2026-11-01T00:00', which has no time zone"):
        parse_valid_from("2026-11-01T00:00")


# Names of what is not there


def test_an_import_says_which_rows_name_what_is_not_there(desk: Desk, store: Client) -> None:
    """Stored all the same: the topology, or the contract, may come later."""
    tell(store, INVENTORY, [*SimulatorSource(Simulation(Site.build(72, 1), 0)).inventory()])
    (rack,) = store.query("SELECT min(identity) FROM inventory WHERE kind = 'rack'").result_rows[0]
    header = "contract,resource_kind,resource,start\n"
    rows = f"SLA-1,rack,{rack},2026-10-01T00:00Z\nSLA-9,rack,R-404,2026-10-01T00:00Z\n"
    desk.bring(
        "contract,contract_kind,party,first_day,unit,target_percent,minimum_outage_s,credit_tiers,unknown_counts_as\n"
        "SLA-1,sla,customer A,2026-07-01,node,99.5,60,99.5:10,down\n",
        RegisterKind.CONTRACTS,
    )
    result = desk.bring(header + rows, RegisterKind.ALLOCATIONS)
    assert result.is_stored
    of_rack, of_contract = result.unknown
    assert of_rack == (
        "allocations: rack 'R-404' is not in the topology (line 3); the row has no effect: correct its identity, or "
        "bring what it names into the topology"
    )
    assert of_contract == (
        "allocations: contract 'SLA-9' is no SLA contract of the register contracts (line 3); the row has no effect: "
        "correct its number, or import the contract"
    )
    assert result.sentences()[1] == f"to be put right: {of_rack}"
    known = desk.bring(header + rows.splitlines()[0] + "\n", RegisterKind.ALLOCATIONS, now=NOON + DAY)
    assert known.unknown == ()
