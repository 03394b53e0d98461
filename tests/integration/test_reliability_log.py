"""What the log and its senders may do to ingest: each has one outcome, and none loses anything silently.

On Apache Kafka, with ingest as a member of its group and the store behind its door.
"""

import os
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from clickhouse_connect.driver.client import Client
from kafka import TopicPartition  # type: ignore[import-untyped]

from catalogue import GPU, RACK
from storage.audit import Auditor, TableAudit
from storage.client import StoreAddress
from storage.hours import HourKeeper
from storage.writer import Writer
from stream.client import KafkaAddress, make_admin
from stream.deadletter import read_dead_letters
from stream.frame import Flaw, seal
from stream.rows import Rows, pack
from tests.conftest import DoorUnderTest
from tests.servers.kafka import KafkaCluster
from tests.servers.ports import free_port
from tests.servers.stack import (
    Fleet,
    Frame,
    Gate,
    Loader,
    assert_minutes_agree,
    fresh_topics,
    publish,
    random_rows,
    start_ingest,
    stored_rows,
    until,
)

AWAY_S = float(os.environ.get("KVANDAL_AWAY_S", "15"))  # docs/reliability.md: 180
KILLS = 5
SETTINGS = {
    "KVANDAL_INGEST_INSERT_ROWS": "400",
    "KVANDAL_INGEST_INSERT_AGE_S": "1",
    "KVANDAL_INGEST_SESSION_TIMEOUT_S": "3",
}
OPENED = f"partitions opened topic={GPU.topic} "
PATIENCE_S = 150.0  # a backlog of small inserts on a busy machine
HOUR_S, DAY_S = 3600, 86_400


@pytest.fixture
def kafka(apache_kafka: KafkaCluster) -> Iterator[str]:
    with fresh_topics(apache_kafka.bootstrap, partitions=1):
        yield apache_kafka.bootstrap


@pytest.fixture
def ingest_address(door: DoorUnderTest, store: Client) -> StoreAddress:
    """The store, its tables made and empty, as ingest's own role sees it."""
    assert store.command("SELECT count() FROM frames") == 0
    return door.address("ingest")


# --- records that are gone


def test_records_that_expired_unread_are_counted_said_and_shown_by_the_audit(
    kafka: str, ingest_address: StoreAddress, store: Client, tmp_path: Path
) -> None:
    frames = list(islice(Fleet(3).frames(), 90))
    publish_all(kafka, frames[:30])
    with start_ingest(tmp_path, "before", kafka, ingest_address, SETTINGS) as ingest:
        until(lambda: stored_frames(store) == 30, what="the first frames are stored")
        assert ingest.stop() == 0
    publish_all(kafka, frames[30:])
    delete_records(kafka, before=70)

    port = free_port()
    with start_ingest(tmp_path, "after", kafka, ingest_address, SETTINGS, metrics_port=port) as ingest:
        until(lambda: stored_frames(store) == 50, what="what is left is stored")
        page = urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
        assert f'kvandal_ingest_expired_records_total{{topic="{GPU.topic}"}} 40.0' in page
        assert ingest.stop() == 0

    assert "records expired before they were read" in ingest.log
    assert "count=40" in ingest.log
    found = audited(store, frames)
    (gap,) = found.gaps
    assert not found.holds
    assert found.missing == sum(len(frame.rows) for frame in frames[30:70])
    assert (gap.source, gap.end - gap.first) == (frames[0].source, 40 * 5)
    assert_stored_exactly_once(store, [*frames[:30], *frames[70:]])


def test_records_that_expire_under_a_running_ingest_are_counted_too(
    kafka: str, ingest_address: StoreAddress, store: Client, tmp_path: Path
) -> None:
    """Ingest stands still while its store is away, and the brokers delete what it has not fetched."""
    frames = list(islice(Fleet(4).frames(), 60))
    publish_all(kafka, frames[:10])
    with start_ingest(tmp_path, "ingest", kafka, ingest_address, SETTINGS) as ingest:
        until(lambda: stored_frames(store) == 10, what="the first frames are stored")
        ingest.freeze()
        publish_all(kafka, frames[10:])
        delete_records(kafka, before=50)
        ingest.wake()
        until(lambda: stored_frames(store) == 20, what="what is left is stored")
        assert ingest.stop() == 0

    assert "records expired before they were read" in ingest.log
    assert audited(store, frames).missing == sum(len(frame.rows) for frame in frames[10:50])
    assert_stored_exactly_once(store, [*frames[:10], *frames[50:]])


