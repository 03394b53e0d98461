"""Breaks one frame on purpose, to show that the demo's count would notice."""

from collections.abc import Sequence
from enum import StrEnum

import numpy as np

from stream.ingest import Insert, Writer
from stream.rows import Rows


class Fault(StrEnum):
    DROP = "drop"
    DOUBLE = "double"


class FaultyWriter:
    """A writer that once loses, or once writes twice, the first frame of the first insert into `table`."""

    def __init__(self, writer: Writer, fault: Fault, *, table: str = "gpu") -> None:
        self._writer = writer
        self._fault = fault
        self._table = table
        self._done = False

    def encode_rows(self, table: str, rows: Rows) -> Insert:
        whole = self._writer.encode_rows(table, rows)

        def insert(token: str) -> None:
            if table != self._table or self._done:
                whole(token)
                return
            first = _first_frame_rows(rows)
            if self._fault is Fault.DROP:
                self._writer.encode_rows(table, rows[first:])(token)
            else:
                whole(token)
                self._writer.encode_rows(table, rows[:first])(f"{token}/fault")
            self._done = True

        return insert

    def insert_messages(self, table: str, lines: Sequence[bytes], *, token: str) -> None:
        self._writer.insert_messages(table, lines, token=token)


def _first_frame_rows(rows: Rows) -> int:
    """How many rows the first frame has: within a frame time never goes back."""
    goes_back = np.flatnonzero(np.diff(rows["time"].astype(np.int64)) < 0)
    return int(goes_back[0]) + 1 if len(goes_back) else len(rows)
