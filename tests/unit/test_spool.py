"""The spool: order, bound, and an account of every frame that had to make room."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from collectors.counters import KeptCounter
from collectors.spool import Evicted, Outgoing, Spool, SpoolError

KIB = 1024
GPU, TRAY, EVENTS = "kvandal.gpu", "kvandal.tray", "kvandal.events"


def frame(time_s: int, *, source: int = 1, topic: str = GPU, size: int = KIB, rows: int = 8) -> Outgoing:
    return Outgoing(topic, source, bytes(size), rows, time_s, time_s + 9)


def message(text: bytes = b"xid", *, size: int = 100) -> Outgoing:
    return Outgoing(EVENTS, 7, text.ljust(size), urgent=True)


def spool_of(folder: Path, limit_kib: int) -> Spool:
    return Spool(folder / "spool.db", limit_bytes=limit_kib * KIB)


def gaps_of(spool: Spool) -> list[Evicted]:
    """What a sender would report; the reports themselves are taken out again."""
    gaps = spool.report_evicted(lambda _: message(b"lost"))
    spool.remove([value.number for value in spool.take(1000, urgent=True)])
    return sorted(gaps, key=lambda gap: (gap.source, gap.topic, gap.first_time))


def test_values_come_out_oldest_first_messages_apart_from_readings(tmp_path: Path) -> None:
    spool = spool_of(tmp_path, 100)
    spool.add([frame(0), message(b"first"), frame(10)])
    spool.add([message(b"second"), frame(20)])

    readings, messages = spool.take(10, urgent=False), spool.take(10, urgent=True)

    assert [value.number for value in readings] == [1, 3, 5]
    assert [value.value.strip() for value in messages] == [b"first", b"second"]
    assert [value.number for value in spool.take(10, urgent=False, after=3)] == [5]


def test_each_topic_s_values_can_be_taken_apart_messages_first(tmp_path: Path) -> None:
    spool = spool_of(tmp_path, 100)
    spool.add([frame(0, topic=TRAY), frame(0), message(), frame(10)])

    assert [(line.topic, line.urgent) for line in spool.lines()] == [(EVENTS, True), (GPU, False), (TRAY, False)]
    assert [value.number for value in spool.take(10, urgent=False, topic=GPU)] == [2, 4]
    assert [value.number for value in spool.take(10, urgent=False, topic=TRAY)] == [1]
    assert spool.take(10, urgent=False, topic=GPU, after=4) == []


def test_what_is_given_out_is_bounded_in_bytes_but_never_nothing(tmp_path: Path) -> None:
    spool = spool_of(tmp_path, 100)
    spool.add([frame(0, size=5 * KIB), frame(10), frame(20)])

    assert [value.number for value in spool.take(10, urgent=False, most_bytes=KIB)] == [1]
    assert [value.number for value in spool.take(10, urgent=False, after=1, most_bytes=2 * KIB)] == [2, 3]


def test_the_oldest_readings_make_room_and_messages_stay(tmp_path: Path) -> None:
    spool = spool_of(tmp_path, 4)
    spool.add([message(), frame(0), frame(10), frame(20)])

    evicted = spool.add([frame(30)])

    assert evicted == [Evicted(1, GPU, 0, 9, frames=1, rows=8)]
    assert len(spool.take(10, urgent=True)) == 1
    assert [value.number for value in spool.take(10, urgent=False)] == [3, 4, 5]


def test_messages_that_fill_more_than_half_make_room_for_readings(tmp_path: Path) -> None:
    """A topic of messages that takes none must not close the spool to readings whose topic takes them."""
    spool = spool_of(tmp_path, 4)
    for number in range(40):
        spool.add([message(str(number).encode())])

    evicted = spool.add([frame(0), frame(10), frame(20)])

    assert {(account.topic, account.frames) for account in evicted} == {(EVENTS, 1), (GPU, 1)}
    kept = [value.value.strip() for value in spool.take(100, urgent=True)]
    assert kept == [str(number).encode() for number in range(20, 40)]  # 2,000 bytes, less than half of 4,096
    assert len(spool.take(10, urgent=False)) == 2


def test_consecutive_evictions_are_one_gap_and_others_are_apart(tmp_path: Path) -> None:
    spool = spool_of(tmp_path, 4)
    for tick in range(0, 60, 10):
        spool.add([frame(tick)])
    arrived = spool.take(1, urgent=False)
    spool.remove([value.number for value in arrived])
    for tick in range(60, 100, 10):
        spool.add([frame(tick)])

    assert arrived[0].number == 3
    assert gaps_of(spool) == [
        Evicted(1, GPU, 0, 19, frames=2, rows=16),
        Evicted(1, GPU, 30, 59, frames=3, rows=24),
    ]


def test_gaps_are_by_source_and_topic(tmp_path: Path) -> None:
    spool = spool_of(tmp_path, 3)
    for tick in (0, 10, 20):
        spool.add([frame(tick), frame(tick, source=2), frame(tick, topic=TRAY, rows=1)])

    assert gaps_of(spool) == [
        Evicted(1, GPU, 0, 19, frames=2, rows=16),
        Evicted(1, TRAY, 0, 19, frames=2, rows=2),
        Evicted(2, GPU, 0, 19, frames=2, rows=16),
    ]


def test_what_is_on_its_way_makes_no_room(tmp_path: Path) -> None:
    spool = spool_of(tmp_path, 4)
    spool.add([frame(0), frame(10), frame(20), frame(30)])
    flying = spool.take(2, urgent=False)

    spool.add([frame(40), frame(50)])
    spool.remove([value.number for value in flying])

    assert [value.number for value in spool.take(10, urgent=False)] == [5, 6]
    assert gaps_of(spool) == [Evicted(1, GPU, 20, 39, frames=2, rows=16)]


def test_where_all_is_on_its_way_the_newest_makes_room(tmp_path: Path) -> None:
    """The bound holds whatever the broker does."""
    spool = spool_of(tmp_path, 2)
    spool.add([frame(0), frame(10)])
    spool.take(2, urgent=False)

    spool.add([frame(20)])

    assert spool.size_bytes == 2 * KIB
    assert gaps_of(spool) == [Evicted(1, GPU, 20, 29, frames=1, rows=8)]


def test_what_was_sent_without_an_answer_is_not_called_lost_for_certain(tmp_path: Path) -> None:
    spool = spool_of(tmp_path, 2)
    spool.add([frame(0), frame(10)])
    spool.release([value.number for value in spool.take(1, urgent=False)], sent=True)
    spool.add([frame(20), frame(30)])

    assert gaps_of(spool) == [
        Evicted(1, GPU, 0, 9, frames=1, rows=8, sent=True),
        Evicted(1, GPU, 10, 19, frames=1, rows=8),
    ]


def test_what_a_broker_never_took_is_lost_for_certain(tmp_path: Path) -> None:
    spool = spool_of(tmp_path, 2)
    spool.add([frame(0), frame(10)])
    spool.release([value.number for value in spool.take(2, urgent=False)], sent=False)
    spool.add([frame(20), frame(30)])

    assert gaps_of(spool) == [Evicted(1, GPU, 0, 19, frames=2, rows=16)]


def test_what_was_sent_before_a_kill_is_remembered(tmp_path: Path) -> None:
    """A second spool on the same file stands for the process that comes after kill -9."""
    killed = spool_of(tmp_path, 2)
    killed.add([frame(0), frame(10)])
    killed.take(1, urgent=False)
    spool = spool_of(tmp_path, 2)

    spool.add([frame(20), frame(30)])

    assert [gap.sent for gap in gaps_of(spool)] == [True, False]


def test_what_a_topic_has_not_handed_out_before_a_kill_is_lost_for_certain(tmp_path: Path) -> None:
    """Although values of another topic that came later were handed out."""
    killed = spool_of(tmp_path, 3)
    killed.add([frame(0, topic=TRAY), frame(10), frame(20)])
    killed.take(2, urgent=False, topic=GPU)
    spool = spool_of(tmp_path, 3)

    spool.add([frame(30), frame(40)])

    assert [(gap.topic, gap.sent) for gap in gaps_of(spool)] == [(GPU, True), (TRAY, False)]


def test_a_spool_that_kept_one_mark_for_all_topics_is_taken_over(tmp_path: Path) -> None:
    before = spool_of(tmp_path, 3)
    before.add([frame(0), frame(10, topic=TRAY), frame(20)])
    before.close()
    with sqlite3.connect(tmp_path / "spool.db") as old:
        old.execute("CREATE TABLE marks (urgent INTEGER PRIMARY KEY, number INTEGER NOT NULL)")
        old.execute("INSERT INTO marks VALUES (0, 2)")
    for _ in range(2):  # also when it is opened once more
        spool = spool_of(tmp_path, 3)

    spool.add([frame(30), frame(40), frame(50)])

    assert [(gap.topic, gap.first_time, gap.sent) for gap in gaps_of(spool)] == [
        (GPU, 0, True), (GPU, 20, False), (TRAY, 10, True),
    ]  # fmt: skip


def test_a_restart_keeps_values_numbers_bytes_and_gaps(tmp_path: Path) -> None:
    before = spool_of(tmp_path, 3)
    for tick in (0, 10, 20, 30):
        before.add([frame(tick)])
    before.close()
    spool = spool_of(tmp_path, 3)
    assert spool.size_bytes == 3 * KIB

    spool.add([frame(40)])

    assert [value.number for value in spool.take(10, urgent=False)] == [3, 4, 5]
    assert gaps_of(spool) == [Evicted(1, GPU, 0, 19, frames=2, rows=16)]


def test_a_number_is_never_given_twice_not_even_after_the_spool_was_empty(tmp_path: Path) -> None:
    before = spool_of(tmp_path, 3)
    before.add([frame(0)])
    before.remove([1])
    before.close()
    spool = spool_of(tmp_path, 3)

    spool.add([frame(10)])

    assert [value.number for value in spool.take(10, urgent=False)] == [2]


def test_a_gap_leaves_only_together_with_its_report(tmp_path: Path) -> None:
    spool = spool_of(tmp_path, 1)
    spool.add([frame(0), frame(10)])

    def refuse(gap: Evicted) -> Outgoing:
        raise RuntimeError(f"no report of {gap.rows} rows today")

    with pytest.raises(RuntimeError):
        spool.report_evicted(refuse)

    assert gaps_of(spool) == [Evicted(1, GPU, 0, 9, frames=1, rows=8)]
    assert gaps_of(spool) == []


def test_counters_become_durable_with_their_rows_or_not_at_all(tmp_path: Path) -> None:
    spool = spool_of(tmp_path, 10)
    spool.add([frame(0)], {"GPU-1/energy": KeptCounter(1 << 63, 5, 9, "boot")})
    assert spool.counter("GPU-1/energy") == KeptCounter(1 << 63, 5, 9, "boot")

    with closing(sqlite3.connect(tmp_path / "spool.db")) as other:
        other.execute("ALTER TABLE frames RENAME TO elsewhere")
    with pytest.raises(SpoolError):
        spool.add([frame(10)], {"GPU-1/energy": KeptCounter(1, 0, 19, "boot")})

    assert spool.counter("GPU-1/energy") == KeptCounter(1 << 63, 5, 9, "boot")


def test_a_spool_of_the_version_before_is_taken_over(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "spool.db") as old:
        old.execute(
            "CREATE TABLE frames (number INTEGER PRIMARY KEY AUTOINCREMENT, urgent INTEGER NOT NULL, topic TEXT NOT "
            "NULL, source TEXT NOT NULL, first_time INTEGER NOT NULL, last_time INTEGER NOT NULL, rows INTEGER NOT "
            "NULL, value BLOB NOT NULL)"
        )
        old.execute("INSERT INTO frames VALUES (41, 0, ?, '1', 0, 9, 8, ?)", (GPU, bytes(KIB)))
    spool = spool_of(tmp_path, 2)

    spool.add([frame(10), frame(20)])

    assert [value.number for value in spool.take(10, urgent=False)] == [42, 43]
    assert gaps_of(spool) == [Evicted(1, GPU, 0, 9, frames=1, rows=8)]


def test_a_file_that_is_no_spool_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "spool.db").write_bytes(b"years of work" * 1000)

    with pytest.raises(SpoolError, match=r"give a writable path in agent\.spool"):
        spool_of(tmp_path, 1)
