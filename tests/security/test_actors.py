"""Actors that are no persons: their secrets, expiry, and the one list, on a real database file."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import inspect, text
from typer.testing import CliRunner

from headrace.cli.app import build
from headrace.model.errors import Misconfigured, Refused
from headrace.model.folder import DataFolder
from headrace.model.time import US_PER_S, ManualClock
from headrace.security import passwords
from headrace.security.actors import MACHINES, grants_of, grants_text
from headrace.security.database import open_engine
from headrace.security.identity import Identity
from headrace.security.policy import ROLES, Grant
from headrace.security.tables import SESSION, TABLES

GOOD = "a long enough phrase"
DAY_US = 86_400 * US_PER_S


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what is tried here, and each takes 64 MiB."""
    cheap = partial(PasswordHasher, time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(passwords, "PasswordHasher", cheap)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def identity(tmp_path: Path, clock: ManualClock) -> Iterator[Identity]:
    store = Identity(DataFolder(tmp_path), clock)
    yield store
    store.close()


@pytest.mark.parametrize("kind", MACHINES)
def test_an_actor_of_each_kind_is_known_by_its_own_secret_only(
    identity: Identity, kind: str
) -> None:
    grants = (Grant("operator", "utilities/pumping"),)
    secret = identity.actors.add(kind, "press_line", grants, tenant="acme")  # type: ignore[arg-type] # parametrized
    other = identity.actors.add(kind, "other")  # type: ignore[arg-type] # parametrized
    actor = identity.actors.of_credentials("press_line", secret)
    assert actor is not None and (actor.name, actor.kind, actor.tenant) == (
        "press_line",
        kind,
        "acme",
    )
    assert actor.grants == grants and actor.factors == {"token"}
    assert identity.actors.of_credentials("press_line", other) is None
    assert identity.actors.of_credentials("other", secret) is None
    assert identity.actors.of_credentials("press_line", "") is None
    assert identity.actor_of_token(secret) == actor
    assert identity.actor_of_token(other) is None, "no grants, no rights outside the broker"


def test_expiry_disabling_and_renewal_count_at_once(identity: Identity, clock: ManualClock) -> None:
    secret = identity.actors.add("service", "erp", [Grant("viewer")], days=2)
    clock.advance_us(2 * DAY_US - 1)
    assert identity.actor_of_token(secret) is not None
    clock.advance_us(1)
    assert identity.actor_of_token(secret) is None
    assert [e.state for e in identity.actors.list("service")] == ["expired"]
    fresh = identity.actors.renew("erp", days=0)
    assert identity.actor_of_token(secret) is None
    assert identity.actor_of_token(fresh) is not None
    identity.set_actor_disabled("erp", True)
    assert identity.actor_of_token(fresh) is None and not identity.actors.is_open("erp")
    identity.set_actor_disabled("erp", False)
    assert identity.actor_of_token(fresh) is not None and identity.actors.is_open("erp")
    clock.advance_us(10_000 * DAY_US)
    assert identity.actor_of_token(fresh) is not None


def test_the_list_shows_persons_and_machines_with_when_they_were_seen(
    identity: Identity, clock: ManualClock
) -> None:
    identity.add_user("admin", "admin", GOOD)
    identity.add_user("mia", "viewer", GOOD)
    secret = identity.actors.add("edge", "hall_b")
    made_us = clock.now_us()
    clock.advance_us(3_600 * US_PER_S)
    identity.actors.of_credentials("hall_b", secret)
    identity.sign_in("mia", GOOD, "here")
    listed = {entry.name: entry for entry in identity.actors.list()}
    assert [e.name for e in identity.actors.list()] == ["admin", "mia", "hall_b"]
    assert listed["hall_b"].created_us == made_us
    assert listed["hall_b"].seen_us == listed["mia"].seen_us == clock.now_us()
    assert listed["admin"].seen_us == 0
    identity.set_actor_disabled("mia", True)
    assert {e.name: e.state for e in identity.actors.list("person")}["mia"] == "disabled"
    with pytest.raises(Refused, match="SEC-1009"):
        identity.set_actor_disabled("admin", True)


def test_seen_is_written_once_a_minute(identity: Identity, clock: ManualClock) -> None:
    secret = identity.actors.add("device", "press_3")
    seen = []
    for _ in range(4):
        clock.advance_us(25 * US_PER_S)
        identity.actors.of_credentials("press_3", secret)
        seen.append(identity.actors.list("device")[0].seen_us)
    assert len(set(seen)) == 2


def test_names_are_unique_among_all_actors(identity: Identity) -> None:
    identity.add_user("mia", "viewer", GOOD)
    identity.actors.add("app", "energy")
    with pytest.raises(Misconfigured, match="SEC-1021"):
        identity.actors.add("service", "mia")
    with pytest.raises(Misconfigured, match="SEC-1021"):
        identity.actors.add("service", "energy")
    with pytest.raises(Misconfigured, match="SEC-1006"):
        identity.add_user("energy", "viewer", GOOD)


def test_bad_asks_change_nothing(identity: Identity) -> None:
    with pytest.raises(Misconfigured, match="SEC-1020"):
        identity.actors.add("person", "leo")  # type: ignore[arg-type] # the attempt
    with pytest.raises(Misconfigured, match="SEC-1022"):
        identity.actors.add("service", "leo", days=-1)
    with pytest.raises(Misconfigured, match="SEC-1008"):
        identity.actors.add("service", "leo", [Grant("root")])  # type: ignore[arg-type] # the attempt
    with pytest.raises(Misconfigured, match="MODEL-1002"):
        identity.actors.add("service", "leo", [Grant("viewer", "a/../b")])
    with pytest.raises(Misconfigured, match="SEC-1023"):
        identity.actors.renew("leo")
    assert identity.actors.list() == []
    assert identity.audit.entries() == []


def test_every_change_stands_in_the_audit_chain_without_the_secret(identity: Identity) -> None:
    secret = identity.actors.add("service", "erp", [Grant("viewer")], by="mia")
    fresh = identity.actors.renew("erp", by="mia")
    identity.actors.disable("erp", by="leo")
    entries = identity.audit.entries(resource="actor/erp")
    assert [(e.actor, e.action) for e in reversed(entries)] == [
        ("mia", "actor.add"),
        ("mia", "actor.renew"),
        ("leo", "actor.disable"),
    ]
    assert not any(s in e.detail for e in entries for s in (secret, fresh))


NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True)
GRANTS = st.lists(
    st.builds(
        Grant,
        st.sampled_from(ROLES),
        st.lists(NAMES, max_size=4).map("/".join),
    ),
    max_size=5,
)


