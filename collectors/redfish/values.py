"""From the documents of one piece of equipment to its row, its points and its leak detectors. Pure."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from catalogue import COOLING, POWER, RACK, TRAY, Table
from catalogue.facility import BREAKER_STATES, EQUIPMENT_STATES
from catalogue.units import STATE, Unit
from collectors.facility import MAX_NAME_CHARACTERS, Point, PointValue, Quality
from collectors.redfish.document import Document, is_there, objects_in, reading_at, text_at
from collectors.redfish.equipment import Equipment
from collectors.redfish.leaks import Detector, detectors, leak_state
from collectors.redfish.quantities import LINE_TO_LINE
from collectors.redfish.shown import Documents, Shown
from collectors.redfish.tree import Place

_BREAKER = {name: code for code, name in BREAKER_STATES}
# Circuit 1.9, BreakerState.
_BREAKER_STATES = {"Normal": _BREAKER["closed"], "Off": _BREAKER["open"], "Tripped": _BREAKER["tripped"]}

_EQUIPMENT = {name: code for code, name in EQUIPMENT_STATES}
RUNNING, STANDBY, DEGRADED, FAILED = (_EQUIPMENT[name] for name in ("running", "standby", "degraded", "failed"))
# Resource 1.21, Status: worse states have higher codes. A state that is not here is running.
_BY_HEALTH = {"OK": RUNNING, "Warning": DEGRADED, "Critical": FAILED}
_BY_STATE = {
    "Disabled": STANDBY,
    "StandbyOffline": STANDBY,
    "StandbySpare": STANDBY,
    "Starting": STANDBY,
    "Degraded": DEGRADED,
    "UnavailableOffline": FAILED,
}
_REDUNDANCIES = ("PumpRedundancy", "CoolantConnectorRedundancy", "FilterRedundancy", "CoolingUnitRedundancy")
_WELL_STATES = frozenset({"", "Enabled", "StandbySpare", "StandbyOffline"})
_SINGLE_PHASE = frozenset({"OnePhase3Wire", "OneOrTwoPhase3Wire"})


@dataclass(frozen=True, slots=True)
class Values:
    """What one piece of equipment showed at one tick, in base units.

    `leak` is the worst of its own detectors, None when that is not known; `energy_joules` a tray's register.
    """

    equipment: Equipment
    columns: Mapping[str, float]
    points: tuple[PointValue, ...] = ()
    detectors: tuple[Detector, ...] = ()
    leak: int | None = None
    energy_joules: float | None = None
    quality: Quality = Quality.GOOD


def values_of(
    equipment: Equipment, documents: Documents, *, register: str = "Reading", quality: Quality = Quality.GOOD
) -> Values:
    """Everything that the documents of one piece of equipment show."""
    shown = Shown(equipment, documents, register=register)
    found = detectors(shown)
    leak = leak_state(shown, found)
    columns = shown.columns()
    columns |= _JUDGES[equipment.table](shown, columns)
    if equipment.table is COOLING and leak is not None:
        columns["leak_state"] = leak
    return Values(
        equipment=equipment,
        columns=columns,
        points=tuple(_points(shown, found, quality)),
        detectors=tuple(found),
        leak=leak,
        energy_joules=_energy(shown) if equipment.table is TRAY else None,
        quality=quality,
    )


def equipment_state(unit: Document) -> int | None:
    """The worst of a unit's own state and health; that of its parts, and lost redundancy, only degrade it.

    None when it says nothing of itself.
    """
    state, health = text_at(unit, "Status/State"), text_at(unit, "Status/Health")
    if state == "Absent" or not (state or health):
        return None
    others = [text_at(unit, name) for name in ("Status/HealthRollup", "CoolantQuality", "CoolantLevelStatus")]
    others += [text_at(group, "Status/Health") for name in _REDUNDANCIES for group in objects_in(unit, name)]
    limps = any(other in ("Warning", "Critical") for other in others)
    return max(_BY_HEALTH.get(health, RUNNING), _BY_STATE.get(state, RUNNING), DEGRADED if limps else RUNNING)


def _points(shown: Shown, found: list[Detector], quality: Quality) -> Iterator[PointValue]:
    """What has no column; of equipment whose row has no leak state, each detector as well."""
    values = [(one.name, one.unit, one.kind, one.value) for one in shown.rest()]
    if shown.equipment.table in (TRAY, POWER):
        values += [(f"{one.label}/DetectorState", STATE, "gauge", one.state) for one in found if one.state is not None]
    for name, unit, kind, value in values:
        point = _point(shown.equipment, name, unit, kind)
        if len(point.identity) <= MAX_NAME_CHARACTERS:  # what an inventory message can say
            yield PointValue(point, value, quality)


def _point(equipment: Equipment, name: str, unit: Unit, kind: str) -> Point:
    return Point(equipment.resource, equipment.identity, name, unit, kind)


Judge = Callable[[Shown, Mapping[str, float]], dict[str, float]]


def _cooling(shown: Shown, columns: Mapping[str, float]) -> dict[str, float]:  # noqa: ARG001 - a Judge
    for part in shown.parts(Place.COOLING_UNIT, Place.COOLING_LOOP):
        unit = shown.document(part)
        state = equipment_state(unit) if unit is not None else None
        if state is not None:
            return {"equipment_state": state}
    return {}


def _power(shown: Shown, columns: Mapping[str, float]) -> dict[str, float]:  # noqa: ARG001 - a Judge
    circuit = shown.first(Place.CIRCUIT)
    if circuit is None:
        return {}
    return _known(
        breaker_state=_BREAKER_STATES.get(text_at(circuit, "BreakerState")),
        voltage_volts=_voltage(circuit, shown),
        current_amperes=_current(circuit, shown),
    )


def _voltage(circuit: Document, shown: Shown) -> float | None:
    """The mean of the voltages between lines; what is measured against neutral stays a point."""
    values = [shown.value(circuit, f"PolyPhaseVoltage/{lines}") for lines in LINE_TO_LINE]
    between = [value for value in values if value is not None]
    if between:
        return sum(between) / len(between)
    if text_at(circuit, "PhaseWiringType") in _SINGLE_PHASE and text_at(circuit, "VoltageType") != "DC":
        return None
    shown.tell(Place.CIRCUIT, "Voltage")
    return shown.value(circuit, "Voltage")


def _current(circuit: Document, shown: Shown) -> float | None:
    """The mean of the lines' currents; of a circuit with one line, its current."""
    values = [shown.value(circuit, f"PolyPhaseCurrentAmps/Line{number}") for number in (1, 2, 3)]
    lines = [value for value in values if value is not None]
    if len(lines) > 1:
        return sum(lines) / len(lines)
    shown.tell(Place.CIRCUIT, "CurrentAmps", "PolyPhaseCurrentAmps/Line1")
    whole = shown.value(circuit, "CurrentAmps")
    return whole if whole is not None else next(iter(lines), None)


