"""Agents over a simulated site: a month of history first, where there is none yet, then live."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import msgspec
from prometheus_client import CollectorRegistry

from collectors.agent import Agent, ScheduledSource
from collectors.framer import FrameRule
from collectors.simulator import SimulatorSource
from collectors.source import Reading
from collectors.spool import Spool
from kvandal.addresses import kafka_address
from kvandal.serving import tell_parent
from kvandal.settings import AgentSettings
from kvandal.tally import ProducedTally
from simulation import Simulation, Site
from stream.clock import SystemClock
from stream.confirm import GroupProgress
from stream.publish import Publisher

logger = logging.getLogger(__name__)

_SAVE_EVERY_S = 10
_MARGIN_S = 600  # readings on both sides of the month, so that its registers have an edge to be read at
_SKIP_S = 3600  # between the month and now the site moves on in steps that nobody reads


class SimulatedSite(msgspec.Struct, frozen=True, kw_only=True):
    """What a data directory's site is made of; the same again gives the same site and month."""

    gpus: int
    seed: int
    month_start_s: int
    month_end_s: int
    fault_rate: float = 1.0


@dataclass(frozen=True, slots=True)
class SimulateOptions:
    """Where the site's state is kept, and where the count of what was produced goes."""

    data: Path
    site: SimulatedSite
    count_file: Path | None = None
    until_stored: bool = True  # frames stay in the spool until ingest has them: for a broker that forgets

    @property
    def state_path(self) -> Path:
        return self.data / "site.npz"


def run_simulated_agents(options: SimulateOptions, settings: AgentSettings, stop: Event) -> bool:
    """Produce until `stop`, then wait until everything is stored; False when something was left.

    Says its progress on stdout as JSON lines. The month's frames are the same whenever they are
    made: when the process dies amid the month, the next start sends it again and ingest drops what
    it has.
    """
    options.data.mkdir(parents=True, exist_ok=True)
    address, clock, tally = kafka_address(settings.kafka), SystemClock(), ProducedTally()
    spool = Spool(options.data / "spool.db", limit_bytes=settings.agent.spool_mb << 20)
    progress = GroupProgress(address, group=settings.kafka.group) if options.until_stored else None
    agent = Agent(
        name="simulator",
        spool=spool,
        publisher=Publisher(address, compression=settings.kafka.compression),
        clock=clock,
        registry=CollectorRegistry(),
        frames=FrameRule(settings.agent.frame_ticks, settings.agent.frame_span_s),
        expose_readings=False,
        confirmations=progress,
        on_produced=tally.add,
    )
    with closing(spool), closing(progress) if progress else nullcontext():
        agent.start_sending()
        source = SimulatorSource(_resume(options, agent, stop))
        if not stop.is_set():
            agent.start([ScheduledSource(_Saved(source, options.state_path), settings.agent.interval_s)])
            tell_parent({"phase": "live"})
            stop.wait()
        drained = agent.stop(read_timeout_s=10.0, drain_timeout_s=settings.agent.drain_s)
    if options.count_file is not None:
        options.count_file.write_bytes(msgspec.json.encode(tally.count()))
    return drained


def _resume(options: SimulateOptions, agent: Agent, stop: Event) -> Simulation:
    """The site as of about now: from its saved state, or after its first month."""
    if options.state_path.exists():
        simulation = Simulation.load(options.state_path)
    else:
        simulation = _simulate_month(options.site, agent, stop)
        if not stop.is_set():
            simulation.save(options.state_path)
    _skip_to_now(simulation, stop)
    return simulation


def _simulate_month(site: SimulatedSite, agent: Agent, stop: Event) -> Simulation:
    simulation = Simulation(
        Site.build(site.gpus, site.seed), site.month_start_s - _MARGIN_S, seed=site.seed, fault_rate=site.fault_rate
    )
    source = SimulatorSource(simulation)
    agent.publish_messages(source.inventory())

    def chunks() -> Iterator[Sequence[Reading]]:
        for readings in source.backfill(site.month_start_s - _MARGIN_S, site.month_end_s + _MARGIN_S):
            if stop.is_set():
                return
            agent.publish_messages(source.events())
            tell_parent({"phase": "month", "done": simulation.time_s - site.month_start_s,
                   "total": site.month_end_s - site.month_start_s})  # fmt: skip
            yield readings

    agent.import_readings(chunks(), epoch_ms=site.month_start_s * 1000, wait=stop.wait)
    return simulation


def _skip_to_now(simulation: Simulation, stop: Event) -> None:
    """Meters count on while nobody reads them: registers go on, and the gap shows as missing coverage."""
    while not stop.is_set():
        now_s = SystemClock().utc_ms() // 1000
        if simulation.time_s >= now_s - 1:
            return
        simulation.step(min(simulation.time_s + _SKIP_S, now_s))


class _Saved(SimulatorSource):
    """A simulator that saves its site now and then, so that a restart finds it nearly as it was."""

    def __init__(self, source: SimulatorSource, path: Path) -> None:
        super().__init__(source.simulation)
        self._path = path

    def read(self, time_s: int) -> Sequence[Reading]:
        readings = super().read(time_s)
        if time_s % _SAVE_EVERY_S == 0:
            self.simulation.save(self._path)
        return readings

    def close(self) -> None:
        self.simulation.save(self._path)
