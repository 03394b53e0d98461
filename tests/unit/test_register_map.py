"""Register maps: what a map says, what it may not say, and what numbers become. Expected values are written by hand."""

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from catalogue import COOLING, POWER, ResourceKind
from catalogue.units import Unit
from collectors.facility import Measurement, Quality, readings_of
from collectors.modbus.blocks import Span
from collectors.modbus.map import MapPoint, RegisterMap, Words, evaluate, facts_of, judge
from collectors.modbus.map_file import MapError, load_register_map, parse_register_map, shipped_maps
from collectors.modbus.units import UNIT_NAMES, device_unit

KWH = 3.6e6


def register_map(*points: Mapping[str, Any], **head: object) -> RegisterMap:
    """A map of an electrical meter with holding registers, unless the head says otherwise."""
    document = {"model": "Test", "kind": "meter", "function": 3, **head, "points": list(points)}
    return parse_register_map(yaml.safe_dump(document), name="test", where="test.yaml")


def only_point(**fields: object) -> MapPoint:
    (point,) = register_map({"address": 0, **fields}).points
    return point


def words_in(cells: Mapping[int, int]) -> Words:
    """Registers of any function, by address; those that are missing were refused."""

    def words(span: Span) -> Sequence[int] | None:
        wanted = range(span.address, span.end)
        return [cells[one] for one in wanted] if all(one in cells for one in wanted) else None

    return words


def packed(code: str, *values: float) -> dict[int, int]:
    """Registers from address 0 that hold these numbers, high word first."""
    content = struct.pack(f">{code}", *values)
    return dict(enumerate(struct.unpack(f">{len(content) // 2}H", content)))


def value_of(point: MapPoint, cells: Mapping[int, int]) -> float | None:
    return judge(point, words_in(cells)).value


# Types and orders -----------------------------------------------------------------------------------------------------

ENERGY = {"point": "energy", "unit": "J"}


@pytest.mark.parametrize(
    ("kind", "words", "number"),
    [
        ("int16", [0xFFFE], -2),
        ("uint16", [0xFFFE], 65_534),
        ("int32", [0xFFFF, 0xFFFE], -2),
        ("uint32", [0x0001, 0x0002], 65_538),
        ("acc32", [0x0001, 0x0002], 65_538),
        ("int64", [0xFFFF, 0xFFFF, 0xFFFF, 0xFFFE], -2),
        ("uint64", [0, 1, 0, 2], (1 << 32) + 2),
        ("acc64", [0, 0, 0x00E8, 0xD4A5], 0xE8D4A5),
        ("float32", [0x4234, 0x0000], 45.0),  # IEEE 754: 1.40625 * 2^5
        ("float64", [0x4046, 0x8000, 0, 0], 45.0),
    ],
)
def test_every_type_in_every_order(kind: str, words: list[int], number: float) -> None:
    swapped_bytes = [word >> 8 | (word & 0xFF) << 8 for word in words]
    arrivals = {
        ("big", "big"): words,
        ("little", "big"): words[::-1],
        ("big", "little"): swapped_bytes,
        ("little", "little"): swapped_bytes[::-1],
    }
    for (word_order, byte_order), cells in arrivals.items():
        point = only_point(**ENERGY, type=kind, word_order=word_order, byte_order=byte_order)
        assert value_of(point, dict(enumerate(cells))) == number, (word_order, byte_order)


def test_orders_of_the_map_hold_where_a_point_says_none() -> None:
    first, second = register_map(
        {**ENERGY, "address": 0, "type": "float32"},
        {"point": "other", "unit": "J", "address": 0, "type": "float32", "word_order": "big"},
        word_order="little",
    ).points
    assert value_of(first, {0: 0, 1: 0x4234}) == 45
    assert value_of(second, {0: 0x4234, 1: 0}) == 45


@pytest.mark.parametrize(("bit", "width", "number"), [(0, 1, 0), (1, 1, 1), (1, 2, 3), (4, 4, 0xA), (15, 1, 1)])
def test_bits_count_from_the_lowest(bit: int, width: int, number: int) -> None:
    point = only_point(point="flags", unit="count", type="bits", bit=bit, width=width)
    assert value_of(point, {0: 0b1000_0000_1010_0110}) == number


