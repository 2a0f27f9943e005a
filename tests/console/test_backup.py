"""Backups of a running site while samples come: whole, incremental, and all or nothing on the way back."""

from __future__ import annotations

import asyncio
import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from site_fixture import CLOCK, RunningSite
from typer.testing import CliRunner

from headrace.bus.broker import load_address, start_broker, stop_broker
from headrace.bus.client import open_bus
from headrace.cli.app import build
from headrace.historian.reader import open_reader
from headrace.model.errors import Corrupt, HeadraceError, Misconfigured, Refused
from headrace.model.folder import DataFolder
from headrace.security.age import new_identity
from headrace.security.identity import Identity
from headrace.site.backup import Repository, restore_backup, verify_backup
from headrace.site.backup import restore as restore_module
from headrace.site.backup.collect import _check_own
from waiting import until_sync

PASSPHRASE = "four words of one plant"
TAG = "utilities/pumping/pump_1/power"
START_US = 1_700_000_000_000_000
"""Samples of this test have times of their own in the site that all tests share."""


def run(*words: str) -> str:
    done = CliRunner().invoke(
        build(("backup",)), ["backup", *words], env={"HEADRACE_BACKUP_PASSPHRASE": PASSPHRASE}
    )
    assert done.exit_code == 0, f"{done.output} {done.exception!r}"
    return done.stdout.strip()


def samples(folder: DataFolder, tag_id: int) -> pl.DataFrame:
    async def ask() -> pl.DataFrame:
        async with (
            open_bus(load_address(folder), "test") as bus,
            open_reader(folder, bus) as reader,
        ):
            return await asyncio.to_thread(reader.read, [tag_id], START_US, START_US + 10**12)

    return asyncio.run(ask())


@contextmanager
def load(site: RunningSite) -> Iterator[list[int]]:
    """Frames of 1,000 samples, one after the other; the list tells how many are acknowledged."""
    sent: list[int] = [0]
    ending = threading.Event()

    def publish() -> None:
        while not ending.is_set():
            times = START_US + np.arange(sent[0], sent[0] + 1_000)
            ids = np.full(1_000, site.tags[TAG], np.int64)
            site.publish_columns(ids, times, times % 977 * 1.0)
            sent[0] += 1_000

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield sent
    finally:
        ending.set()
        thread.join()


@pytest.fixture(scope="module")
def saved(
    running_site: RunningSite, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Repository, int]:
    """A place with two backups under load, and how many samples were acknowledged before the second."""
    place = tmp_path_factory.mktemp("backups") / "place"
    with load(running_site) as sent:
        table = running_site.folder.table
        until_sync(lambda: sent[0] >= 3_000 and any(table.glob("part-*")), 60, "a commit")
        run("create", str(place), "--data", str(running_site.folder.root))
        acknowledged = sent[0]
        run("create", str(place), "--data", str(running_site.folder.root))
    return Repository(place), acknowledged


def opened(repository: Repository) -> str:
    return repository.identity(passphrase=PASSPHRASE)


def test_what_was_acknowledged_before_is_there_after(
    running_site: RunningSite, saved: tuple[Repository, int], tmp_path: Path
) -> None:
    repository, acknowledged = saved
    target = tmp_path / "new" / "data"
    run("verify", str(repository.path))
    run("restore", str(repository.path), "--data", str(target))
    folder = DataFolder(target)
    process = start_broker(folder, load_address(folder))
    try:
        after = samples(folder, running_site.tags[TAG])
    finally:
        stop_broker(process)
    before = samples(running_site.folder, running_site.tags[TAG])
    assert after.height >= acknowledged
    assert_frame_equal(after, before.head(after.height))
    identity = Identity(folder)
    assert identity.audit.verify().flaws == ()
    assert {e.action for e in identity.audit.entries()} >= {"backup.create", "backup.restore"}
    identity.close()
    assert (folder.audit / "key.pem").stat().st_mode & 0o777 == 0o600
    assert folder.site_file.read_bytes() == running_site.folder.site_file.read_bytes()


def test_a_second_backup_copies_only_what_is_new(saved: tuple[Repository, int]) -> None:
    repository, _ = saved
    first, second = repository.heads()[:2]
    assert first.new_bytes <= first.bytes and second.new_bytes < second.bytes
    identity = opened(repository)
    files = {f.path: f for f in repository.manifest(first, identity).files}
    same = [f for f in repository.manifest(second, identity).files if files.get(f.path) == f]
    assert any(f.path.startswith("table/part-") for f in same)
    listed = run("list", str(repository.path), "--format", "json").splitlines()
    assert len(listed) == 2 and first.id in listed[0]


