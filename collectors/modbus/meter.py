"""What is known of one device over time: its identity, its registers, and what happened to it. Talks to no device."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from msgspec.structs import replace

from catalogue import ResourceKind, resource_id, units
from collectors.facility import Measurement, Point, PointValue
from collectors.modbus.device import ModbusAnswer
from collectors.modbus.map import REFUSED, SERIAL, RegisterFacts, RegisterMap
from collectors.modbus.settings import ModbusDevice
from stream.messages import EventMessage, InventoryMessage

# The power that makes a register grow, and its sign.
POWER_OF = {
    "energy_import_joules": ("active_power_watts", 1),
    "energy_export_joules": ("active_power_watts", -1),
    "energy_register_joules": ("power_watts", 1),
    "heat_register_joules": ("heat_flow_watts", 1),
}
# The register that reports count with is described by register_*; another one by its own name.
MAIN_REGISTERS = ("energy_import_joules", "energy_register_joules", "heat_register_joules")

# The ledger knows a roll-over by a reading in the register's last hundredth and one in its first: fewer readings than
# this from one roll-over to the next, and it sees resets.
READINGS_PER_WRAP = 100
GAP_INTERVALS = 3  # over a longer gap nobody knows what the power was
SETTLED_S = 600  # between two scales of one register
STEPS_MISSED = 2  # a register that counts in MWh may stand still for a day

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _RegisterWatch:
    """Since when a register has stood still, and how much should have been counted since by the meter's own power."""

    register: float
    since_s: int
    seen_s: int
    expected_joules: float = 0.0
    told: bool = False

    def see(self, register: float, power_watts: float, time_s: int, longest_gap_s: int) -> None:
        if register != self.register:
            self.register, self.since_s, self.expected_joules, self.told = register, time_s, 0.0, False
        else:
            self.expected_joules += max(power_watts, 0.0) * min(time_s - self.seen_s, longest_gap_s)
        self.seen_s = time_s


