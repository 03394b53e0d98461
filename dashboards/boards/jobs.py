"""Jobs and stragglers: who holds what, and which GPU holds its job back."""

from dataclasses import replace

from catalogue import GPU, ResourceKind
from dashboards import event_queries as events
from dashboards.board import Board, Listed, Page
from dashboards.boards.shared import TO_CUSTOMER, TO_GPU, TO_JOB, Row, event_looks, job_mark, marks
from dashboards.looks import (
    COUNTED,
    INSTANT,
    JOULES_PER_WATT_HOUR,
    OUTLIER_STEPS,
    SHARE,
    WATT_HOURS,
    Look,
    look_of,
    tinted,
)
from dashboards.metrics import (
    GPU_ENERGY,
    GPU_NVLINK_TRANSMIT,
    GPU_POWER,
    GPU_SM_ACTIVE,
    GPU_SM_CLOCK,
    GPU_TENSOR_ACTIVE,
)
from dashboards.panels import NOTHING_HAPPENED, About, figure, lines, rows
from dashboards.queries import Reading, Scope, Shown, figures, latest, mean, outliers, series, total

CUSTOMER = Listed("customer", "Customer", events.customer_values())
JOB = Listed("job", "Job", events.job_values(), several=False)
HELD = Scope((ResourceKind.GPU,), conditions=(events.held_resources(events.NAMED_JOB),))
RUNS = events.while_job_ran()
JOBS_TOLD_APART = 7  # more colours nobody tells apart

_POWER, _CLOCK, _SM = mean(GPU_POWER), mean(GPU_SM_CLOCK), mean(GPU_SM_ACTIVE)
_TENSOR, _SENT = mean(GPU_TENSOR_ACTIVE), mean(GPU_NVLINK_TRANSMIT)
SCORES = {"Clock score": _CLOCK, "Power score": _POWER, "SM score": _SM, "NVLink score": _SENT}


def board() -> Board:
    return Board(
        page=Page.JOBS,
        title="Kvandal / Jobs and stragglers",
        question="Which jobs run, what do they get for their power, and which GPU holds its job back?",
        answer=(
            "A slow GPU in a synchronous job has a low clock; those that wait for it have low power. "
            "Read both together."
        ),
        choices=(CUSTOMER, JOB),
        marks=(*marks(), job_mark(events.NAMED_JOB, shown=True)),
        rows=(_running(), _chosen(), _over_time(), _stragglers(), _told()),
        since="now-6h",
    )


def _running() -> Row:
    shown = [
        Shown("resource", "resource"),
        Shown("power", str(_POWER)),
        Shown("sm", str(_SM)),
        Shown("tensor", str(_TENSOR)),
    ]
    recent = latest(GPU, [_POWER, _SM, _TENSOR], Scope((ResourceKind.GPU,)), shown)
    return (
        rows(
            About(
                title="Jobs that run at the end of the range",
                why="The largest first: who holds the fleet, and how busy each keeps it.",
                of=(GPU_POWER, GPU_SM_ACTIVE, GPU_TENSOR_ACTIVE),
            ),
            events.running_jobs(recent),
            {
                "Job": Look(link=TO_JOB),
                "Customer": Look(link=TO_CUSTOMER),
                "Since": INSTANT,
                "Power": look_of(GPU_POWER, decimals=1),
                "SM": SHARE,
                "Tensor": SHARE,
            },
            width=14,
            height=9,
        ),
        lines(
            About(title="GPUs held by job", why="The largest by name; gaps are capacity that nobody used."),
            events.gpus_held_over_time(events.largest_jobs(JOBS_TOLD_APART)),
            COUNTED,
            named=True,
            stacked=True,
            width=10,
            height=9,
        ),
    )


