"""A Redfish service as a test server: HTTPS with sessions on the loopback, a tree of documents, and faults on demand.

The tree and all documents are made for these tests after the schemas of DSP8010; they are nobody's mock-up.
"""

import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

ROOT = "/redfish/v1"
SESSIONS = f"{ROOT}/SessionService/Sessions"
USER, PASSWORD = "reader", "correct horse"

Json = dict[str, object]


class ServerUnavailable(Exception):  # noqa: N818 - the name that tests/conftest.py looks for
    """The server cannot be had on this machine; the message says what it needs."""


@dataclass(frozen=True, slots=True)
class Certificates:
    """A server's certificate for 127.0.0.1, and the authority that signed it."""

    authority: Path
    certificate: Path
    key: Path

    @property
    def fingerprint(self) -> str:
        return sha256(ssl.PEM_cert_to_DER_cert(self.certificate.read_text())).hexdigest()


def make_certificates(directory: Path) -> Certificates:
    """Keys and certificates that are good for a day, made by OpenSSL's command."""
    if shutil.which("openssl") is None:
        raise ServerUnavailable("the command openssl is not installed: Debian package openssl")
    authority, certificate, key = directory / "authority.pem", directory / "server.pem", directory / "server.key"
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    authority_key = directory / "authority.key"
    subject = ["-addext", "basicConstraints=critical,CA:TRUE", "-subj", "/CN=test authority"]
    _openssl("req", "-x509", *new_key, "-keyout", str(authority_key), "-out", str(authority), *subject)
    signed_by = ["-CA", str(authority), "-CAkey", str(authority_key)]
    named = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    named += ["-addext", "basicConstraints=critical,CA:FALSE"]
    _openssl("req", "-x509", *new_key, "-keyout", str(key), "-out", str(certificate), *signed_by, *named)
    return Certificates(authority, certificate, key)


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=30)


@dataclass(frozen=True, slots=True)
class Seen:
    """One request."""

    method: str
    path: str
    headers: Mapping[str, str]
    at_s: float  # monotonic


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is answered in place of a document."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    says_bytes: int | None = None  # Content-Length, if not the body's
    drip_s: float = 0.0  # between the bytes, status line included
    hangs: bool = False  # until the server ends
    hangs_up: bool = False
    times: int = -1  # so often, then the document again; -1 for ever


