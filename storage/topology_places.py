"""Where each resource is and when: the way up from version to version, and where it does not end at a site. Pure."""

import polars as pl

from catalogue import ResourceKind
from storage.reader import TIME
from storage.topology_versions import Versions
from storage.topology_words import FOREVER

# The levels of a site that have columns of their own.
LEVELS = (ResourceKind.TRAY, ResourceKind.RACK, ResourceKind.ROW, ResourceKind.HALL, ResourceKind.SITE)
# What need not be part of anything.
ROOTS = (ResourceKind.SITE, ResourceKind.OFF_TAKER, ResourceKind.AGENT)
MOST_STEPS = 16  # a port of a GPU of a tray has six; a tree that goes further is not a site's

NO_PARENT = "has no parent"
UNKNOWN_PARENT = "is part of something that nobody tells of"
CYCLE = "is part of itself"
TOO_DEEP = f"is more than {MOST_STEPS} levels deep"

PLACES: dict[str, pl.DataType] = {
    "resource": pl.UInt64(),
    "valid_from": TIME,
    "valid_to": TIME,
    "known_from": TIME,
    "same_as": pl.UInt64(),
    "kind": pl.String(),
    "identity": pl.String(),
    "name": pl.String(),
    "parent": pl.UInt64(),
    **{
        name: type_
        for level in LEVELS
        for name, type_ in ((level.value, pl.UInt64()), (f"{level.value}_name", pl.String()))
    },
    "path": pl.List(pl.UInt64()),
    "trouble": pl.String(),
    "trouble_at": pl.UInt64(),
}


def places_of(versions: Versions, words: pl.DataFrame) -> pl.DataFrame:
    """PLACES of all resources and aliases. Ids are those of the time, names those of today."""
    facts = versions.facts
    today = facts.filter(pl.col("valid_to") == FOREVER).select("resource", "name")
    ways = _ways(facts.select("resource", "valid_from", "valid_to", "kind", "parent"))
    named = ways
    for level in LEVELS:
        names = today.select(pl.col("resource").alias(level.value), pl.col("name").alias(f"{level.value}_name"))
        named = named.join(names, on=level.value, how="left")
    who = facts.unique("resource").select("resource", "kind", "identity", "known_from")
    places = (
        named.join(who, on="resource")
        .join(today, on="resource")
        .with_columns(pl.col(f"{level.value}_name").fill_null("") for level in LEVELS)
        .with_columns(same_as=pl.col("resource"))
        .select(*PLACES)
    )
    own = _own_places(places, versions)
    return pl.concat([own, _alias_places(places, versions, words)]).sort("resource", "valid_from")


def _ways(versions: pl.DataFrame) -> pl.DataFrame:
    """The way up from each resource, cut wherever something on it changes."""
    steps = versions.rename({"resource": "node", "valid_from": "start", "valid_to": "end", "parent": "above"})
    here = steps.with_columns(resource=pl.col("node"), parent=pl.col("above"), path=pl.concat_list("node"))
    here = here.with_columns(_level(level, pl.lit(0, pl.UInt64())) for level in LEVELS)
    ended = []
    for _ in range(MOST_STEPS):
        here, done = _sorted_out(here)
        ended.append(done)
        if here.is_empty():
            break
        here, done = _step(here, steps)
        ended.append(done)
    ended.append(_troubled(here, TOO_DEEP, pl.col("resource")))
    columns = (
        "resource",
        "start",
        "end",
        "parent",
        *(level.value for level in LEVELS),
        "path",
        "trouble",
        "trouble_at",
    )
    ways = pl.concat([way.select(columns) for way in ended])
    return _joined(ways).rename({"start": "valid_from", "end": "valid_to"})


