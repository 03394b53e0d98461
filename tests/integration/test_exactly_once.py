"""Exactly once on Apache Kafka: ingest is killed, stopped and woken late, and every row is stored once.

What is checked at the end is not a count but every byte: the stored rows, in order, are the rows that were published.
"""

import ast
import logging
import os
import random
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from clickhouse_connect.driver.client import Client

from catalogue import GPU
from kvandal.broker import HOST
from storage import schema
from storage.client import StoreAddress, connect
from stream.client import KafkaAddress, make_admin
from stream.plan import Plan, Range, decode_note
from tests.conftest import DoorUnderTest
from tests.servers.kafka import KafkaCluster
from tests.servers.ports import free_port
from tests.servers.stack import (
    Fleet,
    Frame,
    Gate,
    Loader,
    Running,
    StoreServer,
    assert_minutes_agree,
    fresh_topics,
    publish,
    start_ingest,
    stored_rows,
    until,
)

logger = logging.getLogger(__name__)

KILLS = int(os.environ.get("KVANDAL_KILLS", "20"))
FREEZES = 4
CUTS = 5  # of each kind
STORE_KILLS = 5
SEED = int(os.environ.get("KVANDAL_SEED", "0")) or time.time_ns() % 1_000_000
GROUP = "kvandal-ingest"
SESSION_TIMEOUT_S = 3
FRAMES_PER_SECOND = 45.0
MOST_FRAMES = 20_000
# Small inserts, often: so that a random moment falls into every step of one.
SETTINGS = {
    "KVANDAL_INGEST_INSERT_ROWS": "400",
    "KVANDAL_INGEST_INSERT_AGE_S": "1",
    "KVANDAL_INGEST_SESSION_TIMEOUT_S": str(SESSION_TIMEOUT_S),
}
OPENED = f"partitions opened topic={GPU.topic}"
FENCED = "partitions taken over by another member"


@pytest.fixture
def kafka(apache_kafka: KafkaCluster) -> Iterator[str]:
    with fresh_topics(apache_kafka.bootstrap):
        yield apache_kafka.bootstrap


@pytest.fixture
def ingest_address(door: DoorUnderTest, store: Client) -> StoreAddress:
    """The store, its tables made, as ingest's own role sees it."""
    assert store.command("SELECT count() FROM frames") == 0
    return door.address("ingest")


@pytest.fixture
def dice() -> random.Random:
    """The seed is in the captured output: KVANDAL_SEED repeats a run, as far as its timing lets it."""
    logger.warning("seed %d", SEED)
    return random.Random(SEED)  # noqa: S311 - moments, no secrets


def test_rows_are_stored_once_though_ingest_is_killed_again_and_again(
    kafka: str, ingest_address: StoreAddress, store: Client, tmp_path: Path, dice: random.Random
) -> None:
    def start(name: str) -> Running:
        return start_ingest(tmp_path, name, kafka, ingest_address, SETTINGS)

    names = ("first", "second")
    with ExitStack() as running, fleet_load(kafka) as loader:
        members = {name: running.enter_context(start(name)) for name in names}
        stored_some(store, 1)
        for _ in range(KILLS):
            time.sleep(dice.uniform(0.2, 6.0))
            victim = dice.choice(names)
            members[victim].kill()
            members[victim] = running.enter_context(start(victim))
        published = loader.finish()
        wait_until_stored(store, published)
        codes = [member.stop() for member in members.values()]

    replays = sum((tmp_path / f"{name}.log").read_text().count("replaying=True") for name in names)
    logger.warning("%d kills, %d frames, %d replays, %s", KILLS, len(published), replays, longest_way(store))
    assert codes == [0, 0]
    assert replays > 0, "no kill came between a plan and its end: the test has shown nothing"
    assert_stored_exactly_once(store, published)


def test_rows_are_stored_once_though_an_owner_is_stopped_and_woken_late(
    kafka: str, ingest_address: StoreAddress, store: Client, tmp_path: Path, dice: random.Random
) -> None:
    port = free_port()
    with (
        fleet_load(kafka) as loader,
        Gate(ingest_address.url) as gate,
        start_ingest(tmp_path, "sleeper", kafka, behind(gate, ingest_address), SETTINGS, metrics_port=port) as sleeper,
        start_ingest(tmp_path, "other", kafka, ingest_address, SETTINGS) as other,
    ):
        sleeper.wait_for(OPENED)
        other.wait_for(OPENED)
        for _ in range(FREEZES):
            time.sleep(dice.uniform(0.5, 2.0))
            seen = len(sleeper.log)
            planned = freeze_amid_a_plan(sleeper, other, gate, kafka, answers=dice.random() < 0.5)
            wait_until_done(planned, kafka)
            gate.open()
            sleeper.wake()
            sleeper.wait_for(OPENED, after=seen)
        before = rows_counted_by(port)
        until(lambda: rows_counted_by(port) > before, what="the one that was stopped shares the work again")
        published = loader.finish()
        wait_until_stored(store, published)
        codes = [sleeper.stop(), other.stop()]

    fenced = sleeper.log.count(FENCED)
    logger.warning("%d freezes, %d frames, fenced %d times, %s", FREEZES, len(published), fenced, longest_way(store))
    assert codes == [0, 0]
    assert "replaying=True" in other.log
    assert "Traceback" not in sleeper.log + other.log
    assert_stored_exactly_once(store, published)


