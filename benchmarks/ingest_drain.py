"""How fast ingest drains a backlog: Kafka to raw and one-minute tables, exactly once.

Beside it, in the same run, the limit: ready-made Native blocks of the same rows into the same tables, before and after
the drains; its mean counts, since the machine is not the same from one minute to the next. All in this process, the
broker in its own, all on the same cores.

A drain is measured from its first record on. Before that ingest joins its group and asks the store how far each
partition of each topic had come: a second, however long the backlog is. It is told apart.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from threading import Event, Thread

from clickhouse_connect.driver.client import Client
from prometheus_client import CollectorRegistry

from benchmarks.load import Backlog, make_backlog
from catalogue import GPU, layout_of
from kvandal.broker import EmbeddedBroker
from kvandal.ingesting import IngestProcess
from kvandal.settings import IngestSection, KafkaSettings
from kvandal.store import write_blocks_to_memory
from storage import schema
from storage.client import StoreAddress, connect
from storage.engine import Engine
from storage.native import native_block
from storage.writer import INSERT_SETTINGS
from stream.client import KafkaAddress
from stream.metrics import IngestMetrics
from stream.publish import ensure_topics
from stream.rows import row_type
from tests.servers.kafka import KafkaCluster

_TIMEOUT_S = 300.0
NOBODY: AbstractContextManager[object] = nullcontext()


@dataclass(frozen=True, slots=True)
class Drained:
    """One measurement."""

    what: str
    rows: int
    readings: int
    seconds: float
    processor_s: float
    opened_after_s: float = 0.0

    @property
    def readings_per_second(self) -> float:
        return self.readings / self.seconds

    @property
    def microseconds_per_row(self) -> float:
        return self.processor_s / self.rows * 1e6


def run(*, gpus: int = 4000, seconds: int = 1800, ticks: int = 10, kafka: bool = True) -> dict[str, object]:
    """All measurements of one run as a document."""
    write_blocks_to_memory()
    backlog = make_backlog(gpus=gpus, seconds=seconds, ticks=ticks)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        before = _insert_ready_blocks(backlog, work / "before")
        with _embedded(work) as bootstrap:
            drained = [drain("embedded broker", backlog, bootstrap, work, journal=work / "journal")]
        if kafka:
            with KafkaCluster.start(work / "kafka") as cluster:
                drained.append(drain("Apache Kafka", backlog, cluster.bootstrap, work, journal=None))
        limit = _mean(before, _insert_ready_blocks(backlog, work / "after"))
    return {
        "rows_per_message": ticks * 4,
        "columns": len(GPU.metrics),
        "rows": backlog.rows,
        "limit": _document(limit, limit),
        "drained": [_document(d, limit) for d in drained],
    }


def _mean(one: Drained, other: Drained) -> Drained:
    seconds, processor_s = (one.seconds + other.seconds) / 2, (one.processor_s + other.processor_s) / 2
    return replace(one, seconds=seconds, processor_s=processor_s)


def _document(measured: Drained, limit: Drained) -> dict[str, object]:
    return {
        "what": measured.what,
        "opened_after_s": round(measured.opened_after_s, 2),
        "million_readings_per_second": round(measured.readings_per_second / 1e6, 2),
        "seconds": round(measured.seconds, 2),
        "processor_us_per_row": round(measured.microseconds_per_row, 2),
        "ratio_to_ready_blocks": round(limit.seconds / measured.seconds, 3),
    }


@contextmanager
def _embedded(work: Path) -> Iterator[str]:
    with EmbeddedBroker.start(work / "broker.log") as broker:
        yield broker.bootstrap


def _insert_ready_blocks(backlog: Backlog, path: Path) -> Drained:
    """The limit: nothing but the engine, fed by the same client library, with the same settings."""
    with empty_store(path) as address, closing(connect(address)) as client:
        types = {name: type_name for name, type_name, *_ in client.query("DESCRIBE TABLE gpu").result_rows}
        ready = [b"".join(native_block(rows, types)) for rows in backlog.blocks(IngestSection().insert_rows)]
        names = list(row_type(layout_of(GPU)).names or ())
        meter = Meter()
        for number, block in enumerate(ready):
            settings = {**INSERT_SETTINGS, "insert_deduplication_token": str(number)}
            client.raw_insert("gpu", column_names=names, insert_block=block, settings=settings, fmt="Native")
        return meter.drained("ready-made Native blocks", backlog)


def drain(
    what: str,
    backlog: Backlog,
    bootstrap: str,
    work: Path,
    *,
    journal: Path | None,
    watch: AbstractContextManager[object] = NOBODY,
) -> Drained:
    """Publish the backlog, and measure how it is drained into an empty store; `watch` is open meanwhile."""
    address, kafka = KafkaAddress(bootstrap), KafkaSettings(bootstrap=bootstrap)
    ensure_topics(address, replication=1, partitions=2)
    backlog.publish(address)
    with empty_store(work / f"drain-{journal is None}") as store, closing(connect(store)) as watcher:
        registry = CollectorRegistry()
        metrics, section, start = IngestMetrics(registry), IngestSection(insert_age_s=1), Meter()
        with closing(IngestProcess(section, kafka, store, metrics=metrics, journal=journal)) as process:
            stop = Event()
            thread = Thread(target=process.ingest.run, args=(stop,))
            with watch:
                thread.start()
                _wait_until(lambda: (registry.get_sample_value("kvandal_ingest_buffered_bytes") or 0) > 0)
                opened_after_s, meter = start.wall_s(), Meter()
                wait_until_counted(registry, backlog.rows)
                drained = replace(meter.drained(what, backlog), opened_after_s=opened_after_s)
            stop.set()
            thread.join()
        distinct = watcher.query("SELECT uniqExact(resource, time) FROM gpu").result_rows[0][0]
        if distinct != backlog.rows:
            raise AssertionError(f"{what}: {backlog.rows} rows published, {distinct} distinct ones stored")
    return drained


def wait_until_counted(registry: CollectorRegistry, rows: int) -> None:
    """By ingest's own counters: to ask the store, in this very process, would cost a third of what is measured."""
    _wait_until(lambda: _rows_counted(registry) >= rows)


