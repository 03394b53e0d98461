"""An agent that answers as a test tells it: late, wrongly, without end. A real UDP socket on the loopback.

Requests are taken apart and replies put together by pysnmp's codec, with nothing of the source under test.
"""

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pyasn1.codec.ber import decoder, encoder  # type: ignore[import-untyped]
from pysnmp.proto.api import v2c  # type: ignore[import-untyped]

Oid = tuple[int, ...]
SYS_OBJECT_ID: Oid = (1, 3, 6, 1, 2, 1, 1, 2, 0)
SYS_UP_TIME: Oid = (1, 3, 6, 1, 2, 1, 1, 3, 0)
GET, GET_BULK = "get", "get_bulk"
END: Any = v2c.EndOfMibView()
MISSING: Any = v2c.NoSuchInstance()


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked."""

    kind: str
    names: tuple[Oid, ...]
    repetitions: int
    message: Any

    def reply(self, objects: Sequence[tuple[Oid, Any]], *, error: int = 0, index: int = 0, more_id: int = 0) -> bytes:
        """A response with these objects; the values are pysnmp's, or int and str."""
        asked = v2c.apiMessage.get_pdu(self.message)
        pdu = v2c.ResponsePDU()
        v2c.apiPDU.set_defaults(pdu)
        v2c.apiPDU.set_request_id(pdu, int(v2c.apiPDU.get_request_id(asked)) + more_id)
        v2c.apiPDU.set_error_status(pdu, error)
        v2c.apiPDU.set_error_index(pdu, index)
        v2c.apiPDU.set_varbinds(pdu, [(name, _value(value)) for name, value in objects])
        message = v2c.Message()
        v2c.apiMessage.set_defaults(message)
        v2c.apiMessage.set_community(message, v2c.apiMessage.get_community(self.message))
        v2c.apiMessage.set_pdu(message, pdu)
        return bytes(encoder.encode(message))


Answer = Callable[[Request], Sequence[bytes]]


@dataclass
class Rogue:
    """A running agent; `answer` says which datagrams go back for a request, and may be changed."""

    port: int
    answer: Answer
    seen: list[Request] = field(default_factory=list)
    peers: list[tuple[str, int]] = field(default_factory=list)


@contextmanager
def rogue_agent(answer: Answer) -> Iterator[Rogue]:
    """A running agent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        rogue = Rogue(listener.getsockname()[1], answer)
        stopped = threading.Event()
        thread = threading.Thread(target=_serve, args=(listener, rogue, stopped), daemon=True)
        thread.start()
        try:
            yield rogue
        finally:
            stopped.set()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wake:
                wake.sendto(b"", ("127.0.0.1", rogue.port))
            thread.join(5)


def tree(objects: dict[Oid, Any], *, object_id: str) -> Answer:
    """An answer as an honest agent with these objects gives it."""
    there = {SYS_OBJECT_ID: v2c.ObjectIdentifier(object_id), SYS_UP_TIME: v2c.TimeTicks(1000)} | objects
    order = sorted(there)

    def after(name: Oid) -> tuple[Oid, Any]:
        return next(((one, there[one]) for one in order if one > name), (name, END))

    def answer(request: Request) -> Sequence[bytes]:
        if request.kind == GET:
            return [request.reply([(name, there.get(name, MISSING)) for name in request.names])]
        rows, names = [], list(request.names)
        for _ in range(request.repetitions):
            row = [after(name) for name in names]
            names = [name for name, _ in row]
            rows += row
        return [request.reply(rows)]

    return answer


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return v2c.OctetString(value.encode())
    return v2c.Integer32(value) if isinstance(value, int) else value


def _serve(listener: socket.socket, rogue: Rogue, stopped: threading.Event) -> None:
    while True:
        datagram, peer = listener.recvfrom(65_535)
        if stopped.is_set():
            return
        request = _request(datagram)
        rogue.seen.append(request)
        rogue.peers.append(peer)
        for reply in rogue.answer(request):
            listener.sendto(reply, peer)


def _request(datagram: bytes) -> Request:
    message, _ = decoder.decode(datagram, asn1Spec=v2c.Message())
    pdu = v2c.apiMessage.get_pdu(message)
    names = tuple(tuple(name) for name, _ in v2c.apiPDU.get_varbinds(pdu))
    if isinstance(pdu, v2c.GetBulkRequestPDU):
        return Request(GET_BULK, names, int(v2c.apiBulkPDU.get_max_repetitions(pdu)), message)
    return Request(GET, names, 0, message)
