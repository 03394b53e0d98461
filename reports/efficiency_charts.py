"""Charts of the efficiency report as SVG text, drawn with the means of the site report's charts."""

from collections.abc import Mapping

import altair as alt
import polars as pl

from reports import charts
from reports.efficiency_hours import Allocation, Health
from reports.figures import JOULES_PER_MWH
from reports.period import Period

# Okabe and Ito's set again; unknown and unallocated are greys, so that they never look like a result.
HEALTH_COLOURS: Mapping[str, str] = {
    Health.HEALTHY: "#0072B2",
    Health.DEGRADED: "#F0C75E",
    Health.DOWN: "#D55E00",
    Health.MAINTENANCE: "#CC79A7",
    Health.UNKNOWN: "#9AA3AB",
}
ALLOCATION_COLOURS: Mapping[str, str] = {
    Allocation.BUSY: "#0072B2",
    Allocation.IDLE: "#D55E00",
    Allocation.UNALLOCATED: "#F0C75E",
    Allocation.HELD: "#9AA3AB",
}
_WIDTH, _HEIGHT = 500, 210


def axis_chart(hours: pl.DataFrame, axis: str, colours: Mapping[str, str], period: Period) -> str | None:
    """GPU time by part of the period and state of one axis, stacked to 100 %."""
    by_state = hours.group_by(period.part(pl.col("time")).alias("time"), kind=axis).agg(pl.col("milliseconds").sum())
    known = by_state.filter(pl.col("kind").is_in(list(colours)))
    if known.is_empty() or not known["milliseconds"].sum():
        return None
    whole = pl.col("milliseconds").sum().over("time")
    rows = labelled(known.with_columns(amount=100 * pl.col("milliseconds") / whole), period)
    present = {kind.capitalize(): colour for kind, colour in colours.items() if kind in set(known["kind"])}
    capitals = rows.with_columns(pl.col("kind").replace({str(kind): kind.capitalize() for kind in colours}))
    return stack(capitals, period, present, "GPU time (%)", domain=(0, 100))


def waste_chart(hours: pl.DataFrame, period: Period) -> str | None:
    """Energy of idle and of unallocated GPUs by part of the period, MWh."""
    words = {Allocation.IDLE.value: "Idle", Allocation.UNALLOCATED.value: "Stranded"}
    found = (
        hours.filter(pl.col("allocation").is_in(list(words)))
        .group_by(period.part(pl.col("time")).alias("time"), kind="allocation")
        .agg(amount=pl.col("joules").sum() / JOULES_PER_MWH)
        .with_columns(pl.col("kind").replace(words))
    )
    if found.is_empty():
        return None
    return stack(labelled(found, period), period, {"Idle": "#D55E00", "Stranded": "#F0C75E"}, "Energy (MWh)")


def activity_chart(parts: pl.DataFrame, period: Period) -> str | None:
    """Mean activity of the fleet by part of the period: SM, tensor pipes, memory; %."""
    names = {"sm": "SM", "tensor": "Tensor", "dram": "Memory"}
    means = [
        (100 * pl.col(f"{name}_weight").sum() / pl.col(f"{name}_s").sum()).alias(word) for name, word in names.items()
    ]
    found = parts.group_by(period.part(pl.col("time")).alias("time")).agg(means)
    rows = found.unpivot(index="time", variable_name="kind", value_name="amount").with_columns(
        pl.col("amount").fill_nan(None)
    )
    if rows["amount"].count() < 2:
        return None
    rows = labelled(rows, period)
    colours = {"SM": "#0072B2", "Tensor": "#D55E00", "Memory": "#009E73"}
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    colour = alt.Color("kind:N", scale=scale, legend=alt.Legend(orient="top", title=None))
    y = alt.Y("amount:Q", title="Active (%)", scale=alt.Scale(domain=[0, 100]))
    line = alt.Chart(charts.chart_data(rows.drop_nulls("amount"))).mark_line(strokeWidth=2)
    drawn = line.encode(x=charts.part_axis(rows, period), y=y, color=colour)
    return charts.svg(drawn.properties(width=_WIDTH, height=_HEIGHT))


def labelled(rows: pl.DataFrame, period: Period) -> pl.DataFrame:
    """Rows with the label of their part, as the site report's charts write it."""
    times = charts.with_labels(rows.select("time").unique(), period)
    return rows.join(times, on="time").sort("time", "kind").select("label", "kind", "amount")


def stack(
    rows: pl.DataFrame,
    period: Period,
    colours: Mapping[str, str],
    title: str,
    *,
    domain: tuple[float, float] | None = None,
) -> str:
    """Bars of label, kind and amount, stacked in the order of the colours."""
    order = {kind: position for position, kind in enumerate(colours)}
    placed = rows.with_columns(position=pl.col("kind").replace_strict(order, default=len(order), return_dtype=pl.Int64))
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    colour = alt.Color("kind:N", scale=scale, legend=alt.Legend(orient="top", title=None))
    y = alt.Y("amount:Q", title=title, scale=alt.Scale(domain=list(domain)) if domain else alt.Undefined)
    bars = alt.Chart(charts.chart_data(placed)).mark_bar()
    drawn = bars.encode(x=charts.part_axis(rows, period), y=y, color=colour, order="position:Q")
    return charts.svg(drawn.properties(width=_WIDTH, height=_HEIGHT))
