"""Requests and replies of SNMP, on the pysnmp library: the only module that knows it.

Everything here runs in one event loop. One engine speaks with one set of credentials; each agent has a socket of its
own, connected to its address, so that no other device can answer for it.
"""

# ruff: noqa: ANN401 - pysnmp ships no types: its objects are Any, and stay inside this module

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from typing import Any

from pyasn1.type import univ  # type: ignore[import-untyped]
from pysnmp.carrier.asyncio.dgram import udp, udp6  # type: ignore[import-untyped]
from pysnmp.carrier.asyncio.dispatch import AsyncioDispatcher  # type: ignore[import-untyped]
from pysnmp.entity import config  # type: ignore[import-untyped]
from pysnmp.entity.engine import SnmpEngine  # type: ignore[import-untyped]
from pysnmp.entity.rfc3413 import cmdgen  # type: ignore[import-untyped]
from pysnmp.error import PySnmpError  # type: ignore[import-untyped]
from pysnmp.proto import errind, rfc1902, rfc1905  # type: ignore[import-untyped]
from pysnmp.proto.api import decodeMessageVersion  # type: ignore[import-untyped]
from pysnmp.proto.error import ProtocolError, StatusInformation  # type: ignore[import-untyped]

from collectors.devices import DeviceError, DeviceState
from collectors.snmp.map import Oid
from collectors.snmp.plan import Found
from collectors.snmp.secrets import CommunitySecret, Secret, UserSecret

logger = logging.getLogger(__name__)

TIMER_S = 0.2  # how often an engine looks for requests that were not answered
MAX_REPLY_BYTES = 16_384  # forty values of the longest text; more is not decoded
MAX_DATAGRAMS = 16  # for one request, its repetition and the discovery before it; more are not decoded
MAX_TEXT_BYTES = 256

# RFC 3416, 3: error-status
TOO_BIG, NO_SUCH_NAME, GENERAL_ERROR, NO_ACCESS, AUTHORIZATION_ERROR = 1, 2, 5, 6, 16

_AUTH = {
    "none": config.USM_AUTH_NONE,
    "SHA": config.USM_AUTH_HMAC96_SHA,
    "SHA-224": config.USM_AUTH_HMAC128_SHA224,
    "SHA-256": config.USM_AUTH_HMAC192_SHA256,
    "SHA-384": config.USM_AUTH_HMAC256_SHA384,
    "SHA-512": config.USM_AUTH_HMAC384_SHA512,
}
_PRIVACY = {
    "none": config.USM_PRIV_NONE,
    "AES-128": config.USM_PRIV_CFB128_AES,
    "AES-256": config.USM_PRIV_CFB256_AES_BLUMENTHAL,
    "AES-256-Cisco": config.USM_PRIV_CFB256_AES,
}
_PARAMETERS = "kvandal"
_NULL = rfc1905.unSpecified
_MODULI = {rfc1902.Counter32: 1 << 32, rfc1902.Counter64: 1 << 64}

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Reply:
    """What an agent answered; an object that it does not have is None, and one after its last has an empty name."""

    error: int
    index: int  # from 1, which object the error is about; 0 for none
    objects: tuple[tuple[Oid, Found | None], ...]


class NoReplyError(Exception):
    """Nothing that is an answer came in time. Of the datagrams that came, `heard` were SNMP, `rubbish` fit nothing."""

    def __init__(self, *, heard: int = 0, rubbish: int = 0, refused: bool = False) -> None:
        super().__init__()
        self.heard = heard
        self.rubbish = rubbish
        self.refused = refused


