"""The energy of each job: computed when it has ended, and again when it was corrected.

A job's energy is what the boards of its GPUs counted while it held them, plus its share of what its trays drew
besides their GPU boards (processors, network, fans, regulators). NVLink switches, power shelves, cooling and
distribution are in neither: reports add them by factors that they name.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import polars as pl
from clickhouse_connect.driver.client import Client

from catalogue import GPU, TRAY, Table
from storage.client import store_errors
from storage.reader import TIME, Reader, Schema

# After a job's end, until its last readings have had time to arrive.
GRACE = timedelta(minutes=10)
# Late readings of an agent that was cut off: an incomplete job is looked at again for so long, so often.
LATE = timedelta(days=2)
AGAIN_AFTER = timedelta(hours=1)
COMPLETE_FROM = 0.99
# A delta over more than three intervals of five minutes is told across a gap: booked as estimated.
LONGEST_STEP_S = 900
# The reading before an interval's first one tells from when on that one counts.
MARGIN_S = 3600
# As parameters of one statement they stay well below what a server takes in an address.
INTERVALS_AT_ONCE = 400

HOLDS: Schema = {
    "job": pl.String(),
    "resource": pl.UInt64(),
    "start": TIME,
    "end": TIME,
    "share": pl.Float64(),  # of the GPU, where several hold it
    "told_at": TIME,
}
_TREE: Schema = {"gpu": pl.UInt64(), "tray": pl.UInt64(), "valid_from": TIME, "valid_to": TIME}
ENERGIES: Schema = {
    "key": pl.UInt64(),
    "joules": pl.Float64(),
    "observed_s": pl.Float64(),
    "estimated_joules": pl.Float64(),
}
JOBS: Schema = {
    "job": pl.String(),
    "start": TIME,
    "end": TIME,
    "gpus": pl.UInt32(),
    "gpu_seconds": pl.Float64(),
    "observed_gpu_seconds": pl.Float64(),
    "gpu_joules": pl.Float64(),
    "estimated_joules": pl.Float64(),
    "overhead_joules": pl.Float64(),
    "told_at": TIME,
}

# Jobs of which every hold has ended, and whose energy is missing, older than the latest word, or incomplete.
_DUE = """
SELECT held.job
FROM
(
    SELECT jobs.job AS job, countIf(isNull(jobs.end)) AS running, max(jobs.end) AS last_end,
        countIf(jobs.end > start) AS holds, max(received_at) AS last_told
    FROM jobs FINAL
    GROUP BY job
) AS held
LEFT JOIN (SELECT * FROM job_energy FINAL) AS known ON known.job = held.job
WHERE held.running = 0 AND held.holds > 0 AND held.last_end <= {closed:DateTime64(3, 'UTC')}
    AND (held.last_told > known.told_at
        OR (known.observed_gpu_seconds < {complete:Float64} * known.gpu_seconds
            AND known.computed_at < {again:DateTime64(3, 'UTC')} AND known.end > {late:DateTime64(3, 'UTC')}))
ORDER BY held.job
"""
# Jobs that run again, were taken back or were forgotten: what was computed of them holds no more.
_GONE = """
SELECT known.job
FROM (SELECT DISTINCT job FROM job_energy FINAL) AS known
LEFT JOIN
(
    SELECT jobs.job AS job, countIf(isNull(jobs.end)) AS running, countIf(jobs.end > start) AS holds
    FROM jobs FINAL
    GROUP BY job
) AS held ON held.job = known.job
WHERE held.holds = 0 OR held.running > 0
"""
_HOLDS = """
SELECT jobs.job AS job, resource, start, assumeNotNull(jobs.end) AS end,
    least(1., ifNull(toFloat64OrNull(attributes['devices']) / nullIf(toFloat64OrNull(attributes['devices_of_gpu']), 0),
        1.)) AS share,
    received_at AS told_at
