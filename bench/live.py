"""Live: from a value written in a device to a subscriber on the bus, and to the screen.

The whole platform runs as an installation runs it, each role in a process of its own: broker, edge,
historian, console. Devices are real protocol servers in this process, on loopback: OPC UA with a publishing
interval of 10 ms, and plain JSON over the platform's own MQTT listener. A value is durable in the log before
a subscriber sees it.

``less_interval`` leaves out the device's own interval exactly, not by its mean: an OPC UA server holds a value
until its next publishing cycle, and the time when it hands the notification to its socket is noted for every
value. MQTT has no interval. The screen is a page of the console in a headless Chromium: a MutationObserver
sees the number in the table, and the time counted is the next animation frame, by the same machine's clock.
Prints one JSON line with p50 and p99 in milliseconds.

    python bench/live.py [--values 200] [--no-screen]
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
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
from playwright.async_api import Page, async_playwright

from headrace.bus import envelope
from headrace.bus.broker import free_port, prepare_address, start_broker, stop_broker
from headrace.bus.client import Bus, ensure_streams, open_bus
from headrace.model.folder import DataFolder
from headrace.model.time import SystemClock
from headrace.security.identity import Identity
from headrace.sim.emulators import Point
from headrace.sim.emulators.mqtt import MqttJsonEmulator
from headrace.sim.emulators.opcua import OpcUaEmulator
from headrace.site.file import load_site
from headrace.site.registry import Registry
from rig import until

PUBLISHING_INTERVAL_MS = 10
PAUSE_S = (0.11, 0.2)
UNIT = "line/cell/press"
ADDRESS = {"opcua": "ns=2;s=press.force", "mqtt": "press/state#/force"}
PASSWORD = "a phrase for the bench"
SITE = """
[site]
enterprise = "bench"
name = "live"
[connection.opcua]
protocol = "opcua"
endpoint = "{endpoint}"
options = {{ publishing_interval_ms = {interval} }}
[connection.mqtt]
protocol = "mqtt"
endpoint = "broker"
options = {{ timestamp = "/ts@us" }}
[[tag]]
path = "{unit}/opcua"
connection = "opcua"
address = "{opcua}"
scan_interval_ms = 10
[[tag]]
path = "{unit}/mqtt"
connection = "mqtt"
address = "{mqtt}"
"""
WATCH = """
([id, name]) => {
  window.benchSeen = window.benchSeen || {};
  const seen = window.benchSeen[name] = {};
  const note = () => {
    const cell = document.querySelector(`[data-tag="${id}"] [data-f=value]`);
    const value = cell ? Number(cell.textContent.replace(/[^0-9.-]/g, "")) : NaN;
    if (isNaN(value) || seen[value]) return;
    seen[value] = -1;
    requestAnimationFrame(() => { seen[value] = performance.timeOrigin + performance.now(); });
  };
  new MutationObserver(note).observe(document.body,
    { childList: true, subtree: true, characterData: true });
  note();
}
"""


class Times:
    """When each value was written, left the device, reached the subscriber, stood on the screen."""

    def __init__(self) -> None:
        self.written: dict[float, float] = {}
        self.told: dict[float, float] = {}
        self.arrived: dict[float, float] = {}
        self.shown: dict[float, float] = {}

    def between(self, begin: dict[float, float], end: dict[float, float]) -> dict[str, float]:
        """p50 and p99 in milliseconds."""
        taken = [end[value] - at for value, at in begin.items() if value in end]
        return {
            "p50": round(float(np.percentile(taken, 50)) * 1e3, 1),
            "p99": round(float(np.percentile(taken, 99)) * 1e3, 1),
            "values": len(taken),
        }


def now_s() -> float:
    """The machine's clock, the same for this process and the browser."""
    return time.time_ns() / 1e9


def note_departures(press: Any, times: Times) -> None:
    """Let the OPC UA server say when it hands a value to its socket."""
    service = press._server.iserver.subscription_service
    create = service.create_subscription

    async def noting(params: Any, callback: Any, *rest: Any, **more: Any) -> Any:
        async def publish(result: Any, *request: Any) -> None:
            at_s = now_s()
            for data in result.NotificationMessage.NotificationData:
                for item in getattr(data, "MonitoredItems", []):
                    times.told.setdefault(float(item.Value.Value.Value), at_s)
            await callback(result, *request)

        return await create(params, publish, *rest, **more)

    service.create_subscription = noting


