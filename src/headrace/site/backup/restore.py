"""Looking whether a backup is whole, and putting it back: all of it, or nothing.

Everything is written to a folder beside the target, each content checked as it is written; the streams are
given to a broker that runs for that alone. Only then the folder gets the target's name.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Final

from headrace.bus.broker import prepare_address, start_broker, stop_broker
from headrace.bus.client import open_bus
from headrace.bus.stream_copy import CHUNK_BYTES, load_stream
from headrace.model.errors import Corrupt, Refused
from headrace.model.folder import DataFolder
from headrace.security.files import make_folder, sync_folder
from headrace.site.backup.repository import BackupHead, Manifest, Repository, disk

BROKER_START_S: Final = 30.0
Progress = Callable[[str, int], None]


def verify_backup(
    repository: Repository,
    head: BackupHead,
    identity: str,
    *,
    trusted: str = "",
    progress: Progress = lambda _what, _bytes: None,
) -> Manifest:
    """Open every content of a backup and compare it with what was saved; gives what it holds.

    Args:
        identity: see :meth:`Repository.identity`.
        trusted: key that must have signed it, or its beginning.

    Raises:
        Corrupt: SEC-1712 for the first content that is gone or changed; SEC-1717 for the signature.
    """
    manifest = repository.manifest(head, identity, trusted)
    for name, sha256, size in _contents(manifest):
        found = repository.get(sha256, None, identity, name)
        if found != size:
            raise Corrupt("SEC-1712", f"{name} has {found} bytes, not {size}", "Take another copy.")
        progress(name, size)
    return manifest


async def restore_backup(
    repository: Repository,
    head: BackupHead,
    identity: str,
    target: Path,
    *,
    trusted: str = "",
    force: bool = False,
    progress: Progress = lambda _what, _bytes: None,
) -> Path | None:
    """Put a backup back; gives where the folder is that was there before, if any.

    Args:
        target: the data folder: not there, or empty.
        force: put what is there aside, under another name beside it.

    Raises:
        Refused: SEC-1715 when the target is not empty; SEC-1716 when the disk is full: nothing of it
            stays then.
        Corrupt: SEC-1712, SEC-1717 as of :func:`verify_backup`; nothing is changed then.
    """
    aside = await asyncio.to_thread(_check_target, target, head, force)
    manifest = await asyncio.to_thread(repository.manifest, head, identity, trusted)
    with disk(target.parent):
        place = await asyncio.to_thread(_beside, target)
        try:
            await asyncio.to_thread(_write_files, repository, manifest, identity, place, progress)
            if manifest.streams:
                await _write_streams(repository, manifest, identity, place, progress)
            await asyncio.to_thread(_take_place, place, target, aside)
        finally:
            await asyncio.to_thread(shutil.rmtree, place, True)
    return aside


def _beside(target: Path) -> Path:
    make_folder(target.parent)
    return Path(tempfile.mkdtemp(prefix=f".{target.name}-restore-", dir=target.parent))


def _take_place(place: Path, target: Path, aside: Path | None) -> None:
    if aside is not None:
        target.rename(aside)
    elif target.exists():
        target.rmdir()
    place.rename(target)
    sync_folder(target.parent)


def _check_target(target: Path, head: BackupHead, force: bool) -> Path | None:
    if not target.exists() or not any(target.iterdir()):
        return None
    if not force:
        raise Refused(
            "SEC-1715",
            f"{target} is not empty",
            "Give an empty folder, or --force, which puts what is there aside.",
        )
    return target.with_name(f"{target.name}.before-{head.id}")


def _write_files(
    repository: Repository, manifest: Manifest, identity: str, place: Path, progress: Progress
) -> None:
    folders = {place}
    for file in manifest.files:
        path = _inside(place, file.path)
        make_folder(path.parent, 0o700)
        folders.add(path.parent)
        with open(path, "wb", opener=_private) as target:
            repository.get(file.sha256, target, identity, file.path)
            target.flush()
            os.fsync(target.fileno())
        path.chmod(file.mode)
        progress(file.path, file.size)
    for folder in folders:
        sync_folder(folder)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _inside(place: Path, name: str) -> Path:
    """A path below ``place``; a manifest is signed, and still not believed that far."""
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise Corrupt("SEC-1712", f"the backup names a file {name!r}", "Take another copy.")
    return place.joinpath(*parts.parts)


async def _write_streams(
    repository: Repository, manifest: Manifest, identity: str, place: Path, progress: Progress
) -> None:
    folder = DataFolder(place)
    address = prepare_address(folder)
    process = start_broker(folder, address)
    try:
        async with open_bus(address, "restore", wait_s=BROKER_START_S) as bus:
            for stream in manifest.streams:
                name = f"stream {stream.saved.name}"
                with tempfile.TemporaryFile(dir=place) as file:
                    await asyncio.to_thread(repository.get, stream.sha256, file, identity, name)
                    file.seek(0)
                    await load_stream(bus, stream.saved, _chunks(file))
                progress(name, stream.size)
    finally:
        await asyncio.to_thread(stop_broker, process, BROKER_START_S)
    await asyncio.to_thread(_tidy, folder)


def _tidy(folder: DataFolder) -> None:
    """What the broker of the restore left beside its store."""
    (folder.run / "broker.pid").unlink(missing_ok=True)
    (folder.broker / "nats.conf").unlink(missing_ok=True)
    shutil.rmtree(folder.logs, ignore_errors=True)


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def _contents(manifest: Manifest) -> Iterator[tuple[str, str, int]]:
    for file in manifest.files:
        yield file.path, file.sha256, file.size
    for stream in manifest.streams:
        yield f"stream {stream.saved.name}", stream.sha256, stream.size
