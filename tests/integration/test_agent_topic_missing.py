"""A topic that takes no values, on a real Apache Kafka: it waits in the spool, and holds nobody up."""

import os
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition  # type: ignore[import-untyped]
from kafka.admin import (  # type: ignore[import-untyped]
    ACL,
    ACLOperation,
    ACLPermissionType,
    ConfigResource,
    ConfigResourceType,
    NewTopic,
    ResourcePattern,
    ResourceType,
)
from prometheus_client import CollectorRegistry

from collectors.exposition import AgentMetrics
from collectors.sender import Sender
from collectors.spool import Evicted, Outgoing, Spool
from kvandal.broker import HOST
from stream.client import KafkaAddress, make_admin
from stream.clock import SystemClock
from stream.log import LogUnavailableError
from stream.messages import EventMessage
from stream.publish import Acknowledged, Publisher, TopicRefusedError
from tests.servers.kafka import KafkaCluster
from tests.servers.ports import free_port
from tests.servers.stack import until

SOON_S = 10.0  # it takes one; a client that waits for a missing topic takes sixty
PATIENCE_S = 30.0
FRAMES = 650  # more than may be on their way at once
MEBIBYTE = 1 << 20


@pytest.fixture
def names() -> tuple[str, str]:
    """A topic in trouble and a healthy one, of this test alone."""
    run = uuid.uuid4().hex[:8]
    return f"trouble-{run}", f"healthy-{run}"


def frame(topic: str, number: int, *, source: int = 1, size: int = 100) -> Outgoing:
    """A frame that its first bytes tell apart, and that cannot be compressed."""
    value = number.to_bytes(4, "big") + os.urandom(size - 4)
    return Outgoing(topic, source, value, 1, number, number)


def make_topic(bootstrap: str, name: str, **settings: str) -> None:
    with closing(make_admin(KafkaAddress(bootstrap))) as admin:
        admin.create_topics([NewTopic(name, 1, 1, topic_configs=settings)])


class Running:
    """A sender over a real broker, and what its metrics say."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def value(self, metric: str, topic: str) -> float | None:
        return self._registry.get_sample_value(metric, {"topic": topic})

    def is_blocked(self, topic: str) -> bool:
        return self.value("kvandal_agent_topic_blocked", topic) == 1

    def arrived(self, topic: str) -> float:
        return self.value("kvandal_agent_rows_total", topic) or 0.0


@contextmanager
def sending(spool: Spool, bootstrap: str) -> Iterator[Running]:
    registry, clock = CollectorRegistry(), SystemClock()
    sender = Sender(
        spool,
        Publisher(KafkaAddress(bootstrap)),
        clock=clock,
        metrics=AgentMetrics(registry, spool, clock=clock, clock_state=lambda: None),
        report_lost=report,
    )
    sender.start()
    try:
        yield Running(registry)
    finally:
        sender.stop()


def report(gap: Evicted) -> EventMessage:
    return EventMessage(id="lost", resource=gap.source, time_ms=0, kind="readings_lost", count=gap.rows)


def numbers_on(bootstrap: str, topic: str, *, count: int) -> list[int]:
    """The frames on a topic in order, once there are so many, and whatever comes within a moment after them."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
    numbers: list[int] = []
    with closing(consumer):
        consumer.assign([TopicPartition(topic, 0)])
        deadline = time.monotonic() + PATIENCE_S
        while len(numbers) < count:
            assert time.monotonic() < deadline, f"{len(numbers)} of {count} frames on {topic}"
            numbers += numbers_in(consumer.poll(200).values())
        numbers += numbers_in(consumer.poll(500).values())
    return numbers


def numbers_in(batches: Sequence[Sequence[object]]) -> list[int]:
    return [int.from_bytes(record.value[:4], "big") for batch in batches for record in batch]  # type: ignore[attr-defined]


