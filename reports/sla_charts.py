"""The chart of an SLA report as SVG text, drawn with the means of the other reports' charts."""

import polars as pl

from reports.efficiency_charts import labelled, stack
from reports.efficiency_hours import Health
from reports.period import Period
from reports.sla_account import Counts
from reports.sweep import HOUR_MS, milliseconds

COLOURS = {"Counted": "#D55E00", "Excluded": "#56B4E9", "Not counted": "#9AA3AB"}


def budget_chart(days: pl.DataFrame, period: Period) -> str | None:
    """Unit-hours that were not up, by part of the period and by what they count as; nothing where all was up.

    `days`: an ACCOUNT cut at the parts of the period, with `time`, their local start.
    """
    lost = ~pl.col("health").is_in([Health.HEALTHY.value, Health.DEGRADED.value])
    kind = (
        pl.when(pl.col("counts") == Counts.DOWN)
        .then(pl.lit("Counted"))
        .when(pl.col("counts") == Counts.EXCLUDED)
        .then(pl.lit("Excluded"))
        .when(lost)
        .then(pl.lit("Not counted"))
    )
    found = days.with_columns(kind=kind).group_by("time", "kind").agg(amount=milliseconds().sum() / HOUR_MS)
    if found.filter(pl.col("kind").is_not_null()).is_empty():
        return None
    # Days on which all was up are days, too.
    shown = found.with_columns(
        amount=pl.when(pl.col("kind").is_not_null()).then("amount").otherwise(0.0),
        kind=pl.col("kind").fill_null("Counted"),
    )
    return stack(labelled(shown.group_by("time", "kind").agg(pl.col("amount").sum()), period), period, COLOURS, "Hours")
