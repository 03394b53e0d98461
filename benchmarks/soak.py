"""A soak in fast motion: whether memory and the number of parts stay flat while hours of a site pass in minutes.

A thousand simulated GPUs at many times real time through Apache Kafka, `kvandal ingest` and ClickHouse behind its door,
each a process of its own; the hours are computed as they close. Every few seconds the resident memory of ingest and
store, and the active parts of all tables, are told on standard error. Whether they are flat is judged by a straight
line through the last two thirds: by how many percent of its mean it rises from end to end.

Run: `python -m benchmarks.soak [SECONDS]` (600; 60 is a check that it runs, too short to judge by).
"""

import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Event, Thread

import numpy as np
import psutil
from clickhouse_connect.driver.client import Client

from benchmarks.ingest_drain import wait_until_stored
from benchmarks.pipeline import start_pipeline
from benchmarks.site_load import Line, make_lines
from collectors.framer import Framer, FrameRule
from storage.hours import HourKeeper
from stream.clock import SystemClock
from stream.publish import Publisher

GPUS, SECONDS, SPEED, TICKS = 1_000, 600, 60, 10
MEMORY_GREW_PERCENT, PARTS_GREW_PERCENT = 10.0, 25.0  # the latter go up and down with every merge
_SAMPLES = 60
_KEEP_EVERY_S = 10.0
_WARM_UP = 1 / 3  # of the run: until then caches fill and the first hours are merged
_MEGABYTE = 1e6


@dataclass(slots=True)
class Load:
    """The site in fast motion, published by a thread of this process until `stop`."""

    publisher: Publisher
    line: Line
    start_s: int  # of the site's time
    speed: float
    stop: Event = field(default_factory=Event)
    rows: int = 0
    seconds: int = 0  # of the site's time, sent
    errors: list[Exception] = field(default_factory=list)

    def run(self) -> None:
        clock = SystemClock()
        framer = Framer(FrameRule(self.line.ticks), epoch_ms=clock.utc_ms(), clock=clock)
        began_s, trays = time.monotonic(), len(self.line.sources)
        while not self.stop.is_set() and not self.errors:
            turn = self.seconds // self.line.period_s
            self.stop.wait(max(0.0, began_s + self.seconds / self.speed - time.monotonic()))
            last_tick_s = self.start_s + self.seconds + self.line.period_s - 1
            for number in range(turn * trays, (turn + 1) * trays):
                self._send(framer, number, last_tick_s)
            self.seconds += self.line.period_s

    def _send(self, framer: Framer, number: int, last_tick_s: int) -> None:
        reading, _ = self.line.reading(number, last_tick_s)
        for frame in framer.add(reading, interval_s=self.line.interval_s):
            self.publisher.publish(
                frame.topic, frame.source, frame.value, acknowledged=lambda _: None, failed=self.errors.append
            )
            self.rows += frame.rows


@dataclass(slots=True)
class Series:
    """One thing that was watched: what it was at which second."""

    at_s: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def grew_percent(self) -> float:
        """Of a straight line through all but the warm-up: its rise from end to end, of its mean."""
        warm = sum(at_s < self.at_s[-1] * _WARM_UP for at_s in self.at_s)
        at_s, values = np.array(self.at_s[warm:]), np.array(self.values[warm:])
        slope = float(np.polyfit(at_s, values, 1)[0])
        return slope * float(at_s[-1] - at_s[0]) / float(values.mean()) * 100

    def document(self, most_percent: float) -> dict[str, object]:
        grew = round(self.grew_percent(), 1)
        return {"grew_percent": grew, "flat": grew <= most_percent, "most": max(self.values), "by_time": self.values}


def run(*, seconds: float = SECONDS, gpus: int = GPUS, speed: float = SPEED) -> dict[str, object]:
    """One soak as a document."""
    (line, _) = make_lines(gpus, SECONDS, TICKS)
    with start_pipeline() as pipeline:
        client = pipeline.client
        start_s = int(time.time() - seconds * speed) // TICKS * TICKS
        load = Load(Publisher(pipeline.address), line, start_s, speed)
        thread = Thread(target=load.run)
        thread.start()
        try:
            watched = _watch(client, {name: pipeline.pids[name] for name in ("ingest", "store")}, seconds)
        finally:
            load.stop.set()
            thread.join()
        load.publisher.flush()
        load.publisher.close()
        if load.errors:
            raise load.errors[0]
        wait_until_stored(client, load.rows)
        return _document(client, load, watched, seconds)


def _watch(client: Client, pids: dict[str, int], seconds: float) -> dict[str, Series]:
    """Look at everything again and again, and compute the hours that have closed."""
    processes = {f"{name}_resident_mb": psutil.Process(pid) for name, pid in pids.items()}
    watched = {name: Series() for name in (*processes, "active_parts")}
    keeper, began_s, kept_s = HourKeeper(client), time.monotonic(), -math.inf
    while (at_s := time.monotonic() - began_s) < seconds:
        if at_s - kept_s >= _KEEP_EVERY_S:
            keeper.recompute()
            kept_s = at_s
        seen = {name: round(process.memory_info().rss / _MEGABYTE, 1) for name, process in processes.items()}
        for name, value in {**seen, "active_parts": _active_parts(client)}.items():
            watched[name].at_s.append(round(at_s, 1))
            watched[name].values.append(value)
        sys.stderr.write(f"{at_s:6.1f} s  {', '.join(f'{name} {one.values[-1]:g}' for name, one in watched.items())}\n")
        time.sleep(max(0.0, seconds / _SAMPLES - (time.monotonic() - began_s - at_s)))
    return watched


def _document(client: Client, load: Load, watched: dict[str, Series], seconds: float) -> dict[str, object]:
    stored, distinct = client.query("SELECT count(), uniq(resource, time) FROM gpu").result_rows[0]
    bounds = {name: PARTS_GREW_PERCENT if name == "active_parts" else MEMORY_GREW_PERCENT for name in watched}
    told = {name: series.document(bounds[name]) for name, series in watched.items()}
    return {
        "gpus": len(load.line.sources) * 4,
        "seconds": seconds,
        "times_real_time": round(load.seconds / seconds, 1),
        "site_hours": round(load.seconds / 3600, 1),
        "rows_sent": load.rows,
        "rows_stored": stored,
        "distinct_about": distinct,
        "hours_computed": client.query("SELECT uniqExact(hour) FROM hours_computed").result_rows[0][0],
        "parts_by_table": dict(_parts_by_table(client)),
        "flat": all(one["flat"] for one in told.values()),
        "at_s": next(iter(watched.values())).at_s,
        **told,
    }


def _active_parts(client: Client) -> int:
    return sum(count for _, count in _parts_by_table(client))


def _parts_by_table(client: Client) -> Iterator[tuple[str, int]]:
    told = client.query(
        "SELECT table, count() FROM system.parts WHERE active AND database = currentDatabase() GROUP BY table"
    )
    yield from ((str(table), int(count)) for table, count in told.result_rows)


def main() -> None:
    seconds = float(sys.argv[1]) if sys.argv[1:] else SECONDS
    sys.stdout.write(json.dumps(run(seconds=seconds), indent=1) + "\n")


if __name__ == "__main__":
    main()
