"""A folder of files that consoles on machines of their own have in common, by their shared metadata.

The database holds each file with its SHA-256; a machine brings its folder in step before it changes something,
and each second. A change is taken only when the database is still what the folder was brought in step with:
of two at once the first counts, and the second is told to try again. A file is checked against its SHA-256
before it is written; what a machine had alone goes to ``.aside`` in the folder. Without shared metadata the
folder is all there is, and only its lock counts.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy import Column, LargeBinary, Table, delete, insert, select
from sqlalchemy.engine import Connection, Engine

from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Corrupt, Refused
from headrace.model.folder import DataFolder
from headrace.security.database import TABLES, is_shared, words, writing
from headrace.security.files import make_folder, write_whole
from headrace.security.identity import open_metadata

_FILES = Table(
    "shared_file",
    TABLES,
    Column("name", words(200), primary_key=True),
    Column("sha256", words(64), nullable=False),
    Column("content", LargeBinary, nullable=False),
)
FASTER: Final = "SEC-1760"
"""Code of the error that another machine was faster."""
LOCK: Final = ".lock"
IN_STEP: Final = ".in_step.json"
ASIDE: Final = ".aside"
Stamp = tuple[int, int, int]


class SharedFiles:
    """The files of one folder of an installation.

    Args:
        folder: of the installation. name: of the folder below it; it has no folders of its own.
    """

    def __init__(self, folder: DataFolder, name: str) -> None:
        self._installation = folder
        self._folder = folder.root / name
        self._prefix = f"{name}/"
        self._known: dict[str, tuple[Stamp, str]] = {}
        self._engine: Engine | None = None

    def close(self) -> None:
        """Let go of the database; :meth:`step` opens it again."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the folder, in step with the others, for a change; then give the change to them.

        Raises:
            Transient: SEC-1202 when a shared database does not answer; nothing was begun.
            Refused: SEC-1760 when another machine was faster; the folder is in step with it again.
            Corrupt: SEC-1761 when the database holds a file that is not what it says.
        """
        with self._held():
            if not is_shared(self._installation):
                yield
                return
            engine = open_metadata(self._installation)
            try:
                before = self._pull(engine)
                yield
                if not self._push(engine, before):
                    self._pull(engine)
                    raise Refused(
                        "SEC-1760",
                        f"another machine changed {self._prefix} at the same time, and was first",
                        "Look at what it did, and try again.",
                    )
            except BaseException:
                self._pull(engine)  # what was written here alone counts nowhere
                raise
            finally:
                engine.dispose()

    def step(self) -> None:
        """Bring the folder in step with what all have; does nothing where it is the only one.

        Raises:
            HeadraceError: what :meth:`changing` raises.
        """
        if is_shared(self._installation):
            self._engine = self._engine or open_metadata(self._installation)
            with self._held():
                self._pull(self._engine)

    @contextmanager
    def _held(self) -> Iterator[None]:
        make_folder(self._folder)
        with (self._folder / LOCK).open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _pull(self, engine: Engine) -> dict[str, str]:
        """Name -> SHA-256 as all have it; the first machine brings what it has."""
        with engine.connect() as connection:
            there = self._there(connection)
        here, last = self._here(), self._last()
        if not there and here and self._push(engine, there):
            return here
        for name in sorted(there.keys() | here.keys()):
            if here.get(name) == there.get(name):
                continue
            if name in here and here[name] != last.get(name):
                self._put_aside(name)
            if name in there:
                self._fetch(engine, name)
            else:
                (self._folder / name).unlink(missing_ok=True)
        if there != last:
            write_whole(self._folder / IN_STEP, msgspec.json.encode(there), mode=0o644)
        return there

    def _last(self) -> dict[str, str]:
        """What all had when this folder was in step last; what differs from it was made here alone."""
        with contextlib.suppress(FileNotFoundError, *UNREADABLE):
            return msgspec.json.decode((self._folder / IN_STEP).read_bytes(), type=dict[str, str])
        return {}

    def _put_aside(self, name: str) -> None:
        make_folder(self._folder / ASIDE)
        (self._folder / name).replace(self._folder / ASIDE / name)

    def _fetch(self, engine: Engine, name: str) -> None:
        row = select(_FILES.c.content, _FILES.c.sha256).where(_FILES.c.name == self._prefix + name)
        with engine.connect() as connection:
            found = connection.execute(row).first()
        if found is None:
            return  # it went a moment ago; the next look sees it
        if "/" in name or name.startswith(".") or _sha256(found.content) != found.sha256:
            raise Corrupt(
                "SEC-1761",
                f"the file {self._prefix}{name[:80]} of the shared metadata is not what it says to be",
                "Restore the metadata database from a backup.",
            )
        write_whole(self._folder / name, found.content, mode=0o644)

    def _push(self, engine: Engine, before: dict[str, str]) -> bool:
        here = self._here()
        if here == before:
            return True
        with writing(engine) as connection:
            if self._there(connection) != before:
                return False
            for name in before.keys() | here.keys():
                if before.get(name) != here.get(name):
                    full = self._prefix + name
                    connection.execute(delete(_FILES).where(_FILES.c.name == full))
                    if name in here:
                        content = (self._folder / name).read_bytes()
                        values = {"name": full, "sha256": here[name], "content": content}
                        connection.execute(insert(_FILES).values(values))
        write_whole(self._folder / IN_STEP, msgspec.json.encode(here), mode=0o644)
        return True

    def _there(self, connection: Connection) -> dict[str, str]:
        rows = select(_FILES.c.name, _FILES.c.sha256).where(
            _FILES.c.name.startswith(self._prefix, autoescape=True)
        )
        return {row.name[len(self._prefix) :]: row.sha256 for row in connection.execute(rows)}

    def _here(self) -> dict[str, str]:
        found = {}
        for path in sorted(self._folder.iterdir()):
            if path.is_file() and not path.name.startswith(".") and path.suffix != ".new":
                found[path.name] = self._sha256_of(path)
        return found

    def _sha256_of(self, path: Path) -> str:
        stat = path.stat()
        stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        known = self._known.get(path.name)
        if known is None or known[0] != stamp:
            known = self._known[path.name] = (stamp, _sha256(path.read_bytes()))
        return known[1]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
