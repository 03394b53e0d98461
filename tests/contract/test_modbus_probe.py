"""The probe against pymodbus' own server: what an engineer sees who compares a device with its document."""

import pytest
from pymodbus.constants import ExcCodes

from collectors.devices import DeviceError, DeviceState
from collectors.modbus.map_file import load_register_map
from collectors.modbus.probe import Probe, ProbeLine, probe
from tests.servers.modbus_server import INPUT, ModbusServer, modbus_server
from tests.servers.ports import free_port

CDU = load_register_map("cdu_swapped_float")
SHOWN = (45.25, 55.5, 40.0, 50.75, 1200.0, 250.0, 80.0, 800.0)


def fill_cdu(server: ModbusServer, *, swap: bool) -> None:
    server.unit.put(130, [0] * 38)
    for place, number in enumerate(SHOWN):
        server.unit.number(130 + 4 * place, "f", number, swap=swap)
    server.unit.put(162, [801, 790, 455, 0b01, 1, 0xFFFF])
    server.unit.text(200, "CDU-77", 10)


def line(found: Probe, name: str) -> ProbeLine:
    return next(one for one in found.lines if one.name == name)


def test_a_probe_shows_each_point_raw_and_decoded_with_a_verdict() -> None:
    with modbus_server() as server:
        fill_cdu(server, swap=True)
        server.unit.refuses = {(3, 166)}
        found = probe("127.0.0.1", port=server.port, register_map=CDU)
    assert (found.what, found.facts["serial"]) == ("Coolant distribution unit, generic", "CDU-77")
    supply = line(found, "secondary_supply_temperature_celsius")
    assert supply == ProbeLine(supply.name, "3/130", "0000 4235", "45.25", "celsius", "ok")
    flow = line(found, "secondary_flow_cubic_metres_per_second")
    assert (flow.raw, flow.value, flow.verdict) == ("0000 4496", "0.02", "ok")
    assert line(found, "leak_state").value == "critical"
    assert line(found, "conductivity").verdict == "absent: 65535 stands for no value"
    refused = line(found, "equipment_state")
    assert (refused.raw, refused.value) == ("", "")
    assert refused.verdict.startswith("absent: exception 2 to function 3, address 166, count 1")
    fits = "word_order little, byte_order big: 8 of 8 points of several registers are plausible, as the map says"
    assert list(found.remarks) == [fits]


def test_a_probe_finds_the_order_of_words_that_the_map_has_wrong() -> None:
    with modbus_server() as server:
        fill_cdu(server, swap=False)
        found = probe("127.0.0.1", port=server.port, register_map=CDU)
    assert line(found, "primary_supply_temperature_celsius").verdict.startswith("implausible: check type")
    assert list(found.remarks) == [
        "word_order big, byte_order big: 8 of 8 points of several registers are plausible",
        "word_order little, byte_order big: 0 of 8 points of several registers are plausible, as the map says",
    ]


@pytest.mark.parametrize("swap", [False, True])
def test_the_order_of_words_of_whole_numbers_is_the_one_that_makes_them_small(*, swap: bool) -> None:
    with modbus_server() as server:
        server.unit.put(0, [0] * 22, function=INPUT)
        for address, code, number in ((0, "I", 123_456), (2, "I", 9_876_543), (4, "i", -15_001), (6, "I", 36_000)):
            server.unit.number(address, code, number, function=INPUT, swap=swap)
        found = probe("127.0.0.1", port=server.port, register_map=load_register_map("heat_meter_en1434"))
    best = "little" if swap else "big"
    assert any(one.startswith(f"word_order {best}, byte_order big: 4 of 4") for one in found.remarks)
    assert sum("4 of 4" in one for one in found.remarks) == 1


def test_a_probe_without_a_map_reads_what_the_device_says_about_itself() -> None:
    with modbus_server(registers=40_300) as server:
        server.unit.put(40_000, [0x5375, 0x6E53, 1, 66, *[0] * 66, 213, 124, *[0x7FC0, 0] * 62, 0xFFFF, 0])
        server.unit.text(40_004, "ACME", 16)
        server.unit.text(40_052, "SN42", 16)
        server.unit.number(40_070 + 28, "f", 230e3)
        server.unit.number(40_070 + 68, "f", 1e9)
        found = probe("127.0.0.1", port=server.port)
    assert found.what == "SunSpec models 1, 213"
    assert (found.facts["manufacturer"], found.facts["serial"]) == ("ACME", "SN42")
    assert line(found, "energy_import_joules").value == "3.6e+12"
    assert line(found, "frequency_hertz").verdict == "absent: not a number"
    text = "\n".join(found.text())
    assert f"127.0.0.1:{server.port} unit 1: SunSpec models 1, 213" in text
    assert "active_power_watts    3/40098  4860 9c00  230000   watts   ok" in text


def test_a_device_of_which_nothing_is_known_shows_its_first_registers() -> None:
    with modbus_server() as server:
        server.unit.put(0, [0] * 40)
        for place, number in enumerate((45.1, 55.2, 230.4, 50.0, 1200.0)):
            server.unit.number(2 * place, "f", number, swap=True)
        server.unit.put(20, [7], function=3)
        found = probe("127.0.0.1", port=server.port)
    assert "does not speak SunSpec" in found.what
    assert line(found, "register 0") == ProbeLine("register 0", "3/0", "6666", "26214", "", "float32 45.1?")
    assert line(found, "register 20").value == "7"
    assert "function 3: 40 of the first 100 registers are there" in found.remarks
    assert any(
        "5 of 6 pairs from even addresses look like float32 in word_order little" in one for one in found.remarks
    )
    assert "function 4: 0 of the first 100 registers are there" in found.remarks


def test_a_device_that_is_not_there_is_an_error_with_its_state() -> None:
    with pytest.raises(DeviceError, match="no connection: Connection refused") as raised:
        probe("127.0.0.1", port=free_port(), timeout_s=0.5)
    assert raised.value.state is DeviceState.UNREACHABLE


@pytest.mark.parametrize("known", [True, False])
def test_a_unit_that_its_gateway_does_not_reach_is_told(*, known: bool) -> None:
    with modbus_server() as server:
        server.unit.fails = ExcCodes.GATEWAY_NO_RESPONSE
        if known:
            found = probe("127.0.0.1", port=server.port, register_map=CDU)
            assert all("does not answer the gateway" in one.verdict for one in found.lines)
        else:
            with pytest.raises(DeviceError, match="the unit does not answer the gateway"):
                probe("127.0.0.1", port=server.port)
