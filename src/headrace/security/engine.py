"""Decisions by Cedar: actors, equipment and resources become entities, the policies decide.

Nothing is read or written here: an engine is its policies, which never change. Decisions are kept, at most
:data:`KEPT_MAX`; other policies are another engine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final, get_args

import cedarpy

from headrace.security.policy_text import Policy, PolicySet, schema_text
from headrace.security.rights import ROLES, Action, Actor, Decision, Grant

KEPT_MAX: Final = 20_000
ENTITY_OF: Final = {
    "tag": "Tag",
    "asset": "Asset",
    "connection": "Connection",
    "alarm": "Alarm",
    "formula": "Formula",
    "subject": "Subject",
}
DOORS: Final = frozenset(
    {"tags", "samples", "live", "equipment", "alarms", "formulas", "console", "shell", "notices"}
)
"""Kinds of resources that, without an id, are doors: what comes through is decided thing by thing."""
LEVELS: Final = ("site", "area", "work_center", "work_unit")
_FLAGS: Final = ("signed", "approved")
_LIFTED: Final = {"signed": True, "approved": True}
_ALL_FACTORS: Final = frozenset({"password", "totp", "oidc", "passkey", "token", "certificate"})
Facts = tuple[tuple[str, Any], ...]


class Engine:
    """Policies that decide.

    Args:
        policies: which; without own ones when not given.

    Example:
        >>> engine = Engine()
        >>> engine.decide(Actor("leo", "operator"), "write", "tag/17").policies
        ('role.operator',)
        >>> engine.decide(Actor("mia", "viewer"), "write", "tag/17").reason
        'viewer mia may not write tag/17'
    """

    def __init__(self, policies: PolicySet | None = None) -> None:
        self.policies = policies or PolicySet()
        self._schema = cedarpy.Schema.from_str(schema_text())
        self._kept = lru_cache(KEPT_MAX)(self._decide)

    def decide(
        self,
        actor: Actor | None,
        action: Action,
        resource: str,
        context: Mapping[str, Any] | None = None,
    ) -> Decision:
        """Whether ``actor`` may do ``action`` on ``resource``; see :func:`headrace.security.policy.decide`."""
        if actor is None:
            return Decision(False, f"nobody is signed in, and {action} on {resource} needs that")
        if action not in get_args(Action):
            return Decision(False, f"there is no action {action!r}")
        given = context or {}
        facts = tuple((key, given[key]) for key in ("equipment", "verb", *_FLAGS) if key in given)
        return self._kept(actor, action, resource, facts)

    def _decide(self, actor: Actor, action: str, resource: str, facts: Facts) -> Decision:
        allowed, deciding = self._ask(actor, action, resource, dict(facts))
        ids = tuple(policy.id for policy in deciding)
        if allowed:
            return Decision(True, _said(deciding), ids)
        needs = [policy.needs for policy in deciding]
        if deciding and all(needs) and self._would(actor, action, resource, facts, needs):
            return Decision(False, _said(deciding), ids, needs[0])
        if deciding:
            return Decision(
                False, f"{_may_not(actor, action, resource, facts)}: {_said(deciding)}", ids
            )
        return Decision(False, _may_not(actor, action, resource, facts), ids)

    def _would(
        self, actor: Actor, action: str, resource: str, facts: Facts, needs: list[Any]
    ) -> bool:
        """Whether it is allowed once all that is needed was given."""
        given = replace(actor, factors=_ALL_FACTORS) if "second_factor" in needs else actor
        return self._ask(given, action, resource, {**dict(facts), **_LIFTED})[0]

    def _ask(
        self, actor: Actor, action: str, resource: str, facts: dict[str, Any]
    ) -> tuple[bool, list[Policy]]:
        place = str(facts.pop("equipment", "")).strip("/")
        entities: dict[tuple[str, str], dict[str, Any]] = {}
        target = _resource(entities, resource, action, place)
        request = {
            "principal": _actor(entities, actor),
            "action": {"type": "Action", "id": action},
            "resource": target,
            "context": {**dict.fromkeys(_FLAGS, False), **facts},
        }
        answer = cedarpy.is_authorized(
            request, self.policies.handle, json.dumps(list(entities.values())), self._schema
        )
        if answer.diagnostics.errors:
            # An error in one policy leaves it out, and a forbid that is left out would allow.
            return False, []
        by_id = self.policies.by_id
        return answer.allowed, [by_id[name] for name in sorted(answer.diagnostics.reasons)]


def is_door(resource: str) -> bool:
    """Whether a resource is a door whose answers are decided thing by thing.

    Example:
        >>> is_door("tags"), is_door("tag/17"), is_door("site")
        (True, False, False)
    """
    return resource in DOORS


def _said(policies: list[Policy]) -> str:
    return "; ".join(policy.says or policy.id for policy in policies)


def _may_not(actor: Actor, action: str, resource: str, facts: Facts) -> str:
    place = dict(facts).get("equipment", "")
    roles = ", ".join(_words(grant) for grant in actor.held)
    return f"{roles} {actor.name} may not {action} {resource}{f' in {place}' if place else ''}"


def _words(grant: Grant) -> str:
    return f"{grant.role} of {grant.scope}" if grant.scope else grant.role


def _actor(entities: dict[tuple[str, str], dict[str, Any]], actor: Actor) -> dict[str, str]:
    uid = {"type": actor.kind.capitalize(), "id": actor.name}
    scopes: dict[str, list[Any]] = {role: [] for role in ROLES}
    held = {grant.role for grant in actor.held if grant.role in scopes}
    for grant in actor.held:
        if grant.role in scopes:
            scopes[grant.role].append({"__entity": _equipment(entities, grant.scope.strip("/"))})
    attributes = {
        "name": actor.name,
        "tenant": actor.tenant,
        "factors": sorted(actor.factors),
        "must_change": actor.must_change,
        "held": sorted(held),
        **scopes,
    }
    entities[uid["type"], uid["id"]] = {"uid": uid, "attrs": attributes, "parents": []}
    return uid


def _resource(
    entities: dict[tuple[str, str], dict[str, Any]], resource: str, action: str, place: str
) -> dict[str, str]:
    kind, _, name = resource.partition("/")
    if kind == "equipment" and name:
        return _equipment(entities, name.strip("/"))
    entity = ENTITY_OF.get(kind, "Thing") if name else "Thing"
    if action in ("read", "change_own") and is_door(resource):
        entity = "Door"
    uid = {"type": entity, "id": name if entity not in ("Thing", "Door") else resource}
    inside = entity not in ("Door", "Subject")
    parents = [_equipment(entities, place)] if inside else []
    attributes = {"kind": name if entity == "Subject" else kind}
    entities[uid["type"], uid["id"]] = {"uid": uid, "attrs": attributes, "parents": parents}
    return uid


def _equipment(entities: dict[tuple[str, str], dict[str, Any]], path: str) -> dict[str, str]:
    """The equipment of a path, and all above it up to the site, whose path is empty."""
    tokens = path.split("/") if path else []
    for depth in range(len(tokens) + 1):
        here = "/".join(tokens[:depth])
        above = [{"type": "Equipment", "id": "/".join(tokens[: depth - 1])}] if depth else []
        entities["Equipment", here] = {
            "uid": {"type": "Equipment", "id": here},
            "attrs": {"level": LEVELS[min(depth, len(LEVELS) - 1)], "kind": "equipment"},
            "parents": above,
        }
    return {"type": "Equipment", "id": path}
