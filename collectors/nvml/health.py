"""The slow readings of one GPU: memory errors, links, fabric.

Fields are asked for in three calls that are kept apart: those of the memory, those of the NVLinks, and the rest. On
GB200, watching memory errors together with NVLink counters makes all of them unreadable (NVIDIA/DCGM issue 265).

NVLink fields are read link by link and added up here, so that one link without an answer hides no other.
"""

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from ctypes import byref
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from uuid import UUID

from catalogue import GPU_HEALTH, Kind, units
from catalogue.gpu import PERCENT
from catalogue.gpu_health import (
    FABRIC_COMPLAINTS,
    REPAIRS,
)
from catalogue.origins import NvmlField
from collectors.counters import CounterRule
from collectors.nvml.binding import (
    Answers,
    Call,
    FailedError,
    FieldKey,
    Handle,
    Nvml,
    Questions,
    Raw,
    RefusedError,
    UnsupportedError,
    is_blank,
    value_of,
)

FIELDS: Mapping[int, str] = {
    origin.id: metric.name
    for metric in GPU_HEALTH.metrics
    for origin in metric.origins
    if isinstance(origin, NvmlField)
}
LINK_COUNT = 91  # nvml.h, NVML_FI_DEV_NVLINK_LINK_COUNT
LINK_STATE = 165  # NVML_FI_DEV_NVLINK_GET_STATE
USUAL_LINKS = 18  # of Hopper and Blackwell, for a driver that does not count them
MOST_LINKS = 36  # NVML_NVLINK_MAX_LINKS
LINKS_UP = (1, 2)  # active, asleep
LINKS_DOWN = (0, 3)  # inactive, active without traffic

_DELTAS = {metric.name for metric in GPU_HEALTH.of_kind(Kind.DELTA)}
_RATIOS = {metric.name for metric in GPU_HEALTH.metrics if metric.unit is units.RATIO}
LINK_COUNTERS = {number: name for number, name in FIELDS.items() if name.startswith("nvlink_") and name in _DELTAS}
BIT_ERRORS = {number: name for number, name in FIELDS.items() if name.startswith("nvlink_") and name in _RATIOS}
LINK_FIELDS = (LINK_STATE, *LINK_COUNTERS, *BIT_ERRORS)
MEMORY_FIELDS = tuple(number for number, name in FIELDS.items() if name.startswith(("ecc_", "remap")))
DEVICE_FIELDS = tuple(number for number in FIELDS if number not in (*LINK_FIELDS, *MEMORY_FIELDS))
# Offsets below a limit are negative, and some drivers give them an unsigned type.
MARGINS = {number for number, name in FIELDS.items() if name.endswith("_margin_kelvin")}
_SCALES = {"power_smoothing_life_ratio": float(PERCENT)}
COUNTERS: Mapping[str, CounterRule] = {
    metric.name: CounterRule.of(metric, Fraction(1)) for metric in GPU_HEALTH.of_kind(Kind.DELTA)
}

FABRIC = "nvmlDeviceGetGpuFabricInfoV"


def bit_error_ratio(raw: int) -> float:
    """NVML's packed ratio: mantissa in bits 8 to 11, negative decimal exponent in bits 0 to 7 (nvml.h, ..._BER_*).

    15e-255 is what a link says that has seen no error; it is as good as 0, and stored as that.
    """
    return float((raw >> 8 & 0xF) * Fraction(1, 10 ** (raw & 0xFF)))


# Calls ---------------------------------------------------------------------------------------------------------------


def _static_memory(nvml: Nvml, handle: Handle) -> Mapping[str, Raw]:
    status = nvml.c_nvmlEccSramErrorStatus_v1_t()
    nvml.nvmlDeviceGetSramEccErrorStatus(handle, byref(status))
    return {"sram_threshold_exceeded_state": status.bThresholdExceeded}


def _spare_rows(nvml: Nvml, handle: Handle) -> Mapping[str, Raw]:
    banks = nvml.nvmlDeviceGetRowRemapperHistogram(handle)
    return {
        "remap_banks_full_count": banks.max,
        "remap_banks_low_count": banks.low,
        "remap_banks_exhausted_count": banks.none,
    }


def _repairs(nvml: Nvml, handle: Handle) -> Mapping[str, Raw]:
    pending: Sequence[Raw] = nvml.nvmlDeviceGetRepairStatus(handle)
    blank = next(filter(is_blank, pending), None)
    mask = sum(bit for (bit, _), flag in zip(REPAIRS, pending, strict=True) if flag)
    return {"repair_pending_reasons": mask if blank is None else blank}


