"""Everything around ingest, made of memory: a broker, a store and plans that outlive it, and faults at every call."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from uuid import UUID

import numpy as np
from prometheus_client import CollectorRegistry

from catalogue import GPU
from stream.batch import Record, Rejected
from stream.frame import seal
from stream.health import SourceHealth, StormRule
from stream.ingest import Ingest, IngestRules, Insert
from stream.lane import CutRule
from stream.log import Bounds, Partition
from stream.metrics import IngestMetrics
from stream.plan import FencedError, Plan, Range, Save, Standing
from stream.rows import Rows, pack

NOW_MS = 1_760_000_000_000
FIRST_TICK_S = 1_759_999_000
EPOCH_MS = 1_759_990_000_000
TOPIC = GPU.topic
RUBBISH = b"rubbish"
TOPIC_ID = UUID(int=7)
TICKS = 2
RULES = IngestRules(cut=CutRule(rows=6, age_s=1.0), poll_s=0.2, retry_max_s=0.001)
# Rubbish is part of these tests; only those about storms want one.
PATIENT = StormRule(least_sources=1000)
WRITING = ("save", "done", "rows", "frames", "letters")
READING = ("standing", "seen", "bounds", "seek", "poll")
MOST_POLLS = 10_000  # a test that needs more is stuck


class Crash(BaseException):
    """The process ends here, as by SIGKILL."""


@dataclass(slots=True)
class FakeClock:
    now_s: float = 1000.0

    def utc_ms(self) -> int:
        return NOW_MS + int(self.now_s * 1000) % 1_000_000

    def monotonic_s(self) -> float:
        return self.now_s


@dataclass(slots=True)
class Faults:
    """What goes wrong, by kind of call: one entry for each call, then nothing more.

    `away` and `crash` come before the call had its effect, `away after` and `crash after` when it had.
    """

    script: dict[str, list[str]] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)

    def next(self, kind: str) -> str:
        self.calls[kind] += 1
        waiting = self.script.get(kind)
        return waiting.pop(0) if waiting else ""

    def around(self, kind: str, effect: Callable[[], None]) -> None:
        fault = self.next(kind)
        _strike(fault, "")
        effect()
        _strike(fault, " after")


def _strike(fault: str, when: str) -> None:
    if fault == f"away{when}":
        raise ConnectionError("away")
    if fault == f"crash{when}":
        raise Crash
    if fault == f"refused{when}":
        raise ValueError("column surprise is missing; run `kvandal schema diff`")


@dataclass(slots=True)
class FakeBroker:
    """The log itself, which outlives every reader."""

    topic_id: UUID = TOPIC_ID
    topic: str = TOPIC
    logs: dict[int, list[bytes]] = field(default_factory=dict)
    first: dict[int, int] = field(default_factory=dict)

    def append(self, partition: int, *values: bytes) -> None:
        self.logs.setdefault(partition, []).extend(values)

    @property
    def partitions(self) -> frozenset[Partition]:
        return frozenset(Partition(self.topic, number) for number in self.logs)


class FakeLog:
    """A reader of FakeBroker that owns all partitions; stops ingest once `until` holds."""

    def __init__(
        self, broker: FakeBroker, clock: FakeClock, faults: Faults, *, stop: Event, until: Callable[[], bool], most: int
    ) -> None:
        self._broker, self._clock, self._faults = broker, clock, faults
        self._stop, self._until, self._most = stop, until, most
        self._positions: dict[Partition, int] = {}
        self._lost: frozenset[Partition] = frozenset()
        self._gained = broker.partitions
        self._topic_id = broker.topic_id
        self._paused = False
        self._polls = 0
        self.pauses: list[bool] = []

    def poll(self, timeout_s: float) -> Mapping[Partition, Sequence[Record]]:
        self._polls += 1
        assert self._polls < MOST_POLLS, "ingest makes no progress"
        self._clock.now_s += timeout_s
        if self._until():
            self._stop.set()
        fault = self._faults.next("poll")
        _strike(fault, "")
        if fault == "rebalance":
            self._lost = self._gained = self._broker.partitions
            self._positions = {}
        polled = {} if self._paused else {p: self._take(p) for p in list(self._positions)}
        if not any(polled.values()):
            time.sleep(0.0002)  # let the writer's thread go on
        return {partition: records for partition, records in polled.items() if records}

    def _take(self, partition: Partition) -> list[Record]:
        log, position = self._broker.logs[partition.number], self._positions[partition]
        taken = [Record(partition.number, n, log[n]) for n in range(position, min(position + self._most, len(log)))]
        self._positions[partition] = position + len(taken)
        return taken

    def take_changes(self) -> tuple[frozenset[Partition], frozenset[Partition]]:
        lost, gained = self._lost, self._gained
        self._lost = self._gained = frozenset()
        return lost, gained

    def topic_id(self, topic: str) -> UUID:
        assert topic == self._broker.topic
        if self._topic_id != self._broker.topic_id:
            self._topic_id = self._broker.topic_id
            self._lost = self._gained = self._broker.partitions
        return self._topic_id

    def has_read(self, partition: int, offset: int) -> bool:
        return self._positions.get(Partition(self._broker.topic, partition), 0) > offset

    def bounds(self, partition: Partition) -> Bounds | None:
        _strike(self._faults.next("bounds"), "")
        return Bounds(self._broker.first.get(partition.number, 0), len(self._broker.logs[partition.number]))

    def seek(self, partition: Partition, offset: int) -> None:
        _strike(self._faults.next("seek"), "")
        self._positions[partition] = offset

    def pause(self, *, paused: bool) -> None:
        _strike(self._faults.next("pause"), "")
        self.pauses.append(paused)
        self._paused = paused

    def close(self) -> None:
        """Nothing is open."""


@dataclass(slots=True)
class FakePlans:
    """Where plans are written down; outlives every owner. Each owner's `generation` is what it was when it came."""

    joined: bool = False
    generation: int = 0
    made: list[Plan] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)
    on_end: Callable[[], None] = lambda: None


