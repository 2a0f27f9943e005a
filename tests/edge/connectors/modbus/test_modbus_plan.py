"""The planner's laws."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from headrace.edge.connectors.modbus.address import Range
from headrace.edge.connectors.modbus.plan import (
    Limits,
    Span,
    halves,
    plan_blocks,
    plan_together,
)

TABLES = st.sampled_from(["coil", "discrete", "input", "holding"])
SPANS = st.lists(
    st.builds(Span, st.integers(1, 2), TABLES, st.integers(0, 400), st.integers(1, 8)),
    max_size=40,
)
RANGES = st.lists(
    st.builds(
        lambda unit, table, first, size: Range(unit, table, first, first + size),
        st.integers(1, 2),
        TABLES,
        st.integers(0, 400),
        st.integers(0, 20),
    ),
    max_size=4,
)
LIMITS = st.builds(
    lambda registers, bits, gap, ranges: Limits(registers, bits, gap, tuple(ranges)),
    st.integers(8, 125),
    st.integers(8, 2000),
    st.integers(0, 124),
    RANGES,
)


@given(SPANS, LIMITS)
def test_every_span_is_in_exactly_one_block(spans: list[Span], limits: Limits) -> None:
    wanted = [span for span in spans if limits.allows(span)]
    covered = [span for block in plan_blocks(wanted, limits) for span in block.spans]
    assert sorted(covered) == sorted(set(wanted))


@given(SPANS, LIMITS)
def test_a_block_keeps_the_limits_and_holds_its_spans_whole(
    spans: list[Span], limits: Limits
) -> None:
    for block in plan_blocks(filter(limits.allows, spans), limits):
        assert 1 <= block.count <= limits.count_max(block.table)
        end = block.start + block.count
        assert not limits.forbids(block.unit, block.table, block.start, end)
        for span in block.spans:
            assert (span.unit, span.table) == (block.unit, block.table)
            assert block.start <= span.start and span.end <= end


@given(SPANS, LIMITS)
def test_no_gap_is_wider_than_allowed(spans: list[Span], limits: Limits) -> None:
    for block in plan_blocks(filter(limits.allows, spans), limits):
        gap_max = limits.gap_max * (16 if block.table in ("coil", "discrete") else 1)
        end = block.start
        for span in sorted(block.spans):
            assert span.start - end <= gap_max
            end = max(end, span.end)


@given(SPANS, LIMITS)
def test_neighbours_are_not_read_twice(spans: list[Span], limits: Limits) -> None:
    """No two blocks could have been one: the plan is as short as its rule allows."""
    blocks = plan_blocks(filter(limits.allows, spans), limits)
    for one, two in itertools.pairwise(blocks):
        if (one.unit, one.table) != (two.unit, two.table):
            continue
        gap_max = limits.gap_max * (16 if one.table in ("coil", "discrete") else 1)
        too_far = two.start - (one.start + one.count) > gap_max
        # The next block's first span alone is what did not fit.
        first = min(two.spans)
        too_long = first.end - one.start > limits.count_max(one.table)
        walled = limits.forbids(one.unit, one.table, one.start + one.count, two.start)
        assert too_far or too_long or walled


@given(SPANS)
def test_halves_lose_nothing(spans: list[Span]) -> None:
    for block in plan_blocks(spans, Limits()):
        if len(block.spans) > 1:
            one, two = halves(block)
            assert one.spans + two.spans == block.spans
            assert len(one.spans) >= 1 <= len(two.spans)


@given(SPANS.filter(bool), LIMITS)
def test_together_is_one_allowed_block_or_none(spans: list[Span], limits: Limits) -> None:
    block = plan_together(spans, limits)
    if block is None:
        return
    assert limits.allows(Span(block.unit, block.table, block.start, block.count))
    assert set(block.spans) == set(spans)
