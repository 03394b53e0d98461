"""One TCP connection to a Modbus device or gateway: one request at a time, bounded in time and in bytes.

pymodbus builds and takes apart the frames. It is told nothing about time: its own receive loop waits with select(),
which knows no socket above number 1023, and counts neither bytes nor a deadline over several requests.
"""

import errno
import logging
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from time import monotonic

from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ConnectionException, ModbusException
from pymodbus.pdu import ModbusPDU

from collectors.devices import DeviceError, DeviceState
from collectors.modbus.blocks import BIT_FUNCTIONS, Span

# A reply has 260 bytes at most (Modbus Messaging on TCP/IP 1.0b, 4.1); a few late ones may come before it.
MAX_REPLY_BYTES = 2048
# So long a device that could not be reached is not tried again: the units behind a dead gateway fail together.
FAILURE_HOLDS_S = 0.5
_SHOWN_BYTES = 12

# Modbus Application Protocol 1.1b3, 7: what an exception code means, and what it says about the device.
EXCEPTIONS = {
    1: (DeviceState.NONSENSE, "it does not know this function"),
    2: (DeviceState.NONSENSE, "it has no such registers"),
    3: (DeviceState.NONSENSE, "it refuses this number of registers"),
    4: (DeviceState.NONSENSE, "it failed to read them"),
    5: (DeviceState.SLOW, "it says that it will take long"),
    6: (DeviceState.SLOW, "it says that it is busy"),
    8: (DeviceState.NONSENSE, "its memory is damaged"),
    10: (DeviceState.UNREACHABLE, "the gateway has no path to this unit"),
    11: (DeviceState.UNREACHABLE, "the unit does not answer the gateway"),
}
# These are about the registers that were asked for, not about the device as a whole.
ABOUT_REGISTERS = frozenset({1, 2, 3, 4})
REFUSALS = frozenset({1, 2, 3})  # for good: the next answer will be the same


class ExceptionReplyError(DeviceError):
    """The device answered with a Modbus exception."""

    def __init__(self, code: int, what: str) -> None:
        state, meaning = EXCEPTIONS.get(code, (DeviceState.NONSENSE, "which no standard explains"))
        super().__init__(state, f"exception {code} to {what}: {meaning}")
        self.code = code


class _Client(ModbusTcpClient):
    """pymodbus' client on a socket that is opened and timed by the connection."""

    end_s = 0.0  # monotonic; no waiting after it
    received = b""  # what came since the last request

    def send(self, request: bytes, addr: tuple[str, int] | None = None) -> int:  # noqa: ARG002 - the base class's signature
        """Raises ConnectionException with the reason; the base class has none."""
        if self.socket is None:
            raise ConnectionException("closed")
        try:
            self.socket.sendall(request)
        except OSError as error:
            raise ConnectionException(error.strerror or "broken") from error
        return len(request)

    def recv(self, size: int | None) -> bytes:  # noqa: ARG002 - the base class's signature
        """The next bytes. Raises DeviceError when none came in time, or too many came."""
        if self.socket is None:
            raise ConnectionException("closed")
        left_s = self.end_s - monotonic()
        if left_s <= 0:
            raise self._late()
        try:
            self.socket.settimeout(left_s)  # fails, too, where another thread has closed it
            data = self.socket.recv(MAX_REPLY_BYTES)
        except TimeoutError:
            raise self._late() from None
        except OSError as error:
            raise ConnectionException(error.strerror or "broken") from error
        if not data:
            raise ConnectionException("closed by the device")
        self.received += data
        if len(self.received) > MAX_REPLY_BYTES:
            raise DeviceError(DeviceState.NONSENSE, f"more than {MAX_REPLY_BYTES} bytes, and no answer among them")
        return data

    def drop(self) -> None:
        """Let go of the socket."""
        opened, self.socket = self.socket, None
        if opened is not None:
            opened.close()

    def _late(self) -> DeviceError:
        if self.received:
            start = self.received[:_SHOWN_BYTES].hex(" ")
            text = f"{len(self.received)} bytes, but no answer to what was asked; they begin with {start}"
            return DeviceError(DeviceState.NONSENSE, text)
        return DeviceError(DeviceState.SLOW, "no answer in time")


