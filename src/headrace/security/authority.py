"""The small certificate authority of a hub: it knows its edges, and they know it.

::

    hub/ca.pem, ca.key           the authority, made once for a data folder; the key stays there
    hub/server.pem, server.key   what the hub shows to edges; made anew when its names change
    edge/edge.key                made on the edge's machine and never leaves it
    edge/edge.pem, ca.pem        what the hub signed for it, and the authority that did

Certificates follow RFC 5280: an edge's is for clients only (extended key usage, 4.2.1.12), so none of
them can pose as the hub. What an edge may do ends when the hub forgets it, not by a date.
"""

from __future__ import annotations

import hashlib
import ipaddress
from datetime import timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from headrace.model.errors import Corrupt, Refused
from headrace.model.time import to_datetime
from headrace.security.files import write_whole

VALIDITY: Final = timedelta(days=20 * 365)
CSR_BYTES_MAX: Final = 8_192


def fingerprint(pem: bytes) -> str:
    """SHA-256 of a certificate's DER bytes, in hex.

    Raises:
        Corrupt: SEC-1901 when it is no certificate.
    """
    return hashlib.sha256(_certificate(pem).public_bytes(serialization.Encoding.DER)).hexdigest()


def ensure_authority(hub: Path, now_us: int, name: str = "Headrace hub authority") -> bytes:
    """The authority of this hub, made when there is none; gives its certificate (PEM).

    Args:
        hub: the data folder's ``hub``.
        now_us: start of validity, UTC microseconds. name: of the authority.
    """
    certificate_path, key_path = hub / "ca.pem", hub / "ca.key"
    if certificate_path.is_file() and key_path.is_file():
        return certificate_path.read_bytes()
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name)
    usage = _usage(key_cert_sign=True, crl_sign=True)
    certificate = (
        _builder(subject, subject, key.public_key(), now_us)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    write_whole(key_path, _key_pem(key), mode=0o600)
    write_whole(certificate_path, _pem(certificate), mode=0o644)
    return _pem(certificate)


def ensure_server(hub: Path, names: tuple[str, ...], now_us: int) -> None:
    """The hub's certificate for ``names``, made when there is none for exactly these.

    Args:
        names: host names and IP addresses by which edges reach the hub.
    """
    path = hub / "server.pem"
    if path.is_file() and (hub / "server.key").is_file() and _names(path) == set(names):
        return
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _signed(
        hub,
        _name("Headrace hub"),
        key.public_key(),
        now_us,
        ExtendedKeyUsageOID.SERVER_AUTH,
        x509.SubjectAlternativeName([_general_name(name) for name in names]),
    )
    write_whole(hub / "server.key", _key_pem(key), mode=0o600)
    write_whole(path, certificate, mode=0o644)


def issue(
    folder: Path, name: str, now_us: int, days: int, names: tuple[str, ...] = ()
) -> tuple[bytes, bytes]:
    """A new key and its certificate (both PEM), signed by the authority of a folder.

    Args:
        folder: where :func:`ensure_authority` made it. name: the common name.
        days: valid so long. names: host names and addresses of a server; none for a client.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    known = x509.SubjectAlternativeName([_general_name(each) for each in names]) if names else None
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if names else ExtendedKeyUsageOID.CLIENT_AUTH
    certificate = _signed(
        folder, _name(name), key.public_key(), now_us, purpose, known, timedelta(days=days)
    )
    return certificate, _key_pem(key)


def request_certificate(edge: Path, name: str) -> bytes:
    """A key for this edge, made when there is none, and the request for a certificate (PKCS #10, PEM).

    Args:
        edge: the data folder's ``edge``. name: of the edge.
    """
    path = edge / "edge.key"
    if path.is_file():
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    else:
        key = ec.generate_private_key(ec.SECP256R1())
        write_whole(path, _key_pem(key), mode=0o600)
    assert isinstance(key, ec.EllipticCurvePrivateKey)  # we wrote it
    request = x509.CertificateSigningRequestBuilder().subject_name(_name(name))
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def request_key(request_pem: bytes) -> str:
    """SHA-256 of the public key that asks, in hex: who asks again is the same.

    Raises:
        Refused: SEC-1902 when it is no request, or its asker does not have the key.
    """
    return hashlib.sha256(_public(_request(request_pem))).hexdigest()


def sign_edge(hub: Path, request_pem: bytes, name: str, now_us: int) -> bytes:
    """The edge's certificate (PEM), for the key of its request and the name that the hub gave it.

    Args:
        name: what the certificate says; what the request says is not looked at.

    Raises:
        Refused: SEC-1902 when it is no request, or its asker does not have the key.
    """
    request = _request(request_pem)
    key = request.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)  # _request refuses others
    return _signed(hub, _name(name), key, now_us, ExtendedKeyUsageOID.CLIENT_AUTH, None)


def _request(pem: bytes) -> x509.CertificateSigningRequest:
    try:
        if len(pem) > CSR_BYTES_MAX:
            raise ValueError("it is too long")
        request = x509.load_pem_x509_csr(pem)
        if not isinstance(request.public_key(), ec.EllipticCurvePublicKey):
            raise ValueError("its key is not of an elliptic curve")
        if not request.is_signature_valid:
            raise ValueError("its signature is wrong")
    except (ValueError, InvalidSignature) as error:
        raise Refused(
            "SEC-1902",
            f"this is no request for a certificate: {error}",
            "Join with: headrace edge join",
        ) from error
    return request


def _public(request: x509.CertificateSigningRequest) -> bytes:
    return request.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _signed(
    hub: Path,
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now_us: int,
    purpose: ObjectIdentifier,
    names: x509.SubjectAlternativeName | None,
    validity: timedelta = VALIDITY,
) -> bytes:
    authority = _certificate((hub / "ca.pem").read_bytes())
    authority_key = serialization.load_pem_private_key((hub / "ca.key").read_bytes(), None)
    assert isinstance(authority_key, ec.EllipticCurvePrivateKey)  # we wrote it
    if authority.public_key() != authority_key.public_key():
        raise Corrupt(
            "SEC-1901",
            f"certificate and key of the authority in {hub} do not belong together",
            "A renewal was cut off: run headrace cert renew-authority again.",
        )
    builder = (
        _builder(subject, authority.subject, key, now_us, validity)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    )
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    return _pem(builder.sign(authority_key, hashes.SHA256()))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now_us: int,
    validity: timedelta = VALIDITY,
) -> x509.CertificateBuilder:
    start = to_datetime(now_us)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # A machine whose clock is a little behind must not refuse us.
        .not_valid_before(start - timedelta(days=1))
        .not_valid_after(start + validity)
    )


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _names(path: Path) -> set[str]:
    try:
        names = _certificate(path.read_bytes()).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except (Corrupt, x509.ExtensionNotFound):
        return set()  # not one of ours: make a new one
    return {str(name.value) for name in names.value}


def _certificate(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise Corrupt(
            "SEC-1901", "this is no certificate in PEM form", "Restore it from a backup."
        ) from error


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
