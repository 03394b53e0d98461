"""Jobs: who holds which trays, and how each job swings the power of its GPUs in lock step.

A job's drive w(t) is 1 in the compute part of each training step and 0 in its communication part
and in checkpoints. Its integral W(t) is known in closed form, so energy is exact over any step.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

HOUR_S = 3600.0

# Share of usable trays that are given out; with gaps between jobs 85 to 92 % are held on average.
ALLOCATION_TARGET = 0.92
SMALLEST_TRAYS = 2  # 8 GPUs
GAP_MEAN_S = 300.0  # from a job's end to the next pass of the scheduler
RESTART_RANGE_S = (240.0, 600.0)  # a failed job loads its checkpoint: about 5 minutes

# Kinds of size: share of jobs, smallest and largest share of the site, median hours, spread.
SIZES = (
    (0.40, 0.00, 0.02, 4.0, 0.8),
    (0.40, 0.01, 0.12, 12.0, 0.8),
    (0.20, 0.12, 0.75, 40.0, 0.7),
)
LONGEST_S = 7 * 24 * HOUR_S
SHORTEST_S = 0.5 * HOUR_S

TRAINING_SHARE = 0.7  # of jobs; the rest serve inference
CUSTOMERS = ("Aurora Labs", "Fjord AI", "Ofoten Research", "Polar Models", "Rombak Systems")
TRAINING_NAMES = ("pretrain", "finetune", "reinforce", "distil", "evaluate")
SERVING_NAMES = ("serve", "embed", "batch-inference")

NEVER = 1e15  # seconds: later than anything

# One running job. Times and lengths in s; powers in W per GPU; activities are shares at full drive,
# `quiet` is the share of them that is left when w = 0; rates in byte/s at full drive.
_TIMES = ("running_from", "until", "period", "duty", "cycle", "run")
_POWERS = ("peak", "floor", "quiet")
_ACTIVITIES = ("sm", "occupancy", "tensor", "dram", "fp64", "fp32", "fp16")
_LOADS = ("nvlink", "pcie", "c2c", "memory", "processes", "processor")
SLOT = np.dtype([("number", np.int64), *((name, np.float64) for name in (*_TIMES, *_POWERS, *_ACTIVITIES, *_LOADS))])


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the scheduler knows it; `owner` is a pseudonym."""

    number: int
    id: str
    name: str
    customer: str
    owner: str


@dataclass(frozen=True, slots=True, eq=False)
class JobInterval:
    """One job's hold on trays; `end_s` is None while it runs. Trays that failed leave earlier."""

    job: Job
    trays: Ints
    start_s: float
    end_s: float | None = None

    @property
    def gpus(self) -> Ints:
        """Indices of the GPUs: 4 a tray, in order."""
        return (self.trays[:, None] * 4 + np.arange(4)).ravel()


def wave_integral(slots: NDArray[np.void], time_s: float | Floats) -> Floats:
    """W(t) in s for each slot: seconds of full drive since the job last started; shape of `slots`."""
    period, cycle, run = slots["period"], slots["cycle"], slots["run"]
    high = slots["duty"] * period
    ran = np.maximum(np.minimum(time_s, slots["until"]) - slots["running_from"], 0.0)
    cycles = np.floor(ran / cycle)
    into_run = np.minimum(ran - cycles * cycle, run)
    integral: Floats = cycles * _swing(run, period, high) + _swing(into_run, period, high)
    return integral


def wave(slots: NDArray[np.void], time_s: float | Floats) -> Floats:
    """w(t), 0 or 1, for each slot."""
    ran = time_s - slots["running_from"]
    into_run = np.mod(ran, slots["cycle"])
    compute = np.mod(into_run, slots["period"]) < slots["duty"] * slots["period"]
    running = (ran >= 0) & (time_s < slots["until"]) & (into_run < slots["run"])
    drive: Floats = (compute & running).astype(np.float64)
    return drive


def _swing(seconds: Floats, period: Floats, high: Floats) -> Floats:
    """∫w from the start of an undisturbed run; each period begins with `high` seconds of compute."""
    steps = np.floor(seconds / period)
    integral: Floats = steps * high + np.minimum(seconds - steps * period, high)
    return integral


