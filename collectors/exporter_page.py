"""An exporter's page over HTTP. It is somebody else's program: its text is bounded in size and time."""

import http.client
import socket
import ssl
import zlib
from collections.abc import Collection, Mapping
from contextlib import closing, suppress
from functools import partial
from threading import Event, Timer
from urllib.parse import urlsplit

from collectors.prometheus_text import Exposition, parse_text
from collectors.source import SourceUnavailableError

TIMEOUT_S = 3.0
# Several times what an exporter of a node with eight GPUs in MIG mode and pod labels sends.
MAX_PAGE_BYTES = 8 << 20
MAX_POINTS = 100_000
CHUNK_BYTES = 1 << 16


class ExporterPage:
    """An exporter's page. One GET per call, without redirects, with a limit on its time and size.

    `headers` go with each request, such as an Authorization. Raises ValueError for an address that is none.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = TIMEOUT_S,
        limit_bytes: int = MAX_PAGE_BYTES,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise ValueError(
                f"{parts.scheme}://{parts.hostname or ''} is not an exporter's address; give one such as "
                "http://127.0.0.1:9400/metrics, and secrets by headers"
            )
        self.url = url
        self._https = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._timeout_s = timeout_s
        self._limit_bytes = limit_bytes
        self._headers = {
            "Accept": "text/plain;version=0.0.4",
            "Accept-Encoding": "gzip",
            "Connection": "close",
            "User-Agent": "kvandal",
            **(headers or {}),
        }

    def read(self, families: Collection[str]) -> Exposition:
        """What the page says about `families`. SourceUnavailableError says why there is no page, and what to do."""
        body, kind = self._get()
        exposition = parse_text(
            body.decode("utf-8", "replace"), families, openmetrics=kind.startswith("application/openmetrics-text")
        )
        count = sum(map(len, exposition.points.values()))
        if count > MAX_POINTS:
            raise self._unavailable(f"has {count} samples, more than {MAX_POINTS}", "let it export less")
        return exposition

    def _get(self) -> tuple[bytes, str]:
        """The page's bytes and content type."""
        late = Event()
        try:
            with closing(self._connection()) as connection:
                connection.connect()
                # The socket's own timeout starts anew with every byte: this one does not.
                timer = Timer(self._timeout_s, partial(_cut_off, connection.sock, late))
                timer.daemon = True
                timer.start()
                try:
                    answer = self._ask(connection)
                finally:
                    timer.cancel()
        except TimeoutError as error:
            raise self._too_slow() from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            if late.is_set():
                raise self._too_slow() from error
            why = str(error) or type(error).__name__
            raise self._unavailable(f"does not answer ({why})", "see whether the exporter runs there") from error
        if late.is_set():
            raise self._too_slow()
        return answer

    def _connection(self) -> http.client.HTTPConnection:
        if self._https:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=context)
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)

    def _ask(self, connection: http.client.HTTPConnection) -> tuple[bytes, str]:
        connection.request("GET", self._target, headers=self._headers)
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise self._unavailable(f"answers {response.status}", "check the address, its path and its access rights")
        encoding = response.getheader("Content-Encoding", "identity").lower()
        if encoding not in ("identity", "gzip"):
            raise self._unavailable(f"sends {encoding[:40]}", "let it send plain text or gzip")
        body = self._body(response, zlib.decompressobj(31) if encoding == "gzip" else None)
        return body, response.getheader("Content-Type", "")

    def _body(self, response: http.client.HTTPResponse, gzip: "zlib._Decompress | None") -> bytes:
        parts = []
        size = 0
        while chunk := response.read(CHUNK_BYTES):
            if gzip is not None:
                try:
                    chunk = gzip.decompress(chunk, self._limit_bytes + 1 - size)
                except zlib.error as error:
                    raise self._unavailable(f"sends broken gzip ({error})", "see its log") from error
            parts.append(chunk)
            size += len(chunk)
            if size > self._limit_bytes:
                raise self._unavailable(f"sends more than {self._limit_bytes} bytes", "let it export less")
        if response.length or (gzip is not None and not gzip.eof):
            raise self._unavailable("breaks off in the middle of its page", "see its log")
        return b"".join(parts)

    def _too_slow(self) -> SourceUnavailableError:
        return self._unavailable(
            f"has not sent its page within {self._timeout_s:g} s", "see whether it hangs, or give it more time"
        )

    def _unavailable(self, what: str, advice: str) -> SourceUnavailableError:
        return SourceUnavailableError(f"exporter {self.url} {what}: {advice}")


def _cut_off(connected: socket.socket, late: Event) -> None:
    late.set()
    with suppress(OSError):
        socket.socket.shutdown(connected, socket.SHUT_RDWR)  # past TLS, which must not wait for its own farewell
