"""The simulated source: its readings, its backfill and its messages keep the contracts of a real one."""

from collections.abc import Iterable, Sequence

import numpy as np
import pytest

from catalogue import COOLING, GPU, POWER, RACK, TRAY, ResourceKind, Table, resource_id
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
    assert {r.table.name for r in source.read(OCTOBER_S)} == {"gpu", "tray", "rack", "cooling", "power"}
    assert {r.table.name for r in source.read(OCTOBER_S + 1)} == {"gpu"}
    assert {r.table.name for r in source.read(OCTOBER_S + 10)} == {"gpu", "tray", "rack", "cooling", "power"}


def test_each_tray_rack_and_gateway_sends_its_own_reading() -> None:
    source = make_source()
    site = source.simulation.site
    readings = source.read(OCTOBER_S)
    counts = {t: sum(r.table is t for r in readings) for t in (GPU, TRAY, RACK, COOLING, POWER)}
    assert counts == {GPU: 40, TRAY: 40, RACK: 3, COOLING: 1, POWER: 1}
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
    for table, tick_s, per_tick in ((GPU, 300, 160), (TRAY, 300, 40), (RACK, 60, 3), (COOLING, 60, 4), (POWER, 60, 4)):
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
    with pytest.raises(ValueError, match="multiple of facility_tick_s"):
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
    assert all(event.code > 0 for event in events if event.kind == "xid")
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
