"""Many devices at once: states, deadlines and pauses; and what facility sources make of their answers."""

import logging
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Lock, current_thread
from types import MappingProxyType

import pytest

from catalogue import COOLING, POINTS, POWER, ResourceKind, resource_id
from catalogue.point import UNIT_CODES
from catalogue.units import CELSIUS, PASCALS, WATTS, Unit
from collectors.device_pool import DevicePool
from collectors.devices import DeviceError, DeviceReport, DeviceState
from collectors.facility import Measurement, Point, PointValue, Quality, gateway_id, readings_of
from collectors.source import Reading
from stream.messages import encode_message
from stream.rows import in_base_unit
from tests.servers.agent_fakes import START_S, FakeClock

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 0.3
NO_MORE: Mapping[str, "Device"] = MappingProxyType({})
PATIENCE_S = 20.0


class Device:
    """A device that does what a test tells it."""

    def __init__(self, answer: str = "answer") -> None:
        self.answer = answer
        self.failure: BaseException | None = None
        self.wait: Callable[[], object] = lambda: None
        self.asked = 0

    def read(self) -> str:
        self.asked += 1
        self.wait()
        if self.failure is not None:
            raise self.failure
        return self.answer


@contextmanager
def pool_of(
    clock: FakeClock, *, workers: int = 8, more: Mapping[str, Device] = NO_MORE, **devices: Device
) -> Iterator[DevicePool[str]]:
    reads = {name: device.read for name, device in (devices | dict(more)).items()}
    pool = DevicePool(reads, source="test", workers=workers, deadline_s=DEADLINE_S, clock=clock)
    try:
        yield pool
    finally:
        pool.close()


def states(pool: DevicePool[str]) -> dict[str, DeviceState]:
    return {report.device: report.state for report in pool.reports()}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def released() -> Iterator[Event]:
    """What a device that hangs waits for; no thread is left behind."""
    released = Event()
    yield released
    released.set()


# --- states


def test_before_the_first_poll_nothing_is_known(clock: FakeClock) -> None:
    with pool_of(clock, one=Device()) as pool:
        assert pool.reports() == [DeviceReport("one", DeviceState.UNKNOWN)]


def test_devices_that_answer_are_ok_and_their_answers_come_by_name(clock: FakeClock) -> None:
    with pool_of(clock, one=Device("1"), two=Device("2")) as pool:
        assert pool.poll() == {"one": "1", "two": "2"}
        assert states(pool) == dict.fromkeys(("one", "two"), DeviceState.OK)
        assert all(report.took_s is not None and 0 <= report.took_s < DEADLINE_S for report in pool.reports())


@pytest.mark.parametrize(
    ("failure", "state", "why"),
    [
        (DeviceError(DeviceState.REFUSED, "GET /redfish: 401"), DeviceState.REFUSED, "GET /redfish: 401"),
        (KeyError("Reading"), DeviceState.NONSENSE, "KeyError: 'Reading'"),
        (RecursionError("too deep"), DeviceState.NONSENSE, "RecursionError: too deep"),
        (SystemExit("a library gives up"), DeviceState.NONSENSE, "SystemExit: a library gives up"),
    ],
)
def test_a_device_that_fails_says_why_and_its_neighbour_answers(
    clock: FakeClock, failure: BaseException, state: DeviceState, why: str
) -> None:
    sick, well = Device(), Device()
    sick.failure = failure
    with pool_of(clock, sick=sick, well=well) as pool:
        assert pool.poll() == {"well": "answer"}
        report = next(report for report in pool.reports() if report.device == "sick")

    assert report.state is state
    assert why in report.why
    assert report.took_s is None


def test_what_a_device_says_is_bounded(clock: FakeClock) -> None:
    sick = Device()
    sick.failure = ValueError("x" * 1_000_000)
    with pool_of(clock, sick=sick) as pool:
        pool.poll()
        (report,) = pool.reports()

    assert len(report.why) <= 500


