"""The spool's file: its tables, how an older one is taken over, and changes that happen as a whole or not at all."""

import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Self

# `previous` is the number of the frame before of the same source and topic: it tells whether two frames that were
# evicted belong to one gap. `handed` says up to where values of a topic have been handed to a broker, by this process
# or another.
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
CREATE INDEX IF NOT EXISTS frames_by_topic ON frames (topic, urgent, number);
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
CREATE TABLE IF NOT EXISTS handed (
    urgent INTEGER NOT NULL,
    topic TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (urgent, topic)
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
# Marks were once kept by urgency alone: a spool of that time may have handed out anything up to them, of any topic.
_MARKS_BY_URGENCY = """
INSERT OR IGNORE INTO handed
    SELECT urgent, topic, marks.number FROM (SELECT DISTINCT urgent, topic FROM frames) JOIN marks USING (urgent);
DROP TABLE marks;
"""


_CACHE_KIB = 64  # what is spooled is read once, soon after: pages kept longer are memory for nothing


class SpoolError(OSError):
    """The spool cannot be written: disk full, no permission, not a spool."""


def open_file(path: Path) -> sqlite3.Connection:
    """The file at `path`, made where there is none, with the tables of this version. OSError or sqlite3.Error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)  # for nobody else: what waits in it names jobs; SQLite gives its other files the same mode
    db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    settings = f"PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -{_CACHE_KIB};"
    db.executescript(settings + _SCHEMA)
    if not any(column[1] == "previous" for column in db.execute("PRAGMA table_info(frames)")):
        db.execute(_WITHOUT_PREVIOUS)
    if db.execute("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'marks'").fetchone():
        db.executescript(_MARKS_BY_URGENCY)
    return db


class Transaction:
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
