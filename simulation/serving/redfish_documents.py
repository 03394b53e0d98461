"""The Redfish documents of the site's cooling units, loops and racks, made from what their sensors show. Pure.

DMTF DSP8010 2025.4: CoolingUnit, CoolingLoop, CoolantConnector, Pump, Reservoir, LeakDetection, EnvironmentMetrics,
PowerDistribution, PowerSupply, ThermalMetrics and MetricReport. Numbers are in whole steps: the resolution of a sensor.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from catalogue.facility import EQUIPMENT_STATES, LEAK_STATES

ROOT = "/redfish/v1"
SESSIONS = "SessionService/Sessions"
REPORT = "TelemetryService/MetricReports/all"
CDU = "ThermalEquipment/CDUs/1"
LOOP = "ThermalEquipment/CoolingLoops/1"
SHELF = "PowerEquipment/PowerShelves/1"
_RACK = "Chassis/rack"

Json: TypeAlias = dict[str, object]
Tree: TypeAlias = dict[str, Json]  # by path below the root, which is ""
Values: TypeAlias = Mapping[str, float]  # of one row, in base units; what is absent is not there

_LEAK_NAMES = {"dry": "OK", "warning": "Warning", "critical": "Critical", "sensor fault": "Unavailable"}
_DETECTOR_STATES = {state: _LEAK_NAMES[name] for state, name in LEAK_STATES}
_STATUS = {
    "running": ("Enabled", "OK"),
    "standby": ("StandbySpare", "OK"),
    "degraded": ("Enabled", "Warning"),
    "failed": ("Enabled", "Critical"),
}
_EQUIPMENT_STATUS = {state: _STATUS[name] for state, name in EQUIPMENT_STATES}


@dataclass(frozen=True, slots=True)
class Excerpt:
    """How a column is shown: in a property whose unit is `unit` base units, in `steps_per_unit` steps of it."""

    unit: float
    steps_per_unit: int
    counts: bool = False  # shown as far as it has counted: rounded down

    @property
    def step(self) -> float:
        """Its resolution in the base unit."""
        return self.unit / self.steps_per_unit

    def number(self, value: float) -> float:
        steps = value / self.step
        # What has counted in whole steps comes as a float, and may lie a hair below.
        return (math.floor(steps + 1e-6) if self.counts else round(steps)) / self.steps_per_unit


_TEMPERATURE = Excerpt(1.0, 100)
_FLOW = Excerpt(1e-3 / 60, 10)
_PRESSURE = Excerpt(1e3, 10)
_HEAT = Excerpt(1e3, 100)
_SHARE = Excerpt(0.01, 10)
_POWER = Excerpt(1.0, 1)
_ENERGY = Excerpt(3.6e6, 1000, counts=True)

# By column, of cooling equipment and of racks.
EXCERPTS: Mapping[str, Excerpt] = {
    **{
        f"{side}_{name}": excerpt
        for side in ("primary", "secondary", "liquid")
        for name, excerpt in (
            ("supply_temperature_celsius", _TEMPERATURE),
            ("return_temperature_celsius", _TEMPERATURE),
            ("flow_cubic_metres_per_second", _FLOW),
        )
    },
    "secondary_pressure_pascals": _PRESSURE,
    "differential_pressure_pascals": _PRESSURE,
    "liquid_differential_pressure_pascals": _PRESSURE,
    "heat_flow_watts": _HEAT,
    "liquid_heat_watts": _HEAT,
    "pump_speed_ratio": _SHARE,
    "valve_position_ratio": _SHARE,
    "reservoir_level_ratio": _SHARE,
    "pump_power_watts": _POWER,
    "power_watts": _POWER,
    "energy_register_joules": _ENERGY,
    "dew_point_temperature_celsius": _TEMPERATURE,
    "air_inlet_temperature_celsius": _TEMPERATURE,
}


@dataclass(frozen=True, slots=True)
class Nameplate:
    """What a device says of itself."""

    model: str
    serial: str
    facts: Mapping[str, object] | None = None  # more properties of its unit


Documents: TypeAlias = Callable[[Nameplate, Values], Tree]


def cdu_documents(plate: Nameplate, values: Values) -> Tree:
    """A CDU: a pair of connectors, a pump, a reservoir, a leak detector."""
    secondary = _connector("secondary", values) | {
        "SupplyPressurekPa": _shown(values, "secondary_pressure_pascals"),
        "DeltaPressurekPa": _shown(values, "differential_pressure_pascals"),
        "HeatRemovedkW": _shown(values, "heat_flow_watts"),
        "Coolant": {"CoolantType": "Water", "AdditiveName": "propylene glycol", "AdditivePercent": 25},
    }
    primary = _connector("primary", values) | {"ValvePositionPercent": _shown(values, "valve_position_ratio")}
    links = ("PrimaryCoolantConnectors", "SecondaryCoolantConnectors", "Pumps", "Reservoirs", "LeakDetection")
    return _whole(
        {
            "": _root("ThermalEquipment"),
            "ThermalEquipment": {"CDUs": _link("ThermalEquipment/CDUs")},
            CDU: {
                **_unit("CDU", "Coolant distribution unit", plate, values),
                **{name: _link(f"{CDU}/{name}") for name in (*links, "EnvironmentMetrics")},
            },
            f"{CDU}/PrimaryCoolantConnectors/1": primary | {"Coolant": {"CoolantType": "Water"}},
            f"{CDU}/SecondaryCoolantConnectors/1": secondary,
            f"{CDU}/Pumps/1": {"Status": _status(), "PumpSpeedPercent": _shown(values, "pump_speed_ratio")},
            f"{CDU}/Reservoirs/1": {"Status": _status(), "FluidLevelPercent": _shown(values, "reservoir_level_ratio")},
            **_leak_detection(CDU, values),
            f"{CDU}/EnvironmentMetrics": {
                "PowerWatts": _shown(values, "pump_power_watts"),
                "DewPointCelsius": _shown(values, "dew_point_temperature_celsius"),
            },
        }
    )


def loop_documents(plate: Nameplate, values: Values) -> Tree:
    """A hall's loop of coolant. The schema has no dew point and no leak detector for it."""
    secondary = _connector("secondary", values) | {
        "SupplyPressurekPa": _shown(values, "secondary_pressure_pascals"),
        "HeatRemovedkW": _shown(values, "heat_flow_watts"),
    }
    return _whole(
        {
            "": _root("ThermalEquipment"),
            "ThermalEquipment": {"CoolingLoops": _link("ThermalEquipment/CoolingLoops")},
            LOOP: {
                **_unit("CoolingLoop", "Cooling loop", plate, values),
                "CoolingLoopType": "RowTCS",
                "PrimaryCoolantConnectors": _link(f"{LOOP}/PrimaryCoolantConnectors"),
                "SecondaryCoolantConnectors": _link(f"{LOOP}/SecondaryCoolantConnectors"),
            },
            f"{LOOP}/PrimaryCoolantConnectors/1": _connector("primary", values),
            f"{LOOP}/SecondaryCoolantConnectors/1": secondary,
        }
    )


