"""Takes values from the spool to the broker, oldest first, and lets go of them when they are safe."""

import logging
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Protocol

from collectors.exposition import AgentMetrics
from collectors.runner import outgoing_message
from collectors.spool import Evicted, Outgoing, Spool, Spooled, SpoolError
from stream.clock import Clock
from stream.log import LogUnavailableError
from stream.messages import EventMessage
from stream.publish import Acknowledged
from stream.retry import StoppedError, retry_until_stopped

logger = logging.getLogger(__name__)

_READ_AHEAD = 500  # values on their way at once: some seconds of a large node, a fraction of one of a site
_READ_AHEAD_BYTES = 16 << 20  # the client keeps a copy of each of them in memory
_IDLE_S = 0.25  # every wake costs the node some processor; an alarm may wait that long
_LOOK_S = 0.05
_CONFIRM_S = 1.0
_STOP_S = 5.0  # a client may wait a minute for a broker that is away
_REPORT_LOST_S = 10.0  # a spool that overflows for hours must not fill itself with reports of it


class Publisher(Protocol):
    """What the sender needs of stream.publish.Publisher."""

    def publish(
        self,
        topic: str,
        key: int,
        value: bytes,
        *,
        acknowledged: Callable[[Acknowledged], None],
        failed: Callable[[Exception], None],
    ) -> None: ...

    def renew(self) -> None: ...

    def close(self) -> None: ...


class Confirmations(Protocol):
    """How far the stored part of the log reaches, for brokers that keep nothing on disk."""

    def stored(self) -> Mapping[tuple[str, int], int]:
        """By topic and partition the offset below which everything is in the store. LogUnavailableError."""

    def log_was_renewed(self) -> bool:
        """Whether the topics were made anew since the last call: what they held is gone."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of a published value: acknowledged at a place, or failed."""

    sent: Spooled
    at: Acknowledged | None = None
    error: Exception | None = None


