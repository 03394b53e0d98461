"""Topology files: what they say, and what they are told when they say it wrongly."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from catalogue import ResourceKind, resource_id
from collectors.topology import file as topology_file
from collectors.topology.assembly import assemble
from collectors.topology.checks import MOST_SUPPLIERS
from collectors.topology.entry import PARENTS
from collectors.topology.file import FileText, TopologyFileError, parse_file, read_file
from collectors.topology.settings import ReconciliationSettings, TopologySettings
from collectors.topology.source import read_tree
from collectors.topology.tree import MOST_LEVELS, Tree
from stream.messages import InventoryMessage

MAY, JUNE, OCTOBER = (round(datetime(2026, month, 1, tzinfo=UTC).timestamp() * 1000) for month in (5, 6, 10))
NOW = round(datetime(2026, 11, 1, tzinfo=UTC).timestamp() * 1000)

SITE = """
[[site]]
identity = "S"
[[hall]]
identity = "H"
parent = "S"
[[row]]
identity = "1"
parent = "H"
[[row]]
identity = "2"
parent = "H"
"""


def tree(*texts: str, since_ms: int = JUNE, ending: str = "toml") -> Tree:
    files = [FileText(f"{number}.{ending}", text, since_ms) for number, text in enumerate(texts)]
    return assemble([entry for file in files for entry in parse_file(file, now_ms=NOW)])


def problems(*texts: str, ending: str = "toml") -> list[str]:
    with pytest.raises(TopologyFileError) as caught:
        tree(*texts, ending=ending)
    return caught.value.problems


def words(found: Tree, kind: ResourceKind, identity: str) -> list[InventoryMessage]:
    return [word for word in found.messages(7) if (word.kind, word.identity) == (kind, identity)]


# What files say


def test_an_entry_becomes_a_word_with_its_facts() -> None:
    (word,) = words(
        tree(
            SITE
            + """
[[feeder]]
identity = "F"
parent = "H"
[[rack]]
identity = "R"
parent = "1"
[[meter]]
identity = "M"
name = "meter of hall 1"
parent = "F"
serves = ["R"]
role = "it"
class = "0.5S"
nominal_power_watts = 1300000
register_modulus_joules = 3.6e15
interval_s = 0.5
attributes = { calibrated = "2026-02-01", phases = 3 }
"""
        ),
        ResourceKind.METER,
        "M",
    )
    assert word == InventoryMessage(
        resource=resource_id(ResourceKind.METER, "M"),
        kind=ResourceKind.METER,
        identity="M",
        name="meter of hall 1",
        valid_from_ms=JUNE,
        parent=resource_id(ResourceKind.FEEDER, "F"),
        serves=(resource_id(ResourceKind.RACK, "R"),),
        source=7,
        attributes={
            "role": "it",
            "class": "0.5S",
            "nominal_power_watts": "1300000",
            "register_modulus_joules": "3600000000000000",
            "interval_s": "0.5",
            "calibrated": "2026-02-01",
            "phases": "3",
            "told_by": "topology",
        },
    )


def test_every_word_is_one_that_ingest_accepts() -> None:
    for word in tree(SITE + '[[rack]]\nidentity = "R"\nparent = "1"\naliases = ["1583"]\n').messages(7):
        assert msgspec.json.decode(msgspec.json.encode(word), type=InventoryMessage) == word
        assert resource_id(word.kind, word.identity) == word.resource


def test_a_repeated_entry_with_a_date_is_a_change_that_keeps_the_rest() -> None:
    rack = """
[[rack]]
identity = "R"
name = "rack 14"
parent = "1"
model = "NVL72"
[[rack]]
identity = "R"
valid_from = 2026-10-01
parent = "2"
"""
    before, after = words(tree(SITE + rack), ResourceKind.RACK, "R")
    assert (before.valid_from_ms, before.parent) == (JUNE, resource_id(ResourceKind.ROW, "1"))
    assert (after.valid_from_ms, after.parent) == (OCTOBER, resource_id(ResourceKind.ROW, "2"))
    assert (after.name, after.attributes["model"]) == ("rack 14", "NVL72")


def test_what_has_no_date_holds_before_all_that_have_one() -> None:
    rack = '[[rack]]\nidentity = "R"\nparent = "1"\n[[rack]]\nidentity = "R"\nvalid_from = 2026-05-01\nparent = "2"\n'
    before, after = words(tree(SITE + rack, since_ms=OCTOBER), ResourceKind.RACK, "R")
    assert (before.valid_from_ms, after.valid_from_ms) == (MAY - 1, MAY)


def test_a_file_may_date_all_its_entries() -> None:
    assert {word.valid_from_ms for word in tree("valid_from = 2026-05-01\n" + SITE).messages(7)} == {MAY}


def test_a_file_of_the_future_counts_from_now() -> None:
    assert {word.valid_from_ms for word in tree(SITE, since_ms=NOW + 1000).messages(7)} == {NOW}


def test_an_alias_is_told_when_it_begins_and_when_it_ends() -> None:
    rack = """
