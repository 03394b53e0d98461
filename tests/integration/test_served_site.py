"""The simulated site read through DSX, Modbus and Redfish: what arrives is what the direct simulator gives.

Nothing is stood in for: Eclipse Mosquitto, pymodbus' server and HTTPS with sessions, and the sources that a gateway
has, from the settings file that the site writes. Only the time is the test's.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
from pymodbus.client import ModbusTcpClient
from pymodbus.constants import ExcCodes

from catalogue import COOLING, POWER, RACK, ResourceKind, Table
from collectors.devices import DeviceState
from collectors.dsx.source import DsxSource
from collectors.facility import Quality
from collectors.modbus.map_file import load_register_map
from collectors.modbus.source import ModbusSource
from collectors.redfish.source import RedfishSource
from collectors.simulator import SimulatorSource
from collectors.source import Reading, SourceUnavailableError
from kvandal.serving_site import RacksThrough, ServeOptions, Serving, mqtt_address, open_site, serve_site
from kvandal.settings import AgentSettings, load_settings
from simulation import Simulation, Site
from simulation.serving import Moment
from simulation.serving.dsx import POINT_TYPES, RACK_POINTS, RACK_STATES, BrokerAddress
from simulation.truth import FacilityFigures
from stream.messages import EventMessage
from stream.rows import in_base_unit
from tests.servers.agent_fakes import FakeClock
from tests.servers.mosquitto import Mosquitto
from tests.servers.ports import free_port

START_S = 1_800_000_000
GPUS = 9 * 72 + 36  # ten racks, the last one half full, behind two CDUs
GATEWAY = "gateway-1"
DEADLINE_S = 20.0
KWH = 3.6e6
DAY_S = 86_400
MONTH_DAYS = 31
L_PER_MIN = 1e-3 / 60

# What one step of each sensor is, in base units, as a building has them.
DSX_STEPS = {
    "power_watts": 10.0,
    "liquid_supply_temperature_celsius": 0.01,
    "liquid_return_temperature_celsius": 0.01,
    "liquid_flow_cubic_metres_per_second": 0.1 * L_PER_MIN,
    "liquid_differential_pressure_pascals": 100.0,
    "valve_position_ratio": 0.001,
}
RACK_STEPS = DSX_STEPS | {
    "power_watts": 1.0,
    "energy_register_joules": 3600.0,
    "liquid_heat_watts": 10.0,
    "air_inlet_temperature_celsius": 0.01,
    "power_supply_count": 1.0,
}
COOLING_STEPS = {
    **{
        f"{side}_{name}": step
        for side in ("primary", "secondary")
        for name, step in (
            ("supply_temperature_celsius", 0.01),
            ("return_temperature_celsius", 0.01),
            ("flow_cubic_metres_per_second", 0.1 * L_PER_MIN),
        )
    },
    "secondary_pressure_pascals": 100.0,
    "differential_pressure_pascals": 100.0,
    "heat_flow_watts": 10.0,
    "pump_speed_ratio": 0.001,
    "pump_power_watts": 1.0,
    "valve_position_ratio": 0.001,
    "reservoir_level_ratio": 0.001,
    "dew_point_temperature_celsius": 0.01,
}
STATES = {"leak_state": 0.0, "equipment_state": 0.0}
REGISTERS = {
    "energy_import_joules", "energy_export_joules", "energy_register_joules", "heat_register_joules",
    "volume_register_cubic_metres",
}  # fmt: skip

# What the protocol has no word for, by kind.
NOT_SHOWN: Mapping[ResourceKind, set[str]] = {
    ResourceKind.LOOP: {"dew_point_temperature_celsius", "leak_state"},
    ResourceKind.HEAT_METER: {"equipment_state"},
    ResourceKind.METER: {"breaker_state"},
}

Rows = dict[tuple[Table, int], dict[str, float]]  # what is not absent, by table and resource


@dataclass
class Hall:
    """A served site, the sources of the gateway that reads it, and the direct simulator over the same site."""

    serving: Serving
    settings: AgentSettings
    direct: SimulatorSource
    clock: FakeClock
    modbus: ModbusSource
    redfish: RedfishSource
    dsx: DsxSource | None
    broker: Mosquitto | None

    def tick(self, time_s: int) -> tuple[Rows, Rows]:
        """Move everything to an instant; what the direct simulator gives there, and what comes through protocols."""
        direct = rows_of(self.direct.read(time_s))
        self.show(time_s)
        readings = [*self.modbus.read(time_s), *self.redfish.read(time_s)]
        if self.dsx is not None:
            self.wait_for_bus(self.dsx)
            readings += self.dsx.read(time_s)
        return direct, rows_of(readings)

    def show(self, time_s: int) -> None:
        self.clock.advance(time_s - self.clock.utc_ms() / 1000)
        self.serving.site.advance(time_s)

    def wait_for_bus(self, dsx: DsxSource) -> None:
        """Until everything that was said has been heard."""
        deadline = time.monotonic() + DEADLINE_S
        while dsx.tally().used < self.serving.said():
            assert time.monotonic() < deadline, f"{dsx.tally()} of {self.serving.said()}; {dsx.remarks()}"
            time.sleep(0.005)
        assert not dsx.tally().refused


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def serve(
    running: ExitStack,
    folder: Path,
    through: RacksThrough,
    simulation: Simulation | None = None,
    *,
    gpu_cadence_s: int = 60,
) -> Hall:
    """The site, served and read by the settings that it wrote."""
    simulation = simulation or Simulation(Site.build(GPUS, 1), START_S, seed=1)
    broker = running.enter_context(Mosquitto(folder / "mosquitto")) if through is RacksThrough.DSX else None
    options = ServeOptions(
        folder=folder,
        gpus=simulation.site.gpu_count,
        racks_through=through,
        broker=BrokerAddress(host="127.0.0.1", port=broker.port) if broker else None,
        modbus_port=0,
        redfish_port=0,
    )
    serving = open_site(options, simulation)
    running.callback(serving.close)
    settings = load_settings(AgentSettings, file=serving.settings_file, environment={})
    assert settings == serving.settings
    assert settings.modbus is not None
    assert settings.redfish is not None
    clock = FakeClock(simulation.time_s)
    modbus = ModbusSource(settings.modbus, gateway=GATEWAY, clock=clock)
    redfish = RedfishSource(settings.redfish, gateway=GATEWAY, clock=clock)
    dsx = DsxSource(settings.dsx, gateway=GATEWAY, clock=clock) if settings.dsx else None
    for source in (modbus, redfish, dsx):
        if source is not None:
            running.callback(source.close)
    if dsx is not None:
        dsx.inventory()  # connects: what is said from now on is heard
    direct = SimulatorSource(simulation, gpu_cadence_s=gpu_cadence_s, facility_cadence_s=1)
    return Hall(serving, settings, direct, clock, modbus, redfish, dsx, broker)


def rows_of(readings: Sequence[Reading]) -> Rows:
    """The rows of the facility's tables; each resource once in a table."""
    found: Rows = {}
    for reading in readings:
        if reading.table not in (RACK, COOLING, POWER):
            continue
        columns = {metric.name: in_base_unit(metric, reading.rows) for metric in reading.table.metrics}
        for place, resource in enumerate(reading.rows["resource"].tolist()):
            assert (reading.table, resource) not in found
            values = {name: float(column[place]) for name, column in columns.items()}
            found[reading.table, resource] = {name: value for name, value in values.items() if not math.isnan(value)}
    return found


