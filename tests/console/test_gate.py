"""The gate of a running console: second factor, sessions, fixation, revocation on open lines."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator

import httpx
import pyotp
import pytest
from site_fixture import PASSWORD, RunningSite
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from headrace.model.time import SystemClock
from headrace.security.identity import Identity
from headrace.security.policy import Grant
from waiting import until_sync

STEP_S = 30


@pytest.fixture
def identity(running_site: RunningSite) -> Iterator[Identity]:
    with contextlib.closing(Identity(running_site.folder)) as store:
        yield store


@pytest.fixture
def person(identity: Identity, request: pytest.FixtureRequest) -> str:
    """A user of this test alone."""
    name = re.sub(r"\W+", "_", request.node.name)[:60]
    identity.add_user(name, "viewer", PASSWORD)
    return name


def browser(site: RunningSite) -> httpx.Client:
    return httpx.Client(base_url=site.url, follow_redirects=False, timeout=60)


def sign_in(client: httpx.Client, name: str, password: str = PASSWORD) -> httpx.Response:
    return client.post("/sign-in", data={"name": name, "password": password, "next": "/trend"})


def enrol(client: httpx.Client) -> tuple[pyotp.TOTP, str]:
    page = client.get("/second-factor").text
    found = re.search(r"data-seed[^>]*>([A-Z2-7]+)<", page)
    assert found is not None and "<svg" in page
    totp = pyotp.TOTP(found[1])
    answer = client.post("/second-factor", data={"code": now_code(totp)})
    assert "data-recovery" in answer.text, answer.text[:500]
    return totp, answer.text


def now_code(totp: pyotp.TOTP, step: int = 0) -> str:
    return totp.at(SystemClock().now_us() // 1_000_000 + STEP_S * step)


def test_the_second_step_stands_between_password_and_pages(
    running_site: RunningSite, person: str
) -> None:
    with browser(running_site) as client:
        assert sign_in(client, person).headers["location"] == "/trend"
        first = client.cookies["headrace_session"]
        totp, page = enrol(client)
        assert client.cookies["headrace_session"] != first, "a factor change gives a new secret"
        assert len(re.findall(r"\w{4}-\w{4}-\w{4}-\w{4}", page)) == 10
    with browser(running_site) as client:
        answer = sign_in(client, person)
        assert answer.headers["location"] == "/sign-in/code?next=%2Ftrend"
        assert "headrace_session" not in client.cookies
        assert client.get("/api/v1/tags").status_code == 401
        assert client.post("/sign-in/code", data={"code": "000000"}).status_code == 401
        answer = client.post("/sign-in/code", data={"code": now_code(totp), "next": "/trend"})
        assert answer.status_code == 401, "the code of the enrolment was used"
        answer = client.post("/sign-in/code", data={"code": now_code(totp, 1), "next": "/trend"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/trend")
        assert client.get("/api/v1/tags").status_code == 200


def test_the_stage_cookie_is_no_session(running_site: RunningSite, person: str) -> None:
    with browser(running_site) as client:
        sign_in(client, person)
        enrol(client)
    with browser(running_site) as client:
        sign_in(client, person)
        stage = client.cookies["headrace_stage"]
    answer = httpx.get(
        f"{running_site.url}/api/v1/tags", headers={"Cookie": f"headrace_session={stage}"}
    )
    assert answer.status_code == 401


def test_a_session_cookie_from_before_the_sign_in_is_not_taken(
    running_site: RunningSite, person: str
) -> None:
    with browser(running_site) as client:
        client.cookies.set("headrace_session", "planted-by-somebody-else", domain="127.0.0.1")
        answer = sign_in(client, person)
        cookies = "".join(answer.headers.get_list("set-cookie"))
        assert "planted" not in cookies and "headrace_session=" in cookies
        assert "HttpOnly" in cookies and "SameSite=lax" in cookies
    planted = {"Cookie": "headrace_session=planted-by-somebody-else"}
    assert httpx.get(f"{running_site.url}/api/v1/tags", headers=planted).status_code == 401


def test_a_new_password_ends_every_session(running_site: RunningSite, person: str) -> None:
    with browser(running_site) as one, browser(running_site) as two:
        sign_in(one, person)
        sign_in(two, person)
        new = "the lathe hums at dawn"
        form = {"old": PASSWORD, "new": new, "again": new}
        assert two.post("/change-password", data=form).status_code == 303
        for client in (one, two):
            assert client.get("/api/v1/tags").status_code == 401
        assert sign_in(one, person).status_code == 401
        assert sign_in(one, person, new).status_code == 303


@pytest.mark.parametrize("path", ["/api/v1/live", "/api/v1/alarms/stream"])
@pytest.mark.parametrize("how", ["revoked", "closed", "token", "machine"])
def test_revocation_reaches_open_lines(
    running_site: RunningSite, identity: Identity, path: str, how: str
) -> None:
    name = f"line_{how}_{path.rsplit('/', 1)[1]}"
    if how == "machine":
        secret = identity.actors.add("service", name, [Grant("viewer")])
        headers = {"Authorization": f"Bearer {secret}"}
    else:
        identity.add_user(name, "viewer", PASSWORD)
        secret = identity.sign_in(name, PASSWORD, "127.0.0.1")
        headers = {"Cookie": f"headrace_session={secret}"}
        if how == "token":
            headers = {"Authorization": f"Bearer {identity.add_token(name, 'line')}"}
    with connect(running_site.url.replace("http", "ws") + path, additional_headers=headers) as line:
        line.ping().wait(30)
        if how == "revoked":
            identity.end_sessions(name)
        elif how == "token":
            identity.revoke_token(identity.tokens(name)[0].id)
        else:
            identity.set_actor_disabled(name, True)
        begun_s = time.monotonic()
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                line.recv(timeout=60)
        took_s = time.monotonic() - begun_s
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 4401
    print(json.dumps({"line": path, "how": how, "cut_after_s": round(took_s, 2)}))


def test_a_machine_with_grants_reads_and_one_without_does_not(
    running_site: RunningSite, identity: Identity
) -> None:
    for name, grants, status in (("reader", [Grant("viewer")], 200), ("mute", [], 401)):
        secret = identity.actors.add("service", name, grants)
        headers = {"Authorization": f"Bearer {secret}"}
        assert httpx.get(f"{running_site.url}/api/v1/tags", headers=headers).status_code == status
    identity.actors.disable("reader")
    until_sync(
        lambda: not any(e.state == "open" and e.name == "reader" for e in identity.actors.list())
    )


def test_the_next_page_is_one_of_ours(running_site: RunningSite, person: str) -> None:
    for evil in ("https://evil.example/", "//evil.example", "/\\evil.example", "javascript:1"):
        with browser(running_site) as client:
            answer = client.post(
                "/sign-in", data={"name": person, "password": PASSWORD, "next": evil}
            )
            assert answer.headers["location"] == "/"
