"""Time series and state bands of a preview as SVG text. What is ink takes the page's colour, light or dark."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import altair as alt
import vl_convert

from catalogue.seen import drawable
from dashboards.answers import Answer, Json
from dashboards.preview_values import FieldLook, scale_of

_VEGA_LITE = "6.4"
# Markers that the page's style sheet replaces; no series has such a colour.
_INK, _RULE = "#010203", "#010204"
# Okabe and Ito's set first: apart for colour-blind eyes; then what is left of a classic ten.
PALETTE = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E0A100", "#56B4E9", "#8F5FC4", "#7A5B3E", "#6E7681", "#3B9C9C",
)  # fmt: skip
_MOST_LEGENDS = 8
_LEAST_BARS = 48  # that fit into the range: one or two lonely bars are no wider
_MOST_BAR_WIDTH = 60.0  # pixels
_WHOLE_LABEL = "datum.value == floor(datum.value) ? datum.label : ''"
_LARGE_COUNT = 1e5  # from here on counts are labelled by thousands
_TICK_WIDTH = 80  # pixels of an instant's label and what is free beside it
_LEVEL = " / "  # between the levels of a place's name


@dataclass(frozen=True, slots=True)
class Span:
    """The range of the page and the size of a picture in pixels."""

    start: datetime
    end: datetime
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Moment:
    """An annotation: a dashed line at an instant."""

    time: datetime
    colour: str


def line_chart(panel: Json, answer: Answer, span: Span, moments: Sequence[Moment] = ()) -> str | None:
    """Lines, bars or stacked areas as the panel's own settings say; None where there is nothing to draw."""
    points = _points(answer)
    if not points:
        return None
    look = FieldLook.of(panel, "")
    factor, unit = scale_of([value for _, _, value in points], look.unit)
    names = list(dict.fromkeys(name for _, name, _ in points))
    stacked = (look.settings.get("custom.stacking") or {}).get("mode") == "normal"
    bars = look.settings.get("custom.drawStyle") == "bars"
    bar = _bar_length([time for time, *_ in points], span) if bars else timedelta(0)
    rows = [  # a bar stands in the middle of its bucket
        {"time": (time + bar / 2).isoformat(), "series": name, "value": value * factor} for time, name, value in points
    ]
    encoding: dict[str, Any] = {
        "x": _time_axis(span),
        "y": alt.Y(
            "value:Q",
            title=unit or None,
            stack="zero" if stacked else None,
            scale=_value_scale([value * factor for *_, value in points], from_zero=stacked or bars),
            axis=_value_labels([value * factor for *_, value in points], unit),
        ),
        "color": alt.Color(
            "series:N",
            sort=names,
            title=None,
            scale=_colours(names),
            legend=_legend(names, span.width, filled=stacked or bars),
        ),
    }
    base = alt.Chart(_data(rows)).encode(**encoding)
    layers: list[alt.Chart] = [_mark(base, rows, stacked=stacked, bar=bar, span=span)]
    if not stacked and not bars:
        layers += _threshold_rules(look, factor, [value * factor for *_, value in points])
    layers += [_moment_rules(moments, span)] if moments else []
    return _svg(alt.layer(*layers).properties(width=span.width, height=span.height))


def _moment_rules(moments: Sequence[Moment], span: Span) -> alt.Chart:
    rows = [{"time": one.time.isoformat(), "colour": one.colour} for one in moments]
    rules = alt.Chart(_data(rows)).mark_rule(strokeDash=[2, 3], strokeWidth=1, opacity=0.8, clip=True)
    marks: alt.Chart = rules.encode(x=_time_axis(span), color=alt.Color("colour:N", scale=None))
    return marks


def _value_scale(values: Sequence[float], *, from_zero: bool) -> alt.Scale:
    """A line gets room on both sides: none runs along the picture's edge, and one that never moves has an axis."""
    low, high = min(values), max(values)
    if from_zero:
        return alt.Scale(zero=True, nice=True)
    room = (high - low) * 0.05 or abs(low) * 0.1 or 1.0
    return alt.Scale(domain=[low - room if low - room >= 0 or low < 0 else 0.0, high + room], nice=True)


def _value_labels(values: Sequence[float], unit: str) -> alt.Axis:
    """Counts have whole numbers, and the large ones thousands."""
    counted = unit == "" and all(value == int(value) for value in values)
    form = "~s" if unit == "" and max(map(abs, values)) >= _LARGE_COUNT else ",~r"
    return alt.Axis(tickCount=5, format=form, labelExpr=_WHOLE_LABEL if counted else alt.Undefined)


def _bar_length(times: Sequence[datetime], span: Span) -> timedelta:
    buckets = sorted(set(times))
    gap = min((after - before for before, after in pairwise(buckets)), default=timedelta(hours=1))
    return gap if len(buckets) > 2 else min(gap, (span.end - span.start) / _LEAST_BARS)


def _mark(base: alt.Chart, rows: Sequence[Json], *, stacked: bool, bar: timedelta, span: Span) -> Any:  # noqa: ANN401 - altair's marks are untyped
    if bar:
        width = 0.8 * bar / (span.end - span.start) * span.width
        return base.mark_bar(size=max(2.0, min(_MOST_BAR_WIDTH, width)), opacity=0.85, clip=True)
    if stacked:
        return base.mark_area(opacity=0.8, line=False, interpolate="step-after", clip=True)
    # A series of one point has no line.
    sparse = len(rows) < 4 * len({row["series"] for row in rows})
    return base.mark_line(strokeWidth=1.6, clip=True, point=alt.OverlayMarkDef(size=14) if sparse else False)


