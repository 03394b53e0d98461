"""The embedded store with a desk for back-ups, as a process: engine, door, ingest as the single owner, gate.

python -m tests.servers.gated_store DATA BROKER PORT
"""

import sys
from contextlib import ExitStack, closing
from pathlib import Path

from prometheus_client import CollectorRegistry

from kvandal.addresses import kafka_address
from kvandal.backing_up import BackupDesk, GatedWriter, PlanGate
from kvandal.logs import set_up_logs
from kvandal.plans import TablePlans
from kvandal.serving import stop_on_signals
from kvandal.settings import KafkaSettings
from kvandal.store import write_blocks_to_memory
from storage import schema
from storage.books import FrameBooks, PlanTable
from storage.client import DATABASE, StoreAddress, connect
from storage.door import Door
from storage.engine import Engine
from storage.roles import RoleName, make_role
from storage.writer import Writer
from stream.clock import SystemClock
from stream.consume import AnnouncedPlans, KafkaLog
from stream.health import SourceHealth, StormRule
from stream.ingest import Ingest, IngestRules
from stream.lane import CutRule
from stream.metrics import IngestMetrics
from stream.publish import DeadLetterPublisher, Publisher
from stream.topics import INGESTED

# Small inserts, often: so that a back-up at a random moment meets every step of one.
RULES = IngestRules(cut=CutRule(rows=400, age_s=0.5), joined=True)


def serve(data: Path, bootstrap: str, port: int) -> None:
    stop = stop_on_signals()
    address = kafka_address(KafkaSettings(bootstrap=bootstrap))
    write_blocks_to_memory()
    with ExitStack() as stack:
        engine = stack.enter_context(Engine.open(data, memory_limit_bytes=2 << 30))
        admin = make_role(RoleName.ADMIN, "admin password")
        stack.enter_context(closing(Door.open(engine, [admin], database=DATABASE, port=port)))
        client = stack.enter_context(connect(StoreAddress(f"chdb://{engine.path}")))
        schema.apply(client)
        clock, gate = SystemClock(), PlanGate()
        log = KafkaLog(
            address, [topic.name for topic in INGESTED], group="kvandal-ingest", clock=clock, owned=True
        )  # fmt: skip
        stack.enter_context(closing(log))
        publisher = stack.enter_context(closing(Publisher(address)))
        stack.enter_context(BackupDesk(data, gate))
        Ingest(
            log,
            AnnouncedPlans(TablePlans(PlanTable(client), data.parent / "journal"), log),
            GatedWriter(Writer(client), gate),
            FrameBooks(client),
            DeadLetterPublisher(publisher),
            rules=RULES,
            clock=clock,
            metrics=IngestMetrics(CollectorRegistry()),
            health=SourceHealth(StormRule()),
        ).run(stop)


if __name__ == "__main__":
    set_up_logs()
    serve(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
