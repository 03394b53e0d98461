"""The Modbus source against pymodbus' own server on the loopback: every value in base units, and what devices do.

Expected values are written by hand, from what the test put into the registers.
"""

import math
import re
import socket
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from pymodbus.constants import ExcCodes

from catalogue import COOLING, POINTS, POWER, RACK, ResourceKind, Table, resource_id
from catalogue.point import POINT_UNITS
from collectors.devices import DeviceReport, DeviceState
from collectors.facility import gateway_id
from collectors.modbus.map_file import MapError
from collectors.modbus.settings import ModbusSettings
from collectors.modbus.source import ModbusSource
from collectors.source import ChangingSource, DeviceSource, ExplainingSource, SourceUnavailableError
from stream.messages import EventMessage, InventoryMessage
from stream.rows import in_base_unit
from tests.servers.agent_fakes import START_S, FakeClock
from tests.servers.modbus_server import COILS, DISCRETE, INPUT, ModbusServer, Unit, modbus_server
from tests.servers.ports import free_port

KWH = 3.6e6
WH = 3600
PLACE = "hand-over 1"
GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "modbus.md"

Fields = Mapping[str, Any]


def settings(*devices: Fields, **more: object) -> ModbusSettings:
    named = [{"name": f"device {n}", "host": "127.0.0.1", **device} for n, device in enumerate(devices, start=1)]
    return msgspec.convert({"timeout_s": 5, **more, "devices": named}, ModbusSettings)


class Reader:
    """A source that a test reads tick by tick, ten seconds apart."""

    def __init__(self, source: ModbusSource, clock: FakeClock) -> None:
        self.source = source
        self.clock = clock
        self.time_s = START_S

    def read(self) -> dict[tuple[Table, int], dict[str, float]]:
        """The next tick: what is there of each row, in base units."""
        self.clock.advance(10)
        self.time_s += 10
        rows = {}
        for reading in self.source.read(self.time_s):
            assert reading.source == gateway_id("gateway 7", "modbus")
            for position in range(len(reading.rows)):
                row = reading.rows[position : position + 1]
                assert int(row["time"][0]) == self.time_s
                values = {one.name: float(in_base_unit(one, row)[0]) for one in reading.table.metrics}
                key = reading.table, int(row["resource"][0])
                rows[key] = {name: value for name, value in values.items() if not math.isnan(value)}
        return rows

    def row(self) -> dict[str, float]:
        """The next tick's only row that is no point."""
        (row,) = (values for (table, _), values in self.read().items() if table is not POINTS)
        return row

    def fails(self) -> str:
        with pytest.raises(SourceUnavailableError) as raised:
            self.read()
        return str(raised.value)

    def device(self, name: str = "device 1") -> DeviceReport:
        return next(report for report in self.source.devices() if report.device == name)

    def events(self) -> list[EventMessage]:
        found = [event for event in self.source.events() if isinstance(event, EventMessage)]
        assert self.source.events() == []
        return found

    def message(self) -> InventoryMessage:
        """What the inventory says of the only device."""
        (message,) = (one for one in self.source.inventory() if one.kind is not ResourceKind.POINT)
        return message


@contextmanager
def reading(*devices: Fields, **more: object) -> Iterator[Reader]:
    clock = FakeClock()
    with closing(ModbusSource(settings(*devices, **more), gateway="gateway 7", clock=clock)) as source:
        yield Reader(source, clock)


@pytest.fixture
def server() -> Iterator[ModbusServer]:
    with modbus_server() as running:
        yield running


@pytest.fixture
def unit(server: ModbusServer) -> Unit:
    return server.unit


def fill_heat_meter(unit: Unit, *, kwh: int = 123_456, serial: int = 7_654_321) -> None:
    unit.put(0, [0] * 14, function=INPUT)
    unit.number(0, "I", kwh, function=INPUT)
    unit.number(2, "I", 9_876_543, function=INPUT)
    unit.number(4, "i", 15_001, function=INPUT)
    unit.number(6, "I", 36_000, function=INPUT)
    unit.number(8, "h", 6512, function=INPUT)
    unit.number(9, "h", -150, function=INPUT)
    unit.number(10, "h", 6662, function=INPUT)
    unit.number(11, "I", 4000, function=INPUT)
    unit.number(20, "I", serial, function=INPUT)


def heat_meter(server: ModbusServer, **more: object) -> Fields:
    return {"port": server.port, "map": "heat_meter_en1434", "identity": PLACE, **more}


# Values ---------------------------------------------------------------------------------------------------------------


