"""Incidents from events: bursts, pairs that cancel, causes that absorb their consequences, storms. Pure.

Nothing here reads a clock, a network or a disk: `see` takes an event, `advance` the time, and `take_changes` gives what
has to be kept. That an event is seen twice changes nothing.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from alerts.alert import Absorbs, EventRule, Severity
from alerts.event_rules import (
    BURST_SILENCE_S,
    FALLEN_OFF_BUS,
    MASS,
    STORM,
    XID_FATAL,
    XID_REPEATED,
    Cancels,
    Opens,
    read_event,
)
from alerts.incident import NOBODY, Alarm, Incident, Outcome, Repeats
from alerts.telling import Links, tell
from alerts.tree import Tree
from catalogue import ResourceKind
from stream.messages import EventMessage

_XID_SCOPE = XID_FATAL.scope
_DAY_MS = 86_400_000
# The most specific first: a common cause is looked for from below.
_CAUSES = (
    ResourceKind.TRAY, ResourceKind.RACK, ResourceKind.CDU, ResourceKind.FEEDER, ResourceKind.ROW, ResourceKind.LOOP,
    ResourceKind.HALL, ResourceKind.SITE,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class IncidentRules:
    """When many are one."""

    before_s: float = 120.0  # a consequence may be told before its cause: buses are slower than drivers
    storm_s: float = 60.0
    mass_ratio: float = 0.01  # of the GPUs that the inventory knows
    least_mass: int = 8  # GPUs: on a small site one tray is more than 1 %
    storm_incidents: int = 20  # of one kind within storm_s
    common_ratio: float = 0.9  # of a storm that a common cause must cover
    repeats: int = 5  # of one fatal XID of one GPU in 24 h


@dataclass(frozen=True, slots=True)
class Changes:
    """What has to be kept since the last time; None for what is over."""

    incidents: dict[str, Incident | None]
    alarms: dict[str, Alarm | None]
    repeats: dict[str, Repeats | None]


@dataclass(slots=True)
class Memory:
    """What was kept."""

    incidents: dict[str, Incident] = field(default_factory=dict)
    alarms: dict[str, Alarm] = field(default_factory=dict)
    repeats: dict[str, Repeats] = field(default_factory=dict)


class Incidents:
    """The open incidents of a site and the alarms that tell of them."""

    def __init__(
        self, tree: Tree, links: Links, *, rules: IncidentRules | None = None, memory: Memory | None = None
    ) -> None:
        self._tree = tree
        self._links = links
        self._rules = rules or IncidentRules()
        self._memory = memory or Memory()
        self._changed: set[str] = set()
        self._changed_alarms: set[str] = set()
        self._changed_repeats: set[str] = set()
        self._of_node: defaultdict[int, list[str]] = defaultdict(list)
        self._outdated: set[str] = set()  # incidents whose alarm says less than is known
        self._is_dirty = True  # whether anything but the time has changed since the last look
        for incident in self._memory.incidents.values():
            if incident.node:
                self._of_node[incident.node].append(incident.key)
        self.outcomes: Counter[tuple[str, Outcome]] = Counter()

    @property
    def open(self) -> Sequence[Incident]:
        return list(self._memory.incidents.values())

    @property
    def alarms(self) -> Sequence[Alarm]:
        """Those that stand, and those that are over and not sent yet."""
        return list(self._memory.alarms.values())

    def see(self, event: EventMessage, now_ms: int) -> None:
        """Take note of one event."""
        for signal in read_event(event):
            if isinstance(signal, Opens):
                self._open(signal, event, now_ms)
            else:
                self._cancel(signal, event, now_ms)

    def advance(self, now_ms: int) -> None:
        """Close what is over, find causes and storms, and tell what is due."""
        for incident in self.open:
            self._close_if_over(incident, now_ms)
        if self._is_dirty:
            self._is_dirty = False
            self._absorb()
            self._find_mass()
            self._find_storms()
        for incident in self.open:
            if self._is_due(incident, now_ms):
                self._tell(incident)
        for key in self._outdated & self._memory.incidents.keys():
            self._refresh(self._memory.incidents[key])
        self._outdated = set()

    def sent(self, alarms: Iterable[Alarm]) -> None:
        """Every Alertmanager has taken these, as they stood; what is over is forgotten."""
        for told in alarms:
            alarm = self._memory.alarms.get(told.id)
            if alarm is None or (alarm.starts_ms, alarm.ends_ms) != (told.starts_ms, told.ends_ms):
                continue
            if alarm.ends_ms is not None:
                del self._memory.alarms[alarm.id]
                self._changed_alarms.add(alarm.id)
            elif not alarm.is_sent:
                alarm.is_sent = True
                self._changed_alarms.add(alarm.id)

    def take_changes(self) -> Changes:
        memory = self._memory
        changes = Changes(
            {key: memory.incidents.get(key) for key in self._changed},
            {key: memory.alarms.get(key) for key in self._changed_alarms},
            {key: memory.repeats.get(key) for key in self._changed_repeats},
        )
        self._changed, self._changed_alarms, self._changed_repeats = set(), set(), set()
        return changes

    # Events

    def _open(self, signal: Opens, event: EventMessage, now_ms: int) -> None:
        resource = self._tree.resolve(event.resource)
        time_ms = min(event.time_ms, now_ms)
        incident = self._find(signal.rule, resource, time_ms)
        if incident is None:
            incident = self._begin(signal.rule, resource, time_ms)
        if not incident.note(event.id, event.count, resource, signal.what):
            return
        incident.last_ms = max(incident.last_ms, min(_last_time_ms(event), now_ms))
        if not incident.standing:
            incident.due_ms = max(incident.due_ms, time_ms + _ms(incident.rule.hold_s))
        incident.standing.add(f"{resource:016x}/{signal.subject}")
        incident.cleared_ms = None
        self._escalate(incident, signal.rule, time_ms)
        if signal.rule.rank == incident.rule.rank:
            incident.worst.add(resource)
        self._outdated.add(incident.key)
        self._pass_on(incident)
        self._touch(incident)
        if signal.rule in (FALLEN_OFF_BUS, XID_FATAL):
            self._count_repeats(event, resource, signal.what, now_ms)

    def _find(self, rule: EventRule, resource: int, time_ms: int) -> Incident | None:
        if not rule.scope:
            return self._memory.incidents.get(f"{rule.name}:{resource:016x}")
        node = self._node(resource)
        found = [i for key in self._of_node[node] if (i := self._memory.incidents[key]).rule.scope == rule.scope]
        if rule.scope != _XID_SCOPE:
            return found[-1] if found else None
        for incident in reversed(found):
            if (
                abs(time_ms - incident.last_ms) <= _ms(BURST_SILENCE_S)
                or incident.opened_ms <= time_ms <= incident.last_ms
            ):
                return incident
        # A GPU whose incident is still open says nothing new, unless it says something worse.
        return next((i for i in reversed(found) if resource in i.members and i.rule.rank >= rule.rank), None)

    def _begin(self, rule: EventRule, resource: int, time_ms: int) -> Incident:
        node = self._node(resource) if rule.scope else NOBODY
        key = f"{rule.scope}:{node:016x}:{time_ms}" if rule.scope else f"{rule.name}:{resource:016x}"
        while key in self._memory.incidents:  # two bursts of a node with one first time
            key += "+"
        incident = Incident(
            key=key, rule_name=rule.name, resource=node or resource, node=node, opened_ms=time_ms, last_ms=time_ms,
            due_ms=time_ms + _ms(rule.hold_s),
        )  # fmt: skip
        self._memory.incidents[key] = incident
        if node:
            self._of_node[node].append(key)
        self._count(incident, Outcome.OPENED)
        return incident

    def _node(self, resource: int) -> int:
        return self._tree.nearest(resource, ResourceKind.TRAY) or resource

    def _escalate(self, incident: Incident, rule: EventRule, time_ms: int) -> None:
        """A burst is what its worst event is."""
        if rule.rank <= incident.rule.rank:
            return
        self._end_alarm(incident, incident.last_ms)
        self._leave_gathering(incident)
        incident.rule_name, incident.worst = rule.name, set()
        incident.due_ms = time_ms + _ms(rule.hold_s)

    def _cancel(self, signal: Cancels, event: EventMessage, now_ms: int) -> None:
        resource = self._tree.resolve(event.resource)
        time_ms = min(event.time_ms, now_ms)
        for rule in signal.rules:
            for incident in self._cancellable(rule, resource):
                subject = f"{resource:016x}/{signal.subject}"
                # What happened after it is not taken back: events of two sources may overtake each other.
                if subject in incident.standing and incident.opened_ms <= time_ms:
                    incident.standing.discard(subject)
                    incident.cleared_ms = None if incident.standing else max(time_ms, incident.opened_ms)
                    self._touch(incident)

    def _cancellable(self, rule: EventRule, resource: int) -> list[Incident]:
        if rule.scope:
            keys = self._of_node[self._node(resource)]
            return [i for key in keys if (i := self._memory.incidents[key]).rule_name == rule.name]
        incident = self._memory.incidents.get(f"{rule.name}:{resource:016x}")
        return [incident] if incident else []

    def _count_repeats(self, event: EventMessage, resource: int, what: str, now_ms: int) -> None:
        key = f"{resource:016x}/{event.code}"
        repeats = self._memory.repeats.setdefault(key, Repeats(key=key))
        if event.time_ms - repeats.last_ms > _ms(BURST_SILENCE_S):
            repeats.firsts_ms = [ms for ms in repeats.firsts_ms if now_ms - ms <= _DAY_MS] + [event.time_ms]
        repeats.last_ms = max(repeats.last_ms, _last_time_ms(event))
        self._changed_repeats.add(key)
        if len(repeats.firsts_ms) >= self._rules.repeats:
            self._open(Opens(XID_REPEATED, what), event, now_ms)

    # Time

    def _close_if_over(self, incident: Incident, now_ms: int) -> None:
        rule = incident.rule
        if not incident.standing and incident.cleared_ms is not None:
            if now_ms >= incident.cleared_ms + _ms(rule.calm_s):
                self._close(incident, incident.cleared_ms, Outcome.CLOSED if incident.is_told else Outcome.CANCELLED)
        elif rule.quiet_s is not None and now_ms >= incident.last_ms + _ms(rule.quiet_s):
            over_ms = incident.last_ms + _ms(rule.quiet_s)
            told = incident.is_told or bool(incident.absorbed_by)
            late = Outcome.CANCELLED if _has_too_few(incident) else Outcome.TOO_LATE
            self._close(incident, over_ms, Outcome.CLOSED if told else late)

    def _close(self, incident: Incident, over_ms: int, outcome: Outcome) -> None:
        if incident.key not in self._memory.incidents:
            return
        self._end_alarm(incident, over_ms)
        self._leave_gathering(incident)
        del self._memory.incidents[incident.key]
        if incident.node:
            self._of_node[incident.node].remove(incident.key)
            if not self._of_node[incident.node]:
                del self._of_node[incident.node]
        self._touch(incident)
        self._count(incident, outcome)
        if incident.absorbed:
            for other in self.open:
                if other.absorbed_by == incident.key:
                    self._close(other, over_ms, Outcome.CLOSED)

    def _is_due(self, incident: Incident, now_ms: int) -> bool:
        if incident.is_told or incident.absorbed_by or not self._is_standing(incident):
            return False
        return now_ms >= incident.due_ms and not _has_too_few(incident)

    def _is_standing(self, incident: Incident) -> bool:
        """Whether anything of it is not cancelled; of a storm, of any of its members."""
        if not incident.rule.of_incidents:
            return bool(incident.standing)
        members = filter(None, map(self._memory.incidents.get, incident.standing))
        return any(member.standing for member in members)

    def _tell(self, incident: Incident) -> None:
        if incident.rule.gathers and incident.resource != NOBODY:
            self._gather(incident)
            return
        alarm = tell(incident, self._tree, self._links)
        self._memory.alarms[alarm.id] = alarm
        incident.alarm = alarm.id
        self._changed_alarms.add(alarm.id)
        self._touch(incident)
        self._count(incident, Outcome.TOLD)

    def _refresh(self, incident: Incident) -> None:
        """Counts in the text follow; labels stay as they were told, or it would be another alarm."""
        alarm = self._memory.alarms.get(incident.alarm)
        if alarm is not None:
            alarm.annotations = tell(incident, self._tree, self._links).annotations
            self._changed_alarms.add(alarm.id)

    def _end_alarm(self, incident: Incident, over_ms: int) -> None:
        alarm = self._memory.alarms.get(incident.alarm)
        if alarm is not None:
            alarm.ends_ms, alarm.is_sent = max(over_ms, alarm.starts_ms + 1), False
            self._changed_alarms.add(alarm.id)
        incident.alarm = ""

    # One for many

    def _gather(self, incident: Incident) -> None:
        """All places of the site make one incident."""
        whole = self._whole(incident.rule, f"{incident.rule_name}:site", NOBODY, incident)
        self._join(incident, whole)
        if not whole.is_told:
            self._tell(whole)

    def _leave_gathering(self, incident: Incident) -> None:
        whole = self._memory.incidents.get(incident.absorbed_by)
        if whole is not None and _stands_by_members(whole.rule):
            whole.standing.discard(incident.key)
            if not whole.standing:
                whole.cleared_ms = incident.last_ms
            self._touch(whole)
            incident.absorbed_by = ""

    def _absorb(self) -> None:
        causes = {incident.resource: incident for incident in self._by_rank() if not incident.absorbed_by}
        if not causes:
            return
        for incident in self.open:
            if not incident.rule.absorbable or incident.absorbed_by or incident.resource == NOBODY:
                continue
            for above in (incident.resource, *self._tree.ancestors(incident.resource)):
                cause = causes.get(above)
                if cause is not None and self._explains(cause, incident):
                    self._join(incident, cause)
                    break

    def _pass_on(self, incident: Incident) -> None:
        """What is told for another counts what the other counts."""
        whole = self._memory.incidents.get(incident.absorbed_by)
        if whole is not None and incident.key in whole.counts:
            whole.counts[incident.key] = incident.count
            whole.members |= incident.members
            whole.last_ms = max(whole.last_ms, incident.last_ms) if whole.rule.gathers else whole.last_ms
            self._outdated.add(whole.key)
            self._touch(whole)

    def _by_rank(self) -> list[Incident]:
        absorbing = [i for i in self.open if i.rule.absorbs is not Absorbs.NOTHING]
        return sorted(absorbing, key=lambda i: i.rule.absorbs.rank)  # of one resource the strongest stays in the map

    def _explains(self, cause: Incident, incident: Incident) -> bool:
        if cause is incident or cause.absorbed_by or cause.rule.absorbs.rank <= incident.rule.absorbs.rank:
            return False
        if incident.opened_ms < cause.opened_ms - _ms(self._rules.before_s):
            return False
        # A storm explains what comes with it; what comes later at the same place may be another thing.
        is_storm = cause.rule.absorbs is Absorbs.MASS
        return not is_storm or incident.opened_ms <= cause.last_ms + _ms(self._rules.storm_s)

    def _join(self, incident: Incident, cause: Incident) -> None:
        """`incident` is told by `cause` from now on."""
        self._end_alarm(incident, incident.last_ms)
        incident.absorbed_by = cause.key
        cause.absorbed += 1
        cause.members |= incident.members
        if cause.rule.gathers or cause.rule.absorbs is Absorbs.MASS:
            cause.counts[incident.key] = incident.count
        if _stands_by_members(cause.rule):
            cause.standing.add(incident.key)
            cause.cleared_ms = None
        if cause.rule.gathers:
            cause.last_ms = max(cause.last_ms, incident.last_ms)
        for what, count in incident.causes.items():
            cause.causes[what] = cause.causes.get(what, 0) + count
        self._outdated.add(cause.key)
        self._touch(incident)
        self._touch(cause)
        self._count(incident, Outcome.ABSORBED)

    def _find_mass(self) -> None:
        """More than a share of the GPUs within a minute is one incident of their nearest common cause."""
        pages = [i for i in self._recent() if i.rule.scope == _XID_SCOPE and i.rule.severity is Severity.PAGE]
        gpus = {member for incident in pages for member in incident.members}
        least = max(self._rules.least_mass, math.floor(self._rules.mass_ratio * self._tree.gpu_count) + 1)
        if len(gpus) >= least:
            self._make_storm(MASS, pages)

    def _find_storms(self) -> None:
        by_rule: defaultdict[str, list[Incident]] = defaultdict(list)
        for incident in self._recent():
            if incident.rule.severity is not Severity.PAGE and not incident.rule.gathers:
                by_rule[incident.rule_name].append(incident)
        for incidents in by_rule.values():
            if len(incidents) >= self._rules.storm_incidents:
                self._make_storm(STORM, incidents)

    def _recent(self) -> list[Incident]:
        """Incidents that stand by themselves and were opened within a minute of the newest of them."""
        alone = [
            i for i in self.open if not i.absorbed_by and i.rule.absorbs is Absorbs.NOTHING and i.resource != NOBODY
        ]
        newest_ms = max((incident.opened_ms for incident in alone), default=0)
        return [i for i in alone if newest_ms - i.opened_ms <= _ms(self._rules.storm_s)]

    def _make_storm(self, rule: EventRule, incidents: Sequence[Incident]) -> None:
        place = self._common_place(incidents)
        kind = "" if rule is MASS else f"{incidents[0].rule_name}:"
        whole = self._whole(rule, f"{rule.name}:{kind}{place:016x}", place, incidents[0])
        whole.opened_ms = min(whole.opened_ms, *(incident.opened_ms for incident in incidents))
        if rule.of_incidents and not whole.is_told:  # what none of them is told of yet, may still be cancelled
            whole.due_ms = min(incident.due_ms for incident in incidents)
        whole.last_ms = max(whole.last_ms, *(incident.opened_ms for incident in incidents))
        for incident in incidents:
            self._join(incident, whole)

    def _common_place(self, incidents: Sequence[Incident]) -> int:
        covered: Counter[int] = Counter()
        for incident in incidents:
            covered.update({incident.resource, *self._tree.ancestors(incident.resource)})
        least = self._rules.common_ratio * len(incidents)
        found = [resource for resource, count in covered.items() if count >= least]
        return min(found, key=lambda r: (self._specificity(r), r), default=NOBODY)

    def _specificity(self, resource: int) -> int:
        kind = self._tree.kind(resource)
        return _CAUSES.index(kind) if kind in _CAUSES else len(_CAUSES)

    def _whole(self, rule: EventRule, key: str, resource: int, first: Incident) -> Incident:
        known = self._memory.incidents.get(key)
        if known is not None:
            return known
        whole = Incident(
            key=key, rule_name=rule.name, resource=resource, opened_ms=first.opened_ms, last_ms=first.last_ms,
            due_ms=first.opened_ms, standing=set() if _stands_by_members(rule) else {key},
        )  # fmt: skip
        self._memory.incidents[key] = whole
        self._count(whole, Outcome.OPENED)
        return whole

    def _touch(self, incident: Incident) -> None:
        self._changed.add(incident.key)
        self._is_dirty = True

    def _count(self, incident: Incident, outcome: Outcome) -> None:
        self.outcomes[incident.rule_name, outcome] += 1


def _stands_by_members(rule: EventRule) -> bool:
    """Whether an incident of many is over when all of them are. A mass event is not: GPUs that reset had a cause."""
    return rule.gathers or rule.of_incidents


def _has_too_few(incident: Incident) -> bool:
    least = incident.rule.least_members
    return least > 1 and len(incident.worst) < least


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _last_time_ms(event: EventMessage) -> int:
    """When a burst that is one event was last seen."""
    told = event.attributes.get("last_time_ms", "")
    return max(event.time_ms, int(told)) if told.isascii() and told.isdecimal() and len(told) <= 13 else event.time_ms
