"""Who asks and what is answered: the words of every decision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

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
    "publish",
    "subscribe",
    "request",
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
_BELOW: Final[dict[str, frozenset[str]]] = {
    "viewer": frozenset(),
    "operator": frozenset({"viewer"}),
    "engineer": frozenset({"viewer", "operator"}),
    "supervisor": frozenset({"viewer", "operator", "engineer"}),
    "security_officer": frozenset({"viewer"}),
    "admin": frozenset(ROLES) - {"admin"},
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
        grants: roles that count for parts of the site; a person with any has only these (but an admin is
            one on the whole site), and what is no person never has anything else.
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
        if self.kind not in ("person", "system"):
            return self.grants
        return self.grants if self.grants and self.role != "admin" else (Grant(self.role),)


@dataclass(frozen=True)
class Decision:
    """The answer: allowed or not, and why, for the audit record and for the person.

    Attributes:
        policies: ids of the policies that decided it; none when no policy permits it.
        needs: what would make it allowed: a signature, a second person, a second factor.
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
    if first == second or first in _BELOW[second]:
        return first
    return second if second in _BELOW[first] else "viewer"