# Units ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "count", "value", "base"),
    [
        ("J", 1, 1, "joules"),
        ("kJ", 2, 2000, "joules"),
        ("MJ", 2, 2e6, "joules"),
        ("GJ", 2, 2e9, "joules"),
        ("TJ", 2, 2e12, "joules"),
        ("Wh", 1, 3600, "joules"),
        ("kWh", 1, 3.6e6, "joules"),
        ("MWh", 1, 3.6e9, "joules"),
        ("GWh", 1, 3.6e12, "joules"),
        ("kcal", 10, 41_868, "joules"),
        ("Gcal", 10, 41.868e9, "joules"),
        ("kBTU", 1, 1_055_055.85262, "joules"),
        ("MMBTU", 1, 1_055_055_852.62, "joules"),
        ("W", 1, 1, "watts"),
        ("kW", 1, 1000, "watts"),
        ("MW", 1, 1e6, "watts"),
        ("GW", 1, 1e9, "watts"),
        ("GJ/h", 36, 1e7, "watts"),
        ("BTU/h", 3600, 1055.05585262, "watts"),
        ("var", 1, 1, "vars"),
        ("kvar", 1, 1000, "vars"),
        ("Mvar", 1, 1e6, "vars"),
        ("VA", 1, 1, "volt_amperes"),
        ("kVA", 1, 1000, "volt_amperes"),
        ("MVA", 1, 1e6, "volt_amperes"),
        ("m3", 1, 1, "cubic_metres"),
        ("L", 1000, 1, "cubic_metres"),
        ("dm3", 1000, 1, "cubic_metres"),
        ("gal", 1000, 3.785411784, "cubic_metres"),
        ("m3/s", 1, 1, "cubic_metres_per_second"),
        ("m3/h", 3600, 1, "cubic_metres_per_second"),
        ("L/s", 1000, 1, "cubic_metres_per_second"),
        ("L/min", 30_000, 0.5, "cubic_metres_per_second"),
        ("L/h", 18_000, 0.005, "cubic_metres_per_second"),
        ("gal/min", 6000, 0.3785411784, "cubic_metres_per_second"),
        ("degC", 45, 45, "celsius"),
        ("degF", 212, 100, "celsius"),
        ("degF", -40, -40, "celsius"),
        ("K", 12, 12, "kelvin"),
        ("Pa", 1, 1, "pascals"),
        ("hPa", 1, 100, "pascals"),
        ("kPa", 1, 1000, "pascals"),
        ("MPa", 1, 1e6, "pascals"),
        ("mbar", 1, 100, "pascals"),
        ("bar", 1, 1e5, "pascals"),
        ("psi", 1000, 6_894_757.293168361, "pascals"),
        ("ratio", 1, 1, "ratio"),
        ("percent", 50, 0.5, "ratio"),
        ("%", 50, 0.5, "ratio"),
        ("%RH", 50, 0.5, "relative_humidity"),
        ("mA", 1500, 1.5, "amperes"),
        ("A", 1, 1, "amperes"),
        ("kA", 1, 1000, "amperes"),
        ("mV", 1500, 1.5, "volts"),
        ("V", 1, 1, "volts"),
        ("kV", 11, 11_000, "volts"),
        ("mHz", 30_000, 30, "hertz"),
        ("Hz", 50, 50, "hertz"),
        ("s", 1, 1, "seconds"),
        ("min", 1, 60, "seconds"),
        ("h", 1, 3600, "seconds"),
        ("d", 1, 86_400, "seconds"),
        ("count", 7, 7, "count"),
        ("state", 7, 7, "state"),
        ("uS/cm", 350, 350, "microsiemens_per_centimetre"),
        ("mS/cm", 2, 2000, "microsiemens_per_centimetre"),
        ("pH", 7, 7, "ph"),
        ("NTU", 4, 4, "nephelometric_turbidity_units"),
        ("rpm", 3000, 50, "revolutions_per_second"),
        ("g/m3", 3, 3, "grams_per_cubic_metre"),
        ("mg/L", 3, 3, "grams_per_cubic_metre"),
    ],
)
def test_a_number_is_in_its_base_unit(unit: str, count: int, value: float, base: str) -> None:
    point = only_point(point="it", unit=unit, type="int16")
    assert value_of(point, packed("h", count)) == pytest.approx(value, rel=1e-12)
    assert point.unit is not None
    assert point.unit.base.suffix == base