def test_an_insert_that_reaches_the_store_after_its_plan_was_replayed_elsewhere_changes_nothing(
    kafka: str, ingest_address: StoreAddress, store: Client, tmp_path: Path
) -> None:
    with (
        fleet_load(kafka) as loader,
        Gate(ingest_address.url) as gate,
        start_ingest(tmp_path, "sleeper", kafka, behind(gate, ingest_address), SETTINGS) as sleeper,
    ):
        stored_some(store, 100)
        gate.shut()
        until(lambda: gate.holds_something, what="an insert is under way")
        planned = pending_plans(kafka)
        sleeper.freeze()
        with start_ingest(tmp_path, "other", kafka, ingest_address, SETTINGS) as other:
            wait_until_done(planned, kafka)
            gate.open()
            stored_some(store, 100)
            seen = len(sleeper.log)
            sleeper.wake()
            sleeper.wait_for(OPENED, after=seen)
            published = loader.finish()
            wait_until_stored(store, published)
            codes = [sleeper.stop(), other.stop()]

    assert planned
    assert codes == [0, 0]
    assert "replaying=True" in other.log
    assert_stored_exactly_once(store, published)


def test_rows_are_stored_once_though_connections_break_before_and_after_the_store_has_acted(
    kafka: str, ingest_address: StoreAddress, store: Client, tmp_path: Path
) -> None:
    with (
        fleet_load(kafka) as loader,
        Gate(ingest_address.url) as gate,
        start_ingest(tmp_path, "only", kafka, behind(gate, ingest_address), SETTINGS) as only,
    ):
        for answers in (True, False) * CUTS:
            stored_some(store, 20)
            gate.shut(answers=answers)
            until(lambda: gate.holds_something, what="a request or its answer is on its way")
            gate.cut()
            gate.open()
        published = loader.finish()
        wait_until_stored(store, published)
        code = only.stop()

    assert code == 0
    assert_stored_exactly_once(store, published)


def test_rows_are_stored_once_though_the_store_is_killed_again_and_again(
    kafka: str, tmp_path: Path, dice: random.Random
) -> None:
    with StoreServer.start(tmp_path / "store") as server, fleet_load(kafka) as loader:
        schema.apply(connect(server.address()))
        with start_ingest(tmp_path, "only", kafka, server.address("ingest"), SETTINGS) as only:
            for _ in range(STORE_KILLS):
                stored_some(connect(server.address()), 50)
                time.sleep(dice.uniform(0.0, 1.0))
                server.kill_and_restart()
            published = loader.finish()
            store = connect(server.address())
            wait_until_stored(store, published)
            code = only.stop()
        assert_stored_exactly_once(store, published)

    assert code == 0
    assert "waiting: " in only.log
    assert "Traceback" not in only.log


def test_rows_are_stored_once_though_the_group_has_lost_its_commits(
    kafka: str, ingest_address: StoreAddress, store: Client, tmp_path: Path
) -> None:
    """Brokers forget a group's commits after a week without members, and people delete or rename groups."""
    # Six frames of a source are no whole insert: read again with more behind them, they are cut otherwise.
    frames = list(islice(Fleet(SEED, sources=4).frames(), 60))
    for name, first, end in (("before", 0, 24), ("after", 24, 60)):
        for frame in frames[first:end]:
            publish(kafka, frame.topic, [frame.value], key=frame.source)
        with start_ingest(tmp_path, name, kafka, ingest_address, SETTINGS) as ingest:
            ingest.wait_for(OPENED)
            until(lambda: records_done(kafka) == end, what=f"{end} records are read and done")  # noqa: B023
            assert ingest.stop() == 0
        forget_group(kafka)

    assert_stored_exactly_once(store, frames)


# --- the load, and what it must come to


def fleet_load(bootstrap: str) -> Loader:
    fleet = Fleet(SEED, sources=16)
    return Loader(bootstrap, fleet.frames(), per_second=FRAMES_PER_SECOND, most=MOST_FRAMES)


def stored_frames(store: Client) -> int:
    return int(str(store.command("SELECT count() FROM frames WHERE outcome = 'stored'")))


def stored_some(store: Client, more: int) -> None:
    """Wait until so many more frames are stored."""
    before = stored_frames(store)
    until(lambda: stored_frames(store) >= before + more, what=f"{more} more frames are stored")


