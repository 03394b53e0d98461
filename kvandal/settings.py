"""Settings of every process: defaults < file < environment < flags; what is not known is an error.

A file is TOML with one section per group. The environment variable of a setting is
KVANDAL_<SECTION>_<KEY>; a secret may come from a file named by KVANDAL_<SECTION>_<KEY>_FILE.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import tomli_w

from catalogue.zone import DEFAULT_ZONE, zone_of
from collectors.dsx.settings import DsxSettings
from collectors.kubernetes.settings import KubernetesSettings
from collectors.modbus.settings import ModbusSettings
from collectors.redfish.settings import RedfishSettings
from collectors.slurm.settings import SlurmSettings
from collectors.snmp.settings import SnmpSettings
from collectors.topology.settings import ReconciliationSettings, TopologySettings

SOURCE_NAMES = (
    "nvml", "dcgm", "infiniband", "host", "redfish", "modbus", "dsx", "snmp", "slurm", "kubernetes", "topology",
)  # fmt: skip
SourceName = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_]{0,31}$")]
PLUGIN_INTERVAL_S = 10  # of a source of one's own that does not say
Seconds = Annotated[int, msgspec.Meta(ge=1, le=3600)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
File = Annotated[str, msgspec.Meta(max_length=4096)]
Megabytes = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class SettingsError(ValueError):
    """A setting is wrong; the message says which one, where it came from, and what to give."""


class Secret(str):
    """Text that never shows in repr, logs or --check-config."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'" if self else "''"


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class KafkaSettings(_Section, frozen=True, kw_only=True):
    """Where the brokers are, and how to be let in. A user name means SASL/SCRAM; docs/security.md has the whole."""

    bootstrap: str = "127.0.0.1:9092"
    tls: bool = False
    ca_file: File = ""  # who signed the brokers' certificates; empty = whom this machine trusts
    certificate_file: File = ""  # ours, where the brokers want one, and its key
    key_file: File = ""
    username: Annotated[str, msgspec.Meta(max_length=256)] = ""
    mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256"] = "SCRAM-SHA-512"
    password: Secret = Secret("")
    password_file: File = ""  # read at every connect
    replication: Annotated[int, msgspec.Meta(ge=1, le=5)] = 3  # of topics that we create
    partitions: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0  # of topics that we create; 0 = each topic's own
    compression: Literal["zstd", "lz4", "gzip"] = "zstd"
    group: str = "kvandal-ingest"

    def __post_init__(self) -> None:
        if bool(self.certificate_file) != bool(self.key_file):
            raise ValueError("give both of kafka.certificate_file and kafka.key_file, or neither")
        if not self.tls and (self.ca_file or self.certificate_file or self.username):
            raise ValueError("kafka.ca_file, kafka.certificate_file and kafka.username need kafka.tls = true")
        if bool(self.username) != bool(self.password or self.password_file):
            raise ValueError("kafka.username needs a password, and a password a username; give kafka.password_file")
        if self.password and self.password_file:
            raise ValueError("give one of kafka.password and kafka.password_file")


class StoreSettings(_Section, frozen=True, kw_only=True):
    """Where ClickHouse is."""

    url: str = "http://127.0.0.1:8123"
    user: str = "default"
    password: Secret = Secret("")
    database: str = "kvandal"
    ca_file: File = ""  # who signed the store's certificate, for https; empty = whom this machine trusts

    def __post_init__(self) -> None:
        if "@" in self.url:
            raise ValueError("store.url holds a user or a password; give store.user, and the password in a file")


class AgentSection(_Section, frozen=True, kw_only=True):
    """What the agent reads and how it keeps it."""

    sources: tuple[SourceName, ...] = ("nvml", "host")
    interval_s: Seconds = 1
    host_interval_s: Seconds = 10
    infiniband_interval_s: Seconds = 10
    dcgm_interval_s: Seconds = 30  # the exporter's own collection interval: to ask more often tells nothing new
    dcgm_url: str = "http://127.0.0.1:9400/metrics"
    dsx_interval_s: Seconds = 10
    health_interval_s: Seconds = 30  # of ECC, remapping, NVLink errors and the like
    kernel_log: str = "/dev/kmsg"  # second witness of XIDs; reading it needs root or CAP_SYSLOG
    frame_ticks: Annotated[int, msgspec.Meta(ge=1, le=60)] = 10
    frame_span_s: Seconds = 10
    spool: str = "/var/lib/kvandal/spool.db"
    spool_mb: Megabytes = 1024
    metrics_port: Port = 9464
    metrics_host: str = "127.0.0.1"
    drain_s: Seconds = 20  # how long a stop waits for the broker

    def __post_init__(self) -> None:
        if {"nvml", "dcgm"} <= set(self.sources):
            raise ValueError("nvml and dcgm read the same GPUs; give one of the two in agent.sources")


