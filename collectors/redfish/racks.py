"""Racks are measured by several devices: what their shelves, connectors and leak detectors say becomes one row. Pure.

What adds up is only said when everything that belongs to the sum was read: a sum that lacks a shelf is a wrong one, and
a register that lost a shelf's share would look like a meter that was reset.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from catalogue import RACK, ResourceKind, resource_id
from collectors.facility import Measurement, Quality
from collectors.redfish.leaks import worst_leak
from collectors.redfish.settings import RedfishDevice
from collectors.redfish.tree import Place
from collectors.redfish.values import Values

ADDS_UP = frozenset(
    {
        "power_watts",
        "energy_register_joules",
        "power_supply_count",
        "liquid_heat_watts",
        "liquid_flow_cubic_metres_per_second",
    }
)
OF_SHELVES = frozenset({"power_watts", "energy_register_joules"})


@dataclass(slots=True)
class _Member:
    """A device's part in a rack: what it has ever given, by which one knows what is missing."""

    columns: set[str] = field(default_factory=set)
    has_leak: bool = False
    is_shelf: bool = False


class Racks:
    """Knows which devices belong to each rack, and joins what they give."""

    def __init__(self, devices: Iterable[RedfishDevice]) -> None:
        self._members: dict[str, dict[tuple[str, str], _Member]] = defaultdict(dict)
        self._awaited: dict[str, set[str]] = defaultdict(set)  # devices that were never heard of, by rack
        for device in devices:
            for rack in _racks_of(device):
                self._awaited[rack].add(device.name)

    def rows(self, answers: Mapping[str, Iterable[Values]]) -> list[Measurement]:
        """One row for each rack that something was read of. `answers` are those of this tick, by device."""
        given: dict[str, dict[tuple[str, str], Values]] = defaultdict(dict)
        for device, values in answers.items():
            self._hear(device, values, given)
        return [row for rack, parts in given.items() if (row := self._row(rack, parts)) is not None]

    def _hear(self, device: str, values: Iterable[Values], given: dict[str, dict[tuple[str, str], Values]]) -> None:
        """Note what a device gave; what it does not have any more is no longer missed."""
        for waiting in self._awaited.values():
            waiting.discard(device)
        for one in values:
            rack = rack_of(one)
            if rack:
                given[rack][device, one.equipment.path] = one
        for rack, members in self._members.items():
            for key in [key for key in members if key[0] == device and key not in given.get(rack, {})]:
                del members[key]

    def _row(self, rack: str, parts: Mapping[tuple[str, str], Values]) -> Measurement | None:
        for key, values in parts.items():
            member = self._members[rack].setdefault(key, _Member())
            member.has_leak |= values.leak is not None
            member.is_shelf = any(part.place is Place.METRICS for part in values.equipment.parts)
            if values.equipment.kind is ResourceKind.RACK:
                member.columns |= values.columns.keys()
        columns = {
            name: value for name in sorted(self._names(rack)) if (value := self._joined(rack, name, parts)) is not None
        }
        leak = worst_leak((one.leak for one in parts.values()), complete=self._are_heard(rack, parts))
        if leak is not None:
            columns["leak_state"] = leak
        if not columns:
            return None
        quality = max((one.quality for one in parts.values()), default=Quality.GOOD)
        return Measurement(RACK, resource_id(ResourceKind.RACK, rack), columns, quality)

    def _names(self, rack: str) -> set[str]:
        return {name for member in self._members[rack].values() for name in member.columns}

    def _joined(self, rack: str, name: str, parts: Mapping[tuple[str, str], Values]) -> float | None:
        having = {key: member for key, member in self._members[rack].items() if name in member.columns}
        # What shelves count is counted again by a rack's own meter, where it has one.
        shelves = [key for key, member in having.items() if member.is_shelf]
        members = shelves if shelves and name in OF_SHELVES else list(having)
        found = [parts[key].columns[name] for key in members if key in parts and name in parts[key].columns]
        if name not in ADDS_UP:
            return found[0] if found else None
        return sum(found) if len(found) == len(members) and not self._awaited[rack] else None

    def _are_heard(self, rack: str, parts: Mapping[tuple[str, str], Values]) -> bool:
        """Whether every detector of the rack was heard at this tick."""
        members = self._members[rack].items()
        known = all(key in parts and parts[key].leak is not None for key, member in members if member.has_leak)
        return known and not self._awaited[rack]


def rack_of(values: Values) -> str:
    """The identity of the rack that values are of: a rack's own, or those of a tray with leak detectors."""
    if values.equipment.kind is ResourceKind.RACK:
        return values.equipment.identity
    watches = any(part.place in (Place.LEAK_DETECTION, Place.DETECTOR) for part in values.equipment.parts)
    return values.equipment.rack if watches else ""


def _racks_of(device: RedfishDevice) -> set[str]:
    """The racks that the settings say a device measures."""
    said = {one.identity for one in device.resources.values() if one.kind == "rack" and one.identity}
    return said | ({device.rack} if device.rack else set())
