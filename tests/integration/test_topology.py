"""The topology in the store: words are kept apart by source, and tables and views say what the sources agree on."""

from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from clickhouse_connect.driver.client import Client
from polars.testing import assert_frame_equal

from catalogue import RACK, ResourceKind, resource_id
from collectors.simulator import SimulatorSource
from collectors.topology.settings import TopologySettings
from collectors.topology.source import TopologySource
from simulation import Simulation, Site
from storage import schema
from storage.client import StoreAddress, connect
from storage.reader import Reader
from storage.topology import TARGETS, PlaceKeeper, read_topology, recompute_places
from storage.writer import Writer
from stream.batch import MessageBatcher, Record
from stream.clock import SystemClock
from stream.messages import InventoryMessage, encode_message
from stream.plan import Plan, Range
from stream.rows import pack
from stream.seen import SeenFrames
from stream.topics import INVENTORY
from tests.conftest import DoorUnderTest

# Recent: rows that are older than their table's TTL vanish when they are inserted.
NOON = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=2)
NOON_MS = int(NOON.timestamp() * 1000)
HOUR_MS = 3_600_000
NVML, DSX, FILE = 11, 12, 13

SITE = """
valid_from = 2026-01-01
[[site]]
identity = "Kvandal"
[[hall]]
identity = "H1"
name = "hall 1"
parent = "Kvandal"
[[row]]
identity = "1"
name = "row 1"
parent = "H1"
[[row]]
identity = "2"
name = "row 2"
parent = "H1"
[[rack]]
identity = "R14"
name = "rack 14"
aliases = ["1583"]
parent = "1"
nominal_power_watts = 132000
[[rack]]
identity = "R14"
valid_from = {moved}
parent = "2"
[[feeder]]
identity = "F"
parent = "H1"
serves = ["1583"]
"""


def number(thing: str) -> int:
    kind, _, identity = thing.partition(":")
    return resource_id(ResourceKind(kind), identity)


def word(
    thing: str, source: int, told_by: str = "", *, parent: str = "", since_ms: int = NOON_MS, **facts: str
) -> InventoryMessage:
    kind, _, identity = thing.partition(":")
    return InventoryMessage(
        resource=number(thing),
        kind=ResourceKind(kind),
        identity=identity,
        name=identity,
        valid_from_ms=since_ms,
        parent=number(parent) if parent else 0,
        source=source,
        attributes={"told_by": told_by, **facts} if told_by else facts,
    )


@dataclass(slots=True)
class Ingest:
    """Stores messages as ingest does: checked, as one insert under its plan's token."""

    client: Client
    offset: int = 0

    def tell(self, *messages: InventoryMessage) -> None:
        self.insert(self.offset, *messages)
        self.offset += len(messages)

    def insert(self, first: int, *messages: InventoryMessage) -> None:
        now_ms = int(datetime.now(UTC).timestamp() * 1000)
        plan = Plan(INVENTORY.name, UUID(int=1), (Range(0, first, first + len(messages)),), now_ms, 0)
        records = [Record(0, first + place, encode_message(message)) for place, message in enumerate(messages)]
        batch = MessageBatcher(INVENTORY).build(plan, records, SeenFrames())
        assert batch.rejected == []
        Writer(self.client).insert_messages("inventory", batch.messages, token=plan.token)


@pytest.fixture
def ingest(store: Client, door: DoorUnderTest) -> Ingest:
    del door
    return Ingest(store)


def rows(client: Client, sql: str, **parameters: object) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in client.query(sql, parameters=parameters).result_rows]


# Words


def test_what_two_sources_say_of_one_time_is_both_kept(store: Client, ingest: Ingest) -> None:
    ingest.tell(word("tray:T", NVML, "nvml", parent="rack:A"), word("tray:T", DSX, "dsx", parent="rack:B"))
    # The inventory itself has one line for a resource and time: whoever spoke last.
    assert rows(store, "SELECT count() FROM inventory FINAL") == [(1,)]
    assert rows(store, "SELECT source, told_by, parent FROM inventory_words FINAL ORDER BY source") == [
        (NVML, "nvml", number("rack:A")),
        (DSX, "dsx", number("rack:B")),
    ]


def test_who_tells_is_no_fact_of_the_resource(store: Client, ingest: Ingest) -> None:
    ingest.tell(word("tray:T", NVML, "nvml", slot="4", host="1"), word("tray:U", NVML))
    assert rows(store, "SELECT told_by, attributes FROM inventory_words FINAL ORDER BY resource != {t:UInt64}",
                t=number("tray:T")) == [("nvml", {"host": "1", "slot": "4"}), ("", {})]  # fmt: skip


