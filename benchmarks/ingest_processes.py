"""Two ingest processes against one: the same backlog in Apache Kafka, drained by a consumer group into one store.

All as a site has it: `kvandal ingest` in one or two processes, one broker, ClickHouse behind its door, each a process
of its own on the same cores. The processes join the group and open their partitions first, then they are stopped
(SIGSTOP) while the backlog is published, and begin together.

Run: `python -m benchmarks.ingest_processes`.
"""

import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import psutil

from benchmarks.ingest_drain import wait_until_stored
from benchmarks.load import Backlog, make_backlog
from benchmarks.whole_site import Member
from catalogue import GPU
from storage import schema
from storage.client import connect
from stream.client import KafkaAddress
from stream.publish import ensure_topics
from stream.topics import topic
from tests.servers.kafka import KafkaCluster
from tests.servers.stack import Running, StoreServer, start_ingest, until

GPUS, SECONDS = 4_000, 600
_SETTLED_S = 6.0  # the group's own pause before a member that comes late gets its share is 3 s
_SETTINGS = {"KVANDAL_INGEST_SESSION_TIMEOUT_S": "120", "KVANDAL_INGEST_INSERT_AGE_S": "1"}  # stopped is not dead


def run(*, gpus: int = GPUS, seconds: int = SECONDS) -> dict[str, object]:
    """One process, then two, as a document."""
    backlog = make_backlog(gpus=gpus, seconds=seconds, ticks=10)
    runs = [_drain(count, backlog) for count in (1, 2)]
    one, two = (float(str(run["rows_per_second"])) for run in runs)
    return {
        "rows": backlog.rows,
        "frames": len(backlog.frames),
        "partitions": topic(GPU.topic).partitions,
        "runs": runs,
        "two_beside_one": round(two / one, 3),
    }


def _drain(count: int, backlog: Backlog) -> dict[str, object]:
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        cluster = running.enter_context(KafkaCluster.start(folder / "kafka"))
        ensure_topics(KafkaAddress(cluster.bootstrap), replication=1)
        store = running.enter_context(StoreServer.start(folder / "store"))
        client = running.enter_context(closing(connect(store.address())))
        schema.apply(client)
        address = store.address("ingest")
        members = [
            running.enter_context(start_ingest(folder, f"ingest-{n}", cluster.bootstrap, address, _SETTINGS))
            for n in range(count)
        ]
        _wait_until_each_has_partitions(members)
        for member in members:
            member.freeze()
        backlog.publish(KafkaAddress(cluster.bootstrap))
        broker = cluster.nodes[0].process
        assert broker is not None
        watched = {f"ingest {n + 1}": member.process.pid for n, member in enumerate(members)}
        meters = {
            name: Member.of(pid) for name, pid in {**watched, "broker": broker.pid, "store": store.process.pid}.items()
        }
        psutil.cpu_percent()
        started_s = time.monotonic()
        for member in members:
            member.wake()
        wait_until_stored(client, backlog.rows)
        took_s, busy_percent = time.monotonic() - started_s, psutil.cpu_percent()
        costs = {name: meter.document(took_s) for name, meter in meters.items()}
        distinct = client.query("SELECT uniqExact(resource, time) FROM gpu").result_rows[0][0]
        if distinct != backlog.rows:
            raise AssertionError(f"{backlog.rows} rows published, {distinct} distinct ones stored")
        return _document(count, backlog, took_s, busy_percent, costs)


def _document(
    count: int, backlog: Backlog, took_s: float, busy_percent: float, costs: Mapping[str, Mapping[str, object]]
) -> dict[str, object]:
    ingest_s = sum(float(str(cost["processor_s"])) for name, cost in costs.items() if name.startswith("ingest"))
    all_s = sum(float(str(cost["processor_s"])) for cost in costs.values())
    return {
        "ingest_processes": count,
        "seconds": round(took_s, 2),
        "rows_per_second": round(backlog.rows / took_s),
        "ingest_processor_us_per_row": round(ingest_s / backlog.rows * 1e6, 2),
        "all_processor_us_per_row": round(all_s / backlog.rows * 1e6, 2),
        "machine_busy_percent": busy_percent,
        "processes": costs,
    }


def _wait_until_each_has_partitions(members: Sequence[Running]) -> None:
    for member in members:
        until(lambda log=member: "partitions opened" in log.log, what="each has partitions")  # type: ignore[misc]
    time.sleep(_SETTLED_S)


def main() -> None:
    sys.stdout.write(json.dumps(run(), indent=1) + "\n")


if __name__ == "__main__":
    main()
