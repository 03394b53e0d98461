"""Bytes on disk and processor time per reading: our tables, VictoriaMetrics and Prometheus, fed the same readings.

The readings are those of the simulated site's noisiest columns of table `gpu`: the 24 whose differences from one
second to the next, within a GPU, have the highest entropy in this very data. What is absent is absent everywhere.

- Ours: `storage.writer`, as in ingest, blocks of rows as agents publish them, the one-minute rollup included. Bytes are
  those of the columns after all merges and OPTIMIZE FINAL; beside them the same with the key (`resource`, `time`) on
  these 24 columns alone. The processor time is that of engine and client together: they are one process. It is also
  measured with full rows, as a site writes them.
- VictoriaMetrics: every import format is tried on a part of the readings, and the one that costs its server least takes
  them all. Its native format, which only another VictoriaMetrics writes, is measured too, on all of them, and counts as
  a format. Bytes are those of its `data` folder after a forced merge, its index apart. Processor time is the server's
  until it has flushed and merges no more, the client's apart.
- Prometheus: `promtool tsdb create-blocks-from openmetrics`, on as many GPUs as make five million readings.

Run: `python -m benchmarks.rivals [gpus] [seconds]`.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import TypeVar

import numpy as np
import requests
from clickhouse_connect.driver.client import Client

from benchmarks.ingest_drain import Meter, empty_store, wait_for_merges
from benchmarks.load import make_backlog
from benchmarks.rival_formats import FORMATS, Format, openmetrics_lines, pieces, present, readings_of
from benchmarks.samples import BLOCK_ROWS
from catalogue import GPU, Metric
from kvandal.store import write_blocks_to_memory
from storage.client import connect
from storage.writer import Writer
from stream.rows import Rows, absent_rows, join_rows
from tests.servers.kafka import ServerFailed, ServerUnavailable
from tests.servers.prometheus import promtool
from tests.servers.victoria_metrics import VictoriaMetrics, ensure_victoria_metrics, package_version

GPUS, SECONDS = 96, 3 * 3600
COLUMNS = 24
TRIAL_READINGS = 1_500_000  # of each format: two seconds of the slowest
PROMETHEUS_READINGS = 5_000_000  # promtool reads the whole text once for every two hours in it
T = TypeVar("T")
NATIVE = Format("native", "/api/v1/import/native", lambda *_: b"")
# What is to be reached: docs/performance.md.
BYTES_GOAL, BYTES_RATIO_GOAL, PROCESSOR_RATIO_GOAL = 0.60, 0.75, 1 / 8


@dataclass(frozen=True, slots=True)
class Data:
    """What everybody stores: `metrics` of `rows`, everything else in the rows absent."""

    rows: Rows
    metrics: tuple[Metric, ...]
    entropies_bits: tuple[float, ...]
    readings: int

    @property
    def is_complete(self) -> bool:
        """Nothing is absent."""
        return self.readings == len(self.rows) * len(self.metrics)

    @property
    def end_s(self) -> int:
        return int(self.rows["time"].max())

    @property
    def span_s(self) -> int:
        return self.end_s - int(self.rows["time"].min()) + 1


@dataclass(frozen=True, slots=True)
class Stored:
    """What it cost somebody to store `readings`."""

    readings: int
    bytes_on_disk: int
    server_s: float
    merge_s: float = 0.0  # of one merge of everything, after that

    @property
    def bytes_per_reading(self) -> float:
        return self.bytes_on_disk / self.readings

    @property
    def processor_s_per_reading(self) -> float:
        return self.server_s / self.readings

    def document(self) -> dict[str, object]:
        return {
            "readings": self.readings,
            "bytes_per_reading": round(self.bytes_per_reading, 4),
            "processor_ns_per_reading": _nanoseconds(self.processor_s_per_reading),
            "forced_merge_processor_ns_per_reading": _nanoseconds(self.merge_s / self.readings),
        }


@dataclass(frozen=True, slots=True)
class Ours:
    """In our tables."""

    stored: Stored
    key_bytes: int
    full_rows_s_per_reading: float

    @property
    def bytes_per_reading_with_key(self) -> float:
        return (self.stored.bytes_on_disk + self.key_bytes) / self.stored.readings

    def document(self) -> dict[str, object]:
        return {
            **self.stored.document(),
            "bytes_per_reading_with_key": round(self.bytes_per_reading_with_key, 4),
            "full_rows_processor_ns_per_reading": _nanoseconds(self.full_rows_s_per_reading),
        }


@dataclass(frozen=True, slots=True)
class Rival:
    """In another program, whose client is apart."""

    stored: Stored
    client_s: float
    index_bytes: int

    def document(self) -> dict[str, object]:
        return {
            **self.stored.document(),
            "index_bytes_per_reading": round(self.index_bytes / self.stored.readings, 4),
            "client_processor_ns_per_reading": _nanoseconds(self.client_s / self.stored.readings),
        }


@dataclass(frozen=True, slots=True)
class VictoriaMeasured:
    """All its formats on a part, and two on everything: the best that a producer can write, and its own."""

    version: str
    trials: dict[str, Stored]
    fastest: str
    best: Rival
    native: Rival

    def document(self) -> dict[str, object]:
        trials = {name: _nanoseconds(stored.processor_s_per_reading) for name, stored in self.trials.items()}
        native = self.native.document()
        return {
            "version": self.version, "trial_processor_ns_per_reading": trials, "format": self.fastest,
            **self.best.document(), "native": native,
        }  # fmt: skip


def _nanoseconds(seconds: float) -> float:
    return round(seconds * 1e9, 2)


def run(*, gpus: int = GPUS, seconds: int = SECONDS) -> dict[str, object]:
    """All measurements of one run as a document."""
    disk = tempfile.gettempdir()  # asked first: the next line is about the small files of the client library
    write_blocks_to_memory()
    full = join_rows(list(make_backlog(gpus=gpus, seconds=seconds, ticks=10).blocks(BLOCK_ROWS)))
    data = _noisiest(full)
    with tempfile.TemporaryDirectory(dir=disk) as folder:
        work = Path(folder)
        ours = _ours(data, full, work)
        victoria = _or_why_not(lambda: _victoria_metrics(data, work))
        prometheus = _or_why_not(lambda: _prometheus(data, work))
    return {
        "gpus": len(np.unique(full["resource"])),
        "seconds": seconds,
        "readings": data.readings,
        "entropy_bits": {m.name: round(e, 2) for m, e in zip(data.metrics, data.entropies_bits, strict=True)},
        "ours": ours.document(),
        "victoria_metrics": {"not_measured": victoria} if isinstance(victoria, str) else victoria.document(),
        "prometheus": {"not_measured": prometheus} if isinstance(prometheus, str) else prometheus,
        "goals": _goals(ours, None if isinstance(victoria, str) else victoria),
    }


def _or_why_not(measure: Callable[[], T]) -> T | str:
    """What was measured, or why it could not be: the others' figures stand without it."""
    try:
        return measure()
    except (ServerUnavailable, ServerFailed, subprocess.TimeoutExpired, requests.RequestException) as error:
        return str(error)


