"""`kvandal import`: a register's CSV and its evidence become a version in the store, or sentences about what is wrong.

Everything is checked before anything is stored. The evidence itself stays where it is: its SHA-256 is
kept, and whoever is asked for it later shows the file.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from clickhouse_connect.driver.client import Client

from kvandal.addresses import store_address
from kvandal.settings import ClientSettings
from reports.register_names import Place, shortened, unknown_contracts, unknown_parties, unknown_resources
from reports.registers_import.cells import CellError, parse_day, parse_moment
from reports.registers_import.changes import (
    Changes,
    bounds_of,
    compare,
    overlap_problems,
    withdrawal_problems,
)
from reports.registers_import.problems import RegisterFileError
from reports.registers_import.rows import read_rows
from storage.client import connect
from storage.reader import Reader
from storage.register_kinds import DECLARATIONS, RegisterKind
from storage.registers import (
    ALWAYS,
    AsOf,
    RegisterRow,
    RegisterVersion,
    read_register,
    read_versions,
    store_clock,
    write_version,
)
from storage.registers import read_rows as read_stored_rows

MOST_BYTES = 256 << 20  # a million rows; all of it is held in memory while it is checked


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRequest:
    """What a person wants imported. `imported_by` is who answers for it; it is not taken from the machine."""

    kind: RegisterKind
    file: Path
    evidence: Path
    imported_by: str
    valid_from: datetime = ALWAYS


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """What came of it. `known_as` is the version's number when the very same import was made before.

    `unknown`: sentences about rows that name what is not there, and have no effect while it is not.
    """

    version: RegisterVersion
    changes: Changes
    is_trial: bool
    known_as: int | None = None
    unknown: tuple[str, ...] = ()

    @property
    def is_stored(self) -> bool:
        return not self.is_trial and self.known_as is None

    def sentences(self) -> list[str]:
        """For whoever imports: what was found, and what was done."""
        version = self.version
        lines = [
            f"{version.kind}: {version.row_count:,} rows in {version.file_name}: {self.changes.sentence()}",
            *(f"to be put right: {sentence}" for sentence in self.unknown),
        ]
        if self.known_as is not None:
            return [
                *lines,
                f"the same file with the same evidence is version {self.known_as} already; nothing is stored",
            ]
        if self.is_trial:
            return [*lines, "a trial: nothing is stored"]
        proof = f"{version.evidence_name} (SHA-256 {version.evidence_sha256})"
        return [*lines, f"stored as {version.version}; keep the evidence {proof}"]


def import_register(
    settings: ClientSettings, request: ImportRequest, *, dry_run: bool = False, now: datetime | None = None
) -> ImportResult:
    """Check a register's file and store it as a version; with `dry_run` only say what it would change.

    `now` is the store's clock unless it is given. A file that was imported with the same evidence, and of which every
    row still holds, is not stored again. Raises RegisterFileError with all that is wrong, ValueError, OSError where a
    file cannot be read, StoreUnavailableError (the call may be repeated) and StoreRefusedError.
    """
    if not request.imported_by.strip():
        raise ValueError("nobody answers for the import; give --by NAME")
    content, evidence_sha256 = _content(request.file), digest_of(request.evidence)
    rows = read_rows(request.file.name, content, request.kind)
    with closing(_connect(settings)) as client:
        reader = Reader(client)
        version = RegisterVersion(
            kind=request.kind,
            imported_at=_milliseconds(now) if now else store_clock(reader),
            imported_by=request.imported_by.strip(),
            file_name=request.file.name,
            file_sha256=hashlib.sha256(content).hexdigest(),
            evidence_name=request.evidence.name,
            evidence_sha256=evidence_sha256,
            row_count=len(rows),
            valid_from=request.valid_from,
            schema_version=DECLARATIONS[request.kind].version,
        )
        result = _judge(reader, version, rows, is_trial=dry_run)
        if result.is_stored:
            write_version(client, version, rows)
    return result


def _judge(reader: Reader, version: RegisterVersion, rows: Sequence[RegisterRow], *, is_trial: bool) -> ImportResult:
    """What the version would change, and whether it is known already. ValueError where it cannot be."""
    earlier = read_versions(reader, [version.kind])
    _refuse_turned_back_clock(earlier, version)
    replaced = _held(reader, version, rows, valid_at=version.valid_from)
    changes = compare(rows, replaced)
    known_as = _same_import(earlier, version) if changes.is_none else None
    if known_as is None:
        beside = _held(reader, version, rows, valid_at=max(version.imported_at, version.valid_from))
        problems = [*withdrawal_problems(rows, replaced), *overlap_problems(version.kind, rows, beside)]
        if problems:
            raise RegisterFileError(version.file_name, problems)
    unknown = shortened([*_unknown(reader, version, rows)])
    return ImportResult(version=version, changes=changes, is_trial=is_trial, known_as=known_as, unknown=unknown)


def _unknown(reader: Reader, version: RegisterVersion, rows: Sequence[RegisterRow]) -> Iterator[str]:
    """What the file's rows name that neither the topology nor another register has."""
    named = [(Place(row.line), json.loads(row.text)) for row in rows if not row.withdrawn]
    yield from unknown_resources(reader, version.kind, named)
    if version.kind is RegisterKind.CONTRACTS:
        yield from unknown_parties(reader, named)
    if version.kind is RegisterKind.ALLOCATIONS:
        contracts = read_register(reader, RegisterKind.CONTRACTS, version.imported_at)
        of_sla = contracts.filter(pl.col("contract_kind") == "sla")["contract"]
        yield from unknown_contracts(version.kind, named, of_sla)


