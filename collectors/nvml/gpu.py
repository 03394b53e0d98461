"""The fast readings and the identity of one GPU: field ids come from the catalogue, the rest is a list of calls."""

import struct
from collections.abc import Callable, Hashable, Iterable, Mapping
from ctypes import byref, c_uint
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache, lru_cache, partial
from time import perf_counter
from typing import TypeVar

from catalogue import GPU, Kind, Metric, ResourceKind, resource_id, units
from catalogue.gpu import MEBIBYTE, MEGAHERTZ, PERCENT
from catalogue.origins import GpmMetric, NvmlCall, NvmlField
from collectors.counters import CounterRule
from collectors.nvml.binding import (
    FIELD_VALUES,
    Answers,
    Call,
    FailedError,
    FieldKey,
    GoneError,
    Handle,
    LibraryDownError,
    Nvml,
    Questions,
    Raw,
    RefusedError,
    UnsupportedError,
    is_blank,
    library_function,
    value_of,
)
from collectors.nvml.events import EventWatch
from collectors.nvml.health import FabricPlace, HealthReader, HealthSample

ENERGY_CEILING_W = 10_000  # several times what any GPU draws: a faster counter is a fault, not energy
NANOSECONDS_PER_S = 1_000_000_000  # clocks cannot be held down for longer than time passes

MILLI = 1 / 1000
MICROSECOND_S = 1e-6
NANOSECOND = Fraction(1, NANOSECONDS_PER_S)

# In which part of the base unit NVML gives fields and GPM metrics (nvml.h); calls are scaled where they are listed.
FIELD_SCALES = {units.WATTS: MILLI, units.CELSIUS: 1.0}
GPM_SCALES = {units.RATIO: float(PERCENT), units.BYTES_PER_SECOND: float(MEBIBYTE)}

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
COUNTERS: dict[str, CounterRule] = {
    metric.name: CounterRule.of(metric, Fraction(1, 1000), ceiling_per_s=ENERGY_CEILING_W * 1000)
    if metric.name == ENERGY
    else CounterRule.of(metric, NANOSECOND, ceiling_per_s=NANOSECONDS_PER_S)
    for metric in GPU.of_kind(Kind.DELTA)
}
_SCALES: dict[str, float] = {
    name: FIELD_SCALES[GPU.metric(name).unit] for name in FIELDS.values() if name not in COUNTERS
} | {name: GPM_SCALES[GPU.metric(name).unit] for name in GPM_METRICS.values()}

T = TypeVar("T")

PROCESSES = "nvmlDeviceGetComputeRunningProcesses_v3"
GPM = "nvmlGpmMetricsGet"  # the name of what is asked in one call for many metrics


def _memory(nvml: Nvml, handle: Handle) -> Mapping[str, Raw]:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    return {
        "memory_used_bytes": memory.used,
        "memory_reserved_bytes": memory.reserved,
        "memory_size_bytes": memory.total,
    }


def _utilization(nvml: Nvml, handle: Handle) -> Mapping[str, Raw]:
    rates = nvml.nvmlDeviceGetUtilizationRates(handle)
    return {"utilization_ratio": rates.gpu, "memory_copy_utilization_ratio": rates.memory}


def _performance_state(nvml: Nvml, handle: Handle) -> Mapping[str, Raw]:
    state = nvml.nvmlDeviceGetPerformanceState(handle)
    return {} if state == nvml.NVML_PSTATE_UNKNOWN else {"performance_state": state}


def _processes(nvml: Nvml, handle: Handle) -> Mapping[str, Raw]:
    """Their number alone: without room for the processes NVML says how many there are (nvml.h)."""
    count = c_uint()
    code = library_function(nvml, PROCESSES)(handle, byref(count), None)
    if code not in (nvml.NVML_SUCCESS, nvml.NVML_ERROR_INSUFFICIENT_SIZE):
        raise nvml.NVMLError(code)
    return {"process_count": count.value}