def test_a_pool_of_no_devices_has_no_answers(clock: FakeClock) -> None:
    with pool_of(clock) as pool:
        assert pool.poll() == {}
        assert pool.reports() == []


# --- deadlines


def test_a_device_that_hangs_costs_one_deadline_and_is_not_asked_again_before_it_returns(
    clock: FakeClock, released: Event
) -> None:
    sick, well = Device(), Device()
    sick.wait = released.wait
    with pool_of(clock, sick=sick, well=well) as pool:
        started_s = time.monotonic()
        assert pool.poll() == {"well": "answer"}
        assert DEADLINE_S <= time.monotonic() - started_s < DEADLINE_S + 2
        assert states(pool)["sick"] is DeviceState.SLOW

        started_s = time.monotonic()
        for _ in range(5):
            clock.advance(1000)
            assert pool.poll() == {"well": "answer"}
        assert time.monotonic() - started_s < DEADLINE_S
        assert sick.asked == 1


def test_an_answer_that_comes_late_is_dropped_and_the_device_is_asked_anew(clock: FakeClock, released: Event) -> None:
    device = Device("of the first tick")
    device.wait = released.wait
    with pool_of(clock, one=device) as pool:
        assert pool.poll() == {}
        device.wait = lambda: None
        released.set()
        answered: dict[str, str] = {}
        deadline_s = time.monotonic() + PATIENCE_S
        while not answered and time.monotonic() < deadline_s:
            device.answer = "of this tick"
            answered = pool.poll()

        assert answered == {"one": "of this tick"}
        assert states(pool)["one"] is DeviceState.OK


def test_devices_that_hang_do_not_make_their_neighbours_wait_longer(clock: FakeClock, released: Event) -> None:
    """One worker, which the first device keeps: the second one was never asked, which is not its fault."""
    sick, well = Device(), Device()
    sick.wait = lambda: released.wait(PATIENCE_S)
    with pool_of(clock, workers=1, sick=sick, well=well) as pool:
        for _ in range(4):
            assert pool.poll() == {}
        report = next(report for report in pool.reports() if report.device == "well")
        assert report.state is DeviceState.SLOW
        assert "its turn did not come" in report.why
        sick.failure = DeviceError(DeviceState.UNREACHABLE, "gone")
        released.set()
        deadline_s = time.monotonic() + PATIENCE_S
        while states(pool)["well"] is not DeviceState.OK and time.monotonic() < deadline_s:
            pool.poll()  # no second passes: it is asked as soon as there is a worker

        assert states(pool)["well"] is DeviceState.OK


def test_a_device_that_begins_late_and_then_hangs_is_found_out(clock: FakeClock, released: Event) -> None:
    first, second = Device(), Device()
    first.wait = lambda: time.sleep(DEADLINE_S * 0.6)
    second.wait = released.wait
    with pool_of(clock, workers=1, first=first, second=second) as pool:
        pool.poll()
        deadline_s = time.monotonic() + PATIENCE_S
        while "no answer" not in pool.reports()[1].why and time.monotonic() < deadline_s:
            pool.poll()

        assert pool.reports()[1].why == f"no answer within {DEADLINE_S:g} s"
        assert second.asked == 1


def test_where_workers_do_not_suffice_every_device_has_its_turn(clock: FakeClock) -> None:
    devices = {f"device_{number}": Device() for number in range(6)}
    for device in devices.values():
        device.wait = lambda: time.sleep(DEADLINE_S * 0.6)
    with pool_of(clock, workers=2, more=devices) as pool:
        answered: set[str] = set()
        polls = 0
        while answered != devices.keys() and polls < 20:
            answered |= pool.poll().keys()  # no second passes: nobody is made to wait for its turn
            polls += 1

    assert answered == devices.keys()