def list_versions(settings: ClientSettings, kinds: Sequence[RegisterKind] = tuple(RegisterKind)) -> pl.DataFrame:
    """Every version of these registers, oldest first: see `storage.registers.read_versions`."""
    with closing(_connect(settings)) as client:
        return read_versions(Reader(client), kinds)


def version_lines(versions: pl.DataFrame, *, prove: Path | None = None) -> list[str]:
    """A line for each version, by register; with `prove` only those whose CSV or evidence that file is."""
    if prove is not None:
        digest = digest_of(prove)
        versions = versions.filter((pl.col("file_sha256") == digest) | (pl.col("evidence_sha256") == digest))
    return [
        f"{row['kind']} {row['number']}: {row['imported_at']:%Y-%m-%d %H:%M:%SZ} by {row['imported_by']}, "
        f"{row['row_count']:,} rows, {_validity(row['valid_from'])}, "
        f"{row['file_name']} {row['file_sha256'][:12]}, evidence {row['evidence_name']} {row['evidence_sha256'][:12]}"
        for row in versions.sort("kind", "number").iter_rows(named=True)
    ]


def parse_valid_from(text: str | None) -> datetime:
    """--valid-from: a time with its zone, or a day, which begins at midnight UTC; always when it is not given."""
    if text is None:
        return ALWAYS
    try:
        if "T" not in text and ":" not in text:
            day = parse_day(text)
            return datetime(day.year, day.month, day.day, tzinfo=UTC)
        return parse_moment(text)
    except CellError as error:
        raise ValueError(f"--valid-from {error}") from error


def digest_of(file: Path) -> str:
    """SHA-256 of a file in hexadecimal. ValueError when it is empty: an empty file proves nothing. OSError."""
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
        if content.tell() == 0:
            raise ValueError(f"{file} is empty; give the file that proves the rows")
    return digest


def _connect(settings: ClientSettings) -> Client:
    store = settings.store
    return connect(store_address(store))


def _content(file: Path) -> bytes:
    size = file.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{file} has {size:,} bytes, more than {MOST_BYTES:,}; split it and import its parts")
    return file.read_bytes()


def _held(reader: Reader, version: RegisterVersion, rows: Sequence[RegisterRow], *, valid_at: datetime) -> pl.DataFrame:
    """The rows that hold at a time without the new version, as far as its rows have to do with them."""
    return read_stored_rows(reader, version.kind, AsOf(version.imported_at, valid_at), within=bounds_of(rows))


def _same_import(versions: pl.DataFrame, version: RegisterVersion) -> int | None:
    same = versions.filter(
        pl.col("file_sha256") == version.file_sha256,
        pl.col("evidence_sha256") == version.evidence_sha256,
        pl.col("valid_from") == version.valid_from,
    )
    return None if same.is_empty() else int(same["number"][-1])


def _refuse_turned_back_clock(earlier: pl.DataFrame, version: RegisterVersion) -> None:
    """A version from before the last one would change what reports saw that were made between the two."""
    newest = earlier["imported_at"].max()
    if isinstance(newest, datetime) and version.imported_at < newest:
        raise ValueError(
            f"the last import of {version.kind} was at {newest:%Y-%m-%d %H:%M:%SZ}, and the store's clock says "
            f"{version.imported_at:%Y-%m-%d %H:%M:%SZ}; set that clock right"
        )


def _milliseconds(moment: datetime) -> datetime:
    """As the store keeps it, so that a version's id can be computed from what is stored."""
    return moment.astimezone(UTC).replace(microsecond=moment.microsecond // 1000 * 1000)


def _validity(valid_from: datetime) -> str:
    return "valid always" if valid_from == ALWAYS else f"valid from {valid_from:%Y-%m-%d %H:%MZ}"
