"""Single sign-on by OpenID Connect: the relying party's side of the authorization code flow.

::

    browser ─► begin() ─► provider's sign-in ─► callback?code&state ─► finish() ─► LinkedPerson
                 │ state, nonce, verifier go into a cookie of the browser that began

Only what the provider signed counts: issuer, audience, nonce, time and signature of the ID token are
checked, against keys that its discovery document names. Keys are fetched again when a token names one
that is not known, at most once in ten seconds.

Sources: OpenID Connect Core 1.0, 3.1; Discovery 1.0; RP-Initiated Logout 1.0; RFC 7636 (PKCE); RFC 9700.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlencode, urlsplit

import httpx
import msgspec

from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Misconfigured, Refused, Transient
from headrace.model.time import US_PER_S, Clock
from headrace.security.identity import LinkedPerson
from headrace.security.policy import ROLES, Grant, Role
from headrace.security.settings import OidcSettings

SKEW_S: Final = 60
KEYS_S: Final = 3_600.0
KEYS_AGAIN_S: Final = 10.0
ANSWER_BYTES_MAX: Final = 256 * 1024
KEYS_MAX: Final = 50
GROUPS_MAX: Final = 1_000
PATIENCE_S: Final = 10.0
ALGORITHMS: Final = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "EdDSA",
)
"""Signatures only: neither ``none``, nor HMAC by which the public key would be the secret."""


class Begun(msgspec.Struct, frozen=True):
    """What a browser keeps, in a cookie of its own, between the two halves of a sign-in."""

    state: str
    nonce: str
    verifier: str
    next: str
    again: bool = False


@dataclass(frozen=True)
class _Provider:
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str
    end_session_endpoint: str


class SingleSignOn:
    """One provider, as ``headrace.toml`` names it.

    Args:
        settings: of the section ``identity.oidc``.
        clock: for the times in tokens, and for how old keys are.

    Raises:
        Misconfigured: SEC-1031 when the settings cannot be.
    """

    def __init__(self, settings: OidcSettings, clock: Clock) -> None:
        check_settings(settings)
        self._settings = settings
        self._clock = clock
        self._provider: _Provider | None = None
        self._keys: Any = None
        self._keys_at_s = float("-inf")
        self._fetching = asyncio.Lock()

    async def begin(
        self, redirect_uri: str, target: str, *, again: bool = False
    ) -> tuple[str, Begun]:
        """Where to send the browser, and what it keeps.

        Args:
            again: ask the person again even where the provider's own session is open (OpenID
                Connect Core 3.1.2.1), as a signature needs it.

        Raises:
            Transient: SEC-1032 when the provider does not answer as it should.
        """
        provider = await self._discovered()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        begun = Begun(state, nonce, verifier, target, again)
        challenge = hashlib.sha256(begun.verifier.encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(self._settings.scopes),
            "state": begun.state,
            "nonce": begun.nonce,
            "code_challenge": base64.urlsafe_b64encode(challenge).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        if again:
            asked |= {"prompt": "login", "max_age": "1"}  # 0 is taken for an error by some
        joint = "&" if urlsplit(provider.authorization_endpoint).query else "?"
        return f"{provider.authorization_endpoint}{joint}{urlencode(asked)}", begun

    async def finish(
        self, answer: Mapping[str, str], begun: Begun | None, redirect_uri: str
    ) -> LinkedPerson:
        """Who came back.

        Args:
            answer: the query of the callback.
            begun: of the browser's cookie; None when it has none.

        Raises:
            Refused: SEC-1033 when anything in it is not as it must be; SEC-1035 when none of the
                person's groups has a role here.
            Transient: SEC-1032 when the provider does not answer as it should.
        """
        if begun is None or not secrets.compare_digest(
            answer.get("state", "").encode(), begun.state.encode()
        ):
            raise _refused("the answer is not for a sign-in that this browser began")
        if answer.get("iss", self._settings.issuer) != self._settings.issuer:
            raise _refused("the answer is of another provider")
        if "error" in answer:
            raise _refused(f"the provider says {answer['error'][:80]!r}")
        provider = await self._discovered()
        tokens = await self._exchange(provider, answer.get("code", ""), begun, redirect_uri)
        claims = await self._checked(str(tokens.get("id_token", "")), begun.nonce)
        if self._settings.group_claim not in claims and provider.userinfo_endpoint:
            claims |= await self._userinfo(provider, str(tokens.get("access_token", "")), claims)
        return self._person(claims)

    async def sign_out_url(self, back: str) -> str:
        """Where the provider ends its own session; "" when it has no such place or is away."""
        try:
            end = (await self._discovered()).end_session_endpoint
        except Transient:
            return ""
        asked = {"client_id": self._settings.client_id, "post_logout_redirect_uri": back}
        return f"{end}{'&' if urlsplit(end).query else '?'}{urlencode(asked)}" if end else ""

    # private

    async def _discovered(self) -> _Provider:
        if self._provider is None:
            issuer = self._settings.issuer
            found = await self._get(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
            if found.get("issuer") != issuer:
                raise _away(f"{issuer} calls itself {str(found.get('issuer'))[:200]!r}")
            urls = [str(found.get(name) or "") for name in _Provider.__dataclass_fields__]
            provider = _Provider(*urls)
            for url in (
                provider.authorization_endpoint,
                provider.token_endpoint,
                provider.jwks_uri,
            ):
                if not _is_safe(url, issuer):
                    raise _away(f"{issuer} names {url[:200]!r}, which is not safe")
            self._provider = provider
        return self._provider

    async def _exchange(
        self, provider: _Provider, code: str, begun: Begun, redirect_uri: str
    ) -> dict[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": begun.verifier,
            "client_id": self._settings.client_id,
        }
        auth = None
        if self._settings.client_secret_file:
            auth = httpx.BasicAuth(self._settings.client_id, self._client_secret())
        status, found = await self._ask("POST", provider.token_endpoint, data=form, auth=auth)
        if status in (400, 401, 403):
            raise _refused("the provider does not take the code: it was used, or is not ours")
        if status != 200:
            raise _away(f"{provider.token_endpoint} answers {status}")
        return found

    async def _checked(self, token: str, nonce: str) -> dict[str, Any]:
        """The claims of an ID token that is signed, ours, of this sign-in, and of now."""
        from joserfc import jwt
        from joserfc.errors import JoseError

        keys = await self._known_keys(0)
        try:
            try:
                claims = jwt.decode(token, keys, algorithms=list(ALGORITHMS)).claims
            except (JoseError, ValueError):
                keys = await self._known_keys(1)  # the provider may have new ones
                claims = jwt.decode(token, keys, algorithms=list(ALGORITHMS)).claims
            jwt.JWTClaimsRegistry(
                now=self._clock.now_us() // US_PER_S,
                leeway=SKEW_S,
                iss={"essential": True, "value": self._settings.issuer},
                aud={"essential": True, "value": self._settings.client_id},
                sub={"essential": True},
                exp={"essential": True},
                iat={"essential": True},
                nonce={"essential": True, "value": nonce},
            ).validate(claims)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise _refused(f"the ID token is not valid: {str(error)[:120]}") from error
        audience = claims["aud"]
        several = isinstance(audience, list) and len(audience) > 1
        if (several or "azp" in claims) and claims.get("azp") != self._settings.client_id:
            raise _refused("the ID token was made for another client")
        return dict(claims)

    async def _known_keys(self, turn: int) -> Any:
        """The provider's keys; ``turn`` 1 asks for new ones, at most once in ten seconds."""
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        async with self._fetching:
            age_s = self._clock.monotonic_s() - self._keys_at_s
            if self._keys is not None and age_s < (KEYS_AGAIN_S if turn else KEYS_S):
                return self._keys
            found = await self._get((await self._discovered()).jwks_uri)
            keys = found.get("keys")
            if not isinstance(keys, list) or not keys or len(keys) > KEYS_MAX:
                raise _away("the provider's keys are no list of keys")
            usable = [key for key in keys if isinstance(key, dict) and _can_sign(key)]
            try:
                self._keys = KeySet.import_key_set(cast(Any, {"keys": usable}))
            except (JoseError, ValueError, TypeError, KeyError) as error:
                raise _away("the provider's keys cannot be read") from error
            self._keys_at_s = self._clock.monotonic_s()
            return self._keys

    async def _userinfo(
        self, provider: _Provider, token: str, claims: Mapping[str, Any]
    ) -> dict[str, Any]:
        if not _is_safe(provider.userinfo_endpoint, self._settings.issuer):
            return {}
        headers = {"Authorization": f"Bearer {token}"}
        found = await self._get(provider.userinfo_endpoint, headers=headers)
        if found.get("sub") != claims["sub"]:  # OpenID Connect Core 5.3.2: else it is not used
            return {}
        named = (self._settings.group_claim, self._settings.name_claim)
        return {name: found[name] for name in named if name in found}

    def _person(self, claims: Mapping[str, Any]) -> LinkedPerson:
        found = claims.get(self._settings.group_claim, [])
        groups = [found] if isinstance(found, str) else found if isinstance(found, list) else []
        mapped = {self._settings.groups.get(str(group), "") for group in groups[:GROUPS_MAX]}
        grants = sorted(
            {grant_of(text) for text in mapped if text}, key=lambda g: (g.role, g.scope)
        )
        if not grants:
            raise Refused(
                "SEC-1035",
                "none of your groups has a role here",
                "Ask an admin to name one of them in headrace.toml, section identity.oidc.groups.",
            )
        whole = [grant.role for grant in grants if not grant.scope]
        name = claims.get(self._settings.name_claim) or claims["sub"]
        return LinkedPerson(
            issuer=self._settings.issuer,
            subject=str(claims["sub"])[:255],
            name=str(name),
            role=max(whole, key=ROLES.index, default="viewer"),
            auth_us=_auth_us(claims.get("auth_time")),
            grants=() if grants == [Grant(grants[0].role)] else tuple(grants),
        )

    async def _get(self, url: str, **more: Any) -> dict[str, Any]:
        status, found = await self._ask("GET", url, **more)
        if status != 200:
            raise _away(f"{url} answers {status}")
        return found

    async def _ask(self, method: str, url: str, **more: Any) -> tuple[int, dict[str, Any]]:
        """One request: no redirects, a bounded answer, a bounded time."""
        verify: Any = True
        if self._settings.ca_file:
            import ssl

            verify = ssl.create_default_context(cafile=self._settings.ca_file)
        if more.get("auth", 0) is None:
            more.pop("auth")
        try:
            async with (
                httpx.AsyncClient(timeout=PATIENCE_S, verify=verify, trust_env=False) as client,
                client.stream(method, url, **more) as answer,
            ):
                body = b""
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > ANSWER_BYTES_MAX:
                        raise _away(f"{url} answers more than {ANSWER_BYTES_MAX} bytes")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise _away(f"{url} does not answer: {error}") from error
        try:
            return answer.status_code, msgspec.json.decode(body or b"{}", type=dict[str, Any])
        except UNREADABLE as error:
            if answer.status_code == 200:
                raise _away(f"{url} answers no JSON object") from error
            return answer.status_code, {}

    def _client_secret(self) -> str:
        path = Path(self._settings.client_secret_file)
        try:
            return path.read_text("utf-8").strip()
        except OSError as error:
            raise Misconfigured(
                "SEC-1031", f"the client secret {path} cannot be read", "Put it there."
            ) from error


