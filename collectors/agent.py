"""The agent: sources, spool and sender of one process, started and stopped in order."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from threading import Event

from prometheus_client import CollectorRegistry

from catalogue import ResourceKind, resource_id
from collectors.exposition import AgentMetrics
from collectors.framer import Framer, FrameRule
from collectors.runner import SourceRunner, StagedCounters, Wait, outgoing_message
from collectors.sender import Confirmations, Publisher, Sender
from collectors.source import Reading, Source
from collectors.spool import Evicted, Spool, Spooled
from stream.clock import Clock
from stream.messages import EventMessage, Message

logger = logging.getLogger(__name__)

_SPOOL_HIGH_BYTES = 128 << 20  # a backfill waits while so much is still to be sent


@dataclass(frozen=True, slots=True)
class ScheduledSource:
    """A source, how often it is read, and its counters where it keeps some."""

    source: Source
    interval_s: int
    counters: StagedCounters | None = None


class Agent:
    """Runs its sources until stopped. Nothing is produced before `start`; `stop` sends what is left."""

    def __init__(
        self,
        *,
        name: str,
        spool: Spool,
        publisher: Publisher,
        clock: Clock,
        registry: CollectorRegistry,
        frames: FrameRule,
        expose_readings: bool = True,
        confirmations: Confirmations | None = None,
        on_produced: Callable[[Spooled], None] = lambda _: None,
        wait: Wait = Event.wait,
    ) -> None:
        self._id = resource_id(ResourceKind.AGENT, name)
        self._spool = spool
        self._clock = clock
        self._frames = frames
        self._wait = wait
        self._epoch_ms = 0
        self._metrics = AgentMetrics(registry, spool, clock=clock, readings=expose_readings)
        self._runners: list[SourceRunner] = []
        self._sender = Sender(
            spool,
            publisher,
            clock=clock,
            metrics=self._metrics,
            report_lost=self._lost_event,
            on_produced=on_produced,
            confirmations=confirmations,
        )

    def start_sending(self) -> None:
        self._sender.start()

    def start(self, sources: Sequence[ScheduledSource]) -> None:
        """Read the sources at their ticks from now on."""
        epoch_ms = self._next_epoch_ms()
        for scheduled in sources:
            runner = SourceRunner(
                scheduled.source,
                self._spool,
                Framer(self._frames, epoch_ms=epoch_ms, clock=self._clock),
                interval_s=scheduled.interval_s,
                clock=self._clock,
                metrics=self._metrics,
                counters=scheduled.counters,
                wait=self._wait,
            )
            self._runners.append(runner)
            runner.start()

    def stop_reading(self, timeout_s: float) -> None:
        """Read no more; what waits in memory goes to the spool. `start` may follow, as a new epoch."""
        for runner in self._runners:
            runner.ask_to_stop()
        until_s = self._clock.monotonic_s() + timeout_s
        for runner in self._runners:
            runner.stop(max(until_s - self._clock.monotonic_s(), 0.0))
        self._runners = []

    def judge(self) -> None:
        """Say in the log which sources have begun or ceased to hang."""
        for runner in self._runners:
            runner.judge()

    def publish_messages(self, messages: Sequence[Message]) -> None:
        """Spool messages, which overtake readings."""
        self._spool.add([outgoing_message(message) for message in messages])

    def import_readings(
        self, chunks: Iterable[Sequence[Reading]], *, epoch_ms: int, wait: Callable[[float], object]
    ) -> None:
        """Spool history as fast as the sender takes it, a frame for every reading.

        The same readings under the same epoch are the same frames: however often they are sent, they
        are stored once.
        """
        framer = Framer(FrameRule(ticks=1), epoch_ms=epoch_ms, clock=self._clock)
        for readings in chunks:
            self._spool.add([frame for reading in readings for frame in framer.add(reading, interval_s=1)])
            while self._spool.size_bytes > _SPOOL_HIGH_BYTES:
                wait(0.05)

    def stop(self, *, read_timeout_s: float, drain_timeout_s: float) -> bool:
        """Stop reading, send what is spooled, stop sending; False when something is left in the spool."""
        self.stop_reading(read_timeout_s)
        drained = self._sender.drain(drain_timeout_s)
        self._sender.stop()
        if not drained:
            logger.warning("stopped with values in the spool; the next start sends them")
        return drained

    def _next_epoch_ms(self) -> int:
        """An epoch of its own for every start: sequences begin again with it."""
        self._epoch_ms = max(self._clock.utc_ms(), self._epoch_ms + 1)
        return self._epoch_ms

    def _lost_event(self, gap: Evicted) -> EventMessage:
        """A gap as an event: its count is rows, or messages where a topic has no rows."""
        what = f"{gap.rows} rows" if gap.rows else f"{gap.frames} messages"
        doubt = ", which may have reached the broker" if gap.sent else ""
        return EventMessage(
            id=f"lost/{gap.source:016x}/{gap.topic}/{gap.first_time}-{gap.last_time}/{self._clock.utc_ms()}",
            resource=gap.source,
            time_ms=gap.last_time * 1000,
            kind="readings_lost",
            count=gap.rows or gap.frames,
            text=f"spool was full: {what} of {gap.topic} evicted{doubt}",
            source=self._id,
            attributes={
                "topic": gap.topic,
                "first_time_s": str(gap.first_time),
                "last_time_s": str(gap.last_time),
                "frames": str(gap.frames),
                "certain": "no" if gap.sent else "yes",
            },
        )
