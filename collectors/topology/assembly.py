"""Entries of all topology files put together: versions of each thing, with what they refer to. Pure.

All of it is checked before any of it is told: half a tree would be a wrong one.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise

from catalogue import ResourceKind
from collectors.topology.checks import tree_problems
from collectors.topology.entry import PARENTS, Entry
from collectors.topology.file import MOST_PROBLEMS, TopologyFileError
from collectors.topology.tree import NEVER_MS, Key, Tree, Version, name_of


def assemble(entries: Iterable[Entry]) -> Tree:
    """The tree that the entries of all files make; TopologyFileError with what is wrong in and between them."""
    assembly = _Assembly(entries)
    tree = assembly.tree()
    problems = assembly.problems or list(islice(tree_problems(tree), MOST_PROBLEMS))
    if problems:
        raise TopologyFileError(problems[:MOST_PROBLEMS])
    return tree


class _Assembly:
    """What is wrong is collected in `problems`, so that it can be mended in one go."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.problems: list[str] = []
        self._written: defaultdict[Key, list[Entry]] = defaultdict(list)
        for entry in entries:
            self._written[entry.key].append(entry)
        # Both a thing and what is an alias of it may be referred to.
        self._meant: defaultdict[str, set[Key]] = defaultdict(set)
        for key, written in self._written.items():
            for name in (key[1], *(alias for entry in written for alias in entry.fields.aliases or ())):
                self._meant[name].add(key)

    def tree(self) -> Tree:
        """What the entries make, as far as they are right."""
        return Tree({key: tuple(self._versions(key, written)) for key, written in self._written.items()})

    # Versions

    def _versions(self, key: Key, written: list[Entry]) -> Iterator[Version]:
        before: Version | None = None
        for entry, since_ms in self._in_order(written):
            before = self._version(key, entry, since_ms, before)
            yield before

    def _in_order(self, written: list[Entry]) -> list[tuple[Entry, int]]:
        """The entries of one thing with since when they hold; one without a date holds before all that have one."""
        dated = sorted(
            ((entry, entry.valid_from_ms) for entry in written if entry.valid_from_ms is not None),
            key=lambda pair: pair[1],
        )
        undated = [entry for entry in written if entry.valid_from_ms is None]
        for entry, other in pairwise(undated):
            self.problems.append(f"{other.where} is there twice, also at {entry.where}; keep one, or give a valid_from")
        for (entry, since_ms), (other, other_ms) in pairwise(dated):
            if since_ms == other_ms:
                self.problems.append(f"{other.where} is there twice from one time, also at {entry.where}; keep one")
        for entry, since_ms in dated:
            if not 0 < since_ms < NEVER_MS:
                self.problems.append(f"{entry.where}: valid_from is before 1970 or after 2109; give another date")
        # One that nobody dated began at some time before the first date: at the latest just before it.
        first_ms = dated[0][1] - 1 if dated else NEVER_MS
        return [*((entry, max(min(entry.undated_ms, first_ms), 0)) for entry in undated[:1]), *dated]

    def _version(self, key: Key, entry: Entry, since_ms: int, before: Version | None) -> Version:
        """What the entry says, and what it leaves out as the version before has it."""
        fields = entry.fields
        parent, serves = self._parent(key, entry), self._served(entry)
        return Version(
            where=entry.where,
            valid_from_ms=since_ms,
            name=fields.name or (before.name if before else key[1]),
            parent=parent or (before.parent if before else None),
            serves=serves if serves is not None else (before.serves if before else ()),
            aliases=fields.aliases if fields.aliases is not None else (before.aliases if before else ()),
            facts={**(before.facts if before else {}), **fields.facts()},
        )

    # References

    def _parent(self, key: Key, entry: Entry) -> Key | None:
        text = entry.fields.parent
        return None if text is None else self._resolve(entry, "parent", text, PARENTS[key[0]])

    def _served(self, entry: Entry) -> tuple[Key, ...] | None:
        given = entry.fields.serves
        if given is None:
            return None
        found = (self._resolve(entry, "serves", text, tuple(PARENTS)) for text in given)
        return tuple(dict.fromkeys(key for key in found if key is not None))

    def _resolve(self, entry: Entry, what: str, text: str, kinds: tuple[ResourceKind, ...]) -> Key | None:
        """The thing that a reference means: `kind:identity`, or an identity or alias that only one thing has."""
        kind, colon, identity = text.partition(":")
        exact = sorted(key for key in self._meant.get(identity, ()) if colon and key[0] == kind)
        meant = exact or sorted(self._meant.get(text, ()))
        fitting = [key for key in meant if key[0] in kinds]
        if len(fitting) == 1:
            return fitting[0]
        self.problems.append(f"{entry.where}: {what} {text} {self._misfit(entry, meant, fitting, kinds)}")
        return None

    @staticmethod
    def _misfit(entry: Entry, meant: list[Key], fitting: list[Key], kinds: tuple[ResourceKind, ...]) -> str:
        if fitting:
            return f"can be {' or '.join(map(name_of, fitting))}; write which of them"
        wanted = f"give one of these: {', '.join(kinds)}" if kinds else "leave it out"
        if meant:
            return f"is a {meant[0][0]}, and no {entry.kind} is part of that; {wanted}"
        return "is in none of the files; add an entry for it, or correct the name"
