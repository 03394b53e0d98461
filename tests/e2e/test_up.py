"""`kvandal up` on kept data: stopped, killed with all its children, killed amid its month; nothing lost or doubled."""

import re
import shutil
import sqlite3
import time
from dataclasses import dataclass
from functools import partial
from html import unescape
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests

from catalogue import TABLES
from dashboards.board import Page
from dashboards.boards.reliability import NO_XIDS
from dashboards.panels import NOTHING_HAPPENED
from kvandal.simulating import SimulatedSite
from storage.client import StoreAddress, connect
from stream.frame import FrameHeader, decode_header
from stream.topics import FRAME_TOPICS
from tests.servers.stack import Running, until

GPUS = 64
DAYS = 8  # of the month: long enough to be killed amid them
MONTH_TIMEOUT_S = 300.0
LIVE_TIMEOUT_S = 60.0
DOOR, PREVIEWS = "ClickHouse  ", "dashboards  "  # what stands before their addresses
GOOD_TO_BE_EMPTY = {
    NOTHING_HAPPENED, NO_XIDS, "every link is up", "no GPU asks for anything", "Asks Prometheus: Grafana shows it.",
}  # fmt: skip
MARGIN_S = 600  # of readings on both sides of the month

pytestmark = pytest.mark.timeout(700)


@dataclass(frozen=True, slots=True)
class Site:
    """A running `kvandal up` and the store behind it."""

    running: Running
    data: Path
    started_ms: int

    def ask(self, sql: str, **parameters: object) -> list[tuple[Any, ...]]:
        """What the store answers a reader without a password; Any is what its values are in Python."""
        client = connect(StoreAddress(self.door_url))
        return [tuple(row) for row in client.query(sql, parameters=parameters).result_rows]

    @property
    def door_url(self) -> str:
        self.running.wait_for(DOOR)
        return self.running.log.partition(DOOR)[2].split()[0]

    def wait_until_live(self, *, timeout_s: float = LIVE_TIMEOUT_S) -> None:
        """Wait until readings of this start are stored."""
        newest = "SELECT max(epoch_ms) FROM frames WHERE table_name = 'gpu' AND outcome = 'stored'"
        until(
            lambda: self._check() and self.ask(newest)[0][0] >= self.started_ms,
            what="live readings are stored",
            timeout_s=timeout_s,
        )

    def _check(self) -> bool:
        code = self.running.process.poll()
        assert code is None, f"kvandal up ended with {code}:\n{self.running.log}"
        return True


