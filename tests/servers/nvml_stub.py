"""The NVML stub as a test server: compiled from tests/servers/nvml/stub.c, found by nvidia-ml-py as the real library.

In this process the stub is loaded by its path before nvidia-ml-py asks for `libnvidia-ml.so.1`: the dynamic linker
then answers with the library of that soname that is already there. A subprocess finds it by `environment`. The control
file is shared memory: what a test sets holds for the stub's very next call.
"""

import ctypes
import hashlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from mmap import mmap
from pathlib import Path

SOURCE = Path(__file__).resolve().parent / "nvml" / "stub.c"
CACHE = SOURCE.parents[3] / ".cache" / "nvml-stub"
SONAME = "libnvidia-ml.so.1"
CONTROL_VARIABLE = "KVANDAL_NVML_STUB"
MAX_GPUS = 16
NAMES_BYTES = 248
EVENTS = 256
NO_INSTANCE = 0xFFFFFFFF
HEALTHY_FABRIC = 0x51AA  # nvml.h, NVML_GPU_FABRIC_HEALTH_MASK_*: every question answered well
COMPILER = "cc"
FLAGS = ("-std=c11", "-D_DEFAULT_SOURCE", "-Wall", "-Wextra", "-Werror", "-O2", "-fPIC", "-shared")


class Profile(IntEnum):
    """Which generation the stub plays; what it lacks is NVML_ERROR_NOT_SUPPORTED."""

    H100 = 0
    B200 = 1
    GB300 = 2

    @property
    def gpus(self) -> int:
        return 4 if self is Profile.GB300 else 8


