"""The NVML source against the stub library: every value in its unit, and what happens when GPUs misbehave.

Expected values are written here from the stub's formulas (tests/servers/nvml/stub.c), in base units.
"""

import ctypes
import json
import logging
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pynvml  # type: ignore[import-untyped]  # ships no types
import pytest

from catalogue import GPU, Kind, ResourceKind, resource_id
from collectors.counters import CounterStore
from collectors.nvml.binding import REPROBE_S, is_blank
from collectors.nvml.source import REOPEN_S, RETRY_S, NvmlSource
from collectors.source import SourceUnavailableError
from collectors.tray import TrayPlace
from stream.rows import Rows, in_base_unit
from tests.servers.notebook import Notebook
from tests.servers.nvml_stub import NvmlStub, Profile, control_size, nvml_stub, structure_sizes

ROOT = Path(__file__).resolve().parents[2]
START_S = 1_800_000_000
PATIENT_S = 10.0  # for tests in which nothing hangs, on a machine under load
HASTY_S = 0.3
READABLE, PARTLY, DARK = 1, 2, 3

MACHINE = TrayPlace("0123456789abcdef", "node-7")
DELTAS = {metric.name for metric in GPU.of_kind(Kind.DELTA)}
ACTIVITY = (
    "graphics_active_ratio",
    "sm_active_ratio",
    "sm_occupancy_ratio",
    "tensor_active_ratio",
    "dram_active_ratio",
    "fp64_active_ratio",
    "fp32_active_ratio",
    "fp16_active_ratio",
)
LINKS = (
    "pcie_transmit_bytes_per_second",
    "pcie_receive_bytes_per_second",
    "nvlink_transmit_bytes_per_second",
    "nvlink_receive_bytes_per_second",
    "c2c_transmit_bytes_per_second",
    "c2c_receive_bytes_per_second",
)
GPM = {*ACTIVITY, *LINKS}


class Node:
    """A source over a stub, and the ticks between them."""

    def __init__(self, stub: NvmlStub, source: NvmlSource) -> None:
        self.stub = stub
        self.source = source
        self.time_s = START_S

    def tick(self, *, seconds: int = 1, device_ms: int = 1003) -> Rows:
        """One read, `seconds` after the one before; the devices' own clock moves by `device_ms`."""
        self.time_s += seconds
        self.stub.set_clock(self.stub.clock_ms + device_ms)
        reading, *_ = self.source.read(self.time_s)
        assert reading.table is GPU
        return reading.rows

    def row_of(self, rows: Rows, gpu: int) -> Rows:
        found: Rows = rows[rows["resource"] == resource_id(ResourceKind.GPU, self.stub.uuid(gpu))]
        assert found.size == 1
        return found

    def value(self, rows: Rows, gpu: int, metric: str) -> float:
        return float(in_base_unit(GPU.metric(metric), self.row_of(rows, gpu))[0])

    def present(self, rows: Rows, gpu: int) -> set[str]:
        """The names of the metrics that are not absent."""
        return {metric.name for metric in GPU.metrics if not math.isnan(self.value(rows, gpu, metric.name))}


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
            running.callback(node.source.close)
            return node

        yield start_node


def another_source(
    *, deadline_s: float = PATIENT_S, counters: CounterStore | None = None, boot: str = "boot 1"
) -> NvmlSource:
    return NvmlSource(
        machine=MACHINE,
        deadline_s=deadline_s,
        counters=counters,
        booted=lambda: boot,
        clock=partial(next, count(START_S)),
    )


def test_structures_have_the_sizes_that_nvidia_ml_py_declares(start: StartNode) -> None:
    sizes = dict(structure_sizes(start().stub.shared_object))
    assert sizes.pop("control") == control_size()
    assert sizes.pop("c_nvmlGpmMetricsGet_t") == pynvml.c_nvmlGpmMetricsGet_t.metrics.offset
    assert sizes == {name: ctypes.sizeof(getattr(pynvml, name)) for name in sizes}


