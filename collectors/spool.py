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
from types import MappingProxyType
from typing import NamedTuple

from collectors.counters import KeptCounter
from collectors.spool_file import SpoolError as SpoolError
from collectors.spool_file import Transaction, open_file

NO_COUNTERS: Mapping[str, KeptCounter] = MappingProxyType({})


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


class Line(NamedTuple):
    """Values that leave one after another: those of one topic, messages apart from readings."""

    urgent: bool
    topic: str


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
        self._held: dict[int, Line] = {}  # by number, as below
        self._on_added: Callable[[], object] = lambda: None
        try:
            self._db = open_file(path)
            sizes = self._db.execute("SELECT urgent, sum(length(value)) FROM frames GROUP BY urgent")
            self._bytes = {False: 0, True: 0} | {bool(urgent): size for urgent, size in sizes}
            self._newest: int = self._one("SELECT coalesce(max(seq), 0) FROM sqlite_sequence")
            self._last = self._newest_by_source()
            self._ends = self._numbers_by_line("SELECT urgent, topic, max(number) FROM frames GROUP BY urgent, topic")
            self._marks = self._numbers_by_line("SELECT urgent, topic, number FROM handed")
            self._unsure = self._sent_before()  # handed to a broker, without an answer
        except (OSError, sqlite3.Error) as error:
            raise SpoolError(f"spool {path} cannot be opened: {error}; give a writable path in agent.spool") from error

    @property
    def size_bytes(self) -> int:
        """Bytes of all values that wait."""
        return sum(self._bytes.values())

    @property
    def limit_bytes(self) -> int:
        """Bytes of values beyond which the oldest make room."""
        return self._limit_bytes

    def on_added(self, tell: Callable[[], object]) -> None:
        """Call `tell` whenever values have come in, on the thread that brought them."""
        self._on_added = tell

    def add(self, values: Sequence[Outgoing], counters: Mapping[str, KeptCounter] = NO_COUNTERS) -> list[Evicted]:
        """Take values in, and with them the device counters as of their last tick: both or neither.

        Where the bound is reached the oldest values that nobody holds make room; returns what did, gap by gap. Readings
        make room before messages, unless messages fill more than half.
        """
        with self._lock:
            with Transaction(self._db, self._path):
                last = self._insert(values)
                self._db.executemany(
                    "INSERT OR REPLACE INTO counters VALUES (?, ?, ?, ?, ?)",
                    [(key, str(c.raw), str(c.carry), c.time_s, c.epoch) for key, c in counters.items()],
                )
                victims = self._victims(values)
                self._evict(victims)
            self._note_inserted(values, last)
            for victim in victims:
                self._bytes[bool(victim.urgent)] -= victim.size
            evicted = [self._account(victim) for victim in victims]
            for victim in victims:
                self._unsure.pop(victim.number, None)
        if values:
            self._on_added()
        return evicted

    def lines(self) -> list[Line]:
        """The lines that have had values since the start, messages first."""
        with self._lock:
            return sorted(self._ends, key=lambda line: (not line.urgent, line.topic))

    def take(
        self, limit: int, *, urgent: bool, topic: str | None = None, after: int = 0, most_bytes: int = 1 << 62
    ) -> list[Spooled]:
        """The oldest values, of one topic or of all, with a number above `after`, in order.

        At least one where there is one, and no more than `most_bytes`. They are held, and noted as sent, before they
        are given out.
        """
        with self._lock:
            ends = (end for line, end in self._ends.items() if line.urgent == urgent and topic in (None, line.topic))
            if after >= max(ends, default=0):
                return []  # a sender with nothing to do asks many times a second: that costs no disk
            with Transaction(self._db, self._path):
                taken = list(self._oldest(limit, urgent=urgent, topic=topic, after=after, most_bytes=most_bytes))
                marks = dict(self._marks)
                for value in taken:
                    line = Line(urgent, value.topic)
                    marks[line] = max(marks.get(line, 0), value.number)
                self._write_marks(marks)
            self._marks = marks
            self._held |= {value.number: Line(urgent, value.topic) for value in taken}
        return taken

    def release(self, numbers: Collection[int], *, sent: bool) -> None:
        """Hold these no longer; `sent` says that they have been handed to a broker, and may have arrived."""
        with self._lock:
            held = {number: self._held.pop(number) for number in numbers if number in self._held}
            if sent:
                self._unsure |= held
                return
            marks = dict(self._marks) | {line: self._mark(line) for line in set(held.values())}
            with Transaction(self._db, self._path):
                self._write_marks(marks)
            self._marks = marks

    def is_empty(self) -> bool:
        with self._lock, Transaction(self._db, self._path):
            return self._db.execute("SELECT 1 FROM frames LIMIT 1").fetchone() is None

    def remove(self, numbers: Collection[int]) -> None:
        """Forget frames that are safe elsewhere; numbers that are gone already do not matter."""
        delete = "DELETE FROM frames WHERE number = ? RETURNING urgent, length(value)"
        with self._lock:
            with Transaction(self._db, self._path):
                freed = [row for number in numbers for row in self._db.execute(delete, (number,))]
            for urgent, size in freed:
                self._bytes[bool(urgent)] -= size
            for number in numbers:
                self._held.pop(number, None)
                self._unsure.pop(number, None)

    def report_evicted(self, report: Callable[[Evicted], Outgoing]) -> list[Evicted]:
        """Put a report of every gap in line, and forget the gap: both or neither. Returns the gaps."""
        delete = "DELETE FROM gaps RETURNING source, topic, first_time, last_time, frames, rows, sent"
        with self._lock:
            with Transaction(self._db, self._path):
                rows = self._db.execute(delete).fetchall()
                gaps = [Evicted(int(row[0]), *row[1:]) for row in rows]
                reports = [report(gap) for gap in gaps]
                last = self._insert(reports)
            self._note_inserted(reports, last)
        return gaps

    def counter(self, key: str) -> KeptCounter | None:
        """A device counter as of the last tick that was spooled."""
        with self._lock, Transaction(self._db, self._path):
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
        self._ends |= {Line(v.urgent, v.topic): number for number, v in enumerate(values, self._newest + 1)}
        self._newest += len(values)
        self._last |= last
        for value in values:
            self._bytes[value.urgent] += len(value.value)

    def _numbers_by_line(self, query: str) -> dict[Line, int]:
        return {Line(bool(urgent), topic): number for urgent, topic, number in self._db.execute(query)}

    def _mark(self, line: Line) -> int:
        """The highest number of a line that a broker may have."""
        return max((number for number, its in (self._held | self._unsure).items() if its == line), default=0)

    def _write_marks(self, marks: Mapping[Line, int]) -> None:
        changed = [(*line, number) for line, number in marks.items() if number != self._marks.get(line, 0)]
        self._db.executemany("INSERT OR REPLACE INTO handed VALUES (?, ?, ?)", changed)

    def _sent_before(self) -> dict[int, Line]:
        """What a process before this one may have handed to a broker."""
        waiting = self._db.execute("SELECT number, urgent, topic FROM frames")
        lines = ((number, Line(bool(urgent), topic)) for number, urgent, topic in waiting)
        return {number: line for number, line in lines if number <= self._marks.get(line, 0)}

    def _newest_by_source(self) -> dict[tuple[str, str], int]:
        """The newest frame of each source and topic; none where a newer one may have gone its way already."""
        evicted = self._db.execute("SELECT source, topic, max(last_number) FROM gaps GROUP BY source, topic")
        gaps = {(source, topic): number for source, topic, number in evicted}
        waiting = self._db.execute("SELECT source, topic, max(number) FROM frames GROUP BY source, topic")
        return {(source, topic): n for source, topic, n in waiting if n > gaps.get((source, topic), 0)}

    def _oldest(self, limit: int, *, urgent: bool, topic: str | None, after: int, most_bytes: int) -> Iterator[Spooled]:
        which, given = ("", ()) if topic is None else ("topic = ? AND ", (topic,))
        rows = self._db.execute(
            f"SELECT number, topic, source, rows, value FROM frames WHERE {which}urgent = ? AND number > ? "  # noqa: S608 - ours
            "ORDER BY number LIMIT ?",
            (*given, urgent, after, limit),
        )
        taken_bytes = 0
        for number, topic, source, count, value in rows:
            taken_bytes += len(value)
            if taken_bytes > most_bytes and taken_bytes > len(value):
                return
            yield Spooled(number, topic, int(source), count, value)

    def _victims(self, added: Sequence[Outgoing]) -> list[_Victim]:
        """The oldest values that make room for what was added: readings before messages, and none that is held.

        Messages that cannot leave, because their topic takes none, make room once they fill more than half: or they
        would close the spool to the readings of topics that do take theirs.
        """
        excess = self.size_bytes + sum(len(value.value) for value in added) - self._limit_bytes
        if excess <= 0:
            return []
        messages = self._bytes[True] + sum(len(value.value) for value in added if value.urgent)
        surplus = min(excess, messages - self._limit_bytes // 2)
        victims: list[_Victim] = []
        freed = 0
        for urgent, wanted in ((True, surplus), (False, excess), (True, excess)):
            found = self._oldest_victims(wanted - freed, urgent=urgent, but=victims)
            victims += found
            freed += sum(victim.size for victim in found)
        return victims

    def _oldest_victims(self, excess: int, *, urgent: bool, but: Collection[_Victim]) -> list[_Victim]:
        """The oldest that free `excess` bytes, without those that are held or chosen already."""
        victims: list[_Victim] = []
        if excess <= 0:
            return victims
        spared = {victim.number for victim in but} | self._held.keys()
        rows = self._db.execute(
            "SELECT number, urgent, source, topic, first_time, last_time, rows, previous, length(value) "
            "FROM frames WHERE urgent = ? ORDER BY number",
            (urgent,),
        )
        for row in rows:
            victim = _Victim(*row)
            if victim.number in spared:
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
