"""The frame: what one source read over a few ticks for one table, as one Kafka record value.

A fixed little-endian header of 56 bytes, then packed fixed-width rows. The rows are at once a numpy
structured array and ClickHouse RowBinary, so neither side touches a single value in Python.

    offset  size  field
         0     4  magic "KVDL"
         4     2  header version, 1
         6     2  reserved, 0
         8     8  layout fingerprint
        16     8  source id
        24     8  epoch: start of the agent, UTC milliseconds
        32     8  sequence number of the first tick
        40     4  ticks
        44     4  rows
        48     8  send time, UTC milliseconds
        56        rows
"""

import struct
from enum import StrEnum

import msgspec
import numpy as np

from catalogue import Layout, Table, layout_of
from stream.rows import Rows, row_type

MAGIC = b"KVDL"
HEADER_VERSION = 1
_HEADER = struct.Struct("<4sHHQQQQIIQ")
HEADER_BYTES = _HEADER.size

# A frame is one Kafka record: it must stay under the brokers' default limit of 1 MiB.
MAX_FRAME_BYTES = 1_000_000
MAX_TICKS = 3600


class Flaw(StrEnum):
    """Why a frame cannot be stored; the reason under which it is dead-lettered."""

    TOO_SHORT = "too_short"
    NOT_A_FRAME = "not_a_frame"
    HEADER_VERSION = "header_version"
    UNKNOWN_LAYOUT = "unknown_layout"
    WRONG_TOPIC = "wrong_topic"
    WRONG_SIZE = "wrong_size"
    BAD_TICKS = "bad_ticks"
    BAD_TIME = "bad_time"
    OVERLAP = "overlap"
    NOT_A_MESSAGE = "not_a_message"
    WRONG_IDENTITY = "wrong_identity"


class BadFrameError(ValueError):
    """A record that is not a frame, or not one that can be read here."""

    def __init__(self, flaw: Flaw, detail: str) -> None:
        super().__init__(f"{flaw}: {detail}")
        self.flaw = flaw


class FrameHeader(msgspec.Struct, frozen=True, gc=False):
    """Who sent what, and which ticks of which epoch it covers."""

    layout: int
    source: int
    epoch_ms: int
    sequence: int
    ticks: int
    rows: int
    sent_ms: int

    @property
    def end_sequence(self) -> int:
        return self.sequence + self.ticks


def encode_frame(header: FrameHeader, rows: Rows) -> bytes:
    """Header and rows as bytes; ValueError where they contradict each other or the limits."""
    if header.rows != len(rows):
        raise ValueError(f"header says {header.rows} rows, got {len(rows)}")
    if not _ticks_hold(header):
        raise ValueError(
            f"{header.ticks} ticks from sequence {header.sequence} in {header.rows} rows; a frame holds 1 to "
            f"{MAX_TICKS} ticks of at least a row each"
        )
    value = b"".join((_pack(header), np.ascontiguousarray(rows).view(np.uint8).data))  # one copy
    if len(value) > MAX_FRAME_BYTES:
        raise ValueError(f"frame of {len(value)} bytes; the limit is {MAX_FRAME_BYTES}: put fewer ticks into it")
    return value


def seal(table: Table, rows: Rows, *, source: int, epoch_ms: int, sequence: int, ticks: int, sent_ms: int) -> bytes:
    """A frame of `rows`, which have the table's layout of today."""
    header = FrameHeader(layout_of(table).fingerprint, source, epoch_ms, sequence, ticks, len(rows), sent_ms)
    return encode_frame(header, rows)


def decode_header(value: bytes) -> FrameHeader:
    """The header of a frame; BadFrameError when the value cannot be one. The rows are not looked at."""
    if len(value) < HEADER_BYTES:
        raise BadFrameError(Flaw.TOO_SHORT, f"{len(value)} bytes, a header alone has {HEADER_BYTES}")
    magic, version, _, layout, source, epoch_ms, sequence, ticks, rows, sent_ms = _HEADER.unpack_from(value)
    if magic != MAGIC:
        raise BadFrameError(Flaw.NOT_A_FRAME, f"starts with {magic!r}, not {MAGIC!r}")
    if version != HEADER_VERSION:
        raise BadFrameError(Flaw.HEADER_VERSION, f"header version {version}, this program reads {HEADER_VERSION}")
    return FrameHeader(layout, source, epoch_ms, sequence, ticks, rows, sent_ms)


def check_size(header: FrameHeader, value: bytes, row_bytes: int) -> None:
    """BadFrameError unless the value holds exactly the ticks and rows that its header announces.

    Rows are compared by multiplication in Python integers: a hostile count cannot overflow.
    """
    if not _ticks_hold(header):
        raise BadFrameError(
            Flaw.BAD_TICKS, f"{header.ticks} ticks from sequence {header.sequence} in {header.rows} rows"
        )
    if len(value) != HEADER_BYTES + header.rows * row_bytes:
        raise BadFrameError(
            Flaw.WRONG_SIZE,
            f"{header.rows} rows of {row_bytes} bytes announced, {len(value) - HEADER_BYTES} bytes hold",
        )


def decode_frame(value: bytes, layouts: dict[int, Layout]) -> tuple[FrameHeader, Rows]:
    """Header and rows (a read-only view of `value`) of one frame, for tools that look at single frames.

    `layouts` maps fingerprints to layouts. BadFrameError names the flaw.
    """
    header = decode_header(value)
    layout = layouts.get(header.layout)
    if layout is None:
        raise BadFrameError(Flaw.UNKNOWN_LAYOUT, f"layout {header.layout:016x} is not known to this version")
    dtype = row_type(layout)
    check_size(header, value, dtype.itemsize)
    return header, np.frombuffer(value, dtype=dtype, offset=HEADER_BYTES)


def _ticks_hold(header: FrameHeader) -> bool:
    return 1 <= header.ticks <= min(header.rows, MAX_TICKS) and header.sequence >= 0 and header.end_sequence < 1 << 63


def _pack(header: FrameHeader) -> bytes:
    return _HEADER.pack(
        MAGIC,
        HEADER_VERSION,
        0,
        header.layout,
        header.source,
        header.epoch_ms,
        header.sequence,
        header.ticks,
        header.rows,
        header.sent_ms,
    )
