"""Ticks and runners: aligned to the wall clock, no second twice, and no source that stops another."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from threading import Event, Lock, Thread

import msgspec
import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from catalogue import GPU, ResourceKind, layout_of
from collectors.agent import Agent, ScheduledSource
from collectors.counters import KeptCounter
from collectors.devices import DeviceReport, DeviceState
from collectors.framer import FrameRule
from collectors.runner import StagedCounters
from collectors.source import SourceUnavailableError
from collectors.spool import Spool
from collectors.ticks import Tick, Ticks
from stream.frame import FrameHeader, decode_frame
from stream.messages import EventMessage, InventoryMessage, JobMessage
from stream.rows import Rows
from stream.topics import EVENTS, INVENTORY
from tests.servers.agent_fakes import START_S, FakeClock, FakePublisher, FastForward, SyntheticSource
from tests.servers.stack import until

PATIENCE_S = 20.0
LAYOUTS = {layout_of(GPU).fingerprint: layout_of(GPU)}


# --- ticks


def test_ticks_are_multiples_of_the_interval() -> None:
    clock = FakeClock(START_S + 3.25)
    ticks = Ticks(10, clock)

    assert ticks.wait_s() == 6.75
    clock.advance(ticks.wait_s())
    assert ticks.next() == Tick(START_S + 10)


def test_waking_a_moment_too_early_reads_no_tick_twice() -> None:
    clock = FakeClock(START_S)
    ticks = Ticks(1, clock)
    ticks.next()
    clock.advance(0.999)

    assert ticks.next() == Tick(None)
    assert ticks.wait_s() == pytest.approx(0.001)


def test_ticks_that_pass_while_a_source_is_busy_are_counted() -> None:
    clock = FakeClock(START_S)
    ticks = Ticks(1, clock)
    ticks.next()
    clock.advance(5.2)

    assert ticks.next() == Tick(START_S + 5, busy=4)


def test_a_clock_that_is_set_ahead_is_no_busy_source() -> None:
    clock = FakeClock(START_S)
    ticks = Ticks(1, clock)
    ticks.next()
    clock.advance(1)
    clock.set_utc(START_S + 101)

    assert ticks.next() == Tick(START_S + 101, clock=100)


def test_after_the_clock_stepped_back_no_second_is_read_twice() -> None:
    clock = FakeClock(START_S)
    ticks = Ticks(1, clock)
    read = []
    for second in range(60):
        clock.advance(1)
        if second == 30:
            clock.set_utc(START_S + 21)  # ten seconds back
        tick = ticks.next()
        assert tick.time_s is None or tick.clock == 0
        read.append(tick.time_s)

    seconds = [time_s for time_s in read if time_s is not None]
    assert len(seconds) == len(set(seconds))
    assert read[30:40] == [None] * 10
    assert read[40:] == list(range(START_S + 31, START_S + 51))


def test_the_seconds_waited_for_after_a_step_back_are_counted_to_the_clock() -> None:
    clock = FakeClock(START_S)
    ticks = Ticks(1, clock)
    ticks.next()
    clock.advance(1)
    ticks.next()
    clock.advance(1)
    clock.set_utc(START_S)

    assert ticks.next() == Tick(None, clock=1)


def test_one_minute_in_a_wrong_year_does_not_silence_a_source() -> None:
    clock = FakeClock(START_S)
    ticks = Ticks(1, clock)
    ticks.next()
    clock.advance(1)
    clock.set_utc(START_S + 10 * 365 * 86_400)
    assert ticks.next().time_s == START_S + 10 * 365 * 86_400
    clock.advance(1)
    clock.set_utc(START_S + 2)

    assert ticks.next().time_s == START_S + 2


def test_a_restart_after_a_step_back_repeats_no_second_either() -> None:
    ticks = Ticks(1, FakeClock(START_S - 5), used=(START_S - 100, START_S))

    assert ticks.next().time_s is None


# --- an agent with synthetic sources


class Bench:
    """An agent whose clock runs as fast as it can, over a broker that takes everything."""

    def __init__(self, spool: Spool, clock: FakeClock, *, ticks: int, frame_ticks: int = 10) -> None:
        self.spool = spool
        self.registry = CollectorRegistry()
        self.wait = FastForward(clock, ticks)
        self.publisher = FakePublisher()
        self.agent = Agent(
            name="test",
            spool=spool,
            publisher=self.publisher,
            clock=clock,
            registry=self.registry,
            frames=FrameRule(frame_ticks, 3600),
            wait=self.wait,
        )

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def frames(self) -> list[tuple[FrameHeader, Rows]]:
        """The frames that wait in the spool."""
        return [decode_frame(value.value, LAYOUTS) for value in self.spool.take(1000, urgent=False)]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with closing(Spool(tmp_path / "spool.db", limit_bytes=100 << 20)) as spool:
        yield spool


def finish(bench: Bench) -> None:
    assert bench.wait.done.wait(PATIENCE_S)
    bench.agent.stop_reading(PATIENCE_S)


def test_every_tick_is_framed_once_in_order_and_the_rest_is_flushed(spool: Spool, clock: FakeClock) -> None:
    bench = Bench(spool, clock, ticks=25)
    bench.agent.start([ScheduledSource(SyntheticSource(), 1)])
    finish(bench)

    frames = bench.frames()
    assert [(header.sequence, header.ticks) for header, _ in frames] == [(0, 10), (10, 10), (20, 5)]
    times = [time_s for _, rows in frames for time_s in rows["time"].tolist()]
    assert times == [START_S + 1 + tick for tick in range(25) for _ in range(8)]


def test_a_source_that_hangs_stops_no_other_and_is_shown_as_down(
    spool: Spool, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    released = Event()
    sick, well = SyntheticSource("sick", source=1), SyntheticSource("well", source=2)
    sick.during_read = lambda: released.wait(PATIENCE_S)
    bench = Bench(spool, clock, ticks=40)
    bench.agent.start([ScheduledSource(sick, 1)])
    until(lambda: sick.read_times, what="the sick source is being read")

    bench.agent.start([ScheduledSource(well, 1)])
    assert bench.wait.done.wait(PATIENCE_S)
    with caplog.at_level(logging.WARNING):
        bench.agent.judge()

    assert bench.value("kvandal_agent_source_up", source="sick") == 0
    assert bench.value("kvandal_agent_source_up", source="well") == 1
    assert bench.value("kvandal_agent_source_age_seconds", source="sick") == pytest.approx(40, abs=1)
    assert len(well.read_times) >= 38
    assert "its read has not returned for" in caplog.text
    bench.agent.stop_reading(0.1)
    released.set()


def test_what_a_source_gave_before_it_hung_is_not_lost_at_the_end(spool: Spool, clock: FakeClock) -> None:
    released, source = Event(), SyntheticSource()
    source.during_read = lambda: len(source.read_times) > 3 and released.wait(PATIENCE_S)
    bench = Bench(spool, clock, ticks=10)
    bench.agent.start([ScheduledSource(source, 1)])
    until(lambda: len(source.read_times) == 4, what="the fourth read hangs")

    bench.agent.stop_reading(0.1)
    released.set()

    ((header, _),) = bench.frames()
    assert header.ticks == 3


@pytest.mark.parametrize("error", [SourceUnavailableError("no device"), ZeroDivisionError(), MemoryError("no room")])
def test_a_source_that_raises_is_down_and_read_again(spool: Spool, clock: FakeClock, error: Exception) -> None:
    source = SyntheticSource()

    def fail_for_a_while() -> None:
        source.failure = error if len(source.read_times) <= 5 else None
        if len(source.read_times) == 6:
            assert bench.value("kvandal_agent_source_up", source="synthetic") == 0

    source.during_read = fail_for_a_while
    bench = Bench(spool, clock, ticks=10)
    bench.agent.start([ScheduledSource(source, 1)])
    assert bench.wait.done.wait(PATIENCE_S)

    assert bench.value("kvandal_agent_source_up", source="synthetic") == 1
    finish(bench)
    assert sum(header.ticks for header, _ in bench.frames()) == 5


def test_a_source_that_cannot_tell_its_events_keeps_being_read(spool: Spool, clock: FakeClock) -> None:
    class Mute(SyntheticSource):
        def events(self) -> list[EventMessage]:
            raise OSError("the log is gone")

    bench = Bench(spool, clock, ticks=10)
    bench.agent.start([ScheduledSource(Mute(), 1)])
    finish(bench)

    assert sum(header.ticks for header, _ in bench.frames()) == 10


def test_ticks_missed_by_a_slow_source_are_counted(spool: Spool, clock: FakeClock) -> None:
    source = SyntheticSource()
    source.during_read = lambda: clock.advance(3.5)
    bench = Bench(spool, clock, ticks=5)
    bench.agent.start([ScheduledSource(source, 1)])
    finish(bench)

    assert bench.value("kvandal_agent_missed_ticks_total", source="synthetic", reason="busy") == 3 * 4
    assert bench.value("kvandal_agent_missed_ticks_total", source="synthetic", reason="clock") == 0


def test_a_new_start_of_sources_is_a_new_epoch(spool: Spool, clock: FakeClock) -> None:
    """Sequences begin again: under the old epoch ingest would take the frames for repeats."""
    bench = Bench(spool, clock, ticks=10)
    bench.agent.start([ScheduledSource(SyntheticSource(), 1)])
    finish(bench)
    clock.set_utc(START_S - 3600)  # even when the clock steps back in between
    bench.wait.ticks = 10
    bench.wait.done.clear()
    bench.agent.start([ScheduledSource(SyntheticSource(), 1)])
    finish(bench)

    (first, _), (second, _) = bench.frames()
    assert second.epoch_ms > first.epoch_ms
    assert (first.sequence, second.sequence) == (0, 0)


def test_counters_and_ticks_are_kept_with_the_frame_that_they_belong_to(spool: Spool, clock: FakeClock) -> None:
    counters, source = StagedCounters(spool), SyntheticSource()
    source.during_read = lambda: counters.put({"energy": KeptCounter(source.read_times[-1], 0, source.read_times[-1])})
    bench = Bench(spool, clock, ticks=15)
    bench.agent.start([ScheduledSource(source, 1, counters)])
    assert bench.wait.done.wait(PATIENCE_S)

    assert spool.counter("energy") == KeptCounter(START_S + 10, 0, START_S + 10)
    assert spool.counter("ticks/synthetic") == KeptCounter(START_S + 10, START_S + 1, START_S + 10)
    finish(bench)
    assert spool.counter("energy") == KeptCounter(START_S + 15, 0, START_S + 15)


def test_a_stop_closes_every_source_and_sends_what_was_read(spool: Spool, clock: FakeClock) -> None:
    sources = [SyntheticSource("a", source=1), SyntheticSource("b", source=2)]
    bench = Bench(spool, clock, ticks=14)
    bench.agent.start_sending()
    bench.agent.start([ScheduledSource(source, 1) for source in sources])
    assert bench.wait.done.wait(PATIENCE_S)

    assert bench.agent.stop(read_timeout_s=PATIENCE_S, drain_timeout_s=PATIENCE_S)

    assert all(source.closed for source in sources)
    rows = sum(decode_frame(sent.value, LAYOUTS)[0].rows for sent in bench.publisher.sent)
    assert rows == 8 * sum(len(source.read_times) for source in sources)


# --- what a source measures


class Inventory:
    """What a source says that it measures, and at which ticks it was asked."""

    def __init__(self, source: SyntheticSource, *answers: Sequence[InventoryMessage] | Exception) -> None:
        self.asked_at: list[int] = []
        self._source = source
        self._answers = list(answers)
        source.measured = self._answer

    def _answer(self) -> Sequence[InventoryMessage]:
        self.asked_at.append(len(self._source.read_times))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


DEVICE = InventoryMessage(resource=7, kind=ResourceKind.GPU, identity="GPU-7", name="GPU 7", valid_from_ms=0)


def names_told(spool: Spool) -> list[str]:
    told = [value.value for value in spool.take(1000, urgent=True) if value.topic == INVENTORY.name]
    return [msgspec.json.decode(value, type=InventoryMessage).name for value in told]


def events_told(spool: Spool) -> list[str]:
    told = [value.value for value in spool.take(10_000, urgent=True) if value.topic == EVENTS.name]
    return [msgspec.json.decode(value, type=EventMessage).id for value in told]


def event(name: str) -> EventMessage:
    return EventMessage(id=name, resource=7, time_ms=0, kind="leak")


def test_inventory_is_asked_again_while_it_is_empty_or_fails_and_then_every_ten_minutes(
    spool: Spool, clock: FakeClock
) -> None:
    source = SyntheticSource()
    inventory = Inventory(source, (), SourceUnavailableError("nobody answers"), (), [DEVICE])
    bench = Bench(spool, clock, ticks=1300)
    bench.agent.start([ScheduledSource(source, 1)])
    finish(bench)

    assert inventory.asked_at == [1, 2, 3, 4, 604, 1204]
    assert names_told(spool) == ["GPU 7"] * 3


def test_a_word_about_a_resource_is_signed_by_the_source_unless_it_is_signed_already(
    spool: Spool, clock: FakeClock
) -> None:
    source = SyntheticSource()
    signed = replace(DEVICE, name="GPU 8", attributes={"told_by": "topology"})
    Inventory(source, [DEVICE, signed])
    bench = Bench(spool, clock, ticks=1)
    bench.agent.start([ScheduledSource(source, 1)])
    finish(bench)

    told = [value.value for value in spool.take(1000, urgent=True) if value.topic == INVENTORY.name]
    words = [msgspec.json.decode(value, type=InventoryMessage).attributes["told_by"] for value in told]
    assert words == [source.name, "topology"]


def test_inventory_is_asked_when_the_source_says_that_it_changed(spool: Spool, clock: FakeClock) -> None:
    class Changing(SyntheticSource):
        def inventory_changed(self) -> bool:
            return len(self.read_times) in (20, 21)

    source = Changing()
    inventory = Inventory(source, [DEVICE])
    bench = Bench(spool, clock, ticks=50)
    bench.agent.start([ScheduledSource(source, 1)])
    finish(bench)

    assert inventory.asked_at == [1, 20, 21]


def test_events_survive_an_inventory_that_fails(spool: Spool, clock: FakeClock) -> None:
    source = SyntheticSource()
    source.happened = [event("leak-1")]
    Inventory(source, OSError("no names today"))
    bench = Bench(spool, clock, ticks=2)
    bench.agent.start([ScheduledSource(source, 1)])
    finish(bench)

    assert events_told(spool) == ["leak-1"]


def test_a_source_that_reads_but_cannot_name_its_devices_is_down_and_said_once(
    spool: Spool, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    source = SyntheticSource()
    Inventory(source, OSError("no names today " * 1000))
    bench = Bench(spool, clock, ticks=20)
    with caplog.at_level(logging.INFO):
        bench.agent.start([ScheduledSource(source, 1)])
        assert bench.wait.done.wait(PATIENCE_S)
        assert bench.value("kvandal_agent_source_up", source="synthetic") == 0
        finish(bench)

    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith("source fails: no names today")
    assert len(told) < 600
    assert sum(header.ticks for header, _ in bench.frames()) == 20


def test_an_event_that_cannot_be_written_is_lost_alone(spool: Spool, clock: FakeClock) -> None:
    source = SyntheticSource()
    source.happened = [event("first"), event("\ud800"), event("third")]
    bench = Bench(spool, clock, ticks=5)
    bench.agent.start([ScheduledSource(source, 1)])
    finish(bench)

    assert events_told(spool) == ["first", "third"]
    assert sum(header.ticks for header, _ in bench.frames()) == 5


# --- events between ticks


class Waking(SyntheticSource):
    """A source that calls when something happened."""

    def __init__(self, name: str = "synthetic", *, source: int = 1) -> None:
        super().__init__(name, source=source)
        self.wake: Callable[[], None] = lambda: None
        self.woken_before_first_read = False
        self.asking = 0
        self.most_asking = 0
        self.during_events: Callable[[], object] = lambda: None
        self._lock = Lock()

    def set_wake(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.woken_before_first_read = not self.read_times

    def tell(self, *names: str) -> None:
        with self._lock:
            self.happened += [event(name) for name in names]
        self.wake()

    def events(self) -> Sequence[EventMessage | JobMessage]:
        self.asking += 1
        self.most_asking = max(self.most_asking, self.asking)
        self.during_events()
        with self._lock:
            happened, self.happened = self.happened, []
        self.asking -= 1
        return happened


def test_an_event_is_spooled_at_once_and_no_tick_is_read_early(spool: Spool, clock: FakeClock) -> None:
    source = Waking()
    bench = Bench(spool, clock, ticks=3)
    bench.agent.start([ScheduledSource(source, 10)])
    assert bench.wait.done.wait(PATIENCE_S)  # from here on the runner waits for a tick that never comes
    source.tell("leak")
    until(lambda: events_told(spool) == ["leak"], what="the event is spooled")

    assert source.woken_before_first_read
    assert source.read_times == [START_S + 10, START_S + 20, START_S + 30]
    bench.agent.stop_reading(PATIENCE_S)


def test_an_event_does_not_wait_for_a_read_that_takes_long(spool: Spool, clock: FakeClock) -> None:
    source, released = Waking(), Event()
    source.during_read = lambda: released.wait(PATIENCE_S)
    bench = Bench(spool, clock, ticks=1)
    bench.agent.start([ScheduledSource(source, 1)])
    until(lambda: source.read_times, what="a read is under way")
    source.tell("leak")
    until(lambda: events_told(spool) == ["leak"], what="the event is spooled", timeout_s=PATIENCE_S / 2)

    released.set()
    finish(bench)
    assert sum(header.ticks for header, _ in bench.frames()) == 1


def test_what_is_spooled_between_ticks_takes_no_counters_along(spool: Spool, clock: FakeClock) -> None:
    """They belong to rows that are still being read: kept without them, their energy would be lost at a kill."""
    counters, source, released = StagedCounters(spool), Waking(), Event()

    def count_and_wait() -> None:
        counters.put({"energy": KeptCounter(1, 0, 1)})
        released.wait(PATIENCE_S)

    source.during_read = count_and_wait
    bench = Bench(spool, clock, ticks=1)
    bench.agent.start([ScheduledSource(source, 1, counters)])
    until(lambda: source.read_times, what="a read is under way")
    source.tell("leak")
    until(lambda: events_told(spool), what="the event is spooled", timeout_s=PATIENCE_S / 2)

    assert spool.counter("energy") is None
    released.set()
    finish(bench)
    assert spool.counter("energy") == KeptCounter(1, 0, 1)


def test_events_from_many_threads_come_once_each_and_are_never_asked_for_twice_at_a_time(
    spool: Spool, clock: FakeClock
) -> None:
    source = Waking()
    bench = Bench(spool, clock, ticks=200)
    bench.agent.start([ScheduledSource(source, 1)])
    names = [f"leak-{number}" for number in range(200)]
    threads = [Thread(target=source.tell, args=names[start::4]) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: len(events_told(spool)) == 200, what="all are spooled")
    finish(bench)

    assert sorted(events_told(spool)) == sorted(names)
    assert source.most_asking == 1
    assert len(source.read_times) == 200


def test_events_that_hang_do_not_keep_the_agent_from_stopping(spool: Spool, clock: FakeClock) -> None:
    source, released = Waking(), Event()
    bench = Bench(spool, clock, ticks=5)
    bench.agent.start([ScheduledSource(source, 1)])
    assert bench.wait.done.wait(PATIENCE_S)
    source.during_events = lambda: released.wait(PATIENCE_S)
    source.tell("leak")
    until(lambda: source.asking, what="the events are asked for")

    started_s = time.monotonic()
    bench.agent.stop_reading(0.2)
    assert time.monotonic() - started_s < 5
    released.set()
    assert sum(header.ticks for header, _ in bench.frames()) == 5


# --- many devices


def test_how_devices_do_is_shown_after_the_tick(spool: Spool, clock: FakeClock) -> None:
    class Gateway(SyntheticSource):
        def devices(self) -> Sequence[DeviceReport]:
            return [DeviceReport("cdu-1", DeviceState.OK, took_s=0.5), DeviceReport("cdu-2", DeviceState.SLOW, "late")]

    bench = Bench(spool, clock, ticks=1)
    bench.agent.start([ScheduledSource(Gateway(), 1)])
    assert bench.wait.done.wait(PATIENCE_S)

    assert bench.value("kvandal_agent_device_up", source="synthetic", device="cdu-1") == 1
    assert bench.value("kvandal_agent_device_up", source="synthetic", device="cdu-2") == 0
    assert bench.value("kvandal_agent_device_state", source="synthetic", device="cdu-2", state="slow") == 1
    assert bench.value("kvandal_agent_device_seconds", source="synthetic", device="cdu-1", asked="read") == 0.5
    finish(bench)
    assert bench.value("kvandal_agent_device_up", source="synthetic", device="cdu-1") is None


def test_a_source_that_cannot_say_how_its_devices_do_keeps_being_read(spool: Spool, clock: FakeClock) -> None:
    class Confused(SyntheticSource):
        def devices(self) -> Sequence[DeviceReport]:
            raise KeyError("cdu-1")

    bench = Bench(spool, clock, ticks=10)
    bench.agent.start([ScheduledSource(Confused(), 1)])
    finish(bench)

    assert sum(header.ticks for header, _ in bench.frames()) == 10
