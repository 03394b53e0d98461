"""What ingest tells Prometheus about itself."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from stream.batch import Batch, Outcome


class IngestMetrics:
    """Ingest's own figures, in one registry of the process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.frames = Counter(
            "kvandal_ingest_frames_total", "Frames read, by table and outcome.", ["table", "outcome"], registry=registry
        )
        self.rows = Counter("kvandal_ingest_rows_total", "Rows stored, by table.", ["table"], registry=registry)
        self.inserts = Counter("kvandal_ingest_inserts_total", "Plans written.", ["table"], registry=registry)
        self.retries = Counter(
            "kvandal_ingest_retries_total", "Calls repeated because something was away.", ["doing"], registry=registry
        )
        self.expired = Counter(
            "kvandal_ingest_expired_records_total", "Records that expired before they were read.", ["topic"],
            registry=registry,
        )  # fmt: skip
        self.buffered_bytes = Gauge(
            "kvandal_ingest_buffered_bytes", "Bytes read and not yet planned.", registry=registry
        )
        self.last_plan_seconds = Gauge(
            "kvandal_ingest_last_plan_timestamp_seconds", "When the newest stored plan was made.", ["table"],
            registry=registry,
        )  # fmt: skip

    def count(self, batch: Batch) -> None:
        """Take note of a batch that is stored."""
        self.inserts.labels(batch.table).inc()
        self.last_plan_seconds.labels(batch.table).set(batch.plan.checked_at_ms / 1000)
        self.rows.labels(batch.table).inc(len(batch.messages) if batch.rows is None else len(batch.rows))
        if batch.frames is not None:
            for outcome in Outcome:
                count = int((batch.frames["outcome"] == outcome).sum())
                self.frames.labels(batch.table, outcome.name.lower()).inc(count)
