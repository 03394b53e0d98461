"""The pure parts of the Redfish source: settings, checked access to documents, units, reports, states.

Expected numbers come from DSP8010's own definitions and from arithmetic.
"""

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from catalogue import ResourceKind, units
from catalogue.facility import LeakState
from catalogue.point import UNIT_CODES
from collectors.redfish.document import (
    is_there,
    next_page,
    number_of,
    objects_in,
    parse_document,
    path_of,
    serial_of,
    text_at,
)
from collectors.redfish.leaks import worst_leak
from collectors.redfish.quantities import QUANTITIES, name_of, quantity_at, sensor_quantity, sensor_value
from collectors.redfish.report import choose_reports, covers, needs_of, overlay, read_report
from collectors.redfish.settings import TABLES, RedfishDevice, RedfishResource, RedfishSettings
from collectors.redfish.tree import WAYS, Place

GUIDE = Path(__file__).resolve().parents[2] / "docs/guides/redfish.md"


# Settings -------------------------------------------------------------------------------------------------------------


def test_the_guides_example_is_a_complete_settings_section() -> None:
    example = GUIDE.read_text().split("```toml\n")[1].split("```")[0]
    settings = msgspec.convert(tomllib.loads(example)["redfish"], RedfishSettings)
    assert [device.name for device in settings.devices] == ["cdu-3", "shelf-12-1", "tray-12-07"]
    assert settings.devices[0].resources["/redfish/v1/ThermalEquipment/CDUs/1"].role == "cdu"


def device(**options: Any) -> RedfishDevice:
    return msgspec.convert({"name": "d", "url": "https://10.0.0.3"} | options, RedfishDevice)


def test_a_fingerprint_may_be_written_with_colons() -> None:
    assert device(fingerprint_sha256=":".join(["AB"] * 32)).fingerprint == "ab" * 32


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"url": "http://10.0.0.3"}, "the url of d is not https://host or https://host:port"),
        ({"url": "https://10.0.0.3/redfish"}, "the url of d is not https://host or https://host:port"),
        ({"url": "https://user:password@10.0.0.3"}, "the url of d is not https://host or https://host:port"),
        ({"fingerprint_sha256": "ab"}, "fingerprint_sha256 of d is not 64 hexadecimal digits"),
        (
            {"fingerprint_sha256": "ab" * 32, "ca_file": "x"},
            "d has ca_file and fingerprint_sha256; give one of the two",
        ),
        ({"resources": {"/Chassis/1": {}}}, "resource /Chassis/1 of d is not a path below /redfish/v1"),
        ({"pasword_file": "x"}, "unknown field `pasword_file`"),
        ({"circuits": ["Sockets"]}, "Invalid enum value 'Sockets'"),
    ],
)
def test_a_wrong_device_is_told_in_one_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=sentence):
        device(**options)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"metric": "heat_flow_watts"},
            "sensor of heat_flow_watts: give the kind and the identity of what it measures",
        ),
        ({"kind": "cdu", "identity": "x", "metric": "heat"}, "table cooling has no metric heat"),
        ({"register_modulus_joules": 0.0}, "Expected `float` > 0"),
    ],
)
def test_a_wrong_resource_is_told_in_one_sentence(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=sentence):
        msgspec.convert(given, RedfishResource)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"request_timeout_s": 9.0}, "redfish.request_timeout_s is longer than redfish.deadline_s"),
        ({"workers": 0}, "Expected `int` >= 1"),
    ],
)
def test_wrong_limits_are_told_in_one_sentence(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=sentence):
        msgspec.convert(given, RedfishSettings)


def test_two_devices_may_not_have_one_name() -> None:
    with pytest.raises(ValueError, match="two devices of redfish are called d"):
        RedfishSettings(devices=(device(), device()))


def test_every_kind_that_settings_can_name_has_a_table() -> None:
    assert {kind for kind, table in TABLES.items() if kind not in table.resources} == set()


