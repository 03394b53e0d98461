"""Days of the fleet that `kvandal keep` computed once and for all reports, and how reports read them.

A day that is kept is read in a second; of a day of 100,000 GPUs that is not, 144 million minutes are grouped anew, by
the very statements that fill these tables. A day is named by its bounds, so days of another time zone are other days.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

import polars as pl

from catalogue import Table
from reports import efficiency_queries as efficiency
from reports import heat_queries as heat
from reports import queries
from reports.efficiency_queries import Window
from reports.period import Period
from storage.reader import TIME, Parameter, Reader, Schema


@dataclass(frozen=True, slots=True)
class KeptTable:
    """A table of days: `columns` are what its statements select, after the day and which computation it was.

    `by_job` statements are asked for some jobs at a time, the others for a part of the fleet.
    """

    name: str
    columns: Sequence[str]
    statements: Sequence[str]
    by_job: bool = False


SEGMENTS = KeptTable("gpu_segments", tuple(efficiency.SEGMENTS), (efficiency.segments_sql(minutes=True),))
TROUBLES = KeptTable("gpu_troubles", tuple(efficiency.TROUBLES), (efficiency.troubles_sql(minutes=True),))
OUTLIERS = KeptTable("job_outliers", tuple(efficiency.WINDOWS), (efficiency.outlying_sql(),), by_job=True)
COMPARED = KeptTable("job_compared", tuple(efficiency.JOB_WINDOWS), (efficiency.job_windows_sql(),), by_job=True)
QUARTERS = KeptTable(
    "rack_fleet_quarters",
    ("member_kind", *heat.FLEET_QUARTERS),
    tuple(
        f"SELECT '{kind}' AS member_kind, * FROM ({heat.fleet_quarters_sql(table)})"  # noqa: S608 - of this project
        for table, kind in heat.FLEET_TABLES
    ),
)
COOLANT = KeptTable("rack_coolant", tuple(efficiency.COOLANT_SUMS), (efficiency.coolant_sql(),))
KEPT: Sequence[KeptTable] = (SEGMENTS, TROUBLES, OUTLIERS, COMPARED, QUARTERS, COOLANT)

# The line of a day that says that it is kept.
DAYS: Schema = {
    "day": TIME,
    "until": TIME,
    "computed_at": TIME,
    "basis": pl.UInt64(),
    **{name: kind for name, kind in queries.GPUS.items() if name != "time"},
    **{name: kind for name, kind in efficiency.COMPONENTS.items() if name != "time"},
}


@dataclass(frozen=True, slots=True, eq=False)
class KeptDays:
    """The kept days of a period, by their bounds; `lines`: DAYS."""

    lines: pl.DataFrame
    computed: Mapping[tuple[datetime, datetime], datetime]

    def holds(self, window: Window) -> bool:
        return (window.start, window.end) in self.computed

    def gaps(self, period: Period, now: datetime) -> tuple[Window, ...]:
        """The parts of the period until `now` that are not kept, each as long as it can be."""
        found: list[Window] = []
        for window in efficiency.windows_of(period):
            if self.holds(window) or window.start >= now:
                continue
            joined = bool(found) and found[-1].end == window.start
            found = [*found[:-1], Window(found[-1].start, window.end)] if joined else [*found, window]
        return tuple(found)


NO_DAYS = KeptDays(pl.DataFrame(schema=dict(DAYS)), MappingProxyType({}))


def read_kept_days(reader: Reader, period: Period) -> KeptDays:
    """The days within the period that are kept. StoreUnavailableError, StoreRefusedError."""
    columns = ", ".join(f"fleet_days.{name} AS {name}" for name in DAYS)
    sql = f"""