def kinds_of(site: Site) -> dict[int, ResourceKind]:
    return {resource.id: resource.kind for resource in site.resources()}


def steps_of(kind: ResourceKind, through: RacksThrough, value: Mapping[str, float]) -> dict[str, float]:
    """What is shown of a resource, and in which steps: of Modbus by the map, a float32's by its value."""
    match kind:
        case ResourceKind.RACK:
            return (DSX_STEPS if through is RacksThrough.DSX else RACK_STEPS) | {"leak_state": 0.0}
        case ResourceKind.CDU | ResourceKind.LOOP:
            return COOLING_STEPS | STATES
        case ResourceKind.HEAT_METER:
            points = load_register_map("heat_meter_en1434").values
        case _:
            points = load_register_map("power_meter_three_phase").values
    steps = {}
    for point in points:
        if point.name in value and point.unit is not None and point.type is not None:
            whole = float(point.scale * point.unit.factor)
            steps[point.name] = float(np.spacing(np.float32(value[point.name]))) if point.type.is_float else whole
    return steps


def assert_same(site: Site, through: RacksThrough, direct: Rows, read: Rows) -> None:
    """Every resource of the facility, each of its metrics within the sensor's resolution and the catalogue's."""
    kinds = kinds_of(site)
    assert read.keys() == direct.keys()
    for (table, resource), expected in direct.items():
        kind, found = kinds[resource], dict(read[table, resource])
        quality = found.pop("quality_state")
        assert quality == Quality.GOOD or (through is RacksThrough.DSX and table is RACK and quality == Quality.HELD)
        steps = steps_of(kind, through, expected)
        shown = expected.keys() - {"quality_state"} - NOT_SHOWN.get(kind, set())
        if kind is ResourceKind.RACK:
            shown &= steps.keys()
        assert found.keys() == shown
        for name, value in found.items():
            # The direct value and the sensor's were each rounded to the catalogue's resolution.
            rounding = float(table.metric(name).resolution) * (1 + 1e-9) if name not in STATES else 0.0
            lag = expected[name] - value
            if name in REGISTERS:  # a counter shows whole steps that are full
                assert -rounding <= lag <= steps[name] + rounding, (kind, name, expected[name], value)
            else:
                assert abs(lag) <= steps[name] / 2 + rounding, (kind, name, expected[name], value)


