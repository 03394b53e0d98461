"""Device counters become deltas here and nowhere else: resets, wraps, and the remainder that is carried.

A counter of joules, bytes or nanoseconds that a device keeps is only good for differences. What makes a difference
unsafe is known in one place: the device may have restarted (the difference is then absent, never its absolute value),
its register may have started again from 0, and a difference rounded to the stored step may lose up to a step at every
tick, unless the rest is carried to the next.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, Self

from catalogue import Metric

# A tick's device is read anywhere between its second and the next one: two reads may be this much further apart than
# their ticks.
READ_SLACK_S = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterRule:
    """How one kind of device counter is read.

    One count of the device is `numerator / denominator` stored steps, and a step is `resolution` of the base unit.
    `modulus` is the number of values of a register that starts again from 0, 0 when it never does. `ceiling_per_s` is
    more counts per second than the device can make, 0 when nothing is known: a faster jump is a fault of the device,
    not a reading. A register with a modulus should have one, since a restart can look like a wrap. `most` is how many
    steps one tick can be stored with, 0 when nothing is known: what is more, after a long dark time, is carried on.
    """

    numerator: int
    denominator: int
    resolution: Fraction
    modulus: int = 0
    ceiling_per_s: int = 0
    most: int = 0

    @classmethod
    def of(cls, metric: Metric, count: Fraction, *, modulus: int = 0, ceiling_per_s: int = 0) -> Self:
        """The rule for a metric whose device counts in units of `count`, in the metric's base unit."""
        steps = count / metric.resolution
        return cls(
            numerator=steps.numerator,
            denominator=steps.denominator,
            resolution=metric.resolution,
            modulus=modulus,
            ceiling_per_s=ceiling_per_s,
            most=metric.stored.highest,
        )

    def in_base_unit(self, steps: int) -> float:
        """Stored steps in the base unit, correctly rounded."""
        return steps * self.resolution.numerator / self.resolution.denominator


@dataclass(frozen=True, slots=True)
class KeptCounter:
    """What has to be known of a counter's past.

    `raw` is its last reading, `carry` what was counted but not yet reported, in 1/denominator of a step: less than a
    step, but for what was more than a tick can be stored with. `epoch` names the life of the device's driver in which
    the counter runs on: after a change of epoch nothing can be said about the difference.
    """

    raw: int
    carry: int
    time_s: int
    epoch: str = ""


def advance(
    rule: CounterRule, kept: KeptCounter | None, raw: int, *, time_s: int, epoch: str = ""
) -> tuple[KeptCounter, int | None]:
    """The counter as of `time_s`, and the whole steps counted since `kept`; None when that is unknown.

    Unknown is: the first reading, a new epoch, a decrease that is no wrap, a jump above the ceiling. The counter then
    goes on from `raw`. What was carried stays: it was counted.
    """
    carry = kept.carry if kept is not None else 0
    counted = _counted(rule, kept, raw, time_s=time_s, epoch=epoch)
    if counted is None:
        return KeptCounter(raw, carry, time_s, epoch), None
    counted = counted * rule.numerator + carry
    steps = counted // rule.denominator
    if rule.most:
        steps = min(steps, rule.most)
    return KeptCounter(raw, counted - steps * rule.denominator, time_s, epoch), steps


def _counted(rule: CounterRule, kept: KeptCounter | None, raw: int, *, time_s: int, epoch: str) -> int | None:
    if kept is None or kept.epoch != epoch:
        return None
    counted = raw - kept.raw
    if counted < 0:
        counted += rule.modulus
        # Either a wrap or a restart; the shorter way round is the likelier one.
        if counted < 0 or counted * 2 >= rule.modulus:
            return None
    elapsed_s = max(time_s - kept.time_s, 0) + READ_SLACK_S
    if rule.ceiling_per_s and counted > rule.ceiling_per_s * elapsed_s:
        return None
    return counted


class CounterStore(Protocol):
    """Where counters outlive the agent.

    `put` hands over counters as of one tick. A store on disk makes them durable together with that tick's rows, never
    before: otherwise a kill in between would lose what was counted up to the tick.
    """

    def get(self, key: str) -> KeptCounter | None:
        """The counter of that key as last kept, if any."""

    def put(self, counters: Mapping[str, KeptCounter]) -> None:
        """Keep these counters; those not named stay as they were."""


class ForgetfulStore:
    """Keeps nothing across restarts: the first tick after a start has no deltas."""

    def get(self, key: str) -> KeptCounter | None:  # noqa: ARG002 - the protocol's signature
        return None

    def put(self, counters: Mapping[str, KeptCounter]) -> None:
        pass


class Counters:
    """The counters of one source, by key; a key names device and metric, and is stable across restarts."""

    def __init__(self, store: CounterStore | None = None) -> None:
        self._store = store or ForgetfulStore()
        self._kept: dict[str, KeptCounter] = {}
        self._changed: dict[str, KeptCounter] = {}

    def delta(self, key: str, rule: CounterRule, raw: int, *, time_s: int, epoch: str = "") -> float | None:
        """What was counted since the key's previous reading, in the base unit; None when that is unknown.

        A tick without a reading is simply not asked: the next delta covers it.
        """
        kept = self._kept.get(key) or self._store.get(key)
        advanced, steps = advance(rule, kept, raw, time_s=time_s, epoch=epoch)
        self._kept[key] = self._changed[key] = advanced
        return None if steps is None else rule.in_base_unit(steps)

    def keep(self) -> None:
        """Hand the tick's counters to the store."""
        if self._changed:
            self._store.put(self._changed)
            self._changed = {}
