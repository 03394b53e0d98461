"""The GPUs of this node through NVML (nvidia-ml-py), one row per GPU and tick.

Every GPU is read on a thread of its own, because a call to a sick GPU can block for minutes: the others are read in
the meantime, and the sick one is dark until its call comes back. Field ids come from the catalogue; the rest is the
short list of calls below.

What was counted while a GPU was dark is not lost: its counters run on in the device, and the first delta after the
dark interval covers it.
"""

import logging
import math
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from ctypes import byref
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from msgspec.structs import replace

from catalogue import GPU, Kind, ResourceKind, resource_id, units
from catalogue.gpu import GPU_STATES, MEBIBYTE, MEGAHERTZ, PERCENT
from catalogue.origins import GpmMetric, NvmlField
from collectors.counters import CounterRule, Counters, CounterStore
from collectors.host import TrayPlace, boot_id, this_machine, tray_message
from collectors.source import Reading, SourceUnavailableError
from stream.messages import EventMessage, InventoryMessage, JobMessage
from stream.rows import Rows, pack

DEADLINE_S = 0.8  # leaves a fifth of the shortest interval to everything else
RETRY_S = 60  # a lost GPU comes back by a reset, which takes minutes
REPROBE_S = 600  # what a GPU does not support changes with its driver or its MIG mode, hence rarely
REOPEN_S = 600  # NVML sees a replaced GPU only when it starts anew, which costs all GPUs one tick of GPM readings
CLOSE_S = 0.2  # an idle worker ends at once; one that is stuck is left to the process's end

ENERGY_CEILING_W = 10_000  # several times what any GPU draws: a faster counter is a fault, not energy
NANOSECONDS_PER_S = 1_000_000_000  # clocks cannot be held down for longer than time passes

READABLE, PARTLY_READABLE, DARK = (state for state, _ in GPU_STATES)

MILLI = 1 / 1000
NANOSECOND = Fraction(1, NANOSECONDS_PER_S)

# In which part of the base unit NVML gives fields and GPM metrics (nvml.h); calls are scaled where they are listed.
FIELD_SCALES = {units.WATTS: MILLI, units.CELSIUS: 1.0}
GPM_SCALES = {units.RATIO: float(PERCENT), units.BYTES_PER_SECOND: float(MEBIBYTE)}

FieldKey = tuple[int, int]  # NVML field id and scope
FIELDS: dict[FieldKey, str] = {
    (origin.id, origin.scope): metric.name
    for metric in GPU.metrics
    for origin in metric.origins
    if isinstance(origin, NvmlField)
}
GPM_METRICS: dict[int, str] = {
    origin.id: metric.name for metric in GPU.metrics for origin in metric.origins if isinstance(origin, GpmMetric)
}
ENERGY = "energy_joules"
GPU_STATE = "gpu_state"
COUNTERS: dict[str, CounterRule] = {
    metric.name: CounterRule.of(metric, Fraction(1, 1000), ceiling_per_s=ENERGY_CEILING_W * 1000)
    if metric.name == ENERGY
    else CounterRule.of(metric, NANOSECOND, ceiling_per_s=NANOSECONDS_PER_S)
    for metric in GPU.of_kind(Kind.DELTA)
}
_SCALES: dict[str, float] = {
    name: FIELD_SCALES[GPU.metric(name).unit] for name in FIELDS.values() if name not in COUNTERS
} | {name: GPM_SCALES[GPU.metric(name).unit] for name in GPM_METRICS.values()}

_log = logging.getLogger(__name__)

# nvidia-ml-py has no types: its module, its handles and its structures are Any here, and nowhere further.
Nvml = Any
Raw = int | float
T = TypeVar("T")

# Names of what is asked in one call for many metrics.
FIELD_VALUES = "nvmlDeviceGetFieldValues"
GPM = "nvmlGpmMetricsGet"

SILENT = "its call has not returned"
STILL_LOST = "it is lost and not tried again yet"
VANISHED = "NVML does not count it any more"


class _GoneError(Exception):
    """The GPU fell off the bus or waits for a reset; the message is NVML's."""


class _LibraryDownError(Exception):
    """NVML itself does not work any more: the driver was unloaded or replaced."""


class _UnsupportedError(Exception):
    """This GPU does not have it."""


class _RefusedError(Exception):
    """This GPU has it, the agent may not read it."""


class _FailedError(Exception):
    """This time it could not be read."""


