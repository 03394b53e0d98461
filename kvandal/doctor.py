"""`kvandal doctor`: looks at everything that an agent or ingest needs, and says in one line each what to do.

It changes nothing. What cannot be looked at is said as well: a check that is left out silently looks like one that
passed.
"""

import os
import re
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalogue import TABLES
from collectors.kernel_clock import read_clock_state
from kvandal.addresses import kafka_address, store_address
from kvandal.settings import AgentSection, DoctorSettings, KafkaSettings, SourceSettings, StoreSettings

if TYPE_CHECKING:
    from collectors.devices import DeviceReport
    from collectors.source import Source

MEGABYTE = 1 << 20
MAX_TEXT_CHARACTERS = 2000
TOLERATED_SKEW_S = 1.0  # ticks of two machines must be the same second
TOLERATED_ERROR_S = 0.5
_MESSAGE_TABLES = ("frames", "events", "inventory", "jobs")
_WINDOW = re.compile(r"replicated_deduplication_window = (\d+)")  # non_replicated_... ends in the same words
_VIEW_TARGET = re.compile(r" TO (?:[\w`]+\.)?`?(\w+)`?")


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "not checked"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `text` says on what, and what to do where something is wrong."""

    check: str
    verdict: Verdict
    text: str


def ok(check: str, text: str) -> Finding:
    return Finding(check, Verdict.OK, _line(text))


def warning(check: str, text: str) -> Finding:
    return Finding(check, Verdict.WARNING, _line(text))


def failed(check: str, text: str) -> Finding:
    return Finding(check, Verdict.FAILED, _line(text))


def skipped(check: str, text: str) -> Finding:
    return Finding(check, Verdict.SKIPPED, _line(text))


def _line(text: str) -> str:
    """One line of a bounded length: what a device says must not forge another one."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:MAX_TEXT_CHARACTERS])


def examine(settings: DoctorSettings, *, agent: bool, ingest: bool) -> Iterator[Finding]:
    """All findings of the parts that are asked for, as they are made."""
    yield _clock()
    if agent:
        yield from _agent(settings)
    yield from _broker(settings.kafka)
    if ingest:
        yield from _store(settings.store)
        yield _port("ingest port", settings.ingest.metrics_host, settings.ingest.metrics_port, "ingest.metrics_port")


def _clock() -> Finding:
    state = read_clock_state()
    if state is None:
        return skipped("clock", "the kernel does not tell whether its clock is kept in step")
    if not state.synchronised:
        return warning("clock", "nothing keeps this machine's clock in step; run chrony or systemd-timesyncd")
    if state.max_error_s > TOLERATED_ERROR_S:
        return warning("clock", f"may be wrong by {state.max_error_s:.2f} s; see chronyc tracking, or timedatectl")
    return ok("clock", f"kept in step, wrong by {state.max_error_s * 1000:.0f} ms at most")


# The node ------------------------------------------------------------------------------------------------------------


def _agent(settings: SourceSettings) -> Iterator[Finding]:
    section = settings.agent
    yield _spool(section)
    yield from _sources(settings)
    if "nvml" in section.sources:
        yield _kernel_log(Path(section.kernel_log))
    yield _port("agent port", section.metrics_host, section.metrics_port, "agent.metrics_port")


def _spool(section: AgentSection) -> Finding:
    """Whether the spool, or the first folder above it that exists, can be written, and has room for all of it."""
    path = Path(section.spool)
    existing = next(place for place in (path, *path.parents) if place.exists())
    if existing.is_file() and existing != path:
        return failed("spool", f"{existing} is a file; give another path in agent.spool")
    if not os.access(existing, os.W_OK):
        return failed("spool", f"{existing} cannot be written by this user; change its owner, or agent.spool")
    disk = os.statvfs(existing)
    free_mb = disk.f_bavail * disk.f_frsize // MEGABYTE
    kept_mb = path.stat().st_size // MEGABYTE if path.exists() else 0
    if free_mb + kept_mb < section.spool_mb:
        return failed(
            "spool", f"{path} may take {section.spool_mb} MB, {free_mb} MB are free; make room, or less agent.spool_mb"
        )
    return ok("spool", f"{path}, {section.spool_mb} MB at most, {free_mb:,} MB free")


def _sources(settings: SourceSettings) -> Iterator[Finding]:
    """Every source read once, as the agent would."""
    from kvandal.sources import make_sources

    for scheduled in make_sources(settings, None):
        yield from examine_source(scheduled.source)