# The data


def _noisiest(full: Rows) -> Data:
    series = list(pieces(full))
    entropies = {metric: _entropy_bits(series, metric) for metric in GPU.metrics}
    chosen = sorted(GPU.metrics, key=lambda metric: -entropies[metric])[:COLUMNS]
    rows = absent_rows(GPU, len(full))
    for name in ("resource", "time", *(metric.column for metric in chosen)):
        rows[name] = full[name]
    return Data(rows, tuple(chosen), tuple(entropies[m] for m in chosen), readings_of(rows, chosen))


def _entropy_bits(series: Sequence[Rows], metric: Metric) -> float:
    """Shannon's, of the differences between neighbouring readings of a GPU within an hour; their weighted mean."""
    bits, differences = 0.0, 0
    for piece in series:
        steps = np.diff(present(piece, metric)[0].astype(np.int64))
        if len(steps):
            counts = np.unique(steps, return_counts=True)[1]
            bits -= float((counts * np.log2(counts / len(steps))).sum())
            differences += len(steps)
    return bits / differences if differences else 0.0


# Ours


def _ours(data: Data, full: Rows, work: Path) -> Ours:
    with empty_store(work / "ours") as address, closing(connect(address)) as client:
        stored, key_bytes = _columns_on_disk(client, data, _insert(client, data.rows))
    with empty_store(work / "full") as address, closing(connect(address)) as client:
        full_s = _insert(client, full)
    return Ours(stored, key_bytes, full_s / readings_of(full, GPU.metrics))


