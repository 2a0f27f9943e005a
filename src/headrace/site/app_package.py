"""What the site file needs of an installed package: its manifest and the hash of its file.

Who packed and signed it was judged when it was taken, and its hash was written into the list of packages; here
the file must be that one, and only ``app.toml`` is read, within bounds. A folder without a list has none to
hold against it.
"""

from __future__ import annotations

import hashlib
import io
import tomllib
import zipfile
import zlib
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from headrace.model.app_manifest import AppManifest
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Corrupt, Misconfigured

FOLDER: Final = "packages"
LIST: Final = "index.json"
MANIFEST: Final = "app.toml"
MANIFEST_BYTES_MAX: Final = 1 << 20
PACKAGE_BYTES_MAX: Final = 1 << 28
_REINSTALL: Final = "Install the package again: headrace app install FILE"


class InstalledApp(NamedTuple):
    """One package file. ``sha256``: of its bytes, hex."""

    manifest: AppManifest
    sha256: str


class _Listed(msgspec.Struct, frozen=True):
    """What the list of packages says of one; the catalog's own entry says more."""

    id: str
    version: str
    sha256: str


def package_name(app_id: str, version: str) -> str:
    """Where the package of an app lies, relative to the site file.

    Example:
        >>> package_name("pump-efficiency", "1.0.0")
        'packages/pump-efficiency-1.0.0.hrapp'
    """
    return f"{FOLDER}/{app_id}-{version}.hrapp"


def read_installed(path: Path) -> InstalledApp:
    """The manifest of an installed package.

    Raises:
        Misconfigured: SITE-2101 when it is not there. SITE-2102 when its manifest is none.
        Corrupt: SITE-2103 when the file is damaged or too large. SITE-2160 when it is not the one that the
            list of packages names, SITE-2161 when the list cannot be read.
    """
    try:
        if path.stat().st_size > PACKAGE_BYTES_MAX:
            raise Corrupt("SITE-2103", f"{path.name} has over 256 MB", _REINSTALL)
        content = path.read_bytes()
    except OSError as error:
        raise Misconfigured(
            "SITE-2101",
            f"the package {path.name} is not installed: {error.strerror}",
            "See what is: headrace app list",
        ) from error
    sha256 = hashlib.sha256(content).hexdigest()
    text = _manifest_text(path.name, content)
    manifest = manifest_of(text, path.name)
    _check_listed(path, sha256)
    return InstalledApp(manifest, sha256)


def _check_listed(path: Path, sha256: str) -> None:
    try:
        found = msgspec.json.decode((path.parent / LIST).read_bytes(), type=list[_Listed])
    except FileNotFoundError:
        return
    except (OSError, *UNREADABLE) as error:
        raise Corrupt(
            "SITE-2161",
            f"the list of packages {path.parent / LIST} cannot be read: {error}",
            "Take it away and take the packages again: headrace app install FILE",
        ) from error
    listed = {f"{each.id}-{each.version}.hrapp": each.sha256 for each in found}
    if listed.get(path.name) != sha256:
        known = listed.get(path.name, "")
        told = f"it was taken with {known[:16]}…" if known else "the list of packages lacks it"
        raise Corrupt(
            "SITE-2160",
            f"{path.name} is not the package that was taken: its SHA-256 is {sha256[:16]}…, and {told}",
            _REINSTALL,
        )


def _manifest_text(name: str, content: bytes) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive, archive.open(MANIFEST) as entry:
            text = entry.read(MANIFEST_BYTES_MAX + 1)
    except KeyError as error:
        what = f"{name} has no {MANIFEST}: it is no app"
        raise Misconfigured("SITE-2102", what, _REINSTALL) from error
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError) as error:
        raise Corrupt("SITE-2103", f"{name} is damaged: {error}", _REINSTALL) from error
    if len(text) > MANIFEST_BYTES_MAX:
        raise Corrupt("SITE-2103", f"{MANIFEST} of {name} has over 1 MB", _REINSTALL)
    return text


def manifest_of(text: bytes, name: str) -> AppManifest:
    """The manifest that ``app.toml`` is.

    Raises:
        Misconfigured: SITE-2102 when it is none.

    Example:
        >>> manifest_of(b'id = "loss"\\nversion = "1.0.0"\\ntitle = {en = "Loss"}', "app.toml").word
        'loss'
    """
    try:
        return msgspec.convert(tomllib.loads(text.decode("utf-8-sig")), AppManifest)
    except (ValueError, RecursionError) as error:  # also bad UTF-8, bad TOML, and what does not fit
        what = f"the manifest of {name} cannot be read: {error}"
        raise Misconfigured("SITE-2102", what, "Mend the app: headrace app check") from error