class RejectedError(Exception):
    """The agent reported, or our engine found, that they cannot talk; `reason` is pysnmp's name for it."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Speaker:
    """An SNMP engine that speaks with one set of credentials, to any number of agents.

    DeviceError, REFUSED, when the credentials need what is not installed.
    """

    def __init__(self, secret: Secret, *, timeout_s: float) -> None:
        if isinstance(secret, UserSecret) and secret.privacy != "none" and find_spec("cryptography") is None:
            text = "privacy of SNMPv3 needs the package cryptography, which is not here; install it, or do without"
            raise DeviceError(DeviceState.REFUSED, text)
        self._timeout_s = timeout_s
        self._engine: Any = SnmpEngine()
        dispatcher = AsyncioDispatcher()
        dispatcher.set_timer_resolution(TIMER_S)
        self._engine.register_transport_dispatcher(dispatcher)
        # Without any transport the dispatcher stops its clock, and what was not answered would be kept for ever.
        config.add_transport(self._engine, (*udp.DOMAIN_NAME, 0), _Wire(self))
        self._numbers = count(1)
        self.receiving: _Wire | None = None  # whose datagram is being decoded
        self.context = secret.context if isinstance(secret, UserSecret) else ""
        # Discovery and clock come before the first answer: RFC 3414, 4.
        self.patience_s = timeout_s * (3 if isinstance(secret, UserSecret) else 1) + 1
        try:
            _introduce(self._engine, secret)
        except PySnmpError as error:  # its text may have the secret in it
            text = f"pysnmp does not take the credentials ({type(error).__name__})"
            raise DeviceError(DeviceState.REFUSED, text) from None

    async def connect(self, address: Address, *, is_ipv6: bool) -> "Line":
        """A new line to the agent at an address, on which nothing is known of it yet. Raises OSError."""
        family, wire_type = (udp6, _Wire6) if is_ipv6 else (udp, _Wire)
        _, wire = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: wire_type(self), remote_addr=address
        )
        # A domain of its own makes the engine use this line's socket, and look for the agent's engine id anew.
        number = next(self._numbers)
        domain, target = (*family.DOMAIN_NAME, number), f"agent{number}"
        config.add_transport(self._engine, domain, wire)
        timeout = int(self._timeout_s * 100)  # in hundredths of a second
        config.add_target_address(self._engine, target, domain, address, _PARAMETERS, timeout, 0)
        return Line(self, self._engine, target, domain, wire)

    def close(self) -> None:
        """Let go of all sockets."""
        self._engine.close_dispatcher()


def _introduce(engine: Any, secret: Secret) -> None:
    """Tell the engine as whom it speaks."""
    if isinstance(secret, CommunitySecret):
        config.add_v1_system(engine, "community", secret.community)
        config.add_target_parameters(engine, _PARAMETERS, "community", "noAuthNoPriv", 1)
        return
    level = "noAuthNoPriv" if secret.auth == "none" else "authNoPriv" if secret.privacy == "none" else "authPriv"
    config.add_v3_user(
        engine,
        secret.user,
        _AUTH[secret.auth],
        secret.auth_password or None,
        _PRIVACY[secret.privacy],
        secret.privacy_password or None,
    )
    config.add_target_parameters(engine, _PARAMETERS, secret.user, level, 3)


class Line:
    """The way to one agent. One request at a time."""

    def __init__(self, speaker: Speaker, engine: Any, target: str, domain: Oid, wire: "_Wire") -> None:
        self._speaker = speaker
        self._engine = engine
        self._target = target
        self._domain = domain
        self._wire = wire
        self._lock = asyncio.Lock()

    async def get(self, oids: Sequence[Oid]) -> Reply:
        """The objects of these names. Raises NoReplyError and RejectedError."""
        return await self._ask(
            lambda answer: cmdgen.GetCommandGenerator().send_varbinds(
                self._engine, self._target, None, self._speaker.context, _asked(oids), answer
            )
        )

    async def get_bulk(self, oids: Sequence[Oid], repetitions: int) -> Reply:
        """The objects after these names, `repetitions` after each, in turns. Raises NoReplyError and RejectedError."""
        return await self._ask(
            lambda answer: cmdgen.BulkCommandGenerator().send_varbinds(
                self._engine, self._target, None, self._speaker.context, 0, repetitions, _asked(oids), answer
            )
        )

    def close(self) -> None:
        """Let go of the socket, and have the engine forget the agent. Safe to call twice."""
        if self._wire.is_open:
            self._wire.is_open = False
            config.delete_target_address(self._engine, self._target)
            config.delete_transport(self._engine, self._domain)
            self._wire.close_transport()

    async def _ask(self, send: Callable[[Callable[..., None]], object]) -> Reply:
        async with self._lock:
            answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
            self._wire.listen(answer)
            try:
                send(self._taker(answer))
                return await asyncio.wait_for(answer, self._speaker.patience_s)
            except TimeoutError as error:  # the engine's own clock, which is the wall's, was set back
                raise self._wire.no_reply() from error
            except StatusInformation as error:
                raise _rejected(error.get("errorIndication")) from error
            finally:
                self._wire.listen(None)

    def _taker(self, answer: "asyncio.Future[Reply]") -> Callable[..., None]:
        """What the engine calls with the outcome. An answer that came on another agent's socket is none."""

        def take(
            engine: object, handle: object, indication: Any, status: Any, index: Any, objects: Any, context: object
        ) -> None:
            del engine, handle, context
            if answer.done() or self._speaker.receiving not in (None, self._wire):
                return
            if indication is None:
                answer.set_result(Reply(int(status), int(index), tuple(_objects(objects))))
            elif isinstance(indication, errind.RequestTimedOut):
                answer.set_exception(self._wire.no_reply())
            else:
                answer.set_exception(_rejected(indication))

        return take


