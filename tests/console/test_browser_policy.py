"""The policy in a real browser: why somebody may not, and a change of a role that is signed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser_fixture import open_browser, sign_in
from playwright.sync_api import Browser, expect
from site_fixture import PASSWORD, RunningSite

from headrace.security.identity import Identity
from waiting import until_sync

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture
def identity(running_site: RunningSite) -> Iterator[Identity]:
    found = Identity(running_site.folder)
    if "tom" not in [user.name for user in found.users()]:
        found.add_user("tom", "viewer", PASSWORD)
    yield found
    found.close()


def test_an_officer_asks_why_and_signs_a_role(
    browser: Browser, running_site: RunningSite, identity: Identity
) -> None:
    page = browser.new_context().new_page()
    sign_in(page, running_site, user="mia")
    page.goto(f"{running_site.url}/policy")
    page.get_by_label("Who").click()
    page.get_by_role("option", name="tom").click()
    page.get_by_label("On what").fill("pump_1")
    page.get_by_role("button", name="Ask", exact=True).click()
    answer = page.locator("[data-policy-answer]")
    expect(answer).to_contain_text("Denied")
    expect(answer).to_contain_text("viewer tom may not write equipment/utilities/pumping/pump_1")
    page.goto(f"{running_site.url}/users")
    page.locator('[data-user="tom"] .q-select').click()
    page.get_by_role("option", name="Operator").click()
    page.get_by_label("Reason").fill("joins the shift")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign", exact=True).click()
    until_sync(
        lambda: {user.name: user.role for user in identity.users()}["tom"] == "operator",
        30,
        "the signed change is done",
    )
    [signed] = identity.audit.entries(actor="mia", action="sign")[:1]
    assert signed.resource == "user_role/tom" and "joins the shift" in signed.detail
    page.context.close()
