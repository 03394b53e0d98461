"""The ledger: what registers say, by hand-computed examples, and what must hold for any readings."""

from collections.abc import Sequence, Set
from datetime import datetime, timedelta
from random import Random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.ledger import METERS, READINGS, Flag, by_meter, by_role, flags, mark_edges, quarters, side_by_side, steps
from reports.period import Period

DAY = Period.parse("2026-10-05")
MINUTE_S = 60
HOUR = 3600

Reading = tuple[float, float]  # seconds after the period's start, joules


def frame(
    readings: Sequence[Reading], *, resource: int = 1, quality: int | None = 1, watts: float | None = None
) -> pl.DataFrame:
    """READINGS; with `watts`, every reading tells this power besides."""
    times = [DAY.start + timedelta(seconds=at_s) for at_s, _ in readings]
    rows = [
        (resource, time.replace(tzinfo=None), joules, quality)
        for time, (_, joules) in zip(times, readings, strict=True)
    ]
    plain = {**READINGS, "time": pl.Datetime("ms")}
    told = pl.DataFrame(rows, schema=plain, orient="row").with_columns(pl.col("time").dt.replace_time_zone("UTC"))
    return told if watts is None else told.with_columns(power_watts=pl.lit(watts))


def meter(
    *,
    resource: int = 1,
    modulus_joules: float | None = None,
    ceiling_watts: float | None = None,
    interval_s: float | None = MINUTE_S,
) -> pl.DataFrame:
    return pl.DataFrame([(resource, modulus_joules, ceiling_watts, interval_s)], schema=dict(METERS), orient="row")


def steady(watts: float, *, first_s: int = -HOUR, last_s: int = 25 * HOUR, start_joules: float = 1e9) -> list[Reading]:
    """A register read every minute while `watts` flow."""
    return [(at_s, start_joules + watts * (at_s - first_s)) for at_s in range(first_s, last_s, MINUTE_S)]


def without(readings: list[Reading], first_s: float, last_s: float) -> list[Reading]:
    return [reading for reading in readings if not first_s <= reading[0] <= last_s]


def run(readings: pl.DataFrame, meters: pl.DataFrame, period: Period = DAY) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    # Collected once, as the site report does: quarter hours and flags both read them.
    marked = mark_edges(steps(readings.lazy(), meters.lazy()), period).collect().lazy()
    return quarters(marked, meters.lazy(), period), flags(marked, period)


def totals(readings: pl.DataFrame, meters: pl.DataFrame, period: Period = DAY) -> tuple[float | None, float, float]:
    """Energy in J, coverage, share estimated, of the only meter."""
    found = by_meter(run(readings, meters, period)[0]).select("joules", "coverage", "share_estimated")
    joules, coverage, share = found.collect().row(0)
    return joules, coverage, share or 0.0


def found(readings: pl.DataFrame, meters: pl.DataFrame) -> list[str]:
    return run(readings, meters)[1].collect()["flag"].to_list()


def test_steady_load_gives_power_times_time() -> None:
    # 500 W for 24 h: 500 * 86400 = 43.2 MJ, 12 kWh.
    assert totals(frame(steady(500)), meter()) == pytest.approx((43.2e6, 1.0, 0.0))


def test_a_day_with_25_hours_counts_all_of_them() -> None:
    period = Period.parse("2026-10-25")
    shift_s = (period.start - DAY.start).total_seconds()
    readings = frame([(at_s + shift_s, joules) for at_s, joules in steady(500, last_s=27 * HOUR)])
    assert totals(readings, meter(), period) == pytest.approx((500 * 25 * 3600, 1.0, 0.0))


def test_reset_counts_from_zero_and_is_flagged_and_estimated() -> None:
    # Up to 06:00 the register shows its total; at 06:01 it shows 0 and counts on: the minute of the
    # reset is lost. 500 W * (86400 s - 60 s) = 43.17 MJ.
    readings = [(at_s, joules if at_s <= 6 * HOUR else 500.0 * (at_s - 6 * HOUR - 60)) for at_s, joules in steady(500)]
    joules, coverage, share = totals(frame(readings), meter())
    assert joules == pytest.approx(43.17e6)
    assert coverage == pytest.approx(1.0)
    assert share == 0.0  # what was counted in the reset's own step is 0
    assert found(frame(readings), meter()) == [Flag.RESET]


