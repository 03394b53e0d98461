"""The schema on the real engine: migrations make what the catalogue asks for, and the tiers add up."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from clickhouse_connect.driver.client import Client

from catalogue import COOLING, GPU, POWER, RACK, TABLES, TRAY, Kind, Table
from storage import schema
from storage.client import StoreAddress, StoreRefusedError, connect
from storage.ddl import hour_insert
from storage.schema import Migration
from storage.writer import Writer
from stream.batch import FRAME_LOG
from stream.rows import absent_rows, pack

# Recent and on the hour: rows that are older than their table's TTL vanish when they are inserted.
HOUR = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=6)
HOUR_S = int(HOUR.timestamp())
WIDTHS = {"UUID": 16, "FixedString": 16, "UInt32": 4, "UInt64": 8, "DateTime": 4, "DateTime64": 8, "Enum8": 1}
NO_SKETCH = "* EXCEPT '_sketch$'"  # the client cannot read a sketch's state


@pytest.fixture
def disposable(database: StoreAddress) -> Iterator[Client]:
    """A client of a database with all migrations, which the test may damage."""
    with closing(connect(database)) as client:
        schema.apply(client)
        yield client


@dataclass(slots=True)
class Inserts:
    """Inserts into one table of one database under a token of each one's own."""

    client: Client
    table: Table
    made: int = 0

    def write(self, resource: int, times_s: Sequence[int], values: Mapping[str, Any]) -> None:
        self.made += 1
        rows = pack(self.table, [resource] * len(times_s), times_s, values)
        Writer(self.client).insert_rows(self.table.name, rows, token=f"{self.table.name}-{resource}-{self.made}")


def one(client: Client, sql: str, **parameters: object) -> dict[str, Any]:
    """The only row of a query, by column."""
    result = client.query(sql, parameters=parameters)
    (row,) = result.result_rows
    return dict(zip(result.column_names, row, strict=True))


# Migrations


def test_migrations_make_what_the_catalogue_asks_for(disposable: Client) -> None:
    assert schema.diff(disposable) == []
    assert {(state.applied, state.changed) for state in schema.status(disposable)} == {(True, False)}


def test_every_table_of_the_catalogue_has_its_view(store: Client) -> None:
    found = store.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine = 'MaterializedView'"
    ).result_rows
    assert {name for (name,) in found} == {f"{table.name}_to_1m" for table in TABLES} | {"inventory_to_words"}


def test_applying_again_does_nothing(disposable: Client) -> None:
    assert schema.apply(disposable) == []


def test_a_migration_that_was_cut_off_can_be_applied_again(database: StoreAddress) -> None:
    client = connect(database)
    for migration in schema.migrations():
        for statement in migration.statements:
            client.command(statement)
            client.command(statement)
    assert schema.apply(client) == schema.migrations()
    assert schema.diff(client) == []


def test_an_empty_database_lacks_everything(database: StoreAddress) -> None:
    client = connect(database)
    assert sorted(schema.diff(client)) == sorted(
        f"{table.name}{tier} is missing" for table in TABLES for tier in ("", "_1m", "_1h", "_to_1m")
    )
    assert not any(state.applied for state in schema.status(client))


def test_a_migration_that_changed_after_it_was_applied_is_refused(disposable: Client) -> None:
    other = replace(schema.migrations()[0], text="SELECT 1;\n")
    disposable.insert(
        "schema_migrations", [[1, "readings", other.checksum]], column_names=["number", "name", "checksum"]
    )
    assert [state.migration.number for state in schema.status(disposable) if state.changed] == [1]
    with pytest.raises(StoreRefusedError, match="migration 0001 has changed since it was applied"):
        schema.apply(disposable)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("DROP TABLE gpu_1h SYNC", "gpu_1h is missing"),
        ("ALTER TABLE gpu DROP COLUMN power_watts", "gpu.power_watts is missing"),
        ("ALTER TABLE rack_1m DROP COLUMN power_watts_max", "rack_1m.power_watts_max is missing"),
        (
            "ALTER TABLE tray MODIFY COLUMN processor_utilization_ratio_raw UInt32",
            "tray.processor_utilization_ratio_raw is UInt32, the catalogue says UInt16",
        ),
    ],
)
def test_what_departs_from_the_catalogue_is_told(disposable: Client, damage: str, sentence: str) -> None:
    if "tray" in damage:
        disposable.command("DROP VIEW tray_to_1m SYNC")  # the engine keeps a column that a view reads
    disposable.command(damage)
    assert sentence in schema.diff(disposable)


