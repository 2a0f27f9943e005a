"""The page "Audit": entries, who read a tag, a look at the whole chain, a checkpoint as a file."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import msgspec
import pytest
from browser_fixture import open_browser, sign_in
from playwright.sync_api import Page, expect
from site_fixture import RunningSite

from headrace.security.audit import Checkpoint
from headrace.security.identity import Identity

pytestmark = pytest.mark.browser
TAG = "utilities/pumping/pump_2/head"


def shot(page: Page, name: str) -> None:
    """A picture for who looks at the page; only when a folder is named."""
    folder = os.environ.get("HEADRACE_SHOTS")
    if folder:
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def test_the_chain_is_read_verified_and_taken_away(
    running_site: RunningSite, tmp_path: Path
) -> None:
    running_site.publish({TAG: 12.5})
    identity = Identity(running_site.folder)
    secret = identity.add_token("leo", "excel", role="viewer")
    identity.close()
    head = {"Authorization": f"Bearer {secret}"}
    asked = {"tags": TAG, "start": "-1h", "format": "csv"}
    got = httpx.get(f"{running_site.url}/api/v1/samples", params=asked, headers=head)
    assert got.status_code == 200
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        sign_in(page, running_site)
        page.goto(f"{running_site.url}/audit")
        page.locator("[data-by=action]").fill("token.add")
        expect(page.locator("tbody tr", has_text="user/leo").first).to_be_visible()
        expect(page.locator("tbody")).not_to_contain_text("sign_in")
        shot(page, "audit-entries")
        page.get_by_role("button", name="Verify").click()
        expect(page.locator("[data-verdict=good]")).to_contain_text("The chain is whole")
        with page.expect_download() as download:
            page.get_by_role("button", name="Checkpoint").click()
        download.value.save_as(tmp_path / "place.json")
        place = msgspec.json.decode((tmp_path / "place.json").read_bytes(), type=Checkpoint)
        assert place.number > 0
        page.get_by_role("button", name="Who read").click()
        page.locator("[data-by=tag]").fill("pump_2 head")
        line = page.locator("tbody tr", has_text="export").first
        expect(line).to_contain_text("leo")
        expect(line).to_contain_text("rest/samples")
        page.locator("[data-by=actor]").fill("nobody here")
        expect(page.get_by_text("Nothing in this time")).to_be_visible()
        page.locator("[data-by=actor]").fill("")
        expect(line).to_be_visible()
        shot(page, "audit-reads")
        identity = Identity(running_site.folder)
        identity.set_preferences("mia", language="zh")
        identity.close()
        page.goto(f"{running_site.url}/audit")
        expect(page.get_by_role("button", name="校验")).to_be_visible()
        expect(page.locator("tbody tr").first).to_be_visible()
        shot(page, "audit-zh")
        page.set_viewport_size({"width": 390, "height": 800})
        shot(page, "audit-phone")
        sign_in(page, running_site, user="leo")
        page.goto(f"{running_site.url}/audit")
        expect(page.locator(".hr-empty")).to_be_visible()
        expect(page.get_by_role("button", name="Verify")).to_have_count(0)
