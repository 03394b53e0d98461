"""Registers in the store: versions are added, never changed, and read as they were known at a cut-off.

A version is one import. Of the rows with one key that row holds whose version is valid from the
latest time, and of those the one imported last. A version appears at once and whole: its rows are
written first, and the line in `register_versions` after them.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import polars as pl
from clickhouse_connect.driver.client import Client

from storage.client import store_errors
from storage.reader import TIME, Parameter, Reader
from storage.register_kinds import DECLARATIONS, PROVENANCE, CellKind, RegisterKind
from storage.writer import INSERT_SETTINGS

ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)
FOREVER = datetime(2299, 12, 31, tzinfo=UTC)  # the last day that ClickHouse's DateTime64 knows

# Days are the site's; their bounds are stored in UTC, which no zone is further away from.
_ZONES = timedelta(days=1)
_BLOCK_ROWS = 50_000  # some 20 MB of text

# The columns of `read_rows`.
ROWS: Mapping[str, pl.DataType] = {
    "row_key": pl.String(),
    "version": pl.String(),
    "line": pl.UInt32(),
    "text": pl.String(),
    "begins_at": TIME,
    "ends_at": TIME,
}
# The columns of `read_versions`.
VERSIONS: Mapping[str, pl.DataType] = {
    "version": pl.String(),
    "kind": pl.String(),
    "imported_at": TIME,
    "valid_from": TIME,
    "imported_by": pl.String(),
    "file_name": pl.String(),
    "file_sha256": pl.String(),
    "evidence_name": pl.String(),
    "evidence_sha256": pl.String(),
    "schema_version": pl.UInt16(),
    "row_count": pl.UInt32(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterRow:
    """One row as it is stored. `text` is a JSON object; `key` is the text of what tells rows apart."""

    line: int
    key: str
    text: str
    begins_at: datetime = ALWAYS
    ends_at: datetime = FOREVER
    withdrawn: bool = False

    @property
    def key_id(self) -> UUID:
        return _hashed(self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterVersion:
    """One import. The digests are SHA-256 in hexadecimal; `valid_from` is ALWAYS unless it was stated."""

    kind: RegisterKind
    imported_at: datetime
    imported_by: str
    file_name: str
    file_sha256: str
    evidence_name: str
    evidence_sha256: str
    row_count: int
    valid_from: datetime = ALWAYS
    schema_version: int = 1

    @property
    def version(self) -> UUID:
        """Its id: the same import, tried again after it broke off, is the same version."""
        told = (
            self.kind,
            self.imported_at.isoformat(),
            self.valid_from.isoformat(),
            self.file_sha256,
            self.evidence_sha256,
        )
        return _hashed("\0".join(told))


@dataclass(frozen=True, slots=True)
class AsOf:
    """Which versions count: imported up to `known_at`, and valid at `valid_at`, which is the same unless stated."""

    known_at: datetime
    valid_at: datetime | None = None

    @property
    def parameters(self) -> dict[str, Parameter]:
        return {"known_at": _text(self.known_at), "valid_at": _text(self.valid_at or self.known_at)}


_HOLDING = """
SELECT row_key, version, line, text, begins_at, ends_at
FROM
(
    SELECT toString(stored.row_key) AS row_key, toString(stored.version) AS version, stored.line AS line,
        stored.text AS text, stored.begins_at AS begins_at, stored.ends_at AS ends_at, stored.withdrawn AS withdrawn
    FROM register_rows AS stored
    INNER JOIN
    (
        SELECT version, valid_from, imported_at FROM register_versions
        WHERE kind = {kind:String} AND imported_at <= {known_at:DateTime64(3, 'UTC')}
          AND valid_from <= {valid_at:DateTime64(3, 'UTC')}
    ) AS known ON stored.version = known.version
    WHERE stored.kind = {kind:String}
    ORDER BY known.valid_from DESC, known.imported_at DESC, known.version DESC
    LIMIT 1 BY stored.row_key
)
WHERE NOT withdrawn AND begins_at < {until:DateTime64(3, 'UTC')} AND ends_at > {since:DateTime64(3, 'UTC')}
ORDER BY begins_at, version, line
"""

_VERSIONS = """
SELECT toString(version) AS version, toString(kind) AS kind, imported_at, valid_from, imported_by, file_name,
    toString(file_sha256) AS file_sha256, evidence_name, toString(evidence_sha256) AS evidence_sha256,
    schema_version, row_count
