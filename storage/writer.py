"""Writes blocks of rows, each exactly once under its token."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from clickhouse_connect.driver.client import Client

from storage.client import store_errors
from storage.native import native_block

# Stated with every insert, not left to the server's defaults: exactly-once rests on them.
# Without the second, a retried block is counted twice by the rollup views.
INSERT_SETTINGS = {"async_insert": 0, "deduplicate_blocks_in_dependent_materialized_views": 1}
# Times in messages are RFC 3339 text.
_MESSAGE_SETTINGS = {**INSERT_SETTINGS, "date_time_input_format": "best_effort"}


class Writer:
    """Inserts into one database through one client; not for use by two threads at once.

    Both methods return when ClickHouse has the rows, raise StoreUnavailableError when the call may
    be repeated, and StoreRefusedError when it is no use. Repeating a call with the same token
    changes nothing, in the table and in its rollups.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def insert_rows(self, table: str, rows: np.ndarray, *, token: str) -> None:
        """Insert a structured array whose fields are columns of `table`, as one Native block."""
        names = list(rows.dtype.names or ())
        with store_errors(f"insert of {len(rows)} rows into {table}"):
            self._client.raw_insert(
                table,
                column_names=names,
                insert_block=b"".join(native_block(rows, self._types[table])),
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

    @cached_property
    def _types(self) -> dict[str, dict[str, str]]:
        """The type of every stored column of every table of the database."""
        with store_errors("reading the schema"):
            result = self._client.query(
                "SELECT table, name, type FROM system.columns WHERE database = currentDatabase() "
                "AND default_kind != 'ALIAS'"
            )
        types: dict[str, dict[str, str]] = {}
        for table, name, type_name in result.result_rows:
            types.setdefault(table, {})[name] = type_name
        return types
