"""Coolants: density and heat capacity of a loop's actual fluid, from CoolProp, as tables.

CoolProp is asked once for each fluid, at 0.5 K steps; between them everything is interpolated in
Polars. A table is a value: who has other figures for a fluid builds one of them.

Units: temperature in °C, density in kg/m³, isobaric heat capacity in J/(kg K), pressure in Pa.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Loops run at 2 to 4 bar. From 1 to 10 bar, water's density changes by 4e-4 and its heat capacity by 5e-4.
LOOP_PASCALS = 3e5
# At this step linear interpolation is off by at most 1e-6 of density and 2e-6 of heat capacity.
STEP_KELVIN = 0.5
LOWEST_CELSIUS, HIGHEST_CELSIUS = -30.0, 100.0
# CoolProp's solutions of glycols reach from pure water to this share of mass.
MOST_GLYCOL = 0.6

_KELVIN = 273.15
# At 20 °C, where contents by volume are stated.
_WATER_DENSITY = 998.2


class Base(StrEnum):
    """What a coolant is besides water."""

    WATER = "water"
    PROPYLENE_GLYCOL = "propylene glycol"
    ETHYLENE_GLYCOL = "ethylene glycol"


class Basis(StrEnum):
    """What a content of glycol is a share of."""

    MASS = "mass"
    VOLUME = "volume"


# CoolProp's names of the solutions in "Properties of Secondary Working Fluids for Indirect Systems", IIR, 2010.
_SOLUTIONS = {Base.PROPYLENE_GLYCOL: "MPG", Base.ETHYLENE_GLYCOL: "MEG"}
# Pure glycols at 20 °C, kg/m³ (CRC Handbook of Chemistry and Physics). 2 kg/m³ more moves heat by less than 2e-4.
_GLYCOL_DENSITIES = {Base.PROPYLENE_GLYCOL: 1036.1, Base.ETHYLENE_GLYCOL: 1113.5}
_NAMES = {
    "pg": Base.PROPYLENE_GLYCOL,
    "mpg": Base.PROPYLENE_GLYCOL,
    "propyleneglycol": Base.PROPYLENE_GLYCOL,
    "monopropyleneglycol": Base.PROPYLENE_GLYCOL,
    "eg": Base.ETHYLENE_GLYCOL,
    "meg": Base.ETHYLENE_GLYCOL,
    "ethyleneglycol": Base.ETHYLENE_GLYCOL,
    "monoethyleneglycol": Base.ETHYLENE_GLYCOL,
}
_SHARE = r"(?P<share>\d{1,2}(?:\.\d{1,12})?)\s?%"
_BASIS = r"(?:by )?(?P<basis>mass|volume|vol)"
_NAME = r"(?P<name>[a-z][a-z -]{0,40}?)"
# As people write it, and as Redfish's CoolingLoop.Coolant is told.
_TEXTS = (re.compile(rf"{_NAME}\s?{_SHARE}\s?{_BASIS}"), re.compile(rf"water with {_SHARE} {_NAME} {_BASIS}"))


class FluidsUnavailableError(RuntimeError):
    """CoolProp is not installed here."""


@dataclass(frozen=True, slots=True)
class Fluid:
    """Water, or glycol in water. `glycol` is its share of mass or volume, 0 to 1. ValueError if it cannot be."""

    base: Base = Base.WATER
    glycol: float = 0.0
    basis: Basis = Basis.MASS

    def __post_init__(self) -> None:
        if self.base is Base.WATER and self.glycol != 0:
            raise ValueError(f"water has no glycol, got {self.glycol}")
        if self.base is not Base.WATER and not 0 < self.mass_share <= MOST_GLYCOL:
            raise ValueError(f"glycol is {self.glycol} by {self.basis}; give a share above 0, at most 0.6 by mass")

    @classmethod
    def parse(cls, text: str) -> "Fluid":
        """The fluid that a loop's inventory states.

        `water`, `MPG 25 % by mass`, `ethylene glycol 30 % by volume`, `Water with 25 % PropyleneGlycol
        by volume`. ValueError for another text; the basis must be stated, since 25 % by volume is
        25.7 % by mass.
        """
        words = " ".join(text.lower().split())
        if words == Base.WATER:
            return cls()
        match = next(filter(None, (form.fullmatch(words) for form in _TEXTS)), None)
        base = _NAMES.get(re.sub("[ -]", "", match["name"])) if match else None
        if match is None or base is None:
            raise ValueError(f"fluid is {text[:64]!r}; give water, or as in 'MPG 25 % by mass' or 'MEG 30 % by volume'")
        basis = Basis.MASS if match["basis"] == "mass" else Basis.VOLUME
        return cls(base, float(match["share"]) / 100, basis)

    @property
    def mass_share(self) -> float:
        """Glycol's share of mass: of a share of volume v, w = v r / (v r + (1 - v) r_water), r at 20 °C."""
        if self.basis is Basis.MASS:
            return self.glycol
        glycol = self.glycol * _GLYCOL_DENSITIES[self.base]
        return glycol / (glycol + (1 - self.glycol) * _WATER_DENSITY)

    def __str__(self) -> str:
        return self.base if self.base is Base.WATER else f"{self.base} {100 * self.glycol:g} % by {self.basis}"