class MeterRecord:
    """One device of the source. Used by the polling thread only.

    `device.identity` or the serial number is its identity. When another serial number appears, an event tells it, and
    with it what the registers were and are. A register that stands still for `frozen_after_s` although the meter's own
    power should have moved it is told once, until it moves again.
    """

    def __init__(
        self,
        device: ModbusDevice,
        register_map: RegisterMap | None,
        *,
        source: int,
        interval_s: int,
        frozen_after_s: int,
    ) -> None:
        self.device = device
        self._source = source
        self._interval_s = interval_s
        self._frozen_after_s = frozen_after_s
        self._map = register_map
        self._kind = register_map.kind if register_map else ResourceKind.METER  # as which SunSpec meters are read
        self._facts: Mapping[str, str] = {}
        self._registers: dict[str, RegisterFacts] = {}
        self._rescaled_s: dict[str, int] = {}  # when each was learnt
        self._latest: dict[str, float] = {}  # registers as last read
        self._watches: dict[str, _RegisterWatch] = {}
        self._warned: set[str] = set()
        self._events: list[EventMessage] = []
        self._published: dict[int, InventoryMessage] = {}
        self._changed_ms = 0
        self.absent: Mapping[str, str] = {}
        self.changed = bool(self.identity)  # the inventory has something else to say than when it was last asked

    @property
    def identity(self) -> str:
        """Empty until a device without an identity in the settings has told its serial number."""
        return self.device.identity or self._facts.get(SERIAL, "")

    @property
    def refused(self) -> list[str]:
        """The metrics and points that the device refused when it last answered."""
        return [name for name, why in self.absent.items() if why == REFUSED]

    @property
    def resource(self) -> int:
        return resource_id(self._kind, self.identity)

    def take(self, answer: ModbusAnswer, time_s: int) -> tuple[Measurement | None, list[PointValue]]:
        """What the answer says, as rows; events and inventory follow from it."""
        before = (self._map, self._facts, dict(self._registers))
        self._map = answer.map
        self.absent = answer.values.absent
        registers = {name: answer.values.metrics[name] for name in answer.values.registers if name in POWER_OF}
        self._learn_facts(answer.facts, registers, time_s)
        self._learn_registers(answer.values.registers, time_s)
        self._watch(answer.values.metrics, registers, time_s)
        self._latest = registers
        if before != (self._map, self._facts, self._registers):
            self.changed, self._changed_ms = True, time_s * 1000
        return self._rows(answer)

    def events(self) -> list[EventMessage]:
        """What happened since the last call."""
        events, self._events = self._events, []
        return events

    def inventory(self, time_ms: int) -> list[InventoryMessage]:
        """The device and its points, since when they are so; nothing while its identity is not known.

        The ledger takes the time of an exchange from here: it is that of the tick that first read the new meter.
        """
        self.changed = False
        if not self.identity:
            return []
        time_ms = self._changed_ms or time_ms
        messages = [self._message(time_ms)]
        messages += [one.inventory(valid_from_ms=time_ms, source=self._source) for one in self._points().values()]
        since = {message.resource: self._since(message) for message in messages}
        self._published = since
        return list(since.values())

    def _rows(self, answer: ModbusAnswer) -> tuple[Measurement | None, list[PointValue]]:
        values = answer.values
        points = self._points()
        found = [PointValue(points[name], value, values.quality) for name, value in values.points.items()]
        if not values.metrics:
            return None, found
        return Measurement(answer.map.table, self.resource, values.metrics, values.quality), found

    def _points(self) -> dict[str, Point]:
        return {
            one.name: Point(
                device=self.resource,
                device_identity=self.identity,
                name=one.name,
                unit=one.unit.base,
                kind="counter" if one.is_register else "gauge",
            )
            for one in (self._map.values if self._map else ())
            if one.metric is None and one.unit is not None
        }

    # What the device is -----------------------------------------------------------------------------------------------

    def _message(self, time_ms: int) -> InventoryMessage:
        return InventoryMessage(
            resource=self.resource,
            kind=self._kind,
            identity=self.identity,
            name=self.device.name,
            valid_from_ms=time_ms,
            parent=_resource_of(self.device.parent) if self.device.parent else 0,
            serves=tuple(_resource_of(place) for place in self.device.serves),
            source=self._source,
            attributes=self._attributes(),
        )

    def _attributes(self) -> dict[str, str]:
        watts = self.device.nominal_power_watts
        told = {
            "device": self.device.address,
            "map": self._map.name if self._map else "",
            "interval_s": str(self._interval_s),
            "role": self.device.role,
            "class": self.device.accuracy_class,
            "measured_at": self.device.measured_at,
            "nominal_power_watts": _plain(watts) if watts else "",
            **dict(self._register_attributes()),
        }
        mapped = self._map.attributes if self._map else {}
        found = {**mapped, **self.device.attributes, **self._facts, **told}
        return {name: text for name, text in found.items() if text}

    def _register_attributes(self) -> Iterator[tuple[str, str]]:
        main = next((name for name in MAIN_REGISTERS if name in self._registers), None)
        for name, facts in self._registers.items():
            unit = units.JOULES.suffix if name.endswith(units.JOULES.suffix) else units.CUBIC_METRES.suffix
            stem = "register" if name == main else name.removesuffix(f"_{unit}")
            yield f"{stem}_resolution_{unit}", _plain(facts.resolution)
            if facts.modulus:
                yield f"{stem}_modulus_{unit}", _plain(facts.modulus)

    def _since(self, message: InventoryMessage) -> InventoryMessage:
        """The message with the time since when it has said the same."""
        before = self._published.get(message.resource)
        if before is not None and replace(message, valid_from_ms=before.valid_from_ms) == before:
            return before
        earliest_ms = before.valid_from_ms + 1 if before is not None else 0
        return replace(message, valid_from_ms=max(message.valid_from_ms, earliest_ms))

    def _learn_facts(self, facts: Mapping[str, str], registers: Mapping[str, float], time_s: int) -> None:
        old, new = self._facts.get(SERIAL), facts.get(SERIAL)
        self._facts = facts if new or not old else {**facts, SERIAL: old}  # one that is not told now is no other one
        if old and new and old != new:
            self._events.append(self._exchanged(old, new, registers, time_s))
            self._registers, self._watches, self._warned = {}, {}, set()

    def _exchanged(self, old: str, new: str, registers: Mapping[str, float], time_s: int) -> EventMessage:
        facts = {"device": self.device.name, "old_serial": old, "new_serial": new}
        facts |= {f"{name}_before": _plain(value) for name, value in self._latest.items()}
        facts |= {f"{name}_after": _plain(value) for name, value in registers.items()}
        text = f"{self.device.name} has the serial number {new}, had {old}"
        return self._event("meter_exchanged", text, facts, time_s)

    # Its registers ----------------------------------------------------------------------------------------------------

    def _learn_registers(self, found: Mapping[str, RegisterFacts], time_s: int) -> None:
        """A float's resolution is told when it has doubled: a register that falls keeps the coarser one.

        A scale factor that changes all the time must not be told all the time.
        """
        for name, facts in found.items():
            known = self._registers.get(name)
            rescaled = known is not None and facts.modulus != known.modulus
            settled = time_s - self._rescaled_s.get(name, 0) >= SETTLED_S
            if known is None or (rescaled and settled) or (not rescaled and facts.resolution >= 2 * known.resolution):
                self._registers[name] = facts
                self._rescaled_s[name] = time_s
                self._warn_of_wrap(name, facts.modulus)

    def _warn_of_wrap(self, name: str, modulus: float) -> None:
        watts = self.device.nominal_power_watts
        if not modulus or not watts or name not in POWER_OF or name in self._warned:
            return
        wrap_s = modulus / watts
        if wrap_s < READINGS_PER_WRAP * self._interval_s:
            self._warned.add(name)
            _log.warning(
                "A register starts again too soon for its interval: read it more often, or take a wider register",
                extra={
                    "device": self.device.name,
                    "register": name,
                    "wrap_s": round(wrap_s),
                    "interval_s": self._interval_s,
                },
            )

    def _watch(self, metrics: Mapping[str, float], registers: Mapping[str, float], time_s: int) -> None:
        for name, register in registers.items():
            power, sign = POWER_OF[name]
            watch = self._watches.setdefault(name, _RegisterWatch(register, time_s, time_s))
            watch.see(register, sign * metrics.get(power, 0.0), time_s, GAP_INTERVALS * self._interval_s)
            stands_s = time_s - watch.since_s
            missed = watch.expected_joules >= STEPS_MISSED * self._registers[name].resolution
            if stands_s > self._frozen_after_s and watch.expected_joules > 0 and missed and not watch.told:
                watch.told = True
                self._events.append(self._frozen(name, watch, time_s))

    def _frozen(self, name: str, watch: _RegisterWatch, time_s: int) -> EventMessage:
        since = datetime.fromtimestamp(watch.since_s, UTC).isoformat()
        text = (
            f"{name} of {self.device.name} stands at {_plain(watch.register)} since {since}; by the meter's own power "
            f"it should have counted {watch.expected_joules:.0f} J"
        )
        facts = {
            "device": self.device.name,
            "register": name,
            "value_joules": _plain(watch.register),
            "since": since,
            "expected_joules": f"{watch.expected_joules:.0f}",
        }
        return self._event("meter_frozen", text, facts, time_s)

    def _event(self, kind: str, text: str, facts: Mapping[str, str], time_s: int) -> EventMessage:
        name = facts.get("register", "meter")
        return EventMessage(
            id=f"{self.resource:016x}/{kind}/{name}/{time_s}",
            resource=self.resource,
            time_ms=time_s * 1000,
            kind=kind,
            text=text,
            source=self._source,
            attributes=dict(facts),
        )


def _resource_of(place: str) -> int:
    """The id of a place such as "hall:hall-1"."""
    kind, _, identity = place.partition(":")
    return resource_id(ResourceKind(kind), identity)


def _plain(value: float) -> str:
    """A number as text that loses nothing: 15461882265600, not 1.55e13."""
    return str(int(value)) if value == int(value) else repr(value)
