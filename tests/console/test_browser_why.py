"""One click on any value: fresh, a device that goes, a page without live values, a console that is gone."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser_fixture import open_browser, sign_in
from playwright.sync_api import Locator, Page, expect
from site_fixture import CLOCK, start_site

from headrace.sim.emulators import Point
from headrace.sim.emulators.modbus import ModbusEmulator

pytestmark = pytest.mark.browser
PLACE = "utilities/pumping/pump_1"
SITE = """\
[site]
enterprise = "acme"
name = "mill"

[connection.pump_plc]
protocol = "modbus"
endpoint = "{endpoint}"

[[tag]]
path = "utilities/pumping/pump_1/flow"
connection = "pump_plc"
address = "holding:0:float32"
unit = "m3/h"
scan_interval_ms = 200
"""
ADDRESS = "holding:0:float32"


class Pump:
    """A Modbus device on a loop of its own, whose value changes five times a second."""

    def __init__(self) -> None:
        self.device = ModbusEmulator([Point(ADDRESS, "float32")])
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.do(self.device.start())
        self._driving = asyncio.run_coroutine_threadsafe(self._drive(), self._loop)

    def do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _drive(self) -> None:
        value = 0.0
        while True:
            value += 0.5
            await self.device.update({ADDRESS: value}, CLOCK.now_us())
            await asyncio.sleep(0.2)

    def stop(self) -> None:
        self._driving.cancel()
        self.do(self.device.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


@contextmanager
def pump() -> Iterator[Pump]:
    made = Pump()
    try:
        yield made
    finally:
        made.stop()


def hop(dialog: Locator, name: str) -> Locator:
    return dialog.locator(f'[data-hop="{name}"]')


def states(dialog: Locator) -> list[str]:
    lines = dialog.locator("[data-hop]")
    return [str(line.get_attribute("data-state")) for line in lines.all()]


def shot(page: Page, name: str) -> None:
    """A picture to look at, where the environment asks for them."""
    if folder := os.environ.get("HEADRACE_PICTURES"):
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def test_one_click_says_why_and_follows_what_happens(tmp_path: Path):
    with pump() as device, start_site(
        tmp_path / "data", SITE.format(endpoint=device.device.endpoint), edge=True
    ) as site, open_browser() as browser:  # fmt: skip
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        sign_in(page, site)
        tile = page.locator(".hr-tile")
        tile.locator("[data-why]").click()
        dialog = page.locator("dialog.hr-why")
        expect(dialog.locator(".hr-why-headline.proven")).to_be_visible(timeout=30_000)
        assert states(dialog) == ["proven"] * 7
        assert page.url.rstrip("/") == site.url, "the dot in a link does not follow it"
        shot(page, "why-fresh")
        device.do(device.device.stop())
        headline = dialog.locator(".hr-why-headline.broken")
        expect(headline).to_contain_text("pump_plc does not answer since", timeout=30_000)
        expect(headline).to_contain_text(re.compile("EDGE-3"))
        expect(hop(dialog, "device")).to_have_attribute("data-state", "broken")
        expect(dialog.locator(".hr-why-chip.culprit")).to_have_text("Device")
        shot(page, "why-device")
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)
        device.do(device.device.start())
        _equipment_and_trend(page, site.url)
        _chinese_phone(page, site.url)
        _without_live_values(page, site.url)
        _without_console(page)
        assert not errors


def _equipment_and_trend(page: Page, url: str) -> None:
    page.goto(f"{url}/equipment/{PLACE}")
    dot = page.locator("tr[data-tag] [data-why]")
    dot.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("dialog.hr-why")
    expect(dialog.locator(".hr-why-headline.proven")).to_be_visible(timeout=45_000)
    dialog.get_by_role("button").click()
    expect(dialog).to_have_count(0)
    page.locator("tr[data-tag] a.hr-tagname").click()
    page.locator(".hr-chip [data-why]").click()
    expect(dialog.locator(".hr-why-place")).to_contain_text("pump_1/flow")
    page.keyboard.press("Escape")


def _chinese_phone(page: Page, url: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{url}/equipment/{PLACE}")
    page.locator("[data-do=language]").click()
    expect(page.locator("html")).to_have_attribute("lang", "zh")
    page.locator("tr[data-tag] [data-why]").click()
    dialog = page.locator("dialog.hr-why")
    expect(dialog.locator(".hr-why-headline")).to_contain_text("数值新鲜", timeout=30_000)
    expect(hop(dialog, "writer")).to_contain_text("写入器")
    overflow = "document.documentElement.scrollWidth > window.innerWidth"
    assert not page.evaluate(overflow), "nothing sticks out of a phone"
    shot(page, "why-phone")
    page.keyboard.press("Escape")
    page.locator("[data-do=language]").click()
    expect(page.locator("html")).to_have_attribute("lang", "en")
    page.set_viewport_size({"width": 1280, "height": 900})


def _without_live_values(page: Page, url: str) -> None:
    """The page's own live connection never comes to stand."""
    page.route_web_socket(re.compile("/api/v1/live"), lambda socket: socket.close())
    page.goto(f"{url}/equipment/{PLACE}")
    page.locator("tr[data-tag] [data-why]").click()
    dialog = page.locator("dialog.hr-why")
    expect(dialog.locator(".hr-why-headline")).to_contain_text(
        "this page gets no live values", timeout=30_000
    )
    expect(dialog.locator(".hr-why-chip.culprit")).to_have_text("Screen")


def _without_console(page: Page) -> None:
    """The network to the console is gone while the dialog is open."""
    page.context.set_offline(True)
    expect(page.locator(".hr-why-body.cut")).to_contain_text(
        "console does not answer", timeout=30_000
    )
    page.context.set_offline(False)
    expect(page.locator("dialog.hr-why .hr-why-headline")).to_be_visible(timeout=30_000)
