"""A crew makes calls that may hang: on one thread while none does, and past those that do."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from threading import Event, current_thread
from threading import enumerate as threads

import pytest

from collectors.nvml.crew import Crew

HASTY_S = 1.0
PATIENT_S = 30.0  # for rounds in which nothing hangs, on a machine under load


@pytest.fixture
def crew() -> Iterator[Crew[int, str]]:
    made = Crew[int, str]("crew-under-test")
    yield made
    made.close()


def late(go_on: Event) -> str:
    """A call that hangs."""
    go_on.wait(PATIENT_S)
    return "late"


def named(who: int) -> Callable[[], str]:
    return partial(str, who)


def test_calls_are_made_in_order_on_one_thread(crew: Crew[int, str]) -> None:
    made_by = [
        crew.ask({who: lambda: current_thread().name for who in range(8)}, time.monotonic() + PATIENT_S)
        for _ in range(3)
    ]
    assert [list(answers) for answers in made_by] == [list(range(8))] * 3
    assert len({name for answers in made_by for name in answers.values()}) == 1


def test_all_others_are_asked_when_many_hang(crew: Crew[int, str]) -> None:
    go_on = Event()
    hanging = {0, 1, 3, 6}
    calls = {who: partial(late, go_on) if who in hanging else named(who) for who in range(8)}
    assert crew.ask(calls, time.monotonic() + HASTY_S) == {who: str(who) for who in range(8) if who not in hanging}
    assert crew.busy() == hanging
    go_on.set()


def test_who_is_busy_is_asked_again_once_the_call_has_returned(crew: Crew[int, str]) -> None:
    go_on, asked = Event(), []

    def hang() -> str:
        asked.append("hang")
        return late(go_on)

    assert crew.ask({1: hang, 2: named(2)}, time.monotonic() + HASTY_S) == {2: "2"}
    assert crew.ask({1: hang, 2: named(2)}, time.monotonic() + PATIENT_S) == {2: "2"}
    assert asked == ["hang"]
    go_on.set()
    wait_until(lambda: not crew.busy())
    assert crew.ask({1: named(1)}, time.monotonic() + PATIENT_S) == {1: "1"}


def test_threads_that_came_in_for_others_end_again(crew: Crew[int, str]) -> None:
    go_on = Event()
    crew.ask({who: partial(late, go_on) for who in range(4)}, time.monotonic() + HASTY_S)
    assert len(own_threads()) == 4
    go_on.set()
    wait_until(lambda: not crew.busy())
    crew.ask({1: named(1)}, time.monotonic() + PATIENT_S)
    wait_until(lambda: len(own_threads()) == 1)
    crew.close()
    wait_until(lambda: not own_threads())


def own_threads() -> list[str]:
    return [thread.name for thread in threads() if thread.name.startswith("crew-under-test")]


def wait_until(holds: Callable[[], bool]) -> None:
    until_s = time.monotonic() + PATIENT_S
    while not holds():
        assert time.monotonic() < until_s
        time.sleep(0.01)
