"""The agent of a real node or gateway, until told to stop."""

import logging
from collections.abc import Callable
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path
from socket import gethostname
from threading import Event

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics

from collectors.agent import Agent
from collectors.framer import FrameRule
from collectors.spool import Spool, Spooled
from kvandal.addresses import kafka_address
from kvandal.hangup import Reload
from kvandal.memory import give_back_memory
from kvandal.serving import serve_metrics, tell_parent
from kvandal.settings import AgentSettings
from kvandal.sources import make_sources
from stream.client import KafkaAddress
from stream.clock import SystemClock
from stream.confirm import GroupProgress
from stream.publish import Publisher
from stream.retry import StoppedError, retry_until_stopped

logger = logging.getLogger(__name__)

READ_TIMEOUT_S = 5.0  # for a source under way when the agent stops or reloads
_LOOK_S = 1.0  # how soon a hanging source is noticed, and SIGHUP heeded
_GIVE_BACK_LOOKS = 10  # between two times that free memory goes back: of a frame that left, some 0.2 MB are free
# What a reload can change; everything else needs a restart.
_RELOADED = frozenset({
    "sources", "interval_s", "host_interval_s", "infiniband_interval_s", "dcgm_interval_s", "dcgm_url",
    "dsx_interval_s", "health_interval_s", "kernel_log",
})  # fmt: skip
_FIXED_SECTIONS = frozenset({"agent", "kafka"})  # all others are a source's own


def run_agent(
    settings: AgentSettings,
    stop: Event,
    *,
    until_stored: bool = False,
    count_file: Path | None = None,
    reload: Reload | None = None,
) -> bool:
    """Read and publish until `stop`; False when something is left in the spool for the next start.

    Reading does not wait for the broker: frames wait in the spool. With `until_stored` they wait until ingest has
    stored them. Raises SpoolError and PortTakenError at start.
    """
    section, address = settings.agent, kafka_address(settings.kafka)
    with ExitStack() as stack:
        spool = stack.enter_context(closing(Spool(Path(section.spool), limit_bytes=section.spool_mb << 20)))
        registry = _registry()
        metrics = serve_metrics(registry, host=section.metrics_host, port=section.metrics_port)
        progress = None
        if until_stored:
            try:
                progress = stack.enter_context(closing(_progress(address, settings.kafka.group, stop)))
            except StoppedError:
                return spool.is_empty()
        note_produced, save_count = _tally(count_file)
        stack.callback(save_count)
        agent = Agent(
            name=gethostname(),
            spool=spool,
            publisher=Publisher(address, compression=settings.kafka.compression),
            clock=SystemClock(),
            registry=registry,
            frames=FrameRule(section.frame_ticks, section.frame_span_s),
            confirmations=progress,
            on_produced=note_produced,
        )
        agent.start_sending()
        agent.start(make_sources(settings, spool))
        tell_parent({"phase": "live", "metrics": f"http://{section.metrics_host}:{metrics.server_port}/metrics"})
        _look_after(agent, settings, spool, stop, reload)
        return agent.stop(read_timeout_s=READ_TIMEOUT_S, drain_timeout_s=section.drain_s)


def _registry() -> CollectorRegistry:
    """A registry with what the process itself costs: its resident memory is what the unit's MemoryMax bounds."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


def _progress(address: KafkaAddress, group: str, stop: Event) -> GroupProgress:
    return retry_until_stopped(lambda: GroupProgress(address, group=group), doing="starting", stop=stop)


def _tally(count_file: Path | None) -> tuple[Callable[[Spooled], None], Callable[[], object]]:
    """What counts acknowledged frames, and what writes the count in the end."""
    if count_file is None:
        return lambda _: None, lambda: None
    from kvandal.tally import ProducedTally

    tally = ProducedTally()
    return tally.add, lambda: count_file.write_bytes(msgspec.json.encode(tally.count()))


def _look_after(agent: Agent, settings: AgentSettings, spool: Spool, stop: Event, reload: Reload | None) -> None:
    """Until `stop`: notice sources that hang, and heed SIGHUP."""
    for look in count():
        if stop.wait(_LOOK_S):
            return
        agent.judge()
        if look % _GIVE_BACK_LOOKS == 0:
            give_back_memory()
        wanted = reload.take() if reload else None
        if wanted is not None:
            _apply(agent, settings, wanted, spool)
            settings = wanted


def _apply(agent: Agent, old: AgentSettings, new: AgentSettings, spool: Spool) -> None:
    """Read by the new settings from now on."""
    changed = _changed(old, new)
    waiting = [name for name in changed if not _is_reloaded(name)]
    if waiting:
        logger.warning("changed settings hold after a restart only", extra={"settings": ", ".join(waiting)})
    if len(changed) > len(waiting):
        agent.stop_reading(READ_TIMEOUT_S)
        agent.start(make_sources(new, spool))
    logger.info("settings reloaded", extra={"changed": ", ".join(changed) or "nothing"})


def _is_reloaded(name: str) -> bool:
    section, _, key = name.partition(".")
    return key in _RELOADED if section == "agent" else section not in _FIXED_SECTIONS


def _changed(old: AgentSettings, new: AgentSettings) -> list[str]:
    """The settings that differ, by their names; of a source's own section the section."""
    names: list[str] = []
    for section in old.__struct_fields__:
        before, after = getattr(old, section), getattr(new, section)
        if section in _FIXED_SECTIONS:
            keys = (key for key in before.__struct_fields__ if getattr(before, key) != getattr(after, key))
            names += [f"{section}.{key}" for key in keys]
        elif before != after:
            names.append(section)
    return names
