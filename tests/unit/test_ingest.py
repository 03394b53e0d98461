"""Ingest: whatever fails, crashes or is taken over, every row is stored exactly once and nothing vanishes."""

import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from threading import Event
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream.health import StormError, StormRule
from stream.ingest import IngestRules
from stream.lane import CutRule
from stream.topics import EVENTS
from tests.servers.ingest_plant import (
    READING,
    RUBBISH,
    RULES,
    TICKS,
    TOPIC,
    TOPIC_ID,
    WRITING,
    Crash,
    FakeBroker,
    Faults,
    Plant,
    assert_exactly_once,
    frame,
    plant_of,
    row_keys,
    stored_uuid,
)

# Nothing goes wrong


@pytest.mark.parametrize("joined", [False, True])
def test_every_row_is_stored_once(*, joined: bool) -> None:
    logs = [[frame(source, n) for n in range(20)] for source in (1, 2, 3)]
    plant = plant_of(*logs, rules=replace(RULES, joined=joined))
    plant.run_to_the_end()
    assert_exactly_once(plant, row_keys(1, *range(20)) | row_keys(2, *range(20)) | row_keys(3, *range(20)))
    assert plant.count("kvandal_ingest_rows_total", table="gpu") == 3 * 20 * TICKS
    assert plant.count("kvandal_ingest_frames_total", table="gpu", outcome="stored") == 60


def test_a_few_rows_go_when_they_have_waited_long_enough() -> None:
    plant = plant_of([frame(1, 0)])
    plant.run_to_the_end()
    assert_exactly_once(plant, row_keys(1, 0))


def test_frames_sent_twice_are_stored_once() -> None:
    plant = plant_of([frame(1, 0), frame(1, 1), frame(1, 0), frame(1, 2), frame(1, 1)])
    plant.run_to_the_end()
    assert_exactly_once(plant, row_keys(1, 0, 1, 2))
    assert plant.count("kvandal_ingest_frames_total", table="gpu", outcome="duplicate") == 2


def test_frames_sent_twice_are_stored_once_by_the_next_process_too() -> None:
    plant = plant_of([frame(1, 0), frame(1, 1)])
    plant.run_to_the_end()
    plant.broker.append(0, frame(1, 1), frame(1, 2))
    plant.run_to_the_end()
    assert_exactly_once(plant, row_keys(1, 0, 1, 2))


def test_rubbish_is_dead_lettered_and_its_neighbours_are_stored() -> None:
    plant = plant_of([frame(1, 0), RUBBISH, frame(1, 1)])
    plant.run_to_the_end()
    assert_exactly_once(plant, row_keys(1, 0, 1))


def test_events_are_written_as_messages() -> None:
    event = b'{"id":"1","resource":5,"time_ms":1760000000000,"kind":"xid","code":79}'
    plant = Plant(FakeBroker(topic=EVENTS.name, logs={0: [event, RUBBISH, event]}))
    plant.run(lambda: sum(len(lines) for lines in plant.store.messages.values()) == 2)
    assert {letter.record.offset for letter in plant.store.letters} == {1}


def test_a_topic_made_anew_is_read_from_its_start() -> None:
    plant = plant_of([frame(1, 0), frame(1, 1)])
    plant.run_to_the_end()
    plant.broker.topic_id = UUID(int=8)
    plant.broker.logs = {0: [frame(1, 1), frame(1, 2)]}  # one of them was in the old topic too
    plant.run(lambda: len(plant.store.frames) == 2)
    assert plant.store.row_counts == Counter(row_keys(1, 0, 1, 2))


def test_a_topic_made_anew_after_its_records_were_read_has_none_of_them_planned_as_the_old_one() -> None:
    plant = plant_of([frame(1, 0), frame(1, 1)])
    plant.run_to_the_end()
    plant.broker.append(0, frame(1, 2))

    def renew_once_read() -> bool:
        if plant.broker.topic_id == TOPIC_ID and plant.log.has_read(0, 2):
            plant.broker.topic_id = UUID(int=8)
            plant.broker.logs = {0: [frame(1, 3), frame(1, 1), frame(1, 2)]}
        return plant.broker.topic_id != TOPIC_ID and plant.all_logged()

    plant.run(renew_once_read)
    assert plant.store.row_counts == Counter(row_keys(1, 0, 1, 2, 3))
    lines = [line for block in plant.store.frames.values() for line in block]
    assert [line["offset"] for line in lines if line["topic_id"].tobytes() == stored_uuid(TOPIC_ID)] == [0, 1]


