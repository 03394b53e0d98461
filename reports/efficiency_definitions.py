"""What each key figure of the efficiency report means, in the words that the report prints."""

from collections.abc import Mapping

from reports.figures import Definition

_FLEET = "All GPUs of the inventory, all of the period."
_HOURS = "Own definition: a sweep over slots of five minutes, events and jobs, in whole milliseconds"
_BOARDS = "GPU boards, by their own counters; without processors, network, supplies and cooling."


def definitions() -> Mapping[str, Definition]:
    """All definitions by key; PUE and its kin come from `reports.definitions`."""
    rows = (
        ("itue", "ITUE (interim)", "", "IT meters over GPU boards and processors; NICs and drives count as loss.",
         ("ITUE = E_IT / (E_GPU + E_processors), over the parts of the period in which all three are known and at "
         "least 95 % of the GPUs' time was observed. An upper bound while NICs have no meter of their own."),
         "Patterson et al. 2013, TUE: a new energy-efficiency metric; read second-hand"),
        ("tue", "TUE (interim)", "", "Whole site over GPU boards and processors.",
         "TUE = ITUE x iPUE.", "Patterson et al. 2013; read second-hand"),
        ("cer", "CER (interim)", "", "Heat meters (handed over and rejected) over the cooling meters.",
         "CER = Q_removed / E_cooling. Heat that air takes away has no meter here, so it is a lower bound.",
         "ISO/IEC 30134-7; its text was not read"),
        ("available", "Available GPU time", "%", _FLEET,
         "(healthy + degraded) / (all - maintenance). Unknown time counts as not available.", _HOURS),
        ("busy", "Busy GPU time", "%", _FLEET,
         "Held by a job and active for 1 % of the time or more, over all GPU time.", _HOURS),
        ("idle_energy", "Idle energy", "MWh", _BOARDS,
         "Energy of GPUs that a job holds while their engine is active for less than 1 % of the time.",
         "Sum of the boards' energy deltas; activity is NVML's share of time with the engine active"),
        ("stranded_energy", "Stranded energy", "MWh", _BOARDS,
         "Energy of GPUs that no job holds.", "Sum of the boards' energy deltas; jobs as the scheduler tells them"),
        ("idle_cost", "Cost of idle energy", "", _BOARDS,
         "Idle energy of each hour times the hour's mean price; without cooling, losses, taxes and grid fees.",
         "Register power_prices"),
        ("stranded_cost", "Cost of stranded energy", "", _BOARDS,
         "Stranded energy of each hour times the hour's mean price; without cooling, losses, taxes and grid fees.",
         "Register power_prices"),
        ("throttled", "Throttled time", "%", "GPU time that was observed.",
         ("Time with clocks held down by heat, power brake or sync boost, over observed time; causes may overlap. The "
         "power cap is left out: at full load it is normal."), "NVML clock event counters, in ns"),
        ("power_capped", "Time at the power cap", "%", "GPU time that was observed.",
         "Time with clocks held down by the software power cap, over observed time. Normal at full load.",
         "NVML clock event counters, in ns"),
        ("sm_active", "SM active", "%", "GPU time that was observed.",
         "Share of cycles with a warp on a multiprocessor, mean over time.", "NVML GPM, DCGM 1002"),
        ("mfu_proxy", "MFU proxy (tensor active)", "%", "GPU time that was observed.",
         ("Share of cycles with a tensor pipe active, mean over time. A proxy: MFU proper takes the FLOPs of the "
         "model, which no sensor knows."), "NVML GPM, DCGM 1004"),
        ("dram_active", "Memory active", "%", "GPU time that was observed.",
         "Share of cycles in which device memory transfers, mean over time.", "NVML GPM, DCGM 1005"),
        ("job_energy", "Energy of ended jobs", "MWh",
         ("GPU boards of jobs that ended in the period, over their whole life, with their share of what their "
         "trays draw besides; without NVLink switches, power shelves, cooling and distribution."),
         "Sum of energy deltas over the holds + (E_tray - sum of its boards) x held GPU time / the tray's GPU time.",
         "Own definition; table job_energy"),
        ("job_energy_facility", "… with facility", "MWh", "As before, times iPUE of the period.",
         "E_job x iPUE. The jobs' share of switches and shelves is in neither factor.", "Own definition"),
        ("tokens_per_gpu_joule", "Tokens per joule, GPU", "1/J", "GPU boards of the jobs that reported tokens.",
         "Sum of tokens / sum of E_GPU.", "Register job_tokens"),
        ("tokens_per_joule", "Tokens per joule, IT", "1/J", "The same jobs, with their share of the trays.",
         "Sum of tokens / sum of E_job.", "Register job_tokens"),
        ("tokens_per_facility_joule", "Tokens per joule, facility", "1/J", "The same jobs, times iPUE of the period.",
         "Sum of tokens / (sum of E_job x iPUE).", "Register job_tokens"),
        ("stragglers", "Stragglers", "", "GPUs of jobs with eight GPUs or more.",
         ("GPUs whose SM clock lies more than 3.5 robust standard deviations below their job's median in 3 or more of "
         "5 windows that follow each other, and that draw less or are hotter than their job by the same measure: a low "
         "clock alone is normal at the power cap. z = (x - median) / max(1.4826 MAD, sensor step)."),
         "Iglewicz and Hoaglin 1993 (modified z-score and its limit)"),
        ("lemons", "Lemon nodes", "", "Trays of the inventory; faults of racks and cooling are not theirs.",
         ("Nodes with so many failures (page and ticket XIDs, hardware faults) that fewer than 0.05 nodes of the fleet "
         "would have them by chance, if all failed alike: N x P(X >= k), X Poisson."), "Poisson model"),
        ("rise", "Steepest rise", "MW/min", "The site's feed meters.",
         "Greatest difference of the mean powers of two minutes that follow each other.", "Own definition"),
        ("fall", "Steepest fall", "MW/min", "The site's feed meters.",
         "Least difference of the mean powers of two minutes that follow each other.", "Own definition"),
        ("steps", "Steps above 10 %", "", "The site's feed meters.",
         "Changes by more than 10 % within 1 to 10 s, each counted once.", "Own definition"),
        ("overflow", "Coolant over-flow, median rack", "%", "Racks with coolant readings.",
         ("V / V_needed - 1 with V_needed = Q / (rho cp dT), dT the design rise; rho at supply temperature, cp at the "
         "mean one, of the rack's own fluid."), "Energy balance; CoolProp"),
        ("approach", "Approach temperature, median rack", "K", "Working GPUs of a rack over its coolant's supply.",
         "Mean GPU temperature while working - mean supply temperature.", "Own definition"),
    )  # fmt: skip
    return {row[0]: Definition(**dict(zip(_FIELDS, row, strict=True))) for row in rows}


_FIELDS = ("key", "title", "unit", "boundary", "method", "source")
