"""Names, texts, customers and jobs as an attacker would choose them, from the wire to the rendered reports.

One site is told twice, once with plain names and once with hostile ones. The figures have to be the same; pages may
have no element and no attribute that the plain ones have not; spreadsheets no formula; terminals no control character.
"""

import csv
import io
import json
import logging
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import count, cycle
from pathlib import Path
from typing import Any

import msgspec
import pytest
from clickhouse_connect.driver.client import Client

from dashboards.preview import write_previews
from kvandal.frozen_chain import FrozenChain
from kvandal.logs import FieldFormatter
from kvandal.publishing import Format, PublishRequest, publish
from reports.efficiency import write_efficiency_report
from reports.heat_publication import read_heat_publication
from reports.period import Period
from reports.publishing.publication import Language
from reports.site import write_site_report
from reports.sustainability.publication import read_sustainability_publication
from storage.client import connect
from storage.job_energy import JobEnergyKeeper
from storage.reader import Reader
from storage.register_kinds import RegisterKind
from storage.schema import apply
from stream.messages import EventMessage, InventoryMessage, Message
from stream.tail import describe
from stream.topics import Content
from tests.conftest import DoorUnderTest
from tests.servers.efficiency_site import FilledSite, fill_site
from tests.servers.sla_registers import CONTRACT, bring
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


PARTIES = ("Aurora", "Borealis", "Castor", "Dione")
# A register is a file: what no text file has, its import refuses.
HOSTILE_PARTIES = tuple(f"{HOSTILE[number]} {number}" for number in (3, 6, 15, 17))
# In every format: heat, sustainability, each customer's SLA, and the summary of all customers.
PUBLISHED = 2 + len(PARTIES) + 1


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
    return write_everything(door, tmp_path_factory.mktemp("plain"), lambda message: message, PARTIES)


@pytest.fixture(scope="module")
def hostile(
    door: DoorUnderTest, plain: Written, tmp_path_factory: pytest.TempPathFactory, renaming: Renaming
) -> Iterator[Written]:
    """After the plain one, whose files are written: its store stays for the tests that ask it."""
    assert plain.folder.exists()
    yield write_everything(door, tmp_path_factory.mktemp("hostile"), renaming, HOSTILE_PARTIES)
    door.empty()


def agree(client: Client, site: FilledSite, parties: Sequence[str]) -> None:
    """Contracts with these parties, who have all trays between them."""
    terms = [
        {**CONTRACT, "contract": f"{party} 1", "party": party, "unit": unit, "minimum_outage_s": "60"}
        for party, unit in zip(parties, cycle(("gpu", "node")), strict=False)
    ]
    trays = [resource.identity for resource in site.simulation.site.resources() if resource.kind == "tray"]
    start = site.period.start.isoformat()
    held = [
        {"contract": one["contract"], "resource_kind": "tray", "resource": tray, "start": start}
        for one, tray in zip(cycle(terms), trays, strict=False)
    ]
    bring(client, RegisterKind.CONTRACTS, terms)
    bring(client, RegisterKind.ALLOCATIONS, held)


def write_everything(
    door: DoorUnderTest, folder: Path, rename: Callable[[Message], Message], parties: Sequence[str]
) -> Written:
    door.empty()
    with closing(connect(door.address())) as client:
        apply(client)
        site = fill_site(client, gpus=GPUS, seed=SEED, fault_rate=FAULT_RATE, lead_h=LEAD_H, rename=rename)
        JobEnergyKeeper(client).recompute()
        reader = Reader(client)
        write_site_report(reader, site.period, folder, now=site.now)
        write_efficiency_report(reader, site.period, folder, now=site.now)
        agree(client, site, parties)
        month = Period.parse(f"{site.period.start:%Y-%m}", "UTC")
        request = PublishRequest(out=folder, formats=list(Format), languages=(Language.ENGLISH,))
        publish(FrozenChain(client), read_heat_publication(reader, site.period, site.now), request, now=site.now)
        publish(FrozenChain(client), read_sustainability_publication(reader, month, site.now), request, now=site.now)
    asker = door.address("reports")
    settings = {"KVANDAL_STORE_URL": asker.url, "KVANDAL_STORE_USER": asker.user}
    day, formats = f"{site.period.start:%Y-%m-%d}", ",".join(Format)
    done = run("report", "sla", "--period", day, "--out", str(folder), "--format", formats,
               settings=settings | {"KVANDAL_STORE_PASSWORD": asker.password}, timeout_s=300)  # fmt: skip
    assert done.code == 0, done.err
    write_previews(door.address("grafana"), folder / "preview", end=site.now, only=BOARDS)
    return Written(folder, site)


def test_the_figures_are_the_same_whatever_things_are_called(plain: Written, hostile: Written) -> None:
    assert hostile.site.period == plain.site.period
    for pattern in ("efficiency-*.json", "heat-*.json", "sustainability-*.json", "sla-*/sla-summary-*.json"):
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
    # Of the site, efficiency, heat and sustainability; dashboards; each customer's, and the summary of all.
    assert len(pages) == 4 + len(BOARDS) + len(PARTIES) + 1
    for page in pages:
        found = Parts((hostile.folder / page).read_text())
        same = [plain.folder / page] if (plain.folder / page).exists() else plain.folder.glob("sla-*/*/*.html")
        known = {name for path in same for name in Parts(path.read_text()).names}
        assert found.names <= known | {"title"}, page
        assert not found.names & {"script", "iframe", "object", "embed", "img", "link"}, page


def test_names_stand_in_the_report_as_they_were_sent(hostile: Written, renaming: Renaming) -> None:
    """Escaped, not dropped: the page's text has them, as far as they can be seen."""
    shown = " ".join("".join(Parts(hostile.text("efficiency-*.html")).words).split())
    customers = {name for name in renaming.given.values() if " ".join(name.split()) in shown}
    assert len(customers) >= 5


def test_no_cell_begins_a_formula(hostile: Written) -> None:
    for pattern in ("*.csv", "*.xlsx"):
        assert len(list(hostile.folder.rglob(pattern))) == PUBLISHED
    for path in hostile.folder.rglob("*.csv"):
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
        assert len(rows) > 3
        for cell in (cell for row in rows for cell in row):
            assert not cell.startswith(("=", "@", "\t", "\r")), cell
            assert not cell.startswith(("+", "-")) or is_number(cell), cell
    for path in hostile.folder.rglob("*.xlsx"):
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
    written = [path.read_bytes() for path in hostile.folder.rglob("*.pdf")]
    assert len(written) == PUBLISHED
    assert all(content.startswith(b"%PDF-") for content in written)
    assert not Path("/tmp/kvandal-owned").exists()  # noqa: S108 - what one of the names would make
    # Nothing was written anywhere else: folders are those of the previews, and one for each customer.
    folders = {path.relative_to(hostile.folder) for path in hostile.folder.rglob("*") if path.is_dir()}
    (own,) = hostile.folder.glob("sla-*")
    customers = {path for path in folders if len(path.parts) == 2}
    assert all(re.fullmatch(r"[a-z0-9-]+", path.name) for path in customers)
    assert len(customers) == len(PARTIES)
    below = {path / "evidence" for path in customers}
    assert folders - below == {Path("preview"), Path(own.name), *customers}


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
