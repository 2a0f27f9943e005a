"""A real browser on the whole demo: from the one-time password to a device added by the form."""

from __future__ import annotations

import asyncio
import re
import shutil
import threading
from collections.abc import Iterator

import pytest
from installation import Installation
from observing import CLOCK, Observer
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from headrace.sim.emulators import Point
from headrace.sim.emulators.modbus import ModbusEmulator
from waiting import until_sync

pytestmark = [pytest.mark.browser, pytest.mark.kill]

PASSWORD = "one long phrase more"
PUMP = "utilities/pumping/pump_1"
FAULTS_ZH = (
    "轴承磨损", "汽蚀", "刀具断裂", "传感器卡死", "传感器漂移", "设备重启", "设备响应缓慢", "时钟跳变",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no chromium; install it with: apt-get install chromium")
    expect.set_options(timeout=45_000)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=path, args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def signed_in(browser: Browser, demo: Installation) -> Iterator[BrowserContext]:
    """The first sign-in of this installation, as the banner tells it."""
    context = browser.new_context(viewport={"width": 1440, "height": 950})
    page = context.new_page()
    page.goto(demo.url)
    expect(page).to_have_url(re.compile("/sign-in"))
    _sign_in(page, demo.password)
    expect(page).to_have_url(re.compile("/change-password"))
    page.goto(f"{demo.url}/connections")
    expect(page).to_have_url(re.compile("/change-password"))
    for field, text in (("old", demo.password), ("new", PASSWORD), ("again", PASSWORD)):
        page.fill(f"#{field}", text)
    page.click("button[type=submit]")
    expect(page.get_by_role("status")).to_be_visible()
    _sign_in(page, PASSWORD)
    expect(page.locator(".hr-tile").first).to_be_visible()
    page.close()
    yield context
    context.close()


@pytest.fixture
def page(signed_in: BrowserContext, seen: Observer) -> Iterator[Page]:
    """A signed-in page; a script error on it fails the test."""
    del seen  # every tag is Good before the first page is looked at
    opened = signed_in.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    opened.close()
    assert not errors


def _sign_in(page: Page, password: str) -> None:
    page.fill("#name", "admin")
    page.fill("#password", password)
    page.click("button[type=submit]")


def _fault(page: Page, demo: Installation, name: str, target: str) -> None:
    """Start a fault on the console's page."""
    page.goto(f"{demo.url}/faults")
    card = page.locator(f'[data-fault="{name}"]')
    card.get_by_role("combobox").click()
    page.get_by_role("option", name=target, exact=True).click()
    card.get_by_role("button", name="Start").click()
    expect(card.get_by_role("button", name="Stop")).to_be_visible()


def test_the_first_password_works_only_once(demo: Installation, page: Page, browser: Browser):
    fresh = browser.new_context().new_page()
    fresh.goto(demo.url)
    _sign_in(fresh, demo.password)
    expect(fresh.get_by_role("alert")).to_be_visible()
    fresh.context.close()


def test_the_tree_leads_to_values_that_move(demo: Installation, page: Page, seen: Observer):
    page.goto(f"{demo.url}/equipment")
    page.locator(".hr-tree").get_by_text("Pump 1").click()
    expect(page).to_have_url(re.compile(PUMP))
    rows = page.locator("tr[data-tag]")
    expected = sum(path.startswith(f"{PUMP}/") for path in seen.tag_ids())
    assert expected > 21  # measured, and what formulas give
    expect(rows).to_have_count(expected)
    row = page.locator(f'tr[data-tag="{seen.tag_ids()[f"{PUMP}/flow"]}"]')
    expect(row).to_contain_text("m³/h")
    expect(row.locator("[data-f=quality]")).to_have_text("Good")
    value = row.locator("[data-f=value]")
    shown = {value.inner_text()}
    until_sync(lambda: (shown.add(value.inner_text()), len(shown) >= 3)[1], 20, "a moving value")
    newest = seen.values(f"{PUMP}/flow", CLOCK.now_us() - 30_000_000)
    assert any(float(text) == pytest.approx(v, abs=0.006) for text in shown for v in newest)


def test_a_trend_of_different_units_zooms_to_the_raw_samples(
    demo: Installation, page: Page, seen: Observer
):
    ids = seen.tag_ids()
    paths = [f"{PUMP}/flow", f"{PUMP}/active_power", "environment/hall_a/climate_1/temperature"]
    waveform = "machining/milling/cnc_1/spindle_vibration_waveform"
    tags = ",".join(str(ids[path]) for path in [*paths, waveform])
    page.goto(f"{demo.url}/trend?tags={tags}")
    expect(page.locator(".hr-chip")).to_have_count(4)
    page.wait_for_function(
        "() => window.hr?.trend?.state().lines.filter(l => l.samples > 3).length === 4"
    )
    page.locator('[data-span="60000"]').click()
    # A thousand samples a second are reduced in a wide view.
    page.wait_for_function("() => hr.trend.state().lines[3]?.raw === false")
    box = page.locator(".hr-plot").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] - 150, box["y"] + 200)
    span_ms = "() => { const v = hr.trend.state().view; return v.end - v.start; }"
    while page.evaluate(span_ms) > 20_000:
        before = page.evaluate(span_ms)
        page.mouse.wheel(0, -250)
        page.wait_for_function(f"(before) => ({span_ms})() < before", arg=before)
    page.wait_for_function(
        "() => { const s = hr.trend.state(), l = s.lines[0];"
        " return l.raw && l.t.filter(t => t > s.view.start && t < s.view.end).length >= 3; }"
    )
    state = page.evaluate("() => { const s = hr.trend.state(); return [s.view, s.lines[0]]; }")
    view, line = state
    stored = seen.samples(paths[0], int(view["start"] * 1000), int(view["end"] * 1000))
    exact = set(stored["value"].to_list())
    inside = [
        v for t, v in zip(line["t"], line["v"], strict=True) if view["start"] < t < view["end"]
    ]
    assert inside and set(inside) <= exact


