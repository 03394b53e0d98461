"""Plans: a token names one set of records for ever, and a commit's note says all that a replay needs."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.plan import Plan, Range, decode_note, encode_note

TOPIC_ID = UUID("00112233-4455-6677-8899-aabbccddeeff")
KAFKA_METADATA_BYTES = 4096  # the brokers' default offset.metadata.max.bytes

offsets = st.integers(0, (1 << 63) - 1)
ranges = st.builds(lambda partition, first, length: Range(partition, first, first + length),
                   st.integers(0, 9), st.integers(0, 1000), st.integers(1, 1000))  # fmt: skip
one_per_partition = st.lists(ranges, min_size=1, max_size=5, unique_by=lambda planned: planned.partition)


def plan(
    *planned: Range, topic_id: UUID = TOPIC_ID, checked_at_ms: int = 0, layouts: int = 1, log_epoch: int = 0
) -> Plan:
    return Plan("kvandal.gpu", topic_id, planned, checked_at_ms, layouts, log_epoch)


def test_token_names_topic_log_epoch_and_ranges() -> None:
    planned = plan(Range(3, 20, 25), Range(0, 5, 10), log_epoch=2)
    assert planned.token == f"{TOPIC_ID}/2/0:5-10,3:20-25"


@given(one_per_partition, st.data())
def test_token_does_not_depend_on_the_order_of_ranges(planned: list[Range], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(planned))
    assert plan(*shuffled).token == plan(*planned).token


@given(one_per_partition, one_per_partition)
def test_other_records_have_another_token(one: list[Range], other: list[Range]) -> None:
    assert (plan(*one).token == plan(*other).token) == (set(one) == set(other))


def test_a_topic_made_anew_and_a_new_log_epoch_have_other_tokens() -> None:
    planned = Range(0, 0, 10)
    tokens = {
        plan(planned).token,
        plan(planned, topic_id=UUID(int=1)).token,
        plan(planned, log_epoch=1).token,
    }
    assert len(tokens) == 3


def test_clock_and_layouts_do_not_change_the_token() -> None:
    # A replay takes them from the plan; the records alone say what is the same insert.
    assert plan(Range(0, 0, 10), checked_at_ms=1, layouts=1).token == plan(Range(0, 0, 10)).token


@given(st.uuids(), st.integers(0, 99), offsets, offsets, offsets, st.integers(0, 999), st.integers(0, 999))
def test_a_note_brings_back_the_plan(
    topic_id: UUID, partition: int, first: int, end: int, checked_at_ms: int, layouts: int, log_epoch: int
) -> None:
    written = plan(
        Range(partition, first, end),
        topic_id=topic_id,
        checked_at_ms=checked_at_ms,
        layouts=layouts,
        log_epoch=log_epoch,
    )
    note = encode_note(written)
    assert len(note.encode()) < KAFKA_METADATA_BYTES
    assert decode_note("kvandal.gpu", partition, first, note) == written


def test_a_note_of_several_ranges_is_refused() -> None:
    with pytest.raises(ValueError, match="unpack"):
        encode_note(plan(Range(0, 0, 1), Range(1, 0, 1)))


@pytest.mark.parametrize(
    "metadata",
    ["", "x", "{}", "[]", "null", '{"t": "not a uuid", "e": 1, "c": 1, "l": 1}', '{"t": 1, "e": 1, "c": 1, "l": 1}',
     '{"t": "00112233445566778899aabbccddeeff", "e": "1", "c": 1, "l": 1}', "\udc80"],
)  # fmt: skip
def test_a_commit_made_by_something_else_is_no_plan(metadata: str) -> None:
    assert decode_note("kvandal.gpu", 0, 0, metadata) is None


@given(st.text(max_size=60))
def test_no_metadata_whatever_raises(metadata: str) -> None:
    decode_note("kvandal.gpu", 0, 0, metadata)


def test_a_note_of_a_later_version_is_still_read() -> None:
    note = '{"t":"00112233445566778899aabbccddeeff","e":9,"c":8,"l":7,"g":6,"later":true}'
    assert decode_note("kvandal.gpu", 1, 5, note) == plan(Range(1, 5, 9), checked_at_ms=8, layouts=7, log_epoch=6)
