"""What an alert is, whichever its home: a rule over metrics, or one over events."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """What an alert asks of people."""

    PAGE = "page"  # somebody acts now, at night too
    TICKET = "ticket"  # somebody looks into it on the next working day
    NOTICE = "notice"  # shown where people look anyway; wakes nobody
    HEARTBEAT = "heartbeat"  # always there: its absence is the alarm


class Owner(StrEnum):
    """Who is woken."""

    FLEET = "fleet"
    NETWORK = "network"
    COOLING = "cooling"
    POWER = "power"
    PLATFORM = "platform"


class Dashboard(StrEnum):
    """Where to look, as the uid that the dashboard has in Grafana."""

    SITE = "kvandal-site"
    POWER = "kvandal-power"
    COOLING = "kvandal-cooling"
    GPU = "kvandal-gpu"
    RACK = "kvandal-rack"
    RELIABILITY = "kvandal-reliability"
    SLA = "kvandal-customers"
    PIPELINE = "kvandal-pipeline"

    @property
    def variables(self) -> tuple[str, ...]:
        """What it can be narrowed to, by labels that alerts have under the same names."""
        return _VARIABLES.get(self, ())


_VARIABLES: Mapping[Dashboard, tuple[str, ...]] = {
    Dashboard.SITE: ("hall",), Dashboard.POWER: ("hall",), Dashboard.COOLING: ("hall",), Dashboard.SLA: ("customer",),
    Dashboard.GPU: ("hall", "rack", "node"), Dashboard.RACK: ("hall", "rack"), Dashboard.RELIABILITY: ("hall", "rack"),
}  # fmt: skip


class Absorbs(StrEnum):
    """Which causes swallow their consequences, from the weakest to the strongest."""

    NOTHING = "nothing"
    MASS = "mass"  # many at once, without a known cause
    RACK = "rack"
    CDU = "cdu"
    FEEDER = "feeder"
    LEAK = "leak"

    @property
    def rank(self) -> int:
        return list(Absorbs).index(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """What every alert says. `numbers` are its lines in the site's alert catalogue, where it has any.

    `cost` ends the annotation: what it costs while nobody acts.
    """

    name: str
    severity: Severity
    owner: Owner
    dashboard: Dashboard
    cost: str
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRule(Alert):
    """An alert over Prometheus metrics.

    `expression` is PromQL without its thresholds' reasons, `for_s` how long it must hold. `summary` is a Go template
    of what and where. `resolves_place` is for series of facility gateways, whose target is not the place: rack and
    CDU are then looked up in the inventory that the incidents process shows. `fires_on_absence` says that missing
    series are what it is about.
    """

    expression: str
    for_s: int
    summary: str
    resolves_place: bool = False
    fires_on_absence: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRule(Alert):
    """An alert over the topic of events.

    It is told `hold_s` after its first event, unless it was cancelled by then. It ends `calm_s` after everything that
    opened it was cancelled, or, for events without a counterpart, `quiet_s` after the last. `scope` groups rules that
    make one incident of one place: the strongest by `rank` names it. With `gathers` all places of the site make one.
    `least_members` resources must be concerned before it is told. With `of_incidents` it stands for incidents of
    another rule: it is told when the first of them would have been, and is over when all of them are.
    """

    what: str
    hold_s: float = 0.0
    calm_s: float = 60.0
    quiet_s: float | None = None
    scope: str = ""
    rank: int = 0
    gathers: bool = False
    of_incidents: bool = False
    least_members: int = 1
    absorbs: Absorbs = Absorbs.NOTHING
    absorbable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """An alert of the catalogue that we do not have, and why."""

    number: int
    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A series that rules share."""

    name: str
    expression: str
