"""The heat report through the real engine: a simulated site in the store against what really happened there."""

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from clickhouse_connect.driver.client import Client

from catalogue import ResourceKind, resource_id
from collectors.simulator import SimulatorSource
from kvandal.publishing import Format, PublishRequest, render
from reports.figures import Quality
from reports.heat_account import HeatContract, HeatSettings
from reports.heat_publication import read_heat_publication
from reports.heat_report import HeatReportSettings, read_heat, write_heat_report
from reports.period import Period
from reports.publishing.schemas import document_problems
from simulation import Simulation, Site
from simulation.site import OFF_TAKER
from storage.client import StoreAddress, connect
from storage.reader import Reader
from storage.topology import recompute_places
from storage.writer import Writer
from stream.batch import MessageBatcher, Record
from stream.messages import InventoryMessage, encode_message
from stream.plan import Plan, Range
from stream.seen import SeenFrames
from stream.topics import INVENTORY
from tests.conftest import DoorUnderTest

pytest.importorskip("chdb")
pytest.importorskip("CoolProp")
pytest.importorskip("typst")

HOUR_S = 3600
# A whole day that is still kept raw; rows that are older than their table's TTL vanish at insert.
DAY = Period.parse(f"{datetime.now(UTC) - timedelta(days=4):%Y-%m-%d}")
NOW = DAY.end + timedelta(hours=40)
GPUS = 144
# Agreed with the off-taker: more than it takes in the simulation.
CONTRACT = HeatContract(OFF_TAKER, temperature_celsius=45.0, power_watts=1e6)


@pytest.fixture
def told(store: Client, door: DoorUnderTest, tmp_path: Path) -> tuple[dict[str, Any], Path, Simulation, StoreAddress]:
    source = SimulatorSource(Simulation(Site.build(GPUS, 3), int(DAY.start.timestamp()) - 2 * HOUR_S))
    fill(store, source)
    recompute_places(store)
    address = door.address("reports")
    with closing(connect(address)) as client:
        settings = HeatReportSettings(heat=HeatSettings(contracts=(CONTRACT,)))
        page = write_heat_report(Reader(client), DAY, tmp_path, now=NOW, settings=settings)
    document = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    return document, page, source.simulation, address


def fill(store: Client, source: SimulatorSource) -> None:
    writer, number = Writer(store), 0
    first, last = source.simulation.start_s, int(DAY.end.timestamp()) + HOUR_S
    for chunk in source.backfill(first, last):
        tables = {reading.table.name for reading in chunk}
        for name in sorted(tables):
            rows = np.concatenate([reading.rows for reading in chunk if reading.table.name == name])
            writer.insert_rows(name, rows, token=f"{name} {number}")
            number += 1
    tell(writer, *source.inventory())


def tell(writer: Writer, *messages: InventoryMessage, first: int = 0) -> None:
    """As ingest would store them."""
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    plan = Plan(INVENTORY.name, UUID(int=1), (Range(0, first, first + len(messages)),), now_ms, 0)
    records = [Record(0, first + place, encode_message(message)) for place, message in enumerate(messages)]
    batch = MessageBatcher(INVENTORY).build(plan, records, SeenFrames())
    assert batch.rejected == []
    writer.insert_messages("inventory", batch.messages, token=plan.token)


def test_report_of_a_simulated_day_is_what_really_happened(
    told: tuple[dict[str, Any], Path, Simulation, StoreAddress],
) -> None:
    document, page, simulation, address = told
    truth = simulation.truth.facility(DAY.start.timestamp(), DAY.end.timestamp())
    figures = {found["key"]: found for found in document["figures"]}
    handed, rejected = truth.handed_over / 3.6e9, truth.rejected / 3.6e9
    site, it = truth.meter[0] / 3.6e9, truth.meter[3:].sum() / 3.6e9
    # Its registers count whole watt-hours; its instruments have no error.
    assert figures["heat_handed_over"]["value"] == pytest.approx(handed, abs=2e-6)
    assert figures["heat_rejected"]["value"] == pytest.approx(rejected, abs=2e-6)
    assert figures["erf"]["value"] == pytest.approx(handed / site, rel=1e-5)
    assert figures["ere"]["value"] == pytest.approx((site - handed) / it, rel=1e-5)
    # From sensors each minute, of 0.01 K: what reaches the exchangers is handed over or rejected.
    assert figures["heat_available"]["value"] == pytest.approx(handed + rejected, rel=1e-3)
    assert all(found["quality"] == "measured" for found in figures.values() if found["value"] is not None)
    _check_balances(document, simulation)
    _check_statement(document, handed)
    _check_capacity(document, simulation)
    assert page.name == f"heat-{DAY.text}.html"
    assert OFF_TAKER in page.read_text(encoding="utf-8")
    _check_views(address)
    _check_year(address, simulation, page.parent)


