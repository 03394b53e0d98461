"""The short form of `make chaos`: a site is broken at random for a while, and every row is stored once."""

import time
from pathlib import Path

import pytest

from tests.chaos.__main__ import run, table

SECONDS = 45.0


@pytest.mark.timeout(400)
def test_a_site_that_is_broken_again_and_again_stores_every_row_once(tmp_path: Path) -> None:
    outcome = run(tmp_path, seconds=SECONDS, seed=time.time_ns() % 1_000_000)

    print(table(outcome))  # noqa: T201 - shown where the test fails: the seed repeats it, as far as timing lets it
    assert outcome.kills > 0
    assert outcome.frames > 100
    assert outcome.holds