CALLS = (
    Call("nvmlDeviceGetSramEccErrorStatus", _static_memory),
    Call("nvmlDeviceGetRowRemapperHistogram", _spare_rows),
    Call("nvmlDeviceGetRepairStatus", _repairs),
    Call(
        "nvmlDeviceGetUnrepairableMemoryFlag_v1",
        lambda nvml, handle: {"memory_unrepairable_state": nvml.nvmlDeviceGetUnrepairableMemoryFlag_v1(handle)},
    ),
    Call(
        "nvmlDeviceGetCurrPcieLinkGeneration",
        lambda nvml, handle: {"pcie_generation_count": nvml.nvmlDeviceGetCurrPcieLinkGeneration(handle)},
    ),
    Call(
        "nvmlDeviceGetCurrPcieLinkWidth",
        lambda nvml, handle: {"pcie_lanes_count": nvml.nvmlDeviceGetCurrPcieLinkWidth(handle)},
    ),
    Call("nvmlDeviceGetMigMode", lambda nvml, handle: {"mig_state": nvml.nvmlDeviceGetMigMode(handle)[0]}),
)


# Fabric --------------------------------------------------------------------------------------------------------------

# nvml.h, NVML_GPU_FABRIC_STATE_* and ..._SUMMARY_*, as ours.
_STATES = {3: 1, 2: 2, 1: 3}
_SUMMARIES = {1: 1, 3: 2, 2: 3}
_COMPLETED = 3
# nvml.h, NVML_GPU_FABRIC_HEALTH_MASK_*: for each of our complaints where its two bits are, and what they then hold.
_COMPLAINTS = {0x01: (0, 1), 0x02: (2, 1), 0x04: (4, 1), 0x08: (6, 1), 0x20: (12, 2), 0x40: (14, 2)}
_CONFIGURATION_SHIFT, _CONFIGURATION_MASK, _CORRECT = 8, 0xF, 1
_MISCONFIGURED = next(bit for bit, name in FABRIC_COMPLAINTS if name == "incorrect configuration")


@dataclass(frozen=True, slots=True)
class FabricPlace:
    """The NVLink domain that a GPU belongs to: cluster, and the clique within which it reaches others."""

    cluster: str
    clique: int


def _place_of(info: Nvml) -> FabricPlace | None:
    if info.state != _COMPLETED or info.status or is_blank(info.cliqueId):
        return None
    cluster = UUID(bytes=bytes(info.clusterUuid))
    return FabricPlace(str(cluster) if cluster.int else "", info.cliqueId)


def fabric_health(mask: int) -> dict[str, float]:
    """NVML's mask as our complaints; nothing where the fabric does not tell."""
    if not mask or is_blank(mask):
        return {}
    reasons = sum(bit for bit, (shift, complaint) in _COMPLAINTS.items() if mask >> shift & 0x3 == complaint)
    configuration = mask >> _CONFIGURATION_SHIFT & _CONFIGURATION_MASK
    if configuration > _CORRECT:
        reasons |= _MISCONFIGURED
    known = {"fabric_configuration_state": float(configuration)} if configuration else {}
    return {"fabric_health_reasons": float(reasons), **known}


# One GPU -------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class HealthSample(Answers):
    """What one GPU answered: values in base units, and counters as they stand, each by its link or 0."""

    counters: dict[tuple[str, int], int] = field(default_factory=dict)
    fabric: FabricPlace | None = None