def test_no_more_devices_are_read_at_once_than_there_are_workers(clock: FakeClock) -> None:
    lock, names = Lock(), set()
    devices = {f"device_{number}": Device() for number in range(20)}

    def note() -> None:
        with lock:
            names.add(current_thread().name)

    for device in devices.values():
        device.wait = note
    with pool_of(clock, workers=3, more=devices) as pool:
        assert len(pool.poll()) == 20

    assert 1 <= len(names) <= 3


def test_a_device_that_hangs_does_not_keep_the_process_from_ending() -> None:
    program = """
from threading import Event
from collectors.device_pool import DevicePool
from stream.clock import SystemClock
pool = DevicePool({"sick": Event().wait}, source="test", workers=1, deadline_s=0.1, clock=SystemClock())
pool.poll()
pool.close()
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=PATIENCE_S, check=False)

    assert ended.returncode == 0


# --- pauses


def test_a_device_that_fails_once_is_asked_at_the_next_tick_and_then_less_and_less_often(clock: FakeClock) -> None:
    """The pauses before it is asked again: none, then 10, 20, 40, 80, 160 and at most 300 seconds."""
    sick = Device()
    sick.failure = DeviceError(DeviceState.UNREACHABLE, "nobody listens")
    asked_at = []
    with pool_of(clock, sick=sick) as pool:
        for second in range(1300):
            before = sick.asked
            pool.poll()
            if sick.asked > before:
                asked_at.append(second)
            clock.advance(1)

    assert asked_at == [0, 1, 11, 31, 71, 151, 311, 611, 911, 1211]


def test_a_device_that_answers_again_is_asked_at_every_tick(clock: FakeClock) -> None:
    device = Device()
    device.failure = DeviceError(DeviceState.UNREACHABLE, "nobody listens")
    with pool_of(clock, one=device) as pool:
        for _ in range(20):
            pool.poll()
            clock.advance(10)
        device.failure = None
        clock.advance(300)
        assert pool.poll() == {"one": "answer"}
        for _ in range(3):
            clock.advance(1)
            assert pool.poll() == {"one": "answer"}


# --- the log


def test_a_change_is_said_once_for_all_devices_that_share_it(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    devices = {f"device_{number}": Device() for number in range(7)}
    for device in devices.values():
        device.failure = DeviceError(DeviceState.REFUSED, "401")
    with caplog.at_level(logging.INFO), pool_of(clock, well=Device(), more=devices) as pool:
        for _ in range(100):
            pool.poll()
            clock.advance(1)

    (record,) = caplog.records
    assert record.getMessage() == "devices are refused now: 401"
    assert record.__dict__["count"] == 7
    assert record.__dict__["devices"].endswith(" and 2 more")


def test_a_device_that_comes_and_goes_does_not_fill_the_log(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    device = Device()
    with caplog.at_level(logging.INFO), pool_of(clock, one=device) as pool:
        for second in range(600):
            device.failure = DeviceError(DeviceState.SLOW, "late") if second % 2 else None
            pool.poll()
            clock.advance(1)

    assert len(caplog.records) <= 10  # one a minute


def test_what_changed_within_a_minute_is_said_in_the_end(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    device = Device()
    device.failure = DeviceError(DeviceState.SLOW, "late")
    with caplog.at_level(logging.INFO), pool_of(clock, one=device) as pool:
        pool.poll()
        device.failure = None
        for _ in range(70):
            pool.poll()
            clock.advance(1)

    assert [record.getMessage() for record in caplog.records] == ["devices are slow now: late", "devices are ok now"]


# --- readings of a facility


ACTIVE = "active_power_watts"
CDU, METER = resource_id(ResourceKind.CDU, "cdu-1"), resource_id(ResourceKind.METER, "meter-1")


def point(name: str, unit: Unit = PASCALS) -> Point:
    return Point(CDU, "cdu-1", name, unit)


def column(reading: Reading, name: str) -> list[float]:
    values: list[float] = in_base_unit(reading.table.metric(name), reading.rows).tolist()
    return values


def test_measurements_become_one_reading_for_each_table_in_base_units() -> None:
    temperature = next(metric.name for metric in COOLING.metrics if metric.unit is CELSIUS)
    readings = readings_of(
        9,
        START_S,
        [
            Measurement(COOLING, CDU, {temperature: 32.5}),
            Measurement(POWER, METER, {ACTIVE: 250_000.0}, Quality.HELD),
            Measurement(COOLING, CDU + 1, {}),
        ],
    )

    cooling, power = readings
    assert (cooling.table, power.table) == (COOLING, POWER)
    assert {reading.source for reading in readings} == {9}
    by_resource = dict(zip(cooling.rows["resource"].tolist(), column(cooling, temperature), strict=True))
    assert by_resource[CDU] == 32.5
    assert math.isnan(by_resource[CDU + 1])
    assert column(power, ACTIVE) == [250_000.0]
    assert column(power, "quality_state") == [Quality.HELD]
    assert power.rows["time"].tolist() == [START_S]


def test_the_later_of_two_measurements_of_one_resource_counts() -> None:
    measurements = [Measurement(POWER, METER, {ACTIVE: watts}) for watts in (1000.0, 2000.0)]

    (reading,) = readings_of(9, START_S, measurements)

    assert column(reading, ACTIVE) == [2000.0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300, 10**400, -(10**400), "12", None, [1.0]])
def test_what_is_no_number_that_fits_is_absent_and_spoils_nothing_else(value: float) -> None:
    """Sources are typed, devices are not."""
    readings = readings_of(
        9,
        START_S,
        [Measurement(POWER, METER, {ACTIVE: value}), Measurement(POWER, METER + 1, {ACTIVE: 5000.0})],
        [PointValue(point("bad"), value), PointValue(point("good"), 5.0)],
    )

    for reading, name in zip(readings, (ACTIVE, "value_own_unit"), strict=True):
        absent, present = column(reading, name)
        assert math.isnan(absent)
        assert present in (5000.0, 5.0)


def test_points_carry_their_unit_and_quality() -> None:
    (reading,) = readings_of(9, START_S, [], [PointValue(point("pressure"), 250_000.0, Quality.BAD)])

    assert reading.table is POINTS
    assert column(reading, "value_own_unit") == [250_000.0]
    assert column(reading, "unit_state") == [UNIT_CODES[PASCALS]]
    assert column(reading, "quality_state") == [Quality.BAD]
    assert reading.rows["resource"].tolist() == [resource_id(ResourceKind.POINT, "cdu-1/pressure")]


def test_a_point_in_a_unit_that_nobody_knows_is_left_out() -> None:
    furlongs = Unit("furlongs", "fur", "none", "[fur_us]")

    (reading,) = readings_of(
        9, START_S, [], [PointValue(point("a", furlongs), 1.0), PointValue(point("b", WATTS), 2.0)]
    )
    assert column(reading, "value_own_unit") == [2.0]
    assert readings_of(9, START_S, [], [PointValue(point("a", furlongs), 1.0)]) == []


def test_a_point_s_inventory_fits_a_message_whatever_the_device_calls_it() -> None:
    message = point("x" * 5000).inventory(valid_from_ms=1, source=9)

    assert len(message.name) == len(message.identity) == 256
    assert message.resource == resource_id(ResourceKind.POINT, "cdu-1/" + "x" * 5000)
    assert (message.parent, message.kind) == (CDU, ResourceKind.POINT)
    assert message.attributes == {"unit": "pascals", "point_kind": "gauge"}
    encode_message(message)


def test_nothing_read_is_no_reading() -> None:
    assert readings_of(9, START_S, []) == []


def test_each_source_of_a_gateway_has_an_id_of_its_own() -> None:
    ids = {gateway_id(place, name) for place in ("tray-1", "tray-2") for name in ("modbus", "snmp")}

    assert len(ids) == 4
    assert gateway_id("tray-1", "modbus") == resource_id(ResourceKind.AGENT, "tray-1/modbus")
