"""Back-up and restore of the embedded store on the real engine and Apache Kafka, judged by every byte and by the audit.

A restored store is behind the log's readers. What was stored after the back-up must come again, and nothing twice.
"""

import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from clickhouse_connect.driver.client import Client

from catalogue import GPU
from kvandal.backing_up import GatedWriter, PlanGate, back_up, rewind_to_store
from kvandal.broker import tied_to_parent
from kvandal.settings import KafkaSettings
from storage import schema
from storage.audit import Auditor, TableAudit
from storage.backup import MANIFEST, BackupError, read_manifest
from storage.client import StoreAddress, connect
from stream.ingest import Insert
from stream.log import LogUnavailableError, Partition
from stream.messages import EventMessage, encode_message
from stream.rows import Rows, absent_rows
from stream.topics import EVENTS
from tests.servers.kafka import KafkaCluster
from tests.servers.ports import free_port
from tests.servers.stack import (
    STOP_TIMEOUT_S,
    Fleet,
    Frame,
    Loader,
    StoreServer,
    assert_minutes_agree,
    environment,
    fresh_topics,
    publish,
    start_ingest,
    stored_rows,
    until,
)

logger = logging.getLogger(__name__)

SEED = time.time_ns() % 1_000_000
BACKUPS = 4
RESTORE = "import sys, pathlib; from kvandal.backing_up import restore; restore(*map(pathlib.Path, sys.argv[1:]))"
SETTINGS = {
    "KVANDAL_INGEST_INSERT_ROWS": "400",
    "KVANDAL_INGEST_INSERT_AGE_S": "1",
    "KVANDAL_INGEST_SESSION_TIMEOUT_S": "3",
}


@pytest.fixture
def kafka(apache_kafka: KafkaCluster) -> Iterator[str]:
    with fresh_topics(apache_kafka.bootstrap, partitions=3):
        yield apache_kafka.bootstrap


def test_backups_taken_while_ingest_writes_are_whole_and_a_restored_store_goes_on_without_loss_or_doubles(
    kafka: str, tmp_path: Path
) -> None:
    fleet = Fleet(SEED, sources=6)
    targets = [tmp_path / "backups" / str(number) for number in range(BACKUPS)]
    with Loader(kafka, fleet.frames(), per_second=40, most=4000) as loader:
        with embedded_store(tmp_path / "lost" / "clickhouse", kafka) as store:
            for target in targets:
                wait_for_more_frames(store, 40)
                before_s = time.monotonic()
                rows, size = back_up(tmp_path / "lost" / "clickhouse", target)
                logger.warning("%d rows, %d bytes in %.2f s", rows, size, time.monotonic() - before_s)
            wait_for_more_frames(store, 40)
        published = loader.finish()
    shutil.rmtree(tmp_path / "lost")

    assert not list((tmp_path / "backups").glob("*.part"))
    in_backups = [gpu_rows(target) for target in targets]
    assert in_backups == sorted(set(in_backups)), "each back-up holds more than the one before"
    for target in targets:
        restored = tmp_path / f"restored-{target.name}" / "clickhouse"
        restore(target, restored)
        with embedded_store(restored, kafka) as store:
            until(lambda: stored_frames(store) >= len(published), what="the store has caught up")
            assert_stored_exactly_once(store, published)
            assert audited(store, published).holds


def test_a_store_that_is_stopped_is_backed_up_and_restored_with_all_it_held(kafka: str, tmp_path: Path) -> None:
    frames = list(islice(Fleet(SEED, sources=4).frames(), 40))
    events = [EventMessage(id=f"xid/{n}", resource=n, time_ms=fresh_ms(), kind="xid", code=79) for n in range(5)]
    data = tmp_path / "first" / "clickhouse"
    publish_all(kafka, frames)
    publish(kafka, EVENTS.name, [encode_message(event) for event in events])
    with embedded_store(data, kafka) as store:
        until(lambda: stored_frames(store) == len(frames), what="all is stored")
        until(lambda: store.command("SELECT count() FROM events") == len(events), what="the events are stored")

    back_up_elsewhere(data, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "second" / "clickhouse")

    with embedded_store(tmp_path / "second" / "clickhouse", kafka) as store:
        more = list(islice(Fleet(SEED + 1, sources=4).frames(), 20))
        publish_all(kafka, more)
        until(lambda: stored_frames(store) == len(frames + more), what="what came later is stored")
        assert_stored_exactly_once(store, frames + more)
        assert store.command("SELECT count() FROM (SELECT * FROM events FINAL)") == len(events)
        assert store.command("SELECT count() FROM frames WHERE outcome = 'duplicate'") == 0


