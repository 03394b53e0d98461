"""What `kvandal topology` prints: the tree, where sources contradict each other, and the past of one resource."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from catalogue import ResourceKind
from collectors.topology.file import TopologyFileError
from collectors.topology.settings import ReconciliationSettings
from collectors.topology.source import read_tree
from reports.figures import ROLES
from storage.client import StoreAddress, connect
from storage.reader import Reader
from storage.topology import Topology, read_topology
from storage.topology_places import MOST_STEPS
from storage.topology_words import EVER, FOREVER, Rules

# What a hall has too many of to be read: they are counted, unless they are asked for.
COUNTED = (ResourceKind.TRAY, ResourceKind.GPU, ResourceKind.PORT, ResourceKind.POINT)
# What has a role in reports.
METERING = (ResourceKind.METER, ResourceKind.FEEDER, ResourceKind.HEAT_METER)
_EXAMPLES = 5  # of resources with one trouble
_STALE = timedelta(hours=1)  # sources repeat themselves every ten minutes


def rules_of(settings: ReconciliationSettings) -> Rules:
    """How words are weighed, from the settings of the process that weighs them."""
    return Rules(ranks=settings.ranks, silence=timedelta(seconds=settings.silence_s))


def load_topology(address: StoreAddress, settings: ReconciliationSettings) -> Topology:
    """What is stored right now, reconciled. StoreUnavailableError, StoreRefusedError."""
    return read_topology(Reader(connect(address)), rules_of(settings))


# Finding -------------------------------------------------------------------------------------------------------------


def find_resource(topology: Topology, text: str) -> int:
    """The resource that a person means: by id in hexadecimal, by kind:identity, by identity, or by name.

    An alias means the resource that it is. Raises ValueError when there is none, or when there are several.
    """
    now = topology.places.filter(pl.col("valid_to") == FOREVER)
    kind, _, identity = text.partition(":")
    for fits in (
        pl.col("resource") == (int(text, 16) if re.fullmatch("[0-9a-fA-F]{16}", text) else 0),
        (pl.col("kind") == kind) & (pl.col("identity") == identity),
        pl.col("identity") == text,
        pl.col("name") == text,
    ):
        found = now.filter(fits).unique("same_as").sort("kind", "identity")
        if len(found) > 1:
            names = ", ".join(f"{row['kind']}:{row['identity']}" for row in found.head(_EXAMPLES).iter_rows(named=True))
            raise ValueError(f"{text} is more than one resource; say which: {names}")
        if len(found):
            return int(found["same_as"][0])
    raise ValueError(f"no resource has the id, identity or name {text}; `kvandal topology show` lists them")


# The tree ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TreeView:
    """Which part of the tree is shown: all of it, or what is `under` a resource; `whole` with every tray and GPU."""

    at: datetime
    under: int | None = None
    whole: bool = False


def tree_lines(topology: Topology, view: TreeView) -> Iterator[str]:
    """The tree as it was at a time, a line for each resource; at the end what has no place in it."""
    tree = _Tree(topology, view)
    roots = [view.under] if view.under is not None else tree.roots()
    if not roots:
        first = topology.places["known_from"].min()
        since = f"; the first word holds from {_time(first)}" if isinstance(first, datetime) else ""
        yield f"nothing was known at {_time(view.at)}{since}"
    for root in roots:
        yield from tree.lines(root)
    if view.under is None:
        yield from trouble_lines(topology, view.at)


def trouble_lines(topology: Topology, at: datetime) -> Iterator[str]:
    """What has no place in the tree at a time, by kind and reason, and the aliases that cannot be."""
    found = topology.troubles(at).sort("kind", "trouble", "name")
    for (kind, trouble), rows in found.group_by("kind", "trouble", maintain_order=True):
        examples = ", ".join(rows["name"].head(_EXAMPLES))
        more = f" and {len(rows) - _EXAMPLES} more" if len(rows) > _EXAMPLES else ""
        yield f"{len(rows):,} {kind}, each {trouble}: {examples}{more}"
    yield from alias_lines(topology)


def alias_lines(topology: Topology) -> Iterator[str]:
    """The aliases that cannot be, and why."""
    for word in topology.refused_aliases:
        yield f"{word.kind} {word.alias:016x} would be an alias of {word.identity}, but {word.doubt}"


class _Tree:
    """The places at one time, by parent."""

    def __init__(self, topology: Topology, view: TreeView) -> None:
        self._view = view
        places = topology.as_of(view.at)
        self._aliases: defaultdict[int, list[str]] = defaultdict(list)
        for resource, identity in _aliases(places).iter_rows():
            self._aliases[resource].append(identity)
        told = places.filter(pl.col("resource") == pl.col("same_as")).join(
            topology.last_told(), on="resource", how="left"
        )
        shown = told.select("resource", "parent", "kind", "identity", "name", "last_told", "trouble", "trouble_at")
        self._rows: dict[int, dict[str, Any]] = {row["resource"]: row for row in shown.iter_rows(named=True)}
        self._children: defaultdict[int, list[int]] = defaultdict(list)
        for row in sorted(self._rows.values(), key=lambda row: (row["kind"], _natural(row["name"]))):
            self._children[row["parent"]].append(row["resource"])

    def roots(self) -> list[int]:
        return [root for root in self._children[0] if not self._rows[root]["trouble"]]

    def lines(self, resource: int, depth: int = 0) -> Iterator[str]:
        if resource not in self._rows or depth > MOST_STEPS:  # of a circle, once around is enough
            return
        folded = Counter[str]()
        shown = []
        for child in self._children[resource]:
            if self._rows[child]["kind"] in COUNTED and not self._view.whole and resource != self._view.under:
                self._count(child, folded, depth)
            else:
                shown.append(child)
        yield f"{'  ' * depth}{self._line(resource, folded)}"
        for child in shown:
            yield from self.lines(child, depth + 1)

    def _count(self, resource: int, folded: Counter[str], depth: int) -> None:
        folded[self._rows[resource]["kind"]] += 1
        for child in self._children[resource] if depth < MOST_STEPS else ():
            self._count(child, folded, depth + 1)

    def _line(self, resource: int, folded: Mapping[str, int]) -> str:
        row = self._rows[resource]
        identities = [text for text in (row["identity"], *self._aliases[resource]) if text != row["name"]]
        parts = [f"{row['kind']} {row['name']}"]
        parts += [f"({', '.join(identities)})"] if identities else []
        counts = [f"{count:,} {kind}s" if count != 1 else f"1 {kind}" for kind, count in folded.items()]
        parts += [", ".join(counts)] if counts else []
        if row["last_told"] is not None and self._view.at - row["last_told"] > _STALE:
            parts.append(f"last told {_time(row['last_told'])}")
        return "  ".join(parts)


def _aliases(places: pl.DataFrame) -> pl.DataFrame:
    return places.filter(pl.col("resource") != pl.col("same_as")).sort("identity").select("same_as", "identity")


# Conflicts -----------------------------------------------------------------------------------------------------------


def conflict_frame(topology: Topology, *, past: bool = False) -> pl.DataFrame:
    """Where sources disagree about what something is part of; with `past` also where they did. One row each."""
    rows = topology.conflicts if past else topology.conflicts.filter(pl.col("valid_to") == FOREVER)
    return rows.sort("valid_from", "kind", "name").select(
        "kind",
        "name",
        pl.format("{}{}", _named("parent"), _in_rack("rack_name")).alias("place"),
        _teller("told_by").alias("says"),
        pl.format("{}{}", _named("rival_parent", "rival_name"), _in_rack("rival_rack_name")).alias("other_place"),
        _teller("rival_told_by").alias("other_says"),
        pl.col("valid_from").alias("since"),
        pl.when(pl.col("valid_to") < FOREVER).then("valid_to").alias("until"),
    )


def _named(column: str, name: str = "parent_name") -> pl.Expr:
    """A resource's name, or its id where nobody tells of it."""
    unnamed = pl.col(column).map_elements("{:016x}".format, return_dtype=pl.String)
    return pl.when(pl.col(name) == "").then(unnamed).otherwise(name)


