"""The efficiency report over a simulated day in the real engine, judged by what really happened there."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from reports.efficiency import write_efficiency_report
from reports.efficiency_hours import Allocation
from reports.efficiency_queries import (
    CLOCK_FLOOR_HERTZ,
    OUTLYING_Z,
    ROBUST_SIGMA,
    Window,
    read_outlying_windows,
)
from reports.efficiency_reading import read_efficiency
from simulation.truth import GpuCondition
from storage.client import connect
from storage.job_energy import JobEnergyKeeper
from storage.reader import TIME, Reader
from storage.schema import apply
from tests.conftest import DoorUnderTest
from tests.servers.efficiency_site import FilledSite, fill_site
from tests.servers.kafka import ServerUnavailable

pytest.importorskip("chdb")

GPUS = 144
HOUR_MS = 3_600_000
KWH_PRICE = 0.5


@pytest.fixture(scope="module")
def filled(door: DoorUnderTest) -> Iterator[tuple[FilledSite, Reader]]:
    """A day of 144 GPUs with faults 120 times as frequent as in the field: some of most kinds."""
    door.empty()
    with closing(connect(door.address())) as client:
        apply(client)
        site = fill_site(client, gpus=GPUS, seed=8, fault_rate=120.0)
        JobEnergyKeeper(client).recompute()
        yield site, Reader(client)
    door.empty()


@pytest.fixture(scope="module")
def page(filled: tuple[FilledSite, Reader], tmp_path_factory: pytest.TempPathFactory) -> Path:
    site, reader = filled
    jobs = reader.query("SELECT job FROM job_energy FINAL", {}, {"job": pl.String()})
    return write_efficiency_report(
        reader,
        site.period,
        tmp_path_factory.mktemp("report"),
        now=site.now,
        prices=prices(site),
        tokens=jobs.with_columns(tokens=pl.lit(10**9, pl.Int64)),
    )


def prices(site: FilledSite) -> pl.DataFrame:
    rows = [("NO4", site.period.start + timedelta(hours=hour), 60, 1000 * KWH_PRICE, "NOK") for hour in range(24)]
    return pl.DataFrame(rows, schema=["zone", "start", "duration_minutes", "price_per_mwh", "currency"], orient="row")


@pytest.fixture(scope="module")
def document(page: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    return found


def kpi(document: dict[str, Any], key: str) -> dict[str, Any]:
    return next(found for found in document["figures"] if found["key"] == key)


def bounds_s(site: FilledSite) -> tuple[float, float]:
    return site.period.start.timestamp(), site.period.end.timestamp()


def test_gpu_hours_add_up_on_both_axes(document: dict[str, Any]) -> None:
    for axis in ("health", "allocation"):
        lines = document["gpu_hours"][axis]
        assert sum(line["gpu_hours"] for line in lines) == pytest.approx(24 * GPUS, abs=1e-6)
        assert sum(line["share"] for line in lines) == pytest.approx(1.0, abs=1e-12)


def test_gpu_hours_by_health_are_those_that_really_were(
    filled: tuple[FilledSite, Reader], document: dict[str, Any]
) -> None:
    """A slot of five minutes is the finest that readings tell: each of the day's outages may be off by two of them."""
    site, reader = filled
    truth = site.simulation.truth.fleet(*bounds_s(site)).gpu_seconds.sum(axis=(1, 2)) / 3600
    outages = site.simulation.outages(*bounds_s(site))
    assert len(outages) >= 5
    # That a GPU with a contained memory error is out of service, nobody knows until it is restored.
    doubtful_h = _open_without_a_fatal_xid_h(site, reader)
    truth[GpuCondition.DOWN] -= doubtful_h
    truth[GpuCondition.HEALTHY] += doubtful_h
    slack = sum(outage.gpus for outage in outages) * 2 * 300 / 3600
    told = {line["name"]: line["gpu_hours"] for line in document["gpu_hours"]["health"]}
    for condition in GpuCondition:
        assert told[condition.name.lower()] == pytest.approx(truth[condition], abs=slack), condition
    assert truth[GpuCondition.DOWN] > slack
    assert told["unknown"] == 0.0


def _open_without_a_fatal_xid_h(site: FilledSite, reader: Reader) -> float:
    start_s, end_s = bounds_s(site)
    told = reader.query("SELECT resource FROM events WHERE kind = 'xid' AND code = 94", {}, {"resource": pl.UInt64()})
    return sum(
        (end_s - max(outage.start_s, start_s)) / 3600
        for outage in site.simulation.outages(start_s, end_s)
        if outage.resource in told["resource"] and (outage.end_s is None or outage.end_s > end_s + 3600)
    )


