"""The machine that the agent runs on: processors, memory, disks, network, temperatures, through psutil.

What is read is one record, `MachineState`; what follows from it is pure. Disks and interfaces are counted one by one
and then added: a device that appears brings its whole past with it, which must not become this tick's traffic.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import psutil
from msgspec.structs import replace

from catalogue import TRAY, Kind, ResourceKind, resource_id
from collectors.counters import CounterRule, Counters, CounterStore
from collectors.source import Reading
from collectors.tray import TrayPlace, boot_id, this_machine, tray_message
from stream.messages import EventMessage, InventoryMessage, JobMessage
from stream.rows import pack

DEVICES = Path("/sys")
LOOPBACK = "lo"

# hwmon drivers that measure a processor's own die (kernel, Documentation/hwmon).
PROCESSOR_SENSORS = frozenset({"coretemp", "cpu_thermal", "k10temp", "k8temp", "zenpower"})

DISK_COUNTERS = ("disk_read_bytes", "disk_written_bytes")
NETWORK_COUNTERS = ("network_received_bytes", "network_sent_bytes", "network_errors_count")
COUNTERS = {
    metric.name: CounterRule.of(metric, Fraction(1))
    for metric in TRAY.of_kind(Kind.DELTA)
    if metric.name in DISK_COUNTERS + NETWORK_COUNTERS
}
# Processor time in units of 10 ms, in which Linux accounts it (USER_HZ).
PROCESSOR_TIME = CounterRule(numerator=1, denominator=1, resolution=Fraction(1, 100))


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineState:
    """What the operating system tells at one instant; None and empty where it does not.

    `busy_s` and `total_s` are processor time since boot, over all processors. `disks` and `links` hold counters by
    device, in the order of DISK_COUNTERS and NETWORK_COUNTERS.
    """

    busy_s: float | None = None
    total_s: float | None = None
    load: float | None = None
    memory_used_bytes: int | None = None
    memory_size_bytes: int | None = None
    disk_used_bytes: int | None = None
    disk_size_bytes: int | None = None
    disks: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    links: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    processor_celsius: float | None = None
    processes: int | None = None
    processors: int | None = None
    booted_at_s: float | None = None


def read_machine(spool: Path, devices: Path = DEVICES) -> MachineState:
    """The state of this machine; the file system is the one that holds `spool`."""
    processor = psutil.cpu_times()
    memory = psutil.virtual_memory()
    disk = _disk_usage(spool)
    # Time given to guests is part of user and nice already; time stolen by the hypervisor was not worked here.
    busy_s = sum(getattr(processor, part, 0.0) for part in ("user", "nice", "system", "irq", "softirq"))
    waited_s = sum(getattr(processor, part, 0.0) for part in ("idle", "iowait", "steal"))
    return MachineState(
        busy_s=busy_s,
        total_s=busy_s + waited_s,
        load=psutil.getloadavg()[0],
        memory_used_bytes=memory.total - memory.available,
        memory_size_bytes=memory.total,
        disk_used_bytes=disk[0] if disk else None,
        disk_size_bytes=disk[1] if disk else None,
        disks=_disks(devices),
        links=_links(devices),
        processor_celsius=_processor_celsius(),
        processes=len(psutil.pids()),
        processors=psutil.cpu_count(logical=True),
        booted_at_s=psutil.boot_time(),
    )


def _disk_usage(path: Path) -> tuple[int, int] | None:
    """Used and size of the file system that holds a path, or will hold it."""
    existing = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    try:
        usage = psutil.disk_usage(str(existing))
    except OSError:
        return None
    return usage.used, usage.total


def _disks(devices: Path) -> dict[str, tuple[int, int]]:
    """Counters of the disks with hardware behind them: what goes through a volume or array is counted there once."""
    with suppress(OSError, NotImplementedError):
        counters = psutil.disk_io_counters(perdisk=True, nowrap=False)
        return {
            name: (disk.read_bytes, disk.write_bytes)
            for name, disk in counters.items()
            if (devices / "block" / name / "device").exists()
        }
    return {}


def _links(devices: Path) -> dict[str, tuple[int, int, int]]:
    """Counters of the interfaces with hardware behind them, so that a bridge or bond does not count twice.

    In a container without any, all but the loopback count.
    """
    with suppress(OSError):
        counters = psutil.net_io_counters(pernic=True, nowrap=False)
        outside = {name: link for name, link in counters.items() if name != LOOPBACK}
        hardware = {name: link for name, link in outside.items() if (devices / "class/net" / name / "device").exists()}
        return {
            name: (link.bytes_recv, link.bytes_sent, link.errin + link.errout + link.dropin + link.dropout)
            for name, link in (hardware or outside).items()
        }
    return {}


def _processor_celsius() -> float | None:
    """The hottest processor; None where the machine has no such sensor."""
    if not hasattr(psutil, "sensors_temperatures"):
        return None
    with suppress(OSError):
        sensors = psutil.sensors_temperatures()
        return max((one.current for name in PROCESSOR_SENSORS & sensors.keys() for one in sensors[name]), default=None)
    return None


class HostSource:
    """This machine as one row of table `tray`.

    `gpu_count` tells how many GPUs answer, None when nobody knows; NvmlSource.answering is one. `counters` keeps disk
    and network counters across restarts of the agent.
    """

    def __init__(
        self,
        *,
        spool: Path,
        place: TrayPlace | None = None,
        source: int | None = None,
        counters: CounterStore | None = None,
        gpu_count: Callable[[], int | None] = lambda: None,
        observe: Callable[[Path], MachineState] = read_machine,
        booted: Callable[[], str] = boot_id,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._place = place or this_machine()
        self._source = source or resource_id(ResourceKind.AGENT, f"{self._place.identity}/{self.name}")
        self._spool = spool
        self._counters = Counters(counters)
        self._processor = Counters()  # a share of time over a restart is no reading of a tick: never kept
        self._gpu_count = gpu_count
        self._observe = observe
        self._booted = booted
        self._clock = clock
        self._tray: InventoryMessage | None = None

    @property
    def name(self) -> str:
        return "host"

    def inventory(self) -> Sequence[InventoryMessage]:
        if self._tray is None:
            self._tray = tray_message(self._place, source=self._source, time_ms=int(self._clock() * 1000))
            facts = {**self._tray.attributes, **_facts(self._observe(self._spool))}
            self._tray = replace(self._tray, attributes=facts)
        return (self._tray,)

    def read(self, time_s: int) -> Sequence[Reading]:
        values = self._values(self._observe(self._spool), time_s)
        self._counters.keep()
        known = {name: value for name, value in values.items() if value is not None}
        return (Reading(self._source, TRAY, pack(TRAY, [self._place.resource], time_s, known)),)

    def events(self) -> Sequence[EventMessage | JobMessage]:
        return ()

    def close(self) -> None:
        pass

    def _values(self, state: MachineState, time_s: int) -> dict[str, float | None]:
        return {
            "processor_utilization_ratio": self._utilization(state, time_s),
            "load_count": state.load,
            "memory_used_bytes": state.memory_used_bytes,
            "memory_size_bytes": state.memory_size_bytes,
            "disk_used_bytes": state.disk_used_bytes,
            "disk_size_bytes": state.disk_size_bytes,
            "processor_temperature_celsius": state.processor_celsius,
            "process_count": state.processes,
            "uptime_seconds": None if state.booted_at_s is None else time_s - state.booted_at_s,
            "gpu_count": self._gpu_count(),
            **self._traffic(state.disks, DISK_COUNTERS, time_s),
            **self._traffic(state.links, NETWORK_COUNTERS, time_s),
        }

    def _utilization(self, state: MachineState, time_s: int) -> float | None:
        if state.busy_s is None or state.total_s is None:
            return None
        busy_s = self._processor.delta("busy", PROCESSOR_TIME, round(state.busy_s * 100), time_s=time_s)
        total_s = self._processor.delta("total", PROCESSOR_TIME, round(state.total_s * 100), time_s=time_s)
        return min(busy_s / total_s, 1.0) if busy_s is not None and total_s else None

    def _traffic(
        self, devices: Mapping[str, tuple[int, ...]], names: Sequence[str], time_s: int
    ) -> dict[str, float | None]:
        """The sum of each counter's delta over the devices whose delta is known."""
        epoch = self._booted()
        sums: dict[str, float | None] = {}
        for position, name in enumerate(names):
            deltas = [
                self._counters.delta(
                    f"{self._place.identity}/{device}/{name}",
                    COUNTERS[name],
                    counters[position],
                    time_s=time_s,
                    epoch=epoch,
                )
                for device, counters in devices.items()
            ]
            known = [delta for delta in deltas if delta is not None]
            sums[name] = sum(known) if known else None
        return sums


def _facts(state: MachineState) -> dict[str, str]:
    facts = {"processor_count": state.processors, "memory_bytes": state.memory_size_bytes}
    return {name: str(fact) for name, fact in facts.items() if fact is not None}
