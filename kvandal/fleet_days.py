"""Computes each day of the fleet when it is over, for the reports, and anew when what it rests on has changed.

That is: readings came late, or something else is said of who held its GPUs or where they were. The rows of a day are
written first and its line in `fleet_days` after them, so that a day appears at once and whole; only then the rows of
the computation before are deleted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
from clickhouse_connect.driver.client import Client

from catalogue import GPU, GPU_HEALTH, RACK, TRAY
from reports import efficiency_queries, queries
from reports.efficiency_queries import Window
from reports.fleet_days import DAYS, KEPT, KeptTable
from reports.period import Period
from storage.client import store_errors
from storage.reader import TIME, Parameter, Reader, Schema

# After the day's end, until its last readings have had time to arrive.
GRACE = timedelta(minutes=15)
# Readings of an agent that was cut off come for hours: they need not be in a report within the minute.
AGAIN_AFTER = timedelta(hours=1)
# Days are looked at for so long; a message that corrects an older one is not looked for.
LOOK_BACK_DAYS = 40
# What is said of jobs and places is compared so often.
LOOK_EVERY = timedelta(minutes=15)
# Frames of an hour that was still open at one run are looked at again by the next.
_FRAMES_BACK = timedelta(hours=3)
# Of a store that is new to it, a month is computed a few days at a time: who keeps the store has more to do.
DAYS_AT_ONCE = 4
# So many GPUs are grouped at once: a day's slots of these take some 500 MB. A larger job is grouped whole, and goes to
# disk from half of the server's memory on (max_bytes_ratio_before_external_group_by).
GPUS_AT_ONCE = 10_000
_IDS = 2**64

_ROWS: Schema = {"rows": pl.UInt64()}
_COUNTS: Schema = {"gpus": pl.UInt64()}
_JOBS: Schema = {"job": pl.String(), "gpus": pl.UInt64()}
_TOUCHED: Schema = {"hour": TIME, "stored_at": TIME}
_BASIS: Schema = {"basis": pl.UInt64()}

_TOUCHED_HOURS = """
SELECT toDateTime(arrayJoin(range(toUInt32(toStartOfHour(first_time)), toUInt32(last_time) + 1, 3600)), 'UTC') AS hour,
    max(frames.stored_at) AS stored_at
FROM frames
WHERE outcome = 'stored' AND frames.stored_at >= {since:DateTime64(3, 'UTC')} AND table_name IN {tables:Array(String)}
    AND checked_at >= {since:DateTime64(3, 'UTC')} - INTERVAL 1 DAY -- by which the table is cut
