"""A CSV as lines of cells under a header that fits: before anything is known of what the cells mean."""

import csv
import difflib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reports.registers_import.problems import RegisterFileError
from storage.register_kinds import Declaration

# A year of quarter hours of 28 meters. Each row takes about 1 KB of memory while it is checked.
MOST_ROWS = 1_000_000
_BOM = "\ufeff"
_OTHER_BOMS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Line:
    """One row's cells, in the order of the header, and the line of the file at which it begins."""

    number: int
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CsvTable:
    """The header and the rows below it; a row's cells are as many as the header's names, or are told as a problem."""

    header: tuple[str, ...]
    lines: tuple[Line, ...]
    problems: tuple[str, ...]


def read_table(name: str, content: bytes, declaration: Declaration) -> CsvTable:
    """The table in a CSV of UTF-8 with commas. RegisterFileError when there is none, or its header does not fit."""
    text = _decoded(name, content)
    rows = _rows(name, text)
    first = next(rows, None)
    if first is None:
        raise RegisterFileError(name, ["the file is empty; its first line must name the columns"])
    header = tuple(cell.strip() for cell in first.cells)
    problems = list(header_problems(header, declaration))
    if problems:
        raise RegisterFileError(name, problems)
    lines, uneven = [], []
    for line in rows:
        if len(line.cells) == len(header):
            lines.append(line)
        else:
            uneven.append(_uneven(line, header))
        if len(lines) > MOST_ROWS:
            raise RegisterFileError(name, [f"more than {MOST_ROWS:,} rows; split the file and import its parts"])
    if not lines and not uneven:
        raise RegisterFileError(name, ["there is no row below the header"])
    return CsvTable(header, tuple(lines), tuple(uneven))


def header_problems(header: Sequence[str], declaration: Declaration) -> Iterator[str]:
    """What is wrong with the names of the columns, one sentence each."""
    known = [column.name for column in declaration.all_columns]
    if len(header) == 1 and any(mark in header[0] for mark in (";", "\t")):
        yield "the header separates columns by semicolons or tabs; save the file with commas and decimal points"
        return
    for place, column in enumerate(header, 1):
        if not column:
            yield f"column {place} has no name"
        elif column not in known:
            close = difflib.get_close_matches(column, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"the columns are {', '.join(known)}"
            yield f"there is no column {column} in {declaration.kind}; {hint}"
    for column in sorted({column for column in header if column and header.count(column) > 1}):
        yield f"column {column} is there more than once"
    missing = [column.name for column in declaration.columns if column.required and column.name not in header]
    if missing:
        yield f"columns are missing: {', '.join(missing)}"


def _decoded(name: str, content: bytes) -> str:
    if content.startswith(_OTHER_BOMS):
        raise RegisterFileError(name, ["the file is UTF-16; save it as UTF-8"])
    try:
        text = content.decode("utf-8").removeprefix(_BOM)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise RegisterFileError(
            name, [f"line {line}: byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8"]
        ) from error
    return text


def _rows(name: str, text: str) -> Iterator[Line]:
    """Rows that are not empty. A quoted cell may have line breaks: a row begins at the line after the one before."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    begin = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield Line(begin, tuple(cell.strip() for cell in cells))
            begin = reader.line_num + 1
    except csv.Error as error:
        raise RegisterFileError(name, [f"line {begin}: {error}; is a quotation mark missing?"]) from error


def _uneven(line: Line, header: Sequence[str]) -> str:
    more = len(line.cells) > len(header)
    hint = "is there a decimal comma, or a text with a comma that is not in quotation marks?" if more else "add commas"
    return f"line {line.number}: {len(line.cells)} cells under {len(header)} columns; {hint}"
