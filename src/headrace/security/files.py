"""Small files that are there, whole and with their names, when a call has returned: also after a power cut.

POSIX keeps a file's content with fsync of the file, and its name with fsync of the folder alone. A file is
written beside its place, synced, renamed over it, and its folder is synced.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.model.errors import Refused


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable.

    Raises:
        OSError: what the file system refuses.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path, mode: int = 0o777) -> None:
    """Make a folder, and those above it, durably; does nothing when it is there.

    Args:
        mode: of the folder itself, less the umask; those above it get the default.

    Raises:
        OSError: what the file system refuses.
    """
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(mode, exist_ok=True)
    sync_folder(path.parent)


def write_whole(path: Path, content: bytes, *, mode: int) -> None:
    """Write a file durably, whole or not at all; its folder is made when it is not there.

    Args:
        mode: of the file, from its first moment on: ``0o600`` for this user only.

    Raises:
        OSError: what the file system refuses; the file is then what it was.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_whole(Path(folder) / "own" / "key", b"secret", mode=0o600)
        ...     (Path(folder) / "own" / "key").read_bytes()
        b'secret'
    """
    make_folder(path.parent)
    mine = f"{os.getpid()}-{threading.get_ident()}"  # others may write it too
    temporary = path.with_name(f"{path.name}.{mine}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    move(temporary, path)


def move(path: Path, target: Path) -> None:
    """Rename a synced file durably, over what is there.

    Raises:
        OSError: what the file system refuses.
    """
    path.replace(target)
    sync_folder(target.parent)
    if path.parent != target.parent:
        sync_folder(path.parent)


@contextmanager
def hold_lock(path: Path, refused: Refused, *, shared: bool = False) -> Iterator[int]:
    """Hold a lock file; the system lets it go when the process ends in any way.

    Args:
        path: of the file, in a folder that is there.
        refused: raised when another process holds it.
        shared: let others hold it too who share it.

    Yields:
        The descriptor of the file.

    Raises:
        OSError: what the file system refuses.

    Example:
        >>> import tempfile
        >>> refused = Refused("APPS-1001", "another one runs", "Stop it.")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with hold_lock(Path(folder) / "a.lock", refused), hold_lock(Path(folder) / "b.lock", refused):
        ...         print("both")
        both
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise refused from error
        yield descriptor
    finally:
        os.close(descriptor)