def rack_documents(plate: Nameplate, values: Values, *, supplies: int) -> Tree:
    """A rack's controller: its power shelves as one, its manifold, its air and its leak detector."""
    thermal, power = f"{_RACK}/ThermalSubsystem", f"{SHELF}/PowerSupplies"
    well = round(values.get("power_supply_count", 0.0))
    manifold = _connector("liquid", values) | {
        "DeltaPressurekPa": _shown(values, "liquid_differential_pressure_pascals"),
        "HeatRemovedkW": _shown(values, "liquid_heat_watts"),
        "ValvePositionPercent": _shown(values, "valve_position_ratio"),
    }
    return _whole(
        {
            "": _root("PowerEquipment", "Chassis"),
            "PowerEquipment": {"PowerShelves": _link("PowerEquipment/PowerShelves")},
            SHELF: {
                **_unit("PowerShelf", "Power shelves", plate, {}),
                "Metrics": _link(f"{SHELF}/Metrics"),
                "PowerSupplies": _link(power),
            },
            f"{SHELF}/Metrics": {
                "PowerWatts": _shown(values, "power_watts"),
                "EnergykWh": _shown(values, "energy_register_joules"),
            },
            **{f"{power}/{place + 1}": {"Status": _supply_status(is_well=place < well)} for place in range(supplies)},
            _RACK: {"ChassisType": "Rack", "ThermalSubsystem": _link(thermal)},
            thermal: {
                "ThermalMetrics": _link(f"{thermal}/ThermalMetrics"),
                "CoolantConnectors": _link(f"{thermal}/CoolantConnectors"),
                "LeakDetection": _link(f"{thermal}/LeakDetection"),
            },
            f"{thermal}/ThermalMetrics": {
                "TemperatureSummaryCelsius": {"Intake": _shown(values, "air_inlet_temperature_celsius")}
            },
            f"{thermal}/CoolantConnectors/1": manifold,
            **_leak_detection(thermal, values),
        }
    )