def _sorted_out(here: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Those that go on, and those that have arrived: at the top, or where they have been before."""
    is_top, is_round = pl.col("above") == 0, pl.col("path").list.contains(pl.col("above"))
    is_root = pl.col("kind").is_in([str(kind) for kind in ROOTS])
    at_top = here.filter(is_top)
    arrived = [
        at_top.filter(is_root).with_columns(trouble=pl.lit(""), trouble_at=pl.lit(0, pl.UInt64())),
        _troubled(at_top.filter(~is_root), NO_PARENT, pl.col("node")),
        _troubled(here.filter(~is_top & is_round), CYCLE, pl.col("above")),
    ]
    return here.filter(~is_top & ~is_round), pl.concat(arrived)


def _step(here: pl.DataFrame, steps: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """One level up; and those whose parent nobody tells of."""
    up = here.drop("kind", "node").rename({"start": "since", "end": "until"})
    met = up.join(steps, left_on="above", right_on="node", how="inner", suffix="_of_parent")
    met = (
        met.with_columns(
            start=pl.max_horizontal("since", "start"),
            end=pl.min_horizontal("until", "end"),
            node=pl.col("above"),
            above=pl.col("above_of_parent"),
            path=pl.concat_list("path", "above"),
        )
        .filter(pl.col("start") < pl.col("end"))
        .with_columns(_level(level, pl.col(level.value)) for level in LEVELS)
    )
    lost = here.join(steps, left_on="above", right_on="node", how="anti")
    return met.select(here.columns), _troubled(lost, UNKNOWN_PARENT, pl.col("node"))


def _level(level: ResourceKind, known: pl.Expr) -> pl.Expr:
    """The nearest resource of this level on the way so far."""
    return pl.when((pl.col("kind") == level.value) & (known == 0)).then("node").otherwise(known).alias(level.value)


def _troubled(ways: pl.DataFrame, trouble: str, at: pl.Expr) -> pl.DataFrame:
    return ways.with_columns(trouble=pl.lit(trouble), trouble_at=at)


def _joined(ways: pl.DataFrame) -> pl.DataFrame:
    """Ways that follow each other and are the same are one: a rename above is no move."""
    same = [name for name in ways.columns if name not in ("start", "end")]
    changed = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in same)
    ordered = ways.sort("resource", "start").filter(changed)
    return ordered.with_columns(end=pl.col("start").shift(-1).over("resource").fill_null(FOREVER))


def _own_places(places: pl.DataFrame, versions: Versions) -> pl.DataFrame:
    """Without the times in which a resource is an alias of another."""
    held = versions.aliases.held
    spans = held.filter(pl.col("alias") == pl.col("same_as")).select("start", "end", resource="alias")
    return pl.concat(
        [places.join(held, left_on="resource", right_on="alias", how="anti"), _cut(places.join(spans, on="resource"))]
    )


def _cut(places: pl.DataFrame) -> pl.DataFrame:
    """Places as far as they are between `start` and `end`."""
    return (
        places.with_columns(
            valid_from=pl.max_horizontal("valid_from", "start"), valid_to=pl.min_horizontal("valid_to", "end")
        )
        .filter(pl.col("valid_from") < pl.col("valid_to"))
        .select(*PLACES)
    )


def _alias_places(places: pl.DataFrame, versions: Versions, words: pl.DataFrame) -> pl.DataFrame:
    """The places of what an alias is, under the alias's own id: readings carry it."""
    held = versions.aliases.held
    if held.is_empty():
        return places.clear()
    identities = words.group_by("resource").agg(
        pl.col("identity").min().alias("own_identity"), pl.col("valid_from").min().alias("own_known_from")
    )
    spans = held.filter(pl.col("alias") != pl.col("same_as")).select("alias", "start", "end", "same_as")
    found = (
        spans.join(places.drop("same_as"), left_on="same_as", right_on="resource")
        .join(identities, left_on="alias", right_on="resource")
        .with_columns(resource=pl.col("alias"), identity=pl.col("own_identity"), known_from=pl.col("own_known_from"))
    )
    return _cut(found)