FROM jobs FINAL
WHERE job IN {jobs:Array(String)}
"""
_PLACES = """
SELECT resource AS gpu, tray, valid_from, valid_to
FROM places
WHERE kind = 'gpu' AND tray IN (SELECT tray FROM places WHERE resource IN {gpus:Array(UInt64)})
"""


@dataclass(frozen=True, slots=True)
class Computed:
    """How many jobs were computed, and how many taken out again."""

    written: int
    deleted: int


class JobEnergyKeeper:
    """Keeps the table job_energy up to date; only one at a time per store, like HourKeeper.

    A computation replaces what was there, so running it twice, or too often, does no harm.
    """

    JOBS_AT_ONCE = 50

    def __init__(self, client: Client) -> None:
        self._client = client
        self._reader = Reader(client)

    def recompute(self) -> Computed:
        """Compute every job that is due. Raises StoreUnavailableError, StoreRefusedError."""
        with store_errors("reading the store's clock"):
            now: datetime = self._client.query("SELECT now64(3, 'UTC')").result_rows[0][0].replace(tzinfo=UTC)
        deleted = self._delete_gone()
        due = self._due(now)
        for jobs in _batches(due, self.JOBS_AT_ONCE):
            self._write(compute(self._reader, jobs), now)
        return Computed(len(due), deleted)

    def _due(self, now: datetime) -> list[str]:
        parameters = {
            "closed": _text(now - GRACE),
            "complete": COMPLETE_FROM,
            "again": _text(now - AGAIN_AFTER),
            "late": _text(now - LATE),
        }
        with store_errors("looking for jobs that have ended"):
            return [str(job) for (job,) in self._client.query(_DUE, parameters=parameters).result_rows]

    def _delete_gone(self) -> int:
        """Deleted, not marked: a job's id may name a person's pod. The store does it in its own time."""
        with store_errors("looking for jobs that were taken back"):
            gone = [str(job) for (job,) in self._client.query(_GONE).result_rows]
        for jobs in _batches(gone, INTERVALS_AT_ONCE):
            with store_errors(f"deleting the energy of {len(jobs)} jobs"):
                self._client.command(
                    "ALTER TABLE job_energy DELETE WHERE has({jobs:Array(String)}, job)",
                    parameters={"jobs": list(jobs)},
                )
        return len(gone)

    def _write(self, jobs: pl.DataFrame, now: datetime) -> None:
        rows = jobs.with_columns(computed_at=pl.lit(now).cast(TIME))
        if len(rows):
            with store_errors(f"writing the energy of {len(rows)} jobs"):
                self._client.insert_arrow("job_energy", rows.to_arrow())


def compute(reader: Reader, jobs: Sequence[str]) -> pl.DataFrame:
    """JOBS: the energy of these jobs, whose holds have all ended, from the minutes of the GPUs and trays.

    Raises StoreUnavailableError, StoreRefusedError.
    """
    told = reader.query(_HOLDS, {"jobs": list(jobs)}, HOLDS)
    holds = told.filter(pl.col("end") > pl.col("start"))
    gpus = holds["resource"].unique().to_list()
    tree = pl.concat(
        [reader.query(_PLACES, {"gpus": list(some)}, _TREE) for some in _batches(gpus, INTERVALS_AT_ONCE)]
        or [pl.DataFrame(schema=dict(_TREE))]
    ).unique()
    asked = gpu_intervals(holds)
    stays = tray_intervals(holds, tree)
    return job_energies(
        holds,
        integrate(reader, GPU, asked),
        stays,
        integrate(reader, TRAY, stays.select("key", "start", "end", resource="tray")),
        integrate(reader, GPU, neighbours(stays, tree)),
        told.group_by("job").agg(pl.col("told_at").max()),
    )


def gpu_intervals(holds: pl.DataFrame) -> pl.DataFrame:
    """Each hold with a key of its own: key, resource, start, end; in a fixed order. Input HOLDS."""
    ordered = holds.sort("job", "resource", "start", "end")
    return ordered.select(pl.int_range(pl.len()).cast(pl.UInt64).alias("key"), "resource", "start", "end")


def tray_intervals(holds: pl.DataFrame, tree: pl.DataFrame) -> pl.DataFrame:
    """How long each job was on each tray: key, job, tray, start, end, gpus (of the tray), held_gpu_seconds."""
    first = pl.col("valid_from") == pl.col("valid_from").min().over("gpu")
    whole = tree.with_columns(valid_from=pl.when(first).then(pl.lit(0).cast(TIME)).otherwise("valid_from"))
    sizes = whole.group_by("tray").agg(gpus=pl.col("gpu").n_unique())
    seconds = (pl.col("end") - pl.col("start")).dt.total_milliseconds() / 1000
    placed = (
        holds.join(whole, left_on="resource", right_on="gpu")
        .filter(pl.col("start") < pl.col("valid_to"), pl.col("end") > pl.col("valid_from"), pl.col("tray") != 0)
        .with_columns(start=pl.max_horizontal("start", "valid_from"), end=pl.min_horizontal("end", "valid_to"))
    )
    return (
        placed.group_by("job", "tray")
        .agg(pl.col("start").min(), pl.col("end").max(), held_gpu_seconds=(seconds * pl.col("share")).sum())
        .join(sizes, on="tray")
        .sort("job", "tray")
        .with_row_index("key")
        .with_columns(pl.col("key").cast(pl.UInt64))
    )


def neighbours(stays: pl.DataFrame, tree: pl.DataFrame) -> pl.DataFrame:
    """All GPUs of each stay's tray over its time, under the stay's key: key, resource, start, end."""
    on_tray = tree.select("tray", resource="gpu").unique()
    return stays.join(on_tray, on="tray").select("key", "resource", "start", "end")


def job_energies(
    holds: pl.DataFrame,
    of_gpus: pl.DataFrame,
    stays: pl.DataFrame,
    of_trays: pl.DataFrame,
    of_neighbours: pl.DataFrame,
    told: pl.DataFrame,
) -> pl.DataFrame:
    """JOBS from ENERGIES by the keys of `gpu_intervals`, `tray_intervals` and `neighbours`; pure.

      gpu_joules = sum of share x board energy over the holds
      overhead_joules = sum over trays of (E_tray - sum of E_GPU on it) x held GPU-seconds / (GPUs x seconds)
    absent where no board, or where one tray, told nothing. A negative overhead, as a tray that tells less
    than its GPUs would have, counts as 0.
    """
    seconds = (pl.col("end") - pl.col("start")).dt.total_milliseconds() / 1000
    keyed = gpu_intervals(holds).join(of_gpus, on="key", how="left")
    shares = (
        holds.sort("job", "resource", "start", "end")
        .with_row_index("key")
        .select(pl.col("key").cast(pl.UInt64), "job", "share")
    )
    share = pl.col("share")
    boards = (
        keyed.join(shares, on="key")
        .group_by("job")
        .agg(
            pl.col("start").min(),
            pl.col("end").max(),
            gpus=pl.col("resource").n_unique().cast(pl.UInt32),
            gpu_seconds=(seconds * share).sum(),
            observed_gpu_seconds=(pl.min_horizontal(pl.col("observed_s").fill_null(0.0), seconds) * share).sum(),
            gpu_joules=pl.when(pl.col("joules").count() > 0).then((pl.col("joules") * share).sum()),
            estimated_joules=(pl.col("estimated_joules").fill_null(0.0) * share).sum(),
        )
    )
    return (
        boards.join(_overheads(stays, of_trays, of_neighbours), on="job", how="left")
        .join(told, on="job")
        .select(pl.col(name).cast(kind) for name, kind in JOBS.items())
        .sort("job")
    )


def _overheads(stays: pl.DataFrame, of_trays: pl.DataFrame, of_neighbours: pl.DataFrame) -> pl.DataFrame:
    seconds = (pl.col("end") - pl.col("start")).dt.total_milliseconds() / 1000
    boards = of_neighbours.group_by("key").agg(board_joules=pl.col("joules").sum())
    part = pl.col("held_gpu_seconds") / (pl.col("gpus") * seconds)
    beside = (pl.col("joules") - pl.col("board_joules")).clip(lower_bound=0.0)
    return (
        stays.join(of_trays.select("key", "joules"), on="key", how="left")
        .join(boards, on="key", how="left")
        .group_by("job")
        .agg(
            overhead_joules=pl.when(pl.col("joules").null_count() + pl.col("board_joules").null_count() == 0).then(
                (beside * part).sum()
            )
        )
    )


def integrate(reader: Reader, table: Table, intervals: pl.DataFrame) -> pl.DataFrame:
    """ENERGIES by key: what the resources counted in the intervals, from the deltas of the table's minutes.

    `intervals`: key, resource, start, end; several may have one key and are added up. A delta counts
    from the reading before it to its own (a minute of many readings: to the minute's end) and is
    spread evenly over that time. Keys without any reading are left out.
    """
    ordered = intervals.sort("start", "resource", "key")
    parts = [_integrated(reader, table, some) for some in ordered.iter_slices(INTERVALS_AT_ONCE)]
    found = pl.concat(parts or [pl.DataFrame(schema=dict(ENERGIES))])
    return found.group_by("key").agg(pl.col("joules", "observed_s", "estimated_joules").sum()).select(*ENERGIES)


def _integrated(reader: Reader, table: Table, intervals: pl.DataFrame) -> pl.DataFrame:
    since, until = (intervals[name].dt.epoch("ms").to_list() for name in ("start", "end"))
    energy = table.metric("energy_joules")
    scale = f"{energy.resolution.numerator} / {energy.resolution.denominator}"
    sql = f"""
SELECT key, sum(part * counted) * {scale} AS joules, sum(if(stepped <= {LONGEST_STEP_S}, overlap, 0.)) AS observed_s,
    sum(if(stepped <= {LONGEST_STEP_S}, 0., part * counted)) * {scale} AS estimated_joules
FROM
(
    SELECT asked.key AS key, step.counted AS counted, step.until - step.since AS stepped,
        least(step.until, asked.last) - greatest(step.since, asked.first) AS overlap, overlap / stepped AS part
    FROM
    (
        SELECT one.1 AS key, one.2 AS resource, one.3 / 1000 AS first, one.4 / 1000 AS last
        FROM (SELECT arrayJoin(arrayZip({{keys:Array(UInt64)}}, {{resources:Array(UInt64)}}, {{since:Array(Int64)}},
            {{until:Array(Int64)}})) AS one)
    ) AS asked
    INNER JOIN
    (
        SELECT resource, counted, until,
            if(before = 0, until - if(many, 60., 300.), least(before, until - 1.)) AS since
        FROM
        (
            SELECT resource, counted, many, until,
                lagInFrame(until, 1, 0.) OVER (PARTITION BY resource ORDER BY until
                    ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS before
            FROM
            (
                SELECT resource, sum(minute.{energy.name}_sum_raw) AS counted, sum(minute.row_count) > 1 AS many,
                    toFloat64(toUnixTimestamp(minute.time)) + if(many, 60., 0.) AS until
                FROM {table.name}_1m AS minute
                WHERE minute.time >= fromUnixTimestamp({{first:Int64}})
                    AND minute.time <= fromUnixTimestamp({{last:Int64}})
                    AND resource IN {{some:Array(UInt64)}}
                GROUP BY resource, minute.time
                HAVING sum(minute.{energy.name}_count) > 0
            )
        )
    ) AS step ON step.resource = asked.resource
    WHERE step.until > asked.first AND step.since < asked.last
)
GROUP BY key
"""  # noqa: S608 - names from the catalogue and constants; values are bound
    parameters = {
        "keys": intervals["key"].to_list(),
        "resources": intervals["resource"].to_list(),
        "some": intervals["resource"].unique().to_list(),
        "since": since,
        "until": until,
        "first": min(since) // 1000 - MARGIN_S,
        "last": max(until) // 1000 + MARGIN_S,
    }
    return reader.query(sql, parameters, ENERGIES)


_Value = TypeVar("_Value")


def _batches(values: Sequence[_Value], size: int) -> Iterator[Sequence[_Value]]:
    return (values[first : first + size] for first in range(0, len(values), size))


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S.%f}"[:-3]
