"""Where the time goes: the ingest drain and the agent under a sampling profiler.

py-spy looks some hundred times a second at which Python thread holds the interpreter, and notes its stack. So the
stacks tell of work in Python alone: calls that let the interpreter go, into the engine or NVML, are not in them.
Beside them stands the processor time of every thread, that of the engine too, from the kernel's account, by the name
that the thread has. py-spy is no dependency: the first run puts it into an environment of its own, `.cache/py-spy`,
and the system must let it trace (as root, or with kernel.yama.ptrace_scope 0).

Run: `python -m benchmarks.hot_spots`; with a folder as its argument it writes flame graphs there instead.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Self

from benchmarks import ingest_drain
from benchmarks.agent import agent_command, recommended_environment, ticking
from benchmarks.load import make_backlog
from kvandal.broker import EmbeddedBroker, tied_to_parent
from kvandal.store import write_blocks_to_memory
from stream.client import KafkaAddress
from stream.publish import ensure_topics
from tests.servers.kafka import KafkaCluster
from tests.servers.nvml_stub import Profile, nvml_stub

PY_SPY = "py-spy==0.4.3"
GPUS, SECONDS, AGENT_S = 4_000, 600, 90.0
_ROOT = Path(__file__).resolve().parents[1]
_ENVIRONMENT = _ROOT / ".cache" / "py-spy"
_TOP = 12
_DRAIN_RATE, _AGENT_RATE = 250, 500  # samples a second; the agent works for 6 ms of each
_AGENT_WARM_UP_S = 12.0
_LOOK_EVERY_S = 0.1
_OURS = frozenset({"catalogue", "collectors", "kvandal", "storage", "stream"})
_ATTACH_S = 1.5  # the profiler reads the symbols of the interpreter first


def run(*, flames: Path | None = None) -> dict[str, object]:
    """Both profiles as a document. With `flames` the stacks go there as pictures, and the document lacks them."""
    return {"ingest_drain": _of_drain(flames), "agent": _of_agent(flames)}


# What is looked at


def _of_drain(flames: Path | None) -> dict[str, object]:
    """A backlog in Apache Kafka, drained by ingest and engine in this process."""
    disk = tempfile.gettempdir()  # asked first: the next line is about the small files of the client library
    write_blocks_to_memory()
    backlog = make_backlog(gpus=GPUS, seconds=SECONDS, ticks=10)
    look = _Look(_DRAIN_RATE, flames / "ingest-drain.svg" if flames else None)
    with tempfile.TemporaryDirectory(dir=disk) as folder, KafkaCluster.start(Path(folder) / "kafka") as cluster:
        ingest_drain.drain("Apache Kafka", backlog, cluster.bootstrap, Path(folder), journal=None, watch=look)
    return look.document()


def _of_agent(flames: Path | None) -> dict[str, object]:
    """An agent at 1 Hz with eight GPUs over the stub of NVML."""
    with (
        tempfile.TemporaryDirectory() as name,
        nvml_stub(Path(name), Profile.H100) as stub,
        ticking(stub),
        EmbeddedBroker.start(Path(name) / "broker.log") as broker,
    ):
        ensure_topics(KafkaAddress(broker.bootstrap), replication=1)
        environment = {**os.environ, **stub.environment(), **recommended_environment()}
        command = tied_to_parent(agent_command(Path(name), broker.bootstrap))
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment) as agent:
            time.sleep(_AGENT_WARM_UP_S)
            with _Look(_AGENT_RATE, flames / "agent.svg" if flames else None, pid=agent.pid) as look:
                time.sleep(AGENT_S)
            agent.terminate()
        return look.document()


# Looking


class _Look:
    """One process under the profiler, and the account of its threads, while the context is open."""

    def __init__(self, rate: int, flame: Path | None, *, pid: int = 0) -> None:
        self._rate, self._flame, self._pid = rate, flame, pid or os.getpid()
        self._threads = _Threads(self._pid)
        self._stacks: Counter[tuple[str, ...]] = Counter()

    def __enter__(self) -> Self:
        shape = "flamegraph" if self._flame else "raw"
        self._told = self._flame or Path(tempfile.mkstemp(suffix=".stacks")[1])
        where = ["--pid", str(self._pid), "--rate", str(self._rate), "--format", shape, "--output", str(self._told)]
        self._profiler = subprocess.Popen(
            [_py_spy(), "record", "--gil", "--nonblocking", "--duration", "600", *where], stdout=sys.stderr
        )
        time.sleep(_ATTACH_S)
        self._threads.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.end()
        self._profiler.send_signal(signal.SIGINT)  # it writes what it has
        self._profiler.wait(60)
        if not self._flame:
            self._stacks.update(dict(_read_stacks(self._told)))
            self._told.unlink()

    def document(self) -> dict[str, object]:
        return {
            "seconds": round(self._threads.seconds, 1),
            "processor_s": round(self._threads.used.total() / 1e9, 2),
            "processor_percent_by_thread": _percent(self._threads.used, _TOP, self._threads.used.total()),
            "samples": self._stacks.total(),
            "percent_in_function": _percent(self._by(lambda frames: frames[-1:]), _TOP, self._stacks.total()),
            "percent_in_ours_and_below": _percent(self._by(_ours), 2 * _TOP, self._stacks.total()),
        }

    def _by(self, names: Callable[[tuple[str, ...]], Iterable[str]]) -> Counter[str]:
        """Samples by each of the names that a stack counts under."""
        found: Counter[str] = Counter()
        for frames, count in self._stacks.items():
            found.update(dict.fromkeys(names(frames), count))
        return found


class _Threads:
    """Processor time by the name that a thread has at the moment: the engine's change theirs with their work."""

    def __init__(self, pid: int) -> None:
        self.used: Counter[str] = Counter()
        self._tasks = Path(f"/proc/{pid}/task")
        self._before: dict[str, int] = {}
        self.seconds = 0.0
        self._stop = Event()
        self._thread = Thread(target=self._watch)

    def begin(self) -> None:
        self._look()
        self.used.clear()
        self.seconds = -time.monotonic()
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._thread.join()
        self.seconds += time.monotonic()

    def _watch(self) -> None:
        while not self._stop.wait(_LOOK_EVERY_S):
            self._look()

    def _look(self) -> None:
        for task in self._tasks.iterdir():
            with suppress(OSError):  # it has ended meanwhile
                used_ns = int((task / "schedstat").read_text().split()[0])
                self.used[(task / "comm").read_text().strip()] += used_ns - self._before.get(task.name, 0)
                self._before[task.name] = used_ns


