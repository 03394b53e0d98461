"""Records from Kafka: as a member of a consumer group, or as the only owner of all partitions."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from kafka import TopicPartition  # type: ignore[import-untyped]
from kafka.consumer.subscription_state import ConsumerRebalanceListener  # type: ignore[import-untyped]
from kafka.errors import (  # type: ignore[import-untyped]
    CommitFailedError,
    IllegalGenerationError,
    OffsetOutOfRangeError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from kafka.structs import MemberState, OffsetAndMetadata  # type: ignore[import-untyped]

from stream.batch import Record
from stream.client import ANSWER_MS, KafkaAddress, kafka_errors, make_admin, make_consumer
from stream.clock import Clock
from stream.log import Bounds, LogUnavailableError, Partition
from stream.plan import FencedError, Plan, PlanStore, Range, Save, Standing, decode_note, encode_note

logger = logging.getLogger(__name__)

# A join that a short poll leaves half done is forgotten by kafka-python 3.0.12: give it time.
_JOIN_POLL_S = 0.5
_TOPIC_CHECK_S = 5.0
# A fetch is bounded by its compressed bytes, and readings that hardly change unpack to a hundred times as many: what
# one poll hands over is bounded by what the records before were like.
POLL_BYTES = 32 << 20
FIRST_RECORDS = 500
MOST_RECORDS = 20_000
_FENCED = (CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError)


class KafkaLog:
    """A stream.log.Log over one consumer.

    With `owned` the consumer takes all partitions of the topics for itself; otherwise it joins the
    group and the brokers share them out. `bounds_reliable` is False for the embedded broker, which
    tells the wrong end.
    """

    def __init__(
        self,
        address: KafkaAddress,
        topics: Sequence[str],
        *,
        group: str,
        clock: Clock,
        owned: bool = False,
        bounds_reliable: bool = True,
        session_timeout_ms: int = 30_000,
    ) -> None:
        self._clock = clock
        self._owned = owned
        self._bounds_reliable = bounds_reliable
        self._admin = make_admin(address)
        self._topic_ids = self._ask_topic_ids(topics)
        self._checked_s = clock.monotonic_s()
        self._lost: set[Partition] = set()
        self._gained: set[Partition] = set()
        self._paused = False
        self._most_records = FIRST_RECORDS
        self.consumer = make_consumer(address, group=group, session_timeout_ms=session_timeout_ms)
        if owned:
            self._assign(topics)
        else:
            self.consumer.subscribe(list(topics), listener=_Listener(self))

    def poll(self, timeout_s: float) -> Mapping[Partition, list[Record]]:
        """Records of about POLL_BYTES at most: their number is what the client can be told."""
        self._check_topics()
        if not self._stable():
            timeout_s = max(timeout_s, _JOIN_POLL_S)
        try:
            with kafka_errors("reading from Kafka"):
                polled = self.consumer.poll(timeout_ms=round(timeout_s * 1000), max_records=self._most_records)
        except LogUnavailableError as error:
            if not isinstance(error.__cause__, OffsetOutOfRangeError):
                raise
            # The log no longer holds the position: open these partitions again and account for the gap.
            self._reopen({Partition(tp.topic, tp.partition) for tp in error.__cause__.args[0]})
            return {}
        if not self._stable():
            self.consumer._coordinator.request_rejoin()
        found = {
            Partition(tp.topic, tp.partition): [Record(r.partition, r.offset, r.value or b"") for r in records]
            for tp, records in polled.items()
        }
        self._most_records = _records_within_budget(found, self._most_records)
        return found

    def take_changes(self) -> tuple[frozenset[Partition], frozenset[Partition]]:
        lost, gained = frozenset(self._lost), frozenset(self._gained)
        self._lost, self._gained = set(), set()
        return lost, gained

    def topic_id(self, topic: str) -> UUID:
        self._compare_ids([topic])
        return self._topic_ids[topic]

    def bounds(self, partition: Partition) -> Bounds | None:
        if not self._bounds_reliable:
            return None
        key = _key(partition)
        try:
            with kafka_errors(f"asking for the bounds of {partition.topic}"):
                first = self.consumer.beginning_offsets([key], timeout_ms=ANSWER_MS)[key]
                end = self.consumer.end_offsets([key], timeout_ms=ANSWER_MS)[key]
        except LogUnavailableError:
            # A broker that no longer leads the partition says so, and kafka-python 3.0.12 asks it again, until minutes
            # later its metadata are too old: whoever asks next shall know the new leader.
            self.consumer._cluster.request_update()
            raise
        return Bounds(first, end)

    def seek(self, partition: Partition, offset: int) -> None:
        self.consumer.seek(_key(partition), offset)
        if not self._paused:
            self.consumer.resume(_key(partition))

    def pause(self, *, paused: bool) -> None:
        self._paused = paused
        assigned = self.consumer.assignment()
        if paused:
            self.consumer.pause(*assigned)
        else:
            self.consumer.resume(*assigned)

    def close(self) -> None:
        self.consumer.close(autocommit=False, timeout_ms=ANSWER_MS)
        self._admin.close()

    def lose(self, partitions: Iterable[Partition]) -> None:
        """The group took these partitions away."""
        changed = set(partitions)
        self._lost |= changed
        self._gained -= changed

    def gain(self, partitions: Iterable[Partition]) -> None:
        """The group gave these partitions: hold them still until ingest has said where to read."""
        changed = set(partitions)
        self._gained |= changed
        for partition in changed:
            self.consumer.pause(_key(partition))
            self.consumer.seek(_key(partition), 0)

    def _assign(self, topics: Sequence[str]) -> None:
        with kafka_errors("asking for the partitions"):
            described = self._admin.describe_topics(list(topics))
        partitions = {Partition(t["name"], p["partition_index"]) for t in described for p in t["partitions"]}
        self.consumer.assign([_key(p) for p in partitions])
        self.gain(partitions)

    def _reopen(self, partitions: set[Partition]) -> None:
        self.lose(partitions)
        self.gain(partitions)

    def _stable(self) -> bool:
        return self._owned or self.consumer.group_metadata().state != MemberState.REBALANCING

    def _check_topics(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._checked_s >= _TOPIC_CHECK_S:
            self._checked_s = now_s
            self._compare_ids(list(self._topic_ids))

    def _compare_ids(self, topics: Sequence[str]) -> None:
        """A topic that was made anew has the same name and other records: start over with all of its partitions."""
        found = self._ask_topic_ids(topics)
        renewed = {topic for topic, topic_id in found.items() if topic_id != self._topic_ids[topic]}
        self._topic_ids |= found
        if renewed:
            logger.error("topics were made anew: opening a new log epoch", extra={"topics": sorted(renewed)})
            assigned = self.consumer.assignment()
            self._reopen({Partition(tp.topic, tp.partition) for tp in assigned if tp.topic in renewed})

    def _ask_topic_ids(self, topics: Sequence[str]) -> dict[str, UUID]:
        with kafka_errors("asking for the topics"):
            described = self._admin.describe_topics(list(topics))
        missing = [topic["name"] for topic in described if topic["error_code"]]
        if missing:
            raise LogUnavailableError(f"topics {', '.join(sorted(missing))} do not exist; run `kvandal topics apply`")
        return {topic["name"]: UUID(str(topic["topic_id"])) for topic in described}


def _records_within_budget(polled: Mapping[Partition, Sequence[Record]], before: int) -> int:
    """How many records of the size of those just polled make POLL_BYTES; at most twice as many as the last time."""
    count = sum(len(records) for records in polled.values())
    if not count:
        return before
    mean_bytes = sum(len(record.value) for records in polled.values() for record in records) / count
    return max(1, min(round(POLL_BYTES / max(mean_bytes, 1.0)), 2 * before, MOST_RECORDS))


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Hears from the group, inside poll, which partitions come and go."""

    def __init__(self, log: KafkaLog) -> None:
        self._log = log

    def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        self._log.lose(Partition(tp.topic, tp.partition) for tp in revoked)

    def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        self._log.gain(Partition(tp.topic, tp.partition) for tp in assigned)

    def on_partitions_lost(self, lost: Iterable[Any]) -> None:
        self.on_partitions_revoked(lost)


