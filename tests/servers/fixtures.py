"""The brokers as pytest fixtures, and what the code may expect of each.

A test that takes `broker` runs once against either. Where the two differ, the difference is a trait, and the test
asserts it: nothing is skipped, and a broker that starts to behave differently fails a test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from kvandal.broker import EmbeddedBroker
from tests.servers.kafka import KafkaCluster


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerTraits:
    """What one broker does where brokers differ."""

    keeps_commit_metadata: bool
    keeps_topic_settings: bool
    lists_true_end_offsets: bool  # False: ListOffsets gives the last batch's first offset + 1
    refuses_offsets_past_the_end: bool
    creates_topics_on_sight: bool  # when a client that allows it asks for the metadata of a missing topic
    survives_restart: bool


EMBEDDED = BrokerTraits(
    keeps_commit_metadata=False,
    keeps_topic_settings=False,
    lists_true_end_offsets=False,
    refuses_offsets_past_the_end=False,
    creates_topics_on_sight=True,
    survives_restart=False,
)
APACHE = BrokerTraits(
    keeps_commit_metadata=True,
    keeps_topic_settings=True,
    lists_true_end_offsets=True,
    refuses_offsets_past_the_end=True,
    creates_topics_on_sight=False,
    survives_restart=True,
)


@dataclass(frozen=True, slots=True)
class BrokerUnderTest:
    """Where a broker listens and what it does differently."""

    bootstrap: str
    traits: BrokerTraits


@dataclass(frozen=True, slots=True)
class RestartableBroker:
    """A broker of one test's own, which that test may kill and start again on the same port."""

    bootstrap: str
    traits: BrokerTraits
    kill_and_restart: Callable[[], None]


@pytest.fixture(scope="session")
def embedded_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker.start(tmp_path_factory.mktemp("embedded-broker") / "broker.log") as embedded:
        yield embedded


@pytest.fixture(scope="session")
def apache_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    with KafkaCluster.start(tmp_path_factory.mktemp("apache-kafka")) as cluster:
        yield cluster


@pytest.fixture(scope="session", params=["embedded", "apache"])
def broker(request: pytest.FixtureRequest) -> BrokerUnderTest:
    if request.param == "embedded":
        return BrokerUnderTest(request.getfixturevalue("embedded_broker").bootstrap, EMBEDDED)
    return BrokerUnderTest(request.getfixturevalue("apache_kafka").bootstrap, APACHE)


@pytest.fixture(params=["embedded", "apache"])
def restartable_broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RestartableBroker]:
    with ExitStack() as running:
        start = _restartable_embedded if request.param == "embedded" else _restartable_apache
        yield start(tmp_path, running)


def _restartable_embedded(directory: Path, running: ExitStack) -> RestartableBroker:
    log_path = directory / "broker.log"
    first = running.enter_context(EmbeddedBroker.start(log_path))

    def kill_and_restart() -> None:
        first.stop(timeout_s=0)
        running.enter_context(EmbeddedBroker.start(log_path, port=int(first.bootstrap.rsplit(":")[-1])))

    return RestartableBroker(first.bootstrap, EMBEDDED, kill_and_restart)


def _restartable_apache(directory: Path, running: ExitStack) -> RestartableBroker:
    cluster = running.enter_context(KafkaCluster.start(directory))
    return RestartableBroker(cluster.bootstrap, APACHE, lambda: cluster.restart(0))
