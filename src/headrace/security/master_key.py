"""Where the key comes from that opens the vault: environment, file or the system's keyring.

In this order: ``HEADRACE_KEY`` (the key itself), ``HEADRACE_KEY_FILE`` (a file), ``[secrets] keyring = "NAME"``
in ``headrace.toml`` (an entry of the system's keyring), else ``<data>/keys/master.key``, mode 600, which is
made at the first need. A key is 32 bytes, written in URL-safe base64.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from headrace.model.errors import Misconfigured, Refused
from headrace.model.folder import DataFolder
from headrace.security.files import write_whole
from headrace.security.sealing import create_once
from headrace.security.settings import load_settings

KEY_VARIABLE: Final = "HEADRACE_KEY"
NEXT_VARIABLE: Final = "HEADRACE_KEY_NEXT"
FILE_VARIABLE: Final = "HEADRACE_KEY_FILE"
KEY_BYTES: Final = 32
_ENTRY: Final = "master key"
_REMEDY: Final = "Make one with: headrace secret new-key"


@dataclass(frozen=True)
class MasterKey:
    """A key and its name, by which the vault tells which one it needs; the name betrays nothing."""

    raw: bytes

    @property
    def name(self) -> str:
        return hashlib.sha256(b"headrace master key name\0" + self.raw).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"MasterKey({self.name})"


def new_key() -> str:
    """A fresh key as text."""
    return base64.urlsafe_b64encode(os.urandom(KEY_BYTES)).decode()


def read_key(text: str, whence: str) -> MasterKey:
    """The key of a text.

    Args:
        whence: what it was read from, for the error; the text itself is never shown.

    Raises:
        Misconfigured: SEC-1501 when it is none.
    """
    try:
        raw = base64.urlsafe_b64decode(text.strip().encode("ascii"))
    except (ValueError, binascii.Error):
        raw = b""
    if len(raw) != KEY_BYTES:
        raise Misconfigured(
            "SEC-1501", f"{whence} holds no master key: 32 bytes in base64 are needed", _REMEDY
        )
    return MasterKey(raw)


class KeySource:
    """The place of an installation's master key.

    Args:
        folder: the data folder.

    Raises:
        Misconfigured: SEC-1201 when ``headrace.toml`` cannot be used.
    """

    def __init__(self, folder: DataFolder) -> None:
        self._file = folder.root / "keys" / "master.key"
        self._is_own_file = True
        self._service = ""
        if os.environ.get(KEY_VARIABLE):
            self.kind = "environment"
        elif os.environ.get(FILE_VARIABLE):
            self.kind, self._file = "file", Path(os.environ[FILE_VARIABLE])
            self._is_own_file = False
        elif service := load_settings(folder).secrets.keyring:
            self.kind, self._service = "keyring", service
        else:
            self.kind = "file"

    @property
    def place(self) -> str:
        """Where the key is, for people."""
        if self.kind == "environment":
            return f"the variable {KEY_VARIABLE}"
        if self.kind == "keyring":
            return f"the keyring entry {self._service}"
        return str(self._file)

    def load(self, *, next_one: bool = False) -> MasterKey | None:
        """The key; None when there is none. ``next_one``: the one that a rotation is about to use.

        Raises:
            Misconfigured: SEC-1501 when what is there is no key, SEC-1505 when there is no keyring.
            Refused: SEC-1504 when others may read the key's file.
        """
        if self.kind == "environment":
            text = os.environ.get(NEXT_VARIABLE if next_one else KEY_VARIABLE, "")
            return read_key(text, self.place) if text else None
        if self.kind == "keyring":
            entry = _ENTRY + (" next" if next_one else "")
            text = _keyring(lambda ring: ring.get_password(self._service, entry)) or ""
            return read_key(text, self.place) if text else None
        path = self._next_file if next_one else self._file
        try:
            self._check_mode(path)
            return read_key(path.read_text("utf-8"), str(path))
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise Misconfigured(
                "SEC-1501", f"the master key {path} cannot be read", "Make it readable for us."
            ) from error

    def make(self) -> MasterKey:
        """The key, made when there is none.

        Raises:
            Misconfigured: SEC-1501, SEC-1502 when a key can only be given, SEC-1505.
            Refused: SEC-1504.
        """
        found = self.load()
        if found is not None:
            return found
        if self.kind == "keyring":
            self._put(new_key(), _ENTRY)
        elif self._is_own_file:
            create_once(self._file, new_key().encode() + b"\n")
        else:
            raise Misconfigured("SEC-1502", f"there is no master key in {self._file}", _REMEDY)
        made = self.load()
        assert made is not None  # it was written a moment ago
        return made

    def prepare_next(self) -> MasterKey:
        """The key that is to follow, kept durably beside the present one before anything depends on it.

        Raises:
            Misconfigured: SEC-1506 when the key is in the environment and its successor is not.
        """
        found = self.load(next_one=True)
        if found is not None:
            return found
        if self.kind == "environment":
            raise Misconfigured(
                "SEC-1506",
                f"the key is in {KEY_VARIABLE}, so the one to follow must be given too",
                f"Set {NEXT_VARIABLE} (headrace secret new-key), rotate, then move it to {KEY_VARIABLE}.",
            )
        text = new_key()
        if self.kind == "keyring":
            self._put(text, f"{_ENTRY} next")
        else:
            write_whole(self._next_file, text.encode() + b"\n", mode=0o600)
        return read_key(text, self.place)

    def adopt_next(self) -> None:
        """Let the key that was to follow take the place of the present one; the old one is gone."""
        if self.kind == "keyring":
            text = _keyring(lambda ring: ring.get_password(self._service, f"{_ENTRY} next"))
            if text:
                self._put(text, _ENTRY)
                _keyring(lambda ring: ring.delete_password(self._service, f"{_ENTRY} next"))
        elif self.kind == "file" and self._next_file.exists():
            write_whole(self._file, self._next_file.read_bytes(), mode=0o600)
            self._next_file.unlink()

    @property
    def _next_file(self) -> Path:
        return self._file.with_name(f"{self._file.name}.next")

    def _check_mode(self, path: Path) -> None:
        mode = stat.S_IMODE(path.stat().st_mode)
        if self._is_own_file and mode & 0o077:
            raise Refused(
                "SEC-1504",
                f"others may read the master key: {path} has mode {mode:o}",
                f"chmod 600 {path}, then: headrace secret rotate",
            )

    def _put(self, text: str, entry: str) -> None:
        _keyring(lambda ring: ring.set_password(self._service, entry, text))


def _keyring(use: Any) -> Any:
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError as error:
        raise Misconfigured(
            "SEC-1505", "the keyring library is not installed", "pip install 'headrace[keyring]'"
        ) from error
    try:
        return use(keyring)
    except KeyringError as error:
        raise Misconfigured(
            "SEC-1505",
            f"the system's keyring cannot be used: {type(error).__name__}",
            f"Unlock it, or give the key in a file: {FILE_VARIABLE}.",
        ) from error
