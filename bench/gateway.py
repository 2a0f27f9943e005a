"""Gateways from a Modbus device to their sink, side by side in one run: points a second, CPU a point.

One libmodbus server in C with 1,000 holding registers, polled by each gateway in turn:

- ours: ``headrace run edge`` into the durable log, every sample on disk before it counts;
- thingsboard-gateway, one entry a register (its ordinary form), into Mosquitto;
- Node-RED with node-red-contrib-modbus, eight reads of 125 registers, into Mosquitto.

The peers' sinks keep nothing on disk. CPU is that of the gateway's process by the kernel's books; for ours
that of the broker, which is our sink, is told beside it. Points are those that came out of the sink. A
peer that cannot be installed is named with the reason. Prints one JSON line.

    python bench/gateway.py [--registers 1000] [--seconds 20]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from headrace.model.desired import ConnectionConfig
from peers import CACHE, free_port
from rig import Meter, modbus_devices, register_tags, running_edge, until

BLOCK = 125
OURS_MS = (100, 10)
THINGSBOARD_MS = (500, 200, 100)
NODE_RED_MS = (100, 20)
THINGSBOARD = ("thingsboard-gateway==3.8.5", "pymodbus==3.9.2", "pyserial", "pyserial-asyncio")
NODE_RED = ("node-red@4.1.15", "node-red-contrib-modbus@5.23.3")
START_S = 90.0
SETTLE_S = 5.0
INSTALL_S = 300
_UNLIMITED = dict.fromkeys(("messages", "telemetryMessages", "telemetryDataPoints"), "")
NO_LIMITS = json.dumps(
    {
        "maxPayloadSize": 65_536,
        "maxInflightMessages": 1_000,
        "rateLimits": _UNLIMITED,
        "gatewayRateLimits": _UNLIMITED,
    }
)

Figure = dict[str, Any]


async def ours(endpoint: str, registers: int, interval_ms: int, seconds: float) -> Figure:
    """Our edge at one interval."""
    async with running_edge() as edge:
        tags = register_tags(registers, interval_ms)
        await edge.run(
            ConnectionConfig(name="plc", protocol="modbus", endpoint=endpoint, tags=tags)
        )
        await until(lambda: edge.rows > 0, START_S, "the first samples of our edge")
        await asyncio.sleep(SETTLE_S)
        meters = Meter(edge.pid), Meter(edge.broker_pid)
        before = edge.rows
        await asyncio.sleep(seconds)
        points = edge.rows - before
        used = [meter.used() for meter in meters]
        figure = _figure(points, used[0].seconds, used[0].cpu_s, registers, interval_ms)
        figure["cpu_s_per_million_with_sink"] = round(
            (used[0].cpu_s + used[1].cpu_s) / max(points, 1) * 1e6, 2
        )
        return figure | {"rss_mb": round(meters[0].rss_mb(), 1)}


def _figure(points: int, seconds: float, cpu_s: float, registers: int, interval_ms: int) -> Figure:
    return {
        "interval_ms": interval_ms,
        "offered_per_s": round(registers * 1000 / interval_ms),
        "points_per_s": round(points / seconds),
        "cores": round(cpu_s / seconds, 3),
        "cpu_s_per_million": round(cpu_s / points * 1e6, 2) if points else None,
    }


class Sink:
    """Mosquitto, and a subscriber that counts the points in what a gateway publishes."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.points = 0
        settings = folder / "mosquitto.conf"
        settings.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n")
        self._process = subprocess.Popen(
            ["mosquitto", "-c", str(settings)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._count

    async def open(self) -> None:
        def connected() -> bool:
            with contextlib.suppress(OSError):
                self._client.connect("127.0.0.1", self.port)
                return True
            return False

        await until(connected, 20, "mosquitto")
        asks = "v1/devices/me/rpc/request/+"
        self._client.subscribe([("v1/gateway/telemetry", 0), ("points", 0), (asks, 0)])
        self._client.loop_start()

    def _count(self, _client: Any, _data: Any, message: Any) -> None:
        document = json.loads(message.payload)
        if "/rpc/" in message.topic:
            # ThingsBoard's own server is asked for its limits; without an answer nothing is sent.
            self._client.publish(message.topic.replace("request", "response"), NO_LIMITS)
            return
        if message.topic == "points":
            self.points += len(document)
            return
        for rows in document.values():
            self.points += sum(len(row.get("values", row)) for row in rows)

    def close(self) -> None:
        self._client.loop_stop()
        self._process.terminate()
        self._process.wait()


@contextlib.asynccontextmanager
async def sink() -> AsyncIterator[Sink]:
    with tempfile.TemporaryDirectory() as folder:
        made = Sink(Path(folder))
        try:
            await made.open()
            yield made
        finally:
            made.close()


async def peer(
    start: Any, endpoint: str, registers: int, interval_ms: int, seconds: float
) -> Figure:
    """One peer at one interval; ``start(folder, endpoint, registers, interval_ms, port)``."""
    async with sink() as into:
        with tempfile.TemporaryDirectory() as folder:
            process = start(Path(folder), endpoint, registers, interval_ms, into.port)
            try:
                try:
                    await until(lambda: into.points > 0, START_S, "a point")
                except TimeoutError as error:
                    return {"interval_ms": interval_ms, "skipped": str(error)}
                await asyncio.sleep(SETTLE_S)
                meter, before = Meter(process.pid), into.points
                await asyncio.sleep(seconds)
                points, used = into.points - before, meter.used()
                figure = _figure(points, used.seconds, used.cpu_s, registers, interval_ms)
                return figure | {"rss_mb": round(meter.rss_mb(), 1)}
            finally:
                process.kill()
                process.wait()


def install_thingsboard() -> Path | str:
    """Python of an environment of its own with the gateway; or why there is none."""
    folder = CACHE / "thingsboard"
    python = folder / "bin" / "python"
    if (folder / "complete").exists():
        return python
    try:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=60)
        command = [str(python), "-m", "pip", "install", "-q", *THINGSBOARD]
        subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_S)
    except (subprocess.SubprocessError, OSError) as error:
        return f"pip cannot install it here: {type(error).__name__}"
    (folder / "complete").touch()
    return python


