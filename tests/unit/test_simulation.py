"""The simulated site: energy is conserved, time steps do not matter, and figures are those of the field."""

from collections import Counter
from dataclasses import fields
from itertools import pairwise
from math import exp, sqrt
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from catalogue import COOLING, GPU, POWER, RACK, TABLES, TRAY, Kind, ResourceKind
from simulation import (
    FAULT_CLASSES,
    RACK_FAULTS,
    GpuCondition,
    RemainderCarrier,
    Simulation,
    Site,
    rack_columns,
)
from simulation.climate import YEAR_S, Climate
from simulation.faults import DAY_S, MONTH_S, RESET, SWAP, Hazard, Repair
from simulation.fluid import PG25, WATER, Fluid, flow_for, heat_watts, temperature_rise
from simulation.jobs import SLOT, wave, wave_integral
from simulation.power import full_load_rack_watts
from simulation.thermal import LOOP_TAU_S, decay_over, relax, required_flow
from stream.rows import in_base_unit, pack

Floats = NDArray[np.float64]

OCTOBER_S = 1_790_812_800  # 2026-10-01T00:00:00Z
HOUR_S = 3600
LITRES_PER_MINUTE = 1 / 60_000  # in m³/s


def simulate(gpus: int = 144, *, seed: int = 7, fault_rate: float = 0.0) -> Simulation:
    return Simulation(Site.build(gpus, seed), OCTOBER_S, fault_rate=fault_rate)


def run(simulation: Simulation, seconds: int, *, step_s: float) -> Simulation:
    end_s = simulation.time_s + seconds
    while simulation.time_s < end_s:
        simulation.step(min(simulation.time_s + step_s, end_s))
    return simulation


# Coolants


@pytest.mark.parametrize(
    ("temperature_c", "water", "glycol"),
    [
        # CoolProp at 3 bar: density in kg/m³ and specific heat in J/(kg K).
        (20, (998.3, 4183), (1019.3, 3920)),
        (30, (995.7, 4179), (1014.9, 3945)),
        (40, (992.3, 4179), (1009.9, 3969)),
        (45, (990.3, 4180), (1007.2, 3981)),
        (50, (988.1, 4181), (1004.4, 3992)),
        (60, (983.3, 4185), (998.4, 4016)),
        (70, (977.9, 4190), (992.1, 4039)),
    ],
)
def test_coolant_properties_are_those_of_coolprop(
    temperature_c: float, water: tuple[float, float], glycol: tuple[float, float]
) -> None:
    # The fits err by 2e-4, the table's last digit by half a unit: 1.3e-4.
    for fluid, (density, specific_heat) in ((WATER, water), (PG25, glycol)):
        assert float(fluid.density(temperature_c)) == pytest.approx(density, rel=3.5e-4)
        assert float(fluid.specific_heat(temperature_c)) == pytest.approx(specific_heat, rel=3.5e-4)


@pytest.mark.parametrize(("fluid", "kilowatts"), [(WATER, 0.0690), (PG25, 0.0668)])
def test_one_litre_a_minute_carries_the_published_heat_per_kelvin_at_45_degrees(fluid: Fluid, kilowatts: float) -> None:
    assert float(heat_watts(fluid, LITRES_PER_MINUTE, 45.5, 44.5, 45)) == pytest.approx(1000 * kilowatts, rel=1e-3)


@given(st.floats(1e3, 1e7), st.floats(1e-4, 1e-1), st.floats(20, 45))
def test_temperature_rise_inverts_the_heat_formula(heat_w: float, flow: float, cold_c: float) -> None:
    assume(heat_w / flow < 30 * 3.9e6)  # about 30 K: beyond it the fluid's fit ends
    rise = float(temperature_rise(PG25, flow, heat_w, cold_c))
    assert float(heat_watts(PG25, flow, cold_c + rise, cold_c, cold_c)) == pytest.approx(heat_w, rel=1e-6)


@given(st.floats(1e3, 1e7), st.floats(46, 60))
def test_flow_for_inverts_the_heat_formula(heat_w: float, hot_c: float) -> None:
    flow = flow_for(WATER, heat_w, hot_c, 38.0, 38.0)
    assert float(heat_watts(WATER, flow, hot_c, 38.0, 38.0)) == pytest.approx(heat_w, rel=1e-12)


