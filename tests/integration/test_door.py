"""The HTTP door over the real embedded engine, spoken to by clickhouse-connect and curl as a server is."""

import gzip
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlencode

import numpy as np
import pytest

from storage.door_request import InsertHead, split_insert

pytest.importorskip("chdb")
clickhouse_connect = pytest.importorskip("clickhouse_connect")
from clickhouse_connect.driver.client import Client  # noqa: E402 — only where it is installed
from clickhouse_connect.driver.exceptions import DatabaseError  # noqa: E402

ROOT = Path(__file__).parents[2]
DATABASE = "plant"
START_TIMEOUT_S = 30
ACCESS_DENIED, READONLY, CONSTRAINT = 497, 164, 452


@dataclass(frozen=True, slots=True)
class RunningDoor:
    """A door in a process of its own: one process can have only one engine."""

    port: int
    path: Path
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def connect(self, role: str, *, compress: bool | str = True) -> Client:
        client: Client = clickhouse_connect.get_client(
            host="127.0.0.1",
            port=self.port,
            username=role,
            password=f"{role} password",
            compress=compress,
            # Several threads use one client here, and the door has no sessions.
            autogenerate_session_id=False,
        )
        return client

    def request(
        self,
        sql: str,
        *,
        body: bytes = b"",
        role: str = "reports",
        headers: Mapping[str, str] = MappingProxyType({}),
        params: Mapping[str, str] = MappingProxyType({}),
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        known = {"X-ClickHouse-User": role, "X-ClickHouse-Key": f"{role} password"}
        connection.request("POST", "/?" + urlencode({"query": sql, **params}), body, known | dict(headers))
        response = connection.getresponse()
        answer = response.status, dict(response.getheaders()), response.read()
        connection.close()
        return answer


def door_command(path: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "storage.door", "--path", str(path), "--database", DATABASE, *options]


def door_environment(*roles: str) -> dict[str, str]:
    passwords = {f"KVANDAL_{role.upper()}_PASSWORD": f"{role} password" for role in roles}
    return os.environ | passwords | {"PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDoor]:
    path = tmp_path_factory.mktemp("store")
    process = subprocess.Popen(
        door_command(path, "--anonymous", "reports", "--memory-limit-bytes", str(4 << 30)),
        env=door_environment("ingest", "reports", "grafana", "admin"),
        stdout=subprocess.PIPE,
        text=True,
        cwd=path,
    )
    assert process.stdout is not None
    yield RunningDoor(int(process.stdout.readline()), path, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(START_TIMEOUT_S) == 0


@pytest.fixture(scope="module")
def admin(door: RunningDoor) -> Client:
    return door.connect("admin")


@pytest.fixture(scope="module")
def readings(admin: Client) -> str:
    admin.command(
        "CREATE TABLE readings (gpu UInt32, tick DateTime, power UInt16) ENGINE = MergeTree ORDER BY (gpu, tick) "
        "SETTINGS non_replicated_deduplication_window = 1000"
    )
    admin.command(
        "CREATE TABLE readings_total (gpu UInt32, power SimpleAggregateFunction(sum, UInt64)) "
        "ENGINE = AggregatingMergeTree ORDER BY gpu SETTINGS non_replicated_deduplication_window = 1000"
    )
    admin.command(
        "CREATE MATERIALIZED VIEW readings_to_total TO readings_total AS "
        "SELECT gpu, toUInt64(sum(power)) AS power FROM readings GROUP BY gpu"
    )
    return "readings"


def native_block(columns: dict[str, tuple[str, np.ndarray]]) -> bytes:
    rows = len(next(iter(columns.values()))[1])
    parts = [varint(len(columns)), varint(rows)]
    for name, (kind, values) in columns.items():
        parts += [varint(len(name)), name.encode(), varint(len(kind)), kind.encode(), values.tobytes()]
    return b"".join(parts)


def varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def readings_block(rows: int, *, first_gpu: int = 0) -> bytes:
    return native_block(
        {
            "gpu": ("UInt32", np.arange(first_gpu, first_gpu + rows, dtype="<u4")),
            "tick": ("DateTime", np.full(rows, 1_750_000_000, "<u4")),
            "power": ("UInt16", np.full(rows, 700, "<u2")),
        }
    )


def refusal_code(error: pytest.ExceptionInfo[DatabaseError]) -> int | None:
    return error.value.code


# What clients do


@pytest.mark.parametrize("compress", [True, False, "gzip", "zstd", "lz4"])
def test_client_connects_and_reads_whatever_it_negotiates(door: RunningDoor, *, compress: bool | str) -> None:
    client = door.connect("reports", compress=compress)
    assert client.ping()
    assert str(client.server_version).startswith("26.")
    assert client.command("SELECT 41 + 1") == 42
    result = client.query("SELECT number, toString(number) AS text FROM numbers(3)")
    assert result.result_rows == [(0, "0"), (1, "1"), (2, "2")]
    assert result.column_names == ("number", "text")


@pytest.mark.parametrize("compress", [False, "gzip", "zstd", "lz4"])
def test_inserted_columns_come_back(door: RunningDoor, admin: Client, *, compress: bool | str) -> None:
    table = f"columns_{compress}".lower()
    admin.command(f"CREATE TABLE {table} (id UInt32, name String) ENGINE = MergeTree ORDER BY id")
    client = door.connect("ingest", compress=compress)
    summary = client.insert(table, [[1, 2], ["a", "ø"]], column_names=["id", "name"], column_oriented=True)
    assert summary.written_rows == 2
    assert client.query("SELECT * FROM {t:Identifier} ORDER BY id", parameters={"t": table}).result_rows == [
        (1, "a"),
        (2, "ø"),
    ]


def test_arrow_polars_and_raw_results(door: RunningDoor) -> None:
    client = door.connect("reports")
    assert client.query_arrow("SELECT number FROM numbers(1000)").num_rows == 1000
    frame = client.query_df_arrow("SELECT number AS n FROM numbers(5)", dataframe_library="polars")
    assert frame["n"].to_list() == [0, 1, 2, 3, 4]
    assert client.raw_query("SELECT 1 AS one", fmt="JSONEachRow") == b'{"one":1}\n'


def test_parameters_are_bound_by_the_engine(door: RunningDoor) -> None:
    client = door.connect("grafana")
    text = "it's\ta \\ test; DROP TABLE readings"
    assert client.query("SELECT {t:String}, {n:UInt8}", parameters={"t": text, "n": 7}).result_rows == [(text, 7)]


def test_parameters_too_long_for_a_url_travel_as_a_form(door: RunningDoor) -> None:
    client = door.connect("reports")
    numbers = list(range(20_000))
    result = client.query("SELECT length({ids:Array(UInt32)})", parameters={"ids": numbers})
    assert result.result_rows == [(20_000,)]


def test_same_token_stores_rows_once_in_table_and_view(door: RunningDoor, admin: Client, readings: str) -> None:
    client = door.connect("ingest")
    for token in ("topic:0:0-1000", "topic:0:0-1000", "topic:0:1000-2000"):
        client.raw_insert(
            readings, insert_block=readings_block(1000), fmt="Native", settings={"insert_deduplication_token": token}
        )
    assert admin.query("SELECT count() FROM readings").first_row == (2000,)
    assert admin.query("SELECT sum(power) FROM readings_total").first_row == (2000 * 700,)


def test_token_of_one_insert_does_not_stay_for_the_next(door: RunningDoor, admin: Client) -> None:
    admin.command(
        "CREATE TABLE forgetful (id UInt32) ENGINE = MergeTree ORDER BY id "
        "SETTINGS non_replicated_deduplication_window = 9"
    )
    client = door.connect("ingest")
    client.insert("forgetful", [[1]], column_names=["id"], settings={"insert_deduplication_token": "a"})
    client.insert("forgetful", [[2]], column_names=["id"])
    assert admin.query("SELECT id FROM forgetful ORDER BY id").result_rows == [(1,), (2,)]


def test_readers_see_whole_inserts_while_one_inserts(door: RunningDoor, admin: Client) -> None:
    admin.command("CREATE TABLE busy (gpu UInt32, tick DateTime, power UInt16) ENGINE = MergeTree ORDER BY gpu")
    block_rows, blocks = 5_000, 20
    errors: list[Exception] = []
    counts: list[int] = []
    stop = threading.Event()

    def read() -> None:
        client = door.connect("reports")
        while not stop.is_set():
            try:
                counts.append(int(str(client.command("SELECT count() FROM busy"))))
            except DatabaseError as error:
                errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    writer = door.connect("ingest")
    for number in range(blocks):
        writer.raw_insert("busy", insert_block=readings_block(block_rows, first_gpu=number), fmt="Native")
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(counts) > 8
    assert all(count % block_rows == 0 for count in counts)
    assert admin.query("SELECT count() FROM busy").first_row == (blocks * block_rows,)


def test_large_insert_arrives_whole_in_every_encoding(door: RunningDoor, admin: Client) -> None:
    admin.command("CREATE TABLE large (gpu UInt32, tick DateTime, power UInt16) ENGINE = MergeTree ORDER BY gpu")
    block = readings_block(300_000)  # 3 MB: several chunks
    sql = "INSERT INTO large FORMAT Native"
    assert door.request(sql, body=block, role="ingest")[0] == 200
    assert (
        door.request(sql, body=gzip.compress(block, 1), role="ingest", headers={"Content-Encoding": "gzip"})[0] == 200
    )
    assert admin.query("SELECT count(), uniqExact(gpu) FROM large").first_row == (600_000, 300_000)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize(
    "arguments", [["{url}?query=SELECT+1"], ["--data-binary", "SELECT 1", "{url}"], ["-d", " 1", "{url}?query=SELECT"]]
)
def test_curl_reads_without_credentials(door: RunningDoor, arguments: list[str]) -> None:
    command = ["curl", "--silent", "--show-error", *(argument.format(url=door.url) for argument in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "1\n"


def test_insert_statement_may_stand_in_url_or_body(door: RunningDoor, admin: Client) -> None:
    admin.command("CREATE TABLE placed (id UInt32) ENGINE = MergeTree ORDER BY id")
    assert door.request("INSERT INTO placed FORMAT CSV", body=b"1\n2\n", role="ingest")[0] == 200
    assert door.request("", body=b"insert /* x */ into placed -- FORMAT\n values (3), (4)", role="ingest")[0] == 200
    assert door.request("INSERT INTO placed", body=b"SELECT id + 4 FROM placed", role="ingest")[0] == 200
    assert admin.query("SELECT count() FROM placed").first_row == (8,)


def test_answer_carries_clickhouse_headers(door: RunningDoor) -> None:
    status, headers, body = door.request(
        "SELECT number FROM numbers(3) FORMAT JSONEachRow", params={"query_id": "mine"}
    )
    assert status == 200
    assert body == b'{"number":0}\n{"number":1}\n{"number":2}\n'
    assert headers["X-ClickHouse-Format"] == "JSONEachRow"
    assert headers["X-ClickHouse-Query-Id"] == "mine"
    assert '"result_rows":"3"' in headers["X-ClickHouse-Summary"]
    assert headers["X-ClickHouse-Timezone"]


def test_connection_is_kept_after_an_error_in_an_unread_body(door: RunningDoor) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=30)
    for _ in range(2):
        connection.request("POST", "/?query=INSERT+INTO+nothing+FORMAT+CSV", b"1\n" * 1_000_000)
        assert connection.getresponse().read().startswith(b"Code: 164")
    connection.close()


# Errors


def test_error_has_clickhouse_code_status_and_text(door: RunningDoor) -> None:
    status, headers, body = door.request("SELECT * FROM absent_table")
    assert status == 404
    assert headers["X-ClickHouse-Exception-Code"] == "60"
    assert body.startswith(b"Code: 60. DB::Exception: ")
    assert b"(UNKNOWN_TABLE)" in body


def test_syntax_error_does_not_quote_our_own_sql(door: RunningDoor) -> None:
    status, _, body = door.request("SELEKT 1")
    assert status == 400
    assert b"formatQuery" not in body
    assert b"SYNTAX_ERROR" in body


def test_the_name_of_a_column_is_not_taken_for_settings(door: RunningDoor, admin: Client) -> None:
    admin.command("CREATE TABLE named (a UInt8, `b SETTINGS c` String) ENGINE = MergeTree ORDER BY a")
    sql = "INSERT INTO named (a, `b SETTINGS c`) SETTINGS insert_deduplication_token = 'x SETTINGS y' FORMAT CSV"
    assert door.request(sql, body=b"1,it\n", role="ingest")[0] == 200
    assert door.request("INSERT INTO named (COLUMNS('a|b SETTINGS c')) VALUES (2, 'too')", role="ingest")[0] == 200
    assert admin.query("SELECT * FROM named ORDER BY a").result_rows == [(1, "it"), (2, "too")]


def test_bad_data_are_refused_and_the_handle_still_works(door: RunningDoor, admin: Client) -> None:
    admin.command("CREATE TABLE strict (id UInt32) ENGINE = MergeTree ORDER BY id")
    assert door.request("INSERT INTO strict FORMAT CSV", body=b"not a number\n", role="ingest")[0] == 400
    encoded = {"Content-Encoding": "gzip"}
    assert door.request("INSERT INTO strict FORMAT CSV", body=b"no gzip", role="ingest", headers=encoded)[0] == 400
    assert door.request("INSERT INTO strict FORMAT CSV", body=b"1\n", role="ingest")[0] == 200
    assert admin.query("SELECT count() FROM strict").first_row == (1,)


def test_client_that_breaks_off_leaves_no_rows(door: RunningDoor, admin: Client) -> None:
    admin.command("CREATE TABLE broken_off (id UInt32) ENGINE = MergeTree ORDER BY id")
    head = "POST /?query=INSERT+INTO+broken_off+FORMAT+CSV HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
    with socket.create_connection(("127.0.0.1", door.port)) as connection:
        connection.sendall(
            f"{head}X-ClickHouse-User: ingest\r\nX-ClickHouse-Key: ingest password\r\n\r\n1\n2\n".encode()
        )
    time.sleep(0.5)
    assert admin.query("SELECT count() FROM broken_off").first_row == (0,)


@pytest.mark.parametrize(("user", "password"), [("reports", "wrong"), ("nobody", ""), ("", "x"), ("admin", "")])
def test_wrong_credentials_are_refused_alike(door: RunningDoor, user: str, password: str) -> None:
    headers = {"X-ClickHouse-User": user, "X-ClickHouse-Key": password}
    status, answer, body = door.request("SELECT 1", headers=headers)
    assert status in (401, 403)
    assert answer["X-ClickHouse-Exception-Code"] == "516"
    assert b"password is incorrect, or there is no such user" in body


def test_anonymous_role_is_only_for_requests_to_this_machine_by_name(door: RunningDoor) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=30)
    connection.request("GET", "/?query=SELECT+1", headers={"Host": "rebound.example:80"})
    assert connection.getresponse().status == 401
    connection.close()


def test_get_only_reads_whoever_asks(door: RunningDoor) -> None:
    query = urlencode(
        {"query": "CREATE TABLE g (a Int8) ENGINE = Memory", "user": "admin", "password": "admin password"}
    )
    connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=30)
    connection.request("GET", f"/?{query}")
    response = connection.getresponse()
    assert response.getheader("X-ClickHouse-Exception-Code") == str(READONLY)
    connection.close()


def test_unknown_database_is_named(door: RunningDoor) -> None:
    status, headers, _ = door.request("SELECT 1", params={"database": "other"})
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (404, "81")


def test_statement_length_has_a_limit(door: RunningDoor) -> None:
    long_list = ", ".join(map(str, range(100_000)))
    status, _, body = door.request("", body=f"SELECT 5 IN ({long_list})".encode())
    assert (status, body) == (200, b"1\n")
    status, headers, _ = door.request("", body=b"SELECT 1 -- " + b"x" * (1 << 20))
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (413, "223")


def test_deep_nesting_is_refused_and_the_door_still_answers(door: RunningDoor) -> None:
    for depth in (300, 5_000, 200_000):
        assert door.request("", body=b"SELECT " + b"(" * depth + b"1" + b")" * depth)[0] in (200, 400, 500)
        assert door.request("", body=b"SELECT " + b"[" * depth + b"]" * depth)[0] in (200, 400, 500)
    assert door.request("SELECT 1")[0] == 200


def test_nul_byte_hides_nothing(door: RunningDoor, tmp_path: Path) -> None:
    body = f"SELECT 1\0; SELECT 1 INTO OUTFILE '{tmp_path / 'out'}'".encode()
    assert door.request("", body=body)[0] == 400
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "headers",
    [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Content-Length: 3\r\nContent-Length: 40",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: xchunked",
        "Content-Length: +3",
    ],
)
def test_a_request_whose_length_is_not_clear_is_refused_and_what_follows_not_read(
    door: RunningDoor, headers: str
) -> None:
    smuggled = "3\r\nabc\r\n0\r\n\r\nGET /ping HTTP/1.1\r\n\r\n"
    answer = send_raw(door, f"POST /?query=SELECT+1 HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n{smuggled}")
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET http://[ HTTP/1.1", b"400"),
        ("GET /?query=SELECT+1 HTTP/1.1\r\nAuthorization: Basic \xe9", b"403"),
        ("GET /?query=SELECT+1 HTTP/1.1\r\nAuthorization: Basic YTpi\xe9", b"403"),
        ("GET /?query=SELECT+1 HTTP/1.1\r\nX-ClickHouse-User: \xff", b"401"),
    ],
)
def test_who_sends_what_is_no_request_is_told_so(door: RunningDoor, head: str, status: bytes) -> None:
    answer = send_raw(door, f"{head}\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.split(b" ")[1] == status


@pytest.mark.parametrize(
    "header", ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "Origin: http://a.example"]
)
def test_a_page_of_another_site_asks_nothing_without_a_password(door: RunningDoor, header: str) -> None:
    request = "GET /?query=SELECT+1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    assert send_raw(door, f"{request}\r\n").startswith(b"HTTP/1.1 200")
    assert send_raw(door, f"{request}{header}\r\n\r\n").startswith(b"HTTP/1.1 401")