def _chosen() -> Row:
    energy = total(GPU_ENERGY)
    facts = events.job_facts(
        [
            'any(name) AS "Name"',
            'any(customer) AS "Customer"',
            'toString(uniqExact(resource)) AS "GPUs"',
            "toString(toDateTime(min(start), 'UTC')) AS \"Since\"",
            "if(countIf(end IS NULL) > 0, 'runs', toString(toDateTime(max(end), 'UTC'))) AS \"Until\"",
        ]
    )
    return (
        rows(
            About(title="The chosen job", why="Whose it is and what it holds."),
            facts,
            {"Customer": Look(link=TO_CUSTOMER)},
            width=14,
            height=4,
        ),
        figure(
            About(
                title="GPU energy in this range",
                why="Of the chosen job, by its GPUs' own counters, while it ran.",
                of=(GPU_ENERGY,),
            ),
            figures(GPU, [energy], HELD, [Shown("Energy", f"sum({energy}) / {JOULES_PER_WATT_HOUR}")], during=RUNS),
            {"Energy": replace(WATT_HOURS, decimals=2)},
            width=5,
        ),
        figure(
            About(title="Mean GPU power", why="Low power at high activity is waiting.", of=(GPU_POWER,)),
            figures(GPU, [_POWER], HELD, [Shown("Power", f"avg({_POWER})")], during=RUNS),
            {"Power": look_of(GPU_POWER)},
            width=5,
        ),
    )


def _spread(reading: Reading) -> list[Shown]:
    return [
        Shown("Lowest", f"min({reading})"),
        Shown("Median", f"quantile(0.5)({reading})"),
        Shown("Highest", f"max({reading})"),
    ]


def _over_time() -> Row:
    return (
        lines(
            About(
                title="SM clock of the job's GPUs",
                why="All should run alike: a lowest line far below the median is a straggler.",
                of=(GPU_SM_CLOCK,),
            ),
            series(GPU, [_CLOCK], HELD, _spread(_CLOCK), during=RUNS),
            look_of(GPU_SM_CLOCK),
            width=8,
        ),
        lines(
            About(
                title="Power of the job's GPUs",
                why="Checkpoints and stalls show as common dips.",
                of=(GPU_POWER,),
            ),
            series(GPU, [_POWER], HELD, _spread(_POWER), during=RUNS),
            look_of(GPU_POWER),
            width=8,
        ),
        lines(
            About(
                title="NVLink traffic of the job",
                why="A job that computes and does not talk has lost its pace.",
                of=(GPU_NVLINK_TRANSMIT,),
            ),
            series(GPU, [_SENT], HELD, [Shown("Sent, mean of a GPU", f"avg({_SENT})")], during=RUNS),
            look_of(GPU_NVLINK_TRANSMIT),
            width=8,
        ),
    )


def _stragglers() -> Row:
    score = tinted(Look(decimals=1, steps=OUTLIER_STEPS))
    return (
        rows(
            About(
                title="Stragglers of the chosen job",
                why=(
                    "Robust z-scores within the job; below -3.5 a GPU is out of line. "
                    "Low clock: it is slow. Low power only: it waits."
                ),
                of=(GPU_SM_CLOCK, GPU_POWER, GPU_SM_ACTIVE, GPU_NVLINK_TRANSMIT),
            ),
            outliers(
                GPU,
                HELD,
                SCORES,
                [Shown("Clock", str(_CLOCK)), Shown("Power", str(_POWER))],
                order='least(ifNull("Clock score", 0), ifNull("Power score", 0))',
                during=RUNS,
            ),
            {
                "GPU": Look(link=TO_GPU),
                **dict.fromkeys(SCORES, score),
                "Clock": look_of(GPU_SM_CLOCK, decimals=2),
                "Power": look_of(GPU_POWER),
            },
            width=24,
            height=10,
        ),
    )


def _told() -> Row:
    return (
        rows(
            About(
                title="What happened on the job's GPUs",
                why="Before and after it too: what may have slowed or ended it, and what is to be done.",
            ),
            events.event_list(events.held_resources(events.NAMED_JOB)),
            event_looks(),
            empty=NOTHING_HAPPENED,
            width=24,
            height=7,
        ),
    )