# Documents ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "link",
    [
        "https://elsewhere/redfish/v1/Chassis",
        "//elsewhere/redfish/v1",
        "/redfish/v2/Chassis",
        "/redfish/v1/../../etc",
        "/redfish/v1/a/%2E%2e/b",
        "/redfish/v1/./a",
        "/redfish/v1/a?b=c",
        "/redfish/v1/a#b",
        "/redfish/v1/a b",
        "/redfish/v1/a\r\nHost: x",
        "/redfish/v1/ä",
        "/redfish/v1/" + "a" * 300,
        "/redfish/v1a",
        "",
        None,
        5,
        {"@odata.id": "/redfish/v1"},
    ],
)
def test_what_does_not_lead_into_the_service_is_no_path(link: object) -> None:
    assert path_of(link) == ""


@pytest.mark.parametrize("link", ["/redfish/v1/Chassis/1.A:b(2)", "/redfish/v1/Chassis/1.A:b(2)/"])
def test_a_path_has_no_slash_at_its_end(link: str) -> None:
    assert path_of(link) == "/redfish/v1/Chassis/1.A:b(2)"


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("/redfish/v1/Chassis?$skip=50", "/redfish/v1/Chassis?$skip=50"),
        ("/redfish/v1/Chassis/Page2", "/redfish/v1/Chassis/Page2"),
        ("https://elsewhere/redfish/v1?$skip=1", ""),
        ("/redfish/v1/Chassis?a b", ""),
        (7, ""),
    ],
)
def test_a_page_leads_into_the_service(link: object, expected: str) -> None:
    assert next_page({"Members@odata.nextLink": link}) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, 5.0),
        (-1.5, -1.5),
        ("21.50", 21.5),
        ("-3e2", -300.0),
        (True, None),
        (float("nan"), None),
        (float("inf"), None),
        ("nan", None),
        ("1_000", None),
        ("0x10", None),
        ("٣", None),
        ("", None),
        ([], None),
        ({}, None),
        (None, None),
    ],
)
def test_a_number_is_finite(value: object, expected: float | None) -> None:
    assert number_of(value) == expected


def test_a_text_has_no_control_characters_and_an_end() -> None:
    assert text_at({"Name": "a\x00b\n\x1b[31mc" + "d" * 500}, "Name", 12) == "a b [31mcddd"


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"7", b'{"a":', b"\xff", b"[" * 100_000, b'{"a":' * 100_000])
def test_what_is_no_object_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"Expecting|not an object|nested too deep|decode"):
        parse_document(body)


def test_numbers_that_json_does_not_have_are_null() -> None:
    assert parse_document(b'{"a": NaN, "b": -Infinity, "c": 1e999}') == {"a": None, "b": None, "c": float("inf")}


def test_an_object_in_place_of_an_array_is_its_only_member() -> None:
    assert objects_in({"a": {"b": 1}}, "a") == [{"b": 1}]
    assert objects_in({"a": [{"b": 1}, 7, None, {"c": 2}]}, "a") == [{"b": 1}, {"c": 2}]
    assert objects_in({"a": "text"}, "a") == []


@pytest.mark.parametrize(
    "serial", ["", "   ", "N/A", "none", "Unknown", "0", "0000-0000", "To Be Filled By O.E.M.", 5, None]
)
def test_a_serial_number_that_is_none_is_empty(serial: object) -> None:
    assert serial_of({"Manufacturer": "M", "Model": "X", "SerialNumber": serial}) == ""


def test_a_serial_number_comes_with_its_maker() -> None:
    assert serial_of({"Manufacturer": "M", "Model": "X", "SerialNumber": "S1"}) == "M/X/S1"
    assert serial_of({"SerialNumber": "S1"}) == "S1"


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({}, True),
        ({"Status": {"State": "Enabled"}}, True),
        ({"Status": {"State": "Absent"}}, False),
        ({"Status": {"State": "Disabled"}}, False),
        ({"Enabled": False}, False),
        ({"Status": 7}, True),
    ],
)
def test_what_is_absent_or_disabled_is_not_there(document: dict[str, Any], expected: bool) -> None:  # noqa: FBT001
    assert is_there(document) is expected


