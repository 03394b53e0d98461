"""What a device's documents are of: a CDU, a loop, a meter, a rack, a tray; and what is known about each.

Pure. A chassis belongs to the unit that links to it; where a device has one unit only, every chassis is that unit's; a
device without units is a server or a switch, and its outermost chassis is a tray. What Redfish does not tell, settings
do.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from catalogue import COOLING, POWER, RACK, TRAY, ResourceKind, Table, resource_id
from collectors.redfish.document import Document, detector_groups, link_at, links_at, serial_of, text_at
from collectors.redfish.facts import coolant_facts, has_coolant, maker_facts, rating_facts, system_facts, written
from collectors.redfish.settings import TABLES, RedfishDevice, RedfishResource
from collectors.redfish.tree import Place, Visit, Walk, Way

MAX_IDENTITY_CHARACTERS = 200
UNITS = (Place.COOLING_UNIT, Place.COOLING_LOOP, Place.DISTRIBUTION, Place.CIRCUIT)
_TOP_UNITS = (Place.COOLING_UNIT, Place.DISTRIBUTION)
# Chassis.ChassisType: what may hold a whole node, and what is a rack.
_TRAY_TYPES = frozenset({"RackMount", "StandAlone", "Blade", "Sled"})
_RACK_TYPES = frozenset({"Rack", "RackGroup"})
# Documents that hold readings, and for which tables.
_HOLDS_READINGS: Mapping[Place, tuple[Table, ...]] = {
    Place.COOLING_UNIT: (COOLING,),
    Place.COOLING_LOOP: (COOLING,),
    Place.CIRCUIT: (POWER,),
    Place.METRICS: (POWER, RACK),
    Place.PRIMARY: (COOLING,),
    Place.SECONDARY: (COOLING,),
    Place.CONNECTOR: (COOLING, RACK, TRAY),
    Place.PUMP: (COOLING, RACK),
    Place.RESERVOIR: (COOLING,),
    Place.LEAK_DETECTION: (COOLING, RACK, TRAY, POWER),
    Place.DETECTOR: (COOLING, RACK, TRAY, POWER),
    Place.ENVIRONMENT: (COOLING, RACK, TRAY, POWER),
    Place.THERMAL_METRICS: (COOLING, RACK, TRAY),
    Place.SUPPLY: (RACK,),
    Place.OLD_POWER: (RACK, TRAY),
    Place.OLD_THERMAL: (RACK, TRAY),
    Place.SENSOR: (COOLING, RACK, TRAY, POWER),
}


@dataclass(frozen=True, slots=True)
class Part:
    """One document of a piece of equipment; `label` names it within the equipment."""

    place: Place
    path: str
    label: str
    name: str = ""  # what the device calls it
    metric: str = ""  # the column that a sensor is


@dataclass(frozen=True, slots=True, kw_only=True)
class Equipment:
    """Something that a device measures: a row of a table, or a contribution to a rack's."""

    kind: ResourceKind
    identity: str
    name: str
    path: str
    parts: tuple[Part, ...]
    parent: int = 0
    serves: tuple[int, ...] = ()
    rack: str = ""  # identity of the rack whose leak state a tray's detectors count for
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def resource(self) -> int:
        return resource_id(self.kind, self.identity)

    @property
    def table(self) -> Table:
        return TABLES[self.kind]


class DeviceGuide:
    """Where a walk through a device goes: not into chassis before it is known what they are of."""

    def __init__(self, device: RedfishDevice) -> None:
        self._device = device
        self.open_chassis: set[str] = set()

    def may_go(self, visit: Visit, way: Way) -> bool:
        if self._is_left_out(visit.path):
            return False
        if way.leads_to is Place.CIRCUIT:
            return way.link in self._device.circuits
        if way.leads_to is Place.SENSOR:
            return visit.path in self.open_chassis and self._wants_sensors(link_at(visit.document, way.link))
        return visit.place is not Place.CHASSIS or visit.path in self.open_chassis

    def may_ask(self, path: str, place: Place) -> bool:
        if place is Place.SENSOR and self._device.sensors != "all":
            return path in self._device.resources
        return not self._is_left_out(path)

    def _wants_sensors(self, collection: str) -> bool:
        named = any(path.startswith(f"{collection}/") for path in self._device.resources)
        return self._device.sensors != "none" or named

    def _is_left_out(self, path: str) -> bool:
        resource = self._device.resources.get(path)
        return resource is not None and resource.kind == "none"


