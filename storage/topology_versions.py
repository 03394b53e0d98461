"""What holds of each resource and when: for every fact the word of the best source that stands at that time. Pure.

Resources are followed through their aliases: what is said of an alias is said of the resource that it is, and who is
part of an alias is part of that resource, each for the time in which it is an alias.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from storage.reader import TIME
from storage.topology_aliases import ALIAS_OF, NO_ALIASES, Aliases, AliasWord, accepted_aliases
from storage.topology_facts import agreed_facts, before_first, changed, spans
from storage.topology_marks import marked_aliases
from storage.topology_words import EVER, FOREVER, Rules, standing_words

RIVALS: dict[str, pl.DataType] = {
    "resource": pl.UInt64(),
    "valid_from": TIME,
    "valid_to": TIME,
    "parent": pl.UInt64(),
    "told_by": pl.String(),
    "source": pl.UInt64(),
    "rival_parent": pl.UInt64(),
    "rival_told_by": pl.String(),
    "rival_source": pl.UInt64(),
}

# Claims that are weighed at once: with 50,000 a site of 100,000 GPUs takes half the memory that it takes at once.
PART_CLAIMS = 50_000

_TURN = ("owner", "at")
# The order in which words that stand at one time count; the last two only make it the same every time.
_PRIORITY = {"faded": False, "rank": False, "start": True, "source": False, "resource": False}  # True: descending


@dataclass(frozen=True, slots=True)
class Versions:
    """`facts` are VERSIONS, one after the other for each resource; `rivals` are RIVALS, words that lost."""

    facts: pl.DataFrame
    rivals: pl.DataFrame
    aliases: Aliases


def agreed_versions(words: pl.DataFrame, rules: Rules) -> Versions:
    """What holds of each resource and when, from WORDS."""
    told = standing_words(words, rules)
    identities = words.group_by("resource").agg(pl.col("kind", "identity").min())
    aliases = _aliases(told, identities)
    known = pl.concat([identities, _unspoken(identities, aliases)])
    facts, rivals = [], []
    for claims in _parts(_owned(told, aliases)):
        turns = _turns(claims, aliases)
        standing = _in_order(aliases.resolve(_standing(claims, turns), "parent", "at"))
        facts.append(agreed_facts(standing, aliases, known))
        rivals.append(_rivals(standing, turns, rules))
    return Versions(facts=pl.concat(facts), rivals=pl.concat(rivals), aliases=aliases)


def _parts(claims: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The claims a part at a time, all of an owner in one: so many owners never bear upon each other."""
    parts = len(claims) // PART_CLAIMS + 1
    return (claims.filter(pl.col("owner") % parts == part) for part in range(parts))


# Who says what at each turn ------------------------------------------------------------------------------------------


def _turns(claims: pl.DataFrame, aliases: Aliases) -> pl.DataFrame:
    """Each `owner` and every time `at` which something that is said of it changes, once and in order."""
    mentioned = pl.concat(
        [claims.select("owner", mention="parent"), claims.select("owner", mention="serves").explode("mention")]
    )
    renamed = mentioned.join(aliases.held.select("start", mention="alias"), on="mention").filter(pl.col("start") > EVER)
    times = [
        claims.select("owner", at="start"),
        claims.select("owner", at="end").filter(pl.col("at") < FOREVER),
        renamed.select("owner", at="start"),
    ]
    return pl.concat(times).unique().sort(*_TURN)


def _standing(claims: pl.DataFrame, turns: pl.DataFrame) -> pl.DataFrame:
    """The claims that stand at each turn."""
    voice = ("owner", "resource", "source")
    grid = turns.join(claims.select(voice).unique(), on="owner")
    found = grid.sort("at").join_asof(
        claims.with_columns(begun="start").sort("begun"),
        left_on="at",
        right_on="begun",
        by=list(voice),
        check_sortedness=False,
    )
    return found.filter(pl.col("at") < pl.col("end")).drop("end")


def _in_order(standing: pl.DataFrame) -> pl.DataFrame:
    return standing.sort(*_TURN, *_PRIORITY, descending=[False, False, *_PRIORITY.values()])


