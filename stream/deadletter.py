"""Dead letters: records that could not be stored, kept with their reason and their original bytes."""

from collections.abc import Iterator
from dataclasses import dataclass

from kafka import TopicPartition  # type: ignore[import-untyped]

from stream.client import KafkaAddress, kafka_errors, make_consumer
from stream.topics import DEAD_LETTERS

_QUIET_S = 2.0  # nothing more for this long means the end


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record that could not be stored, where it was, and why."""

    reason: str
    detail: str
    topic: str
    topic_id: str
    partition: int
    offset: int
    checked_at_ms: int
    value: bytes


def read_dead_letters(address: KafkaAddress) -> Iterator[DeadLetter]:
    """All dead letters, oldest first, each once. LogUnavailableError."""
    consumer = make_consumer(address, group="kvandal-dead-letters")
    seen: set[tuple[str, int, int]] = set()
    try:
        with kafka_errors("reading dead letters"):
            partitions = consumer.partitions_for_topic(DEAD_LETTERS.name) or set()
            places = [TopicPartition(DEAD_LETTERS.name, number) for number in partitions]
            consumer.assign(places)
            consumer.seek_to_beginning(*places)
        while places:
            with kafka_errors("reading dead letters"):
                polled = consumer.poll(timeout_ms=round(_QUIET_S * 1000))
            if not polled:
                return
            for record in (r for records in polled.values() for r in records):
                letter = _letter({key: value.decode() for key, value in record.headers}, record.value or b"")
                place = (letter.topic_id, letter.partition, letter.offset)
                if place not in seen:  # a crash may have sent it twice
                    seen.add(place)
                    yield letter
    finally:
        consumer.close(autocommit=False)


def _letter(headers: dict[str, str], value: bytes) -> DeadLetter:
    return DeadLetter(
        reason=headers.get("reason", "unknown"),
        detail=headers.get("detail", ""),
        topic=headers.get("topic", ""),
        topic_id=headers.get("topic_id", ""),
        partition=int(headers.get("partition", -1)),
        offset=int(headers.get("offset", -1)),
        checked_at_ms=int(headers.get("checked_at_ms", 0)),
        value=value,
    )
