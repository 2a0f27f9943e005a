"""The connector against a real pymodbus server: cuts, statuses, clocks, records, writes, browsing."""

from __future__ import annotations

import asyncio
from typing import Any

import polars as pl
import pytest
from modbus_rig import by_address, connected, connection, group, tag

from headrace.edge.connectors.modbus import CONNECTOR
from headrace.model import status as codes
from headrace.model.errors import Misconfigured, Refused, Transient
from headrace.model.time import ManualClock
from headrace.sim.emulators import Point
from headrace.sim.emulators.modbus import ModbusEmulator


async def device(*addresses: str, **settings: Any) -> ModbusEmulator:
    """A started emulator of writable points."""
    emulator = ModbusEmulator(
        [Point(each, initial=0, writable=True) for each in addresses], **settings
    )
    await emulator.start()
    return emulator


async def test_a_refused_block_is_cut_once_and_merged_again_later() -> None:
    emulator = await device(*(f"holding:{at}" for at in range(20)))
    clock = ManualClock()
    asked = group(*(f"holding:{at}" for at in range(24)))
    requests = 0
    ask = emulator.async_getValues

    async def counted(*arguments: Any) -> Any:
        nonlocal requests
        requests += 1
        return await ask(*arguments)

    emulator.async_getValues = counted  # type: ignore[method-assign]
    async with connected(emulator.endpoint, clock) as connector:
        reading = await connector.read(asked)
        assert [notice[0] for notice in reading.notices] == ["EDGE-3011"]
        assert sorted(reading.tag_errors) == [21, 22, 23, 24]
        assert "'illegal data address' (Modbus exception 2)" in reading.tag_errors[21]
        good = reading.batch.filter(pl.col("status") == 0)["tag_id"].to_list()
        assert good == list(range(1, 21))
        requests = 0
        again = await connector.read(asked)
        assert sorted(again.tag_errors) == [21, 22, 23, 24], "what is skipped is still reported"
        assert requests <= 4 and not again.notices, "the cut is remembered"
        assert again.batch.filter(pl.col("status") == codes.BAD_NODE_ID_UNKNOWN).height == 4

        clock.advance_us(61_000_000)
        tried = await connector.read(asked)
        assert sorted(tried.tag_errors) == [21, 22, 23, 24]
        assert not tried.notices, "a cut that is known is no news"

        for at in range(20, 24):  # the device gets its missing registers
            emulator._add(Point(f"holding:{at}", initial=at))
        clock.advance_us(61_000_000)
        requests = 0
        whole = await connector.read(asked)
        assert requests == 1 and not whole.tag_errors
        assert whole.batch["value"].to_list()[20:] == [20.0, 21.0, 22.0, 23.0]
    await emulator.stop()


async def test_a_connection_of_wrong_tags_only_costs_one_request_and_still_sees_its_death() -> None:
    emulator = await device("holding:0")
    asked = group(*(f"holding:{at}" for at in range(500, 520)))
    requests = 0
    ask = emulator.async_getValues

    async def counted(*arguments: Any) -> Any:
        nonlocal requests
        requests += 1
        return await ask(*arguments)

    emulator.async_getValues = counted  # type: ignore[method-assign]
    async with connected(emulator.endpoint) as connector:
        for _ in range(3):
            requests = 0
            assert len((await connector.read(asked)).tag_errors) == 20
        assert requests == 1
        await emulator.stop()
        with pytest.raises(Transient):
            await connector.read(asked)


async def test_a_point_that_breaks_and_heals_spoils_no_other() -> None:
    emulator = await device("holding:0", "holding:1:int32", "holding:3")
    asked = group("holding:0", "holding:1:int32", "holding:3")
    async with connected(emulator.endpoint) as connector:
        await emulator.update({"holding:0": 1, "holding:3": 3}, 1, {"holding:1:int32": codes.BAD})
        shown = by_address(await connector.read(asked), asked)
        assert shown["holding:1:int32"] == (None, None, codes.BAD_DEVICE_FAILURE)
        assert shown["holding:0"] == (1.0, None, 0) and shown["holding:3"] == (3.0, None, 0)
        await emulator.update({"holding:1:int32": -7}, 2)
        shown = by_address(await connector.read(asked), asked)
        assert shown["holding:1:int32"] == (-7.0, None, 0), "it is good at the very next poll"
    await emulator.stop()


