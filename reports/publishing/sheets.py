"""Key figures as CSV, and a whole publication as a workbook: numbers stay numbers, names stay text.

A spreadsheet runs a text that begins with = + - or @ as a formula. Names come from outside, so in CSV, which cannot say
"this is text", such a text gets an apostrophe before it; the workbook says of each cell what it is.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from datetime import UTC, date

import xlsxwriter  # type: ignore[import-untyped]
from xlsxwriter.format import Format  # type: ignore[import-untyped]
from xlsxwriter.workbook import Workbook  # type: ignore[import-untyped]
from xlsxwriter.worksheet import Worksheet  # type: ignore[import-untyped]

from reports.figures import Kpi
from reports.publishing.layout import NOT_AVAILABLE, changes_table, laid_out
from reports.publishing.publication import Blank, Cell, Language, Name, Publication, Seal, Table, Translation
from reports.render import figure_digits

FIGURE_COLUMNS = (
    "key", "title", "value", "unit", "plus_minus", "quality", "coverage", "share_estimated", "reason", "note",
    "boundary", "method", "source",
)  # fmt: skip
_STARTS_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_WIDEST = 70  # characters; longer texts wrap
_SHEET_NAME = 31  # characters, as Excel allows


def render_csv(publication: Publication, language: Language) -> str:
    """All key figures, a line each; a value that is not there is an empty cell with a reason."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(("site", "period", *FIGURE_COLUMNS))
    say = publication.translation(language)
    for kpi in publication.figures:
        cells = (publication.site, publication.period.text, *_figure(kpi, say))
        writer.writerow(_harmless(cell) for cell in cells)
    return out.getvalue()


def _figure(kpi: Kpi, say: Translation) -> tuple[Cell, ...]:
    evidence, words = kpi.evidence, kpi.definition
    said = [say(text) if text else "" for text in (kpi.reason, kpi.note)]
    return (
        words.key, say(words.title), kpi.value, say(kpi.unit) if kpi.unit else "", kpi.plus_minus,
        say(kpi.quality.value), evidence.coverage if evidence else None,
        evidence.share_estimated if evidence else None, *said, say(words.boundary), say(words.method),
        say(words.source),
    )  # fmt: skip


def _harmless(cell: Cell) -> Cell:
    if isinstance(cell, str) and cell.startswith(_STARTS_FORMULA):
        return f"'{cell}"
    return cell


