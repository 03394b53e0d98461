"""The source of topology files: what it tells when, and what it does when files change or are wrong."""

import os
import re
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from catalogue import ResourceKind, resource_id
from collectors.devices import DeviceState
from collectors.facility import gateway_id
from collectors.source import ChangingSource, DeviceSource, Source, SourceUnavailableError
from collectors.topology.settings import ReconciliationSettings, TopologySettings
from collectors.topology.source import TopologySource, read_tree
from tests.servers.agent_fakes import FakeClock

NOW_S = 4_000_000_000  # in 2096
GUIDE = Path(__file__).resolve().parents[2] / "docs/guides/topology.md"

SITE = '[[site]]\nidentity = "S"\n[[hall]]\nidentity = "H"\nparent = "S"\n'
RACK = '[[rack]]\nidentity = "R"\nname = "{name}"\nparent = "H"\n'


class Folder:
    """Topology files with times that a test sets, and a source that reads them."""

    def __init__(self, path: Path, *names: str) -> None:
        self.clock = FakeClock(NOW_S)
        self.path = path
        self.files = [path / name for name in names]
        self.source = self.open()

    def open(self) -> TopologySource:
        settings = TopologySettings(files=tuple(str(file) for file in self.files))
        return TopologySource(settings, gateway="gateway-1", clock=self.clock)

    def write(self, text: str, file: int = 0) -> None:
        """Put a new file in the place of the old one, as people and configuration tools do."""
        fresh = self.path / "fresh"
        fresh.write_text(text)
        # The inode's own time cannot be set: so the source lives in a year that no test will see.
        os.utime(fresh, (self.clock.utc_ms() / 1000,) * 2)
        fresh.replace(self.files[file])

    def names(self) -> dict[str, str]:
        """What is told: names by identity."""
        return {word.identity: word.name for word in self.source.inventory()}

    def complaint(self) -> str:
        with pytest.raises(SourceUnavailableError) as caught:
            self.source.read(NOW_S)
        return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path, "site.toml")


def test_it_is_a_source_whose_files_can_change(folder: Folder) -> None:
    source: Source = folder.source
    assert isinstance(source, ChangingSource)
    assert isinstance(source, DeviceSource)
    assert source.name == "topology"


def test_it_tells_what_its_files_say_under_its_own_name(folder: Folder) -> None:
    folder.write(SITE + RACK.format(name="rack 1"))
    assert folder.source.read(NOW_S) == ()
    rack = folder.source.inventory()[-1]
    assert (rack.resource, rack.parent) == (resource_id(ResourceKind.RACK, "R"), resource_id(ResourceKind.HALL, "H"))
    assert rack.source == gateway_id("gateway-1", "topology")
    assert rack.valid_from_ms == NOW_S * 1000
    assert [report.state for report in folder.source.devices()] == [DeviceState.OK]


def test_it_says_so_when_there_is_something_new_to_tell(folder: Folder) -> None:
    folder.write(SITE + RACK.format(name="rack 1"))
    folder.source.read(NOW_S)
    assert folder.source.inventory_changed()
    assert folder.names()["R"] == "rack 1"
    assert not folder.source.inventory_changed()
    folder.clock.advance(60)
    folder.write(SITE + RACK.format(name="rack 2"))
    folder.source.read(NOW_S + 60)
    assert folder.source.inventory_changed()
    assert folder.names()["R"] == "rack 2"
    assert folder.source.inventory()[-1].valid_from_ms == (NOW_S + 60) * 1000


def test_a_file_that_is_only_touched_changes_nothing(folder: Folder) -> None:
    folder.write(SITE)
    folder.source.read(NOW_S)
    told = folder.source.inventory()
    folder.clock.advance(60)
    folder.write(SITE)
    folder.source.read(NOW_S + 60)
    assert not folder.source.inventory_changed()
    assert folder.source.inventory() == told


def test_after_a_restart_the_same_file_says_the_same(folder: Folder) -> None:
    folder.write(SITE)
    told = folder.source.inventory()
    folder.clock.advance(3600)
    assert folder.open().inventory() == told


