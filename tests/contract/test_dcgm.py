"""The DCGM source against an HTTP server that sends exporter text of two generations.

Expected values are written by hand from the numbers in tests/fixtures/dcgm, in base units.
"""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from catalogue import GPU, GPU_HEALTH, TABLES, ResourceKind, Table, resource_id
from catalogue.origins import DcgmField
from collectors.dcgm import DcgmSource, dcgm_mapping
from collectors.source import SourceUnavailableError
from collectors.tray import TrayPlace
from stream.messages import EventMessage
from stream.rows import Rows, in_base_unit
from tests.servers.exporter import Exporter, exporter
from tests.servers.notebook import Notebook

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "dcgm"
OLD = (FIXTURES / "before_4_6.txt").read_text()
NEW = (FIXTURES / "since_4_6.txt").read_text()
GPU_A, GPU_B = "GPU-5c2c0001-0000-4000-8000-00000000aaaa", "GPU-5c2c0001-0000-4000-8000-00000000bbbb"
START_S = 1_800_000_000
TRAY = TrayPlace("chassis-4/17", "node-7", rack="chassis-4")
MEBIBYTE = 1 << 20
READABLE, DARK = 1, 3

Values = dict[str, float]


@pytest.fixture
def page() -> Iterator[Exporter]:
    with exporter() as running:
        yield running


def source_on(page: Exporter, *, counters: Notebook | None = None, timeout_s: float = 10.0) -> DcgmSource:
    return DcgmSource(
        page.url, tray=TRAY, counters=counters, timeout_s=timeout_s, booted=lambda: "boot 1", clock=lambda: START_S
    )


def read(source: DcgmSource, seconds: int = 0) -> dict[Table, Rows]:
    return {reading.table: reading.rows for reading in source.read(START_S + seconds)}


def values_of(rows: dict[Table, Rows], table: Table, uuid: str) -> Values:
    """What is not absent in a GPU's row, in base units."""
    row = rows[table][rows[table]["resource"] == resource_id(ResourceKind.GPU, uuid)]
    assert row.size == 1
    values = {metric.name: float(in_base_unit(metric, row)[0]) for metric in table.metrics}
    return {name: value for name, value in values.items() if not math.isnan(value)}


def with_added(text: str, amounts: Mapping[str, int]) -> str:
    """The text with an amount added to every sample of each family."""

    def add(sample: re.Match[str]) -> str:
        return f"{sample[1]} {int(sample[3]) + amounts.get(sample[2], 0)}"

    return re.sub(r"^((\w+)\{.*\}) (\d+)$", add, text, flags=re.MULTILINE)


def without(text: str, uuid: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if uuid not in line)


def line(family: str, value: object, *, uuid: str = GPU_A, **labels: str) -> str:
    found = {"gpu": "0", "UUID": uuid, "Hostname": "node-7", **labels}
    told = ",".join(f'{name}="{label}"' for name, label in found.items())
    return f"{family}{{{told}}} {value}\n"


# Mapping -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "metric", "field"),
    [
        (table, metric.name, origin)
        for table in TABLES
        if table.resources == (ResourceKind.GPU,)
        for metric in table.metrics
        for origin in metric.origins
        if isinstance(origin, DcgmField)
    ],
    ids=str,
)
def test_every_dcgm_field_of_the_catalogue_is_mapped_under_all_its_names(
    table: Table, metric: str, field: DcgmField
) -> None:
    rules = [rule for rule in dcgm_mapping().rules if rule.table is table and rule.metric.name == metric]
    families = {family for rule in rules for family in rule.families}
    assert {name for name in (field.old, field.new) if name} <= families


def test_every_mapped_family_is_a_field_that_the_catalogue_names() -> None:
    for rule in dcgm_mapping().rules:
        fields = [origin for origin in rule.metric.origins if isinstance(origin, DcgmField)]
        assert set(rule.families) <= {name for field in fields for name in (field.old, field.new)}, rule.metric.name


def test_nothing_is_mapped_and_ignored_at_once_and_field_449_is_ignored() -> None:
    mapping = dcgm_mapping()
    assert not mapping.families & mapping.ignored.keys()
    assert {"DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", "DCGM_FI_DEV_NVLINK_THROUGHPUT_TOTAL"} <= mapping.ignored.keys()


