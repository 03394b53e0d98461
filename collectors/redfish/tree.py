"""Where things are in a Redfish service, and a walk through it that can be interrupted.

Only ways that lead to what is read are gone, so that the walk ends: each leads one place further down, and no way leads
back. Whatever a document says about itself (@odata.type) is not asked: what it is follows from how it was reached.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Protocol

from collectors.devices import DeviceError, DeviceState
from collectors.redfish.document import ROOT, Document, links_at, next_page, objects_in, part_of, path_of

MAX_PAGES = 64  # of one collection
MAX_WALK_BYTES = 16 << 20  # of replies: a thousand times what a large device has
_TRIES = 2  # at a document that is not answered or is nonsense
# DSP0266, "Expand parameter": what is directly below, not what links lead to.
EXPAND = "?$expand=.($levels=1)"


class Place(StrEnum):
    """What a document is, by the way that led to it."""

    ROOT = "service root"
    THERMAL_EQUIPMENT = "thermal equipment"
    COOLING_UNIT = "cooling unit"
    COOLING_LOOP = "cooling loop"
    POWER_EQUIPMENT = "power equipment"
    DISTRIBUTION = "power distribution"
    CIRCUIT = "circuit"
    CHASSIS = "chassis"
    SYSTEM = "computer system"
    THERMAL_SUBSYSTEM = "thermal subsystem"
    POWER_SUBSYSTEM = "power subsystem"
    PRIMARY = "primary coolant connector"
    SECONDARY = "secondary coolant connector"
    CONNECTOR = "coolant connector"
    PUMP = "pump"
    RESERVOIR = "reservoir"
    LEAK_DETECTION = "leak detection"
    DETECTOR = "leak detector"
    ENVIRONMENT = "environment metrics"
    METRICS = "power distribution metrics"
    THERMAL_METRICS = "thermal metrics"
    SUPPLY = "power supply"
    OLD_POWER = "power"  # of a chassis, deprecated in 2020.4
    OLD_THERMAL = "thermal"
    SENSOR = "sensor"
    TELEMETRY = "telemetry service"
    REPORT = "metric report"


@dataclass(frozen=True, slots=True)
class Way:
    """A link of a document, and what is found behind it."""

    link: str  # path of properties
    leads_to: Place
    many: bool = True  # a collection


def _one(link: str, leads_to: Place) -> Way:
    return Way(link, leads_to, many=False)


CIRCUITS = ("Mains", "Feeders", "Subfeeds", "Branches", "Outlets")
WAYS: Mapping[Place, tuple[Way, ...]] = {
    Place.ROOT: (
        _one("ThermalEquipment", Place.THERMAL_EQUIPMENT),
        _one("PowerEquipment", Place.POWER_EQUIPMENT),
        Way("Chassis", Place.CHASSIS),
    ),
    Place.THERMAL_EQUIPMENT: (
        *(Way(link, Place.COOLING_UNIT) for link in ("CDUs", "ImmersionUnits", "RPUs", "HeatExchangers")),
        Way("CoolingLoops", Place.COOLING_LOOP),
    ),
    Place.COOLING_UNIT: (
        Way("PrimaryCoolantConnectors", Place.PRIMARY),
        Way("SecondaryCoolantConnectors", Place.SECONDARY),
        Way("Pumps", Place.PUMP),
        Way("Reservoirs", Place.RESERVOIR),
        _one("LeakDetection", Place.LEAK_DETECTION),
        _one("EnvironmentMetrics", Place.ENVIRONMENT),
    ),
    Place.COOLING_LOOP: (
        Way("PrimaryCoolantConnectors", Place.PRIMARY),
        Way("SecondaryCoolantConnectors", Place.SECONDARY),
    ),
    Place.POWER_EQUIPMENT: tuple(
        Way(link, Place.DISTRIBUTION)
        for link in ("RackPDUs", "FloorPDUs", "PowerShelves", "Switchgear", "TransferSwitches", "ElectricalBuses")
    ),
    Place.DISTRIBUTION: (
        _one("Metrics", Place.METRICS),
        *(Way(link, Place.CIRCUIT) for link in CIRCUITS),
        Way("PowerSupplies", Place.SUPPLY),
    ),
    Place.CHASSIS: (
        _one("EnvironmentMetrics", Place.ENVIRONMENT),
        _one("ThermalSubsystem", Place.THERMAL_SUBSYSTEM),
        _one("PowerSubsystem", Place.POWER_SUBSYSTEM),
        Way("LeakDetectors", Place.DETECTOR),
        Way("Sensors", Place.SENSOR),
        _one("Links/ComputerSystems", Place.SYSTEM),
    ),
    Place.THERMAL_SUBSYSTEM: (
        _one("ThermalMetrics", Place.THERMAL_METRICS),
        Way("CoolantConnectors", Place.CONNECTOR),
        _one("LeakDetection", Place.LEAK_DETECTION),
        Way("Pumps", Place.PUMP),
    ),
    Place.POWER_SUBSYSTEM: (Way("PowerSupplies", Place.SUPPLY),),
    Place.LEAK_DETECTION: (Way("LeakDetectors", Place.DETECTOR),),
    Place.TELEMETRY: (Way("MetricReports", Place.REPORT),),
}


@dataclass(slots=True, eq=False)
class Visit:
    """A document that was found: `via` is the one that led to it, `collection` the path of the collection it is in."""

    path: str
    place: Place
    document: Document
    via: "Visit | None" = None
    collection: str = ""
    expanded: bool = False  # the collection gave the document itself, not only a link to it

    def above(self) -> "Iterator[Visit]":
        """What led here, nearest first."""
        one = self.via
        while one is not None:
            yield one
            one = one.via


@dataclass(frozen=True, slots=True)
class _Step:
    path: str
    place: Place
    via: Visit | None
    many: bool = False
    collection: str = ""


class TimeIsUpError(DeviceError):
    """Our time was up, not the device's: nothing is said about it."""

    def __init__(self, text: str) -> None:
        super().__init__(DeviceState.SLOW, text)


