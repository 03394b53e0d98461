"""The efficiency report's figures, each worked by hand from its definition."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import median

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.accuracy import Accuracy
from reports.efficiency_definitions import definitions
from reports.efficiency_energy import halls, itue, tue
from reports.efficiency_figures import (
    PARTS,
    activity,
    available,
    busy,
    cost_of,
    count_kpi,
    energy_of,
    hourly_prices,
    job_kpis,
    share_of_seen,
    states,
    steps_kpi,
    throttled,
)
from reports.efficiency_hours import HOURS, MEMBERS, Allocation, Health
from reports.efficiency_lemons import NODES, judge_nodes, poisson_tail
from reports.efficiency_power import steps, swings
from reports.efficiency_queries import (
    COMPONENTS,
    COOLANT,
    JOB_ENERGY,
    JOB_WINDOWS,
    PLACES,
    SEGMENTS,
    SITE_POWER,
    WINDOWS,
    Window,
    windows_of,
)
from reports.efficiency_racks import fluid_tables, rack_cooling
from reports.efficiency_reading import part_of
from reports.efficiency_stragglers import deviations, slow_gpus
from reports.figures import Account, Evidence, Kpi, Quality, Role, counted
from reports.period import Period
from reports.render import figure, margin, scientific

WORDS = definitions()
DAY = Period.parse("2026-10-05", "UTC")
START = DAY.start
HOUR_MS = 3_600_000
SURE = Evidence(coverage=1.0, share_estimated=0.0, uncertainty=0.0)
IPUE = Kpi(WORDS["tue"], 1.2, "", SURE)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def hours(*rows: tuple[Health, Allocation, float, float], time: datetime = START) -> pl.DataFrame:
    """Rows of GPU-hours and kWh."""
    told = [(time, h.value, a.value, round(gpu_h * HOUR_MS), kwh * 3.6e6) for h, a, gpu_h, kwh in rows]
    return pl.DataFrame(told, schema=dict(HOURS), orient="row")


FLEET = hours(
    (Health.HEALTHY, Allocation.BUSY, 60, 60.0),
    (Health.HEALTHY, Allocation.IDLE, 10, 1.5),
    (Health.HEALTHY, Allocation.UNALLOCATED, 10, 2.5),
    (Health.DEGRADED, Allocation.BUSY, 5, 4.0),
    (Health.DOWN, Allocation.UNALLOCATED, 4, 0.5),
    (Health.MAINTENANCE, Allocation.UNALLOCATED, 10, 0.0),
    (Health.UNKNOWN, Allocation.HELD, 1, 0.0),
)


def test_availability_leaves_maintenance_out_and_counts_unknown_as_not_available() -> None:
    """(80 + 5) / (100 - 10)."""
    kpi = available(WORDS["available"], FLEET)
    assert kpi.value == pytest.approx(100 * 85 / 90)
    assert kpi.evidence is not None
    assert kpi.evidence.coverage == pytest.approx(0.99)


def test_idle_and_stranded_energy_are_told_apart() -> None:
    idle = energy_of(WORDS["idle_energy"], FLEET, Allocation.IDLE, Accuracy())
    stranded = energy_of(WORDS["stranded_energy"], FLEET, Allocation.UNALLOCATED, Accuracy())
    assert idle.value == pytest.approx(0.0015)
    assert stranded.value == pytest.approx(0.003)
    # A limit of error of 5 % is an expanded uncertainty of 2 x 5 % / sqrt(3).
    assert idle.plus_minus == pytest.approx(0.0015 * 0.1 / math.sqrt(3))
    assert busy(WORDS["busy"], FLEET).value == pytest.approx(65.0)


def test_axis_adds_up_to_all_gpu_hours() -> None:
    lines = states(FLEET, "health", tuple(Health))
    assert [line.name for line in lines] == [state.value for state in Health]
    assert sum(line.gpu_hours for line in lines) == pytest.approx(100)
    assert math.fsum(line.share for line in lines) == pytest.approx(1)


def test_without_readings_or_jobs_figures_are_blank_and_not_zero() -> None:
    unseen = hours((Health.UNKNOWN, Allocation.UNTOLD, 24, 0.0))
    kpis = [
        available(WORDS["available"], unseen),
        busy(WORDS["busy"], unseen),
        energy_of(WORDS["idle_energy"], unseen, Allocation.IDLE, Accuracy()),
        throttled(WORDS["throttled"], pl.DataFrame(schema=dict(PARTS))),
        activity(WORDS["sm_active"], pl.DataFrame(schema=dict(PARTS)), "sm"),
    ]
    assert [kpi.value for kpi in kpis] == [None] * 5
    assert all(kpi.reason and kpi.quality is Quality.BLANK for kpi in kpis)


def prices(*rows: tuple[int, int, float], currency: str = "NOK", zone: str = "NO4") -> pl.DataFrame:
    """Rows of minute of the day, length in minutes, price per MWh."""
    told = [(zone, at(60 * minute), length, price, currency) for minute, length, price in rows]
    columns = ["zone", "start", "duration_minutes", "price_per_mwh", "currency"]
    return pl.DataFrame(told, schema=columns, orient="row")


def test_cost_takes_each_hours_own_price() -> None:
    """2 MWh at 100 and 1 MWh at the mean of 200, 400, 0 and -200: 200 + 100."""
    told = pl.concat([
        hours((Health.HEALTHY, Allocation.IDLE, 2, 2000.0)),
        hours((Health.HEALTHY, Allocation.IDLE, 2, 1000.0), time=at(3600)),
    ])  # fmt: skip
    quarters = [(60 + 15 * n, 15, price) for n, price in enumerate((200.0, 400.0, 0.0, -200.0))]
    kpi = cost_of(WORDS["idle_cost"], told, Allocation.IDLE, prices((0, 60, 100.0), *quarters), Accuracy())
    assert kpi.value == pytest.approx(300.0)
    assert kpi.unit == "NOK"


def test_hour_without_a_whole_price_lowers_coverage_and_is_said() -> None:
    told = pl.concat([
        hours((Health.HEALTHY, Allocation.IDLE, 2, 3000.0)),
        hours((Health.HEALTHY, Allocation.IDLE, 2, 1000.0), time=at(3600)),
    ])  # fmt: skip
    kpi = cost_of(WORDS["idle_cost"], told, Allocation.IDLE, prices((0, 60, 100.0), (60, 15, 50.0)), Accuracy())
    assert kpi.value == pytest.approx(300.0)
    assert kpi.evidence is not None
    assert kpi.evidence.coverage == pytest.approx(0.75)
    assert kpi.note == "1 hours have no price."
    assert hourly_prices(prices((60, 15, 50.0))).is_empty()


def test_prices_of_two_currencies_give_no_cost() -> None:
    mixed = pl.concat([prices((0, 60, 1.0)), prices((0, 60, 1.0), currency="EUR")])
    kpi = cost_of(WORDS["idle_cost"], FLEET, Allocation.IDLE, mixed, Accuracy())
    assert (kpi.value, "currencies" in kpi.reason) == (None, True)
    assert cost_of(WORDS["idle_cost"], FLEET, Allocation.IDLE, None, Accuracy()).value is None


# The fleet in one window


def segment(gpu: int, start_s: float, end_s: float, **values: float) -> dict[str, object]:
    zero = {name: 0 for name in SEGMENTS if name not in ("resource", "start", "end")}
    return {**zero, "resource": gpu, "start": at(start_s), "end": at(end_s), "activity": 2, **values}


def test_activity_is_weighted_by_time_and_not_by_readings() -> None:
    """An agent that reads ten times as often weighs no more: (0.2 x 300 + 0.8 x 300) / 600."""
    told = pl.DataFrame(
        [
            segment(1, 0, 300, sm_sum=0.2, sm_count=1, power_cap_s=60, hardware_thermal_s=30),
            segment(2, 0, 300, sm_sum=8.0, sm_count=10),
        ],
        schema=dict(SEGMENTS),
    )
    part = part_of(told, pl.DataFrame(schema=dict(COMPONENTS)), Window(at(0), at(600)), gpus=2)
    kpi = activity(WORDS["sm_active"], part, "sm")
    assert kpi.value == pytest.approx(50.0)
    assert kpi.evidence is not None
    assert kpi.evidence.coverage == pytest.approx(0.5)
    assert share_of_seen(WORDS["power_capped"], part, ("power_cap",)).value == pytest.approx(10.0)
    assert throttled(WORDS["throttled"], part).value == pytest.approx(5.0)
    assert part["processor_watts"].to_list() == [None]


def test_windows_cover_a_month_with_a_clock_change_without_gaps() -> None:
    month = Period.parse("2026-10")
    found = windows_of(month)
    assert (found[0].start, found[-1].end, len(found)) == (month.start, month.end, 31)
    lengths = {(window.end - window.start) / timedelta(hours=1) for window in found}
    assert lengths == {24.0, 25.0}
    assert all(one.end == other.start for one, other in pairwise(found))


# Energy effectiveness


def account(it_watts: float, *, cooling: bool = True) -> Account:
    quarters = DAY.edges().collect().head(96)
    columns = {f"{role}_{what}": pl.lit(None, pl.Float64) for role in Role for what in ("joules", "estimated_joules")}
    columns |= {f"{role}_observed_s": pl.lit(0.0) for role in Role}
    columns["it_joules"] = pl.lit(it_watts * 900, pl.Float64)
    columns["it_observed_s"], columns["it_estimated_joules"] = pl.lit(900.0), pl.lit(0.0)
    meters = [(1, "IT hall 1", "it", it_watts), (2, "cooling hall 1", "cooling", 0.03 * it_watts)]
    rows = [
        {"resource": number, "name": name, "role": role, "accuracy_class": "1", "measured_at": "UPS output",
         "off_taker": "", "joules": watts * 86_400, "coverage": 1.0, "share_estimated": 0.0}
        for number, name, role, watts in meters if cooling or role == "it"
    ]  # fmt: skip
    return Account(
        period=DAY,
        meters=pl.DataFrame(rows, schema_overrides={"resource": pl.UInt64}),
        quarters=quarters.with_columns(**columns),
        gpus=pl.DataFrame(),
        gpu_count=100,
        installed_it_watts=None,
        accuracy=Accuracy(),
    )


def parts(*seen_shares: float, gpu_watts: float = 80_000.0, processor_watts: float | None = 10_000.0) -> pl.DataFrame:
    """The first hours of the day with 100 GPUs."""
    rows = [
        {"time": at(3600 * hour), "seconds": 3600.0, "gpu_s": 360_000.0, "seen_s": 360_000.0 * share,
         "joules": gpu_watts * 3600 * share, "processor_watts": processor_watts, "trays": 25}
        for hour, share in enumerate(seen_shares)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema={name: PARTS[name] for name in PARTS})


def test_itue_and_tue_follow_from_their_definitions() -> None:
    """100 kW at the IT meters for 80 kW of GPUs and 10 kW of processors: 100 / 90; TUE = 1.2 of that."""
    of_it = itue(WORDS["itue"], account(100_000), parts(*[1.0] * 24))
    assert of_it.value == pytest.approx(10 / 9)
    assert of_it.evidence is not None
    assert of_it.evidence.coverage == pytest.approx(1.0)
    assert tue(WORDS["tue"], of_it, IPUE).value == pytest.approx(1.2 * 10 / 9)


def test_hour_with_gpus_unseen_is_left_out_and_does_not_move_itue() -> None:
    of_it = itue(WORDS["itue"], account(100_000), parts(*[1.0] * 12, *[0.5] * 12))
    assert of_it.value == pytest.approx(10 / 9)
    assert of_it.evidence is not None
    assert of_it.evidence.coverage == pytest.approx(0.5)
    assert of_it.note == "12 parts of the period are left out."


def test_itue_without_processor_power_is_blank() -> None:
    assert itue(WORDS["itue"], account(100_000), parts(1.0, processor_watts=None)).value is None


def places_and_members(halls_of_cooling: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    never = datetime(2299, 12, 31, tzinfo=UTC)
    rows = [(10 + n, START, never, "gpu", "", 0, "", 0, "", 100 + n, f"hall {n}", [10 + n]) for n in (1, 2)]
    serves = [(1, 11), *((2, 10 + n) for n in range(1, halls_of_cooling + 1))]
    members = pl.DataFrame([(a, gpu, START, never) for a, gpu in serves], schema=dict(MEMBERS), orient="row")
    return pl.DataFrame(rows, schema=dict(PLACES), orient="row"), members


def test_ppue_of_a_hall_takes_its_own_meters_only() -> None:
    places, members = places_and_members(1)
    first, second = halls(account(100_000), members, places)
    assert first.ppue == pytest.approx(1.03)
    assert (second.ppue, second.reason) == (None, "No meter counts its cooling alone.")


def test_ppue_is_blank_where_a_cooling_meter_serves_two_halls() -> None:
    places, members = places_and_members(2)
    first, _ = halls(account(100_000), members, places)
    assert (first.ppue, first.reason) == (None, "cooling hall 1 also serves other halls.")


# Jobs


def jobs(*rows: tuple[str, float, float | None]) -> pl.DataFrame:
    told = [(name, START, at(3600), 8, 28_800.0, 28_800.0, board, 0.0, tray) for name, board, tray in rows]
    return pl.DataFrame(told, schema=dict(JOB_ENERGY), orient="row")


def kpis_of_jobs(found: pl.DataFrame, tokens: pl.DataFrame | None) -> dict[str, Kpi]:
    return {kpi.definition.key: kpi for kpi in job_kpis(WORDS, found, tokens, IPUE, Accuracy())}


def test_tokens_per_joule_name_their_boundary() -> None:
    """6 Gtoken over 2 + 4 MJ of boards, 0.5 + 1 MJ of trays, and 1.2 times that."""
    tokens = pl.DataFrame({"job": ["a", "b", "other"], "tokens": [2_000_000_000, 4_000_000_000, 1]})
    found = kpis_of_jobs(jobs(("a", 2e6, 0.5e6), ("b", 4e6, 1e6), ("c", 1e6, 1e6)), tokens)
    assert found["tokens_per_gpu_joule"].value == pytest.approx(6e9 / 6e6)
    assert found["tokens_per_joule"].value == pytest.approx(6e9 / 7.5e6)
    assert found["tokens_per_facility_joule"].value == pytest.approx(6e9 / 7.5e6 / 1.2)
    assert found["job_energy"].value == pytest.approx(9.5e6 / 3.6e9)
    assert found["job_energy_facility"].value == pytest.approx(1.2 * 9.5e6 / 3.6e9)


def test_job_without_its_trays_energy_is_left_out_and_said() -> None:
    found = kpis_of_jobs(jobs(("a", 2e6, 0.5e6), ("b", 4e6, None)), None)
    assert found["job_energy"].value == pytest.approx(2.5e6 / 3.6e9)
    assert found["job_energy"].note == "1 of 2 jobs have no energy."
    assert found["tokens_per_joule"].value is None


# Stragglers

CLOCK, WATTS, CELSIUS = 1_920e6, 1_000.0, 65.0


def job_windows(count: int, spacing_s: float = 60.0) -> pl.DataFrame:
    return pl.DataFrame([("job", count, spacing_s)], schema=dict(JOB_WINDOWS), orient="row")


def outlying(
    gpu: int, minutes: list[float], *, clock: float = CLOCK, watts: float = WATTS, celsius: float = CELSIUS
) -> pl.DataFrame:
    rows = [("job", at(60 * m), gpu, clock, watts, celsius, CLOCK, WATTS, CELSIUS, 0.0, 10.0, 1.0) for m in minutes]
    return pl.DataFrame(rows, schema=dict(WINDOWS), orient="row")


@pytest.mark.parametrize(
    ("minutes", "found"), [([0, 2, 4], True), ([0, 1, 5], False), ([0, 1], False), ([3, 4, 5, 9], True)]
)
def test_three_of_five_windows_make_a_deviation(minutes: list[float], found: bool) -> None:  # noqa: FBT001
    windows = outlying(1, minutes, clock=0.8 * CLOCK)
    assert deviations(windows, job_windows(10)).height == int(found)


def test_limit_is_three_and_a_half_robust_deviations() -> None:
    """MAD 10 W: sigma = 14.826 W, the limit 51.891 W. A MAD of 0 counts as one clock step of 15 MHz: 52.5 MHz."""
    for off, found in ((51.8, False), (52.0, True)):
        assert deviations(outlying(1, [0, 1, 2], watts=WATTS - off), job_windows(3)).height == int(found)
    for off, found in ((45e6, False), (60e6, True)):
        assert deviations(outlying(1, [0, 1, 2], clock=CLOCK - off), job_windows(3)).height == int(found)


def test_low_clock_alone_is_normal_at_the_power_cap() -> None:
    capped = outlying(1, [0, 1, 2], clock=0.93 * CLOCK)
    poor_contact = outlying(2, [0, 1, 2], clock=0.87 * CLOCK, watts=0.75 * WATTS, celsius=CELSIUS + 20)
    found = slow_gpus(deviations(pl.concat([capped, poor_contact]), job_windows(3)))
    assert found.select("resource", "corroborated").rows() == [(2, True), (1, False)]
    assert found["signals"].to_list() == ["hot, low clock, low power", "low clock"]
    # (0.87 - 1) x 1920 MHz / 15 MHz
    assert found["worst_z"][0] == pytest.approx(-0.13 * 1920 / 15)


def test_repeated_windows_count_once() -> None:
    windows = outlying(1, [0, 1], clock=0.8 * CLOCK)
    assert deviations(pl.concat([windows, windows]), job_windows(2)).is_empty()


# Lemons


def test_poisson_tail_agrees_with_tables() -> None:
    """P(X >= k) of a mean of 1: 1 - 1/e, 1 - 2/e, 1 - 5/(2e)."""
    assert poisson_tail(1, 1.0) == pytest.approx(1 - 1 / math.e)
    assert poisson_tail(2, 1.0) == pytest.approx(1 - 2 / math.e)
    assert poisson_tail(3, 1.0) == pytest.approx(1 - 2.5 / math.e)
    # The leading terms, where 1 - sum would have lost all its digits.
    assert poisson_tail(10, 0.01) == pytest.approx(
        math.exp(-0.01) * 1e-20 / math.factorial(10) * (1 + 0.01 / 11), rel=1e-5
    )
    assert (poisson_tail(0, 3.0), poisson_tail(1, 0.0)) == (1.0, 0.0)


@settings(max_examples=50, deadline=None)
@given(count=st.integers(1, 40), mean=st.floats(0.01, 30))
def test_poisson_tail_falls_by_one_term_at_a_time(count: int, mean: float) -> None:
    term = math.exp(count * math.log(mean) - mean - math.lgamma(count + 1))
    assert poisson_tail(count, mean) - poisson_tail(count + 1, mean) == pytest.approx(term, rel=1e-6, abs=1e-14)


def test_node_that_chance_does_not_explain_is_a_lemon() -> None:
    """1,000 nodes with 100 failures between them, 5 on one: m = 0.1, P(X >= 5) = 7.7e-8, 7.7e-5 nodes by chance."""
    failures = [5, *[1] * 95, *[0] * 904]
    rows = [(n, f"node {n}", "", 86_400.0, count, 0.0) for n, count in enumerate(failures)]
    found = judge_nodes(pl.DataFrame(rows, schema=dict(NODES), orient="row"))
    assert found["lemon"].sum() == 1
    assert found.row(0, named=True)["name"] == "node 0"
    assert found["by_chance"][0] == pytest.approx(7.7e-5, rel=0.01)
    assert found.filter(pl.col("failures") == 1)["by_chance"][0] == pytest.approx(1000 * (1 - math.exp(-0.1)))


def test_fleet_without_failures_has_no_lemons() -> None:
    assert judge_nodes(pl.DataFrame([(1, "", "", 1.0, 0, 0.0)], schema=dict(NODES), orient="row")).is_empty()


# Power


def power(*rows: tuple[float, float, int]) -> pl.DataFrame:
    return pl.DataFrame([(at(s), watts, meters) for s, watts, meters in rows], schema=dict(SITE_POWER), orient="row")


def test_ramps_are_between_minutes_that_follow_each_other() -> None:
    told = power((0, 10e6, 1), (60, 12e6, 1), (120, 9e6, 1), (300, 99e6, 1))
    found = swings(told, 1, DAY)
    assert found.rise is not None
    assert found.fall is not None
    assert (found.rise.watts, found.rise.time) == (2e6, DAY.local(at(60)))
    assert (found.fall.watts, found.fall.time) == (-3e6, DAY.local(at(120)))
    assert found.coverage == pytest.approx(2 / 1439)


def test_minute_in_which_a_meter_is_silent_is_no_ramp() -> None:
    found = swings(power((0, 10e6, 2), (60, 5e6, 1), (120, 10e6, 2)), 2, DAY)
    assert (found.rise, found.fall, found.coverage) == (None, None, 0.0)


def test_step_within_ten_seconds_counts_once() -> None:
    """A fall by 20 % over three seconds, and one by 9 % a minute later."""
    levels = [100.0] * 5 + [93.0, 86.0] + [80.0] * 60 + [72.8] * 5
    found = steps(power(*((second, watts, 1) for second, watts in enumerate(levels))), 1, DAY)
    assert found.count == 1
    assert found.largest is not None
    assert found.largest.watts == -20.0


def test_slow_readings_cannot_show_steps() -> None:
    found = steps(power((0, 100.0, 1), (60, 50.0, 1), (120, 100.0, 1)), 1, DAY)
    kpi = steps_kpi(WORDS["steps"], found)
    assert (kpi.value, kpi.reason) == (None, "Readings come every 60 s; steps within 10 s cannot be seen.")


# Racks


def cooled(flow: float, heat: float | None) -> pl.DataFrame:
    coolant = pl.DataFrame([(7, flow, 40.0, 50.0, heat, 100e3, 86_400.0)], schema=dict(COOLANT), orient="row")
    warm = pl.DataFrame(
        {"rack": [7], "celsius_sum": [6500.0], "celsius_count": [100]}, schema_overrides={"rack": pl.UInt64}
    )
    racks = pl.DataFrame(
        {"resource": [7], "name": ["rack 7"], "fluid": ["MPG 25 % by mass"]}, schema_overrides={"resource": pl.UInt64}
    )
    tables = fluid_tables(["MPG 25 % by mass", "no such fluid"])
    return rack_cooling(coolant, warm, racks, tables, design_rise_kelvin=10.0, liquid_share=0.87, seconds=86_400.0)


def test_flow_of_the_design_rise_is_no_over_flow() -> None:
    """25 % propylene glycol: rho = 1009.9 kg/m³ at 40 °C, cp = 3981 J/(kg K) at 45 °C (CoolProp)."""
    needed = 100e3 / (1009.9 * 3981 * 10)
    row = cooled(1.3 * needed, 100e3).row(0, named=True)
    assert row["overflow_ratio"] == pytest.approx(0.3, abs=1e-3)
    assert row["approach_kelvin"] == pytest.approx(25.0)
    assert not row["heat_assumed"]


def test_heat_that_no_sensor_tells_is_marked_as_assumed() -> None:
    row = cooled(0.002, None).row(0, named=True)
    assert row["heat_assumed"]
    assert row["heat_kilowatts"] == pytest.approx(87.0)


# Words


def test_tiny_figures_keep_their_digits() -> None:
    assert (scientific(0.05), scientific(2.13e-7), scientific(0.0)) == ("0.050", "2.1 · 10⁻⁷", "0.000")
    sure = replace(SURE, uncertainty=0.05)
    tokens = Kpi(WORDS["tokens_per_joule"], 2.13e-7, "1/J", sure)
    assert (figure(tokens), margin(tokens)) == ("2.1 · 10⁻⁷", "1.1 · 10⁻⁸")
    assert figure(replace(tokens, value=0.213)) == "0.213"


def test_an_uncertainty_is_not_shown_as_none_because_it_is_small() -> None:
    tiny = Kpi(WORDS["idle_energy"], 2e-4, "MWh", replace(SURE, uncertainty=0.05))  # 10 Wh
    assert margin(tiny) == "<\u20090.0001"
    assert margin(replace(tiny, evidence=replace(SURE, uncertainty=0.5))) == "0.0001"
    assert margin(replace(tiny, evidence=SURE)) == "0.000"


def test_one_is_singular() -> None:
    assert [counted(number, "rack") for number in (0, 1, 2)] == ["0 racks", "1 rack", "2 racks"]


def test_what_is_counted_has_no_decimals() -> None:
    assert figure(count_kpi(WORDS["stragglers"], 3, 1.0)) == "3"


def test_every_definition_says_boundary_method_and_source() -> None:
    for key, words in WORDS.items():
        assert words.key == key
        assert words.title
        assert words.boundary.endswith(".")
        assert words.method
        assert words.source


def test_robust_limits_hold_back_what_is_normal() -> None:
    """Of normal deviations 0.05 % lie beyond 3.5 sigma: three in five windows by chance is next to never."""
    draw = np.random.default_rng(5).normal(0.0, 20.0, (60, 64))
    rows = []
    for minute, watts in enumerate(draw):
        middle = median(watts)
        mad = median(abs(watts - middle))
        rows += [
            ("job", at(60 * minute), gpu, CLOCK, WATTS + one, CELSIUS, CLOCK, WATTS + middle, CELSIUS, 0.0, mad, 0.0)
            for gpu, one in enumerate(watts)
        ]
    windows = pl.DataFrame(rows, schema=dict(WINDOWS), orient="row")
    assert deviations(windows, job_windows(60)).is_empty()
