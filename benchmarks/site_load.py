"""The load of a whole site, live: every frame as the tray's own agent would send it, from one process.

What the trays read is the simulator's, prepared beforehand: up to 250 trays for up to ten minutes. A tray of the site
takes the readings of one of them, each from another place on, under its own source, GPUs, times and sequence numbers.
Agents start at any time, so frames leave evenly over their period: ten seconds for `gpu`, thirty for `gpu_health`.

It is kinder to the broker than the agents are in one thing: frames of many of them share a batch and its compression.
They leave through librdkafka with the settings of the product's own client: that one would take a third of a core
here, and at a site it takes it on the trays.

`benchmarks.whole_site` starts it: `python -m benchmarks.site_load BOOTSTRAP GPUS SECONDS TICKS`. It says as a line of
JSON that it is ready, begins at the second that it is told on stdin, says what it sent, and ends when stdin does.
"""

import heapq
import math
import sys
import time
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from numpy.typing import NDArray

from benchmarks.kafka_race import CONFLUENT_PRODUCER, KEY_BYTES
from catalogue import GPU, GPU_HEALTH, ResourceKind, Table, layout_of, resource_id
from collectors.framer import Framer, FrameRule
from collectors.simulator import SimulatorSource
from collectors.source import Reading
from collectors.spool import Outgoing
from kvandal.serving import tell_parent
from simulation import Simulation, Site
from simulation.site import GPUS_PER_TRAY
from stream.clock import SystemClock
from stream.rows import Rows, join_rows, row_type

PREPARED_TRAYS = 250
PREPARED_S = 600
HEALTH_INTERVAL_S = 30
_WARM_UP_S = 3600  # of the simulated site: by then its jobs and temperatures are those of any hour
_LEAST_SLEEP_S = 0.05  # not one nap a frame, which wakes the producer each time: that late a frame may be on purpose
_FLUSH_S = 120.0


@dataclass(frozen=True, slots=True)
class Prepared:
    """Readings of one table, by tray and turn: a frame's rows as bytes, and how many of its readings are present.

    As bytes: numpy copies a structured array field by field, and lets the producer's thread go first.
    """

    packed: list[list[bytes]]
    present: list[list[int]]


