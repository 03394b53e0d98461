"""Deduplication tokens after a crash: the one that was written down for a part which never came is forgotten.

ClickHouse 26.9 first writes an insert's token into the deduplication log of its table and then gives the new part its
name, both under one lock (tests/contract/test_tokens.py watches it do so). A process that is killed between the two
leaves a token without a part. The same insert, made again, is then taken for done: its rows are lost, or its minutes
are. Since the lock admits one insert at a time, only the last part that a log names can be such a one.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

_LOG_FILE = re.compile(r"deduplication_log_(\d+)\.txt")
_PART = re.compile(r"(?P<partition>.+?)_(?P<first>\d+)_(?P<last>\d+)_\d+(_\d+)?")  # its level and mutation at the end
_ADDED = b"1"  # the other kind of record, 2, takes a token back


@dataclass(frozen=True, slots=True)
class ForgottenToken:
    """A token that was taken out of a log: where its table is, and the part that is not there."""

    table_folder: Path
    part: str


def forget_tokens_without_parts(data: Path) -> list[ForgottenToken]:
    """Mend the logs of all tables under the data directory of an engine that does not run."""
    logs = sorted(data.glob("store/*/*/deduplication_logs"))
    return [token for folder in logs for token in _mend(folder)]


def _mend(log_folder: Path) -> Iterator[ForgottenToken]:
    path = _newest_log(log_folder)
    if path is None:
        return
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]  # a full disk can cut the last record off in its middle
    lines = whole.splitlines(keepends=True)
    part = _last_added(lines)
    named = [line for line in takewhile(lambda line: _added(line) == part, reversed(lines)) if part]
    if part and not _is_there(part, log_folder.parent):
        yield ForgottenToken(log_folder.parent, part)
        whole = whole[: len(whole) - sum(len(line) for line in named)]
    if len(whole) < len(text):
        os.truncate(path, len(whole))


def _newest_log(log_folder: Path) -> Path | None:
    """The log with the last record: a new one is begun, empty, when the one before it is full."""
    numbered = ((match, path) for path in log_folder.iterdir() if (match := _LOG_FILE.fullmatch(path.name)))
    filled = [(int(match[1]), path) for match, path in numbered if path.stat().st_size]
    return max(filled)[1] if filled else None


def _last_added(lines: Sequence[bytes]) -> str | None:
    return _added(lines[-1]) if lines else None


def _added(line: bytes) -> str | None:
    """The part for which this record wrote a token down."""
    operation, part, _ = line.split(b"\t", 2)
    return part.decode() if operation == _ADDED else None


def _is_there(part: str, table_folder: Path) -> bool:
    """Whether the part, or one into which it was merged, is in its table."""
    wanted = _PART.fullmatch(part)
    if wanted is None:
        return True  # a name of a form that we do not know: leave it alone
    number = int(wanted["first"])
    found = (match for folder in table_folder.iterdir() if (match := _PART.fullmatch(folder.name)))
    return any(
        match["partition"] == wanted["partition"] and int(match["first"]) <= number <= int(match["last"])
        for match in found
    )
