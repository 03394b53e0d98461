"""Takes values from the spool to the broker, oldest first, and lets go of them when they are safe.

A topic that is missing, or takes no values, is set aside; the others go on. A broker that is away stops them all.
"""

import logging
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Protocol

from collectors.exposition import AgentMetrics
from collectors.runner import outgoing_message
from collectors.sender_flights import READ_AHEAD_BYTES, Flights
from collectors.spool import Evicted, Line, Outgoing, Spool, Spooled, SpoolError
from stream.clock import Clock
from stream.log import LogUnavailableError
from stream.messages import EventMessage
from stream.publish import Acknowledged, TopicRefusedError, UnansweredError
from stream.retry import StoppedError, retry_until_stopped
from stream.topics import EVENTS

logger = logging.getLogger(__name__)

_IDLE_S = 1.0  # what comes into the spool wakes the sender; this is for what comes due with time
_LOOK_S = 0.05
_CONFIRM_S = 1.0
_STOP_S = 5.0  # a client may wait some seconds for a broker that is away
_REPORTS = Line(urgent=True, topic=EVENTS.name)  # how gaps are told
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
        alone: bool = False,
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


class _TopicFailedError(LogUnavailableError):
    """One topic made everything under way fail; the broker is there."""


class Sender:
    """Publishes until stopped.

    With `confirmations`, a value leaves the spool when it is stored, not when it is acknowledged: that is for a broker
    that forgets on restart. After a failure what has no answer is sent again, and what comes after it; ingest drops
    what it has.

    A topic that takes no values is set aside for a pause that grows; then its oldest value is tried alone, and when
    that one is taken all others follow. Within a topic order is kept throughout.
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
        self._flights = Flights(limit_bytes=min(READ_AHEAD_BYTES, spool.limit_bytes // 2))
        self._outcomes: SimpleQueue[_Outcome | None] = SimpleQueue()  # None: there is something to send
        self._safe: list[int] = []  # numbers that may leave the spool
        self._produced: set[int] = set()  # numbers counted as produced and not yet removed
        self._acknowledged: defaultdict[tuple[str, int], deque[tuple[int, int]]] = defaultdict(deque)
        self._stop = Event()
        self._thread = Thread(target=self._run, name="sender", daemon=True)
        spool.on_added(self._wake)

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
        self._wake()
        self._thread.join(_STOP_S)
        if self._thread.is_alive() or len(self._flights):
            self._publisher.renew()
        else:
            self._publisher.close()

    def _wake(self) -> None:
        self._outcomes.put(None)

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
            sent = sum(self._send(line) for line in self._spool.lines())
            self._settle(wait_s=0.0 if sent else _IDLE_S)
            self._confirm()
        except LogUnavailableError as error:
            if not (self._start_over() or isinstance(error, _TopicFailedError)):
                self._metrics.broker_answers(up=False)
                raise

    def _report_evicted(self) -> None:
        """Say what had to make room, once somebody listens again: until then the gaps grow together."""
        now_s = self._clock.monotonic_s()
        if now_s < self._report_due_s or self._flights.is_aside(_REPORTS):
            return
        self._report_due_s = now_s + _REPORT_LOST_S
        gaps = self._spool.report_evicted(self._report)
        if gaps:
            logger.error("spool was full: oldest frames evicted", extra={"rows": sum(gap.rows for gap in gaps)})

    def _report(self, gap: Evicted) -> Outgoing:
        return outgoing_message(self._report_lost(gap))

    def _send(self, line: Line) -> int:
        """Send what there is room for; returns how much that was."""
        room = self._flights.room(line, self._clock.monotonic_s())
        if not room.values:
            return 0
        after = self._flights.cursor(line)
        values = self._spool.take(room.values, urgent=line.urgent, topic=line.topic, after=after, most_bytes=room.bytes)
        if values and not after:
            self._metrics.topic_blocked(line.topic, blocked=self._flights.is_aside(line))
        for position, value in enumerate(values):
            try:
                self._publish(value, alone=room.alone)
            except LogUnavailableError as error:
                self._spool.release([kept.number for kept in values[position:]], sent=False)
                if not isinstance(error, TopicRefusedError):
                    raise
                self._set_aside(line, error)
                return position
            self._flights.depart(line, value, alone=room.alone)
        return len(values)

    def _publish(self, value: Spooled, *, alone: bool) -> None:
        self._publisher.publish(
            value.topic,
            value.source,
            value.value,
            acknowledged=partial(_put_success, self._outcomes, value),
            failed=partial(_put_failure, self._outcomes, value),
            alone=alone,
        )

    def _settle(self, *, wait_s: float) -> None:
        """Take in what the broker said about values on their way.

        Where one of many failed, nothing that came after it may arrive: _TopicFailedError when that is its topic's own
        fault, or else LogUnavailableError.
        """
        arrived = list(self._arrived(wait_s))
        self._keep_account(arrived)
        shared, topic_failed = self._judge(arrived)
        if shared is not None:
            kind = _TopicFailedError if topic_failed else LogUnavailableError
            raise kind(f"publishing to {shared.sent.topic}: {shared.error}") from shared.error
        self._let_go()
        if any(outcome.at is not None for outcome in arrived):
            self._metrics.broker_answers(up=True)
            self._report_evicted()

    def _keep_account(self, outcomes: Sequence[_Outcome]) -> None:
        """Note what arrived."""
        now_s = self._clock.monotonic_s()
        arrived = [(outcome.sent, outcome.at) for outcome in outcomes if outcome.at is not None]
        for sent, at in arrived:
            flight = self._flights.land(sent.number, now_s)
            self._note_produced(sent)
            if flight.alone:
                self._open(flight.line)
            if self._confirmations is None:
                self._safe.append(sent.number)
            else:
                self._acknowledged[(sent.topic, at.partition)].append((at.offset, sent.number))
        if self._confirmations is not None:
            self._spool.release([sent.number for sent, _ in arrived], sent=True)

    def _judge(self, outcomes: Sequence[_Outcome]) -> tuple[_Outcome | None, bool]:
        """Turn back what failed, and set aside the lines whose own fault that is.

        Returns the first failure that others share, as they went by the same connection, and whether one of those was
        its topic's fault.
        """
        shared: _Outcome | None = None
        topic_failed = False
        refused: list[int] = []
        unsure: list[int] = []
        for outcome in outcomes:
            if outcome.error is None:
                continue
            at_fault = self._is_topics_fault(outcome)
            flight = self._flights.turn_back(outcome.sent.number)
            (refused if isinstance(outcome.error, TopicRefusedError) else unsure).append(flight.number)
            if flight.alone or (at_fault and not self._flights.is_aside(flight.line)):
                self._set_aside(flight.line, outcome.error)
            if not flight.alone:
                shared, topic_failed = shared or outcome, topic_failed or at_fault
        self._spool.release(unsure, sent=True)
        if refused:
            self._spool.release(refused, sent=False)
        return shared, topic_failed

    def _is_topics_fault(self, outcome: _Outcome) -> bool:
        """Whether a failure holds for one topic only: the broker says so, or answers for others meanwhile."""
        if isinstance(outcome.error, UnansweredError):
            flight = self._flights.of(outcome.sent.number)
            return self._flights.others_get_through(flight, self._clock.monotonic_s())
        return isinstance(outcome.error, TopicRefusedError)

    def _set_aside(self, line: Line, error: Exception) -> None:
        if self._flights.set_aside(line, self._clock.monotonic_s()):
            logger.warning("topic takes no values, the others go on: %s", error, extra={"topic": line.topic})
            self._metrics.topic_blocked(line.topic, blocked=True)

    def _open(self, line: Line) -> None:
        if self._flights.open(line):
            logger.info("topic takes values again", extra={"topic": line.topic})
            self._metrics.topic_blocked(line.topic, blocked=False)

    def _arrived(self, wait_s: float) -> Iterator[_Outcome]:
        """Outcomes that are there; waits for the first one, or for something to send."""
        with suppress(Empty):
            outcome = self._outcomes.get(timeout=wait_s) if wait_s else self._outcomes.get_nowait()
            while True:
                if outcome is not None:
                    yield outcome
                outcome = self._outcomes.get_nowait()

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
            self._flights.rewind()
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

    def _start_over(self) -> bool:
        """Go back to the oldest value without an answer; True when a topic turned out to be at fault.

        Late answers go to the old queue, which nobody reads.
        """
        self._publisher.renew()
        arrived = list(self._arrived(wait_s=0.0))
        self._outcomes = SimpleQueue()
        try:
            self._keep_account(arrived)
            _, topic_failed = self._judge(arrived)
        finally:  # a spool that refuses must not leave behind what nobody will answer for
            self._spool.release(self._flights.numbers, sent=True)
            self._flights.turn_all_back()
        return topic_failed


def _put_success(outcomes: "SimpleQueue[_Outcome | None]", sent: Spooled, at: Acknowledged) -> None:
    outcomes.put(_Outcome(sent, at=at))


def _put_failure(outcomes: "SimpleQueue[_Outcome | None]", sent: Spooled, error: Exception) -> None:
    outcomes.put(_Outcome(sent, error=error))
