"""The sender: what leaves the spool, when, and how often it is sent."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry

from collectors.exposition import AgentMetrics
from collectors.sender import Confirmations, Sender
from collectors.spool import Evicted, Outgoing, Spool
from stream.messages import EventMessage
from stream.publish import Acknowledged
from tests.servers.agent_fakes import FakeClock, FakePublisher
from tests.servers.stack import until

TOPIC = "kvandal.gpu"
KIB = 1024


def frame(number: int, *, size: int = 100) -> Outgoing:
    return Outgoing(TOPIC, 1, number.to_bytes(4, "big").ljust(size), 8, 10 * number, 10 * number + 9)


def number_of(value: bytes) -> int:
    return int.from_bytes(value[:4], "big")


def report(gap: Evicted) -> EventMessage:
    return EventMessage(id="lost", resource=gap.source, time_ms=0, kind="readings_lost", count=gap.rows)


@contextmanager
def sending(
    spool: Spool,
    publisher: FakePublisher,
    *,
    clock: FakeClock | None = None,
    confirmations: Confirmations | None = None,
) -> Iterator[Callable[[str], float]]:
    """A running sender; gives the value of one of its metrics by name."""
    registry, clock = CollectorRegistry(), clock or FakeClock()
    sender = Sender(
        spool,
        publisher,
        clock=clock,
        metrics=AgentMetrics(registry, spool, clock=clock),
        report_lost=report,
        confirmations=confirmations,
        retry_max_s=0.05,
    )
    sender.start()
    try:
        yield lambda name: registry.get_sample_value(name, {"topic": TOPIC}) or 0.0
    finally:
        sender.stop()


def test_what_is_acknowledged_leaves_the_spool_and_is_counted_once(tmp_path: Path) -> None:
    publisher = FakePublisher()
    with closing(Spool(tmp_path / "spool.db", limit_bytes=KIB * KIB)) as spool:
        spool.add([frame(number) for number in range(10)])
        with sending(spool, publisher) as metric:
            until(spool.is_empty, what="the spool is empty")
            assert metric("kvandal_agent_rows_total") == 80

    assert [number_of(sent.value) for sent in publisher.sent] == list(range(10))


def test_after_a_failure_only_what_has_no_answer_is_sent_again(tmp_path: Path) -> None:
    publisher = FakePublisher()
    publisher.silent = True
    with closing(Spool(tmp_path / "spool.db", limit_bytes=KIB * KIB)) as spool:
        spool.add([frame(number) for number in range(6)])
        with sending(spool, publisher) as metric:
            until(lambda: len(publisher.sent) == 6, what="all are on their way")
            first = list(publisher.sent)
            publisher.silent = False
            for number, sent in enumerate(first[:4]):
                sent.acknowledged(Acknowledged(0, number))
            first[4].failed(ConnectionError("connection reset"))
            until(spool.is_empty, what="the spool is empty")
            assert metric("kvandal_agent_rows_total") == 48

    assert [number_of(sent.value) for sent in publisher.sent[6:]] == [4, 5]
    assert publisher.renewed >= 1


def test_an_answer_that_comes_after_a_new_start_changes_nothing(tmp_path: Path) -> None:
    publisher = FakePublisher()
    publisher.silent = True
    with closing(Spool(tmp_path / "spool.db", limit_bytes=KIB * KIB)) as spool:
        spool.add([frame(0), frame(1)])
        with sending(spool, publisher) as metric:
            until(lambda: len(publisher.sent) == 2, what="both are on their way")
            publisher.sent[0].failed(ConnectionError("connection reset"))
            until(lambda: len(publisher.sent) == 4, what="both are sent again")
            publisher.sent[1].acknowledged(Acknowledged(0, 1))
            publisher.sent[2].acknowledged(Acknowledged(0, 2))
            publisher.sent[3].acknowledged(Acknowledged(0, 3))
            until(spool.is_empty, what="the spool is empty")
            assert metric("kvandal_agent_rows_total") == 16


def test_a_small_spool_keeps_half_of_its_room_for_what_comes(tmp_path: Path) -> None:
    """What is on its way cannot make room: a broker that is silent must not close the spool to new readings."""
    publisher = FakePublisher()
    publisher.silent = True
    with closing(Spool(tmp_path / "spool.db", limit_bytes=20 * KIB)) as spool:
        spool.add([frame(number, size=KIB) for number in range(20)])
        with sending(spool, publisher):
            until(lambda: len(publisher.sent) == 10, what="half of it is on its way")
            spool.add([frame(number, size=KIB) for number in range(20, 25)])
            for sent in list(publisher.sent):
                sent.acknowledged(Acknowledged(0, number_of(sent.value)))
            publisher.silent = False
            for sent in publisher.sent[10:]:
                sent.acknowledged(Acknowledged(0, number_of(sent.value)))
            until(spool.is_empty, what="the spool is empty")

    frames = [sent for sent in publisher.sent if sent.topic == TOPIC]
    assert sorted({number_of(sent.value) for sent in frames}) == [*range(10), *range(15, 25)]


def test_gaps_are_reported_once_somebody_listens_and_not_before(tmp_path: Path) -> None:
    publisher, clock = FakePublisher(), FakeClock()
    publisher.away = True
    with closing(Spool(tmp_path / "spool.db", limit_bytes=10 * KIB)) as spool, sending(spool, publisher, clock=clock):
        for number in range(50):
            spool.add([frame(number, size=KIB)])
        assert spool.take(10, urgent=True) == []  # no report waits in the full spool
        publisher.away = False
        until(lambda: spool.is_empty() and len(publisher.sent) > 10, what="the spool is empty, and the report out")

    arrived = {number_of(sent.value) for sent in publisher.sent if sent.topic == TOPIC}
    reports = [msgspec.json.decode(sent.value, type=EventMessage) for sent in publisher.sent if sent.topic != TOPIC]
    assert 9 <= len(arrived) <= 15  # what was being tried when room was needed stayed
    assert sum(report.count for report in reports) == (50 - len(arrived)) * 8
    assert len(reports) <= 3


class Log:
    """A log of which ingest has stored so much, and which can lose everything."""

    def __init__(self) -> None:
        self.end = 0
        self.renewed = False

    def stored(self) -> Mapping[tuple[str, int], int]:
        return {(TOPIC, 0): self.end}

    def log_was_renewed(self) -> bool:
        renewed, self.renewed = self.renewed, False
        return renewed


def test_with_confirmations_a_value_stays_until_it_is_stored(tmp_path: Path) -> None:
    publisher, clock, log = FakePublisher(), FakeClock(), Log()
    with closing(Spool(tmp_path / "spool.db", limit_bytes=KIB * KIB)) as spool:
        spool.add([frame(0), frame(1)])
        with sending(spool, publisher, clock=clock, confirmations=log) as metric:
            until(lambda: metric("kvandal_agent_rows_total") == 16, what="both are acknowledged")
            log.end = 2
            clock.advance(2)
            until(lambda: spool.size_bytes == 100, what="the first one is stored")
            log.renewed = True
            clock.advance(2)
            until(lambda: len(publisher.sent) == 3, what="the second one is sent again")
            log.end = 4
            clock.advance(2)
            until(spool.is_empty, what="the second one is stored")
            assert metric("kvandal_agent_rows_total") == 16
