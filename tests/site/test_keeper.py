"""The keeper against a real broker: what is accepted, what is refused, who follows."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from site_bench_connector import SITE

from headrace.bus.broker import prepare_address, start_broker, stop_broker
from headrace.bus.client import Bus, ensure_streams, open_bus
from headrace.bus.subjects import DESIRED_BUCKET, EVENTS_STREAM, Subjects
from headrace.model.desired import EdgeConfig, HistorianConfig
from headrace.model.folder import DataFolder
from headrace.model.health import EdgeState, Event
from headrace.model.time import ManualClock
from headrace.site.keeper import Keeper, SiteState, run
from headrace.site.registry import Registry
from headrace.site.writing import versions

SUBJECTS = Subjects("acme", "mill")


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Bus]:
    folder = DataFolder(tmp_path)
    address = prepare_address(folder)
    process = start_broker(folder, address, sync_interval="2m")
    try:
        async with open_bus(address, "test") as opened:
            await ensure_streams(opened)
            yield opened
    finally:
        stop_broker(process)


async def until(check: Callable[[], Awaitable[Any]], timeout_s: float = 15.0) -> Any:
    async with asyncio.timeout(timeout_s):
        while True:
            found = await check()
            if found:
                return found
            await asyncio.sleep(0.02)


async def edge_config(bus: Bus, edge: str = "local") -> EdgeConfig | None:
    value = await bus.get(DESIRED_BUCKET, f"edge.{edge}")
    return msgspec.json.decode(value, type=EdgeConfig) if value else None


async def state(bus: Bus) -> SiteState:
    value = await bus.get(DESIRED_BUCKET, "site_state")
    return msgspec.json.decode(value, type=SiteState) if value else SiteState()


async def event_codes(bus: Bus) -> list[str]:
    info = await bus.stream.stream_info(EVENTS_STREAM)
    messages = [
        await bus.stream.get_msg(EVENTS_STREAM, seq) for seq in range(1, info.state.messages + 1)
    ]
    return [msgspec.json.decode(message.data or b"", type=Event).code for message in messages]


async def test_from_file_to_desired_state_and_through_an_error(site_folder: Path, bus: Bus) -> None:
    stop = asyncio.Event()
    keeper = asyncio.create_task(run(DataFolder(site_folder), bus, stop))
    try:
        config = await until(lambda: edge_config(bus))
        (plc,) = config.connections
        ids = Registry.of(DataFolder(site_folder)).ids()
        assert {tag.path: tag.tag_id for tag in plc.tags} == ids
        historian = msgspec.json.decode(
            await bus.get(DESIRED_BUCKET, "historian") or b"", type=HistorianConfig
        )
        assert historian.groups["waveforms"].retention_days == 7
        vibration = ids["utilities/pumping/pump_1/vibration"]
        assert historian.tag_groups == {vibration: "waveforms"}

        (site_folder / "site.toml").write_text(SITE.replace('"plc"', '"plcx"', 1), "utf-8")
        await until(lambda: _problems(bus))
        (problem,) = await _problems(bus)
        assert (problem["line"], problem["code"]) == (28, "SITE-1009")
        assert await edge_config(bus) == config, "the last good state stays"
        assert "SITE-1301" in await until(lambda: _with(bus, "SITE-1301"))

        mended = SITE.replace('endpoint = "127.0.0.1:1502"', 'endpoint = "127.0.0.1:1503"')
        (site_folder / "site.toml").write_text(mended, "utf-8")
        await until(lambda: _endpoint(bus, "127.0.0.1:1503"))
        await until(lambda: _with(bus, "SITE-1302"))
        assert await _problems(bus) == []
        assert len(versions(DataFolder(site_folder))) == 2, "only what was accepted is kept"
    finally:
        stop.set()
        await asyncio.wait_for(keeper, 5)


async def _problems(bus: Bus) -> Any:
    return msgspec.json.decode(await bus.get(DESIRED_BUCKET, "site_errors") or b"[]")


async def _with(bus: Bus, code: str) -> list[str]:
    codes = await event_codes(bus)
    return codes if code in codes else []


async def _endpoint(bus: Bus, endpoint: str) -> bool:
    config = await edge_config(bus)
    return config is not None and config.connections[0].endpoint == endpoint


async def test_an_edge_that_does_not_follow_is_said_once(site_folder: Path, bus: Bus) -> None:
    clock = ManualClock()
    folder = DataFolder(site_folder)
    keeper = Keeper(folder, Registry.of(folder), clock)
    assert keeper.look() and not keeper.look()
    await keeper.send(bus)
    clock.advance_us(9_000_000)
    keeper.judge()
    assert [event.code for event in keeper.events] == []
    clock.advance_us(2_000_000)
    keeper.judge()
    keeper.judge()
    assert [event.code for event in keeper.events] == ["SITE-1304"]
    config = await edge_config(bus)
    assert config is not None
    running = EdgeState(
        edge="local", config_hash=config.content_hash(), at_us=0, started_us=0, connections=[]
    )
    keeper.hear(running)
    keeper.judge()
    assert [event.code for event in keeper.events] == ["SITE-1304", "SITE-1305"]
    await keeper.send(bus)
    assert (await state(bus)).edges["local"].follows
    assert (await event_codes(bus))[-2:] == ["SITE-1304", "SITE-1305"]


async def test_unchanged_content_is_not_put_again(site_folder: Path, bus: Bus) -> None:
    folder = DataFolder(site_folder)
    keeper = Keeper(folder, Registry.of(folder), ManualClock())
    keeper.look()
    await keeper.send(bus)
    store = await bus.key_value(DESIRED_BUCKET)
    before = (await store.get("edge.local")).revision
    (site_folder / "site.toml").write_text(SITE + "\n# a remark\n", "utf-8")
    assert keeper.look()
    await keeper.send(bus)
    assert (await store.get("edge.local")).revision == before
    again = Keeper(folder, Registry.of(folder), ManualClock())
    assert again.look()
    await again.send(bus)
    assert (await store.get("edge.local")).revision == before, "a restart changes nothing either"


async def test_an_edge_without_connections_is_told_to_run_nothing(
    site_folder: Path, bus: Bus
) -> None:
    folder = DataFolder(site_folder)
    keeper = Keeper(folder, Registry.of(folder), ManualClock())
    keeper.look()
    moved = SITE.replace("options = { unit_id = 1 }", 'edge = "north"')
    (site_folder / "site.toml").write_text(moved, "utf-8")
    keeper.look()
    await keeper.send(bus)
    north, local = await edge_config(bus, "north"), await edge_config(bus)
    assert north is not None and [each.name for each in north.connections] == ["plc"]
    assert local is not None and local.connections == ()


async def test_a_long_list_of_tags_goes_through_the_bus(site_folder: Path, bus: Bus) -> None:
    """More than the broker's 8 MB in one message, as 30,000 tags and more at one edge would be."""
    folder = DataFolder(site_folder)
    text = SITE.replace('time_zone = "Europe/Berlin"', 'tag_files = ["tags.csv"]')
    (site_folder / "site.toml").write_text(text, "utf-8")
    digits = "0123456789" * 400
    rows = "".join(f"area/t_{number},plc,register:{digits}{number}\n" for number in range(3_000))
    (site_folder / "tags.csv").write_text(f"path,connection,address\n{rows}")
    keeper = Keeper(folder, Registry.of(folder), ManualClock())
    assert keeper.look() and keeper.problems == []
    assert len(keeper.pending["edge.local"]) > 8 << 20
    await keeper.send(bus)
    config = await edge_config(bus)
    assert config is not None and len(config.connections[0].tags) == 3_002
    assert keeper.pending == {}