@dataclass(frozen=True, slots=True, eq=False)
class FluidTable:
    """Density and heat capacity at rising temperatures; ValueError unless there are two or more of each."""

    celsius: Floats
    density: Floats
    heat_capacity: Floats

    def __post_init__(self) -> None:
        if not (len(self.celsius) == len(self.density) == len(self.heat_capacity) >= 2):
            raise ValueError("a fluid table needs two or more temperatures and as many values of each property")
        if not (np.diff(self.celsius) > 0).all():
            raise ValueError("the temperatures of a fluid table must rise")

    def density_at(self, celsius: pl.Expr) -> pl.Expr:
        """kg/m³, interpolated linearly; absent outside the table, never extrapolated."""
        return self._at(celsius, self.density)

    def heat_capacity_at(self, celsius: pl.Expr) -> pl.Expr:
        """J/(kg K), interpolated linearly; absent outside the table, never extrapolated."""
        return self._at(celsius, self.heat_capacity)

    def _at(self, celsius: pl.Expr, values: Floats) -> pl.Expr:
        nodes, last = pl.lit(pl.Series(self.celsius)), len(self.celsius) - 1
        inside = pl.when(celsius.is_between(float(self.celsius[0]), float(self.celsius[-1]))).then(celsius)
        above = nodes.search_sorted(inside, side="right").clip(1, last)
        slopes = np.diff(values) / np.diff(self.celsius)
        start, base, slope = (
            pl.lit(pl.Series(column)).gather(above - 1) for column in (self.celsius[:-1], values[:-1], slopes)
        )
        return (inside - start) * slope + base


def tabulate(fluid: Fluid, pascals: float = LOOP_PASCALS) -> FluidTable:
    """The fluid's table from CoolProp, from just above freezing to 100 °C.

    FluidsUnavailableError where CoolProp is not installed.
    """
    try:
        from CoolProp.CoolProp import PropsSI  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise FluidsUnavailableError("the properties of coolants need CoolProp; install kvandal[reports]") from error
    celsius = np.arange(LOWEST_CELSIUS, HIGHEST_CELSIUS + STEP_KELVIN / 2, STEP_KELVIN)
    name = "Water" if fluid.base is Base.WATER else f"INCOMP::{_SOLUTIONS[fluid.base]}[{fluid.mass_share:.6f}]"
    density, heat_capacity = (
        np.asarray(PropsSI(output, "T", celsius + _KELVIN, "P", pascals, name), dtype=np.float64)
        for output in ("Dmass", "Cpmass")
    )
    # It answers infinity below the freezing point.
    liquid = np.isfinite(density) & np.isfinite(heat_capacity)
    return FluidTable(celsius[liquid], density[liquid], heat_capacity[liquid])