def test_reset_never_yields_negative_energy_and_keeps_what_was_counted_since() -> None:
    # 100 kWh before, 0.2 kWh after: the step is worth 0.2 kWh = 720 kJ, all of it estimated.
    readings = frame([(0, 3.6e8), (60, 3.6e8), (120, 7.2e5), (180, 7.2e5)])
    joules, _, share = totals(readings, meter())
    assert joules == pytest.approx(7.2e5)
    assert share == pytest.approx(1.0)


def test_rollover_adds_the_modulus() -> None:
    # A six-digit kWh register: 999 999 kWh, then 1 kWh: 2 kWh = 7.2 MJ, and measured.
    modulus = 1_000_000 * 3.6e6
    readings = frame([(0, 999_999 * 3.6e6), (60, 1 * 3.6e6), (120, 1 * 3.6e6)])
    joules, _, share = totals(readings, meter(modulus_joules=modulus))
    assert (joules, share) == pytest.approx((7.2e6, 0.0))
    assert found(readings, meter(modulus_joules=modulus)) == [Flag.ROLLOVER]


def test_fall_from_the_middle_of_a_register_is_a_reset_even_with_a_modulus() -> None:
    readings = frame([(0, 500_000 * 3.6e6), (60, 1 * 3.6e6)])
    assert found(readings, meter(modulus_joules=1_000_000 * 3.6e6)) == [Flag.RESET]


def test_gap_keeps_the_energy_and_lowers_the_coverage() -> None:
    # Readings of 06:00:00 to 08:24:00 are missing: one step from 05:59 to 08:25 = 8760 s, of which
    # 3 * 60 s count as observed. Coverage = (86400 - 8760 + 180) / 86400 = 0.900694.
    readings = frame(without(steady(500), 6 * HOUR, 6 * HOUR + 8640))
    joules, coverage, share = totals(readings, meter())
    assert joules == pytest.approx(43.2e6)
    assert coverage == pytest.approx((86_400 - 8_760 + 180) / 86_400)
    assert share == 0.0
    assert found(readings, meter()) == [Flag.GAP]


def test_gap_of_three_intervals_is_not_a_gap() -> None:
    readings = frame(without(steady(500), 6 * HOUR, 6 * HOUR + 60))  # a step of 180 s
    assert totals(readings, meter())[1] == pytest.approx(1.0)
    assert found(readings, meter()) == []


def test_gap_across_the_bound_is_cut_in_proportion_and_estimated() -> None:
    # One step from 23:50 to 00:20 at 500 W: 20 of its 30 minutes are inside.
    readings = frame(without(steady(500), -599, 1199))
    joules, coverage, share = totals(readings, meter())
    assert joules == pytest.approx(43.2e6)
    assert coverage == pytest.approx((86_400 - 1_200 + 180 * 20 / 30) / 86_400)
    assert share == pytest.approx(1_200 / 86_400)
    assert found(readings, meter()) == [Flag.EDGE]


def test_readings_that_begin_late_leave_the_time_before_unknown() -> None:
    readings = frame(steady(500, first_s=6 * HOUR))
    joules, coverage, _ = totals(readings, meter())
    assert joules == pytest.approx(500 * 18 * 3600)
    assert coverage == pytest.approx(0.75)
    by_quarter = run(readings, meter())[0].collect()
    assert by_quarter["joules"].null_count() == 24  # six hours of quarter hours, absent and not 0


def test_meter_without_readings_has_no_energy_rather_than_zero() -> None:
    assert totals(frame([]), meter()) == (None, 0.0, 0.0)


def test_single_reading_tells_no_energy() -> None:
    assert totals(frame([(HOUR, 1e9)]), meter()) == (None, 0.0, 0.0)


def test_garbage_above_the_rating_is_dropped_and_the_rest_kept() -> None:
    # 2^63 J between two good readings, as a rebooted node has sent.
    spiked = [(at_s, float(1 << 63) if at_s == 6 * HOUR else joules) for at_s, joules in steady(500)]
    assert totals(frame(spiked), meter(ceiling_watts=1000))[0] == pytest.approx(43.2e6)


def test_jump_above_the_rating_is_not_counted_and_flagged() -> None:
    # At 06:01 the register jumps by 1 GJ for good: that step's energy is not known.
    jumped = [(at_s, joules + 1e9 * (at_s > 6 * HOUR)) for at_s, joules in steady(500)]
    joules, coverage, _ = totals(frame(jumped), meter(ceiling_watts=1000))
    assert joules == pytest.approx(43.2e6 - 500 * 60)
    assert coverage == pytest.approx((86_400 - 60) / 86_400)
    assert found(frame(jumped), meter(ceiling_watts=1000)) == [Flag.IMPLAUSIBLE]