def _insert(client: Client, rows: Rows) -> float:
    """Processor seconds of this process until all rows are stored and nothing merges."""
    writer, meter = Writer(client), Meter()
    for start in range(0, len(rows), BLOCK_ROWS):
        writer.insert_rows("gpu", rows[start : start + BLOCK_ROWS], token=str(start))
    wait_for_merges(client)
    return meter.processor_s()


def _columns_on_disk(client: Client, data: Data, processor_s: float) -> tuple[Stored, int]:
    """What the columns take after one merge of everything, and the bytes of the key."""
    # A small run's parts would be compact, of which the engine does not say what a column takes.
    client.command("ALTER TABLE gpu MODIFY SETTING min_bytes_for_wide_part = 0")
    meter = Meter()
    client.command("OPTIMIZE TABLE gpu FINAL")
    told = client.query(
        "SELECT column, sum(column_bytes_on_disk) FROM system.parts_columns "
        "WHERE database = currentDatabase() AND table = 'gpu' AND active GROUP BY column"
    )
    sizes: dict[str, int] = {column: taken for column, taken in told.result_rows}  # noqa: C416 - rows are lists
    rows = client.query("SELECT count() FROM gpu").result_rows[0][0]
    assert rows == len(data.rows), f"{len(data.rows)} rows inserted, {rows} stored"
    taken = sum(sizes[metric.column] for metric in data.metrics)
    stored = Stored(data.readings, taken, processor_s, meter.processor_s())
    return stored, sizes["resource"] + sizes["time"]


# VictoriaMetrics


def _victoria_metrics(data: Data, work: Path) -> VictoriaMeasured:
    ensure_victoria_metrics(fetch=True)
    part = _first(data, TRIAL_READINGS)
    forms = [form for form in FORMATS if form.takes_absent or data.is_complete]
    trials = {form.name: _trial(form, part, data, work / f"trial-{number}") for number, form in enumerate(forms)}
    fastest = min(forms, key=lambda form: trials[form.name].server_s)
    with VictoriaMetrics(directory=work / "victoria") as server:
        bodies = (fastest.body(piece, data.metrics) for piece in pieces(data.rows))
        best = _measure(server, fastest, bodies, data, data.readings)
        exported = server.export_native()
    with VictoriaMetrics(directory=work / "native") as server:
        native = _measure(server, NATIVE, [exported], data, data.readings)
    return VictoriaMeasured(package_version(), trials, fastest.name, best, native)


def _first(data: Data, readings: int) -> list[Rows]:
    """The first pieces, of so many readings in all."""
    first: list[Rows] = []
    for piece in pieces(data.rows):
        if readings <= 0:
            break
        first.append(piece)
        readings -= readings_of(piece, data.metrics)
    return first


def _trial(form: Format, part: list[Rows], data: Data, folder: Path) -> Stored:
    """The cheaper of two: one that the machine disturbs must not hide the format that costs the server least."""
    readings = sum(readings_of(piece, data.metrics) for piece in part)

    def once(number: int) -> Stored:
        with VictoriaMetrics(directory=folder / str(number)) as server:
            return _measure(server, form, (form.body(piece, data.metrics) for piece in part), data, readings).stored

    return min((once(number) for number in range(2)), key=lambda stored: stored.server_s)


