"""The agent's /metrics: its own health, and the catalogue's alerting subset of the latest readings."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from threading import Lock

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from catalogue import TABLES, Kind, Metric, Table
from collectors.source import Reading
from collectors.spool import Evicted, Outgoing, Spool
from stream.rows import Rows, in_base_unit, join_rows

_READ_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class AgentMetrics:
    """The agent's own figures, in one registry of the process."""

    def __init__(self, registry: CollectorRegistry, spool: Spool, *, readings: bool = True) -> None:
        self._latest = _LatestReadings() if readings else None
        if self._latest is not None:
            registry.register(self._latest)
        self._up = Gauge(
            "kvandal_agent_source_up", "Whether the source answered at its last tick.", ["source"], registry=registry
        )
        self._read_seconds = Histogram(
            "kvandal_agent_read_seconds", "Time that one read of a source took.", ["source"],
            buckets=_READ_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._missed = Counter(
            "kvandal_agent_missed_ticks_total", "Ticks skipped because the source was still busy.", ["source"],
            registry=registry,
        )  # fmt: skip
        self._produced = Counter(
            "kvandal_agent_rows_total", "Rows that the broker has acknowledged.", ["topic"], registry=registry
        )
        self._lost = Counter(
            "kvandal_agent_lost_rows_total", "Rows that were lost, by reason.", ["topic", "reason"], registry=registry
        )
        spool_bytes = Gauge("kvandal_agent_spool_bytes", "Bytes that wait in the spool.", registry=registry)
        spool_bytes.set_function(lambda: spool.size_bytes)

    def judged(self, source: str, *, up: bool) -> None:
        self._up.labels(source).set(up)

    def read_took(self, source: str, seconds: float) -> None:
        self._read_seconds.labels(source).observe(seconds)

    def missed_ticks(self, source: str, count: int) -> None:
        self._missed.labels(source).inc(max(count, 0))

    def produced(self, topic: str, rows: int) -> None:
        self._produced.labels(topic).inc(rows)

    def lost(self, frames: Iterable[Outgoing]) -> None:
        """Frames that the spool could not take."""
        for frame in frames:
            self._lost.labels(frame.topic, "spool refused").inc(frame.rows)

    def evicted(self, evicted: Iterable[Evicted]) -> None:
        for account in evicted:
            self._lost.labels(account.topic, "evicted").inc(account.rows)

    def latest(self, readings: Sequence[Reading]) -> None:
        if self._latest is not None:
            self._latest.update(readings)


class _LatestReadings(Collector):
    """The exported metrics of the latest tick of every source, made when Prometheus asks.

    A delta is exposed as the counter that it adds up to since the agent started.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._rows: dict[tuple[int, str], Rows] = {}
        self._sums: defaultdict[tuple[str, int], float] = defaultdict(float)

    def update(self, readings: Sequence[Reading]) -> None:
        with self._lock:
            for reading in readings:
                last_tick = reading.rows[reading.rows["time"] == reading.rows["time"][-1]]
                self._rows[(reading.source, reading.table.name)] = last_tick
                for metric in reading.table.of_kind(Kind.DELTA):
                    if metric.exported:
                        self._add(metric, reading.rows)

    def _add(self, metric: Metric, rows: Rows) -> None:
        for resource, value in zip(rows["resource"].tolist(), in_base_unit(metric, rows).tolist(), strict=True):
            if value == value:  # NaN is no reading
                self._sums[(metric.name, resource)] += value

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        with self._lock:
            tables = {
                table.name: [rows for (_, name), rows in self._rows.items() if name == table.name] for table in TABLES
            }
            for table in TABLES:
                if tables[table.name]:
                    rows = join_rows(tables[table.name])
                    yield from (self._family(table, metric, rows) for metric in table.metrics if metric.exported)

    def _family(self, table: Table, metric: Metric, rows: Rows) -> GaugeMetricFamily | CounterMetricFamily:
        adds_up = metric.kind is Kind.DELTA
        make = CounterMetricFamily if metric.kind in (Kind.DELTA, Kind.REGISTER) else GaugeMetricFamily
        family = make(table.prometheus_name(metric), metric.help, labels=["resource"])
        for resource, value in zip(rows["resource"].tolist(), in_base_unit(metric, rows).tolist(), strict=True):
            shown = self._sums.get((metric.name, resource)) if adds_up else value
            if shown is not None and shown == shown:
                family.add_metric([f"{resource:016x}"], shown)
        return family
