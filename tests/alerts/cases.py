"""When each metric rule must fire, and what it must say then. Times and texts are worked out by hand, beside each case.

Series are in promtool's notation, one sample each 15 s: `0x3 1x400` is 0 at 0, 15, 30 and 45 s, and 1 from 60 s on. A
rule over a plain threshold is true at 60 s and fires its `for` later.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

NODE = {
    "job": "kvandal-agent",
    "instance": "node-0-3",
    "node": "node-0-3",
    "rack": "rack 0",
    "cdu": "CDU 0",
    "hall": "hall 0",
    "feeder": "feeder 0",
}
GPU = {**NODE, "resource": "00000000000000aa"}
GATEWAY = {"job": "kvandal-agent", "instance": "gateway-0"}
RACK = {**GATEWAY, "resource": "00000000000000bb"}
CDU = {**GATEWAY, "resource": "00000000000000cc"}
RACK_PLACE = {"place": "rack 0", "rack": "rack 0", "cdu": "CDU 0", "feeder": "feeder 0", "hall": "hall 0"}
CDU_PLACE = {"place": "CDU 0", "cdu": "CDU 0", "hall": "hall 0"}
_INFO = "kvandal_incidents_place_info"
RACK_INFO = (
    _INFO,
    {
        "job": "kvandal-incidents",
        "resource": RACK["resource"],
        "name": "rack 0",
        **{key: value for key, value in RACK_PLACE.items() if key != "place"},
    },
)
CDU_INFO = (
    _INFO,
    {"job": "kvandal-incidents", "resource": CDU["resource"], "name": "CDU 0", "cdu": "CDU 0", "hall": "hall 0"},
)
GPU_TEXT = "GPU 00000000000000aa on node-0-3"

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Said:
    """One alert that must stand: its severity, its labels beside severity, owner and home, and its sentence."""

    severity: str
    labels: Labels
    summary: str
    name: str = ""  # where it is another alert's than the case's


@dataclass(frozen=True, slots=True)
class Case:
    """`series` make the alert stand from `at_s` on, and not a step before."""

    alert: str
    at_s: int
    series: tuple[tuple[str, Labels, str], ...]
    says: tuple[Said, ...]
    before: tuple[Said, ...] = ()  # what stands a step before already


def _simple(
    alert: str,
    metric: str,
    labels: Labels,
    before: float,
    after: float,
    for_s: int,
    summary: str,
    severity: str = "page",
    more: Labels | None = None,
    *others: tuple[str, Labels, str],
) -> Case:
    values = f"{before}x3 {after}x400"
    return Case(
        alert, 60 + for_s, ((metric, labels, values), *others), (Said(severity, {**labels, **(more or {})}, summary),)
    )


def _gpu(
    alert: str, metric: str, before: float, after: float, for_s: int, summary: str, severity: str = "page"
) -> Case:
    return _simple(alert, metric, GPU, before, after, for_s, summary, severity)


def _rack(alert: str, metric: str, before: float, after: float, for_s: int, summary: str, severity: str) -> Case:
    info = (*RACK_INFO, "1x400")
    return _simple(alert, metric, RACK, before, after, for_s, summary, severity, RACK_PLACE, info)


def _cdu(alert: str, metric: str, before: float, after: float, for_s: int, summary: str, severity: str) -> Case:
    return _simple(alert, metric, CDU, before, after, for_s, summary, severity, CDU_PLACE, (*CDU_INFO, "1x400"))


def cases() -> Iterator[Case]:
    """At least one of every alert and severity."""
    yield from _gpu_cases()
    yield from _burns()
    yield from _customer_burns()
    yield from _link_cases()
    yield from _facility_cases()
    yield from _waiting_cases()
    yield from _pipeline_cases()


def _gpu_cases() -> Iterator[Case]:
    yield _gpu(
        "GpuDark",
        "kvandal_gpu_state",
        1,
        3,
        60,
        f"{GPU_TEXT} cannot be read, for 1 min: its job hangs or has died, and nobody sees what the GPU does.",
    )
    yield _simple(
        "TrayGpuMissing",
        "kvandal_tray_gpu_count",
        NODE,
        4,
        3,
        60,
        "node-0-3 counts 3 GPUs, fewer than in the last day, for 1 min: the tray's jobs cannot start or have died.",
    )
    yield _gpu(
        "GpuRecoveryActionRequired",
        "kvandal_gpu_health_recovery_action_state",
        0,
        4,
        60,
        f"the driver asks for recovery action 4 of {GPU_TEXT}, for 1 min: the GPU takes no work until that is done.",
    )
    neighbours = tuple(
        (metric, {**NODE, "resource": f"{n}"}, f"{value}x400")
        for n in (1, 2, 3)
        for metric, value in (("kvandal_gpu_sm_clock_hertz", 1.9e9), ("kvandal_gpu_graphics_active_ratio", 1))
    )
    busy = ("kvandal_gpu_graphics_active_ratio", GPU, "0.95x400")
    yield Case(
        "GpuClockLowUnderLoad",
        660,
        (("kvandal_gpu_sm_clock_hertz", GPU, "1900000000x3 1200000000x400"), busy, *neighbours),
        (
            Said(
                "ticket",
                GPU,
                f"{GPU_TEXT} runs at 1.2GHz, far below its neighbours, for 10 min: every GPU of its job waits for it.",
            ),
        ),
    )
    yield _gpu(
        "GpuUncorrectableEcc",
        "kvandal_gpu_health_ecc_volatile_uncorrectable_count_total",
        0,
        1,
        0,
        f"{GPU_TEXT} had a memory error that could not be corrected: its job has lost data or has died.",
    )
    yield _gpu(
        "GpuRowRemapPending",
        "kvandal_gpu_health_remap_pending_state",
        0,
        1,
        900,
        f"{GPU_TEXT} waits for a reset to remap a memory row, for 15 min: another error of that row kills the job.",
        "ticket",
    )
    yield _gpu(
        "GpuRowRemapFailure",
        "kvandal_gpu_health_remap_failure_state",
        0,
        1,
        0,
        f"{GPU_TEXT} has no spare row for a broken one: the GPU must be replaced.",
    )
    yield _gpu(
        "GpuMemoryUnrepairable",
        "kvandal_gpu_health_memory_unrepairable_state",
        0,
        1,
        0,
        f"memory of {GPU_TEXT} is damaged beyond repair: the GPU must be replaced.",
    )
    cost = "the memory ages and slows down, and shuts the GPU off in the end."
    memory = "kvandal_gpu_memory_temperature_celsius"
    yield _gpu(
        "GpuMemoryHot", memory, 95, 96, 300, f"memory of {GPU_TEXT} has 96 °C, above 95, for 5 min: {cost}", "ticket"
    )
    warm = Said("ticket", GPU, f"memory of {GPU_TEXT} has 106 °C, above 95, for 5 min: {cost}")
    hot = Said("page", GPU, f"memory of {GPU_TEXT} has 106 °C, above 105, for 5 min: {cost}")
    # Warm since the start, hot since 600 s.
    yield Case("GpuMemoryHot", 900, ((memory, GPU, "105x39 106x400"),), (warm, hot), before=(warm,))
    yield _gpu(
        "GpuThermalMarginLow",
        "kvandal_gpu_temperature_margin_kelvin",
        0,
        -1,
        30,
        f"{GPU_TEXT} is -1 K from its slowdown temperature, for 30 s: the GPU slows down and shuts off next.",
    )
    # From 600 s on: a window of 5 min holds 21 samples, of which 1 makes 4.8 % and 2 make 9.5 %, at 615 s.
    # 300 s later 21 of 21 are 100 %. Bit 64 is the hardware's thermal slowdown, 4 a power cap that does not count.
    yield Case(
        "GpuThermalThrottle",
        915,
        (("kvandal_gpu_clock_event_reasons", GPU, "4x39 68x400"),),
        (
            Said(
                "ticket",
                GPU,
                f"{GPU_TEXT} is held back by heat 100% of the time, for 5 min: every GPU of its job waits for it.",
            ),
        ),
    )
    yield _gpu(
        "GpuPowerBrake",
        "kvandal_gpu_clock_event_reasons",
        127,
        132,
        60,
        f"{GPU_TEXT} is braked by its power supply, for 1 min: the rack runs at a fraction of its speed, and its "
        "supply is about to fail.",
    )
    for watts in (1501, 64):
        yield _gpu(
            "GpuPowerOutOfRange",
            "kvandal_gpu_power_watts",
            1500,
            watts,
            120,
            f"{GPU_TEXT} draws {watts} W, which no such GPU does, for 2 min: its energy is counted wrongly, or "
            "the GPU is broken.",
            "ticket",
        )
    yield _gpu(
        "PowerSmoothingLifeLow",
        "kvandal_gpu_health_power_smoothing_life_ratio",
        0.1,
        0.09,
        0,
        f"the power smoothing of {GPU_TEXT} has 9% of its life left: without it the grid sees the job's swings.",
        "ticket",
    )


def _burns() -> Iterator[Case]:
    """Objective 99 %: pages above 14.4 %, tickets above 6 %. One GPU of four goes dark after an hour of health.

    k dark samples make 0.25 k / (241 + k) of all so far: above 6 % from k = 77, at 3600 + 77 x 15 = 4755 s. The last
    hour holds 241 samples: 0.25 k / 241 is above 14.4 % from k = 139, at 5685 s.
    """
    healthy = tuple(("kvandal_gpu_state", {**NODE, "resource": f"{n}"}, "1x800") for n in (1, 2, 3))
    series = (("kvandal_gpu_state", GPU, "1x240 3x500"), *healthy)
    cost = "the month's availability budget burns {} times too fast."
    # 0.25 x 77 / 318, 0.25 x 139 / 380 and 0.25 x 139 / 241.
    slow = "{} of the GPUs were unavailable in the last 6h: " + cost.format("6")
    fast = "14.42% of the GPUs were unavailable in the last 1h: " + cost.format("14.4")
    yield Case("SlaBudgetBurn", 4755, series, (Said("ticket", {}, slow.format("6.053%")),))
    ticket, page = Said("ticket", {}, slow.format("9.145%")), Said("page", {}, fast)
    early = Said("ticket", {}, slow.format("9.103%"))  # 0.25 x 138 / 379
    yield Case("SlaBudgetBurn", 5685, series, (ticket, page), before=(early,))


def _customer_burns() -> Iterator[Case]:
    """As `_burns`, of customer A in rack 0, to whom 99 % were promised; B's 60 GPUs in rack 1 are well."""
    a, b = {"customer": "customer A", "rack": "rack 0"}, {"customer": "customer B", "rack": "rack 1"}
    others = {**NODE, "rack": "rack 1", "instance": "node-1-0", "node": "node-1-0"}
    series = (
        ("kvandal_gpu_state", GPU, "1x240 3x500"),
        *(("kvandal_gpu_state", {**NODE, "resource": f"{n}"}, "1x800") for n in (1, 2, 3)),
        *(("kvandal_gpu_state", {**others, "resource": f"{n}"}, "1x800") for n in range(10, 70)),
        *(("kvandal_incidents_tenant_info", labels, "1x800") for labels in (a, b)),
        ("kvandal_incidents_tenant_objective_ratio", {"customer": "customer A"}, "0.99x800"),
        ("kvandal_incidents_tenant_objective_ratio", {"customer": "customer B"}, "0.999x800"),
    )
    cost = "the customer's budget of the month burns {} times too fast."
    slow = "{} of the GPUs of customer A were unavailable in the last 6h: " + cost.format("6")
    fast = "14.42% of the GPUs of customer A were unavailable in the last 1h: " + cost.format("14.4")
    customer = {"customer": "customer A"}
    yield Case("CustomerSlaBurn", 4755, series, (Said("ticket", customer, slow.format("6.053%")),))
    ticket, page = Said("ticket", customer, slow.format("9.145%")), Said("page", customer, fast)
    early = Said("ticket", customer, slow.format("9.103%"))
    yield Case("CustomerSlaBurn", 5685, series, (ticket, page), before=(early,))


