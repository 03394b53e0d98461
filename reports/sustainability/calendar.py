"""Days of the site: what share of a line that is about some days falls into a period. Days are local dates."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from reports.period import Period


@dataclass(frozen=True, slots=True)
class Days:
    """From the first day to the last, itself included."""

    first: date
    last: date

    @property
    def count(self) -> int:
        return max(0, (self.last - self.first).days + 1)

    def shared(self, other: "Days") -> int:
        """How many days are in both."""
        return Days(max(self.first, other.first), min(self.last, other.last)).count

    def each(self) -> Iterator[date]:
        return (self.first + timedelta(days=place) for place in range(self.count))


def days_of(period: Period) -> Days:
    return Days(period.local(period.start).date(), (period.local(period.end) - timedelta(hours=1)).date())


def months_before(end: datetime, months: int, zone: str) -> datetime:
    """The local midnight so many months before a month's end."""
    local = end.astimezone(ZoneInfo(zone))
    at = local.year * 12 + local.month - 1 - months
    return datetime(at // 12, at % 12 + 1, 1, tzinfo=ZoneInfo(zone)).astimezone(UTC)
