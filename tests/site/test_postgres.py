"""Metadata on PostgreSQL, shared by several processes: one writer at a time, one set of sessions."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from headrace.model.errors import HeadraceError, Misconfigured, Refused, Transient
from headrace.model.folder import DataFolder
from headrace.model.time import US_PER_S, ManualClock
from headrace.security.brake import FREE_TRIES
from headrace.security.database import metadata_url
from headrace.security.identity import Identity, ensure_first_admin
from headrace.site.model import Connection, SiteModel, Tag
from headrace.site.registry import Registry
from postgres_server import PostgresServer

PLC = Connection(name="plc", protocol="bench", endpoint="h:1")
GOOD = "correct horse battery"


def model(count: int) -> SiteModel:
    tags = tuple(Tag(f"a/t{n}", "plc", str(n)) for n in range(count))
    return SiteModel(enterprise="acme", name="mill", connections=(PLC,), tags=tags)


def two_consoles(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Identity]:
    """Two machines: each with its own data folder, both with the same metadata."""
    monkeypatch.setenv("HEADRACE_METADATA", url)
    clock = ManualClock()
    return [Identity(DataFolder(tmp_path / name), clock) for name in ("one", "two")]


def test_many_processes_may_make_the_tables_at_once(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    done: list[int] = []

    def apply(turn: int) -> None:
        registry = Registry(url)
        registry.apply(model(20 + turn), 1_000 + turn)
        registry.close()
        done.append(turn)

    threads = [threading.Thread(target=apply, args=(turn,)) for turn in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(done) == list(range(8))
    registry = Registry(url)
    ids = registry.ids()
    assert len(set(ids.values())) == len(ids) >= 20
    assert registry.apply(model(len(ids)), 9_000).added == ()
    registry.close()


def test_a_sign_in_here_is_valid_there(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = two_consoles(postgres.new_database(), tmp_path, monkeypatch)
    one.add_user("mia", "viewer", GOOD)
    session = one.sign_in("mia", GOOD, "10.0.0.7")
    actor = two.actor_of_session(session)
    assert actor is not None and actor.name == "mia"
    two.sign_out(session)
    assert one.actor_of_session(session) is None
    assert not (tmp_path / "one" / "metadata.db").exists()
    one.close()
    two.close()


def test_failed_sign_ins_count_together(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    consoles = two_consoles(postgres.new_database(), tmp_path, monkeypatch)
    consoles[0].add_user("mia", "viewer", GOOD)
    for turn in range(FREE_TRIES):
        with pytest.raises(Refused, match="SEC-1001"):
            consoles[turn % 2].sign_in("mia", "wrong and long", "10.0.0.7")
    for console in consoles:
        with pytest.raises(Transient, match="SEC-1002"):
            console.sign_in("mia", GOOD, "10.0.0.7")
        assert console.sign_in("mia", GOOD, "10.0.0.8")
    consoles[0]._clock.advance_us(31 * US_PER_S)  # type: ignore[attr-defined] # a ManualClock
    assert consoles[1].sign_in("mia", GOOD, "10.0.0.7")
    for console in consoles:
        console.close()


def test_one_first_admin(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_METADATA", postgres.new_database())
    folders = [DataFolder(tmp_path / name) for name in ("one", "two")]
    assert ensure_first_admin(folders[0]) is not None
    assert ensure_first_admin(folders[1]) is None


def test_a_database_that_goes_away_comes_back(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.new_database()
    monkeypatch.setenv("HEADRACE_METADATA", url)
    identity = Identity(DataFolder(tmp_path), ManualClock())
    registry = Registry.of(DataFolder(tmp_path))
    registry.apply(model(3), 1_000)
    postgres.stop()
    try:
        with pytest.raises(Transient, match="SEC-1202"):
            identity.users()
        with pytest.raises(Transient, match="SITE-1106"):
            registry.ids()
        with pytest.raises(Transient, match="SEC-1202"):
            Identity(DataFolder(tmp_path), ManualClock())
        with pytest.raises(HeadraceError, match="SITE-1101"):
            Registry.of(DataFolder(tmp_path))
    finally:
        postgres.start()
    assert identity.users() == []
    assert len(registry.ids()) == 3
    identity.close()
    registry.close()


def test_a_writer_waits_for_another_and_says_when_it_is_too_long(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    holder, waiter = Registry(url), Registry(url, patience_s=0.2)
    with holder._connect(write=True), pytest.raises(Transient, match="SITE-1106"):
        waiter.apply(model(1), 1_000)
    assert waiter.apply(model(1), 1_000).added == ("a/t0",)
    holder.close()
    waiter.close()


@pytest.mark.parametrize("url", ["no url", "oracle+nothing://db/x", "postgresql+nothing://db/x"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(Misconfigured, match="SEC-1203"):
        Registry(url)


def test_a_password_is_never_shown(tmp_path: Path) -> None:
    with pytest.raises(HeadraceError) as caught:
        Registry("postgresql+psycopg://headrace:very_secret@127.0.0.1:1/x")
    assert "very_secret" not in str(caught.value)
    assert metadata_url(DataFolder(tmp_path)).startswith("sqlite:")
