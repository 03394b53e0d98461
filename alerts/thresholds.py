"""Every threshold of the alert rules, with its reason and source; a site overrides them in one TOML file."""

import math
import tomllib
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any


class ThresholdsError(ValueError):
    """A threshold is not known or not sensible; the message says which one and what to give."""


def _threshold(value: float, *, least: float, most: float, reason: str, source: str = "ours") -> Any:  # noqa: ANN401 - as dataclasses.field
    return field(default=value, metadata={"least": least, "most": most, "reason": reason, "source": source})


_HEALTH = "NVIDIA Health Validation"
_NIC = "NVSentinel, NIC health monitor"
_DCGM = "DCGM health watch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Limits by what they limit; the unit ends the name, seconds are how long a state must stand."""

    gpu_margin_kelvin: float = _threshold(
        0, least=-10, most=30, reason="below, the GPU is slower to stay alive", source="NVML 193 to 196"
    )
    gpu_margin_s: float = _threshold(30, least=0, most=600, reason="a cold plate follows within 5 to 20 s")
    gpu_throttled_ratio: float = _threshold(
        0.05, least=0.001, most=1, reason="a job loses its slowest GPU's share of speed"
    )
    gpu_memory_warm_celsius: float = _threshold(95, least=50, most=120, reason="HBM refreshes twice as often above")
    gpu_memory_hot_celsius: float = _threshold(105, least=50, most=120, reason="shutdown is near")
    gpu_power_most_watts: float = _threshold(
        1500, least=100, most=5000, reason="no GB200 or GB300 GPU draws more", source=_HEALTH
    )
    gpu_power_least_watts: float = _threshold(
        65, least=0, most=500, reason="no GB200 or GB300 GPU draws less", source=_HEALTH
    )
    gpu_clock_ratio: float = _threshold(0.7, least=0.1, most=1, reason="of its neighbours' median: a straggler")
    gpu_active_ratio: float = _threshold(0.9, least=0.1, most=1, reason="a GPU that waits may clock down")
    nvlink_crc_per_second: float = _threshold(
        100, least=1, most=1e6, reason="fewer are corrected without loss", source=_DCGM
    )
    pcie_replays_per_gigatransfer: float = _threshold(
        0.06, least=0.001, most=10, reason="per minute, GT/s and lane: what the bit error rate allows", source=_DCGM
    )
    port_symbol_errors_per_second: float = _threshold(
        10, least=0.1, most=1e6, reason="a dirty or ageing optic", source=_NIC
    )
    port_recoveries_per_minute: float = _threshold(5, least=0.1, most=1e4, reason="the link trains again", source=_NIC)
    port_downs_per_hour: float = _threshold(3, least=1, most=1e4, reason="a link that flaps breaks jobs", source=_NIC)
    smoothing_life_ratio: float = _threshold(0.1, least=0, most=1, reason="replacement is ordered ahead")
    rack_flow_warn_ratio: float = _threshold(0.8, least=0.1, most=1, reason="of P / (rho cp dT)")
    rack_flow_page_ratio: float = _threshold(0.6, least=0.1, most=1, reason="GPUs throttle within minutes")
    rack_design_kelvin: float = _threshold(
        10, least=2, most=30, reason="temperature rise at design flow", source="OCP guidance: 1.5 L/min per kW"
    )
    rack_liquid_ratio: float = _threshold(0.85, least=0.1, most=1, reason="of a rack's power, the rest goes to air")
    tcs_supply_celsius: float = _threshold(45, least=15, most=60, reason="set point of the coolant's supply")
    tcs_warn_kelvin: float = _threshold(2, least=0.5, most=20, reason="above the set point")
    tcs_page_kelvin: float = _threshold(5, least=1, most=30, reason="above the set point: cold plates lose margin")
    condensation_kelvin: float = _threshold(2, least=0, most=10, reason="above the dew point: sensors err by 1 K")
    loop_pressure_drop_pascals: float = _threshold(
        20_000, least=1000, most=500_000, reason="in 10 min at steady load: a leak nobody sees"
    )
    heat_residual_ratio: float = _threshold(0.15, least=0.02, most=1, reason="flow meter, probe or fluid are wrong")
    reservoir_warn_ratio: float = _threshold(0.5, least=0.05, most=1, reason="half of the coolant is gone")
    reservoir_page_ratio: float = _threshold(0.25, least=0.01, most=1, reason="pumps run dry soon")
    rack_supplies_required: float = _threshold(
        26, least=1, most=1000, reason="26 x 5.5 kW = 143 kW carry a GB300 rack's 142 kW", source="8 shelves of 6"
    )
    rack_power_limit_watts: float = _threshold(142_000, least=1000, most=2e6, reason="peak of a GB300 NVL72 rack")
    rack_power_warn_ratio: float = _threshold(0.97, least=0.5, most=1, reason="of the rack's limit")
    site_ramp_watts_per_minute: float = _threshold(
        23e6, least=1e4, most=1e9, reason="10 % of 230 MW: replace by what the grid contract says"
    )
    breaker_s: float = _threshold(0, least=0, most=60, reason="a tripped breaker is a fact")
    source_silent_s: float = _threshold(180, least=15, most=86_400, reason="six reads of the slowest default interval")
    fleet_silent_ratio: float = _threshold(0.02, least=0.001, most=1, reason="one node is a node, 2 % are a network")
    read_seconds: float = _threshold(0.5, least=0.01, most=60, reason="a read must leave room in its interval")
    missed_ticks_ratio: float = _threshold(0.1, least=0.001, most=1, reason="per second: one tick in ten at 1 s")
    spool_full_ratio: float = _threshold(0.8, least=0.1, most=1, reason="beyond 1 the oldest readings are lost")
    broker_away_ratio: float = _threshold(0.1, least=0.001, most=1, reason="of the agents: the broker, not a node")
    clock_error_seconds: float = _threshold(0.5, least=0.001, most=60, reason="ticks of two nodes would not meet")
    energy_ratio_tolerance: float = _threshold(0.1, least=0.01, most=1, reason="counter and power must tell the same")
    fresh_s: float = _threshold(60, least=5, most=3600, reason="the promise: stored within a minute")
    fresh_objective_ratio: float = _threshold(0.99, least=0.5, most=0.9999, reason="of the time, over 30 days")
    sla_objective_ratio: float = _threshold(
        0.99, least=0.5, most=0.9999, reason="availability promised of a rack-scale GPU", source="public SLAs, 2026"
    )
    rejected_frames_ratio: float = _threshold(0.001, least=1e-6, most=1, reason="frames that cannot be stored")

    def __post_init__(self) -> None:
        for limit in fields(self):
            self._check(limit)

    def _check(self, limit: Field[float]) -> None:
        value = getattr(self, limit.name)
        least, most = limit.metadata["least"], limit.metadata["most"]
        if not math.isfinite(value) or not least <= value <= most:
            raise ThresholdsError(f"thresholds.{limit.name} is {value:g}; give {least:g} to {most:g}")


def load_thresholds(file: Path) -> Thresholds:
    """Our thresholds with those of the table `thresholds` of a TOML file in their place.

    Raises ThresholdsError with one sentence for a file that cannot be read, and for names and values that do not fit.
    """
    try:
        given = tomllib.loads(file.read_text()).get("thresholds", {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ThresholdsError(f"{file} cannot be read ({error}); give a TOML file with a table [thresholds]") from error
    if not isinstance(given, dict):
        raise ThresholdsError(f"{file}: thresholds is no table; write [thresholds]")
    known = {limit.name for limit in fields(Thresholds)}
    for name, value in given.items():
        if name not in known:
            raise ThresholdsError(f"{file}: no threshold {name}; docs/reference/alerts.md lists them")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ThresholdsError(f"{file}: thresholds.{name} is {value!r}; give a number")
    return replace(Thresholds(), **{name: float(value) for name, value in given.items()})