# --- tokens


@pytest.mark.timeout(400)
def test_a_window_of_one_token_is_enough_while_every_plan_is_replayed_before_the_next(
    kafka: str, ingest_address: StoreAddress, store: Client, tmp_path: Path
) -> None:
    """What saves a replay is the order of plans, not the size of the window: a process has one plan under way."""
    windows(store, 2)  # one insert of a frame across midnight is two blocks
    with Loader(kafka, Fleet(5, sources=4).frames(), per_second=20, most=10_000) as loader:
        for kill in range(KILLS):
            with start_ingest(tmp_path, f"life {kill}", kafka, ingest_address, SETTINGS) as ingest:
                wanted = stored_frames(store) + 20
                until(lambda: stored_frames(store) >= wanted, what="more is stored")  # noqa: B023 - called at once
                time.sleep(0.13 * kill)  # another step of the insert each time
                ingest.kill()
        published = loader.finish()
    with start_ingest(tmp_path, "last", kafka, ingest_address, SETTINGS) as ingest:
        until(lambda: stored_frames(store) >= len(published), what="everything is stored", timeout_s=PATIENCE_S)
        assert ingest.stop() == 0
    try:
        assert_stored_exactly_once(store, published)
        assert audited(store, published).holds
    finally:
        windows(store, 50_000)


def test_a_replay_from_before_the_window_doubles_its_rows_and_the_audit_finds_them(store: Client) -> None:
    """The known limit: a zombie that wakes after more inserts than the window holds."""
    window = 5
    windows(store, window)
    writer = Writer(store)
    now_s = time.time_ns() // 10**9 // HOUR_S * HOUR_S - HOUR_S
    plans = [(f"plan {number}", one_tick(now_s + number)) for number in range(2 * window)]
    try:
        for token, rows in plans:
            writer.insert_rows("gpu", rows, token=token)
        writer.insert_rows("gpu", plans[-window][1], token=plans[-window][0])
        assert rows_and_ticks(store) == (2 * window, 2 * window)

        writer.insert_rows("gpu", plans[0][1], token=plans[0][0])
        assert rows_and_ticks(store) == (2 * window + 1, 2 * window)
        start = datetime.fromtimestamp(now_s - HOUR_S, UTC)
        found = Auditor(store).audit(GPU, start, start + timedelta(hours=3), now=datetime.now(UTC))
        assert (found.doubled, found.holds) == (1, False)
    finally:
        windows(store, 50_000)


# --- clocks, epochs, and who sends


def test_a_skewed_node_is_stored_up_to_the_limit_and_dead_lettered_beyond_it_until_its_clock_is_right(
    kafka: str, ingest_address: StoreAddress, store: Client, tmp_path: Path
) -> None:
    now_s = time.time_ns() // 10**9
    good = [of_node(1, now_s - 900 + number, sequence=number) for number in range(100)]
    skewed = of_node(2, now_s + 240, sequence=0)
    future = of_node(2, now_s + 900, sequence=1)
    past = of_node(2, now_s - 8 * DAY_S, sequence=2)  # the raw rows of the table are kept for 7 days
    healed = of_node(2, now_s - 30, sequence=3)
    publish(kafka, GPU.topic, [*good, skewed, future, past, healed])

    with start_ingest(tmp_path, "ingest", kafka, ingest_address, SETTINGS) as ingest:
        until(lambda: frame_outcomes(store) == {"stored": 102, "rejected": 2}, what="each frame has its outcome")
        assert ingest.stop() == 0

    letters = [letter for letter in read_dead_letters(KafkaAddress(kafka)) if letter.value in (future, past)]
    assert [letter.reason for letter in letters] == [Flaw.BAD_TIME, Flaw.BAD_TIME]
    assert [letter.value for letter in letters] == [future, past]
    times = store.query("SELECT toUnixTimestamp(time) FROM gpu WHERE resource = 2 ORDER BY time").result_rows
    assert [time_s for (time_s,) in times] == [now_s - 30, now_s + 240]


