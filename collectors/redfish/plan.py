"""Finding out what a device has, and what to ask it at every tick.

Discovery goes on where it stopped: a tick has time for some of it only. What comes of it is a plan: the equipment, and
the fewest requests that read it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from collectors.devices import DeviceError
from collectors.redfish.document import Document, detector_groups, part_of
from collectors.redfish.equipment import DeviceGuide, Equipment, Survey
from collectors.redfish.report import Need, choose_reports, needs_of, read_report
from collectors.redfish.settings import RedfishDevice
from collectors.redfish.tree import WAYS, Place, Service, Visit, Walk, Way

MAX_REPORTS = 16
_OLD_POWER = Way("Power", Place.OLD_POWER, many=False)
_OLD_THERMAL = Way("Thermal", Place.OLD_THERMAL, many=False)
_TELEMETRY = Way("TelemetryService", Place.TELEMETRY, many=False)


@dataclass(frozen=True, slots=True)
class Fetch:
    """One request of a tick: a document, or a collection that gives all its documents."""

    path: str
    gives: tuple[str, ...]
    expanded: bool = False


@dataclass(frozen=True, slots=True)
class Covered:
    """A document that reports stand for: as it was found, and what it is read for."""

    document: Document
    needs: tuple[Need, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a device has, and how it is read. `fetches` read everything; `rest` only what no report stands for."""

    equipment: tuple[Equipment, ...] = ()
    fetches: tuple[Fetch, ...] = ()
    rest: tuple[Fetch, ...] = ()
    reports: tuple[str, ...] = ()
    covered: Mapping[str, Covered] = field(default_factory=dict)
    is_cut: bool = False  # the device has more than is read
    trouble: DeviceError | None = None  # the first document that could not be read

    @property
    def paths(self) -> set[str]:
        """Every path that a tick may ask for."""
        return {fetch.path for fetch in (*self.fetches, *self.rest)} | set(self.reports)


class Discovery:
    """One walk through a device, first its equipment, then the chassis that belong to it, then what only they have."""

    def __init__(self, device: RedfishDevice, *, most: int) -> None:
        self._device = device
        self._guide = DeviceGuide(device)
        self._walk = Walk(self._guide, most=most)
        self._reports: Walk | None = None
        self._stages: list[Callable[[], None]] = [self._enter_chassis, self._enter_old, self._enter_reports]

    def go(self, service: Service) -> bool:
        """Walk while there is time; True when there is nothing left to find. Raises DeviceError."""
        while self._walk.go(service, expand=self._device.expand == "auto"):
            if not self._stages:
                return True
            self._stages.pop(0)()
        return False

    def plan(self) -> Plan:
        """What was found."""
        equipment = Survey(self._device, self._walk).equipment()
        read = {part.path for one in equipment for part in one.parts}
        visits = {visit.path: visit for visit in self._walk.visits.values() if visit.path in read}
        in_groups = {path for visit in visits.values() for path, _ in detector_groups(visit.document)}
        wanted = {
            path: visit for path, visit in visits.items() if visit.place is not Place.DETECTOR or path not in in_groups
        }
        needs = {path: needs_of(path, visit.place, visit.document) for path, visit in wanted.items()}
        values = {visit.path: read_report(visit.document) for visit in self._walk.at(Place.REPORT)[:MAX_REPORTS]}
        dated = {path: report.values for path, report in values.items() if report.newest is not None}
        reports, covered = choose_reports(dated, needs)
        return Plan(
            equipment=tuple(equipment),
            fetches=_fetches(wanted.values()),
            rest=_fetches(visit for path, visit in wanted.items() if path not in covered),
            reports=tuple(reports),
            covered={path: Covered(wanted[path].document, tuple(needs[path])) for path in covered},
            is_cut=self._walk.is_cut,
            trouble=self._walk.trouble,
        )

    def _enter_chassis(self) -> None:
        owners = Survey(self._device, self._walk).owners()
        self._guide.open_chassis = set(owners)
        for chassis in self._walk.at(Place.CHASSIS):
            if chassis.path in owners:
                self._walk.also(chassis, WAYS[Place.CHASSIS])

    def _enter_old(self) -> None:
        """The deprecated resources, of a chassis whose new ones lack what we read. A cooling unit's has nothing."""
        owners = Survey(self._device, self._walk).owners()
        for chassis in self._walk.at(Place.CHASSIS):
            owner = owners.get(chassis.path)
            if owner is None or owner.place in (Place.COOLING_UNIT, Place.COOLING_LOOP):
                continue
            below = self._walk.below(chassis, Place.ENVIRONMENT, Place.THERMAL_METRICS, Place.SUPPLY)
            has_power = any(_shows(visit, "PowerWatts") for visit in below if visit.place is Place.ENVIRONMENT)
            has_supplies = owner.place is Place.CHASSIS or any(visit.place is Place.SUPPLY for visit in below)
            has_intake = any(_shows(visit, "TemperatureSummaryCelsius/Intake") for visit in below)
            ways = [] if has_power and has_supplies else [_OLD_POWER]
            ways += [] if has_intake else [_OLD_THERMAL]
            self._walk.also(chassis, ways)

    def _enter_reports(self) -> None:
        """Reports; and the sensors that settings make a column of something, wherever they are."""
        for path, resource in self._device.resources.items():
            if resource.metric:
                self._walk.also_ask(path, Place.SENSOR)
        for root in self._walk.at(Place.ROOT):
            if self._device.metric_reports == "auto":
                self._walk.also(root, [_TELEMETRY])


def _shows(visit: Visit, path: str) -> bool:
    return part_of(visit.document, path) is not None


def _fetches(visits: Iterable[Visit]) -> tuple[Fetch, ...]:
    """One request for each document, or for those that one collection gives at once."""
    together: dict[str, list[str]] = {}
    for visit in visits:
        together.setdefault(visit.collection if visit.expanded else visit.path, []).append(visit.path)
    return tuple(
        Fetch(path, tuple(gives), expanded=True)
        if gives != [path] and len(gives) > 1
        else Fetch(gives[0], tuple(gives))
        for path, gives in together.items()
    )
