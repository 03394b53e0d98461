"""The InfiniBand and RoCE ports of this node from sysfs: state, rate, traffic and errors, one row per port.

The kernel offers most counters as the port's management registers have them (sysfs-class-infiniband): some of 4, 8 or
16 bits that stay at their highest number instead of starting again. Such a counter tells nothing until it is cleared.
"""

import logging
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from catalogue import PORT, Kind, ResourceKind, resource_id, units
from catalogue.origins import SysfsFile
from catalogue.port import PHYSICAL_STATES, PORT_STATES
from collectors.counters import CounterRule, Counters, CounterStore
from collectors.source import Reading, SourceUnavailableError
from collectors.told import ToldBefore
from collectors.tray import TrayPlace, boot_id, this_machine
from stream.messages import EventMessage, InventoryMessage, JobMessage
from stream.rows import pack

DEVICES = Path("/sys/class/infiniband")
MAX_FILE_BYTES = 4096  # what sysfs gives at most
MAX_PORTS = 1024

# kernel, enum ib_port_state, and what the catalogue calls it.
STATES = {1: 5, 2: 4, 3: 3, 4: 1, 5: 2}
# kernel, enum ib_port_phys_state.
PHYSICAL = {1: 5, 2: 4, 3: 7, 4: 3, 5: 1, 6: 2, 7: 6}
ACTIVE, *_, VANISHED = (state for state, _ in PORT_STATES)
STATE_NAMES = dict(PORT_STATES)
PHYSICAL_NAMES = dict(PHYSICAL_STATES)

# IBA specification volume 1, PortCounters: registers that stay at their highest number, by their bits. The kernel reads
# the wider PortCountersExtended instead where the port has it; a larger number is then an ordinary one.
SATURATING_BITS = {
    "counters/symbol_error": 16,
    "counters/link_error_recovery": 8,
    "counters/link_downed": 8,
    "counters/port_rcv_errors": 16,
    "counters/port_rcv_remote_physical_errors": 16,
    "counters/port_xmit_discards": 16,
    "counters/local_link_integrity_errors": 4,
    "counters/excessive_buffer_overrun_errors": 4,
    "counters/VL15_dropped": 16,
    "counters/port_xmit_data": 32,
    "counters/port_rcv_data": 32,
    "counters/port_xmit_packets": 32,
    "counters/port_rcv_packets": 32,
    "counters/port_xmit_wait": 32,
}
WORD_BYTES = Fraction(4)  # sysfs-class-infiniband: data is counted in octets divided by 4
DATA_CEILING_WORDS_PER_S = 100_000_000_000  # 3.2 Tb/s, twice the fastest port that is announced

COUNTERS: Mapping[str, tuple[str, CounterRule]] = {
    origin.path: (
        metric.name,
        CounterRule.of(metric, WORD_BYTES, ceiling_per_s=DATA_CEILING_WORDS_PER_S)
        if metric.unit is units.BYTES
        else CounterRule.of(metric, Fraction(1)),
    )
    for metric in PORT.of_kind(Kind.DELTA)
    for origin in metric.origins
    if isinstance(origin, SysfsFile)
}

_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?) Gb/sec")  # "400 Gb/sec (4X NDR)"
_NUMBERED = re.compile(r"([0-9]+)\s*:")  # "4: ACTIVE"
BYTES_PER_GIGABIT = 125_000_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PortIdentity:
    """Which port of which adapter; `guid` is empty where the adapter has none, as some virtual functions."""

    device: str
    number: int
    guid: str = ""

    def identity(self, tray: str) -> str:
        """What stays when adapters are numbered anew: the adapter's GUID, or the name within its tray."""
        return f"{self.guid}/{self.number}" if self.guid else f"{tray}/{self.device}/{self.number}"


@dataclass(frozen=True, slots=True)
class PortState:
    """What sysfs tells of one port; None for what it does not."""

    port: PortIdentity
    state: int | None = None
    physical: int | None = None
    rate_bytes_per_second: float | None = None
    counters: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)


def read_ports(devices: Path = DEVICES) -> Iterator[PortState]:
    """Every port below `devices`, in the order of device and number."""
    for device in sorted(devices.iterdir()):
        guid = _text(device / "node_guid").replace(":", "").lower()
        if not guid.strip("0"):
            guid = ""
        ports = [port for port in _directory(device / "ports") if port.name.isdecimal()]
        for port in sorted(ports, key=lambda port: int(port.name)):
            yield _read_port(PortIdentity(device.name, int(port.name), guid), device, port)


