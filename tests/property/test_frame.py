"""The frame: what was sealed is what is read; everything else is refused by name, never misread."""

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalogue import GPU, POWER, TABLES, Layout, Table, layout_of
from stream.frame import (
    HEADER_BYTES,
    MAX_FRAME_BYTES,
    MAX_TICKS,
    BadFrameError,
    Flaw,
    FrameHeader,
    check_size,
    decode_frame,
    decode_header,
    encode_frame,
    seal,
)
from stream.rows import Rows, absent_rows, row_type

LAYOUTS: dict[int, Layout] = {layout_of(table).fingerprint: layout_of(table) for table in TABLES}
U64_MAX = (1 << 64) - 1
U32_MAX = (1 << 32) - 1
# Written down from the format's description, not taken from the code.
HEADER = struct.Struct("<4sHHQQQQIIQ")
FIELDS = ("magic", "version", "reserved", "layout", "source", "epoch_ms", "sequence", "ticks", "rows", "sent_ms")

tables = st.sampled_from(TABLES)
u64 = st.integers(0, U64_MAX)


@st.composite
def rows_of(draw: st.DrawFn, table: Table, least: int = 1) -> Rows:
    """Rows with every bit drawn: any byte string is a row."""
    dtype = row_type(layout_of(table))
    count = draw(st.integers(least, 8))
    data = draw(st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize))
    return np.frombuffer(data, dtype=dtype)


@st.composite
def sealed(draw: st.DrawFn) -> bytes:
    table = draw(tables)
    rows = draw(rows_of(table))
    return seal(
        table,
        rows,
        source=draw(u64),
        epoch_ms=draw(u64),
        sequence=draw(st.integers(0, (1 << 63) - 9)),
        ticks=draw(st.integers(1, len(rows))),
        sent_ms=draw(u64),
    )


def gpu_frame(**changed: Any) -> bytes:
    """A valid frame of two GPU rows, with header fields changed at will."""
    value = seal(GPU, absent_rows(GPU, 2), source=1, epoch_ms=2, sequence=3, ticks=2, sent_ms=4)
    fields = dict(zip(FIELDS, HEADER.unpack_from(value), strict=True)) | changed
    return HEADER.pack(*fields.values()) + value[HEADER.size :]


def flaw_of(value: bytes) -> Flaw:
    with pytest.raises(BadFrameError) as caught:
        decode_frame(value, LAYOUTS)
    assert str(caught.value).startswith(f"{caught.value.flaw}: ")
    return caught.value.flaw


@given(st.data(), tables, u64, u64, st.integers(0, (1 << 63) - 9), u64)
def test_sealed_rows_come_back_bit_by_bit(
    data: st.DataObject, table: Table, source: int, epoch_ms: int, sequence: int, sent_ms: int
) -> None:
    rows = data.draw(rows_of(table))
    ticks = data.draw(st.integers(1, len(rows)))
    value = seal(table, rows, source=source, epoch_ms=epoch_ms, sequence=sequence, ticks=ticks, sent_ms=sent_ms)
    header, read = decode_frame(value, LAYOUTS)
    assert header == FrameHeader(layout_of(table).fingerprint, source, epoch_ms, sequence, ticks, len(rows), sent_ms)
    assert header.end_sequence == sequence + ticks
    assert read.dtype == rows.dtype
    assert read.tobytes() == rows.tobytes()


def test_header_stands_as_described() -> None:
    value = seal(POWER, absent_rows(POWER, 3), source=11, epoch_ms=22, sequence=33, ticks=3, sent_ms=44)
    assert HEADER_BYTES == 56
    assert HEADER.unpack_from(value) == (b"KVDL", 1, 0, layout_of(POWER).fingerprint, 11, 22, 33, 3, 3, 44)
    assert value[56:] == absent_rows(POWER, 3).tobytes()


def test_rows_read_are_read_only() -> None:
    _, rows = decode_frame(gpu_frame(), LAYOUTS)
    with pytest.raises(ValueError, match="read-only"):
        rows["time"] = 1


@given(sealed(), st.data())
def test_truncated_anywhere_it_is_refused(value: bytes, data: st.DataObject) -> None:
    kept = data.draw(st.integers(0, len(value) - 1))
    assert flaw_of(value[:kept]) is (Flaw.TOO_SHORT if kept < HEADER.size else Flaw.WRONG_SIZE)


def test_every_truncation_of_one_frame_is_refused() -> None:
    value = gpu_frame()
    flaws = [flaw_of(value[:kept]) for kept in range(len(value))]
    assert flaws == [Flaw.TOO_SHORT] * HEADER.size + [Flaw.WRONG_SIZE] * (len(value) - HEADER.size)


@given(sealed(), st.binary(min_size=1, max_size=300))
def test_with_bytes_to_spare_it_is_refused(value: bytes, more: bytes) -> None:
    assert flaw_of(value + more) is Flaw.WRONG_SIZE


@given(st.binary(max_size=400))
def test_random_bytes_are_refused(value: bytes) -> None:
    if value[:4] != b"KVDL":
        assert flaw_of(value) in (Flaw.TOO_SHORT, Flaw.NOT_A_FRAME)


