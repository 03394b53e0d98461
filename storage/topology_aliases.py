"""Aliases: which resources are one thing under several identities, and when. Pure.

A rack is a chassis serial to its own trays and a place on the floor plan to the building. A source that knows both says
so by the attribute `same_as`: the identity of the resource that this one is. Only the one that is meant by it has a
place of its own; an alias of an alias is refused.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import polars as pl

from catalogue import ResourceKind, resource_id
from storage.reader import TIME
from storage.topology_words import EVER, FOREVER

ALIAS_OF = "same_as"

# All time is covered for each alias: where it is none, `same_as` is itself.
ALIASES: dict[str, pl.DataType] = {
    "alias": pl.UInt64(),
    "start": TIME,
    "end": TIME,
    "kind": pl.String(),
    "same_as": pl.UInt64(),
    "identity": pl.String(),
}


@dataclass(frozen=True, slots=True)
class AliasWord:
    """From `start` until `end` the resource `alias` is the one of its kind that has `identity`.

    `doubt` is why it is not to be believed; empty where it may be.
    """

    alias: int
    kind: str
    identity: str
    start: datetime
    end: datetime
    doubt: str = ""

    @property
    def same_as(self) -> int:
        return resource_id(ResourceKind(self.kind), self.identity)

    def overlaps(self, other: "AliasWord") -> bool:
        return self.start < other.end and other.start < self.end

    def of(self, identity: str) -> "AliasWord":
        """The same word, but of the resource that has this identity."""
        return replace(self, identity=identity)


@dataclass(frozen=True, slots=True)
class Aliases:
    """`held` are ALIASES; `refused` are words in doubt: of an alias of an alias, or of no kind that we know."""

    held: pl.DataFrame
    refused: tuple[AliasWord, ...] = ()

    def resolve(self, frame: pl.DataFrame, column: str, at: str) -> pl.DataFrame:
        """`frame` with the ids in `column` replaced by what they are at the time in column `at`."""
        if self.held.is_empty():
            return frame
        known = self.held.select(pl.col("alias").alias(column), pl.col("start").alias("_start"), "same_as")
        found = frame.sort(at).join_asof(
            known.sort("_start"), left_on=at, right_on="_start", by=column, check_sortedness=False
        )
        return found.with_columns(pl.coalesce("same_as", column).alias(column)).select(frame.columns)


NO_ALIASES = Aliases(pl.DataFrame(schema=ALIASES))


def accepted_aliases(words: Iterable[AliasWord]) -> Aliases:
    """The aliases that hold together; an earlier word counts more than a later one.

    A few thousand at most, one for each rack and tray: what each word may not contradict is looked up, not joined.
    """
    as_alias: defaultdict[int, list[AliasWord]] = defaultdict(list)
    as_target: defaultdict[int, list[AliasWord]] = defaultdict(list)
    refused = []
    for word in words:
        target = _target(word)
        if target == word.alias:
            continue
        rivals = [*as_alias.get(target or 0, ()), *as_target.get(word.alias, ())]
        if word.doubt or target is None or any(word.overlaps(rival) for rival in rivals):
            refused.append(replace(word, doubt=word.doubt or "one of them is one already"))
            continue
        as_alias[word.alias].append(word)
        as_target[target].append(word)
    rows = [row for words in as_alias.values() for row in _timeline(words)]
    return Aliases(pl.DataFrame(rows, schema=ALIASES, orient="row"), tuple(refused))


def _target(word: AliasWord) -> int | None:
    try:
        return word.same_as
    except ValueError:  # a kind of a later version, or an empty identity
        return None


def _timeline(words: list[AliasWord]) -> Iterator[tuple[Any, ...]]:
    """What one resource is over all time, from its words, which do not overlap."""
    until = EVER
    for word in sorted(words, key=lambda word: word.start):
        if until < word.start:
            yield (word.alias, until, word.start, word.kind, word.alias, "")
        yield (word.alias, word.start, word.end, word.kind, word.same_as, word.identity)
        until = word.end
    if until < FOREVER:
        yield (words[0].alias, until, FOREVER, words[0].kind, words[0].alias, "")
