"""What may be on its way, line by line: room, order, and lines that are set aside."""

import pytest

from collectors.sender_flights import READ_AHEAD, READ_AHEAD_BYTES, Flights, Room
from collectors.spool import Line, Spooled

GPU, TRAY = Line(urgent=False, topic="kvandal.gpu"), Line(urgent=False, topic="kvandal.tray")
NOTHING = Room(0, 0)


def value(number: int, *, size: int = 10) -> Spooled:
    return Spooled(number, GPU.topic, 1, 1, bytes(size))


def depart(flights: Flights, line: Line, *numbers: int, size: int = 10, alone: bool = False) -> None:
    for number in numbers:
        flights.depart(line, value(number, size=size), alone=alone)


def test_a_line_takes_at_most_half_of_what_the_others_leave() -> None:
    flights = Flights(limit_bytes=READ_AHEAD_BYTES)
    assert flights.room(GPU, 0) == Room(READ_AHEAD // 2, READ_AHEAD_BYTES // 2)
    depart(flights, GPU, *range(READ_AHEAD // 2))

    assert flights.room(GPU, 0) == NOTHING
    assert flights.room(TRAY, 0).values == READ_AHEAD // 4


def test_bytes_are_shared_like_values() -> None:
    flights = Flights(limit_bytes=1000)
    depart(flights, GPU, 1, size=500)

    assert flights.room(GPU, 0) == NOTHING
    assert flights.room(TRAY, 0).bytes == 250


def test_what_is_answered_gives_its_room_back() -> None:
    flights = Flights(limit_bytes=1000)
    depart(flights, GPU, 1, 2, size=250)
    flights.land(1, 0)
    flights.turn_back(2)

    assert flights.room(GPU, 0) == Room(READ_AHEAD // 2, 500)
    assert len(flights) == 0


def test_a_line_goes_on_from_the_oldest_value_that_failed() -> None:
    flights = Flights()
    depart(flights, GPU, 1, 3, 5, 7)
    flights.land(1, 0)
    flights.turn_back(5)
    flights.turn_back(3)
    flights.turn_back(7)

    assert flights.cursor(GPU) == 2


def test_pauses_double_up_to_a_minute_and_begin_anew_once_the_line_was_open() -> None:
    flights, now_s, pauses_s = Flights(), 0, []
    for _ in range(9):
        flights.set_aside(GPU, now_s)
        due_s = next(second for second in range(now_s, now_s + 100) if flights.room(GPU, second).values)
        pauses_s.append(due_s - now_s)
        now_s = due_s
    flights.open(GPU)
    flights.set_aside(GPU, now_s)

    assert pauses_s == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert flights.room(GPU, now_s + 1) == Room(1, READ_AHEAD_BYTES, alone=True)


def test_a_line_set_aside_is_tried_only_when_nothing_of_it_is_on_its_way() -> None:
    flights = Flights()
    depart(flights, GPU, 1)
    flights.set_aside(GPU, 0)
    assert flights.room(GPU, 100) == NOTHING
    flights.turn_back(1)

    assert flights.room(GPU, 100).alone


@pytest.mark.parametrize(("answered", "now_s", "there"), [(2, 10, True), (2, 11, False), (1, 10, False)])
def test_a_broker_is_there_when_it_answered_just_now_to_what_left_later(
    answered: int,
    now_s: float,
    there: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    flights = Flights()
    depart(flights, TRAY, 1)
    depart(flights, GPU, 10)
    depart(flights, TRAY, 2)
    flights.land(answered, 0)

    assert flights.others_get_through(flights.of(10), now_s) is there


def test_answers_to_its_own_line_say_nothing_about_others() -> None:
    flights = Flights()
    depart(flights, GPU, 1, 2)
    flights.land(2, 0)

    assert not flights.others_get_through(flights.of(1), 0)
