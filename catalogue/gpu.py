"""The fast GPU metrics: one row per GPU and second."""

from fractions import Fraction

from catalogue import units
from catalogue.metrics import Codec, Kind, Metric
from catalogue.origins import AgentState, DcgmField, GpmMetric, NvmlCall, NvmlField
from catalogue.types import I8, U8, U16, U32

DECIWATT = Fraction(1, 10)
DECIJOULE = Fraction(1, 10)
PERMILLE = Fraction(1, 1000)
PERCENT = Fraction(1, 100)
MEGAHERTZ = Fraction(1_000_000)
MEGABYTE_PER_SECOND = Fraction(1_000_000)
MEBIBYTE = Fraction(1 << 20)
MICROSECOND = Fraction(1, 1_000_000)

GPU_STATES = ((1, "readable"), (2, "partly readable"), (3, "dark"))

# nvml.h, nvmlClocksEventReasons*; bit values.
CLOCK_EVENT_REASONS = (
    (0x001, "idle"),
    (0x002, "application clocks"),
    (0x004, "software power cap"),
    (0x008, "hardware slowdown"),
    (0x010, "sync boost"),
    (0x020, "software thermal"),
    (0x040, "hardware thermal"),
    (0x080, "hardware power brake"),
    (0x100, "display clocks"),
)


def _power(
    name: str, brief: str, *origins: NvmlField | NvmlCall | DcgmField, codec: Codec = Codec.NOISY, **traits: bool
) -> Metric:
    return Metric(
        name=f"{name}_watts",
        unit=units.WATTS,
        kind=Kind.GAUGE,
        stored=U16,
        resolution=DECIWATT,
        brief=brief,
        origins=origins,
        codec=codec,
        extremes=traits.get("extremes", False),
        sketch=traits.get("sketch", False),
        exported=traits.get("exported", False),
    )


def _activity(name: str, brief: str, gpm: int, dcgm: DcgmField, *, extremes: bool = False) -> Metric:
    return Metric(
        name=f"{name}_active_ratio",
        unit=units.RATIO,
        kind=Kind.GAUGE,
        stored=U16,
        resolution=PERMILLE,
        brief=brief,
        origins=(GpmMetric(gpm), dcgm),
        extremes=extremes,
        exported=name in ("graphics", "sm", "tensor"),
    )


def _utilization(name: str, brief: str, call: NvmlCall, dcgm: DcgmField) -> Metric:
    return Metric(
        name=f"{name}_ratio",
        unit=units.RATIO,
        kind=Kind.GAUGE,
        stored=U8,
        resolution=PERCENT,
        brief=brief,
        origins=(call, dcgm),
        codec=Codec.STEPPED,
    )


def _clock(name: str, brief: str, domain: str, *dcgm: DcgmField, extremes: bool = False) -> Metric:
    return Metric(
        name=f"{name}_clock_hertz",
        unit=units.HERTZ,
        kind=Kind.GAUGE,
        stored=U16,
        resolution=MEGAHERTZ,
        brief=brief,
        origins=(NvmlCall("nvmlDeviceGetClockInfo", domain), *dcgm),
        codec=Codec.STEPPED,
        extremes=extremes,
        exported=name == "sm",
    )


def _link(name: str, brief: str, *origins: GpmMetric | DcgmField) -> Metric:
    return Metric(
        name=f"{name}_bytes_per_second",
        unit=units.BYTES_PER_SECOND,
        kind=Kind.GAUGE,
        stored=U32,
        resolution=MEGABYTE_PER_SECOND,
        brief=brief,
        origins=origins,
    )


def _memory(name: str, brief: str, part: str, dcgm: DcgmField) -> Metric:
    return Metric(
        name=f"memory_{name}_bytes",
        unit=units.BYTES,
        kind=Kind.GAUGE,
        stored=U32,
        resolution=MEBIBYTE,
        brief=brief,
        origins=(NvmlCall("nvmlDeviceGetMemoryInfo_v2", part), dcgm),
        codec=Codec.STEPPED,
    )