class Service(Protocol):
    """What a walk needs of a client."""

    @property
    def received_bytes(self) -> int:
        """Of all documents so far."""

    def get(self, path: str, *, fresh: bool = False) -> Document | None:
        """The document at a path, None where there is none; raises DeviceError, TimeIsUpError among them."""


class Guide(Protocol):
    """Who decides where a walk goes."""

    def may_go(self, visit: Visit, way: Way) -> bool:
        """Whether this way of a document is gone."""

    def may_ask(self, path: str, place: Place) -> bool:
        """Whether a member that its collection only links to is asked for by itself."""


def read_collection(
    service: Service, path: str, *, expand: bool, most: int, fresh: bool = False
) -> dict[str, Document] | None:
    """The members of a collection by path, each a document or only a link; None where there is no collection.

    At most `most` members and MAX_PAGES pages are looked at.
    """
    found: dict[str, Document] = {}
    page, pages = path + (EXPAND if expand else ""), 0
    while page and pages < MAX_PAGES and len(found) < most:
        document = service.get(page, fresh=fresh)
        if document is None:
            return found or None
        members = ((path_of(member.get("@odata.id")), member) for member in objects_in(document, "Members"))
        found |= dict(islice(((path, member) for path, member in members if path), most - len(found)))
        page, pages = next_page(document), pages + 1
    return found


