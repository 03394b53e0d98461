"""Topics and payloads of the BMS bus, hostile ones above all. Field names are those of NVIDIA's bms.yaml."""

import pytest

from collectors.dsx.message import (
    MAX_PAYLOAD_BYTES,
    MAX_POINT_CHARACTERS,
    PointAddress,
    Refusal,
    RefusedError,
    decode_facts,
    decode_reading,
    parse_topic,
)


def test_a_topic_is_taken_apart_and_a_tag_path_may_have_many_levels() -> None:
    parts = parse_topic("BMS/v1/PUB/Value/Rack/RackPower/site1/row3/rack05/power")
    assert (parts.publisher, parts.is_metadata) == ("PUB", False)
    assert parts.address == PointAddress("Rack", "RackPower", "site1/row3/rack05/power")


def test_values_of_an_integration_come_on_its_own_topic() -> None:
    parts = parse_topic("BMS/v1/PUB/Metadata/CDU/LiquidTemperatureSpRequest/site1/row3/cdu5")
    assert parts.is_metadata
    assert parts.address.value_topic("MEPAI") == "BMS/v1/MEPAI/Value/CDU/LiquidTemperatureSpRequest/site1/row3/cdu5"


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        ("", Refusal.TOPIC),
        ("BMS/v1/PUB/Value/Rack/RackPower", Refusal.TOPIC),
        ("BMS/v2/PUB/Value/Rack/RackPower/a", Refusal.TOPIC),
        ("BMS/v1/PUB/Command/Rack/RackPower/a", Refusal.TOPIC),
        ("BMS/v1/PUB/Value//RackPower/a", Refusal.TOPIC),
        ("BMS/v1/PUB/Value/Rack/RackPower/#", Refusal.TOPIC),
        ("BMS/v1/PUB/Value/+/RackPower/a", Refusal.TOPIC),
        ("BMS/v1/PUB/Value/Rack/RackPower/a\nb", Refusal.TOPIC),
        ("BMS/v1/PUB/Value/Rack/RackPower/\x1b[31m", Refusal.TOPIC),
        ("BMS/v1/PUB/Value/Rack/RackPower/" + "a" * MAX_POINT_CHARACTERS, Refusal.TOO_LONG),
        ("BMS/v1/" + "a" * 65_000 + "/Value/Rack/RackPower/a", Refusal.TOO_LONG),
    ],
)
def test_a_topic_that_cannot_be_a_points_is_refused(topic: str, reason: Refusal) -> None:
    with pytest.raises(RefusedError) as refused:
        parse_topic(topic)
    assert refused.value.reason is reason


def test_a_reading_is_a_number_a_time_and_a_quality() -> None:
    reading = decode_reading(b'{"value": 22.96215, "timestamp": 1743620423000, "quality": 1}')
    assert (reading.value, reading.timestamp, reading.is_good) == (22.96215, 1743620423000, True)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"value": null, "timestamp": 1743620423000, "quality": 1}',
        b'{"value": 1.0, "timestamp": 1743620423000, "quality": 0}',
        b'{"value": 1.0, "timestamp": 1743620423000, "quality": 192}',
        b'{"value": 1.0, "timestamp": 1743620423000, "quality": -1}',
    ],
)
def test_a_reading_without_a_number_or_of_another_quality_is_not_good(payload: bytes) -> None:
    assert not decode_reading(payload).is_good


def test_whole_numbers_may_have_a_point() -> None:
    # JSON Schema, "integer": 1.0 is one.
    reading = decode_reading(b'{"value": 3, "timestamp": 1743620423000.0, "quality": 1.0}')
    assert (reading.value, reading.timestamp, reading.is_good) == (3.0, 1743620423000, True)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"12.5",
        b"[]",
        b"{}",
        b"\xff\xfe\x00",
        b'{"value": NaN, "timestamp": 1, "quality": 1}',
        b'{"value": Infinity, "timestamp": 1, "quality": 1}',
        b'{"value": 1e999, "timestamp": 1, "quality": 1}',
        b'{"value": ' + b"9" * 400 + b', "timestamp": 1, "quality": 1}',
        b'{"value": "12.5", "timestamp": 1, "quality": 1}',
        b'{"value": true, "timestamp": 1, "quality": 1}',
        b'{"value": [1], "timestamp": 1, "quality": 1}',
        b'{"value": 1, "timestamp": "now", "quality": 1}',
        b'{"value": 1, "timestamp": -1, "quality": 1}',
        b'{"value": 1, "timestamp": 4398046511104, "quality": 1}',
        b'{"value": 1, "timestamp": 1}',
        b'{"value": 1, "timestamp": 1, "quality": 1, "x": ' + b"[" * 5000,
        b'{"value": 1, "timestamp": 1, "quality": 1',
    ],
)
def test_a_payload_that_is_no_reading_is_refused(payload: bytes) -> None:
    with pytest.raises(RefusedError) as refused:
        decode_reading(payload)
    assert refused.value.reason is Refusal.PAYLOAD


def test_an_endless_payload_is_refused_before_it_is_looked_at() -> None:
    with pytest.raises(RefusedError) as refused:
        decode_reading(b" " * (MAX_PAYLOAD_BYTES + 1))
    assert refused.value.reason is Refusal.TOO_LONG


def test_metadata_have_the_names_of_the_schema_and_null_is_left_out() -> None:
    facts = decode_facts(
        b'{"objectType": "PowerMeter", "pointType": "PhaseCurrent", "objectName": "RPP02", "objectId": "DH3-RPP02",'
        b'"servesId": ["R1", "R2"], "engUnit": "A", "phase": "B", "processArea": null, "somethingNew": {"a": 1}}'
    )
    assert (facts.object_id, facts.object_name, facts.serves_id) == ("DH3-RPP02", "RPP02", ("R1", "R2"))
    assert (facts.eng_unit, facts.phase, facts.process_area, facts.is_setpoint) == ("A", "B", None, None)


def test_state_texts_name_numbers() -> None:
    facts = decode_facts(b'{"stateText": [{"value": 0, "text": "Off"}, {"value": 1.0, "text": "On"}]}')
    assert [facts.state_name(value) for value in (0.0, 1.0, 2.0)] == ["Off", "On", ""]


@pytest.mark.parametrize(
    "payload",
    [
        b'{"rackLocationId": 5}',
        b'{"servesId": "R1"}',
        b'{"servesId": [1]}',
        b'{"objectId": "' + b"x" * 129 + b'"}',
        b'{"objectId": "\xff"}',
        b'{"processArea": [' + b'"a",' * 32 + b'"a"]}',
        b'{"stateText": [{"value": "0", "text": "Off"}]}',
        b'{"isSetpoint": "true"}',
        b"[]",
    ],
)
def test_metadata_of_wrong_types_or_sizes_are_refused(payload: bytes) -> None:
    with pytest.raises(RefusedError) as refused:
        decode_facts(payload)
    assert refused.value.reason is Refusal.PAYLOAD


@pytest.mark.parametrize(
    "process_area",
    [
        '["Secondary", "Supply"]',
        '["Secondary Supply"]',
        '["secondary_supply"]',
        '["SecondarySupply"]',
        '["SUPPLY","Secondary"]',
    ],
)
def test_the_words_of_a_process_area_are_the_same_however_they_are_written(process_area: str) -> None:
    assert decode_facts(b'{"processArea": ' + process_area.encode() + b"}").words == {"secondary", "supply"}