# Values --------------------------------------------------------------------------------------------------------------

# The second read is 2 x 1003 ms after the stub's start at 1000 s; GPM sees one whole second between its samples.
INSTANT_S = 1002
MEBIBYTE = 1 << 20


def expected(profile: Profile, i: int) -> dict[str, float]:
    """Every metric of GPU `i` at the second tick, in base units; what a generation does not have is NaN."""
    grace = profile is Profile.GB300
    blackwell = profile is not Profile.H100
    throttled_s = {name: 1003 * rate * 1001 * (i + 1) * 1e-9 for name, rate in THROTTLE_RATES.items()}
    return {
        "power_watts": 400 + 10 * i + INSTANT_S % 10,
        "power_average_watts": 390 + 10 * i,
        "module_power_watts": 1000 + 20 * i if grace else math.nan,
        "memory_power_watts": 90 + i if blackwell else math.nan,
        "power_limit_watts": {Profile.H100: 700, Profile.B200: 1000, Profile.GB300: 1400}[profile],
        "energy_joules": 1.003 * (401 + i),
        "temperature_celsius": 40 + i,
        "memory_temperature_celsius": 50 + i,
        "temperature_margin_kelvin": 3 - 2 * i,
        "sm_clock_hertz": (1980 - 15 * i) * 1e6,
        "memory_clock_hertz": (2619 + i) * 1e6,
        "graphics_clock_hertz": (1500 + i) * 1e6,
        "utilization_ratio": (90 + i) / 100,
        "memory_copy_utilization_ratio": (30 + i) / 100,
        "encoder_utilization_ratio": (5 + i) / 100,
        "decoder_utilization_ratio": (7 + i) / 100,
        **{name: (3 * number + 2 * i + 1 + 0.2) / 100 for name, number in zip(ACTIVITY, GPM_ACTIVITY, strict=True)},
        **{
            name: (100 * number + 10 * i + 1) * MEBIBYTE if grace or number < 100 else math.nan
            for name, number in zip(LINKS, GPM_LINKS, strict=True)
        },
        "memory_used_bytes": (10_000 + 100 * i) * MEBIBYTE,
        "memory_reserved_bytes": (512 + i) * MEBIBYTE,
        "memory_size_bytes": {Profile.H100: 81_559, Profile.B200: 183_359, Profile.GB300: 284_208}[profile] * MEBIBYTE,
        "clock_event_reasons": 0x24 if i % 2 else 0x04,
        **throttled_s,
        "performance_state": i % 2 * 2,
        "process_count": i,
        "gpu_state": READABLE,
    }


# nvml.h, NVML_GPM_METRIC_*, in the order of ACTIVITY and LINKS.
GPM_ACTIVITY = (1, 2, 3, 5, 10, 11, 12, 13)
GPM_LINKS = (20, 21, 61, 60, 100, 101)
# Field % 7 + 1 of NVML_FI_DEV_PERF_POLICY_POWER 74, _SYNC_BOOST 76, NVML_FI_DEV_CLOCKS_EVENT_REASON_* 269 to 271.
THROTTLE_RATES = {
    "throttled_power_cap_seconds": 5,
    "throttled_sync_boost_seconds": 7,
    "throttled_software_thermal_seconds": 4,
    "throttled_hardware_thermal_seconds": 5,
    "throttled_power_brake_seconds": 6,
}


@pytest.mark.parametrize("profile", Profile)
def test_every_metric_has_its_value_in_its_unit(start: StartNode, profile: Profile) -> None:
    node = start(profile)
    node.tick()
    rows = node.tick()
    assert rows.size == profile.gpus
    assert set(rows["time"]) == {node.time_s}
    for gpu in range(profile.gpus):
        values = expected(profile, gpu)
        assert set(values) == {metric.name for metric in GPU.metrics}
        for metric in GPU.metrics:
            half_a_step = pytest.approx(values[metric.name], rel=1e-12, abs=float(metric.resolution) / 2, nan_ok=True)
            # What is counted is not rounded but carried, so a tick may show up to one step less.
            a_step = pytest.approx(values[metric.name], rel=1e-12, abs=float(metric.resolution))
            assert node.value(rows, gpu, metric.name) == (a_step if metric.name in DELTAS else half_a_step), metric.name