def test_only_the_mask_of_the_fabric_belongs_to_two_metrics() -> None:
    families = [family for rule in dcgm_mapping().rules for family in rule.families]
    assert {family for family in families if families.count(family) > 1} == {"DCGM_FI_DEV_FABRIC_HEALTH_MASK"}


# Values --------------------------------------------------------------------------------------------------------------

OLD_GAUGES = {
    "power_watts": 630.1,
    "power_average_watts": 612.3,
    "power_limit_watts": 700.0,
    "temperature_celsius": 52,
    "memory_temperature_celsius": 58,
    "temperature_margin_kelvin": 35,
    "sm_clock_hertz": 1_980e6,
    "memory_clock_hertz": 2_619e6,
    "clock_event_reasons": 0x4,
    "performance_state": 0,
    "utilization_ratio": 0.97,
    "memory_copy_utilization_ratio": 0.61,
    "encoder_utilization_ratio": 0.03,
    "decoder_utilization_ratio": 1.0,
    "graphics_active_ratio": 0.981,
    "sm_active_ratio": 0.912,
    "sm_occupancy_ratio": 0.333,
    "tensor_active_ratio": 0.457,
    "dram_active_ratio": 0.612,
    "fp64_active_ratio": 0.001,
    "fp32_active_ratio": 0.072,
    "fp16_active_ratio": 0.013,
    "pcie_transmit_bytes_per_second": 1_234e6,
    "pcie_receive_bytes_per_second": 987e6,
    "nvlink_transmit_bytes_per_second": 185e9,
    "nvlink_receive_bytes_per_second": 184e9,
    "memory_used_bytes": 71_680 * MEBIBYTE,
    "memory_reserved_bytes": 576 * MEBIBYTE,
    "memory_size_bytes": 81_559 * MEBIBYTE,
    "gpu_state": READABLE,
}
OLD_HEALTH = {
    "ecc_volatile_correctable_count": 5,
    "ecc_volatile_uncorrectable_count": 0,
    "ecc_aggregate_correctable_count": 12,
    "ecc_aggregate_uncorrectable_count": 1,
    "remapped_rows_correctable_count": 2,
    "remapped_rows_uncorrectable_count": 1,
    "remap_pending_state": 0,
    "remap_failure_state": 0,
    "health_state": READABLE,
}


def test_names_before_4_6_give_every_value_in_its_base_unit(page: Exporter) -> None:
    page.show(OLD)
    source = source_on(page)
    rows = read(source)
    assert values_of(rows, GPU, GPU_A) == pytest.approx(OLD_GAUGES)
    assert values_of(rows, GPU_HEALTH, GPU_A) == OLD_HEALTH
    page.show(
        with_added(
            OLD,
            {
                "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": 18_370_350,
                "DCGM_FI_DEV_POWER_VIOLATION": 1_500_000_000,
                "DCGM_FI_DEV_SYNC_BOOST_VIOLATION": 250_000,
                "DCGM_FI_DEV_PCIE_REPLAY_COUNTER": 31,
                "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL": 7,
                "DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL": 3,
                "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL": 2,
                "DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL": 1,
                "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL": 100,
            },
        )
    )
    rows = read(source, 30)
    assert values_of(rows, GPU, GPU_A) == pytest.approx(
        OLD_GAUGES
        | {"energy_joules": 18_370.3, "throttled_power_cap_seconds": 1.5, "throttled_sync_boost_seconds": 0.00025}
    )
    assert values_of(rows, GPU_HEALTH, GPU_A) == OLD_HEALTH | {
        "ecc_volatile_correctable_count": 105,
        "pcie_replays_count": 31,
        "nvlink_crc_errors_count": 10,
        "nvlink_replays_count": 2,
        "nvlink_recoveries_count": 1,
    }
    cold = values_of(rows, GPU, GPU_B)
    assert (cold["power_watts"], cold["temperature_margin_kelvin"], cold["performance_state"]) == (70.9, -2, 8)
    worn = values_of(rows, GPU_HEALTH, GPU_B)
    assert worn["ecc_aggregate_uncorrectable_count"] == 3
    assert (worn["remap_failure_state"], worn["remap_pending_state"]) == (1, 1)