class Scheduler:
    """Gives trays to jobs. Times of its decisions come from its own random numbers, never from steps.

    `slots[0]` is "no job"; `tray_slot` (trays,) says which slot each tray works for.
    """

    def __init__(self, trays: int, rng: np.random.Generator) -> None:
        self._rng = rng
        self.tray_slot: Ints = np.zeros(trays, dtype=np.int64)
        self.slots: NDArray[np.void] = np.zeros(16, dtype=SLOT)
        self.used = 1
        self.running: dict[int, Job] = {}  # by slot
        self.open: list[JobInterval] = []
        self.closed: list[JobInterval] = []
        self._numbers = 0
        _clear(self.slots)

    @property
    def active(self) -> NDArray[np.void]:
        """The slots up to the highest that was ever used."""
        return self.slots[: self.used]

    def gap_s(self) -> float:
        return float(self._rng.exponential(GAP_MEAN_S))

    def fill(self, time_s: float, usable: NDArray[np.bool_]) -> list[tuple[int, JobInterval, float]]:
        """Start jobs on free usable trays up to the target; returns slot, interval and end of each."""
        free = np.flatnonzero((self.tray_slot == 0) & usable)
        budget = int(ALLOCATION_TARGET * usable.sum()) - int(np.count_nonzero(self.tray_slot))
        started = []
        while (room := min(budget, len(free))) >= SMALLEST_TRAYS:
            size, length_s = self._draw_size(len(self.tray_slot), room, first=not self.running)
            started.append(self._start(time_s, free[:size], length_s))
            free, budget = free[size:], budget - size
        return started

    def end(self, slot: int, time_s: float) -> tuple[Ints, list[JobInterval]]:
        """The job of the slot gives back its trays; returns them and the closed intervals."""
        trays = np.flatnonzero(self.tray_slot == slot)
        ended = self.release(trays, time_s)
        del self.running[slot]
        _clear(self.slots[slot : slot + 1])
        return trays, ended

    def release(self, trays: Ints, time_s: float) -> list[JobInterval]:
        """These trays leave whatever job they work for."""
        numbers = set(self.slots["number"][self.tray_slot[trays]].tolist()) - {0}
        self.tray_slot[trays] = 0
        ended, still_open = [], []
        for interval in self.open:
            if interval.job.number not in numbers:
                still_open.append(interval)
                continue
            gone = np.isin(interval.trays, trays)
            ended.append(JobInterval(interval.job, interval.trays[gone], interval.start_s, time_s))
            if not gone.all():
                still_open.append(JobInterval(interval.job, interval.trays[~gone], interval.start_s))
        self.open = still_open
        self.closed += ended
        return ended

    def restart(self, slot: int, time_s: float) -> None:
        """The job waits, then goes on from its checkpoint."""
        self.slots["running_from"][slot] = time_s + self._rng.uniform(*RESTART_RANGE_S)

    def _start(self, time_s: float, trays: Ints, length_s: float) -> tuple[int, JobInterval, float]:
        slot = self._free_slot()
        training = bool(self._rng.random() < TRAINING_SHARE)
        self._draw_shape(slot, training=training)
        end_s = time_s + length_s
        self.slots["running_from"][slot] = time_s + self._rng.uniform(30.0, 180.0)  # loading data
        self.slots["until"][slot] = end_s
        self.tray_slot[trays] = slot
        interval = JobInterval(self._draw_job(slot, training=training), trays.astype(np.int64), time_s)
        self.open.append(interval)
        return slot, interval, end_s

    def _draw_job(self, slot: int, *, training: bool) -> Job:
        self._numbers += 1
        name = str(self._rng.choice(TRAINING_NAMES if training else SERVING_NAMES))
        customer = str(self._rng.choice(CUSTOMERS))
        owner = f"user-{int(self._rng.integers(1, 60)):04d}"
        job = Job(self._numbers, f"kv-{self._numbers:07d}", name, customer, owner)
        self.slots["number"][slot] = self._numbers
        self.running[slot] = job
        return job

    def _draw_size(self, trays: int, room: int, *, first: bool) -> tuple[int, float]:
        """Trays and seconds; the first job on an empty site is a large one."""
        kind = len(SIZES) - 1 if first else int(self._rng.choice(len(SIZES), p=[size[0] for size in SIZES]))
        _, low, high, median_h, spread = SIZES[kind]
        smallest = max(SMALLEST_TRAYS, low * trays)
        largest = max(smallest, high * trays)
        size = round(float(np.exp(self._rng.uniform(np.log(smallest), np.log(largest)))))
        length_s = median_h * HOUR_S * float(self._rng.lognormal(0.0, spread))
        size = min(size, room)
        # A lone tray that is left over would stay empty for ever.
        size += 1 if room - size == 1 else 0
        return size, float(np.clip(length_s, SHORTEST_S, LONGEST_S))

    def _draw_shape(self, slot: int, *, training: bool) -> None:
        draw = self._rng.uniform
        peak = draw(1250, 1450) if training else draw(900, 1250)
        period = float(np.exp(draw(np.log(0.5), np.log(8.0))))
        cycle = draw(1200, 3600) if training else NEVER
        intensity = draw(0.8, 1.0)
        values = {
            "period": period,
            "duty": draw(0.62, 0.88) if training else draw(0.4, 0.8),
            "cycle": cycle,
            "run": cycle - draw(20, 90) if training else NEVER,  # the rest of a cycle writes a checkpoint
            "peak": peak,
            "floor": peak * (draw(0.40, 0.60) if training else draw(0.55, 0.80)),
            "quiet": draw(0.05, 0.25),
            "sm": 0.96 * intensity,
            "occupancy": draw(0.25, 0.55),
            "tensor": intensity * (draw(0.45, 0.75) if training else draw(0.15, 0.45)),
            "dram": draw(0.25, 0.55) if training else draw(0.5, 0.85),
            "fp64": draw(0.0, 0.01),
            "fp32": draw(0.05, 0.15),
            "fp16": draw(0.05, 0.2),
            "nvlink": draw(150e9, 600e9) if training else draw(20e9, 150e9),  # of 18 x 53.125 GB/s
            "pcie": draw(1e9, 25e9),
            "c2c": draw(2e9, 60e9),
            "memory": draw(0.6, 0.95),
            "processes": 1 if training else draw(1, 5),
            "processor": draw(0.1, 0.5),
        }
        for name, value in values.items():
            self.slots[name][slot] = value
        self.slots["processes"][slot] = np.floor(self.slots["processes"][slot])

    def _free_slot(self) -> int:
        slot = 1
        while slot in self.running:
            slot += 1
        if slot == len(self.slots):
            self.slots = np.concatenate([self.slots, np.zeros(slot, dtype=SLOT)])
            _clear(self.slots[slot:])
        self.used = max(self.used, slot + 1)
        return slot

    def document(self) -> dict[str, Any]:
        """Everything but the arrays, as JSON."""
        return {
            "rng": self._rng.bit_generator.state,
            "numbers": self._numbers,
            "used": self.used,
            "running": {str(slot): asdict(job) for slot, job in self.running.items()},
            "open": [interval_document(interval) for interval in self.open],
            "closed": [interval_document(interval) for interval in self.closed],
        }

    def restore(self, document: dict[str, Any], slots: NDArray[np.void], tray_slot: Ints) -> None:
        self._rng.bit_generator.state = document["rng"]
        self._numbers = document["numbers"]
        self.used = document["used"]
        self.slots, self.tray_slot = slots, tray_slot
        self.running = {int(slot): Job(**job) for slot, job in document["running"].items()}
        self.open = [interval_from(interval) for interval in document["open"]]
        self.closed = [interval_from(interval) for interval in document["closed"]]


def _clear(slots: NDArray[np.void]) -> None:
    """No job: it never drives, and its lengths are harmless to divide by."""
    slots[:] = np.zeros((), dtype=SLOT)
    for name in ("running_from", "until", "cycle", "run", "period"):
        slots[name] = NEVER


def interval_document(interval: JobInterval) -> dict[str, Any]:
    return {**asdict(interval), "trays": interval.trays.tolist()}


def interval_from(document: dict[str, Any]) -> JobInterval:
    trays = np.array(document["trays"], dtype=np.int64)
    return JobInterval(Job(**document["job"]), trays, document["start_s"], document["end_s"])


def intervals_between(intervals: Sequence[JobInterval], start_s: float, end_s: float) -> list[JobInterval]:
    """Those that touch the period."""
    return [i for i in intervals if i.start_s < end_s and (i.end_s is None or i.end_s > start_s)]
