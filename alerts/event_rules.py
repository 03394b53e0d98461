"""The alerts whose home is the topic of events, and which event opens or ends which."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from alerts.alert import Absorbs, Dashboard, EventRule, Owner, Severity
from catalogue.facility import LEAK_STATES, LeakState
from catalogue.port import PORT_STATES
from catalogue.xid import XIDS, XidClass, judge
from stream.messages import EventMessage

_MINUTE_S, _HOUR_S, _DAY_S = 60.0, 3600.0, 86_400.0
BURST_SILENCE_S = 3 * _MINUTE_S  # NVIDIA judges a node's burst, not its single XIDs; it ends after such a silence
# A cause and its consequences come within seconds of each other: nobody is woken for both.
_CAUSE_S = 10.0
_XID = "xid"  # the scope of what makes one incident of a node
_FLEET, _RELIABILITY = Owner.FLEET, Dashboard.RELIABILITY

FALLEN_OFF_BUS = EventRule(
    name="GpuFallenOffBus", severity=Severity.PAGE, owner=_FLEET, dashboard=Dashboard.GPU, numbers=(2,),
    what="a GPU fell off the bus", cost="its job has died, and the node takes no other",
    hold_s=_CAUSE_S, quiet_s=4 * _HOUR_S, scope=_XID, rank=5,
)  # fmt: skip
XID_FATAL = EventRule(
    name="GpuXidFatal", severity=Severity.PAGE, owner=_FLEET, dashboard=Dashboard.GPU, numbers=(1,),
    what="the driver reports a fatal error", cost="its job has died, and the GPU takes no work until it is reset",
    hold_s=_CAUSE_S, quiet_s=4 * _HOUR_S, scope=_XID, rank=4,
)  # fmt: skip
SBE_STORM = EventRule(
    name="GpuSbeStorm", severity=Severity.TICKET, owner=_FLEET, dashboard=Dashboard.GPU, numbers=(7,),
    what="memory has many corrected errors", cost="uncorrected ones may follow and kill jobs",
    hold_s=60, quiet_s=_HOUR_S, scope=_XID, rank=3,
)  # fmt: skip
XID_TICKET = EventRule(
    name="GpuXidTicket", severity=Severity.TICKET, owner=_FLEET, dashboard=Dashboard.GPU, numbers=(1,),
    what="the driver reports an error", cost="it may become fatal",
    hold_s=60, quiet_s=_HOUR_S, scope=_XID, rank=2,
)  # fmt: skip
APP_BURST = EventRule(
    name="GpuAppXidBurst", severity=Severity.NOTICE, owner=_FLEET, dashboard=_RELIABILITY, numbers=(9,),
    what="a program fails on several GPUs", cost="its owner burns GPU hours",
    hold_s=60, quiet_s=BURST_SILENCE_S, scope=_XID, rank=1, least_members=2,
)  # fmt: skip
# 45 follows another XID, as a rule. Alone in its burst it points to the fabric manager: one ticket for the site.
XID_45_SOLO = EventRule(
    name="GpuXid45Solo", severity=Severity.TICKET, owner=_FLEET, dashboard=_RELIABILITY, numbers=(1,),
    what="channels were cleaned up without an error before", cost="the fabric manager may need a restart",
    hold_s=BURST_SILENCE_S, quiet_s=_HOUR_S, scope=_XID, rank=0, gathers=True,
)  # fmt: skip
XID_REPEATED = EventRule(
    name="GpuXidRepeated", severity=Severity.TICKET, owner=_FLEET, dashboard=_RELIABILITY, numbers=(8,),
    what="one GPU has the same fatal error again and again", cost="every job on it dies", quiet_s=_DAY_S,
)  # fmt: skip
SMOOTHING_OFF = EventRule(
    name="PowerSmoothingDisengaged", severity=Severity.TICKET, owner=Owner.POWER, dashboard=Dashboard.GPU,
    numbers=(41,), what="power smoothing is disengaged", cost="the grid sees the job's swings", hold_s=60,
)  # fmt: skip
MASS = EventRule(
    name="MassCorrelated", severity=Severity.PAGE, owner=_FLEET, dashboard=Dashboard.SITE, numbers=(50,),
    what="more than 1 % of the GPUs fail within a minute", cost="a common cause is taking jobs down",
    quiet_s=10 * _MINUTE_S, absorbs=Absorbs.MASS,
)  # fmt: skip
STORM = EventRule(
    name="TicketStorm", severity=Severity.TICKET, owner=Owner.PLATFORM, dashboard=_RELIABILITY,
    what="many tickets of one kind come at once", cost="one cause is behind them",
    quiet_s=10 * _MINUTE_S, absorbs=Absorbs.MASS, of_incidents=True,
)  # fmt: skip
LEAK = EventRule(
    name="CoolantLeakCritical", severity=Severity.PAGE, owner=Owner.COOLING, dashboard=Dashboard.COOLING,
    numbers=(27,), what="coolant leaks", cost="people and live equipment are in danger",
    absorbs=Absorbs.LEAK, absorbable=False,
)  # fmt: skip
LEAK_WARNING = EventRule(
    name="CoolantLeakWarning", severity=Severity.TICKET, owner=Owner.COOLING, dashboard=Dashboard.COOLING,
    numbers=(27,), what="a leak detector warns", cost="a small leak becomes a large one",
)  # fmt: skip
LEAK_SENSOR = EventRule(
    name="LeakSensorFault", severity=Severity.TICKET, owner=Owner.COOLING, dashboard=Dashboard.COOLING,
    numbers=(28,), what="a leak detector is broken", cost="a leak there would not be seen", hold_s=300,
)  # fmt: skip
ISOLATED = EventRule(
    name="RackIsolated", severity=Severity.PAGE, owner=Owner.COOLING, dashboard=Dashboard.RACK, numbers=(29,),
    what="the rack is isolated", cost="it is without coolant or power, and its jobs have died", absorbs=Absorbs.RACK,
)  # fmt: skip
CDU_TRIPPED = EventRule(
    name="CduTripped", severity=Severity.PAGE, owner=Owner.COOLING, dashboard=Dashboard.COOLING, numbers=(34,),
    what="a cooling distribution unit tripped", cost="its racks trip on temperature within minutes",
    quiet_s=4 * _HOUR_S, absorbs=Absorbs.CDU,
)  # fmt: skip
SHELF = EventRule(
    name="PowerShelfFailed", severity=Severity.PAGE, owner=Owner.POWER, dashboard=Dashboard.RACK, numbers=(37,),
    what="a power shelf failed", cost="the rack brakes its GPUs", quiet_s=4 * _HOUR_S, absorbs=Absorbs.RACK,
)  # fmt: skip
FEEDER = EventRule(
    name="FeederTripped", severity=Severity.PAGE, owner=Owner.POWER, dashboard=Dashboard.POWER, numbers=(40,),
    what="a breaker or feeder is off", cost="everything behind it is dark or runs on its spare feed",
    absorbs=Absorbs.FEEDER,
)  # fmt: skip
UPS_ON_BATTERY = EventRule(
    name="UpsOnBattery", severity=Severity.PAGE, owner=Owner.POWER, dashboard=Dashboard.POWER,
    what="a UPS does not run on its normal supply", cost="its load goes dark when the battery is empty", hold_s=10,
)  # fmt: skip
UPS_BATTERY_LOW = EventRule(
    name="UpsBatteryLow", severity=Severity.PAGE, owner=Owner.POWER, dashboard=Dashboard.POWER,
    what="the battery of a UPS is low", cost="its load goes dark within minutes",
)  # fmt: skip
PDU_OVERLOAD = EventRule(
    name="PduOverload", severity=Severity.TICKET, owner=Owner.POWER, dashboard=Dashboard.POWER, numbers=(38,),
    what="a power distribution unit is overloaded", cost="its breaker may trip", hold_s=60,
)  # fmt: skip
BMS_LOST = EventRule(
    name="BmsHeartbeatLost", severity=Severity.PAGE, owner=Owner.COOLING, dashboard=Dashboard.COOLING, numbers=(47,),
    what="the building system is silent", cost="leaks and cooling faults are not seen", absorbable=False,
)  # fmt: skip
PORT_DOWN = EventRule(
    name="NicLinkDown", severity=Severity.PAGE, owner=Owner.NETWORK, dashboard=Dashboard.RACK, numbers=(23,),
    what="a network port is down", cost="the jobs over it stall or die", hold_s=30, calm_s=30,
    scope="port",
)  # fmt: skip
METER_FROZEN = EventRule(
    name="MeterFrozen", severity=Severity.TICKET, owner=Owner.POWER, dashboard=Dashboard.POWER, numbers=(42,),
    what="a meter's register stands still", cost="its energy is estimated in every report", quiet_s=_DAY_S,
)  # fmt: skip
METER_EXCHANGED = EventRule(
    name="MeterExchanged", severity=Severity.TICKET, owner=Owner.POWER, dashboard=Dashboard.POWER, numbers=(42,),
    what="a meter was exchanged", cost="the register of meters must say so before the month is frozen", quiet_s=_HOUR_S,
)  # fmt: skip
READINGS_LOST = EventRule(
    name="ReadingsLost", severity=Severity.TICKET, owner=Owner.PLATFORM, dashboard=Dashboard.PIPELINE, numbers=(48,),
    what="an agent's spool was full and its oldest readings are gone", cost="reports have a gap there",
    quiet_s=_HOUR_S, gathers=True,
)  # fmt: skip
TRAY_FAULT = EventRule(
    name="TrayFault", severity=Severity.TICKET, owner=_FLEET, dashboard=_RELIABILITY,
    what="a part of a tray failed", cost="its GPUs are down or slow", quiet_s=_HOUR_S,
)  # fmt: skip
UNLISTED = EventRule(
    name="EventUnlisted", severity=Severity.TICKET, owner=Owner.PLATFORM, dashboard=_RELIABILITY,
    what="events of a kind without a rule", cost="nobody has decided yet whom they concern",
    quiet_s=_HOUR_S, gathers=True,
)  # fmt: skip

EVENT_RULES: tuple[EventRule, ...] = (
    FALLEN_OFF_BUS, XID_FATAL, SBE_STORM, XID_TICKET, APP_BURST, XID_45_SOLO, XID_REPEATED, SMOOTHING_OFF, MASS, STORM,
    LEAK, LEAK_WARNING, LEAK_SENSOR, ISOLATED, CDU_TRIPPED, SHELF, FEEDER, UPS_ON_BATTERY, UPS_BATTERY_LOW,
    PDU_OVERLOAD, BMS_LOST, PORT_DOWN, METER_FROZEN, METER_EXCHANGED, READINGS_LOST, TRAY_FAULT, UNLISTED,
)  # fmt: skip
BY_NAME: Mapping[str, EventRule] = {rule.name: rule for rule in EVENT_RULES}


@dataclass(frozen=True, slots=True)
class Opens:
    """The event opens an incident, or keeps it open. `what` is its cause in two or three words."""

    rule: EventRule
    what: str
    subject: str = ""  # tells apart several of one resource, such as detectors


@dataclass(frozen=True, slots=True)
class Cancels:
    """The event takes back what opened these rules' incidents for its resource and subject."""

    rules: tuple[EventRule, ...]
    subject: str = ""