def _errors_of(nvml: Nvml) -> dict[int, type[Exception]]:
    """What each NVML return code means for us; a code that is not listed means "this time"."""
    unsupported = (
        nvml.NVML_ERROR_NOT_SUPPORTED,
        nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        nvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
        nvml.NVML_ERROR_INVALID_ARGUMENT,  # an older driver's answer to a field or scope that it does not know
        nvml.NVML_ERROR_DEPRECATED,
    )
    gone = (nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_RESET_REQUIRED, nvml.NVML_ERROR_GPU_NOT_FOUND)
    down = (
        nvml.NVML_ERROR_UNINITIALIZED,
        nvml.NVML_ERROR_DRIVER_NOT_LOADED,
        nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    )
    return (
        dict.fromkeys(unsupported, _UnsupportedError)
        | dict.fromkeys(gone, _GoneError)
        | dict.fromkeys(down, _LibraryDownError)
        | {nvml.NVML_ERROR_NO_PERMISSION: _RefusedError}
    )


def is_blank(raw: Raw) -> bool:
    """Whether a driver or DCGM filled in "nothing" instead of a value.

    All ones in 32 or 64 bits; the sixteen highest signed 32-bit and 64-bit integers and everything above them
    (dcgm_fields.h, DCGM_INT32_BLANK, DCGM_INT64_BLANK); doubles from 2^47 up (DCGM_FP64_BLANK) and NaN.
    """
    if isinstance(raw, float):
        return math.isnan(raw) or abs(raw) >= 140737488355328.0
    return raw >= 0x7FFF_FFFF_FFFF_FFF0 or raw == 0xFFFF_FFFF or 0x7FFF_FFF0 <= raw <= 0x7FFF_FFFF


# Calls ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Call:
    """One NVML call and what it gives: `ask` returns raw values, `scale` brings them into the base unit."""

    name: str
    ask: Callable[[Nvml, Any], Mapping[str, Raw]]
    scale: float = 1.0


def _memory(nvml: Nvml, handle: Any) -> Mapping[str, Raw]:  # noqa: ANN401 - NVML's handle
    memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    return {
        "memory_used_bytes": memory.used,
        "memory_reserved_bytes": memory.reserved,
        "memory_size_bytes": memory.total,
    }


def _utilization(nvml: Nvml, handle: Any) -> Mapping[str, Raw]:  # noqa: ANN401
    rates = nvml.nvmlDeviceGetUtilizationRates(handle)
    return {"utilization_ratio": rates.gpu, "memory_copy_utilization_ratio": rates.memory}


def _performance_state(nvml: Nvml, handle: Any) -> Mapping[str, Raw]:  # noqa: ANN401
    state = nvml.nvmlDeviceGetPerformanceState(handle)
    return {} if state == nvml.NVML_PSTATE_UNKNOWN else {"performance_state": state}


# Where a GPU has no field for the average: the call's value is an average too, from Ampere on.
FALLBACK_METRIC = "power_average_watts"
FALLBACK_CALL = _Call(
    "nvmlDeviceGetPowerUsage",
    lambda nvml, handle: {FALLBACK_METRIC: nvml.nvmlDeviceGetPowerUsage(handle)},
    MILLI,
)
CALLS = (
    _Call(
        "nvmlDeviceGetTotalEnergyConsumption",
        lambda nvml, handle: {ENERGY: nvml.nvmlDeviceGetTotalEnergyConsumption(handle)},
    ),
    _Call(
        "nvmlDeviceGetEnforcedPowerLimit",
        lambda nvml, handle: {"power_limit_watts": nvml.nvmlDeviceGetEnforcedPowerLimit(handle)},
        MILLI,
    ),
    _Call(
        "nvmlDeviceGetTemperatureV",
        lambda nvml, handle: {"temperature_celsius": nvml.nvmlDeviceGetTemperatureV(handle, nvml.NVML_TEMPERATURE_GPU)},
    ),
    _Call(
        "nvmlDeviceGetMarginTemperature",
        lambda nvml, handle: {"temperature_margin_kelvin": nvml.nvmlDeviceGetMarginTemperature(handle)},
    ),
    _Call(
        "nvmlDeviceGetClockInfo",
        lambda nvml, handle: {
            "sm_clock_hertz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
            "memory_clock_hertz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
            "graphics_clock_hertz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_GRAPHICS),
        },
        float(MEGAHERTZ),
    ),
    _Call("nvmlDeviceGetUtilizationRates", _utilization, float(PERCENT)),
    _Call(
        "nvmlDeviceGetEncoderUtilization",
        lambda nvml, handle: {"encoder_utilization_ratio": nvml.nvmlDeviceGetEncoderUtilization(handle)[0]},
        float(PERCENT),
    ),
    _Call(
        "nvmlDeviceGetDecoderUtilization",
        lambda nvml, handle: {"decoder_utilization_ratio": nvml.nvmlDeviceGetDecoderUtilization(handle)[0]},
        float(PERCENT),
    ),
    _Call("nvmlDeviceGetMemoryInfo_v2", _memory),
    _Call(
        "nvmlDeviceGetCurrentClocksEventReasons",
        lambda nvml, handle: {"clock_event_reasons": nvml.nvmlDeviceGetCurrentClocksEventReasons(handle)},
    ),
    _Call("nvmlDeviceGetPerformanceState", _performance_state),
    _Call(
        "nvmlDeviceGetComputeRunningProcesses_v3",
        lambda nvml, handle: {"process_count": len(nvml.nvmlDeviceGetComputeRunningProcesses_v3(handle))},
    ),
)


