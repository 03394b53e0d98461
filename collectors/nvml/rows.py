"""Rows of tables `gpu` and `gpu_health` from what GPUs answered: counters become what was added since the last read."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from catalogue import GPU, GPU_HEALTH, Table
from catalogue.gpu import GPU_STATES
from collectors.counters import Counters
from collectors.nvml.gpu import COUNTERS, GpuIdentity, Sample
from collectors.nvml.health import COUNTERS as HEALTH_COUNTERS
from collectors.nvml.health import HealthSample
from stream.rows import Rows, pack

READABLE, PARTLY_READABLE, DARK = (state for state, _ in GPU_STATES)
GPU_STATE = "gpu_state"
HEALTH_STATE = "health_state"


class GpuRows:
    """Makes one row for each GPU, in their order; one that gave no sample is dark.

    `epoch` names the life of the machine and its driver, in which device counters run on.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def fast(self, gpus: Sequence[GpuIdentity], samples: Mapping[str, Sample], time_s: int, *, epoch: str) -> Rows:
        """Rows of `gpu`; `samples` are by UUID."""
        return _packed(GPU, gpus, [self._values(samples.get(gpu.uuid), time_s, epoch) for gpu in gpus], time_s)

    def health(
        self, gpus: Sequence[GpuIdentity], samples: Mapping[str, HealthSample], time_s: int, *, epoch: str
    ) -> Rows:
        """Rows of `gpu_health`; `samples` are by UUID."""
        readings = [self._health_values(gpu.uuid, samples.get(gpu.uuid), time_s, epoch) for gpu in gpus]
        return _packed(GPU_HEALTH, gpus, readings, time_s)

    def _values(self, sample: Sample | None, time_s: int, epoch: str) -> dict[str, float]:
        """One GPU's row in base units: gauges as read, counters as what was added since they were last read."""
        if sample is None:
            return {GPU_STATE: DARK}
        values = {**sample.values, GPU_STATE: READABLE if sample.complete else PARTLY_READABLE}
        for name, raw in sample.counters.items():
            delta = self._counters.delta(f"{sample.gpu.uuid}/{name}", COUNTERS[name], raw, time_s=time_s, epoch=epoch)
            if delta is not None:
                values[name] = delta
        return values

    def _health_values(self, uuid: str, sample: HealthSample | None, time_s: int, epoch: str) -> dict[str, float]:
        """One GPU's health in base units; errors are added up over the links whose counters go on."""
        if sample is None:
            return {HEALTH_STATE: DARK}
        values = {**sample.values, HEALTH_STATE: READABLE if sample.complete else PARTLY_READABLE}
        sums: defaultdict[str, float] = defaultdict(float)
        for (name, link), raw in sample.counters.items():
            key = f"{uuid}/{name}/{link}"
            delta = self._counters.delta(key, HEALTH_COUNTERS[name], raw, time_s=time_s, epoch=epoch)
            if delta is not None:
                sums[name] += delta
        return values | sums


def _packed(table: Table, gpus: Sequence[GpuIdentity], readings: Sequence[Mapping[str, float]], time_s: int) -> Rows:
    names = set().union(*readings)
    columns = np.array([[reading.get(name, math.nan) for name in names] for reading in readings]).T
    return pack(table, [gpu.resource for gpu in gpus], time_s, dict(zip(names, columns, strict=True)))
