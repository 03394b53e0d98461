"""A simulated site as a source: what its agents and gateways would send, live or for a past period."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalogue import COOLING, GPU, GPU_HEALTH, PORT, POWER, RACK, TRAY, ResourceKind, Table, resource_id
from catalogue.facility import LeakState
from collectors.source import Reading
from simulation import (
    Columns,
    Facility,
    JobInterval,
    Resource,
    Simulation,
    SiteEvent,
    cooling_columns,
    power_columns,
    rack_columns,
)
from stream.messages import EventMessage, InventoryMessage, JobMessage
from stream.rows import pack

Floats = NDArray[np.float64]
Ids = NDArray[np.uint64]

# A chunk of a backfill is packed at once: this many GPU rows and their columns take about 0.4 GB.
CHUNK_GPU_ROWS = 500_000
FACILITY_GATEWAYS = ("cooling", "power")


class SimulatorSource:
    """Reads a simulation as its agents would: trays for `gpu` and `tray`, gateways for the rest.

    Each tray is one source id, of its GPUs, their health and their network ports too; each rack is another, and one
    gateway each sends `cooling` and `power`.
    A table is due when its cadence divides the tick. Amounts are whole counts of the catalogue whose
    rounding is carried, so that their sums are true; energy that a GPU drew before it went dark is
    reported when it is back. A tray that is off still has rows: its GPUs are dark.
    """

    def __init__(self, simulation: Simulation, *, gpu_cadence_s: int = 1, facility_cadence_s: int = 10) -> None:
        self._simulation = simulation
        self._gpu_cadence_s = gpu_cadence_s
        self._facility_cadence_s = facility_cadence_s
        self._facility_ids = _facility_ids(simulation)
        self._tray_sources = _agents(ResourceKind.TRAY, simulation.site.tray_ids)
        self._rack_sources = _agents(ResourceKind.RACK, simulation.site.rack_ids)
        self._gateways = {name: _gateway(simulation, name) for name in FACILITY_GATEWAYS}

    @property
    def name(self) -> str:
        return f"simulator {self._simulation.site.name}"

    @property
    def simulation(self) -> Simulation:
        return self._simulation

    def close(self) -> None:
        """Nothing is held."""

    # Readings

    def read(self, time_s: int) -> Sequence[Reading]:
        """Move the site to `time_s` and read the tables that are due there."""
        self._simulation.step(max(float(time_s), self._simulation.time_s))
        readings: list[Reading] = []
        if time_s % self._gpu_cadence_s == 0:
            readings += self._of_trays(GPU, [time_s], [self._read_gpus()])
        if time_s % GPU_HEALTH.cadence_s == 0:
            readings += self._of_trays(GPU_HEALTH, [time_s], [self._simulation.read_health()])
        if time_s % self._facility_cadence_s == 0:
            readings += self._of_trays(PORT, [time_s], [self._simulation.read_ports()])
            readings += self._of_trays(TRAY, [time_s], [self._read_trays()])
            readings += self._facility_readings([time_s], [self._simulation.facility()])
        return readings

    def backfill(
        self,
        start_s: int,
        end_s: int,
        gpu_tick_s: int = 300,
        facility_tick_s: int = 60,
        ticks_per_frame: int = 60,
        slow_tick_s: int = 3600,
    ) -> Iterator[Sequence[Reading]]:
        """Readings of start_s <= time < end_s, chunk by chunk in order of time.

        GPUs and trays are read every `gpu_tick_s`, health and network ports every `slow_tick_s`, both multiples of
        `facility_tick_s`, and the rest every `facility_tick_s`. A Reading has at most `ticks_per_frame` ticks, and
        fewer on a large site.
        """
        if gpu_tick_s % facility_tick_s or slow_tick_s % facility_tick_s or start_s % gpu_tick_s:
            raise ValueError(
                f"gpu_tick_s is {gpu_tick_s}, slow_tick_s is {slow_tick_s}, start_s is {start_s}; give multiples of "
                f"facility_tick_s ({facility_tick_s}), and a gpu_tick_s that divides start_s"
            )
        most = min(ticks_per_frame, max(1, CHUNK_GPU_ROWS // self._simulation.site.gpu_count))
        fleet, slow = _Batch(most), _Batch(most)
        facility: list[Facility] = []
        facility_times: list[int] = []
        for time_s in range(start_s, end_s, facility_tick_s):
            self._simulation.step(max(float(time_s), self._simulation.time_s))
            facility.append(self._simulation.facility())
            facility_times.append(time_s)
            if time_s % gpu_tick_s == 0:
                fleet.add(time_s, {GPU: self._read_gpus(), TRAY: self._read_trays()})
            if time_s % slow_tick_s == 0:
                slow.add(time_s, {GPU_HEALTH: self._simulation.read_health(), PORT: self._simulation.read_ports()})
            for batch in (fleet, slow):
                if batch.is_full:
                    yield self._fleet_readings(batch)
                    batch.clear()
            if len(facility) == ticks_per_frame:
                yield self._facility_readings(facility_times, facility)
                facility, facility_times = [], []
        rest = (self._fleet_readings(fleet), self._fleet_readings(slow))
        yield from filter(None, (*rest, self._facility_readings(facility_times, facility)))

    def _read_gpus(self) -> Columns:
        columns = self._simulation.read_gpus()
        readable = ~np.isnan(columns["power_watts"])
        spent = np.where(readable, columns["energy_joules"], self._simulation.gpu_joules_spent())
        return {**columns, "energy_joules": self._simulation.gpu_carrier.carry(spent, readable)}

    def _read_trays(self) -> Columns:
        columns = self._simulation.read_trays()
        return {**columns, "energy_joules": self._simulation.tray_carrier.carry(columns["energy_joules"])}

    def _fleet_readings(self, batch: "_Batch") -> list[Reading]:
        return [one for table, ticks in batch.ticks.items() for one in self._of_trays(table, batch.times, ticks)]

    def _of_trays(self, table: Table, times: Sequence[int], ticks: Sequence[Columns]) -> list[Reading]:
        """One reading a tray: its rows are next to each other, by time, then GPU or port."""
        site, at = self._simulation.site, np.array(times)
        if table is TRAY:
            return _cut(table, self._tray_sources, site.tray_ids[:, None], at, _stack(ticks, 1), len(times))
        ids = site.port_ids if table is PORT else site.gpu_ids
        return _cut(table, self._tray_sources, ids[:, None, :], at[:, None], _stack(ticks, 1), len(times))

    def _facility_readings(self, times: list[int], states: list[Facility]) -> list[Reading]:
        if not states:
            return []
        site, instruments, state = self._simulation.site, self._simulation.instruments, Facility.stack(states)
        columns = rack_columns(site, instruments, state)
        by_rack = {name: np.moveaxis(column, -1, 0) for name, column in columns.items()}
        racks = _cut(RACK, self._rack_sources, site.rack_ids[:, None], np.array(times), by_rack, len(times))
        gateways = (
            (COOLING, cooling_columns(site, instruments, state), self._gateways["cooling"]),
            (POWER, power_columns(site, instruments, state), self._gateways["power"]),
        )
        for table, values, source in gateways:
            ids = self._facility_ids[table.name]
            racks += _cut(table, [source], ids, np.array(times)[:, None], values, len(times))
        return racks

    # Messages

    def inventory(self) -> Sequence[InventoryMessage]:
        """The whole topology, parents before their parts."""
        valid_from_ms = self._simulation.start_s * 1000
        sources = self._sources_by_resource()
        return [_inventory(resource, sources, valid_from_ms) for resource in self._simulation.site.resources()]

    def events(self) -> Sequence[EventMessage | JobMessage]:
        """Events and job holds since the last call: one job message for each GPU."""
        events = [self._event(event) for event in self._simulation.take_events()]
        holds = [message for hold in self._simulation.take_intervals() for message in self._hold(hold)]
        return [*events, *holds]

    def _event(self, event: SiteEvent) -> EventMessage:
        time_ms = round(event.time_s * 1000)
        return EventMessage(
            id=f"{event.kind}-{event.resource:016x}-{time_ms}",
            resource=event.resource,
            time_ms=time_ms,
            kind=event.kind,
            code=LeakState.CRITICAL if event.kind == "leak" else event.code,
            text=event.text,
        )

    def _hold(self, hold: JobInterval) -> Iterator[JobMessage]:
        start_ms = round(hold.start_s * 1000)
        end_ms = None if hold.end_s is None else round(hold.end_s * 1000)
        for gpu in self._simulation.site.gpu_ids[hold.trays].ravel().tolist():
            yield JobMessage(
                job=hold.job.id,
                resource=gpu,
                start_ms=start_ms,
                end_ms=end_ms,
                name=hold.job.name,
                owner=hold.job.owner,
                customer=hold.job.customer,
            )

    def _sources_by_resource(self) -> dict[int, int]:
        site = self._simulation.site
        trays = dict(zip(site.tray_ids.tolist(), self._tray_sources, strict=True))
        racks = dict(zip(site.rack_ids.tolist(), self._rack_sources, strict=True))
        parts = np.concatenate([site.gpu_ids, site.port_ids], axis=1).tolist()
        of_trays = {part: source for row, source in zip(parts, self._tray_sources, strict=True) for part in row}
        gateways = {
            resource: self._gateways[table] for table, ids in self._facility_ids.items() for resource in ids.tolist()
        }
        return of_trays | trays | racks | gateways


class _Batch:
    """Ticks of the fleet that wait to be packed together."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.clear()

    def clear(self) -> None:
        self.times: list[int] = []
        self.ticks: dict[Table, list[Columns]] = {}

    def add(self, time_s: int, tables: Mapping[Table, Columns]) -> None:
        self.times.append(time_s)
        for table, columns in tables.items():
            self.ticks.setdefault(table, []).append(columns)

    @property
    def is_full(self) -> bool:
        return len(self.times) == self._size