# Structures ----------------------------------------------------------------------------------------------------------

# nvml.h, nvmlFieldValue_t: field, scope, timestamp_us, latency_us, value type, return code, union.
# Unpacked in one go: attribute access to nvidia-ml-py's structures costs a Python call each.
_FIELD_VALUE = struct.Struct("<IIqqIi8s")
# nvml.h, nvmlValue_t by nvmlValueType_t.
_MEMBERS = (
    struct.Struct("<d"),
    struct.Struct("<I"),
    struct.Struct("<Q"),
    struct.Struct("<Q"),
    struct.Struct("<q"),
    struct.Struct("<i"),
    struct.Struct("<H"),
)
# nvml.h, nvmlGpmMetricsGet_t: version, count, two sample pointers; then metrics of id, return code, value, 3 pointers.
_GPM_HEAD_BYTES = 24
_GPM_METRIC = struct.Struct("<Iid24x")
# nvml.h, nvmlPlatformInfo_v2_t. The small numbers are unsigned bytes, which nvidia-ml-py would decode as text.
_PLATFORM = struct.Struct("<4x16x16sBBBBB")


class _Gpm:
    """A GPU's performance monitor: values come from the difference of two samples."""

    def __init__(self, nvml: Nvml) -> None:
        self._nvml = nvml
        self._samples = [nvml.nvmlGpmSampleAlloc(), nvml.nvmlGpmSampleAlloc()]
        self._has_earlier = False
        self._request = nvml.c_nvmlGpmMetricsGet_t()
        self._request.version = nvml.NVML_GPM_METRICS_GET_VERSION
        self._asked: tuple[int, ...] = ()

    def forget(self) -> None:
        """Let the next read have no earlier sample: a mean over more than one interval is no reading of a tick."""
        self._has_earlier = False

    def read(self, handle: Any, metrics: Sequence[int]) -> Iterable[tuple[int, int, float]]:  # noqa: ANN401
        """Id, return code and raw value of each metric since the previous read; nothing at the first."""
        had_earlier, self._has_earlier = self._has_earlier, False
        self._nvml.nvmlGpmSampleGet(handle, self._samples[1])
        self._samples.reverse()
        self._has_earlier = True
        if not had_earlier:
            return ()
        self._prepare(tuple(metrics))
        self._nvml.nvmlGpmMetricsGet(self._request)
        answer = memoryview(self._request).cast("B")
        return _GPM_METRIC.iter_unpack(answer[_GPM_HEAD_BYTES : _GPM_HEAD_BYTES + _GPM_METRIC.size * len(metrics)])

    def _prepare(self, metrics: tuple[int, ...]) -> None:
        if metrics != self._asked:
            self._request.numMetrics = len(metrics)
            for slot, metric in enumerate(metrics):
                self._request.metrics[slot].metricId = metric
            self._asked = metrics
        self._request.sample2, self._request.sample1 = self._samples

    def free(self) -> None:
        for sample in self._samples:
            self._nvml.nvmlGpmSampleFree(sample)


# One GPU -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GpuPlace:
    """Where a GPU sits: the chassis is the rack on rack-scale systems, the slot holds the tray."""

    chassis_serial: str
    slot: int
    tray_index: int
    host: int
    module: int


