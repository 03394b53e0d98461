"""Heat from flow and temperatures: worked examples by hand, and what must hold for any readings."""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from random import Random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.heat import (
    LOOP_READINGS,
    LOOPS,
    Error,
    HeatAccuracy,
    Pipe,
    heat_by_loop,
    heat_flow,
    heat_quarters,
    uncertainty_joules,
)
from reports.period import Period, Span
from tests.unit.test_reports_fluids import PG25, WATER

START = Period.parse("2026-10-05").start
HOUR_S = 3600
LITRE_PER_MINUTE = 1e-3 / 60
FLUIDS = {"water": WATER, "PG25": PG25}

Row = tuple[float, float | None, float | None, float | None]  # seconds, flow, supply, return


def span(seconds: float = HOUR_S, *, first_s: float = 0) -> Period:
    start = START + timedelta(seconds=first_s)
    return Period("span", Span.DAY, "Europe/Oslo", start, start + timedelta(seconds=seconds))


def rows(found: Sequence[Row], *, quality: int = 1, resource: int = 1) -> pl.DataFrame:
    plain = {**LOOP_READINGS, "time": pl.Datetime("ms")}
    times = [(START + timedelta(seconds=row[0])).replace(tzinfo=None) for row in found]
    data = [(resource, time, *row[1:], quality) for time, row in zip(times, found, strict=True)]
    frame = pl.DataFrame(data, schema=plain, orient="row")
    return frame.with_columns(pl.col("time").dt.replace_time_zone("UTC"))


def loop(
    fluid: str = "water", *, meter_at: str | None = None, hot: str | None = Pipe.RETURN, resource: int = 1
) -> pl.DataFrame:
    return pl.DataFrame([(resource, fluid, meter_at, hot)], schema=dict(LOOPS), orient="row")


def steady(flow: float, supply: float, returned: float, *, seconds: int = HOUR_S) -> list[Row]:
    return [(float(at_s), flow, supply, returned) for at_s in range(0, seconds + 1, 10)]


def quarters_of(
    found: Sequence[Row] | pl.DataFrame, loops: pl.DataFrame | None = None, period: Period | None = None
) -> pl.DataFrame:
    readings = found if isinstance(found, pl.DataFrame) else rows(found)
    loops = loop() if loops is None else loops
    return heat_quarters(readings.lazy(), loops.lazy(), FLUIDS, period or span()).collect()


def joules(found: Sequence[Row] | pl.DataFrame, loops: pl.DataFrame | None = None) -> float:
    return float(quarters_of(found, loops)["joules"].sum())


@pytest.mark.parametrize(("fluid", "kilowatts"), [("water", 0.0690), ("PG25", 0.0668)])
def test_a_litre_a_minute_and_a_kelvin_carry_what_the_rule_of_thumb_says(fluid: str, kilowatts: float) -> None:
    # 45 °C, 1 L/min, 1 K: rho cp / 60000 = 990.3 * 4180 / 60000 = 68.99 W of water.
    found = joules(steady(LITRE_PER_MINUTE, 44.5, 45.5), loop(fluid))
    assert found / HOUR_S / 1000 == pytest.approx(kilowatts, abs=5e-5)


def test_water_properties_would_overstate_the_heat_of_glycol_by_three_percent() -> None:
    readings = steady(0.003, 44.5, 45.5)
    assert joules(readings) / joules(readings, loop("PG25")) == pytest.approx(1.032, abs=5e-4)


@pytest.mark.parametrize(("meter_at", "density"), [(Pipe.SUPPLY, 992.3), (Pipe.RETURN, 988.1), (None, 990.3)])
def test_density_is_that_at_the_flow_meter_and_heat_capacity_that_of_the_mean(
    meter_at: str | None, density: float
) -> None:
    # 40 to 50 °C: cp at 45 °C is 4180.
    found = joules(steady(0.003, 40.0, 50.0), loop(meter_at=meter_at))
    assert found == pytest.approx(density * 0.003 * 4180 * 10 * HOUR_S)


