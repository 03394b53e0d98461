"""Facility points without a column of their own: a value, the unit that it is in, and its quality.

A building has more points than anybody would give columns to: conductivity, valve feedback, a vendor's own counters. A
point is a resource of its own kind. Its inventory message names it and the device that it belongs to; its row says in
which unit its value is, so that a point whose unit was changed does not change its past.
"""

from fractions import Fraction

from catalogue import units
from catalogue.facility import QUALITY
from catalogue.metrics import Codec, Kind, Metric
from catalogue.origins import DsxPoint, MeterPoint, RedfishProperty
from catalogue.types import I64, U8
from catalogue.units import Unit

# What points are measured in besides the catalogue's own units: what the field reads off the instrument.
MICROSIEMENS_PER_CENTIMETRE = Unit("microsiemens_per_centimetre", "µS/cm", "none", "uS/cm")
PH = Unit("ph", "pH", "none", "[pH]")
TURBIDITY = Unit("nephelometric_turbidity_units", "NTU", "none", "[NTU]")
RELATIVE_HUMIDITY = Unit("relative_humidity", "", "percentunit", "1")
VOLT_AMPERES = Unit("volt_amperes", "VA", "voltamp", "V.A")
REVOLUTIONS_PER_SECOND = Unit("revolutions_per_second", "1/s", "rotrpm", "{rotations}/s")
GRAMS_PER_CUBIC_METRE = Unit("grams_per_cubic_metre", "g/m³", "none", "g/m3")

# A row stores the number: units are only ever added, and at the end.
POINT_UNITS = tuple(
    enumerate(
        (
            units.COUNT, units.STATE, units.RATIO, units.CELSIUS, units.KELVIN, units.WATTS, units.JOULES,
            units.PASCALS, units.CUBIC_METRES, units.CUBIC_METRES_PER_SECOND, units.AMPERES, units.VOLTS, units.HERTZ,
            units.VARS, units.SECONDS, units.BYTES, units.BYTES_PER_SECOND, MICROSIEMENS_PER_CENTIMETRE, PH, TURBIDITY,
            RELATIVE_HUMIDITY, VOLT_AMPERES, REVOLUTIONS_PER_SECOND, GRAMS_PER_CUBIC_METRE,
        ),
        start=1,
    )
)  # fmt: skip
UNIT_CODES = {unit: code for code, unit in POINT_UNITS}

_ORIGINS = (RedfishProperty("Sensor.Reading"), DsxPoint("*/*"), MeterPoint("*"))

METRICS = (
    Metric(
        name=f"value_{units.OWN_UNIT.suffix}",
        unit=units.OWN_UNIT,
        kind=Kind.GAUGE,
        stored=I64,
        # Millionths: conductivity in µS/cm and flows in m³/s keep their digits, a register may reach 9e12.
        resolution=Fraction(1, 1_000_000),
        brief="Value of the point, in the unit that its row names",
        origins=_ORIGINS,
        codec=Codec.NOISY,
        extremes=True,
    ),
    Metric(
        name="unit_state",
        unit=units.STATE,
        kind=Kind.STATE,
        stored=U8,
        brief="Unit that the value is in",
        origins=_ORIGINS,
        codec=Codec.STEPPED,
        states=tuple((code, unit.suffix) for code, unit in POINT_UNITS),
    ),
    QUALITY,
)