@pytest.mark.parametrize("where", ["first", "middle", "last", "cut", "gone"])
def test_any_changed_byte_is_found_and_nothing_is_restored(
    saved: tuple[Repository, int], tmp_path: Path, where: str
) -> None:
    repository, _ = saved
    head, identity = repository.heads()[1], opened(repository)
    manifest = repository.manifest(head, identity)
    chosen = next(f for f in manifest.files if f.path.startswith("table/part-"))
    path = repository._object(chosen.sha256)
    whole = path.read_bytes()
    place = {"first": 0, "middle": len(whole) // 2}.get(where, len(whole) - 1)
    broken = bytearray(whole)
    broken[place] ^= 1
    try:
        if where == "gone":
            path.unlink()
        else:
            path.write_bytes(whole[:-20] if where == "cut" else bytes(broken))
        with pytest.raises(Corrupt, match="SEC-1712"):
            verify_backup(repository, head, identity)
        target = tmp_path / "data"
        with pytest.raises(Corrupt, match="SEC-1712"):
            asyncio.run(restore_backup(repository, head, identity, target))
        assert list(tmp_path.iterdir()) == []
    finally:
        path.write_bytes(whole)
    verify_backup(repository, head, identity)


@pytest.mark.parametrize("part", ["manifest", "site", "signature", "key"])
def test_a_head_or_manifest_of_somebody_else_is_found(
    saved: tuple[Repository, int], part: str
) -> None:
    repository, _ = saved
    head, identity = repository.heads()[0], opened(repository)
    path = repository.path / "backups" / f"{head.id}.{'age' if part == 'manifest' else 'json'}"
    whole = path.read_bytes()
    text = whole.replace(b'"site":"mill"', b'"site":"bill"')
    if part == "manifest":
        text = whole[:-1] + bytes([whole[-1] ^ 1])
    elif part == "signature":
        at = whole.index(b'"signature":"') + 14
        text = whole[:at] + (b"A" if whole[at : at + 1] != b"A" else b"B") + whole[at + 1 :]
    elif part == "key":
        text = whole
    try:
        path.write_bytes(text)
        trusted = "0123456789abcdef" if part == "key" else ""
        with pytest.raises(Corrupt, match="SEC-1712" if part == "manifest" else "SEC-1717"):
            verify_backup(repository, repository.heads()[0], identity, trusted=trusted)
    finally:
        path.write_bytes(whole)


def test_a_wrong_key_opens_nothing(saved: tuple[Repository, int]) -> None:
    repository, _ = saved
    with pytest.raises(Refused, match="SEC-1711"):
        repository.identity(passphrase="another phrase of a plant")
    with pytest.raises(Refused, match="SEC-1711"):
        repository.identity(key=new_identity()[0])
    plain = b"".join(p.read_bytes() for p in repository.path.rglob("*") if p.is_file())
    assert b"PAR1" not in plain and b"pump_1" not in plain and b"BEGIN PRIVATE KEY" not in plain


def test_a_folder_with_something_in_it_is_left_alone_or_put_aside(
    saved: tuple[Repository, int], tmp_path: Path
) -> None:
    repository, _ = saved
    head, identity = repository.heads()[0], opened(repository)
    target = tmp_path / "data"
    target.mkdir()
    (target / "mine").write_text("x")
    with pytest.raises(Refused, match="SEC-1715"):
        asyncio.run(restore_backup(repository, head, identity, target))
    assert [p.name for p in target.iterdir()] == ["mine"]
    aside = asyncio.run(restore_backup(repository, head, identity, target, force=True))
    assert aside is not None and (aside / "mine").read_text() == "x"
    assert (target / "site.toml").exists()


def test_a_full_disk_leaves_nothing_half_done(
    saved: tuple[Repository, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, _ = saved
    head, identity = repository.heads()[0], opened(repository)

    def full(_descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(restore_module.os, "fsync", full)
        with pytest.raises(Refused, match="SEC-1716"):
            asyncio.run(restore_backup(repository, head, identity, tmp_path / "data"))
        assert list(tmp_path.iterdir()) == []
        before = sorted(repository.path.rglob("*"))
        with pytest.raises(Refused, match="SEC-1716"):
            repository.put(io.BytesIO(b"something that no backup has"))
    assert sorted(repository.path.rglob("*")) == before


def test_old_backups_go_with_what_only_they_had(running_site: RunningSite, tmp_path: Path) -> None:
    key = tmp_path / "key.txt"
    identity, recipient = new_identity()
    key.write_text(f"# of the plant\n{identity}\n")
    place, data = tmp_path / "place", str(running_site.folder.root)
    run("create", str(place), "--recipient", recipient, "--data", data)
    running_site.publish({TAG: 1.0})
    run("create", str(place), "--data", data)
    old, new = Repository(place).heads()
    objects = len(list((place / "objects").rglob("*.age")))
    run("prune", str(place), "--keep", "1", "--key-file", str(key))
    repository = Repository(place)
    assert [head.id for head in repository.heads()] == [new.id]
    assert len(list((place / "objects").rglob("*.age"))) < objects
    run("verify", str(place), "--key-file", str(key))
    with pytest.raises(HeadraceError, match="SEC-1713"):
        repository.head(old.id)
    assert CLOCK.now_us() > new.at_us


@pytest.mark.parametrize(
    ("setting", "tool"),
    [
        ('[metadata]\nurl = "postgresql+psycopg://headrace@db/headrace"\n', "pg_dump"),
        ('[historian]\ntable = "s3://plant/table"\n', "versions of its bucket"),
    ],
)
def test_what_lies_elsewhere_is_refused_and_its_own_tool_named(
    tmp_path: Path, setting: str, tool: str
) -> None:
    (tmp_path / "headrace.toml").write_text(setting)
    with pytest.raises(Misconfigured, match="SEC-1719") as refused:
        _check_own(DataFolder(tmp_path))
    assert tool in refused.value.remedy
