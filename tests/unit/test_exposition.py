"""The agent's /metrics: the whole page for known readings and states, and what each line may claim.

KVANDAL_REWRITE_GOLDEN=1 writes tests/golden/agent_metrics.txt anew; the diff is the review.
"""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, disable_created_metrics, enable_created_metrics, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from catalogue import GPU, GPU_HEALTH, PORT, TRAY
from collectors.crosscheck import WINDOW_S, EnergyCheck
from collectors.devices import DeviceReport, DeviceState
from collectors.exposition import AgentMetrics, SourceState
from collectors.kernel_clock import ClockState
from collectors.source import Reading
from collectors.spool import Evicted, Outgoing, Spool
from stream.rows import pack
from tests.servers.agent_fakes import START_S, FakeClock

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "agent_metrics.txt"
NAN = float("nan")


@pytest.fixture(autouse=True)
def without_times_of_creation() -> Iterator[None]:
    """As kvandal/reading.py does: they would double the page, and no two pages would be equal."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    yield
    enable_created_metrics()  # type: ignore[no-untyped-call]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with closing(Spool(tmp_path / "spool.db", limit_bytes=1 << 20)) as spool:
        yield spool


class Page:
    """A page of metrics under test."""

    def __init__(self, spool: Spool, clock: FakeClock) -> None:
        self.registry = CollectorRegistry()
        self.metrics = AgentMetrics(
            self.registry, spool, clock=clock, clock_state=lambda: ClockState(synchronised=True, max_error_s=0.0125)
        )

    def text(self) -> str:
        return generate_latest(self.registry).decode()

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
def page(spool: Spool, clock: FakeClock) -> Page:
    return Page(spool, clock)


def gpu_reading(time_s: int, *, watts: float = 700.0, joules: float = 700.0) -> Reading:
    values: dict[str, list[float]] = {"power_watts": [watts, NAN], "energy_joules": [joules, NAN], "gpu_state": [1, 3],
              "sm_clock_hertz": [1.98e9, NAN], "tensor_active_ratio": [0.5, NAN],
              "clock_event_reasons": [4, NAN]}  # fmt: skip
    return Reading(1, GPU, pack(GPU, [17, 18], time_s, values))


def fill(page: Page, spool: Spool, clock: FakeClock) -> None:
    """An agent's life: a source that works, one that failed, one that hangs, evictions, and readings of each table."""
    well, sick, stuck = [
        SourceState(name, clock.monotonic_s(), deadline_s=3) for name in ("nvml", "infiniband", "host")
    ]
    for state in (well, sick, stuck):
        page.metrics.watch(state)
    stuck.asked(clock.monotonic_s())
    clock.advance(10)
    sick.failed("has no ports")
    well.answered(clock.monotonic_s())
    page.metrics.read_took("nvml", 0.004)
    page.metrics.timings("nvml", {("GPU-17", "read"): 0.003, ("GPU-17", "fields"): 0.000125})
    page.metrics.devices(
        "redfish",
        [
            DeviceReport("tray-1", DeviceState.OK, took_s=0.25),
            DeviceReport("tray-2", DeviceState.REFUSED, "the password is wrong"),
            DeviceReport("tray-3", DeviceState.UNKNOWN),
        ],
    )
    page.metrics.topic_blocked("kvandal.gpu", blocked=False)
    page.metrics.topic_blocked("kvandal.cooling", blocked=True)
    page.metrics.missed_ticks("nvml", busy=2, clock=0)
    spool.add([Outgoing("kvandal.gpu", 1, bytes(1000), 8, START_S, START_S)])
    page.metrics.produced("kvandal.gpu", 80)
    page.metrics.broker_answers(up=True)
    page.metrics.evicted([Evicted(1, "kvandal.gpu", START_S, START_S, 1, 8)])
    page.metrics.evicted([Evicted(1, "kvandal.gpu", START_S, START_S, 1, 8, sent=True)])
    page.metrics.lost([Outgoing("kvandal.tray", 2, b"", 1)])
    for second in range(WINDOW_S * 2):
        page.metrics.latest([gpu_reading(START_S + second, joules=693.0)], interval_s=1)
    clock.set_utc(START_S + WINDOW_S * 2)
    now_s = START_S + WINDOW_S * 2
    health = {"ecc_volatile_uncorrectable_count": [2], "pcie_replays_count": [3]}
    page.metrics.latest(
        [
            Reading(1, GPU_HEALTH, pack(GPU_HEALTH, [17], now_s, health)),
            Reading(2, PORT, pack(PORT, [33], now_s, {"port_state": [1], "receive_bytes": [4096]})),
            Reading(3, TRAY, pack(TRAY, [49], now_s, {"memory_used_bytes": [1 << 30]})),
        ],
        interval_s=10,
    )


def test_the_page_is_what_was_reviewed(page: Page, spool: Spool, clock: FakeClock) -> None:
    fill(page, spool, clock)
    text = page.text()
    if os.environ.get("KVANDAL_REWRITE_GOLDEN") == "1":
        GOLDEN.write_text(text)

    assert text == GOLDEN.read_text()


def test_the_page_is_valid_and_its_totals_are_counters(page: Page, spool: Spool, clock: FakeClock) -> None:
    fill(page, spool, clock)

    families = list(text_string_to_metric_families(page.text()))

    assert len(families) > 30
    for family in families:
        assert family.documentation
        for sample in family.samples:
            assert sample.name.startswith("kvandal_")
            assert sample.name.endswith("_total") == (family.type == "counter"), sample.name
    assert len({(sample.name, *sample.labels.items()) for family in families for sample in family.samples}) == sum(
        len(family.samples) for family in families
    )


