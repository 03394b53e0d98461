"""VictoriaMetrics as a rival in benchmarks: Debian's package, unpacked and not installed."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import unquote

import psutil
import requests

from kvandal.broker import HOST
from tests.servers.daemon import Daemon
from tests.servers.kafka import ServerFailed, ServerUnavailable
from tests.servers.preparing import make, prepare
from tests.servers.prometheus import wait_until_ready

PACKAGE = "victoria-metrics"
BUILT = Path(__file__).resolve().parents[2] / ".cache" / "bin"
VERSION = BUILT / f"{PACKAGE}.version"  # the program does not know its own
FETCH_TIMEOUT_S = 120
REQUEST_TIMEOUT_S = 120
POLL_INTERVAL_S = 0.2
STILL_POLLS = 5  # a second without a merge: the next one is due to new data only


def ensure_victoria_metrics(*, fetch: bool = False) -> str:
    """The program; with `fetch` the package is unpacked where there is none. Raises ServerUnavailable."""
    found = _program()
    if found is None and fetch:
        _unpack()
        found = _program()
    if found is None:
        raise ServerUnavailable(
            "VictoriaMetrics is not here; `python -m tests.servers.victoria_metrics --prepare` fetches it"
        )
    return found


def _program() -> str | None:
    return shutil.which(PACKAGE, path=str(BUILT)) or shutil.which(PACKAGE)


def _unpack() -> None:
    """Not installed: the package would start a service of its own."""
    tools = [shutil.which(name) for name in ("apt-get", "dpkg-deb")]
    if None in tools:
        raise ServerUnavailable("VictoriaMetrics is a package of Debian's, and this is another system")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(["apt-get", "download", PACKAGE], folder, what="VictoriaMetrics", timeout_s=FETCH_TIMEOUT_S)
        package = next(folder.glob(f"{PACKAGE}_*.deb"))
        unpack = ["dpkg-deb", "--extract", package.name, "unpacked"]
        make(unpack, folder, what="VictoriaMetrics", timeout_s=FETCH_TIMEOUT_S)
        BUILT.mkdir(parents=True, exist_ok=True)
        VERSION.write_text(unquote(package.name.split("_")[1]))
        shutil.copy2(folder / "unpacked" / "usr" / "bin" / PACKAGE, BUILT)


def package_version() -> str:
    """Of the package that was unpacked."""
    return VERSION.read_text() if VERSION.is_file() else "unknown"


@dataclass(slots=True)
class VictoriaMetrics(Daemon):
    """A single node with its own defaults, and its data in `directory`."""

    directory: Path
    session: requests.Session = field(default_factory=requests.Session)

    @property
    def log_path(self) -> Path:
        return self.directory / "victoria-metrics.log"

    @property
    def data_path(self) -> Path:
        return self.directory / "data"

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def start(self) -> Self:
        """Return once it is ready. Raises ServerUnavailable or ServerFailed."""
        program = ensure_victoria_metrics()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.session.trust_env = False
        command = [program, f"-storageDataPath={self.data_path}", f"-httpListenAddr={HOST}:{self.port}"]
        wait_until_ready(f"{self.url}/health", self.spawn(command), self.log_path)
        return self

    def send(self, path: str, body: bytes, *, query: Mapping[str, str], headers: Mapping[str, str]) -> None:
        """Give it a body to import. Raises ServerFailed with what it says against it."""
        answer = self.session.post(
            f"{self.url}{path}", data=body, params=query, headers=headers, timeout=REQUEST_TIMEOUT_S
        )
        self._check(answer)

    def settle(self) -> None:
        """Everything taken can be queried, and no merge is under way."""
        self._get("/internal/force_flush")
        self._wait_for("vm_active_merges")

    def merge(self) -> None:
        """All parts of a month into one."""
        self._get("/internal/force_merge")
        self._wait_for("vm_active_force_merges", "vm_active_merges")

    def count(self, *, until_s: int, span_s: int) -> int:
        """How many readings it has, of those that end at `until_s`."""
        query = {"query": f'sum(count_over_time({{gpu!=""}}[{span_s}s]))', "time": str(until_s), "nocache": "1"}
        result = self._get("/api/v1/query", query).json()["data"]["result"]
        return int(result[0]["value"][1]) if result else 0

    def export_native(self) -> bytes:
        """All it has, in the format in which it keeps it."""
        return self._get("/api/v1/export/native", {"match[]": '{gpu!=""}'}).content

    def processor_s(self) -> float:
        """User and system time of the process so far."""
        assert self.process is not None
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def _wait_for(self, *gauges: str) -> None:
        """Until none of the gauges has shown work for a while."""
        give_up_s, still = time.monotonic() + REQUEST_TIMEOUT_S, 0
        while still < STILL_POLLS:
            if time.monotonic() > give_up_s:
                raise ServerFailed(f"VictoriaMetrics still merges after {REQUEST_TIMEOUT_S} s")
            time.sleep(POLL_INTERVAL_S)
            still = 0 if self._at_work(gauges) else still + 1

    def _at_work(self, gauges: tuple[str, ...]) -> bool:
        lines = self._get("/metrics").text.splitlines()
        shown = [line for line in lines if line.startswith(gauges)]
        assert shown, f"VictoriaMetrics shows none of {gauges}"
        return any(float(line.rsplit(" ", 1)[1]) > 0 for line in shown)

    def _get(self, path: str, query: Mapping[str, str] | None = None) -> requests.Response:
        answer = self.session.get(f"{self.url}{path}", params=query, timeout=REQUEST_TIMEOUT_S)
        self._check(answer)
        return answer

    def _check(self, answer: requests.Response) -> None:
        if not answer.ok:
            raise ServerFailed(f"VictoriaMetrics: {answer.status_code} {answer.text[:300]}")


if __name__ == "__main__":
    sys.exit(
        prepare(
            sys.argv[1:],
            "tests.servers.victoria_metrics",
            "VictoriaMetrics",
            lambda: ensure_victoria_metrics(fetch=True),
        )
    )
