"""Kvandal's own processes as test servers, a load whose every row is known, and a gate before the store."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from types import MappingProxyType, TracebackType
from typing import Self, TypeVar
from urllib.parse import urlsplit

import numpy as np
import psutil
from clickhouse_connect.driver.client import Client

from catalogue import GPU, Table, layout_of
from kvandal.broker import HOST, tied_to_parent
from storage.client import StoreAddress
from stream.client import KafkaAddress, make_admin
from stream.frame import seal
from stream.messages import EventMessage, InventoryMessage, encode_message
from stream.publish import Acknowledged, Publisher, ensure_topics
from stream.rows import Rows, absent_rows, row_type
from stream.topics import ALL_TOPICS, EVENTS, INVENTORY

PATIENCE_S = 180.0  # for what takes a second on an idle machine
STOP_TIMEOUT_S = 30.0
POLL_S = 0.05
POLL_SHARE = 0.03  # of the time waited: a store that is asked without end has no time for what is waited for
LOG_TAIL_CHARACTERS = 2000
NO_SETTINGS: Mapping[str, str] = MappingProxyType({})

Found = TypeVar("Found")


def until(condition: Callable[[], Found], *, what: str, timeout_s: float = PATIENCE_S) -> Found:
    """Ask until the answer is true, and return it; AssertionError with `what` when time runs out."""
    started = time.monotonic()
    while not (found := condition()):
        waited = time.monotonic() - started
        assert waited < timeout_s, f"after {timeout_s:g} s still not so: {what}"
        time.sleep(max(POLL_S, POLL_SHARE * waited))
    return found


@dataclass(frozen=True, slots=True)
class Finished:
    """A verb that ran to its end."""

    code: int
    out: str
    err: str


def environment(settings: Mapping[str, str] = NO_SETTINGS) -> dict[str, str]:
    """This process's environment with exactly these settings of Kvandal's."""
    foreign = {name: value for name, value in os.environ.items() if not name.startswith("KVANDAL_")}
    return foreign | dict(settings)


def run(*arguments: str, settings: Mapping[str, str] = NO_SETTINGS, timeout_s: float = PATIENCE_S) -> Finished:
    """Run a verb as a user does, and wait for its end."""
    done = subprocess.run(
        tied_to_parent(_command(arguments)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env=environment(settings),
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def _command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "kvandal", *arguments]


@dataclass(frozen=True, slots=True)
class Running:
    """A `kvandal` process with its output in files. As a context manager it is killed at the end."""

    process: subprocess.Popen[bytes]
    out_path: Path
    log_path: Path

    @classmethod
    def start(cls, folder: Path, name: str, *arguments: str, settings: Mapping[str, str] = NO_SETTINGS) -> Self:
        """Start a verb whose output goes to `folder`/`name`.out and .log, after what is there already."""
        out_path, log_path = folder / f"{name}.out", folder / f"{name}.log"
        with out_path.open("ab") as out, log_path.open("ab") as log:
            process = subprocess.Popen(
                tied_to_parent(_command(arguments)),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                env=environment(settings),
                start_new_session=True,
            )
        return cls(process, out_path, log_path)

    @property
    def out(self) -> str:
        return self.out_path.read_text()

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def wait_for(self, text: str, *, after: int = 0, timeout_s: float = PATIENCE_S) -> None:
        """Wait until the log, from character `after` on, says `text`; AssertionError when the process ended first."""

        def said() -> bool:
            ended = self.process.poll() is not None
            found = text in self.log[after:]
            assert found or not ended, f"ended with {self.process.returncode} before it said {text!r}:\n{self.log}"
            return found

        until(said, what=f"{self.log_path.name} says {text!r}", timeout_s=timeout_s)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Ask it to end; returns its exit code. AssertionError with where its threads stand when it does not."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not end within {timeout_s:g} s of SIGTERM:\n{self.stacks()}") from None

    def stacks(self) -> str:
        """Where its threads stand now, and how much processor it used: little means that it waits for something."""
        before = len(self.log)
        used_s = sum(psutil.Process(self.process.pid).cpu_times()[:2])
        self.process.send_signal(signal.SIGUSR1)
        with suppress(AssertionError):
            until(lambda: "(most recent call first)" in self.log[before:], what="stacks are written", timeout_s=10)
        return f"{used_s:.1f} s of processor in all\n{self.log[max(0, before - LOG_TAIL_CHARACTERS) :]}"

    def freeze(self) -> None:
        """SIGSTOP: the process runs nothing, not even its heartbeats, until `wake`."""
        self.process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


@contextmanager
def fresh_topics(bootstrap: str, *, partitions: int | None = None) -> Iterator[None]:
    """All of Kvandal's topics, empty, and gone again afterwards: a broker is shared by many tests."""
    drop_topics(bootstrap)
    ensure_topics(KafkaAddress(bootstrap), replication=1, partitions=partitions)
    yield
    drop_topics(bootstrap)


