"""What happened between two answers of an agent: a state that is another, a meter that was exchanged."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from collectors.snmp.agent import AgentAnswer
from collectors.snmp.map import SERIAL
from collectors.snmp.plan import MeterPlan, Slot
from stream.messages import EventMessage

EXCHANGED = "meter_exchanged"
MAX_CODE = 1 << 31  # of an event message


@dataclass(slots=True)
class _Meter:
    """What a meter last told."""

    serial: str = ""
    register: str = ""
    states: dict[str, int] = field(default_factory=dict)  # by name


class Changes:
    """Compares each answer with the one before, by meter. A value that is absent is no change."""

    def __init__(self, source: int) -> None:
        self._source = source
        self._meters: dict[str, dict[int, _Meter]] = {}  # by device, and by resource

    def since_last(self, device: str, answer: AgentAnswer, time_s: int) -> Iterator[EventMessage]:
        """What has changed by `time_s`."""
        before = self._meters.get(device, {})
        self._meters[device] = {meter.resource: before.get(meter.resource, _Meter()) for meter in answer.plan.meters}
        for meter in answer.plan.meters:
            last = self._meters[device][meter.resource]
            yield from self._exchanged(device, meter, last, answer, time_s)
            for slot in meter.slots:
                number = slot.number(answer.values) if slot.rule.event else None
                if number is not None and abs(number) < MAX_CODE:
                    was = last.states.get(slot.name, number)
                    last.states[slot.name] = number
                    if was != number:
                        yield self._changed(meter, slot, was, number, time_s)

    def _exchanged(
        self, device: str, meter: MeterPlan, last: _Meter, answer: AgentAnswer, time_s: int
    ) -> Iterator[EventMessage]:
        """Another serial number at the same place: its register goes on from another number."""
        serial, old_serial, old_register = meter.facts.get(SERIAL, ""), last.serial, last.register
        register = meter.register.value(answer.values) if meter.register is not None else None
        now = "" if register is None else f"{register:.17g}"
        last.serial, last.register = serial or old_serial, now or old_register
        if serial and old_serial and serial != old_serial:
            facts = {"device": device, "old_serial": old_serial, "new_serial": serial}
            facts |= {"energy_import_joules_before": old_register, "energy_import_joules_after": now}
            text = f"{meter.title} has the serial number {serial}, had {old_serial}"
            yield self._event(EXCHANGED, meter, text, facts, time_s)

    def _changed(self, meter: MeterPlan, slot: Slot, before: int, now: int, time_s: int) -> EventMessage:
        was, is_now = (slot.rule.states.get(number, str(number)) for number in (before, now))
        facts = {"what": slot.name, "state": is_now, "before": was}
        text = f"{slot.name}: {is_now}, was {was}"
        return self._event(slot.rule.event, meter, text, facts, time_s, code=now)

    def _event(
        self, kind: str, meter: MeterPlan, text: str, facts: Mapping[str, str], time_s: int, *, code: int = 0
    ) -> EventMessage:
        return EventMessage(
            id=f"{kind}/{meter.resource:x}/{facts.get('what', '')}/{time_s}"[:256],
            resource=meter.resource,
            time_ms=time_s * 1000,
            kind=kind,
            code=code,
            text=text,
            source=self._source,
            attributes={name: fact[:256] for name, fact in facts.items() if fact},
        )
