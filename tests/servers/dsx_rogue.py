"""A broker that does what no broker should: enough of MQTT 3.1.1 to be believed, and then what a test tells it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

CONNACK = b"\x20\x02\x00\x00"  # 3.2: accepted
GRANTED, REFUSED = 1, 0x80  # 3.9.3
_CONNECT, _SUBSCRIBE, _PINGREQ = 1, 8, 12


@dataclass
class RogueBroker:
    """What it does with the next client; a test changes it at will."""

    port: int
    greeting: bytes = CONNACK
    refuses: tuple[str, ...] = ()  # topic filters
    after_values: bytes = b""  # what it sends once values were subscribed to
    connections: int = 0
    subscribed: list[str] = field(default_factory=list)


def publish_packet(topic: bytes, payload: bytes) -> bytes:
    """A PUBLISH of QoS 0 (3.3)."""
    body = len(topic).to_bytes(2, "big") + topic + payload
    return b"\x30" + _length(len(body)) + body


@contextmanager
def rogue_broker() -> Iterator[RogueBroker]:
    """A running broker, one client at a time."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        rogue = RogueBroker(server.getsockname()[1])
        thread = threading.Thread(target=_serve, args=(server, rogue), daemon=True)
        thread.start()
        try:
            yield rogue
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def _serve(server: socket.socket, rogue: RogueBroker) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        rogue.connections += 1
        with client, suppress(OSError):
            client.settimeout(10)
            _talk(client, rogue)


def _talk(client: socket.socket, rogue: RogueBroker) -> None:
    while (packet := _read(client)) is not None:
        kind, body = packet
        if kind == _CONNECT:
            client.sendall(rogue.greeting)
        elif kind == _PINGREQ:
            client.sendall(b"\xd0\x00")
        elif kind == _SUBSCRIBE:
            topic = body[4 : 4 + int.from_bytes(body[2:4], "big")].decode()
            rogue.subscribed.append(topic)
            verdict = REFUSED if topic in rogue.refuses else GRANTED
            client.sendall(b"\x90\x03" + body[:2] + bytes([verdict]))
            if topic.endswith("/Value/#"):
                client.sendall(rogue.after_values)


def _read(client: socket.socket) -> tuple[int, bytes] | None:
    """Kind and body of the next packet; None at the end. Bodies of less than 16 kB are all that we ask for."""
    head = client.recv(1)
    if not head:
        return None
    length, shift = 0, 0
    while True:
        byte = client.recv(1)[0]
        length |= (byte & 127) << shift
        shift += 7
        if not byte & 128:
            break
    body = b""
    while len(body) < length:
        body += client.recv(length - len(body))
    return head[0] >> 4, body


def _length(count: int) -> bytes:
    """2.2.3: seven bits a byte."""
    coded = b""
    while True:
        count, rest = divmod(count, 128)
        coded += bytes([rest | (128 if count else 0)])
        if not count:
            return coded
