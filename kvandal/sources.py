"""The sources that the settings name, made ready to be scheduled.

A source's module is imported when the source is wanted: what a node does not have costs it no memory.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from catalogue import ResourceKind
from collectors.agent import ScheduledSource
from collectors.runner import StagedCounters
from collectors.spool import Spool
from collectors.tray import this_machine
from kvandal.settings import PLUGIN_INTERVAL_S, SOURCE_NAMES, SourceSettings
from stream.clock import SystemClock

if TYPE_CHECKING:
    from collectors.nvml.source import NvmlSource

Section = TypeVar("Section")


def make_sources(settings: SourceSettings, spool: Spool | None) -> Sequence[ScheduledSource]:
    """The sources of an agent; without a spool their counters begin anew.

    NVML comes first: where the platform tells the tray's place, the others take its identity from there. Raises
    ValueError when a register map or another file of a source is wrong, or a source of one's own cannot be had.
    """
    made, wanted = _Sources(settings, spool), settings.agent.sources
    ours = [getattr(made, name)() for name in SOURCE_NAMES if name in wanted]
    return ours + [made.plugin(name) for name in wanted if name not in SOURCE_NAMES]


class _Sources:
    """Makes each source of one agent; what sources share is here."""

    def __init__(self, settings: SourceSettings, spool: Spool | None) -> None:
        self._settings = settings
        self._section = settings.agent
        self._spool = spool
        self._clock = SystemClock()
        self._place = this_machine()
        self._nvml: NvmlSource | None = None

    def nvml(self) -> ScheduledSource:
        from collectors.kernel_log import KernelLog
        from collectors.nvml.source import NvmlSource

        kept = self._counters()
        log = KernelLog(Path(self._section.kernel_log))
        self._nvml = NvmlSource(counters=kept, health_interval_s=self._section.health_interval_s, kernel_log=log)
        self._nvml.inventory()
        self._place = self._nvml.tray()
        return ScheduledSource(self._nvml, self._section.interval_s, kept)

    def dcgm(self) -> ScheduledSource:
        from collectors.dcgm import DcgmSource

        kept = self._counters()
        source = DcgmSource(self._section.dcgm_url, tray=self._place, counters=kept)
        return ScheduledSource(source, self._section.dcgm_interval_s, kept)

    def infiniband(self) -> ScheduledSource:
        from collectors.infiniband import InfinibandSource

        kept = self._counters()
        source = InfinibandSource(tray=self._place, counters=kept)
        return ScheduledSource(source, self._section.infiniband_interval_s, kept)

    def host(self) -> ScheduledSource:
        from collectors.host import HostSource

        kept = self._counters()
        spool = Path(self._section.spool)
        source = HostSource(spool=spool, place=self._place, counters=kept, gpu_count=self._gpu_count)
        return ScheduledSource(source, self._section.host_interval_s, kept)

    def redfish(self) -> ScheduledSource:
        from collectors.redfish.source import RedfishSource

        settings, kept = _given(self._settings.redfish), self._counters()
        source = RedfishSource(settings, gateway=self._place.identity, clock=self._clock, counters=kept)
        return ScheduledSource(source, settings.interval_s, kept)

    def modbus(self) -> ScheduledSource:
        from collectors.modbus.source import ModbusSource

        settings = _given(self._settings.modbus)
        source = ModbusSource(settings, gateway=self._place.identity, clock=self._clock)
        return ScheduledSource(source, settings.interval_s)

    def dsx(self) -> ScheduledSource:
        from collectors.dsx.source import DsxSource

        settings = _given(self._settings.dsx)
        source = DsxSource(settings, gateway=self._place.identity, clock=self._clock)
        return ScheduledSource(source, self._section.dsx_interval_s)

    def snmp(self) -> ScheduledSource:
        from collectors.snmp.source import SnmpSource

        settings = _given(self._settings.snmp)
        source = SnmpSource(settings, gateway=self._place.identity, clock=self._clock)
        return ScheduledSource(source, settings.interval_s)

    def slurm(self) -> ScheduledSource:
        from collectors.slurm.nodes import NodeGpuBook
        from collectors.slurm.source import SlurmSource

        settings, kept = self._settings.slurm, self._counters()
        book = NodeGpuBook(self._place.name, self._uuids) if self._nvml and not settings.gpus_file else None
        source = SlurmSource(settings, gateway=self._place.identity, clock=self._clock, book=book, memory=kept)
        return ScheduledSource(source, settings.interval_s, kept)

    def kubernetes(self) -> ScheduledSource:
        from collectors.kubernetes.source import KubernetesSource

        settings, kept = self._settings.kubernetes, self._counters()
        source = KubernetesSource(settings, gateway=self._place.identity, clock=self._clock, memory=kept)
        return ScheduledSource(source, settings.interval_s, kept)

    def topology(self) -> ScheduledSource:
        from collectors.topology.source import TopologySource

        settings = _given(self._settings.topology)
        source = TopologySource(settings, gateway=self._place.identity, clock=self._clock)
        return ScheduledSource(source, settings.interval_s)

    def plugin(self, name: str) -> ScheduledSource:
        """A source of one's own."""
        from collectors.plugins import PluginContext, make_plugin_source

        given = dict(self._settings.plugins[name])
        interval_s, kept = given.pop("interval_s", PLUGIN_INTERVAL_S), self._counters()
        context = PluginContext(self._place.identity, self._clock, kept)
        return ScheduledSource(make_plugin_source(name, given, context), interval_s, kept)

    def _counters(self) -> StagedCounters | None:
        return StagedCounters(self._spool) if self._spool is not None else None

    def _gpu_count(self) -> int | None:
        return self._nvml.answering() if self._nvml else None

    def _uuids(self) -> Mapping[int, str]:
        """This node's GPUs by their index, as NVML gives them."""
        messages = self._nvml.inventory() if self._nvml else ()
        gpus = [message.identity for message in messages if message.kind is ResourceKind.GPU]
        return dict(enumerate(gpus))


def _given(section: Section | None) -> Section:
    """A section whose source is wanted: the settings are not valid without it."""
    if section is None:
        raise ValueError("the section of a source that agent.sources names is missing")
    return section