def test_flow_and_difference_that_move_together_are_multiplied_before_they_are_averaged() -> None:
    # Every other 10 s: 0.004 m³/s over 10 K, or 0.002 m³/s over 20 K; the mean of the products is
    # 0.04 m³ K/s, the product of the means 0.045.
    found: list[Row] = [
        (float(at_s), 0.004, 40.0, 50.0) if at_s // 10 % 2 else (float(at_s), 0.002, 35.0, 55.0)
        for at_s in range(0, 3601, 10)
    ]
    assert joules(found) == pytest.approx(990.3 * 4180 * 0.04 * HOUR_S)


def test_heat_that_is_delivered_counts_from_the_hot_supply() -> None:
    delivered = loop(hot=Pipe.SUPPLY, meter_at=Pipe.RETURN)
    assert joules(steady(0.003, 50.0, 40.0), delivered) == pytest.approx(992.3 * 0.003 * 4180 * 10 * HOUR_S)


def test_values_at_their_own_times_meet_on_the_grid() -> None:
    # Flow every 20 s, temperatures every 30 s and at other seconds.
    flow = [(float(at_s), 0.003, None, None) for at_s in range(0, HOUR_S + 1, 20)]
    warm = [(float(at_s), None, 40.0, 50.0) for at_s in range(-7, HOUR_S + 1, 30)]
    found = quarters_of([*flow, *warm])
    assert found["whole"].to_list() == [True] * 4
    assert found["joules"].sum() == pytest.approx(990.3 * 0.003 * 4180 * 10 * HOUR_S)


def test_value_stands_for_thirty_seconds_and_no_longer() -> None:
    # The only reading, at 00:10:00, serves the grid from 10:00 to 10:30: three times 10 s.
    found = quarters_of([(600.0, 0.003, 40.0, 50.0)])
    assert found["observed_s"].to_list() == [30.0, 0.0, 0.0, 0.0]
    assert found["joules"].to_list() == [pytest.approx(990.3 * 0.003 * 4180 * 10 * 30), None, None, None]


def test_gap_is_missing_and_not_filled() -> None:
    # The last reading before the gap, at 00:09:50, stands until 00:10:20; the next is at 00:20:00.
    readings = [row for row in steady(0.003, 40.0, 50.0) if not 600 <= row[0] < 1200]
    found = quarters_of(readings)
    assert found["observed_s"].to_list() == [620.0, 600.0, 900.0, 900.0]
    assert found["whole"].to_list() == [False, False, True, True]
    total = heat_by_loop(found.lazy(), HeatAccuracy()).collect()
    assert total["coverage"].item() == pytest.approx(3020 / 3600)
    assert total["joules"].item() == pytest.approx(990.3 * 0.003 * 4180 * 10 * 3020)


def test_negative_heat_keeps_its_sign_and_is_clipped_only_in_what_is_exported() -> None:
    # Half an hour of +10 K, half an hour of -10 K: nothing in sum, half exported, half clipped.
    readings = [
        (float(at_s), 0.003, 40.0, 50.0) if at_s < 1800 else (float(at_s), 0.003, 50.0, 40.0)
        for at_s in range(0, 3601, 10)
    ]
    total = heat_by_loop(quarters_of(readings).lazy(), HeatAccuracy()).collect()
    half = 990.3 * 0.003 * 4180 * 10 * 1795  # the cell in which it turns is half of each
    assert total["joules"].item() == pytest.approx(-half / 1795 * 10)
    assert total["exported_joules"].item() == pytest.approx(half)
    assert total["clipped_joules"].item() == pytest.approx(half / 1795 * 1805)


def test_temperatures_are_weighted_by_energy() -> None:
    # Half an hour at 0.003 m³/s 40/50 °C, half an hour without flow at 20/20 °C.
    readings = [(float(at_s), 0.003 * (at_s <= 1800), 40.0 - 20 * (at_s > 1800), 50.0) for at_s in range(0, 3601, 10)]
    total = heat_by_loop(quarters_of(readings).lazy(), HeatAccuracy()).collect()
    assert total["supply_celsius"].item() == pytest.approx(40.0)
    assert total["return_celsius"].item() == pytest.approx(50.0)