def test_rows_are_in_order_of_the_index(start: StartNode) -> None:
    node = start()
    uuids = [resource_id(ResourceKind.GPU, node.stub.uuid(gpu)) for gpu in range(8)]
    assert node.tick()["resource"].tolist() == uuids


def test_the_first_tick_has_levels_but_nothing_that_needs_two_reads(start: StartNode) -> None:
    node = start(Profile.GB300)
    assert node.present(node.tick(), 0) == {metric.name for metric in GPU.metrics} - DELTAS - GPM


def test_energy_of_a_run_is_the_counters_difference_but_for_the_step_still_carried(start: StartNode) -> None:
    node = start()
    node.tick()
    before = [node.stub.energy_mj(gpu) for gpu in range(8)]
    throttled_before = node.stub.throttled_ns(3, 271)
    runs = [node.tick(device_ms=991 + 7 * (step % 5)) for step in range(60)]
    for gpu in range(8):
        decijoules = sum(int(node.row_of(rows, gpu)["energy_joules_raw"][0]) for rows in runs)
        assert decijoules == (node.stub.energy_mj(gpu) - before[gpu]) // 100
    microseconds = sum(int(node.row_of(rows, 3)["throttled_power_brake_seconds_raw"][0]) for rows in runs)
    assert microseconds == (node.stub.throttled_ns(3, 271) - throttled_before) // 1000


def test_mig_leaves_one_row_per_board_and_its_energy_once(start: StartNode) -> None:
    node = start()
    node.stub.enable_mig(2)
    node.tick()
    rows = node.tick()
    assert rows.size == 8
    assert node.value(rows, 2, "energy_joules") == pytest.approx(1.003 * 403, abs=0.1)
    assert math.isnan(node.value(rows, 2, "utilization_ratio"))
    assert node.value(rows, 2, "gpu_state") == READABLE


# Faults --------------------------------------------------------------------------------------------------------------


def test_a_gpu_that_hangs_is_dark_and_the_others_are_read_in_time(start: StartNode) -> None:
    node = start(deadline_s=HASTY_S)
    node.tick()
    node.tick()
    node.stub.hang(3)
    began = time.monotonic()
    rows = node.tick()
    assert time.monotonic() - began < HASTY_S + 5
    assert node.present(rows, 3) == {"gpu_state"}
    assert node.value(rows, 3, "gpu_state") == DARK
    for gpu in (0, 1, 2, 4, 5, 6, 7):
        assert node.value(rows, gpu, "gpu_state") == READABLE
        assert node.value(rows, gpu, "energy_joules") == pytest.approx(1.003 * (401 + gpu), abs=0.1)


def test_a_gpu_that_hangs_is_not_called_again_and_costs_no_more_time(start: StartNode) -> None:
    node = start(deadline_s=1.0)
    node.stub.set_count(1)
    node.tick()
    node.stub.hang(0)
    node.tick()
    node.stub.calls()
    began = time.monotonic()
    rows = node.tick()
    assert time.monotonic() - began < 1.0  # the deadline
    assert node.stub.calls() == 0
    assert node.value(rows, 0, "gpu_state") == DARK


