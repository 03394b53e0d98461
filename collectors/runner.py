"""Runs one source: aligned ticks, timing and verdict; a source that fails or hangs never stops another."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from threading import Event, Lock, Thread
from time import perf_counter
from typing import TypeVar

from msgspec.structs import replace

from collectors.counters import KeptCounter
from collectors.exposition import AgentMetrics, SourceState
from collectors.framer import Framer
from collectors.source import ChangingSource, DeviceSource, Reading, Source, TimedSource, WakingSource
from collectors.spool import Outgoing, Spool, SpoolError
from collectors.ticks import Ticks
from stream.clock import Clock
from stream.messages import EventMessage, InventoryMessage, JobMessage, Message, encode_message, message_key
from stream.topics import EVENTS, INVENTORY, JOBS

logger = logging.getLogger(__name__)

_INVENTORY_S = 600.0  # names and places are said again this often, and when they change
_HELD_MESSAGES = 1000  # events that wait in memory while the spool refuses them
_DEADLINE_TICKS = 3  # without an answer for so many intervals a source counts as down
_WHY_CHARACTERS = 500  # of a failure, in the log and on the doctor's page
_WAKE_PAUSE_S = 0.05  # between two wakes: a source that calls for ever costs little

# Waits so many seconds or until the event is set, and says whether it is: Event.wait, but in tests.
Wait = Callable[[Event, float], bool]

Answer = TypeVar("Answer")
Otherwise = TypeVar("Otherwise")


class StagedCounters:
    """Device counters of one source, which become durable together with the rows that they belong to."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._staged: dict[str, KeptCounter] = {}

    def get(self, key: str) -> KeptCounter | None:
        return self._staged.get(key) or self._spool.counter(key)

    def put(self, counters: Mapping[str, KeptCounter]) -> None:
        self._staged |= counters

    def take(self) -> dict[str, KeptCounter]:
        """What was put since the last call."""
        staged, self._staged = self._staged, {}
        return staged