def _read_port(identity: PortIdentity, device: Path, port: Path) -> PortState:
    state, physical = _number_of(_text(port / "state")), _number_of(_text(port / "phys_state"))
    rate = _RATE.match(_text(port / "rate"))
    counters = {file: _count(_text(port / file)) for file in COUNTERS}
    return PortState(
        port=identity,
        state=STATES.get(state) if state is not None else None,
        physical=PHYSICAL.get(physical) if physical is not None else None,
        # A port that is down has the rate that it would start to negotiate with: no reading.
        rate_bytes_per_second=float(rate[1]) * BYTES_PER_GIGABIT if rate and STATES.get(state or 0) == ACTIVE else None,
        counters={file: count for file, count in counters.items() if count is not None},
        facts={
            "device": identity.device,
            "port": str(identity.number),
            "node_guid": identity.guid,
            "link_layer": _text(port / "link_layer"),
            "adapter": _text(device / "hca_type"),
            "board": _text(device / "board_id"),
            "firmware_version": _text(device / "fw_ver"),
            "pci_bus_id": _pci_bus_id(device),
        },
    )


def _directory(path: Path) -> list[Path]:
    try:
        return list(path.iterdir())
    except OSError:
        return []


def _text(file: Path) -> str:
    """The first line of a sysfs file; empty where there is none, or its driver cannot read it now."""
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_FILE_BYTES).decode("ascii").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _pci_bus_id(device: Path) -> str:
    """The adapter's address, which the link to its PCI device ends in."""
    try:
        return (device / "device").readlink().name
    except OSError:
        return ""


def _number_of(text: str) -> int | None:
    found = _NUMBERED.match(text)
    return int(found[1]) if found else None


def _full(bits: int) -> int:
    return (1 << bits) - 1


