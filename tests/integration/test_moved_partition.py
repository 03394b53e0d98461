"""A partition whose leader changed while its log was open: who asks where it begins and ends, hears of the new one."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from kafka import TopicPartition  # type: ignore[import-untyped]

from catalogue import GPU
from stream.client import KafkaAddress, make_admin
from stream.clock import SystemClock
from stream.consume import KafkaLog
from stream.log import Bounds, LogUnavailableError, Partition
from stream.publish import ensure_topics
from stream.topics import topic
from tests.servers.kafka import KafkaCluster
from tests.servers.stack import until

PLACE = TopicPartition(GPU.topic, 0)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[KafkaAddress]:
    with KafkaCluster.start(tmp_path / "kafka", brokers=2) as cluster:
        address = KafkaAddress(cluster.bootstrap)
        ensure_topics(address, replication=1, topics=[topic(GPU.topic)], partitions=1)
        yield address


def test_the_bounds_of_a_partition_that_moved_are_known_at_the_second_question(address: KafkaAddress) -> None:
    log = KafkaLog(address, [GPU.topic], group="moved", clock=SystemClock(), owned=True)
    with closing(log), closing(make_admin(address)) as admin:
        assert log.bounds(Partition(GPU.topic, 0)) == Bounds(0, 0)
        other = 3 - leader(admin)  # of the brokers 1 and 2
        admin.alter_partition_reassignments({PLACE: [other]})
        until(lambda: leader(admin) == other, what="the other broker leads")

        with pytest.raises(LogUnavailableError, match=f"bounds of {GPU.topic}"):
            log.bounds(Partition(GPU.topic, 0))  # if this succeeds, the client has mended its fault: so can we
        assert log.bounds(Partition(GPU.topic, 0)) == Bounds(0, 0)


def leader(admin: object) -> int:
    (described,) = admin.describe_topics([GPU.topic])  # type: ignore[attr-defined]
    return int(described["partitions"][0]["leader_id"])
