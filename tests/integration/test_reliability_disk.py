"""Full disks, under the spool and under the database: what is acknowledged stays, the rest waits or is counted."""

from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from catalogue import GPU
from collectors.agent import Agent, ScheduledSource
from collectors.framer import FrameRule
from collectors.spool import Outgoing, Spool, SpoolError
from storage import schema
from storage.client import connect
from tests.servers.agent_fakes import FakeClock, FakePublisher, FastForward, SyntheticSource
from tests.servers.kafka import KafkaCluster
from tests.servers.small_disk import fill, small_disk
from tests.servers.stack import (
    Fleet,
    StoreServer,
    assert_minutes_agree,
    fresh_topics,
    publish,
    start_ingest,
    stored_rows,
    until,
)

SETTINGS = {
    "KVANDAL_INGEST_INSERT_ROWS": "2000",
    "KVANDAL_INGEST_INSERT_AGE_S": "1",
    "KVANDAL_INGEST_SESSION_TIMEOUT_S": "6",
}
PATIENCE_S = 30.0


@pytest.fixture
def kafka(apache_kafka: KafkaCluster) -> Iterator[str]:
    with fresh_topics(apache_kafka.bootstrap, partitions=1):
        yield apache_kafka.bootstrap


def test_a_spool_on_a_full_disk_refuses_what_is_new_keeps_what_it_has_and_recovers(tmp_path: Path) -> None:
    """While the disk is full it hands nothing out either, since it notes first what it hands out."""
    with small_disk(tmp_path / "disk", 4) as disk, closing(Spool(disk / "spool.db", limit_bytes=1 << 30)) as spool:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(1 << 20))
        taken = add_until_it_refuses(spool)
        assert taken > 0
        ballast.unlink()

        values = spool.take(10_000, urgent=False)
        assert [value.value for value in values] == [outgoing(number).value for number in range(taken)]
        spool.remove([value.number for value in values])
        spool.add([outgoing(taken)])


def add_until_it_refuses(spool: Spool) -> int:
    """How many values the spool took."""
    for number in range(10_000):
        try:
            spool.add([outgoing(number)])
        except SpoolError as error:
            assert "free space or permissions are needed" in str(error)  # noqa: PT017 - which call raises is not known
            return number
    raise AssertionError("the spool never refused")


def test_an_agent_on_a_full_disk_goes_on_counts_what_it_loses_and_spools_again_when_there_is_room(
    tmp_path: Path,
) -> None:
    clock, source, registry = FakeClock(), SyntheticSource(), CollectorRegistry()
    with small_disk(tmp_path / "disk", 8) as disk, closing(Spool(disk / "spool.db", limit_bytes=1 << 30)) as spool:
        wait = FastForward(clock, 50)
        agent = Agent(
            name="test", spool=spool, publisher=FakePublisher(), clock=clock, registry=registry,
            frames=FrameRule(10, 3600), wait=wait,
        )  # fmt: skip
        for ticks, full in ((50, False), (50, True), (50, False)):
            ballast = fill(disk) if full else None
            wait.ticks, wait.done = ticks, type(wait.done)()
            agent.start([ScheduledSource(source, 1)])
            assert wait.done.wait(PATIENCE_S)
            agent.stop_reading(PATIENCE_S)
            if ballast:
                ballast.unlink()
        values = spool.take(10_000, urgent=False)

    lost = metric(registry, "kvandal_agent_lost_rows_total")
    spooled = sum(value.rows for value in values)
    assert lost > 0
    assert spooled > 0
    assert spooled + lost == 8 * len(source.read_times)


def test_ingest_waits_while_the_disk_of_the_database_is_full_and_then_stores_every_row_once(
    kafka: str, tmp_path: Path
) -> None:
    frames = list(islice(Fleet(11, sources=4, ticks=60).frames(), 60))
    first, later = frames[:20], frames[20:]
    with small_disk(tmp_path / "disk", 400) as disk, StoreServer.start(disk / "store") as server:
        schema.apply(connect(server.address()))
        for frame in first:
            publish(kafka, frame.topic, [frame.value], key=frame.source)
        with start_ingest(tmp_path, "ingest", kafka, server.address("ingest"), SETTINGS) as ingest:
            store = connect(server.address())
            rows = sum(len(frame.rows) for frame in first)
            until(lambda: store.command("SELECT count() FROM gpu") == rows, what="the first frames are stored")

            ballast = fill(disk)
            seen = len(ingest.log)
            for frame in later:
                publish(kafka, frame.topic, [frame.value], key=frame.source)
            ingest.wait_for("waiting: ", after=seen)
            assert ingest.process.poll() is None
            ballast.unlink()

            until(lambda: stored_frames(server) == len(frames), what="all is stored when there is room again")
            assert ingest.stop() == 0
        assert "Traceback" not in ingest.log
        store = connect(server.address())
        truth = np.sort(np.concatenate([frame.rows for frame in frames]), order=["resource", "time"])
        np.testing.assert_array_equal(stored_rows(store, GPU), truth)
        assert_minutes_agree(store, GPU)


def stored_frames(server: StoreServer) -> int:
    return int(str(connect(server.address()).command("SELECT count() FROM frames WHERE outcome = 'stored'")))


def outgoing(number: int) -> Outgoing:
    value = number.to_bytes(8, "little") + bytes(8192)
    return Outgoing(GPU.topic, 7, value, 1, first_time=1000 + number, last_time=1000 + number)


def metric(registry: CollectorRegistry, name: str) -> float:
    """The sum of one counter over its labels."""
    lines = generate_latest(registry).decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))