# Where a GPU has no field for the average: the call's value is an average too, from Ampere on.
FALLBACK_METRIC = "power_average_watts"
FALLBACK_CALL = Call(
    "nvmlDeviceGetPowerUsage",
    lambda nvml, handle: {FALLBACK_METRIC: nvml.nvmlDeviceGetPowerUsage(handle)},
    MILLI,
)
CALLS = (
    Call(
        "nvmlDeviceGetTotalEnergyConsumption",
        lambda nvml, handle: {ENERGY: nvml.nvmlDeviceGetTotalEnergyConsumption(handle)},
    ),
    Call(
        "nvmlDeviceGetEnforcedPowerLimit",
        lambda nvml, handle: {"power_limit_watts": nvml.nvmlDeviceGetEnforcedPowerLimit(handle)},
        MILLI,
    ),
    Call(
        "nvmlDeviceGetTemperatureV",
        lambda nvml, handle: {"temperature_celsius": nvml.nvmlDeviceGetTemperatureV(handle, nvml.NVML_TEMPERATURE_GPU)},
    ),
    Call(
        "nvmlDeviceGetMarginTemperature",
        lambda nvml, handle: {"temperature_margin_kelvin": nvml.nvmlDeviceGetMarginTemperature(handle)},
    ),
    Call(
        "nvmlDeviceGetClockInfo",
        lambda nvml, handle: {
            "sm_clock_hertz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
            "memory_clock_hertz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
            "graphics_clock_hertz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_GRAPHICS),
        },
        float(MEGAHERTZ),
    ),
    Call("nvmlDeviceGetUtilizationRates", _utilization, float(PERCENT)),
    Call(
        "nvmlDeviceGetEncoderUtilization",
        lambda nvml, handle: {"encoder_utilization_ratio": nvml.nvmlDeviceGetEncoderUtilization(handle)[0]},
        float(PERCENT),
    ),
    Call(
        "nvmlDeviceGetDecoderUtilization",
        lambda nvml, handle: {"decoder_utilization_ratio": nvml.nvmlDeviceGetDecoderUtilization(handle)[0]},
        float(PERCENT),
    ),
    Call("nvmlDeviceGetMemoryInfo_v2", _memory),
    Call(
        "nvmlDeviceGetCurrentClocksEventReasons",
        lambda nvml, handle: {"clock_event_reasons": nvml.nvmlDeviceGetCurrentClocksEventReasons(handle)},
    ),
    Call("nvmlDeviceGetPerformanceState", _performance_state),
    Call(PROCESSES, _processes),
)


# Structures ----------------------------------------------------------------------------------------------------------

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

    def forget(self) -> None:
        """Let the next read have no earlier sample: a mean over more than one interval is no reading of a tick."""
        self._has_earlier = False

    def read(self, handle: Handle, metrics: tuple[int, ...]) -> Iterable[tuple[int, int, float]]:
        """Id, return code and raw value of each metric since the previous read; nothing at the first."""
        had_earlier, self._has_earlier = self._has_earlier, False
        self._nvml.nvmlGpmSampleGet(handle, self._samples[1])
        self._samples.reverse()
        self._has_earlier = True
        if not had_earlier:
            return ()
        request = self._nvml.c_nvmlGpmMetricsGet_t.from_buffer_copy(_gpm_request(self._nvml, metrics))
        request.sample2, request.sample1 = self._samples
        self._nvml.nvmlGpmMetricsGet(request)
        answer = memoryview(request).cast("B")
        return _GPM_METRIC.iter_unpack(answer[_GPM_HEAD_BYTES : _GPM_HEAD_BYTES + _GPM_METRIC.size * len(metrics)])

    def free(self) -> None:
        for sample in self._samples:
            self._nvml.nvmlGpmSampleFree(sample)


@lru_cache(maxsize=8)  # 19 kB, the same for all GPUs of a node
def _gpm_request(nvml: Nvml, metrics: tuple[int, ...]) -> bytes:
    """An nvmlGpmMetricsGet_t that asks for the metrics, still without samples."""
    request = nvml.c_nvmlGpmMetricsGet_t()
    request.version, request.numMetrics = nvml.NVML_GPM_METRICS_GET_VERSION, len(metrics)
    for slot, metric in enumerate(metrics):
        request.metrics[slot].metricId = metric
    return bytes(request)


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
    fabric: FabricPlace | None = None

    @property
    def resource(self) -> int:
        return _resource_of(self.uuid)