def _thingsboard_settings(port: int) -> dict[str, Any]:
    unlimited = dict.fromkeys(
        (
            "rateLimits",
            "dpRateLimits",
            "messagesRateLimits",
            "deviceMessagesRateLimits",
            "deviceRateLimits",
            "deviceDpRateLimits",
        ),
        "0:0,",
    )
    return {
        "thingsboard": {
            "host": "127.0.0.1",
            "port": port,
            "remoteShell": False,
            "remoteConfiguration": False,
            "statistics": {"enable": False},
            "security": {"type": "accessToken", "accessToken": "bench"},
            "qos": 0,
            "minPackSendDelayMS": 50,
            "minPackSizeToSend": 500,
            "maxPayloadSizeBytes": 65_536,
            **unlimited,
        },
        "storage": {"type": "memory", "read_records_count": 1000, "max_records_count": 1_000_000},
        "grpc": {"enabled": False},
        "connectors": [{"type": "modbus", "name": "plc", "configuration": "modbus.json"}],
    }


def _thingsboard_device(host: str, port: int, registers: int, interval_ms: int) -> dict[str, Any]:
    return {
        "host": host,
        "port": port,
        "type": "tcp",
        "method": "socket",
        "unitId": 1,
        "deviceName": "plc",
        "deviceType": "default",
        "timeout": 5,
        "byteOrder": "BIG",
        "wordOrder": "BIG",
        "pollPeriod": interval_ms,
        "sendDataOnlyOnChange": False,
        "connectAttemptTimeMs": 1000,
        "connectAttemptCount": 5,
        "waitAfterFailedAttemptsMs": 3000,
        "attributes": [],
        "timeseries": [
            {
                "tag": f"tag_{at}",
                "type": "16uint",
                "functionCode": 3,
                "objectsCount": 1,
                "address": at,
            }
            for at in range(registers)
        ],
        "attributeUpdates": [],
        "rpc": [],
    }