NEW_GAUGES = {
    "power_watts": 1302.0,
    "power_average_watts": 1187.2,
    "power_limit_watts": 1400.0,
    "temperature_celsius": 61,
    "memory_temperature_celsius": 66,
    "temperature_margin_kelvin": 27,
    "sm_clock_hertz": 1_965e6,
    "memory_clock_hertz": 3_996e6,
    "clock_event_reasons": 0x60,
    "performance_state": 0,
    "utilization_ratio": 1.0,  # 100, although it is called a ratio
    "memory_copy_utilization_ratio": 0.44,
    "graphics_active_ratio": 0.97,
    "sm_active_ratio": 0.88,
    "sm_occupancy_ratio": 0.44,
    "tensor_active_ratio": 0.66,
    "dram_active_ratio": 0.77,
    "fp64_active_ratio": 0.011,
    "fp32_active_ratio": 0.022,
    "fp16_active_ratio": 0.033,
    "c2c_transmit_bytes_per_second": 90e9,
    "c2c_receive_bytes_per_second": 80e9,
    "memory_used_bytes": 250_000 * MEBIBYTE,
    "memory_reserved_bytes": 900 * MEBIBYTE,
    "memory_size_bytes": 294_912 * MEBIBYTE,
    "gpu_state": READABLE,
}
NEW_HEALTH = {
    "sram_threshold_exceeded_state": 0,
    "remapped_rows_correctable_count": 0,
    "remapped_rows_uncorrectable_count": 0,
    "remap_failure_state": 0,
    "remap_banks_full_count": 640,
    "remap_banks_low_count": 0,
    "remap_banks_exhausted_count": 0,
    "memory_unrepairable_state": 0,
    "nvlink_symbol_error_ratio": 1.5e-12,
    "nvlink_effective_error_ratio": 2.5e-15,
    "pcie_generation_count": 6,
    "pcie_lanes_count": 16,
    "fabric_state": 1,  # completed
    "fabric_status_state": 0,
    "fabric_clique_state": 32_766,
    "fabric_summary_state": 3,  # unhealthy
    "fabric_health_reasons": 0x04 | 0x10,  # route unhealthy, incorrect configuration
    "fabric_configuration_state": 5,  # insufficient NVLinks
    "recovery_action_state": 4,
    "power_smoothing_life_ratio": 0.87,
    "health_state": READABLE,
}


def test_names_since_4_6_give_every_value_in_its_base_unit(page: Exporter) -> None:
    page.show(NEW)
    source = source_on(page)
    rows = read(source)
    assert values_of(rows, GPU, GPU_A) == pytest.approx(NEW_GAUGES)
    assert values_of(rows, GPU_HEALTH, GPU_A) == pytest.approx(NEW_HEALTH)
    page.show(
        with_added(
            NEW,
            {
                "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": 39_060_000,
                "DCGM_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP_NS": 1_000_000_000,
                "DCGM_FI_DEV_CLOCKS_EVENT_REASON_SYNC_BOOST_NS": 2_000_000_000,
                "DCGM_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN_NS": 3_000_000_000,
                "DCGM_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN_NS": 4_000_000_000,
                "DCGM_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN_NS": 5_000_000_000,
                "DCGM_FI_DEV_PCIE_REPLAY_TOTAL": 4,
                "DCGM_FI_DEV_NVLINK_RX_PACKET_MALFORMED_TOTAL": 1,
                "DCGM_FI_DEV_NVLINK_RX_PACKET_DROPPED_TOTAL": 2,
                "DCGM_FI_DEV_NVLINK_RECOVERY_SUCCESSFUL_TOTAL": 505,
                "DCGM_FI_DEV_NVLINK_RECOVERY_FAILED_TOTAL": 1,
            },
        )
    )
    rows = read(source, 30)
    assert values_of(rows, GPU, GPU_A) == pytest.approx(
        NEW_GAUGES
        | {
            "energy_joules": 39_060.0,
            "throttled_power_cap_seconds": 1,
            "throttled_sync_boost_seconds": 2,
            "throttled_software_thermal_seconds": 3,
            "throttled_hardware_thermal_seconds": 4,
            "throttled_power_brake_seconds": 5,
        }
    )
    assert values_of(rows, GPU_HEALTH, GPU_A) == pytest.approx(
        NEW_HEALTH
        | {
            "pcie_replays_count": 4,
            "nvlink_malformed_packets_count": 1,
            "nvlink_buffer_overruns_count": 2,
            "nvlink_recoveries_succeeded_count": 505,
            "nvlink_recoveries_failed_count": 1,
        }
    )
    other = values_of(rows, GPU_HEALTH, GPU_B)
    assert (other["fabric_state"], other["remap_banks_exhausted_count"], other["memory_unrepairable_state"]) == (
        2,
        1,
        1,
    )
    assert not {"fabric_health_reasons", "fabric_configuration_state", "fabric_summary_state"} & other.keys()


