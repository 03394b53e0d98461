"""ClickHouse's Native format, for fixed-width columns: the cheapest block to insert."""

from collections.abc import Iterator, Mapping

import numpy as np

from storage.client import StoreRefusedError

# Width in bytes of every ClickHouse type that a fixed-width row can hold.
_WIDTHS = {
    "UInt8": 1, "UInt16": 2, "UInt32": 4, "UInt64": 8, "Int8": 1, "Int16": 2, "Int32": 4, "Int64": 8,
    "Float32": 4, "Float64": 8, "DateTime": 4, "DateTime64": 8, "UUID": 16, "Enum8": 1,
}  # fmt: skip


# So few rows stay in the processor's cache until the last of their columns is taken: twice as fast as all at once.
_SLICE_ROWS = 4_000


def native_block(rows: np.ndarray, types: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """The rows of a structured array as one Native block, in pieces, column by column.

    `types` gives the ClickHouse type of every column of the table. StoreRefusedError when a field
    is not a column, or has another width: a frame's layout and the schema have parted.
    """
    yield _varint(len(rows.dtype.names or ())) + _varint(len(rows))
    for name, column in _columns(rows).items():
        type_name = types.get(name)
        if type_name is None or _width(type_name) != column.dtype.itemsize:
            raise StoreRefusedError(
                f"column {name} is {column.dtype} in the rows and {type_name or 'missing'} in the table; "
                "run `kvandal schema diff`"
            )
        yield _text(name) + _text(type_name)
        yield column.data


def _columns(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Each field's values, by its name."""
    fields = {name: rows[name] for name in rows.dtype.names or ()}
    columns = {name: np.empty(len(rows), field.dtype) for name, field in fields.items()}
    for first in range(0, len(rows), _SLICE_ROWS):
        piece = slice(first, first + _SLICE_ROWS)
        for name, column in columns.items():
            column[piece] = fields[name][piece]
    return columns


def _width(type_name: str) -> int:
    base, _, argument = type_name.partition("(")
    return int(argument.rstrip(")")) if base == "FixedString" else _WIDTHS.get(base, -1)


def _varint(number: int) -> bytes:
    """LEB128, as ClickHouse writes lengths."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _text(text: str) -> bytes:
    data = text.encode()
    return _varint(len(data)) + data
