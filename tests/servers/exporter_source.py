"""A source of any exporter, to try what is shared by those that we have."""

import time
from collections.abc import Callable, Sequence

from catalogue import ResourceKind, resource_id
from collectors.counters import CounterStore
from collectors.exporter_page import ExporterPage
from collectors.exporter_reader import ExporterReader, Known
from collectors.mapping import ExporterMapping
from collectors.source import Reading
from collectors.tray import TrayPlace, this_machine
from stream.messages import EventMessage, InventoryMessage, JobMessage


class PrometheusTextSource:
    """An exporter whose mapping file says it all, made of the parts that sources of exporters share.

    `name` tells several exporters of one mapping apart. `parent` is the resource that the exporter's belong to.
    `counters` keeps counters across restarts of the agent; without it the first tick has no deltas.
    """

    def __init__(
        self,
        page: ExporterPage,
        mapping: ExporterMapping,
        *,
        name: str = "",
        parent: int = 0,
        source: int | None = None,
        machine: TrayPlace | None = None,
        counters: CounterStore | None = None,
        booted: Callable[[], str] = lambda: "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._page = page
        self._mapping = mapping
        self._name = name or mapping.name
        self._parent = parent
        machine = machine or this_machine()
        self._source = source or resource_id(ResourceKind.AGENT, f"{machine.identity}/{self._name}")
        self._reader = ExporterReader(mapping, name=self._name, counters=counters, booted=booted)
        self._known = Known(mapping, source=self._source)
        self._clock = clock

    @property
    def name(self) -> str:
        return self._name

    @property
    def bad_lines(self) -> int:
        """Lines of the exporter's text that could not be read, since the start."""
        return self._reader.bad_lines

    def inventory(self) -> Sequence[InventoryMessage]:
        """What the exporter has shown so far: nothing before the first read."""
        return self._known.messages(parent=self._parent, time_ms=int(self._clock() * 1000))

    def read(self, time_s: int) -> Sequence[Reading]:
        mapped = self._reader.read(self._page.read(self._mapping.families), time_s)
        self._known.see(mapped.labels)
        return mapped.readings(self._source, self._mapping.resource, time_s)

    def events(self) -> Sequence[EventMessage | JobMessage]:
        return ()

    def close(self) -> None:
        pass
