"""Composes the incidents process: Kafka to Alertmanager, through memory that survives."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from prometheus_client import CollectorRegistry

from alerts.alertmanager import Alertmanager, AlertmanagerError
from alerts.exposition import IncidentMetrics
from alerts.incidents import IncidentRules, Incidents
from alerts.maintenance import RegisterError, apply_silences, load_windows, silence_of
from alerts.maintenance_register import load_register
from alerts.memory import MemoryFile
from alerts.pushing import Pusher, PushRule
from alerts.reading import EventReader
from alerts.targets import render_targets
from alerts.telling import Links
from alerts.tenants import Tenant
from alerts.tree import Tree
from stream.client import KafkaAddress
from stream.clock import Clock, SystemClock
from stream.log import LogUnavailableError
from stream.messages import EventMessage, InventoryMessage
from stream.retry import StoppedError, retry_until_stopped

logger = logging.getLogger(__name__)

_POLL_S = 0.5
_REGISTER_S = 60.0  # between two looks at the register of maintenance
_TARGETS_S = 60.0
_PAUSE_S = 2.0  # after a broker did not answer


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentOptions:
    """What the process is told.

    `maintenance` is a file of windows, or the register as CSV; `targets` is where Prometheus looks for agents.
    """

    state: Path
    alertmanagers: Sequence[str]
    links: Links = field(default_factory=Links)
    rules: IncidentRules = field(default_factory=IncidentRules)
    push: PushRule = field(default_factory=PushRule)
    lookback_s: float = 900.0
    maintenance: Path | None = None
    targets: Path | None = None
    tenants: Sequence[Tenant] = ()
    agent_port: int = 9464


def run_incidents(
    options: IncidentOptions,
    address: KafkaAddress,
    stop: Event,
    *,
    registry: CollectorRegistry,
    clock: Clock | None = None,
) -> None:
    """Turn events into alarms until `stop`; brokers and Alertmanagers that are away are waited for.

    Raises MemoryFileError when the state file cannot be used. Everything that was read is kept before anybody is told:
    a process that dies is followed by one that tells the rest, under the same labels.
    """
    with ExitStack() as running:
        process = IncidentProcess(options, clock=clock or SystemClock(), registry=registry)
        running.callback(process.close)
        while not stop.is_set():
            with suppress(StoppedError):
                reader = retry_until_stopped(
                    lambda: process.reader(address), doing="starting", stop=stop, on_retry=process.push
                )
                _read(process, reader, stop)


def _read(process: "IncidentProcess", reader: EventReader, stop: Event) -> None:
    """Until `stop`, or until the broker is away: then a new reader begins where this one was saved."""
    try:
        while not stop.is_set():
            process.step(reader)
    except LogUnavailableError as error:
        logger.warning("waiting: %s", error)
        process.push()  # what stands must not expire while the broker is away
        stop.wait(_PAUSE_S)
    finally:
        with suppress(LogUnavailableError):
            reader.close()


class IncidentProcess:
    """The incidents with their memory, their pusher and their files."""

    def __init__(self, options: IncidentOptions, *, clock: Clock, registry: CollectorRegistry) -> None:
        self._options = options
        self._clock = clock
        self._file = MemoryFile(options.state)
        memory, self._positions = self._file.load()
        self._tree = Tree()
        self._incidents = Incidents(self._tree, options.links, rules=options.rules, memory=memory)
        self._alertmanagers = [Alertmanager(url) for url in options.alertmanagers]
        self._pusher = Pusher(self._alertmanagers, clock=clock, rule=options.push)
        self._metrics = IncidentMetrics(registry)
        self._metrics.watch(self._incidents, self._pusher, self._tree)
        self._metrics.show_tenants(options.tenants)
        self._register_due_s = self._targets_due_s = 0.0
        self._targets_version = -1

    def reader(self, address: KafkaAddress) -> EventReader:
        """A reader that begins where the last one was saved. Raises LogUnavailableError."""
        return EventReader(address, self._positions, clock=self._clock, lookback_s=self._options.lookback_s)

    def step(self, reader: EventReader) -> None:
        """Read, judge, keep, tell: in this order, so that nothing is told that could be forgotten."""
        for read in reader.poll(_POLL_S):
            if isinstance(read, EventMessage):
                self._metrics.events.labels(read.kind).inc()
                self._incidents.see(read, self._clock.utc_ms())
            elif isinstance(read, InventoryMessage):
                self._tree.learn(read)
            else:
                self._metrics.refused.inc()
        self._metrics.read_timestamp.set(self._clock.utc_ms() / 1000)
        if reader.is_ready:
            self._incidents.advance(self._clock.utc_ms())
            self._positions = dict(reader.positions)
            self._file.save(self._incidents.take_changes(), self._positions)
            self.push()
            self._keep_files()  # not before: without the inventory targets would vanish, and places have no names

    def push(self) -> None:
        """Tell the Alertmanagers what they do not know yet."""
        self._incidents.sent(self._pusher.push(self._incidents.alarms))
        changes = self._incidents.take_changes()
        if changes.alarms:
            self._file.save(changes, self._positions)

    def close(self) -> None:
        self._pusher.close()
        self._file.close()

    def _keep_files(self) -> None:
        now_s = self._clock.monotonic_s()
        if self._options.maintenance is not None and now_s >= self._register_due_s:
            self._register_due_s = now_s + _REGISTER_S
            self._keep_silences(self._options.maintenance)
        if self._options.targets is not None and now_s >= self._targets_due_s:
            self._targets_due_s = now_s + _TARGETS_S
            self._write_targets(self._options.targets)

    def _keep_silences(self, register: Path) -> None:
        try:
            silences = (
                load_register(register, self._tree)
                if register.suffix == ".csv"
                else tuple(map(silence_of, load_windows(register)))
            )
            for alertmanager in self._alertmanagers:
                apply_silences(silences, alertmanager, now_ms=self._clock.utc_ms())
        except (RegisterError, AlertmanagerError) as error:
            logger.error("maintenance windows are not kept: %s", error)

    def _write_targets(self, file: Path) -> None:
        """A new file in one step: Prometheus may read it at any time."""
        if self._tree.version == self._targets_version:
            return
        self._targets_version = self._tree.version
        unfinished = file.with_suffix(".new")
        unfinished.write_text(render_targets(self._tree, port=self._options.agent_port))
        unfinished.replace(file)
