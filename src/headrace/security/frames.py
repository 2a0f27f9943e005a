"""Frames of samples that only the holder of a tenant's key reads.

::

    "HRE1" | key name (8) | nonce (12) | AES-256-GCM ciphertext and tag      bound to the frame's subject

The key lies in a file on the edge and with its holder, ``keys/protection/<name>.key`` (mode 600); it goes into
no vault and over no bus. Nonces are drawn: with 96 bits a key is good for 2**32 frames (NIST SP 800-38D,
8.3), which is more than thirteen years of ten frames a second.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from headrace.model.errors import Corrupt, Misconfigured, Refused
from headrace.model.ids import check_name
from headrace.security.sealing import create_once

MARK: Final = b"HRE1"
KEY_BYTES: Final = 32
NAME_BYTES: Final = 8
NONCE_BYTES: Final = 12


class FrameKey:
    """A tenant's key.

    Example:
        >>> key = FrameKey(bytes(32))
        >>> key.open(key.seal(b"samples", "v1.acme.mill.sealed.local.plc"), "v1.acme.mill.sealed.local.plc")
        b'samples'
    """

    def __init__(self, raw: bytes) -> None:
        self._cipher = AESGCM(raw)
        self.name = hashlib.sha256(b"headrace frame key\0" + raw).digest()[:NAME_BYTES]

    def seal(self, body: bytes, subject: str) -> bytes:
        """An encrypted frame."""
        nonce = os.urandom(NONCE_BYTES)
        head = MARK + self.name + nonce
        return head + self._cipher.encrypt(nonce, body, MARK + self.name + subject.encode())

    def open(self, frame: bytes, subject: str) -> bytes:
        """What was encrypted.

        Raises:
            Refused: SEC-1531 when it was encrypted with another key.
            Corrupt: SEC-1530 when it is no frame, of another subject, or was changed.
        """
        start = len(MARK) + NAME_BYTES
        if not frame.startswith(MARK) or len(frame) < start + NONCE_BYTES:
            raise _damaged(subject)
        if frame[len(MARK) : start] != self.name:
            raise Refused(
                "SEC-1531",
                f"a frame on {subject} was encrypted with the key {frame[len(MARK) : start].hex()},"
                f" and this one is {self.name.hex()}",
                "Give the key of the edge that wrote it.",
            )
        nonce, body = frame[start : start + NONCE_BYTES], frame[start + NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, body, MARK + self.name + subject.encode())
        except InvalidTag as error:
            raise _damaged(subject) from error


def _damaged(subject: str) -> Corrupt:
    return Corrupt("SEC-1530", f"an encrypted frame on {subject} was changed or damaged")


def key_path(keys: Path, name: str) -> Path:
    """Where the key ``name`` lies below the data folder's ``keys``."""
    return keys / "protection" / f"{check_name(name, 'key')}.key"


def load_frame_key(keys: Path, name: str) -> FrameKey:
    """A key of this machine.

    Raises:
        Misconfigured: SEC-1532 when it is not there or is no key.
    """
    path = key_path(keys, name)
    try:
        return FrameKey(_raw(path.read_text("ascii")))
    except (OSError, ValueError) as error:
        raise Misconfigured(
            "SEC-1532",
            f"the protection key {name} is not on this machine, or is damaged",
            f"Make it here: headrace protection new-key {name}; or bring it: import-key",
        ) from error


def make_frame_key(keys: Path, name: str, text: str = "") -> FrameKey:
    """Put a key down on this machine: a fresh one, or the one of ``text``.

    Raises:
        Refused: SEC-1533 when there is another one of this name.
        Misconfigured: SEC-1532 when the text is no key.
    """
    if text:
        try:
            _raw(text)
        except ValueError as error:
            raise Misconfigured(
                "SEC-1532", "this is no protection key: 32 bytes in base64 are needed", ""
            ) from error
    wanted = text.strip() or base64.b64encode(os.urandom(KEY_BYTES)).decode()
    path = key_path(keys, name)
    if path.exists() and path.read_text("ascii").strip() != wanted:
        raise Refused(
            "SEC-1533",
            f"there is a protection key {name} on this machine already",
            "Choose another name: what was encrypted with the present one needs it.",
        )
    create_once(path, wanted.encode() + b"\n")
    return load_frame_key(keys, name)


def _raw(text: str) -> bytes:
    try:
        raw = base64.b64decode(text.strip(), validate=True)
    except binascii.Error as error:
        raise ValueError("no base64") from error
    if len(raw) != KEY_BYTES:
        raise ValueError("not 32 bytes")
    return raw
