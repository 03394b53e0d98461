"""Lanes: when a plan is due, what it holds, and that a replay cuts exactly what was cut before."""

from dataclasses import dataclass
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalogue import GPU
from stream.batch import FrameBatcher, MessageBatcher, Record
from stream.lane import CutRule, Lane
from stream.plan import Plan, Range
from stream.seen import SeenFrames
from stream.topics import EVENTS

TOPIC_ID = UUID(int=5)
NOW_MS = 1_760_000_000_000
ROW_BYTES = FrameBatcher(GPU).row_bytes
RULE = CutRule(rows=10, age_s=5.0, plan_bytes=100 * ROW_BYTES)


def lane(*partitions: int, replay: Plan | None = None, log_epoch: int = 0, first: int = 0) -> Lane:
    positions = dict.fromkeys(partitions or (0,), first)
    batcher = FrameBatcher(GPU)
    return Lane(batcher, "kvandal.gpu", TOPIC_ID, positions, replay=replay, log_epoch=log_epoch, seen=SeenFrames())


def records(partition: int, *offsets: int, rows: int = 1) -> list[Record]:
    return [Record(partition, offset, bytes(rows * ROW_BYTES)) for offset in offsets]


def replayed(*ranges: Range) -> Plan:
    return Plan("kvandal.gpu", TOPIC_ID, ranges, 123, 1, 4)


def offsets(taken: list[Record]) -> list[tuple[int, int]]:
    return [(record.partition, record.offset) for record in taken]


# When


def test_nothing_is_due_where_nothing_is() -> None:
    assert not lane().due(RULE, 1e9)


@pytest.mark.parametrize(("rows", "due"), [(9, False), (10, True)])
def test_enough_rows_are_due_at_once(rows: int, *, due: bool) -> None:
    one = lane()
    one.offer(0, records(0, *range(rows)), 0.0)
    assert one.due(RULE, 0.0) is due


@pytest.mark.parametrize(("age_s", "due"), [(4.9, False), (5.0, True)])
def test_what_has_waited_long_enough_is_due(age_s: float, *, due: bool) -> None:
    one = lane()
    one.offer(0, records(0, 0), 100.0)
    one.offer(0, records(0, 1), 100.0 + age_s)
    assert one.due(RULE, 100.0 + age_s) is due


def test_many_bytes_are_due_at_once() -> None:
    one = lane()
    one.offer(0, [Record(0, 0, bytes(20))], 0.0)
    assert not one.due(CutRule(rows=1000, age_s=1e9, plan_bytes=21), 0.0)
    assert one.due(CutRule(rows=1000, age_s=1e9, plan_bytes=20), 0.0)


def test_what_stays_behind_is_due_in_its_turn() -> None:
    one = lane()
    one.offer(0, records(0, *range(12)), 0.0)
    one.cut(RULE, 1.0, NOW_MS)
    assert not one.due(RULE, 5.9)
    assert one.due(RULE, 6.0)


def test_rubbish_that_stays_behind_is_due_in_its_turn_too() -> None:
    one = lane()
    one.offer(0, [*records(0, 0, rows=10), Record(0, 1, b"rubbish")], 0.0)
    one.cut(RULE, 1.0, NOW_MS)
    assert one.due(RULE, 6.0)


# What


def test_a_plan_names_clock_layouts_log_epoch_and_range() -> None:
    one = lane(log_epoch=3)
    one.offer(0, records(0, 7, 8, 9), 0.0)
    plan, taken = one.cut(RULE, 0.0, NOW_MS)
    assert plan == Plan("kvandal.gpu", TOPIC_ID, (Range(0, 7, 10),), NOW_MS, 1, 3)
    assert offsets(taken) == [(0, 7), (0, 8), (0, 9)]
    assert (one.rows, one.bytes, one.due(RULE, 1e9)) == (0, 0, False)


def test_a_plan_stops_once_it_has_its_rows() -> None:
    one = lane()
    one.offer(0, records(0, *range(5), rows=4), 0.0)
    plan, taken = one.cut(RULE, 0.0, NOW_MS)
    assert plan.ranges == (Range(0, 0, 3),)
    assert len(taken) == 3
    assert (one.rows, one.bytes) == (8, 8 * ROW_BYTES)


def test_a_plan_stops_once_it_has_its_bytes() -> None:
    one = lane()
    one.offer(0, records(0, *range(5)), 0.0)
    plan, _ = one.cut(CutRule(rows=1000, age_s=5, plan_bytes=2 * ROW_BYTES), 0.0, NOW_MS)
    assert plan.ranges == (Range(0, 0, 2),)


def test_offsets_that_compaction_took_away_lie_within_the_range() -> None:
    one = lane()
    one.offer(0, records(0, 3, 8, 20), 0.0)
    plan, _ = one.cut(RULE, 0.0, NOW_MS)
    assert plan.ranges == (Range(0, 3, 21),)


def test_a_joined_lane_plans_all_its_partitions_at_once() -> None:
    one = lane(0, 1, 2)
    one.offer(1, records(1, 5, 6), 0.0)
    one.offer(0, records(0, 9), 0.0)
    plan, taken = one.cut(RULE, 0.0, NOW_MS)
    assert plan.ranges == (Range(0, 9, 10), Range(1, 5, 7))
    assert offsets(taken) == [(0, 9), (1, 5), (1, 6)]


