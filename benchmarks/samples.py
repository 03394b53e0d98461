"""What choices of storage are measured on: the simulator's GPUs, and this very machine as the agent reads it."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from clickhouse_connect.driver.client import Client

from benchmarks.load import make_backlog
from catalogue import Table
from collectors.host import HostSource
from kvandal.settings import IngestSection
from storage.client import StoreAddress, connect
from stream.rows import Rows, join_rows

BLOCK_ROWS = IngestSection().insert_rows


def simulated_gpus(gpus: int, seconds: int) -> Rows:
    """Rows of table `gpu`, in the order in which agents publish them in frames of ten ticks."""
    return join_rows(list(make_backlog(gpus=gpus, seconds=seconds, ticks=10).blocks(BLOCK_ROWS)))


def this_machine(seconds: float, *, every_s: float = 0.1) -> Rows:
    """Rows of table `tray`: what source `host` reads of this machine while `seconds` pass.

    It is read ten times as often as an agent could, and each reading stands for a tick of its own: so minutes give
    enough rows to tell codecs apart. What is counted between two readings is a tenth of what it would be.
    """
    source = HostSource(spool=Path.cwd())
    first_s, parts = int(time.time()) - int(seconds / every_s), []
    source.read(first_s - 1)  # counters need one reading before
    for tick in range(int(seconds / every_s)):
        parts += [reading.rows for reading in source.read(first_s + tick)]
        time.sleep(every_s)
    return join_rows(parts)


def present_readings(table: Table, rows: Rows) -> int:
    """How many values of metrics are present."""
    return sum(int(np.count_nonzero(rows[m.column] != m.stored.absent)) for m in table.metrics)


@contextmanager
def scratch_engine(disk: Path) -> Iterator[Client]:
    """The engine in this process, on a folder below `disk` without any table."""
    with (
        tempfile.TemporaryDirectory(dir=disk) as folder,
        closing(connect(StoreAddress(f"chdb://{folder}/store"))) as client,
    ):
        yield client
