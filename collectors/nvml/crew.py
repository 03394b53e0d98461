"""Calls that may hang, made one after another on as few threads as that takes.

A call that does not return keeps its thread, and another thread goes on with the calls that wait. While nothing hangs
there is one: eight threads that take turns at the interpreter cost more processor than what they do.
"""

import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Set
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

Who = TypeVar("Who", bound=Hashable)
Answer = TypeVar("Answer")

PATIENCE = 0.5  # of a round's time, shared by its calls: even if each of them hangs, all have begun by half of it


class _Round(Generic[Who, Answer]):
    """Calls that are made together; any number of threads may work at them."""

    def __init__(self, calls: Mapping[Who, Callable[[], Answer]]) -> None:
        self.answers: dict[Who, Answer] = {}
        self._asked = calls.keys()
        self._waiting = deque(calls.items())
        self._end: SimpleQueue[None] = SimpleQueue()  # cheaper to wait for than an Event

    @property
    def is_waiting(self) -> bool:
        """Whether there is a call that no thread has begun."""
        return bool(self._waiting)

    def work(self) -> None:
        """Make calls until none waits."""
        with suppress(IndexError):
            while True:
                who, call = self._waiting.popleft()
                self.answers[who] = call()
                if len(self.answers) == len(self._asked):
                    self._end.put(None)

    def has_ended(self, *, by_s: float) -> bool:
        """Whether all have answered; waits for it until then, in monotonic seconds."""
        with suppress(Empty):
            self._end.get(timeout=max(by_s - time.monotonic(), 0.0))
            return True
        return False

    def give_up(self) -> Set[Who]:
        """Begin no more calls; returns whose call has begun and not returned."""
        withdrawn = set()
        with suppress(IndexError):
            while True:
                withdrawn.add(self._waiting.pop()[0])
        return self._asked - withdrawn - self.answers.keys()


class Crew(Generic[Who, Answer]):
    """Makes calls for one thread, which asks. Daemonic: a call that never returns must not keep the process alive."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._rounds: SimpleQueue[_Round[Who, Answer] | None] = SimpleQueue()
        self._threads = 0  # but for those that have been told to end
        self._late: dict[Who, _Round[Who, Answer]] = {}

    def busy(self) -> Set[Who]:
        """Whose call has not returned, though its round is over."""
        self._late = {who: its for who, its in self._late.items() if who not in its.answers}
        return self._late.keys()

    def ask(self, calls: Mapping[Who, Callable[[], Answer]], until_s: float) -> Mapping[Who, Answer]:
        """What was answered before `until_s`, in monotonic seconds. Who is busy is not asked. A call must not raise."""
        busy = self.busy()
        asked = {who: call for who, call in calls.items() if who not in busy}
        return self._answers(_Round(asked), until_s, share=PATIENCE / len(asked)) if asked else {}

    def _answers(self, asked: _Round[Who, Answer], until_s: float, *, share: float) -> Mapping[Who, Answer]:
        patience_s = (until_s - time.monotonic()) * share
        threads = len(self._late) + 1
        self._engage(asked, threads)
        while not asked.has_ended(by_s=min(time.monotonic() + patience_s, until_s)) and time.monotonic() < until_s:
            if asked.is_waiting:
                threads += 1
                self._engage(asked, threads)
        self._late |= dict.fromkeys(asked.give_up(), asked)
        self._dismiss(self._threads - threads)  # those that came in stay as long as every round needs them
        return dict(asked.answers)

    def _engage(self, asked: _Round[Who, Answer], threads: int) -> None:
        """Have one more thread at work, of so many that this takes in all."""
        if self._threads < threads:
            self._threads += 1
            Thread(target=self._work, name=f"{self._name}-{self._threads}", daemon=True).start()
        self._rounds.put(asked)

    def _dismiss(self, threads: int) -> None:
        for _ in range(threads):
            self._rounds.put(None)
            self._threads -= 1

    def close(self) -> None:
        """Let the threads end, each after its present call if it has one. Nothing may be asked any more."""
        self._dismiss(self._threads)

    def _work(self) -> None:
        for asked in iter(self._rounds.get, None):
            asked.work()
