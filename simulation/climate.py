"""What surrounds the site: the weather at Narvik, the off-taker's demand, the grid's voltage and frequency."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulation.wander import Wander

Floats = NDArray[np.float64]

DAY_S = 86_400.0
YEAR_S = 365.2425 * DAY_S

# Narvik's monthly means run from about -4 °C in January to about 14 °C in July; round figures.
MEAN_C = 5.0
SEASON_C = 9.0
WARMEST_S = 203 * DAY_S  # late July
DIURNAL_C = 2.0
WARMEST_HOUR_S = 13 * 3600.0  # 13 UTC: mid-afternoon at 17° east
WEATHER_SIGMA_C = 3.0  # passing fronts

# The off-taker's demand as shares of the site's nominal liquid heat: placeholders for a contract.
PROCESS_SHARE = 0.20
HEATING_SHARE = 0.40
WORKING_HOURS_SHARE = 0.05
HEATING_LIMIT_C = 17.0  # no space heating above this outside temperature
HEATING_SPAN_K = 30.0  # full heating demand at -13 °C
WEEKEND_FACTOR = 0.85


@dataclass(frozen=True, slots=True)
class Climate:
    """Outside influences as functions of UTC seconds; the same seed gives the same weather."""

    fronts: Wander
    room: Wander
    frequency: Wander
    voltage: Wander

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Climate":
        return cls(
            fronts=Wander.draw(rng, 1, WEATHER_SIGMA_C, 0.3 * DAY_S, 9 * DAY_S, waves=8),
            room=Wander.draw(rng, 1, 1.0, 0.2 * DAY_S, 6 * DAY_S, waves=6),
            # Nordic synchronous area: 50 Hz with a deviation of about 0.04 Hz at most times.
            frequency=Wander.draw(rng, 1, 0.02, 15.0, 900.0, waves=8),
            voltage=Wander.draw(rng, 1, 0.006, 600.0, 0.5 * DAY_S, waves=6),
        )

    def outside_c(self, time_s: ArrayLike) -> Floats:
        """Outside temperature in °C."""
        time = np.asarray(time_s, dtype=np.float64)
        season = np.cos(2 * np.pi * (time - WARMEST_S) / YEAR_S)
        day = np.cos(2 * np.pi * (time - WARMEST_HOUR_S) / DAY_S)
        # Polar night has no warm afternoon.
        temperature: Floats = MEAN_C + SEASON_C * season + DIURNAL_C * day * (0.6 + 0.4 * season)
        return temperature + self.fronts.at(time)[..., 0]

    def dew_point_c(self, time_s: ArrayLike) -> Floats:
        """Dew point of the halls' air in °C: conditioned, well below the coolant."""
        return 10.0 + self.room.at(time_s)[..., 0]

    def air_inlet_c(self, time_s: ArrayLike) -> Floats:
        """Temperature of the air that enters the racks in °C: held near 25 °C."""
        return 25.0 + 0.8 * self.room.at(time_s)[..., 0]

    def demand_share(self, time_s: ArrayLike) -> Floats:
        """Heat that the off-taker wants, as a share of the site's nominal liquid heat."""
        time = np.asarray(time_s, dtype=np.float64)
        cold = np.clip((HEATING_LIMIT_C - self.outside_c(time)) / HEATING_SPAN_K, 0.0, 1.0)
        hours = 0.5 + 0.5 * np.cos(2 * np.pi * (time - WARMEST_HOUR_S) / DAY_S)
        weekday = (time // DAY_S + 3) % 7  # 1 January 1970 was a Thursday; Monday is 0
        share: Floats = PROCESS_SHARE + HEATING_SHARE * cold + WORKING_HOURS_SHARE * hours
        return share * np.where(weekday >= 5, WEEKEND_FACTOR, 1.0)