def _rack(shown: Shown, columns: Mapping[str, float]) -> dict[str, float]:
    old = _old(shown, columns, "power_watts", "air_inlet_temperature_celsius")
    return old | _known(power_supply_count=_healthy_supplies(shown))


def _tray(shown: Shown, columns: Mapping[str, float]) -> dict[str, float]:
    return _old(shown, columns, "power_watts", "inlet_temperature_celsius")


def _old(shown: Shown, columns: Mapping[str, float], power: str, inlet: str) -> dict[str, float]:
    """What the deprecated resources tell and the new ones, all of them read, do not."""
    found = {}
    if power not in columns and shown.read(Place.METRICS, Place.ENVIRONMENT) is not None:
        found[power] = _old_power(shown)
    if inlet not in columns and shown.read(Place.THERMAL_METRICS) is not None:
        found[inlet] = _old_intake(shown)
    return _known(**found)


def _old_power(shown: Shown) -> float | None:
    """Power 1.7, PowerControl: the one that says that it is the whole chassis, or the first where it says nothing."""
    power = shown.first(Place.OLD_POWER)
    controls = objects_in(power, "PowerControl") if power is not None else []
    whole = [one for one in controls if text_at(one, "PhysicalContext") == "Chassis"]
    whole += [one for one in controls[:1] if not text_at(one, "PhysicalContext")]
    return next((reading_at(one, "PowerConsumedWatts") for one in whole if is_there(one)), None)


def _old_intake(shown: Shown) -> float | None:
    """Thermal 1.7, Temperatures: the warmest of the air intakes."""
    thermal = shown.first(Place.OLD_THERMAL)
    sensors = objects_in(thermal, "Temperatures") if thermal is not None else []
    intakes = [one for one in sensors if text_at(one, "PhysicalContext") == "Intake" and is_there(one)]
    values = [reading_at(one, "ReadingCelsius") for one in intakes]
    return max((value for value in values if value is not None), default=None)


def _healthy_supplies(shown: Shown) -> float | None:
    """How many power supplies are there and well; None where there are none, or not all were read."""
    found = [shown.document(part) for part in shown.parts(Place.SUPPLY)]
    supplies = [document for document in found if document is not None]
    if len(supplies) < len(found):
        return None
    if not supplies:
        power = shown.first(Place.OLD_POWER)
        supplies = objects_in(power, "PowerSupplies") if power is not None else []
    return float(sum(map(_is_well, supplies))) if supplies else None


def _is_well(supply: Document) -> bool:
    """A spare that stands by is well; one that says nothing of its health is what its state says."""
    return text_at(supply, "Status/State") in _WELL_STATES and text_at(supply, "Status/Health") in ("OK", "")


def _energy(shown: Shown) -> float | None:
    environment = shown.first(Place.ENVIRONMENT)
    if environment is None:
        return None
    values = [shown.value(environment, path) for path in ("EnergyJoules", "EnergykWh")]
    return next((value for value in values if value is not None), None)


def _known(**values: float | None) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


_JUDGES: Mapping[Table, Judge] = {COOLING: _cooling, POWER: _power, RACK: _rack, TRAY: _tray}
