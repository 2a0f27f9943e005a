"""The packages of this installation: each version once, by hash, with an index that people choose from.

::

    packages/index.json               CatalogEntry of each
    packages/seal-watch-1.2.0.hrapp   as it came
    packages/publishers.json          whose count
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from headrace.apps.catalog.entries import CatalogEntry, entry_of
from headrace.apps.package import Package, Trust, in_range, newest, read_package
from headrace.apps.package.versions import platform_version
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Corrupt, Misconfigured, Refused
from headrace.model.folder import DataFolder
from headrace.security.files import sync_folder, write_whole
from headrace.security.shared_files import SharedFiles
from headrace.site.app_package import FOLDER
from headrace.site.notes import near

INDEX: Final = "index.json"
ENTRIES_MAX: Final = 5_000
Available = Mapping[str, Sequence[str]]
"""Package -> its versions that can be had."""


class Registry:
    """The packages of a data folder."""

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder.packages
        self._files = SharedFiles(folder, FOLDER)

    def entries(self) -> list[CatalogEntry]:
        """All versions of all packages, by id and version.

        Raises:
            Corrupt: APPS-2043 when the index cannot be read.
        """
        try:
            content = (self._folder / INDEX).read_bytes()
            found = msgspec.json.decode(content, type=list[CatalogEntry])
        except FileNotFoundError:
            return []
        except (OSError, *UNREADABLE) as error:
            raise Corrupt(
                "APPS-2043",
                f"the index of packages cannot be read: {error}",
                f"Take {self._folder / INDEX} away and add the packages again.",
            ) from error
        return sorted(found, key=lambda each: (each.id, each.numbers))

    def find(self, name: str, version: str = "") -> CatalogEntry:
        """A version of a package; without one the newest.

        Raises:
            Misconfigured: APPS-2044 when there is none.
        """
        entries = self.entries()
        of_id = [each for each in entries if each.id == name]
        found = [each for each in of_id if version in ("", each.version)]
        if not found:
            what = f"there is no package {name}" + (f" {version}" if version else "")
            known = [each.version for each in of_id] or {each.id for each in entries}
            remedy = near(version if of_id else name, known) or "See: headrace app list"
            raise Misconfigured("APPS-2044", what, remedy)
        return found[-1]

    def read(self, name: str, version: str = "", trust: Trust | None = None) -> Package:
        """A package; its file must be the one that was added.

        Raises:
            Misconfigured: APPS-2044 when there is none.
            Corrupt: APPS-2045 when the file is not the one that was added.
            HeadraceError: what :func:`headrace.apps.package.read_package` raises.
        """
        return self.open(self.find(name, version), trust)

    def open(self, entry: CatalogEntry, trust: Trust | None = None) -> Package:
        """The package of an entry; see :meth:`read`."""
        path = self.path(entry)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise _not_the_one(path) from error
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise _not_the_one(path)
        return read_package(content, trust)

    def path(self, entry: CatalogEntry) -> Path:
        """Where the file of an entry lies."""
        return self._folder / entry.file_name

    def add(self, package: Package) -> CatalogEntry:
        """Keep a package that was read with the trust of this installation.

        Raises:
            Refused: APPS-2046 when this version is there with other content; versions are never changed.
        """
        entry = entry_of(package)
        with self._writing() as entries:
            same = [
                each for each in entries if (each.id, each.version) == (entry.id, entry.version)
            ]
            if same and same[0].sha256 != entry.sha256:
                raise Refused(
                    "APPS-2046",
                    f"{entry.id} {entry.version} is there already, with other content",
                    "Give what changed a new version.",
                )
            if len(entries) >= ENTRIES_MAX and not same:
                raise Refused(
                    "APPS-2041", f"there are {ENTRIES_MAX} packages", "Remove old versions."
                )
            write_whole(self.path(entry), package.content, mode=0o644)
            if not same:
                entries.append(entry)
        return entry

    def remove(self, name: str, version: str) -> None:
        """Take a version out; whoever asks has looked whether it is used.

        Raises:
            Misconfigured: APPS-2044 when there is none.
        """
        entry = self.find(name, version)
        with self._writing() as entries:
            entries[:] = [each for each in entries if each.sha256 != entry.sha256]
            self._write(entries)  # first: what is not listed does not count
            self.path(entry).unlink(missing_ok=True)
            sync_folder(self._folder)

    def versions(self) -> dict[str, list[str]]:
        """Package -> its versions."""
        found: dict[str, list[str]] = {}
        for entry in self.entries():
            found.setdefault(entry.id, []).append(entry.version)
        return found

    @contextmanager
    def _writing(self) -> Iterator[list[CatalogEntry]]:
        with self._files.changing():
            entries = self.entries()
            before = list(entries)
            yield entries
            if entries != before:
                self._write(entries)

    def _write(self, entries: list[CatalogEntry]) -> None:
        content = msgspec.json.format(msgspec.json.encode(entries), indent=1)
        write_whole(self._folder / INDEX, content, mode=0o644)


def check_needs(entry: CatalogEntry, available: Available, platform: str) -> None:
    """Pass when a package can run here: the platform's version, other packages, asset types.

    A package of asset types that is not here at all does not stop an app: a plant may bind types of its
    own. One that is here in other versions only does: what the app calls flow may mean something else.

    Args:
        available: what is here, built-in asset types too. platform: version of this Headrace.

    Raises:
        Refused: APPS-2048 for the platform's version; APPS-2049 with all packages that are lacking.
    """
    if not in_range(platform_version(platform), entry.headrace):
        raise Refused(
            "APPS-2048",
            f"{entry.id} {entry.version} runs on Headrace {entry.headrace}, and this is {platform}",
            "Take another version of the app, or upgrade Headrace.",
        )
    lacking = []
    for name, text in sorted({**entry.types, **entry.requires}.items()):
        if name not in available and name not in entry.requires:
            continue
        if newest(available.get(name, ()), text) is None:
            have = ", ".join(available.get(name, ())) or "none"
            lacking.append(f"{name} {text or 'of any version'} (here: {have})")
    if lacking:
        raise Refused(
            "APPS-2049",
            f"{entry.id} {entry.version} needs {'; '.join(lacking)}",
            "Install these first: headrace app install FILE",
        )


def _not_the_one(path: Path) -> Corrupt:
    return Corrupt(
        "APPS-2045",
        f"{path} is not the package that was added",
        "Add it again: headrace app install FILE",
    )
