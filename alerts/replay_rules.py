"""The metric part of a replay: an incident's series as a test of rules for promtool, and what promtool answers. Pure.

Prometheus itself evaluates: promtool is asked, for every step, for the alerts that fire, against the claim that none
does. What it finds against that claim is the answer.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from alerts.exposition import SHOWN_KINDS
from alerts.replay_incident import Cast, ReplayIncident, Series
from alerts.replay_score import Raised
from alerts.rulefile import INTERVAL_S
from alerts.rules_pipeline import AGENT_JOB, INCIDENTS_JOB, INGEST_JOB
from alerts.tree import Tree
from catalogue import ResourceKind
from stream.messages import InventoryMessage

FIRING = 'ALERTS{alertstate="firing",severity!="heartbeat"}'

Labels = Mapping[str, str]
_Alert = frozenset[tuple[str, str]]  # its labels

_ON_NODES = (ResourceKind.GPU, ResourceKind.TRAY, ResourceKind.PORT)
_TIME = re.compile(r"^\s*expr: .*, time: (\S+?),\s*$")
_DURATION = re.compile(r"(\d+)([dhms])")
_SECONDS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
_SAMPLE = re.compile(r"\{((?:[^\"{}]|\"(?:[^\"\\]|\\.)*\")*)\} [0-9.E+-]+")
_LABEL = re.compile(r"(\w+)=(\"(?:[^\"\\]|\\.)*\")")


def rule_test(incident: ReplayIncident, cast: Cast, tree: Tree, rule_files: Sequence[Path]) -> str:
    """The file for `promtool test rules`."""
    steps = int(incident.lasts_s) // INTERVAL_S
    series = {**_background(cast, tree, steps), **_series(incident.series, cast, tree)}
    asked = [
        {"eval_time": f"{step * INTERVAL_S}s", "expr": FIRING, "exp_samples": []} for step in range(steps + 1)
    ]  # fmt: skip
    test = {
        "interval": f"{INTERVAL_S}s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": asked,
    }
    document = {
        "rule_files": [str(file) for file in rule_files], "evaluation_interval": f"{INTERVAL_S}s", "tests": [test],
    }  # fmt: skip
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def read_raised(answer: str, lasts_s: float) -> list[Raised]:
    """What fired and when, from promtool's answer."""
    firing = {step_s: set(alerts) for step_s, alerts in _answers(answer)}
    standing: dict[_Alert, int] = {}
    found: list[Raised] = []
    for step_s in range(0, int(lasts_s) + 1, INTERVAL_S):
        now = firing.get(step_s, set())
        found += [Raised(dict(alert), standing.pop(alert), step_s) for alert in standing.keys() - now]
        standing |= dict.fromkeys(now - standing.keys(), step_s)
    found += [Raised(dict(alert), from_s) for alert, from_s in standing.items()]
    return sorted(found, key=lambda raised: (raised.from_s, sorted(raised.labels.items())))


def _answers(answer: str) -> Iterator[tuple[int, list[_Alert]]]:
    """The alerts of every step that has some."""
    at_s = 0
    for line in answer.splitlines():
        if (found := _TIME.match(line)) is not None:
            at_s = sum(int(number) * _SECONDS[unit] for number, unit in _DURATION.findall(found[1]))
        elif line.lstrip().startswith("got:"):
            yield at_s, [_alert(sample) for sample in _SAMPLE.findall(line)]


def _alert(sample: str) -> _Alert:
    labels = {name: json.loads(value) for name, value in _LABEL.findall(sample)}
    return frozenset((name, value) for name, value in labels.items() if name not in ("__name__", "alertstate"))


def _background(cast: Cast, tree: Tree, steps: int) -> dict[str, str]:
    """What a healthy site shows: every process answers, every GPU is read, every place is known."""
    values = f"1x{steps}"
    found = {_name("up", {"job": job}): values for job in (INGEST_JOB, INCIDENTS_JOB)}
    healthy = (
        Series(metric="up", of="*", values=values),
        Series(metric="kvandal_gpu_state", of="* GPU *", values=values),
    )
    found |= _of(healthy[0], cast.like("*", ResourceKind.TRAY), tree)
    found |= _of(healthy[1], cast.like("*", ResourceKind.GPU), tree)
    for one in cast.like("*", *SHOWN_KINDS):
        place = tree.place(one.resource)
        labels = {
            "job": INCIDENTS_JOB, "resource": f"{one.resource:016x}", "kind": one.kind.value, "name": place.name,
            "rack": place.rack, "cdu": place.cdu, "feeder": place.feeder, "hall": place.hall,
        }  # fmt: skip
        found[_name("kvandal_incidents_place_info", labels)] = values
    return found


def _series(given: Sequence[Series], cast: Cast, tree: Tree) -> dict[str, str]:
    found: dict[str, str] = {}
    for series in given:
        if series.of:
            found |= _of(series, cast.like(series.of), tree)
        else:
            found[_name(series.metric, series.labels)] = series.values
    return found


def _of(series: Series, resources: Sequence[InventoryMessage], tree: Tree) -> dict[str, str]:
    return {_name(series.metric, _labels(one, tree) | series.labels): series.values for one in resources}


def _labels(one: InventoryMessage, tree: Tree) -> dict[str, str]:
    """As the target file gives them to a node's readings; a gateway's readings have the resource only."""
    resource = f"{one.resource:016x}"
    if one.kind not in _ON_NODES:
        return {"job": AGENT_JOB, "instance": "gateway-0", "resource": resource}
    place = tree.place(one.resource)
    named = {"node": place.node, "rack": place.rack, "cdu": place.cdu, "feeder": place.feeder, "hall": place.hall}
    own = {} if one.kind is ResourceKind.TRAY else {"resource": resource}
    return {"job": AGENT_JOB, "instance": place.node, **{n: value for n, value in named.items() if value}, **own}


def _name(metric: str, labels: Labels) -> str:
    return metric + "{" + ",".join(f"{label}={json.dumps(labels[label])}" for label in sorted(labels)) + "}"