Signal = Opens | Cancels

_LEAKS = dict(LEAK_STATES)
_LEAK_RULES: Mapping[int, EventRule] = {
    LeakState.WARNING: LEAK_WARNING, LeakState.CRITICAL: LEAK, LeakState.SENSOR_FAULT: LEAK_SENSOR,
}  # fmt: skip
_PORTS = dict(PORT_STATES)
_PORT_UP = frozenset(code for code, name in PORT_STATES if name.startswith("active"))
# stream/topics and collectors tell these apart: kinds that concern nobody by themselves.
# A GPU that cannot be read is on /metrics (GpuDark).
_SILENT_KINDS = frozenset({"mig_changed", "host_maintenance", "nccl_watchdog", "software", "gpu_dark"})
_TRAY_KINDS = frozenset({
    "ssd", "power_supply", "chassis", "io_board", "processor", "memory", "nic", "network", "thermal_interface",
    "silent_data_corruption", "dependency",
})  # fmt: skip
_LINE = re.compile(r"\s+")


def read_event(event: EventMessage) -> tuple[Signal, ...]:
    """What an event means to incidents; nothing for one that concerns nobody."""
    reader = _READERS.get(event.kind)
    if reader is not None:
        return reader(event)
    if event.kind in _SILENT_KINDS:
        return ()
    if event.kind in _TRAY_KINDS:
        return (Opens(TRAY_FAULT, event.kind.replace("_", " ")),)
    return _driver_event(event) if "class" in event.attributes else (Opens(UNLISTED, _LINE.sub(" ", event.kind)),)


