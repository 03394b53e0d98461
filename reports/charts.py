"""Charts of the site report as SVG text: drawn here, so that the page needs neither network nor script.

The colours stay apart for colour-blind eyes (Okabe and Ito's set) and, by their lightness, on a
grey printer. Everything that is ink or paper is coloured by the page's style sheet.
"""

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Literal

import altair as alt
import polars as pl
import vl_convert

from catalogue.seen import drawable
from reports.figures import JOULES_PER_MWH, THIN_SPACE, Peak
from reports.period import Period, Span

# Base units that suit people are chosen here once: the page speaks of MWh, kW and °C.
WATTS_PER_KW = 1e3
# Hours of which less was observed are drawn apart: their energy is known, their profile is not.
SEEN_COVERAGE = 0.5
# Ratios of parts with less coverage are drawn hollow.
FIRM_COVERAGE = 0.95

IT, COOLING, REST = "#0072B2", "#56B4E9", "#F0C75E"
HANDED_OVER, REJECTED = "#D55E00", "#F3B78A"
LINE, ACCENT = "#0072B2", "#D55E00"
PAPER = "#fffffe"  # the style sheet finds it by this value and gives it the page's own colour

_WIDTH, _WIDE = 500, 880  # in pixels, before the page scales them
_HEIGHT = 210
_VEGA_LITE = "6.4"
_NUMBERS = {"decimal": ".", "thousands": THIN_SPACE, "grouping": [3], "currency": ["", ""]}
_PART_FORMATS = {Span.DAY: "%H", Span.MONTH: "%-d", Span.YEAR: "%b"}
_PART_TITLES = {Span.DAY: "Hour of %-d %B %Y", Span.MONTH: "Day of %B %Y", Span.YEAR: "Month of %Y"}


def energy_chart(parts: pl.DataFrame, period: Period) -> str | None:
    """Energy by part of the period, stacked: IT, cooling, other and losses; MWh."""
    kinds = {"it_joules": "IT", "cooling_joules": "Cooling", "rest_joules": "Other and losses"}
    rows = _stacked(parts, period, kinds)
    if rows is None:
        return None
    colours = dict(zip(kinds.values(), (IT, COOLING, REST), strict=True))
    return svg(_bars(rows, period, colours, "Energy (MWh)").properties(width=_WIDTH, height=_HEIGHT))


def ipue_chart(parts: pl.DataFrame, period: Period, whole: float | None) -> str | None:
    """iPUE by part of the period, and that of the whole period as a rule."""
    rows = with_labels(parts, period).with_columns(
        ipue=pl.when(pl.col("paired_it") > 0).then(pl.col("paired_site") / pl.col("paired_it")),
        firm=pl.col("coverage") >= FIRM_COVERAGE,
    )
    if whole is None or rows["ipue"].count() < 2:
        return None
    y = alt.Y("ipue:Q", title="iPUE", scale=alt.Scale(zero=False, nice=True, padding=12))
    base = alt.Chart(chart_data(rows.select("label", "ipue", "firm"))).encode(x=part_axis(rows, period), y=y)
    line = base.mark_line(color=LINE, strokeWidth=2)
    fill = alt.condition("datum.firm", alt.value(LINE), alt.value(PAPER))
    points = base.mark_point(size=34, filled=True, opacity=1, stroke=LINE, strokeWidth=1.5).encode(fill=fill)
    rule = (
        alt.Chart(chart_data(pl.DataFrame({"ipue": [whole]})))
        .mark_rule(color=ACCENT, strokeDash=[5, 4], strokeWidth=1.5)
        .encode(y="ipue:Q")
    )
    return svg((rule + line + points).properties(width=_WIDTH, height=_HEIGHT))


def heat_chart(parts: pl.DataFrame, temperatures: pl.DataFrame, period: Period) -> str | None:
    """Heat by part of the period, stacked, over the supply temperature at the hand-over; MWh and °C.

    `temperatures`: time (local start of the part), celsius.
    """
    kinds = {"heat_handed_over_joules": "Handed over", "heat_rejected_joules": "Rejected"}
    rows = _stacked(parts, period, kinds)
    if rows is None:
        return None
    colours = dict(zip(kinds.values(), (HANDED_OVER, REJECTED), strict=True))
    title = "Heat (MWh)"
    warmth = with_labels(parts, period).join(temperatures, on="time", how="left").select("label", "celsius")
    y = alt.Y("celsius:Q", title="Supply (°C)", scale=alt.Scale(zero=False, padding=8), axis=alt.Axis(tickCount=3))
    points = alt.OverlayMarkDef(size=22, color=HANDED_OVER)
    line = alt.Chart(chart_data(warmth)).mark_line(color=HANDED_OVER, strokeWidth=2, point=points)
    below = line.encode(x=part_axis(warmth, period), y=y).properties(width=_WIDTH, height=66)
    if not warmth["celsius"].count():
        return svg(_bars(rows, period, colours, title).properties(width=_WIDTH, height=_HEIGHT))
    bars = _bars(rows, period, colours, title, labels=False).properties(width=_WIDTH, height=_HEIGHT - 84)
    return svg(alt.vconcat(bars, below, spacing=10))