class Connection:
    """A connection to `host`, opened when it is needed and closed after every failure but an exception reply.

    Several threads may ask: one at a time is served. `timeout_s` is for connecting, and for each request.
    """

    def __init__(self, host: str, port: int, *, timeout_s: float) -> None:
        # What pymodbus has to say about a device is in the DeviceError; it would say it at every tick.
        logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)
        self._host = host
        self._port = port
        self._timeout_s = timeout_s
        # The client has a time-out of its own, which must never come before ours: it says less.
        self._client = _Client(host, port=port, timeout=2 * timeout_s + 1, retries=0)
        self._lock = Lock()
        self._closed = False
        self._failure: tuple[float, str] | None = None  # when, and why it could not be reached

    @property
    def address(self) -> str:
        return f"{self._host}:{self._port}"

    def read(self, unit: int, span: Span, *, end_s: float) -> list[int]:
        """The registers, or bits as 0 and 1, of `unit` at `span`. Blocks until `end_s` (monotonic) at most.

        Raises ExceptionReplyError for the device's own refusal, DeviceError for everything else.
        """
        left_s = end_s - monotonic()
        if left_s <= 0 or not self._lock.acquire(timeout=left_s):
            raise DeviceError(DeviceState.SLOW, f"no time left ({_named(span)})")
        try:
            return _content(self._ask(unit, span, end_s=end_s), span)
        except ExceptionReplyError:
            raise
        except DeviceError as error:
            self._client.drop()
            raise DeviceError(error.state, f"{error} ({_named(span)})") from error
        finally:
            self._lock.release()

    def close(self) -> None:
        """Let go of the connection; safe to call twice, and while a thread waits for an answer, which then fails."""
        self._closed = True
        opened = self._client.socket
        if opened is not None:
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()

    def _ask(self, unit: int, span: Span, *, end_s: float) -> ModbusPDU:
        """One exchange. A connection that was idle may have been closed by the device: then once more on a new one."""
        was_open = self._client.socket is not None
        try:
            return self._exchange(unit, span, end_s=end_s)
        except ConnectionException as error:
            self._client.drop()
            if not was_open:
                raise _lost(error) from error
        try:
            return self._exchange(unit, span, end_s=end_s)
        except ConnectionException as error:
            raise _lost(error) from error

    def _exchange(self, unit: int, span: Span, *, end_s: float) -> ModbusPDU:
        if self._client.socket is None:
            self._open(end_s)
        self._client.received = b""
        self._client.end_s = min(end_s, monotonic() + self._timeout_s)
        ask: dict[int, Callable[..., ModbusPDU]] = {
            1: self._client.read_coils,
            2: self._client.read_discrete_inputs,
            3: self._client.read_holding_registers,
            4: self._client.read_input_registers,
        }
        try:
            return ask[span.function](span.address, count=span.count, device_id=unit)
        except ConnectionException:
            raise
        except (ModbusException, ValueError, IndexError, struct.error) as error:
            start = self._client.received[:_SHOWN_BYTES].hex(" ")
            raise DeviceError(DeviceState.NONSENSE, f"an answer that is none, beginning with {start}") from error

    def _open(self, end_s: float) -> None:
        if self._closed:
            raise DeviceError(DeviceState.UNREACHABLE, "closed by us")
        if self._failure is not None and monotonic() < self._failure[0] + FAILURE_HOLDS_S:
            raise DeviceError(DeviceState.UNREACHABLE, self._failure[1])
        self._failure = None
        timeout_s = max(min(self._timeout_s, end_s - monotonic()), 0.001)
        try:
            opened = socket.create_connection((self._host, self._port), timeout=timeout_s)
        except OSError as error:
            self._failure = (monotonic(), _why_not_reached(error, timeout_s))
            raise DeviceError(DeviceState.UNREACHABLE, self._failure[1]) from error
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._client.socket = opened


def _named(span: Span) -> str:
    return f"function {span.function}, address {span.address}, count {span.count}"


def _content(reply: ModbusPDU, span: Span) -> list[int]:
    if reply.isError():
        raise ExceptionReplyError(reply.exception_code, _named(span))
    is_bits = span.function in BIT_FUNCTIONS
    found = [int(one) for one in (reply.bits if is_bits else reply.registers)]
    # Bits come in whole bytes: those after the last one that was asked for are padding.
    enough = span.count <= len(found) < span.count + 8 if is_bits else len(found) == span.count
    if reply.function_code != span.function or not enough:
        told = f"function {reply.function_code} with {len(found)} values"
        raise DeviceError(DeviceState.NONSENSE, f"answered with {told}")
    return found[: span.count]


def _lost(error: ConnectionException) -> DeviceError:
    return DeviceError(DeviceState.UNREACHABLE, f"connection lost: {error.string.removeprefix('[Connection] ')[:200]}")


def _why_not_reached(error: OSError, timeout_s: float) -> str:
    if isinstance(error, socket.gaierror):
        return "its name cannot be resolved"
    if isinstance(error, TimeoutError) or error.errno == errno.ETIMEDOUT:
        return f"no connection within {timeout_s:g} s"
    return f"no connection: {error.strerror or type(error).__name__}"
