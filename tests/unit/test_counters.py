"""Counters: nothing is lost to rounding, nothing is invented by a restart."""

from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from catalogue import GPU
from collectors.counters import CounterRule, Counters, KeptCounter, advance

ENERGY = CounterRule.of(GPU.metric("energy_joules"), Fraction(1, 1000))  # mJ, stored in 0.1 J
HOUR_OF_READS = st.lists(st.integers(0, 2_000_000), min_size=1, max_size=60)


def rule(
    numerator: int = 1,
    denominator: int = 1,
    *,
    modulus: int = 0,
    ceiling_per_s: int = 0,
    resolution: int = 1,
    most: int = 0,
) -> CounterRule:
    return CounterRule(
        numerator=numerator,
        denominator=denominator,
        resolution=Fraction(resolution),
        modulus=modulus,
        ceiling_per_s=ceiling_per_s,
        most=most,
    )


def deltas_of(which: CounterRule, readings: list[int]) -> list[int | None]:
    """The steps between consecutive readings, one a second."""
    kept: KeptCounter | None = None
    deltas = []
    for time_s, raw in enumerate(readings):
        kept, steps = advance(which, kept, raw, time_s=time_s)
        deltas.append(steps)
    return deltas


def running(first: int, increments: list[int]) -> list[int]:
    readings = [first]
    for increment in increments:
        readings.append(readings[-1] + increment)
    return readings


def known(deltas: list[int | None]) -> list[int]:
    return [delta for delta in deltas if delta is not None]


@given(st.integers(0, 1 << 62), HOUR_OF_READS)
def test_deltas_of_a_counter_without_resets_add_up_to_its_difference(first: int, increments: list[int]) -> None:
    readings = running(first, increments)
    assert sum(known(deltas_of(rule(), readings))) == readings[-1] - readings[0]


@given(st.integers(0, 1 << 62), HOUR_OF_READS, st.integers(1, 50), st.integers(1, 5000))
def test_rounding_never_loses_more_than_the_one_step_still_carried(
    first: int, increments: list[int], numerator: int, denominator: int
) -> None:
    readings = running(first, increments)
    steps = sum(known(deltas_of(rule(numerator, denominator), readings)))
    assert steps == (readings[-1] - readings[0]) * numerator // denominator


@given(st.lists(st.integers(0, 1 << 64), min_size=1, max_size=60))
def test_whatever_a_counter_does_no_delta_is_negative(readings: list[int]) -> None:
    deltas = deltas_of(rule(1, 100), readings)
    assert deltas[0] is None
    assert all(delta >= 0 for delta in known(deltas))


@given(st.lists(st.integers(0, 1 << 64), min_size=1, max_size=60))
def test_whatever_a_counter_does_no_more_is_reported_than_it_rose(readings: list[int]) -> None:
    rises = sum(after - before for before, after in pairwise(readings) if after >= before)
    assert sum(known(deltas_of(rule(1, 100), readings))) <= rises // 100


@given(st.integers(0, (1 << 32) - 1), st.lists(st.integers(0, (1 << 31) - 1), min_size=1, max_size=60))
def test_a_register_that_wraps_counts_through_the_wrap(first: int, increments: list[int]) -> None:
    true_count = running(first, increments)
    wrapped = [count % (1 << 32) for count in true_count]
    assert sum(known(deltas_of(rule(modulus=1 << 32), wrapped))) == true_count[-1] - true_count[0]


def test_a_wrap_that_would_be_the_longer_way_round_is_a_restart() -> None:
    assert deltas_of(rule(modulus=1 << 32), [2_000_000, 1000, 1500]) == [None, None, 500]


def test_a_wrap_above_the_ceiling_is_a_restart() -> None:
    wrapping = rule(modulus=1 << 32, ceiling_per_s=1_000_000)
    assert deltas_of(wrapping, [(1 << 32) - 500, 500]) == [None, 1000]
    assert deltas_of(wrapping, [3_000_000_000, 500]) == [None, None]


def test_counter_reset_yields_no_energy_and_goes_on_from_there() -> None:
    assert deltas_of(ENERGY, [5_000_000, 5_000_450, 120, 1_120]) == [None, 4, None, 10]