def test_every_unit_is_tested_above() -> None:
    (mark,) = (one for one in test_a_number_is_in_its_base_unit.pytestmark if one.name == "parametrize")  # type: ignore[attr-defined]
    assert {case[0] for case in mark.args[1]} == set(UNIT_NAMES)


def test_an_absolute_temperature_in_kelvin_becomes_celsius() -> None:
    (point,) = register_map(
        {"metric": "cooling.dew_point_temperature_celsius", "address": 0, "type": "uint16", "unit": "K", "scale": 0.01},
        kind="cdu",
    ).points
    assert value_of(point, {0: 28_415}) == pytest.approx(11.0)


def test_a_unit_of_something_else_is_refused_by_name() -> None:
    with pytest.raises(KeyError, match="'kWh' is not one of celsius; there are degC, degF"):
        device_unit("kWh", Unit("celsius", "°C", "celsius", "Cel"))


# Scale, offset, scale factor ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "number", "value"),
    [
        ({"unit": "degC", "scale": 0.1}, 215, 21.5),
        ({"unit": "degC", "scale": "1/10", "offset": -40}, 615, 21.5),
        ({"unit": "kW", "scale": -1}, 250, -250_000),
        ({"unit": "A", "scale": "1/3"}, 300, 100),
        ({"unit": "Wh", "scale": "1e3"}, 2, 2 * KWH),
    ],
)
def test_scale_then_offset_then_unit(fields: Mapping[str, object], number: int, value: float) -> None:
    assert value_of(only_point(point="it", type="int16", **fields), packed("h", number)) == pytest.approx(value)


def test_a_scale_is_exact_and_not_a_float() -> None:
    point = only_point(point="energy", unit="Wh", type="uint64", scale=0.1)
    assert value_of(point, packed("Q", 12_345_678_901_234_567)) == float(12_345_678_901_234_567 * 360)


SCALED = {"point": "energy", "unit": "Wh", "type": "uint32", "scale_factor": {"document_address": 40003}}


@pytest.mark.parametrize(("exponent", "value"), [(0, 3600 * 5), (3, 3.6e6 * 5), (-2, 36 * 5), (10, 3.6e13 * 5)])
def test_a_scale_factor_is_a_power_of_ten(exponent: int, value: float) -> None:
    assert value_of(only_point(**SCALED), packed("Ih", 5, exponent)) == value


@pytest.mark.parametrize("exponent", [-0x8000, 11, -11, 32_767])
def test_a_scale_factor_that_is_none_makes_the_value_absent(exponent: int) -> None:
    judged = judge(only_point(**SCALED), words_in(packed("Ih", 5, exponent)))
    assert judged.value is None
    assert "scale factor" in judged.why


def test_a_value_without_its_scale_factor_is_absent() -> None:
    assert value_of(only_point(**SCALED), packed("I", 5)) is None


@given(st.data(), st.sampled_from(sorted(shipped_maps())))
def test_whatever_a_device_sends_is_a_finite_number_or_absent(data: st.DataObject, name: str) -> None:
    found = load_register_map(name)
    word = st.one_of(st.integers(0, 0xFFFF), st.sampled_from((0, 0x7F80, 0x7FFF, 0x8000, 0xFF80, 0xFFFF)))
    cells: dict[int, int] = {}

    def words(span: Span) -> list[int] | None:
        for address in range(span.address, span.end):
            cells.setdefault(address, data.draw(word))
        return [cells[address] for address in range(span.address, span.end)]

    values = evaluate(found, words)
    numbers = [*values.metrics.values(), *values.points.values()]
    assert all(map(math.isfinite, numbers))
    assert all(facts.resolution > 0 and math.isfinite(facts.resolution) for facts in values.registers.values())
    assert values.absent.keys().isdisjoint(values.metrics)
    assert all(fact.isprintable() and fact for fact in facts_of(found, words).values())
    rows = readings_of(1, 1_800_000_000, [Measurement(found.table, 7, values.metrics, values.quality)])
    assert len(rows[0].rows) == 1


