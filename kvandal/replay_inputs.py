"""What a replayed incident's devices say becomes events, through the collectors that read such devices."""

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import msgspec

from alerts.replay_incident import BusValue, Cast, KernelLine, ReplayIncident, Said
from alerts.replay_site import GPUS_PER_TRAY, START_MS
from catalogue import ResourceKind, resource_id
from collectors.bursts import Bursts
from collectors.dsx.board import Board
from collectors.dsx.settings import DsxSettings
from collectors.gpu_events import KERNEL, GpuEvents
from collectors.kernel_log import parse_xid
from stream.messages import EventMessage, InventoryMessage, encode_message

_BEAT_S = 10
_HEART = "System/HeartbeatTimestampBms/bms/heartbeat"
_GATEWAY = resource_id(ResourceKind.AGENT, "replayed gateway")
_decoder = msgspec.json.Decoder(EventMessage)


@dataclass(slots=True)
class ReplayClock:
    """Time of the incident; it stands until it is set."""

    at_s: float = 0.0

    def utc_ms(self) -> int:
        return START_MS + round(self.at_s * 1000)

    def monotonic_s(self) -> float:
        return self.at_s


_Input = tuple[float, Callable[[], None]]  # when, and what it does


@dataclass(slots=True)
class Inputs:
    """All inputs of an incident in order of their time, given to the collectors as the clock passes them."""

    incident: ReplayIncident
    cast: Cast
    clock: ReplayClock
    _nodes: dict[int, Bursts] = field(default_factory=dict)
    _witnesses: dict[int, GpuEvents] = field(default_factory=dict)
    _ready: list[EventMessage] = field(default_factory=list)
    _board: Board = field(init=False)
    _coming: Iterator[_Input] = field(init=False)
    _next: _Input | None = field(init=False)

    def __post_init__(self) -> None:
        self._board = Board(DsxSettings(host="replayed"), source=_GATEWAY, clock=self.clock, told=lambda: None)
        self._coming = heapq.merge(*self._all(), key=lambda given: given[0])  # lazily: a storm is a million lines
        self._next = next(self._coming, None)

    def take(self, at_s: float) -> list[EventMessage]:
        """What the collectors tell at this time, as it is on the wire."""
        while self._next is not None and self._next[0] <= at_s:
            self.clock.at_s = self._next[0]
            self._next[1]()
            self._next = next(self._coming, None)
        self.clock.at_s = at_s
        told, self._ready = self._ready, []
        for bursts in self._nodes.values():
            told += bursts.take(self.clock.utc_ms())
        if self._has_bus:
            told += self._board.events()
        return [_decoder.decode(encode_message(event)) for event in told]

    @property
    def _has_bus(self) -> bool:
        return bool(self.incident.bus) or self.incident.bus_silent_from_s is not None

    def _all(self) -> Iterator[Iterator[_Input]]:
        for line in self.incident.kernel:
            yield from (self._kernel(line, gpu) for gpu in self.cast.like(line.of, ResourceKind.GPU))
        for value in self.incident.bus:
            yield from (self._bus(value, one) for one in self.cast.like(value.of, ResourceKind.RACK, ResourceKind.CDU))
        for said in self.incident.said:
            yield from (self._said(said, one.resource) for one in self.cast.like(said.of))
        if self._has_bus:
            yield self._beats()

    # The kernel's log of a node

    def _kernel(self, line: KernelLine, gpu: InventoryMessage) -> Iterator[_Input]:
        for number, at_s in enumerate(line.moments()):
            yield at_s, partial(self._hear_driver, gpu, line.line.replace("{n}", str(number % line.variants)))

    def _hear_driver(self, gpu: InventoryMessage, text: str) -> None:
        """A line of a node's kernel log, as its agent reads it."""
        found = parse_xid(f"NVRM: Xid (PCI:0000:{gpu.resource % GPUS_PER_TRAY:02x}:00): {text}", self.clock.utc_ms())
        if found is None:
            raise ValueError(f"{self.incident.name}: {text!r} is no XID of the driver; begin with a number and a comma")
        self._agent(gpu.parent).see_xid(gpu.resource, found.number, found.time_ms, witness=KERNEL, detail=found.detail)

    def _agent(self, node: int) -> GpuEvents:
        """What the agent of a node makes of its log."""
        known = self._witnesses.get(node)
        if known is None:
            self._nodes[node] = Bursts(node)
            known = self._witnesses[node] = GpuEvents(self._nodes[node])
        return known

    # The building's bus

    def _bus(self, value: BusValue, subject: InventoryMessage) -> Iterator[_Input]:
        """The point is described before it speaks; a rack by the name that its location has, others by their own."""
        word = "rackLocation" if subject.kind is ResourceKind.RACK else "object"
        tag = f"{value.point}/{subject.identity}"
        yield 0.0, partial(self._describe, tag, {f"{word}Id": subject.identity, f"{word}Name": subject.name})
        for at_s in value.moments():
            yield at_s, partial(self._hear_bus, tag, value.value)

    def _beats(self) -> Iterator[_Input]:
        until_s = self.incident.lasts_s if (silent_s := self.incident.bus_silent_from_s) is None else silent_s
        yield 0.0, partial(self._describe, _HEART, {"objectId": "BMS", "objectName": "Plant BMS"})
        for at_s in range(0, int(until_s) + 1, _BEAT_S):
            yield at_s, self._beat

    def _describe(self, tag: str, facts: Mapping[str, str]) -> None:
        self._board.receive(f"BMS/v1/PUB/Metadata/{tag}", msgspec.json.encode(facts), is_live=False)

    def _hear_bus(self, tag: str, value: float) -> None:
        payload = {"value": value, "timestamp": self.clock.utc_ms(), "quality": 1}
        self._board.receive(f"BMS/v1/PUB/Value/{tag}", msgspec.json.encode(payload), is_live=True)

    def _beat(self) -> None:
        self._hear_bus(_HEART, self.clock.utc_ms())

    # Other collectors

    def _said(self, said: Said, resource: int) -> Iterator[_Input]:
        for at_s in said.moments():
            yield at_s, partial(self._tell, said, resource)

    def _tell(self, said: Said, resource: int) -> None:
        time_ms = self.clock.utc_ms() + round(said.clock_s * 1000)
        self._ready.append(
            EventMessage(
                id=f"{said.kind}/{resource:016x}/{said.code}/{time_ms}",
                resource=resource,
                time_ms=time_ms,
                kind=said.kind,
                code=said.code,
                attributes=dict(said.attributes),
            )
        )
