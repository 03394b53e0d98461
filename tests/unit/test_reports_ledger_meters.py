"""The ledger's meters: exchanged ones, and registers too coarse for short periods."""

from collections.abc import Sequence
from datetime import timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.ledger import EXCHANGES, SERIALS, Flag, by_meter, exchanges_of, flags, mark_edges, quarters, steps
from reports.period import Period
from tests.unit.test_reports_ledger import (
    DAY,
    HOUR,
    INCREMENTS,
    Reading,
    found,
    frame,
    meter,
    part_of,
    run,
    steady,
    totals,
    walk,
)

WATTS = 5_000.0
WHOLE_DAY = WATTS * 86_400
SIX = 6 * HOUR


def exchange(at_s: float, *, start: float | None = None, final: float | None = None) -> pl.DataFrame:
    time = (DAY.start + timedelta(seconds=at_s)).replace(tzinfo=None)
    plain = {**EXCHANGES, "time": pl.Datetime("ms")}
    rows = pl.DataFrame([(1, time, start, final)], schema=plain, orient="row")
    return rows.with_columns(pl.col("time").dt.replace_time_zone("UTC"))


def exchanged(start_joules: float, *, at_s: float = SIX) -> list[Reading]:
    """At `at_s` + 30 s another meter took over, which showed `start_joules` then."""
    return [
        (time, joules if time <= at_s else start_joules + WATTS * (time - at_s - 30)) for time, joules in steady(WATTS)
    ]


def ledger_of(
    readings: pl.DataFrame, exchanges: pl.DataFrame, *, ceiling_watts: float | None = None, period: Period = DAY
) -> tuple[float, float, float, list[str]]:
    """J, coverage, share estimated, flags."""
    meters = meter(ceiling_watts=ceiling_watts).lazy()
    marked = mark_edges(steps(readings.lazy(), meters, exchanges.lazy()), period).collect().lazy()
    total = by_meter(quarters(marked, meters, period)).collect()
    row = total.select("joules", "coverage", pl.col("share_estimated").fill_null(0.0)).row(0)
    return (*row, flags(marked, period).collect()["flag"].to_list())


OLD_AT_EXCHANGE = 1e9 + WATTS * (SIX + HOUR + 30)


@pytest.mark.parametrize("start", [0.0, 7e8, 9e12])
def test_exchange_with_both_registers_written_down_loses_nothing(start: float) -> None:
    change = exchange(SIX + 30, start=start, final=OLD_AT_EXCHANGE)
    joules, coverage, share, told = ledger_of(frame(exchanged(start)), change, ceiling_watts=2 * WATTS)
    assert (joules, coverage, share) == pytest.approx((WHOLE_DAY, 1.0, 0.0))
    assert told == [Flag.EXCHANGED]


@pytest.mark.parametrize("start", [0.0, 9e12])
def test_exchange_with_only_the_new_register_loses_the_last_of_the_old_one(start: float) -> None:
    # The half minute before the exchange was in nobody's book; the half minute after is estimated.
    joules, _, share, told = ledger_of(frame(exchanged(start)), exchange(SIX + 30, start=start))
    assert joules == pytest.approx(WHOLE_DAY - 30 * WATTS)
    assert share == pytest.approx(30 * WATTS / joules)
    assert told == [Flag.EXCHANGED]


@pytest.mark.parametrize("start", [0.0, 9e12])
def test_exchange_without_any_register_is_neither_a_fall_nor_a_jump(start: float) -> None:
    joules, coverage, share, told = ledger_of(frame(exchanged(start)), exchange(SIX + 30))
    assert joules == pytest.approx(WHOLE_DAY - 60 * WATTS)
    assert coverage == pytest.approx((86_400 - 60) / 86_400)
    assert (share, told) == (0.0, [Flag.EXCHANGED])


def test_quarter_hour_of_an_exchange_without_any_register_is_not_wholly_known() -> None:
    change = exchange(SIX + 30).lazy()
    marked = steps(frame(exchanged(0.0)).lazy(), meter().lazy(), change)
    by_quarter = quarters(marked, meter().lazy(), DAY).collect()
    assert by_quarter.filter(~pl.col("whole"))["time"].to_list() == [DAY.start + timedelta(seconds=SIX)]


def test_exchange_without_any_register_is_filled_from_power() -> None:
    joules, _, share, told = ledger_of(frame(exchanged(9e12), watts=WATTS), exchange(SIX + 30))
    assert joules == pytest.approx(WHOLE_DAY)
    assert share == pytest.approx(60 * WATTS / WHOLE_DAY)
    assert told == [Flag.EXCHANGED]


