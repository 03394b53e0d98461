"""The embedded ClickHouse engine: one per process, on one data directory, with any number of handles.

A handle serves one caller at a time and keeps its own settings and database, so callers that must not wait for each
other, or must not see each other's settings, use handles of their own (`HandlePool` keeps a bounded number of alike
ones). Do not fork once an engine is open: the child hangs. Start workers with spawn.

A clickhouse-connect client can live in the same process on the same engine. Open the `Engine` first, because the
first to open it fixes its options, then use `clickhouse_connect.get_client(interface="chdb", path=str(engine.path))`:
`Engine.path` is resolved the same way as clickhouse-connect resolves it, and the engine compares paths literally.
The directory stays locked until the clients are closed too.
"""

import fcntl
import json
import logging
import os
import queue
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import TracebackType
from typing import IO, Protocol, Self, cast
from urllib.parse import urlencode

from storage.tokens import forget_tokens_without_parts

logger = logging.getLogger(__name__)

_ERROR_CODE = re.compile(r"Code: (\d+)\. DB::Exception: ")
_TRAILING_VERSION = re.compile(r" \(version [^()]*(?:\([^()]*\))?\)\s*$")
_OUR_SCOPE = re.compile(r": In scope SELECT formatQuerySingleLine\(.*\)(?=\.? \([A-Z_]+\)$)", re.DOTALL)
_NO_TREE = "does not support JSON serialization"
_MERGE_THREADS = 2
# 26.9 gathers inserts in the background unless told not to: an insert would return before it is durable.
_EVERY_HANDLE = {"async_insert": "0"}
_SETTING_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Of a statement as ClickHouse renders it. A column's name may have the word in it too, in quotes.
_BEFORE_SETTINGS = re.compile(r"(?:'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`|(?! SETTINGS ).)*", re.DOTALL)


class EngineUnavailableError(ConnectionError):
    """The store is away or locked. Nothing was executed; trying again later, or elsewhere, can help."""


class ErrorCode(IntEnum):
    """The codes of ClickHouse that we raise ourselves; the names are ClickHouse's too."""

    BAD_ARGUMENTS = 36
    NOT_IMPLEMENTED = 48
    SYNTAX_ERROR = 62
    UNKNOWN_DATABASE = 81
    READONLY = 164
    TIMEOUT_EXCEEDED = 159
    TOO_MANY_SIMULTANEOUS_QUERIES = 202
    NETWORK_ERROR = 210
    QUERY_IS_TOO_LARGE = 223
    TOO_DEEP_RECURSION = 306
    TOO_MANY_ROWS_OR_BYTES = 396
    SETTING_CONSTRAINT_VIOLATION = 452
    ACCESS_DENIED = 497
    AUTHENTICATION_FAILED = 516
    UNKNOWN_EXCEPTION = 1002


class QueryRefusedError(ValueError):
    """ClickHouse, or a role, refused this statement. `code` and `message` are in ClickHouse's form."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @classmethod
    def of(cls, code: ErrorCode, sentence: str) -> Self:
        """Build a refusal of our own, worded as ClickHouse words its own."""
        return cls(code, f"Code: {code}. DB::Exception: {sentence} ({code.name})")


class PoolExhaustedError(TimeoutError):
    """No handle came free in time."""


class _Result(Protocol):
    def bytes(self) -> bytes | None: ...
    def size(self) -> int: ...
    def rows_read(self) -> int: ...
    def rows_written(self) -> int: ...
    def bytes_written(self) -> int: ...
    def storage_rows_read(self) -> int: ...
    def storage_bytes_read(self) -> int: ...
    def elapsed(self) -> float: ...


class _Connection(Protocol):
    def query(self, query: str, fmt: str, params: dict[str, str], /) -> _Result: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What a statement returned, and what it cost."""

    body: bytes
    result_rows: int = 0
    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    elapsed_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ParsedStatement:
    """One statement as ClickHouse's own parser reads it.

    `text` is ClickHouse's rendering, without comments. `tree` is its syntax tree, or None for the few kinds that it
    cannot write as JSON (DESCRIBE, EXISTS, SHOW CREATE and rarer ones).
    """

    text: str
    tree: Mapping[str, object] | None


