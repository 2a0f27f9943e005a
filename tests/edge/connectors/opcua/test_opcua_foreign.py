"""Against a server that is not written in Python: node-opcua."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from headrace.bus.broker import free_port
from headrace.model import status as codes
from headrace.model.desired import TagConfig
from headrace.model.errors import Refused, Transient
from headrace.security import certificates

# One worker: two would install node-opcua into one folder at once.
pytestmark = [pytest.mark.foreign]

SCRIPT = Path(__file__).with_name("node_server.js")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
NODE_OPCUA = CACHE / "headrace-tests" / "node-opcua"
NAMES = ("flow", "count", "big", "on", "name", "small", "level")


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """node-opcua, installed once for this user; a skip with the reason when that cannot be."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    modules = NODE_OPCUA / "node_modules"
    if not (modules / "node-opcua").is_dir():
        NODE_OPCUA.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "node-opcua@2"]
        (NODE_OPCUA / "package.json").write_text("{}")
        try:
            done = subprocess.run(command, cwd=NODE_OPCUA, capture_output=True, timeout=120)
        except subprocess.TimeoutExpired:
            pytest.skip("npm install node-opcua did not end in 120 s")
        if done.returncode:
            pytest.skip(f"npm cannot install node-opcua: {done.stderr.decode()[-300:]}")
    loaded = subprocess.run(
        ["node", "-e", 'require("node-opcua")'],
        env={**os.environ, "NODE_PATH": str(modules)},
        capture_output=True,
        timeout=120,
    )
    if b"ERR_REQUIRE_ESM" in loaded.stderr:
        pytest.skip("this node is too old for node-opcua; 20.19 or newer can load it")
    return modules


