"""Units in which Kvandal speaks to people: SI base units, plus the ratio and the plain count.

A metric's name ends in the unit's `suffix`, so that no reader has to look the unit up.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit: its name suffix, its symbol, and what Grafana and UCUM call it."""

    suffix: str
    symbol: str
    grafana: str
    ucum: str


# Grafana ids: the value formats of @grafana/data; UCUM codes: ucum.org, case-sensitive column.
AMPERES = Unit("amperes", "A", "amp", "A")
BYTES = Unit("bytes", "B", "bytes", "By")
BYTES_PER_SECOND = Unit("bytes_per_second", "B/s", "Bps", "By/s")
CELSIUS = Unit("celsius", "°C", "celsius", "Cel")
COUNT = Unit("count", "", "short", "1")
CUBIC_METRES = Unit("cubic_metres", "m³", "m3", "m3")
CUBIC_METRES_PER_SECOND = Unit("cubic_metres_per_second", "m³/s", "flowcms", "m3/s")
HERTZ = Unit("hertz", "Hz", "hertz", "Hz")
JOULES = Unit("joules", "J", "joule", "J")
KELVIN = Unit("kelvin", "K", "kelvin", "K")
PASCALS = Unit("pascals", "Pa", "pressurepa", "Pa")
RATIO = Unit("ratio", "", "percentunit", "1")
SECONDS = Unit("seconds", "s", "s", "s")
VARS = Unit("vars", "var", "voltampreact", "W")
VOLTS = Unit("volts", "V", "volt", "V")
WATTS = Unit("watts", "W", "watt", "W")

# What has no unit still says what it is.
STATE = Unit("state", "", "none", "1")
REASONS = Unit("reasons", "", "none", "1")
# A point's unit is not the column's but the row's: see catalogue/point.py.
OWN_UNIT = Unit("own_unit", "", "none", "1")
