"""The short form of the fuzzing: some hundred mutations of each target's seeds, the same every time.

The long form is `python -m tests.fuzz --inputs 1000000`; docs/reliability.md has its totals.
"""

import subprocess
import sys
import time

import pytest

from collectors.prometheus_text import parse_text
from tests.fuzz.device_targets import DEVICE_TARGETS
from tests.fuzz.run import run_blind
from tests.fuzz.site_targets import SITE_TARGETS
from tests.fuzz.stream_targets import STREAM_TARGETS
from tests.fuzz.target import Target, check

INPUTS = 400
SEED = 5


@pytest.mark.parametrize("target", [*STREAM_TARGETS, *DEVICE_TARGETS, *SITE_TARGETS], ids=lambda target: target.name)
def test_no_input_crashes_hangs_or_is_answered_wrongly(target: Target) -> None:
    tally = run_blind(target, INPUTS, seed=SEED)

    assert (tally.inputs, tally.findings) == (INPUTS, [])


def test_no_statement_crashes_the_door_or_slips_past_its_judge() -> None:
    """In a process of its own: it opens an engine, of which a process can have one."""
    command = [sys.executable, "-m", "tests.fuzz", "--inputs", str(INPUTS), "--seed", str(SEED), "--engine", "blind"]
    done = subprocess.run(
        [*command, "--target", "statement,insert-head,door-setting"],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_crashes_wrong_answers_and_hangs_are_found_and_told_apart() -> None:
    """What finds nothing anywhere might be unable to."""

    def read(value: bytes) -> None:
        check(value != b"wrong", "that is wrong")
        if value == b"slow":
            until_s = time.thread_time() + 1.1
            while time.thread_time() < until_s:
                pass
        if value == b"crash":
            raise KeyError(value)

    target = Target("broken", read, (b"wrong", b"slow", b"crash", b"good"))
    tally = run_blind(target, 4, seed=SEED)

    assert (tally.inputs, tally.crashes, tally.hangs) == (4, 2, 1)
    assert [(finding.kind.split()[0], finding.value) for finding in tally.findings] == [
        ("WrongAnswerError", b"wrong"),
        ("hang", b"slow"),
        ("KeyError", b"crash"),
    ]


# --- what the long form found, and must not find again


def test_a_sample_with_a_time_beyond_all_floats_is_a_bad_line() -> None:
    """prometheus-client divides the digits of a timestamp by 1000, as integers."""
    found = parse_text('power{a="1"} 41 1' + 400 * "0" + '\npower{a="2"} 42\n', {"power"})

    assert found.bad_lines == 1
    assert [point.value for point in found.points["power"]] == [42]