def _wait_until(done: Callable[[], bool], *, every_s: float = 0.05) -> None:
    give_up_s = time.monotonic() + _TIMEOUT_S
    while not done():
        if time.monotonic() > give_up_s:
            raise TimeoutError(f"not done after {_TIMEOUT_S} s")
        time.sleep(every_s)


def _rows_counted(registry: CollectorRegistry) -> float:
    """Without the other metrics: all of them, twenty times a second, took a twentieth of a core."""
    counted = registry.restricted_registry(["kvandal_ingest_rows_total"]).collect()
    return sum(sample.value for metric in counted for sample in metric.samples)


def wait_until_stored(watcher: Client, rows: int) -> None:
    _wait_until(lambda: watcher.query("SELECT sum(rows) FROM frames").result_rows[0][0] >= rows, every_s=0.2)


@contextmanager
def empty_store(path: Path) -> Iterator[StoreAddress]:
    """An empty store with today's schema. One engine per process: the path is free again afterwards."""
    path.mkdir()
    with Engine.open(path, memory_limit_bytes=None):
        address = StoreAddress(f"chdb://{path}")
        with closing(connect(address)) as client:
            schema.apply(client)
            yield address


def wait_for_merges(client: Client) -> None:
    """Until no merge was seen for a second."""
    give_up_s, still = time.monotonic() + _TIMEOUT_S, 0
    while still < 5 and time.monotonic() < give_up_s:
        time.sleep(0.2)
        still = 0 if client.query("SELECT count() FROM system.merges").result_rows[0][0] else still + 1


class Meter:
    """Wall and processor time since it was made."""

    def __init__(self) -> None:
        self._started_s = time.monotonic()
        self._processor_s = _processor_s()

    def wall_s(self) -> float:
        return time.monotonic() - self._started_s

    def processor_s(self) -> float:
        """Of this process, all threads, since this was made."""
        return _processor_s() - self._processor_s

    def drained(self, what: str, backlog: Backlog) -> Drained:
        return Drained(what, backlog.rows, backlog.readings, self.wall_s(), self.processor_s())


def _processor_s() -> float:
    usage = getrusage(RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
