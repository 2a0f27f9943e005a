"""Apps in a real browser: catalog, install, bind, views, service form, value ledger, in both languages."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gallery_app
import httpx
import msgspec
import numpy as np
import pytest
from playwright.sync_api import Page, expect
from site_fixture import CLOCK, PASSWORD, SUBJECTS, RunningSite

from headrace.bus.client import Bus
from headrace.model.time import US_PER_S

pytestmark = pytest.mark.browser
PUMPS = ("utilities/pumping/pump_1", "utilities/pumping/pump_2")


@pytest.fixture(scope="module")
def key(running_site: RunningSite) -> bytes:
    """A publisher that the installation trusts."""
    return gallery_app.trusting(running_site.folder)


@contextmanager
def serving(site: RunningSite) -> Iterator[None]:
    """Answers the app's service, as its process would, while the context lasts."""
    ready, done = threading.Event(), threading.Event()

    async def serve(bus: Bus) -> None:
        import asyncio

        async def answer(body: bytes) -> bytes:
            flow = msgspec.json.decode(body)["flow"]
            curve = [{"flow": x, "head": 30 - x / 4} for x in range(0, 60, 10)]
            return msgspec.json.encode({"power": flow / 4, "curve": curve})

        stop = await bus.answer(SUBJECTS.app_call("pump_board", "what_if"), answer)
        await bus.client.flush()
        ready.set()
        await asyncio.to_thread(done.wait)
        await stop()

    thread = threading.Thread(target=lambda: site.with_bus(serve))
    thread.start()
    try:
        assert ready.wait(30)
        yield
    finally:
        done.set()
        thread.join()


def history(site: RunningSite) -> None:
    """An hour of both pumps, and newest values that lie in each band of the limits."""
    now_us = CLOCK.now_us()
    times = now_us - np.arange(0, 3_600, 30)[::-1] * US_PER_S
    for path in PUMPS:
        for name, level in (("flow", 35.0), ("power", 9.0)):
            ids = np.full(len(times), site.tags[f"{path}/{name}"])
            site.publish_columns(ids, times, level + np.sin(times / 3e8))
    values = {f"{PUMPS[0]}/flow": 47.25, f"{PUMPS[0]}/head": 30.0, f"{PUMPS[1]}/flow": 63.5}
    site.publish(values, at_us=now_us + US_PER_S)


def say(site: RunningSite, *records: dict[str, Any]) -> None:
    """What the app's process would say, each twice: it may have been killed in between."""

    async def send(bus: Bus) -> None:
        for place in [*range(len(records)), *range(len(records))]:
            about = {
                "at_us": 1,
                "severity": "info",
                "code": "APPS-2290",
                "source": "a",
                "text": "t",
            }
            body = msgspec.json.encode({**about, "record": records[place]})
            await bus.stream.publish(SUBJECTS.event("app", "pump_board"), body)

    site.with_bus(send)


def record(name: str, of: str, asset: str, **body: Any) -> dict[str, Any]:
    return {
        "id": f"pump-board/1.0.0/watch/{name}",
        "kind": of,
        "app": "pump-board",
        "version": "1.0.0",
        "hook": "watch",
        "at_us": CLOCK.now_us(),
        "body": {"asset": asset, **body},
    }


