"""Boxes open for their edge, under their name, with its key; for nobody else."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model.errors import Corrupt, Misconfigured
from headrace.security.sealing import EdgeKey, own_edge_key, seal

DERIVE = bytes(range(32))
KEY = EdgeKey(X25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
OTHER = EdgeKey(X25519PrivateKey.from_private_bytes(bytes(range(2, 34))))


@settings(max_examples=50, deadline=None)
@given(secret=st.text(min_size=1, max_size=200), name=st.text(min_size=1, max_size=20))
def test_a_box_opens_for_its_edge_and_is_always_the_same(secret: str, name: str) -> None:
    box = seal(KEY.public, "north", name, secret, derive=DERIVE)
    assert KEY.open("north", name, box) == secret
    assert box == seal(KEY.public, "north", name, secret, derive=DERIVE)
    assert box != seal(KEY.public, "north", name, secret + "x", derive=DERIVE)
    assert box != seal(KEY.public, "north", name, secret, derive=DERIVE[::-1])
    for key, edge, other in (
        (OTHER, "north", name),
        (KEY, "south", name),
        (KEY, "north", "?" * 30),
    ):
        with pytest.raises(Corrupt, match="SEC-1520"):
            key.open(edge, other, box)


@settings(max_examples=80, deadline=None)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_box_that_was_tampered_with_does_not_open(at: int, bit: int) -> None:
    raw = bytearray(base64.b64decode(seal(KEY.public, "north", "plc", "tulip-7731", derive=DERIVE)))
    at %= len(raw)
    # The top bit of an X25519 key is no part of it (RFC 7748, 5); the salt holds it all the same.
    raw[at] ^= 1 << bit
    with pytest.raises(Corrupt, match="SEC-1520"):
        KEY.open("north", "plc", base64.b64encode(bytes(raw)).decode())


@given(box=st.one_of(st.text(max_size=60), st.binary(max_size=80).map(lambda b: b.hex())))
def test_nonsense_is_refused(box: str) -> None:
    with pytest.raises(Corrupt, match="SEC-1520"):
        KEY.open("north", "plc", box)
    with pytest.raises(Misconfigured, match="SEC-1521"):
        seal(box[:30], "north", "plc", "x", derive=DERIVE)


def test_an_edge_makes_its_key_once_and_for_itself(tmp_path: Path) -> None:
    first = own_edge_key(tmp_path / "keys", "north")
    assert own_edge_key(tmp_path / "keys", "north").public == first.public
    assert own_edge_key(tmp_path / "keys", "south").public != first.public
    path = tmp_path / "keys" / "edge.north.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.write_text("damaged")
    with pytest.raises(Corrupt, match="SEC-1522"):
        own_edge_key(tmp_path / "keys", "north")