# What is no value -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "cells"),
    [
        ({"type": "int16", "absent": [0x8000]}, packed("h", -32_768)),
        ({"type": "int16", "absent": [-1]}, packed("h", -1)),
        ({"type": "uint16", "absent": [0xFFFF]}, {0: 0xFFFF}),
        ({"type": "int32", "absent": [0x80000000]}, {0: 0x8000, 1: 0}),
        ({"type": "int32", "absent": [0x80000000], "word_order": "little"}, {0: 0, 1: 0x8000}),
        ({"type": "uint64", "absent": [0xFFFFFFFFFFFFFFFF]}, dict.fromkeys(range(4), 0xFFFF)),
        ({"type": "float32"}, packed("f", float("nan"))),
        ({"type": "float32"}, packed("f", float("inf"))),
        ({"type": "float64"}, packed("d", float("-inf"))),
        ({"type": "float32", "absent": [-9999]}, packed("f", -9999)),
        ({"type": "float64", "unit": "GJ"}, packed("d", 1.7e308)),  # no float in joules
        ({"type": "int16", "valid_min": 0}, packed("h", -1)),
        ({"type": "uint16", "scale": 0.1, "valid_max": 120}, packed("H", 1201)),
        ({"type": "uint32"}, {0: 1}),  # its second register was refused
    ],
)
def test_no_value_is_absent_and_says_why(fields: Mapping[str, object], cells: Mapping[int, int]) -> None:
    judged = judge(only_point(**{"point": "it", "unit": "W", **fields}), words_in(cells))
    assert judged.value is None
    assert judged.why


@pytest.mark.parametrize("number", [0, 1200])
def test_the_bounds_themselves_are_valid(number: int) -> None:
    point = only_point(point="it", unit="degC", type="uint16", scale=0.1, valid_min=0, valid_max=120)
    assert value_of(point, {0: number}) == number / 10


# States, several points of one metric ---------------------------------------------------------------------------------

LEAK = {"metric": "cooling.leak_state", "type": "bits", "address": 0}
LEAK_CODES = {name: code for code, name in COOLING.metric("leak_state").states}


def test_the_worst_of_several_states_counts() -> None:
    found = register_map(
        {**LEAK, "bit": 0, "states": {0: "dry", 1: "warning"}},
        {**LEAK, "bit": 1, "states": {0: "dry", 1: "critical"}},
        kind="cdu",
    )
    seen = {bits: evaluate(found, words_in({0: bits})).metrics["leak_state"] for bits in range(4)}
    assert seen == {
        0: LEAK_CODES["dry"],
        1: LEAK_CODES["warning"],
        2: LEAK_CODES["critical"],
        3: LEAK_CODES["critical"],
    }


def test_a_state_that_the_map_does_not_know_is_absent_unless_it_says_what_others_are() -> None:
    known = {"metric": "cooling.equipment_state", "address": 0, "type": "uint16", "states": {1: "running"}}
    values = evaluate(register_map(known, kind="cdu"), words_in({0: 9}))
    assert values.metrics == {}
    assert values.absent == {"equipment_state": "state 9 is not in the map"}
    values = evaluate(register_map({**known, "other": "failed"}, kind="cdu"), words_in({0: 9}))
    assert values.metrics == {"equipment_state": 4}


@pytest.mark.parametrize(("flags", "quality"), [(0, Quality.GOOD), (4, Quality.BAD)])
def test_error_flags_make_the_quality_of_the_row(flags: int, quality: Quality) -> None:
    found = register_map(
        {"metric": "cooling.quality_state", "address": 0, "type": "uint16", "states": {0: "good"}, "other": "bad"},
        {"metric": "cooling.heat_flow_watts", "address": 1, "type": "uint16", "unit": "kW"},
        kind="heat_meter",
    )
    values = evaluate(found, words_in({0: flags, 1: 3}))
    assert (values.quality, values.metrics) == (quality, {"heat_flow_watts": 3000})


@pytest.mark.parametrize(("how", "all_there", "one_missing"), [("mean", 20, None), ("sum", 60, None), ("max", 30, 30)])
def test_several_points_of_one_metric(how: str, all_there: float, one_missing: float | None) -> None:
    phases = [
        {"metric": "power.current_amperes", "unit": "A", "type": "uint16", "address": n, "combine": how}
        for n in range(3)
    ]
    found = register_map(*phases)
    assert evaluate(found, words_in({0: 10, 1: 20, 2: 30})).metrics["current_amperes"] == all_there
    assert evaluate(found, words_in({0: 10, 2: 30})).metrics.get("current_amperes") == one_missing


