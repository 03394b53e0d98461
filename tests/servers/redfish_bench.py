"""A bench for the Redfish source: services that a test starts, sources that read them, and what a tick showed."""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catalogue import COOLING, POINTS, RACK, ResourceKind, Table, resource_id
from collectors.devices import DeviceReport
from collectors.facility import gateway_id
from collectors.redfish.settings import RedfishDevice, RedfishSettings
from collectors.redfish.source import RedfishSource
from collectors.source import Reading
from stream.messages import EventMessage, InventoryMessage
from stream.rows import Rows, in_base_unit
from tests.servers.agent_fakes import FakeClock
from tests.servers.notebook import Notebook
from tests.servers.redfish_service import PASSWORD, USER, Certificates, Json, Service, redfish_service

START_S = 1_800_000_000
GATEWAY = "gateway-1"
CDU_IDENTITY = "Coolworks/C1300/CW-000123"
EXPANDS = {"ProtocolFeaturesSupported": {"ExpandQuery": {"NoLinks": True, "MaxLevels": 1}}}


@dataclass(frozen=True)
class Shown:
    """What a tick gave."""

    readings: Sequence[Reading]
    source: RedfishSource

    def row(self, table: Table, kind: ResourceKind, identity: str) -> dict[str, float]:
        """What is not absent in a row, in base units; empty where there is no row."""
        return self._values(table, resource_id(kind, identity))

    def cdu(self) -> dict[str, float]:
        return self.row(COOLING, ResourceKind.CDU, CDU_IDENTITY)

    def rack(self, identity: str = "rack-12") -> dict[str, float]:
        return self.row(RACK, ResourceKind.RACK, identity)

    def points(self, device: str) -> dict[str, tuple[float, str]]:
        """Value and unit of the points of a device, by name."""
        prefix = f"{device}/"
        found = {}
        for message in self.source.inventory():
            if message.kind is ResourceKind.POINT and message.identity.startswith(prefix):
                values = self._values(POINTS, message.resource)
                if "value_own_unit" in values:
                    name = message.identity.removeprefix(prefix)
                    found[name] = (values["value_own_unit"], message.attributes["unit"])
        return found

    def _values(self, table: Table, resource: int) -> dict[str, float]:
        for reading_ in self.readings:
            row: Rows = reading_.rows[reading_.rows["resource"] == resource]
            if reading_.table is table and row.size:
                assert row.size == 1
                assert reading_.source == gateway_id(GATEWAY, "redfish")
                values = {metric.name: float(in_base_unit(metric, row)[0]) for metric in table.metrics}
                return {name: value for name, value in values.items() if not math.isnan(value)}
        return {}


@dataclass
class Bench:
    """Services that a test starts, and sources that read them."""

    certificates: Certificates
    directory: Path
    running: ExitStack
    clock: FakeClock = field(default_factory=FakeClock)
    ticks: int = 0

    def service(self, tree: Mapping[str, Json], *, expands: bool = False) -> Service:
        service = self.running.enter_context(redfish_service(self.certificates))
        service.add(tree)
        service.expands = expands
        if expands:
            service.documents["/redfish/v1"] |= EXPANDS
        return service

    def device(self, service: Service, name: str = "device", **options: Any) -> RedfishDevice:
        password_file = self.directory / "password"
        if not password_file.exists():
            password_file.write_text(f"{PASSWORD}\n")
        trust = {} if "fingerprint_sha256" in options else {"ca_file": str(self.certificates.authority)}
        given = {"url": service.url, "username": USER, "password_file": str(password_file)} | trust | options
        return RedfishDevice(name=name, **given)

    def source(self, *devices: RedfishDevice, counters: Notebook | None = None, **options: Any) -> RedfishSource:
        settings = RedfishSettings(devices=devices, **({"pause_s": 0.0} | options))
        source = RedfishSource(settings, gateway=GATEWAY, clock=self.clock, counters=counters)
        self.running.callback(source.close)
        return source

    def read(self, source: RedfishSource) -> Shown:
        """The next tick."""
        time_s = START_S + 10 * self.ticks
        self.ticks += 1
        self.clock.advance(10)
        return Shown(source.read(time_s), source)


def about(source: RedfishSource, kind: ResourceKind, identity: str) -> InventoryMessage:
    (message,) = [one for one in source.inventory() if (one.kind, one.identity) == (kind, identity)]
    return message


def events(source: RedfishSource) -> list[EventMessage]:
    found = [event for event in source.events() if isinstance(event, EventMessage)]
    assert source.events() == []
    return found


def report_of(source: RedfishSource, device: str = "device") -> DeviceReport:
    return {report.device: report for report in source.devices()}[device]
