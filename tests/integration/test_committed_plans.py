"""Plans as commits at a real broker: a partition has one, and a later plan takes the place of the one before."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import UUID

import pytest

from catalogue import GPU
from stream.client import KafkaAddress
from stream.clock import SystemClock
from stream.consume import CommittedPlans, KafkaLog
from stream.plan import Plan, Range, Standing
from stream.publish import ensure_topics
from stream.topics import topic
from tests.servers.kafka import KafkaCluster

NUMBERS = frozenset({0})


@pytest.fixture
def address(tmp_path: Path) -> Iterator[KafkaAddress]:
    with KafkaCluster.start(tmp_path / "kafka") as cluster:
        address = KafkaAddress(cluster.bootstrap)
        ensure_topics(address, replication=1, topics=[topic(GPU.topic)], partitions=1)
        yield address


def test_a_plan_noted_as_done_after_the_next_was_saved_leaves_that_one_pending(address: KafkaAddress) -> None:
    log = KafkaLog(address, [GPU.topic], group="plans", clock=SystemClock(), owned=True)
    with closing(log):
        topic_id = log.topic_id(GPU.topic)
        first, second = plan(topic_id, 0, 5), plan(topic_id, 5, 9)
        plans = CommittedPlans(log.consumer)
        plans.draft(first, [])()
        plans.draft(second, [])()
        plans.done(first)
        assert plans.standing(GPU.topic, topic_id, NUMBERS) == Standing({0: 5}, second)
        plans.done(second)
        assert plans.standing(GPU.topic, topic_id, NUMBERS) == Standing({0: 9}, None)


def test_a_plan_that_another_process_saved_can_be_noted_as_done(address: KafkaAddress) -> None:
    log = KafkaLog(address, [GPU.topic], group="plans", clock=SystemClock(), owned=True)
    with closing(log):
        topic_id = log.topic_id(GPU.topic)
        CommittedPlans(log.consumer).draft(plan(topic_id, 0, 5), [])()
        successor = CommittedPlans(log.consumer)
        pending = successor.standing(GPU.topic, topic_id, NUMBERS).pending
        assert pending == plan(topic_id, 0, 5)
        successor.done(pending)
        assert successor.standing(GPU.topic, topic_id, NUMBERS) == Standing({0: 5}, None)


def plan(topic_id: UUID, first: int, end: int) -> Plan:
    return Plan(GPU.topic, topic_id, (Range(0, first, end),), checked_at_ms=1, layouts=1)
