"""Publishing: topics made ready, and values handed to Kafka until it has acknowledged them."""

import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kafka.admin import NewTopic  # type: ignore[import-untyped]
from kafka.errors import (  # type: ignore[import-untyped]
    InvalidRecordError,
    InvalidTimestampError,
    InvalidTopicError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    RetriableError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    UnsupportedForMessageFormatError,
    for_code,
)

from stream.client import KafkaAddress, kafka_errors, make_admin, make_producer
from stream.log import LogUnavailableError
from stream.topics import ALL_TOPICS, DEAD_LETTERS, Topic

if TYPE_CHECKING:
    from stream.batch import Rejected
    from stream.plan import Plan

logger = logging.getLogger(__name__)

_FLUSH_S = 30.0
_TOLD_S = 30.0

# What a broker says that holds for one topic and no other, and what to do about it.
_REFUSALS = {
    UnknownTopicOrPartitionError: "it does not exist; run kvandal topics apply",
    InvalidTopicError: "the broker allows no topic of this name",
    TopicAuthorizationFailedError: "this client may not write to it; allow it WRITE on the topic",
    MessageSizeTooLargeError: "a value is larger than it takes; raise its max.message.bytes",
    RecordListTooLargeError: "a value is larger than its segments; raise its segment.bytes",
    InvalidRecordError: "it does not take records like ours",
    InvalidTimestampError: "it does not take the time of our records; see its message.timestamp settings",
    PolicyViolationError: "a policy of the broker forbids it",
    UnsupportedForMessageFormatError: "its message format is too old",
}


class TopicRefusedError(LogUnavailableError):
    """The brokers answer, but this topic takes no value; the message says why and what to do.

    What was refused is not in the log. Other topics are not concerned.
    """


class UnansweredError(LogUnavailableError):
    """Time ran out before a topic's brokers acknowledged a value: it may be in the log."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Where Kafka put a value."""

    partition: int
    offset: int


def ensure_topics(
    address: KafkaAddress, *, replication: int, topics: Sequence[Topic] = ALL_TOPICS, partitions: int | None = None
) -> list[str]:
    """Create the topics that are missing, and wait until they can be used; returns their names.

    `partitions` overrides every topic's own. LogUnavailableError when the brokers are away or refuse.
    """
    admin = make_admin(address)
    try:
        with kafka_errors("listing topics"):
            present = set(admin.list_topics())
        missing = [topic for topic in topics if topic.name not in present]
        for topic in missing:
            new = NewTopic(topic.name, partitions or topic.partitions, replication, topic_configs=dict(topic.settings))
            with kafka_errors(f"creating topic {topic.name}"):
                _create(admin, new)
        names = [topic.name for topic in missing]
        _wait_until_told(admin, set(names))
        return names
    finally:
        admin.close()


def _create(admin: Any, topic: Any) -> None:
    """Two processes may start at once: that the other was first is no error."""
    try:
        admin.create_topics([topic])
    except TopicAlreadyExistsError:
        logger.debug("topic exists already", extra={"topic": topic.name})


def _wait_until_told(admin: Any, names: set[str]) -> None:
    """The controller has made the topics; brokers hear of it a moment later, and deny until then that they exist."""
    deadline = time.monotonic() + _TOLD_S
    while time.monotonic() < deadline:
        with kafka_errors("listing topics"):
            if names <= set(admin.list_topics()):
                return
        time.sleep(0.05)
    raise LogUnavailableError(f"the brokers made topics and do not tell of them after {_TOLD_S:.0f} s: {sorted(names)}")