def test_records_that_expired_unread_are_counted() -> None:
    plant = plant_of([frame(1, n) for n in range(4)])
    plant.run_to_the_end()
    plant.broker.append(0, *(frame(1, n) for n in range(4, 10)))
    plant.broker.first = {0: 7}
    plant.run(lambda: (0, 9) in plant.store.frame_counts)
    assert plant.store.row_counts == Counter(row_keys(1, 0, 1, 2, 3, 7, 8, 9))
    assert plant.count("kvandal_ingest_expired_records_total", topic=TOPIC) == 3


def test_a_log_that_was_cut_short_is_read_anew_and_nothing_is_stored_twice() -> None:
    plant = plant_of([frame(1, n) for n in range(6)])
    plant.run_to_the_end()
    # The brokers lost the end of the log; the next frames get offsets that others had.
    plant.broker.logs = {0: [*(frame(1, n) for n in range(4)), frame(2, 0)]}
    plant.run(lambda: row_keys(2, 0) <= plant.store.row_counts.keys())
    assert plant.store.row_counts == Counter(row_keys(1, *range(6)) | row_keys(2, 0))


# Something is away


def test_a_commit_that_was_set_back_is_noticed_and_nothing_is_stored_twice() -> None:
    """By hand, or by an older commit that arrived late: the plans after it, and the cuts of its inserts, are lost."""
    plant = plant_of([frame(1, n) for n in range(12)])
    plant.run_to_the_end()
    assert len(plant.plans.made) > 1
    del plant.plans.made[1:]
    plant.broker.append(0, frame(1, 12))

    plant.run_to_the_end()

    assert plant.store.row_counts == Counter(row_keys(1, *range(13)))
    assert {plan.log_epoch for plan in plant.plans.made} == {0, 1}


@pytest.mark.parametrize("when", ["away", "away after"])
@pytest.mark.parametrize("kind", [*WRITING, *READING])
def test_what_is_away_for_a_while_is_waited_for(kind: str, when: str) -> None:
    logs = [frame(1, 0), RUBBISH, *(frame(1, n) for n in range(1, 12))]
    plant = plant_of(logs, faults=Faults({kind: [when] * 3}))
    plant.run(plant.all_logged)
    assert_exactly_once(plant, row_keys(1, *range(12)))


def test_waiting_is_counted() -> None:
    plant = plant_of([frame(1, 0)], faults=Faults({"rows": ["away", "away"]}))
    plant.run(plant.all_logged)
    assert plant.count("kvandal_ingest_retries_total", doing="insert") == 2


@pytest.mark.parametrize("kind", ["rows", "save", "seen"])
def test_told_to_stop_in_an_outage_it_stops_at_once_and_loses_nothing(kind: str) -> None:
    plant = plant_of([frame(1, n) for n in range(5)], rules=replace(RULES, retry_max_s=60.0))
    plant.faults.script = {kind: ["away"] * 1000}
    stop = Event()
    threading.Timer(0.1, stop.set).start()
    began_s = time.monotonic()
    plant.run(lambda: False, stop=stop)
    assert time.monotonic() - began_s < 30.0  # of the 60 s that it would wait
    plant.faults.script, plant.rules = {}, RULES
    plant.run_to_the_end()
    assert_exactly_once(plant, row_keys(1, *range(5)))


def test_told_to_stop_while_it_opens_partitions_it_opens_no_more_of_them() -> None:
    """Each takes questions to brokers and store, which may be slow: a member of many would not end in time."""
    stop = Event()

    class StopAtFirst(Faults):
        def next(self, kind: str) -> str:
            if kind == "standing":
                stop.set()
            return super().next(kind)

    plant = plant_of(*([frame(source, 0)] for source in range(1, 9)), faults=StopAtFirst())
    plant.run(lambda: False, stop=stop)
    assert plant.faults.calls["standing"] == 1


def test_what_the_store_refuses_ends_the_process_with_its_sentence() -> None:
    plant = plant_of([frame(1, 0)], faults=Faults({"rows": ["refused"]}))
    with pytest.raises(ValueError, match="run `kvandal schema diff`"):
        plant.run(lambda: False)
    plant.run_to_the_end()
    assert_exactly_once(plant, row_keys(1, 0))