# Registers ------------------------------------------------------------------------------------------------------------

IMPORT = {"metric": "power.energy_import_joules", "address": 0}


def facts_at(fields: Mapping[str, object], cells: Mapping[int, int]) -> tuple[float, float]:
    """Modulus and resolution in joules."""
    values = evaluate(register_map({**IMPORT, **fields}), words_in(cells))
    facts = values.registers["energy_import_joules"]
    return facts.modulus, facts.resolution


@pytest.mark.parametrize(
    ("fields", "cells", "modulus", "resolution"),
    [
        ({"type": "acc32", "unit": "Wh"}, packed("I", 7), 2**32 * 3600, 3600),
        ({"type": "uint32", "unit": "kWh", "scale": 0.1}, packed("I", 7), 2**32 * 3.6e5, 3.6e5),
        ({"type": "uint64", "unit": "Wh"}, packed("Q", 7), 2**64 * 3600, 3600),
        ({"type": "int32", "unit": "kWh"}, packed("i", 7), 0, KWH),  # nobody knows what a signed one does
        ({"type": "uint32", "unit": "kWh", "modulus": 100_000_000}, packed("I", 7), 1e8 * KWH, KWH),
        ({"type": "uint16", "unit": "MWh"}, packed("H", 7), 65_536 * 3.6e9, 3.6e9),
        # IEEE 754: at 1e11 the next float32 is 8192 further, at 2e12 it is 131072; a float64 at 1e11 is 2^-16 away.
        ({"type": "float32", "unit": "Wh"}, packed("f", 1e11), 0, 8192 * 3600),
        ({"type": "float32", "unit": "Wh"}, packed("f", 2e12), 0, 131_072 * 3600),
        ({"type": "float64", "unit": "Wh"}, packed("d", 1e11), 0, 3600 / 65_536),
    ],
)
def test_a_register_tells_where_it_starts_again_and_how_finely_it_counts(
    fields: Mapping[str, object], cells: Mapping[int, int], modulus: float, resolution: float
) -> None:
    assert facts_at(fields, cells) == pytest.approx((modulus, resolution))


def test_a_scale_factor_scales_modulus_and_resolution() -> None:
    fields = {"type": "acc32", "unit": "Wh", "scale_factor": {"address": 2}}
    assert facts_at(fields, packed("Ih", 7, 3)) == (2**32 * 3.6e6, 3.6e6)


# Attributes -----------------------------------------------------------------------------------------------------------


def serial_of(fields: Mapping[str, object], cells: Mapping[int, int]) -> str | None:
    return facts_of(register_map({"attribute": "serial", "address": 0, **fields}), words_in(cells)).get("serial")


def text_cells(text: bytes, registers: int) -> dict[int, int]:
    return dict(enumerate(struct.unpack(f">{registers}H", text.ljust(2 * registers, b"\0"))))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"SN-12345", "SN-12345"),
        (b"  SN 1 \0garbage", "SN 1"),
        (b"", None),
        (b"\xff\x01\x1b[31mx\n", "ÿ[31mx"),  # what a terminal would obey is gone
    ],
)
def test_a_text_is_what_is_printable_up_to_its_end(text: bytes, told: str | None) -> None:
    assert serial_of({"type": "string", "registers": 8}, text_cells(text, 8)) == told


def test_a_text_with_swapped_bytes() -> None:
    cells = text_cells(b"NS1-32", 4)
    assert serial_of({"type": "string", "registers": 4, "byte_order": "little"}, cells) == "SN-123"


@pytest.mark.parametrize(("number", "told"), [(7_654_321, "7654321"), (0, None), (0xFFFFFFFF, None)])
def test_a_serial_number_may_be_a_number(number: int, told: str | None) -> None:
    assert serial_of({"type": "uint32"}, packed("I", number)) == told


