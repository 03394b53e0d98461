"""Previews: one page for each dashboard, drawn from its own JSON and queries with the data of any store.

For whom has no Grafana at hand, and for reviewing a change to a dashboard. Pages lie in Grafana's grid of 24 columns,
need no script, and follow the viewer's light or dark theme. Panels that ask Prometheus say so and stay empty. As files
variables stand at "All", or at their first value; dashboards/preview_server.py serves them with a choice, and links.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from clickhouse_connect.driver.client import Client

from dashboards.answers import Answer, Asker, Json, Question, asked_variables, marks, questions
from dashboards.macros import ALL
from dashboards.preview_charts import Moment, Span, line_chart, state_chart
from dashboards.preview_links import FileLinks, Links, Values
from dashboards.preview_values import FieldLook, colour_of
from dashboards.rendering import boards, dashboard_json
from storage.client import StoreAddress, StoreRefusedError, connect

PAGE_WIDTH = 1600  # in pixels, for which pictures are drawn where nobody says better; the browser scales them
_MARGINS = 2 * 16 + 23 * 8
_ROW_HEIGHT, _GAP, _FRAME_WIDTH, _HEAD_HEIGHT = 30, 8, 24, 46
_MOST_ROWS = 60


@dataclass(frozen=True, slots=True)
class Preview:
    """What was drawn: where each page lies, and the panels that have nothing to show, with why."""

    pages: Mapping[str, Path]
    empty: Mapping[str, Sequence[str]] = field(default_factory=dict)


def write_previews(
    address: StoreAddress, target: Path, *, end: datetime | None = None, only: Sequence[str] = ()
) -> Preview:
    """Draw every dashboard (or those whose uid is in `only`) into `target`; each over its own default range.

    `end` is the end of the range, now if it is not given. StoreUnavailableError; a query that ClickHouse refuses is
    shown in its panel and listed as empty.
    """
    target.mkdir(parents=True, exist_ok=True)
    client = connect(address)
    try:
        return draw_pages(client, target, end=end or datetime.now(UTC), only=only)
    finally:
        client.close()


def draw_pages(client: Client, target: Path, *, end: datetime, only: Sequence[str] = ()) -> Preview:
    """As write_previews, through a client that the caller keeps."""
    pages, empty = {}, {}
    for uid, dashboard in every_dashboard().items():
        if only and uid not in only:
            continue
        asker = Asker(client, end - range_of(dashboard["time"]["from"]), end)
        values = asker.choose(dashboard)
        drawn = draw_page(dashboard, asker, values, FileLinks(), _stated(dashboard, asker, values))
        pages[uid] = target / f"{uid}.html"
        pages[uid].write_text(drawn.html)
        if drawn.empty:
            empty[uid] = drawn.empty
    return Preview(pages, empty)


def every_dashboard() -> Mapping[str, Json]:
    """Parsed, by uid."""
    parsed = [json.loads(dashboard_json(board)) for board in boards()]
    return {str(dashboard["uid"]): dashboard for dashboard in parsed}


@dataclass(frozen=True, slots=True)
class Drawn:
    """A page, and which of its panels have nothing to show, with why."""

    html: str
    empty: Sequence[str]


def draw_page(
    dashboard: Json, asker: Asker, values: Values, links: Links, header: str, *, width: int = PAGE_WIDTH
) -> Drawn:
    """One dashboard with its variables set to `values`; `header` is HTML. StoreUnavailableError."""
    page = _Page(dashboard, asker, values, links, width)
    return Drawn(page.render(header), page.empty)


def range_of(since: str) -> timedelta:
    """The length of "now-6h", "now-7d"; ValueError for anything else."""
    unit = {"m": "minutes", "h": "hours", "d": "days"}.get(since[-1:])
    if unit is None or not since.startswith("now-") or not since[4:-1].isdecimal():
        raise ValueError(f"the range {since!r} is not now-<number><m|h|d>; boards use these")
    return timedelta(**{unit: int(since[4:-1])})


class _Page:
    """One dashboard on its way to being a page."""

    def __init__(self, dashboard: Json, asker: Asker, values: Values, links: Links, width: int) -> None:
        self.empty: list[str] = []
        self._dashboard, self._asker = dashboard, asker
        self._values, self._links = values, links
        self._column = (width - _MARGINS) / 24
        self._moments = self._read_moments()

    def render(self, header: str) -> str:
        menu = [(board.page.value, board.title.partition(" / ")[2]) for board in boards()]
        links = "".join(
            f'<a href="{escape(self._links.page(uid), quote=True)}"'
            f"{' class=here' if uid == self._dashboard['uid'] else ''}>{escape(title)}</a>"
            for uid, title in menu
        )
        panels = "\n".join(map(self._panel, self._dashboard["panels"]))
        style = files("dashboards").joinpath("preview.css").read_text()
        return (
            "<!doctype html>\n<!-- Generated by `kvandal dashboards preview`. -->\n"
            f'<html lang="en"><head><meta charset="utf-8"><title>{escape(self._dashboard["title"])}</title>\n'
            f"<style>\n{style}</style></head><body>\n<nav>{links}</nav>\n<header>{header}</header>\n"
            f"<main>\n{panels}\n</main></body></html>\n"
        )

    def _read_moments(self) -> list[Moment]:
        found = []
        for annotation in marks(self._dashboard):
            if annotation["enable"]:
                answer = self._asker.run(annotation["target"]["rawSql"], self._values)
                colour = colour_of(annotation["iconColor"]) or "#888888"
                found += [Moment(time, colour) for time in answer.column("time")]
        return found

    def _panel(self, panel: Json) -> str:
        place = panel["gridPos"]
        grid = f"grid-column:{place['x'] + 1}/span {place['w']};grid-row:{place['y'] + 1}/span {place['h']}"
        if panel["type"] == "text":
            return f'<section class="question" style="{grid}">{_markdown(panel["options"]["content"])}</section>'
        title, why = escape(panel["title"]), escape(panel["description"], quote=True)
        return (
            f'<section style="{grid}"><h3 title="{why}">{title}</h3>'
            f'<div class="{panel["type"]}">{self._body(panel)}</div></section>'
        )

    def _body(self, panel: Json) -> str:
        asked = list(questions({"panels": [panel]}))
        if not asked:
            return '<p class="none">Asks Prometheus: Grafana shows it.</p>'
        try:
            answer = self._asker.ask(asked[0], self._values)
        except StoreRefusedError as error:
            self.empty.append(f"{panel['title']}: {error}")
            return f'<p class="none">{escape(str(error))}</p>'
        scene = Scene(self._span(asked[0]), self._moments, self._links)
        drawn = _DRAWN_BY[panel["type"]](panel, answer, scene) if answer.rows else None
        if drawn is None:
            self.empty.append(f"{panel['title']}: no rows")
            return f'<p class="none">{escape(panel["fieldConfig"]["defaults"]["noValue"])}</p>'
        return drawn

    def _span(self, question: Question) -> Span:
        place = question.panel["gridPos"]
        width = place["w"] * self._column + (place["w"] - 1) * _GAP - _FRAME_WIDTH
        height = place["h"] * (_ROW_HEIGHT + _GAP) - _GAP - _HEAD_HEIGHT
        return Span(self._asker.start, self._asker.end, int(width), int(height))


@dataclass(frozen=True, slots=True)
class Scene:
    """What a panel is drawn into."""

    span: Span
    moments: Sequence[Moment]
    links: Links


def _stated(dashboard: Json, asker: Asker, values: Values) -> str:
    """The header of a file: what its variables stand at, and its range."""
    chosen = [(one["label"], values[one["name"]]) for one in asked_variables(dashboard)]
    stated = "".join(f"<span><b>{escape(label)}</b> {escape(_named(names))}</span>" for label, names in chosen)
    return f"{stated}<span><b>Range</b> {range_text(asker)}</span>"


def range_text(asker: Asker) -> str:
    start, end = (f"{moment:%Y-%m-%d %H:%M}" for moment in (asker.start, asker.end))
    return f"{start} to {end} UTC"


def _named(names: Sequence[str]) -> str:
    return "All" if list(names) == [ALL] else ", ".join(names) or "none"


def _markdown(text: str) -> str:
    """Headings and paragraphs: all that our text panels use."""
    parts = [part.strip() for part in text.split("\n\n")]
    return "".join(
        f"<h2>{escape(part[3:])}</h2>" if part.startswith("## ") else f"<p>{escape(part)}</p>" for part in parts
    )


def _figure(panel: Json, answer: Answer, scene: Scene) -> str:
    del scene
    cells = []
    for name, value in zip(answer.names, answer.rows[0], strict=True):
        shown = FieldLook.of(panel, name).show(value)
        label = f"<small>{escape(name)}</small>" if len(answer.names) > 1 else ""
        cells.append(f"<p>{_inked(shown.colour, escape(shown.text))}{label}</p>")
    return "".join(cells)


def _table(panel: Json, answer: Answer, scene: Scene) -> str:
    if panel.get("transformations"):
        return _plan(panel, _matrix(answer))
    looks = {name: FieldLook.of(panel, name) for name in answer.names}
    head = "".join(f"<th{_side(answer, name)}>{escape(name)}</th>" for name in answer.names)
    body = "".join(
        "<tr>"
        + "".join(
            _cell(looks[name], value, _side(answer, name), scene.links)
            for name, value in zip(answer.names, row, strict=True)
        )
        + "</tr>"
        for row in answer.rows[:_MOST_ROWS]
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _matrix(answer: Answer) -> Answer:
    """What Grafana's transformation "grouping to matrix" makes of Row, Column and value."""
    columns = sorted(set(answer.column("Column")))
    rows: dict[str, dict[str, Any]] = {}
    for row, column, value in answer.rows:
        rows.setdefault(row, {})[column] = value
    cells = tuple((name, *(values.get(column) for column in columns)) for name, values in rows.items())
    return Answer(("Row\\Column", *columns), ("String", *["Nullable(Float64)"] * len(columns)), cells)


