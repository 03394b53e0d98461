"""One HTTP exchange after the other with one device: trust, absolute deadlines, bounded replies.

The time-out of an HTTP library starts anew with every byte, so a device that drips would hold its reader for ever. Here
the deadline is the socket's own. What went wrong becomes a DeviceError that says what has to be done.
"""

import re
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from http.cookiejar import DefaultCookiePolicy
from threading import Event
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from collectors.devices import DeviceError, DeviceState
from collectors.redfish.document import path_of
from collectors.redfish.settings import RedfishDevice, RedfishSettings
from collectors.redfish.tree import TimeIsUpError

_CHUNK_BYTES = 65_536
_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",  # a small compressed reply may be a huge one
    "OData-Version": "4.0",
    "User-Agent": "kvandal",
}
# A fork of urllib3 that other packages bring along takes its place: it would go over to HTTP/2, and to QUIC on whatever
# port the device names, and keeps a thread for each connection.
_VERSIONS = getattr(urllib3, "HttpVersion", None)
# Exceptions hold exceptions as arguments, reasons and causes; this many are looked at.
_MOST_CAUSES = 50


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back, its body whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _DeadlineSocket(ssl.SSLSocket):
    """A TLS socket that stops receiving at its context's deadline, however the bytes are spread."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - the base class's signature
        self._hurry()
        super().do_handshake(block)

    def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002, ANN401 - as the base class has it
        """What both recv and recv_into come down to."""
        self._hurry()
        return super().read(len, buffer)

    def _hurry(self) -> None:
        remaining_s = getattr(self.context, "deadline_s", 0.0) - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError("the deadline has passed")
        self.settimeout(remaining_s)


class _Context(ssl.SSLContext):
    """The trust in one device, and the instant by which it must have answered."""

    sslsocket_class = _DeadlineSocket
    deadline_s = 0.0  # monotonic


class _Adapter(HTTPAdapter):
    """Lets the context alone decide whom to trust; a fingerprint pins one certificate."""

    def __init__(self, context: ssl.SSLContext, fingerprint: str) -> None:
        self._options = {"ssl_context": context, "assert_fingerprint": fingerprint or None} | _plain_http()
        super().__init__(pool_connections=1, pool_maxsize=1)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: object) -> None:  # noqa: FBT001, FBT002 - the base class's signature
        super().init_poolmanager(connections, maxsize, block, **options, **self._options)

    def build_connection_pool_key_attributes(
        self,
        request: requests.PreparedRequest,
        verify: Any,  # noqa: ANN401 - the base class's types are private
        cert: Any = None,  # noqa: ANN401
    ) -> tuple[Any, Any]:
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        return host, {}

    def cert_verify(self, *args: object, **options: object) -> None:
        """The base class would put its own authorities in place of the context's."""