class CommittedPlans:
    """Plans as fenced Kafka commits: the offset is the plan's first record, the metadata the rest.

    A member that was declared dead cannot commit, so it cannot plan; whoever got its partitions
    reads the plan and replays it.
    """

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._saved: dict[Partition, Plan] = {}  # the last of each: a commit for one before it would take its place

    def standing(self, topic: str, topic_id: UUID, partitions: frozenset[int]) -> Standing:
        (number,) = partitions
        self._saved.pop(Partition(topic, number), None)
        with kafka_errors("reading the last commit"):
            committed = self._consumer.committed(TopicPartition(topic, number), metadata=True, timeout_ms=ANSWER_MS)
        if committed is None:
            return Standing({}, known=False)
        plan = decode_note(topic, number, committed.offset, committed.metadata or "")
        if plan is None:
            logger.warning("commit without a plan", extra={"topic": topic, "partition": number})
            return Standing({number: committed.offset}, known=False)
        if plan.topic_id != topic_id:
            logger.error("topic was made anew: opening a new log epoch", extra={"topic": topic})
            return Standing({}, known=False)
        pending = plan if plan.ranges[0].end > plan.ranges[0].first else None
        return Standing({number: committed.offset}, pending, plan.log_epoch)

    def draft(self, plan: Plan, records: Sequence[Record]) -> Save:  # noqa: ARG002 - the log keeps them
        return partial(self._save, plan)

    def _save(self, plan: Plan) -> None:
        (planned,) = plan.ranges
        self._commit(plan.topic, planned.partition, planned.first, encode_note(plan))
        self._saved[Partition(plan.topic, planned.partition)] = plan

    def orphan(self, topic: str, topic_id: UUID) -> None:
        """Nothing: these brokers keep what was read, until a topic is deleted on purpose."""

    def done(self, plan: Plan) -> None:
        (planned,) = plan.ranges
        if self._saved.get(Partition(plan.topic, planned.partition), plan) != plan:
            return
        empty = Plan(
            plan.topic,
            plan.topic_id,
            (Range(planned.partition, planned.end, planned.end),),
            plan.checked_at_ms,
            plan.layouts,
            plan.log_epoch,
        )
        self._commit(plan.topic, planned.partition, planned.end, encode_note(empty))

    def _commit(self, topic: str, partition: int, offset: int, metadata: str) -> None:
        try:
            with kafka_errors("committing"):
                offsets = {TopicPartition(topic, partition): OffsetAndMetadata(offset, metadata, -1)}
                self._consumer.commit(offsets, timeout_ms=ANSWER_MS)
        except LogUnavailableError as error:
            if isinstance(error.__cause__, _FENCED):
                raise FencedError(f"{topic} {partition}") from error
            raise


