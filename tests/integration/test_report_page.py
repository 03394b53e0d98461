"""The site report from rows in the real engine: over the HTTP door with its roles, and in this kind of process."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from catalogue import COOLING, GPU, POWER, ResourceKind, Table, resource_id
from reports.period import Period
from reports.site import write_site_report
from storage.client import StoreRefusedError, connect
from storage.reader import TIME, Parameter, Reader, polars_schema
from storage.schema import apply
from storage.writer import Writer
from stream.rows import pack
from tests.conftest import DoorUnderTest

pytest.importorskip("chdb")

ROOT = Path(__file__).parents[2]


def recent_day() -> Period:
    """A whole day within every tier's retention (rows older than it vanish at insert), inside one year."""
    days = [datetime.now(UTC) - timedelta(days=age) for age in (3, 5)]
    day = next(day for day in days if (day.month, day.day) not in ((12, 31), (1, 1)))
    return Period.parse(f"{day:%Y-%m-%d}", "UTC")


DAY = recent_day()
NOW = DAY.end + timedelta(hours=36)
GPUS, GPU_TICK_S, METER_TICK_S = 8, 300, 60

CLASSES = {ResourceKind.METER: "0.5S", ResourceKind.HEAT_METER: "EN 1434 class 2"}
# What every meter shows all day: role, table, kind, watts.
METERS = {
    "grid <&> feeder": ("site", POWER, ResourceKind.METER, 1_200e3),
    "hall 1": ("it", POWER, ResourceKind.METER, 600e3),
    "hall 2": ("it", POWER, ResourceKind.METER, 400e3),
    "cooling plant": ("cooling", POWER, ResourceKind.METER, 120e3),
    "hand-over": ("heat_handed_over", COOLING, ResourceKind.HEAT_METER, 480e3),
}


@pytest.fixture(scope="module")
def reader(door: DoorUnderTest) -> Iterator[Reader]:
    door.empty()
    apply(connect(door.address()))
    fill(Writer(connect(door.address("ingest"))))
    yield Reader(connect(door.address("reports")))
    door.empty()


def fill(writer: Writer) -> None:
    for name, (_, table, kind, watts) in METERS.items():
        writer.insert_rows(table.name, meter_rows(table, resource_id(kind, name), watts), token=name)
    # The same frame under another token, as a replay past the token's life would bring it.
    writer.insert_rows(
        "power", meter_rows(POWER, resource_id(ResourceKind.METER, "hall 1"), 600e3), token=f"{DAY.text} again"
    )
    writer.insert_rows("gpu", gpu_rows(), token=f"{DAY.text} gpu")
    messages = [json.dumps(message).encode() for message in inventory()]
    writer.insert_messages("inventory", messages, token=f"{DAY.text} inventory")


def ticks(interval_s: int) -> np.ndarray:
    start, end = int(DAY.start.timestamp()), int(DAY.end.timestamp())
    return np.arange(start - 3600, end + 3600, interval_s)


def meter_rows(table: Table, resource: int, watts: float) -> np.ndarray:
    times = ticks(METER_TICK_S)
    register = 3.6e9 + watts * (times - times[0])
    name = "energy_import_joules" if table is POWER else "heat_register_joules"
    values = {name: register, "quality_state": np.ones(len(times))}
    if table is COOLING:
        values["primary_supply_temperature_celsius"] = np.full(len(times), 52.0)
    return pack(table, resource, times, values)


def gpu_rows() -> np.ndarray:
    times, gpus = np.meshgrid(ticks(GPU_TICK_S), np.arange(GPUS))
    ids = np.array([resource_id(ResourceKind.GPU, f"GPU-{gpu}") for gpu in range(GPUS)], dtype=np.uint64)
    watts = 1_000.0 + 0 * times.ravel()
    values = {"power_watts": watts, "energy_joules": watts * GPU_TICK_S, "sm_active_ratio": 0.5 + 0 * watts}
    return pack(GPU, ids[gpus.ravel()], times.ravel(), values)


def inventory() -> Iterator[dict[str, object]]:
    yield resource(ResourceKind.SITE, "Kvandal", {})
    yield resource(ResourceKind.RACK, "R1", {"nominal_power_watts": "2000000"})
    for gpu in range(GPUS):
        yield resource(ResourceKind.GPU, f"GPU-{gpu}", {})
    for name, (role, _, kind, _) in METERS.items():
        facts = {"role": role, "class": CLASSES[kind], "measured_at": "UPS output", "interval_s": f"{METER_TICK_S}"}
        yield resource(kind, name, facts)


def resource(kind: ResourceKind, identity: str, attributes: dict[str, str]) -> dict[str, object]:
    return {
        "resource": resource_id(kind, identity),
        "kind": kind.value,
        "identity": identity,
        "name": identity,
        "attributes": attributes,
        # Known only after the day: what is first said about a thing holds for the time before, too.
        "valid_from": f"{DAY.end + timedelta(hours=12):%Y-%m-%dT%H:%M:%SZ}",
    }


