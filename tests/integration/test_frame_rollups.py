"""Rollups of ingest's lines about frames: what dashboards tell by them is what the lines tell."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from dashboards.frame_queries import frames_figures, frames_over_time, missing_ticks, silent_sources, sources_counted
from dashboards.macros import View, expand
from storage.frame_rollups import DELAY_S, FRAMES
from storage.hours import HourKeeper

HOUR = timedelta(hours=1)
START = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - 6 * HOUR
# From ten past the first hour to ten to the last one's end: whole hours lie within.
VIEW = View(START + timedelta(minutes=10), START + timedelta(hours=3, minutes=50), 600)
# Every query of the page about the pipeline, and the same asked of the lines themselves.
ASKED = {
    "figures": frames_figures("sum(frames) AS frames, sum(rows) AS rows, max(longest_delay_ms) AS longest"),
    "series": frames_over_time("sum(rows)"),
    "sources": sources_counted("sources"),
    "missing": missing_ticks(),
    "silent": silent_sources(),
}
TRUE = {
    "figures": "SELECT count(), sum(rows), max(dateDiff('millisecond', sent_at, stored_at)) FROM frames WHERE {range}",
    "series": "SELECT toStartOfInterval(checked_at, INTERVAL 600 second) AS time, table_name, sum(rows) FROM frames "
    "WHERE {range} GROUP BY time, table_name ORDER BY time, table_name",
    "sources": "SELECT uniqExact(source) FROM frames WHERE {range}",
    "missing": "SELECT hex(source), table_name, max(sequence + ticks) - min(sequence) AS due, sum(ticks) AS stored, "
    "due - stored AS missing FROM frames WHERE {range} AND outcome = 'stored' GROUP BY source, epoch_ms, table_name",
    "silent": "SELECT hex(source), arrayStringConcat(arraySort(groupUniqArray(table_name)), ', '), max(last_time), "
    "dateDiff('second', max(last_time), $__toTime), sum(ticks) FROM frames WHERE {range} GROUP BY source",
}


def put(client: Client, first: datetime, minutes: int, *, sequence: int = 0, late: bool = False) -> None:
    """Lines of seven sources, a frame a minute: every thirteenth is a duplicate, every eleventh never came."""
    client.command(
        "INSERT INTO frames (table_raw, source, epoch_ms, sequence, ticks, rows, offset, first_time, last_time, "
        "sent_at, checked_at, stored_at, outcome)\n"
        "SELECT if(number % 2 = 0, 'gpu', 'tray'), number % 7, number % 3, {sequence:UInt64} + 10 * intDiv(number, 7), "
        "10, 40, number, checked_at - 12, checked_at - 2, addMilliseconds(checked_at, -900 - number), "
        "toDateTime64({first:UInt32} + 60 * intDiv(number, 7), 3) AS checked_at, "
        "if({late:Bool}, now64(3), addMilliseconds(checked_at, number % 500)), "
        "if(number % 13 = 0, 'duplicate', 'stored')\n"
        "FROM numbers({lines:UInt32}) WHERE number % 11 != 0",
        parameters={"first": int(first.timestamp()), "lines": 7 * minutes, "sequence": sequence, "late": late},
    )


def told(client: Client, name: str) -> list[tuple[Any, ...]]:
    return _rows(client, ASKED[name])


def true(client: Client, name: str) -> list[tuple[Any, ...]]:
    return _rows(client, TRUE[name].replace("{range}", "$__timeFilter(checked_at)"))


def _rows(client: Client, sql: str) -> list[tuple[Any, ...]]:
    return sorted(map(tuple, client.query(expand(sql, VIEW)).result_rows))


def check(client: Client, names: Sequence[str] = tuple(ASKED)) -> None:
    for name in names:
        assert told(client, name) == true(client, name) != [], name


def test_the_page_tells_what_the_lines_tell_before_and_after_their_hours_are_computed(store: Client) -> None:
    put(store, START, 240)
    check(store)
    assert [done.table for done in HourKeeper(store).recompute()].count(FRAMES) == 1
    for table in ("frame_minutes", "source_hours"):
        assert store.query(f"SELECT uniqExact(toStartOfHour(time)) FROM {table}").first_row == (4,)  # noqa: S608
    check(store)
    delays = "SELECT quantileExact(0.95)(dateDiff('millisecond', sent_at, stored_at)) / 1000 FROM frames WHERE "
    ((delay,),) = _rows(store, frames_figures(DELAY_S))
    ((exact,),) = _rows(store, f"{delays} $__timeFilter(checked_at)")
    assert delay == pytest.approx(exact, rel=0.02)


def test_lines_that_are_written_late_are_there_when_their_hour_is_computed_anew(store: Client) -> None:
    """A plan that is done again after an outage is dated as it was planned."""
    put(store, START, 240)
    keeper = HourKeeper(store)
    keeper.recompute()
    put(store, START + HOUR, 30, sequence=10_000, late=True)
    assert told(store, "figures") != true(store, "figures")
    keeper.recompute()
    check(store)