def test_a_fixture_of_each_generation_covers_every_metric_that_has_a_dcgm_field(page: Exporter) -> None:
    page.show(OLD + NEW)
    families = {found[0].split("{")[0] for found in re.finditer(r"^[A-Z].*$", OLD + NEW, flags=re.MULTILINE)}
    unread = [rule.families for rule in dcgm_mapping().rules if not families & set(rule.families)]
    assert unread == []


def test_an_exporter_that_sends_both_names_is_read_once(page: Exporter) -> None:
    both = line("DCGM_FI_DEV_POWER_VIOLATION", 1000) + line("DCGM_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP_NS", 1000)
    page.show(both)
    source = source_on(page)
    assert "throttled_power_cap_seconds" not in values_of(read(source), GPU, GPU_A)
    page.show(both.replace(" 1000", " 3000000"))
    assert values_of(read(source, 10), GPU, GPU_A)["throttled_power_cap_seconds"] == pytest.approx(0.002999)


def test_a_field_that_is_not_exported_is_absent(page: Exporter) -> None:
    page.show("".join(text for text in OLD.splitlines(keepends=True) if "DCGM_FI_PROF" not in text))
    values = values_of(read(source_on(page)), GPU, GPU_A)
    assert not [name for name in values if "active" in name or "occupancy" in name or "nvlink" in name]
    assert values["utilization_ratio"] == 0.97


@pytest.mark.parametrize(
    "blank",
    [
        "9223372036854775792",
        "9223372036854775794",
        "9.223372036854776e+18",
        "140737488355328.000000",
        "140737488355330.000000",
        "2147483634",
        "NaN",
        "+Inf",
        "9" * 500,
    ],
)
@pytest.mark.parametrize(
    ("family", "metric"),
    [
        ("DCGM_FI_DEV_POWER_USAGE", "power_average_watts"),
        ("DCGM_FI_DEV_GPU_TEMP", "temperature_celsius"),
        ("DCGM_FI_DEV_CLOCK_THROTTLE_REASONS", "clock_event_reasons"),
        ("DCGM_FI_DEV_FB_USED", "memory_used_bytes"),
    ],
)
def test_a_sentinel_is_absent(page: Exporter, family: str, metric: str, blank: str) -> None:
    page.show(line("DCGM_FI_DEV_SM_CLOCK", 1980) + line(family, 3))
    source = source_on(page)
    assert metric in values_of(read(source), GPU, GPU_A)
    page.show(line("DCGM_FI_DEV_SM_CLOCK", 1980) + line(family, blank))
    assert values_of(read(source, 1), GPU, GPU_A) == {"sm_clock_hertz": 1_980e6, "gpu_state": READABLE}


def test_a_sentinel_in_a_counter_is_neither_energy_nor_a_reset(page: Exporter) -> None:
    source = source_on(page)
    energy = []
    for seconds, text in enumerate(("1000000", "9223372036854775794", "1700000", "1800000")):
        page.show(line("DCGM_FI_DEV_SM_CLOCK", 1980) + line("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", text))
        energy.append(values_of(read(source, seconds), GPU, GPU_A).get("energy_joules"))
    assert energy == [None, None, 700.0, 100.0]


def test_a_whole_counter_may_pass_where_floats_have_their_sentinel(page: Exporter) -> None:
    """281474976710656 ns of throttling are 78 hours, and twice the sentinel of floats."""
    page.show(OLD)
    source = source_on(page)
    read(source)
    page.show(with_added(OLD, {"DCGM_FI_DEV_POWER_VIOLATION": 2_000_000}))
    assert values_of(read(source, 1), GPU, GPU_A)["throttled_power_cap_seconds"] == 0.002


def test_a_driver_reload_makes_no_energy(page: Exporter) -> None:
    source = source_on(page)
    energy = []
    for seconds, (driver, text) in enumerate((("550", 5_000_000), ("550", 5_100_000), ("550", 300), ("580", 900_000))):
        page.show(line("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", text, DCGM_FI_DRIVER_VERSION=driver))
        energy.append(values_of(read(source, seconds), GPU, GPU_A).get("energy_joules"))
    assert energy == [None, 100.0, None, None]


