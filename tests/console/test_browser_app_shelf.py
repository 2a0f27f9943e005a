"""The catalog's refusals and an app's switches in a real browser, in both languages: what is not signed, not
benched or lacks a need; start and stop; the signature for a dangerous service."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gallery_app
import msgspec
import pytest
from playwright.sync_api import Page, expect
from site_fixture import PASSWORD, SUBJECTS, RunningSite

from headrace.bus.client import Bus
from headrace.security.identity import Identity
from waiting import until_sync

pytestmark = pytest.mark.browser
APP = "shelf-board"
"""Of packages that are only looked at; others use the same catalog."""


@pytest.fixture(scope="module")
def key(running_site: RunningSite) -> bytes:
    """A publisher that the installation trusts."""
    return gallery_app.trusting(running_site.folder)


@contextmanager
def flushing(site: RunningSite) -> Iterator[list[Any]]:
    """Answers the dangerous service, as its process would; gives what was asked."""
    ready, done = threading.Event(), threading.Event()
    asked: list[Any] = []

    async def serve(bus: Bus) -> None:
        import asyncio

        async def answer(body: bytes) -> bytes:
            asked.append(msgspec.json.decode(body))
            return msgspec.json.encode({"volume": 3.5})

        stop = await bus.answer(SUBJECTS.app_call("pump_board", "flush"), answer)
        await bus.client.flush()
        ready.set()
        await asyncio.to_thread(done.wait)
        await stop()

    thread = threading.Thread(target=lambda: site.with_bus(serve))
    thread.start()
    try:
        assert ready.wait(30)
        yield asked
    finally:
        done.set()
        thread.join()


def give(page: Page, content: bytes) -> None:
    """Drop a package on the catalog."""
    file = {"name": "a.hrapp", "mimeType": "application/octet-stream", "buffer": content}
    page.locator("input[type=file]").set_input_files(file)  # type: ignore[arg-type] # a file's content


def in_chinese(page: Page) -> None:
    page.reload()  # a notice would lie over the button
    page.get_by_role("button", name="中文").first.click()
    expect(page.locator("html")).to_have_attribute("lang", "zh")


def test_the_catalog_says_why_it_refuses(page: Page, running_site: RunningSite, key: bytes) -> None:
    site = running_site
    page.goto(f"{site.url}/catalog")
    with page.expect_file_chooser():
        page.locator("[data-upload]").click()
    give(page, gallery_app.package("2.0.0", None, app=APP))
    expect(page.get_by_text("APPS-2028 · nobody signed this package")).to_be_visible()
    in_chinese(page)
    give(page, gallery_app.package("2.0.0", None, app=APP))
    expect(page.get_by_text("APPS-2028 · 软件包未签名")).to_be_visible()
    page.reload()
    page.get_by_role("button", name="English").first.click()
    expect(page.locator("html")).to_have_attribute("lang", "en")
    give(page, gallery_app.package("2.0.0", key, passed=(True, False), app=APP))
    row = page.locator(f'[data-package="{APP}"] tr', has_text="2.0.0")
    expect(row).to_contain_text("Bench 1 of 2")
    newer = gallery_app.package(
        "2.1.0", key, passed=(True, True), app=APP,
        edit=lambda text: text.replace('package = "pump"', 'package = "pump"\nversion = ">=9"'),
    )  # fmt: skip
    give(page, newer)
    row = page.locator(f'[data-package="{APP}"] tr', has_text="2.1.0")
    expect(row).to_contain_text("Bench 2 of 2")
    expect(row).to_contain_text("needs pump >=9")
    card = page.locator(f'[data-package="{APP}"]')
    card.get_by_role("button", name="Install", exact=True).click()
    expect(page.get_by_text("APPS-2049 · shelf-board 2.1.0 needs pump >=9")).to_be_visible()
    in_chinese(page)
    card.get_by_role("button", name="安装", exact=True).click()
    expect(page.get_by_text("APPS-2049 · 缺少它所依赖的软件包")).to_be_visible()
    assert APP not in site.folder.site_file.read_text(encoding="utf-8")


def test_an_app_is_stopped_and_started(page: Page, running_site: RunningSite, key: bytes) -> None:
    site = running_site
    gallery_app.take(site.folder, gallery_app.package("1.0.0", key))
    text = site.folder.site_file.read_text(encoding="utf-8")
    with site.site_file(text + gallery_app.BIND):
        page.goto(f"{site.url}/apps")
        card = page.locator('[data-app="pump-board"]')
        expect(card).to_contain_text("Silent")
        card.get_by_role("button", name="Stop").click()
        expect(card).to_contain_text("Off")
        assert "enabled = false" in site.folder.site_file.read_text(encoding="utf-8")
        in_chinese(page)
        expect(card).to_contain_text("已停用")
        card.get_by_role("button", name="启动").click()
        expect(card.get_by_role("button", name="停止")).to_be_visible()
        expect(card).not_to_contain_text("已停用")
        assert "enabled = false" not in site.folder.site_file.read_text(encoding="utf-8")
    identity = Identity(site.folder)
    try:
        entries = identity.audit.entries(resource="app/pump-board", limit=20)
        told = [(e.action, e.outcome) for e in entries if e.action.startswith("app.")]
    finally:
        identity.close()
    assert told[:4] == [
        ("app.enable", "done"), ("app.enable", "begun"),
        ("app.disable", "done"), ("app.disable", "begun"),
    ]  # fmt: skip


def test_a_dangerous_service_asks_for_a_signature(
    page: Page, running_site: RunningSite, key: bytes
) -> None:
    site = running_site
    gallery_app.take(site.folder, gallery_app.package("1.0.0", key))
    text = site.folder.site_file.read_text(encoding="utf-8")
    with site.site_file(text + gallery_app.BIND), flushing(site) as asked:
        page.goto(f"{site.url}/apps/pump-board?view=about")
        form = page.locator("section", has=page.locator('[data-service="flush"]'))
        expect(form).to_contain_text("with your signature")
        form.locator("input").fill("5")
        form.locator("[data-ask]").click()
        dialog = page.locator(".hr-dialog")
        expect(dialog).to_contain_text("operate · app/pump-board")
        dialog.get_by_role("button", name="Cancel").click()
        assert asked == []
        form.locator("[data-ask]").click()
        dialog.get_by_label("Reason").fill("mud in the sump")
        dialog.get_by_label("Password").fill("not mine at all")
        dialog.get_by_role("button", name="Sign", exact=True).click()
        expect(page.get_by_text("SEC-").first).to_be_visible()
        assert asked == []
        dialog.get_by_label("Password").fill(PASSWORD)
        dialog.get_by_role("button", name="Sign", exact=True).click()
        expect(form.locator("[data-answer]")).to_contain_text("3.5")
        assert asked == [{"minutes": 5}]
    identity = Identity(site.folder)
    try:
        until_sync(lambda: len(identity.audit.entries(action="operate", limit=2)) == 2, 30)
        done, begun = identity.audit.entries(action="operate", limit=2)
        (signed,) = identity.audit.entries(action="sign", limit=1)
    finally:
        identity.close()
    assert (begun.outcome, done.outcome, done.actor) == ("begun", "done", "mia")
    assert begun.facts()["service"] == "flush" and "3.5" in done.facts()["answer"]
    assert signed.resource == "app/pump-board" and "mud in the sump" in signed.detail