def send_raw(door: RunningDoor, text: str) -> bytes:
    """All that comes back until the door hangs up."""
    with socket.create_connection(("127.0.0.1", door.port), timeout=30) as connection:
        connection.sendall(text.encode("latin-1"))
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def test_who_never_says_who_it_is_loses_the_connection_and_a_slow_insert_does_not(tmp_path: Path) -> None:
    script = """
import socket, sys, time
from pathlib import Path
from storage.door import Door
from storage.engine import Engine
from storage.roles import RoleName, make_role
PATIENCE_S = 0.5
with Engine.open(Path(sys.argv[1]), memory_limit_bytes=1 << 31) as engine:
    with Door.open(
        engine, [make_role(RoleName.INGEST, "secret")], database="plant", stranger_s=PATIENCE_S
    ) as door:
        engine.query("CREATE TABLE plant.slow (a UInt8) ENGINE = MergeTree ORDER BY a")
        with socket.create_connection(("127.0.0.1", door.port), timeout=60) as stranger:
            stranger.settimeout(0.1)
            sent = b"GET / HTTP/1.1\\r\\nX-Drip: "
            while True:
                try:
                    stranger.sendall(sent)
                    sent = b"x"
                    if stranger.recv(1) == b"":
                        break
                except TimeoutError:
                    continue
                except ConnectionError:
                    break
            print("hung up")
        with socket.create_connection(("127.0.0.1", door.port), timeout=60) as known:
            known.sendall(
                b"POST /?query=INSERT+INTO+slow+FORMAT+CSV HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 4\\r\\n"
                b"X-ClickHouse-User: ingest\\r\\nX-ClickHouse-Key: secret\\r\\n\\r\\n"
            )
            time.sleep(4 * PATIENCE_S)
            known.sendall(b"1\\n2\\n")
            print(known.recv(12).decode())
        print(engine.query("SELECT count() FROM plant.slow"))
"""
    assert run_script(script, tmp_path) == ["hung up", "HTTP/1.1 200", "b'2\\n'"]


