"""Compression on the wire: bytes and processor time of a frame, under each that the broker's client offers here.

The client's own record batches, without a broker: made as a producer makes them, read as a consumer reads them. Each
frame in a batch of its own, as one agent sends it every ten seconds; and as many as fit together, as a gateway or a
catching-up agent sends them. Frames are those of a tray's four GPUs, and of this machine as source `host` reads it.
Snappy is left out: no dependency of ours brings it.

Run: `python -m benchmarks.wire_compression`.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder  # type: ignore[import-untyped]

from benchmarks.load import make_backlog
from benchmarks.samples import this_machine
from catalogue import TRAY
from kvandal.settings import KafkaSettings
from stream.frame import seal

GPUS, SECONDS, HOST_S = 1_000, 60, 60.0
TICKS = 10
CODECS = {"none": 0, "gzip": 1, "lz4": 3, "zstd": 4}  # the protocol's own numbers
_BATCH_BYTES = 256 << 10  # of our producers: stream/client.py
_REPEATS = 3
_Made = TypeVar("_Made")


def run(*, gpus: int = GPUS, seconds: int = SECONDS, host_s: float = HOST_S) -> dict[str, object]:
    """All measurements of one run as a document."""
    samples = {
        "gpu": [frame.value for frame in make_backlog(gpus=gpus, seconds=seconds, ticks=TICKS).frames],
        "host": list(_host_frames(host_s)),
    }
    return {
        "default": KafkaSettings().compression,
        "frames": {
            name: {
                "count": len(frames),
                "bytes_per_frame": round(sum(map(len, frames)) / len(frames), 1),
                "alone": [_measure(codec, frames, 1) for codec in CODECS],
                "together": [_measure(codec, frames, _BATCH_BYTES // len(frames[0])) for codec in CODECS],
            }
            for name, frames in samples.items()
        },
    }


def _host_frames(seconds: float) -> Iterator[bytes]:
    rows = this_machine(seconds)
    for start in range(0, len(rows) - TICKS + 1, TICKS):
        part = rows[start : start + TICKS]
        yield seal(TRAY, part, source=1, epoch_ms=1, sequence=start, ticks=TICKS, sent_ms=int(time.time() * 1000))


def _measure(codec: str, frames: Sequence[bytes], per_batch: int) -> dict[str, object]:
    groups = [frames[start : start + per_batch] for start in range(0, len(frames), per_batch)]
    write_s, batches = _least_s(lambda: [_write(codec, group) for group in groups])
    read_s, read = _least_s(lambda: sum(_read(batch) for batch in batches))
    if read != sum(map(len, frames)):
        raise AssertionError(f"{codec}: {read} bytes came back")
    return {
        "compression": codec,
        "frames_per_batch": per_batch,
        "bytes_per_frame": round(sum(map(len, batches)) / len(frames), 1),
        "write_processor_us_per_frame": round(write_s / len(frames) * 1e6, 1),
        "read_processor_us_per_frame": round(read_s / len(frames) * 1e6, 1),
    }


def _write(codec: str, frames: Sequence[bytes]) -> bytes:
    batch = MemoryRecordsBuilder(2, CODECS[codec], 2 * _BATCH_BYTES)
    for frame in frames:
        if batch.append(timestamp=0, key=b"eight by", value=frame) is None:
            raise AssertionError("the batch is full")
    batch.close()
    return bytes(batch.buffer())


def _read(batch: bytes) -> int:
    """Bytes of all values, each of them looked at."""
    records, size = MemoryRecords(batch), 0
    while records.has_next():
        size += sum(len(record.value) for record in records.next_batch())
    return size


def _least_s(work: Callable[[], _Made]) -> tuple[float, _Made]:
    """Processor seconds, the least of some tries, and what was made."""

    def once() -> tuple[float, _Made]:
        started_s = time.process_time()
        made = work()
        return time.process_time() - started_s, made

    return min((once() for _ in range(_REPEATS)), key=lambda measured: measured[0])


def main() -> None:
    sys.stdout.write(json.dumps(run(), indent=1) + "\n")


if __name__ == "__main__":
    main()
