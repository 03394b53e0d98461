"""Writer and Native blocks on the real engine: every type comes back, and what does not fit is refused."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from uuid import UUID

import numpy as np
import pytest
from clickhouse_connect.driver.client import Client

from catalogue import GPU, TABLES, ResourceKind, Table, resource_id
from storage.books import FrameBooks, PlanLine, PlanTable, StoredTicks
from storage.client import StoreAddress, StoreRefusedError, StoreUnavailableError, connect
from storage.native import native_block
from storage.writer import Writer
from stream.batch import Batch, FrameBatcher, MessageBatcher, Record
from stream.frame import seal
from stream.messages import EventMessage, InventoryMessage, JobMessage, Message, encode_message
from stream.plan import Plan, Range
from stream.rows import absent_rows, pack
from stream.seen import SeenFrames
from stream.topics import EVENTS, INVENTORY, JOBS, Topic
from tests.conftest import DoorUnderTest
from tests.servers.ports import free_port

NOW = datetime.now(UTC).replace(microsecond=0)
NOW_S = int(NOW.timestamp())
NOW_MS = NOW_S * 1000 + 250
TOPIC_ID = UUID("00112233-4455-6677-8899-aabbccddeeff")
EPOCH_MS = 1_750_000_000_000
U64_MAX = (1 << 64) - 1
Fields = list[tuple[str, str]]


@pytest.fixture
def writer(door: DoorUnderTest, store: Client) -> Iterator[Writer]:
    """The writer as ingest has it, over an empty store."""
    assert store
    with closing(connect(door.address("ingest"))) as client:
        yield Writer(client)


def frame(source: int, sequence: int, *, ticks: int = 2) -> bytes:
    rows = pack(GPU, [source] * ticks, NOW_S - ticks + 1 + np.arange(ticks), {"power_watts": 500.0})
    return seal(GPU, rows, source=source, epoch_ms=EPOCH_MS, sequence=sequence, ticks=ticks, sent_ms=NOW_MS)


def batch_of(*values: bytes, first: int = 0, partition: int = 3, topic_id: UUID = TOPIC_ID) -> Batch:
    records = [Record(partition, first + n, value) for n, value in enumerate(values)]
    plan = Plan(GPU.topic, topic_id, (Range(partition, first, first + len(values)),), NOW_MS, 1)
    return FrameBatcher(GPU).build(plan, records, SeenFrames())


def write_batch(writer: Writer, batch: Batch) -> None:
    """As ingest does it: the rows, then the frame log."""
    assert batch.rows is not None
    assert batch.frames is not None
    writer.insert_rows(batch.table, batch.rows, token=batch.plan.token)
    writer.insert_rows("frames", batch.frames, token=batch.plan.token)


# Rows


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_column_comes_back_as_it_was_stored(writer: Writer, store: Client, table: Table) -> None:
    random = np.random.default_rng(7)
    rows = absent_rows(table, 5)
    rows["resource"], rows["time"] = [0, 1, 1 << 63, U64_MAX - 1, U64_MAX], NOW_S + np.arange(5)
    for metric in table.metrics:
        stored = metric.stored
        other = int(random.integers(stored.lowest, min(stored.highest, 1 << 62)))
        rows[metric.column] = [stored.lowest, stored.highest, stored.absent, other, 1]
    writer.insert_rows(table.name, rows, token="extremes")  # noqa: S106 - not a password
    names = list(rows.dtype.names or ())
    found = store.query(f"SELECT toUnixTimestamp(time) AS time, * EXCEPT time FROM {table.name} ORDER BY time")  # noqa: S608
    back = [dict(zip(found.column_names, row, strict=True)) for row in found.result_rows]
    assert [{name: row[name] for name in names} for row in back] == [
        dict(zip(names, row, strict=True)) for row in rows.tolist()
    ]


def test_a_token_is_taken_once(writer: Writer, store: Client) -> None:
    rows = pack(GPU, [1], [NOW_S], {"power_watts": [500.0]})
    for token in ("a", "a", "b"):
        writer.insert_rows("gpu", rows, token=token)
    assert store.query("SELECT count() FROM gpu").first_row == (2,)
    assert store.query("SELECT sum(power_watts_count) FROM gpu_1m").first_row == (2,)


def test_no_rows_are_inserted_without_complaint(writer: Writer, store: Client) -> None:
    writer.insert_rows("gpu", absent_rows(GPU, 0), token="none")  # noqa: S106 - not a password
    assert store.query("SELECT count() FROM gpu").first_row == (0,)


def test_columns_that_an_older_layout_lacks_take_no_part(writer: Writer, store: Client) -> None:
    rows = pack(GPU, [1], [NOW_S], {"power_watts": [500.0]})
    few = np.zeros(1, dtype=[("resource", "<u8"), ("time", "<u4"), ("power_watts_raw", "<u2")])
    for name in few.dtype.names or ():
        few[name] = rows[name]
    writer.insert_rows("gpu", few, token="few")  # noqa: S106 - not a password
    assert store.query("SELECT power_watts FROM gpu").first_row == (500.0,)


def test_rows_of_more_than_a_hundred_days_are_stored(writer: Writer, store: Client) -> None:
    """An import of history brings them; the engine itself takes a hundred partitions in one insert."""
    days = NOW_S - 86_400 * np.arange(120)
    writer.insert_rows("power", pack(next(t for t in TABLES if t.name == "power"), 1, days, {}), token="history")  # noqa: S106
    assert store.query("SELECT count() FROM power_1m").first_row == (120,)


# Refusals


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ([("power_watts_raw", "<u4")], "column power_watts_raw is uint32 in the rows and UInt16 in the table"),
        ([("resource", "<u8"), ("surprise", "<u2")], "column surprise is uint16 in the rows and missing in the table"),
        ([("power_watts", "<f8")], "column power_watts is float64 in the rows and missing in the table"),
    ],
)
def test_a_field_that_is_no_such_column_is_refused(
    writer: Writer, fields: list[tuple[str, str]], sentence: str
) -> None:
    with pytest.raises(StoreRefusedError, match=sentence) as caught:
        writer.insert_rows("gpu", np.zeros(1, dtype=fields), token="wrong")  # noqa: S106 - not a password
    assert "run `kvandal schema diff`" in str(caught.value)


def test_a_table_that_is_not_there_is_refused(writer: Writer) -> None:
    with pytest.raises(StoreRefusedError, match="no_such_table"):
        writer.insert_rows("no_such_table", absent_rows(GPU, 1), token="nowhere")  # noqa: S106 - not a password


def test_text_of_no_fixed_width_is_refused() -> None:
    with pytest.raises(StoreRefusedError, match="column name is"):
        list(native_block(np.zeros(1, dtype=[("name", "S8")]), {"name": "String"}))


def test_a_store_that_is_not_there_is_away_not_wrong() -> None:
    with pytest.raises(StoreUnavailableError):
        connect(StoreAddress(f"http://127.0.0.1:{free_port()}"))


def test_a_wrong_password_is_refused(door: DoorUnderTest) -> None:
    with pytest.raises(StoreRefusedError):
        connect(StoreAddress(door.url, "admin", "wrong"))


@pytest.mark.parametrize("url", ["clickhouse://host", "localhost:8123", "http://", ""])
def test_an_address_of_another_kind_is_a_mistake(url: str) -> None:
    with pytest.raises(ValueError, match="give http://host:port"):
        connect(StoreAddress(url))


def test_a_password_is_never_shown() -> None:
    assert "secret" not in repr(StoreAddress("http://host", "ingest", "secret"))


def write_late(address: StoreAddress, table: str, value: int) -> None:
    rows = np.array([(value,)], dtype=[("x", "<u8")])
    Writer(connect(address)).insert_rows(table, rows, token="late")  # noqa: S106 - not a password


def test_an_insert_that_fails_while_it_is_written_is_not_called_done(database: StoreAddress) -> None:
    """The engine finds out late: the rows are read and understood, and then the part cannot be written."""
    client = connect(database)
    client.command("CREATE TABLE strict (x UInt64, CONSTRAINT small CHECK x < 5) ENGINE = MergeTree ORDER BY x")
    write_late(database, "strict", 4)
    with pytest.raises(StoreRefusedError, match="small"):
        write_late(database, "strict", 9)


def test_an_insert_whose_rollup_fails_is_not_called_done(database: StoreAddress) -> None:
    client = connect(database)
    for name in ("base", "sums"):
        client.command(f"CREATE TABLE {name} (x UInt64) ENGINE = MergeTree ORDER BY x")
    client.command("CREATE MATERIALIZED VIEW base_to_sums TO sums AS SELECT x + throwIf(x = 5) AS x FROM base")
    write_late(database, "base", 4)
    with pytest.raises(StoreRefusedError, match="throwIf"):
        write_late(database, "base", 5)


# Native


def test_a_native_block_is_laid_out_as_documented() -> None:
    rows = np.array([(1, 2), (3, 4)], dtype=[("a", "<u2"), ("b", "<u1")])
    block = b"".join(native_block(rows, {"a": "UInt16", "b": "UInt8"}))
    # Columns, rows, then name, type and values of each column.
    assert block == b"\2\2" + b"\1a\6UInt16" + b"\1\0\3\0" + b"\1b\5UInt8" + b"\2\4"


@pytest.mark.parametrize(("rows", "length"), [(127, b"\x7f"), (128, b"\x80\x01"), (300, b"\xac\x02")])
def test_lengths_are_written_in_groups_of_seven_bits(rows: int, length: bytes) -> None:
    block = b"".join(native_block(np.zeros(rows, dtype=[("a", "<u1")]), {"a": "UInt8"}))
    assert block.startswith(b"\1" + length + b"\1a")


# The frame log, and what it tells the next process


def test_the_frame_log_comes_back_in_words(writer: Writer, store: Client) -> None:
    write_batch(writer, batch_of(frame(9, 40), frame(9, 40), b"rubbish", first=70))
    found = store.query(
        "SELECT topic_id, partition, offset, table_name, source, epoch_ms, sequence, ticks, rows, "
        "toUnixTimestamp(first_time) AS first, toUnixTimestamp(last_time) AS last, "
        "toUnixTimestamp64Milli(sent_at) AS sent, toUnixTimestamp64Milli(checked_at) AS checked, outcome "
        "FROM frames ORDER BY offset"
    ).result_rows
    frame_part = (9, EPOCH_MS, 40, 2, 2, NOW_S - 1, NOW_S, NOW_MS, NOW_MS)
    assert [tuple(row) for row in found] == [
        (TOPIC_ID, 3, 70, "gpu", *frame_part, "stored"),
        (TOPIC_ID, 3, 71, "gpu", *frame_part, "duplicate"),
        (TOPIC_ID, 3, 72, "gpu", 0, 0, 0, 0, 0, 0, 0, 0, NOW_MS, "rejected"),
    ]


def seen(store: Client, positions: dict[int, int], topic_id: UUID = TOPIC_ID) -> list[StoredTicks]:
    return list(FrameBooks(store).seen_before("gpu", topic_id, 0, positions, NOW_MS - 1000))


def test_the_books_tell_what_was_stored_below_the_position(writer: Writer, store: Client) -> None:
    write_batch(writer, batch_of(frame(9, 0), frame(9, 2), b"rubbish", frame(9, 4)))
    assert seen(store, {3: 4}) == [StoredTicks(9, EPOCH_MS, 0, 6)]
    assert seen(store, {3: 3}) == [StoredTicks(9, EPOCH_MS, 0, 4)]
    assert seen(store, {3: 0}) == []
    assert seen(store, {2: 99}) == []


def test_the_books_tell_everything_of_another_log(writer: Writer, store: Client) -> None:
    write_batch(writer, batch_of(frame(9, 0), frame(9, 2)))
    assert seen(store, {3: 0}, UUID(int=1)) == [StoredTicks(9, EPOCH_MS, 0, 4)]


def test_the_books_tell_gaps(writer: Writer, store: Client) -> None:
    write_batch(writer, batch_of(frame(9, 0), frame(9, 2), frame(9, 10)))
    told = seen(store, {3: 99})
    assert {tick for ticks in told for tick in range(ticks.start, ticks.end)} == {0, 1, 2, 3, 10, 11}


def test_the_books_forget_what_is_older_than_asked(writer: Writer, store: Client) -> None:
    write_batch(writer, batch_of(frame(9, 0)))
    assert list(FrameBooks(store).seen_before("gpu", TOPIC_ID, 0, {3: 99}, NOW_MS + 1)) == []


def test_plans_come_back_newest_by_partition(store: Client) -> None:
    plans = PlanTable(store)
    assert plans.read(TOPIC_ID) == []
    first = [PlanLine(1, 0, 0, 10, NOW_MS, 1, 0), PlanLine(1, 1, 0, 5, NOW_MS, 1, 0)]
    second = [PlanLine(2, 1, 5, 8, NOW_MS, 1, 0)]
    plans.write(TOPIC_ID, first)
    plans.write(TOPIC_ID, second)
    assert sorted(plans.read(TOPIC_ID), key=lambda line: line.partition) == [first[0], second[0]]
    assert plans.read(UUID(int=1)) == []


# Messages


RACK = resource_id(ResourceKind.RACK, "rack 7")


def put(writer: Writer, topic: Topic, *messages: Message) -> None:
    records = [Record(0, n, encode_message(message)) for n, message in enumerate(messages)]
    plan = Plan(topic.name, TOPIC_ID, (Range(0, 0, len(records)),), NOW_MS, 0)
    batch = MessageBatcher(topic).build(plan, records, SeenFrames())
    assert batch.rejected == []
    writer.insert_messages(topic.table, batch.messages, token=plan.token)


def test_an_event_is_stored_as_it_was_sent(writer: Writer, store: Client) -> None:
    put(
        writer,
        EVENTS,
        EventMessage(
            id="1",
            resource=U64_MAX,
            time_ms=NOW_MS,
            kind="xid",
            code=-(1 << 31),
            count=2,
            text='it\'s\ta \\ "test" ø \0',
            attributes={"pid": "12"},
        ),
    )
    found = store.query("SELECT * EXCEPT time, toUnixTimestamp64Milli(time) FROM events").first_row
    expected = ("1", U64_MAX, "xid", -(1 << 31), 2, 'it\'s\ta \\ "test" ø \0', 0, {"pid": "12"}, NOW_MS)
    assert tuple(found or ()) == expected


def test_inventory_is_stored_as_it_was_sent(writer: Writer, store: Client) -> None:
    rack = InventoryMessage(
        resource=RACK,
        kind=ResourceKind.RACK,
        identity="rack 7",
        name="B07",
        parent=5,
        serves=(1, U64_MAX),
        valid_from_ms=NOW_MS,
        attributes={"rated_power_watts": "132000"},
    )
    put(writer, INVENTORY, rack)
    found = store.query(
        "SELECT resource, kind, identity, name, parent, serves, attributes, toUnixTimestamp64Milli(valid_from) "
        "FROM inventory"
    ).first_row
    attributes = {"rated_power_watts": "132000"}
    assert tuple(found or ()) == (RACK, "rack", "rack 7", "B07", 5, [1, U64_MAX], attributes, NOW_MS)


def test_the_latest_word_on_a_job_wins(writer: Writer, store: Client) -> None:
    running = JobMessage(job="4711", resource=RACK, start_ms=NOW_MS - 60_000)
    put(writer, JOBS, running)
    assert store.query("SELECT job, end FROM jobs FINAL").result_rows == [("4711", None)]
    assert store.query("SELECT toUnixTimestamp64Milli(start) FROM jobs").first_row == (NOW_MS - 60_000,)


def test_events_of_more_than_a_hundred_months_are_stored(writer: Writer, store: Client) -> None:
    """Each is a valid message: no set of them may bring ingest to a halt."""
    month_ms = 31 * 86_400_000
    put(
        writer,
        EVENTS,
        *(EventMessage(id=str(n), resource=1, time_ms=NOW_MS - n * month_ms, kind="xid") for n in range(110)),
    )
    assert store.query("SELECT count() FROM events").first_row == (110,)


def test_the_oldest_event_that_is_accepted_stays(writer: Writer, store: Client) -> None:
    put(writer, EVENTS, EventMessage(id="1", resource=1, time_ms=NOW_MS - 3649 * 86_400_000, kind="xid"))
    store.command("OPTIMIZE TABLE events FINAL")  # what a merge would do some time later
    assert store.query("SELECT count() FROM events").first_row == (1,)


def test_readings_that_ingest_accepts_do_not_vanish(writer: Writer, store: Client) -> None:
    """What is called stored in the frame log is in the table, however old it is."""
    old_s = int((NOW - timedelta(days=30)).timestamp())
    rows = pack(GPU, [9, 9], [old_s, old_s + 1], {"power_watts": 500.0})
    value = seal(GPU, rows, source=9, epoch_ms=EPOCH_MS, sequence=0, ticks=2, sent_ms=NOW_MS)
    write_batch(writer, batch_of(value))
    told = store.query("SELECT sum(rows) FROM frames WHERE outcome = 'stored'").first_row
    assert store.query("SELECT count() FROM gpu").first_row == told