# Limits


def test_query_over_its_time_is_stopped(door: RunningDoor) -> None:
    client = door.connect("grafana")
    with pytest.raises(DatabaseError) as error:
        client.query("SELECT count() FROM numbers(1000000000000)", settings={"max_execution_time": 1})
    assert refusal_code(error) == 159


def test_result_over_the_ceiling_is_refused(door: RunningDoor) -> None:
    client = door.connect("grafana")
    with pytest.raises(DatabaseError) as error:
        client.query("SELECT number FROM numbers(1000001)")
    assert refusal_code(error) == 396


@pytest.mark.parametrize("role", ["reports", "grafana", "ingest", "admin"])
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT repeat('x', 1000) FROM numbers(3000) FORMAT TSV",  # a constant counts once for the engine
        "SELECT number AS "
        + "n" * 1000
        + " FROM numbers(3000) FORMAT JSONEachRow",  # and its columns' names not at all
        "SELECT repeat('\\0', 1000) FROM numbers(600) FORMAT JSONEachRow",  # each byte becomes six
    ],
    ids=["constant", "names", "escapes"],
)
def test_what_a_result_takes_as_it_is_written_is_bounded(door: RunningDoor, role: str, sql: str) -> None:
    bound = {"max_result_bytes": str(2 << 20)}
    status, headers, body = door.request(sql, role=role, params=bound)
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (500, "396"), body[:200]
    assert len(body) < 1000
    assert door.request("SELECT 1", role=role, params=bound)[2] == b"1\n"