class _Wire(udp.UdpAsyncioTransport):  # type: ignore[misc]  # pysnmp has no types
    """A socket that is connected to one agent, and guards the engine from what comes in."""

    def __init__(self, speaker: Speaker) -> None:
        super().__init__()
        self._speaker = speaker
        self.is_open = True
        self._answer: asyncio.Future[Reply] | None = None
        self._heard = 0
        self._rubbish = 0
        self._sent = 0
        self._overdue = 0  # requests that were given up: their answers may still come

    def listen(self, answer: "asyncio.Future[Reply] | None") -> None:
        """From now on datagrams are about `answer`; without one they are not looked at."""
        self._answer = answer
        self._heard = self._rubbish = 0

    def no_reply(self, *, refused: bool = False) -> NoReplyError:
        """What came instead of an answer."""
        if not refused and not self._heard + self._rubbish:
            self._overdue = min(self._overdue + 1, MAX_DATAGRAMS)
        return NoReplyError(heard=self._heard, rubbish=self._rubbish, refused=refused)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def send_message(self, message: bytes, address: object) -> None:
        del address  # the socket is connected
        self._sent += 1
        if self.transport is not None:
            self.transport.sendto(message)

    def datagram_received(self, datagram: bytes, address: Any) -> None:
        if self._answer is None or self._heard + self._rubbish >= MAX_DATAGRAMS:
            return
        if len(datagram) <= MAX_REPLY_BYTES and _is_snmp(datagram) and self._is_taken(datagram, address):
            self._heard += 1
        else:
            self._rubbish += 1

    def _is_taken(self, datagram: bytes, address: Any) -> bool:
        """Whether the engine can use it: as the answer, as a REPORT that it sends anew for, or as an overdue answer."""
        sent = self._sent
        self._speaker.receiving = self
        try:
            self._callback_function(self, self.ADDRESS_TYPE(address[:2]), datagram)
        except Exception as error:  # whatever a decoder of 25,000 lines makes of hostile input ends here
            logger.debug("a datagram could not be decoded", extra={"peer": str(address), "error": repr(error)[:256]})
            return False
        finally:
            self._speaker.receiving = None
        if self._sent > sent or self._answer is None or self._answer.done():
            return True
        is_overdue = self._overdue > 0
        self._overdue -= is_overdue
        return is_overdue

    def error_received(self, error: Exception) -> None:  # noqa: ARG002 - the protocol's signature
        """The network says that nobody listens there: the answer need not be waited for."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(self.no_reply(refused=True))


class _Wire6(_Wire):
    SOCK_FAMILY = udp6.Udp6AsyncioTransport.SOCK_FAMILY
    ADDRESS_TYPE = udp6.Udp6AsyncioTransport.ADDRESS_TYPE


def _rejected(indication: Any) -> RejectedError:
    return RejectedError(type(indication).__name__, str(indication)[:MAX_TEXT_BYTES])


def _is_snmp(datagram: bytes) -> bool:
    try:
        return int(decodeMessageVersion(datagram)) in (0, 1, 3)
    except (ProtocolError, ValueError, TypeError):
        return False


def _asked(oids: Iterable[Oid]) -> list[tuple[Oid, Any]]:
    return [(oid, _NULL) for oid in oids]


def _objects(objects: Iterable[tuple[Any, Any]]) -> Iterable[tuple[Oid, Found | None]]:
    for name, value in objects:
        yield tuple(name), _found(value)


def _found(value: Any) -> Found | None:
    """A value of the wire as a number or text; None for noSuchObject, noSuchInstance, endOfMibView and other types."""
    if isinstance(
        value, rfc1902.Integer32 | rfc1902.Counter32 | rfc1902.Gauge32 | rfc1902.TimeTicks | rfc1902.Counter64
    ):
        return Found(int(value), _MODULI.get(type(value), 0))
    if isinstance(value, univ.ObjectIdentifier):
        return Found(".".join(map(str, value)))
    if isinstance(value, rfc1902.OctetString):
        return Found(bytes(value)[:MAX_TEXT_BYTES].decode("utf-8", "replace"))
    return None
