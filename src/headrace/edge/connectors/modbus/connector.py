"""The Modbus connector: polls scan groups, writes tags, scans register ranges.

Device records (options ``record_sequence`` and ``record_acknowledge``)::

    device                        connector                         host
    shows record 7        ──►     reads values, clock, number 7
                                  gives the samples once      ──►   publishes; durable on the bus
    drops record 7        ◄──     writes 7                    ◄──   Reading.acknowledge()
    shows record 8        ──►     ...

The device keeps a record until it is acknowledged, so an edge that dies in between reads it again.
Number 0 means that there is no record yet.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from headrace.edge.connectors.modbus.browse import browse
from headrace.edge.connectors.modbus.columns import Columns
from headrace.edge.connectors.modbus.config import ModbusSettings
from headrace.edge.connectors.modbus.groupplan import (
    GroupPlan,
    make_plan,
    needs_one_block,
    parse_tag,
    span_of,
)
from headrace.edge.connectors.modbus.line import Line
from headrace.edge.connectors.modbus.pipelining import Refusals
from headrace.edge.connectors.modbus.poll import SILENT, Polled, answered_us
from headrace.edge.connectors.modbus.protocol import Request, read_request
from headrace.edge.connectors.modbus.statuses import DEVICE_FAILURE, meaning
from headrace.edge.connectors.modbus.write import RegisterWriter
from headrace.edge.contract import BrowseItem, ConnectorContext, Reading, ScanGroup
from headrace.model import status as codes
from headrace.model.desired import TagConfig
from headrace.model.sample import Int64Array, concat_batches, empty_batch, make_batch

PLANS_MAX: Final = 64
CLOCK_TRIES: Final = 3
YEAR_10000_US: Final = 253_402_300_800_000_000
_EMPTY: Final = empty_batch()
_LASTING: Final = (1, 2, 3, DEVICE_FAILURE)
"""Exceptions that asking the same record again would not cure."""


@dataclass
class _Record:
    """Where the hand-shake stands: the newest record given, and the newest that is durable."""

    given: int = 0
    durable: int = 0


class ModbusConnector:
    """One session with one device (or one gateway and the units behind it).

    Args:
        settings: parsed settings of the connection.
        context: what the host lends.
        refusals: devices that bear one request at a time, known from earlier sessions.
    """

    def __init__(
        self,
        settings: ModbusSettings,
        context: ConnectorContext,
        refusals: Refusals | None = None,
    ) -> None:
        self._settings = settings
        self._clock = context.clock
        self._line = Line(settings, context.clock, refusals or Refusals())
        self._plans: dict[int, GroupPlan] = {}
        self._record = _Record()

    async def connect(self) -> None:
        """Open the TCP connection.

        Raises:
            Transient: EDGE-3001.
        """
        await self._line.open()

    async def close(self) -> None:
        """Give up the TCP connection."""
        self._line.close()

    async def read(self, group: ScanGroup) -> Reading:
        """Poll the group's tags once.

        Raises:
            Transient: EDGE-3002 no answer, EDGE-3003 connection lost, EDGE-3004 broken protocol.
        """
        plan = self._plan(group)
        polled, torn = await self._poll(plan)
        now_us = self._clock.now_us()
        loop_s = asyncio.get_running_loop().time()
        received_us = answered_us(plan, polled, loop_s, now_us)
        columns = plan.decoder.decode(polled.buffer)
        errors = {tag_id: str(error) for tag_id, error in plan.wrong.items()}
        errors |= self._mark_failed(plan, polled, columns)
        reading = Reading(_EMPTY, 0, errors, notices=self._notices(polled))
        clock_us = self._device_clock_us(plan, polled, columns)
        reading.device_time_us = clock_us
        if plan.sequence_row is not None and not await self._is_new(plan, polled, columns, reading):
            return reading
        _fill(reading, plan, columns, received_us, clock_us, torn, now_us)
        return reading

    async def write(self, tag: TagConfig, value: float | str) -> float | str:
        """Write a raw value, read it back, give what the device has.

        Raises:
            Refused, Misconfigured, Transient: see :class:`RegisterWriter`.
        """
        address = parse_tag(tag, self._settings)
        writer = RegisterWriter(await self._line.session(), self._settings)
        return await writer.write(address, value, f"{tag.path} at {tag.address}")

    async def browse(self, address: str) -> list[BrowseItem]:
        """The four tables, or what the registers of a range such as ``holding:0-199`` may mean.

        Raises:
            Misconfigured: the range is wrong. Transient: the device does not answer.
        """
        return await browse(await self._line.session(), self._settings, address)

    def _plan(self, group: ScanGroup) -> GroupPlan:
        known = self._plans.get(group.scan_interval_ms)
        if known is None or (known.group is not group and known.group != group):
            if len(self._plans) >= PLANS_MAX:
                self._plans.clear()
            known = self._plans[group.scan_interval_ms] = make_plan(group, self._settings)
        return known

    async def _poll(self, plan: GroupPlan) -> tuple[Polled, bool]:
        """One poll; True when the device's clock moved while its block had to be read in parts."""
        if plan.clock_row is None or not needs_one_block(self._settings):
            return await self._line.poll(plan), False
        for _ in range(CLOCK_TRIES):
            polled = await self._line.poll(plan)
            if not plan.splits:
                return polled, False
            if not polled.cut and await self._clock_stands(plan, polled):
                return polled, False
        return polled, True

    async def _clock_stands(self, plan: GroupPlan, polled: Polled) -> bool:
        assert plan.clock_row is not None, "only asked for with a clock"
        span = span_of(plan.addresses[plan.clock_row])
        request = read_request(span.table, span.start, span.count)
        session = await self._line.session()
        (answer,) = await session.exchange([Request(span.unit, request)])
        at = plan.offsets[0] + 2 * (span.start - plan.blocks[0].start)
        return answer is not None and answer.pdu[2:] == polled.buffer[at : at + 2 * span.count]

    def _mark_failed(self, plan: GroupPlan, polled: Polled, columns: Columns) -> dict[int, str]:
        """Statuses of what failed, and a line for each failed tag."""
        errors: dict[int, str] = {}
        for row in np.flatnonzero(columns.status[: len(plan.tags)]).tolist():
            tag = plan.tags[row]
            errors[tag.tag_id] = (
                f"EDGE-3021 {tag.path} at {tag.address} has bytes that are no "
                f"{plan.addresses[row].data_type.name}. Check the type and the byte order."
            )
        for span, code in polled.failed.items():
            status = codes.BAD_TIMEOUT if code == SILENT else meaning(code).status
            for row in plan.rows[span]:
                columns.status[row] = status
                columns.is_null[row] = True
                if columns.text:
                    columns.text[row] = None
                if row < len(plan.tags):
                    tag = plan.tags[row]
                    errors[tag.tag_id] = _failure(tag, span.unit, code)
        return errors

    def _device_clock_us(self, plan: GroupPlan, polled: Polled, columns: Columns) -> int | None:
        if plan.clock_row is None or self._settings.timestamp is None:
            return None
        if columns.status[plan.clock_row] or not np.isfinite(columns.value[plan.clock_row]):
            return None
        _, tick_us = self._settings.timestamp
        ticks = _exact(columns, plan.clock_row)
        at_us = int(ticks * int(tick_us)) if isinstance(ticks, int) else int(ticks * tick_us)
        return at_us if 0 < at_us < YEAR_10000_US else None

    async def _is_new(
        self, plan: GroupPlan, polled: Polled, columns: Columns, reading: Reading
    ) -> bool:
        """True when the record shown was not given yet; then the reading can acknowledge it."""
        assert plan.sequence_row is not None, "only asked for with records"
        if columns.status[plan.sequence_row]:
            columns.status[:] = columns.status[plan.sequence_row]
            columns.is_null[:] = True
            columns.text = None
            text = "EDGE-3022 the record's number cannot be read. Check record_sequence."
            reading.tag_errors |= dict.fromkeys(plan.tag_id.tolist(), text)
            return True
        number = int(_exact(columns, plan.sequence_row))
        if any(code not in _LASTING for code in polled.failed.values()):
            notice = f"record {number} is read again: a part of it was not answered"
            reading.notices += (("EDGE-3012", notice),)
            return False
        if number == self._record.durable and number:
            await self._write_acknowledge(number)  # the first one did not reach the device
        if number in (0, self._record.given):
            return False
        self._record.given = number

        async def acknowledge() -> None:
            self._record.durable = number
            await self._write_acknowledge(number)

        reading.acknowledge = acknowledge
        reading.waits = True
        return True

    async def _write_acknowledge(self, number: int) -> None:
        assert self._settings.record is not None, "only called with records"
        address = self._settings.record[1]
        writer = RegisterWriter(await self._line.session(), self._settings)
        await writer.write_sequence(address, number, self._settings.options.record_acknowledge)

    def _notices(self, polled: Polled) -> tuple[tuple[str, str], ...]:
        notices = self._line.take_notices()
        for block in polled.news:
            text = (
                f"unit {block.unit} refused {block.count} of {block.table} from {block.start} "
                "(zero-based) as one read; it is read in parts"
            )
            notices.append(("EDGE-3011", text))
        return tuple(notices)