@pytest.mark.parametrize(
    "setting", ["max_execution_time", "max_memory_usage", "max_result_rows", "max_result_bytes", "max_threads"]
)
@pytest.mark.parametrize("value", ["0", "99999999999999999", "-1", "1e99"])
def test_limit_can_only_be_lowered(door: RunningDoor, setting: str, value: str) -> None:
    assert door.request("SELECT 1", role="grafana", params={setting: value})[0] == 403
    sql = "SELECT * FROM (SELECT 1 SETTINGS max_threads = '0')".replace("max_threads", setting).replace("0", value)
    status, _, body = door.request(sql, role="grafana")
    assert status == 403, body


def test_queries_beyond_the_handles_wait_and_then_are_turned_away(tmp_path: Path) -> None:
    script = """
import sys, threading, time
from pathlib import Path
from storage.engine import Engine, HandlePool, PoolExhaustedError
with Engine.open(Path(sys.argv[1]), memory_limit_bytes=None) as engine:
    pool = HandlePool(engine, 1, {})
    with pool.borrow(1.0) as handle:
        started = time.monotonic()
        try:
            with pool.borrow(0.2):
                print("lent twice")
        except PoolExhaustedError as error:
            print("refused", time.monotonic() - started >= 0.2)
    with pool.borrow(0.2) as handle:
        print(handle.query("SELECT 1").body)
    pool.close(1.0)
"""
    assert run_script(script, tmp_path) == ["refused True", "b'1\\n'"]


