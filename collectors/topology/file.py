"""Topology files as entries: TOML for what people write, CSV for long lists. What is wrong is said in sentences."""

import csv
import io
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from catalogue import ResourceKind
from collectors.topology.entry import FIELD_NAMES, PARENTS, Entry, EntryFields, instant, milliseconds, written_instant

MAX_FILE_BYTES = 64 << 20  # a list of 100,000 GPUs has 10 MB
MAX_ENTRIES = 500_000  # of one file
MOST_PROBLEMS = 50  # beyond this nobody reads on
LIST_SEPARATOR = ";"

_KINDS = tuple(str(kind) for kind in PARENTS)
_COLUMNS = (FIELD_NAMES | {"kind"}) - {"attributes"}
_LISTED = ("serves", "aliases")  # columns that hold several
_ATTRIBUTE = "attributes."  # what columns of other facts begin with
_TOO_MANY = ""  # where cells beyond the last column are put


class TopologyFileError(ValueError):
    """Topology files are wrong; `problems` are sentences: file, entry, what is wrong, what to do."""

    def __init__(self, problems: list[str]) -> None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(problems[0] + more)
        self.problems = problems


@dataclass(frozen=True, slots=True)
class FileText:
    """A file as it was read. `since_ms` is since when it is as it is, as far as its folder tells."""

    name: str
    text: str
    since_ms: int


def read_file(path: Path) -> FileText:
    """Read a topology file whole; OSError, or TopologyFileError where it cannot be one."""
    with path.open("rb") as stream:
        status = os.fstat(stream.fileno())
        content = stream.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise TopologyFileError([f"{path} has more than {MAX_FILE_BYTES >> 20} MiB; cut it into several"])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TopologyFileError([f"{path} is not UTF-8 text at byte {error.start}; save it as UTF-8"]) from error
    # A file that is copied keeps its time of change, but not that of its inode.
    return FileText(str(path), text, int(max(status.st_mtime, status.st_ctime) * 1000))


def parse_file(file: FileText, *, now_ms: int) -> list[Entry]:
    """The entries of one file, each by itself; TopologyFileError with all that is wrong in them.

    A file from the future, by a clock that was set back, counts from `now_ms` on.
    """
    file = replace(file, since_ms=min(file.since_ms, now_ms))
    problems: list[str] = []
    entries: list[Entry] = []
    for written in _list_entries(file) if file.name.lower().endswith(".csv") else _toml_entries(file):
        try:
            entries.append(_entry(written))
        except ValueError as error:
            problems.append(str(error))
        if len(problems) == MOST_PROBLEMS:
            break
        if len(entries) > MAX_ENTRIES:
            raise TopologyFileError([f"{file.name} has more than {MAX_ENTRIES} entries; cut it into several"])
    if problems:
        raise TopologyFileError(problems)
    return entries


@dataclass(frozen=True, slots=True)
class _Written:
    """An entry as it is written; cells of a list are all text, so numbers in it are not `typed`."""

    where: str
    kind: str
    fields: Mapping[str, Any]
    since_ms: int
    typed: bool


def _entry(written: _Written) -> Entry:
    if written.kind not in _KINDS:
        known = ", ".join(_KINDS)
        raise ValueError(f"{written.where}: {written.kind!r} is no kind of thing that files tell of; there are {known}")
    try:
        fields = msgspec.convert(written.fields, EntryFields, strict=written.typed)
        valid_from_ms = milliseconds(fields.valid_from)
    except ValueError as error:
        raise ValueError(f"{written.where}: {_sentence(error)}") from error
    return Entry(written.where, ResourceKind(written.kind), fields, valid_from_ms, written.since_ms)


def _sentence(error: ValueError) -> str:
    text = str(error).replace(" | null", "")  # that a field may be left out is no help
    if "unknown field" in text:
        return f"{text}; a free fact goes into attributes"
    return text if ";" in text else f"{text}; correct it"


# TOML ----------------------------------------------------------------------------------------------------------------


def _toml_entries(file: FileText) -> Iterator[_Written]:
    try:
        document = tomllib.loads(file.text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise TopologyFileError([f"{file.name} is not TOML: {error}"]) from error
    since_ms = _file_date(file, document.pop("valid_from", None))
    for kind, tables in document.items():
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise TopologyFileError([f"{file.name}: {kind} is no list of entries; begin each with [[{kind}]]"])
        for number, table in enumerate(tables, start=1):
            where = f"{file.name}: {kind} {table.get('identity') or f'no. {number}'}"
            dated = {"valid_from": instant(table["valid_from"])} if "valid_from" in table else {}
            yield _Written(where, kind, {**table, **dated}, since_ms, typed=True)


def _file_date(file: FileText, given: object) -> int:
    """Since when what has no date of its own holds: as the file says, or since the file is as it is."""
    try:
        found = milliseconds(msgspec.convert(instant(given), datetime | None))
    except ValueError as error:
        raise TopologyFileError([f"{file.name}: valid_from at its top: {_sentence(error)}"]) from error
    return file.since_ms if found is None else found


# Lists ---------------------------------------------------------------------------------------------------------------


def _list_entries(file: FileText) -> Iterator[_Written]:
    """An empty cell says nothing."""
    reader = csv.DictReader(io.StringIO(file.text), restkey=_TOO_MANY, strict=True)
    try:
        _check_columns(file, list(reader.fieldnames or ()))
        for row in reader:
            cells = {name: cell for name, cell in row.items() if cell}
            kind, identity = cells.pop("kind", ""), cells.get("identity", "")
            where = f"{file.name} line {reader.line_num}: {kind} {identity}".rstrip()
            yield _Written(where, kind, _listed_fields(where, cells), file.since_ms, typed=False)
    except csv.Error as error:
        raise TopologyFileError([f"{file.name} is not CSV after line {reader.line_num}: {error}"]) from error


def _check_columns(file: FileText, columns: list[str]) -> None:
    missing = [name for name in ("kind", "identity") if name not in columns]
    if missing:
        raise TopologyFileError([f"{file.name} has no column {missing[0]}; its first line names the columns"])
    for name in columns:
        if columns.count(name) > 1:
            raise TopologyFileError([f"{file.name} has two columns {name!r}; keep one"])
        if name not in _COLUMNS and not name.startswith(_ATTRIBUTE):
            raise TopologyFileError(
                [f"{file.name} has a column {name!r} that is no field; a free fact is a column {_ATTRIBUTE}{name}"]
            )


def _listed_fields(where: str, cells: Mapping[str, Any]) -> dict[str, Any]:
    if _TOO_MANY in cells:
        raise TopologyFileError([f"{where}: there are more cells than columns; quote cells that have commas in them"])
    fields: dict[str, Any] = {name: cell for name, cell in cells.items() if not name.startswith(_ATTRIBUTE)}
    for name in fields.keys() & _LISTED:
        fields[name] = [each.strip() for each in fields[name].split(LIST_SEPARATOR) if each.strip()]
    if "valid_from" in fields:
        fields["valid_from"] = written_instant(fields["valid_from"])
    attributes = {name.removeprefix(_ATTRIBUTE): cell for name, cell in cells.items() if name.startswith(_ATTRIBUTE)}
    return {**fields, "attributes": attributes}
