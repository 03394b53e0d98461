"""All measurements, each in a process of its own, so that none has the memory, the engine or the threads of another."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import psutil

from benchmarks import (
    agent,
    codecs,
    dashboards,
    event_page,
    frame_codec,
    gateway,
    growth,
    held_rows,
    hot_spots,
    ingest_drain,
    ingest_processes,
    insert_size,
    kafka_clients,
    report_cost,
    report_sustainability,
    rivals,
    sla_month,
    soak,
    sort_order,
    whole_site,
    wire_compression,
)

Document = dict[str, object]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One measurement; `quick` is a smaller one of the same ratios, where there is one."""

    whole: Callable[[], object]
    quick: Callable[[], object] | None = None
    limit_s: float = 1_200.0


def _dashboards(gpus: int, hours: int) -> Document:
    return dashboards.run(gpus=gpus, hours=hours).document()


def _drains(*ticks: int, gpus: int, seconds: int, kafka: bool = True) -> list[Document]:
    return [ingest_drain.run(gpus=gpus, seconds=seconds, ticks=one, kafka=kafka) for one in ticks]


BENCHMARKS: Mapping[str, Benchmark] = {
    "frame_codec": Benchmark(frame_codec.run, frame_codec.run),
    "agent": Benchmark(agent.run),  # between two quick runs its ratio to the bare reads varies by half
    "event_page": Benchmark(event_page.run, partial(event_page.run, events=10)),
    "ingest_drain": Benchmark(
        partial(_drains, 10, 20, gpus=4_000, seconds=1_800),
        partial(_drains, 10, gpus=2_000, seconds=900, kafka=False),
    ),
    "whole_site": Benchmark(whole_site.run, limit_s=1_800.0),
    "rivals": Benchmark(rivals.run),
    "gateway": Benchmark(gateway.run),
    "dashboards": Benchmark(partial(_dashboards, 10_000, 24), partial(_dashboards, 200, 6)),
    "report_cost": Benchmark(report_cost.run, partial(report_cost.run, (1_000,))),
    "report_sustainability": Benchmark(report_sustainability.run),
    "sla_month": Benchmark(sla_month.run),
    "codecs": Benchmark(codecs.run),
    "sort_order": Benchmark(sort_order.run),
    "insert_size": Benchmark(insert_size.run),
    "wire_compression": Benchmark(wire_compression.run),
    "ingest_processes": Benchmark(ingest_processes.run),
    "kafka_clients": Benchmark(kafka_clients.run),
    "growth": Benchmark(growth.run),
    "held_rows": Benchmark(held_rows.run),
    "soak": Benchmark(soak.run),
    "hot_spots": Benchmark(hot_spots.run),
}


def measure(name: str, *, quick: bool) -> object:
    """Run one measurement in this process."""
    benchmark = BENCHMARKS[name]
    return (benchmark.quick if quick and benchmark.quick else benchmark.whole)()


def names(*, quick: bool) -> list[str]:
    """The measurements of a run, in its order."""
    return [name for name, benchmark in BENCHMARKS.items() if benchmark.quick or not quick]


def run_apart(name: str, *, quick: bool) -> Document:
    """Run one measurement in a process of its own: its document, or `failed` with the reason; the load before it."""
    command = [sys.executable, "-m", "benchmarks", "--one", name, *(["--quick"] if quick else [])]
    began_s = time.monotonic()
    told: Document = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "load_before": round(os.getloadavg()[0], 1)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            answer, _ = process.communicate(timeout=BENCHMARKS[name].limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return told | {"failed": f"took longer than {BENCHMARKS[name].limit_s:g} s"}
    told |= {"took_s": round(time.monotonic() - began_s)}
    if process.returncode:
        return told | {"failed": f"ended with exit code {process.returncode}"}
    return told | {"document": json.loads(answer)}


def machine() -> Document:
    """What was measured on."""
    return {
        "cores": os.cpu_count() or 0,
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "python": ".".join(map(str, sys.version_info[:3])),
    }