def test_a_delta_is_shown_as_the_counter_that_it_adds_up_to(page: Page) -> None:
    for second in range(5):
        page.metrics.latest([gpu_reading(START_S + second, joules=100.5)], interval_s=1)

    assert page.value("kvandal_gpu_energy_joules_total", resource=f"{17:016x}") == pytest.approx(502.5)


def test_what_is_absent_has_no_line(page: Page) -> None:
    page.metrics.latest([gpu_reading(START_S)], interval_s=1)

    assert page.value("kvandal_gpu_power_watts", resource=f"{18:016x}") is None
    assert page.value("kvandal_gpu_state", resource=f"{18:016x}") == 3


def test_a_reading_that_is_old_is_not_shown_as_if_it_were_still_so(page: Page, clock: FakeClock) -> None:
    page.metrics.latest([gpu_reading(START_S)], interval_s=1)
    clock.advance(15)
    assert page.value("kvandal_gpu_power_watts", resource=f"{17:016x}") == 700
    clock.advance(1)

    assert page.value("kvandal_gpu_power_watts", resource=f"{17:016x}") is None


def test_a_source_that_hangs_is_down_without_anybody_telling(page: Page, clock: FakeClock) -> None:
    state = SourceState("nvml", clock.monotonic_s(), deadline_s=3)
    page.metrics.watch(state)
    assert page.value("kvandal_agent_source_up", source="nvml") is None
    state.asked(clock.monotonic_s())
    state.answered(clock.monotonic_s())
    state.asked(clock.monotonic_s())
    clock.advance(3)
    assert page.value("kvandal_agent_source_up", source="nvml") == 1
    clock.advance(0.5)

    assert page.value("kvandal_agent_source_up", source="nvml") == 0
    assert page.value("kvandal_agent_source_age_seconds", source="nvml") == 3.5


def test_of_too_many_devices_those_that_fail_are_shown_and_the_rest_is_counted(page: Page) -> None:
    reports = [DeviceReport(f"device-{number:04}", DeviceState.OK, took_s=0.1) for number in range(1500)]
    reports[1400] = DeviceReport("device-1400", DeviceState.SLOW, "no answer within 5 s")
    page.metrics.devices("redfish", reports)

    lines = [line for line in page.text().splitlines() if line.startswith("kvandal_agent_device_up{")]
    assert len(lines) == 1000
    assert page.value("kvandal_agent_device_up", source="redfish", device="device-1400") == 0
    assert page.value("kvandal_agent_device_up", source="redfish", device="device-0000") == 1
    assert page.value("kvandal_agent_device_up", source="redfish", device="device-1399") is None
    assert page.value("kvandal_agent_devices_left_out", source="redfish") == 500


def test_two_devices_of_one_name_are_one_line(page: Page) -> None:
    """Prometheus throws a page away that has the same line twice."""
    page.metrics.devices("redfish", [DeviceReport("tray", state, took_s=1.0) for state in DeviceState])
    page.metrics.timings("redfish", {("tray", "read"): 2.0})

    for name in ("device_up", "device_seconds", "device_state"):
        assert sum(line.startswith(f"kvandal_agent_{name}{{") for line in page.text().splitlines()) == 1, name


def test_devices_of_a_source_that_is_gone_are_not_shown(page: Page, clock: FakeClock) -> None:
    state = SourceState("redfish", clock.monotonic_s(), deadline_s=3)
    page.metrics.watch(state)
    page.metrics.devices("redfish", [DeviceReport("tray-1", DeviceState.OK)])
    page.metrics.forget(state)

    assert "tray-1" not in page.text()


# --- energy against power


def test_constant_power_and_its_energy_agree() -> None:
    check = EnergyCheck()
    for second in range(2 * WINDOW_S + 1):
        check.add(17, second, 500.0, 500.0)

    assert check.ratios == {17: 1.0}


def test_a_ramp_of_power_and_its_energy_agree() -> None:
    """A linear ramp is integrated exactly by trapezoids: each second takes half a joule less than its end."""
    check = EnergyCheck()
    for second in range(2 * WINDOW_S + 1):
        check.add(17, second, 100 + second - 0.5, 100 + second)

    assert check.ratios[17] == pytest.approx(1.0, abs=1e-12)


def test_a_counter_that_runs_slow_shows() -> None:
    check = EnergyCheck()
    for second in range(2 * WINDOW_S + 1):
        check.add(17, second, 475.0, 500.0)

    assert check.ratios[17] == pytest.approx(0.95)


def test_a_dark_time_is_left_out_of_both() -> None:
    """The first delta after it covers it, but no power is known for it."""
    check = EnergyCheck()
    for second in range(2 * WINDOW_S + 1):
        if not 50 <= second % WINDOW_S < 100:
            joules = 500.0 * 51 if second % WINDOW_S == 100 else 500.0
            check.add(17, second, joules, 500.0)

    assert check.ratios == {17: 1.0}


def test_a_window_that_is_mostly_dark_gives_no_ratio() -> None:
    check = EnergyCheck()
    for second in range(WINDOW_S + WINDOW_S // 3):
        check.add(17, second, 500.0, 500.0)
    check.add(17, 2 * WINDOW_S, 500.0, 500.0)

    assert check.ratios == {}
