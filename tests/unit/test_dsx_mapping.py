"""Which column a point goes into, and how its number becomes a base unit.

Point types, units and process areas are those of NVIDIA's bms.yaml and docs/bms-integration.md; numbers are converted
by hand.
"""

import re
from collections.abc import Sequence

import pytest

from catalogue import TABLES, Metric, Table
from catalogue.origins import DsxPoint
from collectors.dsx.alarms import ALARMS
from collectors.dsx.mapping import DETECTORS, Column, StatusWords, column_of, leak_state
from collectors.dsx.message import PointAddress, PointFacts, StateLabel
from collectors.dsx.units import Scale, named_scale, scale_of

ORIGINS = [
    (table, metric, origin)
    for table in TABLES
    for metric in table.metrics
    for origin in metric.origins
    if isinstance(origin, DsxPoint)
]
# Where the schema has no unit of its own for a point type, one that fits.
UNITS = {"ActivePower": "kW", "Voltage": "V", "Current": "A", "Frequency": "Hz", "PumpSpeed": "%"}
STATES = (StateLabel(0, "Off"), StateLabel(1, "On"))


def column_for(point: str, *, unit: str | None = None, area: Sequence[str] = (), **facts: object) -> Column | None:
    object_type, point_type = point.split("/")
    address = PointAddress(object_type, point_type, "tag")
    described = PointFacts(eng_unit=unit, process_area=tuple(area), **facts)  # type: ignore[arg-type]
    return column_of(address, described, scale_of(point_type, described))


def name_of(column: Column | None) -> str | None:
    return f"{column.table.name}.{column.metric.name}" if column else None


@pytest.mark.parametrize(("table", "metric", "origin"), ORIGINS, ids=lambda value: str(getattr(value, "name", value)))
def test_every_dsx_origin_of_the_catalogue_is_reached(table: Table, metric: Metric, origin: DsxPoint) -> None:
    found = re.fullmatch(r"(\S+)/(\S+)(?: \[(.+)\])?", origin.path)
    assert found is not None
    if "*" in origin.path:
        return  # every point has a quality, and every point without a column is one of table points
    column = column_for(f"{found[1]}/{found[2]}", unit=UNITS.get(found[2]), area=(found[3] or "").split(", "))
    assert column is not None
    assert (column.table, column.metric) == (table, metric)


def test_every_detector_is_told_and_every_detector_of_a_column_is_an_alarm() -> None:
    assert {point_type for _, point_type in DETECTORS} <= ALARMS.keys()


@pytest.mark.parametrize(
    ("point", "column"),
    [
        ("Rack/RackLiquidSupplyTemperature", "rack.liquid_supply_temperature_celsius"),
        ("Rack/RackLiquidReturnTemperature", "rack.liquid_return_temperature_celsius"),
        ("Rack/RackLiquidFlow", "rack.liquid_flow_cubic_metres_per_second"),
        ("Rack/RackLiquidDifferentialPressure", "rack.liquid_differential_pressure_pascals"),
        ("Rack/RackControlValvePosition", "rack.valve_position_ratio"),
        ("Rack/RackPower", "rack.power_watts"),
        ("Rack/RackLeakDetect", "rack.leak_state"),
        ("Rack/RackLeakDetectTray", "rack.leak_state"),
        ("Rack/RackLeakSensorFault", "rack.leak_state"),
        ("Rack/RackLiquidDifferentialPressureSp", None),  # what is wanted, not what is
        ("Rack/RackLiquidIsolationStatus", None),
        ("CDU/RackPower", None),
        ("PowerMeter/PhaseCurrent", None),
        ("PowerMeter/ApparentPower", None),
        ("Pump/PumpSpeed", None),
    ],
)
def test_point_types_have_their_columns(point: str, column: str | None) -> None:
    assert name_of(column_for(point)) == column


@pytest.mark.parametrize(
    ("point", "area", "column"),
    [
        ("LiquidTemperature", ["Primary", "Inlet"], "primary_supply_temperature_celsius"),
        ("LiquidTemperature", ["Primary", "Outlet"], "primary_return_temperature_celsius"),
        ("LiquidTemperature", ["Secondary", "Supply"], "secondary_supply_temperature_celsius"),
        ("LiquidTemperature", ["Secondary", "Return"], "secondary_return_temperature_celsius"),
        ("LiquidTemperature", ["Secondary", "Outlet"], "secondary_supply_temperature_celsius"),
        ("LiquidTemperature", ["Secondary", "Supply", "Sensor 2"], "secondary_supply_temperature_celsius"),
        ("LiquidTemperature", ["Secondary", "Reservoir"], None),
        ("LiquidTemperature", ["Secondary", "Supply", "Average"], None),
        ("LiquidTemperature", ["Primary"], None),
        ("LiquidTemperature", [], None),
        ("LiquidFlow", ["Primary"], "primary_flow_cubic_metres_per_second"),
        ("LiquidFlow", ["Secondary", "Return"], "secondary_flow_cubic_metres_per_second"),
        ("LiquidFlow", ["Secondary", "Bypass"], None),
        ("LiquidPressure", ["Secondary", "Supply"], "secondary_pressure_pascals"),
        ("LiquidPressure", ["Secondary", "Return"], None),
        ("LiquidPressure", ["Primary", "Inlet"], None),
        ("LiquidDifferentialPressure", ["Secondary"], "differential_pressure_pascals"),
        ("LiquidDifferentialPressure", ["Secondary", "Filter"], None),
        ("LiquidDifferentialPressure", ["Primary"], None),
        ("ValvePosition", ["Primary"], "valve_position_ratio"),
        ("ValvePosition", ["Bypass"], None),
        ("LeakDetect", ["Drip Tray"], "leak_state"),
    ],
)
def test_the_process_area_decides_for_a_cdu(point: str, area: list[str], column: str | None) -> None:
    assert name_of(column_for(f"CDU/{point}", area=area)) == (column and f"cooling.{column}")