@pytest.mark.parametrize(
    "readings",
    [
        steady(0.003, 80.0, 90.0),  # outside the fluid's table
        steady(math.nan, 40.0, 50.0),
        [(row[0], row[1], None, row[3]) for row in steady(0.003, 40.0, 50.0)],
        [],
    ],
)
def test_what_cannot_be_told_is_absent_and_not_zero(readings: list[Row]) -> None:
    found = quarters_of(readings)
    assert found["joules"].to_list() == [None] * 4
    assert found["observed_s"].sum() == 0
    total = heat_by_loop(found.lazy(), HeatAccuracy()).collect()
    assert total.row(0) == (1, None, None, None, 0.0, None, None, None)


def test_loop_of_a_fluid_without_a_table_has_no_heat() -> None:
    assert quarters_of(steady(0.003, 40.0, 50.0), loop("oil"))["joules"].null_count() == 4


def test_bad_readings_are_not_used() -> None:
    good = rows(steady(0.003, 40.0, 50.0))
    bad = rows([(float(at_s), 9.9, 40.0, 50.0) for at_s in range(0, 3601, 10)], quality=4)
    assert joules(pl.concat([good, bad])) == pytest.approx(joules(good))


def test_loops_do_not_mix() -> None:
    readings = pl.concat([rows(steady(0.003, 40.0, 50.0)), rows(steady(0.001, 40.0, 50.0), resource=2)])
    loops = pl.concat([loop("water"), loop("PG25", resource=2)])
    found = heat_by_loop(quarters_of(readings, loops).lazy(), HeatAccuracy()).collect()
    # Mean 45 °C: 990.3 * 4180 of water, 1007.2 * 3981 of PG25.
    assert found["joules"].to_list() == pytest.approx([990.3 * 4180 * 0.03 * HOUR_S, 1007.2 * 3981 * 0.01 * HOUR_S])


@pytest.mark.parametrize(("kelvin", "percent"), [(5.0, 3.0), (10.0, 1.8), (20.0, 1.3)])
def test_uncertainty_is_that_of_the_formula(kelvin: float, percent: float) -> None:
    # 1 % flow, 0.1 K for each probe, 0.5 % fluid: sqrt(1² + (14.14/dT)² + 0.5²) %.
    found = quarters_of(steady(0.003, 45 - kelvin / 2, 45 + kelvin / 2))
    shares = found.select(share=uncertainty_joules(HeatAccuracy()) / pl.col("joules"))["share"]
    assert shares.to_list() == pytest.approx([math.sqrt(1 + (10 * math.sqrt(2) / kelvin) ** 2 + 0.25) / 100] * 4)
    assert 100 * float(shares[0]) == pytest.approx(percent, abs=0.05)


def test_expanded_uncertainty_of_a_period_does_not_shrink_with_its_length() -> None:
    found = quarters_of(steady(0.003, 40.0, 50.0))
    total = heat_by_loop(found.lazy(), HeatAccuracy()).collect()
    assert total["uncertainty_joules"].item() / total["joules"].item() == pytest.approx(2 * math.sqrt(3.25) / 100)


def test_uncertainty_stays_finite_without_a_difference() -> None:
    # No heat, 0.1414 K of the difference uncertain: 990.3 * 4180 * 0.003 * 0.1414 W.
    found = quarters_of(steady(0.003, 45.0, 45.0))
    total = heat_by_loop(found.lazy(), HeatAccuracy()).collect()
    assert total["joules"].item() == pytest.approx(0.0)
    watts = 990.3 * 4180 * 0.003 * 0.1 * math.sqrt(2)
    assert total["uncertainty_joules"].item() == pytest.approx(2 * watts * HOUR_S)


def test_heat_meter_class_becomes_uncertainties() -> None:
    # Class 2 at qp/q = 1, dT = 10 K, dTmin = 3 K: 2.02 %, 0.5 + 0.9 = 1.4 %, 0.5 + 0.3 = 0.8 %, each over sqrt(3).
    accuracy = HeatAccuracy.en_1434(2, permanent_flow=0.003, least_difference_kelvin=3.0)
    found = quarters_of(steady(0.003, 40.0, 50.0))
    shares = found.select(share=uncertainty_joules(accuracy) / pl.col("joules"))["share"]
    assert shares[0] == pytest.approx(math.sqrt((2.02**2 + 1.4**2 + 0.8**2) / 3) / 100)