def test_allocated_hours_are_those_that_jobs_held(filled: tuple[FilledSite, Reader], document: dict[str, Any]) -> None:
    site, _ = filled
    start_s, end_s = bounds_s(site)
    held_s = 0.0
    for hold in site.simulation.jobs(start_s, end_s):
        last_s = end_s if hold.end_s is None else min(hold.end_s, end_s)
        held_s += len(hold.gpus) * (last_s - max(hold.start_s, start_s))
    told = {line["name"]: line["gpu_hours"] for line in document["gpu_hours"]["allocation"]}
    # A job that lets a tray go and comes back within a millisecond is told to the millisecond.
    assert 24 * GPUS - told[Allocation.UNALLOCATED] == pytest.approx(held_s / 3600, abs=0.01)


def test_energy_effectiveness_is_within_its_uncertainty_of_the_truth(
    filled: tuple[FilledSite, Reader], document: dict[str, Any]
) -> None:
    site, _ = filled
    truth_of = site.simulation.truth
    facility, fleet = truth_of.facility(*bounds_s(site)), truth_of.fleet(*bounds_s(site))
    it_j, site_j, cooling_j = float(facility.meter[3:].sum()), float(facility.meter[0]), float(facility.meter[1])
    wanted = {
        "ipue": site_j / it_j,
        "cer": (facility.handed_over + facility.rejected) / cooling_j,
        "gpu_share": 100 * float(fleet.gpu.sum()) / it_j,
    }
    for key, truth in wanted.items():
        told = kpi(document, key)
        assert told["value"] == pytest.approx(truth, abs=told["plus_minus"]), key
        assert told["value"] == pytest.approx(truth, rel=2e-3), key
    hall = document["halls"][0]
    assert hall["ppue"] == pytest.approx(1 + cooling_j / it_j, rel=1e-4)


def test_energy_by_allocation_adds_up_to_the_fleets(filled: tuple[FilledSite, Reader]) -> None:
    site, reader = filled
    data = read_efficiency(reader, site.period, site.now)
    truth = float(site.simulation.truth.fleet(*bounds_s(site)).gpu.sum())
    assert data.hours["joules"].sum() == pytest.approx(truth, rel=1e-3)
    assert data.hours["milliseconds"].sum() == 24 * GPUS * HOUR_MS


def test_stranded_energy_is_priced_hour_by_hour(document: dict[str, Any]) -> None:
    for key in ("idle", "stranded"):
        energy, cost = kpi(document, f"{key}_energy"), kpi(document, f"{key}_cost")
        assert cost["value"] == pytest.approx(energy["value"] * 1000 * KWH_PRICE)
        assert cost["unit"] == "NOK"


def test_every_hold_of_every_ended_job_is_in_its_energy(filled: tuple[FilledSite, Reader]) -> None:
    """The held time is the scheduler's; what a joule of it is, tests/integration/test_job_energy.py works out."""
    site, reader = filled
    sql = "SELECT sum(gpu_joules) AS joules, sum(gpu_seconds) AS seconds FROM job_energy FINAL"
    told = reader.query(sql, {}, {"joules": pl.Float64(), "seconds": pl.Float64()}).row(0, named=True)
    held_s = sum(
        len(hold.gpus) * (hold.end_s - hold.start_s)
        for number in {hold.job.number for hold in site.simulation.jobs(0, 1e12)}
        for hold in site.simulation.jobs(0, 1e12)
        if hold.job.number == number and hold.end_s is not None and _ended(site, number)
    )
    assert told["seconds"] == pytest.approx(held_s, rel=1e-5)
    # A working GPU of the simulation draws between its floor and its limit on average.
    assert 400 < told["joules"] / told["seconds"] < 1400


def _ended(site: FilledSite, number: int) -> bool:
    return all(hold.end_s is not None for hold in site.simulation.jobs(0, 1e12) if hold.job.number == number)


