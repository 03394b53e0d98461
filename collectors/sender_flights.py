"""What is on its way to the broker, line by line: how much more may leave, from where on, and which line is set aside.

Pure bookkeeping without threads. A line that its topic refuses is set aside for a while that grows; then one value of
it may leave alone, and when that one is taken the line is open again.
"""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from collectors.spool import Line, Spooled

READ_AHEAD = 1000  # values on their way at once: some seconds of a large node, a fraction of one of a site
READ_AHEAD_BYTES = 16 << 20  # the client keeps a copy of each of them in memory
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
LIVELY_S = 10.0  # a broker that answered within this time is there


class Room(NamedTuple):
    """What may leave now, and whether it goes alone."""

    values: int
    bytes: int
    alone: bool = False


NO_ROOM = Room(0, 0)


@dataclass(frozen=True, slots=True)
class Flight:
    """A value on its way; `order` counts departures."""

    line: Line
    number: int
    size: int
    order: int
    alone: bool


@dataclass(slots=True)
class _Way:
    """What is known of one line."""

    cursor: int = 0  # number of the last value that left
    under_way: dict[int, Flight] = field(default_factory=dict)  # by number
    bytes: int = 0
    failures: int = 0  # in a row; 0 while the line is open
    due_s: float = 0.0
    answered_s: float = float("-inf")
    answered_order: int = -1


class Flights:
    """The values on their way. A line takes at most half of the room that the others leave.

    So one that gets no answers never stops another. `limit_bytes` is what all of them may have together.
    """

    def __init__(self, *, limit_bytes: int = READ_AHEAD_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._ways: defaultdict[Line, _Way] = defaultdict(_Way)
        self._lines: dict[int, Line] = {}  # by number of what is on its way
        self._bytes = 0
        self._order = 0

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def numbers(self) -> Collection[int]:
        return self._lines.keys()

    def cursor(self, line: Line) -> int:
        """Number of the line's last value that left; what comes next is above it."""
        return self._ways[line].cursor

    def room(self, line: Line, now_s: float) -> Room:
        """How much of a line may leave now."""
        way = self._ways[line]
        if way.failures:
            due = now_s >= way.due_s and not way.under_way
            return Room(1, self._limit_bytes, alone=True) if due else NO_ROOM
        values = (READ_AHEAD - len(self._lines) + len(way.under_way)) // 2 - len(way.under_way)
        size = (self._limit_bytes - self._bytes + way.bytes) // 2 - way.bytes
        return Room(values, size) if values > 0 and size > 0 else NO_ROOM

    def depart(self, line: Line, value: Spooled, *, alone: bool) -> None:
        way = self._ways[line]
        self._order += 1
        way.under_way[value.number] = Flight(line, value.number, len(value.value), self._order, alone)
        way.bytes += len(value.value)
        way.cursor = value.number
        self._lines[value.number] = line
        self._bytes += len(value.value)

    def land(self, number: int, now_s: float) -> Flight:
        """A value was acknowledged; returns its flight."""
        flight = self._leave(number)
        way = self._ways[flight.line]
        way.answered_s, way.answered_order = now_s, max(way.answered_order, flight.order)
        return flight

    def turn_back(self, number: int) -> Flight:
        """A value did not arrive: its line goes on from it. Returns its flight."""
        flight = self._leave(number)
        way = self._ways[flight.line]
        way.cursor = min(way.cursor, number - 1)
        return flight

    def turn_all_back(self) -> None:
        """Nothing on its way will arrive."""
        for number in list(self._lines):
            self.turn_back(number)

    def rewind(self) -> None:
        """Nothing that ever left has arrived: everything is to leave again."""
        for way in self._ways.values():
            way.cursor = 0

    def set_aside(self, line: Line, now_s: float) -> bool:
        """Let nothing of a line leave for a while, longer each time; True when it was open before."""
        way = self._ways[line]
        way.failures += 1
        way.due_s = now_s + min(FIRST_PAUSE_S * 2.0 ** min(way.failures - 1, 30), LONGEST_PAUSE_S)
        return way.failures == 1

    def open(self, line: Line) -> bool:
        """Let a line go on as before; True when it was set aside."""
        way = self._ways[line]
        failures, way.failures = way.failures, 0
        return failures > 0

    def is_aside(self, line: Line) -> bool:
        return self._ways[line].failures > 0

    def others_get_through(self, flight: Flight, now_s: float) -> bool:
        """Whether another line has had an answer just now, to what left after this flight: the broker is there."""
        return any(
            way.answered_order > flight.order and now_s - way.answered_s <= LIVELY_S
            for line, way in self._ways.items()
            if line != flight.line
        )

    def of(self, number: int) -> Flight:
        """The flight of a value on its way; KeyError otherwise."""
        return self._ways[self._lines[number]].under_way[number]

    def _leave(self, number: int) -> Flight:
        way = self._ways[self._lines.pop(number)]
        flight = way.under_way.pop(number)
        way.bytes -= flight.size
        self._bytes -= flight.size
        return flight