# The process crashes


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("when", ["crash", "crash after"])
@pytest.mark.parametrize("kind", WRITING)
@pytest.mark.parametrize("good", [0, 1])
def test_a_crash_anywhere_stores_nothing_twice(kind: str, when: str, good: int, *, joined: bool) -> None:
    """The first or the second call of its kind is where the process ends; another one takes over."""
    logs = [[frame(1, 0), RUBBISH, *(frame(1, n) for n in range(1, 12))], [frame(2, 0), RUBBISH, frame(2, 1)]]
    plant = plant_of(*logs, rules=replace(RULES, joined=joined), faults=Faults({kind: [""] * good + [when]}))
    plant.run_to_the_end()
    assert_exactly_once(plant, row_keys(1, *range(12)) | row_keys(2, 0, 1))


def test_a_replay_takes_the_clock_of_its_plan() -> None:
    """A row that was young enough when it was planned is so at the replay, days later."""
    plant = plant_of([frame(1, 0)], faults=Faults({"rows": ["crash"]}))
    with pytest.raises(Crash):
        plant.run(lambda: False)
    (planned,) = plant.plans.made
    plant.clock.now_s += 500.0
    plant.run_to_the_end()
    assert [plan.checked_at_ms for plan in plant.plans.made] == [planned.checked_at_ms]
    (line,) = next(iter(plant.store.frames.values()))
    assert line["checked_at"] == planned.checked_at_ms


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[list[bytes]], set[tuple[int, int]]]:
    """Logs of one to three partitions, with repetitions and rubbish, and the rows that they mean."""
    logs, rows = list[list[bytes]](), set[tuple[int, int]]()
    for source in range(1, draw(st.integers(1, 3)) + 1):
        numbers = draw(st.lists(st.one_of(st.integers(0, 9), st.none()), max_size=25))
        logs.append([RUBBISH if n is None else frame(source, n) for n in numbers])
        rows |= row_keys(source, *(n for n in numbers if n is not None))
    return logs, rows


def scripts(kinds: Iterable[str], faults: Iterable[str]) -> st.SearchStrategy[dict[str, list[str]]]:
    one = st.lists(st.sampled_from(["", "", *faults]), max_size=8)
    return st.fixed_dictionaries(dict.fromkeys(kinds, one))


@st.composite
def troubles(draw: st.DrawFn) -> dict[str, list[str]]:
    script = draw(scripts(WRITING, ["away", "away after", "crash", "crash after"]))
    script |= draw(scripts(["standing", "seen", "bounds", "seek"], ["away", "crash"]))
    return script | draw(scripts(["poll"], ["away", "crash", "rebalance"]))


@given(histories(), troubles(), st.sampled_from([RULES, replace(RULES, joined=True)]), st.integers(1, 7))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_goes_wrong_every_row_is_stored_exactly_once(
    history: tuple[list[list[bytes]], set[tuple[int, int]]], script: dict[str, list[str]], rules: IngestRules, most: int
) -> None:
    logs, rows = history
    plant = plant_of(*logs, rules=rules, faults=Faults(script))
    plant.most = most
    plant.run_to_the_end()
    assert_exactly_once(plant, rows)


# Somebody else takes over


@pytest.mark.parametrize("moment", ["made", "ended"])
def test_a_fenced_owner_drops_its_partitions_and_the_new_one_stores_all(moment: str) -> None:
    """It learns of it when it notes a plan as done, or when it wants to make the next one."""
    plant = plant_of([frame(1, n) for n in range(12)])

    def fenced() -> bool:
        if getattr(plant.plans, moment) and not plant.plans.generation:
            plant.plans.generation = 1
        return plant.faults.calls["fenced"] == 1

    plant.run(fenced)
    assert not plant.all_logged()
    plant.run_to_the_end()
    assert_exactly_once(plant, row_keys(1, *range(12)))


def test_an_owner_that_wakes_late_stores_nothing_twice() -> None:
    """The first owner is stopped in the middle of its insert; the second replays; then the first one wakes."""
    plant = plant_of([frame(1, n) for n in range(12)])
    plant.store.gate.clear()
    stop = Event()
    sleeper = threading.Thread(target=plant.run, args=(lambda: False,), kwargs={"stop": stop})
    sleeper.start()
    assert plant.store.reached.wait(5)
    plant.plans.generation += 1
    successor = Plant(plant.broker)
    successor.plans, successor.store = plant.plans, replace(plant.store, faults=successor.faults, gate=Event())
    successor.store.gate.set()
    successor.run_to_the_end()
    plant.store.gate.set()
    stop.set()
    sleeper.join(5)
    assert not sleeper.is_alive()
    assert_exactly_once(successor, row_keys(1, *range(12)))