def test_a_setpoint_is_no_measurement() -> None:
    area = ["Secondary", "Supply"]
    assert column_for("CDU/LiquidTemperature", area=area) is not None
    assert column_for("CDU/LiquidTemperature", area=area, is_setpoint=False) is not None
    assert column_for("CDU/LiquidTemperature", area=area, is_setpoint=True) is None


def test_a_point_in_a_unit_of_another_kind_keeps_out_of_the_column() -> None:
    assert name_of(column_for("CDU/PumpSpeed", unit="%")) == "cooling.pump_speed_ratio"
    assert column_for("CDU/PumpSpeed", unit="RPM") is None
    assert column_for("CDU/PumpSpeed") is None  # typical is RPM
    assert column_for("Rack/RackPower", unit="kVA") is None
    # Open and closed are no opening between 0 and 1 (docs/bms-integration.md: stateText for a valve without analogue).
    assert column_for("CDU/ValvePosition", state_text=STATES) is None


@pytest.mark.parametrize(
    ("point_type", "unit", "number", "value", "suffix"),
    [
        ("RackLiquidSupplyTemperature", "C", 45.0, 45.0, "celsius"),
        ("RackLiquidSupplyTemperature", None, 45.0, 45.0, "celsius"),
        ("RackLiquidFlow", "LPM", 120.0, 0.002, "cubic_metres_per_second"),
        ("RackLiquidDifferentialPressure", "kPa", 80.0, 80_000.0, "pascals"),
        ("RackControlValvePosition", "%", 37.5, 0.375, "ratio"),
        ("RackPower", "kW", 132.0, 132_000.0, "watts"),
        ("RackPower", "W", 132.0, 132.0, "watts"),
        ("AirRelativeHumidity", "%RH", 45.0, 0.45, "relative_humidity"),
        ("AirRelativeHumidity", "%", 45.0, 0.45, "relative_humidity"),
        ("PumpSpeed", "RPM", 3000.0, 50.0, "revolutions_per_second"),
        ("AirTemperature", "°F", 212.0, 100.0, "celsius"),
        ("AirTemperature", "F", -40.0, -40.0, "celsius"),
        ("LiquidFlow", "m3/h", 36.0, 0.01, "cubic_metres_per_second"),
        ("LiquidFlow", "gpm", 60.0, 0.003785411784, "cubic_metres_per_second"),
        ("AirFlow", "CFM", 60.0, 0.028316846592, "cubic_metres_per_second"),
        ("LiquidPressure", "bar", 2.5, 250_000.0, "pascals"),
        ("LiquidPressure", "psi", 40.0, 275_790.29, "pascals"),
        ("LiquidPressure", "KPA", 40.0, 40_000.0, "pascals"),
        ("ActivePower", "MW", 2.3, 2_300_000.0, "watts"),
        ("PowerFactor", None, 0.97, 0.97, "ratio"),
        ("GenericPoint", "uS/cm", 12.0, 12.0, "microsiemens_per_centimetre"),
        ("GenericPoint", "kWh", 2.0, 7_200_000.0, "joules"),
    ],
)
def test_numbers_become_base_units(point_type: str, unit: str | None, number: float, value: float, suffix: str) -> None:
    scale = scale_of(point_type, PointFacts(eng_unit=unit))
    assert scale is not None
    assert scale.in_base_unit(number) == pytest.approx(value, rel=1e-7)
    assert scale.unit.suffix == suffix


@pytest.mark.parametrize("word", ["dB", "mw", "mpa", "MV", "tons", "\x00", "kPa kPa", ""])
def test_a_unit_that_is_not_known_or_could_be_two_is_not_guessed(word: str) -> None:
    assert named_scale(word) is None


def test_only_registers_count() -> None:
    kilowatt_hour, kilowatt = named_scale("kWh"), named_scale("kW")
    assert isinstance(kilowatt_hour, Scale)
    assert isinstance(kilowatt, Scale)
    assert (kilowatt_hour.is_counter, kilowatt.is_counter) == (True, False)


DRY, CRITICAL, SENSOR_FAULT = 1, 3, 4


@pytest.mark.parametrize(
    ("leaks", "faults", "state"),
    [
        ([0.0], [], DRY),
        ([0.0, 0.0], [0.0], DRY),
        ([0.0, 1.0], [0.0], CRITICAL),
        ([1.0], [1.0], CRITICAL),
        ([0.0], [1.0], SENSOR_FAULT),
        ([], [1.0], SENSOR_FAULT),
        ([], [0.0], None),
        ([], [], None),
        ([7.0], [], None),
    ],
)
def test_a_leak_is_worse_than_a_fault_and_no_word_is_not_dry(
    leaks: list[float], faults: list[float], state: int | None
) -> None:
    assert leak_state(leaks, faults) == state


def test_status_texts_are_the_sites_own() -> None:
    words = StatusWords({"Auto": "running", "Off": "failed"})
    assert [words.state(text) for text in ("Running", " on ", "AUTO", "Standby", "Off", "tripped", "Mode 7", "")] == [
        1, 1, 1, 2, 4, 4, None, None,
    ]  # fmt: skip