def test_a_restarted_device_turns_its_tile_and_back(demo: Installation, page: Page):
    tile = page.locator('[data-unit="utilities/cooling/loop_1"]')
    page.goto(demo.url)
    expect(tile).to_have_class(re.compile(r"\bgood\b"))
    overview = page.context.new_page()
    overview.goto(demo.url)
    other = overview.locator('[data-unit="utilities/cooling/loop_1"]')
    expect(other).to_have_class(re.compile(r"\bgood\b"))
    _fault(page, demo, "device_restart", "cooling_plc")
    expect(other).to_have_class(re.compile(r"\bbad\b"))
    expect(other).to_contain_text("22 bad")
    expect(overview.locator(f'[data-unit="{PUMP}"]')).to_have_class(re.compile(r"\bgood\b"))
    expect(other).to_have_class(re.compile(r"\bgood\b"), timeout=60_000)
    overview.close()


@pytest.mark.soak  # the fault itself is tried in test_demo_faults.py
def test_a_slow_device_is_said_on_its_card_until_the_fault_is_stopped(
    demo: Installation, page: Page
):
    _fault(page, demo, "slow_device", "pumping_plc")
    faults = page.context.new_page()
    faults.goto(f"{demo.url}/faults")
    page.goto(f"{demo.url}/connections")
    card = page.locator('[data-connection="pumping_plc"]')
    expect(card).to_contain_text("EDGE-1018", timeout=30_000)
    expect(card).to_contain_text("scan_interval_ms")
    slow = faults.locator('[data-fault="slow_device"]')
    slow.get_by_role("button", name="Stop").click()
    expect(slow.get_by_role("button", name="Stop")).to_have_count(0)
    expect(card).to_contain_text("recovered", timeout=30_000)
    faults.close()


