"""An HTTP door to the embedded engine that speaks ClickHouse's HTTP interface.

clickhouse-connect, clickhouse-go and curl use it as they use a server. What differs: answers are never compressed,
sessions and query ids are accepted and ignored, external data is refused, and a result is complete in memory before its
first byte leaves (so an error always has its own status), which is why every role has a ceiling on it.
"""

import argparse
import json
import logging
import math
import os
import re
import signal
import socket
import ssl
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self, cast
from urllib.parse import parse_qsl, urlsplit

from storage.desk import Call, Desk
from storage.door_request import CHUNK_BYTES, Body, decode_body, read_form
from storage.engine import Answer, Engine, EngineUnavailableError, ErrorCode, QueryRefusedError, quote_identifier
from storage.reception import Reception, is_local_name, is_loopback, is_no_other_site, read_credentials, read_passwords
from storage.roles import Role, RoleName, make_role

_log = logging.getLogger(__name__)

_DRAIN_BYTES = 64 << 20  # read away after an error, so that the client gets to read it; beyond, the connection closes
_CONNECTIONS = 128
_IDLE_TIMEOUT_S = 60.0
# Within this a connection has to say who it is, however busily it sends: otherwise a few that drip keep all others out.
_STRANGER_S = 60.0
_DISPLAY_NAME = "kvandal"
_STATUS_OF_CODE: Mapping[int, HTTPStatus] = {
    **dict.fromkeys((6, 26, 27, 33, 36, 38, 41, 42, 43, 44, 53, 62, 69, 70, 72, 115, 117, 456, 457), HTTPStatus(400)),
    **dict.fromkeys((16, 46, 47, 50, 60, 73, 81), HTTPStatus(404)),
    ErrorCode.NOT_IMPLEMENTED: HTTPStatus(501),
    ErrorCode.TIMEOUT_EXCEEDED: HTTPStatus(408),
    ErrorCode.READONLY: HTTPStatus(403),
    ErrorCode.SETTING_CONSTRAINT_VIOLATION: HTTPStatus(403),
    ErrorCode.ACCESS_DENIED: HTTPStatus(403),
    ErrorCode.AUTHENTICATION_FAILED: HTTPStatus(403),
    ErrorCode.QUERY_IS_TOO_LARGE: HTTPStatus(413),
    ErrorCode.TOO_MANY_SIMULTANEOUS_QUERIES: HTTPStatus(503),
    ErrorCode.NETWORK_ERROR: HTTPStatus(503),
}
_CONTENT_TYPES: Sequence[tuple[str, str]] = (
    ("JSONEachRow", "application/x-ndjson; charset=UTF-8"),
    ("JSON", "application/json; charset=UTF-8"),
    ("CSV", "text/csv; charset=UTF-8"),
    ("TabSeparated", "text/tab-separated-values; charset=UTF-8"),
    ("TSV", "text/tab-separated-values; charset=UTF-8"),
    ("Native", "application/octet-stream"),
    ("RowBinary", "application/octet-stream"),
    ("Arrow", "application/octet-stream"),
    ("Parquet", "application/octet-stream"),
    ("", "text/plain; charset=UTF-8"),
)


class PortInUseError(OSError):
    """Another process listens on the door's port."""


