"""Grants of people, signatures and approvals: each once, for exactly what was given, and not for ever."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.model.errors import Misconfigured, Refused, Transient
from headrace.model.folder import DataFolder
from headrace.model.time import US_PER_S, ManualClock
from headrace.security.identity import Identity
from headrace.security.policy import Grant
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
