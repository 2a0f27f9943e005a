"""The loss ledger over REST, in the Python client and on its page."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from browser_fixture import open_browser, sign_in
from playwright.sync_api import Page, expect
from site_fixture import CLOCK, RunningSite

from headrace.client import connect
from headrace.model.errors import Misconfigured
from headrace.security.identity import Identity
from ledger_books import write_books


@pytest.fixture(scope="module")
def books(running_site: RunningSite) -> RunningSite:
    write_books(running_site.folder.ledger_file, CLOCK.now_us())
    return running_site


def token(site: RunningSite) -> str:
    identity = Identity(site.folder)
    try:
        return identity.add_token("mia", "test", role="viewer")
    finally:
        identity.close()


def test_rest_gives_both_sides_and_every_cause(books: RunningSite) -> None:
    url = f"{books.url}/api/v1/ledger"
    assert httpx.get(url).status_code == 401
    headers = {"Authorization": f"Bearer {token(books)}"}
    query = {"connection": "press_1", "group": "1000ms", "by": "connection"}
    answer = httpx.get(url, params=query, headers=headers).json()
    assert answer["unexplained"] == 0
    (row,) = answer["rows"]
    assert (row["expected"], row["stored"]) == (10, 6)
    assert row["causes"] == {"missed_slow": 2, "filtered": 1, "duplicate": 1}
    assert answer["causes"]["missed_slow"]["hop"] == "device"
    assert "scan_interval_ms" in answer["causes"]["missed_slow"]["remedy"]
    whole = httpx.get(url, headers=headers).json()
    assert whole["total"]["unexplained"] == 4
    bad = httpx.get(url, params={"start": "now", "end": "-1h"}, headers=headers)
    assert (bad.status_code, bad.json()["code"]) == (422, "CONS-1004")
    assert httpx.get(url, params={"by": "year"}, headers=headers).status_code == 422
    assert "/api/v1/ledger" in httpx.get(f"{books.url}/api/openapi.json", headers=headers).text


def test_the_client_gives_a_frame(books: RunningSite) -> None:
    with connect(books.url, token(books)) as site:
        frame = site.ledger(by="hour", connection="press_2")
        assert frame.select("connection", "published", "stored", "unexplained").rows() == [
            ("press_2", 9, 5, 4)
        ]
        assert site.ledger(connection="nowhere").height == 0
        with pytest.raises(Misconfigured):
            site.ledger(start="yesterday")


@pytest.fixture
def page(books: RunningSite) -> Iterator[Page]:
    with open_browser() as browser:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        opened = context.new_page()
        errors: list[str] = []
        opened.on("pageerror", lambda error: errors.append(str(error)))
        sign_in(opened, books)
        yield opened
        context.close()
        assert not errors


@pytest.mark.browser
def test_the_page_shows_what_is_unexplained_and_the_causes_of_a_click(
    books: RunningSite, page: Page
) -> None:
    page.get_by_role("link", name="Ledger").first.click()
    verdict = page.locator("[data-verdict]")
    expect(verdict).to_have_attribute("data-unexplained", "4")
    expect(verdict).to_contain_text("4 samples are unexplained")
    page.locator('tr[data-cell="local|press_1||1000ms"]').click()
    causes = page.locator("[data-causes]")
    expect(causes).to_contain_text("2 device too slow")
    expect(causes).to_contain_text("Lengthen scan_interval_ms")
    page.locator('.hr-line i[data-cell^="local|press_2|"]').click()
    expect(causes).to_contain_text("4 UNEXPLAINED")
    page.get_by_role("button", name="中文").click()
    expect(page.get_by_role("heading", name="样本去向")).to_be_visible()
    expect(page.locator("[data-verdict]")).to_contain_text("4 个样本无法解释")
    page.get_by_role("button", name="English").first.click()
    expect(page.get_by_role("heading", name="Where samples went")).to_be_visible()
