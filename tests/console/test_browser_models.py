"""Models in the console: list, lineage, a promotion with its reason, drift, both languages; and REST."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from browser_fixture import open_browser, sign_in
from playwright.sync_api import Browser, expect
from site_fixture import RunningSite

from headrace.apps.models.record import DataWindow, Lineage
from headrace.apps.models.registry import open_models
from headrace.security.identity import Identity
from headrace.security.rights import Role
from models_onnx import linear

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
