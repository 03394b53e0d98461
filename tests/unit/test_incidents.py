"""Incidents: what is told, once, about what; with a clock that the test turns."""

from collections.abc import Iterable, Sequence

import pytest

from alerts.incident import Alarm, Outcome
from alerts.incidents import Incidents
from alerts.replay_site import START_MS, ReplaySite
from alerts.telling import Links
from catalogue import ResourceKind, resource_id
from stream.messages import EventMessage, InventoryMessage
from tests.alerts.site import bus_alarm, port_state, xid


class Watch:
    """Incidents of a small site under a clock; what was told, as the Alertmanager would have heard it."""

    def __init__(self, site: ReplaySite | None = None) -> None:
        self.site = site or ReplaySite()
        self.tree = self.site.tree()
        self.incidents = Incidents(self.tree, Links())
        self.heard: dict[str, Alarm] = {}
        self.log: list[tuple[float, str, str]] = []  # at, "begins" or "ends", alarm

    def see(self, *events: EventMessage, at_s: float) -> None:
        now_ms = START_MS + round(at_s * 1000)
        for event in events:
            self.incidents.see(event, now_ms)
        self.at(at_s)

    def at(self, at_s: float) -> None:
        self.incidents.advance(START_MS + round(at_s * 1000))
        for alarm in self.incidents.alarms:
            if alarm.ends_ms is None and alarm.id not in self.heard:
                self.heard[alarm.id] = alarm
                self.log.append((at_s, "begins", alarm.labels["alertname"]))
            elif alarm.ends_ms is not None and alarm.id in self.heard:
                del self.heard[alarm.id]
                self.log.append((at_s, "ends", alarm.labels["alertname"]))
        self.incidents.sent(self.incidents.alarms)

    def until(self, from_s: float, to_s: float, step_s: float = 1.0) -> None:
        at_s = from_s
        while at_s <= to_s:
            self.at(at_s)
            at_s += step_s

    @property
    def names(self) -> list[str]:
        return sorted(alarm.labels["alertname"] for alarm in self.heard.values())

    def only(self) -> Alarm:
        (alarm,) = self.heard.values()
        return alarm


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_a_fatal_error_waits_for_its_cause_and_is_told_after_ten_seconds(watch: Watch) -> None:
    watch.see(xid(watch.site.gpu(0, 3, 1), 119, 0), at_s=0)
    watch.until(1, 9.9, 0.1)
    assert watch.names == []
    watch.at(10)
    assert watch.names == ["GpuXidFatal"]
    told = watch.only()
    assert told.starts_ms == START_MS
    expected = {"severity": "page", "owner": "fleet", "place": "node-0-3", "rack": "rack 0", "cdu": "CDU 0"}
    assert expected.items() <= told.labels.items()


def test_the_sentence_says_what_where_since_when_and_what_it_costs(watch: Watch) -> None:
    watch.see(xid(watch.site.gpu(0, 3, 1), 119, 0), xid(watch.site.gpu(0, 3, 2), 95, 1, count=7), at_s=1)
    watch.at(11)
    told = watch.only().annotations
    assert told["summary"] == (
        "node-0-3: the driver reports a fatal error (XID 95, XID 119), 8 events on 2 devices since 2026-11-18 "
        "11:06:40 UTC: its job has died, and the GPU takes no work until it is reset."
    )
    assert told["runbook_url"].endswith("/GpuXidFatal.md")
    assert f"from={START_MS - 900_000}" in told["dashboard"]
    assert "var-rack=rack+0" in told["dashboard"]


def test_a_burst_of_a_node_is_one_incident_named_by_its_worst(watch: Watch) -> None:
    gpu = watch.site.gpu(1, 0, 0)
    watch.see(xid(gpu, 45, 0), xid(gpu, 63, 1), at_s=1)
    watch.see(xid(gpu, 79, 5), xid(watch.site.gpu(1, 0, 1), 94, 6), at_s=6)
    watch.until(7, 400)
    assert watch.log == [(15, "begins", "GpuFallenOffBus")]
    assert "XID 45, XID 63, XID 79, XID 94" in watch.only().annotations["summary"]


def test_a_ticket_that_turns_fatal_becomes_a_page(watch: Watch) -> None:
    gpu = watch.site.gpu(1, 0, 0)
    watch.see(xid(gpu, 63, 0), at_s=0)
    watch.until(1, 90)
    assert watch.names == ["GpuXidTicket"]
    watch.see(xid(gpu, 64, 100), at_s=100)
    watch.until(101, 120)
    assert [(what, name) for _, what, name in watch.log] == [
        ("begins", "GpuXidTicket"), ("ends", "GpuXidTicket"), ("begins", "GpuXidFatal"),
    ]  # fmt: skip


