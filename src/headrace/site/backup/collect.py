"""Making a backup while everything runs, such that a restored installation is like one after a crash.

What is saved first is older than what is saved after it, and what is older is what would be replayed::

    files of people (site file, certificates, keys)
    table, most of it             long; files of a table never change
    ledger and the table's version at that moment, metadata
    table at that version         what is new since
    streams of the broker         the log after the table's version: nothing acknowledged is missing

When the log no longer begins where the table ends, or the site file changed meanwhile, it is done again;
only what changed is copied then.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, cast

import msgspec

from headrace import __version__
from headrace.bus.client import Bus
from headrace.bus.log import log_info
from headrace.bus.stream_copy import SavedStream, save_stream, stream_names
from headrace.bus.subjects import SAMPLES_STREAM
from headrace.historian.table_copy import (
    TableVersion,
    committed_in,
    newest_version,
    table_version,
)
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Misconfigured, Transient
from headrace.model.folder import DataFolder
from headrace.model.time import Clock
from headrace.security.audit import AuditKeys
from headrace.security.files import make_folder, write_whole
from headrace.security.settings import load_settings
from headrace.site.backup.repository import (
    BackupFile,
    BackupHead,
    BackupStream,
    Manifest,
    Repository,
    backup_id,
    disk,
)

TRIES: Final = 5
LEDGER_TRIES: Final = 50
KNOWN_EVERY: Final = 50
OWN_FOLDER: Final = "backup"
_LEFT_OUT: Final = ("logs", "table", OWN_FOLDER)
_LEFT_SUFFIXES: Final = ("-wal", "-shm", ".new", ".lock", ".pid", ".sock", ".tmp")
"""Of ``run`` too: what else is there are ports and credentials that devices and edges know."""
Progress = Callable[[str, int], None]
"""Told what is copied now, and how many bytes of it were."""


class _MovedError(Exception):
    """Something was replaced while it was copied: again."""


@dataclass
class _Pass:
    """One try."""

    files: dict[str, BackupFile] = field(default_factory=dict)
    streams: list[BackupStream] = field(default_factory=list)
    position: int = 0
    new_bytes: int = 0


async def create_backup(
    folder: DataFolder,
    repository: Repository,
    clock: Clock,
    site: tuple[str, str],
    *,
    bus: Bus | None,
    progress: Progress = lambda _what, _bytes: None,
) -> BackupHead:
    """Make a backup; gives its signed head. Memory is bounded; what an earlier backup has is not copied.

    Args:
        site: enterprise and site, whose it is.
        bus: of the running installation; None when it is stopped, and the caller holds it so.
        progress: is told what is copied.

    Raises:
        Misconfigured: SEC-1719 when parts lie where other tools have to save them.
        Refused: SEC-1715 when another one runs, SEC-1716 when a disk is full.
        Transient: SEC-1718 when it moves faster than it can be copied; BUS-1801.
    """
    _check_own(folder)
    with repository.alone(), disk(folder.root, doing="read"):
        work = _Work(folder, repository, progress)
        try:
            for _ in range(TRIES):
                at_us = clock.now_us()
                done = await work.once(bus)
                if done is not None:
                    break
            else:
                raise Transient(
                    "SEC-1718",
                    f"{folder.root} changed {TRIES} times while it was copied",
                    "Try again when nobody edits the site file, or on a faster disk.",
                )
        finally:
            work.keep_known()
        head = _head(done, at_us, site)
        manifest = Manifest(
            at_us=at_us,
            version=__version__,
            table_version=work.table.version,
            position=done.position,
            files=tuple(done.files.values()),
            streams=tuple(done.streams),
        )
        keys = await asyncio.to_thread(AuditKeys, folder.audit)
        return await asyncio.to_thread(repository.finish, head, manifest, keys)


def _head(done: _Pass, at_us: int, site: tuple[str, str]) -> BackupHead:
    sizes = [*(f.size for f in done.files.values()), *(s.size for s in done.streams)]
    return BackupHead(
        id=backup_id(at_us),
        at_us=at_us,
        enterprise=site[0],
        site=site[1],
        bytes=sum(sizes),
        new_bytes=done.new_bytes,
        files=len(sizes),
        manifest_sha256="",
    )


def _check_own(folder: DataFolder) -> None:
    settings = load_settings(folder)
    elsewhere = {
        "the table on object storage": "versions of its bucket",
        "the metadata on PostgreSQL": "pg_dump",
        "the cluster of brokers": "nats account backup",
    }
    shared = (settings.historian.table, settings.metadata.url, settings.bus.address)
    for (what, how), used in zip(elsewhere.items(), shared, strict=True):
        if used:
            raise Misconfigured(
                "SEC-1719",
                f"{what} does not lie in {folder.root}",
                f"Save it there with its own tool ({how}); docs/backup.md says how.",
            )


class _Work:
    """What several tries share."""

    def __init__(self, folder: DataFolder, repository: Repository, progress: Progress) -> None:
        self._folder = folder
        self._repository = repository
        self._progress = progress
        self._known_path = folder.root / OWN_FOLDER / f"known-{repository.id}.json"
        self._known = _read_known(self._known_path)
        self._unkept = 0
        self.table = TableVersion(-1)
        self._now = _Pass()

    async def once(self, bus: Bus | None) -> _Pass | None:
        """One try; None when something moved."""
        new_before = self._now.new_bytes
        self._now = _Pass(new_bytes=new_before)
        before = _site_mark(self._folder)
        try:
            await asyncio.to_thread(self._people, bus is None)
            await asyncio.to_thread(self._table, newest_version(self._folder.table))
            version = await asyncio.to_thread(self._databases)
            await asyncio.to_thread(self._table, version)
            if bus is not None:
                await self._streams(bus)
        except _MovedError:
            return None
        return self._now if _site_mark(self._folder) == before else None

    def _people(self, with_broker: bool) -> None:
        """Everything that is no database, table or log."""
        self._small(self._folder.audit)  # its newest entry must not be newer than the chain
        left = {*_LEFT_OUT, *([] if with_broker else ["broker"])}
        for path in sorted(self._folder.root.iterdir()):
            if path.name not in left and path != self._folder.audit:
                self._small(path)

    def _small(self, path: Path) -> None:
        if path.is_symlink() or path.name.endswith(_LEFT_SUFFIXES):
            return
        if path.is_dir():
            for each in sorted(path.iterdir()):
                self._small(each)
        elif path.is_file() and path.suffix != ".db":
            self._file(path)

    def _file(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError), path.open("rb") as source:
            self._put(self._named(path), source, path.stat().st_mode & 0o777)

    def _put(self, name: str, source: BinaryIO, mode: int) -> str:
        self._progress(name, 0)
        sha256, size, is_new = self._repository.put(source)
        self._progress(name, size)
        self._now.new_bytes += size if is_new else 0
        self._now.files[name] = BackupFile(path=name, size=size, sha256=sha256, mode=mode)
        return sha256

    def _named(self, path: Path) -> str:
        return path.relative_to(self._folder.root).as_posix()

    def _databases(self) -> int:
        """All databases, and the table's version that belongs to the ledger."""
        version = -1
        for path in sorted(self._folder.root.glob("*.db")):
            for _ in range(LEDGER_TRIES):
                version = newest_version(self._folder.table)
                with _copied(path, self._folder.root / OWN_FOLDER) as copy:
                    steady = newest_version(self._folder.table) == version
                    if steady or path != self._folder.ledger_file:
                        with copy.open("rb") as source:
                            self._put(self._named(path), source, path.stat().st_mode & 0o777)
                        break
            else:
                raise _MovedError
            if path == self._folder.ledger_file:
                ledger_version = version
        has_ledger = self._named(self._folder.ledger_file) in self._now.files
        return ledger_version if has_ledger else newest_version(self._folder.table)

    def _table(self, version: int) -> None:
        """A version of the table; files of another one are left out."""
        prefix = f"{self._named(self._folder.table)}/"
        kept = {k: f for k, f in self._now.files.items() if not k.startswith(prefix)}
        self._now.files = kept
        try:
            self.table = table_version(self._folder.table, version)
            for name in (*self.table.files, *self.table.log_files):
                self._unchanging(self._folder.table / name)
        except FileNotFoundError as error:
            raise _MovedError from error

    def _unchanging(self, path: Path) -> None:
        """A file of the table: what was copied once needs not be read again."""
        name, about = self._named(path), path.stat()
        known = self._known.get(name)
        mark = (about.st_size, about.st_mtime_ns)
        if known is not None and known[:2] == mark and self._repository.has(known[2]):
            mode = about.st_mode & 0o777
            file = BackupFile(path=name, size=mark[0], sha256=known[2], mode=mode)
            self._now.files[name] = file
            return
        with path.open("rb") as source:
            self._known[name] = (*mark, self._put(name, source, about.st_mode & 0o777))
        self._unkept += 1
        if self._unkept >= KNOWN_EVERY:
            self.keep_known()

    def keep_known(self) -> None:
        """Remember what is copied, also of a backup that did not come to its end."""
        if self._unkept:
            write_whole(self._known_path, msgspec.json.encode(self._known), mode=0o600)
            self._unkept = 0

    async def _streams(self, bus: Bus) -> None:
        created_us = 0
        names = await stream_names(bus)
        if SAMPLES_STREAM in names:
            created_us = (await log_info(bus)).created_us
        for name in names:
            saved, size, sha256 = await self._stream(bus, name)
            self._now.streams.append(BackupStream(saved=saved, size=size, sha256=sha256))
            if name == SAMPLES_STREAM:
                about = (self._folder.table, self.table.version, name, created_us)
                self._now.position = await asyncio.to_thread(committed_in, *about)
                if saved.first_sequence > self._now.position + 1:
                    raise _MovedError

    async def _stream(self, bus: Bus, name: str) -> tuple[SavedStream, int, str]:
        """Through a file: the broker gives up on who takes its chunks too slowly."""
        folder = self._folder.root / OWN_FOLDER
        make_folder(folder, 0o700)
        with tempfile.TemporaryFile(dir=folder) as file:
            saved = await save_stream(bus, name, file.write)
            file.seek(0)
            source = cast(BinaryIO, file)
            self._progress(f"stream {name}", 0)
            sha256, size, is_new = await asyncio.to_thread(self._repository.put, source)
            self._progress(f"stream {name}", size)
            self._now.new_bytes += size if is_new else 0
            return saved, size, sha256


@contextlib.contextmanager
def _copied(path: Path, folder: Path) -> Iterator[Path]:
    """A consistent copy of an SQLite database that others write, gone at the end of the block."""
    make_folder(folder, 0o700)
    place = Path(tempfile.mkdtemp(dir=folder))
    copy = place / path.name
    try:
        source = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)
        target = sqlite3.connect(copy)
        with contextlib.closing(source), contextlib.closing(target):
            source.backup(target)
        yield copy
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _site_mark(folder: DataFolder) -> str:
    """Changes when a site file does."""
    digest = hashlib.sha256()
    for path in sorted(folder.root.glob("site*.toml")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _read_known(path: Path) -> dict[str, tuple[int, int, str]]:
    """What is known to be copied; a damaged file only costs time."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, tuple[int, int, str]])
    except (OSError, *UNREADABLE):
        return {}
