"""Single sign-on against a real OpenID provider, and against tokens that an attacker would send."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI
from joserfc import jwt
from joserfc.jwk import RSAKey

from headrace.console.api import errors, gate, single_sign_on
from headrace.console.api.guard import Guard, SecurityHeaders
from headrace.console.services import Services
from headrace.model.errors import HeadraceError, Misconfigured, Refused, Transient
from headrace.model.folder import DataFolder
from headrace.model.time import US_PER_S, ManualClock, SystemClock
from headrace.security.identity import Identity
from headrace.security.oidc import Begun, SingleSignOn, check_settings
from headrace.security.policy import Grant
from headrace.security.settings import OidcSettings
from oidc_provider import CLIENT, CLIENT_SECRET, Provider, query_of, start_provider

BASE = "http://headrace.test"
BACK = f"{BASE}/sso/callback"
GROUPS = {"plant-engineers": "engineer", "pumps": "operator:utilities/pumping", "nobody": "viewer"}


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    folder = tmp_path_factory.mktemp("provider")
    (folder / "secret").write_text(CLIENT_SECRET)
    with start_provider(folder, BACK) as running:
        yield running


def settings_for(provider: Provider, **more: Any) -> OidcSettings:
    fields: dict[str, Any] = {
        "issuer": provider.issuer,
        "client_id": CLIENT,
        "client_secret_file": str(provider.folder / "secret"),
        "scopes": ["openid"],
        "groups": GROUPS,
    }
    return OidcSettings(**(fields | more))


@pytest.fixture
async def browser(
    provider: Provider, tmp_path: Path
) -> AsyncIterator[tuple[httpx.AsyncClient, Identity]]:
    """The gate with single sign-on, and a browser before it."""
    wanted = settings_for(provider)
    lines = [f'{name} = "{getattr(wanted, name)}"' for name in ("issuer", "client_id")]
    lines.append(f'client_secret_file = "{wanted.client_secret_file}"\nscopes = ["openid"]')
    groups = "\n".join(f'{group} = "{role}"' for group, role in GROUPS.items())
    text = "[identity.oidc]\n" + "\n".join(lines) + f"\n[identity.oidc.groups]\n{groups}\n"
    (tmp_path / "headrace.toml").write_text(text)
    identity = Identity(DataFolder(tmp_path))
    services = Services(cast(Any, SimpleNamespace(clock=SystemClock())), identity)
    app = FastAPI()
    errors.install(app)
    app.include_router(gate.make_router(services))
    app.include_router(single_sign_on.make_router(services))
    app.add_middleware(Guard, services=services)
    app.add_middleware(SecurityHeaders)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url=BASE, timeout=60) as client:
        yield client, identity
    identity.close()


async def come_back(client: httpx.AsyncClient, provider: Provider, to: str = "/trend") -> str:
    """To the provider and until its answer; gives the callback's path and query."""
    answer = await client.get("/sso/start", params={"next": to})
    assert answer.status_code == 303, answer.text
    return provider.authorize(answer.headers["location"]).removeprefix(BASE)


async def test_a_person_signs_in_and_is_made_with_the_role_of_the_groups(
    browser: tuple[httpx.AsyncClient, Identity], provider: Provider
) -> None:
    client, identity = browser
    answer = await client.get(await come_back(client, provider))
    assert (answer.status_code, answer.headers["location"]) == (303, "/trend")
    actor = identity.actor_of_session(client.cookies["headrace_session"])
    assert actor is not None and (actor.name, actor.role) == ("ada", "engineer")
    assert actor.factors == {"oidc"} and "headrace_sso" not in client.cookies
    with pytest.raises(Refused, match="SEC-1001"):
        identity.sign_in("ada", "!", "here")
    provider.set_groups(["pumps"])
    try:
        await client.get(await come_back(client, provider))
    finally:
        provider.set_groups(["plant-engineers", "canteen"])
    actor = identity.actor_of_session(client.cookies["headrace_session"])
    assert actor is not None and actor.grants == (Grant("operator", "utilities/pumping"),)
    assert [user.name for user in identity.users()] == ["ada"], "the same person, not a second one"
    answer = await client.post("/sign-out")
    assert answer.headers["location"] == "/sign-in?changed=3"
    assert "/sso/end" in (await client.get("/sign-in?changed=3")).text
    assert "/end_session?" in (await client.get("/sso/end")).headers["location"]
    assert identity.sessions.list("ada") != [] and len(identity.sessions.list("ada")) == 1


