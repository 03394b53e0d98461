"""Asks what a dashboard's JSON asks, as a Grafana would: variables first, then each panel's query."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from clickhouse_connect.driver.client import Client

from dashboards import macros
from dashboards.macros import ALL, View
from dashboards.targets import CLICKHOUSE_TYPE
from storage.client import store_errors

# A dashboard's JSON, parsed: plain objects by its own schema.
Json = Mapping[str, Any]

PANEL_POINTS_A_COLUMN = 60  # of the grid of 24: what a screen of 1,440 pixels has
MIN_INTERVAL_S = 10


@dataclass(frozen=True, slots=True)
class Answer:
    """Columns by name, types as ClickHouse names them, rows in order."""

    names: tuple[str, ...]
    types: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def column(self, name: str) -> list[Any]:
        """Empty where there are no rows: the Native format then names no columns either."""
        if not self.rows:
            return []
        place = self.names.index(name)
        return [row[place] for row in self.rows]


@dataclass(frozen=True, slots=True)
class Question:
    """One ClickHouse query of one panel."""

    panel: Json
    target: Json

    @property
    def name(self) -> str:
        return f"{self.panel['title']} {self.target['refId']}"

    @property
    def sql(self) -> str:
        return str(self.target["rawSql"])

    @property
    def width(self) -> int:
        return int(self.panel["gridPos"]["w"])


def questions(dashboard: Json) -> Iterator[Question]:
    """The ClickHouse queries of every panel; those of Prometheus are none of ours to answer."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets") or ():
            if target["datasource"]["type"] == CLICKHOUSE_TYPE:
                yield Question(panel, target)


def asked_variables(dashboard: Json) -> Iterator[Json]:
    """The variables that people choose, in order; a constant is none of these."""
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable


def constants(dashboard: Json) -> dict[str, Sequence[str]]:
    return {one["name"]: [one["query"]] for one in dashboard["templating"]["list"] if one["type"] == "constant"}


def marks(dashboard: Json) -> Iterator[Json]:
    """The annotations that ask ClickHouse."""
    for annotation in (dashboard.get("annotations") or {}).get("list") or ():
        if (annotation.get("target") or {}).get("rawSql"):
            yield annotation


class Asker:
    """Answers questions over one client and one range; not for use by two threads at once."""

    def __init__(self, client: Client, start: datetime, end: datetime) -> None:
        self._client = client
        self.start, self.end = start, end

    def choose(self, dashboard: Json, chosen: Mapping[str, Sequence[str]] | None = None) -> dict[str, Sequence[str]]:
        """What each variable is set to: as `chosen`, else "All", else the first value that its query offers."""
        values = constants(dashboard)
        for variable in asked_variables(dashboard):
            name = variable["name"]
            if chosen and name in chosen:
                values[name] = chosen[name]
            elif variable.get("includeAll"):
                values[name] = [ALL]
            else:
                values[name] = self.offered(variable, values)[:1]
        return values

    def offered(self, variable: Json, values: Mapping[str, Sequence[str]]) -> list[str]:
        """What a variable's query offers, within what those before it are set to."""
        return [str(row[0]) for row in self.run(variable["query"]["rawSql"], values).rows]

    def ask(self, question: Question, values: Mapping[str, Sequence[str]]) -> Answer:
        return self.run(question.sql, values, question.width)

    def expanded(self, sql: str, values: Mapping[str, Sequence[str]], width: int = 12) -> str:
        points = width * PANEL_POINTS_A_COLUMN
        interval_s = macros.interval_of(self.start, self.end, points, MIN_INTERVAL_S)
        return macros.expand(sql, View(self.start, self.end, interval_s, values))

    def run(self, sql: str, values: Mapping[str, Sequence[str]], width: int = 12) -> Answer:
        """StoreUnavailableError, StoreRefusedError, UnknownMacroError."""
        with store_errors("a dashboard's query"):
            answer = self._client.query(self.expanded(sql, values, width))
        types = tuple(str(kind.name) for kind in answer.column_types)
        return Answer(tuple(answer.column_names), types, tuple(tuple(row) for row in answer.result_rows))
