"""The ingest loop: Kafka to the store, every row exactly once.

For each lane of partitions: collect records, choose which of them the next insert will hold (the
plan), build the rows, write the plan down, insert the rows under its token, note the frames'
outcomes, move on. Rows are inserted on a second thread, so that meanwhile the next records arrive
and the next rows are built. When the store is away, or slower than the log, reading pauses; nothing
is given up.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import Protocol, TypeAlias
from uuid import UUID

from catalogue import table
from stream.batch import Batch, Batcher, FrameBatcher, MessageBatcher, Outcome, Rejected, TimeLimits
from stream.clock import Clock
from stream.health import SourceHealth
from stream.lane import CutRule, Lane
from stream.log import Log, Partition
from stream.metrics import IngestMetrics
from stream.plan import FencedError, Plan, PlanStore, Range, Save, Standing
from stream.retry import Result, StoppedError, retry_until_stopped
from stream.rows import Rows
from stream.seen import SeenFrames, SeenTicks
from stream.topics import Content, topic

logger = logging.getLogger(__name__)


_HORIZON_MS = 7 * 86_400_000  # how long after a frame a repetition of it is still recognised
_NO_OFFSET = 1 << 62  # beyond any record
_INSERT_WAIT_S = 2.0  # for an insert to end; then the log is asked again, also which partitions came and went

Insert: TypeAlias = Callable[[str], None]  # inserts something under this token; called again, changes nothing


class Writer(Protocol):
    """Where rows go. ConnectionError: try again; ValueError: it is no use."""

    def encode_rows(self, table: str, rows: Rows) -> Insert:
        """All of an insert that the store need not wait for."""

    def insert_messages(self, table: str, lines: Sequence[bytes], *, token: str) -> None: ...


class FrameBooks(Protocol):
    """What the table `frames` knows."""

    def seen_before(
        self, table: str, topic_id: UUID, log_epoch: int, positions: Mapping[int, int], since_ms: int
    ) -> Iterable[SeenTicks]:
        """Ticks stored from other logs or log epochs, or from this one below `positions`, by partition."""

    def last_log_epoch(self, topic_id: UUID, partitions: frozenset[int]) -> int | None:
        """The newest log epoch of which frames of these partitions are known; None when there are none."""

    def lines_within(self, topic_id: UUID, log_epoch: int, ranges: Iterable[Range]) -> int:
        """How many records of these ranges have their line: all of them, where the ranges are a plan that was done."""


class DeadLetters(Protocol):
    """Where records go that cannot be stored. ConnectionError: try again."""

    def send(self, plan: Plan, rejected: Sequence[Rejected]) -> None: ...


@dataclass(frozen=True, slots=True)
class IngestRules:
    """How ingest cuts, buffers and judges."""

    cut: CutRule = field(default_factory=CutRule)
    time: TimeLimits = field(default_factory=TimeLimits)
    raw_days: int = 0  # how long raw rows are kept, where it is not what the catalogue says
    buffer_bytes: int = 256 << 20  # beyond this, reading pauses until the store has caught up
    poll_s: float = 0.2
    retry_max_s: float = 30.0
    joined: bool = False  # one insert may hold several partitions: only for a single owner


@dataclass(frozen=True, slots=True)
class _Prepared:
    """The next insert. Nobody knows of it before its plan is saved: until then it can be forgotten with its lane."""

    lane: Lane
    batch: Batch
    save: Save | None  # None for a replay: its plan was saved before
    inserts: Sequence[Insert]


@dataclass(frozen=True, slots=True)
class _Writing:
    """The insert that is under way."""

    lane: Lane
    batch: Batch
    future: Future[None]


class Ingest:
    """Drains a log into a store until told to stop.

    `run` returns when `stop` is set and the insert under way has ended. It raises ValueError when
    the store refuses what it is given and StormError when too many sources send rubbish: both need
    a human, and nothing is lost meanwhile, since the log keeps it.
    """

    def __init__(
        self,
        log: Log,
        plans: PlanStore,
        writer: Writer,
        books: FrameBooks,
        dead_letters: DeadLetters,
        *,
        rules: IngestRules,
        clock: Clock,
        metrics: IngestMetrics,
        health: SourceHealth,
    ) -> None:
        self._log = log
        self._plans = plans
        self._writer = writer
        self._books = books
        self._dead_letters = dead_letters
        self._rules = rules
        self._clock = clock
        self._metrics = metrics
        self._health = health
        self._lanes: dict[Partition, Lane] = {}
        self._prepared: _Prepared | None = None
        self._writing: _Writing | None = None
        self._paused = False

    def run(self, stop: Event) -> None:
        with ThreadPoolExecutor(1, "writer") as pool:
            try:
                while not stop.is_set():
                    self._turn(pool, stop)
                self._note(self._end_writing(), stop)
            except StoppedError:
                logger.info("stopped while waiting; the next start replays the plan")
            finally:
                stop.set()  # whatever ended the loop also ends an insert that is being retried

    def _turn(self, pool: ThreadPoolExecutor, stop: Event) -> None:
        """One round: take records in, see to lanes that came or went, keep the writer busy."""
        wait_s = 0.0 if self._prepared is not None or self._work_waits() else self._rules.poll_s
        records = self._retry(stop, "reading", lambda: self._log.poll(wait_s))
        lost, gained = self._log.take_changes()
        self._close_lanes(lost)
        if gained:
            self._retry(stop, "opening partitions", lambda: self._open_lanes(gained, stop))
        now_s = self._clock.monotonic_s()
        for partition, arrived in records.items():
            if partition in self._lanes and partition not in gained:
                self._lanes[partition].offer(partition.number, arrived, now_s)
        if self._prepared is None and not stop.is_set():
            self._prepared = self._prepare(stop)
        if self._writing is not None and self._prepared is not None:
            wait([self._writing.future], _INSERT_WAIT_S)  # not in poll: the store would wait for the rest of it
        if self._writing is None or self._writing.future.done():
            ended = self._end_writing()
            self._start_writing(pool, stop)  # before the last is noted as done: the store shall not be kept waiting
            self._note(ended, stop)
        self._apply_backpressure(stop)

    def _work_waits(self) -> bool:
        now_s = self._clock.monotonic_s()
        return any(lane.due(self._rules.cut, now_s) for lane in self._lanes.values())

    def _open_lanes(self, gained: Iterable[Partition], stop: Event) -> None:
        by_lane: dict[tuple[str, int], set[Partition]] = {}
        for partition in gained:
            by_lane.setdefault((partition.topic, -1 if self._rules.joined else partition.number), set()).add(partition)
        for (name, _), partitions in by_lane.items():
            if stop.is_set():
                raise StoppedError("opening partitions")  # each takes some questions: who stops asks no more of them
            lane = self._open_lane(name, frozenset(p.number for p in partitions), stop)
            self._lanes.update(dict.fromkeys(partitions, lane))

    def _open_lane(self, name: str, numbers: frozenset[int], stop: Event) -> Lane:
        """Find out how far the partitions were planned, go back to the last plan and on from there."""
        topic_id = self._log.topic_id(name)
        self._finish_orphan(name, topic_id, stop)
        standing = self._plans.standing(name, topic_id, numbers)
        positions = {number: standing.positions.get(number, 0) for number in numbers}
        replay, log_epoch = standing.pending, standing.log_epoch
        if replay is not None and self._is_done(replay, sum(r.end - r.first for r in replay.ranges)):
            positions, replay = positions | {r.partition: r.end for r in replay.ranges}, None
        if not standing.known or self._is_behind(standing, topic_id):
            last_epoch = self._books.last_log_epoch(topic_id, numbers)
            if last_epoch is not None:
                # The group's commits expired, were deleted or were set back. A new epoch makes all that is stored
                # count as seen.
                logger.error("plans are gone: reading the log again in a new log epoch", extra={"topic": name})
                replay, log_epoch = None, last_epoch + 1
        ends = {number: self._end_of(Partition(name, number)) for number in numbers}
        cut = {number: end for number, end in ends.items() if end is not None and positions[number] > end}
        if cut:
            # From some unknown offset on the log holds other records: read it again under other tokens. What of it
            # is stored already is recognised by its frames.
            logger.error("log is shorter than what was read from it: opening a new log epoch", extra={"ends": cut})
            positions, replay, log_epoch = positions | dict.fromkeys(cut, 0), None, log_epoch + 1
        for number in numbers:
            self._seek(Partition(name, number), positions, gap_allowed=replay is None)
        seen = self._load_seen(name, topic_id, log_epoch, positions)
        logger.info(
            "partitions opened",
            extra={"topic": name, "positions": positions, "replaying": replay is not None, "log_epoch": log_epoch},
        )
        return Lane(self._batcher(name), name, topic_id, positions, replay=replay, log_epoch=log_epoch, seen=seen)

    def _finish_orphan(self, name: str, topic_id: UUID, stop: Event) -> None:
        """Insert again what was planned from a log that is gone; sources will send those frames anew.

        Without its lines in `frames` they would not be known as stored, though their rows may be.
        """
        orphan = self._plans.orphan(name, topic_id)
        if orphan is None:
            return
        plan, records = orphan
        self._note(self._end_writing(), stop)  # it may be this very plan, if the log went while it was being written
        if self._is_done(plan, len(records)):
            return
        logger.warning("finishing a plan whose log is gone", extra={"topic": name, "records": len(records)})
        positions = {planned.partition: planned.first for planned in plan.ranges}
        seen = self._load_seen(name, plan.topic_id, plan.log_epoch, positions)
        batch = self._batcher(name).build(plan, records, seen)
        self._write(batch, self._encode(batch, stop), stop)

    def _is_done(self, plan: Plan, records: int) -> bool:
        """Whether every record of the plan has its line in `frames`, which comes last: so all their rows are in.

        Then nothing is inserted again. The token alone would tell it too, but only as long as its table, or `frames`,
        which is every topic's, has not had 50,000 inserts since. Messages have no lines: they are inserted again.
        """
        return records > 0 and self._books.lines_within(plan.topic_id, plan.log_epoch, plan.ranges) == records

    def _is_behind(self, standing: Standing, topic_id: UUID) -> bool:
        """Whether `frames` knows of records after the last plan: then that is not the last one.

        A commit was set back, by hand or because an older one arrived late; its successors' plans are lost.
        """
        pending = standing.pending.ranges if standing.pending else ()
        ends = {**standing.positions, **{r.partition: r.end for r in pending}}
        beyond = [Range(partition, end, _NO_OFFSET) for partition, end in ends.items()]
        return self._books.lines_within(topic_id, standing.log_epoch, beyond) > 0

    def _seek(self, partition: Partition, positions: dict[int, int], *, gap_allowed: bool) -> None:
        held = self._log.bounds(partition)
        wanted = positions[partition.number]
        if held is not None and wanted < held.first:
            if wanted or not gap_allowed:
                lost = held.first - wanted
                logger.error(
                    "records expired before they were read",
                    extra={"topic": partition.topic, "partition": partition.number, "first": wanted, "count": lost},
                )
                self._metrics.expired.labels(partition.topic).inc(lost)
            positions[partition.number] = held.first
        self._log.seek(partition, positions[partition.number])

    def _end_of(self, partition: Partition) -> int | None:
        held = self._log.bounds(partition)
        return None if held is None else held.end

    def _load_seen(self, name: str, topic_id: UUID, log_epoch: int, positions: Mapping[int, int]) -> SeenFrames:
        if topic(name).content is not Content.FRAMES:
            return SeenFrames()
        since_ms = self._clock.utc_ms() - _HORIZON_MS
        return SeenFrames(self._books.seen_before(topic(name).table, topic_id, log_epoch, positions, since_ms))

    def _batcher(self, name: str) -> Batcher:
        spec = topic(name)
        if spec.content is not Content.FRAMES:
            return MessageBatcher(spec, self._rules.time)
        return FrameBatcher(table(spec.table), self._rules.time, self._rules.raw_days)

    def _close_lanes(self, lost: Iterable[Partition]) -> None:
        for partition in lost:
            self._lanes.pop(partition, None)

    def _prepare(self, stop: Event) -> _Prepared | None:
        """Cut and build the next batch: of the due lane that has waited longest.

        Not of the fullest: a backlog of GPU frames would keep the few frames of meters waiting for hours.
        """
        now_s = self._clock.monotonic_s()
        due = [lane for lane in set(self._lanes.values()) if lane.due(self._rules.cut, now_s)]
        if not due:
            return None
        lane = min(due, key=lambda candidate: candidate.waiting_since_s)
        replayed = lane.replaying
        plan, records = lane.cut(self._rules.cut, now_s, self._clock.utc_ms())
        if not self._is_of_its_topic(lane, stop):
            return None
        batch = lane.batcher.build(plan, records, lane.seen)
        save = None if replayed else self._retry(stop, "drafting the plan", lambda: self._plans.draft(plan, records))
        return _Prepared(lane, batch, save, self._encode(batch, stop))

    def _encode(self, batch: Batch, stop: Event) -> list[Insert]:
        """The batch's inserts. `frames` comes last: where it has a plan's frames, all their rows are in."""
        inserts: list[Insert] = []
        if batch.rows is not None and len(batch.rows):
            inserts.append(self._encode_rows(batch.table, batch.rows, stop))
        if batch.messages:
            inserts.append(lambda token: self._writer.insert_messages(batch.table, batch.messages, token=token))
        if batch.frames is not None and len(batch.frames):
            inserts.append(self._encode_rows("frames", batch.frames, stop))
        return inserts

    def _encode_rows(self, name: str, rows: Rows, stop: Event) -> Insert:
        return self._retry(stop, "encoding", lambda: self._writer.encode_rows(name, rows))

    def _start_writing(self, pool: ThreadPoolExecutor, stop: Event) -> None:
        """Save the plan of what was prepared and hand it over, if its lane is still ours."""
        prepared, self._prepared = self._prepared, None
        if prepared is None or stop.is_set() or prepared.lane not in self._lanes.values():
            return
        batch = prepared.batch
        try:
            if prepared.save is not None:
                self._retry(stop, "saving the plan", prepared.save)
        except FencedError:
            self._drop(prepared.lane)
            return
        self._writing = _Writing(prepared.lane, batch, pool.submit(self._write, batch, prepared.inserts, stop))

    def _is_of_its_topic(self, lane: Lane, stop: Event) -> bool:
        """Whether all that the lane holds was read from the topic as which it was opened.

        Asked after the records were read and before they are planned: a topic that was made anew meanwhile repeats its
        offsets, and would have its records stored under the old one's tokens.
        """
        topic_id = self._retry(stop, "asking for the topic", lambda: self._log.topic_id(lane.topic))
        if topic_id != lane.topic_id:
            self._lanes = {partition: kept for partition, kept in self._lanes.items() if kept is not lane}
        return topic_id == lane.topic_id

    def _write(self, batch: Batch, inserts: Sequence[Insert], stop: Event) -> None:
        """On the writer thread."""
        if batch.rejected:
            self._retry(stop, "dead letters", lambda: self._dead_letters.send(batch.plan, batch.rejected))
        for insert in inserts:
            self._retry(stop, "insert", partial(insert, batch.plan.token))

    def _end_writing(self) -> _Writing | None:
        """The insert that was under way, when it has ended; an error in it ends the loop."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.future.result()
        return writing

    def _note(self, ended: _Writing | None, stop: Event) -> None:
        """Count an insert, and tell that its plan is done."""
        if ended is None:
            return
        self._metrics.count(ended.batch)
        if ended.lane in self._lanes.values():
            try:
                self._retry(stop, "noting the plan as done", lambda: self._plans.done(ended.batch.plan))
            except FencedError:
                self._drop(ended.lane)
        self._judge_sources(ended.batch)

    def _drop(self, lane: Lane) -> None:
        """The partitions are somebody else's; the plan, if it was made, will be replayed there."""
        taken = sorted(lane.partitions)
        logger.warning("partitions taken over by another member", extra={"topic": lane.topic, "partitions": taken})
        self._lanes = {partition: kept for partition, kept in self._lanes.items() if kept is not lane}

    def _judge_sources(self, batch: Batch) -> None:
        if batch.frames is None:
            return
        self._health.record(batch.frames["source"], batch.frames["outcome"] == Outcome.REJECTED)

    def _apply_backpressure(self, stop: Event) -> None:
        """Stop reading while too much waits; but a replay needs all of its records before it can go."""
        lanes = set(self._lanes.values())
        held = sum(lane.bytes for lane in lanes)
        self._metrics.buffered_bytes.set(held)
        limit = self._rules.buffer_bytes
        full = held > limit or (self._paused and held > limit // 2)
        paused = full and not any(lane.replaying for lane in lanes)
        if paused != self._paused:
            self._retry(stop, "pausing", lambda: self._log.pause(paused=paused))
            self._paused = paused

    def _retry(self, stop: Event, doing: str, call: Callable[[], Result]) -> Result:
        count = self._metrics.retries.labels(doing).inc
        return retry_until_stopped(call, doing=doing, stop=stop, max_wait_s=self._rules.retry_max_s, on_retry=count)