def _link_cases() -> Iterator[Case]:
    health = "kvandal_gpu_health_"
    yield _gpu(
        "NvlinkDown",
        health + "nvlink_inactive_count",
        0,
        2,
        60,
        f"2 NVLinks of {GPU_TEXT} are down, for 1 min: the job slows down in the whole NVLink domain.",
    )
    errors = (
        f"NVLinks of {GPU_TEXT} fail to recover or have many checksum errors, for 5 min: transfers are repeated, and "
        "the link goes down next."
    )
    # One failure stays in the window of 5 min for 21 steps; one more keeps it there. True from 60 s on.
    yield Case(
        "NvlinkErrorsHigh",
        360,
        ((health + "nvlink_recoveries_failed_count_total", GPU, "0x3 1x15 2x400"),),
        (Said("ticket", GPU, errors),),
    )
    # 100 per second are 1500 a sample; 1485 are not enough. From 600 s on every window of 5 min has 100 per second.
    yield Case(
        "NvlinkErrorsHigh",
        900 + 300,
        ((health + "nvlink_crc_errors_count_total", GPU, _rates(1485, 40, 1500, 400)),),
        (Said("ticket", GPU, errors),),
    )
    summary, jobs = health + "fabric_summary_state", "jobs across the domain"
    yield _gpu(
        "FabricUnhealthy",
        summary,
        1,
        3,
        120,
        f"{GPU_TEXT} sees its NVLink fabric as unhealthy, for 2 min: {jobs} fail or do not start.",
    )
    yield _gpu(
        "FabricUnhealthy",
        summary,
        1,
        2,
        120,
        f"{GPU_TEXT} sees its NVLink fabric at limited capacity, for 2 min: {jobs} run slower.",
        "ticket",
    )
    # Generation 5 on 16 lanes: 0.06 x 32 x 16 = 30.72, so more than 31 a minute; 9 a sample are 36.
    pcie = (
        ("kvandal_gpu_health_pcie_generation_count", GPU, "5x500"),
        ("kvandal_gpu_health_pcie_lanes_count", GPU, "16x500"),
    )
    text = (
        f"PCIe of {GPU_TEXT} repeats 36 transfers a minute, for 5 min: "
        "transfers to the host are slow, and the GPU may fall off the bus."
    )
    replays = "kvandal_gpu_health_pcie_replays_count_total"
    # 7 a sample are 28 a minute; a window of 20 steps with k of 9 has 28 + 0.4 k: above 31 from k = 8, at 720 s.
    yield Case(
        "PcieReplayHigh", 720 + 300, ((replays, GPU, _rates(7, 40, 9, 400)), *pcie), (Said("ticket", GPU, text),)
    )
    port = {**NODE, "resource": "00000000000000dd"}
    where = "port 00000000000000dd of node-0-3"
    degraded = (
        f"{where} has many symbol errors or recoveries, for 5 min: collectives "
        "over it are slow, and the link goes down next."
    )
    # 10 per second are 150 a sample: 151 are more, from the first step on in which a window has one.
    yield Case(
        "NicDegraded",
        615 + 300,
        (("kvandal_port_symbol_error_count_total", port, _rates(150, 40, 151, 400)),),
        (Said("ticket", port, degraded),),
    )
    # 5 per minute are 25 in a window of 20 steps. 1.2 a step are 24; k steps of 2 make 24 + 0.8 k: more from k = 2 on.
    recoveries = _rates(1.2, 40, 2, 400)
    yield Case(
        "NicDegraded",
        630 + 300,
        (("kvandal_port_link_error_recovery_count_total", port, recoveries),),
        (Said("ticket", port, degraded),),
    )
    # The window of an hour is full from 3600 s on, or what was counted is extrapolated.
    yield Case(
        "NicFlapping",
        4200,
        (("kvandal_port_link_downed_count_total", port, "0x240 1x19 2x18 3x400"),),
        (Said("ticket", port, f"{where} went down 3 times in an hour: every time the jobs over it stall or die."),),
    )


