"""What ingest promises, on both brokers: as the embedded store's single owner, and in Kafka's consumer group.

One pipeline per broker serves all tests of this file, so every test has sources and resources of its own.
"""

import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from clickhouse_connect.driver.client import Client

from catalogue import COOLING, GPU, RACK, TABLES, Kind, ResourceKind, Table, resource_id
from storage import schema
from storage.client import StoreAddress, connect
from stream.batch import Record, Rejected
from stream.client import KafkaAddress, make_admin
from stream.deadletter import DeadLetter, read_dead_letters
from stream.frame import Flaw, seal
from stream.messages import EventMessage, InventoryMessage, JobMessage, encode_message
from stream.plan import Plan, Range
from stream.publish import Acknowledged, DeadLetterPublisher, Publisher, ensure_topics
from stream.rows import absent_rows, pack
from stream.topics import EVENTS, FRAME_TOPICS, INVENTORY, JOBS
from tests.servers.fixtures import BrokerUnderTest
from tests.servers.ports import free_port
from tests.servers.stack import (
    Fleet,
    Loader,
    Running,
    StoreServer,
    assert_minutes_agree,
    drop_topics,
    fresh_topics,
    publish,
    run,
    start_ingest,
    stored_rows,
    until,
)

INSERT_ROWS = 1000  # small enough for a backlog to take a hundred inserts
SETTINGS = {
    "KVANDAL_INGEST_INSERT_ROWS": str(INSERT_ROWS),
    "KVANDAL_INGEST_INSERT_AGE_S": "1",
    "KVANDAL_INGEST_SESSION_TIMEOUT_S": "6",
}
PASSWORDS = {f"KVANDAL_{role.upper()}_PASSWORD": f"{role} password" for role in ("admin", "ingest", "reports")}
NOW_MS = time.time_ns() // 1_000_000
NOW_S = NOW_MS // 1000
EPOCH_MS = NOW_MS - 3_600_000
# Where fields of the header start, from the format's description in stream/frame.py.
MAGIC_AT, VERSION_AT, LAYOUT_AT, TICKS_AT, ROWS_AT = 0, 4, 8, 40, 44
STORED, DUPLICATE, REJECTED, PARKED = "stored", "duplicate", "rejected", "parked"

_sources = count(1)


@dataclass(slots=True)
class Pipeline:
    """Broker, ingest and store, of which ingest may be ended and started again."""

    bootstrap: str
    store: StoreAddress
    launch: Callable[[], Running]
    running: Running
    said_before: int = 0  # characters of the log that are of earlier starts
    connected: Client | None = None

    def restart(self, *, kill: bool = False, meanwhile: Callable[[], object] = lambda: None) -> None:
        """End ingest, cleanly or by SIGKILL, and start it again."""
        self.running.wait_for("partitions opened", after=self.said_before)
        if kill:
            self.running.kill()
        else:
            assert self.running.stop() == 0
        meanwhile()
        self.said_before = len(self.running.log)
        self.running, self.connected = self.launch(), None

    def client(self) -> Client:
        """A client of the store, once that answers: with the embedded one it starts and ends with ingest."""
        if self.connected is None:
            self.running.wait_for("partitions opened", after=self.said_before)
            self.connected = connect(self.store)
        return self.connected

    def ask(self, sql: str, **parameters: object) -> list[tuple[Any, ...]]:
        """What the store answers; Any is what its values are in Python."""
        return [tuple(row) for row in self.client().query(sql, parameters=parameters).result_rows]


