"""One poll: ask for the blocks of a plan, and cut what the device refuses until only bad tags fail.

A merged read fails as a whole when one register in it does not exist. So a refused block is halved
until the refusing spans stand alone; the cut is remembered, so that the next polls ask right at once,
and after ``MERGE_RETRY_S`` the whole block is tried again, since devices change.

======================== ===========================================================================
exception                next polls
======================== ===========================================================================
2, 3 of a single span    it is not asked for again until the whole block is tried
4 of a single span       asked for alone each time: it may come back with the next value
other (busy, gateway...) no cut: it is the device that refuses, not an address
======================== ===========================================================================

A unit behind a gateway that stays silent while others speak costs a whole timeout each time, so it is
left alone for ``UNIT_RETRY_S``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from headrace.edge.connectors.modbus.address import BIT_TABLES
from headrace.edge.connectors.modbus.columns import IndexArray
from headrace.edge.connectors.modbus.groupplan import GroupPlan, Split
from headrace.edge.connectors.modbus.plan import Block, Span, cover, halves
from headrace.edge.connectors.modbus.protocol import (
    EXCEPTION_FLAG,
    PDU_BYTES_MAX,
    Request,
    read_request,
)
from headrace.edge.connectors.modbus.session import Answer, ModbusSession
from headrace.edge.connectors.modbus.statuses import (
    DEVICE_FAILURE,
    ILLEGAL_ADDRESS,
    ILLEGAL_VALUE,
)
from headrace.model.errors import Transient
from headrace.model.sample import Float64Array, Int64Array
from headrace.model.time import US_PER_S

MERGE_RETRY_S: Final = 60.0
UNIT_RETRY_S: Final = 10.0
SILENT: Final = -1
"""Stands for an exception code where a unit did not answer at all."""
_CUT: Final = (ILLEGAL_ADDRESS, ILLEGAL_VALUE, DEVICE_FAILURE)


@dataclass
class Polled:
    """What came back.

    Attributes:
        buffer: the bytes of all blocks, zero where nothing came.
        failed: spans that failed, with the exception code or :data:`SILENT`.
        answered: rows of the columns, and when their answer came (event loop's clock).
        whole_s: when the answer of each block came, float64; None unless every block came whole.
        cut: blocks that the device refused whole in this poll, and that were cut.
        news: those of them that were not cut before.
    """

    buffer: bytearray | bytes
    failed: dict[Span, int] = field(default_factory=dict)
    answered: list[tuple[IndexArray, float]] = field(default_factory=list)
    whole_s: Float64Array | None = None
    cut: list[Block] = field(default_factory=list)
    news: list[Block] = field(default_factory=list)


@dataclass
class _Outcome:
    """What became of the parts of one block."""

    parts: list[Block] = field(default_factory=list)
    skipped: dict[Span, int] = field(default_factory=dict)


async def poll(
    session: ModbusSession, plan: GroupPlan, quiet: dict[int, float], now_s: float
) -> Polled:
    """Read every block of the plan once.

    Args:
        session: an open session.
        plan: what to read; its ``splits`` are brought up to date.
        quiet: unit -> until when it is left alone; brought up to date.
        now_s: monotonic seconds, to know when a cut block or a quiet unit is tried again.

    Raises:
        Transient: EDGE-3002 when no unit answered, and what the session raises.
    """
    answers: list[Answer | None] = []
    if not plan.splits and not quiet:
        answers = await session.exchange(plan.requests)
        whole = _whole(plan, answers)
        if whole is not None:
            return whole
    polled = Polled(bytearray(plan.size))
    outcomes: dict[int, _Outcome] = {}
    pending = _first_parts(plan, polled, outcomes, quiet, now_s)
    asked = {number for number, _ in pending}
    while pending:
        answers = answers or await session.exchange(
            [
                Request(part.unit, read_request(part.table, part.start, part.count))
                for _, part in pending
            ]
        )
        for unit in _silent_units(pending, answers):
            quiet[unit] = now_s + UNIT_RETRY_S
        cut: list[tuple[int, Block]] = []
        for (number, part), answer in zip(pending, answers, strict=True):
            cut += _take(plan, polled, outcomes, number, part, answer)
        pending, answers = cut, []
    _remember(plan, outcomes, asked, now_s)
    return polled


def _whole(plan: GroupPlan, answers: Sequence[Answer | None]) -> Polled | None:
    """What came when every block of registers came whole, which is the rule; else None."""
    bodies: list[bytes] = []
    times: list[float] = []
    if plan.heads is None:
        return None
    for head, answer in zip(plan.heads, answers, strict=True):
        if answer is None or not answer.pdu.startswith(head) or len(answer.pdu) != 2 + head[1]:
            return None
        bodies.append(answer.pdu[2:])
        times.append(answer.at_s)
    return Polled(b"".join(bodies), whole_s=np.array(times))


def _first_parts(
    plan: GroupPlan,
    polled: Polled,
    outcomes: dict[int, _Outcome],
    quiet: dict[int, float],
    now_s: float,
) -> list[tuple[int, Block]]:
    parts: list[tuple[int, Block]] = []
    if all(now_s < quiet.get(block.unit, now_s) for block in plan.blocks):
        quiet.clear()
    for number, block in enumerate(plan.blocks):
        if now_s < quiet.get(block.unit, now_s):
            polled.failed |= dict.fromkeys(block.spans, SILENT)
            continue
        split = plan.splits.get(number)
        if split is None or now_s >= split.merge_at_s:
            parts.append((number, block))
            continue
        outcomes[number] = _Outcome(skipped=dict(split.skipped))
        polled.failed |= split.skipped
        parts += [(number, part) for part in split.parts]
    for number, outcome in outcomes.items():
        if not parts:  # ask for one all the same: else a dead connection would look alive
            span = next(iter(outcome.skipped))
            del outcome.skipped[span], polled.failed[span]
            parts.append((number, cover([span])))
    return parts


def _silent_units(pending: list[tuple[int, Block]], answers: Sequence[Answer | None]) -> set[int]:
    """Units that did not answer; one is a matter of its tags, silence of all is the connection's."""
    silent = {part.unit for (_, part), answer in zip(pending, answers, strict=True) if not answer}
    if silent and silent == {part.unit for _, part in pending}:
        units = ", ".join(map(str, sorted(silent)))
        raise Transient(
            "EDGE-3002",
            f"no answer from unit {units} within the timeout",
            "Check the unit number, the device's load and timeout_s.",
        )
    return silent


def _take(
    plan: GroupPlan,
    polled: Polled,
    outcomes: dict[int, _Outcome],
    number: int,
    part: Block,
    answer: Answer | None,
) -> list[tuple[int, Block]]:
    """Put one answer where it belongs; gives the parts to ask for next when it was refused."""
    if answer is None:
        polled.failed |= dict.fromkeys(part.spans, SILENT)
        _outcome(outcomes, number).parts.append(part)
        return []
    if answer.pdu[0] & EXCEPTION_FLAG:
        code = answer.pdu[1] if len(answer.pdu) > 1 else 0
        if code in _CUT and len(part.spans) > 1:
            if part is plan.blocks[number]:
                polled.cut.append(part)
                polled.news += [part] if number not in plan.splits else []
            return [(number, half) for half in halves(part)]
        polled.failed |= dict.fromkeys(part.spans, code)
        outcome = _outcome(outcomes, number)
        if code in (ILLEGAL_ADDRESS, ILLEGAL_VALUE):
            outcome.skipped[part.spans[0]] = code
        else:
            outcome.parts.append(part)
        return []
    _place(plan, polled, number, part, answer)
    if part is not plan.blocks[number] or number in plan.splits:
        _outcome(outcomes, number).parts.append(part)
    return []


def _outcome(outcomes: dict[int, _Outcome], number: int) -> _Outcome:
    return outcomes.setdefault(number, _Outcome())


def _place(plan: GroupPlan, polled: Polled, number: int, part: Block, answer: Answer) -> None:
    bits = part.table in BIT_TABLES
    size = (part.count + 7) // 8 if bits else 2 * part.count
    if len(answer.pdu) != size + 2 or answer.pdu[1] != size:
        raise Transient(
            "EDGE-3004",
            f"unit {part.unit} answered {len(answer.pdu) - 2} bytes for {part.count} of "
            f"{part.table}:{part.start}, where {size} are due (at most {PDU_BYTES_MAX - 2})",
            "The device or a gateway breaks the protocol; ask its vendor.",
        )
    body = answer.pdu[2:]
    if bits:
        flags = np.frombuffer(body, np.uint8)
        body = np.unpackbits(flags, count=part.count, bitorder="little").tobytes()
    at = plan.offset(number, part)
    assert isinstance(polled.buffer, bytearray), "bytes only when all came whole"
    polled.buffer[at : at + len(body)] = body
    polled.answered.append((plan.rows_of(number, part), answer.at_s))


def _remember(
    plan: GroupPlan, outcomes: dict[int, _Outcome], asked: set[int], now_s: float
) -> None:
    """Keep each cut for the next polls, and forget it when the whole block was read."""
    for number in asked:
        block = plan.blocks[number]
        outcome = outcomes.get(number)
        old = plan.splits.get(number)
        if outcome is None or (outcome.parts == [block] and not outcome.skipped):
            plan.splits.pop(number, None)
            continue
        kept = old is not None and now_s < old.merge_at_s
        at_s = old.merge_at_s if old is not None and kept else now_s + MERGE_RETRY_S
        parts = sorted(outcome.parts, key=lambda part: not _has_clock(plan, part))
        plan.splits[number] = Split(tuple(parts), outcome.skipped, at_s)


def _has_clock(plan: GroupPlan, part: Block) -> bool:
    """The device's clock is read before what it belongs to, and once more behind it."""
    return plan.clock_row is not None and any(
        plan.clock_row in plan.rows[span] for span in part.spans
    )


def answered_us(plan: GroupPlan, polled: Polled, loop_s: float, now_us: int) -> Int64Array:
    """When each row's answer came, UTC microseconds; now where none came.

    Args:
        plan: of the poll.
        polled: its outcome.
        loop_s: the event loop's clock now.
        now_us: the wall clock now.
    """
    if polled.whole_s is not None:
        ago_us = ((loop_s - polled.whole_s) * US_PER_S).astype(np.int64)
        return now_us - ago_us[plan.block_of]
    times = np.full(len(plan.addresses), now_us, np.int64)
    for rows, at_s in polled.answered:
        times[rows] = now_us - int((loop_s - at_s) * US_PER_S)
    return times
