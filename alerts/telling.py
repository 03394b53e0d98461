"""An incident in words: labels that stay, and a sentence that says what, where, since when and what it costs. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlencode

from alerts.alert import Alert, Dashboard
from alerts.incident import NOBODY, Alarm, Incident
from alerts.tree import Tree

_SHOWN_CAUSES = 4
_BEFORE_MS = 15 * 60_000  # a dashboard opens a little before it began


@dataclass(frozen=True, slots=True)
class Links:
    """Where runbooks and dashboards are; both without a slash at the end."""

    runbooks: str = "https://kvandal.example/runbooks"
    dashboards: str = "https://grafana.example"

    def runbook(self, alert: Alert) -> str:
        return f"{self.runbooks}/{alert.name}.md"

    def dashboard(self, uid: Dashboard, variables: dict[str, str], *, from_ms: int) -> str:
        query = {"from": str(from_ms), "to": "now", **{f"var-{name}": value for name, value in variables.items()}}
        return f"{self.dashboards}/d/{uid}?{urlencode(query)}"


def tell(incident: Incident, tree: Tree, links: Links) -> Alarm:
    """The alarm of an incident. Its labels depend on what it is and where, not on how often it came."""
    labels = _labels(incident, tree)
    return Alarm(
        id="|".join(f"{name}={labels[name]}" for name in sorted(labels)),
        labels=labels,
        annotations=_annotations(incident, labels, links),
        starts_ms=incident.opened_ms,
    )


def sentence(incident: Incident, place: str) -> str:
    """What, where, since when, and what it costs."""
    since = datetime.fromtimestamp(incident.opened_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    rule = incident.rule
    parts = [f"{place}: {rule.what}{_causes(incident)}", f"{_size(incident)} since {since}"]
    return ", ".join(part for part in parts if part) + f": {rule.cost}."


def _labels(incident: Incident, tree: Tree) -> dict[str, str]:
    rule = incident.rule
    labels = {"alertname": rule.name, "severity": str(rule.severity), "owner": str(rule.owner), "home": "events"}
    if incident.resource == NOBODY:
        return labels | {"place": "the site"}
    place = tree.place(incident.resource)
    named = {"place": place.name, "node": place.node, "rack": place.rack, "cdu": place.cdu, "feeder": place.feeder}
    named["hall"] = place.hall
    labels |= {name: value for name, value in named.items() if value}
    labels["resource"] = f"{incident.resource:016x}"
    if rule.scope == "xid":
        # The next burst of the same node is another thing: it must be told although this one still stands.
        labels["burst"] = datetime.fromtimestamp(incident.opened_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return labels


def _annotations(incident: Incident, labels: dict[str, str], links: Links) -> dict[str, str]:
    rule = incident.rule
    variables = {name: labels[name] for name in rule.dashboard.variables if name in labels}
    return {
        "summary": sentence(incident, labels["place"]),
        "runbook_url": links.runbook(rule),
        "dashboard": links.dashboard(rule.dashboard, variables, from_ms=max(incident.opened_ms - _BEFORE_MS, 0)),
    }


def _causes(incident: Incident) -> str:
    most = sorted(incident.causes, key=lambda cause: (-incident.causes[cause], cause))
    if not most or most == [incident.rule.what]:
        return ""
    more = f" and {len(most) - _SHOWN_CAUSES} more" if len(most) > _SHOWN_CAUSES else ""
    return f" ({', '.join(most[:_SHOWN_CAUSES])}{more})"


def _size(incident: Incident) -> str:
    count, members = incident.count, len(incident.members)
    times = "1 event" if count == 1 else f"{count} events"
    where = "" if members <= 1 else f" on {members} devices"
    absorbed = f", {incident.absorbed} other incidents with it," if incident.absorbed else ""
    return f"{times}{where}{absorbed}"
