"""Who may do what: one pure function that every door asks. What no rule allows is denied.

Roles, each with all that stands above it::

    viewer      read
    operator    write (a value to a device), operate (pause a connection, work alarms)
    engineer    edit (site file, certificates, alarms out of service), simulate (switch a simulated fault)
    admin       administer (users, tokens of others)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from headrace.model.errors import Refused

ActorKind = Literal["person", "service", "device", "edge", "app", "partner", "system"]
Role = Literal["viewer", "operator", "engineer", "admin"]
Action = Literal["read", "write", "operate", "edit", "simulate", "administer", "change_own"]

ROLES: Final[tuple[Role, ...]] = ("viewer", "operator", "engineer", "admin")
_GRANTS: Final[dict[Role, frozenset[Action]]] = {
    "viewer": frozenset({"read", "change_own"}),
    "operator": frozenset({"read", "change_own", "write", "operate"}),
    "engineer": frozenset({"read", "change_own", "write", "operate", "edit", "simulate"}),
    "admin": frozenset(
        {"read", "change_own", "write", "operate", "edit", "simulate", "administer"}
    ),
}


@dataclass(frozen=True)
class Grant:
    """A role for a part of the site: ``scope`` is an ISA-95 equipment path, "" the whole site."""

    role: Role
    scope: str = ""


@dataclass(frozen=True)
class Actor:
    """Who asks.

    Attributes:
        name: of the user.
        role: what the user is.
        must_change: true until the first password was replaced; then only ``change_own`` is allowed.
        language, theme: how this user wants to see the console.
        kind: what kind of actor. grants: roles for parts of the site. tenant: whose it is, "" ours.
        factors: what it proved who it is by.
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


@dataclass(frozen=True)
class Decision:
    """The answer: allowed or not, and why, for the audit record and for the person."""

    allowed: bool
    reason: str


def decide(actor: Actor | None, action: Action, resource: str) -> Decision:
    """Whether ``actor`` may do ``action`` on ``resource``; nobody and nothing unknown is allowed.

    Args:
        actor: who asks; None is somebody who did not sign in.
        action: what is asked.
        resource: what it is about, for example ``tag/17`` or ``connection/plc_1``.

    Example:
        >>> decide(Actor("mia", "viewer"), "write", "tag/17").allowed
        False
    """
    if actor is None:
        return Decision(False, f"nobody is signed in, and {action} on {resource} needs that")
    if actor.must_change and action != "change_own":
        return Decision(False, f"{actor.name} must first change the one-time password")
    if action in _GRANTS.get(actor.role, frozenset()):
        return Decision(True, f"role {actor.role} may {action}")
    return Decision(False, f"role {actor.role} of {actor.name} may not {action} on {resource}")


def require(actor: Actor | None, action: Action, resource: str) -> Actor:
    """The actor when the decision is yes.

    Raises:
        Refused: SEC-1003 when nobody is signed in, SEC-1004 when the role is not enough, SEC-1007
            when the one-time password must be changed first.
    """
    decision = decide(actor, action, resource)
    if actor is None:
        raise Refused("SEC-1003", decision.reason, "Sign in, or send a bearer token.")
    if actor.must_change and not decision.allowed:
        raise Refused("SEC-1007", decision.reason, "Sign in to the console and choose a password.")
    if not decision.allowed:
        raise Refused("SEC-1004", decision.reason, "Ask an admin for a role that may.")
    return actor