def start_up(data: Path) -> Site:
    name = f"{data.name}-up"
    (data.parent / f"{name}.log").unlink(missing_ok=True)
    arguments = ["up", "--source", "simulator", "--gpus", str(GPUS), "--days", str(DAYS), "--data", str(data)]
    return Site(Running.start(data.parent, name, *arguments, "--port", "0"), data, time.time_ns() // 1_000_000)


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of a site that has lived through its month, went live, and was stopped cleanly."""
    data = tmp_path_factory.mktemp("up") / "month"
    site = start_up(data)
    with site.running:
        site.wait_until_live(timeout_s=MONTH_TIMEOUT_S)
        assert_nothing_lost_or_doubled(site, starts=1)
        assert_dashboards_are_served(site)
        assert site.running.stop(timeout_s=60) == 0
    assert "Traceback" not in site.running.log + child_logs(data)
    assert spooled(data) == set()
    return data


@pytest.fixture
def data(month: Path, tmp_path: Path) -> Path:
    """A copy of that data, of one test's own."""
    shutil.copytree(month, tmp_path / "data", symlinks=True)
    return tmp_path / "data"


def test_a_restart_after_a_clean_stop_goes_on(data: Path) -> None:
    site = start_up(data)
    with site.running:
        before = gpu_rows(site)
        site.wait_until_live()
        assert gpu_rows(site) > before
        assert_nothing_lost_or_doubled(site, starts=2)
        assert site.running.stop(timeout_s=60) == 0
    assert "simulating a month" not in site.running.log


def test_a_restart_after_everything_was_killed_loses_nothing_that_was_spooled(data: Path) -> None:
    site = start_up(data)
    with site.running:
        site.wait_until_live()
        until(lambda: len(spooled(data)) > 3, what="frames are in the spool")
        site.running.kill()
    waiting = spooled(data)
    assert waiting

    site = start_up(data)
    with site.running:
        site.wait_until_live()
        until(lambda: waiting <= stored_frames(site), what="what was spooled is stored")
        assert_nothing_lost_or_doubled(site, starts=3)
        assert site.running.stop(timeout_s=60) == 0
    assert "Traceback" not in site.running.log + child_logs(data)


# The rows of an insert come first and their lines in `frames` last: a kill between the two is the hardest.
@pytest.mark.parametrize("first_seen_in", ["gpu", "frames"])
def test_a_month_that_was_cut_off_by_a_kill_ends_up_complete_and_once(
    month: Path, tmp_path: Path, first_seen_in: str
) -> None:
    data = tmp_path / "data"
    site = start_up(data)
    with site.running:
        begun = f"SELECT count() > 0 FROM {first_seen_in}"  # noqa: S608 - from the list above
        until(lambda: site.ask(begun) == [(1,)], what="a part of the month is stored", timeout_s=MONTH_TIMEOUT_S)
        site.running.kill()
    assert not (data / "site.npz").exists(), "the month was over before the kill"

    site = start_up(data)
    with site.running:
        site.wait_until_live(timeout_s=MONTH_TIMEOUT_S)
        assert_nothing_lost_or_doubled(site, starts=None)
        cut_off = month_digest(site)
        assert site.running.stop(timeout_s=60) == 0
    undisturbed = start_up(shutil.copytree(month, tmp_path / "undisturbed", symlinks=True))
    with undisturbed.running:
        assert month_digest(undisturbed) == cut_off


# --- what is checked


def gpu_rows(site: Site) -> int:
    ((rows,),) = site.ask("SELECT count() FROM gpu")
    return int(rows)


def month_digest(site: Site) -> dict[str, tuple[Any, ...]]:
    """Rows of the month by table, and a sum over the hashes of whole rows."""
    kept = msgspec.json.decode((site.data / "site.json").read_bytes(), type=SimulatedSite)
    return {
        table.name: site.ask(
            f"SELECT count(), sum(sipHash64(resource, time, {', '.join(m.column for m in table.metrics)})) "  # noqa: S608
            f"FROM {table.name} WHERE time BETWEEN {{first:UInt32}} AND {{last:UInt32}}",
            first=kept.month_start_s - MARGIN_S,
            last=kept.month_end_s + MARGIN_S,
        )[0]
        for table in TABLES
    }


def assert_nothing_lost_or_doubled(site: Site, *, starts: int | None) -> None:
    """No key twice, every epoch's frames without a gap from its first tick on, an epoch for each start."""
    for table in TABLES:
        ((rows, keys),) = site.ask(f"SELECT count(), uniqExact(resource, time) FROM {table.name}")  # noqa: S608
        assert rows == keys, f"{rows - keys} rows of {table.name} doubled"
    gaps = site.ask(
        "SELECT table_name, source, epoch_ms, min(sequence), sum(ticks), max(sequence + ticks) FROM frames "
        "WHERE outcome = 'stored' GROUP BY table_name, source, epoch_ms "
        "HAVING min(sequence) != 0 OR sum(ticks) != max(sequence + ticks)"
    )
    assert gaps == []
    assert site.ask("SELECT count() FROM frames WHERE outcome IN ('rejected', 'parked')") == [(0,)]
    if starts is not None:
        # The month is an epoch too.
        assert site.ask("SELECT uniqExact(epoch_ms) FROM frames WHERE table_name = 'gpu'") == [(starts + 1,)]


def assert_dashboards_are_served(site: Site) -> None:
    """At the address that it prints: the site's page, with a figure of the site's power now, and the month's pages."""
    address = site.running.log.partition(PREVIEWS)[2].split()[0]
    power = re.compile(r"Site power</h3><div class=\"stat\"><p>[\d.]+ kW")
    until(
        lambda: power.search(requests.get(address, timeout=LIVE_TIMEOUT_S).text) is not None,
        what="the site's page shows its power",
        timeout_s=LIVE_TIMEOUT_S,
    )
    kept = msgspec.json.decode((site.data / "site.json").read_bytes(), type=SimulatedSite)
    for page in Page:
        end = "now" if page is Page.PIPELINE else str(kept.month_end_s * 1000)
        # A range of a month needs hours, which are computed while the first readings go live.
        until(
            partial(is_full, f"{address}/d/{page}?to={end}"),
            what=f"no panel of {page} is empty",
            timeout_s=MONTH_TIMEOUT_S,
        )


def is_full(url: str) -> bool:
    """Whether nothing is missing on a page: no panel is empty but where that is good, or Prometheus' to answer."""
    answer = requests.get(url, timeout=LIVE_TIMEOUT_S)
    assert answer.ok, answer.text
    said = re.findall(r'<p class="none">([^<]*)</p>', answer.text)
    assert "<h3" in answer.text
    return {unescape(why) for why in said} <= GOOD_TO_BE_EMPTY


def stored_frames(site: Site) -> set[tuple[int, int, int, int]]:
    """Source, epoch, layout and sequence of every stored frame of the live part."""
    return set(site.ask("SELECT source, epoch_ms, layout, sequence FROM frames WHERE outcome = 'stored'"))


def spooled(data: Path) -> set[tuple[int, int, int, int]]:
    """The same of every frame that waits in the spool; of its files as they are, which are left alone."""
    copy = data.parent / f"{data.name}-spool"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for file in data.glob("spool.db*"):
        shutil.copy(file, copy)
    topics = tuple(topic.name for topic in FRAME_TOPICS)
    with sqlite3.connect(copy / "spool.db") as db:
        rows = db.execute("SELECT topic, value FROM frames").fetchall()
    db.close()
    return {_key(decode_header(value)) for topic, value in rows if topic in topics}


def _key(header: FrameHeader) -> tuple[int, int, int, int]:
    return header.source, header.epoch_ms, header.layout, header.sequence


def child_logs(data: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in sorted((data / "logs").glob("*.log")))
