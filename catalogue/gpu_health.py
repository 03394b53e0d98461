"""The slow GPU metrics: one row per GPU and half minute, what wears out or breaks.

Memory errors and remapped rows are registers: the rules for replacing a GPU ask for what its own counter says, and a
register needs no memory of ours to be true after a restart. Errors of links and of PCIe are deltas: their counters mean
nothing by themselves, start again with the link, and only differences of single links add up to a GPU.
"""

from fractions import Fraction

from catalogue import units
from catalogue.gpu import GPU_STATES, PERCENT
from catalogue.metrics import Codec, Kind, Metric, States
from catalogue.origins import AgentState, DcgmField, NvmlCall, NvmlField, Origin
from catalogue.types import I16, U8, U16, U32, U64, StoredType

# Links that are well have bit error ratios that no counter ever shows; what matters begins at some 1e-15. A linear step
# far below that keeps means and maxima meaningful, which a stored exponent would not: what is smaller reads 0.
ATTO = Fraction(1, 10**18)

NO_YES = ((0, "no"), (1, "yes"))
# nvml.h, NVML_GPU_RECOVERY_ACTION_*, under its own numbers.
RECOVERY_ACTIONS = (
    (0, "none"),
    (1, "reset the GPU"),
    (2, "reboot the node"),
    (3, "drain peer-to-peer traffic"),
    (4, "drain and reset"),
    (5, "recover the IMEX domain"),
    (6, "reset the bus"),
    (7, "reboot the system"),
)
# NVML numbers these the other way round, or in no order; here worse is higher, as for every state.
FABRIC_STATES = ((1, "completed"), (2, "in progress"), (3, "not started"))
FABRIC_SUMMARIES = ((1, "healthy"), (2, "limited capacity"), (3, "unhealthy"))
# nvml.h, NVML_GPU_FABRIC_HEALTH_MASK_*: two bits for each question there, one bit for each complaint here.
FABRIC_COMPLAINTS = (
    (0x01, "degraded bandwidth"),
    (0x02, "route recovery in progress"),
    (0x04, "route unhealthy"),
    (0x08, "access timeout recovery in progress"),
    (0x10, "incorrect configuration"),
    (0x20, "no partition assigned"),
    (0x40, "fabric manager disconnected"),
)
# nvml.h, NVML_GPU_FABRIC_HEALTH_MASK_INCORRECT_CONFIGURATION_*, under its own numbers.
FABRIC_CONFIGURATIONS = (
    (1, "correct"),
    (2, "system GUID"),
    (3, "chassis serial number"),
    (4, "no partition"),
    (5, "insufficient NVLinks"),
    (6, "incompatible GPU firmware"),
    (7, "invalid location"),
    (8, "invalid GPU state"),
)
REPAIRS = ((0x1, "memory channel"), (0x2, "texture processing cluster"))


def _register(name: str, brief: str, *origins: Origin, stored: StoredType = U32, exported: bool = False) -> Metric:
    return Metric(
        name=f"{name}_count",
        unit=units.COUNT,
        kind=Kind.REGISTER,
        stored=stored,
        brief=brief,
        origins=origins,
        codec=Codec.SLOW,
        exported=exported,
    )


def _errors(name: str, brief: str, *origins: Origin, exported: bool = False) -> Metric:
    return Metric(
        name=f"{name}_count",
        unit=units.COUNT,
        kind=Kind.DELTA,
        stored=U32,
        brief=f"{brief} since the previous tick",
        origins=origins,
        codec=Codec.SLOW,
        exported=exported,
    )


def _level(
    name: str,
    brief: str,
    *origins: Origin,
    stored: StoredType = U8,
    extremes: bool = False,
    exported: bool = False,
) -> Metric:
    return Metric(
        name=f"{name}_count",
        unit=units.COUNT,
        kind=Kind.GAUGE,
        stored=stored,
        brief=brief,
        origins=origins,
        codec=Codec.STEPPED,
        extremes=extremes,
        exported=exported,
    )


def _state(
    name: str, brief: str, states: States, *origins: Origin, stored: StoredType = U8, exported: bool = False
) -> Metric:
    return Metric(
        name=f"{name}_state",
        unit=units.STATE,
        kind=Kind.STATE,
        stored=stored,
        brief=brief,
        origins=origins,
        codec=Codec.STEPPED,
        states=states,
        exported=exported,
    )


