"""A long backlog drains in constant memory: below one bound, whatever its length, and far below the backlog itself.

KVANDAL_BACKLOG_ROWS sets its length: `make backlog` drains 5 and then 20 million rows under the same bound.
"""

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import numpy as np
import psutil
import pytest
from clickhouse_connect.driver.client import Client

from catalogue import GPU
from storage.client import StoreAddress
from stream.client import KafkaAddress
from stream.frame import seal
from stream.publish import Publisher
from tests.conftest import DoorUnderTest
from tests.servers.kafka import KafkaCluster
from tests.servers.stack import Running, fresh_topics, random_rows, start_ingest, until

logger = logging.getLogger(__name__)

ROWS = int(os.environ.get("KVANDAL_BACKLOG_ROWS", "2400000"))
BUFFER_MB = 16
# Interpreter and libraries 60 MB; BUFFER_MB that is read and not planned, and a poll of 32 MB that came on top; twice
# 16 MB in the client's fetches; an insert of 120,000 rows (13 MB) as records, as a block and as bytes on their way, and
# the next one as records and as a block. How much of it is there when one looks varies with the store's speed: 112 to
# 201 MB were seen, also of shorter backlogs.
BOUND_BYTES = 256 << 20
IDLE_BYTES = 60 << 20
GPUS, TICKS = 72, 10  # frames of a rack's gateway, ten seconds each
# Different readings: 16 are more than one batch of records holds, so that they compress no better than real ones; the
# same one again and again compresses a hundred times, and a fetch unpacks to as much more.
VARIETIES = {"as real ones": 16, "all the same": 1}
SOURCES = 16
SETTINGS = {"KVANDAL_INGEST_BUFFER_MB": str(BUFFER_MB)}


@pytest.fixture
def kafka(apache_kafka: KafkaCluster) -> Iterator[str]:
    with fresh_topics(apache_kafka.bootstrap, partitions=4):
        yield apache_kafka.bootstrap


@pytest.mark.timeout(300 + ROWS // 1_000)
@pytest.mark.parametrize("variety", VARIETIES.values(), ids=VARIETIES)
def test_a_backlog_drains_in_memory_that_does_not_depend_on_its_length(
    kafka: str, door: DoorUnderTest, store: Client, tmp_path: Path, variety: int
) -> None:
    frames = ROWS // (GPUS * TICKS)
    backlog_bytes = publish_backlog(kafka, frames, variety=variety)

    peak_bytes = drain(kafka, door.address("ingest"), store, tmp_path, frames=frames)

    logger.warning("%d rows, %d MB, in %d MB", ROWS, backlog_bytes >> 20, peak_bytes >> 20)
    assert store.command("SELECT count() FROM gpu") == frames * GPUS * TICKS
    assert peak_bytes < BOUND_BYTES
    assert backlog_bytes > 1.2 * (BOUND_BYTES - IDLE_BYTES), "this backlog would be within the bound if it were held"


def drain(bootstrap: str, address: StoreAddress, store: Client, folder: Path, *, frames: int) -> int:
    """Run ingest until the store holds so many frames; returns the most bytes that were resident."""
    started_s = time.monotonic()
    with start_ingest(folder, "ingest", bootstrap, address, SETTINGS) as ingest:
        peak = Peak(ingest)
        until(
            lambda: store.command("SELECT count() FROM frames WHERE outcome = 'stored'") == frames,
            what=f"{frames} frames are stored",
            timeout_s=140 + ROWS / 2_500,
        )
        assert ingest.stop() == 0
        logger.warning("draining took %.0f s", time.monotonic() - started_s)
        return peak.bytes


class Peak:
    """The most memory that a process had resident, looked at ten times a second until it ends."""

    def __init__(self, running: Running) -> None:
        self.bytes = 0
        self._process = psutil.Process(running.process.pid)
        self._pause = Event()
        Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        try:
            while not self._pause.wait(0.1):
                self.bytes = max(self.bytes, self._process.memory_info().rss)
        except psutil.NoSuchProcess:
            return


def publish_backlog(bootstrap: str, frames: int, *, variety: int) -> int:
    """So many frames, from each source in turn; returns their bytes as ingest reads them."""
    errors: list[Exception] = []
    publisher, random = Publisher(KafkaAddress(bootstrap)), np.random.default_rng(7)
    start_s = time.time_ns() // 10**9 // 60 * 60 - 6 * 86_400
    times = np.repeat(np.arange(TICKS), GPUS)
    readings = [random_rows(GPU, np.tile(np.arange(GPUS), TICKS), times, random) for _ in range(variety)]
    size = 0
    for number in range(frames):
        source, sequence = number % SOURCES, number // SOURCES * TICKS
        rows = readings[number % variety].copy()
        rows["resource"] = np.tile(np.arange(GPUS), TICKS) + (source << 8)
        rows["time"] = times + start_s + sequence
        value = seal(GPU, rows, source=source, epoch_ms=1, sequence=sequence, ticks=TICKS, sent_ms=1)
        size += len(value)
        publisher.publish(GPU.topic, source, value, acknowledged=lambda _: None, failed=errors.append)
        if number % 500 == 0:
            publisher.flush()
    publisher.flush()
    publisher.close()
    assert not errors, errors[0]
    return size
