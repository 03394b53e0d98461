"""Which requests read a set of registers: neighbours together, across small gaps, within what one reply holds. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

# Modbus Application Protocol 1.1b3, 6.1 to 6.4: what one reply holds.
MAX_REGISTERS = 125
MAX_BITS = 2000
BIT_FUNCTIONS = frozenset({1, 2})  # coils, discrete inputs
ADDRESSES = 1 << 16


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Registers or bits next to each other: one request's worth."""

    function: int
    address: int
    count: int

    @property
    def end(self) -> int:
        """The address after the last one."""
        return self.address + self.count

    def holds(self, other: "Span") -> bool:
        return self.function == other.function and self.address <= other.address and other.end <= self.end


def plan_blocks(spans: Iterable[Span], *, max_gap: int, max_registers: int = MAX_REGISTERS) -> list[Span]:
    """Blocks that hold every span whole, as few as a greedy walk in order of address finds.

    A gap of up to `max_gap` registers is read along; -1 joins nothing, so that each span is a request of its own. A
    block has at most `max_registers` registers, or 2000 bits; a longer span is not split, and is a block.
    """
    blocks: list[Span] = []
    for span in sorted(set(spans)):
        last = blocks[-1] if blocks else None
        limit = MAX_BITS if span.function in BIT_FUNCTIONS else max_registers
        if last and max_gap >= 0 and _may_join(last, span, max_gap=max_gap, limit=limit):
            blocks[-1] = Span(last.function, last.address, max(last.end, span.end) - last.address)
        else:
            blocks.append(span)
    return blocks


def _may_join(last: Span, span: Span, *, max_gap: int, limit: int) -> bool:
    near = last.function == span.function and span.address - last.end <= max_gap
    return near and max(last.end, span.end) - last.address <= limit
