"""The ledger with power beside the registers: frozen registers, disagreement, and meters that give power only."""

from collections.abc import Sequence
from datetime import timedelta
from random import Random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.ledger import READINGS, Flag, Sampling, by_meter, flags, mark_edges, quarters, steps
from reports.period import Period
from tests.unit.test_reports_ledger import (
    DAY,
    HOUR,
    MINUTE_S,
    Reading,
    found,
    frame,
    meter,
    part_of,
    run,
    steady,
    totals,
    without,
)

WATTS = 5_000.0
WHOLE_DAY = WATTS * 86_400  # 432 MJ


def still(readings: Sequence[Reading], first_s: float, last_s: float, *, loses: bool) -> list[Reading]:
    """The register stands from `first_s` to `last_s`; then it goes on from there, or shows all that it counted."""
    level = dict(readings)
    lost = level[last_s] - level[first_s] if loses else 0.0
    return [
        (at_s, level[first_s] if first_s <= at_s <= last_s else joules - lost * (at_s > last_s))
        for at_s, joules in readings
    ]


def of_power(points: Sequence[tuple[float, float]]) -> pl.DataFrame:
    """Readings of a meter without a register: (seconds after the day's start, watts)."""
    rows = frame([(at_s, 0.0) for at_s, _ in points])
    return rows.with_columns(
        register_joules=pl.lit(None, pl.Float64),
        power_watts=pl.Series([watts for _, watts in points], dtype=pl.Float64),
    )


def test_frozen_register_gives_way_to_power_which_is_an_estimate() -> None:
    # From 06:00 to 08:00 the register stands, then it counts on: 2 h * 5 kW = 36 MJ are not in it.
    readings = frame(still(steady(WATTS), 6 * HOUR, 8 * HOUR, loses=True), watts=WATTS)
    joules, coverage, share = totals(readings, meter())
    assert joules == pytest.approx(WHOLE_DAY)
    assert coverage == pytest.approx((86_400 - 7_200) / 86_400)
    assert share == pytest.approx(36e6 / WHOLE_DAY)


def test_a_freeze_is_told_once_with_its_time_and_energy() -> None:
    readings = frame(still(steady(WATTS), 6 * HOUR, 8 * HOUR, loses=True), watts=WATTS)
    told = run(readings, meter())[1].collect()
    assert told["flag"].to_list() == [Flag.FROZEN]
    assert told["start"].item() == DAY.start + timedelta(hours=6)
    assert told["time"].item() == DAY.start + timedelta(hours=8)
    assert told["joules"].item() == pytest.approx(36e6)


@pytest.mark.parametrize("ceiling_watts", [None, 2 * WATTS])
def test_register_that_catches_up_keeps_its_energy_spread_over_the_time_it_stood(
    ceiling_watts: float | None,
) -> None:
    # The minute after the freeze shows 2 h 1 min of energy: alone it would be far above the ceiling.
    readings = frame(still(steady(WATTS), 6 * HOUR, 8 * HOUR, loses=False), watts=WATTS)
    watched = meter(ceiling_watts=ceiling_watts)
    joules, coverage, share = totals(readings, watched)
    assert (joules, share) == pytest.approx((WHOLE_DAY, 0.0))
    assert coverage == pytest.approx((86_400 - 7_200) / 86_400)
    assert found(readings, watched) == [Flag.FROZEN]
    by_quarter = run(readings, watched)[0].collect()
    assert by_quarter["joules"].to_list() == pytest.approx([WATTS * 900] * 96)


def test_register_that_catches_up_wins_over_its_power() -> None:
    # Power reads 1 % low; the energy of the stand is the register's all the same.
    readings = frame(still(steady(WATTS), 6 * HOUR, 8 * HOUR, loses=False), watts=0.99 * WATTS)
    assert totals(readings, meter())[0] == pytest.approx(WHOLE_DAY)


def test_register_that_catches_up_is_spread_evenly_also_where_power_was_silent() -> None:
    # Power is known for only the first half hour of the two: enough to tell that the register is frozen.
    half_past = DAY.start + timedelta(hours=6, minutes=30)
    silent = pl.col("time").is_between(half_past, DAY.start + timedelta(hours=8), closed="none")
    readings = frame(still(steady(WATTS), 6 * HOUR, 8 * HOUR, loses=False), watts=WATTS).with_columns(
        power_watts=pl.when(~silent).then("power_watts")
    )
    by_quarter = run(readings, meter(ceiling_watts=2 * WATTS))[0].collect()
    assert by_quarter["joules"].to_list() == pytest.approx([WATTS * 900] * 96)


