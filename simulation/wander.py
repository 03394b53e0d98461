"""Slow random change as a function of time alone, so that no step size can alter it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Wander:
    """A sum of sines with random periods and phases for each of n things; its deviation is `sigma`."""

    sigma: float
    rates: Floats  # radians per second, shape (n, waves)
    phases: Floats  # radians, shape (n, waves)

    @classmethod
    def draw(
        cls, rng: np.random.Generator, count: int, sigma: float, shortest_s: float, longest_s: float, waves: int = 4
    ) -> "Wander":
        periods = np.exp(rng.uniform(np.log(shortest_s), np.log(longest_s), (count, waves)))
        return cls(sigma, 2 * np.pi / periods, rng.uniform(0, 2 * np.pi, (count, waves)))

    def at(self, time_s: ArrayLike) -> Floats:
        """Values at the times, shape (..., n) for times of shape (...)."""
        angles = np.asarray(time_s, dtype=np.float64)[..., None, None] * self.rates + self.phases
        # A sine has variance 1/2; the waves are independent.
        scale = self.sigma * np.sqrt(2 / self.rates.shape[-1])
        values: Floats = scale * np.sin(angles).sum(axis=-1)
        return values
