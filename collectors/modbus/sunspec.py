"""SunSpec: a device that describes itself. Its models are found, and its meter becomes a register map.

SunSpec Device Information Model Specification 1.0 (marker, model chain, types, scale factors) and the published model
definitions 1, 201 to 204 and 211 to 214. Offsets count from a model's identifier, its two-register head included.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from catalogue import POWER, ResourceKind
from collectors.devices import DeviceError, DeviceState
from collectors.modbus.blocks import ADDRESSES, MAX_REGISTERS, Span
from collectors.modbus.map import NOT_IMPLEMENTED, SERIAL, MapPoint, RegisterMap
from collectors.modbus.registers import TYPES, Number, RegisterType
from collectors.modbus.units import device_unit

MARKER = [0x5375, 0x6E53]  # "SunS"
BASES = (40_000, 0, 50_000)
END = 0xFFFF  # the identifier after the last model
HEAD = 2  # identifier and length
MAX_MODELS = 64
HOLDING = 3

COMMON = 1
PHASES = {201: 1, 202: 2, 203: 3, 204: 3, 211: 1, 212: 2, 213: 3, 214: 3}
FLOAT_METERS = frozenset({211, 212, 213, 214})

# Reads registers; raises DeviceError.
Read = Callable[[Span], Sequence[int]]

# Attribute, offset and registers of model 1.
_COMMON = (
    ("manufacturer", 2, 16),
    ("model", 18, 16),
    ("options", 34, 8),
    ("firmware_version", 42, 8),
    (SERIAL, 50, 16),
)

# Metric or point, unit, type, offset, and offset of the scale factor. Current is the sum of the phases.
_INTEGER_METER = (
    ("current_amperes", "A", "int16", 2, 6),
    ("voltage_volts", "V", "int16", 11, 15),
    ("frequency_hertz", "Hz", "int16", 16, 17),
    ("active_power_watts", "W", "int16", 18, 22),
    ("apparent_power", "VA", "int16", 23, 27),
    ("reactive_power_vars", "var", "int16", 28, 32),
    ("power_factor_ratio", "percent", "int16", 33, 37),
    ("energy_export_joules", "Wh", "acc32", 38, 54),
    ("energy_import_joules", "Wh", "acc32", 46, 54),
)
_FLOAT_METER = (
    ("current_amperes", "A", "float32", 2, 0),
    ("voltage_volts", "V", "float32", 18, 0),
    ("frequency_hertz", "Hz", "float32", 26, 0),
    ("active_power_watts", "W", "float32", 28, 0),
    ("apparent_power", "VA", "float32", 36, 0),
    ("reactive_power_vars", "var", "float32", 44, 0),
    ("power_factor_ratio", "ratio", "float32", 52, 0),
    ("energy_export_joules", "Wh", "float32", 60, 0),
    ("energy_import_joules", "Wh", "float32", 68, 0),
)
# A power factor outside is in another unit than the model says: absent, as nobody knows which.
_LARGEST_FACTOR = {"percent": 100.0, "ratio": 1.0}
_ABSENT: dict[str, frozenset[Number]] = {
    "int16": frozenset({NOT_IMPLEMENTED}),
    "acc32": frozenset({0}),
    "float32": frozenset(),  # NaN
}


@dataclass(frozen=True, slots=True)
class Model:
    """A model block; `length` is without its head."""

    id: int
    address: int
    length: int


def find_models(read: Read) -> list[Model]:
    """The models of a device, in its order. Raises DeviceError when it does not speak SunSpec, or does not answer."""
    return list(_walk(read, _find_base(read) + len(MARKER)))


def meter_map(models: Sequence[Model]) -> RegisterMap:
    """What the device's meter gives; DeviceError when it has none.

    Of several the integer one counts: its register keeps its resolution as it grows, and says where it starts again.
    """
    meters = [one for one in models if one.id in PHASES]
    if not meters:
        found = ", ".join(str(one.id) for one in models) or "none"
        raise DeviceError(DeviceState.NONSENSE, f"it speaks SunSpec, but has no meter; its models: {found}")
    meter = min(meters, key=lambda one: one.id in FLOAT_METERS)
    common = next((one for one in models if one.id == COMMON), None)
    facts = _common_points(common) if common else ()
    return RegisterMap(
        name="sunspec",
        model=f"SunSpec meter {meter.id}",
        kind=ResourceKind.METER,
        table=POWER,
        points=(*facts, *_meter_points(meter)),
        attributes={"sunspec_model": str(meter.id)},
        max_gap=MAX_REGISTERS,  # a model has no holes
    )


def _find_base(read: Read) -> int:
    """Where the marker is. A device may not answer at all to an address that it does not have."""
    errors = []
    for base in BASES:
        try:
            if list(read(Span(HOLDING, base, len(MARKER)))) == MARKER:
                return base
        except DeviceError as error:
            if error.state is DeviceState.UNREACHABLE:
                raise
            errors.append(error)
    silent = [error for error in errors if error.state is DeviceState.SLOW]
    if len(silent) == len(BASES):
        raise silent[0]
    places = ", ".join(map(str, BASES))
    raise DeviceError(DeviceState.NONSENSE, f"it does not speak SunSpec: no marker at {places}; give it a register map")


def _walk(read: Read, address: int) -> Iterator[Model]:
    for _ in range(MAX_MODELS):
        if address + HEAD > ADDRESSES:
            return
        identifier, length = read(Span(HOLDING, address, HEAD))
        if identifier in (0, END):
            return
        yield Model(identifier, address, length)
        address += HEAD + length


def _common_points(model: Model) -> Iterator[MapPoint]:
    for name, offset, registers in _COMMON:
        if offset + registers <= HEAD + model.length:
            span = Span(HOLDING, model.address + offset, registers)
            yield MapPoint(name=name, span=span, type=None, is_attribute=True)


def _meter_points(model: Model) -> Iterator[MapPoint]:
    """The points of a meter, as far as its length goes."""
    for name, unit, type_name, offset, scale_offset in _FLOAT_METER if model.id in FLOAT_METERS else _INTEGER_METER:
        kind = TYPES[type_name]
        if max(offset + kind.registers, scale_offset + 1) <= HEAD + model.length:
            yield _meter_point(model, name, unit, kind, offset, scale_offset)


def _meter_point(model: Model, name: str, unit: str, kind: RegisterType, offset: int, scale_offset: int) -> MapPoint:
    metric = next((one for one in POWER.metrics if one.name == name), None)
    highest = _LARGEST_FACTOR.get(unit, float("inf"))
    return MapPoint(
        name=name,
        span=Span(HOLDING, model.address + offset, kind.registers),
        type=kind,
        unit=device_unit(unit, metric.unit if metric else None),
        unit_name=unit,
        metric=metric,
        is_register=unit == "Wh",
        scale=Fraction(1, PHASES[model.id]) if name == "current_amperes" else Fraction(1),
        scale_factor=Span(HOLDING, model.address + scale_offset, 1) if scale_offset else None,
        modulus=kind.modulus,
        valid_min=-highest,
        valid_max=highest,
        absent=_ABSENT[kind.name],
    )
