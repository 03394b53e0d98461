"""A publication in one language as plain strings, which the templates of HTML and PDF then only place.

Numbers, dates and translations are decided here, once; a template never formats, and a text is never markup.
"""

import html
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

from reports.figures import THIN_SPACE, Kpi
from reports.publishing.publication import (
    Blank,
    Block,
    Cards,
    Cell,
    Change,
    Column,
    Language,
    Name,
    Pairs,
    Publication,
    Seal,
    Section,
    Table,
    Translation,
    Words,
)
from reports.render import DASH, Chart, below_whole, figure, margin, number, percent, period_title

NOT_AVAILABLE = "not available"
LONG_WORD = 32  # letters from which a word, such as a digest, is broken where its column ends
NOT_FROZEN = "Not frozen: late readings may still change these figures."
_MONTHS_NB = (
    "januar", "februar", "mars", "april", "mai", "juni", "juli", "august", "september", "oktober", "november",
    "desember",
)  # fmt: skip
_MONTHS_EN = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_MONTH = re.compile(r"(?:\b(\d{1,2}) )?\b(" + "|".join(f"{month}|{month[:3]}" for month in _MONTHS_EN) + r")\b")
_SVG_TEXT = re.compile(r">([^<>]*)</text>")
_POINT = re.compile(r"(?<=\d)\.(?=\d)")


def laid_out(publication: Publication, language: Language, seal: Seal | None = None) -> dict[str, Any]:
    """Everything that the page says, as strings in the order in which it is shown."""
    say = publication.translation(language)
    layout = _Layout(say, language)
    title = localised(period_title(publication.period), language)
    facts = [*publication.facts, *_seal_facts(seal, publication)]
    footer = [
        publication.party or publication.site,
        title,
        publication.software,
        say("generated {time}").format(time=_moment(publication.generated_at, language)),
    ]
    standing = say("Frozen, and approved by {approver}.").format(approver=seal.approver) if seal else say(NOT_FROZEN)
    return {
        "lang": language.value,
        "site": publication.party or str(publication.site),
        "title": title,
        "kicker": say(publication.kicker),
        "summary": say(publication.summary),
        "notices": [say(notice) for notice in _notices(publication)],
        "facts": [[say(term), _said(text, layout)] for term, text in facts],
        "sections": [
            layout.section(section) for section in (*_moved(seal), *_amiss(publication), *publication.sections)
        ],
        "footer": f"{' · '.join(footer)}. {standing}",
        "contents": say("Contents"),
    }


def localised(text: str, language: Language) -> str:
    """Month names and decimal points of a number or a date, as the language has them."""
    if language is not Language.NORWEGIAN:
        return text
    return _POINT.sub(",", _MONTH.sub(lambda found: f"{_day(found[1])}{_month(found[2])}", text))


def _day(day: str | None) -> str:
    """Of a date the day, which is an ordinal number."""
    return f"{day}. " if day else ""


def _month(name: str) -> str:
    place = next(place for place, month in enumerate(_MONTHS_EN) if month.startswith(name[:3]))
    full = _MONTHS_NB[place]
    return full if len(name) > 3 or len(full) <= 4 else f"{full[:3]}."


def _said(text: str, layout: "_Layout") -> str:
    return str(text) if isinstance(text, Name) else layout.say(text)


def _moment(moment: datetime, language: Language) -> str:
    return localised(f"{moment:%-d %b %Y %H:%M %Z}", language)


def _notices(publication: Publication) -> list[str]:
    return [*([] if publication.complete else [publication.unfinished]), *publication.notices]


def _seal_facts(seal: Seal | None, publication: Publication) -> list[tuple[str, str]]:
    if seal is None:
        return [("Standing", NOT_FROZEN)]
    local = publication.period.local(seal.frozen_at)
    return [
        ("Restatement", Name(str(seal.restatement))),
        ("Approved by", Name(seal.approver)),
        ("Frozen", f"{local:%-d %b %Y %H:%M %Z}"),
        ("SHA-256 of the document", Name(seal.document_sha256)),
    ]


def _moved(seal: Seal | None) -> list[Section]:
    """What a restatement changes; nothing for the first freezing."""
    if seal is None or seal.restatement == 1:
        return []
    words = ["This report replaces restatement {n} of the same period."]
    blocks: list[Block] = [Words([words[0].format(n=seal.restatement - 1)])]
    blocks.append(Pairs([("Reason given", Name(seal.reason))]))
    blocks.append(changes_table(seal.changes))
    return [Section(title="What this restatement changes", blocks=blocks)]


def _amiss(publication: Publication) -> list[Section]:
    """What the operator is to put right."""
    if not publication.problems:
        return []
    return [Section(title="To be put right", blocks=[Words([*publication.problems], notice=True)])]


