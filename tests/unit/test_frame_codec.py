"""Frames are packed and unpacked without touching a row, let alone a value, in Python."""

from functools import partial

import numpy as np
import pytest

from benchmarks.frame_codec import instructions_of
from catalogue import GPU, layout_of
from stream.frame import FrameHeader, decode_frame, encode_frame
from stream.rows import Rows, row_type

LAYOUT = layout_of(GPU)


def rows_and_header(count: int) -> tuple[Rows, FrameHeader]:
    rows = np.zeros(count, row_type(LAYOUT))
    rows["resource"] = np.arange(count)
    return rows, FrameHeader(LAYOUT.fingerprint, 1, 2, 3, 1, count, 4)


def test_a_large_frame_takes_no_more_instructions_than_a_small_one() -> None:
    counted = set()
    for count in (4, 4_000):
        rows, header = rows_and_header(count)
        value = encode_frame(header, rows)
        counted.add(
            (
                instructions_of(partial(encode_frame, header, rows)),
                instructions_of(partial(decode_frame, value, {LAYOUT.fingerprint: LAYOUT})),
            )
        )
    ((encoding, decoding),) = counted
    assert min(encoding, decoding) > 20, "nothing was counted"


@pytest.mark.parametrize("step", [1, 2, -1])
def test_rows_come_back_however_they_lie_in_memory(step: int) -> None:
    rows, _ = rows_and_header(10)
    chosen = rows[::step]
    _, header = rows_and_header(len(chosen))
    _, found = decode_frame(encode_frame(header, chosen), {LAYOUT.fingerprint: LAYOUT})
    assert found.tobytes() == chosen.tobytes()
