"""One cell of a register's CSV: its text becomes a value of the row's JSON document."""

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from types import MappingProxyType

from storage.register_kinds import CellKind, Column

Cell = str | float | int | bool

# What the store can hold as a time, and more than any evidence is from.
FIRST_YEAR, LAST_YEAR = 1970, 2200
LONGEST_TEXT = 1_000
_MOST_WHOLE = 2**63 - 1  # Int64 of the frames

_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?(Z|[+-]\d{2}:?\d{2})?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class CellError(ValueError):
    """A cell is not written as its column asks; the text goes on after the column's name."""


def parse_cell(column: Column, text: str) -> Cell:
    """The value of a cell that is not empty. Numbers as float or int, days and times as ISO 8601, times in UTC."""
    return _PARSERS[column.kind](text)


def iso_moment(moment: datetime) -> str:
    """A time as documents have it: UTC, with milliseconds, so that equal times are equal texts."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def parse_moment(text: str) -> datetime:
    """A time with a zone, in UTC. CellError says what is missing."""
    match = _MOMENT.fullmatch(text)
    if match is None:
        raise CellError(f"is {text!r}, which is no time; write it as 2026-10-25T02:00+01:00 or 2026-10-25T01:00Z")
    if match[1] is None:
        raise CellError(
            f"is {text!r}, which has no time zone and may mean two hours when clocks change; "
            "write the offset too, as 2026-10-25T02:00+01:00, or Z for UTC"
        )
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise CellError(f"is {text!r}, which is not in the calendar: {error}") from error
    if moment.microsecond % 1000:
        raise CellError(f"is {text!r}; give at most milliseconds")
    _check_year(text, moment.year)
    return moment


def parse_day(text: str) -> date:
    """A day of the calendar. CellError says what is wrong."""
    if not _DAY.fullmatch(text):
        raise CellError(f"is {text!r}, which is no date; write it as 2026-10-25")
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise CellError(f"is {text!r}, which is not in the calendar: {error}") from error
    _check_year(text, day.year)
    return day


def _check_year(text: str, year: int) -> None:
    if not FIRST_YEAR <= year <= LAST_YEAR:
        raise CellError(f"is {text!r}; give a year from {FIRST_YEAR} to {LAST_YEAR}")


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise CellError(_no_number(text))
    value = float(text)
    if not math.isfinite(value):
        raise CellError(f"is {text!r}, which is larger than any number that can be stored")
    return value + 0.0  # -0.0 and 0.0 are one number


def _whole(text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise CellError(_no_number(text) if not _NUMBER.fullmatch(text) else f"is {text!r}; give a whole number")
    # Python refuses to read thousands of digits; nobody needs twenty.
    if len(text) > len(str(_MOST_WHOLE)) + 1 or abs(int(text)) > _MOST_WHOLE:
        raise CellError(f"is {text!r}, which is larger than any number that can be stored")
    return int(text)


def _no_number(text: str) -> str:
    if "," in text:
        return (
            f"is {text!r}, which has a comma; write numbers with a decimal point and "
            "without separators of thousands, as 1234.5"
        )
    return f"is {text!r}, which is no number; write it as 1234.5, without a unit"


def _claim(text: str) -> bool:
    if text not in ("yes", "no"):
        raise CellError(f"is {text!r}; give yes or no")
    return text == "yes"


def _plain(text: str) -> str:
    if _CONTROL.search(text):
        raise CellError("has a line break or another control character; remove it")
    if len(text) > LONGEST_TEXT:
        raise CellError(f"has {len(text)} characters; give at most {LONGEST_TEXT}")
    return text


_PARSERS: Mapping[CellKind, Callable[[str], Cell]] = MappingProxyType(
    {
        CellKind.TEXT: _plain,
        CellKind.WORD: _plain,
        CellKind.NUMBER: _number,
        CellKind.WHOLE: _whole,
        CellKind.DAY: lambda text: parse_day(text).isoformat(),
        CellKind.MOMENT: lambda text: iso_moment(parse_moment(text)),
        CellKind.CLAIM: _claim,
    }
)
