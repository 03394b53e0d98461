"""What a frame costs to encode and to decode, against a numpy copy of the same bytes.

Two things are told. Instructions of the interpreter, counted: as many for a frame of 4,000 rows as for one of 4, so
that no value and no row is touched in Python. And processor time, the least of many repeats: of a frame, and of the
copy alone.

Run: `python -m benchmarks.frame_codec`.
"""

import json
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np

from catalogue import GPU, layout_of
from stream.frame import HEADER_BYTES, FrameHeader, decode_frame, encode_frame
from stream.rows import row_type

SIZES = (4, 40, 400, 4_000)  # rows: a node's tick, its frame of ten ticks, and what larger frames would have
_CALLS, _REPEATS = 100, 40


def run() -> dict[str, object]:
    """All sizes of one run as a document."""
    return {"columns": len(GPU.metrics), "row_bytes": _dtype().itemsize, "frames": [_measure(rows) for rows in SIZES]}


def _measure(count: int) -> dict[str, object]:
    rows = np.ones(count, _dtype())
    header = FrameHeader(layout_of(GPU).fingerprint, 1, 2, 3, 1, count, 4)
    layouts = {header.layout: layout_of(GPU)}
    value = encode_frame(header, rows)
    ways: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "encode": (lambda: encode_frame(header, rows), rows.tobytes),
        "decode": (lambda: decode_frame(value, layouts), lambda: _copied(value)),
    }
    return {"rows": count} | {name: _compare(*way) for name, way in ways.items()}


def _compare(work: Callable[[], object], copy: Callable[[], object]) -> dict[str, float]:
    work_us, copy_us = least_us(work), least_us(copy)
    return {
        "instructions": instructions_of(work),
        "us": round(work_us, 3),
        "copy_us": round(copy_us, 3),
        "times_the_copy": round(work_us / copy_us, 2),
    }


def instructions_of(work: Callable[[], object]) -> int:
    """How many instructions the interpreter runs, in all functions in Python below `work`."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:  # noqa: ANN401 - the shape of a trace function
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def least_us(work: Callable[[], object]) -> float:
    def once() -> float:
        started = time.process_time_ns()
        for _ in range(_CALLS):
            work()
        return (time.process_time_ns() - started) / _CALLS / 1000

    return min(once() for _ in range(_REPEATS))


def _copied(value: bytes) -> object:
    return np.frombuffer(value, np.uint8, offset=HEADER_BYTES).copy()


def _dtype() -> "np.dtype[np.void]":
    return row_type(layout_of(GPU))


def main() -> None:
    sys.stdout.write(json.dumps(run(), indent=1) + "\n")


if __name__ == "__main__":
    main()
