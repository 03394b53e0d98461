"""A real Alertmanager on a loopback port, amtool, and a receiver that keeps what it was told."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import requests

from kvandal.broker import HOST
from tests.servers.daemon import Daemon
from tests.servers.kafka import ServerUnavailable
from tests.servers.prometheus import TOOL_TIMEOUT_S, wait_until_ready


@dataclass(frozen=True, slots=True)
class Notification:
    """One message to a receiver: when it came, of which alerts, and whether they begin or end."""

    at_s: float  # monotonic
    path: str
    status: str
    alerts: tuple[Mapping[str, Any], ...]

    @property
    def names(self) -> list[str]:
        return [alert["labels"]["alertname"] for alert in self.alerts]


@dataclass(slots=True)
class Receiver:
    """Where the Alertmanager's webhooks go."""

    port: int
    heard: list[Notification] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"http://{HOST}:{self.port}/{path}"

    def wait_for(self, what: Callable[[Notification], bool], timeout_s: float = 20.0) -> Notification:
        """The first notification that fits; AssertionError when none comes in time."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            found = next((notification for notification in list(self.heard) if what(notification)), None)
            if found is not None:
                return found
            time.sleep(0.05)
        raise AssertionError(f"not told within {timeout_s:g} s; heard {[(n.status, n.names) for n in self.heard]}")


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A running receiver."""
    state = Receiver(0)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told = Notification(time.monotonic(), self.path, body["status"], tuple(body["alerts"]))
            state.heard.append(told)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((HOST, 0), Handler)
    server.daemon_threads = True
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@dataclass(slots=True)
class AlertmanagerServer(Daemon):
    """An Alertmanager with its configuration and its files: what it told survives `kill` and `start`."""

    directory: Path
    configuration: str

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def log_path(self) -> Path:
        return self.directory / "alertmanager.log"

    def start(self) -> Self:
        """Return once it is ready. Raises ServerUnavailable or ServerFailed."""
        program = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
        if program is None:
            raise ServerUnavailable("pages are tested with a real Alertmanager, and there is none here")
        self.directory.mkdir(parents=True, exist_ok=True)
        file = self.directory / "alertmanager.yml"
        file.write_text(self.configuration)
        command = [
            program, f"--config.file={file}", f"--storage.path={self.directory / 'data'}",
            f"--web.listen-address={self.address}", "--cluster.listen-address=",
        ]  # fmt: skip
        wait_until_ready(f"{self.url}/-/ready", self.spawn(command), self.log_path)
        return self

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that stand, as its API shows them."""
        with requests.Session() as session:
            session.trust_env = False
            found: list[dict[str, Any]] = session.get(f"{self.url}/api/v2/alerts", timeout=5).json()
        return found


def amtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run amtool. Raises ServerUnavailable where there is none."""
    program = shutil.which("amtool")
    if program is None:
        raise ServerUnavailable("routing is checked with amtool, which is not here")
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, check=False)
