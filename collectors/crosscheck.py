"""A GPU's energy counter against its own power: two witnesses of one quantity, which must agree.

    ratio = sum of energy_joules [J] / integral of power_watts over the same time [W s], by the trapezoidal rule

Two independent ways to the same joules: a ratio away from 1 by more than some per cent says that one of them is wrong,
or that the GPU's power changes faster than it is read.
"""

from dataclasses import dataclass

WINDOW_S = 300  # long against a tick, so that the readings' own delay of about a second weighs little
LONGEST_STEP_S = 3  # over a longer dark time nobody knows what the power was
LEAST_SHARE = 0.5  # of the window must be covered


@dataclass(slots=True)
class _Window:
    """What has been added up since the start of a window."""

    slot: int
    counted_joules: float = 0.0
    integrated_joules: float = 0.0
    covered_s: int = 0


class EnergyCheck:
    """The ratio of each GPU over its last full window."""

    def __init__(self) -> None:
        self.ratios: dict[int, float] = {}
        self._last: dict[int, tuple[int, float]] = {}  # time and power
        self._windows: dict[int, _Window] = {}

    def add(self, resource: int, time_s: int, energy_joules: float, power_watts: float) -> None:
        """One tick; NaN is no reading."""
        window = self._window(resource, time_s)
        before = self._last.pop(resource, None)
        if power_watts != power_watts:
            return
        self._last[resource] = time_s, power_watts
        if before is None or energy_joules != energy_joules:
            return
        step_s = time_s - before[0]
        if 0 < step_s <= LONGEST_STEP_S:
            window.counted_joules += energy_joules
            window.integrated_joules += step_s * (before[1] + power_watts) / 2
            window.covered_s += step_s

    def _window(self, resource: int, time_s: int) -> _Window:
        slot = time_s // WINDOW_S
        window = self._windows.get(resource)
        if window is None:
            window = self._windows[resource] = _Window(slot)
        elif window.slot != slot:
            self._close(resource, window)
            window = self._windows[resource] = _Window(slot)
        return window

    def _close(self, resource: int, window: _Window) -> None:
        if window.covered_s >= LEAST_SHARE * WINDOW_S and window.integrated_joules > 0:
            self.ratios[resource] = window.counted_joules / window.integrated_joules
        else:
            self.ratios.pop(resource, None)