@dataclass(slots=True)
class OwnedPlans:
    """One owner's way to the plans: fenced as soon as somebody else has taken over."""

    plans: FakePlans
    faults: Faults
    generation: int = -1

    def __post_init__(self) -> None:
        self.generation = self.plans.generation

    def standing(self, topic: str, topic_id: UUID, partitions: frozenset[int]) -> Standing:
        _strike(self.faults.next("standing"), "")
        ours = [plan for plan in self.plans.made if (plan.topic, plan.topic_id) == (topic, topic_id)]
        newest = {r.partition: (plan, r) for plan in ours for r in plan.ranges if r.partition in partitions}
        if not newest:
            return Standing({})
        last = ours[-1] if self.plans.joined else newest[min(newest)][0]
        pending = None if last.token in self.plans.ended else last
        positions = {number: r.first if plan is pending else r.end for number, (plan, r) in newest.items()}
        return Standing(positions, pending, last.log_epoch)

    def orphan(self, topic: str, topic_id: UUID) -> None:
        assert topic
        assert topic_id

    def draft(self, plan: Plan, records: Sequence[Record]) -> Save:
        assert len(records) >= 1
        return lambda: self.faults.around("save", lambda: self._write(plan))

    def done(self, plan: Plan) -> None:
        self.faults.around("done", lambda: self._end(plan))

    def _write(self, plan: Plan) -> None:
        self._check()
        if plan not in self.plans.made:
            self.plans.made.append(plan)

    def _end(self, plan: Plan) -> None:
        self._check()
        self.plans.ended.add(plan.token)
        self.plans.on_end()

    def _check(self) -> None:
        if self.generation != self.plans.generation:
            self.faults.calls["fenced"] += 1
            raise FencedError("taken over")


@dataclass(frozen=True, slots=True)
class SeenLine:
    source: int
    epoch_ms: int
    start: int
    end: int


@dataclass(slots=True)
class FakeStore:
    """A store that drops an insert whose token it knows, and insists that it was the same insert."""

    faults: Faults
    rows: dict[str, Rows] = field(default_factory=dict)
    frames: dict[str, Rows] = field(default_factory=dict)
    messages: dict[str, list[bytes]] = field(default_factory=dict)
    letters: list[Rejected] = field(default_factory=list)
    gate: Event = field(default_factory=Event)  # closed, it holds every insert of rows back
    reached: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        self.gate.set()

    def encode_rows(self, table: str, rows: Rows) -> Insert:
        return partial(self._insert_rows, table, rows)

    def _insert_rows(self, table: str, rows: Rows, token: str) -> None:
        self.reached.set()
        assert self.gate.wait(10)
        held = self.frames if table == "frames" else self.rows
        self.faults.around("frames" if table == "frames" else "rows", lambda: self._keep(held, rows, token))

    def insert_messages(self, table: str, lines: Sequence[bytes], *, token: str) -> None:
        assert table == "events"
        self.faults.around("rows", lambda: self.messages.__setitem__(token, list(lines)))

    def send(self, plan: Plan, rejected: Sequence[Rejected]) -> None:
        assert plan.token
        self.faults.around("letters", lambda: self.letters.extend(rejected))

    def seen_before(
        self, table: str, topic_id: UUID, log_epoch: int, positions: Mapping[int, int], since_ms: int
    ) -> Iterable[SeenLine]:
        assert table == "gpu"
        assert since_ms < NOW_MS
        _strike(self.faults.next("seen"), "")
        for block in list(self.frames.values()):  # the writer's thread adds to them
            for line in block[block["outcome"] == 1]:
                same_log = line["topic_id"].tobytes() == stored_uuid(topic_id) and line["log_epoch"] == log_epoch
                if not same_log or int(line["offset"]) < positions.get(int(line["partition"]), 0):
                    start = int(line["sequence"])
                    yield SeenLine(int(line["source"]), int(line["epoch_ms"]), start, start + int(line["ticks"]))

    def last_log_epoch(self, topic_id: UUID, partitions: frozenset[int]) -> int | None:
        known = [
            int(line["log_epoch"])
            for block in list(self.frames.values())
            for line in block
            if line["topic_id"].tobytes() == stored_uuid(topic_id) and int(line["partition"]) in partitions
        ]
        return max(known, default=None)

    def lines_within(self, topic_id: UUID, log_epoch: int, ranges: Iterable[Range]) -> int:
        asked = list(ranges)
        return len(
            {
                (int(line["partition"]), int(line["offset"]))
                for block in list(self.frames.values())
                for line in block
                if line["topic_id"].tobytes() == stored_uuid(topic_id) and line["log_epoch"] == log_epoch
                if any(line["partition"] == r.partition and r.first <= line["offset"] < r.end for r in asked)
            }
        )

    def _keep(self, held: dict[str, Rows], rows: Rows, token: str) -> None:
        if token in held:
            assert held[token].tobytes() == rows.tobytes(), f"a replay of {token} built other rows"
            return
        held[token] = rows.copy()

    @property
    def row_counts(self) -> Counter[tuple[int, int]]:
        """How often each (resource, time) is stored."""
        return Counter(
            pair
            for block in list(self.rows.values())
            for pair in zip(block["resource"].tolist(), block["time"].tolist(), strict=True)
        )

    @property
    def frame_counts(self) -> Counter[tuple[int, int]]:
        """How often each (partition, offset) has a line in the frame log."""
        return Counter(
            pair
            for block in list(self.frames.values())
            for pair in zip(block["partition"].tolist(), block["offset"].tolist(), strict=True)
        )

    @property
    def letter_offsets(self) -> set[tuple[int, int]]:
        return {(letter.record.partition, letter.record.offset) for letter in self.letters}


