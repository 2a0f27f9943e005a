"""What every route and page is given: the sources, the users, and who asks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from headrace.console.alarms import AlarmBoard
from headrace.console.app_shop import AppShop
from headrace.console.scope import ScopedBoard, Scopes, is_whole
from headrace.console.session_watch import SessionWatch
from headrace.console.site_view import SiteView
from headrace.console.sources import Sources
from headrace.console.texts import Texts
from headrace.model.errors import Refused
from headrace.model.time import Clock, SystemClock
from headrace.security.audit import Outcome
from headrace.security.identity import Identity
from headrace.security.oidc import SingleSignOn
from headrace.security.policy import (
    Action,
    Actor,
    Decision,
    Grant,
    Needed,
    checked,
    decide,
    lesser_role,
)
from headrace.security.policy_files import PolicyWatch

COOKIE = "headrace_session"
LANGUAGE_COOKIE = "headrace_language"
THEME_COOKIE = "headrace_theme"
RELEASE_HEADER = "x-headrace-release"
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
    scopes: Scopes = field(default_factory=Scopes)
    policies: PolicyWatch | None = None

    @cached_property
    def watch(self) -> SessionWatch:
        """Tells who holds a line open that its session is over."""
        return SessionWatch(self.identity)

    @cached_property
    def catalog(self) -> AppShop:
        """Packages of apps, and what is installed."""
        return AppShop(self.sources.folder, self.identity.audit, self.sources.clock)

    @cached_property
    def sso(self) -> SingleSignOn | None:
        """The OpenID provider of the settings; None when they name none.

        Raises:
            Misconfigured: SEC-1031 when the settings cannot be.
        """
        settings = self.identity.settings.oidc
        return SingleSignOn(settings, self.sources.clock) if settings.issuer else None

    def actor(self, connection: HTTPConnection) -> Actor | None:
        """Who asks: the holder of the session cookie, or of the bearer token; with its grants."""
        kind, secret = _secret(connection)
        if kind == "bearer":
            return self._granted(self.identity.actor_of_token(secret), is_token=True)
        return self._granted(self.identity.actor_of_session(secret), is_token=False)

    def secret(self, connection: HTTPConnection) -> str:
        """What the actor showed: for :attr:`watch`."""
        return _secret(connection)[1]

    def _granted(self, actor: Actor | None, *, is_token: bool) -> Actor | None:
        """A person with the grants it has now; those of a token go no further than its role."""
        if actor is None or actor.kind != "person" or actor.grants:
            return actor
        grants = self.identity.grants.of(actor.name)
        if is_token:
            grants = tuple(Grant(lesser_role(g.role, actor.role), g.scope) for g in grants)
        return replace(actor, grants=grants) if grants else actor

    def site(self, actor: Actor) -> SiteView:
        """The site as this actor may see it."""
        return self.scopes.site(self.sources.site, actor)

    def alarms(self, actor: Actor) -> AlarmBoard | ScopedBoard:
        """The alarms that this actor may see."""
        board = self.sources.alarms
        return board if is_whole(actor) else ScopedBoard(board, actor)

    def require(
        self,
        connection: HTTPConnection,
        action: Action,
        resource: str,
        context: Mapping[str, Any] | None = None,
    ) -> Actor:
        """The actor when the policy says yes.

        Args:
            context: see :func:`headrace.security.policy.decide`; all of it is what a signature binds.

        Raises:
            Refused: SEC-1003, SEC-1004, SEC-1007 or SEC-1410 to SEC-1413 as the policy says; CONS-1001
                when a browser sends a change from another site's page.
        """
        release = connection.headers.get(RELEASE_HEADER, "")
        actor = self.decide(self.actor(connection), action, resource, context, release=release)
        if action != "read" and "authorization" not in connection.headers:
            check_origin(connection)
        return actor

    def decide(
        self,
        actor: Actor | None,
        action: Action,
        resource: str,
        context: Mapping[str, Any] | None = None,
        *,
        release: str = "",
    ) -> Actor:
        """The actor when the policy says yes; a decision on more than reading stands in the audit chain.

        Args:
            release: id of a signature or an approval, which is used when it is needed.

        Raises:
            Refused: SEC-1003, SEC-1004, SEC-1007 or SEC-1410 to SEC-1413 as the policy says.
        """
        facts = dict(context or {})
        decision = decide(actor, action, resource, facts)
        if decision.needs == "second_person" and not release and actor is not None:
            release = self.identity.releases.ready(actor.name, action, resource, facts)
        if decision.needs and release and actor is not None:
            state = self.identity.releases.use(release, actor.name, action, resource, facts)
            given = {"signed" if state == "signed" else "approved": True}
            decision = decide(actor, action, resource, {**facts, **given})
        if action not in UNTOLD:
            self._tell(actor, action, resource, decision)
        if decision.needs:
            raise Needed(decision, action, resource, facts)
        return checked(actor, decision)

    def require_all(
        self,
        connection: HTTPConnection,
        action: Action,
        things: Sequence[tuple[str, Mapping[str, Any]]],
    ) -> Actor:
        """The actor when the policy says yes to every one of several things, told as one decision.

        Args:
            things: resource and context of each; at least one.

        Raises:
            Refused: as :meth:`require`, for the first that is refused.
        """
        actor = self.actor(connection)
        worst = first_refused(actor, action, things)
        return self.require(connection, action, *worst)

    def _tell(self, actor: Actor | None, action: Action, resource: str, decision: Decision) -> None:
        name = actor.name if actor is not None else "nobody"
        if decision.allowed or self.denials.is_new((name, action)):
            outcome: Outcome = "allowed" if decision.allowed else "denied"
            told = {"why": decision.reason, "policies": decision.policies}
            self.identity.audit.record(name, action, resource, outcome, **told)

    def texts(self, connection: HTTPConnection, actor: Actor | None = None) -> Texts:
        """Texts in the user's language; before the sign-in in the browser's."""
        if actor is not None:
            return Texts(actor.language)
        chosen = connection.cookies.get(LANGUAGE_COOKIE, "")
        accepted = connection.headers.get("accept-language", "")
        return Texts(chosen or ("zh" if accepted.lower().startswith("zh") else "en"))


def _secret(connection: HTTPConnection) -> tuple[str, str]:
    kind, _, secret = connection.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and secret:
        return "bearer", secret.strip()
    return "session", connection.cookies.get(session_cookie(connection), "")


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


def first_refused(
    actor: Actor | None, action: Action, things: Sequence[tuple[str, Mapping[str, Any]]]
) -> tuple[str, Mapping[str, Any]]:
    """The first of several things that the policy refuses; the first of all when it refuses none."""
    needing = None
    for resource, context in things:
        decision = decide(actor, action, resource, context)
        if not decision.allowed and not decision.needs:
            return resource, context
        if decision.needs and needing is None:
            needing = resource, context
    return needing or things[0]