async def write_values(
    device: Any, protocol: str, times: Times, first: int, count: int, page: Page | None
) -> None:
    """Write values at random moments; the device is otherwise quiet."""
    chance = np.random.default_rng(first)
    for value in map(float, range(first, first + count)):
        await asyncio.sleep(float(chance.uniform(*PAUSE_S)))
        times.written[value] = now_s()
        await device.update({ADDRESS[protocol]: value}, time.time_ns() // 1_000)
    await until(lambda: times.written.keys() <= times.arrived.keys(), 20, f"{protocol} values")
    if page is not None:
        await asyncio.sleep(1.0)
        shown = await page.evaluate("(name) => window.benchSeen[name]", protocol)
        times.shown = {float(value): at_ms / 1e3 for value, at_ms in shown.items() if at_ms > 0}


@contextlib.asynccontextmanager
async def roles(folder: DataFolder, port: int) -> AsyncIterator[None]:
    """Edge, historian and console as processes."""
    processes = []
    try:
        for role, more in (("historian", []), ("console", ["--port", str(port)]), ("edge", [])):
            command = [sys.executable, "-m", "headrace", "run", role, "--data", str(folder.root)]
            processes.append(await asyncio.create_subprocess_exec(*command, *more))
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            await process.wait()


async def prepare(folder: DataFolder, bus: Bus, endpoint: str) -> dict[str, int]:
    """Site, streams and a user; gives the tag ids by path."""
    folder.site_file.write_text(
        SITE.format(endpoint=endpoint, interval=PUBLISHING_INTERVAL_MS, unit=UNIT, **ADDRESS)
    )
    (folder.run / "site.json").write_text(json.dumps(["bench", "live"]))
    await ensure_streams(bus)
    registry = Registry.of(folder)
    registry.apply(load_site(folder.site_file), SystemClock().now_us())
    tags = {record.path: record.tag_id for record in registry.find()}
    registry.close()
    identity = Identity(folder)
    identity.add_user("mia", "admin", PASSWORD)
    identity.close()
    return tags


async def open_page(playwright: Any, url: str, tags: dict[str, int]) -> Page:
    """The press's page in a headless Chromium, watched."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        raise SystemExit("no chromium; install it, or run with --no-screen")
    browser = await playwright.chromium.launch(
        executable_path=path, args=["--headless", "--no-sandbox", "--disable-gpu"]
    )
    page = await browser.new_page()
    await page.goto(f"{url}/sign-in", timeout=60_000)
    await page.fill("#name", "mia")
    await page.fill("#password", PASSWORD)
    await page.click("button[type=submit]")
    await page.wait_for_selector(".hr-page")
    await page.goto(f"{url}/equipment/{UNIT}")
    for path_of_tag, tag_id in tags.items():
        await page.wait_for_selector(f'[data-tag="{tag_id}"]')
        await page.evaluate(WATCH, [str(tag_id), path_of_tag.rsplit("/", 1)[-1]])
    return page


async def measure(values: int, screen: bool) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as temporary:
        folder = DataFolder(Path(temporary) / "data")
        address = prepare_address(folder)
        broker: subprocess.Popen[bytes] = start_broker(folder, address)
        press = OpcUaEmulator([Point(ADDRESS["opcua"])])
        await press.start()
        sensor = MqttJsonEmulator(
            [Point(ADDRESS["mqtt"])],
            endpoint=address.mqtt_endpoint,
            username=address.device_user,
            password=address.device_password,
            timestamp="/ts@us",
        )
        await sensor.start()
        current: dict[str, Times] = {name: Times() for name in ADDRESS}
        try:
            async with open_bus(address, "bench") as bus:
                tags = await prepare(folder, bus, press.endpoint)
                note_departures(press, current["opcua"])
                await follow(bus, current)
                port = free_port()
                async with roles(folder, port), async_playwright() as playwright:
                    for name, device in (("opcua", press), ("mqtt", sensor)):
                        await first_value(device, name, current[name])
                        found[name] = await subscriber(device, name, current[name], values)
                    if screen:
                        page = await open_page(playwright, f"http://127.0.0.1:{port}", tags)
                        for name, device in (("opcua", press), ("mqtt", sensor)):
                            found[name] |= await to_screen(
                                device, name, current[name], values, page
                            )
                        await page.context.browser.close()  # type: ignore[union-attr] # launched above
        finally:
            await sensor.stop()
            await press.stop()
            stop_broker(broker)
    return found


async def follow(bus: Bus, current: dict[str, Times]) -> None:
    """Note when each value reaches a subscriber."""

    async def take(message: Any) -> None:
        at_s = now_s()
        times = current[message.subject.rsplit(".", 1)[-1]]
        for value in envelope.decode(message.data)["value"].to_list():
            times.arrived.setdefault(value, at_s)

    await bus.subscribe("v1.*.*.batch.>", take)


async def first_value(device: Any, protocol: str, times: Times) -> None:
    """The way is open once a value came through."""
    end_s = time.monotonic() + 90
    while 1.0 not in times.arrived:
        assert time.monotonic() < end_s, f"no value of {protocol} comes through"
        await device.update({ADDRESS[protocol]: 1.0}, time.time_ns() // 1_000)
        await asyncio.sleep(0.2)


async def subscriber(device: Any, protocol: str, times: Times, values: int) -> dict[str, Any]:
    await write_values(device, protocol, times, 1_000, values, None)
    figures: dict[str, Any] = {"subscriber": times.between(times.written, times.arrived)}
    if protocol == "opcua":
        told = {value: times.told[value] for value in times.written}
        figures["subscriber_less_interval"] = times.between(told, times.arrived)
    return figures


async def to_screen(
    device: Any, protocol: str, times: Times, values: int, page: Page
) -> dict[str, Any]:
    times.written = {}
    await write_values(device, protocol, times, 5_000, values, page)
    figures: dict[str, Any] = {"screen": times.between(times.written, times.shown)}
    if protocol == "opcua":
        told = {value: times.told[value] for value in times.written}
        figures["screen_less_interval"] = times.between(told, times.shown)
    return figures


def main(values: int, screen: bool) -> None:
    load = os.getloadavg()[0]
    found = asyncio.run(measure(values, screen))
    line = {
        "name": "live",
        "unit": "ms from a value written in the device",
        "ours": found,
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
    parser.add_argument("--no-screen", action="store_true", help="without a browser")
    arguments = parser.parse_args()
    main(arguments.values, not arguments.no_screen)
