"""What the slow counters of GPUs and network ports show, from the faults that struck them; pure functions.

A GB300 tray has a network port for each of its GPUs; a fault of the network strikes one GPU's port.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from catalogue import gpu as catalogue_gpu
from catalogue import gpu_health as catalogue_health
from catalogue import port as catalogue_port
from simulation.faults import Strike

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

NVLINKS = 18  # of a Blackwell GPU
PORT_BYTES_PER_S = 100e9  # 800 Gb/s
SCALE_OUT_SHARE = 1 / 18  # of NVLink's traffic: what goes on over the network, a guess
BYTES_PER_PACKET = 4096.0
# Of one GPU, all guesses: a corrected memory error in six days, a link that comes up again once in a month. The spread
# is lognormal: most have far fewer, some have many times that.
CORRECTED_PER_S = 2e-6
RECOVERED_PER_S = 4e-7
WEAKNESS_SIGMA = 1.5
SYMBOL_ERRORS_A_DOWN = 40.0  # before a port goes down, a guess
SHUTDOWN_MARGIN_K, MEMORY_MARGIN_K, FULL_SPEED_MARGIN_K = -5.0, 8.0, 2.0  # as a GB300 tells them
BANKS = 512.0  # of a GPU's memory, all with their spare rows

_HEALTH = {name: state for state, name in catalogue_gpu.GPU_STATES}
_ACTIONS = {name: action for action, name in catalogue_health.RECOVERY_ACTIONS}
_FABRIC = {name: state for state, name in catalogue_health.FABRIC_STATES}
_SUMMARIES = {name: state for state, name in catalogue_health.FABRIC_SUMMARIES}
_COMPLAINTS = {name: bit for bit, name in catalogue_health.FABRIC_COMPLAINTS}
_CONFIGURATIONS = {name: state for state, name in catalogue_health.FABRIC_CONFIGURATIONS}
_PORTS = {name: state for state, name in catalogue_port.PORT_STATES}
_LINKS = {name: state for state, name in catalogue_port.PHYSICAL_STATES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What one kind of trouble leaves: counts that stay, and signs that last until the repair."""

    uncorrectable: int = 0  # memory errors
    rows: int = 0  # remapped
    lost_links: int = 0  # recoveries of NVLinks that failed
    port_downs: int = 0
    links_down: int = 0
    remap_pending: bool = False
    remap_failed: bool = False
    sram_exceeded: bool = False
    action: str = "none"
    port: str = "active"


# By XID, and by the class of fault where there is none. The signs are those that NVIDIA's guide to XIDs tells of; how
# many links and rows is this project's guess.
_TRACES = {
    "": Trace(),
    "46": Trace(action="reset the GPU"),
    "48": Trace(uncorrectable=1, rows=1, remap_pending=True, action="reset the GPU"),
    "64": Trace(uncorrectable=1, remap_failed=True, action="drain and reset"),
    "94": Trace(uncorrectable=1, rows=1, remap_pending=True, action="drain and reset"),
    "95": Trace(uncorrectable=2, rows=1, remap_pending=True, action="reset the GPU"),
    "109": Trace(action="reset the GPU"),
    "119": Trace(action="reset the GPU"),
    "120": Trace(action="reset the GPU"),
    "140": Trace(uncorrectable=1, sram_exceeded=True, action="drain and reset"),
    "145": Trace(lost_links=1, links_down=1, action="drain peer-to-peer traffic"),
    "149": Trace(lost_links=2, links_down=2, action="reset the GPU"),
    "158": Trace(action="reboot the node"),
    "network": Trace(port_downs=1, port="down"),
    "nic": Trace(port_downs=1, port="vanished"),
}
TRACES = tuple(_TRACES.values())
_NUMBERS = {name: number for number, name in enumerate(_TRACES)}


def trouble_of(strike: Strike) -> int:
    """Which of TRACES a fault leaves on its GPU; 0 where nothing is to be seen."""
    return _NUMBERS.get(str(strike.xid) if strike.xid else strike.name, 0)


def _by_trouble(name: str) -> Floats:
    return np.array([float(getattr(trace, name)) for trace in TRACES])


_LINKS_DOWN, _PENDING = _by_trouble("links_down"), _by_trouble("remap_pending")
_FAILED, _EXCEEDED = _by_trouble("remap_failed"), _by_trouble("sram_exceeded")
_ACTION_ASKED = np.array([float(_ACTIONS[trace.action]) for trace in TRACES])
_PORT_STATE = np.array([float(_PORTS[trace.port]) for trace in TRACES])


@dataclass(frozen=True, slots=True, eq=False)
class HealthView:
    """What the columns of health follow from; (trays, 4)."""

    trouble: Ints  # places in TRACES
    corrected: Floats  # since the driver was loaded
    corrected_in_life: Floats
    uncorrectable: Floats  # since the driver was loaded
    uncorrectable_in_life: Floats
    rows: Floats
    recovered_links: Floats  # since the previous reading
    lost_links: Floats  # likewise
    dark: Bools


