"""Packages of apps and asset types: one signed file each. The face of this folder."""

from headrace.apps.package.manifest import (
    PackageProblems,
    asset_types,
    check_manifest,
    formula_heads,
    is_id,
    read_manifest,
    view_file,
)
from headrace.apps.package.package import (
    Package,
    Trust,
    certificate_of,
    check_folder,
    content_sha256,
    pack,
    read_folder,
    read_package,
    unpack,
    with_certificate,
    with_signature,
)
from headrace.apps.package.tables import read_table
from headrace.apps.package.versions import in_range, is_range, newest, parse_version

__all__ = [
    "Package",
    "PackageProblems",
    "Trust",
    "asset_types",
    "certificate_of",
    "check_folder",
    "check_manifest",
    "content_sha256",
    "formula_heads",
    "in_range",
    "is_id",
    "is_range",
    "newest",
    "pack",
    "parse_version",
    "read_folder",
    "read_manifest",
    "read_package",
    "read_table",
    "unpack",
    "view_file",
    "with_certificate",
    "with_signature",
]
