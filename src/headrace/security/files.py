"""Small files that are there, whole and with their names, when a call has returned: also after a power cut.

POSIX keeps a file's content with fsync of the file, and its name with fsync of the folder alone. A file is
written beside its place, synced, renamed over it, and its folder is synced.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path


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