class Survey:
    """Says of everything that a walk found what it is of."""

    def __init__(self, device: RedfishDevice, walk: Walk) -> None:
        self._device = device
        self._walk = walk

    def owners(self) -> dict[str, Visit]:
        """The unit that each chassis belongs to, or the chassis itself where it is a tray or a rack; by path."""
        chassis = self._walk.at(Place.CHASSIS)
        units = {visit.path: visit for visit in self._walk.at(*UNITS)}
        found = {one.path: one for one in chassis if self._said(one).kind or _is_rack(one)}
        for unit in units.values():
            for path in links_at(unit.document, "Links/Chassis"):
                found.setdefault(path, unit)
        for one in chassis:
            links = links_at(one.document, "Links/CoolingUnits") + links_at(one.document, "Links/PowerDistribution")
            for unit in filter(None, map(units.get, links)):
                found.setdefault(one.path, unit)
        top = [unit for unit in units.values() if unit.place in _TOP_UNITS]
        for one in chassis:
            if len(top) == 1:
                found.setdefault(one.path, top[0])
            elif not top and self._is_outermost(one, chassis):
                found.setdefault(one.path, one)
        return {path: owner for path, owner in found.items() if self._said(owner).kind != "none"}

    def equipment(self) -> list[Equipment]:
        """Everything that is measured, each with the documents that hold its readings."""
        owners = self.owners()
        parts: dict[Visit, list[Visit]] = {}
        for visit in self._walk.visits.values():
            unit = _unit_of(visit, owners)
            if unit is not None and not self._is_left_out(visit, unit):
                parts.setdefault(unit, []).append(visit)
        found = [self._equipment(unit, visits) for unit, visits in parts.items()]
        return self._with_sensors([one for one in found if one.parts])

    def _equipment(self, unit: Visit, visits: list[Visit]) -> Equipment:
        said, kind = self._said(unit), self._kind(unit)
        excerpts = _sources_of_excerpts(visits)
        read = [visit for visit in visits if self._is_read(visit, kind, excerpts)]
        parts = {
            (visit.place, visit.path): Part(
                visit.place, visit.path, self._label(unit, kind, visit.path), text_at(visit.document, "Name")
            )
            for visit in read
        }
        return Equipment(
            kind=kind,
            identity=self._identity(unit),
            name=said.name or self._name(unit, kind),
            path=unit.path,
            parts=tuple(parts.values()),
            parent=self._parent(unit, said),
            serves=tuple(resource_id(ResourceKind.RACK, rack) for rack in said.serves),
            rack=self._rack_of_trays() if kind is ResourceKind.TRAY else "",
            attributes=self._attributes(unit, kind, said, visits),
        )

    def _with_sensors(self, found: list[Equipment]) -> list[Equipment]:
        """Sensors that settings make a column of some equipment are parts of it, wherever they were found."""
        extra: dict[tuple[ResourceKind, str], list[Part]] = {}
        for visit in self._walk.at(Place.SENSOR):
            said = self._said(visit)
            if said.metric and said.kind != "none":
                part = Part(Place.SENSOR, visit.path, _tail(visit.path), metric=said.metric)
                extra.setdefault((ResourceKind(said.kind), said.identity), []).append(part)
        whole = [replace(one, parts=(*one.parts, *extra.pop((one.kind, one.identity), ()))) for one in found]
        for (kind, identity), parts in extra.items():
            name = f"{self._device.name} {identity}"
            attributes = {"device": self._device.name}
            whole.append(
                Equipment(
                    kind=kind,
                    identity=identity,
                    name=name,
                    path=parts[0].path,
                    parts=tuple(parts),
                    attributes=attributes,
                )
            )
        return whole

    def _is_read(self, visit: Visit, kind: ResourceKind, excerpts: frozenset[str]) -> bool:
        """Whether a document holds readings for the table of this kind."""
        if TABLES[kind] not in _HOLDS_READINGS.get(visit.place, ()):
            return False
        if visit.place is Place.LEAK_DETECTION:
            return bool(detector_groups(visit.document))
        return visit.place is not Place.SENSOR or self._is_point(visit.path, kind, excerpts)

    def _is_point(self, path: str, kind: ResourceKind, excerpts: frozenset[str]) -> bool:
        """Whether a sensor is a point: it is no column, and no other document shows it."""
        said = self._device.resources.get(path)
        if said is not None:
            return not said.metric and said.kind != "none"
        # A server has hundreds of sensors: by default only those of cooling and power equipment are read.
        wanted = self._device.sensors == "all" or (self._device.sensors == "auto" and kind is not ResourceKind.TRAY)
        return wanted and path not in excerpts

    def _is_left_out(self, visit: Visit, unit: Visit) -> bool:
        """Whether settings leave a document or its unit out, or the unit is not there at all."""
        left_out = "none" in (self._said(visit).kind, self._said(unit).kind)
        return left_out or text_at(unit.document, "Status/State") == "Absent"

    def _said(self, visit: Visit) -> RedfishResource:
        return self._device.resources.get(visit.path, _NOTHING_SAID)

    def _kind(self, unit: Visit) -> ResourceKind:
        said = self._said(unit).kind
        if said:
            return ResourceKind(said)
        match unit.place:
            case Place.COOLING_UNIT:
                return ResourceKind.CDU
            case Place.COOLING_LOOP:
                return ResourceKind.LOOP
            case Place.CHASSIS:
                return ResourceKind.RACK if _is_rack(unit) else ResourceKind.TRAY
            case _:
                return ResourceKind.RACK if _is_shelf(unit) and self._device.rack else ResourceKind.METER

    def _identity(self, unit: Visit) -> str:
        if said := self._said(unit).identity:
            return said
        if self._kind(unit) is ResourceKind.RACK and self._device.rack:
            return self._device.rack
        return self._own_identity(unit)

    def _own_identity(self, unit: Visit) -> str:
        """What stays when the thing is moved: its serial number; a circuit's is its unit's, and its own place in it."""
        if unit.place is Place.CIRCUIT and unit.via is not None:
            identity = f"{self._own_identity(unit.via)}/{_place_in_unit(unit)}"
        else:
            identity = serial_of(unit.document) or f"{self._device.url}{unit.path}"
        return identity[-MAX_IDENTITY_CHARACTERS:]

    def _name(self, unit: Visit, kind: ResourceKind) -> str:
        if kind is ResourceKind.RACK:
            return self._identity(unit)
        if unit.place is Place.CIRCUIT and unit.via is not None:
            return f"{self._name(unit.via, ResourceKind.METER)} {_place_in_unit(unit)}"
        return f"{self._device.name} {text_at(unit.document, 'Name') or _tail(unit.path)}"

    def _label(self, unit: Visit, kind: ResourceKind, path: str) -> str:
        """A name of a document within its equipment; a rack's documents come from several devices."""
        short = path.removeprefix(f"{unit.path}/") if path != unit.path else ""
        short = short.removeprefix("/redfish/v1/")
        return "/".join(filter(None, (self._device.name if kind is ResourceKind.RACK else "", short)))

    def _parent(self, unit: Visit, said: RedfishResource) -> int:
        if said.parent:
            return resource_id(ResourceKind(said.parent_kind), said.parent)
        if unit.place is Place.CIRCUIT and unit.via is not None:
            return resource_id(self._kind(unit.via), self._identity(unit.via))
        if self._device.parent:
            return resource_id(ResourceKind(self._device.parent_kind), self._device.parent)
        if self._device.rack and self._kind(unit) is not ResourceKind.RACK:
            return resource_id(ResourceKind.RACK, self._device.rack)
        return 0

    def _rack_of_trays(self) -> str:
        return self._device.parent if self._device.parent_kind == "rack" and self._device.parent else self._device.rack

    def _is_outermost(self, chassis: Visit, others: Iterable[Visit]) -> bool:
        """Whether a chassis can hold a node, and none that it is contained in can."""
        holders = {one.path for one in others if text_at(one.document, "ChassisType") in _TRAY_TYPES}
        return chassis.path in holders and link_at(chassis.document, "Links/ContainedBy") not in holders

    def _attributes(
        self, unit: Visit, kind: ResourceKind, said: RedfishResource, visits: Iterable[Visit]
    ) -> dict[str, str]:
        facts = {"device": self._device.name}
        if kind is not ResourceKind.RACK:  # a shelf's maker is not the rack's
            facts |= {"path": unit.path} | maker_facts(unit.document) | rating_facts(unit.document)
            facts |= _coolants(unit, visits)
        if kind is ResourceKind.TRAY:
            facts |= _node(visits)
        facts |= {
            "role": said.role,
            "class": said.accuracy_class,
            "measured_at": said.measured_at,
            "nominal_power_watts": written(said.nominal_power_watts) or facts.get("nominal_power_watts", ""),
            "register_modulus_joules": written(said.register_modulus_joules),
            "register_resolution_joules": written(said.register_resolution_joules),
        }
        return {name: fact for name, fact in facts.items() if fact}


