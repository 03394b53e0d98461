"""An agent whose broker is away for ten minutes: what was read arrives, in order and once, or is reported as lost.

The ten minutes pass in a moment, since the agent's clock is the test's; spool, broker and clients are the real ones.
"""

import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest
from kafka import KafkaConsumer, TopicPartition  # type: ignore[import-untyped]
from prometheus_client import CollectorRegistry

from catalogue import GPU, layout_of
from collectors.agent import Agent, ScheduledSource
from collectors.framer import FrameRule
from collectors.spool import Spool
from kvandal.broker import HOST, EmbeddedBroker, tied_to_parent
from stream.client import KafkaAddress
from stream.frame import FrameHeader, decode_frame
from stream.messages import EventMessage
from stream.publish import Publisher, ensure_topics
from stream.rows import Rows
from stream.seen import SeenFrames, Verdict
from stream.topics import EVENTS
from tests.servers.agent_fakes import START_S, FakeClock, FastForward, SyntheticSource
from tests.servers.ports import free_port
from tests.servers.stack import until

ROOT = Path(__file__).resolve().parents[2]
TEN_MINUTES = 600  # ticks at 1 Hz
GPUS = 8
PATIENCE_S = 60.0
ROUNDS_OF_KILLING = 3
LAYOUTS = {layout_of(GPU).fingerprint: layout_of(GPU)}

Frame = tuple[FrameHeader, Rows]


@pytest.fixture
def spool_path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


@contextmanager
def agent_over(
    spool: Spool, bootstrap: str, *, clock: FakeClock | None = None, frame_ticks: int = 10, ticks: int = TEN_MINUTES
) -> Iterator[Agent]:
    """An agent that is reading, its ten minutes over; the caller decides when it sends."""
    clock = clock or FakeClock()
    wait = FastForward(clock, ticks)
    agent = Agent(
        name="test",
        spool=spool,
        publisher=Publisher(KafkaAddress(bootstrap)),
        clock=clock,
        registry=CollectorRegistry(),
        frames=FrameRule(frame_ticks, 3600),
        wait=wait,
    )
    yield agent
    assert wait.done.is_set()


def read_ten_minutes(agent: Agent, source: SyntheticSource) -> None:
    agent.start([ScheduledSource(source, 1)])
    until(lambda: len(source.read_times) == TEN_MINUTES, what="ten minutes are read")
    agent.stop_reading(PATIENCE_S)


def send_everything(spool: Spool, clock: FakeClock) -> None:
    """Let time pass until all is sent: a topic that was not there yet is asked for again after a pause."""

    def is_empty_a_second_later() -> bool:
        clock.advance(1)
        return spool.is_empty()

    until(is_empty_a_second_later, what="the spool is empty")


