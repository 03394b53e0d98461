"""Amounts rounded to whole counts without losing what was rounded off."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class RemainderCarrier:
    """Rounds each tick's amounts to multiples of a resolution and carries the rest to the next tick.

    After any number of ticks the sum of what was returned differs from the sum of what was given by
    `remainder`: at most half a count for whatever was readable in the last tick.
    """

    def __init__(self, shape: tuple[int, ...], resolution: float) -> None:
        self._resolution = resolution
        self.remainder: Floats = np.zeros(shape)

    def carry(self, amounts: ArrayLike, readable: ArrayLike = np.True_) -> Floats:
        """The amounts, of the carrier's shape, as multiples of the resolution; NaN where not readable.

        What could not be read is kept whole and returned in the first tick that can be read.
        """
        due = self.remainder + np.asarray(amounts, dtype=np.float64)
        counted = np.where(readable, np.rint(due / self._resolution) * self._resolution, 0.0)
        self.remainder = due - counted
        rounded: Floats = np.where(readable, counted, np.nan)
        return rounded
