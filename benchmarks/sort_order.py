"""Sort order and partitions of the raw table `gpu`: what each candidate costs to write, to keep and to ask.

The same rows, half an hour of each of some days, under each candidate: processor time of inserts and of merging
everything, bytes, and for four questions the rows that the engine picks (EXPLAIN ESTIMATE) and the processor time. One
more insert brings a few rows of every day, as late data do: each partition that it touches becomes a part.

Run: `python -m benchmarks.sort_order`.
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from clickhouse_connect.driver.client import Client

from benchmarks.ingest_drain import Meter
from benchmarks.samples import BLOCK_ROWS, present_readings, scratch_engine, simulated_gpus
from catalogue import GPU
from kvandal.store import write_blocks_to_memory
from storage.ddl import raw_table
from storage.writer import Writer
from stream.rows import Rows

GPUS, SECONDS, DAYS = 128, 1800, 6
DAY_S = 86_400
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Order:
    """Partitions, primary key and order of a table, in SQL."""

    partition: str
    primary: str
    order: str

    @property
    def sql(self) -> str:
        return f"PARTITION BY {self.partition}\nPRIMARY KEY ({self.primary})\nORDER BY ({self.order})\n"


def _by_bucket(bucket: str, partition: str = "toDate(time)") -> Order:
    return Order(partition, f"{bucket}, resource", f"{bucket}, resource, time")


_QUARTER = "toStartOfFifteenMinutes(time)"
OURS = "quarter hour, resource, time; days (ours)"
CANDIDATES = {
    OURS: _by_bucket(_QUARTER),
    "the same, time in the primary key": Order(
        "toDate(time)", f"{_QUARTER}, resource, time", f"{_QUARTER}, resource, time"
    ),
    "minute, resource, time; days": _by_bucket("toStartOfMinute(time)"),
    "hour, resource, time; days": _by_bucket("toStartOfHour(time)"),
    "resource, time; days": Order("toDate(time)", "resource, time", "resource, time"),
    "time, resource; days": Order("toDate(time)", "time, resource", "time, resource"),
    "quarter hour, resource, time; hours": _by_bucket(_QUARTER, "toStartOfHour(time)"),
    "quarter hour, resource, time; weeks": _by_bucket(_QUARTER, "toMonday(time)"),
    "quarter hour, resource, time; one partition": _by_bucket(_QUARTER, "tuple()"),
}
# What is asked, of the newest half hour unless it says otherwise.
QUESTIONS = {
    "all GPUs, newest minute": "SELECT resource, avg(power_watts_raw) FROM trial WHERE time > {end} - 60 GROUP BY 1",
    "all GPUs, half an hour": "SELECT toStartOfMinute(time) AS minute, avg(power_watts_raw) FROM trial "
    "WHERE time > {end} - 1800 GROUP BY minute",
    "one GPU, a quarter hour": "SELECT time, power_watts_raw, temperature_celsius_raw FROM trial "
    "WHERE resource = {gpu} AND time > {end} - 900",
    "one GPU, all days": "SELECT toStartOfMinute(time) AS minute, avg(power_watts_raw) FROM trial "
    "WHERE resource = {gpu} GROUP BY minute",
}


def run(*, gpus: int = GPUS, seconds: int = SECONDS, days: int = DAYS) -> dict[str, object]:
    """All measurements of one run as a document."""
    disk = tempfile.gettempdir()  # asked first: the next line is about the small files of the client library
    write_blocks_to_memory()
    rows = simulated_gpus(gpus, seconds * days)
    with scratch_engine(Path(disk)) as client:
        _measure(client, CANDIDATES[OURS], rows, 1, seconds * days)  # the first of all pays for the engine's start
        measured = {name: _measure(client, order, rows, days, seconds) for name, order in CANDIDATES.items()}
    return {
        "gpus": gpus,
        "rows": len(rows),
        "days": days,
        "candidates": [{"order": name, **cost} for name, cost in measured.items()],
    }


def _measure(client: Client, order: Order, rows: Rows, days: int, seconds: int) -> dict[str, object]:
    _make_table(client, order)
    count, readings = len(rows), present_readings(GPU, rows)
    writer, meter = Writer(client), Meter()
    for number, block in enumerate(_blocks(rows, days, seconds)):
        writer.insert_rows("trial", block, token=str(number))
    insert_s, meter = meter.processor_s(), Meter()
    client.command("SYSTEM START MERGES trial")
    client.command("OPTIMIZE TABLE trial FINAL")
    merge_s = meter.processor_s()
    size = _one(client, "SELECT sum(bytes_on_disk) FROM system.parts WHERE table = 'trial' AND active")
    return {
        "bytes_per_reading": round(size / readings, 4),
        "insert_processor_us_per_row": round(insert_s / count * 1e6, 3),
        "merge_processor_us_per_row": round(merge_s / count * 1e6, 3),
        "questions": {name: _ask(client, sql, rows) for name, sql in QUESTIONS.items()},
        "late_insert": _insert_late(client, writer, rows, days),
    }


def _make_table(client: Client, order: Order) -> None:
    """A raw table of that order that merges only when told to."""
    client.command("DROP TABLE IF EXISTS trial SYNC")
    head, _, rest = raw_table(replace(GPU, name="trial")).partition("PARTITION BY")
    client.command(f"{head}{order.sql}TTL{rest.partition('TTL')[2]}")
    client.command("SYSTEM STOP MERGES trial")


def _blocks(rows: Rows, days: int, seconds: int) -> Iterator[Rows]:
    """The rows of every day, oldest first, in inserts as ingest makes them: one stretch of `seconds` for each day.

    No day is a copy of another, which a codec would find where two of them share a block.
    """
    of_a_day = len(rows) // days
    for day in range(days):
        own, ago = rows[day * of_a_day : (day + 1) * of_a_day], days - 1 - day
        for start in range(0, of_a_day, BLOCK_ROWS):
            yield _earlier(own[start : start + BLOCK_ROWS], np.full(1, ago * (DAY_S - seconds)))


def _earlier(rows: Rows, seconds: np.ndarray) -> Rows:
    """The same rows so many seconds ago."""
    earlier = rows.copy()
    earlier["time"] -= seconds.astype("<u4")
    return earlier


def _ask(client: Client, sql: str, rows: Rows) -> dict[str, object]:
    asked = sql.format(end=int(rows["time"].max()), gpu=int(rows["resource"][0]))
    picked = sum(int(part[3]) for part in client.query(f"EXPLAIN ESTIMATE {asked}").result_rows)

    def once() -> float:
        meter = Meter()
        client.query(asked)
        return meter.processor_s()

    return {"rows_picked": picked, "processor_ms": round(min(once() for _ in range(_TRIES)) * 1000, 2)}


def _insert_late(client: Client, writer: Writer, rows: Rows, days: int) -> Mapping[str, object]:
    """A block in which every row is of another day than its neighbours."""
    client.command("SYSTEM STOP MERGES trial")
    block = rows[-BLOCK_ROWS:]
    late = _earlier(block, np.arange(len(block)) % days * DAY_S)
    before, meter = _parts(client), Meter()
    writer.insert_rows("trial", late, token=str(days * len(rows)))
    return {"parts": _parts(client) - before, "processor_us_per_row": round(meter.processor_s() / len(late) * 1e6, 3)}


def _parts(client: Client) -> int:
    return _one(client, "SELECT count() FROM system.parts WHERE table = 'trial' AND active")


def _one(client: Client, sql: str) -> int:
    return int(client.query(sql).result_rows[0][0])


def main() -> None:
    sys.stdout.write(json.dumps(run(), indent=1) + "\n")


if __name__ == "__main__":
    main()
