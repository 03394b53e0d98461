"""Charts of the sustainability report: colours that colour-blind eyes and grey printers keep apart."""

from typing import Any

import altair as alt
import polars as pl

from reports.charts import COOLING, IT, LINE, REST, chart_data, svg
from reports.figures import JOULES_PER_MWH
from reports.render import Chart

_WIDTH, _HEIGHT = 760, 190
_KINDS = {"it_joules": ("IT", IT), "cooling_joules": ("Cooling", COOLING), "rest_joules": ("Other and losses", REST)}


def months_chart(months: pl.DataFrame) -> Chart:
    """Energy and iPUE of each month. `months`: as `figures.by_part` gives them."""
    rows = months.with_columns(
        label=pl.col("time").dt.strftime("%b %y"),
        ipue=pl.when(pl.col("paired_it") > 0).then(pl.col("paired_site") / pl.col("paired_it")),
    )
    return Chart(
        "Energy and iPUE by month",
        "Above: where the site's energy went, in MWh. Below: site energy over IT energy of each month.",
        None if not rows["ipue"].count() else svg(alt.vconcat(_bars(rows), _line(rows), spacing=12)),
        wide=True,
    )


def _x(rows: pl.DataFrame, *, labels: bool) -> alt.X:
    scale = alt.Scale(domain=rows["label"].to_list())
    return alt.X("label:O", title=None, sort=None, scale=scale, axis=alt.Axis(labelAngle=0, labels=labels))


def _bars(rows: pl.DataFrame) -> alt.Chart:
    long = pl.concat(
        rows.select("label", kind=pl.lit(name), place=pl.lit(place), mwh=pl.col(column).clip(0.0) / JOULES_PER_MWH)
        for place, (column, (name, _)) in enumerate(_KINDS.items())
    )
    names, colours = zip(*_KINDS.values(), strict=True)
    colour = alt.Color(
        "kind:N", scale=alt.Scale(domain=list(names), range=list(colours)), legend=alt.Legend(orient="top", title=None)
    )
    y: Any = alt.Y("mwh:Q", title="Energy (MWh)")
    bars: alt.Chart = alt.Chart(chart_data(long)).mark_bar()
    encoded: alt.Chart = bars.encode(x=_x(rows, labels=False), y=y, color=colour, order="place:Q")
    return encoded.properties(width=_WIDTH, height=_HEIGHT)


def _line(rows: pl.DataFrame) -> alt.Chart:
    known = rows["ipue"].drop_nulls().to_list()
    # A single month has no spread from which a scale could follow.
    room = max(0.01, 0.1 * (max(known) - min(known)))
    scale = alt.Scale(domain=[min(known) - room, max(known) + room], nice=True)
    y = alt.Y("ipue:Q", title="iPUE", scale=scale, axis=alt.Axis(tickCount=4))
    base: alt.Chart = alt.Chart(chart_data(rows.select("label", "ipue")))
    line: alt.Chart = base.mark_line(color=LINE, strokeWidth=2, point=alt.OverlayMarkDef(size=36, color=LINE))
    return line.encode(x=_x(rows, labels=True), y=y).properties(width=_WIDTH, height=90)


def renewables_chart(parts: pl.DataFrame) -> Chart:
    """What certificates cover of the energy of each instrument. `parts`: label, mwh."""
    bars: alt.Chart = alt.Chart(chart_data(parts)).mark_bar(color=IT)
    y = alt.Y("label:N", title=None, sort=None)
    drawn = bars.encode(x=alt.X("mwh:Q", title="Energy (MWh)"), y=y).properties(width=_WIDTH - 160, height=100)
    return Chart(
        "Energy used and certificates",
        "The site's energy, and the certificates that count towards it.",
        svg(drawn) if parts["mwh"].count() else None,
        wide=True,
    )
