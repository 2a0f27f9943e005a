"""The policy: roles on equipment, kinds of actors, own policies, what lifts a forbid."""

from __future__ import annotations

from typing import get_args

import cedarpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.model.errors import Misconfigured, Refused
from headrace.security.engine import KEPT_MAX, Engine
from headrace.security.policy import require
from headrace.security.policy_text import PolicySet, builtin_text, schema_text
from headrace.security.rights import (
    ROLES,
    Action,
    Actor,
    ActorKind,
    Grant,
    Role,
    lesser_role,
)

ACTIONS = [a for a in get_args(Action) if a not in ("publish", "subscribe", "request")]
PLACES = [
    "",
    "utilities",
    "utilities/pumping",
    "utilities/pumping/pump_1",
    "utilities_2",
    "machining",
]
ENGINE = Engine()


def test_the_built_in_policies_fit_the_schema() -> None:
    checked = cedarpy.validate_policies(builtin_text(), schema_text())
    assert checked.validation_passed, checked.errors
    assert all(policy.says for policy in ENGINE.policies.policies)


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("viewer", "read change_own"),
        ("operator", "read change_own write operate"),
        ("engineer", "read change_own write operate edit simulate"),
        ("supervisor", "read change_own write operate edit simulate approve export"),
        ("security_officer", "read change_own administer audit certify share approve export"),
        ("admin", " ".join(ACTIONS)),
    ],
)
def test_each_role_may_this_and_nothing_else(role: Role, may: str) -> None:
    allowed = {a for a in ACTIONS if ENGINE.decide(Actor("x", role), a, "site").allowed}  # type: ignore[arg-type] # words
    assert allowed == set(may.split())


def is_below(place: str, scope: str) -> bool:
    """ISA-95: whether a place is a scope, or lies below it; written another way than the engine's."""
    return place.split("/")[: len(scope.split("/"))] == scope.split("/") if scope else True


@given(
    st.lists(st.tuples(st.sampled_from(ROLES), st.sampled_from(PLACES)), min_size=1, max_size=3),
    st.sampled_from(["read", "write", "edit", "administer", "approve"]),
    st.sampled_from(PLACES),
)
def test_a_grant_counts_on_its_equipment_and_below(
    held: list[tuple[Role, str]], action: Action, place: str
) -> None:
    actor = Actor("x", "viewer", grants=tuple(Grant(role, scope) for role, scope in held))
    wanted = any(
        is_below(place, scope) and ENGINE.decide(Actor("y", role), action, "tag/1").allowed
        for role, scope in held
    )
    assert ENGINE.decide(actor, action, "tag/1", {"equipment": place}).allowed == wanted
    if place:
        assert ENGINE.decide(actor, action, f"equipment/{place}").allowed == wanted


@given(st.sampled_from(ROLES), st.sampled_from(ROLES))
def test_the_lesser_of_two_roles_may_no_more_than_each(first: Role, second: Role) -> None:
    both = lesser_role(first, second)
    for action in ACTIONS:
        if ENGINE.decide(Actor("x", both), action, "site").allowed:  # type: ignore[arg-type] # words
            assert ENGINE.decide(Actor("x", first), action, "site").allowed  # type: ignore[arg-type]
            assert ENGINE.decide(Actor("x", second), action, "site").allowed  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["service", "device", "edge", "app", "partner"])
def test_what_is_no_person_has_only_what_it_was_granted(kind: ActorKind) -> None:
    bare = Actor("x", "admin", kind=kind)
    assert not [a for a in ACTIONS if ENGINE.decide(bare, a, "tag/1").allowed]  # type: ignore[arg-type] # words
    granted = Actor("x", "viewer", kind=kind, grants=(Grant("viewer", "utilities"),))
    read = ENGINE.decide(granted, "read", "tag/1", {"equipment": "utilities/pumping"})
    assert read.allowed == (kind != "partner")
    assert ENGINE.decide(bare, "read", "share/7").allowed == (kind == "partner")
    assert ENGINE.decide(bare, "publish", "subject/batch").allowed == (kind == "edge")


def test_nothing_unknown_is_allowed() -> None:
    admin = Actor("x", "admin")
    assert not ENGINE.decide(None, "read", "site").allowed
    assert not ENGINE.decide(admin, "fly", "site").allowed  # type: ignore[arg-type] # unknown
    assert not ENGINE.decide(Actor("x", "king"), "read", "site").allowed  # type: ignore[arg-type] # unknown
    waiting = Actor("x", "admin", must_change=True)
    assert [a for a in ACTIONS if ENGINE.decide(waiting, a, "site").allowed] == ["change_own"]  # type: ignore[arg-type]


def test_a_scoped_actor_passes_doors_but_not_what_is_of_the_whole_site() -> None:
    scoped = Actor("x", "viewer", grants=(Grant("engineer", "utilities"),))
    assert ENGINE.decide(scoped, "read", "tags").allowed
    assert not ENGINE.decide(scoped, "edit", "tags").allowed
    assert not ENGINE.decide(scoped, "read", "connections").allowed
    assert not ENGINE.decide(scoped, "edit", "site").allowed
    assert not ENGINE.decide(scoped, "read", "tag/17").allowed, "no place given: of the whole site"


OWN = """
// the night shift does not write to pumps;
@id("no_pump_writes")
@says("pumps; are not written by hand")
forbid (principal, action == Action::"write", resource in Equipment::"utilities/pumping");

permit (principal == Person::"eve", action == Action::"read", resource is Tag)
when { resource.kind == "tag" };
"""


