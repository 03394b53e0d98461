"""What all tests share: real servers, and what to do where this machine has none.

A real server that cannot be had here turns its tests into skips, which the end of the run lists. With
KVANDAL_DEMAND_SERVERS=1, as in CI, it fails them instead.
"""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from kvandal.broker import tied_to_parent
from storage import schema
from storage.client import StoreAddress, connect
from tests.servers.kafka import ServerUnavailable

pytest_plugins = ["tests.servers.fixtures"]

ROOT = Path(__file__).resolve().parents[1]
DEMANDED = os.environ.get("KVANDAL_DEMAND_SERVERS") == "1"
DATABASE = "kvandal"
ROLES = ("admin", "ingest", "reports", "grafana")
STOP_TIMEOUT_S = 30

# A test's property, since properties reach the process that prints the summary from those that run the tests.
_MISSING = "a real server that could not be had"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    return (yield from _skip_where_a_server_is_missing(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    return (yield from _skip_where_a_server_is_missing(item))


def _skip_where_a_server_is_missing(item: pytest.Item) -> Generator[None, object, object]:
    try:
        return (yield)
    except Exception as error:
        if not _says_unavailable(error):
            raise
        item.user_properties.append((_MISSING, str(error)))
        if DEMANDED:
            raise
        pytest.skip(str(error))


def _says_unavailable(error: BaseException) -> bool:
    """By name: each server's helper has an exception of its own, and none should need to import another's."""
    return any(kind.__name__ == ServerUnavailable.__name__ for kind in type(error).__mro__)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    missing = _missing_servers(terminalreporter)
    if not missing:
        return
    verb = "failed" if DEMANDED else "skipped"
    terminalreporter.section("real servers that could not be had")
    for sentence, tests in sorted(missing.items()):
        terminalreporter.write_line(f"{sentence} ({tests} tests {verb})")


def _missing_servers(terminalreporter: pytest.TerminalReporter) -> Counter[str]:
    ended = [report for key in ("failed", "error", "skipped") for report in terminalreporter.getreports(key)]
    of_tests = [report for report in ended if isinstance(report, pytest.TestReport)]
    said = {
        (report.nodeid, str(what)) for report in of_tests for name, what in report.user_properties if name == _MISSING
    }
    return Counter(sentence for _, sentence in said)


@dataclass(frozen=True, slots=True)
class DoorUnderTest:
    """The embedded ClickHouse behind its HTTP door, in a process of its own: one process can have only one engine."""

    url: str

    def address(self, role: str = "admin") -> StoreAddress:
        return StoreAddress(self.url, role, f"{role} password", DATABASE)

    def empty(self) -> None:
        """Drop every table and view: the door has one database, so an empty one is a fresh one."""
        with closing(connect(self.address())) as client:
            for name in _tables(client, "ORDER BY engine != 'MaterializedView'"):  # views first
                client.command(f"DROP TABLE {name} SYNC")


def _tables(client: Client, which: str) -> list[str]:
    listed = client.query(f"SELECT name FROM system.tables WHERE database = currentDatabase() {which}")  # noqa: S608
    return [name for (name,) in listed.result_rows]


@pytest.fixture(scope="session")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DoorUnderTest]:
    if find_spec("chdb") is None:
        raise ServerUnavailable("the embedded ClickHouse is not installed: it comes with kvandal[embedded]")
    path = tmp_path_factory.mktemp("door")
    command = [sys.executable, "-m", "storage.door", "--path", str(path / "store"), "--database", DATABASE]
    passwords = {f"KVANDAL_{role.upper()}_PASSWORD": f"{role} password" for role in ROLES}
    process = subprocess.Popen(
        tied_to_parent(command), env=os.environ | passwords, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    with process.stdout as answer:
        port = answer.readline().strip()
        assert port, f"the door ended while starting: {process.wait(STOP_TIMEOUT_S)}"
        yield DoorUnderTest(f"http://127.0.0.1:{port}")
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_TIMEOUT_S) == 0


@pytest.fixture
def database(door: DoorUnderTest) -> Iterator[StoreAddress]:
    """An empty database, as its administrator; what a test leaves in it is thrown away."""
    door.empty()
    yield door.address()
    door.empty()


@pytest.fixture
def store(door: DoorUnderTest) -> Iterator[Client]:
    """A client of a database with all migrations applied and no rows. The schema stays as it is: see `database`."""
    with closing(connect(door.address())) as client:
        schema.apply(client)
        for name in _tables(client, "AND engine LIKE '%MergeTree' AND name != 'schema_migrations'"):
            client.command(f"TRUNCATE TABLE {name}")
        yield client
