"""A publication as a PDF that can be kept for decades (PDF/A-2, tagged), set by Typst from its wheel.

Texts reach Typst as data and are shown as strings: no name, however it is spelt, is ever read as markup. PDF/A demands
a glyph for every character: one that the font does not have, and one that nobody can see, is shown by its code, so that
no name can keep a report from being written.
"""

import json
import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import TypeVar, cast

import typst

from reports.publishing.layout import laid_out
from reports.publishing.publication import Language, Publication, Seal

# Both ship inside Typst's wheel: a report looks the same on every machine.
TEXT_FONT = "Libertinus Serif"
_CHART_FONT = re.compile(r'font-family="[^"]*"')
_UNSHOWN = re.compile(r'the text `"(.*?)"` could not be displayed', re.DOTALL)
_CODE = re.compile(r"\\u\{([0-9a-f]+)\}")
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})  # Unicode's categories of control, format and unassigned characters
_KEPT = frozenset("\n\t\u00ad")

Data = TypeVar("Data")


def render_pdf(publication: Publication, language: Language, seal: Seal | None = None) -> bytes:
    """The PDF; the same publication gives the same bytes."""
    page = laid_out(publication, language, seal)
    for section in page["sections"]:
        for block in section["blocks"]:
            if block["kind"] == "chart":
                block["svg"] = _printed(block["svg"])
    generated_at = publication.generated_at.astimezone(UTC).replace(microsecond=0)
    data = _shown(page | {"font": TEXT_FONT, "author": publication.software}, frozenset())
    missing: frozenset[str] = frozenset()
    while True:
        try:
            return _typeset(_shown(data, missing), generated_at)
        except typst.TypstError as error:
            found = _without_glyph(str(error)) - missing
            if not found:
                raise
            missing |= found


def _typeset(page: Mapping[str, object], generated_at: datetime) -> bytes:
    return typst.compile(
        files("reports").joinpath("templates/publication.typ").read_bytes(),
        format="pdf",
        sys_inputs={"page": json.dumps(page, ensure_ascii=False)},
        ignore_system_fonts=True,
        pdf_standards=["a-2a"],
        timestamp=generated_at,
    )


def _without_glyph(said: str) -> frozenset[str]:
    """The characters that the font does not have, by Typst's own word."""
    texts = (_CODE.sub(lambda code: chr(int(code[1], 16)), text) for text in _UNSHOWN.findall(said))
    return frozenset(one for text in texts for one in text if not one.isascii())


def _shown(data: Data, missing: frozenset[str]) -> Data:
    """The same data, its texts with nothing in them but what can be seen and is not `missing`."""
    found: object = data
    if isinstance(data, str):
        found = "".join(_code(one) if one in missing or _is_unseen(one) else one for one in data)
    elif isinstance(data, Mapping):
        found = {key: _shown(value, missing) for key, value in data.items()}
    elif isinstance(data, list | tuple):
        found = [_shown(value, missing) for value in data]
    return cast(Data, found)


def _is_unseen(one: str) -> bool:
    return unicodedata.category(one) in _UNSEEN and one not in _KEPT


def _code(one: str) -> str:
    return f"U+{ord(one):04X}"


def _printed(svg: str) -> str:
    """A chart with the report's own font and plain paper behind what is drawn hollow."""
    return _CHART_FONT.sub(f'font-family="{TEXT_FONT}"', svg)
