"""What the documents of one piece of equipment show at one tick: columns of its row, and the rest, which become points.

Pure. A document that was not read is not there; a column that needs it is then absent, rather than taken from somewhere
else for this one tick.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from catalogue import COOLING, POWER, RACK, TRAY, Table
from catalogue.units import Unit
from collectors.redfish.document import Document, is_there
from collectors.redfish.equipment import Equipment, Part
from collectors.redfish.quantities import QUANTITIES, name_of, quantity_at, sensor_quantity, sensor_value
from collectors.redfish.tree import Place

Documents: TypeAlias = Mapping[str, Document]  # by path


class Join(Enum):
    """How the readings of several documents at one place become one. All but FIRST need every one of them."""

    FIRST = "first"
    SUM = "sum"
    MEAN = "mean"
    HIGHEST = "highest"
    LOWEST = "lowest"
    MIXED = "mixed"  # the temperature of streams that meet: weighted by their flows


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a column comes from. Of a column's origins, the first whose documents have it counts."""

    column: str
    place: Place
    path: str
    join: Join = Join.FIRST


def _side(place: Place, prefix: str) -> tuple[_Origin, ...]:
    return (
        _Origin(f"{prefix}_supply_temperature_celsius", place, "SupplyTemperatureCelsius", Join.MIXED),
        _Origin(f"{prefix}_return_temperature_celsius", place, "ReturnTemperatureCelsius", Join.MIXED),
        _Origin(f"{prefix}_flow_cubic_metres_per_second", place, "FlowLitersPerMinute", Join.SUM),
    )


_COLUMNS: Mapping[Table, tuple[_Origin, ...]] = {
    COOLING: (
        *_side(Place.PRIMARY, "primary"),
        *_side(Place.SECONDARY, "secondary"),
        _Origin("secondary_pressure_pascals", Place.SECONDARY, "SupplyPressurekPa", Join.MEAN),
        _Origin("differential_pressure_pascals", Place.SECONDARY, "DeltaPressurekPa", Join.MEAN),
        # What the racks gave is the heat carried; the facility side lacks what was lost to the air.
        _Origin("heat_flow_watts", Place.SECONDARY, "HeatRemovedkW", Join.SUM),
        _Origin("heat_flow_watts", Place.PRIMARY, "HeatRemovedkW", Join.SUM),
        _Origin("valve_position_ratio", Place.PRIMARY, "ValvePositionPercent", Join.MEAN),
        _Origin("valve_position_ratio", Place.SECONDARY, "ValvePositionPercent", Join.MEAN),
        _Origin("pump_speed_ratio", Place.PUMP, "PumpSpeedPercent", Join.HIGHEST),
        _Origin("pump_power_watts", Place.ENVIRONMENT, "PowerWatts"),
        _Origin("reservoir_level_ratio", Place.RESERVOIR, "FluidLevelPercent", Join.LOWEST),
        _Origin("reservoir_level_ratio", Place.COOLING_LOOP, "CoolantLevelPercent"),
        _Origin("dew_point_temperature_celsius", Place.ENVIRONMENT, "DewPointCelsius"),
    ),
    RACK: (
        _Origin("power_watts", Place.METRICS, "PowerWatts"),
        _Origin("power_watts", Place.ENVIRONMENT, "PowerWatts"),
        _Origin("energy_register_joules", Place.METRICS, "EnergykWh"),
        _Origin("energy_register_joules", Place.ENVIRONMENT, "EnergykWh"),
        *_side(Place.CONNECTOR, "liquid"),
        _Origin("liquid_heat_watts", Place.CONNECTOR, "HeatRemovedkW", Join.SUM),
        _Origin("liquid_differential_pressure_pascals", Place.CONNECTOR, "DeltaPressurekPa", Join.MEAN),
        _Origin("valve_position_ratio", Place.CONNECTOR, "ValvePositionPercent", Join.MEAN),
        _Origin("air_inlet_temperature_celsius", Place.THERMAL_METRICS, "TemperatureSummaryCelsius/Intake"),
    ),
    TRAY: (
        _Origin("power_watts", Place.ENVIRONMENT, "PowerWatts"),
        _Origin("inlet_temperature_celsius", Place.THERMAL_METRICS, "TemperatureSummaryCelsius/Intake"),
    ),
    POWER: tuple(
        _Origin(column, place, path)
        for place in (Place.CIRCUIT, Place.METRICS, Place.ENVIRONMENT)
        for column, path in (
            ("active_power_watts", "PowerWatts"),
            ("reactive_power_vars", "PowerWatts/ReactiveVAR"),
            ("power_factor_ratio", "PowerWatts/PowerFactor"),
            ("energy_import_joules", "EnergykWh"),
            ("frequency_hertz", "FrequencyHz"),
        )
    ),
}


@dataclass(frozen=True, slots=True)
class Remainder:
    """A value that has no column."""

    name: str
    unit: Unit
    kind: str
    value: float