def _complaints(name: str, brief: str, states: States, *origins: Origin) -> Metric:
    return Metric(
        name=f"{name}_reasons",
        unit=units.REASONS,
        kind=Kind.BITS,
        stored=U16,
        brief=brief,
        origins=origins,
        codec=Codec.STEPPED,
        states=states,
        exported=True,
    )


def _bit_errors(name: str, brief: str, *origins: Origin) -> Metric:
    return Metric(
        name=f"nvlink_{name}_error_ratio",
        unit=units.RATIO,
        kind=Kind.GAUGE,
        stored=U64,
        resolution=ATTO,
        brief=brief,
        origins=origins,
        codec=Codec.STEPPED,
        extremes=True,
        exported=True,
    )


def _margin(name: str, brief: str, field: int) -> Metric:
    return Metric(
        name=f"{name}_margin_kelvin",
        unit=units.KELVIN,
        kind=Kind.GAUGE,
        stored=I16,
        brief=brief,
        origins=(NvmlField(field),),
        codec=Codec.STEPPED,
    )


def _fabric(part: str) -> NvmlCall:
    return NvmlCall("nvmlDeviceGetGpuFabricInfoV", part)


METRICS = (
    _register(
        "ecc_volatile_correctable",
        "Memory errors corrected since the driver was loaded",
        NvmlField(3),
        DcgmField(310, "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL"),
        stored=U64,
    ),
    _register(
        "ecc_volatile_uncorrectable",
        "Memory errors that could not be corrected since the driver was loaded",
        NvmlField(4),
        DcgmField(311, "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL"),
        exported=True,
    ),
    _register(
        "ecc_aggregate_correctable",
        "Memory errors corrected in the life of the GPU",
        NvmlField(5),
        DcgmField(312, "DCGM_FI_DEV_ECC_SBE_AGG_TOTAL"),
        stored=U64,
    ),
    _register(
        "ecc_aggregate_uncorrectable",
        "Memory errors that could not be corrected in the life of the GPU",
        NvmlField(6),
        DcgmField(313, "DCGM_FI_DEV_ECC_DBE_AGG_TOTAL"),
    ),
    _state(
        "sram_threshold_exceeded",
        "Whether uncorrectable errors of the static memory exceed the threshold for replacement",
        NO_YES,
        NvmlCall("nvmlDeviceGetSramEccErrorStatus", "bThresholdExceeded"),
        DcgmField(346, "DCGM_FI_DEV_THRESHOLD_SRM", "DCGM_FI_DEV_SRAM_EXCEEDED"),
        exported=True,
    ),
    _register(
        "remapped_rows_correctable",
        "Memory rows remapped after correctable errors",
        NvmlField(142),
        DcgmField(394, "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", "DCGM_FI_DEV_ROW_REMAP_CORRECTABLE_TOTAL"),
    ),
    _register(
        "remapped_rows_uncorrectable",
        "Memory rows remapped after uncorrectable errors",
        NvmlField(143),
        DcgmField(393, "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", "DCGM_FI_DEV_ROW_REMAP_UNCORRECTABLE_TOTAL"),
        exported=True,
    ),
    _state(
        "remap_pending",
        "Whether a row is to be remapped at the next reset",
        NO_YES,
        NvmlField(144),
        DcgmField(396, "DCGM_FI_DEV_ROW_REMAP_PENDING"),
        exported=True,
    ),
    _state(
        "remap_failure",
        "Whether a row could not be remapped",
        NO_YES,
        NvmlField(145),
        DcgmField(395, "DCGM_FI_DEV_ROW_REMAP_FAILURE", "DCGM_FI_DEV_ROW_REMAP_FAILED"),
        exported=True,
    ),
    _level(
        "remap_banks_full",
        "Memory banks with all their spare rows",
        NvmlCall("nvmlDeviceGetRowRemapperHistogram", "max"),
        DcgmField(385, "DCGM_FI_DEV_BANKS_REMAP_ROWS_AVAIL_MAX", "DCGM_FI_DEV_BANK_REMAP_AVAIL_MAX"),
        stored=U16,
    ),
    _level(
        "remap_banks_low",
        "Memory banks with few spare rows left",
        NvmlCall("nvmlDeviceGetRowRemapperHistogram", "low"),
        DcgmField(388, "DCGM_FI_DEV_BANKS_REMAP_ROWS_AVAIL_LOW", "DCGM_FI_DEV_BANK_REMAP_AVAIL_LOW"),
        stored=U16,
    ),
    _level(
        "remap_banks_exhausted",
        "Memory banks with no spare row left",
        NvmlCall("nvmlDeviceGetRowRemapperHistogram", "none"),
        DcgmField(389, "DCGM_FI_DEV_BANKS_REMAP_ROWS_AVAIL_NONE", "DCGM_FI_DEV_BANK_REMAP_AVAIL_NONE"),
        stored=U16,
        exported=True,
    ),
    _complaints(
        "repair_pending",
        "What is to be repaired at the next reset, as a mask",
        REPAIRS,
        NvmlCall("nvmlDeviceGetRepairStatus"),
    ),
    _state(
        "memory_unrepairable",
        "Whether memory is damaged beyond repair",
        NO_YES,
        NvmlCall("nvmlDeviceGetUnrepairableMemoryFlag_v1"),
        DcgmField(1507, "DCGM_FI_DEV_MEMORY_UNREPAIRABLE_FLAG", "DCGM_FI_DEV_MEMORY_UNREPAIRABLE"),
        exported=True,
    ),
    _level("nvlink_expected", "NVLinks that the GPU has", NvmlField(91)),
    _level("nvlink_active", "NVLinks that are up, asleep ones included", NvmlField(165), extremes=True),
    _level(
        "nvlink_inactive", "NVLinks that are down or carry no traffic", NvmlField(165), extremes=True, exported=True
    ),
    _errors(
        "nvlink_crc_errors",
        "Checksum errors of all NVLinks up to the fourth generation",
        NvmlField(163),
        DcgmField(409, "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL", "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_TOTAL"),
        DcgmField(419, "DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL", "DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_TOTAL"),
        exported=True,
    ),
    _errors(
        "nvlink_replays",
        "Retransmissions of all NVLinks up to the fourth generation",
        NvmlField(161),
        DcgmField(429, "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL", "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_TOTAL"),
    ),
    _errors(
        "nvlink_recoveries",
        "Recoveries of all NVLinks up to the fourth generation",
        NvmlField(162),
        DcgmField(439, "DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL", "DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_TOTAL"),
        exported=True,
    ),
    _errors(
        "nvlink_malformed_packets",
        "Malformed packets received by all NVLinks of the fifth generation",
        NvmlField(206),
        DcgmField(
            1204, "DCGM_FI_DEV_NVLINK_COUNT_RX_MALFORMED_PACKET_ERRORS", "DCGM_FI_DEV_NVLINK_RX_PACKET_MALFORMED_TOTAL"
        ),
    ),
    _errors(
        "nvlink_buffer_overruns",
        "Packets dropped for want of a buffer by all NVLinks of the fifth generation",
        NvmlField(207),
        DcgmField(
            1205, "DCGM_FI_DEV_NVLINK_COUNT_RX_BUFFER_OVERRUN_ERRORS", "DCGM_FI_DEV_NVLINK_RX_PACKET_DROPPED_TOTAL"
        ),
    ),
    _errors(
        "nvlink_recoveries_succeeded",
        "Recoveries after which an NVLink of the fifth generation was up again",
        NvmlField(213),
        DcgmField(
            1211,
            "DCGM_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_SUCCESSFUL_EVENTS",
            "DCGM_FI_DEV_NVLINK_RECOVERY_SUCCESSFUL_TOTAL",
        ),
        exported=True,
    ),
    _errors(
        "nvlink_recoveries_failed",
        "Recoveries after which an NVLink of the fifth generation was down",
        NvmlField(214),
        DcgmField(
            1212,
            "DCGM_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_FAILED_EVENTS",
            "DCGM_FI_DEV_NVLINK_RECOVERY_FAILED_TOTAL",
        ),
        exported=True,
    ),
    _bit_errors(
        "symbol",
        "Share of symbols received in error by the worst NVLink",
        NvmlField(222),
        DcgmField(1216, "DCGM_FI_DEV_NVLINK_COUNT_SYMBOL_BER_FLOAT", "DCGM_FI_DEV_NVLINK_SYMBOL_BER_RATIO"),
    ),
    _bit_errors(
        "effective",
        "Share of bits in error after correction on the worst NVLink",
        NvmlField(220),
        DcgmField(1218, "DCGM_FI_DEV_NVLINK_COUNT_EFFECTIVE_BER_FLOAT", "DCGM_FI_DEV_NVLINK_EFFECTIVE_BER_RATIO"),
    ),
    _errors(
        "pcie_replays",
        "Retransmissions of the PCIe link",
        NvmlField(94),
        DcgmField(202, "DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "DCGM_FI_DEV_PCIE_REPLAY_TOTAL"),
        exported=True,
    ),
    _level(
        "pcie_generation",
        "Generation at which the PCIe link runs",
        NvmlCall("nvmlDeviceGetCurrPcieLinkGeneration"),
        DcgmField(237, "DCGM_FI_DEV_PCIE_LINK_GEN"),
        extremes=True,
        exported=True,
    ),
    _level(
        "pcie_lanes",
        "Lanes on which the PCIe link runs",
        NvmlCall("nvmlDeviceGetCurrPcieLinkWidth"),
        DcgmField(238, "DCGM_FI_DEV_PCIE_LINK_WIDTH"),
        extremes=True,
        exported=True,
    ),
    _state(
        "fabric",
        "How far the GPU has registered with the NVLink fabric",
        FABRIC_STATES,
        _fabric("state"),
        DcgmField(170, "DCGM_FI_DEV_FABRIC_MANAGER_STATUS"),
        exported=True,
    ),
    _state(
        "fabric_status",
        "Outcome of the registration with the fabric, 0 for success, else NVML's return code",
        (),
        _fabric("status"),
        DcgmField(171, "DCGM_FI_DEV_FABRIC_MANAGER_ERROR_CODE", "DCGM_FI_DEV_FABRIC_MANAGER_ERROR"),
        stored=U16,
    ),
    _state(
        "fabric_clique",
        "Clique of the fabric within which the GPU reaches others",
        (),
        _fabric("cliqueId"),
        DcgmField(173, "DCGM_FI_DEV_FABRIC_CLIQUE_ID"),
        stored=U32,
    ),
    _state(
        "fabric_summary",
        "Health of the fabric as this GPU sees it",
        FABRIC_SUMMARIES,
        _fabric("healthSummary"),
        DcgmField(175, "DCGM_FI_DEV_FABRIC_HEALTH_SUMMARY"),
        exported=True,
    ),
    _complaints(
        "fabric_health",
        "What is wrong with the fabric as this GPU sees it, as a mask",
        FABRIC_COMPLAINTS,
        _fabric("healthMask"),
        DcgmField(174, "DCGM_FI_DEV_FABRIC_HEALTH_MASK"),
    ),
    _state(
        "fabric_configuration",
        "What is wrong with the configuration of the fabric",
        FABRIC_CONFIGURATIONS,
        _fabric("healthMask"),
        DcgmField(174, "DCGM_FI_DEV_FABRIC_HEALTH_MASK"),
    ),
    _state(
        "recovery_action",
        "What the driver asks for to bring the GPU back",
        RECOVERY_ACTIONS,
        NvmlField(230),
        DcgmField(1523, "DCGM_FI_DEV_GET_GPU_RECOVERY_ACTION", "DCGM_FI_DEV_GPU_RECOVERY_ACTION"),
        exported=True,
    ),
    Metric(
        name="power_smoothing_life_ratio",
        unit=units.RATIO,
        kind=Kind.GAUGE,
        stored=U8,
        resolution=PERCENT,
        brief="Life left in the circuit that smooths the GPU's power draw",
        origins=(NvmlField(258), DcgmField(1432, "DCGM_FI_DEV_PWR_SMOOTHING_HW_CIRCUITRY_PERCENT_LIFETIME_REMAINING")),
        codec=Codec.STEPPED,
        exported=True,
    ),
    _margin("shutdown", "Temperature margin at which the GPU shuts down", 193),
    _margin("slowdown", "Temperature margin at which the GPU slows down", 194),
    _margin("memory_maximum", "Temperature margin at which its memory may hold the GPU back", 195),
    _margin("maximum", "Temperature margin down to which the GPU works at full speed", 196),
    _state("mig", "Whether the GPU is split into instances", NO_YES, NvmlCall("nvmlDeviceGetMigMode", "current")),
    _state(
        "health",
        "Whether the agent could read the GPU's health in this tick",
        GPU_STATES,
        AgentState("outcome of this GPU's slow reads"),
    ),
)
