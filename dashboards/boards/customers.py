"""Customers: what each held, and how much of it could be used. No SLA: see `kvandal report sla`."""

from dataclasses import replace

from catalogue import GPU, ResourceKind
from dashboards import event_queries as events
from dashboards.board import Board, Page
from dashboards.boards.jobs import CUSTOMER
from dashboards.boards.shared import TO_CUSTOMER, TO_JOB, Row, job_mark
from dashboards.looks import COUNTED, INSTANT, JOULES_PER_WATT_HOUR, NEARLY_ALL_STEPS, SHARE, WATT_HOURS, Look, tinted
from dashboards.metrics import GPU_ENERGY, GPU_SM_ACTIVE, GPU_STATE
from dashboards.panels import NOTHING_HAPPENED, About, lines, ranking, rows
from dashboards.queries import Scope, Tier, by_resource, mean, total, worst

GPUS = Scope((ResourceKind.GPU,))
HOUR_S = 3600
_STATE, _SM, _ENERGY = worst(GPU_STATE), mean(GPU_SM_ACTIVE), total(GPU_ENERGY)


def board() -> Board:
    return Board(
        page=Page.CUSTOMERS,
        title="Kvandal / Customers",
        question="What did each customer hold, and how much of it could be used?",
        answer=(
            "Availability here is what telemetry saw: hours of held GPUs in which no reading was dark. It is no SLA "
            "result: that needs contract terms, and stands in the report."
        ),
        choices=(CUSTOMER,),
        marks=(job_mark(events.CHOSEN_CUSTOMERS),),
        rows=(_held(), _use(), _jobs()),
        since="now-7d",
        refresh="5m",
    )


def _held() -> Row:
    return (
        lines(
            About(title="GPUs held by customer", why="Who has the fleet, and when capacity was free."),
            events.gpus_held_over_time("customer"),
            COUNTED,
            named=True,
            stacked=True,
            width=14,
        ),
        rows(
            About(title="Held in this range", why="The figure that is billed starts from here."),
            events.held_by_customer(),
            {"Customer": Look(link=TO_CUSTOMER), "GPU-hours": Look(decimals=0)},
            width=10,
        ),
    )


def _use() -> Row:
    seen = f"countIf({_STATE} IS NOT NULL)"
    available = f"countIf({_STATE} < 3) / nullIf({seen}, 0)"
    hours = by_resource(GPU, [_STATE, _SM, _ENERGY], GPUS, finest=Tier.MINUTE, bucket_s=HOUR_S)
    energy = f"sum({_ENERGY}) / {JOULES_PER_WATT_HOUR}"
    table = events.held_buckets(
        hours,
        f'held.customer AS "Customer", {available} AS "Available", avg({_SM}) AS "SM active", {energy} AS "GPU energy"',
        'held.customer ORDER BY "Available"',
    )
    over_time = events.held_buckets(
        hours,
        f"reading.bucket AS time, held.customer AS series, {available} AS value",
        "time, series ORDER BY time, series",
    )
    return (
        rows(
            About(
                title="Availability and use of held GPUs",
                why="The lowest availability first: who has to be told. Hours with a dark reading count as lost whole.",
                of=(GPU_STATE, GPU_SM_ACTIVE, GPU_ENERGY),
            ),
            table,
            {
                "Customer": Look(link=TO_CUSTOMER),
                "Available": tinted(replace(SHARE, decimals=3, steps=NEARLY_ALL_STEPS)),
                "SM active": SHARE,
                "GPU energy": replace(WATT_HOURS, decimals=2),
            },
            width=10,
        ),
        lines(
            About(title="Availability of held GPUs over time", why="When it was lost.", of=(GPU_STATE,)),
            over_time,
            replace(SHARE, decimals=2, lowest=None),
            named=True,
            width=14,
        ),
    )


def _jobs() -> Row:
    return (
        ranking(
            About(
                title="Faults on held GPUs", why="Events on a GPU while a customer held it: what may have broken a job."
            ),
            events.faults_on_held(),
            COUNTED,
            empty=NOTHING_HAPPENED,
        ),
        rows(
            About(title="Jobs", why="From the customer to each of his jobs."),
            events.jobs_of_customers(),
            {"Job": Look(link=TO_JOB), "Since": INSTANT, "Until": INSTANT},
            width=16,
        ),
    )
