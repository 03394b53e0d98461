"""Rows: readings as a packed numpy array, at once the frame's payload and ClickHouse RowBinary."""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalogue import Layout, Metric, Table, layout_of

# Quantised at once: some numpy calls for all metrics of a few rows, and for many rows no more than a cache holds.
BLOCK_VALUES = 1 << 14

# A structured array: numpy has no static type for its fields.
Rows = NDArray[np.void]


@cache
def row_type(layout: Layout) -> np.dtype[np.void]:
    """The packed little-endian row type of a layout."""
    return np.dtype(layout.description)


@cache
def _blank_row(table: Table) -> np.ndarray[Any, np.dtype[np.void]]:
    blank = np.zeros(1, dtype=row_type(layout_of(table)))
    for metric in table.metrics:
        blank[metric.column] = metric.stored.absent
    return blank


def absent_rows(table: Table, count: int) -> Rows:
    """`count` rows of the table in which every metric is absent; resource and time are 0."""
    return np.repeat(_blank_row(table), count)


@cache
def _step(metric: Metric) -> tuple[float, float, float]:
    """Counts in one base unit, and the bounds of the counts that the stored type holds: [lowest, end)."""
    # The end is beyond the highest, not at it: the highest 64-bit counts are no floats, and would be rounded up to one
    # that does not fit.
    return float(1 / metric.resolution), float(metric.stored.lowest), float(metric.stored.highest + 1)


def _quantise(rows: Rows, metrics: Sequence[Metric], columns: Sequence[ArrayLike]) -> None:
    """Write columns in their metrics' base units into `rows`, where these metrics are absent.

    This is the one place where a reading is scaled. NaN stays absent, and so does a value outside what the stored type
    can hold: a wrong reading is worse than none.
    """
    values = np.empty((len(metrics), len(rows)))
    for place, column in zip(values, columns, strict=True):
        place[:] = column
    counts_per_unit, lowest, end = np.array([_step(metric) for metric in metrics]).T[:, :, np.newaxis]
    counts = np.rint(values * counts_per_unit)
    held = (counts >= lowest) & (counts < end)
    for metric, its_counts, is_held in zip(metrics, counts, held, strict=True):
        np.copyto(rows[metric.column], its_counts, casting="unsafe", where=is_held)


def pack(table: Table, resources: ArrayLike, times_s: ArrayLike, values: Mapping[str, ArrayLike]) -> Rows:
    """Rows of `table` from columns in base units.

    `resources` (uint64 ids) and `times_s` (UTC seconds) have shape (n,) or broadcast to it; `values`
    maps metric names to arrays that do too. A metric that is not given is absent; NaN is absent;
    a name that the table does not have is a KeyError.
    """
    ids, times = np.asarray(resources, dtype="<u8"), np.asarray(times_s, dtype="<u4")
    shape = np.broadcast(ids, times).shape
    rows = absent_rows(table, math.prod(shape))
    rows["resource"].reshape(shape)[...] = ids
    rows["time"].reshape(shape)[...] = times
    metrics, columns = [table.metric(name) for name in values], list(values.values())
    together = max(BLOCK_VALUES // max(len(rows), 1), 1)
    for start in range(0, len(metrics), together):
        _quantise(rows, metrics[start : start + together], columns[start : start + together])
    return rows


def join_rows(parts: Sequence[Rows]) -> Rows:
    """The rows of all parts, which have one row type, as one array.

    As bytes: numpy's own concatenate compares field by field, which takes longer than the copy.
    """
    if len(parts) == 1:
        return parts[0]
    return np.frombuffer(b"".join([part.tobytes() for part in parts]), dtype=parts[0].dtype)


def in_base_unit(metric: Metric, rows: Rows) -> NDArray[np.float64]:
    """A column of `rows` in the metric's base unit, NaN where absent."""
    counts = rows[metric.column]
    scale = metric.resolution
    # Multiply and divide by whole numbers, as the ALIAS columns do: the same reading is the same float.
    return np.where(counts == metric.stored.absent, np.nan, counts * float(scale.numerator) / scale.denominator)