async def test_nobody_becomes_a_local_user_by_being_called_like_one(
    browser: tuple[httpx.AsyncClient, Identity], provider: Provider
) -> None:
    client, identity = browser
    identity.add_user("ada", "admin", "a long enough phrase")
    await client.get(await come_back(client, provider))
    actor = identity.actor_of_session(client.cookies["headrace_session"])
    assert actor is not None and (actor.name, actor.role) == ("ada-2", "engineer")
    identity.set_disabled("ada-2", True)
    answer = await client.get(await come_back(client, provider))
    assert answer.status_code == 401, "closed here is closed, whatever the provider says"


async def test_to_sign_the_provider_asks_again_and_the_session_stays(
    browser: tuple[httpx.AsyncClient, Identity],
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client, identity = browser
    await client.get(await come_back(client, provider))
    session = client.cookies["headrace_session"]
    [user] = identity.users()
    with pytest.raises(Refused, match="SEC-1037"):
        identity.confirm(user.name, "", "here", session=session)
    answer = await client.get("/sso/start", params={"next": "/profile", "again": "1"})
    asked = query_of(answer.headers["location"])
    assert (asked["prompt"], asked["max_age"]) == ("login", "1")
    back = provider.authorize(answer.headers["location"]).removeprefix(BASE)
    answer = await client.get(back)
    assert answer.status_code == 401, "this provider says auth_time 0, which is not now"
    assert "did not say that it asked you just now" in answer.text

    checked = SingleSignOn._checked

    async def timed(self: SingleSignOn, token: str, nonce: str) -> dict[str, Any]:
        told = await checked(self, token, nonce)
        return told | {"auth_time": told["iat"]}

    monkeypatch.setattr(SingleSignOn, "_checked", timed)
    answer = await client.get("/sso/start", params={"next": "/profile", "again": "1"})
    back = provider.authorize(answer.headers["location"]).removeprefix(BASE)
    answer = await client.get(back)
    assert answer.status_code == 303, answer.text
    assert answer.headers["location"] == "/profile"
    assert client.cookies["headrace_session"] == session
    assert len(identity.sessions.list(user.name)) == 1
    identity.confirm(user.name, "", "here", session=session)


async def test_who_has_no_group_stays_out(
    browser: tuple[httpx.AsyncClient, Identity], provider: Provider
) -> None:
    client, identity = browser
    provider.set_groups(["canteen"])
    try:
        answer = await client.get(await come_back(client, provider))
    finally:
        provider.set_groups(["plant-engineers", "canteen"])
    assert answer.status_code == 401 and identity.users() == []


async def test_wrong_state_foreign_cookie_and_replay_are_refused(
    browser: tuple[httpx.AsyncClient, Identity], provider: Provider
) -> None:
    client, identity = browser
    path = await come_back(client, provider)
    wrong = path.replace("state=", "state=x")
    kept = client.cookies["headrace_sso"]
    client.cookies.clear()
    assert (await client.get(path)).status_code == 401, "a link that an attacker sends"
    client.cookies.set("headrace_sso", kept)
    assert (await client.get(wrong)).status_code == 401
    client.cookies.set("headrace_sso", "nonsense")
    assert (await client.get(path)).status_code == 401
    client.cookies.clear()
    client.cookies.set("headrace_sso", kept)
    assert (await client.get(path)).status_code == 303
    client.cookies.clear()
    client.cookies.set("headrace_sso", kept)
    assert (await client.get(path)).status_code == 401, "the code was used"
    assert len(identity.sessions.list("ada")) == 1


async def test_the_code_alone_is_worth_nothing_and_other_nonces_are_refused(
    provider: Provider,
) -> None:
    sso = SingleSignOn(settings_for(provider), SystemClock())
    for part in ("verifier", "nonce"):
        url, begun = await sso.begin(BACK, "/")
        answer = query_of(provider.authorize(url))
        fields = {"state": begun.state, "nonce": begun.nonce, "verifier": begun.verifier}
        stolen = Begun(
            **(fields | {part: "of-another-browser-with-enough-length-to-be-one"}), next="/"
        )
        with pytest.raises(Refused, match="SEC-1033"):
            await sso.finish(answer, stolen, BACK)


async def test_new_keys_of_the_provider_are_taken_without_a_restart(provider: Provider) -> None:
    clock = ManualClock(SystemClock().now_us())
    sso = SingleSignOn(settings_for(provider), clock)
    for key in ("", "key-2", "key-3"):
        if key:
            provider.rotate(key)
        clock.advance_us(11 * US_PER_S)
        url, begun = await sso.begin(BACK, "/")
        person = await sso.finish(query_of(provider.authorize(url)), begun, BACK)
        assert person.role == "engineer"


async def test_no_way_out_to_another_page(
    browser: tuple[httpx.AsyncClient, Identity], provider: Provider
) -> None:
    client, _ = browser
    for evil in ("https://evil.example", "//evil.example", "/\\evil.example"):
        answer = await client.get(await come_back(client, provider, evil))
        assert answer.headers["location"] == "/"


# Tokens that a provider of the attacker's, or somebody in between, would send.

ISSUER = "https://login.plant.example"
KEY = RSAKey.generate_key(2048, {"kid": "k1"})
BEGUN = Begun("state", "nonce", "verifier", "/")
ANSWER = {"code": "c", "state": "state"}


class Forged(SingleSignOn):
    """The real checks; what the network would answer is given."""

    def __init__(self, token: str, **found: Any) -> None:
        settings = OidcSettings(issuer=ISSUER, client_id=CLIENT, groups=GROUPS)
        super().__init__(settings, ManualClock())
        self.asked: list[str] = []
        ends = ("authorization_endpoint", "token_endpoint", "jwks_uri")
        document = {name: f"{ISSUER}/{name}" for name in ends} | {"issuer": ISSUER} | found
        self._answers = {
            f"{ISSUER}/.well-known/openid-configuration": document,
            f"{ISSUER}/jwks_uri": {"keys": [KEY.as_dict(private=False)]},
            f"{ISSUER}/token_endpoint": {"id_token": token},
        }

    async def _ask(self, method: str, url: str, **more: Any) -> tuple[int, dict[str, Any]]:
        self.asked.append(url)
        return 200, self._answers[url]


def claims(**more: Any) -> dict[str, Any]:
    now_s = ManualClock().now_us() // US_PER_S
    fields = {"iss": ISSUER, "aud": CLIENT, "sub": "7", "nonce": "nonce", "iat": now_s}
    return fields | {"exp": now_s + 300, "groups": ["plant-engineers"]} | more


def signed(fields: dict[str, Any], key: Any = KEY, alg: str = "RS256", **header: Any) -> str:
    return jwt.encode({"alg": alg, "kid": "k1"} | header, fields, key, algorithms=[alg])


async def test_a_right_token_is_taken() -> None:
    person = await Forged(signed(claims())).finish(ANSWER, BEGUN, BACK)
    assert (person.subject, person.role, person.grants) == ("7", "engineer", ())
    now_s = ManualClock().now_us() // US_PER_S
    late = signed(claims(exp=now_s - 30, iat=now_s + 30))
    assert await Forged(late).finish(ANSWER, BEGUN, BACK), "clocks differ a little"


def _part(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def by_hand(alg: str, secret: bytes = b"") -> str:
    """A token that no library would make."""
    head = json.dumps({"alg": alg, "kid": "k1"}).encode()
    body = f"{_part(head)}.{_part(json.dumps(claims()).encode())}"
    mark = hmac.digest(secret, body.encode(), "sha256") if secret else b""
    return f"{body}.{_part(mark)}"


NOW_S = ManualClock().now_us() // US_PER_S
OTHER = RSAKey.generate_key(2048, {"kid": "k1"})
PUBLIC = KEY.as_pem(private=False)


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(by_hand("none"), id="alg none"),
        pytest.param(by_hand("HS256", PUBLIC), id="public key as HMAC secret"),
        pytest.param(signed(claims(), OTHER), id="another key of the same name"),
        pytest.param(signed(claims(), OTHER, kid="k9"), id="unknown key"),
        pytest.param(signed(claims(iss="https://evil.example")), id="wrong issuer"),
        pytest.param(signed(claims(aud="other")), id="wrong audience"),
        pytest.param(signed(claims(aud=[CLIENT, "other"])), id="several audiences, no azp"),
        pytest.param(signed(claims(azp="other")), id="for another client"),
        pytest.param(signed(claims(nonce="old")), id="wrong nonce"),
        pytest.param(signed({k: v for k, v in claims().items() if k != "nonce"}), id="no nonce"),
        pytest.param(signed(claims(exp=NOW_S - 61)), id="expired"),
        pytest.param(signed({k: v for k, v in claims().items() if k != "exp"}), id="no expiry"),
        pytest.param(signed(claims(iat=NOW_S + 3_600)), id="of the future"),
        pytest.param(signed(claims(nbf=NOW_S + 3_600)), id="not yet valid"),
        pytest.param(signed({k: v for k, v in claims().items() if k != "sub"}), id="no subject"),
        pytest.param("", id="nothing"),
        pytest.param("a.b.c", id="nonsense"),
        pytest.param(signed(claims())[:-6] + "AAAAAA", id="signature changed"),
    ],
)
async def test_a_token_that_is_not_right_lets_nobody_in(token: str) -> None:
    with pytest.raises(Refused, match="SEC-1033"):
        await Forged(token).finish(ANSWER, BEGUN, BACK)


