"""Source health: one rogue is dead-lettered alone, a storm stops ingest, and old sins fade."""

import numpy as np
import pytest

from stream.health import SourceHealth, StormError, StormRule

RULE = StormRule(frames=0.10, sources=0.01, least_sources=2, window_frames=100)


def record(health: SourceHealth, frames: dict[int, tuple[int, int]]) -> None:
    """Good and bad frames by source, in one batch."""
    sources = [source for source, (good, bad) in frames.items() for _ in range(good + bad)]
    flags = [flag for good, bad in frames.values() for flag in [False] * good + [True] * bad]
    health.record(np.array(sources, dtype=np.uint64), np.array(flags, dtype=np.bool_))


def site(sources: int, rogues: int, *, good: int = 10, bad: int = 10) -> dict[int, tuple[int, int]]:
    """That many sources, the first of them with bad frames too."""
    return {source: (good, bad if source < rogues else 0) for source in range(sources)}


def test_good_frames_never_stop_ingest() -> None:
    record(SourceHealth(RULE), site(300, 0))


def test_an_empty_batch_changes_nothing() -> None:
    record(SourceHealth(RULE), {})


@pytest.mark.parametrize("sources", [1, 2, 50, 300])
def test_one_rogue_alone_never_stops_ingest(sources: int) -> None:
    health = SourceHealth(RULE)
    for _ in range(20):
        record(health, site(sources, 1, good=0, bad=10))


@pytest.mark.parametrize(("sources", "rogues"), [(300, 3), (200, 2), (1000, 10)])
def test_one_percent_of_the_sources_is_not_yet_a_storm(sources: int, rogues: int) -> None:
    record(SourceHealth(RULE), site(sources, rogues))


@pytest.mark.parametrize(("sources", "rogues"), [(300, 4), (199, 2), (2, 2), (1000, 11)])
def test_more_than_one_percent_is(sources: int, rogues: int) -> None:
    with pytest.raises(StormError, match=f"of {rogues} of {sources} sources"):
        record(SourceHealth(RULE), site(sources, rogues))


@pytest.mark.parametrize(("good", "bad", "storm"), [(90, 10, False), (89, 11, True), (9, 1, False), (8, 1, True)])
def test_a_source_is_a_rogue_above_a_tenth_of_its_frames(good: int, bad: int, *, storm: bool) -> None:
    health = SourceHealth(RULE)
    if not storm:
        record(health, site(2, 2, good=good, bad=bad))
        return
    with pytest.raises(StormError):
        record(health, site(2, 2, good=good, bad=bad))


def test_old_sins_fade_while_good_frames_come() -> None:
    health = SourceHealth(RULE)
    record(health, {1: (0, 50), 2: (100, 0)})
    for _ in range(10):
        record(health, {1: (100, 0), 2: (100, 0)})
    # Source 1 is no rogue any more, so source 2 alone is one.
    record(health, {1: (100, 0), 2: (0, 100)})


def test_sins_spread_over_batches_add_up() -> None:
    health = SourceHealth(RULE)
    record(health, {1: (5, 5), 2: (90, 0)})
    with pytest.raises(StormError):
        record(health, {1: (5, 5), 2: (0, 30)})


def test_the_error_tells_what_to_do() -> None:
    with pytest.raises(StormError, match=r"more than 10% of the frames .* see `kvandal dead-letters list`"):
        record(SourceHealth(RULE), site(2, 2))


def test_the_largest_source_ids_are_told_apart() -> None:
    with pytest.raises(StormError, match="2 of 2 sources"):
        record(SourceHealth(RULE), {(1 << 64) - 1: (0, 5), (1 << 64) - 2: (0, 5)})
