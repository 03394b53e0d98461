"""Management controllers of the simulated site: Redfish over HTTPS, each with sessions and a port of its own.

DMTF DSP0266: a session's token comes with X-Auth-Token; only the service root can be read without one. What a document
says follows from the moment that is shown, when it is asked for.
"""

import hmac
import json
import secrets
import selectors
import socket
import ssl
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from simulation.serving.redfish_documents import REPORT, ROOT, SESSIONS, Json, Tree, expanded, report_of
from simulation.serving.serving import Moment

IDLE_S = 120.0  # a connection that asks nothing for so long is closed
MAX_SESSIONS = 16  # of one controller; the oldest makes room
MAX_REQUEST_BYTES = 4096
_POLL_S = 0.2

Reply = tuple[int, Mapping[str, str], Json | None]


@dataclass(frozen=True, slots=True)
class Account:
    """Who may read."""

    username: str
    password: str = field(repr=False)

    def is_of(self, username: str, password: str) -> bool:
        given, own = f"{username}\0{password}", f"{self.username}\0{self.password}"
        return hmac.compare_digest(given.encode(), own.encode())


@dataclass(slots=True, eq=False)
class Controller:
    """One management controller: its documents at a moment, and its sessions. Safe for several threads.

    `requests` counts the documents that were asked for.
    """

    documents: Callable[[Moment], Tree]
    account: Account
    requests: int = 0
    _moment: Moment | None = None
    _shown: tuple[Moment, Tree] | None = None
    _sessions: OrderedDict[str, str] = field(default_factory=OrderedDict)  # path by token
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def show(self, moment: Moment) -> None:
        self._moment = moment

    def get(self, path: str, token: str) -> Reply:
        """The document at a path."""
        with self._lock:
            self.requests += 1
        plain, _, query = unquote(path).partition("?")
        name = plain.rstrip("/").removeprefix(ROOT).strip("/")
        if name and not self._knows(token):
            return HTTPStatus.UNAUTHORIZED, {}, _message("NoValidSession")
        tree = self._tree()
        document = tree.get(name) if tree is not None and plain.startswith(ROOT) else None
        if tree is None or document is None:
            gone = HTTPStatus.SERVICE_UNAVAILABLE if tree is None else HTTPStatus.NOT_FOUND
            return gone, {}, _message("ResourceMissingAtURI")
        return HTTPStatus.OK, {}, expanded(tree, document) if "$expand" in query else document

    def sign_in(self, path: str, sent: object) -> Reply:
        """Open a session."""
        if path.rstrip("/") != f"{ROOT}/{SESSIONS}" or not isinstance(sent, dict):
            return HTTPStatus.METHOD_NOT_ALLOWED, {}, _message("OperationNotAllowed")
        if not self.account.is_of(str(sent.get("UserName")), str(sent.get("Password"))):
            return HTTPStatus.UNAUTHORIZED, {}, _message("NoValidSession")
        token, where = secrets.token_urlsafe(24), f"{ROOT}/{SESSIONS}/{secrets.token_hex(8)}"
        with self._lock:
            self._sessions[token] = where
            while len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)
        return HTTPStatus.CREATED, {"X-Auth-Token": token, "Location": where}, {"@odata.id": where}

    def sign_out(self, path: str, token: str) -> Reply:
        """End one's own session."""
        with self._lock:
            if not token or self._sessions.get(token) != path:
                return HTTPStatus.UNAUTHORIZED, {}, _message("NoValidSession")
            del self._sessions[token]
        return HTTPStatus.NO_CONTENT, {}, None

    def _knows(self, token: str) -> bool:
        with self._lock:
            return token in self._sessions

    def _tree(self) -> Tree | None:
        """All documents of the moment, with its report."""
        moment, shown = self._moment, self._shown
        if moment is None:
            return None
        if shown is None or shown[0] is not moment:
            tree = self.documents(moment)
            tree[REPORT] = report_of(tree, moment.time_s)
            self._shown = shown = moment, tree
        return shown[1]


class RedfishServing:
    """A server of several controllers, each behind its port; port 0 takes a free one, which `ports` tells."""

    def __init__(
        self, controllers: Sequence[Controller], *, ports: Sequence[int], host: str, certificate: Path, key: Path
    ) -> None:
        self._controllers = tuple(controllers)
        self._where = [(host, port) for port in ports]
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._listeners: list[_Listener] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="redfish-serving", daemon=True)
        self.ports: tuple[int, ...] = ()

    def start(self) -> None:
        """Return once it listens. Raises OSError when a port is taken."""
        try:
            for controller, (host, port) in zip(self._controllers, self._where, strict=True):
                self._listeners.append(_Listener((host, port), controller, self._context))
        except OSError as error:
            self.close()
            raise OSError(f"Redfish cannot be served on {host}:{port}: {error}; give another first port") from error
        self.ports = tuple(listener.server_address[1] for listener in self._listeners)
        self._thread.start()

    def show(self, moment: Moment) -> None:
        for controller in self._controllers:
            controller.show(moment)

    def requests(self) -> int:
        """How many documents were asked for, of all controllers."""
        return sum(controller.requests for controller in self._controllers)

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        for listener in self._listeners:
            listener.server_close()
        self._listeners.clear()

    def _accept(self) -> None:
        """One thread waits for all: hundreds of ports need no thread each."""
        with selectors.DefaultSelector() as selector:
            for listener in self._listeners:
                selector.register(listener, selectors.EVENT_READ, listener)
            while not self._stop.is_set():
                for ready, _ in selector.select(_POLL_S):
                    ready.data.handle_request()


class _Listener(ThreadingHTTPServer):
    """A controller's port; every connection has a thread of its own."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    timeout = 0.0

    def __init__(self, address: tuple[str, int], controller: Controller, context: ssl.SSLContext) -> None:
        self.controller = controller
        self._context = context
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Without the base class's look into the name service."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def finish_request(self, request: object, client_address: object) -> None:
        """TLS in the connection's own thread: a client that does not shake hands holds up nobody."""
        if not isinstance(request, socket.socket):
            raise TypeError(f"a connection was expected, not {request!r}")
        request.settimeout(IDLE_S)
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError), self._context.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "simulated-site"
    wbufsize = -1  # head and body in one piece
    server: _Listener

    def do_GET(self) -> None:
        self._answer(self.server.controller.get(self.path, self._token()))

    def do_POST(self) -> None:
        told = self.headers.get("Content-Length") or ""
        length = int(told) if told.isdecimal() else 0
        if not 0 < length <= MAX_REQUEST_BYTES:
            self.close_connection = True
            self._answer((HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {}, None))
            return
        try:
            sent = json.loads(self.rfile.read(length))
        except ValueError:
            self._answer((HTTPStatus.BAD_REQUEST, {}, _message("MalformedJSON")))
            return
        self._answer(self.server.controller.sign_in(self.path, sent))

    def do_DELETE(self) -> None:
        self._answer(self.server.controller.sign_out(self.path, self._token()))

    def _token(self) -> str:
        return self.headers.get("X-Auth-Token") or ""

    def _answer(self, reply: Reply) -> None:
        status, headers, document = reply
        body = b"" if document is None else json.dumps(document).encode()
        with suppress(OSError):  # the client may have gone
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != HTTPStatus.NO_CONTENT:
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing: a reader comes every few seconds."""


def _message(name: str) -> Json:
    return {"error": {"@Message.ExtendedInfo": [{"MessageId": f"Base.1.18.{name}"}]}}
