"""Messages: valid JSON becomes a row, anything else a dead letter, and nothing a sender writes stops ingest."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalogue import ResourceKind, resource_id
from stream.batch import Batch, MessageBatcher, Record
from stream.frame import Flaw
from stream.messages import EventMessage, InventoryMessage, JobMessage, Message, encode_message, message_key
from stream.plan import Plan, Range
from stream.seen import SeenFrames
from stream.topics import EVENTS, INVENTORY, JOBS, Topic

NOW_MS = 1_760_000_000_123
NOW = "2025-10-09T08:53:20.123Z"
RACK = resource_id(ResourceKind.RACK, "rack 7")
U64_MAX = (1 << 64) - 1
I64_MAX = (1 << 63) - 1

EVENT: Mapping[str, Any] = {"id": "xid-1", "resource": RACK, "time_ms": NOW_MS, "kind": "xid", "code": 79}
INVENTORY_RACK: Mapping[str, Any] = {
    "resource": RACK,
    "kind": "rack",
    "identity": "rack 7",
    "name": "B07",
    "valid_from_ms": NOW_MS,
}
JOB: Mapping[str, Any] = {"job": "4711", "resource": RACK, "start_ms": NOW_MS}
VALID = [(EVENTS, EVENT), (INVENTORY, INVENTORY_RACK), (JOBS, JOB)]


def build(topic: Topic, *values: bytes) -> Batch:
    plan = Plan(topic.name, UUID(int=1), (Range(0, 0, len(values)),), NOW_MS, 0)
    return MessageBatcher(topic).build(plan, [Record(0, n, value) for n, value in enumerate(values)], SeenFrames())


def row_of(topic: Topic, message: Mapping[str, Any]) -> dict[str, Any]:
    batch = build(topic, json.dumps(message).encode())
    assert batch.rejected == []
    (line,) = batch.messages
    row: dict[str, Any] = json.loads(line)
    return row


def flaw_of(topic: Topic, value: bytes) -> Flaw:
    batch = build(topic, value)
    assert batch.messages == []
    (rejected,) = batch.rejected
    assert rejected.record.value == value
    assert rejected.detail
    return rejected.flaw


# What is valid


def test_event_becomes_a_row_with_its_time_as_text() -> None:
    assert row_of(EVENTS, {**EVENT, "text": "fallen off the bus", "attributes": {"pid": "12"}}) == {
        "id": "xid-1",
        "resource": RACK,
        "time": NOW,
        "kind": "xid",
        "code": 79,
        "count": 1,
        "text": "fallen off the bus",
        "source": 0,
        "attributes": {"pid": "12"},
    }


def test_inventory_becomes_a_row() -> None:
    assert row_of(INVENTORY, {**INVENTORY_RACK, "parent": 3, "serves": [1, U64_MAX]}) == {
        "resource": RACK,
        "kind": "rack",
        "identity": "rack 7",
        "name": "B07",
        "parent": 3,
        "serves": [1, U64_MAX],
        "source": 0,
        "attributes": {},
        "valid_from": NOW,
    }


@pytest.mark.parametrize(("end_ms", "end"), [(None, None), (NOW_MS + 877, "2025-10-09T08:53:21.000Z")])
def test_job_becomes_a_row_that_says_when_it_was_received(end_ms: int | None, end: str | None) -> None:
    row = row_of(JOBS, {**JOB, "end_ms": end_ms})
    assert (row["start"], row["end"], row["received_at"]) == (NOW, end, NOW)
    assert "start_ms" not in row
    assert "end_ms" not in row


@pytest.mark.parametrize(
    ("time_ms", "text"),
    [
        (1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
        (1_709_164_800_001, "2024-02-29T00:00:00.001Z"),
        (NOW_MS, NOW),
    ],
)
def test_milliseconds_are_told_exactly(time_ms: int, text: str) -> None:
    assert row_of(EVENTS, {**EVENT, "time_ms": time_ms})["time"] == text


@pytest.mark.parametrize(
    ("topic", "message"),
    [
        (EVENTS, EventMessage(id="a", resource=U64_MAX, time_ms=NOW_MS, kind="leak", code=-1, source=U64_MAX)),
        (INVENTORY, InventoryMessage(
            resource=RACK, kind=ResourceKind.RACK, identity="rack 7", name="B07", valid_from_ms=0, serves=(1, U64_MAX)
        )),
        (JOBS, JobMessage(job="1", resource=U64_MAX, start_ms=NOW_MS)),
    ],
)  # fmt: skip
def test_what_our_own_sources_encode_is_valid(topic: Topic, message: Message) -> None:
    batch = build(topic, encode_message(message))
    assert batch.rejected == []
    assert len(batch.messages) == 1


@pytest.mark.parametrize("text", ["", "ø \u2603 \U0001f525", "a\nb\tc\\d'e\"f", "'; DROP TABLE events; --", "\0"])
def test_text_comes_through_as_it_is(text: str) -> None:
    assert row_of(EVENTS, {**EVENT, "text": text})["text"] == text


def test_a_line_of_the_store_is_one_line() -> None:
    (line,) = build(EVENTS, json.dumps({**EVENT, "text": "a\nb\r\nc"}, indent=2).encode()).messages
    assert b"\n" not in line


@pytest.mark.parametrize("resource", [0, I64_MAX, 1 << 63, U64_MAX])
def test_resource_ids_have_all_64_bits(resource: int) -> None:
    assert row_of(EVENTS, {**EVENT, "resource": resource})["resource"] == resource


# What is not


def test_a_job_that_ended_at_time_zero_is_wrong_and_does_not_run_on() -> None:
    assert flaw_of(JOBS, json.dumps({**JOB, "end_ms": 0}).encode()) is Flaw.BAD_TIME


@pytest.mark.parametrize(("topic", "message"), VALID)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: b"",
        lambda _: b"\0",
        lambda value: b"\xff" + value,
        lambda value: value[:-1],
        lambda value: value + value,
        lambda value: b"[" + value + b"]",
        lambda _: b"null",
        lambda _: b"[" * 100_000,
        lambda value: value[:-1] + b', "surprise": 1}',
        lambda value: value[:-1] + b', "attributes": {"a": 1}}',
        lambda value: value[:-1] + b', "attributes": {"a": "' + b"x" * 257 + b'"}}',
        lambda value: value[:-1] + b', "attributes": {"a": "\\ud800"}}',
        lambda value: value.replace(str(RACK).encode(), b"-1"),
        lambda value: value.replace(str(RACK).encode(), b"18446744073709551616"),
        lambda value: value.replace(str(RACK).encode(), b"1e30"),
        lambda value: value.replace(str(RACK).encode(), b'"7"'),
        lambda value: value.replace(str(NOW_MS).encode(), b"-1"),
        lambda value: value.replace(str(NOW_MS).encode(), b"4398046511104"),
        lambda value: value.replace(str(NOW_MS).encode(), b"1" + b"0" * 5000),
        lambda value: value.replace(str(NOW_MS).encode(), b"NaN"),
    ],
)  # fmt: skip
def test_what_is_not_a_message_is_a_dead_letter(topic: Topic, message: Mapping[str, Any], spoil: Any) -> None:
    assert flaw_of(topic, spoil(json.dumps(message).encode())) is Flaw.NOT_A_MESSAGE


@pytest.mark.parametrize(
    "changed",
    [
        {"code": I64_MAX + 1},  # the column is Int64
        {"code": -I64_MAX - 2},
        {"code": 10**30},
        {"count": 0},
        {"count": -1},
        {"count": U64_MAX + 1},
        {"count": 10**30},
        {"source": U64_MAX + 1},
        {"id": "x" * 257},
        {"text": "x" * 4097},
        {"time_ms": 1 << 42},
        {"time_ms": 1.5},
    ],
)
def test_a_number_or_text_that_no_column_holds_is_a_dead_letter(changed: Mapping[str, Any]) -> None:
    assert flaw_of(EVENTS, json.dumps({**EVENT, **changed}).encode()) is Flaw.NOT_A_MESSAGE


@pytest.mark.parametrize("field", ["id", "resource", "time_ms", "kind"])
def test_a_missing_field_is_a_dead_letter_that_names_it(field: str) -> None:
    message = {name: value for name, value in EVENT.items() if name != field}
    (rejected,) = build(EVENTS, json.dumps(message).encode()).rejected
    assert field in rejected.detail


@pytest.mark.parametrize(
    "changed",
    [
        {"resource": RACK + 1},
        {"identity": "rack 8"},
        {"kind": "tray"},
        {"identity": "", "resource": 5},
    ],
)
def test_an_id_that_is_not_the_hash_of_its_identity_is_refused(changed: Mapping[str, Any]) -> None:
    assert flaw_of(INVENTORY, json.dumps({**INVENTORY_RACK, **changed}).encode()) is Flaw.WRONG_IDENTITY


def test_nothing_may_claim_the_id_0_by_having_no_identity() -> None:
    nameless = json.dumps({**INVENTORY_RACK, "identity": "", "resource": 0}).encode()
    assert flaw_of(INVENTORY, nameless) is Flaw.WRONG_IDENTITY


def test_an_unknown_kind_of_resource_is_a_dead_letter() -> None:
    assert flaw_of(INVENTORY, json.dumps({**INVENTORY_RACK, "kind": "toaster"}).encode()) is Flaw.NOT_A_MESSAGE


def test_one_bad_message_does_not_spoil_its_neighbours() -> None:
    good = json.dumps(EVENT).encode()
    batch = build(EVENTS, good, b"{", good)
    assert len(batch.messages) == 2
    assert [rejected.record.offset for rejected in batch.rejected] == [1]


def test_a_batch_of_messages_is_built_the_same_again() -> None:
    values = [json.dumps(JOB).encode(), b"{"]
    assert build(JOBS, *values) == build(JOBS, *values)


def test_each_message_counts_as_one_row() -> None:
    assert MessageBatcher(EVENTS).count_rows(b"") == 1
    assert MessageBatcher(EVENTS).count_rows(b"x" * 10_000) == 1


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)


@given(st.sampled_from(VALID), st.data())
def test_no_value_in_any_field_raises(case: tuple[Topic, Mapping[str, Any]], data: st.DataObject) -> None:
    topic, message = case
    field = data.draw(st.sampled_from(sorted(message)))
    value = json.dumps({**message, field: data.draw(json_values)}).encode()
    batch = build(topic, value)
    assert len(batch.messages) + len(batch.rejected) == 1


@given(st.sampled_from([EVENTS, INVENTORY, JOBS]), st.binary(max_size=200))
def test_no_bytes_whatever_raise(topic: Topic, value: bytes) -> None:
    assert flaw_of(topic, value) is Flaw.NOT_A_MESSAGE


@pytest.mark.parametrize("time_ms", [0, 1, NOW_MS - 3651 * 86_400_000, NOW_MS + 301_000, (1 << 42) - 1])
def test_an_event_of_a_time_that_would_not_be_kept_is_refused(time_ms: int) -> None:
    (refused,) = build(EVENTS, encode_message(EventMessage(id="a", resource=1, time_ms=time_ms, kind="xid"))).rejected
    assert refused.flaw is Flaw.BAD_TIME


def test_inventory_of_two_sources_about_one_resource_has_two_keys() -> None:
    one, other = (
        InventoryMessage(
            resource=RACK, kind=ResourceKind.RACK, identity="rack 7", name="7", valid_from_ms=0, source=source
        )
        for source in (1, 2)
    )
    assert message_key(one) != message_key(other)
    assert message_key(one) == message_key(one)
    assert message_key(EventMessage(id="1", resource=RACK, time_ms=0, kind="leak", source=1)) == RACK
