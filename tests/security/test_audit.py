"""The audit chain: what it tells, and every way in which somebody might change it."""

from __future__ import annotations

import contextlib
import multiprocessing
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.model.errors import Corrupt, Misconfigured, Refused
from headrace.model.folder import DataFolder
from headrace.model.time import ManualClock
from headrace.security.audit import AuditChain, Checkpoint
from headrace.security.identity import Identity

GOOD = "a long enough phrase"


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path / "data")


@pytest.fixture
def identity(folder: DataFolder) -> Iterator[Identity]:
    made = Identity(folder, ManualClock())
    yield made
    made.close()


def told(chain: AuditChain) -> list[tuple[str, str, str, str]]:
    return [(e.actor, e.action, e.resource, e.outcome) for e in reversed(chain.entries())]


def flaws(chain: AuditChain, *places: Checkpoint) -> list[str]:
    return [flaw.code for flaw in chain.verify(places).flaws]


def sql(folder: DataFolder, *statements: str) -> None:
    """As somebody who holds the database."""
    with contextlib.closing(sqlite3.connect(folder.metadata_file)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def test_who_did_what_to_users_stands_there_and_no_secret(identity: Identity) -> None:
    identity.add_user("mia", "engineer", GOOD, by="admin")
    secret = identity.sign_in("mia", GOOD, "10.0.0.7")
    token = identity.add_token("mia", "excel", by="mia")
    identity.revoke_token(1, "mia", by="mia")
    identity.change_password("mia", GOOD, "another long phrase")
    identity.sign_in("mia", "another long phrase", "10.0.0.7")
    new = identity.reset_password("mia", by="admin")
    identity.add_user("leo", "admin", GOOD, by="admin")
    identity.set_role("mia", "viewer", by="leo")
    identity.set_disabled("mia", True, by="leo")
    with pytest.raises(Refused):
        identity.sign_in("mia", new, "10.0.0.8")
    assert told(identity.audit) == [
        ("admin", "user.add", "user/mia", "done"),
        ("mia", "sign_in", "user/mia", "done"),
        ("mia", "token.add", "user/mia", "done"),
        ("mia", "token.revoke", "user/mia", "done"),
        ("mia", "user.change_password", "user/mia", "done"),
        ("mia", "session.revoke", "user/mia", "done"),
        ("mia", "sign_in", "user/mia", "done"),
        ("admin", "user.reset_password", "user/mia", "done"),
        ("admin", "session.revoke", "user/mia", "done"),
        ("admin", "user.add", "user/leo", "done"),
        ("leo", "user.role", "user/mia", "done"),
        ("leo", "user.close", "user/mia", "done"),
        ("mia", "sign_in", "user/mia", "denied"),
    ]
    text = msgspec.json.encode(identity.audit.entries(limit=1_000)).decode()
    for word in (secret, token, new, GOOD, "another long phrase"):
        assert word not in text
    assert identity.audit.verify().flaws == ()


def test_a_change_that_fails_tells_nothing_and_a_flood_of_guesses_little(
    identity: Identity,
) -> None:
    identity.add_user("mia", "viewer", GOOD)
    with pytest.raises(Misconfigured):
        identity.add_user("mia", "viewer", GOOD)
    assert len(told(identity.audit)) == 1
    for wanted in (2, 3, 3):
        with pytest.raises(Refused):
            identity.sign_in("mia", "wrong and long", "10.0.0.7")
        assert len(told(identity.audit)) == wanted


def filled(identity: Identity, entries: int = 12) -> AuditChain:
    for n in range(entries):
        identity.audit.record(f"user{n % 3}", "write", f"tag/{n}", "done", value=n * 0.5)
    return identity.audit


def _edit(field: str, value: str) -> Callable[[DataFolder], None]:
    return lambda folder: sql(folder, f"UPDATE audit SET {field} = {value} WHERE number = 5")


def _swap(folder: DataFolder) -> None:
    sql(
        folder,
        "UPDATE audit SET number = 100 WHERE number = 5",
        "UPDATE audit SET number = 5 WHERE number = 6",
        "UPDATE audit SET number = 6 WHERE number = 100",
    )


def _shift(folder: DataFolder) -> None:
    """A removal that is hidden by counting the rest down."""
    sql(
        folder,
        "DELETE FROM audit WHERE number = 5",
        *(f"UPDATE audit SET number = {n - 1} WHERE number = {n}" for n in range(6, 13)),
    )


def _copy(folder: DataFolder) -> None:
    sql(
        folder,
        "INSERT INTO audit SELECT 13, at_us, actor, action, resource, outcome, detail, key, previous,"
        " digest, signature FROM audit WHERE number = 12",
    )


ATTACKS: dict[str, tuple[Callable[[DataFolder], None], set[str]]] = {
    "another person": (_edit("actor", "'leo'"), {"SEC-1313"}),
    "another time": (_edit("at_us", "at_us + 1"), {"SEC-1313"}),
    "another value": (_edit("detail", "'{\"value\":9.0}'"), {"SEC-1313"}),
    "another outcome": (_edit("outcome", "'failed'"), {"SEC-1313"}),
    "another digest": (_edit("digest", f"'{'a' * 64}'"), {"SEC-1312", "SEC-1313"}),
    "another signature": (_edit("signature", "'AAAA'"), {"SEC-1314"}),
    "no signature": (_edit("signature", "'not base64'"), {"SEC-1314"}),
    "removed": (lambda f: sql(f, "DELETE FROM audit WHERE number = 5"), {"SEC-1311"}),
    "removed and counted down": (_shift, {"SEC-1312", "SEC-1313", "SEC-1315"}),
    "reordered": (_swap, {"SEC-1312", "SEC-1313"}),
    "first removed": (lambda f: sql(f, "DELETE FROM audit WHERE number = 1"), {"SEC-1311"}),
    "end cut off": (lambda f: sql(f, "DELETE FROM audit WHERE number > 9"), {"SEC-1315"}),
    "all removed": (lambda f: sql(f, "DELETE FROM audit"), {"SEC-1315"}),
    "one appended": (_copy, {"SEC-1312", "SEC-1313"}),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_whoever_holds_the_database_is_found(
    folder: DataFolder, identity: Identity, attack: str
) -> None:
    chain = filled(identity)
    assert flaws(chain) == []
    act, codes = ATTACKS[attack]
    act(folder)
    assert set(flaws(chain)) == codes


def forged(folder: DataFolder, key_folder: Path) -> None:
    """The whole chain written anew, consistent, with entry 5 changed, signed by the key in a folder."""
    again = Identity(DataFolder(folder.root))
    chain = AuditChain(again._engine, key_folder, ManualClock())
    entries = list(reversed(chain.entries(limit=1_000)))
    previous = "0" * 64
    with chain.writing() as connection:
        connection.exec_driver_sql("DELETE FROM audit")
        for entry in entries:
            changed = msgspec.structs.replace(
                entry,
                actor="leo" if entry.number == 5 else entry.actor,
                previous=previous,
                key=chain.keys.name,
            )
            previous = changed.expected_digest()
            values = msgspec.structs.asdict(changed) | {
                "digest": previous,
                "signature": chain.keys.sign(previous),
            }
            names = ", ".join(values)
            marks = ", ".join(f":{name}" for name in values)
            connection.exec_driver_sql(f"INSERT INTO audit ({names}) VALUES ({marks})", values)
    again.close()


def test_a_chain_written_anew_needs_the_key(
    folder: DataFolder, identity: Identity, tmp_path: Path
) -> None:
    chain = filled(identity)
    forged(folder, tmp_path / "thief")
    assert set(flaws(chain)) == {"SEC-1314", "SEC-1316"}  # and the head is another one


def test_whoever_holds_the_machine_and_its_key_is_found_by_a_checkpoint_elsewhere(
    folder: DataFolder, identity: Identity
) -> None:
    chain = filled(identity)
    place = chain.checkpoint()
    assert place is not None
    filled(identity, 3)
    assert chain.verify([place]).checkpoints == 1 and flaws(chain, place) == []
    (folder.audit / "head.json").unlink()
    forged(folder, folder.audit)
    assert flaws(chain) == [], "without a checkpoint nobody can tell"
    assert flaws(chain, place) == ["SEC-1316"]
    sql(folder, "DELETE FROM audit WHERE number > 3")
    (folder.audit / "head.json").unlink(missing_ok=True)
    assert flaws(chain, place) == ["SEC-1315"]
    false = msgspec.structs.replace(place, number=3)
    assert flaws(chain, false) == ["SEC-1316"], "a checkpoint is signed"


def test_a_signature_of_an_entry_is_none_of_a_checkpoint(identity: Identity) -> None:
    chain = filled(identity)
    entry = chain.entries()[0]
    place = Checkpoint(
        number=entry.number, digest=entry.digest, key=entry.key, signature=entry.signature
    )
    assert flaws(chain, place) == ["SEC-1316"]


def test_another_machine_counts_when_its_key_is_trusted(identity: Identity, tmp_path: Path) -> None:
    chain = filled(identity)
    other = AuditChain(identity._engine, tmp_path / "other", ManualClock())
    other.record("leo", "write", "tag/1", "done")
    assert flaws(chain) == ["SEC-1314"]
    chain.keys.trust(other.keys.public_pem())
    assert flaws(chain) == []
    with pytest.raises(Misconfigured, match="SEC-1302"):
        chain.keys.trust(b"no key")


def test_a_damaged_key_is_told_and_not_replaced(folder: DataFolder, identity: Identity) -> None:
    filled(identity)
    (folder.audit / "key.pem").write_text("gone")
    with pytest.raises(Corrupt, match="SEC-1301"):
        Identity(folder)
    assert (folder.audit / "key.pem").read_text() == "gone"


def append_many(root: str, name: str) -> None:
    identity = Identity(DataFolder(Path(root)))
    for n in range(25):
        identity.audit.record(name, "write", f"tag/{n}", "done")
    identity.close()


def test_several_processes_append_one_chain(folder: DataFolder, identity: Identity) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [
        context.Process(target=append_many, args=(str(folder.root), f"p{n}")) for n in range(3)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    verdict = identity.audit.verify()
    assert (verdict.entries, verdict.flaws) == (75, ())


def test_threads_of_one_process_append_one_chain(identity: Identity) -> None:
    """And two chains of one folder, as a console and its keeper have them."""
    other = AuditChain(identity._engine, identity.audit._folder, ManualClock())

    def append(n: int) -> None:
        (identity.audit, other)[n % 2].record("mia", "write", f"tag/{n}", "done")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(append, range(64)))
    verdict = identity.audit.verify()
    assert (verdict.entries, verdict.flaws) == (64, ())


async def test_what_is_done_elsewhere_is_told_before_and_after(identity: Identity) -> None:
    chain = identity.audit
    async with chain.doing("mia", "write", "tag/7", value=5.0) as facts:
        assert told(chain)[-1] == ("mia", "write", "tag/7", "begun")
        facts["read_back"] = 4.9
    assert '"read_back":4.9' in chain.entries(limit=1)[0].detail
    with pytest.raises(Refused):
        async with chain.doing("mia", "write", "tag/8", value=5.0):
            raise Refused("EDGE-1901", "no", "no")
    assert [e.outcome for e in chain.entries(resource="tag/8")] == ["failed", "begun"]
    assert chain.verify().flaws == ()


ENTRY = st.fixed_dictionaries(
    {
        "actor": st.text(max_size=300),
        "action": st.text(max_size=100),
        "resource": st.text(max_size=300),
        "detail": st.dictionaries(
            st.sampled_from(["value", "why", "address", "阀门", "n"]),
            st.text(max_size=5_000) | st.floats(allow_nan=False) | st.integers(-(2**60), 2**60),
        ),
    }
)


@settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(entries=st.lists(ENTRY, min_size=1, max_size=4))
def test_whatever_is_told_can_be_verified(
    identity: Identity, entries: list[dict[str, Any]]
) -> None:
    for each in entries:
        text = [each[name].replace("\0", "") for name in ("actor", "action", "resource")]
        identity.audit.record(text[0], text[1], text[2], "done", **each["detail"])
    assert identity.audit.verify().flaws == ()
    newest = identity.audit.entries(limit=1)[0]
    assert newest.digest == newest.expected_digest()
    msgspec.json.decode(newest.detail, type=dict[str, Any])
