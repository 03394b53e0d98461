"""The time zone by which a site has its days: an IANA name, as in the tz database."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

DEFAULT_ZONE = "Europe/Oslo"


def zone_of(name: str) -> "ZoneInfo":
    """The zone of that name; ValueError says what is wrong."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # here, as an agent has the name's default and no days

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # OSError for "Europe", which is a folder
        raise ValueError(f"no time zone {name!r}; give an IANA name such as {DEFAULT_ZONE}") from error