def _owned(told: pl.DataFrame, aliases: Aliases) -> pl.DataFrame:
    """Standing words with the `owner` that they are about: the resource, or what it is an alias of, in its time."""
    plain = told.with_columns(owner=pl.col("resource"))
    if aliases.held.is_empty():
        return plain
    held = aliases.held.select("same_as", resource="alias", alias_start="start", alias_end="end")
    pieces = (
        told.join(held, on="resource")
        .with_columns(
            start=pl.max_horizontal("start", "alias_start"),
            end=pl.min_horizontal("end", "alias_end"),
            owner=pl.col("same_as"),
        )
        .filter(pl.col("start") < pl.col("end"))
    )
    return pl.concat([plain.join(held, on="resource", how="anti"), pieces.select(plain.columns)])


# Aliases -------------------------------------------------------------------------------------------------------------


def _aliases(told: pl.DataFrame, identities: pl.DataFrame) -> Aliases:
    """What the sources say by `same_as`, and then what follows from the marks that things bear."""
    said = _said_aliases(told, identities)
    return accepted_aliases([*said, *marked_aliases(told, identities, said)])


def _said_aliases(told: pl.DataFrame, identities: pl.DataFrame) -> list[AliasWord]:
    """What the sources say by `same_as`, by the same rules as any other fact; the best-ranked first."""
    ever = told.filter(pl.col("keys").list.contains(ALIAS_OF)).select("resource").unique()
    if ever.is_empty():
        return []
    claims = told.join(ever, on="resource", how="semi").with_columns(owner=pl.col("resource"))
    turns = _turns(claims, NO_ALIASES)
    said = (
        _in_order(_standing(claims, turns))
        .explode("keys", "values")
        .filter(pl.col("keys") == ALIAS_OF)
        .group_by(_TURN, maintain_order=True)
        .agg(pl.col("values", "rank").first())
    )
    edges = (
        turns.join(said, on=_TURN, how="left", maintain_order="left")
        .with_columns(before_first("values"), before_first("rank"))
        .filter(changed("owner", "values"))
        .with_columns(spans())
        .filter(pl.col("values").is_not_null())
        .join(identities, left_on="owner", right_on="resource")
    )
    return list(_alias_words(edges.sort("rank", "start", "owner")))


def _alias_words(edges: pl.DataFrame) -> Iterator[AliasWord]:
    for owner, kind, identity, start, end in edges.select("owner", "kind", "values", "start", "end").iter_rows():
        yield AliasWord(owner, kind, identity, start, end)


def _unspoken(identities: pl.DataFrame, aliases: Aliases) -> pl.DataFrame:
    """Kind and identity of what others are aliases of, and nobody speaks of itself."""
    targets = aliases.held.filter(pl.col("identity") != "").select("kind", "identity", resource="same_as")
    return targets.unique("resource").join(identities, on="resource", how="anti").select(identities.columns)


# Conflicts -----------------------------------------------------------------------------------------------------------


def _rivals(standing: pl.DataFrame, turns: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    """RIVALS: fresh words about a parent that say another one than the word that counts, and for how long.

    Differences that were over sooner than a change takes to get round are none.
    """
    until = turns.select(*_TURN, until=pl.col("at").shift(-1).over("owner").fill_null(FOREVER))
    claims = standing.filter(~pl.col("faded"), pl.col("parent") != 0)
    best = claims.unique(_TURN, keep="first", maintain_order=True).select(*_TURN, "parent", "told_by", "source")
    others = claims.select(*_TURN, rival_parent="parent", rival_told_by="told_by", rival_source="source")
    same = ("owner", "rival_told_by", "rival_parent", "parent", "told_by")
    lost = (
        others.join(best, on=_TURN)
        .filter(pl.col("rival_parent") != pl.col("parent"))
        .unique([*_TURN, "rival_told_by", "rival_parent"], keep="first", maintain_order=True)
        .join(until, on=_TURN)
        .sort(*same, "at")
    )
    begins = changed(*same) | pl.col("at").ne_missing(pl.col("until").shift())
    rivals = (
        lost.group_by(begins.cum_sum().alias("rivalry"), maintain_order=True)
        .agg(
            pl.col(*same, "source", "rival_source").first(),
            valid_from=pl.col("at").min(),
            valid_to=pl.col("until").max(),
        )
        .rename({"owner": "resource"})
    )
    lasting = pl.col("valid_to") - pl.col("valid_from") >= rules.silence
    return rivals.filter((pl.col("valid_to") == FOREVER) | lasting).select(*RIVALS).sort("resource", "valid_from")
