"""Meters, heat meters and cooling units over Modbus TCP, by register maps or by SunSpec: as they count, in base units.

Devices are read side by side. The units behind one gateway share its connection and are asked one after the other.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from time import monotonic

from catalogue import Metric
from collectors.device_pool import DevicePool
from collectors.devices import DeviceError, DeviceReport, DeviceState
from collectors.facility import Measurement, PointValue, gateway_id, readings_of
from collectors.modbus.connection import Connection
from collectors.modbus.device import DeviceReader, ModbusAnswer
from collectors.modbus.map import RegisterMap
from collectors.modbus.map_file import MapError, load_register_map
from collectors.modbus.meter import MeterRecord
from collectors.modbus.settings import SUNSPEC, ModbusDevice, ModbusSettings
from collectors.source import Reading, SourceUnavailableError
from stream.clock import Clock
from stream.messages import EventMessage, InventoryMessage, JobMessage

NAMED_DEVICES = 5  # in one remark
LINE_SHARE = 0.95  # of the tick's time, for the units behind one gateway: what they gave must be handed on

Answers = dict[str, ModbusAnswer]  # by the device's name

_log = logging.getLogger(__name__)


class ModbusSource:
    """The devices of `settings` as rows of tables `power`, `cooling` and `rack`, and points.

    `gateway` is the identity of the machine that reads. Raises MapError, a ValueError, when a register map is wrong or
    does not fit; talks to no device before the first read. `name` tells two of them in one agent apart.
    """

    def __init__(self, settings: ModbusSettings, *, gateway: str, clock: Clock, name: str = "modbus") -> None:
        self._name = name
        self._settings = settings
        self._source = gateway_id(gateway, name)
        self._clock = clock
        self._end_s = 0.0  # monotonic: when the tick under way is over
        self._events: list[EventMessage] = []
        self._owners: dict[int, str] = {}  # which device has a resource
        self._doubled: set[str] = set()
        maps = {name: _load(name, settings) for name in {device.map for device in settings.devices}}
        self._records = {device.name: self._record(device, maps[device.map]) for device in settings.devices}
        self._connections = {
            device.address: Connection(device.host, device.port, timeout_s=settings.timeout_s)
            for device in settings.devices
        }
        self._lines: dict[str, DevicePool[ModbusAnswer]] = {}  # gateways with several units, by address
        self._pool = self._pool_of(maps)

    @property
    def name(self) -> str:
        return self._name

    def inventory(self) -> Sequence[InventoryMessage]:
        """The devices whose identity is known, and their points; their registers as they count now."""
        time_ms = self._clock.utc_ms()
        return [message for record in self._owned() for message in record.inventory(time_ms)]

    def inventory_changed(self) -> bool:
        return any(record.changed for record in self._owned())

    def read(self, time_s: int) -> Sequence[Reading]:
        self._end_s = monotonic() + self._settings.budget_s
        measurements: list[Measurement] = []
        points: list[PointValue] = []
        answers = {name: answer for found in self._pool.poll().values() for name, answer in found.items()}
        for name, answer in answers.items():
            measurement, values = self._take(self._records[name], answer, time_s)
            measurements += [measurement] if measurement else []
            points += values
        if not answers:
            raise SourceUnavailableError(f"no device answered: {'; '.join(self.remarks()) or 'none was due'}")
        return readings_of(self._source, time_s, measurements, points)

    def events(self) -> Sequence[EventMessage | JobMessage]:
        """Meters that were exchanged, registers that stand still."""
        events, self._events = self._events, []
        return events

    def devices(self) -> Sequence[DeviceReport]:
        """How each device does, in the order of the settings."""
        reports = {report.device: report for report in self._pool.reports()}
        for address, line in self._lines.items():
            whole = reports[_seat(address)]  # not OK when nobody came to ask it
            asked = whole.state in (DeviceState.OK, DeviceState.UNKNOWN)
            units = {unit.device: unit for unit in line.reports()}
            reports |= units if asked else {name: replace(whole, device=name) for name in units}
        return [reports[name] for name in self._records]

    def remarks(self) -> Sequence[str]:
        """Devices that do not answer, the first of them by name; points that devices refuse; doubled identities."""
        sick = [one for one in self.devices() if one.state not in (DeviceState.OK, DeviceState.UNKNOWN)]
        counts = Counter(one.state for one in sick)
        remarks = [f"{count} of {len(self._records)} devices {state.value}" for state, count in counts.items()]
        remarks += [f"{one.device}: {one.why}" for one in sick[:NAMED_DEVICES]]
        refusing = {name: record.refused for name, record in self._records.items() if record.refused}
        remarks += [f"{name} refuses {', '.join(refused)}" for name, refused in list(refusing.items())[:NAMED_DEVICES]]
        return remarks + [f"{name} has the identity of another device; give it its own" for name in self._doubled]

    def why_absent(self, resource: int, metric: Metric) -> str:
        owner = self._owners.get(resource, "")
        if owner not in self._records:
            return ""
        return self._records[owner].absent.get(metric.name, "not in its register map")

    def close(self) -> None:
        self._pool.close()
        for line in self._lines.values():
            line.close()
        for connection in self._connections.values():
            connection.close()

    def _take(
        self, record: MeterRecord, answer: ModbusAnswer, time_s: int
    ) -> tuple[Measurement | None, list[PointValue]]:
        """The rows of an answer; none of a device that says it is another one of ours."""
        measurement, points = record.take(answer, time_s)
        owner = self._owner(record)
        if owner != record.device.name:
            self._warn_of_double(record, owner)
            return None, []
        self._doubled.discard(record.device.name)
        self._events += record.events()
        return measurement, points

    def _owned(self) -> list[MeterRecord]:
        """The devices that have their resource to themselves."""
        return [record for name, record in self._records.items() if name not in self._doubled]

    def _owner(self, record: MeterRecord) -> str:
        """Which device has the record's resource: the first that claimed it, as long as it does."""
        owner = self._owners.get(record.resource)
        if owner is None or self._records[owner].resource != record.resource:
            self._owners = {one: name for one, name in self._owners.items() if self._records[name].resource == one}
            self._owners[record.resource] = owner = record.device.name
        return owner

    def _warn_of_double(self, record: MeterRecord, owner: str) -> None:
        record.events()
        if record.device.name not in self._doubled:
            self._doubled.add(record.device.name)
            _log.warning(
                "Two devices have one identity: only the first is read",
                extra={"identity": record.identity, "first": owner, "second": record.device.name},
            )

    # Putting it together ----------------------------------------------------------------------------------------------

    def _record(self, device: ModbusDevice, register_map: RegisterMap | None) -> MeterRecord:
        if register_map is not None and not device.identity and not register_map.tells_serial:
            raise MapError(
                f"device {device.name!r}: map {device.map} has no serial number; give the device an identity"
            )
        return MeterRecord(
            device,
            register_map,
            source=self._source,
            interval_s=self._settings.interval_s,
            frozen_after_s=self._settings.frozen_after_s,
        )

    def _pool_of(self, maps: Mapping[str, RegisterMap | None]) -> DevicePool[Answers]:
        by_address: dict[str, list[ModbusDevice]] = {}
        for device in self._settings.devices:
            by_address.setdefault(device.address, []).append(device)
        seats: dict[str, Callable[[], Answers]] = {}
        for address, devices in by_address.items():
            readers = [self._reader(device, maps[device.map]) for device in devices]
            if len(readers) == 1:
                seats[devices[0].name] = partial(self._read_alone, readers[0])
            else:
                self._lines[address] = line = self._line(readers)
                seats[_seat(address)] = partial(self._read_line, line)
        return DevicePool(
            seats,
            source=self._name,
            workers=self._settings.workers,
            deadline_s=self._settings.budget_s,
            clock=self._clock,
        )

    def _line(self, readers: Sequence[DeviceReader]) -> DevicePool[ModbusAnswer]:
        """The units behind one gateway, each with a state of its own; all within a little less than the tick's time."""
        return DevicePool(
            {reader.device.name: partial(self._read_unit, reader) for reader in readers},
            source=self._name,
            workers=1,
            deadline_s=LINE_SHARE * self._settings.budget_s,
            clock=self._clock,
        )

    def _reader(self, device: ModbusDevice, register_map: RegisterMap | None) -> DeviceReader:
        return DeviceReader(
            device,
            register_map,
            self._connections[device.address],
            identity_every_s=self._settings.identity_every_s,
            clock=self._clock,
        )

    # On the pool's threads --------------------------------------------------------------------------------------------

    def _read_alone(self, reader: DeviceReader) -> Answers:
        return {reader.device.name: self._read_unit(reader)}

    def _read_line(self, line: DevicePool[ModbusAnswer]) -> Answers:
        self._refuse_late()
        return line.poll()

    def _read_unit(self, reader: DeviceReader) -> ModbusAnswer:
        self._refuse_late()
        return reader.read(self._end_s)

    def _refuse_late(self) -> None:
        """Once the tick that asked is over nobody waits for an answer, and those of the next tick would wait for us."""
        if monotonic() >= self._end_s:
            raise DeviceError(DeviceState.SLOW, "no worker was free in time")


def _seat(address: str) -> str:
    return f"gateway {address}"


def _load(name: str, settings: ModbusSettings) -> RegisterMap | None:
    """The map of that name; None for a device that describes itself."""
    return None if name == SUNSPEC else load_register_map(name, settings.maps)
