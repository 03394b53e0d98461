"""Metric rules about NVLink, the fabric, PCIe and network ports."""

from collections.abc import Iterator

from alerts.alert import Dashboard, MetricRule, Owner, Severity
from alerts.series import series
from alerts.thresholds import Thresholds
from catalogue import GPU_HEALTH, PORT

_GPU = "GPU {{ $labels.resource }} on {{ $labels.instance }}"
_PORT = "port {{ $labels.resource }} of {{ $labels.instance }}"


def link_rules(limits: Thresholds) -> tuple[MetricRule, ...]:
    return (*_nvlink(limits), *_fabric(), *_pcie(limits), *_ports(limits))


def _link(name: str, severity: Severity, expression: str, for_s: int, summary: str, cost: str, *numbers: int,
          owner: Owner = Owner.FLEET) -> MetricRule:  # fmt: skip
    return MetricRule(
        name=name, severity=severity, owner=owner, dashboard=Dashboard.RACK, cost=cost, numbers=numbers,
        expression=expression, for_s=for_s, summary=summary,
    )  # fmt: skip


def _nvlink(limits: Thresholds) -> Iterator[MetricRule]:
    yield _link(
        "NvlinkDown", Severity.PAGE, f"{series(GPU_HEALTH, 'nvlink_inactive_count')} > 0", 60,
        f"{{{{ $value }}}} NVLinks of {_GPU} are down",
        "the job slows down in the whole NVLink domain", 17,
    )  # fmt: skip
    failed = series(GPU_HEALTH, "nvlink_recoveries_failed_count")
    crc = series(GPU_HEALTH, "nvlink_crc_errors_count")
    yield _link(
        "NvlinkErrorsHigh", Severity.TICKET,
        f"increase({failed}[5m]) > 0 or rate({crc}[5m]) >= {limits.nvlink_crc_per_second:g}", 300,
        f"NVLinks of {_GPU} fail to recover or have many checksum errors",
        "transfers are repeated, and the link goes down next", 18,
    )  # fmt: skip


def _fabric() -> Iterator[MetricRule]:
    summary = series(GPU_HEALTH, "fabric_summary_state")
    yield _link(
        "FabricUnhealthy", Severity.PAGE, f"{summary} == 3", 120,
        f"{_GPU} sees its NVLink fabric as unhealthy",
        "jobs across the domain fail or do not start", 19,
    )  # fmt: skip
    yield _link(
        "FabricUnhealthy", Severity.TICKET, f"{summary} == 2", 120,
        f"{_GPU} sees its NVLink fabric at limited capacity",
        "jobs across the domain run slower", 19,
    )  # fmt: skip


def _pcie(limits: Thresholds) -> Iterator[MetricRule]:
    replays = series(GPU_HEALTH, "pcie_replays_count")
    generation, lanes = series(GPU_HEALTH, "pcie_generation_count"), series(GPU_HEALTH, "pcie_lanes_count")
    # From the third generation on a lane makes 2 ^ generation GT/s: 8, 16, 32.
    expected = f"ceil({limits.pcie_replays_per_gigatransfer:g} * 2 ^ {generation} * {lanes})"
    yield _link(
        "PcieReplayHigh", Severity.TICKET, f"rate({replays}[5m]) * 60 > {expected}", 300,
        f"PCIe of {_GPU} repeats {{{{ $value | humanize }}}} transfers a minute",
        "transfers to the host are slow, and the GPU may fall off the bus", 22,
    )  # fmt: skip


def _ports(limits: Thresholds) -> Iterator[MetricRule]:
    symbols, recoveries = series(PORT, "symbol_error_count"), series(PORT, "link_error_recovery_count")
    yield _link(
        "NicDegraded", Severity.TICKET,
        f"rate({symbols}[5m]) > {limits.port_symbol_errors_per_second:g} "
        f"or rate({recoveries}[5m]) * 60 > {limits.port_recoveries_per_minute:g}", 300,
        f"{_PORT} has many symbol errors or recoveries",
        "collectives over it are slow, and the link goes down next", 24, owner=Owner.NETWORK,
    )  # fmt: skip
    yield _link(
        "NicFlapping", Severity.TICKET,
        f"increase({series(PORT, 'link_downed_count')}[1h]) >= {limits.port_downs_per_hour:g}", 0,
        f"{_PORT} went down {{{{ $value | humanize }}}} times in an hour",
        "every time the jobs over it stall or die", 24, owner=Owner.NETWORK,
    )  # fmt: skip
