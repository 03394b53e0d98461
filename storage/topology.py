"""The site's topology as its sources agree on it: what is part of what, since when, and where they contradict.

`read_topology` reconciles what is stored right now. `PlaceKeeper` writes the same into the tables behind the views
`places`, `resources`, `feeds` and `topology_conflicts`, for dashboards and reports that speak SQL.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl
import pyarrow as pa  # type: ignore[import-untyped]
from clickhouse_connect.driver.client import Client

from storage.client import store_errors
from storage.reader import TIME, Reader, Schema
from storage.topology_aliases import AliasWord
from storage.topology_facts import VERSIONS
from storage.topology_places import PLACES, places_of
from storage.topology_versions import Versions, agreed_versions
from storage.topology_words import WORDS, Rules

CONFLICTS: dict[str, pl.DataType] = {
    "resource": pl.UInt64(),
    "valid_from": TIME,
    "rival_parent": pl.UInt64(),
    "rival_told_by": pl.String(),
    "rival_source": pl.UInt64(),
    "valid_to": TIME,
    "kind": pl.String(),
    "name": pl.String(),
    "parent": pl.UInt64(),
    "parent_name": pl.String(),
    "rack_name": pl.String(),
    "told_by": pl.String(),
    "source": pl.UInt64(),
    "rival_name": pl.String(),
    "rival_rack_name": pl.String(),
}

# A source that flaps says something new with each repetition, 144 times a day: its oldest words are left out.
MOST_WORDS = 1000

_WORDS = """
SELECT
    resource,
    source,
    toString(told_by) AS told_by,
    valid_from,
    told_at,
    toString(kind) AS kind,
    identity,
    name,
    parent,
    serves,
    arrayMap(key -> toString(key), mapKeys(attributes)) AS keys,
    mapValues(attributes) AS values
FROM inventory_words FINAL
ORDER BY resource, source, valid_from DESC
LIMIT {most:UInt32} BY resource, source
"""

_CHANGED = """
SELECT toString(tuple(
    count(),
    groupBitXor(cityHash64(resource, source, valid_from, told_by, name, parent, serves, attributes))))
FROM inventory_words FINAL
"""


@dataclass(frozen=True, slots=True)
class Topology:
    """What the sources agree on. Every frame is versioned: `valid_from` <= t < `valid_to`, FOREVER while it holds.

    `versions` (VERSIONS) are the facts, `places` (PLACES) the way up from each resource, also under the ids of its
    aliases; `conflicts` (CONFLICTS) are disagreements about a parent. `refused_aliases` would be aliases of aliases.
    """

    words: pl.DataFrame
    versions: pl.DataFrame
    places: pl.DataFrame
    conflicts: pl.DataFrame
    refused_aliases: tuple[AliasWord, ...] = ()

    def as_of(self, at: datetime) -> pl.DataFrame:
        """The places of what was known at `at`, one row for each resource; `at` is aware."""
        moment = pl.lit(at.astimezone(UTC)).cast(TIME)
        return self.places.filter(
            pl.col("valid_from") <= moment, moment < pl.col("valid_to"), pl.col("known_from") <= moment
        )

    def troubles(self, at: datetime) -> pl.DataFrame:
        """The resources at which a way up ends before it should, once each: orphans and circles."""
        return self.as_of(at).filter(pl.col("trouble") != "", pl.col("trouble_at") == pl.col("resource"))

    def last_told(self) -> pl.DataFrame:
        """When each resource was last spoken of: `resource`, `last_told`."""
        return self.words.group_by("resource").agg(last_told=pl.col("told_at").max())


def reconcile(words: pl.DataFrame, rules: Rules | None = None) -> Topology:
    """The topology that follows from WORDS; ValueError when the frame has other columns.

    Pure, and whatever the words say it ends: circles and orphans are marked in `places`.
    """
    if dict(words.schema) != WORDS:
        raise ValueError(f"words have the columns {dict(words.schema)}; give {WORDS}")
    versions = agreed_versions(words, rules or Rules())
    places = places_of(versions, words)
    return Topology(
        words=words,
        versions=versions.facts,
        places=places,
        conflicts=_conflicts(versions, places),
        refused_aliases=versions.aliases.refused,
    )


def read_words(reader: Reader) -> pl.DataFrame:
    """Every source's own word about every resource, as WORDS. StoreUnavailableError, StoreRefusedError."""
    return reader.query(_WORDS, {"most": MOST_WORDS}, WORDS)


def read_topology(reader: Reader, rules: Rules | None = None) -> Topology:
    """What is stored right now, reconciled. StoreUnavailableError, StoreRefusedError."""
    return reconcile(read_words(reader), rules)


# Conflicts -----------------------------------------------------------------------------------------------------------


def _conflicts(versions: Versions, places: pl.DataFrame) -> pl.DataFrame:
    """CONFLICTS: rival words that do not fit into each other. A word that names a level further up is only less exact.

    Judged by the tree as it was when the disagreement began.
    """
    rivals = versions.rivals
    if rivals.is_empty():
        return pl.DataFrame(schema=CONFLICTS)
    own = places.select("resource", "valid_from", "path", "kind", "name", "rack_name")
    found = _at_begin(rivals, own, "resource", "")
    found = _at_begin(found, own, "parent", "parent_")
    found = _at_begin(found, own, "rival_parent", "rival_")
    fits = pl.col("path").list.contains(pl.col("rival_parent")) | pl.col("rival_path").list.contains(pl.col("parent"))
    return (
        found.filter(~fits.fill_null(value=False))
        .with_columns(rack_name=pl.col("parent_rack_name"))
        .with_columns(pl.col("kind", "name", "parent_name", "rack_name", "rival_name", "rival_rack_name").fill_null(""))
        .select(*CONFLICTS)
        .sort("resource", "valid_from", "rival_parent")
    )


