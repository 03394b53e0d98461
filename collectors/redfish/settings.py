"""Settings of the Redfish source: which management controllers are read, and what their resources are part of.

Light: imports no library of the source, so that every process can check a settings file.
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from catalogue import COOLING, POWER, RACK, TRAY, ResourceKind, Table

# The table that each kind of equipment has its row in.
TABLES: Mapping[ResourceKind, Table] = {
    ResourceKind.CDU: COOLING,
    ResourceKind.LOOP: COOLING,
    ResourceKind.HEAT_METER: COOLING,
    ResourceKind.FEEDER: POWER,
    ResourceKind.METER: POWER,
    ResourceKind.RACK: RACK,
    ResourceKind.TRAY: TRAY,
}

Name = Annotated[str, msgspec.Meta(max_length=200)]
Text = Annotated[str, msgspec.Meta(max_length=256)]
Seconds = Annotated[float, msgspec.Meta(ge=0.5, le=300)]
Amount = Annotated[float, msgspec.Meta(gt=0, le=1e18)]
CollectionName = Literal["Mains", "Feeders", "Subfeeds", "Branches", "Outlets"]
# What a resource may be said to be; "none" leaves it out.
KindName = Literal["", "cdu", "loop", "heat_meter", "feeder", "meter", "rack", "tray", "none"]
ParentKind = Literal["site", "hall", "row", "rack", "loop", "cdu", "feeder", "meter"]

_URL = re.compile(r"https://[^/?#@\s\\]+")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_PATH = re.compile(r"/redfish/v1(/[^/?#\s\\]+)+")


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class RedfishResource(_Section, frozen=True, kw_only=True):
    """What one resource of a device is, where Redfish does not tell.

    The registers' facts are those of the meter behind it: `register_modulus_joules` is where its energy register starts
    again from 0, `register_resolution_joules` its smallest step. `metric` makes a sensor the column of that name.
    """

    kind: KindName = ""
    identity: Name = ""  # default: manufacturer, model and serial number, else the resource's address
    name: Name = ""
    parent_kind: ParentKind = "rack"
    parent: Name = ""  # identity of what it is part of
    serves: tuple[Name, ...] = ()  # identities of the racks that it feeds
    role: Name = ""
    accuracy_class: Name = msgspec.field(default="", name="class")
    measured_at: Text = ""
    metric: Name = ""
    nominal_power_watts: Amount | None = None
    register_modulus_joules: Amount | None = None
    register_resolution_joules: Amount | None = None

    def __post_init__(self) -> None:
        if not self.metric:
            return
        if not self.identity or self.kind in ("", "none"):
            raise ValueError(f"sensor of {self.metric}: give the kind and the identity of what it measures")
        table = TABLES[ResourceKind(self.kind)]
        if self.metric not in {metric.name for metric in table.metrics}:
            raise ValueError(f"table {table.name} has no metric {self.metric}")


class RedfishDevice(_Section, frozen=True, kw_only=True):
    """One management controller (BMC) of a CDU, a power shelf, a PDU, a server or a switch."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    url: Name  # https://host or https://host:port
    username: Name = ""
    password_file: Text = ""  # read when signing in, so that a new password needs no restart
    authentication: Literal["session", "session_or_basic", "basic"] = "session"
    ca_file: Text = ""  # PEM; default: the system's authorities
    fingerprint_sha256: Name = ""  # of the certificate, in place of an authority
    rack: Name = ""  # identity of the rack whose row its shelves, connectors and leak detectors go into
    parent_kind: ParentKind = "hall"
    parent: Name = ""  # identity of what the device's equipment is part of
    metric_reports: Literal["auto", "never"] = "auto"
    expand: Literal["auto", "never"] = "auto"
    etags: Literal["auto", "never"] = "auto"
    sensors: Literal["auto", "all", "none"] = "auto"  # auto: where the device gives them all in one reply
    circuits: tuple[CollectionName, ...] = ("Mains", "Feeders", "Subfeeds", "Branches")
    energy_register: Literal["Reading", "LifetimeReading"] = "Reading"
    resources: dict[Name, RedfishResource] = {}  # by path: /redfish/v1/...

    def __post_init__(self) -> None:
        if not _URL.fullmatch(self.url):
            raise ValueError(f"the url of {self.name} is not https://host or https://host:port")
        if self.fingerprint_sha256 and not _FINGERPRINT.fullmatch(self.fingerprint):
            raise ValueError(f"fingerprint_sha256 of {self.name} is not 64 hexadecimal digits")
        if self.fingerprint_sha256 and self.ca_file:
            raise ValueError(f"{self.name} has ca_file and fingerprint_sha256; give one of the two")
        for path in self.resources:
            if not _PATH.fullmatch(path):
                raise ValueError(f"resource {path} of {self.name} is not a path below /redfish/v1")

    @property
    def fingerprint(self) -> str:
        """The fingerprint as 64 lower-case digits, however it was written."""
        return self.fingerprint_sha256.replace(":", "").replace(" ", "").lower()


class RedfishSettings(_Section, frozen=True, kw_only=True):
    """Everything that the Redfish source can be told; the limits hold for each device."""

    devices: tuple[RedfishDevice, ...] = ()
    interval_s: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 10
    deadline_s: Seconds = 8.0  # for everything that is asked of one device in one tick
    request_timeout_s: Seconds = 4.0  # for one request, from the first byte to the last
    pause_s: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.05  # between two requests to one device
    workers: Annotated[int, msgspec.Meta(ge=1, le=256)] = 16  # devices that are read at the same time
    rediscover_minutes: Annotated[int, msgspec.Meta(ge=1, le=10_080)] = 60
    report_age_s: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 60  # an older metric report is not used
    max_reply_bytes: Annotated[int, msgspec.Meta(ge=16_384, le=1 << 26)] = 1 << 20
    max_resources: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 512

    def __post_init__(self) -> None:
        if self.request_timeout_s > self.deadline_s:
            raise ValueError("redfish.request_timeout_s is longer than redfish.deadline_s")
        twice = [name for name, count in Counter(device.name for device in self.devices).items() if count > 1]
        if twice:
            raise ValueError(f"two devices of redfish are called {twice[0]}")