async def test_an_absent_unit_behind_a_gateway_is_a_matter_of_its_tags() -> None:
    emulator = await device("1/holding:0")
    asked = group("1/holding:0", "9/holding:0")
    async with connected(emulator.endpoint) as connector:
        shown = by_address(await connector.read(asked), asked)
    assert shown["1/holding:0"][2] == 0
    assert shown["9/holding:0"] == (None, None, codes.BAD_NOT_CONNECTED)
    await emulator.stop()


async def test_a_tag_with_a_wrong_address_is_bad_and_told() -> None:
    emulator = await device("holding:0")
    asked = group("holding:0", "holding:zero")
    async with connected(emulator.endpoint) as connector:
        reading = await connector.read(asked)
    assert by_address(reading, asked)["holding:zero"] == (None, None, codes.BAD_CONFIGURATION_ERROR)
    assert "EDGE-3050" in reading.tag_errors[2] and reading.expected == 2
    await emulator.stop()


async def test_forbidden_registers_are_never_touched() -> None:
    emulator = await device("holding:0", "holding:4", "holding:2")
    touched: list[range] = []
    ask = emulator.async_getValues

    async def noted(unit: int, function: int, address: int, count: int = 1) -> Any:
        touched.append(range(address, address + count))
        return await ask(unit, function, address, count)

    emulator.async_getValues = noted  # type: ignore[method-assign]
    asked = group("holding:0", "holding:4")
    async with connected(emulator.endpoint, forbidden=["holding:2-3"]) as connector:
        reading = await connector.read(asked)
    assert not reading.tag_errors
    assert not any(2 in each or 3 in each for each in touched)
    await emulator.stop()


@pytest.mark.parametrize("tick", ["us", "ms", "s"])
async def test_the_devices_clock_is_the_source_timestamp(tick: str) -> None:
    clock = f"holding:10:uint64@{tick}"
    emulator = await device("holding:0:float64", timestamp=clock)
    at_us = 1_514_764_800_000_000
    asked = group("holding:0:float64")
    async with connected(emulator.endpoint, timestamp=clock) as connector:
        await emulator.update({"holding:0:float64": 1.5}, at_us)
        reading = await connector.read(asked)
    assert reading.batch["source_timestamp"].to_physical().to_list() == [at_us]
    assert reading.device_time_us == at_us and reading.expected == 1
    await emulator.stop()


async def test_a_clock_that_was_never_set_makes_values_uncertain_not_wrong() -> None:
    emulator = await device("holding:0", "holding:10:uint64")
    async with connected(emulator.endpoint, timestamp="holding:10:uint64@us") as connector:
        reading = await connector.read(group("holding:0"))
    assert reading.batch["status"].to_list() == [codes.UNCERTAIN]
    assert reading.device_time_us is None
    assert [notice[0] for notice in reading.notices] == ["EDGE-3013"]
    await emulator.stop()


async def test_a_clock_that_moves_between_the_parts_of_a_cut_block_is_noticed() -> None:
    emulator = await device("holding:0", timestamp="holding:10:uint64@us")
    asked = group("holding:0", "holding:2")  # holding:2 does not exist: the block must be cut
    async with connected(emulator.endpoint, timestamp="holding:10:uint64@us") as connector:
        await emulator.update({"holding:0": 5}, 1_000_000)
        shown = by_address(await connector.read(asked), asked)
        assert shown["holding:0"] == (5.0, None, codes.GOOD), "the clock stood still"
        ask = emulator.async_getValues
        ticks = 2_000_000

        async def racing(*arguments: Any) -> Any:
            nonlocal ticks
            ticks += 1_000
            await emulator.update({"holding:0": 6}, ticks)
            return await ask(*arguments)

        emulator.async_getValues = racing  # type: ignore[method-assign]
        shown = by_address(await connector.read(asked), asked)
        assert shown["holding:0"][2] == codes.UNCERTAIN
    await emulator.stop()