@dataclass(frozen=True, slots=True)
class Line:
    """The frames of one table from all trays, evenly over their period; number N is of tray N modulo their count."""

    table: Table
    prepared: Prepared
    sources: list[int]
    gpus: NDArray[np.uint64]  # by tray
    ticks: int
    interval_s: int
    row_type: np.dtype[np.void] = field(init=False)
    ages_s: NDArray[np.int64] = field(init=False)  # of each tick's readings when the frame leaves, shape (ticks, 1)

    def __post_init__(self) -> None:
        # Looked up and made once: for every frame it would be the half of its cost.
        object.__setattr__(self, "row_type", row_type(layout_of(self.table)))
        object.__setattr__(self, "ages_s", np.arange(self.ticks - 1, -1, -1)[:, None] * self.interval_s)

    @property
    def period_s(self) -> int:
        return self.ticks * self.interval_s

    def due(self, seconds: int) -> Iterator[tuple[float, int, "Line"]]:
        """Seconds from the start at which each frame of the run leaves, and its number and line."""
        for number in range(len(self.sources) * seconds // self.period_s):
            yield self.period_s * number / len(self.sources), number, self

    def reading(self, number: int, last_tick_s: int) -> tuple[Reading, int]:
        """What the tray reads in that turn, its newest tick at `last_tick_s`; and how many readings are present."""
        turn, tray = divmod(number, len(self.sources))
        kinds, turns = len(self.prepared.packed), len(self.prepared.packed[0])
        kind, place = tray % kinds, (tray // kinds + turn) % turns
        rows = np.frombuffer(bytearray(self.prepared.packed[kind][place]), self.row_type)
        by_tick = rows.reshape(self.ticks, GPUS_PER_TRAY)
        by_tick["resource"] = self.gpus[tray]
        by_tick["time"] = last_tick_s - self.ages_s
        return Reading(self.sources[tray], self.table, rows, self.ticks), self.prepared.present[kind][place]


def prepare(trays: int, seconds: int, ticks: int) -> dict[Table, Prepared]:
    """Simulate so many trays for so long, at 1 Hz."""
    start_s = int(time.time()) // HEALTH_INTERVAL_S * HEALTH_INTERVAL_S
    source = SimulatorSource(Simulation(Site.build(trays * GPUS_PER_TRAY, 1), start_s - _WARM_UP_S, seed=1))
    parts: dict[Table, list[Rows]] = {GPU: [], GPU_HEALTH: []}
    for time_s in range(start_s, start_s + seconds):
        for reading in source.read(time_s):
            if reading.table in parts:
                parts[reading.table].append(reading.rows)
    return {GPU: _by_tray(GPU, parts[GPU], trays, ticks), GPU_HEALTH: _by_tray(GPU_HEALTH, parts[GPU_HEALTH], trays, 1)}


def _by_tray(table: Table, parts: list[Rows], trays: int, ticks: int) -> Prepared:
    """From rows in order of time, then tray, to those of each tray in frames of `ticks`."""
    by_time = join_rows(parts).reshape(-1, ticks, trays, GPUS_PER_TRAY)
    rows = np.ascontiguousarray(by_time.transpose(2, 0, 1, 3))
    present = sum((rows[m.column] != m.stored.absent).sum(axis=(2, 3)) for m in table.metrics)
    return Prepared([[turn.tobytes() for turn in tray] for tray in rows], np.asarray(present).tolist())


@dataclass(slots=True)
class Sent:
    """What became of the frames."""

    rows: Counter[str] = field(default_factory=Counter)
    present: Counter[str] = field(default_factory=Counter)
    frames: int = 0
    bytes: int = 0
    acknowledged: int = 0
    most_under_way: int = 0
    late_s: "array[float]" = field(default_factory=lambda: array("d"))
    answer_s: "array[float]" = field(default_factory=lambda: array("d"))
    errors: list[KafkaError] = field(default_factory=list)

    def count(self, frame: Outgoing, table: Table, present: int, late_s: float) -> None:
        self.rows[table.name] += frame.rows
        self.present[table.name] += present
        self.frames += 1
        self.bytes += len(frame.value)
        self.late_s.append(late_s)
        self.most_under_way = max(self.most_under_way, self.frames - self.acknowledged)

    def answer(self, error: KafkaError | None, message: Message) -> None:
        """The broker has a frame, or will not have it."""
        self.acknowledged += 1
        self.answer_s.append(message.latency() or 0.0)
        if error is not None:
            self.errors.append(error)

    def document(self) -> dict[str, object]:
        if self.errors:
            raise KafkaException(self.errors[0])
        if self.acknowledged != self.frames:
            raise RuntimeError(f"{self.frames} frames sent, {self.acknowledged} acknowledged")
        return {
            "rows": dict(self.rows),
            "present": dict(self.present),
            "frames": self.frames,
            "bytes": self.bytes,
            "most_under_way": self.most_under_way,
            "late_s": _spread(self.late_s),
            "answer_s": _spread(self.answer_s),
        }


def _spread(values: "array[float]") -> Mapping[str, float]:
    p50, p99, most = np.percentile(np.frombuffer(values), [50, 99, 100])
    return {"p50": round(float(p50), 4), "p99": round(float(p99), 4), "most": round(float(most), 4)}


def make_lines(gpus: int, seconds: int, ticks: int) -> list[Line]:
    """The frames of a site of `gpus`, from readings that are prepared now."""
    site = Site.build(gpus, 1)
    trays = min(PREPARED_TRAYS, site.trays)
    unit_s = math.lcm(ticks, HEALTH_INTERVAL_S)
    prepared = prepare(trays, -(-min(seconds, PREPARED_S) // unit_s) * unit_s, ticks)
    sources = [resource_id(ResourceKind.AGENT, f"{ResourceKind.TRAY} {one:016x}") for one in site.tray_ids.tolist()]
    return [
        Line(GPU, prepared[GPU], sources, site.gpu_ids, ticks, interval_s=1),
        Line(GPU_HEALTH, prepared[GPU_HEALTH], sources, site.gpu_ids, 1, interval_s=HEALTH_INTERVAL_S),
    ]


def send(lines: list[Line], producer: Producer, *, start_s: int, seconds: int) -> Sent:
    """Send everything at its time, and wait until the broker has it."""
    sent, clock = Sent(), SystemClock()
    framer = Framer(FrameRule(max(line.ticks for line in lines)), epoch_ms=clock.utc_ms(), clock=clock)
    for due_s, number, line in heapq.merge(*(line.due(seconds) for line in lines), key=lambda frame: frame[0]):
        wait_s = start_s + due_s - time.time()
        if wait_s > 0:
            producer.poll(0)
            time.sleep(max(wait_s, _LEAST_SLEEP_S))
        reading, present = line.reading(number, int(start_s + due_s))
        for frame in framer.add(reading, interval_s=line.interval_s):
            key = frame.source.to_bytes(KEY_BYTES, "little")
            producer.produce(frame.topic, frame.value, key, on_delivery=sent.answer)
            sent.count(frame, line.table, present, time.time() - start_s - due_s)
    producer.flush(_FLUSH_S)
    return sent


def main() -> None:
    bootstrap, gpus, seconds, ticks = sys.argv[1], *(int(argument) for argument in sys.argv[2:5])
    lines = make_lines(gpus, seconds, ticks)
    producer = Producer({"bootstrap.servers": bootstrap, **CONFLUENT_PRODUCER})
    tell_parent({"prepared": {line.table.name: sum(map(len, line.prepared.present)) for line in lines}})
    sent = send(lines, producer, start_s=int(sys.stdin.readline()), seconds=seconds)
    tell_parent(sent.document())
    sys.stdin.read()


if __name__ == "__main__":
    main()
