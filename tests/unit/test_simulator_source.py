"""The simulated source: its readings, its backfill and its messages keep the contracts of a real one."""

from collections.abc import Iterable, Sequence

import numpy as np
import pytest

from catalogue import COOLING, GPU, GPU_HEALTH, PORT, POWER, RACK, TRAY, ResourceKind, Table, resource_id
from collectors.simulator import SimulatorSource
from collectors.source import Reading, Source
from simulation import Simulation, Site
from stream.messages import EventMessage, JobMessage, encode_message
from stream.rows import Rows, in_base_unit

OCTOBER_S = 1_790_812_800  # 2026-10-01T00:00:00Z
HOUR_S = 3600
ROLES = {"site", "it", "cooling", "other", "heat_handed_over", "heat_rejected", "cdu", "loop"}


def make_source(gpus: int = 160, *, fault_rate: float = 0.0, **cadences: int) -> SimulatorSource:
    return SimulatorSource(Simulation(Site.build(gpus, 11), OCTOBER_S, fault_rate=fault_rate), **cadences)


def rows_of(readings: Iterable[Reading], table: Table) -> Rows:
    return np.concatenate([reading.rows for reading in readings if reading.table is table])


def flattened(chunks: Iterable[Sequence[Reading]]) -> list[Reading]:
    return [reading for chunk in chunks for reading in chunk]


def test_it_is_a_source() -> None:
    source: Source = make_source()
    assert source.name == "simulator Kvandal"
    source.close()
    source.close()


def test_tables_are_read_at_their_cadence() -> None:
    source = make_source()
    every_ten_seconds = {"gpu", "port", "tray", "rack", "cooling", "power"}
    assert {r.table.name for r in source.read(OCTOBER_S)} == every_ten_seconds | {"gpu_health"}
    assert {r.table.name for r in source.read(OCTOBER_S + 1)} == {"gpu"}
    assert {r.table.name for r in source.read(OCTOBER_S + 10)} == every_ten_seconds


def test_each_tray_rack_and_gateway_sends_its_own_reading() -> None:
    source = make_source()
    site = source.simulation.site
    readings = source.read(OCTOBER_S)
    tables = (GPU, GPU_HEALTH, PORT, TRAY, RACK, COOLING, POWER)
    counts = {t: sum(r.table is t for r in readings) for t in tables}
    assert counts == {GPU: 40, GPU_HEALTH: 40, PORT: 40, TRAY: 40, RACK: 3, COOLING: 1, POWER: 1}
    gpu = [r for r in readings if r.table is GPU]
    for tray, reading in enumerate(gpu):
        assert reading.rows["resource"].tolist() == site.gpu_ids[tray].tolist()
        assert set(reading.rows["time"].tolist()) == {OCTOBER_S}
    assert [r.source for r in gpu] == [r.source for r in readings if r.table is TRAY]
    assert len({r.source for r in readings}) == 40 + 3 + 2


@pytest.mark.parametrize("ticks_per_frame", [7, 60])
def test_backfill_covers_the_period_once_in_order(ticks_per_frame: int) -> None:
    source = make_source()
    end_s = OCTOBER_S + 5 * HOUR_S + 900
    readings = flattened(source.backfill(OCTOBER_S, end_s, ticks_per_frame=ticks_per_frame))
    slow = ((GPU_HEALTH, 3600, 160), (PORT, 3600, 160))
    quick = ((GPU, 300, 160), (TRAY, 300, 40), (RACK, 60, 3), (COOLING, 60, 4), (POWER, 60, 4))
    for table, tick_s, per_tick in slow + quick:
        rows = rows_of(readings, table)
        ticks = np.unique(rows["time"])
        assert ticks.tolist() == list(range(OCTOBER_S, end_s, tick_s))
        assert len(rows) == len(ticks) * per_tick
        assert len(np.unique(rows[["resource", "time"]])) == len(rows)
    for reading in readings:
        assert 1 <= reading.ticks <= ticks_per_frame
        each = reading.rows["time"].reshape(reading.ticks, -1)
        assert (each == each[:, :1]).all()
        assert (np.diff(each[:, 0].astype(np.int64)) > 0).all()
        ids = reading.rows["resource"].reshape(reading.ticks, -1)
        assert (ids == ids[0]).all()


def test_readings_of_one_source_come_in_order_of_time() -> None:
    last: dict[tuple[int, str], int] = {}
    for reading in flattened(make_source().backfill(OCTOBER_S, OCTOBER_S + 12 * HOUR_S, ticks_per_frame=10)):
        key = (reading.source, reading.table.name)
        assert reading.rows["time"][0] > last.get(key, 0)
        last[key] = int(reading.rows["time"][-1])


