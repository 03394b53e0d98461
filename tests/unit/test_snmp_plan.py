"""What is made of what an agent has: meters, their identity, their values. No agent is asked."""

from typing import Any

import msgspec
import pytest

from catalogue import POWER, ResourceKind, resource_id
from collectors.snmp.map import oid_of
from collectors.snmp.map_file import parse_map
from collectors.snmp.plan import DevicePlan, Found, measurements_of, plan_of, points_of
from collectors.snmp.settings import SnmpDevice

HEAD = """
name = "own"
source = "a manual"
label = ["unit"]
[[facts]]
name = "serial"
oid = "1.3.1"
index = ["unit"]
"""
POWER_ENTRY = """
[[readings]]
metric = "active_power_watts"
oid = "1.3.2"
index = ["unit"]
"""


def device(**changes: Any) -> SnmpDevice:
    document = {"name": "PDU 7", "host": "10.0.0.1", "credentials": "all"} | changes
    return msgspec.convert(document, SnmpDevice)


def planned(text: str, objects: dict[str, int | str], **changes: Any) -> DevicePlan:
    found = {oid_of(oid): Found(value) for oid, value in objects.items()}
    return plan_of(parse_map(text, where="own.toml"), device(**changes), found)


def values(plan: DevicePlan, objects: dict[str, int | str]) -> dict[str, dict[str, float]]:
    """Each meter's values, by identity."""
    names = {meter.resource: meter.identity for meter in plan.meters}
    answers = {oid_of(oid): value for oid, value in objects.items()}
    return {names[row.resource]: dict(row.values) for row in measurements_of(plan, answers)}


def identities(plan: DevicePlan) -> list[str]:
    return [meter.identity for meter in plan.meters]


@pytest.mark.parametrize("serial", ["", "   ", "0", "0000000000", "N/A", "unknown", "\x00"])
def test_a_serial_number_that_is_none_gives_way_to_the_name_in_the_settings(serial: str) -> None:
    objects: dict[str, int | str] = {"1.3.1.1": serial, "1.3.1.2": serial, "1.3.2.1": 5, "1.3.2.2": 6}
    assert identities(planned(HEAD + POWER_ENTRY, objects)) == ["PDU 7/1", "PDU 7/2"]


def test_an_identity_in_the_settings_goes_before_the_serial_number() -> None:
    objects: dict[str, int | str] = {"1.3.1.1": "S1", "1.3.2.1": 5}
    (meter,) = planned(HEAD + POWER_ENTRY, objects, identity="R7 feed A").meters
    assert meter.identity == "R7 feed A/1"
    assert meter.resource == resource_id(ResourceKind.METER, "R7 feed A/1")
    assert meter.facts == {"serial": "S1"}


def test_a_map_of_racks_takes_the_racks_identity_from_the_settings() -> None:
    text = """
        name = "shelf"
        source = "a manual"
        table = "rack"
        resource = "rack"
        [[readings]]
        metric = "power_watts"
        oid = "1.3.9"
    """
    plan = planned(text, {"1.3.9.0": 120_000}, identity="R7")
    assert [meter.resource for meter in plan.meters] == [resource_id(ResourceKind.RACK, "R7")]
    assert values(plan, {"1.3.9.0": 120_000}) == {"R7": {"power_watts": 120_000}}


def test_of_several_values_without_a_rule_nobody_knows_which() -> None:
    text = (HEAD + POWER_ENTRY).replace('metric = "active', 'keys = { line = "1.3.3" }\nmetric = "active')
    text = text.replace('oid = "1.3.2"\nindex = ["unit"]', 'oid = "1.3.2"\nindex = ["unit", "row"]')
    objects: dict[str, int | str] = {"1.3.2.1.1": 5, "1.3.2.1.2": 6, "1.3.3.1.1": "a", "1.3.3.1.2": "b"}
    assert values(planned(text, objects), objects) == {}
    only_one = {oid: value for oid, value in objects.items() if not oid.endswith(".2")}
    assert values(planned(text, only_one), only_one) == {"PDU 7/1": {"active_power_watts": 5}}


