"""Runs a target on mutated inputs and keeps account of crashes and hangs."""

import random
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import msgspec

from tests.fuzz.target import Target

# One input may take this long: of the processor, since the machine may be busy, or waiting for what never comes.
HANG_S = 1.0
WAITING_S = 10.0
_LONGEST = 1 << 16
_MOST_KEPT = 5  # inputs of one kind of crash


class Finding(msgspec.Struct, frozen=True):
    """An input that did what no input may: where, what it said, and the input itself."""

    kind: str
    place: str
    value: bytes


class Tally(msgspec.Struct):
    """What came of the inputs so far."""

    target: str
    engine: str
    inputs: int = 0
    corpus: int = 0
    crashes: int = 0
    hangs: int = 0
    slowest_s: float = 0.0
    seconds: float = 0.0
    findings: list[Finding] = msgspec.field(default_factory=list)


@dataclass(slots=True)
class Recorder:
    """Hands inputs to a target and notes what it does with them."""

    target: Target
    tally: Tally
    started_s: float = field(default_factory=time.monotonic)

    def try_input(self, value: bytes) -> None:
        before_s, waiting_s = time.thread_time(), time.monotonic()
        try:
            self.target.read(value)
        except Exception as error:
            self.tally.crashes += 1
            self._keep(Finding(type(error).__name__, _place_of(error), value))
        took_s = time.thread_time() - before_s
        if took_s > HANG_S or time.monotonic() - waiting_s > WAITING_S:
            self.tally.hangs += 1
            self._keep(Finding(f"hang of {took_s:.1f} s", "", value))
        self.tally.inputs += 1
        self.tally.slowest_s = max(self.tally.slowest_s, took_s)
        self.tally.seconds = time.monotonic() - self.started_s

    def _keep(self, finding: Finding) -> None:
        alike = sum((kept.kind, kept.place) == (finding.kind, finding.place) for kept in self.tally.findings)
        if alike < _MOST_KEPT:
            self.tally.findings.append(finding)


def run_blind(target: Target, inputs: int, *, seed: int) -> Tally:
    """Mutations of the seeds without a look at what they reach: needs nothing but Python, and repeats itself."""
    recorder = Recorder(target, Tally(target.name, "blind", corpus=len(target.seeds)))
    for value in islice(mutations(target, random.Random(seed)), inputs):  # noqa: S311 - no secrets
        recorder.try_input(value)
    return recorder.tally


def mutations(target: Target, dice: random.Random) -> Iterator[bytes]:
    """The seeds, and then mutations of them without end."""
    yield from target.seeds
    while True:
        value = bytearray(dice.choice(target.seeds))
        for _ in range(dice.choice((1, 1, 2, 4, 16))):
            _mutate(value, target.words, dice)
        yield bytes(value[:_LONGEST])


def _mutate(value: bytearray, words: Sequence[bytes], dice: random.Random) -> None:
    at = dice.randrange(len(value) + 1)
    length = dice.choice((1, 2, 4, 8, 64))
    match dice.randrange(7):
        case 0 if value:  # a bit
            value[at % len(value)] ^= 1 << dice.randrange(8)
        case 1:  # a number at one of its bounds
            value[at : at + length] = dice.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * min(length, 8)
        case 2:  # away
            del value[at : at + length]
        case 3:  # again
            value[at:at] = value[at : at + length] * dice.choice((1, 2, 50))
        case 4 if words:
            value[at:at] = dice.choice(words)
        case 5:
            value[at:at] = dice.randbytes(length)
        case _:  # cut off
            del value[at + length * 4 :]


def save_findings(tally: Tally, folder: Path) -> None:
    """Each finding's input as a file, to be run again."""
    for number, finding in enumerate(tally.findings):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{tally.target}-{finding.kind.replace(' ', '-')}-{number}").write_bytes(finding.value)


def _place_of(error: Exception) -> str:
    """The innermost line of ours, which tells crashes apart."""
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1]
    return f"{Path(last.filename).name}:{last.lineno} {str(error)[:200]}"
