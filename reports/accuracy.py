"""How far a meter may be from the truth: class limits, and what they become in sums and ratios."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

# Limits at full load and reference conditions: IEC 62053-22 (0.2S, 0.5S), IEC 62053-21 (1, 2).
_ELECTRICITY = {"0.2S": 0.002, "0.5S": 0.005, "1": 0.01, "2": 0.02}
_HEAT_PREFIX = "EN 1434 class "
# Percent of heat for each unit of qp/q that a flow sensor of the class may be off on top of its class: EN 1434-1.
EN_1434_FLOW_SLOPES: Mapping[int, float] = MappingProxyType({1: 0.01, 2: 0.02, 3: 0.05})
# What is good practice for each role: feeds 0.5S, sub-meters 1, heat meters 2.
_ASSUMED_CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "site": "0.5S",
        "it": "1",
        "cooling": "1",
        "other": "1",
        "heat_handed_over": f"{_HEAT_PREFIX}2",
        "heat_rejected": f"{_HEAT_PREFIX}2",
        "heat_own_use": f"{_HEAT_PREFIX}2",
    }
)


@dataclass(frozen=True, slots=True)
class HeatConditions:
    """Under which a heat meter's limit is taken; assumptions until the site states its own.

    `difference_kelvin` between the pipes, `least_difference_kelvin` that the meter is built for,
    `flow_ratio` = permanent flow over actual flow.
    """

    difference_kelvin: float = 10.0
    least_difference_kelvin: float = 3.0
    flow_ratio: float = 1.0


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Limits of error by accuracy class, and the class assumed where the inventory states none."""

    heat: HeatConditions = field(default_factory=HeatConditions)
    assumed_classes: Mapping[str, str] = field(default_factory=lambda: _ASSUMED_CLASSES)
    # What is interpolated or booked across a reset may be off by so much of it; an assumption until the site states its
    # own. Power of a site for AI swings, but not to nothing and not for hours.
    estimate_limit: float = 0.2
    # Board power of GPUs has no accuracy class; vendors speak of about 5 %.
    gpu_limit: float = 0.05

    def limit(self, role: str, accuracy_class: str) -> float:
        """The relative limit of error of one meter; of the assumed class when its own is not known."""
        own = self._limit_of_class(accuracy_class)
        return own if own is not None else self._limit_of_class(self.assumed_classes[role]) or 0.0

    def is_assumed(self, accuracy_class: str) -> bool:
        return self._limit_of_class(accuracy_class) is None

    def _limit_of_class(self, accuracy_class: str) -> float | None:
        if accuracy_class.startswith(_HEAT_PREFIX):
            return heat_meter_limit(accuracy_class.removeprefix(_HEAT_PREFIX), self.heat)
        return _ELECTRICITY.get(accuracy_class)


def heat_meter_limit(flow_class: str, conditions: HeatConditions) -> float | None:
    """Relative limit of error of a whole heat meter: the arithmetic sum of its three parts' limits.

    In percent, with qp/q the flow ratio and dTmin/dT the ratio of temperature differences:
      flow sensor class 1: 1 + 0.01 qp/q; class 2: 2 + 0.02 qp/q; class 3: 3 + 0.05 qp/q; each at most 5
      pair of probes: 0.5 + 3 dTmin/dT;  calculator: 0.5 + dTmin/dT
    EN 1434-1, maximum permissible errors.
    """
    slope = EN_1434_FLOW_SLOPES.get(int(flow_class)) if flow_class.isdecimal() else None
    if slope is None:
        return None
    flow = min(float(flow_class) + slope * conditions.flow_ratio, 5.0)
    ratio = conditions.least_difference_kelvin / conditions.difference_kelvin
    return (flow + 0.5 + 3 * ratio + 0.5 + ratio) / 100


def expanded(limit: float) -> float:
    """Expanded relative uncertainty, k = 2, of a limit of error: 2 limit / sqrt(3).

    The error is taken as equally likely anywhere within the limit: JCGM 100:2008 clause 4.3.7.
    """
    return 2 * limit / math.sqrt(3)


def of_sum(parts: Iterable[tuple[float, float]]) -> float:
    """Relative uncertainty of a sum of (value, relative uncertainty).

    Meters of one kind err together (one make, one calibration), so errors add up in full and do
    not shrink with their number: u = sum(|E_i| u_i) / |sum(E_i)|. JCGM 100:2008 clause 5.2.2, r = 1.
    """
    known = list(parts)
    total = abs(sum(value for value, _ in known))
    return sum(abs(value) * relative for value, relative in known) / total if total else 0.0


def of_ratio(above: float, below: float) -> float:
    """Relative uncertainty of a ratio of two unlike meters' energies: sqrt(u1^2 + u2^2).

    JCGM 100:2008 clause 5.1.6, no correlation taken into account.
    """
    return math.hypot(above, below)
