"""Rows: a reading is scaled once, rounded to its step, and absent rather than wrong."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from catalogue import COOLING, GPU, RACK, TABLES, Kind, Metric, Table, layout_of, units
from catalogue.origins import NvmlField
from catalogue.types import I8, I16, I32, U8, U16, U32, U64, StoredType
from stream.rows import BLOCK_VALUES, absent_rows, in_base_unit, pack, row_type

METRICS = [metric for table in TABLES for metric in table.metrics]
POWER = GPU.metric("power_watts")  # UInt16 in steps of 0.1 W
MARGIN = GPU.metric("temperature_margin_kelvin")  # Int8 in steps of 1 K
PLAIN = Metric(name="plain_count", unit=units.COUNT, kind=Kind.GAUGE, stored=U8, brief="Plain", origins=(NvmlField(1),))


def counts_of(metric: Metric, values: ArrayLike) -> list[int]:
    """What is stored for values of a metric, alone in its table."""
    table = replace(GPU, name="alone", metrics=(metric,))
    counts: list[int] = pack(table, np.arange(np.size(values)), 1_750_000_000, {metric.name: values})[
        metric.column
    ].tolist()
    return counts


@pytest.mark.parametrize(
    ("metric", "value", "count"),
    [
        (POWER, 700.0, 7000),
        (POWER, 0.0, 0),
        (POWER, 0.04, 0),
        (POWER, 0.06, 1),
        (POWER, -0.04, 0),
        (POWER, -0.06, 65_535),  # below what the type holds: absent
        (POWER, 6553.4, 65_534),  # the highest reading
        (POWER, 6553.5, 65_535),  # would be the absent value itself
        (POWER, 1e300, 65_535),
        (POWER, math.nan, 65_535),
        (POWER, math.inf, 65_535),
        (POWER, -math.inf, 65_535),
        (MARGIN, -127.0, -127),
        (MARGIN, -128.0, -128),  # the absent value of Int8
        (MARGIN, -129.0, -128),
        (MARGIN, 127.0, 127),
        (MARGIN, 128.0, -128),
    ],
)
def test_reading_becomes_the_nearest_count_or_absent(metric: Metric, value: float, count: int) -> None:
    assert counts_of(metric, [value]) == [count]


@pytest.mark.parametrize("stored", [U8, U16, U32, U64, I8, I16, I32])
def test_what_a_type_cannot_hold_is_absent(stored: StoredType) -> None:
    metric = replace(PLAIN, stored=stored)
    beyond = [math.ldexp(1.0, metric.stored.bits), -math.ldexp(1.0, metric.stored.bits), math.inf, -math.inf, math.nan]
    with np.errstate(all="raise"):
        assert counts_of(metric, beyond) == [metric.stored.absent] * len(beyond)


@given(st.sampled_from(METRICS), st.floats(allow_nan=True, allow_infinity=True))
def test_quantised_value_is_within_half_a_step_or_absent(metric: Metric, value: float) -> None:
    with np.errstate(over="ignore"):
        (count,) = counts_of(metric, [value])
    exact = Fraction(value) / metric.resolution if math.isfinite(value) else None
    lowest, highest = metric.stored.lowest, metric.stored.highest
    if exact is None or not lowest - Fraction(1, 2) <= exact <= highest + Fraction(1, 2):
        assert count == metric.stored.absent
    elif lowest <= exact <= highest:
        # One part in 2**50 for the one multiplication in floating point.
        assert abs(count - exact) <= Fraction(1, 2) + abs(exact) / (1 << 50)
        assert count != metric.stored.absent


@given(st.sampled_from([m for m in METRICS if m.stored.bits < 64]), st.data())
def test_every_legal_count_survives_the_way_to_base_units_and_back(metric: Metric, data: st.DataObject) -> None:
    table = next(t for t in TABLES if metric in t.metrics)
    counts = data.draw(st.lists(st.integers(metric.stored.lowest, metric.stored.highest), min_size=1, max_size=20))
    rows = absent_rows(table, len(counts))
    rows[metric.column] = counts
    values = in_base_unit(metric, rows)
    np.testing.assert_allclose(values, [float(count * metric.resolution) for count in counts], rtol=1e-15)
    assert counts_of(metric, values) == counts


def test_many_rows_are_packed_like_few() -> None:
    watts = np.arange(BLOCK_VALUES) % 700 + 0.1
    times = np.arange(len(watts))
    columns = {"power_watts": watts, "temperature_celsius": watts / 10, "memory_temperature_celsius": watts}
    many = pack(GPU, 1, times, columns)
    for some in (slice(0, 1), slice(5000, 5008)):
        few = pack(GPU, 1, times[some], {name: column[some] for name, column in columns.items()})
        assert many[some].tolist() == few.tolist()


def test_whole_numbers_of_watts_are_whole_in_base_units() -> None:
    rows = pack(GPU, [1, 2, 3], 1_750_000_000, {"power_watts": [700.0, 0.0, math.nan]})
    values = in_base_unit(POWER, rows)
    assert values[:2].tolist() == [700.0, 0.0]
    assert math.isnan(values[2])


def test_what_is_not_given_is_absent() -> None:
    rows = pack(GPU, [7], [1_750_000_000], {"power_watts": [700.0]})
    assert rows["power_watts_raw"].tolist() == [7000]
    for metric in GPU.metrics[1:]:
        assert rows[metric.column].tolist() == [metric.stored.absent]
        assert np.isnan(in_base_unit(metric, rows)).all()


def test_resources_times_and_values_broadcast() -> None:
    largest = (1 << 64) - 1
    rows = pack(COOLING, [1, largest], 1_750_000_000, {"heat_flow_watts": 1_500_000.0})
    assert rows["resource"].tolist() == [1, largest]
    assert rows["time"].tolist() == [1_750_000_000, 1_750_000_000]
    assert in_base_unit(COOLING.metric("heat_flow_watts"), rows).tolist() == [1_500_000.0, 1_500_000.0]


def test_registers_in_watt_hours_keep_every_count() -> None:
    register = RACK.metric("energy_register_joules")  # 1 Wh = 3600 J
    rows = pack(RACK, [1], [0], {"energy_register_joules": [123_456_789 * 3600.0]})
    assert rows[register.column].tolist() == [123_456_789]


def test_unknown_metric_is_an_error_that_names_the_table() -> None:
    with pytest.raises(KeyError, match="table gpu has no metric power"):
        pack(GPU, [1], [0], {"power": [1.0]})


def test_no_rows_are_rows_too() -> None:
    rows = pack(GPU, [], [], {"power_watts": []})
    assert (len(rows), rows.dtype) == (0, row_type(layout_of(GPU)))


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_rows_are_packed_without_padding(table: Table) -> None:
    dtype = row_type(layout_of(table))
    assert dtype.itemsize == sum(dtype[name].itemsize for name in dtype.names or ())
    assert not dtype.isalignedstruct


def test_blank_rows_are_not_shared() -> None:
    first, second = absent_rows(GPU, 1), absent_rows(GPU, 1)
    first["power_watts_raw"] = 1
    assert second["power_watts_raw"].tolist() == [65_535]
