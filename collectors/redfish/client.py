"""Reads documents from one Redfish service: sessions, redirects, entity tags.

The password is read when it is needed and sent to the device alone; a session is renewed once when it has run out, and
ended at the end, since a management controller has room for few. DMTF DSP0266, "Protocol details", "Security details".
"""

import base64
import logging
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from collectors.devices import DeviceError, DeviceState
from collectors.redfish.document import ROOT, Document, link_at, objects_in, parse_document, path_of, text_at
from collectors.redfish.settings import RedfishDevice, RedfishSettings
from collectors.redfish.transport import RedfishTransport, Reply

SESSIONS = "/redfish/v1/SessionService/Sessions"
REFUSED_PAUSE_S = 900.0  # before a password that was refused is tried again: tries lock accounts
MAX_PASSWORD_BYTES = 1024
MAX_REDIRECTS = 2
MAX_KEPT_BYTES = 4 << 20  # of replies that are kept for their tags
MAX_REUSES = 10  # of a kept reply, then it is asked for again: some firmware never changes its tags
GOODBYE_S = 2.0  # to end the session
_NOT_THERE = frozenset({404, 405, 410, 501})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")
_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]{1,250}"')
_MESSAGE = re.compile(r"[A-Za-z0-9.]{1,100}")

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Kept:
    """A document that its device has tagged."""

    tag: str
    document: Document
    size: int
    reuses: int = 0


