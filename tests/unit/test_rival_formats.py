"""The benchmark's rivals are told the same readings as our tables, in every format, and no absent one."""

import json
from collections.abc import Callable, Iterator

import numpy as np
import polars as pl
import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import rival_formats
from catalogue import GPU
from stream.rows import Rows, absent_rows

Reading = tuple[str, str, int, float]  # metric, GPU, milliseconds, count
POWER, TEMPERATURE = GPU.metric("power_watts"), GPU.metric("temperature_celsius")
METRICS = (POWER, TEMPERATURE)
NOON_S = 1_800_014_400
TOLD: set[Reading] = {
    ("power_watts", "a", NOON_S * 1000, 7005.0),
    ("power_watts", "a", (NOON_S + 1) * 1000, 7011.0),
    ("temperature_celsius", "a", NOON_S * 1000, 61.0),
}


@pytest.fixture
def piece() -> Rows:
    """Two seconds of one GPU, whose temperature is absent in the second."""
    rows = absent_rows(GPU, 2)
    rows["resource"] = 10
    rows["time"] = [NOON_S, NOON_S + 1]
    rows[POWER.column] = [7005, 7011]
    rows[TEMPERATURE.column][0] = 61
    return rows


def _from_json(body: bytes) -> Iterator[Reading]:
    for line in body.splitlines():
        series = json.loads(line)
        labels = series["metric"]
        for time_ms, value in zip(series["timestamps"], series["values"], strict=True):
            yield labels["__name__"], labels["gpu"], time_ms, float(value)


def _from_csv(body: bytes) -> Iterator[Reading]:
    table = pl.read_csv(body, has_header=False)
    for gpu, time_ms, *counts in table.iter_rows():
        for metric, count in zip(METRICS, counts, strict=True):
            if count is not None:
                yield metric.name, gpu, time_ms, float(count)


def _from_text(body: bytes) -> Iterator[Reading]:
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            assert sample.timestamp is not None
            yield sample.name, sample.labels["gpu"], round(float(sample.timestamp) * 1000), sample.value


def _from_remote_write(body: bytes) -> Iterator[Reading]:
    length = _varint(body)
    request = rival_formats.write_request()()
    request.ParseFromString(pa.decompress(body, decompressed_size=length, codec="snappy", asbytes=True))
    for series in request.timeseries:
        labels = {label.name: label.value for label in series.labels}
        for sample in series.samples:
            yield labels["__name__"], labels["gpu"], sample.timestamp, sample.value


def _varint(body: bytes) -> int:
    """Snappy's first bytes: how long the text was."""
    length = 0
    for place, byte in enumerate(body):
        length |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            break
    return length


READERS: dict[str, Callable[[bytes], Iterator[Reading]]] = {
    "JSON lines": _from_json,
    "CSV": _from_csv,
    "Prometheus text": _from_text,
    "remote write": _from_remote_write,
}


@pytest.mark.parametrize("form", rival_formats.FORMATS, ids=lambda form: form.name)
def test_a_format_tells_what_is_present_and_nothing_else(form: rival_formats.Format, piece: Rows) -> None:
    readings = list(READERS[form.name](form.body(piece, METRICS)))

    assert set(readings) == TOLD
    assert len(readings) == len(TOLD) == rival_formats.readings_of(piece, METRICS)


def test_openmetrics_has_seconds(piece: Rows) -> None:
    assert (
        rival_formats.openmetrics_lines(piece, TEMPERATURE) == f'temperature_celsius{{gpu="a"}} 61 {NOON_S}\n'.encode()
    )


def test_pieces_are_hours_of_single_gpus_by_time() -> None:
    rows = absent_rows(GPU, 6)
    rows["resource"] = [2, 1, 2, 1, 2, 1]
    rows["time"] = [NOON_S - 1, NOON_S + 1, NOON_S, NOON_S - 1, NOON_S + 1, NOON_S]

    pieces = list(rival_formats.pieces(rows))

    assert [(set(p["resource"].tolist()), (p["time"].astype(int) - NOON_S).tolist()) for p in pieces] == [
        ({1}, [-1]), ({2}, [-1]), ({1}, [0, 1]), ({2}, [0, 1]),
    ]  # fmt: skip
    assert np.concatenate(pieces).size == rows.size
