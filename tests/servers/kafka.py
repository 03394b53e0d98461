"""Apache Kafka in KRaft mode as a test server, from its Maven artifacts and the machine's own Java.

`python -m tests.servers.kafka --prepare` resolves the artifacts ahead of the tests, so that no test waits for a
download.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Protocol, Self

from kvandal.broker import HOST, answers, last_line, tied_to_parent
from tests.servers.ports import free_port

FOLDER = Path(__file__).resolve().parent
POM = FOLDER / "kafka-pom.xml"
LOGGING = FOLDER / "kafka-log4j2.properties"
CACHE = FOLDER.parents[1] / ".cache" / "kafka"

MAVEN_ATTEMPTS = 2  # the second one for a download that broke off
MAVEN_TIMEOUT_S = 300.0  # 90 MB on a first run
TOOL_TIMEOUT_S = 60.0
START_TIMEOUT_S = 60.0  # it answers within 4 s; the rest is for three brokers on a machine under load
POLL_INTERVAL_S = 0.05
JAVA_OPTIONS = (
    "-Xms64m",
    "-Xmx256m",  # a test's data is a few megabytes
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # a test server lives for seconds: the second compiler never pays
    "-Xshare:auto",
    "-Djava.awt.headless=true",
    f"-Dlog4j2.configurationFile={LOGGING}",
)
NO_PROPERTIES: Mapping[str, str] = MappingProxyType({})


class ServerUnavailable(RuntimeError):  # noqa: N818 - a verdict on the machine, not on the code under test
    """This machine cannot run the server; the message says what is missing."""


class ServerFailed(RuntimeError):  # noqa: N818
    """The server can be run here, but ended or kept silent when it was started."""


@dataclass(frozen=True, slots=True)
class Java:
    """How to run a main class of Apache Kafka on this machine."""

    program: str
    class_path: str

    def command(self, main_class: str, *arguments: str) -> list[str]:
        return [self.program, *JAVA_OPTIONS, "-cp", self.class_path, main_class, *arguments]


@dataclass(slots=True)
class Node:
    """One broker that is also a controller: its files and, while it runs, its process."""

    node_id: int
    directory: Path
    client_port: int
    broker_port: int
    controller_port: int
    advertised_port: int  # where clients are told to go: the client port, or a relay before it
    process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        return f"{HOST}:{self.advertised_port}"

    @property
    def log_path(self) -> Path:
        return self.directory / "broker.log"

    @property
    def properties_path(self) -> Path:
        return self.directory / "server.properties"


class Guard(Protocol):
    """What a cluster of one broker is told about whom to let in, and who asks whether it answers."""

    def properties(self, node: Node) -> Mapping[str, str]: ...

    def answers(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class KafkaCluster:
    """A running cluster. It ends with `stop`, with the context manager, or with the process that started it."""

    java: Java
    nodes: tuple[Node, ...]
    properties: Mapping[str, str]
    guard: Guard | None = None

    @classmethod
    def start(
        cls,
        directory: Path,
        *,
        brokers: int = 1,
        properties: Mapping[str, str] = NO_PROPERTIES,
        relay: Callable[[int], int] = lambda port: port,
        guard: Guard | None = None,
    ) -> Self:
        """Format the storage of `brokers` nodes under `directory`, start them, return when every one answers.

        `properties` go over our own settings in every node's server.properties. `relay` may put something between
        clients and a node's port: it returns the port that clients are told of. Raises ServerUnavailable where Kafka
        cannot run, ServerFailed when it does not start; then nothing is left running.
        """
        java = ensure_available()
        nodes = tuple(_node(i + 1, directory / f"broker-{i}", relay) for i in range(brokers))
        cluster = cls(java, nodes, properties, guard)
        try:
            cluster._format()
            for node in nodes:
                cluster._launch(node)
            for node in nodes:
                _wait_until_it_answers(node, guard)
        except BaseException:
            cluster.stop()
            raise
        return cluster

    @property
    def bootstrap(self) -> str:
        return ",".join(node.bootstrap for node in self.nodes)

    def kill(self, broker_index: int) -> None:
        """End one broker by SIGKILL, as a power cut would. Its files stay."""
        node = self.nodes[broker_index]
        if node.process is not None:
            node.process.kill()
            node.process.wait()
            node.process = None

    def restart(self, broker_index: int) -> None:
        """Start one broker again on its files and ports, after killing it if it runs; returns when it answers."""
        self.kill(broker_index)
        self._launch(self.nodes[broker_index])
        _wait_until_it_answers(self.nodes[broker_index], self.guard)

    def stop(self) -> None:
        """End every broker at once: what they hold is the tests' and is thrown away. Harmless when repeated."""
        for index in range(len(self.nodes)):
            self.kill(index)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _format(self) -> None:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")  # no option
        for node in self.nodes:
            node.directory.mkdir(parents=True, exist_ok=True)
            settings = _server_properties(node, self.nodes) | dict(self.properties)
            settings |= self.guard.properties(node) if self.guard else {}
            node.properties_path.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
            tool = ("kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(node.properties_path))
            done = _run(self.java.command(*tool), TOOL_TIMEOUT_S)
            if done.returncode != 0:
                raise ServerFailed(f"the storage of {node.directory} could not be formatted: {_last(done)}")

    def _launch(self, node: Node) -> None:
        with node.log_path.open("ab") as log:
            node.process = subprocess.Popen(
                tied_to_parent(self.java.command("kafka.Kafka", str(node.properties_path))),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=node.directory,
                start_new_session=True,
            )


def _node(node_id: int, directory: Path, relay: Callable[[int], int]) -> Node:
    client_port = free_port()
    return Node(node_id, directory, client_port, free_port(), free_port(), relay(client_port))


def ensure_available() -> Java:
    """The Java and the class path of Apache Kafka, resolved with Maven when this pom is seen for the first time.

    Raises ServerUnavailable with one sentence when Java or Maven is missing, the artifacts cannot be had, or this Java
    is too old for them.
    """
    program = shutil.which("java", path=_java_search_path())
    if program is None:
        raise ServerUnavailable("Apache Kafka needs Java 17 or newer: there is no java in JAVA_HOME or on the PATH")
    cached = CACHE / f"{hashlib.sha256(POM.read_bytes()).hexdigest()[:16]}.classpath"
    class_path = _read_class_path(cached)
    if class_path is None:
        class_path = _resolve_class_path(cached)
    return Java(os.path.realpath(program), class_path)


def _java_search_path() -> str:
    path = os.environ.get("PATH", os.defpath)
    home = os.environ.get("JAVA_HOME")
    return f"{home}/bin{os.pathsep}{path}" if home else path


def _read_class_path(cached: Path) -> str | None:
    """The class path of an earlier run, unless one of its files has gone since."""
    if not cached.is_file():
        return None
    class_path = cached.read_text().strip()
    return class_path if all(Path(jar).is_file() for jar in class_path.split(os.pathsep)) else None


def _resolve_class_path(cached: Path) -> str:
    maven = shutil.which("mvn")
    if maven is None:
        raise ServerUnavailable("Apache Kafka's artifacts are not here yet and there is no mvn to fetch them")
    cached.parent.mkdir(parents=True, exist_ok=True)
    resolving = cached.with_suffix(f".{os.getpid()}")
    output = (f"-Dmdep.outputFile={resolving}", "-Dmdep.includeScope=runtime")
    quietly = ("-q", "-B", "-ntp", "-Dstyle.color=never")
    command = [maven, *quietly, "-f", str(POM), "dependency:build-classpath", *output]
    for _ in range(MAVEN_ATTEMPTS):
        done = _run(command, MAVEN_TIMEOUT_S)
        if done.returncode == 0:
            resolving.replace(cached)
            return cached.read_text().strip()
    raise ServerUnavailable(f"Maven could not resolve Apache Kafka: {_first_error(done)}")


def _server_properties(node: Node, nodes: Sequence[Node]) -> dict[str, str]:
    replicas = str(min(3, len(nodes)))
    quorum_minimum = str(min(2, len(nodes)))
    return {
        "process.roles": "broker,controller",
        "node.id": str(node.node_id),
        "controller.quorum.voters": ",".join(f"{n.node_id}@{HOST}:{n.controller_port}" for n in nodes),
        "listeners": f"CLIENT://{HOST}:{node.client_port},BROKER://{HOST}:{node.broker_port},"
        f"CONTROLLER://{HOST}:{node.controller_port}",
        "advertised.listeners": f"CLIENT://{node.bootstrap},BROKER://{HOST}:{node.broker_port}",
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "BROKER",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(node.directory / "data"),
        "default.replication.factor": replicas,
        "min.insync.replicas": quorum_minimum,
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": "1",  # the 50 of production take seconds to create
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": quorum_minimum,
        "transaction.state.log.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": quorum_minimum,
        "auto.create.topics.enable": "false",  # as in production: a mistyped topic is an error
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",  # so that a test can lose a member within seconds
        "broker.session.timeout.ms": "3000",  # a killed broker can register again only after this
        "broker.heartbeat.interval.ms": "500",
        "log.cleaner.dedupe.buffer.size": str(4 << 20),  # the default of 128 MB is half of our heap
        "num.network.threads": "2",
        "num.io.threads": "2",
    }


def _wait_until_it_answers(node: Node, guard: Guard | None = None) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if node.process is None or node.process.poll() is not None:
            raise ServerFailed(f"Kafka broker {node.node_id} ended while starting: {last_line(node.log_path)}")
        if guard.answers() if guard else answers(node.bootstrap, deadline - time.monotonic()):
            return
        time.sleep(POLL_INTERVAL_S)
    raise ServerFailed(f"Kafka broker {node.node_id} did not answer in time: {last_line(node.log_path)}")


def _run(command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no end after {timeout_s:g} s")


def _last(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stdout + done.stderr).strip().split("\n")
    return lines[-1].strip()


def _first_error(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stdout + done.stderr).split("\n")
    return next((line.strip() for line in lines if "ERROR" in line), _last(done))


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.servers.kafka", description="Apache Kafka for the tests.")
    parser.add_argument("--prepare", action="store_true", required=True, help="fetch what the tests will run")
    parser.parse_args(arguments)
    try:
        done = _run(ensure_available().command("kafka.Kafka", "--version"), TOOL_TIMEOUT_S)
    except ServerUnavailable as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if done.returncode != 0:
        sys.stderr.write(f"this Java cannot run Apache Kafka, which needs Java 17 or newer: {_last(done)}\n")
        return 1
    sys.stderr.write(f"Apache Kafka {_last(done)} is ready\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
