"""Messages as an attacker would write them who knows the format: right keys, and any value behind each.

KVANDAL_EXAMPLES sets how many of each kind; docs/reliability.md has the totals of the long form.
"""

import os
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalogue import ResourceKind, resource_id
from stream.batch import MessageBatcher, Record
from stream.messages import EventMessage, InventoryMessage, JobMessage
from stream.plan import Plan, Range
from stream.seen import SeenFrames
from stream.topics import EVENTS, INVENTORY, JOBS, Topic

EXAMPLES = int(os.environ.get("KVANDAL_EXAMPLES", "300"))
NOW_MS = 1_790_000_000_000
TEN_YEARS_MS = 3660 * 86_400_000
MAX_ID = (1 << 64) - 1

integers = st.integers(1, (1 << 31) - 1)
times = st.integers(NOW_MS - 10**9, NOW_MS)
short_text = st.text(max_size=60)
beyond = st.one_of(
    st.sampled_from([0, -1, MAX_ID, MAX_ID + 1, 1 << 42, NOW_MS + 300_000, NOW_MS + 300_001]),
    st.integers(),
    st.text(min_size=257, max_size=5000),
    st.lists(st.integers(), min_size=1, max_size=3),
)
leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text())
anything = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=5
)
KINDS: dict[str, type[msgspec.Struct]] = {
    INVENTORY.name: InventoryMessage,
    EVENTS.name: EventMessage,
    JOBS.name: JobMessage,
}


@st.composite
def messages(draw: st.DrawFn, topic: Topic) -> bytes:
    """A message of the topic with every field that it needs; a few fields have values that nobody expects."""
    kind = KINDS[topic.name]
    fields = {field.name: draw(_value(field.name)) for field in msgspec.structs.fields(kind)}
    if fields.get("identity") and draw(st.booleans()):
        fields["resource"] = resource_id(ResourceKind.GPU, fields["identity"])
        fields["kind"] = ResourceKind.GPU
    for name in draw(st.lists(st.sampled_from([*fields, "surprise"]), max_size=2)):
        fields[name] = draw(beyond | anything)
    if draw(st.integers(0, 9)) == 0:
        del fields[draw(st.sampled_from(list(fields)))]
    return msgspec.json.encode(fields)


def _value(name: str) -> st.SearchStrategy[Any]:
    """Values of the field's own type, within its bounds."""
    if name.endswith("_ms"):
        return times
    if name in _NUMBERS:
        return integers
    if name == "serves":
        return st.lists(integers, max_size=3)
    if name == "attributes":
        return st.dictionaries(short_text, short_text, max_size=3)
    return st.sampled_from(list(ResourceKind)) if name == "kind" else short_text


_NUMBERS = {"resource", "parent", "source", "code", "count"}


@pytest.mark.parametrize("topic", [INVENTORY, EVENTS, JOBS], ids=lambda topic: topic.table)
@settings(max_examples=EXAMPLES, deadline=1000, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_message_is_a_line_that_says_what_it_said_or_a_dead_letter(topic: Topic, data: st.DataObject) -> None:
    value = data.draw(messages(topic) | st.binary(max_size=200))
    plan = Plan(topic.name, UUID(int=1), (Range(0, 0, 1),), NOW_MS, 0)

    batch = MessageBatcher(topic).build(plan, [Record(0, 0, value)], SeenFrames())

    assert len(batch.messages) + len(batch.rejected) == 1
    for line in batch.messages:
        _assert_says_the_same(msgspec.json.decode(value), msgspec.json.decode(line))


def _assert_says_the_same(sent: dict[str, Any], row: dict[str, Any]) -> None:
    """Every field that was sent is in the row unchanged; only times have become text."""
    for name, value in sent.items():
        if not name.endswith("_ms"):
            assert row[name] == value
    assert 0 <= row["resource"] <= MAX_ID
    if "identity" in sent:
        assert row["resource"] == resource_id(ResourceKind(sent["kind"]), sent["identity"])
    for name in ("time_ms", "start_ms", "end_ms"):
        if sent.get(name) is not None:
            assert NOW_MS - TEN_YEARS_MS <= sent[name] <= NOW_MS + 300_000
