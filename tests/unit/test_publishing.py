"""Publications in every format: what they say, and that no name that came from outside does anything in them."""

import csv
import io
import json
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from importlib.resources import files
from xml.etree import ElementTree

import pytest

from reports.figures import Definition, Evidence, Kpi
from reports.period import Period
from reports.publishing.html import render_html
from reports.publishing.layout import laid_out, localised
from reports.publishing.publication import (
    Blank,
    Cards,
    Change,
    Column,
    Language,
    Name,
    Pairs,
    Publication,
    Seal,
    Section,
    Table,
    Words,
)
from reports.publishing.sheets import render_csv, render_xlsx
from reports.render import figure, number

typst = pytest.importorskip("typst")
from reports.publishing.pdf import render_pdf  # noqa: E402 - only where Typst is installed

NOW = datetime(2026, 11, 2, 8, 30, 12, 345678, tzinfo=UTC)
# Each does something in Typst, HTML, a spreadsheet, a format string or a regular expression when it is not quoted.
HOSTILE = (
    '#panic("owned")',
    '#read("/etc/passwd")',
    "$x^2$ *bold* _under_ @label <label> // comment /* open",
    "]] #let page-data = none [[",
    "\\u{0} \\ `raw` ```",
    "<script>alert(1)</script>",
    '=HYPERLINK("http://evil.test";"x")',
    "+1+1",
    "@SUM(A1)",
    "{0} {name} {{ 7*7 }} {% raw %}",
    "Ærlig Størrelse Åsgård \u202e desrever",
    "a" * 400,
)  # fmt: skip


def kpi(key: str, value: float | None, *, title: str = "Site energy", reason: str = "") -> Kpi:
    words = Definition(key=key, title=title, unit="MWh", boundary="All.", method="E = Σ.", source="ISO/IEC 30134-2")
    evidence = None if value is None else Evidence(coverage=0.998, share_estimated=0.01, uncertainty=0.01)
    return Kpi(words, value, "MWh", evidence, reason)


def publication(name: str = "Kvandal") -> Publication:
    table = Table(
        key="meters",
        title="Meters",
        columns=(Column("Meter"), Column("Energy, MWh", 2, numeric=True)),
        rows=[(Name(name), 1234.5), (Name("silent"), Blank("no readings")), (Name("empty"), None)],
    )
    figures = (kpi("site", 1234.5), kpi("water", None, title="Water", reason="No water register was imported."))
    blocks = (Cards(figures), table, Words((Name(name),)), Pairs([(Name(name), Name(name))]))
    return Publication(
        report="example",
        kicker="Sustainability report",
        site=Name(name),
        period=Period.parse("2026-10"),
        complete=True,
        generated_at=NOW,
        software="Kvandal 1",
        summary=f"{name} used energy.",
        facts=[("Site", Name(name))],
        sections=(Section(title="All", blocks=blocks),),
        figures=figures,
        document={"site": name, "figures": [1234.5, None]},
    )


SEAL = Seal(
    restatement=2,
    approver="Sustainability Officer",
    frozen_at=NOW,
    document_sha256="ab" * 32,
    reason="The heat meter was read again.",
    changes=[Change(of="input", key="meter H1", title="heat meter", before=10.0, after=12.5, unit="MWh")],
)


def test_no_name_does_anything_in_a_pdf_but_be_shown_as_it_is_spelt() -> None:
    """Typst itself says what text its document has, from the same template and data."""
    name = " ".join(HOSTILE)
    assert render_pdf(publication(name), Language.ENGLISH, SEAL).startswith(b"%PDF-1.7")
    page = json.dumps(laid_out(publication(name), Language.ENGLISH) | {"font": "Libertinus Serif", "author": "test"})
    source = files("reports").joinpath("templates/publication.typ").read_bytes()
    (heading,) = json.loads(typst.query(source, "heading.where(level: 1)", sys_inputs={"page": page}))
    assert heading["body"]["children"][0]["text"] == name


def test_the_same_publication_gives_the_same_bytes() -> None:
    assert render_pdf(publication(), Language.ENGLISH) == render_pdf(publication(), Language.ENGLISH)
    assert render_xlsx(publication(), Language.ENGLISH) == render_xlsx(publication(), Language.ENGLISH)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_page_escapes_every_name(name: str) -> None:
    page = render_html(publication(name), Language.ENGLISH, SEAL)
    assert "<script>" not in page
    assert "default-src 'none'" in page
    assert "Sustainability Officer" in page


