"""What each role may do through the door (tests/tries.py, over the wire), its limits, and the door behind TLS."""

import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlencode, urlsplit

import pytest
from clickhouse_connect.driver.client import Client

from kvandal.broker import tied_to_parent
from storage.client import StoreAddress, StoreUnavailableError, connect
from tests.conftest import ROOT, DoorUnderTest
from tests.servers.certificates import Authority
from tests.tries import STORE_ROLES, STORE_TRIES, StoreTry

NO_PARAMS: Mapping[str, str] = MappingProxyType({})
# Syntax error, too large; access denied, read-only, setting out of bounds: refused before anything was tried.
REFUSALS = {"62", "164", "452", "497"}
MEMORY_LIMIT, ROWS, TIMEOUT = "241", "396", "159"
STOP_TIMEOUT_S = 30


def ask(url: str, sql: str, *, role: str, params: Mapping[str, str] = NO_PARAMS) -> tuple[int, str]:
    """Status and ClickHouse's code, empty when it worked."""
    parts = urlsplit(url)
    with closing(http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)) as connection:
        known = {"X-ClickHouse-User": role, "X-ClickHouse-Key": f"{role} password"}
        connection.request("POST", "/?" + urlencode(params), sql.encode(), known)
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers.get("X-ClickHouse-Exception-Code", "")


@pytest.mark.parametrize("role", STORE_ROLES)
@pytest.mark.parametrize("one", STORE_TRIES, ids=lambda one: one.what)
def test_a_role_does_what_it_may_and_nothing_else(door: DoorUnderTest, store: Client, role: str, one: StoreTry) -> None:
    assert store.server_version
    status, code = ask(door.url, one.sql, role=role)

    if role in one.allowed:
        assert (status, code) == (200, "")
    else:
        assert status >= 400
        assert code in REFUSALS
    assert not Path("/tmp/kvandal-outfile").exists()  # noqa: S108 - what the tries would write


@pytest.mark.parametrize("role", ["reports", "grafana"])
@pytest.mark.parametrize(
    ("sql", "limit", "code"),
    [
        ("SELECT sleepless FROM (SELECT sum(number) AS sleepless FROM numbers(1000000000000))",
         {"max_execution_time": "1"}, TIMEOUT),
        ("SELECT uniqExact(number) FROM numbers(100000000)", {"max_memory_usage": str(32 << 20)}, MEMORY_LIMIT),
        ("SELECT number FROM numbers(100000000)", {"max_result_rows": "1000"}, ROWS),
        ("SELECT toString(number) || repeat('x', 100000) FROM numbers(1000)", {"max_result_bytes": str(1 << 20)}, ROWS),
    ],
    ids=["time", "memory", "rows", "bytes"],
)  # fmt: skip
def test_what_a_query_takes_is_bounded(
    door: DoorUnderTest, role: str, sql: str, limit: dict[str, str], code: str
) -> None:
    # The roles' own limits are of the same kind, only too high to be reached in a test; they can only be lowered.
    assert ask(door.url, sql, role=role, params=limit)[1] == code


# Behind TLS


@dataclass(frozen=True, slots=True)
class TlsDoor:
    port: int
    authority: Authority

    @property
    def address(self) -> StoreAddress:
        url = f"https://127.0.0.1:{self.port}"
        return StoreAddress(url, "reports", "a password from a file", "plant", str(self.authority.ca_file))


@pytest.fixture(scope="module")
def tls_door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsDoor]:
    folder = tmp_path_factory.mktemp("tls-door")
    authority = Authority(folder / "tls")
    signed = authority.sign("kvandal-store")
    secret = folder / "reports.password"
    secret.write_text("a password from a file\n")
    command = [
        sys.executable, "-m", "storage.door", "--path", str(folder / "store"), "--database", "plant",
        "--certificate", str(signed.certificate_file), "--key", str(signed.key_file),
    ]  # fmt: skip
    process = subprocess.Popen(
        tied_to_parent(command), env=os.environ | {"KVANDAL_REPORTS_PASSWORD_FILE": str(secret)},
        stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None
    with process.stdout as answer:
        yield TlsDoor(int(answer.readline()), authority)
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_TIMEOUT_S) == 0


def test_a_client_that_trusts_the_door_s_authority_reads_over_tls(tls_door: TlsDoor) -> None:
    with closing(connect(tls_door.address)) as client:
        assert client.command("SELECT 6 * 7") == 42
        assert len(client.query("SELECT number FROM numbers(200000)").result_rows) == 200_000


def test_a_client_that_does_not_trust_it_sends_nothing(tls_door: TlsDoor, tmp_path: Path) -> None:
    known = tls_door.address
    for ca_file in ("", str(Authority(tmp_path, "another one").ca_file)):
        with pytest.raises(StoreUnavailableError, match="certificate"):
            connect(StoreAddress(known.url, known.user, known.password, known.database, ca_file))


def test_a_client_without_tls_is_not_answered(tls_door: TlsDoor) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", tls_door.port, timeout=60)) as connection:
        connection.request("GET", "/ping")
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            connection.getresponse()


def test_a_client_that_never_shakes_hands_holds_up_nobody(tls_door: TlsDoor) -> None:
    with socket.create_connection(("127.0.0.1", tls_door.port)), closing(connect(tls_door.address)) as client:
        assert client.command("SELECT 1") == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "would carry passwords in clear; give a certificate"),  # noqa: S104
        (["--certificate", "/nowhere.pem", "--key", "/nowhere.key"], "cannot be used: No such file"),
    ],
)
def test_a_door_that_would_not_be_safe_does_not_open(tmp_path: Path, options: list[str], said: str) -> None:
    command = [sys.executable, "-m", "storage.door", "--path", str(tmp_path / "store"), *options]
    done = subprocess.run(
        tied_to_parent(command), env=os.environ | {"KVANDAL_REPORTS_PASSWORD": "x"},
        capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
    )  # fmt: skip

    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
