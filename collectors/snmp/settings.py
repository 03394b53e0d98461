"""Settings of the source `snmp`: which PDUs and UPSs are read, with which credentials, and what they measure.

Light: imports no library of the source, so that every process can check a settings file.
"""

from typing import Annotated, Literal

import msgspec

from collectors.device_settings import Name, Place, Text, Watts, check_deadline, check_devices, check_places

File = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]

AuthName = Literal["SHA", "SHA-224", "SHA-256", "SHA-384", "SHA-512", "none"]
PrivacyName = Literal["AES-128", "AES-256", "AES-256-Cisco", "none"]

ANY_METER = "*"


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class CommunityCredentials(_Section, frozen=True, kw_only=True, tag_field="version", tag="2c"):
    """SNMPv2c: a community, which travels in the clear. The file is read at every connect."""

    community_file: File


class UserCredentials(_Section, frozen=True, kw_only=True, tag_field="version", tag="3"):
    """SNMPv3: a user of the User-based Security Model (RFC 3414). The files are read at every connect.

    "AES-256" extends a short key as draft-blumenthal-aes-usm-04 does (Net-SNMP, APC, Raritan), "AES-256-Cisco" as
    draft-reeder-snmpv3-usm-3desede does; with SHA-256 or longer they are the same. Reading in the clear has to be said
    twice: with `auth = "none"` and with `allow_unauthenticated = true`.
    """

    user: Annotated[str, msgspec.Meta(min_length=1, max_length=32)]  # RFC 3414, usmUserName
    auth: AuthName = "SHA-256"
    auth_password_file: Text = ""
    privacy: PrivacyName = "AES-128"
    privacy_password_file: Text = ""
    context: Annotated[str, msgspec.Meta(max_length=255)] = ""
    allow_unauthenticated: bool = False

    def __post_init__(self) -> None:
        if self.auth == "none":
            self._refuse_half_open()
        elif not self.auth_password_file:
            raise ValueError(f"user {self.user!r} has auth = {self.auth!r} but no auth_password_file; name the file")
        if self.privacy != "none" and not self.privacy_password_file:
            raise ValueError(
                f"user {self.user!r} has privacy = {self.privacy!r} but no privacy_password_file; name the file, or "
                "set privacy to none"
            )

    def _refuse_half_open(self) -> None:
        if self.privacy != "none":
            raise ValueError(f'user {self.user!r} has privacy without auth (RFC 3414, 1.4.3); set privacy = "none" too')
        if not self.allow_unauthenticated:
            raise ValueError(
                f"user {self.user!r} would be read without authentication; give auth a name, or set "
                "allow_unauthenticated = true"
            )


class MeterSettings(_Section, frozen=True, kw_only=True):
    """What one meter of a device is for; reports go by `role`, `class` and `measured_at`."""

    role: Text = ""
    accuracy_class: Text = msgspec.field(default="", name="class")
    measured_at: Text = ""
    nominal_power_watts: Watts | None = None
    serves: tuple[Place, ...] = ()

    def __post_init__(self) -> None:
        check_places(self.serves)


class SnmpDevice(_Section, frozen=True, kw_only=True):
    """One agent: a PDU with those that are linked to it, or a UPS.

    `map` names its map; empty finds the map by the device's sysObjectID. `identity` names the place of measurement and
    stays when the device is exchanged; without it the serial number is the identity. `meters` is by the meter's label
    ("1", "output", "inlet 1"), and "*" is for all others. `details` are groups of the map that are read besides the
    usual ones, such as "outlets".
    """

    name: Name
    host: Name
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 161
    credentials: Name
    map: Annotated[str, msgspec.Meta(max_length=64)] = ""
    identity: Annotated[str, msgspec.Meta(max_length=128)] = ""
    parent: Place | None = None
    meters: dict[Name, MeterSettings] = {}
    details: tuple[Name, ...] = ()
    values_per_request: Annotated[int, msgspec.Meta(ge=1, le=100)] = 40  # about 1 kB, so that no reply is fragmented

    def __post_init__(self) -> None:
        if self.parent is not None:
            check_places((self.parent,))

    def meter(self, label: str) -> MeterSettings:
        """What is said of the meter with that label."""
        return self.meters.get(label) or self.meters.get(ANY_METER) or MeterSettings()


class SnmpSettings(_Section, frozen=True, kw_only=True):
    """Everything that the source `snmp` can be told.

    `timeout_s` is for one request, which is sent `1 + retries` times; `deadline_s` is for one device in one tick, by
    default 0.8 of the interval. `explore_every_s` is how often a device is asked anew which rows its tables have.
    `maps` is a folder with maps of your own: they come before those that are shipped.
    """

    credentials: dict[Name, CommunityCredentials | UserCredentials]
    devices: Annotated[tuple[SnmpDevice, ...], msgspec.Meta(min_length=1, max_length=2000)]
    interval_s: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 10
    timeout_s: Annotated[float, msgspec.Meta(ge=0.1, le=30)] = 1.5
    retries: Annotated[int, msgspec.Meta(ge=0, le=5)] = 1
    deadline_s: Annotated[float, msgspec.Meta(ge=0.2, le=300)] | None = None
    workers: Annotated[int, msgspec.Meta(ge=1, le=256)] = 64  # they only wait: the work is done in one thread
    explore_every_s: Annotated[int, msgspec.Meta(ge=60, le=604_800)] = 3600
    max_instances: Annotated[int, msgspec.Meta(ge=10, le=100_000)] = 2000  # of one device
    maps: Text = ""

    def __post_init__(self) -> None:
        for device in self.devices:
            if device.credentials not in self.credentials:
                raise ValueError(
                    f"device {device.name!r} has credentials = {device.credentials!r}; write a section "
                    f"[snmp.credentials.{device.credentials}]"
                )
        check_devices(self.devices)
        check_deadline(self.deadline_s, self.interval_s)
        if self.timeout_s >= self.budget_s:
            raise ValueError(
                f"timeout_s is {self.timeout_s:g}; give less than what a device may take in all, {self.budget_s:g}"
            )

    @property
    def budget_s(self) -> float:
        """How long one device may take in all."""
        return self.deadline_s or 0.8 * self.interval_s