class SourceRunner:
    """Reads one source at every tick until stopped, and spools what it gives.

    A tick that comes while the source is still busy is skipped and counted: catching up would stamp old readings with
    a new time. A source that raises is judged and read again at the next tick; one that does not return is shown as
    down by its state, whoever asks. A source that wakes the runner has its events spooled at once, by a thread of their
    own: no tick is moved.
    """

    def __init__(
        self,
        source: Source,
        spool: Spool,
        framer: Framer,
        *,
        interval_s: int,
        clock: Clock,
        metrics: AgentMetrics,
        counters: StagedCounters | None = None,
        wait: Wait = Event.wait,
    ) -> None:
        self._source = source
        # Asked once: to look whether a source has a method takes longer than most of the methods do.
        self._timed = source if isinstance(source, TimedSource) else None
        self._many = source if isinstance(source, DeviceSource) else None
        self._changing = source if isinstance(source, ChangingSource) else None
        self._spool = spool
        self._framer = framer
        self._interval_s = interval_s
        self._clock = clock
        self._metrics = metrics
        self._counters = counters
        self._wait = wait
        self._ticks = Ticks(interval_s, clock, used=_used_before(spool, source.name))
        self._state = SourceState(source.name, clock.monotonic_s(), deadline_s=_DEADLINE_TICKS * interval_s)
        self._held_messages: list[Outgoing] = []
        self._inventory_due_s = 0.0
        self._failure = ""  # the first one since the last verdict
        self._was_up: bool | None = None
        self._lock = Lock()  # around what is framed: a source that hangs is left behind, its readings are not
        self._events_lock = Lock()  # events are asked for by one thread at a time, and spooled in their order
        self._left_behind = False
        self._stop = Event()
        self._woken = Event()
        self._thread = Thread(target=self._run, name=f"source-{source.name}", daemon=True)
        self._waker: Thread | None = None

    def start(self) -> None:
        self._metrics.watch(self._state)
        if isinstance(self._source, WakingSource):
            self._waker = Thread(target=self._heed_wakes, name=f"wake-{self._source.name}", daemon=True)
            self._ask(partial(self._source.set_wake, self._woken.set), otherwise=None)
            self._waker.start()
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Read no more; does not wait."""
        self._stop.set()
        self._woken.set()

    def stop(self, timeout_s: float) -> None:
        """Read no more; what waits in memory goes to the spool. A source that hangs is left behind."""
        self.ask_to_stop()
        self._thread.join(timeout_s)
        if self._waker is not None:
            self._waker.join(0.0 if self._thread.is_alive() else timeout_s)
        if self._thread.is_alive() or (self._waker is not None and self._waker.is_alive()):
            logger.error("source does not return; leaving it behind", extra={"source": self._source.name})
            with self._lock:
                self._left_behind = True
                self._spool_all((), (), flush=True)
        else:
            self._close()
        self._metrics.forget(self._state)

    def judge(self) -> None:
        """Say in the log when the source has begun or ceased to hang or fail."""
        up, why = self._state.verdict(self._clock.monotonic_s())
        if up is None or up == self._was_up:
            return
        self._was_up = up
        if up:
            logger.info("source answers", extra={"source": self._source.name})
        else:
            logger.warning("source fails: %s", why, extra={"source": self._source.name})

    def _run(self) -> None:
        while not self._wait(self._stop, self._ticks.wait_s()):
            self._tick()
        self._store((), flush=True)

    def _heed_wakes(self) -> None:
        while not self._stop.is_set():
            self._woken.wait()
            self._woken.clear()
            with self._events_lock:
                messages = self._outgoing(self._ask(self._events, otherwise=()))
                with self._lock:
                    if not self._left_behind:
                        self._spool_messages(messages)
            self._stop.wait(_WAKE_PAUSE_S)

    def _close(self) -> None:
        try:
            self._source.close()
        except Exception as error:
            logger.warning("source does not close: %s", error, extra={"source": self._source.name})
        # A source tells at its end what it still held back, such as the final counts of bursts.
        self._store((), flush=True)

    def _tick(self) -> None:
        tick = self._ticks.next()
        self._metrics.missed_ticks(self._source.name, busy=tick.busy, clock=tick.clock)
        if tick.time_s is None:
            return
        self._state.asked(self._clock.monotonic_s())
        started_s = perf_counter()
        readings = self._ask(partial(self._read, tick.time_s), otherwise=())
        self._metrics.read_took(self._source.name, perf_counter() - started_s)
        self._ask(self._show_devices, otherwise=None)
        self._store(readings, self._inventory())
        self._give_verdict()

    def _ask(self, question: Callable[[], Answer], *, otherwise: Otherwise) -> Answer | Otherwise:
        """The seam where a source's failure ends: whatever it raises is its verdict, not our end."""
        try:
            return question()
        except Exception as error:
            self._failed(str(error) or type(error).__name__)
            return otherwise

    def _failed(self, why: str) -> None:
        self._failure = self._failure or why[:_WHY_CHARACTERS]

    def _give_verdict(self) -> None:
        """Once a tick, on all that was asked: a source that can read but not tell its events must not flap."""
        failure, self._failure = self._failure, ""
        if failure:
            self._state.failed(failure)
        else:
            self._state.answered(self._clock.monotonic_s())
        self.judge()

    def _read(self, time_s: int) -> Sequence[Reading]:
        return [reading for reading in self._source.read(time_s) if len(reading.rows)]

    def _events(self) -> Sequence[Message]:
        return list(self._source.events())

    def _show_devices(self) -> None:
        if self._left_behind:
            return
        if self._timed is not None:
            self._metrics.timings(self._source.name, self._timed.timings())
        if self._many is not None:
            self._metrics.devices(self._source.name, list(self._many.devices()))

    def _store(
        self, readings: Sequence[Reading], inventory: Sequence[InventoryMessage] = (), *, flush: bool = False
    ) -> None:
        with self._events_lock:
            messages = self._outgoing([*self._ask(self._events, otherwise=()), *inventory])
            self._state.returned()
            with self._lock:
                if not self._left_behind:
                    self._spool_all(readings, messages, flush=flush)

    def _spool_all(self, readings: Sequence[Reading], messages: Sequence[Outgoing], *, flush: bool) -> None:
        frames = list(chain.from_iterable(self._frame(reading) for reading in readings))
        if flush:
            frames += self._framer.flush()
        counters = self._kept() if self._framer.is_empty else {}
        try:
            self._add(frames, messages, counters)
            self._metrics.latest(readings, interval_s=self._interval_s)
        except SpoolError as error:
            self._metrics.lost(frames)
            logger.error("readings lost: %s", error, extra={"frames": len(frames), "rows": sum(f.rows for f in frames)})

    def _spool_messages(self, messages: Sequence[Outgoing]) -> None:
        """Between two ticks, so without counters: they belong to rows that are still to come."""
        with suppress(SpoolError):  # they are held, and the next tick will say that the spool refuses
            self._add((), messages, {})

    def _add(
        self, frames: Sequence[Outgoing], messages: Sequence[Outgoing], counters: Mapping[str, KeptCounter]
    ) -> None:
        """Spool all of it, or hold the messages for the next time and raise SpoolError."""
        messages, self._held_messages = [*self._held_messages, *messages], []
        try:
            if frames or messages or counters:
                self._metrics.evicted(self._spool.add([*frames, *messages], counters))
        except SpoolError:
            self._held_messages = messages[-_HELD_MESSAGES:]
            raise

    def _kept(self) -> dict[str, KeptCounter]:
        """Counters, and the ticks that were read, as of the rows that are spooled with them."""
        counters = self._counters.take() if self._counters else {}
        used = self._ticks.used
        return counters | {_ticks_key(self._source.name): KeptCounter(used[1], used[0], used[1])} if used else counters

    def _frame(self, reading: Reading) -> Iterator[Outgoing]:
        # A table that is read less often than its source has ticks further apart.
        try:
            yield from self._framer.add(reading, interval_s=max(self._interval_s, reading.table.cadence_s))
        except ValueError as error:  # more rows than a frame holds: this reading is lost, not the source
            self._failed(str(error))
            self._metrics.lost([Outgoing(reading.table.topic, reading.source, b"", len(reading.rows))])

    def _signed(self, message: InventoryMessage) -> InventoryMessage:
        """The word with the kind of source that says it: sources are believed by rank where they differ."""
        return replace(message, attributes={"told_by": self._source.name} | message.attributes)

    def _inventory(self) -> Sequence[InventoryMessage]:
        """What the source measures, when it is time to say so: also while it could not say it, and when it changed."""
        now_s = self._clock.monotonic_s()
        changed = self._changing is not None and self._ask(self._changing.inventory_changed, otherwise=False)
        if not changed and now_s < self._inventory_due_s:
            return ()
        inventory = self._ask(lambda: [self._signed(message) for message in self._source.inventory()], otherwise=())
        self._inventory_due_s = now_s + _INVENTORY_S if inventory else now_s
        return inventory

    def _outgoing(self, messages: Sequence[Message]) -> list[Outgoing]:
        """The messages on their way; one that cannot be written as JSON is the source's failure, and lost alone."""
        encoded = [self._ask(partial(outgoing_message, message), otherwise=None) for message in messages]
        return [message for message in encoded if message is not None]


def outgoing_message(message: EventMessage | InventoryMessage | JobMessage) -> Outgoing:
    """A message on its way to its topic."""
    topics = {InventoryMessage: INVENTORY, EventMessage: EVENTS, JobMessage: JOBS}
    return Outgoing(topics[type(message)].name, message_key(message), encode_message(message), urgent=True)


def _ticks_key(source: str) -> str:
    return f"ticks/{source}"


def _used_before(spool: Spool, source: str) -> tuple[int, int] | None:
    """First and last second that the source read before a restart; the spool keeps them like a counter."""
    kept = spool.counter(_ticks_key(source))
    return (kept.carry, kept.raw) if kept else None
