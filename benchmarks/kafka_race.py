"""One Kafka client over one backlog, in a process of its own: `benchmarks.kafka_clients` starts it.

`python -m benchmarks.kafka_race CLIENT ACTION BOOTSTRAP TOPIC FRAMES` publishes the frames of a file, or reads as many
from the start of the topic, and says as JSON what that took. CLIENT is `kafka-python`, made by the product's own
functions, or `confluent-kafka` with the same settings. ACTION is `publish`, `publish-alone` (each frame in a batch of
its own) or `read`.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

KEY_BYTES = 8
_LENGTH_BYTES = 4
_READ_AT_ONCE = 2_000
_TIMEOUT_S = 120.0
# As stream/client.py has them for kafka-python.
CONFLUENT_PRODUCER = {
    "acks": "all",
    "enable.idempotence": True,
    "compression.type": "zstd",
    "linger.ms": 20,
    "batch.size": 256 << 10,
    "message.max.bytes": 2_000_000,
    "partitioner": "murmur2",
    "queue.buffering.max.messages": 1_000_000,
    "queue.buffering.max.kbytes": 1 << 20,
    "log_level": 3,  # errors: a broker that has just started has it say that it asks again
}
_CONFLUENT_CONSUMER = {
    "enable.auto.commit": False,
    "fetch.min.bytes": 256 << 10,
    "fetch.wait.max.ms": 200,
    "fetch.max.bytes": 16 << 20,
    "max.partition.fetch.bytes": 4 << 20,
}
_TOGETHER: Mapping[str, object] = {}
_ALONE: Mapping[str, object] = {"batch.num.messages": 1}
Frame = tuple[bytes, bytes]  # key and value


def write_frames(path: Path, frames: Iterator[Frame]) -> None:
    """Frames as a file that `read_frames` reads."""
    with path.open("wb") as file:
        for key, value in frames:
            file.write(key + len(value).to_bytes(_LENGTH_BYTES, "little") + value)


def read_frames(path: Path) -> list[Frame]:
    """Key and value of every frame."""
    data, at, frames = path.read_bytes(), 0, []
    while at < len(data):
        start = at + KEY_BYTES + _LENGTH_BYTES
        end = start + int.from_bytes(data[at + KEY_BYTES : start], "little")
        frames.append((data[at : at + KEY_BYTES], data[start:end]))
        at = end
    return frames


def publish_with_kafka_python(bootstrap: str, topic: str, frames: list[Frame]) -> None:
    from stream.client import KafkaAddress, make_producer

    producer = make_producer(KafkaAddress(bootstrap))
    acknowledged: list[object] = []
    for key, value in frames:
        producer.send(topic, key=key, value=value).add_callback(acknowledged.append)
    producer.flush(timeout=_TIMEOUT_S)
    producer.close()
    _check(len(acknowledged), len(frames))


def read_with_kafka_python(bootstrap: str, topic: str, frames: list[Frame]) -> None:
    from kafka import TopicPartition  # type: ignore[import-untyped]

    from stream.client import KafkaAddress, make_consumer

    consumer = make_consumer(KafkaAddress(bootstrap), group="race")
    places = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic))]
    consumer.assign(places)
    consumer.seek_to_beginning(*places)
    polled: Callable[[], Any] = lambda: (  # noqa: E731
        record.value for some in consumer.poll(200, max_records=_READ_AT_ONCE).values() for record in some
    )
    _read(polled, frames)
    consumer.close(autocommit=False)


def publish_with_confluent(
    bootstrap: str, topic: str, frames: list[Frame], settings: Mapping[str, object] = _TOGETHER
) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": bootstrap, **CONFLUENT_PRODUCER, **settings})
    acknowledged: list[object] = []

    def note(error: object, message: object) -> None:
        if error is None:
            acknowledged.append(message)

    for key, value in frames:
        producer.produce(topic, key=key, value=value, on_delivery=note)
        producer.poll(0)
    producer.flush(_TIMEOUT_S)
    _check(len(acknowledged), len(frames))


def read_with_confluent(bootstrap: str, topic: str, frames: list[Frame]) -> None:
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "race", **_CONFLUENT_CONSUMER})
    numbers = consumer.list_topics(topic, timeout=_TIMEOUT_S).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in numbers])
    _read(lambda: (record.value() or b"" for record in consumer.consume(_READ_AT_ONCE, 0.2)), frames)
    consumer.close()


def _read(poll: Callable[[], Iterator[bytes]], frames: list[Frame]) -> None:
    """Poll until as many values have come, and look at each; AssertionError when they have other sizes in sum."""
    count, size, give_up_s = 0, 0, time.monotonic() + _TIMEOUT_S
    while count < len(frames):
        if time.monotonic() > give_up_s:
            raise TimeoutError(f"{count} of {len(frames)} frames came")
        for value in poll():
            count, size = count + 1, size + len(value)
    if size != sum(len(value) for _, value in frames):
        raise AssertionError(f"{size} bytes came back")


def _check(acknowledged: int, frames: int) -> None:
    if acknowledged != frames:
        raise AssertionError(f"{acknowledged} of {frames} frames were acknowledged")


ACTIONS: Mapping[str, Mapping[str, Callable[[str, str, list[Frame]], object]]] = {
    "kafka-python": {"publish": publish_with_kafka_python, "read": read_with_kafka_python},
    "confluent-kafka": {
        "publish": publish_with_confluent,
        "publish-alone": partial(publish_with_confluent, settings=_ALONE),
        "read": read_with_confluent,
    },
}


def _measured(work: Callable[[], object]) -> dict[str, float]:
    started_s, before_s = time.monotonic(), _processor_s()
    work()
    return {"seconds": time.monotonic() - started_s, "processor_s": _processor_s() - before_s}


def _processor_s() -> float:
    usage = getrusage(RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    client, action, bootstrap, topic, path = sys.argv[1:]
    frames = read_frames(Path(path))
    measured = _measured(lambda: ACTIONS[client][action](bootstrap, topic, frames))
    sys.stdout.write(json.dumps(measured) + "\n")


if __name__ == "__main__":
    main()