def test_what_was_carried_survives_a_reset() -> None:
    # 50 mJ were measured before the reset and 50 mJ after it: together one step of 0.1 J.
    assert deltas_of(ENERGY, [1000, 1050, 0, 50]) == [None, 0, None, 1]


def test_a_reading_of_zero_in_between_does_not_become_the_whole_counter() -> None:
    limited = CounterRule.of(GPU.metric("energy_joules"), Fraction(1, 1000), ceiling_per_s=10_000_000)
    assert deltas_of(limited, [9_000_000_000, 0, 9_001_000_000, 9_001_700_000]) == [None, None, None, 7000]


def test_the_ceiling_grows_with_the_time_between_reads() -> None:
    limited = rule(ceiling_per_s=100)
    kept, _ = advance(limited, None, 0, time_s=0)
    assert advance(limited, kept, 1000, time_s=9)[1] == 1000
    assert advance(limited, kept, 1001, time_s=9)[1] is None


def test_a_clock_that_was_set_back_leaves_the_slack_of_one_read() -> None:
    limited = rule(ceiling_per_s=100)
    kept, _ = advance(limited, None, 0, time_s=1000)
    assert advance(limited, kept, 100, time_s=400)[1] == 100
    assert advance(limited, kept, 101, time_s=400)[1] is None


def test_what_is_too_much_for_one_tick_comes_with_the_next_ones() -> None:
    assert deltas_of(rule(most=100), [0, 250, 250, 260, 260]) == [None, 100, 100, 60, 0]


def test_throttle_time_of_a_long_dark_interval_is_not_lost() -> None:
    throttled = GPU.metric("throttled_power_cap_seconds")
    which = CounterRule.of(throttled, Fraction(1, 1_000_000_000))
    hours = 7200 * 1_000_000_000  # two hours of it in the dark: more than 32 bits hold in microseconds
    deltas = deltas_of(which, [0, hours, hours, hours])
    assert deltas == [None, throttled.stored.highest, 7_200_000_000 - throttled.stored.highest, 0]


def test_a_device_that_counts_in_coarser_units_than_are_stored_loses_nothing() -> None:
    coarse = rule(7, 3)  # 7/3 of a step at every count
    assert deltas_of(coarse, [0, 1, 2, 3]) == [None, 2, 2, 3]


def test_steps_come_back_in_the_base_unit() -> None:
    assert ENERGY.in_base_unit(4_022) == 402.2


class Notebook:
    """A store that a test can look into."""

    def __init__(self) -> None:
        self.kept: dict[str, KeptCounter] = {}
        self.puts = 0

    def get(self, key: str) -> KeptCounter | None:
        return self.kept.get(key)

    def put(self, counters: Mapping[str, KeptCounter]) -> None:
        self.puts += 1
        self.kept.update(counters)


def test_the_first_reading_has_no_delta_unless_the_counter_was_kept() -> None:
    notebook = Notebook()
    before = Counters(notebook)
    assert before.delta("gpu/energy", ENERGY, 1_000_050, time_s=0, epoch="boot 1") is None
    assert before.delta("gpu/energy", ENERGY, 1_000_100, time_s=1, epoch="boot 1") == 0.0
    before.keep()
    after = Counters(notebook)
    assert after.delta("gpu/energy", ENERGY, 1_000_250, time_s=60, epoch="boot 1") == 0.2


def test_a_kept_counter_of_another_epoch_says_nothing() -> None:
    notebook = Notebook()
    notebook.kept["gpu/energy"] = KeptCounter(1_000, 0, 0, "boot 1")
    assert Counters(notebook).delta("gpu/energy", ENERGY, 9_000, time_s=1, epoch="boot 2") is None


def test_a_store_gets_only_what_changed_and_only_when_told() -> None:
    notebook = Notebook()
    counters = Counters(notebook)
    counters.keep()
    counters.delta("a", rule(), 1, time_s=0)
    assert notebook.puts == 0
    counters.keep()
    counters.delta("b", rule(), 2, time_s=1)
    counters.keep()
    assert (notebook.puts, set(notebook.kept)) == (2, {"a", "b"})
