"""Metric rules about GPUs and their availability."""

from collections.abc import Iterator

from alerts.alert import Dashboard, MetricRule, Owner, Recording, Severity
from alerts.series import series
from alerts.thresholds import Thresholds
from catalogue import GPU, GPU_HEALTH, TRAY
from catalogue.gpu import GPU_STATES

_DARK = next(code for code, name in GPU_STATES if name == "dark")
_WHERE = "GPU {{ $labels.resource }} on {{ $labels.instance }}"
_THROTTLED = "kvandal:gpu_throttled_thermal:bool"
_UNAVAILABLE = "kvandal:gpu_unavailable:ratio"
_CUSTOMERS = "kvandal:customer_gpu_unavailable:ratio"
# Who rents which rack and what was promised, as the incidents process shows it.
_RENTED = "max by (customer, rack) (kvandal_incidents_tenant_info)"
_OBJECTIVE = "max by (customer) (kvandal_incidents_tenant_objective_ratio)"
# Burn rates of the multi-window method: 2 % of a 30-day budget in an hour, 5 % in six.
FAST_BURN, SLOW_BURN = 14.4, 6.0

_MASK = series(GPU, "clock_event_reasons")
_SOFTWARE_THERMAL, _HARDWARE_THERMAL, _POWER_BRAKE = 32, 64, 128  # catalogue/gpu.py, after nvml.h


def _bit(mask: str, bit: int) -> str:
    """1 where a bit of a mask is set, else 0: PromQL has no bit operators."""
    return f"floor({mask} / {bit}) % 2"


def gpu_recordings() -> tuple[Recording, ...]:
    thermal = f"clamp_max({_bit(_MASK, _SOFTWARE_THERMAL)} + {_bit(_MASK, _HARDWARE_THERMAL)}, 1)"
    state, recovery = series(GPU, "gpu_state"), series(GPU_HEALTH, "recovery_action_state")
    down = f"{state} == {_DARK} or {recovery} >= 1"
    rack_down, rack_all = f"count by (rack) ({down}) or 0 * count by (rack) ({state})", f"count by (rack) ({state})"

    def of_customer(by_rack: str) -> str:
        return f"sum by (customer) ({_RENTED} * on (rack) group_left () ({by_rack}))"

    return (
        Recording(name=_THROTTLED, expression=thermal),
        Recording(name=_UNAVAILABLE, expression=f"(count({down}) or vector(0)) / count({state})"),
        Recording(name=_CUSTOMERS, expression=f"{of_customer(rack_down)} / {of_customer(rack_all)}"),
    )


def gpu_rules(limits: Thresholds) -> tuple[MetricRule, ...]:
    return (*_presence(limits), *_memory(limits), *_temperature(limits), *_power(limits), *_availability(limits))


def _gpu(name: str, severity: Severity, expression: str, for_s: float, summary: str, cost: str, *numbers: int,
         owner: Owner = Owner.FLEET, dashboard: Dashboard = Dashboard.GPU) -> MetricRule:  # fmt: skip
    return MetricRule(
        name=name, severity=severity, owner=owner, dashboard=dashboard, cost=cost, numbers=numbers,
        expression=expression, for_s=int(for_s), summary=summary,
    )  # fmt: skip


def _presence(limits: Thresholds) -> Iterator[MetricRule]:
    state, count = series(GPU, "gpu_state"), series(TRAY, "gpu_count")
    yield _gpu(
        "GpuDark", Severity.PAGE, f"{state} == {_DARK}", 60,
        f"{_WHERE} cannot be read",
        "its job hangs or has died, and nobody sees what the GPU does", 2,
    )  # fmt: skip
    yield _gpu(
        "TrayGpuMissing", Severity.PAGE, f"{count} < max_over_time({count}[1d])", 60,
        "{{ $labels.instance }} counts {{ $value }} GPUs, fewer than in the last day",
        "the tray's jobs cannot start or have died", 2,
    )  # fmt: skip
    recovery = series(GPU_HEALTH, "recovery_action_state")
    yield _gpu(
        "GpuRecoveryActionRequired", Severity.PAGE, f"{recovery} >= 1", 60,
        f"the driver asks for recovery action {{{{ $value }}}} of {_WHERE}",
        "the GPU takes no work until that is done", 3,
    )  # fmt: skip
    clock, active = series(GPU, "sm_clock_hertz"), series(GPU, "graphics_active_ratio")
    median = f"{limits.gpu_clock_ratio} * quantile by (job, instance) (0.5, {clock})"
    yield _gpu(
        "GpuClockLowUnderLoad", Severity.TICKET,
        f"{clock} < on (job, instance) group_left () ({median}) and {active} > {limits.gpu_active_ratio}", 600,
        f"{_WHERE} runs at {{{{ $value | humanize }}}}Hz, far below its neighbours",
        "every GPU of its job waits for it", 15,
    )  # fmt: skip