def test_what_cannot_be_read_with_its_clock_is_refused() -> None:
    clock = {"timestamp": "holding:0:uint64@us"}
    CONNECTOR.check_connection(connection("plc:502", clock, ["holding:100", "holding:4:float32"]))
    for address in ("holding:125", "input:4", "2/holding:4", "coil:1"):
        with pytest.raises(Misconfigured, match="one request with the timestamp") as caught:
            CONNECTOR.check_connection(connection("plc:502", clock, [address]))
        assert caught.value.code == "EDGE-3053"


RECORDS = {
    "record_sequence": "holding:100:uint16",
    "record_acknowledge": "holding:101:uint16",
    "timestamp": "holding:102:uint64@us",
}


async def test_a_record_is_given_once_and_kept_until_it_is_durable() -> None:
    emulator = await device("holding:0", **RECORDS)
    asked = group("holding:0")
    async with connected(emulator.endpoint, **RECORDS) as connector:
        nothing = await connector.read(asked)
        assert (nothing.batch.height, nothing.expected) == (0, 0), "no record yet"
        await emulator.update({"holding:0": 42}, 1_000_000)
        first = await connector.read(asked)
        assert first.batch["value"].to_list() == [42.0]
        assert (await connector.read(asked)).batch.height == 0, "not given twice"
        assert emulator.acknowledged == 0, "nothing is acknowledged before it is durable"
    # The edge dies here, before the batch was durable; the next one reads the record again.
    async with connected(emulator.endpoint, **RECORDS) as connector:
        again = await connector.read(asked)
        assert again.batch.select("value", "source_timestamp").equals(
            first.batch.select("value", "source_timestamp")
        )
        assert again.acknowledge is not None
        await again.acknowledge()
        await emulator.wait_acknowledged(emulator.sequence, 1.0)
        assert (await connector.read(asked)).batch.height == 0
    await emulator.stop()


async def test_a_lost_acknowledgement_is_written_again() -> None:
    emulator = await device("holding:0", **RECORDS)
    asked = group("holding:0")
    async with connected(emulator.endpoint, **RECORDS) as connector:
        await emulator.update({"holding:0": 1}, 1_000_000)
        reading = await connector.read(asked)
        take = emulator.async_setValues

        async def refuse(*_: Any) -> Any:
            return 6

        emulator.async_setValues = refuse  # type: ignore[method-assign]
        assert reading.acknowledge is not None
        with pytest.raises(Refused, match="server device busy"):
            await reading.acknowledge()
        emulator.async_setValues = take  # type: ignore[method-assign]
        assert (await connector.read(asked)).batch.height == 0
        await emulator.wait_acknowledged(emulator.sequence, 1.0)
    await emulator.stop()


def test_records_need_one_scan_interval() -> None:
    good = connection("plc:502", RECORDS, ["holding:0", "holding:1"])
    CONNECTOR.check_connection(good)
    one, two = good.tags
    slow = type(two)(tag_id=9, path="a/b", address="holding:2", scan_interval_ms=5000)
    mixed = type(good)(
        name="plc", protocol="modbus", endpoint="plc", options=good.options, tags=(one, slow)
    )
    with pytest.raises(Misconfigured, match=r"scan intervals \[1000, 5000\]"):
        CONNECTOR.check_connection(mixed)


@pytest.mark.parametrize("many", [False, True])
async def test_writes_of_every_kind(many: bool) -> None:
    emulator = await device(
        "coil:0",
        "holding:0:int16:DCBA",
        "holding:1:uint64:CDAB",
        "holding:5:string5",
        "holding:8:bit15",
    )
    written: list[tuple[str, Any]] = []
    emulator._on_write = lambda address, value: written.append((address, value))
    wanted: list[tuple[str, float | str, Any]] = [
        ("coil:0", 1.0, True),
        ("holding:0:int16:DCBA", -2.0, -2),
        ("holding:1:uint64:CDAB", str(2**64 - 1), 2**64 - 1),
        ("holding:5:string5", "press", "press"),
        ("holding:8:bit15", 1.0, True),
    ]
    async with connected(emulator.endpoint, write_multiple_only=many) as connector:
        for address, value, _ in wanted:
            assert await connector.write(tag(address), value) == value
        assert written == [(address, shown) for address, _, shown in wanted]
        await connector.write(tag("holding:8:bit3"), 1.0)
        await connector.write(tag("holding:8:bit15"), 0.0)
        assert emulator._memories[(1, "holding")].values[8] == 8, "other bits stay as they are"
    await emulator.stop()


