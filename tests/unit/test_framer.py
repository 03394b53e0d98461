"""Frames: when they are full, and how ticks are numbered."""

import numpy as np

from catalogue import GPU
from collectors.framer import Framer, FrameRule
from collectors.source import Reading
from stream.frame import decode_header
from stream.rows import pack
from tests.servers.agent_fakes import FakeClock

HOUR_S = 1_760_000_400  # a whole hour


def frames_of(rule: FrameRule, times_s: range) -> list[tuple[int, int, int]]:
    """First second, first sequence number and ticks of each frame that these ticks of one GPU fill."""
    framer = Framer(rule, epoch_ms=1, clock=FakeClock())
    sealed = []
    for time_s in times_s:
        reading = Reading(1, GPU, pack(GPU, np.array([7]), time_s, {"power_watts": 500.0}))
        sealed += list(framer.add(reading, interval_s=1))
    sealed += list(framer.flush())
    headers = [decode_header(out.value) for out in sealed]
    return [(out.first_time, head.sequence, head.ticks) for out, head in zip(sealed, headers, strict=True)]


def test_a_frame_is_full_after_so_many_ticks() -> None:
    first_s = HOUR_S + 5
    assert frames_of(FrameRule(ticks=10, span_s=60), range(first_s, first_s + 25)) == [
        (first_s, 0, 10), (first_s + 10, 10, 10), (first_s + 20, 20, 5),
    ]  # fmt: skip


def test_no_frame_crosses_the_hour() -> None:
    first_s = HOUR_S - 4
    assert frames_of(FrameRule(ticks=10, span_s=60), range(first_s, first_s + 14)) == [
        (first_s, 0, 4), (HOUR_S, 4, 10),
    ]  # fmt: skip
