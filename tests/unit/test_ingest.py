"""Ingest: whatever fails, crashes or is taken over, every row is stored exactly once and nothing vanishes."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Event
from uuid import UUID

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from catalogue import GPU
from stream.batch import Record, Rejected
from stream.frame import seal
from stream.health import SourceHealth, StormError, StormRule
from stream.ingest import Ingest, IngestRules
from stream.lane import CutRule
from stream.log import Bounds, Partition
from stream.metrics import IngestMetrics
from stream.plan import FencedError, Plan, Standing
from stream.rows import Rows, pack
from stream.topics import EVENTS

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
        return self._broker.topic_id

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

    def save(self, plan: Plan, records: Sequence[Record]) -> None:
        assert len(records) >= 1
        self.faults.around("save", lambda: self._write(plan))

    def done(self, plan: Plan) -> None:
        self.faults.around("done", lambda: self._end(plan))

    def _write(self, plan: Plan) -> None:
        self._check()
        if plan not in self.plans.made:
            self.plans.made.append(plan)

    def _end(self, plan: Plan) -> None:
        self._check()
        self.plans.ended.add(plan.token)

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

    def insert_rows(self, table: str, rows: Rows, *, token: str) -> None:
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
                same_log = line["topic_id"].tobytes() == _stored_uuid(topic_id) and line["log_epoch"] == log_epoch
                if not same_log or int(line["offset"]) < positions.get(int(line["partition"]), 0):
                    start = int(line["sequence"])
                    yield SeenLine(int(line["source"]), int(line["epoch_ms"]), start, start + int(line["ticks"]))

    def last_log_epoch(self, topic_id: UUID, partitions: frozenset[int]) -> int | None:
        known = [
            int(line["log_epoch"])
            for block in list(self.frames.values())
            for line in block
            if line["topic_id"].tobytes() == _stored_uuid(topic_id) and int(line["partition"]) in partitions
        ]
        return max(known, default=None)

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


def _stored_uuid(value: UUID) -> bytes:
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


# Nothing goes wrong


@pytest.mark.parametrize("joined", [False, True])
def test_every_row_is_stored_once(*, joined: bool) -> None:
    logs = [[frame(source, n) for n in range(20)] for source in (1, 2, 3)]
    plant = plant_of(*logs, rules=replace(RULES, joined=joined))
    plant.run_to_the_end()
    assert_exactly_once(plant, row_keys(1, *range(20)) | row_keys(2, *range(20)) | row_keys(3, *range(20)))
    assert plant.count("kvandal_ingest_rows_total", table="gpu") == 3 * 20 * TICKS
    assert plant.count("kvandal_ingest_frames_total", table="gpu", outcome="stored") == 60


def test_a_few_rows_go_when_they_have_waited_long_enough() -> None:
    plant = plant_of([frame(1, 0)])
    plant.run_to_the_end()
    assert_exactly_once(plant, row_keys(1, 0))


def test_frames_sent_twice_are_stored_once() -> None:
    plant = plant_of([frame(1, 0), frame(1, 1), frame(1, 0), frame(1, 2), frame(1, 1)])
    plant.run_to_the_end()
    assert_exactly_once(plant, row_keys(1, 0, 1, 2))
    assert plant.count("kvandal_ingest_frames_total", table="gpu", outcome="duplicate") == 2


def test_frames_sent_twice_are_stored_once_by_the_next_process_too() -> None:
    plant = plant_of([frame(1, 0), frame(1, 1)])
    plant.run_to_the_end()
    plant.broker.append(0, frame(1, 1), frame(1, 2))
    plant.run_to_the_end()
    assert_exactly_once(plant, row_keys(1, 0, 1, 2))


def test_rubbish_is_dead_lettered_and_its_neighbours_are_stored() -> None:
    plant = plant_of([frame(1, 0), RUBBISH, frame(1, 1)])
    plant.run_to_the_end()
    assert_exactly_once(plant, row_keys(1, 0, 1))


def test_events_are_written_as_messages() -> None:
    event = b'{"id":"1","resource":5,"time_ms":1760000000000,"kind":"xid","code":79}'
    plant = Plant(FakeBroker(topic=EVENTS.name, logs={0: [event, RUBBISH, event]}))
    plant.run(lambda: sum(len(lines) for lines in plant.store.messages.values()) == 2)
    assert {letter.record.offset for letter in plant.store.letters} == {1}


def test_a_topic_made_anew_is_read_from_its_start() -> None:
    plant = plant_of([frame(1, 0), frame(1, 1)])
    plant.run_to_the_end()
    plant.broker.topic_id = UUID(int=8)
    plant.broker.logs = {0: [frame(1, 1), frame(1, 2)]}  # one of them was in the old topic too
    plant.run(lambda: len(plant.store.frames) == 2)
    assert plant.store.row_counts == Counter(row_keys(1, 0, 1, 2))


def test_records_that_expired_unread_are_counted() -> None:
    plant = plant_of([frame(1, n) for n in range(4)])
    plant.run_to_the_end()
    plant.broker.append(0, *(frame(1, n) for n in range(4, 10)))
    plant.broker.first = {0: 7}
    plant.run(lambda: (0, 9) in plant.store.frame_counts)
    assert plant.store.row_counts == Counter(row_keys(1, 0, 1, 2, 3, 7, 8, 9))
    assert plant.count("kvandal_ingest_expired_records_total", topic=TOPIC) == 3


def test_a_log_that_was_cut_short_is_read_anew_and_nothing_is_stored_twice() -> None:
    plant = plant_of([frame(1, n) for n in range(6)])
    plant.run_to_the_end()
    # The brokers lost the end of the log; the next frames get offsets that others had.
    plant.broker.logs = {0: [*(frame(1, n) for n in range(4)), frame(2, 0)]}
    plant.run(lambda: row_keys(2, 0) <= plant.store.row_counts.keys())
    assert plant.store.row_counts == Counter(row_keys(1, *range(6)) | row_keys(2, 0))


# Something is away


@pytest.mark.parametrize("when", ["away", "away after"])
@pytest.mark.parametrize("kind", [*WRITING, *READING])
def test_what_is_away_for_a_while_is_waited_for(kind: str, when: str) -> None:
    logs = [frame(1, 0), RUBBISH, *(frame(1, n) for n in range(1, 12))]
    plant = plant_of(logs, faults=Faults({kind: [when] * 3}))
    plant.run(plant.all_logged)
    assert_exactly_once(plant, row_keys(1, *range(12)))


def test_waiting_is_counted() -> None:
    plant = plant_of([frame(1, 0)], faults=Faults({"rows": ["away", "away"]}))
    plant.run(plant.all_logged)
    assert plant.count("kvandal_ingest_retries_total", doing="insert") == 2


@pytest.mark.parametrize("kind", ["rows", "save", "seen"])
def test_told_to_stop_in_an_outage_it_stops_at_once_and_loses_nothing(kind: str) -> None:
    plant = plant_of([frame(1, n) for n in range(5)], rules=replace(RULES, retry_max_s=60.0))
    plant.faults.script = {kind: ["away"] * 1000}
    stop = Event()
    threading.Timer(0.1, stop.set).start()
    began_s = time.monotonic()
    plant.run(lambda: False, stop=stop)
    assert time.monotonic() - began_s < 1.0
    plant.faults.script, plant.rules = {}, RULES
    plant.run_to_the_end()
    assert_exactly_once(plant, row_keys(1, *range(5)))


def test_what_the_store_refuses_ends_the_process_with_its_sentence() -> None:
    plant = plant_of([frame(1, 0)], faults=Faults({"rows": ["refused"]}))
    with pytest.raises(ValueError, match="run `kvandal schema diff`"):
        plant.run(lambda: False)
    plant.run_to_the_end()
    assert_exactly_once(plant, row_keys(1, 0))


# The process crashes


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("when", ["crash", "crash after"])
@pytest.mark.parametrize("kind", WRITING)
@pytest.mark.parametrize("good", [0, 1])
def test_a_crash_anywhere_stores_nothing_twice(kind: str, when: str, good: int, *, joined: bool) -> None:
    """The first or the second call of its kind is where the process ends; another one takes over."""
    logs = [[frame(1, 0), RUBBISH, *(frame(1, n) for n in range(1, 12))], [frame(2, 0), RUBBISH, frame(2, 1)]]
    plant = plant_of(*logs, rules=replace(RULES, joined=joined), faults=Faults({kind: [""] * good + [when]}))
    plant.run_to_the_end()
    assert_exactly_once(plant, row_keys(1, *range(12)) | row_keys(2, 0, 1))


def test_a_replay_takes_the_clock_of_its_plan() -> None:
    """A row that was young enough when it was planned is so at the replay, days later."""
    plant = plant_of([frame(1, 0)], faults=Faults({"rows": ["crash"]}))
    with pytest.raises(Crash):
        plant.run(lambda: False)
    (planned,) = plant.plans.made
    plant.clock.now_s += 500.0
    plant.run_to_the_end()
    assert [plan.checked_at_ms for plan in plant.plans.made] == [planned.checked_at_ms]
    (line,) = next(iter(plant.store.frames.values()))
    assert line["checked_at"] == planned.checked_at_ms


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[list[bytes]], set[tuple[int, int]]]:
    """Logs of one to three partitions, with repetitions and rubbish, and the rows that they mean."""
    logs, rows = list[list[bytes]](), set[tuple[int, int]]()
    for source in range(1, draw(st.integers(1, 3)) + 1):
        numbers = draw(st.lists(st.one_of(st.integers(0, 9), st.none()), max_size=25))
        logs.append([RUBBISH if n is None else frame(source, n) for n in numbers])
        rows |= row_keys(source, *(n for n in numbers if n is not None))
    return logs, rows


def scripts(kinds: Iterable[str], faults: Iterable[str]) -> st.SearchStrategy[dict[str, list[str]]]:
    one = st.lists(st.sampled_from(["", "", *faults]), max_size=8)
    return st.fixed_dictionaries(dict.fromkeys(kinds, one))


@st.composite
def troubles(draw: st.DrawFn) -> dict[str, list[str]]:
    script = draw(scripts(WRITING, ["away", "away after", "crash", "crash after"]))
    script |= draw(scripts(["standing", "seen", "bounds", "seek"], ["away", "crash"]))
    return script | draw(scripts(["poll"], ["away", "crash", "rebalance"]))


@given(histories(), troubles(), st.sampled_from([RULES, replace(RULES, joined=True)]), st.integers(1, 7))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_goes_wrong_every_row_is_stored_exactly_once(
    history: tuple[list[list[bytes]], set[tuple[int, int]]], script: dict[str, list[str]], rules: IngestRules, most: int
) -> None:
    logs, rows = history
    plant = plant_of(*logs, rules=rules, faults=Faults(script))
    plant.most = most
    plant.run_to_the_end()
    assert_exactly_once(plant, rows)


# Somebody else takes over


@pytest.mark.parametrize("moment", ["made", "ended"])
def test_a_fenced_owner_drops_its_partitions_and_the_new_one_stores_all(moment: str) -> None:
    """It learns of it when it notes a plan as done, or when it wants to make the next one."""
    plant = plant_of([frame(1, n) for n in range(12)])

    def fenced() -> bool:
        if getattr(plant.plans, moment) and not plant.plans.generation:
            plant.plans.generation = 1
        return plant.faults.calls["fenced"] == 1

    plant.run(fenced)
    assert not plant.all_logged()
    plant.run_to_the_end()
    assert_exactly_once(plant, row_keys(1, *range(12)))


def test_an_owner_that_wakes_late_stores_nothing_twice() -> None:
    """The first owner is stopped in the middle of its insert; the second replays; then the first one wakes."""
    plant = plant_of([frame(1, n) for n in range(12)])
    plant.store.gate.clear()
    stop = Event()
    sleeper = threading.Thread(target=plant.run, args=(lambda: False,), kwargs={"stop": stop})
    sleeper.start()
    assert plant.store.reached.wait(5)
    plant.plans.generation += 1
    successor = Plant(plant.broker)
    successor.plans, successor.store = plant.plans, replace(plant.store, faults=successor.faults, gate=Event())
    successor.store.gate.set()
    successor.run_to_the_end()
    plant.store.gate.set()
    stop.set()
    sleeper.join(5)
    assert not sleeper.is_alive()
    assert_exactly_once(successor, row_keys(1, *range(12)))


def test_partitions_lost_and_regained_go_on_where_they_were() -> None:
    plant = plant_of([frame(1, n) for n in range(30)], faults=Faults({"poll": ["", "", "rebalance", "", "rebalance"]}))
    plant.run_to_the_end()
    assert_exactly_once(plant, row_keys(1, *range(30)))


# Bad sources


def bad(source: int, number: int) -> bytes:
    """A frame from that source whose end is cut off."""
    return frame(source, number)[:-1]


def test_one_rogue_source_does_not_stop_ingest() -> None:
    plant = plant_of([*(bad(1, n) for n in range(20)), *(frame(2, n) for n in range(20))])
    plant.run(plant.all_logged, storms=StormRule())
    assert plant.store.row_counts == Counter(row_keys(2, *range(20)))
    assert len(plant.store.letter_offsets) == 20


def test_a_storm_stops_ingest() -> None:
    plant = plant_of([value for n in range(10) for value in (bad(1, n), bad(2, n))])
    with pytest.raises(StormError, match="2 of 2 sources"):
        plant.run(lambda: False, storms=StormRule())


def test_after_a_storm_its_frames_are_dead_letters_and_a_restart_goes_on() -> None:
    plant = plant_of([bad(1, 0), bad(2, 0), bad(1, 1)])
    with pytest.raises(StormError):
        plant.run(lambda: False, storms=StormRule())
    assert plant.store.letter_offsets == {(0, 0), (0, 1), (0, 2)}
    # The cause is mended: from now on the sources send what they should.
    plant.broker.append(0, *(frame(source, n) for n in range(2, 40) for source in (1, 2)))
    plant.run(plant.all_logged, storms=StormRule())
    assert plant.store.row_counts == Counter(row_keys(1, *range(2, 40)) | row_keys(2, *range(2, 40)))


# The store is slower than the log


def test_reading_pauses_while_the_store_is_slow_and_goes_on_after() -> None:
    frame_bytes = len(frame(1, 0))
    plant = plant_of([frame(1, n) for n in range(60)], rules=replace(RULES, buffer_bytes=10 * frame_bytes))
    plant.store.gate.clear()

    def stored_in_the_end() -> bool:
        if plant.log.pauses:
            plant.store.gate.set()
        return plant.all_logged()

    plant.run(stored_in_the_end)
    assert plant.log.pauses[:2] == [True, False]
    assert_exactly_once(plant, row_keys(1, *range(60)))


def test_reading_does_not_pause_while_the_store_keeps_up() -> None:
    plant = plant_of([frame(1, n) for n in range(60)])
    plant.run_to_the_end()
    assert plant.log.pauses == []


def test_a_replay_larger_than_the_buffer_is_still_read() -> None:
    plant = plant_of([frame(1, n) for n in range(9)], rules=replace(RULES, cut=CutRule(rows=16, age_s=1.0)))
    plant.faults.script = {"rows": ["crash"]}
    with pytest.raises(Crash):
        plant.run(lambda: False)
    plant.rules = replace(RULES, buffer_bytes=2 * len(frame(1, 0)))
    plant.most = 1
    plant.run_to_the_end()
    assert_exactly_once(plant, row_keys(1, *range(9)))


def test_a_pause_that_fails_is_tried_again() -> None:
    plant = plant_of([frame(1, n) for n in range(60)], rules=replace(RULES, buffer_bytes=4 * len(frame(1, 0))))
    plant.faults.script = {"pause": ["away", "away"]}
    plant.run(plant.all_logged)
    assert_exactly_once(plant, row_keys(1, *range(60)))