def test_bad_readings_are_not_used_and_estimated_ones_are_marked() -> None:
    bad = pl.concat([frame(steady(500)), frame([(6 * HOUR + 30, 0.0)], quality=4)])
    assert totals(bad, meter()) == pytest.approx((43.2e6, 1.0, 0.0))
    assert totals(frame(steady(500), quality=3), meter())[2] == pytest.approx(1.0)


def test_interval_is_taken_from_the_readings_when_it_is_not_declared() -> None:
    readings = frame(without(steady(500), 6 * HOUR, 6 * HOUR + 8640))
    assert totals(readings, meter(interval_s=None)) == totals(readings, meter())


def test_sum_of_a_role_is_absent_while_one_of_its_meters_is() -> None:
    readings = pl.concat([frame(steady(500)), frame(steady(300, first_s=12 * HOUR), resource=2)])
    meters = pl.concat([meter(), meter(resource=2)])
    roles = pl.LazyFrame({"resource": [1, 2], "role": ["it", "it"]}, schema={"resource": pl.UInt64, "role": pl.String})
    rows = side_by_side(by_role(run(readings, meters)[0], roles), ["it", "site"]).collect()
    assert rows["it_joules"].to_list() == [None] * 48 + [pytest.approx(800 * 900)] * 48
    assert rows["it_observed_s"].to_list() == [0.0] * 48 + [pytest.approx(900.0)] * 48
    assert rows["site_joules"].null_count() == 96


def test_frame_of_other_types_is_refused() -> None:
    with pytest.raises(TypeError, match="register_joules"):
        steps(frame([]).lazy().cast({"register_joules": pl.Int64}), meter().lazy())


# Increments of a register read every seven minutes from 07:00, so that readings and quarter hours do not coincide.
INCREMENTS = st.lists(st.integers(0, 5_000_000), min_size=2, max_size=200)
# Every example runs the whole ledger.
FEW = settings(deadline=None, max_examples=40)
DROPPED = st.sets(st.integers(1, 198), max_size=120)


def walk(increments: list[int], resets: Set[int] = frozenset()) -> list[Reading]:
    level, readings = 10_000_000_000, list[Reading]()
    for index, increment in enumerate(increments):
        level = increment if index in resets else level + increment
        readings.append((float(7 * HOUR + 420 * index), float(level)))
    return readings


@FEW
@given(INCREMENTS, st.sets(st.integers(1, 198), max_size=3))
def test_two_halves_of_a_period_add_up(increments: list[int], resets: set[int]) -> None:
    readings, meters = frame(walk(increments, resets)), meter(interval_s=420)
    middle = DAY.start + timedelta(hours=13)
    whole = totals(readings, meters)[0] or 0.0
    parts = [part_of(DAY.start, middle), part_of(middle, DAY.end)]
    assert sum(totals(readings, meters, part)[0] or 0.0 for part in parts) == pytest.approx(whole, abs=1e-3)


@FEW
@given(INCREMENTS, st.randoms(use_true_random=False), st.sets(st.integers(1, 198), max_size=3))
def test_order_and_repeats_of_rows_change_nothing(increments: list[int], random: Random, resets: set[int]) -> None:
    readings = walk(increments, resets)
    muddled = [*readings, *readings[: len(readings) // 2]]
    random.shuffle(muddled)
    assert totals(frame(muddled), meter()) == pytest.approx(totals(frame(readings), meter()))


@FEW
@given(INCREMENTS, DROPPED)
def test_missing_rows_never_raise_the_coverage_nor_change_energy_between_those_left(
    increments: list[int], dropped: set[int]
) -> None:
    readings = walk(increments)
    last = len(readings) - 1
    left = [reading for index, reading in enumerate(readings) if index not in dropped or index == last]
    joules, coverage, _ = totals(frame(readings), meter(interval_s=420))
    joules_left, coverage_left, _ = totals(frame(left), meter(interval_s=420))
    assert coverage_left <= coverage + 1e-9
    # The last readings may lie beyond the day: the energy at its end is then interpolated.
    if 7 * HOUR + 420 * last <= DAY.seconds:
        assert joules_left == pytest.approx(joules, abs=1e-3)


@FEW
@given(INCREMENTS, st.sets(st.integers(1, 198), max_size=5))
def test_energy_is_never_negative(increments: list[int], resets: set[int]) -> None:
    by_quarter = run(frame(walk(increments, resets)), meter())[0].collect()
    assert (by_quarter["joules"].drop_nulls() >= -1e-6).all()


def part_of(start: datetime, end: datetime) -> Period:
    return Period("part", DAY.span, DAY.zone, start, end)
