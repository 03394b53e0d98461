"""Publishing: topics made ready, and values handed to Kafka until it has acknowledged them."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kafka.admin import NewTopic  # type: ignore[import-untyped]
from kafka.errors import KafkaError, TopicAlreadyExistsError  # type: ignore[import-untyped]

from stream.batch import Rejected
from stream.client import KafkaAddress, kafka_errors, make_admin, make_producer
from stream.log import LogUnavailableError
from stream.plan import Plan
from stream.topics import ALL_TOPICS, DEAD_LETTERS, Topic

logger = logging.getLogger(__name__)

_FLUSH_S = 30.0


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Where Kafka put a value."""

    partition: int
    offset: int


def ensure_topics(
    address: KafkaAddress, *, replication: int, topics: Sequence[Topic] = ALL_TOPICS, partitions: int | None = None
) -> list[str]:
    """Create the topics that are missing; returns their names. `partitions` overrides every topic's own.

    Raises LogUnavailableError when the brokers are away or refuse.
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
        return [topic.name for topic in missing]
    finally:
        admin.close()


def _create(admin: Any, topic: Any) -> None:
    """Two processes may start at once: that the other was first is no error."""
    try:
        admin.create_topics([topic])
    except TopicAlreadyExistsError:
        logger.debug("topic exists already", extra={"topic": topic.name})


class Publisher:
    """Hands values to Kafka. Safe for use from one thread; acknowledgements arrive on the client's own."""

    def __init__(self, address: KafkaAddress, *, compression: str = "zstd") -> None:
        self._address = address
        self._compression = compression
        self._producer: Any = None

    def publish(
        self,
        topic: str,
        key: int,
        value: bytes,
        *,
        acknowledged: Callable[[Acknowledged], None],
        failed: Callable[[Exception], None],
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Queue a value; exactly one of the callbacks follows. One key's values stay in order.

        LogUnavailableError when the brokers cannot be reached even to queue it.
        """
        with kafka_errors(f"publishing to {topic}"):
            if self._producer is None:
                self._producer = make_producer(self._address, compression=self._compression)
            future = self._producer.send(topic, value=value, key=key.to_bytes(8, "little"), headers=list(headers))
        future.add_callback(lambda metadata: acknowledged(Acknowledged(metadata.partition, metadata.offset)))
        future.add_errback(failed)

    def flush(self, timeout_s: float = _FLUSH_S) -> None:
        """Wait until every queued value has had its callback; LogUnavailableError when time runs out."""
        if self._producer is not None:
            with kafka_errors("flushing"):
                self._producer.flush(timeout=timeout_s)

    def renew(self) -> None:
        """Let go of the producer after an error: one that lost its broker's memory never recovers."""
        self.close(timeout_s=0.0)

    def close(self, timeout_s: float = _FLUSH_S) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close(timeout=timeout_s)


class DeadLetterPublisher:
    """Puts records that cannot be stored on the dead-letter topic, with the reason and where they were.

    After a crash a record may come twice; topic id, partition and offset tell that it is the same.
    """

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def send(self, plan: Plan, rejected: Sequence[Rejected]) -> None:
        """Returns when Kafka has them all; ConnectionError otherwise."""
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
            self._publisher.renew()
            raise LogUnavailableError(f"dead letters: {errors[0]}") from errors[0]
        for letter in rejected:
            logger.warning(
                "record dead-lettered",
                extra={"topic": plan.topic, "partition": letter.record.partition, "offset": letter.record.offset,
                       "reason": str(letter.flaw), "detail": letter.detail},
            )  # fmt: skip


def _headers(plan: Plan, letter: Rejected) -> list[tuple[str, bytes]]:
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


__all__ = ["Acknowledged", "DeadLetterPublisher", "KafkaError", "Publisher", "ensure_topics"]