def test_after_three_minutes_of_silence_another_gpu_is_another_burst(watch: Watch) -> None:
    for at_s, gpu in ((0, 0), (170, 1), (360, 2)):  # the second joins the first, the third does not
        watch.see(xid(watch.site.gpu(0, 0, gpu), 119, at_s), at_s=at_s)
        watch.until(at_s + 1, at_s + 20)
    assert [name for _, what, name in watch.log if what == "begins"] == ["GpuXidFatal", "GpuXidFatal"]
    assert len(watch.heard) == 2


def test_a_gpu_that_repeats_itself_while_its_incident_stands_is_not_told_again(watch: Watch) -> None:
    for number in range(4):
        watch.see(xid(watch.site.gpu(0, 0, 0), 119, number * 1000), at_s=number * 1000)
        watch.until(number * 1000 + 1, number * 1000 + 30)
    assert watch.log == [(10, "begins", "GpuXidFatal")]


def test_the_fifth_fatal_error_of_one_kind_within_a_day_is_a_ticket_for_the_vendor(watch: Watch) -> None:
    gpu = watch.site.gpu(0, 0, 0)
    for number in range(4):
        watch.see(xid(gpu, 119, number * 3600), xid(gpu, 79, number * 3600), at_s=number * 3600)
    assert "GpuXidRepeated" not in watch.names
    watch.see(xid(gpu, 119, 5 * 3600), at_s=5 * 3600)
    assert watch.names.count("GpuXidRepeated") == 1


def test_four_errors_and_one_of_the_day_before_are_no_repetition(watch: Watch) -> None:
    gpu = watch.site.gpu(0, 0, 0)
    for at_s in (0, 86_401, 90_000, 93_600, 97_200):
        watch.see(xid(gpu, 119, at_s), at_s=at_s)
    assert "GpuXidRepeated" not in watch.names


def test_the_driver_that_asks_for_nothing_any_more_ends_the_incident(watch: Watch) -> None:
    gpu = watch.site.gpu(0, 0, 0)
    watch.see(xid(gpu, 119, 0), at_s=0)
    watch.at(10)
    watch.see(xid(gpu, 154, 500, detail="GPU recovery action changed from 0x1 to 0x0 (None)"), at_s=500)
    watch.until(501, 570)
    assert watch.log == [(10, "begins", "GpuXidFatal"), (560, "ends", "GpuXidFatal")]


def test_power_smoothing_that_engages_again_within_a_minute_concerns_nobody(watch: Watch) -> None:
    gpu = watch.site.gpu(0, 0, 0)
    watch.see(xid(gpu, 163, 0), at_s=0)
    watch.see(xid(gpu, 162, 59), at_s=59)
    watch.until(60, 300)
    assert watch.log == []
    assert watch.incidents.outcomes["PowerSmoothingDisengaged", Outcome.CANCELLED] == 1


def test_power_smoothing_that_stays_off_is_a_ticket_until_it_engages(watch: Watch) -> None:
    gpu = watch.site.gpu(0, 0, 0)
    watch.see(xid(gpu, 163, 0), at_s=0)
    watch.until(1, 60)
    watch.see(xid(gpu, 162, 600), at_s=600)
    watch.until(601, 700)
    assert watch.log == [(60, "begins", "PowerSmoothingDisengaged"), (660, "ends", "PowerSmoothingDisengaged")]


def test_45_after_another_error_is_not_told_of(watch: Watch) -> None:
    gpu = watch.site.gpu(0, 0, 0)
    watch.see(*(xid(watch.site.gpu(0, 0, other), 45, 1) for other in range(4)), xid(gpu, 31, 2), at_s=2)
    watch.until(3, 1000)
    assert watch.log == []  # one GPU's page fault is the user's own


