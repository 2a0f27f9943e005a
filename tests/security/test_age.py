"""Sealing: what goes in comes out, any change is found, and the disk's own word is not hidden."""

from __future__ import annotations

import errno
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model.errors import Corrupt, Misconfigured, Refused
from headrace.security.age import (
    HashingReader,
    HashingWriter,
    check_recipient,
    lock,
    new_identity,
    recipient_of,
    seal,
    unlock,
    unseal,
)

IDENTITY, RECIPIENT = new_identity()


def sealed(content: bytes) -> bytes:
    target = io.BytesIO()
    seal(HashingReader(io.BytesIO(content)), target, RECIPIENT)
    return target.getvalue()


def opened(content: bytes, identity: str = IDENTITY) -> bytes:
    target = io.BytesIO()
    unseal(io.BytesIO(content), HashingWriter(target), identity, "it")
    return target.getvalue()


@settings(max_examples=40, deadline=None)
@given(content=st.binary(max_size=200_000), place=st.floats(0, 1), bit=st.integers(0, 7))
def test_any_change_of_what_is_sealed_is_found(content: bytes, place: float, bit: int) -> None:
    whole = sealed(content)
    assert opened(whole) == content
    broken = bytearray(whole)
    broken[min(int(place * len(whole)), len(whole) - 1)] ^= 1 << bit
    with pytest.raises((Corrupt, Refused)):
        opened(bytes(broken))
    with pytest.raises((Corrupt, Refused)):
        opened(whole[:-1])


def test_another_key_opens_nothing() -> None:
    with pytest.raises(Refused, match="SEC-1711"):
        opened(sealed(b"x"), new_identity()[0])
    locked = lock(IDENTITY, "a long passphrase")
    assert unlock(locked, "a long passphrase") == IDENTITY
    with pytest.raises(Refused, match="SEC-1711"):
        unlock(locked, "another passphrase")
    assert recipient_of(IDENTITY) == RECIPIENT
    for wrong in ("", "age1x", IDENTITY):
        with pytest.raises(Misconfigured, match="SEC-1710"):
            check_recipient(wrong)


class FullDisk(io.BytesIO):
    def write(self, content: object) -> int:
        raise OSError(errno.ENOSPC, "no space")


def test_a_full_disk_says_so_on_both_ways() -> None:
    with pytest.raises(OSError, match="no space") as told:
        seal(HashingReader(io.BytesIO(b"x" * 200_000)), FullDisk(), RECIPIENT)
    assert told.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match="no space") as told:
        unseal(io.BytesIO(sealed(b"x" * 200_000)), HashingWriter(FullDisk()), IDENTITY, "it")
    assert told.value.errno == errno.ENOSPC
