"""Each check of the contract suite can fail: sabotaged connectors are caught, one by one."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import polars as pl
import pytest
from test_check_connector_modbus import modbus_case

from headrace.edge.connectors.modbus import ModbusType
from headrace.edge.contract import ScanGroup
from headrace.model.errors import HeadraceError
from headrace.testing import connector_suite as suite

TASKS: set[Any] = set()


class Sabotaged:
    """A Modbus connector of which one method is replaced."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class CloseRaises(Sabotaged):
    async def close(self) -> None:
        await self.real.close()
        raise RuntimeError("already closed")


class CloseDoesNothing(Sabotaged):
    async def close(self) -> None:
        return


class ReadRaisesForeignErrors(Sabotaged):
    async def read(self, group: ScanGroup) -> Any:
        try:
            return await self.real.read(group)
        except HeadraceError as error:
            raise OSError("connection reset") from error


class ConnectRaisesForeignErrors(Sabotaged):
    async def connect(self) -> None:
        try:
            await self.real.connect()
        except HeadraceError as error:
            raise OSError("refused") from error


class ReadWaitsForEver(Sabotaged):
    async def read(self, group: ScanGroup) -> Any:
        try:
            return await self.real.read(group)
        except HeadraceError:
            await asyncio.Event().wait()


class OneBadTagFailsAll(Sabotaged):
    async def read(self, group: ScanGroup) -> Any:
        reading = await self.real.read(group)
        if reading.tag_errors:
            reading.batch = reading.batch.with_columns(status=pl.lit(0x80000000, pl.UInt32))
        return reading


class StatusIsForgotten(Sabotaged):
    async def read(self, group: ScanGroup) -> Any:
        reading = await self.real.read(group)
        reading.batch = reading.batch.with_columns(status=pl.lit(0, pl.UInt32))
        return reading


class DigitsAreLost(Sabotaged):
    async def read(self, group: ScanGroup) -> Any:
        reading = await self.real.read(group)
        number = pl.when(pl.col("value").is_null()).then(pl.col("text"))
        reading.batch = reading.batch.with_columns(text=number)
        return reading


class TimeIsInvented(Sabotaged):
    async def read(self, group: ScanGroup) -> Any:
        reading = await self.real.read(group)
        late = pl.col("source_timestamp") + pl.duration(hours=1)
        reading.batch = reading.batch.with_columns(source_timestamp=late)
        return reading


class ColumnsAreMissing(Sabotaged):
    async def read(self, group: ScanGroup) -> Any:
        reading = await self.real.read(group)
        reading.batch = reading.batch.drop("received_timestamp")
        return reading


class GroupIsRemembered(Sabotaged):
    async def read(self, group: ScanGroup) -> Any:
        self.first = self.__dict__.get("first", group)
        return await self.real.read(self.first)


class EachReadLeavesATask(Sabotaged):
    async def read(self, group: ScanGroup) -> Any:
        TASKS.add(asyncio.ensure_future(asyncio.Event().wait()))
        return await self.real.read(group)


class WriteIsOnlyClaimed(Sabotaged):
    async def write(self, tag: Any, value: Any) -> Any:
        return value


class WriteReadsNothingBack(Sabotaged):
    async def write(self, tag: Any, value: Any) -> Any:
        await self.real.write(tag, value)
        return 0.0


class BrowseFindsNothing(Sabotaged):
    async def browse(self, address: str) -> Any:
        return []


@pytest.mark.parametrize(
    ("check", "sabotage", "says"),
    [
        (suite.closes_in_every_state, CloseRaises, "already closed"),
        (suite.says_transient_when_killed, ReadRaisesForeignErrors, "not Transient"),
        (suite.says_transient_when_slow, ReadWaitsForEver, "hangs"),
        (suite.says_transient_when_refused, ConnectRaisesForeignErrors, "not Transient"),
        (suite.one_bad_tag_spoils_no_other, OneBadTagFailsAll, "not Good"),
        (suite.one_bad_tag_spoils_no_other, StatusIsForgotten, "the missing tag has"),
        (suite.reads_what_the_device_shows, DigitsAreLost, "exact digits"),
        (suite.reads_what_the_device_shows, TimeIsInvented, "source_timestamp is not now"),
        (suite.reads_what_the_device_shows, ColumnsAreMissing, "not the sample schema"),
        (suite.takes_changed_groups, GroupIsRemembered, "no samples of the tags"),
        (suite.leaves_nothing_when_cancelled, EachReadLeavesATask, "left behind"),
        (suite.leaves_nothing_when_cancelled, CloseDoesNothing, "left behind"),
        (suite.grows_no_tasks, EachReadLeavesATask, "tasks became"),
        (suite.writes_and_reads_back, WriteIsOnlyClaimed, "the value is 0.0, not 1.25"),
        (suite.writes_and_reads_back, WriteReadsNothingBack, "read back 0.0"),
        (suite.browses, BrowseFindsNothing, "browse does not find"),
    ],
)
async def test_a_sabotaged_connector_is_caught(check: Any, sabotage: Any, says: str) -> None:
    class SabotagedType(ModbusType):
        def open(self, connection: Any, context: Any) -> Any:
            return sabotage(super().open(connection, context))

    case = dataclasses.replace(modbus_case("tcp"), connector=SabotagedType())
    with pytest.raises((AssertionError, RuntimeError, HeadraceError), match=says):
        await check(case)
    for task in TASKS:
        task.cancel()
    TASKS.clear()


class AcceptsAnything(ModbusType):
    def check_tag(self, tag: Any) -> None:
        return

    def check_connection(self, connection: Any) -> None:
        return


@pytest.mark.parametrize("check", [suite.refuses_nonsense_tags, suite.refuses_nonsense_connections])
async def test_a_check_that_refuses_nothing_is_caught(check: Any) -> None:
    case = dataclasses.replace(modbus_case("tcp"), connector=AcceptsAnything())
    with pytest.raises(AssertionError, match="is not refused"):
        await check(case)


async def test_a_module_that_needs_its_driver_is_caught() -> None:
    case = dataclasses.replace(modbus_case("tcp"), drivers=("msgspec",))
    with pytest.raises(AssertionError, match="does not load without driver"):
        await suite.imports_without_driver(case)