def _fill(
    reading: Reading,
    plan: GroupPlan,
    columns: Columns,
    received_us: Int64Array,
    clock_us: int | None,
    torn: bool,
    now_us: int,
) -> None:
    """Make the reading's batch: the tags' rows, then the tags that cannot be read at all."""
    count = len(plan.tags)
    source = received_us[:count]
    if clock_us is not None:
        source = np.full(count, clock_us, np.int64)
    status = columns.status[:count]
    if torn or (plan.clock_row is not None and clock_us is None):
        status = np.where(status == codes.GOOD, np.uint32(codes.UNCERTAIN), status)
        text = "the device's clock cannot be read with its values; they are Uncertain"
        reading.notices += (("EDGE-3013", text),)
    reading.expected = count + len(plan.wrong)
    reading.batch = make_batch(
        plan.tag_id,
        source,
        columns.value[:count],
        status=status,
        received_timestamp_us=received_us[:count],
        text=columns.text[:count] if columns.text else None,
        value_is_null=columns.is_null[:count],
    )
    if plan.wrong:
        reading.batch = concat_batches([reading.batch, _wrong_batch(plan, now_us)])


def _wrong_batch(plan: GroupPlan, now_us: int) -> pl.DataFrame:
    """Bad samples of the tags that cannot be read at all."""
    count = len(plan.wrong)
    return make_batch(
        np.array(list(plan.wrong), np.int64),
        np.full(count, now_us, np.int64),
        np.zeros(count),
        status=codes.BAD_CONFIGURATION_ERROR,
        received_timestamp_us=now_us,
        value_is_null=np.ones(count, np.bool_),
    )


def _exact(columns: Columns, row: int) -> int | float:
    """A row's number without a detour through float64 where it has digits."""
    text = columns.text[row] if columns.text else None
    if text is not None:
        return int(text)
    value = float(columns.value[row])
    return int(value) if value.is_integer() else value


def _failure(tag: TagConfig, unit: int, code: int) -> str:
    if code == SILENT:
        return (
            f"EDGE-3023 cannot read {tag.path} at {tag.address}: unit {unit} does not answer. "
            "Check the unit number and its wiring."
        )
    known = meaning(code)
    return (
        f"EDGE-3020 cannot read {tag.path} at {tag.address}: unit {unit} answered "
        f"'{known.text}' (Modbus exception {code}). {known.remedy}"
    )
