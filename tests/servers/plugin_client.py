"""What stands for Grafana's plug-in: a small Go program over clickhouse-go, built once and talked to in lines of JSON.

`python -m tests.servers.plugin_client --prepare` builds it ahead of the tests, so that no test waits for a download.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from dashboards.answers import Answer
from storage.client import StoreAddress
from tests.servers.kafka import ServerUnavailable
from tests.servers.preparing import make, prepare

SOURCE = Path(__file__).resolve().parent / "clickhouse_go"
CACHE = SOURCE.parents[2] / ".cache" / "clickhouse-go"
OLDEST_GO = (1, 21)  # from here on Go fetches a newer one of itself where a module asks for it
USUAL_PLACE = "/usr/local/go/bin"
BUILD_TIMEOUT_S = 420.0  # a first run fetches 15 modules and compiles them and Go's own library
STOP_TIMEOUT_S = 30.0


class PluginRefusedError(Exception):
    """What clickhouse-go raises; `code` is ClickHouse's, 0 where the library itself is at a loss."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class PluginClient:
    """One connection pool as the plug-in has it."""

    asks: IO[str]
    answers: IO[str]

    def ask(self, sql: str) -> Answer:
        """Values as JSON has them, times in RFC 3339. Raises PluginRefusedError."""
        self.asks.write(json.dumps({"sql": sql}) + "\n")
        self.asks.flush()
        told = self.hear()
        return Answer(tuple(told["names"]), tuple(told["types"]), tuple(tuple(row) for row in told["rows"]))

    def hear(self) -> dict[str, Any]:
        line = self.answers.readline()
        if not line:
            raise PluginRefusedError("the program ended", 0)
        told: dict[str, Any] = json.loads(line)
        if told["error"]:
            raise PluginRefusedError(told["error"], told["code"])
        return told


@contextmanager
def plugin_client(address: StoreAddress) -> Iterator[PluginClient]:
    """Connected and pinged, as the plug-in does before its first query. PluginRefusedError, ServerUnavailable."""
    url = urlsplit(address.url)
    command = [str(program()), "-address", url.netloc, "-user", address.user, "-database", address.database]
    environment = {**os.environ, "STORE_PASSWORD": address.password, "NO_PROXY": "*"}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True, encoding="utf-8"
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        client = PluginClient(process.stdin, process.stdout)
        client.hear()
        yield client
    finally:
        process.stdin.close()
        process.wait(STOP_TIMEOUT_S)
        process.stdout.close()


def program() -> Path:
    """The built program; a change of its source or of a module's version makes another. Raises ServerUnavailable."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(SOURCE.iterdir()))).hexdigest()[:16]
    built = CACHE / digest / "client"
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        _build(_go(), built)
    return built


def _go() -> str:
    go = shutil.which("go") or shutil.which("go", path=USUAL_PLACE)
    if go is None:
        raise ServerUnavailable("Grafana's plug-in is tested with clickhouse-go, which needs Go, which is not here")
    said = subprocess.run([go, "version"], capture_output=True, text=True, timeout=60, check=True).stdout
    found = re.search(r"go(\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < OLDEST_GO:
        raise ServerUnavailable(f"clickhouse-go needs Go {'.'.join(map(str, OLDEST_GO))} or newer, here is {said}")
    return go


def _build(go: str, built: Path) -> None:
    """Into a file of this process' own, then into place: two test processes may build at the same time."""
    mine = built.with_suffix(f".{os.getpid()}")
    command = [go, "build", "-trimpath", "-ldflags=-s -w", "-o", str(mine), "."]
    # What goes over loopback needs no resolver of the C library, and so no compiler of C.
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "auto", "GOFLAGS": "-mod=readonly"}
    make(command, SOURCE, what="clickhouse-go", timeout_s=BUILD_TIMEOUT_S, environment=environment)
    mine.replace(built)


if __name__ == "__main__":
    sys.exit(prepare(sys.argv[1:], "tests.servers.plugin_client", "clickhouse-go", program))