async def test_an_answer_of_another_provider_or_an_error_is_refused() -> None:
    for more in ({"iss": "https://evil.example"}, {"error": "access_denied"}):
        with pytest.raises(Refused, match="SEC-1033"):
            await Forged(signed(claims())).finish(ANSWER | more, BEGUN, BACK)


async def test_keys_are_asked_for_at_most_once_in_ten_seconds() -> None:
    sso = Forged(signed(claims(), OTHER))
    for _ in range(20):
        with pytest.raises(Refused):
            await sso.finish(ANSWER, BEGUN, BACK)
    assert sso.asked.count(f"{ISSUER}/jwks_uri") <= 2


@pytest.mark.parametrize(
    "found",
    [
        {"issuer": "https://evil.example"},
        {"token_endpoint": "http://169.254.169.254/latest"},
        {"jwks_uri": "file:///etc/passwd"},
        {"authorization_endpoint": "javascript:alert(1)"},
    ],
)
async def test_a_discovery_document_that_is_not_safe_is_not_used(found: dict[str, str]) -> None:
    with pytest.raises(Transient, match="SEC-1032"):
        await Forged(signed(claims()), **found).begin(BACK, "/")


@pytest.mark.parametrize(
    "more",
    [
        {"issuer": "http://login.plant.example"},
        {"client_id": ""},
        {"scopes": ["profile"]},
        {"groups": {}},
        {"groups": {"all": "root"}},
    ],
)
def test_settings_that_cannot_be_are_told(more: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"issuer": ISSUER, "client_id": CLIENT, "groups": GROUPS}
    check_settings(OidcSettings(**fields))
    with pytest.raises(Misconfigured, match="SEC-1031"):
        check_settings(OidcSettings(**(fields | more)))


async def test_a_provider_that_is_away_is_told_as_such() -> None:
    settings = OidcSettings(issuer="http://127.0.0.1:9", client_id=CLIENT, groups=GROUPS)
    with pytest.raises(HeadraceError, match="SEC-1032"):
        await SingleSignOn(settings, SystemClock()).begin(BACK, "/")