@pytest.mark.parametrize("fault_rate", [0.0, 500.0])
def test_stored_energy_of_a_backfill_is_the_truth_within_a_count(fault_rate: float) -> None:
    source = make_source(fault_rate=fault_rate)
    end_s = OCTOBER_S + 24 * HOUR_S
    readings = flattened(source.backfill(OCTOBER_S, end_s))
    readings += source.read(end_s)  # the first live tick closes the period
    site, truth = source.simulation.site, source.simulation.truth.fleet(OCTOBER_S, end_s)
    for table, ids, expected in ((GPU, site.gpu_ids, truth.gpu), (TRAY, site.tray_ids, truth.tray)):
        rows = rows_of(readings, table)
        metric = table.metric("energy_joules")
        order = np.argsort(ids.ravel())
        places = order[np.searchsorted(ids.ravel()[order], rows["resource"])]
        sums = np.bincount(places, np.nan_to_num(in_base_unit(metric, rows)))
        last = in_base_unit(metric, rows[rows["time"] == end_s])
        readable = ~np.isnan(last)  # what a dark GPU drew before is due when it is back
        np.testing.assert_allclose(sums[readable], expected.ravel()[readable], rtol=0, atol=float(metric.resolution))


def test_backfill_reads_what_single_reads_would() -> None:
    end_s = OCTOBER_S + 3 * HOUR_S
    packed = rows_of(flattened(make_source().backfill(OCTOBER_S, end_s, ticks_per_frame=9)), GPU)
    single = make_source(gpu_cadence_s=300, facility_cadence_s=60)
    one_by_one = rows_of([r for t in range(OCTOBER_S, end_s, 60) for r in single.read(t)], GPU)
    order = ["time", "resource"]
    np.testing.assert_array_equal(np.sort(packed, order=order), np.sort(one_by_one, order=order))


def test_backfill_refuses_ticks_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="multiples of facility_tick_s"):
        next(make_source().backfill(OCTOBER_S, OCTOBER_S + 600, gpu_tick_s=90))


def test_registers_in_frames_give_the_period_within_a_count() -> None:
    source = make_source()
    end_s = OCTOBER_S + 6 * HOUR_S
    readings = flattened(source.backfill(OCTOBER_S, end_s)) + list(source.read(end_s))
    rows = rows_of(readings, POWER)
    register = in_base_unit(POWER.metric("energy_import_joules"), rows).reshape(-1, 4)
    truth = source.simulation.truth.facility(OCTOBER_S, end_s)
    np.testing.assert_allclose(register[-1] - register[0], truth.meter, rtol=0, atol=3600)


def test_inventory_names_every_resource_and_its_source() -> None:
    source = make_source()
    inventory = {message.resource: message for message in source.inventory()}
    for reading in source.read(OCTOBER_S):
        for resource in reading.rows["resource"].tolist():
            assert inventory[resource].source == reading.source
            assert inventory[resource].kind in reading.table.resources
            assert inventory[resource].resource == resource_id(inventory[resource].kind, inventory[resource].identity)
    assert all(encode_message(message) for message in inventory.values())


def test_inventory_says_what_meters_and_loops_are_for() -> None:
    inventory = make_source().inventory()
    kinds = {ResourceKind.METER, ResourceKind.HEAT_METER, ResourceKind.CDU, ResourceKind.LOOP}
    roles = [message.attributes["role"] for message in inventory if message.kind in kinds]
    assert set(roles) == ROLES
    assert [roles.count(role) for role in ("site", "cooling", "other")] == [1, 1, 1]
    handed_over = next(m for m in inventory if m.attributes.get("role") == "heat_handed_over")
    off_taker = next(m for m in inventory if m.kind is ResourceKind.OFF_TAKER)
    assert handed_over.attributes["off_taker"] == off_taker.name
    assert handed_over.serves == (off_taker.resource,)
    loop = next(m for m in inventory if m.kind is ResourceKind.LOOP)
    assert loop.attributes["fluid"] == "MPG 25 % by mass"


def test_events_and_jobs_are_told_once() -> None:
    source = make_source(fault_rate=2_000.0)
    source.read(OCTOBER_S + 6 * HOUR_S)
    messages = source.events()
    events = [m for m in messages if isinstance(m, EventMessage)]
    jobs = [m for m in messages if isinstance(m, JobMessage)]
    assert len({event.id for event in events}) == len(events)
    known = {m.resource for m in source.inventory()}
    assert all(m.resource in known for m in messages)
    codes = [event.code for event in events if event.kind == "xid"]
    assert codes
    assert min(codes) > 0
    assert any(job.end_ms is None for job in jobs)
    assert not source.events()
    assert all(encode_message(m) for m in messages)