def drop_topics(bootstrap: str, *names: str) -> None:
    """Delete these topics, or all of Kvandal's, and wait until they are gone."""
    wanted = set(names) or {topic.name for topic in ALL_TOPICS}
    admin = make_admin(KafkaAddress(bootstrap))
    try:
        present = wanted & set(admin.list_topics())
        if present:
            admin.delete_topics(sorted(present))
        until(lambda: not wanted & set(admin.list_topics()), what="the topics are gone")
    finally:
        admin.close()


def publish_messages(bootstrap: str, messages: Sequence[EventMessage | InventoryMessage]) -> None:
    """Publish events and inventory as agents do; returns once the broker has acknowledged all of them."""
    publisher = Publisher(KafkaAddress(bootstrap))
    failures: list[Exception] = []
    for message in messages:
        topic = EVENTS if isinstance(message, EventMessage) else INVENTORY
        publisher.publish(topic.name, 1, encode_message(message), acknowledged=lambda _: None, failed=failures.append)
    publisher.flush()
    publisher.close()
    assert failures == []


def start_ingest(
    folder: Path,
    name: str,
    bootstrap: str,
    store: StoreAddress,
    settings: Mapping[str, str] = NO_SETTINGS,
    *,
    metrics_port: int = 0,
) -> Running:
    """`kvandal ingest` as a member of a consumer group."""
    arguments = ["ingest", "--broker", bootstrap, "--url", store.url, "--user", store.user]
    arguments += ["--port", str(metrics_port)]
    return Running.start(folder, name, *arguments, settings={"KVANDAL_STORE_PASSWORD": store.password, **settings})


@dataclass(slots=True)
class StoreServer:
    """The embedded ClickHouse behind its door, on a folder of one test's own, which that test may kill."""

    path: Path
    port: int
    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, path: Path, *, port: int = 0) -> Self:
        """Start it and return once it listens."""
        process = cls._spawn(path, port)
        assert process.stdout is not None
        answer = process.stdout.readline()
        assert answer, f"the door ended while starting: {process.wait(STOP_TIMEOUT_S)}"
        return cls(path, int(answer), process)

    def address(self, role: str = "admin") -> StoreAddress:
        return StoreAddress(f"http://{HOST}:{self.port}", role, f"{role} password")

    def kill_and_restart(self) -> None:
        """SIGKILL, as a power cut would, and a new process on the same folder and port."""
        self.stop()
        self.process = self.start(self.path, port=self.port).process

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @staticmethod
    def _spawn(path: Path, port: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "storage.door", "--path", str(path), "--port", str(port)]
        passwords = {f"KVANDAL_{role.upper()}_PASSWORD": f"{role} password" for role in ("admin", "ingest", "reports")}
        return subprocess.Popen(tied_to_parent(command), stdout=subprocess.PIPE, env=environment(passwords))


# --- a load that is known to the last bit


@dataclass(frozen=True, slots=True)
class Frame:
    """A sealed frame and the rows in it."""

    topic: str
    source: int
    value: bytes
    rows: Rows


