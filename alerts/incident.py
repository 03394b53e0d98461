"""What is remembered of incidents: one by one, and what the Alertmanager was told of them. Kept across restarts."""

from enum import StrEnum

import msgspec

from alerts.alert import EventRule
from alerts.event_rules import BY_NAME

MOST_EVENTS = 1000  # of one incident told apart: a burst's event is told again while its count grows
MOST_MEMBERS = 10_000
NOBODY = 0  # the resource of an incident of the whole site


class Outcome(StrEnum):
    """What became of an incident."""

    OPENED = "opened"
    TOLD = "told"
    ABSORBED = "absorbed"
    CANCELLED = "cancelled"  # before it was told
    TOO_LATE = "too late"  # its events came when they were over
    CLOSED = "closed"


class Incident(msgspec.Struct, kw_only=True):
    """One cause, from its first event until it is over. Times are UTC milliseconds of the events.

    `standing` are the things that are not cancelled yet. `counts` are by event, so that an event that is told again
    with a larger count, or read twice, is not counted twice. `worst` are the members of which the
    incident's own rule speaks.
    """

    key: str
    rule_name: str
    resource: int
    opened_ms: int
    last_ms: int
    due_ms: int
    node: int = NOBODY
    standing: set[str] = msgspec.field(default_factory=set)
    cleared_ms: int | None = None
    counts: dict[str, int] = msgspec.field(default_factory=dict)
    folded: int = 0
    members: set[int] = msgspec.field(default_factory=set)
    worst: set[int] = msgspec.field(default_factory=set)
    causes: dict[str, int] = msgspec.field(default_factory=dict)
    absorbed_by: str = ""
    absorbed: int = 0
    alarm: str = ""

    @property
    def rule(self) -> EventRule:
        return BY_NAME[self.rule_name]

    @property
    def count(self) -> int:
        """How often it happened."""
        return self.folded + sum(self.counts.values())

    @property
    def is_told(self) -> bool:
        return bool(self.alarm)

    def note(self, event_id: str, count: int, resource: int, cause: str) -> bool:
        """Count an event; False when nothing about it is new."""
        before = self.counts.get(event_id, 0)
        if count <= before:
            return False
        if event_id not in self.counts and len(self.counts) >= MOST_EVENTS:
            self.folded += self.counts.pop(next(iter(self.counts)))
        self.counts[event_id] = count
        self.causes[cause] = self.causes.get(cause, 0) + count - before
        if len(self.members) < MOST_MEMBERS:
            self.members.add(resource)
        return True


class Alarm(msgspec.Struct, kw_only=True):
    """What the Alertmanager is told, and told again until it is over. One for each set of labels."""

    id: str
    labels: dict[str, str]
    annotations: dict[str, str]
    starts_ms: int
    ends_ms: int | None = None
    is_sent: bool = False


class Repeats(msgspec.Struct, kw_only=True):
    """When the bursts of one fatal error of one GPU began, and when the newest was last seen."""

    key: str
    firsts_ms: list[int] = msgspec.field(default_factory=list)
    last_ms: int = 0