def test_garbage_after_a_freeze_is_not_what_the_register_missed() -> None:
    # After two hours the register leaps by 1 TJ for good; 2 h at a ceiling of 10 kW allow 72 MJ.
    frozen = still(steady(WATTS), 6 * HOUR, 8 * HOUR, loses=True)
    readings = frame([(at_s, joules + 1e12 * (at_s > 8 * HOUR)) for at_s, joules in frozen], watts=WATTS)
    watched = meter(ceiling_watts=2 * WATTS)
    joules, _, share = totals(readings, watched)
    assert joules == pytest.approx(WHOLE_DAY)
    assert share == pytest.approx((36e6 + 60 * WATTS) / WHOLE_DAY)
    assert found(readings, watched) == [Flag.FROZEN, Flag.IMPLAUSIBLE]


def test_freeze_that_lasts_to_the_end_is_filled_from_power() -> None:
    readings = frame(still(steady(WATTS), 18 * HOUR, 25 * HOUR - MINUTE_S, loses=True), watts=WATTS)
    joules, coverage, share = totals(readings, meter())
    assert (joules, coverage, share) == pytest.approx((WHOLE_DAY, 0.75, 0.25))


@pytest.mark.parametrize(
    ("minutes", "watts"),
    [
        (15, WATTS),  # not longer than a quarter hour
        (120, 900.0),  # less than an unrated meter's threshold of 1 kW
        (120, 0.0),  # nothing flows
    ],
)
def test_register_that_may_stand_is_not_frozen(minutes: int, watts: float) -> None:
    readings = frame(still(steady(WATTS), 6 * HOUR, 6 * HOUR + minutes * 60, loses=True), watts=watts)
    assert Flag.FROZEN not in found(readings, meter())
    assert totals(readings, meter())[0] == pytest.approx(WHOLE_DAY - WATTS * minutes * 60)


def test_meter_states_its_own_threshold() -> None:
    readings = frame(still(steady(50), 6 * HOUR, 8 * HOUR, loses=True), watts=50.0)
    assert found(readings, meter().with_columns(frozen_above_watts=pl.lit(40.0))) == [Flag.FROZEN]


def test_power_during_only_part_of_a_stand_is_all_that_is_booked() -> None:
    # Idle from 06:00, 5 kW again from 07:30, register still until 08:00: half an hour, 9 MJ.
    idle = [(at_s, joules - WATTS * min(max(at_s - 6 * HOUR, 0), 5_400)) for at_s, joules in steady(WATTS)]
    seconds = pl.Series([at_s for at_s, _ in idle])
    watts = pl.when(seconds.is_between(6 * HOUR, 7.5 * HOUR, closed="none")).then(0.0).otherwise(WATTS)
    readings = frame(still(idle, 6 * HOUR, 8 * HOUR, loses=True)).with_columns(power_watts=watts)
    joules, coverage, share = totals(readings, meter())
    # The trapezoids at both ends of the idle time add half a minute of 5 kW each.
    assert joules == pytest.approx(WHOLE_DAY - WATTS * 5_400 + WATTS * 60)
    assert share == pytest.approx((9e6 + WATTS * 60) / (joules or 1))
    # While nothing flows, a register that stands is right.
    assert coverage == pytest.approx((86_400 - 1_800 - 2 * 60) / 86_400)