SELECT {columns} FROM fleet_days FINAL
WHERE fleet_days.day >= {{first:DateTime('UTC')}} AND fleet_days.until <= {{last:DateTime('UTC')}}
ORDER BY day
"""  # noqa: S608 - names of this module; values are bound
    found = reader.query(sql, {"first": heat.bound(period.start), "last": heat.bound(period.end)}, DAYS)
    own = {(window.start, window.end) for window in efficiency.windows_of(period)}
    # Days of another zone lie across these.
    lines = found.filter([(day, until) in own for day, until in found.select("day", "until").iter_rows()])
    return KeptDays(lines, {(day, until): at for day, until, at in lines.select(list(DAYS)[:3]).iter_rows()})


def read_kept(reader: Reader, table: KeptTable, days: KeptDays, window: Window, schema: Schema) -> pl.DataFrame:
    """What a table keeps of one day, as `schema`, whose names it has."""
    columns = ", ".join(schema)
    # A job that was forgotten since is none.
    known = "AND job IN (SELECT job FROM jobs)" if table.by_job else ""
    sql = f"""
SELECT {columns} FROM {table.name}
WHERE day = {{day:DateTime('UTC')}} AND computed_at = {{computed_at:DateTime64(3, 'UTC')}} {known}
"""  # noqa: S608 - names of this module; values are bound
    return reader.query(sql, _day(days, window), schema)


def read_gpus(reader: Reader, days: KeptDays, period: Period, now: datetime) -> pl.DataFrame:
    """`queries.GPUS` of a period: of the kept days, and of the rest from the tier that has it."""
    kept = days.lines.filter(pl.col("gpus") > 0).select(time="day", **{name: name for name in list(queries.GPUS)[1:]})
    rest = [queries.read_gpus(reader, period, now, within=(gap.start, gap.end)) for gap in days.gaps(period, now)]
    return pl.concat([kept, *rest]).sort("time")


def read_components(days: KeptDays, window: Window) -> pl.DataFrame:
    """`efficiency.COMPONENTS` of one kept day."""
    one = days.lines.filter(pl.col("day") == window.start, pl.col("until") == window.end)
    return one.select(time="day", processor_watts="processor_watts", trays="trays")


def read_coolant(reader: Reader, days: KeptDays, period: Period, now: datetime) -> pl.DataFrame:
    """`efficiency.COOLANT` of a period, means over the minutes of the kept days and of the rest."""
    sql = f"SELECT {', '.join(COOLANT.columns)} FROM {COOLANT.name} {_OF_DAYS}"  # noqa: S608 - names of this module
    kept = reader.query(sql, _all(days), efficiency.COOLANT_SUMS)
    asked = {**efficiency.EVERY_GPU}
    rest = [
        reader.query(efficiency.coolant_sql(), {**efficiency.bounds_of(gap), **asked}, efficiency.COOLANT_SUMS)
        for gap in days.gaps(period, now)
    ]
    return efficiency.coolant_means(pl.concat([kept, *rest]))


def read_fleet_quarters(
    reader: Reader, table: Table, kind: str, days: KeptDays, gaps: Sequence[Window]
) -> pl.DataFrame:
    """`heat.FLEET_QUARTERS` of the kept days, and of those gaps of which minutes are still kept."""
    sql = f"""
SELECT rack, time, sum(kept.joules) AS joules, sum(kept.members) AS members, sum(kept.readings) AS readings,
    max(kept.most) AS most
FROM {QUARTERS.name} AS kept {_OF_DAYS} AND member_kind = {{kind:String}}
GROUP BY rack, time
"""  # noqa: S608 - names of this module; values are bound
    kept = reader.query(sql, {**_all(days), "kind": kind}, heat.FLEET_QUARTERS)
    return pl.concat([kept, *(heat.read_fleet_quarters(reader, table, gap.start, gap.end) for gap in gaps)])


# Every computation of a day has a time of its own.
_OF_DAYS = """
WHERE has({days:Array(UInt32)}, toUnixTimestamp(day)) AND
    has({computed:Array(Int64)}, toUnixTimestamp64Milli(computed_at))"""


def _day(days: KeptDays, window: Window) -> dict[str, Parameter]:
    computed_at = days.computed[window.start, window.end]
    return {"day": heat.bound(window.start), "computed_at": f"{computed_at:%Y-%m-%d %H:%M:%S.%f}"[:-3]}


def _all(days: KeptDays) -> dict[str, Parameter]:
    return {
        "days": [int(day.timestamp()) for day, _ in days.computed],
        "computed": [round(at.timestamp() * 1000) for at in days.computed.values()],
    }
