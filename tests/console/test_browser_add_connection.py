"""The guided form, driven in a real browser, against a real edge and a real Modbus server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from browser_fixture import open_browser, sign_in
from playwright.sync_api import Page, expect
from site_fixture import CLOCK, EMPTY_SITE, RunningSite, start_site

from headrace.sim.emulators import Point
from headrace.sim.emulators.modbus import ModbusEmulator

pytestmark = pytest.mark.browser
ADDRESS = "holding:0:float32"


class Device:
    """A Modbus server in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.emulator = ModbusEmulator(
            [Point(ADDRESS, "float32", 21.5), Point("coil:3", "bool", True)]
        )
        self._do(self.emulator.start())

    def set(self, value: float) -> None:
        self._do(self.emulator.update({ADDRESS: value}, CLOCK.now_us()))

    def stop(self) -> None:
        self._do(self.emulator.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _do(self, work) -> None:  # type: ignore[no-untyped-def] # any coroutine
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


@contextmanager
def _device() -> Iterator[Device]:
    device = Device()
    try:
        yield device
    finally:
        device.stop()


@pytest.fixture(scope="module")
def empty_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSite]:
    with start_site(tmp_path_factory.mktemp("empty"), EMPTY_SITE, edge=True) as site:
        yield site


def test_a_modbus_device_is_added_by_the_form_and_its_value_is_on_screen(
    empty_site: RunningSite,
) -> None:
    with open_browser() as browser, _device() as device:
        page = browser.new_context(viewport={"width": 1280, "height": 1000}).new_page()
        sign_in(page, empty_site)
        page.get_by_role("link", name="Add a connection").click()
        page.locator('[data-protocol="modbus"]').click()
        _go(page, "plc 1", device.emulator.endpoint)
        expect(page.locator(".q-notification")).to_contain_text("MODEL-1002")
        _go(page, "plc_1", device.emulator.endpoint)
        page.locator("[data-test]").click()
        expect(page.locator("[data-result]")).to_contain_text("The device answers")
        page.locator("[data-next]").click()
        page.locator('[data-field="base"]').fill("utilities/pumping/pump_9")
        page.locator('[data-field="base"]').press("Tab")
        page.locator('[data-field="address"]').fill("nonsense")
        page.locator("[data-add-address]").click()
        expect(page.locator(".q-notification").last).to_contain_text("EDGE-")
        page.locator('[data-field="address"]').fill(ADDRESS)
        page.locator("[data-add-address]").click()
        expect(page.locator("[data-chosen]")).to_have_count(1)
        page.locator("[data-chosen] input").first.fill("utilities/pumping/pump_9/temperature")
        page.locator("[data-chosen] input").last.fill("Cel")
        page.locator("[data-next]").click()
        expect(page.locator(".hr-toml")).to_contain_text("[connection.plc_1]")
        page.locator("[data-next]").click()
        card = page.locator('[data-connection="plc_1"]')
        expect(card).to_contain_text("Connected", timeout=30_000)
        text = empty_site.folder.site_file.read_text()
        assert "# a comment that stays" in text and f'address = "{ADDRESS}"' in text
        page.goto(f"{empty_site.url}/equipment/utilities/pumping/pump_9")
        value = page.locator("[data-f=value]")
        expect(value).to_have_text("21.50")
        device.set(48.25)
        expect(value).to_have_text("48.25")
        _pause_and_resume(page, empty_site)


def _go(page: Page, name: str, endpoint: str) -> None:
    page.locator('[data-field="name"]').fill(name)
    page.locator('[data-field="endpoint"]').fill(endpoint)
    page.locator("[data-next]").click()


def _pause_and_resume(page: Page, site: RunningSite) -> None:
    page.goto(f"{site.url}/connections")
    card = page.locator('[data-connection="plc_1"]')
    card.get_by_role("button", name="Pause").click()
    expect(card).to_contain_text("Paused", timeout=30_000)
    assert "enabled = false" in site.folder.site_file.read_text()
    card.get_by_role("button", name="Resume").click()
    expect(card).to_contain_text("Connected", timeout=30_000)
