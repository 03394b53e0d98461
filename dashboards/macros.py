"""Expands what Grafana and its ClickHouse plug-in would, for previews and tests without a Grafana.

By the plug-in's documentation (grafana-clickhouse-datasource 4, "Macros"): $__timeFilter(column), $__fromTime,
$__toTime, $__interval_s and $__conditionalAll(condition, $variable); and Grafana's variable format ${name:sqlstring},
each value in single quotes. Whatever else looks like a macro or variable is an error, so that no query of ours uses
what nobody has tried.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

ALL = "$__all"
_CONDITIONAL = "$__conditionalAll("
_FILTER = re.compile(r"\$__timeFilter\(([^()]*)\)")
_VALUES = re.compile(r"\$\{(\w+):sqlstring\}")
_LEFT_OVER = re.compile(r"\$\w+|\$\{[^}]*\}")


class UnknownMacroError(ValueError):
    """A query uses a macro or a variable that is not known here."""


@dataclass(frozen=True, slots=True)
class View:
    """What a dashboard shows: its range, the length of a bucket, and what each variable is set to."""

    start: datetime
    end: datetime
    interval_s: int
    values: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def start_s(self) -> int:
        return int(self.start.timestamp())

    @property
    def end_s(self) -> int:
        return int(self.end.timestamp())


def interval_of(start: datetime, end: datetime, points: int, at_least_s: int) -> int:
    """The bucket for a panel of so many points, as Grafana rounds it: up to a length that people know."""
    wanted = max((end - start).total_seconds() / points, at_least_s, 1)
    return next((step for step in _STEPS_S if step >= wanted), _STEPS_S[-1])


_STEPS_S = (
    1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 604800,
)  # fmt: skip


def expand(sql: str, view: View) -> str:
    """The statement that ClickHouse gets. Raises UnknownMacroError."""
    text = _expand_conditions(sql, view)
    between = f"toDateTime({view.start_s}) AND {{0}} <= toDateTime({view.end_s})"
    text = _FILTER.sub(lambda found: f"{found[1]} >= {between.format(found[1])}", text)
    text = text.replace("$__fromTime", f"toDateTime({view.start_s})").replace("$__toTime", f"toDateTime({view.end_s})")
    text = text.replace("$__interval_s", str(view.interval_s))
    text = _VALUES.sub(lambda found: _quoted(_chosen(found[1], view)), text)
    left = _LEFT_OVER.search(text)
    if left is not None:
        raise UnknownMacroError(f"{left[0]} is neither a macro nor a variable that we know; use those in macros.py")
    return text


def _expand_conditions(sql: str, view: View) -> str:
    """The innermost last: conditions may hold parentheses, but no other macro."""
    at = sql.rfind(_CONDITIONAL)
    while at >= 0:
        end = _closing(sql, at + len(_CONDITIONAL) - 1)
        condition, _, variable = sql[at + len(_CONDITIONAL) : end].rpartition(",")
        chosen = _chosen(variable.strip().removeprefix("$"), view)
        sql = sql[:at] + ("1=1" if list(chosen) in ([], [ALL]) else condition) + sql[end + 1 :]
        at = sql.rfind(_CONDITIONAL)
    return sql


def _closing(text: str, opening: int) -> int:
    depth = 0
    for place in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place
    raise UnknownMacroError(f"a macro has no closing parenthesis: {text[opening - 20 : opening + 40]}")


def _chosen(variable: str, view: View) -> Sequence[str]:
    if variable not in view.values:
        raise UnknownMacroError(f"the dashboard has no variable {variable}; add it to the board's choices")
    return view.values[variable]


def _quoted(values: Sequence[str]) -> str:
    """As Grafana's format sqlstring: single quotes, doubled within."""
    return ",".join("'" + value.replace("'", "''") + "'" for value in values) or "''"
