"""Users, sessions, tokens, the sign-in brake and the policy, on a real database file."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import inspect

from headrace.model.errors import Misconfigured, Refused, Transient
from headrace.model.folder import DataFolder
from headrace.model.time import US_PER_S, ManualClock
from headrace.security.brake import FORGET_S, WAIT_MAX_S, SignInBrake
from headrace.security.identity import Identity, ensure_first_admin
from headrace.security.policy import Actor, Role, decide, require
from postgres_server import postgres  # noqa: F401 # a fixture

GOOD = "a long enough phrase"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["sqlite", "postgresql"])
def identity(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Identity]:
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres")
        monkeypatch.setenv("HEADRACE_METADATA", server.new_database())
    store = Identity(DataFolder(tmp_path), clock)
    yield store
    store.close()


def test_first_admin_is_made_once_and_must_change(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    password = ensure_first_admin(folder)
    assert password is not None
    assert ensure_first_admin(folder) is None
    identity = Identity(folder)
    actor = identity.actor_of_session(identity.sign_in("admin", password, "here"))
    assert actor is not None and actor.must_change and actor.role == "admin"
    assert not decide(actor, "read", "site").allowed
    identity.change_password("admin", password, GOOD)
    actor = identity.actor_of_session(identity.sign_in("admin", GOOD, "here"))
    assert decide(actor, "administer", "users").allowed
    identity.close()


def test_no_secret_stands_in_the_database(identity: Identity) -> None:
    identity.add_user("mia", "engineer", GOOD)
    session = identity.sign_in("mia", GOOD, "here")
    token = identity.add_token("mia", "report")
    with identity._engine.connect() as connection:
        names = inspect(connection).get_table_names()
        rows = [connection.exec_driver_sql(f'SELECT * FROM "{name}"').all() for name in names]
    dump = str(rows)
    for secret in (GOOD, session, token):
        assert secret not in dump
    assert "argon2id" in dump


def test_sessions_expire_and_end(identity: Identity, clock: ManualClock) -> None:
    identity.add_user("mia", "viewer", GOOD)
    first = identity.sign_in("mia", GOOD, "here")
    second = identity.sign_in("mia", GOOD, "here")
    identity.sign_out(first)
    assert identity.actor_of_session(first) is None
    assert identity.actor_of_session(second) == Actor(
        "mia", "viewer", factors=frozenset({"password"})
    )
    clock.advance_us(13 * 3600 * US_PER_S)
    assert identity.actor_of_session(second) is None
    assert identity.actor_of_session("") is None


def test_change_of_password_ends_all_sessions(identity: Identity) -> None:
    identity.add_user("mia", "viewer", GOOD)
    session = identity.sign_in("mia", GOOD, "here")
    with pytest.raises(Refused, match="SEC-1001"):
        identity.change_password("mia", "not this one", "another long phrase")
    for bad in ("short", GOOD, "mia and her dog"):
        with pytest.raises(Misconfigured, match="SEC-1005"):
            identity.change_password("mia", GOOD, bad)
    assert identity.actor_of_session(session) is not None
    identity.change_password("mia", GOOD, "another long phrase")
    assert identity.actor_of_session(session) is None


def test_a_token_has_at_most_its_users_role(identity: Identity, clock: ManualClock) -> None:
    identity.add_user("mia", "operator", GOOD)
    strong = identity.add_token("mia", "wants too much", role="admin", days=1)
    weak = identity.add_token("mia", "reads", role="viewer")
    assert identity.actor_of_token(strong) == Actor("mia", "operator")
    assert identity.actor_of_token(weak) == Actor("mia", "viewer")
    clock.advance_us(2 * 86_400 * US_PER_S)
    assert identity.actor_of_token(strong) is None
    identity.revoke_token(identity.tokens("mia")[0].id, "mia")
    assert identity.actor_of_token(weak) is None


def test_a_closed_account_is_closed_at_every_door(identity: Identity) -> None:
    identity.add_user("boss", "admin", GOOD)
    identity.add_user("mia", "viewer", GOOD)
    session, token = identity.sign_in("mia", GOOD, "here"), identity.add_token("mia", "t")
    identity.set_disabled("mia", True)
    assert identity.actor_of_session(session) is None
    assert identity.actor_of_token(token) is None
    with pytest.raises(Refused, match="SEC-1001"):
        identity.sign_in("mia", GOOD, "here")


def test_the_last_admin_stays(identity: Identity) -> None:
    identity.add_user("boss", "admin", GOOD)
    with pytest.raises(Refused, match="SEC-1009"):
        identity.set_role("boss", "viewer")
    with pytest.raises(Refused, match="SEC-1009"):
        identity.set_disabled("boss", True)
    identity.add_user("deputy", "admin", GOOD)
    identity.set_role("boss", "viewer")
    assert [u.role for u in identity.users()] == ["viewer", "admin"]


def test_bad_input_has_a_code(identity: Identity) -> None:
    identity.add_user("mia", "viewer", GOOD)
    with pytest.raises(Misconfigured, match="SEC-1006"):
        identity.add_user("mia", "viewer", GOOD)
    with pytest.raises(Misconfigured, match="SEC-1006"):
        identity.reset_password("nobody")
    with pytest.raises(Misconfigured, match="MODEL-1002"):
        identity.add_user("mia the great", "viewer", GOOD)
    with pytest.raises(Misconfigured, match="SEC-1008"):
        identity.add_user("leo", "god", GOOD)  # type: ignore[arg-type] # the point of the test


def test_guessing_slows_down_its_own_address_only(identity: Identity, clock: ManualClock) -> None:
    identity.add_user("mia", "viewer", GOOD)
    for _ in range(3):
        with pytest.raises(Refused, match="SEC-1001"):
            identity.sign_in("mia", "wrong", "10.0.0.9")
    with pytest.raises(Transient, match="SEC-1002") as caught:
        identity.sign_in("mia", GOOD, "10.0.0.9")
    assert caught.value.retry_after_s is not None and caught.value.retry_after_s <= WAIT_MAX_S
    assert identity.sign_in("mia", GOOD, "10.0.0.1")
    clock.advance_us(2 * US_PER_S)
    assert identity.sign_in("mia", GOOD, "10.0.0.9")


@given(st.lists(st.floats(0, 2 * FORGET_S), max_size=80))
def test_the_brake_never_holds_longer_than_its_bound(pauses: list[float]) -> None:
    clock = ManualClock()
    brake = SignInBrake(clock)
    for pause_s in pauses:
        brake.failed("admin", "here")
        clock.advance_us(int(pause_s * US_PER_S))
    brake.failed("admin", "here")
    clock.advance_us(int(WAIT_MAX_S * US_PER_S))
    brake.check("admin", "here")


def test_rights_only_grow_with_the_role() -> None:
    actions = ("read", "write", "operate", "edit", "simulate", "administer", "change_own")
    people: list[Role] = ["viewer", "operator", "engineer", "supervisor", "admin"]
    allowed = [
        {a for a in actions if decide(Actor("x", role), a, "r").allowed}  # type: ignore[arg-type] # literals
        for role in people
    ]
    assert all(small < large or small == large for small, large in itertools.pairwise(allowed))
    assert allowed[0] == {"read", "change_own"} and allowed[-1] == set(actions)
    assert not decide(None, "read", "site").allowed
    assert not decide(Actor("x", "admin"), "fly", "r").allowed  # type: ignore[arg-type] # unknown
    with pytest.raises(Refused, match="SEC-1003"):
        require(None, "read", "site")
    with pytest.raises(Refused, match="SEC-1004"):
        require(Actor("x", "viewer"), "write", "tag/1")
