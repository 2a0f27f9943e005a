"""Browsing a device that describes nothing: show registers, propose what they may mean.

Modbus has no directory. A scan reads a range and shows each register as it is; where a wider type would
make sense it is proposed too, with a plausibility between 0 and 1. It is a proposal for a person who has
the device's manual or its display in view, and never a decision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import msgspec

from headrace.edge.connectors.modbus.address import (
    BIT_TABLES,
    REGISTER_MAX,
    TABLES,
    Address,
    Range,
)
from headrace.edge.connectors.modbus.columns import ColumnDecoder, Place
from headrace.edge.connectors.modbus.config import ModbusSettings
from headrace.edge.connectors.modbus.datatype import (
    BOOL,
    ORDERS,
    UINT16,
    DataType,
    Order,
    find_type,
)
from headrace.edge.connectors.modbus.groupplan import limits_of
from headrace.edge.connectors.modbus.plan import Block, Span, halves, plan_blocks
from headrace.edge.connectors.modbus.protocol import EXCEPTION_FLAG, Request, read_request
from headrace.edge.connectors.modbus.session import ModbusSession
from headrace.edge.connectors.modbus.statuses import ILLEGAL_FUNCTION
from headrace.edge.contract import BrowseItem
from headrace.model.errors import Misconfigured, Transient

REGISTERS_MAX: Final = 199
BITS_MAX: Final = 999
PROPOSALS_MAX: Final = 3
PLAUSIBLE: Final = 0.5
_WIDE: Final = ("float32", "float64", "int32", "int64")


@dataclass(frozen=True)
class Proposal:
    """What a register and those behind it may mean.

    Attributes:
        plausibility: 0 to 1; how much the value looks like one that a device would show.
    """

    data_type: DataType
    order: Order
    value: float
    plausibility: float


async def browse(
    session: ModbusSession, settings: ModbusSettings, address: str
) -> list[BrowseItem]:
    """The four tables for ``""``, else what a range holds.

    Args:
        session: an open session.
        settings: of the connection; its grammar reads and writes the addresses.
        address: ``""``, or a range of at most 199 registers or 999 bits such as ``holding:0-198``.

    Raises:
        Misconfigured: EDGE-3050, EDGE-3060 the range is wrong or too long.
        Transient: EDGE-3002 the unit does not answer.
    """
    if not address:
        return [_folder(settings, Range(settings.grammar.unit, table, 0, 0)) for table in TABLES]
    wanted = settings.grammar.parse_range(address)
    count_max = _count_max(wanted)
    if wanted.last - wanted.first >= count_max:
        raise Misconfigured(
            "EDGE-3060",
            f"the range {address!r} has {wanted.last - wanted.first + 1} places",
            f"Scan at most {count_max} of this table at once.",
        )
    found = await _scan(session, settings, wanted)
    items = _bit_items(settings, wanted, found)
    if wanted.table not in BIT_TABLES:
        items = _register_items(settings, wanted, found)
    if wanted.last < REGISTER_MAX:
        following = _folder(settings, Range(wanted.unit, wanted.table, wanted.last + 1, 0))
        # Among what a range holds, or alone when it holds nothing: the arrow says that it goes on.
        items.append(msgspec.structs.replace(following, name=f"→ {following.name}"))
    return items


def _count_max(wanted: Range) -> int:
    return BITS_MAX if wanted.table in BIT_TABLES else REGISTERS_MAX


def _folder(settings: ModbusSettings, start: Range) -> BrowseItem:
    """A folder for the range that begins at ``start.first``."""
    last = min(start.first + _count_max(start) - 1, REGISTER_MAX)
    text = settings.grammar.format_range(Range(start.unit, start.table, start.first, last))
    return BrowseItem(address=text, name=text, folder=True)


async def _scan(session: ModbusSession, settings: ModbusSettings, wanted: Range) -> dict[int, int]:
    """Register -> raw value, for those that the device shows."""
    limits = limits_of(settings)
    places = (Span(wanted.unit, wanted.table, at, 1) for at in range(wanted.first, wanted.last + 1))
    pending = list(plan_blocks(filter(limits.allows, places), limits))
    found: dict[int, int] = {}
    while pending:
        requests = [
            Request(block.unit, read_request(block.table, block.start, block.count))
            for block in pending
        ]
        refused: list[Block] = []
        for block, answer in zip(pending, await session.exchange(requests), strict=True):
            if answer is None:
                raise Transient(
                    "EDGE-3002",
                    f"no answer from unit {wanted.unit} within the timeout",
                    "Check the unit number and timeout_s.",
                )
            if answer.pdu[0] & EXCEPTION_FLAG:
                lacking = answer.pdu[1:] == bytes((ILLEGAL_FUNCTION,))
                refused += halves(block) if block.count > 1 and not lacking else ()
            else:
                found |= _raw(block, answer.pdu[2:])
        pending = refused
    return found


def _raw(block: Block, body: bytes) -> dict[int, int]:
    if block.table in BIT_TABLES:
        bits = int.from_bytes(body, "little")
        return {block.start + at: bits >> at & 1 for at in range(block.count)}
    return {
        block.start + at: int.from_bytes(body[2 * at : 2 * at + 2], "big")
        for at in range(block.count)
    }


def _bit_items(settings: ModbusSettings, wanted: Range, found: dict[int, int]) -> list[BrowseItem]:
    return [
        _item(settings, wanted, at, BOOL, settings.grammar.order, str(value), "raw")
        for at, value in sorted(found.items())
    ]


def _register_items(
    settings: ModbusSettings, wanted: Range, found: dict[int, int]
) -> list[BrowseItem]:
    items: list[BrowseItem] = []
    order = settings.grammar.order
    for at in sorted(found):
        items.append(_item(settings, wanted, at, UINT16, order, str(found[at]), "raw"))
        for proposal in proposals([found.get(at + step) for step in range(4)]):
            note = f"plausibility {proposal.plausibility:.2f}"
            value = f"{proposal.value:.9g}"
            items.append(
                _item(settings, wanted, at, proposal.data_type, proposal.order, value, note)
            )
    return items


def _item(
    settings: ModbusSettings,
    wanted: Range,
    at: int,
    data_type: DataType,
    order: Order,
    value: str,
    note: str,
) -> BrowseItem:
    address = Address(wanted.unit, wanted.table, at, data_type, order)
    text = settings.grammar.format(address)
    return BrowseItem(
        address=text,
        name=f"{text} ({note})",
        data_type=f"{data_type.name} {order}" if data_type.size > 2 else data_type.name,
        value=value,
        proposed_path=f"{wanted.table}_{at}",
        writable=wanted.table in ("coil", "holding"),
    )


def proposals(registers: list[int | None]) -> list[Proposal]:
    """What the first of the registers may be the begin of, most plausible first; at most 3.

    Args:
        registers: four raw values; None where the device shows none.

    Example:
        >>> best = proposals([0x0000, 0x41C8, None, None])[0]
        >>> best.data_type.name, best.order, best.value
        ('float32', 'CDAB', 25.0)
    """
    found: list[Proposal] = []
    for name in _WIDE:
        data_type = find_type(name)
        assert data_type is not None, "the names are of the grammar"
        words = registers[: data_type.registers]
        if None in words or not any(words):
            continue
        raw = b"".join((word or 0).to_bytes(2, "big") for word in words)
        for order in ORDERS:
            columns = ColumnDecoder([Place(0, data_type, order)], "ascii").decode(raw)
            value = float(columns.value[0])
            score = (
                _float_score(value) if data_type.kind == "float" else _int_score(data_type, value)
            )
            if score >= PLAUSIBLE:
                found.append(Proposal(data_type, order, value, score))
    found.sort(key=lambda each: -each.plausibility)
    return found[:PROPOSALS_MAX]


def _float_score(value: float) -> float:
    """Devices show magnitudes that people use, often with few digits."""
    if not math.isfinite(value) or value == 0:
        return 0.0
    magnitude = abs(math.log10(abs(value)))
    if magnitude > 9:
        return 0.0
    score = 0.9 - 0.05 * magnitude
    few_digits = math.isclose(value, float(f"{value:.4g}"), rel_tol=1e-6)
    return min(1.0, score + (0.1 if few_digits else 0.0))


def _int_score(data_type: DataType, value: float) -> float:
    """A counter in a wide register is small against what the register could hold."""
    if value == 0 or value < -1e6:
        return 0.0
    used = math.log2(abs(value) + 1) / (8 * data_type.size)
    if used <= 0.5:  # one register would have done: a wide one is a guess
        return 0.5 if value > 0 else 0.0
    return max(0.0, 0.85 - used / 2) if data_type.size == 4 else max(0.0, 0.6 - used / 2)
