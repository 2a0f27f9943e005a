"""Signed release files: any change of a file, of the sums or of the key is found."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from headrace.model.errors import HeadraceError
from headrace.security.release import SUMS, sign_folder, verify_file


def pair() -> tuple[bytes, bytes]:
    key = Ed25519PrivateKey.generate()
    none = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    public = serialization.PublicFormat.SubjectPublicKeyInfo
    pem = serialization.Encoding.PEM
    return key.private_bytes(pem, form, none), key.public_key().public_bytes(pem, public)


def test_a_release_is_verified_and_any_change_found(tmp_path: Path) -> None:
    private, public = pair()
    wheel = tmp_path / "headrace-1.whl"
    wheel.write_bytes(b"wheel")
    (tmp_path / "sbom.json").write_bytes(b"{}")
    assert sign_folder(tmp_path, private) == ["headrace-1.whl", "sbom.json"]
    assert len(verify_file(wheel, public)) == 64
    sums = (tmp_path / SUMS).read_bytes()

    def refused(code: str, key: bytes = public, path: Path = wheel) -> None:
        with pytest.raises(HeadraceError, match=code):
            verify_file(path, key)

    refused("SEC-1741", pair()[1])
    refused("SEC-1740", b"no key")
    refused("SEC-1740", private)
    refused("SEC-1742", path=tmp_path / "other.whl")
    wheel.write_bytes(b"wheeL")
    refused("SEC-1742")
    wheel.write_bytes(b"wheel")
    (tmp_path / SUMS).write_bytes(sums.replace(b"sbom", b"sbon"))
    refused("SEC-1741")
    (tmp_path / SUMS).unlink()
    refused("SEC-1741")
    with pytest.raises(HeadraceError, match="SEC-1740"):
        sign_folder(tmp_path, public)
