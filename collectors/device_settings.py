"""What the settings of sources that read many devices have in common: field types, and checks that name the device."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated, Protocol

import msgspec

from catalogue import ResourceKind

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Text = Annotated[str, msgspec.Meta(max_length=256)]
Place = Annotated[str, msgspec.Meta(pattern=r"^[a-z_]+:.{1,200}$")]  # kind:identity of a resource
Watts = Annotated[float, msgspec.Meta(gt=0, le=1e12)]


class _Device(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def identity(self) -> str: ...


def check_places(places: Iterable[Place]) -> None:
    """ValueError where a place is of no kind."""
    for place in places:
        if place.partition(":")[0] not in list(ResourceKind):
            raise ValueError(f"{place!r} is of no kind that exists; there are {', '.join(ResourceKind)}")


def check_devices(devices: Sequence[_Device]) -> None:
    """ValueError where two devices share a name, or an identity."""
    _refuse_twice("name", [device.name for device in devices])
    _refuse_twice("identity", [device.identity for device in devices if device.identity])


def check_deadline(deadline_s: float | None, interval_s: float) -> None:
    """ValueError where a device may take longer than there is."""
    if deadline_s is not None and deadline_s >= interval_s:
        raise ValueError(f"deadline_s is {deadline_s:g}; give less than interval_s, {interval_s}")


def _refuse_twice(what: str, given: Sequence[str]) -> None:
    twice = [one for one, times in Counter(given).items() if times > 1]
    if twice:
        raise ValueError(f"two devices have the {what} {twice[0]!r}; give each its own")
