"""Many devices read at once: each has a state of its own, and none can hold up its neighbours.

A building has hundreds of devices that answer slowly, wrongly or not at all, some of them always. The pool gives every
device a deadline, asks one that does not answer less and less often, and says in one log line for how many that is so.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from time import perf_counter
from typing import Generic, TypeVar

from collectors.devices import DeviceError, DeviceReport, DeviceState
from stream.clock import Clock

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 10.0  # before a device that failed is asked again; doubled each time it fails
LONGEST_PAUSE_S = 300.0
_OWN_SHARE = 0.9  # of a deadline: a device that had less of it was held up by others
TELL_S = 60.0  # between two reports of changes in the log: a device that comes and goes must not fill it
MAX_WHY_CHARACTERS = 500  # a device may say what it likes
_NAMED_DEVICES = 5  # in one log line

Answer = TypeVar("Answer")
Result = TypeVar("Result")


@dataclass(slots=True)
class _Seat(Generic[Answer]):
    """What is known of one device. Written by the polling thread, but `begun_s`."""

    read: Callable[[], Answer]
    state: DeviceState = DeviceState.UNKNOWN
    told: DeviceState = DeviceState.UNKNOWN  # what the log says
    why: str = ""
    took_s: float | None = None
    failures: int = 0
    due_s: float = 0.0  # monotonic, as below
    asked_s: float = 0.0  # when it last had its turn
    begun_s: float = float("inf")  # when a worker took up what is under way, by perf_counter
    under_way: "Future[tuple[Answer, float]] | None" = None

    def call(self) -> tuple[Answer, float]:
        """Read the device, on a worker's thread; returns the answer and the seconds that it took."""
        self.begun_s = perf_counter()
        return self.read(), perf_counter() - self.begun_s


