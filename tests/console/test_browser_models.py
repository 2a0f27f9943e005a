"""Models in the console: list, lineage, a promotion with its reason, drift, both languages; and REST."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from browser_fixture import open_browser, sign_in
from playwright.sync_api import Browser, expect
from site_fixture import CLOCK, RunningSite

from headrace.apps.models.record import DataWindow, Lineage
from headrace.apps.models.registry import open_models
from headrace.model.time import US_PER_S
from headrace.security.identity import Identity
from headrace.security.rights import Role
from headrace.site.app_assets import deployments
from headrace.site.file import load_site
from headrace.site.registry import Registry
from models_onnx import linear
from packages import installed

pytestmark = pytest.mark.browser
APP, NAME = "asset-health", "rul"
ROLES: tuple[Role, ...] = ("viewer", "engineer")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def site(running_site: RunningSite) -> RunningSite:
    window = DataWindow(
        start_us=1_700_000_000_000_000, end_us=1_700_100_000_000_000,
        held_out_us=1_700_080_000_000_000, rows=12_345, assets=("utilities/pumping/pump_1",),
        frames_sha256="ab" * 32,
    )  # fmt: skip
    content = linear([1.0])
    with open_models(running_site.folder) as registry:
        first = registry.add(APP, NAME, content, ["a"], by="os:eve", metrics={"rmse": 12.5})
        lineage = Lineage(app_version="1.0.0", parent=first.sha256, by="os:eve", seed=7)
        registry.add(
            APP, NAME, content, ["a"], by="os:eve", metrics={"rmse": 11.5}, window=window,
            lineage=lineage,
        )  # fmt: skip
    return running_site


def test_a_person_looks_where_a_model_comes_from_and_promotes_it(
    browser: Browser, site: RunningSite
) -> None:
    page = browser.new_context().new_page()
    sign_in(page, site, user="mia")
    page.goto(f"{site.url}/models")
    row = page.locator(f'[data-model="{APP}/{NAME}/2"]')
    expect(row).to_contain_text("rmse 11.5")
    row.get_by_role("button", name="Open").click()
    detail = page.locator("[data-model-detail]")
    expect(detail.locator("svg").first).to_contain_text("12,345 rows of 1 assets")
    page.get_by_role("button", name="Make champion").click()
    expect(page.locator("body")).to_contain_text("APPS-2514")
    page.get_by_label("Reason").fill("smaller error on the held-out day")
    page.get_by_role("button", name="Make champion").click()
    expect(row).to_contain_text("champion")
    page.get_by_role("button", name="Look for drift of the last day").click()
    expect(page.locator("body")).to_contain_text("APPS-2526")  # this site has no such app
    page.goto(f"{site.url}/models")
    page.locator("[data-do=language]").click()
    expect(page.locator(f'[data-model="{APP}/{NAME}/2"]')).to_contain_text("冠军")
    page.locator("[data-do=language]").click()
    with open_models(site.folder) as registry:
        changes = registry.changes(APP, NAME)
    assert [(each.version, each.after, each.why) for each in changes] == [
        (2, "champion", "smaller error on the held-out day")
    ]
    assert changes[0].by == "mia"


def test_programs_list_and_change_as_their_role_allows(site: RunningSite) -> None:
    identity = Identity(site.folder)
    try:
        tokens = {role: identity.add_token("mia", "test", role=role) for role in ROLES}
    finally:
        identity.close()
    client = {
        role: httpx.Client(
            base_url=f"{site.url}/api/v1/", headers={"Authorization": f"Bearer {token}"}
        )
        for role, token in tokens.items()
    }
    viewer, engineer = client["viewer"], client["engineer"]
    listed = viewer.get("models", params={"app": APP}).json()["models"]
    assert [(each["name"], each["version"]) for each in listed] == [(NAME, 1), (NAME, 2)]
    path = f"models/{APP}/{NAME}"
    asked = {"version": 1, "why": "as it was"}
    assert viewer.post(f"{path}/promote", json=asked).status_code == 403
    assert engineer.post(f"{path}/explode", json=asked).json()["code"] == "CONS-2501"
    assert engineer.post(f"{path}/promote", json={"x": 1}).json()["code"] == "CONS-1003"
    assert engineer.post(f"{path}/promote", json=asked).json()["state"] == "champion"
    assert viewer.get(f"{path}/changes").json()["changes"][-1]["why"] == "as it was"
    assert viewer.get(f"{path}/drift").json()["code"] == "APPS-2526"
    for each in client.values():
        each.close()


WATCH = """
id = "load-watch"
version = "1.0.0"
title = {en = "Load"}
models = ["power"]
[types.pump]
package = "pump"
quantities = {power = "kW"}
[[outputs]]
type = "pump"
name = "load"
unit = "kW"
model = "power"
"""
BOUND = """
[app.load-watch]
version = "1.0.0"
[app.load-watch.bind.pump]
type = "pump"
"""


def test_a_person_sees_the_challenger_beside_the_champion_and_promotes_it(
    browser: Browser, site: RunningSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = {"by": "os:eve", "why": "x"}
    with open_models(site.folder) as registry:
        for state in ("champion", "challenger"):
            made = registry.add("load-watch", "power", linear([1.0]), ["a"], by="os:eve")
            registry.change("load-watch", "power", made.version, state, **why)
    text = site.folder.site_file.read_text(encoding="utf-8")
    package = installed(site.folder.root, "load-watch", "1.0.0", WATCH)
    with package, site.site_file(text + BOUND):
        records = Registry.of(site.folder)
        found = deployments(load_site(site.folder.site_file), records.ids())["load_watch"]
        records.close()
        pump = found.assets[0]
        # what a program stored of both, from half a minute after the promotion on
        times = CLOCK.now_us() + US_PER_S * np.arange(30, 90, dtype=np.int64)
        for tag, shift in ((pump.outputs["load"], 0.0), (pump.shadows["load"], 1.5)):
            site.publish_columns(np.full(60, tag), times, np.sin(times / 4e6) + 40 + shift)
        site.publish_columns(np.array([pump.drifts["power"]]), times[:1], np.array([2.5]))
        end = int(times[-1]) + US_PER_S
        identity = Identity(site.folder)
        token = identity.add_token("mia", "shadow", role="engineer")
        identity.close()
        headers = {"Authorization": f"Bearer {token}"}
        path = f"{site.url}/api/v1/models/load-watch/power"
        asked = {"start": "-1h", "end": str(end)}
        told = httpx.get(f"{path}/shadow", params=asked, headers=headers).json()
        assert (told["champion"], told["challenger"]) == (1, 2)
        assert told["outputs"][0]["windows"] == 60
        assert told["outputs"][0]["mean_difference"] == pytest.approx(1.5)
        assert told["outputs"][0]["correlation"] == pytest.approx(1.0)
        (drift,) = httpx.get(f"{path}/drift/now", headers=headers).json()["drift"]
        assert (drift["asset"], drift["score"]) == (pump.path, 2.5)
        page = browser.new_context().new_page()
        sign_in(page, site, user="mia")
        page.goto(f"{site.url}/models")
        page.locator('[data-model="load-watch/power/2"]').get_by_role("button", name="Open").click()
        drifts = page.locator("[data-model-drift-now]")
        expect(drifts).to_contain_text("drifted")
        expect(drifts).to_contain_text("2.50")
        shadow = page.locator("[data-model-shadow]")
        expect(shadow).to_contain_text("Champion 1 and challenger 2", timeout=60_000)
        expect(shadow).to_contain_text("mean difference")
        expect(shadow.locator("svg path")).to_have_count(3)
        page.get_by_label("Reason").fill("nearer")
        page.get_by_role("button", name="Make champion").click()
        expect(page.locator('[data-model="load-watch/power/2"]')).to_contain_text("champion")
        expect(shadow).to_contain_text("No challenger is in shadow")
        page.close()