def test_a_restarted_agent_goes_on_in_a_new_epoch_and_what_it_sends_again_of_the_old_one_is_dropped(
    kafka: str, ingest_address: StoreAddress, store: Client, tmp_path: Path
) -> None:
    now_s = time.time_ns() // 10**9
    old = [of_node(1, now_s - 600 + number, sequence=number, epoch_s=now_s - 700) for number in range(30)]
    new = [of_node(1, now_s - 300 + number, sequence=number, epoch_s=now_s - 350) for number in range(30)]
    publish(kafka, GPU.topic, [*old[:20], *new[:10], *old[10:], *new[5:]])

    with start_ingest(tmp_path, "ingest", kafka, ingest_address, SETTINGS) as ingest:
        until(lambda: frame_outcomes(store) == {"stored": 60, "duplicate": 15}, what="each frame has its outcome")
        assert ingest.stop() == 0

    assert rows_and_ticks(store) == (60, 60)
    start = datetime.fromtimestamp(now_s // HOUR_S * HOUR_S - HOUR_S, UTC)
    found = Auditor(store).audit(GPU, start, start + timedelta(hours=3), now=datetime.now(UTC))
    assert (found.holds, found.repeated) == (True, 15)


def test_readings_of_a_source_and_resources_that_nobody_has_named_are_stored(
    kafka: str, ingest_address: StoreAddress, store: Client, tmp_path: Path
) -> None:
    """Inventory may come later, or from somebody else: it is joined when it is asked for."""
    frames = list(islice(Fleet(6, sources=3).frames(), 9))
    publish_all(kafka, frames)
    with start_ingest(tmp_path, "ingest", kafka, ingest_address, SETTINGS) as ingest:
        until(lambda: stored_frames(store) == len(frames), what="all is stored")
        assert ingest.stop() == 0
    assert store.command("SELECT count() FROM inventory") == 0
    assert_stored_exactly_once(store, frames)


def test_data_that_is_days_late_is_in_rows_minutes_and_hours(
    kafka: str, ingest_address: StoreAddress, store: Client, tmp_path: Path
) -> None:
    now_s = time.time_ns() // 10**9
    hour_s = now_s // HOUR_S * HOUR_S - 3 * DAY_S
    random = np.random.default_rng(8)
    early, late = (ticks_of(RACK_RESOURCES, range(hour_s + first, hour_s + HOUR_S, 20), random) for first in (0, 10))
    with start_ingest(tmp_path, "ingest", kafka, ingest_address, SETTINGS) as ingest:
        publish(kafka, RACK.topic, sealed_rack(early, source=1))
        until(lambda: noted_rows(store) == len(early), what="the first half is stored")
        keeper = HourKeeper(store)
        keeper.recompute()
        assert hour_rows(store) == len(early)
        publish(kafka, RACK.topic, sealed_rack(late, source=2))
        until(lambda: noted_rows(store) == len(early) + len(late), what="the late half too")
        assert ingest.stop() == 0

    keeper.recompute()

    truth = np.sort(np.concatenate([early, late]), order=["resource", "time"])
    np.testing.assert_array_equal(stored_rows(store, RACK), truth)
    assert_minutes_agree(store, RACK)
    assert hour_rows(store) == len(truth)


# --- the store is away


@pytest.mark.timeout(120 + 3 * AWAY_S + PATIENCE_S)
def test_ingest_outlasts_a_store_that_is_away_for_minutes_keeps_its_membership_and_catches_up(
    kafka: str, ingest_address: StoreAddress, store: Client, tmp_path: Path
) -> None:
    fleet = Fleet(9, sources=8)
    with Loader(kafka, fleet.frames(), per_second=20, most=50_000) as loader, Gate(ingest_address.url) as gate:
        behind_gate = StoreAddress(gate.url, ingest_address.user, ingest_address.password)
        with start_ingest(tmp_path, "ingest", kafka, behind_gate, SETTINGS) as ingest:
            until(lambda: stored_frames(store) >= 40, what="something is stored")
            away_until_s = time.monotonic() + AWAY_S  # five session timeouts of 3 s
            gate.shut()
            while time.monotonic() < away_until_s:
                time.sleep(0.5)
                gate.cut()  # whatever is asked is never answered
            gate.open()
            published = loader.finish()
            until(lambda: stored_frames(store) >= len(published), what="everything is stored", timeout_s=PATIENCE_S)
            assert ingest.stop() == 0

    assert "waiting: " in ingest.log
    assert ingest.log.count(OPENED) == 1, "it lost its partitions while it waited"
    assert_stored_exactly_once(store, published)
    assert audited(store, published).holds


# --- a load, and what a store holds


RACK_RESOURCES = np.arange(5, dtype="<u8") + 100


def publish_all(bootstrap: str, frames: Sequence[Frame]) -> None:
    for frame in frames:
        publish(bootstrap, frame.topic, [frame.value], key=frame.source)


def of_node(resource: int, time_s: int, *, sequence: int, epoch_s: int = 1_700_000_000) -> bytes:
    """One tick of one GPU, from the source of the same number."""
    rows = pack(GPU, resource, [time_s], {"power_watts": 700.0})
    return seal(GPU, rows, source=resource, epoch_ms=epoch_s * 1000, sequence=sequence, ticks=1, sent_ms=time_s * 1000)


def one_tick(time_s: int) -> Rows:
    return pack(GPU, 1, [time_s], {"power_watts": 700.0})


def ticks_of(resources: np.ndarray, times: range, random: np.random.Generator) -> Rows:
    """Rows of every resource at every time, in order of time."""
    return random_rows(RACK, np.tile(resources, len(times)), np.repeat(np.array(times), len(resources)), random)


def sealed_rack(rows: Rows, *, source: int, ticks: int = 20) -> list[bytes]:
    width = ticks * len(RACK_RESOURCES)
    return [
        seal(RACK, rows[at : at + width], source=source, epoch_ms=1, sequence=at, ticks=ticks, sent_ms=1)
        for at in range(0, len(rows), width)
    ]


def delete_records(bootstrap: str, *, before: int) -> None:
    """What retention does: the log of the GPU topic begins at this offset."""
    admin = make_admin(KafkaAddress(bootstrap))
    try:
        admin.delete_records({TopicPartition(GPU.topic, 0): before})
    finally:
        admin.close()


def windows(store: Client, size: int) -> None:
    for table in ("gpu", "gpu_1m", "frames"):
        store.command(f"ALTER TABLE {table} MODIFY SETTING non_replicated_deduplication_window = {size}")


def stored_frames(store: Client) -> int:
    return frame_outcomes(store).get("stored", 0)


def frame_outcomes(store: Client) -> dict[str, int]:
    rows = store.query("SELECT outcome, count() FROM frames GROUP BY outcome").result_rows
    return {outcome: count for outcome, count in rows}  # noqa: C416 - rows are lists


def rows_and_ticks(store: Client) -> tuple[int, int]:
    rows, ticks = store.query("SELECT count(), uniqExact(resource, time) FROM gpu").result_rows[0]
    return rows, ticks


def noted_rows(store: Client) -> int:
    """Rows of the frames that are noted as stored: their minutes are there then, not only the rows themselves."""
    return int(str(store.command("SELECT sum(rows) FROM frames WHERE outcome = 'stored'")))


def hour_rows(store: Client) -> int:
    """Rows that the hours say they were computed from."""
    return int(str(store.command("SELECT sum(row_count) FROM (SELECT * FROM rack_1h FINAL)")))


def assert_stored_exactly_once(store: Client, published: Sequence[Frame]) -> None:
    truth = np.sort(np.concatenate([frame.rows for frame in published]), order=["resource", "time"])
    np.testing.assert_array_equal(stored_rows(store, GPU), truth)
    assert_minutes_agree(store, GPU)


def audited(store: Client, frames: Sequence[Frame]) -> TableAudit:
    first_s = min(int(frame.rows["time"].min()) for frame in frames)
    start = datetime.fromtimestamp(first_s // HOUR_S * HOUR_S - HOUR_S, UTC)
    return Auditor(store).audit(GPU, start, start + timedelta(hours=5), now=datetime.now(UTC))