def test_a_planned_move_is_told_when_it_has_come_about(folder: Folder) -> None:
    due = datetime.fromtimestamp(NOW_S + 100, UTC).isoformat()
    later = f'[[rack]]\nidentity = "R"\nname = "moved"\nvalid_from = {due}\n'
    folder.write(SITE + RACK.format(name="rack 1") + later)
    folder.source.read(NOW_S)
    assert folder.names()["R"] == "rack 1"
    folder.clock.advance(99)
    assert not folder.source.inventory_changed()
    folder.clock.advance(1)
    assert folder.source.inventory_changed()
    told = [(word.name, word.valid_from_ms) for word in folder.source.inventory() if word.identity == "R"]
    assert told == [("rack 1", NOW_S * 1000), ("moved", (NOW_S + 100) * 1000)]
    assert not folder.source.inventory_changed()


def test_while_a_file_is_wrong_what_it_said_before_stays(folder: Folder) -> None:
    folder.write(SITE + RACK.format(name="rack 1"))
    folder.source.read(NOW_S)
    told = folder.source.inventory()
    folder.write(SITE + '[[rack]]\nidentity = "R"\nparent = "nowhere"\n')
    assert (
        "rack R: parent nowhere is in none of the files; add an entry for it, or correct the name" in folder.complaint()
    )
    assert folder.complaint()  # as long as it is so
    assert folder.source.inventory() == told
    (report,) = folder.source.devices()
    assert report.state is DeviceState.NONSENSE
    assert "parent nowhere" in report.why
    folder.write(SITE)
    folder.source.read(NOW_S)
    assert set(folder.names()) == {"S", "H"}
    assert [report.state for report in folder.source.devices()] == [DeviceState.OK]


def test_a_wrong_file_is_told_of_in_the_log_once(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    folder.write("[[rack]]\n" * 100)
    for tick in range(10):
        with pytest.raises(SourceUnavailableError):
            folder.source.read(NOW_S + tick)
    assert len(caplog.records) == 1


def test_a_file_that_is_not_there_is_unreachable_and_the_others_wait(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "site.toml", "racks.csv")
    folder.write(SITE)
    assert "racks.csv cannot be read (No such file or directory); put it there, or correct" in folder.complaint()
    assert folder.source.inventory() == ()
    assert [report.state for report in folder.source.devices()] == [DeviceState.OK, DeviceState.UNREACHABLE]
    folder.write("kind,identity,parent\nrack,R,H\n", file=1)
    folder.source.read(NOW_S)
    assert set(folder.names()) == {"S", "H", "R"}


def test_a_mistake_between_two_files_is_blamed_on_the_one_that_makes_it(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "site.toml", "racks.csv")
    folder.write(SITE)
    folder.write("kind,identity,parent\nrack,R,S\n", file=1)
    assert "racks.csv line 2: rack R: parent S is a site" in folder.complaint()
    assert [report.state for report in folder.source.devices()] == [DeviceState.OK, DeviceState.NONSENSE]


def test_a_folder_in_place_of_a_file_ends_nothing(folder: Folder) -> None:
    folder.files[0].mkdir()
    assert "cannot be read (Is a directory)" in folder.complaint()


def test_before_the_first_look_nothing_is_known_of_the_files(folder: Folder) -> None:
    assert [report.state for report in folder.source.devices()] == [DeviceState.UNKNOWN]
    assert folder.source.events() == ()
    folder.source.close()
    folder.source.close()


# The guide


def test_the_example_in_the_guide_is_one(tmp_path: Path) -> None:
    blocks = re.findall(r"```(?:toml|csv)\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    agent, site, trays = blocks
    settings = msgspec.toml.decode(agent)["topology"]
    assert len(msgspec.convert(settings, TopologySettings).files) == 2
    (tmp_path / "site.toml").write_text(site)
    (tmp_path / "trays.csv").write_text(trays)
    tree = read_tree([tmp_path / "site.toml", tmp_path / "trays.csv"], now_ms=NOW_S * 1000)
    assert tree.at((ResourceKind.RACK, "NO-K1-R014"), NOW_S * 1000).parent == (ResourceKind.ROW, "K1-3")
    ranks = re.search(r"`\[reconciliation\] (ranks = .*?)`", GUIDE.read_text())
    assert ranks is not None
    assert msgspec.convert(msgspec.toml.decode(ranks[1]), ReconciliationSettings).ranks[0] == "topology"
