"""Coolants: tables that are interpolated, what a loop's fluid is called, and CoolProp where it is installed."""

import importlib.util

import numpy as np
import polars as pl
import pytest

from reports.fluids import Base, Basis, Fluid, FluidsUnavailableError, FluidTable, tabulate

# CoolProp 8.0.0 at 3 bar: °C, then density kg/m³ and heat capacity J/(kg K) of water and of 25 % propylene
# glycol by mass.
COOLPROP = (
    (20.0, 998.3, 4183.0, 1019.3, 3920.0),
    (30.0, 995.7, 4179.0, 1014.9, 3945.0),
    (40.0, 992.3, 4179.0, 1009.9, 3969.0),
    (45.0, 990.3, 4180.0, 1007.2, 3981.0),
    (50.0, 988.1, 4181.0, 1004.4, 3992.0),
    (60.0, 983.3, 4185.0, 998.4, 4016.0),
    (70.0, 977.9, 4190.0, 992.1, 4039.0),
)
COLUMNS = np.array(COOLPROP).T
WATER = FluidTable(COLUMNS[0], COLUMNS[1], COLUMNS[2])
PG25 = FluidTable(COLUMNS[0], COLUMNS[3], COLUMNS[4])


def density(table: FluidTable, *celsius: float | None) -> list[float | None]:
    frame = pl.LazyFrame({"celsius": celsius}, schema={"celsius": pl.Float64})
    return frame.select(value=table.density_at(pl.col("celsius"))).collect()["value"].to_list()


def heat_capacity(table: FluidTable, *celsius: float) -> list[float | None]:
    frame = pl.LazyFrame({"celsius": celsius}, schema={"celsius": pl.Float64})
    return frame.select(value=table.heat_capacity_at(pl.col("celsius"))).collect()["value"].to_list()


def test_table_gives_its_own_values_at_its_temperatures() -> None:
    assert density(WATER, *COLUMNS[0]) == pytest.approx(list(COLUMNS[1]))
    assert heat_capacity(PG25, *COLUMNS[0]) == pytest.approx(list(COLUMNS[4]))


def test_between_temperatures_it_is_linear() -> None:
    # (995.7 + 992.3) / 2 and 3945 + 0.25 * 24.
    assert density(WATER, 35.0) == pytest.approx([994.0])
    assert heat_capacity(PG25, 32.5) == pytest.approx([3951.0])


def test_outside_the_table_is_absent_and_not_extrapolated() -> None:
    assert density(WATER, 19.99, 70.01, None, float("nan"), float("inf"), -1e30) == [None] * 6


def test_table_that_is_no_table_is_refused() -> None:
    with pytest.raises(ValueError, match="two or more"):
        FluidTable(np.array([20.0]), np.array([998.3]), np.array([4183.0]))
    with pytest.raises(ValueError, match="rise"):
        FluidTable(np.array([20.0, 20.0]), np.array([1.0, 2.0]), np.array([1.0, 2.0]))


@pytest.mark.parametrize(
    ("text", "fluid"),
    [
        ("water", Fluid()),
        (" Water ", Fluid()),
        ("MPG 25 % by mass", Fluid(Base.PROPYLENE_GLYCOL, 0.25)),
        ("PG 25% by volume", Fluid(Base.PROPYLENE_GLYCOL, 0.25, Basis.VOLUME)),
        ("Water with 25 % PropyleneGlycol by volume", Fluid(Base.PROPYLENE_GLYCOL, 0.25, Basis.VOLUME)),
        ("water with 30 % Mono-Ethylene Glycol by volume", Fluid(Base.ETHYLENE_GLYCOL, 0.3, Basis.VOLUME)),
        ("ethylene glycol 30.5 % vol", Fluid(Base.ETHYLENE_GLYCOL, 0.305, Basis.VOLUME)),
    ],
)
def test_fluid_is_read_from_the_words_of_the_inventory(text: str, fluid: Fluid) -> None:
    assert Fluid.parse(text) == fluid


def test_fluid_written_out_reads_back() -> None:
    for fluid in (Fluid(), Fluid(Base.ETHYLENE_GLYCOL, 0.3), Fluid(Base.PROPYLENE_GLYCOL, 0.25, Basis.VOLUME)):
        assert Fluid.parse(str(fluid)) == fluid


@pytest.mark.parametrize(
    "text",
    [
        "",
        "PG25",
        "oil",
        "glycol 25 % by mass",
        "MPG 25 %",
        "MPG 99 % by mass",
        "MPG 0 % by mass",
        "Water with 5 % additive by volume",
        "MPG " * 1000,
        "٢٥",
    ],
)
def test_words_that_leave_the_fluid_open_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"fluid is|glycol is"):
        Fluid.parse(text)


def test_share_of_volume_becomes_one_of_mass() -> None:
    # 0.25 * 1036.1 / (0.25 * 1036.1 + 0.75 * 998.2) = 0.2570 of propylene glycol.
    assert Fluid(Base.PROPYLENE_GLYCOL, 0.25, Basis.VOLUME).mass_share == pytest.approx(0.2570, abs=1e-4)
    assert Fluid(Base.PROPYLENE_GLYCOL, 0.25).mass_share == 0.25


def test_water_with_glycol_is_refused() -> None:
    with pytest.raises(ValueError, match="no glycol"):
        Fluid(Base.WATER, 0.1)


@pytest.mark.skipif(importlib.util.find_spec("CoolProp") is not None, reason="CoolProp is installed")
def test_without_coolprop_it_says_what_to_install() -> None:
    with pytest.raises(FluidsUnavailableError, match=r"kvandal\[reports\]"):
        tabulate(Fluid())


@pytest.fixture(scope="module")
def coolprop() -> None:
    pytest.importorskip("CoolProp")


@pytest.mark.usefixtures("coolprop")
@pytest.mark.parametrize(("fluid", "table"), [(Fluid(), WATER), (Fluid(Base.PROPYLENE_GLYCOL, 0.25), PG25)])
def test_coolprop_gives_the_published_values(fluid: Fluid, table: FluidTable) -> None:
    found = tabulate(fluid)
    assert density(found, *table.celsius) == pytest.approx(list(table.density), abs=0.06)
    assert heat_capacity(found, *table.celsius) == pytest.approx(list(table.heat_capacity), abs=0.6)


@pytest.mark.usefixtures("coolprop")
def test_half_kelvin_steps_are_fine_enough() -> None:
    # At 1 K steps the values between are off by four times what they are at 0.5 K, and by less than 1e-5 all the same.
    fine = tabulate(Fluid())
    between = fine.celsius[1:-1:2]
    coarse = FluidTable(fine.celsius[::2], fine.density[::2], fine.heat_capacity[::2])
    assert density(coarse, *between) == pytest.approx(density(fine, *between), rel=1e-5)
    assert heat_capacity(coarse, *between) == pytest.approx(heat_capacity(fine, *between), rel=1e-5)


@pytest.mark.usefixtures("coolprop")
def test_table_of_a_glycol_ends_above_its_freezing_point() -> None:
    # 25 % propylene glycol by mass freezes at -9.8 °C.
    found = tabulate(Fluid(Base.PROPYLENE_GLYCOL, 0.25))
    assert (found.celsius[0], found.celsius[-1]) == (-9.5, 100.0)
    assert tabulate(Fluid()).celsius[0] == 0.0
    assert tabulate(Fluid(Base.ETHYLENE_GLYCOL, 0.5)).celsius[0] == -30.0
