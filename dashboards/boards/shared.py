"""What several dashboards show alike."""

from catalogue import ResourceKind
from dashboards import event_queries as events
from dashboards.board import TO_RUNBOOK, AlertMark, Mark, Page, page_link
from dashboards.looks import INSTANT, Colour, Look
from dashboards.metrics import METER_POWER
from dashboards.panels import About, Placed, alert_rows
from dashboards.queries import Choice, Fact, Scope, Shown, mean

Row = tuple[Placed, ...]

METERS = Scope((ResourceKind.METER, ResourceKind.FEEDER), roles=("site", "it", "cooling", "other"))
HEAT_METERS = Scope((ResourceKind.HEAT_METER,), roles=("heat_handed_over", "heat_rejected", "heat_own_use"))

SITE_POWER = mean(METER_POWER)


def of_role(reading: object, role: str) -> str:
    """The sum of a reading over the meters of one role; NULL, not 0, where no meter has it."""
    is_role = f"{Fact.ROLE} = '{role}'"
    return f"sumIf({reading}, {is_role} AND {reading} IS NOT NULL) / if(countIf({is_role}) = 0, NULL, 1)"


def ipue(reading: object) -> str:
    return f"{of_role(reading, 'site')} / nullIf({of_role(reading, 'it')}, 0)"


POWER_BY_ROLE = (
    Shown("IT", of_role(SITE_POWER, "it")),
    Shown("Cooling", of_role(SITE_POWER, "cooling")),
    Shown("Other", of_role(SITE_POWER, "other")),
    Shown(
        "Losses",
        f"greatest(0, {of_role(SITE_POWER, 'site')} - {of_role(SITE_POWER, 'it')} "
        f"- {of_role(SITE_POWER, 'cooling')} - ifNull({of_role(SITE_POWER, 'other')}, 0))",
    ),
)

TO_RACK = page_link(Page.RACK, "This rack", "rack")
TO_GPU = page_link(Page.GPU, "This GPU", "gpu")
TO_JOB = page_link(Page.JOBS, "This job", "job")
TO_CUSTOMER = page_link(Page.CUSTOMERS, "This customer", "customer")


def marks(
    choices: tuple[Choice, ...] = (), conditions: tuple[str, ...] = (), alerts: str = ""
) -> tuple[Mark | AlertMark, ...]:
    """What explains a bend in a line: alerts, XIDs that page, maintenance, leaks; jobs where asked for.

    `alerts` narrows the alerts to a place, by a label: rack="${rack}".
    """
    told = (
        ("XIDs that page", f"kind = 'xid' AND code IN ({events.paging_codes()})", Colour.BAD),
        ("Maintenance", events.MAINTENANCE, Colour.CALM),
        ("Leaks and trips", "kind IN ('leak', 'cdu', 'power_shelf') AND NOT (kind = 'leak' AND code = 1)", Colour.WARN),
    )
    raised = AlertMark("Alerts", standing_alerts(alerts), Colour.WARN)
    return raised, *(Mark(name, events.event_marks(where, choices, conditions), colour) for name, where, colour in told)


def standing_alerts(narrowed: str = "") -> str:
    """PromQL: what Prometheus' rules raise and somebody is to look at; incidents from events are marks of their own."""
    wanted = ('alertstate="firing"', 'severity=~"page|ticket"', narrowed)
    return f"ALERTS{{{', '.join(filter(None, wanted))}}}"


def alerts(why: str, narrowed: str = "", *, width: int = 8, height: int = 8) -> Placed:
    """The alerts that stand: from each to its runbook and its rack."""
    looks = {
        "alertname": Look(link=TO_RUNBOOK), "severity": Look(), "place": Look(), "rack": Look(link=TO_RACK),
    }  # fmt: skip
    about = About(title="Alerts that stand", why=why)
    return alert_rows(about, standing_alerts(narrowed), looks, width=width, height=height)


def event_looks() -> dict[str, Look]:
    """Of a list of events: from each to its rack, its GPU and what to do."""
    return {
        "Time": INSTANT, "Rack": Look(link=TO_RACK), "GPU": Look(link=TO_GPU), "Runbook": Look(link=TO_RUNBOOK),
    }  # fmt: skip


def job_mark(where: str, *, shown: bool = False) -> Mark:
    return Mark("Jobs", events.job_marks(where), Colour.UNKNOWN, shown)
