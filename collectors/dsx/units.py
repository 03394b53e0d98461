"""Engineering units as building systems write them, and how they become base units.

Racks have fixed units; equipment and meters write what they like into `engUnit` (bms.yaml: "Typical engUnit"), so the
point's own word counts, and what is typical for its type where it has none.
"""

from collections import Counter
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
from collectors.dsx.message import PointFacts

LITRE = 1e-3  # m3
US_GALLON = 3.785411784e-3  # m3, NIST SP 811 appendix B
CUBIC_FOOT = 0.028316846592  # m3, NIST SP 811 appendix B
POUND_PER_SQUARE_INCH = 6894.757293168  # Pa, NIST SP 811 appendix B
INCH_OF_WATER = 249.08891  # Pa, conventional, NIST SP 811 appendix B
KILOWATT_HOUR = 3.6e6  # J


@dataclass(frozen=True, slots=True)
class Scale:
    """How a number becomes a base unit: `factor` x number + `offset`. A counter only grows."""

    unit: Unit
    factor: float = 1.0
    offset: float = 0.0
    is_counter: bool = False

    def in_base_unit(self, number: float) -> float:
        return number * self.factor + self.offset


STATE = Scale(units.STATE)
NO_UNIT = Scale(units.RATIO)  # bms.yaml, PowerFactorFields: 0 to 1, without engUnit
PERCENT = Scale(units.RATIO, 0.01)
PERCENT_HUMIDITY = Scale(RELATIVE_HUMIDITY, 0.01)

_SPELLINGS: Mapping[str, Scale] = {
    spelling: scale
    for spellings, scale in (
        ("C °C ℃ degC deg_C DegC Cel Celsius", Scale(units.CELSIUS)),
        ("F °F degF deg_F DegF Fahrenheit", Scale(units.CELSIUS, 5 / 9, -160 / 9)),
        ("K Kelvin", Scale(units.KELVIN)),
        ("Pa", Scale(units.PASCALS)),
        ("hPa mbar", Scale(units.PASCALS, 100)),
        ("kPa", Scale(units.PASCALS, 1e3)),
        ("MPa", Scale(units.PASCALS, 1e6)),
        ("bar", Scale(units.PASCALS, 1e5)),
        ("psi psig psid PSI", Scale(units.PASCALS, POUND_PER_SQUARE_INCH)),
        ("inH2O inWC in.w.c. inwc", Scale(units.PASCALS, INCH_OF_WATER)),
        ("LPM lpm L/min l/min", Scale(units.CUBIC_METRES_PER_SECOND, LITRE / 60)),
        ("LPS lps L/s l/s", Scale(units.CUBIC_METRES_PER_SECOND, LITRE)),
        ("m3/h m³/h CMH cmh m3/hr", Scale(units.CUBIC_METRES_PER_SECOND, 1 / 3600)),
        ("m3/s m³/s", Scale(units.CUBIC_METRES_PER_SECOND)),
        ("GPM gpm gal/min", Scale(units.CUBIC_METRES_PER_SECOND, US_GALLON / 60)),
        ("CFM cfm ft3/min", Scale(units.CUBIC_METRES_PER_SECOND, CUBIC_FOOT / 60)),
        ("W", Scale(units.WATTS)),
        ("kW KW", Scale(units.WATTS, 1e3)),
        ("MW", Scale(units.WATTS, 1e6)),
        ("VA", Scale(VOLT_AMPERES)),
        ("kVA KVA", Scale(VOLT_AMPERES, 1e3)),
        ("MVA", Scale(VOLT_AMPERES, 1e6)),
        ("var VAR VAr", Scale(units.VARS)),
        ("kvar kVAR kVAr KVAR", Scale(units.VARS, 1e3)),
        ("Mvar MVAR MVAr", Scale(units.VARS, 1e6)),
        ("V", Scale(units.VOLTS)),
        ("kV", Scale(units.VOLTS, 1e3)),
        ("mV", Scale(units.VOLTS, 1e-3)),
        ("A Amp Amps", Scale(units.AMPERES)),
        ("mA", Scale(units.AMPERES, 1e-3)),
        ("kA", Scale(units.AMPERES, 1e3)),
        ("Hz", Scale(units.HERTZ)),
        ("%", PERCENT),
        ("%RH", PERCENT_HUMIDITY),
        ("RPM rpm r/min", Scale(REVOLUTIONS_PER_SECOND, 1 / 60)),
        ("uS/cm µS/cm μS/cm", Scale(MICROSIEMENS_PER_CENTIMETRE)),
        ("mS/cm", Scale(MICROSIEMENS_PER_CENTIMETRE, 1e3)),
        ("pH", Scale(PH)),
        ("NTU", Scale(TURBIDITY)),
        ("g/m3 g/m³ mg/L mg/l", Scale(GRAMS_PER_CUBIC_METRE)),
        ("s sec", Scale(units.SECONDS)),
        ("min", Scale(units.SECONDS, 60)),
        ("h hr hours", Scale(units.SECONDS, 3600)),
        ("kWh KWH", Scale(units.JOULES, KILOWATT_HOUR, is_counter=True)),
        ("MWh MWH", Scale(units.JOULES, 1e3 * KILOWATT_HOUR, is_counter=True)),
        ("m3 m³", Scale(units.CUBIC_METRES, is_counter=True)),
    )
    for spelling in spellings.split()
}
# What can be read in capitals or small letters alike: mV is not MV, and mPa is no MPa.
_FOLDED = Counter(spelling.casefold() for spelling in _SPELLINGS)
_LOOSE = {spelling.casefold(): scale for spelling, scale in _SPELLINGS.items() if _FOLDED[spelling.casefold()] == 1}
_CASE_COUNTS = frozenset(spelling.casefold() for spelling in ("MPa", "MW", "mV", "mA", "MVA", "Mvar", "mbar", "mS/cm"))