def test_672_times_45_in_168_nodes_are_one_ticket() -> None:
    watch = Watch(ReplaySite(racks=10))
    gpus = [watch.site.gpu(n // 72, n // 4 % 18, n % 4) for n in range(672)]
    watch.see(*(xid(gpu, 45, n % 50) for n, gpu in enumerate(gpus)), at_s=50)
    watch.until(51, 1200)
    assert [(what, name) for _, what, name in watch.log] == [("begins", "GpuXid45Solo")]
    assert "672 events on 672 devices" in watch.only().annotations["summary"]


def test_800_000_lines_of_29_entries_are_one_incident_with_a_count(watch: Watch) -> None:
    gpu = watch.site.gpu(2, 5, 0)
    for update in range(1, 61):  # 29 bursts, told again every 10 s while their counts grow
        counts = [800_000 * update // 60 // 29] * 28
        counts.append(800_000 * update // 60 - sum(counts))
        events = [
            EventMessage(id=f"entry-{n}", resource=gpu, time_ms=START_MS, kind="xid", code=95, count=count,
                         attributes={"last_time_ms": str(START_MS + update * 10_000)})
            for n, count in enumerate(counts)
        ]  # fmt: skip
        watch.see(*events, at_s=update * 10)
    watch.until(601, 700)
    assert [(what, name) for _, what, name in watch.log] == [("begins", "GpuXidFatal")]
    assert "(XID 95), 800000 events since" in watch.only().annotations["summary"]


def test_a_program_that_fails_on_one_gpu_tells_nobody_on_two_it_is_a_notice(watch: Watch) -> None:
    watch.see(xid(watch.site.gpu(0, 0, 0), 31, 0), at_s=0)
    watch.until(1, 100)
    assert watch.names == []
    watch.see(xid(watch.site.gpu(0, 0, 1), 31, 101), at_s=101)
    watch.at(162)
    assert watch.only().labels["severity"] == "notice"


def test_a_port_that_comes_back_within_thirty_seconds_is_not_told_of(watch: Watch) -> None:
    port = watch.site.port(0, 0)
    watch.see(port_state(port, 5, 0), at_s=0)
    watch.until(1, 29)
    watch.see(port_state(port, 1, 29), at_s=29)
    watch.until(30, 200)
    assert watch.log == []


def test_a_port_that_stays_down_pages_after_thirty_seconds_and_ends_when_it_is_up(watch: Watch) -> None:
    port = watch.site.port(0, 0)
    watch.see(port_state(port, 5, 0), at_s=0)
    watch.until(1, 60)
    watch.see(port_state(port, 1, 100), at_s=100)
    watch.until(101, 140)
    assert watch.log == [(30, "begins", "NicLinkDown"), (130, "ends", "NicLinkDown")]


def test_a_port_that_flaps_is_told_once_while_it_flaps(watch: Watch) -> None:
    port = watch.site.port(0, 0)
    watch.see(port_state(port, 5, 0), at_s=0)
    watch.until(1, 40)
    for at_s in range(41, 200, 20):
        watch.see(port_state(port, 1, at_s), at_s=at_s)
        watch.see(port_state(port, 5, at_s + 10), at_s=at_s + 10)
    assert watch.log == [(30, "begins", "NicLinkDown")]


def test_a_leak_is_told_at_once_and_takes_all_that_follows_from_it(watch: Watch) -> None:
    rack = watch.site.rack(2)
    watch.see(bus_alarm("leak", rack, 0, stands=True), at_s=0)
    assert watch.log == [(0, "begins", "CoolantLeakCritical")]
    watch.see(
        bus_alarm("rack_isolated", rack, 3, stands=True, point="valve"),
        *(xid(watch.site.gpu(2, tray, gpu), 79, 5) for tray in range(18) for gpu in range(4)),
        *(port_state(watch.site.port(2, tray), 5, 6) for tray in range(18)),
        at_s=6,
    )
    watch.until(7, 300)
    assert watch.log == [(0, "begins", "CoolantLeakCritical")]
    assert "37 other incidents with it" in watch.only().annotations["summary"]  # 18 nodes, 18 ports, 1 isolation


def test_what_followed_from_a_leak_but_came_before_it_is_taken_back(watch: Watch) -> None:
    watch.see(xid(watch.site.gpu(2, 0, 0), 79, 0), at_s=0)
    watch.until(1, 30)
    assert watch.names == ["GpuFallenOffBus"]
    watch.see(bus_alarm("leak", watch.site.rack(2), 31, stands=True), at_s=31)
    assert watch.names == ["CoolantLeakCritical"]


def test_a_fault_in_another_rack_is_told_beside_a_leak(watch: Watch) -> None:
    watch.see(bus_alarm("leak", watch.site.rack(2), 0, stands=True), xid(watch.site.gpu(3, 0, 0), 79, 1), at_s=1)
    watch.until(2, 30)
    assert watch.names == ["CoolantLeakCritical", "GpuFallenOffBus"]


def test_a_leak_of_two_detectors_ends_when_both_are_dry(watch: Watch) -> None:
    rack = watch.site.rack(0)
    watch.see(bus_alarm("leak", rack, 0, stands=True, point="a"), at_s=0)
    watch.see(bus_alarm("leak", rack, 1, stands=True, point="b"), at_s=1)
    watch.see(bus_alarm("leak", rack, 10, stands=False, point="a"), at_s=10)
    watch.until(11, 200)
    assert watch.names == ["CoolantLeakCritical"]
    watch.see(bus_alarm("leak", rack, 200, stands=False, point="b"), at_s=200)
    watch.until(201, 259)
    assert watch.names == ["CoolantLeakCritical"]
    watch.at(260)
    assert watch.names == []


def redfish_leak(resource: int, code: int, at_s: float) -> EventMessage:
    """As collectors/redfish/source.py tells it: code is a leak state of the catalogue."""
    time_ms = START_MS + round(at_s * 1000)
    return EventMessage(id=f"leak/{time_ms}", resource=resource, time_ms=time_ms, kind="leak", code=code,
                        attributes={"label": "LeakDetectors/1", "before": "dry"})  # fmt: skip


def test_a_redfish_detector_goes_through_its_states(watch: Watch) -> None:
    rack, seen = watch.site.rack(0), []
    for at_s, code in ((0, 2), (100, 3), (300, 4), (900, 1)):  # warning, critical, sensor fault, dry
        watch.see(redfish_leak(rack, code, at_s), at_s=at_s)
        watch.until(at_s + 1, at_s + 90)
        seen.append(watch.names)
    watch.at(650)  # too late to matter: time does not go back
    assert seen == [["CoolantLeakWarning"], ["CoolantLeakCritical"], [], []]


def test_a_leak_without_a_known_state_is_a_leak_all_the_same(watch: Watch) -> None:
    watch.see(redfish_leak(watch.site.rack(0), 0, 0), at_s=0)
    assert watch.names == ["CoolantLeakCritical"]


def test_what_is_put_back_into_service_is_over(watch: Watch) -> None:
    rack = watch.site.rack(0)
    watch.see(EventMessage(id="a", resource=rack, time_ms=START_MS, kind="power_shelf"), at_s=0)
    assert watch.names == ["PowerShelfFailed"]
    watch.see(EventMessage(id="b", resource=rack, time_ms=START_MS + 600_000, kind="restored"), at_s=600)
    watch.until(601, 700)
    assert watch.names == []


def test_a_leak_detector_that_is_broken_for_five_minutes_is_a_ticket(watch: Watch) -> None:
    watch.see(redfish_leak(watch.site.rack(0), 4, 0), at_s=0)
    watch.until(1, 299)
    assert watch.names == []
    watch.at(300)
    assert watch.names == ["LeakSensorFault"]


def test_a_feeder_takes_its_racks_and_the_unit_that_cools_them_stays_apart(watch: Watch) -> None:
    def breaker(code: int, at_s: float) -> EventMessage:
        time_ms = START_MS + round(at_s * 1000)
        return EventMessage(id=f"breaker/{time_ms}", resource=watch.site.feeder, time_ms=time_ms, kind="breaker",
                            code=code, attributes={"what": "protector 1", "state": "open"})  # fmt: skip

    events = [xid(watch.site.gpu(rack, tray, 0), 79, 2) for rack in (0, 1) for tray in range(18)]
    watch.see(breaker(0, 0), *events, xid(watch.site.gpu(3, 0, 0), 79, 2), at_s=2)
    watch.until(3, 60)
    assert watch.names == ["FeederTripped", "GpuFallenOffBus"]
    watch.see(breaker(1, 100), at_s=100)
    watch.until(101, 200)
    assert watch.names == ["GpuFallenOffBus"]  # its consequences ended with it


def test_a_stronger_cause_takes_a_weaker_one(watch: Watch) -> None:
    def event(kind: str, resource: int, at_s: float) -> EventMessage:
        time_ms = START_MS + round(at_s * 1000)
        return EventMessage(id=f"{kind}-{resource:016x}-{time_ms}", resource=resource, time_ms=time_ms, kind=kind)

    watch.see(event("power_shelf", watch.site.rack(0), 0), at_s=0)
    assert watch.names == ["PowerShelfFailed"]
    watch.see(event("cdu", watch.site.cdu(0), 5), at_s=5)
    assert watch.names == ["CduTripped"]


def many(watch: Watch, places: Iterable[tuple[int, int, int]], number: int, at_s: float) -> Sequence[EventMessage]:
    return [xid(watch.site.gpu(*place), number, at_s) for place in places]


def test_more_than_a_hundredth_of_the_gpus_within_a_minute_are_one_page_at_their_common_cause() -> None:
    watch = Watch(ReplaySite(racks=20))  # 1440 GPUs: a hundredth is 14.4
    places = [(rack, tray, 0) for rack in range(3) for tray in range(5)]  # 15 GPUs below CDU 0
    watch.see(*many(watch, places[:14], 119, 0), at_s=5)
    assert watch.names == []
    watch.see(*many(watch, places[14:], 119, 6), at_s=6)
    watch.until(7, 60)
    assert watch.log == [(6, "begins", "MassCorrelated")]
    told = watch.only()
    assert told.labels["place"] == "CDU 0"
    assert "on 15 devices, 15 other incidents with it," in told.annotations["summary"]


def test_a_hundredth_is_no_mass_event() -> None:
    watch = Watch(ReplaySite(racks=20))
    watch.see(*many(watch, [(rack, tray, 0) for rack in range(2) for tray in range(7)], 119, 0), at_s=0)
    watch.until(1, 20)
    assert watch.names == ["GpuXidFatal"] * 14


def test_what_comes_minutes_after_a_mass_event_is_told_by_itself() -> None:
    watch = Watch(ReplaySite(racks=20))
    watch.see(*many(watch, [(rack, tray, 0) for rack in range(3) for tray in range(5)], 119, 0), at_s=0)
    watch.until(1, 200)
    watch.see(xid(watch.site.gpu(4, 17, 0), 79, 201), at_s=201)
    watch.until(202, 220)
    assert watch.names == ["GpuFallenOffBus", "MassCorrelated"]


def test_twenty_tickets_of_one_kind_are_one_storm(watch: Watch) -> None:
    watch.see(*(xid(watch.site.gpu(n // 10, n % 10, 0), 63, n) for n in range(20)), at_s=20)
    watch.until(21, 200)
    assert watch.log == [(60, "begins", "TicketStorm")]  # when the first of them would have been told


def test_a_storm_that_is_cancelled_before_its_tickets_are_due_concerns_nobody(watch: Watch) -> None:
    gpus = [watch.site.gpu(3, tray, gpu) for tray in range(18) for gpu in range(4)]
    watch.see(*(xid(gpu, 163, 0) for gpu in gpus), at_s=0)
    watch.until(1, 29)
    watch.see(*(xid(gpu, 162, 30) for gpu in gpus), at_s=30)
    watch.until(31, 900)
    assert watch.log == []
    assert watch.incidents.open == []


def test_a_storm_is_over_when_all_of_its_tickets_are(watch: Watch) -> None:
    gpus = [watch.site.gpu(3, tray, gpu) for tray in range(18) for gpu in range(4)]
    watch.see(*(xid(gpu, 163, 0) for gpu in gpus), at_s=0)
    watch.until(1, 100)
    watch.see(*(xid(gpu, 162, 100) for gpu in gpus[1:]), at_s=100)
    watch.until(101, 250)
    assert watch.names == ["TicketStorm"]
    watch.see(xid(gpus[0], 162, 251), at_s=251)
    watch.until(252, 400)
    assert watch.names == []


def test_the_building_system_that_falls_silent_pages_until_it_is_back(watch: Watch) -> None:
    def heart(kind: str, at_s: float) -> EventMessage:
        time_ms = START_MS + round(at_s * 1000)
        return EventMessage(id=f"{kind}/{time_ms}", resource=99, time_ms=time_ms, kind=kind,
                            code=int(kind.endswith("lost")), attributes={"bms": "BMS"})  # fmt: skip

    watch.see(heart("bms_heartbeat_lost", 0), at_s=0)
    assert watch.names == ["BmsHeartbeatLost"]
    watch.see(heart("bms_heartbeat_back", 100), at_s=100)
    watch.until(101, 170)
    assert watch.names == []


def test_an_unknown_kind_is_a_ticket_not_silence(watch: Watch) -> None:
    for n in range(30):
        watch.see(EventMessage(id=str(n), resource=n + 1, time_ms=START_MS, kind="gremlin"), at_s=n)
    assert watch.names == ["EventUnlisted"]
    assert "(gremlin), 30 events on 30 devices" in watch.only().annotations["summary"]


def test_an_unlisted_xid_is_a_ticket(watch: Watch) -> None:
    watch.see(xid(watch.site.gpu(0, 0, 0), 999, 0), at_s=0)
    watch.at(60)
    assert watch.names == ["GpuXidTicket"]


def test_an_event_read_twice_is_counted_once(watch: Watch) -> None:
    event = xid(watch.site.gpu(0, 0, 0), 119, 0, count=3)
    watch.see(event, event, at_s=0)
    watch.see(event, at_s=20)
    assert "3 events" not in watch.only().annotations["summary"].replace("3 events since", "", 1)
    (incident,) = watch.incidents.open
    assert incident.count == 3


def test_events_that_come_hours_late_are_counted_and_wake_nobody(watch: Watch) -> None:
    watch.see(xid(watch.site.gpu(0, 0, 0), 119, 0), at_s=5 * 3600)
    assert watch.log == []
    assert watch.incidents.outcomes["GpuXidFatal", Outcome.TOO_LATE] == 1


def test_an_agent_whose_clock_is_ahead_is_told_of_now(watch: Watch) -> None:
    watch.see(bus_alarm("leak", watch.site.rack(0), 3600, stands=True), at_s=0)
    assert watch.only().starts_ms == START_MS


def test_a_place_without_inventory_is_told_by_its_id() -> None:
    watch = Watch(ReplaySite(racks=0))
    gpu = resource_id(ResourceKind.GPU, "unknown")
    watch.see(xid(gpu, 79, 0), at_s=0)
    watch.at(10)
    assert watch.only().labels["place"] == f"{gpu:016x}"


def test_an_alias_means_the_resource_that_it_stands_for(watch: Watch) -> None:
    alias = InventoryMessage(
        resource=resource_id(ResourceKind.RACK, "DH1-R07"), kind=ResourceKind.RACK, identity="DH1-R07", name="x",
        valid_from_ms=START_MS, attributes={"same_as": "R2"},
    )  # fmt: skip
    watch.tree.learn(alias)
    watch.see(bus_alarm("leak", alias.resource, 0, stands=True), xid(watch.site.gpu(2, 0, 0), 79, 1), at_s=1)
    watch.until(2, 30)
    assert watch.names == ["CoolantLeakCritical"]
    assert watch.only().labels["rack"] == "rack 2"


def test_what_feeds_an_alias_feeds_what_it_stands_for_whichever_comes_first() -> None:
    site = ReplaySite()
    for alias_first in (True, False):
        tree = site.tree()
        alias = InventoryMessage(
            resource=resource_id(ResourceKind.RACK, "DH1-R07"), kind=ResourceKind.RACK, identity="DH1-R07", name="x",
            valid_from_ms=START_MS, attributes={"same_as": "R3"},
        )  # fmt: skip
        feeder = InventoryMessage(
            resource=resource_id(ResourceKind.FEEDER, "F9"), kind=ResourceKind.FEEDER, identity="F9", name="feeder 9",
            valid_from_ms=START_MS, serves=(alias.resource,),
        )  # fmt: skip
        for message in (alias, feeder) if alias_first else (feeder, alias):
            tree.learn(message)
        assert tree.place(site.gpu(3, 0, 0)).feeder == "feeder 9"


def test_a_device_does_not_deny_what_the_topology_file_says_of_it() -> None:
    site = ReplaySite()
    tree = site.tree()
    kind, identity, resource = ResourceKind.TRAY, "R0-T0", site.tray(0, 0)
    file = InventoryMessage(
        resource=resource, kind=kind, identity=identity, name="n", valid_from_ms=START_MS, parent=site.rack(3),
        attributes={"told_by": "file"},
    )  # fmt: skip
    agent = InventoryMessage(
        resource=resource, kind=kind, identity=identity, name="n", valid_from_ms=START_MS + 1, parent=site.rack(1)
    )
    for message in (file, agent):
        tree.learn(message)
    assert tree.place(site.gpu(0, 0, 0)).rack == "rack 3"


def test_a_tree_that_goes_round_in_a_circle_ends() -> None:
    tree = ReplaySite(racks=0).tree()
    a, b = (resource_id(ResourceKind.FEEDER, name) for name in "ab")
    for name, resource, parent in (("a", a, b), ("b", b, a)):
        tree.learn(
            InventoryMessage(
                resource=resource, kind=ResourceKind.FEEDER, identity=name, name=name, valid_from_ms=0, parent=parent
            )
        )
    assert list(tree.ancestors(a)) == [b]