def render_xlsx(publication: Publication, language: Language, seal: Seal | None = None) -> bytes:
    """The workbook: a sheet that says what it is, the key figures, and a sheet for every table."""
    out = io.BytesIO()
    options = {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
    with xlsxwriter.Workbook(out, options) as book:
        created = publication.generated_at.astimezone(UTC).replace(tzinfo=None)
        book.set_properties({"title": f"{publication.site} {publication.period.text}", "created": created})
        _Sheets(book, publication, language, seal).write()
    return out.getvalue()


class _Sheets:
    def __init__(self, book: Workbook, publication: Publication, language: Language, seal: Seal | None) -> None:
        self._book, self._publication, self._language, self._seal = book, publication, language, seal
        self._say = publication.translation(language)
        self._head = book.add_format({"bold": True, "bottom": 1, "text_wrap": True, "valign": "top"})
        self._text = book.add_format({"text_wrap": True, "valign": "top"})
        self._blank = book.add_format({"italic": True, "font_color": "#7a5200", "bg_color": "#fbf0d6", "valign": "top"})
        self._day = book.add_format({"num_format": "yyyy-mm-dd", "valign": "top", "align": "left"})
        self._numbers: dict[int | None, Format] = {}

    def write(self) -> None:
        self._cover()
        self._figures()
        tables = self._publication.tables
        moved = (changes_table(self._seal.changes),) if self._seal and self._seal.restatement > 1 else ()
        for table in (*moved, *tables):
            self._table(table)

    def _cover(self) -> None:
        page = laid_out(self._publication, self._language, self._seal)
        sheet = self._sheet(self._say("Report"), (24, _WIDEST))
        lines = [(page["kicker"], page["site"]), (page["title"], page["summary"])]
        lines += [(term, text) for term, text in page["facts"]] + [("", notice) for notice in page["notices"]]
        for row, (term, text) in enumerate(lines):
            sheet.write_string(row, 0, term, self._head if row == 0 else self._text)
            sheet.write_string(row, 1, text, self._head if row == 0 else self._text)

    def _figures(self) -> None:
        rows = [_figure(kpi, self._say) for kpi in self._publication.figures]
        sheet = self._sheet(self._say("Key figures"), _widths(FIGURE_COLUMNS, rows))
        digits = [_figure_digits(kpi) for kpi in self._publication.figures]
        self._rows(sheet, FIGURE_COLUMNS, [_with_blank(row) for row in rows], digits)

    def _table(self, table: Table) -> None:
        titles = [self._say(column.title) for column in table.columns]
        rows = [[self._said(cell) for cell in row] for row in table.rows]
        sheet = self._sheet(table.key, _widths(titles, rows))
        self._rows(sheet, titles, rows, [[column.digits for column in table.columns]] * len(rows))

    def _said(self, cell: Cell) -> Cell:
        plain = isinstance(cell, str) and not isinstance(cell, Name)
        return self._say(str(cell)) if plain else cell

    def _sheet(self, name: str, widths: Sequence[float]) -> Worksheet:
        sheet = self._book.add_worksheet(name[:_SHEET_NAME])
        for column, width in enumerate(widths):
            sheet.set_column(column, column, width)
        sheet.set_landscape()
        sheet.set_paper(9)  # A4
        sheet.fit_to_pages(1, 0)
        return sheet

    def _rows(
        self,
        sheet: Worksheet,
        titles: Sequence[str],
        rows: Sequence[Sequence[Cell]],
        digits: Sequence[Sequence[int | None]],
    ) -> None:
        sheet.freeze_panes(1, 1)
        sheet.repeat_rows(0)
        for column, title in enumerate(titles):
            sheet.write_string(0, column, title, self._head)
        for line, (row, decimals) in enumerate(zip(rows, digits, strict=True), start=1):
            for column, cell in enumerate(row):
                self._cell(sheet, line, column, cell, decimals[column])

    def _cell(self, sheet: Worksheet, line: int, column: int, cell: Cell, digits: int | None) -> None:
        if isinstance(cell, Blank):
            sheet.write_string(line, column, self._say(NOT_AVAILABLE), self._blank)
        elif isinstance(cell, str):
            sheet.write_string(line, column, cell, self._text)
        elif isinstance(cell, date):
            sheet.write_datetime(line, column, cell, self._day)
        elif cell is not None:
            sheet.write_number(line, column, cell, self._number(digits))

    def _number(self, digits: int | None) -> Format:
        if digits not in self._numbers:
            form = "General" if digits is None else "#,##0" + ("." + "0" * digits if digits else "")
            self._numbers[digits] = self._book.add_format({"num_format": form, "valign": "top"})
        return self._numbers[digits]


def _figure_digits(kpi: Kpi) -> list[int | None]:
    """Decimals by column: of value and uncertainty as a page shows them, of shares four."""
    shown = figure_digits(kpi)
    told = {"value": shown, "plus_minus": shown, "coverage": 4, "share_estimated": 4}
    return [told.get(column) for column in FIGURE_COLUMNS]


def _with_blank(row: tuple[Cell, ...]) -> tuple[Cell, ...]:
    place = FIGURE_COLUMNS.index("value")
    return (*row[:place], Blank() if row[place] is None else row[place], *row[place + 1 :])


def _widths(titles: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[float]:
    return [min(max(8, *lengths) + 2, _WIDEST) for lengths in _lengths(titles, rows)]


def _lengths(titles: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Iterator[list[int]]:
    for place, title in enumerate(titles):
        yield [len(title), *(len(str(row[place])) if isinstance(row[place], str) else 12 for row in rows)]
