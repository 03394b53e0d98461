"""What a report says, apart from how it looks: the one record that every format is rendered from.

A report builds a `Publication` and knows no format; `html`, `pdf`, `sheets` and `documents` know no report.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from reports.figures import Kpi
from reports.period import Period
from reports.render import Chart


class Language(StrEnum):
    """The languages of reports, by their ISO 639-1 codes."""

    ENGLISH = "en"
    NORWEGIAN = "nb"


Translation = Callable[[str], str]


class Name(str):
    """What people called a thing. It is never translated, whatever it says."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Blank:
    """A value that is not there although it should be: shown as such, never as zero. `reason` says why."""

    reason: str = ""


Cell = str | float | int | date | Blank | None


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. Numbers have `digits` decimals, as many as suit them where it is absent.

    A page never rounds a `percentage` up to 100.
    """

    title: str
    digits: int | None = None
    numeric: bool = False
    percentage: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of cells; None is an empty cell, `Blank` a missing value. `key` names its sheet."""

    key: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    text: str = ""
    nothing: str = "Nothing to show."
    # A page lists so many rows; sheets list all.
    shown: int = 60


@dataclass(frozen=True, slots=True)
class Cards:
    """Key figures, each with its evidence; `margins` where they are of a kind that has an uncertainty."""

    kpis: Sequence[Kpi]
    margins: bool = True


@dataclass(frozen=True, slots=True)
class Words:
    """Paragraphs; a `notice` stands out."""

    paragraphs: Sequence[str]
    notice: bool = False


@dataclass(frozen=True, slots=True)
class Pairs:
    """Terms, and what is said of each."""

    pairs: Sequence[tuple[str, str]]


Block = Table | Cards | Words | Pairs | Chart


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the report under one heading; `new_page` begins it on a fresh page in print."""

    title: str
    blocks: Sequence[Block]
    text: str = ""
    new_page: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """Something that figures rest on, so that a restatement can say which of it moved."""

    kind: str
    id: str
    name: str
    value: float | str | None
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """What a frozen report says of itself. The digest is that of its document."""

    restatement: int
    approver: str
    frozen_at: datetime
    document_sha256: str
    reason: str = ""
    changes: "Sequence[Change]" = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What moved between two restatements; `of` is "figure" or "input"."""

    of: str
    key: str
    title: str
    before: float | str | None
    after: float | str | None
    unit: str = ""

    @property
    def delta(self) -> float | None:
        if isinstance(self.before, int | float) and isinstance(self.after, int | float):
            return self.after - self.before
        return None


UNFINISHED = "The period is not over. Coverage counts the time still to come as not observed."


def _no_page(seal: Seal | None) -> str | None:  # noqa: ARG001 - the signature of a report with a page of its own
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A report of one site and period, in English; `translations` into other languages.

    `document` is its JSON, `figures` its key figures (also the CSV), `inputs` what they rest on. `page` makes the HTML
    of a report that has a page of its own from the seal, if any; None for the page that all others share.

    `party` is whom it is for, where one report of a period is made for each of several; it is then frozen and restated
    apart from theirs. `folder`, below the one asked for, holds its files and nothing else. `evidence` are files by name
    that go beside it, named by what is in them. `problems` are sentences for the operator.
    """

    report: str
    kicker: str
    site: str
    period: Period
    complete: bool
    generated_at: datetime
    software: str
    summary: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    figures: Sequence[Kpi]
    document: Mapping[str, Any]
    inputs: Sequence[Input] = ()
    notices: Sequence[str] = ()
    unfinished: str = UNFINISHED
    party: str = ""
    folder: str = ""
    evidence: Mapping[str, bytes] = field(default_factory=dict)
    problems: Sequence[str] = ()
    translations: Mapping[Language, Translation] = field(default_factory=dict)
    page: Callable[[Seal | None], str | None] = _no_page

    @property
    def series(self) -> str:
        """What its restatements have in common, beside the period."""
        return f"{self.report} {self.party}" if self.party else self.report

    @property
    def tables(self) -> tuple[Table, ...]:
        return tuple(block for section in self.sections for block in section.blocks if isinstance(block, Table))

    def translation(self, language: Language) -> Translation:
        """How its texts are said in a language; ValueError where the report is not written in it."""
        if language is Language.ENGLISH:
            return str
        if language not in self.translations:
            raise ValueError(f"the {self.report} report is not written in {language}; give --language en")
        return self.translations[language]
