"""Certificates of a broker cluster: an authority of its own, and one certificate a node.

The authority signs the nodes once, when the cluster is planned, and its key is not kept: a node that
comes later needs a new plan. ECDSA P-256, ten years; nodes know each other and clients know the nodes by it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from headrace.model.time import to_datetime

VALID_DAYS: Final = 3_650
EARLIER_DAYS: Final = 1


@dataclass(frozen=True)
class NodeCertificate:
    """Certificate and private key of one node, PEM."""

    certificate_pem: str
    key_pem: str


def cluster_certificates(
    cluster: str, hosts: Mapping[str, str], now_us: int
) -> tuple[str, dict[str, NodeCertificate]]:
    """A new authority (PEM), and a certificate of each node.

    Args:
        cluster: its name, for people. hosts: node -> host name or address that clients connect to.
        now_us: start of validity, UTC microseconds; a day earlier for clocks that differ.

    Example:
        >>> authority, nodes = cluster_certificates("plant", {"a": "127.0.0.1"}, 0)
        >>> authority.startswith("-----BEGIN CERTIFICATE-----"), sorted(nodes)
        (True, ['a'])
    """
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = _name(f"Headrace cluster {cluster}")
    authority = (
        _builder(issuer, issuer, key.public_key(), now_us)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    nodes = {}
    for node, host in hosts.items():
        own = ec.generate_private_key(ec.SECP256R1())
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            _builder(issuer, _name(node), own.public_key(), now_us)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([_general(host)]), critical=False)
            .add_extension(x509.ExtendedKeyUsage(both), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        nodes[node] = NodeCertificate(_pem(certificate), _key_pem(own))
    return _pem(authority), nodes


def _builder(
    issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePublicKey, now_us: int
) -> x509.CertificateBuilder:
    start = to_datetime(now_us)
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - timedelta(days=EARLIER_DAYS))
        .not_valid_after(start + timedelta(days=VALID_DAYS))
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