@pytest.mark.parametrize("start", [0.0, 9e12])
@pytest.mark.parametrize("away_s", [-600, 600])
def test_exchange_that_is_stamped_minutes_off_is_still_found(start: float, away_s: float) -> None:
    change = exchange(SIX + 30 + away_s, start=start, final=OLD_AT_EXCHANGE)
    joules, _, share, told = ledger_of(frame(exchanged(start)), change, ceiling_watts=2 * WATTS)
    assert (joules, share) == pytest.approx((WHOLE_DAY, 0.0))
    assert told == [Flag.EXCHANGED]


def test_fall_an_hour_from_the_exchange_stays_a_reset() -> None:
    told = ledger_of(frame(exchanged(0.0)), exchange(SIX + HOUR, start=0.0))[3]
    assert sorted(told) == sorted([Flag.RESET, Flag.EXCHANGED])


@pytest.mark.parametrize(("start", "final"), [(8e12, OLD_AT_EXCHANGE), (0.0, 1.0)])
def test_registers_that_cannot_be_are_not_believed(start: float, final: float) -> None:
    # A start above what the new meter shows, a final below what the old one had shown.
    joules, _, _, told = ledger_of(frame(exchanged(0.0)), exchange(SIX + 30, start=start, final=final))
    assert joules == pytest.approx(WHOLE_DAY - 60 * WATTS)
    assert told == [Flag.EXCHANGED]


def test_exchange_before_the_first_and_after_the_last_reading_changes_nothing() -> None:
    for at_s in (-3 * HOUR, 30 * HOUR):
        joules, coverage, share, told = ledger_of(frame(steady(WATTS)), exchange(at_s))
        assert (joules, coverage, share) == pytest.approx((WHOLE_DAY, 1.0, 0.0))
        assert told == []


def serials(history: Sequence[tuple[int, float, str | None]], *, source: int = 9) -> pl.LazyFrame:
    rows = [
        (resource, source, (DAY.start + timedelta(seconds=at_s)).replace(tzinfo=None), serial, 5.0, 7.0)
        for resource, at_s, serial in history
    ]
    plain = {**SERIALS, "valid_from": pl.Datetime("ms")}
    told = pl.DataFrame(rows, schema=plain, orient="row")
    return told.with_columns(pl.col("valid_from").dt.replace_time_zone("UTC")).lazy()


def test_each_change_of_a_serial_is_an_exchange() -> None:
    history = [(1, 3600, "B"), (1, 0, "A"), (1, 1800, "A"), (1, 2700, None), (1, 2800, ""), (2, 0, "C"), (1, 3600, "B")]
    found_changes = exchanges_of(serials(history)).collect()
    assert dict(found_changes.schema) == dict(EXCHANGES)
    assert found_changes.rows() == [(1, DAY.start + timedelta(hours=1), 5.0, 7.0)]


def test_two_sources_that_write_a_serial_differently_are_no_exchange() -> None:
    one, other = serials([(1, 0, "A-1"), (1, 3600, "A-1")]), serials([(1, 1800, "A1"), (1, 5400, "A1")], source=8)
    assert exchanges_of(pl.concat([one, other])).collect().is_empty()


def test_exchange_that_is_told_twice_counts_once_with_what_was_written_down() -> None:
    told_twice = pl.concat([exchange(SIX + 30, start=0.0, final=OLD_AT_EXCHANGE), exchange(SIX + 200)])
    joules, _, share, told = ledger_of(frame(exchanged(0.0)), told_twice)
    assert (joules, share) == pytest.approx((WHOLE_DAY, 0.0))
    assert told == [Flag.EXCHANGED]


@pytest.mark.parametrize("nonsense", [float("nan"), float("inf"), -1.0])
def test_amounts_that_are_none_are_as_if_not_stated(nonsense: float) -> None:
    meters = meter(modulus_joules=nonsense, ceiling_watts=nonsense, interval_s=nonsense)
    odd = meters.with_columns(resolution_joules=pl.lit(nonsense), frozen_above_watts=pl.lit(nonsense))
    change = exchange(SIX + 30, start=nonsense, final=nonsense)
    readings = frame(exchanged(0.0), watts=WATTS).lazy()
    found_steps = steps(readings, odd.lazy(), change.lazy()).collect()
    bare = meter(interval_s=None).lazy()
    assert found_steps.equals(steps(readings, bare, exchange(SIX + 30).lazy()).collect())


def test_rating_of_zero_is_none() -> None:
    zeros = meter(modulus_joules=0.0, ceiling_watts=0.0, interval_s=0.0).with_columns(resolution_joules=pl.lit(0.0))
    assert totals(frame(steady(WATTS)), zeros) == pytest.approx((WHOLE_DAY, 1.0, 0.0))


def test_register_above_its_stated_modulus_is_reset_and_not_negative() -> None:
    readings = frame([(0, 5e9), (60, 1e3), (120, 1e3)])
    joules, _, _ = totals(readings, meter(modulus_joules=1e9))
    assert joules == pytest.approx(1e3)
    assert found(readings, meter(modulus_joules=1e9)) == [Flag.RESET]