@dataclass(frozen=True, slots=True)
class DoorCertificate:
    """With what the door shows who it is: files in PEM, the certificate with its chain."""

    certificate_file: Path
    key_file: Path

    def context(self) -> ssl.SSLContext:
        """Raises `ValueError` with one sentence when a file cannot be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            # An encrypted key would make OpenSSL ask a terminal; nobody is there to answer.
            context.load_cert_chain(self.certificate_file, self.key_file, password="")
        except (OSError, ssl.SSLError) as error:
            why = error.reason if isinstance(error, ssl.SSLError) else error.strerror
            files = f"The door's certificate {self.certificate_file} and key {self.key_file}"
            raise ValueError(f"{files} cannot be used: {why or 'they are not PEM'}.") from error
        return context


def _find_content_type(result_format: str) -> str:
    return next(content_type for prefix, content_type in _CONTENT_TYPES if result_format.startswith(prefix))


def _summarize(answer: Answer) -> str:
    return json.dumps(
        {
            "read_rows": str(answer.read_rows),
            "read_bytes": str(answer.read_bytes),
            "written_rows": str(answer.written_rows),
            "written_bytes": str(answer.written_bytes),
            "total_rows_to_read": str(answer.read_rows),
            "result_rows": str(answer.result_rows or answer.written_rows),
            "result_bytes": str(len(answer.body) or answer.written_bytes),
            "elapsed_ns": str(round(answer.elapsed_s * 1e9)),
        },
        separators=(",", ":"),
    )


class _Handler(BaseHTTPRequestHandler):
    """One connection of one client, in a thread of its own."""

    server: "_Server"
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_TIMEOUT_S
    # Headers and body leave in two writes; without this the second waits for the client's delayed acknowledgement.
    disable_nagle_algorithm = True

    def handle_one_request(self) -> None:
        self.server.await_name(self.connection)
        super().handle_one_request()

    def do_GET(self) -> None:
        self._serve(readonly=True)

    def do_POST(self) -> None:
        self._serve(readonly=False)

    def version_string(self) -> str:
        return _DISPLAY_NAME

    def log_message(self, _format: str, *_arguments: object) -> None:
        # The request line can hold a password and a statement.
        _log.debug("HTTP request handled", extra={"client": self.client_address[0], "method": self.command})

    def _serve(self, *, readonly: bool) -> None:
        body = self._open_body()
        if body is None:
            return
        try:
            self._dispatch(body, readonly=readonly)
            self._drain(body)
        except QueryRefusedError as refusal:
            self._drain(body)
            self._send_refusal(refusal.code, refusal.message)
        except EngineUnavailableError as error:
            self._drain(body)
            self._send_refusal(ErrorCode.NETWORK_ERROR, f"Code: 210. DB::NetException: {error} (NETWORK_ERROR)")
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _open_body(self) -> Body | None:
        lengths = self.headers.get_all("Content-Length", [])
        codings = self.headers.get_all("Transfer-Encoding", [])
        # Two that say it, or one that another reader takes otherwise, is how one request is smuggled inside another.
        clear = len(lengths) + len(codings) <= 1 and all(re.fullmatch(r"[0-9]{1,18}", length) for length in lengths)
        if not clear or not all(coding.lower() == "chunked" for coding in codings):
            self.close_connection = True
            self._send(HTTPStatus.BAD_REQUEST, b"The request's length is not clear.\n", {})
            return None
        return Body(self.rfile, None if codings else int(lengths[0]) if lengths else 0)

    def _dispatch(self, body: Body, *, readonly: bool) -> None:
        try:
            url = urlsplit(self.path)
            params = dict(parse_qsl(url.query, keep_blank_values=True))
        except ValueError:
            self._send(HTTPStatus.BAD_REQUEST, b"The request's address is none.\n", {})
            return
        if url.path in ("/ping", "/replicas_status") or (url.path == "/" and readonly and not params):
            self._send(HTTPStatus.OK, b"Ok.\n", {"Content-Type": "text/html; charset=UTF-8"})
        elif url.path != "/":
            self._send(HTTPStatus.NOT_FOUND, f"There is no handle {url.path}\n".encode(), {})
        else:
            self._answer(params, body, readonly=readonly)

    def _answer(self, params: dict[str, str], body: Body, *, readonly: bool) -> None:
        user, password = read_credentials(self.headers, params)
        local = is_local_name(self.headers.get("Host", "")) and is_no_other_site(self.headers)
        role = self.server.reception.admit(user, password, local=local)
        self.server.know_name(self.connection)
        decoded = decode_body(body, self.headers.get("Content-Encoding", ""))
        content_type = self.headers.get("Content-Type", "")
        if content_type.startswith("multipart/form-data"):
            params |= read_form(content_type, decoded)
        for name, header in (("database", "X-ClickHouse-Database"), ("default_format", "X-ClickHouse-Format")):
            params.setdefault(name, self.headers.get(header, ""))
        reply = self.server.desk.answer(Call(role, params, decoded, readonly))
        query_id = params.get("query_id") or str(uuid.uuid4())
        headers = {"X-ClickHouse-Query-Id": query_id, "X-ClickHouse-Summary": _summarize(reply.answer)}
        if reply.format is not None:
            headers |= {"X-ClickHouse-Format": reply.format, "Content-Type": _find_content_type(reply.format)}
        self._send(HTTPStatus.OK, reply.answer.body, headers)

    def _send_refusal(self, code: int, message: str) -> None:
        status = _STATUS_OF_CODE.get(code, HTTPStatus.INTERNAL_SERVER_ERROR)
        headers = {"X-ClickHouse-Exception-Code": str(code)}
        if code == ErrorCode.AUTHENTICATION_FAILED and "Authorization" not in self.headers:
            status = HTTPStatus.UNAUTHORIZED
            headers["WWW-Authenticate"] = 'Basic realm="ClickHouse server HTTP API"'
        text = f"{message} (version {self.server.engine_version} (embedded))\n"
        self._send(status, text.encode(errors="replace"), headers)

    def _send(self, status: HTTPStatus, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "text/plain; charset=UTF-8"} | dict(headers)).items():
            self.send_header(name, re.sub(r"[^\x20-\x7e]", "", value))
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-ClickHouse-Server-Display-Name", _DISPLAY_NAME)
        self.send_header("X-ClickHouse-Timezone", self.server.timezone)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _drain(self, body: Body) -> None:
        left = _DRAIN_BYTES
        while left > 0 and not body.is_read:
            part = body.read(min(left, CHUNK_BYTES))
            left -= len(part or b"")
        self.close_connection = self.close_connection or not body.is_read


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = _CONNECTIONS
    # Without it a door that was just closed keeps its port for a minute; on Linux it does not share a live one.
    allow_reuse_address = True

    def __init__(
        self,
        address: tuple[str, int],
        desk: Desk,
        reception: Reception,
        version: tuple[str, str],
        tls: ssl.SSLContext | None,
        stranger_s: float,
    ) -> None:
        self.tls = tls
        self._stranger_s = stranger_s
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.desk = desk
        self.reception = reception
        self.engine_version, self.timezone = version
        self._places = threading.BoundedSemaphore(_CONNECTIONS)
        # Every connection, and until when it may go on without having said who it is.
        self._open: dict[socket.socket, float] = {}
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        connection, address = super().get_request()
        if self.tls is not None:
            # The handshake comes with the first read, in the connection's own thread: nobody can hold up the others.
            connection.settimeout(_IDLE_TIMEOUT_S)
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        connection = cast(socket.socket, request)  # the tuple is UDP's
        if not self._places.acquire(blocking=False):
            if self.tls is None:  # otherwise there was no handshake yet, and no time for one
                connection.sendall(
                    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
                )
            self.shutdown_request(connection)
            return
        self.await_name(connection)
        super().process_request(connection, cast(tuple[str, int], client_address))

    def process_request_thread(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        try:
            super().process_request_thread(request, cast(tuple[str, int], client_address))
        finally:
            self._open.pop(cast(socket.socket, request), None)
            self._places.release()

    def handle_error(self, _request: object, client_address: object) -> None:
        fields = {"client": str(client_address)}
        if isinstance(sys.exception(), (ConnectionError, ssl.SSLError)):
            _log.debug("A client went away amid its request", extra=fields)
        else:
            _log.exception("A request failed in the door", extra=fields)

    def await_name(self, connection: socket.socket) -> None:
        """From now on the connection has a limited time to say who it is."""
        self._open[connection] = time.monotonic() + self._stranger_s

    def know_name(self, connection: socket.socket) -> None:
        """Whose connection it is, is known: its request may take its time."""
        self._open[connection] = math.inf

    def service_actions(self) -> None:
        """Called twice a second: end the connections that did not say in time who they are."""
        now = time.monotonic()
        for connection, until in list(self._open.items()):
            if until < now:
                _shut(connection, socket.SHUT_RDWR)

    def hang_up(self) -> None:
        """End reading on every connection; answers under way still leave."""
        for connection in list(self._open):
            _shut(connection, socket.SHUT_RD)


def _shut(connection: socket.socket, how: int) -> None:
    try:
        # Not SSLSocket's own: it would let answers under way go on without TLS.
        socket.socket.shutdown(connection, how)
    except OSError:
        return  # already gone


class Door:
    """An open door. Use `Door.open`; `close` lets the queries under way finish, up to a limit."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, name="storage-door", daemon=True)
        self._thread.start()

    @classmethod
    def open(
        cls,
        engine: Engine,
        roles: Sequence[Role],
        *,
        database: str,
        host: str = "127.0.0.1",
        port: int = 0,
        anonymous: RoleName | None = None,
        certificate: DoorCertificate | None = None,
        stranger_s: float = _STRANGER_S,
    ) -> Self:
        """Serve `database` of `engine`, making it if it is missing; port 0 takes a free one.

        With a `certificate` it speaks TLS only; beyond loopback it must. `anonymous` names a reading role for requests
        without credentials, on loopback only; within `stranger_s` a connection has to say who it is. Raises
        `PortInUseError`, `ValueError` for what cannot be served safely, and `EngineUnavailableError`.
        """
        _check_anonymous(roles, anonymous, host)
        if certificate is None and not is_loopback(host):
            raise ValueError(f"The door on {host} would carry passwords in clear; give a certificate, or 127.0.0.1.")
        tls = certificate.context() if certificate else None
        _prepare_database(engine, database)
        desk = Desk(engine, roles, database)
        version, timezone = engine.query("SELECT version(), timezone()").decode().rstrip("\n").split("\t")
        try:
            server = _Server((host, port), desk, Reception(roles, anonymous), (version, timezone), tls, stranger_s)
        except OSError as error:
            raise PortInUseError(
                f"The door cannot listen on {host}:{port} ({error.strerror}); stop what does or give another port."
            ) from error
        return cls(server)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        host = str(self._server.server_address[0])
        scheme = "http" if self._server.tls is None else "https"
        return f"{scheme}://[{host}]:{self.port}" if ":" in host else f"{scheme}://{host}:{self.port}"

    def close(self) -> None:
        """Stop listening, wait for queries under way, and close the door's handles. Not the engine."""
        self._server.shutdown()
        self._server.server_close()
        self._server.hang_up()
        self._server.desk.close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check_anonymous(roles: Sequence[Role], anonymous: RoleName | None, host: str) -> None:
    if anonymous is None:
        return
    role = next((role for role in roles if role.name == anonymous), None)
    if role is None or not role.readonly:
        raise ValueError(f"The anonymous role {anonymous} is not one of the door's reading roles; name one of those.")
    if not is_loopback(host):
        raise ValueError(f"The door on {host} cannot have an anonymous role; listen on 127.0.0.1 or leave it out.")


