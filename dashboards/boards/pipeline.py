"""Pipeline health: whether what the other pages show is all there, and how old it is."""

from dataclasses import replace

from dashboards.board import Board, Page
from dashboards.boards.shared import Row
from dashboards.frame_queries import (
    LONGEST_DELAY_S,
    ROWS_A_SECOND,
    frames_figures,
    frames_over_time,
    missing_ticks,
    silent_sources,
    sources_counted,
)
from dashboards.looks import ANY_IS_BAD, COUNTED, DELAY_STEPS, INSTANT, Colour, Look, tinted
from dashboards.panels import About, figure, lines, own_lines, rows
from dashboards.process_metrics import OwnMetric
from dashboards.targets import promql
from storage.frame_rollups import DELAY_S

SECONDS = Look(unit="s", decimals=1)
RATE = Look(unit="cps", decimals=1)
WINDOW = "$__rate_interval"


def board() -> Board:
    return Board(
        page=Page.PIPELINE,
        title="Kvandal / Pipeline health",
        question="Is every reading on its way into the store, and how old is what you see?",
        answer=(
            "The upper half is what the store itself knows of every frame; the lower half is what agents and ingest "
            "tell Prometheus. Lost rows must be zero."
        ),
        rows=(_figures(), _frames(), _sources(), _agents(), _agents_more(), _ingest()),
        since="now-1h",
    )


def _figures() -> Row:
    return (
        figure(
            About(title="Rows stored", why="In this range, by the frames' own count."),
            frames_figures("sumIf(rows, outcome = 'stored') AS \"Rows\""),
            {"Rows": Look(unit="short")},
            width=5,
        ),
        figure(
            About(
                title="From agent to store, 95 %", why="Time between sealing a frame and its rows being in the store."
            ),
            frames_figures(f'{DELAY_S} AS "Delay"'),
            {"Delay": replace(SECONDS, steps=DELAY_STEPS)},
            width=5,
        ),
        figure(
            About(title="Frames refused", why="Rejected or parked: readings that nobody can see until somebody looks."),
            frames_figures("sumIf(frames, outcome IN ('rejected', 'parked')) AS \"Frames\""),
            {"Frames": replace(COUNTED, steps=ANY_IS_BAD)},
            width=5,
        ),
        figure(
            About(
                title="Duplicates dropped",
                why="Sent again after a doubt; dropped by number, so that nothing counts twice.",
            ),
            frames_figures("sumIf(frames, outcome = 'duplicate') AS \"Frames\""),
            {"Frames": COUNTED},
            width=5,
        ),
        figure(
            About(title="Sources", why="How many agents and gateways were heard."),
            sources_counted("Sources"),
            {"Sources": COUNTED},
        ),
    )


def _frames() -> Row:
    return (
        lines(
            About(title="Rows stored, by table", why="A table that falls silent is a source or a topic that stopped."),
            frames_over_time(ROWS_A_SECOND),
            Look(unit="wps"),
            named=True,
            width=8,
        ),
        lines(
            About(
                title="Delay from agent to store, highest",
                why="Grows with a backlog; falls by itself when ingest catches up.",
            ),
            frames_over_time(LONGEST_DELAY_S),
            replace(SECONDS, steps=DELAY_STEPS),
            named=True,
            width=8,
        ),
        lines(
            About(title="Frames by outcome", why="Anything but stored wants a reason."),
            frames_over_time("toFloat64(sum(frames))", series="outcome"),
            COUNTED,
            named=True,
            stacked=True,
            bars=True,
            width=8,
        ),
    )


def _sources() -> Row:
    hours = (
        'SELECT table_name AS "Table", max(hour) AS "Newest hour", max(computed_at) AS "Computed", count() AS "Hours"\n'
        'FROM hours_computed FINAL GROUP BY table_name ORDER BY "Table"'
    )
    return (
        rows(
            About(title="Sources that are silent longest", why="The first to visit."),
            silent_sources(),
            {"Silent for": tinted(replace(SECONDS, decimals=0, steps=DELAY_STEPS)), "Last tick": INSTANT},
            width=10,
        ),
        rows(
            About(
                title="Ticks missing between frames",
                why="Numbered ticks that never came, by source: zero is the promise.",
            ),
            missing_ticks(),
            {"Missing": tinted(replace(COUNTED, steps=ANY_IS_BAD))},
            width=8,
        ),
        rows(
            About(
                title="Hours computed",
                why="What is long or of the whole fleet is read from them: they must be up to date.",
            ),
            hours,
            {"Newest hour": INSTANT, "Computed": INSTANT},
            width=6,
        ),
    )


def _rate(metric: OwnMetric, by: str) -> str:
    return f"sum by ({by}) (rate({metric}[{WINDOW}]))"


def _agents() -> Row:
    return (
        own_lines(
            About(title="Sources that do not answer", why="Each is blind for what it reads."),
            [promql(f"count by (source) ({OwnMetric.SOURCE_UP} == 0)", "{{source}}")],
            replace(COUNTED, steps=((None, Colour.GOOD), (1.0, Colour.BAD))),
        ),
        own_lines(
            About(title="Rows acknowledged by the broker", why="What agents have got rid of."),
            [promql(_rate(OwnMetric.PRODUCED, "topic"), "{{topic}}")],
            Look(unit="wps"),
        ),
        own_lines(
            About(title="Rows lost", why="The promise is none; each has a reason."),
            [promql(f"sum by (topic, reason) (increase({OwnMetric.LOST}[{WINDOW}]))", "{{topic}}: {{reason}}")],
            replace(COUNTED, steps=ANY_IS_BAD),
        ),
    )


def _agents_more() -> Row:
    return (
        own_lines(
            About(title="Spool", why="A spool that fills is a broker that is away; when full, the oldest is lost."),
            [promql(f"max({OwnMetric.SPOOL_BYTES} / {OwnMetric.SPOOL_LIMIT})", "fullest spool")],
            Look(unit="percentunit", decimals=1),
        ),
        own_lines(
            About(
                title="Time of one read, 99 %",
                why="Beyond the interval ticks are missed; a GPU that hangs shows here first.",
            ),
            [
                promql(
                    f"histogram_quantile(0.99, sum by (le, source) (rate({OwnMetric.READ_SECONDS}_bucket[{WINDOW}])))",
                    "{{source}}",
                )
            ],
            Look(unit="s", decimals=3),
        ),
        own_lines(
            About(title="Ticks missed", why="Readings that were never taken."),
            [promql(_rate(OwnMetric.MISSED, "source, reason"), "{{source}}: {{reason}}")],
            RATE,
        ),
    )


def _ingest() -> Row:
    return (
        own_lines(
            About(title="Age of the newest stored plan", why="How far behind each table is."),
            [promql(f"time() - max by (table) ({OwnMetric.LAST_PLAN})", "{{table}}")],
            replace(SECONDS, steps=DELAY_STEPS),
        ),
        own_lines(
            About(title="Retries", why="Something that ingest needs is away."),
            [promql(_rate(OwnMetric.RETRIES, "doing"), "{{doing}}")],
            RATE,
        ),
        own_lines(
            About(
                title="Bytes buffered by ingest, and records that expired",
                why="Expired records were never read: the topic's retention is too short.",
            ),
            [
                promql(f"sum({OwnMetric.BUFFERED})", "buffered"),
                promql(f"sum(increase({OwnMetric.EXPIRED}[{WINDOW}]))", "expired", "B"),
            ],
            Look(unit="bytes"),
        ),
    )