# Units ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sensor", "unit", "value"),
    [
        ({"ReadingType": "Temperature", "ReadingUnits": "Cel", "Reading": 21.5}, "celsius", 21.5),
        ({"ReadingType": "Temperature", "ReadingUnits": "C", "Reading": 21.5}, "celsius", 21.5),
        ({"ReadingType": "Temperature", "ReadingBasis": "Delta", "Reading": 9}, "kelvin", 9),
        ({"ReadingType": "LiquidFlowLPM", "ReadingUnits": "L/min", "Reading": 600}, "cubic_metres_per_second", 0.01),
        ({"ReadingType": "LiquidFlow", "ReadingUnits": "L/s", "Reading": 10}, "cubic_metres_per_second", 0.01),
        ({"ReadingUnits": "m3/h", "Reading": 36}, "cubic_metres_per_second", 0.01),
        ({"ReadingType": "AirFlow", "Reading": 60}, "cubic_metres_per_second", 0.028316846592),
        ({"ReadingType": "AirFlowCMM", "Reading": 60}, "cubic_metres_per_second", 1),
        ({"ReadingType": "Pressure", "ReadingUnits": "Pa", "Reading": 101_325}, "pascals", 101_325),
        ({"ReadingType": "PressurekPa", "ReadingUnits": "kPa", "Reading": 101.325}, "pascals", 101_325),
        ({"ReadingType": "PressurePa", "Reading": 250}, "pascals", 250),
        ({"ReadingType": "Barometric", "Reading": 760}, "pascals", 760 * 133.322387415),
        ({"ReadingType": "EnergykWh", "ReadingUnits": "kW.h", "Reading": 2}, "joules", 7_200_000),
        ({"ReadingType": "EnergykWh", "ReadingUnits": "kWh", "Reading": 2}, "joules", 7_200_000),
        ({"ReadingType": "EnergyWh", "Reading": 2}, "joules", 7200),
        ({"ReadingType": "EnergyJoules", "Reading": 2}, "joules", 2),
        ({"ReadingType": "Heat", "ReadingUnits": "kW", "Reading": 1.5}, "watts", 1500),
        ({"ReadingType": "Power", "ReadingUnits": "W", "Reading": 1.5}, "watts", 1.5),
        ({"ReadingType": "Voltage", "Reading": 48}, "volts", 48),
        ({"ReadingType": "Current", "Reading": 3}, "amperes", 3),
        ({"ReadingType": "Frequency", "Reading": 50}, "hertz", 50),
        ({"ReadingType": "Rotational", "ReadingUnits": "{rev}/min", "Reading": 3000}, "revolutions_per_second", 50),
        ({"ReadingType": "Rotational", "ReadingUnits": "RPM", "Reading": 3000}, "revolutions_per_second", 50),
        ({"ReadingType": "Humidity", "ReadingUnits": "%", "Reading": 45}, "relative_humidity", 0.45),
        ({"ReadingType": "AbsoluteHumidity", "Reading": 8}, "grams_per_cubic_metre", 8),
        ({"ReadingType": "Percent", "ReadingUnits": "%", "Reading": 120}, "ratio", 1.2),
        ({"ReadingType": "Valve", "ReadingUnits": "%", "Reading": 25}, "ratio", 0.25),
        ({"ReadingUnits": "uS/cm", "Reading": 120}, "microsiemens_per_centimetre", 120),
        ({"ReadingUnits": "[pH]", "Reading": 8.5}, "ph", 8.5),
        ({"ReadingUnits": "[NTU]", "Reading": 3}, "nephelometric_turbidity_units", 3),
    ],
)
def test_a_sensor_is_in_its_base_unit(sensor: dict[str, Any], unit: str, value: float) -> None:
    quantity = sensor_quantity(sensor)
    assert quantity is not None
    assert quantity.unit.suffix == unit
    assert quantity.unit in UNIT_CODES
    assert sensor_value(sensor) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    "sensor",
    [
        {"ReadingType": "PressurekPa", "ReadingUnits": "Pa"},  # which of the two?
        {"ReadingType": "LiquidFlow", "ReadingUnits": "L/min"},
        {"ReadingType": "LiquidLevel", "ReadingUnits": "cm"},  # no unit of length in the catalogue
        {"ReadingType": "ChargeAh"},
        {"ReadingType": "Altitude"},
        {"ReadingType": "Mood", "ReadingUnits": "furlong"},
        {},
        {"ReadingType": 5, "ReadingUnits": []},
    ],
)
def test_a_sensor_whose_unit_is_not_certain_is_left_out(sensor: dict[str, Any]) -> None:
    assert sensor_value({**sensor, "Reading": 1}) is None


