"""What incidents remember, in one SQLite file: what is known and how far was read change in one transaction."""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from alerts.incident import Alarm, Incident, Repeats
from alerts.incidents import Changes, Memory

_SCHEMA = """
CREATE TABLE IF NOT EXISTS memory (kind TEXT, key TEXT, value BLOB NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS positions (
    topic TEXT, topic_id TEXT, partition INTEGER, next_offset INTEGER NOT NULL, PRIMARY KEY (topic, partition)
) WITHOUT ROWID;
"""


class MemoryFileError(OSError):
    """The file cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Position:
    """The next record to read of a partition, and of which topic of that name."""

    topic_id: str
    next_offset: int


Positions = Mapping[tuple[str, int], Position]  # by topic and partition


class MemoryFile:
    """One process at a time. Raises MemoryFileError when another has it or it cannot be written."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            self._database = sqlite3.connect(path, timeout=1.0, isolation_level=None)
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(_SCHEMA)
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute("COMMIT")
        except (OSError, sqlite3.Error) as error:
            raise MemoryFileError(
                f"{path} cannot be used ({error}); stop the other kvandal incidents, or give another incidents.state"
            ) from error

    def load(self) -> tuple[Memory, dict[tuple[str, int], Position]]:
        """What was saved last."""
        incidents: list[Incident] = self._rows("incident", Incident)
        memory = Memory(
            {row.key: row for row in sorted(incidents, key=lambda incident: (incident.opened_ms, incident.key))},
            {row.id: row for row in self._rows("alarm", Alarm)},
            {row.key: row for row in self._rows("repeats", Repeats)},
        )
        found = self._database.execute("SELECT topic, partition, topic_id, next_offset FROM positions")
        return memory, {(topic, number): Position(topic_id, offset) for topic, number, topic_id, offset in found}

    def save(self, changes: Changes, positions: Positions) -> None:
        """Keep both or neither; returns once they are on the disk."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            self._put("incident", changes.incidents)
            self._put("alarm", changes.alarms)
            self._put("repeats", changes.repeats)
            self._database.executemany(
                "INSERT OR REPLACE INTO positions (topic, topic_id, partition, next_offset) VALUES (?, ?, ?, ?)",
                [(topic, at.topic_id, number, at.next_offset) for (topic, number), at in positions.items()],
            )
            self._database.execute("COMMIT")
        except BaseException:
            self._database.execute("ROLLBACK")
            raise

    def close(self) -> None:
        self._database.close()

    def _rows(self, kind: str, form: type[msgspec.Struct]) -> list:  # type: ignore[type-arg]
        found = self._database.execute("SELECT value FROM memory WHERE kind = ? ORDER BY key", (kind,))
        return [msgspec.json.decode(value, type=form) for (value,) in found]

    def _put(self, kind: str, changed: Mapping[str, msgspec.Struct | None]) -> None:
        gone = [(kind, key) for key, value in changed.items() if value is None]
        kept = [(kind, key, msgspec.json.encode(value)) for key, value in changed.items() if value is not None]
        self._database.executemany("DELETE FROM memory WHERE kind = ? AND key = ?", gone)
        self._database.executemany("INSERT OR REPLACE INTO memory (kind, key, value) VALUES (?, ?, ?)", kept)
