"""Which tray a node is: what all sources of one node must agree on."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from catalogue import ResourceKind, resource_id
from stream.messages import InventoryMessage

MACHINE_ID = Path("/etc/machine-id")  # machine-id(5)
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # random(4)
FIRMWARE = Path("/sys/class/dmi/id")  # kernel, drivers/firmware/dmi-id.c; the numbers are readable by root only

# What the firmware of a node and its BMC both tell (SMBIOS, type 1): by it the two are found to be one tray.
_MARKS = {"system_uuid": "product_uuid", "system_serial": "product_serial"}
# What makers leave in the place of a number.
_NO_NUMBER = frozenset({
    "", "none", "n/a", "default string", "not specified", "not applicable", "to be filled by o.e.m.",
    "system serial number", "0123456789", "123456789", "03000200-0400-0500-0006-000700080009",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class TrayPlace:
    """Which tray a node is, and in which rack where that is known.

    All sources of one node must agree on it, or the tray is two resources: the agent asks the source that knows best
    (NVML on racks with platform information) and gives the answer to the others.
    """

    identity: str
    name: str
    rack: str = ""  # the rack's identity
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def resource(self) -> int:
        return resource_id(ResourceKind.TRAY, self.identity)

    @property
    def parent(self) -> int:
        return resource_id(ResourceKind.RACK, self.rack) if self.rack else 0


def this_machine(machine_id: Path = MACHINE_ID, firmware: Path = FIRMWARE) -> TrayPlace:
    """This machine as a tray: its machine id, or its host name where it has none, and the marks that it may read."""
    name = socket.gethostname()
    numbers = {mark: _number(firmware / file) for mark, file in _MARKS.items()}
    marks = {mark: number for mark, number in numbers.items() if number}
    return TrayPlace(identity=_first_line(machine_id) or name, name=name, attributes=marks)


def _number(path: Path) -> str:
    """A number that the firmware tells; empty where it tells none, or the file may not be read."""
    number = _first_line(path)
    is_blank = number.lower() in _NO_NUMBER or len(set(number.replace("-", ""))) < 2  # all zeros, all ones
    return "" if is_blank else number.lower() if path.name == "product_uuid" else number


def boot_id(path: Path = BOOT_ID) -> str:
    """What names this run of the operating system; empty where it does not tell."""
    return _first_line(path)


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError):
        return ""


def tray_message(place: TrayPlace, *, source: int, time_ms: int) -> InventoryMessage:
    """The inventory message of a tray, as every source of its node publishes it."""
    return InventoryMessage(
        resource=place.resource,
        kind=ResourceKind.TRAY,
        identity=place.identity,
        name=place.name,
        valid_from_ms=time_ms,
        parent=place.parent,
        source=source,
        attributes=dict(place.attributes),
    )
