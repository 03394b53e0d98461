"""Every dashboard against Grafana's own types, @grafana/schema: of the oldest Grafana that we support, of the newest.

What these types leave open is checked elsewhere, or here by types of our own (tests/servers/grafana_schema):

| open in @grafana/schema | checked by |
|---|---|
| `type`, `options`, `fieldConfig.defaults.custom` of a panel (any object) | here: each panel type's own schema |
| `targets`, an annotation's `target`, a variable's `query` (any object) | here: the two plug-ins' documented forms |
| the value of an override (unknown) | here: the field of that name; tests/unit: the column exists |
| SQL and its macros (text) | tests/integration/test_dashboards_store.py: the engine answers every query |
| PromQL (text) | the same file: Prometheus' own parser |
| units (text) | tests/unit/test_dashboards.py: those that Grafana lists |
| panels that lie over each other, links to pages and variables that are not there | tests/unit/test_dashboards.py |
| options of a transformation (any), names of colours, placeholders within links | nobody |
"""

import json
from pathlib import Path

import pytest

from dashboards.rendering import boards, dashboard_json
from tests.servers.grafana_types import Schema, complaints

pytestmark = pytest.mark.timeout(600)  # a first run fetches both versions

MISTAKES = {
    "a key that is not Grafana's": ('"refresh":', '"refreshes":'),
    "a value that is none of the enumeration's": ('"mode": "absolute"', '"mode": "relative"'),
    "an option of another panel": ('"graphMode": "none"', '"displayMode": "basic"'),
    "a number as text": ('"schemaVersion": 41', '"schemaVersion": "41"'),
    "a query without its statement": ('"rawSql":', '"sql":'),
    "an override's value of another field": ('"id": "unit"', '"id": "decimals"'),
}


@pytest.mark.parametrize("schema", Schema)
def test_every_dashboard_is_what_grafana_types_say(schema: Schema, tmp_path: Path) -> None:
    assert complaints(schema, {board.page.value: dashboard_json(board) for board in boards()}, tmp_path) == []


def test_each_kind_of_mistake_is_found(tmp_path: Path) -> None:
    """The check has teeth: one wrong dashboard for each kind."""
    right = dashboard_json(boards()[0])
    wrong = {f"mistake-{number}": right.replace(*change) for number, change in enumerate(MISTAKES.values())}
    assert all(json.loads(document) != json.loads(right) for document in wrong.values())
    said = complaints(Schema.OLDEST, wrong, tmp_path)
    missed = [name for place, name in enumerate(MISTAKES) if not any(f"mistake-{place}.ts" in line for line in said)]
    assert missed == []
