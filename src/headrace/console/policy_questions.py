"""May somebody do something, and why: the question as people ask it, answered from the policy in force."""

from __future__ import annotations

from typing import Any, get_args

from headrace.console.services import Services
from headrace.console.site_view import SiteView
from headrace.model.errors import Misconfigured
from headrace.security.engine import ENTITY_OF
from headrace.security.policy import Action, Actor, decide, in_force

ACTIONS: tuple[Action, ...] = tuple(
    action for action in get_args(Action) if action not in ("publish", "subscribe", "request")
)


def actor_named(services: Services, name: str) -> Actor:
    """A person as the policy knows it now.

    Raises:
        Misconfigured: SEC-1006 when there is none, or the account is closed.
    """
    identity = services.identity
    user = next((u for u in identity.users() if u.name == name and not u.disabled), None)
    if user is None:
        raise Misconfigured(
            "SEC-1006", f"there is no open account {name!r}", "List them: headrace user list"
        )
    return Actor(user.name, user.role, user.must_change, grants=identity.grants.of(name))


def place_of(site: SiteView, asked: str) -> tuple[str, str]:
    """Resource and equipment of what a person names: a tag's path or id, equipment, an asset's last name,
    or a resource as it is (``connection/plc_1``, ``site``).

    Example:
        >>> place_of(SiteView(), "connection/plc_1")
        ('connection/plc_1', '')
    """
    asked = asked.strip().strip("/")
    kind, _, rest = asked.partition("/")
    if kind == "tag" and rest.isdigit() and int(rest) in site.by_id:
        return asked, site.by_id[int(rest)].unit_path
    if asked in site.by_path:
        tag = site.by_path[asked]
        return f"tag/{tag.tag_id}", tag.unit_path
    paths = {"/".join(u.path.split("/")[:n]) for u in site.units for n in range(1, 9)}
    if asked in paths:
        return f"equipment/{asked}", asked
    if kind not in ENTITY_OF and kind != "equipment":
        named = sorted(path for path in paths if path.rpartition("/")[2] == asked)
        if len(named) == 1:
            return f"equipment/{named[0]}", named[0]
    if kind == "alarm":
        return asked, rest.rpartition("/")[0]
    return asked, ""


def explain(
    site: SiteView, actor: Actor, action: str, asked: str, equipment: str = ""
) -> dict[str, Any]:
    """The decision and each policy that made it, as plain data.

    Raises:
        Misconfigured: CONS-1003 for an action that is none.
    """
    if action not in get_args(Action):
        raise Misconfigured("CONS-1003", f"there is no action {action!r}", f"One of {ACTIONS}.")
    resource, place = place_of(site, asked)
    place = equipment or place
    decision = decide(actor, action, resource, {"equipment": place} if place else None)  # type: ignore[arg-type] # checked
    by_id = in_force().policies.by_id
    return {
        "actor": actor.name,
        "held": [{"role": grant.role, "scope": grant.scope} for grant in actor.held],
        "action": action,
        "resource": resource,
        "equipment": place,
        "allowed": decision.allowed,
        "needs": decision.needs,
        "reason": decision.reason,
        "policies": [about(by_id[name]) for name in decision.policies],
    }


def about(policy: Any) -> dict[str, Any]:
    """A policy as lists show it."""
    names = ("id", "effect", "file", "line", "says", "needs", "text")
    return {name: getattr(policy, name) for name in names}
