"""Meters of the simulated site over Modbus TCP: the registers that a map says, and no others.

A request may reach over registers that the map does not have, which read 0, but must begin and end at ones that it has:
devices of both kinds exist, and a reader that asks for what it has no map of is told so. Nothing can be written.
"""

import asyncio
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from threading import Event, Thread

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from simulation.serving.serving import Moment

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
_POLL_S = 0.05
_WITHIN_A_COUNT = 1e-6  # what was counted in whole steps comes as a float

Value = float | str
Cells = Mapping[tuple[int, int], int]  # words by function and address


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """One number or text of a device, in one or several 16-bit registers.

    A value v in its base unit is shown as the number (v - shift) / step; `code` is that of the module struct, empty
    for text. What `counts` is rounded down and starts again at `modulus`; everything else is rounded to the nearest.
    `absent` is shown where there is no value. `states` are the numbers of the catalogue's states.
    """

    name: str
    function: int
    address: int
    registers: int
    code: str = ""
    step: Fraction = Fraction(1)
    shift: Fraction = Fraction(0)
    counts: bool = False
    modulus: int = 0
    absent: int | None = None
    states: Mapping[int, int] = field(default_factory=dict)
    low_word_first: bool = False
    low_byte_first: bool = False

    def words(self, value: Value | None) -> list[int]:
        """What the registers hold; nothing, when there is no value and nothing that stands for none."""
        content = self._text(value) if not self.code else self._packed(value)
        words = list(struct.unpack(f"{'<' if self.low_byte_first else '>'}{len(content) // 2}H", content))
        return words[::-1] if self.low_word_first else words

    def _text(self, value: Value | None) -> bytes:
        size = 2 * self.registers
        return str(value if value is not None else "").encode("latin-1", "replace")[:size].ljust(size, b"\0")

    def _packed(self, value: Value | None) -> bytes:
        number = None if value is None or isinstance(value, str) else self._number(value)
        if self.code in "fd":
            return struct.pack(f">{self.code}", math.nan if number is None else number)
        shown = self.absent if number is None else number
        try:
            return b"" if shown is None else struct.pack(f">{self.code}", int(shown))
        except struct.error:  # beyond what the registers can show
            return b"" if self.absent is None else struct.pack(f">{self.code}", self.absent)

    def _number(self, value: float) -> float | None:
        if math.isnan(value):
            return None
        if self.states:
            return self.states.get(round(value))
        number = (value - float(self.shift)) * self.step.denominator / self.step.numerator
        if self.code in "fd":
            return number
        if not self.counts:
            return round(number)
        counted = math.floor(number + _WITHIN_A_COUNT)
        return counted % self.modulus if self.modulus else counted


@dataclass(frozen=True, slots=True, eq=False)
class ModbusDevice:
    """A device behind a port: its registers, its nameplate, and what it measures, by the names of its registers."""

    unit: int
    registers: tuple[Register, ...]
    nameplate: Mapping[str, Value]
    measure: Callable[[Moment], Mapping[str, float]]

    def cells(self, moment: Moment) -> dict[tuple[int, int], int]:
        """All words that it has now."""
        values: Mapping[str, Value] = {**self.measure(moment), **self.nameplate}
        return {
            (one.function, one.address + place): word
            for one in self.registers
            for place, word in enumerate(one.words(values.get(one.name)))
        }


class ModbusServing:
    """A server of several ports, each with its devices as units; port 0 takes a free one, which `ports` tells.

    pymodbus is asyncio only: its loop runs in a thread of its own. One reply is of one moment.
    """

    def __init__(self, devices: Sequence[Sequence[ModbusDevice]], *, ports: Sequence[int], host: str) -> None:
        self._host = host
        self._wanted = tuple(ports)
        self._units = [[_Unit(device) for device in behind] for behind in devices]
        self._ready, self._stop = Event(), Event()
        self._trouble: Exception | None = None
        self._thread = Thread(target=self._run, name="modbus-serving", daemon=True)
        self.ports: tuple[int, ...] = ()

    def start(self) -> None:
        """Return once it listens. Raises OSError."""
        self._thread.start()
        if not self._ready.wait(START_TIMEOUT_S):
            raise OSError("the Modbus server did not start in time")
        if self._trouble is not None:
            raise OSError(f"Modbus cannot be served on {self._host}: {self._trouble}") from self._trouble

    def show(self, moment: Moment) -> None:
        for unit in (unit for behind in self._units for unit in behind):
            unit.cells = unit.device.cells(moment)

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except (OSError, RuntimeError) as error:
            self._trouble = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        servers: list[ModbusTcpServer] = []
        try:
            for behind, port in zip(self._units, self._wanted, strict=True):
                servers.append(await _listen(behind, self._host, port))
            self.ports = tuple(map(_port_of, servers))
            self._ready.set()
            while not self._stop.is_set():
                await asyncio.sleep(_POLL_S)
        finally:
            for server in servers:
                await server.shutdown()  # type: ignore[no-untyped-call]


class _Unit:
    """One device as pymodbus asks for it; `cells` are replaced as a whole, by another thread."""

    def __init__(self, device: ModbusDevice) -> None:
        self.device = device
        self.cells: Cells = {}

    def simulated(self) -> SimDevice:
        size = max(one.address + one.registers for one in self.device.registers)
        # As lists: pymodbus multiplies what has a count by it once more while it checks.
        bits = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
        words = [SimData(0, values=[0] * size, datatype=DataType.REGISTERS)]
        return SimDevice(self.device.unit, simdata=(bits, list(bits), words, list(words)), action=self.answer)

    async def answer(
        self, function: int, start: int, address: int, count: int, current: list[int], written: object
    ) -> ExcCodes | None:
        """pymodbus' hook, called just before a reply: fills in what is asked for."""
        cells = self.cells
        if written is not None:
            return ExcCodes.ILLEGAL_FUNCTION
        if not cells:
            return ExcCodes.DEVICE_BUSY  # nothing was shown yet
        if (function, address) not in cells or (function, address + count - 1) not in cells:
            return ExcCodes.ILLEGAL_ADDRESS
        asked = range(address, address + count)
        current[address - start : address - start + count] = [cells.get((function, place), 0) for place in asked]
        return None


async def _listen(units: Sequence[_Unit], host: str, port: int) -> ModbusTcpServer:
    server = ModbusTcpServer([unit.simulated() for unit in units], address=(host, port))
    await server.serve_forever(background=True)
    return server


def _port_of(server: ModbusTcpServer) -> int:
    listening = server.transport
    if not isinstance(listening, asyncio.Server):  # pymodbus declares a transport
        raise TypeError(f"a listening server was expected, not {listening!r}")
    port: int = listening.sockets[0].getsockname()[1]
    return port