def report_of(tree: Tree, time_s: float) -> Json:
    """One metric report with every reading and every state of a tree."""
    time = datetime.fromtimestamp(time_s, UTC).isoformat()
    values = [
        {"MetricProperty": f"{ROOT}/{path}#/{pointer}", "MetricValue": "" if value is None else str(value)}
        for path, document in tree.items()
        for pointer, value in _readings(document)
    ]
    return {"Id": "all", "Name": "All readings", "Timestamp": time, "MetricValues": values, **_link(REPORT)}


def _readings(document: Mapping[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    """Readings and states by JSON pointer, without its first slash."""
    for name, value in document.items():
        if name in ("Reading", "State", "Health", "DetectorState"):
            yield f"{above}{name}", value
        elif isinstance(value, Mapping):
            yield from _readings(value, f"{above}{name}/")


def _whole(documents: Tree) -> Tree:
    """The documents with their own addresses, and with a collection for those that have one above them."""
    tree: Tree = {path: {**document, **_link(path)} for path, document in documents.items()}
    members: dict[str, list[Json]] = {}
    for path in documents:
        above, _, _ = path.rpartition("/")
        if above and above not in documents:
            members.setdefault(above, []).append(_link(path))
    tree |= {path: {"Members": found, **_link(path)} for path, found in members.items() if found}
    tree["TelemetryService"] = {"MetricReports": _link("TelemetryService/MetricReports"), **_link("TelemetryService")}
    tree["TelemetryService/MetricReports"] = {"Members": [_link(REPORT)]}
    return tree


def _root(*names: str) -> Json:
    return {
        "RedfishVersion": "1.20.0",
        "ProtocolFeaturesSupported": {"ExpandQuery": {"NoLinks": True, "MaxLevels": 1}},
        "Links": {"Sessions": _link(SESSIONS)},
        **{name: _link(name) for name in (*names, "TelemetryService")},
    }


def _unit(kind: str, name: str, plate: Nameplate, values: Values) -> Json:
    state, health = _EQUIPMENT_STATUS[round(values["equipment_state"])] if "equipment_state" in values else ("", "")
    told = {"Status": {"State": state or "Enabled", "Health": health or "OK"}}
    maker = {"Manufacturer": "Simulated", "Model": plate.model, "SerialNumber": plate.serial}
    return {"EquipmentType": kind, "Name": name, **maker, **told, **(plate.facts or {})}


def _connector(side: str, values: Values) -> Json:
    return {
        "Status": _status(),
        "CoolantConnectorType": "Pair",
        "FlowLitersPerMinute": _shown(values, f"{side}_flow_cubic_metres_per_second"),
        "SupplyTemperatureCelsius": _shown(values, f"{side}_supply_temperature_celsius"),
        "ReturnTemperatureCelsius": _shown(values, f"{side}_return_temperature_celsius"),
    }


def _leak_detection(above: str, values: Values) -> Tree:
    detector: Json = {"Name": "Drip tray", "Status": _status()}
    if "leak_state" in values:
        detector["DetectorState"] = _DETECTOR_STATES[round(values["leak_state"])]
    return {
        f"{above}/LeakDetection": {"LeakDetectors": _link(f"{above}/LeakDetection/LeakDetectors"), "Status": _status()},
        f"{above}/LeakDetection/LeakDetectors/1": detector,
    }


def _status() -> Json:
    return {"State": "Enabled", "Health": "OK"}


def _supply_status(*, is_well: bool) -> Json:
    return {"State": "Enabled", "Health": "OK" if is_well else "Critical"}


def _shown(values: Values, column: str) -> Json:
    """A sensor excerpt; Redfish says null where there is no reading."""
    value = values.get(column)
    return {"Reading": None if value is None else EXCERPTS[column].number(value)}


def _link(path: str) -> Json:
    return {"@odata.id": f"{ROOT}/{path}".rstrip("/")}


def expanded(tree: Tree, document: Json) -> Json:
    """A collection with its members in place of links to them: what $expand=.($levels=1) asks for."""
    members = document.get("Members")
    if not isinstance(members, Sequence):
        return document
    paths = [str(one["@odata.id"]).removeprefix(f"{ROOT}/") for one in members]
    return {**document, "Members": [tree.get(path, _link(path)) for path in paths]}
