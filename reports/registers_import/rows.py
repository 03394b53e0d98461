"""Rows of a register that can be stored: parsed, held against their schema, and against each other."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from reports.registers_import.cells import Cell, CellError, parse_cell, parse_day, parse_moment
from reports.registers_import.problems import RegisterFileError
from reports.registers_import.schemas import row_problems
from reports.registers_import.table import Line, read_table
from reports.registers_import.terms import CreditTermsError, parse_credit_tiers
from storage.register_kinds import DECLARATIONS, WITHDRAWN, CellKind, Declaration, RegisterKind, Span
from storage.registers import ALWAYS, FOREVER, RegisterRow, row_text

_DAY = timedelta(days=1)
# What only code can judge, by column: from the cell's text to nothing, or to an error that says what is wrong.
_JUDGES = {(RegisterKind.CONTRACTS, "credit_tiers"): parse_credit_tiers}

Document = Mapping[str, Cell]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A row that is sound by itself."""

    line: int
    document: Document


def read_rows(name: str, content: bytes, kind: RegisterKind) -> tuple[RegisterRow, ...]:
    """The rows of a register's CSV, checked all by themselves and against each other.

    `name` is for the sentences. RegisterFileError has everything that is wrong, in order of lines. Overlaps are not
    looked for here, since rows that are stored already take part in them: see `changes`.
    """
    declaration = DECLARATIONS[kind]
    table = read_table(name, content, declaration)
    problems = list(table.problems)
    candidates = []
    for line in table.lines:
        document, found = _document(table.header, line, declaration)
        found = found or [*_row_problems(declaration, document)]
        problems += [f"line {line.number}: {problem}" for problem in found]
        candidates += [] if found else [_Candidate(line.number, document)]
    problems += _repeated(declaration, candidates)
    if problems:
        raise RegisterFileError(name, sorted(problems, key=_line_of))
    return tuple(_row(declaration, candidate) for candidate in candidates)


def _line_of(problem: str) -> int:
    return int(problem.removeprefix("line ").partition(":")[0])


def _document(header: Sequence[str], line: Line, declaration: Declaration) -> tuple[Document, list[str]]:
    """The row as its JSON document, and what is wrong with single cells; empty cells are left out."""
    document: dict[str, Cell] = {}
    problems = []
    for name, text in zip(header, line.cells, strict=True):
        if not text:
            continue
        try:
            document[name] = parse_cell(declaration.column(name), text)
        except CellError as error:
            problems.append(f"{name} {error}")
    return document, problems


def _row_problems(declaration: Declaration, document: Document) -> Iterator[str]:
    yield from row_problems(declaration.kind, document)
    for first, then in declaration.ordered:
        if _is_out_of_order(declaration, document, first, then):
            verb = "must be before" if _is_moment(declaration, then) else "must not exceed"
            yield f"{first} is {document[first]}, {then} is {document[then]}; {first} {verb} {then}"
    for (kind, name), judge in _JUDGES.items():
        if kind is declaration.kind and name in document:
            try:
                judge(str(document[name]))
            except CreditTermsError as error:
                yield f"{name} {error}"


def _is_out_of_order(declaration: Declaration, document: Document, first: str, then: str) -> bool:
    if first not in document or then not in document:
        return False
    before, after = document[first], document[then]
    if isinstance(before, str) and isinstance(after, str):  # ISO 8601 sorts as its times do
        return before > after or (before == after and _is_moment(declaration, then))
    return not isinstance(before, str) and not isinstance(after, str) and before > after


def _is_moment(declaration: Declaration, name: str) -> bool:
    return declaration.column(name).kind is CellKind.MOMENT


def _repeated(declaration: Declaration, candidates: Sequence[_Candidate]) -> Iterator[str]:
    seen: dict[str, int] = {}
    for candidate in candidates:
        first = seen.setdefault(_key(declaration, candidate.document), candidate.line)
        if first != candidate.line:
            told = ", ".join(f"{name} {candidate.document.get(name, '(empty)')}" for name in declaration.key)
            yield f"line {candidate.line}: the same {told} as in line {first}; one row may say it"


def _key(declaration: Declaration, document: Document) -> str:
    return json.dumps([document.get(name) for name in declaration.key], ensure_ascii=False)


def _row(declaration: Declaration, candidate: _Candidate) -> RegisterRow:
    document = candidate.document
    begins_at, ends_at = _bounds(declaration.span, document) if declaration.span else (ALWAYS, FOREVER)
    told = {name: cell for name, cell in document.items() if name != WITHDRAWN.name}
    return RegisterRow(
        line=candidate.line,
        key=_key(declaration, document),
        text=row_text(told),
        begins_at=begins_at,
        ends_at=ends_at,
        withdrawn=document.get(WITHDRAWN.name) is True,
    )


def _bounds(span: Span, document: Document) -> tuple[datetime, datetime]:
    """Begin and end, itself excluded, of what a row is about; days as those of UTC."""
    start = str(document[span.start])
    begins_at = parse_moment(start) if "T" in start else _midnight(start)
    if span.minutes:
        minutes = document[span.minutes] if isinstance(span.minutes, str) else span.minutes
        return begins_at, begins_at + timedelta(minutes=float(minutes))
    end = document.get(span.end)
    if end is None:
        return begins_at, FOREVER
    return begins_at, parse_moment(str(end)) if "T" in str(end) else _midnight(str(end)) + _DAY


def _midnight(day: str) -> datetime:
    return datetime.combine(parse_day(day), time(), UTC)
