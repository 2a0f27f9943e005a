"""The signature of a bench on its certificate: Ed25519, over all of it but the signature itself."""

from __future__ import annotations

import msgspec

from headrace.model.bench_certificate import Certificate
from headrace.security.package_keys import is_signed, public_of, sign_bytes


def sign_certificate(certificate: Certificate, key: bytes) -> Certificate:
    """The certificate as a bench with a key of its own gives it.

    Args:
        key: private, PEM.

    Raises:
        Misconfigured: SEC-1740 when it is none.

    Example:
        >>> from headrace.security.package_keys import new_key
        >>> plain = Certificate(id="watch", version="1.0.0", content_sha256="", headrace="0.1.0")
        >>> is_signed_by_bench(sign_certificate(plain, new_key())), is_signed_by_bench(plain)
        (True, False)
    """
    named = msgspec.structs.replace(certificate, bench=public_of(key), signature="")
    return msgspec.structs.replace(named, signature=sign_bytes(key, named.signed_part()))


def is_signed_by_bench(certificate: Certificate) -> bool:
    """Whether the bench that it names signed it."""
    return is_signed(certificate.bench, certificate.signature, certificate.signed_part())
