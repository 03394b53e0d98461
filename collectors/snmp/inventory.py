"""What the meters of SNMP agents are: their inventory messages. Pure."""

from collections.abc import Iterator

from msgspec.structs import replace

from catalogue import ResourceKind, resource_id
from collectors.facility import MAX_NAME_CHARACTERS
from collectors.snmp.map import dotted
from collectors.snmp.plan import DevicePlan, MeterPlan
from collectors.snmp.settings import MeterSettings, SnmpDevice
from stream.messages import InventoryMessage


def inventory_of(
    plan: DevicePlan, device: SnmpDevice, *, interval_s: int, valid_from_ms: int, source: int
) -> Iterator[InventoryMessage]:
    """The meters of an agent, and their points."""
    for meter in plan.meters:
        said = device.meter(meter.label)
        yield InventoryMessage(
            resource=meter.resource,
            kind=meter.kind,
            identity=meter.identity,
            name=meter.title,
            valid_from_ms=valid_from_ms,
            parent=_resource(device.parent) if device.parent else 0,
            serves=tuple(_resource(place) for place in said.serves),
            source=source,
            attributes=_attributes(plan, meter, device, said, interval_s=interval_s),
        )
        for point, slot in meter.points:
            message = point.inventory(valid_from_ms=valid_from_ms, source=source)
            more = {"object": dotted(slot.oid)}
            if slot.rule.states:
                more["states"] = ", ".join(f"{code} {name}" for code, name in sorted(slot.rule.states.items()))
            yield replace(message, attributes=message.attributes | {name: _short(text) for name, text in more.items()})


def _attributes(
    plan: DevicePlan, meter: MeterPlan, device: SnmpDevice, said: MeterSettings, *, interval_s: int
) -> dict[str, str]:
    """What the agent tells, then what the settings say: those know better."""
    attributes = dict(meter.facts) | {"device": device.name, "map": plan.map_name, "interval_s": str(interval_s)}
    register = meter.register
    if register is not None:
        attributes["register_resolution_joules"] = f"{float(register.scale):.12g}"
        if register.modulus:
            attributes["register_modulus_joules"] = f"{float(register.modulus * register.scale):.17g}"
    told = {
        "role": said.role,
        "class": said.accuracy_class,
        "measured_at": said.measured_at,
        "nominal_power_watts": "" if said.nominal_power_watts is None else f"{said.nominal_power_watts:.12g}",
    }
    attributes |= {name: text for name, text in told.items() if text}
    return {name: _short(text) for name, text in attributes.items()}


def _resource(place: str) -> int:
    """The id of a "kind:identity" of the settings. ValueError for a kind that is none."""
    kind, _, identity = place.partition(":")
    return resource_id(ResourceKind(kind), identity)


def _short(text: str) -> str:
    return text[:MAX_NAME_CHARACTERS]