def longest_way(store: Client) -> str:
    """How long the frame that waited longest took from its source into the store."""
    seconds = store.command("SELECT max(dateDiff('millisecond', sent_at, stored_at)) / 1000 FROM frames")
    return f"longest way {seconds} s"


def wait_until_stored(store: Client, published: list[Frame]) -> None:
    until(lambda: stored_frames(store) >= len(published), what="everything published is stored")


def assert_stored_exactly_once(store: Client, published: list[Frame]) -> None:
    """Rows byte for byte, one line in `frames` for each frame, and minutes that agree with the rows."""
    truth = np.concatenate([frame.rows for frame in published])
    count, keys = store.query("SELECT count(), uniqExact(resource, time) FROM gpu").result_rows[0]
    assert (count, keys) == (len(truth), len(truth))
    np.testing.assert_array_equal(stored_rows(store, GPU), np.sort(truth, order=["resource", "time"]))
    lines = store.query("SELECT count(), uniqExact(partition, offset), sum(rows) FROM frames WHERE outcome = 'stored'")
    assert tuple(lines.result_rows[0]) == (len(published), len(published), len(truth))
    assert store.command("SELECT count() FROM frames WHERE outcome IN ('rejected', 'parked')") == 0
    assert_minutes_agree(store, GPU)


# --- what the group is at


def committed_plans(bootstrap: str) -> dict[int, Plan]:
    """By partition of the GPU topic the plan in the last commit; an empty range means that all is done."""
    admin = make_admin(KafkaAddress(bootstrap))
    try:
        offsets = admin.list_group_offsets(GROUP)[GROUP]
    finally:
        admin.close()
    plans = {}
    for place, committed in offsets.items():
        plan = decode_note(place.topic, place.partition, committed.offset, committed.metadata or "")
        if place.topic == GPU.topic and plan is not None:
            plans[place.partition] = plan
    return plans


def pending_plans(bootstrap: str) -> dict[int, Range]:
    ranges = {number: plan.ranges[0] for number, plan in committed_plans(bootstrap).items()}
    return {number: planned for number, planned in ranges.items() if planned.end > planned.first}


def records_done(bootstrap: str) -> int:
    """Records of the GPU topic before the last commits, none of which has a plan pending."""
    return 0 if pending_plans(bootstrap) else sum(p.ranges[0].end for p in committed_plans(bootstrap).values())


def forget_group(bootstrap: str) -> None:
    admin = make_admin(KafkaAddress(bootstrap))
    try:
        admin.delete_groups([GROUP])
    finally:
        admin.close()
    assert committed_plans(bootstrap) == {}


def behind(gate: Gate, address: StoreAddress) -> StoreAddress:
    """The same store and user, reached through the gate."""
    return StoreAddress(gate.url, address.user, address.password)


def freeze_amid_a_plan(
    member: Running, other: Running, gate: Gate, bootstrap: str, *, answers: bool
) -> dict[int, Range]:
    """Stop the member while a plan of its own is made and not done; returns such plans.

    The gate makes that moment: it keeps the member waiting for the store, before (or, with `answers`, after) the store
    has acted. It stays shut.
    """
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        gate.shut(answers=answers)
        until(lambda: gate.holds_something, what="the member waits for the store")
        own = partitions_of(member, other)
        before = pending_plans(bootstrap)
        member.freeze()
        after = pending_plans(bootstrap)
        kept = {number: planned for number, planned in after.items() if number in own and before.get(number) == planned}
        if kept:
            return kept
        member.wake()
        gate.open()
        time.sleep(0.3)
    raise AssertionError("the member was never met amid a plan")


def partitions_of(member: Running, other: Running) -> set[int]:
    """The partitions of the GPU topic that this member was the last of the two to open; it opens them one by one."""
    lines = sorted((line, one is member) for one in (member, other) for line in one.log.splitlines() if OPENED in line)
    owned: dict[int, bool] = {}
    for line, is_own in lines:  # by time, with which each begins
        positions = ast.literal_eval(re.findall(r"positions='(\{.*?\})'", line)[0])
        owned |= dict.fromkeys(positions, is_own)
    return {partition for partition, is_own in owned.items() if is_own}


def wait_until_done(planned: dict[int, Range], bootstrap: str) -> None:
    """Wait until whoever took the partitions over has replayed these plans and gone on past them."""

    def is_past() -> bool:
        now = committed_plans(bootstrap)
        return all(now[number].ranges[0].first >= kept.end for number, kept in planned.items())

    until(is_past, what=f"the plans {planned} are done by somebody else")


def rows_counted_by(port: int) -> float:
    """Rows of GPU readings that the ingest with this metrics port says it has stored."""
    with urlopen(f"http://{HOST}:{port}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith('kvandal_ingest_rows_total{table="gpu"}'))
