"""Capacity by hand: peaks, headroom, halls with racks that move, and commissioning kept out of PUE."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.capacity import (
    PHASES,
    Commissioning,
    Phase,
    boundary_lines,
    hall_lines,
    highest_quarter,
    meter_lines,
    phase_lines,
    with_feeders,
)
from reports.capacity_queries import PLACES, RATINGS
from reports.figures import Peak
from reports.period import QUARTER_S, Period, Span

START = Period.parse("2026-10-05").start
HOUR = Period("hour", Span.DAY, "Europe/Oslo", START, START + timedelta(hours=1))
FOREVER = datetime(2299, 12, 31)  # noqa: DTZ001 - Polars adds the zone
EVER = datetime(1970, 1, 1)  # noqa: DTZ001


def quarters(kilowatts: dict[int, Sequence[float | None]], *, observed_s: float = QUARTER_S) -> pl.DataFrame:
    """One row for each resource and quarter hour of HOUR."""
    rows = [
        (
            resource,
            (START + index * timedelta(minutes=15)).replace(tzinfo=None),
            None if kw is None else kw * 1e3 * QUARTER_S,
            observed_s,
        )
        for resource, values in kilowatts.items()
        for index, kw in enumerate(values)
    ]
    schema: dict[str, pl.DataType] = {"resource": pl.UInt64(), "time": pl.Datetime("ms")}
    schema |= {"joules": pl.Float64(), "observed_s": pl.Float64()}
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(pl.col("time").dt.replace_time_zone("UTC"))


def places(*rows: tuple[int, int, datetime, datetime]) -> pl.DataFrame:
    """Racks: resource, hall, from, to."""
    full = [
        (rack, "rack", f"rack {rack}", hall, hall, f"hall {hall}", since, until) for rack, hall, since, until in rows
    ]
    plain = {name: pl.Datetime("ms") if name in ("start", "end") else kind for name, kind in PLACES.items()}
    frame = pl.DataFrame(full, schema=plain, orient="row")
    return frame.with_columns(pl.col("start", "end").dt.replace_time_zone("UTC"))


def ratings(watts: dict[int, float | None]) -> pl.DataFrame:
    return pl.DataFrame([(r, "rack", w) for r, w in watts.items()], schema=dict(RATINGS), orient="row")


def test_peak_is_the_mean_power_of_the_highest_quarter_hour_and_its_local_time() -> None:
    found = highest_quarter(quarters({1: [100, 250, 240, 250]}), HOUR)
    # The earlier of two equals; 22:15 UTC is a quarter past midnight in Oslo in summer time.
    assert found == Peak(250e3, HOUR.local(START + timedelta(minutes=15)))
    assert f"{found.time:%H:%M}" == "00:15"


def test_quarter_hour_that_a_gap_touches_is_no_peak() -> None:
    spread = quarters({1: [100, 100]})
    gap = quarters({1: [None, None, 900]}, observed_s=880.0).drop_nulls("joules")
    found = highest_quarter(pl.concat([spread, gap]), HOUR)
    assert found is not None
    assert found.watts == pytest.approx(100e3)


def test_nothing_observed_has_no_peak() -> None:
    assert highest_quarter(quarters({1: [None] * 4}), HOUR) is None


def test_phases_in_force_and_planned_have_their_headroom() -> None:
    first, second = phase_lines(PHASES, Peak(200e6, START), HOUR)
    assert (first.in_force, first.headroom_watts) == (True, 30e6)
    assert first.used_share == pytest.approx(200 / 230)
    assert (second.in_force, second.headroom_watts) == (False, 320e6)


def test_phase_without_power_is_refused() -> None:
    with pytest.raises(ValueError, match="phase 3 contracts 0 W"):
        Phase("phase 3", 0)


def test_headroom_of_a_feeder_is_its_rating_less_its_peak_and_absent_without_a_rating() -> None:
    meters = pl.DataFrame(
        {"resource": [1, 2], "name": ["A", "B"], "role": ["it", "site"], "rated_watts": [300e3, None]},
        schema_overrides={"resource": pl.UInt64},
    )
    it, site = meter_lines(meters, quarters({1: [100, 250, 240, 200], 2: [400] * 4}), HOUR)
    assert it.name == "A"
    assert it.headroom_watts == pytest.approx(50e3)
    assert it.coverage == pytest.approx(1.0)
    assert (site.kind, site.headroom_watts) == ("grid feed", None)


def test_meter_without_a_rating_has_that_of_its_feeder() -> None:
    meters = pl.DataFrame(
        {"resource": [1, 2], "name": ["A", "B"], "role": ["it", "it"], "rated_watts": [300e3, None]},
        schema_overrides={"resource": pl.UInt64},
    )
    where = places((1, 5, EVER, FOREVER), (2, 5, EVER, FOREVER))
    rated = with_feeders(meters, where, ratings({5: 400e3}))
    assert rated.sort("resource")["rated_watts"].to_list() == [300e3, 400e3]


def test_hall_adds_up_the_racks_that_stood_there_in_each_quarter_hour() -> None:
    # Rack 2 moves from hall 8 to hall 9 after half an hour.
    moved = (START + timedelta(minutes=30)).replace(tzinfo=None)
    where = places((1, 8, EVER, FOREVER), (2, 8, EVER, moved), (2, 9, moved, FOREVER))
    found = {
        line.name: line
        for line in hall_lines(where, ratings({1: 150e3, 2: 150e3}), quarters({1: [100] * 4, 2: [90] * 4}), HOUR)
    }
    assert found["hall 8"].peak == Peak(190e3, HOUR.local(START))
    # At the end of the period one rack of 150 kW stands in each.
    assert found["hall 8"].headroom_watts == pytest.approx(-40e3)
    assert found["hall 9"].peak == Peak(90e3, HOUR.local(START + timedelta(minutes=30)))
    assert found["hall 9"].coverage == pytest.approx(0.5)


def test_hall_with_a_silent_rack_has_no_peak_and_one_without_a_rating_no_headroom() -> None:
    where = places((1, 8, EVER, FOREVER), (2, 8, EVER, FOREVER))
    (silent,) = hall_lines(where, ratings({1: 150e3, 2: 150e3}), quarters({1: [100] * 4}), HOUR)
    assert (silent.peak, silent.rated_watts) == (None, 300e3)
    (unrated,) = hall_lines(where, ratings({1: 150e3, 2: None}), quarters({1: [100] * 4, 2: [50] * 4}), HOUR)
    assert unrated.peak is not None
    assert unrated.headroom_watts is None


def site_and_it(site: float, it: float) -> pl.DataFrame:
    both = quarters({1: [site] * 4})
    return both.select("time", site_joules="joules", it_joules=pl.lit(it * 1e3 * QUARTER_S))


def commissioned(resource: int, first_min: float, last_min: float, version: str = "v1") -> Commissioning:
    return Commissioning(resource, START + timedelta(minutes=first_min), START + timedelta(minutes=last_min), version)


def test_commissioning_load_leaves_both_terms_of_pue_for_its_time() -> None:
    # Site 1300 kW, IT 1000 kW, of which rack 7 draws 200 kW: for 30 of 60 minutes 0.1 MWh are kept out of both.
    # (1.3 - 0.1) / (1.0 - 0.1) = 1.3333.
    (line,) = boundary_lines(site_and_it(1300, 1000), quarters({7: [200] * 4}), [commissioned(7, 10, 40)], [7], HOUR)
    assert line.excluded_mwh == pytest.approx(0.1)
    assert line.ipue == pytest.approx(1.2 / 0.9)
    assert line.ipue_all == pytest.approx(1.3)


def test_load_bank_outside_it_leaves_only_the_site() -> None:
    (line,) = boundary_lines(site_and_it(1300, 1000), quarters({7: [200] * 4}), [commissioned(7, 0, 60)], [], HOUR)
    assert line.ipue == pytest.approx(1.1)


def test_versions_are_told_apart_and_overlaps_count_once() -> None:
    told = [commissioned(7, 0, 30), commissioned(7, 15, 45), commissioned(7, 0, 15, "v2"), commissioned(7, 0, 15, "v2")]
    one, two = boundary_lines(site_and_it(1300, 1000), quarters({7: [200] * 4}), told, [7], HOUR)
    assert (one.boundary_version, two.boundary_version) == ("v1", "v2")
    assert one.excluded_mwh == pytest.approx(0.15)
    assert two.excluded_mwh == pytest.approx(0.05)


def test_commissioning_of_something_unknown_leaves_a_blank_and_says_so() -> None:
    (line,) = boundary_lines(site_and_it(1300, 1000), quarters({7: [200] * 4}), [commissioned(9, 0, 30)], [9], HOUR)
    assert line.ipue is None
    assert "not known" in line.reason


def test_commissioning_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ValueError, match="give an end after"):
        Commissioning(7, datetime(2026, 10, 5, tzinfo=UTC), datetime(2026, 10, 4, tzinfo=UTC), "v1")


@settings(deadline=None, max_examples=40)
@given(values=st.lists(st.floats(0, 1e4), min_size=4, max_size=4), seed=st.integers(0, 1000))
def test_order_and_repeats_of_rows_change_no_peak(values: list[float], seed: int) -> None:
    rows = quarters({1: values})
    mixed = pl.concat([rows, rows]).sample(fraction=1.0, shuffle=True, seed=seed)
    assert highest_quarter(mixed, HOUR) == highest_quarter(rows, HOUR)


@settings(deadline=None, max_examples=40)
@given(cut=st.integers(1, 59))
def test_commissioning_that_is_split_keeps_out_the_same(cut: int) -> None:
    known = quarters({7: [200, 100, 50, 400]})
    whole = boundary_lines(site_and_it(1300, 1000), known, [commissioned(7, 0, 60)], [7], HOUR)
    parts = [commissioned(7, 0, cut), commissioned(7, cut, 60)]
    (split,) = boundary_lines(site_and_it(1300, 1000), known, parts, [7], HOUR)
    assert split.excluded_mwh == pytest.approx(whole[0].excluded_mwh)
