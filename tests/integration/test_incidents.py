"""Events in Apache Kafka become pages of a real Alertmanager: in time, once, and also when processes die."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from alerts.alertmanager import Alertmanager, AlertmanagerError
from alerts.incident import Alarm
from alerts.maintenance import MADE_BY, Window, apply_silences, silence_of
from alerts.memory import MemoryFile, MemoryFileError
from alerts.replay_site import ReplaySite
from alerts.routing import Routing, render_routing, render_template
from catalogue.facility import LeakState
from kvandal.broker import HOST, tied_to_parent
from stream.messages import EventMessage, InventoryMessage
from tests.servers.alertmanager import AlertmanagerServer, Receiver, receiver
from tests.servers.kafka import KafkaCluster
from tests.servers.ports import free_port
from tests.servers.stack import fresh_topics, publish_messages, until

ROOT = Path(__file__).resolve().parents[2]
PROMISED_S = 5.0  # from the bus to the pager
SITE = ReplaySite()


@dataclass(frozen=True, slots=True)
class Site:
    """A broker with the inventory of a small site, an Alertmanager with our routing, and who is paged by it."""

    bootstrap: str
    alertmanager: AlertmanagerServer
    pager: Receiver
    folder: Path

    def publish(self, *messages: EventMessage | InventoryMessage) -> None:
        publish_messages(self.bootstrap, messages)

    @contextmanager
    def incidents(self, *, maintenance: Path | None = None) -> Iterator["Incidents"]:
        options = {
            "state": str(self.folder / "incidents.db"),
            "targets": str(self.folder / "targets.json"),
            "alertmanagers": [self.alertmanager.url],
            "bootstrap": self.bootstrap,
            "maintenance": str(maintenance) if maintenance else "",
        }
        command = [sys.executable, "-m", "tests.alerts.process", json.dumps(options)]
        with (self.folder / "incidents.log").open("ab") as log:
            process = subprocess.Popen(tied_to_parent(command), stdout=subprocess.PIPE, stderr=log, cwd=ROOT, text=True)
        assert process.stdout is not None
        with process.stdout as answer:
            port = int(answer.readline())
            running = Incidents(process, port)
            try:
                running.wait_until_it_reads()
                yield running
            finally:
                process.kill()
                process.wait(10)

    def pages(self) -> list[str]:
        """What was told to begin, in order."""
        heard = [n for n in list(self.pager.heard) if n.status == "firing"]
        return [name for notification in heard for name in notification.names]


@dataclass(frozen=True, slots=True)
class Incidents:
    """A running incidents process."""

    process: subprocess.Popen[str]
    port: int

    def metrics(self) -> str:
        with requests.Session() as session:
            session.trust_env = False
            return session.get(f"http://{HOST}:{self.port}/metrics", timeout=5).text

    def wait_until_it_reads(self) -> None:
        deadline = time.monotonic() + 30
        while 'kvandal_incidents_place_info{cdu="CDU 0"' not in self.metrics():
            assert self.process.poll() is None, "it ended"
            assert time.monotonic() < deadline, "the inventory was not read in time"
            time.sleep(0.1)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


@pytest.fixture
def site(apache_kafka: KafkaCluster, tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as running:
        running.enter_context(fresh_topics(apache_kafka.bootstrap))
        pager = running.enter_context(receiver())
        routing = Routing(
            mail_to="", webhook_url=pager.url("told"), webhook_token_file="", pagerduty_keys="", page_wait_s=0,
            dead_man_url=pager.url("dead-man"),
        )  # fmt: skip
        folder = tmp_path / "alertmanager"
        folder.mkdir()
        (folder / "kvandal.tmpl").write_text(render_template())
        server = running.enter_context(AlertmanagerServer(folder, render_routing(routing)))
        publish_messages(apache_kafka.bootstrap, list(SITE.inventory()))
        yield Site(apache_kafka.bootstrap, server, pager, tmp_path)


def event(kind: str, resource: int, *, code: int = 0, point: str = "") -> EventMessage:
    """An event of now."""
    time_ms = time.time_ns() // 1_000_000
    return EventMessage(
        id=f"{kind}/{code}/{resource:016x}/{point}/{time_ms}", resource=resource, time_ms=time_ms, kind=kind, code=code,
        attributes={"point": point} if point else {},
    )  # fmt: skip


def test_a_leak_is_one_page_within_five_seconds_and_its_consequences_are_none(site: Site) -> None:
    with site.incidents():
        began_s = time.monotonic()
        site.publish(event("leak", SITE.rack(1), code=LeakState.CRITICAL, point="RackLeakDetect"))
        told = site.pager.wait_for(lambda n: "CoolantLeakCritical" in n.names)
        took_s = told.at_s - began_s
        site.publish(
            event("rack_isolated", SITE.rack(1), code=1, point="RackLiquidIsolationStatus"),
            *(event("xid", SITE.gpu(1, tray, gpu), code=79) for tray in range(18) for gpu in range(4)),
            *(event("port_state", SITE.port(1, tray), code=5) for tray in range(18)),
        )
        time.sleep(15)  # longer than fatal errors wait for their cause
    print(f"a leak pages after {took_s:.2f} s")  # noqa: T201 - a measurement
    assert took_s < PROMISED_S
    assert site.pages() == ["CoolantLeakCritical"]
    (alert,) = told.alerts
    assert alert["labels"]["rack"] == "rack 1"
    assert alert["annotations"]["runbook_url"].endswith("/CoolantLeakCritical.md")


def test_a_process_that_is_killed_loses_no_page_and_repeats_none(site: Site) -> None:
    with site.incidents() as first:
        site.publish(event("leak", SITE.rack(0), code=LeakState.CRITICAL, point="a"))
        site.pager.wait_for(lambda n: "CoolantLeakCritical" in n.names)
        # Killed as it reads: what it was about to tell is told by the next one.
        site.publish(event("rack_isolated", SITE.rack(1), code=1, point="b"))
        first.kill()
    site.publish(event("bms_heartbeat_lost", 99, code=1))  # while nobody listens
    for _ in range(3):
        with site.incidents() as again:
            site.pager.wait_for(lambda n: "BmsHeartbeatLost" in n.names)
            site.pager.wait_for(lambda n: "RackIsolated" in n.names)
            time.sleep(3)
            again.kill()
    assert sorted(site.pages()) == ["BmsHeartbeatLost", "CoolantLeakCritical", "RackIsolated"]
    standing = {alert["labels"]["alertname"] for alert in site.alertmanager.alerts()}
    assert standing == {"BmsHeartbeatLost", "CoolantLeakCritical", "RackIsolated"}


def test_an_alertmanager_that_is_away_is_told_when_it_is_back(site: Site) -> None:
    with site.incidents() as incidents:
        site.alertmanager.stop(kill=False)
        site.publish(event("leak", SITE.rack(0), code=LeakState.CRITICAL, point="a"))
        deadline = time.monotonic() + 20
        while "kvandal_incidents_push_failures_total 0.0" in incidents.metrics():
            assert time.monotonic() < deadline
            time.sleep(0.2)
        site.alertmanager.start()
        site.pager.wait_for(lambda n: "CoolantLeakCritical" in n.names, timeout_s=40)
        time.sleep(3)
    assert site.pages() == ["CoolantLeakCritical"]


def test_an_alertmanager_that_is_killed_does_not_page_again(site: Site) -> None:
    with site.incidents():
        site.publish(event("leak", SITE.rack(0), code=LeakState.CRITICAL, point="a"))
        site.pager.wait_for(lambda n: "CoolantLeakCritical" in n.names)
        site.alertmanager.stop(kill=False)
        site.alertmanager.start()
        time.sleep(5)
        assert [alert["labels"]["alertname"] for alert in site.alertmanager.alerts()] == ["CoolantLeakCritical"]
    assert site.pages() == ["CoolantLeakCritical"]


def test_a_broker_that_restarts_is_waited_for_and_nothing_is_missed(tmp_path: Path) -> None:
    with KafkaCluster.start(tmp_path / "kafka") as cluster, ExitStack() as running:
        running.enter_context(fresh_topics(cluster.bootstrap))
        pager = running.enter_context(receiver())
        folder = tmp_path / "alertmanager"
        folder.mkdir()
        (folder / "kvandal.tmpl").write_text(render_template())
        routing = Routing(
            mail_to="", webhook_url=pager.url("told"), webhook_token_file="", pagerduty_keys="", page_wait_s=0
        )
        server = running.enter_context(AlertmanagerServer(folder, render_routing(routing)))
        site = Site(cluster.bootstrap, server, pager, tmp_path)
        publish_messages(cluster.bootstrap, list(SITE.inventory()))
        with site.incidents():
            cluster.restart(0)
            site.publish(event("leak", SITE.rack(0), code=LeakState.CRITICAL, point="a"))
            pager.wait_for(lambda n: "CoolantLeakCritical" in n.names, timeout_s=40)


def test_the_imported_register_of_maintenance_is_silent(site: Site) -> None:
    register = site.folder / "maintenance.csv"
    register.write_text(
        "resource_kind,resource,start,end,maintenance_kind,announced_at,counts_as_exclusion\n"
        "rack,R0,2026-01-01T00:00+01:00,2099-01-01T00:00+01:00,planned,,yes\n"
    )
    with site.incidents(maintenance=register):
        alertmanager = Alertmanager(site.alertmanager.url)
        until(lambda: alertmanager.silences(MADE_BY), what="the register is kept as silences")
        site.publish(*(event("rack_isolated", SITE.rack(rack), code=1, point="a") for rack in (0, 2)))
        told = site.pager.wait_for(lambda n: "RackIsolated" in n.names)
        assert [alert["labels"]["rack"] for alert in told.alerts] == ["rack 2"]
        alertmanager.close()


def test_maintenance_is_silent_but_for_leaks_and_ends_with_its_window(site: Site) -> None:
    register = site.folder / "maintenance.toml"
    register.write_text(
        '[[window]]\nid = "M-7"\nreason = "pump swap"\nfrom = 2026-01-01T00:00:00Z\nuntil = 2099-01-01T00:00:00Z\n'
        'rack = "rack 0"\n'
    )
    with site.incidents(maintenance=register):
        alertmanager = Alertmanager(site.alertmanager.url)
        deadline = time.monotonic() + 20
        while not alertmanager.silences(MADE_BY):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        site.publish(event("rack_isolated", SITE.rack(0), code=1, point="a"))
        site.publish(
            event("rack_isolated", SITE.rack(2), code=1, point="a"),
            event("leak", SITE.rack(0), code=LeakState.CRITICAL, point="b"),
        )
        site.pager.wait_for(lambda n: "CoolantLeakCritical" in n.names)
        told = site.pager.wait_for(lambda n: "RackIsolated" in n.names)
        assert [alert["labels"]["rack"] for alert in told.alerts] == ["rack 2"]
        # A window that is taken out of the register is over.
        assert apply_silences((), alertmanager, now_ms=time.time_ns() // 1_000_000).ended == 1
        assert alertmanager.silences(MADE_BY) == []
        alertmanager.close()
    targets = json.loads((site.folder / "targets.json").read_text())
    assert len(targets) == 4 * 18
    found = next(one["labels"] for one in targets if one["targets"] == ["node-2-3:9464"])
    assert found == {"node": "node-2-3", "rack": "rack 2", "cdu": "CDU 1", "hall": "hall 0"}


def alarm(ends_ms: int | None = None) -> Alarm:
    labels = {"alertname": "RackIsolated", "severity": "page", "owner": "cooling", "rack": "r"}
    starts_ms = time.time_ns() // 1_000_000 - 1000
    return Alarm(id="one", labels=labels, annotations={"summary": "s"}, starts_ms=starts_ms, ends_ms=ends_ms)


def test_what_is_over_is_over_for_the_alertmanager(site: Site) -> None:
    alertmanager = Alertmanager(site.alertmanager.url)
    now_ms = time.time_ns() // 1_000_000
    alertmanager.push([alarm()], now_ms=now_ms, expire_s=60)
    assert len(site.alertmanager.alerts()) == 1
    alertmanager.push([alarm(ends_ms=now_ms)], now_ms=now_ms, expire_s=60)
    assert site.alertmanager.alerts() == []
    alertmanager.close()


def test_an_alert_that_is_not_said_again_expires(site: Site) -> None:
    alertmanager = Alertmanager(site.alertmanager.url)
    alertmanager.push([alarm()], now_ms=time.time_ns() // 1_000_000, expire_s=2)
    assert len(site.alertmanager.alerts()) == 1
    time.sleep(2.2)
    assert site.alertmanager.alerts() == []
    alertmanager.close()


def test_windows_are_applied_once_and_changed_ones_anew(site: Site) -> None:
    alertmanager = Alertmanager(site.alertmanager.url)
    now_ms = time.time_ns() // 1_000_000

    def window(until_ms: int) -> Window:
        from datetime import UTC, datetime

        begin, end = (datetime.fromtimestamp(ms // 1000, UTC) for ms in (now_ms - 3_600_000, until_ms))
        return Window(id="1", reason="r", from_=begin, until=end, cdu="CDU 0")

    first, longer, past = (window(now_ms + ms) for ms in (3_600_000, 7_200_000, -1000))
    applied = [apply_silences([silence_of(w)], alertmanager, now_ms=now_ms) for w in (first, first, longer, past)]
    assert [(one.made, one.ended) for one in applied] == [(1, 0), (0, 0), (1, 1), (0, 1)]
    alertmanager.close()


def test_an_alertmanager_that_refuses_says_why(site: Site) -> None:
    alertmanager = Alertmanager(site.alertmanager.url)
    bad = alarm()
    bad.labels["not a name"] = "x"
    with pytest.raises(AlertmanagerError, match="answers 400"):
        alertmanager.push([bad], now_ms=bad.starts_ms, expire_s=60)
    alertmanager.close()


def test_an_alertmanager_that_has_nothing_to_hear_is_reached_all_the_same(site: Site) -> None:
    with site.incidents() as incidents:
        deadline = time.monotonic() + 20
        while "kvandal_incidents_pushed_timestamp_seconds{" not in incidents.metrics():
            assert time.monotonic() < deadline
            time.sleep(0.2)
        site.alertmanager.stop(kill=False)
        while "kvandal_incidents_push_failures_total 0.0" in incidents.metrics():
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_an_alertmanager_that_is_away_says_where_it_should_be() -> None:
    alertmanager = Alertmanager(f"http://{HOST}:{free_port()}")
    with pytest.raises(AlertmanagerError, match="does not answer"):
        alertmanager.push([alarm()], now_ms=0, expire_s=60)
    alertmanager.close()


def test_two_processes_cannot_share_one_memory(tmp_path: Path) -> None:
    first = MemoryFile(tmp_path / "state.db")
    with pytest.raises(MemoryFileError, match="stop the other kvandal incidents"):
        MemoryFile(tmp_path / "state.db")
    first.close()
    MemoryFile(tmp_path / "state.db").close()


@pytest.mark.timeout(60)
def test_sigterm_ends_the_process_cleanly(site: Site) -> None:
    with site.incidents() as incidents:
        incidents.process.send_signal(signal.SIGTERM)
        assert incidents.process.wait(20) == 0
