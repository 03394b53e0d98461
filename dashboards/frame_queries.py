# ruff: noqa: S608 - names come from this module
"""SQL over ingest's own log of frames: computed hours come from its rollups, the rest of the range from its lines."""

from dashboards.queries import whole_hours
from storage.frame_rollups import FRAME_MINUTES, FRAMES, SOURCE_HOURS, FrameRollup

_STEP_S = "greatest(60, $__interval_s)"
ROWS_A_SECOND = f"sumIf(rows, outcome = 'stored') / {_STEP_S}"
LONGEST_DELAY_S = "max(longest_delay_ms) / 1000"


def frames_over_time(value: str, *, series: str = "table_name") -> str:
    """Frames by when ingest took them, one series for each table or outcome; `value` is over FRAME_MINUTES."""
    return (
        f"SELECT toStartOfInterval(told.time, INTERVAL {_STEP_S} second) AS time, "
        f"toString({series}) AS series, {value} AS value\n"
        f"FROM (\n{_told(FRAME_MINUTES)}\n) AS told\nGROUP BY time, series ORDER BY time, series"
    )


def frames_figures(shown: str) -> str:
    """One row over the range; `shown` is over FRAME_MINUTES."""
    return f"SELECT {shown} FROM (\n{_told(FRAME_MINUTES)}\n) AS told"


def sources_counted(name: str) -> str:
    """One figure: how many sources sent something."""
    return f'SELECT uniqExact(source) AS "{name}" FROM (\n{_told(SOURCE_HOURS)}\n) AS told'


def silent_sources() -> str:
    """The sources that have been silent longest at the end of the range."""
    return (
        "SELECT hex(source) AS \"Source\", arrayStringConcat(arraySort(groupUniqArray(toString(table_name))), ', ') "
        'AS "Tables", max(last_tick) AS "Last tick", dateDiff(\'second\', max(last_tick), $__toTime) AS "Silent for", '
        f'sum(ticks) AS "Ticks"\nFROM (\n{_told(SOURCE_HOURS)}\n) AS told\n'
        'GROUP BY source ORDER BY "Silent for" DESC LIMIT 50'
    )


def missing_ticks() -> str:
    """The ticks that the numbers of stored frames leave out, by source and table, most first."""
    return (
        'SELECT hex(source) AS "Source", toString(table_name) AS "Table", '
        'max(end_sequence) - min(first_sequence) AS "Ticks due", sum(ticks) AS "Ticks stored", '
        '"Ticks due" - "Ticks stored" AS "Missing"\n'
        f"FROM (\n{_told(SOURCE_HOURS)}\n) AS told\nWHERE outcome = 'stored'\n"
        'GROUP BY source, epoch_ms, table_name ORDER BY "Missing" DESC LIMIT 50'
    )


def _told(rollup: FrameRollup) -> str:
    """The rollup's rows: of the range's whole hours up to the last that is computed, and of the lines on both sides."""
    first, last = whole_hours(FRAMES)
    names = ", ".join([*rollup.keys, *rollup.columns])
    edges = f"$__timeFilter(checked_at) AND (checked_at < {first} OR checked_at >= {last})"
    return (
        f"SELECT {names} FROM {rollup.name} FINAL WHERE time >= {first} AND time < {last}\n"
        f"UNION ALL\n{rollup.select(edges)}"
    )