@dataclass(frozen=True, slots=True)
class GpuIdentity:
    """What a GPU is and where it sits; empty and None where NVML does not tell.

    With MIG the identity is the parent's, as is everything that is read: energy and power exist once per board.
    """

    uuid: str
    index: int
    model: str = ""
    serial: str = ""
    pci_bus_id: str = ""
    mig: bool | None = None
    place: GpuPlace | None = None


@dataclass(slots=True)
class _Sample:
    """What one GPU answered in one tick: values in base units, counters as they stand."""

    gpu: GpuIdentity
    values: dict[str, float] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    complete: bool = True  # everything that this GPU supports could be read


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a GPU could not be read; `cause` where the reason is a fault of ours."""

    reason: str
    cause: Exception | None = None
    gone: bool = False
    library_down: bool = False


class _GpuReader:
    """Reads one GPU. Used by one thread at a time; every method may block as long as the GPU does."""

    def __init__(self, nvml: Nvml, index: int) -> None:
        self._nvml = nvml
        self._index = index
        self._errors = _errors_of(nvml)
        self._handle: Any = None
        self._gpu: GpuIdentity | None = None
        self._gpm: _Gpm | None = None
        # By call, or by metric where one call serves many: what not to ask again before the next probe.
        self._unsupported: set[str] = set()
        self._refused: set[str] = set()
        self._probe_again_at_s = 0

    def identify(self) -> GpuIdentity | _Failure:
        """What this GPU is; asked once, and again after `forget`."""
        return self._outcome(self._identity)

    def read(self, time_s: int, *, follows: bool) -> _Sample | _Failure:
        """The GPU's values; `follows` says that the tick before this one was read too."""
        return self._outcome(lambda: self._sample(time_s, follows=follows))

    def forget(self) -> None:
        """Ask for handle and identity again: the GPU at this index may be another one."""
        self._handle = self._gpu = None
        self._probe_again_at_s = 0
        self.free()

    def free(self) -> None:
        """Give back what NVML lent; a later read borrows it again."""
        if self._gpm is not None:
            self._gpm.free()
            self._gpm = None

    def _outcome(self, attempt: Callable[[], T]) -> T | _Failure:
        try:
            return attempt()
        except _GoneError as error:
            return _Failure(str(error), gone=True)
        except _LibraryDownError as error:
            return _Failure(str(error), library_down=True)
        except (_UnsupportedError, _RefusedError, _FailedError, UnicodeDecodeError) as error:
            return _Failure(f"no identity: {error}")

    def _ask(self, call: Callable[..., T], *arguments: object) -> T:
        """One NVML call, with its error in our words."""
        try:
            return call(*arguments)
        except self._nvml.NVMLError as error:
            raise self._error(error.value) from error

    def _error(self, code: int) -> Exception:
        return self._errors.get(code, _FailedError)(str(self._nvml.NVMLError(code)))

    def _identity(self) -> GpuIdentity:
        if self._gpu is None:
            nvml = self._nvml
            handle = self._ask(nvml.nvmlDeviceGetHandleByIndex, self._index)
            self._gpu = GpuIdentity(
                uuid=self._ask(nvml.nvmlDeviceGetUUID, handle),
                index=self._index,
                model=self._fact(nvml.nvmlDeviceGetName, handle, ""),
                serial=self._fact(nvml.nvmlDeviceGetSerial, handle, ""),
                pci_bus_id=self._fact(lambda gpu: nvml.nvmlDeviceGetPciInfo(gpu).busId, handle, ""),
                mig=self._fact(lambda gpu: nvml.nvmlDeviceGetMigMode(gpu)[0] == 1, handle, None),
                place=self._fact(self._place_of, handle, None),
            )
            self._handle = handle
        return self._gpu

    def _fact(self, call: Callable[[Any], T], handle: object, otherwise: T) -> T:
        """A fact that a GPU may not have, or that may be garbage: the GPU is read all the same."""
        try:
            return self._ask(call, handle)
        except (_UnsupportedError, _RefusedError, _FailedError, UnicodeDecodeError):
            return otherwise

    def _place_of(self, handle: object) -> GpuPlace | None:
        info = self._nvml.c_nvmlPlatformInfo_v2_t()
        self._nvml.nvmlDeviceGetPlatformInfo(handle, byref(info))
        chassis, slot, tray, host, _, module = _PLATFORM.unpack_from(info)
        serial = chassis.partition(b"\0")[0].decode("ascii").strip()
        # nvml.h: a serial number of 0 means that the platform does not tell.
        return GpuPlace(serial, slot, tray, host, module) if serial.strip("0") else None

    def _sample(self, time_s: int, *, follows: bool) -> _Sample | _Failure:
        sample = _Sample(self._identity())
        if time_s >= self._probe_again_at_s:
            self._unsupported.clear()
            self._refused.clear()
            self._probe_again_at_s = time_s + REPROBE_S
        self._read_fields(sample)
        for call in CALLS:
            self._attempt(sample, call.name, partial(self._read_call, sample, call))
        if FALLBACK_METRIC in self._unsupported:
            self._attempt(sample, FALLBACK_CALL.name, partial(self._read_call, sample, FALLBACK_CALL))
        self._attempt(sample, GPM, partial(self._read_gpm, sample, follows=follows))
        if self._refused:
            sample.complete = False
        return sample if sample.values or sample.counters else _Failure("nothing could be read")

    def _attempt(self, sample: _Sample, name: str, read: Callable[[], None]) -> None:
        """Read something that may be missing; a GPU that is gone is the caller's business."""
        if name in self._unsupported or name in self._refused:
            return
        try:
            read()
        except (_UnsupportedError, _RefusedError, _FailedError) as error:
            self._remember(sample, name, error)

    def _remember(self, sample: _Sample, name: str, error: Exception) -> None:
        if isinstance(error, _UnsupportedError):
            self._unsupported.add(name)
        elif isinstance(error, _RefusedError):
            self._refused.add(name)
        elif isinstance(error, _FailedError):
            sample.complete = False
        else:
            raise error

    def _read_call(self, sample: _Sample, call: _Call) -> None:
        for name, raw in self._ask(call.ask, self._nvml, self._handle).items():
            _take(sample, name, raw, call.scale)

    def _read_fields(self, sample: _Sample) -> None:
        asked = [key for key, name in FIELDS.items() if name not in self._unsupported and name not in self._refused]
        if asked:
            self._attempt(sample, FIELD_VALUES, lambda: self._read_field_values(sample, asked))

    def _read_field_values(self, sample: _Sample, asked: Sequence[FieldKey]) -> None:
        answer = self._ask(self._nvml.nvmlDeviceGetFieldValues, self._handle, asked)
        for number, scope, _, _, value_type, code, union in _FIELD_VALUE.iter_unpack(memoryview(answer).cast("B")):
            name = FIELDS[number, scope]
            if code:
                self._remember(sample, name, self._error(code))
            elif value_type < len(_MEMBERS):
                _take(sample, name, _MEMBERS[value_type].unpack_from(union)[0], _SCALES.get(name, 1.0))
            else:  # a type of a later NVML: its bytes say nothing to us
                sample.complete = False

    def _read_gpm(self, sample: _Sample, *, follows: bool) -> None:
        if self._gpm is None:
            if not self._ask(self._nvml.nvmlGpmQueryDeviceSupport, self._handle).isSupportedDevice:
                raise _UnsupportedError("the GPU has no performance monitor")
            self._gpm = self._ask(_Gpm, self._nvml)
        elif not follows:
            self._gpm.forget()
        asked = [number for number, name in GPM_METRICS.items() if name not in self._unsupported | self._refused]
        for number, code, raw in self._ask(self._gpm.read, self._handle, asked):
            name = GPM_METRICS[number]
            if code:
                self._remember(sample, name, self._error(code))
            else:
                _take(sample, name, raw, _SCALES[name])


