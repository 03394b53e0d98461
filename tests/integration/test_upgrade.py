"""Two versions of the program at once, as during an upgrade: two layouts files, two processes, one broker and store."""

import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from catalogue import RACK, known_layouts
from storage import schema
from storage.client import StoreAddress, connect
from stream.frame import seal
from stream.rows import pack
from tests.servers.kafka import KafkaCluster
from tests.servers.newer_program import COLUMN, NewerProgram
from tests.servers.stack import Running, StoreServer, fresh_topics, publish, run, start_ingest, until

ABSENT = 2**32 - 1
NOW_S = time.time_ns() // 10**9
EPOCH_MS = NOW_S * 1000 - 3_600_000
SETTINGS = {"KVANDAL_INGEST_INSERT_AGE_S": "1", "KVANDAL_INGEST_SESSION_TIMEOUT_S": "6"}

_sources = count(1)


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> NewerProgram:
    return NewerProgram.make(tmp_path_factory.mktemp("newer"))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, newer: NewerProgram) -> Iterator[StoreAddress]:
    """A store that this version made and the newer one has brought up to date: the first step of an upgrade."""
    with StoreServer.start(tmp_path_factory.mktemp("store") / "data") as server:
        admin = server.address()
        schema.apply(connect(admin))
        settings = {"KVANDAL_STORE_PASSWORD": admin.password, **newer.environment}
        applied = run("schema", "apply", "--url", admin.url, "--user", admin.user, settings=settings)
        assert applied.code == 0, applied.err
        yield server.address("ingest")


@pytest.fixture
def store(address: StoreAddress) -> Client:
    return connect(StoreAddress(address.url, "admin", "admin password"))


@pytest.fixture
def kafka(apache_kafka: KafkaCluster) -> Iterator[str]:
    with fresh_topics(apache_kafka.bootstrap):
        yield apache_kafka.bootstrap


def test_the_newer_program_has_one_layout_more(newer: NewerProgram) -> None:
    """And the one that both know stands in both files: otherwise nothing below would show anything."""
    theirs = (newer.folder / "catalogue" / "layouts.json").read_text()
    assert theirs.count('{"table": "rack"') == len(known_layouts()["rack"]) + 1
    assert f"{known_layouts()['rack'][-1].fingerprint:016x}" in theirs
    assert COLUMN in theirs


def test_a_newer_ingest_stores_what_older_agents_send_with_the_new_reading_absent(
    kafka: str, address: StoreAddress, store: Client, newer: NewerProgram, tmp_path: Path
) -> None:
    source = next(_sources)
    publish(kafka, RACK.topic, [older_frame(source, sequence=n, watts=100 + n) for n in range(5)], key=source)
    newer.send_rack_frames(kafka, source=source + 1000, epoch_ms=EPOCH_MS, first_s=NOW_S - 60, watts=[1, 2])

    with start_newer(newer, tmp_path, kafka, address):
        until(lambda: len(stored(store, source)) == 5, what="the older frames are stored")
        until(lambda: len(stored(store, source + 1000)) == 2, what="the newer frames are stored")

    assert stored(store, source) == [(100 + n, ABSENT) for n in range(5)]
    assert stored(store, source + 1000) == [(1, 2), (2, 3)]


def test_what_newer_agents_send_is_parked_by_an_older_ingest_and_stored_once_by_a_newer_one(
    kafka: str, address: StoreAddress, store: Client, newer: NewerProgram, tmp_path: Path
) -> None:
    source = next(_sources)
    newer.send_rack_frames(kafka, source=source, epoch_ms=EPOCH_MS, first_s=NOW_S - 60, watts=[10, 20, 30])
    publish(kafka, RACK.topic, [older_frame(source + 1000, sequence=0, watts=7)], key=source)

    with start_ingest(tmp_path, "older", kafka, address, SETTINGS) as older:
        until(lambda: outcomes(store, source) == {"parked": 3}, what="what is unknown is parked")
        until(lambda: stored(store, source + 1000) == [(7, ABSENT)], what="its neighbour is stored")
        assert older.stop() == 0  # three parked frames of three are no storm
    assert stored(store, source) == []
    choice = ["dead-letters", "replay", "--reason", "unknown_layout", "--broker", kafka, "--yes"]

    with start_newer(newer, tmp_path, kafka, address):
        replayed = run(*choice, settings=newer.environment)
        assert "3 dead letters sent again" in replayed.err
        until(lambda: len(stored(store, source)) == 3, what="what was parked is stored")
        assert "0 dead letters sent again" in run(*choice, settings=newer.environment).err

    assert stored(store, source) == [(10, 11), (20, 21), (30, 31)]
    assert outcomes(store, source) == {"parked": 3, "stored": 3}


def test_both_in_one_group_store_every_row_once_whoever_gets_the_partition(
    kafka: str, address: StoreAddress, store: Client, newer: NewerProgram, tmp_path: Path
) -> None:
    """The middle of a rollout: the older one is killed with the topic in its hands, the newer one replays its plan."""
    source = next(_sources)
    with start_ingest(tmp_path, "older", kafka, address, SETTINGS) as older:
        publish(kafka, RACK.topic, [older_frame(source, sequence=n, watts=n) for n in range(20)], key=source)
        until(lambda: len(stored(store, source)) == 20, what="the older one stores")
        newer.send_rack_frames(kafka, source=source + 1000, epoch_ms=EPOCH_MS, first_s=NOW_S - 60, watts=[5])
        until(lambda: outcomes(store, source + 1000) == {"parked": 1}, what="the newer frame is parked")
        older.kill()
    with start_newer(newer, tmp_path, kafka, address) as running:
        publish(kafka, RACK.topic, [older_frame(source, sequence=n, watts=n) for n in range(20, 40)], key=source)
        until(lambda: len(stored(store, source)) == 40, what="the newer one goes on")
        assert running.stop() == 0

    assert stored(store, source) == [(n, ABSENT) for n in range(40)]
    assert outcomes(store, source + 1000) == {"parked": 1}  # a plan is judged by the layouts of who made it


# --- what is sent and what is stored


def start_newer(newer: NewerProgram, folder: Path, bootstrap: str, address: StoreAddress) -> Running:
    return start_ingest(folder, "newer", bootstrap, address, {**SETTINGS, **newer.environment})


def older_frame(source: int, *, sequence: int, watts: int) -> bytes:
    rows = pack(RACK, [source], [NOW_S - 60 + sequence], {"power_watts": [float(watts)]})
    return seal(RACK, rows, source=source, epoch_ms=EPOCH_MS, sequence=sequence, ticks=1, sent_ms=EPOCH_MS)


def stored(store: Client, source: int) -> list[tuple[int, ...]]:
    """Power and the newer reading of every row, in order of time."""
    sql = f"SELECT power_watts_raw, {COLUMN} FROM rack WHERE resource = {{source:UInt64}} ORDER BY time"  # noqa: S608
    return [tuple(row) for row in store.query(sql, parameters={"source": source}).result_rows]


def outcomes(store: Client, source: int) -> dict[str, int]:
    sql = "SELECT outcome, count() FROM frames WHERE source = {source:UInt64} GROUP BY outcome"
    return {name: lines for name, lines in store.query(sql, parameters={"source": source}).result_rows}  # noqa: C416