class Shown:
    """The documents of one piece of equipment, by what they are.

    `register` says which number of an energy excerpt is the register: Reading, or LifetimeReading.
    """

    def __init__(self, equipment: Equipment, documents: Documents, *, register: str = "Reading") -> None:
        self.equipment = equipment
        self._documents = documents
        self._register = register
        self._told: set[tuple[str, str]] = set()  # path of document, path of property

    def parts(self, *places: Place) -> list[Part]:
        return [part for part in self.equipment.parts if part.place in places]

    def document(self, part: Part) -> Document | None:
        """The document of a part; None when it was not read."""
        return self._documents.get(part.path)

    def read(self, *places: Place) -> list[Document] | None:
        """The documents at these places that are there; None when one of them was not read."""
        found = [self.document(part) for part in self.parts(*places)]
        known = [document for document in found if document is not None]
        return [document for document in known if is_there(document)] if len(known) == len(found) else None

    def first(self, place: Place) -> Document | None:
        found = self.read(place)
        return found[0] if found else None

    def value(self, document: Document, path: str) -> float | None:
        """A property in its base unit."""
        return quantity_at(document, path, register=self._register)

    def tell(self, place: Place, *paths: str) -> None:
        """These properties are columns now, and no points."""
        self._told |= {(part.path, path) for part in self.parts(place) for path in paths}

    def columns(self) -> dict[str, float]:
        """The columns of the equipment's table that come from one property each."""
        found: dict[str, float] = {}
        missed: set[str] = set()
        for origin in _COLUMNS[self.equipment.table]:
            if origin.column in found or origin.column in missed:
                continue
            documents = self.read(origin.place)
            if documents is None:  # not read this time, and not to be had from elsewhere
                missed.add(origin.column)
            elif (value := self._joined(origin, documents)) is not None:
                found[origin.column] = value
                self._note(origin)
        return found | dict(self._columns_of_sensors())

    def rest(self) -> Iterator[Remainder]:
        """What is no column; to be asked for after the columns."""
        for part in self.equipment.parts:
            document = self.document(part)
            if document is None or not is_there(document) or part.metric:
                continue
            if part.place is Place.SENSOR:
                yield from self._rest_of_sensor(part, document)
            else:
                yield from self._rest_of_properties(part, document)

    def _rest_of_sensor(self, part: Part, sensor: Document) -> Iterator[Remainder]:
        quantity, value = sensor_quantity(sensor), sensor_value(sensor, register=self._register)
        if quantity is not None and value is not None:
            yield Remainder(part.label, quantity.unit, quantity.kind, value)

    def _rest_of_properties(self, part: Part, document: Document) -> Iterator[Remainder]:
        named: set[str] = set()
        for path, quantity in QUANTITIES.items():
            value, name = self.value(document, path), "/".join(filter(None, (part.label, name_of(path))))
            if value is not None and (part.path, path) not in self._told and name not in named:
                named.add(name)
                yield Remainder(name, quantity.unit, quantity.kind, value)

    def _joined(self, origin: _Origin, documents: Sequence[Document]) -> float | None:
        values = [self.value(document, origin.path) for document in documents]
        known = [value for value in values if value is not None]
        if not known:
            return None
        if origin.join is Join.FIRST:
            return known[0]
        if len(known) < len(values):
            return None
        if origin.join is Join.MIXED:
            return _mixed(known, [self.value(document, "FlowLitersPerMinute") for document in documents])
        return _JOINS[origin.join](known)

    def _note(self, origin: _Origin) -> None:
        """Of several documents that a column joins, each one's own value stays a point."""
        if origin.join is Join.FIRST or len(self.parts(origin.place)) == 1:
            self.tell(origin.place, origin.path)

    def _columns_of_sensors(self) -> Iterator[tuple[str, float]]:
        """Sensors that the settings name a column for, if they are in its unit."""
        for part in self.parts(Place.SENSOR):
            document = self.document(part)
            if not part.metric or document is None or not is_there(document):
                continue
            quantity, value = sensor_quantity(document), sensor_value(document, register=self._register)
            if quantity is None or value is None:
                continue
            if quantity.unit is self.equipment.table.metric(part.metric).unit:
                yield part.metric, value


_JOINS: Mapping[Join, Callable[[Sequence[float]], float]] = {
    Join.SUM: sum,
    Join.MEAN: lambda values: sum(values) / len(values),
    Join.HIGHEST: max,
    Join.LOWEST: min,
}


def _mixed(temperatures: Sequence[float], flows: Sequence[float | None]) -> float | None:
    """T = sum(V T) / sum(V) for streams of one fluid; None where the flows are not known or nothing flows."""
    if len(temperatures) == 1:
        return temperatures[0]
    known = [flow for flow in flows if flow is not None and flow >= 0]
    if len(known) < len(temperatures) or not sum(known):
        return None
    return sum(flow * one for flow, one in zip(known, temperatures, strict=True)) / sum(known)