def quote_literal(text: str) -> str:
    """Return `text` as a ClickHouse string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


class Insert:
    """One insert under way. `append` collects, `finish` writes: only then are the rows durable."""

    def __init__(self, file: IO[bytes], run: Callable[[], Answer]) -> None:
        self._file = file
        self._run = run

    def append(self, data: bytes) -> None:
        """Hand over the next bytes, cut anywhere."""
        self._file.write(data)

    def finish(self) -> Answer:
        """Write everything and return the counts (rows written by views are included). Raises `QueryRefusedError`."""
        self._file.flush()
        return self._run()


class Handle:
    """One connection to the engine. Not for two threads at a time."""

    def __init__(self, connection: _Connection, settings: Mapping[str, str]) -> None:
        self._connection = connection
        self._base = _EVERY_HANDLE | dict(settings)
        self._overrides: dict[str, str] = {}
        self._set(self._base)

    def query(
        self,
        sql: str,
        fmt: str = "TabSeparated",
        params: Mapping[str, str] | None = None,
        *,
        limit_bytes: int | None = None,
    ) -> Answer:
        """Run one statement to its end and return its result in `fmt`, unless the statement names a format.

        Raises `QueryRefusedError`, also for a result of more than `limit_bytes`. `params` are values for
        `{name:Type}`, escaped as in TabSeparated.
        The engine runs *every* statement in `sql`: text from outside goes through `parse` first.
        """
        with _refusals():
            result = self._connection.query(sql, fmt, dict(params or {}))
            _check_size(result, limit_bytes)
            body = result.bytes() or b""
        return Answer(
            body,
            result_rows=result.rows_read(),
            read_rows=result.storage_rows_read(),
            read_bytes=result.storage_bytes_read(),
            written_rows=result.rows_written(),
            written_bytes=result.bytes_written(),
            elapsed_s=result.elapsed(),
        )

    @contextmanager
    def send_insert(self, sql: str, fmt: str) -> Iterator[Insert]:
        """Open an insert whose data come in pieces; leaving the block without `finish` writes nothing.

        `sql` is the INSERT without FORMAT and data. The data go through a file, not through chDB's streaming insert:
        that one reports success where a part or a view could not be written.
        """
        head = _BEFORE_SETTINGS.match(sql)[0]  # type: ignore[index]  # it matches the empty text too
        settings = sql[len(head) :]
        with NamedTemporaryFile(prefix="kvandal-insert-") as file:
            source = f"FROM INFILE {quote_literal(file.name)} COMPRESSION 'none'"
            yield Insert(file, lambda: self.query(f"{head} {source}{settings} FORMAT {fmt}"))

    def parse(self, sql: str) -> ParsedStatement:
        """Parse exactly one statement without running any of it.

        Raises `QueryRefusedError`, also for two statements: the engine would run both.
        """
        quoted = quote_literal(sql)
        try:
            return self._parse(quoted)
        except QueryRefusedError as error:
            # What follows quotes the statement inside ours, which its author would not recognise.
            raise QueryRefusedError(error.code, _OUR_SCOPE.sub("", error.message)) from error

    def override_settings(self, overrides: Mapping[str, str]) -> None:
        """Make `overrides` the only settings that differ from this handle's own. Costs nothing if they already are."""
        wanted = {name: value for name, value in overrides.items() if self._base.get(name) != value}
        if wanted == self._overrides:
            return
        restored = {name: self._base.get(name) for name in self._overrides if name not in wanted}
        self._set(restored | wanted)
        self._overrides = wanted

    def close(self) -> None:
        self._connection.close()

    def _parse(self, quoted_sql: str) -> ParsedStatement:
        select = f"SELECT formatQuerySingleLine({quoted_sql})"
        try:
            answer = self.query(f"{select}, parseQueryToJSON({quoted_sql})", "JSONCompactEachRow")
        except QueryRefusedError as error:
            if _NO_TREE not in error.message:
                raise
            return ParsedStatement(self.query(select, "RawBLOB").body.decode(), None)
        try:
            text, tree = json.loads(answer.body)
            return ParsedStatement(text, json.loads(tree))
        except RecursionError as error:
            raise QueryRefusedError.of(ErrorCode.TOO_DEEP_RECURSION, "The statement nests too deeply.") from error

    def _set(self, settings: Mapping[str, str | None]) -> None:
        for name in settings:
            if not _SETTING_NAME.fullmatch(name):
                raise QueryRefusedError.of(ErrorCode.BAD_ARGUMENTS, f"{name!r} is not the name of a setting.")
        # The overrides are unknown until SET has succeeded: a failed one must not look as if it had been applied.
        self._overrides = dict.fromkeys([*self._overrides, *settings], "")
        assignments = ", ".join(f"{name} = {_render_setting(value)}" for name, value in settings.items())
        self.query(f"SET {assignments}")
        self._overrides = {}


