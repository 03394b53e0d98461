"""docs/guides/operate.md against the code: metrics, the alerts that ask for them, objectives and limits."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from alerts.rules_gpu import FAST_BURN, SLOW_BURN
from alerts.running import IncidentOptions
from alerts.telling import Links
from alerts.thresholds import Thresholds
from kvandal.settings import AgentSection
from tests.docs.blocks import GUIDES

ROOT = GUIDES.parents[1]
GUIDE = (GUIDES / "operate.md").read_text()
MODULES = ("collectors/exposition.py", "stream/metrics.py", "alerts/exposition.py")
ROW = re.compile(r"^\| `(kvandal_\w+)` \| ([^|]+) \| ([^|]*) ?\|$", re.MULTILINE)
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((ROOT / "alerts" / "rendered" / "pipeline.yml").read_text())["groups"]
    for rule in group["rules"]
]  # fmt: skip


def declared(module: Path) -> Iterator[str]:
    """The metrics that a module makes, by the names that Prometheus stores."""
    for node in ast.walk(ast.parse(module.read_text())):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
            continue
        name = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
        if isinstance(name, str) and name.startswith("kvandal_"):
            counts = node.func.id.startswith("Counter") and not name.endswith("_total")
            yield f"{name}_total" if counts else name


def test_every_metric_of_our_own_is_explained_and_no_other() -> None:
    ours = {name for module in MODULES for name in declared(ROOT / module)}
    assert len(ours) > 25
    assert {name for name, _, _ in ROW.findall(GUIDE)} == ours


def test_the_alert_beside_a_metric_asks_for_it() -> None:
    """An alert that is named in a row has that metric, or the recording rule that the row names, in its expression."""
    asked: dict[str, str] = {}
    for rule in RULES:
        if "alert" in rule:
            asked[rule["alert"]] = asked.get(rule["alert"], "") + rule["expr"]
    recorded = {rule["record"]: rule["expr"] for rule in RULES if "record" in rule}
    checked = 0
    for metric, _, alerts in ROW.findall(GUIDE):
        through = [expression for name, expression in recorded.items() if name in alerts]
        for alert in re.findall(r"`([A-Z]\w+)`", alerts):
            assert metric in asked[alert] or (through and metric in through[0]), f"{alert} does not ask for {metric}"
            checked += 1
    assert checked > 15


def test_every_alert_about_the_pipeline_is_named() -> None:
    assert {rule["alert"] for rule in RULES if "alert" in rule} - set(re.findall(r"`([A-Z]\w+)`", GUIDE)) == set()


def test_the_objectives_are_the_alerts_own() -> None:
    limits = Thresholds()
    assert f"stored within {limits.fresh_s:g} s, {limits.fresh_objective_ratio:.0%}".replace("%", " %") in GUIDE
    assert f"burns {FAST_BURN:g} times too fast, and makes a ticket at {SLOW_BURN:g} times" in GUIDE


def test_incidents_without_a_memory_look_back_as_far_as_is_said() -> None:
    options = IncidentOptions(state=Path("incidents.db"), alertmanagers=(), links=Links("", ""))
    assert f"the last {options.lookback_s / 60:g} minutes of events" in GUIDE


def test_the_time_that_an_agent_takes_to_end_is_its_default() -> None:
    assert f"`agent.drain_s` ({AgentSection().drain_s} s)" in GUIDE
