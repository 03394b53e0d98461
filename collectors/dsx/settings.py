"""Settings of the source dsx: one broker of NVIDIA DSX Exchange, and what its building system does not tell."""

from typing import Annotated, Literal

import msgspec

from stream.messages import Name

File = Annotated[str, msgspec.Meta(max_length=4096)]
Seconds = Annotated[float, msgspec.Meta(ge=1, le=3600)]
EquipmentWord = Literal["running", "standby", "degraded", "failed"]


class DsxSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the bus is, how to get in, and how long a value that is published on change still stands.

    DSX Exchange, docs/bms-integration.md: values are published on change and again every 100 s, metadata are retained,
    the heartbeat comes every 10 s. `hold_s` and `heartbeat_lost_s` are three times that.
    """

    host: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 8883
    tls: bool = True
    ca_file: File = ""  # who signed the broker's certificate; empty = whom this machine trusts
    certificate_file: File = ""  # ours, where the broker wants one, and its key
    key_file: File = ""
    username: Annotated[str, msgspec.Meta(max_length=256)] = ""  # "oauthtoken" where the password is a token
    password_file: File = ""  # read at every connect
    client_id: Annotated[str, msgspec.Meta(max_length=128)] = ""  # empty = made from the source's id
    qos: Literal[0, 1] = 1
    keepalive_s: Annotated[int, msgspec.Meta(ge=5, le=600)] = 30
    connect_timeout_s: Annotated[float, msgspec.Meta(ge=0.1, le=60)] = 5.0
    settle_s: Annotated[float, msgspec.Meta(ge=0, le=60)] = 1.0  # metadata are complete when none came for so long
    hold_s: Seconds = 300.0
    heartbeat_lost_s: Seconds = 30.0
    # A tick's points go into one frame, which holds 45,000 of them (stream/frame.py).
    max_points: Annotated[int, msgspec.Meta(ge=1, le=40_000)] = 20_000
    hall: Name = ""  # identity of the hall that everything on this bus stands in
    identities: dict[Name, Name] = {}  # what an id of the bus is called elsewhere, such as a serial number
    facts: dict[Name, dict[Name, Name]] = {}  # by id of the bus: attributes for its inventory message
    status_words: dict[Name, EquipmentWord] = {}  # what a text of a Status point means, besides the usual ones

    def __post_init__(self) -> None:
        if bool(self.certificate_file) != bool(self.key_file):
            raise ValueError("give both of dsx.certificate_file and dsx.key_file, or neither")
        if not self.tls and (self.ca_file or self.certificate_file):
            raise ValueError("dsx.ca_file and dsx.certificate_file need dsx.tls = true")
        if self.password_file and not self.username:
            raise ValueError("dsx.password_file needs dsx.username: MQTT 3.1.1 has no password without a user")