class HandlePool:
    """Up to `size` alike handles, opened when first needed."""

    def __init__(self, engine: "Engine", size: int, settings: Mapping[str, str], database: str | None = None) -> None:
        self._engine = engine
        self._settings = settings
        self._database = database
        self._size = size
        # Last in, first out: a handle that has just applied a client's settings is the likeliest to fit again.
        self._idle: queue.LifoQueue[Handle | None] = queue.LifoQueue()
        for _ in range(size):
            self._idle.put(None)

    @contextmanager
    def borrow(self, timeout_s: float) -> Iterator[Handle]:
        """Lend one handle to this thread. Raises `PoolExhaustedError` when none came free within `timeout_s`."""
        try:
            handle = self._idle.get(timeout=timeout_s)
        except queue.Empty:
            raise PoolExhaustedError(f"All {self._size} handles were busy for {timeout_s:g} s; try again.") from None
        try:
            if handle is None:
                handle = self._engine.open_handle(self._settings, self._database)
            yield handle
        finally:
            self._idle.put(handle)

    def close(self, timeout_s: float) -> None:
        """Close the handles, waiting up to `timeout_s` for each that is still in use; those are left to the process."""
        for _ in range(self._size):
            try:
                handle = self._idle.get(timeout=timeout_s)
            except queue.Empty:
                return
            if handle is not None:
                handle.close()


class Engine:
    """The one engine of this process. Use `Engine.open`."""

    def __init__(self, path: Path, options: Mapping[str, str]) -> None:
        self.path = path
        self.options = options
        self._lock = threading.Lock()
        self._closed = False
        # Keeps the engine alive while pools open and close theirs.
        self._first = self._connect()

    @classmethod
    def open(cls, path: Path, *, memory_limit_bytes: int | None, pool_size: int = _MERGE_THREADS) -> Self:
        """Open the data directory, creating it if needed; `pool_size` is the number of merge threads.

        What the kill of an earlier process left half done is put right first (storage/tokens.py).

        Raises `EngineUnavailableError` with one sentence when another process has the directory, when it cannot be
        written, or when this process already has an engine on another directory.
        """
        resolved = Path(os.path.realpath(path))
        _check_directory(resolved)
        _check_not_held(resolved)
        if not _is_running(resolved):
            for token in forget_tokens_without_parts(resolved):
                logger.warning(
                    "an insert was killed between its token and its part: the token is forgotten",
                    extra={"folder": str(token.table_folder), "part": token.part},
                )
        options = {"background_pool_size": str(pool_size)}
        if memory_limit_bytes is not None:
            options["max_server_memory_usage"] = str(memory_limit_bytes)
        return cls(resolved, options)

    def open_handle(self, settings: Mapping[str, str] | None = None, database: str | None = None) -> Handle:
        """Open a handle of its own settings, on `database`. The caller closes it."""
        with self._lock:
            if self._closed:
                raise EngineUnavailableError(f"The engine on {self.path} is closed; open it again.")
            connection = self._connect()
        try:
            handle = Handle(connection, settings or {})
            if database is not None:
                handle.query(f"USE {quote_identifier(database)}")
        except QueryRefusedError:
            connection.close()
            raise
        return handle

    def query(self, sql: str, fmt: str = "TabSeparated") -> bytes:
        """Run one trusted statement on a handle of its own and return its result. Raises `QueryRefusedError`."""
        handle = self.open_handle()
        try:
            return handle.query(sql, fmt).body
        finally:
            handle.close()

    def close(self) -> None:
        """Let go of the directory, once every handle is closed. Safe to call twice."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._first.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connect(self) -> _Connection:
        try:
            import chdb
        except ImportError as error:
            raise EngineUnavailableError("The embedded engine is not installed; install kvandal[embedded].") from error
        try:
            return cast(_Connection, chdb.connect(f"{self.path}?{urlencode(self.options)}"))
        except RuntimeError as error:
            raise EngineUnavailableError(_explain_connect_error(self.path, str(error))) from error


def quote_identifier(name: str) -> str:
    """Return `name` as a quoted ClickHouse identifier."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