def test_damage_in_a_backup_is_found_when_it_is_restored(kafka: str, tmp_path: Path) -> None:
    frames = list(islice(Fleet(SEED, sources=4).frames(), 40))
    data, target = tmp_path / "first" / "clickhouse", tmp_path / "backup"
    publish_all(kafka, frames)
    with embedded_store(data, kafka) as store:
        until(lambda: stored_frames(store) == len(frames), what="all is stored")
    back_up_elsewhere(data, target)
    # The largest file of a part holds readings.
    victim = max((target / "gpu").rglob("*.bin"), key=lambda path: path.stat().st_size)
    damaged = bytearray(victim.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    victim.write_bytes(damaged)

    done = restore_elsewhere(target, tmp_path / "second" / "clickhouse")

    assert done.returncode != 0
    assert "gpu" in done.stderr.splitlines()[-1]


def test_a_group_is_rewound_to_a_restored_server_which_then_lacks_nothing(kafka: str, tmp_path: Path) -> None:
    frames = list(islice(Fleet(SEED, sources=6).frames(), 90))
    data = tmp_path / "first" / "clickhouse"
    settings = KafkaSettings(bootstrap=kafka)
    with StoreServer.start(data) as server:
        schema.apply(connect(server.address()))
        ingest_all(kafka, tmp_path, server, frames[:30], stored=30)
        server.process.terminate()
        server.process.wait(STOP_TIMEOUT_S)
    back_up_elsewhere(data, tmp_path / "backup")
    with StoreServer.start(data) as server:
        ingest_all(kafka, tmp_path, server, frames[30:60], stored=60)

    restore(tmp_path / "backup", tmp_path / "second" / "clickhouse")
    with StoreServer.start(tmp_path / "second" / "clickhouse") as server:
        store = connect(server.address())
        # Without a rewind the group goes on behind what the restored store lacks; the audit shows it.
        ingest_all(kafka, tmp_path, server, frames[60:75], stored=45)
        found = audited(store, frames[:75])
        assert not found.holds
        assert found.missing == sum(len(frame.rows) for frame in frames[30:60])

        with start_ingest(tmp_path, "member", kafka, server.address("ingest"), SETTINGS) as member:
            member.wait_for("partitions opened")
            with pytest.raises(LogUnavailableError, match="end every ingest of it"):
                rewind_to_store(settings, server.address())
            assert member.stop() == 0
        restore_again = tmp_path / "third" / "clickhouse"
    restore(tmp_path / "backup", restore_again)
    with StoreServer.start(restore_again) as server:
        moved = rewind_to_store(settings, server.address())
        of_gpu = [offsets for place, offsets in moved.items() if place.topic == GPU.topic]
        assert sum(before for before, _ in of_gpu) == 75
        assert sum(after for _, after in of_gpu) == 30
        assert moved[Partition(EVENTS.name, 0)][1] == 0
        ingest_all(kafka, tmp_path, server, frames[75:], stored=90)
        store = connect(server.address())
        assert_stored_exactly_once(store, frames)
        assert audited(store, frames).holds


def test_what_is_no_whole_backup_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="no whole back-up"):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST).write_text('{"format": 1')
    with pytest.raises(BackupError, match="cannot be read"):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST).write_text('{"format": 1, "taken_at": "2026-11-01T00:00:00Z", "migrations": {"1": "xyz"}, '
                                     '"tables": []}')  # fmt: skip
    with pytest.raises(BackupError, match="migration 0001"):
        read_manifest(tmp_path)


def test_a_backup_waits_until_the_plan_under_way_has_its_line_in_frames() -> None:
    gate, writes = PlanGate(patience_s=0.01), _Writes()
    writer, nothing = GatedWriter(writes, gate), absent_rows(GPU, 0)

    writer.insert_messages("events", [], token=FIRST)
    assert may_back_up(gate)
    writes.away = True
    with pytest.raises(ConnectionError):
        writer.encode_rows("gpu", nothing)(SECOND)
    assert not may_back_up(gate)
    writes.away = False
    writer.encode_rows("gpu", nothing)(SECOND)
    assert not may_back_up(gate)
    writer.encode_rows("frames", nothing)(SECOND)
    assert may_back_up(gate)
    assert writes.tables == ["events", "gpu", "frames"]


