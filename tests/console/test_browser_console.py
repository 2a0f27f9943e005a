"""A real browser drives the console: sign-in, tree, trend, tiles, Chinese, a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser_fixture import open_browser, sign_in
from playwright.sync_api import Browser, Page, expect
from site_fixture import CLOCK, RunningSite, plain_values

from headrace.model.status import BAD_SENSOR_FAILURE
from headrace.model.time import US_PER_MS, US_PER_S

pytestmark = pytest.mark.browser
FLOW = "utilities/pumping/pump_1/flow"
LOAD = "machining/milling/cnc_1/spindle_load"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture
def page(browser: Browser, running_site: RunningSite) -> Iterator[Page]:
    """A signed-in page at 1280 px; a script error on it fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    sign_in(opened, running_site)
    running_site.publish(plain_values(running_site.tags))
    running_site.publish_health(read=10, published=9)
    yield opened
    context.close()
    assert not errors


def test_wrong_password_says_so_and_the_first_password_must_be_changed(
    browser: Browser, running_site: RunningSite
) -> None:
    page = browser.new_context().new_page()
    page.goto(f"{running_site.url}/equipment")
    expect(page).to_have_url(re.compile("/sign-in"))
    page.fill("#name", "admin")
    page.fill("#password", "not this one")
    page.click("button[type=submit]")
    expect(page.get_by_role("alert")).to_be_visible()
    page.fill("#password", running_site.first_password)
    page.click("button[type=submit]")
    expect(page).to_have_url(re.compile("/change-password"))
    page.goto(f"{running_site.url}/connections")
    expect(page).to_have_url(re.compile("/change-password"))
    page.fill("#old", running_site.first_password)
    page.fill("#new", "one long phrase more")
    page.fill("#again", "another long phrase")
    page.click("button[type=submit]")
    expect(page.get_by_role("alert")).to_be_visible()
    for field, text in (
        ("old", running_site.first_password),
        ("new", "one long phrase more"),
        ("again", "one long phrase more"),
    ):
        page.fill(f"#{field}", text)
    page.click("button[type=submit]")
    expect(page.get_by_role("status")).to_be_visible()
    page.fill("#name", "admin")
    page.fill("#password", "one long phrase more")
    page.click("button[type=submit]")
    expect(page.locator(".hr-tile").first).to_be_visible()
    page.context.close()


def test_the_tree_leads_to_live_values(page: Page, running_site: RunningSite) -> None:
    page.goto(f"{running_site.url}/equipment")
    page.locator(".hr-tree").get_by_text("Pump 1").click()
    expect(page).to_have_url(re.compile("/equipment/utilities/pumping/pump_1"))
    row = page.locator(f'tr[data-tag="{running_site.tags[FLOW]}"]')
    running_site.publish({FLOW: 123.4})
    expect(row.locator("[data-f=value]")).to_have_text("123.4")
    expect(row.locator("[data-f=quality]")).to_have_text("Good")
    running_site.publish({FLOW: 99.0}, status=BAD_SENSOR_FAILURE)
    expect(row.locator("[data-f=quality]")).to_have_text("Bad quality")
    row.locator("a").click()
    expect(page).to_have_url(re.compile("/trend"))
    expect(page.locator(".hr-chip")).to_contain_text("Flow")


def test_a_value_reaches_the_screen_at_once(page: Page, running_site: RunningSite) -> None:
    page.goto(f"{running_site.url}/equipment/utilities/pumping/pump_1")
    selector = f'tr[data-tag="{running_site.tags[FLOW]}"] [data-f=value]'
    expect(page.locator(selector)).not_to_have_text("–")
    page.evaluate(
        """(selector) => { window.seen = {}; const cell = document.querySelector(selector);
        new MutationObserver(() => { window.seen[cell.textContent] ??= Date.now(); })
          .observe(cell, {childList: true, characterData: true, subtree: true}); }""",
        selector,
    )
    waits_ms = []
    for number in range(5):
        value = 500 + number
        sent_us = CLOCK.now_us()
        running_site.publish({FLOW: float(value)}, at_us=sent_us)
        page.wait_for_function("(v) => window.seen[v] !== undefined", arg=str(value))
        seen_ms = page.evaluate("(v) => window.seen[v]", str(value))
        waits_ms.append(seen_ms - sent_us / US_PER_MS)
    # The time includes the test's own connection to the broker, made anew for each value.
    assert sorted(waits_ms)[2] < 1_000, waits_ms


