"""Prometheus and its tools as a test server: a real one on a loopback port, and promtool to check and test rules."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import requests
import yaml

from kvandal.broker import HOST, last_line, tied_to_parent
from tests.servers.kafka import ServerFailed, ServerUnavailable
from tests.servers.ports import free_port

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0
TOOL_TIMEOUT_S = 100.0
POLL_INTERVAL_S = 0.05


@dataclass(slots=True)
class Prometheus:
    """A Prometheus that scrapes `targets` by job every second and pushes to `alertmanagers`."""

    directory: Path
    targets: Mapping[str, str]  # host:port by job
    rule_files: tuple[Path, ...]
    alertmanagers: tuple[str, ...] = ()  # host:port
    labels: Mapping[str, str] = field(default_factory=dict)  # of every target
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def log_path(self) -> Path:
        return self.directory / "prometheus.log"

    def start(self) -> Self:
        """Return once it is ready. Raises ServerUnavailable or ServerFailed."""
        program = shutil.which("prometheus")
        if program is None:
            raise ServerUnavailable("metric rules run in a real Prometheus, and there is no prometheus here")
        self.directory.mkdir(parents=True, exist_ok=True)
        configuration = self.directory / "prometheus.yml"
        configuration.write_text(yaml.safe_dump(self._settings()))
        command = [
            program, f"--config.file={configuration}", f"--storage.tsdb.path={self.directory / 'data'}",
            f"--web.listen-address={HOST}:{self.port}", "--rules.alert.resend-delay=1s",
        ]  # fmt: skip
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                tied_to_parent(command), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        wait_until_ready(f"http://{HOST}:{self.port}/-/ready", self.process, self.log_path)
        return self

    def stop(self) -> None:
        """End it; harmless when repeated."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(STOP_TIMEOUT_S)
            self.process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _settings(self) -> dict[str, object]:
        return {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(file) for file in self.rule_files],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": [target], "labels": dict(self.labels)}]}
                for job, target in self.targets.items()
            ],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": list(self.alertmanagers)}]}]},
        }


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run promtool. Raises ServerUnavailable where there is none."""
    program = shutil.which("promtool")
    if program is None:
        raise ServerUnavailable("metric rules are tested with promtool, which is not here")
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, check=False)


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log_path: Path) -> None:
    """Until the server says that it is ready; ServerFailed when it ends or stays silent."""
    deadline = time.monotonic() + START_TIMEOUT_S
    with requests.Session() as session:
        session.trust_env = False
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise ServerFailed(f"the server of {log_path} ended while starting: {last_line(log_path)}")
            try:
                if session.get(url, timeout=1).ok:
                    return
            except (TimeoutError, requests.RequestException):
                pass
            time.sleep(POLL_INTERVAL_S)
    raise ServerFailed(f"{url} was not ready in time: {last_line(log_path)}")