FROM register_versions
WHERE kind IN {kinds:Array(String)}
ORDER BY imported_at, version
LIMIT 1 BY version
"""


def read_register(
    reader: Reader,
    kind: RegisterKind,
    as_of: datetime,
    *,
    valid_at: datetime | None = None,
    within: tuple[datetime, datetime] | None = None,
) -> pl.DataFrame:
    """What the register said at a report's cut-off: the columns of its declaration's `schema`, in order of time.

    `as_of` is the cut-off: what was imported later is not seen, so a report can be made again as it
    was. `valid_at`, the cut-off unless given, is the time whose validity counts: versions that are
    valid only from later on are left out. With `within` only rows about that time come, days a day
    wider; rows that are about no time always come. `import_version` and `import_line` say where a row is from.
    Raises StoreUnavailableError, StoreRefusedError.
    """
    rows = read_rows(reader, kind, AsOf(as_of, valid_at), within=within)
    return typed(rows, kind)


def read_rows(
    reader: Reader, kind: RegisterKind, as_of: AsOf, *, within: tuple[datetime, datetime] | None = None
) -> pl.DataFrame:
    """ROWS that hold, as they are stored; arguments and errors as for `read_register`."""
    since, until = (within[0] - _ZONES, within[1] + _ZONES) if within else (ALWAYS - _ZONES, FOREVER)
    bounds = {"since": _text(max(since, ALWAYS)), "until": _text(min(until, FOREVER))}
    return reader.query(_HOLDING, {"kind": kind.value, **as_of.parameters, **bounds}, ROWS)


def read_versions(reader: Reader, kinds: Sequence[RegisterKind] = tuple(RegisterKind)) -> pl.DataFrame:
    """VERSIONS of these kinds, oldest first, with `number`: which one of its kind, from 1."""
    found = reader.query(_VERSIONS, {"kinds": [kind.value for kind in kinds]}, VERSIONS)
    return found.with_columns(number=pl.int_range(1, pl.len() + 1, dtype=pl.UInt32).over("kind"))


def store_clock(reader: Reader) -> datetime:
    """The store's own time, in milliseconds: whoever imports from whichever machine, versions are in one order."""
    now: datetime = reader.query("SELECT now64(3, 'UTC') AS now", {}, {"now": TIME})["now"].item()
    return now


def write_version(client: Client, version: RegisterVersion, rows: Sequence[RegisterRow]) -> None:
    """Add a version. Returns when the store has it; tried again with the same arguments it adds nothing.

    Raises StoreUnavailableError and StoreRefusedError; then no part of the version is seen.
    """
    for number, block in enumerate(_blocks(rows)):
        data = [_row_cells(version, row) for row in block]
        _insert(client, "register_rows", data, _ROW_COLUMNS, token=f"{version.version}-{number}")
    _insert(client, "register_versions", [_version_cells(version)], tuple(VERSIONS), token=str(version.version))


def typed(rows: pl.DataFrame, kind: RegisterKind) -> pl.DataFrame:
    """Rows with text, version and line as the frame of their register; cells that a row lacks are absent."""
    columns = DECLARATIONS[kind].columns
    plain = {column.name: pl.String() if column.kind in _AS_TEXT else column.frame_type for column in columns}
    cells = rows.select(
        pl.col("text").str.json_decode(pl.Struct(plain)).alias("cells"),
        *(pl.col(stored).alias(name) for stored, name in zip(("version", "line"), PROVENANCE, strict=True)),
    ).unnest("cells")
    times = [_parsed(column.name, column.kind) for column in columns if column.kind in _AS_TEXT]
    return cells.with_columns(*times).select(*DECLARATIONS[kind].schema)


_AS_TEXT = (CellKind.DAY, CellKind.MOMENT)
_ROW_COLUMNS = ("kind", "version", "line", "row_key", "begins_at", "ends_at", "withdrawn", "text")


def _parsed(name: str, kind: CellKind) -> pl.Expr:
    if kind is CellKind.DAY:
        return pl.col(name).str.to_date("%Y-%m-%d")
    plain = pl.col(name).str.to_datetime("%Y-%m-%dT%H:%M:%S%.3fZ", time_unit="ms")
    return plain.dt.replace_time_zone("UTC")


def _blocks(rows: Sequence[RegisterRow]) -> Iterator[Sequence[RegisterRow]]:
    return (rows[first : first + _BLOCK_ROWS] for first in range(0, len(rows), _BLOCK_ROWS))


def _insert(
    client: Client, table: str, data: Sequence[Sequence[object]], columns: Sequence[str], *, token: str
) -> None:
    with store_errors(f"insert of {len(data)} rows into {table}"):
        client.insert(
            table, data, column_names=list(columns), settings={**INSERT_SETTINGS, "insert_deduplication_token": token}
        )


def _row_cells(version: RegisterVersion, row: RegisterRow) -> list[object]:
    return [
        version.kind.value,
        version.version,
        row.line,
        row.key_id,
        row.begins_at,
        row.ends_at,
        int(row.withdrawn),
        row.text,
    ]


def _version_cells(version: RegisterVersion) -> list[object]:
    return [
        version.version,
        version.kind.value,
        version.imported_at,
        version.valid_from,
        version.imported_by,
        version.file_name,
        version.file_sha256,
        version.evidence_name,
        version.evidence_sha256,
        version.schema_version,
        version.row_count,
    ]


def row_text(cells: Mapping[str, object]) -> str:
    """The one way in which a row's cells are written as JSON: equal rows have equal texts."""
    return json.dumps(cells, ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False)


def _hashed(text: str) -> UUID:
    return UUID(bytes=hashlib.blake2b(text.encode(), digest_size=16).digest())


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