def test_a_missing_topic_at_the_head_of_the_spool_holds_nobody_up(
    apache_kafka: KafkaCluster, names: tuple[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    missing, healthy = names
    make_topic(apache_kafka.bootstrap, healthy)
    with closing(Spool(tmp_path / "spool.db", limit_bytes=10 * MEBIBYTE)) as spool:
        spool.add([frame(missing, number) for number in range(FRAMES)])
        spool.add([frame(healthy, number) for number in range(100)])
        with sending(spool, apache_kafka.bootstrap) as running:
            until(lambda: running.arrived(healthy) == 100, what="the healthy topic has its frames", timeout_s=SOON_S)
            assert running.is_blocked(missing)
            assert not running.is_blocked(healthy)

            make_topic(apache_kafka.bootstrap, missing)
            until(lambda: running.arrived(missing) == FRAMES, what="all else has arrived", timeout_s=PATIENCE_S)
            until(spool.is_empty, what="the spool is empty")
            assert not running.is_blocked(missing)

    assert numbers_on(apache_kafka.bootstrap, missing, count=FRAMES) == list(range(FRAMES))
    assert numbers_on(apache_kafka.bootstrap, healthy, count=100) == list(range(100))
    told = [record.getMessage() for record in caplog.records if "takes no values" in record.getMessage()]
    assert len(told) == 1
    assert "kvandal topics apply" in told[0]


def test_a_value_that_is_too_large_is_not_overtaken_and_arrives_once_the_topic_takes_it(
    apache_kafka: KafkaCluster, names: tuple[str, str], tmp_path: Path
) -> None:
    small, healthy = names
    make_topic(apache_kafka.bootstrap, small, **{"max.message.bytes": "2000"})
    make_topic(apache_kafka.bootstrap, healthy)
    with closing(Spool(tmp_path / "spool.db", limit_bytes=10 * MEBIBYTE)) as spool:
        spool.add([frame(small, number, size=100 if number != 20 else 5000) for number in range(300)])
        spool.add([frame(healthy, number, source=2) for number in range(100)])
        with sending(spool, apache_kafka.bootstrap) as running:
            until(lambda: running.is_blocked(small), what="the topic is set aside", timeout_s=SOON_S)
            until(lambda: running.arrived(healthy) == 100, what="the healthy topic has its frames", timeout_s=SOON_S)
            assert numbers_on(apache_kafka.bootstrap, small, count=20) == list(range(20))

            with closing(make_admin(KafkaAddress(apache_kafka.bootstrap))) as admin:
                wider = {"max.message.bytes": "1000000"}
                admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, small, configs=wider)])
            until(spool.is_empty, what="all has arrived", timeout_s=PATIENCE_S)
            assert running.arrived(small) == 300

    assert numbers_on(apache_kafka.bootstrap, small, count=300) == list(range(300))


@pytest.fixture(scope="module")
def guarded_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """Apache Kafka that looks at permissions; what has none is open to everybody."""
    properties = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    with KafkaCluster.start(tmp_path_factory.mktemp("guarded-kafka"), properties=properties) as cluster:
        yield cluster


def permission(topic: str, operation: ACLOperation, kind: ACLPermissionType) -> ACL:
    return ACL("User:ANONYMOUS", "*", operation, kind, ResourcePattern(ResourceType.TOPIC, topic))


def test_a_topic_that_may_not_be_written_is_set_aside_until_it_may(
    guarded_kafka: KafkaCluster, names: tuple[str, str], tmp_path: Path
) -> None:
    denied, healthy = names
    for topic in names:
        make_topic(guarded_kafka.bootstrap, topic)
    with (
        closing(make_admin(KafkaAddress(guarded_kafka.bootstrap))) as admin,
        closing(Spool(tmp_path / "spool.db", limit_bytes=10 * MEBIBYTE)) as spool,
    ):
        admin.create_acls(
            [
                permission(denied, ACLOperation.DESCRIBE, ACLPermissionType.ALLOW),
                permission(denied, ACLOperation.READ, ACLPermissionType.ALLOW),
            ]
        )
        spool.add([frame(denied, number) for number in range(FRAMES)])
        spool.add([frame(healthy, number, source=2) for number in range(100)])
        with sending(spool, guarded_kafka.bootstrap) as running:
            until(lambda: running.arrived(healthy) == 100, what="the healthy topic has its frames", timeout_s=SOON_S)
            until(lambda: running.is_blocked(denied), what="the topic is set aside", timeout_s=SOON_S)
            spool.add([frame(healthy, number, source=2) for number in range(100, 200)])
            until(lambda: running.arrived(healthy) == 200, what="what comes later goes on", timeout_s=SOON_S)

            admin.create_acls([permission(denied, ACLOperation.WRITE, ACLPermissionType.ALLOW)])
            until(spool.is_empty, what="all has arrived", timeout_s=PATIENCE_S)

    assert numbers_on(guarded_kafka.bootstrap, denied, count=FRAMES) == list(range(FRAMES))