def test_energy_over_a_restart_of_the_agent_is_counted(page: Exporter) -> None:
    notebook = Notebook()
    page.show(OLD)
    read(source_on(page, counters=notebook))
    page.show(with_added(OLD, {"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": 36_000_000}))
    assert values_of(read(source_on(page, counters=notebook), 60), GPU, GPU_A)["energy_joules"] == 36_000.0


def test_health_has_rows_every_half_minute_and_deltas_that_cover_it(page: Exporter) -> None:
    source = source_on(page)
    seen = {}
    for seconds in range(0, 70, 10):
        page.show(with_added(OLD, {"DCGM_FI_DEV_PCIE_REPLAY_COUNTER": seconds}))
        rows = read(source, seconds)
        assert GPU in rows
        if GPU_HEALTH in rows:
            seen[seconds] = values_of(rows, GPU_HEALTH, GPU_A).get("pcie_replays_count")
    assert seen == {0: None, 30: 30, 60: 30}


# MIG -----------------------------------------------------------------------------------------------------------------


def instances(family: str, *numbers: object) -> str:
    return "".join(
        line(family, number, GPU_I_ID=str(index + 7), GPU_I_PROFILE="1g.10gb") for index, number in enumerate(numbers)
    )


def test_what_mig_repeats_is_taken_once(page: Exporter) -> None:
    energy, power = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "DCGM_FI_DEV_POWER_USAGE"
    page.show(instances(energy, *[126_272_101_025] * 4) + instances(power, 401.5, 401.5, 401.5, 402.5))
    source = source_on(page)
    read(source)
    page.show(instances(energy, *[126_272_505_025] * 4) + instances(power, 401.5, 401.5, 401.5, 402.5))
    rows = read(source, 1)
    assert rows[GPU].size == 1
    assert values_of(rows, GPU, GPU_A) == {"power_average_watts": 402.5, "energy_joules": 404.0, "gpu_state": READABLE}


def test_memory_of_instances_adds_up_and_their_activity_does_not(page: Exporter) -> None:
    page.show(
        instances("DCGM_FI_DEV_FB_USED", 100, 200, 300)
        + instances("DCGM_FI_DEV_FB_TOTAL", 9728, 9728, 9728)
        + instances("DCGM_FI_PROF_SM_ACTIVE", 1.0, 0.5, 0.0)
        + instances("DCGM_FI_PROF_GR_ENGINE_ACTIVE", 1.0)
    )
    assert values_of(read(source_on(page)), GPU, GPU_A) == {
        "memory_used_bytes": 600 * MEBIBYTE,
        "gpu_state": READABLE,
    }


def test_a_sum_with_an_instance_unknown_is_unknown(page: Exporter) -> None:
    page.show(instances("DCGM_FI_DEV_FB_USED", 100, "9223372036854775794") + instances("DCGM_FI_DEV_GPU_TEMP", 50, 50))
    assert values_of(read(source_on(page)), GPU, GPU_A) == {"temperature_celsius": 50, "gpu_state": READABLE}


def test_the_whole_goes_before_its_instances(page: Exporter) -> None:
    page.show(instances("DCGM_FI_DEV_FB_USED", 100, 200) + line("DCGM_FI_DEV_FB_USED", 350) * 2)
    assert values_of(read(source_on(page)), GPU, GPU_A)["memory_used_bytes"] == 350 * MEBIBYTE


def test_a_split_gpu_says_so_in_the_inventory(page: Exporter) -> None:
    page.show(instances("DCGM_FI_DEV_GPU_TEMP", 50, 50) + line("DCGM_FI_DEV_GPU_TEMP", 40, uuid=GPU_B))
    source = source_on(page)
    read(source)
    assert [message.attributes.get("mig") for message in source.inventory()] == ["enabled", None]


# GPUs that come and go -----------------------------------------------------------------------------------------------


def test_a_gpu_that_vanishes_from_the_page_is_dark_and_the_other_goes_on(page: Exporter) -> None:
    page.show(OLD)
    source = source_on(page)
    read(source)
    page.show(without(OLD, GPU_B))
    rows = read(source, 30)
    assert values_of(rows, GPU, GPU_B) == {"gpu_state": DARK}
    assert values_of(rows, GPU_HEALTH, GPU_B) == {"health_state": DARK}
    assert values_of(rows, GPU, GPU_A)["power_watts"] == 630.1
    page.show(OLD)
    assert values_of(read(source, 40), GPU, GPU_B)["gpu_state"] == READABLE


