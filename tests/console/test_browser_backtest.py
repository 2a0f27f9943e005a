"""A real browser on the page of back-tests: episodes, other limits, events, an error, Chinese."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from browser_fixture import open_browser, sign_in
from playwright.sync_api import Page, expect
from site_fixture import CLOCK, RunningSite

from headrace.model.time import US_PER_S

pytestmark = pytest.mark.browser
PUMP = "utilities/pumping/pump_2"


@pytest.fixture
def page(running_site: RunningSite) -> Iterator[Page]:
    times = CLOCK.now_us() - np.arange(600, 0, -1, dtype=np.int64) * US_PER_S
    values = np.where(np.arange(600) % 200 >= 100, 50.0, 10.0)
    running_site.publish_columns(np.full(600, running_site.tags[f"{PUMP}/flow"]), times, values)
    with open_browser() as browser:
        opened = browser.new_page(viewport={"width": 1280, "height": 900})
        errors: list[str] = []
        opened.on("pageerror", lambda error: errors.append(str(error)))
        sign_in(opened, running_site)
        yield opened
        assert not errors


def test_an_alarm_is_tried_before_it_is_enabled(page: Page, running_site: RunningSite) -> None:
    page.goto(f"{running_site.url}/formulas")
    page.get_by_role("link", name="Back-test").click()
    page.goto(f"{running_site.url}/formulas/backtest?where={PUMP}&sweep=20..60..20")
    field = page.get_by_label("Condition or alarm")
    field.fill("flow > 40")
    field.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("40 has no unit")
    field.fill("alarm high: flow > 40 m3/h for 10 s, off below 15 m3/h")
    page.get_by_text("Marked events", exact=True).first.click()
    at = CLOCK.now_us() // US_PER_S
    page.get_by_label("Marked events").last.fill(f"time,label\n{at_iso(at - 100)},surge\n")
    page.get_by_role("button", name="Try it").click()
    found = page.locator("[data-result]")
    expect(found).to_contain_text("3 times on 1 assets")
    expect(page.get_by_text("1 of 1 events met")).to_be_visible()
    expect(page.locator("canvas")).to_have_count(2)
    expect(page.locator("table.hr-table td", has_text="surge")).to_be_visible()


def test_it_speaks_chinese(page: Page, running_site: RunningSite) -> None:
    page.goto(f"{running_site.url}/")
    page.get_by_role("button", name="中文").click()
    expect(page.locator("html")).to_have_attribute("lang", "zh")
    page.goto(f"{running_site.url}/formulas/backtest?where={PUMP}")
    field = page.get_by_label("条件或报警")
    field.fill("flow > 1000 m3/h")
    field.press("Enter")
    expect(page.get_by_text("在 1 个资产上不会触发")).to_be_visible()


def at_iso(second: int) -> str:
    return np.datetime_as_string(np.datetime64(second, "s")) + "Z"
