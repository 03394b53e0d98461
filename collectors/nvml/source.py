"""The GPUs of this node through NVML (nvidia-ml-py): fast rows at every tick, health rows now and then, and events.

A call to a sick GPU can block for minutes: another thread then reads the others (`crew.py`), and the sick one is dark
until its call comes back. What is asked of a GPU stands in `gpu.py` (fast), `health.py` (slow) and `events.py` beside
this, what becomes of it in `rows.py` and `messages.py`.

What was counted while a GPU was dark is not lost: its counters run on in the device, and the first delta after the
dark interval covers it. With MIG it is the boards that are read, never their instances: power and energy, errors and
links exist once per board, so nothing is doubled.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue

from catalogue import GPU, GPU_HEALTH, Metric, ResourceKind, resource_id
from catalogue.xid import XidClass
from collectors.bursts import BurstRule, Bursts, Occurrence
from collectors.counters import Counters, CounterStore
from collectors.gpu_events import KERNEL, NVML, GpuEvents
from collectors.kernel_log import KernelLog, PciAddress, XidLine, parse_pci_address
from collectors.nvml.binding import Nvml, driver_version, load_nvml
from collectors.nvml.crew import Crew
from collectors.nvml.events import EVENT_KINDS, RECOVERY_ACTION, XID, DeviceEvent, EventKind, EventWatch
from collectors.nvml.gpu import Failure, GpuIdentity, GpuReader, Sample
from collectors.nvml.health import FabricPlace, HealthSample
from collectors.nvml.messages import gpu_message, rack_message
from collectors.nvml.rows import GpuRows
from collectors.source import Reading, SourceUnavailableError
from collectors.told import ToldBefore
from collectors.tray import TrayPlace, boot_id, this_machine, tray_message
from stream.messages import EventMessage, InventoryMessage, JobMessage

DEADLINE_S = 0.8  # leaves a fifth of the shortest interval to everything else
HEALTH_ROOM_S = 0.1  # with less of the deadline left, health waits for the next tick
HEALTH_PATIENCE = 5  # ticks that it waits at most: one slow GPU must not keep the health of all unread
RETRY_S = 60  # a lost GPU comes back by a reset, which takes minutes
REOPEN_S = 600  # NVML sees a replaced GPU only when it starts anew, which costs all GPUs one tick of GPM readings
REWATCH_S = 5  # how often at most a new event set replaces one that failed

_MOST_CODE = (1 << 31) - 1  # what a message may hold

_log = logging.getLogger(__name__)

SILENT = "its call has not returned"
STILL_LOST = "it is lost and not tried again yet"
VANISHED = "NVML does not count it any more"

_Outcome = GpuIdentity | Sample | HealthSample | Failure


@dataclass(slots=True, eq=False)
class _Device:
    """The GPU at one index of NVML. Its reader belongs to the crew while it is busy."""

    index: int
    reader: GpuReader
    follows: bool = False  # the tick before was read
    asleep_until_s: int = 0
    gpu: GpuIdentity | None = None


# The node ------------------------------------------------------------------------------------------------------------


class NvmlSource:
    """The GPUs of this node as rows of tables `gpu` and `gpu_health`, ordered by index, and their events.

    A GPU that does not answer within `deadline_s`, or is lost, is dark in that tick: its row says so and nothing else.
    One that has been seen since the start keeps its row, dark, when it vanishes. `retry_s` is how often a lost GPU is
    tried again. `counters` keeps energy and error counters across restarts of the agent; without it the first tick
    has no deltas.

    Health is read at the first tick and then at the first one of each `health_interval_s` since 1970, in what is left
    of that tick's deadline. `kernel_log` is the second witness of XIDs. After `close`, one more call of `events` gives
    the counts that have not been told.
    """

    def __init__(
        self,
        *,
        source: int | None = None,
        machine: TrayPlace | None = None,
        counters: CounterStore | None = None,
        health_interval_s: int = GPU_HEALTH.cadence_s,
        kernel_log: KernelLog | None = None,
        bursts: BurstRule | None = None,
        deadline_s: float = DEADLINE_S,
        retry_s: int = RETRY_S,
        booted: Callable[[], str] = boot_id,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._machine = machine or this_machine()
        self._source = source or resource_id(ResourceKind.AGENT, f"{self._machine.identity}/{self.name}")
        self._counters = Counters(counters)
        self._rows = GpuRows(self._counters)
        self._health_interval_s = health_interval_s
        self._health_slot: int | None = None  # of the last health rows
        self._health_waited = 0  # ticks
        self._fabric: dict[str, FabricPlace] = {}  # by UUID, as of the last health
        self._kernel_log = kernel_log
        self._bursts = Bursts(self._source, bursts)
        self._gpu_events = GpuEvents(self._bursts)
        self._happened: SimpleQueue[DeviceEvent] = SimpleQueue()
        self._watch: EventWatch | None = None
        self._rewatch_at_s = 0
        self._deadline_s = deadline_s
        self._retry_s = retry_s
        self._boot = booted()  # no process outlives a boot
        self._clock = clock
        self._nvml: Nvml = None
        self._driver = ""
        self._reopen_at_s = 0
        self._down = False
        self._devices: list[_Device] = []
        self._crew: Crew[_Device, _Outcome] = Crew("nvml-gpus")
        self._gpus: dict[str, GpuIdentity] = {}  # by UUID, every GPU seen since the start
        self._dark: dict[str, Failure] = {}  # by UUID, or by index before it is known
        self._answering: int | None = None
        self._timings: Mapping[tuple[str, str], float] = {}
        self._told = ToldBefore()

    @property
    def name(self) -> str:
        return "nvml"

    def answering(self) -> int | None:
        """How many GPUs answered in the last tick; None where there is no NVML."""
        return self._answering

    def timings(self) -> Mapping[tuple[str, str], float]:
        """Seconds that each GPU took at the last tick: the whole `read`, and the `fields` as the driver says."""
        return self._timings

    def remarks(self) -> Sequence[str]:
        """Which GPUs are dark, and why."""
        return [f"GPU {gpu} is dark: {failure.reason}" for gpu, failure in sorted(self._dark.items())]

    def why_absent(self, resource: int, metric: Metric) -> str:
        """Why a metric of a GPU has no value: the GPU is dark, does not have it, or does not let the agent read it."""
        for device in self._devices:
            if device.gpu is not None and device.gpu.resource == resource:
                dark = self._dark.get(device.gpu.uuid)
                return f"dark: {dark.reason}" if dark else device.reader.why_absent(metric)
        return ""

    def tray(self) -> TrayPlace:
        """The tray that this node is: by chassis and slot where the platform tells, else this machine."""
        places = (gpu.place for gpu in self._gpus.values() if gpu.place is not None)
        place = next(places, None)
        if place is None:
            return self._machine
        facts = {"chassis_serial": place.chassis_serial, "slot": str(place.slot), "tray_index": str(place.tray_index)}
        return TrayPlace(
            identity=f"{place.chassis_serial}/{place.slot}",
            name=self._machine.name,
            rack=place.chassis_serial,
            attributes={**self._machine.attributes, **facts, "host": str(place.host)},
        )

    def inventory(self) -> Sequence[InventoryMessage]:
        """Rack, tray and GPUs as far as known; nothing where there is no NVML. May block for the deadline."""
        if not self._gpus:
            with suppress(SourceUnavailableError):
                self._open(int(self._clock()))
                until = time.monotonic() + self._deadline_s
                asked = {device: device.reader.identify for device in self._devices}
                for gpu in self._crew.ask(asked, until).values():
                    if isinstance(gpu, GpuIdentity):
                        self._gpus[gpu.uuid] = gpu
        return self._messages() if self._gpus else ()

    def read(self, time_s: int) -> Sequence[Reading]:
        try:
            self._open(time_s)
            until = time.monotonic() + self._deadline_s
            samples = self._samples(time_s, until)
        except SourceUnavailableError:
            self._answering = None
            raise
        self._answering = len(samples)
        self._timings = {
            (uuid, asked): seconds
            for uuid, sample in samples.items()
            for asked, seconds in (("read", sample.read_s), ("fields", sample.fields_s))
        }
        gpus, epoch = self._in_order(), self._epoch()
        readings = [Reading(self._source, GPU, self._rows.fast(gpus, samples, time_s, epoch=epoch))]
        health = self._health(samples, time_s, until)
        if health is not None:
            rows = self._rows.health(gpus, health, time_s, epoch=epoch)
            readings.append(Reading(self._source, GPU_HEALTH, rows))
        self._counters.keep()
        return readings

    def events(self) -> Sequence[EventMessage | JobMessage]:
        """What GPUs and the kernel's log told since the last call, equal events as bursts."""
        now_ms = int(self._clock() * 1000)
        # NVML is asked first and counted last: what it knows by now is in the log, with more detail.
        happened = self._take_happened()
        lines = self._kernel_log.read() if self._kernel_log else []
        addresses = self._addresses() if lines else {}
        for line in lines:
            self._see_line(line, addresses)
        for event in happened:
            self._see_event(event)
        self._gpu_events.forget(now_ms)
        return self._bursts.take(now_ms)

    def close(self) -> None:
        """Let go of the GPUs. A call that hangs is left behind: NVML then stays open until the process ends."""
        self._crew.close()
        self._shut()
        if self._kernel_log is not None:
            self._kernel_log.close()
        self._bursts.close()
        self._devices = []
        self._nvml = None

    # Library

    def _open(self, time_s: int) -> None:
        """Have NVML running and a device for each GPU that it counts; SourceUnavailableError when it does not run."""
        lost = any(device.asleep_until_s for device in self._devices) or len(self._gpus) > len(self._devices)
        if self._nvml is None or self._down or (lost and self._idle() and time_s >= self._reopen_at_s):
            self._start(time_s)
        try:
            count = self._nvml.nvmlDeviceGetCount()
        except self._nvml.NVMLError as error:
            self._down = True
            raise SourceUnavailableError(f"NVML on {self._machine.name} does not count its GPUs: {error}") from error
        if count != len(self._devices):
            self._count_up_to(count)
        self._rewatch(time_s)

    def _rewatch(self, time_s: int) -> None:
        """Have an event set; the readers register their GPUs with it."""
        if self._watch is not None and not self._watch.failed:
            return
        if self._watch is not None and time_s < self._rewatch_at_s:
            return
        self._unwatch()
        with suppress(self._nvml.NVMLError):
            self._watch = EventWatch(self._nvml, self._happened, clock=self._clock)
        self._rewatch_at_s = time_s + REWATCH_S

    def _unwatch(self) -> None:
        if self._watch is not None:
            # A call that is stuck may be registering its GPU: then the set must stay.
            self._watch.stop(free=self._idle())
            self._watch = None

    def _start(self, time_s: int) -> None:
        if self._nvml is not None:
            self._shut()
        self._nvml = load_nvml(self._machine.name)
        self._driver = driver_version(self._nvml)
        self._down = False
        self._reopen_at_s = time_s + REOPEN_S
        for device in self._devices:
            device.reader.start_over()

    def _shut(self) -> None:
        if self._nvml is None:
            return
        watch = self._watch
        self._unwatch()
        if not self._idle() or (watch is not None and watch.is_waiting):
            return
        for device in self._devices:
            device.reader.free()
        with suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()

    def _idle(self) -> bool:
        """Whether no call is under way: NVML must not be shut down below one."""
        return not self._crew.busy()

    def _count_up_to(self, count: int) -> None:
        """One device for each of `count` GPUs; who sits at which index has to be asked again."""
        del self._devices[count:]
        for device in self._devices:
            device.reader.start_over()
        for index in range(len(self._devices), count):
            self._devices.append(_Device(index, GpuReader(self._nvml, index)))

    # One round

    def _samples(self, time_s: int, until: float) -> dict[str, Sample]:
        awake = [device for device in self._devices if time_s >= device.asleep_until_s]
        asked = {
            device: partial(device.reader.read, time_s, follows=device.follows, watch=self._watch) for device in awake
        }
        samples = self._settle(self._crew.ask(asked, until), time_s)
        if not self._gpus:
            raise SourceUnavailableError(self._why_none())
        return samples

    def _health(self, samples: Mapping[str, Sample], time_s: int, until: float) -> dict[str, HealthSample] | None:
        """Health by UUID of the GPUs that answered in this tick; None when it is not due or has to wait."""
        slot = time_s // self._health_interval_s
        if slot == self._health_slot:
            return None
        needed = time.monotonic() + HEALTH_ROOM_S
        if needed > until and self._health_waited < HEALTH_PATIENCE:
            self._health_waited += 1
            return None
        self._health_slot, self._health_waited = slot, 0
        until = max(until, needed)
        asked = {
            device: partial(device.reader.read_health, time_s)
            for device in self._devices
            if device.gpu is not None and device.gpu.uuid in samples
        }
        health = {}
        for device, outcome in self._crew.ask(asked, until).items():
            if isinstance(outcome, Failure):
                self._heed(device, outcome, time_s)
                facts = {"gpu": device.gpu.uuid if device.gpu else "", "reason": outcome.reason}
                _log.warning("A GPU's health cannot be read", extra=facts, exc_info=outcome.cause)
            elif isinstance(outcome, HealthSample) and device.gpu is not None:
                health[device.gpu.uuid] = outcome
        self._fabric |= {uuid: sample.fabric for uuid, sample in health.items() if sample.fabric is not None}
        return health

    def _settle(self, outcomes: Mapping[_Device, _Outcome], time_s: int) -> dict[str, Sample]:
        """The samples by UUID; lost GPUs are put to sleep, and who is dark is noted with the reason."""
        samples = {}
        dark = {}
        for device in self._devices:
            outcome = outcomes.get(device, Failure(STILL_LOST if device.asleep_until_s > time_s else SILENT))
            device.follows = isinstance(outcome, Sample)
            if isinstance(outcome, Sample):
                device.gpu = outcome.gpu
                device.asleep_until_s = 0
                self._gpus[outcome.gpu.uuid] = outcome.gpu
                samples[outcome.gpu.uuid] = outcome
            elif isinstance(outcome, Failure):
                self._heed(device, outcome, time_s)
                dark[device.gpu.uuid if device.gpu else f"index {device.index}"] = outcome
        self._note({uuid: Failure(VANISHED) for uuid in self._gpus if uuid not in samples} | dark)
        return samples

    def _heed(self, device: _Device, failure: Failure, time_s: int) -> None:
        self._down = self._down or failure.nvml_down
        if failure.gone:
            device.asleep_until_s = time_s + self._retry_s
            device.reader.start_over()

    def _note(self, dark: dict[str, Failure]) -> None:
        """Log who became dark, and who no longer is."""
        for gpu in dark.keys() - self._dark.keys():
            failure = dark[gpu]
            _log.warning("A GPU is dark", extra={"gpu": gpu, "reason": failure.reason}, exc_info=failure.cause)
        for gpu in self._dark.keys() - dark.keys():
            _log.info("A GPU is readable again", extra={"gpu": gpu})
        self._dark = dark

    def _why_none(self) -> str:
        if not self._devices:
            return (
                f"NVML on {self._machine.name} finds no GPU: check the driver's kernel log, or take the source nvml "
                "out of the agent's settings"
            )
        reasons = "; ".join(sorted({failure.reason for failure in self._dark.values()}))
        return f"none of the {len(self._devices)} GPUs of {self._machine.name} can be identified ({reasons})"

    # What is known

    def _in_order(self) -> list[GpuIdentity]:
        # A vanished GPU keeps its index, which another one may have taken over since.
        return sorted(self._gpus.values(), key=lambda gpu: (gpu.index, gpu.uuid))

    def _epoch(self) -> str:
        return f"{self._boot} {self._driver}"

    def _messages(self) -> Sequence[InventoryMessage]:
        tray = self.tray()
        now_ms = int(self._clock() * 1000)
        messages = [rack_message(tray, source=self._source, time_ms=now_ms)] if tray.rack else []
        messages.append(tray_message(tray, source=self._source, time_ms=now_ms))
        messages.extend(self._gpu_message(gpu, tray, now_ms) for gpu in self._in_order())
        return [self._told.dated(message) for message in messages]

    def _gpu_message(self, gpu: GpuIdentity, tray: TrayPlace, time_ms: int) -> InventoryMessage:
        fabric = self._fabric.get(gpu.uuid) or gpu.fabric
        return gpu_message(gpu, tray, fabric=fabric, driver=self._driver, source=self._source, time_ms=time_ms)

    # Events

    def _take_happened(self) -> list[DeviceEvent]:
        happened = []
        with suppress(Empty):
            while True:
                happened.append(self._happened.get_nowait())
        return happened

    def _addresses(self) -> dict[PciAddress, GpuIdentity]:
        found = ((parse_pci_address(gpu.pci_bus_id), gpu) for gpu in self._gpus.values())
        return {address: gpu for address, gpu in found if address is not None}

    def _see_line(self, line: XidLine, addresses: Mapping[PciAddress, GpuIdentity]) -> None:
        """A line about a GPU that nobody knows is the tray's: it is not lost."""
        gpu = addresses.get(line.address)
        self._gpu_events.see_xid(
            gpu.resource if gpu else self.tray().resource,
            line.number,
            line.time_ms,
            witness=KERNEL,
            detail=line.detail,
            attributes={"pci_bus_id": gpu.pci_bus_id if gpu else str(line.address)},
        )

    def _see_event(self, event: DeviceEvent) -> None:
        gpu = self._gpus.get(event.uuid)
        resource = resource_id(ResourceKind.GPU, event.uuid) if event.uuid else self.tray().resource
        facts = {
            "pci_bus_id": gpu.pci_bus_id if gpu else "",
            "gpu_instance": "" if event.gpu_instance is None else str(event.gpu_instance),
            "compute_instance": "" if event.compute_instance is None else str(event.compute_instance),
        }
        attributes = {name: fact for name, fact in facts.items() if fact}
        code = min(event.data, _MOST_CODE)
        if event.type == XID:
            self._gpu_events.see_xid(resource, code, event.time_ms, witness=NVML, attributes=attributes)
            return
        kind = EVENT_KINDS.get(event.type, EventKind("gpu_event", XidClass.TICKET, f"NVML event {event.type:#x}"))
        if event.type == RECOVERY_ACTION:
            self._health_slot = None  # what the driver now asks for is in the health of the next tick
        self._gpu_events.see(
            Occurrence(
                resource,
                event.time_ms,
                kind.name,
                code,
                kind.text,
                witness=NVML,
                attributes={"class": str(kind.event_class), **attributes},
            )
        )
