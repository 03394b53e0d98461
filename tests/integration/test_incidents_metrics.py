"""Metric rules end to end: a real Prometheus scrapes a page, a real Alertmanager tells who is to be told."""

import time
from pathlib import Path

import pytest

from alerts.alertmanager import Alertmanager
from alerts.incident import Alarm
from alerts.routing import Routing, render_routing, render_template
from alerts.rulefile import render_rules
from alerts.telling import Links
from alerts.thresholds import Thresholds
from kvandal.broker import HOST
from tests.servers.alertmanager import AlertmanagerServer, receiver
from tests.servers.exporter import exporter
from tests.servers.prometheus import Prometheus

PLACE = {"node": "node-0-3", "rack": "rack 0", "cdu": "CDU 0", "hall": "hall 0"}
HEALTHY = """\
# TYPE kvandal_gpu_state gauge
kvandal_gpu_state{resource="00000000000000aa"} 1
# TYPE kvandal_gpu_health_remap_failure_state gauge
kvandal_gpu_health_remap_failure_state{resource="00000000000000aa"} 0
"""
BROKEN = HEALTHY.replace('failure_state{resource="00000000000000aa"} 0', 'failure_state{resource="00000000000000aa"} 1')


def test_a_reading_on_a_page_becomes_a_page_and_the_heartbeat_reaches_its_receiver(tmp_path: Path) -> None:
    rules = []
    for group in ("gpu", "pipeline"):
        rules.append(tmp_path / f"{group}.yml")
        rules[-1].write_text(render_rules(group, Thresholds(), Links()).replace("interval: 15s", "interval: 1s"))
    folder = tmp_path / "alertmanager"
    folder.mkdir()
    (folder / "kvandal.tmpl").write_text(render_template())
    with exporter(HEALTHY) as page, receiver() as pager:
        routing = Routing(
            mail_to="", webhook_url=pager.url("told"), webhook_token_file="", pagerduty_keys="", page_wait_s=1,
            dead_man_url=pager.url("dead-man"),
        )  # fmt: skip
        with AlertmanagerServer(folder, render_routing(routing)) as server:
            target = {"kvandal-agent": f"{HOST}:{page.port}"}
            with Prometheus(tmp_path / "prometheus", target, tuple(rules), (server.address,), PLACE):
                heard = pager.wait_for(lambda n: n.names == ["Watchdog"], timeout_s=30)
                assert heard.path == "/dead-man"
                time.sleep(3)
                assert [n for n in pager.heard if "GpuRowRemapFailure" in n.names] == []
                page.show(BROKEN)
                began_s = time.monotonic()
                told = pager.wait_for(lambda n: "GpuRowRemapFailure" in n.names, timeout_s=30)
    (alert,) = (alert for alert in told.alerts if alert["labels"]["alertname"] == "GpuRowRemapFailure")
    print(f"a reading pages after {told.at_s - began_s:.1f} s")  # noqa: T201 - a measurement
    assert PLACE.items() <= alert["labels"].items()
    assert alert["annotations"]["runbook_url"].endswith("/GpuRowRemapFailure.md")
    assert alert["annotations"]["dashboard"].endswith("var-hall=hall+0&var-rack=rack+0&var-node=node-0-3")


def alarm(name: str, severity: str = "page", **labels: str) -> Alarm:
    given = {"alertname": name, "severity": severity, "owner": "fleet", **labels}
    starts_ms = time.time_ns() // 1_000_000 - 1000
    return Alarm(id=name, labels=given, annotations={"summary": name}, starts_ms=starts_ms)


@pytest.mark.timeout(60)
def test_causes_hold_back_their_consequences_and_nothing_else(tmp_path: Path) -> None:
    rack, other = {"rack": "r0", "cdu": "c0", "hall": "h"}, {"rack": "r1", "cdu": "c1", "hall": "h"}
    held = [
        alarm("GpuDark", **rack, node="n0"),
        alarm("RackFlowLow", **rack),
        alarm("CduDown", cdu="c2", hall="h"),
        alarm("TcsSupplyHot", cdu="c2", hall="h"),
        alarm("PipelineFreshnessBurn"),
        alarm("GpuThermalThrottle", "ticket", rack="r9", cdu="c2", hall="h"),
        alarm("GpuUncorrectableEcc", **other, node="n1"),
        alarm("GpuMemoryHot", "ticket", **other, resource="aa"),
        alarm("NodeTelemetryStale", "ticket", node="n3"),
        alarm("GpuRowRemapFailure", rack="m0", hall="h"),
    ]
    told = [
        alarm("CoolantLeakCritical", **rack),
        alarm("CduTripped", cdu="c2", hall="h"),
        alarm("GpuXidFatal", **other, node="n1"),
        alarm("GpuMemoryHot", **other, resource="aa"),
        alarm("GpuPowerBrake", **other, node="n2"),
        alarm("FleetTelemetryStale"),
        alarm("MassCorrelated", rack="m0", hall="h"),
        alarm("TrayGpuMissing", rack="m1", hall="h"),
        alarm("BmsHeartbeatLost"),
        alarm("BrokerAway"),
        alarm("ReservoirLow", cdu="c2", hall="h"),
    ]
    folder = tmp_path / "alertmanager"
    folder.mkdir()
    (folder / "kvandal.tmpl").write_text(render_template())
    with AlertmanagerServer(
        folder, render_routing(Routing(mail_to="", webhook_url="", pagerduty_keys="", page_wait_s=0))
    ) as server:
        client = Alertmanager(server.url)
        client.push([*held, *told], now_ms=time.time_ns() // 1_000_000, expire_s=60)
        time.sleep(1)
        states = {(a["labels"]["alertname"], a["labels"]["severity"]): a["status"]["state"] for a in server.alerts()}
        # What is held back is decided when it is about to be told.
        deadline = time.monotonic() + 40
        wanted = {(a.labels["alertname"], a.labels["severity"]) for a in held}
        while time.monotonic() < deadline and {k for k, state in states.items() if state == "suppressed"} != wanted:
            time.sleep(0.5)
            states = {
                (a["labels"]["alertname"], a["labels"]["severity"]): a["status"]["state"] for a in server.alerts()
            }
        client.close()
    assert {key for key, state in states.items() if state == "suppressed"} == wanted