@pytest.mark.parametrize("through", RacksThrough)
def test_every_row_through_protocols_is_that_of_the_direct_simulator(
    running: ExitStack, tmp_path: Path, through: RacksThrough
) -> None:
    hall = serve(running, tmp_path, through)
    site = hall.direct.simulation.site
    for time_s in range(START_S + 10, START_S + 60, 10):
        direct, read = hall.tick(time_s)
        assert_same(site, through, direct, read)
    assert {one.state.value for source in (hall.modbus, hall.redfish) for one in source.devices()} == {"ok"}


@pytest.mark.parametrize("through", RacksThrough)
def test_faults_show_the_same_states_and_events(running: ExitStack, tmp_path: Path, through: RacksThrough) -> None:
    simulation = Simulation(Site.build(GPUS, 1), START_S, seed=1, fault_rate=4000.0)
    hall = serve(running, tmp_path, through, simulation)
    hall.tick(START_S + 10)
    while not (simulation.facility().rack_leak.any() and simulation.facility().cdu_tripped.any()):
        simulation.step(simulation.time_s + 600)
        assert simulation.time_s < START_S + 5 * 86_400, "no leak while a CDU is down: take another seed"
    leaking = set(simulation.site.rack_ids[simulation.facility().rack_leak].tolist())

    direct, read = hall.tick(int(simulation.time_s) + 10)

    assert_same(simulation.site, through, direct, read)
    source = hall.dsx or hall.redfish
    events = [event for event in source.events() if isinstance(event, EventMessage) and event.kind == "leak"]
    assert leaking <= {event.resource for event in events}


def assert_counted(site: Site, first: Rows, last: Rows, truth: FacilityFigures) -> None:
    """What the registers counted between two reads is what was true, within a step at either end."""

    def counted(table: Table, resource: int, register: str) -> float:
        return last[table, int(resource)][register] - first[table, int(resource)][register]

    for place, meter in enumerate(site.meter_ids):
        assert counted(POWER, meter, "energy_import_joules") == pytest.approx(truth.meter[place], abs=3600)
    for meter, joules in zip(site.heat_meter_ids, (truth.handed_over, truth.rejected), strict=True):
        assert counted(COOLING, meter, "heat_register_joules") == pytest.approx(joules, abs=KWH)
    assert truth.meter.min() > 100 * 3600  # so that one step is less than a hundredth
    assert truth.handed_over > 100 * KWH


def test_registers_over_hours_give_the_true_energy_and_heat(running: ExitStack, tmp_path: Path) -> None:
    hall = serve(running, tmp_path, RacksThrough.REDFISH)
    simulation = hall.direct.simulation
    _, first = hall.tick(START_S + 300)
    before = simulation.facility_totals()
    for time_s in range(START_S + 600, START_S + 6 * 3600, 300):
        hall.show(time_s)
        hall.modbus.read(time_s)
    _, last = hall.tick(START_S + 6 * 3600)
    truth = simulation.facility_totals() - before
    assert_counted(simulation.site, first, last, truth)
    for place, rack in enumerate(simulation.site.rack_ids.tolist()):
        register = "energy_register_joules"
        counted = last[RACK, rack][register] - first[RACK, rack][register]
        assert counted == pytest.approx(truth.rack[place], abs=3600)
    assert list(hall.modbus.events()) == []


@pytest.mark.parametrize("through", RacksThrough)
def test_a_month_through_protocols_is_the_month_of_the_direct_simulator(
    running: ExitStack, tmp_path: Path, through: RacksThrough
) -> None:
    """In fast motion: the servers and the sources are the real ones, and a day passes between two reads."""
    simulation = Simulation(Site.build(144, 1), START_S, seed=1)
    hall = serve(running, tmp_path, through, simulation, gpu_cadence_s=DAY_S)
    _, first = hall.tick(START_S + 300)
    before, last = simulation.facility_totals(), first
    for time_s in range(START_S + DAY_S, START_S + MONTH_DAYS * DAY_S + 1, DAY_S):
        direct, last = hall.tick(time_s)
        assert_same(simulation.site, through, direct, last)
    assert_counted(simulation.site, first, last, simulation.facility_totals() - before)
    assert list(hall.modbus.events()) == []  # no register was taken for one that is frozen, wraps or was reset