class HealthReader:
    """Reads the health of one GPU. Used by one thread at a time; `read` may block as long as the GPU does."""

    def __init__(self, nvml: Nvml) -> None:
        self._nvml = nvml
        self._questions = Questions(nvml)
        # An older nvidia-ml-py does not have every call: what it lacks is as good as unsupported.
        self._calls = [call for call in CALLS if hasattr(nvml, call.name)]

    def forget(self) -> None:
        self._questions.forget()

    def why_not(self, names: Collection[Hashable]) -> str:
        """Why nothing of that name is asked, empty when it is."""
        return self._questions.why_not(names)

    def fabric_place(self, handle: Handle) -> FabricPlace | None:
        """Where the GPU is in the fabric; None while it has not registered."""
        return _place_of(self._fabric_info(handle))

    def read(self, handle: Handle, time_s: int) -> HealthSample:
        questions = self._questions
        questions.probe(time_s)
        sample = HealthSample()
        for fields in (DEVICE_FIELDS, MEMORY_FIELDS):
            self._read_fields(handle, sample, fields)
        self._read_links(handle, sample)
        questions.answer(sample, self._calls, handle)
        questions.attempt(sample, FABRIC, partial(self._read_fabric, handle, sample))
        if questions.some_refused:
            sample.complete = False
        return sample

    def _answers(
        self, handle: Handle, sample: HealthSample, asked: tuple[FieldKey, ...]
    ) -> Iterator[tuple[int, int, Raw | Exception | None]]:
        """Field, scope and value of each, in one call; an error where NVML has one."""
        try:
            answer = self._questions.field_values(handle, asked)
        except (UnsupportedError, RefusedError, FailedError):
            sample.complete = False
            return
        for number, scope, _, _, value_type, code, union in answer:
            value = self._questions.error(code) if code else value_of(value_type, union, signed=number in MARGINS)
            yield number, scope, value

    def _read_fields(self, handle: Handle, sample: HealthSample, fields: Sequence[int]) -> None:
        asked = tuple((number, 0) for number in fields if self._questions.is_worth(number))
        for number, _, value in self._answers(handle, sample, asked) if asked else ():
            name = FIELDS[number]
            if isinstance(value, Exception):
                self._questions.note(sample, number, value)
            elif name in COUNTERS:
                _count(sample, name, 0, value)
            else:
                sample.take(name, value, _SCALES.get(name, 1.0))

    # Links

    def _read_links(self, handle: Handle, sample: HealthSample) -> None:
        links = round(sample.values.get(FIELDS[LINK_COUNT], USUAL_LINKS))
        fields = [number for number in LINK_FIELDS if self._questions.is_worth(number)]
        asked = tuple((number, link) for link in range(min(links, MOST_LINKS)) for number in fields)
        if not asked:
            return
        errors: defaultdict[int, list[Exception]] = defaultdict(list)
        states: list[Raw | None] = []
        for number, link, value in self._answers(handle, sample, asked):
            if isinstance(value, Exception):
                errors[number].append(value)
            elif number == LINK_STATE:
                states.append(value)
            elif number in LINK_COUNTERS:
                _count(sample, LINK_COUNTERS[number], link, value)
            else:
                _worsen(sample, BIT_ERRORS[number], value)
        _count_links(sample, states)
        for number, found in errors.items():
            self._note_links(sample, number, found, all_links=len(found) * len(fields) == len(asked))

    def _note_links(self, sample: HealthSample, number: int, errors: Sequence[Exception], *, all_links: bool) -> None:
        """What no link has is not asked again; what a single one does not have may come back with it."""
        for error in errors:
            if all_links or not isinstance(error, (UnsupportedError, RefusedError)):
                self._questions.note(sample, number, error)
            elif isinstance(error, RefusedError):
                sample.complete = False

    # Fabric

    def _read_fabric(self, handle: Handle, sample: HealthSample) -> None:
        info = self._fabric_info(handle)
        if not info.state:
            raise UnsupportedError("the GPU has no fabric")
        if info.state not in _STATES:
            raise FailedError(f"the fabric is in state {info.state}")
        sample.values["fabric_state"] = _STATES[info.state]
        sample.values |= fabric_health(info.healthMask)
        summary = _SUMMARIES.get(getattr(info, "healthSummary", 0))
        if summary is not None:
            sample.values["fabric_summary_state"] = summary
        if info.state == _COMPLETED:  # the outcome is of a registration that is over
            sample.values["fabric_status_state"] = info.status
        sample.fabric = _place_of(info)
        if sample.fabric is not None:
            sample.values["fabric_clique_state"] = sample.fabric.clique

    def _fabric_info(self, handle: Handle) -> Nvml:
        try:
            return self._fabric_info_of(handle, self._nvml.c_nvmlGpuFabricInfo_v3_t())
        except (AttributeError, UnsupportedError):  # an older nvidia-ml-py, an older driver
            return self._fabric_info_of(handle, self._nvml.c_nvmlGpuFabricInfo_v2_t())

    def _fabric_info_of(self, handle: Handle, info: Nvml) -> Nvml:
        self._questions.ask(self._nvml.nvmlDeviceGetGpuFabricInfoV, handle, byref(info))
        return info


def _count_links(sample: HealthSample, states: Sequence[Raw | None]) -> None:
    """How many links are up and down; one in neither state is counted as neither."""
    active = sum(state in LINKS_UP for state in states)
    inactive = sum(state in LINKS_DOWN for state in states)
    if active + inactive:
        sample.values |= {"nvlink_active_count": active, "nvlink_inactive_count": inactive}
    if active + inactive < len(states):
        sample.complete = False


def _count(sample: HealthSample, name: str, link: int, raw: Raw | None) -> None:
    if raw is None or is_blank(raw):
        sample.complete = False
    else:
        sample.counters[name, link] = int(raw)


def _worsen(sample: HealthSample, name: str, raw: Raw | None) -> None:
    """The worst link stands for all: a mean would hide it."""
    if raw is None or is_blank(raw):
        sample.complete = False
    else:
        sample.values[name] = max(bit_error_ratio(int(raw)), sample.values.get(name, 0.0))
