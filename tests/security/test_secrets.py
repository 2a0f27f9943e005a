"""The vault: what goes in comes out, and nobody without the key reads or changes it unfound."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model.errors import Corrupt, Misconfigured, Refused
from headrace.model.folder import DataFolder
from headrace.security.master_key import KeySource, MasterKey, new_key, read_key
from headrace.security.secrets import Vault

TULIP = "tulip-7731-äöü"


def all_bytes(root: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file())


def master(folder: DataFolder) -> Path:
    return folder.keys / "master.key"


def test_what_goes_in_comes_out_and_is_nowhere_in_clear(folder: DataFolder) -> None:
    with Vault(folder) as vault:
        vault.set("plc_1", TULIP)
        vault.set("plc_1", TULIP + "2")
        vault.set_all({"smtp": "rose-1", "hook": "https://host/hook/a1b2c3d4"})
    with Vault(folder) as vault:
        assert vault.get("plc_1") == TULIP + "2"
        assert [entry.name for entry in vault.names()] == ["hook", "plc_1", "smtp"]
        vault.remove("smtp")
        with pytest.raises(Misconfigured, match="SEC-1511"):
            vault.get("smtp")
    assert master(folder).stat().st_mode & 0o777 == 0o600
    assert TULIP.encode() not in all_bytes(folder.root)
    assert b"a1b2c3d4" not in all_bytes(folder.root)


def test_a_row_that_was_changed_or_moved_does_not_open(folder: DataFolder) -> None:
    with Vault(folder) as vault:
        vault.set_all({"one": "first-secret", "two": "second-secret"})
    with sqlite3.connect(folder.metadata_file) as database:
        rows = dict(database.execute("select name, sealed from secret").fetchall())
        database.execute("update secret set sealed = ? where name = 'one'", (rows["two"],))
        flipped = bytes([rows["two"][20] ^ 1])
        damaged = rows["two"][:20] + flipped + rows["two"][21:]
        database.execute("update secret set sealed = ? where name = 'two'", (damaged,))
    with Vault(folder) as vault:
        for name in ("one", "two"):
            with pytest.raises(Corrupt, match="SEC-1508"):
                vault.get(name)


@pytest.mark.parametrize("lost", [True, False])
def test_a_lost_or_another_key_opens_nothing_and_changes_nothing(
    folder: DataFolder, lost: bool
) -> None:
    with Vault(folder) as vault:
        vault.set("plc_1", TULIP)
    kept = master(folder).read_bytes()
    master(folder).unlink()
    if not lost:
        master(folder).write_text(new_key())
        master(folder).chmod(0o600)
    with Vault(folder) as vault:
        for act in (
            lambda: vault.get("plc_1"),
            lambda: vault.set("other", TULIP),
            vault.rotate,
        ):
            with pytest.raises(Refused, match="SEC-1503"):
                act()
    master(folder).write_bytes(kept)
    master(folder).chmod(0o600)
    with Vault(folder) as vault:
        assert vault.get("plc_1") == TULIP
        assert len(vault.names()) == 1


def test_rotation_makes_another_key_and_keeps_every_secret(folder: DataFolder) -> None:
    with Vault(folder) as vault:
        vault.set_all({f"s{i}": f"secret-{i}" for i in range(20)})
        before = master(folder).read_bytes()
        assert vault.rotate() == 20
        assert master(folder).read_bytes() != before
        assert not master(folder).with_name("master.key.next").exists()
    with Vault(folder) as vault:
        assert vault.get("s7") == "secret-7"
        vault.set("s21", "secret-21")
    master(folder).write_bytes(before)
    with Vault(folder) as vault, pytest.raises(Refused, match="SEC-1503"):
        vault.get("s7")


@pytest.mark.parametrize("at", ["before the database", "after the database"])
def test_a_rotation_that_was_killed_leaves_one_key_that_opens(
    folder: DataFolder, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Vault(folder) as vault:
        vault.set("plc_1", TULIP)
        with monkeypatch.context() as patch:

            def killed(self: object, *_: object) -> None:
                raise KeyboardInterrupt

            if at == "before the database":
                patch.setattr(Vault, "_keep_key", killed)
            else:
                patch.setattr(KeySource, "adopt_next", killed)
            with pytest.raises(KeyboardInterrupt):
                vault.rotate()
    with Vault(folder) as vault:
        assert vault.get("plc_1") == TULIP
        vault.rotate()
        assert vault.get("plc_1") == TULIP


def test_the_key_from_the_environment_and_from_a_file(
    folder: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = new_key(), new_key()
    monkeypatch.setenv("HEADRACE_KEY", first)
    with Vault(folder) as vault:
        vault.set("plc_1", TULIP)
        assert not master(folder).exists()
        with pytest.raises(Misconfigured, match="SEC-1506"):
            vault.rotate()
        monkeypatch.setenv("HEADRACE_KEY_NEXT", second)
        vault.rotate()
    monkeypatch.delenv("HEADRACE_KEY_NEXT")
    monkeypatch.delenv("HEADRACE_KEY")
    path = tmp_path / "given.key"
    monkeypatch.setenv("HEADRACE_KEY_FILE", str(path))
    with Vault(folder) as vault:
        with pytest.raises(Refused, match="SEC-1503"):
            vault.get("plc_1")
        path.write_text(second)
        assert vault.get("plc_1") == TULIP
        path.write_text("too short " + second)
        with pytest.raises(Misconfigured, match="SEC-1501") as caught:
            vault.get("plc_1")
        assert second not in str(caught.value)


def test_the_key_from_the_systems_keyring(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring = pytest.importorskip("keyring")
    kept: dict[tuple[str, str], str] = {}
    monkeypatch.setattr(keyring, "get_password", lambda *name: kept.get(name))
    monkeypatch.setattr(keyring, "set_password", lambda s, e, v: kept.__setitem__((s, e), v))
    monkeypatch.setattr(keyring, "delete_password", lambda *name: kept.pop(name))
    folder.root.mkdir(parents=True)
    (folder.root / "headrace.toml").write_text('[secrets]\nkeyring = "headrace mill"\n')
    with Vault(folder) as vault:
        vault.set("plc_1", TULIP)
        vault.rotate()
        assert vault.get("plc_1") == TULIP
    assert list(kept) == [("headrace mill", "master key")]
    assert not master(folder).exists()


def test_a_key_that_others_may_read_is_refused(folder: DataFolder) -> None:
    with Vault(folder) as vault:
        vault.set("plc_1", TULIP)
        master(folder).chmod(0o644)
        with pytest.raises(Refused, match="SEC-1504"):
            vault.get("plc_1")


@pytest.mark.parametrize("name", ["", "a/b", "ä", "x" * 161, "a b"])
def test_bad_names_and_empty_secrets_are_refused(folder: DataFolder, name: str) -> None:
    with Vault(folder) as vault:
        with pytest.raises(Misconfigured, match="SEC-1510"):
            vault.set(name, "something")
        with pytest.raises(Misconfigured, match="SEC-1512"):
            vault.set_all({"good": "something", "bad": ""})
        assert vault.names() == []


@given(text=st.text(max_size=80))
def test_what_is_no_key_is_never_taken_for_one(text: str) -> None:
    with pytest.raises(Misconfigured, match="SEC-1501"):
        read_key(text, "a test")


@settings(max_examples=20, deadline=None)
@given(raw=st.binary(min_size=32, max_size=32))
def test_a_key_is_never_shown(raw: bytes) -> None:
    import base64

    key = read_key(base64.urlsafe_b64encode(raw).decode(), "a test")
    assert key == MasterKey(raw)
    assert raw.hex() not in repr(key)