class Foreign:
    """The running server."""

    def __init__(self, process: asyncio.subprocess.Process, endpoint: str, uri: str) -> None:
        self.process = process
        self.endpoint = endpoint
        self.uri = uri

    def order(self, **order: Any) -> None:
        """Send one order to the script."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")

    def tags(self, *names: str, **settings: Any) -> list[TagConfig]:
        """Tags 1, 2, 3... by namespace URI."""
        return [
            TagConfig(
                tag_id=i,
                path=f"area/device/{i}",
                address=f"nsu={self.uri};s=device.{name}",
                **{"scan_interval_ms": 20, **settings},
            )
            for i, name in enumerate(names, 1)
        ]


@asynccontextmanager
async def foreign(modules: Path, folder: Path, mode: str, port: int = 0) -> AsyncIterator[Foreign]:
    port = port or free_port()
    process = await asyncio.create_subprocess_exec(
        "node",
        str(SCRIPT),
        str(port),
        str(folder),
        mode,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "NODE_PATH": str(modules)},
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            while not (line := await process.stdout.readline()).startswith(b"{"):
                assert line, "node_server.js ended before it listened"
        told = json.loads(line)
        yield Foreign(process, f"opc.tcp://127.0.0.1:{port}/UA/test", told["namespace"])
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def rows(batch: pl.DataFrame, tag_id: int) -> list[tuple[Any, ...]]:
    mine = batch.filter(pl.col("tag_id") == tag_id)
    return list(
        zip(
            mine["source_timestamp"].dt.epoch("us"),
            mine["value"],
            mine["text"],
            mine["status"],
            strict=True,
        )
    )


async def test_values_status_and_times(node_modules: Path, tmp_path: Path, bench: Any) -> None:
    async with foreign(node_modules, tmp_path / "pki", "None") as server:
        tags = server.tags(*NAMES, "row[1]", "nowhere")
        connector = await bench.connect(server.endpoint)
        batch, _ = await bench.until(connector, tags, lambda b: b["tag_id"].n_unique() == 9)
        firsts = {i: rows(batch, i)[0][1:] for i in range(1, 10)}
        assert firsts[1] == (0.5, None, 0)
        assert firsts[2] == (-7.0, None, 0)
        assert firsts[3] == (2.0**32 + 1, None, 0)
        assert firsts[4] == (1.0, None, 0)
        assert firsts[5] == (None, "pump", 0)
        assert firsts[6] == (0.25, None, 0)
        assert firsts[7] == (3.5, None, 0)
        assert firsts[8] == (2.0, None, 0)
        assert firsts[9] == (None, None, codes.BAD_NODE_ID_UNKNOWN)

        at_ms = 1_700_000_000_123
        # One after the other: this server samples, so of two quick changes it may see one.
        server.order(set="flow", value=1.25, status="UncertainSensorNotAccurate", time=at_ms)
        batch, _ = await bench.until(connector, tags, lambda b: b.height == 1)
        assert rows(batch, 1) == [(at_ms * 1000, 1.25, None, codes.UNCERTAIN_SENSOR_NOT_ACCURATE)]
        server.order(set="flow", value=1.25, time=at_ms + 1)
        batch, _ = await bench.until(connector, tags, lambda b: b.height == 1)
        assert rows(batch, 1) == [(at_ms * 1000 + 1000, 1.25, None, 0)]
        server.order(set="flow", value=1.25, time=at_ms + 2)
        batch, _ = await bench.until(connector, tags, lambda b: b.height == 1)
        assert rows(batch, 1) == [(at_ms * 1000 + 2000, 1.25, None, 0)]
        server.order(set="name", value="泵", time=at_ms)
        batch, _ = await bench.until(connector, tags, lambda b: b.height == 1)
        assert rows(batch, 5) == [(at_ms * 1000, None, "泵", 0)]


async def test_polling(node_modules: Path, tmp_path: Path, bench: Any) -> None:
    async with foreign(node_modules, tmp_path / "pki", "None") as server:
        tags = server.tags(*NAMES)
        connector = await bench.connect(server.endpoint, reading="poll")
        batch, _ = await bench.until(connector, tags, lambda b: b.height >= 14)
        assert [rows(batch, i)[0][1] for i in (1, 2, 3, 4, 6, 7)] == [
            0.5,
            -7,
            2**32 + 1,
            1,
            0.25,
            3.5,
        ]


async def test_browse_and_write(node_modules: Path, tmp_path: Path, bench: Any) -> None:
    async with foreign(node_modules, tmp_path / "pki", "None") as server:
        connector = await bench.connect(server.endpoint)
        root = {item.name: item for item in await connector.browse("")}
        items = {item.name: item for item in await connector.browse(root["device"].address)}
        assert items["flow"].writable
        assert not items["row"].writable
        assert (items["row"].data_type, items["flow"].data_type) == ("Double[]", "Double")
        assert (items["level"].unit, items["level"].value) == ("m", "3.5")
        assert items["flow"].proposed_path == "device/flow"
        flow, count, big, on, name, small = server.tags(
            "flow", "count", "big", "on", "name", "small"
        )
        assert await connector.write(flow, 7.5) == 7.5
        assert await connector.write(count, -8.0) == -8.0
        assert await connector.write(big, str(2**63 + 1)) == str(2**63 + 1)
        assert await connector.write(on, 0.0) == 0.0
        assert await connector.write(name, "Ärger") == "Ärger"
        assert await connector.write(small, 0.125) == 0.125
        with pytest.raises(Refused, match="EDGE-2014"):
            await connector.write(server.tags("level")[0], 4.0)


@pytest.mark.parametrize("mode", ["Sign", "SignAndEncrypt"])
async def test_security_and_user(node_modules: Path, tmp_path: Path, bench: Any, mode: str) -> None:
    async with foreign(node_modules, tmp_path / "pki", mode) as server:
        user = {"username": "edge", "password": "secret:right"}
        with pytest.raises(Refused, match="EDGE-2006"):
            await bench.make(server.endpoint, security=mode, **user).connect()
        [entry] = certificates.list_certificates(bench.certificates)
        certificates.trust(bench.certificates, entry.thumbprint[:12])
        with pytest.raises(Refused, match="EDGE-2003"):
            await bench.make(
                server.endpoint, security=mode, username="edge", password="secret:wrong"
            ).connect()
        connector = await bench.connect(server.endpoint, security=mode, **user)
        batch, _ = await bench.until(connector, server.tags("flow"), lambda b: b.height == 1)
        assert rows(batch, 1)[0][1:] == (0.5, None, 0)


async def test_killed_server_is_noticed_and_comes_back(
    node_modules: Path, tmp_path: Path, bench: Any
) -> None:
    async with foreign(node_modules, tmp_path / "pki", "None") as server:
        port = int(server.endpoint.rpartition(":")[2].partition("/")[0])
        tags = server.tags("flow")
        connector = await bench.connect(server.endpoint)
        await bench.until(connector, tags, lambda b: b.height == 1)
        server.process.kill()
        with pytest.raises(Transient):
            await bench.until(connector, tags, lambda _: False)
    async with foreign(node_modules, tmp_path / "pki", "None", port) as server:
        again = await bench.connect(server.endpoint)
        await bench.until(again, tags, lambda b: b.height == 1)
