"""Calls to the embedded engine: a statement is judged, takes a handle of its role, and is answered."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import IO

from storage.door_request import CHUNK_BYTES, QUERY_BYTES, InsertHead, body_errors, decode_sql, split_insert
from storage.engine import (
    Answer,
    Engine,
    ErrorCode,
    Handle,
    HandlePool,
    ParsedStatement,
    PoolExhaustedError,
    QueryRefusedError,
)
from storage.revision import CUSTOM_SERIALIZATION, UnknownTypeError, with_revision
from storage.roles import Role, StatementKind, Verdict, check_format, check_setting, judge_statement

_HEAD_BYTES = 64 << 10  # an INSERT has to show where its data begin within this
_PARSERS = 2  # parsing takes about 1 ms
_WAIT_S = 10.0  # for a free handle, before a query is turned away
_CLOSE_WAIT_S = 10.0
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
        with body_errors():
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
    with body_errors():
        text = head + call.body.read(max(0, QUERY_BYTES + 1 - len(head)))
    if len(text) > QUERY_BYTES:
        raise QueryRefusedError.of(
            ErrorCode.QUERY_IS_TOO_LARGE, f"The statement is longer than {QUERY_BYTES} bytes; send data in an INSERT."
        )
    return decode_sql(text)


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
        with body_errors():
            data = call.body.read(CHUNK_BYTES)
