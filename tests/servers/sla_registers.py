"""Registers of SLA contracts as rows, written into a store as an import does."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from clickhouse_connect.driver.client import Client

from reports.registers_import.rows import read_rows
from storage.register_kinds import DECLARATIONS, RegisterKind
from storage.registers import RegisterVersion, write_version

IMPORTED_AT = datetime(2026, 1, 1, tzinfo=UTC)

# The register's own columns; what a test does not say is this.
CONTRACT: Mapping[str, str] = {
    "contract": "SLA-1",
    "contract_kind": "sla",
    "party": "Aurora",
    "first_day": "2020-01-01",
    "unit": "gpu",
    "target_percent": "99.5",
    "minimum_outage_s": "0",
    "credit_tiers": "99.5:10;99:30;95:100",
    "unknown_counts_as": "down",
}


def bring(client: Client, kind: RegisterKind, rows: Sequence[Mapping[str, str]]) -> None:
    """Store rows of a register through the checks that an import makes."""
    text = register_csv(kind, rows)
    version = RegisterVersion(
        kind=kind,
        imported_at=IMPORTED_AT,
        imported_by="A. Example",
        file_name=f"{kind}.csv",
        file_sha256="0" * 64,
        evidence_name="proof.pdf",
        evidence_sha256="0" * 64,
        row_count=len(rows),
    )
    write_version(client, version, read_rows(f"{kind}.csv", text.encode(), kind))


def register_csv(kind: RegisterKind, rows: Sequence[Mapping[str, str]]) -> str:
    names = [column.name for column in DECLARATIONS[kind].columns]
    lines = [",".join(names), *(",".join(_cell(row.get(name, "")) for name in names) for row in rows)]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return f'"{text.replace(chr(34), chr(34) * 2)}"'