def test_outlying_windows_of_the_store_are_those_of_arithmetic(filled: tuple[FilledSite, Reader]) -> None:
    """Median and MAD of each job's clocks, worked out here from the minutes themselves."""
    site, reader = filled
    window = Window(site.period.start, site.period.start + timedelta(hours=6))
    found = read_outlying_windows(reader, window)
    sql = """
SELECT job, resource, gpu_1m.time AS time, sm_clock_hertz AS clock FROM gpu_1m
INNER JOIN (SELECT job, resource, start, ifNull(jobs.end, toDateTime64('2100-01-01', 3, 'UTC')) AS last
    FROM jobs FINAL) AS hold ON hold.resource = gpu_1m.resource
WHERE gpu_1m.time >= start AND addSeconds(gpu_1m.time, 60) <= last AND clock > 0
    AND gpu_1m.time >= {first:DateTime('UTC')} AND gpu_1m.time < {last:DateTime('UTC')}
"""
    schema = {"job": pl.String(), "resource": pl.UInt64(), "time": TIME, "clock": pl.Float64()}
    bounds = {"first": f"{window.start:%Y-%m-%d %H:%M:%S}", "last": f"{window.end:%Y-%m-%d %H:%M:%S}"}
    far = set()
    for (job, time), some in reader.query(sql, bounds, schema).group_by("job", "time"):
        clocks = some["clock"].to_numpy()
        if len(clocks) >= 8:
            off = np.abs(clocks - np.median(clocks))
            limit = OUTLYING_Z * max(ROBUST_SIGMA * np.median(off), CLOCK_FLOOR_HERTZ)
            far |= {(job, time, gpu) for gpu, one in zip(some["resource"], off, strict=True) if one > limit}
    by_clock = (pl.col("clock") - pl.col("clock_median")).abs() > OUTLYING_Z * pl.max_horizontal(
        ROBUST_SIGMA * pl.col("clock_mad"), CLOCK_FLOOR_HERTZ
    )
    assert far
    assert set(found.filter(by_clock).select("job", "time", "resource").iter_rows()) == far


def test_gpu_with_a_bad_thermal_interface_is_the_straggler(
    filled: tuple[FilledSite, Reader], document: dict[str, Any]
) -> None:
    """Its driver slows it down while it works for a job of eight GPUs or more; nobody else is called slow."""
    site, _ = filled
    outages = site.simulation.outages(*bounds_s(site))
    slowed = {str(outage.resource) for outage in outages if outage.fault == "thermal_interface"}
    assert slowed
    told = {row["resource"] for row in document["stragglers"] if row["corroborated"]}
    assert told == slowed
    assert kpi(document, "stragglers")["value"] == len(slowed)
    heat = next(line for line in document["gpu_hours"]["throttling"] if line["name"] == "Heat (driver)")
    assert heat["gpu_hours"] > 1


def test_racks_run_at_the_design_rise_of_the_simulation(document: dict[str, Any]) -> None:
    """Its valves aim at 10 K, from a quarter of full flow on; its plates are 18 K/kW over the coolant and 3 K more."""
    for rack in document["racks"]:
        assert -0.05 < rack["overflow_ratio"] < 0.25
        assert rack["rise_kelvin"] == pytest.approx(10 / (1 + rack["overflow_ratio"]), rel=0.01)
        assert 3 + 0.018 * 700 < rack["approach_kelvin"] < 3 + 0.018 * 1500


def test_missing_readings_lower_coverage_and_are_unknown(filled: tuple[FilledSite, Reader], tmp_path: Path) -> None:
    """Of a day that was over for an hour only the hour before it is stored: nothing may look measured."""
    site, reader = filled
    later = type(site.period).parse(f"{site.period.end:%Y-%m-%d}", "UTC")
    path = write_efficiency_report(reader, later, tmp_path, now=later.end)
    found = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    unknown = next(line for line in found["gpu_hours"]["health"] if line["name"] == "unknown")
    down = next(line for line in found["gpu_hours"]["health"] if line["name"] == "down")
    assert unknown["gpu_hours"] + down["gpu_hours"] > 22 * GPUS
    for one in found["figures"]:
        assert one["quality"] != "measured" or one["coverage"] >= 0.99, one["key"]
    assert kpi(found, "available")["quality"] == "estimated"


def test_empty_period_is_all_blanks(filled: tuple[FilledSite, Reader], tmp_path: Path) -> None:
    site, reader = filled
    before = type(site.period).parse(f"{site.period.start - timedelta(days=20):%Y-%m-%d}", "UTC")
    path = write_efficiency_report(reader, before, tmp_path, now=site.now)
    found = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    counts = {"stragglers", "lemons"}
    told = {one["key"] for one in found["figures"] if one["value"] is not None and one["key"] not in counts}
    assert told == set()
    assert all(one["reason"] for one in found["figures"] if one["value"] is None)
    assert "No GPU of Kvandal was seen" in path.read_text(encoding="utf-8")


def test_page_opens_in_a_browser(page: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium")
    if browser is None:
        raise ServerUnavailable("chromium is not installed: it opens the report pages")
    shown = subprocess.run(
        [browser, "--headless", "--no-sandbox", f"--user-data-dir={tmp_path}", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, check=True, timeout=100,
    ).stdout  # fmt: skip
    for text in ("Where the GPU time went", "MFU proxy", "Coolant by rack", "Lemon nodes"):
        assert text in shown
    assert shown.count("<svg") >= 4
