"""A scan group made ready to be polled: blocks, where each tag's bytes land, and how to decode them.

Besides the tags, a poll may carry the device's clock and a record's number; they are planned like tags
and told apart by their row: the last rows of the columns are theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from headrace.edge.connectors.modbus.address import BIT_TABLES, Address
from headrace.edge.connectors.modbus.columns import ColumnDecoder, IndexArray, Place
from headrace.edge.connectors.modbus.config import ModbusSettings
from headrace.edge.connectors.modbus.plan import (
    Block,
    Limits,
    Span,
    plan_blocks,
    plan_together,
)
from headrace.edge.connectors.modbus.protocol import READ_FUNCTION, Request, read_request
from headrace.edge.contract import ScanGroup
from headrace.model.desired import TagConfig
from headrace.model.errors import Misconfigured
from headrace.model.sample import Int64Array


@dataclass
class Split:
    """How a block is asked for after the device refused it whole.

    Attributes:
        parts: what to ask for instead.
        skipped: spans that are not asked for until ``merge_at_s``, with their exception codes.
        merge_at_s: when the whole block is tried again (monotonic seconds).
    """

    parts: tuple[Block, ...]
    skipped: dict[Span, int]
    merge_at_s: float


@dataclass
class GroupPlan:
    """What a poll of one scan group does.

    Attributes:
        group: the group it was made for.
        tag_id: int64, shape (n,), of the tags that can be read, in the order of the rows.
        tags: the same tags.
        addresses: the same tags' addresses, then of the clock and the sequence when there are any.
        wrong: tags that cannot be read, with the reason.
        blocks, offsets: the reads, and where each one's bytes begin in the buffer.
        requests: one for each block.
        heads: how a whole answer to each begins (function, bytes); None when a block is of bits, which
            need more than to be put one behind the other.
        block_of: the block of each row.
        splits: block number -> how it is asked for now; filled by the connector.
    """

    group: ScanGroup
    tag_id: Int64Array
    tags: list[TagConfig]
    addresses: list[Address]
    wrong: dict[int, Misconfigured]
    blocks: tuple[Block, ...]
    offsets: list[int]
    size: int
    rows: dict[Span, list[int]]
    block_rows: list[IndexArray]
    block_of: IndexArray
    requests: list[Request]
    heads: list[bytes] | None
    decoder: ColumnDecoder
    clock_row: int | None
    sequence_row: int | None
    splits: dict[int, Split] = field(default_factory=dict)

    def rows_of(self, number: int, part: Block) -> IndexArray:
        """The rows that a part of block ``number`` feeds."""
        if part is self.blocks[number]:
            return self.block_rows[number]
        return np.array([row for span in part.spans for row in self.rows[span]], np.intp)

    def offset(self, number: int, part: Block) -> int:
        """Where the bytes of a part of block ``number`` begin in the buffer."""
        return self.offsets[number] + _width(part) * (part.start - self.blocks[number].start)


def span_of(address: Address) -> Span:
    """The registers of an address."""
    return Span(address.unit, address.table, address.register, address.count)


def limits_of(settings: ModbusSettings) -> Limits:
    """The planner's limits of a connection."""
    options = settings.options
    return Limits(options.registers_max, options.bits_max, options.gap_max, settings.forbidden)


def parse_tag(tag: TagConfig, settings: ModbusSettings) -> Address:
    """The tag's address, checked against the connection's limits.

    Raises:
        Misconfigured: EDGE-3050, or EDGE-3051 when no request may read it, or EDGE-3052 for an array.
    """
    check_no_array(tag)
    address = settings.grammar.parse(tag.address)
    if not limits_of(settings).allows(span_of(address)):
        raise Misconfigured(
            "EDGE-3051",
            f"the tag {tag.path} at {tag.address!r} is longer than registers_max or in a "
            f"forbidden range of {settings.name}",
            "Change the tag's address or the connection's registers_max and forbidden.",
        )
    if settings.options.framing == "rtu_over_tcp" and not 1 <= address.unit <= 247:
        raise Misconfigured(
            "EDGE-3050",
            f"the tag {tag.path} at {tag.address!r} names unit {address.unit}",
            "Units on a serial line are 1 to 247.",
        )
    return address


def check_no_array(tag: TagConfig) -> None:
    """Refuse ``sample_interval_us``: a Modbus value here is one value.

    Raises:
        Misconfigured: EDGE-3052.
    """
    if tag.sample_interval_us:
        raise Misconfigured(
            "EDGE-3052",
            f"the tag {tag.path} has sample_interval_us {tag.sample_interval_us}",
            "A Modbus tag is one value; remove sample_interval_us.",
        )


