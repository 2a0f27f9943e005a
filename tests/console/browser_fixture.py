"""A real Chromium for the browser tests; they skip with a reason where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from site_fixture import PASSWORD, RunningSite

from headrace.security.identity import Identity

ARGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@contextmanager
def open_browser() -> Iterator[Browser]:
    """The system's Chromium."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no chromium; install it with: apt-get install chromium")
    expect.set_options(timeout=45_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGS)
        yield browser
        browser.close()


def sign_in(page: Page, site: RunningSite, *, user: str = "mia") -> None:
    """Sign in by the form and wait for the overview, in English whatever an earlier test left chosen."""
    identity = Identity(site.folder)
    try:
        identity.set_preferences(user, language="en")
    finally:
        identity.close()
    page.goto(f"{site.url}/sign-in")
    page.fill("#name", user)
    page.fill("#password", PASSWORD)
    page.click("button[type=submit]")
    expect(page.locator(".hr-page")).to_be_visible()