def test_stand_of_a_coarse_register_is_no_freeze() -> None:
    # 1 MWh steps at 100 kW: it moves every ten hours.
    resolution = 3.6e9
    coarse = [(at_s, joules // resolution * resolution) for at_s, joules in steady(100e3)]
    readings = frame(coarse, watts=100e3)
    watched = meter(ceiling_watts=200e3).with_columns(resolution_joules=pl.lit(resolution))
    assert set(found(readings, watched)) <= {Flag.COARSE, Flag.DISAGREES}
    # From -01:00 to 24:00 100 kW count 9 GJ: three steps from 1 GJ (0) to 10 GJ (2), one before 00:00 at most.
    assert totals(readings, watched)[0] in (pytest.approx(2 * resolution), pytest.approx(3 * resolution))


def test_undeclared_resolution_is_taken_from_the_register_itself() -> None:
    # 10 kWh steps at 10 kW, one an hour: unchanged for an hour at a time, ceiling 20 kW * 60 s = 1.2 MJ.
    coarse = [(at_s, joules // 36e6 * 36e6) for at_s, joules in steady(10e3)]
    assert found(frame(coarse, watts=10e3), meter(ceiling_watts=20e3)) == []
    assert totals(frame(coarse, watts=10e3), meter(ceiling_watts=20e3))[0] == pytest.approx(24 * 36e6)


@pytest.mark.parametrize(("factor", "told"), [(1.03, True), (0.97, True), (1.019, False), (0.981, False)])
def test_register_and_power_that_disagree_by_more_than_two_percent_are_told(factor: float, *, told: bool) -> None:
    readings = frame(steady(WATTS), watts=factor * WATTS)
    events = run(readings, meter())[1].collect()
    assert events["flag"].to_list() == [Flag.DISAGREES] * told
    assert totals(readings, meter()) == pytest.approx((WHOLE_DAY, 1.0, 0.0))
    if told:
        assert events["joules"].item() == pytest.approx((1 - factor) * WHOLE_DAY, rel=2e-3)


def test_disagreement_is_judged_by_the_days_of_the_site() -> None:
    october = Period.parse("2026-10")
    # The day of DAY reads 10 % high, all others agree.
    last_s = 3 * 86_400
    rows = frame(steady(WATTS, first_s=-3 * 86_400, last_s=last_s), watts=WATTS)
    odd = pl.col("time").is_between(DAY.start, DAY.end, closed="left")
    readings = rows.with_columns(power_watts=pl.when(odd).then(1.1 * WATTS).otherwise("power_watts"))
    events = flags(mark_edges(steps(readings.lazy(), meter().lazy()), october), october).collect()
    assert events["start"].to_list() == [DAY.start]


def test_meter_without_register_is_integrated_by_trapezoids() -> None:
    # A ramp from 0 W at 00:00 by 1 W/s: 86400^2 / 2 J, exactly.
    readings = of_power([(at_s, float(at_s)) for at_s in range(0, 86_401, MINUTE_S)])
    joules, coverage, share = totals(readings, meter())
    assert (joules, coverage, share) == pytest.approx((86_400**2 / 2, 1.0, 0.0))
    assert by_meter(run(readings, meter())[0]).collect()["share_integrated"].item() == pytest.approx(1.0)


def test_gap_in_power_is_missing_and_its_filling_is_kept_apart() -> None:
    # 06:00 to 09:00 without readings: 3 h * 5 kW = 54 MJ are not booked.
    points = [(at_s, WATTS) for at_s in range(0, 86_401, MINUTE_S) if not 6 * HOUR < at_s < 9 * HOUR]
    readings = of_power(points)
    joules, coverage, share = totals(readings, meter())
    assert (joules, coverage, share) == pytest.approx((WHOLE_DAY - 54e6, 0.875, 0.0))
    assert by_meter(run(readings, meter())[0]).collect()["fill_joules"].item() == pytest.approx(54e6)
    assert found(readings, meter()) == [Flag.MISSING]
    by_quarter = run(readings, meter())[0].collect()
    assert by_quarter["joules"].null_count() == 12


def test_point_published_on_change_holds_for_five_minutes_and_no_longer() -> None:
    # 1 kW at 00:00, 3 kW at 00:04, 2 kW at 00:20, nothing at 00:30.
    # 1 kW * 240 s + 3 kW * 300 s + 2 kW * 300 s = 1.74 MJ; covered 840 s of the first two quarter hours.
    readings = of_power([(0, 1e3), (240, 3e3), (1_200, 2e3), (1_800, 0.0)])
    watched = meter().with_columns(sampling=pl.lit(Sampling.ON_CHANGE.value))
    by_quarter = run(readings, watched)[0].collect().head(2)
    assert by_quarter["joules"].sum() == pytest.approx(1.74e6)
    assert by_quarter["observed_s"].sum() == pytest.approx(840)
    # The first quarter hour: 240 s of 1 kW and 300 s of 3 kW; then nothing until 00:20.
    assert by_quarter["joules"].to_list() == pytest.approx([1.14e6, 0.6e6])


def test_register_that_falls_silent_is_followed_by_power_as_an_estimate() -> None:
    readings = frame(steady(WATTS), watts=WATTS).with_columns(
        register_joules=pl.when(pl.col("time") <= DAY.start + timedelta(hours=12)).then("register_joules")
    )
    assert totals(readings, meter()) == pytest.approx((WHOLE_DAY, 0.5, 0.5))


def test_declared_register_that_was_never_heard_makes_power_an_estimate() -> None:
    readings = of_power([(at_s, WATTS) for at_s in range(0, 86_401, MINUTE_S)])
    assert totals(readings, meter(modulus_joules=1e12)) == pytest.approx((WHOLE_DAY, 0.0, 1.0))


def test_implausible_step_is_filled_from_power() -> None:
    jumped = [(at_s, joules + 1e9 * (at_s > 6 * HOUR)) for at_s, joules in steady(WATTS)]
    readings = frame(jumped, watts=WATTS)
    joules, coverage, share = totals(readings, meter(ceiling_watts=2 * WATTS))
    assert joules == pytest.approx(WHOLE_DAY)
    assert coverage == pytest.approx((86_400 - 60) / 86_400)
    assert share == pytest.approx(WATTS * 60 / WHOLE_DAY)
    assert found(readings, meter(ceiling_watts=2 * WATTS)) == [Flag.IMPLAUSIBLE]


def test_power_beside_a_sound_register_changes_nothing() -> None:
    readings = without(steady(WATTS), 6 * HOUR, 8 * HOUR)
    plain = run(frame(readings), meter())[0].collect()
    beside = run(frame(readings, watts=WATTS), meter())[0].collect()
    assert beside.equals(plain)


def test_garbage_in_power_is_not_energy() -> None:
    garbage = {10 * 3600: float("nan"), 11 * 3600: float("inf"), 12 * 3600: 1e18, 13 * 3600: -WATTS}
    points = [(at_s, garbage.get(at_s, WATTS)) for at_s in range(0, 86_401, MINUTE_S)]
    joules, coverage, _ = totals(of_power(points), meter(ceiling_watts=2 * WATTS))
    # The first three are left out and bridged; what flows back counts as 0, with half a minute on either side.
    assert joules == pytest.approx(WHOLE_DAY - WATTS * 60)
    assert coverage == pytest.approx(1.0)


def test_power_of_another_type_is_refused() -> None:
    readings = frame(steady(WATTS)).with_columns(power_watts=pl.lit(5, pl.Int64))
    with pytest.raises(TypeError, match="power_watts"):
        steps(readings.lazy(), meter().lazy())


FEWER = settings(deadline=None, max_examples=20)
# Seven-minute readings: an increment of the register, and the power at its end; some register readings stay.
PAIRS = st.lists(st.tuples(st.integers(0, 5_000_000), st.integers(-2_000, 20_000)), min_size=2, max_size=150)
STANDS = st.lists(st.tuples(st.integers(0, 140), st.integers(3, 40)), max_size=3)


def walk(pairs: list[tuple[int, int]], stands: list[tuple[int, int]]) -> pl.DataFrame:
    stood = {index for first, count in stands for index in range(first, first + count)}
    level, rows = 10_000_000_000, list[tuple[float, float]]()
    for index, (increment, _) in enumerate(pairs):
        level += 0 if index in stood else increment
        rows.append((float(7 * HOUR + 420 * index), float(level)))
    watts = pl.Series([float(power) for _, power in pairs], dtype=pl.Float64)
    return frame(rows).with_columns(power_watts=watts)


@FEWER
@given(PAIRS, STANDS)
def test_two_halves_of_a_period_add_up(pairs: list[tuple[int, int]], stands: list[tuple[int, int]]) -> None:
    readings, watched = walk(pairs, stands), meter(interval_s=420)
    middle = DAY.start + timedelta(hours=13)
    whole = totals(readings, watched)[0] or 0.0
    parts = [part_of(DAY.start, middle), part_of(middle, DAY.end)]
    assert sum(totals(readings, watched, part)[0] or 0.0 for part in parts) == pytest.approx(whole, abs=1e-3)


@FEWER
@given(PAIRS, STANDS, st.randoms(use_true_random=False))
def test_order_and_repeats_of_rows_change_nothing(
    pairs: list[tuple[int, int]], stands: list[tuple[int, int]], random: Random
) -> None:
    readings = walk(pairs, stands)
    order = [*range(readings.height), *range(readings.height // 2)]
    random.shuffle(order)
    assert totals(readings[order], meter()) == pytest.approx(totals(readings, meter()))


@pytest.mark.parametrize("has_register", [True, False])
@FEWER
@given(pairs=PAIRS, stands=STANDS)
def test_energy_and_estimates_are_never_negative(
    pairs: list[tuple[int, int]], stands: list[tuple[int, int]], *, has_register: bool
) -> None:
    readings = walk(pairs, stands)
    if not has_register:
        readings = readings.with_columns(register_joules=pl.lit(None, READINGS["register_joules"]))
    by_quarter = quarters(steps(readings.lazy(), meter().lazy()), meter().lazy(), DAY).collect()
    for name in ("joules", "estimated_joules", "integrated_joules", "fill_joules", "observed_s"):
        assert (by_quarter[name].drop_nulls() >= -1e-6).all(), name
    assert (by_quarter["estimated_joules"] <= by_quarter["joules"].fill_null(0.0) + 1e-3).all()
