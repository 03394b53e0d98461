"""What Redfish numbers mean: properties and sensors to base units.

A property's name says its unit; a sensor says it by ReadingType and ReadingUnits (UCUM), which must agree. Sources:
DMTF DSP8010 2025.4, schemas CoolantConnector 1.3, CoolingLoop 1.1, Pump 1.2, Reservoir 1.0, EnvironmentMetrics 1.5,
PowerDistributionMetrics 1.4, Circuit 1.9, ThermalMetrics 1.3 and Sensor 1.12.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from catalogue import units
from catalogue.point import (
    GRAMS_PER_CUBIC_METRE,
    MICROSIEMENS_PER_CENTIMETRE,
    PH,
    RELATIVE_HUMIDITY,
    REVOLUTIONS_PER_SECOND,
    TURBIDITY,
    VOLT_AMPERES,
)
from catalogue.units import Unit
from collectors.redfish.document import Document, number_of, reading_at, text_at

JOULES_PER_KILOWATT_HOUR = 3_600_000
LITRES_PER_CUBIC_METRE = 1000
PASCALS_PER_MILLIMETRE_OF_MERCURY = 133.322387415  # conventional, ISO 80000-4
CUBIC_METRES_PER_CUBIC_FOOT = 0.028316846592  # exact: 0.3048 cubed


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number's base unit: value = number x multiplier / divisor, absent outside `lowest` to `highest`."""

    unit: Unit
    multiplier: float = 1
    divisor: float = 1
    kind: str = "gauge"
    lowest: float = float("-inf")
    highest: float = float("inf")

    def in_base_unit(self, number: float | None) -> float | None:
        if number is None:
            return None
        value = number * self.multiplier / self.divisor
        return value if self.lowest <= value <= self.highest else None


_CELSIUS = Quantity(units.CELSIUS)
_KELVIN = Quantity(units.KELVIN)
_WATTS = Quantity(units.WATTS)
_VOLTS = Quantity(units.VOLTS)
_AMPERES = Quantity(units.AMPERES)
_PASCALS = Quantity(units.PASCALS)
_KILOPASCALS = Quantity(units.PASCALS, 1000)
_FLOW = Quantity(units.CUBIC_METRES_PER_SECOND, 1, LITRES_PER_CUBIC_METRE * 60)
_SHARE = Quantity(units.RATIO, 1, 100, lowest=0, highest=1)  # of a whole
_RATIO = Quantity(units.RATIO, 1, 100)  # a load may exceed its rating
_HUMIDITY = Quantity(RELATIVE_HUMIDITY, 1, 100, lowest=0, highest=1)
_HEAT = Quantity(units.WATTS, 1000)
_KILOWATT_HOURS = Quantity(units.JOULES, JOULES_PER_KILOWATT_HOUR, kind="counter", lowest=0)
_WATT_HOURS = Quantity(units.JOULES, 3600, kind="counter", lowest=0)
_JOULES = Quantity(units.JOULES, kind="counter", lowest=0)
_REVOLUTIONS = Quantity(REVOLUTIONS_PER_SECOND, 1, 60, lowest=0)

_LINES = ("Line1", "Line2", "Line3")
LINE_TO_LINE = ("Line1ToLine2", "Line2ToLine3", "Line3ToLine1")
LINE_TO_NEUTRAL = tuple(f"{line}ToNeutral" for line in _LINES)

# By the path of the property within its resource; an excerpt's own number is its Reading.
QUANTITIES: Mapping[str, Quantity] = {
    "FlowLitersPerMinute": _FLOW,
    "SupplyTemperatureCelsius": _CELSIUS,
    "ReturnTemperatureCelsius": _CELSIUS,
    "DeltaTemperatureCelsius": _KELVIN,
    "SupplyPressurekPa": _KILOPASCALS,
    "ReturnPressurekPa": _KILOPASCALS,
    "DeltaPressurekPa": _KILOPASCALS,
    "HeatRemovedkW": _HEAT,
    "ValvePositionPercent": _SHARE,
    "PumpSpeedPercent": _SHARE,
    "PumpSpeedPercent/SpeedRPM": _REVOLUTIONS,
    "InletPressurekPa": _KILOPASCALS,
    "ServiceHours": Quantity(units.SECONDS, 3600, kind="counter", lowest=0),
    "FluidLevelPercent": _SHARE,
    "InternalPressurekPa": _KILOPASCALS,
    "CoolantLevelPercent": _SHARE,
    "PowerWatts": _WATTS,
    "PowerWatts/ApparentVA": Quantity(VOLT_AMPERES),
    "PowerWatts/ReactiveVAR": Quantity(units.VARS),
    "PowerWatts/PowerFactor": Quantity(units.RATIO, lowest=-1, highest=1),
    "PowerLoadPercent": _RATIO,
    "EnergyJoules": _JOULES,
    "EnergykWh": _KILOWATT_HOURS,
    "CurrentAmps": _AMPERES,
    "Voltage": _VOLTS,
    "FrequencyHz": Quantity(units.HERTZ, lowest=0),
    **{f"PolyPhaseCurrentAmps/{line}": _AMPERES for line in (*_LINES, "Neutral")},
    **{f"PolyPhaseVoltage/{lines}": _VOLTS for lines in (*LINE_TO_LINE, *LINE_TO_NEUTRAL)},
    "TemperatureCelsius": _CELSIUS,
    "AmbientTemperatureCelsius": _CELSIUS,
    "DewPointCelsius": _CELSIUS,
    "HumidityPercent": _HUMIDITY,
    "AbsoluteHumidity": Quantity(GRAMS_PER_CUBIC_METRE, lowest=0),
    "TemperatureSummaryCelsius/Intake": _CELSIUS,
    "TemperatureSummaryCelsius/Exhaust": _CELSIUS,
    "AirFlowCubicMetersPerMinute": Quantity(units.CUBIC_METRES_PER_SECOND, 1, 60),
}
_UNIT_IN_NAME = re.compile(
    r"(LitersPerMinute|CubicMetersPerMinute|Celsius|kPa|kWh|kW|Joules|Watts|VAR|VA|Amps|Hz|Percent|RPM|Hours)(?=/|$)"
)
# Numbers that stand inside another property's excerpt: they come and go with it.
INSIDE_AN_EXCERPT = frozenset({"ApparentVA", "ReactiveVAR", "PowerFactor", "SpeedRPM"})
REGISTERS = frozenset({"EnergykWh", "EnergyJoules"})


