"""Redfish: CDUs, cooling loops, power shelves, PDUs, servers and switches, through their management controllers.

DMTF DSP0266 and the schemas of DSP8010 2025.4. Read only: besides opening and ending its session it changes nothing.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from fractions import Fraction
from threading import Event

from msgspec.structs import replace

from catalogue import TRAY, Metric, ResourceKind, resource_id
from catalogue.facility import LeakState
from collectors.counters import CounterRule, Counters, CounterStore
from collectors.device_pool import DevicePool
from collectors.devices import DeviceReport, DeviceState
from collectors.facility import MAX_NAME_CHARACTERS, Measurement, PointValue, gateway_id, readings_of
from collectors.redfish.bmc import Bmc, BmcAnswer
from collectors.redfish.equipment import Equipment
from collectors.redfish.leaks import LEAK_NAMES, Detector
from collectors.redfish.racks import Racks
from collectors.redfish.settings import RedfishSettings
from collectors.redfish.tree import Place
from collectors.redfish.values import Values
from collectors.source import Reading, SourceUnavailableError
from stream.clock import Clock
from stream.messages import EventMessage, InventoryMessage, JobMessage
from stream.rows import pack

MAX_EVENTS = 1000  # that wait to be fetched
GOODBYE_S = 4.0  # for ending all sessions
# A register of whole kilowatt-hours jumps by 3.6 MJ at once: this lets three of them pass in a tick of ten seconds.
TRAY_CEILING_WATTS = 1_000_000
TRAY_ENERGY = CounterRule.of(TRAY.metric("energy_joules"), Fraction(1), ceiling_per_s=TRAY_CEILING_WATTS)

_log = logging.getLogger(__name__)


class RedfishSource:
    """All devices of the settings, each with a state of its own.

    `gateway` is the identity of the machine that reads. `counters` keeps the energy registers of trays across restarts
    of the agent; without it the first tick has no energy of them.
    """

    def __init__(
        self, settings: RedfishSettings, *, gateway: str, clock: Clock, counters: CounterStore | None = None
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._source = gateway_id(gateway, self.name)
        self._stopping = Event()
        self._bmcs = {
            device.name: Bmc(device, settings, clock=clock, stopping=self._stopping) for device in settings.devices
        }
        self._pool = DevicePool(
            {name: bmc.read for name, bmc in self._bmcs.items()},
            source=self.name,
            workers=settings.workers,
            deadline_s=settings.deadline_s,
            clock=clock,
        )
        self._racks = Racks(settings.devices)
        self._counters = Counters(counters)
        self._claims: dict[int, tuple[str, str]] = {}  # resource: the device and path that it was first seen at
        self._twins: set[tuple[str, str]] = set()
        self._had: dict[str, frozenset[tuple[int, str]]] = {}  # resources and paths, by device
        self._leaks: dict[tuple[str, str, str], int] = {}  # by device, equipment and detector
        self._events: list[EventMessage] = []
        self._known: dict[int, InventoryMessage] = {}
        self._is_changed = False  # what is known, since it was told
        # By rack, the devices and paths that it is measured by, and whether each has an energy register.
        self._rack_members: defaultdict[int, dict[tuple[str, str], bool]] = defaultdict(dict)

    @property
    def name(self) -> str:
        return "redfish"

    def inventory(self) -> Sequence[InventoryMessage]:
        """What has been found so far."""
        self._is_changed = False
        return list(self._known.values())

    def inventory_changed(self) -> bool:
        return self._is_changed

    def read(self, time_s: int) -> Sequence[Reading]:
        answers = self._pool.poll()
        if not answers:
            raise SourceUnavailableError(self._why())
        values = {name: self._own(name, answer) for name, answer in answers.items() if answer.is_known}
        for device, found in values.items():
            self._note(device, found, time_s)
        points = [point for found in values.values() for one in found for point in one.points]
        measurements = [*self._measurements(values, time_s), *self._racks.rows(values)]
        self._counters.keep()
        trays = [one for one in measurements if one.table is TRAY]
        others = [one for one in measurements if one.table is not TRAY]
        return [*self._of_trays(trays, time_s), *readings_of(self._source, time_s, others, points)]

    def events(self) -> Sequence[EventMessage | JobMessage]:
        """Changes of leak detectors between two ticks; one that is not dry when it is first seen is one."""
        events, self._events = self._events, []
        return events

    def devices(self) -> Sequence[DeviceReport]:
        return self._pool.reports()

    def remarks(self) -> Sequence[str]:
        """Devices that could not be read, and what could not be read of the others."""
        dark = [f"{report.device} is {report.state}: {report.why}" for report in self.devices() if report.why]
        partly = [f"{name}: {bmc.remark}" for name, bmc in self._bmcs.items() if bmc.remark]
        return [*dark, *partly]

    def why_absent(self, resource: int, metric: Metric) -> str:  # noqa: ARG002 - the protocol's signature
        """What is the matter with the device that has the resource; empty when nothing is."""
        device = self._claims.get(resource, ("", ""))[0]
        why = next((report.why for report in self.devices() if report.device == device), "")
        return why or (self._bmcs[device].remark if device in self._bmcs else "")

    def close(self) -> None:
        """End the sessions; a device that does not answer keeps its own until it runs out there."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._pool.close()
        farewells = ThreadPoolExecutor(min(self._settings.workers, max(len(self._bmcs), 1)))
        wait([farewells.submit(bmc.close) for bmc in self._bmcs.values()], timeout=GOODBYE_S)
        farewells.shutdown(wait=False, cancel_futures=True)

    def _of_trays(self, trays: Sequence[Measurement], time_s: int) -> list[Reading]:
        """Rows of trays, a table without a quality of its own."""
        if not trays:
            return []
        names = sorted({name for tray in trays for name in tray.values})
        columns = {name: [tray.values.get(name, math.nan) for tray in trays] for name in names}
        return [Reading(self._source, TRAY, pack(TRAY, [tray.resource for tray in trays], time_s, columns))]

    def _why(self) -> str:
        reports = self.devices()
        if not reports:
            return "redfish has no devices: give some in [[redfish.devices]]"
        states = {state: sum(report.state is state for report in reports) for state in DeviceState}
        counted = ", ".join(f"{count} {state}" for state, count in states.items() if count)
        return f"none of {len(reports)} devices could be read: {counted}"

    # What was read ---------------------------------------------------------------------------------------------------

    def _own(self, device: str, answer: BmcAnswer) -> tuple[Values, ...]:
        """Without what another device has claimed already: two things with one identity are not one thing."""
        return tuple(one for one in answer.values if self._claim(device, one.equipment))

    def _claim(self, device: str, equipment: Equipment) -> bool:
        claim = device, equipment.path
        first = self._claims.setdefault(equipment.resource, claim)
        if equipment.kind is ResourceKind.RACK or first[0] == device:
            return True
        if claim not in self._twins:
            self._twins.add(claim)
            _log.warning(
                "Two devices measure what has one identity: only the first is read; give one of them an identity",
                extra={"identity": equipment.identity, "first": first[0], "second": device},
            )
        return False

    def _measurements(self, values: Mapping[str, Sequence[Values]], time_s: int) -> list[Measurement]:
        """The rows of all that is not a rack. What settings make one thing of is one row."""
        rows: dict[int, Measurement] = {}
        for one in (one for found in values.values() for one in found):
            if one.equipment.kind is ResourceKind.RACK:
                continue
            resource, before = one.equipment.resource, rows.get(one.equipment.resource)
            columns = {**one.columns, **self._energy(one, time_s), **(before.values if before else {})}
            quality = max(one.quality, before.quality) if before else one.quality
            if columns:
                rows[resource] = Measurement(one.equipment.table, resource, columns, quality)
        return list(rows.values())

    def _energy(self, one: Values, time_s: int) -> dict[str, float]:
        """What a tray's register counted since the tick before."""
        if one.energy_joules is None:
            return {}
        key = f"redfish/{one.equipment.identity}/energy_joules"
        delta = self._counters.delta(key, TRAY_ENERGY, round(one.energy_joules), time_s=time_s)
        return {} if delta is None else {"energy_joules": delta}

    # What is told besides --------------------------------------------------------------------------------------------

    def _note(self, device: str, found: Sequence[Values], time_s: int) -> None:
        self._forget_what_went(device, frozenset((one.equipment.resource, one.equipment.path) for one in found))
        for one in found:
            self._learn(self._message(one.equipment))
            for value in one.points:
                self._learn_point(value)
            for detector in one.detectors:
                self._watch(device, one.equipment, detector, time_s)

    def _forget_what_went(self, device: str, has: frozenset[tuple[int, str]]) -> None:
        """What a device does not have any more is told no longer, and may be another's."""
        gone = self._had.get(device, frozenset()) - has
        self._had[device] = has
        for resource, path in gone:
            self._rack_members[resource].pop((device, path), None)
            self._leaks = {key: state for key, state in self._leaks.items() if key[:2] != (device, path)}
            if self._claims.get(resource) == (device, path):
                del self._claims[resource]
                points = [
                    one.resource for one in self._known.values() if one.parent == resource and one.kind == "point"
                ]
                for known in (resource, *points):
                    self._known.pop(known, None)

    def _learn(self, message: InventoryMessage) -> None:
        """Keep the message, with the time since when it has said the same."""
        before = self._known.get(message.resource)
        if before is None or replace(message, valid_from_ms=before.valid_from_ms) != before:
            self._known[message.resource], self._is_changed = message, True

    def _learn_point(self, value: PointValue) -> None:
        if value.point.resource not in self._known:
            now_ms = self._clock.utc_ms()
            self._learn(value.point.inventory(valid_from_ms=now_ms, source=self._source))

    def _message(self, equipment: Equipment) -> InventoryMessage:
        attributes = dict(equipment.attributes) | {"interval_s": str(self._settings.interval_s)}
        message = InventoryMessage(
            resource=equipment.resource,
            kind=equipment.kind,
            identity=equipment.identity,
            name=equipment.name[:MAX_NAME_CHARACTERS],
            valid_from_ms=self._clock.utc_ms(),
            parent=equipment.parent,
            serves=equipment.serves,
            source=self._source,
            attributes={name: fact[:MAX_NAME_CHARACTERS] for name, fact in attributes.items()},
        )
        return self._joined(message, equipment) if equipment.kind is ResourceKind.RACK else message

    def _joined(self, now: InventoryMessage, equipment: Equipment) -> InventoryMessage:
        """What several devices say of one rack. A register that is a sum starts again at no single value."""
        members = self._rack_members[now.resource]
        has_register = any(part.place in (Place.METRICS, Place.ENVIRONMENT) for part in equipment.parts)
        members[now.attributes["device"], equipment.path] = has_register
        before = self._known.get(now.resource, now)
        devices = ", ".join(sorted({device for device, _ in members}))[:MAX_NAME_CHARACTERS]
        attributes = {**now.attributes, **before.attributes, "device": devices}
        if sum(members.values()) > 1:
            attributes.pop("register_modulus_joules", None)
        return replace(
            now,
            name=now.name if before.name == before.identity else before.name,
            parent=before.parent or now.parent,
            serves=before.serves or now.serves,
            attributes=attributes,
        )

    def _watch(self, device: str, equipment: Equipment, detector: Detector, time_s: int) -> None:
        """An event when a detector says another thing than at the tick before; one that is not heard is no change."""
        if detector.state is None:
            return
        key = device, equipment.path, detector.label
        before = self._leaks.get(key)
        self._leaks[key] = detector.state
        if detector.state != (LeakState.DRY if before is None else before) and len(self._events) < MAX_EVENTS:
            self._events.append(self._event(device, equipment, detector, before, time_s))

    def _event(
        self, device: str, equipment: Equipment, detector: Detector, before: int | None, time_s: int
    ) -> EventMessage:
        is_now, was = (
            LEAK_NAMES[detector.state or LeakState.DRY],
            LEAK_NAMES[before] if before is not None else "not known",
        )
        facts = {"device": device, "before": was, "label": detector.label, **detector.facts}
        name = f"{equipment.identity}/{detector.label}/leak/{time_s}"
        return EventMessage(
            id=name if len(name) <= MAX_NAME_CHARACTERS else f"{resource_id(equipment.kind, name):016x}/leak/{time_s}",
            resource=equipment.resource,
            time_ms=time_s * 1000,
            kind="leak",
            code=detector.state or LeakState.DRY,
            text=f"{is_now}, was {was}",
            source=self._source,
            attributes={name: fact[:MAX_NAME_CHARACTERS] for name, fact in facts.items() if fact},
        )