def _threshold_rules(look: FieldLook, factor: float, values: Sequence[float]) -> list[alt.Chart]:
    """Dashed lines at the thresholds that lie near what is drawn."""
    low, high = min(values), max(values)
    margin = 0.3 * (high - low) + 1e-12
    rules = []
    for step in look.steps:
        value = step.get("value")
        if value is not None and low - margin <= value * factor <= high + margin:
            rule = alt.Chart(_data([{"at": value * factor}]))
            rules.append(rule.mark_rule(strokeDash=[4, 4], color=look.colour_at(value) or _INK).encode(y="at:Q"))
    return rules


def state_chart(panel: Json, answer: Answer, span: Span) -> str | None:
    """A band for each series, coloured by state; equal neighbours are one stretch."""
    look = FieldLook.of(panel, "")
    stretches = _stretches(_points(answer), span.end)
    if not stretches:
        return None
    rows = [
        {"series": name, "from": start.isoformat(), "to": end.isoformat(), "state": look.show(value).text}
        for name, start, end, value in stretches
    ]
    shown = {look.show(value).text: look.show(value).colour or PALETTE[0] for *_, value in stretches}
    scale = alt.Scale(domain=list(shown), range=list(shown.values()))
    chart = (
        alt.Chart(_data(rows))
        .mark_bar(height={"band": 0.85})
        .encode(
            x=_time_axis(span, "from"),
            x2="to:T",
            y=alt.Y("series:N", title=None, axis=alt.Axis(labelLimit=220, ticks=False)),
            color=alt.Color("state:N", title=None, scale=scale, legend=alt.Legend(orient="bottom")),
        )
    )
    return _svg(chart.properties(width=span.width, height=span.height))


def _stretches(
    points: Sequence[tuple[datetime, str, float]], end: datetime
) -> list[tuple[str, datetime, datetime, float]]:
    by_name: dict[str, list[tuple[datetime, float]]] = {}
    for time, name, value in points:
        by_name.setdefault(name, []).append((time, value))
    found = []
    for name, ticks in by_name.items():
        begun, last = ticks[0]
        for time, value in ticks[1:]:
            if value != last:
                found.append((name, begun, time, last))
                begun, last = time, value
        found.append((name, begun, end, last))
    return found


def _points(answer: Answer) -> list[tuple[datetime, str, float]]:
    """Time, name of the series, value: of columns, or of rows that name their series."""
    if not answer.rows:
        return []
    times = answer.column("time")
    if "series" in answer.names:
        names = [str(name) for name in answer.column("series")]
        shared = _shared_start(names)
        rows = zip(times, names, answer.column("value"), strict=True)
        return [(time, name[shared:], float(value)) for time, name, value in rows if _is_number(value)]
    return [
        (time, name, float(value))
        for name in answer.names
        if name != "time"
        for time, value in zip(times, answer.column(name), strict=True)
        if _is_number(value)
    ]


def _shared_start(names: Sequence[str]) -> int:
    """How long the part is that all names share, up to the last level of the place that they share."""
    levels = [name.split(_LEVEL) for name in set(names)]
    if len(levels) < 2:
        return 0
    shared = 0
    while len({tuple(parts[: shared + 1]) for parts in levels}) == 1:
        shared += 1
    return sum(len(part) + len(_LEVEL) for part in levels[0][:shared])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and value == value and abs(value) != float("inf")


def _time_axis(span: Span, column: str = "time") -> alt.X:
    domain = [span.start.isoformat(), span.end.isoformat()]
    days = (span.end - span.start) > timedelta(days=2)
    ticks = max(2, min(6, span.width // _TICK_WIDTH))
    axis = alt.Axis(
        format="%d %b" if days else "%H:%M", tickCount=ticks, labelOverlap=True, labelFlush=False, grid=False
    )
    return alt.X(f"{column}:T", title=None, scale=alt.Scale(domain=domain, type="utc"), axis=axis)


def _colours(names: Sequence[str]) -> alt.Scale:
    return alt.Scale(domain=list(names), range=[PALETTE[place % len(PALETTE)] for place in range(len(names))])


def _legend(names: Sequence[str], width: int, *, filled: bool) -> alt.Legend | None:
    """Beyond a few lines a legend takes the picture's place."""
    if len(names) > _MOST_LEGENDS:
        return None
    columns = max(1, int(width // (max(map(len, names)) * 6.2 + 42)))  # pixels of a letter and of a symbol
    return alt.Legend(
        orient="bottom", columns=columns, symbolType="square" if filled else "stroke", labelLimit=190, columnPadding=14,
        symbolStrokeWidth=0 if filled else 3, symbolSize=80,
    )  # fmt: skip


def _data(rows: Sequence[Json]) -> alt.InlineData:
    return alt.InlineData(values=list(rows))


def _svg(chart: alt.TopLevelMixin) -> str:
    styled = chart.configure(
        autosize=alt.AutoSizeParams(type="fit", contains="padding"),
        background="transparent", font="system-ui, sans-serif", padding=2, view=alt.ViewConfig(stroke=None)
    ).configure_axis(
        labelColor=_INK, titleColor=_INK, domainColor=_RULE, tickColor=_RULE, gridColor=_RULE, labelFontSize=11,
        titleFontSize=11, titleFontWeight="normal", titlePadding=8,
    ).configure_legend(labelColor=_INK, labelFontSize=11, padding=0, offset=6, rowPadding=1)  # fmt: skip
    svg = vl_convert.vegalite_to_svg(drawable(styled.to_dict(validate=False)), vl_version=_VEGA_LITE)
    return _themed(svg)


def _themed(svg: str) -> str:
    svg = svg.replace(_INK, "currentColor")
    svg = re.sub(rf'stroke="{_RULE}"', 'stroke="currentColor" stroke-opacity="0.18"', svg)
    return re.sub(r'(<svg[^>]*?) width="[\d.]+" height="[\d.]+"', r"\1", svg, count=1)