class AnnouncedPlans:
    """Plans kept elsewhere by a single owner, who also commits so that lag and confirmations can be seen.

    Agents let go of what lies below a commit. So none is made into a log that began anew since the plan was read:
    there the offset would speak for other records.
    """

    def __init__(self, plans: PlanStore, log: KafkaLog) -> None:
        self._plans = plans
        self._log = log

    def standing(self, topic: str, topic_id: UUID, partitions: frozenset[int]) -> Standing:
        return self._plans.standing(topic, topic_id, partitions)

    def draft(self, plan: Plan, records: Sequence[Record]) -> Save:
        return self._plans.draft(plan, records)

    def orphan(self, topic: str, topic_id: UUID) -> tuple[Plan, Sequence[Record]] | None:
        return self._plans.orphan(topic, topic_id)

    def done(self, plan: Plan) -> None:
        self._plans.done(plan)
        if self._log.topic_id(plan.topic) != plan.topic_id:
            return
        offsets = {TopicPartition(plan.topic, r.partition): OffsetAndMetadata(r.end, "", -1) for r in plan.ranges}
        with kafka_errors("committing"):
            self._log.consumer.commit(offsets, timeout_ms=ANSWER_MS)


def _key(partition: Partition) -> Any:
    return TopicPartition(partition.topic, partition.number)
