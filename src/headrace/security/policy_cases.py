"""Tests of a policy, as TOML: who may what, and what is expected.

::

    [[actor]]
    name = "leo"
    role = "operator"                                  # or grants
    grants = [{ role = "operator", scope = "utilities" }]
    kind = "person"

    [[case]]
    actor = "leo"
    action = "write"
    resource = "tag/17"
    equipment = "utilities/pumping/pump_1"
    expect = "allow"                                   # deny, signature, second_person, second_factor
    because = "role.operator"                          # optional: a policy that decides it
"""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Misconfigured
from headrace.security.engine import Engine
from headrace.security.rights import Action, Actor, ActorKind, Grant, Role

Expected = Literal["allow", "deny", "signature", "second_person", "second_factor"]


class _Grant(msgspec.Struct, forbid_unknown_fields=True):
    role: Role
    scope: str = ""


class _Actor(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    role: Role = "viewer"
    grants: list[_Grant] = []
    kind: ActorKind = "person"
    factors: list[str] = []


class _Case(msgspec.Struct, forbid_unknown_fields=True):
    actor: str
    action: str
    resource: str
    expect: Expected
    equipment: str = ""
    because: str = ""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    actor: list[_Actor] = []
    case: list[_Case] = []


def run_cases(engine: Engine, text: str, name: str) -> tuple[int, list[str]]:
    """How many cases were tried, and what was wrong with each that failed.

    Args:
        text: of the file, TOML. name: of the file, for messages.

    Raises:
        Misconfigured: SEC-1420 when the file is none, or holds no case.

    Example:
        >>> run_cases(Engine(), '''
        ... [[actor]]
        ... name = "mia"
        ... [[case]]
        ... actor = "mia"
        ... action = "write"
        ... resource = "tag/1"
        ... expect = "deny"
        ... ''', "cases.toml")
        (1, [])
    """
    try:
        file = msgspec.toml.decode(text, type=_File)
    except UNREADABLE as error:
        raise _wrong(name, str(error)) from error
    actors = {one.name: _actor(one) for one in file.actor}
    if not file.case:
        raise _wrong(name, "it has no [[case]]")
    failed = []
    for number, case in enumerate(file.case, 1):
        if case.actor not in actors or case.action not in get_args(Action):
            raise _wrong(name, f"case {number}: no actor {case.actor!r}, or no such action")
        place = {"equipment": case.equipment} if case.equipment else None
        decision = engine.decide(actors[case.actor], case.action, case.resource, place)  # type: ignore[arg-type] # checked
        found = "allow" if decision.allowed else decision.needs or "deny"
        asked = (
            f"case {number}: {case.actor} {case.action} {case.resource} {case.equipment}".strip()
        )
        if found != case.expect:
            failed.append(f"{asked}: expected {case.expect}, found {found} ({decision.reason})")
        elif case.because and case.because not in decision.policies:
            failed.append(f"{asked}: {found}, but by {', '.join(decision.policies) or 'nothing'}")
    return len(file.case), failed


def _actor(one: _Actor) -> Actor:
    grants = tuple(Grant(grant.role, grant.scope) for grant in one.grants)
    return Actor(one.name, one.role, kind=one.kind, grants=grants, factors=frozenset(one.factors))


def _wrong(name: str, what: str) -> Misconfigured:
    return Misconfigured(
        "SEC-1420", f"{name} is no file of policy cases: {what}", "See docs/policy.md."
    )