def power_chart(hours: pl.DataFrame, peak: Peak | None, period: Period) -> str | None:
    """Mean site power by hour, with the highest quarter hour marked; kW."""
    # The last hour has a right edge, too.
    last = hours.tail(1).with_columns(time=pl.lit(period.end).dt.convert_time_zone(period.zone).dt.cast_time_unit("ms"))
    rows = pl.concat([hours, last]).select(
        time=_elapsed(period),
        power=pl.col("watts") / WATTS_PER_KW,
        seen=pl.col("coverage") >= SEEN_COVERAGE,
    )
    if rows["power"].count() < 2:
        return None
    y = alt.Y("power:Q", title="Site power (kW)", scale=alt.Scale(zero=False, padding=16))
    base = alt.Chart(chart_data(rows)).encode(x=_time_axis(period), y=y)
    seen = base.transform_calculate(power="datum.seen ? datum.power : null")
    layers: list[alt.Chart] = [
        seen.mark_line(color=LINE, strokeWidth=1.6, interpolate="step-after"),
        base.transform_filter("!datum.seen").mark_tick(color="#8A929A", thickness=2, width=5, orient="horizontal"),
    ]
    if peak is not None:
        layers += _peak_marks(peak, period)
    return svg(alt.layer(*layers).properties(width=_WIDE, height=_HEIGHT))


def gpu_chart(gpus: pl.DataFrame, period: Period) -> str | None:
    """Power of a GPU: the fleet's median and the middle 90 %; and how busy the fleet was; W and %."""
    rows = gpus.select(
        "watts_low", "watts_median", "watts_high", time=_elapsed(period), activity=pl.col("sm_active") * 100
    )
    if rows["watts_median"].count() < 2:
        return None
    data = chart_data(rows)
    x = _time_axis(period)
    y = alt.Y("watts_low:Q", title="GPU power (W)")
    band = (
        alt.Chart(data)
        .mark_area(color=LINE, opacity=0.22)
        .encode(x=_time_axis(period, labels=False), y=y, y2="watts_high:Q")
    )
    median = (
        alt.Chart(data)
        .mark_line(color=LINE, strokeWidth=2)
        .encode(x=_time_axis(period, labels=False), y="watts_median:Q")
    )
    power = (band + median).properties(width=_WIDTH, height=_HEIGHT - 84)
    busy = alt.Y("activity:Q", title="SM active (%)", scale=alt.Scale(domain=[0, 100]), axis=alt.Axis(tickCount=3))
    activity = alt.Chart(data).mark_line(color=ACCENT, strokeWidth=2).encode(x=x, y=busy)
    return svg(alt.vconcat(power, activity.properties(width=_WIDTH, height=66), spacing=10))


def _peak_marks(peak: Peak, period: Period) -> list[alt.Chart]:
    when = pl.DataFrame({"time": [peak.time]}).select(time=_elapsed(period))
    text = f"15-min peak {peak.watts / WATTS_PER_KW:,.0f} kW".replace(",", THIN_SPACE)
    row = when.with_columns(power=pl.lit(peak.watts / WATTS_PER_KW), text=pl.lit(text))
    middle = period.start + (period.end - period.start) / 2
    align: Literal["left", "right"] = "right" if peak.time > middle else "left"
    dx = -9 if align == "right" else 9
    base = alt.Chart(chart_data(row)).encode(x=_time_axis(period), y="power:Q")
    return [
        base.mark_point(color=ACCENT, size=70, filled=True, opacity=1),
        base.mark_text(align=align, dx=dx, dy=-2, fontWeight=600).encode(text="text:N"),
    ]


def _stacked(parts: pl.DataFrame, period: Period, kinds: Mapping[str, str]) -> pl.DataFrame | None:
    """Long form for stacked bars: label, kind, position, mwh; None when there is nothing to stack."""
    rows = (
        with_labels(parts, period)
        .rename(dict(kinds))
        .select("label", *kinds.values())
        .unpivot(index="label", variable_name="kind", value_name="joules")
        .with_columns(
            # A negative rest is an error of the balance, which the table states; a bar cannot.
            mwh=pl.col("joules").clip(lower_bound=0.0) / JOULES_PER_MWH,
            position=pl.col("kind").replace_strict(list(kinds.values()), range(len(kinds)), return_dtype=pl.Int64),
        )
        .drop("joules")
    )
    return rows if rows["mwh"].count() else None