def _xid(event: EventMessage) -> tuple[Signal, ...]:
    number, what = event.code, f"XID {event.code}"
    judged = event.attributes.get("class") or str(judge(number, event.attributes.get("detail", event.text)))
    entry = XIDS.get(number)
    if entry is not None and 163 in entry.clears:
        return (Cancels((SMOOTHING_OFF,)),)
    if number == 163:
        return (Opens(SMOOTHING_OFF, what),)
    if number == 154:
        # What the driver asks for is on /metrics (GpuRecoveryActionRequired); that it asks no more ends the burst.
        return (Cancels((FALLEN_OFF_BUS, XID_FATAL, XID_TICKET)),) if judged == XidClass.INFO else ()
    if number == 79:
        return (Opens(FALLEN_OFF_BUS, what),)
    if number == 45:
        return (Opens(XID_45_SOLO, what),)
    if number == 92:
        return (Opens(SBE_STORM, what),)
    rule = _BY_CLASS.get(judged)
    return (Opens(rule, what),) if rule else ()


_BY_CLASS: Mapping[str, EventRule] = {
    XidClass.PAGE: XID_FATAL, XidClass.TICKET: XID_TICKET, XidClass.USER: APP_BURST,
}  # fmt: skip


def _driver_event(event: EventMessage) -> tuple[Signal, ...]:
    """Events of NVML other than XIDs; a changed recovery action is on /metrics."""
    if event.kind == "recovery_action":
        return ()
    rule = SBE_STORM if event.kind == "ecc_storm" else _BY_CLASS.get(event.attributes["class"])
    return (Opens(rule, event.kind.replace("_", " ")),) if rule else ()


