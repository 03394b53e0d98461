"""How values look: unit and state names from the catalogue, colours and thresholds in one place."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from grafana_foundation_sdk.models.dashboard import (
    FieldColorModeId,
    Threshold,
    ThresholdsConfig,
    ThresholdsMode,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
)

from catalogue import Metric
from catalogue.metrics import States


class Colour(StrEnum):
    """Grafana's palette, as far as it is used: its names follow the viewer's theme."""

    GOOD = "green"
    BEST = "dark-green"
    NOTE = "yellow"
    WARN = "orange"
    BAD = "red"
    UNKNOWN = "purple"
    PLAIN = "text"
    CALM = "blue"


Step = tuple[float | None, Colour]  # from this value on; None is minus infinity
Steps = tuple[Step, ...]

# Green up to 1.10, as new liquid-cooled plants in the north reach; beyond 1.2 they are no longer what was promised.
PUE_STEPS: Steps = ((None, Colour.GOOD), (1.10, Colour.NOTE), (1.20, Colour.BAD))
# A rack is capped or shed near its nominal power: the alert rules ticket at 97 %.
LOAD_STEPS: Steps = ((None, Colour.GOOD), (0.90, Colour.NOTE), (0.97, Colour.BAD))
# Condensation: supply less than 2 K above the dew point is a ticket.
DEW_MARGIN_STEPS: Steps = ((None, Colour.BAD), (2.0, Colour.NOTE), (4.0, Colour.GOOD))
# High-bandwidth memory: a ticket above 95 °C, a page above 105 °C.
MEMORY_TEMPERATURE_STEPS: Steps = ((None, Colour.GOOD), (95.0, Colour.WARN), (105.0, Colour.BAD))
# Below 0 K the GPU slows down.
MARGIN_STEPS: Steps = ((None, Colour.BAD), (0.0, Colour.NOTE), (5.0, Colour.GOOD))
# Clocks held down for more than 5 % of the time are a ticket.
THROTTLE_STEPS: Steps = ((None, Colour.GOOD), (0.01, Colour.NOTE), (0.05, Colour.BAD))
# A robust z-score beyond 3.5 is an outlier (Iglewicz and Hoaglin 1993).
OUTLIER_STEPS: Steps = ((None, Colour.BAD), (-3.5, Colour.NOTE), (-2.0, Colour.GOOD))
ANY_IS_BAD: Steps = ((None, Colour.GOOD), (1.0, Colour.BAD))
ANY_IS_NOTED: Steps = ((None, Colour.GOOD), (1.0, Colour.NOTE))
NEARLY_ALL_STEPS: Steps = ((None, Colour.BAD), (0.98, Colour.NOTE), (0.995, Colour.GOOD))
# Telemetry that is 90 s old is stale, three intervals of 30 s.
DELAY_STEPS: Steps = ((None, Colour.GOOD), (30.0, Colour.NOTE), (90.0, Colour.BAD))

_STATE_COLOURS: Mapping[str, Colour] = {
    "sensor fault": Colour.UNKNOWN,
    "dark": Colour.BAD,
    "critical": Colour.BAD,
    "tripped": Colour.BAD,
    "failed": Colour.BAD,
    "standby": Colour.CALM,
}
_BY_RANK = (Colour.GOOD, Colour.NOTE, Colour.WARN)


@dataclass(frozen=True, slots=True)
class Link:
    """A link from a value to a page; `url` holds Grafana's own placeholders."""

    title: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How one column's values look. `unit` is one of Grafana's ids."""

    unit: str = "none"
    decimals: int | None = None
    steps: Steps = ()
    states: States = ()
    lowest: float | None = None
    highest: float | None = None
    palette: FieldColorModeId | None = None
    filled: bool = False  # a table's cell takes the colour as its background
    link: Link | None = None

    @property
    def thresholds(self) -> ThresholdsConfig | None:
        if not self.steps:
            return None
        return ThresholdsConfig(ThresholdsMode.ABSOLUTE, [Threshold(value, colour) for value, colour in self.steps])

    @property
    def mappings(self) -> list[ValueMapping]:
        if not self.states:
            return []
        results = {
            str(number): ValueMappingResult(name, state_colour(self.states, number), index=place)
            for place, (number, name) in enumerate(self.states)
        }
        return [ValueMap(results)]


def state_colour(states: States, number: int) -> Colour:
    """The first state is good, the worst is bad, as every state of the catalogue is ordered."""
    names = dict(states)
    if names[number] in _STATE_COLOURS:
        return _STATE_COLOURS[names[number]]
    rank = [value for value, _ in states].index(number)
    if rank == len(states) - 1:
        return Colour.BAD
    return _BY_RANK[min(rank, len(_BY_RANK) - 1)]


def look_of(metric: Metric, *, unit: str | None = None, decimals: int | None = None, steps: Steps = ()) -> Look:
    """The catalogue's unit and states of a metric; `unit` where a cell has no room for the catalogue's."""
    return Look(unit=unit or metric.unit.grafana, states=metric.states, decimals=decimals, steps=steps)


def tinted(look: Look) -> Look:
    """The same, with the colour behind the text."""
    return replace(look, filled=True)


PLAIN = Look()
COUNTED = Look(unit="short", decimals=0)
SHARE = Look(unit="percentunit", decimals=1, lowest=0.0, highest=1.0)
RATIO = Look(unit="none", decimals=3)
KELVIN = Look(unit="kelvin", decimals=1)
# People read flows of racks in litres a minute and energy in watt-hours; the queries convert, the title says so.
LITRES_PER_MINUTE = Look(unit="flowlpm", decimals=0)
WATT_HOURS = Look(unit="watth")
INSTANT = Look(unit="dateTimeAsIso")

LITRES_PER_MINUTE_FACTOR = 60_000  # of m³/s
JOULES_PER_WATT_HOUR = 3600