@given(GRANTS)
def test_grants_come_back_as_they_were_kept(grants: list[Grant]) -> None:
    assert grants_of(grants_text(grants)) == tuple(grants)


def test_a_database_of_an_earlier_version_gets_the_new_columns(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'metadata.db'}"
    engine = open_engine(url, TABLES, 1.0)
    with engine.begin() as connection:
        for name in ("seen_us", "grants", "factors"):
            connection.execute(text(f"ALTER TABLE session DROP COLUMN {name}"))
    engine.dispose()
    engine = open_engine(url, TABLES, 1.0)
    known = {column["name"] for column in inspect(engine).get_columns("session")}
    engine.dispose()
    assert known == {column.name for column in SESSION.columns}


def test_the_command_line_adds_lists_and_disables(tmp_path: Path) -> None:
    runner, app = CliRunner(), build(("actor", "user"))

    def run(*words: str) -> str:
        result = runner.invoke(app, [*words, "--data", str(tmp_path)], env={"COLUMNS": "160"})
        assert result.exit_code == 0, result.output
        return result.output

    secret = run("actor", "add", "edge", "hall_b", "--grant", "operator:utilities").split()[-1]
    assert "operator:utilities" in run("actor", "list")
    run("actor", "disable", "hall_b")
    line = next(part for part in run("actor", "list").splitlines() if "hall_b" in part)
    assert line.split()[-1] == "disabled" and secret not in line
    fresh = run("actor", "renew", "hall_b").split()[-1]
    run("actor", "enable", "hall_b")
    identity = Identity(DataFolder(tmp_path))
    assert identity.actors.of_credentials("hall_b", secret) is None
    assert identity.actors.of_credentials("hall_b", fresh) is not None
    identity.close()