def test_a_heat_meter_is_a_row_of_cooling_and_points(server: ModbusServer, unit: Unit) -> None:
    fill_heat_meter(unit)
    with reading(heat_meter(server)) as reader:
        rows = reader.read()
    assert rows[COOLING, resource_id(ResourceKind.HEAT_METER, PLACE)] == {
        "heat_register_joules": pytest.approx(123_456 * KWH),
        "volume_register_cubic_metres": pytest.approx(98_765.43),
        "heat_flow_watts": pytest.approx(1_500_100),
        "primary_flow_cubic_metres_per_second": pytest.approx(0.01),
        "primary_supply_temperature_celsius": 65.12,
        "primary_return_temperature_celsius": -1.5,
        "quality_state": 1,
    }
    units = {unit.suffix: code for code, unit in POINT_UNITS}
    difference = rows[POINTS, resource_id(ResourceKind.POINT, f"{PLACE}/temperature_difference")]
    assert difference == {"value_own_unit": pytest.approx(66.62), "unit_state": units["kelvin"], "quality_state": 1}
    hours = rows[POINTS, resource_id(ResourceKind.POINT, f"{PLACE}/operating_time")]
    assert hours == {"value_own_unit": 4000 * 3600, "unit_state": units["seconds"], "quality_state": 1}
    assert len(rows) == 3


def test_a_three_phase_meter_is_a_row_of_power(server: ModbusServer, unit: Unit) -> None:
    unit.number(0, "Q", 3_000_000_000_000)  # above 32 bits, and above what a float32 resolves
    unit.number(4, "Q", 7)
    numbers = (230.5e6, -1.5e6, 231e6, 0.985, 50.02, 11_000, 11_010, 11_020, 1200, 1203, 1206)
    for place, number in enumerate(numbers):
        unit.number(100 + 2 * place, "f", number)
    unit.text(200, "ACME", 8)
    unit.text(208, "PM 64", 8)
    unit.text(216, "A-1", 8)
    with reading({"port": server.port, "map": "power_meter_three_phase"}) as reader:
        row = reader.row()
        message = reader.message()
    assert row == {
        "energy_import_joules": 3_000_000_000_000 * WH,
        "energy_export_joules": 7 * WH,
        "active_power_watts": 230.5e6,
        "reactive_power_vars": -1.5e6,
        "power_factor_ratio": 0.985,
        "frequency_hertz": 50.02,
        "voltage_volts": 11_010,
        "current_amperes": 1203,
        "quality_state": 1,
    }
    assert (message.identity, message.attributes["manufacturer"], message.attributes["model"]) == (
        "A-1",
        "ACME",
        "PM 64",
    )


def test_a_cooling_unit_with_swapped_floats(server: ModbusServer, unit: Unit) -> None:
    unit.put(130, [0] * 38)
    for place, number in enumerate((45.25, 55.5, 40.0, 50.75, 1200.0, 250.0, 80.0, 800.0)):
        unit.number(130 + 4 * place, "f", number, swap=True)
    unit.put(162, [801, 790, 455, 0b01, 1, 350])
    unit.text(200, "CDU-77", 10)
    with reading({"port": server.port, "map": "cdu_swapped_float"}) as reader:
        rows = reader.read()
    assert rows[COOLING, resource_id(ResourceKind.CDU, "CDU-77")] == {
        "secondary_supply_temperature_celsius": 45.25,
        "secondary_return_temperature_celsius": 55.5,
        "primary_supply_temperature_celsius": 40.0,
        "primary_return_temperature_celsius": 50.75,
        "secondary_flow_cubic_metres_per_second": pytest.approx(0.02),
        "secondary_pressure_pascals": 250_000,
        "differential_pressure_pascals": 80_000,
        "heat_flow_watts": 800_000,
        "pump_speed_ratio": 0.801,
        "valve_position_ratio": 0.455,
        "leak_state": 3,  # critical
        "equipment_state": 1,  # running
        "quality_state": 1,
    }
    assert rows[POINTS, resource_id(ResourceKind.POINT, "CDU-77/conductivity")]["value_own_unit"] == 350