class IngestSection(_Section, frozen=True, kw_only=True):
    """How ingest cuts its inserts."""

    insert_rows: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 120_000
    insert_age_s: Seconds = 5
    buffer_mb: Megabytes = 256
    session_timeout_s: Seconds = 30
    behind_days: Annotated[int, msgspec.Meta(ge=1, le=4000)] = 400
    ahead_s: Seconds = 300
    raw_days: Annotated[int, msgspec.Meta(ge=0, le=4000)] = 0  # how long raw rows are kept; 0 = as the catalogue says
    metrics_port: Port = 9465
    metrics_host: str = "127.0.0.1"


class SourceSettings(_Section, frozen=True, kw_only=True):
    """What an agent reads, and how each of its sources does that; a source that needs a section has none by default."""

    agent: AgentSection = AgentSection()
    redfish: RedfishSettings | None = None
    modbus: ModbusSettings | None = None
    dsx: DsxSettings | None = None
    snmp: SnmpSettings | None = None
    topology: TopologySettings | None = None
    slurm: SlurmSettings = SlurmSettings()
    kubernetes: KubernetesSettings = KubernetesSettings()
    plugins: dict[SourceName, dict[str, Any]] = {}  # of sources of one's own, by their names: what each understands

    def __post_init__(self) -> None:
        for name in self.agent.sources:
            if name not in SOURCE_NAMES and name not in self.plugins:
                raise ValueError(
                    f"agent.sources names {name}, which is none of {', '.join(SOURCE_NAMES)}; "
                    f"for a source of your own write a section [plugins.{name}]"
                )
            if getattr(self, name, True) is None:
                raise ValueError(f"agent.sources names {name}; write a section [{name}] that says what to read")
        for name, plugin in self.plugins.items():
            interval_s = plugin.get("interval_s", PLUGIN_INTERVAL_S)
            if not (type(interval_s) is int and 1 <= interval_s <= 3600):
                raise ValueError(f"plugins.{name}.interval_s is {interval_s!r}; give whole seconds from 1 to 3600")


class AgentSettings(SourceSettings, frozen=True, kw_only=True):
    """Everything that `kvandal agent` can be told."""

    kafka: KafkaSettings = KafkaSettings()


class IngestSettings(_Section, frozen=True, kw_only=True):
    """Everything that `kvandal ingest` can be told."""

    ingest: IngestSection = IngestSection()
    kafka: KafkaSettings = KafkaSettings()
    store: StoreSettings = StoreSettings()


class KeepSection(_Section, frozen=True, kw_only=True):
    """What is computed, and by which days."""

    zone: str = DEFAULT_ZONE  # IANA name of the time zone by which reports have their days
    metrics_host: str = "127.0.0.1"
    metrics_port: Port = 0  # of /metrics with yesterday's and the last month's key figures; 0 = none

    def __post_init__(self) -> None:
        zone_of(self.zone)


class KeeperSettings(_Section, frozen=True, kw_only=True):
    """Everything that `kvandal keep` can be told."""

    keep: KeepSection = msgspec.field(default_factory=KeepSection)  # when it is wanted: it looks for its time zone
    store: StoreSettings = StoreSettings()
    reconciliation: ReconciliationSettings = ReconciliationSettings()


class ClientSettings(_Section, frozen=True, kw_only=True):
    """What the verbs need that only ask or look."""

    kafka: KafkaSettings = KafkaSettings()
    store: StoreSettings = StoreSettings()


class DoctorSettings(SourceSettings, frozen=True, kw_only=True):
    """What the doctor looks at: the settings file of an agent or of ingest."""

    ingest: IngestSection = IngestSection()
    kafka: KafkaSettings = KafkaSettings()
    store: StoreSettings = StoreSettings()


AnySettings = TypeVar("AnySettings", AgentSettings, IngestSettings, KeeperSettings, ClientSettings, DoctorSettings)