def _leak(event: EventMessage) -> tuple[Signal, ...]:
    """What a detector says; a state that the catalogue does not know is a leak."""
    subject = event.attributes.get("point") or event.attributes.get("label", "")
    state = event.code if event.code in _LEAKS else LeakState.CRITICAL
    rule = _LEAK_RULES.get(state)
    cancelled = Cancels(tuple(other for other in _LEAK_RULES.values() if other is not rule), subject)
    return (Opens(rule, f"leak {_LEAKS[state]}", subject), cancelled) if rule else (cancelled,)


def _flag(rule: EventRule, what: str) -> Callable[[EventMessage], tuple[Signal, ...]]:
    """Points of the building bus: 1 begins, 0 ends."""

    def read(event: EventMessage) -> tuple[Signal, ...]:
        subject = event.attributes.get("point", "")
        return (Opens(rule, what, subject),) if event.code else (Cancels((rule,), subject),)

    return read


def _states(
    rule: EventRule, *, good: frozenset[int], bad: frozenset[int]
) -> Callable[[EventMessage], tuple[Signal, ...]]:
    """States that devices tell, by code; those that are neither good nor bad change nothing."""

    def read(event: EventMessage) -> tuple[Signal, ...]:
        subject = event.attributes.get("what", "")
        if event.code in good:
            return (Cancels((rule,), subject),)
        what = " ".join(filter(None, (subject, event.attributes.get("state", ""))))
        return (Opens(rule, what or rule.what, subject),) if event.code in bad else ()

    return read


def _port(event: EventMessage) -> tuple[Signal, ...]:
    if event.code in _PORT_UP:
        return (Cancels((PORT_DOWN,)),)
    return (Opens(PORT_DOWN, f"port {_PORTS.get(event.code, 'not active')}"),)


def _heart(event: EventMessage) -> tuple[Signal, ...]:
    subject = f"{event.attributes.get('bms', '')}/{event.attributes.get('scope', '')}"
    lost = event.kind == "bms_heartbeat_lost"
    return (Opens(BMS_LOST, "heartbeat lost", subject),) if lost else (Cancels((BMS_LOST,), subject),)


def _always(rule: EventRule, what: str) -> Callable[[EventMessage], tuple[Signal, ...]]:
    return lambda event: (Opens(rule, what, event.attributes.get("register", "")),)


def _restored(_: EventMessage) -> tuple[Signal, ...]:
    """Somebody put it back into service: whatever was wrong with it is over."""
    return (Cancels((FALLEN_OFF_BUS, XID_FATAL, XID_TICKET, LEAK, CDU_TRIPPED, SHELF, TRAY_FAULT)),)


_READERS: Mapping[str, Callable[[EventMessage], tuple[Signal, ...]]] = {
    "xid": _xid,
    "leak": _leak,
    "rack_isolated": _flag(ISOLATED, "isolated"),
    "bms_heartbeat_lost": _heart,
    "bms_heartbeat_back": _heart,
    "port_state": _port,
    "readings_lost": _always(READINGS_LOST, "readings lost"),
    "meter_frozen": _always(METER_FROZEN, "meter frozen"),
    "meter_exchanged": _always(METER_EXCHANGED, "meter exchanged"),
    "cdu": _always(CDU_TRIPPED, "CDU tripped"),
    "power_shelf": _always(SHELF, "power shelf failed"),
    "restored": _restored,
    # collectors/snmp/maps: Raritan PDU2 protectors, Server Technology infeeds, UPS-MIB, APC rPDU2.
    "breaker": _states(FEEDER, good=frozenset({1}), bad=frozenset({0})),
    "infeed": _states(FEEDER, good=frozenset({1}), bad=frozenset({0, 4, 6, 8, 9})),
    "ups_output": _states(UPS_ON_BATTERY, good=frozenset({3}), bad=frozenset({2, 4, 5})),
    "ups_battery": _states(UPS_BATTERY_LOW, good=frozenset({2}), bad=frozenset({3, 4})),
    "pdu_load": _states(PDU_OVERLOAD, good=frozenset({1, 2}), bad=frozenset({3, 4})),
}
KINDS_READ = frozenset(_READERS) | _SILENT_KINDS | _TRAY_KINDS