def _memory(limits: Thresholds) -> Iterator[MetricRule]:
    ecc = series(GPU_HEALTH, "ecc_volatile_uncorrectable_count")
    yield _gpu(
        "GpuUncorrectableEcc", Severity.PAGE, f"increase({ecc}[5m]) > 0", 0,
        f"{_WHERE} had a memory error that could not be corrected",
        "its job has lost data or has died", 4,
    )  # fmt: skip
    yield _gpu(
        "GpuRowRemapPending", Severity.TICKET, f"{series(GPU_HEALTH, 'remap_pending_state')} == 1", 900,
        f"{_WHERE} waits for a reset to remap a memory row",
        "another error of that row kills the job", 5,
    )  # fmt: skip
    yield _gpu(
        "GpuRowRemapFailure", Severity.PAGE, f"{series(GPU_HEALTH, 'remap_failure_state')} == 1", 0,
        f"{_WHERE} has no spare row for a broken one",
        "the GPU must be replaced", 6,
    )  # fmt: skip
    yield _gpu(
        "GpuMemoryUnrepairable", Severity.PAGE, f"{series(GPU_HEALTH, 'memory_unrepairable_state')} == 1", 0,
        f"memory of {_WHERE} is damaged beyond repair",
        "the GPU must be replaced", 6,
    )  # fmt: skip
    warm, hot = limits.gpu_memory_warm_celsius, limits.gpu_memory_hot_celsius
    memory = series(GPU, "memory_temperature_celsius")
    for severity, limit in ((Severity.TICKET, warm), (Severity.PAGE, hot)):
        yield _gpu(
            "GpuMemoryHot", severity, f"{memory} > {limit:g}", 300,
            f"memory of {_WHERE} has {{{{ $value }}}} °C, above {limit:g}",
            "the memory ages and slows down, and shuts the GPU off in the end", 12,
            owner=Owner.COOLING,
        )  # fmt: skip


def _temperature(limits: Thresholds) -> Iterator[MetricRule]:
    margin = series(GPU, "temperature_margin_kelvin")
    yield _gpu(
        "GpuThermalMarginLow", Severity.PAGE, f"{margin} < {limits.gpu_margin_kelvin:g}", limits.gpu_margin_s,
        f"{_WHERE} is {{{{ $value }}}} K from its slowdown temperature",
        "the GPU slows down and shuts off next", 10,
        owner=Owner.COOLING,
    )  # fmt: skip
    yield _gpu(
        "GpuThermalThrottle", Severity.TICKET, f"avg_over_time({_THROTTLED}[5m]) > {limits.gpu_throttled_ratio:g}", 300,
        f"{_WHERE} is held back by heat {{{{ $value | humanizePercentage }}}} of the time",
        "every GPU of its job waits for it", 11,
        owner=Owner.COOLING,
    )  # fmt: skip


def _power(limits: Thresholds) -> Iterator[MetricRule]:
    yield _gpu(
        "GpuPowerBrake", Severity.PAGE, f"{_bit(_MASK, _POWER_BRAKE)} == 1", 60,
        f"{_WHERE} is braked by its power supply",
        "the rack runs at a fraction of its speed, and its supply is about to fail", 13,
        owner=Owner.POWER, dashboard=Dashboard.RACK,
    )  # fmt: skip
    power = series(GPU, "power_watts")
    yield _gpu(
        "GpuPowerOutOfRange", Severity.TICKET,
        f"{power} > {limits.gpu_power_most_watts:g} or {power} < {limits.gpu_power_least_watts:g}", 120,
        f"{_WHERE} draws {{{{ $value }}}} W, which no such GPU does",
        "its energy is counted wrongly, or the GPU is broken", 14,
    )  # fmt: skip
    yield _gpu(
        "PowerSmoothingLifeLow", Severity.TICKET,
        f"{series(GPU_HEALTH, 'power_smoothing_life_ratio')} < {limits.smoothing_life_ratio:g}", 0,
        f"the power smoothing of {_WHERE} has {{{{ $value | humanizePercentage }}}} of its life left",
        "without it the grid sees the job's swings", 41,
        owner=Owner.POWER,
    )  # fmt: skip


def _availability(limits: Thresholds) -> Iterator[MetricRule]:
    budget = 1 - limits.sla_objective_ratio
    for severity, burn, long, short in (
        (Severity.PAGE, FAST_BURN, "1h", "5m"), (Severity.TICKET, SLOW_BURN, "6h", "30m"),
    ):  # fmt: skip
        limit = f"{burn * budget:.6g}"
        yield _gpu(
            "SlaBudgetBurn", severity,
            f"avg_over_time({_UNAVAILABLE}[{long}]) > {limit} and avg_over_time({_UNAVAILABLE}[{short}]) > {limit}", 0,
            f"{{{{ $value | humanizePercentage }}}} of the GPUs were unavailable in the last {long}",
            f"the month's availability budget burns {burn:g} times too fast", 46,
            dashboard=Dashboard.SLA,
        )  # fmt: skip
        spent = f"> on (customer) {burn:g} * (1 - {_OBJECTIVE})"
        yield _gpu(
            "CustomerSlaBurn", severity,
            f"avg_over_time({_CUSTOMERS}[{long}]) {spent} and avg_over_time({_CUSTOMERS}[{short}]) {spent}", 0,
            f"{{{{ $value | humanizePercentage }}}} of the GPUs of {{{{ $labels.customer }}}} were unavailable "
            f"in the last {long}",
            f"the customer's budget of the month burns {burn:g} times too fast", 46,
            dashboard=Dashboard.SLA,
        )  # fmt: skip
