"""What must hold for every family of efficiency figures: sums, order, and that a missing sensor shows."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.efficiency_definitions import definitions
from reports.efficiency_figures import PARTS, activity, rack_kpi, share_of_seen, throttled
from reports.efficiency_queries import COOLANT_SUMS, coolant_means
from reports.efficiency_racks import RACKS
from reports.figures import Kpi

WORDS = definitions()
START = datetime(2026, 10, 5, tzinfo=UTC)
GPUS, DAY_S = 8, 86_400.0


@st.composite
def day(draw: st.DrawFn) -> dict[str, float]:
    """What a small fleet did in one day, of which a part was seen."""
    seen_s = draw(st.integers(1, round(GPUS * DAY_S)))
    told_s = draw(st.integers(0, seen_s))
    share = st.floats(0, 1)
    causes = ("power_cap", "sync_boost", "software_thermal", "hardware_thermal", "power_brake")
    return {
        "seconds": DAY_S, "gpu_s": GPUS * DAY_S, "seen_s": seen_s, "joules": draw(share) * 1400 * seen_s,
        **{f"{cause}_s": draw(share) * seen_s for cause in causes},
        **{f"{name}_weight": draw(share) * told_s for name in ("sm", "tensor", "dram")},
        **{f"{name}_s": told_s for name in ("sm", "tensor", "dram")},
        "processor_watts": 300.0, "trays": 2,
    }  # fmt: skip


DAYS = st.lists(day(), min_size=1, max_size=6)


def parts(days: list[dict[str, float]]) -> pl.DataFrame:
    rows = [{"time": START + timedelta(days=number), **one} for number, one in enumerate(days)]
    return pl.DataFrame(rows, schema_overrides=dict(PARTS)).select(pl.col(name).cast(of) for name, of in PARTS.items())


def figures(frame: pl.DataFrame) -> list[Kpi]:
    return [
        throttled(WORDS["throttled"], frame),
        share_of_seen(WORDS["power_capped"], frame, ("power_cap",)),
        *(activity(WORDS[key], frame, name) for key, name in (("sm_active", "sm"), ("mfu_proxy", "tensor"))),
    ]


def coverage(kpi: Kpi) -> float:
    return kpi.evidence.coverage if kpi.evidence else 0.0


@settings(max_examples=30, deadline=None)
@given(days=DAYS, seed=st.integers(0, 99))
def test_order_of_days_changes_no_figure(days: list[dict[str, float]], seed: int) -> None:
    told = figures(parts(days))
    again = figures(parts(days).sample(fraction=1, shuffle=True, seed=seed))
    for one, other in zip(told, again, strict=True):
        assert one.value == pytest.approx(other.value)
        assert coverage(one) == pytest.approx(coverage(other))


@settings(max_examples=30, deadline=None)
@given(days=st.lists(day(), min_size=2, max_size=6))
def test_a_figure_of_two_periods_lies_between_theirs(days: list[dict[str, float]]) -> None:
    """Ratios of sums, never means of ratios: what was seen longer weighs more."""
    whole = figures(parts(days))
    pieces = figures(parts(days[:1])), figures(parts(days[1:]))
    for one, first, second in zip(whole, *pieces, strict=True):
        known = [piece.value for piece in (first, second) if piece.value is not None]
        if one.value is not None:
            assert min(known) - 1e-9 <= one.value <= max(known) + 1e-9


@settings(max_examples=30, deadline=None)
@given(days=DAYS, lost=st.floats(0, 1))
def test_missing_readings_lower_the_coverage_and_move_no_ratio(days: list[dict[str, float]], lost: float) -> None:
    """Of each day the same share of everything is lost."""
    fewer = [
        {name: value * (1 - lost) if name.endswith(("_s", "_weight")) and name != "gpu_s" else value
         for name, value in one.items()}
        for one in days
    ]  # fmt: skip
    for one, less in zip(figures(parts(days)), figures(parts(fewer)), strict=True):
        assert coverage(less) <= coverage(one) + 1e-9
        if less.value is not None and one.value is not None:
            assert less.value == pytest.approx(one.value, rel=1e-6, abs=1e-9)


@st.composite
def rack(draw: st.DrawFn) -> dict[str, object]:
    return {"rack": draw(st.integers(1, 2**63)), "name": "", "overflow_ratio": draw(st.floats(-0.5, 2)),
            "approach_kelvin": draw(st.floats(0, 40)), "rise_kelvin": 10.0, "flow_litres_per_minute": 100.0,
            "supply_celsius": 40.0, "heat_kilowatts": 80.0, "heat_assumed": draw(st.booleans()),
            "coverage": draw(st.floats(0, 1))}  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(racks=st.lists(rack(), min_size=1, max_size=8), gone=st.integers(0, 7))
def test_removing_a_racks_sensor_never_raises_confidence(racks: list[dict[str, object]], gone: int) -> None:
    """Without its flow a rack has no figure; without its heat sensor its heat is assumed."""
    whole = pl.DataFrame(racks, schema=dict(RACKS))
    place = pl.int_range(pl.len()) == gone % len(racks)
    without_flow = whole.with_columns(overflow_ratio=pl.when(~place).then("overflow_ratio"))
    without_heat = whole.with_columns(heat_assumed=place | pl.col("heat_assumed"))
    told, less, assumed = (
        rack_kpi(WORDS["overflow"], frame, "overflow_ratio", 100, len(racks))
        for frame in (whole, without_flow, without_heat)
    )
    assert coverage(less) <= coverage(told)
    assert told.evidence is not None
    assert assumed.evidence is not None
    assert assumed.evidence.share_estimated >= told.evidence.share_estimated
    assert assumed.evidence.coverage == told.evidence.coverage


@settings(max_examples=30, deadline=None)
@given(minutes=st.lists(st.tuples(st.integers(1, 1440), st.floats(0.001, 0.01)), min_size=2, max_size=6))
def test_coolant_of_days_is_that_of_all_their_minutes(minutes: list[tuple[int, float]]) -> None:
    rows = [(7, n, n * flow, n * 40.0, n * 50.0, 0.0, 0, n * 8e4, n) for n, flow in minutes]
    (found,) = coolant_means(pl.DataFrame(rows, schema=dict(COOLANT_SUMS), orient="row")).iter_rows(named=True)
    total = sum(n for n, _ in minutes)
    assert found["flow"] == pytest.approx(sum(n * flow for n, flow in minutes) / total)
    assert found["observed_s"] == 60 * total
    assert found["heat_watts"] is None  # a mean of some minutes would stand for all
    assert found["power_watts"] == pytest.approx(8e4)