def run_script(script: str, *arguments: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


# What is refused

EVERY_ROLE = ["reports", "grafana", "ingest", "admin"]
READING_ROLES = ["reports", "grafana"]
REACHING_OUT = [
    "SELECT * FROM file('/etc/passwd', 'LineAsString')",
    "select * from FiLe('/etc/passwd', LineAsString)",
    "SELECT/**/*/* x */FROM/**/file/*(*/('/etc/passwd', 'LineAsString')",
    "SELECT * FROM `file`('/etc/passwd', 'LineAsString')",
    "SELECT * FROM \"file\"('/etc/passwd', 'LineAsString')",
    "FROM file('/etc/passwd', 'LineAsString') SELECT *",
    "WITH secret AS (SELECT * FROM file('/etc/passwd', 'LineAsString')) SELECT * FROM secret",
    "SELECT (SELECT count() FROM (SELECT * FROM file('/etc/passwd', 'LineAsString')))",
    "SELECT 1 WHERE 1 IN (SELECT count() FROM file('/etc/passwd', 'LineAsString'))",
    "SELECT 1 UNION ALL SELECT count() FROM file('/etc/passwd', 'LineAsString')",
    "SELECT * FROM view(SELECT * FROM file('/etc/passwd', 'LineAsString'))",
    "SELECT * FROM numbers(1) AS a JOIN file('/etc/passwd', 'LineAsString') AS b ON 1 = 1",
    "EXPLAIN SELECT * FROM file('/etc/passwd', 'LineAsString')",
    "DESCRIBE file('/etc/passwd', 'LineAsString')",
    "DESCRIBE TABLE (SELECT * FROM file('/etc/passwd', 'LineAsString'))",
    "SELECT file('/etc/passwd')",
    "SELECT arrayMap(x -> file(x), ['/etc/passwd'])",
    "SELECT arrayMap(file, ['/etc/passwd'])",
    "SELECT * APPLY file FROM (SELECT '/etc/passwd')",
    "SELECT * APPLY(x -> file(x)) FROM (SELECT '/etc/passwd')",
    "WITH (x -> file(x)) AS f SELECT f('/etc/passwd')",
    "SELECT * FROM default.`/etc/passwd`",
    "SELECT * FROM `/etc/passwd`",
    "SELECT * FROM '/etc/passwd'",
    "SELECT 1 IN default.`/etc/passwd`",
    "SELECT in(1, default.`/etc/passwd`)",
    "WITH default.`/etc/passwd` AS t SELECT 1 IN t",
    "SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'a Int8')",
    "SELECT * FROM s3('http://127.0.0.1:1/x.csv')",
    "SELECT * FROM remote('127.0.0.1', system.one)",
    "SELECT * FROM cluster('default', system.one)",
    "SELECT * FROM mysql('127.0.0.1:1', 'd', 't', 'u', 'p')",
    "SELECT * FROM postgresql('127.0.0.1:1', 'd', 't', 'u', 'p')",
    "SELECT * FROM sqlite('/tmp/x', 't')",
    "SELECT * FROM executable('id', 'CSV', 'a String')",
    "SELECT * FROM Python(sys)",
    "SELECT * FROM python(sys)",
    "SELECT * FROM merge('system', 'one')",
    "SELECT * FROM loop(system.one)",
    "SELECT * FROM input('a Int8')",
    "SELECT hostName()",
    "SELECT FQDN()",
    "SELECT arrayMap(x -> fullHostName(), [1])",
    "SELECT logTrace('a line of the log')",
    "SELECT showCertificate()",
    "SELECT getOSKernelVersion()",
    "SELECT path FROM system.disks",
    "SELECT hasColumnInTable('127.0.0.1', 'default', '', 'system', 'one', 'dummy')",
    "SELECT 1 INTO OUTFILE '{outfile}'",
    "SELECT 1 INTO/**/outfile '{outfile}' FORMAT CSV",
    "SELECT 1 UNION ALL SELECT 2 INTO OUTFILE '{outfile}'",
    "EXPLAIN SELECT 1 INTO OUTFILE '{outfile}'",
    "SHOW TABLES INTO OUTFILE '{outfile}'",
    "DESCRIBE TABLE system.one INTO OUTFILE '{outfile}'",
    "SELECT 1; SELECT 1 INTO OUTFILE '{outfile}'",
    "SELECT 1 -- ' \n ; SELECT 1 INTO OUTFILE '{outfile}'",
    "EXPLAIN AST SELECT 1; SELECT 1 INTO OUTFILE '{outfile}'",
    "SELECT 1 FORMAT DataFrame",
    "SELECT 1 FORMAT Template SETTINGS format_template_resultset = '/etc/passwd'",
    "SELECT 1 FORMAT CSV SETTINGS output_format_schema = '{outfile}'",
    "INSERT INTO FUNCTION file('{outfile}', 'CSV', 'a Int8') SELECT 1",
    "INSERT INTO TABLE FUNCTION file('{outfile}', 'CSV', 'a Int8') VALUES (1)",
    "INSERT INTO readings FROM INFILE '/etc/passwd' FORMAT CSV",
    "INSERT INTO readings SELECT 1, 1, count() FROM file('/etc/passwd', 'LineAsString')",
    "INSERT INTO system.one VALUES (1)",
    "CREATE VIEW sneaky AS SELECT * FROM file('/etc/passwd', 'LineAsString')",
    "CREATE MATERIALIZED VIEW sneaky ENGINE = Memory AS SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'a Int8')",
    "CREATE TABLE sneaky AS file('/etc/passwd', 'LineAsString')",
    "CREATE TABLE sneaky (a String) ENGINE = File(LineAsString, '/etc/passwd')",
    "CREATE TABLE sneaky (a String) ENGINE = URL('http://127.0.0.1:1/', 'CSV')",
    "CREATE TABLE sneaky (a String ALIAS file('/etc/passwd')) ENGINE = Memory",
    "CREATE TABLE sneaky (a UInt8) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = local, path = '/tmp/')",
    "ALTER TABLE readings MODIFY SETTING disk = 'x'",
    "ALTER TABLE readings MODIFY COLUMN power DEFAULT length(file('/etc/passwd'))",
    "SELECT 1 PARALLEL WITH SELECT * FROM file('/etc/passwd', 'LineAsString')",
    "SELECT arrayMap({{fn:Identifier}}, ['/etc/passwd'])",
    "SELECT * FROM {{fn:Identifier}}.`/etc/passwd`",
    "CREATE DATABASE sneaky ENGINE = Filesystem('/etc')",
    "CREATE DICTIONARY sneaky (a UInt64) PRIMARY KEY a SOURCE(FILE(PATH '/etc/passwd' FORMAT 'CSV')) LAYOUT(FLAT())",
    "CREATE FUNCTION sneaky AS x -> file(x)",
    "CREATE USER sneaky",
    "GRANT ALL ON *.* TO default",
    "SYSTEM SHUTDOWN",
    "SYSTEM RELOAD CONFIG",
    "ATTACH TABLE sneaky FROM '/tmp/x' (a UInt8) ENGINE = MergeTree ORDER BY a",
    "DETACH TABLE readings",
    "BACKUP TABLE readings TO File('{outfile}')",
    "KILL QUERY WHERE 1",
    "SET max_threads = 1",
    "USE system",
    "EXECUTE AS default SELECT 1",
    "SELECT * FROM system.processes",
    "SELECT * FROM system.query_log",
    "SELECT * FROM {{db:Identifier}}.processes",
    "SELECT 1 SETTINGS readonly = 0",
    "SELECT 1 SETTINGS max_result_rows = DEFAULT",
    "SELECT 1 SETTINGS implicit_select = 1",
]


@pytest.mark.parametrize("role", EVERY_ROLE)
@pytest.mark.parametrize("sql", REACHING_OUT)
def test_nobody_reaches_out_of_the_store(door: RunningDoor, readings: str, tmp_path: Path, role: str, sql: str) -> None:
    assert readings
    outfile = tmp_path / "out"
    status, headers, body = door.request(
        sql.format(outfile=outfile), role=role, params={"param_db": "system", "param_fn": "file"}
    )
    assert status >= 400, body
    # Refused by the role or the parser, not tried and failed.
    assert int(headers["X-ClickHouse-Exception-Code"]) in (ACCESS_DENIED, READONLY, CONSTRAINT, 62, 81), body
    assert not outfile.exists()


@pytest.mark.parametrize("role", READING_ROLES)
@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO readings VALUES (1, 1, 1)",
        "INSERT INTO readings SELECT 1, 1, 1",
        "WITH 1 AS x INSERT INTO readings SELECT x, 1, 1",
        "CREATE TABLE t (a Int8) ENGINE = Memory",
        "CREATE TEMPORARY TABLE t (a Int8)",
        "CREATE VIEW v AS SELECT 1",
        "DROP TABLE readings",
        "TRUNCATE TABLE readings",
        "ALTER TABLE readings DELETE WHERE 1",
        "DELETE FROM readings WHERE 1",
        "OPTIMIZE TABLE readings FINAL",
        "RENAME TABLE readings TO taken",
    ],
)
def test_reading_roles_change_nothing(door: RunningDoor, readings: str, role: str, sql: str) -> None:
    assert readings
    _, headers, _ = door.request(sql, role=role)
    assert int(headers["X-ClickHouse-Exception-Code"]) in (READONLY, ACCESS_DENIED)