_NOTHING_SAID = RedfishResource()


def _unit_of(visit: Visit, owners: Mapping[str, Visit]) -> Visit | None:
    """The unit that a document is of."""
    for one in (visit, *visit.above()):
        if one.place in UNITS:
            return one
        if one.place is Place.CHASSIS:
            return owners.get(one.path)
    return None


def _is_rack(chassis: Visit) -> bool:
    return text_at(chassis.document, "ChassisType") in _RACK_TYPES


def _is_shelf(unit: Visit) -> bool:
    return unit.place is Place.DISTRIBUTION and (
        text_at(unit.document, "EquipmentType") == "PowerShelf" or "/PowerShelves/" in unit.path
    )


def _place_in_unit(circuit: Visit) -> str:
    """Such as Mains/AC1."""
    return "/".join(circuit.path.split("/")[-2:])


def _tail(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _sources_of_excerpts(visits: Iterable[Visit]) -> frozenset[str]:
    """The sensors that other documents show the readings of."""
    found = (
        value.get("DataSourceUri")
        for visit in visits
        if visit.place is not Place.SENSOR
        for value in _objects_below(visit.document)
    )
    return frozenset(uri.partition("#")[0].rstrip("/") for uri in found if isinstance(uri, str))


def _objects_below(document: Document, depth: int = 2) -> Iterator[Document]:
    for value in document.values():
        if isinstance(value, Mapping):
            yield value
            if depth > 1:
                yield from _objects_below(value, depth - 1)


def _node(visits: Iterable[Visit]) -> dict[str, str]:
    """What marks the node of a tray; nothing where a chassis holds several, which are no one tray."""
    systems = {visit.path: visit.document for visit in visits if visit.place is Place.SYSTEM}
    return system_facts(next(iter(systems.values()))) if len(systems) == 1 else {}


def _coolants(unit: Visit, visits: Iterable[Visit]) -> dict[str, str]:
    told: dict[Place, Document] = {}
    for visit in (unit, *visits):
        if has_coolant(visit.document):
            told.setdefault(visit.place, visit.document)
    racks = next((told[place] for place in (Place.SECONDARY, Place.CONNECTOR, unit.place) if place in told), None)
    return coolant_facts(racks, told.get(Place.PRIMARY))