def test_a_gpu_with_nothing_but_sentinels_is_dark(page: Exporter) -> None:
    page.show(line("DCGM_FI_DEV_GPU_TEMP", "9223372036854775794") + line("DCGM_FI_DEV_XID_ERRORS", 79))
    assert values_of(read(source_on(page)), GPU, GPU_A) == {"gpu_state": DARK}


@pytest.mark.parametrize(
    ("text", "host", "model"), [(OLD, "node-7", "NVIDIA H100 80GB HBM3"), (NEW, "node-8", "NVIDIA GB300")]
)
def test_inventory_is_the_gpus_in_their_tray_and_stays_equal(page: Exporter, text: str, host: str, model: str) -> None:
    page.show(text)
    source = source_on(page)
    assert source.inventory() == []
    read(source)
    first, second = source.inventory()
    assert (first.identity, first.name, first.kind) == (GPU_A, f"{host} GPU 0", ResourceKind.GPU)
    assert first.resource == resource_id(ResourceKind.GPU, GPU_A)
    assert first.parent == resource_id(ResourceKind.TRAY, "chassis-4/17")
    assert (second.attributes["index"], second.attributes["model"], second.attributes["host"]) == ("1", model, host)
    assert first.attributes["driver_version"] == {"node-7": "550.54.15", "node-8": "580.95.05"}[host]
    assert source.inventory() == [first, second]


# XIDs ----------------------------------------------------------------------------------------------------------------


def xids(source: DcgmSource, seconds: int) -> list[tuple[int, int]]:
    """Code and count of each event after a read."""
    read(source, seconds)
    events = source.events()
    assert source.events() == []
    return [(event.code, event.count) for event in events if isinstance(event, EventMessage)]


def pages(source: DcgmSource, page: Exporter, *texts: str) -> list[list[tuple[int, int]]]:
    found = []
    for seconds, text in enumerate(texts):
        page.show(line("DCGM_FI_DEV_GPU_TEMP", 50) + text)
        found.append(xids(source, seconds))
    return found


@pytest.mark.parametrize("family", ["DCGM_FI_DEV_XID_ERRORS", "DCGM_FI_DEV_XID_ERROR"])
def test_a_change_of_the_last_xid_is_an_event_and_its_repeat_is_invisible(page: Exporter, family: str) -> None:
    codes = [0, 0, 79, 79, 48, 0, 48, 2147483634]
    found = pages(source_on(page), page, *(line(family, code) for code in codes))
    assert found == [[], [], [(79, 1)], [], [(48, 1)], [], [(48, 1)], []]


def test_an_xid_of_before_the_start_is_no_event(page: Exporter) -> None:
    assert pages(source_on(page), page, *[line("DCGM_FI_DEV_XID_ERRORS", 31)] * 2) == [[], []]


def test_a_family_that_shows_up_with_its_first_xid_is_an_event(page: Exporter) -> None:
    last = line("DCGM_FI_DEV_XID_ERRORS", 13)
    assert pages(source_on(page), page, "", last, "", last) == [[], [(13, 1)], [], []]


def test_an_xid_while_the_agent_restarts_is_an_event(page: Exporter) -> None:
    notebook = Notebook()
    pages(source_on(page, counters=notebook), page, line("DCGM_FI_DEV_XID_ERRORS", 0))
    found = pages(source_on(page, counters=notebook), page, *[line("DCGM_FI_DEV_XID_ERRORS", 94)] * 2)
    assert found == [[(94, 1)], []]
    assert pages(source_on(page, counters=notebook), page, line("DCGM_FI_DEV_XID_ERRORS", 94)) == [[]]


def test_the_event_says_what_the_xid_means_and_who_saw_it(page: Exporter) -> None:
    source = source_on(page)
    pages(source, page, line("DCGM_FI_DEV_XID_ERRORS", 0))
    page.show(line("DCGM_FI_DEV_XID_ERRORS", 79, err_code="79", err_msg="GPU has fallen off the bus"))
    read(source, 1)
    (event,) = source.events()
    assert isinstance(event, EventMessage)
    assert (event.kind, event.resource) == ("xid", resource_id(ResourceKind.GPU, GPU_A))
    assert event.time_ms == (START_S + 1) * 1000
    assert event.attributes["source"] == "dcgm"
    assert event.attributes["detail"] == "GPU has fallen off the bus"
    assert event.attributes["class"] == "page"
    assert event.text


