"""What is computed from the minutes when an hour is closed, and again when late data touched it.

The hour tier of every table; from the GPUs' minutes those of the fleet; and rollups of ingest's lines about frames.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from clickhouse_connect.driver.client import Client

from catalogue import GPU, TABLES, table
from storage.client import store_errors
from storage.ddl import hour_insert
from storage.fleet_minutes import FLEET_MINUTES, fleet_minutes_inserts
from storage.frame_rollups import FRAME_MINUTES, FRAMES, SOURCE_HOURS

HOUR = timedelta(hours=1)
# Whose hours are computed, as hours_computed names it.
COMPUTED = (*(one.name for one in TABLES), FLEET_MINUTES, FRAMES)
# An hour is closed when frames of its last ticks have had time to arrive.
_GRACE = timedelta(minutes=5)
# Frames of an hour that was still open at one run are looked at again by the runs of the next hours.
_LOOK_BACK = timedelta(hours=3)

# The hours that frames stored since {since} touched, and that are not computed yet from all of them: those of their
# readings, and those in which they were planned.
_DIRTY = """
WITH touched AS
(
    SELECT
        arrayJoin(if(table_name = {gpu:String}, [table_name, {fleet:String}], [table_name])) AS name,
        toDateTime(arrayJoin(range(
            toUInt32(toStartOfHour(first_time)), toUInt32(last_time) + 1, 3600)), 'UTC') AS touched_hour,
        max(stored_at) AS last_stored
    FROM frames
    WHERE outcome = 'stored' AND stored_at >= {since:DateTime64(3, 'UTC')}
    GROUP BY name, touched_hour
    UNION ALL
    SELECT {frames:String}, toStartOfHour(checked_at), max(stored_at)
    FROM frames
    WHERE stored_at >= {since:DateTime64(3, 'UTC')}
    GROUP BY 2
)
SELECT name, touched_hour
FROM touched LEFT JOIN (SELECT * FROM hours_computed FINAL) AS computed
    ON computed.table_name = touched.name AND computed.hour = touched.touched_hour
WHERE touched_hour <= {newest:DateTime('UTC')} AND last_stored >= computed.computed_at
ORDER BY name, touched_hour
"""


@dataclass(frozen=True, slots=True)
class ComputedHours:
    """Hours of one of COMPUTED that were computed: from `first` to `last`, both included."""

    table: str
    first: datetime
    last: datetime


def hour_inserts(name: str) -> tuple[str, ...]:
    """What computes hours of one of COMPUTED, one after another; parameters as of `storage.ddl.hour_insert`."""
    if name == FLEET_MINUTES:
        return fleet_minutes_inserts()
    if name == FRAMES:
        return FRAME_MINUTES.insert, SOURCE_HOURS.insert
    return (hour_insert(table(name)),)


class HourKeeper:
    """Keeps what is computed by hours up to date; only one at a time per store.

    A recomputation replaces what was there, so running it twice, or too often, does no harm.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._since = datetime(1970, 1, 1, tzinfo=UTC)

    def recompute(self) -> list[ComputedHours]:
        """Compute every closed hour that has changed; returns what was computed. StoreUnavailableError."""
        with store_errors("reading the store's clock"):
            # The store's own clock: it also stamps the frames.
            started: datetime = self._client.query("SELECT now64(3, 'UTC')").result_rows[0][0].replace(tzinfo=UTC)
        computed = [
            self._compute(name, run, started) for name, hours in self._dirty(started).items() for run in _runs(hours)
        ]
        self._since = started - _LOOK_BACK
        return computed

    def _dirty(self, started: datetime) -> dict[str, list[datetime]]:
        newest = (started - _GRACE).replace(minute=0, second=0, microsecond=0) - HOUR
        parameters = {"since": self._since, "newest": newest, "gpu": GPU.name, "fleet": FLEET_MINUTES, "frames": FRAMES}
        with store_errors("looking for changed hours"):
            rows = self._client.query(_DIRTY, parameters=parameters).result_rows
        dirty: dict[str, list[datetime]] = {name: [] for name in COMPUTED}
        for name, hour in rows:
            dirty.setdefault(name, []).append(hour.replace(tzinfo=UTC))
        return dirty

    def _compute(self, name: str, hours: Sequence[datetime], started: datetime) -> ComputedHours:
        first, last = hours[0], hours[-1]
        with store_errors(f"computing {len(hours)} hours of {name}"):
            for statement in hour_inserts(name):
                self._client.command(statement, parameters={"first": first, "last": last, "computed_at": started})
            self._client.insert(
                "hours_computed",
                [[name, hour, started] for hour in hours],
                column_names=["table_name", "hour", "computed_at"],
            )
        return ComputedHours(name, first, last)


def _runs(hours: Sequence[datetime]) -> Iterator[list[datetime]]:
    """Hours that follow one another, at most a day of them, so that one computation stays small."""
    run: list[datetime] = []
    for hour in hours:
        if run and (hour - run[-1] != HOUR or len(run) == 24):
            yield run
            run = []
        run.append(hour)
    if run:
        yield run
