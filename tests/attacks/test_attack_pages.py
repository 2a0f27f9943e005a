"""Attacks on the browser's side: scripts in names, frames, headers, the pages' socket."""

from __future__ import annotations

import re

import httpx
import pytest
from attack_log import attack
from attack_target import SCRIPT, Target
from browser_fixture import open_browser, sign_in
from playwright.sync_api import Page, expect

from headrace.console.app import _PAGES

OPEN = ("/sign-in", "/api/v1/health", "/static/headrace.js", "/api/openapi.json", "/nothing")


def every_address(target: Target) -> list[str]:
    """Each page, each GET route without a name in its path, and what is open to everybody."""
    paths = target.ask("/api/openapi.json", None).json()["paths"]
    routes = [path for path, methods in paths.items() if "get" in methods and "{" not in path]
    pages = [path.replace("{path:path}", "utilities") for path, _, _ in _PAGES]
    return [*pages, *routes, *OPEN]


@attack(
    "pages/script without a nonce",
    tries="gets a script of its own into a page by any hole that escaping has left",
    stops="the content security policy runs files of our own and scripts with the answer's nonce only",
    stride="T",
    requirement="SR 3.5",
)
def test_every_page_has_a_strict_policy(target: Target) -> None:
    nonces = []
    with target.session() as client:
        for path in every_address(target):
            answer = client.get(path)
            policy = answer.headers["content-security-policy"]
            assert "frame-ancestors 'none'" in policy and "base-uri 'none'" in policy
            if not answer.headers.get("content-type", "").startswith("text/html"):
                assert policy.startswith("default-src 'none'")
                continue
            scripts = re.search(r"script-src ([^;]*)", policy)
            assert scripts and "unsafe-inline" not in scripts[1] and "http" not in scripts[1]
            assert "object-src 'none'" in policy and "script-src-attr 'none'" in policy
            nonce = re.search(r"'nonce-([^']+)'", scripts[1])
            assert nonce and len(nonce[1]) >= 20
            nonces.append(nonce[1])
            bare = re.findall(r"<script(?![^>]*\b(?:nonce|src)=)[^>]*>", answer.text)
            assert not bare, (path, bare)
    assert len(nonces) == len(set(nonces)) > len(_PAGES)


@attack(
    "pages/frame around the console",
    tries="shows the console in a frame of another site and has a person click in it",
    stops="frame-ancestors 'none' and X-Frame-Options: DENY on every answer",
    stride="T",
    requirement="SR 3.8",
)
def test_every_answer_has_the_headers(target: Target) -> None:
    with target.session() as client:
        for path in every_address(target):
            headers = client.get(path).headers
            assert headers["x-frame-options"] == "DENY", path
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "same-origin"
            assert headers["cross-origin-opener-policy"] == "same-origin"
            assert "camera=()" in headers["permissions-policy"]
            assert "server" not in headers and "x-powered-by" not in headers


@attack(
    "pages/answers kept by the browser or a proxy",
    tries="reads a person's pages and samples from a cache afterwards",
    stops="Cache-Control: no-store on everything but the static files",
    stride="I",
    requirement="SR 4.1",
)
def test_private_answers_are_not_kept(target: Target) -> None:
    with target.session() as client:
        for path in every_address(target):
            if not path.startswith("/static/"):
                assert client.get(path).headers["cache-control"] == "no-store", path


@attack(
    "pages/downgrade to http",
    tries="sends a browser that knows the console by https to http",
    stops="Strict-Transport-Security on every answer under https",
    stride="I",
    requirement="SR 4.1",
)
def test_https_is_remembered(target: Target) -> None:
    name = "strict-transport-security"
    proxied = {"X-Forwarded-Proto": "https"}
    assert httpx.get(f"{target.url}/sign-in", headers=proxied).headers[name]
    assert name not in httpx.get(f"{target.url}/sign-in").headers


@attack(
    "pages/script in a name",
    tries="writes scripts into the titles of the site, an area and a tag, and opens every page",
    stops="names reach a page as escaped markup or escaped JSON; the policy would stop what got through",
    stride="T",
    requirement="SR 3.5",
)
def test_a_script_in_a_title_is_text_in_every_page(target: Target) -> None:
    with target.session() as client:
        for path in every_address(target):
            answer = client.get(path)
            if answer.headers.get("content-type", "").startswith("text/html"):
                assert "<script>window" not in answer.text, path
                assert "<img src=x" not in answer.text, path


@attack(
    "pages/script in an address",
    tries="puts scripts into paths and parameters of every page",
    stops="addresses are shown escaped or not at all",
    stride="T",
    requirement="SR 3.5",
)
def test_a_script_in_an_address_is_text(target: Target) -> None:
    with target.session() as client:
        for path, _, _ in _PAGES:
            place = path.replace("{path:path}", SCRIPT)
            query = dict.fromkeys(("tags", "search", "next", "alarm", "view", "start"), SCRIPT)
            answer = client.get(place, params=query)
            assert answer.status_code in (200, 404), (place, answer.status_code)
            assert "<script>window" not in answer.text and "<img src=x" not in answer.text


