"""A private key that a command is given as a file."""

from __future__ import annotations

from pathlib import Path

from headrace.model.errors import Misconfigured


def read_key(file: Path | None) -> bytes | None:
    """A private key from its file.

    Raises:
        Misconfigured: CLI-1904 when it cannot be read.
    """
    if file is None:
        return None
    try:
        return file.read_bytes()
    except OSError as error:
        raise Misconfigured(
            "CLI-1904", f"the key {file} cannot be read: {error.strerror}", "headrace app key FILE"
        ) from error