def _take(sample: _Sample, name: str, raw: Raw, scale: float) -> None:
    if is_blank(raw):
        sample.complete = False
    elif name in COUNTERS:
        sample.counters[name] = int(raw)
    else:
        sample.values[name] = raw * scale


_Outcome = GpuIdentity | _Sample | _Failure


class _Worker:
    """The thread on which one GPU is asked. Daemonic: a call that never returns must not keep the agent from ending.

    Everything but `_run` belongs to the source's thread. While `busy`, the reader belongs to the worker's.
    """

    def __init__(self, reader: _GpuReader, index: int, answers: "SimpleQueue[tuple[_Worker, _Outcome]]") -> None:
        self.reader = reader
        self.index = index
        self.busy = False
        self.follows = False  # the tick before was read
        self.anew = False  # the GPU at this index may be another one
        self.asleep_until_s = 0
        self.gpu: GpuIdentity | None = None
        self._answers = answers
        self._tasks: SimpleQueue[Callable[[], _Outcome] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"nvml-gpu-{index}", daemon=True)
        self._thread.start()

    def ask(self, task: Callable[[], _Outcome]) -> None:
        self.busy = True
        self._tasks.put(partial(self._start_over, task) if self.anew else task)
        self.anew = False

    def end(self) -> None:
        """Let the thread end, after its present call if there is one."""
        self._tasks.put(None)
        self._thread.join(0.0 if self.busy else CLOSE_S)

    def _start_over(self, task: Callable[[], _Outcome]) -> _Outcome:
        self.reader.forget()
        return task()

    def _run(self) -> None:
        for task in iter(self._tasks.get, None):
            try:
                outcome = task()
            except Exception as error:  # a GPU whose answer breaks the reader must not look like one that hangs
                outcome = _Failure(f"its answer could not be understood: {error!r}", error)
            self._answers.put((self, outcome))