@pytest.fixture(scope="module")
def pipeline(broker: BrokerUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    folder = tmp_path_factory.mktemp("pipeline")
    start = _as_group if broker.traits.keeps_commit_metadata else _as_owner
    with ExitStack() as running, fresh_topics(broker.bootstrap, partitions=2):
        pipeline = start(broker.bootstrap, folder, running)
        yield pipeline
        assert pipeline.running.stop() == 0
        assert "Traceback" not in pipeline.running.log


def _as_owner(bootstrap: str, folder: Path, running: ExitStack) -> Pipeline:
    """The embedded store: engine, door and ingest in one process, its plans in a table."""
    port = free_port()
    arguments = ["store", "--data", str(folder / "store"), "--broker", bootstrap, "--port", str(port)]

    def launch() -> Running:
        return running.enter_context(Running.start(folder, "store", *arguments, settings=SETTINGS | PASSWORDS))

    store = StoreAddress(f"http://127.0.0.1:{port}", "admin", "admin password")
    return Pipeline(bootstrap, store, launch, launch())


def _as_group(bootstrap: str, folder: Path, running: ExitStack) -> Pipeline:
    """A member of a consumer group against a store elsewhere, its plans in Kafka's commits."""
    server = running.enter_context(StoreServer.start(folder / "store"))
    schema.apply(connect(server.address()))

    def launch() -> Running:
        return running.enter_context(start_ingest(folder, "ingest", bootstrap, server.address("ingest"), SETTINGS))

    return Pipeline(bootstrap, server.address(), launch, launch())


# --- what is sent is stored


def test_frames_of_every_table_are_stored_as_they_were_sent(pipeline: Pipeline) -> None:
    frames = [f for table in TABLES for f in islice(Fleet(next(_sources), sources=2, table=table).frames(), 6)]
    for frame in frames:
        publish(pipeline.bootstrap, frame.topic, [frame.value], key=frame.source)
    client = pipeline.client()

    for table in TABLES:
        truth = np.sort(
            np.concatenate([frame.rows for frame in frames if frame.topic == table.topic]), order=["resource", "time"]
        )
        lowest, highest = int(truth["resource"].min()), int(truth["resource"].max())

        def stored(table: Table = table, lowest: int = lowest, highest: int = highest) -> np.ndarray:
            return stored_rows(client, table, f"resource BETWEEN {lowest} AND {highest}")

        until(lambda: len(stored()) >= len(truth), what=f"{table.name} is stored")  # noqa: B023 - called at once
        np.testing.assert_array_equal(stored(), truth)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_values_come_out_in_base_units_and_absent_ones_as_null(pipeline: Pipeline, table: Table) -> None:
    source = next(_sources)
    rows = absent_rows(table, 2)
    rows["resource"], rows["time"] = source, [NOW_S - 60, NOW_S - 59]
    # A third of the range, or what a register of joules reaches in a thousand years.
    counts = {metric.name: min(metric.stored.highest // 3, 1 << 40) for metric in table.metrics}
    for metric in table.metrics:
        rows[metric.column][0] = counts[metric.name]
    send(pipeline, table, sealed(table, source, rows, ticks=2))

    names = ", ".join(metric.name for metric in table.metrics)
    sql = f"SELECT {names} FROM {table.name} WHERE resource = {{id:UInt64}} ORDER BY time"  # noqa: S608 - our names
    first, second = pipeline.ask(sql, id=source)
    expected = [
        counts[m.name] if m.kind in (Kind.STATE, Kind.BITS) else pytest.approx(float(counts[m.name] * m.resolution))
        for m in table.metrics
    ]
    assert list(first) == expected
    assert list(second) == [None] * len(table.metrics)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_minutes_agree_with_the_rows(pipeline: Pipeline, table: Table) -> None:
    frames = list(islice(Fleet(next(_sources), sources=2, ticks=20, table=table).frames(), 20))
    places = publish(pipeline.bootstrap, table.topic, [frame.value for frame in frames], key=7)
    wait_for_outcomes(pipeline, table, places)

    assert_minutes_agree(pipeline.client(), table)


def test_messages_of_every_kind_are_stored(pipeline: Pipeline) -> None:
    source = next(_sources)
    serial = f"serial-{source}"
    gpu = resource_id(ResourceKind.GPU, serial)
    inventory = InventoryMessage(
        resource=gpu, kind=ResourceKind.GPU, identity=serial, name="hall 1 rack 2 tray 3 gpu 4", valid_from_ms=NOW_MS,
        parent=11, serves=(12, 13), source=source, attributes={"model": "GB300", "odd": 'quote " and \\ and \n'},
    )  # fmt: skip
    event = EventMessage(
        id=f"xid/{source}", resource=gpu, time_ms=NOW_MS, kind="xid", code=79, text="fallen off the bus: æøå"
    )
    job = JobMessage(job=f"job-{source}", resource=gpu, start_ms=NOW_MS - 5000, end_ms=NOW_MS, customer="a customer")
    for topic, message in ((INVENTORY, inventory), (EVENTS, event), (JOBS, job)):
        publish(pipeline.bootstrap, topic.name, [encode_message(message)])

    def stored(columns: str, table: str) -> tuple[object, ...]:
        sql = f"SELECT {columns} FROM {table} WHERE resource = {{id:UInt64}}"  # noqa: S608 - our names
        (row,) = until(lambda: pipeline.ask(sql, id=gpu), what=f"the message is in {table}")
        return row

    assert stored(
        "kind, identity, name, parent, serves, attributes, toUnixTimestamp64Milli(valid_from)", "inventory"
    ) == ("gpu", serial, inventory.name, 11, [12, 13], inventory.attributes, NOW_MS)
    assert stored("id, kind, code, count, text, toUnixTimestamp64Milli(time)", "events") == (
        event.id, "xid", 79, 1, event.text, NOW_MS,
    )  # fmt: skip
    assert stored("job, customer, toUnixTimestamp64Milli(start), toUnixTimestamp64Milli(end)", "jobs") == (
        job.job, "a customer", NOW_MS - 5000, NOW_MS,
    )  # fmt: skip


# --- what comes twice is stored once


def test_a_frame_sent_twice_is_stored_once(pipeline: Pipeline) -> None:
    source = next(_sources)
    value = gpu_frame(source)

    assert send(pipeline, GPU, value, value) == [STORED, DUPLICATE]
    assert stored_ticks(pipeline, source) == (2, 2)


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_a_frame_sent_again_after_a_restart_of_ingest_is_stored_once(pipeline: Pipeline, *, kill: bool) -> None:
    source = next(_sources)
    first, second = gpu_frame(source), gpu_frame(source, sequence=2)
    assert send(pipeline, GPU, first) == [STORED]

    pipeline.restart(kill=kill)

    assert send(pipeline, GPU, first, second) == [DUPLICATE, STORED]
    assert stored_ticks(pipeline, source) == (4, 4)


def test_a_frame_sent_again_after_its_topic_was_made_anew_is_stored_once(pipeline: Pipeline) -> None:
    source, resource = next(_sources), next(_sources)
    first, second = rack_frame(source, resource), rack_frame(source, resource, sequence=2)
    assert send(pipeline, RACK, first) == [STORED]

    drop_topics(pipeline.bootstrap, RACK.topic)
    ensure_topics(KafkaAddress(pipeline.bootstrap), replication=1, partitions=2)

    assert send(pipeline, RACK, first, second) == [DUPLICATE, STORED]
    assert "opening a new log epoch" in pipeline.running.log
    counted = pipeline.ask("SELECT count(), uniqExact(time) FROM rack WHERE resource = {id:UInt64}", id=resource)
    assert counted == [(4, 4)]


def test_a_restart_amid_a_stream_neither_loses_nor_doubles(pipeline: Pipeline) -> None:
    fleet = Fleet(next(_sources), sources=4)
    with Loader(pipeline.bootstrap, fleet.frames(), per_second=40, most=400) as loader:
        for kill in (True, False, True):
            wanted = min(loader.acknowledged + 60, 400)  # a slow restart may see the end of the load
            until(lambda: loader.acknowledged >= wanted, what="more is published")  # noqa: B023 - called at once
            pipeline.restart(kill=kill)
        published = loader.finish()
    truth = np.sort(np.concatenate([frame.rows for frame in published]), order=["resource", "time"])
    client = pipeline.client()
    of_the_fleet = f"resource BETWEEN {int(truth['resource'].min())} AND {int(truth['resource'].max())}"

    until(lambda: len(stored_rows(client, GPU, of_the_fleet)) >= len(truth), what="everything is stored")
    np.testing.assert_array_equal(stored_rows(client, GPU, of_the_fleet), truth)
    assert_minutes_agree(client, GPU)


def test_a_small_topic_does_not_wait_until_the_backlog_of_a_large_one_is_stored(pipeline: Pipeline) -> None:
    """After an outage an alarm must not come last: events are few, readings are many."""
    backlog = [frame.value for frame in islice(Fleet(next(_sources), sources=4).frames(), 3000)]
    small = rack_frame(next(_sources), next(_sources))
    places: dict[str, list[Acknowledged]] = {}

    def produce() -> None:
        places["large"] = publish(pipeline.bootstrap, GPU.topic, backlog)
        places["small"] = publish(pipeline.bootstrap, RACK.topic, [small])

    pipeline.restart(meanwhile=produce)

    wait_for_outcomes(pipeline, GPU, places["large"])
    wait_for_outcomes(pipeline, RACK, places["small"])
    ((before,),) = pipeline.ask(
        "SELECT countIf(stored_at < (SELECT max(stored_at) FROM frames WHERE table_name = 'rack')) FROM frames "
        "WHERE topic_id = {id:UUID} AND offset >= {first:UInt64} AND partition = {partition:UInt32}",
        id=topic_id(pipeline.bootstrap, GPU.topic),
        first=places["large"][0].offset,
        partition=places["large"][0].partition,
    )
    assert before < 0.8 * len(backlog)


# --- what cannot be stored is kept as a dead letter, and the rest goes on

BAD_FRAMES: dict[Flaw, Callable[[bytes], bytes]] = {
    Flaw.TOO_SHORT: lambda good: good[:55],
    Flaw.NOT_A_FRAME: lambda good: b"AVRO" + good[4:],
    Flaw.HEADER_VERSION: lambda good: patched(good, VERSION_AT, 2, "H"),
    Flaw.WRONG_SIZE: lambda good: good[:-1],
    Flaw.BAD_TICKS: lambda good: patched(good, TICKS_AT, 0, "I"),
    Flaw.BAD_TIME: lambda good: shifted(good, 86_400),
    Flaw.UNKNOWN_LAYOUT: lambda good: patched(good, LAYOUT_AT, 0xBEEF, "Q"),
}


@pytest.mark.parametrize("flaw", BAD_FRAMES, ids=str)
def test_a_bad_frame_becomes_a_dead_letter_and_its_neighbours_are_stored(pipeline: Pipeline, flaw: Flaw) -> None:
    source = next(_sources)
    # A source with one bad frame in forty is not ill: more than one in ten would count towards a storm.
    good = [gpu_frame(source, sequence=2 * number) for number in range(40)]
    bad = BAD_FRAMES[flaw](gpu_frame(source, sequence=80))
    # What a newer program sent waits for a newer ingest; what is broken does not.
    expected = PARKED if flaw in (Flaw.UNKNOWN_LAYOUT, Flaw.HEADER_VERSION) else REJECTED

    outcomes = send(pipeline, GPU, *good[:20], bad, *good[20:])

    assert outcomes == [STORED] * 20 + [expected] + [STORED] * 20
    assert stored_ticks(pipeline, source) == (80, 80)
    assert_dead_letter(pipeline, GPU.topic, bad, flaw)


def test_a_replayed_dead_letter_is_stored_once_and_not_offered_again(pipeline: Pipeline) -> None:
    source, topic = next(_sources), next(t for t in FRAME_TOPICS if t.table == GPU.name)
    mended, parked = gpu_frame(source), gpu_frame(source, sequence=2)
    plan = Plan(topic.name, uuid4(), (Range(0, 0, 2),), NOW_MS, 1)
    letters = [Rejected(Record(0, n, value), Flaw.UNKNOWN_LAYOUT, f"a newer one {source}", source)
               for n, value in enumerate((mended, parked))]  # fmt: skip
    publisher = Publisher(KafkaAddress(pipeline.bootstrap))
    DeadLetterPublisher(publisher).send(plan, letters)
    publisher.close()
    choice = ["dead-letters", "replay", "--reason", f"a newer one {source}", "--broker", pipeline.bootstrap]

    asked = run(*choice)
    assert asked.code == 0
    assert "2 dead letters would be sent again" in asked.err
    shown = run("dead-letters", "show", "gpu", "0:1", "--broker", pipeline.bootstrap)
    assert f"source {source:016x}" in shown.out
    assert "power=700 W" in shown.out
    assert stored_ticks(pipeline, source) == (0, 0)

    assert "2 dead letters sent again" in run(*choice, "--yes").err
    until(lambda: stored_ticks(pipeline, source) == (4, 4), what="both are stored")
    assert "0 dead letters sent again" in run(*choice, "--yes").err
    assert f"a newer one {source}" not in run("dead-letters", "list", "--broker", pipeline.bootstrap).out


def test_a_frame_on_another_tables_topic_is_rejected(pipeline: Pipeline) -> None:
    source = next(_sources)
    good = [rack_frame(source, source, sequence=2 * number) for number in range(20)]
    stray = gpu_frame(source, sequence=100)

    assert send(pipeline, RACK, *good, stray) == [STORED] * 20 + [REJECTED]
    assert_dead_letter(pipeline, RACK.topic, stray, Flaw.WRONG_TOPIC)


def test_a_frame_cut_otherwise_than_before_is_rejected(pipeline: Pipeline) -> None:
    source = next(_sources)
    good = [gpu_frame(source, sequence=2 * number) for number in range(20)]
    overlapping = gpu_frame(source, sequence=39)

    assert send(pipeline, GPU, *good, overlapping) == [STORED] * 20 + [REJECTED]
    assert stored_ticks(pipeline, source) == (40, 40)
    assert_dead_letter(pipeline, GPU.topic, overlapping, Flaw.OVERLAP)


@pytest.mark.parametrize(
    ("value", "flaw"),
    [
        (b"not JSON", Flaw.NOT_A_MESSAGE),
        (b'{"resource": 1, "kind": "gpu", "surprise": 1}', Flaw.NOT_A_MESSAGE),
        (
            b'{"resource": 1, "kind": "gpu", "identity": "other", "name": "x", "valid_from_ms": 1}',
            Flaw.WRONG_IDENTITY,
        ),
    ],
    ids=["not JSON", "unknown field", "an id that is not the identity's"],
)
def test_a_bad_message_becomes_a_dead_letter_and_the_next_one_is_stored(
    pipeline: Pipeline, value: bytes, flaw: Flaw
) -> None:
    serial = f"serial-{next(_sources)}"
    rack = resource_id(ResourceKind.RACK, serial)
    good = InventoryMessage(resource=rack, kind=ResourceKind.RACK, identity=serial, name="a rack", valid_from_ms=NOW_MS)

    publish(pipeline.bootstrap, INVENTORY.name, [value, encode_message(good)])

    sql = "SELECT name FROM inventory WHERE resource = {id:UInt64}"
    assert until(lambda: pipeline.ask(sql, id=rack), what="the good message is stored") == [("a rack",)]
    assert_dead_letter(pipeline, INVENTORY.name, value, flaw)


def test_every_record_has_its_line_in_frames(pipeline: Pipeline) -> None:
    source, resource = next(_sources), next(_sources)
    good = [cooling_frame(source, resource, sequence=2 * number) for number in range(30)]
    values = [*good[:15], good[3], b"rubbish", patched(good[29], LAYOUT_AT, 1, "Q"), *good[15:], good[20]]

    places = publish(pipeline.bootstrap, COOLING.topic, values, key=source)

    wanted = [STORED] * 15 + [DUPLICATE, REJECTED, PARKED] + [STORED] * 15 + [DUPLICATE]
    assert wait_for_outcomes(pipeline, COOLING, places) == wanted
    counted = pipeline.ask(
        "SELECT sum(ticks), sum(rows), min(epoch_ms), max(epoch_ms) FROM frames "
        "WHERE source = {id:UInt64} AND outcome = 'stored'",
        id=source,
    )
    assert counted == [(60, 60, EPOCH_MS, EPOCH_MS)]


# --- how the tests speak to a pipeline


def send(pipeline: Pipeline, table: Table, *values: bytes) -> list[str]:
    """Publish under one key; returns what became of each value."""
    return wait_for_outcomes(pipeline, table, publish(pipeline.bootstrap, table.topic, values))


def wait_for_outcomes(pipeline: Pipeline, table: Table, places: Sequence[Acknowledged]) -> list[str]:
    """The outcome of each record of the topic's log of today; waits until all have one."""
    sql = "SELECT partition, offset, outcome FROM frames WHERE topic_id = {id:UUID}"
    log = topic_id(pipeline.bootstrap, table.topic)

    def found() -> list[str] | None:
        lines = {(partition, offset): outcome for partition, offset, outcome in pipeline.ask(sql, id=log)}
        outcomes = [lines.get((place.partition, place.offset)) for place in places]
        return [outcome for outcome in outcomes if outcome] if all(outcomes) else None

    return until(found, what=f"records of {table.name} have their outcome") or []


def topic_id(bootstrap: str, topic: str) -> str:
    admin = make_admin(KafkaAddress(bootstrap))
    try:
        (described,) = admin.describe_topics([topic])
    finally:
        admin.close()
    return str(described["topic_id"])


def stored_ticks(pipeline: Pipeline, resource: int) -> tuple[int, int]:
    """Rows and distinct ticks of a GPU."""
    sql = "SELECT count(), uniqExact(time) FROM gpu WHERE resource = {id:UInt64}"
    ((rows, ticks),) = pipeline.ask(sql, id=resource)
    return rows, ticks


def assert_dead_letter(pipeline: Pipeline, topic: str, value: bytes, flaw: Flaw) -> None:
    """The record is among the dead letters: its bytes, where it was, and why it is there."""

    def found() -> DeadLetter | None:
        letters = read_dead_letters(KafkaAddress(pipeline.bootstrap))
        return next((letter for letter in letters if (letter.value, letter.topic) == (value, topic)), None)

    letter = until(found, what=f"{flaw} is a dead letter")
    assert letter
    assert letter.reason == flaw
    assert letter.detail
    assert letter.offset >= 0
    assert letter.checked_at_ms >= NOW_MS


def sealed(table: Table, source: int, rows: np.ndarray, *, sequence: int = 0, ticks: int) -> bytes:
    return seal(table, rows, source=source, epoch_ms=EPOCH_MS, sequence=sequence, ticks=ticks, sent_ms=NOW_MS)


def gpu_frame(source: int, *, sequence: int = 0) -> bytes:
    """Two ticks of one GPU, which has the source's number."""
    times = [NOW_S - 3000 + sequence, NOW_S - 3000 + sequence + 1]
    return sealed(GPU, source, pack(GPU, source, times, {"power_watts": 700.0}), sequence=sequence, ticks=2)


def rack_frame(source: int, resource: int, *, sequence: int = 0) -> bytes:
    times = [NOW_S - 3000 + sequence, NOW_S - 3000 + sequence + 1]
    return sealed(RACK, source, pack(RACK, resource, times, {"power_watts": 132_000.0}), sequence=sequence, ticks=2)


def cooling_frame(source: int, resource: int, *, sequence: int = 0) -> bytes:
    times = [NOW_S - 3000 + sequence, NOW_S - 3000 + sequence + 1]
    return sealed(COOLING, source, pack(COOLING, resource, times, {}), sequence=sequence, ticks=2)


def patched(value: bytes, at: int, number: int, width: str) -> bytes:
    """The frame with one field of its header changed."""
    data = bytearray(value)
    struct.pack_into(f"<{width}", data, at, number)
    return bytes(data)


def shifted(good: bytes, seconds: int) -> bytes:
    """The frame with its ticks so much later."""
    header, row_bytes = 56, (len(good) - 56) // 2
    data = bytearray(good)
    for row in range(2):
        at = header + row * row_bytes + 8  # the time follows the resource
        (tick,) = struct.unpack_from("<I", data, at)
        struct.pack_into("<I", data, at, tick + seconds)
    return bytes(data)
