"""A real browser on the alarms: the list is live, worked in bulk and by keys, and on a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest
from alarm_fixture import Alarms, serve_alarms
from alarm_site import CNCS, PUMPS
from browser_fixture import open_browser, sign_in
from playwright.sync_api import Browser, Page, expect
from site_fixture import CLOCK, RunningSite

from headrace.model.time import US_PER_S

pytestmark = pytest.mark.browser
FLOW = f"{PUMPS[0]}/low_flow"
OVERLOAD = f"{PUMPS[0]}/overload"
LOAD = f"{CNCS[0]}/spindle_high"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture
def alarms(running_site: RunningSite) -> Iterator[Alarms]:
    with serve_alarms(running_site) as served:
        yield served


@pytest.fixture
def page(browser: Browser, running_site: RunningSite, alarms: Alarms) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1360, "height": 900})
    opened = context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    sign_in(opened, running_site)
    yield opened
    context.close()
    assert not errors


def test_alarms_come_by_themselves_and_are_acknowledged_in_bulk(
    page: Page, running_site: RunningSite, alarms: Alarms
) -> None:
    page.goto(f"{running_site.url}/alarms")
    expect(page.get_by_text("No active alarms")).to_be_visible()
    for alarm in (LOAD, FLOW, OVERLOAD):
        alarms.do(alarm, "alarm")
    rows = page.locator("tr[data-alarm]")
    expect(rows).to_have_count(3)
    expect(rows.first).to_contain_text("Motor overloaded")
    expect(page.locator(".hr-nav [data-alarm-badge]")).to_have_text("3")
    page.locator("[data-choose=all]").click()
    page.locator("[data-bulk=acknowledge]").click()
    expect(page.locator("tr[data-state=ACKED]")).to_have_count(3)
    assert {s.acknowledged_by for s in alarms.store.states() if s.state == "ACKED"} == {"mia"}
    expect(page.locator(".hr-nav [data-alarm-badge]")).to_be_hidden()


def test_shelving_needs_a_reason_and_is_taken_back(
    page: Page, running_site: RunningSite, alarms: Alarms
) -> None:
    alarms.do(FLOW, "alarm")
    page.goto(f"{running_site.url}/alarms")
    row_of = page.locator(f'tr[data-alarm="{FLOW}"]')
    expect(row_of).to_be_visible()
    expect(page.locator("tr[data-alarm]")).to_have_count(1)
    page.keyboard.press("j")
    page.keyboard.press("x")
    expect(page.locator("[data-bulk=shelve]")).to_be_visible()
    page.keyboard.press("s")
    dialog = page.locator(".hr-dialog")
    dialog.get_by_role("button", name="Shelve", exact=True).click()
    expect(dialog).to_contain_text("Say why")
    dialog.get_by_label("Reason").fill("Strainer is being cleaned")
    dialog.get_by_role("button", name="Shelve", exact=True).click()
    expect(row_of).to_have_count(0)
    page.locator("[data-view=shelved]").click()
    expect(row_of).to_contain_text("until")
    state = alarms.store.get(FLOW)
    assert state is not None and state.reason == "Strainer is being cleaned"
    page.locator(".hr-undo").get_by_role("button", name="Undo").click()
    expect(row_of).to_have_count(0)
    page.locator("[data-view=active]").click()
    expect(row_of).to_have_attribute("data-state", "UNACK")


def test_an_alarm_tells_what_to_do_and_shows_its_onset(
    page: Page, running_site: RunningSite, alarms: Alarms
) -> None:
    onset_us = CLOCK.now_us() - 60 * US_PER_S
    times = onset_us + np.arange(-300, 50, dtype=np.int64) * US_PER_S
    tag_id = running_site.tags[f"{PUMPS[0]}/flow"]
    running_site.publish_columns(np.full(350, tag_id), times, np.full(350, 12.5))
    alarms.do(FLOW, "alarm", at_us=onset_us)
    page.goto(f"{running_site.url}/alarms")
    page.locator(f'tr[data-alarm="{FLOW}"]').click()
    drawer = page.locator(".hr-drawer")
    expect(drawer).to_contain_text("Open the suction valve")
    expect(drawer).to_contain_text("flow < 20 m3/h for 30 s")
    expect(drawer.locator("canvas")).to_be_visible()
    words = drawer.get_by_placeholder("Write what you see or do")
    words.fill("Valve found closed")
    words.press("Enter")
    expect(drawer.locator(".hr-happened")).to_contain_text("Valve found closed")
    expect(page).to_have_url(re.compile("alarm=utilities"))
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()


def test_a_viewer_sees_and_changes_nothing(
    browser: Browser, running_site: RunningSite, alarms: Alarms
) -> None:
    alarms.do(FLOW, "alarm")
    context = browser.new_context(viewport={"width": 1360, "height": 900})
    page = context.new_page()
    sign_in(page, running_site, user="leo")
    page.goto(f"{running_site.url}/alarms")
    expect(page.locator(f'tr[data-alarm="{FLOW}"]')).to_be_visible()
    expect(page.locator("[data-act]")).to_have_count(0)
    page.locator("[data-choose=all]").click()
    expect(page.locator(".hr-bulk")).to_contain_text("1 chosen")
    expect(page.locator("[data-bulk]:not([data-bulk=clear])")).to_have_count(0)
    context.close()


def test_journal_metrics_and_phone_fit(
    page: Page, running_site: RunningSite, alarms: Alarms
) -> None:
    for alarm in (FLOW, OVERLOAD, LOAD):
        alarms.do(alarm, "alarm")
    alarms.do(FLOW, "acknowledge", actor="leo")
    page.goto(f"{running_site.url}/alarms/journal")
    expect(page.locator("tr[data-event=acknowledge]").first).to_contain_text("leo")
    page.goto(f"{running_site.url}/alarms/metrics")
    expect(page.locator("[data-metric=standing_now]")).to_contain_text("3")
    expect(page.locator("canvas").first).to_be_visible()
    page.set_viewport_size({"width": 390, "height": 844})
    for path in ("/alarms", "/alarms/journal", "/alarms/metrics"):
        page.goto(f"{running_site.url}{path}")
        expect(page.locator("tr").first).to_be_attached()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    page.goto(f"{running_site.url}/alarms")
    page.locator(f'tr[data-alarm="{OVERLOAD}"] [data-act=acknowledge]').click()
    expect(page.locator(f'tr[data-alarm="{OVERLOAD}"]')).to_have_attribute("data-state", "ACKED")
