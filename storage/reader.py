"""Reads what is stored as Polars frames, through Arrow, with the types that the caller declared."""

from collections.abc import Mapping, Sequence

import polars as pl
from clickhouse_connect.driver.client import Client

from catalogue import Kind, Table
from storage.client import StoreRefusedError, store_errors

# A value bound in a query as {name:Type}.
Parameter = str | int | float | Sequence[str] | Sequence[int]
Schema = Mapping[str, pl.DataType]

TIME = pl.Datetime("ms", "UTC")

# Uncompressed Arrow halves the time of a large result; over a network the HTTP layer compresses.
_SETTINGS = {"output_format_arrow_compression_method": "none"}


class Reader:
    """Runs SELECTs through one client; not for use by two threads at once."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def query(self, sql: str, parameters: Mapping[str, Parameter], schema: Schema) -> pl.DataFrame:
        """The answer as a frame whose columns have exactly the names, order and types of `schema`.

        Blocks until the whole answer is here. Raises StoreUnavailableError when the call may be
        repeated, StoreRefusedError when ClickHouse refused it or answered other columns.
        """
        with store_errors("a report's query"):
            answer = self._client.query_arrow(sql, parameters=dict(parameters), settings=dict(_SETTINGS))
        return conform(pl.DataFrame(answer), schema)


def polars_schema(table: Table) -> dict[str, pl.DataType]:
    """What `SELECT resource, time, <every metric>` from the raw tier answers, in base units."""
    columns = {"resource": pl.UInt64(), "time": TIME}
    return columns | {
        metric.name: _whole(metric.stored.bits) if metric.kind in (Kind.STATE, Kind.BITS) else pl.Float64()
        for metric in table.metrics
    }


def conform(frame: pl.DataFrame, schema: Schema) -> pl.DataFrame:
    """A frame as it came through Arrow, in the types of `schema`; StoreRefusedError names the column that differs."""
    # DateTime crosses as its seconds: the one type that Arrow output does not keep.
    seconds = [name for name, wanted in schema.items() if wanted == TIME and frame.schema.get(name) == pl.UInt32]
    frame = frame.with_columns(
        pl.from_epoch(name, "s").cast(pl.Datetime("ms")).dt.replace_time_zone("UTC") for name in seconds
    )
    found = dict(frame.schema)
    if found == dict(schema) and list(found) == list(schema):
        return frame
    differences = [f"{name} is {found.get(name, 'missing')}, expected {wanted}" for name, wanted in schema.items()]
    wrong = [
        text for text, (name, wanted) in zip(differences, schema.items(), strict=True) if found.get(name) != wanted
    ]
    surplus = [f"{name} was not asked for" for name in found if name not in schema]
    raise StoreRefusedError(f"a query answered other columns: {'; '.join(wrong + surplus) or 'their order differs'}")


def _whole(bits: int) -> pl.DataType:
    return {8: pl.UInt8(), 16: pl.UInt16(), 32: pl.UInt32(), 64: pl.UInt64()}[bits]