@contextmanager
def _refusals() -> Iterator[None]:
    # chdb raises RuntimeError, or a subclass, for every error of a statement.
    try:
        yield
    except RuntimeError as error:
        raise _refusal(str(error)) from error


def _check_size(result: _Result, limit_bytes: int | None) -> None:
    # The engine's own max_result_bytes counts columns before they are written: a constant once, whatever its rows.
    if limit_bytes is not None and result.size() > limit_bytes:
        raise QueryRefusedError.of(
            ErrorCode.TOO_MANY_ROWS_OR_BYTES,
            f"The result takes {result.size()} bytes as it is written, of at most {limit_bytes}; ask for less.",
        )


def _refusal(text: str) -> QueryRefusedError:
    found = _ERROR_CODE.search(text)
    if found is None:
        return QueryRefusedError.of(ErrorCode.UNKNOWN_EXCEPTION, text)
    return QueryRefusedError(int(found[1]), _TRAILING_VERSION.sub("", text[found.start() :]).strip())


def _render_setting(value: str | None) -> str:
    if value is None:
        return "DEFAULT"
    return quote_literal(value)  # numbers too: a text setting refuses a bare number, a number takes a quoted one


def _check_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)  # who can read its files needs no role of the door's
    except OSError as error:
        raise EngineUnavailableError(
            f"The data directory {path} cannot be made ({error.strerror}); give another directory."
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise EngineUnavailableError(
            f"The data directory {path} is not writable; change its owner or give another one."
        )


def _check_not_held(path: Path) -> None:
    # The engine says only "Error initializing EmbeddedServer" when the lock on its status file is taken.
    try:
        with (path / "status").open("rb") as status:
            holder = _find_holder(status.fileno(), status.read(4096).decode(errors="replace"))
    except FileNotFoundError:
        return
    except PermissionError as error:
        raise EngineUnavailableError(f"The data directory {path} belongs to another user; give another one.") from error
    if holder is not None:
        raise EngineUnavailableError(
            f"The data directory {path} is in use by {holder}; stop that process or give another directory."
        )


def _is_running(path: Path) -> bool:
    """Whether an engine, of this process even, has the directory now."""
    try:
        with (path / "status").open("rb") as status:
            fcntl.flock(status.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _find_holder(descriptor: int, status: str) -> str | None:
    found = re.search(r"PID: (\d+)", status)
    if found is not None and int(found[1]) == os.getpid():
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return f"process {found[1]}" if found is not None else "another process"
    return None


def _explain_connect_error(path: Path, text: str) -> str:
    other = re.search(r"already initialized with path '([^']*)'", text)
    if other is not None:
        return f"This process already has an engine on {other[1]}; use that one, or open {path} in another process."
    return f"The engine could not open {path}; check that no other process has it and that the disk is not full."