def start_thingsboard(
    python: Path, folder: Path, endpoint: str, registers: int, interval_ms: int, port: int
) -> subprocess.Popen[bytes]:
    host, device_port = endpoint.rsplit(":", 1)
    configs = folder / "config"
    configs.mkdir()
    (folder / "logs").mkdir()
    general = _thingsboard_settings(port)
    slave = _thingsboard_device(host, int(device_port), registers, interval_ms)
    (configs / "tb_gateway.json").write_text(json.dumps(general))
    (configs / "modbus.json").write_text(
        json.dumps({"name": "plc", "logLevel": "ERROR", "master": {"slaves": [slave]}})
    )
    (configs / "logs.json").write_text(json.dumps(_quiet_logs()))
    return subprocess.Popen(
        [str(python), "-c", "from thingsboard_gateway.tb_gateway import main; main()"],
        cwd=folder,
        env={**os.environ, "TB_GW_CONFIG_DIR": f"{configs}/"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _quiet_logs() -> dict[str, Any]:
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"none": {"class": "logging.NullHandler"}},
        "loggers": {},
        "root": {"level": "ERROR", "handlers": ["none"]},
    }


def install_node_red() -> Path | str:
    """Node-RED's start script in a cache of its own; or why there is none."""
    if shutil.which("npm") is None:
        return "npm is not installed"
    folder = CACHE / "node-red"
    script = folder / "node_modules" / "node-red" / "red.js"
    if script.exists() and (folder / "node_modules" / "node-red-contrib-modbus").exists():
        return script
    folder.mkdir(parents=True, exist_ok=True)
    flags = ["--ignore-scripts", "--omit=optional", "--no-audit", "--silent"]
    try:
        subprocess.run(
            ["npm", "install", *flags, *NODE_RED], cwd=folder, check=True, timeout=INSTALL_S
        )
    except (subprocess.SubprocessError, OSError) as error:
        return f"npm cannot install it here: {type(error).__name__}"
    return script


def node_red_flow(endpoint: str, registers: int, interval_ms: int, port: int) -> list[Any]:
    """A flow: reads of 125 registers, each value made a point, published as one message a read."""
    host, device_port = endpoint.rsplit(":", 1)
    flow: list[dict[str, Any]] = [
        {"id": "tab", "type": "tab", "label": "bench"},
        {"id": "broker", "type": "mqtt-broker", "broker": "127.0.0.1", "port": str(port),
         "clientid": "bench", "autoConnect": True, "usetls": False, "protocolVersion": "4",
         "keepalive": "60", "cleansession": True},
        {"id": "client", "type": "modbus-client", "name": "device", "clienttype": "tcp",
         "bufferCommands": True, "stateLogEnabled": False, "queueLogEnabled": False,
         "tcpHost": host, "tcpPort": device_port, "tcpType": "DEFAULT", "unit_id": "1",
         "commandDelay": "1", "clientTimeout": "1000", "reconnectOnTimeout": True,
         "reconnectTimeout": "2000", "parallelUnitIdsAllowed": True,
         "failureLogEnabled": False, "showErrors": False, "showWarnings": False},
        {"id": "out", "type": "mqtt out", "z": "tab", "topic": "points", "qos": "0",
         "retain": "false", "broker": "broker", "wires": []},
    ]  # fmt: skip
    for start in range(0, registers, BLOCK):
        code = (
            f"const at = Date.now(); msg.payload = msg.payload.map((v, i) => "
            f"({{tag: {start} + i, at: at, value: v}})); return msg;"
        )
        flow += [
            {"id": f"read_{start}", "type": "modbus-read", "z": "tab", "name": "",
             "topic": "", "showStatusActivities": False, "logIOActivities": False,
             "showErrors": False, "unitid": "1", "dataType": "HoldingRegister",
             "adr": str(start), "quantity": str(min(BLOCK, registers - start)),
             "rate": str(interval_ms), "rateUnit": "ms", "delayOnStart": False,
             "server": "client", "useIOFile": False, "ioFile": "", "useIOForPayload": False,
             "emptyMsgOnFail": False, "wires": [[f"map_{start}"], []]},
            {"id": f"map_{start}", "type": "function", "z": "tab", "func": code, "outputs": 1,
             "wires": [["out"]]},
        ]  # fmt: skip
    return flow


