"""What a Modbus device gives, register by register: for the engineer who has its document in hand, and a map to check.

Pure but for `probe`; the command line prints its text.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from math import inf, isfinite
from time import monotonic

from catalogue import units
from catalogue.units import Unit
from collectors.devices import DeviceError, DeviceState
from collectors.modbus.blocks import Span
from collectors.modbus.connection import Connection, ExceptionReplyError
from collectors.modbus.map import Judged, MapPoint, RegisterMap, Words, facts_of, judge
from collectors.modbus.registers import TYPES, Number, Order, number_of, raw_hex
from collectors.modbus.sunspec import Read, find_models, meter_map

BUDGET_S = 60.0
SURVEYED = 100  # registers of each function, where nothing is known of a device
SURVEY_BLOCK = 10  # a block that a device refuses hides so many registers
REGISTER_FUNCTIONS = (3, 4)

ORDERS = tuple(product(Order, Order))  # of words, of bytes

# In base units: what a device of a site may show. Wide: a wrong order of words is wrong by powers of ten.
PLAUSIBLE: Mapping[Unit, tuple[float, float]] = {
    units.CELSIUS: (-60, 250),
    units.KELVIN: (-200, 200),
    units.HERTZ: (10, 1000),
    units.VOLTS: (0, 1e6),
    units.AMPERES: (0, 1e5),
    units.WATTS: (-1e10, 1e10),
    units.VARS: (-1e10, 1e10),
    units.JOULES: (0, 1e19),
    units.CUBIC_METRES: (0, 1e10),
    units.CUBIC_METRES_PER_SECOND: (-100, 100),
    units.PASCALS: (-1e6, 1e8),
    units.RATIO: (-1.5, 1.5),
}
SMALLEST = 1e-6  # in the device's unit, of a number that is not 0
MEASURED = (1e-2, 1e7)  # how large a float is that somebody measures, whatever its unit


@dataclass(frozen=True, slots=True)
class ProbeLine:
    """One point: what came over the wire, what it means, in which base unit, and what we think of it."""

    name: str
    place: str
    raw: str
    value: str
    unit: str
    verdict: str


@dataclass(frozen=True, slots=True)
class Probe:
    """What a device gave when it was asked for everything once."""

    device: str
    what: str
    facts: Mapping[str, str]
    lines: Sequence[ProbeLine]
    remarks: Sequence[str]

    def text(self) -> Iterator[str]:
        """Lines for a terminal."""
        yield f"{self.device}: {self.what}"
        yield from (f"  {name}: {fact}" for name, fact in self.facts.items())
        rows = [(one.name, one.place, one.raw, one.value, one.unit, one.verdict) for one in self.lines]
        widths = [max((len(row[column]) for row in rows), default=0) for column in range(5)]
        for row in rows:
            yield "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]).rstrip()
        yield from self.remarks


def probe(
    host: str, *, port: int = 502, unit: int = 1, register_map: RegisterMap | None = None, timeout_s: float = 2.0
) -> Probe:
    """Ask a device for all points of `register_map`; without one for its SunSpec meter, or else its first registers.

    Reads only, each point by itself. Raises DeviceError when the device does not answer.
    """
    connection = Connection(host, port, timeout_s=timeout_s)
    end_s = monotonic() + BUDGET_S
    device = f"{connection.address} unit {unit}"
    try:
        return _probe(device, lambda span: connection.read(unit, span, end_s=end_s), register_map)
    finally:
        connection.close()


def _probe(device: str, read: Read, register_map: RegisterMap | None) -> Probe:
    if register_map is not None:
        return _probe_map(device, register_map.model, read, register_map)
    try:
        models = find_models(read)
        found = meter_map(models)
    except DeviceError as error:
        if error.state is DeviceState.UNREACHABLE:
            raise
        return _survey(device, str(error), read)
    what = f"SunSpec models {', '.join(str(model.id) for model in models)}"
    return _probe_map(device, what, read, found)


def _probe_map(device: str, what: str, read: Read, register_map: RegisterMap) -> Probe:
    words, refusals = _ask_all(read, register_map.points)
    lines = [_line(point, words, refusals) for point in register_map.values]
    facts = {**register_map.attributes, **facts_of(register_map, words)}
    return Probe(device, what, facts, lines, list(_order_remarks(register_map, words)))


def _ask_all(read: Read, points: Iterable[MapPoint]) -> tuple[Words, Mapping[Span, str]]:
    """Every span by itself, and why those are missing that were refused."""
    known: dict[Span, Sequence[int]] = {}
    refusals: dict[Span, str] = {}
    for span in dict.fromkeys(span for point in points for span in point.spans):
        try:
            known[span] = read(span)
        except ExceptionReplyError as error:
            refusals[span] = str(error)
    return known.get, refusals


def _line(point: MapPoint, words: Words, refusals: Mapping[Span, str]) -> ProbeLine:
    judged = judge(point, words)
    base = point.unit.base if point.unit else units.STATE
    why = next((refusals[span] for span in point.spans if span in refusals), judged.why)
    return ProbeLine(
        name=point.name,
        place=f"{point.span.function}/{point.span.address}",
        raw=raw_hex(words(point.span) or ()),
        value="" if judged.value is None else _value(point, judged),
        unit="" if judged.value is None else base.suffix,
        verdict=f"absent: {why}" if judged.value is None else _verdict(point, judged),
    )


def _value(point: MapPoint, judged: Judged) -> str:
    if point.metric is not None and point.metric.states:
        return dict(point.metric.states)[int(judged.value or 0)]
    return f"{judged.value:.10g}"


def _verdict(point: MapPoint, judged: Judged) -> str:
    return "ok" if _is_plausible(point, judged) else "implausible: check type, order of words, unit and scale"


def _is_plausible(point: MapPoint, judged: Judged) -> bool:
    number, value = judged.number, judged.value
    if number is None or value is None or 0 < abs(number) < SMALLEST:
        return False
    low, high = PLAUSIBLE.get(point.unit.base, (-inf, inf)) if point.unit else (-inf, inf)
    return low <= value <= high


# Order of words ------------------------------------------------------------------------------------------------------


def _order_remarks(register_map: RegisterMap, words: Words) -> Iterator[str]:
    """Which order of words and bytes makes most of the wide points plausible, whatever the map says."""
    wide = [point for point in register_map.values if point.type is not None and point.type.registers > 1]
    telling = [point for point in wide if len(set(words(point.span) or ())) > 1]
    if not telling:
        return
    fits = {order: sum(_fits(point, order, words) for point in telling) for order in ORDERS}
    best = max(fits.values())
    said = {(point.word_order, point.byte_order) for point in telling}
    for order, count in fits.items():
        if count == best or order in said:
            mark = ", as the map says" if order in said else ""
            yield f"{_named(order)}: {count} of {len(telling)} points of several registers are plausible{mark}"


def _fits(point: MapPoint, order: tuple[Order, Order], words: Words) -> bool:
    value = _number_in(point, order, words)
    if value is None:
        return False
    if point.type is not None and not point.type.is_float:
        # A whole number hardly ever fills its high word: the smallest is the right one.
        others = [_number_in(point, other, words) for other in ORDERS]
        return abs(value) == min(abs(other) for other in others if other is not None)
    turned = replace(point, word_order=order[0], byte_order=order[1])
    return _is_plausible(turned, judge(turned, words))


def _number_in(point: MapPoint, order: tuple[Order, Order], words: Words) -> Number | None:
    found = words(point.span)
    return number_of(found, point.type, *order) if found and point.type else None


def _named(order: tuple[Order, Order]) -> str:
    return f"word_order {order[0].value}, byte_order {order[1].value}"


# A device of which nothing is known ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Guess:
    """How pairs of registers would be float32: from even or odd addresses, in which order; how many look measured."""

    odd: int
    order: tuple[Order, Order]
    measured: int
    pairs: int

    def number(self, cells: Mapping[int, int], address: int) -> float | None:
        """The float that begins at the address; None where no pair does, or one of 0."""
        pair = [cells.get(address, 0), cells.get(address + 1, 0)]
        if address % 2 != self.odd or address + 1 not in cells or not any(pair):
            return None
        return float(number_of(pair, TYPES["float32"], *self.order))


def _survey(device: str, why: str, read: Read) -> Probe:
    """Its first registers that are not 0, and what they would be as float32."""
    lines: list[ProbeLine] = []
    remarks = []
    for function in REGISTER_FUNCTIONS:
        cells = _first_registers(read, function)
        guess = _guess(cells)
        remarks.append(f"function {function}: {len(cells)} of the first {SURVEYED} registers are there")
        if guess.measured:
            start = "odd" if guess.odd else "even"
            remarks.append(
                f"function {function}: {guess.measured} of {guess.pairs} pairs from {start} addresses look like "
                f"float32 in {_named(guess.order)}"
            )
        lines += _survey_lines(function, cells, guess)
    return Probe(device, why, {}, lines, remarks)


def _first_registers(read: Read, function: int) -> dict[int, int]:
    cells: dict[int, int] = {}
    for address in range(0, SURVEYED, SURVEY_BLOCK):
        with suppress(ExceptionReplyError):
            cells |= dict(enumerate(read(Span(function, address, SURVEY_BLOCK)), start=address))
    return cells


def _guess(cells: Mapping[int, int]) -> _Guess:
    guesses = []
    for odd, order in product((0, 1), ORDERS):
        guess = _Guess(odd, order, 0, 0)
        numbers = [number for address in cells if (number := guess.number(cells, address)) is not None]
        guesses.append(_Guess(odd, order, sum(_looks_measured(number) for number in numbers), len(numbers)))
    return max(guesses, key=lambda guess: guess.measured)


def _looks_measured(number: float) -> bool:
    return isfinite(number) and MEASURED[0] <= abs(number) <= MEASURED[1]


def _survey_lines(function: int, cells: Mapping[int, int], guess: _Guess) -> Iterator[ProbeLine]:
    for address, word in cells.items():
        number = guess.number(cells, address)
        looks = number is not None and _looks_measured(number)
        if word or looks:
            name, raw = f"{function}/{address}", raw_hex([word])
            yield ProbeLine(f"register {address}", name, raw, str(word), "", f"float32 {number:g}?" if looks else "")
