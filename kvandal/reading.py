"""The agent of a real node: NVML and the host itself, until told to stop."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from socket import gethostname
from threading import Event

import msgspec
from prometheus_client import CollectorRegistry

from collectors.agent import Agent, ScheduledSource
from collectors.framer import FrameRule
from collectors.host import HostSource
from collectors.kernel_log import KernelLog
from collectors.nvml import NvmlSource
from collectors.runner import StagedCounters
from collectors.spool import Spool
from kvandal.ingesting import kafka_address
from kvandal.serving import serve_metrics, tell_parent
from kvandal.settings import AgentSection, AgentSettings
from kvandal.tally import ProducedTally
from stream.clock import SystemClock
from stream.confirm import GroupProgress
from stream.publish import Publisher
from stream.retry import StoppedError, retry_until_stopped

logger = logging.getLogger(__name__)

_READ_TIMEOUT_S = 5.0


def run_agent(
    settings: AgentSettings, stop: Event, *, until_stored: bool = False, count_file: Path | None = None
) -> bool:
    """Read and publish until `stop`; False when something is left in the spool for the next start.

    Reading does not wait for the broker: frames wait in the spool. With `until_stored` they wait
    until ingest has stored them. Raises SpoolError and PortTakenError at start.
    """
    section, address, tally = settings.agent, kafka_address(settings.kafka), ProducedTally()
    registry = CollectorRegistry()
    with ExitStack() as stack:
        spool = stack.enter_context(closing(Spool(Path(section.spool), limit_bytes=section.spool_mb << 20)))
        metrics = serve_metrics(registry, host=section.metrics_host, port=section.metrics_port)
        progress = None
        if until_stored:
            try:
                progress = retry_until_stopped(
                    lambda: GroupProgress(address, group=settings.kafka.group), doing="starting", stop=stop
                )
            except StoppedError:
                return spool.is_empty()
            stack.enter_context(closing(progress))
        agent = Agent(
            name=gethostname(),
            spool=spool,
            publisher=Publisher(address, compression=settings.kafka.compression),
            clock=SystemClock(),
            registry=registry,
            frames=FrameRule(section.frame_ticks, section.frame_span_s),
            confirmations=progress,
            on_produced=tally.add if count_file else lambda _: None,
        )
        agent.start_sending()
        agent.start(_sources(section, spool))
        tell_parent({"phase": "live", "metrics": f"http://{section.metrics_host}:{metrics.server_port}/metrics"})
        stop.wait()
        drained = agent.stop(read_timeout_s=_READ_TIMEOUT_S, drain_timeout_s=section.drain_s)
    if count_file is not None:
        count_file.write_bytes(msgspec.json.encode(tally.count()))
    return drained


def _sources(section: AgentSection, spool: Spool) -> Sequence[ScheduledSource]:
    """NVML first: where the platform tells the tray's place, the host takes its identity from there."""
    scheduled = []
    nvml = None
    if "nvml" in section.sources:
        counters = StagedCounters(spool)
        nvml = NvmlSource(
            counters=counters,
            health_interval_s=section.health_interval_s,
            kernel_log=KernelLog(Path(section.kernel_log)),
        )
        nvml.inventory()
        scheduled.append(ScheduledSource(nvml, section.interval_s, counters))
    if "host" in section.sources:
        counters = StagedCounters(spool)
        host = (
            HostSource(spool=Path(section.spool), counters=counters, place=nvml.tray(), gpu_count=nvml.answering)
            if nvml
            else HostSource(spool=Path(section.spool), counters=counters)
        )
        scheduled.append(ScheduledSource(host, section.host_interval_s, counters))
    return scheduled