def test_a_view_that_is_missing_is_told(disposable: Client) -> None:
    disposable.command("DROP VIEW gpu_to_1m SYNC")
    assert schema.diff(disposable) == ["gpu_to_1m is missing"]


def test_the_first_migration_is_what_the_catalogue_renders() -> None:
    assert schema.migrations()[0].text == schema.draft()


def test_migrations_are_numbered_without_gaps() -> None:
    numbers = [migration.number for migration in schema.migrations()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_statements_end_at_semicolons_that_end_lines() -> None:
    text = "-- note; with one\nCREATE a COMMENT 'x; y';\n\nCREATE b;  \nCREATE c"
    assert Migration(9, "x", text).statements == ["CREATE a COMMENT 'x; y'", "CREATE b", "CREATE c"]


def test_every_table_that_is_written_remembers_its_tokens(store: Client) -> None:
    """An insert that is repeated after a long outage must still be recognised, in the view's target too."""
    created = store.query(
        "SELECT name, create_table_query FROM system.tables WHERE database = currentDatabase() "
        "AND engine LIKE '%MergeTree%' AND name NOT IN ('schema_migrations', 'ingest_plan', 'hours_computed') "
        "AND name NOT LIKE '%\\_1h'"
    ).result_rows
    assert {name for name, _ in created} >= {t.name for t in TABLES} | {f"{t.name}_1m" for t in TABLES} | {"frames"}
    lacking = [name for name, sql in created if "non_replicated_deduplication_window = 50000" not in sql]
    assert lacking == []


# The tier of every reading


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_people_read_base_units_and_null_where_absent(store: Client, table: Table) -> None:
    lowest, highest, absent = absent_rows(table, 1), absent_rows(table, 1), absent_rows(table, 1)
    for metric in table.metrics:
        lowest[metric.column], highest[metric.column] = metric.stored.lowest, metric.stored.highest
    rows = np.concatenate([lowest, highest, absent])
    rows["resource"], rows["time"] = 1, [HOUR_S, HOUR_S + 1, HOUR_S + 2]
    Writer(store).insert_rows(table.name, rows, token="edges")  # noqa: S106 - not a password
    names = [metric.name for metric in table.metrics]
    found = store.query(f"SELECT {', '.join(names)} FROM {table.name} ORDER BY time").result_rows  # noqa: S608
    for position, metric in enumerate(table.metrics):
        edges = [metric.stored.lowest * metric.resolution, metric.stored.highest * metric.resolution]
        assert [row[position] for row in found[:2]] == pytest.approx([float(edge) for edge in edges], rel=1e-15)
        assert found[2][position] is None


def test_every_column_is_described(store: Client) -> None:
    bare = store.query(
        "SELECT table, name FROM system.columns WHERE database = currentDatabase() AND comment = '' "
        "AND table IN {tables:Array(String)}",
        parameters={"tables": [f"{table.name}{tier}" for table in TABLES for tier in ("", "_1m", "_1h")]},
    ).result_rows
    assert bare == []


# Minutes


def test_a_minute_sums_counts_and_bounds_what_was_read(store: Client) -> None:
    inserts = Inserts(store, GPU)
    inserts.write(1, [HOUR_S, HOUR_S + 1, HOUR_S + 59, HOUR_S + 60], {"power_watts": [100.0, np.nan, 300.5, 900.0]})
    inserts.write(1, [HOUR_S + 30], {"power_watts": [200.0]})  # the same minute, in another insert
    minute = one(
        store,
        "SELECT sum(row_count) AS rows, sum(power_watts_sum_raw) AS total, sum(power_watts_count) AS readings, "
        "min(power_watts_min_raw) AS lowest, max(power_watts_max_raw) AS highest, "
        "quantileDDMerge(0.01, 0.5)(power_watts_sketch) AS median "
        "FROM gpu_1m WHERE resource = 1 AND time = {time:DateTime('UTC')}",
        time=HOUR,
    )
    assert (minute["rows"], minute["total"], minute["readings"]) == (4, 6005, 3)
    assert (minute["lowest"], minute["highest"]) == (1000, 3005)
    assert minute["median"] == pytest.approx(2000, rel=0.01)


def test_a_minute_in_base_units_is_mean_and_bounds_of_gauges_and_sums_of_deltas(store: Client) -> None:
    Inserts(store, GPU).write(
        1,
        [HOUR_S, HOUR_S + 1, HOUR_S + 2],
        {
            "power_watts": [100.0, np.nan, 300.5],
            "energy_joules": [100.1, np.nan, 300.4],
            "clock_event_reasons": [1, 4, np.nan],
            "gpu_state": [1, 3, 2],
            "temperature_margin_kelvin": [-5, 7, np.nan],
        },
    )
    named = "power_watts, energy_joules, power_watts_min, power_watts_max"
    minute = one(store, f"SELECT {NO_SKETCH}, {named} FROM gpu_1m FINAL")  # noqa: S608
    assert minute["power_watts"] == pytest.approx(200.25, rel=1e-15)
    assert (minute["power_watts_min"], minute["power_watts_max"]) == (100.0, 300.5)
    assert minute["energy_joules"] == pytest.approx(400.5, rel=1e-15)
    assert minute["clock_event_reasons_or_raw"] == 5
    assert minute["gpu_state_max_raw"] == 3
    assert (minute["temperature_margin_kelvin_sum_raw"], minute["temperature_margin_kelvin_count"]) == (2, 2)
    assert (minute["temperature_margin_kelvin_min_raw"], minute["temperature_margin_kelvin_max_raw"]) == (-5, 7)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_minute_without_readings_has_no_mean_and_no_bounds(store: Client, table: Table) -> None:
    Inserts(store, table).write(1, [HOUR_S, HOUR_S + 1], {})
    aliases = [metric.name for metric in table.of_kind(Kind.GAUGE, Kind.DELTA)]
    minute = one(store, f"SELECT {NO_SKETCH}, {', '.join(aliases)} FROM {table.name}_1m FINAL")  # noqa: S608
    assert minute["row_count"] == 2
    for metric in table.metrics:
        if metric.kind in (Kind.GAUGE, Kind.DELTA):
            assert (minute[f"{metric.name}_count"], minute[f"{metric.name}_sum_raw"]) == (0, 0)
            assert minute[metric.name] is None
        if metric.extremes or metric.kind is Kind.REGISTER:
            assert minute[f"{metric.name}_min_raw"] is None
            assert minute[f"{metric.name}_max_raw"] is None
        if metric.kind is Kind.STATE:
            assert minute[f"{metric.name}_max_raw"] is None


def test_a_register_keeps_its_lowest_and_highest_of_the_minute(store: Client) -> None:
    Inserts(store, POWER).write(
        1, [HOUR_S, HOUR_S + 10, HOUR_S + 20], {"energy_import_joules": [3600.0 * 10, np.nan, 3600.0 * 12]}
    )
    minute = one(
        store, "SELECT energy_import_joules_min AS first, energy_import_joules_max AS last FROM power_1m FINAL"
    )
    assert minute == {"first": 36_000.0, "last": 43_200.0}


def test_a_repeated_insert_changes_neither_rows_nor_minutes(store: Client) -> None:
    rows = pack(RACK, [1, 1], [HOUR_S, HOUR_S + 10], {"power_watts": [1000.0, 3000.0]})
    writer = Writer(store)
    for token in ("a", "a", "b", "a"):
        writer.insert_rows("rack", rows, token=token)
    assert one(store, "SELECT count() AS rows FROM rack") == {"rows": 4}
    assert one(store, "SELECT sum(row_count) AS rows, sum(power_watts_count) AS readings FROM rack_1m") == {
        "rows": 4,
        "readings": 4,
    }


# Hours


def recompute(client: Client, table: Table, first: datetime, last: datetime, *, computed_at: datetime = HOUR) -> None:
    parameters = {"first": first, "last": last, "computed_at": computed_at}
    client.command(hour_insert(table), parameters=parameters)


@pytest.mark.parametrize("table", [GPU, TRAY, COOLING], ids=lambda table: table.name)
def test_an_hour_from_minutes_is_the_hour_from_readings(store: Client, table: Table) -> None:
    random = np.random.default_rng(20261122)
    ticks = np.arange(0, 7200, 97)
    rows = absent_rows(table, 2 * len(ticks))
    rows["resource"], rows["time"] = np.repeat([1, 2], len(ticks)), HOUR_S + np.tile(ticks, 2)
    for metric in table.metrics:
        counts = random.integers(metric.stored.lowest, min(metric.stored.highest, 60_000), len(rows))
        read = random.random(len(rows)) > 0.3
        rows[metric.column][read] = counts[read]
    for number, block in enumerate(np.array_split(rows, 7)):
        Writer(store).insert_rows(table.name, block, token=f"block-{number}")
    recompute(store, table, HOUR, HOUR + timedelta(hours=1))
    hours = store.query(f"SELECT {NO_SKETCH} FROM {table.name}_1h FINAL ORDER BY resource, time")  # noqa: S608
    assert len(hours.result_rows) == 4
    for values in hours.result_rows:
        hour = dict(zip(hours.column_names, values, strict=True))
        start = hour["time"].replace(tzinfo=UTC).timestamp()
        of_hour = rows[(rows["resource"] == hour["resource"]) & (rows["time"] // 3600 * 3600 == start)]
        assert hour["row_count"] == len(of_hour)
        for metric in table.metrics:
            readings = [int(c) for c in of_hour[metric.column] if int(c) != metric.stored.absent]
            if metric.kind in (Kind.GAUGE, Kind.DELTA):
                assert hour[f"{metric.name}_sum_raw"] == sum(readings)
                assert hour[f"{metric.name}_count"] == len(readings)
            if metric.extremes or metric.kind is Kind.REGISTER:
                assert hour[f"{metric.name}_min_raw"] == min(readings)
            if metric.extremes or metric.kind in (Kind.REGISTER, Kind.STATE):
                assert hour[f"{metric.name}_max_raw"] == max(readings)
            if metric.kind is Kind.BITS:
                assert hour[f"{metric.name}_or_raw"] == np.bitwise_or.reduce(readings)


def test_an_hour_that_late_rows_touch_is_replaced(store: Client) -> None:
    inserts = Inserts(store, GPU)
    inserts.write(1, [HOUR_S], {"power_watts": [100.0]})
    recompute(store, GPU, HOUR, HOUR)
    inserts.write(1, [HOUR_S + 1800], {"power_watts": [300.0]})
    recompute(store, GPU, HOUR, HOUR, computed_at=HOUR + timedelta(seconds=1))
    hour = one(store, "SELECT row_count, power_watts, power_watts_min, power_watts_max FROM gpu_1h FINAL")
    assert hour == {"row_count": 2, "power_watts": 200.0, "power_watts_min": 100.0, "power_watts_max": 300.0}


def test_only_the_hours_asked_for_are_recomputed(store: Client) -> None:
    Inserts(store, GPU).write(1, [HOUR_S - 1, HOUR_S, HOUR_S + 3599, HOUR_S + 3600], {"power_watts": 1.0})
    recompute(store, GPU, HOUR, HOUR)
    assert one(store, "SELECT row_count FROM gpu_1h FINAL") == {"row_count": 2}


# The frame log


def test_every_field_of_the_frame_log_is_a_column_of_its_width(store: Client) -> None:
    found = store.query(
        "SELECT name, extract(type, '^[A-Za-z0-9]+') FROM system.columns WHERE database = currentDatabase() "
        "AND table = 'frames' AND default_kind = ''"
    ).result_rows
    columns = {name: WIDTHS[kind] for name, kind in found}
    fields = {name: FRAME_LOG[name].itemsize for name in FRAME_LOG.names or ()}
    assert fields == columns
