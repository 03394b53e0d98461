"""The spool: frames wait on disk until the broker has them, oldest first, within a bound.

SQLite in WAL mode. A frame counts as produced once it is here. What has to make room is counted
by source and time range, and reported as lost: nothing vanishes silently.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import MappingProxyType, TracebackType
from typing import Self

from collectors.counters import KeptCounter

NO_COUNTERS: Mapping[str, KeptCounter] = MappingProxyType({})

_SCHEMA = """
CREATE TABLE IF NOT EXISTS frames (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    urgent INTEGER NOT NULL,
    topic TEXT NOT NULL,
    source TEXT NOT NULL,
    first_time INTEGER NOT NULL,
    last_time INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    value BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS frames_in_order ON frames (urgent, number);
CREATE TABLE IF NOT EXISTS evicted (
    source TEXT NOT NULL,
    topic TEXT NOT NULL,
    first_time INTEGER NOT NULL,
    last_time INTEGER NOT NULL,
    frames INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    PRIMARY KEY (source, topic)
);
CREATE TABLE IF NOT EXISTS counters (
    key TEXT PRIMARY KEY,
    raw TEXT NOT NULL,
    carry TEXT NOT NULL,
    time_s INTEGER NOT NULL,
    epoch TEXT NOT NULL
);
"""


class SpoolError(OSError):
    """The spool cannot be written: disk full, no permission, not a spool."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A value to be published: a frame, or a message (which has no rows). Times are UTC seconds.

    What is urgent overtakes what is not: an alarm does not wait behind a backlog of readings.
    """

    topic: str
    source: int
    value: bytes
    rows: int = 0
    first_time: int = 0
    last_time: int = 0
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class Spooled:
    """A value in the spool; `number` rises in the order of arrival."""

    number: int
    topic: str
    source: int
    rows: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Evicted:
    """Frames of one source that had to make room, UTC seconds of their first and last tick."""

    source: int
    topic: str
    first_time: int
    last_time: int
    frames: int
    rows: int


class Spool:
    """A bounded queue of frames in one file. Its methods may be called from any thread.

    Every method raises SpoolError when the disk refuses; then nothing has changed.
    """

    def __init__(self, path: Path, *, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._lock = Lock()
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;" + _SCHEMA)
            self._bytes: int = self._db.execute("SELECT coalesce(sum(length(value)), 0) FROM frames").fetchone()[0]
        except (OSError, sqlite3.Error) as error:
            raise SpoolError(f"spool {path} cannot be opened: {error}; give a writable path in agent.spool") from error

    @property
    def size_bytes(self) -> int:
        """Bytes of the frames that wait."""
        return self._bytes

    def add(self, values: Sequence[Outgoing], counters: Mapping[str, KeptCounter] = NO_COUNTERS) -> None:
        """Append values, and with them the device counters as of their last tick: both or neither.

        The oldest frames are evicted where the limit asks for it.
        """
        added = sum(len(value.value) for value in values)
        with self._lock, _Transaction(self._db, self._path):
            self._db.executemany(
                "INSERT INTO frames (urgent, topic, source, first_time, last_time, rows, value) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(v.urgent, v.topic, str(v.source), v.first_time, v.last_time, v.rows, v.value) for v in values],
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO counters VALUES (?, ?, ?, ?, ?)",
                [(key, str(c.raw), str(c.carry), c.time_s, c.epoch) for key, c in counters.items()],
            )
            freed = self._evict(self._bytes + added - self._limit_bytes)
        self._bytes += added - freed

    def oldest(self, limit: int, *, urgent: bool, after: int = 0) -> list[Spooled]:
        """The oldest values with a number above `after`, in order."""
        with self._lock, _Transaction(self._db, self._path):
            rows = self._db.execute(
                "SELECT number, topic, source, rows, value FROM frames "
                "WHERE urgent = ? AND number > ? ORDER BY number LIMIT ?",
                (urgent, after, limit),
            ).fetchall()
        return [Spooled(number, topic, int(source), count, value) for number, topic, source, count, value in rows]

    def is_empty(self) -> bool:
        with self._lock, _Transaction(self._db, self._path):
            return self._db.execute("SELECT 1 FROM frames LIMIT 1").fetchone() is None

    def remove(self, numbers: Iterable[int]) -> None:
        """Forget frames that are safe elsewhere; numbers that are gone already do not matter."""
        keys = [(number,) for number in numbers]
        with self._lock, _Transaction(self._db, self._path):
            freed = sum(
                row[0]
                for key in keys
                for row in self._db.execute("DELETE FROM frames WHERE number = ? RETURNING length(value)", key)
            )
        self._bytes -= freed

    def take_evicted(self) -> list[Evicted]:
        """What had to make room since the last call."""
        with self._lock, _Transaction(self._db, self._path):
            rows = self._db.execute(
                "DELETE FROM evicted RETURNING source, topic, first_time, last_time, frames, rows"
            ).fetchall()
        return [Evicted(int(source), *rest) for source, *rest in rows]

    def counter(self, key: str) -> KeptCounter | None:
        """A device counter as of the last tick that was spooled."""
        with self._lock, _Transaction(self._db, self._path):
            row = self._db.execute("SELECT raw, carry, time_s, epoch FROM counters WHERE key = ?", (key,)).fetchone()
        return KeptCounter(int(row[0]), int(row[1]), row[2], row[3]) if row else None

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _evict(self, excess: int) -> int:
        """Delete the oldest frames until `excess` bytes are freed; keep account of them."""
        freed = 0
        while freed < excess:
            row = self._db.execute(
                "DELETE FROM frames WHERE number = (SELECT number FROM frames ORDER BY urgent, number LIMIT 1) "
                "RETURNING source, topic, first_time, last_time, rows, length(value)"
            ).fetchone()
            if row is None:
                break
            *account, rows, size = row
            freed += size
            self._db.execute(
                "INSERT INTO evicted VALUES (?, ?, ?, ?, 1, ?) ON CONFLICT (source, topic) DO UPDATE SET "
                "first_time = min(first_time, excluded.first_time), last_time = max(last_time, excluded.last_time), "
                "frames = frames + 1, rows = rows + excluded.rows",
                (*account, rows),
            )
        return freed


class _Transaction:
    """All or nothing, with SQLite's errors as SpoolError."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db = db
        self._path = path

    def __enter__(self) -> Self:
        self._run("BEGIN IMMEDIATE")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._run("COMMIT")
            return
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        if isinstance(error, sqlite3.Error):
            raise SpoolError(f"spool {self._path}: {error}; free space or permissions are needed") from error

    def _run(self, statement: str) -> None:
        try:
            self._db.execute(statement)
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise SpoolError(f"spool {self._path}: {error}; free space or permissions are needed") from error
