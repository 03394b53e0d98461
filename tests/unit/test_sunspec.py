"""SunSpec: where the models are, which is the meter, and what its points mean.

Devices are written down as registers from the published model definitions; offsets count from a model's identifier.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence

import pytest

from catalogue import POWER, ResourceKind
from collectors.devices import DeviceError, DeviceState
from collectors.modbus.blocks import Span
from collectors.modbus.connection import ExceptionReplyError
from collectors.modbus.map import RegisterMap, evaluate, facts_of
from collectors.modbus.sunspec import Model, find_models, meter_map

MARKER = [0x5375, 0x6E53]
NOT_IMPLEMENTED = 0x8000
WH = 3600


def words_of(code: str, value: float) -> list[int]:
    content = struct.pack(f">{code}", value)
    return list(struct.unpack(f">{len(content) // 2}H", content))


class Device:
    """A device's holding registers, model after model behind the marker."""

    def __init__(self, base: int = 40_000) -> None:
        self.cells: dict[int, int] = {}
        self.end = base
        self.refusal: DeviceError = ExceptionReplyError(2, "a test")
        self.requests = 0
        self.append(MARKER)

    def append(self, words: Sequence[int]) -> int:
        start = self.end
        self.cells.update(dict(enumerate(words, start=start)))
        self.end += len(words)
        return start

    def model(
        self, identifier: int, length: int, points: Mapping[int, list[int]], blank: int = NOT_IMPLEMENTED
    ) -> None:
        """A model whose points, by offset, are these words, and otherwise not implemented."""
        start = self.append([identifier, length, *[blank] * length])
        for offset, words in points.items():
            self.cells.update(dict(enumerate(words, start=start + offset)))

    def common(self, serial: str = "SN42") -> None:
        texts = {2: ("ACME", 16), 18: ("Meter 9", 16), 42: ("1.2", 8), 50: (serial, 16)}
        packed = {
            at: list(struct.unpack(f">{n}H", text.encode().ljust(2 * n, b"\0"))) for at, (text, n) in texts.items()
        }
        self.model(1, 66, packed, blank=0)

    def finish(self) -> None:
        self.append([0xFFFF, 0])

    def read(self, span: Span) -> list[int]:
        self.requests += 1
        assert span.function == 3
        try:
            return [self.cells[address] for address in range(span.address, span.end)]
        except KeyError:
            raise self.refusal from None

    def words(self, span: Span) -> list[int]:
        return [self.cells[address] for address in range(span.address, span.end)]

    @property
    def map(self) -> RegisterMap:
        return meter_map(find_models(self.read))


# domain.md: model 203 in front of which two registers of head stand. Scale factors: A -1, V 0, Hz -2, W 3, VA 3,
# var 2, PF -2, Wh 2.
INTEGER_POINTS = {
    2: words_of("h", 3600),
    6: words_of("h", -1),
    11: words_of("h", 11_000),
    15: words_of("h", 0),
    16: words_of("h", 5001),
    17: words_of("h", -2),
    18: words_of("h", -230),
    22: words_of("h", 3),
    23: words_of("h", 231),
    27: words_of("h", 3),
    28: words_of("h", 45),
    32: words_of("h", 2),
    33: words_of("h", -9800),
    37: words_of("h", -2),
    38: words_of("I", 12),
    46: words_of("I", 4_000_000_000),
    54: words_of("h", 2),
}
FLOAT_POINTS = {
    2: words_of("f", 360.0),
    18: words_of("f", 11_000.0),
    26: words_of("f", 50.25),
    28: words_of("f", -230e3),
    36: words_of("f", 231e3),
    44: words_of("f", 4500.0),
    52: words_of("f", -0.5),
    60: words_of("f", 1024.0),
    68: words_of("f", 1e9),
}
NAN = words_of("f", float("nan"))[0]


def meter(identifier: int = 203, *, base: int = 40_000, points: Mapping[int, list[int]] | None = None) -> Device:
    device = Device(base)
    device.common()
    is_float = identifier > 210
    given = points if points is not None else FLOAT_POINTS if is_float else INTEGER_POINTS
    device.model(identifier, 124 if is_float else 105, given, blank=NAN if is_float else NOT_IMPLEMENTED)
    device.finish()
    return device


@pytest.mark.parametrize("base", [0, 40_000, 50_000])
def test_the_marker_is_found_where_the_specification_allows_it(base: int) -> None:
    models = find_models(meter(base=base).read)
    assert models == [Model(1, base + 2, 66), Model(203, base + 70, 105)]


@pytest.mark.parametrize(("identifier", "phases"), [(201, 1), (202, 2), (203, 3), (204, 3)])
def test_an_integer_meter_is_in_base_units(identifier: int, phases: int) -> None:
    device = meter(identifier)
    values = evaluate(device.map, device.words)
    assert values.metrics == {
        "current_amperes": pytest.approx(360 / phases),  # the model has their sum
        "voltage_volts": 11_000,
        "frequency_hertz": 50.01,
        "active_power_watts": -230e3,
        "reactive_power_vars": 4500,
        "power_factor_ratio": -0.98,
        "energy_export_joules": 1200 * WH,
        "energy_import_joules": 4e11 * WH,
    }
    assert values.points == {"apparent_power": 231e3}
    assert values.absent == {}