class Publisher:
    """Hands values to Kafka. Safe for use from one thread; the callbacks come on the clients' own.

    After a failure nothing leaves any more, or it might overtake what failed: what is under way fails too, and
    `publish` raises, until `renew`.
    """

    def __init__(self, address: KafkaAddress, *, compression: str = "zstd") -> None:
        self._address = address
        self._compression = compression
        self._producer: Any = None
        self._alone: dict[str, Any] = {}  # by topic, the producer of a value that goes alone
        self._wanted: set[str] = set()  # every topic that was ever asked for
        self._ready: set[str] = set()  # those that were found to exist

    def publish(
        self,
        topic: str,
        key: int,
        value: bytes,
        *,
        acknowledged: Callable[[Acknowledged], None],
        failed: Callable[[Exception], None],
        headers: Sequence[tuple[str, bytes]] = (),
        alone: bool = False,
    ) -> None:
        """Queue a value; exactly one of the callbacks follows. One key's values stay in order.

        `failed` gets a TopicRefusedError, an UnansweredError, or whatever else went wrong. The first of them may be
        raised at once; LogUnavailableError when the brokers cannot be reached even to queue it. What goes `alone` has
        a connection of its own: its failure disturbs nothing else. That is for a topic which is likely to refuse it.
        """
        if alone or topic not in self._ready:
            self._look_up(topic)
        with kafka_errors(f"publishing to {topic}"):
            producer = self._producer_for(topic, alone=alone)
            future = self._send(producer, topic, value=value, key=key.to_bytes(8, "little"), headers=list(headers))

        def succeed(metadata: Any) -> None:
            if alone:
                self._end_alone(topic, producer)
            acknowledged(Acknowledged(metadata.partition, metadata.offset))

        def fail(error: Exception) -> None:
            _end(producer)
            failed(_judged(topic, error))

        future.add_callback(succeed)
        future.add_errback(fail)

    def flush(self, timeout_s: float = _FLUSH_S) -> None:
        """Wait until every queued value has had its callback; LogUnavailableError when time runs out."""
        if self._producer is not None:
            with kafka_errors("flushing"):
                self._producer.flush(timeout=timeout_s)

    def renew(self) -> None:
        """Give up what is under way, and begin anew: a client that lost its broker's memory never recovers."""
        self.close(timeout_s=0.0)

    def close(self, timeout_s: float = _FLUSH_S) -> None:
        """Let what is under way arrive, as far as there is time for it; the rest fails."""
        producer, self._producer = self._producer, None
        alone, self._alone = self._alone, {}
        self._ready = set()
        if producer is not None:
            _end(producer, timeout_s)
        for single in alone.values():
            _end(single)

    def _producer_for(self, topic: str, *, alone: bool) -> Any:
        if alone:
            self._alone[topic] = make_producer(self._address, compression=self._compression)
            return self._alone[topic]
        if self._producer is None:
            self._producer = make_producer(self._address, compression=self._compression)
        return self._producer

    def _end_alone(self, topic: str, producer: Any) -> None:
        if self._alone.get(topic) is producer:
            self._alone.pop(topic, None)
        _end(producer)

    def _send(self, producer: Any, topic: str, **record: Any) -> Any:
        try:
            return producer.send(topic, **record)
        except MessageSizeTooLargeError as error:  # larger even than our own limit
            raise _refused(topic, error) from error
        except (KafkaTimeoutError, ValueError) as error:  # the client does not find the topic, which was there before
            self._ready.discard(topic)
            self._look_up(topic)
            raise LogUnavailableError(f"publishing to {topic} ({error})") from error

    def _look_up(self, topic: str) -> None:
        """Whether the topic exists; TopicRefusedError otherwise.

        The producer must not be asked for a topic that is missing: it waits a minute for it, and from then on asks the
        brokers for it ten times a second.
        """
        self._wanted.add(topic)
        faults = self._faults((self._wanted - self._ready) | {topic})
        self._ready = (self._ready | faults.keys()) - {name for name, fault in faults.items() if fault}
        if topic not in self._ready:
            raise TopicRefusedError(f"{topic}: {faults.get(topic, 'the broker does not tell of it')}")

    def _faults(self, topics: Collection[str]) -> dict[str, str]:
        """By topic what is wrong with it; empty where nothing is."""
        with kafka_errors("asking for topics"):
            admin = make_admin(self._address)
            try:
                described = admin.describe_topics(sorted(topics))
            finally:
                admin.close()
        return {topic["name"]: _REFUSALS.get(for_code(topic["error_code"]), "") for topic in described}


def _judged(topic: str, error: Exception) -> Exception:
    """What a producer's error means to who published."""
    if isinstance(error, RetriableError):  # it was tried again until time ran out
        return UnansweredError(f"{topic}: {error}")
    return _refused(topic, error) if isinstance(error, tuple(_REFUSALS)) else error


def _refused(topic: str, error: Exception) -> TopicRefusedError:
    reason = next(reason for kind, reason in _REFUSALS.items() if isinstance(error, kind))
    return TopicRefusedError(f"{topic}: {reason} ({error})")


def _end(producer: Any, timeout_s: float = 0.0) -> None:
    """End a producer; what has no answer by then fails. May be called from a callback, and more than once.

    kafka-python's own close() waits for what is under way, and when that takes longer, gives up closing: the producer
    goes on sending behind the back of the one that comes after it.
    """
    try:
        producer.close(timeout=timeout_s)
    except KafkaError:
        producer._sender.force_close()
        producer._closed = True


class DeadLetterPublisher:
    """Puts records that cannot be stored on the dead-letter topic, with the reason and where they were.

    After a crash a record may come twice; topic id, partition and offset tell that it is the same.
    """

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def send(self, plan: "Plan", rejected: Sequence["Rejected"]) -> None:
        """Returns when Kafka has them all; ConnectionError otherwise."""
        try:
            self._publish(plan, rejected)
        except LogUnavailableError:
            self._publisher.renew()
            raise
        for letter in rejected:
            logger.warning(
                "record dead-lettered",
                extra={"topic": plan.topic, "partition": letter.record.partition, "offset": letter.record.offset,
                       "reason": str(letter.flaw), "detail": letter.detail},
            )  # fmt: skip

    def _publish(self, plan: "Plan", rejected: Sequence["Rejected"]) -> None:
        errors: list[Exception] = []
        for letter in rejected:
            self._publisher.publish(
                DEAD_LETTERS.name,
                letter.source,
                letter.record.value,
                acknowledged=lambda _: None,
                failed=errors.append,
                headers=_headers(plan, letter),
            )
        self._publisher.flush()
        if errors:
            raise LogUnavailableError(f"dead letters: {errors[0]}") from errors[0]


def _headers(plan: "Plan", letter: "Rejected") -> list[tuple[str, bytes]]:
    values = {
        "reason": letter.flaw,
        "detail": letter.detail,
        "topic": plan.topic,
        "topic_id": plan.topic_id,
        "partition": letter.record.partition,
        "offset": letter.record.offset,
        "checked_at_ms": plan.checked_at_ms,
    }
    return [(name, str(value).encode()) for name, value in values.items()]


__all__ = [
    "Acknowledged",
    "DeadLetterPublisher",
    "KafkaError",
    "Publisher",
    "TopicRefusedError",
    "UnansweredError",
    "ensure_topics",
]
