"""What storage/tokens.py rests on: in which order ClickHouse writes an insert's token and names its part."""

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from storage.engine import Engine

_MODIFIED, _NAMED = 0x2, 0x80  # linux/inotify.h: IN_MODIFY, IN_MOVED_TO
_EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows


@contextmanager
def watching(*folders: tuple[Path, int]) -> Iterator[int]:
    """A descriptor that tells of these events in these folders, in the order in which they come."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    for folder, mask in folders:
        assert libc.inotify_add_watch(descriptor, str(folder).encode(), mask) >= 0, os.strerror(ctypes.get_errno())
    yield descriptor
    os.close(descriptor)


def events(descriptor: int) -> list[str]:
    told, at, names = os.read(descriptor, 1 << 16), 0, []
    while at < len(told):
        *_, length = _EVENT.unpack_from(told, at)
        at += _EVENT.size + length
        names.append(told[at - length : at].rstrip(b"\0").decode())
    return names


def test_a_token_is_written_before_its_part_has_its_name(tmp_path: Path) -> None:
    with closing(Engine.open(tmp_path / "store", memory_limit_bytes=None)) as engine:
        engine.query("CREATE DATABASE d ENGINE = Atomic")
        engine.query(
            "CREATE TABLE d.t (k UInt8) ENGINE = MergeTree ORDER BY k SETTINGS non_replicated_deduplication_window = 9"
        )
        engine.query("INSERT INTO d.t SETTINGS insert_deduplication_token = 'first' VALUES (1)")
        (log,) = engine.path.glob("store/*/*/deduplication_logs/deduplication_log_1.txt")
        with watching((log.parent, _MODIFIED), (log.parents[1], _NAMED)) as told:
            engine.query("INSERT INTO d.t SETTINGS insert_deduplication_token = 'second' VALUES (2)")
            assert events(told) == ["deduplication_log_1.txt", "all_2_2_0"]
        assert [line.split("\t")[:2] for line in log.read_text().splitlines()] == [
            ["1", "all_1_1_0"],
            ["1", "all_2_2_0"],
        ]
