"""What every route and page is given: the sources, the users, and who asks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from headrace.console.sources import Sources
from headrace.console.texts import Texts
from headrace.model.errors import Refused
from headrace.model.time import Clock, SystemClock
from headrace.security.audit import Outcome
from headrace.security.identity import Identity
from headrace.security.policy import Action, Actor, decide, require

COOKIE = "headrace_session"
LANGUAGE_COOKIE = "headrace_language"
THEME_COOKIE = "headrace_theme"
UNTOLD: Final = frozenset({"read", "change_own"})
DENIAL_S: Final = 10.0
DENIALS_MAX: Final = 10_000


class Denials:
    """Which denials are told: of one actor and action one in ten seconds, so that nobody can flood the
    audit chain with what is refused."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told_s: OrderedDict[tuple[str, str], float] = OrderedDict()

    def is_new(self, what: tuple[str, str]) -> bool:
        """Whether to tell it; then it was told."""
        now_s = self._clock.monotonic_s()
        if now_s - self._told_s.get(what, float("-inf")) < DENIAL_S:
            return False
        self._told_s[what] = now_s
        self._told_s.move_to_end(what)
        while len(self._told_s) > DENIALS_MAX:
            self._told_s.popitem(last=False)
        return True


@dataclass(frozen=True)
class Services:
    """The parts of one console; made once by the role, handed to routes and pages."""

    sources: Sources
    identity: Identity
    denials: Denials = field(default_factory=lambda: Denials(SystemClock()))

    def actor(self, connection: HTTPConnection) -> Actor | None:
        """Who asks: the holder of the session cookie, or of the bearer token."""
        kind, _, secret = connection.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and secret:
            return self.identity.actor_of_token(secret.strip())
        return self.identity.actor_of_session(
            connection.cookies.get(session_cookie(connection), "")
        )

    def require(
        self,
        connection: HTTPConnection,
        action: Action,
        resource: str,
        context: Mapping[str, Any] | None = None,
    ) -> Actor:
        """The actor when the policy says yes.

        Raises:
            Refused: SEC-1003, SEC-1004 or SEC-1007 as the policy says; CONS-1001 when a browser
                sends a change from another site's page.
        """
        actor = self.decide(self.actor(connection), action, resource, context)
        if action != "read" and "authorization" not in connection.headers:
            check_origin(connection)
        return actor

    def decide(
        self,
        actor: Actor | None,
        action: Action,
        resource: str,
        context: Mapping[str, Any] | None = None,
    ) -> Actor:
        """The actor when the policy says yes; a decision on more than reading stands in the audit chain.

        Raises:
            Refused: SEC-1003, SEC-1004 or SEC-1007 as the policy says.
        """
        if action in UNTOLD:
            return require(actor, action, resource, context)
        decision = decide(actor, action, resource, context)
        name = actor.name if actor is not None else "nobody"
        if decision.allowed or self.denials.is_new((name, action)):
            outcome: Outcome = "allowed" if decision.allowed else "denied"
            self.identity.audit.record(name, action, resource, outcome, why=decision.reason)
        return require(actor, action, resource, context)

    def texts(self, connection: HTTPConnection, actor: Actor | None = None) -> Texts:
        """Texts in the user's language; before the sign-in in the browser's."""
        if actor is not None:
            return Texts(actor.language)
        chosen = connection.cookies.get(LANGUAGE_COOKIE, "")
        accepted = connection.headers.get("accept-language", "")
        return Texts(chosen or ("zh" if accepted.lower().startswith("zh") else "en"))


def session_cookie(connection: HTTPConnection) -> str:
    """The name of the session's cookie; under https one that browsers take from this host alone, over
    https alone, for every path (RFC 6265bis, 4.1.3.2): nobody else can plant a session."""
    secure = connection.url.scheme in ("https", "wss")
    return f"__Host-{COOKIE}" if secure else COOKIE


def check_origin(connection: HTTPConnection) -> None:
    """Pass when the browser's page is our own; programs send no Origin.

    Raises:
        Refused: CONS-1001 for any other page.
    """
    origin = connection.headers.get("origin")
    if origin is None:
        # A browser that leaves the origin out still says where its page is from (W3C Fetch Metadata).
        if connection.headers.get("sec-fetch-site") not in ("cross-site", "same-site"):
            return
        origin = "another site"
    elif _is_own(origin, connection):
        return
    raise Refused(
        "CONS-1001",
        f"a page of {origin} asked for a change",
        "Use the console's own address, the same in the browser and at the proxy.",
    )


def _is_own(origin: str, connection: HTTPConnection) -> bool:
    page = urlsplit(origin)
    # What came over TLS is asked for over TLS only: a page that somebody put in on the way is foreign.
    safe = page.scheme == "https" or connection.url.scheme not in ("https", "wss")
    return safe and page.netloc == connection.headers.get("host")