def test_a_sunspec_meter_needs_no_map() -> None:
    with modbus_server(registers=40_300) as server:
        unit = server.unit
        unit.put(40_000, [0x5375, 0x6E53, 1, 66, *[0] * 66, 203, 105, *[0x8000] * 105, 0xFFFF, 0])
        unit.text(40_004, "ACME", 16)
        unit.text(40_052, "SN42", 16)
        meter = 40_070
        unit.number(meter + 18, "h", 2300)
        unit.number(meter + 22, "h", 2)
        unit.number(meter + 38, "I", 0)  # never counted: not implemented
        unit.number(meter + 46, "I", 4_294_967_295)
        unit.number(meter + 54, "h", 0)
        with reading({"port": server.port, "nominal_power_watts": 230e6}) as reader:
            row = reader.row()
            message = reader.message()
            asked = len(unit.asked)
            reader.row()
            assert len(unit.asked) == asked + 1  # one request a tick, once it is known
    assert row == {
        "active_power_watts": 230_000,
        "energy_import_joules": 4_294_967_295 * WH,
        "quality_state": 1,
    }
    assert (message.kind, message.identity) == (ResourceKind.METER, "SN42")
    assert message.attributes["sunspec_model"] == "203"
    # domain.md 4.3: an acc32 in Wh starts again after 18.7 hours at 230 MW.
    assert int(message.attributes["register_modulus_joules"]) / 230e6 / 3600 == pytest.approx(18.67, abs=0.01)
    assert message.attributes["register_resolution_joules"] == "3600"


def own_map(folder: Path, *points: Fields, **head: object) -> Fields:
    """Settings of a device with this map."""
    document = {"model": "Own", "kind": "meter", "function": 3, **head, "points": list(points)}
    (folder / "own.yaml").write_text(yaml.safe_dump(document))
    return {"map": "own", "identity": "own 1"}


def test_every_type_and_order_comes_over_the_wire(server: ModbusServer, unit: Unit, tmp_path: Path) -> None:
    codes = {
        "int16": ("h", -2), "uint16": ("H", 65_534), "int32": ("i", -70_000), "uint32": ("I", 4e9),
        "acc32": ("I", 5), "int64": ("q", -(1 << 40)), "uint64": ("Q", 1 << 40), "acc64": ("Q", 6),
        "float32": ("f", 45.25), "float64": ("d", 1e-3),
    }  # fmt: skip
    points, expected = [], {}
    for place, (kind, (code, number)) in enumerate(codes.items()):
        for swap in (False, True):
            address = 20 * place + 10 * swap
            unit.number(address, code, int(number) if code not in "fd" else number, swap=swap)
            name = f"{kind} {'little' if swap else 'big'}"
            order = "little" if swap else "big"
            points.append({"point": name, "unit": "count", "address": address, "type": kind, "word_order": order})
            expected[resource_id(ResourceKind.POINT, f"own 1/{name}")] = number
    device = own_map(tmp_path, *points)
    with reading({"port": server.port, **device}, maps=str(tmp_path)) as reader:
        rows = reader.read()
    assert {resource: row["value_own_unit"] for (_, resource), row in rows.items()} == expected


def test_coils_and_discrete_inputs_are_states(server: ModbusServer, unit: Unit, tmp_path: Path) -> None:
    unit.put(20, [1], function=COILS)
    unit.put(37, [0, 1], function=DISCRETE)
    device = own_map(
        tmp_path,
        {"metric": "rack.leak_state", "document_address": "00021", "states": {0: "dry", 1: "warning"}},
        {"metric": "rack.leak_state", "function": 2, "address": 38, "states": {0: "dry", 1: "critical"}},
        {"point": "door", "function": 2, "address": 37, "unit": "state"},
        kind="rack",
    )
    with reading({"port": server.port, **device}, maps=str(tmp_path)) as reader:
        rows = reader.read()
    assert rows[RACK, resource_id(ResourceKind.RACK, "own 1")] == {"leak_state": 3, "quality_state": 1}
    assert rows[POINTS, resource_id(ResourceKind.POINT, "own 1/door")]["value_own_unit"] == 0


def test_values_that_stand_for_none_are_absent_and_say_why(server: ModbusServer, unit: Unit) -> None:
    fill_heat_meter(unit)
    unit.number(0, "I", 0xFFFFFFFF, function=INPUT)
    unit.number(8, "h", -0x8000, function=INPUT)
    unit.number(9, "h", 18_100, function=INPUT)  # 181 degC, above valid_max
    with reading(heat_meter(server)) as reader:
        row = reader.row()
        resource = resource_id(ResourceKind.HEAT_METER, PLACE)
        why = {
            name: reader.source.why_absent(resource, COOLING.metric(name))
            for name in (
                "heat_register_joules",
                "primary_supply_temperature_celsius",
                "primary_return_temperature_celsius",
                "leak_state",
            )
        }
        assert isinstance(reader.source, ExplainingSource)
        assert reader.source.why_absent(1, COOLING.metric("leak_state")) == ""
    assert row.keys() & why.keys() == set()
    assert row["heat_flow_watts"] == pytest.approx(1_500_100)
    assert why == {
        "heat_register_joules": "4294967295 stands for no value",
        "primary_supply_temperature_celsius": "-32768 stands for no value",
        "primary_return_temperature_celsius": "181 degC is out of range",
        "leak_state": "not in its register map",
    }


