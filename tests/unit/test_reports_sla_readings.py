"""From minutes to what was seen: the parts of a minute and their order; and days on which nothing can hide."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from reports.efficiency_queries import Window
from reports.sla_queries import DAYS, STRETCHES
from reports.sla_readings import plain_days, seen_of

START = datetime(2026, 10, 5, 12, tzinfo=UTC)
WINDOW = Window(START, START + timedelta(minutes=10))
Part = tuple[float, float, bool]
GPU = 2**63 + 7  # ids are unsigned


def stretch(first: float, last: float, observed_s: float, dark_s: float) -> tuple[object, ...]:
    """Of minutes; what is not observed is silent."""
    bounds = (START + timedelta(minutes=first), START + timedelta(minutes=last))
    return GPU, *bounds, observed_s, dark_s, 1.0, 0


def parts(*rows: tuple[object, ...]) -> list[Part]:
    """Seconds from the start: begin, end, whether it was dark; neighbours of one kind as one."""
    told = pl.DataFrame(rows, schema=dict(STRETCHES), orient="row")
    found: list[Part] = []
    for row in seen_of(told, WINDOW, [GPU]).sort("start").iter_rows(named=True):
        first, last = ((row[name] - START).total_seconds() for name in ("start", "end"))
        dark = bool(row["dark"])
        if found and found[-1][1:] == (first, dark):
            first = found.pop()[0]
        found.append((first, last, dark))
    return found


SEEN_BEFORE, SEEN_AFTER = stretch(0, 2, 120, 0), stretch(3, 5, 120, 0)
DARK_BEFORE, DARK_AFTER = stretch(0, 2, 120, 120), stretch(3, 5, 120, 120)


def test_a_gpu_that_went_dark_within_a_minute_did_so_at_its_end() -> None:
    assert parts(SEEN_BEFORE, stretch(2, 3, 60, 17), DARK_AFTER) == [(0, 163, False), (163, 300, True)]


def test_a_gpu_that_came_back_within_a_minute_was_dark_at_its_begin() -> None:
    assert parts(DARK_BEFORE, stretch(2, 3, 60, 17), SEEN_AFTER) == [(0, 137, True), (137, 300, False)]


def test_silence_is_put_beside_silence() -> None:
    assert parts(SEEN_BEFORE, stretch(2, 3, 41, 0)) == [(0, 161, False)]
    assert parts(stretch(2, 3, 41, 0), SEEN_AFTER) == [(139, 300, False)]


def test_a_dark_gpu_that_falls_silent_and_one_that_is_first_dark() -> None:
    assert parts(SEEN_BEFORE, stretch(2, 3, 40, 30)) == [(0, 130, False), (130, 160, True)]


def test_a_short_darkness_has_its_length_wherever_it_was() -> None:
    (dark,) = [part for part in parts(SEEN_BEFORE, stretch(2, 3, 60, 9), SEEN_AFTER) if part[2]]
    assert dark[1] - dark[0] == 9
    assert 120 <= dark[0] < dark[1] <= 180


def test_what_reaches_over_the_window_is_cut_and_order_does_not_matter() -> None:
    rows = [stretch(-5, 4, 540, 0), stretch(8, 60, 3120, 3120)]
    assert parts(*rows) == parts(*reversed(rows)) == [(0, 240, False), (480, 600, True)]


def days(*rows: tuple[int, int, int, int, int, int]) -> list[date]:
    """Day of the month, hours, least, most and first ticks, plain; what is plain of it."""
    told = [(GPU, date(2026, 10, day), *rest) for day, *rest in rows]
    found = plain_days(pl.DataFrame(told, schema=dict(DAYS), orient="row"), [GPU])
    return found["day"].sort().to_list()


def test_a_day_is_plain_when_every_reading_came_and_the_next_days_first_one_too() -> None:
    assert days((5, 24, 3600, 3600, 3600, 1), (6, 24, 3600, 3600, 3600, 1)) == [date(2026, 10, 5)]


@pytest.mark.parametrize(
    "day",
    [
        (5, 23, 3600, 3600, 3600, 1),  # an hour without readings
        (5, 24, 3599, 3600, 3600, 1),  # a reading that is missing
        (5, 24, 3599, 3599, 3599, 1),  # one that is missing in every hour
        (5, 24, 3600, 3600, 3600, 0),  # something dark or held down
    ],
)
def test_a_day_with_anything_amiss_is_read_by_the_minute(day: tuple[int, int, int, int, int, int]) -> None:
    assert days(day, (6, 24, 3600, 3600, 3600, 1)) == []


def test_a_day_whose_last_tick_may_be_missing_is_read_by_the_minute() -> None:
    """The tick at midnight tells of the minutes before it."""
    assert days((5, 24, 12, 12, 12, 1)) == []
    assert days((5, 24, 12, 12, 12, 1), (6, 24, 11, 12, 11, 1)) == []
    assert days((5, 24, 12, 12, 12, 1), (6, 24, 12, 12, 0, 0)) == []
