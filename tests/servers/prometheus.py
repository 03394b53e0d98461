"""Prometheus and its tools as a test server: a real one on a loopback port, and promtool to check and test rules."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import requests
import yaml

from kvandal.broker import HOST, last_line
from tests.servers.daemon import Daemon
from tests.servers.kafka import ServerFailed, ServerUnavailable

START_TIMEOUT_S = 20.0
TOOL_TIMEOUT_S = 100.0
POLL_INTERVAL_S = 0.05


@dataclass(slots=True)
class Prometheus(Daemon):
    """A Prometheus that scrapes `targets` by job every second and pushes to `alertmanagers`."""

    directory: Path
    targets: Mapping[str, str]  # host:port by job
    rule_files: tuple[Path, ...]
    alertmanagers: tuple[str, ...] = ()  # host:port
    labels: Mapping[str, str] = field(default_factory=dict)  # of every target

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
        wait_until_ready(f"http://{HOST}:{self.port}/-/ready", self.spawn(command), self.log_path)
        return self

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
