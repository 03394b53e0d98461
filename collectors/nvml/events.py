"""What GPUs report by themselves: XIDs and other events of NVML's event set, waited for on a thread of its own."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from ctypes import c_void_p, cast
from dataclasses import dataclass
from queue import SimpleQueue

from catalogue.xid import XidClass
from collectors.nvml.binding import Handle, Nvml

WAIT_MS = 500  # how long a stop waits for the thread at most; every wait that ends costs the node some processor
XID = 0x8  # nvml.h, nvmlEventTypeXidCriticalError
RECOVERY_ACTION = 0x8000
NO_INSTANCE = 0xFFFFFFFF  # nvml.h: the event is of the whole GPU

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EventKind:
    """A kind of event other than an XID."""

    name: str
    event_class: XidClass
    text: str


# nvml.h, nvmlEventType*. Clocks, performance states and power sources change all day long and are in the readings.
EVENT_KINDS: Mapping[int, EventKind] = {
    0x100: EventKind("mig_changed", XidClass.INFO, "Configuration of instances changed"),
    0x200: EventKind("ecc_storm", XidClass.TICKET, "Storm of corrected memory errors"),
    0x400: EventKind("memory_retirement", XidClass.TICKET, "Memory retired"),
    0x800: EventKind("memory_retirement_failed", XidClass.PAGE, "Memory could not be retired"),
    0x1000: EventKind("poison", XidClass.TICKET, "Poisoned memory, not fatal"),
    0x2000: EventKind("poison_fatal", XidClass.PAGE, "Poisoned memory, fatal"),
    0x4000: EventKind("gpu_unavailable", XidClass.PAGE, "GPU unavailable"),
    RECOVERY_ACTION: EventKind("recovery_action", XidClass.PAGE, "Recovery action changed"),
}
_WANTED = XID | sum(EVENT_KINDS)


@dataclass(frozen=True, slots=True)
class DeviceEvent:
    """An event as NVML told it; `uuid` is empty for a device that nobody registered."""

    uuid: str
    type: int
    data: int
    time_ms: int
    gpu_instance: int | None = None
    compute_instance: int | None = None


class EventWatch:
    """One event set of NVML. Its thread puts events into `found` until stopped, or until NVML fails.

    A failure ends this watch, not the next one: when a GPU is lost NVML refuses to wait for any of the set.
    """

    def __init__(
        self, nvml: Nvml, found: "SimpleQueue[DeviceEvent]", *, clock: Callable[[], float] = time.time
    ) -> None:
        self._nvml = nvml
        self._found = found
        self._clock = clock
        self._set = nvml.nvmlEventSetCreate()
        self._uuids: dict[int | None, str] = {}
        self._registering = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.failed = False

    @property
    def is_waiting(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def register(self, handle: Handle, *, uuid: str) -> None:
        """Watch a GPU; NVML's errors are the caller's. May block as long as the GPU does."""
        types = self._nvml.nvmlDeviceGetSupportedEventTypes(handle) & _WANTED
        if not types:
            return
        self._uuids[cast(handle, c_void_p).value] = uuid
        self._nvml.nvmlDeviceRegisterEvents(handle, types, self._set)
        with self._registering:
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._run, name="nvml-events", daemon=True)
                self._thread.start()

    def stop(self, *, free: bool) -> None:
        """Wait no more. With `free`, NVML gets the set back, unless its wait does not return."""
        with self._registering:
            self._stop.set()
        if self._thread is not None:
            self._thread.join(2 * WAIT_MS / 1000)
        if free and not self.is_waiting:
            with suppress(self._nvml.NVMLError):
                self._nvml.nvmlEventSetFree(self._set)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                data = self._nvml.nvmlEventSetWait_v2(self._set, WAIT_MS)
            except self._nvml.NVMLError as error:
                if error.value != self._nvml.NVML_ERROR_TIMEOUT:
                    _log.info("NVML does not wait for events any more", extra={"reason": str(error)})
                    self.failed = True
                    return
            else:
                self._found.put(self._event(data))

    def _event(self, data: Nvml) -> DeviceEvent:
        return DeviceEvent(
            uuid=self._uuids.get(cast(data.device, c_void_p).value, ""),
            type=data.eventType,
            data=data.eventData,
            time_ms=round(self._clock() * 1000),
            gpu_instance=_instance(data.gpuInstanceId),
            compute_instance=_instance(data.computeInstanceId),
        )


def _instance(number: int) -> int | None:
    return None if number == NO_INSTANCE else number
