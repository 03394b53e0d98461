"""The energy of jobs in the real engine: against the simulation's truth, and after every kind of correction."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from clickhouse_connect.driver.client import Client

from catalogue import GPU, TRAY, ResourceKind, resource_id
from storage.client import connect
from storage.job_energy import JobEnergyKeeper, integrate
from storage.reader import Reader
from storage.schema import apply
from storage.topology import recompute_places
from storage.writer import Writer
from stream.rows import pack
from stream.topics import INVENTORY, JOBS
from tests.conftest import DoorUnderTest
from tests.servers.efficiency_site import InventoryMessage, JobMessage, tell
from tests.servers.stack import until

pytest.importorskip("chdb")

START = (datetime.now(UTC) - timedelta(days=3)).replace(hour=6, minute=0, second=0, microsecond=0)
TRAY_ID = resource_id(ResourceKind.TRAY, "T1")
GPU_IDS = [resource_id(ResourceKind.GPU, f"G{n}") for n in range(4)]
GPU_WATTS, TRAY_WATTS = 1_000.0, 5_000.0
TICK_S = 300


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


@pytest.fixture
def client(door: DoorUnderTest) -> Iterator[Client]:
    """A store with one tray of four GPUs, which drew 5 kW and 1 kW each for eight hours."""
    door.empty()
    with closing(connect(door.address())) as opened:
        apply(opened)
        fill(opened)
        yield opened
    door.empty()


def fill(client: Client) -> None:
    times = np.arange(int(START.timestamp()), int(at(8).timestamp()) + 1, TICK_S)
    writer = Writer(client)
    for gpu in GPU_IDS:
        watts = np.full(len(times), GPU_WATTS)
        rows = pack(GPU, gpu, times, {"power_watts": watts, "energy_joules": watts * TICK_S})
        writer.insert_rows("gpu", rows, token=f"gpu {gpu} {START}")
    joules = np.full(len(times), TRAY_WATTS * TICK_S)
    writer.insert_rows("tray", pack(TRAY, TRAY_ID, times, {"energy_joules": joules}), token=f"tray {START}")
    things = [(ResourceKind.TRAY, "T1", 0), *((ResourceKind.GPU, f"G{n}", TRAY_ID) for n in range(4))]
    tell(client, INVENTORY, [
        InventoryMessage(resource=resource_id(kind, identity), kind=kind, identity=identity, name=identity,
                         valid_from_ms=ms(START), parent=parent)
        for kind, identity, parent in things
    ])  # fmt: skip
    recompute_places(client)


def hold(
    gpu: int, first: float, last: float | None, *, job: str = "job", attributes: dict[str, str] | None = None
) -> JobMessage:
    return JobMessage(
        job=job, resource=GPU_IDS[gpu], start_ms=ms(at(first)), end_ms=None if last is None else ms(at(last)),
        attributes=attributes or {},
    )  # fmt: skip


def energies(client: Client) -> dict[str, dict[str, Any]]:
    rows = client.query("SELECT * FROM job_energy FINAL").named_results()
    return {row["job"]: dict(row) for row in rows}


def test_energy_of_a_job_is_its_boards_and_its_share_of_the_tray(client: Client) -> None:
    """Two of four GPUs for 2 h 10 min: 2 kW of boards; of the 1 kW that the tray draws besides, a half."""
    tell(client, JOBS, [hold(0, 1, 3 + 1 / 6), hold(1, 1, 3 + 1 / 6)])
    assert JobEnergyKeeper(client).recompute().written == 1
    found, seconds = energies(client)["job"], 7800.0
    assert found["gpu_joules"] == pytest.approx(2 * GPU_WATTS * seconds)
    assert found["overhead_joules"] == pytest.approx(0.5 * (TRAY_WATTS - 4 * GPU_WATTS) * seconds)
    assert found["gpus"] == 2
    assert found["gpu_seconds"] == pytest.approx(2 * seconds)
    assert found["observed_gpu_seconds"] == pytest.approx(2 * seconds)


def test_job_that_runs_has_no_energy_yet(client: Client) -> None:
    tell(client, JOBS, [hold(0, 1, 2), hold(1, 1, None)])
    assert JobEnergyKeeper(client).recompute().written == 0
    assert energies(client) == {}


def test_corrected_end_is_computed_again_and_replaces_the_old_figure(client: Client) -> None:
    keeper = JobEnergyKeeper(client)
    tell(client, JOBS, [hold(0, 1, 3)], at=datetime.now(UTC) - timedelta(hours=1))
    assert keeper.recompute().written == 1
    assert keeper.recompute().written == 0
    tell(client, JOBS, [hold(0, 1, 2)])
    assert keeper.recompute().written == 1
    assert energies(client)["job"]["gpu_joules"] == pytest.approx(GPU_WATTS * 3600)
    assert client.query("SELECT count() FROM job_energy FINAL").result_rows == [(1,)]


def test_hold_that_was_taken_back_is_none(client: Client) -> None:
    """A start that was wrong: the row ends where it starts, and one with the right start stands beside it."""
    tell(client, JOBS, [hold(0, 1, 1, attributes={"retracted": "start"}), hold(0, 2, 3)])
    JobEnergyKeeper(client).recompute()
    found = energies(client)["job"]
    assert found["gpu_joules"] == pytest.approx(GPU_WATTS * 3600)
    assert (found["gpus"], found["start"].replace(tzinfo=UTC)) == (1, at(2))


def test_job_that_was_taken_back_or_forgotten_leaves_the_table(client: Client) -> None:
    keeper = JobEnergyKeeper(client)
    tell(client, JOBS, [hold(0, 1, 2), hold(1, 1, 2, job="other")], at=datetime.now(UTC) - timedelta(hours=1))
    assert keeper.recompute().written == 2
    tell(client, JOBS, [hold(0, 1, 1, attributes={"retracted": "job"})])
    client.command("ALTER TABLE jobs DELETE WHERE job = 'other'")
    until(lambda: client.query("SELECT count() FROM jobs WHERE job = 'other'").result_rows == [(0,)], what="forgotten")
    assert keeper.recompute().deleted == 2
    until(lambda: energies(client) == {}, what="both jobs have left the table")


def test_shared_gpu_counts_by_the_devices_that_were_given(client: Client) -> None:
    tell(client, JOBS, [hold(0, 1, 2, attributes={"devices": "2", "devices_of_gpu": "8"})])
    JobEnergyKeeper(client).recompute()
    found = energies(client)["job"]
    assert found["gpu_joules"] == pytest.approx(0.25 * GPU_WATTS * 3600)
    assert found["overhead_joules"] == pytest.approx(0.25 / 4 * (TRAY_WATTS - 4 * GPU_WATTS) * 3600)


def test_tray_that_tells_nothing_leaves_its_part_open(client: Client) -> None:
    client.command("TRUNCATE TABLE tray_1m")
    tell(client, JOBS, [hold(0, 1, 2)])
    JobEnergyKeeper(client).recompute()
    assert energies(client)["job"]["overhead_joules"] is None


def test_energy_told_across_a_gap_counts_as_estimated(client: Client) -> None:
    """Readings of an hour are missing; the first one after them tells of the whole hour, as an agent does."""
    client.command("TRUNCATE TABLE gpu_1m")
    start = int(START.timestamp())
    times = np.array([start, start + 300, start + 3900, start + 4200])
    joules = GPU_WATTS * np.array([300.0, 300.0, 3600.0, 300.0])
    rows = pack(GPU, GPU_IDS[0], times, {"power_watts": np.full(4, GPU_WATTS), "energy_joules": joules})
    Writer(client).insert_rows("gpu", rows, token=f"a gap {START}")
    asked = pl.DataFrame(
        [(1, GPU_IDS[0], START, START + timedelta(seconds=4200))],
        schema={"key": pl.UInt64(), "resource": pl.UInt64(), "start": pl.Datetime("ms", "UTC"),
                "end": pl.Datetime("ms", "UTC")},
        orient="row",
    )  # fmt: skip
    found = integrate(Reader(client), GPU, asked).row(0, named=True)
    assert found["joules"] == pytest.approx(GPU_WATTS * 4200)
    assert found["estimated_joules"] == pytest.approx(GPU_WATTS * 3600)
    assert found["observed_s"] == pytest.approx(600)


def test_minutes_of_many_readings_count_for_themselves(client: Client) -> None:
    """At 1 Hz: a hold from 10 s into a minute to 20 s into the third is 130 s."""
    client.command("TRUNCATE TABLE gpu_1m")
    times = np.arange(int(START.timestamp()), int(START.timestamp()) + 600)
    watts = np.full(600, GPU_WATTS)
    rows = pack(GPU, GPU_IDS[0], times, {"power_watts": watts, "energy_joules": watts})
    Writer(client).insert_rows("gpu", rows, token=f"every second {START}")
    tell(client, JOBS, [hold(0, 190 / 3600, 320 / 3600)])
    JobEnergyKeeper(client).recompute()
    found = energies(client)["job"]
    assert found["gpu_joules"] == pytest.approx(GPU_WATTS * 130, rel=1e-6)
    assert found["observed_gpu_seconds"] == pytest.approx(130)
