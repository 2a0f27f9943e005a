"""Attacks on the gate: guessing, sessions, cookies, foreign pages."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from attack_log import attack
from attack_target import FLOW, SCRIPT, Target
from site_fixture import PASSWORD

from headrace.console.services import check_origin, session_cookie
from headrace.model.errors import Refused
from headrace.model.time import ManualClock
from headrace.security.brake import FREE_TRIES
from headrace.security.identity import Identity

EVIL = {"Origin": "https://evil.example"}


def sign_in(target: Target, name: str, password: str, **headers: str) -> httpx.Response:
    form = {"name": name, "password": password}
    return httpx.post(f"{target.url}/sign-in", data=form, headers=headers, timeout=30)


@attack(
    "sign-in/guess quickly",
    tries="guesses passwords of one account from one address as fast as it can",
    stops="after three free tries the wait doubles up to 30 s; the answer is 429",
    stride="S",
    requirement="SR 1.11",
)
def test_guessing_is_slowed_down(target: Target) -> None:
    codes = [sign_in(target, "guessed", f"guess {n}").status_code for n in range(6)]
    assert codes[:3] == [401] * 3 and 429 in codes[3:]


@attack(
    "sign-in/lock the plant out",
    tries="fails on purpose under another person's name, so that the account is shut",
    stops="failures count for name and address together; no account is ever shut",
    stride="D",
    requirement="SR 1.11",
)
def test_nobody_is_locked_out_from_elsewhere(target: Target) -> None:
    identity = Identity(target.site.folder)
    try:
        for n in range(6):
            with pytest.raises(Exception, match="SEC-100"):
                identity.sign_in("leo", f"guess {n}", "203.0.113.9")
        assert identity.sign_in("leo", PASSWORD, "127.0.0.1")
    finally:
        identity.close()


@attack(
    "sign-in/which names exist",
    tries="tells existing names from others by the answer",
    stops="one answer for a wrong name and a wrong password; an argon2 hash is verified for both",
    stride="I",
    requirement="SR 1.10",
)
def test_an_unknown_name_and_a_wrong_password_look_the_same(target: Target) -> None:
    known, unknown = sign_in(target, "leo", "wrong one"), sign_in(target, "leq", "wrong one")
    assert known.status_code == unknown.status_code == 401
    nonce = re.compile(r'nonce="[^"]+"')
    plain = nonce.sub("", known.text).replace("leo", "leq")
    assert plain == nonce.sub("", unknown.text)


@attack(
    "sign-in/several at once",
    tries="guesses by twenty requests at once, before the first failure is counted",
    stops="failures are counted in the database, and the brake is asked before each try",
    stride="S",
    requirement="SR 1.11",
)
def test_guessing_in_parallel_is_slowed_down(target: Target) -> None:
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda n: sign_in(target, "parallel", f"guess {n}"), range(20)))
    codes = [answer.status_code for answer in answers]
    more = [sign_in(target, "parallel", f"more {n}").status_code for n in range(FREE_TRIES + 1)]
    assert {*codes, *more} <= {401, 429}
    assert more[-1] == 429
    assert [*codes, *more].count(401) <= 2 * FREE_TRIES


@attack(
    "sign-in/SQL in the name",
    tries="signs in as `' OR 1=1 --` and with NUL, quotes and 100 kB as a name",
    stops="names are bound parameters; the form takes at most 200 characters",
    stride="E",
    requirement="SR 3.5",
)
def test_sql_in_the_name(target: Target) -> None:
    for name in ("' OR 1=1 --", 'mia" --', "mia\0", "x" * 10_000, "'; DROP TABLE user; --"):
        answer = sign_in(target, name, "' OR '1'='1")
        assert answer.status_code in (401, 422, 429) and "set-cookie" not in answer.headers
    assert target.session().get("/profile").status_code == 200


@attack(
    "sign-in/script in the name",
    tries="gets the gate to show the name that was typed, with a script in it",
    stops="all markup is escaped where it is made; scripts run with the answer's nonce only",
    stride="T",
    requirement="SR 3.5",
)
def test_a_script_in_the_name_is_text(target: Target) -> None:
    answer = sign_in(target, f'"{SCRIPT}', "x")
    assert "<script>window" not in answer.text and "<img" not in answer.text
    assert "&lt;script&gt;" in answer.text


@attack(
    "sign-in/leads elsewhere",
    tries="has a person sign in by a link that leads to another site afterwards",
    stops="only a path of the console's own is followed",
    stride="S",
    requirement="SR 3.5",
)
def test_sign_in_leads_nowhere_else(target: Target) -> None:
    for path in ("//evil.example", "https:evil.example", "/\\evil.example", "/\t/evil.example"):
        form = {"name": "mia", "password": PASSWORD, "next": path}
        answer = httpx.post(f"{target.url}/sign-in", data=form, timeout=30)
        assert answer.headers["location"] == "/"


@attack(
    "sessions/fixation",
    tries="plants a session cookie in a browser and waits until its owner signs in",
    stops="a sign-in makes a new secret; the planted one never becomes a session",
    stride="S",
    requirement="SR 2.6",
)
def test_a_planted_session_stays_worthless(target: Target) -> None:
    client = httpx.Client(base_url=target.url, cookies={"headrace_session": "planted"}, timeout=30)
    answer = client.post("/sign-in", data={"name": "mia", "password": PASSWORD})
    assert answer.cookies["headrace_session"] != "planted"
    alone = {"headrace_session": "planted"}
    assert httpx.get(f"{target.url}/profile", cookies=alone).status_code == 303


@attack(
    "sessions/used after sign-out",
    tries="goes on with a session whose owner has signed out",
    stops="a session ends at the server; its cookie alone is worth nothing",
    stride="S",
    requirement="SR 2.6",
)
def test_a_session_ends_at_the_server(target: Target) -> None:
    client = target.session(new=True)
    secret = client.cookies["headrace_session"]
    assert client.get("/api/v1/tags").status_code == 200
    client.post("/sign-out")
    stolen = {"headrace_session": secret}
    assert httpx.get(f"{target.url}/api/v1/tags", cookies=stolen).json()["code"] == "SEC-1003"


@attack(
    "sessions/one that is over",
    tries="keeps a session for longer than it lasts",
    stops="a session has an end, which is checked at every request",
    stride="S",
    requirement="SR 2.5",
)
def test_a_session_ends_by_itself(target: Target) -> None:
    clock = ManualClock()
    identity = Identity(target.site.folder, clock)
    try:
        secret = identity.sign_in("mia", PASSWORD, "198.51.100.7")
        assert identity.actor_of_session(secret) is not None
        clock.advance_us(13 * 3600 * 1_000_000)
        assert identity.actor_of_session(secret) is None
    finally:
        identity.close()


@attack(
    "sessions/read from the database",
    tries="copies the metadata database and takes sessions and tokens from it",
    stops="only hashes of random secrets are kept",
    stride="I",
    requirement="SR 1.5",
)
def test_the_database_holds_no_secret(target: Target) -> None:
    secret = target.session().cookies["headrace_session"]
    files = [each for each in target.site.folder.root.rglob("*") if each.is_file()]
    bodies = [each.read_bytes() for each in files if each.stat().st_size < 50_000_000]
    kept = [body for body in bodies if secret.encode() in body or PASSWORD.encode() in body]
    kept += [body for body in bodies for each in target.tokens.values() if each.encode() in body]
    assert bodies and not kept


@attack(
    "sessions/cookie read by a script or sent along by another site",
    tries="reads the cookie from a script, or has another site's page use it",
    stops="HttpOnly and SameSite; under https also Secure and the __Host- prefix",
    stride="I",
    requirement="SR 3.8",
)
def test_the_cookie_has_its_flags(target: Target) -> None:
    form = {"name": "mia", "password": PASSWORD}
    for scheme in ("http", "https"):
        proxied = {"X-Forwarded-Proto": scheme}
        answer = httpx.post(f"{target.url}/sign-in", data=form, headers=proxied, timeout=30)
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=lax" in cookie and "path=/" in cookie
        assert ("secure" in cookie) == cookie.startswith("__host-") == (scheme == "https")
        assert "domain" not in cookie


@attack(
    "sessions/cookie of http under https",
    tries="plants a cookie from an http page of the same host, to be used under https",
    stops="under https only the __Host- cookie counts, which http cannot set",
    stride="S",
    requirement="SR 3.8",
)
def test_an_http_cookie_is_none_under_https(target: Target) -> None:
    secret = target.session().cookies["headrace_session"]
    cookies = {"headrace_session": secret}
    plain = httpx.get(f"{target.url}/api/v1/tags", cookies=cookies)
    assert plain.status_code == 200
    proxied = {"X-Forwarded-Proto": "https"}
    assert (
        httpx.get(f"{target.url}/api/v1/tags", cookies=cookies, headers=proxied).status_code == 401
    )


CHANGES = (
    ("POST", "/sign-in"),
    ("POST", "/sign-out"),
    ("POST", "/change-password"),
    ("POST", "/preferences"),
    ("POST", "/api/v1/write"),
    ("PUT", "/api/v1/site"),
    ("POST", "/api/v1/site/check"),
    ("PUT", "/api/v1/alarms/sheet"),
    ("POST", "/api/v1/alarms/acknowledge"),
    ("PUT", "/api/v1/formula/pump/x"),
    ("DELETE", "/api/v1/formula/pump/x"),
    ("POST", "/api/v1/formula/preview"),
    ("POST", "/api/v1/notifications/x/test"),
)


@attack(
    "sign-in/change asked for by a foreign page",
    tries="has the browser of a signed-in person send a change from another site's page",
    stops="every request but a read must come from a page of the console's own origin",
    stride="S",
    requirement="SR 3.8",
)
def test_a_foreign_page_changes_nothing(target: Target) -> None:
    with target.session() as client:
        for method, path in CHANGES:
            for headers in (EVIL, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
                answer = client.request(method, path, headers=headers, content=b"{}")
                assert (answer.status_code, answer.json()["code"]) == (403, "CONS-1001"), path


@attack(
    "sign-in/page of the same host without TLS",
    tries="puts a page in on the way over http, which then asks the https console",
    stops="under https an origin counts only with https",
    stride="S",
    requirement="SR 3.8",
)
def test_an_http_page_is_foreign_to_https() -> None:
    from starlette.requests import HTTPConnection

    def connection(scheme: str, origin: str) -> HTTPConnection:
        headers = [(b"host", b"plant:443"), (b"origin", origin.encode())]
        scope = {"type": "http", "scheme": scheme, "path": "/", "headers": headers, "server": None}
        return HTTPConnection(scope)

    check_origin(connection("https", "https://plant:443"))
    with pytest.raises(Refused, match="CONS-1001"):
        check_origin(connection("https", "http://plant:443"))
    assert session_cookie(connection("https", "")) == "__Host-headrace_session"


@attack(
    "sessions/token with more rights than its person",
    tries="uses a token of the role admin that belongs to a viewer",
    stops="a token has the smaller of its own and its person's rights",
    stride="E",
    requirement="SR 2.1",
)
def test_a_token_never_has_more_rights_than_its_person(target: Target) -> None:
    identity = Identity(target.site.folder)
    try:
        secret = identity.add_token("leo", "t", role="admin")
    finally:
        identity.close()
    headers = {"Authorization": f"Bearer {secret}"}
    for method, path in (("GET", "/api/v1/audit"), ("GET", "/api/v1/site")):
        answer = httpx.request(method, target.url + path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "SEC-1004")


@attack(
    "sessions/no token, half a token",
    tries="comes without a token, with another kind, with parts of one, with one of 60 kB",
    stops="a token is looked up by the hash of all of it",
    stride="S",
    requirement="SR 1.2",
)
def test_half_a_token_is_none(target: Target) -> None:
    good = target.tokens["admin"]
    for value in ("", "Bearer", f"Basic {good}", f"Bearer {good[:-1]}", f"Bearer {good}x"):
        headers = {"Authorization": value}
        assert httpx.get(f"{target.url}/api/v1/tags", headers=headers).status_code == 401
    long = {"Authorization": "Bearer " + "x" * 60_000}
    assert httpx.get(f"{target.url}/api/v1/last?tags={FLOW}", headers=long).status_code == 401
