"""Fixtures of the tests of alerts."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from alerts.exposition import IncidentMetrics
from alerts.incidents import Incidents
from alerts.pushing import Pusher
from alerts.replay_site import ReplaySite
from alerts.telling import Links
from alerts.tenants import Tenant
from catalogue import TABLES
from collectors.devices import DeviceReport, DeviceState
from collectors.exposition import AgentMetrics, SourceState
from collectors.kernel_clock import ClockState
from collectors.spool import Spool
from stream.clock import SystemClock
from stream.metrics import IngestMetrics


@pytest.fixture
def shown_names(tmp_path: Path) -> frozenset[str]:
    """Names of series that our processes really show, from their real registries, and readings that are exported."""
    registry = CollectorRegistry()
    clock = SystemClock()
    agent = AgentMetrics(
        registry,
        Spool(tmp_path / "spool.db", limit_bytes=1 << 20),
        clock=clock,
        clock_state=lambda: ClockState(synchronised=True, max_error_s=0.0),
    )
    agent.watch(SourceState("nvml", 0.0, 1.0))
    agent.devices("nvml", [DeviceReport("GPU 0", DeviceState.OK)])
    agent.read_took("nvml", 0.1)
    IngestMetrics(registry)
    tree = ReplaySite().tree()
    incidents = IncidentMetrics(registry)
    incidents.watch(Incidents(tree, Links()), Pusher([], clock=clock), tree)
    incidents.show_tenants([Tenant(customer="A", objective=0.99, racks=("rack 0",))])
    families = list(text_string_to_metric_families(generate_latest(registry).decode()))
    exported = {table.prometheus_name(m) for table in TABLES for m in table.metrics if m.exported}
    typed = {f"{family.name}_total" for family in families if family.type == "counter"}
    return frozenset(exported | typed | {f.name for f in families} | {s.name for f in families for s in f.samples})