def _prepare_database(engine: Engine, database: str) -> None:
    engine.query(f"CREATE DATABASE IF NOT EXISTS {quote_identifier(database)} ENGINE = Atomic")
    databases = engine.query("SELECT name, engine FROM system.databases", "JSONCompactEachRow").splitlines()
    kind = dict(json.loads(row) for row in databases).get(database)
    if kind != "Atomic":
        # Overlay, the engine's own default, takes a table's name for a file's.
        raise ValueError(f"The database {database} is of the engine {kind}; give the name of an Atomic one.")


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m storage.door",
        description="Serve an embedded ClickHouse over HTTP. The first line on stdout is the port.",
        epilog="A role exists if KVANDAL_INGEST_PASSWORD, _REPORTS_, _GRAFANA_ or _ADMIN_PASSWORD is set, or one of "
        "these with _FILE.",
    )
    parser.add_argument("--path", type=Path, required=True, help="data directory")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--database", default="kvandal")
    parser.add_argument("--anonymous", type=RoleName, help="reading role for requests without credentials")
    parser.add_argument("--memory-limit-bytes", type=int)
    parser.add_argument("--certificate", type=Path, help="speak TLS with this certificate; needs --key")
    parser.add_argument("--key", type=Path)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit status: 0, or 1 with one sentence on stderr."""
    options = _parse_arguments(arguments)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    try:
        with ExitStack() as stack:
            engine = stack.enter_context(Engine.open(options.path, memory_limit_bytes=options.memory_limit_bytes))
            door = stack.enter_context(
                Door.open(
                    engine,
                    [make_role(name, password) for name, password in read_passwords(os.environ).items()],
                    database=options.database,
                    host=options.host,
                    port=options.port,
                    anonymous=options.anonymous,
                    certificate=DoorCertificate(options.certificate, options.key) if options.certificate else None,
                )
            )
            sys.stdout.write(f"{door.port}\n")
            sys.stdout.flush()
            stopped.wait()
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
