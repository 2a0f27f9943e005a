"""One site file for several consoles on machines of their own.

The bus holds the files that all agreed on, under ``site_files`` of the bucket ``desired``, with a number that
counts up. Each console brings its folder in step with them once a second::

    nothing changed here   ── the bus has newer ──► its files are written here
    changed here, checked  ── the bus is as it was ──► ours go to the bus (compare-and-set)
    changed here and there ── theirs are written; ours are kept beside them, and that is said
    the bus is older than what was agreed (restored from a backup) ──► ours go to the bus

A file here that has problems stays here until it is mended.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from headrace.bus.broker import write_private
from headrace.bus.client import Bus
from headrace.bus.subjects import DESIRED_BUCKET
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Corrupt
from headrace.model.folder import DataFolder
from headrace.model.time import Clock
from headrace.security.files import make_folder
from headrace.site.file import SiteFiles, check_site
from headrace.site.writing import site_lock, write_files

FILES_KEY: Final = "site_files"


class AgreedFiles(msgspec.Struct, kw_only=True):
    """The site's files as all consoles have them; ``number`` counts every change."""

    number: int
    content_hash: str
    files: dict[str, bytes]


class SharedSite:
    """One folder's side.

    Args:
        folder: the data folder with ``site.toml``.
        bus: open.
    """

    def __init__(self, folder: DataFolder, bus: Bus, clock: Clock) -> None:
        self._folder = folder
        self._bus = bus
        self._clock = clock
        self._state = folder.run / "agreed_site.json"
        self._names: tuple[str, ...] = ("site.toml",)
        self._stamp: tuple[Any, ...] = ()
        self._here: tuple[str, dict[str, bytes], bool] = ("", {}, False)
        self.conflicts: list[Path] = []

    async def step(self) -> bool:
        """Bring both in step; True when this folder has what all agreed on, or a file with problems,
        which its keeper refuses and reports.

        Raises:
            Transient: when the bus is away. Refused: BUS-1028 when the files are too long for it.
            Corrupt: SITE-1203 when what the bus holds is no site.
        """
        content_hash, files, has_problems = self._read()
        if has_problems:
            return True
        entry = await self._bus.entry(DESIRED_BUCKET, FILES_KEY)
        agreed = _decode(entry[0]) if entry is not None else None
        revision = entry[1] if entry is not None else 0
        number, known_hash = self._known()
        if agreed is not None and agreed.content_hash == content_hash:
            self._remember(max(agreed.number, number), content_hash)
            return True
        is_older = agreed is None or agreed.number < number
        if is_older or (agreed is not None and agreed.content_hash == known_hash):
            last = max(number, agreed.number if agreed is not None else 0)
            ours = AgreedFiles(number=last + 1, content_hash=content_hash, files=files)
            raw = msgspec.json.encode(ours)
            if not await self._bus.put_after(DESIRED_BUCKET, FILES_KEY, raw, revision):
                return False  # another one was faster; look again
            self._remember(ours.number, content_hash)
            return True
        assert agreed is not None  # else ours went there
        if content_hash != known_hash and files:
            self._put_aside(files)
        self._take(agreed)
        return True

    def _read(self) -> tuple[str, dict[str, bytes], bool]:
        """(hash, files, has problems) of what is here; read again when a file changed."""
        stamp = self._stamp_now()
        if stamp != self._stamp:
            with site_lock(self._folder):
                stamp = self._stamp_now()
                files = SiteFiles(self._folder.site_file)
                model, _ = check_site(files)
            known = self._names
            self._names = tuple(files.named) or ("site.toml",)
            self._here = (files.content_hash(), dict(files.read), model is None)
            self._stamp = stamp if known == self._names else ()
        return self._here

    def _stamp_now(self) -> tuple[Any, ...]:
        found = []
        for name in self._names:
            try:
                stat = (self._folder.root / name).stat()
                found.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
            except OSError:
                found.append((0, 0, 0))
        return tuple(found)

    def _known(self) -> tuple[int, str]:
        """(number, hash) of what was agreed on when this folder last was in step."""
        try:
            number, content_hash = json.loads(self._state.read_text())
        except (OSError, ValueError):
            return 0, ""
        return int(number), str(content_hash)

    def _remember(self, number: int, content_hash: str) -> None:
        if self._known() != (number, content_hash):
            make_folder(self._state.parent, 0o700)
            write_private(self._state, json.dumps([number, content_hash]))

    def _take(self, agreed: AgreedFiles) -> None:
        with site_lock(self._folder):
            write_files(self._folder, agreed.files)
        self._remember(agreed.number, agreed.content_hash)
        self._stamp = ()

    def _put_aside(self, files: Mapping[str, bytes]) -> None:
        place = self._folder.site_versions / f"conflict-{self._clock.now_us()}"
        for name, content in files.items():
            make_folder((place / name).parent)
            (place / name).write_bytes(content)
        self.conflicts.append(place)


def _decode(raw: bytes) -> AgreedFiles:
    try:
        agreed = msgspec.json.decode(raw, type=AgreedFiles)
    except UNREADABLE as error:
        raise Corrupt("SITE-1203", f"what the bus holds as site files is none: {error}") from error
    if any(Path(name).is_absolute() or ".." in Path(name).parts for name in agreed.files):
        raise Corrupt("SITE-1203", "the site files on the bus have names outside the data folder")
    return agreed
