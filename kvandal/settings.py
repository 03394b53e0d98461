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

Seconds = Annotated[int, msgspec.Meta(ge=1, le=3600)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
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
    """Where the brokers are."""

    bootstrap: str = "127.0.0.1:9092"
    replication: Annotated[int, msgspec.Meta(ge=1, le=5)] = 3  # of topics that we create
    partitions: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0  # of topics that we create; 0 = each topic's own
    compression: Literal["zstd", "lz4", "gzip"] = "zstd"
    group: str = "kvandal-ingest"


class StoreSettings(_Section, frozen=True, kw_only=True):
    """Where ClickHouse is."""

    url: str = "http://127.0.0.1:8123"
    user: str = "default"
    password: Secret = Secret("")
    database: str = "kvandal"


class AgentSection(_Section, frozen=True, kw_only=True):
    """What the agent reads and how it keeps it."""

    sources: tuple[Literal["nvml", "dcgm", "infiniband", "host"], ...] = ("nvml", "host")
    interval_s: Seconds = 1
    host_interval_s: Seconds = 10
    infiniband_interval_s: Seconds = 10
    dcgm_interval_s: Seconds = 30  # the exporter's own collection interval: to ask more often tells nothing new
    dcgm_url: str = "http://127.0.0.1:9400/metrics"
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

    insert_rows: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 60_000
    insert_age_s: Seconds = 5
    buffer_mb: Megabytes = 256
    session_timeout_s: Seconds = 30
    behind_days: Annotated[int, msgspec.Meta(ge=1, le=4000)] = 400
    ahead_s: Seconds = 300
    raw_days: Annotated[int, msgspec.Meta(ge=0, le=4000)] = 0  # how long raw rows are kept; 0 = as the catalogue says
    metrics_port: Port = 9465
    metrics_host: str = "127.0.0.1"


class AgentSettings(_Section, frozen=True, kw_only=True):
    """Everything that `kvandal agent` can be told."""

    agent: AgentSection = AgentSection()
    kafka: KafkaSettings = KafkaSettings()


class IngestSettings(_Section, frozen=True, kw_only=True):
    """Everything that `kvandal ingest` can be told."""

    ingest: IngestSection = IngestSection()
    kafka: KafkaSettings = KafkaSettings()
    store: StoreSettings = StoreSettings()


class ClientSettings(_Section, frozen=True, kw_only=True):
    """What the verbs need that only ask or look."""

    kafka: KafkaSettings = KafkaSettings()
    store: StoreSettings = StoreSettings()


class DoctorSettings(_Section, frozen=True, kw_only=True):
    """What the doctor looks at: the settings file of an agent or of ingest."""

    agent: AgentSection = AgentSection()
    ingest: IngestSection = IngestSection()
    kafka: KafkaSettings = KafkaSettings()
    store: StoreSettings = StoreSettings()


AnySettings = TypeVar("AnySettings", AgentSettings, IngestSettings, ClientSettings, DoctorSettings)


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
    _merge(merged, dict(_from_environment(kind, environment)))
    _merge(merged, {key: value for key, value in flags.items() if value is not None})
    try:
        # Not strict: the environment has only text.
        return msgspec.convert(merged, kind, strict=False, dec_hook=_to_secret)
    except msgspec.ValidationError as error:
        raise SettingsError(_sentence(error, file)) from error


def show_settings(settings: msgspec.Struct) -> str:
    """The effective values as TOML, secrets hidden: what --check-config prints."""
    lines = []
    for section in settings.__struct_fields__:
        lines.append(f"[{section}]")
        values = getattr(settings, section)
        lines += [f"{key} = {_toml(getattr(values, key))}" for key in values.__struct_fields__]
        lines.append("")
    return "\n".join(lines)


def _read_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except OSError as error:
        raise SettingsError(f"settings file {file} cannot be read: {error.strerror}; give an existing file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {file} is not TOML: {error}") from error


def _from_environment(kind: type[msgspec.Struct], environment: Mapping[str, str]) -> Iterator[tuple[str, object]]:
    for section in msgspec.structs.fields(kind):
        for key in msgspec.structs.fields(section.type):
            name = f"KVANDAL_{section.name}_{key.name}".upper()
            if name in environment:
                text = environment[name]
                is_list = key.name == "sources"
                yield f"{section.name}.{key.name}", text.split(",") if is_list else text
            elif key.type is Secret and f"{name}_FILE" in environment:
                yield f"{section.name}.{key.name}", _read_secret(Path(environment[f"{name}_FILE"]), f"{name}_FILE")


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


def _sentence(error: msgspec.ValidationError, file: Path | None) -> str:
    text, _, path = str(error).partition(" - at `$")
    place = path.rstrip("`").lstrip(".")
    where = f" (settings come from {file or 'no file'}, the environment and flags)"
    return f"{place or 'settings'}: {text[0].lower()}{text[1:]}{where}"


def _toml(value: object) -> str:
    if isinstance(value, Secret):
        return '"***"' if value else '""'
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)
