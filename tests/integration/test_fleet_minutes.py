"""Lines over the fleet, from the GPUs' minutes and from what hours keep of them: four GPUs whose readings are known.

GPUs 1 and 2 stand in rack A, 3 in rack B, and nobody tells where 4 stands. Number n draws n x 100 W and is busy for
n x 10 % of the time, but 1 is idle; 2 is partly readable for ten minutes, 3 is dark for ten.
"""

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from math import nan
from statistics import mean
from typing import Any

import numpy as np
import pytest
from clickhouse_connect.driver.client import Client

from catalogue import GPU, ResourceKind, resource_id
from dashboards.board import HALL, RACK
from dashboards.fleet_lines import (
    AT_WORK_WATTS,
    DARK_GPUS,
    IDLE_WATTS,
    fleet_lines,
    fleet_mean,
    fleet_power_quantile,
)
from dashboards.macros import ALL, View, expand
from dashboards.metrics import GPU_SM_ACTIVE, GPU_TENSOR_ACTIVE
from dashboards.queries import Shown
from storage.fleet_minutes import FLEET_MINUTES
from storage.hours import HourKeeper, hour_inserts
from storage.topology import recompute_places
from storage.writer import Writer
from stream.rows import pack
from stream.topics import INVENTORY
from tests.servers.efficiency_site import InventoryMessage, tell

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
START = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - 8 * HOUR
MINUTES = 240  # four whole hours, all of them closed
TICK_S = 30
HOMELESS = 4
DARK, PARTLY = range(70, 80), range(30, 40)  # minutes of GPUs 3 and 2
WORDS = ((ResourceKind.HALL, "H", None), (ResourceKind.RACK, "A", (ResourceKind.HALL, "H")),
         (ResourceKind.RACK, "B", (ResourceKind.HALL, "H")))  # fmt: skip
SHOWN = (
    *DARK_GPUS,
    Shown("SM", fleet_mean(GPU_SM_ACTIVE)),
    Shown("Tensor", fleet_mean(GPU_TENSOR_ACTIVE)),
    Shown("At work", AT_WORK_WATTS),
    Shown("Idle", IDLE_WATTS),
)
QUANTILES = tuple(Shown(f"{level}", fleet_power_quantile(level)) for level in (0.05, 0.5, 0.95))
# From twelve past the first hour to eight to the last one's end.
RANGE = (START + 12 * MINUTE, START + 232 * MINUTE - timedelta(seconds=1))


def gpu(number: int) -> int:
    return resource_id(ResourceKind.GPU, f"G{number}")


@pytest.fixture
def site(store: Client) -> Client:
    put(store, WORDS)
    put(store, [(ResourceKind.GPU, f"G{n}", (ResourceKind.RACK, "A" if n < 3 else "B")) for n in (1, 2, 3)])
    for number in range(1, 5):
        write(store, number, range(MINUTES))
    return store


def put(client: Client, words: Sequence[tuple[ResourceKind, str, tuple[ResourceKind, str] | None]]) -> None:
    """Tell where things are, as of now and of ever before."""
    tell(client, INVENTORY, [
        InventoryMessage(resource=resource_id(kind, name), kind=kind, identity=name, name=name,
                         valid_from_ms=int(START.timestamp()) * 1000, parent=resource_id(*parent) if parent else 0)
        for kind, name, parent in words
    ])  # fmt: skip
    recompute_places(client)


def write(client: Client, number: int, minutes: range, **other: float) -> None:
    """A GPU's readings of these minutes, and ingest's line about their frame."""
    first, last = (int((START + minute * MINUTE).timestamp()) for minute in (minutes[0], minutes[-1] + 1))
    times = np.arange(first, last, TICK_S)
    at = (times - int(START.timestamp())) // 60
    is_dark = (number == 3) & np.isin(at, DARK)
    values = {"power_watts": number * 100.0, "sm_active_ratio": number / 10, "tensor_active_ratio": number / 20,
              "graphics_active_ratio": 0.0 if number == 1 else 0.5} | other  # fmt: skip
    told = {name: np.where(is_dark, np.nan, value) for name, value in values.items()}
    state = np.where(is_dark, 3, np.where((number == 2) & np.isin(at, PARTLY), 2, 1))
    rows = pack(GPU, gpu(number), times, {**told, "gpu_state": state})
    Writer(client).insert_rows("gpu", rows, token=f"{number} {first} {other}")
    client.command(
        "INSERT INTO frames (table_raw, first_time, last_time, checked_at, outcome) "
        "SELECT 'gpu', toDateTime({first:UInt32}), toDateTime({last:UInt32}), now64(3), 'stored'",
        parameters={"first": first, "last": last - TICK_S},
    )