def random_rows(table: Table, resources: np.ndarray, times_s: np.ndarray, random: np.random.Generator) -> Rows:
    """Rows with any value that a column can hold; one in twenty is absent, and of one resource all of them."""
    rows = absent_rows(table, len(resources))
    rows["resource"], rows["time"] = resources, times_s
    for metric in table.metrics:
        # Half of a 64-bit type's range: the sums of a test stay within 64 bits.
        highest = min(metric.stored.highest, 1 << 40)
        counts = random.integers(max(metric.stored.lowest, -(1 << 40)), highest, len(rows), endpoint=True)
        present = (random.random(len(rows)) >= 0.05) & (rows["resource"] != resources[0])
        rows[metric.column][present] = counts[present]
    return rows


@dataclass(slots=True)
class Fleet:
    """Sources that send one frame after another, `ticks` seconds of `resources` devices each."""

    seed: int
    sources: int = 1
    resources: int = 8
    ticks: int = 5
    table: Table = GPU
    epoch_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)

    def frames(self) -> Iterator[Frame]:
        """Frames without end, from each source in turn, their ticks from two hours ago on."""
        random = np.random.default_rng(self.seed)
        start_s = self.epoch_ms // 1000 - 7200
        sequence = 0
        while True:
            times = np.repeat(np.arange(start_s + sequence, start_s + sequence + self.ticks), self.resources)
            for number in range(self.sources):
                source = (self.seed << 32) + number
                resources = np.tile(np.arange(self.resources) + (source << 8), self.ticks).astype("<u8")
                rows = random_rows(self.table, resources, times, random)
                yield self._frame(source, sequence, rows)
            sequence += self.ticks

    def _frame(self, source: int, sequence: int, rows: Rows) -> Frame:
        value = seal(
            self.table,
            rows,
            source=source,
            epoch_ms=self.epoch_ms,
            sequence=sequence,
            ticks=self.ticks,
            sent_ms=time.time_ns() // 1_000_000,
        )
        return Frame(self.table.topic, source, value, rows)


def publish(bootstrap: str, topic: str, values: Sequence[bytes], *, key: int = 1) -> list[Acknowledged]:
    """Publish values under one key; returns where each of them is, in order."""
    places: list[Acknowledged] = []
    errors: list[Exception] = []
    publisher = Publisher(KafkaAddress(bootstrap))
    for value in values:
        publisher.publish(topic, key, value, acknowledged=places.append, failed=errors.append)
    publisher.flush()
    publisher.close()
    assert not errors, errors[0]
    return places


class Loader:
    """Publishes frames at a steady pace from a thread of its own, until stopped or `most` are out."""

    def __init__(self, bootstrap: str, frames: Iterator[Frame], *, per_second: float, most: int) -> None:
        self.published: list[Frame] = []
        self._frames = frames
        self._per_second = per_second
        self._most = most
        self._publisher = Publisher(KafkaAddress(bootstrap))
        self._errors: list[Exception] = []
        self._acknowledged: list[Acknowledged] = []
        self._stop = Event()
        self._thread = Thread(target=self._run, name="loader", daemon=True)

    @property
    def acknowledged(self) -> int:
        return len(self._acknowledged)

    def finish(self) -> list[Frame]:
        """Stop; returns what was published, every frame of it acknowledged once."""
        self._stop.set()
        self._thread.join()
        self._publisher.flush()
        self._publisher.close()
        assert not self._errors, self._errors[0]
        assert len(self._acknowledged) == len(self.published)
        return self.published

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        started_s = time.monotonic()
        while len(self.published) < self._most:
            due_s = started_s + len(self.published) / self._per_second
            if self._stop.wait(max(0.0, due_s - time.monotonic())):
                return
            frame = next(self._frames)
            self._publisher.publish(
                frame.topic,
                frame.source,
                frame.value,
                acknowledged=self._acknowledged.append,
                failed=self._errors.append,
            )
            self.published.append(frame)


# --- what the store holds


def stored_rows(store: Client, table: Table, condition: str = "1") -> Rows:
    """The rows of a table in order, as the frames had them: what a frame carries is ClickHouse's own RowBinary."""
    layout = layout_of(table)
    names = ", ".join(column.name for column in layout.fields)
    sql = f"SELECT {names} FROM {table.name} WHERE {condition} ORDER BY resource, time"  # noqa: S608 - ours
    return np.frombuffer(store.raw_query(sql, fmt="RowBinary"), dtype=row_type(layout))