async def test_what_the_broker_cannot_take_is_said(site_folder: Path, bus: Bus) -> None:
    folder = DataFolder(site_folder)
    keeper = Keeper(folder, Registry.of(folder), ManualClock())
    keeper.look()
    keeper.events.clear()
    keeper.pending["edge.local"] = os.urandom(9 << 20)
    await keeper.send(bus)
    assert keeper.pending == {}
    assert "BUS-1028" in await event_codes(bus)


def test_tag_files_are_watched_too(site_folder: Path) -> None:
    folder = DataFolder(site_folder)
    text = SITE.replace('time_zone = "Europe/Berlin"', 'tag_files = ["tags.csv"]')
    (site_folder / "site.toml").write_text(text, "utf-8")
    keeper = Keeper(folder, Registry.of(folder), ManualClock())
    assert keeper.look()
    assert [problem.code for problem in keeper.problems] == ["SITE-1001"]
    header = "path,connection,address\n"
    (site_folder / "tags.csv").write_text(header + "a/x,plc,register:7\n")
    assert keeper.look() and keeper.problems == []
    (site_folder / "tags.csv").write_text(header + "a/y,plc,register:7\n")
    keeper.look()
    assert "a/y" in keeper.registry.ids() and "a/x" not in keeper.registry.ids()


def test_a_refusing_registry_is_a_problem_of_the_file(site_folder: Path) -> None:
    folder = DataFolder(site_folder)
    keeper = Keeper(folder, Registry.of(folder), ManualClock())
    keeper.look()
    (site_folder / "site.toml").write_text(SITE.replace('"mill"', '"other"'), "utf-8")
    keeper.look()
    assert [problem.code for problem in keeper.problems] == ["SITE-1103"]
    assert len(keeper.registry.ids()) == 2
