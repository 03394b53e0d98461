"""Metric reports: many readings of a device in one document, in place of the documents that hold them. Pure.

MetricReport 1.5: a value is a text, and MetricProperty says of which property. Devices write that in three ways, as a
path with a JSON pointer behind "#", as a path that goes on into the document, and as the path of a sensor alone;
without "#" and "/Reading" all of them are one.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from collectors.redfish.document import Document, number_of, objects_in, part_of, path_of, text_at
from collectors.redfish.quantities import INSIDE_AN_EXCERPT, QUANTITIES
from collectors.redfish.tree import Place

MAX_DETECTORS = 256  # of one document that a report stands for
_READING = "/Reading"
# What a document says besides numbers, and is read for: property by place.
_WORDS: Mapping[Place, tuple[str, ...]] = {
    Place.DETECTOR: ("DetectorState",),
    Place.CIRCUIT: ("BreakerState",),
    Place.COOLING_UNIT: ("Status/State", "Status/Health"),
    Place.COOLING_LOOP: ("Status/State", "Status/Health"),
    Place.SUPPLY: ("Status/State", "Status/Health"),
}
# Read from arrays: no report is taken for these.
_NEVER = frozenset({Place.OLD_POWER, Place.OLD_THERMAL})


@dataclass(frozen=True, slots=True)
class Report:
    """The values of a report by property, and when the newest of them was taken; None where it does not tell."""

    values: Mapping[str, object]
    newest: datetime | None


@dataclass(frozen=True, slots=True)
class Need:
    """A property that a document is read for, and under which names a report may have it."""

    path: str
    names: tuple[str, ...]


def read_report(document: Document) -> Report:
    """The latest value of each property; of two that say no time, the later in the list."""
    whole = _time_of(text_at(document, "Timestamp"))
    values: dict[str, object] = {}
    times: dict[str, datetime | None] = {}
    for entry in objects_in(document, "MetricValues"):
        name, time = _plain(text_at(entry, "MetricProperty", 400)), _time_of(text_at(entry, "Timestamp")) or whole
        before = times.get(name)
        if name and not (before and time and time < before):
            values[name], times[name] = entry.get("MetricValue"), time
    return Report(values, max((time for time in (whole, *times.values()) if time), default=None))


def needs_of(path: str, place: Place, document: Document) -> list[Need]:
    """What the document at `path` is read for: the numbers that it shows, and the words that its place has.

    Empty when no report can stand for it.
    """
    if place in _NEVER:
        return []
    if place is Place.SENSOR:
        return [Need("Reading", (path,))]
    if place is Place.LEAK_DETECTION:
        needs = list(islice(_needs_of_groups(path, document), MAX_DETECTORS + 1))
        return needs if len(needs) <= MAX_DETECTORS else []
    numbers = [_need_of_number(path, name, document) for name in QUANTITIES if _is_excerpt(document, name)]
    words = [name for name in _WORDS.get(place, ()) if text_at(document, name)]
    return [*numbers, *(Need(name, (f"{path}/{name}",)) for name in words)]


def covers(report: Mapping[str, object], needs: Iterable[Need]) -> bool:
    """Whether a report has all that a document is read for; nothing is not covered."""
    wanted = list(needs)
    return bool(wanted) and all(any(name in report for name in need.names) for need in wanted)


def overlay(document: Document, needs: Iterable[Need], report: Mapping[str, object]) -> Document:
    """The document with what the report says; numbers that the report does not have are not there."""
    result = {name: value for name, value in document.items() if name not in _TOP_LEVEL}
    for need in needs:
        value = next((report[name] for name in need.names if name in report), None)
        result = _with(result, need.path.split("/"), value)
    return result


def choose_reports(
    reports: Mapping[str, Mapping[str, object]], needs: Mapping[str, Iterable[Need]]
) -> tuple[list[str], set[str]]:
    """The reports worth reading, and the documents that they stand for: each must save more requests than it costs."""
    chosen: list[str] = []
    joined: dict[str, object] = {}
    covered: set[str] = set()
    while len(chosen) < len(reports):
        gains = {name: _covered({**joined, **reports[name]}, needs) for name in reports if name not in chosen}
        best = max(gains, key=lambda name: len(gains[name]))
        if len(gains[best]) < len(covered) + 2:
            break
        chosen.append(best)
        joined |= reports[best]
        covered = gains[best]
    return chosen, covered


def _covered(report: Mapping[str, object], needs: Mapping[str, Iterable[Need]]) -> set[str]:
    return {path for path, needed in needs.items() if covers(report, needed)}


_TOP_LEVEL = frozenset(name.split("/")[0] for name in QUANTITIES) | {"Reading"}


def _needs_of_groups(path: str, document: Document) -> Iterator[Need]:
    """Each detector of a LeakDetection's groups, under the group's own pointer or the detector's."""
    for number, group in enumerate(objects_in(document, "LeakDetectorGroups")):
        for place, detector in enumerate(objects_in(group, "Detectors")):
            own = f"LeakDetectorGroups/{number}/Detectors/{place}/DetectorState"
            source = path_of(detector.get("DataSourceUri"))
            yield Need(own, (f"{path}/{own}", *((f"{source}/DetectorState",) if source else ())))


def _is_excerpt(document: Document, name: str) -> bool:
    """Whether a property is there with a reading of its own; what stands inside another excerpt goes with that one."""
    if name.rsplit("/", 1)[-1] in INSIDE_AN_EXCERPT:
        return False
    found = part_of(document, name)
    return isinstance(found, Mapping) and number_of(found.get("Reading")) is not None


def _need_of_number(path: str, name: str, document: Document) -> Need:
    source = part_of(document, f"{name}/DataSourceUri")
    return Need(f"{name}/Reading", (f"{path}/{name}", *((_plain(source),) if isinstance(source, str) else ())))


def _plain(name: str) -> str:
    return name.replace("#", "").replace("//", "/").rstrip("/").removesuffix(_READING)


def _with(document: Mapping[str, object], path: list[str], value: object) -> dict[str, object]:
    """A copy in which the property at a path has this value; lists on the way are copied, too."""
    copy, first = dict(document), path[0]
    if len(path) == 1:
        copy[first] = value
        return copy
    below = copy.get(first)
    if isinstance(below, list):
        index = int(path[1])
        copy[first] = [
            _with(one, path[2:], value) if number == index and isinstance(one, Mapping) else one
            for number, one in enumerate(below)
        ]
    else:
        copy[first] = _with(below if isinstance(below, Mapping) else {}, path[1:], value)
    return copy


def _time_of(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
