"""Application certificates and the trust list, as files (OPC 10000-12, 7.5; OPC 10000-4, 6.1.3).

::

    certificates/
      own/<name>.der, own/<name>.pem   our certificate, and its private key (mode 600)
      trusted/<THUMBPRINT>.der         peers a person said yes to
      rejected/<THUMBPRINT>.der        peers that knocked and wait for a yes

Trust is a choice of a person and holds for exactly these bytes: a thumbprint (SHA-1 in hex, as OPC UA
defines it) names a file, but the comparison is of the whole certificate. No network here.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from headrace.model.errors import Misconfigured
from headrace.model.time import to_datetime, to_us
from headrace.security.files import make_folder, move, write_whole

List = Literal["trusted", "rejected", "own"]
LISTS: Final[tuple[List, ...]] = ("trusted", "rejected", "own")
OWN_VALIDITY: Final = timedelta(days=20 * 365)
REJECTED_MAX: Final = 100
"""A network scanner must not fill the disk: beyond this the oldest rejected certificate goes."""


@dataclass(frozen=True)
class CertificateEntry:
    """One certificate in the folder.

    Attributes:
        thumbprint: SHA-1 of the DER bytes, 40 upper-case hex digits.
        kept_in: ``trusted``, ``rejected`` or ``own``.
        subject: distinguished name.
        application_uri: URI of the subject alternative name; "" when it has none.
        not_before_us, not_after_us: validity, UTC microseconds.
        path: the file.
    """

    thumbprint: str
    kept_in: List
    subject: str
    application_uri: str
    not_before_us: int
    not_after_us: int
    path: Path


def thumbprint(der: bytes) -> str:
    """SHA-1 of a DER certificate in upper-case hex (OPC 10000-6, 6.2.2).

    Example:
        >>> thumbprint(b"")
        'DA39A3EE5E6B4B0D3255BFEF95601890AFD80709'
    """
    digest = hashes.Hash(hashes.SHA1())
    digest.update(der)
    return digest.finalize().hex().upper()


def leaf(der: bytes) -> bytes:
    """The first certificate of a DER chain; servers may send the chain in one blob.

    Raises:
        Misconfigured: EDGE-2031 when the bytes are no certificate.
    """
    if len(der) > 4 and der[0] == 0x30 and der[1] == 0x82:
        der = der[: int.from_bytes(der[2:4], "big") + 4]
    _parse(der, "the server")
    return der


def own_certificate(
    folder: Path, name: str, application_uri: str, now_us: int
) -> tuple[Path, Path]:
    """Our certificate and key for one application, made at first use.

    RSA 2048, SHA-256, self-signed, ``application_uri`` and this host in the subject alternative name,
    the key usages that OPC 10000-6, 6.2.2 asks for.

    Args:
        folder: the certificates folder.
        name: file name without ending.
        application_uri: what the application calls itself in its sessions.
        now_us: start of validity, UTC microseconds.

    Returns:
        Paths of the certificate (DER) and of the private key (PEM, mode 600).
    """
    certificate_path = folder / "own" / f"{name}.der"
    key_path = folder / "own" / f"{name}.pem"
    if certificate_path.is_file() and key_path.is_file():
        entry = _entry(certificate_path, "own")
        if entry.application_uri == application_uri:
            return certificate_path, key_path
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    certificate = _self_signed(key, application_uri, now_us)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_whole(key_path, pem, mode=0o600)
    write_whole(certificate_path, certificate.public_bytes(serialization.Encoding.DER), mode=0o644)
    return certificate_path, key_path


def _self_signed(key: rsa.RSAPrivateKey, application_uri: str, now_us: int) -> x509.Certificate:
    start = to_datetime(now_us)
    host = socket.gethostname()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Headrace on {host}"[:64])])
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=True,
        key_encipherment=True,
        data_encipherment=True,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # A machine whose clock is a little behind must not refuse us.
        .not_valid_before(start - timedelta(days=1))
        .not_valid_after(start + OWN_VALIDITY)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=False)
        .add_extension(usage, critical=False)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
            ),
            critical=False,
        )
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.UniformResourceIdentifier(application_uri), x509.DNSName(host)]
            ),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
    )
    return builder.sign(key, hashes.SHA256())


def is_trusted(folder: Path, der: bytes) -> bool:
    """True when exactly this certificate is in ``trusted/``."""
    path = folder / "trusted" / f"{thumbprint(der)}.der"
    return path.is_file() and path.read_bytes() == der


def reject(folder: Path, der: bytes) -> CertificateEntry:
    """Keep a peer's certificate in ``rejected/``, so that a person can look at it and trust it.

    Raises:
        Misconfigured: EDGE-2031 when the bytes are no certificate.
    """
    path = folder / "rejected" / f"{thumbprint(der)}.der"
    _parse(der, path.name)
    known = sorted((folder / "rejected").glob("*.der"), key=lambda file: file.stat().st_mtime)
    for old in known[: max(0, len(known) - REJECTED_MAX + 1)]:
        if old != path:
            old.unlink(missing_ok=True)
    write_whole(path, der, mode=0o644)
    return _entry(path, "rejected")


def list_certificates(folder: Path) -> list[CertificateEntry]:
    """All certificates in the folder: trusted first, then rejected, then our own.

    Raises:
        Misconfigured: EDGE-2031 naming a file that is no certificate.
    """
    return [_entry(path, name) for name in LISTS for path in sorted((folder / name).glob("*.der"))]


def find_certificate(folder: Path, prefix: str) -> CertificateEntry:
    """The one certificate whose thumbprint starts with ``prefix`` (any case, ``:`` and blanks ignored).

    Raises:
        Misconfigured: EDGE-2030 when there is none, EDGE-2032 when there are several.
    """
    wanted = prefix.replace(":", "").replace(" ", "").upper()
    entries = list_certificates(folder)
    found = [entry for entry in entries if wanted and entry.thumbprint.startswith(wanted)]
    if not found:
        raise Misconfigured(
            "EDGE-2030",
            f"no certificate with the thumbprint {prefix!r} in {folder}",
            "Run `headrace trust list` to see the thumbprints; connect once to get a new one.",
        )
    if len({entry.thumbprint for entry in found}) > 1:
        raise Misconfigured(
            "EDGE-2032",
            f"{len(found)} certificates in {folder} start with {prefix!r}",
            "Give more digits of the thumbprint.",
        )
    return found[0]


def trust(folder: Path, prefix: str) -> CertificateEntry:
    """Move a rejected certificate to ``trusted/``; a trusted one stays.

    Args:
        folder: the certificates folder.
        prefix: thumbprint, or enough of its first digits.

    Raises:
        Misconfigured: EDGE-2030, EDGE-2032 as :func:`find_certificate`; EDGE-2033 for our own.
    """
    entry = find_certificate(folder, prefix)
    return _move(folder, entry, "trusted")


def trust_file(folder: Path, source: Path) -> CertificateEntry:
    """Trust a certificate that came as a file (DER or PEM), before it ever knocked.

    Raises:
        Misconfigured: EDGE-2031 when the file cannot be read or is no certificate.
    """
    try:
        content = source.read_bytes()
    except OSError as error:
        raise Misconfigured(
            "EDGE-2031", f"cannot read {source}: {error.strerror}", "Check the path."
        ) from error
    if content.startswith(b"-----BEGIN"):
        try:
            pem = x509.load_pem_x509_certificate(content)
        except ValueError as error:
            raise _no_certificate(source.name) from error
        content = pem.public_bytes(serialization.Encoding.DER)
    _parse(content, source.name)
    path = folder / "trusted" / f"{thumbprint(content)}.der"
    write_whole(path, content, mode=0o644)
    (folder / "rejected" / path.name).unlink(missing_ok=True)
    return _entry(path, "trusted")


def distrust(folder: Path, prefix: str) -> CertificateEntry:
    """Move a trusted certificate back to ``rejected/``; sessions that are open stay open.

    Raises:
        Misconfigured: as :func:`trust`.
    """
    entry = find_certificate(folder, prefix)
    return _move(folder, entry, "rejected")


def _move(folder: Path, entry: CertificateEntry, to: List) -> CertificateEntry:
    if entry.kept_in == "own":
        raise Misconfigured(
            "EDGE-2033",
            f"certificate {entry.thumbprint} is our own",
            "Own certificates are neither trusted nor rejected here; trust it on the server.",
        )
    target = folder / to / entry.path.name
    if target != entry.path:
        make_folder(target.parent)
        move(entry.path, target)
    return _entry(target, to)


def _entry(path: Path, kept_in: List) -> CertificateEntry:
    der = path.read_bytes()
    certificate = _parse(der, str(path))
    uris: list[str] = []
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        uris = []  # old devices have none; the certificate is still one that can be shown
    return CertificateEntry(
        thumbprint=thumbprint(der),
        kept_in=kept_in,
        subject=certificate.subject.rfc4514_string(),
        application_uri=uris[0] if uris else "",
        not_before_us=to_us(certificate.not_valid_before_utc),
        not_after_us=to_us(certificate.not_valid_after_utc),
        path=path,
    )


def _parse(der: bytes, where: str) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except ValueError as error:
        raise _no_certificate(where) from error


def _no_certificate(where: str) -> Misconfigured:
    return Misconfigured(
        "EDGE-2031", f"{where} does not hold an X.509 certificate", "Remove or replace it."
    )