# Addresses ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "function", "address"),
    [
        (40001, 3, 0),
        (30444, 4, 443),
        (49999, 3, 9998),
        (400001, 3, 0),
        (465536, 3, 65_535),
        (10001, 2, 0),
        ("00001", 1, 0),
        ("000017", 1, 16),
    ],
)
def test_a_documents_address_counts_from_one_and_says_its_function(
    written: int | str, function: int, address: int
) -> None:
    bits = {} if function in (3, 4) else {"metric": "power.breaker_state", "states": {0: "open", 1: "closed"}}
    words = {"point": "it", "unit": "W", "type": "uint16"}
    (point,) = register_map({**(bits or words), "document_address": written}).points
    assert point.span == Span(function, address, 1)


# What is refused ------------------------------------------------------------------------------------------------------

GAUGE: Mapping[str, object] = {"metric": "power.active_power_watts", "address": 0, "type": "int16", "unit": "W"}
STATE: Mapping[str, object] = {"metric": "power.breaker_state", "address": 0, "type": "uint16"}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"address": 1, "type": "int16", "unit": "W"}, "exactly one of metric, point and attribute"),
        ({**GAUGE, "point": "power"}, "exactly one of metric, point and attribute"),
        ({**GAUGE, "adress": 1}, "unknown field `adress`"),
        ({**GAUGE, "address": 65_536}, "Expected `int` <= 65535"),
        ({**GAUGE, "address": 65_535, "type": "int32"}, "ends at address 65536"),
        ({**GAUGE, "document_address": 40001}, "exactly one of address"),
        ({**GAUGE, "address": None, "document_address": 20001}, "document_address 20001 is none"),
        ({**GAUGE, "address": None, "document_address": 40000}, "document_address 40000 is none"),
        ({**GAUGE, "address": None, "document_address": 30001, "function": 3}, "means input registers, function 4"),
        ({**GAUGE, "function": 5}, "Invalid enum value 5"),
        ({**GAUGE, "metric": "power.active_power"}, "is no metric of this kind.*power.active_power_watts"),
        ({**GAUGE, "metric": "cooling.heat_flow_watts"}, "is no metric of this kind"),
        ({**GAUGE, "unit": "kWh"}, "'kWh' is not one of watts; there are W, kW"),
        ({**GAUGE, "unit": "furlong"}, "'furlong' is not known"),
        ({**GAUGE, "unit": None}, "says no unit"),
        ({**GAUGE, "type": "int24"}, "type 'int24', which is not known; give one of int16"),
        ({**GAUGE, "type": None}, "says no type"),
        ({**GAUGE, "type": "string"}, "is text"),
        ({**GAUGE, "registers": 2}, "only text needs"),
        ({**GAUGE, "function": 1}, "single bits; leave out type"),
        ({**GAUGE, "scale": 0}, "scale is 0"),
        ({**GAUGE, "scale": "a tenth"}, "scale 'a tenth' is not a number"),
        ({**GAUGE, "valid_min": 5, "valid_max": 4}, "valid_min 5 is above valid_max 4"),
        ({**GAUGE, "absent": [0x1FFFF]}, "absent has 131071, which no int16 is"),
        ({**GAUGE, "kind": "register"}, "is a gauge in the catalogue"),
        ({**GAUGE, "modulus": 1000}, "has a modulus, but is no register"),
        ({**GAUGE, "states": {0: "closed"}}, "has states, but is no state"),
        ({**GAUGE, "bit": 3}, "no type that has bits"),
        ({**GAUGE, "type": "uint16", "bit": 15, "width": 2}, "goes up to bit 16"),
        ({**GAUGE, "type": "bits"}, "say which bit"),
        ({**STATE}, "is a state without states.*closed, open, tripped"),
        ({**STATE, "states": {0: "shut"}}, "has no state 'shut'; there are closed, open, tripped"),
        ({**STATE, "states": {0: "closed"}, "other": "shut"}, "has no state 'shut'"),
        ({**STATE, "states": {0: "closed"}, "unit": "W"}, "leave the unit out"),
        ({**STATE, "states": {0: True}}, "Expected `str`, got `bool`"),
        ({**IMPORT, "type": "uint32", "unit": "Wh", "offset": 5}, "is a register, which has no offset"),
        ({**IMPORT, "type": "uint32", "unit": "Wh", "scale": -1}, "scale below 0"),
        ({"attribute": "serial", "address": 0, "type": "uint32", "unit": "W"}, "neither unit nor scale"),
        ({"attribute": "role", "address": 0, "type": "uint32"}, "attribute role is one that settings"),
        ({**GAUGE, "scale_factor": {}}, "exactly one of address"),
        ({**GAUGE, "scale_factor": {"document_address": 10001}}, "a single bit"),
    ],
)
def test_a_wrong_point_is_refused_in_a_sentence_that_names_it(fields: Mapping[str, object], says: str) -> None:
    given = {name: value for name, value in fields.items() if value is not None}
    good = {"point": "good", "unit": "W", "address": 9, "type": "int16"}
    with pytest.raises(MapError, match=says) as raised:
        register_map(good, given)
    assert str(raised.value).startswith("register map test.yaml: ")
    label = str(given.get("metric") or given.get("attribute") or "")
    assert label in str(raised.value)
    assert "point 2 (" in str(raised.value) or "attribute" in given