def _rates(first: float, steps: int, then: float, more: int) -> str:
    """A counter that grows by `first` a sample, and by `then` after `steps`."""
    return f"0+{first}x{steps} {first * steps + then}+{then}x{more}"


def _facility_cases() -> Iterator[Case]:
    state = "kvandal_cooling_equipment_state"
    yield _cdu(
        "CduDegraded",
        state,
        1,
        3,
        60,
        "CDU 0 is degraded: a pump or its spare has failed, for 1 min: the next fault stops the coolant of its racks.",
        "ticket",
    )
    yield _cdu(
        "CduDown", state, 3, 4, 30, "CDU 0 has failed, for 30 s: its racks trip on temperature within minutes.", "page"
    )
    text = (
        "the reservoir of CDU 0 is {} full, for 1 min: coolant is being lost, "
        "and pumps that run dry stop every rack of the loop."
    )
    level = "kvandal_cooling_reservoir_level_ratio"
    yield _cdu("ReservoirLow", level, 0.5, 0.4, 60, text.format("40%"), "ticket")
    labels = {**CDU, **CDU_PLACE}
    low = Said("ticket", labels, text.format("20%"))
    yield Case(
        "ReservoirLow",
        660,
        ((level, CDU, "0.25x39 0.2x400"), (*CDU_INFO, "1x400")),
        (low, Said("page", labels, text.format("20%"))),
        before=(low,),
    )
    supplies = "kvandal_rack_power_supply_count"
    fewer = "rack 0 has {} healthy power supplies, fewer than in the last day, for 2 min: its spare power is used up."
    yield _rack("PowerShelfDegraded", supplies, 48, 47, 120, fewer.format(47), "ticket")
    ticket = Said("ticket", {**RACK, **RACK_PLACE}, fewer.format(25))
    page = Said(
        "page",
        {**RACK, **RACK_PLACE},
        "rack 0 has 25 healthy power supplies, fewer than it needs, for 2 min: "
        "the rack brakes or goes dark under load.",
    )
    yield Case(
        "PowerShelfDegraded",
        720,
        ((supplies, RACK, "48x3 26x35 25x400"), (*RACK_INFO, "1x400")),
        (ticket, page),
        before=(ticket,),
    )
    # 0.97 x 142 kW = 137.74 kW.
    yield _rack(
        "RackPowerOverBudget",
        "kvandal_rack_power_watts",
        137_740,
        138_000,
        120,
        "rack 0 draws 138kW, close to its limit, for 2 min: its breaker may trip.",
        "ticket",
    )
    # 25 MW within the minute before 600 s, and the same number of racks. A minute holds 4 steps; over one step of the
    # four the whole minute changed by 25 MW.
    ramp = "the racks' power changed by 25MW within a minute: the grid operator may disconnect the site."
    yield Case(
        "SitePowerRamp",
        600,
        (("kvandal_rack_power_watts", RACK, "100000000x39 125000000x400"),),
        (Said("page", {}, ramp),),
    )
    feeder = {**GATEWAY, "resource": "00000000000000ee"}
    info = (_INFO, {"resource": feeder["resource"], "name": "feeder 0", "feeder": "feeder 0"}, "1x400")
    yield _simple(
        "BreakerTripped",
        "kvandal_power_breaker_state",
        feeder,
        2,
        3,
        0,
        "the breaker of feeder 0 has tripped: everything behind it is dark or runs on its spare feed.",
        "page",
        {"place": "feeder 0", "feeder": "feeder 0"},
        info,
    )


