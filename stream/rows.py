"""Rows: readings as a packed numpy array, at once the frame's payload and ClickHouse RowBinary."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catalogue import Layout, Metric, Table, layout_of

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


def quantise(metric: Metric, values: ArrayLike) -> NDArray[np.integer[Any]]:
    """Values in the metric's base unit as stored counts; NaN becomes absent.

    This is the one place where a reading is scaled. A value outside what the stored type can hold
    is absent too: a wrong reading is worse than none.
    """
    counts_per_unit, lowest, end = _step(metric)
    counts = np.rint(np.asarray(values, dtype=np.float64) * counts_per_unit)
    held = (counts >= lowest) & (counts < end)
    if held.all():  # as good as always
        return counts.astype(metric.stored.numpy)
    quantised: NDArray[np.integer[Any]] = np.full(counts.shape, metric.stored.absent, dtype=metric.stored.numpy)
    quantised[held] = counts[held].astype(metric.stored.numpy)
    return quantised


def pack(table: Table, resources: ArrayLike, times_s: ArrayLike, values: Mapping[str, ArrayLike]) -> Rows:
    """Rows of `table` from columns in base units.

    `resources` (uint64 ids) and `times_s` (UTC seconds) have shape (n,) or broadcast to it; `values`
    maps metric names to arrays that do too. A metric that is not given is absent; NaN is absent;
    a name that the table does not have is a KeyError.
    """
    ids, times = np.broadcast_arrays(np.asarray(resources, dtype="<u8"), np.asarray(times_s, dtype="<u4"))
    rows = absent_rows(table, ids.size)
    rows["resource"] = ids.ravel()
    rows["time"] = times.ravel()
    for name, column in values.items():
        metric = table.metric(name)
        rows[metric.column] = quantise(metric, column)
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
