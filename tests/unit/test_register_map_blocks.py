"""Blocks: everything that is wanted is asked for, in few requests that a device may answer."""

from hypothesis import given
from hypothesis import strategies as st

from collectors.modbus.blocks import MAX_BITS, MAX_REGISTERS, Span, plan_blocks

SPANS = st.lists(st.builds(Span, st.sampled_from((1, 2, 3, 4)), st.integers(0, 400), st.sampled_from((1, 2, 4, 16))))


@given(SPANS, st.integers(-1, 130), st.integers(16, MAX_REGISTERS))
def test_every_span_is_whole_in_one_block_of_a_size_that_is_allowed(
    spans: list[Span], max_gap: int, max_registers: int
) -> None:
    blocks = plan_blocks(spans, max_gap=max_gap, max_registers=max_registers)
    assert all(any(block.holds(span) for block in blocks) for span in spans)
    assert all(block.count <= (MAX_BITS if block.function in (1, 2) else max_registers) for block in blocks)
    assert len(blocks) <= len(set(spans))


@given(SPANS)
def test_separate_asks_for_each_span_alone(spans: list[Span]) -> None:
    assert plan_blocks(spans, max_gap=-1) == sorted(set(spans))


@given(SPANS, st.integers(0, 20))
def test_no_block_asks_across_a_gap_that_is_too_wide(spans: list[Span], max_gap: int) -> None:
    wanted = {(span.function, address) for span in spans for address in range(span.address, span.end)}
    for block in plan_blocks(spans, max_gap=max_gap):
        gap = 0
        for address in range(block.address, block.end):
            gap = 0 if (block.function, address) in wanted else gap + 1
            assert gap <= max_gap


def test_neighbours_and_small_gaps_are_one_request() -> None:
    spans = [Span(3, 0, 2), Span(3, 2, 2), Span(3, 6, 1), Span(3, 30, 2), Span(4, 7, 1)]
    assert plan_blocks(spans, max_gap=2) == [Span(3, 0, 7), Span(3, 30, 2), Span(4, 7, 1)]
    assert plan_blocks(spans, max_gap=0) == [Span(3, 0, 4), Span(3, 6, 1), Span(3, 30, 2), Span(4, 7, 1)]


def test_a_run_that_is_longer_than_a_reply_is_cut_between_points() -> None:
    spans = [Span(3, address, 4) for address in range(0, 400, 4)]
    assert plan_blocks(spans, max_gap=8) == [Span(3, 0, 124), Span(3, 124, 124), Span(3, 248, 124), Span(3, 372, 28)]
