"""What a catalog can verify of a bench's certificate without playing its scenarios once more.

The bench runs where the app is written, so that by itself a certificate is the publisher's word. Held against
the package here are: the hash of the app (:func:`headrace.apps.package.package.certificate_of`), each scenario
in the package and its hash, a result for each of them, and the platform's version. A plant that wants more
than the publisher's word names the keys of benches that it trusts: ``benches`` below ``[apps]`` of
``headrace.toml``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headrace import __version__
from headrace.apps.package import Package, in_range
from headrace.apps.package.bench_keys import is_signed_by_bench
from headrace.apps.package.versions import platform_version
from headrace.model.bench_certificate import Certificate
from headrace.model.errors import Refused


def check_certificate(
    package: Package, benches: Sequence[str] = (), scenarios: Mapping[str, str] | None = None
) -> None:
    """Pass when a certificate speaks for a package; one of asset types needs none.

    Args:
        benches: public keys, base64, of the benches that count; none: no signature is asked for.
        scenarios: name -> SHA-256 of those in the package, as the bench of this platform reads them; None:
            they are not looked at.

    Raises:
        Refused: APPS-2056 when it has none, or did not pass. APPS-2065 when it cannot be of this package.
            APPS-2066 when no bench that counts signed it.
    """
    if package.kind != "app":
        return
    certificate = package.certificate
    name = f"{package.id} {package.version}"
    if certificate is None or not certificate.passed:
        how = "has no certificate of the bench for this content"
        if certificate is not None:
            failed = [each.name for each in certificate.results if not each.passed]
            how = f"did not pass the bench: {', '.join(failed[:5]) or 'no scenario'}"
        raise Refused(
            "APPS-2056",
            f"{name} {how}",
            "Bench it, and pack and sign it again: headrace app bench FOLDER",
        )
    if why := _contradiction(package, certificate, scenarios):
        raise Refused(
            "APPS-2065",
            f"the certificate of {name} is not of this package: {why}",
            "Bench it with all its scenarios, and pack and sign it again: headrace app bench FOLDER",
        )
    if certificate.bench and not is_signed_by_bench(certificate):
        raise Refused(
            "APPS-2066",
            f"the certificate of {name} is not signed by the bench that it names",
            "It was changed; bench it again: headrace app bench FOLDER",
        )
    if benches and certificate.bench not in benches:
        raise Refused(
            "APPS-2066",
            f"the certificate of {name} is signed by {certificate.bench or 'no bench'}, which does not "
            "count here",
            "Bench it on one that does, or add its key to benches under [apps] of headrace.toml.",
        )


def check_publishable(
    package: Package, benches: Sequence[str] = (), scenarios: Mapping[str, str] | None = None
) -> None:
    """Pass when a package may be given to others.

    Raises:
        Refused: APPS-2028 when nobody signed it; what :func:`check_certificate` raises.
    """
    check_certificate(package, benches, scenarios)
    if not package.is_signed:
        raise Refused("APPS-2028", "nobody signed this package", "Sign it: headrace app sign")


def _contradiction(
    package: Package, certificate: Certificate, scenarios: Mapping[str, str] | None
) -> str:
    """What of the certificate cannot be so; "" when it all fits."""
    if (certificate.id, certificate.version) != (package.id, package.version):
        return f"it is of {certificate.id} {certificate.version}"
    results = [each.name for each in certificate.results]
    if sorted(results) != sorted(certificate.scenarios):
        return "its results are not those of its scenarios"
    for name, sha256 in sorted(certificate.scenarios.items()):
        if scenarios is None:
            break
        if name not in scenarios:
            return f"it tells of a scenario {name[:60]!r}, which the package lacks"
        # What a scenario of the platform says may change with the platform.
        if certificate.headrace == __version__ and scenarios[name] != sha256:
            return f"the scenario {name[:60]!r} in the package is another one"
    manifest = package.manifest
    assert manifest is not None, "an app has one"
    if not in_range(platform_version(certificate.headrace), manifest.headrace):
        return f"it was benched on Headrace {certificate.headrace}, and runs on {manifest.headrace}"
    return ""