@dataclass
class Service:
    """What the server has and does; a test changes it at will."""

    port: int = 0
    documents: dict[str, Json] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    password: str = PASSWORD
    tags: bool = False
    stuck_tags: bool = False  # the same for every state of a document
    expands: bool = False
    has_sessions: bool = True
    accepts_basic: bool = False
    most_sessions: int = 4
    sessions: dict[str, str] = field(default_factory=dict)  # path by token
    seen: list[Seen] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    released: threading.Event = field(default_factory=threading.Event)
    _sessions_made: int = 0

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def add(self, tree: Mapping[str, Json]) -> None:
        """Documents by path below the root; collections are made of what is in them."""
        self.documents |= {f"{ROOT}/{path}".rstrip("/"): dict(document) for path, document in tree.items()}

    def change(self, path: str, **properties: object) -> None:
        """Properties of a document; dictionaries are joined, so that one number in an excerpt can be changed."""
        document = self.documents[f"{ROOT}/{path}"]
        for name, value in properties.items():
            before = document.get(name)
            document[name] = {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value

    def break_(self, path: str, fault: Fault) -> None:
        self.faults[f"{ROOT}/{path}".rstrip("/")] = fault

    def mend(self) -> None:
        self.faults.clear()

    def expire(self) -> None:
        """All sessions run out."""
        with self.lock:
            self.sessions.clear()

    def asked(self) -> list[str]:
        """The documents that were asked for since the last call, in their order; not those of signing in."""
        with self.lock:
            seen, self.seen[:] = list(self.seen), []
        prefix = f"{ROOT}/"
        return [
            unquote(one.path).removeprefix(prefix)
            for one in seen
            if one.method == "GET" and one.path.rstrip("/") != ROOT
        ]

    def methods(self, method: str) -> list[Seen]:
        with self.lock:
            return [one for one in self.seen if one.method == method]

    # What a request does ----------------------------------------------------------------------------------------------

    def open_session(self, sent: Mapping[str, object]) -> tuple[int, dict[str, str], bytes]:
        if not self.has_sessions:
            return 404, {}, b""
        if sent.get("UserName") != USER or sent.get("Password") != self.password:
            return 401, {}, _error("Base.1.18.NoValidSession")
        if len(self.sessions) >= self.most_sessions:
            return 400, {}, _error("Base.1.18.SessionLimitExceeded")
        self._sessions_made += 1
        path, token = f"{SESSIONS}/{self._sessions_made}", f"token-{self._sessions_made}"
        self.sessions[token] = path
        return 201, {"X-Auth-Token": token, "Location": path}, json.dumps({"@odata.id": path}).encode()

    def allows(self, headers: Mapping[str, str]) -> bool:
        if headers.get("X-Auth-Token") in self.sessions:
            return True
        pair = b64encode(f"{USER}:{self.password}".encode()).decode()
        return self.accepts_basic and headers.get("Authorization") == f"Basic {pair}"

    def document(self, path: str) -> Json | None:
        plain, _, query = path.partition("?")
        found = self.documents.get(plain.rstrip("/"))
        if found is None or "$expand" not in unquote(query) or not self.expands:
            return found
        members = found.get("Members")
        links = [one["@odata.id"] for one in members] if isinstance(members, list) else []
        return found | {"Members": [self.documents[link] for link in links if link in self.documents]}

    def tag_of(self, document: Json) -> str:
        state = "always" if self.stuck_tags else json.dumps(document, sort_keys=True)
        return f'"{sha256(state.encode()).hexdigest()[:16]}"'


def _error(message: str) -> bytes:
    return json.dumps({"error": {"@Message.ExtendedInfo": [{"MessageId": message}]}}).encode()


def collect(documents: dict[str, Json]) -> dict[str, Json]:
    """The tree with each document's own address, and with a collection wherever a link leads to members."""
    tree = {path: {"@odata.id": f"{ROOT}/{path}".rstrip("/"), **document} for path, document in documents.items()}
    for path in list(tree):
        above, _, _ = path.rpartition("/")
        if above and above not in documents:
            members = tree.setdefault(above, {"@odata.id": f"{ROOT}/{above}", "Members": []})["Members"]
            assert isinstance(members, list)
            members.append({"@odata.id": f"{ROOT}/{path}"})
    return tree


def link(path: str) -> Json:
    return {"@odata.id": f"{ROOT}/{path}"}


@contextmanager
def redfish_service(certificates: Certificates) -> Iterator[Service]:
    """A running service without documents, besides its root."""
    server = _Server(("127.0.0.1", 0), _Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate, certificates.key)
    server.context = context
    service = server.service = Service(server.server_address[1])
    service.documents[ROOT] = {"Links": {"Sessions": {"@odata.id": SESSIONS}}}
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    context: ssl.SSLContext
    service: Service

    def finish_request(self, request: object, client_address: object) -> None:
        """TLS in the request's own thread: a client that does not shake hands holds up nobody."""
        assert isinstance(request, socket.socket)
        request.settimeout(30)
        with suppress(OSError), self.context.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one piece: or each reply waits for the acknowledgement of its head
    server: _Server

    def do_GET(self) -> None:
        service = self._note()
        fault = self._fault(service)
        if fault is not None:
            self._break(service, fault)
            return
        document = service.document(self.path)
        if self.path.rstrip("/") != ROOT and not service.allows(self.headers):  # type: ignore[arg-type]
            self._answer(401, {}, _error("Base.1.18.NoValidSession"))
        elif document is None:
            self._answer(404, {}, _error("Base.1.18.ResourceMissingAtURI"))
        else:
            tag = service.tag_of(document)
            told = {"ETag": tag} if service.tags else {}
            if service.tags and self.headers.get("If-None-Match") == tag:
                self._answer(304, told, b"")
            else:
                self._answer(200, told, json.dumps(document).encode())

    def do_POST(self) -> None:
        service = self._note()
        sent = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))))
        if (fault := self._fault(service)) is not None:
            self._break(service, fault)
        elif self.path == SESSIONS:
            self._answer(*service.open_session(sent))
        else:
            self._answer(405, {}, b"")

    def do_DELETE(self) -> None:
        service = self._note()
        token = self.headers.get("X-Auth-Token", "")
        if service.sessions.get(token) == self.path:
            del service.sessions[token]
            self._answer(204, {}, b"")
        else:
            self._answer(401, {}, b"")

    def _note(self) -> Service:
        service = self.server.service
        with service.lock:
            service.seen.append(Seen(self.command, self.path, dict(self.headers), time.monotonic()))
        return service

    def _fault(self, service: Service) -> Fault | None:
        with service.lock:
            fault = service.faults.get(self.path.partition("?")[0].rstrip("/"))
            if fault is None or fault.times == 0:
                return None
            if fault.times > 0:
                key = self.path.partition("?")[0].rstrip("/")
                service.faults[key] = Fault(**{**_fields(fault), "times": fault.times - 1})  # type: ignore[arg-type]
            return fault

    def _break(self, service: Service, fault: Fault) -> None:
        if fault.hangs:
            service.released.wait(30)
        if fault.hangs or fault.hangs_up:
            self.close_connection = True
            return
        length = len(fault.body) if fault.says_bytes is None else fault.says_bytes
        lines = [f"HTTP/1.1 {fault.status} Whatever", f"Content-Length: {length}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in fault.headers.items()]
        self.close_connection = True
        self._send("\r\n".join([*lines, "", ""]).encode() + fault.body, fault.drip_s)

    def _send(self, answer: bytes, drip_s: float) -> None:
        with suppress(OSError):  # the reader may have had enough
            if not drip_s:
                self.wfile.write(answer)
                return
            for byte in answer:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(drip_s)

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        with suppress(OSError):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status not in (204, 304):
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


def _fields(fault: Fault) -> dict[str, object]:
    return {name: getattr(fault, name) for name in Fault.__dataclass_fields__}
