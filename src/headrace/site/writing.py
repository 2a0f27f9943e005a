"""Writes the site file and its tag files: one file or several, whole or not at all, and keeps versions.

Several files are written with a redo journal: all new contents go to ``site.versions/pending.zip``
first, then over the files, then the journal goes. Whoever next takes the lock finishes what a crash
left. An accepted version is one zip of the site file and its tag files.
"""

from __future__ import annotations

import fcntl
import io
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.security.files import make_folder

VERSIONS_MAX: Final = 100
_PENDING: Final = "pending.zip"


class Version(msgspec.Struct, frozen=True):
    """One accepted version of the site file; ``number`` counts up, ``path`` is its zip."""

    number: int
    accepted_us: int
    path: Path


@contextmanager
def site_lock(folder: DataFolder) -> Iterator[None]:
    """Hold the site files: nobody else of ours reads or writes them meanwhile; finishes a journal."""
    make_folder(folder.site_versions)
    with (folder.site_versions / "lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        _finish(folder)
        yield


def write_files(folder: DataFolder, contents: Mapping[str, bytes]) -> None:
    """Write files of the site, all or none, also when the machine stops meanwhile.

    Args:
        contents: name relative to the data folder -> content. Call it with :func:`site_lock` held.
    """
    _write_atomically(folder.site_versions / _PENDING, _zip(contents))
    _finish(folder)


def _finish(folder: DataFolder) -> None:
    journal = folder.site_versions / _PENDING
    if not journal.exists():
        return
    for name, content in _unzip(journal).items():
        target = folder.root / name
        make_folder(target.parent)
        _write_atomically(target, content)
    journal.unlink()
    _sync_folder(journal.parent)


def _write_atomically(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    if path.exists():
        temporary.chmod(path.stat().st_mode & 0o777)
    temporary.replace(path)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _zip(contents: Mapping[str, bytes]) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(contents):
            archive.writestr(zipfile.ZipInfo(name), contents[name], zipfile.ZIP_DEFLATED)
    return body.getvalue()


def _unzip(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def versions(folder: DataFolder) -> list[Version]:
    """Accepted versions, oldest first."""
    found = []
    for path in folder.site_versions.glob("*-*.zip"):
        number, _, accepted_us = path.stem.partition("-")
        if number.isdigit() and accepted_us.isdigit():
            found.append(Version(int(number), int(accepted_us), path))
    return sorted(found, key=lambda version: version.number)


def read_version(version: Version) -> dict[str, bytes]:
    """Name -> content of the files of a version.

    Raises:
        Misconfigured: SITE-1201 when its zip is damaged or gone.
    """
    try:
        return _unzip(version.path)
    except (OSError, zipfile.BadZipFile) as error:
        raise Misconfigured(
            "SITE-1201",
            f"version {version.number} of the site file cannot be read",
            "Choose another: headrace site undo --list",
        ) from error


def save_version(folder: DataFolder, contents: Mapping[str, bytes], now_us: int) -> Version | None:
    """Keep an accepted version; None when it equals the newest. Older than the last 100 are removed."""
    make_folder(folder.site_versions)
    known = versions(folder)
    if known and _equals(known[-1], contents):
        return None
    number = known[-1].number + 1 if known else 1
    version = Version(number, now_us, folder.site_versions / f"{number:06d}-{now_us}.zip")
    _write_atomically(version.path, _zip(contents))
    for old in known[: max(0, len(known) + 1 - VERSIONS_MAX)]:
        old.path.unlink(missing_ok=True)
    return version


def rewrite_versions(folder: DataFolder, replacements: Mapping[bytes, bytes]) -> int:
    """Replace texts in all kept versions, each version whole or not at all; gives how many were changed.

    For what must not be kept: secrets that once stood in the site file in clear.
    """
    changed = 0
    with site_lock(folder):
        for version in versions(folder):
            contents = read_version(version)
            after = dict(contents)
            for name, content in contents.items():
                for old, new in replacements.items():
                    content = content.replace(old, new)
                after[name] = content
            if after != contents:
                _write_atomically(version.path, _zip(after))
                changed += 1
    return changed


def _equals(version: Version, contents: Mapping[str, bytes]) -> bool:
    try:
        return read_version(version) == dict(contents)
    except Misconfigured:
        return False
