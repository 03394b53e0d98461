"""A hundred thousand ticks in fast motion, through spool and sender: the agent's memory does not grow."""

import os
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from collectors.agent import Agent, ScheduledSource
from collectors.framer import FrameRule
from collectors.spool import Spool
from tests.servers.agent_fakes import FakeClock, FakePublisher, FastForward, SyntheticSource

WARM_UP_TICKS = 10_000
TICKS = 100_000
GROWTH_BYTES = 4 << 20  # far below a leak of one row a tick (90 MB), above what allocators move about
PATIENCE_S = 200.0


@pytest.mark.parametrize("away", [False, True], ids=["broker there", "broker away"])
def test_memory_does_not_grow_over_a_hundred_thousand_ticks(tmp_path: Path, away: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    clock, source, publisher = FakeClock(), SyntheticSource(), FakePublisher(keeps=False)
    source.keeps_times = False
    publisher.away = away
    registry, wait = CollectorRegistry(), FastForward(clock, WARM_UP_TICKS)
    with closing(Spool(tmp_path / "spool.db", limit_bytes=1 << 20)) as spool:
        agent = Agent(
            name="test",
            spool=spool,
            publisher=publisher,
            clock=clock,
            registry=registry,
            frames=FrameRule(10, 3600),
            wait=wait,
        )
        agent.start_sending()
        agent.start([ScheduledSource(source, 1)])
        assert wait.done.wait(PATIENCE_S)
        agent.stop_reading(PATIENCE_S)
        generate_latest(registry)
        before = resident_bytes()

        wait.ticks, wait.done = TICKS - WARM_UP_TICKS, type(wait.done)()
        agent.start([ScheduledSource(source, 1)])
        assert wait.done.wait(PATIENCE_S)
        agent.stop_reading(PATIENCE_S)
        generate_latest(registry)
        grown = resident_bytes() - before
        agent.stop(read_timeout_s=1.0, drain_timeout_s=0.1 if away else PATIENCE_S)

    assert grown < GROWTH_BYTES
    assert bool(publisher.acknowledged) is not away


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