[[rack]]
identity = "R"
name = "rack 14"
parent = "1"
aliases = ["1583"]
[[rack]]
identity = "R"
valid_from = 2026-10-01
aliases = []
"""
    begun, ended = words(tree(SITE + rack), ResourceKind.RACK, "1583")
    assert (begun.valid_from_ms, begun.attributes) == (JUNE, {"told_by": "topology", "same_as": "R"})
    assert (begun.name, begun.parent) == ("rack 14", 0)
    assert (ended.valid_from_ms, ended.attributes) == (OCTOBER, {"told_by": "topology"})


def test_an_alias_can_pass_from_one_thing_to_another() -> None:
    racks = """
[[rack]]
identity = "R1"
parent = "1"
aliases = ["1583"]
[[rack]]
identity = "R2"
parent = "1"
[[rack]]
identity = "R1"
valid_from = 2026-10-01
aliases = []
[[rack]]
identity = "R2"
valid_from = 2026-10-01
aliases = ["1583"]
"""
    told = words(tree(SITE + racks), ResourceKind.RACK, "1583")
    assert [(word.valid_from_ms, word.attributes["same_as"]) for word in told] == [(JUNE, "R1"), (OCTOBER, "R2")]


def test_a_reference_may_be_an_identity_an_alias_or_say_its_kind() -> None:
    found = tree(
        SITE
        + """