# The node ------------------------------------------------------------------------------------------------------------


class NvmlSource:
    """The GPUs of this node as rows of table `gpu`, ordered by index.

    A GPU that does not answer within `deadline_s`, or is lost, is dark in that tick: its row says so and nothing else.
    One that has been seen since the start keeps its row, dark, when it vanishes. `retry_s` is how often a lost GPU is
    tried again. `counters` keeps energy and throttle counters across restarts of the agent; without it the first tick
    has no deltas.
    """

    def __init__(
        self,
        *,
        source: int | None = None,
        machine: TrayPlace | None = None,
        counters: CounterStore | None = None,
        deadline_s: float = DEADLINE_S,
        retry_s: int = RETRY_S,
        booted: Callable[[], str] = boot_id,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._machine = machine or this_machine()
        self._source = source or resource_id(ResourceKind.AGENT, f"{self._machine.identity}/{self.name}")
        self._counters = Counters(counters)
        self._deadline_s = deadline_s
        self._retry_s = retry_s
        self._booted = booted
        self._clock = clock
        self._nvml: Nvml = None
        self._driver = ""
        self._reopen_at_s = 0
        self._down = False
        self._workers: list[_Worker] = []
        self._strays: list[_Worker] = []  # stuck in a call to a GPU that is not counted any more
        self._answers: SimpleQueue[tuple[_Worker, _Outcome]] = SimpleQueue()
        self._gpus: dict[str, GpuIdentity] = {}  # by UUID, every GPU seen since the start
        self._dark: dict[str, _Failure] = {}  # by UUID, or by index before it is known
        self._answering: int | None = None
        self._published: dict[int, InventoryMessage] = {}

    @property
    def name(self) -> str:
        return "nvml"

    def answering(self) -> int | None:
        """How many GPUs answered in the last tick; None where there is no NVML."""
        return self._answering

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
                for gpu in self._round(lambda worker: worker.reader.identify, self._workers).values():
                    if isinstance(gpu, GpuIdentity):
                        self._gpus[gpu.uuid] = gpu
        return self._messages() if self._gpus else ()

    def read(self, time_s: int) -> Sequence[Reading]:
        try:
            samples = self._samples(time_s)
        except SourceUnavailableError:
            self._answering = None
            raise
        self._answering = len(samples)
        return (Reading(self._source, GPU, self._rows(samples, time_s)),)

    def events(self) -> Sequence[EventMessage | JobMessage]:
        return ()

    def close(self) -> None:
        """Let go of the GPUs. A call that hangs is left behind: NVML then stays open until the process ends."""
        self._drain()
        for worker in self._workers:
            worker.end()
        self._shut()
        self._workers = []
        self._nvml = None

    # Library

    def _open(self, time_s: int) -> None:
        """Have NVML running and a worker for each GPU that it counts; SourceUnavailableError when it does not run."""
        self._drain()
        lost = any(worker.asleep_until_s for worker in self._workers) or len(self._gpus) > len(self._workers)
        if self._nvml is None or self._down or (lost and self._idle() and time_s >= self._reopen_at_s):
            self._start(time_s)
        try:
            count = self._nvml.nvmlDeviceGetCount()
        except self._nvml.NVMLError as error:
            self._down = True
            raise SourceUnavailableError(f"NVML on {self._machine.name} does not count its GPUs: {error}") from error
        if count != len(self._workers):
            self._staff(count)

    def _start(self, time_s: int) -> None:
        if self._nvml is not None:
            self._shut()
        self._nvml = _load(self._machine.name)
        self._driver = _driver_version(self._nvml)
        self._down = False
        self._reopen_at_s = time_s + REOPEN_S
        for worker in self._workers:
            worker.anew = True

    def _shut(self) -> None:
        if self._nvml is None or not self._idle():
            return
        for worker in self._workers:
            worker.reader.free()
        with suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()

    def _idle(self) -> bool:
        """Whether no call is under way: NVML must not be shut down below one."""
        return not any(worker.busy for worker in (*self._workers, *self._strays))

    def _staff(self, count: int) -> None:
        """One worker for each of `count` GPUs; who sits at which index has to be asked again."""
        for worker in self._workers[count:]:
            worker.end()
        self._strays = [worker for worker in (*self._strays, *self._workers[count:]) if worker.busy]
        del self._workers[count:]
        for worker in self._workers:
            worker.anew = True
        for index in range(len(self._workers), count):
            self._workers.append(_Worker(_GpuReader(self._nvml, index), index, self._answers))

    # One round

    def _drain(self) -> None:
        """Take in the answers that came too late: their workers are free again, their values are of another tick."""
        with suppress(Empty):
            while True:
                worker, _ = self._answers.get_nowait()
                worker.busy = False

    def _round(
        self, task_of: Callable[[_Worker], Callable[[], _Outcome]], workers: Sequence[_Worker]
    ) -> dict[_Worker, _Outcome]:
        """What each worker that is free answered before the deadline."""
        awaited = {worker for worker in workers if not worker.busy}
        until = time.monotonic() + self._deadline_s
        for worker in awaited:
            worker.ask(task_of(worker))
        outcomes: dict[_Worker, _Outcome] = {}
        with suppress(Empty):
            while len(outcomes) < len(awaited):
                worker, outcome = self._answers.get(timeout=max(until - time.monotonic(), 0.0))
                worker.busy = False
                if worker in awaited:
                    outcomes[worker] = outcome
        return outcomes

    def _samples(self, time_s: int) -> dict[str, _Sample]:
        self._open(time_s)
        awake = [worker for worker in self._workers if time_s >= worker.asleep_until_s]
        outcomes = self._round(lambda worker: partial(worker.reader.read, time_s, follows=worker.follows), awake)
        samples = self._settle(outcomes, time_s)
        if not self._gpus:
            raise SourceUnavailableError(self._why_none())
        return samples

    def _settle(self, outcomes: Mapping[_Worker, _Outcome], time_s: int) -> dict[str, _Sample]:
        """The samples by UUID; lost GPUs are put to sleep, and who is dark is noted with the reason."""
        samples = {}
        dark = {}
        for worker in self._workers:
            outcome = outcomes.get(worker, _Failure(STILL_LOST if worker.asleep_until_s > time_s else SILENT))
            worker.follows = isinstance(outcome, _Sample)
            if isinstance(outcome, _Sample):
                worker.gpu = outcome.gpu
                worker.asleep_until_s = 0
                self._gpus[outcome.gpu.uuid] = outcome.gpu
                samples[outcome.gpu.uuid] = outcome
            elif isinstance(outcome, _Failure):
                self._heed(worker, outcome, time_s)
                dark[worker.gpu.uuid if worker.gpu else f"index {worker.index}"] = outcome
        self._note({uuid: _Failure(VANISHED) for uuid in self._gpus if uuid not in samples} | dark)
        return samples

    def _heed(self, worker: _Worker, failure: _Failure, time_s: int) -> None:
        self._down = self._down or failure.library_down
        if failure.gone:
            worker.asleep_until_s = time_s + self._retry_s
            worker.anew = True

    def _note(self, dark: dict[str, _Failure]) -> None:
        """Log who became dark, and who no longer is."""
        for gpu in dark.keys() - self._dark.keys():
            failure = dark[gpu]
            _log.warning("A GPU is dark", extra={"gpu": gpu, "reason": failure.reason}, exc_info=failure.cause)
        for gpu in self._dark.keys() - dark.keys():
            _log.info("A GPU is readable again", extra={"gpu": gpu})
        self._dark = dark

    def _why_none(self) -> str:
        if not self._workers:
            return (
                f"NVML on {self._machine.name} finds no GPU: check the driver's kernel log, or take the source nvml "
                "out of the agent's settings"
            )
        reasons = "; ".join(sorted({failure.reason for failure in self._dark.values()}))
        return f"none of the {len(self._workers)} GPUs of {self._machine.name} can be identified ({reasons})"

    # Rows and messages

    def _in_order(self) -> list[GpuIdentity]:
        # A vanished GPU keeps its index, which another one may have taken over since.
        return sorted(self._gpus.values(), key=lambda gpu: (gpu.index, gpu.uuid))

    def _rows(self, samples: Mapping[str, _Sample], time_s: int) -> Rows:
        gpus = self._in_order()
        readings = [self._values(samples.get(gpu.uuid), time_s) for gpu in gpus]
        self._counters.keep()
        names = set().union(*readings)
        columns = {name: [reading.get(name, math.nan) for reading in readings] for name in names}
        return pack(GPU, [resource_id(ResourceKind.GPU, gpu.uuid) for gpu in gpus], time_s, columns)

    def _values(self, sample: _Sample | None, time_s: int) -> dict[str, float]:
        """One GPU's row in base units: gauges as read, counters as what was added since they were last read."""
        if sample is None:
            return {GPU_STATE: DARK}
        values = {**sample.values, GPU_STATE: READABLE if sample.complete else PARTLY_READABLE}
        epoch = f"{self._booted()} {self._driver}"
        for name, raw in sample.counters.items():
            delta = self._counters.delta(f"{sample.gpu.uuid}/{name}", COUNTERS[name], raw, time_s=time_s, epoch=epoch)
            if delta is not None:
                values[name] = delta
        return values

    def _messages(self) -> Sequence[InventoryMessage]:
        tray = self.tray()
        now_ms = int(self._clock() * 1000)
        messages = [_rack_message(tray, source=self._source, time_ms=now_ms)] if tray.rack else []
        messages.append(tray_message(tray, source=self._source, time_ms=now_ms))
        messages.extend(self._gpu_message(gpu, tray, now_ms) for gpu in self._in_order())
        return [self._since(message) for message in messages]

    def _gpu_message(self, gpu: GpuIdentity, tray: TrayPlace, time_ms: int) -> InventoryMessage:
        facts = {
            "index": str(gpu.index),
            "model": gpu.model,
            "serial": gpu.serial,
            "pci_bus_id": gpu.pci_bus_id,
            "driver_version": self._driver,
            "mig": "" if gpu.mig is None else ("enabled" if gpu.mig else "disabled"),
            "module": str(gpu.place.module) if gpu.place else "",
        }
        return InventoryMessage(
            resource=resource_id(ResourceKind.GPU, gpu.uuid),
            kind=ResourceKind.GPU,
            identity=gpu.uuid,
            name=f"{tray.name} GPU {gpu.index}",
            valid_from_ms=time_ms,
            parent=tray.resource,
            source=self._source,
            attributes={name: fact for name, fact in facts.items() if fact},
        )

    def _since(self, message: InventoryMessage) -> InventoryMessage:
        """The message with the time since when it has said the same."""
        before = self._published.get(message.resource)
        if before is not None and replace(message, valid_from_ms=before.valid_from_ms) == before:
            return before
        self._published[message.resource] = message
        return message


def _rack_message(tray: TrayPlace, *, source: int, time_ms: int) -> InventoryMessage:
    return InventoryMessage(
        resource=tray.parent,
        kind=ResourceKind.RACK,
        identity=tray.rack,
        name=tray.rack,
        valid_from_ms=time_ms,
        source=source,
        attributes={"chassis_serial": tray.rack},
    )


def _load(node: str) -> Nvml:
    """NVML, started. SourceUnavailableError says what is missing on `node`, and what to do."""
    try:
        import pynvml as nvml  # type: ignore[import-untyped]  # nvidia-ml-py ships no types
    except ImportError as error:
        raise SourceUnavailableError(f"nvidia-ml-py is not installed on {node}: install kvandal[agent]") from error
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        advice = {
            nvml.NVML_ERROR_LIBRARY_NOT_FOUND: "install the NVIDIA driver or give the container its library "
            "libnvidia-ml.so.1; on a node without GPUs take the source nvml out of the agent's settings",
            nvml.NVML_ERROR_DRIVER_NOT_LOADED: "load the driver (modprobe nvidia) and see its kernel log",
            nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "the driver was updated but not reloaded: reload it or reboot",
            nvml.NVML_ERROR_NO_PERMISSION: "let the agent's user open /dev/nvidiactl",
        }.get(error.value, "see the driver's kernel log")
        raise SourceUnavailableError(f"NVML does not start on {node} ({error}): {advice}") from error
    return nvml


def _driver_version(nvml: Nvml) -> str:
    try:
        return str(nvml.nvmlSystemGetDriverVersion())
    except (nvml.NVMLError, UnicodeDecodeError):
        return ""
