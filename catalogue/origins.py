"""Where a metric comes from, by the name under which each source offers it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NvmlField:
    """A field id of nvmlDeviceGetFieldValues (nvml.h, NVML_FI_*), with its scope."""

    id: int
    scope: int = 0

    def __str__(self) -> str:
        return f"NVML field {self.id}" + (f" scope {self.scope}" if self.scope else "")


@dataclass(frozen=True, slots=True)
class NvmlCall:
    """An NVML function; `part` names the structure member or the argument."""

    function: str
    part: str = ""

    def __str__(self) -> str:
        return f"NVML {self.function}" + (f" ({self.part})" if self.part else "")


@dataclass(frozen=True, slots=True)
class GpmMetric:
    """A GPU performance monitoring metric (nvml.h, NVML_GPM_METRIC_*), Hopper and later."""

    id: int

    def __str__(self) -> str:
        return f"NVML GPM metric {self.id}"


@dataclass(frozen=True, slots=True)
class DcgmField:
    """A DCGM field: its id is the identity, `old` and `new` its names before and since DCGM 4.6."""

    id: int
    old: str
    new: str = ""

    def __str__(self) -> str:
        return f"DCGM {self.id} {self.old}" + (f" / {self.new}" if self.new else "")


@dataclass(frozen=True, slots=True)
class RedfishProperty:
    """A property of a Redfish resource, as `Resource.Property` (DMTF DSP8010)."""

    path: str

    def __str__(self) -> str:
        return f"Redfish {self.path}"


@dataclass(frozen=True, slots=True)
class DsxPoint:
    """An object type and point type of NVIDIA DSX Exchange's BMS topics."""

    path: str

    def __str__(self) -> str:
        return f"DSX {self.path}"


@dataclass(frozen=True, slots=True)
class MeterPoint:
    """A kind of point in a Modbus, SunSpec or M-Bus register map."""

    kind: str

    def __str__(self) -> str:
        return f"Meter {self.kind}"


@dataclass(frozen=True, slots=True)
class HostValue:
    """A value of the operating system, by the psutil function that reads it."""

    function: str

    def __str__(self) -> str:
        return f"psutil {self.function}"


@dataclass(frozen=True, slots=True)
class SysfsFile:
    """A file of a network port below /sys/class/infiniband/<device>/ports/<port>."""

    path: str

    def __str__(self) -> str:
        return f"sysfs {self.path}"


@dataclass(frozen=True, slots=True)
class AgentState:
    """A fact that the agent itself establishes."""

    fact: str

    def __str__(self) -> str:
        return f"agent: {self.fact}"


Origin = (
    NvmlField
    | NvmlCall
    | GpmMetric
    | DcgmField
    | RedfishProperty
    | DsxPoint
    | MeterPoint
    | HostValue
    | SysfsFile
    | AgentState
)
