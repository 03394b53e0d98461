"""Rows per insert: what a row costs in processor time, raw and minute tables and all their merges included.

The same rows of a simulated site, in inserts of 5,000 to 240,000; each size into an empty store with today's schema,
until nothing merges any more. Beside it how many parts the inserts made, and the bytes before and after one last merge.
The site has so many GPUs that an insert holds ten seconds of each at most: as at 100,000, every frame is a minute row
of its own.
The setting is `ingest.insert_rows`; `ingest.insert_age_s` cuts earlier where few rows arrive.

Run: `python -m benchmarks.insert_size`.
"""

import json
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from clickhouse_connect.driver.client import Client

from benchmarks.ingest_drain import Meter, empty_store, wait_for_merges
from benchmarks.samples import simulated_gpus
from kvandal.settings import IngestSection
from kvandal.store import write_blocks_to_memory
from storage.client import connect
from storage.writer import Writer
from stream.rows import Rows

GPUS, SECONDS = 24_000, 60
SIZES = (5_000, 15_000, 60_000, 120_000, 240_000)
_TABLES = ("gpu", "gpu_1m")


def run(*, gpus: int = GPUS, seconds: int = SECONDS) -> dict[str, object]:
    """All sizes of one run as a document."""
    disk = tempfile.gettempdir()  # asked first: the next line is about the small files of the client library
    write_blocks_to_memory()
    rows = simulated_gpus(gpus, seconds)
    with tempfile.TemporaryDirectory(dir=disk) as folder:
        _measure(rows, SIZES[-1], Path(folder) / "first")  # the first of all pays for the engine's start
        sizes = [_measure(rows, size, Path(folder) / str(size)) for size in SIZES]
    return {"rows": len(rows), "default": IngestSection().insert_rows, "sizes": sizes}


def _measure(rows: Rows, size: int, path: Path) -> dict[str, object]:
    with empty_store(path) as address, closing(connect(address)) as client:
        writer, meter, started_s = Writer(client), Meter(), time.monotonic()
        for start in range(0, len(rows), size):
            writer.insert_rows("gpu", rows[start : start + size], token=str(start))
        wall_s = time.monotonic() - started_s
        wait_for_merges(client)
        processor_s, parts, before = meter.processor_s(), _parts(client), _bytes(client)
        for table in _TABLES:
            client.command(f"OPTIMIZE TABLE {table} FINAL")
        inserts = -(-len(rows) // size)
        return {
            "rows_per_insert": size,
            "inserts": inserts,
            "ms_per_insert": round(wall_s / inserts * 1000, 1),
            "processor_us_per_row": round(processor_s / len(rows) * 1e6, 2),
            "parts_left": parts,
            "bytes_per_row": round(before / len(rows), 2),
            "bytes_per_row_merged": round(_bytes(client) / len(rows), 2),
        }


def _parts(client: Client) -> int:
    return _of_active_parts(client, "count()")


def _bytes(client: Client) -> int:
    return _of_active_parts(client, "sum(bytes_on_disk)")


def _of_active_parts(client: Client, what: str) -> int:
    told = client.query(
        f"SELECT {what} FROM system.parts "  # noqa: S608 - ours
        "WHERE active AND database = currentDatabase() AND table IN {tables:Array(String)}",
        parameters={"tables": list(_TABLES)},
    )
    return int(told.result_rows[0][0])


def main() -> None:
    sys.stdout.write(json.dumps(run(), indent=1) + "\n")


if __name__ == "__main__":
    main()
