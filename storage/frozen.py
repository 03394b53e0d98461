"""The table of frozen reports: rows are added at the end of one chain, and never changed.

Who is first at a place in the chain has it: the place is the insert's deduplication token, so of two reports that are
frozen at once the second is dropped by the store, which its writer finds by reading back.
"""

from dataclasses import dataclass
from datetime import datetime

import polars as pl
from clickhouse_connect.driver.client import Client

from storage.client import StoreRefusedError, store_errors
from storage.reader import Parameter, Reader
from storage.writer import INSERT_SETTINGS

_COLUMNS = (
    "sequence", "report", "site", "period", "restatement", "approver", "frozen_at", "previous", "hash", "signature",
    "public_key", "record",
)  # fmt: skip
ROWS: dict[str, pl.DataType] = {
    "sequence": pl.UInt64(), "record": pl.String(), "hash": pl.String(), "signature": pl.String(),
    "public_key": pl.String(),
}  # fmt: skip
_SELECT = "SELECT sequence, record, toString(hash) AS hash, signature, public_key FROM frozen_reports"


class PlaceTakenError(StoreRefusedError):
    """Another report was frozen at the same time, and has the place in the chain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenRow:
    """One frozen report as it is stored; `record` is its canonical JSON."""

    sequence: int
    report: str
    site: str
    period: str
    restatement: int
    approver: str
    frozen_at: datetime
    previous: str
    hash: str
    signature: str
    public_key: str
    record: str


def write_frozen(client: Client, row: FrozenRow) -> None:
    """Add a report at its place; tried again with the same row it adds nothing.

    Raises PlaceTakenError where another one has the place, StoreUnavailableError, StoreRefusedError.
    """
    cells = [getattr(row, name) for name in _COLUMNS]
    with store_errors("insert into frozen_reports"):
        client.insert(
            "frozen_reports", [cells], column_names=list(_COLUMNS),
            settings={**INSERT_SETTINGS, "insert_deduplication_token": f"frozen {row.sequence}"},
        )  # fmt: skip
    held = read_place(Reader(client), row.sequence)["hash"].to_list()
    if held != [row.hash]:
        raise PlaceTakenError(f"another report was frozen as number {row.sequence} meanwhile; freeze again")


def read_place(reader: Reader, sequence: int) -> pl.DataFrame:
    return reader.query(f"{_SELECT} WHERE sequence = {{at:UInt64}}", {"at": sequence}, ROWS)


def read_chain(reader: Reader) -> pl.DataFrame:
    """ROWS of every frozen report, in order."""
    return reader.query(f"{_SELECT} ORDER BY sequence, hash", {}, ROWS)


def read_restatements(reader: Reader, report: str, period: str) -> pl.DataFrame:
    """ROWS of one report and period, oldest first. A store is one site's, whatever the site is called today."""
    parameters: dict[str, Parameter] = {"report": report, "period": period}
    where = "WHERE report = {report:String} AND period = {period:String}"
    return reader.query(f"{_SELECT} {where} ORDER BY restatement, sequence", parameters, ROWS)