def assert_minutes_agree(store: Client, table: Table) -> None:
    """Every count, sum, minimum, maximum and mask of the minute rollup is what the raw rows give."""
    columns = list(_minute_columns(store, table))
    from_raw = ", ".join(f"{meaning} AS {name}" for name, meaning, _ in columns)
    merged = ", ".join(f"{function}(minutes.{name}) AS {name}" for name, _, function in columns)
    raw = f"SELECT resource, toStartOfMinute(time) AS minute, {from_raw} FROM {table.name} AS raw GROUP BY ALL"  # noqa: S608
    minutes = f"SELECT resource, time AS minute, {merged} FROM {table.name}_1m AS minutes GROUP BY ALL"  # noqa: S608
    for one, other in ((raw, minutes), (minutes, raw)):
        differing = store.query(f"SELECT resource, minute FROM ({one} EXCEPT {other}) LIMIT 10")  # noqa: S608
        assert list(differing.result_rows) == [], f"minutes of {table.name} differ from its rows"


def _minute_columns(store: Client, table: Table) -> Iterator[tuple[str, str, str]]:
    """The rollup's columns: what each means in plain SQL over raw rows, and how its pieces are put together."""
    known = {"row_count": ("count()", "sum")}
    for metric in table.metrics:
        present = f"nullIf(raw.{metric.column}, {metric.stored.absent})"
        known |= {
            f"{metric.name}_sum_raw": (f"ifNull(sum({present}), 0)", "sum"),
            f"{metric.name}_count": (f"count({present})", "sum"),
            f"{metric.name}_min_raw": (f"min({present})", "min"),
            f"{metric.name}_max_raw": (f"max({present})", "max"),
            f"{metric.name}_or_raw": (f"groupBitOr({present})", "groupBitOr"),
        }
    names = store.query(
        "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = {table:String} "
        "AND startsWith(type, 'SimpleAggregateFunction')",
        parameters={"table": f"{table.name}_1m"},
    )
    for (name,) in names.result_rows:
        yield name, *known[name]


# --- a network that can be held up


class Gate:
    """A TCP relay on loopback. While it is shut, requests or answers wait in it; opened, they arrive late."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._target = (place.hostname or HOST, place.port or 0)
        self._requests_pass, self._answers_pass = Event(), Event()
        self._waiting = Event()
        self.open()
        self._listener = socket.create_server((HOST, 0))
        self._connections: list[socket.socket] = []
        Thread(target=self._accept, name="gate", daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def holds_something(self) -> bool:
        """Whether something has come to wait since the gate was shut."""
        return self._waiting.is_set()

    def shut(self, *, answers: bool = False) -> None:
        """Hold requests from now on, or the answers to them."""
        self._waiting.clear()
        (self._answers_pass if answers else self._requests_pass).clear()

    def open(self) -> None:
        self._requests_pass.set()
        self._answers_pass.set()

    def cut(self) -> None:
        """End every connection, whatever is under way on it."""
        cut, self._connections = self._connections, []
        for end in cut:
            _hang_up(end)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _hang_up(self._listener)
        self.cut()
        self.open()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(self._target)
                except OSError:  # nobody listens behind the gate now: so it is in front of it
                    _hang_up(client)
                    continue
                self._connections += [client, server]
                for ends in ((client, server, self._requests_pass), (server, client, self._answers_pass)):
                    Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, origin: socket.socket, target: socket.socket, may_pass: Event) -> None:
        with suppress(OSError):  # either side has gone
            while data := origin.recv(1 << 16):
                if not may_pass.is_set():
                    self._waiting.set()
                    may_pass.wait()
                target.sendall(data)
        with suppress(OSError):  # so that the other side hears of it, however this one went
            target.shutdown(socket.SHUT_WR)


def _hang_up(end: socket.socket) -> None:
    with suppress(OSError):  # it is gone already
        end.shutdown(socket.SHUT_RDWR)
    end.close()
