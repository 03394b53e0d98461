"""What the building system of the simulated site says of a rack, in the units that the bus fixes."""

import numpy as np

from catalogue.facility import LEAK_STATES
from simulation.serving.dsx import POINT_TYPES, RACK_POINTS, BrokerAddress, BusRack, counts_of, metadata_of

DRY, CRITICAL = (next(float(state) for state, name in LEAK_STATES if name == wanted) for wanted in ("dry", "critical"))
RACKS = [BusRack("H1-R1", "rack 1"), BusRack("H1-R2", "rack 2")]
SENSORS = {
    "power_watts": np.array([114_972.0, 0.0]),
    "liquid_supply_temperature_celsius": np.array([36.504, 36.506]),
    "liquid_return_temperature_celsius": np.array([46.0, 36.5]),
    "liquid_flow_cubic_metres_per_second": np.array([0.0025, 0.0]),  # 150 L/min
    "liquid_differential_pressure_pascals": np.array([85_540.0, 0.0]),
    "valve_position_ratio": np.array([0.7507, 0.2]),
    "leak_state": np.array([DRY, CRITICAL]),
}


def said(point_type: str, rack: int) -> float:
    """In the unit of the bus."""
    place = POINT_TYPES.index(point_type)
    steps = RACK_POINTS[place].steps_per_unit if place < len(RACK_POINTS) else 1
    return float(counts_of(SENSORS, 2)[place, rack]) / steps


def test_numbers_are_in_the_bus_own_units_and_in_whole_steps() -> None:
    assert said("RackPower", 0) == 114.97  # kW
    assert said("RackLiquidSupplyTemperature", 0) == 36.5  # C
    assert said("RackLiquidSupplyTemperature", 1) == 36.51
    assert said("RackLiquidFlow", 0) == 150.0  # LPM
    assert said("RackLiquidDifferentialPressure", 0) == 85.5  # kPa
    assert said("RackControlValvePosition", 0) == 75.1  # %


def test_a_rack_that_leaks_and_is_cut_off_says_so() -> None:
    names = ("RackLeakDetect", "RackLiquidIsolationStatus", "RackElectricalIsolationStatus", "RackLeakSensorFault")
    assert [said(name, 0) for name in names] == [0, 0, 0, 0]
    assert [said(name, 1) for name in names] == [1, 1, 1, 0]


def test_only_the_racks_that_are_on_the_bus_are_counted() -> None:
    assert counts_of(SENSORS, 1).shape == (10, 1)


def test_every_point_is_described_with_its_rack_and_unit_or_states() -> None:
    facts = dict(metadata_of(RACKS))
    assert len(facts) == 2 * 10 + 1  # and the heartbeat
    power = facts["Rack/RackPower/H1-R2"]
    assert (power["rackLocationId"], power["rackLocationName"], power["engUnit"]) == ("H1-R2", "rack 2", "kW")
    assert facts["Rack/RackLeakDetect/H1-R1"]["stateText"] == [
        {"value": 0, "text": "NoLeak"},
        {"value": 1, "text": "Leak"},
    ]


def test_the_broker_s_password_is_in_no_repr() -> None:
    secret = "-".join(("correct", "horse"))
    assert secret not in repr(BrokerAddress(host="broker", port=1883, username="bms", password=secret))
