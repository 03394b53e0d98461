"""Which column a point of the BMS bus belongs to, as the catalogue's origins say; pure.

A point goes into a column when its object type, point type and process area are those of an origin, nothing says that
it measures something else there, and its unit is the column's. Everything else is a point of its own.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from catalogue import COOLING, POWER, RACK, Metric, Table
from catalogue.facility import EQUIPMENT_STATES, LeakState
from catalogue.origins import DsxPoint
from collectors.dsx.message import PointAddress, PointFacts
from collectors.dsx.settings import EquipmentWord
from collectors.dsx.units import Scale

TABLES = (RACK, COOLING, POWER)
EVERY = "*"  # in an origin: of all points


class Detector(Enum):
    """What a point of a leak detector says when it is 1; 0 says the opposite (bms.yaml, *Fields)."""

    LEAK = "leak"
    FAULT = "leak sensor fault"


# The catalogue names the leading point of each leak state; these take part in it.
DETECTORS: Mapping[tuple[str, str], Detector] = {
    ("Rack", "RackLeakDetect"): Detector.LEAK,
    ("Rack", "RackLeakDetectTray"): Detector.LEAK,
    ("Rack", "RackLeakSensorFault"): Detector.FAULT,
    ("CDU", "LeakDetect"): Detector.LEAK,
}

# docs/bms-integration.md, processArea: the primary side of a CDU has an inlet and an outlet, the secondary side supply
# and return. What enters on the primary side is its supply, what leaves to the racks the secondary's.
_DIRECTIONS = {
    ("primary", "inlet"): "supply",
    ("primary", "outlet"): "return",
    ("secondary", "outlet"): "supply",
    ("secondary", "inlet"): "return",
}
# Words of a process area that leave a point what it is.
_NEUTRAL = frozenset({"cdu", "coolant", "header", "liquid", "loop", "main", "sensor", "side", "total"})
# By metric, words besides these that do: a flow is the same wherever in its loop it is measured.
_HARMLESS: Mapping[Metric, frozenset[str]] = {
    COOLING.metric("primary_flow_cubic_metres_per_second"): frozenset({"supply", "return"}),
    COOLING.metric("secondary_flow_cubic_metres_per_second"): frozenset({"supply", "return"}),
    COOLING.metric("secondary_pressure_pascals"): frozenset({"secondary", "supply"}),
    COOLING.metric("differential_pressure_pascals"): frozenset({"secondary", "supply", "return", "pump", "pumps"}),
    COOLING.metric("valve_position_ratio"): frozenset({"primary", "supply", "return", "control", "valve"}),
}
PUMP_SPEED, EQUIPMENT_STATE = COOLING.metric("pump_speed_ratio"), COOLING.metric("equipment_state")
LEAK_STATES_OF = {table: table.metric("leak_state") for table in (RACK, COOLING)}
_ANY_WORD = {PUMP_SPEED, EQUIPMENT_STATE, COOLING.metric("dew_point_temperature_celsius"), *LEAK_STATES_OF.values()}

_EQUIPMENT = {name: state for state, name in EQUIPMENT_STATES}
# Texts of Status points are the building system's own (bms.yaml, StatusFields); these mean the same everywhere.
_WORDS: Mapping[EquipmentWord, tuple[str, ...]] = {
    "running": ("running", "run", "on", "started", "operating", "normal"),
    "standby": ("standby", "stopped", "stop", "off", "idle", "ready"),
    "degraded": ("degraded", "warning", "alarm"),
    "failed": ("failed", "failure", "fault", "faulted", "tripped"),
}
_STATUS_WORDS = {text: word for word, texts in _WORDS.items() for text in texts}


@dataclass(frozen=True, slots=True)
class Column:
    """A column that a point belongs to. Of several points, one with fewer words to spare describes it better."""

    table: Table
    metric: Metric
    spare_words: int = 0


@dataclass(frozen=True, slots=True)
class _Origin:
    words: frozenset[str]
    table: Table
    metric: Metric


@dataclass(frozen=True, slots=True)
class StatusWords:
    """What the texts of a Status point mean; a site may add its own."""

    own: Mapping[str, EquipmentWord] = field(default_factory=dict)

    def state(self, text: str) -> int | None:
        """The catalogue's number for the state of equipment; None for a text that is not known."""
        own = {known.casefold(): word for known, word in self.own.items()}
        word = own.get(text.strip().casefold()) or _STATUS_WORDS.get(text.strip().casefold())
        return _EQUIPMENT[word] if word else None


def column_of(address: PointAddress, facts: PointFacts, scale: Scale | None) -> Column | None:
    """The column for a point whose numbers have that scale, or None."""
    if facts.is_setpoint or facts.phase:
        return None
    words = _directed(facts.words)
    for origin in _ORIGINS.get((address.object_type, address.point_type), ()):
        spare = words - origin.words
        unit = scale.unit if scale else None
        if origin.words <= words and _is_harmless(origin.metric, spare) and unit == origin.metric.unit:
            return Column(origin.table, origin.metric, len(spare))
    return None


def leak_state(leaks: list[float], faults: list[float]) -> int | None:
    """The worst state of detectors: a leak before a fault, a fault before dry; None where no detector speaks."""
    if 1.0 in leaks:
        return LeakState.CRITICAL
    if 1.0 in faults:
        return LeakState.SENSOR_FAULT
    return LeakState.DRY if 0.0 in leaks else None


def _directed(words: frozenset[str]) -> frozenset[str]:
    for (side, end), direction in _DIRECTIONS.items():
        if side in words and end in words:
            return words - {end} | {direction}
    return words


def _is_harmless(metric: Metric, spare: frozenset[str]) -> bool:
    if metric in _ANY_WORD:
        return True
    harmless = _NEUTRAL | _HARMLESS.get(metric, frozenset())
    # A number or a letter tells one of several sensors from its twins.
    return all(word in harmless or word.isdecimal() or len(word) == 1 for word in spare)


_PATH = re.compile(r"([^/]+)/([^ ]+)(?: \[(.+)\])?")


def _read_origins() -> Iterator[tuple[tuple[str, str], _Origin]]:
    for table in TABLES:
        for metric in table.metrics:
            for origin in metric.origins:
                if isinstance(origin, DsxPoint) and EVERY not in origin.path:
                    if (found := _PATH.fullmatch(origin.path)) is None:
                        raise ValueError(f"{origin}: an origin is Object/Point, or Object/Point [Word, Word]")
                    words = frozenset((found[3] or "").lower().replace(",", " ").split())
                    yield (found[1], found[2]), _Origin(words, table, metric)
    for object_type, point_type in DETECTORS:
        table = RACK if object_type == "Rack" else COOLING
        yield (object_type, point_type), _Origin(frozenset(), table, LEAK_STATES_OF[table])


def _by_point() -> dict[tuple[str, str], list[_Origin]]:
    """By object type and point type, what asks for most words first."""
    found: defaultdict[tuple[str, str], list[_Origin]] = defaultdict(list)
    for key, origin in _read_origins():
        if origin not in found[key]:
            found[key].append(origin)
    return {key: sorted(origins, key=lambda origin: -len(origin.words)) for key, origins in found.items()}


_ORIGINS = _by_point()
