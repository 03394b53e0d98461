"""Heat on its way out: lags as exact exponentials, rack flow, pumps and fans.

A lag is dq/dt = (p - q)/τ. With p constant over a step its solution is exact, so that any step is
stable, and the heat it holds is τ·q: what flows out is what flowed in less the change of τ·q.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import exp

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulation.fluid import PG25

Floats = NDArray[np.float64]

# Seconds. Ranges of domain practice: cold plate 5 to 20, rack return 30 to 120, loop minutes.
COLD_PLATE_TAU_S = 12.0
RACK_TAU_S = 60.0
LOOP_TAU_S = 240.0
VALVE_TAU_S = 30.0
TRIP_TAU_S = 120.0  # coolant warms when a CDU trips: its content over its heat

SUPPLY_SET_POINT_C = 43.5  # heat-reuse mode: supply 40 to 45 °C, return 50 to 57 °C
SUPPLY_SIGMA_K = 0.35
TRIP_RISE_K = 9.0
DESIGN_RISE_K = 10.0  # 1.5 L/min per kW with PG25
APPROACH_K = 2.0  # plate exchanger of the CDU
PIPE_LOSS_K = 0.5  # to the meters at the boundary

RACK_FLOW_FULL = 200 / 60_000  # m³/s with the valve open: 200 L/min
RACK_PRESSURE_FULL_PA = 276_000.0  # 40 psi at that flow
VALVE_LOWEST = 0.25
TRIPPED_FLOW = 0.5  # share of the flow that a tripped CDU keeps by its standby pump

PIPEWORK_PA = 60_000.0
PUMP_EFFICIENCY = 0.62
PUMP_CONTROLS_W = 300.0
PRIMARY_PUMP_SHARE = 0.5  # facility-water pumps, as a share of the CDU pumps' power
AIR_HANDLING_COP = 15.0  # fan walls with outside air
DRY_COOLER_FAN_SHARE = 0.008  # of the heat rejected, with air 45 K colder than the water
DRY_COOLER_DESIGN_K = 45.0

GPU_KELVIN_PER_WATT = 0.018  # die over coolant: 25 K at 1400 W
MEMORY_KELVIN = 3.0  # memory over die at idle
MEMORY_KELVIN_PER_WATT = 0.006  # and 8 K more at 1400 W
POOR_CONTACT_FACTOR = 2.6  # thermal resistance of a failed interface
SLOWDOWN_C = 89.0  # the first slowdown threshold


@dataclass(frozen=True, slots=True)
class Decay:
    """What is left of each deviation after a step; see `relax_chain`."""

    one: float
    two: float
    three: float
    one_to_two: float
    two_to_three: float
    one_to_three: float


@lru_cache(maxsize=64)
def decay_over(dt_s: float) -> Decay:
    """The transition of the chain cold plate, rack, loop over dt_s seconds."""
    a, b, c = 1 / COLD_PLATE_TAU_S, 1 / RACK_TAU_S, 1 / LOOP_TAU_S
    ea, eb, ec = exp(-a * dt_s), exp(-b * dt_s), exp(-c * dt_s)
    return Decay(
        one=ea,
        two=eb,
        three=ec,
        one_to_two=b * (ea - eb) / (b - a),
        two_to_three=c * (eb - ec) / (c - b),
        one_to_three=b * c * (ea / ((b - a) * (c - a)) + eb / ((a - b) * (c - b)) + ec / ((a - c) * (b - c))),
    )


def relax(state: Floats, target: ArrayLike, dt_s: float, tau_s: float) -> Floats:
    """One lag after dt_s towards a constant target."""
    aim = np.asarray(target, dtype=np.float64)
    relaxed: Floats = aim + (state - aim) * exp(-dt_s / tau_s)
    return relaxed


def required_flow(heat_w: Floats) -> Floats:
    """Flow in m³/s that carries the heat at the design rise, with PG25 at the set point."""
    rho = PG25.density(SUPPLY_SET_POINT_C)
    cp = PG25.specific_heat(SUPPLY_SET_POINT_C + DESIGN_RISE_K / 2)
    flow: Floats = heat_w / (rho * cp * DESIGN_RISE_K)
    return flow


_FLOW_PER_WATT = float(required_flow(np.array(1.0)))
# Rise of the coolant in K, for 1 W carried by 1 m³/s, at the design point.
KELVIN_FLOW_PER_WATT = DESIGN_RISE_K * _FLOW_PER_WATT


def valve_target(heat_w: Floats) -> Floats:
    """Where the rack's controller wants its valve: 0 to 1."""
    target: Floats = np.minimum(np.maximum(heat_w * (_FLOW_PER_WATT / RACK_FLOW_FULL), VALVE_LOWEST), 1.0)
    return target


def pump_pressure_pa(share_of_full_flow: Floats) -> Floats:
    """Pressure that a CDU's pumps add, at a share of the flow with all valves open."""
    pressure: Floats = PIPEWORK_PA + RACK_PRESSURE_FULL_PA * share_of_full_flow**2
    return pressure


def pump_watts(flow: Floats, share_of_full_flow: Floats) -> Floats:
    """Electrical draw of a CDU's pumps: V·Δp/η and its controls."""
    watts: Floats = flow * pump_pressure_pa(share_of_full_flow) / PUMP_EFFICIENCY + PUMP_CONTROLS_W
    return watts


def fan_watts(rejected_w: float, water_c: float, outside_c: float) -> float:
    """Dry coolers: less air is needed the colder it is."""
    difference = max(water_c - outside_c, 5.0)
    return DRY_COOLER_FAN_SHARE * rejected_w * (DRY_COOLER_DESIGN_K / difference) ** 2
