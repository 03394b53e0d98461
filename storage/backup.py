"""Back-up of an embedded store to a folder, and its return into an empty store.

ClickHouse freezes each table as hard links, which takes milliseconds and disturbs nobody; what is frozen is copied at
leisure. The tables are frozen one after another, so the caller sees to it that no plan of ingest is half written
meanwhile: then the rows and the table `frames` say the same. Deduplication logs are no part of a back-up. A restored
store therefore goes on in a new log epoch, in which everything that `frames` knows counts as seen.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import msgspec
from clickhouse_connect.driver.client import Client

from storage import schema
from storage.books import PlanLine, PlanTable
from storage.client import store_errors

FORMAT = 1
MANIFEST = "manifest.json"
# Schema books are written by the migrations of whoever restores.
_NOT_BACKED_UP = "schema_migrations"
# What says that an hour is computed must not be newer than the hour: an hour too many computed again does no harm.
_FIRST = "hours_computed"


class BackupError(RuntimeError):
    """A back-up that cannot be made or restored; the sentence says what to do."""


class BackedUpTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table in a back-up: its parts by name, what they hold, and the rule by which rows expire."""

    name: str
    ttl: str
    parts: tuple[str, ...]
    rows: int
    bytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a back-up holds; its presence says that the back-up is whole."""

    format: int
    taken_at: datetime
    migrations: dict[int, str]  # checksum by number
    tables: tuple[BackedUpTable, ...]

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)

    @property
    def bytes(self) -> int:
        return sum(table.bytes for table in self.tables)


@dataclass(frozen=True, slots=True)
class _Frozen:
    """A table's parts as hard links below the engine's own folder."""

    table: str
    ttl: str
    folder: Path

    @property
    def parts(self) -> list[Path]:
        return sorted(self.folder.iterdir()) if self.folder.is_dir() else []


@dataclass(frozen=True, slots=True)
class _Found:
    """A table of the store, where its parts lie, and its TTL."""

    name: str
    path: Path
    ttl: str
    empty: bool


class Snapshot:
    """All tables of a store at one instant. `copy_to` may take its time; `discard` lets go of the disk space."""

    def __init__(self, shadow: Path, tables: Sequence[_Frozen], migrations: dict[int, str]) -> None:
        self._shadow = shadow
        self._tables = tables
        self._migrations = migrations
        self._taken_at = datetime.now(UTC)

    def copy_to(self, target: Path) -> Manifest:
        """Write the back-up into the new folder `target`, which appears when it is whole. BackupError, OSError."""
        if target.exists():
            raise BackupError(f"{target} exists already; name a folder that does not")
        draft = target.with_name(f"{target.name}.part")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True, mode=0o700)
        tables = tuple(_copy_table(frozen, draft / frozen.table) for frozen in self._tables)
        manifest = Manifest(format=FORMAT, taken_at=self._taken_at, migrations=self._migrations, tables=tables)
        (draft / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        draft.rename(target)
        return manifest

    def discard(self) -> None:
        shutil.rmtree(self._shadow, ignore_errors=True)


def freeze(client: Client, data: Path) -> Snapshot:
    """Freeze every table of the store whose engine keeps its files in `data`, on this machine.

    Nothing may be half written meanwhile. Raises StoreUnavailableError and StoreRefusedError; then nothing is left.
    """
    name = f"kvandal_{uuid4().hex}"  # no character that ClickHouse would escape in the folder's name
    shadow = data / "shadow" / name
    try:
        with store_errors("freezing the tables"):
            tables = [_freeze_table(client, found, shadow, data, name) for found in _tables(client)]
        return Snapshot(shadow, tables, {s.migration.number: s.migration.checksum for s in schema.status(client)})
    except BaseException:
        shutil.rmtree(shadow, ignore_errors=True)
        raise


def read_manifest(source: Path) -> Manifest:
    """BackupError where the folder holds no whole back-up that this program can read."""
    try:
        manifest = msgspec.json.decode((source / MANIFEST).read_bytes(), type=Manifest)
    except OSError as error:
        raise BackupError(f"{source} is no whole back-up: {MANIFEST}: {error.strerror}; name another folder") from error
    except msgspec.DecodeError as error:
        raise BackupError(f"{source / MANIFEST} cannot be read: {error}; name another back-up") from error
    if manifest.format != FORMAT:
        raise BackupError(f"{source} has format {manifest.format}, this program reads {FORMAT}; use a newer program")
    known = {migration.number: migration.checksum for migration in schema.migrations()}
    foreign = sorted(number for number, checksum in manifest.migrations.items() if known.get(number) != checksum)
    if foreign:
        raise BackupError(f"{source} has migration {foreign[0]:04}, which this program does not: use the one it is of")
    return manifest


def restore(client: Client, source: Path) -> Manifest:
    """Fill an empty store with a back-up and make it ready to go on; returns what was restored.

    The store must have no table yet. Every part's checksums are verified by the engine, and the rows of every table
    counted. BackupError where they differ; the store is then of no use and should be deleted.
    """
    manifest = read_manifest(source)
    if _tables(client):
        raise BackupError("the store holds tables already; restore into a new folder")
    schema.apply(client)
    paths = {found.name: found.path for found in _tables(client)}
    for table in manifest.tables:
        _restore_table(client, table, source / table.name, paths[table.name])
    rewind_plans(client)
    return manifest


def rewind_plans(client: Client) -> None:
    """Make the single owner go on where the rows end, in a new log epoch: old tokens are not known any more.

    A new plan of no records says so for every partition. A plan whose frames are in the store is done; one without
    them was not begun, or is of messages, which replace themselves.
    """
    plans = PlanTable(client)
    with store_errors("reading the plans"):
        topics: list[UUID] = [row[0] for row in client.query("SELECT DISTINCT topic_id FROM ingest_plan").result_rows]
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    for topic_id in topics:
        lines = plans.read(topic_id)
        newest, log_epoch = max(line.plan for line in lines), max(line.log_epoch for line in lines) + 1
        rewound = []
        for line in lines:
            done = line.plan < newest or holds_frames(client, topic_id, line.partition, line.first, line.end)
            offset = line.end if done else line.first
            rewound.append(PlanLine(newest + 1, line.partition, offset, offset, now_ms, line.layouts, log_epoch))
        plans.write(topic_id, rewound)


def holds_frames(client: Client, topic_id: UUID, partition: int, first: int, end: int) -> bool:
    """Whether the outcome of a frame in these offsets is noted. A plan's are noted all at once, or not at all."""
    with store_errors("reading which frames are stored"):
        rows = client.query(
            "SELECT 1 FROM frames WHERE topic_id = {topic_id:UUID} AND partition = {partition:UInt32} "
            "AND offset >= {first:UInt64} AND offset < {end:UInt64} LIMIT 1",
            parameters={"topic_id": str(topic_id), "partition": partition, "first": first, "end": end},
        ).result_rows
    return bool(rows)


