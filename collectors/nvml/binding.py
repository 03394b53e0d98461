"""What the readers of NVML share: its errors in our words, its values, and what need not be asked again for a while.

nvidia-ml-py has no types: its module, its handles and its structures are Any in these modules, and nowhere further.
"""

import math
import struct
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from ctypes import create_string_buffer
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

from collectors.source import SourceUnavailableError

REPROBE_S = 600  # what a GPU does not support changes with its driver or its MIG mode, hence rarely

Nvml = Any
Handle = Any
Raw = int | float
FieldKey = tuple[int, int]  # NVML field id and scope
T = TypeVar("T")


class GoneError(Exception):
    """The GPU fell off the bus or waits for a reset; the message is NVML's."""


class LibraryDownError(Exception):
    """NVML itself does not work any more: the driver was unloaded or replaced."""


class UnsupportedError(Exception):
    """This GPU does not have it."""


class RefusedError(Exception):
    """This GPU has it, the agent may not read it."""


class FailedError(Exception):
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
        dict.fromkeys(unsupported, UnsupportedError)
        | dict.fromkeys(gone, GoneError)
        | dict.fromkeys(down, LibraryDownError)
        | {nvml.NVML_ERROR_NO_PERMISSION: RefusedError}
    )


def is_blank(raw: Raw) -> bool:
    """Whether a driver or DCGM filled in "nothing" instead of a value.

    All ones in 32 or 64 bits; the sixteen highest signed 32-bit and 64-bit integers and everything above them
    (dcgm_fields.h, DCGM_INT32_BLANK, DCGM_INT64_BLANK); doubles from 2^47 up (DCGM_FP64_BLANK) and NaN.
    """
    if -0x7FFF_FFF0 < raw < 0x7FFF_FFF0:  # as good as always
        return False
    if isinstance(raw, float):
        return math.isnan(raw) or abs(raw) >= 140737488355328.0
    return raw >= 0x7FFF_FFFF_FFFF_FFF0 or raw == 0xFFFF_FFFF or 0x7FFF_FFF0 <= raw <= 0x7FFF_FFFF


# Values --------------------------------------------------------------------------------------------------------------

# nvml.h, nvmlFieldValue_t: field, scope, timestamp_us, latency_us, value type, return code, union.
# Unpacked in one go: attribute access to nvidia-ml-py's structures costs a Python call each.
FIELD_VALUE = struct.Struct("<IIqqIi8s")
FieldValue = tuple[int, int, int, int, int, int, bytes]
FIELD_VALUES = "nvmlDeviceGetFieldValues"
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
_UNSIGNED_INT, _SIGNED_INT = 1, 5


def value_of(value_type: int, union: bytes, *, signed: bool = False) -> Raw | None:
    """A field's value by its type, None for a type of a later NVML: its bytes say nothing to us.

    `signed` is for the fields that are negative by nature, whichever type the driver gives them.
    """
    if signed and value_type == _UNSIGNED_INT:
        value_type = _SIGNED_INT
    if value_type >= len(_MEMBERS):
        return None
    value: Raw = _MEMBERS[value_type].unpack_from(union)[0]
    return value


@dataclass(slots=True)
class Answers:
    """What a GPU answered in one tick: values in base units, and whether that is all that it supports."""

    values: dict[str, float] = field(default_factory=dict)
    complete: bool = True

    def take(self, name: str, raw: Raw | None, scale: float = 1.0) -> None:
        """A value as NVML gave it; one that stands for nothing is missing."""
        if raw is None or is_blank(raw):
            self.complete = False
        else:
            self.values[name] = raw * scale


@dataclass(frozen=True, slots=True)
class Call:
    """One NVML call and what it gives: `ask` returns raw values, `scale` brings them into the base unit."""

    name: str
    ask: Callable[[Nvml, Handle], Mapping[str, Raw]]
    scale: float = 1.0


# Questions -----------------------------------------------------------------------------------------------------------


