"""The whole site in real time: every GPU at 1 Hz through Apache Kafka into raw and minute tables, exactly once.

Four processes share the machine: the load (`benchmarks/site_load.py`), one Kafka broker, `kvandal ingest` as it is
deployed, and the embedded ClickHouse behind its door. The measure is real time: everything that was sent must be
queryable soon after it was read, with nothing lost and nothing doubled. A run in which the load itself was late says
so and does not count.

`python -m benchmarks.whole_site [GPUS] [SECONDS]` (100000 and 600) prints JSON; it takes some four minutes more than
SECONDS, and about 7 GB of disk in the folder for temporary files.
"""

import json
import math
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from clickhouse_connect.driver.client import Client
from kafka import TopicPartition  # type: ignore[import-untyped]

from benchmarks.pipeline import start_pipeline
from catalogue import GPU, GPU_HEALTH, Table
from kvandal.broker import tied_to_parent
from stream.client import KafkaAddress, make_consumer
from stream.confirm import GroupProgress
from stream.topics import INGESTED
from tests.servers.stack import Running, until

TABLES = (GPU, GPU_HEALTH)
GROUP = "kvandal-ingest"  # the default of kafka.group
LATEST_READING_S = 20.0  # p99 from reading to queryable, the oldest tick of a frame of ten
LATE_LOAD_S = 1.0  # beyond this, at p99, it was not the load of a site
DRAINED_S = 10.0  # after the last frame: what waits for more goes after 5 s, and takes its time to insert
_SAMPLES = 60
_PREPARE_TIMEOUT_S = 300.0
_LEAST_PATIENCE_S = 120.0
_SHARDS = 16  # the exact count of distinct rows takes one part of the GPUs at a time, to spare memory
_MEGABYTE = 1e6


@dataclass(frozen=True, slots=True)
class Member:
    """One process of the run, and what processor time it had used when the load began."""

    process: psutil.Process
    before_s: float

    @classmethod
    def of(cls, pid: int) -> "Member":
        process = psutil.Process(pid)
        return cls(process, _processor_s(process))

    def document(self, seconds: float) -> dict[str, object]:
        used_s = _processor_s(self.process) - self.before_s
        return {
            "processor_s": round(used_s, 1),
            "cores": round(used_s / seconds, 3),
            "peak_resident_mb": round(_peak_resident_mb(self.process.pid)),
        }


