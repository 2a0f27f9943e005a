"""Grants of people, signatures and approvals: each once, for exactly what was given, and not for ever."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyotp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.model.errors import Misconfigured, Refused, Transient
from headrace.model.folder import DataFolder
from headrace.model.time import US_PER_S, ManualClock
from headrace.security.identity import Identity, LinkedPerson
from headrace.security.policy import Grant
from headrace.security.sessions import FRESH_S
from headrace.security.sign_in import Origin
from headrace.security.signatures import ASKED_S, OPEN_MAX, SIGNED_S, binding

PASSWORD = "a long enough phrase"
WRITE: tuple[str, str, dict[str, Any]] = ("write", "tag/1", {"equipment": "a/b", "value": "3"})


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(US_PER_S)


@pytest.fixture
def identity(tmp_path: Path, clock: ManualClock) -> Iterator[Identity]:
    found = Identity(DataFolder(tmp_path), clock)
    yield found
    found.close()


def test_a_signature_counts_once_for_its_own_facts(identity: Identity, clock: ManualClock) -> None:
    releases = identity.releases

    def signed() -> str:
        return releases.sign("leo", *WRITE, "responsibility", "test")

    one = signed()
    for actor, what in (
        ("mia", WRITE),
        ("leo", ("write", "tag/2", WRITE[2])),
        ("leo", (*WRITE[:2], {})),
    ):
        with pytest.raises(Refused, match="SEC-1413"):
            releases.use(one, actor, *what)
    assert releases.use(one, "leo", *WRITE) == "signed"
    with pytest.raises(Refused, match="SEC-1413"):
        releases.use(one, "leo", *WRITE)
    late = signed()
    clock.advance_us((SIGNED_S + 1) * US_PER_S)
    with pytest.raises(Refused, match="SEC-1413"):
        releases.use(late, "leo", *WRITE)


def test_an_approval_waits_is_given_by_another_and_ends(
    identity: Identity, clock: ManualClock
) -> None:
    releases = identity.releases
    asked = releases.ask("leo", *WRITE, "test")
    with pytest.raises(Refused, match="SEC-1413"):
        releases.use(asked, "leo", *WRITE)
    with pytest.raises(Refused, match="SEC-1414"):
        releases.answer(asked, "leo", True)
    releases.answer(asked, "sue", True, "seen")
    assert releases.ready("leo", *WRITE) == asked
    assert releases.use(asked, "leo", *WRITE) == "approved"
    assert releases.ready("leo", *WRITE) == "" and releases.waiting() == []
    late = releases.ask("leo", *WRITE, "test")
    clock.advance_us((ASKED_S + 1) * US_PER_S)
    with pytest.raises(Refused, match="SEC-1413"):
        releases.answer(late, "sue", True)


def test_what_is_open_is_bounded(identity: Identity) -> None:
    for _ in range(OPEN_MAX):
        identity.releases.ask("leo", *WRITE, "test")
    with pytest.raises(Refused, match="SEC-1416"):
        identity.releases.ask("leo", *WRITE, "test")
    assert identity.releases.ask("mia", *WRITE, "test")
    for reason in ("", "  ", "x" * 501):
        with pytest.raises(Misconfigured, match="SEC-1415"):
            identity.releases.ask("mia", *WRITE, reason)


def test_the_password_is_asked_again_and_guessing_is_braked(identity: Identity) -> None:
    identity.add_user("leo", "operator", PASSWORD)
    identity.confirm("leo", PASSWORD, "here")
    with pytest.raises(Refused, match="SEC-1001"):
        identity.confirm("leo", "something else", "here")
    with pytest.raises((Transient, Refused)) as caught:
        for _ in range(20):
            try:
                identity.confirm("leo", "something else", "here")
            except Refused:
                continue
    assert caught.value.code == "SEC-1002"
    identity.set_disabled("leo", True)
    with pytest.raises(Refused, match="SEC-1001"):
        identity.confirm("leo", PASSWORD, "elsewhere")


facts = st.dictionaries(st.sampled_from(["equipment", "value", "verb"]), st.text(max_size=4))


def test_who_has_a_second_factor_signs_with_it(identity: Identity, clock: ManualClock) -> None:
    identity.add_user("mia", "supervisor", PASSWORD)
    clock.advance_us(86_400 * US_PER_S)
    session = identity.sign_in("mia", PASSWORD, "here")
    totp = pyotp.TOTP(identity.ways.begin_enrolment(session).seed)
    first = totp.at(clock.now_us() // US_PER_S)
    identity.ways.confirm_enrolment(session, first, Origin("here"))
    assert identity.signing_way("mia") == "code"
    with pytest.raises(Refused, match="SEC-1036"):
        identity.confirm("mia", PASSWORD, "here")
    with pytest.raises(Refused, match="SEC-1025"):
        identity.confirm("mia", PASSWORD, "here", code=first)
    clock.advance_us(60 * US_PER_S)
    fresh = totp.at(clock.now_us() // US_PER_S)
    with pytest.raises(Refused, match="SEC-1024"):
        identity.confirm("mia", PASSWORD, "here", code=f"{(int(fresh) + 1) % 1_000_000:06d}")
    with pytest.raises(Refused, match="SEC-1001"):
        identity.confirm("mia", "something else", "here", code=fresh)
    clock.advance_us(60 * US_PER_S)
    identity.confirm("mia", PASSWORD, "here", code=totp.at(clock.now_us() // US_PER_S))
    assert {entry.action for entry in identity.audit.entries(actor="mia")} >= {"sign"}


def test_who_has_no_password_here_signs_once_after_the_provider_asked_again(
    identity: Identity, clock: ManualClock
) -> None:
    clock.advance_us(3_600 * US_PER_S)
    ada = LinkedPerson("https://idp", "42", "ada", "supervisor")
    session = identity.sign_in_linked(ada, Origin("here"))
    assert identity.signing_way("ada") == "provider"

    def refused(**shown: str) -> None:
        with pytest.raises(Refused, match="SEC-1037"):
            identity.confirm("ada", "!", "here", **shown)

    refused(session=session)
    for auth_us in (0, clock.now_us() - 301 * US_PER_S, clock.now_us() + 301 * US_PER_S):
        with pytest.raises(Refused, match="SEC-1037"):
            identity.asked_again(replace(ada, auth_us=auth_us), session)
    bob = replace(ada, subject="43", name="bob", auth_us=clock.now_us())
    other = identity.sign_in_linked(bob, Origin("there"))
    with pytest.raises(Refused, match="SEC-1037"):
        identity.asked_again(bob, session)
    identity.asked_again(bob, other)
    refused(session=other)
    now = replace(ada, auth_us=clock.now_us())
    identity.asked_again(now, session)
    refused()
    identity.confirm("ada", "", "here", session=session)
    refused(session=session)
    identity.asked_again(now, session)
    clock.advance_us((FRESH_S + 1) * US_PER_S)
    refused(session=session)


@given(st.text(max_size=4), facts, st.text(max_size=4), facts)
def test_a_binding_is_of_one_deed_only(
    first: str, its: dict[str, str], second: str, others: dict[str, str]
) -> None:
    same = first == second and its == others
    assert (binding("x", "write", first, its) == binding("x", "write", second, others)) == same


def test_grants_are_kept_in_the_chain_and_the_last_is_not_lost_unawares(identity: Identity) -> None:
    identity.add_user("leo", "engineer", PASSWORD)
    grants = identity.grants
    assert grants.of("leo") == ()
    grants.add("leo", "operator", "/utilities/", by="mia")
    grants.add("leo", "viewer", "", by="mia")
    grants.add("leo", "viewer", "", by="mia")
    assert grants.of("leo") == (Grant("viewer", ""), Grant("operator", "utilities"))
    grants.remove("leo", "viewer", "", by="mia")
    for role, scope, code in (
        ("operator", "utilities", "SEC-1417"),
        ("viewer", "", "SEC-1416"),
    ):
        with pytest.raises((Refused, Misconfigured), match=code):
            grants.remove("leo", role, scope, by="mia")
    for name, role, scope, code in (
        ("eve", "viewer", "", "SEC-1006"),
        ("leo", "king", "", "SEC-1008"),
        ("leo", "viewer", "a b", "MODEL-1002"),
        ("leo", "viewer", "a//b", "MODEL-1002"),
    ):
        with pytest.raises(Misconfigured, match=code):
            grants.add(name, role, scope, by="mia")
    grants.remove("leo", "operator", "utilities", by="mia", whole_site=True)
    told = [(e.actor, e.action) for e in identity.audit.entries(resource="user/leo")]
    assert told.count(("mia", "user.grant")) == 2 and ("mia", "user.revoke_grant") in told
