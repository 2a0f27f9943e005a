"""Renew the pictures in docs/images from a demo that runs for some minutes.

    python scripts/screenshots.py [--minutes 6] [--out docs/images]

Starts a demo in a folder of its own, lets things happen to it (a restart, a device that stays away), signs
in with the one-time password as a person does, and takes each picture from a real Chromium.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "e2e"), str(ROOT / "tests")]

from installation import Installation  # noqa: E402 - its folder was only just made known

PASSWORD = "one long phrase more"
BYTES_MAX = 300_000
SETTLE_MS = 2_500
TREND = (
    "machining/milling/cnc_1/spindle_load",
    "utilities/compressed_air/compressor_1/tank_pressure",
    "utilities/pumping/pump_1/motor_temperature",
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--minutes", type=float, default=6.0, help="how long the demo runs")
    arguments.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    given = arguments.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("no chromium; install it with: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        demo = Installation(Path(folder) / "data", "--demo").start()
        try:
            _live(demo, given.minutes * 60)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=chromium, args=["--headless", "--no-sandbox", "--disable-gpu"]
                )
                _take(demo, browser, given.out, given.minutes * 60)
                browser.close()
        finally:
            demo.stop()


def _live(demo: Installation, seconds: float) -> None:
    """Let the demo run, with a gap in the middle and a device that is away at the end."""
    time.sleep(seconds * 0.55)
    _fault(demo, "start", "device_restart", "pumping_plc", "--set", "off_s=25")
    time.sleep(seconds * 0.45)


def _fault(demo: Installation, *arguments: str) -> None:
    command = [sys.executable, "-m", "headrace", "sim", "fault", *arguments]
    subprocess.run(
        [*command, "--data", str(demo.folder.root)], check=True, stdout=subprocess.DEVNULL
    )


def _take(demo: Installation, browser: Browser, out: Path, seconds: float) -> None:
    context = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme="light")
    page = context.new_page()
    _sign_in(page, demo)
    _shoot(page, f"{demo.url}/", out / "overview.png", whole=True)
    span_ms = round(seconds * 1000)
    trend = f"{demo.url}/trend?tags={','.join(TREND)}&span={span_ms}"
    _shoot(page, trend, out / "trend.png")
    _shoot_phone(demo, browser, context, out / "asset_phone_zh.png")
    _fault(demo, "start", "device_restart", "compressor_plc", "--set", "off_s=600")
    page.goto(f"{demo.url}/connections")
    card = page.locator('[data-connection="compressor_plc"]')
    expect(card).to_contain_text("EDGE-", timeout=30_000)
    _shoot(page, f"{demo.url}/connections", out / "connections.png")
    context.close()


def _sign_in(page: Page, demo: Installation) -> None:
    page.goto(demo.url)
    _fill(page, name="admin", password=demo.password)
    page.wait_for_url(re.compile("change-password"))
    _fill(page, old=demo.password, new=PASSWORD, again=PASSWORD)
    expect(page.get_by_role("status")).to_be_visible()
    _fill(page, name="admin", password=PASSWORD)
    expect(page.locator(".hr-tile").first).to_be_visible(timeout=30_000)


def _fill(page: Page, **fields: str) -> None:
    for field, text in fields.items():
        page.fill(f"#{field}", text)
    page.click("button[type=submit]")


def _shoot_phone(
    demo: Installation, browser: Browser, signed_in: BrowserContext, path: Path
) -> None:
    context = browser.new_context(
        viewport={"width": 390, "height": 844},
        color_scheme="dark",
        has_touch=True,
        storage_state=signed_in.storage_state(),
    )
    page = context.new_page()
    page.goto(demo.url)
    page.get_by_role("button", name="中文").click()
    expect(page.locator("html")).to_have_attribute("lang", "zh")
    page.goto(f"{demo.url}/equipment/machining/milling/cnc_1")
    expect(page.locator("[data-f=value]").first).not_to_have_text("–")
    page.evaluate("scrollTo(0, document.querySelector('table').getBoundingClientRect().top - 68)")
    _shoot(page, "", path)
    page.get_by_role("button", name="English").first.click()  # the choice is kept with the user
    expect(page.locator("html")).to_have_attribute("lang", "en")
    context.close()


def _shoot(page: Page, url: str, path: Path, *, whole: bool = False) -> None:
    if url:
        page.goto(url)
    page.wait_for_timeout(SETTLE_MS)
    page.screenshot(path=path, full_page=whole)
    size = path.stat().st_size
    sys.stdout.write(f"{path} {size:,} bytes\n")
    if size > BYTES_MAX:
        sys.exit(f"{path} has more than {BYTES_MAX:,} bytes")


if __name__ == "__main__":
    main()