def test_design_flow_is_the_typical_one_and_a_half_litres_per_kilowatt() -> None:
    assert float(required_flow(np.array(1000.0))) / LITRES_PER_MINUTE == pytest.approx(1.5, rel=0.01)


# Lags


@given(st.floats(0.1, 10_000), st.floats(1, 1_000), st.floats(-100, 100))
def test_lag_follows_the_analytic_solution(dt_s: float, tau_s: float, target: float) -> None:
    expected = target + (20.0 - target) * exp(-dt_s / tau_s)
    assert float(relax(np.array(20.0), target, dt_s, tau_s)) == pytest.approx(expected, abs=1e-9)


@given(st.floats(0.1, 3_600), st.floats(0.1, 3_600))
def test_chain_of_lags_does_not_depend_on_how_time_is_cut(first_s: float, second_s: float) -> None:
    def after(q: tuple[float, float, float], dt_s: float) -> tuple[float, float, float]:
        d = decay_over(dt_s)
        return (
            q[0] * d.one,
            q[1] * d.two + q[0] * d.one_to_two,
            q[2] * d.three + q[1] * d.two_to_three + q[0] * d.one_to_three,
        )

    start = (3.0, -2.0, 5.0)
    assert after(after(start, first_s), second_s) == pytest.approx(after(start, first_s + second_s), abs=1e-9)


def test_last_lag_of_the_chain_matches_small_explicit_steps() -> None:
    q, dt = np.array([100.0, 50.0, 0.0]), 0.001
    for _ in range(30_000):
        q = q + dt * np.array([-q[0] / 12.0, (q[0] - q[1]) / 60.0, (q[1] - q[2]) / LOOP_TAU_S])
    d = decay_over(30.0)
    assert 50.0 * d.two_to_three + 100.0 * d.one_to_three == pytest.approx(q[2], rel=1e-3)


# Jobs


@given(st.floats(0.5, 8), st.floats(0.1, 0.9), st.floats(600, 3_600), st.floats(20, 90), st.floats(0, 20_000))
@settings(max_examples=30)
def test_integral_of_the_drive_is_the_sum_of_its_instants(
    period_s: float, duty: float, cycle_s: float, pause_s: float, at_s: float
) -> None:
    slot = np.zeros(1, dtype=SLOT)
    values = {"until": 1e9, "period": period_s, "duty": duty, "cycle": cycle_s, "run": cycle_s - pause_s}
    for name, value in values.items():
        slot[name] = value
    places = np.arange(200_000) + np.random.default_rng(1).random(200_000)  # jittered: no beat with the period
    instants = float(wave(slot, at_s + places * 1e-3).sum()) * 1e-3
    integral = float((wave_integral(slot, at_s + 200) - wave_integral(slot, at_s))[0])
    # Each of up to 800 edges errs by some 0.3 ms, independently: 0.01 s.
    assert integral == pytest.approx(instants, abs=0.06)


def test_gpus_of_one_training_job_swing_in_lock_step() -> None:
    simulation = simulate()
    run(simulation, 600, step_s=60)
    interval = max(simulation.jobs(OCTOBER_S, simulation.time_s), key=lambda i: len(i.trays))
    powers = []
    for _ in range(60):
        simulation.advance(1)
        powers.append(simulation.read_gpus()["power_watts"][interval.trays].ravel())
    swings = np.array(powers)
    middle = (swings.max() + swings.min()) / 2
    high = swings > middle
    assert (high.all(axis=1) | ~high.any(axis=1)).all()
    assert 0 < high[:, 0].sum() < 60


def test_no_tray_works_for_two_jobs_at_once_and_most_are_allocated() -> None:
    simulation = simulate(512, fault_rate=20.0)
    shares = []
    for _ in range(14 * 24):
        simulation.advance(HOUR_S)
        shares.append(simulation.allocated_share)
    holds: dict[int, list[tuple[float, float]]] = {}
    for interval in simulation.jobs(OCTOBER_S, simulation.time_s):
        for tray in interval.trays.tolist():
            holds.setdefault(tray, []).append((interval.start_s, interval.end_s or simulation.time_s))
    for spans in holds.values():
        spans.sort()
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert 0.85 <= float(np.mean(shares)) <= 0.92


# Energy and heat


