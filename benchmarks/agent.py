"""What the agent costs its node: processor per tick and resident memory at 1 Hz, with eight GPUs over the NVML stub.

Beside it, in the same run, the limit: the very same reads in a bare loop that does nothing else with them, and before
that a process that has only imported what such a loop needs. Every measured process is one of its own, and runs the
stub at the time that the machine has.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

from kvandal.broker import EmbeddedBroker, tied_to_parent
from stream.client import KafkaAddress
from stream.publish import ensure_topics
from tests.servers.nvml_stub import NvmlStub, Profile, nvml_stub

_UNIT = Path(__file__).resolve().parents[1] / "deploy" / "systemd" / "kvandal-agent.service"
_WARM_UP_S = 12.0  # the first frame is out, and everything is imported
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MEGABYTE = 1e6

_BARE_LOOP = """
import time
from collectors.nvml.source import NvmlSource

source = NvmlSource()
while True:
    now_s = time.time()
    time.sleep(1 - now_s % 1)
    source.read(int(time.time()))
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """One process over a measured time at 1 Hz."""

    seconds: float
    processor_s: float
    resident_mb: float
    private_mb: float
    threads: int

    def document(self) -> dict[str, object]:
        return {
            "processor_ms_per_tick": round(self.processor_s / self.seconds * 1000, 2),
            "processor_percent_of_a_core": round(self.processor_s / self.seconds * 100, 2),
            "resident_mb": round(self.resident_mb, 1),
            "private_mb": round(self.private_mb, 1),
            "threads": self.threads,
        }


def run(*, seconds: float = 60.0) -> dict[str, object]:
    """All measurements of one run as a document."""
    with tempfile.TemporaryDirectory() as folder, nvml_stub(Path(folder), Profile.H100) as stub, ticking(stub):
        environment = {**os.environ, **stub.environment(), **recommended_environment()}
        with EmbeddedBroker.start(Path(folder) / "broker.log") as broker:
            ensure_topics(KafkaAddress(broker.bootstrap), replication=1)
            agent = agent_command(Path(folder), broker.bootstrap)
            cost = _measure(agent, environment, seconds)
        bare = _measure([sys.executable, "-c", _BARE_LOOP], environment, seconds)
    return {
        "gpus": stub.profile.gpus,
        "interval_s": 1,
        "seconds": seconds,
        "agent": cost.document(),
        "bare_loop_of_the_same_reads": bare.document(),
    }


def recommended_environment() -> dict[str, str]:
    """What the agent's systemd unit sets: one arena and one thread are enough for a reader."""
    settings = (line.partition("=") for line in _UNIT.read_text().splitlines())
    pairs = (pair.partition("=") for name, _, value in settings if name == "Environment" for pair in value.split())
    return {name: value for name, _, value in pairs}


def agent_command(folder: Path, bootstrap: str) -> list[str]:
    options = ["--source", "nvml", "--broker", bootstrap, "--spool", str(folder / "spool.db"), "--port", "0"]
    return [sys.executable, "-m", "kvandal", "agent", *options]


@contextmanager
def ticking(stub: NvmlStub) -> Iterator[None]:
    """The devices' own clock goes with the machine's."""
    done = Event()

    def tick() -> None:
        while not done.wait(0.05):
            stub.set_clock(time.time_ns() // 1_000_000)

    thread = Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _measure(command: list[str], environment: dict[str, str], seconds: float) -> Cost:
    process = subprocess.Popen(tied_to_parent(command), stdout=subprocess.DEVNULL, env=environment)
    try:
        time.sleep(_WARM_UP_S)
        started_s, before_s = time.monotonic(), processor_s(process.pid)
        time.sleep(seconds)
        took_s, used_s = time.monotonic() - started_s, processor_s(process.pid) - before_s
        resident, private = _memory_mb(process.pid)
        threads = len(list(Path(f"/proc/{process.pid}/task").iterdir()))
    finally:
        process.terminate()
        process.wait(60)
    return Cost(took_s, used_s, resident, private, threads)


def processor_s(pid: int) -> float:
    """User and system time of the process, from the kernel's own account in nanoseconds of each of its threads."""
    return sum(int(file.read_text().split()[0]) for file in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def _memory_mb(pid: int) -> tuple[float, float]:
    """Resident, and of that what no other process has: two agents would share the rest."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    resident, shared = int(fields[1]) * _PAGE_BYTES, int(fields[2]) * _PAGE_BYTES
    return resident / _MEGABYTE, (resident - shared) / _MEGABYTE
