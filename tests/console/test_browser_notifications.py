"""Notifications in a real browser and over REST: a channel, its test, the log, rights, Chinese, phone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect
from site_fixture import PASSWORD, RunningSite

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "alarms" / "notify"))
from robot_servers import Robot, serving

pytestmark = pytest.mark.browser
SETTINGS = """
[notify.channel.shift_phone]
kind = "wecom"
url = "file:secrets/ops.url"
fallback = "mail"

[notify.channel.mail]
kind = "email"
server = "127.0.0.1"
from = "h@mill.example"
to = ["a@mill.example"]

[[notify.route]]
name = "pumps"
channels = ["shift_phone"]
"""


@pytest.fixture
def robot(running_site: RunningSite) -> Iterator[Robot]:
    secrets = running_site.folder.root / "secrets"
    secrets.mkdir(exist_ok=True)
    with serving(Robot("wecom")) as made:
        (secrets / "ops.url").write_text(made.url())
        text = running_site.folder.site_file.read_text(encoding="utf-8")
        with running_site.site_file(text + SETTINGS):
            yield made


def test_a_channel_is_tested_and_its_attempts_are_shown(
    page: Page, running_site: RunningSite, robot: Robot
) -> None:
    page.goto(f"{running_site.url}/alarms")
    page.get_by_role("link", name="Notifications").click()
    phone = page.locator('[data-channel="shift_phone"]')
    expect(phone).to_contain_text("WeCom · pumps")
    expect(page.locator('[data-channel="mail"]')).to_contain_text("no route leads here")
    phone.get_by_role("button", name="Test").click()
    expect(page.get_by_text("Delivered on shift_phone")).to_be_visible()
    expect(phone).to_contain_text("Delivered")
    assert "Test message · Demo works" in robot.got[0]["markdown"]["content"]
    (running_site.folder.root / "secrets" / "ops.url").write_text(robot.url() + "x")
    phone.get_by_role("button", name="Test").click()
    expect(page.get_by_text("CONS-1350")).to_contain_text("errcode 93000")
    row = page.locator("table.hr-table tbody tr").first
    expect(row).to_contain_text("Refused")
    page.set_viewport_size({"width": 390, "height": 844})
    page.get_by_role("button", name="中文").first.click()
    expect(page.locator("html")).to_have_attribute("lang", "zh")
    page.goto(f"{running_site.url}/alarms/notifications")
    expect(page.locator('[data-channel="shift_phone"]')).to_contain_text("企业微信")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390


@contextmanager
def signed_in(site: RunningSite, user: str) -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30) as client:
        client.post(f"{site.url}/sign-in", data={"name": user, "password": PASSWORD})
        yield client


def test_rest_shows_and_tests_channels_and_a_viewer_may_only_look(
    running_site: RunningSite, robot: Robot
) -> None:
    url = f"{running_site.url}/api/v1/notifications"
    with signed_in(running_site, "leo") as viewer:
        lines = viewer.get(url).json()["channels"]
        assert [line["name"] for line in lines] == ["shift_phone", "mail"]
        assert "secrets" not in viewer.get(url).text
        assert viewer.post(f"{url}/shift_phone/test").status_code == 403
    assert not robot.posts
    with signed_in(running_site, "mia") as admin:
        assert admin.post(f"{url}/shift_phone/test").json()["result"] == "sent"
        log = admin.get(f"{url}/log", params={"channel": "shift_phone", "limit": 1}).json()
        assert log["attempts"][0]["kind"] == "test"
        unknown = admin.post(f"{url}/none/test")
        assert unknown.status_code == 422 and unknown.json()["code"] == "ALARM-2007"
