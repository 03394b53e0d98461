"""What stands on the BMS bus: the latest of every point, by the time that its source stamped; no I/O.

One thread gives messages, another looks at ticks. Memory is bounded: one reading for each of so many points.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock

from catalogue import ResourceKind, resource_id
from collectors.devices import DeviceReport, DeviceState
from collectors.dsx.alarms import ALARMS, HEARTBEAT, Alarms, AlarmSubject, Heartbeats
from collectors.dsx.message import (
    BMS,
    PointAddress,
    PointFacts,
    PointReading,
    Refusal,
    RefusedError,
    TopicParts,
    decode_facts,
    decode_reading,
    parse_topic,
)
from collectors.dsx.objects import DescribedPoint
from collectors.dsx.plan import Held, Plan, make_plan
from collectors.dsx.settings import DsxSettings
from collectors.facility import Quality
from stream.clock import Clock
from stream.messages import EventMessage

FUTURE_MS = 5_000  # by which a clock in the building may be ahead of ours
# Points whose values we ask for although another than the building system publishes them.
INTEGRATION_POINTS = frozenset({"RackLeakDetectTray"})
HEARTBEATS = frozenset({HEARTBEAT, "HeartbeatEchoBms"})  # are no readings


@dataclass(frozen=True, slots=True)
class _Heard:
    """One reading as it came. `stamp_ms` is its source's time, `is_live` says that it was no stored message."""

    reading: PointReading
    stamp_ms: float
    is_live: bool