@dataclass(slots=True)
class Lag:
    """How many frames ingest had not yet committed, by seconds since the start."""

    address: KafkaAddress
    frames: dict[float, int] = field(default_factory=dict)

    def watch(self, load: "subprocess.Popen[bytes]", start_s: int, seconds: int) -> None:
        """Take samples until the load has said what it sent, or is hopelessly late with that."""
        assert load.stdout is not None
        progress = GroupProgress(self.address, group=GROUP)
        consumer = make_consumer(self.address, group="whole-site-watcher")
        try:
            time.sleep(max(0.0, start_s - time.time()))
            every_s = max(2.0, seconds / _SAMPLES)
            while not select.select([load.stdout], [], [], every_s)[0] and time.time() < start_s + 2 * seconds:
                self.frames[round(time.time() - start_s, 1)] = _frames_behind(progress, consumer)
        finally:
            progress.close()
            consumer.close(autocommit=False)

    def document(self, per_second: float) -> dict[str, object]:
        seconds = {at_s: round(frames / per_second, 2) for at_s, frames in self.frames.items()}
        steady = list(seconds.values())[len(seconds) // 4 :]
        half = len(steady) // 2
        return {
            "seconds_of_load_by_time": seconds,
            "mean_s_second_and_last": [_mean(steady[:half]), _mean(steady[half:])],
        }


def run(*, gpus: int = 100_000, seconds: int = 600, ticks: int = 10) -> dict[str, object]:
    """One run as a document. `seconds` is rounded up to whole frames of `ticks`."""
    seconds = -(-seconds // ticks) * ticks
    with start_pipeline() as pipeline, _load(pipeline.address.bootstrap, gpus, seconds, ticks) as load:
        client, ingest = pipeline.client, pipeline.ingest
        _wait_until_all_partitions_are_open(ingest)
        _told(load, _PREPARE_TIMEOUT_S)
        members = {name: Member.of(pid) for name, pid in {"load": load.pid, **pipeline.pids}.items()}
        psutil.cpu_percent()
        lag = Lag(pipeline.address)
        start_s = math.ceil(time.time()) + 1
        _tell(load, f"{start_s}\n")
        lag.watch(load, start_s, seconds)
        sent = _told(load, _LEAST_PATIENCE_S)
        drained_s = _wait_until_stored(
            client, sum(sent["rows"].values()), patience_s=max(seconds / 2, _LEAST_PATIENCE_S)
        )
        assert ingest.process.poll() is None, f"ingest ended: {ingest.log[-2000:]}"
        took_s, busy_percent = time.time() - start_s, psutil.cpu_percent()
        processes = {name: member.document(took_s) for name, member in members.items()}
        with suppress(AssertionError):  # one that hangs is killed at the end; the figures say that it was not done
            ingest.stop()
        return _document(
            run={
                "gpus": gpus,
                "seconds": seconds,
                "ticks_per_frame": ticks,
                "measured_s": round(took_s, 1),
                "machine_busy_percent": busy_percent,
            },
            sent=sent,
            lag=lag.document(sent["frames"] / seconds),
            drained_s=drained_s,
            processes=processes,
            broker_bytes=_bytes_below(pipeline.broker_data),
            client=client,
        )


def _document(
    *, run: Mapping[str, object], sent: dict[str, Any], lag: Mapping[str, object], drained_s: float | None,
    processes: Mapping[str, object], broker_bytes: int, client: Client,
) -> dict[str, object]:  # fmt: skip
    """All figures, and what they say of the goal."""
    accounts = {table.name: _account(client, table, sent["rows"].get(table.name, 0)) for table in TABLES}
    latency = {table.name: _latency_s(client, table) for table in TABLES}
    lost, doubled = (sum(account[what] for account in accounts.values()) for what in ("lost", "duplicated"))
    is_complete = drained_s is not None  # what is not stored yet has no latency
    held = {
        "load_was_on_time": sent["late_s"]["p99"] <= LATE_LOAD_S,
        "kept_up": drained_s is not None and drained_s <= DRAINED_S,
        "p99_below_20_s": is_complete and latency[GPU.name]["oldest_tick"]["p99"] < LATEST_READING_S,
        "lost_0": lost == 0,
        "duplicated_0": doubled == 0,
    }
    return {
        **run,
        "counts": held["load_was_on_time"],
        "reached": all(held.values()),
        "held": held,
        "reading_to_queryable_s": latency,
        "rows": accounts,
        "frames_by_outcome": _rows(client, "SELECT outcome, count() FROM frames GROUP BY outcome"),
        "drained_s_after_last_frame": drained_s,
        "lag": lag,
        "processes": processes,
        "load": {key: value for key, value in sent.items() if key not in ("rows", "present")},
        "broker_bytes_per_frame_byte": round(broker_bytes / sent["bytes"], 3),
        "disk": {table.name: _disk(client, table, sent["present"].get(table.name, 0)) for table in TABLES},
    }


# The load -------------------------------------------------------------------------------------------------------------


@contextmanager
def _load(bootstrap: str, gpus: int, seconds: int, ticks: int) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", "benchmarks.site_load", bootstrap, str(gpus), str(seconds), str(ticks)]
    load = subprocess.Popen(tied_to_parent(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield load
    finally:
        load.kill()
        load.communicate()


def _tell(load: "subprocess.Popen[bytes]", line: str) -> None:
    assert load.stdin is not None
    load.stdin.write(line.encode())
    load.stdin.flush()


def _told(load: "subprocess.Popen[bytes]", timeout_s: float) -> dict[str, Any]:
    """The next line of JSON that the load says. Raises RuntimeError when it ends or is silent instead."""
    assert load.stdout is not None
    answers = bool(select.select([load.stdout], [], [], timeout_s)[0])
    line = load.stdout.readline() if answers else b""
    if not line:
        raise RuntimeError(
            f"the load {'ended' if answers else f'was silent for {timeout_s:g} s'}; see its standard error"
        )
    document: dict[str, Any] = json.loads(line)
    return document


# Watching -------------------------------------------------------------------------------------------------------------


def _wait_until_all_partitions_are_open(ingest: Running) -> None:
    wanted = sum(topic.partitions for topic in INGESTED)
    until(lambda: ingest.log.count("partitions opened") >= wanted, what="ingest has opened all partitions")


def _frames_behind(progress: GroupProgress, consumer: Any) -> int:  # noqa: ANN401 - kafka-python ships no types
    done = progress.stored()
    places = [(topic.name, n) for topic in INGESTED if topic.name in _TOPICS for n in range(topic.partitions)]
    ends = consumer.end_offsets([TopicPartition(*place) for place in places])
    return sum(end - done.get((place.topic, place.partition), 0) for place, end in ends.items())


_TOPICS = frozenset(table.topic for table in TABLES)


def _wait_until_stored(client: Client, rows: int, *, patience_s: float) -> float | None:
    """Seconds until that many rows are stored; None when patience ends first."""
    began_s = time.monotonic()
    while (took_s := time.monotonic() - began_s) < patience_s:
        if _one(client, "SELECT sum(rows) FROM frames WHERE outcome = 'stored'") >= rows:
            return round(took_s, 1)
        time.sleep(0.5)
    return None


def _processor_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _peak_resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (peak,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024 / _MEGABYTE


def _bytes_below(folder: Path) -> int:
    """On disk, not in length: Kafka makes its index files longer than they are."""
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())


def _mean(values: list[float]) -> float | None:
    return round(sum(values) / len(values), 2) if values else None


# What the store holds -------------------------------------------------------------------------------------------------


def _account(client: Client, table: Table, sent: int) -> dict[str, int]:
    """Rows that the broker acknowledged, against what is stored, counted exactly.

    Where ingest did not come to the end in time, what was still waiting counts as lost.
    """
    counted = [
        client.query(
            f"SELECT count(), uniqExact(resource, time) FROM {table.name} WHERE resource % {_SHARDS} = {shard}"  # noqa: S608 - ours
        ).result_rows[0]
        for shard in range(_SHARDS)
    ]
    stored, distinct = (sum(column) for column in zip(*counted, strict=True))
    in_minutes = _one(client, f"SELECT sum(row_count) FROM {table.name}_1m")  # noqa: S608 - ours
    return {
        "sent": sent,
        "stored": stored,
        "distinct": distinct,
        "in_minutes": in_minutes,
        "lost": sent - distinct,
        "duplicated": max(stored - distinct, in_minutes - distinct),
    }


def _latency_s(client: Client, table: Table) -> dict[str, dict[str, float]]:
    """From the whole second of the reading until its frame is noted as stored, which comes after its rows."""
    stored_s, first_s = "toUnixTimestamp64Milli(stored_at) / 1000", "toUnixTimestamp(first_time)"
    since_tick = f"arrayJoin(range(ticks)) * -{table.cadence_s} - {first_s} + {stored_s}"
    ages = {
        "oldest_tick": f"{stored_s} - {first_s}",
        "newest_tick": f"{stored_s} - toUnixTimestamp(last_time)",
        "every_tick": since_tick,
    }
    return {name: _spread(client, table, age) for name, age in ages.items()}


def _spread(client: Client, table: Table, age: str) -> dict[str, float]:
    sql = (
        f"SELECT quantilesExact(0.5, 0.99, 1)(age) FROM (SELECT {age} AS age FROM frames "  # noqa: S608 - ours
        "WHERE outcome = 'stored' AND table_name = {table:String})"
    )
    (values,) = client.query(sql, parameters={"table": table.name}).result_rows[0]
    return {name: round(value, 2) for name, value in zip(("p50", "p99", "most"), values, strict=True)}


def _disk(client: Client, table: Table, present: int) -> dict[str, object]:
    """Active parts as they are at the end of the run: not all of them have been merged."""
    sizes = {
        name: (parts, size)
        for name, parts, size in client.query(
            "SELECT table, count(), sum(bytes_on_disk) FROM system.parts WHERE active AND database = currentDatabase() "
            "GROUP BY table"
        ).result_rows
    }
    parts, size = sizes.get(table.name, (0, 0))
    minute_parts, minute_size = sizes.get(f"{table.name}_1m", (0, 0))
    return {
        "present_readings": present,
        "bytes": size,
        "bytes_per_present_reading": round(size / max(present, 1), 3),
        "parts": parts,
        "minute_bytes": minute_size,
        "minute_parts": minute_parts,
    }


def _one(client: Client, sql: str) -> int:
    return int(client.query(sql).result_rows[0][0])


def _rows(client: Client, sql: str) -> dict[str, int]:
    return {str(name): int(count) for name, count in client.query(sql).result_rows}


def main() -> None:
    """`python -m benchmarks.whole_site [GPUS] [SECONDS]`."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the folder goes too
    sizes = [int(argument) for argument in sys.argv[1:3]]
    named = dict(zip(("gpus", "seconds"), sizes, strict=False))
    sys.stdout.write(json.dumps(run(**named), indent=1) + "\n")


if __name__ == "__main__":
    main()