def _waiting_cases() -> Iterator[Case]:
    """Rules whose readings agents do not show yet: set points 45 °C, so 47 and 50."""
    hot = "CDU 0 sends coolant of {} °C to its racks, above {}, for {} min: GPUs lose their margin and slow down."
    supply = "kvandal_cooling_secondary_supply_temperature_celsius"
    yield _cdu("TcsSupplyHot", supply, 47, 48, 300, hot.format(48, 47, 5), "ticket")
    labels = {**CDU, **CDU_PLACE}
    ticket, page = Said("ticket", labels, hot.format(51, 47, 5)), Said("page", labels, hot.format(51, 50, 1))
    yield Case(
        "TcsSupplyHot", 660, ((supply, CDU, "50x39 51x400"), (*CDU_INFO, "1x400")), (ticket, page), before=(ticket,)
    )
    dew = ("kvandal_cooling_dew_point_temperature_celsius", CDU, "14x400")
    yield _simple(
        "CondensationRisk",
        supply,
        CDU,
        16,
        15.5,
        300,
        "CDU 0 sends coolant of 15.5 °C, near the dew point, for 5 min: water condenses on live parts.",
        "ticket",
        CDU_PLACE,
        dew,
        (*CDU_INFO, "1x400"),
    )
    # 25 kPa less at 900 s; the window of 10 min is full, so nothing is extrapolated. The heat carried stays.
    yield Case(
        "LoopPressureDrop",
        900,
        (
            ("kvandal_cooling_secondary_pressure_pascals", CDU, "200000x59 175000x400"),
            ("kvandal_cooling_heat_flow_watts", CDU, "500000x400"),
            (*CDU_INFO, "1x400"),
        ),
        (
            Said(
                "page",
                labels,
                "the loop of CDU 0 lost -25kPa in 10 minutes at steady load: coolant runs out somewhere "
                "that no detector watches.",
            ),
        ),
    )
    # 120 kW x 0.85 / (4.01e6 x 10) = 2.5436e-3 m3/s; 80 % of that are 2.0349e-3, 60 % 1.5262e-3.
    flow, power = "kvandal_rack_liquid_flow_cubic_metres_per_second", ("kvandal_rack_power_watts", RACK, "120000x400")
    text = "rack 0 gets less than {}% of the flow that its power needs, for {}: its GPUs heat up within minutes."
    place = {**RACK, **RACK_PLACE}
    yield _simple(
        "RackFlowLow",
        flow,
        RACK,
        0.00204,
        0.00203,
        60,
        text.format(80, "1 min"),
        "ticket",
        RACK_PLACE,
        power,
        (*RACK_INFO, "1x400"),
    )
    low = Said("ticket", place, text.format(80, "1 min"))
    yield Case(
        "RackFlowLow",
        630,
        ((flow, RACK, "0.00153x39 0.00152x400"), power, (*RACK_INFO, "1x400")),
        (low, Said("page", place, text.format(60, "30 s"))),
        before=(low,),
    )
    # 0.85 x 120 kW = 102 kW; 83 kW are 15.83 % of the rack's power less, 85 kW 14.17 %.
    yield _simple(
        "HeatBalanceResidual",
        "kvandal_rack_liquid_heat_watts",
        RACK,
        85_000,
        83_000,
        1800,
        "heat and power of rack 0 differ by 15.83%, for 30 min: the heat that is reported is wrong.",
        "ticket",
        RACK_PLACE,
        power,
        (*RACK_INFO, "1x400"),
    )