@attack(
    "pages/prefix of a proxy",
    tries="breaks out of the page by X-Forwarded-Prefix and Host with quotes and a script",
    stops="NiceGUI quotes the prefix; the host is never written into a page",
    stride="T",
    requirement="SR 3.5",
)
def test_a_script_in_a_header_is_none(target: Target) -> None:
    with target.session() as client:
        for name in ("X-Forwarded-Prefix", "Accept-Language", "User-Agent", "Referer"):
            answer = client.get("/", headers={name: f'"`${{1}}{SCRIPT}'})
            assert "<script>window" not in answer.text and "<img src=x" not in answer.text


@attack(
    "pages/socket without a session",
    tries="opens the pages' socket as nobody, by WebSocket and by long polling, and keeps it",
    stops="the guard asks who it is before NiceGUI sees the request",
    stride="E",
    requirement="SR 1.1",
)
async def test_the_pages_socket_needs_a_session(target: Target) -> None:
    from websockets.exceptions import InvalidStatus

    path = "/_nicegui_ws/socket.io/?EIO=4&transport="
    assert target.refuses(f"{path}polling", None).status_code == 401
    with pytest.raises(InvalidStatus, match="403"):
        async with target.socket(f"{path}websocket", None):
            raise AssertionError("it opened")


@attack(
    "pages/socket from a foreign page",
    tries="opens the pages' socket or the live values from another site's page, with the cookie sent along",
    stops="a socket's origin is checked as that of a change",
    stride="S",
    requirement="SR 3.8",
)
async def test_sockets_check_the_origin(target: Target) -> None:
    from websockets.exceptions import InvalidStatus

    cookie = f"headrace_session={target.session().cookies['headrace_session']}"
    evil = {"Cookie": cookie, "Origin": "https://evil.example"}
    with pytest.raises(InvalidStatus, match="403"):
        async with target.socket("/_nicegui_ws/socket.io/?EIO=4&transport=websocket", None, **evil):
            raise AssertionError("it opened")
    for path in ("/api/v1/live", "/api/v1/alarms/stream"):
        async with target.socket(path, None, **evil) as socket:
            assert '"CONS-1001"' in await socket.recv()


@attack(
    "pages/page after the session has ended",
    tries="leaves a page open after its session was ended, and goes on reading",
    stops="an open page asks every few seconds whether its session still is, and leaves when it is not",
    stride="I",
    requirement="SR 2.6",
)
@pytest.mark.browser
def test_a_page_ends_with_its_session(target: Target) -> None:
    with open_browser() as browser:
        page = browser.new_page()
        sign_in(page, target.site)
        secret = next(
            each["value"] for each in page.context.cookies() if each["name"] == "headrace_session"
        )
        stolen = {"headrace_session": secret}
        httpx.post(f"{target.url}/sign-out", cookies=stolen, timeout=30)
        expect(page.locator("#password")).to_be_visible(timeout=45_000)


@attack(
    "pages/script in a browser",
    tries="has a real browser open every page with scripts in its names, and counts what the policy stops",
    stops="no script of a name runs, and none of ours is stopped: the policy fits",
    stride="T",
    requirement="SR 3.5",
)
@pytest.mark.browser
def test_the_console_works_under_its_policy(target: Target) -> None:
    with open_browser() as browser:
        page = browser.new_page()
        stopped: list[str] = []
        page.on(
            "console", lambda said: stopped.append(said.text) if _is_policy(said.text) else None
        )
        page.on("pageerror", lambda error: stopped.append(str(error)))
        sign_in(page, target.site)
        pages = ("/", "/equipment/machining", "/alarms", "/trend?tags=utilities/pumping/pump_1/flow",
                 "/formulas", "/connections/add", "/users")  # fmt: skip
        for path in pages:
            page.goto(target.url + path)
            expect(page.locator(".hr-page")).to_be_visible()
            page.wait_for_function("window.socket && window.socket.connected")
            assert page.evaluate("window.hacked") is None, path
        assert stopped == []
        _cannot_run_what_it_puts_in(page)


def _is_policy(text: str) -> bool:
    return "Content Security Policy" in text or "Content-Security-Policy" in text


def _cannot_run_what_it_puts_in(page: Page) -> None:
    """What an attacker could still inject as markup does not run: the policy itself is tried."""
    page.evaluate(
        "document.body.insertAdjacentHTML('beforeend', "
        "'<img src=/nothing onerror=window.hacked=1><iframe src=/static/favicon.svg></iframe>');"
        "const s = document.createElement('script'); s.textContent = 'window.hacked = 2';"
        "document.body.append(s);"
    )
    with page.expect_response(lambda answer: "/nothing" in answer.url):
        page.evaluate("document.body.append(Object.assign(new Image(), {src: '/nothing?again'}))")
    assert page.evaluate("window.hacked") is None
