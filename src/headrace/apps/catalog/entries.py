"""What a catalog says of a package, so that people can choose without opening it."""

from __future__ import annotations

import msgspec

from headrace.apps.package import Package
from headrace.apps.package.versions import Version, parse_version


class CatalogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One version of one package.

    Attributes:
        kind: ``app`` or ``types``. title, description: by language.
        sha256: of the ``.hrapp`` file, hex. size: of it, bytes.
        is_signed: by the publisher. publisher: "" when it names none.
        scenarios: of the bench; 0: it was not benched. rating: share of them that it passed.
        benched_on: version of the platform that it was benched on. bench: key of the bench that signed it.
        requires: other packages -> range. types: packages of asset types -> range.
        headrace: range of the platform's versions.
        permissions: what it may, in words that people can judge: ``writes pump.flow``.
        has_python: it has code that runs.
    """

    id: str
    version: str
    kind: str
    sha256: str
    size: int
    title: dict[str, str] = {}
    description: dict[str, str] = {}
    publisher: str = ""
    license: str = ""
    is_signed: bool = False
    scenarios: int = 0
    rating: float = 0.0
    benched_on: str = ""
    bench: str = ""
    requires: dict[str, str] = {}
    types: dict[str, str] = {}
    headrace: str = ""
    permissions: tuple[str, ...] = ()
    has_python: bool = False

    @property
    def file_name(self) -> str:
        """``<id>-<version>.hrapp``."""
        return f"{self.id}-{self.version}.hrapp"

    @property
    def numbers(self) -> Version:
        """Of its version, to compare."""
        return parse_version(self.version) or (0, 0, 0)


def entry_of(package: Package) -> CatalogEntry:
    """What a catalog says of a package."""
    certificate, manifest = package.certificate, package.manifest
    benched = {} if certificate is None else {
        "scenarios": len(certificate.results),
        "rating": certificate.rating,
        "benched_on": certificate.headrace,
        "bench": certificate.bench,
    }  # fmt: skip
    plain = {
        "id": package.id,
        "version": package.version,
        "kind": package.kind,
        "sha256": package.sha256,
        "size": len(package.content),
        "publisher": package.publisher,
        "is_signed": package.is_signed,
    }
    if manifest is None:
        return CatalogEntry(**plain, **benched)  # type: ignore[arg-type] # fields of each kind
    permissions = manifest.permissions
    return CatalogEntry(
        **plain,  # type: ignore[arg-type] # fields of each kind
        **benched,  # type: ignore[arg-type] # fields of each kind
        title=manifest.title,
        description=manifest.description,
        license=manifest.license,
        requires=manifest.requires,
        types=_needed(package),
        headrace=manifest.headrace,
        permissions=(
            *(f"writes {each}" for each in permissions.writes),
            *(f"calls {each}" for each in permissions.calls),
            *(f"network {each}" for each in permissions.network),
            *(["history"] if permissions.history else []),
            *(["orders"] if permissions.orders else []),
        ),
        has_python=bool(manifest.python),
    )


def _needed(package: Package) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    assert package.manifest is not None
    for kind in package.manifest.types.values():
        found.setdefault(kind.package, []).append(kind.version)
    return {name: ", ".join(dict.fromkeys(filter(None, each))) for name, each in found.items()}
