"""Broker, store and ingest as a site runs them: each a process of its own, with empty logs and tables."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from clickhouse_connect.driver.client import Client

from storage import schema
from storage.client import connect
from stream.client import KafkaAddress
from stream.publish import ensure_topics
from tests.servers.kafka import KafkaCluster
from tests.servers.stack import Running, StoreServer, start_ingest


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What runs, and a client of the store."""

    broker_data: Path
    address: KafkaAddress
    client: Client
    ingest: Running
    pids: dict[str, int]  # of broker, ingest and store


@contextmanager
def start_pipeline() -> Iterator[Pipeline]:
    """All three with their defaults; they end with the context."""
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        cluster = running.enter_context(KafkaCluster.start(folder / "kafka"))
        address = KafkaAddress(cluster.bootstrap)
        ensure_topics(address, replication=1)
        store = running.enter_context(StoreServer.start(folder / "store"))
        client = running.enter_context(closing(connect(store.address())))
        schema.apply(client)
        ingest = running.enter_context(start_ingest(folder, "ingest", cluster.bootstrap, store.address("ingest")))
        broker = cluster.nodes[0].process
        assert broker is not None
        pids = {"broker": broker.pid, "ingest": ingest.process.pid, "store": store.process.pid}
        yield Pipeline(folder / "kafka", address, client, ingest, pids)
