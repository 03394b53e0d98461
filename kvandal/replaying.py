"""Replays a shipped incident: devices to collectors to incidents, series to Prometheus' rules, both to Alertmanager."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from alerts.alert import Severity
from alerts.incident import Alarm
from alerts.incidents import Incidents
from alerts.memory import MemoryFile
from alerts.metric_rules import metric_rules
from alerts.replay_incident import Cast, ReplayIncident
from alerts.replay_rules import read_raised, rule_test
from alerts.replay_score import Delivered, Raised, Score, score
from alerts.replay_site import START_MS, ReplaySite
from alerts.routing import Routing
from alerts.rulefile import render_rules
from alerts.telling import Links
from alerts.thresholds import Thresholds
from alerts.tree import Tree
from kvandal.replay_inputs import Inputs, ReplayClock
from kvandal.replay_servers import Judge, ask_promtool, running_judge
from stream.messages import EventMessage

_TICK_S = 1  # agents read their logs, and incidents look at the time, once a second
# Nobody is told by the Alertmanager that judges: who would be, and in which group, is what it is asked.
_ROUTING = Routing(mail_to="", webhook_url="", pagerduty_keys="")
_TOLD = (Severity.PAGE, Severity.TICKET)


def replay(incident: ReplayIncident) -> Score:
    """Replay it and hold what would have been told against what it expects.

    Raises ReplayError for an incident that makes no sense, ServerMissingError where promtool or the Alertmanager is
    not on this machine, ServerFailedError when one of them does not do its work.
    """
    site = ReplaySite(incident.racks)
    cast, tree = Cast(list(site.inventory())), site.tree()
    with TemporaryDirectory(prefix="kvandal-replay-") as made:
        folder = Path(made)
        raised = [*_by_events(incident, cast, tree, folder), *_by_rules(incident, cast, tree, folder)]
        with running_judge(folder / "alertmanager", _ROUTING) as judge:
            return score(incident, list(_deliver(raised, judge)))


def _by_events(incident: ReplayIncident, cast: Cast, tree: Tree, folder: Path) -> list[Raised]:
    """What the incidents process tells the Alertmanager. A restart is a kill between two looks at the broker."""
    clock = ReplayClock()
    inputs = Inputs(incident, cast, clock)
    watch = _Watch(tree, folder / "incidents.db")
    for at_s in range(0, int(incident.lasts_s) + 1, _TICK_S):
        watch.look(inputs.take(at_s), clock.utc_ms())
        if incident.restarts_at_s is not None and at_s == int(incident.restarts_at_s):
            watch.restart()
    watch.close()
    return watch.raised()


class _Watch:
    """The incidents process without its broker: what it reads, keeps and tells, in the order in which it does."""

    def __init__(self, tree: Tree, state: Path) -> None:
        self._tree = tree
        self._state = state
        self._told: dict[tuple[str, int], tuple[Alarm, float]] = {}  # by id and beginning: when it was told
        self._ended: dict[tuple[str, int], float] = {}
        self._last: list[EventMessage] = []
        self._open()

    def look(self, events: Sequence[EventMessage], now_ms: int) -> None:
        """One turn: read, judge, keep, tell."""
        for event in events:
            self._incidents.see(event, now_ms)
        self._incidents.advance(now_ms)
        self._file.save(self._incidents.take_changes(), {})
        self._tell((now_ms - START_MS) / 1000)
        self._last = list(events)

    def restart(self) -> None:
        """Killed after it had told and before it noted that: the next one reads the last events again."""
        self._file.close()
        self._open()
        for event in self._last:
            self._incidents.see(event, event.time_ms)

    def raised(self) -> list[Raised]:
        return [Raised(alarm.labels, told_s, self._ended.get(key)) for key, (alarm, told_s) in self._told.items()]

    def close(self) -> None:
        self._file.close()

    def _open(self) -> None:
        self._file = MemoryFile(self._state)
        memory, _ = self._file.load()
        self._incidents = Incidents(self._tree, Links(), memory=memory)

    def _tell(self, now_s: float) -> None:
        for alarm in self._incidents.alarms:
            key = alarm.id, alarm.starts_ms
            if alarm.ends_ms is None:
                self._told.setdefault(key, (alarm, now_s))
            elif key in self._told:
                self._ended.setdefault(key, now_s)
        self._incidents.sent(self._incidents.alarms)


def _by_rules(incident: ReplayIncident, cast: Cast, tree: Tree, folder: Path) -> list[Raised]:
    """What Prometheus tells the Alertmanager of the incident's series; nothing where it has none."""
    if not incident.series:
        return []
    rule_files = []
    for group in metric_rules(Thresholds()):
        rule_files.append(folder / f"{group}.yml")
        rule_files[-1].write_text(render_rules(group, Thresholds(), Links()))
    test_file = folder / "test.yml"
    test_file.write_text(rule_test(incident, cast, tree, rule_files))
    return read_raised(ask_promtool(test_file), incident.lasts_s)


def _deliver(raised: Sequence[Raised], judge: Judge) -> Iterator[Delivered]:
    """What leaves: an alert that still stands when its group is told, and that no other alert holds back then."""
    told = [one for one in raised if one.severity in _TOLD and one.stands(one.leaves_s(_ROUTING))]
    for moment_s in sorted({one.leaves_s(_ROUTING) for one in told}):
        leaving = {_key(one.labels): one for one in told if one.leaves_s(_ROUTING) == moment_s}
        for judged in judge.judge([one for one in raised if one.stands(moment_s)]):
            one = leaving.get(_key(judged.labels))
            if one is not None and not judged.is_held:
                yield Delivered(one, moment_s, judged.group)


def _key(labels: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset(labels.items())
