"""Schema migrations: numbered plain SQL with checksums, applied in order, never changed afterwards."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files

from clickhouse_connect.driver.client import Client

from catalogue import TABLES, Table
from storage.client import StoreRefusedError, store_errors
from storage.ddl import hour_table, minute_table, minute_view, raw_table

BOOKS = """
CREATE TABLE IF NOT EXISTS schema_migrations
(
    number UInt32,
    name String,
    checksum FixedString(64) COMMENT 'SHA-256 of the file, in hexadecimal',
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(applied_at)
ORDER BY number
COMMENT 'Which migrations have been applied'
"""
CLUSTER_MARK = "gpu_local"  # a table that only the cluster form has (storage/cluster.py)


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of storage/migrations: NNNN_name.sql."""

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        return sha256(self.text.encode()).hexdigest()

    @property
    def statements(self) -> list[str]:
        """The statements, which end with a semicolon at the end of a line."""
        lines = [line for line in self.text.splitlines() if not line.startswith("--")]
        return [text.strip() for text in re.split(r";[ \t]*(?:\n|$)", "\n".join(lines)) if text.strip()]


@dataclass(frozen=True, slots=True)
class MigrationState:
    """A migration and what the database knows of it."""

    migration: Migration
    applied: bool
    changed: bool


def migrations() -> list[Migration]:
    """All migrations that ship with this version, in order."""
    found = []
    for file in files("storage").joinpath("migrations").iterdir():
        number, _, rest = file.name.partition("_")
        if file.name.endswith(".sql"):
            found.append(Migration(int(number), rest.removesuffix(".sql"), file.read_text()))
    return sorted(found, key=lambda migration: migration.number)


def status(client: Client) -> list[MigrationState]:
    """Every shipped migration: applied or not, and whether its file has changed since."""
    known = _applied(client)
    return [
        MigrationState(m, applied=m.number in known, changed=known.get(m.number, m.checksum) != m.checksum)
        for m in migrations()
    ]


def _is_in_cluster_form(client: Client) -> bool:
    with store_errors("looking for tables of a cluster"):
        found = client.query(
            "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = {name:String}",
            parameters={"name": CLUSTER_MARK},
        )
    return bool(found.result_rows[0][0])


def apply(client: Client) -> list[Migration]:
    """Apply what is missing, in order; returns what was applied.

    Every statement is written so that a migration that was cut off can be applied again.
    StoreRefusedError when an applied file has changed: write a new migration instead; and for a store in cluster form,
    on one replica of which these statements would make tables that the others do not have.
    """
    with store_errors("creating the migration table"):
        client.command(BOOKS)
    states = status(client)
    for state in states:
        if state.changed:
            raise StoreRefusedError(
                f"migration {state.migration.number:04} has changed since it was applied; "
                "restore its file and put the change into a new migration"
            )
    missing = [state.migration for state in states if not state.applied]
    if missing and _is_in_cluster_form(client):
        raise StoreRefusedError(
            f"this store is in cluster form and lacks migration {missing[0].number:04}; run what "
            f"`kvandal schema render --cluster NAME --after {missing[0].number - 1}` prints"
        )
    for migration in missing:
        for statement in migration.statements:
            with store_errors(f"migration {migration.number:04} {migration.name}"):
                client.command(statement)
        client.insert(
            "schema_migrations",
            [[migration.number, migration.name, migration.checksum]],
            column_names=["number", "name", "checksum"],
        )
    return missing


def diff(client: Client) -> list[str]:
    """Where the database departs from the catalogue, one sentence each; empty when it does not."""
    found = {name: _shape(client, name) for name in _table_names(client)}
    views = {f"{table.name}_to_1m" for table in TABLES}
    differences = [f"{name} is missing" for name in sorted(views - found.keys())]
    for name, statement in wanted_statements():
        wanted = _declared_columns(statement)
        if name not in found:
            differences.append(f"{name} is missing")
            continue
        differences += [f"{name}.{column} is missing" for column in wanted if column not in found[name]]
        differences += [
            f"{name}.{column} is {found[name][column]}, the catalogue says {type_name}"
            for column, type_name in wanted.items()
            if column in found[name] and _plain_type(found[name][column]) != _plain_type(type_name)
        ]
    return differences


def draft(tables: Sequence[Table] = TABLES) -> str:
    """The first migration of `tables`: everything that the catalogue asks for, from nothing."""
    statements = [f(table) for table in tables for f in (raw_table, minute_table, minute_view, hour_table)]
    head = "-- Generated from catalogue/ by `make render` until the first release; never edit by hand."
    return head + "\n\n" + ";\n\n".join(statements) + ";\n"


def wanted_statements() -> Iterator[tuple[str, str]]:
    """Name and CREATE TABLE of every table that the catalogue asks for."""
    for table in TABLES:
        yield table.name, raw_table(table)
        yield f"{table.name}_1m", minute_table(table)
        yield f"{table.name}_1h", hour_table(table)


def _applied(client: Client) -> dict[int, str]:
    if "schema_migrations" not in _table_names(client):
        return {}
    with store_errors("reading the applied migrations"):
        rows = client.query("SELECT number, checksum FROM schema_migrations FINAL").result_rows
    return {number: checksum.decode() if isinstance(checksum, bytes) else checksum for number, checksum in rows}


def _table_names(client: Client) -> set[str]:
    with store_errors("reading the schema"):
        rows = client.query("SELECT name FROM system.tables WHERE database = currentDatabase()").result_rows
    return {name for (name,) in rows}


def _shape(client: Client, table: str) -> dict[str, str]:
    with store_errors("reading the schema"):
        rows = client.query(
            "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = {table:String}",
            parameters={"table": table},
        ).result_rows
    return {name: type_name for name, type_name in rows}  # noqa: C416 - rows are lists, not pairs


def _declared_columns(statement: str) -> dict[str, str]:
    """Name and type of the columns in a CREATE TABLE that storage/ddl.py wrote: one a line."""
    body = statement.partition("\n(\n")[2].partition("\n)\n")[0]
    columns = {}
    for line in body.splitlines():
        name, _, rest = line.strip().partition(" ")
        columns[name] = re.split(r" (?:CODEC|ALIAS|COMMENT)\b", rest, maxsplit=1)[0]
    return columns


def _plain_type(type_name: str) -> str:
    return type_name.replace(" ", "")