FIRST, SECOND = "first plan", "second plan"


@dataclass(slots=True)
class _Writes:
    """A writer that notes the tables, or is away."""

    away: bool = False
    tables: list[str] = field(default_factory=list)

    def encode_rows(self, table: str, rows: Rows) -> Insert:  # noqa: ARG002
        return lambda _token: self._insert(table)

    def _insert(self, table: str) -> None:
        if self.away:
            raise ConnectionError("the store is away")
        self.tables.append(table)

    def insert_messages(self, table: str, lines: Sequence[bytes], *, token: str) -> None:  # noqa: ARG002
        self.tables.append(table)


def may_back_up(gate: PlanGate) -> bool:
    try:
        with gate.between_plans():
            return True
    except BackupError:
        return False


# --- stores of a test's own


@contextmanager
def embedded_store(data: Path, bootstrap: str) -> Iterator[Client]:
    """The embedded store with ingest and desk on `data`; killed at the end, as a machine's end would."""
    port = free_port()
    data.parent.mkdir(parents=True, exist_ok=True)
    with (data.parent / "store.log").open("ab") as log, ExitStack() as stack:
        process = subprocess.Popen(
            tied_to_parent([sys.executable, "-m", "tests.servers.gated_store", str(data), bootstrap, str(port)]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(),
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        log_path = data.parent / "store.log"
        until(lambda: process.poll() is not None or "partitions opened" in log_path.read_text(), what="it listens")
        assert process.poll() is None, log_path.read_text()
        address = StoreAddress(f"http://127.0.0.1:{port}", "admin", "admin password")
        yield stack.enter_context(closing(connect(address)))


def restore(source: Path, data: Path) -> None:
    done = restore_elsewhere(source, data)
    assert done.returncode == 0, done.stderr


def restore_elsewhere(source: Path, data: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own: one process has one engine."""
    return python(RESTORE, source, data)


def back_up_elsewhere(data: Path, target: Path) -> None:
    """Where no store runs, the one who asks opens the engine."""
    done = python(RESTORE.replace("restore", "back_up"), data, target)
    assert done.returncode == 0, done.stderr


def python(code: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, paths)]
    return subprocess.run(tied_to_parent(command), capture_output=True, text=True, check=False, timeout=100)


def ingest_all(bootstrap: str, folder: Path, server: StoreServer, frames: Sequence[Frame], *, stored: int) -> None:
    """Publish frames and run ingest as a member of the group until the store holds so many in all."""
    publish_all(bootstrap, frames)
    with start_ingest(folder, "ingest", bootstrap, server.address("ingest"), SETTINGS) as ingest:
        until(lambda: stored_frames(connect(server.address())) == stored, what=f"{stored} frames are stored")
        assert ingest.stop() == 0


def publish_all(bootstrap: str, frames: Sequence[Frame]) -> None:
    for frame in frames:
        publish(bootstrap, frame.topic, [frame.value], key=frame.source)


# --- what a store holds


def fresh_ms() -> int:
    return time.time_ns() // 1_000_000


def gpu_rows(target: Path) -> int:
    (table,) = [table for table in read_manifest(target).tables if table.name == "gpu"]
    return table.rows


def stored_frames(store: Client) -> int:
    return int(str(store.command("SELECT count() FROM frames WHERE outcome = 'stored'")))


def wait_for_more_frames(store: Client, more: int) -> None:
    wanted = stored_frames(store) + more
    until(lambda: stored_frames(store) >= wanted, what=f"{more} more frames are stored")


def assert_stored_exactly_once(store: Client, published: Sequence[Frame]) -> None:
    truth = np.sort(np.concatenate([frame.rows for frame in published]), order=["resource", "time"])
    np.testing.assert_array_equal(stored_rows(store, GPU), truth)
    assert_minutes_agree(store, GPU)


def audited(store: Client, frames: Sequence[Frame]) -> TableAudit:
    first_s = min(int(frame.rows["time"].min()) for frame in frames)
    start = datetime.fromtimestamp(first_s // 3600 * 3600 - 3600, UTC)
    return Auditor(store).audit(GPU, start, start + timedelta(hours=5), now=datetime.now(UTC))
