"""What the facility's sensors show at an instant, and who shows it to the outside."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from simulation.columns import Columns, cooling_columns, power_columns, rack_columns
from simulation.engine import Simulation


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """Every facility sensor at an instant, in base units, NaN where absent.

    Shapes: rack (racks,), cooling (CDUs + loops + 2 heat meters,), power (meters,), in the order of the site's ids.
    """

    time_s: float  # UTC
    rack: Columns
    cooling: Columns
    power: Columns

    @classmethod
    def of(cls, simulation: Simulation) -> "Moment":
        """The simulation as it stands; nothing is moved or counted by looking."""
        site, instruments, state = simulation.site, simulation.instruments, simulation.facility()
        return cls(
            simulation.time_s,
            rack_columns(site, instruments, state),
            cooling_columns(site, instruments, state),
            power_columns(site, instruments, state),
        )


def row_of(columns: Columns, place: int) -> dict[str, float]:
    """One resource's values; what is absent is not there."""
    values = {name: float(column[place]) for name, column in columns.items()}
    return {name: value for name, value in values.items() if not math.isnan(value)}


class Server(Protocol):
    """Something that clients read the site from."""

    def start(self) -> None:
        """Return once clients can come. Raises OSError."""

    def show(self, moment: Moment) -> None:
        """Answer with this from now on. Called by one thread; returns soon and never waits for a client."""

    def close(self) -> None:
        """Serve no more; safe to call twice."""


class ServedSite:
    """A simulation and its servers, which all show the same moment; who made them starts and closes them."""

    def __init__(self, simulation: Simulation, servers: Sequence[Server]) -> None:
        self.simulation = simulation
        self._servers = tuple(servers)

    def advance(self, time_s: float) -> Moment:
        """Move the site to `time_s`, UTC seconds, and show it; a time that has passed shows the site as it stands."""
        self.simulation.step(max(time_s, self.simulation.time_s))
        moment = Moment.of(self.simulation)
        for server in self._servers:
            server.show(moment)
        return moment
