"""The slow readings of GPUs against the stub library: every value in its unit, and what hides nothing else.

Expected values are written here from the stub's formulas (tests/servers/nvml/stub.c), in base units.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pynvml  # type: ignore[import-untyped]  # ships no types
import pytest

from catalogue import GPU, GPU_HEALTH, Kind, ResourceKind, resource_id
from collectors.counters import CounterStore
from collectors.nvml.binding import REPROBE_S
from collectors.nvml.health import DEVICE_FIELDS, LINK_FIELDS, MEMORY_FIELDS, bit_error_ratio, fabric_health
from collectors.nvml.source import NvmlSource
from collectors.source import Reading
from collectors.tray import TrayPlace
from stream.rows import Rows, in_base_unit
from tests.servers.notebook import Notebook
from tests.servers.nvml_stub import HEALTHY_FABRIC, NvmlStub, Profile, nvml_stub

START_S = 1_800_000_000
PATIENT_S = 10.0  # for tests in which nothing hangs, on a machine under load
HASTY_S = 0.3
HEALTH_S = 30
READABLE, PARTLY, DARK = 1, 2, 3
DELTAS = {metric.name for metric in GPU_HEALTH.of_kind(Kind.DELTA)}


class Node:
    """A source over a stub, and the ticks between them."""

    def __init__(self, stub: NvmlStub, source: NvmlSource) -> None:
        self.stub = stub
        self.source = source
        self.time_s = START_S

    def readings(self, *, seconds: int = HEALTH_S, device_ms: int | None = None) -> list[Reading]:
        self.time_s += seconds
        self.stub.set_clock(self.stub.clock_ms + (seconds * 1000 + 11 if device_ms is None else device_ms))
        return list(self.source.read(self.time_s))

    def health(self, *, seconds: int = HEALTH_S, device_ms: int | None = None) -> Rows:
        """The health rows of a tick at which they are due."""
        fast, slow = self.readings(seconds=seconds, device_ms=device_ms)
        assert (fast.table, slow.table) == (GPU, GPU_HEALTH)
        return slow.rows

    def value(self, rows: Rows, gpu: int, metric: str) -> float:
        row = rows[rows["resource"] == resource_id(ResourceKind.GPU, self.stub.uuid(gpu))]
        assert row.size == 1
        return float(in_base_unit(GPU_HEALTH.metric(metric), row)[0])

    def present(self, rows: Rows, gpu: int) -> set[str]:
        """The names of the metrics that are not absent."""
        return {m.name for m in GPU_HEALTH.metrics if not math.isnan(self.value(rows, gpu, m.name))}


StartNode = Callable[..., Node]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartNode]:
    """Starts a node of a profile; it is closed after the test."""
    with ExitStack() as running:

        def start_node(
            profile: Profile = Profile.H100, *, deadline_s: float = PATIENT_S, counters: CounterStore | None = None
        ) -> Node:
            stub = running.enter_context(nvml_stub(tmp_path, profile))
            node = Node(stub, another_source(deadline_s=deadline_s, counters=counters))
            running.callback(lambda: node.source.close())
            return node

        yield start_node


def another_source(*, deadline_s: float = PATIENT_S, counters: CounterStore | None = None) -> NvmlSource:
    ticking = count(START_S)
    return NvmlSource(
        machine=TrayPlace("0123456789abcdef", "node-7"),
        deadline_s=deadline_s,
        counters=counters,
        booted=lambda: "boot 1",
        clock=lambda: float(next(ticking)),
    )


# Values --------------------------------------------------------------------------------------------------------------

LINKS = 18
ALL_LINKS = LINKS * (LINKS + 1) // 2  # a link counts its number times as fast as the first


def expected(profile: Profile, i: int) -> dict[str, float]:
    """Every metric of GPU `i` at the second health tick, in base units; what a generation does not have is NaN."""
    blackwell = profile is not Profile.H100
    fourth = {"nvlink_crc_errors_count": 3, "nvlink_replays_count": 1, "nvlink_recoveries_count": 2}
    fifth = {
        "nvlink_malformed_packets_count": 4,
        "nvlink_buffer_overruns_count": 5,
        "nvlink_recoveries_succeeded_count": 4,
        "nvlink_recoveries_failed_count": 5,
    }
    return {
        "ecc_volatile_correctable_count": 5_000_000_000 + i,
        "ecc_volatile_uncorrectable_count": i % 3,
        "ecc_aggregate_correctable_count": 7_000_000_000 + i,
        "ecc_aggregate_uncorrectable_count": 10 + i,
        "sram_threshold_exceeded_state": float(i == 2),
        "remapped_rows_correctable_count": 20 + i,
        "remapped_rows_uncorrectable_count": 510 + i,
        "remap_pending_state": i % 2,
        "remap_failure_state": float(i == 3),
        "remap_banks_full_count": 640 - i,
        "remap_banks_low_count": 3 + i,
        "remap_banks_exhausted_count": i % 2,
        "repair_pending_reasons": i % 4 if blackwell else math.nan,
        "memory_unrepairable_state": float(i == 1) if blackwell else math.nan,
        "nvlink_expected_count": LINKS,
        "nvlink_active_count": LINKS,
        "nvlink_inactive_count": 0,
        **{name: math.nan if blackwell else 30 * ALL_LINKS * rate for name, rate in fourth.items()},
        **{name: 30 * ALL_LINKS * rate if blackwell else math.nan for name, rate in fifth.items()},
        "nvlink_symbol_error_ratio": 9e-12 if blackwell else math.nan,
        "nvlink_effective_error_ratio": 5e-12 if blackwell else math.nan,
        "pcie_replays_count": 30 * (i + 1),
        "pcie_generation_count": 6 if profile is Profile.GB300 else 5,
        "pcie_lanes_count": 8 if i == 2 else 16,
        "fabric_state": 1,
        "fabric_status_state": 0,
        "fabric_clique_state": 32766 + i // 2,
        "fabric_summary_state": 1 if blackwell else math.nan,
        "fabric_health_reasons": 0,
        "fabric_configuration_state": 1,
        "recovery_action_state": 0,
        "power_smoothing_life_ratio": (97 - i) / 100 if blackwell else math.nan,
        "shutdown_margin_kelvin": -7,
        "slowdown_margin_kelvin": -3 if profile is Profile.B200 else -2,
        "memory_maximum_margin_kelvin": -1,
        "maximum_margin_kelvin": i,
        "mig_state": 0,
        "health_state": READABLE,
    }


@pytest.mark.parametrize("profile", Profile)
def test_every_metric_has_its_value_in_its_unit(start: StartNode, profile: Profile) -> None:
    node = start(profile)
    node.health()
    rows = node.health()
    assert rows.size == profile.gpus
    assert set(rows["time"]) == {node.time_s}
    for gpu in range(profile.gpus):
        values = expected(profile, gpu)
        assert set(values) == {metric.name for metric in GPU_HEALTH.metrics}
        for metric in GPU_HEALTH.metrics:
            value = pytest.approx(values[metric.name], rel=1e-9, abs=0.0, nan_ok=True)
            assert node.value(rows, gpu, metric.name) == value, metric.name


def test_the_first_tick_has_everything_but_what_needs_two_reads(start: StartNode) -> None:
    node = start(Profile.GB300)
    absent = DELTAS | {"nvlink_crc_errors_count", "nvlink_replays_count", "nvlink_recoveries_count"}
    assert node.present(node.health(), 0) == {metric.name for metric in GPU_HEALTH.metrics} - absent


def test_health_is_read_at_the_first_tick_and_then_once_in_each_half_minute(start: StartNode) -> None:
    node = start()
    tables = [[reading.table.name for reading in node.readings(seconds=1)] for _ in range(65)]
    due = [second for second, names in enumerate(tables, start=1) if "gpu_health" in names]
    assert due == [1, 30, 60]


def test_a_tick_without_health_costs_no_health_calls(start: StartNode) -> None:
    node = start()
    node.stub.set_count(1)
    node.health()
    node.readings(seconds=1)
    node.stub.calls()
    node.readings(seconds=1)
    fast = node.stub.calls()
    node.readings(seconds=HEALTH_S)
    assert 0 < node.stub.calls() - fast <= 13  # three of fields, the others one each


# Fields that must not be watched together -----------------------------------------------------------------------------


def test_memory_errors_and_links_in_one_call_are_unreadable_on_grace(start: StartNode) -> None:
    """The trait of the stub, and of GB200, that the next test is about."""
    node = start(Profile.GB300)
    node.health()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    together = pynvml.nvmlDeviceGetFieldValues(handle, [3, (165, 0), (206, 1)])
    assert {value.nvmlReturn for value in together} == {pynvml.NVML_ERROR_NOT_SUPPORTED}


def test_memory_errors_are_never_asked_together_with_links(start: StartNode) -> None:
    node = start(Profile.GB300)
    node.health()
    values = expected(Profile.GB300, 0)
    rows = node.health()
    for name in ("ecc_volatile_correctable_count", "nvlink_recoveries_failed_count", "nvlink_active_count"):
        assert node.value(rows, 0, name) == values[name]
    groups = [set(MEMORY_FIELDS), set(LINK_FIELDS), set(DEVICE_FIELDS)]
    assert sum(map(len, groups)) == len(set.union(*groups))
    assert set(MEMORY_FIELDS) == {3, 4, 5, 6, 142, 143, 144, 145}


# Links ---------------------------------------------------------------------------------------------------------------


def test_links_that_are_down_are_counted_and_sleep_is_no_fault(start: StartNode) -> None:
    node = start(Profile.GB300)
    node.stub.take_links_down(1, 3, 17)
    rows = node.health()
    assert node.value(rows, 1, "nvlink_active_count") == 16
    assert node.value(rows, 1, "nvlink_inactive_count") == 2
    assert node.value(rows, 1, "health_state") == READABLE
    assert node.value(rows, 0, "nvlink_inactive_count") == 0


def test_a_link_that_cannot_be_read_hides_no_other(start: StartNode) -> None:
    node = start(Profile.B200)
    node.health()
    node.stub.mute_links(4, 8)
    rows = node.health()
    assert node.value(rows, 4, "nvlink_expected_count") == 18
    assert node.value(rows, 4, "nvlink_active_count") == 17
    assert node.value(rows, 4, "nvlink_inactive_count") == 0
    assert node.value(rows, 4, "nvlink_recoveries_failed_count") == 30 * (ALL_LINKS - 9) * 5
    assert node.value(rows, 4, "nvlink_symbol_error_ratio") == pytest.approx(8e-12)  # the next worst, link 16
    assert node.value(rows, 4, "health_state") == PARTLY
    assert node.value(rows, 3, "health_state") == READABLE


def test_a_link_without_a_counter_is_no_fault(start: StartNode) -> None:
    node = start()
    node.stub.take_away(0, "field:163:0", "field:163:1")
    node.health()
    rows = node.health()
    assert node.value(rows, 0, "nvlink_crc_errors_count") == 30 * (ALL_LINKS - 1 - 2) * 3
    assert node.value(rows, 0, "health_state") == READABLE


def test_what_a_mute_link_counted_comes_when_it_can_be_read_again(start: StartNode) -> None:
    node = start(Profile.B200)
    node.health()
    node.stub.mute_links(4, 8)
    first = node.health()
    node.stub.mute_links(4)
    second = node.health()
    errors = [node.value(rows, 4, "nvlink_recoveries_failed_count") for rows in (first, second)]
    assert sum(errors) == 60 * ALL_LINKS * 5
    assert node.value(second, 4, "health_state") == READABLE


def test_a_driver_reload_invents_no_errors(start: StartNode) -> None:
    node = start(Profile.B200)
    node.health()
    node.stub.reload_driver(2)
    rows = node.health()
    # Only the links whose counter is above where it was are counted, and none of them from 0.
    assert node.present(rows, 2) & {"pcie_replays_count", "nvlink_recoveries_failed_count"} == set()
    assert node.value(node.health(), 2, "nvlink_recoveries_failed_count") == 30 * ALL_LINKS * 5


@pytest.mark.parametrize(
    ("raw", "ratio"), [(15 << 8 | 255, 0.0), (1 << 8 | 12, 1e-12), (9 << 8 | 3, 9e-3), (1 << 8, 1.0), (0, 0.0)]
)
def test_packed_ratios_are_mantissa_and_negative_exponent(raw: int, ratio: float) -> None:
    assert bit_error_ratio(raw) == pytest.approx(ratio, rel=1e-12, abs=1e-200)


# Fabric --------------------------------------------------------------------------------------------------------------


def test_a_fabric_that_is_not_ready_has_no_clique(start: StartNode) -> None:
    node = start(Profile.GB300)
    node.stub.set_fabric(0, state=2, mask=0, summary=0)
    node.stub.set_fabric(1, state=1, mask=0, summary=0)
    node.stub.set_fabric(2, status=999, summary=2)
    rows = node.health()
    assert [node.value(rows, gpu, "fabric_state") for gpu in range(4)] == [2, 3, 1, 1]
    fabric = {metric.name for metric in GPU_HEALTH.metrics if metric.name.startswith("fabric_")}
    assert node.present(rows, 0) & fabric == {"fabric_state"}
    assert node.value(rows, 2, "fabric_status_state") == 999
    assert node.value(rows, 2, "fabric_summary_state") == 3
    assert "fabric_clique_state" not in node.present(rows, 2)


def test_a_gpu_without_fabric_is_absent_and_no_fault(start: StartNode) -> None:
    node = start()
    node.stub.set_fabric(0, state=0)
    rows = node.health()
    assert not any(name.startswith("fabric_") for name in node.present(rows, 0))
    assert node.value(rows, 0, "health_state") == READABLE


@pytest.mark.parametrize(
    ("mask", "reasons", "configuration"),
    [
        (HEALTHY_FABRIC, 0x00, 1),
        (HEALTHY_FABRIC & ~0x3 | 0x1, 0x01, 1),
        (HEALTHY_FABRIC & ~0xC | 0x4, 0x02, 1),
        (HEALTHY_FABRIC & ~0x30 | 0x10, 0x04, 1),
        (HEALTHY_FABRIC & ~0xC0 | 0x40, 0x08, 1),
        (HEALTHY_FABRIC & ~0xF00 | 0x500, 0x10, 5),
        (HEALTHY_FABRIC & ~0x3000 | 0x2000, 0x20, 1),
        (HEALTHY_FABRIC & ~0xC000 | 0x8000, 0x40, 1),
        (0x1 | 0x40, 0x09, None),
    ],
)
def test_each_complaint_about_the_fabric_has_its_bit(mask: int, reasons: int, configuration: int | None) -> None:
    known = {} if configuration is None else {"fabric_configuration_state": configuration}
    assert fabric_health(mask) == {"fabric_health_reasons": reasons, **known}


def test_a_fabric_that_does_not_tell_has_no_health() -> None:
    assert fabric_health(0) == {}


def test_the_clique_is_in_the_inventory_and_follows_the_fabric(start: StartNode) -> None:
    node = start(Profile.GB300)
    node.stub.set_fabric(3, state=2)
    attributes = [message.attributes for message in node.source.inventory()][2:]
    assert [gpu.get("fabric_clique") for gpu in attributes] == ["32766", "32766", "32767", None]
    assert attributes[0]["fabric_cluster"] == "01020304-0506-0708-090a-0b0c0d0e0f10"
    node.stub.set_fabric(3)
    node.health()
    assert node.source.inventory()[-1].attributes["fabric_clique"] == "32767"


# Faults --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", range(8))
def test_the_recovery_action_keeps_the_drivers_number(start: StartNode, action: int) -> None:
    node = start(Profile.B200)
    node.stub.ask_for_recovery(5, action)
    assert node.value(node.health(), 5, "recovery_action_state") == action


def test_mig_leaves_one_row_per_board(start: StartNode) -> None:
    node = start()
    node.stub.enable_mig(2)
    rows = node.health()
    assert rows.size == 8
    assert [node.value(rows, gpu, "mig_state") for gpu in (1, 2)] == [0, 1]


def test_blank_values_of_a_driver_are_absent(start: StartNode) -> None:
    node = start(Profile.GB300)
    node.health()
    node.stub.fill_with_sentinels(2)
    rows = node.health()
    # The outcome of the fabric's registration is a return code, MIG a mode: there is no blank to them.
    assert node.present(rows, 2) == {"health_state", "mig_state"}
    assert node.value(rows, 2, "health_state") == PARTLY
    assert node.value(rows, 1, "health_state") == READABLE


def test_what_a_gpu_does_not_support_is_absent_and_asked_again_only_at_the_next_probe(start: StartNode) -> None:
    node = start()
    node.stub.set_count(1)
    node.stub.take_away(0, "nvmlDeviceGetSramEccErrorStatus", "field:145:0", "field:91:0")
    missing = {"sram_threshold_exceeded_state", "remap_failure_state", "nvlink_expected_count"}
    rows = node.health()
    assert node.present(rows, 0) & missing == set()
    assert node.value(rows, 0, "nvlink_active_count") == LINKS
    assert node.value(rows, 0, "health_state") == READABLE
    node.stub.take_away(0)
    assert node.present(node.health(), 0) & missing == set()
    assert node.present(node.health(seconds=REPROBE_S), 0) >= missing


def test_what_the_agent_may_not_read_is_absent_and_said(start: StartNode) -> None:
    node = start(Profile.B200)
    node.stub.refuse(1, "field:258:0", "nvmlDeviceGetRowRemapperHistogram")
    rows = node.health()
    assert "power_smoothing_life_ratio" not in node.present(rows, 1)
    assert "remap_banks_exhausted_count" not in node.present(rows, 1)
    assert node.value(rows, 1, "health_state") == PARTLY


def test_a_gpu_without_any_field_values_still_gives_the_rest(start: StartNode) -> None:
    node = start(Profile.B200)
    node.stub.take_away(0, "nvmlDeviceGetFieldValues")
    rows = node.health()
    assert node.value(rows, 0, "pcie_lanes_count") == 16
    assert node.value(rows, 0, "fabric_state") == 1
    assert "ecc_volatile_correctable_count" not in node.present(rows, 0)


def test_a_dark_gpu_has_a_dark_row_and_the_others_their_health(start: StartNode) -> None:
    node = start(deadline_s=HASTY_S)
    node.health()
    node.stub.hang(3)
    node.readings(seconds=1)
    node.readings(seconds=1)
    rows = node.health()
    assert node.present(rows, 3) == {"health_state"}
    assert node.value(rows, 3, "health_state") == DARK
    assert node.value(rows, 4, "health_state") == READABLE


def test_health_that_finds_no_time_comes_with_the_next_tick(start: StartNode) -> None:
    node = start(deadline_s=HASTY_S)
    node.readings(seconds=1)
    node.stub.hang(3)
    assert [reading.table for reading in node.readings(seconds=HEALTH_S)] == [GPU]
    rows = node.health(seconds=1)
    assert node.value(rows, 3, "health_state") == DARK
    assert node.value(rows, 0, "health_state") == READABLE


def test_health_that_never_finds_time_is_read_all_the_same(start: StartNode) -> None:
    node = start(deadline_s=0.09)
    ticks = [len(node.readings(seconds=1)) for _ in range(8)]
    assert ticks == [1, 1, 1, 1, 1, 2, 1, 1]


def test_a_lost_gpu_is_dark_in_its_health_too(start: StartNode) -> None:
    node = start()
    node.health()
    node.stub.lose(6)
    rows = node.health()
    assert node.present(rows, 6) == {"health_state"}
    assert node.value(rows, 5, "health_state") == READABLE


def test_errors_over_a_restart_of_the_agent_are_counted(start: StartNode) -> None:
    notebook = Notebook()
    node = start(Profile.B200, counters=notebook)
    node.health()
    node.source.close()
    node.source = another_source(counters=notebook)
    rows = node.health(seconds=300, device_ms=300_000)
    assert node.value(rows, 0, "pcie_replays_count") == 300
    assert node.value(rows, 0, "nvlink_recoveries_failed_count") == 300 * ALL_LINKS * 5


def test_a_node_of_eight_is_read_for_little_processor_time(start: StartNode) -> None:
    """Generous bounds: the benchmark has the figure, this only finds what became slow by a factor."""
    node = start(Profile.B200)
    node.health()
    began = time.process_time()
    for _ in range(30):
        node.readings(seconds=1)
    assert (time.process_time() - began) / 30 < 0.02
