"""Coolant, heat and meters of a site: what follows from the power of its racks."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from simulation import power, thermal
from simulation.columns import Facility, Instruments
from simulation.fluid import WATER, flow_for
from simulation.site import Site
from simulation.state import State
from simulation.wander import Wander

Floats = NDArray[np.float64]

OFF_TAKER_COLD_C = 38.0  # what comes back from the off-taker
EXCHANGER_SHARE = 0.98  # of the heat in the loops that the hand-over exchanger can take


class Plant:
    """How a site's heat and coolant move, and what its boundary meters see. What changes is in `State` but for these:

    `hot_c` and `cold_c` are the temperatures at the two heat meters, `outside_c` the air's, as of the last step.
    """

    def __init__(self, site: Site, instruments: Instruments, liquid_share: Floats, supply: Wander) -> None:
        self._site = site
        self._climate = instruments.climate
        self._liquid_share = liquid_share
        self._supply_k = lru_cache(maxsize=2)(supply.at)  # each instant is asked for by several
        self._nominal_heat_w = site.nominal_liquid_heat_w
        self._cdu_full_flow = np.diff(site.cdu_rack, append=site.racks) * thermal.RACK_FLOW_FULL
        self.hot_c, self.cold_c, self.outside_c = np.zeros(2), np.zeros(2), 0.0

    def begin(self, state: State, rack_w: Floats, time_s: float) -> None:
        """Put everything in balance with racks that have drawn `rack_w` for long."""
        state.plate_heat_w = state.rack_heat_w = rack_w * self._liquid_share
        state.loop_heat_w = np.add.reduceat(state.rack_heat_w, self._site.hall_rack)
        state.valve = thermal.valve_target(state.rack_heat_w)
        flow = self._flow(state)
        state.pump_w = self._pump_watts(flow)
        self._observe(state, float(state.loop_heat_w.sum()), flow, time_s)

    def step(self, state: State, rack_j: Floats, to_s: float, dt_s: float) -> None:
        """Move on to `to_s`, `dt_s` seconds in which the racks drew `rack_j`."""
        liquid_w = rack_j * self._liquid_share / dt_s
        exported_w = self._carry_heat(state, liquid_w, dt_s) / dt_s
        self._control(state, dt_s)
        pumps_before = state.pump_w
        flow = self._flow(state)
        state.pump_w = self._pump_watts(flow)
        self._observe(state, exported_w, flow, to_s)
        heat_w = self._shares_of(exported_w, to_s - dt_s / 2)
        state.heat_j = state.heat_j + heat_w * dt_s
        state.heat_volume = state.heat_volume + dt_s * flow_for(WATER, heat_w, self.hot_c, self.cold_c, self.cold_c)
        pumps_w = float((pumps_before + state.pump_w).sum()) / 2
        air_w = float(rack_j.sum()) / dt_s - float(liquid_w.sum())
        cooling_j = dt_s * self._cooling_watts(pumps_w, float(heat_w[1]), air_w)
        it_j = np.add.reduceat(rack_j, self._site.hall_rack) * (1 + power.DISTRIBUTION_LOSS)
        other_j = dt_s * self._other_watts(to_s - dt_s / 2)
        meter_j = self._meters(it_j, cooling_j, other_j)
        state.meter_j = state.meter_j + meter_j
        # All electricity that does not warm the coolant warms air, inside or outside.
        state.air_j = state.air_j + (meter_j[0] - dt_s * float(liquid_w.sum()))

    def facility(self, state: State, rack_w: Floats, time_s: float) -> Facility:
        """The state from which rack, cooling and power columns follow; `rack_w` is what each rack draws now."""
        heat_w = self._shares_of(float(state.loop_heat_w.sum()), time_s)
        air_w = float(rack_w.sum()) - float((rack_w * self._liquid_share).sum())
        cooling_w = self._cooling_watts(float(state.pump_w.sum()), float(heat_w[1]), air_w)
        it_w = np.add.reduceat(rack_w, self._site.hall_rack) * (1 + power.DISTRIBUTION_LOSS)
        lost = power.SUPPLIES_PER_SHELF * state.rack_brakes
        return Facility(
            time_s=np.asarray(time_s),
            outside_c=np.asarray(self.outside_c),
            rack_w=rack_w,
            rack_j=state.rack_total_j,
            rack_heat_w=state.rack_heat_w,
            rack_flow=self._flow(state),
            rack_valve=state.valve,
            rack_supplies=np.maximum(power.SUPPLIES_PER_RACK - lost, 0).astype(np.float64),
            rack_leak=state.rack_leaks > 0,
            cdu_supply_c=self.supply_c(state, time_s),
            cdu_pump_w=state.pump_w,
            cdu_tripped=state.cdu_trips > 0,
            loop_heat_w=state.loop_heat_w,
            heat_w=heat_w,
            heat_j=state.heat_j,
            heat_volume=state.heat_volume,
            heat_hot_c=self.hot_c,
            heat_cold_c=self.cold_c,
            meter_w=self._meters(it_w, cooling_w, self._other_watts(time_s)),
            meter_j=state.meter_j,
        )

    def _carry_heat(self, state: State, liquid_w: Floats, dt_s: float) -> float:
        """Move heat through cold plates, racks and loops; returns the J that reach the exchangers."""
        halls = self._site.hall_rack
        decay = thermal.decay_over(dt_s)
        plate, rack = state.plate_heat_w - liquid_w, state.rack_heat_w - liquid_w
        new_plate = liquid_w + plate * decay.one
        new_rack = liquid_w + rack * decay.two + plate * decay.one_to_two
        into_loop = np.add.reduceat(liquid_w, halls)
        new_loop = (
            into_loop
            + (state.loop_heat_w - into_loop) * decay.three
            + np.add.reduceat(rack, halls) * decay.two_to_three
            + np.add.reduceat(plate, halls) * decay.one_to_three
        )
        out_of_rack = (
            liquid_w * dt_s
            - thermal.COLD_PLATE_TAU_S * (new_plate - state.plate_heat_w)
            - thermal.RACK_TAU_S * (new_rack - state.rack_heat_w)
        )
        out_of_loop = out_of_rack.sum() - thermal.LOOP_TAU_S * (new_loop - state.loop_heat_w).sum()
        state.plate_heat_w, state.rack_heat_w, state.loop_heat_w = new_plate, new_rack, new_loop
        state.rack_liquid_j = state.rack_liquid_j + out_of_rack
        return float(out_of_loop)

    def _control(self, state: State, dt_s: float) -> None:
        state.valve = thermal.relax(state.valve, thermal.valve_target(state.rack_heat_w), dt_s, thermal.VALVE_TAU_S)
        rise = thermal.TRIP_RISE_K * (state.cdu_trips > 0)
        state.trip_k = thermal.relax(state.trip_k, rise, dt_s, thermal.TRIP_TAU_S)

    def _flow(self, state: State) -> Floats:
        """Coolant through each rack, m³/s."""
        kept = np.where(state.cdu_trips > 0, thermal.TRIPPED_FLOW, 1.0)[self._site.rack_cdu]
        flow: Floats = thermal.RACK_FLOW_FULL * state.valve * kept * (state.rack_leaks == 0)
        return flow

    def _pump_watts(self, flow: Floats) -> Floats:
        cdu_flow = np.add.reduceat(flow, self._site.cdu_rack)
        return thermal.pump_watts(cdu_flow, cdu_flow / self._cdu_full_flow)

    def supply_c(self, state: State, time_s: float) -> Floats:
        """Coolant that each CDU supplies, °C."""
        return thermal.SUPPLY_SET_POINT_C + self._supply_k(time_s) + state.trip_k

    def _observe(self, state: State, exported_w: float, rack_flow: Floats, time_s: float) -> None:
        """Temperatures at the boundary and outside, for the meters there."""
        supply = float(self.supply_c(state, time_s).mean())
        cold = supply - thermal.APPROACH_K
        flow = float(rack_flow.sum())
        rise = exported_w / flow * thermal.KELVIN_FLOW_PER_WATT if flow > 0 else thermal.DESIGN_RISE_K
        hot = cold + min(max(rise, 3.0), 20.0) - thermal.PIPE_LOSS_K
        self.hot_c = np.array([hot, hot])
        self.cold_c = np.array([min(OFF_TAKER_COLD_C, hot - 2.0), min(cold - 1.0, hot - 1.0)])
        self.outside_c = float(self._climate.outside_c(time_s))

    def _shares_of(self, heat_w: float, time_s: float) -> Floats:
        """Heat handed over and rejected, W: the off-taker takes what it wants, dry coolers the rest."""
        demand = float(self._climate.demand_share(time_s)) * self._nominal_heat_w
        handed_over = min(EXCHANGER_SHARE * max(heat_w, 0.0), demand)
        return np.array([handed_over, heat_w - handed_over])

    def _cooling_watts(self, pumps_w: float, rejected_w: float, air_w: float) -> float:
        fans_w = thermal.fan_watts(max(rejected_w, 0.0), float(self.hot_c[1]), self.outside_c)
        return pumps_w * (1 + thermal.PRIMARY_PUMP_SHARE) + fans_w + air_w / thermal.AIR_HANDLING_COP

    def _other_watts(self, time_s: float) -> float:
        hours = 0.5 + 0.5 * np.cos(2 * np.pi * (time_s / 86_400.0 - 0.5))
        return power.other_watts(self._site.racks, float(hours))

    @staticmethod
    def _meters(it: Floats, cooling: float, other: float) -> Floats:
        return np.concatenate([[power.site_watts(it, cooling, other), cooling, other], it])