[[rack]]
identity = "1"
parent = "row:1"
aliases = ["1583:A"]
[[tray]]
identity = "T1"
parent = "1583:A"
[[tray]]
identity = "T2"
parent = "rack:1583:A"
[[tray]]
identity = "T3"
parent = "1"
"""
    )
    for tray in ("T1", "T2", "T3"):  # the row "1" is nothing that a tray can be part of
        assert words(found, ResourceKind.TRAY, tray)[0].parent == resource_id(ResourceKind.RACK, "1")


def test_entries_of_several_files_are_one_tree() -> None:
    found = tree(SITE, '[[rack]]\nidentity = "R"\nparent = "1"\n')
    assert words(found, ResourceKind.RACK, "R")[0].parent == resource_id(ResourceKind.ROW, "1")


def test_a_list_says_the_same_as_a_file() -> None:
    site = "kind,identity,parent\nsite,S,\nhall,H,S\nrow,1,H\nrow,2,H\n"
    racks = (
        "kind,identity,name,parent,aliases,serves,valid_from,nominal_power_watts,attributes.owner\n"
        'rack,R,"rack, 14",1,1583; 1584,,,132000,platform\n'
        "rack,R,,2,,,2026-10-01T00:00:00Z,,\n"
        "cdu,C,,1,,rack:R,,,\n"
    )
    found = tree(site, racks, ending="csv")
    before, after = words(found, ResourceKind.RACK, "R")
    assert (before.name, before.parent) == ("rack, 14", resource_id(ResourceKind.ROW, "1"))
    assert before.attributes == {"told_by": "topology", "nominal_power_watts": "132000", "owner": "platform"}
    assert (after.valid_from_ms, after.parent) == (OCTOBER, resource_id(ResourceKind.ROW, "2"))
    assert words(found, ResourceKind.RACK, "1584")[0].attributes["same_as"] == "R"
    assert words(found, ResourceKind.CDU, "C")[0].serves == (resource_id(ResourceKind.RACK, "R"),)


# What is wrong with them


def entry(kind: str, identity: str, parent: str = "", *lines: str) -> str:
    return "\n".join(
        [f"[[{kind}]]", f"identity = '{identity}'", *([f"parent = '{parent}'"] if parent else []), *lines, ""]
    )


RACK = entry("rack", "R", "1")
SERVED = SITE + RACK
SERVES = "serves = ['R']"
LATER = "valid_from = 2026-10-01"

# Of one entry by itself.
MISWRITTEN = [
    (entry("rock", "R"), "0.toml: rock R: 'rock' is no kind of thing that files tell of; there are site,"),
    (entry("point", "R"), "0.toml: point R: 'point' is no kind of thing that files tell of"),
    ("[[site]]\nname = 'x'", "0.toml: site no. 1: Object missing required field `identity`; correct it"),
    (entry("site", ""), "0.toml: site no. 1: Expected `str` of length >= 1"),
    ("[[site]]\nidentity = 7", "0.toml: site 7: Expected `str`, got `int`"),
    (entry("site", "S", "", "nmae = 'x'"), "unknown field `nmae`; a free fact goes into attributes"),
    (entry("site", "S", "", "attributes = {told_by = 'me'}"), "the attribute told_by is ours; call it otherwise"),
    (entry("site", "S", "", "attributes = {height = inf}"), "height is no number; leave it out"),
    (entry("site", "S", "", "interval_s = nan"), "0.toml: site S: "),
    (entry("site", "S", "", "interval_s = inf"), "interval_s is no number; leave it out"),
    (entry("site", "S", "", "interval_s = 0"), "Expected `float` > 0.0 - at `$.interval_s`; correct it"),
    (entry("site", "S", "", "valid_from = 2026-10-01T00:00:00"), "has no offset; give 2026-10-01T00:00:00Z"),
    (entry("site", "S", "", "valid_from = 1969-10-01"), "valid_from is before 1970 or after 2109; give another"),
    ("valid_from = 'soon'\n" + entry("site", "S"), "0.toml: valid_from at its top: "),
    ("[site]\nidentity = 'S'", "0.toml: site is no list of entries; begin each with [[site]]"),
    ("site = [1]", "0.toml: site is no list of entries"),
    ("[[site]", "0.toml is not TOML: "),
    ("a = " + "[" * 100_000, "0.toml is not TOML: "),
]
# Between entries.
MISFITTING = [
    (
        SITE + entry("site", "S"),
        "0.toml: site S is there twice, also at 0.toml: site S; keep one, or give",
    ),
    (entry("site", "S", "", LATER) * 2, "0.toml: site S is there twice from one time"),
    (SITE + entry("rack", "R"), "rack R has no parent; say which of these it is part of: row, hall"),
    (SITE + entry("rack", "R", "9"), "0.toml: rack R: parent 9 is in none of the files; add an entry for it, or"),
    (SITE + entry("rack", "R", "S"), "parent S is a site, and no rack is part of that; give one of these: row, hall"),
    (SITE + entry("hall", "1", "S") + RACK, "parent 1 can be hall:1 or row:1; write which of them"),
    (SERVED + entry("cdu", "C", "1", "serves = ['X']"), "0.toml: cdu C: serves X is in none of the files"),
    (
        SITE + entry("loop", "A", "B") + entry("loop", "B", "A"),
        "0.toml: loop A is part of itself: loop:A in loop:B in loop:A; give one of them another parent",
    ),
    (
        SITE + entry("loop", "A", "H") + entry("loop", "B", "A") + entry("loop", "A", "B", LATER),
        "0.toml: loop A is part of itself: loop:A in loop:B in loop:A",
    ),
    (
        SERVED + entry("cdu", "C", "1", SERVES) + entry("cdu", "D", "1", SERVES),
        "0.toml: cdu D: rack:R is served by cdu:C and cdu:D at once; take it from one of them",
    ),
    (
        SERVED + entry("feeder", "E", "H", SERVES, "feed = 'A'") + entry("feeder", "F", "H", SERVES, "feed = 'A'"),
        "rack:R is served by feeder:E and feeder:F on feed A at once; take it from one of them, or give them feed",
    ),
    (
        SERVED + "".join(entry("cdu", f"C{number}", "1", SERVES) for number in range(MOST_SUPPLIERS + 1)),
        "rack:R is in the serves of too many",
    ),
    (
        SITE + entry("rack", "R", "1", "aliases = ['R2']") + entry("rack", "R2", "1"),
        "0.toml: rack R: its alias R2 has an entry of its own, 0.toml: rack R2; keep one of the two",
    ),
    (
        SITE + entry("rack", "R", "1", "aliases = ['1583']") + entry("rack", "R2", "1", "aliases = ['1583']"),
        "0.toml: rack R2: 1583 is an alias of rack:R and rack:R2 at once; take it from one of them",
    ),
]


@pytest.mark.parametrize(("text", "sentence"), MISWRITTEN + MISFITTING)
def test_a_mistake_is_told_with_its_place_and_its_remedy(text: str, sentence: str) -> None:
    assert any(sentence in problem for problem in problems(text)), problems(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("identity,name\nS,x\n", "0.csv has no column kind; its first line names the columns"),
        ("", "0.csv has no column kind"),
        ("kind,identity,nmae\nsite,S,x\n", "0.csv has a column 'nmae' that is no field; a free fact is a column"),
        ("kind,identity,name,name\nsite,S,x,y\n", "0.csv has two columns 'name'; keep one"),
        ("kind,identity\nsite,S,x\n", "0.csv line 2: site S: there are more cells than columns"),
        ("kind,identity\nsite\n", "0.csv line 2: site: Object missing required field `identity`"),
        ("kind,identity\n,S\n", "'' is no kind of thing"),
        ('kind,identity\nsite,"S\n', "0.csv is not CSV after line 1: unexpected end of data"),
        ("kind,identity,interval_s\nsite,S,often\n", "0.csv line 2: site S: Expected `float`"),
        ("kind,identity,interval_s\nsite,S,inf\n", "0.csv line 2: site S: "),
        ("kind,identity,valid_from\nsite,S,soon\n", "0.csv line 2: site S: Invalid RFC3339 encoded datetime"),
        ("kind,identity,parent\nsite,S,\nhall,H,T\n", "0.csv line 3: hall H: parent T is in none of the files"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_list_is_told_with_its_line(text: str, sentence: str) -> None:
    assert any(sentence in problem for problem in problems(text, ending="csv")), problems(text, ending="csv")


def test_all_mistakes_are_told_at_once_but_never_more_than_one_reads() -> None:
    found = problems("\n".join(f"[[rack]]\nidentity = '{number}'\nparent = 'H'" for number in range(1000)))
    assert len(found) == topology_file.MOST_PROBLEMS
    assert str(TopologyFileError(found)) == f"{found[0]} (and {len(found) - 1} more)"


def test_feeders_in_series_and_feeds_a_and_b_serve_one_rack() -> None:
    feeders = """
