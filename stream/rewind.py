"""Sets a consumer group back to where its store ends, after the store was restored from a back-up.

The group's commits are then ahead of the store: without this, what was stored after the back-up would never be read
again. Every partition goes on in a new log epoch, in which all that the store's `frames` know counts as seen.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from kafka import TopicPartition  # type: ignore[import-untyped]
from kafka.errors import NoError  # type: ignore[import-untyped]
from kafka.structs import OffsetAndMetadata  # type: ignore[import-untyped]

from stream.client import KafkaAddress, kafka_errors, make_admin
from stream.log import LogUnavailableError, Partition
from stream.plan import Plan, Range, decode_note, encode_note
from stream.topics import INGESTED, Content, topic


@dataclass(frozen=True, slots=True)
class StoredEnd:
    """How far one topic is stored: the offset after its last frame by partition, and their newest log epoch."""

    log_epoch: int
    ends: Mapping[int, int]


def rewind_group(
    address: KafkaAddress, group: str, stored_end: Callable[[UUID], StoredEnd]
) -> dict[Partition, tuple[int, int]]:
    """Set every partition of the group to where the store ends; returns its offsets before and after.

    Messages are read again from the start of their topics: they replace themselves. No ingest may run. Raises
    LogUnavailableError when no broker answers, or when the group still has a member.
    """
    with closing(make_admin(address)) as admin, kafka_errors(f"rewinding the group {group}"):
        described = admin.describe_topics([candidate.name for candidate in INGESTED])
        committed = admin.list_group_offsets(group)[group]
        plans = [
            plan
            for found in described
            for plan in _plans(
                found["name"],
                UUID(str(found["topic_id"])),
                [partition["partition_index"] for partition in found["partitions"]],
                {place.partition: commit for place, commit in committed.items() if place.topic == found["name"]},
                stored_end,
            )
        ]
        wanted = {_place(plan): OffsetAndMetadata(plan.ranges[0].end, encode_note(plan), -1) for plan in plans}
        answers = admin.alter_group_offsets(group, wanted)
    refused = {error.__name__ for error in answers.values() if error is not NoError}
    if refused:
        raise LogUnavailableError(
            f"the group {group} cannot be rewound ({', '.join(sorted(refused))}): end every ingest of it, wait until "
            "its session has timed out, and try again"
        )
    return {
        Partition(place.topic, place.partition): (_offset(committed.get(place)), wanted[place].offset)
        for place in wanted
    }


def _plans(
    name: str,
    topic_id: UUID,
    partitions: list[int],
    committed: Mapping[int, OffsetAndMetadata],
    stored_end: Callable[[UUID], StoredEnd],
) -> Iterator[Plan]:
    """For each partition a plan of no records, where reading is to go on."""
    frames = topic(name).content is Content.FRAMES
    stored = stored_end(topic_id) if frames else StoredEnd(0, {})
    known = [decode_note(name, number, commit.offset, commit.metadata or "") for number, commit in committed.items()]
    log_epoch = 1 + max([stored.log_epoch, *(plan.log_epoch for plan in known if plan)])
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    for number in partitions:
        offset = stored.ends.get(number, 0)
        yield Plan(name, topic_id, (Range(number, offset, offset),), now_ms, 0, log_epoch)


def _place(plan: Plan) -> TopicPartition:
    return TopicPartition(plan.topic, plan.ranges[0].partition)


def _offset(commit: OffsetAndMetadata | None) -> int:
    return 0 if commit is None else commit.offset