def test_a_row_whose_key_is_missing_is_left_out() -> None:
    text = """
        name = "own"
        source = "a manual"
        label = ["module"]
        [[readings]]
        metric = "active_power_watts"
        oid = "1.3.2"
        index = ["row"]
        keys = { module = "1.3.3" }
    """
    objects: dict[str, int | str] = {"1.3.2.4": 5, "1.3.2.5": 6, "1.3.3.4": 2}
    assert values(planned(text, objects), objects) == {"PDU 7/2": {"active_power_watts": 5}}


@pytest.mark.parametrize(
    ("digits", "watts"), [(0, 1234), (2, 12.34), (9, 1.234e-6), (10, None), (-1, None), ("x", None)]
)
def test_decimal_digits_are_the_agents_unless_they_are_absurd(digits: int | str, watts: float | None) -> None:
    text = HEAD + POWER_ENTRY + 'digits = "1.3.4"\n'
    objects: dict[str, int | str] = {"1.3.2.1": 1234, "1.3.4.1": digits}
    expected = {} if watts is None else {"PDU 7/1": {"active_power_watts": pytest.approx(watts)}}
    assert values(planned(text, objects), objects) == expected


def test_the_choice_between_two_sources_of_one_metric_is_made_once() -> None:
    text = HEAD + POWER_ENTRY + POWER_ENTRY.replace("1.3.2", "1.3.5")
    both: dict[str, int | str] = {"1.3.2.1": 5, "1.3.5.1": 7}
    plan = planned(text, both)
    assert values(plan, both) == {"PDU 7/1": {"active_power_watts": 5}}
    assert values(plan, {"1.3.5.1": 7}) == {}  # one tick from the other would be a jump
    second: dict[str, int | str] = {"1.3.5.1": 7}
    assert values(planned(text, second), second) == {"PDU 7/1": {"active_power_watts": 7}}


def test_a_state_is_the_catalogues_or_absent() -> None:
    entry = '[[readings]]\nmetric = "breaker_state"\noid = "1.3.6"\nindex = ["unit"]\ncodes = { 0 = 2, 1 = 1 }\n'
    plan = planned(HEAD + entry, {"1.3.6.1": 1})
    assert [values(plan, {"1.3.6.1": code}) for code in (0, 1, 2)] == [
        {"PDU 7/1": {"breaker_state": 2}},
        {"PDU 7/1": {"breaker_state": 1}},
        {},
    ]
    assert dict(POWER.metric("breaker_state").states) == {1: "closed", 2: "open", 3: "tripped"}


@pytest.mark.parametrize("answer", [{}, {"1.3.2.1": "5"}, {"1.3.2.1": -1}, {"1.3.2.1": 5, "1.3.7.1": 3}])
def test_what_is_no_reading_is_absent(answer: dict[str, int | str]) -> None:
    text = HEAD + POWER_ENTRY + 'blank = [-1]\nunless = { oid = "1.3.7", codes = [3, 4] }\n'
    plan = planned(text, {"1.3.2.1": 5, "1.3.7.1": 1})
    assert plan.oids == (oid_of("1.3.2.1"), oid_of("1.3.7.1"))
    assert values(plan, answer) == {}
    assert values(plan, {"1.3.2.1": 5, "1.3.7.1": 1}) == {"PDU 7/1": {"active_power_watts": 5}}


def test_a_point_with_a_metric_is_asked_for_once() -> None:
    entry = POWER_ENTRY + 'point = "unit {unit}"\n'
    plan = planned(HEAD + entry, {"1.3.2.3": 5, "1.3.1.3": "S"})
    assert plan.oids == (oid_of("1.3.2.3"),)
    (point,) = points_of(plan, {oid_of("1.3.2.3"): 5})
    assert (point.point.identity, point.value, point.point.unit.suffix) == ("S/unit 3", 5, "watts")


def test_rows_of_another_shape_are_left_alone() -> None:
    objects: dict[str, int | str] = {"1.3.2": 1, "1.3.2.1.1": 2, "1.3.22.1": 3}
    assert planned(HEAD + POWER_ENTRY, objects).meters == ()


def test_groups_that_are_not_asked_for_are_not_walked() -> None:
    entry = POWER_ENTRY + POWER_ENTRY.replace("1.3.2", "1.3.8").replace("metric", 'detail = "more"\nmetric')
    found = parse_map(HEAD + entry, where="own.toml")
    assert oid_of("1.3.8") not in found.columns(())
    assert oid_of("1.3.8") in found.columns(("more",))
    assert found.details == {"more"}
