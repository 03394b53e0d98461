"""The Redfish source against an HTTPS server with sessions and trees of our own: what devices show, in base units.

Expected values are written by hand from the numbers in tests/servers/redfish_trees.py.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from catalogue import COOLING, POWER, TRAY, ResourceKind, resource_id
from collectors.facility import Quality
from collectors.redfish.settings import RedfishResource
from tests.servers.notebook import Notebook
from tests.servers.redfish_bench import CDU_IDENTITY, START_S, Bench, about, events
from tests.servers.redfish_service import Certificates, Fault, Json, make_certificates
from tests.servers.redfish_trees import (
    CDU,
    LOOP,
    PDU,
    SHELF,
    cdu_tree,
    loop_tree,
    old_server_tree,
    pdu_tree,
    rack_tree,
    reading,
    server_tree,
    shelf_tree,
)

DRY, WARNING, CRITICAL, SENSOR_FAULT = 1, 2, 3, 4
RUNNING, STANDBY, DEGRADED, FAILED = 1, 2, 3, 4
GOOD = {"quality_state": float(Quality.GOOD)}
DETECTORS = f"{CDU}/LeakDetection/LeakDetectors"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def bench(certificates: Certificates, tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as running:
        yield Bench(certificates, tmp_path, running)


# What devices show ----------------------------------------------------------------------------------------------------

CDU_ROW = GOOD | {
    "primary_supply_temperature_celsius": 30.5,
    "primary_return_temperature_celsius": 41.25,
    "primary_flow_cubic_metres_per_second": 0.015,  # 900 L/min
    "secondary_supply_temperature_celsius": 36,
    "secondary_return_temperature_celsius": 44.5,
    "secondary_flow_cubic_metres_per_second": 0.02,  # 1200 L/min
    "secondary_pressure_pascals": 250_500,
    "differential_pressure_pascals": 120_000,
    "heat_flow_watts": 655_500,  # of the rack side
    "pump_speed_ratio": 0.605,  # the faster one
    "pump_power_watts": 8200,
    "valve_position_ratio": 0.625,
    "reservoir_level_ratio": 0.875,
    "dew_point_temperature_celsius": 9.5,
    "leak_state": DRY,
    "equipment_state": RUNNING,
}


@pytest.mark.parametrize("expands", [False, True])
def test_a_cdu_is_a_row_of_cooling(bench: Bench, *, expands: bool) -> None:
    source = bench.source(bench.device(bench.service(cdu_tree(), expands=expands)))
    assert bench.read(source).cdu() == CDU_ROW
    assert bench.read(source).cdu() == CDU_ROW


def test_what_a_cdu_has_no_column_for_is_a_point_in_its_base_unit(bench: Bench) -> None:
    source = bench.source(bench.device(bench.service(cdu_tree(), expands=True)))
    assert bench.read(source).points(CDU_IDENTITY) == {
        "PrimaryCoolantConnectors/1/DeltaTemperature": (10.75, "kelvin"),
        "PrimaryCoolantConnectors/1/SupplyPressure": (310_000, "pascals"),
        "PrimaryCoolantConnectors/1/HeatRemoved": (650_000, "watts"),
        "Pumps/1/PumpSpeed": (0.55, "ratio"),
        "Pumps/1/PumpSpeed/Speed": (50, "revolutions_per_second"),  # 3000 1/min
        "Pumps/1/ServiceTime": (3_600_000, "seconds"),  # 1000 h
        "Pumps/2/PumpSpeed": (0.605, "ratio"),
        "EnvironmentMetrics/Power/Apparent": (8500, "volt_amperes"),
        "EnvironmentMetrics/Power/PowerFactor": (0.96, "ratio"),
        "EnvironmentMetrics/Energy": (14_401_800_000, "joules"),  # 4000.5 kWh
        "EnvironmentMetrics/Humidity": (0.41, "relative_humidity"),
        # Sensors of its chassis; the one behind a connector's flow is a column already, the absent one is absent.
        "Chassis/cdu/Sensors/MakeUpFlow": (0.00025, "cubic_metres_per_second"),  # 0.25 L/s
        "Chassis/cdu/Sensors/FillPressure": (180_000, "pascals"),
        "Chassis/cdu/Sensors/Conductivity": (95.5, "microsiemens_per_centimetre"),
    }


def test_a_cdu_tells_inventory_what_it_is(bench: Bench) -> None:
    source = bench.source(bench.device(bench.service(cdu_tree()), "cdu-3", parent_kind="loop", parent="hall 1 TCS"))
    bench.read(source)
    assert source.inventory_changed()
    message = about(source, ResourceKind.CDU, CDU_IDENTITY)
    assert message.name == "cdu-3 Row CDU"
    assert message.parent == resource_id(ResourceKind.LOOP, "hall 1 TCS")
    assert message.attributes == {
        "device": "cdu-3",
        "path": f"/redfish/v1/{CDU}",
        "manufacturer": "Coolworks",
        "model": "C1300",
        "serial": "CW-000123",
        "firmware_version": "2.4.1",
        "nominal_heat_watts": "1300000",
        "fluid": "Water with 25 % propylene glycol by volume",
        "fluid_specific_heat_joules_per_kilogram_kelvin": "3970",
        "primary_fluid": "Water",
        "interval_s": "10",
    }
    assert (
        about(source, ResourceKind.POINT, f"{CDU_IDENTITY}/Pumps/1/ServiceTime").attributes["point_kind"] == "counter"
    )
    before = source.inventory()
    bench.read(source)
    assert not source.inventory_changed()
    assert source.inventory() == before


def test_streams_that_meet_in_a_loop_mix_by_their_flows(bench: Bench) -> None:
    service = bench.service(loop_tree())
    source = bench.source(bench.device(service))
    shown = bench.read(source)
    identity = f"{service.url}/redfish/v1/{LOOP}"
    assert shown.row(COOLING, ResourceKind.LOOP, identity) == pytest.approx(
        GOOD
        | {
            "primary_supply_temperature_celsius": 29,
            "primary_return_temperature_celsius": 40,
            "primary_flow_cubic_metres_per_second": 0.1,  # 6000 L/min
            "secondary_supply_temperature_celsius": 35,
            "secondary_return_temperature_celsius": 43.5,  # (1000 x 45 + 3000 x 43) / 4000
            "secondary_flow_cubic_metres_per_second": 4000 / 60_000,
            "heat_flow_watts": 4_500_000,
            "reservoir_level_ratio": 0.91,
            "equipment_state": DEGRADED,  # a part of it warns
        },
        abs=1e-7,
    )
    points = shown.points(identity)
    assert points["SecondaryCoolantConnectors/a/ReturnTemperature"] == (45, "celsius")
    assert points["SecondaryCoolantConnectors/b/Flow"] == (0.05, "cubic_metres_per_second")
    attributes = about(source, ResourceKind.LOOP, identity).attributes
    assert attributes["loop_type"] == "RowTCS"
    assert attributes["nominal_flow_cubic_metres_per_second"] == "0.1"


def test_a_pdu_and_its_circuits_are_meters(bench: Bench) -> None:
    source = bench.source(bench.device(bench.service(pdu_tree()), circuits=("Mains", "Branches", "Outlets")))
    shown = bench.read(source)
    pdu = "Plugs/P43/PL-77"
    joules = 203_177_520_000  # 56,438.2 kWh
    assert shown.row(POWER, ResourceKind.METER, pdu) == GOOD | {
        "active_power_watts": 21_000,
        "reactive_power_vars": 2100,
        "power_factor_ratio": 0.995,
        "energy_import_joules": joules,
    }
    assert shown.row(POWER, ResourceKind.METER, f"{pdu}/Mains/AC1") == pytest.approx(
        GOOD
        | {
            "active_power_watts": 21_000,
            "energy_import_joules": joules,
            "voltage_volts": 400.8,  # (401 + 399 + 402.5) / 3 is 400.83, stored in 0.1 V
            "current_amperes": 30.3,  # (30 + 31.5 + 29.4) / 3
            "frequency_hertz": 50.02,
            "breaker_state": 1,
        }
    )
    assert shown.row(POWER, ResourceKind.METER, f"{pdu}/Branches/B1") == GOOD | {
        "active_power_watts": 0,
        "current_amperes": 0,
        "breaker_state": 3,  # tripped
    }
    assert shown.row(POWER, ResourceKind.METER, f"{pdu}/Outlets/1")["energy_import_joules"] == 43_200_000
    # What is measured against neutral is no line-to-line voltage.
    assert shown.points(f"{pdu}/Branches/B1") == {"Voltage": (230.5, "volts")}
    assert shown.points(f"{pdu}/Mains/AC1")["PolyPhaseVoltage/Line1ToNeutral"] == (231, "volts")
    meter, circuit = (about(source, ResourceKind.METER, one) for one in (pdu, f"{pdu}/Mains/AC1"))
    assert (meter.attributes["nominal_power_watts"], meter.attributes["serial"]) == ("43000", "PL-77")
    assert (circuit.name, circuit.parent) == ("device PDU A Mains/AC1", meter.resource)


def test_the_register_is_that_of_the_sensors_life_where_settings_say_so(bench: Bench) -> None:
    source = bench.source(bench.device(bench.service(pdu_tree()), energy_register="LifetimeReading"))
    shown = bench.read(source)
    assert shown.row(POWER, ResourceKind.METER, "Plugs/P43/PL-77")["energy_import_joules"] == 99_000 * 3_600_000
    assert "energy_import_joules" not in shown.row(POWER, ResourceKind.METER, "Plugs/P43/PL-77/Mains/AC1")


def test_a_power_shelf_is_in_the_row_of_its_rack(bench: Bench) -> None:
    source = bench.source(bench.device(bench.service(shelf_tree()), rack="rack-12", parent_kind="row", parent="row 4"))
    assert bench.read(source).rack() == GOOD | {
        "power_watts": 16_500,
        "energy_register_joules": 3_601_800_000,  # 1000.5 kWh
        "power_supply_count": 2,  # one well, one in reserve
    }
    message = about(source, ResourceKind.RACK, "rack-12")
    assert (message.name, message.parent) == ("rack-12", resource_id(ResourceKind.ROW, "row 4"))


def test_a_power_shelf_that_is_in_no_rack_is_a_meter(bench: Bench) -> None:
    shown = bench.read(bench.source(bench.device(bench.service(shelf_tree("SH-9")))))
    row = shown.row(POWER, ResourceKind.METER, "SH-9")
    assert row == GOOD | {"active_power_watts": 16_500, "energy_import_joules": 3_601_800_000}


def test_shelves_of_one_rack_add_up_and_a_sum_that_lacks_one_is_none(bench: Bench) -> None:
    first = bench.service(shelf_tree("SH-1", power=16_000, energy=1000))
    second = bench.service(shelf_tree("SH-2", power=15_000, energy=500.5))
    devices = [bench.device(one, name, rack="rack-12") for one, name in ((first, "shelf-1"), (second, "shelf-2"))]
    source = bench.source(*devices)
    whole = GOOD | {"power_watts": 31_000, "energy_register_joules": 5_401_800_000, "power_supply_count": 4}
    assert bench.read(source).rack() == whole
    second.break_(f"{SHELF}/Metrics", Fault(status=500))
    assert bench.read(source).rack() == GOOD | {"power_supply_count": 4}
    second.mend()
    assert bench.read(source).rack() == whole
    assert about(source, ResourceKind.RACK, "rack-12").attributes["device"] == "shelf-1, shelf-2"
    restarted = bench.source(devices[0], bench.device(second, "shelf-2", rack="rack-12", username="nobody"))
    assert bench.read(restarted).rack() == {}  # what the second shelf has is not known yet


def test_a_rack_has_its_manifold_its_air_and_its_leak_detectors(bench: Bench) -> None:
    rack, shelf, tray = (bench.service(tree) for tree in (rack_tree(), shelf_tree(), server_tree()))
    source = bench.source(
        bench.device(rack, "manager", rack="rack-12"),
        bench.device(shelf, "shelf", rack="rack-12"),
        bench.device(tray, "tray", parent_kind="rack", parent="rack-12"),
    )
    assert bench.read(source).rack() == GOOD | {
        "power_watts": 16_500,
        "energy_register_joules": 3_601_800_000,
        "power_supply_count": 2,
        "liquid_heat_watts": 112_000,
        "liquid_supply_temperature_celsius": 36.5,
        "liquid_return_temperature_celsius": 46,
        "liquid_flow_cubic_metres_per_second": 0.0028,  # 168 L/min
        "liquid_differential_pressure_pascals": 85_500,
        "valve_position_ratio": 0.75,
        "air_inlet_temperature_celsius": 24.5,
        "leak_state": DRY,
    }
    detector = "Chassis/tray/ThermalSubsystem/LeakDetection/LeakDetectors/1"
    tray.change(detector, DetectorState="Warning")
    shown = bench.read(source)
    assert shown.rack()["leak_state"] == WARNING
    assert shown.points("Boards/NVL/BT-5")[detector.removeprefix("Chassis/tray/") + "/DetectorState"] == (2, "state")
    (event,) = events(source)
    assert event.resource == resource_id(ResourceKind.TRAY, "Boards/NVL/BT-5")
    tray.break_(detector, Fault(status=500))
    assert "leak_state" not in bench.read(source).rack()  # a detector that is not heard is not dry


def test_a_tray_has_its_power_its_energy_and_its_inlet(bench: Bench) -> None:
    service, notebook = bench.service(server_tree()), Notebook()
    device = bench.device(service, parent_kind="rack", parent="rack-12")
    source = bench.source(device, counters=notebook)
    tray = {"power_watts": 5400.5, "inlet_temperature_celsius": 27.5}
    assert bench.read(source).row(TRAY, ResourceKind.TRAY, "Boards/NVL/BT-5") == tray
    service.change("Chassis/tray/EnvironmentMetrics", EnergyJoules=reading(1_054_005))
    expected = tray | {"energy_joules": 54_005}
    assert bench.read(source).row(TRAY, ResourceKind.TRAY, "Boards/NVL/BT-5") == expected
    assert {one.identity for one in source.inventory() if one.kind is ResourceKind.TRAY} == {"Boards/NVL/BT-5"}
    assert about(source, ResourceKind.TRAY, "Boards/NVL/BT-5").parent == resource_id(ResourceKind.RACK, "rack-12")
    service.change("Chassis/tray/EnvironmentMetrics", EnergyJoules=reading(1_060_005))
    restarted = bench.read(bench.source(device, counters=notebook))
    assert restarted.row(TRAY, ResourceKind.TRAY, "Boards/NVL/BT-5")["energy_joules"] == 6000


def test_a_tray_tells_the_numbers_of_its_node_by_which_the_node_knows_itself(bench: Bench) -> None:
    service = bench.service(server_tree())
    source = bench.source(bench.device(service))
    bench.read(source)
    marks = {"system_serial": "SN-77", "system_uuid": "4c4c4544-0042-3510-8052-b4c04f4d3132"}
    assert marks.items() <= about(source, ResourceKind.TRAY, "Boards/NVL/BT-5").attributes.items()


def test_a_chassis_of_two_nodes_tells_the_numbers_of_neither(bench: Bench) -> None:
    service = bench.service(server_tree())
    links = [{"@odata.id": f"/redfish/v1/Systems/{node}"} for node in ("node", "node-2")]
    service.change("Chassis/tray", Links={"ComputerSystems": links})
    service.documents["/redfish/v1/Systems/node-2"] = {"SerialNumber": "SN-78"}
    source = bench.source(bench.device(service))
    bench.read(source)
    assert "system_serial" not in about(source, ResourceKind.TRAY, "Boards/NVL/BT-5").attributes


def test_a_server_with_deprecated_resources_has_its_power_and_its_inlet(bench: Bench) -> None:
    shown = bench.read(bench.source(bench.device(bench.service(old_server_tree()))))
    assert shown.row(TRAY, ResourceKind.TRAY, "OLD-9") == {"power_watts": 742, "inlet_temperature_celsius": 25.5}


def test_a_servers_sensors_are_read_where_settings_ask_for_them(bench: Bench) -> None:
    service = bench.service(server_tree())
    name = "Sensors/Fan1"
    assert name not in bench.read(bench.source(bench.device(service))).points("Boards/NVL/BT-5")
    shown = bench.read(bench.source(bench.device(service, sensors="all")))
    assert shown.points("Boards/NVL/BT-5")[name] == (150, "revolutions_per_second")  # 9000 1/min


def test_a_racks_own_meter_is_not_added_to_its_shelves(bench: Bench) -> None:
    rack, shelf = bench.service(rack_tree()), bench.service(shelf_tree())
    metrics = "Chassis/rack/EnvironmentMetrics"
    rack.documents["/redfish/v1/Chassis/rack"]["EnvironmentMetrics"] = {"@odata.id": f"/redfish/v1/{metrics}"}
    rack.documents[f"/redfish/v1/{metrics}"] = {"PowerWatts": reading(17_000), "EnergykWh": reading(1)}
    manager = bench.device(rack, "manager", rack="rack-12")
    assert bench.read(bench.source(manager)).rack()["power_watts"] == 17_000
    row = bench.read(bench.source(manager, bench.device(shelf, "shelf", rack="rack-12"))).rack()
    assert (row["power_watts"], row["energy_register_joules"]) == (16_500, 3_601_800_000)


@pytest.mark.parametrize("expands", [False, True])
def test_settings_say_what_redfish_does_not(bench: Bench, *, expands: bool) -> None:
    resources = {
        f"/redfish/v1/{PDU}": RedfishResource(
            kind="feeder",
            identity="F-7",
            name="feeder 7",
            parent_kind="hall",
            parent="hall 2",
            serves=("rack-1", "rack-2"),
            role="it",
            accuracy_class="0.5S",
            measured_at="PDU input",
            nominal_power_watts=44_000.0,
            register_modulus_joules=3.6e12,
            register_resolution_joules=360_000.0,
        ),
        f"/redfish/v1/{PDU}/Branches/B1": RedfishResource(kind="none"),
    }
    source = bench.source(bench.device(bench.service(pdu_tree(), expands=expands), "pdu-a", resources=resources))
    shown = bench.read(source)
    assert shown.row(POWER, ResourceKind.FEEDER, "F-7")["active_power_watts"] == 21_000
    message = about(source, ResourceKind.FEEDER, "F-7")
    assert message.name == "feeder 7"
    assert message.parent == resource_id(ResourceKind.HALL, "hall 2")
    assert message.serves == tuple(resource_id(ResourceKind.RACK, rack) for rack in ("rack-1", "rack-2"))
    assert (
        message.attributes
        | {
            "role": "it",
            "class": "0.5S",
            "measured_at": "PDU input",
            "nominal_power_watts": "44000",
            "register_modulus_joules": "3600000000000",
            "register_resolution_joules": "360000",
            "serial": "PL-77",
        }
        == message.attributes
    )
    assert not any("Branches" in one.identity for one in source.inventory())


def test_a_sensor_becomes_the_column_that_settings_name(bench: Bench) -> None:
    sensors = "/redfish/v1/Chassis/cdu/Sensors"
    said: dict[str, Any] = {"kind": "heat_meter", "identity": "HM-1"}
    resources = {
        f"{sensors}/MakeUpFlow": RedfishResource(**said, metric="primary_flow_cubic_metres_per_second"),
        f"{sensors}/FillPressure": RedfishResource(**said, metric="heat_flow_watts"),  # not in watts
    }
    shown = bench.read(bench.source(bench.device(bench.service(cdu_tree()), resources=resources)))
    assert shown.row(COOLING, ResourceKind.HEAT_METER, "HM-1") == GOOD | {
        "primary_flow_cubic_metres_per_second": 0.00025
    }
    assert shown.cdu() == CDU_ROW


def test_a_sensor_with_a_column_is_read_where_nothing_else_is(bench: Bench) -> None:
    service = bench.service(cdu_tree())
    del service.documents["/redfish/v1"]["ThermalEquipment"]
    sensor = "/redfish/v1/Chassis/cdu/Sensors/PrimaryFlow"
    resources = {
        "/redfish/v1/Chassis/cdu": RedfishResource(kind="none"),
        sensor: RedfishResource(kind="cdu", identity="C-1", metric="secondary_flow_cubic_metres_per_second"),
    }
    source = bench.source(bench.device(service, resources=resources))
    shown = bench.read(source)
    assert shown.row(COOLING, ResourceKind.CDU, "C-1") == GOOD | {"secondary_flow_cubic_metres_per_second": 0.015}
    assert [one.identity for one in source.inventory()] == ["C-1"]


# Absent is absent -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["Absent", "Disabled", "UnavailableOffline"])
def test_what_is_not_there_has_no_value(bench: Bench, state: str) -> None:
    service = bench.service(cdu_tree())
    service.change(f"{CDU}/SecondaryCoolantConnectors/1", Status={"State": state})
    service.change(f"{CDU}/Pumps/2", Status={"State": state})
    row = bench.read(bench.source(bench.device(service))).cdu()
    assert {name for name in CDU_ROW if name not in row} == {
        "secondary_supply_temperature_celsius",
        "secondary_return_temperature_celsius",
        "secondary_flow_cubic_metres_per_second",
        "secondary_pressure_pascals",
        "differential_pressure_pascals",
    }
    assert row["pump_speed_ratio"] == 0.55  # the other pump's
    assert row["heat_flow_watts"] == 650_000  # the facility side's


@pytest.mark.parametrize(
    "value", [None, "", "n/a", "NaN", "1_000", True, [1], {"Reading": 5}, 1e999, -1e300, "9" * 400, 10**400]
)
def test_what_is_no_number_is_no_value(bench: Bench, value: object) -> None:
    service = bench.service(cdu_tree())
    service.change(f"{CDU}/SecondaryCoolantConnectors/1", SupplyTemperatureCelsius={"Reading": value})
    row = bench.read(bench.source(bench.device(service))).cdu()
    assert row == {name: value for name, value in CDU_ROW.items() if name != "secondary_supply_temperature_celsius"}


def test_a_number_in_quotes_is_a_number(bench: Bench) -> None:
    service = bench.service(cdu_tree())
    service.change(f"{CDU}/SecondaryCoolantConnectors/1", SupplyTemperatureCelsius={"Reading": "36.0"})
    assert bench.read(bench.source(bench.device(service))).cdu() == CDU_ROW


def test_a_percentage_beyond_the_whole_is_no_value(bench: Bench) -> None:
    service = bench.service(cdu_tree())
    service.change(f"{CDU}/Reservoirs/1", FluidLevelPercent={"Reading": 255})
    assert "reservoir_level_ratio" not in bench.read(bench.source(bench.device(service))).cdu()


@pytest.mark.parametrize(
    ("status", "redundancy", "expected"),
    [
        ({"State": "Enabled", "Health": "OK"}, "OK", RUNNING),
        ({"State": "Enabled", "Health": "OK"}, "Warning", DEGRADED),
        ({"State": "Enabled", "Health": "OK", "HealthRollup": "Critical"}, "OK", DEGRADED),
        ({"State": "Enabled", "Health": "Warning"}, "OK", DEGRADED),
        ({"State": "Enabled", "Health": "Critical"}, "OK", FAILED),
        ({"State": "Disabled", "Health": "OK"}, "OK", STANDBY),
        ({"State": "StandbySpare", "Health": "OK"}, "OK", STANDBY),
        ({"State": "UnavailableOffline"}, "OK", FAILED),
        ({}, "OK", None),
    ],
)
def test_health_and_redundancy_are_the_state_of_the_equipment(
    bench: Bench, status: Json, redundancy: str, expected: int | None
) -> None:
    service = bench.service(cdu_tree())
    unit = service.documents[f"/redfish/v1/{CDU}"]
    unit |= {"Status": status, "PumpRedundancy": [{"Status": {"State": "Enabled", "Health": redundancy}}]}
    assert bench.read(bench.source(bench.device(service))).cdu().get("equipment_state") == expected


# Leaks ----------------------------------------------------------------------------------------------------------------


def test_a_leak_is_an_event_when_it_begins_changes_and_ends(bench: Bench) -> None:
    service = bench.service(cdu_tree())
    source = bench.source(bench.device(service, "cdu-3"))
    bench.read(source)
    assert events(source) == []
    service.change(f"{DETECTORS}/2", DetectorState="Critical")
    assert bench.read(source).cdu()["leak_state"] == CRITICAL
    (leak,) = events(source)
    assert (leak.kind, leak.code, leak.text) == ("leak", CRITICAL, "critical, was dry")
    assert (leak.resource, leak.time_ms) == (resource_id(ResourceKind.CDU, CDU_IDENTITY), (START_S + 10) * 1000)
    assert leak.attributes == {
        "device": "cdu-3",
        "before": "dry",
        "label": "LeakDetection/LeakDetectors/2",
        "detector": "Manifold",
        "type": "Moisture",
        "critical_reaction": "ForceOff",
    }
    bench.read(source)
    assert events(source) == []
    service.change(f"{DETECTORS}/2", DetectorState="OK")
    bench.read(source)
    (end,) = events(source)
    assert (end.code, end.text) == (DRY, "dry, was critical")
    assert end.id != leak.id


def test_a_leak_that_was_there_before_us_is_an_event_too(bench: Bench) -> None:
    service = bench.service(cdu_tree())
    service.change(f"{DETECTORS}/1", DetectorState="Warning")
    source = bench.source(bench.device(service))
    bench.read(source)
    assert [(event.code, event.text) for event in events(source)] == [(WARNING, "warning, was not known")]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("OK", "OK", DRY),
        ("OK", "Unavailable", SENSOR_FAULT),
        ("Unavailable", "Warning", WARNING),
        ("Critical", "Warning", CRITICAL),
        ("Absent", "OK", DRY),
        ("Absent", "Absent", None),
    ],
)
def test_the_worst_detector_counts(bench: Bench, first: str, second: str, expected: int | None) -> None:
    service = bench.service(cdu_tree())
    for number, state in enumerate((first, second), start=1):
        service.change(f"{DETECTORS}/{number}", DetectorState=state)
    assert bench.read(bench.source(bench.device(service))).cdu().get("leak_state") == expected


def test_dry_is_only_said_when_every_detector_was_heard(bench: Bench) -> None:
    service = bench.service(cdu_tree())
    source = bench.source(bench.device(service))
    bench.read(source)
    service.break_(f"{DETECTORS}/1", Fault(status=500))
    assert "leak_state" not in bench.read(source).cdu()
    service.change(f"{DETECTORS}/2", DetectorState="Warning")
    assert bench.read(source).cdu()["leak_state"] == WARNING


def test_detectors_that_a_group_shows_are_not_asked_one_by_one(bench: Bench) -> None:
    service = bench.service(rack_tree())
    source = bench.source(bench.device(service, rack="rack-12"))
    bench.read(source)
    service.asked()
    bench.read(source)
    thermal = "Chassis/rack/ThermalSubsystem"
    assert sorted(service.asked()) == [
        f"{thermal}/CoolantConnectors/1",
        f"{thermal}/LeakDetection",
        f"{thermal}/ThermalMetrics",
    ]
    group = service.documents[f"/redfish/v1/{thermal}/LeakDetection"]["LeakDetectorGroups"]
    group[0]["Detectors"][0]["DetectorState"] = "Critical"  # type: ignore[index]
    assert bench.read(source).rack()["leak_state"] == CRITICAL
    (event,) = events(source)
    assert event.attributes["detector"] == "Rope"


# One thing with two names ---------------------------------------------------------------------------------------------


def test_two_devices_with_one_identity_are_said_once_and_only_the_first_is_read(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    services = [bench.service(cdu_tree()), bench.service(cdu_tree())]
    services[1].change(f"{CDU}/Reservoirs/1", FluidLevelPercent={"Reading": 10})
    source = bench.source(*(bench.device(service, f"cdu-{number}") for number, service in enumerate(services)))
    levels = [bench.read(source).cdu()["reservoir_level_ratio"] for _ in range(3)]
    assert levels == [0.875] * 3
    assert [record.getMessage() for record in caplog.records] == [
        "Two devices measure what has one identity: only the first is read; give one of them an identity"
    ]


@pytest.mark.parametrize("serial", ["", "N/A", "0000000", "To be filled by O.E.M.", None, 17])
def test_without_a_serial_number_the_address_is_the_identity(bench: Bench, serial: object) -> None:
    service = bench.service(cdu_tree())
    service.change(CDU, SerialNumber=serial)
    shown = bench.read(bench.source(bench.device(service)))
    assert shown.row(COOLING, ResourceKind.CDU, f"{service.url}/redfish/v1/{CDU}") == CDU_ROW


def test_what_a_device_has_lost_is_told_no_longer(bench: Bench) -> None:
    service = bench.service(pdu_tree())
    source = bench.source(bench.device(service), rediscover_minutes=1)
    bench.read(source)
    branch = "Plugs/P43/PL-77/Branches/B1"
    assert any(one.identity.startswith(branch) for one in source.inventory())
    service.change(f"{PDU}/Branches", Members=[])
    del service.documents[f"/redfish/v1/{PDU}/Branches/B1"]
    bench.clock.advance(120)
    bench.read(source)  # finds out
    assert bench.read(source).row(POWER, ResourceKind.METER, branch) == {}
    assert not any(one.identity.startswith(branch) for one in source.inventory())