def test_a_bad_value_turns_the_tile(page: Page, running_site: RunningSite) -> None:
    page.goto(running_site.url)
    tile = page.locator('[data-unit="machining/milling/cnc_1"]')
    expect(tile).to_have_class(re.compile(r"\bgood\b"))
    running_site.publish({LOAD: 1.0}, status=BAD_SENSOR_FAILURE)
    expect(tile).to_have_class(re.compile(r"\bbad\b"))
    expect(tile).to_contain_text("1 bad")
    running_site.publish({LOAD: 1.0})
    expect(tile).to_have_class(re.compile(r"\bgood\b"))


def test_zoom_asks_again_and_no_spike_is_lost(page: Page, running_site: RunningSite) -> None:
    count, end_us = 200_000, CLOCK.now_us() - 3_600 * US_PER_S
    start_us = end_us - count * US_PER_S // 10
    times = start_us + np.arange(count, dtype=np.int64) * (US_PER_S // 10)
    values = np.sin(np.arange(count) / 5_000) * 10
    spike = 123_457
    values[spike] = 4_711.0
    tag_id = running_site.tags[LOAD]
    running_site.publish_columns(np.full(count, tag_id), times, values)
    query = f"tags={tag_id}&start={start_us // US_PER_MS}&end={end_us // US_PER_MS}"
    page.goto(f"{running_site.url}/trend?{query}")
    page.wait_for_function(
        f"() => window.hr?.trend?.state().lines[0]?.samples >= {count}", timeout=30_000
    )
    line = _line(page)
    assert not line["raw"] and len(line["v"]) < count / 10
    assert max(v for v in line["v"] if v is not None) == 4_711.0
    assert min(v for v in line["v"] if v is not None) == pytest.approx(values.min())
    box = page.locator(".hr-plot").bounding_box()
    assert box is not None
    part = (times[spike] - start_us) / (end_us - start_us)
    page.mouse.move(box["x"] + 56 + part * (box["width"] - 74), box["y"] + 200)
    for _ in range(5):
        page.mouse.wheel(0, -250)
    page.wait_for_function("() => window.hr.trend.state().lines[0]?.raw === true", timeout=30_000)
    page.wait_for_load_state("networkidle")
    line, view = _line(page), page.evaluate("() => window.hr.trend.state().view")
    assert view["end"] - view["start"] < (end_us - start_us) / US_PER_MS / 100
    inside = [v for t, v in zip(line["t"], line["v"], strict=True) if t == times[spike] / US_PER_MS]
    assert inside == [4_711.0]
    assert "start=" in page.url and str(tag_id) in page.url


def _line(page: Page) -> dict[str, Any]:
    line: dict[str, Any] = page.evaluate("() => window.hr.trend.state().lines[0]")
    return line


def test_tags_are_picked_and_removed(page: Page, running_site: RunningSite) -> None:
    page.goto(f"{running_site.url}/trend")
    expect(page.get_by_text("Nothing chosen yet")).to_be_visible()
    page.get_by_role("button", name="Add tags").click()
    page.get_by_placeholder("Search by path or title").fill("pump_1 flow")
    page.locator(f'[data-row="{running_site.tags[FLOW]}"]').click()
    page.get_by_role("button", name="Done").click()
    expect(page.locator(".hr-chip")).to_have_count(1)
    page.wait_for_function("() => window.hr.trend.state().lines.length === 1")
    page.locator("[data-remove]").click()
    expect(page.locator(".hr-chip")).to_have_count(0)


def test_a_connection_says_what_is_wrong_and_what_to_do(
    page: Page, running_site: RunningSite
) -> None:
    page.goto(f"{running_site.url}/connections")
    card = page.locator('[data-connection="plc_1"]')
    running_site.publish_health(
        "refused",
        last_error_code="EDGE-1004",
        last_error="plc_1 refused the session",
        last_error_remedy="Check the unit id.",
        last_error_us=CLOCK.now_us(),
    )
    expect(card).to_contain_text("Needs a person")
    expect(card).to_contain_text("EDGE-1004")
    expect(card).to_contain_text("Check the unit id.")
    running_site.publish_health("connected", read=5_432)
    expect(card).to_contain_text("Connected")
    expect(card).to_contain_text("5,432")


def test_a_viewer_gets_no_buttons_and_no_admin_pages(
    browser: Browser, running_site: RunningSite
) -> None:
    page = browser.new_context().new_page()
    sign_in(page, running_site, user="leo")
    page.goto(f"{running_site.url}/users")
    expect(page.get_by_role("heading", name="Your role does not allow this").first).to_be_visible()
    page.goto(f"{running_site.url}/connections")
    running_site.publish_health()
    expect(page.locator('[data-connection="plc_1"]')).to_be_visible()
    expect(page.get_by_role("button", name="Pause")).to_have_count(0)
    page.context.close()


def test_the_chinese_interface(page: Page, running_site: RunningSite) -> None:
    page.goto(running_site.url)
    page.get_by_role("button", name="中文").click()
    expect(page.get_by_role("heading", name="站点总览")).to_be_visible()
    expect(page.locator("html")).to_have_attribute("lang", "zh")
    for path, title in (
        ("/equipment", "整个站点"),
        ("/trend", "趋势"),
        ("/connections", "连接"),
        ("/events", "事件"),
        ("/users", "用户"),
        ("/profile", "个人设置"),
    ):
        page.goto(running_site.url + path)
        expect(page.locator("h1")).to_have_text(title)
    page.get_by_role("button", name="English").first.click()
    expect(page.locator("h1")).to_have_text("Profile")


@pytest.mark.parametrize("theme", ["light", pytest.param("dark", marks=pytest.mark.soak)])
def test_no_page_scrolls_sideways_on_a_phone(
    browser: Browser, running_site: RunningSite, theme: str, tmp_path: Path
) -> None:
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, color_scheme=theme, has_touch=True
    )
    page = context.new_page()
    page.goto(f"{running_site.url}/sign-in")
    assert _width(page) <= 390
    sign_in(page, running_site)
    running_site.publish(plain_values(running_site.tags))
    tag_id = running_site.tags[FLOW]
    for path in (
        "/", "/equipment", "/equipment/utilities/pumping/pump_1", f"/trend?tags={tag_id}",
        "/connections", "/connections/add", "/events", "/faults", "/users", "/profile",
    ):  # fmt: skip
        page.goto(running_site.url + path)
        expect(page.locator("h1")).to_be_visible()
        assert _width(page) <= 390, path
        page.screenshot(path=tmp_path / "page.png")
    page.locator(".hr-tabs summary").click()
    expect(page.locator(".hr-sheet")).to_be_visible()
    context.close()


def _width(page: Page) -> int:
    width: int = page.evaluate("() => document.documentElement.scrollWidth")
    return width


def test_nothing_is_fetched_from_elsewhere(page: Page, running_site: RunningSite) -> None:
    foreign: list[str] = []
    page.on(
        "request",
        lambda request: (
            foreign.append(request.url)
            if not request.url.startswith((running_site.url, "data:", "ws:", "blob:"))
            else None
        ),
    )
    for path in ("/", "/trend", "/connections/add"):
        page.goto(running_site.url + path)
        expect(page.locator("h1")).to_be_visible()
    assert foreign == []