def load_settings(
    kind: type[AnySettings],
    *,
    file: Path | None = None,
    environment: Mapping[str, str] = os.environ,
    flags: Mapping[str, object] = {},
    defaults: Mapping[str, object] = {},
) -> AnySettings:
    """The effective settings. `flags` maps "section.key" to values; None means not given.

    `defaults` are those of one process, where they are not the settings' own.
    Raises SettingsError with one sentence.
    """
    merged: dict[str, Any] = {}
    _merge(merged, defaults)
    for section, values in (_read_file(file) if file else {}).items():
        given = isinstance(values, dict) and section in merged
        merged[section] = merged[section] | values if given else values
    variables = dict(_from_environment(kind, environment))
    _merge(merged, variables)
    given_flags = {key: value for key, value in flags.items() if value is not None}
    _merge(merged, given_flags)
    try:
        # Not strict: the environment has only text.
        return msgspec.convert(merged, kind, strict=False, dec_hook=_to_secret)
    except msgspec.ValidationError as error:
        origins = dict.fromkeys(variables, "the environment") | dict.fromkeys(given_flags, "the command line")
        raise SettingsError(_sentence(error, file, origins)) from error


def show_settings(settings: msgspec.Struct) -> str:
    """The effective values as TOML, secrets hidden: what --check-config prints."""
    return tomli_w.dumps(_plain(settings))


def _read_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except OSError as error:
        raise SettingsError(f"settings file {file} cannot be read: {error.strerror}; give an existing file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {file} is not TOML: {error}") from error


def is_section(kind: object) -> bool:
    """Whether the environment can set its keys. A section that may be missing lists devices, which are for a file."""
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def variable_name(section: str, key: str) -> str:
    """The environment variable of a setting."""
    return f"KVANDAL_{section}_{key}".upper()


def _from_environment(kind: type[msgspec.Struct], environment: Mapping[str, str]) -> Iterator[tuple[str, object]]:
    for section in msgspec.structs.fields(kind):
        if not is_section(section.type):
            continue
        for key in msgspec.structs.fields(section.type):
            name = variable_name(section.name, key.name)
            if name in environment:
                text = environment[name]
                is_list = key.name == "sources"
                yield f"{section.name}.{key.name}", text.split(",") if is_list else text
            elif _is_read_at_once(section.type, key) and f"{name}_FILE" in environment:
                yield f"{section.name}.{key.name}", _read_secret(Path(environment[f"{name}_FILE"]), f"{name}_FILE")


def _is_read_at_once(section: type[msgspec.Struct], key: msgspec.structs.FieldInfo) -> bool:
    """Whether a secret has no setting for the name of its file: then the file is read here, once."""
    return key.type is Secret and f"{key.name}_file" not in section.__struct_fields__


def _read_secret(file: Path, variable: str) -> str:
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(f"{variable} names {file}, which cannot be read: {reason}; give a readable file") from error


def _merge(into: dict[str, Any], values: Mapping[str, object]) -> None:
    for path, value in values.items():
        section, _, key = path.partition(".")
        held = into.setdefault(section, {})
        if isinstance(held, dict):  # anything else is refused below, where the kinds are checked
            held[key] = value


def _to_secret(kind: type, value: object) -> Any:  # noqa: ANN401 - msgspec's hook
    if kind is Secret:
        return Secret(value)
    raise NotImplementedError


def _sentence(error: msgspec.ValidationError, file: Path | None, origins: Mapping[str, str]) -> str:
    """The setting, what is wrong with it, and where it came from."""
    text, _, path = str(error).partition(" - at `$")
    place = path.rstrip("`").lstrip(".")
    setting = next((name for name in origins if place.startswith(name)), "")
    origin = origins.get(setting) or (f"settings file {file}" if file else "")
    said = f"{place}: {text[0].lower()}{text[1:]}" if place else text
    return f"{said} (from {origin})" if origin else said


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever settings are made of
    """Settings as TOML has them: no secret, and nothing that is not given."""
    if isinstance(value, Secret):
        return "***" if value else ""
    if isinstance(value, msgspec.Struct):
        given = {field.encode_name: getattr(value, field.name) for field in msgspec.structs.fields(value)}
        return {name: _plain(one) for name, one in given.items() if one is not None}
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value
