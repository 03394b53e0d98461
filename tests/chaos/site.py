"""The site that is broken: three brokers, ingest processes in one group, one store, agents; each can be hurt."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

from clickhouse_connect.driver.client import Client

from collectors.spool import Spool
from kvandal.broker import last_line, tied_to_parent
from storage import schema
from storage.client import StoreAddress, connect, store_errors
from stream.client import KafkaAddress
from stream.publish import ensure_topics
from tests.chaos.feeder import SPOOL_BYTES, Fleet, produced
from tests.servers.kafka import KafkaCluster
from tests.servers.stack import Gate, Running, StoreServer, start_ingest, until

BROKERS, MEMBERS, FEEDERS = 3, 3, 2
SESSION_TIMEOUT_S = 6
FRAMES_PER_SECOND = 20.0  # of each feeder, where the machine has cores for it
# Small inserts, often: so that a random moment falls into every step of one.
SETTINGS = {
    "KVANDAL_INGEST_INSERT_ROWS": "800",
    "KVANDAL_INGEST_INSERT_AGE_S": "1",
    "KVANDAL_INGEST_SESSION_TIMEOUT_S": str(SESSION_TIMEOUT_S),
}
STORED = "SELECT count() FROM frames WHERE outcome = 'stored'"
STOP_S = 120.0  # an ingest that was asked to end may have an insert of 30 s and a question to a broker under way
_WATCH_S = 0.25


@dataclass(slots=True)
class Feeder:
    """One feeder's files and, while it runs, its process."""

    fleet: Fleet
    folder: Path
    bootstrap: str
    per_second: float
    process: subprocess.Popen[bytes] | None = None

    @property
    def spool(self) -> Path:
        return self.folder / f"feeder-{self.fleet.seed}.db"

    def start(self) -> None:
        arguments = {
            "spool": self.spool, "bootstrap": self.bootstrap, "seed": self.fleet.seed,
            "epoch-ms": self.fleet.epoch_ms, "per-second": self.per_second,
        }  # fmt: skip
        flags = [text for name, value in arguments.items() for text in (f"--{name}", str(value))]
        with (self.folder / f"feeder-{self.fleet.seed}.log").open("ab") as log:
            self.process = subprocess.Popen(
                tied_to_parent([sys.executable, "-m", "tests.chaos.feeder", *flags]), stdout=log, stderr=log
            )

    def produced(self) -> int:
        """Frames in all, whether the process runs or not."""
        with closing(Spool(self.spool, limit_bytes=SPOOL_BYTES)) as spool:
            return produced(spool)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def drain(self, timeout_s: float) -> int:
        """Produce no more and send what is left; 0 when all of it was acknowledged."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout_s)


@dataclass(slots=True)
class Progress:
    """How many frames were stored, looked at all the time: the longest stand-still is the longest recovery."""

    stored: int = 0
    longest_s: float = 0.0
    _since_s: float = field(default_factory=time.monotonic)

    @property
    def stands_still_s(self) -> float:
        """For how long nothing more was stored."""
        return time.monotonic() - self._since_s

    def note(self, stored: int) -> None:
        if stored > self.stored:
            self.stored, self._since_s = stored, time.monotonic()
        self.longest_s = max(self.longest_s, self.stands_still_s)


@dataclass(slots=True)
class ChaosSite:
    """Everything that runs. Made by `running_site`.

    What is not as it should be, though no row of it is lost, is a complaint; the run goes on and counts its rows.
    """

    folder: Path
    cluster: KafkaCluster
    broker_gates: list[Gate]
    store: StoreServer
    store_gate: Gate
    members: dict[str, Running]
    feeders: list[Feeder]
    progress: Progress = field(default_factory=Progress)
    complaints: list[str] = field(default_factory=list)
    slowest_stop_s: float = 0.0

    def start_member(self, name: str) -> Running:
        address = self.store.address("ingest")
        through_gate = StoreAddress(self.store_gate.url, address.user, address.password)
        return start_ingest(self.folder, name, self.cluster.bootstrap, through_gate, SETTINGS)

    def kill_members(self, *names: str) -> None:
        """All of these at once, and then new ones in their places."""
        for name in names:
            if (code := self.members[name].process.poll()) is not None:
                self.complaints.append(f"{name} ended by itself with {code}: {last_line(self.members[name].log_path)}")
            self.members[name].process.kill()
        for name in names:
            self.members[name].kill()
            self.members[name] = self.start_member(name)

    def kill_feeder(self, feeder: Feeder) -> None:
        if feeder.process is not None and (code := feeder.process.poll()) is not None:
            self.complaints.append(f"feeder {feeder.fleet.seed} ended by itself with {code}")
        feeder.kill()
        feeder.start()

    def stop_member(self, name: str) -> None:
        """Ask it to end, as a rollout does."""
        member, asked_s = self.members[name], time.monotonic()
        try:
            code = member.stop(STOP_S)
        except AssertionError as stuck:
            self.complaints.append(f"{name} {stuck}")
            member.kill()
            return
        self.slowest_stop_s = max(self.slowest_stop_s, time.monotonic() - asked_s)
        # One that was started just now may be asked before it listens for signals: then it holds nothing yet.
        if code not in (0, -signal.SIGTERM):
            self.complaints.append(f"{name} ended with {code} when it was asked to: {last_line(member.log_path)}")

    def client(self) -> Client:
        return connect(self.store.address())

    def end(self) -> None:
        """Kill what the site itself started again and again."""
        for member in self.members.values():
            member.kill()
        for feeder in self.feeders:
            feeder.kill()

    def heal(self) -> None:
        """Everything runs again, and every way is open."""
        for gate in [*self.broker_gates, self.store_gate]:
            gate.open()
        for number, node in enumerate(self.cluster.nodes):
            if node.process is None:
                self.cluster.restart(number)

    def stored(self) -> int:
        """Frames that are stored; ConnectionError while the store is away."""
        client = self.client()
        with store_errors("counting frames"):
            return int(str(client.command(STORED)))

    def produced(self) -> int:
        """Frames that all feeders have produced."""
        return sum(feeder.produced() for feeder in self.feeders)


@contextmanager
def running_site(folder: Path, *, seed: int, per_second: float = FRAMES_PER_SECOND) -> Iterator[ChaosSite]:
    """The whole site, with frames on their way."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as running:
        gates: list[Gate] = []

        def relay(port: int) -> int:
            gates.append(running.enter_context(Gate(f"tcp://127.0.0.1:{port}")))
            return gates[-1].port

        cluster = running.enter_context(KafkaCluster.start(folder / "kafka", brokers=BROKERS, relay=relay))
        ensure_topics(KafkaAddress(cluster.bootstrap), replication=BROKERS)
        store = running.enter_context(StoreServer.start(folder / "store"))
        schema.apply(connect(store.address()))
        store_gate = running.enter_context(Gate(store.address().url))
        epoch_ms = time.time_ns() // 1_000_000
        fleets = [Fleet(seed * 100 + number, epoch_ms) for number in range(FEEDERS)]
        feeders = [Feeder(fleet, folder, cluster.bootstrap, per_second) for fleet in fleets]
        site = ChaosSite(folder, cluster, gates, store, store_gate, {}, feeders)
        running.callback(site.end)
        for number in range(MEMBERS):
            site.members[f"member-{number}"] = site.start_member(f"member-{number}")
        for feeder in feeders:
            feeder.start()
        with _watched(site):
            until(lambda: site.progress.stored > 0, what="the first frames are stored")
            site.progress.longest_s = 0.0  # of the start
            yield site


@contextmanager
def _watched(site: ChaosSite) -> Iterator[None]:
    done = Event()

    def watch() -> None:
        while not done.wait(_WATCH_S):
            with suppress(ConnectionError):  # the store is down: no progress either
                site.progress.note(site.stored())
            site.progress.note(0)

    thread = Thread(target=watch, name="watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