def _pipeline_cases() -> Iterator[Case]:
    fleet = tuple(("up", {"job": "kvandal-agent", "instance": f"n{n}"}, "1x400") for n in range(49))
    stale = Said(
        "ticket",
        NODE,
        "the agent of node-0-3 does not answer, for 2 min: the node is unknown: neither healthy nor billed.",
        "NodeTelemetryStale",
    )
    yield Case("NodeTelemetryStale", 180, (("up", NODE, "1x3 0x400"), *fleet), (stale,))
    # 2 of 51 are 3.92 %, 1 of 50 is 2 % and not more.
    gone = ("up", {"job": "kvandal-agent", "instance": "n49"}, "1x19 0x400")
    yield Case(
        "FleetTelemetryStale",
        420,
        (("up", NODE, "1x3 0x400"), *fleet, gone),
        (
            Said(
                "page",
                {},
                "3.922% of the agents do not answer, for 2 min: a part of the site is unknown, and its faults "
                "are not seen.",
            ),
        ),
    )
    yield Case(
        "AgentsAbsent",
        300,
        (),
        (
            Said(
                "page",
                {"job": "kvandal-agent"},
                "Prometheus knows no agent at all, for 5 min: nothing of the site is watched.",
            ),
        ),
    )
    source = {**NODE, "source": "nvml"}
    # 180 s old at 180 s, more a step later.
    yield Case(
        "SourceSilent",
        195 + 120,
        (("kvandal_agent_source_age_seconds", source, "0+15x400"),),
        (
            Said(
                "ticket",
                source,
                "source nvml of node-0-3 has said nothing for 5m 15s, for 2 min: what it reads is missing "
                "from every report.",
            ),
        ),
    )
    device = {**NODE, "source": "redfish", "device": "bmc-7"}
    yield _simple(
        "DeviceUnreadable",
        "kvandal_agent_device_up",
        device,
        1,
        0,
        600,
        "bmc-7 does not answer redfish of node-0-3, for 10 min: what it measures is missing from every report.",
        "ticket",
    )
    node = {key: NODE[key] for key in ("job", "instance", "node", "hall", "rack", "cdu")}
    slow = (
        "source nvml of node-0-3 is slow or misses its ticks, for 10 min: "
        "readings are missing, and a GPU may be about to hang."
    )
    missed = {**source, "reason": "busy"}
    # More than 0.1 per second are more than 30 in 5 min: at 2 a sample from the 16th on, at 240 s.
    yield Case(
        "CollectorCostHigh",
        840,
        (("kvandal_agent_missed_ticks_total", missed, "0+2x400"),),
        (Said("ticket", {**node, "source": "nvml"}, slow),),
    )
    # All reads between 0.5 and 1 s: the 99th percentile is 0.995 s.
    buckets = tuple(
        ("kvandal_agent_read_seconds_bucket", {**source, "le": le}, values)
        for le, values in (("0.5", "0x400"), ("1.0", "0+15x400"), ("+Inf", "0+15x400"))
    )
    yield Case("CollectorCostHigh", 615, buckets, (Said("ticket", {**node, "source": "nvml"}, slow),))
    yield _simple(
        "AgentBrokerAway",
        "kvandal_agent_broker_up",
        NODE,
        1,
        0,
        600,
        "the agent of node-0-3 cannot send, for 10 min: its readings wait in its spool and are late everywhere.",
        "ticket",
    )
    brokers = tuple(
        ("kvandal_agent_broker_up", {"job": "kvandal-agent", "instance": f"n{n}"}, "1x400") for n in range(7)
    )
    yield Case(
        "BrokerAway",
        180,
        (("kvandal_agent_broker_up", NODE, "1x3 0x400"), *brokers),
        (
            Said(
                "page",
                {},
                "12.5% of the agents cannot send to Kafka, for 2 min: nobody sees events or readings until it is back.",
            ),
        ),
    )
    topic = {**NODE, "topic": "kvandal.gpu"}
    yield _simple(
        "TopicBlocked",
        "kvandal_agent_topic_blocked",
        topic,
        0,
        1,
        300,
        "topic kvandal.gpu takes nothing from node-0-3, for 5 min: its readings wait in the spool and are lost when "
        "that is full.",
        "ticket",
    )
    limit = ("kvandal_agent_spool_limit_bytes", NODE, "1000x400")
    yield _simple(
        "SpoolFilling",
        "kvandal_agent_spool_bytes",
        NODE,
        800,
        850,
        60,
        "the spool of node-0-3 is 85% full, for 1 min: the oldest readings are lost when it is full.",
        "ticket",
        {},
        limit,
    )
    clock = (
        "the clock of node-0-3 is not kept in step, for 15 min: its readings "
        "get wrong times, and energy is booked to the wrong job."
    )
    yield _simple("ClockUnsynchronised", "kvandal_agent_clock_synchronised", NODE, 1, 0, 900, clock, "ticket")
    yield _simple("ClockUnsynchronised", "kvandal_agent_clock_error_seconds", NODE, 0.5, 0.6, 900, clock, "ticket")
    yield _gpu(
        "EnergyCounterDisagrees",
        "kvandal_agent_energy_ratio",
        1.0625,
        1.125,
        1800,
        "energy and power of GPU 00000000000000aa on node-0-3 differ by 12.5%, "
        "for 30 min: its job's energy is reported "
        "wrongly.",
        "ticket",
    )
    yield from _ingest_cases()
    yield from _incident_cases()


