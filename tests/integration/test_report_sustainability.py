"""The sustainability report through the real engine: frozen, corrected by late readings, restated, and verified."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from clickhouse_connect.driver.client import Client

from catalogue import ResourceKind
from collectors.simulator import SimulatorSource
from kvandal.frozen_chain import FrozenChain
from kvandal.importing import ImportRequest, import_register
from kvandal.publishing import Format, FreezeRequest, FrozenMonthError, PublishRequest, publish, verify
from kvandal.settings import ClientSettings, load_settings
from reports.period import Period
from reports.publishing.keys import make_key, read_private_key, read_public_key
from reports.publishing.publication import Language, Publication
from reports.sustainability.publication import read_sustainability_publication
from simulation import Simulation, Site
from storage.client import StoreAddress, connect
from storage.reader import Reader
from storage.register_kinds import RegisterKind
from storage.topology import recompute_places
from storage.writer import Writer
from tests.conftest import DoorUnderTest
from tests.integration.test_report_heat import tell

pytest.importorskip("chdb")
pytest.importorskip("typst")
# A month of a site, read and laid out several times over: long where two processes share a busy machine.
pytestmark = pytest.mark.timeout(400)

GPUS, TICK_S = 8, 3600
# The month before this one is over, and its raw readings are kept.
_FIRST = datetime.now(UTC).replace(day=1) - timedelta(days=1)
MONTH = Period.parse(f"{_FIRST:%Y-%m}")
NOW = MONTH.end + timedelta(days=2)
LATE_S = 2 * 24 * 3600
WATER = f"meter,first_day,last_day,volume_cubic_metres,potable\nW-1,{MONTH.text}-01,{{last}},412.7,yes\n"


@pytest.fixture
def late(store: Client) -> np.ndarray:
    """A month in the store, but for the last two days of the meter that hands heat over: those are given back."""
    source = SimulatorSource(Simulation(Site.build(GPUS, 3), int(MONTH.start.timestamp()) - 4 * TICK_S))
    first, last = source.simulation.start_s, int(MONTH.end.timestamp()) + 4 * TICK_S
    handed_over = heat_meter(source)
    writer, held = Writer(store), []
    for number, (table, rows) in enumerate(facility(source, first, last)):
        is_late = (rows["resource"] == handed_over) & (rows["time"] >= last - LATE_S)
        held.append(rows[is_late])
        writer.insert_rows(table, rows[~is_late], token=f"{table} {number}")
    tell(writer, *source.inventory())
    recompute_places(store)
    return np.concatenate([rows for rows in held if len(rows)])


def heat_meter(source: SimulatorSource) -> int:
    return next(
        message.resource
        for message in source.inventory()
        if message.kind == ResourceKind.HEAT_METER and message.attributes.get("role") == "heat_handed_over"
    )


def facility(source: SimulatorSource, first: int, last: int) -> Iterator[tuple[str, np.ndarray]]:
    for chunk in source.backfill(first, last, TICK_S, TICK_S):
        for name in ("cooling", "power"):
            parts = [reading.rows for reading in chunk if reading.table.name == name]
            if parts:
                yield name, np.concatenate(parts)


def read(address: StoreAddress) -> Publication:
    with closing(connect(address)) as client:
        return read_sustainability_publication(Reader(client), MONTH, NOW)


def test_a_late_heat_meter_correction_is_restatement_2_and_names_the_meter_and_the_delta(
    store: Client, door: DoorUnderTest, tmp_path: Path, late: np.ndarray
) -> None:
    key = tmp_path / "officer.key"
    public = read_public_key(make_key(key))
    freezing = FreezeRequest(approver="Sustainability Officer", key=read_private_key(key))
    both = (Language.ENGLISH, Language.NORWEGIAN)
    request = PublishRequest(out=tmp_path, formats=(Format.PDF, Format.JSON), languages=both, freezing=freezing)
    first = publish(FrozenChain(store), read(door.address("reports")), request, now=NOW)
    assert len(first.paths) == 2 + 1 + 1  # a PDF in two languages, JSON, the record

    Writer(store).insert_rows("cooling", late, token="late")  # noqa: S106 - what the insert is known by
    corrected = read(door.address("reports"))
    with pytest.raises(FrozenMonthError, match="meter heat meter handed over: "):
        publish(FrozenChain(store), corrected, request, now=NOW)
    because = FreezeRequest(
        approver="Sustainability Officer", key=read_private_key(key), reason="The heat meter's readings came late."
    )
    second = publish(
        FrozenChain(store),
        corrected,
        PublishRequest(out=tmp_path, formats=(Format.HTML, Format.PDF), freezing=because),
        now=NOW,
    )
    assert second.frozen is not None
    changes = {change["key"]: change for change in second.frozen.record["changes"]}
    assert next(iter(changes)).startswith("meter ")
    (meter,) = [change for change in changes.values() if change["of"] == "input"]
    heat = changes["heat_reused"]
    assert meter["title"] == "heat meter handed over"
    assert meter["delta"] == pytest.approx(heat["delta"])
    assert meter["delta"] > 0
    assert {"heat_reused", "erf"} <= changes.keys()
    assert "site_energy" not in changes
    page = (tmp_path / f"sustainability-{MONTH.text}-r2.html").read_text(encoding="utf-8")
    assert "heat meter handed over" in page
    for name in (f"sustainability-{MONTH.text}-r1.nb.pdf", f"sustainability-{MONTH.text}-r2.pdf"):
        assert verify(tmp_path / name, trusted=[public], client=store)


@pytest.mark.usefixtures("late")
def test_a_register_that_is_imported_late_is_named_too(store: Client, door: DoorUnderTest, tmp_path: Path) -> None:
    address = door.address("reports")
    before = {kpi.definition.key: kpi for kpi in read(address).figures}
    assert (before["water"].value, before["water"].reason) == (None, "The register water was not imported.")
    import_water(door, tmp_path)
    with closing(connect(address)) as client:
        later = read_sustainability_publication(Reader(client), MONTH, datetime.now(UTC) + timedelta(minutes=1))
    after = {kpi.definition.key: kpi for kpi in later.figures}
    assert after["water"].value == pytest.approx(412.7)
    assert next(found.value for found in later.inputs if found.kind == "register")
    traced = {one["key"]: one for one in later.document["eed"]["indicators"]}
    assert traced["water_input_m3"]["source"].startswith("Register water, version 1, line 2; evidence SHA-256 ")
    # What was not known at the cut-off is not seen: the report can be made again as it was.
    assert {kpi.definition.key: kpi.value for kpi in read(address).figures}["water"] is None
    assert store.query("SELECT count() FROM frozen_reports").result_rows == [(0,)]


def import_water(door: DoorUnderTest, folder: Path) -> None:
    last = MONTH.local(MONTH.end - timedelta(hours=1)).date()
    file, evidence = folder / "water.csv", folder / "invoice.pdf"
    file.write_text(WATER.format(last=last.isoformat()))
    evidence.write_text("an invoice")
    address = door.address("ingest")
    settings = load_settings(
        ClientSettings,
        flags={"store.url": address.url, "store.user": address.user, "store.database": address.database},
        environment={"KVANDAL_STORE_PASSWORD": address.password},
    )
    request = ImportRequest(kind=RegisterKind.WATER, file=file, evidence=evidence, imported_by="Officer")
    import_register(settings, request)


def test_a_report_of_a_day_is_refused(store: Client) -> None:
    with pytest.raises(ValueError, match="a sustainability report is of a month or a year"):
        read_sustainability_publication(Reader(store), Period.parse("2026-10-05"), NOW)