[[feeder]]
identity = "A"
parent = "H"
feed = "A"
serves = ["R"]
[[feeder]]
identity = "A1"
parent = "A"
feed = "A"
serves = ["R"]
[[feeder]]
identity = "B"
parent = "H"
feed = "B"
serves = ["R"]
"""
    assert words(tree(SERVED + feeders), ResourceKind.FEEDER, "A1")[0].parent == resource_id(ResourceKind.FEEDER, "A")


def test_a_rack_may_pass_from_one_cdu_to_another() -> None:
    cdus = """
[[cdu]]
identity = "C"
parent = "1"
serves = ["R"]
[[cdu]]
identity = "C"
valid_from = 2026-10-01
serves = []
[[cdu]]
identity = "D"
parent = "1"
[[cdu]]
identity = "D"
valid_from = 2026-10-01
serves = ["R"]
"""
    assert [word.serves for word in words(tree(SERVED + cdus), ResourceKind.CDU, "C")][1] == ()


def test_a_long_chain_of_feeders_is_refused_without_walking_it() -> None:
    chain = "kind,identity,parent\nsite,S,\nfeeder,0,S\n" + "".join(
        f"feeder,{number},{number - 1}\n" for number in range(1, 20_000)
    )
    assert f"is more than {MOST_LEVELS} levels deep" in problems(chain, ending="csv")[0]


def test_hostile_text_is_refused_and_not_run_into(tmp_path: Path) -> None:
    for number, content in enumerate((b"\xff\xfe\x00", b"\x00" * 1000, "kind,identity\nsite,\u202e".encode()[:-1])):
        file = tmp_path / f"{number}.csv"
        file.write_bytes(content)
        with pytest.raises(TopologyFileError):
            read_tree([file], now_ms=NOW)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    with file.open("wb") as stream:
        stream.truncate(topology_file.MAX_FILE_BYTES + 1)
    with pytest.raises(TopologyFileError, match="has more than 64 MiB; cut it into several"):
        read_file(file)


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    file = tmp_path / "site.csv"
    file.write_text("kind,identity\nsite,S\n", encoding="utf-8-sig")
    assert [key[1] for key in read_tree([file], now_ms=NOW).things] == ["S"]


def test_every_kind_but_points_and_agents_can_be_told_of_and_ends_at_a_site() -> None:
    assert set(PARENTS) == set(ResourceKind) - {ResourceKind.POINT, ResourceKind.AGENT}

    def ends(kind: ResourceKind, seen: tuple[ResourceKind, ...] = ()) -> bool:
        return kind is ResourceKind.SITE or any(
            ends(parent, (*seen, kind)) for parent in PARENTS[kind] if parent not in (*seen, kind)
        )

    assert all(ends(kind) for kind in PARENTS)


# Settings


def test_settings_name_files_and_ranks() -> None:
    assert msgspec.convert({"files": ["a.toml"]}, TopologySettings) == TopologySettings(files=("a.toml",))
    assert ReconciliationSettings().ranks[0] == "topology"


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (TopologySettings, {}),
        (TopologySettings, {"files": []}),
        (TopologySettings, {"files": ["a"], "interval_s": 0}),
        (TopologySettings, {"files": ["a"], "file": "b"}),
        (ReconciliationSettings, {"ranks": ["nvml", "nvml"]}),
        (ReconciliationSettings, {"ranks": ["NVML"]}),
        (ReconciliationSettings, {"silence_s": 60}),
    ],
)
def test_settings_that_make_no_sense_are_refused(kind: type[msgspec.Struct], given: Mapping[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(given, kind)
