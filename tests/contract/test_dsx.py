"""The source dsx on a real broker (Eclipse Mosquitto), with a building system that speaks NVIDIA's schema.

Expected values are written by hand from what the building system says, in base units. The clock is the test's.
"""

import logging
import os
import re
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from catalogue import COOLING, POINTS, POWER, RACK, ResourceKind, Table, resource_id
from catalogue.facility import LeakState
from catalogue.point import POINT_UNITS
from collectors.devices import DeviceState
from collectors.dsx.bus import MAX_PACKET_BYTES, _Listener
from collectors.dsx.message import Refusal
from collectors.dsx.settings import DsxSettings
from collectors.dsx.source import INVENTORY_PAUSE_S, DsxSource
from collectors.facility import gateway_id
from collectors.source import (
    ChangingSource,
    DeviceSource,
    ExplainingSource,
    Reading,
    Source,
    SourceUnavailableError,
    WakingSource,
)
from stream.messages import InventoryMessage
from stream.rows import in_base_unit
from tests.servers.agent_fakes import START_S, FakeClock
from tests.servers.dsx_bms import NO_LEAK_OR_LEAK, WAIT_S, Bms, wait_until
from tests.servers.dsx_rogue import RogueBroker, publish_packet, rogue_broker
from tests.servers.mosquitto import Certificates, Mosquitto

GATEWAY = "gateway-1"
GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "dsx.md"
GOOD, HELD, BAD = 1, 2, 4
RACK_1 = {"rackLocationId": "rack-1", "rackLocationName": "Row 1, rack 1"}
POWER_POINT, LEAK_POINT = "Rack/RackPower/s/r1/power", "Rack/RackLeakDetect/s/r1/leak"