@pytest.mark.parametrize(
    "sql", ["CREATE TABLE t (a Int8) ENGINE = Memory", "DROP TABLE readings", "ALTER TABLE readings DELETE WHERE 1"]
)
def test_ingest_leaves_the_schema_alone(door: RunningDoor, readings: str, sql: str) -> None:
    assert readings
    _, headers, _ = door.request(sql, role="ingest")
    assert int(headers["X-ClickHouse-Exception-Code"]) == ACCESS_DENIED


def test_inserted_values_are_not_expressions(door: RunningDoor, admin: Client) -> None:
    admin.command("CREATE TABLE texts (text String) ENGINE = MergeTree ORDER BY text")
    for value in ("file('/etc/passwd')", "(SELECT 'x')", "concat('a', 'b')", "assumeNotNull(file('/etc/passwd'))"):
        assert door.request("INSERT INTO texts VALUES", body=f"({value})".encode(), role="ingest")[0] >= 400
    assert admin.query("SELECT text FROM texts").result_rows == []


@pytest.mark.parametrize("setting", ["async_insert=1", "insert_deduplicate_x=1", "user_files_path=/", "readonly=0"])
def test_settings_outside_the_list_are_refused(door: RunningDoor, setting: str) -> None:
    name, value = setting.split("=")
    status, headers, _ = door.request("SELECT 1", role="ingest", params={name: value})
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (403, str(CONSTRAINT))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count() FROM readings",
        "SELECT count() FROM plant.readings AS r WHERE r.gpu IN (SELECT gpu FROM readings_total)",
        "WITH top AS (SELECT gpu FROM readings LIMIT 3) SELECT * FROM top",
        "SELECT 'INTO OUTFILE', 'file(1)' -- file('/etc/passwd')",
        "SELECT name FROM system.tables WHERE database = currentDatabase()",
        "SELECT * FROM {t:Identifier} LIMIT 1",
        "SHOW TABLES",
        "SHOW CREATE TABLE readings",
        "DESCRIBE TABLE readings",
        "EXISTS TABLE readings",
        "EXPLAIN indexes = 1 SELECT * FROM readings WHERE gpu = 1",
        "SELECT quantile(0.5)(power), sum(power) OVER (PARTITION BY gpu) FROM readings GROUP BY gpu, power",
        "SELECT * FROM readings ORDER BY gpu LIMIT 1 BY gpu SETTINGS max_threads = 1 FORMAT JSONCompact",
        "(SELECT 1) UNION ALL (SELECT 2);",
    ],
)
@pytest.mark.parametrize("role", READING_ROLES)
def test_ordinary_reading_is_allowed(door: RunningDoor, readings: str, role: str, sql: str) -> None:
    status, _, body = door.request(sql, role=role, params={"param_t": readings})
    assert status == 200, body