def test_unknown_heat_meter_class_is_refused() -> None:
    with pytest.raises(ValueError, match="flow class is 4"):
        HeatAccuracy.en_1434(4, permanent_flow=0.003, least_difference_kelvin=3.0)


def test_each_uncertainty_is_configuration() -> None:
    found = quarters_of(steady(0.003, 40.0, 50.0))
    accuracy = HeatAccuracy(flow=Error(0.03), difference=Error(0.04), fluid=Error())
    shares = found.select(share=uncertainty_joules(accuracy) / pl.col("joules"))["share"]
    assert shares[0] == pytest.approx(0.05)


def test_grid_that_does_not_divide_a_quarter_hour_is_refused() -> None:
    with pytest.raises(ValueError, match="7 s"):
        heat_flow(rows([]).lazy(), loop().lazy(), FLUIDS, span(), grid_s=7)


def test_frame_of_other_types_is_refused() -> None:
    with pytest.raises(TypeError, match="flow_meter_at"):
        heat_flow(rows([]).lazy(), loop().drop("flow_meter_at").lazy(), FLUIDS, span())


# Readings every 1 to 45 s for up to half an hour: flow, supply and rise, each of which may be absent.
VALUES = st.tuples(
    st.integers(1, 45),
    st.none() | st.floats(0, 0.01),
    st.none() | st.floats(25, 45),
    st.none() | st.floats(20, 60),
)
FEW = settings(deadline=None, max_examples=25)


def walk(values: list[tuple[int, float | None, float | None, float | None]]) -> list[Row]:
    found, at_s = list[Row](), 880
    for pause_s, *rest in values:
        at_s += pause_s
        found.append((float(at_s), rest[0], rest[1], rest[2]))
    return found


WALKS = st.lists(VALUES, min_size=2, max_size=60).map(walk)


def parts(middle: datetime) -> tuple[Period, Period]:
    whole = span()
    return (
        Period("first", Span.DAY, whole.zone, whole.start, middle),
        Period("second", Span.DAY, whole.zone, middle, whole.end),
    )


@FEW
@given(WALKS, st.integers(1, 3))
def test_two_parts_of_a_period_add_up(readings: list[Row], quarter: int) -> None:
    whole = quarters_of(readings)
    both = pl.concat([quarters_of(readings, period=part) for part in parts(START + timedelta(minutes=15 * quarter))])
    for name in ("joules", "exported_joules", "clipped_joules", "observed_s", "throughput_joules"):
        assert both[name].to_list() == pytest.approx(whole[name].to_list(), abs=1e-6), name


@FEW
@given(WALKS, st.randoms(use_true_random=False))
def test_order_and_repeats_of_rows_change_nothing(readings: list[Row], random: Random) -> None:
    muddled = [*readings, *readings[: len(readings) // 2]]
    random.shuffle(muddled)
    assert quarters_of(muddled).equals(quarters_of(readings))


@FEW
@given(WALKS)
def test_exported_and_clipped_heat_are_never_negative_and_make_up_the_signed(readings: list[Row]) -> None:
    found = quarters_of(readings).drop_nulls("joules")
    assert (found["exported_joules"] >= 0).all()
    assert (found["clipped_joules"] >= 0).all()
    difference = found["exported_joules"] - found["clipped_joules"] - found["joules"]
    assert difference.to_list() == pytest.approx([0.0] * found.height, abs=1e-3)


@FEW
@given(WALKS, st.sets(st.integers(0, 59)))
def test_missing_rows_never_raise_the_coverage(readings: list[Row], dropped: set[int]) -> None:
    left = [row for index, row in enumerate(readings) if index not in dropped]
    assert (quarters_of(left)["observed_s"] <= quarters_of(readings)["observed_s"]).all()
