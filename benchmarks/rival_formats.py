"""The same quantised readings in the formats that VictoriaMetrics and Prometheus import.

A piece is the rows of one GPU over an hour at most, by time. Values go as the whole numbers that we store, without
their step: that is what both rivals compress best and parse fastest. An absent reading is in no format.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa  # type: ignore[import-untyped]
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from numpy.typing import NDArray

from catalogue import Metric
from stream.rows import Rows

PIECE_S = 3600


@dataclass(frozen=True, slots=True)
class Format:
    """How to hand a piece to VictoriaMetrics."""

    name: str
    path: str
    body: Callable[[Rows, Sequence[Metric]], bytes]
    query: Callable[[Sequence[Metric]], dict[str, str]] = lambda _: {}
    headers: dict[str, str] = field(default_factory=dict)
    takes_absent: bool = True  # VictoriaMetrics 1.79 drops a line of CSV in which a value is empty


def pieces(rows: Rows) -> Iterator[Rows]:
    """Hour by hour, and in each GPU by GPU."""
    hours = rows["time"] // PIECE_S
    ordered = rows[np.lexsort((rows["time"], rows["resource"], hours))]
    hours = ordered["time"] // PIECE_S
    is_next = (np.diff(ordered["resource"]) != 0) | (np.diff(hours) != 0)
    yield from np.split(ordered, np.flatnonzero(is_next) + 1)


def present(piece: Rows, metric: Metric) -> tuple[NDArray[Any], NDArray[np.uint32]]:
    """The counts of a metric, and their times in UTC seconds."""
    held = piece[metric.column] != metric.stored.absent
    return piece[metric.column][held], piece["time"][held]


def readings_of(piece: Rows, metrics: Sequence[Metric]) -> int:
    return sum(int((piece[metric.column] != metric.stored.absent).sum()) for metric in metrics)


def _gpu(piece: Rows) -> str:
    return f"{int(piece['resource'][0]):x}"


def _milliseconds(times_s: NDArray[np.uint32]) -> NDArray[np.int64]:
    return times_s.astype(np.int64) * 1000


def json_lines(piece: Rows, metrics: Sequence[Metric]) -> bytes:
    """One line a series."""
    lines = []
    for metric in metrics:
        counts, times = present(piece, metric)
        labels = {"__name__": metric.name, "gpu": _gpu(piece)}
        series = {"metric": labels, "values": counts.tolist(), "timestamps": _milliseconds(times).tolist()}
        lines.append(msgspec.json.encode(series))
    return b"\n".join(lines) + b"\n"


def csv(piece: Rows, metrics: Sequence[Metric]) -> bytes:
    """One line a row: the GPU, the time and all its readings."""
    columns = [pl.lit(_gpu(piece)).alias("gpu"), pl.Series("time", _milliseconds(piece["time"]))]
    for metric in metrics:
        counts = pl.Series(metric.name, np.ascontiguousarray(piece[metric.column]))
        columns.append(pl.when(counts != metric.stored.absent).then(counts).alias(metric.name))
    return pl.select(columns).write_csv(include_header=False).encode()


def _csv_query(metrics: Sequence[Metric]) -> dict[str, str]:
    described = [f"{place}:metric:{metric.name}" for place, metric in enumerate(metrics, start=3)]
    return {"format": ",".join(["1:label:gpu", "2:time:unix_ms", *described])}


def _text(piece: Rows, metric: Metric, *, times_in_ms: bool) -> bytes:
    counts, times = present(piece, metric)
    told = pl.Series(_milliseconds(times) if times_in_ms else times)
    series = pl.lit(f'{metric.name}{{gpu="{_gpu(piece)}"}} ')
    line = pl.concat_str(series, pl.Series(np.ascontiguousarray(counts)), pl.lit(" "), told)
    return pl.select(line).write_csv(include_header=False, quote_style="never").encode()


def prometheus_text(piece: Rows, metrics: Sequence[Metric]) -> bytes:
    """One line a reading, its time in milliseconds."""
    return b"".join(_text(piece, metric, times_in_ms=True) for metric in metrics)


def openmetrics_lines(piece: Rows, metric: Metric) -> bytes:
    """One line a reading, its time in seconds."""
    return _text(piece, metric, times_in_ms=False)


@cache
def write_request() -> type[Any]:
    """The message of Prometheus's remote write, version 1: series of labels and samples."""
    file = descriptor_pb2.FileDescriptorProto(name="remote_write.proto", package="prometheus", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto
    shapes = {
        "Label": [("name", kinds.TYPE_STRING, ""), ("value", kinds.TYPE_STRING, "")],
        "Sample": [("value", kinds.TYPE_DOUBLE, ""), ("timestamp", kinds.TYPE_INT64, "")],
        "TimeSeries": [("labels", kinds.TYPE_MESSAGE, "Label"), ("samples", kinds.TYPE_MESSAGE, "Sample")],
        "WriteRequest": [("timeseries", kinds.TYPE_MESSAGE, "TimeSeries")],
    }
    for name, fields in shapes.items():
        message = file.message_type.add(name=name)
        for number, (field_name, kind, of) in enumerate(fields, start=1):
            label = kinds.LABEL_REPEATED if of else kinds.LABEL_OPTIONAL
            told = message.field.add(name=field_name, number=number, type=kind, label=label)
            if of:
                told.type_name = f".prometheus.{of}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("prometheus.WriteRequest"))


def remote_write(piece: Rows, metrics: Sequence[Metric]) -> bytes:
    """A protobuf message, compressed by Snappy."""
    request = write_request()()
    for metric in metrics:
        series = request.timeseries.add()
        for name, value in (("__name__", metric.name), ("gpu", _gpu(piece))):
            series.labels.add(name=name, value=value)
        counts, times = present(piece, metric)
        for count, time_ms in zip(counts.tolist(), _milliseconds(times).tolist(), strict=True):
            series.samples.add(value=count, timestamp=time_ms)
    compressed = pa.compress(request.SerializeToString(), codec="snappy", asbytes=True)
    return bytes(compressed)


_REMOTE_WRITE_HEADERS = {
    "Content-Encoding": "snappy",
    "Content-Type": "application/x-protobuf",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
FORMATS = (
    Format("JSON lines", "/api/v1/import", json_lines),
    Format("CSV", "/api/v1/import/csv", csv, _csv_query, takes_absent=False),
    Format("Prometheus text", "/api/v1/import/prometheus", prometheus_text),
    Format("remote write", "/api/v1/write", remote_write, headers=_REMOTE_WRITE_HEADERS),
)