@pytest.mark.parametrize(
    ("sensor", "value"),
    [({"ReadingUnits": "[pH]"}, 15), ({"ReadingType": "Humidity"}, 130), ({"ReadingType": "Rotational"}, -1)],
)
def test_a_reading_that_cannot_be_is_none(sensor: dict[str, Any], value: float) -> None:
    assert sensor_value({**sensor, "Reading": value}) is None


def test_a_register_is_the_reading_or_the_lifetimes() -> None:
    excerpt = {"EnergykWh": {"Reading": 1, "LifetimeReading": 5}, "PowerWatts": {"Reading": 2}}
    assert quantity_at(excerpt, "EnergykWh") == 3_600_000
    assert quantity_at(excerpt, "EnergykWh", register="LifetimeReading") == 18_000_000
    assert quantity_at(excerpt, "PowerWatts", register="LifetimeReading") == 2
    lifetime = {"ReadingType": "EnergyJoules", "Reading": 1, "LifetimeReading": 7}
    assert sensor_value(lifetime, register="LifetimeReading") == 7


def test_every_property_has_a_unit_that_points_know_and_a_name_without_one() -> None:
    assert {path for path, quantity in QUANTITIES.items() if quantity.unit not in UNIT_CODES} == set()
    suffixes = ("kPa", "Celsius", "Watts", "kWh", "kW", "Percent", "Amps", "Hz", "PerMinute", "VAR", "VA", "RPM")
    assert not any(name_of(path).endswith(suffixes) for path in QUANTITIES)
    assert name_of("PowerWatts/ApparentVA") == "Power/Apparent"
    assert QUANTITIES["DeltaTemperatureCelsius"].unit is units.KELVIN


def test_no_way_of_the_tree_leads_back() -> None:
    """A walk along the ways ends, however the documents are linked."""

    def depth(place: Place, above: tuple[Place, ...] = ()) -> int:
        assert place not in above
        return 1 + max((depth(way.leads_to, (*above, place)) for way in WAYS.get(place, ())), default=0)

    assert depth(Place.ROOT) <= 7


# Leaks ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("states", "complete", "expected"),
    [
        ([LeakState.DRY, LeakState.DRY], True, LeakState.DRY),
        ([LeakState.DRY, LeakState.DRY], False, None),
        ([LeakState.DRY, LeakState.CRITICAL], False, LeakState.CRITICAL),
        ([LeakState.SENSOR_FAULT, LeakState.WARNING, LeakState.DRY], True, LeakState.WARNING),
        ([LeakState.SENSOR_FAULT, LeakState.DRY], False, LeakState.SENSOR_FAULT),
        ([None, LeakState.DRY], True, LeakState.DRY),
        ([None], True, None),
        ([], True, None),
    ],
)
def test_the_worst_state_counts_and_dry_takes_them_all(
    states: list[int | None],
    complete: bool,  # noqa: FBT001
    expected: int | None,
) -> None:
    assert worst_leak(states, complete=complete) == expected


# Reports --------------------------------------------------------------------------------------------------------------

PUMP = "/redfish/v1/ThermalEquipment/CDUs/1/Pumps/1"


def report(*entries: tuple[str, object, str]) -> dict[str, Any]:
    return {
        "MetricValues": [
            {"MetricProperty": name, "MetricValue": value, "Timestamp": time} for name, value, time in entries
        ]
    }


