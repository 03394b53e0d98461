"""Clients of the door that go away amid a request: that is their right, and no failure of the door."""

import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import pytest

from kvandal.broker import HOST, tied_to_parent

pytest.importorskip("chdb")

ROOT = Path(__file__).resolve().parents[2]
STOP_TIMEOUT_S = 30
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close by a reset, as a client that is killed does


@dataclass(frozen=True, slots=True)
class LoggedDoor:
    """A door in a process of its own, with what it says in a file."""

    port: int
    log: Path
    process: subprocess.Popen[str]

    def stop(self) -> str:
        """End it; returns what it said."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(STOP_TIMEOUT_S) == 0
        return self.log.read_text()


@pytest.fixture
def door(tmp_path: Path) -> Iterator[LoggedDoor]:
    log = tmp_path / "door.log"
    command = [sys.executable, "-m", "storage.door", "--path", str(tmp_path / "store"), "--anonymous", "reports"]
    passwords = {"KVANDAL_REPORTS_PASSWORD": "reports password"}
    with log.open("wb") as errors:
        process = subprocess.Popen(
            tied_to_parent(command), env=os.environ | passwords, stdout=subprocess.PIPE, stderr=errors, text=True,
            cwd=ROOT,
        )  # fmt: skip
    assert process.stdout is not None
    with process.stdout as answer:
        yield LoggedDoor(int(answer.readline()), log, process)
    process.kill()
    process.wait()


def hang_up_after(port: int, request: bytes, *, read_bytes: int = 0) -> None:
    with socket.create_connection((HOST, port), timeout=10) as client:
        client.sendall(request)
        if read_bytes:
            client.recv(read_bytes)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def ask(port: int, sql: str) -> bytes:
    with closing(HTTPConnection(HOST, port, timeout=30)) as connection:
        connection.request("POST", "/", sql)
        return connection.getresponse().read()


def test_a_client_that_goes_away_leaves_no_traceback(door: LoggedDoor) -> None:
    large = b"SELECT repeat('x', 1000) FROM numbers(50000)"
    head = b"POST / HTTP/1.1\r\nHost: door\r\nContent-Length: %d\r\n\r\n"
    hang_up_after(door.port, b"POST / HT")
    hang_up_after(door.port, head % 1000 + b"SELECT")
    hang_up_after(door.port, head % len(large) + large, read_bytes=1000)

    assert ask(door.port, "SELECT 41 + 1") == b"42\n"
    said = door.stop()
    assert "Traceback" not in said
    assert "failed" not in said