def _ours(frames: tuple[str, ...]) -> set[str]:
    """The functions of our own packages in a stack."""
    return {frame for frame in frames if frame.rpartition("(")[2].partition("/")[0] in _OURS}


def _read_stacks(path: Path) -> Iterator[tuple[tuple[str, ...], int]]:
    """Stacks, outermost function first, and their samples; without those of this file's own thread."""
    summed: Counter[tuple[str, ...]] = Counter()
    for line in path.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = tuple(_function(frame) for frame in stack.split(";"))
        if "hot_spots.py" not in stack:
            summed[frames] += int(count)
    yield from summed.items()


def _function(frame: str) -> str:
    """`build (stream/batch.py)`, without the line and the folders before it."""
    name, _, place = frame.partition(" (")
    parts = place.rpartition(":")[0].split("/")
    return f"{name} ({'/'.join(parts[-2:])})"


def _percent(counts: Counter[str], most: int, total: int) -> dict[str, float]:
    return {name: round(count / total * 100, 1) for name, count in counts.most_common(most)}


def _py_spy() -> str:
    """The profiler's program, put into an environment of its own when it is not there."""
    mark = _ENVIRONMENT / PY_SPY
    if not mark.exists():
        subprocess.run([sys.executable, "-m", "venv", str(_ENVIRONMENT)], check=True)
        python = str(_ENVIRONMENT / "bin" / "python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", PY_SPY], check=True, stdout=sys.stderr)
        mark.touch()
    return str(_ENVIRONMENT / "bin" / "py-spy")


def main() -> None:
    flames = Path(sys.argv[1]) if sys.argv[1:] else None
    sys.stdout.write(json.dumps(run(flames=flames), indent=1) + "\n")


if __name__ == "__main__":
    main()