def _measure(server: VictoriaMetrics, form: Format, bodies: Iterable[bytes], data: Data, readings: int) -> Rival:
    """Feed it the bodies, and look at what it costs and takes. All readings must be there."""
    meter, before_s = Meter(), server.processor_s()
    for body in bodies:
        server.send(form.path, body, query=form.query(data.metrics), headers=form.headers)
    client_s = meter.processor_s()
    server.settle()
    server_s = server.processor_s() - before_s
    server.merge()
    merge_s = server.processor_s() - before_s - server_s
    counted = server.count(until_s=data.end_s, span_s=data.span_s)
    assert counted == readings, f"VictoriaMetrics: {readings} readings sent as {form.name}, {counted} stored"
    folder = server.data_path
    stored = Stored(readings, _bytes_under(folder / "data"), server_s, merge_s)
    return Rival(stored, client_s, _bytes_under(folder / "indexdb"))


def _bytes_under(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


# Prometheus


def _prometheus(data: Data, work: Path) -> dict[str, object]:
    gpus = np.unique(data.rows["resource"])
    count = max(1, min(len(gpus), PROMETHEUS_READINGS * len(gpus) // data.readings))
    part = data.rows[np.isin(data.rows["resource"], gpus[:count])]
    text, blocks = work / "readings.om", work / "blocks"
    meter = Meter()
    with text.open("wb") as file:
        file.writelines(_openmetrics(part, data.metrics))
    client_s, before_s = meter.processor_s(), _children_s()
    done = promtool("tsdb", "create-blocks-from", "openmetrics", "--quiet", str(text), str(blocks))
    if done.returncode != 0:
        raise ServerFailed(f"promtool: {done.stderr.strip()[-300:]}")
    chunks = sum(_bytes_under(folder) for folder in blocks.glob("*/chunks"))
    index = _bytes_under(blocks) - chunks
    stored = Stored(readings_of(part, data.metrics), chunks, _children_s() - before_s)
    version = promtool("--version").stdout.split()[2]
    return {"version": version, "gpus": count, **Rival(stored, client_s, index).document()}


def _openmetrics(part: Rows, metrics: Sequence[Metric]) -> Iterator[bytes]:
    """A family of metrics has all its lines together."""
    series = list(pieces(part))
    yield from (openmetrics_lines(piece, metric) for metric in metrics for piece in series)
    yield b"# EOF\n"


def _children_s() -> float:
    usage = getrusage(RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


# Goals


def _goals(ours: Ours, victoria: VictoriaMeasured | None) -> dict[str, object]:
    """Each ratio is to VictoriaMetrics at its best; beside the processor's, that to the native format."""
    goals: dict[str, object] = {"bytes_per_reading": _goal(ours.stored.bytes_per_reading, BYTES_GOAL)}
    if victoria is None:
        return goals
    least = min(victoria.best.stored.bytes_per_reading, victoria.native.stored.bytes_per_reading)
    processor_s, key = ours.stored.processor_s_per_reading, ours.bytes_per_reading_with_key
    best, native = victoria.best.stored.processor_s_per_reading, victoria.native.stored.processor_s_per_reading
    return {
        **goals,
        "bytes_to_victoria_metrics": _goal(ours.stored.bytes_per_reading / least, BYTES_RATIO_GOAL),
        "bytes_with_key_to_victoria_metrics": _goal(key / least, BYTES_RATIO_GOAL),
        "processor_to_victoria_metrics": _goal(processor_s / best, PROCESSOR_RATIO_GOAL),
        "processor_full_rows_to_victoria_metrics": _goal(ours.full_rows_s_per_reading / best, PROCESSOR_RATIO_GOAL),
        "processor_to_victoria_metrics_native": _goal(processor_s / native, PROCESSOR_RATIO_GOAL),
    }


def _goal(measured: float, at_most: float) -> dict[str, object]:
    return {"measured": round(measured, 4), "at_most": at_most, "reached": measured <= at_most}


def main() -> None:
    match sys.argv[1:]:
        case []:
            document = run()
        case [gpus]:
            document = run(gpus=int(gpus))
        case [gpus, seconds]:
            document = run(gpus=int(gpus), seconds=int(seconds))
        case _:
            sys.exit("usage: python -m benchmarks.rivals [gpus] [seconds]")
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
