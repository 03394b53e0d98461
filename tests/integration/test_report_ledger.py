"""What the ledger is given from the real engine: power beside registers, resolutions, and serial numbers."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from catalogue import POWER, ResourceKind, resource_id
from reports import queries
from reports.ledger import READINGS, READINGS_MAY_HAVE, SERIALS, Flag
from reports.period import Period
from reports.site import ReportSettings, build_report, read_site
from storage.client import connect
from storage.reader import Reader
from storage.schema import apply
from storage.writer import Writer
from stream.rows import pack
from tests.conftest import DoorUnderTest

pytest.importorskip("chdb")

# A whole day that is still kept raw, of which the time zone changes nothing.
DAY = Period.parse(f"{datetime.now(UTC) - timedelta(days=3):%Y-%m-%d}", "UTC")
NOW = DAY.end + timedelta(hours=36)
METER = resource_id(ResourceKind.METER, "grid")
WATTS = 1_200e3
TICK_S = 60


@pytest.fixture(scope="module")
def reader(door: DoorUnderTest) -> Iterator[Reader]:
    door.empty()
    apply(connect(door.address()))
    fill(Writer(connect(door.address("ingest"))))
    yield Reader(connect(door.address("reports")))
    door.empty()


def fill(writer: Writer) -> None:
    """A meter that stood still from 02:00 to 04:00, and was exchanged for one that began at 0 at 12:00:30."""
    start = int(DAY.start.timestamp())
    times = np.arange(start - 3600, int(DAY.end.timestamp()) + 3600, TICK_S)
    at_s = times - start
    register = 3.6e9 + WATTS * (at_s + 3600)
    register = np.where((at_s >= 7200) & (at_s <= 14_400), register[at_s == 7200], register)
    register = np.where(at_s > 12 * 3600, WATTS * (at_s - 12 * 3600 - 30), register)
    values = {
        "energy_import_joules": register,
        "active_power_watts": np.full(len(times), WATTS),
        "quality_state": np.ones(len(times)),
    }
    writer.insert_rows("power", pack(POWER, METER, times, values), token=f"{DAY.text} power")
    final = 3.6e9 + WATTS * (13 * 3600 + 30)
    history = (
        (DAY.start - timedelta(days=30), {"serial": "OLD"}),
        (
            DAY.start + timedelta(hours=12, seconds=30),
            {"serial": "NEW", "register_start_joules": "0", "register_final_joules": f"{final:.0f}"},
        ),
    )
    messages = [json.dumps(resource(since, facts)).encode() for since, facts in history]
    writer.insert_messages("inventory", messages, token=f"{DAY.text} inventory")


def resource(since: datetime, facts: dict[str, str]) -> dict[str, object]:
    fixed = {"role": "site", "class": "0.5S", "interval_s": f"{TICK_S}", "nominal_power_watts": "2000000"}
    return {
        "resource": METER,
        "kind": ResourceKind.METER.value,
        "identity": "grid",
        "name": "grid",
        "attributes": fixed | {"register_resolution_joules": "3600"} | facts,
        "valid_from": f"{since:%Y-%m-%dT%H:%M:%SZ}",
    }


def test_registers_come_with_the_power_beside_them(reader: Reader) -> None:
    arguments = (reader, POWER, queries.ENERGY_REGISTER, [METER], DAY)
    exact = queries.read_registers(*arguments, exact=True)
    assert dict(exact.schema) == {**READINGS, **READINGS_MAY_HAVE}
    assert exact["power_watts"].unique().to_list() == [WATTS]
    quarterly = queries.read_registers(*arguments, exact=False)
    assert quarterly.schema == exact.schema
    assert quarterly["power_watts"].null_count() == quarterly.height > 90


def test_meter_states_what_its_register_resolves(reader: Reader) -> None:
    assert queries.read_meters(reader, DAY)["resolution_joules"].to_list() == [3600.0]


def test_history_of_serials_is_read_whole(reader: Reader) -> None:
    found = queries.read_serials(reader, [METER], DAY)
    assert dict(found.schema) == dict(SERIALS)
    assert sorted(found["serial"].to_list()) == ["NEW", "OLD"]
    assert found.filter(pl.col("serial") == "NEW")["start_joules"].to_list() == [0.0]


def test_frozen_and_exchanged_meter_keeps_the_days_energy(reader: Reader) -> None:
    # 1.2 MW * 24 h = 28.8 MWh. The register caught up after the freeze, and both registers are known
    # at the exchange: nothing is estimated, but two hours were not watched.
    report = build_report(read_site(reader, DAY, NOW), DAY, now=NOW, counts=None, settings=ReportSettings())
    energy = next(kpi for kpi in report.kpis if kpi.definition.key == "site_energy")
    assert energy.value == pytest.approx(28.8, abs=1e-5)
    assert energy.evidence is not None
    assert energy.evidence.coverage == pytest.approx(22 / 24)
    assert energy.evidence.share_estimated == pytest.approx(0.0, abs=1e-9)
    assert sorted(line.flag for line in report.flags) == sorted([Flag.FROZEN, Flag.EXCHANGED])
