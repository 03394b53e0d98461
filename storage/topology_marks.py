"""Trays that are one under several identities, because they bear the same serial number or UUID. Pure.

A node knows itself by its machine id, its BMC by the serial number of its chassis. Nobody has to say that the two are
one tray: firmware tells both the system's serial number and UUID (SMBIOS, type 1; Redfish, ComputerSystem). The tray
of the best-ranked source is the one that the others are; a topology file that says otherwise counts more.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

import polars as pl

from catalogue import ResourceKind
from storage.topology_aliases import AliasWord
from storage.topology_words import EVER

# Attributes that mark a tray, and what each is a number of: firmware gives the chassis the system's number, or its own.
MARKS = {"system_uuid": "UUID", "system_serial": "serial number", "serial": "serial number"}


@dataclass(frozen=True, slots=True)
class _Marked:
    """From `start` until `end` a source of this rank says that the tray bears a mark."""

    mark: tuple[str, str]
    rank: int
    start: datetime
    end: datetime
    resource: int
    identity: str


def marked_aliases(told: pl.DataFrame, identities: pl.DataFrame, said: Iterable[AliasWord]) -> list[AliasWord]:
    """What standing words make aliases by their marks, beside what sources `said`.

    Where sources of one rank tell a mark of two trays, it says nothing: such words have a `doubt`.
    """
    meant = {word.alias: word.identity for word in said}
    found: defaultdict[int, list[AliasWord]] = defaultdict(list)
    for _, group in groupby(_marked(told, identities), key=lambda one: one.mark):
        for word in _twins(list(group)):
            before = found[word.alias]
            if word.alias not in meant and not any(word.overlaps(other) for other in before):
                before.append(word.of(meant.get(word.same_as, word.identity)))
    return [word for words in found.values() for word in words]


def _marked(told: pl.DataFrame, identities: pl.DataFrame) -> Iterator[_Marked]:
    """Who bears which mark, by mark; of each the best-ranked source first, and each tray once."""
    first = told.group_by("resource").agg(first=pl.col("start").min())
    rows = (
        told.join(identities.filter(pl.col("kind") == ResourceKind.TRAY.value), on="resource")
        .filter(~pl.col("faded"))
        .explode("keys", "values")
        .filter(pl.col("keys").is_in(list(MARKS)), pl.col("values") != "")
        .with_columns(mark=pl.col("keys").replace_strict(MARKS), number=pl.col("values").str.to_lowercase())
        .group_by("mark", "number", "resource", "identity")
        .agg(pl.col("rank", "start").min(), pl.col("end").max())
        .filter(pl.len().over("mark", "number") > 1)
        .join(first, on="resource")
        .with_columns(start=pl.when(pl.col("start") == pl.col("first")).then(pl.lit(EVER)).otherwise("start"))
        .sort("mark", "number", "rank", "start", "identity")
        .select("mark", "number", "rank", "start", "end", "resource", "identity")
    )
    for mark, number, *rest in rows.iter_rows():
        yield _Marked((mark, number), *rest)


def _twins(bearers: list[_Marked]) -> Iterator[AliasWord]:
    """The others as aliases of the best-ranked bearer of a mark, for the time that both bear it."""
    best = bearers[0]
    for other in bearers[1:]:
        start, end = max(best.start, other.start), min(best.end, other.end)
        if start < end:
            doubtful = other.rank == best.rank or bearers[1].rank == best.rank
            doubt = f"several trays tell the {best.mark[0]} {best.mark[1]}" if doubtful else ""
            yield AliasWord(other.resource, ResourceKind.TRAY.value, best.identity, start, end, doubt)