def test_energy_of_the_dark_interval_comes_with_the_first_read_after_it(start: StartNode) -> None:
    node = start(deadline_s=HASTY_S)
    node.tick()
    before_mj = node.stub.energy_mj(3)
    node.stub.hang(3)
    for _ in range(3):
        assert math.isnan(node.value(node.tick(), 3, "energy_joules"))
    node.stub.hang(3, hangs=False)
    rows = until(node, lambda rows: node.value(rows, 3, "gpu_state") != DARK)
    assert int(node.row_of(rows, 3)["energy_joules_raw"][0]) == (node.stub.energy_mj(3) - before_mj) // 100
    assert node.present(rows, 3) & GPM == set()  # a mean over the dark interval is not this tick's
    assert node.present(node.tick(), 3) >= GPM - {"c2c_transmit_bytes_per_second", "c2c_receive_bytes_per_second"}


def until(node: Node, holds: Callable[[Rows], bool]) -> Rows:
    """The first tick of which something holds: a stuck call needs a moment to come back."""
    for _ in range(100):
        time.sleep(0.02)
        rows = node.tick()
        if holds(rows):
            return rows
    raise AssertionError("a hundred ticks, and the GPU did not come back")


def test_a_gpu_that_hangs_from_the_start_gets_its_row_when_it_answers(start: StartNode) -> None:
    node = start(deadline_s=HASTY_S)
    node.stub.hang(0)
    assert len(node.source.inventory()) == 1 + 7  # the tray and the others
    assert node.tick().size == 7
    assert node.source.answering() == 7
    node.stub.hang(0, hangs=False)
    assert until(node, lambda rows: rows.size == 8)["resource"][0] == resource_id(ResourceKind.GPU, node.stub.uuid(0))
    assert len(node.source.inventory()) == 1 + 8


def test_a_dark_gpu_is_logged_when_it_goes_and_when_it_comes_back(
    start: StartNode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="collectors.nvml.source")
    node = start(deadline_s=HASTY_S)
    node.tick()
    node.stub.hang(3)
    for _ in range(3):
        node.tick()
    assert [record.getMessage() for record in caplog.records] == ["A GPU is dark"]
    node.stub.hang(3, hangs=False)
    until(node, lambda rows: node.value(rows, 3, "gpu_state") != DARK)
    assert [record.getMessage() for record in caplog.records][1:] == ["A GPU is readable again"]
    assert {record.__dict__["gpu"] for record in caplog.records} == {node.stub.uuid(3)}


def test_all_gpus_dark_is_a_reading_and_not_a_failed_source(start: StartNode) -> None:
    node = start(deadline_s=HASTY_S)
    node.tick()
    for gpu in range(8):
        node.stub.hang(gpu)
    rows = node.tick()
    assert set(in_base_unit(GPU.metric("gpu_state"), rows)) == {DARK}
    assert node.source.answering() == 0


def test_a_lost_gpu_is_dark_tried_slowly_and_keeps_its_energy(start: StartNode) -> None:
    node = start()
    node.tick()
    before_mj = node.stub.energy_mj(5)
    node.stub.lose(5)
    rows = node.tick()
    assert node.present(rows, 5) == {"gpu_state"}
    assert node.value(rows, 5, "gpu_state") == DARK
    assert node.value(rows, 4, "gpu_state") == READABLE
    node.stub.lose(5, lost=False)
    assert node.value(node.tick(seconds=RETRY_S - 1), 5, "gpu_state") == DARK
    rows = node.tick()
    assert node.value(rows, 5, "gpu_state") == READABLE
    assert int(node.row_of(rows, 5)["energy_joules_raw"][0]) == (node.stub.energy_mj(5) - before_mj) // 100


def test_nvml_starts_anew_for_a_lost_gpu_at_the_price_of_one_tick_of_activity(start: StartNode) -> None:
    node = start()
    node.tick()
    node.stub.lose(5)
    node.tick()
    rows = node.tick(seconds=REOPEN_S, device_ms=1003 * REOPEN_S)
    assert node.present(rows, 0) & GPM == set()
    assert node.value(rows, 0, "gpu_state") == READABLE
    assert node.value(rows, 0, "energy_joules") == pytest.approx(1.003 * REOPEN_S * 401, abs=0.1)
    assert node.present(node.tick(), 0) & GPM


