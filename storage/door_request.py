"""What a request to the door carries: its body as it comes in, and where the data of an INSERT begin."""

import email.parser
import email.policy
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import IO, TYPE_CHECKING, Protocol, cast

from storage.engine import ErrorCode, QueryRefusedError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

QUERY_BYTES = 1 << 20  # of SQL text; the handles' max_query_size is the same
CHUNK_BYTES = 1 << 20  # handed to the engine at a time


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
            return InsertHead(decode_sql(head[: token.start()]), "Values", token.end())
        if word == b"FORMAT":
            name = _FORMAT_NAME.match(head, token.end())
            return InsertHead(decode_sql(head[: token.start()]), name[1].decode(), name.end()) if name else None
    return None


def decode_sql(text: bytes) -> str:
    """The text of a statement; `QueryRefusedError` where it is not UTF-8."""
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise QueryRefusedError.of(ErrorCode.BAD_ARGUMENTS, "The statement is not UTF-8.") from error


class Body(io.RawIOBase):
    """A request's body as it comes off the connection, with Content-Length or in chunks.

    Reading raises `ClientGoneError` where the client breaks off.
    """

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
    """Return `body` without its Content-Encoding (gzip, zstd, lz4), decoded piece by piece as it is read.

    Raises `QueryRefusedError` for another encoding, or one whose package is not installed.
    """
    if encoding in ("", "identity"):
        return io.BufferedReader(body, CHUNK_BYTES)
    if encoding == "gzip":
        return cast(IO[bytes], gzip.GzipFile(fileobj=io.BufferedReader(body, CHUNK_BYTES)))
    if encoding == "zstd":
        reader = _import_codec("zstandard").ZstdDecompressor().stream_reader(body, read_across_frames=True)
        return io.BufferedReader(reader, CHUNK_BYTES)
    if encoding == "lz4":
        return _import_codec("lz4.frame").LZ4FrameFile(io.BufferedReader(body, CHUNK_BYTES))
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
def body_errors() -> Iterator[None]:
    """Within it, what cannot be decompressed is a `QueryRefusedError`."""
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


def read_form(content_type: str, body: IO[bytes]) -> dict[str, str]:
    """Return the fields of a multipart form: how clients send a statement whose parameters do not fit a URL.

    Raises `QueryRefusedError` for a form that is too long, or holds more than texts.
    """
    with body_errors():
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
        fields[name] = decode_sql(payload)
    return fields
