"""The audit of a period: is everything that was produced stored, once, and do the minutes follow from it?

Four facts that do not come from one another are held together: the ticks that agents numbered (the table `frames`), the
gaps that agents reported (events), the rows that the tables hold, and the minutes that a view made of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from clickhouse_connect.driver.client import Client

from catalogue import TABLES, Metric, Table
from storage.client import store_errors
from storage.ddl import rollup_columns

# A gap at the period's bound shows only beside its neighbours: frames on both sides are looked at.
_MARGIN = timedelta(days=1)
_DAY = timedelta(days=1)
LOST_EVENT = "readings_lost"
# To compute minutes again from more rows than this would keep the store busy for hours: then a share of the resources
# is compared, another one each day.
_COMPARED_ROWS = 50_000_000

# The share of a frame's rows whose ticks lie in the period; a frame's ticks are evenly apart.
_SHARE = """
    if(ticks = 1 OR last_time = first_time,
        if(first_time >= {start:DateTime('UTC')} AND first_time < {end:DateTime('UTC')}, rows, 0),
        intDiv(rows * arrayCount(
            t -> t >= toUnixTimestamp({start:DateTime('UTC')}) AND t < toUnixTimestamp({end:DateTime('UTC')}),
            arrayMap(
                k -> toUnixTimestamp(first_time)
                    + intDiv(k * (toUnixTimestamp(last_time) - toUnixTimestamp(first_time)), ticks - 1),
                range(ticks))), ticks))
"""
_WITHIN = "first_time < {end:DateTime('UTC')} AND last_time >= {start:DateTime('UTC')}"
_CHECKED = "checked_at >= {start:DateTime('UTC')} AND checked_at < {end:DateTime('UTC')}"

_FRAMES = f"""
SELECT
    sumIf(if(first_time >= {{start:DateTime('UTC')}} AND last_time < {{end:DateTime('UTC')}}, rows, {_SHARE}),
        outcome = 'stored' AND {_WITHIN}) AS stored,
    sumIf(rows, outcome = 'duplicate' AND {_WITHIN}) AS repeated,
    sumIf(rows, outcome = 'rejected' AND {_CHECKED}) AS rejected,
    countIf(outcome = 'rejected' AND {_CHECKED}) AS rejected_frames,
    sumIf(rows, outcome = 'parked' AND {_CHECKED}) AS parked,
    countIf(outcome = 'parked' AND {_CHECKED}) AS parked_frames
FROM frames
WHERE table_raw = toFixedString({{table:String}}, 16) AND (({_WITHIN}) OR ({_CHECKED}))
"""  # noqa: S608 - constants of this module; values are bound

# Runs of agents in which a tick may be missing: where all of a run's frames are stored, once, the ticks add up.
_BROKEN_RUNS = """
SELECT source, epoch_ms
FROM frames
WHERE table_raw = toFixedString({table:String}, 16) AND outcome != 'duplicate' AND ticks > 0
  AND first_time < {end:DateTime('UTC')} AND last_time >= {start:DateTime('UTC')}
GROUP BY source, epoch_ms
HAVING sum(ticks) != max(sequence + ticks) - min(sequence) OR countIf(outcome != 'stored') > 0
    OR (epoch_ms >= {first_epoch_ms:UInt64} AND min(sequence) > 0)
ORDER BY source, epoch_ms
"""
_RUN = """
SELECT DISTINCT sequence, sequence + ticks AS end, ticks, rows, first_time, last_time
FROM frames
WHERE table_raw = toFixedString({table:String}, 16) AND outcome != 'duplicate' AND ticks > 0
  AND source = {source:UInt64} AND epoch_ms = {epoch_ms:UInt64}
  AND (outcome != 'stored' OR (first_time < {end:DateTime('UTC')} AND last_time >= {start:DateTime('UTC')}))
ORDER BY sequence
"""
_REPORTED = """
SELECT resource, toInt64(attributes['first_time_s']), toInt64(attributes['last_time_s']), sum(count)
FROM (SELECT * FROM events FINAL)
WHERE kind = {kind:String} AND attributes['topic'] = {topic:String}
  AND toInt64(attributes['first_time_s']) < toUnixTimestamp({end:DateTime('UTC')})
  AND toInt64(attributes['last_time_s']) >= toUnixTimestamp({start:DateTime('UTC')})
