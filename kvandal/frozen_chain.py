"""The chain of frozen reports as a store holds it: read, checked, and added to at its end."""

from collections.abc import Mapping, Sequence

import polars as pl
from clickhouse_connect.driver.client import Client

from reports.publishing.freezing import (
    Approval,
    ForgedError,
    FrozenReport,
    check_chain,
    fingerprint,
    read_json,
    stored_text,
)
from reports.publishing.publication import Publication
from storage.frozen import FrozenRow, read_chain, read_restatements, write_frozen
from storage.reader import Reader


class FrozenChain:
    """The frozen reports of a store. They are read and checked once, however many are added.

    Should another process freeze a report meanwhile, its place is taken and `add` says so.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._held: list[FrozenReport] | None = None

    @property
    def reports(self) -> list[FrozenReport]:
        """All of them, in order.

        ForgedError where the chain does not hold; StoreUnavailableError, StoreRefusedError.
        """
        if self._held is None:
            self._held = checked_chain(self._client)
        return self._held

    def restatements(self, publication: Publication) -> list[FrozenReport]:
        """Those of one report and period, oldest first.

        By what is signed: who may write to the table could have given a row another period, and nobody would miss it.
        """
        return [held for held in self.reports if _is_of(held, publication)]

    def unchecked_restatements(self, publication: Publication) -> list[FrozenReport]:
        """The same by the table's columns, without reading the rest of the chain."""
        return frozen_of(read_restatements(Reader(self._client), publication.series, publication.period.text))

    def add(self, frozen: FrozenReport, approval: Approval) -> None:
        """Write a report at the end; PlaceTakenError, StoreUnavailableError, StoreRefusedError."""
        write_frozen(self._client, _row(frozen, approval))
        self.reports.append(frozen)


def checked_chain(client: Client, *, trusted: Sequence[str] = ()) -> list[FrozenReport]:
    """Every frozen report of a store, in order; ForgedError where the chain does not hold."""
    chain = frozen_of(read_chain(Reader(client)))
    check_chain(chain, trusted=trusted)
    return chain


def frozen_lines(client: Client, *, trusted: Sequence[str] = ()) -> list[str]:
    """A line for each frozen report; ForgedError where the chain does not hold."""
    return [
        f"{frozen.sequence:>4}  {frozen.title}, {frozen.record['site']}, approved by {frozen.record['approver']} "
        f"at {frozen.record['frozen_at']}, key {fingerprint(frozen.public_key)}, {frozen.hash[:16]}"
        for frozen in checked_chain(client, trusted=trusted)
    ]


def frozen_of(rows: pl.DataFrame) -> list[FrozenReport]:
    """Rows of the table as frozen reports; ForgedError for a record that is no JSON."""
    return [_frozen(row) for row in rows.iter_rows(named=True)]


def _frozen(row: Mapping[str, str]) -> FrozenReport:
    try:
        record = read_json(row["record"])
    except ForgedError as error:
        raise ForgedError(f"the record of frozen report {row['sequence']} does not hold: {error}") from error
    if not isinstance(record, dict):
        raise ForgedError(f"the record of frozen report {row['sequence']} is no record")
    return FrozenReport(record=record, hash=row["hash"], signature=row["signature"], public_key=row["public_key"])


def _is_of(frozen: FrozenReport, publication: Publication) -> bool:
    record = frozen.record
    return (record["report"], record["period"]["text"]) == (publication.series, publication.period.text)


def _row(frozen: FrozenReport, approval: Approval) -> FrozenRow:
    record = frozen.record
    return FrozenRow(
        sequence=frozen.sequence,
        report=record["report"],
        site=record["site"],
        period=record["period"]["text"],
        restatement=approval.restatement,
        approver=approval.approver,
        frozen_at=approval.frozen_at,
        previous=record["previous"],
        hash=frozen.hash,
        signature=frozen.signature,
        public_key=frozen.public_key,
        record=stored_text(frozen),
    )
