"""Composes ingest: in a consumer group against a server, or as the single owner of the embedded engine."""

from contextlib import closing, suppress
from pathlib import Path
from threading import Event

from prometheus_client import CollectorRegistry

from kvandal.addresses import kafka_address, store_address
from kvandal.backing_up import GatedWriter, PlanGate
from kvandal.fault import Fault, FaultyWriter
from kvandal.plans import TablePlans
from kvandal.serving import serve_metrics
from kvandal.settings import IngestSection, IngestSettings, KafkaSettings
from storage.books import FrameBooks, PlanTable
from storage.client import StoreAddress, connect
from storage.writer import Writer
from stream import ingest as stream_ingest
from stream.batch import TimeLimits
from stream.clock import SystemClock
from stream.consume import AnnouncedPlans, CommittedPlans, KafkaLog
from stream.health import SourceHealth, StormRule
from stream.ingest import Ingest, IngestRules
from stream.lane import CutRule
from stream.metrics import IngestMetrics
from stream.publish import DeadLetterPublisher, Publisher
from stream.retry import StoppedError, retry_until_stopped
from stream.topics import INGESTED

# An insert takes a second at most, and one that is tried again changes nothing: who is asked to stop waits no longer.
ANSWER_TIMEOUT_S = 30


class IngestProcess:
    """An ingest with its clients, ready to run; `close` lets go of them.

    With a `journal` folder it is the single owner of its store and broker; without, a member of the
    consumer group. A `gate` keeps its plans and back-ups apart.
    """

    def __init__(
        self,
        section: IngestSection,
        kafka: KafkaSettings,
        store: StoreAddress,
        *,
        metrics: IngestMetrics,
        journal: Path | None = None,
        gate: PlanGate | None = None,
        fault: Fault | None = None,
    ) -> None:
        address, clock = kafka_address(kafka), SystemClock()
        self._client = client = connect(store, answer_timeout_s=ANSWER_TIMEOUT_S)
        self._publisher = Publisher(address, compression=kafka.compression)
        self._log = KafkaLog(
            address,
            [topic.name for topic in INGESTED],
            group=kafka.group,
            clock=clock,
            owned=journal is not None,
            # The embedded broker tells the wrong end of its log; a new topic id tells that it restarted.
            bounds_reliable=journal is None,
            session_timeout_ms=section.session_timeout_s * 1000,
        )
        writer: stream_ingest.Writer = FaultyWriter(Writer(client), fault) if fault else Writer(client)
        self.ingest = Ingest(
            self._log,
            AnnouncedPlans(TablePlans(PlanTable(client), journal), self._log)
            if journal
            else CommittedPlans(self._log.consumer),
            GatedWriter(writer, gate) if gate else writer,
            FrameBooks(client),
            DeadLetterPublisher(self._publisher),
            rules=_rules(section, joined=journal is not None),
            clock=clock,
            metrics=metrics,
            health=SourceHealth(StormRule()),
        )

    def close(self) -> None:
        self._log.close()
        self._publisher.close()
        self._client.close()


def run_ingest(settings: IngestSettings, stop: Event) -> None:
    """Ingest in a consumer group until `stop`; what is away at the start is waited for.

    Raises PortTakenError at start, ValueError when the store refuses rows, StormError when too many
    sources send rubbish.
    """
    registry = CollectorRegistry()
    metrics = IngestMetrics(registry)
    serve_metrics(registry, host=settings.ingest.metrics_host, port=settings.ingest.metrics_port)

    def start() -> IngestProcess:
        store = store_address(settings.store)
        return IngestProcess(settings.ingest, settings.kafka, store, metrics=metrics)

    with suppress(StoppedError), closing(retry_until_stopped(start, doing="starting", stop=stop)) as process:
        process.ingest.run(stop)


def _rules(section: IngestSection, *, joined: bool) -> IngestRules:
    return IngestRules(
        cut=CutRule(rows=section.insert_rows, age_s=section.insert_age_s),
        time=TimeLimits(behind_s=section.behind_days * 86_400, ahead_s=section.ahead_s),
        raw_days=section.raw_days,
        buffer_bytes=section.buffer_mb << 20,
        joined=joined,
    )