class RedfishTransport:
    """Sends requests to one device. Not for two threads at once; once `stopping` is set, nothing but farewells."""

    def __init__(self, device: RedfishDevice, limits: RedfishSettings, *, stopping: Event) -> None:
        self._device = device
        self._limits = limits
        self._stopping = stopping
        self._http: requests.Session | None = None
        self._context: _Context | None = None
        self._asked_s = 0.0
        self.until_s = 0.0  # of time.monotonic(): no request goes on beyond it

    def send(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: Mapping[str, str] | None = None
    ) -> Reply:
        """One request and its reply, whatever its status. Redirects are replies: they are not followed.

        Raises DeviceError: SLOW, UNREACHABLE, UNTRUSTED, or NONSENSE for what is no HTTP, compressed or too big; and
        TimeIsUpError where there was not even half of a request's time for it.
        """
        self._pause()
        if self._stopping.is_set() and method != "DELETE":
            raise TimeIsUpError("it is asked no more: the source is being closed")
        now_s = time.monotonic()
        deadline_s = min(now_s + self._limits.request_timeout_s, self.until_s)
        if deadline_s <= now_s:
            raise TimeIsUpError(f"no time was left to ask for {path}")
        http, context = self._connection()
        context.deadline_s = deadline_s
        try:
            with http.request(
                method,
                self._device.url + path,
                headers=headers,
                json=body,
                timeout=deadline_s - now_s,
                allow_redirects=False,
                stream=True,
            ) as response:
                return Reply(response.status_code, response.headers, self._body(path, response))
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            self.close()
            verdict = self._judge(path, error, late=time.monotonic() >= deadline_s)
            if verdict.state is DeviceState.SLOW and deadline_s - now_s < self._limits.request_timeout_s / 2:
                verdict = TimeIsUpError(f"too little time was left to ask for {path}")
            raise verdict from error
        finally:
            self._asked_s = time.monotonic()

    def _pause(self) -> None:
        """Wait until the device may be asked again, unless time is up before that."""
        pause_s = self._asked_s + self._limits.pause_s - time.monotonic()
        self._stopping.wait(max(min(pause_s, self.until_s - time.monotonic()), 0.0))

    def own_path(self, location: str, base: str = "") -> str:
        """The path that a Location header means; empty unless it is on this very service."""
        try:
            found = urlsplit(urljoin(self._device.url + base, location))
            same = _origin(found.geturl()) == _origin(self._device.url)
        except ValueError:
            return ""
        return path_of(found.path) if same and not found.query else ""

    def close(self) -> None:
        """Hang up; the next request connects anew."""
        if self._http is not None:
            self._http.close()
        self._http = self._context = None

    def _connection(self) -> tuple[requests.Session, _Context]:
        if self._http is None or self._context is None:
            self._context = self._trust()
            self._http = requests.Session()
            self._http.trust_env = False  # no proxy, no .netrc: the password is for the device alone
            self._http.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
            self._http.headers.update(_HEADERS)
            self._http.mount("https://", _Adapter(self._context, self._device.fingerprint))
        return self._http, self._context

    def _trust(self) -> _Context:
        context = _Context(ssl.PROTOCOL_TLS_CLIENT)
        if self._device.fingerprint:
            # Not less than verified: urllib3 compares the certificate with the one that the settings pin.
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif self._device.ca_file:
            self._load_authorities(context)
        else:
            context.load_default_certs()
        return context

    def _load_authorities(self, context: ssl.SSLContext) -> None:
        file = self._device.ca_file
        try:
            context.load_verify_locations(file)
        except OSError as error:  # ssl.SSLError is one
            why = "not a PEM file" if isinstance(error, ssl.SSLError) else error.strerror
            raise DeviceError(DeviceState.UNTRUSTED, f"ca_file {file} cannot be read: {why}") from error

    def _body(self, path: str, response: requests.Response) -> bytes:
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise DeviceError(DeviceState.NONSENSE, f"{path} answers compressed, which was not asked for")
        chunks, size = [], 0
        for chunk in response.iter_content(_CHUNK_BYTES):
            size += len(chunk)
            if size > self._limits.max_reply_bytes:
                raise DeviceError(
                    DeviceState.NONSENSE, f"{path} answers more than {self._limits.max_reply_bytes} bytes"
                )
            chunks.append(chunk)
        return b"".join(chunks)

    def _judge(self, path: str, error: Exception, *, late: bool) -> DeviceError:
        causes = list(_causes(error))
        distrust = next((cause for cause in causes if isinstance(cause, ssl.SSLCertVerificationError)), None)
        if distrust is not None:
            why = f"its certificate is not trusted ({distrust.verify_message}): give ca_file or fingerprint_sha256"
            return DeviceError(DeviceState.UNTRUSTED, why)
        if self._device.fingerprint and any("ingerprint" in str(cause) for cause in causes):
            return DeviceError(DeviceState.UNTRUSTED, "its certificate is not the one of fingerprint_sha256")
        if any(isinstance(cause, requests.ConnectTimeout) for cause in causes):
            return DeviceError(DeviceState.UNREACHABLE, "nobody answers at its address")
        if late or any(isinstance(cause, TimeoutError | requests.Timeout) for cause in causes):
            return DeviceError(DeviceState.SLOW, f"{path} was not answered in time")
        return _broken(path, error, causes)


def _plain_http() -> dict[str, Any]:
    if _VERSIONS is None:
        return {}
    return {"disabled_svn": {_VERSIONS.h2, _VERSIONS.h3}, "background_watch_delay": None}


def _broken(path: str, error: Exception, causes: list[BaseException]) -> DeviceError:
    if isinstance(error, requests.exceptions.SSLError):
        return DeviceError(DeviceState.NONSENSE, "it does not speak TLS as it should")
    # A server that hangs up before it answers is an OSError as well, and no nonsense.
    if any(isinstance(cause, HTTPException) and not isinstance(cause, OSError) for cause in causes):
        return DeviceError(DeviceState.NONSENSE, f"{path} breaks off, or answers what is no HTTP")
    said = next((cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror), "")
    if said or isinstance(error, requests.ConnectionError):
        why = re.sub(r"[^ -~]", "", said) or "the connection was closed"
        return DeviceError(DeviceState.UNREACHABLE, f"it cannot be connected to: {why}")
    return DeviceError(DeviceState.NONSENSE, f"{path} answers what is no HTTP ({type(error).__name__})")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and those within it."""
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_CAUSES:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [*one.args, getattr(one, "reason", None), one.__cause__, one.__context__]


def _origin(url: str) -> tuple[str, str | None, int]:
    found = urlsplit(url)
    return found.scheme, found.hostname, found.port or 443