def test_instances_that_repeat_an_xid_make_one_event(page: Exporter) -> None:
    family = "DCGM_FI_DEV_XID_ERRORS"
    found = pages(source_on(page), page, instances(family, 0, 0), instances(family, 95, 95), instances(family, 95, 31))
    assert found == [[], [(95, 1)], [(31, 1)]]


def test_increments_of_the_windowed_count_are_counted_and_the_last_xid_is_left_alone(page: Exporter) -> None:
    last, none = line("DCGM_FI_DEV_XID_ERRORS", 79), line("DCGM_EXP_XID_ERRORS_COUNT", 0)

    def window(number: int) -> str:
        return line("DCGM_EXP_XID_ERRORS_COUNT", number, xid="79")

    found = pages(source_on(page), page, none, last + window(1), last + window(4), last + window(2), last + none)
    assert found == [[], [(79, 1)], [(79, 3)], [], []]


def test_a_code_that_comes_back_into_the_window_is_counted_again(page: Exporter) -> None:
    one, none = line("DCGM_EXP_XID_ERRORS_COUNT", 1, xid="31"), line("DCGM_EXP_XID_ERRORS_COUNT", 0)
    assert pages(source_on(page), page, none, one, none, one) == [[], [(31, 1)], [], [(31, 1)]]


def test_the_total_goes_before_the_window_and_starts_again_with_the_exporter(page: Exporter) -> None:
    def seen(total: int, window: int) -> str:
        return (
            line("DCGM_EXP_XID_ERRORS_TOTAL", total, xid="94")
            + line("DCGM_EXP_XID_ERRORS_COUNT", window, xid="94")
            + line("DCGM_FI_DEV_XID_ERRORS", 94)
        )

    nothing = line("DCGM_EXP_XID_ERRORS_COUNT", 0)
    found = pages(source_on(page), page, nothing, seen(2, 2), seen(5, 3), seen(1, 1), seen(2, 2))
    assert found == [[], [(94, 2)], [(94, 3)], [], [(94, 1)]]


def test_codes_that_are_none_are_left_alone(page: Exporter) -> None:
    def count(code: str) -> str:
        return line("DCGM_EXP_XID_ERRORS_COUNT", 5, xid=code)

    assert pages(source_on(page), page, "", *map(count, ("", "0", "-1", "x", "²", "99999999999"))) == [[]] * 7


# Exporters that fail -------------------------------------------------------------------------------------------------


def test_an_exporter_of_something_else_is_unavailable(page: Exporter) -> None:
    page.show("# TYPE node_load1 gauge\nnode_load1 0.5\n")
    with pytest.raises(SourceUnavailableError, match=r"sends none of the \d+ families"):
        source_on(page).read(START_S)


def test_an_exporter_that_makes_up_gpus_is_unavailable(page: Exporter) -> None:
    page.show("".join(line("DCGM_FI_DEV_GPU_TEMP", 50, uuid=f"GPU-{number}") for number in range(65)))
    with pytest.raises(SourceUnavailableError, match=r"has 65 resources .* where 64 are expected"):
        source_on(page).read(START_S)


def test_an_exporter_that_keeps_renaming_gpus_is_unavailable(page: Exporter) -> None:
    source = source_on(page)
    for turn in range(42):
        page.show("".join(line("DCGM_FI_DEV_GPU_TEMP", 50, uuid=f"GPU-{turn}-{number}") for number in range(24)))
        assert read(source, turn)[GPU].size <= 64
    page.show("".join(line("DCGM_FI_DEV_GPU_TEMP", 50, uuid=f"GPU-x-{number}") for number in range(24)))
    with pytest.raises(SourceUnavailableError, match="has had 1032, where 64 are expected"):
        source.read(START_S + 50)


def test_samples_about_processors_and_switches_are_left_alone(page: Exporter, caplog: pytest.LogCaptureFixture) -> None:
    page.show(
        line("DCGM_FI_DEV_GPU_TEMP", 50)
        + 'DCGM_FI_DEV_GPU_TEMP{cpu="0",hostname="node-7"} 40\n'
        + line("DCGM_FI_DEV_NVLINK_RECOVERY_FAILED_TOTAL", 7, nvlink="3")
    )
    values = values_of(read(source_on(page)), GPU, GPU_A)
    assert values == {"temperature_celsius": 50, "gpu_state": READABLE}
    assert caplog.records == []