class Sender:
    """Publishes until stopped.

    With `confirmations`, a value leaves the spool when it is stored, not when it is acknowledged: that is for a broker
    that forgets on restart. After a failure what has no answer is sent again, and what comes after it; ingest drops
    what it has.
    """

    def __init__(
        self,
        spool: Spool,
        publisher: Publisher,
        *,
        clock: Clock,
        metrics: AgentMetrics,
        report_lost: Callable[[Evicted], EventMessage],
        on_produced: Callable[[Spooled], None] = lambda _: None,
        confirmations: Confirmations | None = None,
        retry_max_s: float = 10.0,
    ) -> None:
        self._spool = spool
        self._publisher = publisher
        self._clock = clock
        self._confirm_due_s = 0.0
        self._report_due_s = 0.0
        self._metrics = metrics
        self._report_lost = report_lost
        self._on_produced = on_produced
        self._confirmations = confirmations
        self._retry_max_s = retry_max_s
        # What is on its way may not make room: half of a small spool stays for what comes.
        self._most_bytes = min(_READ_AHEAD_BYTES, spool.limit_bytes // 2)
        self._outcomes: SimpleQueue[_Outcome] = SimpleQueue()
        self._flying: dict[int, tuple[bool, int]] = {}  # by number: urgent or not, and bytes
        self._flying_bytes = 0
        self._cursor = {True: 0, False: 0}  # by urgency: number of the last value sent
        self._safe: list[int] = []  # numbers that may leave the spool
        self._produced: set[int] = set()  # numbers counted as produced and not yet removed
        self._acknowledged: defaultdict[tuple[str, int], deque[tuple[int, int]]] = defaultdict(deque)
        self._stop = Event()
        self._thread = Thread(target=self._run, name="sender", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def drain(self, timeout_s: float) -> bool:
        """Wait until the spool is empty; False when time ran out, and what is left stays for the next start."""
        waited = Event()
        for _ in range(max(1, round(timeout_s / _LOOK_S))):
            if self._spool.is_empty() or not self._thread.is_alive():
                break
            waited.wait(_LOOK_S)
        return self._spool.is_empty()

    def stop(self) -> None:
        """Send no more. What has no answer stays in the spool; a client that does not return is left behind."""
        self._stop.set()
        self._thread.join(_STOP_S)
        if self._thread.is_alive() or self._flying:
            self._publisher.renew()
        else:
            self._publisher.close()

    def _run(self) -> None:
        with suppress(StoppedError):
            while not self._stop.is_set():
                retry_until_stopped(
                    self._round,
                    doing="sending",
                    stop=self._stop,
                    errors=(LogUnavailableError, SpoolError),
                    max_wait_s=self._retry_max_s,
                )

    def _round(self) -> None:
        """Send what there is to send, and let go of what is safe. LogUnavailableError: start over later."""
        try:
            self._let_go()
            sent = self._send(urgent=True) + self._send(urgent=False)
            self._settle(wait_s=0.0 if sent else _IDLE_S)
            self._confirm()
        except LogUnavailableError:
            self._metrics.broker_answers(up=False)
            self._start_over()
            raise

    def _report_evicted(self) -> None:
        """Say what had to make room, once somebody listens again: until then the gaps grow together."""
        now_s = self._clock.monotonic_s()
        if now_s < self._report_due_s:
            return
        self._report_due_s = now_s + _REPORT_LOST_S
        gaps = self._spool.report_evicted(self._report)
        if gaps:
            logger.error("spool was full: oldest frames evicted", extra={"rows": sum(gap.rows for gap in gaps)})

    def _report(self, gap: Evicted) -> Outgoing:
        return outgoing_message(self._report_lost(gap))

    def _send(self, *, urgent: bool) -> int:
        room, room_bytes = _READ_AHEAD - len(self._flying), self._most_bytes - self._flying_bytes
        if room <= 0 or room_bytes <= 0:
            return 0
        values = self._spool.take(room, urgent=urgent, after=self._cursor[urgent], most_bytes=room_bytes)
        for position, value in enumerate(values):
            try:
                self._publish(value)
            except LogUnavailableError:
                self._spool.release([kept.number for kept in values[position:]], sent=False)
                raise
            self._flying[value.number] = urgent, len(value.value)
            self._flying_bytes += len(value.value)
            self._cursor[urgent] = value.number
        return len(values)

    def _publish(self, value: Spooled) -> None:
        self._publisher.publish(
            value.topic,
            value.source,
            value.value,
            acknowledged=partial(_put_success, self._outcomes, value),
            failed=partial(_put_failure, self._outcomes, value),
        )

    def _settle(self, *, wait_s: float) -> None:
        """Take in what the broker said about values on their way; LogUnavailableError when it refused one."""
        arrived = list(self._arrived(wait_s))
        self._keep_account([(outcome.sent, outcome.at) for outcome in arrived if outcome.at is not None])
        self._let_go()
        failed = next((outcome for outcome in arrived if outcome.error is not None), None)
        if failed is not None:
            raise LogUnavailableError(f"publishing to {failed.sent.topic}: {failed.error}") from failed.error
        if arrived:
            self._metrics.broker_answers(up=True)
            self._report_evicted()

    def _keep_account(self, successes: list[tuple[Spooled, Acknowledged]]) -> None:
        for sent, at in successes:
            _, size = self._flying.pop(sent.number)
            self._flying_bytes -= size
            self._note_produced(sent)
            if self._confirmations is None:
                self._safe.append(sent.number)
            else:
                self._acknowledged[(sent.topic, at.partition)].append((at.offset, sent.number))
        if self._confirmations is not None:
            self._spool.release([sent.number for sent, _ in successes], sent=True)

    def _arrived(self, wait_s: float) -> Iterator[_Outcome]:
        """Outcomes that are there; waits for the first one."""
        with suppress(Empty):
            yield self._outcomes.get(timeout=wait_s) if wait_s else self._outcomes.get_nowait()
            while True:
                yield self._outcomes.get_nowait()

    def _note_produced(self, sent: Spooled) -> None:
        if sent.number not in self._produced:
            self._produced.add(sent.number)
            self._metrics.produced(sent.topic, sent.rows)
            self._on_produced(sent)

    def _confirm(self) -> None:
        """Let go of what ingest has stored; when the log itself was renewed, send everything again."""
        now_s = self._clock.monotonic_s()
        if self._confirmations is None or now_s < self._confirm_due_s:
            return
        self._confirm_due_s = now_s + _CONFIRM_S
        # In this order: positions that were asked before the log was found to be the old one belong to it.
        stored = self._confirmations.stored()
        if self._confirmations.log_was_renewed():
            self._acknowledged.clear()
            self._cursor = {True: 0, False: 0}
            raise LogUnavailableError("the broker has lost its log; sending again what was not stored")
        for place, waiting in self._acknowledged.items():
            while waiting and waiting[0][0] < stored.get(place, 0):
                self._safe.append(waiting.popleft()[1])
        self._let_go()

    def _let_go(self) -> None:
        """Remove what is safe; where the spool refuses, the next round tries again."""
        if self._safe:
            self._spool.remove(self._safe)
            self._produced.difference_update(self._safe)
            self._safe = []

    def _start_over(self) -> None:
        """Go back to the oldest value without an answer; late answers go to the old queue, which nobody reads."""
        self._publisher.renew()
        answered, self._outcomes = self._outcomes, SimpleQueue()
        with suppress(Empty):
            while True:
                outcome = answered.get_nowait()
                if outcome.at is not None:
                    self._keep_account([(outcome.sent, outcome.at)])
        self._spool.release(self._flying, sent=True)
        for number, (urgent, _) in self._flying.items():
            self._cursor[urgent] = min(self._cursor[urgent], number - 1)
        self._flying = {}
        self._flying_bytes = 0


def _put_success(outcomes: "SimpleQueue[_Outcome]", sent: Spooled, at: Acknowledged) -> None:
    outcomes.put(_Outcome(sent, at=at))


def _put_failure(outcomes: "SimpleQueue[_Outcome]", sent: Spooled, error: Exception) -> None:
    outcomes.put(_Outcome(sent, error=error))