def read_topic(bootstrap: str, topic: str, *, enough: Callable[[list[bytes]], bool]) -> list[bytes]:
    """Every value on the topic in the order of each partition, once there are enough."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
    values: list[bytes] = []
    with closing(consumer):
        consumer.assign([TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic))])
        deadline = time.monotonic() + PATIENCE_S
        while not enough(values):
            assert time.monotonic() < deadline, f"{len(values)} values on {topic}, which is not enough"
            for records in consumer.poll(200).values():
                values += [record.value for record in records]
    return values


def frames_of(values: Sequence[bytes]) -> list[Frame]:
    return [decode_frame(value, LAYOUTS) for value in values]


def once(frames: Sequence[Frame]) -> list[Frame]:
    """What ingest would store: each tick of a source and epoch once."""
    seen = SeenFrames()
    kept = []
    for header, rows in frames:
        verdict = seen.admit(header.source, header.epoch_ms, header.sequence, header.end_sequence)
        assert verdict is not Verdict.OVERLAP
        if verdict is Verdict.NEW:
            kept.append((header, rows))
    return kept


def times_by_source(frames: Sequence[Frame]) -> dict[int, list[int]]:
    """Seconds in the order of arrival, each as often as it has rows."""
    times: defaultdict[int, list[int]] = defaultdict(list)
    for header, rows in frames:
        times[header.source] += rows["time"].tolist()
    return times


def every_tick() -> list[int]:
    return [START_S + tick for tick in range(1, TEN_MINUTES + 1) for _ in range(GPUS)]


def test_ten_minutes_without_a_broker_arrive_in_order_and_once(spool_path: Path, tmp_path: Path) -> None:
    port = free_port()
    bootstrap = f"{HOST}:{port}"
    clock = FakeClock()
    with (
        closing(Spool(spool_path, limit_bytes=50 << 20)) as spool,
        agent_over(spool, bootstrap, clock=clock) as agent,
    ):
        agent.start_sending()
        read_ten_minutes(agent, SyntheticSource())
        assert not spool.is_empty()

        with EmbeddedBroker.start(tmp_path / "broker.log", port=port):
            ensure_topics(KafkaAddress(bootstrap), replication=1)
            send_everything(spool, clock)
            assert agent.stop(read_timeout_s=PATIENCE_S, drain_timeout_s=PATIENCE_S)
            frames = frames_of(read_topic(bootstrap, GPU.topic, enough=lambda values: len(values) >= 60))

    assert len(frames) == 60
    assert times_by_source(frames) == {1: every_tick()}


def test_what_was_read_arrives_in_order_also_when_the_agent_is_killed_while_draining(
    spool_path: Path, tmp_path: Path
) -> None:
    with (
        closing(Spool(spool_path, limit_bytes=50 << 20)) as spool,
        agent_over(spool, "127.0.0.1:1", frame_ticks=1) as agent,
    ):
        read_ten_minutes(agent, SyntheticSource())
    with EmbeddedBroker.start(tmp_path / "broker.log") as broker:
        ensure_topics(KafkaAddress(broker.bootstrap), replication=1)

        for _ in range(ROUNDS_OF_KILLING):
            drain_and_kill(spool_path, broker.bootstrap, after=50)
        with closing(Spool(spool_path, limit_bytes=50 << 20)) as spool:
            assert not spool.is_empty()  # or nothing was killed amid draining
        drain(spool_path, broker.bootstrap)
        arrived = read_topic(
            broker.bootstrap, GPU.topic, enough=lambda values: len(once(frames_of(values))) == TEN_MINUTES
        )

    frames = frames_of(arrived)
    assert len(frames) > TEN_MINUTES  # the kills left repeats, which ingest drops
    assert times_by_source(once(frames)) == {1: every_tick()}


def drain_and_kill(spool_path: Path, bootstrap: str, *, after: int) -> None:
    """SIGKILL the drainer once `after` values are acknowledged and not yet let go of."""
    process = start_draining(spool_path, bootstrap)
    assert process.stdout is not None
    with process.stdout as acknowledged:
        numbers = [acknowledged.readline() for _ in range(after)]
        process.kill()
    process.wait()
    assert all(numbers)


def drain(spool_path: Path, bootstrap: str) -> None:
    """Let a drainer finish, and end it."""
    process = start_draining(spool_path, bootstrap)
    assert process.stdout is not None
    with process.stdout, closing(Spool(spool_path, limit_bytes=50 << 20)) as spool:
        last = max(value.number for value in spool.take(10_000, urgent=False))
        while int(process.stdout.readline()) < last:
            pass
        until(spool.is_empty, what="the spool is empty")
        process.kill()
    process.wait()


def start_draining(spool_path: Path, bootstrap: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.integration.drain_spool", str(spool_path), bootstrap]
    return subprocess.Popen(tied_to_parent(command), stdout=subprocess.PIPE, text=True, cwd=ROOT)


@pytest.mark.parametrize("sending", [False, True], ids=["sending later", "sending all along"])
def test_what_a_small_spool_evicts_is_reported_exactly(spool_path: Path, tmp_path: Path, sending: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    port = free_port()
    bootstrap = f"{HOST}:{port}"
    source, clock = SyntheticSource(more_sources=(2, 3)), FakeClock()
    with closing(Spool(spool_path, limit_bytes=1 << 20)) as spool, agent_over(spool, bootstrap, clock=clock) as agent:
        if sending:
            agent.start_sending()
        read_ten_minutes(agent, source)

        with EmbeddedBroker.start(tmp_path / "broker.log", port=port):
            ensure_topics(KafkaAddress(bootstrap), replication=1)
            if not sending:
                agent.start_sending()
            send_everything(spool, clock)
            assert agent.stop(read_timeout_s=PATIENCE_S, drain_timeout_s=PATIENCE_S)
            values = read_topic(bootstrap, EVENTS.name, enough=lambda values: len(values) >= 3)
            lost = [msgspec.json.decode(value, type=EventMessage) for value in values]
            rows = 3 * TEN_MINUTES * GPUS - sum(event.count for event in lost)
            arrived = frames_of(
                read_topic(
                    bootstrap, GPU.topic, enough=lambda values: sum(h.rows for h, _ in frames_of(values)) >= rows
                )
            )

    assert sum(event.count for event in lost) > 0
    assert {event.attributes["certain"] for event in lost} == {"yes"}
    assert produced_but_not_arrived(arrived) == told_as_lost(lost)


def produced_but_not_arrived(arrived: Sequence[Frame]) -> dict[int, list[int]]:
    times = times_by_source(arrived)
    assert all(seconds == sorted(seconds) for seconds in times.values())
    return {
        source: [time_s for time_s in sorted(set(every_tick())) if time_s not in set(times.get(source, ()))]
        for source in (1, 2, 3)
    }


def told_as_lost(events: Sequence[EventMessage]) -> dict[int, list[int]]:
    """The seconds that the reports name, whose counts must be those seconds' rows."""
    seconds: defaultdict[int, list[int]] = defaultdict(list)
    for event in events:
        first_s, last_s = int(event.attributes["first_time_s"]), int(event.attributes["last_time_s"])
        assert event.count == (last_s - first_s + 1) * GPUS
        seconds[event.resource] += range(first_s, last_s + 1)
    return {source: sorted(times) for source, times in seconds.items()}