def test_a_repeated_word_is_one_that_was_told_later(store: Client, ingest: Ingest) -> None:
    ingest.tell(word("tray:T", NVML, "nvml"))
    ((first,),) = rows(store, "SELECT told_at FROM inventory_words FINAL")
    ingest.tell(word("tray:T", NVML, "nvml"))
    ((last,),) = rows(store, "SELECT told_at FROM inventory_words FINAL")
    assert last > first


def test_a_repeated_insert_tells_nothing_anew(store: Client, ingest: Ingest) -> None:
    ingest.insert(0, word("tray:T", NVML, "nvml"))
    ((first,),) = rows(store, "SELECT told_at FROM inventory_words")
    ingest.insert(0, word("tray:T", NVML, "nvml"))
    assert rows(store, "SELECT told_at FROM inventory_words") == [(first,)]


def test_what_was_told_before_the_migration_is_a_word_too(database: StoreAddress) -> None:
    with closing(connect(database)) as client:
        for migration in schema.migrations()[:2]:
            for statement in migration.statements:
                client.command(statement)
        Ingest(client).tell(word("tray:T", NVML, "nvml", parent="rack:A", slot="4"))
        schema.apply(client)
        assert rows(client, "SELECT told_by, parent, attributes, told_at = valid_from FROM inventory_words") == [
            ("nvml", number("rack:A"), {"slot": "4"}, 1)
        ]


# From files and machines to places


def tell_a_site(ingest: Ingest, folder: Path) -> None:
    """A rack that moves from row 1 to row 2 at noon, with a tray whose agent knows its chassis only."""
    file = folder / "site.toml"
    file.write_text(SITE.format(moved=NOON.isoformat()))
    source = TopologySource(TopologySettings(files=(str(file),)), gateway="gateway", clock=SystemClock())
    ingest.tell(*source.inventory())
    before = NOON_MS - 5 * HOUR_MS
    ingest.tell(
        word("rack:1583", NVML, "nvml", since_ms=before, chassis_serial="1583"),
        word("tray:1583/4", NVML, "nvml", parent="rack:1583", since_ms=before, slot="4"),
        word("gpu:G", NVML, "nvml", parent="tray:1583/4", since_ms=before),
        word("rack:R14", DSX, "dsx", parent="hall:H2", since_ms=before),
    )


def test_a_gpu_has_its_rack_row_and_hall_at_every_time(store: Client, ingest: Ingest, tmp_path: Path) -> None:
    tell_a_site(ingest, tmp_path)
    recompute_places(store)
    assert rows(
        store,
        "SELECT rack_name, row_name, hall_name, site_name, valid_from FROM places "
        "WHERE resource = {gpu:UInt64} ORDER BY valid_from",
        gpu=number("gpu:G"),
    ) == [
        ("rack 14", "row 1", "hall 1", "Kvandal", datetime(1970, 1, 1)),  # noqa: DTZ001 - as the client gives it
        ("rack 14", "row 2", "hall 1", "Kvandal", NOON.replace(tzinfo=None)),
    ]


def test_readings_are_joined_with_the_place_of_their_time(store: Client, ingest: Ingest, tmp_path: Path) -> None:
    """Under the id that the building gives the rack, and under that of its chassis."""
    tell_a_site(ingest, tmp_path)
    recompute_places(store)
    noon_s = NOON_MS // 1000
    for rack, watts in (("rack:R14", 1000.0), ("rack:1583", 10.0)):
        block = pack(RACK, [number(rack)] * 2, [noon_s - 60, noon_s], {"power_watts": [watts, 2 * watts]})
        Writer(store).insert_rows("rack", block, token=rack)
    joined = """
SELECT place.row_name, sum(reading.power_watts)
FROM rack AS reading
{join} JOIN places AS place
    ON place.resource = reading.resource AND reading.time >= place.valid_from {end}
GROUP BY place.row_name
ORDER BY place.row_name
"""
    for join, end in (("ASOF", ""), ("INNER", "AND reading.time < place.valid_to")):
        assert rows(store, joined.format(join=join, end=end)) == [("row 1", 1010.0), ("row 2", 2020.0)]