def _check_year(address: StoreAddress, simulation: Simulation, folder: Path) -> None:
    """Of a year with a day's readings: what they count, by the quarter hours that are kept, and that it is little."""
    year = Period.parse(DAY.text[:4])
    first_s = max(simulation.start_s, year.start.timestamp())
    truth = simulation.truth.facility(first_s, DAY.end.timestamp())
    known_s = DAY.end.timestamp() - first_s
    with closing(connect(address)) as client:
        report = read_heat_publication(Reader(client), year, NOW)
    figures = {kpi.definition.key: kpi for kpi in report.figures}
    for key, joules in (("heat_handed_over", truth.handed_over), ("heat_rejected", truth.rejected)):
        found = figures[key]
        # Of the hour after the day nothing true is known but that it was like the others, if it is of this year.
        assert found.value is not None, key
        assert 0.99 < found.value / (joules / 3.6e9) < 1 + 1.5 * HOUR_S / known_s, key
        assert found.quality is Quality.ESTIMATED, key
        assert found.evidence is not None
        assert 0.95 < found.evidence.coverage / (known_s / year.seconds) < 1 + 1.5 * HOUR_S / known_s, key
    assert figures["erf"].value == pytest.approx(truth.handed_over / truth.meter[0], rel=0.01)
    assert figures["heat_available"].value is None
    assert report.complete == (year.end <= NOW)
    assert not [*document_problems("heat", report.document)]
    files = render(report, PublishRequest(out=folder, formats=tuple(Format)))
    assert {*files} == {f"heat-{year.text}.{ending}" for ending in Format}


def _check_balances(document: dict[str, Any], simulation: Simulation) -> None:
    truth = simulation.truth.facility(DAY.start.timestamp(), DAY.end.timestamp())
    fleet = simulation.truth.fleet(DAY.start.timestamp(), DAY.end.timestamp())
    levels = {(row["level"], row["name"]): row for row in document["balances"]}
    assert {level for level, _ in levels} == {
        "grid to sub-meters",
        "IT meter to racks",
        "rack to trays",
        "trays to GPUs",
        "racks to loop",
        "loops to heat meters",
    }
    assert {row["verdict"] for row in levels.values()} == {"holds within uncertainty"}
    feeder = levels["IT meter to racks", "meter hall-1 IT"]
    assert feeder["out_mwh"] == pytest.approx(truth.rack.sum() / 3.6e9, rel=1e-5)
    trays, racks = fleet.tray.sum() / 3.6e9, levels["rack to trays", "hall-1 / rack 01"]
    out = sum(row["out_mwh"] for (level, _), row in levels.items() if level == "rack to trays")
    # Agents send whole joules; the first tick of the day holds what was drawn before it, and is not of the day.
    assert out == pytest.approx(trays, rel=1e-5)
    gpus = sum(row["out_mwh"] for (level, _), row in levels.items() if level == "trays to GPUs")
    assert gpus == pytest.approx(fleet.gpu.sum() / 3.6e9, rel=1e-5)
    assert racks["coverage"] == pytest.approx(1.0)


def _check_statement(document: dict[str, Any], handed: float) -> None:
    (statement,) = document["statements"]
    (meter,) = statement["meters"]
    assert statement["off_taker"] == OFF_TAKER
    assert meter["closing"]["mwh"] - meter["opening"]["mwh"] == pytest.approx(handed, abs=2e-6)
    # The simulated meter has a class and no calibration.
    assert statement["objections"] == ["heat meter handed over: its calibration is not known."]
    (line,) = document["contracts"]
    assert line["hours_flowing"] == pytest.approx(DAY.seconds / 3600)
    assert line["hours_under"] == 0.0
    # Agreed 1 MW: what was not taken and what was not offered make up what was not handed over.
    assert line["not_taken_mwh"] + line["not_offered_mwh"] == pytest.approx(DAY.seconds / 3600 - handed, rel=1e-3)


def _check_capacity(document: dict[str, Any], simulation: Simulation) -> None:
    hall = next(line for line in document["capacity"]["lines"] if line["kind"] == "hall")
    nominal = sum(
        float(resource.attributes["nominal_power_watts"])
        for resource in simulation.site.resources()
        if resource.kind is ResourceKind.RACK
    )
    assert hall["rated_watts"] == pytest.approx(nominal)
    assert hall["headroom_watts"] == pytest.approx(nominal - hall["peak"]["watts"])
    mean = simulation.truth.facility(DAY.start.timestamp(), DAY.end.timestamp()).meter[0] / DAY.seconds
    assert document["capacity"]["peak"]["watts"] > mean
    assert document["capacity"]["phases"][0]["headroom_watts"] == pytest.approx(
        230e6 - document["capacity"]["peak"]["watts"]
    )


def _check_views(address: StoreAddress) -> None:
    """The parts of the site as the report reads them: with the role that reports have."""
    with closing(connect(address)) as client:
        data = read_heat(Reader(client), DAY, NOW)
    assert data.tray_members["members"].sum() == GPUS // 4
    assert data.gpu_members["members"].sum() == GPUS
    assert set(data.meters["role"]) == {"site", "it", "cooling", "other", "heat_handed_over", "heat_rejected"}
    assert data.loops["resource"].to_list() == [resource_id(ResourceKind.LOOP, "Kvandal-3-TCS1")]


def test_report_of_a_year_that_is_not_kept_whole_says_what_it_cannot_tell(
    store: Client, door: DoorUnderTest, tmp_path: Path
) -> None:
    tell(Writer(store), *SimulatorSource(Simulation(Site.build(8, 3), int(DAY.start.timestamp()))).inventory())
    recompute_places(store)
    with closing(connect(door.address("reports"))) as client:
        page = write_heat_report(Reader(client), Period.parse(f"{DAY.start:%Y}"), tmp_path, now=NOW)
    document = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    figures = {found["key"]: found for found in document["figures"]}
    assert {found["value"] for found in figures.values()} == {None}
    assert figures["heat_available"]["reason"] == "Flow and temperatures of so long a period are not kept whole."
    assert figures["heat_handed_over"]["reason"] == "No readings in this period from heat meter handed over."
