"""Site overview: one screen for the control room."""

from dataclasses import replace

from catalogue import GPU, POWER, RACK, ResourceKind
from dashboards import event_queries as events
from dashboards.board import HALL, SITE, Board, Page
from dashboards.boards.shared import METERS, POWER_BY_ROLE, SITE_POWER, TO_RACK, Row, alerts, ipue, marks, of_role
from dashboards.fleet_lines import DARK_GPUS, fleet_lines, fleet_mean
from dashboards.looks import (
    ANY_IS_BAD,
    COUNTED,
    LOAD_STEPS,
    NEARLY_ALL_STEPS,
    PUE_STEPS,
    RATIO,
    SHARE,
    Colour,
    Look,
    look_of,
    tinted,
)
from dashboards.metrics import (
    GPU_SM_ACTIVE,
    GPU_STATE,
    GPU_TENSOR_ACTIVE,
    METER_POWER,
    RACK_LEAK,
    RACK_POWER,
    RACK_RETURN,
    RACK_SUPPLY,
)
from dashboards.panels import About, figure, lines, plan, rows
from dashboards.queries import Scope, Shown, figures, floor_plan, latest, listing, mean, series, worst

RACKS = Scope((ResourceKind.RACK,), (SITE, HALL))
GPUS = Scope((ResourceKind.GPU,), (SITE, HALL))
_STATE = worst(GPU_STATE)


def board() -> Board:
    return Board(
        page=Page.SITE,
        title="Kvandal / Site overview",
        question="Is the site well, and if not, where?",
        answer=(
            "Green numbers and an even floor plan: nothing to do. A coloured cell of the plan says which rack to open."
        ),
        choices=(SITE, HALL),
        marks=marks((SITE, HALL)),
        rows=(_figures(), _plan_and_power(), _work_and_trouble()),
    )


def _figures() -> Row:
    readable = f"countIf({_STATE} = 1) / count()"
    return (
        figure(
            About(title="Site power", why="What we draw from the grid right now.", of=(METER_POWER,)),
            latest(POWER, [SITE_POWER], METERS, [Shown("Site power", of_role(SITE_POWER, "site"))]),
            {"Site power": look_of(METER_POWER, decimals=2)},
        ),
        figure(
            About(title="iPUE", why="Site energy over IT energy in this range: interim, not the yearly PUE."),
            figures(POWER, [SITE_POWER], METERS, [Shown("iPUE", ipue(SITE_POWER))]),
            {"iPUE": replace(RATIO, steps=PUE_STEPS)},
        ),
        figure(
            About(title="GPUs readable", why="A dark GPU is lost work or lost sight of it.", of=(GPU_STATE,)),
            latest(GPU, [_STATE], GPUS, [Shown("Readable", readable)]),
            {"Readable": replace(SHARE, decimals=2, steps=NEARLY_ALL_STEPS)},
        ),
        figure(
            About(title="GPUs at work", why="How busy what we paid for is.", of=(GPU_SM_ACTIVE,)),
            latest(GPU, [mean(GPU_SM_ACTIVE)], GPUS, [Shown("Active", f"avg({mean(GPU_SM_ACTIVE)})")]),
            {"Active": SHARE},
        ),
        figure(
            About(title="Racks with a leak", why="A leak is acted on at once.", of=(RACK_LEAK,)),
            latest(RACK, [worst(RACK_LEAK)], RACKS, [Shown("Racks", f"countIf({worst(RACK_LEAK)} IN (2, 3))")]),
            {"Racks": replace(COUNTED, steps=ANY_IS_BAD)},
        ),
        figure(
            About(title="XIDs that page", why="Errors on which somebody has to act now, in this range."),
            events.events_counted(f"kind = 'xid' AND code IN ({events.paging_codes()})", (SITE, HALL)),
            {"Events": replace(COUNTED, steps=((None, Colour.GOOD), (1.0, Colour.WARN)))},
        ),
    )


def _plan_and_power() -> Row:
    load = f"reading.{mean(RACK_POWER)} / toFloat64OrNull(standing.nominal_power_watts)"
    return (
        plan(
            About(
                title="Floor plan: power of each rack as a share of its nominal power",
                why="Shows at a glance which racks are off, idle or at their limit. Dark cells report nothing.",
                of=(RACK_POWER,),
            ),
            floor_plan(RACK, [mean(RACK_POWER)], (SITE, HALL), load),
            replace(SHARE, decimals=0, steps=((None, Colour.CALM), (0.3, Colour.GOOD), *LOAD_STEPS[1:])),
            height=9,
        ),
        lines(
            About(title="Where the power goes", why="IT should be nearly all of it.", of=(METER_POWER,)),
            series(POWER, [SITE_POWER], METERS, POWER_BY_ROLE),
            look_of(METER_POWER),
            stacked=True,
            height=9,
        ),
    )


def _work_and_trouble() -> Row:
    supply, back, leak = mean(RACK_SUPPLY), mean(RACK_RETURN), worst(RACK_LEAK)
    return (
        lines(
            About(
                title="How busy the GPUs are",
                why="A sudden step is a job that ended or broke.",
                of=(GPU_SM_ACTIVE, GPU_TENSOR_ACTIVE),
            ),
            fleet_lines(
                (SITE, HALL),
                [Shown("SM active", fleet_mean(GPU_SM_ACTIVE)), Shown("Tensor active", fleet_mean(GPU_TENSOR_ACTIVE))],
            ),
            SHARE,
            width=6,
        ),
        lines(
            About(
                title="GPUs that cannot be read",
                why="One GPU is a repair, many at once a common cause. As many as in the worst minute of each step.",
                of=(GPU_STATE,),
            ),
            fleet_lines((SITE, HALL), DARK_GPUS),
            COUNTED,
            width=4,
        ),
        alerts("What somebody is to act on: each leads to its runbook.", width=6),
        rows(
            About(
                title="Racks to look at first",
                why="A leak first, then the hottest coolant.",
                of=(RACK_LEAK, RACK_RETURN),
            ),
            listing(
                RACK,
                [mean(RACK_POWER), supply, back, leak],
                RACKS,
                [
                    Shown("Rack", "place.name"),
                    Shown("Leak", f"toUInt8({leak})"),
                    Shown("Return", str(back)),
                    Shown("Supply", str(supply)),
                    Shown("Power", str(mean(RACK_POWER))),
                ],
                order=f"{leak} DESC, {back} DESC",
                limit=20,
                now=True,
            ),
            {
                "Rack": Look(link=TO_RACK),
                "Leak": tinted(look_of(RACK_LEAK)),
                "Return": look_of(RACK_RETURN, decimals=1),
                "Supply": look_of(RACK_SUPPLY, decimals=1),
                "Power": look_of(RACK_POWER, decimals=1),
            },
            width=8,
        ),
    )
