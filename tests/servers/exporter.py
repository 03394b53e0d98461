"""An exporter of Prometheus text as a test server: a real HTTP server on the loopback that sends what a test sets."""

import gzip
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@dataclass
class Exporter:
    """What the server does with the next request; a test changes it at will."""

    port: int
    body: bytes = b""
    content_type: str = TEXT
    status: int = 200
    compress: bool = False
    encoding: str = ""  # said, but not done
    says_length: bool = True
    waits_s: float = 0.0  # before it answers
    drip_s: float = 0.0  # between the bytes of its answer, status line included
    stops_after: int | None = None  # bytes of its body
    hangs_up: bool = False
    seen: list[Mapping[str, str]] = field(default_factory=list)  # headers of each request
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/metrics"

    def show(self, text: str) -> None:
        self.body = text.encode()


@contextmanager
def exporter(text: str = "") -> Iterator[Exporter]:
    """A running exporter."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    state = server.exporter = Exporter(server.server_address[1])  # type: ignore[attr-defined]
    state.show(text)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        state: Exporter = self.server.exporter  # type: ignore[attr-defined]
        state.seen.append(dict(self.headers))
        state.released.wait(state.waits_s)
        if state.hangs_up:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        with suppress(OSError):  # the reader may have had enough
            self._answer(state)

    def _answer(self, state: Exporter) -> None:
        body = gzip.compress(state.body) if state.compress else state.body
        encoding = "gzip" if state.compress else state.encoding
        head = [f"HTTP/1.1 {state.status} Whatever", f"Content-Type: {state.content_type}", "Connection: close"]
        head += [f"Content-Encoding: {encoding}"] if encoding else []
        head += [f"Content-Length: {len(body)}"] if state.says_length else []
        answer = "\r\n".join([*head, "", ""]).encode() + body[: state.stops_after]
        if not state.drip_s:
            self.wfile.write(answer)
            return
        for byte in answer:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(state.drip_s)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass
