"""Names, texts, customers and jobs as an attacker would choose them, from the wire to the rendered reports.

One site is told twice, once with plain names and once with hostile ones. The figures have to be the same; pages may
have no element and no attribute that the plain ones have not; spreadsheets no formula; terminals no control character.
"""

import csv
import io
import json
import logging
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dashboards.preview import write_previews
from kvandal.logs import FieldFormatter
from kvandal.publishing import Format, PublishRequest, publish
from reports.efficiency import write_efficiency_report
from reports.heat_publication import read_heat_publication
from reports.publishing.publication import Language
from reports.site import write_site_report
from storage.client import connect
from storage.job_energy import JobEnergyKeeper
from storage.reader import Reader
from storage.schema import apply
from stream.messages import EventMessage, InventoryMessage, Message
from stream.tail import describe
from stream.topics import Content
from tests.conftest import DoorUnderTest
from tests.servers.efficiency_site import FilledSite, fill_site
from tests.servers.stack import run

pytest.importorskip("chdb")

pytestmark = pytest.mark.timeout(600)  # two days of a site and all their reports, on a loaded machine
GPUS, SEED, FAULT_RATE, LEAD_H = 16, 8, 500.0, 1
BOARDS = ("kvandal-jobs", "kvandal-customers", "kvandal-reliability")  # those with most names and texts
# Each also carries a number, so that what is different stays different.
HOSTILE = (
    "'; DROP TABLE gpu; --",
    "') OR 1=1 UNION SELECT * FROM file('/etc/passwd') --",
    "{name:String} $1 %(name)s {{ 7*7 }} {% raw %}",
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "</title></svg><svg onload=alert(1)>",
    "=cmd|'/C calc'!A0",
    "+1+cmd|' /C calc'!A0",
    "@SUM(1+9)*cmd|'x'!A0",
    "-2+3",
    "\t=1+1",
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b31m red",
    "line\nINFO    kvandal: a line that we never wrote",
    "\r\nX-Header: injected",
    "../../../../etc/passwd",
    "C:\\..\\..\\x:y",
    '#import "/etc/passwd"; #panic("typst") #eval("1")',
    "$equation$ *bold* @reference <label> `raw` \\ ] ) }",
    "$(touch /tmp/kvandal-owned) `touch /tmp/kvandal-owned`; | & > <",
    "\u202egnp.exe \u200b\ufeff\u2066",
    "nul \x00 and del \x7f",
    "🔥" * 20 + "é" * 20,
)


class Renaming:
    """Gives everything a hostile name, the same one each time, and nothing the name of another."""

    def __init__(self) -> None:
        self._numbers = count()
        self.given: dict[str, str] = {}

    def __call__(self, message: Message) -> Message:
        if isinstance(message, InventoryMessage):
            # What a source calls itself and things: attributes that reports add up by keep their words.
            facts = {"model": self._name(message.attributes.get("model", "")), "note": self._name("note")}
            return msgspec.structs.replace(
                message, name=self._name(message.name), attributes=message.attributes | facts
            )
        if isinstance(message, EventMessage):
            return msgspec.structs.replace(
                message, text=self._name(message.text), attributes=message.attributes | {"note": self._name("note")}
            )
        changed = {key: self._name(getattr(message, key)) for key in ("job", "name", "owner", "customer")}
        return msgspec.structs.replace(message, **changed)

    def _name(self, plain: str) -> str:
        if not plain:
            return plain
        if plain not in self.given:
            number = next(self._numbers)
            self.given[plain] = f"{HOSTILE[number % len(HOSTILE)]}{number}"
        return self.given[plain]


@dataclass(frozen=True, slots=True)
class Written:
    """What one telling of the site became."""

    folder: Path
    site: FilledSite

    def text(self, pattern: str) -> str:
        (path,) = self.folder.glob(pattern)
        return path.read_text(encoding="utf-8-sig")

    def document(self, pattern: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.text(pattern))
        return found


@pytest.fixture(scope="module")
def renaming() -> Renaming:
    return Renaming()