def examine_source(source: "Source") -> Iterator[Finding]:
    """Read a source once, and close it: what it gives, and how each of its devices does."""
    from collectors.source import DeviceSource

    check = f"source {source.name}"
    try:
        # Whatever breaks a source is the finding.
        yield from _guarded(check, lambda: _reading(check, source), errors=Exception)
        if isinstance(source, DeviceSource):
            yield from _guarded(check, lambda: _devices(check, source.devices()), errors=Exception)
    finally:
        source.close()


def _reading(check: str, source: "Source") -> Iterator[Finding]:
    from collectors.source import ExplainingSource

    rows = sum(len(reading.rows) for reading in source.read(int(time.time())))
    remarks = source.remarks() if isinstance(source, ExplainingSource) else ()
    yield (
        warning(check, "; ".join(remarks))
        if remarks
        else ok(check, f"answers with {rows} {'row' if rows == 1 else 'rows'}")
    )


def _devices(check: str, reports: "Sequence[DeviceReport]") -> Iterator[Finding]:
    """A line for each device that is not well, and one for all that are."""
    from collectors.devices import DeviceState

    well = sum(report.state is DeviceState.OK for report in reports)
    if well:
        yield ok(check, f"{well} of {len(reports)} devices answer")
    for report in reports:
        if report.state is not DeviceState.OK:
            find = skipped if report.state is DeviceState.UNKNOWN else failed
            yield find(check, f"{report.device} is {report.state.value}" + (f": {report.why}" if report.why else ""))


def _kernel_log(path: Path) -> Finding:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    except OSError as error:
        why = error.strerror.lower() if error.strerror else str(error)
        return warning("kernel log", f"{path}: {why}; XIDs then have NVML as their only witness: give CAP_SYSLOG")
    return ok("kernel log", f"{path} can be read")


def _port(check: str, host: str, port: int, setting: str) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            why = error.strerror.lower() if error.strerror else str(error)
            return warning(check, f"{host}:{port}: {why}; fine if this process runs already, else change {setting}")
    return ok(check, f"{host}:{port} is free")


# The broker ----------------------------------------------------------------------------------------------------------


def _broker(kafka: KafkaSettings) -> Iterator[Finding]:
    from stream.client import make_admin

    try:
        admin = make_admin(kafka_address(kafka))
    except ConnectionError as error:
        yield failed("broker", f"{error}; start it, or give kafka.bootstrap")
        yield skipped("topics", "without a broker")
        return
    with closing(admin):
        yield ok("broker", f"answers at {kafka.bootstrap}")
        yield skipped("broker clock", "Kafka tells no time; the store's clock stands for it")
        yield from _guarded("topics", lambda: _topics(admin, kafka))


# Any: kafka-python and clickhouse-connect hand out untyped clients and answers, here and below.
def _topics(admin: Any, kafka: KafkaSettings) -> Iterator[Finding]:  # noqa: ANN401
    from kafka.admin import ConfigResource, ConfigResourceType  # type: ignore[import-untyped]

    from stream.client import kafka_errors
    from stream.topics import ALL_TOPICS

    with kafka_errors("asking for the topics"):
        present = set(admin.list_topics())
        missing = [topic.name for topic in ALL_TOPICS if topic.name not in present]
        if missing:
            yield failed("topics", f"missing: {', '.join(missing)}; run kvandal topics apply")
        names = [topic.name for topic in ALL_TOPICS if topic.name in present]
        described = {topic["name"]: topic["partitions"] for topic in admin.describe_topics(names)} if names else {}
        asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        kept = admin.describe_configs(asked, config_filter="all").get("topic", {}) if asked else {}
    wrong: defaultdict[str, list[str]] = defaultdict(list)  # by fault, the topics that have it
    for topic in ALL_TOPICS:
        if topic.name in present:
            wanted = kafka.partitions or topic.partitions
            faults = _topic_faults(described[topic.name], wanted, kafka.replication)
            for fault in chain(faults, _setting_faults(topic.settings, kept.get(topic.name, {}))):
                wrong[fault].append(topic.name)
    for fault, topics in wrong.items():
        yield warning("topics", f"{', '.join(topics)}: {fault}")
    if not missing and not wrong:
        yield ok("topics", f"all {len(names)} are there, with their settings")


def _topic_faults(partitions: Sequence[Mapping[str, Any]], wanted: int, replication: int) -> Iterator[str]:
    if len(partitions) < wanted:
        yield f"{len(partitions)} of {wanted} partitions: add the others with kafka-topics --alter"
    copies = min(len(partition["replica_nodes"]) for partition in partitions)
    if copies < replication:
        number = f"{copies} {'copy' if copies == 1 else 'copies'}"
        yield f"{number}, kafka.replication is {replication}: reassign them, or change the setting"