@pytest.mark.timeout(400)
def test_from_the_catalog_to_a_bound_app(page: Page, running_site: RunningSite, key: bytes) -> None:
    site = running_site
    with site.site_file(site.folder.site_file.read_text(encoding="utf-8")):
        page.goto(f"{site.url}/catalog")
        one = gallery_app.package("1.0.0", key)
        file = {"name": "a.hrapp", "mimeType": "application/octet-stream", "buffer": one}
        page.locator("input[type=file]").set_input_files(file)  # type: ignore[arg-type] # a file payload
        card = page.locator('[data-package="pump-board"]')
        expect(card).to_contain_text("Signed by acme")
        wrong = {**file, "buffer": one[:-40] + b"x" * 40}
        page.locator("input[type=file]").set_input_files(wrong)  # type: ignore[arg-type] # the same
        expect(page.get_by_text("APPS-20").first).to_be_visible()
        card.get_by_role("button", name="Install").click()
        dialog = page.locator(".hr-dialog")
        expect(dialog).to_contain_text("Reads the history of its quantities")
        expect(dialog).to_contain_text("The heat map is by hour.")
        dialog.locator("[data-do]").click()
        page.wait_for_url("**/apps/pump-board/bind", timeout=30_000)
        needed = page.locator('[data-needed="pump"]')
        expect(needed).to_contain_text("2 assets of this type")
        page.get_by_role("button", name="Show the change").click()
        expect(page.locator(".hr-toml")).to_contain_text('type = "pump"')
        page.locator("[data-save]").click()
        page.wait_for_url("**/apps/pump-board?view=about", timeout=30_000)
        expect(page.locator("tbody").first).to_contain_text("Pump 1")
        gallery_app.take(site.folder, gallery_app.package("1.1.0", key))
        page.goto(f"{site.url}/catalog")
        card.get_by_role("button", name="Upgrade to 1.1.0").click()
        dialog.locator("[data-do]").click()
        card.get_by_role("button", name="Back to 1.0.0").click()
        dialog.locator("[data-do]").click()
        expect(card).to_contain_text("1.0.0 installed")
        card.get_by_role("button", name="Remove").click()
        dialog.locator("input").fill("pump-board")
        dialog.locator("[data-do]").click()
        expect(card.get_by_role("button", name="Install")).to_be_visible()
        assert "pump-board" not in site.folder.site_file.read_text(encoding="utf-8")


