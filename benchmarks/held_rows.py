"""How the cost of a row grows with what the table holds: none, ten and fifty million rows of earlier days.

Each time the same rows are inserted, minutes included, until nothing merges; and one question is asked of the newest
minute. What is held are copies of the same rows at earlier times, in the raw table alone: the minutes stay few.

Run: `python -m benchmarks.held_rows`.
"""

import json
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import median

import numpy as np
from clickhouse_connect.driver.client import Client

from benchmarks.ingest_drain import Meter, empty_store, wait_for_merges
from benchmarks.samples import BLOCK_ROWS, simulated_gpus
from kvandal.store import write_blocks_to_memory
from storage.client import connect
from storage.writer import Writer
from stream.rows import Rows

GPUS, SECONDS = 400, 600
HELD_ROWS = (0, 10_000_000, 50_000_000)  # the last is what two cores hold ready within minutes
_TRIES = 3
_DAY_S = 86_400


def run(*, held_rows: tuple[int, ...] = HELD_ROWS) -> list[dict[str, object]]:
    """All sizes of one run as a document."""
    disk = tempfile.gettempdir()  # asked first: the next line is about the small files of the client library
    write_blocks_to_memory()
    rows = simulated_gpus(GPUS, SECONDS)
    with (
        tempfile.TemporaryDirectory(dir=disk) as folder,
        empty_store(Path(folder) / "store") as address,
        closing(connect(address)) as client,
    ):
        _insert(client, rows, "the first of all pays for the engine's start")
        client.command("TRUNCATE TABLE gpu")
        return [_measure(client, rows, held) for held in held_rows]


def _measure(client: Client, rows: Rows, held: int) -> dict[str, object]:
    _hold(client, rows, held)
    held_bytes, insert_s = _of_active_parts(client, "sum(bytes_on_disk)"), []
    for number in range(_TRIES):
        _drop_days_of(client, rows)
        insert_s.append(_insert(client, rows, f"{held} {number}"))
    measured: dict[str, object] = {
        "held_rows": held,
        "held_bytes": held_bytes,
        "insert_processor_us_per_row": round(median(insert_s) / len(rows) * 1e6, 2),
        "newest_minute_ms": round(_newest_minute_ms(client, rows), 2),
        "active_parts": _of_active_parts(client, "count()"),
    }
    _drop_days_of(client, rows)
    return measured


def _drop_days_of(client: Client, rows: Rows) -> None:
    for day in np.unique(rows["time"] // _DAY_S).tolist():
        client.command(f"ALTER TABLE gpu DROP PARTITION '{np.datetime64(day, 'D')}'")


def _hold(client: Client, rows: Rows, held: int) -> None:
    """Bring the raw table to so many rows: copies at earlier times, from yesterday on, twice as many each time."""
    if not held:
        return
    client.command("DETACH TABLE gpu_to_1m")
    if not _held(client):
        first = rows.copy()
        first["time"] -= np.uint32(_DAY_S)
        Writer(client).insert_rows("gpu", first, token=f"held {held}")
    while (present := _held(client)) < held:
        earlier_s = present // len(rows) * SECONDS
        client.command(
            f"INSERT INTO gpu SELECT * REPLACE (time - {earlier_s} AS time) FROM gpu LIMIT {held - present}"  # noqa: S608
        )
    client.command("ATTACH TABLE gpu_to_1m")
    client.command("OPTIMIZE TABLE gpu FINAL")  # as earlier days are: or their merges would count as the inserts'


def _held(client: Client) -> int:
    return int(client.query("SELECT count() FROM gpu").result_rows[0][0])


def _insert(client: Client, rows: Rows, token: str) -> float:
    """Processor seconds of this process until all rows are stored and nothing merges."""
    writer, meter = Writer(client), Meter()
    for start in range(0, len(rows), BLOCK_ROWS):
        writer.insert_rows("gpu", rows[start : start + BLOCK_ROWS], token=f"{token} {start}")
    wait_for_merges(client)
    return meter.processor_s()


def _newest_minute_ms(client: Client, rows: Rows) -> float:
    asked = f"SELECT avg(power_watts_raw) FROM gpu WHERE time > {int(rows['time'].max()) - 60}"  # noqa: S608 - ours

    def once() -> float:
        started_s = time.perf_counter()
        client.query(asked)
        return (time.perf_counter() - started_s) * 1000

    return min(once() for _ in range(_TRIES))


def _of_active_parts(client: Client, what: str) -> int:
    sql = f"SELECT {what} FROM system.parts WHERE active AND database = currentDatabase() AND table = 'gpu'"  # noqa: S608
    return int(client.query(sql).result_rows[0][0])


def main() -> None:
    sys.stdout.write(json.dumps(run(), indent=1) + "\n")


if __name__ == "__main__":
    main()
