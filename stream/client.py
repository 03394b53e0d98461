"""One way to make Kafka clients: addresses, limits, and errors that callers can act on."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

# kafka-python ships no types; its objects stay behind this package's own interfaces.
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer  # type: ignore[import-untyped]
from kafka.errors import KafkaError  # type: ignore[import-untyped]

from stream.frame import MAX_FRAME_BYTES
from stream.log import LogUnavailableError

# Who waits for a broker asks again; who was told to stop should not have to wait for the answer.
_BOOTSTRAP_MS = 3_000

_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class KafkaAddress:
    """Where the brokers are and how to speak to them.

    `options` are kafka-python client options (security_protocol, sasl_..., ssl_...): secrets, never shown.
    """

    bootstrap: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)


def make_admin(address: KafkaAddress) -> Any:
    """An admin client; LogUnavailableError when no broker answers."""
    return _make(KafkaAdminClient, address, client_id="kvandal-admin")


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
        max_poll_records=20_000,
        fetch_min_bytes=256 << 10,
        fetch_max_wait_ms=200,
        max_partition_fetch_bytes=16 << 20,
        fetch_max_bytes=64 << 20,
    )
    return _without_topic_creation(consumer)


def _make(client: Callable[..., _Made], address: KafkaAddress, **options: Any) -> _Made:
    with kafka_errors(f"no Kafka broker answers at {address.bootstrap}"):
        servers = address.bootstrap.split(",")
        return client(bootstrap_servers=servers, bootstrap_timeout_ms=_BOOTSTRAP_MS, **options, **address.options)


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