def test_resources_have_the_names_places_and_roles_of_the_direct_simulator(running: ExitStack, tmp_path: Path) -> None:
    hall = serve(running, tmp_path, RacksThrough.DSX)
    hall.tick(START_S + 10)
    assert hall.dsx is not None
    expected = {message.resource: message for message in hall.direct.inventory()}
    told = [one for source in (hall.modbus, hall.redfish, hall.dsx) for one in source.inventory()]
    seen = {one.resource: one for one in told if one.kind is not ResourceKind.POINT}

    kinds = {ResourceKind.RACK, ResourceKind.CDU, ResourceKind.LOOP, ResourceKind.METER, ResourceKind.HEAT_METER}
    assert seen.keys() == {one.resource for one in expected.values() if one.kind in kinds}
    for resource, message in seen.items():
        same = expected[resource]
        assert (message.identity, message.name, message.parent) == (same.identity, same.name, same.parent)
        if message.kind is not ResourceKind.LOOP:  # Redfish's settings name racks only
            assert set(message.serves) == set(same.serves)
        for name in (
            ("role", "class", "measured_at", "off_taker") if message.kind is not ResourceKind.LOOP else ("role",)
        ):
            assert message.attributes.get(name, "") == same.attributes.get(name, ""), (message.name, name)


def test_a_unit_of_the_hall_costs_one_request_a_tick(running: ExitStack, tmp_path: Path) -> None:
    """Redfish with one metric report for each controller: after discovery nothing else is asked for."""
    hall = serve(running, tmp_path, RacksThrough.REDFISH)
    for time_s in (START_S + 10, START_S + 20):
        hall.tick(time_s)
    before = hall.serving.requests()
    hall.tick(START_S + 30)
    assert hall.settings.redfish is not None
    assert hall.serving.requests() - before == len(hall.settings.redfish.devices)


