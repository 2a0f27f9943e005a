"""The disk of the power cut tests itself: it keeps what was synced, and only that."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from forgetting import ForgetfulDisk, sync

pytestmark = pytest.mark.foreign


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[ForgetfulDisk]:
    made = ForgetfulDisk(tmp_path / "journal", "journal")
    yield made
    made.close()


def kept(path: Path, content: bytes) -> Path:
    """A file that is durable with its name."""
    path.write_bytes(content)
    sync(path)
    sync(path.parent)
    return path


def names(disk: ForgetfulDisk) -> list[str]:
    return sorted(path.name for path in disk.root.iterdir())


def test_what_was_not_synced_is_gone(disk: ForgetfulDisk) -> None:
    file = kept(disk.root / "file", b"a" * 10_000)
    with file.open("r+b") as handle:
        handle.write(b"b" * 5_000)
        handle.seek(0, os.SEEK_END)
        handle.write(b"c")
    assert file.read_bytes() == b"b" * 5_000 + b"a" * 5_000 + b"c"
    assert disk.power_cut([]) == (3, 0)
    assert file.read_bytes() == b"a" * 10_000


def test_what_was_synced_stays_also_after_a_second_cut(disk: ForgetfulDisk) -> None:
    content = os.urandom(3_000_000)
    file = kept(disk.root / "file", content)
    os.truncate(file, 1_000)
    sync(file)
    for _ in range(2):
        disk.power_cut([])
        assert file.read_bytes() == content[:1_000]
    os.truncate(file, 2_000)
    assert file.read_bytes() == content[:1_000] + bytes(1_000), "what was cut off does not return"


def test_a_name_needs_the_sync_of_its_folder(disk: ForgetfulDisk) -> None:
    file = disk.root / "file"
    file.write_bytes(b"content")
    sync(file)
    disk.power_cut([])
    assert not file.exists()


def test_a_folder_needs_the_sync_of_its_parent(disk: ForgetfulDisk) -> None:
    folder = disk.root / "folder"
    folder.mkdir()
    kept(folder / "file", b"content")
    disk.power_cut([])
    assert not folder.exists()
    folder.mkdir()
    kept(folder / "file", b"content")
    sync(disk.root)
    disk.power_cut([])
    assert (folder / "file").read_bytes() == b"content"


@pytest.mark.parametrize("synced", [False, True])
def test_a_replaced_file_is_the_old_one_or_the_new_one(disk: ForgetfulDisk, synced: bool) -> None:
    file = kept(disk.root / "file", b"old")
    fresh = disk.root / "file.new"
    fresh.write_bytes(b"new")
    sync(fresh)
    fresh.replace(file)
    if synced:
        sync(disk.root)
    disk.power_cut([])
    assert file.read_bytes() == (b"new" if synced else b"old")
    assert not fresh.exists()


def test_removing_and_linking_wait_for_the_folder_too(disk: ForgetfulDisk) -> None:
    file = kept(disk.root / "file", b"content")
    other = disk.root / "other"
    os.link(file, other)
    file.unlink()
    assert names(disk) == ["other"]
    disk.power_cut([])
    assert names(disk) == ["file"]
    os.link(file, other)
    file.unlink()
    sync(disk.root)
    disk.power_cut([])
    assert other.read_bytes() == b"content"


def test_a_journal_keeps_names_with_any_sync(journal: ForgetfulDisk) -> None:
    folder = journal.root / "folder"
    folder.mkdir()
    (folder / "empty").write_bytes(b"lost")
    file = folder / "file"
    file.write_bytes(b"content")
    sync(file)
    (folder / "later").write_bytes(b"lost")
    journal.power_cut([])
    assert file.read_bytes() == b"content"
    assert (folder / "empty").read_bytes() == b"", "its name was in the journal, not its content"
    assert not (folder / "later").exists()


def test_a_torn_write_is_a_mixture_of_old_and_new(disk: ForgetfulDisk) -> None:
    blocks = 64
    file = kept(disk.root / "file", b"o" * 4096 * blocks)
    seen = set()
    for seed in range(1, 6):
        with file.open("r+b") as handle:
            handle.write(b"n" * 4096 * blocks + b"n" * 9_000)
        disk.power_cut([], "torn", seed)
        found = file.read_bytes()
        old = found[: 4096 * blocks]
        assert set(old) == set(b"on") and set(found[4096 * blocks :]) <= set(b"n\0")
        assert all(len(set(old[i : i + 512])) == 1 for i in range(0, len(old), 512))
        seen.add(len(found))
        file.write_bytes(b"o" * 4096 * blocks)
        sync(file)
    assert seen == {4096 * blocks, 4096 * blocks + 9_000}


def test_torn_names_arrive_in_their_order(disk: ForgetfulDisk) -> None:
    counts = set()
    for seed in range(1, 9):
        for n in range(5):
            (disk.root / f"{seed}-{n}").touch()
        disk.power_cut([], "torn", seed)
        found = [name for name in names(disk) if name.startswith(f"{seed}-")]
        assert found == [f"{seed}-{n}" for n in range(len(found))]
        counts.add(len(found))
    assert len(counts) > 2


def test_handles_of_the_time_before_are_dead(disk: ForgetfulDisk) -> None:
    with kept(disk.root / "file", b"content").open("r+b", buffering=0) as handle:
        disk.power_cut([])
        with pytest.raises(OSError, match="Input/output"):
            handle.write(b"ghost")
    assert (disk.root / "file").read_bytes() == b"content"
