"""A server that refuses everything and says back what it was told: the worst that an error message can be fed with."""

from __future__ import annotations

import ssl
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from tests.servers.certificates import Certificate


class _Echo(BaseHTTPRequestHandler):
    def _refuse(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        told = f"{self.requestline}\n{self.headers}\n".encode() + self.rfile.read(length)
        scheme, _, credentials = (self.headers.get("Authorization") or "").partition(" ")
        if scheme.lower() == "basic":
            told += b64decode(credentials)
        self.send_response(401, told.splitlines()[0].decode(errors="replace"))
        self.send_header("Content-Length", str(len(told)))
        self.send_header("X-Told", credentials)
        self.end_headers()
        self.wfile.write(told)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _refuse  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing: the tests look at what our processes say."""


@contextmanager
def echo_server(certificate: Certificate | None = None) -> Iterator[str]:
    """Its URL; https with a certificate."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate.certificate_file, certificate.key_file)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http{'s' if certificate else ''}://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
