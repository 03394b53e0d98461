"""What topology files say together: everything there is, with its versions in time, and as inventory messages. Pure."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from catalogue import ResourceKind, resource_id
from stream.messages import InventoryMessage

TOLD_BY = "topology"
NEVER_MS = 1 << 42  # the end of times in messages
MOST_LEVELS = 16

Key = tuple[ResourceKind, str]


@dataclass(frozen=True, slots=True)
class Version:
    """What is said of a thing from `valid_from_ms` on; `where` is the entry that says it."""

    where: str
    valid_from_ms: int
    name: str
    parent: Key | None
    serves: tuple[Key, ...]
    aliases: tuple[str, ...]
    facts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Span:
    """That `thing` has to do with another one, as `where` says, from `start_ms` until `end_ms`."""

    thing: Key
    where: str
    start_ms: int
    end_ms: int

    def overlaps(self, other: "Span") -> bool:
        return self.start_ms < other.end_ms and other.start_ms < self.end_ms


@dataclass(frozen=True, slots=True)
class Tree:
    """Everything that the files tell of; each thing's versions are in order of time, at least one."""

    things: Mapping[Key, tuple[Version, ...]] = field(default_factory=dict)

    def at(self, key: Key, time_ms: int) -> Version:
        """The version that holds at a time; before the first one, that one."""
        versions = self.things[key]
        return versions[max(bisect_right(versions, time_ms, key=lambda version: version.valid_from_ms) - 1, 0)]

    def ancestors(self, key: Key, time_ms: int) -> Iterator[Key]:
        """What a thing is part of, upwards, MOST_LEVELS at most."""
        for _ in range(MOST_LEVELS):
            parent = self.at(key, time_ms).parent
            if parent is None:
                return
            yield parent
            key = parent

    def spans(self) -> Iterator[tuple[Span, Version]]:
        """Every version, and how long it holds."""
        for key, versions in self.things.items():
            ends = (*(version.valid_from_ms for version in versions[1:]), NEVER_MS)
            for version, end_ms in zip(versions, ends, strict=True):
                yield Span(key, version.where, version.valid_from_ms, end_ms), version

    def aliases(self) -> Mapping[Key, list[Span]]:
        """When each alias is one, and of what, in order of time."""
        found: defaultdict[Key, list[Span]] = defaultdict(list)
        for span, version in self.spans():
            for alias in version.aliases:
                found[span.thing[0], alias].append(span)
        return {alias: sorted(spans, key=lambda span: span.start_ms) for alias, spans in found.items()}

    def messages(self, source: int) -> list[InventoryMessage]:
        """A word for each version, and for each alias whenever it begins or ends, in order of time."""
        words = [
            InventoryMessage(
                resource=resource_id(*span.thing),
                kind=span.thing[0],
                identity=span.thing[1],
                name=version.name,
                valid_from_ms=version.valid_from_ms,
                parent=resource_id(*version.parent) if version.parent else 0,
                serves=tuple(resource_id(*served) for served in version.serves),
                source=source,
                attributes={**version.facts, "told_by": TOLD_BY},
            )
            for span, version in self.spans()
        ]
        for alias, spans in self.aliases().items():
            words += (self._alias_word(alias, meant, time_ms, source) for time_ms, meant in _turns(spans))
        return sorted(words, key=lambda word: word.valid_from_ms)

    def _alias_word(self, alias: Key, meant: Key | None, time_ms: int, source: int) -> InventoryMessage:
        """That an identity is another name of a thing, or that it is so no more."""
        return InventoryMessage(
            resource=resource_id(*alias),
            kind=alias[0],
            identity=alias[1],
            name=self.at(meant, time_ms).name if meant else alias[1],
            valid_from_ms=time_ms,
            source=source,
            attributes={"told_by": TOLD_BY, **({"same_as": meant[1]} if meant else {})},
        )


def name_of(key: Key) -> str:
    """A thing as references have it."""
    return f"{key[0]}:{key[1]}"


def _turns(spans: list[Span]) -> Iterator[tuple[int, Key | None]]:
    """When an alias begins to mean something else, and what; None where it means nothing more."""
    meant: Key | None = None
    until_ms = 0
    for span in spans:
        if meant is not None and until_ms < span.start_ms:
            yield until_ms, None
            meant = None
        if span.thing != meant:
            yield span.start_ms, span.thing
        meant, until_ms = span.thing, span.end_ms
    if until_ms < NEVER_MS:
        yield until_ms, None
