"""Modbus reads: ours against pymodbus's asyncio client and libmodbus in C, one server, one run.

Each read is 125 holding registers. Figures of ours: ``poll``, the connector's normal work (16 blocks a
poll, as many requests in flight as the device has proven to bear, decoded, with statuses and times, as a
batch of 2,000 samples); ``one_by_one``, the same for a device that bears one request at a time;
``single``, a poll of one block; ``registers``, the session alone one by one, as numpy arrays, which is
what the peers do: they give plain lists of integers. Rounds are
interleaved, so that all meet the same load of the machine; the median round counts. Calls per second
hang on the machine's wake-ups as much as on the client; CPU per register does not.

Run: ``python bench/connector_modbus.py [rounds]``; prints one JSON line.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import ctypes.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
from pymodbus.client import AsyncModbusTcpClient

from headrace.edge.connectors.modbus import CONNECTOR
from headrace.edge.connectors.modbus.protocol import Request, read_request
from headrace.edge.contract import ConnectorContext, ScanGroup
from headrace.model.desired import ConnectionConfig, TagConfig
from headrace.model.time import SystemClock
from headrace.sim.emulators import Point
from headrace.sim.emulators.modbus import ModbusEmulator

SOURCE = (
    Path(__file__)
    .resolve()
    .parent.parent.joinpath("tests", "edge", "connectors", "modbus", "libmodbus_server.c")
)
REGISTERS = 125
BLOCKS = 16
Work = Callable[[], Awaitable[int]]


@contextlib.asynccontextmanager
async def server() -> AsyncIterator[tuple[str, str]]:
    """(endpoint, what it is): libmodbus in its own process, else pymodbus in ours."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "server"
        flags = ["-O2", "-I/usr/include/modbus", "-o", str(program), str(SOURCE), "-lmodbus"]
        made = await asyncio.create_subprocess_exec("gcc", *flags, stderr=subprocess.DEVNULL)
        if await made.wait() == 0:
            process = await asyncio.create_subprocess_exec(
                str(program), stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            assert process.stdout is not None
            port = int(await process.stdout.readline())
            yield f"127.0.0.1:{port}", "libmodbus server (C)"
            process.terminate()
            await process.wait()
            return
    device = ModbusEmulator([Point(f"holding:{at}") for at in range(REGISTERS * BLOCKS)])
    await device.start()
    yield device.endpoint, "pymodbus server (same process)"
    await device.stop()


def our_work(endpoint: str, blocks: int, in_flight: int) -> tuple[Any, Work]:
    """Our connector, and one poll of it."""
    tags = tuple(
        TagConfig(tag_id=at + 1, path=f"a/tag_{at}", address=f"holding:{at}")
        for at in range(REGISTERS * blocks)
    )
    group = ScanGroup(1000, tags)
    connection = ConnectionConfig(
        name="bench",
        protocol="modbus",
        endpoint=endpoint,
        options={"requests_in_flight": in_flight},
        tags=tags,
    )
    context = ConnectorContext(clock=SystemClock(), certificates=Path(), secret=str)
    connector = CONNECTOR.open(connection, context)

    async def poll() -> int:
        reading = await connector.read(group)
        assert reading.batch.height == REGISTERS * blocks and not reading.tag_errors
        return blocks

    return connector, poll


def session_work(connector: Any) -> Work:
    """As many reads as our poll, by our session alone."""
    requests = [
        Request(1, read_request("holding", REGISTERS * block, REGISTERS)) for block in range(BLOCKS)
    ]

    async def poll() -> int:
        for answer in await (await connector._line.session()).exchange(requests):
            assert len(np.frombuffer(answer.pdu, ">u2", offset=2)) == REGISTERS
        return BLOCKS

    return poll


def pymodbus_work(client: Any) -> Work:
    """As many reads as our poll, by pymodbus."""

    async def poll() -> int:
        for block in range(BLOCKS):
            answer = await client.read_holding_registers(REGISTERS * block, count=REGISTERS)
            assert len(answer.registers) == REGISTERS
        return BLOCKS

    return poll


def libmodbus_work(endpoint: str) -> Work | None:
    """The same by libmodbus in C, called through ctypes; None when it is not installed."""
    name = ctypes.util.find_library("modbus")
    if name is None:
        return None
    library = ctypes.CDLL(name)
    library.modbus_new_tcp.restype = ctypes.c_void_p
    host, port = endpoint.rsplit(":", 1)
    context = ctypes.c_void_p(library.modbus_new_tcp(host.encode(), int(port)))
    assert library.modbus_connect(context) == 0
    room = (ctypes.c_uint16 * REGISTERS)()

    async def poll() -> int:
        for block in range(BLOCKS):
            read = library.modbus_read_registers(context, REGISTERS * block, REGISTERS, room)
            assert read == REGISTERS and len(list(room)) == REGISTERS
        return BLOCKS

    return poll


async def measure(work: Work, seconds: float) -> tuple[float, float]:
    """(reads a second, CPU seconds a million registers) of one round."""
    calls = 0
    start, cpu = time.perf_counter(), time.process_time()
    while (elapsed := time.perf_counter() - start) < seconds:
        calls += await work()
    used = time.process_time() - cpu
    return calls / elapsed, used / (calls * REGISTERS) * 1e6


async def main(rounds: int) -> dict[str, Any]:
    """All figures of one run."""
    async with server() as (endpoint, peer_server):
        host, port = endpoint.rsplit(":", 1)
        client = AsyncModbusTcpClient(host, port=int(port))
        assert await client.connect()
        works: dict[str, Work] = {"pymodbus": pymodbus_work(client)}
        connectors = []
        for name, blocks, in_flight in (
            ("poll", BLOCKS, 0),
            ("one_by_one", BLOCKS, 1),
            ("single", 1, 1),
        ):
            connector, works[name] = our_work(endpoint, blocks, in_flight)
            await connector.connect()
            connectors.append(connector)
        works["registers"] = session_work(connectors[1])
        if native := libmodbus_work(endpoint):
            works["libmodbus"] = native
        figures: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
        for number in range(rounds + 1):
            for name, work in works.items():
                figure = await measure(work, 0.5)
                if number:  # the first round warms up
                    figures[name].append(figure)
        for connector in connectors:
            await connector.close()
        client.close()
    rate = {name: statistics.median(each[0] for each in found) for name, found in figures.items()}
    cpu = {name: statistics.median(each[1] for each in found) for name, found in figures.items()}
    return {
        "name": "connector_modbus",
        "ours": round(rate["poll"]),
        "peer": round(rate["pymodbus"]),
        "ratio": round(rate["poll"] / rate["pymodbus"], 2),
        "unit": "reads of 125 registers per second",
        "ratio_registers": round(rate["registers"] / rate["pymodbus"], 2),
        "ratio_one_by_one": round(rate["one_by_one"] / rate["pymodbus"], 2),
        "ratio_to_libmodbus": {
            name: round(rate[name] / rate["libmodbus"], 2)
            for name in ("poll", "one_by_one", "single", "registers")
            if "libmodbus" in rate
        },
        "ratio_cpu": round(cpu["pymodbus"] / cpu["poll"], 2),
        "peer_name": "pymodbus asyncio client",
        "server": peer_server,
        "reads_per_s": {name: round(each) for name, each in rate.items()},
        "cpu_s_per_million_registers": {name: round(each, 3) for name, each in cpu.items()},
        "rounds": rounds,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 7))))