def _bars(
    rows: pl.DataFrame, period: Period, colours: Mapping[str, str], title: str, *, labels: bool = True
) -> alt.Chart:
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    colour = alt.Color("kind:N", scale=scale, legend=alt.Legend(orient="top", title=None))
    bars: alt.Chart = alt.Chart(chart_data(rows)).mark_bar()
    x, y = part_axis(rows, period, labels=labels), alt.Y("mwh:Q", title=title)
    encoded: alt.Chart = bars.encode(x=x, y=y, color=colour, order="position:Q")
    return encoded


def with_labels(parts: pl.DataFrame, period: Period) -> pl.DataFrame:
    """Parts with a label; the hour that comes twice when clocks go back gets a stroke."""
    label = pl.col("time").dt.strftime(_PART_FORMATS[period.span])
    again = ~pl.col("label").is_first_distinct()
    stroke = pl.when(again).then(pl.lit("\u2032")).otherwise(pl.lit(""))
    return parts.sort("time").with_columns(label=label).with_columns(label=pl.col("label") + stroke)


def part_axis(rows: pl.DataFrame, period: Period, *, labels: bool = True) -> alt.X:
    # Said outright: marks without a value would take their label with them, and no two charts would agree.
    scale = alt.Scale(domain=rows["label"].unique(maintain_order=True).to_list())
    title = period.local(period.start).strftime(_PART_TITLES[period.span]) if labels else None
    return alt.X(
        "label:O",
        title=title,
        sort=None,
        scale=scale,
        axis=alt.Axis(labelAngle=0, labels=labels, labelOverlap="parity"),
    )


def _time_axis(period: Period, *, labels: bool = True) -> alt.X:
    title = f"{period.local(period.start):%B %Y}" if period.span is Span.MONTH else period.text
    if period.local(period.start).utcoffset() != period.local(period.end).utcoffset():
        title += ", clock as at its start"
    form = {Span.DAY: "%H:%M", Span.MONTH: "%-d", Span.YEAR: "%b"}[period.span]
    ticks: Any = {Span.DAY: 12, Span.MONTH: {"interval": "day", "step": 1}, Span.YEAR: "month"}[period.span]
    axis = alt.Axis(format=form, labels=labels, tickCount=ticks, labelOverlap="parity")
    return alt.X("time:T", title=title if labels else None, scale=alt.Scale(type="utc", nice=False), axis=axis)


def _elapsed(period: Period) -> pl.Expr:
    """The local time at the offset with which the period began, written as if it were UTC.

    So no chart depends on the time zone of the machine, and no hour is drawn on top of another.
    """
    offset = period.local(period.start).utcoffset()
    moved = pl.col("time").dt.convert_time_zone("UTC").dt.offset_by(f"{int(offset.total_seconds() if offset else 0)}s")
    return moved.dt.strftime("%Y-%m-%dT%H:%M:%SZ")


def chart_data(rows: pl.DataFrame) -> alt.InlineData:
    return alt.InlineData(values=rows.to_dicts())


def svg(chart: alt.TopLevelMixin) -> str:
    spec = chart.to_dict()
    spec["config"] = _CONFIG
    drawn = vl_convert.vegalite_to_svg(drawable(spec), vl_version=_VEGA_LITE, format_locale=_NUMBERS)
    return _free_standing(drawn)


def _free_standing(svg: str) -> str:
    """An SVG that scales with the page and may stand beside others: no size, ids of its own."""
    scaled = re.sub(r'^<svg([^>]*?) width="[\d.]+" height="[\d.]+"', r"<svg\1", svg)
    mark = blake2b(svg.encode(), digest_size=4).hexdigest()
    return re.sub(r'(id="|url\(#)([\w-]+)', rf"\g<1>c{mark}-\g<2>", scaled)


_CONFIG: Mapping[str, Any] = {
    "aria": False,
    "background": None,
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelFontSize": 11,
        "titleFontSize": 11.5,
        "titleFontWeight": 500,
        "titlePadding": 8,
        "labelPadding": 4,
        "tickSize": 4,
        "domainColor": "#7A838C",
        "tickColor": "#7A838C",
        "gridColor": "#E3E7EB",
        "labelColor": "#3F4750",
        "titleColor": "#3F4750",
    },
    "axisX": {"grid": False},
    "axisY": {"domain": False, "ticks": False, "tickCount": 5},
    "legend": {"labelFontSize": 11.5, "symbolType": "square", "symbolSize": 90, "labelColor": "#3F4750", "offset": 10},
    "scale": {"bandPaddingInner": 0.22},
}
