"""Report periods: a calendar day, month or year of the site's time zone, as UTC bounds."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

import polars as pl

from catalogue.zone import DEFAULT_ZONE, zone_of

# Settlement, and every time zone's offset, go by quarter hours.
QUARTER = timedelta(minutes=15)
QUARTER_S = QUARTER.total_seconds()

_TEXT = re.compile(r"([0-9]{4})(?:-([0-9]{2}))?(?:-([0-9]{2}))?")


class Span(StrEnum):
    """How long a period is."""

    DAY = "day"
    MONTH = "month"
    YEAR = "year"


# By what a period is drawn: the span's name for people, and Polars' name of it.
_PARTS = {Span.DAY: ("hour", "1h"), Span.MONTH: ("day", "1d"), Span.YEAR: ("month", "1mo")}


@dataclass(frozen=True, slots=True)
class Period:
    """A calendar period: `start` inclusive and `end` exclusive, aware and in UTC."""

    text: str
    span: Span
    zone: str
    start: datetime
    end: datetime

    @classmethod
    def parse(cls, text: str, zone: str = DEFAULT_ZONE) -> "Period":
        """The period written as 2026, 2026-10 or 2026-10-05 in an IANA time zone; ValueError says what is wrong."""
        place, (first, last, span) = zone_of(zone), _days(text)
        try:
            return cls(text, span, zone, _midnight(first, place), _midnight(last, place))
        except OverflowError as error:
            raise ValueError(f"period is {text!r}, which begins or ends outside of the calendar in {zone}") from error

    @classmethod
    def last_month(cls, now: datetime, zone: str = DEFAULT_ZONE) -> "Period":
        """The calendar month before the one in which `now`, which is aware, falls in that zone."""
        first = now.astimezone(zone_of(zone)).date().replace(day=1)
        return cls.parse(f"{first - timedelta(days=1):%Y-%m}", zone)

    @property
    def seconds(self) -> float:
        """Elapsed seconds: a day with a change of the clocks has 23 or 25 hours."""
        return (self.end - self.start).total_seconds()

    @property
    def part_name(self) -> str:
        return _PARTS[self.span][0]

    def part(self, time_column: pl.Expr) -> pl.Expr:
        """The local hour, day or month in which a UTC time falls."""
        return time_column.dt.convert_time_zone(self.zone).dt.truncate(_PARTS[self.span][1])

    def edges(self) -> pl.LazyFrame:
        """`time`: both ends of every quarter hour, in order."""
        # Polars takes the zone from the bounds, whose own must then be named UTC.
        edges = pl.datetime_range(_plain(self.start), _plain(self.end), QUARTER, time_unit="ms", eager=True)
        return edges.dt.replace_time_zone("UTC").alias("time").to_frame().lazy()

    def local(self, moment: datetime) -> datetime:
        return moment.astimezone(ZoneInfo(self.zone))


def _days(text: str) -> tuple[date, date, Span]:
    """First day, day after the last, span."""
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ValueError(f"period is {text!r}; give a year 2026, a month 2026-10 or a day 2026-10-05")
    year, month, day = match.groups()
    try:
        first = date(int(year), int(month or "1"), int(day or "1"))
        if day:
            return first, first + timedelta(days=1), Span.DAY
        if month:
            return first, date(first.year + first.month // 12, first.month % 12 + 1, 1), Span.MONTH
        return first, date(first.year + 1, 1, 1), Span.YEAR
    except (ValueError, OverflowError) as error:
        raise ValueError(f"period is {text!r}, which is not in the calendar: {error}") from error


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _plain(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)