async def test_a_device_without_mask_write_needs_the_option() -> None:
    emulator = await device("holding:0")
    take = emulator.async_setValues

    async def no_mask(unit: int, function: int, address: int, values: Any) -> Any:
        return 1 if function == 22 else await take(unit, function, address, values)

    emulator.async_setValues = no_mask  # type: ignore[method-assign]
    await emulator.update({"holding:0": 6}, 1)
    async with connected(emulator.endpoint) as connector:
        with pytest.raises(Refused, match="illegal function") as caught:
            await connector.write(tag("holding:0:bit0"), 1.0)
        assert "read_modify_write" in caught.value.remedy
    async with connected(emulator.endpoint, bit_write="read_modify_write") as connector:
        assert await connector.write(tag("holding:0:bit0"), 1.0) == 1.0
    assert emulator._memories[(1, "holding")].values[0] == 7
    await emulator.stop()


async def test_a_device_that_limits_a_value_refuses_it() -> None:
    emulator = await device("holding:0")
    take = emulator.async_setValues

    async def limited(unit: int, function: int, address: int, values: list[int]) -> Any:
        return await take(unit, function, address, [min(each, 100) for each in values])

    emulator.async_setValues = limited  # type: ignore[method-assign]
    async with connected(emulator.endpoint) as connector:
        with pytest.raises((Refused, Transient)) as caught:
            await connector.write(tag("holding:0"), 200.0)
        assert caught.value.code in ("EDGE-3031", "EDGE-3034")
        assert await connector.write(tag("holding:0"), 100.0) == 100.0
    await emulator.stop()


async def test_a_write_that_is_not_answered_says_that_nobody_knows() -> None:
    emulator = await device("holding:0")
    async with connected(emulator.endpoint, timeout_s=0.1) as connector:
        emulator.delay_s = 30.0
        with pytest.raises(Transient, match="whether it was written is unknown"):
            await connector.write(tag("holding:0"), 1.0)
    await emulator.stop()


async def test_browsing_proposes_and_does_not_decide() -> None:
    emulator = await device("holding:0:float32:CDAB", "holding:2", "input:5", "coil:7")
    await emulator.update({"holding:0:float32:CDAB": 20.5, "holding:2": 3}, 1)
    async with connected(emulator.endpoint) as connector:
        root = await connector.browse("")
        assert [item.address for item in root] == [
            "coil:0-998",
            "discrete:0-998",
            "input:0-198",
            "holding:0-198",
        ]
        items = {item.address: item for item in await connector.browse("holding:0-198")}
        assert items["holding:2"].value == "3" and "raw" in items["holding:2"].name
        best = items["holding:0:float32:CDAB"]
        assert best.value == "20.5" and "plausibility" in best.name
        assert items["holding:0"].value == "0", "the raw registers stay on show"
        assert items["holding:199-397"].folder
        (further,) = await connector.browse("holding:1000-1100")
        assert further.folder and further.address == "holding:1101-1299"
        assert next(item.address for item in await connector.browse("coil:7-7")) == "coil:7"
        with pytest.raises(Misconfigured, match="500 places"):
            await connector.browse("holding:0-499")
    await emulator.stop()


async def test_modicon_addresses_work_from_end_to_end() -> None:
    emulator = await device("40001:float32", "30010", addressing="modicon")
    await emulator.update({"40001:float32": 2.5, "30010": 9}, 1)
    asked = group("40001:float32", "30010")
    async with connected(emulator.endpoint, addressing="modicon") as connector:
        shown = by_address(await connector.read(asked), asked)
        assert shown == {"40001:float32": (2.5, None, 0), "30010": (9.0, None, 0)}
        addresses = [item.address for item in await connector.browse("40001-40010")]
        assert "40001:float32" in addresses
    await emulator.stop()


async def test_reads_and_writes_at_once_do_not_mix_on_a_serial_line() -> None:
    emulator = await device("holding:0", "holding:1", framing="rtu_over_tcp")
    async with connected(emulator.endpoint, framing="rtu_over_tcp") as connector:
        for value in range(1, 20):
            _, got = await asyncio.gather(
                connector.read(group("holding:1")), connector.write(tag("holding:0"), value)
            )
            assert got == value
    await emulator.stop()