def _ingest_cases() -> Iterator[Case]:
    ingest = {"job": "kvandal-ingest", "instance": "i0"}
    produced = ("kvandal_agent_rows_total", {**NODE, "topic": "kvandal.gpu"}, "0+15x900")
    plan = "kvandal_ingest_last_plan_timestamp_seconds"
    table = {"table": "gpu"}
    lag = (
        "table gpu gets rows that are not stored within the promised time, for "
        "5 min: dashboards and reports show the past."
    )
    # The last plan was made at 600 s: more than 60 s old from 675 s on.
    yield Case(
        "PipelineLag", 975, ((plan, {**ingest, **table}, "0+15x40 600x800"), produced), (Said("ticket", table, lag),)
    )
    # Stale from 3675 s on, after 244 fresh samples (from 15 s: no rate before). k stale ones are k / (244 + k) of all:
    # above 6 % from k = 16, 3900 s; but the last 30 min hold 121: above 6 % from k = 8. Of the last hour's 241 above
    # 14.4 % from k = 35, 4185 s; the last 5 min have 21, all of them stale.
    series = ((plan, {**ingest, **table}, "0+15x240 3600x600"), produced)
    burns = "table gpu was stale {} of the last {}: the month's freshness budget burns {} times too fast."
    yield Case("PipelineFreshnessBurn", 3900, series, (Said("ticket", table, burns.format("6.154%", "6h", "6")),))
    slow, slow_before = burns.format("12.54%", "6h", "6"), burns.format("12.23%", "6h", "6")  # 35 / 279 and 34 / 278
    yield Case(
        "PipelineFreshnessBurn",
        4185,
        series,
        (Said("ticket", table, slow), Said("page", table, burns.format("14.52%", "1h", "14.4"))),
        before=(Said("ticket", table, slow_before),),
    )
    yield Case(
        "IngestDown",
        180,
        (("up", ingest, "1x3 0x400"), ("up", {**ingest, "instance": "i1"}, "0x400")),
        (Said("page", {}, "no ingest answers, for 2 min: nothing is stored; Kafka keeps it for a week."),),
    )
    doing = {**ingest, "doing": "inserting"}
    yield Case(
        "IngestRetrying",
        615,
        (("kvandal_ingest_retries_total", doing, "0+1x400"),),
        (
            Said(
                "ticket",
                doing,
                "ingest i0 repeats inserting: the store or the broker is away, for 10 min: nothing is "
                "stored meanwhile.",
            ),
        ),
    )
    frames = "kvandal_ingest_frames_total"
    # 1 of 500 is 0.2 %, from the second sample on.
    yield Case(
        "DeadLettersHigh",
        315,
        (
            (frames, {**ingest, **table, "outcome": "stored"}, "0+499x400"),
            (frames, {**ingest, **table, "outcome": "rejected"}, "0+1x400"),
        ),
        (
            Said(
                "ticket",
                table,
                "0.2% of the frames for gpu cannot be stored, for 5 min: they wait among the dead letters "
                "and are missing from reports.",
            ),
        ),
    )
    expired = {**ingest, "topic": "kvandal.gpu"}
    yield _simple(
        "RecordsExpired",
        "kvandal_ingest_expired_records_total",
        expired,
        0,
        5,
        0,
        "records of kvandal.gpu expired in Kafka before they were stored: they are lost for good.",
    )