def test_error_flags_of_a_meter_make_its_row_bad(server: ModbusServer, unit: Unit) -> None:
    fill_heat_meter(unit)
    unit.put(13, [0x0040], function=INPUT)
    with reading(heat_meter(server)) as reader:
        rows = reader.read()
    assert {row["quality_state"] for row in rows.values()} == {4}


def test_a_register_that_starts_again_is_sent_as_it_stands(server: ModbusServer, unit: Unit, tmp_path: Path) -> None:
    register = {"metric": "power.energy_import_joules", "address": 0, "type": "acc32", "unit": "Wh"}
    device = own_map(tmp_path, register)
    seen = []
    with reading({"port": server.port, **device}, maps=str(tmp_path)) as reader:
        for count in (4_294_967_290, 4_294_967_295, 3):
            unit.number(0, "I", count)
            seen.append(reader.row()["energy_import_joules"])
        modulus = int(reader.message().attributes["register_modulus_joules"])
    assert seen == [4_294_967_290 * WH, 4_294_967_295 * WH, 3 * WH]
    # What the ledger makes of it: four counts from the last number, one of them to get to 0.
    assert seen[2] - seen[1] + modulus == 4 * WH


# Devices that refuse --------------------------------------------------------------------------------------------------


def test_a_device_that_refuses_gaps_is_asked_for_each_point_and_that_is_remembered(
    server: ModbusServer, unit: Unit
) -> None:
    fill_heat_meter(unit)
    for address in (10, 11, 12):  # not there: the block across them is refused
        unit.hole(address, function=INPUT)
    with reading(heat_meter(server)) as reader:
        first = reader.row()
        unit.asked.clear()
        assert reader.row() == first
        assert reader.device().state is DeviceState.OK
        assert reader.source.remarks() == ["device 1 refuses temperature_difference, operating_time"]
    assert first["primary_return_temperature_celsius"] == -1.5
    assert first["heat_register_joules"] == pytest.approx(123_456 * KWH)
    spans = [(address, count) for _, address, count in unit.asked]
    assert spans == [(0, 2), (2, 2), (4, 2), (6, 2), (8, 1), (9, 1), (13, 1)]


def test_a_map_may_say_that_each_point_is_asked_for_alone(server: ModbusServer, unit: Unit, tmp_path: Path) -> None:
    unit.put(0, [1, 2, 3])
    points = [{"point": f"p{n}", "unit": "count", "address": n, "type": "uint16"} for n in range(3)]
    device = own_map(tmp_path, *points, blocks="separate")
    with reading({"port": server.port, **device}, maps=str(tmp_path)) as reader:
        assert len(reader.read()) == 3
    assert unit.asked == [(3, 0, 1), (3, 1, 1), (3, 2, 1)]


@pytest.mark.parametrize(
    ("code", "state", "says"),
    [
        (ExcCodes.ILLEGAL_FUNCTION, DeviceState.NONSENSE, "refuses all registers of map heat_meter_en1434"),
        (ExcCodes.ILLEGAL_ADDRESS, DeviceState.NONSENSE, "refuses all registers"),
        (ExcCodes.DEVICE_FAILURE, DeviceState.NONSENSE, "refuses all registers"),
        (ExcCodes.DEVICE_BUSY, DeviceState.SLOW, "exception 6.*busy"),
        (ExcCodes.GATEWAY_PATH_UNAVIABLE, DeviceState.UNREACHABLE, "exception 10.*no path"),
        (ExcCodes.GATEWAY_NO_RESPONSE, DeviceState.UNREACHABLE, "exception 11.*does not answer the gateway"),
    ],
)
def test_an_exception_reply_is_the_devices_state(
    server: ModbusServer, unit: Unit, code: ExcCodes, state: DeviceState, says: str
) -> None:
    fill_heat_meter(unit)
    unit.fails = code
    with reading(heat_meter(server)) as reader:
        assert "no device answered" in reader.fails()
        assert reader.device().state is state
        assert re.search(says, reader.device().why)
        unit.fails = None
        assert reader.row()["heat_register_joules"] == pytest.approx(123_456 * KWH)
        assert reader.device().state is DeviceState.OK


def test_a_part_that_fails_for_a_while_comes_back(server: ModbusServer, unit: Unit) -> None:
    fill_heat_meter(unit)
    with reading(heat_meter(server)) as reader:
        reader.row()
        unit.refuses, unit.refuses_with = {(INPUT, 0)}, ExcCodes.DEVICE_FAILURE
        row = reader.row()
        assert "heat_register_joules" not in row
        assert "heat_flow_watts" in row
        unit.refuses = set()
        assert "heat_register_joules" in reader.row()