def test_a_bus_that_starts_anew_is_described_anew(running: ExitStack, tmp_path: Path) -> None:
    hall = serve(running, tmp_path, RacksThrough.DSX)
    hall.tick(START_S + 10)
    broker, dsx = hall.broker, hall.dsx
    assert broker is not None
    assert dsx is not None
    everything = hall.serving.said()
    broker.stop()
    broker.start()
    deadline = time.monotonic() + DEADLINE_S
    while hall.serving.said() < 2 * everything or dsx.tally().used < 2 * everything:
        hall.show(hall.clock.utc_ms() // 1000 + 200)  # all of it is said again, as the gateway may not be back yet
        assert time.monotonic() < deadline
        time.sleep(0.2)
    direct, read = (
        rows_of(hall.direct.read(hall.clock.utc_ms() // 1000)),
        rows_of(dsx.read(hall.clock.utc_ms() // 1000)),
    )
    racks = {key: row for key, row in direct.items() if key[0] is RACK}
    assert_same(hall.direct.simulation.site, RacksThrough.DSX, racks, read)


def test_what_does_not_change_is_said_every_hundred_seconds_only(running: ExitStack, tmp_path: Path) -> None:
    hall = serve(running, tmp_path, RacksThrough.DSX)
    racks = hall.direct.simulation.site.racks
    hall.tick(START_S + 10)
    assert hall.serving.said() == racks * len(POINT_TYPES)
    hall.serving.site.advance(START_S + 10)  # the same instant once more
    assert hall.serving.said() == racks * len(POINT_TYPES)
    hall.tick(START_S + 109)
    assert hall.serving.said() <= racks * (len(POINT_TYPES) + len(RACK_POINTS))  # no state has changed
    states_before = hall.serving.said()
    hall.tick(START_S + 110)
    assert hall.serving.said() - states_before >= racks * len(RACK_STATES)


def test_meters_can_be_read_by_their_map_only_and_written_by_nobody(running: ExitStack, tmp_path: Path) -> None:
    hall = serve(running, tmp_path, RacksThrough.REDFISH)
    hall.tick(START_S + 10)
    assert hall.settings.modbus is not None
    meter = hall.settings.modbus.devices[0]
    with ModbusTcpClient(meter.host, port=meter.port) as client:
        assert not client.read_holding_registers(100, count=2, device_id=meter.unit).isError()
        beyond = client.read_holding_registers(300, count=2, device_id=meter.unit)
        between = client.read_holding_registers(50, count=2, device_id=meter.unit)
        written = client.write_register(100, 0, device_id=meter.unit)
    assert [one.exception_code for one in (beyond, between, written)] == [
        ExcCodes.ILLEGAL_ADDRESS, ExcCodes.ILLEGAL_ADDRESS, ExcCodes.ILLEGAL_FUNCTION,
    ]  # fmt: skip


def test_secrets_are_in_files_that_only_their_owner_reads(running: ExitStack, tmp_path: Path) -> None:
    hall = serve(running, tmp_path, RacksThrough.REDFISH)
    assert hall.settings.redfish is not None
    password_file = Path(hall.settings.redfish.devices[0].password_file)
    for file in (password_file, tmp_path / "redfish.key"):
        assert file.stat().st_mode & 0o077 == 0
    assert password_file.read_text() not in hall.serving.settings_file.read_text()


def test_the_settings_work_from_another_folder(
    running: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hall = serve(running, Path("served"), RacksThrough.REDFISH)
    assert hall.settings.redfish is not None
    files = {device.password_file for device in hall.settings.redfish.devices} | {hall.settings.agent.spool}
    assert files == {str(tmp_path / "served" / name) for name in ("redfish.password", "spool.db")}


def test_a_wrong_password_is_refused(running: ExitStack, tmp_path: Path) -> None:
    hall = serve(running, tmp_path, RacksThrough.REDFISH)
    assert hall.settings.redfish is not None
    Path(hall.settings.redfish.devices[0].password_file).write_text("guess")
    hall.serving.site.advance(START_S + 10)
    with pytest.raises(SourceUnavailableError):
        hall.redfish.read(START_S + 10)
    assert {one.state for one in hall.redfish.devices()} == {DeviceState.REFUSED}


def test_a_site_that_is_served_again_goes_on_where_it_was(tmp_path: Path) -> None:
    options = ServeOptions(
        folder=tmp_path, gpus=72, racks_through=RacksThrough.REDFISH, modbus_port=0, redfish_port=0, tick_s=0.1
    )
    registers = []
    for _ in range(2):
        stop = Event()
        serving = Thread(target=serve_site, args=(options, stop))
        serving.start()
        time.sleep(0.5)
        stop.set()
        serving.join(DEADLINE_S)
        assert not serving.is_alive()
        simulation = Simulation.load(tmp_path / "site.npz")
        registers.append(Moment.of(simulation).power["energy_import_joules"][0])
        assert simulation.time_s == pytest.approx(time.time(), abs=5)
        assert not simulation.take_intervals()  # what nobody asks for does not pile up
    assert 0 < registers[1] - registers[0] < 400e3 * DEADLINE_S  # a rack and what is around it draw less than 400 kW
    with pytest.raises(ValueError, match="is a site of 72 GPUs"):
        serve_site(replace(options, gpus=144), Event())


def test_a_broker_that_wants_a_password_gets_it_from_both_sides(running: ExitStack, tmp_path: Path) -> None:
    broker = running.enter_context(Mosquitto(tmp_path / "mosquitto", users={"bms": "right"}))
    password_file = tmp_path / "mqtt.password"

    def opened(password: str) -> Serving:
        password_file.write_text(f"{password}\n")
        address = mqtt_address(f"127.0.0.1:{broker.port}", username="bms", password_file=password_file)
        options = ServeOptions(
            folder=tmp_path, gpus=72, modbus_port=0, redfish_port=0, broker=address,
            broker_password_file=str(password_file),
        )  # fmt: skip
        return open_site(options, Simulation(Site.build(72, 1), START_S, seed=1))

    with pytest.raises(ConnectionError, match="does not let us in"):
        opened("wrong")
    serving = opened("right")
    running.callback(serving.close)
    assert serving.settings.dsx is not None
    dsx = DsxSource(serving.settings.dsx, gateway=GATEWAY, clock=FakeClock(START_S))
    running.callback(dsx.close)
    dsx.inventory()
    assert dsx.devices()[0].state is DeviceState.OK


@pytest.mark.parametrize("address", ["", "1883", "broker:", ":1883", "broker:mqtt"])
def test_an_address_without_host_or_port_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="give HOST:PORT"):
        mqtt_address(address)


def test_racks_through_a_bus_need_a_broker(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs an MQTT broker"):
        ServeOptions(folder=tmp_path, gpus=72, broker=None)
    options = ServeOptions(folder=tmp_path, gpus=72, broker=BrokerAddress(host="127.0.0.1", port=free_port()))
    with pytest.raises(ConnectionError, match="cannot be reached"):
        serve_site(options, Event())