GROUP BY ALL
"""


@dataclass(frozen=True, slots=True)
class Gap:
    """Ticks [first, end) of one run of one source that are neither stored nor dead-lettered.

    `after` and `before` are the ticks on both sides; `rows` is about how many rows they had, `reported` how many of
    them the agent said that it lost.
    """

    table: str
    source: int
    epoch_ms: int
    first: int
    end: int
    after: datetime
    before: datetime
    rows: int
    reported: int

    @property
    def explained(self) -> bool:
        return self.reported >= self.rows


@dataclass(frozen=True, slots=True, kw_only=True)
class TableAudit:
    """The account of one table, in rows. `kept` is what the table holds, `altered` the hours whose minutes differ."""

    table: str
    stored: int  # by the frames
    repeated: int  # sent again, and dropped
    rejected: int
    rejected_frames: int
    parked: int
    parked_frames: int
    kept: int
    doubled: int
    raw: bool  # whether raw rows were counted, or the minutes that outlive them
    compared: int = 1  # the minutes of one in so many resources were compared with raw rows
    gaps: tuple[Gap, ...] = ()
    altered: tuple[datetime, ...] = ()

    @property
    def lost(self) -> int:
        """Rows that agents reported as lost."""
        return sum(min(gap.reported, gap.rows) for gap in self.gaps)

    @property
    def missing(self) -> int:
        """Rows of which nothing is known."""
        return sum(max(gap.rows - gap.reported, 0) for gap in self.gaps)

    @property
    def produced(self) -> int:
        return self.stored + self.rejected + self.parked + self.lost + self.missing

    @property
    def vanished(self) -> int:
        """Rows of frames that count as stored and are not there."""
        return self.stored - (self.kept - self.doubled)

    @property
    def holds(self) -> bool:
        return not (self.missing or self.vanished or self.doubled or self.altered)


class Auditor:
    """Audits one store. `start` and `end` are whole minutes in UTC; readings [start, end) are audited."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def audit(self, table: Table, start: datetime, end: datetime, *, now: datetime) -> TableAudit:
        """The account of one table. Raises StoreUnavailableError and StoreRefusedError."""
        bounds = {"start": _plain(start), "end": _plain(end)}
        frames = self._one(_FRAMES, {**bounds, "table": table.name})
        raw = start >= now - self._raw_kept(table)
        kept, doubled = self._count(table, start, end) if raw else (self._count_minutes(table, bounds), 0)
        compared = 1 + kept // _COMPARED_ROWS
        return TableAudit(
            table=table.name,
            stored=frames[0],
            repeated=frames[1],
            rejected=frames[2],
            rejected_frames=frames[3],
            parked=frames[4],
            parked_frames=frames[5],
            kept=kept,
            doubled=doubled,
            raw=raw,
            compared=compared,
            gaps=tuple(self._gaps(table, start, end)),
            altered=tuple(self._altered_hours(table, start, end, compared)) if raw else (),
        )

    def _raw_kept(self, table: Table) -> timedelta:
        """How long this store keeps raw rows: its operator may have changed that."""
        seconds = self._ask(
            "SELECT toInt64(extract(create_table_query, 'TTL time \\\\+ toIntervalDay\\\\((\\\\d+)\\\\)')) * 86400 "
            "FROM system.tables WHERE database = currentDatabase() AND name = {table:String}",
            {"table": table.name},
        )
        return timedelta(seconds=seconds[0][0]) if seconds and seconds[0][0] else table.retention.raw

    def _count(self, table: Table, start: datetime, end: datetime) -> tuple[int, int]:
        """Rows, and rows too many: day by day, since a set of keys needs memory."""
        kept = doubled = 0
        for bounds in _days(start, end):
            rows, keys = self._one(
                f"SELECT count(), uniqExact(resource, time) FROM {table.name} "  # noqa: S608 - a name of the catalogue
                "WHERE time >= {start:DateTime('UTC')} AND time < {end:DateTime('UTC')}",
                bounds,
            )
            kept, doubled = kept + rows, doubled + rows - keys
        return kept, doubled

    def _count_minutes(self, table: Table, bounds: Mapping[str, object]) -> int:
        (rows,) = self._one(
            f"SELECT sum(row_count) FROM {table.name}_1m "  # noqa: S608 - a name of the catalogue
            "WHERE time >= {start:DateTime('UTC')} AND time < {end:DateTime('UTC')}",
            bounds,
        )
        return rows

    def _gaps(self, table: Table, start: datetime, end: datetime) -> Iterator[Gap]:
        bounds: dict[str, object] = {
            "table": table.name,
            "start": _plain(start - _MARGIN),
            "end": _plain(end + _MARGIN),
        }
        first_epoch_ms = round((start - _MARGIN).timestamp() * 1000)
        runs = self._ask(_BROKEN_RUNS, {**bounds, "first_epoch_ms": first_epoch_ms})
        reported = self._reported(table, bounds) if runs else {}
        for source, epoch_ms in runs:
            pieces = [_Piece(*row) for row in self._ask(_RUN, {**bounds, "source": source, "epoch_ms": epoch_ms})]
            for gap in _gaps_of(table, source, epoch_ms, pieces, reported.get(source, []), first_epoch_ms):
                if gap.before > start and gap.after < end:
                    yield gap

    def _reported(self, table: Table, bounds: Mapping[str, object]) -> dict[int, list[tuple[int, int, int]]]:
        """By source: first and last second that an agent reported as lost, and the rows."""
        reported: dict[int, list[tuple[int, int, int]]] = {}
        parameters = {"kind": LOST_EVENT, "topic": table.topic, "start": bounds["start"], "end": bounds["end"]}
        for source, first_s, last_s, rows in self._ask(_REPORTED, parameters):
            reported.setdefault(source, []).append((first_s, last_s, rows))
        return reported

    def _altered_hours(self, table: Table, start: datetime, end: datetime, compared: int) -> Iterator[datetime]:
        """Hours in which the minute tier is not what the raw rows give."""
        for number, bounds in enumerate(_days(start, end)):
            which = {"compared": compared, "remainder": number % compared}
            for (hour,) in self._ask(_digests_differ(table), bounds | which):
                yield hour.replace(tzinfo=UTC)

    def _one(self, sql: str, parameters: Mapping[str, object]) -> tuple[int, ...]:
        return tuple(int(value or 0) for value in self._ask(sql, parameters)[0])

    def _ask(self, sql: str, parameters: Mapping[str, object]) -> Sequence[tuple[Any, ...]]:
        with store_errors("auditing"):
            return [tuple(row) for row in self._client.query(sql, parameters=dict(parameters)).result_rows]


