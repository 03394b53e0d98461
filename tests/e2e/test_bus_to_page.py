"""Three incidents in real time, from the devices to the pager, through every process that runs in production.

The building bus is a real Mosquitto that the gateway's `kvandal agent` listens on; events go through Apache Kafka and
`kvandal incidents`, readings through Prometheus and our rules; an Alertmanager with our routes tells a pager.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from alerts.metric_rules import metric_rules
from alerts.replay_site import GPUS_PER_TRAY, TRAYS, ReplaySite
from alerts.routing import TEMPLATE_NAME, Routing, render_routing, render_template
from alerts.rulefile import INTERVAL_S, render_rules
from alerts.telling import Links
from alerts.thresholds import Thresholds
from kvandal.broker import HOST
from stream.clock import SystemClock
from stream.messages import EventMessage
from tests.servers.alertmanager import AlertmanagerServer, Notification, Receiver, receiver
from tests.servers.dsx_bms import NO_LEAK_OR_LEAK, Bms
from tests.servers.exporter import Exporter, exporter
from tests.servers.kafka import KafkaCluster
from tests.servers.mosquitto import Mosquitto
from tests.servers.ports import free_port
from tests.servers.prometheus import Prometheus
from tests.servers.stack import Running, fresh_topics, publish_messages, until

PROMISED_S = 5.0  # from the bus to the pager
HEART_LOST_S = 15.0  # long enough that a loaded machine's late beat is no silence
SITE = ReplaySite()
LEAK = "Rack/RackLeakDetect/hall/r1/leak"
BREAKDOWN = 12.0  # fatal errors wait ten seconds for their cause


@dataclass(frozen=True, slots=True)
class Hall:
    """What a test moves, and who is paged."""

    bus: Bms
    nodes: Exporter
    bootstrap: str
    pager: Receiver
    heart: threading.Event  # stops it

    def pages(self) -> list[str]:
        """Every alert that a page was about when it began, in order."""
        heard = [n for n in list(self.pager.heard) if n.status == "firing"]
        return [a["labels"]["alertname"] for n in heard for a in n.alerts if a["labels"]["severity"] == "page"]

    def wait_for(self, alert: str) -> Notification:
        return self.pager.wait_for(lambda told: alert in told.names, timeout_s=90)


def node_page(*, broken_racks: tuple[int, ...] = ()) -> str:
    """The readings of the GPUs of racks 1 and 3; those of some racks have no spare memory row left."""
    lines = ["# TYPE kvandal_gpu_state gauge", "# TYPE kvandal_gpu_health_remap_failure_state gauge"]
    for rack in (1, 3):
        for tray in range(TRAYS):
            for gpu in range(GPUS_PER_TRAY):
                place = f'node="node-{rack}-{tray}",rack="rack {rack}",cdu="CDU {rack // 2}",hall="hall 0"'
                labels = f'resource="{SITE.gpu(rack, tray, gpu):016x}",{place}'
                is_broken = rack in broken_racks and (tray, gpu) == (4, 2)
                lines.append(f"kvandal_gpu_state{{{labels}}} 1")
                lines.append(f"kvandal_gpu_health_remap_failure_state{{{labels}}} {int(is_broken)}")
    return "\n".join(lines) + "\n"


@contextmanager
def beating(bus: Bms) -> Iterator[threading.Event]:
    """The building system's heartbeat, until the event is set."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(1.0):
            bus.beat()

    bus.describe("System/HeartbeatTimestampBms/bms/heartbeat", objectId="BMS", objectName="Plant BMS")
    bus.beat()
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join()


def start_agent(folder: Path, bootstrap: str, mqtt_port: int) -> Running:
    """The gateway's agent, listening on the bus."""
    config = folder / "gateway.toml"
    config.write_text(
        f'[agent]\nsources = ["dsx"]\nspool = "{folder / "spool.db"}"\nmetrics_port = 0\ndsx_interval_s = 1\n'
        f'[dsx]\nhost = "{HOST}"\nport = {mqtt_port}\ntls = false\nheartbeat_lost_s = {HEART_LOST_S:g}\n'
    )
    return Running.start(folder, "agent", "agent", "--config", str(config), "--broker", bootstrap)


def start_incidents(folder: Path, bootstrap: str, alertmanager: str, port: int) -> Running:
    return Running.start(
        folder, "incidents", "incidents", "--broker", bootstrap, "--alertmanager", alertmanager,
        "--state", str(folder / "incidents.db"), "--port", str(port),
    )  # fmt: skip


