"""The spool: frames wait on disk until the broker has them, oldest first, within a bound.

SQLite in WAL mode. A frame counts as produced once it is here: it then survives the end of the process, however that
comes; a power cut may take the last moments with it. What has to make room is counted by source and time range, and
reported as lost: nothing vanishes silently.
"""

import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import MappingProxyType, TracebackType
from typing import Self

from collectors.counters import KeptCounter

NO_COUNTERS: Mapping[str, KeptCounter] = MappingProxyType({})

# `previous` is the number of the frame before of the same source and topic: it tells whether two frames that were
# evicted belong to one gap. `marks` says up to where values have been handed to a broker, by this process or another.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS frames (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    urgent INTEGER NOT NULL,
    topic TEXT NOT NULL,
    source TEXT NOT NULL,
    first_time INTEGER NOT NULL,
    last_time INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    previous INTEGER NOT NULL DEFAULT 0,
    value BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS frames_in_order ON frames (urgent, number);
CREATE TABLE IF NOT EXISTS gaps (
    source TEXT NOT NULL,
    topic TEXT NOT NULL,
    sent INTEGER NOT NULL,
    last_number INTEGER NOT NULL,
    first_time INTEGER NOT NULL,
    last_time INTEGER NOT NULL,
    frames INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    PRIMARY KEY (source, topic, last_number)
);
CREATE TABLE IF NOT EXISTS marks (
    urgent INTEGER PRIMARY KEY,
    number INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS counters (
    key TEXT PRIMARY KEY,
    raw TEXT NOT NULL,
    carry TEXT NOT NULL,
    time_s INTEGER NOT NULL,
    epoch TEXT NOT NULL
);
"""
_WITHOUT_PREVIOUS = "ALTER TABLE frames ADD COLUMN previous INTEGER NOT NULL DEFAULT 0"  # a spool of version 0.1.0


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
    """Consecutive frames of one source that had to make room, UTC seconds of their first and last tick.

    `sent` ones had been handed to a broker that never said what became of them: they may have arrived. The others
    are lost for certain.
    """

    source: int
    topic: str
    first_time: int
    last_time: int
    frames: int
    rows: int
    sent: bool = False


@dataclass(frozen=True, slots=True)
class _Victim:
    """A frame that has to make room."""

    number: int
    urgent: bool
    source: str
    topic: str
    first_time: int
    last_time: int
    rows: int
    previous: int
    size: int


class Spool:
    """A bounded queue of frames in one file. Its methods may be called from any thread.

    What `take` gave out is held: it makes no room for others before it is removed or released, so that nothing is
    reported as lost that arrives after all. Every method raises SpoolError when the disk refuses; then nothing has
    changed.
    """

    def __init__(self, path: Path, *, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._lock = Lock()
        self._path = path
        self._held: dict[int, bool] = {}  # by number whether it is urgent, as below
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;" + _SCHEMA)
            if not any(column[1] == "previous" for column in self._db.execute("PRAGMA table_info(frames)")):
                self._db.execute(_WITHOUT_PREVIOUS)
            self._bytes: int = self._one("SELECT coalesce(sum(length(value)), 0) FROM frames")
            self._newest: int = self._one("SELECT coalesce(max(seq), 0) FROM sqlite_sequence")
            self._last = self._newest_by_source()
            ends = self._db.execute("SELECT urgent, max(number) FROM frames GROUP BY urgent")
            self._ends: dict[bool, int] = {bool(urgent): number for urgent, number in ends}
            marks = self._db.execute("SELECT urgent, number FROM marks")
            self._marks: dict[bool, int] = {bool(urgent): number for urgent, number in marks}
            self._unsure = self._sent_before()  # handed to a broker, without an answer
        except (OSError, sqlite3.Error) as error:
            raise SpoolError(f"spool {path} cannot be opened: {error}; give a writable path in agent.spool") from error

    @property
    def size_bytes(self) -> int:
        """Bytes of all values that wait."""
        return self._bytes

    @property
    def limit_bytes(self) -> int:
        """Bytes of values beyond which the oldest make room."""
        return self._limit_bytes

    def add(self, values: Sequence[Outgoing], counters: Mapping[str, KeptCounter] = NO_COUNTERS) -> list[Evicted]:
        """Take values in, and with them the device counters as of their last tick: both or neither.

        Where the bound is reached the oldest values that nobody holds make room; returns what did, gap by gap.
        """
        added = sum(len(value.value) for value in values)
        with self._lock:
            with _Transaction(self._db, self._path):
                last = self._insert(values)
                self._db.executemany(
                    "INSERT OR REPLACE INTO counters VALUES (?, ?, ?, ?, ?)",
                    [(key, str(c.raw), str(c.carry), c.time_s, c.epoch) for key, c in counters.items()],
                )
                victims = self._victims(self._bytes + added - self._limit_bytes)
                self._evict(victims)
            self._note_inserted(values, last)
            self._bytes -= sum(victim.size for victim in victims)
            evicted = [self._account(victim) for victim in victims]
            for victim in victims:
                self._unsure.pop(victim.number, None)
            return evicted

    def take(self, limit: int, *, urgent: bool, after: int = 0, most_bytes: int = 1 << 62) -> list[Spooled]:
        """The oldest values with a number above `after`, in order: at least one, and no more than `most_bytes`.

        They are held, and noted as sent, before they are given out.
        """
        with self._lock:
            if after >= self._ends.get(urgent, 0):
                return []  # a sender with nothing to do asks many times a second: that costs no disk
            with _Transaction(self._db, self._path):
                taken = list(self._oldest(limit, urgent=urgent, after=after, most_bytes=most_bytes))
                mark = max([self._marks.get(urgent, 0), *(value.number for value in taken)])
                self._write_mark(mark, urgent=urgent)
            self._marks[urgent] = mark
            self._held |= dict.fromkeys((value.number for value in taken), urgent)
        return taken

    def release(self, numbers: Collection[int], *, sent: bool) -> None:
        """Hold these no longer; `sent` says that they have been handed to a broker, and may have arrived."""
        with self._lock:
            held = {number: self._held.pop(number) for number in numbers if number in self._held}
            if sent:
                self._unsure |= held
                return
            marks = {urgent: self._mark(urgent=urgent) for urgent in (True, False)}
            with _Transaction(self._db, self._path):
                for urgent, mark in marks.items():
                    self._write_mark(mark, urgent=urgent)
            self._marks = marks

    def is_empty(self) -> bool:
        with self._lock, _Transaction(self._db, self._path):
            return self._db.execute("SELECT 1 FROM frames LIMIT 1").fetchone() is None

    def remove(self, numbers: Collection[int]) -> None:
        """Forget frames that are safe elsewhere; numbers that are gone already do not matter."""
        delete = "DELETE FROM frames WHERE number = ? RETURNING length(value)"
        with self._lock:
            with _Transaction(self._db, self._path):
                freed = sum(row[0] for number in numbers for row in self._db.execute(delete, (number,)))
            self._bytes -= freed
            for number in numbers:
                self._held.pop(number, None)
                self._unsure.pop(number, None)

    def report_evicted(self, report: Callable[[Evicted], Outgoing]) -> list[Evicted]:
        """Put a report of every gap in line, and forget the gap: both or neither. Returns the gaps."""
        delete = "DELETE FROM gaps RETURNING source, topic, first_time, last_time, frames, rows, sent"
        with self._lock:
            with _Transaction(self._db, self._path):
                rows = self._db.execute(delete).fetchall()
                gaps = [Evicted(int(row[0]), *row[1:]) for row in rows]
                reports = [report(gap) for gap in gaps]
                last = self._insert(reports)
            self._note_inserted(reports, last)
        return gaps

    def counter(self, key: str) -> KeptCounter | None:
        """A device counter as of the last tick that was spooled."""
        with self._lock, _Transaction(self._db, self._path):
            row = self._db.execute("SELECT raw, carry, time_s, epoch FROM counters WHERE key = ?", (key,)).fetchone()
        return KeptCounter(int(row[0]), int(row[1]), row[2], row[3]) if row else None

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _one(self, query: str) -> int:
        return int(self._db.execute(query).fetchone()[0])

    def _insert(self, values: Sequence[Outgoing]) -> dict[tuple[str, str], int]:
        """Insert values under the next numbers; returns the newest number by source and topic."""
        last: dict[tuple[str, str], int] = {}
        rows = []
        for number, v in enumerate(values, self._newest + 1):
            key = (str(v.source), v.topic)
            previous = last.get(key) or self._last.get(key, 0)
            rows.append((number, v.urgent, v.topic, key[0], v.first_time, v.last_time, v.rows, previous, v.value))
            last[key] = number
        self._db.executemany(
            "INSERT INTO frames (number, urgent, topic, source, first_time, last_time, rows, previous, value) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )
        return last

    def _note_inserted(self, values: Sequence[Outgoing], last: Mapping[tuple[str, str], int]) -> None:
        self._ends |= {value.urgent: number for number, value in enumerate(values, self._newest + 1)}
        self._newest += len(values)
        self._last |= last
        self._bytes += sum(len(value.value) for value in values)

    def _mark(self, *, urgent: bool) -> int:
        """The highest number that a broker may have."""
        return max((number for number, kind in (self._held | self._unsure).items() if kind == urgent), default=0)

    def _write_mark(self, mark: int, *, urgent: bool) -> None:
        if mark != self._marks.get(urgent, 0):
            self._db.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", (urgent, mark))

    def _sent_before(self) -> dict[int, bool]:
        """What a process before this one may have handed to a broker."""
        waiting = self._db.execute("SELECT number, urgent FROM frames")
        return {number: bool(urgent) for number, urgent in waiting if number <= self._marks.get(bool(urgent), 0)}

    def _newest_by_source(self) -> dict[tuple[str, str], int]:
        """The newest frame of each source and topic; none where a newer one may have gone its way already."""
        evicted = self._db.execute("SELECT source, topic, max(last_number) FROM gaps GROUP BY source, topic")
        gaps = {(source, topic): number for source, topic, number in evicted}
        waiting = self._db.execute("SELECT source, topic, max(number) FROM frames GROUP BY source, topic")
        return {(source, topic): n for source, topic, n in waiting if n > gaps.get((source, topic), 0)}

    def _oldest(self, limit: int, *, urgent: bool, after: int, most_bytes: int) -> Iterator[Spooled]:
        rows = self._db.execute(
            "SELECT number, topic, source, rows, value FROM frames WHERE urgent = ? AND number > ? "
            "ORDER BY number LIMIT ?",
            (urgent, after, limit),
        )
        taken_bytes = 0
        for number, topic, source, count, value in rows:
            taken_bytes += len(value)
            if taken_bytes > most_bytes and taken_bytes > len(value):
                return
            yield Spooled(number, topic, int(source), count, value)

    def _victims(self, excess: int) -> list[_Victim]:
        """The oldest values that free `excess` bytes: readings before messages, and none that is held."""
        victims: list[_Victim] = []
        if excess <= 0:
            return victims
        rows = self._db.execute(
            "SELECT number, urgent, source, topic, first_time, last_time, rows, previous, length(value) "
            "FROM frames ORDER BY urgent, number"
        )
        for row in rows:
            victim = _Victim(*row)
            if victim.number in self._held:
                continue
            victims.append(victim)
            excess -= victim.size
            if excess <= 0:
                break
        return victims

    def _evict(self, victims: Sequence[_Victim]) -> None:
        """Delete values, and keep account of them: a value that follows a gap's last one makes the gap longer."""
        self._db.executemany("DELETE FROM frames WHERE number = ?", [(victim.number,) for victim in victims])
        for v in victims:
            sent = self._was_sent(v)
            longer = self._db.execute(
                "UPDATE gaps SET last_number = ?, last_time = max(last_time, ?), frames = frames + 1, rows = rows + ? "
                "WHERE source = ? AND topic = ? AND sent = ? AND last_number = ?",
                (v.number, v.last_time, v.rows, v.source, v.topic, sent, v.previous),
            )
            if not longer.rowcount:
                self._db.execute(
                    "INSERT INTO gaps VALUES (?, ?, ?, ?, ?, ?, 1, ?)",
                    (v.source, v.topic, sent, v.number, v.first_time, v.last_time, v.rows),
                )

    def _was_sent(self, victim: _Victim) -> bool:
        return victim.number in self._unsure

    def _account(self, v: _Victim) -> Evicted:
        return Evicted(int(v.source), v.topic, v.first_time, v.last_time, 1, v.rows, self._was_sent(v))


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