def _cut(
    table: Table, sources: Sequence[int], ids: ArrayLike, times: ArrayLike, columns: Mapping[str, ArrayLike], ticks: int
) -> list[Reading]:
    """Pack everything at once and cut it into one reading for each source, in their order."""
    if ticks == 0:
        return []
    shape = np.broadcast_shapes(np.shape(ids), np.shape(times))
    flat = {name: np.broadcast_to(column, shape).ravel() for name, column in columns.items()}
    rows = pack(table, np.broadcast_to(ids, shape), np.broadcast_to(times, shape), flat)
    each = len(rows) // len(sources)
    return [
        Reading(source, table, rows[first : first + each], ticks)
        for source, first in zip(sources, range(0, len(rows), each), strict=True)
    ]


def _stack(ticks: Sequence[Columns], axis: int) -> dict[str, Floats]:
    """Columns of several ticks as one array each, the ticks along `axis`."""
    return {name: np.stack([tick[name] for tick in ticks], axis=axis) for name in ticks[0]}


def _agents(kind: ResourceKind, ids: Ids) -> list[int]:
    """One agent for each tray or rack: named after what it watches."""
    return [resource_id(ResourceKind.AGENT, f"{kind} {identity:016x}") for identity in ids.tolist()]


def _gateway(simulation: Simulation, name: str) -> int:
    site = simulation.site
    return resource_id(ResourceKind.AGENT, f"{site.name} {site.seed} {name} gateway")


def _facility_ids(simulation: Simulation) -> dict[str, Ids]:
    """Resources of the gateways' tables, in the order of their columns."""
    site = simulation.site
    return {
        "cooling": np.concatenate([site.cdu_ids, site.loop_ids, site.heat_meter_ids]),
        "power": site.meter_ids,
    }


def _inventory(resource: Resource, sources: Mapping[int, int], valid_from_ms: int) -> InventoryMessage:
    identity = resource.id
    return InventoryMessage(
        resource=identity,
        kind=resource.kind,
        identity=resource.identity,
        name=resource.name,
        valid_from_ms=valid_from_ms,
        parent=resource.parent,
        serves=resource.serves,
        source=sources.get(identity, 0),
        attributes=resource.attributes,
    )