def test_a_driver_reload_yields_no_energy_and_no_negative_one(start: StartNode) -> None:
    node = start()
    node.tick()
    node.stub.reload_driver(1)
    rows = node.tick()
    assert node.present(rows, 1) & DELTAS == set()
    assert node.value(rows, 1, "gpu_state") == READABLE
    assert node.value(node.tick(), 1, "energy_joules") == pytest.approx(1.003 * 402, abs=0.1)


@pytest.mark.parametrize("garbage_mj", [0, 1, 4_000_000_000_000_000, 0x7FFF_FFFF_FFFF_FFF2, 0x7FFF_FFFF_FFFF_FFFF])
def test_an_energy_counter_that_reads_garbage_once_invents_nothing(start: StartNode, garbage_mj: int) -> None:
    node = start()
    node.tick()
    before_mj = node.stub.energy_mj(0)
    node.stub.read_energy_as(0, garbage_mj)
    ticks = [node.tick()]
    node.stub.read_energy_as(0, None)
    ticks += [node.tick() for _ in range(4)]
    joules = [node.value(rows, 0, "energy_joules") for rows in ticks]
    assert math.isnan(joules[0])
    assert 0 < np.nansum(joules) <= (node.stub.energy_mj(0) - before_mj) / 1000


def test_blank_values_of_a_driver_are_absent_and_the_gpu_partly_readable(start: StartNode) -> None:
    node = start(Profile.GB300)
    node.tick()
    before_mj = node.stub.energy_mj(2)
    node.stub.fill_with_sentinels(2)
    rows = node.tick()
    # A number of processes is the length of a list: there is no blank to it.
    assert node.present(rows, 2) == {"gpu_state", "process_count"}
    assert node.value(rows, 2, "gpu_state") == PARTLY
    node.stub.fill_with_sentinels(2, filled=False)
    rows = node.tick()
    assert int(node.row_of(rows, 2)["energy_joules_raw"][0]) == (node.stub.energy_mj(2) - before_mj) // 100


def test_what_a_gpu_does_not_support_is_absent_and_asked_again_only_at_the_next_probe(start: StartNode) -> None:
    node = start()
    node.stub.set_count(1)
    node.tick()
    node.tick()
    node.stub.calls()
    node.tick()
    usual_calls = node.stub.calls()
    node.stub.take_away(0, "nvmlDeviceGetMarginTemperature", "field:82:0", "field:271:0", "gpm:5")
    rows = node.tick()
    missing = {
        "temperature_margin_kelvin",
        "memory_temperature_celsius",
        "throttled_power_brake_seconds",
        "tensor_active_ratio",
    }
    assert node.present(rows, 0) & missing == set()
    assert node.value(rows, 0, "gpu_state") == READABLE
    node.stub.calls()
    node.tick()
    assert node.stub.calls() == usual_calls - 1
    node.stub.take_away(0)
    assert node.present(node.tick(), 0) & missing == set()
    assert node.present(node.tick(seconds=REPROBE_S), 0) >= missing - {"throttled_power_brake_seconds"}


def test_what_the_agent_may_not_read_is_absent_and_said(start: StartNode) -> None:
    node = start()
    node.stub.refuse(4, "nvmlGpmSampleGet", "field:186:0")
    node.tick()
    rows = node.tick()
    assert node.present(rows, 4) & (GPM | {"power_watts"}) == set()
    assert node.value(rows, 4, "gpu_state") == PARTLY
    assert node.value(rows, 4, "power_average_watts") == 430
    assert node.value(rows, 3, "gpu_state") == READABLE


def test_without_any_permission_a_gpu_is_dark(start: StartNode) -> None:
    node = start()
    node.tick()
    node.stub.refuse(0, "nvmlDeviceGetUUID")
    node.stub.set_count(7)  # makes every GPU identify itself again
    assert node.value(node.tick(), 0, "gpu_state") == DARK


