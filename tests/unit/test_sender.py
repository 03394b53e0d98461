"""The sender: what leaves the spool, when, and how often it is sent."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from collectors.exposition import AgentMetrics
from collectors.sender import Confirmations, Sender
from collectors.spool import Evicted, Outgoing, Spool
from stream.messages import EventMessage
from stream.publish import Acknowledged, TopicRefusedError, UnansweredError
from stream.topics import EVENTS
from tests.servers.agent_fakes import FakeClock, FakePublisher
from tests.servers.stack import until

TOPIC, OTHER = "kvandal.gpu", "kvandal.tray"
KIB = 1024


def frame(number: int, *, size: int = 100, topic: str = TOPIC) -> Outgoing:
    return Outgoing(topic, 1, number.to_bytes(4, "big").ljust(size), 8, 10 * number, 10 * number + 9)


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
) -> Iterator[Callable[..., float]]:
    """A running sender; gives the value of one of its metrics by name and topic."""
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
        yield lambda name, topic=TOPIC: registry.get_sample_value(name, {"topic": topic}) or 0.0
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
            until(lambda: len(publisher.sent) == 5, what="one topic takes half of that half")
            spool.add([frame(number, size=KIB) for number in range(20, 25)])
            for sent in list(publisher.sent):
                sent.acknowledged(Acknowledged(0, number_of(sent.value)))
            publisher.silent = False
            for sent in publisher.sent[5:]:
                sent.acknowledged(Acknowledged(0, number_of(sent.value)))
            until(spool.is_empty, what="the spool is empty")

    frames = [sent for sent in publisher.sent if sent.topic == TOPIC]
    assert sorted({number_of(sent.value) for sent in frames}) == [*range(5), *range(10, 25)]


def test_gaps_are_reported_once_somebody_listens_and_not_before(tmp_path: Path) -> None:
    publisher, clock = FakePublisher(), FakeClock()
    publisher.away = True
    with closing(Spool(tmp_path / "spool.db", limit_bytes=10 * KIB)) as spool, sending(spool, publisher, clock=clock):
        for number in range(50):
            spool.add([frame(number, size=KIB)])
        assert spool.take(10, urgent=True) == []  # no report waits in the full spool
        tries = len(publisher.tried)
        publisher.away = False
        until(lambda: spool.is_empty() and len(publisher.sent) > 10, what="the spool is empty, and the report out")

    arrived = {number_of(sent.value) for sent in publisher.sent if sent.topic == TOPIC}
    reports = [msgspec.json.decode(sent.value, type=EventMessage) for sent in publisher.sent if sent.topic != TOPIC]
    assert 9 <= len(arrived) <= 15  # what was being tried when room was needed stayed
    assert sum(report.count for report in reports) == (50 - len(arrived)) * 8
    assert len(reports) <= 1 + tries  # a frame that is being tried may split a gap, and nothing else does


# --- topics that take no values


def numbers_sent(publisher: FakePublisher, topic: str) -> list[int]:
    return [number_of(sent.value) for sent in publisher.sent if sent.topic == topic]


def test_a_missing_topic_holds_up_no_other_and_goes_on_where_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publisher, clock = FakePublisher(), FakeClock()
    publisher.missing = {TOPIC}
    with closing(Spool(tmp_path / "spool.db", limit_bytes=KIB * KIB)) as spool:
        spool.add([frame(number) for number in range(700)])
        spool.add([frame(number, topic=OTHER) for number in range(50)])
        with caplog.at_level(logging.INFO), sending(spool, publisher, clock=clock) as metric:
            until(lambda: metric("kvandal_agent_rows_total", OTHER) == 400, what="the other topic has its frames")
            assert metric("kvandal_agent_topic_blocked") == 1
            assert metric("kvandal_agent_topic_blocked", OTHER) == 0
            publisher.missing = set()
            clock.advance(60)
            until(spool.is_empty, what="the spool is empty")
            assert metric("kvandal_agent_topic_blocked") == 0
            assert metric("kvandal_agent_rows_total") == 700 * 8

    assert numbers_sent(publisher, TOPIC) == list(range(700))
    assert [sent.alone for sent in publisher.sent if sent.topic == TOPIC] == [True] + [False] * 699
    assert publisher.renewed == 0  # nobody else's values were sent twice
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"topic takes no values, the others go on: {TOPIC}: it does not exist", "topic takes values again"]


def test_a_topic_that_is_tried_again_is_tried_with_one_value(tmp_path: Path) -> None:
    publisher, clock = FakePublisher(), FakeClock()
    publisher.missing = {TOPIC}
    with closing(Spool(tmp_path / "spool.db", limit_bytes=KIB * KIB)) as spool:
        spool.add([frame(number) for number in range(10)])
        with sending(spool, publisher, clock=clock) as metric:
            until(lambda: metric("kvandal_agent_topic_blocked") == 1, what="the topic is set aside")
            for _ in range(3):
                settle(spool)
            assert publisher.tried.count(TOPIC) == 1
            clock.advance(1)
            settle(spool)
            until(lambda: publisher.tried.count(TOPIC) == 2, what="it is tried again")
            clock.advance(1)
            settle(spool)
            assert publisher.tried.count(TOPIC) == 2  # the second pause is two seconds
            publisher.missing, publisher.mute = set(), {TOPIC}
            clock.advance(1)
            until(lambda: numbers_sent(publisher, TOPIC), what="it is tried a third time")
            settle(spool)
            assert numbers_sent(publisher, TOPIC) == [0]


def settle(spool: Spool) -> None:
    """Let the sender go round at least once: it takes from another topic what it is given."""
    spool.add([frame(0, topic=OTHER)])
    until(lambda: not spool.take(1, urgent=False, topic=OTHER), what="the sender has gone round")


def test_a_topic_without_answers_leaves_room_for_the_others(tmp_path: Path) -> None:
    publisher = FakePublisher()
    publisher.mute = {TOPIC}
    with closing(Spool(tmp_path / "spool.db", limit_bytes=KIB * KIB)) as spool:
        spool.add([frame(number) for number in range(2000)])
        with sending(spool, publisher) as metric:
            until(lambda: len(numbers_sent(publisher, TOPIC)) == 500, what="half of all that may be on its way is")
            spool.add([frame(number, topic=OTHER) for number in range(2000)])
            until(lambda: metric("kvandal_agent_rows_total", OTHER) == 2000 * 8, what="the other topic has its frames")


def test_a_topic_that_times_out_while_others_are_answered_is_set_aside(tmp_path: Path) -> None:
    publisher = FakePublisher()
    publisher.mute = {TOPIC}
    with closing(Spool(tmp_path / "spool.db", limit_bytes=KIB * KIB)) as spool:
        spool.add([frame(number) for number in range(3)])
        with sending(spool, publisher) as metric:
            until(lambda: len(publisher.sent) == 3, what="three are on their way")
            spool.add([frame(0, topic=OTHER)])
            until(lambda: metric("kvandal_agent_rows_total", OTHER) == 8, what="the other topic is answered")
            for sent in publisher.sent[:3]:
                sent.failed(UnansweredError(f"{TOPIC}: 120 s have passed"))
            until(lambda: metric("kvandal_agent_topic_blocked") == 1, what="the topic is set aside")
            assert metric("kvandal_agent_rows_total") == 0


def test_a_time_out_while_nobody_is_answered_is_the_brokers(tmp_path: Path) -> None:
    publisher = FakePublisher()
    publisher.silent = True
    with closing(Spool(tmp_path / "spool.db", limit_bytes=KIB * KIB)) as spool:
        spool.add([frame(0), frame(0, topic=OTHER)])
        with sending(spool, publisher) as metric:
            until(lambda: len(publisher.sent) == 2, what="both are on their way")
            publisher.silent = False
            publisher.sent[0].failed(UnansweredError(f"{TOPIC}: 120 s have passed"))
            until(spool.is_empty, what="both were sent again")
            assert metric("kvandal_agent_topic_blocked") == 0
    assert publisher.renewed == 1


def test_what_is_refused_amid_others_stops_all_of_them_and_goes_on_without_its_topic(tmp_path: Path) -> None:
    """Nothing may overtake what was refused: the connection is given up, and what it carried is sent again."""
    publisher, clock = FakePublisher(), FakeClock()
    publisher.silent = True
    with closing(Spool(tmp_path / "spool.db", limit_bytes=KIB * KIB)) as spool:
        spool.add([frame(number) for number in range(3)])
        spool.add([frame(number, topic=OTHER) for number in range(3)])
        with sending(spool, publisher, clock=clock) as metric:
            until(lambda: len(publisher.sent) == 6, what="all are on their way")
            publisher.silent = False
            publisher.sent[1].failed(TopicRefusedError(f"{TOPIC}: a value is larger than it takes"))
            until(lambda: metric("kvandal_agent_rows_total", OTHER) == 24, what="the other topic has its frames")
            assert metric("kvandal_agent_topic_blocked") == 1
            clock.advance(1)
            until(spool.is_empty, what="the spool is empty")

    assert numbers_sent(publisher, TOPIC)[3:] == [0, 1, 2]
    assert publisher.renewed == 1


def test_what_a_topic_refused_is_lost_for_certain_when_it_makes_room(tmp_path: Path) -> None:
    publisher = FakePublisher()
    publisher.missing = {TOPIC}
    with closing(Spool(tmp_path / "spool.db", limit_bytes=4 * KIB)) as spool:
        spool.add([frame(number, size=KIB) for number in range(4)])
        with sending(spool, publisher) as metric:
            until(lambda: metric("kvandal_agent_topic_blocked") == 1, what="the topic is set aside")
            evicted = spool.add([frame(number, size=KIB) for number in range(4, 6)])

    assert [(gap.first_time, gap.rows, gap.sent) for gap in evicted] == [(0, 8, False), (10, 8, False)]


def test_gaps_are_not_reported_while_the_topic_of_reports_is_missing(tmp_path: Path) -> None:
    publisher, clock = FakePublisher(), FakeClock()
    publisher.missing = {EVENTS.name}
    alarm = Outgoing(EVENTS.name, 7, bytes(100), urgent=True)
    with closing(Spool(tmp_path / "spool.db", limit_bytes=4 * KIB)) as spool:
        spool.add([alarm])
        with sending(spool, publisher, clock=clock) as metric:
            until(lambda: metric("kvandal_agent_topic_blocked", EVENTS.name) == 1, what="events are set aside")
            publisher.away = True
            for number in range(10):
                spool.add([frame(number, size=KIB)])
            publisher.away = False
            for _ in range(5):
                clock.advance(60)
                settle(spool)
            assert spool.size_bytes == 100  # nothing but the alarm waits

            publisher.missing = set()
            clock.advance(60)
            until(lambda: reports_in(publisher) and spool.is_empty(), what="the report is out")

    # One report, or more where the sender was trying a frame in the middle when room was needed: that one stayed.
    assert sum(told.count for told in reports_in(publisher)) == 8 * (10 - len(numbers_sent(publisher, TOPIC)))


def reports_in(publisher: FakePublisher) -> list[EventMessage]:
    return [msgspec.json.decode(s.value, type=EventMessage) for s in publisher.sent if s.value.startswith(b"{")]


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
