"""Writes blocks of rows, each exactly once under its token."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from clickhouse_connect.driver.client import Client

from storage.client import StoreRefusedError, store_errors
from storage.native import native_block

# Stated with every insert, not left to the server's defaults: exactly-once rests on them.
# Without the second, a retried block is counted twice by the rollup views. The third lets late data in:
# a block may hold as many days as ingest accepts, and each is a partition. The fourth saves a merge within the block,
# which the rollup view's GROUP BY has already done: 40 % less processor where every row is a minute of its own.
# The last is for a cluster: an insert through a Distributed table returns when its shard has the rows.
INSERT_SETTINGS = {
    "async_insert": 0,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    "max_partitions_per_insert_block": 4000,
    "optimize_on_insert": 0,
    "distributed_foreground_insert": 1,
}
# Times in messages are RFC 3339 text.
_MESSAGE_SETTINGS = {**INSERT_SETTINGS, "date_time_input_format": "best_effort"}


class Writer:
    """Inserts into one database through one client. One thread may encode while another inserts; two may not insert.

    Inserts return when ClickHouse has the rows, raise StoreUnavailableError when the call may
    be repeated, and StoreRefusedError when it is no use. Repeating a call with the same token
    changes nothing, in the table and in its rollups.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._types: dict[str, dict[str, str]] = {}

    def insert_rows(self, table: str, rows: np.ndarray, *, token: str) -> None:
        """Insert a structured array whose fields are columns of `table`, as one Native block."""
        self.encode_rows(table, rows)(token)

    def encode_rows(self, table: str, rows: np.ndarray) -> Callable[[str], None]:
        """The same with its processor work done: what is returned takes the token, and inserts."""
        block = b"".join(native_block(rows, self._column_types(table)))
        return partial(self._insert_block, table, list(rows.dtype.names or ()), block, len(rows))

    def _insert_block(self, table: str, names: list[str], block: bytes, rows: int, token: str) -> None:
        with store_errors(f"insert of {rows} rows into {table}"):
            self._client.raw_insert(
                table,
                column_names=names,
                insert_block=block,
                settings={**INSERT_SETTINGS, "insert_deduplication_token": token},
                fmt="Native",
            )

    def insert_messages(self, table: str, lines: Sequence[bytes], *, token: str) -> None:
        """Insert JSON objects whose keys are columns of `table`."""
        with store_errors(f"insert of {len(lines)} messages into {table}"):
            self._client.raw_insert(
                table,
                insert_block=b"\n".join(lines),
                settings={**_MESSAGE_SETTINGS, "insert_deduplication_token": token},
                fmt="JSONEachRow",
            )

    def _column_types(self, table: str) -> dict[str, str]:
        """The type of every stored column of a table; read once, and again for a table that was not there."""
        if table not in self._types:
            with store_errors("reading the schema"):
                rows = self._client.query(
                    "SELECT name, type FROM system.columns WHERE database = currentDatabase() "
                    "AND table = {table:String} AND default_kind != 'ALIAS'",
                    parameters={"table": table},
                ).result_rows
            if not rows:
                raise StoreRefusedError(f"table {table} does not exist; run `kvandal schema apply`")
            self._types[table] = {name: type_name for name, type_name in rows}  # noqa: C416 - rows are lists
        return self._types[table]
