"""What incidents remember: a process that follows another knows what that one knew."""

from pathlib import Path

from alerts.incident import Alarm
from alerts.incidents import Incidents
from alerts.memory import MemoryFile, Position
from alerts.replay_site import START_MS, ReplaySite
from alerts.telling import Links
from tests.alerts.site import bus_alarm, xid

SITE = ReplaySite()
HERE = {("kvandal.events", 0): Position("an id", 17)}


def incidents(file: MemoryFile) -> Incidents:
    return Incidents(SITE.tree(), Links(), memory=file.load()[0])


def shown(alarms: list[Alarm]) -> list[tuple[str, int, int | None, bool]]:
    return sorted((alarm.id, alarm.starts_ms, alarm.ends_ms, alarm.is_sent) for alarm in alarms)


def test_everything_is_remembered(tmp_path: Path) -> None:
    file = MemoryFile(tmp_path / "state.db")
    first = incidents(file)
    for n in range(4):
        first.see(xid(SITE.gpu(0, 0, n), 119, n, count=n + 1), START_MS + 10_000)
    first.see(bus_alarm("leak", SITE.rack(2), 5, stands=True), START_MS + 10_000)
    first.advance(START_MS + 20_000)
    file.save(first.take_changes(), HERE)
    file.close()

    again = MemoryFile(tmp_path / "state.db")
    second = incidents(again)
    assert again.load()[1] == HERE
    assert [incident.key for incident in second.open] == [incident.key for incident in first.open]
    assert list(second.open) == list(first.open)
    assert shown(list(second.alarms)) == shown(list(first.alarms))
    assert len(second.alarms) == 2
    again.close()


def test_an_alarm_that_was_kept_and_not_sent_is_sent_by_the_next_process(tmp_path: Path) -> None:
    file = MemoryFile(tmp_path / "state.db")
    first = incidents(file)
    first.see(bus_alarm("leak", SITE.rack(2), 0, stands=True), START_MS)
    first.advance(START_MS)
    file.save(first.take_changes(), HERE)  # and it dies here, before it pushes
    second = incidents(file)
    assert [(alarm.labels["alertname"], alarm.is_sent) for alarm in second.alarms] == [("CoolantLeakCritical", False)]
    file.close()


def test_the_labels_after_a_restart_are_those_before_it(tmp_path: Path) -> None:
    """Another set of labels would be another alert to the Alertmanager, and another page."""
    file = MemoryFile(tmp_path / "state.db")
    first = incidents(file)
    first.see(xid(SITE.gpu(0, 0, 0), 119, 0), START_MS)
    first.advance(START_MS + 10_000)
    file.save(first.take_changes(), HERE)
    second = incidents(file)
    second.see(xid(SITE.gpu(0, 0, 1), 95, 15), START_MS + 15_000)
    second.advance(START_MS + 30_000)
    assert [alarm.id for alarm in second.alarms] == [alarm.id for alarm in first.alarms]
    assert "2 events" in second.alarms[0].annotations["summary"]
    file.close()


def test_what_is_over_is_forgotten_only_when_it_was_sent(tmp_path: Path) -> None:
    file = MemoryFile(tmp_path / "state.db")
    first = incidents(file)
    first.see(bus_alarm("leak", SITE.rack(2), 0, stands=True), START_MS)
    first.advance(START_MS)
    first.sent(first.alarms)
    first.see(bus_alarm("leak", SITE.rack(2), 10, stands=False), START_MS + 10_000)
    first.advance(START_MS + 80_000)
    file.save(first.take_changes(), HERE)
    second = incidents(file)
    assert second.open == []
    (over,) = second.alarms
    assert (over.ends_ms, over.is_sent) == (START_MS + 10_000, False)
    second.sent([over])
    file.save(second.take_changes(), HERE)
    assert incidents(file).alarms == []
    file.close()


def test_a_transaction_that_fails_keeps_neither_memory_nor_position(tmp_path: Path) -> None:
    file = MemoryFile(tmp_path / "state.db")
    first = incidents(file)
    first.see(bus_alarm("leak", SITE.rack(2), 0, stands=True), START_MS)
    broken = {("kvandal.events", 0): Position("an id", 1 << 70)}  # more than SQLite's integers hold
    try:
        file.save(first.take_changes(), broken)
    except OverflowError:
        pass
    else:
        raise AssertionError("it was kept")
    memory, positions = file.load()
    assert (memory.incidents, positions) == ({}, {})
    file.close()
