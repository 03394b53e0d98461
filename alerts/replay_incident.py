"""Incidents that are shipped to be replayed: what a site's devices said, and what people should have been told. Data.

One TOML file each in `alerts/replays/`. Times are seconds on the incident's own clock; `begins_s` is when the fault
began. Names with `*` and `[..]` stand for several resources of the site (`alerts/replay_site.py`).
"""

import tomllib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Annotated

import msgspec

from alerts.alert import Severity
from catalogue import ResourceKind
from stream.messages import InventoryMessage

FOLDER = Path(__file__).parent / "replays"

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=2048)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=7 * 86_400)]
Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class ReplayError(ValueError):
    """An incident cannot be replayed; the message says which and why."""


class Repeated(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Said `times` in all, `every_s` apart, by every resource whose name is like `of`."""

    of: Text
    at_s: Seconds
    times: Count = 1
    every_s: Seconds = 0.0

    def moments(self) -> Sequence[float]:
        return [self.at_s + number * self.every_s for number in range(self.times)]


class KernelLine(Repeated, frozen=True, kw_only=True):
    """What the driver writes about a GPU into its node's kernel log after `NVRM: Xid (PCI:...): `.

    `{n}` in it counts up to `variants` and starts again: so many entries differ.
    """

    line: Text
    variants: Count = 1


class BusValue(Repeated, frozen=True, kw_only=True):
    """What a point of the building bus says of a rack or CDU."""

    point: Text  # object and point type, as Rack/RackLeakDetect
    value: float


class Said(Repeated, frozen=True, kw_only=True):
    """An event as its collector tells it. With `clock_s` the teller's clock is ahead by so much."""

    kind: Text
    code: int = 0
    attributes: dict[str, str] = {}
    clock_s: float = 0.0


class Series(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A metric as Prometheus has it: one sample every 15 s in promtool's notation.

    With `of` there is one for each such resource, with the labels that Prometheus gives to it; `labels` come on top.
    """

    metric: Text
    values: Text
    of: str = ""
    labels: dict[str, str] = {}


class Expected(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An alert that is right, with these labels; without `within_s` it is right but nobody waits for it."""

    alert: Text
    severity: Severity = Severity.PAGE
    labels: dict[str, str] = {}
    within_s: Seconds | None = None


class ReplayIncident(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One incident. `after` says what it is modelled on."""

    title: Text
    after: Text
    lasts_s: Seconds
    begins_s: Seconds = 0.0
    racks: Annotated[int, msgspec.Meta(ge=2, le=40)] = 4
    most_pages: Annotated[int, msgspec.Meta(ge=0, le=10)] = 1
    most_tickets: Annotated[int, msgspec.Meta(ge=0, le=10)] = 1
    restarts_at_s: Seconds | None = None  # of the incidents process, by a kill
    kernel: tuple[KernelLine, ...] = ()
    bus: tuple[BusValue, ...] = ()
    bus_silent_from_s: Seconds | None = None  # its heart beats until then; always, where it only says values
    said: tuple[Said, ...] = ()
    series: tuple[Series, ...] = ()
    expect: tuple[Expected, ...] = ()
    name: str = ""  # of its file


def incident_names() -> list[str]:
    """Every incident that is shipped."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def load_incident(name: str) -> ReplayIncident:
    """A shipped incident; ReplayError for another name, and for a file that makes no sense."""
    if name not in incident_names():
        raise ReplayError(f"no incident {name}; `kvandal alerts replay list` names them")
    try:
        found = msgspec.convert(tomllib.loads((FOLDER / f"{name}.toml").read_text()), ReplayIncident)
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ReplayError(f"incident {name}: {error}") from error
    return msgspec.structs.replace(found, name=name)


class Cast:
    """The resources of a site by their names."""

    def __init__(self, inventory: Sequence[InventoryMessage]) -> None:
        self._all = tuple(inventory)
        self._like = cache(self._find)

    def like(self, pattern: str, *kinds: ResourceKind) -> Sequence[InventoryMessage]:
        """Those whose name is like the pattern, of some kinds or any. Raises ReplayError when there is none."""
        found = [one for one in self._like(pattern) if not kinds or one.kind in kinds]
        if not found:
            raise ReplayError(f"nothing of the site is called {pattern}; see alerts/replay_site.py")
        return found

    def _find(self, pattern: str) -> Sequence[InventoryMessage]:
        return [one for one in self._all if fnmatchcase(one.name, pattern)]
