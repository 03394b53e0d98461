"""Runbooks: one for every alert, with every section, and with commands that exist."""

import json
import re
import shlex
from pathlib import Path

import click
import pytest
from clickhouse_connect.driver.client import Client

from alerts.alert import Dashboard
from alerts.left_out import LEFT_OUT
from alerts.metric_rules import metric_rules
from alerts.rendering import RUNBOOKS, all_alerts, waiting_rules
from alerts.thresholds import Thresholds
from catalogue import ResourceKind, resource_id
from dashboards.board import Page
from kvandal.cli import main

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / RUNBOOKS
SECTIONS = ["Meaning", "Impact", "First checks", "Remedies", "When to escalate", "How it was tested"]
ALERTS = sorted({*all_alerts(), *(rule.name for rule in waiting_rules())})
PLACES = ("hall", "rack", "node", "customer")
GPU = f"{resource_id(ResourceKind.GPU, 'any'):016x}"


def commands(alert: str) -> list[str]:
    text = (FOLDER / f"{alert}.md").read_text()
    return [
        line.strip()
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        for line in block.splitlines()
        if line.strip()
    ]


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert sorted(file.stem for file in FOLDER.glob("*.md")) == ALERTS


@pytest.mark.parametrize("alert", ALERTS)
def test_a_runbook_has_every_section_and_none_is_empty(alert: str) -> None:
    text = (FOLDER / f"{alert}.md").read_text()
    title, *parts = re.split(r"^## ", text, flags=re.MULTILINE)
    assert title.strip() == f"# {alert}"
    assert [part.partition("\n")[0] for part in parts] == SECTIONS
    assert [part for part in parts if not part.partition("\n")[2].strip()] == []
    assert len(commands(alert)) == 3


@pytest.mark.parametrize("alert", ALERTS)
def test_links_of_a_runbook_lead_somewhere(alert: str) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", (FOLDER / f"{alert}.md").read_text()):
        assert (FOLDER / link).resolve().is_file(), link


@pytest.mark.parametrize("alert", ALERTS)
def test_another_alert_that_a_runbook_names_exists(alert: str) -> None:
    named = re.findall(r"(?:follow|As|as) ((?:[A-Z][a-z0-9]+){2,})\b", (FOLDER / f"{alert}.md").read_text())
    assert set(named) <= set(ALERTS)


def test_every_verb_of_ours_that_a_runbook_names_exists() -> None:
    called = {
        tuple(shlex.split(c.partition("kvandal ")[2]))
        for a in ALERTS
        for c in commands(a)
        if re.search(r"(^|\s)kvandal [a-z]", c)
    }
    assert len(called) > 20
    for words in called:
        command: click.Command = main
        context = click.Context(main)
        for word in words:
            if not isinstance(command, click.Group):
                break
            found = command.get_command(context, word)
            if found is None and word.startswith("-"):
                break
            assert found is not None, f"kvandal {' '.join(words)}"
            command = found


def test_every_query_of_a_runbook_runs_on_our_schema(store: Client) -> None:
    queries = {sql for a in ALERTS for c in commands(a) for sql in re.findall(r'kvandal query "(.*)"$', c)}
    assert len(queries) > 60
    failed = {}
    for sql in sorted(queries):
        try:
            store.query(sql.replace("RESOURCE", GPU))
        except Exception as error:
            failed[sql] = str(error)[:300]
    assert failed == {}


def test_every_dashboard_that_an_alert_names_exists() -> None:
    assert {str(page) for page in Dashboard} <= {str(page) for page in Page}


@pytest.mark.parametrize("board", Dashboard)
def test_links_narrow_a_dashboard_to_what_it_can_be_narrowed_to(board: Dashboard) -> None:
    """Those of its variables that are labels of alerts, and no others: Grafana would ignore them."""
    document = json.loads((ROOT / f"dashboards/rendered/{board}.json").read_text())
    listed = [variable["name"] for variable in document.get("templating", {}).get("list", [])]
    assert [name for name in listed if name in PLACES] == list(board.variables)


def test_every_number_of_the_catalogue_is_an_alert_or_left_out_with_a_reason() -> None:
    rules = [rule for rules in metric_rules(Thresholds()).values() for rule in rules]
    told = {number for alert in (*rules, *all_alerts().values()) for number in alert.numbers}
    assert told | {one.number for one in LEFT_OUT} == set(range(1, 51))
    assert all(one.reason for one in LEFT_OUT)


def test_no_alert_has_two_homes() -> None:
    from alerts.event_rules import EVENT_RULES

    metrics = {rule.name for rules in metric_rules(Thresholds()).values() for rule in rules}
    assert metrics & {rule.name for rule in EVENT_RULES} == set()