def start_node_red(
    script: Path, folder: Path, endpoint: str, registers: int, interval_ms: int, port: int
) -> subprocess.Popen[bytes]:
    (folder / "flow.json").write_text(
        json.dumps(node_red_flow(endpoint, registers, interval_ms, port))
    )
    settings = folder / "settings.js"
    settings.write_text(
        f'module.exports = {{uiHost: "127.0.0.1", uiPort: {free_port()}, flowFile: "flow.json", '
        'logging: {console: {level: "error"}}};'
    )
    return subprocess.Popen(
        ["node", str(script), "-u", str(folder), "-s", str(settings)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def peers() -> Iterator[tuple[str, Any, tuple[int, ...]]]:
    """Name, starter (or why there is none), and intervals of each peer."""
    if shutil.which("mosquitto") is None:
        yield "thingsboard", "mosquitto is not installed", ()
        yield "node_red", "mosquitto is not installed", ()
        return
    python, script = install_thingsboard(), install_node_red()
    yield (
        "thingsboard",
        python if isinstance(python, str) else lambda *given: start_thingsboard(python, *given),
        THINGSBOARD_MS,
    )
    yield (
        "node_red",
        script if isinstance(script, str) else lambda *given: start_node_red(script, *given),
        NODE_RED_MS,
    )


async def measure(registers: int, seconds: float) -> dict[str, Any]:
    load = os.getloadavg()[0]
    found: dict[str, Any] = {}
    with modbus_devices(1, registers) as ((endpoint, _),):
        found["ours"] = [
            await ours(endpoint, registers, interval_ms, seconds) for interval_ms in OURS_MS
        ]
        for name, start, intervals in peers():
            if isinstance(start, str):
                found[name] = start
                continue
            found[name] = [
                await peer(start, endpoint, registers, interval_ms, seconds)
                for interval_ms in intervals
            ]
    best = max(figure["points_per_s"] for figure in found["ours"])
    return {
        "name": "gateway",
        "unit": "points per second from a Modbus device to the sink",
        "ours": best,
        "peer": _best(found["thingsboard"]),
        "ratio": _ratio(best, _best(found["thingsboard"])),
        "ratio_cpu_to_node_red": {
            ms: _ratio(_cpu(found["ours"], ms, with_sink), _cpu(found["node_red"], 100))
            for ms, with_sink in ((100, False),)
        }
        | {
            "100 with our sink": _ratio(
                _cpu(found["ours"], 100, True), _cpu(found["node_red"], 100)
            )
        },
        "details": found,
        "load_before": round(load, 1),
    }


def _best(figures: Any) -> int | None:
    if isinstance(figures, str):
        return None
    return max((figure.get("points_per_s", 0) for figure in figures), default=0) or None


def _cpu(figures: Any, interval_ms: int, with_sink: bool = False) -> float | None:
    """CPU seconds a million points at one interval."""
    if isinstance(figures, str):
        return None
    key = "cpu_s_per_million_with_sink" if with_sink else "cpu_s_per_million"
    return next((f.get(key) for f in figures if f["interval_ms"] == interval_ms), None)


def _ratio(one: float | None, other: float | None) -> float | None:
    return round(one / other, 3) if one and other else None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--registers", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=15.0)
    arguments = parser.parse_args()
    print(json.dumps(asyncio.run(measure(arguments.registers, arguments.seconds))))