# bms.yaml, by point type: fixed for racks, "typical" for equipment.
_TYPICAL: Mapping[str, str] = {
    "RackLiquidSupplyTemperature": "C",
    "RackLiquidReturnTemperature": "C",
    "RackLiquidFlow": "LPM",
    "RackLiquidDifferentialPressure": "kPa",
    "RackLiquidDifferentialPressureSp": "kPa",
    "RackControlValvePosition": "%",
    "RackPower": "kW",
    "LiquidTemperature": "C",
    "LiquidDifferentialPressure": "kPa",
    "LiquidFlow": "LPM",
    "LiquidPressure": "kPa",
    "ValvePosition": "%",
    "PumpSpeed": "RPM",
    "FanSpeed": "RPM",
    "DamperPosition": "%",
    "AirTemperature": "C",
    "AirDifferentialPressure": "Pa",
    "AirRelativeHumidity": "%RH",
    "AirFlow": "CFM",
    "AirPressure": "Pa",
    "DewPoint": "C",
}
# bms.yaml: points that are states even where their metadata forget to say so.
_STATES = frozenset(
    {
        "RackLeakDetect", "RackLeakDetectTray", "RackLeakSensorFault", "RackLiquidIsolationStatus",
        "RackElectricalIsolationStatus", "LeakDetect", "Status", "Available",
    }
)  # fmt: skip


def scale_of(point_type: str, facts: PointFacts) -> Scale | None:
    """How the point's numbers become a base unit; None for a unit that the catalogue does not have."""
    word = (facts.eng_unit or "").strip()
    if not word and (facts.state_text or point_type in _STATES):
        return STATE
    if not word and point_type == "PowerFactor":
        return NO_UNIT
    scale = named_scale(word or _TYPICAL.get(point_type, ""))
    if scale is PERCENT and point_type == "AirRelativeHumidity":
        return PERCENT_HUMIDITY
    return scale


def named_scale(word: str) -> Scale | None:
    """The scale of a unit as it is written; None when it is not known, or could be two."""
    folded = word.casefold()
    return _SPELLINGS.get(word) or (_LOOSE.get(folded) if folded not in _CASE_COUNTS else None)