def _incident_cases() -> Iterator[Case]:
    own = {"job": "kvandal-incidents", "instance": "x"}
    down = "kvandal incidents does not answer, for 2 min: leaks, XIDs and trips page nobody."
    yield Case("IncidentsDown", 180, (("up", own, "1x3 0x400"),), (Said("page", {}, down),))
    yield Case("IncidentsDown", 120, (), (Said("page", {"job": "kvandal-incidents"}, down),))
    # Read last at 60 s: 75 s old at 135 s.
    yield Case(
        "IncidentsBehind",
        195,
        (("kvandal_incidents_read_timestamp_seconds", own, "0+15x4 60x400"),),
        (
            Said(
                "page",
                own,
                "kvandal incidents has read no events for 2m 15s, for 1 min: leaks, XIDs and trips page nobody.",
            ),
        ),
    )
    pushed = {**own, "alertmanager": "http://a"}
    yield Case(
        "AlertmanagerUnreachable",
        255 + 60,
        (("kvandal_incidents_pushed_timestamp_seconds", pushed, "0+15x4 60x400"),),
        (
            Said(
                "ticket",
                pushed,
                "kvandal incidents could not push to http://a for 4m 15s, for 1 min: pages about events "
                "wait until it is back.",
            ),
        ),
    )
    yield Case(
        "Watchdog",
        0,
        (),
        (
            Said(
                "heartbeat",
                {},
                "this alert is always there: when it is absent, the way from Prometheus to people is broken.",
            ),
        ),
    )