@pytest.mark.parametrize("name", HOSTILE)
def test_a_spreadsheet_takes_no_name_for_a_formula(name: str) -> None:
    rows = list(csv.reader(io.StringIO(render_csv(publication(name), Language.ENGLISH))))
    assert all(not cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row)
    with zipfile.ZipFile(io.BytesIO(render_xlsx(publication(name), Language.ENGLISH, SEAL))) as book:
        sheets = [member for member in book.namelist() if member.startswith("xl/worksheets/sheet")]
        assert len(sheets) == 4  # the cover, the figures, what moved, the table
        trees = [ElementTree.fromstring(book.read(member)) for member in sheets]  # noqa: S314 - our own
    assert [tree.findall(".//{*}f") for tree in trees] == [[]] * 4


def test_a_missing_value_is_marked_and_never_zero() -> None:
    page = laid_out(publication(), Language.ENGLISH)
    cards, table = page["sections"][0]["blocks"][:2]
    assert cards["cards"][1]["value"] == "not available"
    assert cards["cards"][1]["reason"] == "No water register was imported."
    assert [(row[1]["text"], row[1]["blank"]) for row in table["rows"]] == [
        ("1\u2009234.50", False),
        ("not available", True),
        ("\u2013", False),
    ]
    lines = list(csv.DictReader(io.StringIO(render_csv(publication(), Language.ENGLISH))))
    assert (lines[1]["value"], lines[1]["quality"]) == ("", "not available")


def test_a_figure_is_shown_to_the_digit_that_its_uncertainty_leaves() -> None:
    card = laid_out(publication(), Language.ENGLISH)["sections"][0]["blocks"][0]["cards"][0]
    assert (card["value"], card["margin"]) == ("1\u2009234", "±\u200912")
    assert card["evidence"] == ["99.8\u2009% observed", "1.0\u2009% estimated"]


def test_a_restatement_says_first_what_it_changes_and_why() -> None:
    page = laid_out(publication(), Language.ENGLISH, SEAL)
    moved = page["sections"][0]
    assert moved["title"] == "What this restatement changes"
    assert moved["blocks"][1]["pairs"] == [["Reason given", "The heat meter was read again."]]
    assert [cell["text"] for cell in moved["blocks"][2]["rows"][0]] == [
        "heat meter", "meter", "10.00", "12.50", "2.500", "MWh",
    ]  # fmt: skip
    assert ["SHA-256 of the document", "ab" * 32] in page["facts"]


def test_norwegian_has_decimal_commas_and_its_own_months() -> None:
    assert localised("1 Oct 2026, 12.5 MWh", Language.NORWEGIAN) == "1. okt. 2026, 12,5 MWh"
    assert localised("May 2026", Language.NORWEGIAN) == "mai 2026"
    assert localised("October 2026", Language.ENGLISH) == "October 2026"


def test_a_language_that_a_report_is_not_written_in_is_refused() -> None:
    with pytest.raises(ValueError, match="is not written in nb; give --language en"):
        render_html(publication(), Language.NORWEGIAN)
    translated = replace(
        publication(),
        translations={Language.NORWEGIAN: lambda text: text.replace("All", "Alt").replace("silent", "stum")},
    )
    page = laid_out(translated, Language.NORWEGIAN)
    assert page["sections"][0]["title"] == "Alt"
    assert page["sections"][0]["blocks"][1]["rows"][1][0]["text"] == "silent"  # a name stays what it is


def test_an_availability_is_never_rounded_up_to_100_percent() -> None:
    """Four nines and more are what contracts are about: 99.99996 % of a month is a second down."""
    words = Definition(key="a", title="Availability", unit="%", boundary="", method="", source="")
    evidence = Evidence(coverage=1.0, share_estimated=0.0)
    shown = [figure(Kpi(words, value, "%", evidence, digits=4)) for value in (99.99996, 99.9912, 100.0)]
    assert shown == ["99.9999", "99.9912", "100.0000"]
    column = Column("Contractual, %", 4, numeric=True, percentage=True)
    table = Table(key="t", title="", columns=(column,), rows=[(99.99996,), (100.0,)])
    page = laid_out(replace(publication(), sections=(Section(title="", blocks=[table]),)), Language.ENGLISH)
    (block,) = page["sections"][0]["blocks"]
    assert [row[0]["text"] for row in block["rows"]] == ["99.9999", "100.0000"]


def test_what_rounds_to_nothing_has_no_sign() -> None:
    assert [number(value, 2) for value in (-0.004, -0.006, 0.0)] == ["0.00", "\u22120.01", "0.00"]


def test_what_is_for_the_operator_comes_first_and_digests_may_be_broken() -> None:
    told = replace(publication("ab" * 32), problems=("contracts: a row names nobody",))
    page = laid_out(told, Language.ENGLISH)
    assert page["sections"][0]["title"] == "To be put right"
    assert page["sections"][0]["blocks"][0]["paragraphs"] == ["contracts: a row names nobody"]
    rows = page["sections"][1]["blocks"][1]["rows"]
    assert [row[0]["long"] for row in rows] == [True, False, False]
