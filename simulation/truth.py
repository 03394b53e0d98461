"""What really happened, to the joule and the second, so that every report can be judged."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Figures = TypeVar("Figures")

HOUR_S = 3600
# Beyond this a kept hour of every GPU's figures costs more memory than it is worth (160 kB an hour).
HOURLY_FLEET_GPUS = 4096


class GpuCondition(IntEnum):
    """What a GPU was good for; the order is the order of rows in `gpu_seconds`."""

    HEALTHY = 0
    DEGRADED = 1
    DOWN = 2
    MAINTENANCE = 3


@dataclass(frozen=True, slots=True)
class Outage:
    """A time in which something was not whole. `end_s` is None while it lasts.

    `gpus` counts the GPUs it covers: one, a tray's, a rack's or a CDU's.
    """

    resource: int
    fault: str
    condition: GpuCondition
    gpus: int
    start_s: float
    end_s: float | None


@dataclass(frozen=True, slots=True, eq=False)
class FacilityFigures:
    """Joules: cumulative at an instant, or of a period as the difference of two.

    `rack` (racks,) and `meter` (site, cooling, other, IT of each hall) are electrical. Heat:
    site = air + handed_over + rejected + stored, where stored is what cold plates, pipes and loops hold.
    """

    rack: Floats
    meter: Floats
    rack_liquid: Floats
    handed_over: float
    rejected: float
    air: float
    stored: float

    def __sub__(self, earlier: "FacilityFigures") -> "FacilityFigures":
        return FacilityFigures(
            self.rack - earlier.rack,
            self.meter - earlier.meter,
            self.rack_liquid - earlier.rack_liquid,
            self.handed_over - earlier.handed_over,
            self.rejected - earlier.rejected,
            self.air - earlier.air,
            self.stored - earlier.stored,
        )


@dataclass(frozen=True, slots=True, eq=False)
class FleetFigures:
    """Cumulative at an instant, or of a period: `gpu` and `tray` joules, shapes (trays, 4) and (trays,);

    `gpu_seconds` (4 conditions, trays, 4).
    """

    gpu: Floats
    tray: Floats
    gpu_seconds: Floats

    def __sub__(self, earlier: "FleetFigures") -> "FleetFigures":
        return FleetFigures(self.gpu - earlier.gpu, self.tray - earlier.tray, self.gpu_seconds - earlier.gpu_seconds)


@dataclass(slots=True)
class Truth:
    """Cumulative figures kept at marks: every UTC hour, and whenever `Simulation.mark` is called.

    Facility figures are in every mark; fleet figures in the hourly ones of sites up to
    HOURLY_FLEET_GPUS GPUs, at the times in `keep_fleet_at`, and in every mark asked for.
    """

    keep_fleet_at: set[int] = field(default_factory=set)
    facility_marks: dict[float, FacilityFigures] = field(default_factory=dict)
    fleet_marks: dict[float, FleetFigures] = field(default_factory=dict)
    outages: list[Outage] = field(default_factory=list)

    def facility(self, start_s: float, end_s: float) -> FacilityFigures:
        """Figures of the period; LookupError where an end is not a mark."""
        return _at(self.facility_marks, end_s) - _at(self.facility_marks, start_s)

    def fleet(self, start_s: float, end_s: float) -> FleetFigures:
        """Figures of the period; LookupError where an end is not a mark with fleet figures."""
        return _at(self.fleet_marks, end_s) - _at(self.fleet_marks, start_s)

    def outages_between(self, start_s: float, end_s: float) -> list[Outage]:
        """Outages that touch the period, in order of start."""
        touching = (o for o in self.outages if o.start_s < end_s and (o.end_s is None or o.end_s > start_s))
        return sorted(touching, key=lambda outage: outage.start_s)


def facility_arrays(marks: dict[float, FacilityFigures]) -> dict[str, NDArray[np.float64]]:
    """Marks as stacked arrays, to be kept; `facility_from` is the inverse."""
    return _stacked("facility", marks, FacilityFigures)


def fleet_arrays(marks: dict[float, FleetFigures]) -> dict[str, NDArray[np.float64]]:
    """Marks as stacked arrays, to be kept; `fleet_from` is the inverse."""
    return _stacked("fleet", marks, FleetFigures)


def facility_from(arrays: Mapping[str, NDArray[np.float64]]) -> dict[float, FacilityFigures]:
    def figures(row: int) -> FacilityFigures:
        wide = [arrays[f"facility.{name}"][row] for name in ("rack", "meter", "rack_liquid")]
        single = [float(arrays[f"facility.{name}"][row]) for name in ("handed_over", "rejected", "air", "stored")]
        return FacilityFigures(*wide, *single)

    return {float(time_s): figures(row) for row, time_s in enumerate(arrays["facility.time_s"])}


def fleet_from(arrays: Mapping[str, NDArray[np.float64]]) -> dict[float, FleetFigures]:
    rows = {f.name: arrays[f"fleet.{f.name}"] for f in fields(FleetFigures)}
    return {
        float(time_s): FleetFigures(**{name: column[row] for name, column in rows.items()})
        for row, time_s in enumerate(arrays["fleet.time_s"])
    }


def _stacked(prefix: str, marks: Mapping[float, object], kind: type) -> dict[str, NDArray[np.float64]]:
    columns = {f"{prefix}.{f.name}": np.array([getattr(mark, f.name) for mark in marks.values()]) for f in fields(kind)}
    return {f"{prefix}.time_s": np.array(list(marks)), **columns}


def _at(marks: dict[float, Figures], time_s: float) -> Figures:
    if time_s not in marks:
        raise LookupError(f"the truth has no mark at {time_s}; marks are on UTC hours, or call Simulation.mark there")
    return marks[time_s]
