"""The trust list as files."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from headrace.model.errors import Misconfigured
from headrace.security import certificates

NOW_US = 1_763_800_000_000_000
URI = "urn:headrace:acme-mill-local"


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path, _ = certificates.own_certificate(
        tmp_path_factory.mktemp("peer"), "peer", "urn:peer", NOW_US
    )
    return path.read_bytes()


def test_own_certificate_is_made_once_and_the_key_is_ours_alone(tmp_path: Path) -> None:
    certificate_path, key_path = certificates.own_certificate(tmp_path, "opcua", URI, NOW_US)
    assert stat.S_IMODE(key_path.stat().st_mode) == 0o600
    certificate = x509.load_der_x509_certificate(certificate_path.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [URI]
    key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
    assert key.key_size == 2048  # type: ignore[union-attr] # an RSA key
    assert key.public_key().public_numbers() == certificate.public_key().public_numbers()  # type: ignore[union-attr] # both RSA
    before = certificate_path.read_bytes()
    certificates.own_certificate(tmp_path, "opcua", URI, NOW_US + 1)
    assert certificate_path.read_bytes() == before
    certificates.own_certificate(tmp_path, "opcua", "urn:other", NOW_US)
    assert certificate_path.read_bytes() != before
    assert not list(tmp_path.glob("own/*.new"))


def test_trust_is_a_choice_and_can_be_taken_back(tmp_path: Path, peer: bytes) -> None:
    assert not certificates.is_trusted(tmp_path, peer)
    entry = certificates.reject(tmp_path, peer)
    assert entry.thumbprint == certificates.thumbprint(peer)
    assert (entry.kept_in, entry.application_uri) == ("rejected", "urn:peer")
    assert not certificates.is_trusted(tmp_path, peer)
    spaced = ":".join(entry.thumbprint[i : i + 2] for i in range(0, 40, 2)).lower()
    assert certificates.trust(tmp_path, spaced).kept_in == "trusted"
    assert certificates.is_trusted(tmp_path, peer)
    assert [e.kept_in for e in certificates.list_certificates(tmp_path)] == ["trusted"]
    assert certificates.trust(tmp_path, entry.thumbprint).kept_in == "trusted"
    assert certificates.distrust(tmp_path, entry.thumbprint[:6]).kept_in == "rejected"
    assert not certificates.is_trusted(tmp_path, peer)


def test_a_file_under_the_right_name_with_other_bytes_is_not_trusted(
    tmp_path: Path, peer: bytes
) -> None:
    other, _ = certificates.own_certificate(tmp_path, "other", "urn:x", NOW_US)
    target = tmp_path / "trusted" / f"{certificates.thumbprint(peer)}.der"
    target.parent.mkdir()
    target.write_bytes(other.read_bytes())
    assert not certificates.is_trusted(tmp_path, peer)


@pytest.mark.parametrize("form", ["der", "pem"])
def test_a_certificate_can_be_trusted_from_a_file(tmp_path: Path, peer: bytes, form: str) -> None:
    source = tmp_path / f"device.{form}"
    encoding = serialization.Encoding.PEM if form == "pem" else serialization.Encoding.DER
    source.write_bytes(x509.load_der_x509_certificate(peer).public_bytes(encoding))
    certificates.reject(tmp_path, peer)
    assert certificates.trust_file(tmp_path, source).kept_in == "trusted"
    assert [e.kept_in for e in certificates.list_certificates(tmp_path)] == ["trusted"]


def test_wrong_input_says_what_to_do(tmp_path: Path, peer: bytes) -> None:
    with pytest.raises(Misconfigured, match="EDGE-2030"):
        certificates.trust(tmp_path, "ABCD")
    with pytest.raises(Misconfigured, match="EDGE-2030"):
        certificates.trust(tmp_path, "")
    with pytest.raises(Misconfigured, match="EDGE-2031"):
        certificates.reject(tmp_path, b"no certificate")
    with pytest.raises(Misconfigured, match="EDGE-2031"):
        certificates.trust_file(tmp_path, tmp_path / "missing.der")
    with pytest.raises(Misconfigured, match="EDGE-2031"):
        certificates.leaf(b"")
    own, _ = certificates.own_certificate(tmp_path, "opcua", URI, NOW_US)
    with pytest.raises(Misconfigured, match="EDGE-2033"):
        certificates.distrust(tmp_path, certificates.thumbprint(own.read_bytes()))
    assert certificates.leaf(peer + own.read_bytes()) == peer


def test_knocking_strangers_do_not_fill_the_disk(
    tmp_path: Path, peer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "REJECTED_MAX", 2)
    for i in range(3):
        path, _ = certificates.own_certificate(tmp_path / str(i), "x", f"urn:{i}", NOW_US)
        certificates.reject(tmp_path, path.read_bytes())
    certificates.reject(tmp_path, peer)
    kept = [e.thumbprint for e in certificates.list_certificates(tmp_path)]
    assert len(kept) == 2
    assert certificates.thumbprint(peer) in kept