def changes_table(changes: Sequence[Change]) -> Table:
    columns = (
        Column("What"), Column("Kind"), Column("Before", numeric=True), Column("After", numeric=True),
        Column("Change", numeric=True), Column("Unit"),
    )  # fmt: skip
    rows = [
        (
            Name(change.title) if change.of == "input" else change.title, _kind(change),
            _plain(change.before), _plain(change.after), change.delta, change.unit,
        )
        for change in changes
    ]  # fmt: skip
    return Table(key="changes", title="What moved", columns=columns, rows=rows, shown=200)


def _kind(change: Change) -> str:
    """figure; of an input what it is, such as meter."""
    return change.key.split(" ")[0] if change.of == "input" else change.of


def _plain(value: float | str | None) -> Cell:
    return Blank() if value is None else Name(value) if isinstance(value, str) else value


class _Layout:
    def __init__(self, say: Translation, language: Language) -> None:
        self.say, self.language = say, language

    def section(self, section: Section) -> dict[str, Any]:
        return {
            "title": self.say(section.title),
            "text": self.say(section.text) if section.text else "",
            "new_page": section.new_page,
            "blocks": [self._block(block) for block in section.blocks],
        }

    def _block(self, block: Block) -> dict[str, Any]:
        if isinstance(block, Table):
            return self._table(block)
        if isinstance(block, Cards):
            return {"kind": "cards", "cards": [self._card(kpi, margins=block.margins) for kpi in block.kpis]}
        if isinstance(block, Words):
            return {"kind": "words", "paragraphs": [_said(p, self) for p in block.paragraphs], "notice": block.notice}
        if isinstance(block, Pairs):
            return {"kind": "pairs", "pairs": [[_said(term, self), _said(text, self)] for term, text in block.pairs]}
        return self._chart(block)

    def _chart(self, chart: Chart) -> dict[str, Any]:
        return {
            "kind": "chart",
            "title": self.say(chart.title),
            "text": self.say(chart.text),
            "svg": _SVG_TEXT.sub(lambda found: f">{self._label(found[1])}</text>", chart.svg or ""),
            "wide": chart.wide,
            "nothing": self.say("Nothing to draw: the readings for this chart are missing."),
        }

    def _label(self, escaped: str) -> str:
        """A text of a drawing, which is markup and stays so."""
        return html.escape(self.say(html.unescape(escaped)), quote=False)

    def _table(self, table: Table) -> dict[str, Any]:
        left = len(table.rows) - table.shown
        more = self.say("{n} more rows are in the workbook beside this report.").format(n=left) if left > 0 else ""
        return {
            "kind": "table",
            "title": self.say(table.title),
            "text": self.say(table.text) if table.text else "",
            "columns": [{"title": self.say(c.title), "numeric": c.numeric} for c in table.columns],
            "rows": [
                [self.cell(cell, column) for cell, column in zip(row, table.columns, strict=True)]
                for row in table.rows[: table.shown]
            ],
            "more": more,
            "nothing": self.say(table.nothing),
        }

    def cell(self, cell: Cell, column: Column) -> dict[str, Any]:
        if isinstance(cell, Blank):
            return {"text": self.say(NOT_AVAILABLE), "blank": True, "long": False}
        text = self._cell_text(cell, column)
        return {"text": text, "blank": False, "long": any(len(word) >= LONG_WORD for word in text.split())}

    def _cell_text(self, cell: Cell, column: Column) -> str:
        if cell is None or isinstance(cell, Blank):
            return DASH
        if isinstance(cell, str):
            return _said(cell, self)
        if isinstance(cell, date):
            return localised(f"{cell:%-d %b %Y}", self.language)
        value = below_whole(float(cell), column.digits) if column.percentage else float(cell)
        return localised(number(value, column.digits), self.language)

    def _card(self, kpi: Kpi, *, margins: bool) -> dict[str, Any]:
        shown = {
            "title": self.say(kpi.definition.title),
            "unit": self.say(kpi.unit) if kpi.unit else "",
            "quality": self.say(kpi.quality.value),
            "quality_class": kpi.quality.name.lower(),
            "note": _said(kpi.note, self) if kpi.note else "",
        }
        if kpi.value is None:
            return shown | {"blank": True, "value": self.say(NOT_AVAILABLE), "reason": _said(kpi.reason, self)}
        value = localised(figure(kpi), self.language)
        return shown | {"blank": False, "value": value, **self._evidence(kpi, margins=margins)}

    def _evidence(self, kpi: Kpi, *, margins: bool) -> dict[str, Any]:
        plus_minus = localised(margin(kpi), self.language)
        unknown = self.say("uncertainty unknown") if margins else ""
        words: list[str] = []
        if kpi.evidence is not None:
            shares: Mapping[str, float] = {
                "{share} observed": kpi.evidence.coverage,
                "{share} estimated": kpi.evidence.share_estimated,
            }
            words = [
                self.say(form).format(share=localised(percent(share), self.language)) for form, share in shares.items()
            ]
        return {
            "margin": f"±{THIN_SPACE}{plus_minus}" if plus_minus else unknown,
            "evidence": words,
        }