GROUP BY hour
"""
# What is said of the day, cut to it: that a job ended later, or a rack was moved later, changes nothing about the day.
_BASIS_OF_DAY = """
SELECT bitXor(
    (
        SELECT groupBitXor(cityHash64(job, resource, greatest(start, {first:DateTime('UTC')}),
            least(ifNull(jobs.end, {last:DateTime('UTC')}), {last:DateTime('UTC')})))
        FROM jobs FINAL
        WHERE start < {last:DateTime('UTC')} AND (isNull(jobs.end) OR jobs.end > {first:DateTime('UTC')})
    ),
    (
        SELECT groupBitXor(cityHash64(resource, rack, greatest(valid_from, {first:DateTime('UTC')}),
            least(valid_to, {last:DateTime('UTC')})))
        FROM places
        WHERE kind IN ('gpu', 'tray') AND valid_from < {last:DateTime('UTC')} AND valid_to > {first:DateTime('UTC')}
    )
) AS basis
"""
_JOBS_OF_DAY = """
SELECT job, uniqExact(resource) AS gpus
FROM jobs FINAL
WHERE start < {last:DateTime('UTC')} AND (isNull(jobs.end) OR jobs.end > {first:DateTime('UTC')})
GROUP BY job
HAVING gpus >= {least:UInt32}
ORDER BY job
"""


@dataclass(frozen=True, slots=True)
class _Due:
    """A day to be computed, and the fingerprint of what is said of it now."""

    day: Window
    basis: int
    has_readings: bool


class FleetDayKeeper:
    """Keeps the days of the fleet up to date; only one at a time per store, like HourKeeper.

    `zone` is the IANA name of the time zone by which reports have their days. Recomputing twice does no harm.
    """

    def __init__(
        self, client: Client, zone: str, *, gpus_at_once: int = GPUS_AT_ONCE, again_after: timedelta = AGAIN_AFTER
    ) -> None:
        self._client, self._reader, self._zone = client, Reader(client), zone
        self._gpus_at_once, self._again_after = gpus_at_once, again_after
        self._looked_at: datetime | None = None
        self._waiting: list[_Due] = []
        self._touched = pl.DataFrame(schema=dict(_TOUCHED))

    def recompute(self) -> list[datetime]:
        """Compute some of the days that are due, oldest first; returns their starts, none when all is done.

        Raises StoreUnavailableError, StoreRefusedError.
        """
        now = self._now()
        if not self._waiting and not (self._looked_at and now - self._looked_at < LOOK_EVERY):
            self._look_at_frames(now)
            self._waiting = self._due(now)
        some, self._waiting = self._waiting[:DAYS_AT_ONCE], self._waiting[DAYS_AT_ONCE:]
        for one in some:
            self._compute(one)
        return [one.day.start for one in some]

    def _now(self) -> datetime:
        """The store's own clock, which stamps the frames too."""
        return self._reader.query("SELECT now64(3, 'UTC') AS now", {}, {"now": TIME})["now"].item()  # type: ignore[no-any-return]

    def _due(self, now: datetime) -> list[_Due]:
        known = {row["day"]: row for row in self._known().iter_rows(named=True)}
        return [one for day in self._days(now) if (one := self._judge(day, known.get(day.start), now))]

    def _judge(self, day: Window, known: dict[str, Any] | None, now: datetime) -> _Due | None:
        """The day, if it is not kept as it is now; one without readings is kept as such, or it would be read anew."""
        of_day = self._touched.filter(pl.col("hour") >= day.start, pl.col("hour") < day.end)
        if known is None or known["until"] != day.end:
            return _Due(day, self._basis(day), not of_day.is_empty())
        if known["computed_at"] > now - self._again_after:
            return None
        basis, late = self._basis(day), of_day.filter(pl.col("stored_at") >= known["computed_at"]).height
        return _Due(day, basis, not of_day.is_empty()) if late or basis != known["basis"] else None

    def _basis(self, day: Window) -> int:
        return int(self._reader.query(_BASIS_OF_DAY, efficiency_queries.bounds_of(day), _BASIS)["basis"].item())

    def _known(self) -> pl.DataFrame:
        columns = ", ".join(f"fleet_days.{name} AS {name}" for name in DAYS)
        return self._reader.query(f"SELECT {columns} FROM fleet_days FINAL", {}, DAYS)  # noqa: S608 - constants

    def _look_at_frames(self, now: datetime) -> None:
        """Of which hours frames came, and when the last of them was stored; what is known is not asked again."""
        since = self._looked_at - _FRAMES_BACK if self._looked_at else now - timedelta(days=LOOK_BACK_DAYS)
        tables = [table.name for table in (GPU, GPU_HEALTH, TRAY, RACK)]
        bounds: dict[str, Parameter] = {"since": f"{since:%Y-%m-%d %H:%M:%S}", "tables": tables}
        found = self._reader.query(_TOUCHED_HOURS, bounds, _TOUCHED)
        self._touched = pl.concat([self._touched, found]).group_by("hour").agg(pl.col("stored_at").max())
        self._looked_at = now

    def _days(self, now: datetime) -> Iterator[Window]:
        """The closed local days of which readings may still come or be kept, oldest first."""
        for back in range(LOOK_BACK_DAYS, 0, -1):
            period = Period.parse(f"{_local_day(now - timedelta(days=back), self._zone)}", self._zone)
            if period.end + GRACE <= now:
                yield Window(period.start, period.end)

    def _compute(self, due: _Due) -> None:
        computed_at = self._now()
        for table in KEPT if due.has_readings else ():
            for statement, parameters in self._statements(table, due.day):
                self._insert(table, statement, due.day, computed_at, parameters)
        self._write_line(due, computed_at)
        for table in KEPT:
            self._delete_older(table, due.day, computed_at)

    def _delete_older(self, table: KeptTable, day: Window, computed_at: datetime) -> None:
        """Deletes what a computation before left, also one that broke off; a mutation only where there is such."""
        older = "day = {day:DateTime('UTC')} AND computed_at < {computed_at:DateTime64(3, 'UTC')}"
        counted = f"SELECT count() AS rows FROM {table.name} WHERE {older}"  # noqa: S608 - constants; values are bound
        if self._reader.query(counted, _stamp(day, computed_at), _ROWS)["rows"].item():
            with store_errors(f"deleting what {table.name} had of {day.start:%Y-%m-%d}"):
                self._client.command(
                    f"ALTER TABLE {table.name} DELETE WHERE {older}", parameters=_stamp(day, computed_at)
                )

    def _statements(self, table: KeptTable, day: Window) -> Iterator[tuple[str, dict[str, Parameter]]]:
        parts = self._jobs(day) if table.by_job else self._parts()
        for part in parts:
            yield from ((statement, part) for statement in table.statements)

    def _parts(self) -> Iterator[dict[str, Parameter]]:
        """Even parts of the range of ids, which are hashes: each holds about so many GPUs."""
        sql = "SELECT uniqExact(resource) AS gpus FROM places WHERE kind = 'gpu'"
        gpus = int(self._reader.query(sql, {}, _COUNTS)["gpus"].item())
        parts = max(1, -(-gpus // self._gpus_at_once))
        for part in range(parts):
            yield {"lowest": _IDS * part // parts, "highest": _IDS * (part + 1) // parts - 1}

    def _jobs(self, day: Window) -> Iterator[dict[str, Parameter]]:
        """The day's jobs, some at a time; a large one alone."""
        asked = {**efficiency_queries.bounds_of(day), "least": efficiency_queries.LEAST_MEMBERS}
        some: list[str] = []
        held = 0
        for job, gpus in self._reader.query(_JOBS_OF_DAY, asked, _JOBS).iter_rows():
            if some and held + gpus > self._gpus_at_once:
                yield {"jobs": some}
                some, held = [], 0
            some, held = [*some, job], held + gpus
        if some:
            yield {"jobs": some}

    def _insert(
        self, table: KeptTable, statement: str, day: Window, computed_at: datetime, parameters: dict[str, Parameter]
    ) -> None:
        columns = ", ".join(table.columns)
        sql = f"""
INSERT INTO {table.name} (day, computed_at, {columns})
SELECT {{day:DateTime('UTC')}}, {{computed_at:DateTime64(3, 'UTC')}}, {columns} FROM ({statement})
"""  # noqa: S608 - names and statements of this project; values are bound
        bounds = {**efficiency_queries.bounds_of(day), **_stamp(day, computed_at), **parameters}
        with store_errors(f"computing {table.name} of {day.start:%Y-%m-%d}"):
            self._client.command(sql, parameters=bounds)

    def _write_line(self, due: _Due, computed_at: datetime) -> None:
        bounds = efficiency_queries.bounds_of(due.day)
        gpus = self._reader.query(
            queries.gpus_sql(minutes=True, hourly=False), {**bounds, "zone": self._zone}, queries.GPUS
        )
        none: dict[str, Any] = dict.fromkeys(queries.GPUS) | {"gpus": 0, "gpu_hours": 0}
        of_trays = efficiency_queries.components_sql(minutes=True)
        told = self._reader.query(of_trays, bounds, efficiency_queries.COMPONENTS)
        line = {**(gpus.row(0, named=True) if gpus.height else none), **told.row(0, named=True)}
        line |= {"day": due.day.start, "until": due.day.end, "computed_at": computed_at, "basis": due.basis}
        with store_errors(f"writing the line of {due.day.start:%Y-%m-%d}"):
            self._client.insert("fleet_days", [[line[name] for name in DAYS]], column_names=list(DAYS))


def _stamp(day: Window, computed_at: datetime) -> dict[str, Parameter]:
    return {"day": f"{day.start:%Y-%m-%d %H:%M:%S}", "computed_at": f"{computed_at:%Y-%m-%d %H:%M:%S.%f}"[:-3]}


def _local_day(moment: datetime, zone: str) -> str:
    return f"{Period.parse('2026', zone).local(moment.astimezone(UTC)):%Y-%m-%d}"
