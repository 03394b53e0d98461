"""A backlog as a site leaves it: the simulator's own readings, framed as agents frame them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from catalogue import GPU, layout_of
from collectors.framer import Framer, FrameRule
from collectors.simulator import SimulatorSource
from collectors.spool import Outgoing
from simulation import Simulation, Site
from stream.client import KafkaAddress
from stream.clock import SystemClock
from stream.frame import HEADER_BYTES
from stream.publish import Publisher
from stream.rows import Rows, row_type


@dataclass(frozen=True, slots=True)
class Backlog:
    """GPU frames of a simulated site: `gpus` for `seconds`, `ticks` in a frame."""

    frames: list[Outgoing]
    rows: int
    readings: int  # present values of metrics

    def publish(self, address: KafkaAddress, *, compression: str = "zstd") -> None:
        """Put the whole backlog on its topic."""
        publish_frames(self.frames, address, compression=compression)

    def blocks(self, rows: int) -> Iterator[Rows]:
        """The same rows in arrays of about `rows`, in the order in which they were published."""
        dtype, waiting, count = row_type(layout_of(GPU)), [], 0
        for frame in self.frames:
            waiting.append(memoryview(frame.value)[HEADER_BYTES:])
            count += frame.rows
            if count >= rows:
                yield np.frombuffer(b"".join(waiting), dtype=dtype)
                waiting, count = [], 0
        if waiting:
            yield np.frombuffer(b"".join(waiting), dtype=dtype)


def publish_frames(frames: Sequence[Outgoing], address: KafkaAddress, *, compression: str = "zstd") -> None:
    """Put frames on their topics; returns when the broker has them all, and raises its first refusal."""
    publisher = Publisher(address, compression=compression)
    errors: list[Exception] = []
    for frame in frames:
        publisher.publish(frame.topic, frame.source, frame.value, acknowledged=lambda _: None, failed=errors.append)
    publisher.flush(timeout_s=120.0)
    publisher.close()
    if errors:
        raise errors[0]


def make_backlog(*, gpus: int, seconds: int, ticks: int) -> Backlog:
    """Simulate the site up to now; the last reading is some seconds old."""
    clock = SystemClock()
    start_s = clock.utc_ms() // 1000 - seconds - 10
    source = SimulatorSource(Simulation(Site.build(gpus, 1), start_s - 3600, seed=1))
    framer = Framer(FrameRule(ticks, span_s=3600), epoch_ms=clock.utc_ms(), clock=clock)
    frames = [
        frame
        for time_s in range(start_s, start_s + seconds)
        for reading in source.read(time_s)
        if reading.table is GPU
        for frame in framer.add(reading, interval_s=1)
    ]
    rows = sum(frame.rows for frame in frames)
    return Backlog(frames, rows, _present_readings(frames))


def _present_readings(frames: list[Outgoing]) -> int:
    dtype = row_type(layout_of(GPU))
    rows = np.frombuffer(b"".join(memoryview(f.value)[HEADER_BYTES:] for f in frames), dtype=dtype)
    return sum(int((rows[m.column] != m.stored.absent).sum()) for m in GPU.metrics)
