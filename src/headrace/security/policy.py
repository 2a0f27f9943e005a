"""Who may do what: one pure function that every door asks. What no rule allows is denied.

Roles, each with all that stands above it::

    viewer      read
    operator    write (a value to a device), operate (pause a connection, work alarms)
    engineer    edit (site file, certificates, alarms out of service), simulate (switch a simulated fault)
    supervisor  approve (another's dangerous action), export (take data and records out)

and two that stand beside them::

    security_officer  read, administer (users, policy), audit, certify, share, approve, export; never
                      write, operate, edit or simulate
    admin             all
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from headrace.model.errors import Refused

Role = Literal["viewer", "operator", "engineer", "supervisor", "security_officer", "admin"]
ActorKind = Literal["person", "service", "device", "edge", "app", "partner", "system"]
Action = Literal[
    "read",
    "write",
    "operate",
    "edit",
    "simulate",
    "approve",
    "export",
    "administer",
    "audit",
    "certify",
    "share",
    "change_own",
]
Need = Literal["", "signature", "second_person", "second_factor"]

ROLES: Final[tuple[Role, ...]] = (
    "viewer",
    "operator",
    "engineer",
    "supervisor",
    "security_officer",
    "admin",
)
_VIEWER: Final = frozenset({"read", "change_own"})
_OPERATOR: Final = _VIEWER | {"write", "operate"}
_ENGINEER: Final = _OPERATOR | {"edit", "simulate"}
_SUPERVISOR: Final = _ENGINEER | {"approve", "export"}
_OFFICER: Final = _VIEWER | {"administer", "audit", "certify", "share", "approve", "export"}
_RIGHTS: Final[dict[Role, frozenset[str]]] = {
    "viewer": _VIEWER,
    "operator": _OPERATOR,
    "engineer": _ENGINEER,
    "supervisor": _SUPERVISOR,
    "security_officer": _OFFICER,
    "admin": _SUPERVISOR | _OFFICER,
}


@dataclass(frozen=True)
class Grant:
    """A role that counts for a part of the site.

    Attributes:
        role: which.
        scope: ISA-95 equipment path; empty for the whole site. It counts for all below it.
    """

    role: Role
    scope: str = ""


@dataclass(frozen=True)
class Actor:
    """Who asks.

    Attributes:
        name: of the user, the token's owner, the edge, ...
        role: what the actor is on the whole site, when it has no grants.
        must_change: true until the first password was replaced; then only ``change_own`` is allowed.
        language, theme: how this user wants to see the console.
        kind: what the actor is.
        grants: roles that count for parts of the site; where there are any, only they count (but an admin
            is one on the whole site).
        tenant: whose actor it is; empty for the site's own.
        factors: how it showed who it is: password, totp, oidc, passkey, token, certificate.
    """

    name: str
    role: Role
    must_change: bool = False
    language: str = "en"
    theme: str = "auto"
    kind: ActorKind = "person"
    grants: tuple[Grant, ...] = ()
    tenant: str = ""
    factors: frozenset[str] = frozenset()

    @property
    def held(self) -> tuple[Grant, ...]:
        """The grants that count.

        Example:
            >>> Actor("mia", "viewer").held
            (Grant(role='viewer', scope=''),)
        """
        return self.grants if self.grants and self.role != "admin" else (Grant(self.role),)


@dataclass(frozen=True)
class Decision:
    """The answer: allowed or not, and why, for the audit record and for the person.

    Attributes:
        policies: ids of the policies that decided it.
        needs: what the actor must still give before it may be done.
    """

    allowed: bool
    reason: str
    policies: tuple[str, ...] = ()
    needs: Need = ""


def lesser_role(first: Role, second: Role) -> Role:
    """A role that may no more than each of two: of a token and of its user.

    Example:
        >>> lesser_role("admin", "engineer"), lesser_role("security_officer", "engineer")
        ('engineer', 'viewer')
    """
    if _RIGHTS[first] <= _RIGHTS[second]:
        return first
    return second if _RIGHTS[second] <= _RIGHTS[first] else "viewer"


def decide(
    actor: Actor | None,
    action: Action,
    resource: str,
    context: Mapping[str, Any] | None = None,
) -> Decision:
    """Whether ``actor`` may do ``action`` on ``resource``; nobody and nothing unknown is allowed.

    Args:
        actor: who asks; None is somebody who did not sign in.
        action: what is asked.
        resource: what it is about, for example ``tag/17`` or ``connection/plc_1``.
        context: facts that matter: ``equipment``, the ISA-95 path where the resource lies.

    Example:
        >>> decide(Actor("mia", "viewer"), "write", "tag/17").allowed
        False
    """
    if actor is None:
        return Decision(False, f"nobody is signed in, and {action} on {resource} needs that")
    if actor.must_change and action != "change_own":
        return Decision(False, f"{actor.name} must first change the one-time password")
    place = str((context or {}).get("equipment", ""))
    for grant in actor.held:
        if action in _RIGHTS.get(grant.role, frozenset()) and _is_below(place, grant.scope):
            return Decision(True, f"role {grant.role} may {action}")
    return Decision(False, f"role {actor.role} of {actor.name} may not {action} on {resource}")


def _is_below(place: str, scope: str) -> bool:
    return not scope or place == scope or place.startswith(f"{scope}/")


def require(
    actor: Actor | None,
    action: Action,
    resource: str,
    context: Mapping[str, Any] | None = None,
) -> Actor:
    """The actor when the decision is yes.

    Raises:
        Refused: SEC-1003 when nobody is signed in, SEC-1004 when the role is not enough, SEC-1007
            when the one-time password must be changed first.
    """
    decision = decide(actor, action, resource, context)
    if actor is None:
        raise Refused("SEC-1003", decision.reason, "Sign in, or send a bearer token.")
    if actor.must_change and not decision.allowed:
        raise Refused("SEC-1007", decision.reason, "Sign in to the console and choose a password.")
    if not decision.allowed:
        raise Refused("SEC-1004", decision.reason, "Ask an admin for a role that may.")
    return actor