def test_own_policies_permit_and_forbid_on_top() -> None:
    engine = Engine(PolicySet({"own.cedar": OWN}))
    pump, valve = {"equipment": "utilities/pumping/pump_1"}, {"equipment": "utilities/cooling"}
    no = engine.decide(Actor("leo", "admin"), "write", "tag/1", pump)
    assert (no.allowed, no.policies) == (False, ("no_pump_writes",))
    assert no.reason.endswith("pumps; are not written by hand")
    assert engine.decide(Actor("leo", "admin"), "write", "tag/1", valve).allowed
    eve = Actor("eve", "viewer", grants=(Grant("viewer", "machining"),))
    yes = engine.decide(eve, "read", "tag/1", valve)
    assert (yes.allowed, yes.policies) == (True, ("own.cedar:7",))


@pytest.mark.parametrize(
    ("text", "where", "code"),
    [
        ("permit (principal,\n action,\n resource) whn {};", "own.cedar:3", "SEC-1401"),
        ("\n// only words\n\nlet it be;", "own.cedar:4", "SEC-1401"),
        ("permit (principal, action,\n resource is Pump);", "own.cedar:2", "SEC-1402"),
        (
            "permit (principal, action, resource)\nwhen { principal.age > 3 };",
            "own.cedar:2",
            "SEC-1402",
        ),
        ('@id("role.admin")\nforbid (principal, action, resource);', "own.cedar:1", "SEC-1403"),
        ('@needs("luck")\nforbid (principal, action, resource);', "own.cedar:1", "SEC-1403"),
        ('@needs("signature")\npermit (principal, action, resource);', "own.cedar:1", "SEC-1403"),
        ("permit (principal == ?principal, action, resource);", "own.cedar:1", "SEC-1405"),
        ("permit (principal, action, resource);\npermit (principal", "own.cedar:2", "SEC-1401"),
    ],
)
def test_a_broken_file_names_file_and_line(text: str, where: str, code: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        PolicySet({"own.cedar": text})
    assert (caught.value.code, caught.value.where) == (code, where)


def test_sizes_are_bounded() -> None:
    for files in (
        {f"{n}.cedar": "" for n in range(101)},
        {"a.cedar": " " * 300_000},
        {"builtin.cedar": ""},
        {"a.cedar": "permit (principal, action, resource);" * 1_100},
    ):
        with pytest.raises(Misconfigured, match="SEC-1404"):
            PolicySet(files)


def test_a_needed_signature_refuses_until_it_is_given() -> None:
    officer, engineer = Actor("ida", "security_officer"), Actor("ed", "engineer")
    change = ("administer", "user_role/leo/engineer")
    asked = ENGINE.decide(officer, *change)  # type: ignore[arg-type] # words
    assert (asked.allowed, asked.needs, asked.policies) == (False, "signature", ("sign.rights",))
    assert ENGINE.decide(officer, *change, {"signed": True}).allowed  # type: ignore[arg-type]
    other = ENGINE.decide(engineer, *change)  # type: ignore[arg-type]
    assert (other.allowed, other.needs) == (False, ""), "a signature gives nobody a right"
    assert not ENGINE.decide(engineer, *change, {"signed": True}).allowed  # type: ignore[arg-type]
    assert ENGINE.decide(Actor("os:root", "admin", kind="system"), *change).allowed  # type: ignore[arg-type]
    with pytest.raises(Refused, match="SEC-1410"):
        require(officer, "administer", "user_role/leo/engineer")


def test_a_second_person_and_a_second_factor_are_needed_by_policy() -> None:
    text = """
    @id("two") @needs("second_person") forbid (principal, action == Action::"write", resource)
    unless { context.approved };
    @id("factor") @needs("second_factor") forbid (principal, action == Action::"edit", resource)
    unless { principal.factors.contains("totp") };
    """
    engine = Engine(PolicySet({"own.cedar": text}))
    leo = Actor("leo", "engineer")
    assert engine.decide(leo, "write", "tag/1").needs == "second_person"
    assert engine.decide(leo, "write", "tag/1", {"approved": True}).allowed
    assert engine.decide(leo, "edit", "site").needs == "second_factor"
    strong = Actor("leo", "engineer", factors=frozenset({"password", "totp"}))
    assert engine.decide(strong, "edit", "site").allowed


def test_a_policy_that_fails_while_it_is_asked_denies() -> None:
    text = "forbid (principal, action, resource) when { principal.name.contains };"
    with pytest.raises(Misconfigured):
        PolicySet({"own.cedar": text})
    overflow = """permit (principal, action == Action::"read", resource)
    when { 9223372036854775807 + principal.held.isEmpty() };"""
    with pytest.raises(Misconfigured):
        PolicySet({"own.cedar": overflow})
    fails = "forbid (principal, action, resource) when { 9223372036854775807 + 1 > 0 };"
    engine = Engine(PolicySet({"own.cedar": fails}))
    assert not engine.decide(Actor("leo", "admin"), "read", "site").allowed


def test_decisions_are_kept_and_bounded() -> None:
    engine = Engine()
    for number in range(50):
        engine.decide(Actor("leo", "operator"), "write", f"tag/{number % 10}")
    kept = engine._kept.cache_info()
    assert (kept.misses, kept.hits, kept.maxsize) == (10, 40, KEPT_MAX)