def test_register_below_zero_is_no_reading() -> None:
    spoiled = pl.concat([frame(steady(WATTS)), frame([(SIX + 30, -5e9)])])
    assert totals(spoiled, meter()) == pytest.approx((WHOLE_DAY, 1.0, 0.0))


def test_serials_that_flap_never_make_energy() -> None:
    flapping = exchanges_of(serials([(1, at_s, "AB"[at_s // 60 % 2]) for at_s in range(0, 3600, 60)])).collect()
    bare = flapping.with_columns(start_joules=pl.lit(None, pl.Float64))
    joules, _, _, told = ledger_of(frame(steady(WATTS)), bare)
    assert joules <= WHOLE_DAY + 1e-3
    assert set(told) == {Flag.EXCHANGED}


@settings(deadline=None, max_examples=20)
@given(INCREMENTS, st.integers(0, 1400), st.none() | st.floats(0, 2e10), st.none() | st.floats(0, 2e10))
def test_no_exchange_makes_energy_negative_or_moves_it_between_halves(
    increments: list[int], minute: int, start: float | None, final: float | None
) -> None:
    readings, change = frame(walk(increments)), exchange(60 * minute, start=start, final=final)
    middle = DAY.start + timedelta(hours=13)
    whole = ledger_of(readings, change)[0] or 0.0
    parts = [part_of(DAY.start, middle), part_of(middle, DAY.end)]
    assert sum(ledger_of(readings, change, period=part)[0] or 0.0 for part in parts) == pytest.approx(whole, abs=1e-3)
    marked = steps(readings.lazy(), meter().lazy(), change.lazy())
    assert (marked.collect()["joules"] >= 0).all()


def with_resolution(resolution: float, *, ceiling_watts: float | None = None) -> pl.DataFrame:
    return meter(ceiling_watts=ceiling_watts).with_columns(resolution_joules=pl.lit(resolution))


def test_quantisation_is_that_of_two_rounded_readings_however_long_the_period() -> None:
    # A float32 register at 1e11 Wh resolves 8192 Wh = 29.49 MJ: sqrt(2) * 29.49 MJ / sqrt(12) = 12.04 MJ.
    resolution = 8192 * 3600.0
    by_quarter = run(frame(steady(1e6)), with_resolution(resolution))[0].collect()
    assert by_quarter["quantisation_joules"].unique().to_list() == [pytest.approx(resolution / 6**0.5)]
    assert resolution / 6**0.5 == pytest.approx(12.04e6, rel=1e-3)
    assert by_meter(by_quarter.lazy()).collect()["quantisation_joules"].item() == pytest.approx(resolution / 6**0.5)


def test_quantisation_is_absent_where_no_resolution_is_declared() -> None:
    assert run(frame(steady(1e6)), meter())[0].collect()["quantisation_joules"].null_count() == 96


@pytest.mark.parametrize(("watts", "coarse"), [(1e6, True), (2e6, False)])
def test_register_is_coarse_when_a_quarter_hour_cannot_be_told_to_one_percent(watts: float, *, coarse: bool) -> None:
    # 10 kWh steps: 14.7 MJ. A quarter hour of 1 MW is 900 MJ, 1.6 %; of 2 MW 1800 MJ, 0.8 %.
    resolution = 36e6
    rounded = [(at_s, joules // resolution * resolution) for at_s, joules in steady(watts)]
    assert found(frame(rounded), with_resolution(resolution)) == [Flag.COARSE] * coarse


def test_energy_of_a_coarse_register_is_within_twice_its_stated_uncertainty() -> None:
    resolution, watts = 36e6, 333_333.0
    rounded = [(at_s, joules // resolution * resolution) for at_s, joules in steady(watts)]
    by_quarter = run(frame(rounded), with_resolution(resolution))[0].collect()
    apart = (by_quarter["joules"] - watts * 900).abs()
    # The difference of two roundings lies within one resolution, which is sqrt(6) of these.
    assert (apart <= 6**0.5 * by_quarter["quantisation_joules"]).all()
    share = (apart <= 2 * by_quarter["quantisation_joules"]).mean()
    assert isinstance(share, float)
    assert share > 0.95


def test_step_of_a_coarse_register_is_not_taken_for_garbage() -> None:
    # 1 MWh at once in a minute is 60 MW; the meter is rated at 5 MW and moves so every 12 minutes.
    resolution = 3.6e9
    rounded = [(at_s, joules // resolution * resolution) for at_s, joules in steady(5e6)]
    assert totals(frame(rounded), with_resolution(resolution, ceiling_watts=10e6))[0] == pytest.approx(
        5e6 * 86_400, abs=resolution
    )
    assert Flag.IMPLAUSIBLE not in found(frame(rounded), with_resolution(resolution, ceiling_watts=10e6))
