"""The time zone by which a site has its days: an IANA name, as in the tz database."""

from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DEFAULT_ZONE = "Europe/Oslo"


def zone_of(name: str) -> ZoneInfo:
    """The zone of that name; ValueError says what is wrong."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # OSError for "Europe", which is a folder
        raise ValueError(f"no time zone {name!r}; give an IANA name such as {DEFAULT_ZONE}") from error