# The process


def test_second_process_on_the_same_path_is_told_who_has_it(door: RunningDoor) -> None:
    done = subprocess.run(
        door_command(door.path), env=door_environment("reports"), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"The data directory {door.path} is in use by process {door.process.pid}; "
        "stop that process or give another directory.\n"
    )


def test_port_in_use_is_one_clear_sentence(door: RunningDoor, tmp_path: Path) -> None:
    command = door_command(tmp_path, "--port", str(door.port))
    done = subprocess.run(command, env=door_environment("reports"), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == (
        f"The door cannot listen on 127.0.0.1:{door.port} (Address already in use); "
        "stop what does or give another port.\n"
    )


def test_engine_and_clickhouse_connect_share_one_process(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
import clickhouse_connect
from storage.door import Door
from storage.engine import Engine, EngineUnavailableError
from storage.roles import RoleName, make_role
path = Path(sys.argv[1])
with Engine.open(path / "." / "store", memory_limit_bytes=1 << 31) as engine:
    with Door.open(engine, [make_role(RoleName.REPORTS, "secret")], database="plant") as door:
        inside = clickhouse_connect.get_client(interface="chdb", path=str(engine.path), database="plant")
        inside.command("CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a")
        inside.raw_insert("t", insert_block=b"7\\n", fmt="CSV")
        outside = clickhouse_connect.get_client(
            host="127.0.0.1", port=door.port, username="reports", password="secret"
        )
        print(outside.query("SELECT a FROM t").result_rows)
        try:
            Engine.open(path / "other", memory_limit_bytes=None)
        except EngineUnavailableError as error:
            print("already has an engine" in str(error))
    inside.close()
with Engine.open(path / "other", memory_limit_bytes=None) as engine:
    print(engine.query("SELECT 2"))
"""
    assert run_script(script, tmp_path) == ["[(7,)]", "True", "b'2\\n'"]


def test_directory_that_cannot_be_made_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = subprocess.run(
        door_command(tmp_path / "file"), env=door_environment("reports"), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert (
        done.stderr == f"The data directory {tmp_path / 'file'} cannot be made (File exists); give another directory.\n"
    )


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"INSERT INTO t FORMAT Native\n\x02\x01", InsertHead("INSERT INTO t ", "Native", 28)),
        (b"INSERT INTO t FORMAT RowBinary\n\n\n", InsertHead("INSERT INTO t ", "RowBinary", 31)),
        (b"insert into t (`values`, b) values(1, 2)", InsertHead("insert into t (`values`, b) ", "Values", 34)),
        (b"/* SELECT */ INSERT INTO t VALUES (1)", InsertHead("/* SELECT */ INSERT INTO t ", "Values", 33)),
        (b"INSERT INTO t SELECT 'FORMAT CSV'", None),
        (b"SELECT 1 FORMAT CSV", None),
        (b"INSERT INTO t", None),
        (b"", None),
    ],
)
def test_data_of_an_insert_begin_where_clickhouse_begins_them(head: bytes, expected: InsertHead | None) -> None:
    assert split_insert(head) == expected
