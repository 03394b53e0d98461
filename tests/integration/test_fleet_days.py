"""Days of the fleet that are kept say what their minutes say, and are computed anew when something has changed."""

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import polars as pl
import pytest
from clickhouse_connect.driver.client import Client
from polars.testing import assert_frame_equal

from kvandal.fleet_days import AGAIN_AFTER, FleetDayKeeper
from reports import efficiency_queries as efficiency
from reports import fleet_days, heat_queries, queries
from reports.efficiency_queries import Window
from storage.client import connect
from storage.reader import Reader, Schema
from storage.schema import apply
from tests.conftest import DoorUnderTest
from tests.servers.efficiency_site import FilledSite, fill_site
from tests.servers.stack import until

pytest.importorskip("chdb")

GPUS = 72
PARTS_OF_FLEET = 3


@pytest.fixture(scope="module")
def filled(door: DoorUnderTest) -> Iterator[tuple[Client, FilledSite]]:
    door.empty()
    with closing(connect(door.address())) as client:
        apply(client)
        site = fill_site(client, gpus=GPUS, seed=8, fault_rate=60.0, lead_h=1)
        note_frames(client, site)
        yield client, site
    door.empty()


def note_frames(client: Client, site: FilledSite) -> None:
    """What ingest would have noted of the rows."""
    first, last = (round(bound.timestamp()) for bound in (site.period.start, site.period.end))
    client.command(
        "INSERT INTO frames (table_raw, outcome, first_time, last_time, checked_at) "
        f"SELECT 'gpu', 'stored', {first - 3600}, {last + 3600}, now64(3)"
    )


def compute_all(client: Client, again_after: timedelta = AGAIN_AFTER) -> list[str]:
    keeper = FleetDayKeeper(client, "UTC", gpus_at_once=GPUS // PARTS_OF_FLEET, again_after=again_after)
    return [f"{day:%Y-%m-%d}" for some in iter(keeper.recompute, []) for day in some]


def same(one: pl.DataFrame, other: pl.DataFrame) -> None:
    assert one.height
    assert_frame_equal(one, other, check_row_order=False, rel_tol=1e-9)


def test_kept_days_say_what_their_minutes_say(filled: tuple[Client, FilledSite]) -> None:
    client, site = filled
    reader, window = Reader(client), Window(site.period.start, site.period.end)
    assert f"{window.start:%Y-%m-%d}" in compute_all(client)
    month = type(site.period).parse(f"{window.start:%Y-%m}", "UTC")
    days = fleet_days.read_kept_days(reader, month)
    assert days.holds(window)

    def kept(table: fleet_days.KeptTable, schema: Schema) -> pl.DataFrame:
        return fleet_days.read_kept(reader, table, days, window, schema)

    same(kept(fleet_days.SEGMENTS, efficiency.SEGMENTS), efficiency.read_segments(reader, window, minutes=True))
    same(kept(fleet_days.OUTLIERS, efficiency.WINDOWS), efficiency.read_outlying_windows(reader, window))
    same(kept(fleet_days.COMPARED, efficiency.JOB_WINDOWS), efficiency.read_job_windows(reader, window))
    same(fleet_days.read_components(days, window), efficiency.read_components(reader, window, minutes=True))
    told = queries.read_gpus(reader, month, site.now, within=(window.start, window.end))
    same(fleet_days.read_gpus(reader, days, month, site.now).filter(pl.col("time") == window.start), told)
    for table, kind in heat_queries.FLEET_TABLES:
        found = fleet_days.read_fleet_quarters(reader, table, kind, days, ())
        of_day = found.filter(pl.col("time") >= window.start, pl.col("time") < window.end)
        same(of_day, heat_queries.read_fleet_quarters(reader, table, window.start, window.end))


def test_what_is_not_kept_is_read_from_the_minutes(filled: tuple[Client, FilledSite]) -> None:
    client, site = filled
    reader = Reader(client)
    whole = fleet_days.read_coolant(reader, fleet_days.NO_DAYS, site.period, site.now)
    same(whole, efficiency.coolant_means(reader.query(
        efficiency.coolant_sql(),
        {**efficiency.bounds_of(Window(site.period.start, site.period.end)), **efficiency.EVERY_GPU},
        efficiency.COOLANT_SUMS,
    )))  # fmt: skip
    month = type(site.period).parse(f"{site.period.start:%Y-%m}", "UTC")
    (gap,) = fleet_days.NO_DAYS.gaps(month, month.end)
    assert (gap.start, gap.end) == (month.start, month.end)
    assert fleet_days.NO_DAYS.gaps(month, month.start - timedelta(days=1)) == ()


def test_a_day_is_computed_anew_when_a_job_is_corrected_and_replaces_what_was(
    filled: tuple[Client, FilledSite],
) -> None:
    client, site = filled
    compute_all(client)
    assert compute_all(client) == []  # it was computed within the hour
    at_once = timedelta(0)
    assert compute_all(client, again_after=at_once) == []  # nothing has changed
    client.command(
        "INSERT INTO jobs SELECT * REPLACE(end - INTERVAL 1 HOUR AS end, now64(3) AS received_at) FROM jobs FINAL "
        "WHERE jobs.end > {later:DateTime('UTC')} LIMIT 1",
        parameters={"later": site.period.start + timedelta(hours=2)},
    )
    again = compute_all(client, again_after=at_once)
    assert f"{site.period.start:%Y-%m-%d}" in again
    count = "SELECT uniqExact(day, computed_at) - uniqExact(day) FROM gpu_segments"
    until(lambda: client.command(count) == 0, what="only the last computation is there")