def test_page_has_the_figures_of_the_rows(reader: Reader, tmp_path: Path) -> None:
    path = write_site_report(reader, DAY, tmp_path, now=NOW)
    page = path.read_text(encoding="utf-8")
    assert path.name == f"site-{DAY.text}.html"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    for text in (
        "24 hours",
        '<p class="value">28.80 <span class="unit">MWh</span>',  # 1.2 MW * 24 h
        '<p class="value">24.00 <span class="unit">MWh</span>',  # 1.0 MW * 24 h, the repeated rows once
        '<p class="value">1.2000</p>',  # 28.8 / 24
        '<p class="value">0.400</p>',  # 0.48 MW * 24 h / 28.8 MWh
        '<p class="value">50.00 <span class="unit">%</span>',  # 1.0 of 2.0 MW
        "category 1: IT energy at the UPS output",
        "100.0\u2009% observed",
        "The inventory has no rejected heat meter.",
        "grid &lt;&amp;&gt; feeder",
    ):
        assert text in page, text
    assert "grid <&>" not in page


def test_report_of_a_month_without_rows_is_blank_and_not_zero(reader: Reader, tmp_path: Path) -> None:
    page = write_site_report(reader, Period.parse("2020-02"), tmp_path, now=NOW).read_text(encoding="utf-8")
    assert "No readings in this period from grid &lt;&amp;&gt; feeder." in page
    assert '<p class="value">0' not in page


def test_year_is_read_from_quarter_hours_and_agrees_with_the_day(reader: Reader, tmp_path: Path) -> None:
    page = write_site_report(reader, Period.parse(f"{DAY.start:%Y}", "UTC"), tmp_path, now=NOW).read_text(
        encoding="utf-8"
    )
    # 26 hours of readings; the last that is kept is 15 minutes before their end: 25.75 h * 1.2 MW.
    assert '<p class="value">30.90 <span class="unit">MWh</span>' in page
    # A quarter hour between readings is no gap here, whatever interval the meter declares.
    assert "None: every step of every register was plain." in page


def test_reader_answers_the_declared_types_of_every_table(reader: Reader) -> None:
    for table in (GPU, POWER, COOLING):
        schema = polars_schema(table)
        sql = f"SELECT {', '.join(schema)} FROM {table.name} LIMIT 10"  # noqa: S608 - names from the catalogue
        frame = reader.query(sql, {}, schema)
        assert dict(frame.schema) == schema
        assert frame.height == 10


def test_reader_binds_parameters(reader: Reader) -> None:
    hostile = "'; DROP TABLE power --"
    schema = {"text": pl.String(), "time": TIME, "member": pl.UInt8()}
    sql = (
        "SELECT {text:String} AS text, toDateTime({at:String}, 'UTC') AS time, "
        "has({ids:Array(UInt64)}, toUInt64(18446744073709551615)) AS member"
    )
    parameters: dict[str, Parameter] = {"text": hostile, "at": "2026-10-25 01:00:00", "ids": [1, (1 << 64) - 1]}
    wanted = (hostile, datetime(2026, 10, 25, 1, tzinfo=UTC), 1)
    assert reader.query(sql, parameters, schema).row(0) == wanted


def test_reader_refuses_an_answer_of_other_columns(reader: Reader) -> None:
    with pytest.raises(StoreRefusedError, match="a is UInt8, expected String; b was not asked for"):
        reader.query("SELECT toUInt8(1) AS a, 2 AS b", {}, {"a": pl.String()})


def test_reader_passes_on_what_the_store_refuses(reader: Reader) -> None:
    with pytest.raises(StoreRefusedError, match="nowhere"):
        reader.query("SELECT 1 AS a FROM nowhere", {}, {"a": pl.UInt8()})


IN_PROCESS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.integration.test_report_page import DAY, NOW, fill
from reports.site import write_site_report
from storage.client import StoreAddress, connect
from storage.reader import Reader
from storage.schema import apply
from storage.writer import Writer
client = connect(StoreAddress("chdb://" + sys.argv[2] + "/store"))
apply(client)
fill(Writer(client))
write_site_report(Reader(client), DAY, Path(sys.argv[2]) / "out", now=NOW)
"""


def test_engine_in_process_and_over_the_door_give_the_same_page(reader: Reader, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", IN_PROCESS, str(ROOT), str(tmp_path)], check=True, timeout=100)
    in_process = (tmp_path / "out" / f"site-{DAY.text}.html").read_text(encoding="utf-8")
    assert in_process == write_site_report(reader, DAY, tmp_path, now=NOW).read_text(encoding="utf-8")