def test_a_metric_that_is_there_twice_must_say_what_both_make() -> None:
    with pytest.raises(MapError, match="active_power_watts is there 2 times; say combine"):
        register_map(GAUGE, {**GAUGE, "address": 1})
    register = {**IMPORT, "type": "uint32", "unit": "Wh"}
    with pytest.raises(MapError, match="energy_import_joules is there 2 times; give it once"):
        register_map(register, {**register, "address": 2})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model: [", "is not YAML"),
        ("- 1", "Expected `object`, got `array`"),
        ("", "Expected `object`, got `null`"),
        ("model: x\nkind: gpu\npoints: [{point: a, address: 1, function: 3, type: int16, unit: W}]", "kind is gpu"),
        ("model: x\nkind: meter\npoints: []", "length >= 1"),
        ("model: x\nkind: meter\nattributes: {register_x: y}\npoints: [{attribute: a, function: 1, address: 1}]",
         "attribute register_x"),
        ("[" * 5000, "is not YAML"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_map_is_refused(text: str, says: str) -> None:
    with pytest.raises(MapError, match=says):
        parse_register_map(text, name="x", where="x.yaml")


# Shipped maps ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(shipped_maps()))
def test_a_shipped_map_is_right_and_warns_that_it_is_an_example(name: str) -> None:
    found = load_register_map(name)
    assert found.tells_serial
    text = " ".join(shipped_maps()[name].read_text(encoding="utf-8").replace("#", " ").split())
    assert "belong to no product: check every address, type, unit and order of words against the vendor's" in text
    assert f"kvandal modbus probe HOST --map {name}" in text


def test_there_is_a_shipped_map_of_a_heat_meter_a_power_meter_and_a_cooling_unit() -> None:
    kinds = {load_register_map(name).kind for name in shipped_maps()}
    assert kinds == {ResourceKind.HEAT_METER, ResourceKind.METER, ResourceKind.CDU}
    assert {load_register_map(name).table for name in shipped_maps()} == {COOLING, POWER}


def test_a_map_of_ones_own_comes_before_a_shipped_one(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("maps")
    own = {"model": "Mine", "kind": "meter", "points": [{**GAUGE, "function": 3}]}
    (folder / "heat_meter_en1434.yaml").write_text(yaml.safe_dump(own))
    assert load_register_map("heat_meter_en1434", str(folder)).model == "Mine"
    assert load_register_map("power_meter_three_phase", str(folder)).kind is ResourceKind.METER


@pytest.mark.parametrize("name", ["nosuch", "../secrets", "/etc/passwd", "", "a" * 65])
def test_a_map_that_is_not_there_is_named_with_those_that_are(name: str) -> None:
    with pytest.raises(
        MapError, match=r"no name of a register map|there is no register map 'nosuch'.*heat_meter_en1434"
    ):
        load_register_map(name)


def test_a_file_that_cannot_be_a_map_is_not_read_whole(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("maps")
    (folder / "huge.yaml").write_bytes(b"#" * (1 << 20) + b"#")
    (folder / "latin.yaml").write_bytes(b"model: \xe6")
    with pytest.raises(MapError, match="more than 1048576 bytes"):
        load_register_map("huge", str(folder))
    with pytest.raises(MapError, match="not UTF-8"):
        load_register_map("latin", str(folder))
