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
from collectors.spool import Evicted, Spool, Spooled, SpoolError
from stream.clock import Clock
from stream.log import LogUnavailableError
from stream.messages import EventMessage
from stream.publish import Acknowledged
from stream.retry import StoppedError, retry_until_stopped

logger = logging.getLogger(__name__)

_READ_AHEAD = 500  # values on their way at once: some seconds of a large node, a fraction of one of a site
_IDLE_S = 0.1
_CONFIRM_S = 1.0


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

    With `confirmations`, a value leaves the spool when it is stored, not when it is acknowledged:
    that is for a broker that forgets on restart. After a failure everything still in the spool is
    sent again; ingest drops what it has.
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
        self._metrics = metrics
        self._report_lost = report_lost
        self._on_produced = on_produced
        self._confirmations = confirmations
        self._retry_max_s = retry_max_s
        self._outcomes: SimpleQueue[_Outcome] = SimpleQueue()
        self._in_flight = 0
        self._cursor = {True: 0, False: 0}  # by urgency: number of the last value sent
        self._produced: set[int] = set()  # numbers counted as produced and not yet removed
        self._acknowledged: defaultdict[tuple[str, int], deque[tuple[int, int]]] = defaultdict(deque)
        self._stop = Event()
        self._thread = Thread(target=self._run, name="sender", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def drain(self, timeout_s: float) -> bool:
        """Wait until the spool is empty; False when time ran out, and what is left stays for the next start."""
        waited = Event()
        for _ in range(max(1, round(timeout_s / _IDLE_S))):
            if self._spool.is_empty() or not self._thread.is_alive():
                break
            waited.wait(_IDLE_S)
        return self._spool.is_empty()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
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
        self._account_for_evicted()
        sent = self._send(urgent=True) + self._send(urgent=False)
        try:
            self._settle(wait_s=0.0 if sent else _IDLE_S)
            self._confirm()
        except LogUnavailableError:
            self._start_over()
            raise

    def _account_for_evicted(self) -> None:
        evicted = self._spool.take_evicted()
        if evicted:
            self._metrics.evicted(evicted)
            logger.error("spool is full: oldest frames evicted", extra={"rows": sum(e.rows for e in evicted)})
            self._spool.add([outgoing_message(self._report_lost(account)) for account in evicted])

    def _send(self, *, urgent: bool) -> int:
        room = _READ_AHEAD - self._in_flight
        values = self._spool.oldest(room, urgent=urgent, after=self._cursor[urgent]) if room > 0 else []
        outcomes = self._outcomes
        for value in values:
            self._publisher.publish(
                value.topic,
                value.source,
                value.value,
                acknowledged=partial(_put_success, outcomes, value),
                failed=partial(_put_failure, outcomes, value),
            )
            self._cursor[urgent] = value.number
            self._in_flight += 1
        return len(values)

    def _settle(self, *, wait_s: float) -> None:
        """Take in what the broker said about values on their way."""
        safe = []
        for outcome in self._arrived(wait_s):
            self._in_flight -= 1
            if outcome.error is not None:
                raise LogUnavailableError(f"publishing to {outcome.sent.topic}: {outcome.error}") from outcome.error
            self._note_produced(outcome.sent)
            if self._confirmations is None:
                safe.append(outcome.sent.number)
            elif outcome.at is not None:
                place = (outcome.sent.topic, outcome.at.partition)
                self._acknowledged[place].append((outcome.at.offset, outcome.sent.number))
        self._let_go(safe)

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
        if self._confirmations.log_was_renewed():
            raise LogUnavailableError("the broker has lost its log; sending again what was not stored")
        stored = self._confirmations.stored()
        safe = []
        for place, waiting in self._acknowledged.items():
            while waiting and waiting[0][0] < stored.get(place, 0):
                safe.append(waiting.popleft()[1])
        self._let_go(safe)

    def _let_go(self, numbers: list[int]) -> None:
        if numbers:
            self._spool.remove(numbers)
            self._produced.difference_update(numbers)

    def _start_over(self) -> None:
        """Forget what is on its way; late answers go to the old queue, which nobody reads."""
        self._publisher.renew()
        self._outcomes = SimpleQueue()
        self._in_flight = 0
        self._cursor = {True: 0, False: 0}
        self._acknowledged.clear()


def _put_success(outcomes: "SimpleQueue[_Outcome]", sent: Spooled, at: Acknowledged) -> None:
    outcomes.put(_Outcome(sent, at=at))


def _put_failure(outcomes: "SimpleQueue[_Outcome]", sent: Spooled, error: Exception) -> None:
    outcomes.put(_Outcome(sent, error=error))
