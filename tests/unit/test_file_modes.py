"""What is kept on disk is for its own user: no role and no pseudonym protects a file that all can read."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from alerts.memory import MemoryFile
from collectors.spool import Spool


@pytest.fixture(autouse=True)
def generous_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def open_to_others(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if stat.S_IMODE(path.stat().st_mode) & 0o077]


def test_a_spool_and_its_log_are_for_their_user_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db", limit_bytes=1 << 20)
    assert (tmp_path / "spool.db").exists()
    assert open_to_others(tmp_path) == []
    spool.close()


def test_what_incidents_remember_is_for_their_user_alone(tmp_path: Path) -> None:
    memory = MemoryFile(tmp_path / "incidents.db")
    assert open_to_others(tmp_path) == []
    memory.close()
