"""The planner: which reads give all tags of a scan group. Pure; it knows spans, not tags.

One request costs a round trip and a device's scan time whatever its length, so neighbours are read
together, also across small gaps. What a plan never does: split a value over two requests (it could
be torn), mix units or tables, exceed what the device takes, or touch a forbidden register.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headrace.edge.connectors.modbus.address import BIT_TABLES, Range, Table


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """``count`` registers (or bits) of one value, from ``start``."""

    unit: int
    table: Table
    start: int
    count: int

    @property
    def end(self) -> int:
        """One behind the last register."""
        return self.start + self.count


@dataclass(frozen=True, slots=True)
class Block:
    """One read request: ``count`` registers from ``start``, and the spans that it covers."""

    unit: int
    table: Table
    start: int
    count: int
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may be.

    Attributes:
        registers_max, bits_max: longest read of registers, of coils or discrete inputs.
        gap_max: registers nobody asked for that may lie between two spans (bits: 16 times as many).
        forbidden: registers that may not be touched.
    """

    registers_max: int = 125
    bits_max: int = 2000
    gap_max: int = 16
    forbidden: tuple[Range, ...] = ()

    def count_max(self, table: Table) -> int:
        """Longest read of a table."""
        return self.bits_max if table in BIT_TABLES else self.registers_max

    def forbids(self, unit: int, table: Table, start: int, end: int) -> bool:
        """True when a register of ``start`` to ``end`` (not included) is forbidden."""
        return any(
            (each.unit, each.table) == (unit, table) and each.first < end and start <= each.last
            for each in self.forbidden
        )

    def allows(self, span: Span) -> bool:
        """True when the span can be read at all, by a request of its own."""
        return span.count <= self.count_max(span.table) and not self.forbids(
            span.unit, span.table, span.start, span.end
        )


def plan_blocks(spans: Iterable[Span], limits: Limits) -> tuple[Block, ...]:
    """Few blocks that cover every span; each span lies whole in exactly one block.

    Args:
        spans: in any order; equal ones count once. Each must be one that ``limits.allows``.
        limits: what a request may be.

    Example:
        >>> spans = [Span(1, "holding", 0, 2), Span(1, "holding", 4, 2), Span(1, "holding", 200, 1)]
        >>> [(block.start, block.count) for block in plan_blocks(spans, Limits())]
        [(0, 6), (200, 1)]
    """
    blocks: list[Block] = []
    current: list[Span] = []
    end = 0
    for span in sorted(set(spans)):
        if current and _fits(current[0], end, span, limits):
            current.append(span)
            end = max(end, span.end)
            continue
        if current:
            blocks.append(cover(current))
        current, end = [span], span.end
    if current:
        blocks.append(cover(current))
    return tuple(blocks)


def _fits(first: Span, end: int, span: Span, limits: Limits) -> bool:
    if (first.unit, first.table) != (span.unit, span.table):
        return False
    gap_max = limits.gap_max * (16 if span.table in BIT_TABLES else 1)
    return (
        span.start - end <= gap_max
        and max(end, span.end) - first.start <= limits.count_max(span.table)
        and not limits.forbids(span.unit, span.table, end, span.start)
    )


def cover(spans: Sequence[Span]) -> Block:
    """The one block that spans all, which must be of one unit and table."""
    start = min(span.start for span in spans)
    end = max(span.end for span in spans)
    return Block(spans[0].unit, spans[0].table, start, end - start, tuple(spans))


def plan_together(spans: Iterable[Span], limits: Limits) -> Block | None:
    """One block that covers every span, or None when no single request can.

    Example:
        >>> plan_together([Span(1, "holding", 0, 4), Span(1, "holding", 90, 2)], Limits()).count
        92
    """
    ordered = sorted(set(spans))
    if len({(span.unit, span.table) for span in ordered}) != 1:
        return None
    block = cover(ordered)
    allowed = limits.allows(Span(block.unit, block.table, block.start, block.count))
    return block if allowed else None


def halves(block: Block) -> tuple[Block, Block]:
    """Two blocks with half the spans each, to find the one that the device refuses."""
    middle = len(block.spans) // 2
    return cover(block.spans[:middle]), cover(block.spans[middle:])