@cache
def _resource_of(uuid: str) -> int:
    return resource_id(ResourceKind.GPU, uuid)


@dataclass(slots=True)
class Sample(Answers):
    """What one GPU answered in one tick: values in base units, counters as they stand."""

    gpu: GpuIdentity = field(kw_only=True)
    counters: dict[str, int] = field(default_factory=dict)
    read_s: float = 0.0  # that the whole read took
    fields_s: float = 0.0  # that the driver says the field values took

    def take(self, name: str, raw: Raw | None, scale: float = 1.0) -> None:
        """A value as NVML gave it: a gauge, or how a counter stands."""
        if raw is None or is_blank(raw):
            self.complete = False
        elif name in COUNTERS:
            self.counters[name] = int(raw)
        else:
            self.values[name] = raw * scale


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a GPU could not be read; `cause` where the reason is a fault of ours."""

    reason: str
    cause: Exception | None = None
    gone: bool = False
    nvml_down: bool = False


class GpuReader:
    """Reads one GPU. Used by one thread at a time; every method may block as long as the GPU does."""

    def __init__(self, nvml: Nvml, index: int) -> None:
        self._nvml = nvml
        self._index = index
        self._questions = Questions(nvml)
        self._health = HealthReader(nvml)
        self._handle: Handle = None
        self._gpu: GpuIdentity | None = None
        self._gpm: _Gpm | None = None
        self._watch: EventWatch | None = None
        self._starts_over = False

    def identify(self) -> GpuIdentity | Failure:
        """What this GPU is; asked once, and again after `start_over`."""
        return self._outcome(self._identity)

    def read(self, time_s: int, *, follows: bool, watch: EventWatch | None = None) -> Sample | Failure:
        """The GPU's fast values; `follows` says that the tick before this one was read too.

        Events of the GPU are told to `watch` from now on.
        """
        return self._outcome(lambda: self._sample(time_s, follows=follows, watch=watch))

    def read_health(self, time_s: int) -> HealthSample | Failure:
        """The GPU's slow values."""
        return self._outcome(lambda: self._health.read(self._handle_of_gpu(), time_s))

    def why_absent(self, metric: Metric) -> str:
        """Why a metric of this GPU is not asked, empty when it is."""
        names: set[Hashable] = {metric.name}
        for origin in metric.origins:
            if isinstance(origin, NvmlField):
                names |= {origin.id, FIELD_VALUES}
            elif isinstance(origin, NvmlCall):
                names.add(origin.function)
            elif isinstance(origin, GpmMetric):
                names.add(GPM)
        return self._questions.why_not(names) or self._health.why_not(names)

    def start_over(self) -> None:
        """From the next question on, ask for handle and identity again: the GPU at this index may be another one.

        Any thread may say so, also while a call is under way.
        """
        self._starts_over = True

    def _forget(self) -> None:
        self._starts_over = False
        self._handle = self._gpu = self._watch = None
        self._questions.forget()
        self._health.forget()
        self.free()

    def free(self) -> None:
        """Give back what NVML lent; a later read borrows it again."""
        if self._gpm is not None:
            self._gpm.free()
            self._gpm = None

    def _outcome(self, attempt: Callable[[], T]) -> T | Failure:
        try:
            if self._starts_over:
                self._forget()
            return attempt()
        except GoneError as error:
            return Failure(str(error), gone=True)
        except LibraryDownError as error:
            return Failure(str(error), nvml_down=True)
        except (UnsupportedError, RefusedError, FailedError, UnicodeDecodeError) as error:
            return Failure(f"no identity: {error}")
        except Exception as error:  # a GPU whose answer breaks the reader must not look like one that hangs
            return Failure(f"its answer could not be understood: {error!r}", error)

    def _handle_of_gpu(self) -> Handle:
        self._identity()
        return self._handle

    def _identity(self) -> GpuIdentity:
        if self._gpu is None:
            nvml, ask = self._nvml, self._questions.ask
            handle = ask(nvml.nvmlDeviceGetHandleByIndex, self._index)
            self._gpu = GpuIdentity(
                uuid=ask(nvml.nvmlDeviceGetUUID, handle),
                index=self._index,
                model=self._fact(nvml.nvmlDeviceGetName, handle, ""),
                serial=self._fact(nvml.nvmlDeviceGetSerial, handle, ""),
                pci_bus_id=self._fact(lambda gpu: nvml.nvmlDeviceGetPciInfo(gpu).busId, handle, ""),
                mig=self._fact(lambda gpu: nvml.nvmlDeviceGetMigMode(gpu)[0] == 1, handle, None),
                place=self._fact(self._place_of, handle, None),
                fabric=self._fact(self._health.fabric_place, handle, None),
            )
            self._handle = handle
        return self._gpu

    def _fact(self, call: Callable[[Handle], T], handle: object, otherwise: T) -> T:
        """A fact that a GPU may not have, or that may be garbage: the GPU is read all the same."""
        try:
            return self._questions.ask(call, handle)
        except (UnsupportedError, RefusedError, FailedError, UnicodeDecodeError):
            return otherwise

    def _place_of(self, handle: object) -> GpuPlace | None:
        info = self._nvml.c_nvmlPlatformInfo_v2_t()
        self._nvml.nvmlDeviceGetPlatformInfo(handle, byref(info))
        chassis, slot, tray, host, _, module = _PLATFORM.unpack_from(info)
        serial = chassis.partition(b"\0")[0].decode("ascii").strip()
        # nvml.h: a serial number of 0 means that the platform does not tell.
        return GpuPlace(serial, slot, tray, host, module) if serial.strip("0") else None

    def _sample(self, time_s: int, *, follows: bool, watch: EventWatch | None) -> Sample | Failure:
        started_s = perf_counter()
        sample = Sample(gpu=self._identity())
        self._tell_events_to(watch, sample.gpu)
        questions = self._questions
        questions.probe(time_s)
        self._read_fields(sample)
        questions.answer(sample, CALLS, self._handle)
        if questions.lacks(FALLBACK_METRIC):
            questions.answer(sample, (FALLBACK_CALL,), self._handle)
        questions.attempt(sample, GPM, partial(self._read_gpm, sample, follows=follows))
        if questions.some_refused:
            sample.complete = False
        sample.read_s = perf_counter() - started_s
        return sample if sample.values or sample.counters else Failure("nothing could be read")

    def _tell_events_to(self, watch: EventWatch | None, gpu: GpuIdentity) -> None:
        if watch is None or watch is self._watch:
            return
        self._watch = watch
        self._fact(lambda handle: watch.register(handle, uuid=gpu.uuid), self._handle, None)

    def _read_fields(self, sample: Sample) -> None:
        asked = self._questions.worth(FIELDS)
        if asked:
            self._questions.attempt(sample, FIELD_VALUES, lambda: self._read_field_values(sample, asked))

    def _read_field_values(self, sample: Sample, asked: tuple[FieldKey, ...]) -> None:
        questions = self._questions
        for number, scope, _, latency_us, value_type, code, union in questions.field_values(self._handle, asked):
            name = FIELDS[number, scope]
            sample.fields_s += latency_us * MICROSECOND_S
            if code:
                questions.note(sample, name, questions.error(code))
            else:
                sample.take(name, value_of(value_type, union), _SCALES.get(name, 1.0))

    def _read_gpm(self, sample: Sample, *, follows: bool) -> None:
        questions = self._questions
        if self._gpm is None:
            if not questions.ask(self._nvml.nvmlGpmQueryDeviceSupport, self._handle).isSupportedDevice:
                raise UnsupportedError("the GPU has no performance monitor")
            self._gpm = questions.ask(_Gpm, self._nvml)
        elif not follows:
            self._gpm.forget()
        for number, code, raw in questions.ask(self._gpm.read, self._handle, questions.worth(GPM_METRICS)):
            name = GPM_METRICS[number]
            if code:
                questions.note(sample, name, questions.error(code))
            else:
                sample.take(name, raw, _SCALES[name])