@pytest.fixture(scope="module")
def plain(door: DoorUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    return write_everything(door, tmp_path_factory.mktemp("plain"), lambda message: message)


@pytest.fixture(scope="module")
def hostile(
    door: DoorUnderTest, plain: Written, tmp_path_factory: pytest.TempPathFactory, renaming: Renaming
) -> Iterator[Written]:
    """After the plain one, whose files are written: its store stays for the tests that ask it."""
    assert plain.folder.exists()
    yield write_everything(door, tmp_path_factory.mktemp("hostile"), renaming)
    door.empty()


def write_everything(door: DoorUnderTest, folder: Path, rename: Callable[[Message], Message]) -> Written:
    door.empty()
    with closing(connect(door.address())) as client:
        apply(client)
        site = fill_site(client, gpus=GPUS, seed=SEED, fault_rate=FAULT_RATE, lead_h=LEAD_H, rename=rename)
        JobEnergyKeeper(client).recompute()
        reader = Reader(client)
        write_site_report(reader, site.period, folder, now=site.now)
        write_efficiency_report(reader, site.period, folder, now=site.now)
        publication = read_heat_publication(reader, site.period, site.now)
        request = PublishRequest(out=folder, formats=list(Format), languages=(Language.ENGLISH,))
        publish(client, publication, request, now=site.now)
    write_previews(door.address("grafana"), folder / "preview", end=site.now, only=BOARDS)
    return Written(folder, site)


def test_the_figures_are_the_same_whatever_things_are_called(plain: Written, hostile: Written) -> None:
    assert hostile.site.period == plain.site.period
    for pattern in ("efficiency-*.json", "heat-*.json"):
        same = pytest.approx(figures(plain.document(pattern)), rel=1e-9, abs=1e-12)  # sums of another order
        assert figures(hostile.document(pattern)) == same
        assert len(figures(plain.document(pattern))) > 20


def figures(document: object) -> list[float]:
    """Every number of a document, in ascending order: by name, its rows may stand in another order."""
    if isinstance(document, dict):
        return sorted(number for value in document.values() for number in figures(value))
    if isinstance(document, list):
        return sorted(number for value in document for number in figures(value))
    is_number = isinstance(document, int | float) and not isinstance(document, bool)
    return [float(document)] if is_number else []  # type: ignore[arg-type]


class Parts(HTMLParser):
    """The elements of a page, each with the names of its attributes; and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: set[tuple[str, tuple[str, ...]]] = set()
        self.names: set[str] = set()
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add((tag, tuple(sorted(name for name, _ in attrs))))
        self.names |= {tag, *(name for name, _ in attrs)}
        for name, value in attrs:
            assert not name.startswith("on"), (tag, name)
            assert not (value or "").strip().lower().startswith("javascript:")

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_pages_have_no_element_that_the_plain_ones_have_not(plain: Written, hostile: Written) -> None:
    pages = [path.relative_to(hostile.folder) for path in hostile.folder.rglob("*.html")]
    assert len(pages) == 3 + len(BOARDS)  # the reports and the dashboards
    for page in pages:
        found = Parts((hostile.folder / page).read_text())
        known = Parts((plain.folder / page).read_text())
        assert found.names <= known.names | {"title"}, page
        assert not found.names & {"script", "iframe", "object", "embed", "img", "link"}, page


def test_names_stand_in_the_report_as_they_were_sent(hostile: Written, renaming: Renaming) -> None:
    """Escaped, not dropped: the page's text has them, as far as they can be seen."""
    shown = " ".join("".join(Parts(hostile.text("efficiency-*.html")).words).split())
    customers = {name for name in renaming.given.values() if " ".join(name.split()) in shown}
    assert len(customers) >= 5


def test_no_cell_begins_a_formula(hostile: Written) -> None:
    for path in hostile.folder.glob("heat-*.csv"):
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
        assert len(rows) > 10
        for cell in (cell for row in rows for cell in row):
            assert not cell.startswith(("=", "@", "\t", "\r")), cell
            assert not cell.startswith(("+", "-")) or is_number(cell), cell
    for path in hostile.folder.glob("heat-*.xlsx"):
        with zipfile.ZipFile(path) as book:
            sheets = [book.read(name) for name in book.namelist() if name.startswith("xl/worksheets/")]
        assert sheets
        assert not [sheet for sheet in sheets if b"<f>" in sheet or b"<f " in sheet]


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text == "-"
    return True


def test_the_pdf_is_written_and_nothing_was_run(hostile: Written) -> None:
    (path,) = hostile.folder.glob("heat-*.pdf")
    assert path.read_bytes().startswith(b"%PDF-")
    assert not Path("/tmp/kvandal-owned").exists()  # noqa: S108 - what one of the names would make
    # Nothing was written anywhere else.
    assert {part.parent for part in hostile.folder.rglob("*")} <= {hostile.folder, hostile.folder / "preview"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("topology", "show", "--whole"),
        ("topology", "conflicts"),
        ("query", "SELECT name, job, owner, customer FROM jobs LIMIT 200"),
        ("query", "SELECT text, attributes FROM events LIMIT 200"),
    ],
    ids=" ".join,
)
def test_a_terminal_gets_no_control_character(
    door: DoorUnderTest, hostile: Written, arguments: tuple[str, ...]
) -> None:
    assert hostile.folder.exists()
    reader = door.address("reports")
    settings = {"KVANDAL_STORE_URL": reader.url, "KVANDAL_STORE_USER": reader.user}
    done = run(*arguments, settings=settings | {"KVANDAL_STORE_PASSWORD": reader.password})

    assert "Traceback" not in done.err
    assert done.code in (0, 1), done.err
    for text in (done.out, done.err):
        assert [one for one in text if not one.isprintable() and one not in "\n\t"] == []
    assert not [line for line in done.out.splitlines() if line.startswith("INFO")]


def test_the_store_is_as_it_was(door: DoorUnderTest, hostile: Written, renaming: Renaming) -> None:
    """No statement came out of a name, and names are stored as they were sent."""
    assert hostile.site.period
    with closing(connect(door.address("reports"))) as client:
        stored = {name for (name,) in client.query("SELECT DISTINCT name FROM inventory").result_rows}
        tables = {name for (name,) in client.query("SHOW TABLES").result_rows}
        jobs = {job for (job,) in client.query("SELECT DISTINCT job FROM jobs").result_rows}
        asked = [
            client.query("SELECT count() FROM jobs WHERE job = {job:String}", parameters={"job": job}).result_rows[0][0]
            for job in sorted(jobs)[:40]
        ]
    assert {"gpu", "jobs", "inventory"} <= tables
    assert len(stored & set(renaming.given.values())) > GPUS
    assert jobs <= set(renaming.given.values())
    assert all(asked)  # and come back when they are asked for


@pytest.mark.parametrize("name", HOSTILE)
def test_a_log_line_stays_one_line(name: str) -> None:
    record = logging.makeLogRecord({"msg": "waiting: %s", "args": (name,), "source": name, "levelname": "INFO"})

    line = FieldFormatter("%(levelname)s %(message)s").format(record)

    assert line.isprintable()
    assert line.startswith("INFO waiting: ")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_message_of_the_wire_is_shown_as_one_line(name: str) -> None:
    assert "\n" not in describe(Content.EVENTS, name.encode(), "0:1")