def _in_rack(column: str) -> pl.Expr:
    return pl.when(pl.col(column) == "").then(pl.lit("")).otherwise(pl.format(" in {}", column))


def _teller(column: str) -> pl.Expr:
    return pl.when(pl.col(column) == "").then(pl.lit("a source without a name")).otherwise(column)


# History -------------------------------------------------------------------------------------------------------------


def history_lines(topology: Topology, resource: int) -> Iterator[str]:
    """Where a resource has been, and what has been said of it by whom."""
    places = topology.places.filter(pl.col("resource") == resource).sort("valid_from")
    if places.is_empty():
        raise ValueError(f"nobody tells of the resource {resource:016x}")
    names = dict(topology.places.filter(pl.col("valid_to") == FOREVER).select("resource", "name").iter_rows())
    last = places.row(-1, named=True)
    yield f"{last['kind']} {last['name']}  ({last['identity']})  id {resource:016x}"
    aliases = topology.places.filter(pl.col("same_as") == resource, pl.col("resource") != resource)
    for alias in aliases.unique("resource").sort("identity").iter_rows(named=True):
        yield f"also {alias['identity']}  id {alias['resource']:016x}"
    yield ""
    yield "places"
    for place in places.iter_rows(named=True):
        yield f"  {_span(place, place['known_from'])}  {_way(place, names)}"
    yield ""
    yield "words"
    said = [resource, *aliases["resource"].unique()]
    for word in (
        topology.words.filter(pl.col("resource").is_in(said)).sort("valid_from", "source").iter_rows(named=True)
    ):
        yield f"  {_word(word, names)}"


