"""A real browser on the page of formulas: a result, an error with its place, Chinese."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from browser_fixture import open_browser, sign_in
from formula_site import with_pumps
from playwright.sync_api import Page, expect
from site_fixture import CLOCK, RunningSite

from headrace.model.time import US_PER_S

pytestmark = pytest.mark.browser
PUMP = "utilities/pumping/pump_1"


@pytest.fixture
def page(running_site: RunningSite) -> Iterator[Page]:
    times = CLOCK.now_us() - np.arange(600, 0, -1, dtype=np.int64) * US_PER_S
    running_site.publish_columns(
        np.full(600, running_site.tags[f"{PUMP}/flow"]), times, np.arange(600) / 10
    )
    with open_browser() as browser:
        opened = browser.new_page(viewport={"width": 1280, "height": 900})
        errors: list[str] = []
        opened.on("pageerror", lambda error: errors.append(str(error)))
        sign_in(opened, running_site)
        yield opened
        assert not errors


def test_a_formula_is_written_evaluated_and_mended(page: Page, running_site: RunningSite) -> None:
    page.goto(f"{running_site.url}/formulas?equipment={PUMP}")
    field = page.get_by_label("Formula", exact=True)
    page.locator("[data-insert=flow]").click()
    expect(field).to_have_value("flow")
    field.fill("mean(flow, 1 min) > 30")
    field.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("30 has no unit")
    expect(page.get_by_role("alert").locator("pre")).to_contain_text("^^")
    field.fill("mean(flow, 1 min) > 30 m3/h for 10 s")
    page.get_by_role("button", name="Evaluate").click()
    result = page.locator("[data-result]")
    expect(result).to_contain_text("true or false")
    expect(page.locator("canvas").first).to_be_visible()
    assert int(result.get_attribute("data-result") or 0) >= 600


def test_texts_are_a_table_and_messages_are_chinese(page: Page, running_site: RunningSite) -> None:
    page.goto(f"{running_site.url}/")
    page.get_by_role("button", name="中文").click()
    expect(page.locator("html")).to_have_attribute("lang", "zh")
    page.goto(f"{running_site.url}/formulas?equipment={PUMP}")
    field = page.get_by_label("公式", exact=True)
    field.fill("flwo * 2")
    field.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("是否指 flow")
    field.fill('if flow > 30 m3/h then "高" else "低"')
    field.press("Enter")
    expect(page.locator("table.hr-table td", has_text="高").first).to_be_visible()


def test_a_formula_is_saved_for_its_type_and_taken_out(
    page: Page, running_site: RunningSite
) -> None:
    with with_pumps(running_site) as client:
        page.goto(f"{running_site.url}/formulas?equipment={PUMP}")
        field = page.get_by_label("Formula", exact=True)
        page.locator("[data-insert=rated_power]").click()
        expect(field).to_have_value("rated_power")
        field.fill("flow * head -> m4/h")
        page.get_by_label("Name", exact=True).fill("lift")
        page.get_by_role("button", name="Save as formula of the type").click()
        row = page.locator('[data-formula="pump.lift"]')
        expect(row).to_contain_text("lift = flow * head -> m4/h")
        expect(row).to_contain_text("assets: 1")
        field.fill("flow")
        row.get_by_role("button", name="Open").click()
        expect(field).to_have_value("flow * head -> m4/h")
        page.goto(f"{running_site.url}/equipment?path={PUMP}")
        expect(page.get_by_text("formula pump.lift")).to_be_visible()
        page.goto(f"{running_site.url}/formulas?equipment={PUMP}")
        row.get_by_role("button", name="Remove").click()
        page.get_by_role("dialog").get_by_role("button", name="Remove").click()
        expect(row).to_have_count(0)
        assert "pump.lift" not in client.formulas()