def test_average_power_falls_back_to_the_older_call(start: StartNode) -> None:
    node = start()
    node.stub.take_away(6, "field:185:0")
    assert node.value(node.tick(), 6, "power_average_watts") == 440
    assert node.value(node.tick(), 6, "power_average_watts") == 440


def test_a_gpu_that_vanishes_stays_as_a_dark_row(start: StartNode) -> None:
    node = start()
    node.tick()
    node.stub.set_count(7)
    rows = node.tick()
    assert rows.size == 8
    assert node.value(rows, 7, "gpu_state") == DARK
    assert node.value(rows, 6, "gpu_state") == READABLE
    assert node.source.answering() == 7


def test_a_gpu_that_appears_gets_a_row_and_a_message(start: StartNode) -> None:
    node = start()
    node.stub.set_count(7)
    assert node.tick().size == 7
    node.stub.set_count(8)
    assert node.tick().size == 8
    assert node.stub.uuid(7) in {message.identity for message in node.source.inventory()}


def test_without_its_driver_the_source_is_unavailable_and_comes_back(start: StartNode) -> None:
    node = start()
    node.tick()
    node.stub.unload_driver()
    for _ in range(2):
        with pytest.raises(SourceUnavailableError, match="node-7"):
            node.tick()
        assert node.source.answering() is None
    node.stub.unload_driver(loaded=True)
    assert set(in_base_unit(GPU.metric("gpu_state"), node.tick())) == {READABLE}


def test_nvml_that_went_stale_is_started_anew(start: StartNode) -> None:
    node = start()
    node.tick()
    node.stub.go_stale()
    assert set(in_base_unit(GPU.metric("gpu_state"), node.tick())) == {DARK}
    assert set(in_base_unit(GPU.metric("gpu_state"), node.tick())) == {READABLE}


def test_a_gpu_that_hangs_and_is_counted_no_more_keeps_nvml_open(start: StartNode) -> None:
    node = start(deadline_s=HASTY_S)
    node.tick()
    node.stub.hang(7)
    node.tick()
    node.stub.set_count(7)
    node.tick()
    node.tick(seconds=REOPEN_S)
    assert not node.stub.was_misused()


def test_a_node_without_gpus_says_so(start: StartNode) -> None:
    node = start()
    node.stub.set_count(0)
    assert node.source.inventory() == ()
    with pytest.raises(SourceUnavailableError, match="NVML on node-7 finds no GPU"):
        node.tick()


def test_closing_does_not_wait_for_a_gpu_that_hangs(start: StartNode) -> None:
    node = start(deadline_s=HASTY_S)
    node.tick()
    node.stub.hang(0)
    node.tick()
    began = time.monotonic()
    node.source.close()
    node.source.close()
    assert time.monotonic() - began < 5
    assert not node.stub.was_misused()


# Restarts ------------------------------------------------------------------------------------------------------------


def test_energy_over_a_restart_of_the_agent_is_counted(start: StartNode) -> None:
    notebook = Notebook()
    node = start(counters=notebook)
    node.tick()
    before_mj = node.stub.energy_mj(0)
    node.source.close()
    node.source = another_source(counters=notebook)
    rows = node.tick(seconds=30, device_ms=30_011)
    node.source.close()
    assert int(node.row_of(rows, 0)["energy_joules_raw"][0]) == (node.stub.energy_mj(0) - before_mj) // 100


def test_energy_over_a_reboot_is_absent(start: StartNode) -> None:
    notebook = Notebook()
    node = start(counters=notebook)
    node.tick()
    node.source.close()
    node.source = another_source(counters=notebook, boot="boot 2")
    rows = node.tick(seconds=30, device_ms=30_011)
    node.source.close()
    assert node.present(rows, 0) & DELTAS == set()