# By UCUM code.
_BY_CODE: Mapping[str, Quantity] = {
    "Cel": _CELSIUS,
    "K": _KELVIN,
    "%": _RATIO,
    "W": _WATTS,
    "kW": _HEAT,
    "kW.h": _KILOWATT_HOURS,
    "W.h": _WATT_HOURS,
    "J": _JOULES,
    "V": _VOLTS,
    "A": _AMPERES,
    "Hz": Quantity(units.HERTZ, lowest=0),
    "Pa": _PASCALS,
    "kPa": _KILOPASCALS,
    "mm[Hg]": Quantity(units.PASCALS, PASCALS_PER_MILLIMETRE_OF_MERCURY),
    "L/min": _FLOW,
    "L/s": Quantity(units.CUBIC_METRES_PER_SECOND, 1, LITRES_PER_CUBIC_METRE),
    "m3/min": Quantity(units.CUBIC_METRES_PER_SECOND, 1, 60),
    "m3/h": Quantity(units.CUBIC_METRES_PER_SECOND, 1, 3600),
    "[ft_i]3/min": Quantity(units.CUBIC_METRES_PER_SECOND, CUBIC_METRES_PER_CUBIC_FOOT, 60),
    "{rev}/min": _REVOLUTIONS,
    "g/m3": Quantity(GRAMS_PER_CUBIC_METRE, lowest=0),
    "uS/cm": Quantity(MICROSIEMENS_PER_CENTIMETRE, lowest=0),
    "[pH]": Quantity(PH, lowest=0, highest=14),
    "[NTU]": Quantity(TURBIDITY, lowest=0),
}
# Ways in which firmware writes a code that is not UCUM's; RPM is a deprecated one of Redfish's own.
_OTHER_SPELLINGS = {
    "C": "Cel",
    "Celsius": "Cel",
    "°C": "Cel",
    "kWh": "kW.h",
    "Wh": "W.h",
    "RPM": "{rev}/min",
    "LPM": "L/min",
    "l/min": "L/min",
    "l/s": "L/s",
    "Percent": "%",
    "Watts": "W",
    "Volts": "V",
    "Amps": "A",
    "CFM": "[ft_i]3/min",
    "µS/cm": "uS/cm",
}
# Sensor 1.12, ReadingType: the unit that each shall have. Types that are not here have no base unit of ours.
_CODE_BY_TYPE: Mapping[str, str] = {
    "Temperature": "Cel",
    "Humidity": "%",
    "Power": "W",
    "EnergykWh": "kW.h",
    "EnergyJoules": "J",
    "EnergyWh": "W.h",
    "Voltage": "V",
    "Current": "A",
    "Frequency": "Hz",
    "Pressure": "Pa",
    "PressurekPa": "kPa",
    "PressurePa": "Pa",
    "Rotational": "{rev}/min",
    "AirFlow": "[ft_i]3/min",
    "AirFlowCMM": "m3/min",
    "LiquidFlow": "L/s",
    "LiquidFlowLPM": "L/min",
    "Barometric": "mm[Hg]",
    "Percent": "%",
    "Valve": "%",
    "AbsoluteHumidity": "g/m3",
    "Heat": "kW",
}
_WITHOUT_UNIT = frozenset({"ChargeAh", "LiquidLevel", "Altitude"})


def sensor_quantity(sensor: Document) -> Quantity | None:
    """What a Sensor measures; None where its type and its units contradict each other, or neither is known."""
    reading_type, said = text_at(sensor, "ReadingType"), text_at(sensor, "ReadingUnits")
    code = _OTHER_SPELLINGS.get(said, said)
    expected = _CODE_BY_TYPE.get(reading_type, "")
    if reading_type in _WITHOUT_UNIT or (expected and code and code != expected):
        return None
    if reading_type == "Humidity":
        return _HUMIDITY
    quantity = _BY_CODE.get(expected or code)
    # A difference of two temperatures is no temperature.
    return _KELVIN if quantity is _CELSIUS and text_at(sensor, "ReadingBasis") == "Delta" else quantity


def name_of(path: str) -> str:
    """A property's name without the unit that Redfish has in it, since a point is in another."""
    return "ServiceTime" if path == "ServiceHours" else _UNIT_IN_NAME.sub("", path)


def quantity_at(document: Document, path: str, *, register: str = "Reading") -> float | None:
    """The value of a property in its base unit; `register` says which number of an energy excerpt counts."""
    name = register if path in REGISTERS else "Reading"
    return QUANTITIES[path].in_base_unit(reading_at(document, path, name))


def sensor_value(sensor: Document, *, register: str = "Reading") -> float | None:
    """A Sensor's reading in its base unit; energy is its lifetime's where `register` says so."""
    quantity = sensor_quantity(sensor)
    if quantity is None:
        return None
    name = register if quantity.unit is units.JOULES else "Reading"
    return quantity.in_base_unit(number_of(sensor.get(name)))
