"""The plan of a site: arithmetic over unit costs, by hand where it can be done by hand."""

import json
import re

import pytest
from click.testing import CliRunner

from catalogue import TABLES
from kvandal.cli import main
from kvandal.planning import BOOKS_DAYS, MeasuredSite, TableCosts, UnitCosts, load_unit_costs, plan_lines, plan_site
from storage.schema import migrations

# Ten GPUs for an hour at 1 Hz, in frames of 40 rows: 100 bytes a row on Kafka, 10 raw, 20 a minute, 50 an hour.
COSTS = UnitCosts(
    note="",
    site=MeasuredSite(gpus=10, hours=1, rows={"gpu": 36_000}),
    ingest_processor_us_per_row=10.0,
    books_bytes_per_frame=2.0,
    tables={
        "gpu": TableCosts(
            rows_per_frame=40.0,
            kafka_bytes_per_row=100.0,
            raw_bytes_per_row=10.0,
            minute_bytes_per_row=20.0,
            hour_bytes_per_row=50.0,
        )
    },
)


def test_a_plan_is_unit_costs_times_the_site() -> None:
    plan = plan_site(COSTS, gpus=1_000, brokers=4, kafka_copies=3, store_copies=2)
    (gpu,) = plan.tables
    assert gpu.rows_per_second == 1_000
    assert gpu.frames_per_second == 25
    assert plan.kafka_bytes_per_second == 100_000
    assert plan.broker_in_bytes_per_second == 75_000
    assert plan.broker_out_bytes_per_second == 75_000
    assert gpu.kafka_bytes == 100_000 * 7 * 86_400
    assert gpu.raw_bytes == 1_000 * 10 * 7 * 86_400
    assert gpu.minute_bytes == pytest.approx(1_000 * 20 * 90 * 1_440)
    assert gpu.hour_bytes == pytest.approx(1_000 * 50 * 3 * 366 * 24)
    assert plan.books_bytes == 25 * 2 * 400 * 86_400
    assert plan.store_bytes == pytest.approx(2 * (gpu.store_bytes + plan.books_bytes))
    assert plan.ingest_cores == pytest.approx(0.01)
    assert plan.ingest_processes == 1


def test_ingest_grows_by_half_a_core_a_process() -> None:
    assert plan_site(COSTS, gpus=100_000).ingest_processes == 2
    assert plan_site(COSTS, gpus=100_001).ingest_processes == 3


def test_a_tier_that_was_not_measured_is_said_and_never_counted_as_nothing() -> None:
    tables = {"gpu": TableCosts(rows_per_frame=40.0, kafka_bytes_per_row=100.0, raw_bytes_per_row=10.0)}
    costs = UnitCosts("", COSTS.site, 10.0, 2.0, tables)
    plan = plan_site(costs, gpus=10)
    assert plan.not_measured == ["gpu (minute)", "gpu (hour)"]
    assert plan.tables[0].minute_bytes is None
    assert any(line.startswith("not in it   gpu (minute), gpu (hour)") for line in plan_lines(plan, costs))


def test_more_copies_than_brokers_are_refused() -> None:
    with pytest.raises(ValueError, match="3 copies need as many brokers, and there are 2"):
        plan_site(COSTS, gpus=10, brokers=2)


def test_what_was_measured_is_of_todays_tables() -> None:
    costs = load_unit_costs()
    assert set(costs.site.rows) == {table.name for table in TABLES}
    assert set(costs.tables) == {name for name, rows in costs.site.rows.items() if rows}
    assert costs.site.rows["gpu"] == costs.site.gpus * costs.site.hours * 3_600


def test_the_books_are_kept_as_long_as_the_schema_says() -> None:
    (text,) = [migration.text for migration in migrations() if migration.name == "frames"]
    kept = re.findall(r"TTL toDateTime\(checked_at\) \+ INTERVAL (\d+) DAY", text)
    assert kept == [str(BOOKS_DAYS)]


def test_the_verb_says_the_same_to_people_and_programs() -> None:
    told = CliRunner().invoke(main, ["plan", "--gpus", "4608"])
    document = json.loads(CliRunner().invoke(main, ["plan", "--gpus", "4608", "--json"]).stdout)
    assert told.exit_code == 0
    assert f"{document['frames_per_second']:,.0f} messages/s" in told.stdout
    assert f"{document['store_bytes'] / 1e9:,.0f} GB on 2 copies" in told.stdout
    assert document["rows_per_second"] >= 4608


def test_the_verb_refuses_what_cannot_be() -> None:
    refused = CliRunner().invoke(main, ["plan", "--gpus", "100", "--brokers", "2"])
    assert refused.exit_code == 2
    assert "3 copies need as many brokers" in refused.stderr