def _tables(client: Client) -> list[_Found]:
    """Every table that keeps rows, in the order in which they are frozen."""
    with store_errors("reading the schema"):
        rows = client.query(
            "SELECT name, data_paths[1], engine_full, total_rows = 0 FROM system.tables "
            "WHERE database = currentDatabase() AND engine LIKE '%MergeTree' AND name != {none:String} "
            "ORDER BY name != {first:String}, name",
            parameters={"none": _NOT_BACKED_UP, "first": _FIRST},
        ).result_rows
    return [_Found(name, Path(path), _ttl_of(engine), bool(empty)) for name, path, engine, empty in rows]


def _ttl_of(engine: str) -> str:
    """The TTL in a table's engine clause as ClickHouse words it; empty where rows stay for ever."""
    return engine.partition(" TTL ")[2].rpartition(" SETTINGS ")[0]


def _freeze_table(client: Client, found: _Found, shadow: Path, data: Path, name: str) -> _Frozen:
    client.command(f"ALTER TABLE {found.name} FREEZE WITH NAME '{name}'")
    frozen = _Frozen(found.name, found.ttl, shadow / found.path.relative_to(data))
    if not found.empty and not frozen.parts:
        raise BackupError(f"{found.name} has rows, but none were frozen in {frozen.folder}: is {data} the store's?")
    return frozen


def _copy_table(frozen: _Frozen, target: Path) -> BackedUpTable:
    target.mkdir()
    rows = size = 0
    for part in frozen.parts:
        shutil.copytree(part, target / part.name)
        rows += int((part / "count.txt").read_text())
        size += sum(file.stat().st_size for file in _files(part))
    parts = tuple(part.name for part in frozen.parts)
    return BackedUpTable(name=frozen.table, ttl=frozen.ttl, parts=parts, rows=rows, bytes=size)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _restore_table(client: Client, table: BackedUpTable, source: Path, path: Path) -> None:
    if table.ttl:
        # Before the rows: under the shorter TTL of a new table old ones would vanish at their first merge.
        with store_errors(f"setting the retention of {table.name}"):
            client.command(
                f"ALTER TABLE {table.name} MODIFY TTL {table.ttl}", settings={"materialize_ttl_after_modify": 0}
            )
    for part in table.parts:
        try:
            shutil.copytree(source / part, path / "detached" / part)
        except (OSError, shutil.Error) as error:
            raise BackupError(f"part {part} of {table.name} cannot be copied from {source}: {error}") from error
        with store_errors(f"attaching part {part} of {table.name}"):
            client.command(f"ALTER TABLE {table.name} ATTACH PART '{part}'")
    with store_errors(f"checking {table.name}"):
        whole = client.command(f"CHECK TABLE {table.name}", settings={"check_query_single_value_result": 1})
        ((rows,),) = client.query(f"SELECT count() FROM {table.name}").result_rows  # noqa: S608 - our names
    if not int(str(whole)) or rows != table.rows:
        raise BackupError(
            f"{table.name} has {rows} of {table.rows} rows after the restore, or damaged parts; use another back-up"
        )
