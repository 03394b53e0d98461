"""Rows of registers that name what is not there, and so have no effect: said by the import, and by every report.

A row may come before what it names, so an import is not refused for it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from catalogue import ResourceKind, resource_id
from storage.reader import Reader, Schema
from storage.register_kinds import DECLARATIONS, RegisterKind

METER_KINDS = (ResourceKind.METER, ResourceKind.HEAT_METER, ResourceKind.FEEDER)
SHOWN = 20

Row = Mapping[str, Any]  # a row of a register, by its declaration's columns

_KNOWN: Schema = {"resource": pl.UInt64()}
_ALIASES: Schema = {"resource": pl.UInt64(), "same_as": pl.UInt64()}
_OFF_TAKERS: Schema = {"off_taker": pl.String()}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands: a line of a file, or of a version that was imported."""

    line: int
    version: str = ""

    @classmethod
    def of(cls, row: Row) -> "Place":
        """Of a row that `read_register` gave."""
        return cls(row["import_line"], str(row["import_version"]))

    def __str__(self) -> str:
        return f"line {self.line} of version {self.version[:8]}" if self.version else f"line {self.line}"


@dataclass(frozen=True, slots=True)
class Named:
    """A resource that a row names: one of `ids`."""

    place: Place
    what: str
    ids: tuple[int, ...]


def resources_named(kind: RegisterKind, rows: Iterable[tuple[Place, Row]]) -> Iterator[Named]:
    """What each row of a register names of the topology; nothing for a register that names none of it."""
    columns = {column.name for column in DECLARATIONS[kind].columns}
    for place, row in rows:
        if "resource_kind" in columns:
            named = ResourceKind(row["resource_kind"])
            yield Named(place, f"{named} {row['resource']!r}", (resource_id(named, row["resource"]),))
        elif kind is RegisterKind.METER_CALIBRATIONS:
            ids = tuple(resource_id(of, row["meter"]) for of in METER_KINDS)
            yield Named(place, f"meter {row['meter']!r}", ids)


def unknown_resources(reader: Reader, kind: RegisterKind, rows: Iterable[tuple[Place, Row]]) -> Iterator[str]:
    """A sentence for each row about a resource that no inventory ever told of."""
    for each in _unknown(reader, kind, rows):
        yield resource_sentence(kind, each.what, each.place)


def known_rows(reader: Reader, kind: RegisterKind, register: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """The rows of a register as it was read whose resources are known, and a sentence for each of the others."""
    unknown = _unknown(reader, kind, placed(register))
    places = pl.DataFrame(
        [(each.place.line, each.place.version) for each in unknown], schema=["import_line", "import_version"],
        schema_overrides={"import_line": pl.UInt32(), "import_version": pl.String()}, orient="row",
    )  # fmt: skip
    kept = register.join(places, on=["import_line", "import_version"], how="anti", maintain_order="left")
    return kept, [resource_sentence(kind, each.what, each.place) for each in unknown]


def resolved_rows(
    reader: Reader, registers: Mapping[RegisterKind, pl.DataFrame]
) -> tuple[dict[RegisterKind, pl.DataFrame], list[str]]:
    """Registers with `resource` as the id that readings carry, and a sentence for each row about nothing known."""
    known, problems = {}, []
    for kind, register in registers.items():
        known[kind], unknown = known_rows(reader, kind, register)
        problems += unknown
    ids = resource_ids(reader, (name for rows in known.values() for name in _names(rows)))
    return {kind: _with_ids(rows, ids) for kind, rows in known.items()}, problems


def resource_ids(reader: Reader, named: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """The ids that readings carry, by kind and identity: of an alias that of what it stands for."""
    ids = {(kind, identity): resource_id(ResourceKind(kind), identity) for kind, identity in named}
    aliases = _aliases(reader, sorted(set(ids.values())))
    return {name: aliases.get(one, one) for name, one in ids.items()}


def _names(register: pl.DataFrame) -> Iterator[tuple[str, str]]:
    yield from register.select("resource_kind", "resource").iter_rows()


def _with_ids(register: pl.DataFrame, ids: Mapping[tuple[str, str], int]) -> pl.DataFrame:
    return register.with_columns(pl.Series("resource", [ids[name] for name in _names(register)], pl.UInt64))


def _unknown(reader: Reader, kind: RegisterKind, rows: Iterable[tuple[Place, Row]]) -> list[Named]:
    named = [*resources_named(kind, rows)]
    known = _known(reader, sorted({one for each in named for one in each.ids}))
    return [each for each in named if known.isdisjoint(each.ids)]


def resource_sentence(kind: RegisterKind, what: str, place: Place) -> str:
    return (
        f"{kind}: {what} is not in the topology ({place}); the row has no effect: correct its identity, or bring what "
        "it names into the topology"
    )


def unknown_parties(reader: Reader, rows: Iterable[tuple[Place, Row]]) -> Iterator[str]:
    """A sentence for each heat contract with somebody to whom no heat meter hands anything over."""
    ours = [(place, row) for place, row in rows if row["contract_kind"] == "heat"]
    known = _off_takers(reader) if ours else frozenset()
    for place, row in ours:
        if row["party"] not in known:
            yield (
                f"contracts: no heat meter has the off-taker {row['party']!r} of contract {row['contract']!r} "
                f"({place}); nothing is counted under it: correct the party, or the meter's attribute off_taker"
            )


def unknown_contracts(kind: RegisterKind, rows: Iterable[tuple[Place, Row]], contracts: Iterable[str]) -> Iterator[str]:
    """A sentence for each row about an SLA contract that is not among `contracts`."""
    known = frozenset(contracts)
    for place, row in rows:
        if row["contract"] not in known:
            yield (
                f"{kind}: contract {row['contract']!r} is no SLA contract of the register contracts ({place}); the row "
                "has no effect: correct its number, or import the contract"
            )


def placed(register: pl.DataFrame) -> Iterator[tuple[Place, Row]]:
    """The rows of a register as it was read."""
    return ((Place.of(row), row) for row in register.iter_rows(named=True))


def shortened(sentences: Sequence[str]) -> tuple[str, ...]:
    """As many as a person reads."""
    more = len(sentences) - SHOWN
    return (*sentences[:SHOWN], *([f"and {more} more such rows"] if more > 0 else []))


def _known(reader: Reader, ids: Sequence[int]) -> frozenset[int]:
    if not ids:
        return frozenset()
    sql = "SELECT DISTINCT resource FROM inventory WHERE resource IN {ids:Array(UInt64)}"
    return frozenset(reader.query(sql, {"ids": list(ids)}, _KNOWN)["resource"])


def _aliases(reader: Reader, ids: Sequence[int]) -> dict[int, int]:
    if not ids:
        return {}
    sql = """
SELECT resource, argMax(places.same_as, valid_from) AS same_as
FROM places
WHERE resource IN {ids:Array(UInt64)} AND places.same_as != resource
GROUP BY resource
"""
    return dict(reader.query(sql, {"ids": list(ids)}, _ALIASES).iter_rows())


def _off_takers(reader: Reader) -> frozenset[str]:
    sql = "SELECT DISTINCT attributes['off_taker'] AS off_taker FROM inventory WHERE kind = 'heat_meter'"
    return frozenset(reader.query(sql, {}, _OFF_TAKERS)["off_taker"])
