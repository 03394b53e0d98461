"""Reliability and XIDs: what breaks, how often, and where again and again."""

from dataclasses import replace

from catalogue import GPU, GPU_HEALTH, ResourceKind
from dashboards import event_queries as events
from dashboards.board import HALL, RACK, TO_RUNBOOK, Board, Page
from dashboards.boards.shared import TO_GPU, Row, event_looks, marks
from dashboards.fleet_lines import DARK_GPUS, fleet_lines
from dashboards.looks import ANY_IS_BAD, ANY_IS_NOTED, COUNTED, NEARLY_ALL_STEPS, SHARE, Look, look_of, tinted
from dashboards.metrics import (
    GPU_STATE,
    HEALTH_ECC_UNCORRECTABLE,
    HEALTH_RECOVERY_ACTION,
    HEALTH_REMAP_FAILURE,
    HEALTH_REMAP_PENDING,
)
from dashboards.panels import NOTHING_HAPPENED, About, figure, lines, ranking, rows
from dashboards.queries import Place, Scope, Shown, figures, listing, rise, worst

CHOICES = (HALL, RACK)
GPUS = Scope((ResourceKind.GPU,), CHOICES)
XID = "kind = 'xid'"
FAULT = "kind != 'restored'"  # that something is back is none
OTHER_FAULT = f"{FAULT} AND kind != 'xid'"
NO_XIDS = "no XIDs in this range"
_STATE = worst(GPU_STATE)


def board() -> Board:
    return Board(
        page=Page.RELIABILITY,
        title="Kvandal / Reliability and XIDs",
        question="What breaks, how often, and is it the same thing again?",
        answer=(
            "Classes are the catalogue's: page, ticket, user, info. A GPU or node at the top of a list again and "
            "again is a lemon."
        ),
        choices=CHOICES,
        marks=marks(CHOICES),
        rows=(_figures(), _over_time(), _where(), _meaning(), _told()),
        since="now-30d",
        refresh="5m",
    )


def _figures() -> Row:
    paging = f"{XID} AND code IN ({events.paging_codes()})"
    pending, failed, ecc = worst(HEALTH_REMAP_PENDING), worst(HEALTH_REMAP_FAILURE), rise(HEALTH_ECC_UNCORRECTABLE)
    return (
        figure(
            About(title="XIDs", why="All errors that the driver told of."),
            events.events_counted(XID, CHOICES),
            {"Events": COUNTED},
        ),
        figure(
            About(title="XIDs that page", why="Those on which somebody has to act."),
            events.events_counted(paging, CHOICES),
            {"Events": replace(COUNTED, steps=ANY_IS_NOTED)},
        ),
        figure(
            About(title="Other faults", why="Network, host, power and cooling faults: everything that is no XID."),
            events.events_counted(OTHER_FAULT, CHOICES),
            {"Events": COUNTED},
        ),
        figure(
            About(title="GPUs never dark", why="The share of GPUs that could be read all the time.", of=(GPU_STATE,)),
            figures(GPU, [_STATE], GPUS, [Shown("Share", f"countIf({_STATE} < 3) / nullIf(count(), 0)")]),
            {"Share": replace(SHARE, decimals=2, steps=NEARLY_ALL_STEPS)},
        ),
        figure(
            About(title="Rows to remap", why="GPUs that need a reset at the next drain.", of=(HEALTH_REMAP_PENDING,)),
            figures(GPU_HEALTH, [pending], GPUS, [Shown("GPUs", f"countIf({pending} = 1)")]),
            {"GPUs": replace(COUNTED, steps=ANY_IS_NOTED)},
        ),
        figure(
            About(
                title="To be replaced",
                why="GPUs with a failed remap or errors that could not be corrected.",
                of=(HEALTH_REMAP_FAILURE, HEALTH_ECC_UNCORRECTABLE),
            ),
            figures(GPU_HEALTH, [failed, ecc], GPUS, [Shown("GPUs", f"countIf({failed} = 1 OR {ecc} > 0)")]),
            {"GPUs": replace(COUNTED, steps=ANY_IS_BAD)},
        ),
    )