@given(
    st.sampled_from([b"KVDL", b"KVDM", b"\0\0\0\0"]),
    st.sampled_from([0, 1, 2, 65_535]),
    st.one_of(st.sampled_from(sorted(LAYOUTS)), u64),
    st.one_of(st.sampled_from([0, 1, (1 << 63) - 1, 1 << 63, U64_MAX]), u64),
    st.one_of(st.sampled_from([0, 1, MAX_TICKS, MAX_TICKS + 1, U32_MAX]), st.integers(0, U32_MAX)),
    st.one_of(st.sampled_from([0, 1, 2, U32_MAX]), st.integers(0, U32_MAX)),
    st.binary(max_size=300),
)
def test_a_hostile_header_is_refused_or_says_the_truth(
    magic: bytes, version: int, layout: int, sequence: int, ticks: int, rows: int, payload: bytes
) -> None:
    value = HEADER.pack(magic, version, 0, layout, 0, 0, sequence, ticks, rows, 0) + payload
    try:
        header, read = decode_frame(value, LAYOUTS)
    except BadFrameError:
        return
    assert (magic, version) == (b"KVDL", 1)
    assert len(read) == header.rows == rows
    assert read.tobytes() == payload
    assert 1 <= header.ticks <= min(rows, MAX_TICKS)
    assert header.end_sequence < 1 << 63


@pytest.mark.parametrize(
    ("changed", "flaw"),
    [
        ({"magic": b"kvdl"}, Flaw.NOT_A_FRAME),
        ({"version": 0}, Flaw.HEADER_VERSION),
        ({"version": 2}, Flaw.HEADER_VERSION),
        ({"layout": layout_of(GPU).fingerprint ^ 1}, Flaw.UNKNOWN_LAYOUT),
        ({"layout": layout_of(POWER).fingerprint}, Flaw.WRONG_SIZE),
        ({"ticks": 0}, Flaw.BAD_TICKS),
        ({"ticks": 3}, Flaw.BAD_TICKS),  # more ticks than rows
        ({"ticks": U32_MAX}, Flaw.BAD_TICKS),
        ({"ticks": U32_MAX, "rows": U32_MAX}, Flaw.BAD_TICKS),
        ({"rows": 0}, Flaw.BAD_TICKS),
        ({"rows": 3}, Flaw.WRONG_SIZE),
        ({"rows": U32_MAX}, Flaw.WRONG_SIZE),
        ({"sequence": (1 << 63) - 2}, Flaw.BAD_TICKS),
        ({"sequence": 1 << 63}, Flaw.BAD_TICKS),
        ({"sequence": U64_MAX}, Flaw.BAD_TICKS),
    ],
)
def test_each_lie_in_the_header_has_its_name(changed: dict[str, Any], flaw: Flaw) -> None:
    assert flaw_of(gpu_frame(**changed)) is flaw


def test_the_last_sequence_that_fits_is_accepted() -> None:
    header, _ = decode_frame(gpu_frame(sequence=(1 << 63) - 3), LAYOUTS)
    assert header.end_sequence == (1 << 63) - 1


def test_rows_times_width_does_not_overflow() -> None:
    # 2**31 rows of 2**33 bytes are 2**64: in 64-bit arithmetic nothing at all.
    header = FrameHeader(0, 0, 0, 0, 1, 1 << 31, 0)
    with pytest.raises(BadFrameError, match="wrong_size"):
        check_size(header, bytes(HEADER_BYTES), 1 << 33)


@pytest.mark.parametrize("sent_ms", [0, 1 << 42, U64_MAX])
def test_the_send_time_is_carried_as_it_is(sent_ms: int) -> None:
    assert decode_header(gpu_frame(sent_ms=sent_ms)).sent_ms == sent_ms


@pytest.mark.parametrize(
    ("ticks", "rows", "announced", "sentence"),
    [
        (1, 2, 3, "header says 3 rows, got 2"),
        (0, 2, 2, "0 ticks from sequence 0 in 2 rows"),
        (MAX_TICKS + 1, 2, 2, "a frame holds 1 to 3600 ticks"),
        (1, 20_000, 20_000, "put fewer ticks into it"),
    ],
)
def test_a_frame_that_contradicts_itself_is_not_sealed(ticks: int, rows: int, announced: int, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        encode_frame(FrameHeader(0, 0, 0, 0, ticks, announced, 0), absent_rows(GPU, rows))


@pytest.mark.parametrize(("ticks", "rows", "sequence"), [(2, 1, 0), (1, 0, 0), (1, 1, (1 << 63) - 1)])
def test_what_ingest_would_refuse_is_not_sealed(ticks: int, rows: int, sequence: int) -> None:
    with pytest.raises(ValueError, match="tick"):
        seal(GPU, absent_rows(GPU, rows), source=0, epoch_ms=0, sequence=sequence, ticks=ticks, sent_ms=0)


def test_the_largest_frame_stays_under_the_limit() -> None:
    fitting = (MAX_FRAME_BYTES - HEADER_BYTES) // row_type(layout_of(GPU)).itemsize
    value = seal(GPU, absent_rows(GPU, fitting), source=0, epoch_ms=0, sequence=0, ticks=60, sent_ms=0)
    assert len(value) <= 1_000_000
    with pytest.raises(ValueError, match="the limit is 1000000"):
        seal(GPU, absent_rows(GPU, fitting + 1), source=0, epoch_ms=0, sequence=0, ticks=60, sent_ms=0)
