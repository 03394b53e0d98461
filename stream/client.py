"""One way to make Kafka clients: addresses, limits, and errors that callers can act on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

# kafka-python ships no types; its objects stay behind this package's own interfaces.
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer  # type: ignore[import-untyped]
from kafka.errors import KafkaError  # type: ignore[import-untyped]
from kafka.net.compat import KafkaNetClient  # type: ignore[import-untyped]

from stream.frame import MAX_FRAME_BYTES
from stream.log import LogUnavailableError
from stream.security import PLAINTEXT, KafkaSecurity

# Who waits for a broker asks again; who was told to stop should not have to wait for the answer.
_BOOTSTRAP_MS = 3_000
_METADATA_MS = 3_000
# One question to the brokers. The client's own default is 30 s for most and for ever for a group's commits.
ANSWER_MS = 10_000
# The client keeps what it fetched as the brokers sent it, and asks for the next while it hands that out: twice this of
# each broker. Larger ones drained a backlog no faster.
FETCH_BYTES = 16 << 20
PARTITION_FETCH_BYTES = 4 << 20

_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class KafkaAddress:
    """Where the brokers are and how to be let in."""

    bootstrap: str
    security: KafkaSecurity = PLAINTEXT


def make_admin(address: KafkaAddress) -> Any:
    """An admin client; LogUnavailableError when no broker answers."""
    made: list[Any] = []

    def make_connections(**options: Any) -> Any:
        made.append(KafkaNetClient(**options))
        return made[-1]

    try:
        return _make(
            KafkaAdminClient,
            address,
            client_id="kvandal-admin",
            kafka_client=make_connections,
            request_timeout_ms=ANSWER_MS,
        )
    except LogUnavailableError:
        # kafka-python 3.0 leaves the thread of a client that found no broker running: one more with every attempt.
        for connections in made:
            connections.close()
            connections._manager._net.stop()
        raise


def make_producer(address: KafkaAddress, *, compression: str = "zstd") -> Any:
    """A producer whose acknowledgement means: on every in-sync replica, once, in order."""
    producer = _make(
        KafkaProducer,
        address,
        client_id="kvandal-producer",
        acks="all",
        enable_idempotence=True,
        compression_type=compression,
        # Frames of many sources share a batch: the cost of a broker is per batch.
        linger_ms=20,
        batch_size=256 << 10,
        max_request_size=2 * MAX_FRAME_BYTES,
        # How long send() may wait for a topic's partitions: who publishes has looked before whether it exists.
        max_block_ms=_METADATA_MS,
        metrics_enabled=False,  # nobody asks it for them, as below: we count what was acknowledged, and what was stored
    )
    return _without_topic_creation(producer)


def make_consumer(address: KafkaAddress, *, group: str, session_timeout_ms: int = 30_000) -> Any:
    """A consumer that commits by hand, fetches in large pieces, and never invents a position."""
    consumer = _make(
        KafkaConsumer,
        address,
        client_id="kvandal-ingest",
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="none",
        session_timeout_ms=session_timeout_ms,
        heartbeat_interval_ms=session_timeout_ms // 10,
        max_poll_interval_ms=600_000,
        fetch_min_bytes=256 << 10,
        fetch_max_wait_ms=200,
        max_partition_fetch_bytes=PARTITION_FETCH_BYTES,
        fetch_max_bytes=FETCH_BYTES,
        metrics_enabled=False,
    )
    return _without_topic_creation(consumer)


def _make(client: Callable[..., _Made], address: KafkaAddress, **options: Any) -> _Made:
    servers, let_in = address.bootstrap.split(","), address.security.client_options()
    try:
        return client(bootstrap_servers=servers, bootstrap_timeout_ms=_BOOTSTRAP_MS, **options, **let_in)
    except KafkaError as error:
        why = address.security.diagnose(address.bootstrap)
        said = f"no Kafka broker answers at {address.bootstrap}" + (f": {why}" if why else "")
        raise LogUnavailableError(f"{said} ({error})") from error


def _without_topic_creation(client: Any) -> Any:
    """Keep a client from creating topics by asking about them.

    kafka-python 3.0 does not hand its option allow_auto_create_topics on to the metadata requests;
    a broker that creates topics would then make a lost one anew, with settings of its own.
    """
    metadata = getattr(client, "_cluster", None) or getattr(client, "_metadata", None)
    if metadata is not None:
        metadata.config["allow_auto_create_topics"] = False
    return client


@contextmanager
def kafka_errors(doing: str) -> Iterator[None]:
    """Turns the client library's errors into LogUnavailableError."""
    try:
        yield
    except KafkaError as error:
        raise LogUnavailableError(f"{doing} ({error})") from error
