"""The embedded store: ClickHouse in this process, its HTTP door, and the ingest that alone writes to it."""

import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

from clickhouse_connect.driver.client import Client
from prometheus_client import CollectorRegistry

from catalogue import TABLES
from kvandal.addresses import kafka_address
from kvandal.backing_up import BackupDesk, PlanGate
from kvandal.fault import Fault
from kvandal.ingesting import IngestProcess
from kvandal.keeping import keep_store
from kvandal.serving import serve_metrics, tell_parent
from kvandal.settings import IngestSettings, KafkaSettings, KeeperSettings
from storage import schema
from storage.client import DATABASE, StoreAddress, connect
from storage.door import Door, DoorCertificate
from storage.engine import Engine
from storage.retention import keep_days
from storage.roles import Role, RoleName, make_role
from stream.metrics import IngestMetrics
from stream.publish import ensure_topics

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """Where the embedded store keeps its data and how it is reached."""

    data: Path
    door_port: int = 0
    door_host: str = "127.0.0.1"
    door_certificate: DoorCertificate | None = None  # needed beyond loopback
    memory_mb: int = 4096
    keep_raw_days: int = 400
    passwords: Mapping[RoleName, str] = field(default_factory=dict, repr=False)
    fault: Fault | None = None


def run_store(options: StoreOptions, settings: IngestSettings, stop: Event) -> None:
    """Serve and ingest until `stop`; says on stdout, as one JSON line, where the door is.

    Raises OSError when the data directory is held by another process, is not writable, or a port is
    taken; ConnectionError when the broker is away.
    """
    write_blocks_to_memory()
    with ExitStack() as stack:
        engine = stack.enter_context(Engine.open(options.data, memory_limit_bytes=options.memory_mb << 20, pool_size=2))
        roles = [make_role(name, password) for name, password in options.passwords.items()]
        door = stack.enter_context(closing(_open_door(engine, roles, options)))
        address = StoreAddress(f"chdb://{engine.path}")
        client = stack.enter_context(connect(address))
        _make_ready(client, settings.kafka, options)
        gate = PlanGate()
        registry = CollectorRegistry()
        page = serve_metrics(registry, host=settings.ingest.metrics_host, port=settings.ingest.metrics_port)
        process = stack.enter_context(
            closing(
                IngestProcess(
                    settings.ingest,
                    settings.kafka,
                    address,
                    metrics=IngestMetrics(registry),
                    journal=options.data.parent / "journal",
                    gate=gate,
                    fault=options.fault,
                )
            )
        )
        stack.enter_context(BackupDesk(options.data, gate))
        tell_parent({"door": door.url, "metrics": f"http://127.0.0.1:{page.server_port}/metrics"})
        keeper = Thread(target=keep_store, args=(address, KeeperSettings(), stop), name="keeper", daemon=True)
        keeper.start()
        process.ingest.run(stop)
        keeper.join(timeout=30)


def _make_ready(client: Client, kafka: KafkaSettings, options: StoreOptions) -> None:
    """Tables as the catalogue has them, kept as long as is asked for, and the topics that are read."""
    for migration in schema.apply(client):
        logger.info("migration applied", extra={"number": migration.number, "migration": migration.name})
    keep_days(client, {table.name: options.keep_raw_days for table in TABLES})
    ensure_topics(kafka_address(kafka), replication=kafka.replication, partitions=kafka.partitions or None)


def _open_door(engine: Engine, roles: Sequence[Role], options: StoreOptions) -> Door:
    """On loopback, whoever is on this machine may read; on a network nobody is let in without a password."""
    is_local = options.door_host == "127.0.0.1" and options.door_certificate is None
    return Door.open(
        engine,
        roles,
        database=DATABASE,
        host=options.door_host,
        port=options.door_port,
        anonymous=RoleName.REPORTS if is_local and RoleName.REPORTS in options.passwords else None,
        certificate=options.door_certificate,
    )


def write_blocks_to_memory() -> None:
    """The client library hands every block to the engine through a temporary file: keep it off the disk."""
    memory = Path("/dev/shm")  # noqa: S108 - that it is memory is the point
    if memory.is_dir() and os.access(memory, os.W_OK):
        tempfile.tempdir = str(memory)
