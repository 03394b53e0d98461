"""Seen frames: whatever comes in whatever order, each tick is stored once, as a plain set of ticks says."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.seen import SeenFrames, Verdict

SOURCE, EPOCH = 7, 1_750_000_000_000


@dataclass(frozen=True, slots=True)
class Ticks:
    source: int
    epoch_ms: int
    start: int
    end: int


def judge(known: set[int], start: int, end: int) -> Verdict:
    """The model: a set of ticks."""
    ticks = set(range(start, end))
    if ticks <= known:
        return Verdict.DUPLICATE
    return Verdict.OVERLAP if ticks & known else Verdict.NEW


# Small numbers, so that frames meet, touch, hold and cut each other.
any_frames = st.lists(st.builds(lambda start, ticks: (start, start + ticks), st.integers(0, 40), st.integers(1, 9)))


@given(any_frames)
@settings(max_examples=500)
def test_any_sequence_of_frames_is_judged_as_by_a_set_of_ticks(frames: list[tuple[int, int]]) -> None:
    seen, known = SeenFrames(), set[int]()
    for start, end in frames:
        expected = judge(known, start, end)
        assert seen.admit(SOURCE, EPOCH, start, end) is expected
        if expected is Verdict.NEW:
            known |= set(range(start, end))


@given(st.integers(1, 30), st.integers(1, 9), st.data())
def test_frames_cut_once_are_new_once_and_duplicates_ever_after(frames: int, ticks: int, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(frames)))
    again = data.draw(st.lists(st.sampled_from(range(frames))))
    seen = SeenFrames()
    for number in order:
        assert seen.admit(SOURCE, EPOCH, number * ticks, (number + 1) * ticks) is Verdict.NEW
    for number in again:
        assert seen.admit(SOURCE, EPOCH, number * ticks, (number + 1) * ticks) is Verdict.DUPLICATE


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 9)), max_size=60))
def test_sources_and_epochs_know_nothing_of_each_other(frames: list[tuple[int, int, int]]) -> None:
    seen, known = SeenFrames(), set[tuple[int, int, int]]()
    for frame in frames:
        source, epoch_ms, number = frame
        expected = Verdict.DUPLICATE if frame in known else Verdict.NEW
        assert seen.admit(source, epoch_ms, number, number + 1) is expected
        known.add(frame)


@given(any_frames, any_frames)
def test_memory_rebuilt_from_what_is_stored_judges_as_the_one_that_lived(
    stored: list[tuple[int, int]], later: list[tuple[int, int]]
) -> None:
    lived = SeenFrames()
    kept = [frame for frame in stored if lived.admit(SOURCE, EPOCH, *frame) is Verdict.NEW]
    rebuilt = SeenFrames(Ticks(SOURCE, EPOCH, start, end) for start, end in sorted(kept))
    for frame in later:
        assert rebuilt.admit(SOURCE, EPOCH, *frame) is lived.admit(SOURCE, EPOCH, *frame)


def intervals(seen: SeenFrames) -> list[list[tuple[int, int]]]:
    return list(seen._intervals.values())


@given(st.permutations(range(12)))
def test_frames_without_gaps_are_one_interval_in_whatever_order_they_came(order: list[int]) -> None:
    seen = SeenFrames()
    for number in order:
        seen.admit(SOURCE, EPOCH, number * 10, number * 10 + 10)
    assert intervals(seen) == [[(0, 120)]]


@given(any_frames)
def test_memory_holds_one_interval_for_each_unbroken_run(frames: list[tuple[int, int]]) -> None:
    seen, known = SeenFrames(), set[int]()
    for start, end in frames:
        if seen.admit(SOURCE, EPOCH, start, end) is Verdict.NEW:
            known |= set(range(start, end))
    runs = sum(1 for tick in known if tick - 1 not in known)
    assert sum(len(each) for each in intervals(seen)) == runs


def test_a_late_frame_closes_its_gap() -> None:
    seen = SeenFrames()
    for start in (0, 20):
        seen.admit(SOURCE, EPOCH, start, start + 10)
    assert intervals(seen) == [[(0, 10), (20, 30)]]
    assert seen.admit(SOURCE, EPOCH, 10, 20) is Verdict.NEW
    assert intervals(seen) == [[(0, 30)]]


@pytest.mark.parametrize(
    ("start", "end", "verdict"),
    [
        (10, 20, Verdict.DUPLICATE),
        (12, 18, Verdict.DUPLICATE),
        (5, 10, Verdict.NEW),
        (20, 25, Verdict.NEW),
        (5, 11, Verdict.OVERLAP),
        (19, 25, Verdict.OVERLAP),
        (5, 25, Verdict.OVERLAP),
        (10, 21, Verdict.OVERLAP),
        (9, 20, Verdict.OVERLAP),
    ],
)
def test_each_way_two_frames_can_lie(start: int, end: int, verdict: Verdict) -> None:
    seen = SeenFrames([Ticks(SOURCE, EPOCH, 10, 20)])
    assert seen.admit(SOURCE, EPOCH, start, end) is verdict


def test_the_largest_sequence_numbers_are_ordinary() -> None:
    seen, last = SeenFrames(), (1 << 63) - 1
    assert seen.admit(SOURCE, EPOCH, last - 10, last) is Verdict.NEW
    assert seen.admit(SOURCE, EPOCH, last - 10, last) is Verdict.DUPLICATE