def _over_time() -> Row:
    return (
        lines(
            About(title="XIDs by class", why="A burst of one class on many GPUs has one cause."),
            events.events_over_time(events.xid_class_case("code"), XID, CHOICES),
            COUNTED,
            named=True,
            stacked=True,
            bars=True,
            width=8,
            empty=NO_XIDS,
        ),
        lines(
            About(title="Faults by kind", why="Which part of the plant breaks the jobs."),
            events.events_over_time("kind", OTHER_FAULT, CHOICES),
            COUNTED,
            named=True,
            stacked=True,
            bars=True,
            width=8,
            empty=NOTHING_HAPPENED,
        ),
        lines(
            About(
                title="GPUs that cannot be read",
                why="Lost capacity, and how fast it comes back. As many as in the worst minute of each step.",
                of=(GPU_STATE,),
            ),
            fleet_lines(CHOICES, DARK_GPUS),
            COUNTED,
            width=8,
        ),
    )


def _where() -> Row:
    return (
        ranking(
            About(title="GPUs with most XIDs", why="Candidates for replacement."),
            events.events_by_place(Place.NAME, "GPU", XID, CHOICES),
            COUNTED,
            empty=NO_XIDS,
        ),
        ranking(
            About(
                title="Nodes with most faults",
                why="A node that fails several times as often as others is a lemon: 1 to 2 % are.",
            ),
            events.events_by_place(Place.TRAY, "Node", FAULT, CHOICES),
            COUNTED,
            empty=NOTHING_HAPPENED,
        ),
        ranking(
            About(title="Racks with most faults", why="Power, coolant and fabric are shared here."),
            events.events_by_place(Place.RACK, "Rack", FAULT, CHOICES),
            COUNTED,
            empty=NOTHING_HAPPENED,
        ),
    )


def _meaning() -> Row:
    pending, failed, ecc = worst(HEALTH_REMAP_PENDING), worst(HEALTH_REMAP_FAILURE), rise(HEALTH_ECC_UNCORRECTABLE)
    action = worst(HEALTH_RECOVERY_ACTION)
    return (
        rows(
            About(title="What the XIDs mean", why="From the number to what is to be done, by the catalogue of XIDs."),
            events.xid_ranking(),
            {"Events": COUNTED, "GPUs": COUNTED, "Runbook": Look(link=TO_RUNBOOK)},
            width=14,
            height=9,
            empty=NO_XIDS,
        ),
        rows(
            About(
                title="GPUs that ask for something",
                why="What the driver wants done, the most drastic first.",
                of=(HEALTH_RECOVERY_ACTION, HEALTH_REMAP_PENDING, HEALTH_REMAP_FAILURE, HEALTH_ECC_UNCORRECTABLE),
            ),
            listing(
                GPU_HEALTH,
                [action, pending, failed, ecc],
                GPUS,
                [
                    Shown("GPU", "place.name"),
                    Shown("Action", f"toUInt8({action})"),
                    Shown("Remap pending", f"toUInt8({pending})"),
                    Shown("Remap failed", f"toUInt8({failed})"),
                    Shown("Uncorrectable", str(ecc)),
                ],
                order='"Action" DESC, "Remap failed" DESC, "Uncorrectable" DESC, "Remap pending" DESC, "GPU"',
                where=f"{action} > 0 OR {pending} = 1 OR {failed} = 1 OR {ecc} > 0",
            ),
            {
                "GPU": Look(link=TO_GPU),
                "Action": tinted(look_of(HEALTH_RECOVERY_ACTION)),
                "Remap pending": tinted(look_of(HEALTH_REMAP_PENDING)),
                "Remap failed": tinted(look_of(HEALTH_REMAP_FAILURE)),
                "Uncorrectable": replace(COUNTED, steps=ANY_IS_BAD),
            },
            width=10,
            height=9,
            empty="no GPU asks for anything",
        ),
    )


def _told() -> Row:
    return (
        rows(
            About(title="What happened", why="The newest first."),
            events.event_list("1", CHOICES),
            event_looks(),
            empty=NOTHING_HAPPENED,
            width=24,
            height=9,
        ),
    )
