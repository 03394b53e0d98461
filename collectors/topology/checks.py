"""What is wrong with a tree: circles, things that are part of nothing, doubtful aliases and supplies. Pure."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import chain, pairwise

from catalogue import ResourceKind
from collectors.topology.entry import PARENTS, ROOTS
from collectors.topology.tree import MOST_LEVELS, Key, Span, Tree, name_of

# A rack has an A and a B feed, perhaps from several levels; what has more suppliers in all its time has a mistake.
MOST_SUPPLIERS = 32

# What has one supplier of a kind: a rack hangs on one CDU, and on one feeder of each feed.
_SUPPLIED = (ResourceKind.RACK, ResourceKind.TRAY, ResourceKind.CDU)
_SUPPLIERS = (ResourceKind.CDU, ResourceKind.FEEDER)


def tree_problems(tree: Tree) -> Iterator[str]:
    """What is wrong between the things of a tree, in sentences: entry, what, what to do."""
    return chain(_lost(tree), _circles(tree), _doubtful_aliases(tree), _doubtful_supplies(tree))


def _lost(tree: Tree) -> Iterator[str]:
    for (kind, _), versions in tree.things.items():
        if kind not in ROOTS and versions[0].parent is None:
            yield f"{versions[0].where} has no parent; say which of these it is part of: {', '.join(PARENTS[kind])}"


def _circles(tree: Tree) -> Iterator[str]:
    """Only what may be part of its own kind can go round; and a new circle has something in it that changed."""
    for span, version in tree.spans():
        key = span.thing
        if key[0] not in PARENTS[key[0]]:
            continue
        way = [key, *tree.ancestors(key, span.start_ms)]
        if key in way[1:]:
            circle = " in ".join(name_of(step) for step in way[: way.index(key, 1) + 1])
            yield f"{version.where} is part of itself: {circle}; give one of them another parent"
        elif len(way) > MOST_LEVELS:
            yield f"{version.where} is more than {MOST_LEVELS} levels deep; check its parents"


def _doubtful_aliases(tree: Tree) -> Iterator[str]:
    for alias, spans in tree.aliases().items():
        if alias in tree.things:
            other = tree.things[alias][0].where
            yield f"{spans[0].where}: its alias {alias[1]} has an entry of its own, {other}; keep one of the two"
        for span, after in pairwise(spans):
            if span.overlaps(after) and span.thing != after.thing:
                both = f"{name_of(span.thing)} and {name_of(after.thing)}"
                yield f"{after.where}: {alias[1]} is an alias of {both} at once; take it from one of them"


def _doubtful_supplies(tree: Tree) -> Iterator[str]:
    for served, supplies in _supplies(tree).items():
        if len(supplies) > MOST_SUPPLIERS:
            yield f"{supplies[-1][0].where}: {name_of(served)} is in the serves of too many; take it from most of them"
            continue
        for one, other, feed in _clashes(tree, supplies):
            both = f"{name_of(one.thing)} and {name_of(other.thing)}"
            advice = "" if one.thing[0] is ResourceKind.CDU else ', or give them feed = "A" and feed = "B"'
            on = f" on feed {feed}" if feed else ""
            yield f"{other.where}: {name_of(served)} is served by {both}{on} at once; take it from one of them{advice}"


def _supplies(tree: Tree) -> Mapping[Key, list[tuple[Span, str]]]:
    """Who supplies each thing that has one supplier of a kind, with the feed."""
    found: defaultdict[Key, list[tuple[Span, str]]] = defaultdict(list)
    for span, version in tree.spans():
        if span.thing[0] in _SUPPLIERS:
            for served in version.serves:
                if served[0] in _SUPPLIED:
                    found[served].append((span, version.facts.get("feed", "")))
    return found


def _clashes(tree: Tree, supplies: list[tuple[Span, str]]) -> Iterator[tuple[Span, Span, str]]:
    """Two suppliers of one kind and feed at one time, unless one hangs on the other."""
    for position, (one, feed) in enumerate(supplies):
        for other, other_feed in supplies[position + 1 :]:
            alike = one.thing[0] is other.thing[0] and feed == other_feed and one.thing != other.thing
            if alike and one.overlaps(other) and not _in_series(tree, one, other):
                yield one, other, feed


def _in_series(tree: Tree, one: Span, other: Span) -> bool:
    time_ms = max(one.start_ms, other.start_ms)
    return one.thing in tree.ancestors(other.thing, time_ms) or other.thing in tree.ancestors(one.thing, time_ms)