def test_what_a_topic_never_took_is_lost_for_certain_when_it_makes_room(
    apache_kafka: KafkaCluster, names: tuple[str, str], tmp_path: Path
) -> None:
    missing, healthy = names
    make_topic(apache_kafka.bootstrap, healthy)
    with closing(Spool(tmp_path / "spool.db", limit_bytes=10_000)) as spool:
        spool.add([frame(missing, number) for number in range(100)])
        with sending(spool, apache_kafka.bootstrap) as running:
            until(lambda: running.is_blocked(missing), what="the topic is set aside", timeout_s=SOON_S)
            evicted = spool.add([frame(healthy, number) for number in range(30)])
            until(lambda: running.arrived(healthy) == 30, what="the healthy topic has its frames", timeout_s=SOON_S)

    assert [(gap.first_time, gap.sent) for gap in evicted] == [(number, False) for number in range(30)]


def test_a_publisher_says_which_topic_is_missing_without_waiting_for_it(
    apache_kafka: KafkaCluster, names: tuple[str, str]
) -> None:
    missing, _ = names
    publisher = Publisher(KafkaAddress(apache_kafka.bootstrap))
    started_s = time.monotonic()
    with closing(publisher), pytest.raises(TopicRefusedError, match=f"{missing}: it does not exist"):
        publisher.publish(missing, 1, b"value", acknowledged=unexpected, failed=unexpected)

    assert time.monotonic() - started_s < SOON_S


def unexpected(answer: object) -> None:
    raise AssertionError(f"an answer to what was not taken: {answer}")


def test_a_publisher_gives_up_what_is_under_way_and_sends_nothing_more(
    apache_kafka: KafkaCluster, names: tuple[str, str]
) -> None:
    """A client's own close() waits, and then goes on sending behind the back of the next one."""
    small, healthy = names
    make_topic(apache_kafka.bootstrap, small, **{"max.message.bytes": "2000"})
    make_topic(apache_kafka.bootstrap, healthy)
    answers: list[tuple[str, type]] = []
    publisher = Publisher(KafkaAddress(apache_kafka.bootstrap))

    def publish(name: str, topic: str, value: bytes) -> None:
        def answer(outcome: object) -> None:
            answers.append((name, type(outcome)))

        publisher.publish(topic, 1, value, acknowledged=answer, failed=answer)

    with closing(publisher):
        for topic in names:
            publish("first", topic, b"value")
        publisher.flush()
        publish("large", small, os.urandom(5000))
        publisher.renew()
        until(lambda: len(answers) == 3, what="all are answered for", timeout_s=SOON_S)
        publish("renewed", healthy, b"value")
        publisher.flush()

        publish("large again", small, os.urandom(5000))
        until(lambda: len(answers) == 5, what="it is refused", timeout_s=SOON_S)
        with pytest.raises(LogUnavailableError):
            publish("behind", healthy, b"value")

    assert answers[:2] == [("first", Acknowledged)] * 2
    assert answers[2][1] is not Acknowledged
    assert answers[3:] == [("renewed", Acknowledged), ("large again", TopicRefusedError)]
    assert len(numbers_on(apache_kafka.bootstrap, healthy, count=2)) == 2


def test_asking_a_broker_that_is_away_leaves_no_thread_behind() -> None:
    """An agent asks every ten seconds, for as long as that takes."""
    publisher = Publisher(KafkaAddress(f"{HOST}:{free_port()}"))
    before = threading.active_count()
    for _ in range(2):
        with pytest.raises(LogUnavailableError):
            publisher.publish("topic", 1, b"value", acknowledged=unexpected, failed=unexpected)

    until(lambda: threading.active_count() <= before, what="the threads have ended", timeout_s=SOON_S)
