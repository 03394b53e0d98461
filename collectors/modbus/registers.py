"""What 16-bit registers hold: numbers in every type and order of words and bytes, text, bits. Pure.

Modbus Application Protocol 1.1b3, 4.2: a register is 16 bits, high byte first. How several registers make one number
no standard says: both orders of words are common, swapped bytes are seen.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

Number = int | float

MAX_TEXT_CHARACTERS = 128


class Order(StrEnum):
    """Of words: which register comes first. Of bytes: which half of a register comes first."""

    BIG = "big"  # the high one: as in the standard
    LITTLE = "little"  # the low one: swapped


@dataclass(frozen=True, slots=True)
class RegisterType:
    """A type of number; `code` is that of the module struct, `registers` how many 16-bit registers it fills."""

    name: str
    code: str
    registers: int
    modulus: int = 0  # of what counts up and starts again from 0; 0 where nothing follows from the type

    @property
    def is_float(self) -> bool:
        return self.code in "fd"

    @property
    def is_signed(self) -> bool:
        return self.code in "hiq"

    @property
    def bits(self) -> int:
        return 16 * self.registers


TYPES = {
    one.name: one
    for one in (
        RegisterType("int16", "h", 1),
        RegisterType("uint16", "H", 1, 1 << 16),
        RegisterType("bits", "H", 1),
        RegisterType("int32", "i", 2),
        RegisterType("uint32", "I", 2, 1 << 32),
        RegisterType("acc32", "I", 2, 1 << 32),
        RegisterType("float32", "f", 2),
        RegisterType("int64", "q", 4),
        RegisterType("uint64", "Q", 4, 1 << 64),
        RegisterType("acc64", "Q", 4, 1 << 64),
        RegisterType("float64", "d", 4),
    )
}


def number_of(words: Sequence[int], kind: RegisterType, word_order: Order, byte_order: Order) -> Number:
    """The number in `words`, of which there are kind.registers; a float may be NaN or infinite."""
    number: Number = struct.unpack(f">{kind.code}", _bytes(words, word_order, byte_order))[0]
    return number


def text_of(words: Sequence[int], byte_order: Order) -> str:
    """The text in `words` up to its first NUL: what is printable of it, without blanks at its ends."""
    text = _bytes(words, Order.BIG, byte_order).partition(b"\0")[0].decode("latin-1")
    return "".join(one for one in text if one.isprintable()).strip()[:MAX_TEXT_CHARACTERS]


def raw_hex(words: Sequence[int]) -> str:
    """The registers as they came over the wire."""
    return " ".join(f"{word:04x}" for word in words)


def bits_of(number: int, first: int, width: int) -> int:
    """`width` bits from bit `first` on, 0 being the lowest."""
    return number >> first & (1 << width) - 1


def step_of(kind: RegisterType, number: Number) -> float:
    """How finely a register of this kind can count at this number: 1, or a float's distance to the next.

    IEEE 754: a float32 has 24 significant bits, a float64 has 53; the distance is a power of two.
    """
    if not kind.is_float:
        return 1.0
    digits = 24 if kind.code == "f" else 53
    _, exponent = math.frexp(abs(number))  # abs(number) = m * 2**exponent, 0.5 <= m < 1
    return math.ldexp(1.0, exponent - digits)


def _bytes(words: Sequence[int], word_order: Order, byte_order: Order) -> bytes:
    ordered = words if word_order is Order.BIG else list(reversed(words))
    return struct.pack(f"{'>' if byte_order is Order.BIG else '<'}{len(ordered)}H", *ordered)