class Device:
    """A Modbus server of the test, in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        points = [Point("holding:0:float32", "float32", 21.5), Point("holding:2", "uint16", 7)]
        self.emulator = ModbusEmulator([*points, Point("coil:0", "bool", True)])
        self._do(self.emulator.start())

    def set(self, value: float) -> None:
        self._do(self.emulator.update({"holding:0:float32": value}, CLOCK.now_us()))

    def stop(self) -> None:
        self._do(self.emulator.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _do(self, work) -> None:  # type: ignore[no-untyped-def] # any coroutine
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


@pytest.fixture(scope="module")
def device() -> Iterator[Device]:
    made = Device()
    yield made
    made.stop()


def test_a_device_is_browsed_and_added_paused_resumed_and_undone(
    demo: Installation, page: Page, device: Device, seen: Observer
):
    before = demo.folder.site_file.read_text()
    page.goto(f"{demo.url}/connections")
    page.get_by_role("link", name="Add a connection").click()
    page.locator('[data-protocol="modbus"]').click()
    page.locator('[data-field="name"]').fill("furnace_plc")
    page.locator('[data-field="endpoint"]').fill(device.emulator.endpoint)
    page.locator("[data-next]").click()
    page.locator("[data-test]").click()
    expect(page.locator("[data-result]")).to_contain_text("The device answers")
    page.locator("[data-next]").click()
    page.locator('[data-field="base"]').fill("machining/heat/furnace_1")
    page.locator('[data-field="base"]').press("Tab")
    _browse(page)
    page.locator('[data-field="address"]').fill("holding:0:float32")
    page.locator("[data-add-address]").click()
    chosen = page.locator("[data-chosen]")
    expect(chosen).to_have_count(2)
    chosen.last.locator("input").first.fill("machining/heat/furnace_1/temperature")
    chosen.last.locator("input").last.fill("Cel")
    page.locator("[data-next]").click()
    expect(page.locator(".hr-toml")).to_contain_text("[connection.furnace_plc]")
    page.locator("[data-next]").click()
    card = page.locator('[data-connection="furnace_plc"]')
    expect(card).to_contain_text("Connected", timeout=30_000)
    values = page.context.new_page()
    values.goto(f"{demo.url}/equipment/machining/heat/furnace_1")
    row = values.locator("tr[data-tag]", has_text="Temperature")
    expect(row.locator("[data-f=value]")).to_have_text("21.50")
    device.set(48.25)
    expect(row.locator("[data-f=value]")).to_have_text("48.25")
    values.close()
    page.get_by_role("button", name="Undo").click()
    expect(card).to_have_count(0, timeout=30_000)
    assert demo.folder.site_file.read_text() == before
    until_sync(lambda: "machining/heat/furnace_1/temperature" not in seen.tag_ids(), 20, "undone")
    page.get_by_role("button", name="Undo").click()  # undoing an undo brings it back
    expect(card).to_contain_text("Connected", timeout=30_000)
    _pause_and_resume(card, demo)


def _browse(page: Page) -> None:
    """Choose the device's one coil by browsing."""
    listed = page.locator("[data-browse] [data-row]")
    expect(listed.first).to_be_visible(timeout=30_000)
    folder = listed.filter(has_text=re.compile("coil", re.IGNORECASE)).first
    folder.click()
    leaf = page.locator('[data-browse] [data-address="coil:0"]')
    expect(leaf).to_be_visible(timeout=30_000)
    leaf.click()
    expect(page.locator("[data-chosen]")).to_have_count(1)


def _pause_and_resume(card: Locator, demo: Installation) -> None:
    file = demo.folder.site_file
    card.get_by_role("button", name="Pause").click()
    expect(card).to_contain_text("Paused", timeout=30_000)
    assert "enabled = false" in file.read_text()
    card.get_by_role("button", name="Resume").click()
    expect(card).to_contain_text("Connected", timeout=30_000)
    assert "enabled = false" not in file.read_text()


def test_the_chinese_interface_is_chinese_everywhere(demo: Installation, page: Page):
    page.goto(demo.url)
    page.get_by_role("button", name="中文").click()
    expect(page.get_by_role("heading", name="站点总览")).to_be_visible()
    expect(page.locator("body")).to_contain_text("加工中心")
    expect(page.locator('[data-unit="machining/milling/cnc_1"]')).to_contain_text("主轴负载")
    page.goto(f"{demo.url}/faults")
    for name in FAULTS_ZH:
        expect(page.get_by_role("heading", name=name)).to_be_visible()
    page.goto(f"{demo.url}/equipment/{PUMP}")
    expect(page.locator(".hr-table")).to_contain_text("流量")
    latin = re.compile(r"^[A-Za-z][A-Za-z ]+$")
    names = page.locator(".hr-tagname").evaluate_all("e => e.map(x => x.firstChild.textContent)")
    assert len(names) > 21 and not [name for name in names if latin.match(name)]
    page.get_by_role("button", name="English").first.click()
    expect(page.locator(".hr-table")).to_contain_text("Flow")


@pytest.mark.parametrize("theme", ["light", pytest.param("dark", marks=pytest.mark.soak)])
def test_no_page_scrolls_sideways_on_a_phone(
    demo: Installation, browser: Browser, signed_in: BrowserContext, seen: Observer, theme: str
):
    tag_id = seen.tag_ids()[f"{PUMP}/flow"]
    context = browser.new_context(
        viewport={"width": 390, "height": 844},
        color_scheme="dark" if theme == "dark" else "light",
        has_touch=True,
        storage_state=signed_in.storage_state(),
    )
    page = context.new_page()
    for path in (
        "/", "/equipment", f"/equipment/{PUMP}", "/equipment/machining/milling/cnc_1",
        f"/trend?tags={tag_id}", "/connections", "/connections/add", "/events", "/faults",
        "/users", "/profile",
    ):  # fmt: skip
        page.goto(demo.url + path)
        expect(page.locator("h1")).to_be_visible()
        width = page.evaluate("() => document.documentElement.scrollWidth")
        assert width <= 390, (path, width)
    page.goto(f"{demo.url}/equipment/{PUMP}")
    expect(page.locator(".hr-tree a.on")).to_be_in_viewport()  # the tree is a low box there
    context.close()
