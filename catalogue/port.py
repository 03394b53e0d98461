"""Metrics of a network port, InfiniBand or RoCE: one row per port."""

from fractions import Fraction

from catalogue import units
from catalogue.metrics import Codec, Kind, Metric, States
from catalogue.origins import AgentState, Origin, SysfsFile
from catalogue.types import U8, U16, U32, U64, StoredType
from catalogue.units import Unit

HUNDRED_MEGABIT_PER_SECOND = Fraction(12_500_000)  # in bytes per second: every InfiniBand rate is a multiple of it

# Worse is higher, so that a rollup keeps the worst.
PORT_STATES = (
    (1, "active"),
    (2, "active, deferred"),
    (3, "armed"),
    (4, "initialising"),
    (5, "down"),
    (6, "vanished"),
)
PHYSICAL_STATES = (
    (1, "link up"),
    (2, "link error recovery"),
    (3, "training"),
    (4, "polling"),
    (5, "sleep"),
    (6, "test"),
    (7, "disabled"),
)


def _state(name: str, brief: str, states: States, *origins: Origin, exported: bool) -> Metric:
    return Metric(
        name=f"{name}_state",
        unit=units.STATE,
        kind=Kind.STATE,
        stored=U8,
        brief=brief,
        origins=origins,
        codec=Codec.STEPPED,
        states=states,
        exported=exported,
    )


def _amount(
    name: str, unit: Unit, stored: StoredType, brief: str, file: str, *, codec: Codec, exported: bool
) -> Metric:
    return Metric(
        name=f"{name}_{unit.suffix}",
        unit=unit,
        kind=Kind.DELTA,
        stored=stored,
        brief=f"{brief} since the previous tick",
        origins=(SysfsFile(file),),
        codec=codec,
        exported=exported,
    )


def _errors(name: str, brief: str, file: str, *, exported: bool = False) -> Metric:
    return _amount(name, units.COUNT, U32, brief, file, codec=Codec.STEPPED, exported=exported)


def _traffic(name: str, unit: Unit, brief: str, file: str) -> Metric:
    return _amount(name, unit, U64, brief, file, codec=Codec.NOISY, exported=unit is units.BYTES)


METRICS = (
    _state(
        "port",
        "Logical state of the port",
        PORT_STATES,
        SysfsFile("state"),
        AgentState("a port that was there before and is not any more"),
        exported=True,
    ),
    _state("physical", "State of the port's physical link", PHYSICAL_STATES, SysfsFile("phys_state"), exported=True),
    Metric(
        name="rate_bytes_per_second",
        unit=units.BYTES_PER_SECOND,
        kind=Kind.GAUGE,
        stored=U16,
        resolution=HUNDRED_MEGABIT_PER_SECOND,
        brief="Data rate of the link as it was negotiated, active width times active speed",
        origins=(SysfsFile("rate"),),
        codec=Codec.STEPPED,
        extremes=True,
        exported=True,
    ),
    _traffic("receive", units.BYTES, "Data received on all virtual lanes", "counters/port_rcv_data"),
    _traffic("transmit", units.BYTES, "Data sent on all virtual lanes", "counters/port_xmit_data"),
    _traffic("receive_packet", units.COUNT, "Packets received", "counters/port_rcv_packets"),
    _traffic("transmit_packet", units.COUNT, "Packets sent", "counters/port_xmit_packets"),
    _errors("symbol_error", "Minor link errors on any lane", "counters/symbol_error", exported=True),
    _errors("link_downed", "Failed recoveries that took the link down", "counters/link_downed", exported=True),
    _errors(
        "link_error_recovery",
        "Completed recoveries of the link from errors",
        "counters/link_error_recovery",
        exported=True,
    ),
    _errors("receive_error", "Packets received with an error", "counters/port_rcv_errors", exported=True),
    _errors(
        "receive_remote_error",
        "Packets received that an earlier hop had marked as bad",
        "counters/port_rcv_remote_physical_errors",
    ),
    _errors(
        "transmit_discard",
        "Packets discarded because the port was down or congested",
        "counters/port_xmit_discards",
        exported=True,
    ),
    _errors("vl15_dropped", "Management packets dropped for want of buffers", "counters/VL15_dropped"),
    _errors(
        "local_link_integrity_error",
        "Times that local physical errors passed their threshold",
        "counters/local_link_integrity_errors",
    ),
    _errors(
        "excessive_buffer_overrun",
        "Times that consecutive buffer overruns passed their threshold",
        "counters/excessive_buffer_overrun_errors",
    ),
    _traffic(
        "transmit_wait",
        units.COUNT,
        "Clock ticks of the port with data to send but no credit",
        "counters/port_xmit_wait",
    ),
    _errors("out_of_sequence", "Packets received out of order by the transport", "hw_counters/out_of_sequence"),
    _errors("packet_sequence_error", "Complaints received of a packet out of order", "hw_counters/packet_seq_err"),
    _errors("acknowledge_timeout", "Acknowledgements that did not come in time", "hw_counters/local_ack_timeout_err"),
)