def test_conflicts_feeds_and_facts_have_views(store: Client, ingest: Ingest, tmp_path: Path) -> None:
    tell_a_site(ingest, tmp_path)
    recompute_places(store)
    assert rows(store, "SELECT name, parent_name, told_by, rival_parent, rival_told_by FROM topology_conflicts") == [
        ("rack 14", "row 1", "topology", number("hall:H2"), "dsx"),
        ("rack 14", "row 2", "topology", number("hall:H2"), "dsx"),
    ]
    assert rows(store, "SELECT name, served FROM feeds") == [("F", number("rack:R14"))]
    assert rows(
        store,
        "SELECT attributes FROM resources "
        "WHERE kind = 'rack' AND valid_from <= {at:DateTime('UTC')} AND {at:DateTime('UTC')} < valid_to",
        at=NOON,
    ) == [({"chassis_serial": "1583", "nominal_power_watts": "132000"},)]
    assert rows(store, "SELECT sources FROM last_words WHERE resource = {rack:UInt64}", rack=number("rack:1583")) == [
        (2,)
    ]


def test_tables_say_what_is_reconciled_in_memory(store: Client, ingest: Ingest, tmp_path: Path) -> None:
    tell_a_site(ingest, tmp_path)
    recompute_places(store)
    reader = Reader(store)
    topology = read_topology(reader)
    for target, wanted in zip(TARGETS, (topology.versions, topology.places, topology.conflicts), strict=True):
        assert len(wanted)
        stored = reader.query(target.select(), {}, target.columns)
        assert_frame_equal(stored, wanted, check_row_order=False)


@pytest.mark.parametrize("role", ["reports", "grafana", "ingest"])
def test_every_role_can_read_the_views(store: Client, door: DoorUnderTest, role: str) -> None:
    del store
    with closing(connect(door.address(role))) as client:
        for view in ("places", "resources", "feeds", "topology_conflicts", "last_words"):
            assert rows(client, f"SELECT * FROM {view}") == []  # noqa: S608


def test_the_role_that_ingests_can_keep_the_places(ingest: Ingest, door: DoorUnderTest, tmp_path: Path) -> None:
    tell_a_site(ingest, tmp_path)
    with closing(connect(door.address("ingest"))) as client:
        assert {table.table for table in recompute_places(client)} == {target.table for target in TARGETS}


# Keeping them


def test_only_what_changed_is_written(store: Client, ingest: Ingest, tmp_path: Path) -> None:
    tell_a_site(ingest, tmp_path)
    keeper = PlaceKeeper(store)
    assert {changed.deleted for changed in keeper.recompute()} == {0}
    assert keeper.recompute() == []
    assert PlaceKeeper(store).recompute() == []
    ingest.tell(word("gpu:other", NVML, "nvml", parent="tray:1583/4"))
    assert [(changed.table, changed.written, changed.deleted) for changed in keeper.recompute()] == [
        ("resource_versions", 1, 0),
        ("place_versions", 2, 0),  # its rack has moved
    ]


def test_what_is_no_longer_so_is_taken_back(store: Client, ingest: Ingest) -> None:
    keeper = PlaceKeeper(store)
    ingest.tell(
        word("site:S", FILE, "topology"),
        word("hall:H", FILE, "topology", parent="site:S"),
        word("rack:A", FILE, "topology", parent="hall:H"),
        word("rack:A", FILE, "topology", parent="site:S", since_ms=NOON_MS + HOUR_MS),
        word("rack:A", DSX, "dsx", parent="hall:X"),
    )
    keeper.recompute()
    assert rows(store, "SELECT count() FROM places WHERE kind = 'rack'") == [(2,)]
    assert rows(store, "SELECT count() FROM topology_conflicts") == [(2,)]
    ingest.tell(
        word("rack:A", FILE, "topology", parent="hall:H", since_ms=NOON_MS + HOUR_MS),
        word("rack:A", DSX, "dsx", parent="hall:H"),
    )
    deleted = {changed.table: changed.deleted for changed in keeper.recompute()}
    assert deleted == {"resource_versions": 1, "place_versions": 1, "conflict_versions": 2}
    assert rows(store, "SELECT count() FROM places WHERE kind = 'rack'") == [(1,)]
    assert rows(store, "SELECT count() FROM topology_conflicts") == [(0,)]


def test_a_simulated_site_is_a_tree_without_troubles(store: Client, ingest: Ingest) -> None:
    ingest.tell(*SimulatorSource(Simulation(Site.build(144, 1), NOON_MS // 1000)).inventory())
    recompute_places(store)
    assert rows(store, "SELECT DISTINCT trouble FROM places") == [("",)]
    assert rows(store, "SELECT count() FROM topology_conflicts") == [(0,)]
    assert rows(store, "SELECT rack_name, count() FROM places WHERE kind = 'gpu' GROUP BY rack_name ORDER BY 1") == [
        ("hall-1 / rack 01", 72),
        ("hall-1 / rack 02", 72),
    ]
