"""What all facility sources share: measurements and points become readings, points become inventory.

Pure: no device is talked to here. A facility source reads many devices in one tick and sends their rows under one
source id, that of the gateway that reads them: a broker's cost is per message, not per row.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from catalogue import POINTS, ResourceKind, Table, resource_id
from catalogue.facility import QUALITY_STATES
from catalogue.point import UNIT_CODES
from catalogue.units import Unit
from collectors.source import Reading
from stream.messages import InventoryMessage
from stream.rows import Rows, join_rows, pack

MAX_NAME_CHARACTERS = 256  # of an inventory message

_CODES = {name: code for code, name in QUALITY_STATES}


class Quality(IntEnum):
    """How good a value is; worse is higher, so that a row has the quality of its worst value."""

    GOOD = _CODES["good"]
    HELD = _CODES["held"]  # not read anew: the device publishes on change, and its last word still stands
    ESTIMATED = _CODES["estimated"]
    BAD = _CODES["bad"]  # the device itself says so


@dataclass(frozen=True, slots=True)
class Measurement:
    """One row of a wide table: what was read of one resource. `values` are in base units; what is missing is absent."""

    table: Table
    resource: int
    values: Mapping[str, float]
    quality: Quality = Quality.GOOD


@dataclass(frozen=True, slots=True)
class Point:
    """A facility point without a column of its own; `name` tells it from the other points of its device."""

    device: int  # resource id
    device_identity: str
    name: str
    unit: Unit
    kind: str = "gauge"  # or "counter"

    @property
    def identity(self) -> str:
        return f"{self.device_identity}/{self.name}"

    @property
    def resource(self) -> int:
        return resource_id(ResourceKind.POINT, self.identity)

    def inventory(self, *, valid_from_ms: int, source: int) -> InventoryMessage:
        """What the point is called, what it is measured in, and to which device it belongs."""
        return InventoryMessage(
            resource=self.resource,
            kind=ResourceKind.POINT,
            identity=self.identity[:MAX_NAME_CHARACTERS],
            name=self.name[:MAX_NAME_CHARACTERS],
            parent=self.device,
            valid_from_ms=valid_from_ms,
            source=source,
            attributes={"unit": self.unit.suffix, "point_kind": self.kind},
        )


@dataclass(frozen=True, slots=True)
class PointValue:
    """What was read of one point, in the point's unit."""

    point: Point
    value: float
    quality: Quality = Quality.GOOD


def gateway_id(place_identity: str, source_name: str) -> int:
    """The id under which a facility source of the agent at `place_identity` sends its rows."""
    return resource_id(ResourceKind.AGENT, f"{place_identity}/{source_name}")


def readings_of(
    source: int, time_s: int, measurements: Iterable[Measurement], points: Iterable[PointValue] = ()
) -> list[Reading]:
    """The readings of one tick, one for each table. The later of two measurements of one resource and table counts.

    What is no number that its column can hold is absent. A point in a unit that the catalogue does not know is left
    out; a metric that a table does not have is a KeyError.
    """
    by_table: dict[Table, dict[int, Measurement]] = {}
    for measurement in measurements:
        by_table.setdefault(measurement.table, {})[measurement.resource] = measurement
    readings = [Reading(source, table, _rows(table, time_s, found)) for table, found in by_table.items()]
    values = {value.point.resource: value for value in points if value.point.unit in UNIT_CODES}
    if values:
        readings.append(Reading(source, POINTS, _point_rows(time_s, values)))
    return readings


def _rows(table: Table, time_s: int, measurements: Mapping[int, Measurement]) -> Rows:
    """Rows of those that have the same metrics are packed together: devices of one model always have."""
    by_metrics: dict[tuple[str, ...], list[Measurement]] = {}
    for measurement in measurements.values():
        by_metrics.setdefault(tuple(measurement.values), []).append(measurement)
    return join_rows([_pack(table, time_s, names, alike) for names, alike in by_metrics.items()])


def _pack(table: Table, time_s: int, names: tuple[str, ...], alike: list[Measurement]) -> Rows:
    columns: dict[str, list[float]] = {name: [_number(one.values[name]) for one in alike] for name in names}
    columns["quality_state"] = [one.quality for one in alike]
    return pack(table, [one.resource for one in alike], time_s, columns)


def _point_rows(time_s: int, values: Mapping[int, PointValue]) -> Rows:
    return pack(
        POINTS,
        list(values),
        time_s,
        {
            "value_own_unit": [_number(one.value) for one in values.values()],
            "unit_state": [UNIT_CODES[one.point.unit] for one in values.values()],
            "quality_state": [one.quality for one in values.values()],
        },
    )


def _number(value: object) -> float:
    """A device's value as a float; NaN where it is none, such as a whole number of four hundred digits."""
    try:
        return float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return math.nan