@dataclass(frozen=True, slots=True)
class _Piece:
    """A frame of a run that is accounted for."""

    start: int
    end: int
    ticks: int
    rows: int
    first_time: datetime
    last_time: datetime


def _gaps_of(
    table: Table,
    source: int,
    epoch_ms: int,
    pieces: Sequence[_Piece],
    reported: Sequence[tuple[int, int, int]],
    first_epoch_ms: int,
) -> Iterator[Gap]:
    """What lies between the pieces of one run, which are in order; and before the first, where the run began here."""
    began = datetime.fromtimestamp(epoch_ms / 1000, UTC)
    expected, after = (0, began) if epoch_ms >= first_epoch_ms else (pieces[0].start, began)
    for piece in pieces:
        if piece.start > expected:
            before = _aware(piece.first_time)
            rows = (piece.start - expected) * piece.rows // piece.ticks
            said = sum(lost for first_s, last_s, lost in reported if _overlaps(first_s, last_s, after, before))
            yield Gap(table.name, source, epoch_ms, expected, piece.start, after, before, rows, said)
        if piece.end > expected:
            expected, after = piece.end, _aware(piece.last_time)


def _overlaps(first_s: int, last_s: int, after: datetime, before: datetime) -> bool:
    return first_s < before.timestamp() and last_s > after.timestamp()


def _digests_differ(table: Table) -> str:
    """The hours of a day whose minutes, hashed row by row, are not those that the raw rows give."""
    columns = [(column, metric) for metric in table.metrics if not metric.sketch for column in rollup_columns(metric)]
    plain = [(column, metric) for column, metric in columns if "DateTime" not in column.type]
    raw = ", ".join(f"{column.from_raw} AS {column.name}" for column, _ in plain)
    minutes = ", ".join(f"{column.from_minutes} AS {column.name}" for column, _ in plain)
    digest = ", ".join(_hashable(column.name, metric) for column, metric in plain)
    where = (
        "time >= {start:DateTime('UTC')} AND time < {end:DateTime('UTC')} "
        "AND resource % {compared:UInt32} = {remainder:UInt32}"
    )
    # Tables have one name for a time, queries another: inside, `minute` is never confused with the column.
    return f"""
SELECT toStartOfHour(minute) AS hour
FROM
(
    SELECT minute, sipHash64(resource, minute, row_count, {digest}) AS digest, 1 AS side
    FROM (SELECT resource, toStartOfMinute(raw.time) AS minute, count() AS row_count, {raw}
          FROM {table.name} AS raw WHERE {where} GROUP BY resource, minute)
    UNION ALL
    SELECT minute, sipHash64(resource, minute, row_count, {digest}) AS digest, 2 AS side
    FROM (SELECT resource, minutes.time AS minute, sum(minutes.row_count) AS row_count, {minutes}
          FROM {table.name}_1m AS minutes WHERE {where} GROUP BY resource, minute)
)
GROUP BY hour
HAVING groupBitXorIf(digest, side = 1) != groupBitXorIf(digest, side = 2) OR countIf(side = 1) != countIf(side = 2)
ORDER BY hour
"""  # noqa: S608 - names of the catalogue; values are bound


def _hashable(name: str, metric: Metric) -> str:
    """The column with NULL, which would swallow the whole hash, as the value that stands for absent."""
    return f"ifNull({name}, {metric.stored.absent})"


def _days(start: datetime, end: datetime) -> Iterator[dict[str, object]]:
    while start < end:
        until = min(start + _DAY, end)
        yield {"start": _plain(start), "end": _plain(until)}
        start = until


def _plain(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def audit_tables(client: Client, start: datetime, end: datetime, *, now: datetime) -> Iterator[TableAudit]:
    """Every table of the catalogue, one after the other."""
    auditor = Auditor(client)
    for table in TABLES:
        yield auditor.audit(table, start, end, now=now)