def _auth_us(told: Any) -> int:
    """When the person was asked; 0 for what is no time."""
    is_time = isinstance(told, int) and not isinstance(told, bool) and 0 < told < 1 << 40
    return int(told) * US_PER_S if is_time else 0


def check_settings(settings: OidcSettings) -> None:
    """Pass when single sign-on can work with these.

    Raises:
        Misconfigured: SEC-1031 with what is wrong.
    """

    def wrong(what: str, remedy: str) -> Misconfigured:
        return Misconfigured("SEC-1031", f"[identity.oidc] {what}", remedy)

    if not _is_safe(settings.issuer, settings.issuer):
        raise wrong(f"issuer is {settings.issuer!r}", "Write https://... as it names itself.")
    if not settings.client_id or "openid" not in settings.scopes:
        raise wrong("has no client_id, or no scope openid", "Give both.")
    if not settings.groups:
        raise wrong("maps no group to a role", "Add [identity.oidc.groups]: group = role.")
    for text in settings.groups.values():
        if grant_of(text).role not in ROLES:
            raise wrong(f"maps to the role {text!r}", f"Use: {', '.join(ROLES)}.")


def grant_of(text: str) -> Grant:
    """``role`` or ``role:equipment/path`` as a grant.

    Example:
        >>> grant_of("operator:utilities/pumping")
        Grant(role='operator', scope='utilities/pumping')
    """
    role, _, scope = text.partition(":")
    return Grant(cast(Role, role), scope.strip("/"))


def _is_safe(url: str, issuer: str) -> bool:
    """https; http only where the provider itself is on this machine."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        return bool(parts.hostname)
    loopback = ("127.0.0.1", "::1", "localhost")
    return (
        parts.scheme == "http"
        and parts.hostname in loopback
        and urlsplit(issuer).hostname in loopback
    )


def _can_sign(key: Mapping[str, Any]) -> bool:
    return key.get("kty") in ("RSA", "EC", "OKP") and key.get("use", "sig") == "sig"


def _refused(what: str) -> Refused:
    return Refused("SEC-1033", what, "Begin again at the sign-in page.")


def _away(what: str) -> Transient:
    return Transient("SEC-1032", f"the sign-on provider cannot be used: {what}", "Try again later.")
