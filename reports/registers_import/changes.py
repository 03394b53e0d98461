"""What an import would change: pure functions over the rows of a file and those that hold already."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from reports.registers_import.cells import iso_moment
from storage.register_kinds import DECLARATIONS, Declaration, RegisterKind
from storage.registers import RegisterRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """How many rows of a file say something new, correct what holds, withdraw it, or repeat it."""

    added: int
    corrected: int
    withdrawn: int
    repeated: int

    @property
    def is_none(self) -> bool:
        return not (self.added or self.corrected or self.withdrawn)

    def sentence(self) -> str:
        parts = {
            "new": self.added,
            "corrected": self.corrected,
            "withdrawn": self.withdrawn,
            "as before": self.repeated,
        }
        return ", ".join(f"{count:,} {name}" for name, count in parts.items() if count)


def bounds_of(rows: Sequence[RegisterRow]) -> tuple[datetime, datetime]:
    """Begin and end of the time that the rows are about."""
    return min(row.begins_at for row in rows), max(row.ends_at for row in rows)


def compare(rows: Sequence[RegisterRow], stored: pl.DataFrame) -> Changes:
    """Hold a file's rows against those that hold now (`storage.registers.ROWS`, at least of their keys)."""
    held = dict(stored.select("row_key", "text").iter_rows())
    outcomes = [_outcome(row, held.get(str(row.key_id))) for row in rows]
    return Changes(
        added=outcomes.count("added"),
        corrected=outcomes.count("corrected"),
        withdrawn=outcomes.count("withdrawn"),
        repeated=outcomes.count("repeated"),
    )


def _outcome(row: RegisterRow, held: str | None) -> str:
    if row.withdrawn:
        return "repeated" if held is None else "withdrawn"
    if held is None:
        return "added"
    return "repeated" if held == row.text else "corrected"


def withdrawal_problems(rows: Sequence[RegisterRow], stored: pl.DataFrame) -> Iterator[str]:
    """Rows that withdraw what does not hold: a slip in the key."""
    held = set(stored["row_key"])
    for row in rows:
        if row.withdrawn and str(row.key_id) not in held:
            hint = "give the key of an earlier import, and its --valid-from"
            yield f"line {row.line}: withdraws a row that does not hold; {hint}"


@dataclass(frozen=True, slots=True)
class _Spanned:
    """A row as overlaps see it."""

    alike: tuple[object, ...]
    begins_at: datetime
    ends_at: datetime
    line: int
    version: str  # empty for the file

    @property
    def place(self) -> str:
        return f"line {self.line} of version {self.version[:8]}" if self.version else f"line {self.line}"


def overlap_problems(kind: RegisterKind, rows: Sequence[RegisterRow], stored: pl.DataFrame) -> list[str]:
    """Rows of the file that are about a time about which another row is too, of the file or of those that hold.

    A stored row that the file corrects or withdraws does not count. What only overlaps among stored rows is no
    problem of this file.
    """
    declaration = DECLARATIONS[kind]
    if declaration.span is None:
        return []
    spanned = [*_of_file(declaration, rows), *_of_store(declaration, rows, stored)]
    spanned.sort(key=lambda row: (_sortable(row.alike), row.begins_at, row.ends_at))
    problems = []
    for _, group in itertools.groupby(spanned, key=lambda row: row.alike):
        problems += [(one, other) for one, other in _overlaps(group) if not (one.version and other.version)]
    return [_told(declaration, one, other) for one, other in sorted(problems, key=lambda pair: _file_line(*pair))]


def _overlaps(group: Iterator[_Spanned]) -> Iterator[tuple[_Spanned, _Spanned]]:
    """Pairs of which the second begins before the first has ended; of several, the first that ends last."""
    latest: _Spanned | None = None
    for row in group:
        if latest is not None and row.begins_at < latest.ends_at:
            yield latest, row
        if latest is None or row.ends_at > latest.ends_at:
            latest = row


def _of_file(declaration: Declaration, rows: Sequence[RegisterRow]) -> Iterator[_Spanned]:
    for row in rows:
        if not row.withdrawn:
            yield _Spanned(_alike(declaration, row.text), row.begins_at, row.ends_at, row.line, "")


def _of_store(declaration: Declaration, rows: Sequence[RegisterRow], stored: pl.DataFrame) -> Iterator[_Spanned]:
    replaced = {str(row.key_id) for row in rows}
    for row in stored.filter(~pl.col("row_key").is_in(replaced)).iter_rows(named=True):
        yield _Spanned(_alike(declaration, row["text"]), row["begins_at"], row["ends_at"], row["line"], row["version"])


def _alike(declaration: Declaration, text: str) -> tuple[object, ...]:
    cells: Mapping[str, object] = json.loads(text)
    return tuple(cells.get(name) for name in (declaration.span.alike if declaration.span else ()))


def _sortable(alike: tuple[object, ...]) -> tuple[str, ...]:
    return tuple(json.dumps(cell) for cell in alike)


def _file_line(one: _Spanned, other: _Spanned) -> int:
    return min(row.line for row in (one, other) if not row.version)


def _told(declaration: Declaration, one: _Spanned, other: _Spanned) -> str:
    mine, theirs = (other, one) if one.version or not other.version else (one, other)
    span = declaration.span
    of = ", ".join(
        f"{name} {cell}" for name, cell in zip(span.alike if span else (), mine.alike, strict=True) if cell is not None
    )
    return (
        f"line {mine.line}: {of} from {_shown(mine.begins_at)} overlaps {theirs.place}, which lasts until "
        f"{_shown(theirs.ends_at)}; correct one of them, or withdraw it"
    )


def _shown(moment: datetime) -> str:
    return iso_moment(moment).removesuffix(":00.000Z") + "Z"