def line(client: Client, shown: Sequence[Shown] = SHOWN, *, rack: str = "", bucket_s: int = 60) -> list[dict[str, Any]]:
    choices = (HALL, RACK) if shown is SHOWN else (HALL,)
    view = View(*RANGE, bucket_s, {"hall": [ALL], "rack": [rack or ALL]})
    with closing(client.query(expand(fleet_lines(choices, shown), view))) as found:
        return list(found.named_results())


def true(minute: int, gpus: Sequence[int]) -> dict[str, float]:
    """What a line has to show of a minute, from what the GPUs read."""
    heard = [n for n in gpus if not (n == 3 and minute in DARK)]
    return {
        "Dark": len(gpus) - len(heard),
        "Partly readable": int(2 in gpus and minute in PARTLY),
        "SM": mean([n / 10 for n in heard]) if heard else nan,
        "Tensor": mean([n / 20 for n in heard]) if heard else nan,
        "At work": sum(n * 100.0 for n in heard if n != 1) if heard else nan,
        "Idle": sum(100.0 for n in heard if n == 1) if heard else nan,
    }


def check(found: Sequence[dict[str, Any]], gpus: Sequence[int], step: int = 1) -> None:
    """Every bucket of `step` minutes, whole or cut off by the range, against the readings."""
    assert len(found) == len({minute // step for minute in range(12, 232)})
    for row in found:
        bucket = (row["time"].replace(tzinfo=UTC) - START) // MINUTE
        of_bucket = [true(minute, gpus) for minute in range(max(bucket, 12), min(bucket + step, 232))]
        wanted = {name: mean([one[name] for one in of_bucket]) for name in of_bucket[0]}
        wanted |= {name: max(one[name] for one in of_bucket) for name in ("Dark", "Partly readable")}
        told = {name: nan if value is None else value for name, value in row.items() if name != "time"}
        assert told == pytest.approx(wanted, nan_ok=True), bucket


def computed(client: Client) -> list[datetime]:
    rows = client.query("SELECT DISTINCT toStartOfHour(time) AS hour FROM fleet_minutes ORDER BY hour").result_rows
    return [hour.replace(tzinfo=UTC) for (hour,) in rows]


def heard(client: Client, kind: ResourceKind) -> dict[int, int]:
    """GPU-minutes by place."""
    rows = client.query(
        "SELECT place, sum(gpus) AS heard FROM fleet_minutes FINAL WHERE kind = {kind:String} "
        "GROUP BY place HAVING heard > 0",
        parameters={"kind": str(kind)},
    ).result_rows
    return {place: minutes for place, minutes in rows}  # noqa: C416 - rows are lists, not pairs


def test_a_line_is_the_same_before_and_after_its_hours_are_computed(site: Client) -> None:
    """And true: of a store without any computed hour, and of one with whole hours and minutes on both sides."""
    before, quantiles_before = line(site), line(site, QUANTILES, bucket_s=1200)
    check(before, [1, 2, 3, 4])
    HourKeeper(site).recompute()
    assert computed(site) == [START + number * HOUR for number in range(4)]
    after, quantiles_after = line(site), line(site, QUANTILES, bucket_s=1200)
    assert [row["time"] for row in after] == [row["time"] for row in before]
    check(after, [1, 2, 3, 4])
    check(line(site, bucket_s=600), [1, 2, 3, 4], step=10)
    assert quantiles_after == quantiles_before
    assert [row["0.05"] for row in quantiles_after] == pytest.approx([100] * len(quantiles_after), rel=0.01)
    assert [row["0.95"] for row in quantiles_after] == pytest.approx([400] * len(quantiles_after), rel=0.01)


def test_hours_at_the_end_that_are_not_computed_come_from_the_minutes(site: Client) -> None:
    as_of = {"first": START, "last": START + HOUR, "computed_at": datetime.now(UTC)}
    for statement in hour_inserts(FLEET_MINUTES):
        site.command(statement, parameters=as_of)
    marks = [[FLEET_MINUTES, START + number * HOUR, as_of["computed_at"]] for number in range(2)]
    site.insert("hours_computed", marks, column_names=["table_name", "hour", "computed_at"])
    check(line(site), [1, 2, 3, 4])


def test_a_rack_has_only_its_own_gpus_whether_hours_are_computed_or_not(site: Client) -> None:
    check(line(site, rack="A"), [1, 2])
    HourKeeper(site).recompute()
    check(line(site, rack="A"), [1, 2])
    check(line(site, rack="B"), [3])


def test_late_readings_are_there_when_their_hour_is_computed_anew(site: Client) -> None:
    keeper = HourKeeper(site)
    keeper.recompute()
    write(site, 5, range(100, 110), power_watts=1000.0)
    at_100 = START + 100 * MINUTE
    assert _at(site, at_100)["At work"] == 900
    done = keeper.recompute()
    assert [(one.table, one.first, one.last) for one in done] == [
        (name, START + HOUR, START + HOUR) for name in ("gpu", FLEET_MINUTES)
    ]
    assert _at(site, at_100)["At work"] == 1900


def _at(client: Client, time: datetime) -> dict[str, Any]:
    (row,) = [row for row in line(client) if row["time"].replace(tzinfo=UTC) == time]
    return row


def test_a_gpu_that_was_told_elsewhere_since_counts_once(site: Client) -> None:
    """What was computed of it without a place, or in the wrong one, goes when its hours are computed anew."""
    keeper = HourKeeper(site)
    keeper.recompute()
    hall, racks = resource_id(ResourceKind.HALL, "H"), [resource_id(ResourceKind.RACK, name) for name in "AB"]
    assert heard(site, ResourceKind.HALL) == {hall: 3 * MINUTES, 0: MINUTES}
    assert heard(site, ResourceKind.RACK) == {racks[0]: 2 * MINUTES, racks[1]: MINUTES, 0: MINUTES}
    put(site, [(ResourceKind.GPU, f"G{number}", (ResourceKind.RACK, "A")) for number in (3, HOMELESS)])
    write(site, 1, range(MINUTES), energy_joules=1.0)  # late frames touch all four hours
    keeper.recompute()
    assert heard(site, ResourceKind.HALL) == {hall: 4 * MINUTES}
    assert heard(site, ResourceKind.RACK) == {racks[0]: 4 * MINUTES}
    check(line(site), [1, 2, 3, 4])


def test_a_gpu_counts_where_it_stood_in_the_minute(site: Client) -> None:
    moved = START + 90 * MINUTE
    tell(site, INVENTORY, [
        InventoryMessage(resource=gpu(3), kind=ResourceKind.GPU, identity="G3", name="G3",
                         valid_from_ms=int(moved.timestamp()) * 1000, parent=resource_id(ResourceKind.RACK, "A"))
    ])  # fmt: skip
    recompute_places(site)
    HourKeeper(site).recompute()
    racks = [resource_id(ResourceKind.RACK, name) for name in "AB"]
    assert heard(site, ResourceKind.RACK) == {racks[0]: 2 * MINUTES + 150, racks[1]: 90, 0: MINUTES}


def test_a_store_of_an_earlier_version_gets_its_fleet_minutes(site: Client) -> None:
    """Its hours are computed, and of the fleet's minutes nothing is said: until they are there, lines read minutes."""
    marks = [[GPU.name, START + number * HOUR, datetime.now(UTC)] for number in range(4)]
    site.insert("hours_computed", marks, column_names=["table_name", "hour", "computed_at"])
    check(line(site), [1, 2, 3, 4])
    assert [done.table for done in HourKeeper(site).recompute()] == [FLEET_MINUTES]
    check(line(site), [1, 2, 3, 4])


def test_quantiles_are_not_offered_where_racks_can_be_chosen() -> None:
    with pytest.raises(ValueError, match="quantiles of halls only"):
        fleet_lines((HALL, RACK), QUANTILES)
