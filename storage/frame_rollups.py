# ruff: noqa: S608 - names come from this module
"""Rollups of ingest's lines about frames: of all frames by minute, and of each source by hour.

`storage/hours.py` keeps them when it computes hours; for the hours that are not computed yet, dashboards ask the lines
themselves, by the same expressions.
"""

from dataclasses import dataclass

FRAMES = "frames"
DELAY_LEVEL = 0.95
# 1 % relative error, as in the catalogue's sketches.
_SKETCH = f"0.01, {DELAY_LEVEL}"
_DELAY_MS = "dateDiff('millisecond', sent_at, stored_at)"


@dataclass(frozen=True, slots=True)
class FrameRollup:
    """A table of rollups: its keys by name, `time` among them, and its other columns; expressions over `line`."""

    name: str
    keys: dict[str, str]
    columns: dict[str, str]

    def select(self, where: str) -> str:
        """SELECT of its rows from the lines of which `where` is true."""
        told = ", ".join(f"{expression} AS {name}" for name, expression in (self.keys | self.columns).items())
        # The names of keys are also names of columns: only by number do they mean the expressions.
        keys = ", ".join(str(number + 1) for number in range(len(self.keys)))
        return f"SELECT {told} FROM {FRAMES} AS line WHERE {where} GROUP BY {keys}"

    @property
    def insert(self) -> str:
        """INSERT that recomputes the hours from `first` up to `last`, both included, as of `computed_at`."""
        names = ", ".join([*self.keys, *self.columns])
        within = "checked_at >= {first:DateTime('UTC')} AND checked_at < {last:DateTime('UTC')} + INTERVAL 1 HOUR"
        return (
            f"INSERT INTO {self.name} ({names}, computed_at)\n"
            f"SELECT {names}, {{computed_at:DateTime64(3, 'UTC')}} FROM ({self.select(within)})"
        )


FRAME_MINUTES = FrameRollup(
    "frame_minutes",
    {"time": "toStartOfMinute(checked_at)", "table_name": "table_name", "outcome": "outcome"},
    {
        "frames": "count()",
        "rows": "sum(line.rows)",
        "longest_delay_ms": f"max({_DELAY_MS})",
        "delay_ms_sketch": f"quantileDDState({_SKETCH})(toFloat64({_DELAY_MS}))",
    },
)
SOURCE_HOURS = FrameRollup(
    "source_hours",
    {"time": "toStartOfHour(checked_at)"} | {name: name for name in ("source", "epoch_ms", "table_name", "outcome")},
    {
        "ticks": "sum(line.ticks)",
        "first_sequence": "min(sequence)",
        "end_sequence": "max(sequence + line.ticks)",
        "last_tick": "max(last_time)",
    },
)
# Over rows of FRAME_MINUTES: the time from agent to store that 95 % of the frames keep, s.
DELAY_S = f"quantileDDMerge({_SKETCH})(delay_ms_sketch) / 1000"
