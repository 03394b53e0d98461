"""How the cost of a row grows with columns and with GPUs; benchmarks/held_rows.py tells the same of retention.

- Columns: tables of the catalogue's `gpu`, cut to 40 metrics or widened to 70 and 140 by repeating metrics under other
  names. Frames are encoded and decoded, batches built from them as ingest builds them and inserted, minutes included,
  into an empty store. Kafka is left out: it does not look into a frame.
- GPUs: the same number of rows from 1,000, 10,000 and 100,000 GPUs, as frames of ten ticks, drained by ingest from the
  embedded broker.

Run: `python -m benchmarks.growth`.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from clickhouse_connect.driver.client import Client

from benchmarks import ingest_drain
from benchmarks.frame_codec import least_us
from benchmarks.ingest_drain import Meter, wait_for_merges
from benchmarks.samples import BLOCK_ROWS, present_readings, simulated_gpus
from catalogue import GPU, Table, layout_of
from kvandal.store import write_blocks_to_memory
from storage.client import StoreAddress, connect
from storage.ddl import minute_table, minute_view, raw_table
from storage.writer import Writer
from stream.batch import FrameBatcher, Record
from stream.frame import decode_frame, seal
from stream.plan import Plan, Range
from stream.rows import Rows, absent_rows
from stream.seen import SeenFrames

COLUMNS = (40, 70, 140)
SITES = ((1_000, 1_000), (10_000, 100), (100_000, 10))  # GPUs and seconds: a million rows each
_FRAME_ROWS, _TICKS = 40, 10


def run() -> dict[str, object]:
    """All measurements of one run as a document."""
    disk = Path(tempfile.gettempdir())  # asked first: the next line is about the small files of the client library
    write_blocks_to_memory()
    rows = simulated_gpus(400, 600)
    return {
        "columns": [_with_columns(count, rows, disk) for count in COLUMNS],
        "gpus": [_with_gpus(gpus, seconds) for gpus, seconds in SITES],
    }


# Columns


def _with_columns(count: int, rows: Rows, disk: Path) -> dict[str, object]:
    table = widened(count)
    wide = _filled(table, rows)
    frames = list(_frames(table, wide))
    layouts = {layout_of(table).fingerprint: layout_of(table)}
    part = wide[:_FRAME_ROWS]
    with _scratch(disk) as path, closing(connect(StoreAddress(f"chdb://{path}"))) as client:
        for statement in (raw_table(table), minute_table(table), minute_view(table)):
            client.command(statement)
        build_s, insert_s = _build_and_insert(client, table, frames)
        size = _bytes(client, table.name)
    return {
        "columns": count,
        "bytes_per_row_in_a_frame": wide.dtype.itemsize,
        "encode_us_per_frame": round(least_us(lambda: _seal(table, part, 0)), 2),
        "decode_us_per_frame": round(least_us(lambda: decode_frame(frames[0], layouts)), 2),
        "build_processor_us_per_row": round(build_s / len(rows) * 1e6, 3),
        "insert_processor_us_per_row": round(insert_s / len(rows) * 1e6, 2),
        "insert_processor_ns_per_reading": round(insert_s / present_readings(table, wide) * 1e9, 1),
        "bytes_per_row": round(size / len(rows), 2),
    }


def widened(count: int) -> Table:
    """The table `gpu` with so many metrics: its first, and from its length on the same again under other names."""
    metrics = tuple(
        replace(metric, name=f"{metric.name.rpartition('_')[0]}_{n // len(GPU.metrics)}_{metric.unit.suffix}")
        if n >= len(GPU.metrics)
        else metric
        for n, metric in enumerate(islice(cycle(GPU.metrics), count))
    )
    return replace(GPU, name=f"gpu_of_{count}", metrics=metrics)


def _filled(table: Table, rows: Rows) -> Rows:
    wide = absent_rows(table, len(rows))
    wide["resource"], wide["time"] = rows["resource"], rows["time"]
    for n, metric in enumerate(table.metrics):
        column = rows[GPU.metrics[n % len(GPU.metrics)].column]
        # A repeated metric is that of another tray, from its first tick to its last: no codec may find it again.
        wide[metric.column] = np.roll(column, n // len(GPU.metrics) * _FRAME_ROWS * 7)
    return wide


def _frames(table: Table, rows: Rows) -> Iterator[bytes]:
    for start in range(0, len(rows), _FRAME_ROWS):
        yield _seal(table, rows[start : start + _FRAME_ROWS], start)


def _seal(table: Table, rows: Rows, number: int) -> bytes:
    return seal(table, rows, source=number, epoch_ms=1, sequence=0, ticks=_TICKS, sent_ms=1)


def _build_and_insert(client: Client, table: Table, frames: list[bytes]) -> tuple[float, float]:
    """Processor seconds of building batches from frames, and of inserting them until nothing merges."""
    batcher, seen, writer = FrameBatcher(table, known=(layout_of(table),)), SeenFrames(), Writer(client)
    at_once, build_s, insert_s = BLOCK_ROWS // _FRAME_ROWS, 0.0, 0.0
    for start in range(0, len(frames), at_once):
        records = [Record(0, start + n, value) for n, value in enumerate(frames[start : start + at_once])]
        plan = Plan(table.topic, UUID(int=1), (Range(0, start, start + len(records)),), int(time.time() * 1000), 1)
        meter = Meter()
        batch = batcher.build(plan, records, seen)
        build_s += meter.processor_s()
        if batch.rows is None or len(batch.rows) != sum(len(record.value) // batcher.row_bytes for record in records):
            raise AssertionError("not all rows were taken")
        meter = Meter()
        writer.insert_rows(table.name, batch.rows, token=plan.token)
        insert_s += meter.processor_s()
    meter = Meter()
    wait_for_merges(client)
    return build_s, insert_s + meter.processor_s()


# GPUs


def _with_gpus(gpus: int, seconds: int) -> dict[str, object]:
    document: Any = ingest_drain.run(gpus=gpus, seconds=seconds, ticks=10, kafka=False)
    (drained,) = document["drained"]
    return {"gpus": gpus, "seconds": seconds, "rows": document["rows"], **drained}


def _bytes(client: Client, table: str) -> int:
    client.command(f"OPTIMIZE TABLE {table} FINAL")
    return _one(client, f"SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND table = '{table}'")  # noqa: S608


def _one(client: Client, sql: str) -> int:
    return int(client.query(sql).result_rows[0][0])


@contextmanager
def _scratch(disk: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=disk) as folder:
        yield Path(folder) / "store"


def main() -> None:
    sys.stdout.write(json.dumps(run(), indent=1) + "\n")


if __name__ == "__main__":
    main()
