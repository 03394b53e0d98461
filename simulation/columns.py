"""What the sensors of racks, cooling equipment and meters show; pure functions of the facility's state.

Every function takes states with any leading axes, so that an hour of ticks is one call.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from catalogue import facility as catalogue_facility
from catalogue.facility import LeakState
from simulation import thermal
from simulation.climate import Climate
from simulation.fluid import PG25, WATER, Fluid, flow_for, temperature_rise
from simulation.site import FIRST_IT_METER, Site
from simulation.wander import Wander

Floats = NDArray[np.float64]
Columns = dict[str, Floats]

JOULES_PER_WATT_HOUR = 3600.0
LITRE = 1e-3

GRID_VOLTS = 132_000.0
BUS_VOLTS = 415.0
POWER_FACTOR = 0.985
STATIC_PRESSURE_PA = 250_000.0
LEAK_PRESSURE_PA = -45_000.0  # beyond the 20 kPa at which a hidden leak is suspected

_QUALITY = {name: value for value, name in catalogue_facility.QUALITY_STATES}
_BREAKER = {name: value for value, name in catalogue_facility.BREAKER_STATES}
_EQUIPMENT = {name: value for value, name in catalogue_facility.EQUIPMENT_STATES}


@dataclass(frozen=True, slots=True, eq=False)
class Facility:
    """The facility at an instant. Shapes: () in time, (racks,), (cdus,), (halls,), (meters,), (2,) heat meters."""

    time_s: Floats
    outside_c: Floats
    rack_w: Floats
    rack_j: Floats
    rack_heat_w: Floats
    rack_flow: Floats
    rack_valve: Floats
    rack_supplies: Floats
    rack_leak: NDArray[np.bool_]
    cdu_supply_c: Floats
    cdu_pump_w: Floats
    cdu_tripped: NDArray[np.bool_]
    loop_heat_w: Floats
    heat_w: Floats  # handed over, rejected
    heat_j: Floats
    heat_volume: Floats
    heat_hot_c: Floats
    heat_cold_c: Floats
    meter_w: Floats
    meter_j: Floats

    @classmethod
    def stack(cls, states: list["Facility"]) -> "Facility":
        """The states one after another along a new first axis."""
        return cls(**{f.name: np.stack([getattr(state, f.name) for state in states]) for f in fields(cls)})


@dataclass(frozen=True, slots=True, eq=False)
class Instruments:
    """What the devices are, apart from what they measure: register starts in J and m³, slow drifts."""

    climate: Climate
    pressure: Wander  # of each CDU, in Pa
    level: Wander  # of each CDU, a share
    rack_start_j: Floats
    meter_start_j: Floats
    heat_start_j: Floats
    volume_start: Floats


def rack_columns(site: Site, instruments: Instruments, state: Facility) -> Columns:
    """The rack table, shape (..., racks). The rack's flow meter sits in its supply."""
    supply = state.cdu_supply_c[..., site.rack_cdu]
    rise = temperature_rise(PG25, state.rack_flow, state.rack_heat_w, supply)
    share = state.rack_flow / thermal.RACK_FLOW_FULL
    air = instruments.climate.air_inlet_c(state.time_s)
    return {
        "power_watts": state.rack_w,
        "energy_register_joules": _counted(instruments.rack_start_j + state.rack_j, JOULES_PER_WATT_HOUR),
        "liquid_heat_watts": np.where(state.rack_flow > 0, state.rack_heat_w, 0.0),
        "liquid_supply_temperature_celsius": supply,
        "liquid_return_temperature_celsius": supply + rise,
        "liquid_flow_cubic_metres_per_second": state.rack_flow,
        "liquid_differential_pressure_pascals": thermal.RACK_PRESSURE_FULL_PA * share**2,
        "valve_position_ratio": state.rack_valve,
        "air_inlet_temperature_celsius": np.broadcast_to(air[..., None], state.rack_w.shape),
        "power_supply_count": state.rack_supplies,
        "leak_state": np.where(state.rack_leak, float(LeakState.CRITICAL), float(LeakState.DRY)),
        "quality_state": np.full(state.rack_w.shape, float(_QUALITY["good"])),
    }


def cooling_columns(site: Site, instruments: Instruments, state: Facility) -> Columns:
    """The cooling table, shape (..., cdus + loops + 2), in the order of ids: CDUs, loops, heat meters.

    A heat meter's primary supply is what it delivers, hot; its flow meter sits in the return.
    """
    parts = (_cdus(site, instruments, state), _loops(site, instruments, state), _heat_meters(instruments, state))
    shapes = (state.cdu_supply_c.shape, state.loop_heat_w.shape, state.heat_w.shape)
    names = {name: None for part in parts for name in part}
    blank = [np.full(shape, np.nan) for shape in shapes]
    columns = {
        name: np.concatenate([part.get(name, none) for part, none in zip(parts, blank, strict=True)], axis=-1)
        for name in names
    }
    columns["quality_state"] = np.full(columns["heat_flow_watts"].shape, float(_QUALITY["good"]))
    return columns


