"""What registers of a served device hold; expected words follow from the types' definitions, by hand."""

import struct
from fractions import Fraction

import pytest

from catalogue.facility import QUALITY_STATES
from collectors.modbus.map_file import load_register_map
from kvandal.serving_site import heat_meter_values, meter_values, register_of, served_device
from simulation import Simulation, Site
from simulation.serving import Moment
from simulation.serving.modbus import Register

START_S = 1_800_000_000
WATT_HOUR, KILOWATT_HOUR = Fraction(3600), Fraction(3_600_000)
GOOD, BAD = (next(state for state, name in QUALITY_STATES if name == wanted) for wanted in ("good", "bad"))


def register(**given: object) -> Register:
    return Register(**({"name": "x", "function": 3, "address": 0, "registers": 2} | given))  # type: ignore[arg-type]


def test_a_counter_shows_full_steps_in_big_words() -> None:
    energy = register(registers=4, code="Q", step=WATT_HOUR, counts=True)
    assert energy.words(3600.0 * 0x1_0002_0003 + 3599.0) == [0, 1, 2, 3]


def test_a_counter_starts_again_at_its_modulus() -> None:
    heat = register(code="I", step=KILOWATT_HOUR, counts=True, modulus=100_000_000)
    assert heat.words(3.6e6 * 99_999_999) == [0x05F5, 0xE0FF]  # 99,999,999
    assert heat.words(3.6e6 * 100_000_007) == [0, 7]


def test_what_was_counted_in_whole_steps_loses_none_of_them_as_a_float() -> None:
    volume = register(code="I", step=Fraction(1, 100), counts=True)
    for hundredths in (29, 57, 113, 999_999):  # 0.29 / 0.01 is 28.999999999999996
        high, low = volume.words(hundredths / 100)
        assert high << 16 | low == hundredths


def test_a_gauge_is_rounded_to_the_nearest_step() -> None:
    temperature = register(registers=1, code="h", step=Fraction(1, 100))
    assert temperature.words(43.214) == [4321]
    assert temperature.words(43.216) == [4322]
    assert temperature.words(-0.014) == [0xFFFF]


def test_a_float_may_have_its_low_word_first() -> None:
    high, low = struct.unpack(">2H", struct.pack(">f", 18.5))
    assert (high, low) == (0x4194, 0)  # 18.5 = 1.15625 x 2^4
    assert register(code="f").words(18.5) == [high, low]
    assert register(code="f", low_word_first=True).words(18.5) == [low, high]


def test_a_register_may_have_its_low_byte_first() -> None:
    assert register(registers=1, code="H", low_byte_first=True).words(0x1234) == [0x3412]


@pytest.mark.parametrize("value", [None, float("nan"), 1e12])
def test_no_value_and_one_too_large_show_what_stands_for_none(value: float | None) -> None:
    assert register(registers=1, code="h", absent=0x7FFF).words(value) == [0x7FFF]
    assert register(registers=1, code="h").words(value) == []


def test_no_value_in_a_float_is_not_a_number() -> None:
    assert register(code="f").words(None)[0] & 0x7FC0 == 0x7FC0


def test_text_fills_its_registers_and_no_more() -> None:
    assert register(registers=2).words("ABC") == [0x4142, 0x4300]
    assert register(registers=1).words("ABC") == [0x4142]


def test_a_state_is_shown_by_the_number_of_the_map() -> None:
    quality = register(registers=1, code="H", states={GOOD: 0}, absent=None)
    assert quality.words(float(GOOD)) == [0]
    assert quality.words(float(BAD)) == []


@pytest.mark.parametrize("name", ["power_meter_three_phase", "heat_meter_en1434"])
def test_a_device_has_exactly_the_registers_of_its_map(name: str) -> None:
    register_map = load_register_map(name)
    site = Site.build(72, 1)
    moment = Moment.of(Simulation(site, START_S, seed=1))
    heat_meter = site.cdus + site.halls

    def measure(moment: Moment) -> dict[str, float]:
        if name == "heat_meter_en1434":
            return dict(heat_meter_values(moment, place=heat_meter))
        return dict(meter_values(moment, place=0))

    cells = served_device(register_map, 1, "meter-1", measure).cells(moment)

    spans = [point.span for point in register_map.points]
    assert cells.keys() == {(one.function, address) for one in spans for address in range(one.address, one.end)}


def test_a_map_with_bits_is_refused() -> None:
    bits = next(point for point in load_register_map("cdu_swapped_float").points if point.bit is not None)
    with pytest.raises(ValueError, match="bits and scale factors are not served"):
        register_of(bits)