def _plan(panel: Json, answer: Answer) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", *answer.names[1:]))
    look = FieldLook.of(panel, "value")
    body = "".join(
        f'<tr><td class="text">{escape(str(name))}</td>' + "".join(_cell(look, value, "") for value in values) + "</tr>"
        for name, *values in answer.rows
    )
    return f'<table class="plan"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _cell(look: FieldLook, value: object, side: str, links: Links | None = None) -> str:
    shown = look.show(value)
    if shown.colour and look.is_filled:
        return f'<td class="filled" style="--said:{shown.colour}">{escape(shown.text)}</td>'
    return f"<td{side}>{_inked(shown.colour, _linked(look, value, shown.text, links))}</td>"


def _linked(look: FieldLook, value: object, text: str, links: Links | None) -> str:
    target = links.of_value(look.link, str(value)) if links and look.link and value is not None else None
    return f'<a href="{escape(target, quote=True)}">{escape(text)}</a>' if target else escape(text)


def _side(answer: Answer, name: str) -> str:
    kind = answer.types[answer.names.index(name)]
    return ' class="text"' if "String" in kind or "Date" in kind else ""


def _inked(colour: str | None, html: str) -> str:
    """In a colour that the style sheet makes darker on light paper, lighter on dark."""
    return f'<span class="inked" style="--said:{colour}">{html}</span>' if colour else html


def _ranking(panel: Json, answer: Answer, scene: Scene) -> str:
    del scene
    look = FieldLook.of(panel, answer.names[-1])
    values = [float(value or 0.0) for value in answer.column(answer.names[-1])]
    longest = max([*values, 1e-12])
    return "".join(
        f'<p><span>{escape(str(row[0]))}</span><i style="width:{100 * value / longest:.1f}%"></i>'
        f"<b>{escape(look.show(value).text)}</b></p>"
        for row, value in zip(answer.rows, values, strict=True)
    )


def _lines(panel: Json, answer: Answer, scene: Scene) -> str | None:
    return line_chart(panel, answer, scene.span, scene.moments)


def _states(panel: Json, answer: Answer, scene: Scene) -> str | None:
    return state_chart(panel, answer, scene.span)


_DRAWN_BY: Mapping[str, Callable[[Json, Answer, Scene], str | None]] = {
    "stat": _figure,
    "table": _table,
    "bargauge": _ranking,
    "timeseries": _lines,
    "state-timeline": _states,
}
