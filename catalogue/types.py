"""Stored integer types, each with one value reserved for "no reading"."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoredType:
    """A little-endian fixed-width integer as it stands in a frame, a numpy array and ClickHouse.

    `absent` is the reserved value: the maximum of an unsigned type, the minimum of a signed one.
    """

    clickhouse: str
    numpy: str
    bits: int

    @property
    def signed(self) -> bool:
        return self.clickhouse.startswith("Int")

    @property
    def absent(self) -> int:
        return -(1 << (self.bits - 1)) if self.signed else (1 << self.bits) - 1

    @property
    def lowest(self) -> int:
        """The smallest count that is a reading."""
        return self.absent + 1 if self.signed else 0

    @property
    def highest(self) -> int:
        """The largest count that is a reading."""
        return (1 << (self.bits - 1)) - 1 if self.signed else self.absent - 1

    @property
    def wide(self) -> str:
        """The ClickHouse type in which a sum of this type cannot overflow."""
        return "Int64" if self.signed else "UInt64"


U8 = StoredType("UInt8", "<u1", 8)
U16 = StoredType("UInt16", "<u2", 16)
U32 = StoredType("UInt32", "<u4", 32)
U64 = StoredType("UInt64", "<u8", 64)
I8 = StoredType("Int8", "<i1", 8)
I16 = StoredType("Int16", "<i2", 16)
I32 = StoredType("Int32", "<i4", 32)
I64 = StoredType("Int64", "<i8", 64)