@dataclass(slots=True, eq=False)
class _Seat:
    """One point. `described` is None until its metadata come, `told` what the look before saw."""

    topic: str
    address: PointAddress
    described: DescribedPoint | None = None
    described_at_s: float = 0.0
    heard: _Heard | None = None
    told: _Heard | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """What stands at one instant, and which racks and equipment have nothing that stands."""

    plan: Plan
    held: Mapping[str, Held]  # by value topic
    silent: tuple[DeviceReport, ...]


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of messages since the start: values that were used, messages that were not, and the last of each."""

    used: int
    refused: Mapping[Refusal, int]
    examples: Mapping[Refusal, str]


class Board:
    """The points of one bus. `told` is called, by the thread that gave the message, when an event must not wait."""

    def __init__(self, settings: DsxSettings, *, source: int, clock: Clock, told: Callable[[], None]) -> None:
        self._settings = settings
        self._clock = clock
        self._told = told
        self._lock = Lock()
        self._seats: dict[str, _Seat] = {}  # by value topic
        self._undescribed: dict[str, None] = {}  # of these, in the order of their coming
        self._metadata: dict[str, tuple[int, str]] = {}  # by topic: digest of the payload, and the value topic
        self._alarms = Alarms(source)
        self._hearts = Heartbeats(source, lost_s=settings.heartbeat_lost_s, now_s=clock.monotonic_s())
        self._plan: Plan | None = None
        self._changes = 0  # of what the metadata say
        self._hold_ms = settings.hold_s * 1000
        self._used = 0
        self._refused: Counter[Refusal] = Counter()
        self._examples: dict[Refusal, str] = {}

    def receive(self, topic: str, payload: bytes | bytearray, *, is_live: bool) -> None:
        """Take a message in. What cannot be used is counted; nothing is raised."""
        with self._lock:
            try:
                is_urgent = self._receive(topic, payload, is_live=is_live)
            except RefusedError as error:
                is_urgent = False
                self._count(error.reason, f"{topic}: {error}")
        if is_urgent:
            self._told()

    def refuse(self, reason: Refusal, example: str) -> None:
        """Count a message that could not be given to `receive`."""
        with self._lock:
            self._count(reason, example)

    def look(self) -> Look:
        """What stands now; a reading is fresh at one look only."""
        now_ms, now_s = self._clock.utc_ms(), self._clock.monotonic_s()
        with self._lock:
            self._drop_forgotten(now_ms)
            held: dict[str, Held] = {}
            for topic, seat in self._seats.items():
                if (heard := seat.heard) is not None and now_ms - heard.stamp_ms <= self._hold_ms:
                    held[topic] = Held(heard.reading.value, _quality(heard, seat.told))
                seat.told = heard
            return Look(self._current_plan(), held, self._silent(held, now_s))

    def events(self) -> list[EventMessage]:
        """What happened since the last call."""
        now_ms, now_s = self._clock.utc_ms(), self._clock.monotonic_s()
        with self._lock:
            return [*self._alarms.take(now_s), *self._hearts.judge(now_s=now_s, time_ms=now_ms)]

    def plan(self) -> Plan:
        """How points become rows, by the metadata that have come."""
        with self._lock:
            return self._current_plan()

    def changes(self) -> int:
        """How often the metadata have begun to say something else, since the start. Never blocks."""
        return self._changes

    def heartbeats(self) -> list[DeviceReport]:
        """How each heartbeat does."""
        with self._lock:
            return list(self._hearts.reports(self._clock.monotonic_s()))

    def tally(self) -> Tally:
        """What became of the messages."""
        with self._lock:
            return Tally(self._used, dict(self._refused), dict(self._examples))

    def _receive(self, topic: str, payload: bytes | bytearray, *, is_live: bool) -> bool:
        if (seat := self._seats.get(topic)) is not None:
            return self._take(seat, payload, is_live=is_live)
        if (known := self._metadata.get(topic)) is not None and known[0] == hash(bytes(payload)):
            return False  # said again, every 100 s
        parts = parse_topic(topic)
        if parts.is_metadata:
            return self._describe(topic, parts, payload)
        if parts.address.point_type == HEARTBEAT:
            self._beat(parts.address, payload, is_live=is_live)
            return False
        if parts.address.point_type in HEARTBEATS:
            return False
        return self._take(self._seat(topic, parts.address, evict=False), payload, is_live=is_live)

    def _take(self, seat: _Seat, payload: bytes | bytearray, *, is_live: bool) -> bool:
        """A reading of a point; True when it is an alarm."""
        reading = decode_reading(payload)
        stamp_ms = self._stamp(seat.address, reading, is_live=is_live)
        if seat.heard is not None and stamp_ms < seat.heard.stamp_ms:
            raise RefusedError(Refusal.DISORDER)
        seat.heard = _Heard(reading, stamp_ms, is_live)
        self._used += 1
        return seat.address.point_type in ALARMS and self._alarm(seat)

    def _stamp(self, address: PointAddress, reading: PointReading, *, is_live: bool) -> float:
        """The reading's time. An alarm does not wait until somebody has set a clock: it counts from now."""
        now_ms = self._clock.utc_ms()
        if now_ms - self._hold_ms <= reading.timestamp <= now_ms + FUTURE_MS:
            return reading.timestamp
        reason = Refusal.FUTURE if reading.timestamp > now_ms else Refusal.STALE
        if not is_live or address.point_type not in ALARMS:
            raise RefusedError(reason)
        self._count(reason, address.name)
        return float(now_ms)

    def _beat(self, address: PointAddress, payload: bytes | bytearray, *, is_live: bool) -> None:
        reading = decode_reading(payload)
        if is_live and reading.value is not None:
            self._hearts.beat(address, reading.value, now_s=self._clock.monotonic_s())

    def _describe(self, topic: str, parts: TopicParts, payload: bytes | bytearray) -> bool:
        """Metadata of a point; empty ones take it back. True when what it said before is an alarm."""
        address = parts.address
        if parts.publisher != BMS:
            raise RefusedError(Refusal.TOPIC)
        if not payload:
            self._forget(topic, address)
            return False
        facts = decode_facts(payload)
        publisher = facts.integration or BMS
        if publisher != BMS and address.point_type not in INTEGRATION_POINTS:
            return False
        if address.point_type in HEARTBEATS:
            self._expect(address, facts)
            return False
        value_topic = address.value_topic(publisher)
        if topic in self._metadata and self._metadata[topic][1] != value_topic:
            self._forget(topic, address)
        seat = self._seat(value_topic, address, evict=True)
        self._metadata[topic] = hash(bytes(payload)), value_topic
        described = DescribedPoint(value_topic, address, facts)
        if seat.described == described:
            return False  # only what we do not read is another
        if seat.described is None:
            seat.described_at_s = self._clock.monotonic_s()
        seat.described = described
        self._undescribed.pop(value_topic, None)
        self._note_change()
        return self._alarm(seat)

    def _expect(self, address: PointAddress, facts: PointFacts) -> None:
        if address.point_type == HEARTBEAT:
            name, scope = facts.object_name or facts.object_id or address.tag, facts.scope or ""
            self._hearts.expect(address, name, scope, now_s=self._clock.monotonic_s())

    def _alarm(self, seat: _Seat) -> bool:
        """Compare an alarm point with how it was told; True when there is something to tell at once."""
        described, heard = seat.described, seat.heard
        if described is None or heard is None or not heard.reading.is_good or seat.address.point_type not in ALARMS:
            return False
        now_ms, value = self._clock.utc_ms(), heard.reading.value
        if now_ms - heard.stamp_ms > self._hold_ms:
            return False
        if value not in (0.0, 1.0):
            raise RefusedError(Refusal.PAYLOAD, f"{value} is neither 0 nor 1")
        if not self._alarms.is_change(seat.address, value):
            return False
        return self._alarms.note(
            seat.address,
            self._subject(described),
            value,
            described.facts.state_name(value),
            time_ms=int(heard.stamp_ms),
            now_s=self._clock.monotonic_s(),
        )

    def _subject(self, described: DescribedPoint) -> AlarmSubject:
        objects = self._current_plan().objects
        owner = objects.owner(described) if described.object_id else None
        if owner is not None:
            return AlarmSubject(owner.resource, owner.identity, owner.name)
        identity = (
            f"{objects.device(described)[1]}/{described.address.name}" if described.object_id else described.topic
        )
        return AlarmSubject(resource_id(ResourceKind.POINT, identity), identity, described.object_name or identity)

    def _seat(self, topic: str, address: PointAddress, *, evict: bool) -> _Seat:
        """The point's seat. A point with metadata may take that of one without."""
        if (seat := self._seats.get(topic)) is not None:
            return seat
        if len(self._seats) >= self._settings.max_points:
            if not (evict and self._undescribed):
                raise RefusedError(Refusal.TOO_MANY)
            self._drop(next(iter(self._undescribed)))
        seat = self._seats[topic] = _Seat(topic, address)
        self._undescribed[topic] = None
        return seat

    def _forget(self, metadata_topic: str, address: PointAddress) -> None:
        self._alarms.forget(address)
        self._hearts.forget(address)
        known = self._metadata.pop(metadata_topic, None)
        if known is not None:
            self._drop(known[1])
            self._note_change()

    def _note_change(self) -> None:
        self._plan = None
        self._changes += 1

    def _drop(self, value_topic: str) -> None:
        self._seats.pop(value_topic, None)
        self._undescribed.pop(value_topic, None)

    def _drop_forgotten(self, now_ms: int) -> None:
        """Points that nobody described for so long that what they said does not stand any more."""
        for topic in list(self._undescribed):
            heard = self._seats[topic].heard
            if heard is None or now_ms - heard.stamp_ms > self._hold_ms:
                self._drop(topic)

    def _current_plan(self) -> Plan:
        if self._plan is None:
            described = [seat.described for seat in self._seats.values() if seat.described is not None]
            self._plan = make_plan(described, self._settings)
        return self._plan

    def _silent(self, held: Mapping[str, Held], now_s: float) -> tuple[DeviceReport, ...]:
        """Racks and equipment that were described a hold ago or longer, and of which nothing stands."""
        points: Counter[str] = Counter()
        speaking: set[str] = set()
        for topic, seat in self._seats.items():
            if seat.described is None:
                continue
            device = f"{seat.address.object_type} {seat.described.object_id}"
            points[device] += 1
            if topic in held or now_s - seat.described_at_s <= self._settings.hold_s:
                speaking.add(device)
        return tuple(
            DeviceReport(
                device, DeviceState.UNREACHABLE, f"nothing of its {count} points for {self._settings.hold_s:g} s"
            )
            for device, count in points.items()
            if device not in speaking
        )

    def _count(self, reason: Refusal, example: str) -> None:
        self._refused[reason] += 1
        self._examples[reason] = example[:256]


def _quality(heard: _Heard, told: _Heard | None) -> Quality:
    if not heard.reading.is_good:
        return Quality.BAD
    return Quality.GOOD if heard.is_live and heard is not told else Quality.HELD
