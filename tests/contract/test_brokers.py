"""What Kvandal relies on from a Kafka-protocol broker, proven on the embedded one and on Apache Kafka.

Where the two differ, `BrokerTraits` says how, and the test asserts that difference.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from kafka import (  # type: ignore[import-untyped]
    KafkaAdminClient,
    KafkaConsumer,
    KafkaProducer,
    OffsetAndMetadata,
    TopicPartition,
)
from kafka.admin import ConfigResource, ConfigResourceType  # type: ignore[import-untyped]
from kafka.errors import (  # type: ignore[import-untyped]
    CommitFailedError,
    KafkaError,
    OffsetMetadataTooLargeError,
    OffsetOutOfRangeError,
    UnknownTopicOrPartitionError,
)
from kafka.structs import MemberState  # type: ignore[import-untyped]

from kvandal.broker import HOST, BrokerError, BrokerPortError, BrokerStartError, EmbeddedBroker, answers
from tests.servers.fixtures import BrokerUnderTest, RestartableBroker
from tests.servers.member import GroupMember
from tests.servers.ports import free_port

pytest_plugins = ["tests.servers.fixtures"]  # so that this file also runs on its own

SESSION_TIMEOUT_S = 2.0  # a join takes half of it on the embedded broker
PATIENCE_S = 120.0
METADATA_LIMIT_BYTES = 4096  # offset.metadata.max.bytes of Apache Kafka, as it is by default


# --- topics


def test_topics_are_created_listed_and_deleted(broker: BrokerUnderTest) -> None:
    name = f"t-{uuid.uuid4()}"
    with admin(broker.bootstrap) as client:
        create(client, name, partitions=3)
        (described,) = client.describe_topics([name])
        listed = client.list_topics()
        client.delete_topics([name])
        eventually(lambda: name not in client.list_topics())

    assert name in listed
    assert {partition["partition_index"] for partition in described["partitions"]} == {0, 1, 2}


def test_topic_settings_are_accepted_and_kept_where_the_broker_keeps_them(broker: BrokerUnderTest) -> None:
    name = f"t-{uuid.uuid4()}"
    settings = {"cleanup.policy": "compact", "retention.ms": "604800000", "compression.type": "producer"}
    with admin(broker.bootstrap) as client:
        create(client, name, settings=settings)
        described = client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])["topic"][name]

    kept = {key: described[key]["value"] for key in settings if key in described}
    assert kept == (settings if broker.traits.keeps_topic_settings else {})


def test_a_topic_has_a_uuid_that_every_client_sees_and_that_recreation_changes(broker: BrokerUnderTest) -> None:
    name = f"t-{uuid.uuid4()}"
    with admin(broker.bootstrap) as client:
        create(client, name)
        first = topic_id(client, name)
        client.delete_topics([name])
        eventually(lambda: name not in client.list_topics())
        create(client, name)
        second = topic_id(client, name)
        with admin(broker.bootstrap) as another:
            seen_by_another = topic_id(another, name)

    assert first.int != 0
    assert second not in (first, uuid.UUID(int=0))
    assert seen_by_another == second


def test_a_missing_topic_stays_missing_for_a_client_that_creates_none(broker: BrokerUnderTest) -> None:
    name = f"t-{uuid.uuid4()}"
    with admin(broker.bootstrap) as client:
        (described,) = client.describe_topics([name])
        with reader(broker.bootstrap) as consumer:
            consumer.assign([TopicPartition(name, 0)])
            consumer.poll(500)

        assert described["error_code"] == UnknownTopicOrPartitionError.errno
        assert name not in client.list_topics()


def test_a_client_as_it_comes_creates_a_missing_topic_where_the_broker_lets_it(broker: BrokerUnderTest) -> None:
    name = f"t-{uuid.uuid4()}"
    with admin(broker.bootstrap) as client, closing(KafkaConsumer(bootstrap_servers=broker.bootstrap)) as consumer:
        consumer.assign([TopicPartition(name, 0)])
        consumer.poll(500)

        assert (name in client.list_topics()) == broker.traits.creates_topics_on_sight


# --- records


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_records_come_back_whole_and_in_order(broker: BrokerUnderTest, topic: str, compression: str | None) -> None:
    sent = [(b"source-%d" % (i % 7), os.urandom(300)) for i in range(500)]
    with closing(
        KafkaProducer(
            bootstrap_servers=broker.bootstrap, compression_type=compression, acks="all", enable_idempotence=True
        )
    ) as producer:
        results = [
            producer.send(topic, value, key=key, headers=[("layout", b"\x00\xff")], partition=1) for key, value in sent
        ]
        offsets = [result.get(PATIENCE_S).offset for result in results]
    records = read(broker.bootstrap, TopicPartition(topic, 1), count=len(sent))

    assert offsets == list(range(len(sent)))
    assert [record.offset for record in records] == offsets
    assert [(record.key, record.value) for record in records] == sent
    assert all(list(record.headers) == [("layout", b"\x00\xff")] for record in records)


def test_a_seek_inside_a_batch_starts_at_exactly_that_record(broker: BrokerUnderTest, topic: str) -> None:
    produce(broker.bootstrap, topic, batches=(10, 10))

    records = read(broker.bootstrap, TopicPartition(topic, 0), start=13, count=7)

    assert [record.offset for record in records] == list(range(13, 20))


def test_the_end_of_a_partition_is_the_high_watermark_of_a_fetch(broker: BrokerUnderTest, topic: str) -> None:
    end, last_batch_begins = 14, 11
    produce(broker.bootstrap, topic, batches=(10, 1, 3))
    partition = TopicPartition(topic, 0)

    with reader(broker.bootstrap) as consumer:
        consumer.assign([partition])
        listed = consumer.end_offsets([partition])[partition]
        consumer.seek(partition, 0)
        eventually(lambda: bool(consumer.poll(100)) or consumer.highwater(partition) is not None)
        high_watermark = consumer.highwater(partition)

    assert high_watermark == end
    assert listed == (end if broker.traits.lists_true_end_offsets else last_batch_begins + 1)


def test_a_position_past_the_end_is_an_error_only_where_the_broker_checks(broker: BrokerUnderTest, topic: str) -> None:
    produce(broker.bootstrap, topic, batches=(3,))
    partition = TopicPartition(topic, 0)

    with reader(broker.bootstrap, auto_offset_reset="none") as consumer:
        consumer.assign([partition])
        consumer.seek(partition, 1000)
        refused = raises_within(OffsetOutOfRangeError, lambda: consumer.poll(100), seconds=2)
        high_watermark = consumer.highwater(partition)

    assert refused == broker.traits.refuses_offsets_past_the_end
    # The silent one still tells where its log ends, so a reader can find out that it is past it.
    assert refused or high_watermark == 3


# --- consumer groups


def test_a_group_resumes_at_its_last_commit(broker: BrokerUnderTest, topic: str) -> None:
    produce(broker.bootstrap, topic, batches=(20,))
    group = f"g-{uuid.uuid4()}"
    with member(broker.bootstrap, group, topic) as first:
        eventually(lambda: bool(first.poll(100)))
        first.commit({TopicPartition(topic, 0): OffsetAndMetadata(12, "", -1)})
    with member(broker.bootstrap, group, topic) as second:
        resumed_with = first_record(second)

    assert resumed_with.offset == 12


def test_commit_metadata_and_leader_epoch_come_back_where_the_broker_keeps_them(
    broker: BrokerUnderTest, topic: str
) -> None:
    partition = TopicPartition(topic, 0)
    with reader(broker.bootstrap, group_id=f"g-{uuid.uuid4()}") as consumer:
        consumer.assign([partition])
        consumer.commit({partition: OffsetAndMetadata(7, '{"end": 9}', 0)})
        committed = consumer.committed(partition, metadata=True)
        nothing = consumer.committed(TopicPartition(topic, 1), metadata=True)

    kept = OffsetAndMetadata(7, '{"end": 9}', 0)
    dropped = OffsetAndMetadata(7, None, -1)
    assert committed == (kept if broker.traits.keeps_commit_metadata else dropped)
    assert nothing is None


def test_commit_metadata_has_room_for_a_plan_and_no_more(broker: BrokerUnderTest, topic: str) -> None:
    partition = TopicPartition(topic, 0)
    too_much = {partition: OffsetAndMetadata(7, "x" * (METADATA_LIMIT_BYTES + 1), -1)}
    with reader(broker.bootstrap, group_id=f"g-{uuid.uuid4()}") as consumer:
        consumer.assign([partition])
        consumer.commit({partition: OffsetAndMetadata(7, "x" * METADATA_LIMIT_BYTES, -1)})
        refused = raises_within(OffsetMetadataTooLargeError, lambda: consumer.commit(too_much), seconds=0)

    assert refused == broker.traits.keeps_commit_metadata


def test_partitions_move_when_a_member_joins_and_when_it_leaves(broker: BrokerUnderTest, topic: str) -> None:
    group = f"g-{uuid.uuid4()}"
    with member(broker.bootstrap, group, topic) as first:
        eventually(lambda: owned(first) == {0, 1})
        alone = first.group_metadata().generation_id
        with member(broker.bootstrap, group, topic) as second:
            eventually(lambda: [owned(first), owned(second)] in ([{0}, {1}], [{1}, {0}]))
            shared = first.group_metadata().generation_id
        eventually(lambda: owned(first) == {0, 1})

    assert shared > alone


def test_a_member_that_was_away_cannot_commit_when_it_wakes(broker: BrokerUnderTest, topic: str) -> None:
    group = f"g-{uuid.uuid4()}"
    partition = TopicPartition(topic, 0)
    with GroupMember.join(broker.bootstrap, group, topic, session_timeout_s=SESSION_TIMEOUT_S) as sleeper:
        before = sleeper.commit(partition=0, offset=1, metadata="plan of the sleeper")
        sleeper.freeze()
        with member(broker.bootstrap, group, topic) as successor:
            eventually(lambda: owned(successor) == {0, 1})
            successor.commit({partition: OffsetAndMetadata(2, "plan of the successor", -1)})
            sleeper.wake()
            after = sleeper.commit(partition=0, offset=9, metadata="stale plan")
            committed = successor.committed(partition)

    assert sleeper.partitions == (0, 1)
    assert (before, after) == ("committed", "CommitFailedError")
    assert committed == 2


def test_nobody_outside_a_living_group_commits_for_it(broker: BrokerUnderTest, topic: str) -> None:
    group = f"g-{uuid.uuid4()}"
    partition = TopicPartition(topic, 0)
    with member(broker.bootstrap, group, topic) as insider, reader(broker.bootstrap, group_id=group) as outsider:
        eventually(lambda: owned(insider) == {0, 1})
        outsider.assign([partition])
        with pytest.raises(CommitFailedError):
            outsider.commit({partition: OffsetAndMetadata(5, "", -1)})


# --- restarts


def test_after_a_restart_the_topic_uuid_tells_whether_the_log_is_the_same(
    restartable_broker: RestartableBroker,
) -> None:
    bootstrap, survives = restartable_broker.bootstrap, restartable_broker.traits.survives_restart
    with admin(bootstrap) as client:
        create(client, "frames")
        before = topic_id(client, "frames")
    produce(bootstrap, "frames", batches=(3,))

    restartable_broker.kill_and_restart()

    with admin(bootstrap) as client:
        assert ("frames" in client.list_topics()) == survives
        if not survives:
            create(client, "frames")
        assert (topic_id(client, "frames") == before) == survives
    assert len(read(bootstrap, TopicPartition("frames", 0), count=3 if survives else 0)) == (3 if survives else 0)


def test_a_consumer_across_a_restart_reads_on_or_can_see_that_its_log_has_gone(
    restartable_broker: RestartableBroker,
) -> None:
    bootstrap, survives = restartable_broker.bootstrap, restartable_broker.traits.survives_restart
    partition = TopicPartition("frames", 0)
    with admin(bootstrap) as client:
        create(client, "frames")
    produce(bootstrap, "frames", batches=(3,))
    with reader(bootstrap) as consumer:
        consumer.assign([partition])
        eventually(lambda: bool(consumer.poll(100)))

        restartable_broker.kill_and_restart()
        if not survives:
            with admin(bootstrap) as client:
                create(client, "frames")
        produce(bootstrap, "frames", batches=(1,))

        if survives:
            eventually(lambda: bool(consumer.poll(100)))
            assert consumer.position(partition) == 4
        else:
            eventually(lambda: not consumer.poll(100) and consumer.highwater(partition) == 1)
            assert consumer.position(partition) == 3  # past the end: the reader must compare


# --- the embedded broker's own promises


def test_a_broker_that_ended_by_itself_is_noticed(tmp_path: Path) -> None:
    with EmbeddedBroker.start(tmp_path / "broker.log") as embedded:
        embedded.check()
        embedded.process.kill()
        embedded.process.wait()
        with pytest.raises(BrokerError, match="the embedded broker ended with -9"):
            embedded.check()


def test_a_port_in_use_is_refused_with_a_sentence(tmp_path: Path, embedded_broker: EmbeddedBroker) -> None:
    port = int(embedded_broker.bootstrap.rsplit(":")[-1])

    with pytest.raises(BrokerPortError, match=rf"^port {port} on {HOST} is not free"):
        EmbeddedBroker.start(tmp_path / "broker.log", port=port)


def test_a_broker_that_ends_at_once_is_reported_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALF_TANSU_BIN", script(tmp_path / "tansu", "echo one; echo out of luck; exit 3"))

    with pytest.raises(BrokerStartError, match=r"ended with exit status 3 .*: out of luck$"):
        EmbeddedBroker.start(tmp_path / "broker.log")


def test_a_broker_that_never_answers_is_ended_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid_path = tmp_path / "pid"
    monkeypatch.setenv("CALF_TANSU_BIN", script(tmp_path / "tansu", f"echo $$ > {pid_path}; exec sleep 60"))

    with pytest.raises(BrokerStartError, match=r"did not answer on .* within 1 s; .*: \(the log is empty\)$"):
        EmbeddedBroker.start(tmp_path / "broker.log", timeout_s=1)
    assert not Path(f"/proc/{pid_path.read_text().strip()}").exists()


def test_a_stopped_broker_frees_its_port_and_may_be_stopped_again(tmp_path: Path) -> None:
    with EmbeddedBroker.start(tmp_path / "broker.log") as embedded:
        embedded.stop()
    port = int(embedded.bootstrap.rsplit(":")[-1])

    with EmbeddedBroker.start(tmp_path / "broker.log", port=port) as successor:
        assert successor.bootstrap == embedded.bootstrap
    assert embedded.process.returncode is not None


def test_the_broker_ends_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    port = free_port()
    owner_code = (
        "import sys, time; from pathlib import Path; from kvandal.broker import EmbeddedBroker\n"
        "EmbeddedBroker.start(Path(sys.argv[1]), port=int(sys.argv[2])); print('up', flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", owner_code, str(tmp_path / "broker.log"), str(port)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert owner.stdout is not None
    try:
        assert owner.stdout.readline() == b"up\n"
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.communicate()

    eventually(lambda: not answers(f"{HOST}:{port}", 1.0))


# --- how the tests talk to a broker. Any: kafka-python has no types.


@pytest.fixture
def topic(broker: BrokerUnderTest) -> Iterator[str]:
    """A fresh topic of two partitions, deleted afterwards: the embedded broker holds everything in memory."""
    name = f"t-{uuid.uuid4()}"
    with admin(broker.bootstrap) as client:
        create(client, name, partitions=2)
        yield name
        client.delete_topics([name])


def admin(bootstrap: str) -> Any:
    return KafkaAdminClient(bootstrap_servers=bootstrap)


def create(client: Any, name: str, *, partitions: int = 1, settings: dict[str, str] | None = None) -> None:
    wish = {"num_partitions": partitions, "replication_factor": 1, "configs": settings or {}}
    client.create_topics({name: wish}, wait_for_metadata=True)


def topic_id(client: Any, name: str) -> uuid.UUID:
    (described,) = client.describe_topics([name])
    return uuid.UUID(described["topic_id"])


def reader(bootstrap: str, **settings: Any) -> Any:
    defaults = {"group_id": None, "auto_offset_reset": "earliest", "enable_auto_commit": False}
    quick = {"fetch_max_wait_ms": 50, "reconnect_backoff_max_ms": 200}
    return closing(without_topic_creation(KafkaConsumer(bootstrap_servers=bootstrap, **(defaults | quick | settings))))


def without_topic_creation(client: Any) -> Any:
    """kafka-python 3.0.12 takes the setting allow_auto_create_topics, but does not hand it to its metadata requests."""
    client._cluster.config["allow_auto_create_topics"] = False
    return client


def member(bootstrap: str, group: str, topic: str) -> Any:
    session_ms = int(SESSION_TIMEOUT_S * 1000)
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        fetch_max_wait_ms=50,
        session_timeout_ms=session_ms,
        heartbeat_interval_ms=session_ms // 6,
    )
    return closing(consumer)


def owned(consumer: Any) -> set[int]:
    """The partitions that a member holds after one more poll, which is what lets it take part in a rebalance."""
    consumer.poll(50)
    if consumer.group_metadata().state == MemberState.REBALANCING:
        # When new metadata made kafka-python 3.0.12 rejoin and a poll ended before the join did, the join is finished
        # in the background and forgotten: no assignment, no heartbeats, for ever. Asking again is harmless otherwise.
        consumer._coordinator.request_rejoin()
    return {partition.partition for partition in consumer.assignment()}


def first_record(consumer: Any) -> Any:
    """The first record that a consumer is given."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for records in consumer.poll(1000).values():
            return records[0]
    raise AssertionError(f"no record within {PATIENCE_S:g} s")


def produce(bootstrap: str, topic: str, *, batches: Sequence[int]) -> None:
    """Write to partition 0 one batch after the other, each with that many records."""
    with closing(KafkaProducer(bootstrap_servers=bootstrap, linger_ms=200, acks="all")) as producer:
        for records in batches:
            for _ in range(records):
                producer.send(topic, b"value", partition=0)
            producer.flush(PATIENCE_S)


def read(bootstrap: str, partition: Any, *, count: int, start: int = 0) -> list[Any]:
    """`count` records from `start` on; with 0, whatever the partition gives within a second."""
    records: list[Any] = []
    with reader(bootstrap) as consumer:
        consumer.assign([partition])
        consumer.seek(partition, start)
        deadline = time.monotonic() + (PATIENCE_S if count else 1.0)
        while time.monotonic() < deadline and (len(records) < count or not count):
            records += consumer.poll(100).get(partition, [])
    return records


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {PATIENCE_S:g} s"
        time.sleep(0.01)


def raises_within(error: type[KafkaError], action: Callable[[], object], *, seconds: float) -> bool:
    """Whether `action`, repeated for so long and at least once, raises `error`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            action()
        except error:
            return True
        if time.monotonic() >= deadline:
            return False


def script(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)
