"""Leaks, isolations and heartbeats of the BMS bus as events: one per change, at the moment that the bus tells it; pure.

A detector that flutters is told less often, never less truly: what is told last is how it stands.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from catalogue.facility import LeakState
from collectors.devices import DeviceReport, DeviceState
from collectors.dsx.message import PointAddress, Refusal, RefusedError
from collectors.facility import MAX_NAME_CHARACTERS
from stream.messages import EventMessage

LEAK, ISOLATED = "leak", "rack_isolated"
HEARTBEAT_LOST, HEARTBEAT_BACK = "bms_heartbeat_lost", "bms_heartbeat_back"


@dataclass(frozen=True, slots=True)
class AlarmKind:
    """The event that a point makes, and its codes while the alarm stands and when it is over."""

    kind: str
    begins: int = 1
    ends: int = 0


_LEAK = AlarmKind(LEAK, LeakState.CRITICAL, LeakState.DRY)
# bms.yaml: all of them are 0 or 1, and 1 is the alarm.
ALARMS: Mapping[str, AlarmKind] = {
    "RackLeakDetect": _LEAK,
    "RackLeakDetectTray": _LEAK,
    "LeakDetect": _LEAK,
    "RackLeakSensorFault": AlarmKind(LEAK, LeakState.SENSOR_FAULT, LeakState.DRY),
    "RackLiquidIsolationStatus": AlarmKind(ISOLATED),
    "RackElectricalIsolationStatus": AlarmKind(ISOLATED),
}
HEARTBEAT = "HeartbeatTimestampBms"

MAX_CHANGES = 10  # of one detector in a window: what changes more often is a loose contact
WINDOW_S = 60.0
MAX_HEARTS = 64  # one for each MQTT client of the building system


@dataclass(frozen=True, slots=True)
class AlarmSubject:
    """What an alarm point is about: a rack, a CDU, or itself where its equipment has no kind."""

    resource: int
    identity: str
    name: str


@dataclass(slots=True)
class _Detector:
    """How one alarm point stands, and how it was told. 0 needs no telling at the start."""

    stands: float = 0.0
    told: float = 0.0
    changes: int = 0  # since it was told
    window_from_s: float = 0.0
    told_in_window: int = 0


class Alarms:
    """The alarm points of one bus. The caller sees to it that one thread uses it at a time."""

    def __init__(self, source: int) -> None:
        self._source = source
        self._detectors: dict[PointAddress, _Detector] = {}
        self._held_back: dict[PointAddress, EventMessage] = {}
        self._events: list[EventMessage] = []

    def is_change(self, address: PointAddress, stands: float) -> bool:
        """Whether the point stands otherwise than it did; one that was never told of stands at 0."""
        detector = self._detectors.get(address)
        return stands != (detector.stands if detector else 0.0)

    def note(
        self, address: PointAddress, subject: AlarmSubject, stands: float, state: str, *, time_ms: int, now_s: float
    ) -> bool:
        """Note a change; True when it has to be told at once."""
        detector = self._detectors.setdefault(address, _Detector(window_from_s=now_s))
        detector.stands = stands
        detector.changes += 1
        event = self._event(address, subject, detector, state, time_ms)
        if self._is_fluttering(detector, now_s):
            self._held_back[address] = event
            return False
        self._tell(address, event)
        return True

    def take(self, now_s: float) -> list[EventMessage]:
        """What is to be told now, and how the points that fluttered stand once they have calmed down."""
        for address, event in list(self._held_back.items()):
            detector = self._detectors[address]
            if not self._is_fluttering(detector, now_s):
                del self._held_back[address]
                if detector.stands != detector.told:
                    self._tell(address, event)
        events, self._events = self._events, []
        return events

    def forget(self, address: PointAddress) -> None:
        """The point is no more."""
        self._detectors.pop(address, None)
        self._held_back.pop(address, None)

    def _is_fluttering(self, detector: _Detector, now_s: float) -> bool:
        if now_s - detector.window_from_s >= WINDOW_S:
            detector.window_from_s, detector.told_in_window = now_s, 0
        # One more for an alarm: while it flutters, what was told last is the alarm.
        return detector.told_in_window >= MAX_CHANGES + int(detector.stands)

    def _tell(self, address: PointAddress, event: EventMessage) -> None:
        detector = self._detectors[address]
        detector.told, detector.changes = detector.stands, 0
        detector.told_in_window += 1
        self._events.append(event)

    def _event(
        self, address: PointAddress, subject: AlarmSubject, detector: _Detector, state: str, time_ms: int
    ) -> EventMessage:
        alarm = ALARMS[address.point_type]
        facts = {"identity": subject.identity, "point": address.name, "state": state}
        return EventMessage(
            id=f"{address.name}/{time_ms}",
            resource=subject.resource,
            time_ms=time_ms,
            kind=alarm.kind,
            code=alarm.begins if detector.stands else alarm.ends,
            count=detector.changes,
            text=f"{subject.name}: {state or ('yes' if detector.stands else 'no')} ({address.point_type})",
            source=self._source,
            attributes={name: fact[:MAX_NAME_CHARACTERS] for name, fact in facts.items() if fact},
        )


@dataclass(slots=True)
class _Heart:
    """One heartbeat. Before the first beat its silence counts from when it was expected."""

    name: str
    scope: str
    last_s: float
    value: float | None = None
    is_lost: bool = False


class Heartbeats:
    """The heartbeats of the building system's MQTT clients. The caller sees to it that one thread uses it at a time.

    A heartbeat beats when its time moves on: a bridge that repeats the last message of a dead system does not.
    """

    def __init__(self, source: int, *, lost_s: float, now_s: float) -> None:
        self._source = source
        self._lost_s = lost_s
        # Until the bus tells of a heartbeat, somebody's is expected.
        self._nobody: _Heart | None = _Heart("BMS", "", now_s)
        self._hearts: dict[PointAddress, _Heart] = {}

    def expect(self, address: PointAddress, name: str, scope: str, *, now_s: float) -> None:
        """The bus tells of a heartbeat. Raises RefusedError when there are too many."""
        heart = self._heart(address, now_s)
        heart.name, heart.scope = name, scope

    def beat(self, address: PointAddress, value: float, *, now_s: float) -> None:
        """A heartbeat's own time. Raises RefusedError when there are too many."""
        heart = self._heart(address, now_s)
        if value != heart.value:
            heart.value, heart.last_s = value, now_s

    def forget(self, address: PointAddress) -> None:
        """The heartbeat is no more, as its metadata were taken back."""
        self._hearts.pop(address, None)

    def judge(self, *, now_s: float, time_ms: int) -> list[EventMessage]:
        """What was lost, and what came back, since the last call."""
        events = []
        for heart in self._all():
            is_lost = now_s - heart.last_s > self._lost_s
            if is_lost != heart.is_lost:
                heart.is_lost = is_lost
                events.append(self._event(heart, now_s, time_ms))
        return events

    def reports(self, now_s: float) -> Iterator[DeviceReport]:
        """How each heartbeat does."""
        for heart in self._all():
            device, silent_s = f"heartbeat {heart.name} {heart.scope}".rstrip(), now_s - heart.last_s
            if silent_s > self._lost_s:
                yield DeviceReport(device, DeviceState.UNREACHABLE, f"silent for {silent_s:.0f} s")
            else:
                yield DeviceReport(device, DeviceState.UNKNOWN if heart.value is None else DeviceState.OK)

    def _heart(self, address: PointAddress, now_s: float) -> _Heart:
        if (known := self._hearts.get(address)) is not None:
            return known
        if len(self._hearts) >= MAX_HEARTS:
            raise RefusedError(Refusal.TOO_MANY, address.name)
        heart = self._nobody or _Heart(address.tag, "", now_s)
        self._nobody = None
        self._hearts[address] = heart
        return heart

    def _all(self) -> list[_Heart]:
        return [*self._hearts.values(), *([self._nobody] if self._nobody else [])]

    def _event(self, heart: _Heart, now_s: float, time_ms: int) -> EventMessage:
        kind = HEARTBEAT_LOST if heart.is_lost else HEARTBEAT_BACK
        silent = f"no heartbeat for {now_s - heart.last_s:.0f} s: what it published last may not be so any more"
        return EventMessage(
            id=f"{kind}/{heart.name}/{heart.scope}/{self._source:x}/{time_ms}"[:MAX_NAME_CHARACTERS],
            resource=self._source,
            time_ms=time_ms,
            kind=kind,
            code=int(heart.is_lost),
            text=f"{heart.name}: {silent if heart.is_lost else 'the heartbeat is back'}",
            source=self._source,
            attributes={"bms": heart.name, **({"scope": heart.scope} if heart.scope else {})},
        )
