"""Who may do what: one function that every door asks. What no policy permits is denied.

The policies are Cedar: the built-in ones (``cedar/builtin.cedar``) and the owner's own, which a process puts
in force with :func:`use`. docs/policy.md says what the roles may and how to write policies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from headrace.model.errors import Refused
from headrace.security.engine import Engine
from headrace.security.rights import ROLES as ROLES
from headrace.security.rights import Action as Action
from headrace.security.rights import Actor as Actor
from headrace.security.rights import ActorKind as ActorKind
from headrace.security.rights import Decision as Decision
from headrace.security.rights import Grant as Grant
from headrace.security.rights import Need as Need
from headrace.security.rights import Role as Role
from headrace.security.rights import lesser_role as lesser_role

NEEDED: Final = {
    "signature": ("SEC-1410", "Sign it: your password again, what it means, and why."),
    "second_person": ("SEC-1411", "Ask for it; another person with the right to approve decides."),
    "second_factor": ("SEC-1412", "Sign in with your second factor."),
}
_IN_FORCE: Engine | None = None


class Needed(Refused):
    """It would be allowed with a signature, a second person or a second factor: SEC-1410 to SEC-1412.

    Attributes:
        needs: which. action, resource, facts: what is to be signed or approved.
    """

    def __init__(
        self, decision: Decision, action: str, resource: str, facts: Mapping[str, Any]
    ) -> None:
        code, remedy = NEEDED[decision.needs]
        super().__init__(code, f"{action} on {resource}: {decision.reason}", remedy)
        self.needs = decision.needs
        self.action, self.resource, self.facts = action, resource, dict(facts)

    def as_dict(self) -> dict[str, Any]:
        """With what is to be signed or approved."""
        asked = {"action": self.action, "resource": self.resource, "facts": self.facts}
        return {**super().as_dict(), "class": "Refused", "needs": self.needs, "for": asked}


def in_force() -> Engine:
    """The policies that decide in this process: the built-in ones until others are put in force."""
    global _IN_FORCE
    if _IN_FORCE is None:
        _IN_FORCE = Engine()
    return _IN_FORCE


def use(engine: Engine) -> None:
    """Let other policies decide from now on: a process has one policy, as it has one data folder."""
    global _IN_FORCE
    _IN_FORCE = engine


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
        context: facts that matter: ``equipment``, the ISA-95 path where the resource lies (else it belongs
            to the whole site); ``signed`` and ``approved``, when a door checked that; ``verb``.

    Example:
        >>> decide(Actor("mia", "viewer"), "write", "tag/17").allowed
        False
    """
    return in_force().decide(actor, action, resource, context)


def require(
    actor: Actor | None,
    action: Action,
    resource: str,
    context: Mapping[str, Any] | None = None,
) -> Actor:
    """The actor when the decision is yes.

    Raises:
        Refused: SEC-1003 when nobody is signed in, SEC-1004 when the role is not enough, SEC-1007
            when the one-time password must be changed first, SEC-1410 to SEC-1412 when a signature, a
            second person or a second factor is needed.
    """
    decision = decide(actor, action, resource, context)
    if decision.needs:
        raise Needed(decision, action, resource, dict(context or {}))
    return checked(actor, decision)


def checked(actor: Actor | None, decision: Decision) -> Actor:
    """The actor when a decision was yes; raises as :func:`require` does."""
    if actor is None:
        raise Refused("SEC-1003", decision.reason, "Sign in, or send a bearer token.")
    if actor.must_change and not decision.allowed:
        raise Refused("SEC-1007", decision.reason, "Sign in to the console and choose a password.")
    if not decision.allowed:
        raise Refused("SEC-1004", decision.reason, "Ask an admin for a role that may.")
    return actor