def _way(place: Mapping[str, Any], names: Mapping[int, str]) -> str:
    """The way down from the top, without the resource itself."""
    above = place["path"][:0:-1]
    way = " / ".join(names.get(step, f"{step:016x}") for step in above) or "-"
    return f"{way}  [{place['trouble']}]" if place["trouble"] else way


def _word(word: Mapping[str, Any], names: Mapping[int, str]) -> str:
    facts = {"name": word["name"], "in": names.get(word["parent"], f"{word['parent']:016x}") if word["parent"] else ""}
    facts |= dict(zip(word["keys"], word["values"], strict=True))
    said = ", ".join(f"{name} {fact}" for name, fact in facts.items() if fact)
    teller = word["told_by"] or "unnamed"
    return f"{_time(word['valid_from'])}  {teller} {word['source']:016x}, last told {_time(word['told_at'])}: {said}"


def _span(place: Mapping[str, Any], known_from: datetime) -> str:
    since = known_from if place["valid_from"] == EVER else place["valid_from"]
    until = f"{'now':<17}" if place["valid_to"] == FOREVER else _time(place["valid_to"])
    return f"{_time(since)} to {until}"


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%MZ}"


def _natural(text: str) -> list[tuple[int, str]]:
    """A key by which "row 2" comes before "row 10"."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", text)]


# Files ---------------------------------------------------------------------------------------------------------------


def file_problems(files: Sequence[Path], *, now: datetime) -> list[str]:
    """What is wrong with topology files that are told together, and roles that no report knows: sentences. OSError."""
    try:
        tree = read_tree(files, now_ms=int(now.timestamp() * 1000))
    except TopologyFileError as error:
        return error.problems
    return [
        f"{version.where}: no report knows the role {version.facts['role']}; give one of {', '.join(ROLES)}"
        for span, version in tree.spans()
        if span.thing[0] in METERING and version.facts.get("role", ROLES[0]) not in ROLES
    ]
