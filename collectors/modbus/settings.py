"""Settings of the source `modbus`: which meters and cooling units are read, where they are, and what they are."""

from typing import Annotated

import msgspec

from collectors.device_settings import Name, Place, Text, Watts, check_deadline, check_devices, check_places

SUNSPEC = "sunspec"  # instead of a register map: the device describes itself
# What the device, its map or the source says about a meter; settings must not say it again.
OWN_ATTRIBUTES = frozenset({"class", "device", "interval_s", "map", "measured_at", "nominal_power_watts", "role"})

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Unit = Annotated[int, msgspec.Meta(ge=0, le=255)]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=3600)]
RequestSeconds = Annotated[float, msgspec.Meta(ge=0.05, le=60)]


class ModbusDevice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One device.

    `identity` names the place of measurement: it stays when the meter is exchanged, and its register then jumps.
    Without it the device's serial number is its identity, and another meter at its place is another resource. `parent`
    and `serves` are "kind:identity", such as "hall:hall-1". `role`, `class` and `measured_at` are what reports go by.
    """

    name: Name
    host: Name
    port: Port = 502
    unit: Unit = 1
    map: Name = SUNSPEC
    identity: Text = ""
    parent: Place | None = None
    serves: tuple[Place, ...] = ()
    role: Text = ""
    accuracy_class: Text = msgspec.field(default="", name="class")
    measured_at: Text = ""
    nominal_power_watts: Watts | None = None
    attributes: dict[Name, Text] = {}

    def __post_init__(self) -> None:
        taken = sorted(OWN_ATTRIBUTES & self.attributes.keys())
        if taken:
            raise ValueError(f"device {self.name!r}: attribute {taken[0]!r} is a setting or ours; rename it")
        check_places((*((self.parent,) if self.parent else ()), *self.serves))

    @property
    def address(self) -> str:
        """Host and port: devices of one address share a connection."""
        return f"{self.host}:{self.port}"


class ModbusSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the source `modbus` reads, and how.

    `timeout_s` is for one request, `deadline_s` for one device, or for all units behind one gateway; by default it is
    0.8 of the interval. So many `workers` read side by side: up to workers * deadline_s / timeout_s devices may hang at
    once before others wait for them. `maps` is a folder with register maps of your own, which come before the shipped.
    """

    interval_s: Seconds = 10
    timeout_s: RequestSeconds = 2.0
    deadline_s: RequestSeconds | None = None
    workers: Annotated[int, msgspec.Meta(ge=1, le=512)] = 128
    identity_every_s: Annotated[int, msgspec.Meta(ge=10, le=86_400)] = 300  # how often a serial number is asked for
    frozen_after_s: Annotated[int, msgspec.Meta(ge=60, le=86_400)] = 900
    maps: Text = ""
    devices: Annotated[tuple[ModbusDevice, ...], msgspec.Meta(min_length=1, max_length=2000)]

    def __post_init__(self) -> None:
        check_deadline(self.deadline_s, self.interval_s)
        check_devices(self.devices)

    @property
    def budget_s(self) -> float:
        """How long one device may take in all."""
        return self.deadline_s or 0.8 * self.interval_s
