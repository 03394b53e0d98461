"""Runs one source: aligned ticks, timing and verdict; a source that fails never stops another."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from threading import Event, Thread
from time import perf_counter

from collectors.counters import KeptCounter
from collectors.exposition import AgentMetrics
from collectors.framer import Framer
from collectors.source import Reading, Source
from collectors.spool import Outgoing, Spool, SpoolError
from stream.clock import Clock
from stream.messages import EventMessage, InventoryMessage, JobMessage, Message, encode_message
from stream.topics import EVENTS, INVENTORY, JOBS

logger = logging.getLogger(__name__)

_INVENTORY_S = 600.0  # names and places are said again this often, and when they change


_HELD_MESSAGES = 1000  # events that wait in memory while the spool refuses them


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

    Ticks are multiples of the interval since 1970 UTC. A tick that comes while the source is still
    busy is skipped and counted: catching up would stamp old readings with a new time.
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
    ) -> None:
        self._source = source
        self._spool = spool
        self._framer = framer
        self._interval_s = interval_s
        self._clock = clock
        self._metrics = metrics
        self._counters = counters
        self._up: bool | None = None
        self._held_messages: list[Outgoing] = []
        self._last_tick_s = 0
        self._inventory: Sequence[InventoryMessage] = ()
        self._inventory_due_s = 0.0
        self._stop = Event()
        self._thread = Thread(target=self._run, name=f"source-{source.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Read no more; what waits in memory goes to the spool. A source that hangs is left behind."""
        self._stop.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            logger.error("source does not return; leaving it behind", extra={"source": self._source.name})
            return
        self._source.close()
        # A source tells at its end what it still held back, such as the final counts of bursts.
        self._store(())

    def _run(self) -> None:
        while not self._stop.wait(self._until_next_tick_s()):
            self._tick(self._clock.utc_ms() // 1000 // self._interval_s * self._interval_s)
        self._store([], flush=True)

    def _until_next_tick_s(self) -> float:
        interval_ms = self._interval_s * 1000
        return (interval_ms - self._clock.utc_ms() % interval_ms) / 1000

    def _tick(self, time_s: int) -> None:
        if time_s <= self._last_tick_s:
            return  # the clock stepped back: two rows of one GPU must not share a second
        if self._last_tick_s:
            self._metrics.missed_ticks(self._source.name, (time_s - self._last_tick_s) // self._interval_s - 1)
        self._last_tick_s = time_s
        started_s = perf_counter()
        readings = self._read(time_s)
        self._metrics.read_took(self._source.name, perf_counter() - started_s)
        self._store(readings)

    def _read(self, time_s: int) -> Sequence[Reading]:
        """The seam where a source's failure ends: whatever it raises is its verdict, not our end."""
        try:
            readings = self._source.read(time_s)
        except Exception as error:
            self._judge(up=False, why=str(error) or type(error).__name__)
            return ()
        self._judge(up=True)
        return readings

    def _judge(self, *, up: bool, why: str = "") -> None:
        self._metrics.judged(self._source.name, up=up)
        if up and not self._up:
            logger.info("source answers", extra={"source": self._source.name})
        if not up and self._up is not False:  # said once, not at every tick
            logger.warning("source fails: %s", why, extra={"source": self._source.name})
        self._up = up

    def _store(self, readings: Sequence[Reading], *, flush: bool = False) -> None:
        frames = list(chain.from_iterable(self._frame(reading) for reading in readings))
        if flush:
            frames += self._framer.flush()
        messages = [*self._held_messages, *self._messages()]
        outgoing = [*frames, *messages]
        counters = self._counters.take() if self._counters and self._framer.is_empty else {}
        try:
            if outgoing or counters:
                self._spool.add(outgoing, counters)
            self._held_messages = []
            self._metrics.latest(readings)
        except SpoolError as error:
            self._held_messages = messages[-_HELD_MESSAGES:]
            self._metrics.lost(frames)
            logger.error("readings lost: %s", error, extra={"frames": len(frames), "rows": sum(f.rows for f in frames)})

    def _frame(self, reading: Reading) -> Iterator[Outgoing]:
        # A table that is read less often than its source has ticks further apart.
        return self._framer.add(reading, interval_s=max(self._interval_s, reading.table.cadence_s))

    def _messages(self) -> list[Outgoing]:
        messages: list[Message] = list(self._source.events())
        if self._clock.monotonic_s() >= self._inventory_due_s:
            self._inventory_due_s = self._clock.monotonic_s() + _INVENTORY_S
            self._inventory = self._source.inventory()
            messages += self._inventory
        return [outgoing_message(message) for message in messages]


def outgoing_message(message: Message) -> Outgoing:
    """A message on its way to its topic, keyed by its resource."""
    topics = {InventoryMessage: INVENTORY, EventMessage: EVENTS, JobMessage: JOBS}
    return Outgoing(topics[type(message)].name, message.resource, encode_message(message), urgent=True)