class _GpuControl(ctypes.Structure):
    _fields_ = (
        ("lost", ctypes.c_uint32),
        ("hang", ctypes.c_uint32),
        ("sentinel", ctypes.c_uint32),
        ("mig", ctypes.c_uint32),
        ("restarted_at_ms", ctypes.c_uint64),
        ("energy_mj", ctypes.c_int64),
        ("links_down", ctypes.c_uint32),
        ("links_mute", ctypes.c_uint32),
        ("recovery_action", ctypes.c_uint32),
        ("fabric_state", ctypes.c_uint32),
        ("fabric_status", ctypes.c_uint32),
        ("fabric_mask", ctypes.c_uint32),
        ("fabric_summary", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("unsupported", ctypes.c_char * NAMES_BYTES),
        ("refused", ctypes.c_char * NAMES_BYTES),
    )


class _Event(ctypes.Structure):
    _fields_ = (
        ("gpu", ctypes.c_uint32),
        ("gpu_instance", ctypes.c_uint32),
        ("type", ctypes.c_uint64),
        ("data", ctypes.c_uint64),
    )


class _Control(ctypes.Structure):
    _fields_ = (
        ("profile", ctypes.c_uint32),
        ("gpu_count", ctypes.c_uint32),
        ("driver_loaded", ctypes.c_uint32),
        ("calls", ctypes.c_uint32),
        ("blocked", ctypes.c_uint32),
        ("misused", ctypes.c_uint32),
        ("stale", ctypes.c_uint32),
        ("sets", ctypes.c_uint32),
        ("clock_ms", ctypes.c_uint64),
        ("events_told", ctypes.c_uint32),
        ("events_taken", ctypes.c_uint32),
        ("changes", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("events", _Event * EVENTS),
        ("gpus", _GpuControl * MAX_GPUS),
    )


@dataclass(frozen=True, slots=True)
class NvmlStub:
    """A running stub: its clock, its faults, and what it answers."""

    profile: Profile
    shared_object: Path
    control_path: Path
    control: _Control

    def environment(self) -> dict[str, str]:
        """What a subprocess needs to find this stub as its NVML."""
        return {"LD_LIBRARY_PATH": str(self.shared_object.parent), CONTROL_VARIABLE: str(self.control_path)}

    @property
    def clock_ms(self) -> int:
        return int(self.control.clock_ms)

    def set_clock(self, clock_ms: int) -> None:
        self.control.clock_ms = clock_ms

    def set_count(self, count: int) -> None:
        self.control.gpu_count = count

    def unload_driver(self, *, loaded: bool = False) -> None:
        self.control.driver_loaded = loaded
        self._wake()

    def go_stale(self) -> None:
        """Fail every call for a GPU until NVML is started anew."""
        self.control.stale = 1
        self._wake()

    def was_misused(self) -> bool:
        """Whether NVML was shut down while a call hung."""
        return bool(self.control.misused)

    def calls(self) -> int:
        """How many calls were made for a GPU since the last time this was asked."""
        calls, self.control.calls = int(self.control.calls), 0
        return calls

    def lose(self, gpu: int, *, lost: bool = True) -> None:
        self.control.gpus[gpu].lost = lost
        self._wake()

    def hang(self, gpu: int, *, hangs: bool = True) -> None:
        self.control.gpus[gpu].hang = hangs

    def fill_with_sentinels(self, gpu: int, *, filled: bool = True) -> None:
        self.control.gpus[gpu].sentinel = filled

    def enable_mig(self, gpu: int) -> None:
        self.control.gpus[gpu].mig = 1

    def take_links_down(self, gpu: int, *links: int) -> None:
        self.control.gpus[gpu].links_down = sum(1 << link for link in links)

    def mute_links(self, gpu: int, *links: int) -> None:
        """Let no field of these links be readable."""
        self.control.gpus[gpu].links_mute = sum(1 << link for link in links)

    def ask_for_recovery(self, gpu: int, action: int) -> None:
        self.control.gpus[gpu].recovery_action = action

    def set_fabric(
        self, gpu: int, *, state: int = 3, status: int = 0, mask: int = HEALTHY_FABRIC, summary: int = 1
    ) -> None:
        """What the GPU says of its fabric, in NVML's own numbers."""
        told = self.control.gpus[gpu]
        told.fabric_state, told.fabric_status, told.fabric_mask, told.fabric_summary = state, status, mask, summary

    def tell(self, gpu: int, event_type: int, data: int = 0, *, gpu_instance: int = NO_INSTANCE) -> None:
        """Have an event for whoever waits for it."""
        told = int(self.control.events_told)
        if told - self.control.events_taken >= EVENTS:
            raise ValueError(f"{EVENTS} events wait already")
        self.control.events[told % EVENTS] = _Event(gpu, gpu_instance, event_type, data)
        self.control.events_told = told + 1
        self._wake()

    def _wake(self) -> None:
        """Let those who wait for an event look, in whichever process they are."""
        changes = ctypes.byref(self.control, _Control.changes.offset)
        ctypes.CDLL(str(self.shared_object)).kvandal_stub_changed(changes)

    def untaken_events(self) -> int:
        return int(self.control.events_told - self.control.events_taken)

    def event_sets(self) -> int:
        """How many event sets exist."""
        return int(self.control.sets)

    def reload_driver(self, gpu: int) -> None:
        """The counters of this GPU start again from 0 now."""
        self.control.gpus[gpu].restarted_at_ms = self.control.clock_ms

    def read_energy_as(self, gpu: int, millijoules: int | None) -> None:
        """What the energy counter reads, None for the formula."""
        self.control.gpus[gpu].energy_mj = -1 if millijoules is None else millijoules

    def take_away(self, gpu: int, *names: str) -> None:
        """Make calls (`nvmlDevice...`), fields (`field:ID:SCOPE`) and GPM metrics (`gpm:ID`) unsupported."""
        self.control.gpus[gpu].unsupported = _listed(names)

    def refuse(self, gpu: int, *names: str) -> None:
        """The same, for want of permission."""
        self.control.gpus[gpu].refused = _listed(names)

    def uuid(self, gpu: int) -> str:
        return f"GPU-{self.profile + 1:08x}-0000-4000-8000-{gpu + 1:012x}"

    def energy_mj(self, gpu: int) -> int:
        """What the energy counter reads now: 401 W and one more for each GPU, from a start of its own."""
        restarted_at_ms = int(self.control.gpus[gpu].restarted_at_ms)
        before = 0 if restarted_at_ms else 1_000_000_000 * (gpu + 1)
        return before + (self.clock_ms - restarted_at_ms) * (401 + gpu)

    def throttled_ns(self, gpu: int, field: int) -> int:
        restarted_at_ms = int(self.control.gpus[gpu].restarted_at_ms)
        before = 0 if restarted_at_ms else 1_234_567 * field
        return before + (self.clock_ms - restarted_at_ms) * (field % 7 + 1) * 1001 * (gpu + 1)


def _listed(names: tuple[str, ...]) -> bytes:
    listed = f",{','.join(names)},".encode() if names else b""
    if len(listed) >= NAMES_BYTES:
        raise ValueError(f"{len(listed)} bytes of names; the stub has room for {NAMES_BYTES - 1}")
    return listed


def compile_stub() -> Path:
    """The stub as a shared library, compiled once for each state of its source."""
    stamp = hashlib.sha256(SOURCE.read_bytes() + " ".join(FLAGS).encode()).hexdigest()[:16]
    library = CACHE / stamp / SONAME
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        unfinished = library.with_suffix(f".{os.getpid()}")  # tests may run side by side
        command = [COMPILER, *FLAGS, f"-Wl,-soname,{SONAME}", "-o", str(unfinished), str(SOURCE)]
        subprocess.run(command, check=True)
        unfinished.replace(library)
    return library


@contextmanager
def nvml_stub(directory: Path, profile: Profile, *, clock_ms: int = 1_000_000) -> Iterator[NvmlStub]:
    """This process's NVML, for the time of the context; afterwards its driver is not loaded."""
    library = compile_stub()
    control_path = directory / "nvml-control"
    control_path.write_bytes(bytes(ctypes.sizeof(_Control)))
    with control_path.open("r+b") as file:
        control = _Control.from_buffer(mmap(file.fileno(), ctypes.sizeof(_Control)))
    _set_up(control, profile, clock_ms)
    _load_first(library)
    os.environ[CONTROL_VARIABLE] = str(control_path)
    try:
        yield NvmlStub(profile, library, control_path, control)
    finally:
        for gpu in control.gpus:
            gpu.hang = 0  # lets threads that wait in the stub go on
        os.environ.pop(CONTROL_VARIABLE, None)


def _set_up(control: _Control, profile: Profile, clock_ms: int) -> None:
    control.profile = profile
    control.gpu_count = profile.gpus
    control.driver_loaded = 1
    control.clock_ms = clock_ms
    for gpu in control.gpus:
        gpu.energy_mj = -1
        gpu.fabric_state = 3
        gpu.fabric_mask = HEALTHY_FABRIC
        gpu.fabric_summary = 1


def _load_first(library: Path) -> None:
    """Have the stub in the process before any other NVML; RuntimeError when one was quicker."""
    ctypes.CDLL(str(library))
    if not hasattr(ctypes.CDLL(SONAME), "kvandal_stub_sizes"):
        raise RuntimeError(f"another {SONAME} is loaded in this process already: run these tests in one of their own")


def structure_sizes(library: Path) -> Mapping[str, int]:
    """The sizes in bytes of the stub's structures, by the names of nvidia-ml-py's; GPM metrics by their offset."""
    names = (
        "c_nvmlFieldValue_t",
        "nvmlPciInfo_t",
        "c_nvmlPlatformInfo_v2_t",
        "c_nvmlTemperature_v1_t",
        "c_nvmlMarginTemperature_v1_t",
        "c_nvmlMemory_v2_t",
        "c_nvmlProcessInfo_v3_t",
        "c_nvmlGpmMetric_t",
        "c_nvmlGpmMetricsGet_t",
        "c_nvmlEccSramErrorStatus_v1_t",
        "c_nvmlRowRemapperHistogramValues",
        "c_nvmlRepairStatus_t",
        "c_nvmlUnrepairableMemory_v1_t",
        "c_nvmlGpuFabricInfo_v2_t",
        "c_nvmlGpuFabricInfo_v3_t",
        "c_nvmlEventData_t",
        "control",
    )
    sizes = (ctypes.c_uint32 * len(names)).in_dll(ctypes.CDLL(str(library)), "kvandal_stub_sizes")
    return dict(zip(names, sizes, strict=True))


def control_size() -> int:
    return ctypes.sizeof(_Control)