@pytest.mark.parametrize("fault_rate", [0.0, 300.0])
def test_energy_is_conserved_from_gpu_to_grid(fault_rate: float) -> None:
    simulation = run(simulate(360, fault_rate=fault_rate), 24 * HOUR_S, step_s=300)
    facility = simulation.truth.facility(OCTOBER_S, simulation.time_s)
    fleet = simulation.truth.fleet(OCTOBER_S, simulation.time_s)
    site, cooling, other, it = *facility.meter[:3], facility.meter[3:].sum()
    assert it == pytest.approx(facility.rack.sum() * 1.012, rel=1e-9)
    assert site == pytest.approx(it * 1.025 + (cooling + other) * 1.008, rel=1e-9)
    trays = np.add.reduceat(fleet.tray, simulation.site.rack_tray)
    switches = facility.rack * 0.975 - trays
    # Nine switch trays of 600 W, and 150 W more for each tray that works; nothing when isolated.
    assert (switches >= -1e-6).all()
    assert (switches <= (5400 + 18 * 150) * 86_400 * (1 + 1e-9)).all()
    beside_gpus = fleet.tray - 1.03 * fleet.gpu.sum(axis=1)
    assert (beside_gpus >= 60 * 86_400 * (1 - 1e-9)).all()
    assert (beside_gpus <= 850 * 86_400 * (1 + 1e-9)).all()


def test_power_between_events_adds_up_to_the_tray_and_the_rack() -> None:
    simulation = run(simulate(), 1800, step_s=60)
    snapshot = simulation.snapshot()
    trays = 1.03 * snapshot.gpu["power_average_watts"].sum(axis=1)
    beside = snapshot.tray["power_watts"] - trays
    assert set(np.round(beside).tolist()) <= {430.0, 850.0}
    assert snapshot.power["active_power_watts"][3:].sum() == pytest.approx(
        1.012 * snapshot.rack["power_watts"].sum(), rel=1e-9
    )


@pytest.mark.parametrize("step_s", [1.0, 60.0, 3600.0])
def test_all_electricity_leaves_as_heat_or_is_stored(step_s: float) -> None:
    simulation = simulate(fault_rate=200.0)
    run(simulation, 2 * HOUR_S, step_s=step_s)
    heat = simulation.truth.facility(OCTOBER_S, simulation.time_s)
    assert heat.air + heat.handed_over + heat.rejected + heat.stored == pytest.approx(heat.meter[0], rel=1e-9)