def _setting_faults(wanted: Mapping[str, str], kept: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    if not kept:
        yield "the broker keeps no settings of topics: fine for the embedded one only"
        return
    for key, value in wanted.items():
        found = str(kept.get(key, {}).get("value", "not told"))
        if found != value:
            yield f"{key}={found}, {value} is meant: set it with kafka-configs --alter"


def _guarded(
    check: str,
    look: Callable[[], Iterator[Finding]],
    *,
    errors: type[Exception] | tuple[type[Exception], ...] = (ConnectionError, ValueError),
) -> Iterator[Finding]:
    """The findings of a check; that it broke off is a finding too."""
    try:
        yield from look()
    except errors as error:
        yield failed(check, str(error) or type(error).__name__)


# The store -----------------------------------------------------------------------------------------------------------


def _store(store: StoreSettings) -> Iterator[Finding]:
    from storage.client import connect

    try:
        client = connect(store_address(store))
    except (ConnectionError, ValueError) as error:
        yield failed("store", f"{error}; start it, or give store.url")
        yield skipped("store checks", "clock, schema, windows and insert settings: without a store")
        return
    with closing(client):
        yield ok("store", f"ClickHouse {client.server_version} answers at {store.url}")
        for check, look in (
            ("store clock", _store_clock),
            ("schema", _schema),
            ("windows", _windows),
            ("insert settings", _insert_settings),
        ):
            yield from _guarded(check, lambda look=look: look(client))  # type: ignore[misc]


def _store_clock(client: Any) -> Iterator[Finding]:  # noqa: ANN401
    before_s = time.time()
    told_ms = _ask(client, "SELECT toUnixTimestamp64Milli(now64(3))")[0][0]
    after_s = time.time()
    skew_s = told_ms / 1000 - (before_s + after_s) / 2
    if abs(skew_s) > TOLERATED_SKEW_S + (after_s - before_s) / 2:
        yield failed("store clock", f"{skew_s:+.1f} s against this machine's; keep both in step")
    else:
        yield ok("store clock", f"{skew_s * 1000:+.0f} ms against this machine's")


def _schema(client: Any) -> Iterator[Finding]:  # noqa: ANN401
    from storage.schema import diff, status

    states = status(client)
    missing = [f"{state.migration.number:04}" for state in states if not state.applied]
    changed = [f"{state.migration.number:04}" for state in states if state.changed]
    if missing:
        yield failed("schema", f"migrations {', '.join(missing)} are missing; run kvandal schema apply")
        return
    if changed:
        yield failed("schema", f"migrations {', '.join(changed)} have changed since; restore their files")
    differences = diff(client)
    for sentence in differences:
        yield failed("schema", f"{sentence}; see kvandal schema diff")
    if not changed and not differences:
        yield ok("schema", f"all {len(states)} migrations applied, the tables are what the catalogue says")


def _windows(client: Any) -> Iterator[Finding]:  # noqa: ANN401
    """The deduplication window of every table that ingest writes, and of every target of a view."""
    from storage.ddl import DEDUPLICATION_WINDOW

    rows = _ask(client, "SELECT name, engine, create_table_query FROM system.tables WHERE database = currentDatabase()")
    statements = {name: statement for name, engine, statement in rows if engine != "MaterializedView"}
    targets = {
        found.group(1)
        for _, engine, statement in rows
        if engine == "MaterializedView" and (found := _VIEW_TARGET.search(statement))
    }
    wanted = sorted({table.name for table in TABLES} | set(_MESSAGE_TABLES) | targets)
    short = []
    for name in wanted:
        found = _WINDOW.search(statements.get(name, ""))
        if not found or int(found.group(1)) < DEDUPLICATION_WINDOW:
            short.append(name)
    if short:
        yield failed(
            "windows",
            f"deduplication window below {DEDUPLICATION_WINDOW:,} on {', '.join(short)}: a replay would double rows; "
            "ALTER TABLE ... MODIFY SETTING, or kvandal schema apply",
        )
    else:
        yield ok("windows", f"{DEDUPLICATION_WINDOW:,} inserts or more on {len(wanted)} tables and view targets")


def _insert_settings(client: Any) -> Iterator[Finding]:  # noqa: ANN401
    """Whether this user may set what every insert sets."""
    from storage.writer import INSERT_SETTINGS

    _ask(client, "SELECT 1", settings=INSERT_SETTINGS)
    yield ok("insert settings", f"{', '.join(INSERT_SETTINGS)} are taken")


def _ask(client: Any, query: str, settings: Mapping[str, Any] | None = None) -> Sequence[Any]:  # noqa: ANN401
    from storage.client import store_errors

    with store_errors("asking the store"):
        rows: Sequence[Any] = client.query(query, settings=settings).result_rows
        return rows