def test_first_cut_and_replay_give_the_records_in_the_same_order() -> None:
    # 8 before 1 is how a set of these two is iterated.
    first, again = lane(8, 1), lane(8, 1, replay=replayed(Range(1, 0, 2), Range(8, 0, 2)))
    for one in (first, again):
        one.offer(8, records(8, 0, 1), 0.0)
        one.offer(1, records(1, 0, 1), 0.0)
    assert offsets(first.cut(RULE, 0.0, NOW_MS)[1]) == offsets(again.cut(RULE, 0.0, NOW_MS)[1])


def test_an_event_counts_as_one_row() -> None:
    one = Lane(MessageBatcher(EVENTS), EVENTS.name, TOPIC_ID, {0: 0}, replay=None, log_epoch=0, seen=SeenFrames())
    one.offer(0, [Record(0, n, b"{}") for n in range(10)], 0.0)
    assert one.due(RULE, 0.0)


# Again


def test_a_replay_waits_for_all_its_records_however_long() -> None:
    one = lane(replay=replayed(Range(0, 0, 5)))
    one.offer(0, records(0, *range(4)), 0.0)
    assert not one.due(RULE, 1e9)
    one.offer(0, records(0, 4), 0.0)
    assert one.due(RULE, 0.0)


def test_a_replay_is_the_plan_itself_and_no_record_more() -> None:
    plan = replayed(Range(0, 0, 5))
    one = lane(replay=plan)
    one.offer(0, records(0, *range(30)), 0.0)
    assert one.replaying
    again, taken = one.cut(RULE, 0.0, NOW_MS)
    assert again is plan
    assert offsets(taken) == [(0, n) for n in range(5)]
    assert not one.replaying
    assert one.cut(RULE, 0.0, NOW_MS)[0].ranges == (Range(0, 5, 15),)


def test_a_replay_larger_than_todays_rule_is_not_cut() -> None:
    one = lane(replay=replayed(Range(0, 0, 50)))
    one.offer(0, records(0, *range(60)), 0.0)
    assert len(one.cut(RULE, 0.0, NOW_MS)[1]) == 50


def test_a_later_record_shows_that_the_rest_of_a_replay_is_gone() -> None:
    one = lane(replay=replayed(Range(0, 0, 5)))
    one.offer(0, records(0, 1, 2), 0.0)
    assert not one.due(RULE, 0.0)
    one.offer(0, records(0, 9), 0.0)
    assert one.due(RULE, 0.0)
    assert offsets(one.cut(RULE, 0.0, NOW_MS)[1]) == [(0, 1), (0, 2)]


def test_a_replay_whose_records_have_all_expired_is_due_at_once() -> None:
    one = lane(replay=replayed(Range(0, 0, 5)), first=7)
    assert one.due(RULE, 0.0)
    plan, taken = one.cut(RULE, 0.0, NOW_MS)
    assert (plan.ranges, taken) == ((Range(0, 0, 5),), [])


def test_a_joined_replay_waits_for_every_partition() -> None:
    one = lane(0, 1, 2, replay=replayed(Range(0, 0, 2), Range(2, 0, 1)))
    one.offer(0, records(0, 0, 1, 2), 0.0)
    assert not one.due(RULE, 1e9)
    one.offer(2, records(2, 0), 0.0)
    assert one.due(RULE, 0.0)
    assert offsets(one.cut(RULE, 0.0, NOW_MS)[1]) == [(0, 0), (0, 1), (2, 0)]


@dataclass(frozen=True, slots=True)
class Offer:
    partition: int
    sizes: tuple[int, ...]  # of records, in rows


@given(
    st.lists(st.builds(Offer, st.integers(0, 2), st.lists(st.integers(0, 6), max_size=8).map(tuple)), max_size=10),
    st.integers(1, 20),
)
def test_plans_partition_the_log_and_each_replays_alike(offered: list[Offer], rows: int) -> None:
    """Whatever arrives, plans follow each other without gap or overlap, and a replay takes the same records."""
    rule = CutRule(rows=rows, age_s=0.0)
    one, log = lane(0, 1, 2), dict[int, list[Record]]({0: [], 1: [], 2: []})
    for offer in offered:
        start = len(log[offer.partition])
        arrived = [Record(offer.partition, start + n, bytes(size * ROW_BYTES)) for n, size in enumerate(offer.sizes)]
        log[offer.partition] += arrived
        if arrived:
            one.offer(offer.partition, arrived, 0.0)
    reached = {0: 0, 1: 0, 2: 0}
    while one.due(rule, 0.0):
        plan, taken = one.cut(rule, 0.0, NOW_MS)
        again = lane(0, 1, 2, replay=plan)
        for planned in plan.ranges:
            assert planned.first == reached[planned.partition]
            reached[planned.partition] = planned.end
            again.offer(planned.partition, log[planned.partition][planned.first :], 0.0)
        assert sorted(offsets(again.cut(rule, 0.0, 0)[1])) == sorted(offsets(taken))
    assert reached == {partition: len(held) for partition, held in log.items()}
    assert (one.rows, one.bytes) == (0, 0)