def test_each_end_of_a_hold_follows_its_start() -> None:
    source = make_source(fault_rate=500.0)
    begun: set[tuple[str, int, int]] = set()
    for hour in range(1, 49):
        source.read(OCTOBER_S + hour * HOUR_S)
        for message in source.events():
            if not isinstance(message, JobMessage):
                continue
            key = (message.job, message.resource, message.start_ms)
            if message.end_ms is None:
                begun.add(key)
            else:
                assert key in begun
                assert message.end_ms >= message.start_ms


def told_of(readings: Iterable[Reading], table: Table, name: str) -> np.ndarray:
    return in_base_unit(table.metric(name), rows_of(readings, table))


def backfilled(fault_rate: float, hours: int = 72) -> tuple[SimulatorSource, list[Reading]]:
    source = make_source(fault_rate=fault_rate)
    return source, flattened(source.backfill(OCTOBER_S, OCTOBER_S + hours * HOUR_S, 1800, 300, slow_tick_s=300))


@pytest.fixture(scope="module")
def troubled() -> tuple[SimulatorSource, list[Reading]]:
    """Three days with 300 times the faults of the field."""
    return backfilled(300.0)


def test_every_column_of_health_and_ports_is_told_that_such_a_gpu_has() -> None:
    """Up to the fourth generation NVLink counts otherwise: a Blackwell GPU has none of those."""
    _, readings = backfilled(0.0, hours=1)
    for table in (GPU_HEALTH, PORT):
        rows = rows_of(readings, table)
        absent = {m.name for m in table.metrics if np.isnan(in_base_unit(m, rows)).any()}
        assert absent <= {f"nvlink_{name}_count" for name in ("crc_errors", "replays", "recoveries")} | {
            "nvlink_symbol_error_ratio", "nvlink_effective_error_ratio",
        }  # fmt: skip


def test_a_site_without_faults_is_healthy() -> None:
    _, readings = backfilled(0.0, hours=6)
    assert told_of(readings, GPU_HEALTH, "ecc_volatile_uncorrectable_count").max() == 0
    assert told_of(readings, GPU_HEALTH, "recovery_action_state").max() == 0
    assert told_of(readings, GPU_HEALTH, "nvlink_active_count").min() == 18
    assert set(told_of(readings, PORT, "port_state")) == {1.0}
    assert told_of(readings, PORT, "transmit_bytes").sum() > 0


def test_faults_show_in_health_while_they_last_and_in_its_registers_for_good(
    troubled: tuple[SimulatorSource, list[Reading]],
) -> None:
    """Each XID of memory leaves an error, each lost NVLink a failed recovery, each fault of the network a port down."""
    source, readings = troubled
    events = [one for one in source.events() if isinstance(one, EventMessage)]
    memory = sum(one.kind == "xid" and one.code in (48, 64, 94, 95, 140) for one in events)
    links = sum(one.kind == "xid" and one.code in (145, 149) for one in events)
    network = sum(one.kind in ("network", "nic") for one in events)
    assert min(memory, links, network) > 0
    errors = told_of(readings, GPU_HEALTH, "ecc_aggregate_uncorrectable_count")
    assert memory <= last_of_each(readings, errors).sum() <= 2 * memory
    assert np.nanmax(told_of(readings, GPU_HEALTH, "remapped_rows_uncorrectable_count")) >= 1
    assert {0.0, 1.0} <= set(told_of(readings, GPU_HEALTH, "remap_pending_state"))
    assert np.nanmax(told_of(readings, GPU_HEALTH, "nvlink_inactive_count")) >= 1
    assert links <= np.nansum(told_of(readings, GPU_HEALTH, "nvlink_recoveries_failed_count")) <= 2 * links
    assert len(set(told_of(readings, GPU_HEALTH, "recovery_action_state")) - {0.0}) >= 2
    assert {1.0, 5.0, 6.0} == set(told_of(readings, PORT, "port_state"))
    assert 0 < np.nansum(told_of(readings, PORT, "link_downed_count")) <= network


def last_of_each(readings: Iterable[Reading], values: np.ndarray) -> np.ndarray:
    """The last known value of each GPU."""
    resources = rows_of(readings, GPU_HEALTH)["resource"]
    return np.array([values[resources == one][~np.isnan(values[resources == one])][-1] for one in np.unique(resources)])


def test_a_dark_gpu_has_no_health_but_that_it_is_dark(troubled: tuple[SimulatorSource, list[Reading]]) -> None:
    _, readings = troubled
    dark = told_of(readings, GPU_HEALTH, "health_state") == 3
    assert dark.any()
    for metric in GPU_HEALTH.metrics:
        if metric.name != "health_state":
            assert np.isnan(told_of(readings, GPU_HEALTH, metric.name)[dark]).all(), metric.name