class DevicePool(Generic[Answer]):
    """Reads devices side by side on `workers` threads, each for `deadline_s` at most.

    `devices` maps names to functions that read one of them: they return the answer or raise DeviceError; any other
    exception counts as nonsense. A device that is still busy is not asked again before it has returned. So that a
    device which hangs gives its thread back, a read must have time-outs of its own below the deadline.
    """

    def __init__(
        self, devices: Mapping[str, Callable[[], Answer]], *, source: str, workers: int, deadline_s: float, clock: Clock
    ) -> None:
        self._seats = {name: _Seat(read) for name, read in devices.items()}
        self._source = source
        self._deadline_s = deadline_s
        self._clock = clock
        self._tell_due_s = 0.0  # monotonic
        self._workers = _Workers(min(workers, len(devices)), name=f"{source}-device")

    def poll(self) -> dict[str, Answer]:
        """The answers of the devices that answered in time, by name. A late answer is dropped: it has no tick."""
        self._judge_late()
        asked = {name: seat for name, seat in self._seats.items() if self._is_due(seat)}
        # Those first that have waited longest: where the workers do not suffice, everyone has a turn.
        for seat in sorted(asked.values(), key=lambda seat: seat.asked_s):
            seat.begun_s = float("inf")
            seat.under_way = self._workers.submit(seat.call)
        wait([seat.under_way for seat in asked.values() if seat.under_way], timeout=self._deadline_s)
        answers = {name: answer for name, seat in asked.items() if (answer := self._take(seat)) is not None}
        self._tell_changes()
        return answers

    def reports(self) -> list[DeviceReport]:
        """How each device does. Any thread may ask."""
        return [DeviceReport(name, seat.state, seat.why, seat.took_s) for name, seat in self._seats.items()]

    def close(self) -> None:
        """Ask no more; does not wait for devices that hang."""
        self._workers.close()

    def _is_due(self, seat: _Seat[Answer]) -> bool:
        return seat.under_way is None and self._clock.monotonic_s() >= seat.due_s

    def _judge_late(self) -> None:
        """Those that missed the deadline of an earlier poll and have returned since may be asked again."""
        for seat in self._seats.values():
            if seat.under_way is not None and seat.under_way.done():
                seat.under_way = None
            elif seat.under_way is not None and not seat.failures and perf_counter() - seat.begun_s > self._deadline_s:
                self._failed(seat, DeviceState.SLOW, f"no answer within {self._deadline_s:g} s")

    def _take(self, seat: _Seat[Answer]) -> Answer | None:
        under_way = seat.under_way
        if under_way is None or under_way.cancel():
            seat.under_way = None
            self._held_up(seat)
            return None
        if not under_way.done() and perf_counter() - seat.begun_s < _OWN_SHARE * self._deadline_s:
            self._held_up(seat)
            return None
        seat.asked_s = self._clock.monotonic_s()
        if not under_way.done():
            self._failed(seat, DeviceState.SLOW, f"no answer within {self._deadline_s:g} s")
            return None
        seat.under_way = None
        try:
            answer, seat.took_s = under_way.result()
        except DeviceError as error:
            self._failed(seat, error.state, str(error))
        except Exception as error:  # the seam where a device's driver ends
            self._failed(seat, DeviceState.NONSENSE, f"{type(error).__name__}: {error}")
        else:
            seat.state, seat.why, seat.failures, seat.due_s = DeviceState.OK, "", 0, 0.0
            return answer
        return None

    def _failed(self, seat: _Seat[Answer], state: DeviceState, why: str) -> None:
        """The first failure costs nothing: the device is asked again at the next tick, then after growing pauses."""
        pause_s = min(FIRST_PAUSE_S * 2 ** (seat.failures - 1), LONGEST_PAUSE_S) if seat.failures else 0.0
        seat.failures = min(seat.failures + 1, 30)
        seat.state, seat.why, seat.took_s = state, why[:MAX_WHY_CHARACTERS], None
        seat.due_s = self._clock.monotonic_s() + pause_s

    def _held_up(self, seat: _Seat[Answer]) -> None:
        """Its turn came late, or not at all. That is not the device's fault: it need not wait longer for the next."""
        seat.state, seat.took_s = DeviceState.SLOW, None
        seat.why = f"its turn did not come within {self._deadline_s:g} s: other devices kept all workers busy"

    def _tell_changes(self) -> None:
        """Log what is otherwise than the log says; the first change at once, what follows it within a minute later."""
        now_s = self._clock.monotonic_s()
        if now_s < self._tell_due_s:
            return
        changed: defaultdict[DeviceState, list[str]] = defaultdict(list)
        for name, seat in self._seats.items():
            if seat.state is not seat.told and (seat.told, seat.state) != (DeviceState.UNKNOWN, DeviceState.OK):
                changed[seat.state].append(name)
            seat.told = seat.state
        for state, names in changed.items():
            self._tell_due_s = now_s + TELL_S
            level = logging.INFO if state is DeviceState.OK else logging.WARNING
            why = self._seats[names[0]].why
            logger.log(level, "devices are %s now%s", state.value, f": {why}" if why else "", extra=self._fields(names))

    def _fields(self, names: Sequence[str]) -> dict[str, object]:
        more = f" and {len(names) - _NAMED_DEVICES} more" if len(names) > _NAMED_DEVICES else ""
        return {"source": self._source, "count": len(names), "devices": ", ".join(names[:_NAMED_DEVICES]) + more}


class _Workers:
    """Threads that do one task after another; daemons, since an executor's outlive the process while one hangs."""

    def __init__(self, limit: int, *, name: str) -> None:
        self._limit = limit
        self._name = name
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[Thread] = []
        self._closed = False

    def submit(self, call: Callable[[], Result]) -> "Future[Result]":
        future: Future[Result] = Future()
        self._tasks.put(lambda: _fulfil(future, call))
        if len(self._threads) < self._limit:
            thread = Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        return future

    def close(self) -> None:
        """Begin nothing more; does not wait."""
        self._closed = True
        for _ in self._threads:
            self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None and not self._closed:
            task()


def _fulfil(future: "Future[Result]", call: Callable[[], Result]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except Exception as error:
        future.set_exception(error)
    except BaseException as error:  # asyncio's cancellation, or sys.exit: not the polling thread's end
        future.set_exception(RuntimeError(f"{type(error).__name__}: {error}"))
