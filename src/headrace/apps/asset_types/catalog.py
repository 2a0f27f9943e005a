"""``types.toml``: a kind of asset that apps are written for, with the words that plants have for it."""

from __future__ import annotations

import tomllib
import zipfile
import zlib
from importlib import resources
from pathlib import Path
from typing import Final

import msgspec

from headrace.apps.package.versions import parse_version
from headrace.model.app_manifest import Text
from headrace.model.errors import Misconfigured
from headrace.model.units import check_unit

TYPES: Final = "types.toml"
TYPES_BYTES_MAX: Final = 1 << 20
_PLAIN: Final = ("", "text", "condition")
_SHIPPED: Final = "shipped"


class NamedUnit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A quantity or an attribute of a kind of asset.

    Attributes:
        names: other words for it, in any language. node: BrowseName in the companion specification.
    """

    unit: str = ""
    title: Text = {}
    names: tuple[str, ...] = ()
    node: str = ""


class Companion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The OPC UA companion specification that a kind is of: its namespace, version and ObjectType."""

    uri: str
    version: str = ""
    type: str = ""


class TypePackage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole of ``types.toml``.

    Attributes:
        id: which apps name as ``package``. names: other words for it.
    """

    id: str
    version: str
    title: Text
    publisher: str = ""
    names: tuple[str, ...] = ()
    companion: Companion | None = None
    quantities: dict[str, NamedUnit] = {}
    attributes: dict[str, NamedUnit] = {}


def read_types(content: bytes, name: str = TYPES) -> TypePackage:
    """A package of an asset type.

    Raises:
        Misconfigured: APPS-2101 when it cannot be read; MODEL-1001 for a unit that is not known.

    Example:
        >>> text = b'id="tank"\\nversion="1.0.0"\\ntitle={en="Tank"}\\n[quantities.level]\\nunit="m"'
        >>> read_types(text).quantities["level"].unit
        'm'
    """
    try:
        found = msgspec.convert(tomllib.loads(content.decode("utf-8-sig")), TypePackage)
    except (ValueError, RecursionError) as error:  # bad UTF-8, bad TOML, and what does not fit
        what = f"{name} is no asset type: {error}"
        raise Misconfigured("APPS-2101", what, "See docs/apps.md.") from error
    if parse_version(found.version) is None:
        what = f"{name} has the version {found.version[:60]!r}"
        raise Misconfigured("APPS-2101", what, "Write major.minor.patch, such as 1.0.0.")
    for each in (*found.quantities.values(), *found.attributes.values()):
        if each.unit not in _PLAIN:
            check_unit(each.unit)
    return found


def known_types(packages: Path | None = None) -> dict[str, TypePackage]:
    """Id -> the newest version of each asset type: those that come with the platform, and installed ones.

    Args:
        packages: ``DataFolder.packages``; None: only what comes with the platform.

    Raises:
        Misconfigured: APPS-2101 when an installed one cannot be read.
    """
    found: dict[str, TypePackage] = {}
    folder = resources.files("headrace.apps.asset_types") / _SHIPPED
    shipped = [each.read_bytes() for each in folder.iterdir() if each.name.endswith(".toml")]
    for content in [*shipped, *_installed(packages)]:
        made = read_types(content)
        other = found.get(made.id)
        if other is None or _version(made) >= _version(other):
            found[made.id] = made
    return dict(sorted(found.items()))


def _version(made: TypePackage) -> tuple[int, ...]:
    return tuple(parse_version(made.version) or ())


def _installed(packages: Path | None) -> list[bytes]:
    found = []
    for path in sorted(packages.glob("*.hrapp")) if packages is not None else ():
        try:
            with zipfile.ZipFile(path) as archive:
                if TYPES in archive.namelist():
                    with archive.open(TYPES) as entry:
                        found.append(entry.read(TYPES_BYTES_MAX))
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError) as error:
            what = f"{path.name} is damaged: {error}"
            raise Misconfigured("APPS-2101", what, "Install it again.") from error
    return found