def rule_files(folder: Path) -> tuple[Path, ...]:
    """The rules of a site, evaluated every second so that the test is not about waiting."""
    files = []
    for group in metric_rules(Thresholds()):
        files.append(folder / f"{group}.yml")
        text = render_rules(group, Thresholds(), Links())
        files[-1].write_text(text.replace(f"interval: {INTERVAL_S}s", "interval: 1s"))
    return tuple(files)


@pytest.fixture
def hall(apache_kafka: KafkaCluster, tmp_path: Path) -> Iterator[Hall]:
    bootstrap = apache_kafka.bootstrap
    with ExitStack() as running:
        enter = running.enter_context
        enter(fresh_topics(bootstrap))
        publish_messages(bootstrap, list(SITE.inventory()))
        pager, nodes = enter(receiver()), enter(exporter(node_page()))
        folder = tmp_path / "alertmanager"
        folder.mkdir()
        (folder / TEMPLATE_NAME).write_text(render_template())
        routing = Routing(
            mail_to="", webhook_url=pager.url("told"), webhook_token_file="", pagerduty_keys="", page_wait_s=1,
            dead_man_url=pager.url("dead-man"),
        )  # fmt: skip
        alertmanager = enter(AlertmanagerServer(folder, render_routing(routing)))
        mosquitto = enter(Mosquitto(tmp_path / "mosquitto"))
        bus = enter(Bms(mosquitto.port, SystemClock()))
        heart = enter(beating(bus))
        bus.describe(LEAK, rackLocationId="R1", rackLocationName="rack 1", stateText=NO_LEAK_OR_LEAK)
        bus.say(LEAK, 0)
        port = free_port()
        incidents = enter(start_incidents(tmp_path, bootstrap, alertmanager.url, port))
        agent = enter(start_agent(tmp_path, bootstrap, mosquitto.port))
        targets = {"kvandal-agent": f"{HOST}:{nodes.port}", "kvandal-incidents": f"{HOST}:{port}"}
        enter(Prometheus(tmp_path / "prometheus", targets, rule_files(tmp_path), (alertmanager.address,)))
        incidents.wait_for("incidents to")
        until(lambda: "phase" in agent.out, what="the gateway listens")
        pager.wait_for(lambda told: told.names == ["Watchdog"], timeout_s=60)
        yield Hall(bus, nodes, bootstrap, pager, heart)


def consequences_of_the_leak() -> list[EventMessage]:
    """The nodes of rack 1 lose their GPUs and their network, as their agents tell it."""
    now_ms = time.time_ns() // 1_000_000

    def event(kind: str, code: int, resource: int) -> EventMessage:
        name = f"{kind}/{code}/{resource:016x}/{now_ms}"
        return EventMessage(id=name, resource=resource, time_ms=now_ms, kind=kind, code=code)

    gpus = [SITE.gpu(1, tray, gpu) for tray in range(TRAYS) for gpu in range(GPUS_PER_TRAY)]
    return [event("xid", 79, gpu) for gpu in gpus] + [
        event("port_state", 5, SITE.port(1, tray)) for tray in range(TRAYS)
    ]


def test_three_incidents_in_real_time_are_three_pages(hall: Hall) -> None:
    time.sleep(2)
    assert hall.pages() == []  # a healthy hall

    began_s = time.monotonic()
    hall.bus.say(LEAK, 1)
    told = hall.wait_for("CoolantLeakCritical")
    took_s = told.at_s - began_s
    hall.nodes.show(node_page(broken_racks=(1,)))
    publish_messages(hall.bootstrap, consequences_of_the_leak())
    time.sleep(BREAKDOWN)
    assert hall.pages() == ["CoolantLeakCritical"]
    (alert,) = told.alerts
    assert alert["labels"]["rack"] == "rack 1"
    assert alert["annotations"]["runbook_url"].endswith("/CoolantLeakCritical.md")
    print(f"from the bus to the pager: {took_s:.2f} s")  # noqa: T201 - a measurement
    assert took_s < PROMISED_S

    hall.nodes.show(node_page(broken_racks=(1, 3)))
    broken = hall.wait_for("GpuRowRemapFailure")
    assert [one["labels"]["node"] for one in broken.alerts] == ["node-3-4"]  # rack 1's is the leak's

    hall.heart.set()
    hall.wait_for("BmsHeartbeatLost")
    assert hall.pages() == ["CoolantLeakCritical", "GpuRowRemapFailure", "BmsHeartbeatLost"]
