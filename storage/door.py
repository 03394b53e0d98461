"""An HTTP door to the embedded engine that speaks ClickHouse's HTTP interface.

clickhouse-connect, clickhouse-go and curl use it as they use a server. What differs: answers are never compressed,
sessions and query ids are accepted and ignored, external data is refused, and a result is complete in memory before its
first byte leaves (so an error always has its own status), which is why every role has a ceiling on it.
"""

import argparse
import email.parser
import email.policy
import gzip
import hashlib
import hmac
import io
import ipaddress
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
import zlib
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Protocol, Self, cast
from urllib.parse import parse_qsl, urlsplit

from storage.engine import (
    Answer,
    Engine,
    EngineUnavailableError,
    ErrorCode,
    Handle,
    HandlePool,
    ParsedStatement,
    PoolExhaustedError,
    QueryRefusedError,
    quote_identifier,
)
from storage.revision import CUSTOM_SERIALIZATION, UnknownTypeError, with_revision
from storage.roles import (
    Role,
    RoleName,
    StatementKind,
    Verdict,
    check_format,
    check_setting,
    judge_statement,
    make_role,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_log = logging.getLogger(__name__)

QUERY_BYTES = 1 << 20  # of SQL text; the handles' max_query_size is the same
_HEAD_BYTES = 64 << 10  # an INSERT has to show where its data begin within this
_CHUNK_BYTES = 1 << 20  # handed to the engine at a time
_DRAIN_BYTES = 64 << 20  # read away after an error, so that the client gets to read it; beyond, the connection closes
_CONNECTIONS = 128
_PARSERS = 2  # parsing takes about 1 ms
_WAIT_S = 10.0  # for a free handle, before a query is turned away
_CLOSE_WAIT_S = 10.0
_IDLE_TIMEOUT_S = 60.0
# Within this a connection has to say who it is, however busily it sends: otherwise a few that drip keep all others out.
_STRANGER_S = 60.0
_DISPLAY_NAME = "kvandal"
_DEFAULT_FORMAT = "TabSeparated"
# They concern the transport, or what a server does between queries, and change no result.
_IGNORED_PARAMS = frozenset(
    {
        "add_http_cors_header",
        "buffer_size",
        "cancel_http_readonly_queries_on_client_close",
        "client_protocol_version",
        "compress",
        "enable_http_compression",
        "http_headers_progress_interval_ms",
        "http_zlib_compression_level",
        "log_queries",
        "quota_key",
        "role",
        "send_progress_in_http_headers",
        "session_check",
        "session_id",
        "session_timeout",
        "wait_end_of_query",
    }
)
_OWN_PARAMS = frozenset({"query", "database", "default_format", "query_id", "user", "password"})
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
_PASSWORD_VARIABLE = "KVANDAL_{role}_PASSWORD"  # noqa: S105 — a pattern for names, no password


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


class ClientGoneError(ConnectionError):
    """The client broke off in the middle of its request."""


@dataclass(frozen=True, slots=True)
class InsertHead:
    """The part of an INSERT that is SQL: `statement` without its format, and where the data begin."""

    statement: str
    format: str
    data_start: int


_INSERT_TOKEN = re.compile(
    rb"""(?P<skip>\s+|--[^\n]*|\#[^\n]*|/\*.*?\*/)
    |(?P<quoted>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*"|`(?:[^`\\]|\\.|``)*`)
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_FORMAT_NAME = re.compile(rb"(?:\s|--[^\n]*\n|/\*.*?\*/)*([A-Za-z][A-Za-z0-9]*)[ \t\f]*\r?\n?", re.DOTALL)


def split_insert(head: bytes) -> InsertHead | None:
    """Find where the data of an INSERT begin, or return None when `head` is no INSERT with data.

    `head` may go on after the SQL with bytes of any kind. This only cuts: the statement is parsed and judged after.
    """
    depth = words = 0
    for token in _INSERT_TOKEN.finditer(head):
        word = (token["word"] or b"").upper()
        if token["other"] is not None:
            depth += {b"(": 1, b")": -1}.get(token["other"], 0)
        if words == 0 and token["skip"] is None and word != b"INSERT":
            return None
        words += bool(word)
        if depth != 0 or not word:
            continue
        if word in (b"SELECT", b"WITH"):
            return None
        if word == b"VALUES":
            return InsertHead(_decode_sql(head[: token.start()]), "Values", token.end())
        if word == b"FORMAT":
            name = _FORMAT_NAME.match(head, token.end())
            return InsertHead(_decode_sql(head[: token.start()]), name[1].decode(), name.end()) if name else None
    return None


def _decode_sql(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise QueryRefusedError.of(ErrorCode.BAD_ARGUMENTS, "The statement is not UTF-8.") from error


class _Body(io.RawIOBase):
    """A request's body as it comes off the connection, with Content-Length or in chunks."""

    def __init__(self, connection: io.BufferedIOBase, length: int | None) -> None:
        super().__init__()
        self._connection = connection
        self._chunked = length is None
        self._left = length or 0
        self._ended = length == 0

    @property
    def is_read(self) -> bool:
        return self._ended

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        if not self._ended and self._left == 0 and self._chunked:
            self._left = self._read_chunk_size()
        if self._ended:
            return 0
        count = self._connection.readinto(memoryview(buffer)[: self._left])
        if count == 0:
            raise ClientGoneError("The client closed the connection within its request.")
        self._left -= count
        if self._left == 0:
            self._end_part()
        return count

    def _read_chunk_size(self) -> int:
        line = self._connection.readline(1024)
        size_text = line.split(b";")[0].strip()
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,15}", size_text):
            raise ClientGoneError("The client sent a chunk without a size.")
        size = int(size_text, 16)
        if size == 0:
            self._ended = True
            while self._connection.readline(1024) not in (b"\r\n", b"\n", b""):
                pass
        return size

    def _end_part(self) -> None:
        if self._chunked:
            self._connection.readline(8)
        else:
            self._ended = True


def decode_body(body: io.RawIOBase, encoding: str) -> IO[bytes]:
    """Return `body` without its Content-Encoding (gzip, zstd, lz4), decoded piece by piece as it is read."""
    if encoding in ("", "identity"):
        return io.BufferedReader(body, _CHUNK_BYTES)
    if encoding == "gzip":
        return cast(IO[bytes], gzip.GzipFile(fileobj=io.BufferedReader(body, _CHUNK_BYTES)))
    if encoding == "zstd":
        reader = _import_codec("zstandard").ZstdDecompressor().stream_reader(body, read_across_frames=True)
        return io.BufferedReader(reader, _CHUNK_BYTES)
    if encoding == "lz4":
        return _import_codec("lz4.frame").LZ4FrameFile(io.BufferedReader(body, _CHUNK_BYTES))
    raise QueryRefusedError.of(
        ErrorCode.NOT_IMPLEMENTED, f"The Content-Encoding {encoding} is not offered; use gzip, zstd, lz4 or none."
    )


class _Codec(Protocol):  # what we use of zstandard and lz4.frame
    ZstdDecompressor: Callable[[], "_ZstdDecompressor"]
    LZ4FrameFile: Callable[[io.BufferedIOBase], IO[bytes]]


class _ZstdDecompressor(Protocol):
    def stream_reader(self, source: io.RawIOBase, *, read_across_frames: bool) -> io.RawIOBase: ...


def _import_codec(name: str) -> _Codec:
    try:
        return cast(_Codec, import_module(name))
    except ImportError as error:
        raise QueryRefusedError.of(
            ErrorCode.NOT_IMPLEMENTED, f"{name} is not installed here; send the data as gzip or uncompressed."
        ) from error


@contextmanager
def _body_errors() -> Iterator[None]:
    # ClientGoneError and a read that timed out are OSErrors, but no fault of the encoding.
    try:
        yield
    except (ConnectionError, TimeoutError):
        raise
    except (zlib.error, EOFError, OSError, RuntimeError) as error:
        raise QueryRefusedError.of(ErrorCode.BAD_ARGUMENTS, f"The body cannot be decompressed: {error}.") from error
    except Exception as error:
        # zstandard's own error is known only once that optional package is imported.
        if type(error).__name__ != "ZstdError":
            raise
        raise QueryRefusedError.of(ErrorCode.BAD_ARGUMENTS, f"The body cannot be decompressed: {error}.") from error


@dataclass(frozen=True, slots=True)
class Call:
    """One request, authenticated."""

    role: Role
    params: Mapping[str, str]
    body: IO[bytes]
    readonly: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """The engine's answer, and the format of its body if it is a result."""

    answer: Answer
    format: str | None


class Desk:
    """Takes calls to the engine: judges the statement, finds a handle of the role, applies its settings."""

    def __init__(self, engine: Engine, roles: Iterable[Role], database: str, *, wait_s: float = _WAIT_S) -> None:
        self._database = database
        self._wait_s = wait_s
        parsing = {"implicit_select": "0", "max_query_size": str(4 * QUERY_BYTES), "max_execution_time": "10"}
        self._parsers = HandlePool(engine, _PARSERS, parsing)
        self._pools = {
            role.name: HandlePool(engine, role.limits.concurrent_queries, role.handle_settings, database)
            for role in roles
        }

    def answer(self, call: Call) -> Reply:
        """Run the call's statement. Raises `QueryRefusedError`, `EngineUnavailableError`, `ClientGoneError`."""
        self._check_database(call.params.get("database", ""))
        settings = _read_settings(call)
        prefix = call.params.get("query", "").rstrip("; \t\r\n").encode()
        with _body_errors():
            head = (prefix + b"\n" if prefix else b"") + call.body.read(_HEAD_BYTES)
        insert = split_insert(head)
        if insert is not None:
            return self._insert(call, insert, settings, head[insert.data_start :])
        return self._run(call, _read_statement(call, head), settings)

    def close(self) -> None:
        """Wait for the queries under way, up to a limit, and close the handles."""
        for pool in (self._parsers, *self._pools.values()):
            pool.close(_CLOSE_WAIT_S)

    def _run(self, call: Call, sql: str, settings: Mapping[str, str]) -> Reply:
        params = {name[6:]: value for name, value in call.params.items() if name.startswith("param_")}
        verdict = self._judge(call, self._parse(sql), params)
        if verdict.kind is not StatementKind.READ:
            with self._borrow(self._pools[call.role.name]) as handle:
                handle.override_settings(settings)
                return Reply(handle.query(sql, params=params, limit_bytes=call.role.limits.result_bytes), None)
        result_format = verdict.result_format or call.params.get("default_format") or _DEFAULT_FORMAT
        check_format(result_format)
        with self._borrow(self._pools[call.role.name]) as handle:
            handle.override_settings(settings)
            answer = handle.query(sql, result_format, params, limit_bytes=_limit_bytes(call.role, settings))
        return Reply(_for_revision(answer, result_format, call.params), result_format)

    def _insert(self, call: Call, head: InsertHead, settings: Mapping[str, str], data: bytes) -> Reply:
        parsed = self._parse(f"{head.statement} FORMAT {head.format}")
        verdict = self._judge(call, parsed, {})
        tail = f" FORMAT {head.format}"
        if verdict.kind is not StatementKind.INSERT or not parsed.text.endswith(tail):
            raise QueryRefusedError.of(ErrorCode.SYNTAX_ERROR, "The INSERT does not end with its format and data.")
        with self._borrow(self._pools[call.role.name]) as handle:
            handle.override_settings(settings)
            # ClickHouse's rendering, not the client's text: what was judged is what runs.
            with handle.send_insert(parsed.text.removesuffix(tail), head.format) as insert:
                for chunk in _read_chunks(data, call):
                    insert.append(chunk)
                return Reply(insert.finish(), None)

    def _judge(self, call: Call, parsed: ParsedStatement, params: Mapping[str, str]) -> Verdict:
        verdict = judge_statement(call.role, self._database, parsed, params)
        if call.readonly and verdict.kind is not StatementKind.READ:
            raise QueryRefusedError.of(
                ErrorCode.READONLY, "Cannot execute query in readonly mode: GET only reads; use POST to change data."
            )
        return verdict

    def _parse(self, sql: str) -> ParsedStatement:
        with self._borrow(self._parsers) as handle:
            return handle.parse(sql)

    @contextmanager
    def _borrow(self, pool: HandlePool) -> Iterator[Handle]:
        try:
            with pool.borrow(self._wait_s) as handle:
                yield handle
        except PoolExhaustedError as error:
            raise QueryRefusedError.of(ErrorCode.TOO_MANY_SIMULTANEOUS_QUERIES, str(error)) from error

    def _check_database(self, name: str) -> None:
        # "default" is what clients send that were told nothing; the role's own database is then meant.
        if name not in ("", "default", self._database):
            raise QueryRefusedError.of(
                ErrorCode.UNKNOWN_DATABASE, f"Database {name} does not exist here; use {self._database}."
            )


def _read_settings(call: Call) -> dict[str, str]:
    settings = {
        name: value
        for name, value in call.params.items()
        if name not in _OWN_PARAMS and name not in _IGNORED_PARAMS and not name.startswith("param_")
    }
    if settings.pop("decompress", "0") not in ("", "0"):
        raise QueryRefusedError.of(ErrorCode.NOT_IMPLEMENTED, "decompress=1 is not offered; use Content-Encoding.")
    for name, value in settings.items():
        check_setting(call.role, name, value)
    return settings


def _limit_bytes(role: Role, settings: Mapping[str, str]) -> int:
    return int(settings.get("max_result_bytes", role.limits.result_bytes))


def _for_revision(answer: Answer, result_format: str, params: Mapping[str, str]) -> Answer:
    """The answer in the form of the protocol's revision that the client speaks, where that makes a difference."""
    spoken = params.get("client_protocol_version", "")
    if result_format != "Native" or not spoken.isdecimal() or int(spoken) < CUSTOM_SERIALIZATION:
        return answer
    try:
        return replace(answer, body=with_revision(answer.body))
    except UnknownTypeError as error:
        raise QueryRefusedError.of(ErrorCode.NOT_IMPLEMENTED, f"{error}.") from error


def _read_statement(call: Call, head: bytes) -> str:
    with _body_errors():
        text = head + call.body.read(max(0, QUERY_BYTES + 1 - len(head)))
    if len(text) > QUERY_BYTES:
        raise QueryRefusedError.of(
            ErrorCode.QUERY_IS_TOO_LARGE, f"The statement is longer than {QUERY_BYTES} bytes; send data in an INSERT."
        )
    return _decode_sql(text)


def _read_chunks(data: bytes, call: Call) -> Iterator[bytes]:
    left = call.role.limits.insert_bytes
    while data:
        left -= len(data)
        if left < 0:
            raise QueryRefusedError.of(
                ErrorCode.QUERY_IS_TOO_LARGE,
                f"One insert of {call.role.name} holds at most {call.role.limits.insert_bytes} bytes; send several.",
            )
        yield data
        with _body_errors():
            data = call.body.read(_CHUNK_BYTES)


class Reception:
    """Knows the roles by their passwords."""

    def __init__(self, roles: Iterable[Role], anonymous: RoleName | None) -> None:
        self._roles = {str(role.name): role for role in roles}
        self._anonymous = self._roles[anonymous] if anonymous is not None else None

    def admit(self, user: str, password: str, *, local: bool) -> Role:
        """Return the role of these credentials, or raise `QueryRefusedError`; takes the same time for every user.

        No credentials mean the anonymous role, if there is one, for a request addressed to this machine by its name
        or loopback address, and not from a page of another site.
        """
        if self._anonymous is not None and local and user in ("", "default") and not password:
            return self._anonymous
        role = self._roles.get(user)
        expected = role.password if role is not None else ""
        given_right = hmac.compare_digest(_digest(password), _digest(expected))
        if role is None or not given_right:
            raise QueryRefusedError.of(
                ErrorCode.AUTHENTICATION_FAILED,
                f"{user or 'default'}: Authentication failed: password is incorrect, or there is no such user.",
            )
        return role


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _read_credentials(headers: Message, params: Mapping[str, str]) -> tuple[str, str]:
    user = headers.get("X-ClickHouse-User")
    if user is not None:
        return user, headers.get("X-ClickHouse-Key") or ""
    scheme, _, encoded = (headers.get("Authorization") or "").partition(" ")
    if scheme.lower() == "basic":
        try:
            user, _, password = b64decode(encoded, validate=True).decode().partition(":")
        except ValueError:  # binascii.Error and UnicodeDecodeError too
            return "", encoded
        return user, password
    return params.get("user", ""), params.get("password", "")


def _read_form(content_type: str, body: IO[bytes]) -> dict[str, str]:
    """Return the fields of a multipart form: how clients send a statement whose parameters do not fit a URL."""
    with _body_errors():
        data = body.read(QUERY_BYTES * 4 + 1)
    if len(data) > QUERY_BYTES * 4:
        raise QueryRefusedError.of(ErrorCode.QUERY_IS_TOO_LARGE, f"The form is longer than {QUERY_BYTES * 4} bytes.")
    # HTTP, not SMTP: keeps the parser from folding or guessing.
    parser = email.parser.BytesParser(policy=email.policy.HTTP)
    message = parser.parsebytes(f"Content-Type: {content_type}\r\n\r\n".encode() + data)
    fields = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        payload = part.get_payload(decode=True)
        if part.get_filename() is not None or not isinstance(name, str) or not isinstance(payload, bytes):
            raise QueryRefusedError.of(
                ErrorCode.NOT_IMPLEMENTED, "External data are not offered by the embedded engine."
            )
        fields[name] = _decode_sql(payload)
    return fields


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


def is_local_name(host: str) -> bool:
    """Whether a Host header names this machine: a page in a browser can reach loopback only under a name of its own."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    name = name.strip("[]")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name in ("localhost", "")


def _is_no_other_site(headers: Message) -> bool:
    """Whether no page of another site sent this: it could not read the answer, but make the engine work."""
    return headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin") and "Origin" not in headers


def _is_loopback(host: str) -> bool:
    """Whether listening on `host` is out of reach for other machines; an empty host means every interface."""
    return bool(host) and is_local_name(host)


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

    def _open_body(self) -> _Body | None:
        lengths = self.headers.get_all("Content-Length", [])
        codings = self.headers.get_all("Transfer-Encoding", [])
        # Two that say it, or one that another reader takes otherwise, is how one request is smuggled inside another.
        clear = len(lengths) + len(codings) <= 1 and all(re.fullmatch(r"[0-9]{1,18}", length) for length in lengths)
        if not clear or not all(coding.lower() == "chunked" for coding in codings):
            self.close_connection = True
            self._send(HTTPStatus.BAD_REQUEST, b"The request's length is not clear.\n", {})
            return None
        return _Body(self.rfile, None if codings else int(lengths[0]) if lengths else 0)

    def _dispatch(self, body: _Body, *, readonly: bool) -> None:
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

    def _answer(self, params: dict[str, str], body: _Body, *, readonly: bool) -> None:
        user, password = _read_credentials(self.headers, params)
        local = is_local_name(self.headers.get("Host", "")) and _is_no_other_site(self.headers)
        role = self.server.reception.admit(user, password, local=local)
        self.server.know_name(self.connection)
        decoded = decode_body(body, self.headers.get("Content-Encoding", ""))
        content_type = self.headers.get("Content-Type", "")
        if content_type.startswith("multipart/form-data"):
            params |= _read_form(content_type, decoded)
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

    def _drain(self, body: _Body) -> None:
        left = _DRAIN_BYTES
        while left > 0 and not body.is_read:
            part = body.read(min(left, _CHUNK_BYTES))
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
        if certificate is None and not _is_loopback(host):
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
    if not _is_loopback(host):
        raise ValueError(f"The door on {host} cannot have an anonymous role; listen on 127.0.0.1 or leave it out.")


def _prepare_database(engine: Engine, database: str) -> None:
    engine.query(f"CREATE DATABASE IF NOT EXISTS {quote_identifier(database)} ENGINE = Atomic")
    databases = engine.query("SELECT name, engine FROM system.databases", "JSONCompactEachRow").splitlines()
    kind = dict(json.loads(row) for row in databases).get(database)
    if kind != "Atomic":
        # Overlay, the engine's own default, takes a table's name for a file's.
        raise ValueError(f"The database {database} is of the engine {kind}; give the name of an Atomic one.")


def read_passwords(environment: Mapping[str, str]) -> dict[RoleName, str]:
    """The roles' passwords, from KVANDAL_<ROLE>_PASSWORD or from the file that KVANDAL_<ROLE>_PASSWORD_FILE names.

    A role without a password is not among them. Raises `ValueError` for a file that cannot be read.
    """
    found = {name: _read_password(environment, _PASSWORD_VARIABLE.format(role=name.upper())) for name in RoleName}
    return {name: password for name, password in found.items() if password}


def _read_password(environment: Mapping[str, str], variable: str) -> str:
    if variable in environment or f"{variable}_FILE" not in environment:
        return environment.get(variable, "")
    file = Path(environment[f"{variable}_FILE"])
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(f"{variable}_FILE names {file}, which cannot be read: {why}; give a readable file") from error


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
