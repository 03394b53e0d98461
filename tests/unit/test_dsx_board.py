"""What stands on the bus: hold, order, clocks, bounds, alarms and heartbeats, without a broker.

Times are the schema's: values are said again every 100 s and stand for three times that, a heartbeat comes every 10 s.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogue import RACK, ResourceKind, resource_id
from catalogue.facility import LeakState
from collectors.devices import DeviceState
from collectors.dsx.board import Board
from collectors.dsx.message import Refusal
from collectors.dsx.settings import DsxSettings
from collectors.facility import Quality
from stream.messages import EventMessage
from tests.servers.agent_fakes import START_S, FakeClock

SOURCE = 77
POWER, LEAK = "Rack/RackPower/r1/power", "Rack/RackLeakDetect/r1/leak"
RACK_1 = {"rackLocationId": "rack-1", "rackLocationName": "Row 1, rack 1"}
LEAK_TEXTS = [{"value": 0, "text": "NoLeak"}, {"value": 1, "text": "Leak"}]
HEARTBEAT = "System/HeartbeatTimestampBms/bms/beat"


class Bus:
    """A board, and a building system that speaks to it."""

    def __init__(self, **kwargs: Any) -> None:
        self.clock = FakeClock()
        self.woken = 0
        self.board = Board(DsxSettings(host="bms", **kwargs), source=SOURCE, clock=self.clock, told=self._wake)

    def _wake(self) -> None:
        self.woken += 1

    def describe(self, point: str, **facts: Any) -> None:
        self.board.receive(f"BMS/v1/PUB/Metadata/{point}", msgspec.json.encode(facts), is_live=False)

    def say(
        self,
        point: str,
        value: float | None,
        *,
        quality: int = 1,
        ago_s: float = 0.0,
        is_live: bool = True,
        publisher: str = "PUB",
    ) -> None:
        payload = {"value": value, "timestamp": self.clock.utc_ms() - round(ago_s * 1000), "quality": quality}
        self.board.receive(f"BMS/v1/{publisher}/Value/{point}", msgspec.json.encode(payload), is_live=is_live)

    def power(self) -> tuple[float | None, Quality] | None:
        """What stands of the power of rack 1."""
        row = self.rack()
        return (row[0].get("power_watts"), row[1]) if row else None

    def rack(self) -> tuple[Mapping[str, float], Quality] | None:
        look = self.board.look()
        rows, _ = look.plan.measure(look.held.get)
        found = [row for row in rows if row.table is RACK and row.resource == resource_id(ResourceKind.RACK, "rack-1")]
        return (found[0].values, found[0].quality) if found else None

    def points(self) -> dict[str, tuple[float, Quality]]:
        look = self.board.look()
        _, points = look.plan.measure(look.held.get)
        return {point.point.name: (point.value, point.quality) for point in points}

    def refused(self) -> Counter[Refusal]:
        return Counter(self.board.tally().refused)

    def alarms(self) -> list[EventMessage]:
        return [event for event in self.board.events() if not event.kind.startswith("bms_")]

    def heartbeat_events(self) -> list[str]:
        return [event.kind for event in self.board.events() if event.kind.startswith("bms_")]


def power_bus(**kwargs: Any) -> Bus:
    bus = Bus(**kwargs)
    bus.describe(POWER, **RACK_1, engUnit="kW")
    return bus


def leak_bus(**kwargs: Any) -> Bus:
    bus = Bus(**kwargs)
    bus.describe(LEAK, **RACK_1, stateText=LEAK_TEXTS)
    return bus


def test_a_value_is_fresh_at_one_tick_and_held_until_three_republications_are_missed() -> None:
    bus = power_bus()
    bus.say(POWER, 132.0)
    assert bus.power() == (132_000.0, Quality.GOOD)
    bus.clock.advance(10)
    assert bus.power() == (132_000.0, Quality.HELD)
    bus.clock.advance(290)
    assert bus.power() == (132_000.0, Quality.HELD)
    bus.clock.advance(0.001)
    assert bus.power() is None


def test_a_value_that_is_said_again_is_fresh_again() -> None:
    bus = power_bus()
    bus.say(POWER, 132.0)
    bus.power()
    bus.clock.advance(100)
    bus.say(POWER, 132.0)
    assert bus.power() == (132_000.0, Quality.GOOD)


def test_a_stored_message_is_held_never_fresh() -> None:
    bus = power_bus()
    bus.say(POWER, 132.0, ago_s=50, is_live=False)
    assert bus.power() == (132_000.0, Quality.HELD)


def test_an_older_value_never_overwrites_a_newer_one() -> None:
    bus = power_bus()
    bus.say(POWER, 132.0, ago_s=1)
    bus.say(POWER, 90.0, ago_s=2)
    assert bus.power() == (132_000.0, Quality.GOOD)
    assert bus.refused() == {Refusal.DISORDER: 1}


def test_of_two_values_of_one_moment_the_later_counts() -> None:
    bus = power_bus()
    bus.say(POWER, 132.0)
    bus.say(POWER, 133.0)
    assert bus.power() == (133_000.0, Quality.GOOD)


def test_values_that_are_ahead_of_us_or_older_than_the_hold_are_counted_not_used() -> None:
    bus = power_bus()
    bus.say(POWER, 1.0, ago_s=-5)  # clocks differ
    assert bus.power() == (1000.0, Quality.GOOD)
    bus.say(POWER, 2.0, ago_s=-5.001)
    bus.say(POWER, 3.0, ago_s=300.001)
    assert bus.power() == (1000.0, Quality.HELD)
    assert bus.refused() == {Refusal.FUTURE: 1, Refusal.STALE: 1}


def test_a_value_before_its_metadata_waits_for_them() -> None:
    bus = Bus()
    bus.say(POWER, 132.0)
    assert bus.power() is None
    bus.say(POWER, 133.0)
    bus.describe(POWER, **RACK_1, engUnit="kW")
    assert bus.power() == (133_000.0, Quality.GOOD)


def test_a_value_that_nobody_describes_is_forgotten_after_the_hold() -> None:
    bus = Bus(max_points=1)
    bus.say("Rack/RackPower/who/knows", 1.0)
    bus.clock.advance(301)
    bus.board.look()
    bus.say(POWER, 132.0)
    bus.describe(POWER, **RACK_1, engUnit="kW")
    assert bus.power() == (132_000.0, Quality.GOOD)


def test_null_is_no_value_and_what_was_said_before_does_not_stand() -> None:
    bus = power_bus()
    bus.say(POWER, 132.0)
    bus.clock.advance(1)
    bus.say(POWER, None)
    assert bus.power() == (None, Quality.BAD)


def test_a_value_that_is_not_to_be_trusted_is_absent_and_its_row_says_so() -> None:
    bus = power_bus()
    bus.describe("Rack/RackLiquidFlow/r1/flow", **RACK_1, engUnit="LPM")
    bus.say(POWER, 9999.0, quality=0)
    bus.say("Rack/RackLiquidFlow/r1/flow", 120.0)
    row = bus.rack()
    assert row is not None
    assert row[0] == pytest.approx({"liquid_flow_cubic_metres_per_second": 0.002})
    assert row[1] is Quality.BAD


def test_a_point_of_its_own_keeps_a_bad_value_and_says_that_it_is_bad() -> None:
    bus = Bus()
    bus.describe("Tank/GenericPoint/t", objectId="tank", engUnit="%", processArea=["Level"])
    bus.say("Tank/GenericPoint/t", 80.0, quality=0)
    assert bus.points() == {"Tank/GenericPoint/t": (0.8, Quality.BAD)}


def test_a_row_is_as_good_as_its_worst_point() -> None:
    bus = power_bus()
    bus.describe("Rack/RackLiquidFlow/r1/flow", **RACK_1, engUnit="LPM")
    bus.say(POWER, 132.0)
    bus.say("Rack/RackLiquidFlow/r1/flow", 120.0)
    row = bus.rack()
    assert row is not None
    assert row[1] is Quality.GOOD
    bus.clock.advance(10)
    bus.say(POWER, 133.0)
    row = bus.rack()
    assert row is not None
    assert (row[0]["power_watts"], row[1]) == (133_000.0, Quality.HELD)


def test_of_several_pumps_the_fastest_counts_and_each_is_a_point() -> None:
    bus = Bus()
    for number, speed in ((1, 60.0), (2, 85.0)):
        bus.describe(f"CDU/PumpSpeed/p{number}", objectId="cdu-1", engUnit="%", processArea=[f"Pump {number}"])
        bus.say(f"CDU/PumpSpeed/p{number}", speed)
    look = bus.board.look()
    rows, points = look.plan.measure(look.held.get)
    assert [row.values for row in rows] == [{"pump_speed_ratio": pytest.approx(0.85)}]
    assert [point.value for point in points] == pytest.approx([0.6, 0.85])


def test_of_two_sensors_the_first_by_name_has_the_column_even_while_it_is_silent() -> None:
    bus = Bus()
    for name in "ab":
        bus.describe(
            f"CDU/LiquidTemperature/{name}", objectId="c", engUnit="C", processArea=["Secondary", "Supply", name]
        )
    bus.say("CDU/LiquidTemperature/b", 30.0)
    look = bus.board.look()
    rows, points = look.plan.measure(look.held.get)
    assert [row.values for row in rows] == [{}]
    assert {point.point.name: point.value for point in points} == {"CDU/LiquidTemperature/b": 30.0}


def test_metadata_that_are_taken_back_take_the_point_with_them() -> None:
    bus = power_bus()
    bus.say(POWER, 132.0)
    bus.board.receive(f"BMS/v1/PUB/Metadata/{POWER}", b"", is_live=True)
    assert bus.power() is None


def test_metadata_that_change_change_the_point() -> None:
    bus = power_bus()
    bus.say(POWER, 132.0)
    bus.describe(POWER, **RACK_1, engUnit="W")
    assert bus.power() == (132.0, Quality.GOOD)


def test_metadata_that_say_the_same_in_other_words_are_no_change() -> None:
    bus = power_bus()
    plan, changes = bus.board.plan(), bus.board.changes()
    bus.describe(POWER, **RACK_1, engUnit="kW", publishedAt=1_800_000_000, scope=None)
    assert (bus.board.plan(), bus.board.changes()) == (plan, changes)
    bus.describe(POWER, **RACK_1, engUnit="MW")
    assert bus.board.changes() == changes + 1


def test_metadata_that_cannot_be_read_change_nothing() -> None:
    bus = power_bus()
    bus.say(POWER, 132.0)
    bus.board.receive(f"BMS/v1/PUB/Metadata/{POWER}", b"{", is_live=True)
    assert bus.power() == (132_000.0, Quality.GOOD)
    assert bus.refused() == {Refusal.PAYLOAD: 1}


def test_a_unit_that_nobody_knows_and_a_point_without_an_id_are_refused_alone() -> None:
    bus = power_bus()
    bus.describe("Sensor/Sound/s", objectId="s", engUnit="dB")
    bus.describe("Rack/RackPower/r2", rackLocationName="Row 1, rack 2", engUnit="kW")
    bus.say(POWER, 132.0)
    bus.say("Sensor/Sound/s", 70.0)
    assert bus.power() == (132_000.0, Quality.GOOD)
    assert bus.points() == {}
    assert [error.reason for error in bus.board.plan().refused] == [Refusal.NAMELESS, Refusal.UNIT]


def test_values_that_an_integration_writes_for_the_building_are_not_waited_for() -> None:
    bus = Bus()
    bus.describe("CDU/LiquidTemperatureSpRequest/c", objectId="c", engUnit="C", integration="MEPAI")
    assert not bus.board.plan().points


def test_a_leak_is_told_at_once_with_the_time_of_its_source() -> None:
    bus = leak_bus()
    bus.say(LEAK, 0)
    assert (bus.woken, bus.alarms()) == (0, [])
    bus.say(LEAK, 1, ago_s=-0.25)
    assert bus.woken == 1
    (event,) = bus.alarms()
    assert (event.kind, event.code, event.time_ms) == ("leak", LeakState.CRITICAL, START_S * 1000 + 250)
    assert event.resource == resource_id(ResourceKind.RACK, "rack-1")
    assert event.source == SOURCE
    assert event.attributes == {"identity": "rack-1", "point": LEAK, "state": "Leak"}
    assert "Row 1, rack 1" in event.text
    assert bus.alarms() == []


def test_an_alarm_is_told_once_and_its_end_as_well() -> None:
    bus = leak_bus()
    for value in (1, 1, 1, 0, 0):
        bus.say(LEAK, value)
        bus.clock.advance(1)
    assert [(event.code, event.attributes["state"]) for event in bus.alarms()] == [
        (LeakState.CRITICAL, "Leak"),
        (LeakState.DRY, "NoLeak"),
    ]
    assert bus.woken == 2


@pytest.mark.parametrize(
    ("point_type", "kind", "begins", "ends"),
    [
        ("RackLeakDetect", "leak", LeakState.CRITICAL, LeakState.DRY),
        ("RackLeakSensorFault", "leak", LeakState.SENSOR_FAULT, LeakState.DRY),
        ("RackLiquidIsolationStatus", "rack_isolated", 1, 0),
        ("RackElectricalIsolationStatus", "rack_isolated", 1, 0),
    ],
)
def test_every_alarm_of_a_rack_has_its_kind_and_codes(point_type: str, kind: str, begins: int, ends: int) -> None:
    bus = Bus()
    bus.describe(f"Rack/{point_type}/r1", **RACK_1)
    bus.say(f"Rack/{point_type}/r1", 1)
    bus.say(f"Rack/{point_type}/r1", 0)
    assert [(event.kind, event.code) for event in bus.alarms()] == [(kind, begins), (kind, ends)]


def test_a_leak_in_a_cdu_and_in_a_part_of_a_rack_are_theirs() -> None:
    bus = leak_bus()
    bus.describe("CDU/LeakDetect/c", objectId="cdu-1", objectName="CDU 1")
    bus.describe("Sensor/LeakDetect/s", associateId="rack-1")
    bus.describe("Chiller/LeakDetect/x", objectId="chiller-1")
    for point in ("CDU/LeakDetect/c", "Sensor/LeakDetect/s", "Chiller/LeakDetect/x"):
        bus.say(point, 1)
    assert [event.resource for event in bus.alarms()] == [
        resource_id(ResourceKind.CDU, "cdu-1"),
        resource_id(ResourceKind.RACK, "rack-1"),
        resource_id(ResourceKind.POINT, "chiller-1/Chiller/LeakDetect/x"),
    ]


def test_a_leak_in_a_tray_comes_from_its_integration_and_from_nobody_else() -> None:
    bus, tray = Bus(), "Rack/RackLeakDetectTray/r1/t7"
    bus.describe(tray, **RACK_1, integration="BCM")
    bus.say(tray, 1, publisher="EVIL")
    bus.say(tray, 1)
    assert bus.alarms() == []
    bus.say(tray, 1, publisher="BCM")
    assert [event.kind for event in bus.alarms()] == ["leak"]
    row = bus.rack()
    assert row is not None
    assert row[0] == {"leak_state": 3}


def test_a_leak_before_its_metadata_is_told_when_they_come() -> None:
    bus = Bus()
    bus.say(LEAK, 1)
    assert bus.woken == 0
    bus.describe(LEAK, **RACK_1, stateText=LEAK_TEXTS)
    assert bus.woken == 1
    assert [event.time_ms for event in bus.alarms()] == [START_S * 1000]


@pytest.mark.parametrize("ago_s", [-3600.0, 3600.0])
def test_a_leak_does_not_wait_until_somebody_has_set_the_clock(ago_s: float) -> None:
    bus = leak_bus()
    bus.say(LEAK, 1, ago_s=ago_s)
    assert [event.time_ms for event in bus.alarms()] == [START_S * 1000]
    assert bus.refused().total() == 1


def test_an_old_leak_that_the_broker_stored_is_no_leak() -> None:
    bus = leak_bus()
    bus.say(LEAK, 1, ago_s=3600, is_live=False)
    assert bus.alarms() == []
    assert bus.refused() == {Refusal.STALE: 1}


def test_a_leak_point_that_is_not_to_be_trusted_is_no_leak_and_no_end_of_one() -> None:
    bus = leak_bus()
    bus.say(LEAK, 1, quality=0)
    bus.say(LEAK, 1)
    bus.say(LEAK, 0, quality=0)
    bus.say(LEAK, None)
    bus.say(LEAK, 7)
    assert [event.code for event in bus.alarms()] == [LeakState.CRITICAL]
    assert bus.refused() == {Refusal.PAYLOAD: 1}


def test_a_loose_contact_is_told_ten_times_a_minute_and_then_how_it_stands() -> None:
    bus = leak_bus()
    for change in range(1000):
        bus.say(LEAK, 1 - change % 2)
        bus.clock.advance(0.01)
    told = bus.alarms()
    assert len(told) == 11
    assert told[-1].code == LeakState.CRITICAL  # while it flutters it counts as a leak
    assert bus.alarms() == []
    bus.clock.advance(60)
    (last,) = bus.alarms()
    assert (last.code, sum(event.count for event in told) + last.count) == (LeakState.DRY, 1000)


def test_a_heartbeat_that_is_lost_and_comes_back_is_told_once_each() -> None:
    bus = Bus()
    bus.describe(HEARTBEAT, objectId="BMS", objectName="Plant BMS", scope="hall 1")
    for _ in range(3):
        bus.say(HEARTBEAT, bus.clock.utc_ms())
        bus.clock.advance(10)
    bus.clock.advance(20)
    assert bus.heartbeat_events() == []  # silent for 30 s
    bus.clock.advance(0.001)
    assert bus.heartbeat_events() == ["bms_heartbeat_lost"]
    assert bus.heartbeat_events() == []
    (report,) = bus.board.heartbeats()
    assert (report.device, report.state) == ("heartbeat Plant BMS hall 1", DeviceState.UNREACHABLE)
    bus.say(HEARTBEAT, bus.clock.utc_ms())
    assert bus.heartbeat_events() == ["bms_heartbeat_back"]
    assert [report.state for report in bus.board.heartbeats()] == [DeviceState.OK]


def test_a_heartbeat_that_never_came_is_lost() -> None:
    bus = Bus()
    assert bus.heartbeat_events() == []
    bus.clock.advance(30.001)
    assert bus.heartbeat_events() == ["bms_heartbeat_lost"]
    bus.say(HEARTBEAT, bus.clock.utc_ms())
    assert bus.heartbeat_events() == ["bms_heartbeat_back"]


def test_a_heartbeat_that_only_repeats_itself_does_not_beat() -> None:
    bus = Bus()
    for _ in range(4):
        bus.say(HEARTBEAT, 1_700_000_000_000)
        bus.clock.advance(10)
    assert bus.heartbeat_events() == ["bms_heartbeat_lost"]


def test_a_heartbeat_with_a_wrong_clock_beats_all_the_same() -> None:
    bus = Bus()
    for _ in range(4):
        bus.say(HEARTBEAT, bus.clock.utc_ms() - 86_400_000, ago_s=86_400)
        bus.clock.advance(10)
    assert bus.heartbeat_events() == []


def test_each_client_of_the_building_system_has_a_heartbeat_of_its_own() -> None:
    bus = Bus()
    for name in "ab":
        bus.describe(f"System/HeartbeatTimestampBms/{name}", objectId=name, objectName=name, scope=name)
    for _ in range(4):
        bus.say("System/HeartbeatTimestampBms/a", bus.clock.utc_ms())
        bus.clock.advance(10)
    (event,) = bus.board.events()
    assert event.attributes == {"bms": "b", "scope": "b"}


def test_a_rack_is_silent_when_nothing_of_it_stands() -> None:
    bus = power_bus()
    bus.describe(LEAK, **RACK_1, stateText=LEAK_TEXTS)
    bus.describe("Rack/RackPower/r2", rackLocationId="rack-2", engUnit="kW")
    assert bus.board.look().silent == ()
    bus.clock.advance(301)
    bus.say(POWER, 1.0)
    (silent,) = bus.board.look().silent
    assert (silent.device, silent.state) == ("Rack rack-2", DeviceState.UNREACHABLE)


def test_points_are_bounded_and_those_with_metadata_come_first() -> None:
    bus = Bus(max_points=3)
    for number in range(10):
        bus.say(f"Rack/RackPower/flood/{number}", 1.0)
    bus.describe(POWER, **RACK_1, engUnit="kW")
    bus.say(POWER, 132.0)
    assert bus.power() == (132_000.0, Quality.GOOD)
    assert bus.refused() == {Refusal.TOO_MANY: 7}


def test_a_number_beyond_every_unit_is_absent() -> None:
    bus = power_bus()
    bus.say(POWER, 1e308)
    row = bus.power()
    assert row is not None
    assert row[1] is Quality.GOOD


TOPICS = st.text(max_size=40) | st.builds(
    "BMS/v1/{}/{}/{}/{}".format,
    st.sampled_from(["PUB", "PUB", "PUB", "BCM", "+", ""]),
    st.sampled_from(["Value", "Value", "Metadata", "Metadata", "#"]),
    st.sampled_from(
        [
            "Rack/RackPower", "Rack/RackLeakDetect", "Rack/RackLeakDetectTray", "CDU/LeakDetect", "CDU/PumpSpeed",
            "CDU/LiquidTemperature", "CDU/Status", "Pump/LeakDetect", "Hall/DewPoint", "PowerMeter/ActivePower",
            "PowerMeter/GenericPoint", "System/HeartbeatTimestampBms", "System/Status", "x y/z", "",
        ]
    ),
    st.sampled_from(["a", "a", "b/c", "\x00", "é" * 160, "a" * 300]),
)  # fmt: skip
VALUES = st.fixed_dictionaries(
    {
        "value": st.none() | st.sampled_from([0, 1]) | st.floats(allow_nan=False, allow_infinity=False),
        "timestamp": st.integers(START_S * 1000 - 400_000, START_S * 1000 + 10_000),
        "quality": st.sampled_from([0, 1]),
    }
)
NAMES = st.none() | st.sampled_from(["", " ", "r1", "r2", "\x00", "x" * 128])
METADATA = st.fixed_dictionaries(
    {
        "rackLocationId": NAMES,
        "objectId": NAMES,
        "associateId": NAMES,
        "objectName": NAMES,
        "servesId": st.none() | st.lists(st.sampled_from(["r1", "r2", ""]), max_size=3),
        "processArea": st.none() | st.lists(st.sampled_from(["Secondary", "Supply", "Pump 1"]), max_size=3),
        "engUnit": st.sampled_from([None, "", "kW", "C", "%", "kWh", "dB"]),
        "stateText": st.none() | st.just(LEAK_TEXTS),
        "integration": st.sampled_from([None, "BCM", "a/b"]),
        "scope": NAMES,
    }
)
PAYLOADS = st.binary(max_size=40) | st.builds(msgspec.json.encode, VALUES | METADATA)


@settings(max_examples=100, deadline=None)
@given(messages=st.lists(st.tuples(TOPICS, PAYLOADS, st.booleans()), max_size=40))
def test_no_message_harms_the_board(messages: list[tuple[str, bytes, bool]]) -> None:
    bus = Bus(max_points=5)
    for topic, payload, is_live in messages:
        bus.board.receive(topic, payload, is_live=is_live)
        bus.clock.advance(1)
        look = bus.board.look()
        assert len(look.held) <= 5
        look.plan.measure(look.held.get)
        for message in [*bus.board.events(), *look.plan.inventory(source=SOURCE, time_ms=bus.clock.utc_ms())]:
            again = msgspec.json.decode(msgspec.json.encode(message), type=type(message))
            assert again == message  # what we publish, our own reader accepts