def test_large_and_small_steps_agree() -> None:
    # Electricity up to the IT meters is exact; cooling and hand-over follow means of a step, to 1 %.
    small = run(simulate(fault_rate=100.0), 12 * HOUR_S, step_s=20)
    large = run(simulate(fault_rate=100.0), 12 * HOUR_S, step_s=3600)
    few, many = (s.truth.facility(OCTOBER_S, s.time_s) for s in (large, small))
    fleet_few, fleet_many = (s.truth.fleet(OCTOBER_S, s.time_s) for s in (large, small))
    np.testing.assert_allclose(fleet_few.gpu, fleet_many.gpu, rtol=1e-9)
    np.testing.assert_allclose(fleet_few.gpu_seconds, fleet_many.gpu_seconds, rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(few.rack, many.rack, rtol=1e-9)
    np.testing.assert_allclose(few.meter, many.meter, rtol=0.01)
    assert few.handed_over == pytest.approx(many.handed_over, rel=0.01)
    assert few.rejected == pytest.approx(many.rejected, rel=0.01)


def test_rack_heat_equals_flow_times_rise_as_its_sensors_show_them() -> None:
    simulation = run(simulate(288), 2 * HOUR_S, step_s=60)
    site, state = simulation.site, simulation.facility()
    rows = pack(RACK, site.rack_ids, int(simulation.time_s), rack_columns(site, simulation.instruments, state))
    supply, back, flow, heat = (
        in_base_unit(RACK.metric(name), rows)
        for name in (
            "liquid_supply_temperature_celsius",
            "liquid_return_temperature_celsius",
            "liquid_flow_cubic_metres_per_second",
            "liquid_heat_watts",
        )
    )
    computed = heat_watts(PG25, flow, back, supply, supply)
    # 0.005 K in each probe of a rise of about 10 K, 0.005 L/min of at least 50.
    np.testing.assert_allclose(computed, heat, rtol=0.01 / 5 + 1e-4)


def test_liquid_takes_85_to_90_percent_of_rack_power() -> None:
    simulation = run(simulate(288), 12 * HOUR_S, step_s=300)
    figures = simulation.truth.facility(OCTOBER_S, simulation.time_s)
    share = figures.rack_liquid / figures.rack
    assert (share > 0.85).all()
    assert (share < 0.90).all()


def test_heat_meters_registers_agree_with_the_truth() -> None:
    simulation = simulate()
    first = simulation.snapshot().cooling["heat_register_joules"][-2:]
    run(simulation, 6 * HOUR_S, step_s=60)
    last = simulation.snapshot().cooling["heat_register_joules"][-2:]
    truth = simulation.truth.facility(OCTOBER_S, simulation.time_s)
    assert last - first == pytest.approx([truth.handed_over, truth.rejected], abs=3600)  # 1 Wh


def test_figures_are_those_of_a_nordic_liquid_cooled_site() -> None:
    simulation = simulate(2304)
    run(simulation, 3 * 24 * HOUR_S, step_s=300)
    figures = simulation.truth.facility(OCTOBER_S, simulation.time_s)
    pue = figures.meter[0] / figures.meter[3:].sum()
    assert 1.03 <= pue <= 1.15
    assert 0.1 <= figures.handed_over / figures.meter[0] <= 0.7
    snapshot = simulation.snapshot()
    loop = slice(simulation.site.cdus, simulation.site.cdus + simulation.site.halls)
    assert 40 <= snapshot.cooling["secondary_supply_temperature_celsius"][loop][0] <= 45
    assert 50 <= snapshot.cooling["secondary_return_temperature_celsius"][loop][0] <= 57
    assert (
        snapshot.cooling["primary_supply_temperature_celsius"][-2]
        > snapshot.cooling["primary_return_temperature_celsius"][-2]
    )


def test_full_rack_at_full_load_draws_the_published_power_and_flow() -> None:
    watts = full_load_rack_watts(18)
    assert 120e3 <= float(watts) <= 142e3
    litres = float(required_flow(0.87 * watts)) / LITRES_PER_MINUTE
    assert 130 <= litres <= 200


def test_gpu_sensors_stay_in_the_plausible_band() -> None:
    simulation = simulate(288, fault_rate=100.0)
    for _ in range(48):
        simulation.advance(1800)
        gpus = simulation.read_gpus()
        power = gpus["power_watts"]
        assert (np.isnan(power) | ((power >= 65) & (power <= 1500))).all()
        assert np.nanmax(gpus["energy_joules"]) <= 1400 * 1800 * (1 + 1e-9)
        assert np.nanmax(gpus["sm_active_ratio"]) <= 1


def test_gpu_die_is_as_warm_as_its_load_makes_it() -> None:
    simulation = run(simulate(288), HOUR_S, step_s=60)
    gpus = simulation.read_gpus()
    supply = simulation.facility().cdu_supply_c.mean()
    above = gpus["temperature_celsius"] - supply
    idle = gpus["process_count"] == 0
    assert ((above[idle] > 4.5) & (above[idle] < 10.5)).all()
    training = gpus["energy_joules"] > 1000.0 * HOUR_S
    assert ((above[training] > 15) & (above[training] < 30)).all()


def test_power_cap_is_reported_with_its_time() -> None:
    simulation = run(simulate(1152, seed=3), HOUR_S, step_s=60)
    gpus = simulation.read_gpus()
    capped = gpus["throttled_power_cap_seconds"]
    assert (capped > 0).any()
    assert capped.max() < HOUR_S
    assert (gpus["power_average_watts"] <= gpus["power_limit_watts"] + 1e-9).all()
    bit = gpus["clock_event_reasons"].astype(int) & 0x4 > 0
    assert not (bit & (capped == 0)).any()


def test_registers_start_with_a_past_and_never_decrease() -> None:
    simulation = simulate(fault_rate=200.0)
    before = simulation.snapshot()
    assert before.power["energy_import_joules"].min() > 0
    assert before.rack["energy_register_joules"].min() > 0
    for _ in range(30):
        simulation.advance(700)
        now = simulation.snapshot()
        for table in ("rack", "cooling", "power"):
            catalogue = next(t for t in TABLES if t.name == table)
            for metric in catalogue.of_kind(Kind.REGISTER):
                column, old = getattr(now, table)[metric.name], getattr(before, table)[metric.name]
                assert not (column < old).any()
        before = now


def test_site_register_counts_what_the_truth_counts() -> None:
    simulation = simulate()
    first = simulation.snapshot().power["energy_import_joules"]
    run(simulation, 24 * HOUR_S, step_s=60)
    last = simulation.snapshot().power["energy_import_joules"]
    truth = simulation.truth.facility(OCTOBER_S, simulation.time_s)
    assert last - first == pytest.approx(truth.meter, abs=float(POWER.metric("energy_import_joules").resolution))


def test_snapshot_gives_every_metric_of_the_catalogue() -> None:
    snapshot = simulate().snapshot()
    for table in (GPU, TRAY, RACK, COOLING, POWER):
        assert set(getattr(snapshot, table.name)) == {metric.name for metric in table.metrics}


# Amounts in whole counts


@given(st.lists(st.tuples(st.floats(0, 5_000), st.booleans()), min_size=1, max_size=50))
def test_rounded_amounts_add_up_to_the_truth_within_one_count(ticks: list[tuple[float, bool]]) -> None:
    carrier = RemainderCarrier((1,), 0.1)
    returned = given_in = 0.0
    for amount, readable in [*ticks, (0.0, True)]:
        rounded = float(carrier.carry([amount], np.array([readable]))[0])
        assert np.isnan(rounded) == (not readable)
        returned += rounded if readable else 0.0
        given_in += amount
    assert returned == pytest.approx(given_in, abs=0.1)


def test_counted_energy_of_every_gpu_adds_up_to_the_truth_through_faults() -> None:
    simulation = simulate(fault_rate=2_000.0)
    resolution = float(GPU.metric("energy_joules").resolution)
    total = np.zeros(simulation.site.gpu_ids.shape)
    dark = np.zeros(simulation.site.gpu_ids.shape, dtype=bool)
    for _ in range(500):
        simulation.advance(37)
        columns = simulation.read_gpus()
        dark = np.isnan(columns["power_watts"])
        total += np.nan_to_num(simulation.gpu_carrier.carry(simulation.gpu_joules_spent(), ~dark))
    truth = simulation.fleet_totals().gpu
    assert dark.any()
    np.testing.assert_allclose(total[~dark], truth[~dark], rtol=0, atol=resolution)
    np.testing.assert_allclose(total + simulation.gpu_carrier.remainder, truth, rtol=1e-12, atol=1e-6)


# Determinism and keeping


def state_of(simulation: Simulation) -> dict[str, Floats]:
    snapshot = simulation.snapshot()
    return {
        f"{field.name}.{name}": column
        for field in fields(snapshot)
        if field.name != "time_s"
        for name, column in getattr(snapshot, field.name).items()
    }


def assert_same(left: Simulation, right: Simulation) -> None:
    one, other = state_of(left), state_of(right)
    assert one.keys() == other.keys()
    for name, column in one.items():
        np.testing.assert_array_equal(column, other[name], err_msg=name)


def test_same_seed_and_steps_give_the_same_site() -> None:
    left, right = (run(simulate(fault_rate=300.0), 8 * HOUR_S, step_s=311) for _ in range(2))
    assert_same(left, right)
    assert left.take_events() == right.take_events()


def test_another_seed_gives_another_site() -> None:
    left, right = (run(simulate(seed=seed), HOUR_S, step_s=60) for seed in (1, 2))
    assert left.site.gpu_ids[0, 0] != right.site.gpu_ids[0, 0]
    assert not np.array_equal(left.fleet_totals().gpu, right.fleet_totals().gpu)


def test_faults_and_jobs_do_not_depend_on_steps_or_readings() -> None:
    watched = simulate(fault_rate=500.0)
    for _ in range(100):
        watched.advance(432)
        watched.snapshot()
    skipped = run(simulate(fault_rate=500.0), 43_200, step_s=3600)
    assert watched.take_events() == skipped.take_events()
    assert [i.job for i in watched.take_intervals()] == [i.job for i in skipped.take_intervals()]


def test_saved_simulation_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    original = run(simulate(fault_rate=500.0), 10_000, step_s=100)
    original.save(tmp_path / "site.npz")
    restored = Simulation.load(tmp_path / "site.npz")
    for simulation in (original, restored):
        run(simulation, 10_000, step_s=100)
    assert_same(original, restored)
    assert original.take_events() == restored.take_events()
    assert original.outages(OCTOBER_S, original.time_s) == restored.outages(OCTOBER_S, restored.time_s)
    hours = (OCTOBER_S, OCTOBER_S + 5 * HOUR_S)
    np.testing.assert_array_equal(original.truth.fleet(*hours).gpu, restored.truth.fleet(*hours).gpu)


def test_time_does_not_run_backwards() -> None:
    with pytest.raises(ValueError, match="cannot go back"):
        simulate().step(OCTOBER_S - 1)


def test_truth_names_a_period_that_it_did_not_keep() -> None:
    simulation = run(simulate(), HOUR_S, step_s=60)
    with pytest.raises(LookupError, match="no mark"):
        simulation.truth.fleet(OCTOBER_S, OCTOBER_S + 60)


def test_truth_keeps_the_fleet_at_asked_times_between_hours() -> None:
    simulation = simulate()
    simulation.truth.keep_fleet_at.add(OCTOBER_S + 90)
    run(simulation, HOUR_S, step_s=3600)
    assert simulation.truth.fleet(OCTOBER_S, OCTOBER_S + 90).gpu_seconds.sum() == pytest.approx(90 * 144)


# Faults


def test_faults_come_at_the_published_rates() -> None:
    trays, days = 25_000, 200
    hazard = Hazard(trays, 1_389, 1.0, np.random.default_rng(5))
    struck: Counter[str] = Counter()
    time_s = hazard.wait_s()
    while time_s < days * DAY_S:
        struck[hazard.draw()[0].name] += 1
        time_s += hazard.wait_s()
    gpu_days = trays * 4 * days
    expected = {c.name: c.count / 884_700 * gpu_days for c in FAULT_CLASSES}
    expected |= {c.name: c.per_100_rack_months * 13.89 * days * DAY_S / MONTH_S for c in RACK_FAULTS}
    for name, count in expected.items():
        # 4.5 standard deviations, and two events for the rarest: false once in 1e4 runs.
        assert abs(struck[name] - count) <= 4.5 * sqrt(count) + 2, name
    total = sum(struck[c.name] for c in FAULT_CLASSES) / gpu_days * 1000
    assert total == pytest.approx(0.474, rel=0.05)


def test_simulated_site_suffers_the_published_number_of_faults() -> None:
    simulation = run(simulate(10_080, fault_rate=1.0), 30 * 24 * HOUR_S, step_s=6 * HOUR_S)
    kinds = Counter(event.kind for event in simulation.take_events())
    facility = {c.name for c in RACK_FAULTS} | {"restored", "gpu_dark"}
    faults = sum(count for kind, count in kinds.items() if kind not in facility)
    expected = 0.474 / 1000 * 10_080 * 30
    assert abs(faults - expected) <= 4.5 * sqrt(expected)


def test_lemons_fail_three_to_five_times_as_often() -> None:
    hazard = Hazard(2_000, 112, 1.0, np.random.default_rng(1))
    struck = np.bincount([place for s, place, _ in (hazard.draw() for _ in range(60_000)) if s.scope != "rack"])
    lemons = struck > 2 * np.median(struck)
    assert 0.01 <= lemons.mean() <= 0.02
    assert 3 <= struck[lemons].mean() / struck[~lemons].mean() <= 5


@pytest.mark.parametrize(("repair", "fast_s", "slow_s"), [(RESET, 300, 900), (SWAP, 14_400, 172_800)])
def test_nine_repairs_in_ten_take_as_long_as_published(repair: Repair, fast_s: float, slow_s: float) -> None:
    rng = np.random.default_rng(2)
    draws = np.array([repair.draw(rng) for _ in range(4_000)])
    assert ((draws >= fast_s) & (draws <= slow_s)).mean() == pytest.approx(0.90, abs=0.02)


def test_dark_gpus_show_only_that_they_are_dark() -> None:
    simulation = run(simulate(fault_rate=3_000.0), 12 * HOUR_S, step_s=600)
    gpus = simulation.read_gpus()
    dark = gpus.pop("gpu_state") == 3
    assert dark.any()
    for name, column in gpus.items():
        np.testing.assert_array_equal(np.isnan(column), dark, err_msg=name)


def test_seconds_by_condition_are_the_union_of_outages() -> None:
    simulation = run(simulate(fault_rate=400.0), 24 * HOUR_S, step_s=1800)
    end_s = simulation.time_s
    outages = simulation.outages(OCTOBER_S, end_s)
    assert outages
    site, grid = simulation.site, np.arange(OCTOBER_S + 0.5, end_s, 1.0)
    worst = np.zeros((site.gpu_count, len(grid)), dtype=np.int8)
    rank = {GpuCondition.DEGRADED: 1, GpuCondition.MAINTENANCE: 2, GpuCondition.DOWN: 3}
    gpus_of = {int(i): [n] for n, i in enumerate(site.gpu_ids.ravel())}
    gpus_of |= {int(i): list(range(4 * n, 4 * n + 4)) for n, i in enumerate(site.tray_ids)}
    gpus_of |= {int(i): list(range(72 * n, 72 * n + 72)) for n, i in enumerate(site.rack_ids)}
    gpus_of |= {int(i): list(range(site.gpu_count)) for i in site.cdu_ids}
    for outage in outages:
        gpus = gpus_of[outage.resource]
        assert len(gpus) == outage.gpus
        span = slice(*np.searchsorted(grid, [outage.start_s, outage.end_s or end_s]))
        worst[gpus, span] = np.maximum(worst[gpus, span], rank[outage.condition])
    seconds = simulation.truth.fleet(OCTOBER_S, end_s).gpu_seconds
    assert seconds.sum() == pytest.approx(site.gpu_count * 86_400)
    for condition, value in rank.items():
        counted = (worst == value).sum(axis=1)
        # Each outage's ends are found to half a second.
        np.testing.assert_allclose(seconds[condition].ravel(), counted, rtol=0, atol=len(outages))


def test_work_leaves_trays_that_are_down() -> None:
    simulation = simulate(fault_rate=3_000.0)
    for _ in range(24):
        simulation.advance(1800)
        gpus = simulation.read_gpus()
        down = simulation.outages(simulation.time_s - 1e-3, simulation.time_s)
        lost = {o.resource for o in down if o.condition is GpuCondition.DOWN and o.end_s is None}
        for tray, gpu in zip(*np.nonzero(np.isin(simulation.site.gpu_ids, list(lost))), strict=True):
            assert not gpus["process_count"][tray, gpu] > 0


# Topology and weather


def test_topology_of_the_full_site() -> None:
    site = Site.build(100_000, 1)
    assert (site.trays, site.racks, site.halls) == (25_000, 1_389, 4)
    assert np.bincount(site.rack_hall).max() == 350
    assert np.bincount(site.rack_cdu).max() == 8
    assert (site.rack_hall[site.cdu_rack] == site.cdu_hall).all()
    assert len(np.unique(site.gpu_ids)) == 100_000


def test_inventory_is_a_tree_with_readable_names() -> None:
    resources = list(Site.build(160, 1).resources())
    by_id = {resource.id: resource for resource in resources}
    assert len(by_id) == len(resources)
    assert all(r.parent in by_id for r in resources if r.parent)
    assert all(served in by_id for r in resources for served in r.serves)
    names = {r.name for r in resources if r.kind is ResourceKind.GPU}
    assert "hall-1 / rack 03 / tray 04 / gpu 2" in names


def test_site_is_made_of_whole_trays() -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        Site.build(66, 1)


def test_weather_of_narvik_is_cold_in_january_and_mild_in_july() -> None:
    climate = Climate.draw(np.random.default_rng(3))
    year = np.arange(0, YEAR_S, HOUR_S * 3.0)
    temperature = climate.outside_c(year)
    month = (year / (YEAR_S / 12)).astype(int)
    means = [float(temperature[month == m].mean()) for m in range(12)]
    # Normals of the coast there: about -4 °C and 14 °C; fronts move a single month by a few kelvin.
    assert means[0] == pytest.approx(-4, abs=4)
    assert means[6] == pytest.approx(14, abs=4)
    demand = climate.demand_share(year)
    assert demand[month == 0].mean() > demand[month == 6].mean()