def test_of_several_values_of_a_property_the_latest_counts() -> None:
    found = read_report(
        report(
            (f"{PUMP}#/PumpSpeedPercent/Reading", "50", "2027-01-15T08:00:10Z"),
            (f"{PUMP}#/PumpSpeedPercent/Reading", "60", "2027-01-15T09:00:20+01:00"),  # ten seconds later
            (f"{PUMP}/PumpSpeedPercent", "40", "2027-01-15T08:00:00Z"),
        )
    )
    assert found.values == {f"{PUMP}/PumpSpeedPercent": "60"}
    assert found.newest is not None
    assert found.newest.timestamp() == 1_800_000_020


@pytest.mark.parametrize("time", ["", "yesterday", 5, None, "9999999-01-01"])
def test_a_report_without_a_time_has_none(time: Any) -> None:
    assert read_report(report((PUMP, "1", time))).newest is None


def test_a_document_is_needed_for_its_excerpts_and_the_words_of_its_place() -> None:
    pump = {
        "PumpSpeedPercent": {"Reading": 55, "SpeedRPM": 3000, "DataSourceUri": "/redfish/v1/Chassis/1/Sensors/P1"},
        "InletPressurekPa": {"Reading": None},
        "ServiceHours": 1000,
    }
    (need,) = needs_of(PUMP, Place.PUMP, pump)
    assert need.names == (f"{PUMP}/PumpSpeedPercent", "/redfish/v1/Chassis/1/Sensors/P1")
    assert needs_of(PUMP, Place.OLD_POWER, pump) == []
    (word,) = needs_of("/redfish/v1/d", Place.DETECTOR, {"DetectorState": "OK"})
    assert word.names == ("/redfish/v1/d/DetectorState",)


def test_a_report_stands_for_a_document_without_what_it_does_not_tell() -> None:
    pump = {"Name": "P1", "PumpSpeedPercent": {"Reading": 55, "SpeedRPM": 3000}, "ServiceHours": 1000}
    needs = needs_of(PUMP, Place.PUMP, pump)
    told = overlay(pump, needs, {f"{PUMP}/PumpSpeedPercent": "61"})
    assert told == {"Name": "P1", "PumpSpeedPercent": {"Reading": "61"}}
    assert pump["ServiceHours"] == 1000


def test_a_group_of_detectors_is_told_by_its_own_pointer_or_by_each_detectors() -> None:
    path = "/redfish/v1/LeakDetection"
    detectors = [{"DetectorState": "OK", "DataSourceUri": f"{path}/D{number}"} for number in (1, 2)]
    document = {"LeakDetectorGroups": [{"Detectors": detectors}]}
    needs = needs_of(path, Place.LEAK_DETECTION, document)
    values = {f"{path}/LeakDetectorGroups/0/Detectors/0/DetectorState": "OK", f"{path}/D2/DetectorState": "Critical"}
    assert covers(values, needs)
    told = overlay(document, needs, values)
    assert [one["DetectorState"] for one in told["LeakDetectorGroups"][0]["Detectors"]] == ["OK", "Critical"]  # type: ignore[index]
    assert detectors[1]["DetectorState"] == "OK"


def test_the_fewest_reports_that_save_requests_are_chosen() -> None:
    needs = {path: needs_of(path, Place.SENSOR, {}) for path in ("/a", "/b", "/c", "/d", "/e")}
    reports = {
        "one": dict.fromkeys(["/a"], "1"),
        "three": dict.fromkeys(["/a", "/b", "/c"], "1"),
        "two": dict.fromkeys(["/d", "/e"], "1"),
        "again": dict.fromkeys(["/b", "/c"], "1"),
    }
    assert choose_reports(reports, needs) == (["three", "two"], {"/a", "/b", "/c", "/d", "/e"})
    assert choose_reports({"one": reports["one"]}, needs) == ([], set())
    assert choose_reports({}, needs) == ([], set())


def test_kinds_of_parents_are_resources() -> None:
    assert RedfishDevice(name="d", url="https://10.0.0.3").parent_kind in set(ResourceKind)