def make_plan(group: ScanGroup, settings: ModbusSettings) -> GroupPlan:
    """The plan of a group; tags that cannot be read are in ``wrong``, and no error of the others.

    Example:
        >>> from headrace.edge.connectors.modbus.config import parse_settings
        >>> from headrace.model.desired import ConnectionConfig
        >>> connection = ConnectionConfig(name="plc", protocol="modbus", endpoint="10.0.0.7")
        >>> tag = TagConfig(tag_id=1, path="a/b", address="holding:7:float32")
        >>> make_plan(ScanGroup(1000, (tag,)), parse_settings(connection)).blocks[0].count
        2
    """
    limits = limits_of(settings)
    tags: list[TagConfig] = []
    addresses: list[Address] = []
    wrong: dict[int, Misconfigured] = {}
    extra = [settings.timestamp[0]] if settings.timestamp else []
    extra += [settings.record[0]] if settings.record else []
    first, end = _reach(extra)
    for tag in group.tags:
        try:
            address = parse_tag(tag, settings)
            if needs_one_block(settings):
                reach = min(first, address.register), max(end, address.register + address.count)
                check_together(tag, address, reach, limits, settings)
                first, end = reach
        except Misconfigured as error:
            wrong[tag.tag_id] = error
            continue
        tags.append(tag)
        addresses.append(address)
    addresses += extra
    together = plan_together(map(span_of, addresses), limits) if needs_one_block(settings) else None
    blocks = (together,) if together else plan_blocks(map(span_of, addresses), limits)
    return _laid_out(group, settings, tags, addresses, wrong, blocks)


def needs_one_block(settings: ModbusSettings) -> bool:
    """A clock belongs to values that were read with it; a record that waits for us cannot change."""
    return settings.timestamp is not None and settings.record is None


def _reach(addresses: list[Address]) -> tuple[int, int]:
    """First register of the addresses, and one behind the last."""
    spans = [span_of(address) for address in addresses]
    return min((span.start for span in spans), default=0), max(
        (span.end for span in spans), default=0
    )


def check_together(
    tag: TagConfig,
    address: Address,
    reach: tuple[int, int],
    limits: Limits,
    settings: ModbusSettings,
) -> None:
    """The tag can be read in one request with the device's clock and the other tags.

    Args:
        tag, address: what is to be read too.
        reach: first register, and one behind the last, of the request that would read all.
        limits, settings: of the connection.

    Raises:
        Misconfigured: EDGE-3053.
    """
    assert settings.timestamp is not None, "only values with a clock must be read together"
    clock = settings.timestamp[0]
    whole = Span(clock.unit, clock.table, reach[0], reach[1] - reach[0])
    if (address.unit, address.table) != (clock.unit, clock.table) or not limits.allows(whole):
        raise Misconfigured(
            "EDGE-3053",
            f"the tag {tag.path} at {tag.address!r} cannot be read in one request with the "
            f"timestamp {settings.options.timestamp!r} of {settings.name}",
            "Put tags of other units, tables or far registers on a connection without timestamp.",
        )


def _width(block: Block) -> int:
    """Bytes in the buffer for each register or bit."""
    return 1 if block.table in BIT_TABLES else 2


def _heads(blocks: tuple[Block, ...]) -> list[bytes] | None:
    if any(block.table in BIT_TABLES for block in blocks):
        return None
    return [bytes((READ_FUNCTION[block.table], 2 * block.count)) for block in blocks]


def _laid_out(
    group: ScanGroup,
    settings: ModbusSettings,
    tags: list[TagConfig],
    addresses: list[Address],
    wrong: dict[int, Misconfigured],
    blocks: tuple[Block, ...],
) -> GroupPlan:
    offsets: list[int] = []
    where: dict[Span, int] = {}
    size = 0
    for block in blocks:
        offsets.append(size)
        for span in block.spans:
            where[span] = size + _width(block) * (span.start - block.start)
        size += _width(block) * block.count
    places: list[Place] = []
    rows: dict[Span, list[int]] = {}
    for row, address in enumerate(addresses):
        places.append(Place(where[span_of(address)], address.data_type, address.order))
        rows.setdefault(span_of(address), []).append(row)
    block_rows = [
        np.array([row for span in block.spans for row in rows[span]], np.intp) for block in blocks
    ]
    block_of = np.zeros(len(addresses), np.intp)
    for number, members in enumerate(block_rows):
        block_of[members] = number
    clock = settings.timestamp is not None
    return GroupPlan(
        group=group,
        tag_id=np.array([tag.tag_id for tag in tags], np.int64),
        tags=tags,
        addresses=addresses,
        wrong=wrong,
        blocks=blocks,
        offsets=offsets,
        size=size,
        rows=rows,
        block_rows=block_rows,
        block_of=block_of,
        requests=[
            Request(block.unit, read_request(block.table, block.start, block.count))
            for block in blocks
        ],
        heads=_heads(blocks),
        decoder=ColumnDecoder(places, settings.options.string_encoding),
        clock_row=len(tags) if clock else None,
        sequence_row=len(tags) + clock if settings.record else None,
    )
