"""Every rule over events: which event opens it, and that no event of a collector concerns nobody by accident."""

import pytest

from alerts.alert import EventRule
from alerts.event_rules import EVENT_RULES, KINDS_READ, MASS, STORM, UNLISTED, XID_REPEATED, Opens, read_event
from catalogue.facility import LeakState
from catalogue.xid import XidClass
from collectors.dsx.alarms import ALARMS
from collectors.nvml.events import EVENT_KINDS
from simulation.faults import FAULT_CLASSES, RACK_FAULTS
from stream.messages import EventMessage

# Kind, code, attributes: as tests/contract and tests/unit show that collectors tell them.
OPENED_BY: dict[str, tuple[str, int, dict[str, str]]] = {
    "GpuFallenOffBus": ("xid", 79, {}),
    "GpuXidFatal": ("xid", 119, {}),
    "GpuSbeStorm": ("ecc_storm", 0, {"class": "ticket"}),
    "GpuXidTicket": ("xid", 63, {}),
    "GpuAppXidBurst": ("xid", 31, {}),
    "GpuXid45Solo": ("xid", 45, {}),
    "PowerSmoothingDisengaged": ("xid", 163, {}),
    "CoolantLeakCritical": ("leak", LeakState.CRITICAL, {"point": "a"}),
    "CoolantLeakWarning": ("leak", LeakState.WARNING, {"label": "a"}),
    "LeakSensorFault": ("leak", LeakState.SENSOR_FAULT, {"point": "a"}),
    "RackIsolated": ("rack_isolated", 1, {"point": "a"}),
    "CduTripped": ("cdu", 0, {}),
    "PowerShelfFailed": ("power_shelf", 0, {}),
    "FeederTripped": ("breaker", 0, {"what": "protector 1", "state": "open"}),
    "UpsOnBattery": ("ups_output", 5, {"what": "output", "state": "battery"}),
    "UpsBatteryLow": ("ups_battery", 3, {"what": "battery", "state": "low"}),
    "PduOverload": ("pdu_load", 4, {"what": "phase 1", "state": "overload"}),
    "BmsHeartbeatLost": ("bms_heartbeat_lost", 1, {"bms": "BMS"}),
    "NicLinkDown": ("port_state", 5, {}),
    "MeterFrozen": ("meter_frozen", 0, {"register": "energy_import"}),
    "MeterExchanged": ("meter_exchanged", 0, {"register": "energy_import"}),
    "ReadingsLost": ("readings_lost", 0, {}),
    "TrayFault": ("ssd", 0, {}),
    "EventUnlisted": ("gremlin", 0, {}),
}
OF_MANY_EVENTS = (MASS, STORM, XID_REPEATED)  # tests/unit/test_incidents.py


def opened(kind: str, code: int = 0, attributes: dict[str, str] | None = None) -> list[EventRule]:
    event = EventMessage(id="a", resource=1, time_ms=0, kind=kind, code=code, attributes=attributes or {})
    return [signal.rule for signal in read_event(event) if isinstance(signal, Opens)]


@pytest.mark.parametrize("rule", [rule for rule in EVENT_RULES if rule not in OF_MANY_EVENTS], ids=lambda r: r.name)
def test_every_rule_is_opened_by_its_event(rule: EventRule) -> None:
    assert opened(*OPENED_BY[rule.name]) == [rule]


def test_every_kind_that_a_collector_or_the_simulator_tells_has_been_decided_on() -> None:
    told = {fault.name for fault in (*FAULT_CLASSES, *RACK_FAULTS)} | {"gpu_dark", "restored"}
    struck = {fault.name for fault in FAULT_CLASSES if fault.xids}  # told as XIDs
    told |= {alarm.kind for alarm in ALARMS.values()}
    assert told - struck - KINDS_READ == set()


def test_what_the_driver_tells_beside_xids_is_a_ticket_where_it_is_one() -> None:
    """A changed recovery action is on /metrics, with its value."""
    told = {kind.name for kind in EVENT_KINDS.values() if kind.event_class is XidClass.TICKET}
    opening = {name for name in told if opened(name, 0, {"class": "ticket"})}
    assert told - opening <= {"recovery_action"}
    assert "ecc_storm" in opening
    assert UNLISTED not in [rule for name in opening for rule in opened(name, 0, {"class": "ticket"})]
