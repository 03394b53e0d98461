"""Report periods: calendar bounds in the site's zone, with the hours that the clocks add and take."""

from datetime import UTC, datetime

import pytest

from reports.period import Period


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        # Directive 2000/84/EC: summer time from the last Sunday in March to the last Sunday in October.
        ("2026-10", 745),
        ("2026-03", 743),
        ("2026-10-25", 25),
        ("2026-03-29", 23),
        ("2026-02", 672),
        ("2028-02", 696),
        ("2026", 8760),
    ],
)
def test_period_has_the_hours_of_the_calendar(text: str, hours: int) -> None:
    period = Period.parse(text)
    assert period.seconds == hours * 3600
    assert period.edges().collect().height == hours * 4 + 1


def test_bounds_are_local_midnights_in_utc() -> None:
    period = Period.parse("2026-10")
    assert period.start == datetime(2026, 9, 30, 22, tzinfo=UTC)
    assert period.end == datetime(2026, 10, 31, 23, tzinfo=UTC)


def test_months_of_a_year_follow_one_another_without_gap() -> None:
    months = [Period.parse(f"2026-{month:02}") for month in range(1, 13)]
    year = Period.parse("2026")
    assert [month.start for month in months[1:]] == [month.end for month in months[:-1]]
    assert (months[0].start, months[-1].end) == (year.start, year.end)


def test_zone_without_summer_time_has_744_hours_in_october() -> None:
    assert Period.parse("2026-10", "UTC").seconds == 744 * 3600


@pytest.mark.parametrize(
    "text",
    ["", "2026-13", "2026-00", "2026-02-30", "October", "26-10", "2026-10-05T00:00", "0001-01-01", "\u0662026"],
)
def test_text_that_is_no_period_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="period is"):
        Period.parse(text)


@pytest.mark.parametrize("zone", ["Europe/Kvandal", "../etc/passwd", "", "Europe"])
def test_unknown_zone_is_refused_by_name(zone: str) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        Period.parse("2026-10", zone)
