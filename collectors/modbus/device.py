"""One Modbus device as it is read: its requests, what it refuses, its identity, and its values. No state of a tick."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from collectors.devices import DeviceError, DeviceState
from collectors.modbus.blocks import Span
from collectors.modbus.connection import ABOUT_REGISTERS, REFUSALS, Connection, ExceptionReplyError
from collectors.modbus.map import SERIAL, DeviceValues, RegisterMap, Words, evaluate, facts_of
from collectors.modbus.settings import ModbusDevice
from collectors.modbus.sunspec import find_models, meter_map
from stream.clock import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class ModbusAnswer:
    """What a device gave; `facts` are its attributes as last read: its serial number among them."""

    map: RegisterMap
    values: DeviceValues
    facts: Mapping[str, str]
    words: Words


@dataclass(slots=True)
class _Memory:
    """The registers of one reading, by function and address."""

    registers: dict[tuple[int, int], int] = field(default_factory=dict)

    def keep(self, span: Span, words: Sequence[int]) -> None:
        self.registers.update({(span.function, span.address + place): word for place, word in enumerate(words)})

    def words(self, span: Span) -> list[int] | None:
        try:
            return [self.registers[span.function, address] for address in range(span.address, span.end)]
        except KeyError:
            return None


class DeviceReader:
    """Reads one device over a connection that it may share.

    `register_map` is None for a device that speaks SunSpec: its map is then found at its first reading. Attributes are
    read at first, again after every failure, since another device may then be there, and every `identity_every_s`.
    A block that the device refuses is split into the points within, and what it refuses alone is asked no more until
    the device has failed or its attributes are due.
    """

    def __init__(
        self,
        device: ModbusDevice,
        register_map: RegisterMap | None,
        connection: Connection,
        *,
        identity_every_s: float,
        clock: Clock,
    ) -> None:
        self.device = device
        self._given_map = register_map
        self._connection = connection
        self._identity_every_s = identity_every_s
        self._clock = clock
        self._map: RegisterMap | None = None
        self._blocks: list[Span] = []
        self._facts: dict[str, str] = {}
        self._facts_due_s = 0.0  # monotonic
        self._end_s = 0.0

    def read(self, end_s: float) -> ModbusAnswer:
        """Ask the device for everything, until `end_s` (time.monotonic: sockets know no other clock) at most.

        Raises DeviceError; the next reading then starts from nothing.
        """
        self._end_s = end_s
        try:
            return self._read()
        except DeviceError:
            self._map = None
            raise

    def _read(self) -> ModbusAnswer:
        known = self._map if self._clock.monotonic_s() < self._facts_due_s else None
        register_map = known or self._look_anew()
        memory = self._ask_values(register_map)
        if not memory.registers:
            raise DeviceError(DeviceState.NONSENSE, f"it refuses all registers of map {register_map.name}; check both")
        return ModbusAnswer(
            map=register_map, values=evaluate(register_map, memory.words), facts=dict(self._facts), words=memory.words
        )

    def _look_anew(self) -> RegisterMap:
        """Map, blocks and attributes. A serial number that is new to us is believed when it is read twice."""
        found = self._given_map or meter_map(find_models(self._ask))
        facts = self._ask_facts(found)
        serial = facts.get(SERIAL)
        if serial is None and not self.device.identity:
            raise DeviceError(DeviceState.NONSENSE, "it tells no serial number; give it an identity in the settings")
        if serial != self._facts.get(SERIAL) and self._ask_facts(found).get(SERIAL) != serial:
            raise DeviceError(DeviceState.NONSENSE, "its serial number changes from one reading to the next")
        self._map, self._facts = found, facts
        self._blocks = found.blocks(found.values)
        self._facts_due_s = self._clock.monotonic_s() + self._identity_every_s
        return found

    def _ask(self, span: Span) -> list[int]:
        return self._connection.read(self.device.unit, span, end_s=self._end_s)

    def _ask_facts(self, register_map: RegisterMap) -> dict[str, str]:
        memory = _Memory()
        for block in register_map.blocks(register_map.facts):
            self._ask_block(block, memory, spans=[point.span for point in register_map.facts])
        return facts_of(register_map, memory.words)

    def _ask_values(self, register_map: RegisterMap) -> _Memory:
        memory = _Memory()
        spans = sorted({span for point in register_map.values for span in point.spans})
        asked: list[Span] = []
        for block in self._blocks:
            asked += self._ask_block(block, memory, spans=spans)
        self._blocks = asked or self._blocks
        return memory

    def _ask_block(self, block: Span, memory: _Memory, *, spans: Iterable[Span]) -> list[Span]:
        """Keep what is read in memory; give the blocks to ask for the next time."""
        try:
            memory.keep(block, self._ask(block))
        except ExceptionReplyError as error:
            if error.code not in ABOUT_REGISTERS:
                raise
            within = [span for span in spans if block.holds(span) and span != block]
            parts = [part for span in within for part in self._ask_block(span, memory, spans=())]
            return parts if error.code in REFUSALS else [block]
        return [block]
