"""Metric rules as Prometheus rule files."""

from collections.abc import Iterable
from urllib.parse import quote

import yaml

from alerts.alert import MetricRule, Recording
from alerts.metric_rules import metric_rules, missing_readings, recordings
from alerts.routing import LAST_HOUR, MARK
from alerts.rules_facility import looked_up, looked_up_variable
from alerts.telling import Links
from alerts.thresholds import Thresholds

INTERVAL_S = 15  # between two evaluations, and two scrapes
_PLACE_LABELS = ("place", "rack", "cdu", "feeder", "hall")


def render_rules(group: str, thresholds: Thresholds, links: Links, *, waiting: bool = False) -> str:
    """The rule file of a group. With `waiting` also the rules whose readings no agent shows yet."""
    shared = recordings(thresholds).get(group, ())
    rules = [rule for rule in metric_rules(thresholds)[group] if waiting or not missing_readings(rule)]
    # In one group, so that the shared series are of the same instant as the rules that read them.
    group_of_all = _group(f"kvandal-{group}", [*map(_recording, shared), *(_rule(rule, links) for rule in rules)])
    return MARK + yaml.safe_dump({"groups": [group_of_all]}, sort_keys=False, width=120, allow_unicode=True)


def annotations(rule: MetricRule, links: Links) -> dict[str, str]:
    """What an alert says, as templates that Prometheus fills in."""
    return {
        "summary": f"{rule.summary}{_for(rule.for_s)}: {rule.cost}.",
        "runbook_url": links.runbook(rule),
        "dashboard": _dashboard(rule, links),
    }


def _group(name: str, rules: Iterable[dict[str, object]]) -> dict[str, object]:
    return {"name": name, "interval": f"{INTERVAL_S}s", "rules": list(rules)}


def _recording(recording: Recording) -> dict[str, object]:
    return {"record": recording.name, "expr": recording.expression}


def _rule(rule: MetricRule, links: Links) -> dict[str, object]:
    labels = {"severity": str(rule.severity), "owner": str(rule.owner), "home": "metrics"}
    if rule.resolves_place:
        labels |= {name: looked_up("name" if name == "place" else name) for name in _PLACE_LABELS}
    written: dict[str, object] = {"alert": rule.name, "expr": rule.expression}
    if rule.for_s:
        written["for"] = f"{rule.for_s}s"
    return written | {"labels": labels, "annotations": annotations(rule, links)}


def _for(seconds: int) -> str:
    if not seconds:
        return ""
    if seconds % 60:
        return f", for {seconds} s"
    return f", for {seconds // 60} min"


def _dashboard(rule: MetricRule, links: Links) -> str:
    """The last hour, at the place; the notification puts in when it began. A variable without a value would be empty,
    which is no place at all: it is left out."""
    at_place = looked_up_variable if rule.resolves_place else _variable
    shown = "".join(map(at_place, rule.dashboard.variables))
    return f"{links.dashboards}/d/{quote(rule.dashboard)}?{LAST_HOUR}&to=now{shown}"


def _variable(label: str) -> str:
    return f"{{{{ with $labels.{label} }}}}&var-{label}={{{{ . | urlquery }}}}{{{{ end }}}}"
