"""Connections to the hosts that a manifest names: real servers, one named and one not."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest
from site_runtime import runtime, site

from headrace.apps.runtime.outside import Doorman, Outside
from headrace.bus.broker import free_port
from headrace.model.errors import HeadraceError
from headrace.model.tasks import end_tasks
from headrace.model.time import SystemClock

ASKS = """
import http.client
import socket
import urllib.request

import httpx
from headrace import app

def told(what):
    try:
        return what()
    except OSError as error:
        return type(error).__name__

@app.on_window("pump", length="2 s", every="1 s", step="500 ms", lateness="500 ms")
def watch(window):
    named, other = NAMED, OTHER
    found = {
        "urllib": told(lambda: urllib.request.urlopen(f"http://127.0.0.1:{named}/", timeout=9).status),
        "httpx": told(lambda: httpx.get(f"http://127.0.0.1:{named}/", trust_env=False).status_code),
        "socket": told(lambda: socket.socket()),
        "udp": told(lambda: socket.socket(type=socket.SOCK_DGRAM)),
        "unix": told(lambda: socket.socket(socket.AF_UNIX)),
        "again": told(lambda: again(named, other)),
        "name": told(lambda: socket.getaddrinfo("example.org", 80)),
    }
    window.log.info("found %s", found)
    if window.state.setdefault("n", 0) == 1:
        told(lambda: http.client.HTTPConnection("127.0.0.1", other).connect())
    window.state["n"] += 1

def again(named, other):
    made = socket.create_connection(("127.0.0.1", named))
    made.connect(("127.0.0.1", other))
"""


@asynccontextmanager
async def server():
    """An HTTP server that counts who came; gives (port, visits)."""
    visits: list[bytes] = []

    async def serve(reader, writer) -> None:
        visits.append(b"")
        try:
            visits[-1] = await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
        except (OSError, EOFError):
            return
        finally:
            writer.close()

    port = free_port()
    running = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield port, visits
    finally:
        running.close()
        await running.wait_closed()


@pytest.fixture
async def plant(folder, broker):
    async with site(folder, broker) as made:
        yield made


async def test_an_app_reaches_the_host_it_names_and_is_stopped_at_another(plant):
    """It swallows the refusal of the other, and is stopped all the same; nobody came there."""
    async with server() as (named, visits), server() as (other, others), runtime(plant):
        source = ASKS.replace("NAMED", str(named)).replace("OTHER", str(other))
        network = f'[permissions]\nnetwork = ["127.0.0.1:{named}"]\n'
        await plant.install(source, network, "asks-outside")
        await plant.sample(5.0, SystemClock().now_us())
        state = await plant.state(lambda s: s.state == "stopped", "asks_outside")
        assert state.last_error_code == "APPS-2283" and f":{other}" in state.last_error
        assert (await plant.event("APPS-2283", "asks_outside")).severity == "error"
        said = next(line for line in state.log if "found" in line)
        refused = "'{}': 'PermissionError'"
        for name in ("socket", "udp", "unix", "again"):
            assert refused.format(name) in said, said
        assert "'urllib': 200" in said and "'httpx': 200" in said and "'name': 'gaierror'" in said
        assert len(visits) >= 2 and others == []


async def test_the_doorman_opens_what_is_named_and_nothing_else():
    """By name, case and dot aside; what is named and not there is an error of its own."""
    refused: list[HeadraceError] = []
    ours, its = socket.socketpair()
    gone = free_port()
    async with server() as (named, visits), server() as (other, others):
        network = [f"localhost:{named}", f"127.0.0.1:{gone}"]
        serving = asyncio.create_task(Doorman("asks-outside", network, refused.append).serve(ours))
        outside = Outside(its)

        async def connect(host: str, port: int) -> socket.socket:
            return await asyncio.to_thread(outside.connect, (host, port), 5)

        for host in ("localhost", "LOCALHOST."):
            with await connect(host, named) as made:
                assert made.gettimeout() == 5 and made.getpeername()[1] == named
        assert refused == []
        with pytest.raises(ConnectionError, match=str(gone)):
            await connect("127.0.0.1", gone)
        for place in (("localhost", other), ("127.0.0.1", named), ("example.org", named)):
            with pytest.raises(PermissionError, match="does not name"):
                await connect(*place)
        assert [error.code for error in refused] == ["APPS-2283"] * 3 and others == []
        its.sendall(b"{no json\n")
        assert b"nobody understands" in await asyncio.to_thread(its.recv, 4_096)
        its.sendall(b"x" * 2_000)
        assert await asyncio.to_thread(its.recv, 10) == b""  # who asks without end is cut off
        its.close()
        await end_tasks(serving)
    assert len(visits) == 2