def power_columns(site: Site, instruments: Instruments, state: Facility) -> Columns:
    """The power table, shape (..., meters): site, cooling, other, IT of each hall."""
    shape = state.meter_w.shape
    nominal = np.full(FIRST_IT_METER + site.halls, BUS_VOLTS)
    nominal[0] = GRID_VOLTS
    volts = nominal * (1 + instruments.climate.voltage.at(state.time_s))
    hertz = 50.0 + instruments.climate.frequency.at(state.time_s)
    return {
        "active_power_watts": state.meter_w,
        "reactive_power_vars": state.meter_w * np.tan(np.arccos(POWER_FACTOR)),
        "energy_import_joules": _counted(instruments.meter_start_j + state.meter_j, JOULES_PER_WATT_HOUR),
        "energy_export_joules": np.zeros(shape),
        "voltage_volts": volts,
        "current_amperes": state.meter_w / (np.sqrt(3.0) * volts * POWER_FACTOR),
        "frequency_hertz": np.broadcast_to(hertz, shape),
        "power_factor_ratio": np.full(shape, POWER_FACTOR),
        "breaker_state": np.full(shape, float(_BREAKER["closed"])),
        "quality_state": np.full(shape, float(_QUALITY["good"])),
    }


def _cdus(site: Site, instruments: Instruments, state: Facility) -> Columns:
    flow = np.add.reduceat(state.rack_flow, site.cdu_rack, axis=-1)
    heat = np.add.reduceat(np.where(state.rack_flow > 0, state.rack_heat_w, 0.0), site.cdu_rack, axis=-1)
    racks = np.diff(site.cdu_rack, append=site.racks)
    share = flow / (racks * thermal.RACK_FLOW_FULL)
    leak = np.logical_or.reduceat(state.rack_leak, site.cdu_rack, axis=-1)
    columns = _exchange(flow, heat, state.cdu_supply_c)
    return {
        **columns,
        "secondary_pressure_pascals": STATIC_PRESSURE_PA
        + instruments.pressure.at(state.time_s)
        + np.where(leak, LEAK_PRESSURE_PA, 0.0),
        "differential_pressure_pascals": thermal.pump_pressure_pa(share),
        "pump_speed_ratio": np.where(state.cdu_tripped, 0.35, 0.40 + 0.55 * share),
        "pump_power_watts": state.cdu_pump_w,
        "valve_position_ratio": np.clip(0.2 + 0.75 * share, 0.0, 1.0),
        "reservoir_level_ratio": 0.88 + instruments.level.at(state.time_s) - np.where(leak, 0.15, 0.0),
        "dew_point_temperature_celsius": _dew_points(instruments, state, flow),
        "leak_state": np.where(leak, float(LeakState.WARNING), float(LeakState.DRY)),
        "equipment_state": np.where(state.cdu_tripped, float(_EQUIPMENT["degraded"]), float(_EQUIPMENT["running"])),
    }


def _loops(site: Site, instruments: Instruments, state: Facility) -> Columns:
    """A hall's loop: the sum of its CDUs' rack sides; its heat flow is what reaches the exchangers."""
    flow = np.add.reduceat(state.rack_flow, site.hall_rack, axis=-1)
    cdu_flow = np.add.reduceat(state.rack_flow, site.cdu_rack, axis=-1)
    weighted = np.add.reduceat(cdu_flow * state.cdu_supply_c, site.hall_cdu, axis=-1)
    supply = np.where(flow > 0, weighted / np.where(flow > 0, flow, 1.0), thermal.SUPPLY_SET_POINT_C)
    return {
        **_exchange(flow, state.loop_heat_w, supply),
        "secondary_pressure_pascals": np.full(flow.shape, STATIC_PRESSURE_PA),
        "dew_point_temperature_celsius": _dew_points(instruments, state, flow),
        "leak_state": np.full(flow.shape, float(LeakState.DRY)),
        "equipment_state": np.full(flow.shape, float(_EQUIPMENT["running"])),
    }


def _exchange(flow: Floats, heat: Floats, supply: Floats) -> Columns:
    """Both sides of a balanced exchanger: the facility side is colder by the approach at both ends."""
    rise = temperature_rise(PG25, flow, heat, supply)
    cold, hot = supply - thermal.APPROACH_K, supply - thermal.APPROACH_K + rise
    moving = rise > 0
    return {
        "primary_supply_temperature_celsius": cold,
        "primary_return_temperature_celsius": hot,
        "primary_flow_cubic_metres_per_second": np.where(
            moving, _flow(WATER, heat, np.where(moving, hot, cold + 1), cold), 0.0
        ),
        "secondary_supply_temperature_celsius": supply,
        "secondary_return_temperature_celsius": supply + rise,
        "secondary_flow_cubic_metres_per_second": flow,
        "heat_flow_watts": heat,
    }


def _heat_meters(instruments: Instruments, state: Facility) -> Columns:
    return {
        "primary_supply_temperature_celsius": state.heat_hot_c,
        "primary_return_temperature_celsius": state.heat_cold_c,
        "primary_flow_cubic_metres_per_second": _flow(WATER, state.heat_w, state.heat_hot_c, state.heat_cold_c),
        "heat_flow_watts": state.heat_w,
        "heat_register_joules": _counted(instruments.heat_start_j + state.heat_j, JOULES_PER_WATT_HOUR),
        "volume_register_cubic_metres": _counted(instruments.volume_start + state.heat_volume, LITRE),
        "equipment_state": np.full(state.heat_w.shape, float(_EQUIPMENT["running"])),
    }


def _flow(fluid: Fluid, heat: Floats, hot: Floats, cold: Floats) -> Floats:
    return flow_for(fluid, heat, hot, cold, cold)


def _dew_points(instruments: Instruments, state: Facility, like: Floats) -> Floats:
    return np.broadcast_to(instruments.climate.dew_point_c(state.time_s)[..., None], like.shape)


def _counted(cumulative: Floats, resolution: float) -> Floats:
    """What the device's counter shows: whole steps, rounded down."""
    shown: Floats = np.floor(cumulative / resolution) * resolution
    return shown
