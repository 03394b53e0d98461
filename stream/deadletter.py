"""Dead letters: records that could not be stored, kept with their reason and their original bytes.

What was mended can be replayed: the bytes go to their own topic again, and a marker on the dead-letter topic says so.
A letter that was replayed is not offered again: ingest recognises a frame that it has stored for some days only.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from kafka import TopicPartition  # type: ignore[import-untyped]

from stream.client import KafkaAddress, kafka_errors, make_consumer
from stream.frame import BadFrameError, decode_header
from stream.log import LogUnavailableError
from stream.messages import EventMessage, InventoryMessage, JobMessage, Message, message_key
from stream.publish import Publisher
from stream.topics import DEAD_LETTERS, Content, topic

_PATIENCE_S = 30.0  # with a broker that knows of more records than it gives
_REPLAYED = "replayed"  # the reason of a marker

Place = tuple[str, int, int]  # topic id, partition and offset


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

    @property
    def place(self) -> Place:
        return self.topic_id, self.partition, self.offset

    @property
    def name(self) -> str:
        """What people call it: topic, partition and offset."""
        return f"{self.topic} {self.partition}:{self.offset}"

    @property
    def key(self) -> int:
        """What its topic is keyed by: the source of a frame, a message's own key; 0 where it cannot be read."""
        try:
            content = topic(self.topic).content
            if content is Content.FRAMES:
                return decode_header(self.value).source
            return message_key(msgspec.json.decode(self.value, type=_MESSAGES[content]))
        except (KeyError, BadFrameError, msgspec.DecodeError):
            return 0


_MESSAGES: dict[Content, type[Message]] = {
    Content.INVENTORY: InventoryMessage,
    Content.EVENTS: EventMessage,
    Content.JOBS: JobMessage,
}


def read_dead_letters(address: KafkaAddress) -> Iterator[DeadLetter]:
    """All dead letters that were not replayed, oldest first, each once. LogUnavailableError."""
    seen = {letter.place for letter in _read(address) if letter.reason == _REPLAYED}
    for letter in _read(address):
        if letter.reason != _REPLAYED and letter.place not in seen:  # a crash may have sent it twice
            seen.add(letter.place)
            yield letter


def replay_dead_letters(address: KafkaAddress, letters: Iterable[DeadLetter]) -> int:
    """Send letters to their topics again, and mark them; returns how many.

    The marker comes after the letter: when the process ends between the two, the letter is offered again, and ingest
    drops what it has. LogUnavailableError, after which the same call may be repeated.
    """
    publisher, count = Publisher(address), 0
    try:
        for letter in letters:
            _publish(publisher, letter.topic, letter.key, letter.value, {})
            marker = {
                "reason": _REPLAYED, "topic": letter.topic, "topic_id": letter.topic_id,
                "partition": str(letter.partition), "offset": str(letter.offset),
            }  # fmt: skip
            _publish(publisher, DEAD_LETTERS.name, letter.key, b"", marker)
            count += 1
    finally:
        publisher.close()
    return count


def _publish(publisher: Publisher, name: str, key: int, value: bytes, headers: dict[str, str]) -> None:
    """Returns when the broker has it."""
    errors: list[Exception] = []
    pairs = [(header, text.encode()) for header, text in headers.items()]
    publisher.publish(name, key, value, acknowledged=lambda _: None, failed=errors.append, headers=pairs)
    publisher.flush()
    if errors:
        raise LogUnavailableError(f"replaying to {name}: {errors[0]}") from errors[0]


def _read(address: KafkaAddress) -> Iterator[DeadLetter]:
    """All records up to those that are the last when it begins."""
    consumer = make_consumer(address, group="kvandal-dead-letters")
    try:
        ends = _go_to_the_start(consumer)
        while _is_short_of(consumer, ends):
            with kafka_errors("reading dead letters"):
                polled = consumer.poll(timeout_ms=round(_PATIENCE_S * 1000))
            if not polled:
                raise LogUnavailableError(f"reading dead letters: the brokers gave none for {_PATIENCE_S:.0f} s")
            for record in (r for records in polled.values() for r in records):
                yield _letter({key: value.decode() for key, value in record.headers}, record.value or b"")
    finally:
        consumer.close(autocommit=False)


def _go_to_the_start(consumer: Any) -> dict[Any, int]:
    """Assign all partitions from their first record on; returns where each of them ends."""
    with kafka_errors("reading dead letters"):
        partitions = consumer.partitions_for_topic(DEAD_LETTERS.name) or set()
        places = [TopicPartition(DEAD_LETTERS.name, number) for number in partitions]
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        ends: dict[Any, int] = consumer.end_offsets(places)
    return ends


def _is_short_of(consumer: Any, ends: dict[Any, int]) -> bool:
    with kafka_errors("reading dead letters"):
        return any(consumer.position(place) < end for place, end in ends.items())


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