# Connections ----------------------------------------------------------------------------------------------------------


def test_units_behind_one_gateway_share_its_connection_and_each_has_its_state() -> None:
    with modbus_server(1, 2, 3) as server:
        for number in (1, 2, 3):
            fill_heat_meter(server.units[number], kwh=number)
        server.units[2].fails = ExcCodes.GATEWAY_NO_RESPONSE
        devices = [heat_meter(server, unit=n, identity=f"place {n}") for n in (1, 2, 3)]
        with reading(*devices) as reader:
            for _ in range(3):
                rows = reader.read()
            states = {report.device: report.state for report in reader.source.devices()}
            assert isinstance(reader.source, DeviceSource)
            assert reader.source.remarks()[0] == "1 of 3 devices unreachable"
        assert server.connections.count(True) == 1
    registers = {
        n: rows.get((COOLING, resource_id(ResourceKind.HEAT_METER, f"place {n}")), {}).get("heat_register_joules")
        for n in (1, 2, 3)
    }
    assert registers == {1: pytest.approx(KWH), 2: None, 3: pytest.approx(3 * KWH)}
    assert states == {"device 1": "ok", "device 2": "unreachable", "device 3": "ok"}


def test_units_behind_a_gateway_that_is_gone_fail_together_and_soon() -> None:
    port = free_port()
    devices = [{"port": port, "unit": n, "map": "heat_meter_en1434", "identity": f"place {n}"} for n in range(1, 31)]
    with reading(*devices) as reader:
        started_s = time.monotonic()
        assert "30 of 30 devices unreachable" in reader.fails()
        assert time.monotonic() - started_s < 2
        assert "Connection refused" in reader.device("device 30").why


def test_a_connection_that_the_device_closed_meanwhile_costs_no_reading(server: ModbusServer, unit: Unit) -> None:
    fill_heat_meter(unit)
    with reading(heat_meter(server)) as reader:
        reader.row()
        server.hang_up()
        assert "heat_register_joules" in reader.row()
        assert reader.device().state is DeviceState.OK


def test_a_slow_device_is_slow_and_its_neighbour_is_read() -> None:
    with modbus_server() as slow, modbus_server() as quick:
        fill_heat_meter(slow.unit)
        fill_heat_meter(quick.unit)
        with reading(heat_meter(slow), heat_meter(quick, identity="place 2"), timeout_s=0.4) as reader:
            assert len(reader.read()) == 6
            slow.unit.waits_s = 0.8  # twice the time-out
            assert len(reader.read()) == 3
            assert reader.device("device 1").state is DeviceState.SLOW
            assert "no answer in time" in reader.device("device 1").why
            slow.unit.waits_s = 0.0
            assert len(reader.read()) == 6


def test_devices_that_hang_do_not_hold_up_the_next_tick(server: ModbusServer, unit: Unit) -> None:
    fill_heat_meter(unit)
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(30)]
        hanging = [
            {"port": one.getsockname()[1], "map": "heat_meter_en1434", "identity": f"silent {n}"}
            for n, one in enumerate(silent)
        ]
        # Two workers need 4.5 s for thirty time-outs: were they left for the next tick, no answer would come in time.
        with reading(heat_meter(server), *hanging, workers=2, timeout_s=0.3, deadline_s=0.9) as reader:
            answered = 0
            for _ in range(8):
                with suppress(SourceUnavailableError):  # a tick in which the turn is others'
                    reader.row()
                    answered += 1
                time.sleep(0.2)  # the rest of the interval
            states = Counter(report.state for report in reader.source.devices()[1:])
    assert answered >= 2
    assert states == {DeviceState.SLOW: 30}


def test_no_answer_at_all_says_how_devices_do() -> None:
    with reading({"port": free_port(), "map": "heat_meter_en1434", "identity": PLACE}) as reader:
        assert reader.device().state is DeviceState.UNKNOWN
        said = reader.fails()
        assert "1 of 1 devices unreachable; device 1: no connection: Connection refused" in said
        assert reader.message().identity == PLACE  # its absence must show


def test_closing_twice_and_during_a_read_is_safe(server: ModbusServer, unit: Unit) -> None:
    fill_heat_meter(unit)
    with reading(heat_meter(server)) as reader:
        reader.row()
        reader.source.close()
        reader.source.close()


# Identity, inventory --------------------------------------------------------------------------------------------------


