"""A peer on the Modbus port that a test scripts: it hangs up, drips, or answers what no device should."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

# What is sent back for one request: the pieces, one after the other. None hangs up.
Answer = Callable[[bytes], list[bytes] | None]


@dataclass
class Peer:
    """The running peer; `answer` may be changed at any time."""

    port: int
    answer: Answer
    between_s: float = 0.0  # before each piece
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)


def reply(request: bytes, content: bytes, *, transaction: int | None = None, unit: int | None = None) -> bytes:
    """A frame as it should be around `content`, function code included, but for what the caller changes."""
    sent = int.from_bytes(request[:2], "big")
    head = (sent if transaction is None else transaction).to_bytes(2, "big") + b"\0\0"
    return head + (len(content) + 1).to_bytes(2, "big") + bytes([request[6] if unit is None else unit]) + content


def registers(*words: int, function: int = 3) -> bytes:
    """The content of a good answer."""
    return bytes([function, 2 * len(words)]) + b"".join(word.to_bytes(2, "big") for word in words)


@contextmanager
def peer(answer: Answer) -> Iterator[Peer]:
    listener = socket.create_server(("127.0.0.1", 0))
    state = Peer(listener.getsockname()[1], answer)
    thread = threading.Thread(target=_accept, args=(listener, state), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.stopped.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def _accept(listener: socket.socket, state: Peer) -> None:
    while not state.stopped.is_set():
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        state.connections += 1
        threading.Thread(target=_serve, args=(connection, state), daemon=True).start()


def _serve(connection: socket.socket, state: Peer) -> None:
    with connection, suppress(OSError):
        while request := connection.recv(260):
            state.requests.append(request)
            pieces = state.answer(request)
            if pieces is None:
                return
            for piece in pieces:
                if state.between_s and state.stopped.wait(state.between_s):
                    return
                connection.sendall(piece)