class Walk:
    """A walk through one service: what was found so far, and where to go on.

    `go` can be called again and again, each time with new time; what `also` adds later is walked as well. What is
    found is bounded: by `most` documents and by MAX_WALK_BYTES of replies.
    """

    def __init__(self, guide: Guide, *, most: int) -> None:
        self.visits: dict[tuple[str, Place, str], Visit] = {}
        self.is_cut = False  # there was more
        self.trouble: DeviceError | None = None  # the first document that could not be read
        self._guide = guide
        self._most = most
        self._can_expand = False
        self._queue = deque([_Step(ROOT, Place.ROOT, None)])
        self._failures = 0  # of the step at hand
        self._first_byte: int | None = None

    def at(self, *places: Place) -> list[Visit]:
        """What was found at these places, in the order in which it was found."""
        return [visit for visit in self.visits.values() if visit.place in places]

    def below(self, above: Visit, *places: Place) -> list[Visit]:
        """What was found at these places below a document."""
        return [visit for visit in self.at(*places) if above in visit.above()]

    def also(self, visit: Visit, ways: Iterable[Way]) -> None:
        """Go these ways from a document, too."""
        for way in ways:
            if self._guide.may_go(visit, way):
                paths = links_at(visit.document, way.link)
                self._queue.extend(_Step(path, way.leads_to, visit, way.many) for path in paths)

    def also_ask(self, path: str, place: Place) -> None:
        """Visit a document that may be where no way leads to."""
        if all(visit.path != path for visit in self.visits.values()):
            self._queue.append(_Step(path, place, None))

    def go(self, service: Service, *, expand: bool) -> bool:
        """Walk while there is time; True when nothing is left.

        Raises DeviceError when the service cannot be asked for anything; the walk can go on later.
        """
        if self._first_byte is None:
            self._first_byte = service.received_bytes
        while self._queue:
            step = self._queue.popleft()
            try:
                self._take(step, service, expand=expand and self._can_expand)
                self._failures = 0
            except TimeIsUpError:
                self._queue.appendleft(step)
                return False
            except DeviceError as error:
                self._queue.appendleft(step)
                self._give_up_or_raise(error)
            if len(self.visits) >= self._most or service.received_bytes - self._first_byte > MAX_WALK_BYTES:
                self.is_cut |= bool(self._queue)
                self._queue.clear()
        return True

    def _give_up_or_raise(self, error: DeviceError) -> None:
        """A document that is slow or nonsense is left out at the second try; all else ends the walk for now."""
        if error.state not in (DeviceState.SLOW, DeviceState.NONSENSE) or not self.visits:
            raise error
        self._failures += 1
        if self._failures >= _TRIES:
            self._queue.popleft()
            self._failures, self.trouble = 0, self.trouble or error

    def _take(self, step: _Step, service: Service, *, expand: bool) -> None:
        if step.many:
            self._take_members(step, service, expand=expand)
            return
        document = service.get(step.path, fresh=True)
        if document is not None:
            self._found(Visit(step.path, step.place, document, step.via, step.collection))

    def _take_members(self, step: _Step, service: Service, *, expand: bool) -> None:
        """The members that the collection holds are found; for those that it links to, steps are added."""
        try:
            members = read_collection(service, step.path, expand=expand, most=self._most, fresh=True)
        except DeviceError as error:
            if not expand or error.state is not DeviceState.NONSENSE:
                raise
            members = None
        if members is None and expand:  # it was promised, but does not work here
            members = read_collection(service, step.path, expand=False, most=self._most, fresh=True)
        for path, document in (members or {}).items():
            if len(document) > 1:
                self._found(Visit(path, step.place, document, step.via, step.path, expanded=True))
            elif self._guide.may_ask(path, step.place):
                self._queue.append(_Step(path, step.place, step.via, collection=step.path))

    def _found(self, visit: Visit) -> None:
        key = visit.path, visit.place, visit.via.path if visit.via else ""
        if key in self.visits or len(self.visits) >= self._most:
            return
        if visit.place is Place.ROOT:
            self._can_expand = part_of(visit.document, "ProtocolFeaturesSupported/ExpandQuery/NoLinks") is True
        self.visits[key] = visit
        self.also(visit, WAYS.get(visit.place, ()))