def test_inventory_is_what_settings_map_and_device_tell(server: ModbusServer, unit: Unit) -> None:
    fill_heat_meter(unit)
    device = heat_meter(
        server,
        parent="loop:loop 1",
        serves=["off_taker:fish farm"],
        role="heat_handed_over",
        measured_at="hand-over",
        nominal_power_watts=1.5e6,
        attributes={"off_taker": "fish farm"},
        **{"class": "EN 1434 class 2"},
    )
    with reading(device) as reader:
        assert reader.source.inventory_changed()
        before = reader.message()
        assert "serial" not in before.attributes
        assert not reader.source.inventory_changed()
        reader.row()
        assert reader.source.inventory_changed()
        message = reader.message()
        points = [one for one in reader.source.inventory() if one.kind is ResourceKind.POINT]
        reader.row()
        assert not reader.source.inventory_changed()
        assert reader.message() == message
        assert isinstance(reader.source, ChangingSource)
    assert (message.identity, message.name, message.kind) == (PLACE, "device 1", ResourceKind.HEAT_METER)
    assert message.resource == before.resource == resource_id(ResourceKind.HEAT_METER, PLACE)
    assert message.parent == resource_id(ResourceKind.LOOP, "loop 1")
    assert message.serves == (resource_id(ResourceKind.OFF_TAKER, "fish farm"),)
    assert message.attributes == {
        "fluid": "water",
        "flow_meter_at": "return",
        "serial": "7654321",
        "off_taker": "fish farm",
        "device": f"127.0.0.1:{server.port}",
        "map": "heat_meter_en1434",
        "interval_s": "10",
        "role": "heat_handed_over",
        "class": "EN 1434 class 2",
        "measured_at": "hand-over",
        "nominal_power_watts": "1500000",
        "register_modulus_joules": str(100_000_000 * 3_600_000),
        "register_resolution_joules": "3600000",
        "volume_register_modulus_cubic_metres": "1000000",
        "volume_register_resolution_cubic_metres": "0.01",
    }
    assert {(one.name, one.parent, one.attributes["unit"], one.attributes["point_kind"]) for one in points} == {
        ("temperature_difference", message.resource, "kelvin", "gauge"),
        ("operating_time", message.resource, "seconds", "counter"),
    }


