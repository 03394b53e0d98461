"""What each figure of the SLA report means, in the words that the report prints."""

from collections.abc import Mapping

from reports.figures import Definition

_UNITS = "All units of the contract, while it covers them."
_STATES = "Own definition; docs/reference/sla.md"
_REGISTER = "The contract, as in the register contracts"


def definitions() -> Mapping[str, Definition]:
    """All definitions by key."""
    rows = (
        ("technical", "Technical availability", "%", _UNITS,
         ("(healthy + degraded) / (all - maintenance), by telemetry alone. Unknown time is not available; if all of it "
          "was good, the figure would be the upper one."), _STATES),
        ("contractual", "Contractual availability", "%", _UNITS,
         ("(all - excluded - down) / (all - excluded). Down and maintenance that is not excluded count, unknown time "
          "as the contract says, outages shorter than its minimum do not."), _REGISTER),
        ("credit", "Credit", "% of price", _UNITS,
         ("For each unit the highest tier whose limit its contractual availability is below, up to the cap; then the "
          "mean over units, weighted by the time for which each was covered."), _REGISTER),
        ("credit_money", "Credit in money", "", _UNITS,
         "Sum over units of price x share of the month for which the unit was covered x its credit.", _REGISTER),
        ("budget", "Error budget used", "%", _UNITS,
         ("Counted downtime / ((1 - target) x time that is not excluded). Above 100 % the target is missed."),
         "Google, Site Reliability Engineering (2016), chapter 3; read second-hand"),
        ("burn", "Highest burn rate", "", _UNITS,
         "Unavailable share of the worst day (of a day: hour) / (1 - target). At 1 the budget just lasts.",
         "Google, The Site Reliability Workbook (2018), chapter 5; read second-hand"),
        ("mtbf", "MTBF", "h", _UNITS,
         "Working time of all units / failures. A failure is an outage with something down that began in the period.",
         _STATES),
        ("mttr", "MTTR", "h", "Failures that were seen from begin to end.",
         "Mean time from the failure until the unit was back in service.", _STATES),
    )  # fmt: skip
    return {row[0]: Definition(**dict(zip(_FIELDS, row, strict=True))) for row in rows}


_FIELDS = ("key", "title", "unit", "boundary", "method", "source")
