"""An encrypted OPC UA server that nobody trusts yet: refused by name, trusted with one click."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser_fixture import open_browser, sign_in
from playwright.sync_api import expect
from site_fixture import CLOCK, start_site

from headrace.sim.emulators import Point
from headrace.sim.emulators.opcua import OpcUaEmulator

pytestmark = pytest.mark.browser

SITE = """\
[site]
enterprise = "acme"
name = "mill"

[connection.press]
protocol = "opcua"
endpoint = "{endpoint}"
options = {{ security = "SignAndEncrypt" }}

[[tag]]
path = "forming/presses/press_1/force"
connection = "press"
address = "ns=2;s=press.force"
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OpcUaEmulator]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def do(work) -> None:  # type: ignore[no-untyped-def] # any coroutine
        asyncio.run_coroutine_threadsafe(work, loop).result(20)

    emulator = OpcUaEmulator(
        [Point("ns=2;s=press.force", initial=12.5)],
        security=("SignAndEncrypt",),
        certificates=tmp_path / "server",
    )
    do(emulator.start())
    do(emulator.update({"ns=2;s=press.force": 12.5}, CLOCK.now_us()))
    yield emulator
    do(emulator.stop())
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def test_one_click_trusts_a_server_and_its_values_come(server: OpcUaEmulator, tmp_path: Path):
    text = SITE.format(endpoint=server.endpoint)
    with start_site(tmp_path / "data", text, edge=True) as site, open_browser() as browser:
        page = browser.new_page()
        sign_in(page, site)
        page.goto(f"{site.url}/connections")
        card = page.locator('[data-connection="press"]')
        expect(card).to_contain_text("EDGE-20")
        expect(card).to_contain_text("headrace trust add")
        page.get_by_role("button", name="Trust").click()
        expect(card).to_contain_text("Connected")
        page.goto(f"{site.url}/equipment/forming/presses/press_1")
        expect(page.locator(".hr-page")).to_contain_text("12.5")
        page.close()