# Inventory -----------------------------------------------------------------------------------------------------------


def test_inventory_of_a_rack_scale_node_hangs_gpus_under_tray_and_rack(start: StartNode) -> None:
    node = start(Profile.GB300)
    rack, tray, *gpus = node.source.inventory()
    assert (rack.kind, rack.identity) == (ResourceKind.RACK, "1821525190042")
    assert (tray.kind, tray.identity, tray.parent) == (ResourceKind.TRAY, "1821525190042/17", rack.resource)
    assert tray.attributes["tray_index"] == "200"
    assert [gpu.identity for gpu in gpus] == [node.stub.uuid(gpu) for gpu in range(4)]
    assert {gpu.parent for gpu in gpus} == {tray.resource}
    assert gpus[2].attributes == {
        "index": "2",
        "model": "NVIDIA GB300",
        "serial": "1650000000003",
        "pci_bus_id": "00000000:12:00.0",
        "driver_version": "580.95.05",
        "mig": "disabled",
        "module": "3",
        "fabric_cluster": "01020304-0506-0708-090a-0b0c0d0e0f10",
        "fabric_clique": "32767",
    }
    assert node.source.tray().resource == tray.resource


def test_inventory_without_platform_information_hangs_gpus_under_the_machine(start: StartNode) -> None:
    tray, *gpus = start(Profile.B200).source.inventory()
    assert (tray.identity, tray.name, tray.parent) == ("0123456789abcdef", "node-7", 0)
    assert len(gpus) == 8
    assert {gpu.parent for gpu in gpus} == {tray.resource}


def test_inventory_stays_equal_until_something_changes(start: StartNode) -> None:
    node = start()
    first = node.source.inventory()
    node.tick()
    assert node.source.inventory() == first


# The library ---------------------------------------------------------------------------------------------------------

ASK_ONCE = """
import json, sys
import collectors.nvml.source
loaded_early = "pynvml" in sys.modules
source = collectors.nvml.source.NvmlSource(deadline_s=10.0)
inventory = source.inventory()
try:
    reading, _ = source.read(1)
    said = f"{reading.rows.size} rows"
except collectors.nvml.source.SourceUnavailableError as error:
    said = str(error)
print(json.dumps([loaded_early, len(inventory), said]))
"""


def ask_in_a_process(environment: Mapping[str, str]) -> tuple[bool, int, str]:
    asked = subprocess.run(
        [sys.executable, "-c", ASK_ONCE],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    loaded_early, messages, said = json.loads(asked.stdout)
    return loaded_early, messages, said


def test_a_process_of_its_own_finds_the_library_only_when_the_source_is_used(start: StartNode) -> None:
    assert ask_in_a_process(start(Profile.GB300).stub.environment()) == (False, 6, "4 rows")


def test_without_an_nvml_library_the_source_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library")  # hides a real one
    _, messages, said = ask_in_a_process({"LD_LIBRARY_PATH": str(tmp_path)})
    assert messages == 0
    assert "NVML does not start on" in said
    assert "install the NVIDIA driver" in said


@pytest.mark.parametrize(
    "raw",
    [
        0xFFFF_FFFF,
        0xFFFF_FFFF_FFFF_FFFF,
        0x7FFF_FFF0,
        0x7FFF_FFF3,
        0x7FFF_FFFF,
        0x7FFF_FFFF_FFFF_FFF0,
        0x7FFF_FFFF_FFFF_FFF2,
        140737488355328.0,
        140737488355330.0,
        -140737488355328.0,
        math.nan,
        math.inf,
    ],
)
def test_blank_values_are_known(raw: float) -> None:
    assert is_blank(raw)


@pytest.mark.parametrize("raw", [0, -1, 700_000, 0x1_0000_0000, 0x7FFF_FFEF, 10**15, 0.0, 99.9, 140737488355327.0])
def test_readings_are_not_blank(raw: float) -> None:
    assert not is_blank(raw)