def test_a_float_register_tells_its_resolution_again_when_it_doubles(
    server: ModbusServer, unit: Unit, tmp_path: Path
) -> None:
    register = {"metric": "power.energy_import_joules", "address": 0, "type": "float32", "unit": "Wh"}
    device = own_map(tmp_path, register)
    told = []
    with reading({"port": server.port, **device}, maps=str(tmp_path)) as reader:
        for wh in (0.9e11, 1e11, 1.3e11, 1.4e11, 2e12):  # 2^36 is 0.69e11, 2^37 1.37e11, 2^40 1.1e12
            unit.number(0, "f", wh)
            reader.row()
            message = reader.message()
            told.append((int(message.attributes["register_resolution_joules"]) // WH, message.valid_from_ms))
    assert [resolution for resolution, _ in told] == [8192, 8192, 8192, 16_384, 131_072]
    assert told[0] == told[1] == told[2]
    assert told[2][1] < told[3][1] < told[4][1]


def test_a_scale_factor_that_never_rests_does_not_flood_the_inventory(
    server: ModbusServer, unit: Unit, tmp_path: Path
) -> None:
    register = {"metric": "power.energy_import_joules", "address": 0, "type": "acc32", "unit": "Wh"}
    device = own_map(tmp_path, {**register, "scale_factor": {"address": 2}})
    unit.number(0, "I", 5)
    told = 0
    with reading({"port": server.port, **device}, maps=str(tmp_path)) as reader:
        for tick in range(125):  # at ticks 0, 61 and 122: ten minutes apart, and another factor than before
            unit.number(2, "h", tick % 4)
            assert reader.row()["energy_import_joules"] == 5 * WH * 10 ** (tick % 4)
            told += reader.source.inventory_changed()
            reader.message()
    assert told == 3


def test_a_meter_without_identity_in_the_settings_goes_by_its_serial_number(server: ModbusServer, unit: Unit) -> None:
    fill_heat_meter(unit)
    with reading(heat_meter(server, identity="")) as reader:
        assert reader.source.inventory() == []
        rows = reader.read()
        assert reader.message().identity == "7654321"
    assert (COOLING, resource_id(ResourceKind.HEAT_METER, "7654321")) in rows


def test_a_meter_that_does_not_tell_the_serial_number_it_goes_by_is_not_read(server: ModbusServer, unit: Unit) -> None:
    fill_heat_meter(unit, serial=0)
    with reading(heat_meter(server, identity="")) as reader:
        assert "tells no serial number; give it an identity in the settings" in reader.fails()


def test_a_map_without_a_serial_number_needs_an_identity(tmp_path: Path) -> None:
    device = own_map(tmp_path, {"point": "p", "unit": "count", "address": 0, "type": "uint16"})
    with pytest.raises(MapError, match="device 'device 1': map own has no serial number; give the device an identity"):
        ModbusSource(settings({**device, "identity": ""}, maps=str(tmp_path)), gateway="g", clock=FakeClock())


def test_an_exchanged_meter_is_an_event_with_both_serial_numbers_and_registers(
    server: ModbusServer, unit: Unit
) -> None:
    fill_heat_meter(unit)
    with reading(heat_meter(server)) as reader:
        reader.row()
        before = reader.message()
        unit.fails = ExcCodes.GATEWAY_NO_RESPONSE  # somebody is at it
        reader.fails()
        unit.fails = None
        fill_heat_meter(unit, kwh=2, serial=99)
        row = reader.row()
        (event,) = reader.events()
        after = reader.message()
        reader.row()
        assert reader.events() == []
    assert (event.kind, event.resource, event.time_ms) == ("meter_exchanged", before.resource, (START_S + 30) * 1000)
    assert event.attributes == {
        "device": "device 1",
        "old_serial": "7654321",
        "new_serial": "99",
        "heat_register_joules_before": str(123_456 * 3_600_000),
        "heat_register_joules_after": str(2 * 3_600_000),
    }
    assert row["heat_register_joules"] == 2 * KWH
    assert after.resource == before.resource  # the place stays; its register jumps
    assert (before.attributes["serial"], after.attributes["serial"]) == ("7654321", "99")
    assert after.valid_from_ms == event.time_ms > before.valid_from_ms


def test_an_exchange_is_noticed_without_a_failure_too(server: ModbusServer, unit: Unit) -> None:
    fill_heat_meter(unit)
    with reading(heat_meter(server), identity_every_s=60) as reader:
        reader.row()
        fill_heat_meter(unit, serial=99)
        for _ in range(5):
            reader.row()
        assert reader.events() == []
        reader.row()
        assert [event.attributes["new_serial"] for event in reader.events()] == ["99"]


def test_without_an_identity_in_the_settings_another_meter_is_another_resource(
    server: ModbusServer, unit: Unit
) -> None:
    fill_heat_meter(unit)
    with reading(heat_meter(server, identity=""), identity_every_s=10) as reader:
        old = reader.message() if reader.row() else None
        fill_heat_meter(unit, serial=99)
        rows = reader.read()
        new = reader.message()
        (event,) = reader.events()
    assert old is not None
    assert old.resource != new.resource == event.resource
    assert (new.identity, event.attributes["old_serial"]) == ("99", "7654321")
    assert (COOLING, new.resource) in rows


def test_a_serial_number_that_is_not_told_for_once_is_no_exchange(server: ModbusServer, unit: Unit) -> None:
    fill_heat_meter(unit)
    with reading(heat_meter(server), identity_every_s=10) as reader:
        reader.row()
        unit.number(20, "I", 0, function=INPUT)
        reader.row()
        unit.number(20, "I", 7_654_321, function=INPUT)
        reader.row()
        assert reader.events() == []


def test_two_devices_with_one_serial_number_are_one_row_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with modbus_server() as first, modbus_server() as second:
        fill_heat_meter(first.unit, kwh=1)
        fill_heat_meter(second.unit, kwh=2)
        with reading(heat_meter(first, identity=""), heat_meter(second, identity=""), identity_every_s=10) as reader:
            for _ in range(3):
                row = reader.row()
            assert row["heat_register_joules"] == KWH
            assert "device 2 has the identity of another device; give it its own" in reader.source.remarks()
            reader.message()
            fill_heat_meter(second.unit, kwh=2, serial=99)
            assert len(reader.read()) == 6
            assert reader.source.remarks() == []
            fill_heat_meter(first.unit, kwh=1, serial=55)
            fill_heat_meter(second.unit, kwh=2, serial=7_654_321)  # it was moved
            assert len(reader.read()) == 6
    assert [record.getMessage() for record in caplog.records] == [
        "Two devices have one identity: only the first is read"
    ]


# Registers that stand still, or start again too soon ------------------------------------------------------------------


def events_over(reader: Reader, ticks: int, each: Callable[[int], None] = lambda _: None) -> list[tuple[int, str]]:
    """Event kinds, and the tick that each came with."""
    found = []
    for tick in range(ticks):
        each(tick)
        reader.row()
        found += [(tick, event.kind) for event in reader.events()]
    return found


def test_a_register_that_stands_still_under_power_is_told_once_and_its_row_goes_on(
    server: ModbusServer, unit: Unit
) -> None:
    fill_heat_meter(unit)  # 1.5001 MW: a kWh in 2.4 s
    with reading(heat_meter(server)) as reader:
        assert events_over(reader, 91) == []  # 15 minutes
        row = reader.row()
        (event,) = reader.events()
        assert row["quality_state"] == 1
        assert events_over(reader, 100) == []
        fill_heat_meter(unit, kwh=123_457)
        assert events_over(reader, 92) == [(91, "meter_frozen")]
    assert (event.kind, event.resource) == ("meter_frozen", resource_id(ResourceKind.HEAT_METER, PLACE))
    assert event.attributes == {
        "device": "device 1",
        "register": "heat_register_joules",
        "value_joules": str(123_456 * 3_600_000),
        "since": "2027-01-15T08:00:10+00:00",  # 1_800_000_010 s
        "expected_joules": "1365091000",  # 1,500,100 W over 910 s
    }


@pytest.mark.parametrize("power", [0, -15_001])
def test_a_register_without_power_may_stand_still(server: ModbusServer, unit: Unit, power: int) -> None:
    fill_heat_meter(unit)
    unit.number(4, "i", power, function=INPUT)
    with reading(heat_meter(server)) as reader:
        assert events_over(reader, 150) == []


def test_a_coarse_register_may_stand_still_until_it_has_missed_two_steps(
    server: ModbusServer, unit: Unit, tmp_path: Path
) -> None:
    register = {"metric": "cooling.heat_register_joules", "address": 0, "type": "uint32", "unit": "MWh"}
    power = {"metric": "cooling.heat_flow_watts", "address": 2, "type": "uint16", "unit": "kW"}
    device = own_map(tmp_path, register, power, kind="heat_meter")
    unit.number(0, "I", 5)
    unit.number(2, "H", 3600)  # a MWh in 1000 s
    with reading({"port": server.port, **device}, maps=str(tmp_path)) as reader:
        assert events_over(reader, 210) == [(200, "meter_frozen")]


def test_a_register_that_starts_again_too_soon_is_said_once(
    server: ModbusServer, unit: Unit, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unit.number(0, "H", 5)
    register = {"metric": "power.energy_import_joules", "address": 0, "type": "uint16", "unit": "kWh"}
    device = {"port": server.port, **own_map(tmp_path, register)}
    # 65,536 kWh are gone after 1026 s at 230 MW, and after 2359 s at 100 MW.
    for watts, said in ((230e6, 0), (240e6, 1)):
        caplog.clear()
        with reading({**device, "nominal_power_watts": watts}, maps=str(tmp_path)) as reader:
            reader.row()
            reader.row()
        assert len(caplog.records) == said
    (record,) = caplog.records
    assert "starts again too soon" in record.getMessage()
    assert (vars(record)["wrap_s"], vars(record)["device"]) == (983, "device 1")


# Settings and guide ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("devices", "more", "says"),
    [
        ([{"name": "a"}, {"name": "a"}], {}, "two devices have the name 'a'"),
        ([{"identity": "x"}, {"identity": "x"}], {}, "two devices have the identity 'x'"),
        ([{"parent": "house:1"}], {}, "'house:1' is of no kind that exists; there are site, hall"),
        ([{"attributes": {"role": "it"}}], {}, "attribute 'role' is a setting or ours"),
        ([{}], {"deadline_s": 10}, "deadline_s is 10; give less than interval_s, 10"),
        ([{"port": 0}], {}, "port"),
        ([{"unit": 256}], {}, "unit"),
        ([{"hots": "x"}], {}, "unknown field `hots`"),
        ([], {}, "length >= 1"),
    ],
)
def test_wrong_settings_are_refused(devices: list[Fields], more: Fields, says: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=says):
        settings(*devices, **more)


def test_the_settings_of_the_guide_are_settings() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    found = msgspec.convert(tomllib.loads(example)["modbus"], ModbusSettings)
    assert len(found.devices) >= 3
    assert {device.map for device in found.devices} >= {"sunspec", "heat_meter_en1434"}


def test_the_map_of_the_guide_is_a_map(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "own.yaml").write_text(example)
    device = {"map": "own", "identity": "x"}
    with closing(ModbusSource(settings(device, maps=str(tmp_path)), gateway="g", clock=FakeClock())) as source:
        assert len(source.inventory()) >= 1
    assert POWER.metric("energy_import_joules")
