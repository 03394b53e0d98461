"""The driver's error numbers (XIDs): what each means, whom it concerns, what to do at once and what afterwards.

Meanings are in our words; actions and investigations follow the buckets of NVIDIA's XID catalogue as of October 2025,
the classes are ours. A number that is not listed is a ticket: nothing is dropped for being unknown.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum


class XidClass(StrEnum):
    """Whom an XID concerns, by itself; how often it came is for the alert rules."""

    PAGE = "page"  # somebody acts now
    TICKET = "ticket"  # somebody looks into it
    USER = "user"  # the job's own doing, as a rule
    INFO = "info"  # good to know next to others


class XidAction(StrEnum):
    """What to do at once."""

    IGNORE = "none"
    RESTART_APPLICATION = "restart the application"
    RESET_GPU = "reset the GPU"
    RESTART_NODE = "restart the node"
    RESTART_MACHINE = "restart the virtual machine"
    CHECK_POWER = "check the power connectors"
    UPDATE_SOFTWARE = "update driver and firmware"
    CHECK_SOFTWARE = "check the software"
    FOLLOW_ECC = "drain and reset, following the memory errors beside it"
    FOLLOW_OTHERS = "follow the XID it came with; alone, restart the fabric manager"
    FOLLOW_LINK = "decode the link's registers"
    FOLLOW_DRIVER = "do what the recovery action says"
    CONTACT_SUPPORT = "contact support"
    NOT_STATED = "not stated"


@dataclass(frozen=True, slots=True)
class Xid:
    """One number. `repeated` is its class where repetition makes it worse; `clears` are the numbers it takes back."""

    number: int
    meaning: str
    xid_class: XidClass
    action: XidAction
    investigation: str = ""
    repeated: XidClass | None = None
    clears: tuple[int, ...] = ()


_SUPPORT = "contact support"
_PAGE, _TICKET, _USER, _INFO = XidClass.PAGE, XidClass.TICKET, XidClass.USER, XidClass.INFO


def _rows() -> Iterator[Xid]:
    act = XidAction
    yield Xid(8, "GPU stopped processing: idle timeout", _USER, act.RESTART_APPLICATION, _SUPPORT)
    yield Xid(
        13,
        "Exception in the graphics engine",
        _USER,
        act.RESTART_APPLICATION,
        "debug the application; twice in 24 h in the same cluster of one GPU: run diagnostics",
    )
    yield Xid(
        31,
        "GPU memory page fault",
        _USER,
        act.RESTART_APPLICATION,
        "debug the application; twice in 24 h on one GPU: run diagnostics; on several GPUs: a fault of the application",
    )
    yield Xid(32, "Corrupt push buffer", _USER, act.RESTART_APPLICATION, "check the application")
    for number in (37, 38):
        yield Xid(number, "Firmware error in the driver", _TICKET, act.IGNORE, "check the application; " + _SUPPORT)
    for number in (39, 40, 41, 70, 71, 72, 75, 76, 77, 85):
        yield Xid(
            number, "Exception in a copy engine", _USER, act.RESTART_APPLICATION, _SUPPORT, repeated=XidClass.TICKET
        )
    yield Xid(43, "GPU stopped processing: channel reset", _USER, act.IGNORE, _SUPPORT)
    yield Xid(44, "Fault during a context switch", _TICKET, act.IGNORE, _SUPPORT)
    yield Xid(45, "Channels cleaned up in advance, after another error", _INFO, act.FOLLOW_OTHERS)
    yield Xid(46, "GPU stopped processing: timeout", _PAGE, act.RESET_GPU, "drain the node")
    yield Xid(48, "Memory error that could not be corrected", _PAGE, act.FOLLOW_ECC, "look for 63, 64, 94 and 95")
    yield Xid(54, "Auxiliary power not connected", _PAGE, act.CHECK_POWER)
    yield Xid(61, "Breakpoint of the power management unit", _TICKET, act.CONTACT_SUPPORT)
    yield Xid(62, "Halt of the power management unit", _PAGE, act.RESET_GPU)
    yield Xid(63, "Memory row remapped or page retired", _TICKET, act.IGNORE, "plan a reset while one is pending")
    yield Xid(64, "Memory row could not be remapped", _PAGE, act.RESET_GPU, "contact support for a replacement")
    for number in (66, 67):
        yield Xid(number, "Illegal access by the driver", _TICKET, act.IGNORE, "check the software")
    yield Xid(68, "Exception in the video decoder", _USER, act.RESTART_APPLICATION)
    yield Xid(69, "Error of the graphics class", _USER, act.RESTART_APPLICATION, "check the application")
    yield Xid(74, "NVLink error, up to Hopper", _PAGE, act.FOLLOW_LINK, "check the link's signal and connection")
    yield Xid(78, "Virtual GPU could not start", _TICKET, act.UPDATE_SOFTWARE)
    yield Xid(79, "GPU fell off the bus", _PAGE, act.RESTART_NODE, "if it recurs, inspect the hardware")
    yield Xid(92, "Many corrected memory errors", _TICKET, act.IGNORE, _SUPPORT)
    yield Xid(93, "Limit of writes to the board's configuration memory", _INFO, act.IGNORE)
    yield Xid(94, "Contained memory error", _TICKET, act.RESTART_APPLICATION)
    yield Xid(95, "Uncontained memory error", _PAGE, act.RESET_GPU)
    yield Xid(109, "Timeout of a context switch", _PAGE, act.RESET_GPU)
    yield Xid(110, "Security fault", _PAGE, act.RESET_GPU)
    yield Xid(119, "Timeout of a call to the GPU's system processor", _PAGE, act.RESET_GPU, "check the software")
    yield Xid(120, "Error of the GPU's system processor", _PAGE, act.RESET_GPU, "check the software")
    yield Xid(121, "Corrected error on the link between chips", _TICKET, act.IGNORE, _SUPPORT)
    for number in (122, 123, 124, 125):
        yield Xid(number, "Configuration memory could not be accessed", _TICKET, act.CONTACT_SUPPORT)
    yield Xid(136, "Link training failed", _PAGE, act.RESET_GPU, "check signal integrity")
    yield Xid(137, "NVLink privilege error", _USER, act.IGNORE, "usually the application")
    yield Xid(140, "Memory error that was not recovered", _PAGE, act.RESET_GPU)
    yield Xid(143, "GPU could not be initialised", _PAGE, act.RESET_GPU)
    for number, unit in _NVLINK_UNITS.items():
        yield Xid(number, f"NVLink error, since Blackwell: {unit}", _PAGE, act.FOLLOW_LINK, "decode entry and status")
    yield Xid(151, "Keys could not be rotated in confidential computing", _TICKET, act.RESTART_MACHINE)
    yield Xid(154, "Recovery action changed", _PAGE, act.FOLLOW_DRIVER)
    yield Xid(155, "NVLink error defined by software", _TICKET, act.RESET_GPU)
    yield Xid(156, "Resource retired", _TICKET, act.RESET_GPU, _SUPPORT)
    yield Xid(157, "Resource could not be retired", _PAGE, act.RESET_GPU, _SUPPORT)
    yield Xid(158, "Fatal timeout of the GPU", _PAGE, act.RESET_GPU)
    yield Xid(159, "Error without data on the coherent interface to Grace", _TICKET, act.CHECK_SOFTWARE)
    yield Xid(160, "Memory channel retired", _TICKET, act.IGNORE, "check the software")
    yield Xid(161, "Memory channel could not be retired", _TICKET, act.IGNORE, "check the software")
    yield Xid(162, "Power smoothing engaged again", _INFO, act.NOT_STATED, clears=(163,))
    yield Xid(163, "Power smoothing disengaged", _TICKET, act.NOT_STATED)
    yield Xid(164, "Little life left in the power smoothing circuit", _TICKET, act.NOT_STATED)
    yield Xid(165, "No life left in the power smoothing circuit", _PAGE, act.NOT_STATED)
    yield Xid(167, "Fatal timeout on PCIe", _PAGE, act.NOT_STATED)
    yield Xid(168, "GPU memory reduced", _PAGE, act.NOT_STATED)
    yield Xid(169, "Halt of the security processor", _PAGE, act.NOT_STATED)
    yield Xid(171, "Detail of 48: device memory", _INFO, act.FOLLOW_ECC)
    yield Xid(172, "Detail of 48: static memory", _INFO, act.FOLLOW_ECC)


# Units of the NVLink engine by the names that they have in log lines.
_NVLINK_UNITS: Mapping[int, str] = {
    144: "SAW",
    145: "RLW",
    146: "TLW",
    147: "TREX",
    148: "NVLPW_CTRL",
    149: "NETIR",
    150: "MSE",
}
_ALWAYS_FATAL_LINK_UNIT = 150

XIDS: Mapping[int, Xid] = {entry.number: entry for entry in _rows()}

_NONFATAL = re.compile(r"\bnon-?fatal\b", re.IGNORECASE)
_NO_ACTION = re.compile(r"\bto 0x0+\b")


def xid(number: int) -> Xid:
    """What the number means; one that is not listed is a ticket."""
    known = XIDS.get(number)
    if known is not None:
        return known
    return Xid(number, f"Unlisted XID {number}", XidClass.TICKET, XidAction.CONTACT_SUPPORT, "see the driver's release")


def judge(number: int, detail: str = "") -> XidClass:
    """The class of one occurrence: the number's, unless the driver's own words make it milder."""
    entry = xid(number)
    if number in _NVLINK_UNITS and number != _ALWAYS_FATAL_LINK_UNIT and _NONFATAL.search(detail):
        return XidClass.TICKET
    if number == 154 and _NO_ACTION.search(detail):
        return XidClass.INFO
    return entry.xid_class


def xid_reference() -> str:
    """docs/reference/xids.md: every listed number."""
    lines = [
        "<!-- Generated by `make render` from catalogue/xid.py; do not edit. -->",
        "# XIDs",
        "",
        "What the driver's error numbers mean, whom each concerns, and what to do. *page*: somebody acts now;",
        "*ticket*: somebody looks into it; *user*: the job's own doing, as a rule; *info*: good to know next to",
        "others. A number that is not listed is a ticket. A line that says non-fatal makes 144 to 149 tickets, one",
        "that says that no recovery is needed any more makes 154 info.",
        "",
        "| XID | meaning | class | at once | afterwards |",
        "|---|---|---|---|---|",
    ]
    lines += [_line(XIDS[number]) for number in sorted(XIDS)]
    return "\n".join(lines) + "\n"


def _line(entry: Xid) -> str:
    judged = f"{entry.xid_class}, {entry.repeated} if repeated" if entry.repeated else str(entry.xid_class)
    cleared = "; ".join(f"takes back {number}" for number in entry.clears)
    afterwards = "; ".join(part for part in (entry.investigation, cleared) if part)
    return f"| {entry.number} | {entry.meaning} | {judged} | {entry.action} | {afterwards} |"