def test_partitions_lost_and_regained_go_on_where_they_were() -> None:
    plant = plant_of([frame(1, n) for n in range(30)], faults=Faults({"poll": ["", "", "rebalance", "", "rebalance"]}))
    plant.run_to_the_end()
    assert_exactly_once(plant, row_keys(1, *range(30)))


# Bad sources


def bad(source: int, number: int) -> bytes:
    """A frame from that source whose end is cut off."""
    return frame(source, number)[:-1]


def test_one_rogue_source_does_not_stop_ingest() -> None:
    plant = plant_of([*(bad(1, n) for n in range(20)), *(frame(2, n) for n in range(20))])
    plant.run(plant.all_logged, storms=StormRule())
    assert plant.store.row_counts == Counter(row_keys(2, *range(20)))
    assert len(plant.store.letter_offsets) == 20


def test_a_storm_stops_ingest() -> None:
    plant = plant_of([value for n in range(10) for value in (bad(1, n), bad(2, n))])
    with pytest.raises(StormError, match="2 of 2 sources"):
        plant.run(lambda: False, storms=StormRule())


def test_after_a_storm_its_frames_are_dead_letters_and_a_restart_goes_on() -> None:
    plant = plant_of([bad(1, 0), bad(2, 0), bad(1, 1)])
    with pytest.raises(StormError):
        plant.run(lambda: False, storms=StormRule())
    assert plant.store.letter_offsets == {(0, 0), (0, 1), (0, 2)}
    # The cause is mended: from now on the sources send what they should.
    plant.broker.append(0, *(frame(source, n) for n in range(2, 40) for source in (1, 2)))
    plant.run(plant.all_logged, storms=StormRule())
    assert plant.store.row_counts == Counter(row_keys(1, *range(2, 40)) | row_keys(2, *range(2, 40)))


# The store is slower than the log


def test_reading_pauses_while_the_store_is_slow_and_goes_on_after() -> None:
    frame_bytes = len(frame(1, 0))
    plant = plant_of([frame(1, n) for n in range(60)], rules=replace(RULES, buffer_bytes=10 * frame_bytes))
    plant.store.gate.clear()

    def stored_in_the_end() -> bool:
        if plant.log.pauses:
            plant.store.gate.set()
        return plant.all_logged()

    plant.run(stored_in_the_end)
    assert plant.log.pauses[:2] == [True, False]
    assert_exactly_once(plant, row_keys(1, *range(60)))


def test_reading_does_not_pause_while_the_store_keeps_up() -> None:
    plant = plant_of([frame(1, n) for n in range(60)])
    plant.run_to_the_end()
    assert plant.log.pauses == []


def test_small_inserts_of_a_backlog_do_not_wait_for_more_records() -> None:
    """Each of a hundred plans would otherwise cost a poll of 0.2 s while its insert is under way: five a second."""
    plant = plant_of([frame(1, n) for n in range(300)])
    plant.most = 1000
    began_s = plant.clock.now_s
    plant.run(plant.all_logged)
    assert len(plant.plans.made) == 100
    assert plant.clock.now_s - began_s < 10 * RULES.poll_s


def test_the_next_insert_begins_before_the_last_plan_is_noted_as_done() -> None:
    """The store works on while its client tells the broker."""
    plant = plant_of([frame(1, n) for n in range(12)])
    made_when_ended: list[int] = []
    plant.plans.on_end = lambda: made_when_ended.append(len(plant.plans.made))
    plant.run_to_the_end()
    assert made_when_ended == [2, 3, 4, 4]


def test_a_replay_larger_than_the_buffer_is_still_read() -> None:
    plant = plant_of([frame(1, n) for n in range(9)], rules=replace(RULES, cut=CutRule(rows=16, age_s=1.0)))
    plant.faults.script = {"rows": ["crash"]}
    with pytest.raises(Crash):
        plant.run(lambda: False)
    plant.rules = replace(RULES, buffer_bytes=2 * len(frame(1, 0)))
    plant.most = 1
    plant.run_to_the_end()
    assert_exactly_once(plant, row_keys(1, *range(9)))


def test_a_pause_that_fails_is_tried_again() -> None:
    plant = plant_of([frame(1, n) for n in range(60)], rules=replace(RULES, buffer_bytes=4 * len(frame(1, 0))))
    plant.faults.script = {"pause": ["away", "away"]}
    plant.run(plant.all_logged)
    assert_exactly_once(plant, row_keys(1, *range(60)))
