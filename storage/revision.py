"""ClickHouse's Native blocks for clients that speak a newer revision of its protocol than the embedded engine writes.

The engine writes Native as for a client that names no revision. clickhouse-go, through which Grafana's plug-in reads,
names one and gets no say in the matter: from the revision on that brought custom serialization it expects an info in
front of each block, and behind each column's type a byte that says how the column is written. Values are the same, so
this finds where columns begin and end, and puts in what is missing. Only the timezone of a DateTime is lost, which the
engine leaves out of the type: its values count from the epoch and are right.
"""

import re
from collections.abc import Iterator

CUSTOM_SERIALIZATION = 54454  # the revision from which a column says how it is written

# Field 1, no overflow; field 2, bucket -1; end of the fields.
_BLOCK_INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"
_WRITTEN_AS_USUAL = b"\x00"
_WIDTHS = {
    "UInt8": 1, "UInt16": 2, "UInt32": 4, "UInt64": 8, "UInt128": 16, "UInt256": 32, "Int8": 1, "Int16": 2, "Int32": 4,
    "Int64": 8, "Int128": 16, "Int256": 32, "Float32": 4, "Float64": 8, "BFloat16": 2, "Bool": 1, "Date": 2,
    "Date32": 4, "DateTime": 4, "DateTime64": 8, "Time": 4, "Time64": 8, "UUID": 16, "IPv4": 4, "IPv6": 16, "Enum8": 1,
    "Enum16": 2, "Nothing": 1,
}  # fmt: skip
_DECIMAL_WIDTHS = ((9, 4), (18, 8), (38, 16), (76, 32))  # digits up to, bytes
_HAS_OWN_DICTIONARY = 1 << 9
_ENDS_WITHIN = "The answer ends within a block."
_NAMED = re.compile(r"(?:\w+|`(?:[^`\\]|\\.)*`) (?=[A-Z])")


class UnknownTypeError(ValueError):
    """A column of a type whose length is not known here."""


def with_revision(blocks: bytes) -> bytes:
    """The blocks as a client of revision 54454 or newer reads them. Raises UnknownTypeError, ValueError."""
    try:
        return b"".join(_rewritten(blocks))
    except IndexError as error:
        raise ValueError(_ENDS_WITHIN) from error


def _rewritten(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        begin = at
        columns, at = _varint(data, at)
        rows, at = _varint(data, at)
        yield _BLOCK_INFO + data[begin:at]
        for _ in range(columns):
            begin = at
            _, at = _text(data, at)
            type_name, at = _text(data, at)
            yield data[begin:at] + _WRITTEN_AS_USUAL
            begin, at = at, _behind_column(type_name, data, at, rows)
            yield data[begin:at]
    if at > len(data):
        raise ValueError(_ENDS_WITHIN)


def _behind_column(type_name: str, data: bytes, at: int, rows: int) -> int:
    """Where the column's values end: those of no rows are not written at all."""
    if rows == 0:
        return at
    return _behind(type_name, data, at + _prefix_width(type_name), rows)


def _prefix_width(type_name: str) -> int:
    """Each dictionary within the type announces its version before any value."""
    base, arguments = _parts(type_name)
    if base == "LowCardinality":
        return 8
    if base in ("Nullable", "Array", "Map", "Tuple", "SimpleAggregateFunction"):
        return sum(_prefix_width(one) for one in _nested(base, arguments))
    return 0


def _behind(type_name: str, data: bytes, at: int, rows: int) -> int:
    base, arguments = _parts(type_name)
    match base:
        case "String":
            return _behind_strings(data, at, rows)
        case "Nullable":
            return _behind(arguments[0], data, at + rows, rows)
        case "Array" | "Map":
            ends = at + 8 * rows
            values = int.from_bytes(data[ends - 8 : ends], "little") if rows else 0
            return _behind_each(_nested(base, arguments), data, ends, values)
        case "Tuple" if not arguments:
            return at + rows
        case "Tuple" | "SimpleAggregateFunction":
            return _behind_each(_nested(base, arguments), data, at, rows)
        case "LowCardinality":
            return _behind_dictionary(arguments[0], data, at) if rows else at
        case _:
            return at + rows * _width(base, arguments, type_name)


def _behind_each(types: list[str], data: bytes, at: int, rows: int) -> int:
    for one in types:
        at = _behind(one, data, at, rows)
    return at


def _behind_strings(data: bytes, at: int, rows: int) -> int:
    for _ in range(rows):
        size = data[at]
        if size < 0x80:
            at += 1 + size
        else:
            size, at = _varint(data, at)
            at += size
    return at


def _behind_dictionary(type_name: str, data: bytes, at: int) -> int:
    """Index type and flags, the block's own keys, then an index for each row."""
    traits = _number(data, at)
    if not traits & _HAS_OWN_DICTIONARY:
        raise UnknownTypeError(f"LowCardinality({type_name}) shares its dictionary between blocks")
    keys, at = _number(data, at + 8), at + 16
    base, arguments = _parts(type_name)
    at = _behind(arguments[0] if base == "Nullable" else type_name, data, at, keys)
    return at + 8 + _number(data, at) * (1 << (traits & 0xFF))


def _width(base: str, arguments: list[str], type_name: str) -> int:
    if base == "FixedString":
        return int(arguments[0])
    if base == "Decimal":
        return next(width for digits, width in _DECIMAL_WIDTHS if int(arguments[0]) <= digits)
    if base not in _WIDTHS and not base.startswith("Interval"):
        raise UnknownTypeError(f"a column of the type {type_name} is not offered in this protocol; cast it")
    return _WIDTHS.get(base, 8)


def _nested(base: str, arguments: list[str]) -> list[str]:
    """The types of the values within; a tuple's elements may have names, an aggregate's function comes first."""
    if base == "SimpleAggregateFunction":
        return arguments[1:]
    return [_NAMED.sub("", one, count=1) if _NAMED.match(one) else one for one in arguments]


def _parts(type_name: str) -> tuple[str, list[str]]:
    """`Array(Tuple(a String, b Int8))` is Array of one argument: commas within parentheses and quotes do not count."""
    base, opened, rest = type_name.partition("(")
    return base, list(_arguments(rest.removesuffix(")"))) if opened else []


def _arguments(text: str) -> Iterator[str]:
    depth = begin = 0
    for token in re.finditer(r"'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`|[(),]", text):
        depth += {"(": 1, ")": -1}.get(token[0], 0)
        if token[0] == "," and depth == 0:
            yield text[begin : token.start()].strip()
            begin = token.end()
    if text.strip():
        yield text[begin:].strip()


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7


def _text(data: bytes, at: int) -> tuple[str, int]:
    size, at = _varint(data, at)
    return data[at : at + size].decode(), at + size


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")
