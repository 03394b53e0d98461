"""What holds of each resource at each turn: fact by fact the best word that says something. Pure.

A turn is a time at which something that is said of a resource changes. Before the first word about a fact the first one
counts: readings may be older than the word about their place.
"""

import polars as pl

from storage.reader import TIME
from storage.topology_aliases import ALIAS_OF, Aliases
from storage.topology_words import EVER, FOREVER

VERSIONS: dict[str, pl.DataType] = {
    "resource": pl.UInt64(),
    "valid_from": TIME,
    "valid_to": TIME,
    "known_from": TIME,
    "kind": pl.String(),
    "identity": pl.String(),
    "name": pl.String(),
    "parent": pl.UInt64(),
    "serves": pl.List(pl.UInt64()),
    "keys": pl.List(pl.String()),
    "values": pl.List(pl.String()),
}

_FACTS = ("owner", "at", "name", "parent", "serves", "keys", "values")
_SAYS_SOMETHING = {
    "name": pl.col("name") != "",
    "parent": pl.col("parent") != 0,
    "serves": pl.col("serves").list.len() > 0,
}


def agreed_facts(standing: pl.DataFrame, aliases: Aliases, identities: pl.DataFrame) -> pl.DataFrame:
    """VERSIONS from the words that stand at each turn (`owner`, `at`), in order of turn and priority."""
    is_alone = (pl.len().over("owner") == 1) & ~pl.col("keys").list.contains(ALIAS_OF)
    # Most resources have one source that never says anything else: nothing is to be weighed.
    alone, several = standing.filter(is_alone).select(_FACTS), standing.filter(~is_alone)
    facts = _resolve_serves(pl.concat([alone, _merged(several)]), aliases)
    named = facts.join(identities, left_on="owner", right_on="resource", how="left").with_columns(
        name=pl.when(pl.col("name") == "").then("identity").otherwise("name"),
        known_from=pl.col("at").min().over("owner"),
    )
    return _without_repeats(named)


def spans() -> list[pl.Expr]:
    """`start` and `end` of each turn of an owner, from its `at` in order: all of time is covered."""
    return [
        pl.when(changed("owner")).then(pl.lit(EVER).cast(TIME)).otherwise("at").alias("start"),
        pl.col("at").shift(-1).over("owner").fill_null(FOREVER).alias("end"),
    ]


def changed(*names: str) -> pl.Expr:
    """Whether a row differs from the one before it."""
    return pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in names)


def before_first(name: str) -> pl.Expr:
    """The values of a fact of each owner, and before its first one that one."""
    value = pl.col(name)
    unheard = value.forward_fill().over("owner").is_null()
    return pl.when(unheard).then(value.backward_fill().over("owner")).otherwise(value).alias(name)


def _merged(standing: pl.DataFrame) -> pl.DataFrame:
    """One row for each turn. Turns are numbered, an owner's one after the other."""
    numbered = standing.with_columns(turn=changed("owner", "at").cum_sum())
    merged = numbered.select("turn", "owner", "at").unique("turn", keep="first", maintain_order=True)
    for name, says_something in _SAYS_SOMETHING.items():
        first = numbered.filter(says_something).unique("turn", keep="first").select("turn", name)
        merged = merged.join(first, on="turn", how="left", maintain_order="left")
    return (
        merged.with_columns(before_first(name) for name in _SAYS_SOMETHING)
        .join(_attributes(numbered), on="turn", how="left", maintain_order="left")
        .with_columns(
            pl.col("name").fill_null(""),
            pl.col("parent").fill_null(0),
            *(pl.col(name).fill_null(pl.lit([], VERSIONS[name])) for name in ("serves", "keys", "values")),
        )
        .select(_FACTS)
    )


def _attributes(numbered: pl.DataFrame) -> pl.DataFrame:
    """The attributes that hold at each turn, as sorted `keys` and their `values`."""
    said = (
        numbered.select("turn", "keys", "values", first_turn=pl.col("turn").min().over("owner"))
        .explode("keys", "values")
        .filter(pl.col("keys").is_not_null(), pl.col("keys") != ALIAS_OF)
        .unique(["turn", "keys"], keep="first", maintain_order=True)
    )
    first = said.unique(["first_turn", "keys"], keep="first", maintain_order=True)
    earlier = first.filter(pl.col("turn") > pl.col("first_turn")).with_columns(
        turn=pl.int_ranges("first_turn", "turn", dtype=pl.UInt32)
    )
    return (
        pl.concat([said, earlier.explode("turn").select(said.columns)])
        .sort("turn", "keys")
        .group_by("turn", maintain_order=True)
        .agg("keys", "values")
    )


def _resolve_serves(facts: pl.DataFrame, aliases: Aliases) -> pl.DataFrame:
    """What is served, in order and each once: two aliases of one rack are one rack."""
    turn = ("owner", "at")
    lists = (
        aliases.resolve(facts.select(*turn, "serves").explode("serves").drop_nulls(), "serves", "at")
        .unique()
        .sort(*turn, "serves")
        .group_by(turn, maintain_order=True)
        .agg(resolved="serves")
    )
    found = facts.join(lists, on=turn, how="left")
    return found.with_columns(serves=pl.coalesce("resolved", "serves")).drop("resolved")


def _without_repeats(facts: pl.DataFrame) -> pl.DataFrame:
    """Turns at which nothing changed are left out; the first version of each resource reaches back for ever."""
    return (
        facts.sort("owner", "at")
        .filter(changed("owner", "name", "parent", "serves", "keys", "values"))
        .with_columns(spans())
        .rename({"owner": "resource", "start": "valid_from", "end": "valid_to"})
        .select(*VERSIONS)
    )