def stored_uuid(value: UUID) -> bytes:
    return value.bytes[:8][::-1] + value.bytes[8:][::-1]


def frame(source: int, number: int) -> bytes:
    """The source's frame of that number: two ticks of one resource, whose id is the source's."""
    first = number * TICKS
    times = FIRST_TICK_S + np.arange(first, first + TICKS)
    rows = pack(GPU, [source] * TICKS, times, {"power_watts": 500.0})
    return seal(GPU, rows, source=source, epoch_ms=EPOCH_MS, sequence=first, ticks=TICKS, sent_ms=NOW_MS)


def row_keys(source: int, *numbers: int) -> set[tuple[int, int]]:
    return {(source, FIRST_TICK_S + number * TICKS + tick) for number in numbers for tick in range(TICKS)}


@dataclass(slots=True)
class Plant:
    """Everything that outlives one process, and a way to run processes over it."""

    broker: FakeBroker
    rules: IngestRules = RULES
    faults: Faults = field(default_factory=Faults)
    clock: FakeClock = field(default_factory=FakeClock)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    most: int = 5
    plans: FakePlans = field(init=False)
    store: FakeStore = field(init=False)
    log: FakeLog = field(init=False)

    def __post_init__(self) -> None:
        self.plans = FakePlans(joined=self.rules.joined)
        self.store = FakeStore(self.faults)

    def run(self, until: Callable[[], bool], *, stop: Event | None = None, storms: StormRule = PATIENT) -> None:
        """One process, from its start until `until` holds, it crashes or it gives up."""
        stop = stop or Event()
        self.registry = CollectorRegistry()
        self.log = FakeLog(self.broker, self.clock, self.faults, stop=stop, until=until, most=self.most)
        ingest = Ingest(
            self.log,
            OwnedPlans(self.plans, self.faults),
            self.store,
            self.store,
            self.store,
            rules=self.rules,
            clock=self.clock,
            metrics=IngestMetrics(self.registry),
            health=SourceHealth(storms),
        )
        ingest.run(stop)

    def run_to_the_end(self) -> None:
        """Processes one after another, each started when the last one crashed, until all is stored."""
        for _ in range(200):
            try:
                return self.run(self.all_logged)
            except Crash:
                continue
        raise AssertionError("it crashes for ever")

    def all_logged(self) -> bool:
        """Every record has its line in the frame log: the last thing that is written of it."""
        held = {(number, n) for number, log in self.broker.logs.items() for n in range(len(log))}
        return held <= self.store.frame_counts.keys()

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


def plant_of(*logs: Sequence[bytes], rules: IngestRules = RULES, faults: Faults | None = None) -> Plant:
    broker = FakeBroker(logs={number: list(log) for number, log in enumerate(logs)})
    return Plant(broker, rules, faults or Faults())


def assert_exactly_once(plant: Plant, rows: set[tuple[int, int]]) -> None:
    assert plant.store.row_counts == Counter(rows)
    expected = {(number, n) for number, log in plant.broker.logs.items() for n in range(len(log))}
    assert plant.store.frame_counts == Counter(expected)
    rubbish = {(number, n) for number, log in plant.broker.logs.items() for n, v in enumerate(log) if v == RUBBISH}
    assert plant.store.letter_offsets == rubbish