def test_views_form_and_ledger_in_both_languages(
    page: Page, running_site: RunningSite, key: bytes
) -> None:
    site = running_site
    gallery_app.take(site.folder, gallery_app.package("1.0.0", key))
    text = site.folder.site_file.read_text(encoding="utf-8")
    with site.site_file(text + gallery_app.BIND), serving(site):
        history(site)
        page.goto(f"{site.url}/apps")
        page.get_by_role("link", name="Pump board").click()
        tiles = page.locator(".hr-view-tile")
        expect(tiles.nth(0)).to_have_attribute("data-state", "warn")
        expect(tiles.nth(1)).to_have_attribute("data-state", "bad")
        page.goto(f"{site.url}/apps/pump-board?view=pump&asset={PUMPS[0]}")
        expect(page.locator('[data-kind="gauge"]')).to_contain_text("47.25")
        expect(page.locator('[data-kind="mimic"] text').first).to_have_text("47.25 m³/h")
        assert page.locator('[data-kind="mimic"] script').count() == 0
        for kind in ("trend", "xy_plot", "heat_map"):
            expect(page.locator(f'[data-kind="{kind}"] canvas').first).to_be_visible()
        form = page.locator('[data-kind="form"]')
        form.locator("[data-ask]").click()
        expect(form).to_contain_text("Fill it in")
        form.locator("input").first.fill("120")
        form.locator("[data-ask]").click()
        expect(form).to_contain_text("At most 100 m3/h")
        form.locator("input").first.fill("48")
        form.locator("[data-ask]").click()
        expect(form.locator("[data-answer]")).to_contain_text("12")
        work = {"title": "Change the seal", "reason": "Worn", "priority": "high"}
        gain = {"kind": "avoided_stop", "hours": 4.0, "money": 1200.0, "currency": "EUR"}
        say(
            site,
            record("1", "work_request", PUMPS[0], **work),
            record("2", "value", PUMPS[1], baseline="mean of 2025", **gain),
        )
        page.goto(f"{site.url}/apps/work-requests")
        row = page.locator('[data-work="Change the seal"]')
        expect(row).to_have_count(1)
        row.get_by_role("button", name="Reject").click()
        page.locator(".hr-dialog").get_by_role("button", name="Save").click()
        expect(page.get_by_text("CONS-2312")).to_be_visible()
        page.locator(".hr-dialog input").fill("It was changed last week")
        page.locator(".hr-dialog").get_by_role("button", name="Save").click()
        expect(row).to_have_count(0)
        send_orders(page, site)
        page.set_viewport_size({"width": 390, "height": 844})
        page.get_by_role("button", name="中文").first.click()
        expect(page.locator("html")).to_have_attribute("lang", "zh")
        page.goto(f"{site.url}/apps/values")
        expect(page.locator("[data-values]")).to_contain_text("1\u202f200 EUR")
        expect(page.locator("h1")).to_have_text("价值账本")
        for path in ("/apps", "/apps/pump-board?view=pump", "/apps/pump-board/bind", "/catalog"):
            page.goto(f"{site.url}{path}")
            expect(page.locator(".hr-page")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
        check_rest(site)


def send_orders(page: Page, site: RunningSite) -> None:
    """An accepted work request becomes an operations request, once; one without is sent by the form."""
    say(site, record("3", "work_request", PUMPS[0], title="Align", reason="hums", priority="high"))
    row = page.locator('[data-work="Align"]')
    row.get_by_role("button", name="Accept").click()
    page.locator(".hr-dialog").get_by_role("button", name="Save").click()
    expect(row).to_have_count(0)
    page.get_by_role("button", name="Accepted", exact=True).click()
    row.get_by_role("button", name="Send to operations").click()
    page.locator(".hr-dialog").get_by_role("button", name="Send", exact=True).click()
    expect(row).to_have_count(1)
    expect(row.get_by_role("button", name="Send to operations")).to_have_count(0)
    page.get_by_role("button", name="New operations request").click()
    form = page.locator(".hr-dialog")
    form.get_by_label("What is to be done").fill("Change over to B")
    form.get_by_label("Equipment").fill("no/such")
    form.get_by_role("button", name="Send", exact=True).click()
    expect(page.get_by_text("APPS-2285")).to_be_visible()
    form.get_by_label("Equipment").fill("utilities/pumping")
    form.get_by_role("button", name="Send", exact=True).click()
    page.get_by_role("button", name="Sent", exact=True).click()
    table = page.locator("[data-orders]")
    expect(table.locator("tbody tr")).to_have_count(2)
    expect(table).to_contain_text("Change over to B")
    expect(table).to_contain_text("Align")


def check_rest(site: RunningSite) -> None:
    """The same by REST: sums, a sheet, and that a viewer decides nothing."""
    url = f"{site.url}/api/v1/app-records"
    with httpx.Client(timeout=30) as client:
        client.post(f"{site.url}/sign-in", data={"name": "leo", "password": PASSWORD})
        found = client.get(f"{url}/values").json()
        assert found["sums"]["app"] == [
            {"name": "pump-board", "entries": 1, "hours": 4.0, "money": {"EUR": 1200.0}}
        ]
        sheet = client.get(f"{url}/values", params={"format": "csv"}).text.splitlines()
        assert len(sheet) == 2 and ",4,1200,EUR,mean of 2025," in sheet[1]
        with httpx.Client(timeout=30) as mia:
            mia.post(f"{site.url}/sign-in", data={"name": "mia", "password": PASSWORD})
            told = mia.get(f"{site.url}/api/v1/audit", params={"action": "export"}).text
        assert '"app-records/values"' in told and '"leo"' in told
        work = client.get(f"{url}/work-requests").json()["work_requests"]
        decided = [(one["state"], one["decided_by"]) for one in work]
        assert decided == [("accepted", "mia"), ("rejected", "mia")]
        check_orders(site, client, work[0]["id"])
        body = {"id": work[1]["id"], "reason": "no"}
        assert client.post(f"{url}/work-requests/accepted", json=body).status_code == 403


def check_orders(site: RunningSite, leo: httpx.Client, accepted: str) -> None:
    """Operations requests by REST: a viewer sees and sends none, an id counts once, all is in the chain."""
    url = f"{site.url}/api/v1/operations-requests"
    assert len(leo.get(url).json()["operations_requests"]) == 2
    body = {"id": "r-7", "operations_type": "quality", "description": "Look", "equipment": PUMPS[0]}
    assert leo.post(url, json=body).status_code == 403
    with httpx.Client(timeout=30) as mia:
        mia.post(f"{site.url}/sign-in", data={"name": "mia", "password": PASSWORD})
        sent = mia.post(url, json=body).json()
        assert sent["asked_by"] == "mia" and sent["at_us"] > 0
        for again, code in (
            (body, "APPS-2286"),
            ({"work_request": accepted}, "APPS-2286"),
            ({"work_request": "none"}, "CONS-2311"),
            ({**body, "id": "r-8", "equipment": "no/such"}, "APPS-2285"),
            ({**body, "id": "r-8", "priority": 11}, "APPS-2285"),
            ({**body, "id": "r-8", "more": 1}, "APPS-2285"),
        ):
            refused = mia.post(url, json=again)
            assert refused.status_code >= 400 and code in refused.text
        told = mia.get(f"{site.url}/api/v1/audit", params={"action": "order"}).json()
    assert "operations_request/r-7" in str(told) and "operations_request/wr-" in str(told)
