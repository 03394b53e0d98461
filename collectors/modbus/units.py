"""Units in which devices give their values, and what they are in base units.

Factors are exact by definition (SI brochure, 9th edition; NIST SP 811, appendix B.8 for BTU, gallon and psi).
"""

from dataclasses import dataclass
from fractions import Fraction

from catalogue import point, units
from catalogue.units import Unit

HOUR_S = 3600
BTU = Fraction("1055.05585262")  # International Table, in joules
CALORIE = Fraction("4.1868")  # International Table, in joules
GALLON = Fraction("0.003785411784")  # US, in cubic metres
PSI = Fraction("4.4482216152605") / Fraction("0.00064516")  # pound-force per square inch, in pascals
ZERO_CELSIUS_K = Fraction("273.15")


@dataclass(frozen=True, slots=True)
class DeviceUnit:
    """A value v in this unit is `v * factor + shift` in the base unit."""

    base: Unit
    factor: Fraction = Fraction(1)
    shift: Fraction = Fraction(0)


def _of(base: Unit, **factors: int | str | Fraction) -> dict[str, DeviceUnit]:
    return {name: DeviceUnit(base, Fraction(factor)) for name, factor in factors.items()}


_KILO, _MEGA, _GIGA = 10**3, 10**6, 10**9

_UNITS: dict[str, DeviceUnit] = {
    **_of(units.JOULES, J=1, kJ=_KILO, MJ=_MEGA, GJ=_GIGA, TJ=10**12),
    **_of(units.JOULES, Wh=HOUR_S, kWh=HOUR_S * _KILO, MWh=HOUR_S * _MEGA, GWh=HOUR_S * _GIGA),
    **_of(units.JOULES, kcal=CALORIE * _KILO, Gcal=CALORIE * _GIGA, kBTU=BTU * _KILO, MMBTU=BTU * _MEGA),
    **_of(units.WATTS, W=1, kW=_KILO, MW=_MEGA, GW=_GIGA),
    "GJ/h": DeviceUnit(units.WATTS, Fraction(_GIGA, HOUR_S)),
    "BTU/h": DeviceUnit(units.WATTS, BTU / HOUR_S),
    **_of(units.VARS, var=1, kvar=_KILO, Mvar=_MEGA),
    **_of(point.VOLT_AMPERES, VA=1, kVA=_KILO, MVA=_MEGA),
    **_of(units.CUBIC_METRES, m3=1, L=Fraction(1, 1000), dm3=Fraction(1, 1000), gal=GALLON),
    "m3/s": DeviceUnit(units.CUBIC_METRES_PER_SECOND),
    "m3/h": DeviceUnit(units.CUBIC_METRES_PER_SECOND, Fraction(1, HOUR_S)),
    "L/s": DeviceUnit(units.CUBIC_METRES_PER_SECOND, Fraction(1, 1000)),
    "L/min": DeviceUnit(units.CUBIC_METRES_PER_SECOND, Fraction(1, 60_000)),
    "L/h": DeviceUnit(units.CUBIC_METRES_PER_SECOND, Fraction(1, HOUR_S * 1000)),
    "gal/min": DeviceUnit(units.CUBIC_METRES_PER_SECOND, GALLON / 60),
    "degC": DeviceUnit(units.CELSIUS),
    "degF": DeviceUnit(units.CELSIUS, Fraction(5, 9), Fraction(-160, 9)),
    "K": DeviceUnit(units.KELVIN),
    **_of(units.PASCALS, Pa=1, hPa=100, kPa=_KILO, MPa=_MEGA, mbar=100, bar=100_000, psi=PSI),
    "ratio": DeviceUnit(units.RATIO),
    "percent": DeviceUnit(units.RATIO, Fraction(1, 100)),
    "%": DeviceUnit(units.RATIO, Fraction(1, 100)),
    "%RH": DeviceUnit(point.RELATIVE_HUMIDITY, Fraction(1, 100)),
    **_of(units.AMPERES, mA=Fraction(1, 1000), A=1, kA=_KILO),
    **_of(units.VOLTS, mV=Fraction(1, 1000), V=1, kV=_KILO),
    **_of(units.HERTZ, mHz=Fraction(1, 1000), Hz=1),
    **_of(units.SECONDS, s=1, min=60, h=HOUR_S, d=24 * HOUR_S),
    "count": DeviceUnit(units.COUNT),
    "state": DeviceUnit(units.STATE),
    "uS/cm": DeviceUnit(point.MICROSIEMENS_PER_CENTIMETRE),
    "mS/cm": DeviceUnit(point.MICROSIEMENS_PER_CENTIMETRE, Fraction(1000)),
    "pH": DeviceUnit(point.PH),
    "NTU": DeviceUnit(point.TURBIDITY),
    "rpm": DeviceUnit(point.REVOLUTIONS_PER_SECOND, Fraction(1, 60)),
    "g/m3": DeviceUnit(point.GRAMS_PER_CUBIC_METRE),
    "mg/L": DeviceUnit(point.GRAMS_PER_CUBIC_METRE),
}
UNIT_NAMES = tuple(_UNITS)


def device_unit(name: str, base: Unit | None = None) -> DeviceUnit:
    """The unit of that name. KeyError lists the names that are known, or says that it is not one of `base`.

    An absolute temperature in kelvin becomes celsius where celsius are wanted; a difference stays in kelvin.
    """
    if name == "K" and base == units.CELSIUS:
        return DeviceUnit(units.CELSIUS, Fraction(1), -ZERO_CELSIUS_K)
    found = _UNITS.get(name)
    if found is None:
        raise KeyError(f"unit {name!r} is not known; there are {', '.join(UNIT_NAMES)}")
    if base is not None and found.base != base:
        fitting = [one for one, unit in _UNITS.items() if unit.base == base]
        raise KeyError(f"unit {name!r} is not one of {base.suffix}; there are {', '.join(fitting) or 'none'}")
    return found
