"""Column codecs: what each costs in bytes and in processor time, beside what the catalogue says.

The same rows go into the same raw table under each candidate, all metrics with that one codec, and under the
catalogue's own choice; then everything is merged into one part and read. Bytes are those of the metrics' compressed
columns, without marks and key. Beside the catalogue's choice stands the best that a choice by bytes alone could do:
the smallest candidate of each column.

On two kinds of data: `gpu` of the simulator, and `tray` of this machine as the source `host` reads it, which are too
few readings to tell processor time by.

Run: `python -m benchmarks.codecs`.
"""

import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from clickhouse_connect.driver.client import Client

from benchmarks.ingest_drain import Meter
from benchmarks.samples import BLOCK_ROWS, present_readings, scratch_engine, simulated_gpus, this_machine
from catalogue import GPU, TRAY, Table
from kvandal.store import write_blocks_to_memory
from storage.ddl import raw_table
from storage.writer import Writer
from stream.rows import Rows

GPUS, SECONDS, HOST_S = 256, 1800, 120.0
OURS = "as the catalogue says"
CANDIDATES = (
    "LZ4",
    "ZSTD(1)",
    "ZSTD(3)",
    "T64, LZ4",
    "T64, ZSTD(1)",
    "Delta, ZSTD(1)",
    "Delta, ZSTD(3)",
    "DoubleDelta, ZSTD(1)",
    "Gorilla, ZSTD(1)",
    "GCD, ZSTD(1)",
)
_READS = 5
_READINGS_THAT_TELL_TIME = 1_000_000  # with fewer it is the engine's time for a statement
_TOLD = 8  # columns that lose most by the catalogue's choice


@dataclass(frozen=True, slots=True)
class Cost:
    """What one choice of codecs costs: bytes by column, processor seconds of inserts, of one merge and of one read."""

    columns: Mapping[str, int]
    insert_s: float
    merge_s: float
    read_s: float

    @property
    def bytes(self) -> int:
        return sum(self.columns.values())

    def document(self, codec: str, readings: int) -> dict[str, object]:
        told = {"codec": codec, "bytes_per_reading": round(self.bytes / readings, 4)}
        if readings < _READINGS_THAT_TELL_TIME:
            return told
        return told | {
            f"{what}_processor_ns_per_reading": round(seconds / readings * 1e9, 2)
            for what, seconds in (("insert", self.insert_s), ("merge", self.merge_s), ("read", self.read_s))
        }


def run(*, gpus: int = GPUS, seconds: int = SECONDS, host_s: float = HOST_S) -> dict[str, object]:
    """All measurements of one run as a document."""
    disk = tempfile.gettempdir()  # asked first: the next line is about the small files of the client library
    write_blocks_to_memory()
    samples = {"simulated gpu": (GPU, simulated_gpus(gpus, seconds)), "host": (TRAY, this_machine(host_s))}
    with scratch_engine(Path(disk)) as client:
        client.command("SET allow_suspicious_codecs = 1")  # Gorilla on whole numbers
        return {name: _compare(client, *sample) for name, sample in samples.items()}


def _compare(client: Client, table: Table, rows: Rows) -> dict[str, object]:
    readings = present_readings(table, rows)
    _measure(client, table, rows, OURS)  # the first of all pays for the engine's start
    costs = {codec: _measure(client, table, rows, codec) for codec in (OURS, *CANDIDATES)}
    smallest = {
        metric.column: min(CANDIDATES, key=lambda codec: costs[codec].columns[metric.column])
        for metric in table.metrics
    }
    best = sum(costs[codec].columns[column] for column, codec in smallest.items())
    return {
        "rows": len(rows),
        "readings": readings,
        "candidates": [cost.document(codec, readings) for codec, cost in costs.items()],
        "smallest_of_each_column_bytes_per_reading": round(best / readings, 4),
        "catalogue_beside_smallest": round(costs[OURS].bytes / best, 3),
        "columns_that_lose_most": _losers(table, costs, smallest, readings),
    }


def _losers(
    table: Table, costs: Mapping[str, Cost], smallest: Mapping[str, str], readings: int
) -> list[dict[str, object]]:
    """Where another codec would save most."""

    def loss(column: str) -> int:
        return costs[OURS].columns[column] - costs[smallest[column]].columns[column]

    metrics = sorted(table.metrics, key=lambda metric: -loss(metric.column))[:_TOLD]
    return [
        {
            "metric": metric.name,
            "catalogue": str(metric.codec),
            "smallest": smallest[metric.column],
            "saves_bytes_per_reading_of_all": round(loss(metric.column) / readings, 5),
        }
        for metric in metrics
        if loss(metric.column) > 0
    ]


def _measure(client: Client, table: Table, rows: Rows, codec: str) -> Cost:
    trial = _make_table(client, table, codec)
    writer, meter = Writer(client), Meter()
    for start in range(0, len(rows), BLOCK_ROWS):
        writer.insert_rows(trial, rows[start : start + BLOCK_ROWS], token=str(start))
    insert_s, meter = meter.processor_s(), Meter()
    client.command(f"SYSTEM START MERGES {trial}")
    client.command(f"OPTIMIZE TABLE {trial} FINAL")
    return Cost(_bytes_by_column(client, table, trial), insert_s, meter.processor_s(), _read_s(client, table, trial))


def _make_table(client: Client, table: Table, codec: str) -> str:
    """A raw table that merges only when told to, and tells the bytes of each column however small it is."""
    trial = replace(table, name="trial")
    client.command("DROP TABLE IF EXISTS trial SYNC")
    client.command(raw_table(trial))
    client.command("ALTER TABLE trial MODIFY SETTING min_bytes_for_wide_part = 0")
    if codec != OURS:
        changes = ", ".join(f"MODIFY COLUMN {metric.column} CODEC({codec})" for metric in table.metrics)
        client.command(f"ALTER TABLE trial {changes}")
    client.command("SYSTEM STOP MERGES trial")
    return trial.name


def _bytes_by_column(client: Client, table: Table, trial: str) -> dict[str, int]:
    told = client.query(
        "SELECT column, sum(column_data_compressed_bytes) FROM system.parts_columns "
        "WHERE database = currentDatabase() AND table = {table:String} AND active GROUP BY column",
        parameters={"table": trial},
    )
    sizes = {str(column): int(size) for column, size in told.result_rows}
    return {metric.column: sizes[metric.column] for metric in table.metrics}


def _read_s(client: Client, table: Table, trial: str) -> float:
    """Processor seconds to read and add up every metric: the least of some tries."""
    sums = ", ".join(f"sum({metric.column})" for metric in table.metrics)

    def once() -> float:
        meter = Meter()
        client.query(f"SELECT {sums} FROM {trial}")  # noqa: S608 - ours
        return meter.processor_s()

    return min(once() for _ in range(_READS))


def main() -> None:
    sys.stdout.write(json.dumps(run(), indent=1) + "\n")


if __name__ == "__main__":
    main()