class Questions:
    """NVML calls about one GPU, and what is not worth asking before the next probe.

    Names are of calls, or of metrics where one call serves many.
    """

    def __init__(self, nvml: Nvml) -> None:
        self.nvml = nvml
        self._errors = _errors_of(nvml)
        self._not_asked: dict[Hashable, type[Exception]] = {}  # by name, UnsupportedError or RefusedError
        self._probe_again_at_s = 0

    @property
    def some_refused(self) -> bool:
        return RefusedError in self._not_asked.values()

    def probe(self, time_s: int) -> None:
        """Forget from time to time what could not be asked."""
        if time_s >= self._probe_again_at_s:
            self._not_asked.clear()
            self._probe_again_at_s = time_s + REPROBE_S

    def forget(self) -> None:
        """Probe at the next occasion: the GPU may be another one."""
        self._probe_again_at_s = 0

    def is_worth(self, name: Hashable) -> bool:
        return name not in self._not_asked

    def worth(self, names: Mapping[T, Hashable]) -> tuple[T, ...]:
        """The keys of the names that are worth asking for."""
        return tuple([key for key, name in names.items() if name not in self._not_asked])

    def why_not(self, names: Collection[Hashable]) -> str:
        """Why nothing of that name is asked, empty when it is."""
        reasons = {self._not_asked[name] for name in names if name in self._not_asked}
        if UnsupportedError in reasons:
            return "not supported"
        return "no permission" if reasons else ""

    def lacks(self, name: Hashable) -> bool:
        return self._not_asked.get(name) is UnsupportedError

    def ask(self, call: Callable[..., T], *arguments: object) -> T:
        """One NVML call, with its error in our words."""
        try:
            return call(*arguments)
        except self.nvml.NVMLError as error:
            raise self.error(error.value) from error

    def error(self, code: int) -> Exception:
        return self._errors.get(code, FailedError)(str(self.nvml.NVMLError(code)))

    def answer(self, answers: Answers, calls: Iterable[Call], handle: Handle) -> None:
        """Make the calls that are worth it; a GPU that is gone is the caller's business."""
        for call in calls:
            if self.is_worth(call.name):
                try:
                    found = call.ask(self.nvml, handle)
                except self.nvml.NVMLError as error:
                    self.note(answers, call.name, self.error(error.value))
                else:
                    for name, raw in found.items():
                        answers.take(name, raw, call.scale)

    def field_values(self, handle: Handle, asked: tuple[FieldKey, ...]) -> Iterator[FieldValue]:
        """What NVML says to each field, in one call.

        Not by nvidia-ml-py's function, which writes down what is asked anew each time, member by member.
        """
        answers = create_string_buffer(_unanswered(asked), len(asked) * FIELD_VALUE.size)
        code = self.ask(library_function, self.nvml, FIELD_VALUES)(handle, len(asked), answers)
        if code:
            raise self.error(code)
        return FIELD_VALUE.iter_unpack(answers)

    def attempt(self, answers: Answers, name: Hashable, read: Callable[[], None]) -> None:
        """Read something that may be missing; a GPU that is gone is the caller's business."""
        if not self.is_worth(name):
            return
        try:
            read()
        except (UnsupportedError, RefusedError, FailedError) as error:
            self.note(answers, name, error)

    def note(self, answers: Answers, name: Hashable, error: Exception) -> None:
        if isinstance(error, (UnsupportedError, RefusedError)):
            self._not_asked[name] = type(error)
        elif isinstance(error, FailedError):
            answers.complete = False
        else:
            raise error


@lru_cache(maxsize=32)  # the GPUs of a node are asked for the same: it is kept once, not for each of them
def _unanswered(asked: tuple[FieldKey, ...]) -> bytes:
    """An array of nvmlFieldValue_t that says what is asked."""
    return b"".join(FIELD_VALUE.pack(*key, 0, 0, 0, 0, b"") for key in asked)


# Library -------------------------------------------------------------------------------------------------------------


def load_nvml(node: str) -> Nvml:
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


def library_function(nvml: Nvml, name: str) -> Nvml:
    """A function of the library itself, which returns a code: for where nvidia-ml-py's own does more than is wanted."""
    try:
        return getattr(nvml.nvmlLib, name)
    except AttributeError as error:
        raise nvml.NVMLError(nvml.NVML_ERROR_FUNCTION_NOT_FOUND) from error


def driver_version(nvml: Nvml) -> str:
    try:
        return str(nvml.nvmlSystemGetDriverVersion())
    except (nvml.NVMLError, UnicodeDecodeError):
        return ""