class RedfishClient:
    """One device's service. Not for two threads at once.

    Every method that asks raises DeviceError, whose state says what has to be done. `stopping` ends its pauses.
    """

    def __init__(self, device: RedfishDevice, limits: RedfishSettings, *, stopping: Event | None = None) -> None:
        self._device = device
        self._transport = RedfishTransport(device, limits, stopping=stopping or Event())
        self._token = ""
        self._basic = ""
        self._session_path = ""
        self._refused: tuple[int, float] | None = None  # the password's hash, and when
        self._kept: dict[str, _Kept] = {}
        self._kept_bytes = 0
        self._trusts_tags = device.etags == "auto"
        self.forbidden = 0  # documents that our account may not read
        self.received_bytes = 0  # of documents

    def begin(self, until_s: float) -> None:
        """Ask until this instant of time.monotonic()."""
        self._transport.until_s = until_s

    def get(self, path: str, *, fresh: bool = False) -> Document | None:
        """The document at a path; None where there is none for us. `fresh`: the device shall send it anew."""
        kept = self._kept.get(path)
        if not self._trusts_tags or fresh or (kept is not None and kept.reuses >= MAX_REUSES):
            kept = None
        reply = self._ask(path, {"If-None-Match": kept.tag} if kept is not None else {})
        if reply.status == 304 and kept is not None:
            kept.reuses += 1
            return kept.document
        if reply.status == 403:
            self.forbidden += 1
        if reply.status == 403 or reply.status in _NOT_THERE:
            return None
        if reply.status != 200:
            raise DeviceError(DeviceState.NONSENSE, f"{path} answers HTTP {reply.status}{_message_of(reply)}")
        self.received_bytes += len(reply.body)
        document = _parse(path, reply)
        self._keep(path, reply, document)
        return document

    def forget(self, *, but: Iterable[str]) -> None:
        """Keep no documents besides those at these paths."""
        wanted = set(but)
        self._kept = {path: kept for path, kept in self._kept.items() if path in wanted}
        self._kept_bytes = sum(kept.size for kept in self._kept.values())

    def close(self) -> None:
        """End the session at the device; safe to call twice."""
        if self._token and self._session_path:
            self.begin(time.monotonic() + GOODBYE_S)
            with suppress(DeviceError):
                self._transport.send("DELETE", self._session_path, headers=self._credentials())
        self._token = self._basic = ""
        self._transport.close()

    def _ask(self, path: str, headers: Mapping[str, str]) -> Reply:
        """GET with our credentials; a session that has run out is renewed once."""
        self._sign_in()
        reply = self._follow(path, headers)
        if reply.status == 401:
            self._token = self._basic = ""
            self._sign_in()
            reply = self._follow(path, headers)
        if reply.status == 401:
            raise DeviceError(DeviceState.REFUSED, f"{path} answers HTTP 401 right after signing in")
        return reply

    def _follow(self, path: str, headers: Mapping[str, str]) -> Reply:
        """GET with credentials; redirects are followed within this service only."""
        asked = path
        for _ in range(MAX_REDIRECTS + 1):
            asked = f"{path}/" if path == ROOT else path
            reply = self._transport.send("GET", asked, headers={**headers, **self._credentials()})
            if reply.status not in _REDIRECTS:
                return reply
            path = self._transport.own_path(reply.headers.get("Location", ""), asked)
            if not path:
                raise DeviceError(DeviceState.NONSENSE, f"{asked} redirects to elsewhere, which is not followed")
        raise DeviceError(DeviceState.NONSENSE, f"{asked} redirects again and again")

    def _sign_in(self) -> None:
        if self._token or self._basic:
            return
        password = self._password()
        self._spare(password)
        if self._device.authentication == "basic" or not self._open_session(password):
            pair = f"{self._device.username}:{password}".encode()
            self._basic = "Basic " + base64.b64encode(pair).decode("ascii")

    def _password(self) -> str:
        """Read anew at each signing in; the file's name may be told, its content never."""
        file = Path(self._device.password_file)
        try:
            with file.open("rb") as stream:
                return stream.read(MAX_PASSWORD_BYTES).decode("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise DeviceError(DeviceState.REFUSED, f"password_file {file} cannot be read: {why}") from error

    def _spare(self, password: str) -> None:
        """Raise, instead of asking, with a password that was refused a while ago."""
        if self._refused is None or self._refused[0] != hash(password):
            return
        if time.monotonic() - self._refused[1] < REFUSED_PAUSE_S:
            raise self._refusal("the password in its password_file was refused")

    def _refusal(self, why: str) -> DeviceError:
        return DeviceError(DeviceState.REFUSED, f"signing in as {self._device.username!r}: {why}")

    def _open_session(self, password: str) -> bool:
        """False where the device has no sessions and the settings allow the password in every request instead."""
        body = {"UserName": self._device.username, "Password": password}
        reply = self._transport.send("POST", self._sessions(), body=body)
        if reply.status in _NOT_THERE and self._device.authentication == "session_or_basic":
            return False
        token, message = reply.headers.get("X-Auth-Token", ""), _message_of(reply)
        if reply.status in (200, 201) and _TOKEN.fullmatch(token):
            self._token, self._session_path = token, self._place_of(reply)
            return True
        if reply.status in (400, 401, 403):
            if "SessionLimit" not in message:
                self._refused = hash(password), time.monotonic()
            raise self._refusal(f"HTTP {reply.status}{message}")
        raise DeviceError(DeviceState.NONSENSE, f"it opens no session: HTTP {reply.status}{message}")

    def _sessions(self) -> str:
        """Where sessions are opened: as the root says, which everyone may read."""
        reply = self._transport.send("GET", f"{ROOT}/")
        return (link_at(_parse(ROOT, reply), "Links/Sessions") if reply.status == 200 else "") or SESSIONS

    def _place_of(self, reply: Reply) -> str:
        """The session's own path, to end it by; empty where the device does not say, or names another host."""
        with suppress(ValueError):
            return self._transport.own_path(reply.headers.get("Location", "")) or path_of(
                parse_document(reply.body).get("@odata.id")
            )
        return ""

    def _credentials(self) -> dict[str, str]:
        return {"X-Auth-Token": self._token} if self._token else {"Authorization": self._basic}

    def _keep(self, path: str, reply: Reply, document: Document) -> None:
        """Keep a tagged document, and trust tags no more that stay the same while the document changes."""
        tag, before = reply.headers.get("ETag", ""), self._kept.pop(path, None)
        if before is not None:
            self._kept_bytes -= before.size
        if not self._trusts_tags or not _TAG.fullmatch(tag):
            return
        if before is not None and before.tag == tag and before.document != document:
            self._trusts_tags, self._kept, self._kept_bytes = False, {}, 0
            _log.warning("A device changes documents but not their tags", extra={"device": self._device.name})
        elif self._kept_bytes + len(reply.body) <= MAX_KEPT_BYTES:
            self._kept[path] = _Kept(tag, document, len(reply.body))
            self._kept_bytes += len(reply.body)


def _parse(path: str, reply: Reply) -> Document:
    try:
        return parse_document(reply.body)
    except ValueError as error:
        text = f"{path} answers {len(reply.body)} bytes that are no JSON object"
        raise DeviceError(DeviceState.NONSENSE, text) from error


def _message_of(reply: Reply) -> str:
    """The name of the message that an error reply carries (DSP0266, "Error responses"), in brackets; else nothing."""
    try:
        document = parse_document(reply.body)
    except ValueError:
        return ""
    for message in objects_in(document, "error/@Message.ExtendedInfo")[:1]:
        name = text_at(message, "MessageId", 100)
        return f" ({name})" if _MESSAGE.fullmatch(name) else ""
    return ""