class Site:
    """A broker, a building system and the source that reads it."""

    def __init__(self, directory: Path, stack: ExitStack, **settings: Any) -> None:
        self.clock = FakeClock()
        self.broker = stack.enter_context(Mosquitto(directory / "broker"))
        self.bms = stack.enter_context(Bms(self.broker.port, self.clock))
        self.woken_at_s: list[float] = []
        given = {"tls": False, "settle_s": 0.1, "connect_timeout_s": WAIT_S, **settings}
        self.source = stack.enter_context(
            closing(
                DsxSource(
                    DsxSettings(host="127.0.0.1", port=self.broker.port, **given),
                    gateway=GATEWAY,
                    clock=self.clock,
                    wake=lambda: self.woken_at_s.append(time.monotonic()),
                )
            )
        )

    def listen(self) -> None:
        """Return once values come."""
        self.source.inventory()
        wait_until(lambda: self.bus() is DeviceState.OK, "the bus answers")

    def bus(self) -> DeviceState:
        return self.source.devices()[0].state

    def use(self, values: int) -> None:
        """Return once the source has used so many values."""
        wait_until(lambda: self.source.tally().used >= values, f"{values} values are used")
        assert self.source.tally().used == values

    def read(self) -> Mapping[str, Reading]:
        """The readings of a tick, by table."""
        return {reading.table.name: reading for reading in self.source.read(self.clock.utc_ms() // 1000)}

    def describe_power(self) -> None:
        self.bms.describe(POWER_POINT, **RACK_1, engUnit="kW")

    def describe_leak(self) -> None:
        self.bms.describe(LEAK_POINT, **RACK_1, stateText=NO_LEAK_OR_LEAK)

    def rack_power(self) -> tuple[float | None, float] | None:
        """Power and quality of rack 1 at a tick."""
        readings = self.read()
        if "rack" not in readings:
            return None
        (row,) = values_of(readings["rack"], RACK).values()
        return row.get("power_watts"), row["quality_state"]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(tmp_path, stack)


def values_of(reading: Reading, table: Table) -> dict[int, dict[str, float]]:
    """What is not absent in a reading's rows, by resource, in base units."""
    assert reading.table is table
    assert reading.source == gateway_id(GATEWAY, "dsx")
    columns = {metric.name: in_base_unit(metric, reading.rows) for metric in table.metrics}
    return {
        int(resource): {name: float(column[row]) for name, column in columns.items() if column[row] == column[row]}
        for row, resource in enumerate(reading.rows["resource"])
    }


def only_row(reading: Reading, table: Table, kind: ResourceKind, identity: str) -> dict[str, float]:
    """What is not absent in the one row, which is that of this resource."""
    ((resource, row),) = values_of(reading, table).items()
    assert resource == resource_id(kind, identity)
    return row


def test_every_value_is_in_its_base_unit(site: Site) -> None:
    rack = {
        "RackLiquidSupplyTemperature": ("C", 45.25),
        "RackLiquidReturnTemperature": ("C", 55.5),
        "RackLiquidFlow": ("LPM", 180.0),
        "RackLiquidDifferentialPressure": ("kPa", 82.5),
        "RackControlValvePosition": ("%", 62.5),
        "RackPower": ("kW", 131.5),
    }
    for point_type, (unit, _) in rack.items():
        site.bms.describe(f"Rack/{point_type}/r1", **RACK_1, engUnit=unit)
    site.describe_leak()
    cdu = {
        ("LiquidTemperature", "Primary", "Inlet"): ("C", 30.0),
        ("LiquidTemperature", "Primary", "Outlet"): ("C", 42.0),
        ("LiquidTemperature", "Secondary", "Supply"): ("C", 35.0),
        ("LiquidTemperature", "Secondary", "Return"): ("C", 46.0),
        ("LiquidFlow", "Primary"): ("m3/h", 90.0),
        ("LiquidFlow", "Secondary"): ("LPM", 1500.0),
        ("LiquidPressure", "Secondary", "Supply"): ("bar", 2.5),
        ("LiquidDifferentialPressure", "Secondary"): ("kPa", 180.0),
        ("PumpSpeed", "Pump 1"): ("%", 70.0),
        ("ValvePosition", "Primary"): ("%", 40.0),
    }
    for (point_type, *area), (unit, _) in cdu.items():
        site.bms.describe(
            f"CDU/{point_type}/c1/{'/'.join(area)}", objectId="cdu-1", objectName="CDU 1", servesId=["rack-1"],
            processArea=area, engUnit=unit,
        )  # fmt: skip
    site.bms.describe(
        "CDU/Status/c1", objectId="cdu-1", objectName="CDU 1", stateText=[{"value": 3, "text": "Running"}]
    )
    site.bms.describe("Hall/DewPoint/h1", objectId="hall-1", engUnit="C")
    meter = {
        "ActivePower": ("kW", 2300.0),
        "Voltage": ("V", 415.5),
        "Current": ("A", 3200.0),
        "Frequency": ("Hz", 49.985),
        "PowerFactor": (None, 0.985),
    }
    for point_type, (meter_unit, _) in meter.items():
        site.bms.describe(
            f"PowerMeter/{point_type}/m1", objectId="MSB-1", objectName="Main board 1", servesId=["rack-1"],
            **({"engUnit": meter_unit} if meter_unit else {}),
        )  # fmt: skip
    site.listen()

    for point_type, (_, value) in rack.items():
        site.bms.say(f"Rack/{point_type}/r1", value)
    site.bms.say(LEAK_POINT, 0)
    for (point_type, *area), (_, value) in cdu.items():
        site.bms.say(f"CDU/{point_type}/c1/{'/'.join(area)}", value)
    site.bms.say("CDU/Status/c1", 3)
    site.bms.say("Hall/DewPoint/h1", 11.5)
    for point_type, (_, value) in meter.items():
        site.bms.say(f"PowerMeter/{point_type}/m1", value)
    site.use(7 + 12 + 5)

    readings = site.read()
    assert only_row(readings["rack"], RACK, ResourceKind.RACK, "rack-1") == pytest.approx(
        {
            "liquid_supply_temperature_celsius": 45.25,
            "liquid_return_temperature_celsius": 55.5,
            "liquid_flow_cubic_metres_per_second": 0.003,
            "liquid_differential_pressure_pascals": 82_500,
            "valve_position_ratio": 0.625,
            "power_watts": 131_500,
            "leak_state": 1,
            "quality_state": GOOD,
        }
    )
    assert only_row(readings["cooling"], COOLING, ResourceKind.CDU, "cdu-1") == pytest.approx(
        {
            "primary_supply_temperature_celsius": 30,
            "primary_return_temperature_celsius": 42,
            "secondary_supply_temperature_celsius": 35,
            "secondary_return_temperature_celsius": 46,
            "primary_flow_cubic_metres_per_second": 0.025,
            "secondary_flow_cubic_metres_per_second": 0.025,
            "secondary_pressure_pascals": 250_000,
            "differential_pressure_pascals": 180_000,
            "pump_speed_ratio": 0.7,
            "valve_position_ratio": 0.4,
            "dew_point_temperature_celsius": 11.5,
            "equipment_state": 1,
            "quality_state": GOOD,
        }
    )
    assert only_row(readings["power"], POWER, ResourceKind.METER, "MSB-1") == pytest.approx(
        {
            "active_power_watts": 2_300_000,
            "voltage_volts": 415.5,
            "current_amperes": 3200,
            "frequency_hertz": 49.985,
            "power_factor_ratio": 0.985,
            "quality_state": GOOD,
        }
    )
    assert set(readings["rack"].rows["time"]) == {START_S}


def test_what_has_no_column_is_a_point(site: Site) -> None:
    site.bms.describe("PowerMeter/PhaseCurrent/m1/a", objectId="MSB-1", servesId=[], engUnit="A", phase="A")
    site.bms.describe("Rack/RackLiquidIsolationStatus/r1", **RACK_1, stateText=[{"value": 0, "text": "NotIsolated"}])
    site.bms.describe("Tank/GenericPoint/t1", objectId="tank-1", processArea=["Conductivity"], engUnit="uS/cm")
    site.bms.describe("Sensor/Sound/s1", objectId="s1", engUnit="dB")  # a unit that the catalogue does not have
    site.listen()
    site.bms.say("PowerMeter/PhaseCurrent/m1/a", 1066.5)
    site.bms.say("Rack/RackLiquidIsolationStatus/r1", 0)
    site.bms.say("Tank/GenericPoint/t1", 12.25)
    site.bms.say("Sensor/Sound/s1", 71.0)
    site.use(4)
    suffixes = {code: unit.suffix for code, unit in POINT_UNITS}
    rows = values_of(site.read()["points"], POINTS)
    assert {resource: (row["value_own_unit"], suffixes[int(row["unit_state"])]) for resource, row in rows.items()} == {
        resource_id(ResourceKind.POINT, f"{device}/{name}"): value
        for device, name, value in (
            ("MSB-1", "PowerMeter/PhaseCurrent/m1/a", (1066.5, "amperes")),
            ("rack-1", "Rack/RackLiquidIsolationStatus/r1", (0, "state")),
            ("tank-1", "Tank/GenericPoint/t1", (12.25, "microsiemens_per_centimetre")),
        )
    }
    assert any("'dB' of Sensor/Sound/s1" in remark for remark in site.source.remarks())


def test_inventory_says_who_is_who_and_who_serves_whom(tmp_path: Path) -> None:
    with ExitStack() as stack:
        site = Site(tmp_path, stack, hall="hall-1", identities={"cdu-1": "SN-4711"}, facts={"MSB-1": {"role": "it"}})
        site.describe_power()
        site.bms.describe("CDU/PumpSpeed/c1", objectId="cdu-1", objectName="CDU 1", servesId=["rack-1"], engUnit="RPM")
        site.bms.describe(
            "PowerMeter/ActivePower/m1", objectId="MSB-1", objectName="Main board 1", engUnit="kW",
            servesId=["rack-1", "RPP-1", "not-here"],
        )  # fmt: skip
        site.bms.describe("PowerMeter/ActivePower/m2", objectId="RPP-1", servesId=["rack-1"], engUnit="kW")
        site.bms.describe("Valve/ValvePosition/v1", associateId="rack-1", engUnit="%")
        site.listen()
        wait_until(lambda: len(site.source.inventory()) == 6, "everything is described")
        found = {message.name: message for message in site.source.inventory()}

        rack, cdu, meter, other = found["Row 1, rack 1"], found["CDU 1"], found["Main board 1"], found["RPP-1"]
        hall = resource_id(ResourceKind.HALL, "hall-1")
        assert (rack.kind, rack.identity, rack.parent) == (ResourceKind.RACK, "rack-1", hall)
        assert (cdu.kind, cdu.identity, cdu.parent) == (ResourceKind.CDU, "SN-4711", hall)
        assert cdu.attributes == {"dsx_id": "cdu-1"}
        assert (meter.kind, set(meter.serves)) == (ResourceKind.METER, {rack.resource, other.resource})
        assert meter.attributes == {"dsx_id": "MSB-1", "role": "it"}
        valve, pump = found["Valve/ValvePosition/v1"], found["CDU/PumpSpeed/c1"]
        assert (valve.kind, valve.parent, valve.attributes["unit"]) == (ResourceKind.POINT, rack.resource, "ratio")
        assert (pump.parent, pump.attributes["unit"]) == (cdu.resource, "revolutions_per_second")
        assert {message.source for message in found.values()} == {gateway_id(GATEWAY, "dsx")}
        for message in found.values():
            assert message.resource == resource_id(message.kind, message.identity)
            assert msgspec.json.decode(msgspec.json.encode(message), type=InventoryMessage) == message


def test_inventory_keeps_the_time_since_when_it_says_so(site: Site) -> None:
    site.describe_power()
    site.listen()
    (before,) = site.source.inventory()
    site.clock.advance(600)
    assert list(site.source.inventory()) == [before]
    site.bms.describe(POWER_POINT, rackLocationId="rack-1", rackLocationName="Row 9, rack 9", engUnit="kW")
    wait_until(lambda: site.source.inventory()[0].name == "Row 9, rack 9", "the rack is renamed")
    assert site.source.inventory()[0].valid_from_ms == (START_S + 600) * 1000


def test_new_metadata_are_told_but_not_at_every_tick(site: Site) -> None:
    site.describe_power()
    site.listen()
    assert len(site.source.inventory()) == 1
    site.clock.advance(INVENTORY_PAUSE_S)
    assert not site.source.inventory_changed()
    site.bms.describe("Rack/RackPower/r2", rackLocationId="rack-2", engUnit="kW")
    wait_until(site.source.inventory_changed, "the new rack is noticed")
    assert len(site.source.inventory()) == 2
    site.bms.describe("Rack/RackPower/r3", rackLocationId="rack-3", engUnit="kW")
    wait_until(lambda: len(site.source.inventory()) == 3, "the third rack is there")
    assert not site.source.inventory_changed()


def test_metadata_are_complete_before_values_are_asked_for(site: Site) -> None:
    for number in range(200):
        site.bms.describe(f"Rack/RackPower/r{number}", rackLocationId=f"rack-{number}", engUnit="kW")
    site.listen()
    assert len(site.source.inventory()) == 200
    wanted = r"(?:Received SUBSCRIBE from kvandal|Sending PUBLISH to kvandal\S+ \(.*Metadata|\tBMS/v1/\S+ \(QoS)"
    lines = [line for line in site.broker.log().splitlines() if re.search(wanted, line)]
    subscribed = [match[1] for line in lines if (match := re.search(r"\t(BMS/v1/\S+) \(QoS", line))]
    assert subscribed == ["BMS/v1/PUB/Metadata/#", "BMS/v1/+/Value/Rack/RackLeakDetectTray/#", "BMS/v1/PUB/Value/#"]
    last_metadata = max(number for number, line in enumerate(lines) if "Sending PUBLISH" in line)
    values_asked = next(number for number, line in enumerate(lines) if "PUB/Value/#" in line)
    assert last_metadata < values_asked


def test_metadata_may_come_after_values(site: Site) -> None:
    site.listen()
    site.bms.say(POWER_POINT, 90.0)
    site.bms.say(POWER_POINT, 91.0)
    site.use(2)
    assert site.rack_power() is None
    site.describe_power()
    wait_until(site.source.inventory, "the rack is described")
    assert site.rack_power() == (91_000, HELD)


def test_a_value_stands_between_two_words_and_not_for_ever(site: Site) -> None:
    site.describe_power()
    site.listen()
    site.bms.say(POWER_POINT, 90.0)
    site.use(1)
    assert site.rack_power() == (90_000, GOOD)
    site.clock.advance(100)
    assert site.rack_power() == (90_000, HELD)
    site.bms.say(POWER_POINT, 90.0)
    site.use(2)
    assert site.rack_power() == (90_000, GOOD)
    site.clock.advance(300)
    assert site.rack_power() == (90_000, HELD)
    site.clock.advance(1)
    assert site.read() == {}
    assert [report.device for report in site.source.devices()] == [
        f"127.0.0.1:{site.broker.port}", "heartbeat BMS", "Rack rack-1",
    ]  # fmt: skip


def test_bad_quality_and_null_are_no_values(site: Site) -> None:
    site.describe_power()
    site.listen()
    site.bms.say(POWER_POINT, 90.0)
    site.bms.say(POWER_POINT, 9999.0, quality=0)
    site.use(2)
    assert site.rack_power() == (None, BAD)
    site.bms.say(POWER_POINT, None)
    site.use(3)
    assert site.rack_power() == (None, BAD)
    site.bms.say(POWER_POINT, 91.0)
    site.use(4)
    assert site.rack_power() == (91_000, GOOD)


def test_a_value_that_the_broker_stored_is_not_fresh(site: Site) -> None:
    site.describe_power()
    payload = {"value": 90.0, "timestamp": site.clock.utc_ms() - 60_000, "quality": 1}
    site.bms.publish(f"BMS/v1/PUB/Value/{POWER_POINT}", msgspec.json.encode(payload), retain=True)
    site.listen()
    site.use(1)
    assert site.rack_power() == (90_000, HELD)


def test_a_broker_that_restarts_is_found_again(site: Site) -> None:
    site.describe_power()
    site.listen()
    site.bms.say(POWER_POINT, 90.0)
    site.use(1)
    assert site.rack_power() == (90_000, GOOD)
    site.broker.stop()
    wait_until(lambda: site.bus() is DeviceState.UNREACHABLE, "the loss is noticed")
    assert site.rack_power() == (90_000, HELD)  # what was said still stands
    site.broker.start()  # without its metadata: the building system says them again within 100 s
    wait_until(lambda: site.bus() is DeviceState.OK, "the bus is back")
    site.bms.say(POWER_POINT, 91.0)
    site.use(2)
    assert site.rack_power() == (91_000, GOOD)
    site.broker.stop()
    wait_until(lambda: site.bus() is DeviceState.UNREACHABLE, "the loss is noticed")
    site.clock.advance(301)
    with pytest.raises(SourceUnavailableError, match="unreachable"):
        site.read()


def test_connections_leave_nothing_open(site: Site) -> None:
    site.listen()
    site.broker.stop()
    wait_until(lambda: site.bus() is DeviceState.UNREACHABLE, "the loss is noticed")
    open_files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    site.broker.start()
    wait_until(lambda: site.bus() is DeviceState.OK, "the bus is back")
    site.broker.stop()
    wait_until(lambda: site.bus() is DeviceState.UNREACHABLE, "the loss is noticed")
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= open_files, "sockets are closed")  # noqa: PTH208


def test_a_heartbeat_that_is_lost_is_an_event_and_a_state(site: Site) -> None:
    site.bms.describe("System/HeartbeatTimestampBms/bms/heartbeat", objectId="BMS", objectName="Plant BMS")
    site.listen()

    def heartbeat() -> DeviceState:
        (found,) = (report for report in site.source.devices() if report.device == "heartbeat Plant BMS")
        return found.state

    site.bms.beat()
    wait_until(lambda: heartbeat() is DeviceState.OK, "the heart beats")
    site.clock.advance(30)
    assert site.source.events() == []
    site.clock.advance(1)
    (lost,) = site.source.events()
    assert (lost.kind, lost.time_ms) == ("bms_heartbeat_lost", (START_S + 31) * 1000)  # type: ignore[union-attr]
    assert heartbeat() is DeviceState.UNREACHABLE
    site.bms.beat()
    wait_until(lambda: heartbeat() is DeviceState.OK, "the heart beats again")
    assert [event.kind for event in site.source.events()] == ["bms_heartbeat_back"]  # type: ignore[union-attr]


def test_a_leak_is_told_within_a_second_without_a_tick(site: Site) -> None:
    site.describe_leak()
    site.listen()
    replaced: list[float] = []
    site.source.set_wake(lambda: replaced.append(time.monotonic()))
    site.source.set_wake(lambda: site.woken_at_s.append(time.monotonic()))
    site.bms.say(LEAK_POINT, 0)
    site.use(1)
    assert site.woken_at_s == []
    said_at_s = time.monotonic()
    site.bms.say(LEAK_POINT, 1)
    wait_until(lambda: site.woken_at_s, "the leak is told")
    assert site.woken_at_s[0] - said_at_s < 1.0
    (event,) = site.source.events()
    assert (event.kind, event.code, event.resource) == (  # type: ignore[union-attr]
        "leak", LeakState.CRITICAL, resource_id(ResourceKind.RACK, "rack-1"),
    )  # fmt: skip
    site.bms.say(LEAK_POINT, 1)
    site.use(3)
    assert (len(site.woken_at_s), site.source.events(), replaced) == (1, [], [])


def test_a_leak_in_a_tray_comes_on_the_topic_of_its_integration(site: Site) -> None:
    tray = "Rack/RackLeakDetectTray/s/r1/t7"
    site.bms.describe(tray, **RACK_1, stateText=NO_LEAK_OR_LEAK, integration="BCM")
    site.listen()
    site.bms.say(tray, 1, publisher="BCM")
    wait_until(lambda: site.woken_at_s, "the leak is told")
    assert [event.kind for event in site.source.events()] == ["leak"]  # type: ignore[union-attr]


def test_it_reads_and_never_publishes(site: Site) -> None:
    heard: list[str] = []
    spy = Client(CallbackAPIVersion.VERSION2, client_id="spy")
    spy.on_message = lambda _client, _data, message: heard.append(message.topic)
    spy.connect("127.0.0.1", site.broker.port)
    spy.subscribe("#", 1)
    spy.loop_start()
    site.describe_power()
    site.listen()
    site.bms.say(POWER_POINT, 90.0)
    site.use(1)
    site.read()
    site.source.close()
    site.bms.publish("the/end", b"")
    wait_until(lambda: "the/end" in heard, "the spy hears all")
    spy.disconnect()
    spy.loop_stop()
    assert heard == [f"BMS/v1/PUB/Metadata/{POWER_POINT}", f"BMS/v1/PUB/Value/{POWER_POINT}", "the/end"]
    us = f"kvandal{gateway_id(GATEWAY, 'dsx'):016x}"
    log = site.broker.log()
    assert f"Received SUBSCRIBE from {us}" in log
    assert f"Received PUBLISH from {us}" not in log
    assert "No will message specified" in log
    assert "Will message specified (" not in log


def test_messages_that_are_not_the_schemas_are_counted_and_told_once(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.describe_power()
    site.listen()
    value = f"BMS/v1/PUB/Value/{POWER_POINT}"
    for payload in (b"", b"\xff\xfe", b"[]", b'{"value": NaN}', b'{"value": 1e999, "timestamp": 1, "quality": 1}'):
        site.bms.publish(value, payload)
    site.bms.publish(value, b"1" * 100_000)
    site.bms.publish("BMS/v1/PUB/Value/" + "x" * 60_000, b"1")
    site.bms.publish("BMS/v1/PUB/Value/Rack", b"1")
    site.bms.publish(f"BMS/v1/PUB/Metadata/{POWER_POINT}", b'{"rackLocationId": 5}')
    site.bms.say(POWER_POINT, 1.0, ago_s=-60)
    site.bms.say(POWER_POINT, 2.0, ago_s=301)
    site.bms.say(POWER_POINT, 3.0)
    site.use(1)
    with caplog.at_level(logging.WARNING):
        assert site.rack_power() == (3000, GOOD)
        report = site.source.devices()[0]
        assert (report.state, site.source.tally().refused) == (
            DeviceState.NONSENSE,
            {Refusal.PAYLOAD: 6, Refusal.TOO_LONG: 2, Refusal.TOPIC: 1, Refusal.FUTURE: 1, Refusal.STALE: 1},
        )
        assert "11 messages of the last tick not used" in report.why
        for _ in range(10):
            site.bms.publish(value, b"[]")
            site.clock.advance(1)
            site.read()
    assert len([record for record in caplog.records if "not used" in record.message]) == 5  # one for each reason
    assert all(len(str(getattr(record, "example", ""))) <= 256 for record in caplog.records)


def test_a_broker_that_does_not_answer_is_unreachable(tmp_path: Path) -> None:
    with ExitStack() as stack:
        site = Site(tmp_path, stack)
        site.broker.stop()
        with pytest.raises(SourceUnavailableError, match="unreachable"):
            site.read()
        source: Source = site.source
        assert isinstance(source, DeviceSource)
        assert isinstance(source, WakingSource)
        assert isinstance(source, ChangingSource)
        assert isinstance(site.source, ExplainingSource)
        (bus,) = site.source.devices()
        assert (bus.device, bus.state) == (f"127.0.0.1:{site.broker.port}", DeviceState.UNREACHABLE)


@contextmanager
def listening_to(broker: Mosquitto | RogueBroker, **settings: Any) -> Iterator[DsxSource]:
    """A source on a broker without a building system."""
    given = {"tls": False, "settle_s": 0.05, "connect_timeout_s": WAIT_S, **settings}
    with closing(
        DsxSource(DsxSettings(host="127.0.0.1", port=broker.port, **given), gateway=GATEWAY, clock=FakeClock())
    ) as source:
        yield source


def await_state(source: DsxSource, state: DeviceState) -> str:
    """Why the bus has come into that state."""
    source.inventory()
    wait_until(lambda: source.devices()[0].state is state, f"the bus is {state}")
    return source.devices()[0].why


def test_credentials_are_read_anew_at_every_connect(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    password = tmp_path / "password"
    password.write_text("yesterday's token\n")
    settings = {"username": "oauthtoken", "password_file": str(password)}
    with (
        Mosquitto(tmp_path / "broker", users={"oauthtoken": "today's token"}) as broker,
        listening_to(broker, **settings) as source,
    ):
        assert "Not authorized" in await_state(source, DeviceState.REFUSED)
        with pytest.raises(SourceUnavailableError, match="refused"):
            source.read(START_S)
        password.unlink()
        wait_until(lambda: "password_file" in source.devices()[0].why, "the missing file is noticed")
        password.write_text("today's token\n")
        await_state(source, DeviceState.OK)
    told = f"{caplog.text}{source.devices()}{source.remarks()}"
    assert "token" not in told.replace("oauthtoken", "")


def test_a_broker_that_lets_nobody_publish_lets_us_read(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("secret")
    acl = "user bms\ntopic readwrite BMS/v1/PUB/#\n\nuser reader\ntopic read BMS/v1/PUB/#\n"
    users = {"bms": "other secret", "reader": "secret"}
    clock = FakeClock()
    with (
        Mosquitto(tmp_path / "broker", users=users, acl=acl) as broker,
        Bms(broker.port, clock, user="bms", password="other secret") as bms,  # noqa: S106
        listening_to(broker, username="reader", password_file=str(password)) as source,
    ):
        bms.describe(POWER_POINT, **RACK_1, engUnit="kW")
        await_state(source, DeviceState.OK)
        bms.say(POWER_POINT, 90.0)
        wait_until(lambda: source.tally().used, "the value is used")
        assert "Denied PUBLISH" not in broker.log()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


def test_tls_trusts_the_authority_that_it_is_given_and_no_other(tmp_path: Path, certificates: Certificates) -> None:
    with Mosquitto(tmp_path / "broker", certificates=certificates) as broker:
        with listening_to(broker, tls=True, ca_file=str(certificates.authority)) as source:
            await_state(source, DeviceState.OK)
        with listening_to(broker, tls=True, ca_file=str(certificates.stranger)) as source:
            assert "certificate" in await_state(source, DeviceState.UNTRUSTED)
        with listening_to(broker, tls=True, ca_file=str(tmp_path / "none.pem")) as source:
            assert "dsx.ca_file" in await_state(source, DeviceState.UNTRUSTED)
        with listening_to(broker, tls=False) as source:
            await_state(source, DeviceState.UNREACHABLE)


def test_a_broker_that_wants_a_certificate_gets_ours(tmp_path: Path, certificates: Certificates) -> None:
    trust = {"tls": True, "ca_file": str(certificates.authority)}
    ours = {"certificate_file": str(certificates.client), "key_file": str(certificates.client_key)}
    with Mosquitto(tmp_path / "broker", certificates=certificates, wants_certificate=True) as broker:
        with listening_to(broker, **trust, **ours) as source:
            await_state(source, DeviceState.OK)
        with listening_to(broker, **trust) as source:
            assert "CERTIFICATE_REQUIRED" in await_state(source, DeviceState.REFUSED)


def test_plain_mqtt_is_not_taken_for_tls(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "broker") as broker, listening_to(broker, tls=True) as source:
        wait_until(lambda: source.inventory() == [] and source.devices()[0].why, "the broker is judged")
        assert source.devices()[0].state in (DeviceState.NONSENSE, DeviceState.UNREACHABLE)


@pytest.mark.parametrize(
    ("greeting", "state"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", DeviceState.SLOW),  # as MQTT, the start of 84 bytes
        (b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3" + b"\r\n" * 50, DeviceState.NONSENSE),
        (b"\x20\x02\x00\x05", DeviceState.REFUSED),  # CONNACK: not authorised
        (b"\x20\x02\x00\x03", DeviceState.UNREACHABLE),  # server unavailable
        (b"\x20\x01\x00", DeviceState.NONSENSE),
        (b"\x20\xff\xff\xff\xff\x01", DeviceState.NONSENSE),
        (b"", DeviceState.SLOW),
    ],
)
def test_a_broker_is_judged_by_its_greeting(greeting: bytes, state: DeviceState) -> None:
    with rogue_broker() as rogue:
        rogue.greeting = greeting
        with listening_to(rogue, connect_timeout_s=0.5) as source:
            await_state(source, state)


@pytest.mark.parametrize("topic", ["BMS/v1/PUB/Metadata/#", "BMS/v1/PUB/Value/#"])
def test_a_broker_that_does_not_grant_a_subscription_refuses(topic: str) -> None:
    with rogue_broker() as rogue:
        rogue.refuses = (topic,)
        with listening_to(rogue) as source:
            assert topic in await_state(source, DeviceState.REFUSED)


def test_without_the_topics_of_integrations_the_rest_is_read() -> None:
    with rogue_broker() as rogue:
        rogue.refuses = ("BMS/v1/+/Value/Rack/RackLeakDetectTray/#",)
        with listening_to(rogue) as source:
            await_state(source, DeviceState.OK)
            assert any("RackLeakDetectTray" in remark for remark in source.remarks())


def test_a_topic_that_is_no_text_is_counted() -> None:
    with rogue_broker() as rogue:
        rogue.after_values = publish_packet(b"BMS/v1/PUB/Value/Rack/RackPower/\xff", b"1")
        with listening_to(rogue) as source:
            await_state(source, DeviceState.OK)
            wait_until(lambda: source.tally().refused == {Refusal.TOPIC: 1}, "the topic is counted")


@pytest.mark.parametrize(
    "packets",
    [
        b"\x30\x02\x00\x00",  # no topic
        b"\x36\x05\x00\x01a\x00\x01",  # QoS 3
        b"\xf0\x00",
    ],
)
def test_packets_that_are_no_mqtt_end_the_connection_not_the_source(packets: bytes) -> None:
    with rogue_broker() as rogue:
        rogue.after_values = packets + b"x" * 100
        with listening_to(rogue) as source:
            source.inventory()
            wait_until(lambda: rogue.connections >= 2, "it connects again")
            rogue.after_values = b""
            await_state(source, DeviceState.OK)


def test_an_endless_packet_is_not_taken_in() -> None:
    # Remaining length 2**28 - 1: the most that MQTT knows (3.1.1, 2.2.3).
    with rogue_broker() as rogue:
        rogue.after_values = b"\x30\xff\xff\xff\x7f" + b"x" * 1000
        with listening_to(rogue) as source:
            assert f"{MAX_PACKET_BYTES} bytes" in await_state(source, DeviceState.NONSENSE)


def test_the_client_has_the_method_that_the_bounds_are_built_on() -> None:
    assert callable(Client._sock_recv)
    assert _Listener._sock_recv is not Client._sock_recv


def test_closing_ends_the_thread_and_may_be_done_twice(site: Site) -> None:
    site.listen()
    site.source.close()
    site.source.close()
    us = f"kvandal{gateway_id(GATEWAY, 'dsx'):016x}"
    wait_until(lambda: f"Received DISCONNECT from {us}" in site.broker.log(), "we say goodbye")


def test_a_source_that_was_never_read_has_nothing_to_close() -> None:
    DsxSource(DsxSettings(host="nowhere.invalid"), gateway=GATEWAY, clock=FakeClock()).close()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "host"),
        ({"host": "bms", "hots": 1}, "hots"),
        ({"host": "bms", "port": 0}, "port"),
        ({"host": "bms", "hold_s": 0}, "hold_s"),
        ({"host": "bms", "max_points": 1_000_000}, "max_points"),
        ({"host": "bms", "certificate_file": "c.pem"}, "dsx.key_file"),
        ({"host": "bms", "tls": False, "ca_file": "ca.pem"}, "dsx.tls"),
        ({"host": "bms", "password_file": "p"}, "dsx.username"),
        ({"host": "bms", "status_words": {"On": "humming"}}, "humming"),
    ],
)
def test_wrong_settings_are_refused_by_name(given: dict[str, Any], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(given, DsxSettings)


def test_the_guides_settings_are_settings() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    settings = msgspec.convert(tomllib.loads(example)["dsx"], DsxSettings)
    assert set(settings.__struct_fields__) >= set(tomllib.loads(example)["dsx"])
    assert (settings.tls, settings.hold_s, settings.heartbeat_lost_s) == (True, 300, 30)
