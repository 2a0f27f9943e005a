"""Live: from a value written in a device to a subscriber on the bus, through a real edge process's parts.

Devices are real protocol servers on loopback: OPC UA (publishing interval 10 ms, which is the device's own
interval) and plain JSON over the platform's own MQTT listener. The value is durable in the log before the
subscriber sees it. Prints one JSON line with p50 and p99 in milliseconds.

    python bench/live.py --values 300
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from headrace.bus import envelope
from headrace.bus.broker import prepare_address, start_broker, stop_broker
from headrace.bus.client import ensure_streams, open_bus
from headrace.bus.subjects import Subjects
from headrace.edge.agent import Agent
from headrace.model.desired import ConnectionConfig, EdgeConfig, TagConfig
from headrace.model.folder import DataFolder
from headrace.model.time import SystemClock
from headrace.sim.emulators import Point
from headrace.sim.emulators.mqtt import MqttJsonEmulator
from headrace.sim.emulators.opcua import OpcUaEmulator

SUBJECTS = Subjects("bench", "live")
PUBLISHING_INTERVAL_MS = 10
PAUSE_S = (0.11, 0.2)
ADDRESS = {"opcua": "ns=2;s=press.force", "mqtt": "press/state#/force"}


async def latencies(device: Any, protocol: str, arrived: dict[float, float], n: int) -> list[float]:
    """Seconds of each value; the device is otherwise quiet."""
    chance = np.random.default_rng(1)
    written: dict[float, float] = {}
    first = 1.0
    while first not in arrived:
        await device.update({ADDRESS[protocol]: first}, time.time_ns() // 1_000)
        await asyncio.sleep(0.2)
    for i in range(n):
        value = float(i + 2)
        await asyncio.sleep(float(chance.uniform(*PAUSE_S)))
        written[value] = time.perf_counter()
        await device.update({ADDRESS[protocol]: value}, time.time_ns() // 1_000)
    end_s = time.perf_counter() + 10
    while (  # noqa: ASYNC110 - a bound wait for the last values
        written.keys() - arrived.keys() and time.perf_counter() < end_s
    ):
        await asyncio.sleep(0.05)
    assert not written.keys() - arrived.keys(), "values were lost"
    return [arrived[value] - at for value, at in written.items()]


async def measure(values: int) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = DataFolder(Path(temporary) / "data")
        address = prepare_address(folder)
        broker = start_broker(folder, address)
        press = OpcUaEmulator([Point(ADDRESS["opcua"])])
        await press.start()
        sensor = MqttJsonEmulator(
            [Point(ADDRESS["mqtt"])],
            endpoint=address.mqtt_endpoint,
            username=address.device_user,
            password=address.device_password,
            timestamp="/ts@us",
        )
        try:
            async with open_bus(address, "edge") as bus, open_bus(address, "screen") as screen:
                await ensure_streams(bus)
                agent = Agent(
                    bus,
                    address,
                    SUBJECTS,
                    edge="local",
                    certificates=folder.certificates,
                    clock=SystemClock(),
                )
                arrived: dict[str, dict[float, float]] = {"opcua": {}, "mqtt": {}}

                async def take(message: Any) -> None:
                    at = time.perf_counter()
                    protocol = message.subject.rsplit(".", 1)[-1]
                    for value in envelope.decode(message.data)["value"].to_list():
                        arrived[protocol].setdefault(value, at)

                await screen.subscribe("v1.*.*.batch.>", take)
                await agent.apply(config(press.endpoint))
                await sensor.start()
                found = {
                    "opcua": await latencies(press, "opcua", arrived["opcua"], values),
                    "mqtt": await latencies(sensor, "mqtt", arrived["mqtt"], values),
                }
                await agent.stop()
                return found
        finally:
            await sensor.stop()
            await press.stop()
            stop_broker(broker)


def config(endpoint: str) -> EdgeConfig:
    def tag(number: int, protocol: str) -> tuple[TagConfig, ...]:
        address = ADDRESS[protocol]
        return (
            TagConfig(tag_id=number, path=f"a/{protocol}", address=address, scan_interval_ms=0),
        )

    opcua = ConnectionConfig(
        name="opcua",
        protocol="opcua",
        endpoint=endpoint,
        tags=tag(1, "opcua"),
        options={"publishing_interval_ms": PUBLISHING_INTERVAL_MS},
    )
    mqtt = ConnectionConfig(
        name="mqtt",
        protocol="mqtt",
        endpoint="broker",
        tags=tag(2, "mqtt"),
        options={"timestamp": "/ts@us"},
    )
    return EdgeConfig(enterprise="bench", site="live", edge="local", connections=(opcua, mqtt))


def main(values: int) -> None:
    load = os.getloadavg()[0]
    found = asyncio.run(measure(values))
    ms = {
        name: {
            "p50": round(float(np.percentile(each, 50)) * 1e3, 1),
            "p99": round(float(np.percentile(each, 99)) * 1e3, 1),
        }
        for name, each in found.items()
    }
    line = {
        "name": "live",
        "unit": "ms from a value written in the device to a subscriber, the device's interval included",
        "ours": ms,
        "peer": None,
        "ratio": None,
        "device_interval_ms": {"opcua": PUBLISHING_INTERVAL_MS, "mqtt": 0},
        "values": values,
        "load_before": round(load, 1),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--values", type=int, default=200)
    main(parser.parse_args().values)