def _count(text: str) -> int | None:
    """A counter; None for what some drivers write instead, such as "N/A (no PMA)"."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 20 else None


class InfinibandSource:
    """The ports of this node as rows of table `port`.

    A port that was there and is not any more, because its adapter fell off the bus or its driver was taken out, keeps
    its row, which says so. `tray` is the tray that the ports belong to. `counters` keeps counters across restarts of
    the agent; without it the first tick has no deltas.
    """

    def __init__(
        self,
        *,
        devices: Path = DEVICES,
        tray: TrayPlace | None = None,
        source: int | None = None,
        counters: CounterStore | None = None,
        booted: Callable[[], str] = boot_id,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._devices = devices
        self._tray = tray or this_machine()
        self._source = source or resource_id(ResourceKind.AGENT, f"{self._tray.identity}/{self.name}")
        self._counters = Counters(counters)
        self._booted = booted
        self._clock = clock
        self._known: dict[str, PortState] = {}  # by identity, as last seen
        self._states: dict[str, tuple[int | None, int | None]] = {}
        self._saturated: set[tuple[str, str]] = set()
        self._twins: set[str] = set()
        self._events: list[EventMessage] = []
        self._told = ToldBefore()

    @property
    def name(self) -> str:
        return "infiniband"

    def inventory(self) -> Sequence[InventoryMessage]:
        """The ports known so far, or those that are there now; nothing where there is no InfiniBand."""
        if not self._known:
            try:
                self._known = self._look()
            except SourceUnavailableError:
                return ()
        time_ms = int(self._clock() * 1000)
        return [self._told.dated(self._message(name, port, time_ms)) for name, port in self._known.items()]

    def read(self, time_s: int) -> Sequence[Reading]:
        found = self._look()
        self._known |= found
        rows = {}
        for identity in sorted(self._known):
            port = found.get(identity)
            rows[identity] = self._values(identity, port, time_s) if port else {"port_state": VANISHED}
            self._note_change(identity, rows[identity], time_s)
        self._counters.keep()
        names = set().union(*rows.values())
        columns = {name: [values.get(name, math.nan) for values in rows.values()] for name in names}
        ports = [resource_id(ResourceKind.PORT, identity) for identity in rows]
        return (Reading(self._source, PORT, pack(PORT, ports, time_s, columns)),)

    def events(self) -> Sequence[EventMessage | JobMessage]:
        """Changes of state between two ticks; one that came and went in between shows in `link_downed_count` only."""
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        pass

    def _look(self) -> dict[str, PortState]:
        """The ports that are there, by identity."""
        found: dict[str, PortState] = {}
        try:
            for port in read_ports(self._devices):
                identity = port.port.identity(self._tray.identity)
                if found.setdefault(identity, port) is not port:
                    self._warn_of_twin(identity, found[identity], port)
        except OSError as error:
            if not self._known:
                raise self._unavailable(f"cannot be read ({error.strerror})") from error
        if not found and not self._known:
            raise self._unavailable("has no ports")
        if len(found) > MAX_PORTS:
            raise self._unavailable(f"has {len(found)} ports, more than {MAX_PORTS}")
        return found

    def _unavailable(self, what: str) -> SourceUnavailableError:
        return SourceUnavailableError(
            f"{self._devices} on {self._tray.name} {what}: load the adapters' driver (modprobe mlx5_ib), or take the "
            "source infiniband out of the agent's settings"
        )

    def _values(self, identity: str, port: PortState, time_s: int) -> dict[str, float]:
        values = {
            "port_state": port.state,
            "physical_state": port.physical,
            "rate_bytes_per_second": port.rate_bytes_per_second,
            **{COUNTERS[file][0]: self._delta(identity, file, count, time_s) for file, count in port.counters.items()},
        }
        return {name: value for name, value in values.items() if value is not None}

    def _delta(self, identity: str, file: str, count: int, time_s: int) -> float | None:
        """What was counted since the tick before; None where the register is at its end."""
        name, rule = COUNTERS[file]
        if count in (_full(64), _full(SATURATING_BITS.get(file, 64))):
            self._warn_of_saturation(identity, file, count)
            return None
        self._saturated.discard((identity, file))
        return self._counters.delta(f"infiniband/{identity}/{name}", rule, count, time_s=time_s, epoch=self._booted())

    def _warn_of_saturation(self, identity: str, file: str, count: int) -> None:
        if (identity, file) not in self._saturated:
            self._saturated.add((identity, file))
            _log.warning(
                "A port's counter is at its end and counts no more: clear it with perfquery -R",
                extra={"port": identity, "counter": file, "value": count},
            )

    def _warn_of_twin(self, identity: str, first: PortState, second: PortState) -> None:
        if identity not in self._twins:
            self._twins.add(identity)
            _log.warning(
                "Two ports have one identity: only the first is read",
                extra={"port": identity, "first": first.port.device, "second": second.port.device},
            )

    def _note_change(self, identity: str, values: Mapping[str, float], time_s: int) -> None:
        """An event when the port's state is another than at the tick before; one that cannot be read is no change.

        The physical state is told with it, but no reason: a port without a peer goes round its states for ever.
        """
        before = self._states.get(identity)
        port, physical = values.get("port_state"), values.get("physical_state")
        if port is None:
            return
        now = int(port), None if physical is None else int(physical)
        self._states[identity] = now
        if before is not None and before[0] != now[0]:
            self._events.append(self._event(identity, before, now, time_s))

    def _event(
        self, identity: str, before: tuple[int | None, int | None], now: tuple[int, int | None], time_s: int
    ) -> EventMessage:
        was, is_now = STATE_NAMES.get(before[0] or 0, ""), STATE_NAMES[now[0]]
        facts = {
            "device": self._known[identity].port.device,
            "port": str(self._known[identity].port.number),
            "before": was,
            "physical_before": PHYSICAL_NAMES.get(before[1] or 0, ""),
            "physical": PHYSICAL_NAMES.get(now[1] or 0, ""),
        }
        return EventMessage(
            id=f"{identity}/port_state/{time_s}",
            resource=resource_id(ResourceKind.PORT, identity),
            time_ms=time_s * 1000,
            kind="port_state",
            code=now[0],
            text=f"{is_now}, was {was}",
            source=self._source,
            attributes={name: fact for name, fact in facts.items() if fact},
        )

    def _message(self, identity: str, port: PortState, time_ms: int) -> InventoryMessage:
        return InventoryMessage(
            resource=resource_id(ResourceKind.PORT, identity),
            kind=ResourceKind.PORT,
            identity=identity,
            name=f"{self._tray.name} {port.port.device}/{port.port.number}",
            valid_from_ms=time_ms,
            parent=self._tray.resource,
            source=self._source,
            attributes={name: fact[:256] for name, fact in port.facts.items() if fact},
        )