@pytest.mark.parametrize(("identifier", "phases"), [(211, 1), (212, 2), (213, 3), (214, 3)])
def test_a_float_meter_gives_the_same(identifier: int, phases: int) -> None:
    device = meter(identifier)
    values = evaluate(device.map, device.words)
    assert values.metrics == {
        "current_amperes": pytest.approx(360 / phases),
        "voltage_volts": 11_000,
        "frequency_hertz": 50.25,
        "active_power_watts": -230e3,
        "reactive_power_vars": 4500,
        "power_factor_ratio": -0.5,
        "energy_export_joules": 1024 * WH,
        "energy_import_joules": 1e9 * WH,
    }
    assert values.points == {"apparent_power": 231e3}


def test_registers_say_where_they_start_again_and_how_finely_they_count() -> None:
    device = meter(203)
    registers = evaluate(device.map, device.words).registers
    assert registers["energy_import_joules"].modulus == 2**32 * 100 * WH
    assert registers["energy_import_joules"].resolution == 100 * WH
    device = meter(213)
    registers = evaluate(device.map, device.words).registers
    assert registers["energy_import_joules"].modulus == 0
    assert registers["energy_import_joules"].resolution == 64 * WH  # 2^29 < 1e9 < 2^30, 24 bits: 2^(29 - 23)


@pytest.mark.parametrize("identifier", [203, 213])
def test_what_is_not_implemented_is_absent(identifier: int) -> None:
    device = meter(identifier, points={46: [0, 0], 38: [0, 0]} if identifier == 203 else {})
    values = evaluate(device.map, device.words)
    assert (values.metrics, values.points, values.registers) == ({}, {}, {})
    assert values.absent.keys() == {
        "current_amperes",
        "voltage_volts",
        "frequency_hertz",
        "active_power_watts",
        "apparent_power",
        "reactive_power_vars",
        "power_factor_ratio",
        "energy_export_joules",
        "energy_import_joules",
    }


def test_a_value_whose_scale_factor_is_not_implemented_is_absent() -> None:
    device = meter(203, points={**INTEGER_POINTS, 22: [NOT_IMPLEMENTED]})
    values = evaluate(device.map, device.words)
    assert "active_power_watts" not in values.metrics
    assert values.absent["active_power_watts"] == "its scale factor is absent"


def test_a_power_factor_in_another_unit_than_the_model_says_is_absent() -> None:
    device = meter(213, points={**FLOAT_POINTS, 52: words_of("f", 98.0)})
    assert "power_factor_ratio" not in evaluate(device.map, device.words).metrics


def test_the_common_model_is_the_devices_identity() -> None:
    device = meter()
    assert facts_of(device.map, device.words) == {
        "manufacturer": "ACME",
        "model": "Meter 9",
        "firmware_version": "1.2",
        "serial": "SN42",
    }
    assert device.map.attributes == {"sunspec_model": "203"}
    assert (device.map.kind, device.map.table) == (ResourceKind.METER, POWER)


def test_all_of_an_integer_meter_is_one_request() -> None:
    found = meter().map
    (block,) = found.blocks(found.values)
    assert block.count <= 105


def test_of_an_integer_and_a_float_meter_the_integer_one_counts() -> None:
    device = Device()
    device.common()
    device.model(213, 124, FLOAT_POINTS)
    device.model(203, 105, INTEGER_POINTS)
    device.finish()
    assert device.map.model == "SunSpec meter 203"


def test_a_model_that_is_shorter_than_it_should_be_lacks_its_end() -> None:
    device = Device()
    device.common()
    device.model(203, 36, {offset: words for offset, words in INTEGER_POINTS.items() if offset < 37})
    device.finish()
    names = {point.name for point in device.map.values}
    assert "active_power_watts" in names
    assert "energy_import_joules" not in names


def test_models_without_a_meter_say_which_there_are() -> None:
    device = Device()
    device.common()
    device.model(103, 50, {})
    device.finish()
    with pytest.raises(DeviceError, match="speaks SunSpec, but has no meter; its models: 1, 103") as raised:
        _ = device.map
    assert raised.value.state is DeviceState.NONSENSE


@pytest.mark.parametrize("words", [[0x1234, 0x5678], []])
def test_a_device_without_the_marker_does_not_speak_sunspec(words: list[int]) -> None:
    device = Device()
    device.cells = dict(enumerate(words, start=40_000))
    with pytest.raises(DeviceError, match=r"does not speak SunSpec.*give it a register map") as raised:
        find_models(device.read)
    assert raised.value.state is DeviceState.NONSENSE


def test_a_device_that_is_silent_at_addresses_it_does_not_have_is_found_at_the_next() -> None:
    device = meter(base=50_000)
    device.refusal = DeviceError(DeviceState.SLOW, "no answer in time")
    assert [model.id for model in find_models(device.read)] == [1, 203]
    device.cells.clear()
    with pytest.raises(DeviceError) as raised:
        find_models(device.read)
    assert raised.value.state is DeviceState.SLOW


def test_a_device_that_cannot_be_reached_is_not_asked_at_every_place() -> None:
    device = meter()
    device.cells.clear()
    device.refusal = DeviceError(DeviceState.UNREACHABLE, "no connection")
    with pytest.raises(DeviceError) as raised:
        find_models(device.read)
    assert (raised.value.state, device.requests) == (DeviceState.UNREACHABLE, 1)


def endless(length: int) -> Iterator[int]:
    while True:
        yield 103
        yield length


@pytest.mark.parametrize("length", [0, 2, 0xFFFE])
def test_a_chain_without_end_ends(length: int) -> None:
    device = Device(0)
    heads = endless(length)
    for address in range(2, 65_536):
        device.cells[address] = next(heads)
    assert len(find_models(device.read)) <= 64
    assert device.requests < 70