def health_columns(view: HealthView) -> dict[str, Floats]:
    """Every metric that a Blackwell GPU has, shape (trays, 4); of a dark GPU only that it is dark."""
    columns = {**_memory(view), **_links(view), **_rest(view)}
    columns = {name: np.where(view.dark, np.nan, column) for name, column in columns.items()}
    columns["health_state"] = np.where(view.dark, float(_HEALTH["dark"]), float(_HEALTH["readable"]))
    return columns


def _memory(view: HealthView) -> dict[str, Floats]:
    return {
        "ecc_volatile_correctable_count": view.corrected,
        "ecc_volatile_uncorrectable_count": view.uncorrectable,
        "ecc_aggregate_correctable_count": view.corrected_in_life,
        "ecc_aggregate_uncorrectable_count": view.uncorrectable_in_life,
        "sram_threshold_exceeded_state": _EXCEEDED[view.trouble],
        "remapped_rows_correctable_count": np.zeros((1, 1)),
        "remapped_rows_uncorrectable_count": view.rows,
        "remap_pending_state": _PENDING[view.trouble],
        "remap_failure_state": _FAILED[view.trouble],
        "remap_banks_full_count": BANKS - np.minimum(view.rows, BANKS),
        "remap_banks_low_count": np.zeros((1, 1)),
        "remap_banks_exhausted_count": _FAILED[view.trouble],
        "repair_pending_reasons": _PENDING[view.trouble],
        "memory_unrepairable_state": np.zeros((1, 1)),
    }


def _links(view: HealthView) -> dict[str, Floats]:
    down = _LINKS_DOWN[view.trouble]
    return {
        "nvlink_expected_count": np.full((1, 1), float(NVLINKS)),
        "nvlink_active_count": NVLINKS - down,
        "nvlink_inactive_count": down,
        "nvlink_malformed_packets_count": np.zeros((1, 1)),
        "nvlink_buffer_overruns_count": np.zeros((1, 1)),
        "nvlink_recoveries_succeeded_count": view.recovered_links,
        "nvlink_recoveries_failed_count": view.lost_links,
        "pcie_replays_count": np.zeros((1, 1)),
        "pcie_generation_count": np.full((1, 1), 6.0),
        "pcie_lanes_count": np.full((1, 1), 16.0),
        "fabric_state": np.full((1, 1), float(_FABRIC["completed"])),
        "fabric_status_state": np.zeros((1, 1)),
        "fabric_clique_state": np.zeros((1, 1)),
        "fabric_summary_state": np.where(down > 0, _SUMMARIES["limited capacity"], _SUMMARIES["healthy"]) * 1.0,
        "fabric_health_reasons": _COMPLAINTS["degraded bandwidth"] * (down > 0) * 1.0,
        "fabric_configuration_state": np.full((1, 1), float(_CONFIGURATIONS["correct"])),
    }


def _rest(view: HealthView) -> dict[str, Floats]:
    return {
        "recovery_action_state": _ACTION_ASKED[view.trouble],
        "power_smoothing_life_ratio": np.full((1, 1), 0.97),
        "shutdown_margin_kelvin": np.full((1, 1), SHUTDOWN_MARGIN_K),
        "slowdown_margin_kelvin": np.zeros((1, 1)),
        "memory_maximum_margin_kelvin": np.full((1, 1), MEMORY_MARGIN_K),
        "maximum_margin_kelvin": np.full((1, 1), FULL_SPEED_MARGIN_K),
        "mig_state": np.zeros((1, 1)),
    }


@dataclass(frozen=True, slots=True, eq=False)
class PortView:
    """What the columns of network ports follow from; (trays, 4)."""

    trouble: Ints
    sent_bytes: Floats  # since the previous reading
    downs: Floats  # likewise
    off: Bools  # the tray has no power: the other side sees no link


def port_columns(view: PortView) -> dict[str, Floats]:
    """Every metric of the port table, shape (trays, 4); of a port that is gone or off only its state."""
    state = np.where(view.off, float(_PORTS["down"]), _PORT_STATE[view.trouble])
    is_up, is_gone = state == _PORTS["active"], view.off | (state == _PORTS["vanished"])
    sent = np.rint(view.sent_bytes * is_up)
    quiet = np.zeros((1, 1))
    columns = {
        "physical_state": np.where(is_up, float(_LINKS["link up"]), float(_LINKS["polling"])),
        "rate_bytes_per_second": np.where(is_up, PORT_BYTES_PER_S, np.nan),
        "receive_bytes": sent,
        "transmit_bytes": sent,
        "receive_packet_count": np.rint(sent / BYTES_PER_PACKET),
        "transmit_packet_count": np.rint(sent / BYTES_PER_PACKET),
        "symbol_error_count": SYMBOL_ERRORS_A_DOWN * view.downs,
        "link_downed_count": view.downs,
        "link_error_recovery_count": view.downs,
        "transmit_wait_count": np.rint(0.02 * sent / BYTES_PER_PACKET),
    }
    none = (
        "receive_error", "receive_remote_error", "transmit_discard", "vl15_dropped", "local_link_integrity_error",
        "excessive_buffer_overrun", "out_of_sequence", "packet_sequence_error", "acknowledge_timeout",
    )  # fmt: skip
    columns |= {f"{name}_count": quiet for name in none}
    columns = {name: np.where(is_gone, np.nan, column) for name, column in columns.items()}
    columns["port_state"] = state
    return columns
