"""Hub and edge apart: whatever happens to the wire and to either side, all arrives, in order, once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import numpy as np
import pytest

from apart import DOOR, SUBJECTS, Apart
from headrace.bus import leaf
from headrace.bus.log import purge_log
from headrace.bus.subjects import DESIRED_BUCKET
from headrace.bus.system import Connection, System
from headrace.model.desired import EdgeConfig
from headrace.model.errors import HeadraceError, Refused
from headrace.model.folder import DataFolder
from headrace.model.health import EdgeState
from headrace.model.tasks import end_tasks
from headrace.model.time import SystemClock
from headrace.security.authority import request_certificate
from headrace.site import edges, joining
from waiting import until


async def test_cut_under_load_and_hub_killed(tmp_path: Path) -> None:
    async with Apart(tmp_path) as pair:
        await pair.publish(50)
        await pair.arrived()
        load = asyncio.create_task(pair.publish(400))
        await until(lambda: len(pair.published) > 150)
        await pair.wire.cut()
        await load
        await pair.wire.connect()
        await pair.arrived()
        load = asyncio.create_task(pair.publish(400))
        await until(lambda: len(pair.published) > 600)
        await pair.stop_hub(kill=True)
        await load
        await pair.start_hub()
        await pair.arrived()
        await pair.check_order()


async def test_desired_state_calls_and_health_go_through(tmp_path: Path) -> None:
    async with Apart(tmp_path) as pair:
        config = EdgeConfig(enterprise="acme", site="mill", edge="north")
        raw = msgspec.json.encode(config, order="sorted")
        running = EdgeState(edge="north", config_hash="old", at_us=1, started_us=1, connections=[])

        async def tell_health() -> None:
            while True:
                await pair.edge.bus.publish(SUBJECTS.edge_health("north"), running)
                await asyncio.sleep(0.1)

        telling = asyncio.create_task(tell_health())
        await pair.hub.bus.put(DESIRED_BUCKET, "edge.north", raw)
        async for got in pair.edge.bus.watch(DESIRED_BUCKET, "edge.north"):
            assert got == raw
            break
        await until(
            lambda: pair.state.edges[0].running_hash == "old", what="the hub hears the edge"
        )
        assert pair.state.edges[0].desired_hash == config.content_hash()
        running.config_hash = config.content_hash()
        await until(lambda: pair.state.edges[0].running_hash == config.content_hash())
        await end_tasks(telling)


async def test_an_edge_may_say_and_hear_only_what_is_its_own(tmp_path: Path) -> None:
    """Its broker is on a machine that others may hold in their hands."""
    async with Apart(tmp_path) as pair:
        heard: list[tuple[str, bytes]] = []
        said: list[tuple[str, bytes]] = []

        async def hear(message) -> None:  # type: ignore[no-untyped-def]
            heard.append((message.subject, message.data))

        async def take(message) -> None:  # type: ignore[no-untyped-def]
            said.append((message.subject, message.data))

        await pair.edge.bus.subscribe(">", hear)
        await pair.edge.bus.subscribe(SUBJECTS.edge_call("north", "x"), hear)
        await pair.hub.bus.subscribe("v1.>", take)
        await pair.hub.bus.subscribe("other.>", take)
        forbidden = [
            SUBJECTS.batch("local", "plc"),
            SUBJECTS.batch("north", "plc"),
            SUBJECTS.edge_health("local"),
            SUBJECTS.edge_call("local", "write"),
            "other.thing",
        ]
        for subject in forbidden:
            await pair.edge.bus.client.publish(subject, b"edge")
            await pair.hub.bus.client.publish(subject, b"hub")
        health, call = SUBJECTS.edge_health("north"), SUBJECTS.edge_call("north", "x")
        while not ((health, b"own") in said and (call, b"own") in heard):
            await pair.edge.bus.client.publish(health, b"own")
            await pair.hub.bus.client.publish(call, b"own")
            await asyncio.sleep(0.1)  # interest travels; the timeout of the test bounds it
        batch = (SUBJECTS.batch("north", "plc"), b"edge")  # sourced, not said
        assert [each for each in said if each[1] == b"edge" and each != batch] == []
        assert [each for each in heard if each[1] == b"hub"] == []


async def test_a_token_is_for_one_edge_one_hub_and_one_hour(tmp_path: Path) -> None:
    async with Apart(tmp_path) as pair:
        now_us = SystemClock().now_us()
        folder = pair.hub.folder
        with pytest.raises(Refused, match="SITE-1903"):
            pair.invite("north")
        with pytest.raises(Refused, match="SITE-1903"):
            pair.invite("local")
        secret = edges.read_token(pair.invite("south")).secret
        request = _request(tmp_path / "a")
        first = edges.redeem(folder, secret, request, ("acme", "mill"), now_us)
        again = edges.redeem(folder, secret, request, ("acme", "mill"), now_us)
        assert (first.domain, first.password) == (again.domain, again.password)
        with pytest.raises(Refused, match="SITE-1906"):
            edges.redeem(folder, secret, _request(tmp_path / "b"), ("acme", "mill"), now_us)
        late = edges.read_token(pair.invite("west")).secret
        with pytest.raises(Refused, match="SITE-1905"):
            edges.redeem(folder, late, request, ("acme", "mill"), now_us + 2 * 3_600_000_000)
        with pytest.raises(Refused, match="SEC-1902"):
            edges.redeem(folder, secret, b"nonsense", ("acme", "mill"), now_us)
        assert secret not in (folder.hub / "edges.json").read_text()


async def test_the_edge_knows_its_hub_before_it_says_the_secret(tmp_path: Path) -> None:
    async with Apart(tmp_path) as pair:
        token = edges.read_token(pair.invite("south"))
        other = msgspec.structs.replace(token, fingerprint="0" * 64)
        south = DataFolder(tmp_path / "south")
        for host, given, code in (
            (DOOR, other, "SITE-1911"),  # another hub than the token's
            ("127.0.0.4", token, "SITE-1913"),  # nobody there
        ):
            with pytest.raises(HeadraceError, match=code):
                await asyncio.to_thread(joining.join, south, host, pair.port, given)
        with pytest.raises(HeadraceError, match="SITE-1914"):
            await asyncio.to_thread(joining.join, south, "127.0.0.1", pair.hub.address.port, token)
        assert leaf.joined(south) is None
        with pytest.raises(HeadraceError, match="SITE-1912"):
            await asyncio.to_thread(joining.join, pair.edge.folder, DOOR, pair.port, token)
        await asyncio.to_thread(joining.join, south, DOOR, pair.port, token)
        assert leaf.joined(south) is not None


async def test_the_security_role_leaves_a_joined_edge_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    listed = System.connections

    async def counted(system: System) -> list[Connection]:
        found = await listed(system)
        looks.append(sum(each.is_leaf for each in found))
        return found

    monkeypatch.setattr(System, "connections", counted)
    async with Apart(tmp_path) as pair:
        (before,) = leaf.connected_leafs(pair.hub.address)
        seen = len(looks)
        await until(lambda: sum(looks[seen:]) >= 4, what="it looks four times at the edge")
        assert [each.client_id for each in leaf.connected_leafs(pair.hub.address)] == [
            before.client_id
        ]


async def test_a_removed_edge_is_cut_and_stays_out(tmp_path: Path) -> None:
    async with Apart(tmp_path) as pair:
        await pair.publish(5)
        await pair.arrived()
        edges.remove(pair.hub.folder, "north", SystemClock().now_us())
        await until(lambda: not pair.state.edges, what="the hub forgets it")

        def outside() -> bool:
            return not leaf.connected_leafs(pair.hub.address)

        await until(outside, 30, "its connection is cut")
        await pair.publish(5)
        log = pair.edge.folder.logs / "broker.log"
        await until(lambda: "Authorization Violation" in log.read_text(), 30, "it is refused")
        assert outside()
        assert len(await pair.in_hub()) == 5
        with pytest.raises(Refused, match="SITE-1907"):
            edges.remove(pair.hub.folder, "north", SystemClock().now_us())
        # It may join anew, with what it still has.
        (pair.edge.folder.edge / "joined.json").unlink()
        await pair.stop_edge()
        await pair.join()
        await pair.start_edge()
        await pair.connected()
        await pair.arrived()
        await pair.check_order()


async def test_bound_reached_stop_keeps_all_that_was_acknowledged(tmp_path: Path) -> None:
    async with Apart(tmp_path, bytes_max=2 << 20) as pair:
        await pair.publish(20, rows=500)
        await pair.arrived()
        await pair.wire.cut()
        taken = await pair.publish(500, rows=500)
        assert taken < 400
        await pair.keeper.look()
        codes = {event.code for event in pair.events}
        assert {"EDGE-1901", "EDGE-1902"} <= codes
        assert "EDGE-1903" not in codes
        await pair.wire.connect()
        await pair.arrived()
        await pair.check_order()

        async def goes_on() -> None:
            while True:
                try:
                    before = len(pair.published)
                    await pair.publish(1, rows=500)
                    if len(pair.published) > before:
                        return
                finally:
                    await asyncio.sleep(0.1)

        await asyncio.wait_for(goes_on(), 60)
        await pair.arrived()
        await pair.check_order()


async def test_hub_restored_from_an_older_copy_gets_again_what_the_edge_has(tmp_path: Path) -> None:
    async with Apart(tmp_path) as pair:
        await pair.publish(100)
        await pair.arrived()
        await pair.stop_hub()
        copy = pair.backup()
        await pair.start_hub()
        await pair.publish(100)
        await pair.arrived()
        await pair.stop_hub()
        await pair.publish(20)
        pair.restore(copy)
        await pair.start_hub()
        await pair.arrived()
        await pair.check_order()
        # What has left the edge since the hub had it is named.
        await until(lambda: pair.keeper.state().stored_sequence == 220, what="told")
        await pair.stop_hub()
        pair.restore(copy)
        await purge_log(pair.edge.bus, 150)
        await pair.keeper.look()
        await pair.start_hub()
        await pair.arrived(170)
        said = [event for event in pair.events if event.code == "EDGE-1904"]
        assert len(said) == 1
        assert "only up to 100, and had it up to 220" in said[0].text
        assert "the frames 101 to 150" in said[0].text


def _request(folder: Path) -> bytes:
    return request_certificate(folder, "edge")


async def test_packets_vanish_and_nobody_is_told(tmp_path: Path) -> None:
    async with Apart(tmp_path) as pair:
        await pair.publish(20)
        await pair.arrived()
        pair.wire.fall_silent()
        await pair.publish(50)
        await until(lambda: not pair.is_connected(), 60, "the silence is noticed")
        await pair.wire.connect()
        await pair.arrived()
        await pair.check_order()


@pytest.mark.soak
async def test_the_way_is_300_ms_long(tmp_path: Path) -> None:
    async with Apart(tmp_path) as pair:
        await pair.wire.cut()
        pair.wire.delay_s = 0.3
        await pair.wire.connect()
        await pair.publish(300)
        await pair.arrived()
        await pair.check_order()


@pytest.mark.soak
async def test_edge_killed_and_restarted_while_apart(tmp_path: Path) -> None:
    async with Apart(tmp_path) as pair:
        await pair.publish(20)
        await pair.arrived()
        await pair.wire.cut()
        await pair.publish(30)
        await pair.stop_edge(kill=True)
        await pair.start_edge()
        await pair.publish(30)
        assert pair.keeper.state().stored_sequence in (0, 20)
        await pair.wire.connect()
        await pair.arrived()
        await pair.check_order()
        await until(lambda: pair.keeper.state().unsent_frames == 0, what="the edge knows")


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))
async def test_many_troubles_at_random(tmp_path: Path, seed: int) -> None:
    chance = np.random.default_rng(seed)
    async with Apart(tmp_path) as pair:
        for _ in range(12):
            load = asyncio.create_task(pair.publish(int(chance.integers(20, 300))))
            trouble = chance.choice(["cut", "silent", "hub", "hub_stop", "edge"])
            await asyncio.sleep(float(chance.uniform(0, 0.5)))
            if trouble == "edge":
                await load
                await pair.stop_edge(kill=True)
                await pair.start_edge()
            elif trouble in ("hub", "hub_stop"):
                await pair.stop_hub(kill=trouble == "hub")
                await load
                await pair.start_hub()
            elif trouble == "cut":
                await pair.wire.cut()
                await load
                await pair.wire.connect()
            else:
                pair.wire.fall_silent()
                await load
                await until(lambda: not pair.is_connected(), 60, "the silence is noticed")
                await pair.wire.connect()
        await pair.arrived(timeout_s=90)
        await pair.check_order()
