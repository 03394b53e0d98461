"""An agent whose readings are known to the last bit: frame `n` follows from the seed and `n` alone.

It uses the agent's own spool and sender. How many frames were produced is kept in the spool, in the same transaction as
the frames: after any kill, what was produced is exactly the frames below that number.
"""

import argparse
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import numpy as np
from prometheus_client import CollectorRegistry

from catalogue import GPU
from collectors.counters import KeptCounter
from collectors.exposition import AgentMetrics
from collectors.runner import outgoing_message
from collectors.sender import Sender
from collectors.spool import Evicted, Outgoing, Spool
from stream.client import KafkaAddress
from stream.clock import SystemClock
from stream.frame import seal
from stream.messages import EventMessage
from stream.publish import Publisher
from stream.rows import Rows
from tests.servers.stack import random_rows

SOURCES, RESOURCES, TICKS = 8, 8, 5
# Readings go by twelve times as fast as the clock: after two hours of a run they would be of the future, and refused.
STARTS_BEFORE_S = 86_400
EVENT_EVERY = 20  # frames
SPOOL_BYTES = 512 << 20
DRAIN_S = 240.0
_COUNT = "frames produced"


@dataclass(frozen=True, slots=True)
class Fleet:
    """Sources that take turns; frame `n` is the one of source n % SOURCES."""

    seed: int
    epoch_ms: int

    def source(self, number: int) -> int:
        return (self.seed << 20) + number % SOURCES

    def rows(self, number: int) -> Rows:
        first_s = self.epoch_ms // 1000 - STARTS_BEFORE_S + self.sequence(number)
        times = np.repeat(np.arange(first_s, first_s + TICKS), RESOURCES)
        resources = np.tile(np.arange(RESOURCES) + (self.source(number) << 8), TICKS).astype("<u8")
        return random_rows(GPU, resources, times, np.random.default_rng([self.seed, number]))

    def sequence(self, number: int) -> int:
        return number // SOURCES * TICKS

    def outgoing(self, number: int) -> list[Outgoing]:
        """The frame, and now and then an event that overtakes it."""
        rows, source = self.rows(number), self.source(number)
        value = seal(
            GPU, rows, source=source, epoch_ms=self.epoch_ms, sequence=self.sequence(number), ticks=TICKS,
            sent_ms=time.time_ns() // 1_000_000,
        )  # fmt: skip
        first_s, last_s = int(rows["time"][0]), int(rows["time"][-1])
        out = [Outgoing(GPU.topic, source, value, len(rows), first_s, last_s)]
        if number % EVENT_EVERY == 0:
            event = EventMessage(id=f"{self.seed}/{number}", resource=source, time_ms=first_s * 1000, kind="chaos")
            out.append(outgoing_message(event))
        return out

    @staticmethod
    def events(count: int) -> int:
        """How many events there are among the first `count` frames."""
        return -(-count // EVENT_EVERY)


def produced(spool: Spool) -> int:
    """How many frames a feeder has produced into this spool, whatever became of the feeder."""
    kept = spool.counter(_COUNT)
    return kept.raw if kept else 0


def feed(fleet: Fleet, spool: Spool, *, per_second: float, stop: Event) -> None:
    """Produce at a steady pace until `stop`."""
    number, started_s = produced(spool), time.monotonic()
    first = number
    while not stop.wait(max(0.0, started_s + (number - first) / per_second - time.monotonic())):
        number += 1
        spool.add(fleet.outgoing(number - 1), {_COUNT: KeptCounter(number, 0, 0)})


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.feeder", description=__doc__)
    parser.add_argument("--spool", type=Path, required=True)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--epoch-ms", type=int, required=True)
    parser.add_argument("--per-second", type=float, required=True)
    options = parser.parse_args()
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    spool = Spool(options.spool, limit_bytes=SPOOL_BYTES)
    sender = _sender(spool, options.bootstrap)
    sender.start()
    feed(Fleet(options.seed, options.epoch_ms), spool, per_second=options.per_second, stop=stop)
    drained = sender.drain(DRAIN_S)
    sender.stop()
    return 0 if drained else 1


def _sender(spool: Spool, bootstrap: str) -> Sender:
    clock, registry = SystemClock(), CollectorRegistry()

    def report_lost(gap: Evicted) -> EventMessage:
        raise AssertionError(f"the spool was full: {gap}")

    return Sender(
        spool,
        Publisher(KafkaAddress(bootstrap)),
        clock=clock,
        metrics=AgentMetrics(registry, spool, clock=clock, readings=False),
        report_lost=report_lost,
    )


if __name__ == "__main__":
    raise SystemExit(main())
