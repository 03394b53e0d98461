"""Modbus devices as test servers: pymodbus' own server on the loopback, whose registers and failures a test sets."""

import asyncio
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

HOLDING, INPUT = 3, 4
COILS, DISCRETE = 1, 2
START_TIMEOUT_S = 10


@dataclass
class Unit:
    """One unit behind a server; a test changes it at will. What it does not hold it refuses, as a device does."""

    cells: dict[tuple[int, int], int] = field(default_factory=dict)  # by function and address
    fails: ExcCodes | None = None  # every request
    refuses: set[tuple[int, int]] = field(default_factory=set)  # requests that begin here fail as `refuses_with`
    refuses_with: ExcCodes = ExcCodes.ILLEGAL_ADDRESS
    waits_s: float = 0.0
    asked: list[tuple[int, int, int]] = field(default_factory=list)  # function, address, count

    def put(self, address: int, words: Sequence[int], *, function: int = HOLDING) -> None:
        self.cells.update({(function, address + place): word for place, word in enumerate(words)})

    def number(self, address: int, code: str, value: float, *, function: int = HOLDING, swap: bool = False) -> None:
        """A number as module struct packs it, high word first unless swapped."""
        words = words_of(code, value)
        self.put(address, words[::-1] if swap else words, function=function)

    def text(self, address: int, text: str, registers: int, *, function: int = HOLDING) -> None:
        self.put(
            address,
            struct.unpack(f">{registers}H", text.encode("latin-1").ljust(2 * registers, b"\0")),
            function=function,
        )

    def hole(self, address: int, *, function: int = HOLDING) -> None:
        """It has no such register any more."""
        del self.cells[function, address]

    async def answer(
        self, function: int, start: int, address: int, count: int, current: list[int], _: object
    ) -> ExcCodes | None:
        """pymodbus' hook: fills in what is asked for, just before it is sent."""
        if function in (COILS, DISCRETE):  # here count is of whole registers, and the address of their first bit
            held = [place for place in range(address, address + 16 * count) if (function, place) in self.cells]
            self.asked.append((function, address, len(held)))
            for place in held:
                bit = 1 << place % 16
                here = place // 16 - start
                current[here] = current[here] | bit if self.cells[function, place] else current[here] & ~bit
            return self.fails
        self.asked.append((function, address, count))
        await asyncio.sleep(self.waits_s)
        if self.fails is not None:
            return self.fails
        if (function, address) in self.refuses:
            return self.refuses_with
        wanted = range(address, address + count)
        if any((function, place) not in self.cells for place in wanted):
            return ExcCodes.ILLEGAL_ADDRESS
        current[address - start : address - start + count] = [self.cells[function, place] for place in wanted]
        return None


@dataclass
class ModbusServer:
    """A running server and its units."""

    port: int
    units: dict[int, Unit]
    connections: list[bool] = field(default_factory=list)  # True for each that came, False for each that went

    hanging_up: threading.Event = field(default_factory=threading.Event)

    @property
    def unit(self) -> Unit:
        return self.units[1]

    def hang_up(self) -> None:
        """Close every connection, as a device does with one that was idle for long; returns when that is done."""
        self.hanging_up.set()
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while self.hanging_up.is_set():
            assert time.monotonic() < deadline_s
            time.sleep(0.01)


def words_of(code: str, value: float) -> list[int]:
    content = struct.pack(f">{code}", value)
    return list(struct.unpack(f">{len(content) // 2}H", content))


@contextmanager
def modbus_server(*units: int, registers: int = 1000) -> Iterator[ModbusServer]:
    """A server with these units, 1 if none is named, each with addresses below `registers`."""
    state = ModbusServer(0, {unit: Unit() for unit in units or (1,)})
    ready, stop = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(state, registers, ready, stop)), daemon=True)
    thread.start()
    assert ready.wait(START_TIMEOUT_S)
    try:
        yield state
    finally:
        stop.set()
        thread.join(START_TIMEOUT_S)
        assert not thread.is_alive()


async def _serve(state: ModbusServer, registers: int, ready: threading.Event, stop: threading.Event) -> None:
    server = ModbusTcpServer(
        [_device(number, unit, registers) for number, unit in state.units.items()],
        address=("127.0.0.1", 0),
        trace_connect=state.connections.append,
    )
    await server.serve_forever(background=True)
    listening = server.transport
    assert isinstance(listening, asyncio.Server)  # pymodbus declares a transport
    state.port = listening.sockets[0].getsockname()[1]
    ready.set()
    while not stop.is_set():
        await asyncio.sleep(0.01)
        if state.hanging_up.is_set():
            for connection in list(server.active_connections.values()):
                connection.close()
            await asyncio.sleep(0.05)
            state.hanging_up.clear()
    await server.shutdown()  # type: ignore[no-untyped-call]


def _device(number: int, unit: Unit, registers: int) -> SimDevice:
    # As lists: pymodbus multiplies what has a count by it once more while it checks.
    bits = [SimData(0, values=[False] * (registers // 16 * 16), datatype=DataType.BITS)]
    words = [SimData(0, values=[0] * registers, datatype=DataType.REGISTERS)]
    return SimDevice(number, simdata=(bits, list(bits), words, list(words)), action=unit.answer)