def _throttle(name: str, cause: str, field: int, *dcgm: DcgmField) -> Metric:
    return Metric(
        name=f"throttled_{name}_seconds",
        unit=units.SECONDS,
        kind=Kind.DELTA,
        stored=U32,
        resolution=MICROSECOND,
        brief=f"Time since the previous tick in which clocks were held down by {cause}",
        origins=(NvmlField(field), *dcgm),
        codec=Codec.SLOW,
    )


METRICS = (
    _power(
        "power",
        "Instantaneous power draw of the GPU board",
        NvmlField(186),
        DcgmField(157, "DCGM_FI_DEV_POWER_USAGE_INSTANT", "DCGM_FI_DEV_BOARD_POWER_RAW_WATTS"),
        codec=Codec.WHITE,
        extremes=True,
        sketch=True,
        exported=True,
    ),
    _power(
        "power_average",
        "Power draw of the GPU board averaged by the driver over one second",
        NvmlField(185),
        NvmlCall("nvmlDeviceGetPowerUsage"),
        DcgmField(155, "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_BOARD_POWER_WATTS"),
    ),
    _power("module_power", "Power draw of the whole module, Grace included", NvmlField(186, scope=1)),
    _power("memory_power", "Power draw of the GPU's memory", NvmlField(186, scope=2)),
    _power(
        "power_limit",
        "Power limit that the driver enforces",
        NvmlCall("nvmlDeviceGetEnforcedPowerLimit"),
        DcgmField(164, "DCGM_FI_DEV_ENFORCED_POWER_LIMIT", "DCGM_FI_DEV_BOARD_POWER_LIMIT_ENFORCED_WATTS"),
    ),
    Metric(
        name="energy_joules",
        unit=units.JOULES,
        kind=Kind.DELTA,
        stored=U32,
        resolution=DECIJOULE,
        brief="Energy drawn by the GPU board since the previous spooled tick",
        origins=(
            NvmlCall("nvmlDeviceGetTotalEnergyConsumption"),
            DcgmField(156, "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"),
        ),
        exported=True,
    ),
    Metric(
        name="temperature_celsius",
        unit=units.CELSIUS,
        kind=Kind.GAUGE,
        stored=U8,
        brief="Temperature of the GPU die",
        origins=(
            NvmlCall("nvmlDeviceGetTemperatureV"),
            DcgmField(150, "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_GPU_TEMP_CELSIUS"),
        ),
        codec=Codec.SLOW,
        extremes=True,
        exported=True,
    ),
    Metric(
        name="memory_temperature_celsius",
        unit=units.CELSIUS,
        kind=Kind.GAUGE,
        stored=U8,
        brief="Temperature of the high-bandwidth memory",
        origins=(NvmlField(82), DcgmField(140, "DCGM_FI_DEV_MEMORY_TEMP", "DCGM_FI_DEV_MEMORY_TEMP_CELSIUS")),
        codec=Codec.SLOW,
        extremes=True,
        exported=True,
    ),
    Metric(
        name="temperature_margin_kelvin",
        unit=units.KELVIN,
        kind=Kind.GAUGE,
        stored=I8,
        brief="Margin to the nearest slowdown temperature, negative when it is exceeded",
        origins=(
            NvmlCall("nvmlDeviceGetMarginTemperature"),
            DcgmField(153, "DCGM_FI_DEV_GPU_TEMP_LIMIT", "DCGM_FI_DEV_GPU_TEMP_MARGIN_CELSIUS"),
        ),
        codec=Codec.SLOW,
        extremes=True,
        exported=True,
    ),
    _clock(
        "sm",
        "Clock of the streaming multiprocessors",
        "NVML_CLOCK_SM",
        DcgmField(100, "DCGM_FI_DEV_SM_CLOCK"),
        extremes=True,
    ),
    _clock("memory", "Clock of the memory", "NVML_CLOCK_MEM", DcgmField(101, "DCGM_FI_DEV_MEM_CLOCK")),
    _clock("graphics", "Clock of the graphics domain", "NVML_CLOCK_GRAPHICS"),
    _utilization(
        "utilization",
        "Share of the driver's sampling window with any kernel resident",
        NvmlCall("nvmlDeviceGetUtilizationRates", "gpu"),
        DcgmField(203, "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_UTIL_RATIO"),
    ),
    _utilization(
        "memory_copy_utilization",
        "Share of the driver's sampling window with device memory being read or written",
        NvmlCall("nvmlDeviceGetUtilizationRates", "memory"),
        DcgmField(204, "DCGM_FI_DEV_MEM_COPY_UTIL"),
    ),
    _utilization(
        "encoder_utilization",
        "Utilisation of the video encoder",
        NvmlCall("nvmlDeviceGetEncoderUtilization"),
        DcgmField(206, "DCGM_FI_DEV_ENC_UTIL"),
    ),
    _utilization(
        "decoder_utilization",
        "Utilisation of the video decoder",
        NvmlCall("nvmlDeviceGetDecoderUtilization"),
        DcgmField(207, "DCGM_FI_DEV_DEC_UTIL"),
    ),
    _activity(
        "graphics",
        "Share of time with the graphics or compute engine active",
        1,
        DcgmField(1001, "DCGM_FI_PROF_GR_ENGINE_ACTIVE", "DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO"),
    ),
    _activity(
        "sm",
        "Share of cycles with a warp resident on a streaming multiprocessor",
        2,
        DcgmField(1002, "DCGM_FI_PROF_SM_ACTIVE", "DCGM_FI_PROF_SM_UTIL_RATIO"),
        extremes=True,
    ),
    Metric(
        name="sm_occupancy_ratio",
        unit=units.RATIO,
        kind=Kind.GAUGE,
        stored=U16,
        resolution=PERMILLE,
        brief="Warps resident, as a share of the maximum",
        origins=(GpmMetric(3), DcgmField(1003, "DCGM_FI_PROF_SM_OCCUPANCY", "DCGM_FI_PROF_SM_OCCUPANCY_RATIO")),
    ),
    _activity(
        "tensor",
        "Share of cycles with a tensor pipe active",
        5,
        DcgmField(1004, "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "DCGM_FI_PROF_TENSOR_UTIL_RATIO"),
        extremes=True,
    ),
    _activity(
        "dram",
        "Share of cycles with device memory transferring",
        10,
        DcgmField(1005, "DCGM_FI_PROF_DRAM_ACTIVE", "DCGM_FI_PROF_DRAM_UTIL_RATIO"),
    ),
    _activity(
        "fp64",
        "Share of cycles with a double-precision pipe active",
        11,
        DcgmField(1006, "DCGM_FI_PROF_PIPE_FP64_ACTIVE", "DCGM_FI_PROF_FP64_UTIL_RATIO"),
    ),
    _activity(
        "fp32",
        "Share of cycles with a single-precision pipe active",
        12,
        DcgmField(1007, "DCGM_FI_PROF_PIPE_FP32_ACTIVE", "DCGM_FI_PROF_FP32_UTIL_RATIO"),
    ),
    _activity(
        "fp16",
        "Share of cycles with a half-precision pipe active",
        13,
        DcgmField(1008, "DCGM_FI_PROF_PIPE_FP16_ACTIVE", "DCGM_FI_PROF_FP16_UTIL_RATIO"),
    ),
    _link("pcie_transmit", "PCIe traffic from the GPU", GpmMetric(20), DcgmField(1009, "DCGM_FI_PROF_PCIE_TX_BYTES")),
    _link("pcie_receive", "PCIe traffic to the GPU", GpmMetric(21), DcgmField(1010, "DCGM_FI_PROF_PCIE_RX_BYTES")),
    _link(
        "nvlink_transmit",
        "NVLink traffic from the GPU, all links",
        GpmMetric(61),
        DcgmField(1011, "DCGM_FI_PROF_NVLINK_TX_BYTES"),
    ),
    _link(
        "nvlink_receive",
        "NVLink traffic to the GPU, all links",
        GpmMetric(60),
        DcgmField(1012, "DCGM_FI_PROF_NVLINK_RX_BYTES"),
    ),
    _link(
        "c2c_transmit",
        "Traffic from the GPU to its Grace processor",
        GpmMetric(100),
        DcgmField(1076, "DCGM_FI_PROF_C2C_TX_ALL_BYTES"),
    ),
    _link(
        "c2c_receive",
        "Traffic to the GPU from its Grace processor",
        GpmMetric(101),
        DcgmField(1078, "DCGM_FI_PROF_C2C_RX_ALL_BYTES"),
    ),
    _memory("used", "Device memory in use, reserved memory excluded", "used", DcgmField(252, "DCGM_FI_DEV_FB_USED")),
    _memory("reserved", "Device memory that the driver keeps", "reserved", DcgmField(253, "DCGM_FI_DEV_FB_RESERVED")),
    _memory("size", "Device memory in all", "total", DcgmField(250, "DCGM_FI_DEV_FB_TOTAL")),
    Metric(
        name="clock_event_reasons",
        unit=units.REASONS,
        kind=Kind.BITS,
        stored=U16,
        brief="Why clocks are below their maximum, as a mask",
        origins=(
            NvmlCall("nvmlDeviceGetCurrentClocksEventReasons"),
            DcgmField(112, "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS", "DCGM_FI_DEV_CLOCKS_EVENT_REASONS"),
        ),
        codec=Codec.STEPPED,
        states=CLOCK_EVENT_REASONS,
        exported=True,
    ),
    _throttle(
        "power_cap",
        "the software power cap",
        74,
        DcgmField(240, "DCGM_FI_DEV_POWER_VIOLATION"),
        DcgmField(1420, "DCGM_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP_NS"),
    ),
    _throttle(
        "sync_boost",
        "sync boost",
        76,
        DcgmField(242, "DCGM_FI_DEV_SYNC_BOOST_VIOLATION"),
        DcgmField(
            1421, "DCGM_FI_DEV_CLOCKS_EVENT_REASON_SYNC_BOOST_NS", "DCGM_FI_DEV_CLOCKS_EVENT_REASON_SYNC_BOOST_COUNT_NS"
        ),
    ),
    _throttle(
        "software_thermal",
        "software thermal slowdown",
        269,
        DcgmField(1422, "DCGM_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN_NS"),
    ),
    _throttle(
        "hardware_thermal",
        "hardware thermal slowdown",
        270,
        DcgmField(1423, "DCGM_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN_NS"),
    ),
    _throttle(
        "power_brake",
        "the hardware power brake",
        271,
        DcgmField(1424, "DCGM_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN_NS"),
    ),
    Metric(
        name="performance_state",
        unit=units.STATE,
        kind=Kind.STATE,
        stored=U8,
        brief="Performance state, 0 fastest to 15 slowest",
        origins=(
            NvmlCall("nvmlDeviceGetPerformanceState"),
            DcgmField(190, "DCGM_FI_DEV_PSTATE", "DCGM_FI_DEV_GPU_PSTATE"),
        ),
        codec=Codec.STEPPED,
    ),
    Metric(
        name="process_count",
        unit=units.COUNT,
        kind=Kind.GAUGE,
        stored=U16,
        brief="Compute processes that hold a context on the GPU",
        origins=(NvmlCall("nvmlDeviceGetComputeRunningProcesses_v3"),),
        codec=Codec.STEPPED,
    ),
    Metric(
        name="gpu_state",
        unit=units.STATE,
        kind=Kind.STATE,
        stored=U8,
        brief="Whether the agent could read the GPU in this tick",
        origins=(AgentState("outcome of this GPU's reads"),),
        codec=Codec.STEPPED,
        states=GPU_STATES,
        exported=True,
    ),
)