def _at_begin(frame: pl.DataFrame, places: pl.DataFrame, column: str, prefix: str) -> pl.DataFrame:
    """`frame` with the place of the resource in `column` at `valid_from`; absent for one that nobody tells of."""
    renamed = places.rename(
        {"resource": column, "valid_from": "_since"}
        | {name: f"{prefix}{name}" for name in ("path", "kind", "name", "rack_name")}
    )
    return (
        frame.sort("valid_from")
        .join_asof(renamed.sort("_since"), left_on="valid_from", right_on="_since", by=column, check_sortedness=False)
        .drop("_since")
    )


# Tables --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """A table that is brought up to a frame: its rows are told apart by `keys`."""

    table: str
    columns: Schema
    keys: Sequence[str]

    def select(self) -> str:
        """What the table holds now, in the types of the frame."""
        columns = ", ".join(_column(name, type_) for name, type_ in self.columns.items())
        return f"SELECT {columns} FROM {self.table} FINAL"  # noqa: S608 - names of this module


TARGETS = (
    Target("resource_versions", VERSIONS, ("resource", "valid_from")),
    Target("place_versions", PLACES, ("resource", "valid_from")),
    Target("conflict_versions", CONFLICTS, ("resource", "valid_from", "rival_parent", "rival_told_by", "rival_source")),
)


@dataclass(frozen=True, slots=True)
class RecomputedTable:
    """How many rows of a table were written, and how many taken back."""

    table: str
    written: int
    deleted: int


class PlaceKeeper:
    """Keeps the tables of the topology up to date; only one at a time per store, like HourKeeper.

    Only what differs is written, so running it twice, or too often, does no harm.
    """

    # Words fade by the time that passes, without a word being changed.
    AT_LEAST_EVERY = timedelta(minutes=10)

    def __init__(self, client: Client, rules: Rules | None = None) -> None:
        self._client = client
        self._reader = Reader(client)
        self._rules = rules or Rules()
        self._seen = ""
        self._computed_at = datetime(1970, 1, 1, tzinfo=UTC)

    def recompute(self) -> list[RecomputedTable]:
        """Reconcile anew if there are new words; returns what changed. StoreUnavailableError, StoreRefusedError."""
        with store_errors("looking for new words"):
            seen, now = self._client.query(f"SELECT ({_CHANGED}), now64(3, 'UTC')").result_rows[0]
        now = now.replace(tzinfo=UTC)
        if seen == self._seen and now - self._computed_at < self.AT_LEAST_EVERY:
            return []
        topology = read_topology(self._reader, self._rules)
        frames = (topology.versions, topology.places, topology.conflicts)
        changed = [self._bring_up(target, frame, now) for target, frame in zip(TARGETS, frames, strict=True)]
        self._seen, self._computed_at = seen, now
        return [one for one in changed if one.written or one.deleted]

    def _bring_up(self, target: Target, wanted: pl.DataFrame, now: datetime) -> RecomputedTable:
        stored = self._reader.query(target.select(), {}, target.columns)
        written, deleted = differences(stored, wanted, target.keys)
        rows = pl.concat(
            [written.with_columns(is_deleted=pl.lit(0, pl.UInt8)), deleted.with_columns(is_deleted=pl.lit(1, pl.UInt8))]
        ).with_columns(computed_at=pl.lit(now).cast(TIME))
        if len(rows):
            with store_errors(f"writing {len(rows)} rows of {target.table}"):
                self._client.insert_arrow(target.table, _arrow(rows))
        return RecomputedTable(target.table, len(written), len(deleted))


def recompute_places(client: Client, rules: Rules | None = None) -> list[RecomputedTable]:
    """Bring the tables of the topology up to what is stored right now, once."""
    return PlaceKeeper(client, rules).recompute()


def differences(stored: pl.DataFrame, wanted: pl.DataFrame, keys: Sequence[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows of `wanted` that `stored` has not, or not so; and those of `stored` whose keys `wanted` has not."""
    before, after = (frame.select(keys).with_columns(row=frame.hash_rows()) for frame in (stored, wanted))
    same = after.join(before, on=[*keys, "row"], how="semi")
    return wanted.join(same, on=list(keys), how="anti"), stored.join(wanted, on=list(keys), how="anti")


def _column(name: str, type_: pl.DataType) -> str:
    """A column as the frame has it: text as plain text, the map of attributes as two lists."""
    if name in ("keys", "values"):
        return f"arrayMap(one -> toString(one), map{name.title()}(attributes)) AS {name}"
    return f"toString({name}) AS {name}" if type_ == pl.String() else name


def _arrow(rows: pl.DataFrame) -> pa.Table:
    """Rows as ClickHouse takes them: `keys` and `values` become the map `attributes`."""
    if "keys" not in rows.columns:
        return rows.to_arrow()
    table = rows.drop("keys", "values").to_arrow()
    keys, values = (rows[name].rechunk().to_arrow() for name in ("keys", "values"))
    attributes = pa.MapArray.from_arrays(
        keys.offsets.cast(pa.int32()), keys.values.cast(pa.string()), values.values.cast(pa.string())
    )
    return table.append_column("attributes", attributes)
